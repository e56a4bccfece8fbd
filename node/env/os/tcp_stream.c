/*
 * A TCP stream: bytes in without a copy, bytes out in one send per turn.
 *
 *   CONNECTING --connected--> OPEN --finish, end of input--> FINISHING --shut down and input over--> CLOSING --> (gone)
 *        \----finish---------------------------------------/     (error, close, time over: from anywhere to CLOSING)
 *
 * Output. Writes gather in `out`. The FLUSH task sends it with one try; what the socket has no room for becomes
 * `sending`, libuv's until it is written, while `out` gathers on. Input. libuv asks for room, which is the handler's
 * own memory. No room: reading stops until resume. End of input. What the turn's processing still writes leaves, then
 * the stream finishes: an orderly end. Finishing. Output is flushed, then SHUT_WR, then input is read and dropped so
 * that no reset overtakes the last bytes: at most 2 s and 1 MiB. A peer that takes no output for 2 s, or keeps us at it
 * for 30 s, is given up.
 *
 * What the socket may hold that isn't on its way yet is small (UNSENT_BYTES): else megabytes wait there on a slow link,
 * where nobody sees whether they get on, and what is written next waits for seconds.
 *
 * No handler call is ever made from inside an env_stream_* call: they come from libuv's callbacks and from tasks.
 * Owner: the loop.
 */
#include "node/env/os/tcp_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

enum {
    LINGER_US = 2 * 1000 * 1000,
    LINGER_STEPS_MAX = 15,
    DROP_BYTES_MAX = 1024 * 1024,
    KEEP_BUFFER_BYTES = 32 * 1024, /* an empty output buffer above this gives its memory back */
    ROOM_BYTES_MAX = 1 << 30,
    UNSENT_BYTES = 256 * 1024,
    KEEPALIVE_IDLE_S = 30,
    KEEPALIVE_INTERVAL_S = 10,
    KEEPALIVE_PROBES = 3
};

static const struct env_stream_ops stream_ops;

static struct tcp_stream *stream_of(struct env_stream *stream) { return (struct tcp_stream *)(void *)stream; }

static const struct tcp_stream *const_stream_of(const struct env_stream *stream) {
    return (const struct tcp_stream *)(const void *)stream;
}

/* ---- End ------------------------------------------------------------------------------------------------------ */

static void on_handle_closed(uv_handle_t *handle) {
    struct tcp_stream *stream = handle->data;
    os_loop__enter(stream->loop);
    if (stream->state != STREAM_CLOSING) {
        tcp__connect_next(stream);
        return;
    }
    list_remove(&stream->link);
    tcp__connect_release(stream);
    if (stream->handler != NULL) {
        stream->handler->closed(stream->handler, &stream->error);
    }
    buf_deinit(&stream->out);
    buf_deinit(&stream->sending);
    mem_free(stream->loop->base.env->alloc, stream);
}

void tcp__end(struct tcp_stream *stream) {
    if (stream->state == STREAM_CLOSING) {
        return;
    }
    stream->state = STREAM_CLOSING;
    env_task_cancel(&stream->open);
    env_task_cancel(&stream->flush);
    env_task_cancel(&stream->later);
    env_timer_cancel(&stream->linger);
    tcp__connect_abandon(stream);
    tcp__close_socket(stream);
}

/* While libuv asks for room it doesn't bear a close: on_read, which it calls next, makes up for it. */
void tcp__close_socket(struct tcp_stream *stream) {
    if (!stream->is_asking_room && !uv_is_closing((uv_handle_t *)&stream->tcp)) {
        uv_close((uv_handle_t *)&stream->tcp, on_handle_closed);
    }
}

void tcp__fail(struct tcp_stream *stream, int uv_error, const char *doing) {
    CHECK(uv_error < 0);
    if (stream->state == STREAM_CLOSING) {
        return;
    }
    int sys = -uv_error;
    (void)error_set_sys(&stream->error, sys, "%s %.150s", doing, stream->peer.address);
    if (sys == ECONNRESET || sys == EPIPE || sys == ECONNABORTED) {
        stream->error.code = STATUS_CLOSED;
    } else if (sys == ETIMEDOUT) {
        stream->error.code = STATUS_TIMEOUT;
    }
    tcp__end(stream);
}

