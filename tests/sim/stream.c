/*
 * Streams and listeners: the ends of simulated connections, as env.h shows them to production code.
 *
 *   connecting --opened--> open --finish--> finishing --(peer's end, 2 s, 1 MiB)--> closed
 *        \------------------ \----close, the peer's end, an error-----------------/
 *
 * All callbacks come from the loop's turn, through the stream's notice; the world only leaves news. Output waits in the
 * node's memory until the FLUSH stage, and longer while the pipe is full. The identity of the other side is what its
 * node was given (sim_node_set_identity): there is no TLS here.
 *
 * Owner: the loop. The world touches a stream through sim__stream_* only.
 */
#include "tests/sim/network_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    READS_PER_TURN = 64,
    ACCEPTS_PER_TURN = 16,
    LINGER_US = 2 * 1000 * 1000,
    LINGER_BYTES = 1024 * 1024,
    SMALL_SEGMENT_BYTES = 16
};

struct chunk {
    struct list link;
    size_t len;
    size_t taken;
    uint8_t data[];
};

struct sim_stream {
    struct env_stream stream;
    struct sim_notice notice;
    struct sim_loop *loop;
    struct env_stream_handler *handler;
    struct connection *connection;
    int side;
    struct list output; /* chunks */
    size_t output_bytes;
    struct env_task flush;
    struct sim_event linger;
    size_t dropped_bytes; /* while finishing */
    int error_sys;
    bool opened_pending;
    bool opened;
    bool paused; /* no room was given */
    bool was_high;
    bool finishing;
    bool linger_over;
    bool closing;
};

static struct sim_stream *stream_of(const struct env_stream *stream) { return (struct sim_stream *)(uintptr_t)stream; }

/* ---- What the world tells --------------------------------------------------------------------------------------- */

void sim__stream_opened(struct sim_stream *stream) {
    stream->opened_pending = true;
    sim__notify(stream->loop, &stream->notice);
}

void sim__stream_news(struct sim_stream *stream) { sim__notify(stream->loop, &stream->notice); }

void sim__stream_error(struct sim_stream *stream, int sys) {
    stream->error_sys = sys;
    sim__notify(stream->loop, &stream->notice);
}

bool sim__stream_has_output(const struct sim_stream *stream) { return stream->output_bytes > 0 || stream->finishing; }
void sim__stream_drop(struct sim_stream *stream) { sim__event_cancel(stream->loop->node->sim, &stream->linger); }

/* ---- Output ----------------------------------------------------------------------------------------------------- */

static void take_output(struct sim_stream *stream, uint8_t *data, size_t len) {
    stream->output_bytes -= len;
    while (len > 0) {
        struct chunk *chunk = LIST_ENTRY(stream->output.next, struct chunk, link);
        size_t left = chunk->len - chunk->taken;
        size_t part = left < len ? left : len;
        memcpy(data, chunk->data + chunk->taken, part);
        chunk->taken += part;
        data += part;
        len -= part;
        if (chunk->taken == chunk->len) {
            list_remove(&chunk->link);
            mem_free(&stream->loop->node->memory.alloc, chunk);
        }
    }
}

/* Mostly what there is; now and then a few bytes, so that every boundary falls everywhere. */
static size_t draw_segment(struct sim *sim, size_t len) {
    struct random *random = &sim->network->random;
    size_t len_max = sim->options.network.segment_bytes_max;
    uint64_t drawn = random_below(random, 8);
    if (drawn == 0) {
        len_max = 1 + (size_t)random_below(random, SMALL_SEGMENT_BYTES);
    } else if (drawn == 1) {
        len_max = 1 + (size_t)random_below(random, len_max);
    }
    return len < len_max ? len : len_max;
}

/* Moves output to the wire as far as there is room, then the end. */
static void pump(struct sim_stream *stream) {
    if (!stream->opened || stream->closing || stream->error_sys != 0) {
        return;
    }
    struct connection *connection = stream->connection;
    struct sim *sim = connection->sim;
    while (stream->output_bytes > 0) {
        size_t room = sim__pipe_room(connection, stream->side);
        if (room == 0) {
            return;
        }
        size_t len = draw_segment(sim, stream->output_bytes < room ? stream->output_bytes : room);
        take_output(stream, sim__pipe_push(connection, stream->side, len, false), len);
    }
    if (stream->finishing && !connection->pipes[stream->side].fin_sent) {
        (void)sim__pipe_push(connection, stream->side, 0, true);
        sim__event_schedule(sim, &stream->linger, sim->now_us + LINGER_US);
    }
}

