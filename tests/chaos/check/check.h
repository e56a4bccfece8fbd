/*
 * Is a history linearizable: is there one order of all its operations, in which each stands between its begin and its
 * end, and every result is what the operations in front of it make it?
 *
 *   check_history_init ... -> check_run -> check_witness_print -> check_result_deinit -> check_history_deinit
 *
 * Keys that no operation touches together are independent: the history is linearizable exactly if each such group is
 * (Herlihy and Wing, locality). Groups are searched (search.h) in rounds, each with a larger budget of steps, so that
 * one hard group doesn't keep the others from their verdict. A group without an order ends the run: what is left of it
 * is then made small (witness.h).
 *
 * Everything is a function of the history and the budget: no clock, no randomness. One thread; blocks for as long as
 * the steps take.
 */
#ifndef HOLDFAST_CHAOS_CHECK_CHECK_H
#define HOLDFAST_CHAOS_CHECK_CHECK_H

#include "tests/chaos/check/search.h"

struct check_budget {
    uint64_t steps_first;   /* of a group in the first round */
    uint64_t steps_max;     /* in the last; each round has eight times the steps of the one before */
    uint64_t memory_bytes;  /* for the states that a search remembers, and again for the values it makes */
    uint64_t shrink_steps;  /* to make a violation small, in all */
    void *progress_context; /* progress, after each group, may be NULL */
    void (*progress)(void *context, uint32_t round, uint32_t searched, uint32_t groups);
};

/* 50,000 steps, 100 million steps, 512 MiB, 4 million steps, no progress. */
void check_budget_init(struct check_budget *budget);

struct check_result {
    enum check_verdict verdict;
    uint32_t groups;
    uint32_t undecided; /* groups without a verdict; 0 unless CHECK_UNDECIDED */
    uint32_t rounds;
    uint64_t steps;
    /* What remains of a violation: */
    struct alloc *alloc;
    struct search_item *items; /* which operations, by begin, and what of their ends still counts; owned */
    uint32_t item_count;
    bool is_small;   /* without any of the items, or any of their ends, it would be linearizable */
    uint32_t *slots; /* by key: its place in search.state; of the history's keys that no item names it says nothing */
    struct search_result search; /* of the items alone */
};

/* STATUS_NO_MEMORY, STATUS_TOO_LARGE: no verdict, *ret untouched. The history stays as it is, but for values that the
 * witness names. */
MUST_USE enum status check_run(struct check_history *history, const struct check_budget *budget,
                               struct check_result *ret);
/* Also of one that was never set, if it is zero. */
void check_result_deinit(struct check_result *result);

#endif
