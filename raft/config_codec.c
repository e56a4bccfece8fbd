/*
 * A configuration as bytes: the payload of a CONFIG entry, also repeated by log segments and the manifest's frontier.
 * README.md has the layout. Equal configurations have equal bytes; what decodes is what raft__config_check accepts.
 */
#include "node/base/bytes.h"
#include "raft/raft_internal.h"

#include <string.h>

enum { CONFIG_VERSION = 1, FLAG_JOINT = 1, FLAG_OUTGOING = 1 };

size_t raft_config_encoded_size(const struct raft_config *config) {
    size_t size = 4;
    for (uint32_t i = 0; i < config->member_count; i++) {
        size += RAFT_MEMBER_BYTES_MIN + strlen(config->members[i].address);
    }
    return size;
}

size_t raft_config_encode(const struct raft_config *config, uint8_t ret_bytes[RAFT_CONFIG_BYTES_MAX]) {
    CHECK(raft__config_check(config) == STATUS_OK);
    uint8_t *out = ret_bytes;
    *out++ = CONFIG_VERSION;
    *out++ = config->joint ? FLAG_JOINT : 0;
    put_u16(out, (uint16_t)config->member_count);
    out += 2;
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct raft_member *member = &config->members[i];
        size_t address_len = strlen(member->address);
        put_u64(out, member->id);
        out[8] = (uint8_t)member->role;
        out[9] = member->in_outgoing ? FLAG_OUTGOING : 0;
        out[10] = member->priority;
        out[11] = (uint8_t)address_len;
        memcpy(out + RAFT_MEMBER_BYTES_MIN, member->address, address_len);
        out += RAFT_MEMBER_BYTES_MIN + address_len;
    }
    CHECK((size_t)(out - ret_bytes) == raft_config_encoded_size(config));
    return (size_t)(out - ret_bytes);
}

static bool decode_member(struct slice *cursor, struct raft_member *ret_member) {
    uint8_t role;
    uint8_t flags;
    uint8_t address_len;
    struct slice address;
    if (!cursor_u64(cursor, &ret_member->id) || !cursor_u8(cursor, &role) || role > RAFT_LEAVING ||
        !cursor_u8(cursor, &flags) || flags > FLAG_OUTGOING || !cursor_u8(cursor, &ret_member->priority) ||
        !cursor_u8(cursor, &address_len) || !cursor_bytes(cursor, address_len, &address)) {
        return false;
    }
    if (address.len > 0) {
        memcpy(ret_member->address, address.data, address.len); /* behind it all is 0 */
    }
    if (strlen(ret_member->address) != address.len) {
        return false; /* a NUL within */
    }
    ret_member->role = (enum raft_member_role)role;
    ret_member->in_outgoing = flags == FLAG_OUTGOING;
    return true;
}

enum status raft_config_decode(struct slice bytes, struct raft_config *ret_config, struct error *err) {
    static_assert(LIMIT_ADDRESS_BYTES > UINT8_MAX, "any length of an address fits, with its NUL");
    struct raft_config config = {0};
    uint8_t version;
    uint8_t flags;
    uint16_t count;
    if (!cursor_u8(&bytes, &version)) {
        return error_set(err, STATUS_CORRUPT, "the membership is empty");
    }
    if (version != CONFIG_VERSION) {
        return error_set(err, STATUS_UNSUPPORTED, "membership version %u is not known", version);
    }
    if (!cursor_u8(&bytes, &flags) || flags > FLAG_JOINT || !cursor_u16(&bytes, &count) || count > LIMIT_MEMBERS) {
        return error_set(err, STATUS_CORRUPT, "the membership's header is malformed");
    }
    config.joint = flags == FLAG_JOINT;
    config.member_count = count;
    for (uint16_t i = 0; i < count; i++) {
        if (!decode_member(&bytes, &config.members[i])) {
            return error_set(err, STATUS_CORRUPT, "member %u of %u of the membership is malformed", i + 1u, count);
        }
    }
    if (bytes.len > 0) {
        return error_set(err, STATUS_CORRUPT, "%zu bytes follow the membership", bytes.len);
    }
    if (raft__config_check(&config) != STATUS_OK) {
        return error_set(err, STATUS_CORRUPT, "the membership makes no sense");
    }
    *ret_config = config;
    return STATUS_OK;
}
