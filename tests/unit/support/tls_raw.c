/* Plain bytes, or OpenSSL over memory BIOs, on a stream of the memory world: see tls_raw.h. */
#include "tests/unit/support/tls_raw.h"

#include "node/base/check.h"

#include <openssl/err.h>

static struct tls_raw *of_handler(struct env_stream_handler *handler) {
    return CONTAINER_OF(handler, struct tls_raw, handler);
}

static void note_failure(struct tls_raw *raw) {
    if (raw->ssl_reason == 0) {
        raw->ssl_reason = ERR_GET_REASON(ERR_peek_error());
    }
    ERR_clear_error();
}

void tls_raw_pump(struct tls_raw *raw) {
    if (!raw->shaken) {
        int result = SSL_do_handshake(raw->ssl);
        raw->shaken = result == 1;
        if (result != 1 && SSL_get_error(raw->ssl, result) != SSL_ERROR_WANT_READ) {
            note_failure(raw);
        }
    }
    uint8_t data[4096];
    size_t len = 0;
    while (raw->shaken) {
        if (SSL_read_ex(raw->ssl, data, sizeof data, &len) != 1) {
            if (SSL_get_error(raw->ssl, 0) != SSL_ERROR_WANT_READ) {
                note_failure(raw);
            }
            break;
        }
        CHECK(buf_append(&raw->got, data, len) == STATUS_OK);
    }
    while (BIO_read_ex(raw->to_peer, data, sizeof data, &len) == 1) {
        tls_raw_send(raw, data, len);
    }
    ERR_clear_error();
}

void tls_raw_send(struct tls_raw *raw, const void *data, size_t len) {
    if (raw->stream != NULL) {
        struct slice part = slice_of(data, len);
        enum status status = env_stream_write(raw->stream, &part, 1);
        CHECK(status == STATUS_OK || status == STATUS_CLOSED);
    }
}

static void raw_opened(struct env_stream_handler *handler) {
    struct tls_raw *raw = of_handler(handler);
    if (raw->ssl != NULL) {
        tls_raw_pump(raw);
    }
}

static void raw_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    struct tls_raw *raw = of_handler(handler);
    *ret_data = raw->room;
    *ret_len = raw->deaf ? 0 : sizeof raw->room;
}

static void raw_received(struct env_stream_handler *handler, size_t len) {
    struct tls_raw *raw = of_handler(handler);
    if (raw->ssl == NULL) {
        CHECK(buf_append(&raw->got, raw->room, len) == STATUS_OK);
        return;
    }
    CHECK(BIO_write(raw->from_peer, raw->room, (int)len) == (int)len);
    tls_raw_pump(raw);
}

static void raw_drained(struct env_stream_handler *handler) { (void)handler; }

static void raw_closed(struct env_stream_handler *handler, const struct error *err) {
    struct tls_raw *raw = of_handler(handler);
    raw->closed++;
    raw->error = *err;
    raw->stream = NULL;
}

void tls_raw_init(struct tls_raw *raw, struct memory_world *world, int version_max) {
    *raw = (struct tls_raw){.handler = {raw_opened, raw_room, raw_received, raw_drained, raw_closed}};
    buf_init(&raw->got, alloc_system(), 0);
    if (version_max != 0) {
        raw->ssl_context = SSL_CTX_new(TLS_client_method());
        raw->ssl = SSL_new(raw->ssl_context);
        raw->from_peer = BIO_new(BIO_s_mem());
        raw->to_peer = BIO_new(BIO_s_mem());
        CHECK(raw->ssl != NULL && raw->from_peer != NULL && raw->to_peer != NULL);
        BIO_set_mem_eof_return(raw->from_peer, -1);
        SSL_set_bio(raw->ssl, raw->from_peer, raw->to_peer);
        CHECK(SSL_set_max_proto_version(raw->ssl, version_max) == 1);
        SSL_set_verify(raw->ssl, SSL_VERIFY_NONE, NULL);
        SSL_set_connect_state(raw->ssl);
    }
    enum status status = env_connect(&world->transport, &world->loop, "there", &raw->handler, &raw->stream, NULL);
    CHECK(status == STATUS_OK);
}

void tls_raw_deinit(struct tls_raw *raw) {
    CHECK(raw->stream == NULL);
    SSL_free(raw->ssl);
    SSL_CTX_free(raw->ssl_context);
    buf_deinit(&raw->got);
}
