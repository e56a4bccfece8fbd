/*
 * Breaks when: the leader isn't found or followed; a request that can't be right is sent; a bound on requests in flight
 * doesn't hold; an endpoint list is misread; anything leaks when memory runs out or the core is closed.
 */
#include "tests/unit/client_core_fixture.h"

/* ---- Plain service ----------------------------------------------------------------------------------------------- */

static void test_client_every_operation_works(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    expect_ok(&fixture, put(&fixture, "b", ""));
    uint32_t kinds[] = {1, 1, 2}, key_lens[] = {1, 2, 1}, value_lens[] = {2, 0, 0};
    struct op *batch = op_new(&fixture, CLIENT_BATCH);
    batch->request.batch = (struct client_batch){kinds, key_lens, value_lens, 3};
    batch->request.value = slice_of_string("cvvdda");
    expect_ok(&fixture, submit(&fixture, batch));
    assert_int_equal(batch->result.revision, 3);
    struct op *read = get(&fixture, "c");
    expect_ok(&fixture, read);
    assert_int_equal(read->value_len, 2);
    assert_memory_equal(read->value, "vv", 2);
    expect(&fixture, get(&fixture, "a"), HOLDFAST_FAILED, HOLDFAST_CODE_NOT_FOUND);
    struct op *scan = op_new(&fixture, CLIENT_SCAN);
    scan->request.scan_limit = 2;
    expect_ok(&fixture, submit(&fixture, scan));
    assert_int_equal(scan->pair_count, 2);
    assert_true(scan->more);
    struct op *status = op_new(&fixture, CLIENT_STATUS);
    status->request.target = 0;
    expect_ok(&fixture, submit(&fixture, status));
    assert_string_equal(status->status.role, "leader");
    struct op *removal = op_new(&fixture, CLIENT_DELETE);
    removal->request.key = slice_of_string("c");
    expect_ok(&fixture, submit(&fixture, removal));
    expect_ok(&fixture, put(&fixture, "e", "5"));
    struct op *range = op_new(&fixture, CLIENT_DELETE_RANGE);
    range->request.key = slice_of_string("b");
    range->request.upper = slice_of_string("e");
    expect_ok(&fixture, submit(&fixture, range));
    assert_int_equal(range->result.revision, 6);
    expect(&fixture, get(&fixture, "dd"), HOLDFAST_FAILED, HOLDFAST_CODE_NOT_FOUND);
    expect_ok(&fixture, get(&fixture, "e"));
    assert_int_equal(atomic_load(&node(&fixture, 0)->connections), 1);
    teardown(&fixture);
}

static void test_client_bad_arguments_are_refused(void **state) {
    (void)state;
    static uint8_t zeros[LIMIT_VALUE_BYTES + 1];
    struct client_request request;
    client_request_init(&request, CLIENT_PUT, op_done);
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_INVALID);
    request.key = slice_of(zeros, LIMIT_KEY_BYTES + 1);
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_TOO_LARGE);
    request.key = slice_of(zeros, LIMIT_KEY_BYTES);
    request.value = slice_of(zeros, LIMIT_VALUE_BYTES);
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_OK);
    request.value = slice_of(zeros, LIMIT_VALUE_BYTES + 1);
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_TOO_LARGE);
    uint32_t kinds[] = {1}, key_lens[] = {2}, value_lens[] = {1};
    client_request_init(&request, CLIENT_DELETE_RANGE, op_done);
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_OK); /* no bounds */
    request.key = slice_of_string("b");
    request.upper = slice_of_string("ba");
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_OK);
    request.upper = request.key;
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_INVALID);
    request.upper = slice_of_string("azz");
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_INVALID);
    request.upper = slice_of(zeros, LIMIT_KEY_BYTES + 1);
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_TOO_LARGE);
    client_request_init(&request, CLIENT_BATCH, op_done);
    request.batch = (struct client_batch){kinds, key_lens, value_lens, 1};
    request.value = slice_of(zeros, 3);
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_OK);
    request.value = slice_of(zeros, 4);
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_INVALID);
    kinds[0] = HOLDFAST_DELETE_RANGE;
    request.value = slice_of_string("aab"); /* from "aa" to "b" */
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_OK);
    request.value = slice_of_string("aaa");
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_INVALID);
    value_lens[0] = 0;
    request.value = slice_of_string("aa");
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_INVALID);
    kinds[0] = 4;
    assert_int_equal(client_request_check(&request), HOLDFAST_CODE_INVALID);
}

