/*
 * Runs in processes of their own, forked from a world that stands still: each child goes its own way from there (a
 * crash, a fault, a flipped bit) and ends. So a sweep costs one pass plus what comes behind each point, and a child
 * that dies takes nothing with it.
 *
 *   pool_init -> { pool_child ? ...work..., pool_child_done : go on } ... -> pool_wait -> pool_report
 *
 * One thread. Counts are shared between all of them.
 */
#ifndef HOLDFAST_TESTS_TORTURE_POOL_H
#define HOLDFAST_TESTS_TORTURE_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { POOL_PROCESSES_MAX = 16, POOL_FAILURES_MAX = 5, POOL_LABEL_BYTES = 160 };

struct pool_counts {
    _Atomic uint64_t runs;
    _Atomic uint64_t crashes;        /* process and power */
    _Atomic uint64_t second_crashes; /* of them while the store was opening */
    _Atomic uint64_t faults;         /* errors, failed allocations, flipped bits */
    _Atomic uint64_t failed_calls;   /* what they made of the engine's answers */
    _Atomic uint64_t checks;         /* answers compared */
    _Atomic uint64_t failures;
};

struct pool {
    struct pool_counts *counts;
    unsigned processes;
    unsigned running;
    unsigned seconds; /* a child that takes longer has hung */
    struct {
        pid_t pid;
        char label[POOL_LABEL_BYTES];
    } children[POOL_PROCESSES_MAX];
};

void pool_init(struct pool *pool, unsigned processes);
/* Forks when there is a place; true in the child. The label is also how to repeat it. No child is made after
 * POOL_FAILURES_MAX failures. */
bool pool_child(struct pool *pool, const char *label);
/* The child's end, when all was well. */
_Noreturn void pool_child_done(void);
bool pool_has_failed(const struct pool *pool);
void pool_wait(struct pool *pool);
/* One line; true if nothing failed and something ran. */
bool pool_report(const struct pool *pool, const char *title);
void pool_deinit(struct pool *pool);

#endif
