/*
 * The digest chain: one number for everything that was applied up to an entry. Two nodes whose numbers at the same
 * index are equal have done the same to their stores, entry for entry; once they differ they differ for ever, so
 * comparing now and then is enough.
 *
 *   values  = {0, 0}; for each operation, in the order of the batch:
 *             values = values * 3 + copied(value or end of the range, ordinal << 8 | kind)     word by word
 *   keys    = 0; for each operation, versions in order, then range deletes in order:
 *             keys = keys * 3 + XXH3-64(key)
 *   chain   = next(chain, index, term, values[0] + keys, values[1])         128 bits, low and high; of no entries: 0
 *
 *   next: low ^= the first, high += the second; low' = fold(low, index * B + term) + high;
 *         high' = (high rotated by 29 + low') * A + low; fold: both halves of the product, xored
 *
 * copied() is made of the words of a value as they are stored into the memtable: copying and hashing are one loop, so
 * that it costs little more than copying alone. The hash of a key is of the record in the memtable; its filter needs it
 * anyway. So effects are those of the memtable, not of the entry: a request that was evaluated differently, cut, or put
 * under another key, shows. What changes in memory later is found by the scan (digest_scan.c).
 *
 * The term stands for the entry's kind (an index and a term name one entry of the log). It guards against mistakes and
 * bad memory, not against somebody who wants a collision: copied() is made of sums, in which one wrong word always
 * shows, and several do unless they cancel each other, in their sum and in the sum weighted by the distance from the
 * end.
 *
 * Plain data and pure functions; a history belongs to who owns the store.
 */
#ifndef HOLDFAST_STORAGE_DIGEST_H
#define HOLDFAST_STORAGE_DIGEST_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

static inline uint64_t digest_fold(uint64_t left, uint64_t right) {
    unsigned __int128 product = (unsigned __int128)left * right;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Two words side by side, added word by word. */
typedef uint64_t digest_lanes __attribute__((vector_size(16)));

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words of values are little-endian");

struct digest_sums {
    digest_lanes sum;
    digest_lanes sums; /* the sum of the sums so far: the earlier a word, the more it weighs */
};

/* Sixteen bytes there, and into the sums. */
static inline void digest__block(struct digest_sums *sums, uint8_t *to, const uint8_t *from) {
    digest_lanes block;
    memcpy(&block, from, sizeof block);
    memcpy(to, &block, sizeof block);
    sums->sum += block;
    sums->sums += sums->sum;
}

/* Fewer than sixteen bytes: two words that overlap, or three bytes. */
static inline void digest__short(struct digest_sums *sums, uint8_t *to, const uint8_t *from, size_t len) {
    uint64_t first = 0;
    uint64_t last = 0;
    if (len >= 8) {
        memcpy(&first, from, 8);
        memcpy(&last, from + len - 8, 8);
        memcpy(to, &first, 8);
        memcpy(to + len - 8, &last, 8);
    } else if (len >= 4) {
        memcpy(&first, from, 4);
        memcpy(&last, from + len - 4, 4);
        memcpy(to, &first, 4);
        memcpy(to + len - 4, &last, 4);
    } else if (len > 0) {
        to[0] = from[0];
        to[len / 2] = from[len / 2];
        to[len - 1] = from[len - 1];
        first = from[0];
        last = (uint64_t)from[len / 2] << 8 | from[len - 1];
    }
    sums->sum += (digest_lanes){first, last};
    sums->sums += sums->sum;
}

/* Copies len bytes to where nothing overlaps, and returns copied() of them:
 *
 *   sum = {len, head}; sums = {0, 0}; for each block of two words: sum += block; sums += sum
 *   copied = sums * 2 + {sum[1], sum[0]}
 *
 * Blocks are of 16 bytes, the last one is the last 16 bytes, so it may overlap. A value of 8 to 15 bytes is one block,
 * of its first and its last 8 bytes; of 4 to 7, of its first and its last 4; of 1 to 3, of the first one, and the
 * middle one << 8 | the last one; of none, of zeroes. */
static inline digest_lanes digest_copy(uint8_t *to, const uint8_t *from, size_t len, uint64_t head) {
    const size_t block = sizeof(digest_lanes);
    struct digest_sums sums = {.sum = {len, head}};
    if (len < block) {
        digest__short(&sums, to, from, len);
    } else {
        const uint8_t *last = from + len - block;
        uint8_t *to_last = to + len - block;
        size_t blocks = (len - 1) / block;
        for (; blocks >= 4; blocks -= 4, from += 4 * block, to += 4 * block) {
            digest__block(&sums, to, from);
            digest__block(&sums, to + block, from + block);
            digest__block(&sums, to + 2 * block, from + 2 * block);
            digest__block(&sums, to + 3 * block, from + 3 * block);
        }
        if ((blocks & 2) != 0) {
            digest__block(&sums, to, from);
            digest__block(&sums, to + block, from + block);
            from += 2 * block;
            to += 2 * block;
        }
        if ((blocks & 1) != 0) {
            digest__block(&sums, to, from);
        }
        digest__block(&sums, to_last, last);
    }
    return sums.sums + sums.sums + (digest_lanes){sums.sum[1], sums.sum[0]};
}

/* What an entry did, so far; zeroes: nothing. */
struct digest_effects {
    digest_lanes values;
    uint64_t keys;
};

static inline void digest_add_value(struct digest_effects *effects, digest_lanes copied) {
    effects->values += (effects->values << 1) + copied;
}

/* key_hash: checksum64 of the key, seed 0. */
static inline void digest_add_key(struct digest_effects *effects, uint64_t key_hash) {
    effects->keys = effects->keys * 3 + key_hash;
}

/* A change of `before` or of the effects alone always, or but for one chance in 2^64, changes the result. */
static inline struct digest digest_next(const struct digest *before, uint64_t index, uint64_t term,
                                        const struct digest_effects *effects) {
    struct digest next;
    uint64_t low = before->low ^ (effects->values[0] + effects->keys);
    uint64_t high = before->high + effects->values[1];
    next.low = digest_fold(low, index * DIGEST_B + term) + high;
    next.high = ((high << 29 | high >> 35) + next.low) * DIGEST_A + low;
    return next;
}

/* The chain at the newest entries. */
struct digest_history {
    uint64_t begin;  /* index; what came before is not known */
    uint64_t newest; /* index; */
    struct digest at_newest;
    struct digest chain[DIGESTS_KEPT]; /* by index modulo DIGESTS_KEPT */
};

/* Begins anew behind this entry, where the chain is known. */
void digest_history_begin(struct digest_history *history, uint64_t index, const struct digest *digest);

/* The entry behind the newest one. */
static inline void digest_history_add(struct digest_history *history, uint64_t index, uint64_t term,
                                      const struct digest_effects *effects) {
    history->at_newest = digest_next(&history->at_newest, index, term, effects);
    history->chain[index % DIGESTS_KEPT] = history->at_newest;
    history->newest = index;
}

static inline const struct digest *digest_history_newest(const struct digest_history *history) {
    return &history->at_newest;
}

/* False: the entry isn't there yet, or not any more. */
bool digest_history_find(const struct digest_history *history, uint64_t index, struct digest *ret_digest);

#endif