static void test_client_prefix_range_ends_behind_all_that_begin_so(void **state) {
    (void)state;
    static const struct {
        const char *prefix, *end;
        size_t len, end_len;
    } cases[] = {{"a", "b", 1, 1},           {"ab", "ac", 2, 2},     {"a\xff", "b", 2, 1}, {"a\xff\xff", "b", 3, 1},
                 {"\xfe\xff", "\xff", 2, 1}, {"\xff\xff", "", 2, 0}, /* nothing is behind them */
                 {"\0", "\1", 1, 1},         {"", "", 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char end[4];
        struct holdfast_range range = holdfast_prefix_range(cases[i].prefix, cases[i].len, end);
        assert_int_equal(range.lower_len, cases[i].len);
        assert_int_equal(range.upper_len, cases[i].end_len);
        assert_memory_equal(range.upper, cases[i].end, cases[i].end_len);
    }
}

/* ---- Finding the leader ------------------------------------------------------------------------------------------ */

static void test_client_greeting_names_leader_it_is_asked(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    atomic_store(&fixture.cluster.leader, 2);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    assert_int_equal(atomic_load(&node(&fixture, 0)->requests), 0);
    assert_int_equal(atomic_load(&node(&fixture, 2)->requests), 1);
    teardown(&fixture);
}

static void test_client_leader_moves_requests_follow(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    atomic_store(&fixture.cluster.leader, 1);
    struct op *op = put(&fixture, "a", "2");
    assert_true(finish(&fixture, op) <= 5); /* the hint is followed at once */
    expect_ok(&fixture, op);
    assert_int_equal(applied(&fixture), 2);
    teardown(&fixture);
}

static void test_client_leader_not_configured_is_learnt(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    fixture.options.endpoint_count = 1;
    atomic_store(&fixture.cluster.leader, 2);
    start(&fixture);
    expect_ok(&fixture, put(&fixture, "a", "1"));
    teardown(&fixture);
}

static void test_client_no_leader_for_a_while_waits(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    atomic_store(&fixture.cluster.leader, -1);
    start(&fixture);
    struct op *op = put(&fixture, "a", "1");
    run_ms(&fixture, 1500);
    assert_int_equal(op->done, 0);
    unsigned asked = 0;
    for (unsigned i = 0; i < 3; i++) {
        asked += atomic_load(&node(&fixture, i)->requests);
    }
    assert_in_range(asked, 8, 60); /* everyone is asked, with back-off */
    atomic_store(&fixture.cluster.leader, 1);
    assert_in_range(finish(&fixture, op), 1, 250);
    assert_int_equal(op->result.outcome, HOLDFAST_OK);
    teardown(&fixture);
}

static void test_client_pinned_node_is_not_leader_fails(void **state) {
    (void)state;
    struct fixture fixture;
    struct error err;
    setup(&fixture, 3);
    assert_int_equal(client_options_set_pin(&fixture.options, "n2", &err), STATUS_OK);
    start(&fixture);
    struct op *op = put(&fixture, "a", "1");
    expect(&fixture, op, HOLDFAST_FAILED, HOLDFAST_CODE_NOT_LEADER);
    assert_non_null(strstr(op->result.message, "memory:1"));
    fake_put(&fixture.cluster, slice_of_string("k"), slice_of_string("v"));
    struct op *read = op_get(&fixture, "k");
    read->request.read.local = true;
    expect_ok(&fixture, submit(&fixture, read));
    assert_int_equal(atomic_load(&node(&fixture, 0)->connections), 0);
    teardown(&fixture);
}

/* ---- Bounds ------------------------------------------------------------------------------------------------------ */

static void test_client_in_flight_bound_busy_or_wait(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    fixture.options.in_flight_max = 2;
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_HOLDS, 0);
    struct op *first = put(&fixture, "a", "1");
    struct op *second = put(&fixture, "b", "1");
    run_ms(&fixture, 5);
    struct op *refused = op_put(&fixture, "c", "1");
    assert_int_equal(client_core_submit(fixture.core, &refused->request), HOLDFAST_CODE_BUSY);
    refused->done = 1;
    struct op *late = op_put(&fixture, "d", "1");
    late->request.waits = true;
    late->request.deadline_us = fixture.world.now_us + 100 * 1000;
    (void)submit(&fixture, late);
    struct op *patient = op_put(&fixture, "e", "1");
    patient->request.waits = true;
    (void)submit(&fixture, patient);
    expect(&fixture, late, HOLDFAST_FAILED, HOLDFAST_CODE_BUSY);
    assert_int_equal(patient->done, 0);
    assert_int_equal(atomic_load(&node(&fixture, 0)->requests), 2);
    fake_node_release(node(&fixture, 0));
    expect_ok(&fixture, first);
    expect_ok(&fixture, second);
    expect_ok(&fixture, patient);
    teardown(&fixture);
}

