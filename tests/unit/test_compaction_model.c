/*
 * Compaction as a whole: thousands of flushes into a small LSM in memory (lsm_model.h), compactions chosen by the
 * picker, several at once, ended in any order.
 *
 * Would break these: two plans that touch the same tables or write into the same place; a table of level 0 that passes
 * an older one; a base level below tables that are newer; a delete that goes while something older is left; levels that
 * don't come to their targets; needless rewriting; deletes or history that nobody picks up; a plan that changes nothing
 * and is chosen for ever.
 */
#include "tests/unit/lsm_model.h"

static struct lsm lsm;

/* ---- Checks ---------------------------------------------------------------------------------------------------- */

static bool ranges_meet(const struct compaction_plan *a, const struct compaction_plan *b) {
    int a_b = slice_compare(a->largest, b->smallest);
    int b_a = slice_compare(b->largest, a->smallest);
    return (a_b > 0 || (a_b == 0 && !a->largest_excluded)) && (b_a > 0 || (b_a == 0 && !b->largest_excluded));
}

static bool tables_meet(const struct sst_meta *a, const struct sst_meta *b) {
    int a_b = slice_compare(a->largest, b->smallest);
    int b_a = slice_compare(b->largest, a->smallest);
    return (a_b > 0 || (a_b == 0 && !a->largest_excluded)) && (b_a > 0 || (b_a == 0 && !b->largest_excluded));
}

static bool is_input(const struct compaction_plan *plan, const struct sst *sst) {
    for (size_t i = 0; i < plan->input_counts[0]; i++) {
        if (plan->inputs[0][i] == sst) {
            return true;
        }
    }
    return false;
}

/* Against what is said in compaction_pick.h, without the picker's own means. */
static void check_plans(void) {
    const struct compaction_plan *plans[LSM_JOBS_MAX];
    size_t count = lsm_under_way(&lsm, plans);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++) {
            bool same_level = plans[i]->output_level == plans[j]->output_level && plans[i]->output_level > 0;
            assert_false(same_level && ranges_meet(plans[i], plans[j]));
        }
    }
}

static void check_new_plan(const struct compaction_plan *plan) {
    const struct version *version = lsm.version;
    for (unsigned level = plan->level + 1; level < plan->output_level; level++) {
        assert_int_equal(version->counts[level], 0);
    }
    if (plan->level != 0 || plan->output_level == 0) {
        return;
    }
    for (size_t i = 0; i < version->counts[0]; i++) {
        for (size_t older = i + 1; is_input(plan, version->tables[0][i]) && older < version->counts[0]; older++) {
            const struct sst *sst = version->tables[0][older];
            assert_true(is_input(plan, sst) || !tables_meet(&sst->meta, &version->tables[0][i]->meta));
        }
    }
}

static void check_some_keys(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        lsm_check_key(&lsm, lsm_below(&lsm, lsm.key_count));
    }
}

static void check_all_keys(void) {
    for (uint32_t key = 0; key < lsm.key_count; key++) {
        lsm_check_key(&lsm, key);
    }
}

static void start_all(void) {
    bool busy_before[LSM_JOBS_MAX];
    for (;;) {
        for (unsigned i = 0; i < lsm.jobs_max; i++) {
            busy_before[i] = lsm.jobs[i].busy;
        }
        if (!lsm_start(&lsm)) {
            return;
        }
        for (unsigned i = 0; i < lsm.jobs_max; i++) {
            if (lsm.jobs[i].busy && !busy_before[i]) {
                check_new_plan(&lsm.jobs[i].plan);
            }
        }
        check_plans();
    }
}

/* The memtable is full: flush it, let compactions begin and end. */
static void step(void) {
    lsm_flush(&lsm);
    start_all();
    while (random_chance(&lsm.random, 1, 2) || lsm.version->counts[0] >= lsm.options.l0_files_stop) {
        if (!lsm_finish_any(&lsm)) {
            break;
        }
        start_all();
    }
    check_some_keys(20);
}

static void settle_with_horizon(void) {
    lsm_flush(&lsm);
    lsm.horizon = lsm.revision;
    lsm_settle(&lsm);
    assert_true(version_is_sound(lsm.version));
    check_all_keys();
}

static void check_targets(void) {
    struct compaction_targets targets;
    compaction_get_targets(lsm.version, &lsm.options, &targets);
    assert_true(lsm.version->counts[0] < lsm.options.l0_files_compact);
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        assert_true(lsm.version->bytes[level] <= targets.bytes[level] + targets.bytes[level] / 50 + 100);
    }
    assert_true(compaction_debt(lsm.version, &lsm.options) <= lsm.options.sst_bytes);
}

