/*
 * Who is who: names, addresses and certificates of the members that this node knows now, for every thread to look at.
 *
 * What the local configuration file says of a node goes before what the membership says of it, for an operator can edit
 * the file (a new certificate, a new address); the membership is for nodes that no file here names. An id never means
 * another node (DESIGN rule 14), so the two can't be about different ones.
 *
 * One writer, the consensus thread; readers on any thread copy an entry and never wait for the writer: a version number
 * that is odd during a change, and around it words that are all atomic. A change takes about a microsecond and comes
 * with a configuration; a reader that meets one begins again.
 */
#ifndef HOLDFAST_SERVER_DIRECTORY_H
#define HOLDFAST_SERVER_DIRECTORY_H

#include "node/server/config.h"
#include "raft/raft.h"

#include <stdatomic.h>

/* Members of the effective, of the applied membership, and of one that others know. */
enum { DIRECTORY_ENTRIES_MAX = 3 * LIMIT_MEMBERS };

struct directory_entry {
    uint64_t id;
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES];
    char name[LIMIT_NAME_BYTES];
    char peer_address[LIMIT_ADDRESS_BYTES];
    char client_address[LIMIT_ADDRESS_BYTES];
};

struct directory_entries {
    uint64_t count;
    struct directory_entry entries[DIRECTORY_ENTRIES_MAX];
};

enum {
    DIRECTORY_WORDS = sizeof(struct directory_entries) / sizeof(uint64_t),
    DIRECTORY_WORDS_OF_ENTRY = sizeof(struct directory_entry) / sizeof(uint64_t)
};
static_assert(DIRECTORY_WORDS * sizeof(uint64_t) == sizeof(struct directory_entries) &&
                  DIRECTORY_WORDS_OF_ENTRY * sizeof(uint64_t) == sizeof(struct directory_entry),
              "whole words");

/* Zeroed memory is an empty directory. */
struct directory {
    _Atomic uint64_t version; /* odd: being changed */
    _Atomic uint64_t words[DIRECTORY_WORDS];
};

/* A member as this node knows it: the file's word before the membership's. */
void directory_merge(const struct config *config, const struct raft_member *member, struct directory_entry *ret_entry);
/* The writer. */
void directory_set(struct directory *directory, const struct directory_entries *entries);
/* Any thread: by id, or by certificate. False: nobody. */
bool directory_find(const struct directory *directory, uint64_t id, struct directory_entry *ret_entry);
bool directory_find_thumbprint(const struct directory *directory, const uint8_t thumbprint[ENV_THUMBPRINT_BYTES],
                               struct directory_entry *ret_entry);
/* Any thread: in the directory, else in the configuration file. */
bool directory_look_up(const struct directory *directory, const struct config *config, uint64_t id,
                       struct directory_entry *ret_entry);

#endif
