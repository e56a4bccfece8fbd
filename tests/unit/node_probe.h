/*
 * A client of a simulated cluster, with one request at a time, for tests that look at whole nodes: steps with the
 * checker looking on, requests that must succeed, status of one node.
 */
#ifndef HOLDFAST_TESTS_NODE_PROBE_H
#define HOLDFAST_TESTS_NODE_PROBE_H

#include "tests/sim/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PROBE_TIMEOUT_MS = 5000, VALUE_BYTES = 8000, PATIENCE_US = 20 * 1000 * 1000, SETTLE_US = 2 * 1000 * 1000 };

/* A client with one request at a time, made by the test between the simulator's steps. */
struct probe {
    struct cluster *cluster;
    struct sim_node *node;
    struct env_loop *loop;
    struct client_core *core;
    struct client_request request;
    struct env_message message;
    bool is_busy;
    struct holdfast_result result;
    char value[32]; /* its first bytes */
};

static inline void probe_done(struct client_request *request, struct client_answer *answer) {
    struct probe *probe = CONTAINER_OF(request, struct probe, request);
    size_t len = answer->value.len < sizeof probe->value - 1 ? answer->value.len : sizeof probe->value - 1;
    memset(probe->value, 0, sizeof probe->value);
    if (len > 0) {
        memcpy(probe->value, answer->value.data, len);
    }
    probe->result = answer->result;
    probe->is_busy = false;
}

static inline void probe_submit(struct env_message *message) {
    struct probe *probe = CONTAINER_OF(message, struct probe, message);
    CHECK(client_core_submit(probe->core, &probe->request) == HOLDFAST_CODE_OK);
}

static inline void probe_main(void *context, struct env *env) {
    struct probe *probe = context;
    struct error error;
    struct client_options options;
    client_options_init(&options);
    for (uint32_t i = 0; i < probe->cluster->replica_count; i++) {
        CHECK(client_options_add_endpoints(&options, probe->cluster->replicas[i].config.client_listen, &error) ==
              STATUS_OK);
    }
    options.timeout_ms = PROBE_TIMEOUT_MS;
    CHECK(env_loop_new(env, "probe", 64, &probe->loop, &error) == STATUS_OK);
    CHECK(client_core_new(env, probe->loop, sim_transport(env), &options, &probe->core) == STATUS_OK);
    env_loop_run(probe->loop);
}

static inline void step(struct cluster *cluster) {
    assert_true(sim_step(cluster->sim));
    checker__step(cluster);
    if (cluster__has_failed(cluster)) {
        cluster_print_failure(cluster);
        fail();
    }
}

static inline void pass(struct cluster *cluster, uint64_t us) {
    uint64_t end_us = sim_now_us(cluster->sim) + us;
    while (sim_now_us(cluster->sim) < end_us) {
        step(cluster);
    }
}

/* Takes the cluster, which hasn't begun yet. */
static inline struct probe *probe_start(struct cluster *cluster, void (*configure)(struct config *config)) {
    struct probe *probe = calloc(1, sizeof *probe);
    assert_non_null(probe);
    probe->cluster = cluster;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        cluster->replicas[i].config.scrub_rate =
            0; /* looks for what nobody damaged, for most of the time it all takes */
        configure(&cluster->replicas[i].config);
    }
    struct sim_node_options options;
    sim_node_options_init(&options, "clients"); /* whose certificate the nodes know */
    options.main = probe_main;
    options.context = probe;
    probe->node = sim_node_new(cluster->sim, &options);
    sim_node_start(probe->node);
    pass(cluster, SETTLE_US);
    return probe;
}

static inline void end(struct probe *probe) {
    cluster_free(probe->cluster);
    free(probe);
}

