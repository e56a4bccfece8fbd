/*
 * A TLS stream: an env_stream towards its owner, an env_stream_handler towards the inner stream that carries the
 * ciphertext.
 *
 *   HANDSHAKING --done, checked--> OPEN --finish, close, close_notify, error--> ENDING --inner closed--> (gone)
 *        \------------------ error, timeout, finish, close -------------------/
 *
 * Input: inner bytes land in `input`; tls_input.c lets OpenSSL decrypt them straight into the owner's room.
 * Output: what the owner writes in a turn is gathered in `output`; one FLUSH task encrypts it, in records of up to 16
 * KiB, into the inner stream, whose own FLUSH task then sends it, still in this turn. So a turn's frames share their
 * records and leave together. Only until the inner stream is full: the rest waits for its `drained`. So a frame of many
 * MiB neither holds up all else that the loop does, heartbeats above all, nor lies there once more as ciphertext.
 *
 * The inner stream may end before the owner has taken what arrived: then `inner` is NULL while the stream is still
 * OPEN, and closed waits for the owner. If the inner stream refuses bytes (write_status), reading goes on until it says
 * closed: what the peer said last, a refusal say, is worth more than the news that it doesn't listen.
 *
 * Callbacks run from the inner stream's callbacks and from tasks and timers, never inside a call of the owner. Whatever
 * runs after one looks at `state` again. The stream is freed in tls__stream_settle_end only.
 */
#include "proto/tls/tls_internal.h"

#include "node/base/check.h"

#include <openssl/err.h>

static struct tls_stream *of_base(const struct env_stream *base) { return CONTAINER_OF(base, struct tls_stream, base); }

/* ---- The end ------------------------------------------------------------------------------------------------- */

static void drop_output(struct tls_stream *stream) {
    buf_clear(&stream->output);
    stream->output_done = 0;
    if (stream->output.capacity > TLS_OUTPUT_KEPT_BYTES) {
        buf_deinit(&stream->output);
    }
}

/* From here on the owner hears nothing but closed. */
static void leave(struct tls_stream *stream) {
    stream->state = TLS_ENDING;
    env_timer_cancel(&stream->handshake_timer);
    env_task_cancel(&stream->flush_task);
    list_remove(&stream->handshake_link);
    drop_output(stream);
    if (stream->inner == NULL) {
        env_defer(stream->context->loop, ENV_STAGE_PROCESS, &stream->input_task);
    }
}

static void tell_rejected(struct tls_stream *stream, const struct error *err) {
    struct tls_context *context = stream->context;
    if (stream->server && stream->state == TLS_HANDSHAKING && context->rejected != NULL) {
        context->rejected(context->callback_context, stream->peer.address, err);
    }
}

void tls__stream_settle_end(struct tls_stream *stream) {
    CHECK(stream->inner == NULL);
    if (stream->state == TLS_OPEN && stream->owner_stopped) {
        return;
    }
    if (stream->state == TLS_OPEN && stream->end.code == STATUS_OK) {
        (void)error_set(&stream->end, STATUS_CLOSED, "%s ended the connection without close_notify",
                        stream->peer.address);
    }
    if (stream->state == TLS_HANDSHAKING) {
        if (stream->end.code == STATUS_OK) {
            (void)error_set(&stream->end, STATUS_CLOSED, "%s ended the connection during the TLS handshake",
                            stream->peer.address);
        }
        tell_rejected(stream, &stream->end);
    }
    leave(stream);
    stream->owner->closed(stream->owner, &stream->end);
    tls__stream_free(stream);
}

void tls__stream_fail(struct tls_stream *stream, const struct error *err) {
    CHECK(stream->state != TLS_ENDING);
    stream->failed = true;
    stream->end = *err;
    tell_rejected(stream, err);
    leave(stream);
    if (stream->inner != NULL) {
        env_stream_finish(stream->inner);
    }
}

/* ---- Output -------------------------------------------------------------------------------------------------- */

/* Takes what was encrypted out of the buffer, and moves the rest only when that is the smaller half. */
static void consume_output(struct tls_stream *stream) {
    if (tls__output_len(stream) == 0) {
        drop_output(stream);
    } else if (stream->output_done >= tls__output_len(stream)) {
        buf_consume(&stream->output, stream->output_done);
        stream->output_done = 0;
    }
}

/* Encrypts what is queued until the inner stream holds bytes_max, or OpenSSL waits for the rest of a handshake message,
 * or the inner stream is at its end. */
static void encrypt(struct tls_stream *stream, size_t bytes_max) {
    while (tls__output_len(stream) > 0 && stream->write_status == STATUS_OK) {
        if (env_stream_queued_bytes(stream->inner) >= bytes_max) {
            break; /* its `drained` goes on with it */
        }
        /* Never less than in a call that OpenSSL wants repeated: what waits only grows. */
        size_t len = tls__output_len(stream) < TLS_ENCRYPT_BYTES ? tls__output_len(stream) : TLS_ENCRYPT_BYTES;
        size_t took = 0;
        if (SSL_write_ex(stream->ssl, stream->output.data + stream->output_done, len, &took) == 1) {
            stream->output_done += took;
            continue;
        }
        if (SSL_get_error(stream->ssl, 0) == SSL_ERROR_WANT_READ) {
            break; /* the read loop tries again */
        }
        if (stream->write_status == STATUS_OK) {
            stream->write_status = STATUS_FAILED; /* OpenSSL's own doing: the read loop will hear of it as well */
        }
        ERR_clear_error();
    }
    if (stream->write_status != STATUS_OK) {
        drop_output(stream);
    } else {
        consume_output(stream);
    }
}