void tcp__check_all_closing(struct os_loop *loop) {
    LIST_FOREACH (node, &loop->streams) {
        enum tcp_state state = LIST_ENTRY(node, struct tcp_stream, link)->state;
        CHECK(state == STREAM_FINISHING || state == STREAM_CLOSING);
    }
}

/* ---- Finishing ------------------------------------------------------------------------------------------------ */

static size_t queued_bytes(const struct tcp_stream *stream) {
    size_t with_libuv = stream->is_writing ? uv_stream_get_write_queue_size((const uv_stream_t *)&stream->tcp) : 0;
    return stream->out.len + with_libuv;
}

static void arm_linger(struct tcp_stream *stream) {
    stream->linger_queued_bytes = queued_bytes(stream);
    if (env_timer_arm(&stream->linger, env_now_us(&stream->loop->base) + LINGER_US) != STATUS_OK) {
        tcp__fail(stream, UV_ENOMEM, "finish");
    }
}

static void on_linger_over(struct env_timer *timer) {
    struct tcp_stream *stream = CONTAINER_OF(timer, struct tcp_stream, linger);
    CHECK(stream->state == STREAM_FINISHING);
    if (stream->shutdown_done) {
        tcp__end(stream);
    } else if (queued_bytes(stream) >= stream->linger_queued_bytes || ++stream->linger_steps >= LINGER_STEPS_MAX) {
        tcp__fail(stream, UV_ETIMEDOUT, "send the last bytes to");
    } else {
        arm_linger(stream);
    }
}

static void end_if_finished(struct tcp_stream *stream) {
    if (stream->state == STREAM_FINISHING && stream->shutdown_done && stream->input_ended) {
        tcp__end(stream);
    }
}

static void on_shutdown(uv_shutdown_t *request, int status) {
    struct tcp_stream *stream = request->data;
    os_loop__enter(stream->loop);
    if (stream->state == STREAM_CLOSING) {
        return;
    }
    if (status < 0 && status != UV_ENOTCONN) {
        tcp__fail(stream, status, "shut down the connection with");
        return;
    }
    stream->shutdown_done = true;
    arm_linger(stream);
    end_if_finished(stream);
}

static void begin_shutdown(struct tcp_stream *stream) {
    stream->shutdown_begun = true;
    stream->shutdown.data = stream;
    int result = uv_shutdown(&stream->shutdown, (uv_stream_t *)&stream->tcp, on_shutdown);
    if (result < 0) {
        tcp__fail(stream, result, "shut down the connection with");
    }
}

static void start_reading(struct tcp_stream *stream);

static void begin_finishing(struct tcp_stream *stream) {
    CHECK(stream->state == STREAM_CONNECTING || stream->state == STREAM_OPEN);
    stream->state = STREAM_FINISHING;
    stream->is_above_high = false;
    env_task_cancel(&stream->open);
    env_task_cancel(&stream->later);
    arm_linger(stream);
    if (stream->is_connected && stream->state == STREAM_FINISHING) {
        start_reading(stream);
        env_defer(&stream->loop->base, ENV_STAGE_FLUSH, &stream->flush);
    }
}

/* ---- Output --------------------------------------------------------------------------------------------------- */

static void empty_buffer(struct buf *buf) {
    buf_clear(buf);
    if (buf->capacity > KEEP_BUFFER_BYTES) {
        buf_deinit(buf);
    }
}

static void drained_later(struct tcp_stream *stream) {
    if (stream->is_above_high && queued_bytes(stream) < ENV_STREAM_LOW_BYTES) {
        os_loop__later(stream->loop, &stream->later);
    }
}

static void on_written(uv_write_t *request, int status) {
    struct tcp_stream *stream = request->data;
    os_loop__enter(stream->loop);
    stream->is_writing = false;
    if (stream->state == STREAM_CLOSING) {
        return;
    }
    if (status < 0) {
        tcp__fail(stream, status, "write to");
        return;
    }
    empty_buffer(&stream->sending);
    drained_later(stream);
    env_defer(&stream->loop->base, ENV_STAGE_FLUSH, &stream->flush);
}

/* The socket took `sent` bytes of out; libuv sees to the rest. */
static void send_rest(struct tcp_stream *stream, size_t sent) {
    CHECK(stream->sending.len == 0 && !stream->is_writing);
    struct buf spare = stream->sending;
    stream->sending = stream->out;
    stream->out = spare;
    uv_buf_t rest = {.base = (char *)stream->sending.data + sent, .len = stream->sending.len - sent};
    stream->write.data = stream;
    int result = uv_write(&stream->write, (uv_stream_t *)&stream->tcp, &rest, 1, on_written);
    if (result < 0) {
        tcp__fail(stream, result, "write to");
        return;
    }
    stream->is_writing = true;
}

