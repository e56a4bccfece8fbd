/* Membership to bytes and back; what a new data directory begins with. */
#include "node/server/membership.h"

#include "node/base/bytes.h"
#include "node/base/check.h"

#include <string.h>

static_assert((int)RAFT_THUMBPRINT_BYTES == (int)ENV_THUMBPRINT_BYTES, "one kind of thumbprint");

size_t membership_encode(const struct membership *membership, uint8_t ret_bytes[MEMBERSHIP_BYTES_MAX]) {
    put_u64(ret_bytes, membership->index);
    return 8 + (membership->config.member_count > 0 ? raft_config_encode(&membership->config, ret_bytes + 8) : 0);
}

enum status membership_decode(struct slice bytes, struct membership *ret_membership, struct error *err) {
    struct membership membership = {.index = 0};
    if (!cursor_u64(&bytes, &membership.index) || (bytes.len == 0 && membership.index > 0)) {
        return error_set(err, STATUS_CORRUPT, "the membership is cut");
    }
    if (bytes.len > 0) {
        enum status status = raft_config_decode(bytes, &membership.config, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    *ret_membership = membership;
    return STATUS_OK;
}

void membership_bootstrap(const struct config *config, struct membership *ret_membership) {
    CHECK(config->member_count > 0 && config->member_count <= LIMIT_MEMBERS);
    *ret_membership = (struct membership){.index = 0};
    for (uint32_t i = 0; i < config->member_count && !config->join; i++) {
        const struct config_member *from = &config->members[i];
        struct raft_member *member = &ret_membership->config.members[ret_membership->config.member_count++];
        *member = (struct raft_member){.id = from->id, .role = RAFT_VOTER};
        memcpy(member->thumbprint, from->thumbprint, sizeof member->thumbprint);
        memcpy(member->name, from->name, sizeof member->name);
        memcpy(member->address, from->peer_address, sizeof member->address);
        memcpy(member->client_address, from->client_address, sizeof member->client_address);
    }
}
