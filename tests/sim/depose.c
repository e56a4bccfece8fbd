/*
 * A leader that doesn't know that it is none: in the seeds with clients that stick to nodes (workload.c), the leader is
 * now and then cut off from its peers while its clock runs at about half the speed. The others elect a new one before
 * it notices that nobody follows it; meanwhile clients read at the one and write at the other. Nothing may depend on
 * clocks here but how long the others wait, so no read may be old.
 *
 * It stands in the plan; only who leads is known when it happens.
 */
#include "tests/sim/cluster.h"

#include "raft/raft_internal.h"

enum {
    FIRST_US = 600 * 1000,
    GAP_US_MIN = 600 * 1000,
    GAP_US_MAX = 1800 * 1000,
    LASTS_US_MIN = 300 * 1000,
    LASTS_US_MAX = 600 * 1000,
    SLOW_PPM = -450 * 1000
};

static void set_links(struct replica *replica, bool up) {
    struct cluster *cluster = replica->cluster;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        if (i != replica->number) {
            sim_link_set(replica->sim_node, cluster->replicas[i].sim_node, up);
            sim_link_set(cluster->replicas[i].sim_node, replica->sim_node, up);
        }
    }
}

static struct replica *leader_of(struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
        if (consensus != NULL && !consensus__is_dead(consensus) && raft_role(consensus->raft) == RAFT_LEADER) {
            return &cluster->replicas[i];
        }
    }
    return NULL;
}

struct replica *depose__begin(struct cluster *cluster) {
    struct replica *leader = leader_of(cluster);
    if (leader != NULL) {
        set_links(leader, false);
        sim_node_set_clock_drift(leader->sim_node, SLOW_PPM);
        cluster->stats.deposed++;
    }
    return leader;
}

void depose__end(struct replica *replica) {
    set_links(replica, true);
    sim_node_set_clock_drift(replica->sim_node, replica->drift_ppm);
}

void depose__schedule(struct cluster *cluster, uint64_t end_us) {
    struct random *random = &cluster->random;
    uint64_t at_us = FIRST_US + random_below(random, FIRST_US);
    while (cluster_has_drift(cluster) && at_us < end_us) {
        uint64_t lasts_us = LASTS_US_MIN + random_below(random, LASTS_US_MAX - LASTS_US_MIN);
        plan__add_leader_cut(cluster, at_us, lasts_us);
        at_us += lasts_us + GAP_US_MIN + random_below(random, GAP_US_MAX - GAP_US_MIN);
    }
}
