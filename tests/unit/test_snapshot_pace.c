/*
 * The pace of snapshots, on times and loads that the test makes up. Breaks when: a transfer goes faster than it may, or
 * in bursts; it doesn't give way to writes that it slows down, or gives way to load that grows by itself, or stays slow
 * when that is over; it becomes so slow that it never ends, or ends after the log that it needs is gone; nobody is told
 * why.
 */
#include "node/server/snapshot_pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

enum { SECOND_US = 1000 * 1000, PIECE = 64 * 1024, RATE = 64 * 1024 * 1024, TURN_US = 500 };

/* A leader with a transfer under way, in turns of half a millisecond. */
struct world {
    struct snapshot_pace pace;
    uint64_t now_us;
    uint64_t sent;            /* bytes */
    uint64_t burst;           /* the most within 10 ms */
    uint64_t recent[20];      /* of the last turns */
    uint64_t writes_per_turn; /* 0: nobody writes */
    uint64_t write_us;        /* what a write takes by itself, */
    uint64_t hurt_rate;       /* and so many hundredths of that for one in ten while more than this is sent */
    uint64_t hurt_percent;
    uint64_t writes;
};

static void init(struct world *world, uint64_t rate_max) {
    *world = (struct world){.now_us = 77 * (uint64_t)SECOND_US, .writes_per_turn = 5, .write_us = 1000};
    world->hurt_rate = UINT64_MAX;
    world->hurt_percent = 1000;
    snapshot_pace_init(&world->pace, rate_max);
}

static void note_writes(struct world *world) {
    struct snapshot_pace *pace = &world->pace;
    bool hurts = world->now_us < pace->sent_us + 5000 && snapshot_pace_rate(pace) > world->hurt_rate;
    for (uint64_t i = 0; i < world->writes_per_turn; i++) {
        uint64_t us = world->write_us + world->writes++ % 16;
        snapshot_pace_note_write(pace, world->now_us,
                                 hurts && world->writes % 10 == 0 ? us * world->hurt_percent / 100 : us);
    }
}

static void turn(struct world *world, bool sends) {
    uint64_t sum = 0;
    uint64_t *slot = &world->recent[world->now_us / TURN_US % 20];
    world->now_us += TURN_US;
    note_writes(world);
    *slot = 0;
    if (sends && snapshot_pace_due_us(&world->pace, world->now_us) <= world->now_us) {
        snapshot_pace_sent(&world->pace, world->now_us, PIECE);
        world->sent += PIECE;
        *slot = PIECE;
    }
    for (unsigned i = 0; i < 20; i++) {
        sum += world->recent[i];
    }
    world->burst = sum > world->burst ? sum : world->burst;
}

static void idle(struct world *world, uint64_t us) {
    for (uint64_t end_us = world->now_us + us; world->now_us < end_us;) {
        turn(world, false);
    }
}

/* Bytes per second, on average. */
static uint64_t stream(struct world *world, uint64_t us) {
    uint64_t before = world->sent;
    for (uint64_t end_us = world->now_us + us; world->now_us < end_us;) {
        turn(world, true);
    }
    return (world->sent - before) * SECOND_US / us;
}

static void test_pace_keeps_to_its_rate_without_bursts(void **state) {
    (void)state;
    struct world world;
    init(&world, RATE);
    world.writes_per_turn = 0;
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_LOAD); /* it begins with care */
    uint64_t begin = stream(&world, SECOND_US / 10);
    assert_in_range(begin, RATE / 6, RATE / 3);
    (void)stream(&world, 4 * SECOND_US);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_FULL);
    assert_true(snapshot_pace_rate(&world.pace) == RATE);
    world.burst = 0;
    assert_in_range(stream(&world, 10 * SECOND_US), RATE / 100 * 86, RATE / 100 * 91); /* a tenth is rest */
    assert_true(world.burst <= RATE / 100 + RATE / 200); /* of 10 ms: what it may, and a few ms of lateness */
}

