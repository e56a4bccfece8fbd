/*
 * For tests of TLS: certificates of every kind, and one side of a stream that records what happens to it.
 *
 * The certificates come from deploy/certificates, so that the script is tested with them.
 */
#ifndef HOLDFAST_TESTS_TLS_SIDE_H
#define HOLDFAST_TESTS_TLS_SIDE_H

#include "node/base/buf.h"
#include "proto/tls/tls.h"
#include "tests/unit/support/memory_net.h"

/* Makes a directory with ca, n1, n2, reader (--client), expired, future; and other/ca, other/stranger. NULL on failure.
 */
char *certificates_make(void);
/* Deletes it and frees the name. */
void certificates_remove(char *dir);
/* "<dir>/<name>", in one of a few static buffers. */
const char *certificates_path(const char *dir, const char *name);

/* What an owner of a stream sees. */
struct tls_side {
    struct env_stream_handler handler;
    struct env_stream *stream;
    struct buf got;
    uint8_t *room;
    size_t room_bytes; /* 0: takes nothing */
    bool close_on_received;
    bool finish_on_opened;
    const char *say_on_opened;
    unsigned opened;
    unsigned drained;
    unsigned received;
    unsigned closed;
    unsigned rooms_refused;
    struct error error;
    struct env_peer peer; /* as of opened */
    /* Called after the recording, if set. */
    void (*on_event)(struct tls_side *side);
};

void tls_side_init(struct tls_side *side);
/* Closes nothing: the stream must be gone. */
void tls_side_deinit(struct tls_side *side);
void tls_side_write(struct tls_side *side, const void *data, size_t len);

/* A client side and a server side over TLS in a memory world. */
struct tls_pair {
    struct memory_world world;
    struct tls_context *server_context;
    struct tls_context *client_context;
    struct env_listener *listener;
    struct tls_side server;
    struct tls_side client;
    unsigned accepted;
    unsigned rejected;
    char rejected_address[LIMIT_ADDRESS_BYTES];
    struct error rejected_error;
    struct slice raw_answer; /* of tls_pair_listen_raw */
};

/* Contexts with the certificates of those names; client NULL: none. */
void tls_pair_init(struct tls_pair *pair, const char *dir, const char *server, const char *client, uint64_t seed);
/* Closes what is open, and fails if anything is left. */
void tls_pair_deinit(struct tls_pair *pair);
/* A context with a certificate from dir (NULL: none) and these acceptable servers; four handshakes per turn. */
struct tls_context *tls_pair_context(struct tls_pair *pair, const char *dir, const char *name,
                                     const uint8_t (*expected)[ENV_THUMBPRINT_BYTES], uint32_t expected_count);
/* Listens again, after pair->listener was closed. */
void tls_pair_listen(struct tls_pair *pair);
/* A listener without TLS instead: it answers the first bytes with these and finishes, or (NULL) stays silent. */
void tls_pair_listen_raw(struct tls_pair *pair, const uint8_t *answer, size_t answer_len);
/* Starts connecting the client side; run the world to go on. */
void tls_pair_connect(struct tls_pair *pair);

#endif