/* Returns the microseconds that it took. */
static inline uint64_t run(struct probe *probe) {
    uint64_t begin_us = sim_now_us(probe->cluster->sim);
    probe->is_busy = true;
    probe->message.run = probe_submit;
    env_post(probe->loop, &probe->message);
    while (probe->is_busy && sim_now_us(probe->cluster->sim) < begin_us + PATIENCE_US) {
        step(probe->cluster);
    }
    assert_false(probe->is_busy);
    return sim_now_us(probe->cluster->sim) - begin_us;
}

static inline uint64_t put(struct probe *probe, const char *key, const char *text, size_t len) {
    static uint8_t value[VALUE_BYTES];
    assert_true(len <= sizeof value && len >= strlen(text));
    memset(value, '.', sizeof value);
    memcpy(value, text, strlen(text));
    client_request_init(&probe->request, CLIENT_PUT, probe_done);
    probe->request.key = slice_of_string(key);
    probe->request.value = slice_of(value, len);
    uint64_t took_us = run(probe);
    if (probe->result.outcome != HOLDFAST_OK) {
        print_error("put %s: %s\n", key, probe->result.message);
    }
    assert_int_equal(probe->result.outcome, HOLDFAST_OK);
    return took_us;
}

static inline enum holdfast_code get_at(struct probe *probe, const char *key, uint64_t revision) {
    client_request_init(&probe->request, CLIENT_GET, probe_done);
    probe->request.key = slice_of_string(key);
    probe->request.read.revision = revision;
    (void)run(probe);
    return probe->result.code;
}

/* NULL: nobody leads. */
static inline struct replica *leader_or_none(struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        const struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
        if (consensus != NULL && consensus->role == RAFT_LEADER) {
            return &cluster->replicas[i];
        }
    }
    return NULL;
}

static inline struct replica *leader_of(struct cluster *cluster) {
    struct replica *leader = leader_or_none(cluster);
    if (leader == NULL) {
        fail_msg("there is no leader");
    }
    return leader;
}

static inline struct replica *follower_of(struct cluster *cluster) {
    const struct replica *leader = leader_of(cluster);
    return &cluster->replicas[(leader->number + 1) % cluster->replica_count];
}

/* From all others, both ways, until it is done again with `up`. */
static inline void isolate(struct cluster *cluster, const struct replica *replica, bool up) {
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        if (i != replica->number) {
            sim_link_set(replica->sim_node, cluster->replicas[i].sim_node, up);
            sim_link_set(cluster->replicas[i].sim_node, replica->sim_node, up);
        }
    }
}

/* What an admin asks for to have it as a learner. */
static inline struct holdfast_member_change adding_of(const struct replica *replica) {
    const struct config_member *self = config_member_by_id(&replica->config, replica->config.id);
    return (struct holdfast_member_change){.action = HOLDFAST_MEMBER_ADD,
                                           .id = self->id,
                                           .name = self->name,
                                           .peer_address = self->peer_address,
                                           .client_address = self->client_address,
                                           .thumbprint = self->thumbprint};
}

static inline enum holdfast_code change_member(struct probe *probe, const struct holdfast_member_change *part) {
    client_request_init(&probe->request, CLIENT_CHANGE_MEMBERS, probe_done);
    probe->request.changes = part;
    probe->request.change_count = 1;
    (void)run(probe);
    return probe->result.code;
}

static inline enum holdfast_outcome transfer_lead(struct probe *probe, uint64_t target) {
    client_request_init(&probe->request, CLIENT_TRANSFER_LEADER, probe_done);
    probe->request.transfer_target = target;
    (void)run(probe);
    return probe->result.outcome;
}

struct asked_status {
    struct consensus_status_query query;
    bool is_done;
};

static inline void status_done(struct consensus_status_query *query) {
    CONTAINER_OF(query, struct asked_status, query)->is_done = true;
}

static inline struct consensus_status ask_status(struct replica *replica) {
    struct asked_status asked = {.query = {.loop = replica->loop, .done = status_done}};
    consensus_query_status(replica__consensus(replica), &asked.query);
    while (!asked.is_done) {
        step(replica->cluster);
    }
    return asked.query.status;
}

#endif