static void test_pace_leaves_a_load_that_it_does_not_hurt_alone(void **state) {
    (void)state;
    struct world world;
    init(&world, RATE);
    idle(&world, SECOND_US);
    (void)stream(&world, 4 * SECOND_US);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_FULL);
    assert_int_equal(world.pace.slowed, 0);
}

static void test_pace_gives_way_until_the_load_is_not_hurt(void **state) {
    (void)state;
    struct world world;
    init(&world, RATE);
    idle(&world, SECOND_US);
    world.hurt_rate = RATE / 3;
    (void)stream(&world, 5 * SECOND_US);
    uint64_t rate = stream(&world, 10 * SECOND_US);
    assert_in_range(rate, RATE / 5, RATE / 5 * 2);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_LOAD);
    assert_string_equal(snapshot_pace_reason_name(SNAPSHOT_PACE_LOAD), "load");
    assert_true(world.pace.slowed >= 3);
    /* And comes back when the load bears it. */
    world.hurt_rate = UINT64_MAX;
    (void)stream(&world, 5 * SECOND_US);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_FULL);
}

/* Twice as long is too long, a quarter longer isn't worth a slower transfer. */
static void test_pace_gives_way_before_writes_take_twice_as_long(void **state) {
    (void)state;
    struct world world;
    init(&world, RATE);
    idle(&world, SECOND_US);
    world.hurt_rate = 0;
    world.hurt_percent = 125;
    (void)stream(&world, 5 * SECOND_US);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_FULL);
    world.hurt_percent = 185;
    (void)stream(&world, 5 * SECOND_US);
    assert_true(snapshot_pace_rate(&world.pace) == RATE / SNAPSHOT_PACE_FLOOR_PART);
}

static void test_pace_never_falls_below_its_floor(void **state) {
    (void)state;
    struct world world;
    init(&world, RATE);
    idle(&world, SECOND_US);
    world.hurt_rate = 0; /* whatever it does */
    (void)stream(&world, 5 * SECOND_US);
    assert_true(snapshot_pace_rate(&world.pace) == RATE / SNAPSHOT_PACE_FLOOR_PART);
    assert_in_range(stream(&world, 10 * SECOND_US), RATE / 100 * 10, RATE / 8);
}

/* Twice the clients: all writes take thrice as long, with a transfer and without. */
static void test_pace_does_not_take_growing_load_for_harm(void **state) {
    (void)state;
    struct world world;
    init(&world, RATE);
    idle(&world, 5 * SECOND_US);
    (void)stream(&world, 4 * SECOND_US);
    world.write_us = 3000;
    (void)stream(&world, 10 * SECOND_US);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_FULL);
    assert_true(world.pace.slowed < 20);
}

/* What writes took an hour ago counts for little: the load that is there now is what a transfer must not hurt. */
static void test_pace_forgets_what_writes_took_long_ago(void **state) {
    (void)state;
    struct world world;
    init(&world, RATE);
    world.writes_per_turn = 50;
    idle(&world, 20 * SECOND_US);
    assert_in_range(world.pace.quiet.total, SNAPSHOT_PACE_QUIET_MAX / 2, SNAPSHOT_PACE_QUIET_MAX);
    world.writes_per_turn = 5;
    world.write_us = 4000; /* always, without a transfer, too: a few of these are remembered among many fast ones */
    idle(&world, SECOND_US / 2);
    (void)stream(&world, 4 * SECOND_US);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_FULL);
}

/* Twenty writes a second tell nothing about their slowest hundredth for a while. */
static void test_pace_does_not_judge_by_few_writes(void **state) {
    (void)state;
    struct world world;
    init(&world, RATE);
    world.writes_per_turn = 0;
    for (unsigned i = 0; i < 40; i++) {
        (void)stream(&world, SECOND_US / 20);
        snapshot_pace_note_write(&world.pace, world.now_us, 500 * 1000);
    }
    assert_int_equal(world.pace.slowed, 0);
}

