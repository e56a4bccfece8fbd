/*
 * Three whole nodes in the simulator, driven from a test: step by step, with puts that are proposed to whoever leads.
 * No faults but those that the test makes. The simulator's checker looks on only if the test says so.
 */
#ifndef HOLDFAST_TESTS_NODES_FIXTURE_H
#define HOLDFAST_TESTS_NODES_FIXTURE_H

#include "storage/storage_internal.h"
#include "tests/sim/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEED = 2, SETTLE_US = 2 * 1000 * 1000, PATIENCE_US = 20 * 1000 * 1000 };

static struct cluster *cluster;
static bool with_checker;

static inline void step(void) {
    assert_true(sim_step(cluster->sim));
    if (with_checker) {
        checker__step(cluster);
    }
}

static inline void pass(uint64_t us) {
    uint64_t end_us = sim_now_us(cluster->sim) + us;
    while (sim_now_us(cluster->sim) < end_us) {
        step();
    }
}

/* configure NULL: as the simulator configures them. scrubs: they look for damage, which is most of the time that it all
 * takes. */
static inline void nodes_start_with(void (*configure)(struct config *config), bool scrubs) {
    cluster = cluster_new(SEED);
    assert_int_equal(cluster->replica_count, 3);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct config *config = &cluster->replicas[i].config;
        config->scrub_rate = scrubs ? config->scrub_rate : 0;
        if (configure != NULL) {
            configure(config);
        }
    }
    with_checker = false;
    pass(SETTLE_US);
}

static inline void nodes_start(void (*configure)(struct config *config)) { nodes_start_with(configure, false); }

static inline struct consensus *consensus_of(uint32_t number) {
    struct consensus *consensus = replica__consensus(&cluster->replicas[number]);
    assert_non_null(consensus);
    return consensus;
}

static inline uint32_t leader(void) {
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    while (sim_now_us(cluster->sim) < end_us) {
        for (uint32_t i = 0; i < cluster->replica_count; i++) {
            const struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
            if (consensus != NULL && consensus->role == RAFT_LEADER) {
                return i;
            }
        }
        step();
    }
    fail_msg("there is no leader");
    return 0;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

struct write {
    struct env_message message;
    struct consensus *consensus;
    struct consensus_proposal proposal;
    bool is_done;
};

static inline void write_done(struct consensus_proposal *proposal) {
    CONTAINER_OF(proposal, struct write, proposal)->is_done = true;
}

static inline void write_begin(struct env_message *message) {
    struct write *write = CONTAINER_OF(message, struct write, message);
    consensus_propose(write->consensus, &write->proposal);
}

/* One put at whoever leads; tried again if he doesn't lead any more. */
static inline void put(const char *key) {
    struct batch_operation operation = {BATCH_PUT, slice_of_string(key), slice_of_string("value")};
    for (unsigned attempt = 0; attempt < 20; attempt++) {
        uint32_t number = leader();
        struct replica *replica = &cluster->replicas[number];
        struct write write = {.message = {.run = write_begin},
                              .consensus = consensus_of(number),
                              .proposal = {.loop = replica->loop,
                                           .operations = &operation,
                                           .operation_count = 1,
                                           .deadline_us = env_clock_us(replica->env) + SETTLE_US,
                                           .done = write_done}};
        env_post(replica->loop, &write.message);
        while (!write.is_done) {
            step();
        }
        if (write.proposal.status == STATUS_OK) {
            return;
        }
        pass(100 * 1000);
    }
    fail_msg("nothing can be written");
}

static inline void put_some(uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "key%u", i);
        put(key);
    }
}

/* Of the newest lines that the node logged. */
static inline bool log_has(uint32_t number, const char *words) {
    const struct replica *replica = &cluster->replicas[number];
    for (uint32_t i = 0; i < LOG_LINES_KEPT; i++) {
        if (strstr(replica->log_lines[i], words) != NULL) {
            return true;
        }
    }
    return false;
}

#endif
