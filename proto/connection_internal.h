/*
 * What the two halves of a connection share: connection.c has its life and its output, connection_input.c the buffer of
 * bytes that arrived and the frames in it.
 */
#ifndef HOLDFAST_PROTO_CONNECTION_INTERNAL_H
#define HOLDFAST_PROTO_CONNECTION_INTERNAL_H

#include "proto/connection.h"

enum {
    CONNECTION_INPUT_BYTES = 16 * 1024, /* the buffer of a connection without a large frame under way */
    CONNECTION_INPUT_GROWTH = 4         /* a large frame's buffer grows by this factor, each time it has filled */
};

/* The bytes that arrived and weren't delivered: data[start, end). The frame at `start` is the next one. */
struct connection_input {
    struct alloc *alloc;
    struct connection_limits limits;
    uint8_t *data; /* NULL: none needed yet */
    size_t capacity;
    size_t start;
    size_t end;
};

enum connection_next {
    CONNECTION_NEXT_PARTIAL, /* more bytes are needed */
    CONNECTION_NEXT_WHOLE,
    CONNECTION_NEXT_BAD /* its header is refused */
};

void connection__input_init(struct connection_input *input, struct alloc *alloc,
                            const struct connection_limits *limits);
void connection__input_deinit(struct connection_input *input);
static inline size_t connection__input_len(const struct connection_input *input) { return input->end - input->start; }

/* What stands at the front. WHOLE fills *ret_frame, borrowed until the next input_room; BAD fills *err. */
enum connection_next connection__input_peek(const struct connection_input *input, struct connection_frame *ret_frame,
                                            size_t *ret_len, struct error *err);
/* Drops the first len bytes; borrowed bytes stay where they are. */
void connection__input_consume(struct connection_input *input, size_t len);
/* Gives a large buffer back once nothing is in it. */
void connection__input_settle(struct connection_input *input);
/* Room for at least one byte; the front must be PARTIAL. STATUS_NO_MEMORY. */
MUST_USE enum status connection__input_room(struct connection_input *input, uint8_t **ret_data, size_t *ret_len);

#endif
