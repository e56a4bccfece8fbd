/*
 * The input buffer of a connection.
 *
 * Frames are parsed where they arrived. A small buffer serves small frames, many of them per read; what is left of a
 * frame at its end moves to the front. A frame that doesn't fit makes the buffer grow, by CONNECTION_INPUT_GROWTH at
 * most and only when it is full, and at last to exactly the frame's length: who announces 16 MiB must send a quarter of
 * them before they are allocated. As nothing behind a large frame is read into its buffer, the buffer is empty once the
 * frame is consumed, and is given back.
 *
 * Invariants: start <= end <= capacity; capacity > CONNECTION_INPUT_BYTES only while one larger frame is under way.
 */
#include "proto/connection_internal.h"

#include "node/base/check.h"

#include <string.h>

static_assert(CONNECTION_INPUT_BYTES >= 4 * FRAME_HEADER_BYTES, "a header fits the smallest buffer many times");

void connection__input_init(struct connection_input *input, struct alloc *alloc,
                            const struct connection_limits *limits) {
    *input = (struct connection_input){.alloc = alloc, .limits = *limits};
}

void connection__input_deinit(struct connection_input *input) {
    mem_free(input->alloc, input->data);
    input->data = NULL;
    input->capacity = input->start = input->end = 0;
}

/* The header at the front, checked; there are enough bytes for one. */
static enum status front_header(const struct connection_input *input, struct frame_header *ret_header,
                                struct error *err) {
    CHECK(connection__input_len(input) >= FRAME_HEADER_BYTES);
    return frame_header_decode(input->data + input->start, input->limits.message_bytes_max, input->limits.raw_bytes_max,
                               ret_header, err);
}

static size_t frame_len(const struct frame_header *header) {
    return FRAME_HEADER_BYTES + (size_t)header->message_len + header->raw_len;
}

enum connection_next connection__input_peek(const struct connection_input *input, struct connection_frame *ret_frame,
                                            size_t *ret_len, struct error *err) {
    if (connection__input_len(input) < FRAME_HEADER_BYTES) {
        return CONNECTION_NEXT_PARTIAL;
    }
    struct frame_header header;
    if (front_header(input, &header, err) != STATUS_OK) {
        return CONNECTION_NEXT_BAD;
    }
    size_t len = frame_len(&header);
    if (connection__input_len(input) < len) {
        return CONNECTION_NEXT_PARTIAL;
    }
    const uint8_t *message = input->data + input->start + FRAME_HEADER_BYTES;
    *ret_frame = (struct connection_frame){
        .type = header.type,
        .request_id = header.request_id,
        .message = slice_of(message, header.message_len),
        .raw = slice_of(message + header.message_len, header.raw_len),
    };
    *ret_len = len;
    return CONNECTION_NEXT_WHOLE;
}

void connection__input_consume(struct connection_input *input, size_t len) {
    CHECK(len <= connection__input_len(input));
    input->start += len;
}

void connection__input_settle(struct connection_input *input) {
    if (input->start < input->end) {
        return;
    }
    input->start = input->end = 0;
    if (input->capacity > CONNECTION_INPUT_BYTES) {
        connection__input_deinit(input);
    }
}

static enum status resize(struct connection_input *input, size_t capacity) {
    uint8_t *data = mem_resize(input->alloc, input->data, capacity);
    if (data == NULL) {
        return STATUS_NO_MEMORY;
    }
    input->data = data;
    input->capacity = capacity;
    return STATUS_OK;
}

enum status connection__input_room(struct connection_input *input, uint8_t **ret_data, size_t *ret_len) {
    connection__input_settle(input);
    if (input->data == NULL && resize(input, CONNECTION_INPUT_BYTES) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    size_t have = connection__input_len(input);
    size_t need = FRAME_HEADER_BYTES;
    if (have >= FRAME_HEADER_BYTES) {
        struct frame_header header;
        enum status status = front_header(input, &header, NULL);
        CHECK(status == STATUS_OK);
        need = frame_len(&header);
    }
    CHECK(have < need);
    /* Move what is there to the front when the frame wouldn't fit behind it, or when reads would become small. */
    size_t behind = input->capacity - input->end;
    if (input->start > 0 && (behind < need - have || behind < input->capacity / 4)) {
        memmove(input->data, input->data + input->start, have);
        input->start = 0;
        input->end = have;
    }
    if (input->end == input->capacity) {
        size_t grown = input->capacity * CONNECTION_INPUT_GROWTH;
        if (resize(input, need < grown ? need : grown) != STATUS_OK) {
            return STATUS_NO_MEMORY;
        }
    }
    *ret_data = input->data + input->end;
    *ret_len = input->capacity - input->end;
    CHECK(*ret_len > 0);
    return STATUS_OK;
}
