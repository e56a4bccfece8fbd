/*
 * A connection: frames in both directions over one stream, many requests in flight, with back-pressure.
 *
 *   opening --opened--> open --finish--> draining --closed--> (gone)
 *        \-------------- close, error, end of stream ---------/
 *
 * Input is parsed in place: frames are delivered one by one, borrowed, from the connection's buffer. While paused no
 * frame is delivered and, once the buffer holds one whole frame, nothing more is read: the other side feels it. Frames
 * that arrived before the stream's end are delivered before closed, if need be after a pause.
 *
 * Output goes to the stream, which coalesces all frames of a turn into one send.
 *
 * A malformed frame ends the connection, after what was sent before has left: `closed` with STATUS_CORRUPT,
 * STATUS_TOO_LARGE or STATUS_UNSUPPORTED.
 *
 * Owner: the loop of its stream.
 */
#ifndef HOLDFAST_PROTO_CONNECTION_H
#define HOLDFAST_PROTO_CONNECTION_H

#include "node/base/arena.h"
#include "node/env/env.h"
#include "proto/frame.h"

#include <protobuf-c/protobuf-c.h>

struct connection;

struct connection_frame {
    uint8_t type;
    uint64_t request_id;
    struct slice message;
    struct slice raw;
};

struct connection_handler {
    void (*opened)(struct connection_handler *handler);
    /* Borrowed for the call. It may send, pause, finish or close. */
    void (*frame)(struct connection_handler *handler, const struct connection_frame *frame);
    /* The output queue fell below ENV_STREAM_LOW_BYTES after connection_is_full said so. */
    void (*drained)(struct connection_handler *handler);
    /* Last call, exactly once; the connection is gone. err->code STATUS_OK: an orderly end. */
    void (*closed)(struct connection_handler *handler, const struct error *err);
};

struct connection_limits {
    uint32_t message_bytes_max;
    uint32_t raw_bytes_max;
};

/* Before the stream exists. loop: the one of the stream to come; memory is its env's. Borrows handler until closed.
 * STATUS_NO_MEMORY only. */
MUST_USE enum status connection_new(struct env_loop *loop, const struct connection_limits *limits,
                                    struct connection_handler *handler, struct connection **ret_connection);
/* Never attached: frees it. */
void connection_free_unattached(struct connection *connection);

/* What to give env_connect; or what `accepted` returns, after connection_attach. */
struct env_stream_handler *connection_stream_handler(struct connection *connection);
/* The stream that env_connect returned or `accepted` got. From now on closed will come. */
void connection_attach(struct connection *connection, struct env_stream *stream);

/* Between opened and finish, close or closed. message NULL: none. raw parts are copied. STATUS_CLOSED,
 * STATUS_NO_MEMORY, STATUS_TOO_LARGE (beyond LIMIT_FRAME_*): nothing was sent. */
MUST_USE enum status connection_send(struct connection *connection, uint8_t type, uint64_t request_id,
                                     const ProtobufCMessage *message, const struct slice *raw, size_t raw_count);
/* At or above ENV_STREAM_HIGH_BYTES of output: stop producing until drained. */
bool connection_is_full(const struct connection *connection);
/* Output that waits here; and, about, how much has left for the system so far. If bytes wait and others leave, the
 * system had refused some and takes them now: the other side's has acknowledged earlier ones. */
size_t connection_queued_bytes(const struct connection *connection);
uint64_t connection_left_bytes(const struct connection *connection);

void connection_pause(struct connection *connection);
void connection_resume(struct connection *connection);

/* Borrowed; from opened until closed has returned. */
const struct env_peer *connection_peer(const struct connection *connection);

/* Orderly: what was sent leaves first. No more frame calls. */
void connection_finish(struct connection *connection);
/* At once. closed follows. */
void connection_close(struct connection *connection);

/* Unpacks with all memory from the arena, whose budget bounds it. NULL: malformed or over budget. Nothing needs
 * freeing. */
ProtobufCMessage *wire_unpack(struct arena *arena, const ProtobufCMessageDescriptor *descriptor, struct slice message);

#endif
