/* The bytes of a block's body, for its builder and its cursor. FORMAT.md has the tables. */
#ifndef HOLDFAST_STORAGE_BLOCK_INTERNAL_H
#define HOLDFAST_STORAGE_BLOCK_INTERNAL_H

#include "node/base/bytes.h"
#include "storage/block.h"

/* Entry: control u8, shared varint, suffix length varint, value length varint, [ordinal varint], revision, suffix,
 * value. The control byte: */
enum {
    BLOCK_REVISION_LEN_MASK = 0x0f, /* bytes of the revision, 0 to 8. 0: ENTRY_REVISION_NONE and ENTRY_ORDINAL_MAX */
    BLOCK_HAS_ORDINAL = 0x10,       /* else it is 0 */
    BLOCK_KIND_SHIFT = 5
};

/* Tail: number of entries u32, number of restarts u32, number of buckets u16, zero u16. */
enum { BLOCK_TAIL_BYTES = 12 };

/* What stands in a bucket: the number of a restart, or */
enum { BLOCK_BUCKET_EMPTY = 255, BLOCK_BUCKET_COLLISION = 254, BLOCK_BUCKET_RESTARTS_MAX = 254 };

static_assert(BLOCK_TAIL_BYTES + sizeof(uint32_t) >= BLOCK_SLACK_BYTES, "reads behind the last entry stay inside");

/* count > 0. Not the half of the hash that chooses a filter's line. */
static inline uint32_t block__bucket(uint64_t user_hash, uint32_t count) {
    return (uint32_t)(((user_hash & UINT32_MAX) * count) >> 32);
}

/* Bytes that both begin with. */
static inline size_t block__shared(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len) {
    size_t limit = a_len < b_len ? a_len : b_len;
    size_t at = 0;
    while (at + sizeof(uint64_t) <= limit) {
        uint64_t differing = get_u64(a + at) ^ get_u64(b + at);
        if (differing != 0) {
            return at + (size_t)__builtin_ctzll(differing) / 8;
        }
        at += sizeof(uint64_t);
    }
    while (at < limit && a[at] == b[at]) {
        at++;
    }
    return at;
}

/* The order of two keys, given how many bytes they share: as slice_compare. */
static inline int block__order(struct slice a, struct slice b, size_t shared) {
    if (shared < a.len && shared < b.len) {
        return a.data[shared] < b.data[shared] ? -1 : 1;
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

#endif
