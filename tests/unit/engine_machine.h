/*
 * A simulated machine, on which a test's program runs as a thread and uses the engine by itself, as it would on a real
 * one. The program says that it is done by a flag of its context; then the test looks, takes the power, runs the next.
 */
#ifndef HOLDFAST_TESTS_UNIT_ENGINE_MACHINE_H
#define HOLDFAST_TESTS_UNIT_ENGINE_MACHINE_H

#include "storage/engine.h"
#include "tests/sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* The simulation is the caller's (sim_free), with all that is in it. */
static inline struct sim *machine_new(uint64_t seed, unsigned workers_long, struct sim_node **ret_node) {
    struct sim_options options;
    struct sim_node_options node_options;
    sim_options_init(&options);
    struct sim *sim = sim_new(seed, &options);
    sim_node_options_init(&node_options, "n1");
    node_options.workers_long = workers_long;
    *ret_node = sim_node_new(sim, &node_options);
    sim_node_start(*ret_node);
    return sim;
}

/* A log that turns over segments as small as the largest write lets them be. */
static inline void machine_set_small_log(struct engine_options *options) {
    options->write_bytes_max = 16 * 1024;
    options->log_group_bytes = 16 * 1024;
    options->log_segment_bytes = 1;
}

static inline bool machine__is_done(void *done) { return *(const bool *)done; }

/* Until the program has set *done, or steps_max are over, which fails the test. */
static inline void machine_play(struct sim *sim, struct sim_node *node, void (*program)(void *context), void *context,
                                bool *done, uint64_t steps_max) {
    *done = false;
    sim_node_thread(node, program, context);
    assert_int_equal(sim_run_until(sim, UINT64_MAX, machine__is_done, done, steps_max), SIM_END_PREDICATE);
}

#endif
