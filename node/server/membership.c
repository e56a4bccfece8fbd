/* Membership to bytes and back. */
#include "node/server/membership.h"

#include "node/base/check.h"

#include <inttypes.h>

size_t membership_encode(const struct raft_config *membership, uint8_t ret_bytes[MEMBERSHIP_BYTES_MAX]) {
    return raft_config_encode(membership, ret_bytes);
}

enum status membership_decode(struct slice bytes, struct raft_config *ret_membership, struct error *err) {
    return raft_config_decode(bytes, ret_membership, err);
}

void membership_bootstrap(const struct config *config, struct raft_config *ret_membership) {
    CHECK(config->member_count > 0 && config->member_count <= LIMIT_MEMBERS);
    *ret_membership = (struct raft_config){.member_count = config->member_count};
    for (uint32_t i = 0; i < config->member_count; i++) {
        ret_membership->members[i] = (struct raft_member){.id = config->members[i].id, .role = RAFT_VOTER};
    }
}

enum status membership_match(const struct raft_config *membership, const struct config *config, struct error *err) {
    for (uint32_t i = 0; i < membership->member_count; i++) {
        uint64_t id = membership->members[i].id;
        if (config_member_by_id(config, id) == NULL) {
            return error_set(err, STATUS_INVALID,
                             "node %" PRIu64
                             " is in the cluster's membership but has no [member] section in the configuration",
                             id);
        }
    }
    return STATUS_OK;
}
