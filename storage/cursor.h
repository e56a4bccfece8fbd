/*
 * A position in a sorted source of entries: a memtable, a run of tables, or several sources merged. What reads,
 * compactions and flushes walk over.
 *
 *   nowhere --seek, seek_before, first, last--> at an entry <--next, prev--> at an entry
 *      ^-------- STATUS_NOT_FOUND (ran off that end), or an error ---------------'
 *
 * STATUS_OK: `entry` is valid, borrowed until the next call, and both next and prev are legal, whatever the direction
 * before (hazard 34). STATUS_NOT_FOUND: there is no entry that way; the cursor is nowhere, and only the four that need
 * no position are legal.
 *
 * STATUS_PENDING (only over tables with an asynchronous fetch, fetch.h): blocks are missing. When the fetch is ready
 * the same function is called again with the same arguments, and nothing else in between. The cursor has kept how far
 * it came. A merging cursor asks all its sources before it says STATUS_PENDING, so that their reads run side by side.
 *
 * STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY: the cursor is nowhere.
 *
 * A cursor belongs to the thread that uses it; over tables with a blocking fetch that thread may block.
 */
#ifndef HOLDFAST_STORAGE_CURSOR_H
#define HOLDFAST_STORAGE_CURSOR_H

#include "node/base/alloc.h"
#include "storage/entry.h"

struct cursor;
struct memtable;

struct cursor_ops {
    enum status (*seek)(struct cursor *cursor, const struct entry_key *target, struct error *err);
    enum status (*seek_before)(struct cursor *cursor, const struct entry_key *target, struct error *err);
    enum status (*first)(struct cursor *cursor, struct error *err);
    enum status (*last)(struct cursor *cursor, struct error *err);
    enum status (*next)(struct cursor *cursor, struct error *err);
    enum status (*prev)(struct cursor *cursor, struct error *err);
    enum status (*may_hold)(struct cursor *cursor, const struct entry_key *target, uint64_t hash, struct error *err);
    void (*free)(struct cursor *cursor);
};

/* The base that implementations embed first. */
struct cursor {
    const struct cursor_ops *ops;
    struct alloc *alloc;
    struct entry entry;
};

/* The first entry at or behind the target. The target's key may be the cursor's own (entry.key.user) for a call that
 * isn't answered with STATUS_PENDING; where that can happen it must lie elsewhere. */
MUST_USE static inline enum status cursor_seek(struct cursor *cursor, const struct entry_key *target,
                                               struct error *err) {
    return cursor->ops->seek(cursor, target, err);
}

/* The last entry in front of the target, never at it. */
MUST_USE static inline enum status cursor_seek_before(struct cursor *cursor, const struct entry_key *target,
                                                      struct error *err) {
    return cursor->ops->seek_before(cursor, target, err);
}

MUST_USE static inline enum status cursor_first(struct cursor *cursor, struct error *err) {
    return cursor->ops->first(cursor, err);
}

MUST_USE static inline enum status cursor_last(struct cursor *cursor, struct error *err) {
    return cursor->ops->last(cursor, err);
}

/* The one behind the current entry. */
MUST_USE static inline enum status cursor_next(struct cursor *cursor, struct error *err) {
    return cursor->ops->next(cursor, err);
}

/* The one in front of the current entry. */
MUST_USE static inline enum status cursor_prev(struct cursor *cursor, struct error *err) {
    return cursor->ops->prev(cursor, err);
}

/* STATUS_NOT_FOUND: the source has no version of the target's user key at or behind the target. STATUS_OK: it may have
 * one. Moves nothing and is legal at any time; cheap where there is a filter. hash: filter_hash of that key. */
MUST_USE static inline enum status cursor_may_hold(struct cursor *cursor, const struct entry_key *target, uint64_t hash,
                                                   struct error *err) {
    return cursor->ops->may_hold == NULL ? STATUS_OK : cursor->ops->may_hold(cursor, target, hash, err);
}

/* NULL is accepted. Nothing may be under way for it (fetch_is_busy). */
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
