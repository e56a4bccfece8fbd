/*
 * Breaks when: the leader isn't found or followed; an outcome is reported wrongly (a write that may have happened as
 * failed, one that surely didn't as unknown); a request is sent twice that must not be; a hanging node is stuck to; a
 * slow but living one is given up; a deadline is missed; a bound on requests in flight doesn't hold; a refusal's words
 * get lost; anything leaks when memory runs out.
 *
 * All in virtual time, against played nodes (fake_server.h).
 */
#include "node/base/check.h"
#include "proto/client/client_internal.h"
#include "tests/unit/support/fake_server.h"
#include "tests/unit/support/memory_net.h"
#include "tests/unit/support/support.h"

#include <stdio.h>
#include <string.h>

enum { OPS_MAX = 64 };

struct op {
    struct client_request request;
    struct fixture *fixture;
    unsigned done;
    struct holdfast_result result;
    char value[64];
    size_t value_len;
    size_t pair_count;
    bool more;
    struct holdfast_node_status status;
};

struct fixture {
    struct memory_world world;
    struct fake_cluster cluster;
    struct client_options options;
    struct client_core *core;
    struct op ops[OPS_MAX];
    unsigned op_count;
    unsigned core_closed;
};

static void core_closed(void *context) { ((struct fixture *)context)->core_closed++; }

static void setup(struct fixture *fixture, uint32_t nodes) {
    char endpoints[512];
    struct error err;
    memset(fixture, 0, sizeof *fixture);
    memory_world_init(&fixture->world, 7);
    fake_cluster_init(&fixture->cluster, &fixture->world.env, &fixture->world.loop, &fixture->world.transport, nodes);
    fake_cluster_start(&fixture->cluster, "memory");
    client_options_init(&fixture->options);
    fake_endpoints(&fixture->cluster, endpoints, sizeof endpoints);
    assert_int_equal(client_options_add_endpoints(&fixture->options, endpoints, &err), STATUS_OK);
}

static void start(struct fixture *fixture) {
    assert_int_equal(client_core_new(&fixture->world.env, &fixture->world.loop, &fixture->world.transport,
                                     &fixture->options, &fixture->core),
                     STATUS_OK);
}

static void run_ms(struct fixture *fixture, unsigned ms) {
    for (unsigned i = 0; i < ms; i++) {
        memory_world_advance(&fixture->world, 1000);
    }
}

static void teardown(struct fixture *fixture) {
    if (fixture->core != NULL) {
        client_core_close(fixture->core, core_closed, fixture);
        run_ms(fixture, 1);
        assert_int_equal(fixture->core_closed, 1);
        client_core_free(fixture->core);
    }
    for (unsigned i = 0; i < fixture->op_count; i++) {
        assert_int_equal(fixture->ops[i].done, 1);
    }
    fake_cluster_stop(&fixture->cluster);
    run_ms(fixture, 1);
    fake_cluster_deinit(&fixture->cluster);
    memory_world_deinit(&fixture->world);
}

static void op_done(struct client_request *request, struct client_answer *answer) {
    struct op *op = CONTAINER_OF(request, struct op, request);
    op->done++;
    op->result = answer->result;
    if (answer->value.data != NULL) {
        op->value_len = answer->value.len;
        memcpy(op->value, answer->value.data, answer->value.len < 64 ? answer->value.len : 64);
    }
    if (answer->page != NULL) {
        op->pair_count = answer->page->pair_count;
        op->more = answer->page->more;
    }
    if (answer->status != NULL) {
        op->status = *answer->status;
    }
}

static struct op *op_new(struct fixture *fixture, enum client_operation operation) {
    assert_true(fixture->op_count < OPS_MAX);
    struct op *op = &fixture->ops[fixture->op_count++];
    op->fixture = fixture;
    client_request_init(&op->request, operation, op_done);
    return op;
}