static double write_amplification(void) {
    return (double)(lsm.flushed_bytes + lsm.written_bytes) / (double)lsm.flushed_bytes;
}

static void print(const char *what) {
    print_message("%s: write amplification %.2f, space %.3f, moves %llu, levels", what, write_amplification(),
                  (double)lsm_bytes(&lsm) / (double)(lsm_live_bytes(&lsm) + 1), (unsigned long long)lsm.moves);
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        print_message(" %zu", lsm.version->counts[level]);
    }
    for (unsigned reason = 0; reason < COMPACTION_REASON_COUNT; reason++) {
        print_message(" %s=%llu", compaction_reason_name(reason), (unsigned long long)lsm.compactions[reason]);
    }
    print_message("\n");
}

/* ---- Workloads ------------------------------------------------------------------------------------------------- */

static void fill_in_order(void) {
    for (uint32_t key = 0; key < lsm.key_count; key++) {
        if (lsm_is_full(&lsm)) {
            step();
        }
        lsm_write(&lsm, key, false);
    }
    lsm_flush(&lsm);
}

static void overwrite(unsigned flushes) {
    for (unsigned i = 0; i < flushes; i++) {
        while (!lsm_is_full(&lsm)) {
            lsm_write(&lsm, lsm_below(&lsm, lsm.key_count), false);
        }
        lsm.horizon = lsm.revision;
        step();
    }
}

/* The bound: each byte is flushed; merged into the base level, which is at most as large as what comes together in
 * level 0; and goes down one level after the other, where it meets up to a ratio of what is there, with its own share
 * and half as much again for tables that lie across the edges. */
static void test_compaction_random_overwrites_stay_within_their_bound(void **state) {
    (void)state;
    lsm_init(&lsm, 1, 20000);
    fill_in_order();
    lsm_settle(&lsm);
    lsm.flushed_bytes = 0;
    lsm.written_bytes = 0;
    overwrite(4000);
    settle_with_horizon();
    print("random overwrites");
    struct compaction_targets targets;
    compaction_get_targets(lsm.version, &lsm.options, &targets);
    unsigned hops = MANIFEST_LEVELS - 1 - targets.base_level;
    assert_int_equal(hops, 2);
    assert_true(write_amplification() < 1 + 2 + hops * (1 + 1.5 * lsm.options.level_ratio));
    check_targets();
    assert_true(lsm_bytes(&lsm) <= lsm_live_bytes(&lsm) * 115 / 100);
    lsm_deinit(&lsm);
}

static void test_compaction_sequential_fill_is_moves_only(void **state) {
    (void)state;
    lsm_init(&lsm, 2, 60000);
    fill_in_order();
    lsm_settle(&lsm);
    print("sequential fill");
    assert_int_equal(lsm.written_bytes, 0);
    assert_true(lsm.moves > 0);
    check_all_keys();
    lsm_deinit(&lsm);
}

/* Tables much smaller than their target don't pile up. */
static void test_compaction_small_sequential_flushes_are_merged(void **state) {
    (void)state;
    lsm_init(&lsm, 3, 20000);
    for (uint32_t key = 0; key < lsm.key_count; key++) {
        lsm_write(&lsm, key, false);
        if (key % 3 == 2) {
            step();
        }
    }
    settle_with_horizon();
    print("small flushes");
    size_t tables = 0;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        tables += lsm.version->counts[level];
    }
    assert_true(tables * lsm.options.sst_bytes / 4 < lsm_bytes(&lsm));
    assert_true(write_amplification() < 8);
    lsm_deinit(&lsm);
}

static void test_compaction_skewed_overwrites_converge(void **state) {
    (void)state;
    lsm_init(&lsm, 4, 20000);
    fill_in_order();
    for (unsigned i = 0; i < 2000; i++) {
        while (!lsm_is_full(&lsm)) {
            uint32_t range = random_chance(&lsm.random, 9, 10) ? lsm.key_count / 20 : lsm.key_count;
            lsm_write(&lsm, lsm_below(&lsm, range), random_chance(&lsm.random, 1, 20));
        }
        lsm.horizon = lsm.revision > 500 ? lsm.revision - 500 : 0;
        step();
    }
    settle_with_horizon();
    print("skewed");
    check_targets();
    assert_true(lsm_bytes(&lsm) <= lsm_live_bytes(&lsm) * 118 / 100);
    lsm_deinit(&lsm);
}

