/*
 * The client's session core against played nodes (fake_server.h), all in virtual time: for test_client_core.c and
 * test_client_core_outcomes.c. Legal order: setup, changes to fixture->options, start, operations, teardown, which
 * fails the test when one wasn't done exactly once or memory is left.
 */
#ifndef HOLDFAST_TESTS_CLIENT_CORE_FIXTURE_H
#define HOLDFAST_TESTS_CLIENT_CORE_FIXTURE_H

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

static inline void core_closed(void *context) { ((struct fixture *)context)->core_closed++; }

static inline void setup(struct fixture *fixture, uint32_t nodes) {
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

static inline void start(struct fixture *fixture) {
    assert_int_equal(client_core_new(&fixture->world.env, &fixture->world.loop, &fixture->world.transport,
                                     &fixture->options, &fixture->core),
                     STATUS_OK);
}

static inline void run_ms(struct fixture *fixture, unsigned ms) {
    for (unsigned i = 0; i < ms; i++) {
        memory_world_advance(&fixture->world, 1000);
    }
}

static inline void teardown(struct fixture *fixture) {
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

static inline void op_done(struct client_request *request, struct client_answer *answer) {
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

static inline struct op *op_new(struct fixture *fixture, enum client_operation operation) {
    assert_true(fixture->op_count < OPS_MAX);
    struct op *op = &fixture->ops[fixture->op_count++];
    op->fixture = fixture;
    client_request_init(&op->request, operation, op_done);
    return op;
}

static inline struct op *submit(struct fixture *fixture, struct op *op) {
    assert_int_equal(client_request_check(&op->request), HOLDFAST_CODE_OK);
    assert_int_equal(client_core_submit(fixture->core, &op->request), HOLDFAST_CODE_OK);
    assert_int_equal(op->done, 0); /* never from inside */
    return op;
}

static inline struct op *op_put(struct fixture *fixture, const char *key, const char *value) {
    struct op *op = op_new(fixture, CLIENT_PUT);
    op->request.key = slice_of_string(key);
    op->request.value = slice_of_string(value);
    return op;
}

static inline struct op *op_get(struct fixture *fixture, const char *key) {
    struct op *op = op_new(fixture, CLIENT_GET);
    op->request.key = slice_of_string(key);
    return op;
}

static inline struct op *put(struct fixture *fixture, const char *key, const char *value) {
    return submit(fixture, op_put(fixture, key, value));
}

static inline struct op *get(struct fixture *fixture, const char *key) { return submit(fixture, op_get(fixture, key)); }

/* Runs until it is done; returns the milliseconds that took. */
static inline unsigned finish(struct fixture *fixture, struct op *op) {
    unsigned ms = 0;
    while (op->done == 0 && ms < 20000) {
        run_ms(fixture, 1);
        ms++;
    }
    assert_int_equal(op->done, 1);
    return ms;
}

static inline void expect(struct fixture *fixture, struct op *op, enum holdfast_outcome outcome,
                          enum holdfast_code code) {
    (void)finish(fixture, op);
    if (op->result.outcome != outcome || op->result.code != code) {
        print_error("got %s %s: %s\n", holdfast_outcome_name(op->result.outcome), holdfast_code_name(op->result.code),
                    op->result.message);
    }
    assert_int_equal(op->result.outcome, outcome);
    assert_int_equal(op->result.code, code);
}

static inline void expect_ok(struct fixture *fixture, struct op *op) {
    expect(fixture, op, HOLDFAST_OK, HOLDFAST_CODE_OK);
}

static inline uint64_t applied(struct fixture *fixture) { return atomic_load(&fixture->cluster.applied); }

static inline struct fake_node *node(struct fixture *fixture, unsigned index) { return &fixture->cluster.nodes[index]; }

static inline void set_fault(struct fake_node *of, enum fake_fault fault, uint32_t count) {
    atomic_store(&of->fault_count, count);
    atomic_store(&of->fault, fault);
}

#endif
