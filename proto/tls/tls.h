/*
 * TLS 1.3 as a transport over another transport: both sides with certificates, through memory BIOs, no sockets in here.
 *
 * Any certificate, or none, completes the handshake; what it was is in env_peer, and the server above decides and says
 * why in the clear words of a refusal frame. What never reaches TLS 1.3 gets TLS's own alert; `rejected` lets the
 * server log it with the address. Chain, dates and thumbprint are looked at after every handshake by our own code.
 *
 * A client checks the server: signed by the CA, within its dates, and on its list of expected thumbprints if one is
 * given.
 *
 * Sessions are never resumed. Host names are not looked at: identity is the thumbprint.
 *
 * Handshakes cost 0.5 ms: at most `handshakes_per_turn` advance in one turn of the loop.
 *
 * Owner: a context belongs to one loop. Files are read by tls_context_new (blocks: start-up or a worker).
 */
#ifndef HOLDFAST_PROTO_TLS_H
#define HOLDFAST_PROTO_TLS_H

#include "node/env/env.h"

struct tls_context;

enum { TLS_EXPECTED_THUMBPRINTS_MAX = 64 };

struct tls_options {
    const char *ca_file;   /* PEM; one or more certificates */
    const char *cert_file; /* PEM; NULL: none (a client without identity) */
    const char *key_file;
    uint64_t handshake_timeout_us; /* from connect or accept to the end of the handshake; 5 s is usual */
    uint32_t handshakes_per_turn;  /* 4 is usual */
    /* Connecting side: acceptable server thumbprints; count 0: any that the CA signed. */
    uint32_t expected_count;
    const uint8_t (*expected)[ENV_THUMBPRINT_BYTES];
    /* Listening side: a peer that failed before TLS 1.3 was up. May be NULL. */
    void *context;
    void (*rejected)(void *context, const char *address, const struct error *err);
};

/* inner carries the bytes (TCP); borrowed. err names the file that is wrong and how. */
MUST_USE enum status tls_context_new(struct env *env, struct env_transport *inner, const struct tls_options *options,
                                     struct tls_context **ret_context, struct error *err);
/* When all its streams and listeners are gone (not from within a closed callback). NULL is accepted. */
void tls_context_free(struct tls_context *context);
/* Borrowed; lives as long as the context. Listening needs a certificate: STATUS_INVALID without. */
struct env_transport *tls_context_transport(struct tls_context *context);
/* SHA-256 of the first certificate of a PEM file. Blocks. */
MUST_USE enum status tls_thumbprint_of_file(struct env *env, const char *cert_file,
                                            uint8_t ret_thumbprint[ENV_THUMBPRINT_BYTES], struct error *err);

#endif
