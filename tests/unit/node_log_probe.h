/*
 * A node's log as it explains it, and writes that fill it: beside node_probe.h, for tests of what the log keeps.
 */
#ifndef HOLDFAST_TESTS_NODE_LOG_PROBE_H
#define HOLDFAST_TESTS_NODE_LOG_PROBE_H

#include "tests/unit/node_probe.h"

struct asked_log {
    struct consensus_log_query query;
    bool is_done;
};

static inline void log_done(struct consensus_log_query *query) {
    CONTAINER_OF(query, struct asked_log, query)->is_done = true;
}

static inline struct asked_log *ask_log(struct replica *replica) {
    struct asked_log *asked = calloc(1, sizeof *asked);
    assert_non_null(asked);
    asked->query.loop = replica->loop;
    asked->query.done = log_done;
    consensus_explain_log(replica__consensus(replica), &asked->query);
    while (!asked->is_done) {
        step(replica->cluster);
    }
    assert_int_equal(asked->query.status, STATUS_OK);
    return asked;
}

static inline void forget_log(struct replica *replica, struct asked_log *asked) {
    mem_free(replica->env->alloc, asked->query.segments);
    free(asked);
}

static inline const struct consensus_log_pin *pin_of(const struct asked_log *asked, const char *owner) {
    for (uint32_t i = 0; i < asked->query.pin_count; i++) {
        if (strcmp(asked->query.pins[i].owner, owner) == 0) {
            return &asked->query.pins[i];
        }
    }
    return NULL;
}

/* Each put takes 12 KiB of the log. */
static inline void put_many(struct probe *probe, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "key%02u", i % 50);
        (void)put(probe, key, "x", VALUE_BYTES);
    }
}

#endif
