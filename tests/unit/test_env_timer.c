/*
 * The timer heap of a loop, on a clock that stands still unless told. Breaks if the heap loses its order or a slot, if
 * ties don't run in order of arming, if a cancelled or moved timer runs at its old time, or if a timer that re-arms
 * itself for now never lets go.
 */
#include "node/base/random.h"
#include "node/env/env_loop_internal.h"
#include "tests/unit/support/support.h"

static uint64_t clock_now_us;

static uint64_t fake_clock_us(struct env *env) {
    (void)env;
    return clock_now_us;
}

static const struct env_ops fake_ops = {.clock_us = fake_clock_us};
static struct test_alloc memory;
static struct env fake_env = {.ops = &fake_ops, .alloc = &memory.base};
static struct env_loop loop;

enum { TIMERS_MAX = 500 };

struct probe {
    struct env_timer timer;
    int number;
    struct probe *cancels; /* run cancels this one */
    bool rearms;
};

static int order[TIMERS_MAX * 2];
static int order_count;

static void note(struct env_timer *timer) {
    struct probe *probe = CONTAINER_OF(timer, struct probe, timer);
    order[order_count++] = probe->number;
    if (probe->cancels != NULL) {
        env_timer_cancel(&probe->cancels->timer);
    }
    if (probe->rearms) {
        assert_int_equal(env_timer_arm(timer, 0), STATUS_OK);
    }
}

static int setup(void **state) {
    (void)state;
    test_alloc_init(&memory);
    clock_now_us = 1000;
    order_count = 0;
    env__loop_init(&loop, &fake_env, 10);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    env__loop_deinit(&loop);
    return memory.live_blocks == 0 ? 0 : -1;
}

static void arm(struct probe *probe, int number, uint64_t deadline_us) {
    *probe = (struct probe){.number = number};
    env_timer_init(&probe->timer, &loop, note);
    assert_int_equal(env_timer_arm(&probe->timer, deadline_us), STATUS_OK);
}

static void run_at(uint64_t now_us) {
    loop.now_us = now_us;
    env__loop_run_timers(&loop);
}

static void test_timers_run_by_deadline_then_by_arming(void **state) {
    (void)state;
    struct probe probes[5];
    arm(&probes[0], 0, 3000);
    arm(&probes[1], 1, 2000);
    arm(&probes[2], 2, 3000);
    arm(&probes[3], 3, 1500);
    arm(&probes[4], 4, 2000);
    assert_int_equal(env__loop_next_deadline_us(&loop), 1500);
    run_at(1499);
    assert_int_equal(order_count, 0);
    run_at(3000);
    const int expected[] = {3, 1, 4, 0, 2};
    assert_int_equal(order_count, 5);
    assert_memory_equal(order, expected, sizeof expected);
    assert_true(env__loop_next_deadline_us(&loop) == UINT64_MAX);
}

static void test_timers_many_random_keep_heap_order(void **state) {
    (void)state;
    static struct probe probes[TIMERS_MAX];
    struct random random;
    random_seed(&random, 7);
    for (int i = 0; i < TIMERS_MAX; i++) {
        arm(&probes[i], i, 2000 + random_below(&random, 300));
    }
    for (int i = 0; i < TIMERS_MAX; i += 3) { /* move some, cancel some */
        assert_int_equal(env_timer_arm(&probes[i].timer, 2000 + random_below(&random, 300)), STATUS_OK);
        env_timer_cancel(&probes[i + 1].timer);
        assert_false(env_timer_is_armed(&probes[i + 1].timer));
    }
    for (uint32_t slot = 1; slot <= loop.timer_count; slot++) {
        assert_int_equal(loop.timers[slot]->heap_slot, slot);
    }
    uint32_t armed = loop.timer_count;
    run_at(2150);
    run_at(2400);
    assert_int_equal(order_count, armed);
    for (int i = 1; i < order_count; i++) {
        const struct env_timer *before = &probes[order[i - 1]].timer;
        const struct env_timer *after = &probes[order[i]].timer;
        assert_true(before->deadline_us < after->deadline_us ||
                    (before->deadline_us == after->deadline_us && before->sequence < after->sequence));
    }
}

static void test_timer_armed_again_moves(void **state) {
    (void)state;
    struct probe probe;
    arm(&probe, 1, 2000);
    assert_int_equal(env_timer_arm(&probe.timer, 5000), STATUS_OK);
    run_at(4999);
    assert_int_equal(order_count, 0);
    assert_true(env_timer_is_armed(&probe.timer));
    run_at(5000);
    assert_int_equal(order_count, 1);
    assert_false(env_timer_is_armed(&probe.timer));
}

static void test_timer_cancelled_by_an_earlier_one_does_not_run(void **state) {
    (void)state;
    struct probe first, second;
    arm(&first, 1, 2000);
    arm(&second, 2, 2000);
    first.cancels = &second;
    run_at(2000);
    assert_int_equal(order_count, 1);
    env_timer_cancel(&second.timer); /* a second time does no harm */
}

static void test_timer_rearmed_for_the_past_waits_for_the_next_turn_behind_the_others(void **state) {
    (void)state;
    struct probe eager, patient;
    arm(&eager, 1, 0);
    eager.rearms = true;
    run_at(2000);
    assert_int_equal(order_count, 1);
    assert_true(env__loop_next_deadline_us(&loop) == 2000);
    arm(&patient, 2, 1);
    run_at(2000); /* both are due; patient comes behind eager's earlier arming, then both are through */
    const int expected[] = {1, 1, 2};
    assert_int_equal(order_count, 3);
    assert_memory_equal(order, expected, sizeof expected);
    env_timer_cancel(&eager.timer);
}

static void test_timer_without_memory_is_refused_and_others_stay(void **state) {
    (void)state;
    static struct probe probes[64];
    test_alloc_fail(&memory, 2, true); /* the first growth works */
    int armed = 0;
    for (int i = 0; i < 64; i++) {
        probes[i] = (struct probe){.number = i};
        env_timer_init(&probes[i].timer, &loop, note);
        if (env_timer_arm(&probes[i].timer, 2000) != STATUS_OK) {
            break;
        }
        armed++;
    }
    assert_in_range(armed, 1, 63);
    assert_false(env_timer_is_armed(&probes[armed].timer));
    assert_int_equal(env_timer_arm(&probes[0].timer, 3000), STATUS_OK); /* moving needs no memory */
    run_at(3000);
    assert_int_equal(order_count, armed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_timers_run_by_deadline_then_by_arming, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timers_many_random_keep_heap_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_armed_again_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_cancelled_by_an_earlier_one_does_not_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_rearmed_for_the_past_waits_for_the_next_turn_behind_the_others,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_without_memory_is_refused_and_others_stay, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
