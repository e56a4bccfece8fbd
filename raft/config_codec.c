/*
 * A configuration as bytes: the payload of a CONFIG entry, also repeated by log segments and the manifest's frontier.
 * README.md has the layout. Equal configurations have equal bytes; what decodes is what raft__config_check accepts.
 */
#include "node/base/bytes.h"
#include "raft/raft_internal.h"

#include <string.h>

enum { CONFIG_VERSION = 1, FLAG_JOINT = 1, FLAG_OUTGOING = 1, FLAG_RETURNS = 2 };

size_t raft_config_encoded_size(const struct raft_config *config) {
    size_t size = 12;
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct raft_member *member = &config->members[i];
        size += RAFT_MEMBER_BYTES_MIN + strlen(member->name) + strlen(member->address) + strlen(member->client_address);
    }
    return size;
}

static uint8_t *put_text(uint8_t *out, const char *text) {
    struct slice bytes = slice_of_string(text);
    *out++ = (uint8_t)bytes.len;
    memcpy(out, bytes.data, bytes.len);
    return out + bytes.len;
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
        put_u64(out, member->id);
        out[8] = (uint8_t)member->role;
        out[9] = (uint8_t)((member->in_outgoing ? FLAG_OUTGOING : 0) | (member->returns ? FLAG_RETURNS : 0));
        out[10] = member->priority;
        put_u64(out + 11, member->incarnation);
        memcpy(out + 19, member->thumbprint, RAFT_THUMBPRINT_BYTES);
        out = put_text(out + 19 + RAFT_THUMBPRINT_BYTES, member->name);
        out = put_text(out, member->address);
        out = put_text(out, member->client_address);
    }
    put_u64(out, config->retired_id);
    out += 8;
    CHECK((size_t)(out - ret_bytes) == raft_config_encoded_size(config));
    return (size_t)(out - ret_bytes);
}

/* Into zeroed memory of `size` bytes; behind the text it stays 0. */
static bool decode_text(struct slice *cursor, char *text, size_t size) {
    uint8_t len;
    struct slice bytes;
    if (!cursor_u8(cursor, &len) || len >= size || !cursor_bytes(cursor, len, &bytes)) {
        return false;
    }
    if (bytes.len > 0) {
        memcpy(text, bytes.data, bytes.len);
    }
    return strlen(text) == bytes.len; /* no NUL within */
}

static bool decode_member(struct slice *cursor, struct raft_member *ret_member) {
    uint8_t role;
    uint8_t flags;
    struct slice thumbprint;
    if (!cursor_u64(cursor, &ret_member->id) || !cursor_u8(cursor, &role) || role > RAFT_LEAVING ||
        !cursor_u8(cursor, &flags) || flags > (FLAG_OUTGOING | FLAG_RETURNS) ||
        !cursor_u8(cursor, &ret_member->priority) || !cursor_u64(cursor, &ret_member->incarnation) ||
        !cursor_bytes(cursor, RAFT_THUMBPRINT_BYTES, &thumbprint)) {
        return false;
    }
    memcpy(ret_member->thumbprint, thumbprint.data, RAFT_THUMBPRINT_BYTES);
    ret_member->role = (enum raft_member_role)role;
    ret_member->in_outgoing = (flags & FLAG_OUTGOING) != 0;
    ret_member->returns = (flags & FLAG_RETURNS) != 0;
    return decode_text(cursor, ret_member->name, sizeof ret_member->name) &&
           decode_text(cursor, ret_member->address, sizeof ret_member->address) &&
           decode_text(cursor, ret_member->client_address, sizeof ret_member->client_address);
}

enum status raft_config_decode(struct slice bytes, struct raft_config *ret_config, struct error *err) {
    static_assert(LIMIT_ADDRESS_BYTES <= UINT8_MAX && LIMIT_NAME_BYTES <= UINT8_MAX, "a byte holds any length");
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
    if (!cursor_u64(&bytes, &config.retired_id)) {
        return error_set(err, STATUS_CORRUPT, "the membership is cut behind its members");
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
