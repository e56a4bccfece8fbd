/*
 * Breaks when: an outcome is reported wrongly (a write that may have happened as failed, one that surely didn't as
 * unknown); a request is sent twice that must not be; a hanging node is stuck to; a slow but living one is given up; a
 * deadline is missed; a refusal's words get lost.
 */
#include "tests/unit/client_core_fixture.h"

/* ---- Outcomes (hazard 51) ---------------------------------------------------------------------------------------- */

static void test_h51_not_leader_of_unknown_outcome_is_unknown(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    fake_node_set_error(node(&fixture, 0), WIRE_NOT_LEADER, WIRE__OUTCOME__OUTCOME_UNKNOWN, 1);
    expect(&fixture, put(&fixture, "a", "1"), HOLDFAST_UNKNOWN, HOLDFAST_CODE_NOT_LEADER);
    assert_int_equal(atomic_load(&node(&fixture, 0)->requests), 1);
    assert_int_equal(applied(&fixture), 0);
    teardown(&fixture);
}

static void test_h51_error_without_outcome_is_unknown_for_writes(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    start(&fixture);
    fake_node_set_error(node(&fixture, 0), WIRE_INTERNAL, 0, 1);
    expect(&fixture, put(&fixture, "a", "1"), HOLDFAST_UNKNOWN, HOLDFAST_CODE_INTERNAL);
    fake_node_set_error(node(&fixture, 0), WIRE_INTERNAL, 0, 1);
    expect(&fixture, get(&fixture, "a"), HOLDFAST_FAILED, HOLDFAST_CODE_INTERNAL);
    teardown(&fixture);
}

static void test_client_surely_failed_errors_are_final_or_retried(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    start(&fixture);
    const struct {
        uint32_t wire;
        bool retried;
        enum holdfast_code code;
    } cases[] = {
        {WIRE_DENIED, false, HOLDFAST_CODE_DENIED},   {WIRE_NO_SPACE, false, HOLDFAST_CODE_NO_SPACE},
        {WIRE_INVALID, false, HOLDFAST_CODE_INVALID}, {9999, false, HOLDFAST_CODE_INTERNAL},
        {WIRE_UNAVAILABLE, true, HOLDFAST_CODE_OK},   {WIRE_BUSY, true, HOLDFAST_CODE_OK},
        {WIRE_NOT_LEADER, true, HOLDFAST_CODE_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_node_set_error(node(&fixture, 0), cases[i].wire, WIRE__OUTCOME__OUTCOME_FAILED, 2);
        expect(&fixture, put(&fixture, "a", "1"), cases[i].retried ? HOLDFAST_OK : HOLDFAST_FAILED, cases[i].code);
    }
    assert_int_equal(applied(&fixture), 3);
    teardown(&fixture);
}

static void test_client_write_reply_lost_is_unknown_and_not_repeated(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_APPLIES_THEN_DROPS, 1);
    struct op *op = put(&fixture, "a", "1");
    expect(&fixture, op, HOLDFAST_UNKNOWN, HOLDFAST_CODE_CLOSED);
    run_ms(&fixture, 2000);
    assert_int_equal(applied(&fixture), 1);
    teardown(&fixture);
}

static void test_client_write_reply_lost_repeatable_is_repeated(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_APPLIES_THEN_DROPS, 1);
    struct op *op = op_put(&fixture, "a", "1");
    op->request.retry_unknown = true;
    expect_ok(&fixture, submit(&fixture, op));
    assert_int_equal(applied(&fixture), 2);
    teardown(&fixture);
}

static void test_client_failure_after_unknown_attempt_is_unknown(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    start(&fixture);
    struct op *op = op_put(&fixture, "a", "1");
    op->request.retry_unknown = true;
    fake_node_set_error(node(&fixture, 0), WIRE_UNKNOWN, WIRE__OUTCOME__OUTCOME_UNKNOWN, 1);
    (void)submit(&fixture, op);
    run_ms(&fixture, 1);
    fake_node_set_error(node(&fixture, 0), WIRE_DENIED, WIRE__OUTCOME__OUTCOME_FAILED, 1);
    expect(&fixture, op, HOLDFAST_UNKNOWN, HOLDFAST_CODE_DENIED);
    teardown(&fixture);
}

