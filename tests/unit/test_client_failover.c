/*
 * A leader that is lost without a word: stopped, cut off, or alive with a disk that hangs. Breaks when: the client
 * waits for it although others say who leads; it leaves a leader that is merely slow; it repeats a write that may not
 * be repeated; it goes on asking others when nothing depends on the answer.
 */
#include "tests/unit/client_core_fixture.h"

enum { SILENCE_MS = 1000, DOUBT_MS = SILENCE_MS / 10, ASKED_MS = 40 /* until the next question is answered */ };

static struct op *put_repeatable(struct fixture *fixture, const char *key, const char *value) {
    struct op *op = op_put(fixture, key, value);
    op->request.retry_unknown = true;
    return submit(fixture, op);
}

static unsigned pings_of_others(struct fixture *fixture) {
    return atomic_load(&node(fixture, 1)->pings) + atomic_load(&node(fixture, 2)->pings);
}

static void test_h58_silent_leader_is_left_as_soon_as_others_name_another(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    set_fault(node(&fixture, 0), FAKE_HANGS, 0);
    struct op *op = put_repeatable(&fixture, "a", "2");
    struct op *read = get(&fixture, "a");
    run_ms(&fixture, 200);
    assert_int_equal(op->done + read->done, 0);
    assert_true(pings_of_others(&fixture) > 0);
    atomic_store(&fixture.cluster.leader, 2);
    assert_in_range(finish(&fixture, op), 1, ASKED_MS);
    assert_int_equal(op->result.outcome, HOLDFAST_OK);
    assert_int_equal(applied(&fixture), 2);
    assert_true(finish(&fixture, read) <= 2);
    assert_true(finish(&fixture, put(&fixture, "b", "1")) <= 2);
    teardown(&fixture);
}

/* It answers PING: its process is well, its disk isn't. */
static void test_h13_leader_that_does_not_write_is_left_when_others_name_another(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_HOLDS, 0);
    struct op *old = put_repeatable(&fixture, "a", "1");
    run_ms(&fixture, DOUBT_MS + 50);
    struct op *young = put_repeatable(&fixture, "b", "1");
    run_ms(&fixture, 5);
    atomic_store(&fixture.cluster.leader, 1);
    assert_in_range(finish(&fixture, old), 1, ASKED_MS);
    assert_in_range(finish(&fixture, young), 1, DOUBT_MS + ASKED_MS); /* it, too, must wait for long first */
    assert_int_equal(old->result.outcome, HOLDFAST_OK);
    assert_int_equal(young->result.outcome, HOLDFAST_OK);
    teardown(&fixture);
}

static void test_client_slow_leader_is_waited_for_while_nobody_else_leads(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_HOLDS, 0);
    struct op *op = put_repeatable(&fixture, "a", "1");
    run_ms(&fixture, 900);
    assert_int_equal(op->done, 0);
    assert_in_range(pings_of_others(&fixture), 2, 100);
    assert_int_equal(atomic_load(&node(&fixture, 1)->requests) + atomic_load(&node(&fixture, 2)->requests), 0);
    fake_node_release(node(&fixture, 0));
    assert_true(finish(&fixture, op) <= 2);
    assert_int_equal(applied(&fixture), 1);
    unsigned asked = pings_of_others(&fixture);
    run_ms(&fixture, 500); /* nothing waits: nobody is asked */
    assert_int_equal(pings_of_others(&fixture), asked);
    teardown(&fixture);
}

static void test_client_write_that_may_not_be_repeated_waits_and_others_go_on(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    set_fault(node(&fixture, 0), FAKE_HANGS, 0);
    struct op *op = put(&fixture, "a", "2");
    run_ms(&fixture, 200);
    atomic_store(&fixture.cluster.leader, 1);
    run_ms(&fixture, ASKED_MS);
    assert_int_equal(op->done, 0);
    assert_true(finish(&fixture, put(&fixture, "b", "1")) <= 2);
    unsigned asked = pings_of_others(&fixture);
    run_ms(&fixture, 500); /* no answer could help it */
    assert_int_equal(pings_of_others(&fixture), asked);
    expect(&fixture, op, HOLDFAST_UNKNOWN, HOLDFAST_CODE_TIMEOUT);
    teardown(&fixture);
}

static void test_client_pinned_to_a_silent_node_asks_nobody(void **state) {
    (void)state;
    struct fixture fixture;
    struct error err;
    setup(&fixture, 3);
    assert_int_equal(client_options_set_pin(&fixture.options, "n1", &err), STATUS_OK);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_HOLDS, 0);
    struct op *op = put_repeatable(&fixture, "a", "1");
    run_ms(&fixture, 500);
    assert_int_equal(atomic_load(&node(&fixture, 1)->connections) + atomic_load(&node(&fixture, 2)->connections), 0);
    fake_node_release(node(&fixture, 0));
    expect_ok(&fixture, op);
    teardown(&fixture);
}

/* A killed leader: the others need some time to elect another, and are asked often meanwhile. */
static void test_client_election_is_asked_for_often(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    fake_node_kill(node(&fixture, 0));
    run_ms(&fixture, 2);
    atomic_store(&fixture.cluster.leader, -1);
    struct op *op = put(&fixture, "b", "1");
    run_ms(&fixture, 250);
    assert_int_equal(op->done, 0);
    atomic_store(&fixture.cluster.leader, 2);
    assert_in_range(finish(&fixture, op), 1, 90); /* two questions at most: the first may go to the other one */
    assert_int_equal(op->result.outcome, HOLDFAST_OK);
    teardown(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h58_silent_leader_is_left_as_soon_as_others_name_another),
        cmocka_unit_test(test_h13_leader_that_does_not_write_is_left_when_others_name_another),
        cmocka_unit_test(test_client_slow_leader_is_waited_for_while_nobody_else_leads),
        cmocka_unit_test(test_client_write_that_may_not_be_repeated_waits_and_others_go_on),
        cmocka_unit_test(test_client_pinned_to_a_silent_node_asks_nobody),
        cmocka_unit_test(test_client_election_is_asked_for_often),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