/* Hazard 33: with range deletes, point deletes and a horizon that lags and jumps. */
static void test_h33_compaction_with_deletes_never_brings_a_key_back(void **state) {
    (void)state;
    for (uint64_t seed = 10; seed < 14; seed++) {
        lsm_init(&lsm, seed, 6000);
        lsm.jobs_max = seed % 2 == 0 ? LSM_JOBS_MAX : 1;
        fill_in_order();
        for (unsigned i = 0; i < 800; i++) {
            while (!lsm_is_full(&lsm)) {
                uint32_t key = lsm_below(&lsm, lsm.key_count - 400);
                if (random_chance(&lsm.random, 1, 60)) {
                    lsm_delete_range(&lsm, key, key + 1 + lsm_below(&lsm, 300));
                } else {
                    lsm_write(&lsm, key, random_chance(&lsm.random, 1, 4));
                }
            }
            if (random_chance(&lsm.random, 1, 10)) {
                lsm.horizon += lsm_below(&lsm, (uint32_t)(lsm.revision - lsm.horizon) + 1);
            }
            step();
        }
        settle_with_horizon();
        print("deletes");
        assert_true(lsm_bytes(&lsm) <= lsm_live_bytes(&lsm) * 125 / 100);
        lsm_deinit(&lsm);
    }
}

/* Options that change under a store, as between two starts: levels above a deeper base level must not be passed. */
static void test_compaction_with_changing_options_keeps_the_order(void **state) {
    (void)state;
    static const unsigned factors[] = {4, 64, 2, 16, 1, 300};
    lsm_init(&lsm, 20, 10000);
    fill_in_order();
    for (unsigned i = 0; i < 1200; i++) {
        if (i % 100 == 0) {
            lsm.options.level_base_bytes = factors[i / 100 % 6] * lsm.options.sst_bytes;
        }
        while (!lsm_is_full(&lsm)) {
            lsm_write(&lsm, lsm_below(&lsm, lsm.key_count), random_chance(&lsm.random, 1, 10));
        }
        lsm.horizon = lsm.revision;
        step();
    }
    settle_with_horizon();
    print("changing options");
    check_targets();
    lsm_deinit(&lsm);
}

/* ---- Space ----------------------------------------------------------------------------------------------------- */

static void test_compaction_range_delete_of_everything_empties_the_store(void **state) {
    (void)state;
    lsm_init(&lsm, 30, 20000);
    fill_in_order();
    overwrite(300);
    lsm_delete_range(&lsm, 0, lsm.key_count);
    for (uint32_t key = 0; key < 50; key++) {
        lsm_write(&lsm, 1000 + key, false);
    }
    settle_with_horizon();
    print("range delete of everything");
    assert_true(lsm_bytes(&lsm) <= 2 * lsm_live_bytes(&lsm));
    lsm_deinit(&lsm);
}

static void test_compaction_deletes_of_every_key_empty_the_store(void **state) {
    (void)state;
    lsm_init(&lsm, 31, 20000);
    fill_in_order();
    overwrite(100);
    for (uint32_t key = 0; key < lsm.key_count; key++) {
        if (lsm_is_full(&lsm)) {
            lsm.horizon = lsm.revision;
            step();
        }
        lsm_write(&lsm, key, true);
    }
    settle_with_horizon();
    print("deletes of every key");
    assert_true(lsm_bytes(&lsm) < 20 * lsm.options.sst_bytes);
    lsm_deinit(&lsm);
}

/* Hazard 46's cause gone: what a pin had kept goes by itself when it is lifted, without a write. */
static void test_compaction_history_goes_when_the_horizon_moves(void **state) {
    (void)state;
    lsm_init(&lsm, 32, 5000);
    for (unsigned round = 0; round < 8; round++) {
        fill_in_order();
    }
    lsm_settle(&lsm);
    uint64_t before = lsm_bytes(&lsm);
    assert_true(before >= 8 * lsm_live_bytes(&lsm));
    settle_with_horizon();
    print("history");
    assert_true(lsm_bytes(&lsm) < lsm_live_bytes(&lsm) * 13 / 10);
    lsm_deinit(&lsm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compaction_random_overwrites_stay_within_their_bound),
        cmocka_unit_test(test_compaction_sequential_fill_is_moves_only),
        cmocka_unit_test(test_compaction_small_sequential_flushes_are_merged),
        cmocka_unit_test(test_compaction_skewed_overwrites_converge),
        cmocka_unit_test(test_h33_compaction_with_deletes_never_brings_a_key_back),
        cmocka_unit_test(test_compaction_with_changing_options_keeps_the_order),
        cmocka_unit_test(test_compaction_range_delete_of_everything_empties_the_store),
        cmocka_unit_test(test_compaction_deletes_of_every_key_empty_the_store),
        cmocka_unit_test(test_compaction_history_goes_when_the_horizon_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
