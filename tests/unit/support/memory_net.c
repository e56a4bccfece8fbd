/*
 * Streams that are buffers: see memory_net.h. A stream's `in` holds what is in flight towards it. The order within a
 * turn is that of env.h: input, timers, messages, tasks.
 */
#include "tests/unit/support/memory_net.h"

#include "node/base/buf.h"
#include "node/base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIPE_BYTES = 64 * 1024, BLOCK_HEAD_BYTES = 16, TURNS_MAX = 10 * 1000 * 1000 };

struct memory_stream {
    struct env_stream base;
    struct memory_world *world;
    struct memory_stream *other; /* NULL once it is gone */
    struct env_stream_handler *handler;
    struct env_task flush_task;
    struct list link;
    struct buf out;
    struct buf in;
    struct env_peer peer;
    struct error end;
    bool opened;
    bool stopped;   /* room said no */
    bool finishing; /* ours: nothing more is written, input is dropped */
    bool fin_sent;
    bool fin_received; /* after `in` */
    bool ended;        /* closed is due with `end` */
    bool was_high;
};

struct memory_listener {
    struct env_listener base;
    struct memory_world *world;
    struct list link;
    struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream);
    void *context;
    char address[LIMIT_ADDRESS_BYTES];
};

static struct memory_stream *of_stream(const struct env_stream *stream) {
    return CONTAINER_OF(stream, struct memory_stream, base);
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static void *counted_resize(struct alloc *alloc, void *ptr, size_t size, size_t align) {
    struct memory_alloc *memory = CONTAINER_OF(alloc, struct memory_alloc, base);
    CHECK(align <= BLOCK_HEAD_BYTES);
    uint8_t *old = ptr != NULL ? (uint8_t *)ptr - BLOCK_HEAD_BYTES : NULL;
    size_t old_size = 0;
    if (old != NULL) {
        memcpy(&old_size, old, sizeof old_size);
    }
    if (size == 0) {
        memory->used_bytes -= old_size;
        memory->blocks -= old != NULL;
        free(old);
        return NULL;
    }
    if (++memory->calls == memory->fail_at) {
        return NULL;
    }
    uint8_t *block = realloc(old, BLOCK_HEAD_BYTES + size);
    CHECK(block != NULL);
    memcpy(block, &size, sizeof size);
    memory->blocks += old == NULL;
    memory->used_bytes += size - old_size;
    if (memory->used_bytes > memory->peak_bytes) {
        memory->peak_bytes = memory->used_bytes;
    }
    return block + BLOCK_HEAD_BYTES;
}

/* ---- Streams ------------------------------------------------------------------------------------------------- */

static void stream_free(struct memory_stream *stream) {
    env_task_cancel(&stream->flush_task);
    list_remove(&stream->link);
    buf_deinit(&stream->out);
    buf_deinit(&stream->in);
    mem_free(alloc_system(), stream);
}

/* Moves output into the pipe as far as it goes. */
static bool push_output(struct memory_stream *stream) {
    struct memory_stream *other = stream->other;
    if (!stream->opened || stream->out.len == 0) {
        return false;
    }
    if (other == NULL) {
        buf_clear(&stream->out);
        return false;
    }
    size_t space = other->in.len < stream->world->pipe_bytes_max ? stream->world->pipe_bytes_max - other->in.len : 0;
    size_t len = stream->out.len < space ? stream->out.len : space;
    if (len == 0) {
        return false;
    }
    enum status status = buf_append(&other->in, stream->out.data, len);
    CHECK(status == STATUS_OK);
    buf_consume(&stream->out, len);
    struct memory_world *world = stream->world;
    if (world->flip_at > world->sent_bytes && world->flip_at <= world->sent_bytes + len) {
        other->in.data[other->in.len - len + (world->flip_at - world->sent_bytes - 1)] ^= 0x10;
    }
    world->sends++;
    world->sent_bytes += len;
    return true;
}

static void flush(struct env_task *task) { (void)push_output(CONTAINER_OF(task, struct memory_stream, flush_task)); }

static enum status stream_write(struct env_stream *base, const struct slice *parts, size_t part_count) {
    struct memory_stream *stream = of_stream(base);
    if (stream->finishing || stream->ended) {
        return STATUS_CLOSED;
    }
    stream->world->writes++;
    /* One counted allocation, so that a test can make a write fail. */
    void *probe = mem_alloc(stream->world->env.alloc, 1);
    if (probe == NULL) {
        return STATUS_NO_MEMORY;
    }
    mem_free(stream->world->env.alloc, probe);
    for (size_t i = 0; i < part_count; i++) {
        enum status status = buf_append(&stream->out, parts[i].data, parts[i].len);
        CHECK(status == STATUS_OK);
    }
    stream->was_high = stream->was_high || stream->out.len >= ENV_STREAM_HIGH_BYTES;
    env_defer(&stream->world->loop, ENV_STAGE_FLUSH, &stream->flush_task);
    return STATUS_OK;
}

static size_t stream_queued_bytes(const struct env_stream *base) { return of_stream(base)->out.len; }
static void stream_resume(struct env_stream *base) { of_stream(base)->stopped = false; }
static const struct env_peer *stream_peer(const struct env_stream *base) { return &of_stream(base)->peer; }
static void stream_finish(struct env_stream *base) { of_stream(base)->finishing = true; }

static void stream_end(struct memory_stream *stream, const struct error *err) {
    if (!stream->ended) {
        stream->ended = true;
        stream->end = *err;
    }
}

static void stream_close(struct env_stream *base) {
    struct memory_stream *stream = of_stream(base);
    stream->ended = true;
    error_clear(&stream->end);
}

static const struct env_stream_ops stream_ops = {
    .write = stream_write,
    .queued_bytes = stream_queued_bytes,
    .resume = stream_resume,
    .peer = stream_peer,
    .finish = stream_finish,
    .close = stream_close,
};

static struct memory_stream *stream_new(struct memory_world *world, struct env_stream_handler *handler) {
    struct memory_stream *stream = mem_alloc_zero(alloc_system(), sizeof *stream);
    CHECK(stream != NULL);
    stream->base.ops = &stream_ops;
    stream->world = world;
    stream->handler = handler;
    env_task_init(&stream->flush_task, flush);
    buf_init(&stream->out, alloc_system(), 0);
    buf_init(&stream->in, alloc_system(), 0);
    list_push_back(&world->streams, &stream->link);
    (void)snprintf(stream->peer.address, sizeof stream->peer.address, "memory:%u", (unsigned)++world->addresses);
    return stream;
}

static void run_closed(struct memory_stream *stream) {
    struct memory_stream *other = stream->other;
    if (other != NULL) {
        other->other = NULL;
        other->fin_received = true;
    }
    stream->handler->closed(stream->handler, &stream->end);
    stream_free(stream);
}

/* One delivery; false if there was none to make. */
static bool deliver(struct memory_stream *stream) {
    if (stream->finishing) {
        bool had = stream->in.len > 0;
        buf_clear(&stream->in);
        return had;
    }
    if (stream->stopped || stream->in.len == 0) {
        return false;
    }
    uint8_t *data;
    size_t room;
    stream->handler->room(stream->handler, &data, &room);
    if (room == 0) {
        stream->stopped = true;
        return true;
    }
    size_t len = room < stream->in.len ? room : stream->in.len;
    size_t segment = stream->world->segment_bytes_max;
    if (segment > 0) {
        segment = 1 + (size_t)random_below(&stream->world->random, segment);
        len = len < segment ? len : segment;
    }
    memcpy(data, stream->in.data, len);
    buf_consume(&stream->in, len);
    stream->handler->received(stream->handler, len);
    return true;
}

static bool stream_turn(struct memory_stream *stream) {
    if (stream->ended) {
        run_closed(stream);
        return true;
    }
    if (!stream->opened) {
        stream->opened = true;
        stream->handler->opened(stream->handler);
        return true;
    }
    bool progress = deliver(stream);
    progress = push_output(stream) || progress;
    if (stream->was_high && stream->out.len < ENV_STREAM_LOW_BYTES && !stream->ended) {
        stream->was_high = false;
        stream->handler->drained(stream->handler);
        progress = true;
    }
    if (stream->finishing && stream->out.len == 0 && !stream->fin_sent) {
        stream->fin_sent = true;
        progress = true;
        if (stream->other != NULL) {
            stream->other->fin_received = true;
        }
    }
    if (stream->fin_received && stream->in.len == 0 && !stream->stopped) {
        stream_end(stream, &(struct error){.code = STATUS_OK});
        progress = true;
    }
    return progress;
}

/* ---- The transport ------------------------------------------------------------------------------------------- */

static struct memory_world *of_transport(struct env_transport *transport) {
    return CONTAINER_OF(transport, struct memory_world, transport);
}

static const char *listener_address(const struct env_listener *base) {
    return CONTAINER_OF(base, struct memory_listener, base)->address;
}

static void listener_close(struct env_listener *base) {
    struct memory_listener *listener = CONTAINER_OF(base, struct memory_listener, base);
    list_remove(&listener->link);
    mem_free(alloc_system(), listener);
}

static const struct env_listener_ops listener_ops = {.address = listener_address, .close = listener_close};

static enum status transport_listen(struct env_transport *transport, struct env_loop *loop, const char *address,
                                    struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream),
                                    void *context, struct env_listener **ret_listener, struct error *err) {
    (void)err;
    struct memory_world *world = of_transport(transport);
    CHECK(loop == &world->loop);
    struct memory_listener *listener = mem_alloc_zero(alloc_system(), sizeof *listener);
    CHECK(listener != NULL);
    listener->base.ops = &listener_ops;
    listener->world = world;
    listener->accepted = accepted;
    listener->context = context;
    (void)snprintf(listener->address, sizeof listener->address, "%s", address);
    list_push_back(&world->listeners, &listener->link);
    *ret_listener = &listener->base;
    return STATUS_OK;
}

