/*
 * The life of a connection, and its output.
 *
 *   NEW --attach--> OPENING --opened--> OPEN --finish, close, bad frame--> ENDING --closed--> (gone)
 *                      \---------------------- close ----------------------/
 *
 * The stream may end first: frames that arrived before are still delivered, also when the owner has paused, and only
 * then comes `closed`. Until then the connection has no stream and its state stays OPEN, or ENDING when the owner gave
 * up waiting.
 *
 * Frames are delivered from the stream's `received`, or from the task that resume defers: never inside a call of the
 * owner. `frame` may do anything to the connection, which stays in memory until `closed` has returned.
 *
 * Invariant: closed runs exactly once, with no stream left; whatever runs after a callback of the owner looks at the
 * state again.
 */
#include "proto/connection_internal.h"

#include "node/base/check.h"

#include <string.h>

enum connection_state { CONNECTION_NEW, CONNECTION_OPENING, CONNECTION_OPEN, CONNECTION_ENDING };

enum {
    MESSAGE_STACK_BYTES = 1024, /* larger messages are packed into memory of their own */
    PARTS_STACK_COUNT = 8
};

struct connection {
    struct env_stream_handler stream_handler;
    struct env_stream *stream; /* NULL before attach and after its end */
    struct env_loop *loop;
    struct alloc *alloc;
    struct connection_handler *handler;
    enum connection_state state;
    bool paused;
    bool stopped; /* room said no: the stream waits for resume */
    bool failed;  /* `end` is ours, whatever the stream says at its end */
    struct error end;
    struct env_task task; /* delivers after resume, and what couldn't be said at once */
    struct connection_input input;
    uint64_t written_bytes; /* of frames, to the stream */
    struct env_peer peer;   /* the stream's, kept when it is gone */
};

/* ---- The end ------------------------------------------------------------------------------------------------- */

static void deliver_closed(struct connection *connection) {
    CHECK(connection->stream == NULL);
    connection->state = CONNECTION_ENDING;
    env_task_cancel(&connection->task);
    connection->handler->closed(connection->handler, &connection->end);
    env_task_cancel(&connection->task); /* closed may have called us */
    connection__input_deinit(&connection->input);
    mem_free(connection->alloc, connection);
}

/* A frame that can't be: what was sent before still leaves, nothing more is read. */
static void fail(struct connection *connection, const struct error *err) {
    CHECK(connection->state != CONNECTION_ENDING);
    connection->state = CONNECTION_ENDING;
    connection->failed = true;
    connection->end = *err;
    if (connection->stream != NULL) {
        env_stream_finish(connection->stream);
    } else {
        env_defer(connection->loop, ENV_STAGE_PROCESS, &connection->task);
    }
}

/* ---- Input --------------------------------------------------------------------------------------------------- */

static void deliver_frames(struct connection *connection) {
    struct connection_input *input = &connection->input;
    while (connection->state == CONNECTION_OPEN && !connection->paused) {
        struct connection_frame frame;
        size_t len;
        struct error err;
        enum connection_next next = connection__input_peek(input, &frame, &len, &err);
        if (next == CONNECTION_NEXT_PARTIAL) {
            break;
        }
        if (next == CONNECTION_NEXT_BAD) {
            fail(connection, &err);
            break;
        }
        connection__input_consume(input, len);
        connection->handler->frame(connection->handler, &frame);
    }
    connection__input_settle(input);
}

/* True when the bytes at hand suffice for the next call of `frame`, or for refusing it. */
static bool has_frame(const struct connection *connection) {
    struct connection_frame frame;
    size_t len;
    return connection__input_peek(&connection->input, &frame, &len, NULL) != CONNECTION_NEXT_PARTIAL;
}

/* After the stream's end: nothing more can come, so the end is said once nothing is left to deliver. */
static void end_if_drained(struct connection *connection) {
    if (connection->state == CONNECTION_OPEN) {
        if (connection->paused && has_frame(connection)) {
            return;
        }
        if (connection->end.code == STATUS_OK && connection__input_len(&connection->input) > 0) {
            (void)error_set(&connection->end, STATUS_CLOSED, "the stream ended within a frame");
        }
    }
    deliver_closed(connection);
}

