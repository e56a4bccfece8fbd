/*
 * What the inner stream brings: the handshake, then data.
 *
 * Handshakes are dear (0.5 ms), so their steps wait in the context's queue and at most handshakes_per_turn of them run
 * in a turn; a timer without delay carries the rest over to the next one, so that the requests of those who are in come
 * in between. First come, first served. A peer that dawdles is cut off by the clock, one that talks without end by the
 * count of its bytes.
 *
 * Decryption: OpenSSL takes ciphertext from `input` through the BIO, one record at a time, and writes plaintext to the
 * owner's room. When the owner gives none, everything stays where it is, `input` fills, and the inner stream stops
 * reading.
 */
#include "proto/tls/tls_internal.h"

#include "node/base/check.h"

#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

static bool input_is_empty(const struct tls_stream *stream) { return stream->input_start == stream->input_end; }

/* After input was taken: the inner stream may read on. */
static void make_room(struct tls_stream *stream) {
    if (stream->inner_stopped && stream->inner != NULL && stream->state != TLS_ENDING && stream->input_start > 0) {
        stream->inner_stopped = false;
        env_stream_resume(stream->inner);
    }
}

/* ---- Data ---------------------------------------------------------------------------------------------------- */

/* OpenSSL answers key updates by itself, whether or not the peer reads the answers: bounded in relation to its data. */
static bool answers_too_much(struct tls_stream *stream, size_t answer_bytes) {
    stream->answer_bytes += answer_bytes;
    if (stream->answer_bytes <= TLS_ANSWER_BYTES_MAX + stream->received_bytes / TLS_ANSWER_DATA_RATIO) {
        return false;
    }
    struct error err;
    (void)error_set(&err, STATUS_TOO_LARGE, "%s asks for key updates without end", stream->peer.address);
    tls__stream_fail(stream, &err);
    return true;
}

/* True: OpenSSL needs more input, or the stream is ending. */
static bool decrypt_some(struct tls_stream *stream, uint8_t *data, size_t len) {
    size_t written_before = stream->written_bytes;
    size_t got = 0;
    bool ok = SSL_read_ex(stream->ssl, data, len, &got) == 1;
    int why = ok ? SSL_ERROR_NONE : SSL_get_error(stream->ssl, 0);
    stream->received_bytes += got;
    if ((ok || why == SSL_ERROR_WANT_READ) && answers_too_much(stream, stream->written_bytes - written_before)) {
        return true;
    }
    if (ok) {
        stream->owner->received(stream->owner, got);
        return stream->state != TLS_OPEN;
    }
    if (why == SSL_ERROR_WANT_READ) {
        return true;
    }
    if (why == SSL_ERROR_ZERO_RETURN) {
        stream->failed = true; /* the peer said its end: what the inner stream says is no news */
        error_clear(&stream->end);
        tls__stream_finish(stream);
        return true;
    }
    if (stream->write_status == STATUS_CLOSED) {
        ERR_clear_error(); /* an answer of OpenSSL's couldn't leave: the inner stream says why */
        return true;
    }
    struct error err;
    (void)tls__error_set_session(&err, stream->peer.address);
    tls__stream_fail(stream, &err);
    return true;
}

static void read_input(struct tls_stream *stream) {
    /* OpenSSL keeps no whole record to itself beyond the one that SSL_pending counts. */
    while (stream->state == TLS_OPEN && (!input_is_empty(stream) || SSL_pending(stream->ssl) > 0)) {
        uint8_t *data = NULL;
        size_t len = 0;
        stream->owner->room(stream->owner, &data, &len);
        if (stream->state != TLS_OPEN) {
            return;
        }
        if (len == 0) {
            stream->owner_stopped = true;
            break;
        }
        if (decrypt_some(stream, data, len)) {
            break;
        }
    }
    make_room(stream);
    if (stream->state == TLS_OPEN && tls__output_len(stream) > 0) {
        env_defer(stream->context->loop, ENV_STAGE_FLUSH, &stream->flush_task);
    }
}

/* ---- The handshake ------------------------------------------------------------------------------------------- */

static bool is_expected(const struct tls_context *context, const uint8_t thumbprint[ENV_THUMBPRINT_BYTES]) {
    for (uint32_t i = 0; i < context->expected_count; i++) {
        if (memcmp(context->expected[i], thumbprint, ENV_THUMBPRINT_BYTES) == 0) {
            return true;
        }
    }
    return context->expected_count == 0;
}