static struct op *submit(struct fixture *fixture, struct op *op) {
    assert_int_equal(client_request_check(&op->request), HOLDFAST_CODE_OK);
    assert_int_equal(client_core_submit(fixture->core, &op->request), HOLDFAST_CODE_OK);
    assert_int_equal(op->done, 0); /* never from inside */
    return op;
}

static struct op *op_put(struct fixture *fixture, const char *key, const char *value) {
    struct op *op = op_new(fixture, CLIENT_PUT);
    op->request.key = slice_of_string(key);
    op->request.value = slice_of_string(value);
    return op;
}

static struct op *op_get(struct fixture *fixture, const char *key) {
    struct op *op = op_new(fixture, CLIENT_GET);
    op->request.key = slice_of_string(key);
    return op;
}

static struct op *put(struct fixture *fixture, const char *key, const char *value) {
    return submit(fixture, op_put(fixture, key, value));
}

static struct op *get(struct fixture *fixture, const char *key) { return submit(fixture, op_get(fixture, key)); }

/* Runs until it is done; returns the milliseconds that took. */
static unsigned finish(struct fixture *fixture, struct op *op) {
    unsigned ms = 0;
    while (op->done == 0 && ms < 20000) {
        run_ms(fixture, 1);
        ms++;
    }
    assert_int_equal(op->done, 1);
    return ms;
}

static void expect(struct fixture *fixture, struct op *op, enum holdfast_outcome outcome, enum holdfast_code code) {
    (void)finish(fixture, op);
    if (op->result.outcome != outcome || op->result.code != code) {
        print_error("got %s %s: %s\n", holdfast_outcome_name(op->result.outcome), holdfast_code_name(op->result.code),
                    op->result.message);
    }
    assert_int_equal(op->result.outcome, outcome);
    assert_int_equal(op->result.code, code);
}

static void expect_ok(struct fixture *fixture, struct op *op) { expect(fixture, op, HOLDFAST_OK, HOLDFAST_CODE_OK); }

static uint64_t applied(struct fixture *fixture) { return atomic_load(&fixture->cluster.applied); }

static struct fake_node *node(struct fixture *fixture, unsigned index) { return &fixture->cluster.nodes[index]; }

static void set_fault(struct fake_node *of, enum fake_fault fault, uint32_t count) {
    atomic_store(&of->fault_count, count);
    atomic_store(&of->fault, fault);
}

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

/* ---- Hanging nodes (hazard 58) ----------------------------------------------------------------------------------- */

static void test_h58_node_that_never_greets_is_left(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    set_fault(node(&fixture, 0), FAKE_MUTE, 0);
    atomic_store(&fixture.cluster.leader, 1);
    start(&fixture);
    struct op *op = put(&fixture, "a", "1");
    assert_in_range(finish(&fixture, op), 900, 1200);
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
    atomic_store(&fixture.cluster.leader, 1); /* the others have elected one */
    assert_in_range(finish(&fixture, read), 400, 900);
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
    assert_in_range(finish(&fixture, op), 900, 1300);
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
        cmocka_unit_test(test_client_greeting_names_leader_it_is_asked),
        cmocka_unit_test(test_client_leader_moves_requests_follow),
        cmocka_unit_test(test_client_leader_not_configured_is_learnt),
        cmocka_unit_test(test_client_no_leader_for_a_while_waits),
        cmocka_unit_test(test_client_pinned_node_is_not_leader_fails),
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
        cmocka_unit_test(test_h58_node_that_never_greets_is_left),
        cmocka_unit_test(test_h58_leader_falls_silent_reads_go_elsewhere),
        cmocka_unit_test(test_h58_hanging_leader_that_others_name_is_not_gone_back_to),
        cmocka_unit_test(test_client_slow_but_living_node_is_kept),
        cmocka_unit_test(test_h58_connection_idle_for_long_is_probed_first),
        cmocka_unit_test(test_client_leader_dies_next_one_serves),
        cmocka_unit_test(test_client_refused_by_all_says_why_at_once),
        cmocka_unit_test(test_client_refused_by_one_goes_to_another),
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