static void run_task(struct env_task *task) {
    struct connection *connection = CONTAINER_OF(task, struct connection, task);
    deliver_frames(connection);
    if (connection->stream == NULL) {
        end_if_drained(connection);
    } else if (connection->state != CONNECTION_ENDING && connection->stopped && !has_frame(connection)) {
        connection->stopped = false;
        env_stream_resume(connection->stream);
    }
}

/* ---- What the stream calls ----------------------------------------------------------------------------------- */

static struct connection *of_handler(struct env_stream_handler *handler) {
    return CONTAINER_OF(handler, struct connection, stream_handler);
}

static void stream_opened(struct env_stream_handler *handler) {
    struct connection *connection = of_handler(handler);
    if (connection->state == CONNECTION_OPENING) {
        connection->state = CONNECTION_OPEN;
        connection->handler->opened(connection->handler);
    }
}

static void stream_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    struct connection *connection = of_handler(handler);
    *ret_data = NULL;
    *ret_len = 0;
    if (connection->state == CONNECTION_ENDING || has_frame(connection)) {
        connection->stopped = true;
        return;
    }
    if (connection__input_room(&connection->input, ret_data, ret_len) != STATUS_OK) {
        connection->stopped = true;
        connection->state = CONNECTION_ENDING;
        connection->failed = true;
        (void)error_set(&connection->end, STATUS_NO_MEMORY, "no memory for input");
        env_stream_close(connection->stream);
    }
}

static void stream_received(struct env_stream_handler *handler, size_t len) {
    struct connection *connection = of_handler(handler);
    if (connection->state == CONNECTION_ENDING) {
        return;
    }
    CHECK(len <= connection->input.capacity - connection->input.end);
    connection->input.end += len;
    deliver_frames(connection);
}

static void stream_drained(struct env_stream_handler *handler) {
    struct connection *connection = of_handler(handler);
    if (connection->state == CONNECTION_OPEN) {
        connection->handler->drained(connection->handler);
    }
}

static void stream_closed(struct env_stream_handler *handler, const struct error *err) {
    struct connection *connection = of_handler(handler);
    connection->peer = *env_stream_peer(connection->stream);
    connection->stream = NULL;
    if (!connection->failed) {
        connection->end = *err;
    }
    end_if_drained(connection);
}

/* ---- What the owner calls ------------------------------------------------------------------------------------ */

enum status connection_new(struct env_loop *loop, const struct connection_limits *limits,
                           struct connection_handler *handler, struct connection **ret_connection) {
    CHECK(limits->message_bytes_max <= LIMIT_FRAME_MESSAGE_BYTES && limits->raw_bytes_max <= LIMIT_FRAME_RAW_BYTES);
    struct alloc *alloc = env_loop_env(loop)->alloc;
    struct connection *connection = mem_alloc_zero(alloc, sizeof *connection);
    if (connection == NULL) {
        return STATUS_NO_MEMORY;
    }
    connection->stream_handler = (struct env_stream_handler){
        .opened = stream_opened,
        .room = stream_room,
        .received = stream_received,
        .drained = stream_drained,
        .closed = stream_closed,
    };
    connection->loop = loop;
    connection->alloc = alloc;
    connection->handler = handler;
    env_task_init(&connection->task, run_task);
    connection__input_init(&connection->input, alloc, limits);
    *ret_connection = connection;
    return STATUS_OK;
}

void connection_free_unattached(struct connection *connection) {
    if (connection != NULL) {
        CHECK(connection->state == CONNECTION_NEW);
        mem_free(connection->alloc, connection);
    }
}

struct env_stream_handler *connection_stream_handler(struct connection *connection) {
    return &connection->stream_handler;
}

void connection_attach(struct connection *connection, struct env_stream *stream) {
    CHECK(connection->state == CONNECTION_NEW && stream != NULL);
    connection->stream = stream;
    connection->state = CONNECTION_OPENING;
}

size_t connection_queued_bytes(const struct connection *connection) {
    return connection->stream != NULL ? env_stream_queued_bytes(connection->stream) : 0;
}

bool connection_is_full(const struct connection *connection) {
    return connection_queued_bytes(connection) >= ENV_STREAM_HIGH_BYTES;
}

