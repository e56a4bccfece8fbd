/*
 * Breaks when: time in which this node couldn't look at its sockets (a long turn, a paused process) counts as silence
 * of the others, so that a busy leader steps down and a busy follower campaigns (hazard 23); or raft's clock goes
 * backward, or stands still while all is well.
 */
#include "tests/unit/support/memory_net.h"

#include "node/server/consensus_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { HEARTBEAT_MS = 30, START_US = 5 * 1000 * 1000 };

struct clock_fixture {
    struct memory_world world;
    struct config config;
    struct consensus *consensus;
};

static void set_up(struct clock_fixture *fixture) {
    memory_world_init(&fixture->world, 1);
    memory_world_advance(&fixture->world, START_US);
    config_init(&fixture->config, alloc_system());
    fixture->config.heartbeat_ms = HEARTBEAT_MS;
    fixture->consensus = calloc(1, sizeof *fixture->consensus);
    assert_non_null(fixture->consensus);
    fixture->consensus->options.loop = &fixture->world.loop;
    fixture->consensus->options.config = &fixture->config;
    fixture->consensus->raft_due_us = UINT64_MAX;
}

static void tear_down(struct clock_fixture *fixture) {
    free(fixture->consensus);
    config_deinit(&fixture->config);
    memory_world_deinit(&fixture->world);
}

static uint64_t look_after(struct clock_fixture *fixture, uint64_t ms) {
    memory_world_advance(&fixture->world, ms * 1000);
    return consensus__raft_now_us(fixture->consensus);
}

static void test_consensus_clock_deadline_met_in_time_is_the_loops_time(void **state) {
    (void)state;
    struct clock_fixture fixture;
    set_up(&fixture);
    uint64_t start_us = consensus__raft_now_us(fixture.consensus);
    fixture.consensus->raft_due_us = start_us + 100 * 1000;
    assert_int_equal(look_after(&fixture, 60), start_us + 60 * 1000);
    assert_int_equal(look_after(&fixture, 60), start_us + 120 * 1000); /* 20 ms late: a heartbeat's worth is allowed */
    assert_int_equal(fixture.consensus->held_up_us, 0);
    fixture.consensus->raft_due_us = UINT64_MAX; /* waits for nothing: sleeping isn't being held up */
    assert_int_equal(look_after(&fixture, 10 * 1000), start_us + 10120 * 1000);
    tear_down(&fixture);
}

static void test_h23_consensus_clock_stands_still_while_the_node_cannot_look(void **state) {
    (void)state;
    struct clock_fixture fixture;
    set_up(&fixture);
    struct consensus *consensus = fixture.consensus;
    uint64_t now_us = consensus__raft_now_us(consensus);
    /* Deadlines every 30 ms, each met 400 ms late: with the loop's time the third already is an election timeout. */
    for (int i = 0; i < 20; i++) {
        consensus->raft_due_us = env_now_us(&fixture.world.loop) + HEARTBEAT_MS * 1000;
        uint64_t next_us = look_after(&fixture, HEARTBEAT_MS + 400);
        assert_int_equal(next_us, now_us + 2 * HEARTBEAT_MS * 1000);
        assert_int_equal(consensus__raft_now_us(consensus), next_us); /* the same turn */
        now_us = next_us;
    }
    /* Then it goes on as fast as ever, and never jumps back to make up for it. */
    consensus->raft_due_us = UINT64_MAX;
    assert_int_equal(look_after(&fixture, 500), now_us + 500 * 1000);
    tear_down(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_consensus_clock_deadline_met_in_time_is_the_loops_time),
        cmocka_unit_test(test_h23_consensus_clock_stands_still_while_the_node_cannot_look),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