static enum status transport_connect(struct env_transport *transport, struct env_loop *loop, const char *address,
                                     struct env_stream_handler *handler, struct env_stream **ret_stream,
                                     struct error *err) {
    struct memory_world *world = of_transport(transport);
    CHECK(loop == &world->loop);
    struct memory_stream *stream = stream_new(world, handler);
    struct memory_listener *found = NULL;
    LIST_FOREACH (node, &world->listeners) {
        struct memory_listener *listener = LIST_ENTRY(node, struct memory_listener, link);
        found = strcmp(listener->address, address) == 0 ? listener : found;
    }
    if (found == NULL) {
        stream_end(stream, &(struct error){.code = STATUS_IO, .sys = ECONNREFUSED, .message = "connection refused"});
    } else {
        struct memory_stream *server = stream_new(world, NULL);
        server->handler = found->accepted(found->context, &server->base);
        if (server->handler == NULL) {
            stream_free(server);
            stream->fin_received = true;
        } else {
            server->other = stream;
            stream->other = server;
        }
    }
    (void)err;
    *ret_stream = &stream->base;
    return STATUS_OK;
}

static const struct env_transport_ops transport_ops = {.listen = transport_listen, .connect = transport_connect};

/* ---- The env: time, memory, and files for reading ------------------------------------------------------------ */

