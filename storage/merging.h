/*
 * Several cursors as one sorted stream: a binary heap of those that have an entry. merging_cursor.c makes a cursor of
 * it; the iterator uses it directly, since it also moves single sources far ahead.
 *
 *   forward    the top is the source with the smallest entry; the others are at their first entry behind it
 *   backward   the top has the largest one; the others are at their last entry in front of it
 *
 * Legal order: merging_init; one of seek, seek_before, first, last; after STATUS_OK also step, jump, turn, top. Or
 * seek_one, which leaves the others where they are, and join before any step.
 * STATUS_PENDING: some sources wait for blocks; the same call with the same arguments again when they are there. Every
 * source that can be asked was asked by then, so that their reads run at the same time; only those that were pending
 * are asked again. An error of a source is final and ends the whole: going on without it would turn old versions into
 * new ones. The sources hold no entry twice.
 *
 * Borrows the cursors. One thread.
 */
#ifndef HOLDFAST_STORAGE_MERGING_H
#define HOLDFAST_STORAGE_MERGING_H

#include "storage/cursor.h"

#include <stdbool.h>

struct merging_source {
    struct cursor *cursor;
    uint32_t rank; /* its place among those given to merging_init */
    bool waiting;  /* has still to answer the question that is being asked */
};

struct merging {
    struct merging_source *heap; /* the first `live` have an entry, the smallest (largest) at 0 */
    size_t count;
    size_t live;
    size_t second; /* the smallest (largest) but the top; 0: not known */
    bool forward;
    bool asking;  /* a question to all is under way: `live` counts answers, the heap isn't one yet */
    bool turning; /* ... and it is that of merging_turn */
    bool alone;   /* after merging_seek_one: the others aren't behind the top */
};

/* Sources: an array of count, borrowed; their cursors are filled in. At nothing yet. */
void merging_init(struct merging *merging, struct merging_source *sources, size_t count);

/* All move; as cursor_seek and so on. */
MUST_USE enum status merging_seek(struct merging *merging, const struct entry_key *target, struct error *err);
MUST_USE enum status merging_seek_before(struct merging *merging, const struct entry_key *target, struct error *err);
MUST_USE enum status merging_first(struct merging *merging, struct error *err);
MUST_USE enum status merging_last(struct merging *merging, struct error *err);

/* The top source alone moves, in the present direction: to its first entry at or behind the target, or its last in
 * front of it. The target isn't on the other side of its entry. */
MUST_USE enum status merging_jump(struct merging *merging, const struct entry_key *target, struct error *err);

/* The source of this rank alone moves, to its first entry at or behind the target, and is the top: the others are
 * nowhere. Then merging_join, or a question to all. STATUS_NOT_FOUND and errors: all are nowhere. */
MUST_USE enum status merging_seek_one(struct merging *merging, uint32_t rank, const struct entry_key *target,
                                      struct error *err);

/* After merging_seek_one: the others move, too, to their first entries at or behind a target. The one that was moved
 * alone stays. */
MUST_USE enum status merging_join(struct merging *merging, const struct entry_key *target, struct error *err);

/* One entry in the direction that isn't the present one. */
MUST_USE enum status merging_turn(struct merging *merging, struct error *err);

/* The top moved: STATUS_OK, or it ended, or fails. */
MUST_USE enum status merging__settle(struct merging *merging, enum status status);

/* One entry in the present direction. */
static inline enum status merging_step(struct merging *merging, struct error *err) {
    struct cursor *top = merging->heap[0].cursor;
    enum status status = merging->forward ? cursor_next(top, err) : cursor_prev(top, err);
    return status == STATUS_OK && merging->live == 1 ? STATUS_OK : merging__settle(merging, status);
}

/* Its entry, borrowed until the next move. */
static inline const struct entry *merging_entry(const struct merging *merging) {
    return &merging->heap[0].cursor->entry;
}

/* Which source it is of. */
static inline uint32_t merging_rank(const struct merging *merging) { return merging->heap[0].rank; }

#endif