static void thumbprint_text(const uint8_t thumbprint[ENV_THUMBPRINT_BYTES], char out[2 * ENV_THUMBPRINT_BYTES + 1]) {
    for (size_t i = 0; i < ENV_THUMBPRINT_BYTES; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", thumbprint[i]);
    }
}

/* A client's judgement of its server. */
static enum status check_server(const struct tls_stream *stream, const char *reason, struct error *err) {
    const struct env_peer *peer = &stream->peer;
    char thumbprint[2 * ENV_THUMBPRINT_BYTES + 1];
    thumbprint_text(peer->thumbprint, thumbprint);
    if (peer->certificate != ENV_CERTIFICATE_VALID) {
        return error_set(err, STATUS_DENIED, "%.64s: server certificate %s is refused: %s", peer->address, thumbprint,
                         reason);
    }
    if (!is_expected(stream->context, peer->thumbprint)) {
        return error_set(err, STATUS_DENIED, "%.64s: server certificate %s is not one of the expected", peer->address,
                         thumbprint);
    }
    return STATUS_OK;
}

static void handshake_complete(struct tls_stream *stream) {
    env_timer_cancel(&stream->handshake_timer);
    const char *reason = "";
    struct error err;
    enum status status = tls__peer_identify(stream->context, stream->ssl, !stream->server, &stream->peer, &reason);
    if (status != STATUS_OK) {
        (void)error_set(&err, status, "no memory to check the certificate of %s", stream->peer.address);
    } else if (!stream->server) {
        status = check_server(stream, reason, &err);
    }
    if (status != STATUS_OK) {
        if (SSL_shutdown(stream->ssl) < 0) {
            ERR_clear_error();
        }
        tls__stream_fail(stream, &err);
        return;
    }
    stream->state = TLS_OPEN;
    if (tls__output_len(stream) > 0) {
        env_defer(stream->context->loop, ENV_STAGE_FLUSH, &stream->flush_task);
    }
    stream->owner->opened(stream->owner);
    read_input(stream);
}

/* TLS's own "protocol version" alert, unencrypted: OpenSSL sends nothing to who doesn't begin like TLS. */
static const uint8_t alert_protocol_version[] = {21, 3, 3, 0, 2, 2, 70};

static void handshake_failed(struct tls_stream *stream) {
    struct error err;
    if (stream->write_status != STATUS_OK) {
        ERR_clear_error();
        (void)error_set(&err, STATUS_CLOSED, "%s ended the connection during the TLS handshake", stream->peer.address);
    } else {
        char what[LIMIT_ADDRESS_BYTES + 32];
        (void)snprintf(what, sizeof what, "TLS handshake with %.128s", stream->peer.address);
        (void)tls__error_set_session(&err, what);
        if (stream->server && stream->written_bytes == 0 && stream->inner != NULL) {
            struct slice alert = slice_of(alert_protocol_version, sizeof alert_protocol_version);
            /* Whether it gets there makes no difference to us. */
            stream->write_status = env_stream_write(stream->inner, &alert, 1);
        }
    }
    tls__stream_fail(stream, &err);
}

static void handshake_step(struct tls_stream *stream) {
    int result = SSL_do_handshake(stream->ssl);
    if (result == 1) {
        handshake_complete(stream);
    } else if (SSL_get_error(stream->ssl, result) == SSL_ERROR_WANT_READ) {
        make_room(stream);
    } else {
        handshake_failed(stream);
    }
}

static void handshake_queue(struct tls_stream *stream) {
    struct tls_context *context = stream->context;
    if (list_is_empty(&stream->handshake_link)) {
        list_push_back(&context->handshakes, &stream->handshake_link);
    }
    if (!env_timer_is_armed(&context->turn_timer)) {
        env_defer(context->loop, ENV_STAGE_PROCESS, &context->handshake_task);
    }
}

void tls__handshake_task(struct env_task *task) {
    struct tls_context *context = CONTAINER_OF(task, struct tls_context, handshake_task);
    for (uint32_t steps = 0; steps < context->handshakes_per_turn; steps++) {
        struct list *node = list_pop_front(&context->handshakes);
        if (node == NULL) {
            return;
        }
        handshake_step(LIST_ENTRY(node, struct tls_stream, handshake_link));
    }
    if (!list_is_empty(&context->handshakes) && env_timer_arm(&context->turn_timer, 0) != STATUS_OK) {
        env_defer(context->loop, ENV_STAGE_PROCESS, task); /* without memory for the timer: in this turn */
    }
}

