/*
 * Which configuration a replica uses (DESIGN rule 17): the newest in its log, committed or not, else the newest that
 * was committed before its log begins. Judged by the entries that leaders were seen to append, whenever a replica
 * starts, its log is cut, or it says that it uses another one. So a configuration that was cut doesn't come back with a
 * restart, nor is one forgotten whose entry was trimmed.
 *
 * A log that has to heal says nothing: what it lost may be what its replica goes by.
 */
#include "tests/sim/cluster.h"

#include "node/base/checksum.h"
#include "raft/raft_internal.h"

#include <inttypes.h>

/* 0: of a node that waits to be added. */
static uint64_t sum_of(const struct raft_config *config) {
    uint8_t bytes[RAFT_CONFIG_BYTES_MAX];
    return config->member_count > 0 ? checksum64(bytes, raft_config_encode(config, bytes), 0) : 0;
}

static bool was_committed(const struct cluster *cluster, const struct seen_config *config) {
    return config->index < cluster->committed_capacity && cluster->committed_terms[config->index] == config->term;
}

/* What is seen first at (index, term) is what it is. Before the log begins only what is committed is known. */
static void note(struct cluster *cluster, const struct replica *replica, const struct raft *raft) {
    struct seen_config seen = {.index = raft->config_index,
                               .term = raft_term_at(raft, raft->config_index),
                               .sum = sum_of(&raft->config)};
    for (uint32_t i = 0; i < cluster->seen_config_count; i++) {
        const struct seen_config *other = &cluster->seen_configs[i];
        bool is_it =
            other->index == seen.index && (seen.term != 0 ? other->term == seen.term : was_committed(cluster, other));
        if (is_it && other->sum != seen.sum) {
            cluster__fail(cluster, "%s uses another configuration of entry %" PRIu64 " than whoever wrote it",
                          replica->config.name, seen.index);
        }
        if (is_it) {
            return;
        }
    }
    if (seen.index > 0 && seen.term > 0) {
        CHECK(cluster->seen_config_count < SEEN_CONFIGS_MAX);
        cluster->seen_configs[cluster->seen_config_count++] = seen;
    }
}

static bool has(const struct cluster *cluster, const struct raft *raft, const struct seen_config *config) {
    if (config->index < raft_first_index(raft)) {
        return was_committed(cluster, config);
    }
    return config->index <= raft_last_index(raft) && raft_term_at(raft, config->index) == config->term;
}

void members__check(struct replica *replica, const struct raft *raft) {
    struct cluster *cluster = replica->cluster;
    bool is_same = raft->config_index == replica->config_index && raft->log.last_index >= replica->last_index &&
                   replica->config_life == replica->lives;
    replica->last_index = raft->log.last_index;
    if (is_same || raft->heal_index > 0) {
        return;
    }
    replica->config_index = raft->config_index;
    replica->config_life = replica->lives;
    note(cluster, replica, raft);
    uint64_t newest = 0;
    for (uint32_t i = 0; i < cluster->seen_config_count; i++) {
        const struct seen_config *seen = &cluster->seen_configs[i];
        newest = seen->index > newest && has(cluster, raft, seen) ? seen->index : newest;
    }
    if (raft->config_index != newest) {
        cluster__fail(cluster,
                      "%s uses the configuration of entry %" PRIu64 ", but its log's newest is of entry %" PRIu64,
                      replica->config.name, raft->config_index, newest);
    }
}