static void test_client_read_reply_lost_is_repeated(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    set_fault(node(&fixture, 0), FAKE_DROPS, 1);
    expect_ok(&fixture, get(&fixture, "a"));
    teardown(&fixture);
}

static void test_client_garbled_reply_ends_the_connection(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_GARBLES, 1);
    expect(&fixture, put(&fixture, "a", "1"), HOLDFAST_UNKNOWN, HOLDFAST_CODE_CORRUPT);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    assert_int_equal(atomic_load(&node(&fixture, 0)->connections), 2);
    teardown(&fixture);
}

static void test_client_unsound_pages_are_not_believed(void **state) {
    (void)state;
    for (uint32_t variant = 0; variant <= 7; variant++) {
        struct fixture fixture;
        setup(&fixture, 1);
        fixture.options.timeout_ms = 200;
        start(&fixture);
        atomic_store(&node(&fixture, 0)->error_code, variant);
        set_fault(node(&fixture, 0), FAKE_LIES, 0);
        struct op *op = submit(&fixture, op_new(&fixture, CLIENT_SCAN));
        if (variant == 7) {
            expect_ok(&fixture, op);
            assert_int_equal(op->pair_count, 2);
        } else {
            expect(&fixture, op, HOLDFAST_FAILED, HOLDFAST_CODE_CORRUPT);
        }
        teardown(&fixture);
    }
}

/* ---- Deadlines --------------------------------------------------------------------------------------------------- */

static void test_client_deadline_travels_and_holds(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    fixture.options.timeout_ms = 3000;
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_HOLDS, 0);
    struct op *write = put(&fixture, "a", "1");
    struct op *read = get(&fixture, "a");
    run_ms(&fixture, 10);
    assert_in_range(atomic_load(&node(&fixture, 0)->last_timeout_ms), 2900, 3000);
    run_ms(&fixture, 2980);
    assert_int_equal(write->done + read->done, 0);
    run_ms(&fixture, 20);
    expect(&fixture, write, HOLDFAST_UNKNOWN, HOLDFAST_CODE_TIMEOUT);
    expect(&fixture, read, HOLDFAST_FAILED, HOLDFAST_CODE_TIMEOUT);
    fake_node_release(node(&fixture, 0)); /* late replies do no harm */
    expect_ok(&fixture, put(&fixture, "b", "1"));
    assert_int_equal(atomic_load(&node(&fixture, 0)->connections), 1);
    teardown(&fixture);
}

static void test_client_no_leader_until_deadline_is_unavailable(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    atomic_store(&fixture.cluster.leader, -1);
    start(&fixture);
    struct op *op = put(&fixture, "a", "1");
    assert_in_range(finish(&fixture, op), 4990, 5010);
    expect(&fixture, op, HOLDFAST_FAILED, HOLDFAST_CODE_UNAVAILABLE);
    teardown(&fixture);
}

static void test_client_nobody_listens_is_unreachable(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 2);
    fake_node_kill(node(&fixture, 0));
    fake_node_kill(node(&fixture, 1));
    start(&fixture);
    struct op *op = put(&fixture, "a", "1");
    struct op *status = op_new(&fixture, CLIENT_STATUS);
    status->request.target = 1;
    (void)submit(&fixture, status);
    assert_true(finish(&fixture, status) <= 2); /* the question was about this node: no reason to wait */
    assert_int_equal(status->result.code, HOLDFAST_CODE_UNREACHABLE);
    assert_in_range(finish(&fixture, op), 4990, 5010);
    assert_int_equal(op->result.outcome, HOLDFAST_FAILED);
    assert_int_equal(op->result.code, HOLDFAST_CODE_UNREACHABLE);
    assert_non_null(strstr(op->result.message, "n1: connection refused"));
    struct op *later = put(&fixture, "a", "1");
    run_ms(&fixture, 1000);
    fake_node_revive(node(&fixture, 0));
    assert_true(finish(&fixture, later) <= 600); /* back-off is bounded */
    assert_int_equal(later->result.outcome, HOLDFAST_OK);
    teardown(&fixture);
}

