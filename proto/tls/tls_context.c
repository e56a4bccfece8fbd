/*
 * The TLS transport: one configuration of OpenSSL, and streams and listeners made from it.
 *
 *   tls_context_new -> tls_context_transport -> env_listen, env_connect ... -> all of them closed -> tls_context_free
 *
 * TLS 1.3 only. Every certificate gets through the handshake; tls_peer.c judges it afterwards. Sessions are not
 * resumed: there are no tickets and no cache, so that each connection proves its identity anew (a session id context is
 * set all the same: without it OpenSSL would refuse a resumed session with a bare alert).
 *
 * Owner: the loop of the first listen or connect.
 */
#include "proto/tls/tls_internal.h"

#include "node/base/check.h"

#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

enum { CERTIFICATE_LIST_BYTES_MAX = 32 * 1024 };

static_assert((int)CERTIFICATE_LIST_BYTES_MAX < (int)TLS_HANDSHAKE_BYTES_MAX,
              "the longest certificate list fits a handshake");

static const unsigned char session_id_context[] = "holdfast";

/* 128 bits first: the peer's processor has AES, and 256 bits cost a third more. */
static const char cipher_suites[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/* In place of OpenSSL's verification: see tls_peer.c. */
static int accept_for_now(X509_STORE_CTX *check, void *argument) {
    (void)argument;
    X509_STORE_CTX_set_error(check, X509_V_OK);
    return 1;
}

static bool configure(SSL_CTX *ssl_context) {
    SSL_CTX_set_options(ssl_context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ssl_context,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ssl_context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(ssl_context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(ssl_context, accept_for_now, NULL);
    SSL_CTX_set_max_cert_list(ssl_context, CERTIFICATE_LIST_BYTES_MAX);
    return SSL_CTX_set_min_proto_version(ssl_context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(ssl_context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_ciphersuites(ssl_context, cipher_suites) == 1 && SSL_CTX_set_num_tickets(ssl_context, 0) == 1 &&
           SSL_CTX_set_session_id_context(ssl_context, session_id_context, sizeof session_id_context - 1) == 1;
}

static enum status copy_options(struct tls_context *context, const struct tls_options *options) {
    context->handshake_timeout_us = options->handshake_timeout_us;
    context->handshakes_per_turn = options->handshakes_per_turn;
    context->callback_context = options->context;
    context->rejected = options->rejected;
    if (options->expected_count > 0) {
        size_t size = options->expected_count * sizeof options->expected[0];
        context->expected = mem_alloc(context->env->alloc, size);
        if (context->expected == NULL) {
            return STATUS_NO_MEMORY;
        }
        memcpy(context->expected, options->expected, size);
        context->expected_count = options->expected_count;
    }
    return STATUS_OK;
}

static const struct env_transport_ops transport_ops;

enum status tls_context_new(struct env *env, struct env_transport *inner, const struct tls_options *options,
                            struct tls_context **ret_context, struct error *err) {
    CHECK(options->ca_file != NULL && options->handshake_timeout_us > 0 && options->handshakes_per_turn > 0);
    CHECK(options->expected_count <= TLS_EXPECTED_THUMBPRINTS_MAX);
    struct tls_context *context = mem_alloc_zero(env->alloc, sizeof *context);
    if (context == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for a TLS context");
    }
    context->transport.ops = &transport_ops;
    context->env = env;
    context->inner = inner;
    list_init(&context->handshakes);
    env_task_init(&context->handshake_task, tls__handshake_task);
    enum status status = copy_options(context, options);
    context->ssl_context = SSL_CTX_new(TLS_method());
    context->store = X509_STORE_new();
    context->bio_method = tls__bio_method_new();
    if (status != STATUS_OK || context->ssl_context == NULL || context->store == NULL || context->bio_method == NULL) {
        ERR_clear_error();
        status = error_set(err, STATUS_NO_MEMORY, "no memory for a TLS context");
        goto out;
    }
    if (!configure(context->ssl_context)) {
        status = tls__error_set(err, STATUS_UNSUPPORTED, "this OpenSSL can't be set up for TLS 1.3");
        goto out;
    }
    status = tls__load_ca(env, options->ca_file, context->store, err);
    if (status == STATUS_OK && options->cert_file != NULL) {
        status = tls__load_identity(env, options->cert_file, options->key_file, context->ssl_context, err);
        context->has_certificate = true;
    }
out:
    if (status == STATUS_OK) {
        *ret_context = context;
    } else {
        tls_context_free(context);
    }
    return status;
}

void tls_context_free(struct tls_context *context) {
    if (context == NULL) {
        return;
    }
    CHECK(context->user_count == 0 && list_is_empty(&context->handshakes));
    env_task_cancel(&context->handshake_task);
    env_timer_cancel(&context->turn_timer);
    SSL_CTX_free(context->ssl_context);
    X509_STORE_free(context->store);
    BIO_meth_free(context->bio_method);
    struct alloc *alloc = context->env->alloc;
    mem_free(alloc, context->expected);
    mem_free(alloc, context);
}

struct env_transport *tls_context_transport(struct tls_context *context) {
    return &context->transport;
}

/* ---- Streams and listeners ----------------------------------------------------------------------------------- */

struct tls_listener {
    struct env_listener base;
    struct tls_context *context;
    struct env_listener *inner;
    struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream);
    void *accepted_context;
};

static struct tls_context *of_transport(struct env_transport *transport) {
    return CONTAINER_OF(transport, struct tls_context, transport);
}

static void use_loop(struct tls_context *context, struct env_loop *loop) {
    if (context->loop == NULL) {
        context->loop = loop;
        env_timer_init(&context->turn_timer, loop, tls__turn_timer);
    }
    CHECK(context->loop == loop);
}

/* The clock of the handshake runs from here on, connecting included. */
static enum status start_timer(struct tls_stream *stream) {
    struct env_loop *loop = stream->context->loop;
    return env_timer_arm(&stream->handshake_timer, env_now_us(loop) + stream->context->handshake_timeout_us);
}

static struct env_stream_handler *accepted(void *listener_context, struct env_stream *inner) {
    struct tls_listener *listener = listener_context;
    struct tls_stream *stream;
    if (tls__stream_new(listener->context, true, &stream) != STATUS_OK) {
        return NULL;
    }
    stream->inner = inner;
    stream->peer = *env_stream_peer(inner);
    if (start_timer(stream) == STATUS_OK) {
        stream->owner = listener->accepted(listener->accepted_context, &stream->base);
    }
    if (stream->owner == NULL) {
        tls__stream_free(stream);
        return NULL;
    }
    return &stream->inner_handler;
}

static const char *listener_address(const struct env_listener *base) {
    return env_listener_address(CONTAINER_OF(base, struct tls_listener, base)->inner);
}

static void listener_close(struct env_listener *base) {
    struct tls_listener *listener = CONTAINER_OF(base, struct tls_listener, base);
    listener->context->user_count--;
    env_listener_close(listener->inner);
    mem_free(listener->context->env->alloc, listener);
}

static const struct env_listener_ops listener_ops = {.address = listener_address, .close = listener_close};

static enum status transport_listen(struct env_transport *transport, struct env_loop *loop, const char *address,
                                    struct env_stream_handler *(*owner_accepted)(void *context,
                                                                                 struct env_stream *stream),
                                    void *owner_context, struct env_listener **ret_listener, struct error *err) {
    struct tls_context *context = of_transport(transport);
    use_loop(context, loop);
    if (!context->has_certificate) {
        return error_set(err, STATUS_INVALID, "listening with TLS on %s needs a certificate and its key", address);
    }
    struct tls_listener *listener = mem_alloc_zero(context->env->alloc, sizeof *listener);
    if (listener == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to listen on %s", address);
    }
    listener->base.ops = &listener_ops;
    listener->context = context;
    listener->accepted = owner_accepted;
    listener->accepted_context = owner_context;
    enum status status = env_listen(context->inner, loop, address, accepted, listener, &listener->inner, err);
    if (status != STATUS_OK) {
        mem_free(context->env->alloc, listener);
        return status;
    }
    context->user_count++;
    *ret_listener = &listener->base;
    return STATUS_OK;
}

static enum status transport_connect(struct env_transport *transport, struct env_loop *loop, const char *address,
                                     struct env_stream_handler *owner, struct env_stream **ret_stream,
                                     struct error *err) {
    struct tls_context *context = of_transport(transport);
    use_loop(context, loop);
    struct tls_stream *stream;
    if (tls__stream_new(context, false, &stream) != STATUS_OK) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to connect to %s", address);
    }
    stream->owner = owner;
    (void)snprintf(stream->peer.address, sizeof stream->peer.address, "%s", address);
    enum status status = start_timer(stream);
    if (status != STATUS_OK) {
        (void)error_set(err, status, "no memory to connect to %s", address);
    } else {
        status = env_connect(context->inner, loop, address, &stream->inner_handler, &stream->inner, err);
    }
    if (status != STATUS_OK) {
        tls__stream_free(stream);
        return status;
    }
    *ret_stream = &stream->base;
    return STATUS_OK;
}

static const struct env_transport_ops transport_ops = {.listen = transport_listen, .connect = transport_connect};
