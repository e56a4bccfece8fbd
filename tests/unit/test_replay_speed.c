/*
 * The restart budget's arithmetic, on times that the test makes up. Breaks when: a node's guess of its replay is not
 * what it measured; it flushes too late for its budget, again while a flush is under way, or tiny tables; it runs wild
 * on a measurement that makes no sense.
 */
#include "node/server/replay_speed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SECOND_US = 1000 * 1000 };

static void test_replay_speed_repeats_what_was_measured(void **state) {
    (void)state;
    struct replay_speed speed;
    replay_speed_init(&speed);
    assert_int_equal(replay_speed_estimate_us(&speed, 0, 0), 0);
    /* 100,000 entries of 100 bytes in 2 s: what has as many of them takes as long, half of them half. */
    replay_speed_replayed(&speed, 100000, 100 * 100000, 2 * SECOND_US);
    assert_in_range(replay_speed_estimate_us(&speed, 100000, 100 * 100000), 1990 * 1000, 2010 * 1000);
    assert_in_range(replay_speed_estimate_us(&speed, 50000, 50 * 100000), 995 * 1000, 1005 * 1000);
    /* Larger values take longer, but not in proportion to their bytes. */
    uint64_t larger_us = replay_speed_estimate_us(&speed, 100000, 1000 * 100000);
    assert_in_range(larger_us, 3 * SECOND_US, 19 * SECOND_US);
    /* The next start replays on a slower disk. */
    replay_speed_replayed(&speed, 100000, 100 * 100000, 8 * SECOND_US);
    assert_in_range(replay_speed_estimate_us(&speed, 100000, 100 * 100000), 7960 * 1000, 8040 * 1000);
}

static void test_replay_speed_takes_applying_until_it_has_replayed(void **state) {
    (void)state;
    struct replay_speed speed;
    replay_speed_init(&speed);
    replay_speed_replayed(&speed, 10, 1000, 30); /* a start with next to nothing to replay says nothing */
    assert_false(speed.is_measured);
    /* Nor does a turn of applying, whatever it took. */
    uint64_t before_us = replay_speed_estimate_us(&speed, 100000, 100 * 100000);
    replay_speed_applied(&speed, 1, 100, REPLAY_MEASURE_US - 1);
    assert_int_equal(replay_speed_estimate_us(&speed, 100000, 100 * 100000), before_us);
    replay_speed_init(&speed);
    /* Applying takes 20 us an entry, in turns of 40: a replay is taken to need 40. */
    for (unsigned turn = 0; turn < 2000; turn++) {
        replay_speed_applied(&speed, 40, 40 * 100, 800);
    }
    assert_in_range(replay_speed_estimate_us(&speed, 100000, 100 * 100000), 3900 * 1000, 4100 * 1000);
    replay_speed_replayed(&speed, 100000, 100 * 100000, SECOND_US);
    for (unsigned turn = 0; turn < 2000; turn++) {
        replay_speed_applied(&speed, 40, 40 * 100, 800);
    }
    assert_in_range(replay_speed_estimate_us(&speed, 100000, 100 * 100000), 990 * 1000, 1010 * 1000);
}

static void test_replay_speed_stays_within_reason(void **state) {
    (void)state;
    struct replay_speed speed;
    replay_speed_init(&speed);
    replay_speed_replayed(&speed, 1, 1, UINT64_MAX); /* the machine slept */
    assert_true(replay_speed_estimate_us(&speed, 1000, 100 * 1000) < SECOND_US);
    replay_speed_init(&speed);
    replay_speed_replayed(&speed, UINT64_MAX, UINT64_MAX, 100 * 1000);
    assert_true(replay_speed_estimate_us(&speed, 1000 * 1000, 0) > 50 * 1000);
    assert_true(replay_speed_estimate_us(&speed, UINT64_MAX, UINT64_MAX) > (uint64_t)3600 * SECOND_US);
    replay_speed_init(&speed);
    replay_speed_replayed(&speed, 0, 0, SECOND_US);
    assert_false(speed.is_measured);
}

/* One second of replay for each MiB. */
static struct storage_unflushed of_mib(uint64_t mib) {
    return (struct storage_unflushed){.entries = mib * 1024,
                                      .bytes = mib * MIB,
                                      .active_entries = mib * 1024,
                                      .active_bytes = mib * MIB,
                                      .active_memory_bytes = mib * MIB};
}

static void test_replay_budget_flushes_when_half_of_it_is_used(void **state) {
    (void)state;
    struct replay_speed speed;
    replay_speed_init(&speed);
    replay_speed_replayed(&speed, 1024, MIB, SECOND_US);
    struct storage_unflushed unflushed = of_mib(4);
    assert_false(replay_wants_flush(&speed, &unflushed, 10 * SECOND_US, 64 * MIB));
    unflushed = of_mib(6);
    assert_true(replay_wants_flush(&speed, &unflushed, 10 * SECOND_US, 64 * MIB));
    assert_false(replay_wants_flush(&speed, &unflushed, 20 * SECOND_US, 64 * MIB));
    /* One that is under way isn't done any sooner by another one behind it. */
    unflushed.waiting = 1;
    assert_false(replay_wants_flush(&speed, &unflushed, 10 * SECOND_US, 64 * MIB));
}

static void test_replay_budget_makes_no_tiny_tables(void **state) {
    (void)state;
    struct replay_speed speed;
    replay_speed_init(&speed);
    replay_speed_replayed(&speed, 1024, MIB, SECOND_US);
    struct storage_unflushed unflushed = of_mib(3);
    assert_false(replay_wants_flush(&speed, &unflushed, SECOND_US, 64 * MIB)); /* the budget can't be kept then */
    unflushed = of_mib(4);
    assert_true(replay_wants_flush(&speed, &unflushed, SECOND_US, 64 * MIB));
    /* Entries without data make no table at all: only the frontier moves. */
    unflushed = (struct storage_unflushed){.entries = 100 * 1024, .active_entries = 100 * 1024};
    assert_true(replay_wants_flush(&speed, &unflushed, SECOND_US, 64 * MIB));
    unflushed = (struct storage_unflushed){.entries = 0};
    assert_false(replay_wants_flush(&speed, &unflushed, 0, 64 * MIB));
}

static void test_replay_left_is_told_by_what_is_done(void **state) {
    (void)state;
    assert_true(replay_left_us(0, 100, 5 * SECOND_US) == UINT64_MAX);
    assert_int_equal(replay_left_us(25, 100, 5 * SECOND_US), 15 * SECOND_US);
    assert_int_equal(replay_left_us(100, 100, 5 * SECOND_US), 0);
    assert_int_equal(replay_left_us(101, 100, 5 * SECOND_US), 0);
    assert_true(replay_left_us(1, UINT64_MAX, UINT64_MAX) == UINT64_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_speed_repeats_what_was_measured),
        cmocka_unit_test(test_replay_speed_takes_applying_until_it_has_replayed),
        cmocka_unit_test(test_replay_speed_stays_within_reason),
        cmocka_unit_test(test_replay_budget_flushes_when_half_of_it_is_used),
        cmocka_unit_test(test_replay_budget_makes_no_tiny_tables),
        cmocka_unit_test(test_replay_left_is_told_by_what_is_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