/* The question comes while the node backs off, and nothing else is asked meanwhile that would wake it. */
static void test_client_node_that_backs_off_is_asked_when_it_may_be(void **state) {
    (void)state;
    for (unsigned is_back = 0; is_back < 2; is_back++) {
        struct fixture fixture;
        setup(&fixture, 2);
        fake_node_kill(node(&fixture, 0));
        atomic_store(&fixture.cluster.leader, 1);
        start(&fixture);
        expect_ok(&fixture, put(&fixture, "a", "1")); /* the first one refuses, the second one does it */
        if (is_back) {
            fake_node_revive(node(&fixture, 0));
        }
        struct op *status = op_new(&fixture, CLIENT_STATUS);
        status->request.target = 0;
        (void)submit(&fixture, status);
        assert_in_range(finish(&fixture, status), 5, 30); /* the first back-off */
        assert_int_equal(status->result.code, is_back ? HOLDFAST_CODE_OK : HOLDFAST_CODE_UNREACHABLE);
        teardown(&fixture);
    }
}

/* ---- Hanging nodes (hazard 58) ----------------------------------------------------------------------------------- */

static void test_h58_node_that_never_greets_is_left(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    set_fault(node(&fixture, 0), FAKE_MUTE, 0);
    atomic_store(&fixture.cluster.leader, 1);
    start(&fixture);
    struct op *op = put(&fixture, "a", "1");
    assert_in_range(finish(&fixture, op), 90, 130); /* a tenth of the silence limit, then another is tried */
    assert_int_equal(op->result.outcome, HOLDFAST_OK);
    assert_true(finish(&fixture, put(&fixture, "b", "1")) <= 2); /* and stays left */
    teardown(&fixture);
}

static void test_h58_leader_falls_silent_reads_go_elsewhere(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    set_fault(node(&fixture, 0), FAKE_HANGS, 0);
    struct op *read = get(&fixture, "a");
    struct op *write = put(&fixture, "a", "2");
    struct op *repeatable = op_put(&fixture, "r", "1");
    repeatable->request.retry_unknown = true;
    (void)submit(&fixture, repeatable);
    run_ms(&fixture, 500);
    atomic_store(&fixture.cluster.leader, 1);       /* the others have elected one */
    assert_in_range(finish(&fixture, read), 1, 40); /* they are asked again and again */
    assert_int_equal(read->result.outcome, HOLDFAST_OK);
    expect_ok(&fixture, repeatable);
    assert_true(atomic_load(&node(&fixture, 0)->pings) > 0);
    assert_int_equal(write->done, 0); /* the silent node may yet say for sure */
    assert_true(finish(&fixture, put(&fixture, "b", "1")) <= 2);
    expect(&fixture, write, HOLDFAST_UNKNOWN, HOLDFAST_CODE_TIMEOUT);
    teardown(&fixture);
}

static void test_h58_hanging_leader_that_others_name_is_not_gone_back_to(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    set_fault(node(&fixture, 0), FAKE_MUTE, 0);
    struct op *read = get(&fixture, "a");
    run_ms(&fixture, 1200); /* given up at 1,000; the others don't know yet */
    atomic_store(&fixture.cluster.leader, 2);
    assert_true(finish(&fixture, read) <= 300);
    assert_int_equal(read->result.outcome, HOLDFAST_OK);
    teardown(&fixture);
}

