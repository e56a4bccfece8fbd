/*
 * Changes of membership asked of whole nodes in the simulator, for tests of them. One thread.
 */
#ifndef HOLDFAST_TESTS_MEMBER_PROBE_H
#define HOLDFAST_TESTS_MEMBER_PROBE_H

#include "tests/unit/node_probe.h"

enum { CHANGE_TIMEOUT_US = 5 * 1000 * 1000, LONG_US = 4 * 1000 * 1000 };

struct asked_change {
    struct replica *replica;
    struct consensus_change change;
    struct env_message message;
    bool is_done;
};

static inline void change_done(struct consensus_change *change) {
    CONTAINER_OF(change, struct asked_change, change)->is_done = true;
}

static inline void run_change(struct env_message *message) {
    struct asked_change *asked = CONTAINER_OF(message, struct asked_change, message);
    consensus_change(replica__consensus(asked->replica), &asked->change);
    assert_false(asked->is_done); /* never from inside */
}

/* Filled in but for what is asked. */
static inline struct asked_change *prepare(struct replica *replica) {
    struct asked_change *asked = calloc(1, sizeof *asked);
    assert_non_null(asked);
    asked->replica = replica;
    asked->change.done = change_done;
    asked->message.run = run_change;
    return asked;
}

static inline void begin_change(struct asked_change *asked) {
    asked->change.deadline_us = env_clock_us(asked->replica->env) + CHANGE_TIMEOUT_US;
    env_post(asked->replica->loop, &asked->message);
}

static inline struct consensus_change await_change(struct asked_change *asked) {
    struct cluster *cluster = asked->replica->cluster;
    uint64_t end_us = sim_now_us(cluster->sim) + 2ull * CHANGE_TIMEOUT_US;
    while (!asked->is_done && sim_now_us(cluster->sim) < end_us) {
        step(cluster);
    }
    assert_true(asked->is_done);
    struct consensus_change change = asked->change;
    free(asked);
    return change;
}

static inline struct raft_change adding(const struct replica *replica) {
    const struct config_member *self = config_member_by_id(&replica->config, replica->config.id);
    return (struct raft_change){.type = RAFT_CHANGE_ADD_LEARNER,
                                .id = self->id,
                                .name = self->name,
                                .address = self->peer_address,
                                .client_address = self->client_address,
                                .thumbprint = self->thumbprint};
}

static inline struct consensus_change change_at(struct replica *replica, struct raft_change part) {
    struct asked_change *asked = prepare(replica);
    asked->change.changes[0] = part;
    asked->change.change_count = 1;
    begin_change(asked);
    return await_change(asked);
}

/* Whether the new member is there or not. */
static inline struct consensus_change change_untried(struct replica *replica, struct raft_change part) {
    struct asked_change *asked = prepare(replica);
    asked->change.changes[0] = part;
    asked->change.unreachable_too[0] = true;
    asked->change.change_count = 1;
    begin_change(asked);
    return await_change(asked);
}

static inline struct consensus_change change_one(struct cluster *cluster, enum raft_change_type type, uint64_t id) {
    return change_at(leader_of(cluster), (struct raft_change){.type = type, .id = id});
}

static inline void must(struct consensus_change change) {
    if (change.status != STATUS_OK) {
        print_error("%s: %s\n", status_name(change.status), change.err.message);
    }
    assert_int_equal(change.status, STATUS_OK);
    assert_false(change.unknown);
}

static inline void must_refuse(struct consensus_change change, enum raft_refusal refusal) {
    assert_int_equal(change.status, STATUS_CONDITION);
    assert_false(change.unknown);
    assert_int_equal(change.refusal, refusal);
    assert_string_equal(change.err.message, raft_refusal_text(refusal));
}

static inline struct consensus_change transfer(struct cluster *cluster, uint64_t target) {
    struct asked_change *asked = prepare(leader_of(cluster));
    asked->change.is_transfer = true;
    asked->change.target = target;
    begin_change(asked);
    return await_change(asked);
}

static inline const struct consensus_member_status *member_of(const struct consensus_status *status, uint64_t id) {
    for (uint32_t i = 0; i < status->member_count; i++) {
        if (status->members[i].id == id) {
            return &status->members[i];
        }
    }
    return NULL;
}

static inline void await_leader(struct cluster *cluster) {
    uint64_t end_us = sim_now_us(cluster->sim) + LONG_US;
    do {
        step(cluster);
    } while (leader_or_none(cluster) == NULL && sim_now_us(cluster->sim) < end_us);
}

static inline void write_until_flushed(struct probe *probe) {
    uint64_t flushed_index = ask_status(leader_of(probe->cluster)).flushed_index;
    for (uint32_t i = 0; i < 60; i++) {
        (void)put(probe, "key", "x", VALUE_BYTES);
    }
    pass(probe->cluster, SETTLE_US);
    assert_true(ask_status(leader_of(probe->cluster)).flushed_index > flushed_index);
}

#endif