static void test_pace_goes_faster_than_the_load_would_like_if_the_log_demands_it(void **state) {
    (void)state;
    struct world world;
    init(&world, RATE);
    idle(&world, SECOND_US);
    world.hurt_rate = 0;
    (void)stream(&world, 5 * SECOND_US);
    snapshot_pace_need(&world.pace, RATE / 2);
    assert_in_range(stream(&world, 10 * SECOND_US), RATE / 100 * 40, RATE / 2);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_LOG);
    snapshot_pace_need(&world.pace, UINT64_MAX); /* but never faster than is configured */
    assert_true(snapshot_pace_rate(&world.pace) == RATE);
    snapshot_pace_need(&world.pace, 1);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_LOAD);
}

static void test_pace_needed_is_what_the_log_leaves_time_for(void **state) {
    (void)state;
    /* 100 bytes a second into the log, and 900 of 1000 are left: 9 s for 900 bytes, with a quarter more. */
    assert_int_equal(snapshot_pace_needed(900, 100, 1000, SECOND_US), 125);
    assert_int_equal(snapshot_pace_needed(0, 100, 1000, SECOND_US), 0);
    assert_int_equal(snapshot_pace_needed(900, 0, 1000, SECOND_US), 0); /* nobody writes */
    assert_true(snapshot_pace_needed(900, 1000, 1000, SECOND_US) == UINT64_MAX);
    assert_true(snapshot_pace_needed(900, 100, 1000, 0) == UINT64_MAX);
    assert_true(snapshot_pace_needed(UINT64_MAX, UINT64_MAX - 1, UINT64_MAX, 1) == UINT64_MAX);
    assert_true(snapshot_pace_needed(UINT64_MAX, 1, UINT64_MAX, UINT64_MAX) < SECOND_US);
}

static void test_pace_without_a_limit_never_waits(void **state) {
    (void)state;
    struct world world;
    init(&world, 0);
    idle(&world, SECOND_US);
    world.hurt_rate = 0;
    assert_int_equal(stream(&world, SECOND_US), (uint64_t)PIECE * SECOND_US / TURN_US);
    assert_int_equal(snapshot_pace_rate(&world.pace), 0);
    assert_int_equal(snapshot_pace_reason(&world.pace), SNAPSHOT_PACE_FULL);
}

/* Times and rates at their ends. */
static void test_pace_stands_times_that_make_no_sense(void **state) {
    (void)state;
    struct snapshot_pace pace;
    snapshot_pace_init(&pace, 1);
    snapshot_pace_note_write(&pace, UINT64_MAX / 2, UINT64_MAX / 2);
    snapshot_pace_note_write(&pace, 0, 0);
    assert_int_equal(snapshot_pace_rate(&pace), 1);
    uint64_t now_us = 1;
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(snapshot_pace_due_us(&pace, now_us) < UINT64_MAX / 2);
        snapshot_pace_sent(&pace, now_us, PIECE);
        now_us += SNAPSHOT_PACE_STEP_US;
    }
    assert_int_equal(snapshot_pace_rate(&pace), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pace_keeps_to_its_rate_without_bursts),
        cmocka_unit_test(test_pace_leaves_a_load_that_it_does_not_hurt_alone),
        cmocka_unit_test(test_pace_gives_way_until_the_load_is_not_hurt),
        cmocka_unit_test(test_pace_gives_way_before_writes_take_twice_as_long),
        cmocka_unit_test(test_pace_never_falls_below_its_floor),
        cmocka_unit_test(test_pace_does_not_take_growing_load_for_harm),
        cmocka_unit_test(test_pace_forgets_what_writes_took_long_ago),
        cmocka_unit_test(test_pace_does_not_judge_by_few_writes),
        cmocka_unit_test(test_pace_goes_faster_than_the_load_would_like_if_the_log_demands_it),
        cmocka_unit_test(test_pace_needed_is_what_the_log_leaves_time_for),
        cmocka_unit_test(test_pace_without_a_limit_never_waits),
        cmocka_unit_test(test_pace_stands_times_that_make_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
