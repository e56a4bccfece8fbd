/* Membership to bytes and back. */
#include "node/server/membership.h"

#include "node/base/bytes.h"
#include "node/base/check.h"

#include <inttypes.h>

enum { MEMBERSHIP_VERSION = 1, MEMBER_BYTES = 10 };

static_assert((int)MEMBERSHIP_BYTES_MAX <= (int)LIMIT_MEMBERSHIP_BYTES, "a membership must fit where it is repeated");

size_t membership_encode(const struct raft_config *membership, uint8_t ret_bytes[MEMBERSHIP_BYTES_MAX]) {
    CHECK(membership->member_count <= LIMIT_MEMBERS);
    uint8_t *out = ret_bytes;
    *out++ = MEMBERSHIP_VERSION;
    *out++ = membership->joint ? 1 : 0;
    put_u16(out, (uint16_t)membership->member_count);
    out += 2;
    for (uint32_t i = 0; i < membership->member_count; i++) {
        const struct raft_member *member = &membership->members[i];
        put_u64(out, member->id);
        out[8] = (uint8_t)member->role;
        out[9] = member->in_outgoing ? 1 : 0;
        out += MEMBER_BYTES;
    }
    return (size_t)(out - ret_bytes);
}

enum status membership_decode(struct slice bytes, struct raft_config *ret_membership, struct error *err) {
    struct raft_config membership = {0};
    uint8_t version;
    uint8_t joint;
    uint16_t count;
    if (!cursor_u8(&bytes, &version)) {
        return error_set(err, STATUS_CORRUPT, "membership is empty");
    }
    if (version != MEMBERSHIP_VERSION) {
        return error_set(err, STATUS_UNSUPPORTED, "membership version %u is not known", version);
    }
    if (!cursor_u8(&bytes, &joint) || joint > 1 || !cursor_u16(&bytes, &count) || count == 0 || count > LIMIT_MEMBERS ||
        bytes.len != (size_t)count * MEMBER_BYTES) {
        return error_set(err, STATUS_CORRUPT, "membership is malformed");
    }
    membership.joint = joint == 1;
    membership.member_count = count;
    for (uint16_t i = 0; i < count; i++) {
        uint64_t id = get_u64(bytes.data);
        uint8_t role = bytes.data[8];
        uint8_t outgoing = bytes.data[9];
        if (id == RAFT_NO_NODE || role > RAFT_LEARNER || outgoing > 1) {
            return error_set(err, STATUS_CORRUPT, "membership has a malformed member");
        }
        membership.members[i] =
            (struct raft_member){.id = id, .role = (enum raft_member_role)role, .in_outgoing = outgoing == 1};
        cursor_skip(&bytes, MEMBER_BYTES);
    }
    *ret_membership = membership;
    return STATUS_OK;
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