void tls__turn_timer(struct env_timer *timer) {
    struct tls_context *context = CONTAINER_OF(timer, struct tls_context, turn_timer);
    env_defer(context->loop, ENV_STAGE_PROCESS, &context->handshake_task);
}

void tls__handshake_timeout(struct env_timer *timer) {
    struct tls_stream *stream = CONTAINER_OF(timer, struct tls_stream, handshake_timer);
    struct error err;
    (void)error_set(&err, STATUS_TIMEOUT, "no TLS handshake with %s within %llu ms", stream->peer.address,
                    (unsigned long long)(stream->context->handshake_timeout_us / 1000));
    struct env_stream *inner = stream->inner;
    tls__stream_fail(stream, &err);
    env_stream_close(inner);
}

/* ---- What the inner stream calls ----------------------------------------------------------------------------- */

static struct tls_stream *of_handler(struct env_stream_handler *handler) {
    return CONTAINER_OF(handler, struct tls_stream, inner_handler);
}

static void inner_opened(struct env_stream_handler *handler) {
    struct tls_stream *stream = of_handler(handler);
    if (stream->state == TLS_HANDSHAKING) {
        stream->peer = *env_stream_peer(stream->inner);
        if (!stream->server) {
            handshake_queue(stream); /* the client speaks first */
        }
    }
}

static void inner_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    struct tls_stream *stream = of_handler(handler);
    size_t have = stream->input_end - stream->input_start;
    if (stream->input_start > 0 && (have == 0 || stream->input_end == TLS_INPUT_BYTES)) {
        memmove(stream->input, stream->input + stream->input_start, have);
        stream->input_start = 0;
        stream->input_end = have;
    }
    *ret_data = stream->input + stream->input_end;
    *ret_len = stream->state == TLS_ENDING ? 0 : TLS_INPUT_BYTES - stream->input_end;
    stream->inner_stopped = *ret_len == 0;
}

static void inner_received(struct env_stream_handler *handler, size_t len) {
    struct tls_stream *stream = of_handler(handler);
    if (stream->state == TLS_ENDING) {
        return;
    }
    CHECK(len <= TLS_INPUT_BYTES - stream->input_end);
    stream->input_end += len;
    if (stream->state == TLS_OPEN) {
        if (!stream->owner_stopped) {
            read_input(stream);
        }
        return;
    }
    stream->handshake_bytes += len;
    if (stream->handshake_bytes > TLS_HANDSHAKE_BYTES_MAX) {
        struct error err;
        (void)error_set(&err, STATUS_TOO_LARGE, "%s sent more than %d bytes before the TLS handshake was done",
                        stream->peer.address, TLS_HANDSHAKE_BYTES_MAX);
        tls__stream_fail(stream, &err);
        return;
    }
    handshake_queue(stream);
}

static void inner_drained(struct env_stream_handler *handler) {
    struct tls_stream *stream = of_handler(handler);
    if (stream->state != TLS_OPEN) {
        return;
    }
    if (tls__output_len(stream) > 0) {
        env_defer(stream->context->loop, ENV_STAGE_FLUSH, &stream->flush_task);
    } else if (stream->was_full) {
        stream->was_full = false;
        stream->owner->drained(stream->owner);
    }
}

static void inner_closed(struct env_stream_handler *handler, const struct error *err) {
    struct tls_stream *stream = of_handler(handler);
    stream->inner = NULL;
    if (!stream->failed) {
        stream->end = *err;
    }
    if (stream->state == TLS_HANDSHAKING && !input_is_empty(stream)) {
        list_remove(&stream->handshake_link);
        handshake_step(stream); /* an alert may explain it */
    }
    if (stream->state == TLS_OPEN && !stream->owner_stopped) {
        read_input(stream);
    }
    tls__stream_settle_end(stream);
}

void tls__input_task(struct env_task *task) {
    struct tls_stream *stream = CONTAINER_OF(task, struct tls_stream, input_task);
    if (stream->state == TLS_OPEN && !stream->owner_stopped) {
        read_input(stream);
    }
    if (stream->inner == NULL) {
        tls__stream_settle_end(stream);
    }
}

const struct env_stream_handler tls__inner_handler = {
    .opened = inner_opened,
    .room = inner_room,
    .received = inner_received,
    .drained = inner_drained,
    .closed = inner_closed,
};
