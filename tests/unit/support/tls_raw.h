/*
 * The other end of a TLS server under test: plain bytes, or a client made straight of OpenSSL, to say what ours never
 * would.
 */
#ifndef HOLDFAST_TESTS_TLS_RAW_H
#define HOLDFAST_TESTS_TLS_RAW_H

#include "node/base/buf.h"
#include "tests/unit/support/memory_net.h"

#include <openssl/ssl.h>

struct tls_raw {
    struct env_stream_handler handler;
    struct env_stream *stream;
    struct buf got; /* without ssl: all bytes; with it: plaintext */
    uint8_t room[16 * 1024];
    SSL_CTX *ssl_context;
    SSL *ssl; /* NULL: plain bytes */
    BIO *from_peer;
    BIO *to_peer;
    bool shaken;
    bool deaf; /* reads nothing */
    unsigned closed;
    int ssl_reason; /* of the first failure of OpenSSL's */
    struct error error;
};

/* version_max 0: plain bytes; else TLS1_2_VERSION or TLS1_3_VERSION. Connects to "there" of the world. */
void tls_raw_init(struct tls_raw *raw, struct memory_world *world, int version_max);
void tls_raw_deinit(struct tls_raw *raw);
/* Sends bytes as they are. */
void tls_raw_send(struct tls_raw *raw, const void *data, size_t len);
/* Sends what OpenSSL has to say. */
void tls_raw_pump(struct tls_raw *raw);

#endif