static void send_out(struct tcp_stream *stream) {
    uv_buf_t all = {.base = (char *)stream->out.data, .len = stream->out.len};
    int result = uv_try_write((uv_stream_t *)&stream->tcp, &all, 1);
    stream->loop->stats.stream_sends++;
    if (result < 0 && result != UV_EAGAIN) {
        tcp__fail(stream, result, "write to");
        return;
    }
    size_t sent = result > 0 ? (size_t)result : 0;
    if (sent == stream->out.len) {
        empty_buffer(&stream->out);
    } else {
        send_rest(stream, sent);
    }
}

static void run_flush(struct env_task *task) {
    struct tcp_stream *stream = CONTAINER_OF(task, struct tcp_stream, flush);
    CHECK(stream->state != STREAM_CLOSING);
    if (!stream->is_connected || stream->is_writing) {
        return; /* connected and written ask again */
    }
    if (stream->out.len > 0) {
        send_out(stream);
        drained_later(stream);
    }
    if (stream->state == STREAM_FINISHING && !stream->is_writing && !stream->shutdown_begun) {
        begin_shutdown(stream);
    }
}

static void run_later(struct env_task *task) {
    struct tcp_stream *stream = CONTAINER_OF(task, struct tcp_stream, later);
    if (stream->is_above_high && queued_bytes(stream) < ENV_STREAM_LOW_BYTES) {
        stream->is_above_high = false;
        stream->handler->drained(stream->handler);
    }
    if (stream->input_ended && stream->state == STREAM_OPEN) {
        begin_finishing(stream);
    }
}

static enum status stream_write(struct env_stream *base, const struct slice *parts, size_t part_count) {
    struct tcp_stream *stream = stream_of(base);
    if (stream->state == STREAM_FINISHING || stream->state == STREAM_CLOSING) {
        return STATUS_CLOSED;
    }
    size_t more = 0;
    for (size_t i = 0; i < part_count; i++) {
        more += parts[i].len;
    }
    if (buf_reserve(&stream->out, more) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < part_count; i++) {
        enum status status = buf_append(&stream->out, parts[i].data, parts[i].len);
        CHECK(status == STATUS_OK);
    }
    if (queued_bytes(stream) >= ENV_STREAM_HIGH_BYTES) {
        stream->is_above_high = true;
    }
    env_defer(&stream->loop->base, ENV_STAGE_FLUSH, &stream->flush);
    return STATUS_OK;
}

/* ---- Input ---------------------------------------------------------------------------------------------------- */

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_room) {
    (void)suggested;
    struct tcp_stream *stream = handle->data;
    os_loop__enter(stream->loop);
    uint8_t *data = NULL;
    size_t len = 0;
    if (stream->state == STREAM_OPEN) {
        stream->is_asking_room = true;
        stream->handler->room(stream->handler, &data, &len);
        stream->is_asking_room = false;
    }
    /* The handler may have finished or closed the stream meanwhile; without room libuv reads nothing. */
    if (stream->state == STREAM_FINISHING) {
        data = stream->loop->drop;
        len = sizeof stream->loop->drop;
    } else if (stream->state == STREAM_CLOSING) {
        len = 0;
    }
    *ret_room = (uv_buf_t){.base = (char *)data, .len = len < ROOM_BYTES_MAX ? len : ROOM_BYTES_MAX};
}

static void stop_reading(struct tcp_stream *stream) {
    CHECK(uv_read_stop((uv_stream_t *)&stream->tcp) == 0);
    stream->is_reading = false;
}

static void end_input(struct tcp_stream *stream) {
    stop_reading(stream);
    stream->input_ended = true;
    if (stream->state == STREAM_OPEN) {
        os_loop__later(stream->loop, &stream->later);
    } else {
        end_if_finished(stream);
    }
}