uint64_t connection_left_bytes(const struct connection *connection) {
    uint64_t queued_bytes = connection_queued_bytes(connection); /* encrypted ones are a few more */
    return connection->written_bytes > queued_bytes ? connection->written_bytes - queued_bytes : 0;
}

void connection_pause(struct connection *connection) { connection->paused = true; }

void connection_resume(struct connection *connection) {
    if (connection->paused) {
        connection->paused = false;
        env_defer(connection->loop, ENV_STAGE_PROCESS, &connection->task);
    }
}

const struct env_peer *connection_peer(const struct connection *connection) {
    return connection->stream != NULL ? env_stream_peer(connection->stream) : &connection->peer;
}

void connection_finish(struct connection *connection) {
    CHECK(connection->state != CONNECTION_NEW);
    if (connection->state == CONNECTION_ENDING) {
        return;
    }
    connection->state = CONNECTION_ENDING;
    if (connection->stream != NULL) {
        env_stream_finish(connection->stream);
    } else {
        env_defer(connection->loop, ENV_STAGE_PROCESS, &connection->task);
    }
}

void connection_close(struct connection *connection) {
    CHECK(connection->state != CONNECTION_NEW);
    if (connection->stream != NULL) {
        connection->state = CONNECTION_ENDING;
        env_stream_close(connection->stream);
    } else if (connection->state != CONNECTION_ENDING) {
        connection->state = CONNECTION_ENDING;
        env_defer(connection->loop, ENV_STAGE_PROCESS, &connection->task);
    }
}

/* ---- Output -------------------------------------------------------------------------------------------------- */

/* Sums lengths; false beyond what a frame may carry. */
static bool raw_total(const struct slice *raw, size_t raw_count, size_t *ret_total) {
    size_t total = 0;
    for (size_t i = 0; i < raw_count; i++) {
        if (raw[i].len > LIMIT_FRAME_RAW_BYTES - total) {
            return false;
        }
        total += raw[i].len;
    }
    *ret_total = total;
    return true;
}

enum status connection_send(struct connection *connection, uint8_t type, uint64_t request_id,
                            const ProtobufCMessage *message, const struct slice *raw, size_t raw_count) {
    if (connection->state != CONNECTION_OPEN || connection->stream == NULL) {
        return STATUS_CLOSED;
    }
    size_t message_len = message != NULL ? protobuf_c_message_get_packed_size(message) : 0;
    size_t raw_len;
    if (message_len > LIMIT_FRAME_MESSAGE_BYTES || !raw_total(raw, raw_count, &raw_len)) {
        return STATUS_TOO_LARGE;
    }
    uint8_t head_stack[FRAME_HEADER_BYTES + MESSAGE_STACK_BYTES];
    struct slice parts_stack[PARTS_STACK_COUNT];
    uint8_t *head = head_stack;
    struct slice *parts = parts_stack;
    enum status status = STATUS_NO_MEMORY;
    if (message_len > MESSAGE_STACK_BYTES) {
        head = mem_alloc(connection->alloc, FRAME_HEADER_BYTES + message_len);
    }
    if (raw_count + 1 > PARTS_STACK_COUNT) {
        parts = mem_alloc(connection->alloc, (raw_count + 1) * sizeof *parts);
    }
    if (head == NULL || parts == NULL) {
        goto out;
    }
    struct frame_header header = {type, request_id, (uint32_t)message_len, (uint32_t)raw_len};
    frame_header_encode(head, &header);
    if (message != NULL) {
        size_t packed = protobuf_c_message_pack(message, head + FRAME_HEADER_BYTES);
        CHECK(packed == message_len);
    }
    parts[0] = slice_of(head, FRAME_HEADER_BYTES + message_len);
    if (raw_count > 0) {
        memcpy(parts + 1, raw, raw_count * sizeof *raw);
    }
    status = env_stream_write(connection->stream, parts, raw_count + 1);
    connection->written_bytes += status == STATUS_OK ? FRAME_HEADER_BYTES + message_len + raw_len : 0;
out:
    if (head != head_stack) {
        mem_free(connection->alloc, head);
    }
    if (parts != parts_stack) {
        mem_free(connection->alloc, parts);
    }
    return status;
}