static struct memory_world *of_env(struct env *env) { return CONTAINER_OF(env, struct memory_world, env); }
static uint64_t ops_clock_us(struct env *env) { return of_env(env)->now_us; }
static int64_t ops_wall_ms(struct env *env) { return of_env(env)->wall_ms; }
static uint64_t ops_random(struct env *env) { return random_next(&of_env(env)->random); }
static void ops_loop_wake(struct env_loop *loop) { (void)loop; }

struct real_file {
    struct env_file base;
    int fd;
};

static enum status ops_open(struct env *env, const char *path, unsigned flags, struct env_file **ret,
                            struct error *err) {
    CHECK(flags == ENV_OPEN_READ);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return error_set_sys(err, errno, "open %s", path);
    }
    struct real_file *file = mem_alloc_zero(alloc_system(), sizeof *file);
    CHECK(file != NULL);
    file->base.env = env;
    file->base.path = strdup(path);
    file->fd = fd;
    *ret = &file->base;
    return STATUS_OK;
}

static void ops_close(struct env_file *base) {
    struct real_file *file = CONTAINER_OF(base, struct real_file, base);
    (void)close(file->fd);
    free(file->base.path);
    mem_free(alloc_system(), file);
}

static enum status ops_pread(struct env_file *base, void *data, size_t len, uint64_t offset, size_t *ret_len,
                             struct error *err) {
    struct real_file *file = CONTAINER_OF(base, struct real_file, base);
    ssize_t got = pread(file->fd, data, len, (off_t)offset);
    if (got < 0) {
        return error_set_sys(err, errno, "read %s", base->path);
    }
    *ret_len = (size_t)got;
    return STATUS_OK;
}