static void flush(struct env_task *task) {
    struct sim_stream *stream = CONTAINER_OF(task, struct sim_stream, flush);
    pump(stream);
    if (stream->was_high && stream->output_bytes < ENV_STREAM_LOW_BYTES) {
        sim__stream_news(stream); /* drained may not run inside a task of the owner's turn: next turn */
    }
}

static enum status stream_write(struct env_stream *base, const struct slice *parts, size_t part_count) {
    struct sim_stream *stream = stream_of(base);
    struct alloc *alloc = &stream->loop->node->memory.alloc;
    sim__preempt(stream->loop->node);
    if (stream->closing || stream->finishing || stream->error_sys != 0) {
        return STATUS_CLOSED;
    }
    size_t len = 0;
    for (size_t i = 0; i < part_count; i++) {
        len += parts[i].len;
    }
    if (len == 0) {
        return STATUS_OK;
    }
    struct chunk *chunk = mem_alloc(alloc, sizeof *chunk + len);
    if (chunk == NULL) {
        return STATUS_NO_MEMORY;
    }
    chunk->len = 0;
    chunk->taken = 0;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].len > 0) {
            memcpy(chunk->data + chunk->len, parts[i].data, parts[i].len);
            chunk->len += parts[i].len;
        }
    }
    list_push_back(&stream->output, &chunk->link);
    stream->output_bytes += len;
    stream->was_high = stream->was_high || stream->output_bytes >= ENV_STREAM_HIGH_BYTES;
    env_defer(&stream->loop->loop, ENV_STAGE_FLUSH, &stream->flush);
    return STATUS_OK;
}

/* ---- Input and the end ------------------------------------------------------------------------------------------ */

static void read_input(struct sim_stream *stream) {
    struct pipe *pipe = &stream->connection->pipes[1 - stream->side];
    for (int reads = 0; pipe->arrived_bytes > 0 && !stream->paused && !stream->closing && !stream->finishing; reads++) {
        if (reads == READS_PER_TURN) {
            sim__notify(stream->loop, &stream->notice);
            return;
        }
        uint8_t *data = NULL;
        size_t len = 0;
        stream->handler->room(stream->handler, &data, &len);
        if (stream->closing || stream->finishing) {
            return;
        }
        if (len == 0) {
            stream->paused = true;
            return;
        }
        size_t count = sim__pipe_read(stream->connection, stream->side, data, len);
        stream->handler->received(stream->handler, count);
    }
}

static void drop_input(struct sim_stream *stream) {
    uint8_t waste[4096];
    size_t count;
    while ((count = sim__pipe_read(stream->connection, stream->side, waste, sizeof waste)) > 0) {
        stream->dropped_bytes += count;
    }
}

static void free_output(struct sim_stream *stream) {
    struct list *link;
    while ((link = list_pop_front(&stream->output)) != NULL) {
        mem_free(&stream->loop->node->memory.alloc, LIST_ENTRY(link, struct chunk, link));
    }
    stream->output_bytes = 0;
}

/* Lets go of everything, tells the owner, and is gone. */
static void end_stream(struct sim_stream *stream, int sys) {
    struct sim_node *node = stream->loop->node;
    struct error err = {.code = STATUS_OK};
    if (sys != 0) {
        (void)error_set_sys(&err, sys, "connection with %s", stream->connection->ends[1 - stream->side].shows.address);
    }
    sim__note(node->sim, node, SIM_TRACE_CLOSED, stream->connection->id, (uint64_t)err.code, "");
    stream->closing = true;
    env_task_cancel(&stream->flush);
    sim__event_cancel(node->sim, &stream->linger);
    list_remove(&stream->notice.link);
    free_output(stream);
    stream->handler->closed(stream->handler, &err); /* it may still ask who the peer was */
    sim__connection_leave(stream->connection, stream->side);
    stream->loop->object_count--;
    mem_free(&node->memory.alloc, stream);
}