static void test_client_in_flight_bytes_are_bounded(void **state) {
    (void)state;
    static char large[4000];
    memset(large, 'x', sizeof large - 1);
    struct fixture fixture;
    setup(&fixture, 1);
    fixture.options.in_flight_bytes_max = 1000;
    start(&fixture);
    struct op *alone = put(&fixture, "a", large); /* one may exceed it */
    struct op *refused = op_put(&fixture, "b", "1");
    assert_int_equal(client_core_submit(fixture.core, &refused->request), HOLDFAST_CODE_BUSY);
    refused->done = 1;
    expect_ok(&fixture, alone);
    expect_ok(&fixture, put(&fixture, "b", "1"));
    teardown(&fixture);
}

static void test_client_several_connections_share_requests(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    fixture.options.connections = 4;
    start(&fixture);
    for (unsigned i = 0; i < 8; i++) {
        expect_ok(&fixture, put(&fixture, "a", "1"));
    }
    assert_int_equal(atomic_load(&node(&fixture, 0)->connections), 4);
    teardown(&fixture);
}

static void test_client_many_requests_leave_room_for_pings(void **state) {
    (void)state;
    enum { REQUESTS = 1020 }; /* what one connection may carry is 1,000 */
    static struct op many[REQUESTS];
    static struct fixture fixture;
    setup(&fixture, 1);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_HOLDS, 0);
    for (unsigned i = 0; i < REQUESTS; i++) {
        many[i].done = 0;
        client_request_init(&many[i].request, CLIENT_GET, op_done);
        many[i].request.key = slice_of_string("k");
        assert_int_equal(client_core_submit(fixture.core, &many[i].request), HOLDFAST_CODE_OK);
    }
    run_ms(&fixture, 10);
    assert_int_equal(atomic_load(&node(&fixture, 0)->requests), 1000);
    fake_node_release(node(&fixture, 0));
    run_ms(&fixture, 10);
    for (unsigned i = 0; i < REQUESTS; i++) {
        assert_int_equal(many[i].done, 1);
    }
    teardown(&fixture);
}

/* ---- Closing and memory ------------------------------------------------------------------------------------------ */

static void test_client_close_ends_requests(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_HOLDS, 0);
    struct op *write = put(&fixture, "a", "1");
    struct op *read = get(&fixture, "a");
    run_ms(&fixture, 5);
    struct op *unsent = put(&fixture, "b", "1");
    client_core_close(fixture.core, core_closed, &fixture);
    expect(&fixture, write, HOLDFAST_UNKNOWN, HOLDFAST_CODE_CLOSED);
    expect(&fixture, read, HOLDFAST_FAILED, HOLDFAST_CODE_CLOSED);
    expect(&fixture, unsent, HOLDFAST_FAILED, HOLDFAST_CODE_CLOSED);
    assert_int_equal(fixture.core_closed, 0); /* not from inside */
    run_ms(&fixture, 1);
    assert_int_equal(fixture.core_closed, 1);
    client_core_free(fixture.core);
    fixture.core = NULL;
    teardown(&fixture);
}

