/*
 * Bytes from the wire: the frame header, a connection that is fed them in pieces, and the messages inside.
 *
 * Input: a byte of switches, a byte that seeds the cutting, then the stream. Switches: 1 pause after each frame, 2
 * close at the third, 4 finish at the fourth, 8 small limits, 128 the rest is one message of the type that the second
 * byte names. Checked: no crash, frames lie within the limits and carry the bytes that were fed, closed runs exactly
 * once, nothing leaks, and memory stays in proportion to what was fed.
 */
#include "node/base/check.h"
#include "node/env/env_loop_internal.h"
#include "proto/connection.h"
#include "tests/unit/support/wire_messages.h"

#include <stdlib.h>

enum { PAUSE = 1, CLOSE = 2, FINISH = 4, SMALL = 8, MESSAGE = 128 };

struct fed {
    struct env env;
    struct alloc alloc;
    struct env_loop loop;
    struct env_stream stream;
    struct env_peer peer;
    struct env_stream_handler *to; /* the connection's */
    struct connection_handler handler;
    struct connection *connection;
    struct connection_limits limits;
    struct arena arena;
    uint8_t switches;
    size_t used_bytes;
    size_t fed_bytes;
    size_t frame_bytes;
    unsigned frames;
    unsigned closed;
    bool stopped;
    bool ended; /* the stream owes closed */
};

enum { HEAD_BYTES = 16 };

static void *counted_resize(struct alloc *alloc, void *ptr, size_t size, size_t align) {
    struct fed *fed = CONTAINER_OF(alloc, struct fed, alloc);
    CHECK(align <= HEAD_BYTES);
    uint8_t *old = ptr != NULL ? (uint8_t *)ptr - HEAD_BYTES : NULL;
    size_t old_size = 0;
    if (old != NULL) {
        memcpy(&old_size, old, sizeof old_size);
    }
    fed->used_bytes += size - old_size;
    if (size == 0) {
        free(old);
        return NULL;
    }
    CHECK(fed->used_bytes <= 64 * 1024 + 8 * fed->fed_bytes);
    uint8_t *block = realloc(old, HEAD_BYTES + size);
    CHECK(block != NULL);
    memcpy(block, &size, sizeof size);
    return block + HEAD_BYTES;
}

static uint64_t clock_us(struct env *env) {
    (void)env;
    return 1;
}

static const struct env_ops env_ops = {.clock_us = clock_us};

static struct fed *of_stream(const struct env_stream *stream) { return CONTAINER_OF(stream, struct fed, stream); }
static enum status stream_write(struct env_stream *stream, const struct slice *parts, size_t part_count) {
    (void)parts;
    CHECK(part_count > 0);
    return of_stream(stream)->ended ? STATUS_CLOSED : STATUS_OK;
}
static size_t stream_queued_bytes(const struct env_stream *stream) {
    (void)stream;
    return 0;
}
static void stream_resume(struct env_stream *stream) { of_stream(stream)->stopped = false; }
static const struct env_peer *stream_peer(const struct env_stream *stream) { return &of_stream(stream)->peer; }
static void stream_end(struct env_stream *stream) { of_stream(stream)->ended = true; }

static const struct env_stream_ops stream_ops = {
    .write = stream_write,
    .queued_bytes = stream_queued_bytes,
    .resume = stream_resume,
    .peer = stream_peer,
    .finish = stream_end,
    .close = stream_end,
};

static void opened(struct connection_handler *handler) { (void)handler; }
static void drained(struct connection_handler *handler) { (void)handler; }

static void frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct fed *fed = CONTAINER_OF(handler, struct fed, handler);
    CHECK(!fed->ended && fed->closed == 0);
    CHECK(frame->message.len <= fed->limits.message_bytes_max && frame->raw.len <= fed->limits.raw_bytes_max);
    fed->frame_bytes += FRAME_HEADER_BYTES + frame->message.len + frame->raw.len;
    CHECK(fed->frame_bytes <= fed->fed_bytes);
    fed->frames++;
    arena_reset(&fed->arena);
    (void)wire_unpack(&fed->arena, wire_messages[frame->type % wire_message_count], frame->message);
    if (fed->switches & PAUSE) {
        connection_pause(fed->connection);
    }
    if ((fed->switches & CLOSE) && fed->frames == 3) {
        connection_close(fed->connection);
    }
    if ((fed->switches & FINISH) && fed->frames == 4) {
        connection_finish(fed->connection);
    }
}

static void closed(struct connection_handler *handler, const struct error *err) {
    struct fed *fed = CONTAINER_OF(handler, struct fed, handler);
    CHECK((unsigned)err->code < STATUS_COUNT);
    fed->closed++;
}

/* Puts the bytes into the connection's room, a random piece at a time, until it or the input ends. */
static void feed(struct fed *fed, const uint8_t *data, size_t len, uint32_t seed) {
    size_t at = 0;
    while (at < len && !fed->ended) {
        uint8_t *room = NULL;
        size_t room_len = 0;
        if (!fed->stopped) {
            fed->to->room(fed->to, &room, &room_len);
        }
        if (room_len == 0) {
            fed->stopped = true;
            connection_resume(fed->connection);
            env__loop_run_tasks(&fed->loop);
            continue;
        }
        seed = seed * 1664525 + 1013904223;
        size_t piece = 1 + (seed >> 8) % ((seed & 1) ? 30 : 5000);
        piece = piece < len - at ? piece : len - at;
        piece = piece < room_len ? piece : room_len;
        memcpy(room, data + at, piece);
        at += piece;
        fed->fed_bytes += piece;
        fed->to->received(fed->to, piece);
        env__loop_run_tasks(&fed->loop);
    }
}

static void run_connection(struct fed *fed, const uint8_t *data, size_t len, uint32_t seed) {
    fed->limits = (struct connection_limits){LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES};
    if (fed->switches & SMALL) {
        fed->limits = (struct connection_limits){100, 1000};
    }
    fed->handler = (struct connection_handler){opened, frame, drained, closed};
    CHECK(connection_new(&fed->loop, &fed->limits, &fed->handler, &fed->connection) == STATUS_OK);
    fed->stream.ops = &stream_ops;
    fed->to = connection_stream_handler(fed->connection);
    connection_attach(fed->connection, &fed->stream);
    fed->to->opened(fed->to);
    feed(fed, data, len, seed);
    fed->ended = true;
    struct error end = {.code = STATUS_OK};
    fed->to->closed(fed->to, &end);
    fed->ended = false; /* frames that arrived may still come */
    for (size_t i = 0; fed->closed == 0; i++) {
        CHECK(i <= len);
        connection_resume(fed->connection);
        env__loop_run_tasks(&fed->loop);
    }
    CHECK(fed->closed == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    if (len < 2) {
        return 0;
    }
    struct fed fed = {.switches = data[0], .alloc.resize = counted_resize};
    fed.env = (struct env){.ops = &env_ops, .alloc = &fed.alloc};
    env__loop_init(&fed.loop, &fed.env, 1);
    arena_init(&fed.arena, alloc_system(), 4096, 1024 * 1024);
    if (fed.switches & MESSAGE) {
        (void)wire_unpack(&fed.arena, wire_messages[data[1] % wire_message_count], slice_of(data + 2, len - 2));
    } else {
        run_connection(&fed, data + 2, len - 2, data[1]);
    }
    arena_deinit(&fed.arena);
    env__loop_deinit(&fed.loop);
    CHECK(fed.used_bytes == 0);
    return 0;
}
