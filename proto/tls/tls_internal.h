/*
 * What the files of proto/tls share. Read tls_stream.c first: it has the states of a stream and who calls whom.
 */
#ifndef HOLDFAST_PROTO_TLS_INTERNAL_H
#define HOLDFAST_PROTO_TLS_INTERNAL_H

#include "node/base/buf.h"
#include "proto/tls/tls.h"

#include <openssl/ssl.h>

enum {
    TLS_INPUT_BYTES = 32 * 1024,         /* ciphertext that waits for OpenSSL, per stream */
    TLS_HANDSHAKE_BYTES_MAX = 64 * 1024, /* what a peer may send before it has shaken hands */
    TLS_ANSWER_BYTES_MAX = 4 * 1024,     /* what a peer can make OpenSSL say on its own (key updates), */
    TLS_ANSWER_DATA_RATIO = 256,         /* and one byte more for this many bytes of its data */
    TLS_ENCRYPT_BYTES = 128 * 1024,      /* between two looks at how full the inner stream is; whole records */
    TLS_OUTPUT_KEPT_BYTES = 64 * 1024,   /* a larger output buffer is given back once it is empty */
    TLS_FILE_BYTES_MAX = 1024 * 1024     /* a PEM file */
};

struct tls_context {
    struct env_transport transport;
    struct env *env;
    struct env_transport *inner;
    struct env_loop *loop; /* of the first listen or connect; NULL before */
    SSL_CTX *ssl_context;
    X509_STORE *store; /* the CA's certificates */
    BIO_METHOD *bio_method;
    bool has_certificate;
    uint64_t handshake_timeout_us;
    uint32_t handshakes_per_turn;
    uint32_t expected_count;
    uint8_t (*expected)[ENV_THUMBPRINT_BYTES]; /* owned */
    void *callback_context;
    void (*rejected)(void *context, const char *address, const struct error *err);
    uint32_t user_count;    /* streams and listeners */
    struct list handshakes; /* of tls_stream.handshake_link: has a step to make, oldest first */
    struct env_task handshake_task;
    struct env_timer turn_timer; /* the next turn goes on with them */
};

enum tls_state {
    TLS_HANDSHAKING, /* connecting included */
    TLS_OPEN,
    TLS_ENDING /* no more room, received and drained calls; closed is to come */
};

struct tls_stream {
    struct env_stream base;
    struct env_stream_handler inner_handler;
    struct tls_context *context;
    struct env_stream *inner; /* NULL once it is gone */
    struct env_stream_handler *owner;
    SSL *ssl;
    enum tls_state state;
    bool server;
    bool owner_stopped;       /* the owner gave no room: nothing is decrypted until he resumes */
    bool inner_stopped;       /* we gave no room */
    bool was_full;            /* the owner has seen ENV_STREAM_HIGH_BYTES and waits for drained */
    bool failed;              /* `end` is ours, whatever the inner stream says at its end */
    enum status write_status; /* not OK: the inner stream refused bytes; nothing can be sent any more */
    struct error end;
    uint8_t *input; /* TLS_INPUT_BYTES; ciphertext in [input_start, input_end) */
    size_t input_start;
    size_t input_end;
    size_t handshake_bytes; /* received before the handshake was complete */
    size_t answer_bytes;    /* sent by OpenSSL on its own */
    size_t received_bytes;  /* plaintext */
    size_t written_bytes;   /* given to the inner stream */
    struct buf output;      /* plaintext of this turn, and what the inner stream was too full for */
    size_t output_done;     /* of it, encrypted */
    struct env_task input_task;
    struct env_task flush_task;
    struct list handshake_link;
    struct env_timer handshake_timer;
    struct env_peer peer;
};

/* ---- tls_stream.c: life and output --------------------------------------------------------------------------- */

/* Plaintext that waits to be encrypted. */
static inline size_t tls__output_len(const struct tls_stream *stream) {
    return stream->output.len - stream->output_done;
}

/* A stream without inner stream and owner yet. STATUS_NO_MEMORY. */
MUST_USE enum status tls__stream_new(struct tls_context *context, bool server, struct tls_stream **ret_stream);
/* Nobody knows it yet, or it has said closed. */
void tls__stream_free(struct tls_stream *stream);
/* The inner stream is gone: says closed, unless the owner still has to take what arrived before. Frees the stream. */
void tls__stream_settle_end(struct tls_stream *stream);
/* Ends with this error: what OpenSSL has said (an alert) still leaves. */
void tls__stream_fail(struct tls_stream *stream, const struct error *err);
/* Sends what is queued and close_notify, then ends; closed will have `end` or the inner stream's error. */
void tls__stream_finish(struct tls_stream *stream);

/* ---- tls_input.c: handshake and decryption ------------------------------------------------------------------- */

extern const struct env_stream_handler tls__inner_handler;
void tls__input_task(struct env_task *task);
void tls__handshake_task(struct env_task *task);
void tls__handshake_timeout(struct env_timer *timer);
void tls__turn_timer(struct env_timer *timer);

/* ---- tls_peer.c: who is at the other end --------------------------------------------------------------------- */

/* From the session, after every handshake: fills certificate, thumbprint and subject of *peer. reason: why it isn't
 * VALID, in words; a static string. as_server: the peer must be fit for a server. STATUS_NO_MEMORY only. */
MUST_USE enum status tls__peer_identify(const struct tls_context *context, SSL *ssl, bool as_server,
                                        struct env_peer *peer, const char **ret_reason);
/* SHA-256 of the certificate. */
MUST_USE enum status tls__thumbprint(const X509 *certificate, uint8_t ret_thumbprint[ENV_THUMBPRINT_BYTES]);

/* ---- tls_files.c: PEM ---------------------------------------------------------------------------------------- */

MUST_USE enum status tls__load_ca(struct env *env, const char *file, X509_STORE *store, struct error *err);
MUST_USE enum status tls__load_identity(struct env *env, const char *cert_file, const char *key_file,
                                        SSL_CTX *ssl_context, struct error *err);

/* ---- tls_bio.c: the seam to OpenSSL -------------------------------------------------------------------------- */

/* BIOs that read a stream's input and write to its inner stream; NULL without memory. */
BIO_METHOD *tls__bio_method_new(void);
/* Gives the stream's ssl its BIO. */
MUST_USE enum status tls__bio_attach(struct tls_stream *stream);
/* The oldest entry of OpenSSL's error queue as "<what>: <reason>"; empties the queue. Returns code. */
enum status tls__error_set(struct error *err, enum status code, const char *what);
/* The same for a failed handshake or a failed stream, with words for what is usual. */
enum status tls__error_set_session(struct error *err, const char *what);

#endif