static void test_client_each_allocation_fails_nothing_leaks(void **state) {
    (void)state;
    static struct fixture fixture;
    for (uint64_t n = 1; n <= 120; n++) {
        setup(&fixture, 2);
        fixture.options.timeout_ms = 1000;
        atomic_store(&fixture.cluster.leader, 1);
        fixture.world.alloc.fail_at = fixture.world.alloc.calls + n;
        enum status status = client_core_new(&fixture.world.env, &fixture.world.loop, &fixture.world.transport,
                                             &fixture.options, &fixture.core);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NO_MEMORY);
            fixture.core = NULL;
            teardown(&fixture);
            continue;
        }
        struct op *ops[2] = {op_put(&fixture, "a", "1"), op_get(&fixture, "a")};
        for (unsigned i = 0; i < 2; i++) {
            enum holdfast_code code = client_core_submit(fixture.core, &ops[i]->request);
            if (code != HOLDFAST_CODE_OK) {
                assert_int_equal(code, HOLDFAST_CODE_NO_MEMORY);
                ops[i]->done = 1;
            }
        }
        run_ms(&fixture, 1100);
        teardown(&fixture); /* checks that each was done once */
    }
}

/* ---- Options ----------------------------------------------------------------------------------------------------- */

static void test_client_endpoint_lists_are_judged(void **state) {
    (void)state;
    static struct client_options options;
    struct error err;
    const char *bad[] = {"",     "a",       "a:",          ":1",   "a:0",  "a:65536",
                         "a:1,", "a:1,a:1", "n=a:1,n=b:1", "=a:1", "a:1x", "a:123456"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        client_options_init(&options);
        assert_int_equal(client_options_add_endpoints(&options, bad[i], &err), STATUS_INVALID);
    }
    client_options_init(&options);
    assert_int_equal(client_options_add_endpoints(&options, "n1=127.0.0.1:4401, [::1]:2 ,host:3", &err), STATUS_OK);
    assert_int_equal(options.endpoint_count, 3);
    assert_string_equal(options.endpoints[0].name, "n1");
    assert_string_equal(options.endpoints[1].address, "[::1]:2");
    assert_string_equal(options.endpoints[2].name, "host:3");
    assert_int_equal(client_options_set_pin(&options, "nowhere", &err), STATUS_INVALID);
    assert_int_equal(client_options_set_pin(&options, "other:9", &err), STATUS_OK);
    assert_int_equal(options.pin, 3);
    assert_int_equal(client_options_check(&options, &err), STATUS_OK);
    options.silence_ms = 1;
    assert_int_equal(client_options_check(&options, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "silence_ms"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_every_operation_works),
        cmocka_unit_test(test_client_bad_arguments_are_refused),
        cmocka_unit_test(test_client_prefix_range_ends_behind_all_that_begin_so),
        cmocka_unit_test(test_client_greeting_names_leader_it_is_asked),
        cmocka_unit_test(test_client_leader_moves_requests_follow),
        cmocka_unit_test(test_client_leader_not_configured_is_learnt),
        cmocka_unit_test(test_client_no_leader_for_a_while_waits),
        cmocka_unit_test(test_client_pinned_node_is_not_leader_fails),
        cmocka_unit_test(test_client_in_flight_bound_busy_or_wait),
        cmocka_unit_test(test_client_in_flight_bytes_are_bounded),
        cmocka_unit_test(test_client_several_connections_share_requests),
        cmocka_unit_test(test_client_many_requests_leave_room_for_pings),
        cmocka_unit_test(test_client_close_ends_requests),
        cmocka_unit_test(test_client_each_allocation_fails_nothing_leaks),
        cmocka_unit_test(test_client_endpoint_lists_are_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
