/*
 * Digests of several members, counted: what the chain's rounds (consensus_digest.c) and the scans' (consensus_scan.c)
 * decide by. A digest that a quorum has is right; those who have another one are suspected; without such a quorum
 * nobody is.
 *
 * Plain data and functions over it; quorums are those of raft's effective membership. Owner: the consensus loop.
 */
#ifndef HOLDFAST_SERVER_DIGEST_VOTES_H
#define HOLDFAST_SERVER_DIGEST_VOTES_H

#include "node/base/limits.h"
#include "storage/digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct consensus;

enum {
    DIGEST_HEX_BYTES = 2 * DIGEST_BYTES + 1,
    DIGEST_NAMES_BYTES = LIMIT_MEMBERS * LIMIT_NAME_BYTES,
    DIGEST_LIST_BYTES = 640 /* of digests with their names, for a log line */
};

/* What one member says of itself. */
struct digest_vote {
    uint64_t id;
    struct digest digest;
};

struct digest_votes {
    struct digest_vote votes[LIMIT_MEMBERS];
    uint32_t count;
};

/* Thirty-two digits; returns text. */
const char *digest_hex(const struct digest *digest, char text[DIGEST_HEX_BYTES]);

bool digest_votes_has(const struct digest_votes *votes, uint64_t id);
/* False: it has voted already, or there is no place left. */
bool digest_votes_add(struct digest_votes *votes, uint64_t id, const struct digest *digest);
/* True if all who voted have the same, or nobody did. */
bool digest_votes_are_alike(const struct digest_votes *votes);
/* The digest that a quorum has, borrowed from votes; NULL: there is none. */
const struct digest *digest_votes_majority(const struct consensus *consensus, const struct digest_votes *votes);
/* "n1=<hex>,n2=<hex>": all that voted; cut if it doesn't fit. */
void digest_votes_list(const struct consensus *consensus, const struct digest_votes *votes, char *text, size_t size);
/* "n2,n3": those that differ from `majority`. The first one's digest is in ret_digest, which is untouched if there is
 * none. */
void digest_votes_suspects(const struct consensus *consensus, const struct digest_votes *votes,
                           const struct digest *majority, char *text, size_t size, struct digest *ret_digest);
/* This node leads: each other member that differs from `majority` is told to fill its store again, which it does if its
 * configuration says so (rebuild_on_mismatch). */
void digest_votes_order_rebuilds(struct consensus *consensus, const struct digest_votes *votes,
                                 const struct digest *majority);
/* This node leads and differs from `majority`: the lead goes to one that has it, the one that is furthest of those that
 * can take it. An event of this name is logged. */
void digest_votes_hand_over(struct consensus *consensus, const struct digest_votes *votes,
                            const struct digest *majority, const char *event_name);

#endif
