/*
 * The frame header's bytes, and the translation between statuses and the numbers that go over the wire.
 *
 * Both translations are tables with one row per number; a status or code without a row doesn't compile or doesn't pass
 * its test. Pure functions, any thread.
 */
#include "proto/frame.h"

#include "node/base/bytes.h"
#include "node/base/check.h"
#include "node/base/limits.h"

#include <assert.h>
#include <inttypes.h>

enum {
    MAGIC_AT = 0,
    VERSION_AT = 4,
    TYPE_AT = 5,
    FLAGS_AT = 6,
    REQUEST_ID_AT = 8,
    MESSAGE_LEN_AT = 16,
    RAW_LEN_AT = 20
};

static_assert(RAW_LEN_AT + sizeof(uint32_t) == FRAME_HEADER_BYTES, "the header is as long as frame.h says");
static_assert(LIMIT_FRAME_MESSAGE_BYTES <= UINT32_MAX && LIMIT_FRAME_RAW_BYTES <= UINT32_MAX, "lengths are 32 bits");

/* What went wrong inside this node without being the asker's fault is INTERNAL or UNAVAILABLE; the message has the
 * rest. */
static const uint8_t code_of_status[] = {
    [STATUS_OK] = WIRE_OK,
    [STATUS_NOT_FOUND] = WIRE_NOT_FOUND,
    [STATUS_EXISTS] = WIRE_EXISTS,
    [STATUS_CORRUPT] = WIRE_CORRUPT,
    [STATUS_IO] = WIRE_INTERNAL,
    [STATUS_NO_SPACE] = WIRE_NO_SPACE,
    [STATUS_NO_MEMORY] = WIRE_BUSY,
    [STATUS_INVALID] = WIRE_INVALID,
    [STATUS_TOO_LARGE] = WIRE_TOO_LARGE,
    [STATUS_BUSY] = WIRE_BUSY,
    [STATUS_TIMEOUT] = WIRE_TIMEOUT,
    [STATUS_CLOSED] = WIRE_UNAVAILABLE,
    [STATUS_CANCELLED] = WIRE_UNAVAILABLE,
    [STATUS_NOT_LEADER] = WIRE_NOT_LEADER,
    [STATUS_UNAVAILABLE] = WIRE_UNAVAILABLE,
    [STATUS_DENIED] = WIRE_DENIED,
    [STATUS_UNSUPPORTED] = WIRE_UNSUPPORTED,
    [STATUS_CONDITION] = WIRE_CONDITION,
    [STATUS_UNKNOWN] = WIRE_UNKNOWN,
    [STATUS_COMPACTED] = WIRE_COMPACTED,
    [STATUS_FAILED] = WIRE_UNAVAILABLE,
    [STATUS_PENDING] = WIRE_INTERNAL,
};
static_assert(sizeof code_of_status == STATUS_COUNT, "every status has a code");

static const uint8_t status_of_code[] = {
    [WIRE_OK] = STATUS_OK,
    [WIRE_NOT_FOUND] = STATUS_NOT_FOUND,
    [WIRE_INVALID] = STATUS_INVALID,
    [WIRE_TOO_LARGE] = STATUS_TOO_LARGE,
    [WIRE_BUSY] = STATUS_BUSY,
    [WIRE_TIMEOUT] = STATUS_TIMEOUT,
    [WIRE_NOT_LEADER] = STATUS_NOT_LEADER,
    [WIRE_UNAVAILABLE] = STATUS_UNAVAILABLE,
    [WIRE_DENIED] = STATUS_DENIED,
    [WIRE_UNSUPPORTED] = STATUS_UNSUPPORTED,
    [WIRE_NO_SPACE] = STATUS_NO_SPACE,
    [WIRE_CORRUPT] = STATUS_CORRUPT,
    [WIRE_INTERNAL] = STATUS_IO,
    [WIRE_COMPACTED] = STATUS_COMPACTED,
    [WIRE_UNKNOWN] = STATUS_UNKNOWN,
    [WIRE_CONDITION] = STATUS_CONDITION,
    [WIRE_EXISTS] = STATUS_EXISTS,
};
static_assert(sizeof status_of_code == WIRE_EXISTS + 1, "every code below the refusals has a status");

enum wire_code wire_code_of(enum status status) {
    CHECK((unsigned)status < STATUS_COUNT);
    return (enum wire_code)code_of_status[status];
}

enum status status_of_wire(uint32_t code) {
    if (code < sizeof status_of_code) {
        return (enum status)status_of_code[code];
    }
    /* Reasons of a refusal: the identity or the cluster is the wrong one. */
    bool refused = code >= WIRE_NO_CERTIFICATE && code <= WIRE_REMOVED;
    return refused ? STATUS_DENIED : STATUS_UNSUPPORTED;
}

void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], const struct frame_header *header) {
    put_u32(out + MAGIC_AT, FRAME_MAGIC);
    out[VERSION_AT] = FRAME_VERSION;
    out[TYPE_AT] = header->type;
    put_u16(out + FLAGS_AT, 0);
    put_u64(out + REQUEST_ID_AT, header->request_id);
    put_u32(out + MESSAGE_LEN_AT, header->message_len);
    put_u32(out + RAW_LEN_AT, header->raw_len);
}

enum status frame_header_decode(const uint8_t *in, uint32_t message_len_max, uint32_t raw_len_max,
                                struct frame_header *ret_header, struct error *err) {
    uint32_t magic = get_u32(in + MAGIC_AT);
    if (magic != FRAME_MAGIC) {
        return error_set(err, STATUS_CORRUPT, "not a frame: it begins with %08" PRIx32 " instead of %08x", magic,
                         FRAME_MAGIC);
    }
    if (in[VERSION_AT] != FRAME_VERSION) {
        return error_set(err, STATUS_UNSUPPORTED, "frame version %u; this side speaks version %u", in[VERSION_AT],
                         FRAME_VERSION);
    }
    uint16_t flags = get_u16(in + FLAGS_AT);
    if (flags != 0) {
        return error_set(err, STATUS_CORRUPT, "frame of type %u with unknown flags %04x", in[TYPE_AT], flags);
    }
    struct frame_header header = {
        .type = in[TYPE_AT],
        .request_id = get_u64(in + REQUEST_ID_AT),
        .message_len = get_u32(in + MESSAGE_LEN_AT),
        .raw_len = get_u32(in + RAW_LEN_AT),
    };
    if (header.message_len > message_len_max) {
        return error_set(err, STATUS_TOO_LARGE,
                         "frame of type %u announces a message of %" PRIu32 " bytes; the limit is %" PRIu32,
                         header.type, header.message_len, message_len_max);
    }
    if (header.raw_len > raw_len_max) {
        return error_set(err, STATUS_TOO_LARGE,
                         "frame of type %u announces %" PRIu32 " raw bytes; the limit is %" PRIu32, header.type,
                         header.raw_len, raw_len_max);
    }
    *ret_header = header;
    return STATUS_OK;
}
