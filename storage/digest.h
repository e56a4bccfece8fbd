/*
 * The digest chain: one number for everything that was applied up to an entry. Two nodes whose numbers at the same
 * index are equal have done the same to their stores, entry for entry; once they differ they differ for ever, so
 * comparing now and then is enough.
 *
 *   effects = 0; for each operation as it was put into the memtable, versions in order, then range deletes in order:
 *             effects = fold(effects ^ hash(key) ^ A, hash(value or end of the range) ^ (ordinal << 8 | kind) * B ^ C)
 *             fold: both halves of the product, xored; hash: XXH3-64, of nothing 0
 *   chain   = next(chain, index, term, effects)          128 bits; of no entries: 0
 *
 * Effects are read from the memtable, not from the entry: a request that was evaluated differently, or copied wrongly,
 * shows. The term stands for the entry's kind (an index and a term name one entry of the log). It guards against
 * mistakes and bad memory, not against somebody who wants a collision: 64 bits for one entry's effects.
 *
 * Plain data and pure functions; a history belongs to who owns the store.
 */
#ifndef HOLDFAST_STORAGE_DIGEST_H
#define HOLDFAST_STORAGE_DIGEST_H

#include "node/base/checksum.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DIGEST_BYTES = 16,
    DIGESTS_KEPT = 8192 /* of the newest entries: more than a turn of applying or replaying takes */
};

struct digest {
    uint64_t low;
    uint64_t high;
};

static inline bool digest_equal(const struct digest *left, const struct digest *right) {
    return left->low == right->low && left->high == right->high;
}

/* Low, then high, little-endian: what the frontier has, and messages. */
void digest_encode(const struct digest *digest, uint8_t ret_bytes[DIGEST_BYTES]);
struct digest digest_decode(const uint8_t bytes[DIGEST_BYTES]);

#define DIGEST_A UINT64_C(0x9e3779b97f4a7c15)
#define DIGEST_B UINT64_C(0xd6e8feb86659fd93)
#define DIGEST_C UINT64_C(0xa0761d6478bd642f)

static inline uint64_t digest_fold(uint64_t left, uint64_t right) {
    unsigned __int128 product = (unsigned __int128)left * right;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* One more operation. key_hash: checksum64 of its key, seed 0, which the memtable needs anyway. */
static inline uint64_t digest_effect(uint64_t effects, uint8_t kind, uint32_t ordinal, uint64_t key_hash,
                                     const uint8_t *value, size_t value_len) {
    uint64_t head = ((uint64_t)ordinal << 8 | kind) * DIGEST_B;
    uint64_t value_hash = value_len > 0 ? checksum64(value, value_len, 0) : 0;
    return digest_fold(effects ^ key_hash ^ DIGEST_A, value_hash ^ head ^ DIGEST_C);
}

/* A change of `before` or of the effects alone always, or but for one chance in 2^64, changes the result. */
static inline struct digest digest_next(const struct digest *before, uint64_t index, uint64_t term, uint64_t effects) {
    uint64_t high = before->high * DIGEST_B;
    struct digest next;
    next.low = digest_fold(before->low ^ effects ^ DIGEST_A, index * DIGEST_B ^ term ^ DIGEST_C) + before->high;
    next.high = ((high << 29 | high >> 35) ^ next.low) * DIGEST_A + before->low;
    return next;
}

/* The chain at the newest entries. */
struct digest_history {
    uint64_t oldest; /* index; what came before is not known */
    uint64_t newest;
    struct digest chain[DIGESTS_KEPT]; /* by index modulo DIGESTS_KEPT */
};

/* Begins anew behind this entry, where the chain is known. */
void digest_history_begin(struct digest_history *history, uint64_t index, const struct digest *digest);

/* The entry behind the newest one. */
static inline void digest_history_add(struct digest_history *history, uint64_t index, uint64_t term, uint64_t effects) {
    const struct digest *before = &history->chain[history->newest % DIGESTS_KEPT];
    history->chain[index % DIGESTS_KEPT] = digest_next(before, index, term, effects);
    history->newest = index;
    if (index - history->oldest >= DIGESTS_KEPT) {
        history->oldest = index - DIGESTS_KEPT + 1;
    }
}

static inline const struct digest *digest_history_newest(const struct digest_history *history) {
    return &history->chain[history->newest % DIGESTS_KEPT];
}

/* False: the entry isn't there yet, or not any more. */
bool digest_history_find(const struct digest_history *history, uint64_t index, struct digest *ret_digest);

#endif