static void run_stream(struct sim_notice *notice) {
    struct sim_stream *stream = CONTAINER_OF(notice, struct sim_stream, notice);
    struct pipe *pipe = &stream->connection->pipes[1 - stream->side];
    if (stream->opened_pending && !stream->closing && stream->error_sys == 0) {
        stream->opened_pending = false;
        stream->opened = true;
        stream->handler->opened(stream->handler);
    }
    if (stream->opened && !stream->closing) {
        read_input(stream);
        pump(stream);
    }
    if (!stream->closing && !stream->finishing && stream->was_high && stream->output_bytes < ENV_STREAM_LOW_BYTES) {
        stream->was_high = false;
        stream->handler->drained(stream->handler);
    }
    if (stream->finishing) {
        drop_input(stream);
    }
    bool at_end = pipe->fin_arrived && pipe->arrived_bytes == 0;
    bool lingered = stream->finishing && (stream->linger_over || stream->dropped_bytes > LINGER_BYTES);
    if (stream->closing || at_end || lingered) {
        end_stream(stream, 0);
    } else if (stream->error_sys != 0 && (pipe->arrived_bytes == 0 || stream->paused || !stream->opened)) {
        end_stream(stream, stream->finishing ? 0 : stream->error_sys);
    }
}

/* ---- The vtable ------------------------------------------------------------------------------------------------- */

static size_t stream_queued_bytes(const struct env_stream *stream) { return stream_of(stream)->output_bytes; }

static void stream_resume(struct env_stream *base) {
    struct sim_stream *stream = stream_of(base);
    stream->paused = false;
    sim__notify(stream->loop, &stream->notice);
}

static const struct env_peer *stream_peer(const struct env_stream *base) {
    const struct sim_stream *stream = stream_of(base);
    return &stream->connection->ends[1 - stream->side].shows;
}

static void linger_event(struct sim_event *event) {
    struct sim_stream *stream = CONTAINER_OF(event, struct sim_stream, linger);
    stream->linger_over = true;
    sim__notify(stream->loop, &stream->notice);
}

static void stream_finish(struct env_stream *base) {
    struct sim_stream *stream = stream_of(base);
    stream->finishing = true;
    sim__notify(stream->loop, &stream->notice);
}

static void stream_close(struct env_stream *base) {
    struct sim_stream *stream = stream_of(base);
    stream->closing = true;
    sim__notify(stream->loop, &stream->notice);
}

static const struct env_stream_ops stream_ops = {
    .write = stream_write,
    .queued_bytes = stream_queued_bytes,
    .resume = stream_resume,
    .peer = stream_peer,
    .finish = stream_finish,
    .close = stream_close,
};

static struct sim_stream *stream_new(struct sim_loop *loop, struct env_stream_handler *handler, int side) {
    struct sim_stream *stream = mem_alloc_zero(&loop->node->memory.alloc, sizeof *stream);
    if (stream == NULL) {
        return NULL;
    }
    stream->stream.ops = &stream_ops;
    list_init(&stream->notice.link);
    stream->notice.run = run_stream;
    stream->loop = loop;
    stream->handler = handler;
    stream->side = side;
    list_init(&stream->output);
    env_task_init(&stream->flush, flush);
    stream->linger.run = linger_event;
    loop->object_count++;
    return stream;
}

static void stream_discard(struct sim_stream *stream) {
    stream->loop->object_count--;
    mem_free(&stream->loop->node->memory.alloc, stream);
}

static enum status transport_connect(struct env_transport *transport, struct env_loop *loop, const char *address,
                                     struct env_stream_handler *handler, struct env_stream **ret_stream,
                                     struct error *err) {
    struct sim_node *node = ((struct sim_transport *)(void *)transport)->node;
    CHECK(sim__loop_of(loop)->node == node);
    if (strlen(address) >= LIMIT_ADDRESS_BYTES || strchr(address, ':') == NULL) {
        return error_set(err, STATUS_INVALID, "address '%s' is not host:port", address);
    }
    struct sim_stream *stream = stream_new(sim__loop_of(loop), handler, 0);
    if (stream == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for a connection with %s", address);
    }
    stream->connection = sim__connection_new(node, address, stream);
    *ret_stream = &stream->stream;
    return STATUS_OK;
}

/* ---- Listeners -------------------------------------------------------------------------------------------------- */

