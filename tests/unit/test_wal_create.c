/*
 * Logs that begin somewhere: made for a store that has none, reset while they are open, removed.
 *
 * What would break these: a new log that a store with a frontier takes for damage, or for an older log; one that
 * forgets its term; records behind a reset that don't follow anything once the old segments are looked at; a removal
 * that leaves segments, or takes what isn't ours.
 */
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_wal_created_log_starts_behind_its_base(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness->frontier = (struct wal_frontier){.index = 500, .term = 7};
    assert_int_equal(harness_open(harness), STATUS_CORRUPT); /* as a store without its log is */
    assert_int_equal(wal_create(&harness->options, &harness->frontier, 9, &harness->error), STATUS_OK);
    harness_crash(harness); /* durable on return */
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, 500);
    assert_int_equal(harness->recovered.first_index, 501);
    assert_int_equal(harness->recovered.start_term, 7);
    assert_int_equal(harness->recovered.term, 9);
    harness_write(harness, 501, 505, 9);
    harness_crash(harness);
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, 505);
    harness_free(harness);
}

static void test_wal_create_cut_short_can_be_repeated(void **state) {
    (void)state;
    bool done = false;
    for (uint64_t calls = 1; !done; calls++) {
        struct harness *harness = harness_new(calls);
        const struct wal_frontier base = {.index = 12, .term = 3};
        harness->frontier = base;
        harness->fake->dead_after = calls;
        done = wal_create(&harness->options, &base, 3, &harness->error) == STATUS_OK;
        harness_crash(harness);
        assert_int_equal(wal_create(&harness->options, &base, 4, &harness->error), STATUS_OK);
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, 12);
        assert_int_equal(harness->recovered.term, 4);
        harness_free(harness);
    }
}

/* The old segments are still there: the newest start group must say that they don't count. */
static void test_h21_reset_log_goes_on_behind_its_base_after_a_crash(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct harness *harness = harness_new(seed);
        harness_up(harness);
        wal_set_state(harness->wal, 4, 0);
        harness_write(harness, 1, 20, 4);
        const struct wal_frontier base = {.index = 100, .term = 4};
        harness->frontier = base;
        wal_reset(harness->wal, &base);
        assert_int_equal(wal_first_index(harness->wal), 101);
        assert_int_equal(wal_last_index(harness->wal), 100);
        assert_int_equal(wal_synced_index(harness->wal), 100);
        harness_append_ok(harness, 101, 103, 4); /* joins the group behind it */
        fake_settle(harness->fake);
        assert_int_equal(wal_synced_index(harness->wal), 103);
        harness_crash(harness);
        harness_up(harness);
        assert_int_equal(harness->recovered.first_index, 101);
        assert_int_equal(harness->recovered.last_index, 103);
        assert_int_equal(harness->recovered.start_term, 4);
        harness_free(harness);
    }
}

/* At each call to the disk: the opening finds the old records, of no use, or the reset; with the frontier both are the
 * same. */
static void test_h21_reset_crashed_at_each_io_is_the_same_log(void **state) {
    (void)state;
    for (uint64_t calls = 1; calls <= 12; calls++) {
        struct harness *harness = harness_new(calls);
        harness_up(harness);
        wal_set_state(harness->wal, 4, 2);
        harness_write(harness, 1, 20, 4);
        const struct wal_frontier base = {.index = 100, .term = 4};
        harness->frontier = base;
        harness->fake->dead_after = harness->fake->counts.calls + calls;
        wal_reset(harness->wal, &base);
        harness_append_ok(harness, 101, 101, 4);
        fake_settle(harness->fake);
        uint64_t synced = wal_synced_index(harness->wal);
        harness_crash(harness);
        harness_up(harness);
        assert_true(harness->recovered.last_index >= synced && harness->recovered.last_index >= 100);
        assert_int_equal(harness->recovered.first_index, 101);
        assert_int_equal(harness->recovered.term, 4);
        assert_int_equal(harness->recovered.vote, 2);
        harness_free(harness);
    }
}

static void test_wal_destroy_removes_segments_and_nothing_else(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness->options.segment_bytes = 128 * 1024;
    harness_up(harness);
    harness_write(harness, 1, 200, 1);
    harness_close(harness);
    fake_put(&harness->fake->seen, "/wal/0000000000000099.log.tmp", fake_inode_new(harness->fake));
    fake_put(&harness->fake->seen, "/wal/theirs", fake_inode_new(harness->fake));
    assert_int_equal(wal_destroy(&harness->fake->env, "/wal", &harness->error), STATUS_NOT_FOUND);
    /* This small world knows no directories: that was the last step. */
    assert_int_equal(harness->fake->seen.count, 1);
    assert_string_equal(harness->fake->seen.list[0].path, "/wal/theirs");
    harness_free(harness);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_created_log_starts_behind_its_base),
        cmocka_unit_test(test_wal_create_cut_short_can_be_repeated),
        cmocka_unit_test(test_h21_reset_log_goes_on_behind_its_base_after_a_crash),
        cmocka_unit_test(test_h21_reset_crashed_at_each_io_is_the_same_log),
        cmocka_unit_test(test_wal_destroy_removes_segments_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
