/*
 * Is there an order of these operations, each between its begin and its end, in which every result is right? By search,
 * for one set of keys that nothing else touches.
 *
 * The algorithm is Wing and Gong's ("Testing and verifying concurrent objects", 1993): choose an operation that nobody
 * unplaced must precede, see whether its results fit the state, place it, go on; take it back when stuck. With Lowe's
 * memory ("Testing for linearizability", 2017): a set of placed operations that led to the same state before leads
 * nowhere now either. The comparison is exact, hashes only find. To this come three cuts, each of which keeps some
 * order if there is one:
 *
 *   a read that fits now is placed now, and never taken back for another choice: moved to here from wherever it would
 *   have come, it fits, and nothing else sees the difference;
 *   one of unknown outcome is placed only where somebody who may come next, or another such one, depends on it: else
 *   it may come later, or never;
 *   one of unknown outcome that only writes what nobody ever saw isn't looked at.
 *
 * The search is a loop over a stack of its own; its bounds are steps (an operation tried against a state), and bytes
 * of memory for the states seen: when these are full, new ones aren't remembered, and the answer is still right, only
 * slower.
 */
#ifndef HOLDFAST_CHAOS_CHECK_SEARCH_H
#define HOLDFAST_CHAOS_CHECK_SEARCH_H

#include "tests/chaos/check/history.h"

enum { SEARCH_SHOWN_MAX = 64 };

enum check_verdict { CHECK_LINEARIZABLE, CHECK_VIOLATION, CHECK_UNDECIDED };

/* An operation as a search sees it. Whoever makes it may ask for less than the history does: a later end, or none. */
struct search_item {
    uint32_t operation;
    uint32_t begin;
    uint32_t end; /* CHECK_NEVER: it may also not happen at all */
};

/* What to search. All borrowed. */
struct search_problem {
    const struct check_history *history;
    struct values *values;           /* the history's; what the search adds to it is forgotten at its end */
    const struct search_item *items; /* in the order of their begins */
    uint32_t item_count;
    const uint32_t *slots; /* by key: its place in the state */
    uint32_t slot_count;
    uint64_t steps_max;
    uint64_t memory_bytes_max; /* for states seen */
};

/* Where it went furthest, for a violation. */
struct search_result {
    enum check_verdict verdict;
    uint64_t steps;
    uint32_t stuck_at;                 /* the end that no order gets past: the history up to it is a violation */
    uint32_t placed_count;             /* operations that the furthest order places */
    uint32_t placed[SEARCH_SHOWN_MAX]; /* the last of them, oldest first */
    uint32_t placed_shown;
    uint32_t stuck[SEARCH_SHOWN_MAX]; /* begun by then, and none can come next */
    uint32_t stuck_shown;
    uint32_t *state; /* then; slot_count values of the history or CHECK_ANY (made by the search). Owned by whoever
                        called; NULL unless the verdict is CHECK_VIOLATION */
};

/* STATUS_NO_MEMORY, STATUS_TOO_LARGE: no verdict, *ret untouched. Blocks for as long as the steps take. */
MUST_USE enum status search_run(const struct search_problem *problem, struct search_result *ret);

/* Takes what the search wouldn't look at out of the problem's items: the verdict stays. *count becomes smaller.
 * STATUS_NO_MEMORY: nothing was done. */
MUST_USE enum status search_prune(const struct search_problem *problem, struct search_item *items, uint32_t *count);

#endif