static const char *listener_address(const struct env_listener *listener) {
    return ((const struct sim_listener *)(const void *)listener)->address;
}

static void listener_free(struct sim_listener *listener) {
    list_remove(&listener->notice.link);
    listener->loop->object_count--;
    mem_free(&listener->node->memory.alloc, listener);
}

static void listener_close(struct env_listener *base) {
    struct sim_listener *listener = (struct sim_listener *)(void *)base;
    CHECK(!listener->closed);
    sim__listener_remove(listener);
    listener->closed = true;
    if (!listener->accepting) {
        listener_free(listener);
    }
}

static const struct env_listener_ops listener_ops = {.address = listener_address, .close = listener_close};

static void accept_one(struct sim_listener *listener, struct connection *connection) {
    struct sim_stream *stream = stream_new(listener->loop, NULL, 1);
    if (stream == NULL) {
        sim__connection_accepted(connection, NULL);
        return;
    }
    stream->connection = connection;
    connection->ends[1].stream = stream;
    stream->handler = listener->accepted(listener->context, &stream->stream);
    if (stream->handler == NULL) {
        list_remove(&stream->notice.link);
        env_task_cancel(&stream->flush);
        free_output(stream);
        stream_discard(stream);
        sim__connection_accepted(connection, NULL);
        return;
    }
    sim__connection_accepted(connection, stream);
    sim__stream_opened(stream);
}

static void run_listener(struct sim_notice *notice) {
    struct sim_listener *listener = CONTAINER_OF(notice, struct sim_listener, notice);
    listener->accepting = true;
    for (int i = 0; i < ACCEPTS_PER_TURN && !listener->closed; i++) {
        struct connection *connection = sim__listener_pop(listener);
        if (connection == NULL) {
            break;
        }
        accept_one(listener, connection);
    }
    listener->accepting = false;
    if (listener->closed) {
        listener_free(listener);
    } else if (listener->queue_count > 0) {
        sim__notify(listener->loop, &listener->notice);
    }
}

static bool address_is_taken(struct sim *sim, const char *address) {
    LIST_FOREACH (link, &sim->network->listeners) {
        if (strcmp(LIST_ENTRY(link, struct sim_listener, link)->address, address) == 0) {
            return true;
        }
    }
    return false;
}

static enum status transport_listen(struct env_transport *transport, struct env_loop *loop, const char *address,
                                    struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream),
                                    void *context, struct env_listener **ret_listener, struct error *err) {
    struct sim_node *node = ((struct sim_transport *)(void *)transport)->node;
    struct sim *sim = node->sim;
    const char *colon = strrchr(address, ':');
    CHECK(sim__loop_of(loop)->node == node);
    if (strlen(address) >= LIMIT_ADDRESS_BYTES - 8 || colon == NULL) {
        return error_set(err, STATUS_INVALID, "address '%s' is not host:port", address);
    }
    struct sim_listener *listener = mem_alloc_zero(&node->memory.alloc, sizeof *listener);
    if (listener == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to listen on %s", address);
    }
    (void)snprintf(listener->address, sizeof listener->address, "%s", address);
    while (strcmp(colon, ":0") == 0 && (listener->link.next == NULL || address_is_taken(sim, listener->address))) {
        list_init(&listener->link);
        (void)snprintf(listener->address, sizeof listener->address, "%.*s:%u", (int)(colon - address), address,
                       node->next_port++);
    }
    if (address_is_taken(sim, listener->address)) {
        mem_free(&node->memory.alloc, listener);
        return error_set_sys(err, EADDRINUSE, "listen on %s", address);
    }
    listener->listener.ops = &listener_ops;
    listener->notice.run = run_listener;
    list_init(&listener->notice.link);
    listener->node = node;
    listener->loop = sim__loop_of(loop);
    listener->accepted = accepted;
    listener->context = context;
    list_init(&listener->queue);
    listener->loop->object_count++;
    list_push_back(&sim->network->listeners, &listener->link);
    sim__note(sim, node, SIM_TRACE_LISTEN, 0, 0, listener->address);
    *ret_listener = &listener->listener;
    return STATUS_OK;
}

const struct env_transport_ops sim__transport_ops = {.listen = transport_listen, .connect = transport_connect};