static void flush(struct env_task *task) {
    struct tls_stream *stream = CONTAINER_OF(task, struct tls_stream, flush_task);
    if (stream->state != TLS_OPEN || stream->inner == NULL) {
        return;
    }
    encrypt(stream, ENV_STREAM_HIGH_BYTES);
    if (stream->write_status == STATUS_NO_MEMORY || stream->write_status == STATUS_FAILED) {
        struct error err;
        (void)error_set(&err, stream->write_status, "output to %s was lost", stream->peer.address);
        tls__stream_fail(stream, &err);
        return;
    }
    /* The inner stream says drained if it was full itself. If it got rid of bytes while ours were waiting here, it
     * wasn't. */
    if (stream->was_full && tls__output_len(stream) == 0 &&
        env_stream_queued_bytes(stream->inner) < ENV_STREAM_HIGH_BYTES) {
        stream->was_full = false;
        stream->owner->drained(stream->owner);
    }
}

static size_t stream_queued_bytes(const struct env_stream *base) {
    const struct tls_stream *stream = of_base(base);
    return tls__output_len(stream) + (stream->inner != NULL ? env_stream_queued_bytes(stream->inner) : 0);
}

static enum status stream_write(struct env_stream *base, const struct slice *parts, size_t part_count) {
    struct tls_stream *stream = of_base(base);
    if (stream->state == TLS_ENDING || stream->inner == NULL || stream->write_status != STATUS_OK) {
        return STATUS_CLOSED;
    }
    size_t total = 0;
    for (size_t i = 0; i < part_count; i++) {
        total += parts[i].len;
    }
    enum status status = buf_reserve(&stream->output, total);
    if (status != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    for (size_t i = 0; i < part_count; i++) {
        status = buf_append(&stream->output, parts[i].data, parts[i].len);
        CHECK(status == STATUS_OK);
    }
    if (stream_queued_bytes(base) >= ENV_STREAM_HIGH_BYTES) {
        stream->was_full = true;
    }
    if (stream->state == TLS_OPEN) {
        env_defer(stream->context->loop, ENV_STAGE_FLUSH, &stream->flush_task);
    }
    return STATUS_OK;
}

/* ---- What else the owner calls ------------------------------------------------------------------------------- */

static void stream_resume(struct env_stream *base) {
    struct tls_stream *stream = of_base(base);
    if (stream->owner_stopped && stream->state == TLS_OPEN) {
        stream->owner_stopped = false;
        env_defer(stream->context->loop, ENV_STAGE_PROCESS, &stream->input_task);
    }
}

static const struct env_peer *stream_peer(const struct env_stream *base) { return &of_base(base)->peer; }

void tls__stream_finish(struct tls_stream *stream) {
    if (stream->state == TLS_OPEN && stream->inner != NULL) {
        encrypt(stream, SIZE_MAX);
        if (stream->write_status == STATUS_OK && SSL_shutdown(stream->ssl) < 0) {
            ERR_clear_error();
        }
    }
    leave(stream);
    if (stream->inner != NULL) {
        env_stream_finish(stream->inner);
    }
}

static void stream_finish(struct env_stream *base) {
    struct tls_stream *stream = of_base(base);
    if (stream->state != TLS_ENDING) {
        tls__stream_finish(stream);
    }
}

static void stream_close(struct env_stream *base) {
    struct tls_stream *stream = of_base(base);
    if (stream->inner != NULL) {
        leave(stream);
        env_stream_close(stream->inner);
    } else if (stream->state != TLS_ENDING) {
        leave(stream);
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

/* ---- Birth and death ----------------------------------------------------------------------------------------- */

enum status tls__stream_new(struct tls_context *context, bool server, struct tls_stream **ret_stream) {
    struct alloc *alloc = context->env->alloc;
    struct tls_stream *stream = mem_alloc_zero(alloc, sizeof *stream);
    if (stream == NULL) {
        return STATUS_NO_MEMORY;
    }
    stream->base.ops = &stream_ops;
    stream->inner_handler = tls__inner_handler;
    stream->context = context;
    stream->server = server;
    buf_init(&stream->output, alloc, 0);
    env_task_init(&stream->input_task, tls__input_task);
    env_task_init(&stream->flush_task, flush);
    env_timer_init(&stream->handshake_timer, context->loop, tls__handshake_timeout);
    list_init(&stream->handshake_link);
    context->user_count++;
    stream->input = mem_alloc(alloc, TLS_INPUT_BYTES);
    stream->ssl = SSL_new(context->ssl_context);
    if (stream->input == NULL || stream->ssl == NULL || tls__bio_attach(stream) != STATUS_OK) {
        ERR_clear_error();
        tls__stream_free(stream);
        return STATUS_NO_MEMORY;
    }
    if (server) {
        SSL_set_accept_state(stream->ssl);
    } else {
        SSL_set_connect_state(stream->ssl);
    }
    *ret_stream = stream;
    return STATUS_OK;
}

void tls__stream_free(struct tls_stream *stream) {
    struct tls_context *context = stream->context;
    struct alloc *alloc = context->env->alloc;
    env_task_cancel(&stream->input_task);
    env_task_cancel(&stream->flush_task);
    env_timer_cancel(&stream->handshake_timer);
    list_remove(&stream->handshake_link);
    SSL_free(stream->ssl);
    buf_deinit(&stream->output);
    mem_free(alloc, stream->input);
    mem_free(alloc, stream);
    CHECK(context->user_count > 0);
    context->user_count--;
}
