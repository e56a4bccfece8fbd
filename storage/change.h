/*
 * Changes: what a write did to which key, in the order of the log. A memtable has those of its entries (memtable.h),
 * change files have those of flushed ones (change_file.h), storage_changes_* in storage.h walks over both.
 *
 * Here: one change, and blocks of them as bytes. FORMAT.md says every byte.
 *
 *   block = revision varint, ordinal varint (of the first change), change...
 *   change = control u8, what the change in front doesn't tell of revision and key
 *
 * Pure functions over memory. Builder: init, (add..., take the body, reset)..., deinit. Reader: open, then next until
 * it says STATUS_NOT_FOUND. The reader trusts nothing but the length of the body: whatever the bytes are, it stays
 * inside and ends, and the changes that it returns are within the limits and grow.
 */
#ifndef HOLDFAST_STORAGE_CHANGE_H
#define HOLDFAST_STORAGE_CHANGE_H

#include "node/base/buf.h"
#include "storage/batch.h"

/* One operation of one entry of the log. */
struct change {
    uint64_t revision;    /* the entry's index: never 0 */
    uint32_t ordinal;     /* its place in the entry: each entry has 0, 1, 2, ... without gaps */
    enum batch_kind kind; /* BATCH_PUT, BATCH_DELETE, BATCH_DELETE_RANGE */
    struct slice key;     /* BATCH_DELETE_RANGE: the first that goes */
    struct slice end;     /* BATCH_DELETE_RANGE: the first behind it that stays; else empty */
};

/* ---- Builder ------------------------------------------------------------------------------------------------- */

struct change_block_builder {
    struct buf body;
    uint32_t count;
    uint64_t revision; /* of the change added last */
    uint32_t ordinal;
    size_t last_len;
    uint8_t last[LIMIT_KEY_BYTES]; /* its key */
};

/* Allocates nothing. */
void change_block_builder_init(struct change_block_builder *builder, struct alloc *alloc);
void change_block_builder_deinit(struct change_block_builder *builder);
/* Copies. It is the next of the entry of the one in front of it, or the first of a later entry (CHECK); the first of a
 * block may be any. STATUS_NO_MEMORY: nothing was added. */
MUST_USE enum status change_block_builder_add(struct change_block_builder *builder, const struct change *change);
/* Empty again; keeps the memory. */
void change_block_builder_reset(struct change_block_builder *builder);

/* ---- Reader -------------------------------------------------------------------------------------------------- */

/* Must stay where it is: the keys of a change stand in it. No end is needed. */
struct change_block {
    struct slice rest;
    bool is_first;        /* nothing was returned yet */
    struct change change; /* the one that was returned last, or where the block begins */
    uint8_t key[LIMIT_KEY_BYTES];
    uint8_t end[LIMIT_KEY_BYTES];
};

/* Borrows the body. change.revision and .ordinal say where it begins. STATUS_CORRUPT. */
MUST_USE enum status change_block_open(struct change_block *block, struct slice body);
/* The next one in block->change, its keys borrowed until the next call. STATUS_NOT_FOUND: that was all; STATUS_CORRUPT.
 */
MUST_USE enum status change_block_next(struct change_block *block);

/* Order in the log. */
static inline int change_compare(uint64_t revision_a, uint32_t ordinal_a, uint64_t revision_b, uint32_t ordinal_b) {
    if (revision_a != revision_b) {
        return revision_a < revision_b ? -1 : 1;
    }
    return ordinal_a < ordinal_b ? -1 : ordinal_a > ordinal_b;
}

/* True if it has to do with keys in [lower, upper); upper.len 0: no end. */
static inline bool change_meets(const struct change *change, struct slice lower, struct slice upper) {
    if (upper.len > 0 && slice_compare(change->key, upper) >= 0) {
        return false;
    }
    return change->kind == BATCH_DELETE_RANGE ? slice_compare(change->end, lower) > 0
                                              : slice_compare(change->key, lower) >= 0;
}

#endif
