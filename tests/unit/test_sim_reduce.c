/*
 * The plan's faults by number, and the search for those that a failure needs. Breaks if a fault that is left out moves
 * another one, if the search keeps a fault that isn't needed or loses one that is, or if it doesn't end in its time.
 */
#include "tests/sim/reduce.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FAULTS = 60 };

/* ---- Numbers ---------------------------------------------------------------------------------------------------- */

static struct cluster *planned(uint64_t seed, const struct plan_mask *mask) {
    struct cluster *cluster = cluster_new(seed);
    cluster->mask = mask;
    plan__schedule(cluster, 10 * 1000 * 1000);
    operator__schedule(cluster, 10 * 1000 * 1000);
    depose__schedule(cluster, 10 * 1000 * 1000);
    return cluster;
}

static void test_sim_plan_fault_left_out_others_stay(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct plan_mask mask = {0};
        struct cluster *whole = planned(seed, NULL);
        for (uint32_t i = 0; i < whole->plan_count; i += 2) {
            plan_mask_set(&mask, i, true);
        }
        struct cluster *half = planned(seed, &mask);
        assert_int_equal(half->plan_count, whole->plan_count);
        assert_memory_equal(half->plan, whole->plan, whole->plan_count * sizeof whole->plan[0]);
        assert_int_equal(random_next(&half->random), random_next(&whole->random));
        assert_false(half->crashes_at_elections); /* number 0 */
        assert_int_equal(half->crashes_at_switches, whole->crashes_at_switches);
        cluster_free(half);
        cluster_free(whole);
    }
}

static void test_sim_plan_mask_without_faults_begins_none(void **state) {
    (void)state;
    struct plan_mask mask;
    memset(&mask, 0xff, sizeof mask);
    struct cluster *cluster = cluster_new(10); /* nodes wait to be added, clocks drift, clients stick to nodes */
    assert_true(cluster->founder_count < cluster->replica_count && cluster_has_drift(cluster));
    cluster->mask = &mask;
    assert_true(cluster_run(cluster));
    for (uint32_t kind = 0; kind < PLAN_KINDS_MAX; kind++) {
        assert_int_equal(cluster->stats.faults[kind], 0);
    }
    assert_int_equal(cluster->stats.power_losses, 0);
    assert_int_equal(cluster->stats.crashes, 0);
    assert_int_equal(cluster->stats.deposed, 0);
    assert_int_equal(cluster->stats.changes + cluster->stats.changes_failed + cluster->stats.transfers, 0);
    assert_true(cluster->plan_count > 2);
    cluster_free(cluster);
}

/* ---- The search ------------------------------------------------------------------------------------------------- */

struct need {
    uint32_t numbers[FAULTS];
    uint32_t count;
};

static bool needs(void *context, const struct plan_mask *mask) {
    const struct need *need = context;
    for (uint32_t i = 0; i < need->count; i++) {
        if (plan_mask_has(mask, need->numbers[i])) {
            return false;
        }
    }
    return true;
}

static void expect_found(struct need *need, uint32_t runs_max) {
    struct reduce reduce = {.seconds_max = 1e9};
    reduce_search(&reduce, FAULTS, needs, need);
    assert_int_equal(reduce.faults_before, FAULTS);
    assert_int_equal(reduce.faults_after, need->count);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < FAULTS; i++) {
        kept += !plan_mask_has(&reduce.mask, i);
    }
    assert_int_equal(kept, need->count);
    assert_true(needs(need, &reduce.mask));
    assert_in_range(reduce.runs, 1, runs_max);
}

static void test_sim_reduce_needed_faults_are_found(void **state) {
    (void)state;
    expect_found(&(struct need){.count = 0}, 1);
    expect_found(&(struct need){.count = 1, .numbers = {0}}, 20);
    expect_found(&(struct need){.count = 1, .numbers = {FAULTS - 1}}, 40);
    expect_found(&(struct need){.count = 2, .numbers = {3, 17}}, 80);
    expect_found(&(struct need){.count = 5, .numbers = {1, 2, 30, 44, 59}}, 200);
    struct need all = {.count = FAULTS};
    for (uint32_t i = 0; i < FAULTS; i++) {
        all.numbers[i] = i;
    }
    expect_found(&all, 2 * FAULTS + 10);
}

static void test_sim_reduce_time_is_up_keeps_what_fails(void **state) {
    (void)state;
    struct need need = {.count = 1, .numbers = {7}};
    struct reduce reduce = {.seconds_max = 0};
    reduce_search(&reduce, FAULTS, needs, &need);
    assert_int_equal(reduce.faults_after, FAULTS);
    assert_true(needs(&need, &reduce.mask));
    assert_int_equal(reduce.runs, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sim_plan_fault_left_out_others_stay),
        cmocka_unit_test(test_sim_plan_mask_without_faults_begins_none),
        cmocka_unit_test(test_sim_reduce_needed_faults_are_found),
        cmocka_unit_test(test_sim_reduce_time_is_up_keeps_what_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