static void test_client_slow_but_living_node_is_kept(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_HOLDS, 0);
    struct op *op = put(&fixture, "a", "1");
    run_ms(&fixture, 4000);
    assert_int_equal(op->done, 0);
    assert_int_equal(atomic_load(&node(&fixture, 0)->connections), 1);
    assert_true(atomic_load(&node(&fixture, 0)->pings) >= 3);
    fake_node_release(node(&fixture, 0));
    expect_ok(&fixture, op);
    teardown(&fixture);
}

static void test_h58_connection_idle_for_long_is_probed_first(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    run_ms(&fixture, 15000);
    set_fault(node(&fixture, 0), FAKE_HANGS, 0);
    atomic_store(&fixture.cluster.leader, 1);
    struct op *op = put(&fixture, "b", "1"); /* not trusted to the dead connection: so its outcome is known */
    assert_in_range(finish(&fixture, op), 90, 130);
    assert_int_equal(op->result.outcome, HOLDFAST_OK);
    assert_int_equal(atomic_load(&node(&fixture, 0)->requests), 1);
    teardown(&fixture);
}

static void test_client_leader_dies_next_one_serves(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    fake_node_kill(node(&fixture, 0));
    run_ms(&fixture, 2);
    struct op *op = put(&fixture, "b", "1"); /* the others still name the dead one */
    run_ms(&fixture, 800);
    assert_int_equal(op->done, 0);
    atomic_store(&fixture.cluster.leader, 2);
    assert_true(finish(&fixture, op) <= 300);
    assert_int_equal(op->result.outcome, HOLDFAST_OK);
    teardown(&fixture);
}

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static void test_client_refused_by_all_says_why_at_once(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    for (unsigned i = 0; i < 3; i++) {
        set_fault(node(&fixture, i), FAKE_REFUSES, 0);
    }
    start(&fixture);
    struct op *op = put(&fixture, "a", "1");
    assert_true(finish(&fixture, op) <= 50);
    expect(&fixture, op, HOLDFAST_FAILED, HOLDFAST_CODE_DENIED);
    assert_non_null(strstr(op->result.message, "add its thumbprint"));
    teardown(&fixture);
}

static void test_client_refused_by_one_goes_to_another(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    set_fault(node(&fixture, 0), FAKE_REFUSES, 0);
    atomic_store(&fixture.cluster.leader, 1);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    teardown(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h51_not_leader_of_unknown_outcome_is_unknown),
        cmocka_unit_test(test_h51_error_without_outcome_is_unknown_for_writes),
        cmocka_unit_test(test_client_surely_failed_errors_are_final_or_retried),
        cmocka_unit_test(test_client_write_reply_lost_is_unknown_and_not_repeated),
        cmocka_unit_test(test_client_write_reply_lost_repeatable_is_repeated),
        cmocka_unit_test(test_client_failure_after_unknown_attempt_is_unknown),
        cmocka_unit_test(test_client_read_reply_lost_is_repeated),
        cmocka_unit_test(test_client_garbled_reply_ends_the_connection),
        cmocka_unit_test(test_client_unsound_pages_are_not_believed),
        cmocka_unit_test(test_client_deadline_travels_and_holds),
        cmocka_unit_test(test_client_no_leader_until_deadline_is_unavailable),
        cmocka_unit_test(test_client_nobody_listens_is_unreachable),
        cmocka_unit_test(test_client_node_that_backs_off_is_asked_when_it_may_be),
        cmocka_unit_test(test_h58_node_that_never_greets_is_left),
        cmocka_unit_test(test_h58_leader_falls_silent_reads_go_elsewhere),
        cmocka_unit_test(test_h58_hanging_leader_that_others_name_is_not_gone_back_to),
        cmocka_unit_test(test_client_slow_but_living_node_is_kept),
        cmocka_unit_test(test_h58_connection_idle_for_long_is_probed_first),
        cmocka_unit_test(test_client_leader_dies_next_one_serves),
        cmocka_unit_test(test_client_refused_by_all_says_why_at_once),
        cmocka_unit_test(test_client_refused_by_one_goes_to_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
