/* One table of fields for both directions. */
#include "node/server/raft_wire.h"

#define RAFT_WIRE_FIELDS(X)                                                                                            \
    X(reject)                                                                                                          \
    X(from)                                                                                                            \
    X(to)                                                                                                              \
    X(term)                                                                                                            \
    X(index)                                                                                                           \
    X(log_term)                                                                                                        \
    X(commit)                                                                                                          \
    X(hint_index) X(hint_term) X(round) X(floor) X(entry_count) X(digest_index) X(lost_log) X(life) X(needs_snapshot)

void raft_wire_encode(const struct raft_message *message, Wire__RaftMessage *ret_wire) {
    wire__raft_message__init(ret_wire);
    ret_wire->has_type = 1;
    ret_wire->type = (uint32_t)message->type;
#define ENCODE(field)                                                                                                  \
    ret_wire->has_##field = message->field != 0;                                                                       \
    ret_wire->field = message->field;
    RAFT_WIRE_FIELDS(ENCODE)
#undef ENCODE
    if (message->digest_index != 0) {
        ret_wire->has_digest = 1;
        ret_wire->digest.data = (uint8_t *)message->digest;
        ret_wire->digest.len = sizeof message->digest;
    }
}

enum status raft_wire_decode(const Wire__RaftMessage *wire, struct raft_message *ret_message, struct error *err) {
    if (wire->type == 0 || wire->type >= RAFT_MESSAGE_TYPE_COUNT) {
        return error_set(err, STATUS_CORRUPT, "raft message type %u is not known", wire->type);
    }
    struct raft_message message = {.type = (enum raft_message_type)wire->type};
#define DECODE(field) message.field = wire->field;
    RAFT_WIRE_FIELDS(DECODE)
#undef DECODE
    if (message.entry_count > 0 && message.type != RAFT_APPEND) {
        return error_set(err, STATUS_CORRUPT, "raft message of type %u carries entries", wire->type);
    }
    if (message.entry_count > LIMIT_APPEND_BYTES) {
        return error_set(err, STATUS_CORRUPT, "raft message claims %u entries", message.entry_count);
    }
    if (message.digest_index != 0) {
        if (wire->digest.len != sizeof message.digest) {
            return error_set(err, STATUS_CORRUPT, "raft message with a digest of %zu bytes", wire->digest.len);
        }
        memcpy(message.digest, wire->digest.data, sizeof message.digest);
    }
    *ret_message = message;
    return STATUS_OK;
}