static void on_read(uv_stream_t *handle, ssize_t got, const uv_buf_t *room) {
    (void)room;
    struct tcp_stream *stream = handle->data;
    if (stream->state == STREAM_CLOSING) {
        tcp__close_socket(stream);
    } else if (got == 0) {
        return;
    } else if (got == UV_ENOBUFS) {
        stop_reading(stream);
    } else if (got == UV_EOF) {
        end_input(stream);
    } else if (got < 0 && stream->shutdown_done) {
        tcp__end(stream); /* all was sent; how the peer leaves is its own affair */
    } else if (got < 0) {
        tcp__fail(stream, (int)got, "read from");
    } else if (stream->state == STREAM_OPEN) {
        stream->handler->received(stream->handler, (size_t)got);
    } else {
        stream->dropped_bytes += (size_t)got;
        if (stream->dropped_bytes > DROP_BYTES_MAX) {
            end_input(stream);
        }
    }
}

static void start_reading(struct tcp_stream *stream) {
    if (stream->is_reading || stream->input_ended) {
        return;
    }
    int result = uv_read_start((uv_stream_t *)&stream->tcp, on_room, on_read);
    if (result < 0) {
        tcp__fail(stream, result, "read from");
        return;
    }
    stream->is_reading = true;
}

static void stream_resume(struct env_stream *base) {
    struct tcp_stream *stream = stream_of(base);
    if (stream->state == STREAM_OPEN && stream->is_announced) {
        start_reading(stream);
    }
}

/* ---- Making and announcing ------------------------------------------------------------------------------------ */

static void run_open(struct env_task *task) { tcp__stream_announce(CONTAINER_OF(task, struct tcp_stream, open)); }

void tcp__stream_announce(struct tcp_stream *stream) {
    CHECK(stream->is_connected && !stream->is_announced);
    if (stream->state == STREAM_OPEN) {
        stream->is_announced = true;
        stream->handler->opened(stream->handler);
    }
    if (stream->state == STREAM_OPEN || stream->state == STREAM_FINISHING) {
        start_reading(stream);
    }
    if (stream->state != STREAM_CLOSING) {
        env_defer(&stream->loop->base, ENV_STAGE_FLUSH, &stream->flush);
    }
}

struct tcp_stream *tcp__stream_new(struct os_loop *loop, enum tcp_state state) {
    struct alloc *alloc = loop->base.env->alloc;
    struct tcp_stream *stream = mem_alloc_zero(alloc, sizeof *stream);
    if (stream == NULL) {
        return NULL;
    }
    stream->base.ops = &stream_ops;
    stream->loop = loop;
    stream->state = state;
    env_task_init(&stream->open, run_open);
    env_task_init(&stream->flush, run_flush);
    env_task_init(&stream->later, run_later);
    env_timer_init(&stream->linger, &loop->base, on_linger_over);
    buf_init(&stream->out, alloc, 0);
    buf_init(&stream->sending, alloc, 0);
    CHECK(uv_tcp_init(&loop->uv, &stream->tcp) == 0);
    stream->tcp.data = stream;
    list_push_back(&loop->streams, &stream->link);
    return stream;
}

static void set_option(int fd, int level, int option, int value) {
    (void)setsockopt(fd, level, option, &value, sizeof value); /* a connection without it still works */
}

int tcp__stream_connected(struct tcp_stream *stream, const struct sockaddr_storage *address) {
    int fd = -1;
    int result = uv_fileno((uv_handle_t *)&stream->tcp, &fd);
    if (result < 0) {
        return result;
    }
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    tcp__format(address, stream->peer.address);
    stream->is_connected = true;
    return 0;
}

/* ---- The vtable ----------------------------------------------------------------------------------------------- */

static size_t stream_queued_bytes(const struct env_stream *stream) { return queued_bytes(const_stream_of(stream)); }
static const struct env_peer *stream_peer(const struct env_stream *stream) { return &const_stream_of(stream)->peer; }
static void stream_close(struct env_stream *stream) { tcp__end(stream_of(stream)); }

static void stream_finish(struct env_stream *base) {
    struct tcp_stream *stream = stream_of(base);
    if (stream->state == STREAM_CONNECTING || stream->state == STREAM_OPEN) {
        begin_finishing(stream);
    }
}

static const struct env_stream_ops stream_ops = {
    .write = stream_write,
    .queued_bytes = stream_queued_bytes,
    .resume = stream_resume,
    .peer = stream_peer,
    .finish = stream_finish,
    .close = stream_close,
};

const struct env_transport_ops os_tcp__transport_ops = {.listen = tcp__listen, .connect = tcp__connect};
