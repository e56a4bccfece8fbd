/*
 * A failing seed with as few of its plan's faults as it needs, found by leaving out ever smaller parts of them
 * (Zeller and Hildebrandt's ddmin) as long as the same check fails. Every attempt is a process of its own.
 */
#ifndef HOLDFAST_SIM_REDUCE_H
#define HOLDFAST_SIM_REDUCE_H

#include "tests/sim/cluster.h"

struct reduce {
    uint64_t seed;
    double seconds_max;   /* no attempt begins later */
    uint32_t run_seconds; /* of one attempt, at most */
    /* Results. */
    struct plan_mask mask;
    uint32_t faults_before;
    uint32_t faults_after;
    uint32_t runs;
};

/* False: the seed doesn't fail, or hangs, and can't be reduced; the mask then leaves nothing out. */
bool reduce_run(struct reduce *reduce);

/* The search alone. fails: whether it still does with what the mask leaves in; it did with everything. Afterwards the
 * mask leaves in what no part of can be left out any more, as far as the time went. */
void reduce_search(struct reduce *reduce, uint32_t fault_count,
                   bool (*fails)(void *context, const struct plan_mask *mask), void *context);

/* Which check failed, as a number: the same for the same check of the same build. */
uint64_t reduce_check_of(const struct cluster *cluster);

#endif
