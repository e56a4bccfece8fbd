/*
 * A follower that only a snapshot brings back, in a simulated cluster: how it gets so far behind, how far its transfer
 * is, and whether all nodes show the same in the end. One thread.
 */
#ifndef HOLDFAST_TESTS_SNAPSHOT_FIXTURE_H
#define HOLDFAST_TESTS_SNAPSHOT_FIXTURE_H

#include "node/base/bytes.h"
#include "node/base/checksum.h"
#include "node/base/random.h"
#include "node/server/snapshot_internal.h"
#include "storage/storage_internal.h"
#include "tests/unit/content.h"
#include "tests/unit/node_log_probe.h"

enum { BUDGET_BYTES = 384 * 1024, SECOND_US = 1000 * 1000, SLOW_RATE = 400 * 1000 };

static inline struct probe *start(void (*configure)(struct config *config)) {
    return probe_start(cluster_new(2), configure); /* three replicas, no drift */
}

static inline void configure(struct config *config) {
    config->follower_log_bytes = BUDGET_BYTES;
    config->snapshot_rate = 0;
}

static inline void configure_slow(struct config *config) {
    configure(config);
    config->snapshot_rate = SLOW_RATE;
}

/* As put_many, but with bytes that don't compress. */
static inline void fill(struct probe *probe, uint32_t count) {
    static uint8_t value[VALUE_BYTES];
    static uint64_t seed;
    struct random random;
    random_seed(&random, ++seed);
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "key%02u", i % 50);
        for (size_t k = 0; k < sizeof value; k += 8) {
            put_u64(value + k, random_next(&random));
        }
        client_request_init(&probe->request, CLIENT_PUT, probe_done);
        probe->request.key = slice_of_string(key);
        probe->request.value = slice_of(value, sizeof value);
        (void)run(probe);
        assert_int_equal(probe->result.outcome, HOLDFAST_OK);
    }
}

/* Until the leader's log begins behind what somebody had. */
static inline void write_past(struct probe *probe, uint64_t had_index) {
    uint64_t begin_us = sim_now_us(probe->cluster->sim);
    while (ask_status(leader_of(probe->cluster)).first_index <= had_index + 1) {
        assert_true(sim_now_us(probe->cluster->sim) < begin_us + PATIENCE_US);
        fill(probe, 20);
        pass(probe->cluster, SECOND_US / 5);
    }
}

/* A follower that is down, and that the leader's log can't bring up to date any more. */
static inline struct replica *leave_behind(struct probe *probe) {
    struct cluster *cluster = probe->cluster;
    fill(probe, 20);
    struct replica *away = follower_of(cluster);
    replica__crash(away, SIM_CRASH_PROCESS);
    uint64_t had_index = ask_status(leader_of(cluster)).last_index;
    write_past(probe, had_index);
    return away;
}

static inline void start_replica(struct replica *replica) {
    replica__schedule_restart(replica, 1000);
    while (!replica->serving) {
        step(replica->cluster);
    }
}

static inline struct snapshot_receive *receive_of(const struct replica *replica) {
    struct consensus *consensus = replica__consensus(replica);
    return consensus != NULL ? &consensus->snapshots->receive : NULL;
}

static inline bool receives(const struct replica *replica, uint64_t bytes) {
    const struct snapshot_receive *receive = receive_of(replica);
    return receive != NULL && receive->state == SNAPSHOT_RECEIVE_BYTES && receive->arrived_bytes >= bytes;
}

static inline void await_bytes(const struct replica *replica, uint64_t bytes) {
    uint64_t end_us = sim_now_us(replica->cluster->sim) + PATIENCE_US;
    while (!receives(replica, bytes) && sim_now_us(replica->cluster->sim) < end_us) {
        step(replica->cluster);
    }
    assert_true(receives(replica, bytes));
}

/* False: it is taking too long. */
static inline bool goes_on(struct cluster *cluster, uint64_t begin_us) {
    step(cluster);
    return sim_now_us(cluster->sim) < begin_us + PATIENCE_US;
}

static inline bool is_level(struct cluster *cluster) { return checker__converged(cluster); }

static inline void await_level(struct cluster *cluster) {
    uint64_t end_us = sim_now_us(cluster->sim) + 3 * PATIENCE_US;
    while (!is_level(cluster) && sim_now_us(cluster->sim) < end_us) {
        step(cluster);
    }
    if (!is_level(cluster)) {
        cluster_print_failure(cluster);
    }
    assert_true(is_level(cluster));
}

/* All replicas show the same pairs; nothing of a transfer is left. */
static inline void assert_same(struct cluster *cluster) {
    await_level(cluster);
    pass(cluster, SECOND_US);
    uint64_t content = content_of(replica__consensus(&cluster->replicas[0])->storage);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        assert_true(content_of(replica__consensus(&cluster->replicas[i])->storage) == content);
        struct snapshots_status status = ask_status(&cluster->replicas[i]).snapshots;
        assert_int_equal(status.transfer_count, 0);
    }
}

static inline const struct snapshot_send *send_to(const struct replica *leader, const struct replica *peer) {
    const struct snapshots *snapshots = replica__consensus(leader)->snapshots;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (snapshots->sends[i].peer == peer->number + 1u) {
            return &snapshots->sends[i];
        }
    }
    fail_msg("%s sends nothing to %s", leader->config.name, peer->config.name);
    return NULL;
}

static inline bool is_about_to_switch(const struct replica *replica) {
    const struct snapshot_receive *receive = receive_of(replica);
    return receive != NULL && receive->holds_log;
}

#endif
