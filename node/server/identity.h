/*
 * Who may do what: a certificate's SHA-256 thumbprint against the members and identities of the configuration file, and
 * the members that the membership names and the file doesn't (directory.h).
 *
 * Any thread. (Replicated roles of clients come later.)
 */
#ifndef HOLDFAST_SERVER_IDENTITY_H
#define HOLDFAST_SERVER_IDENTITY_H

#include "node/server/config.h"
#include "node/server/directory.h"
#include "proto/frame.h"

struct identity {
    enum config_role role;
    uint64_t node_id; /* PEER: which member; else 0 */
    char name[LIMIT_NAME_BYTES];
};

/* WIRE_OK with *ret_identity, or why not: no certificate, untrusted, expired, not yet valid, unknown thumbprint; then
 * `message` says what is wrong and what to do, thumbprint included. */
enum wire_code identity_check(const struct config *config, const struct directory *directory,
                              const struct env_peer *peer, struct identity *ret_identity, char *message,
                              size_t message_size);
bool identity_may_read(const struct identity *identity);
bool identity_may_write(const struct identity *identity);
bool identity_is_admin(const struct identity *identity);
bool identity_is_peer(const struct identity *identity);
/* 64 hex digits and a NUL. */
void identity_thumbprint_text(const uint8_t thumbprint[ENV_THUMBPRINT_BYTES],
                              char ret_text[2 * ENV_THUMBPRINT_BYTES + 1]);

#endif