static enum status ops_size(struct env_file *base, uint64_t *ret_size_bytes, struct error *err) {
    struct real_file *file = CONTAINER_OF(base, struct real_file, base);
    off_t size = lseek(file->fd, 0, SEEK_END);
    if (size < 0) {
        return error_set_sys(err, errno, "size of %s", base->path);
    }
    *ret_size_bytes = (uint64_t)size;
    return STATUS_OK;
}

static const struct env_ops env_ops = {
    .clock_us = ops_clock_us,
    .wall_ms = ops_wall_ms,
    .random = ops_random,
    .loop_wake = ops_loop_wake,
    .open = ops_open,
    .close = ops_close,
    .pread = ops_pread,
    .size = ops_size,
};

/* ---- The world ----------------------------------------------------------------------------------------------- */

void memory_world_init(struct memory_world *world, uint64_t seed) {
    memset(world, 0, sizeof *world);
    world->alloc.base.resize = counted_resize;
    world->env = (struct env){.ops = &env_ops, .alloc = &world->alloc.base};
    world->transport.ops = &transport_ops;
    world->now_us = 1000 * 1000;
    world->wall_ms = INT64_C(1800000000000);
    world->pipe_bytes_max = PIPE_BYTES;
    list_init(&world->streams);
    list_init(&world->listeners);
    random_seed(&world->random, seed);
    env__loop_init(&world->loop, &world->env, 16);
}

void memory_world_deinit(struct memory_world *world) {
    CHECK(list_is_empty(&world->streams));
    CHECK(list_is_empty(&world->listeners));
    CHECK(env__loop_next_deadline_us(&world->loop) == UINT64_MAX);
    env__loop_deinit(&world->loop);
    CHECK(world->alloc.blocks == 0);
}

bool memory_world_turn(struct memory_world *world) {
    bool progress = false;
    world->loop.now_us = world->now_us;
    LIST_FOREACH (node, &world->streams) {
        /* A turn may remove this stream; every other one stays until its own turn. */
        progress = stream_turn(LIST_ENTRY(node, struct memory_stream, link)) || progress;
    }
    progress = env__loop_next_deadline_us(&world->loop) <= world->now_us || progress;
    env__loop_run_timers(&world->loop);
    progress = env__loop_run_messages(&world->loop) > 0 || progress;
    progress = env__loop_has_tasks(&world->loop) || progress;
    env__loop_run_tasks(&world->loop);
    return progress;
}

void memory_world_run(struct memory_world *world) {
    for (int turn = 0; memory_world_turn(world); turn++) {
        CHECK(turn < TURNS_MAX);
    }
}

void memory_world_advance(struct memory_world *world, uint64_t us) {
    world->now_us += us;
    world->wall_ms += (int64_t)(us / 1000);
    memory_world_run(world);
}

void memory_stream_reset(struct env_stream *base) {
    struct memory_stream *stream = of_stream(base);
    struct error err = {.code = STATUS_IO, .sys = ECONNRESET, .message = "connection reset"};
    if (stream->other != NULL) {
        stream_end(stream->other, &err);
    }
    stream_end(stream, &err);
}

void memory_streams_reset(struct memory_world *world) {
    LIST_FOREACH (node, &world->streams) {
        memory_stream_reset(&LIST_ENTRY(node, struct memory_stream, link)->base);
    }
}

size_t memory_stream_unread_bytes(const struct env_stream *base) { return of_stream(base)->in.len; }
