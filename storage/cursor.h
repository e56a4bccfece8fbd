/*
 * A position in a sorted source of entries: memtable, a run of SSTs, or several of them merged. What reads, merges and
 * flushes walk over.
 *
 * Legal order: cursor_seek, then cursor_next as often as it says STATUS_OK. `entry` is valid after STATUS_OK and
 * borrowed until the next call. Any status but STATUS_OK and STATUS_NOT_FOUND (the end) is final until the next seek. A
 * cursor belongs to the thread that uses it; over SSTs that thread may block.
 */
#ifndef HOLDFAST_STORAGE_CURSOR_H
#define HOLDFAST_STORAGE_CURSOR_H

#include "node/base/alloc.h"
#include "storage/entry.h"

struct cursor;
struct memtable;

struct cursor_ops {
    enum status (*seek)(struct cursor *cursor, const struct entry_key *target, struct error *err);
    enum status (*next)(struct cursor *cursor, struct error *err);
    void (*free)(struct cursor *cursor);
};

/* The base that implementations embed first. */
struct cursor {
    const struct cursor_ops *ops;
    struct alloc *alloc;
    struct entry entry;
};

/* The first entry at or behind the target. An empty user key: the very first. STATUS_NOT_FOUND at the end,
 * STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY. */
static inline enum status cursor_seek(struct cursor *cursor, const struct entry_key *target, struct error *err) {
    return cursor->ops->seek(cursor, target, err);
}

/* The one behind the current entry. */
static inline enum status cursor_next(struct cursor *cursor, struct error *err) {
    return cursor->ops->next(cursor, err);
}

/* NULL is accepted. */
static inline void cursor_free(struct cursor *cursor) {
    if (cursor != NULL) {
        cursor->ops->free(cursor);
    }
}

/* Borrows the memtable. NULL: out of memory. */
struct cursor *memtable_cursor_new(struct alloc *alloc, const struct memtable *memtable);

/* All entries of the sources in order; the sources hold no entry twice. Takes the cursors (also on failure: then they
 * are freed); the array stays the caller's. NULL: out of memory. */
struct cursor *merging_cursor_new(struct alloc *alloc, struct cursor **sources, size_t count);

#endif
