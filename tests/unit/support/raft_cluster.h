/*
 * A random cluster of raft cores (test_raft_cluster.c), and what must hold after every step of a node
 * (raft_cluster_rules.c). Everything is a function of the seed. One thread.
 */
#ifndef HOLDFAST_TESTS_RAFT_CLUSTER_H
#define HOLDFAST_TESTS_RAFT_CLUSTER_H

#include "node/base/random.h"
#include "tests/unit/support/raft_node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum {
    NODES_MAX = 7,
    TRANSFERS_MAX = 16,
    PACKETS_MAX = 600,
    TERMS_MAX = 4096,
    INDEXES_MAX = 8192,
    READS_MAX = 64,
    ELECTION_US = 100 * 1000,
    HEARTBEAT_US = 20 * 1000
};

/* What the whole cluster ever agreed on. */
struct committed {
    uint64_t term;
    uint64_t value;
};

/* An entry that was ever in any log, in a hash table by (index, term). */
struct known_entry {
    uint64_t index;
    uint64_t term;
    uint64_t value;
    uint64_t previous_term;
};

struct waiting_read {
    uint64_t round;
    uint64_t committed_before;
};

struct member {
    struct raft_node node; /* of one id, until it was removed and something new has its place */
    enum raft_role role;
    uint64_t seen_commit;
    uint32_t disk_every; /* a group completes with chance 1 in this */
    uint64_t restart_at_us;
    uint64_t paused_until_us; /* the process stands still, and may find reads before it notices the time */
    struct waiting_read reads[READS_MAX];
    uint32_t read_count;
    struct raft_config seen_config;
    uint64_t seen_config_index;
    uint64_t fenced_until_us; /* 0: it isn't */
};

/* A snapshot on its way. */
struct transfer {
    uint64_t from;
    uint64_t to;
    uint64_t due_us;
    uint64_t term; /* of the sender */
};

struct cluster {
    struct trace *trace; /* or NULL */
    uint64_t seed;
    struct random random;
    uint32_t count;
    uint64_t now_us;
    uint64_t next_value;
    bool calm;
    bool changing; /* the membership changes */
    struct raft_options options;
    uint64_t newest_id;   /* of all nodes that ever were */
    uint32_t links_every; /* how often links change and nodes crash: chance 1 in this, per turn */
    uint32_t crash_every;
    bool link[NODES_MAX][NODES_MAX];
    struct member members[NODES_MAX];
    struct raft_packet *packets[PACKETS_MAX];
    uint32_t packet_count;
    uint64_t leader_of_term[TERMS_MAX];
    struct committed committed[INDEXES_MAX];
    uint64_t committed_index;
    struct known_entry known[INDEXES_MAX * 4];
    uint32_t elections;
    uint32_t reads_answered;
    uint32_t crashes;
    struct transfer transfers[TRANSFERS_MAX];
    uint32_t transfer_count;
    uint32_t changes;
    uint32_t refusals;
    uint32_t replaced; /* new nodes on machines of removed ones */
    uint32_t handovers;
    uint32_t installs;
    uint32_t reads_from_afar;
};

#define EXPECT(cluster, condition)                                                                                     \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fail_msg("seed %llu, %u nodes, %llu us: %s", (unsigned long long)(cluster)->seed, (cluster)->count,        \
                     (unsigned long long)(cluster)->now_us, #condition);                                               \
        }                                                                                                              \
    } while (0)

static inline uint64_t cluster_below(struct cluster *cluster, uint64_t bound) {
    return random_below(&cluster->random, bound);
}

/* NULL: it was removed, and is gone. */
static inline struct member *cluster_member_of(struct cluster *cluster, uint64_t id) {
    for (uint32_t i = 0; i < cluster->count; i++) {
        if (cluster->members[i].node.id == id) {
            return &cluster->members[i];
        }
    }
    return NULL;
}

/* What comes late from a node that is gone arrives. */
static inline bool cluster_is_linked(struct cluster *cluster, uint64_t from, uint64_t to) {
    const struct member *a = cluster_member_of(cluster, from);
    const struct member *b = cluster_member_of(cluster, to);
    return b != NULL && (a == NULL || cluster->link[a - cluster->members][b - cluster->members]);
}

/* ---- raft_cluster_rules.c --------------------------------------------------------------------------------------- */

/* After a step of the member, or a start: what it may be, has and said. Takes note of the snapshots that it owes. */
void cluster_check_member(struct cluster *cluster, struct member *member);
/* From the entry `first` on, its log is what others' logs were there. */
void cluster_check_log_matching(struct cluster *cluster, const struct member *member, uint64_t first);
/* Nothing leaves before what it depends on is on disk. */
void cluster_check_departure(struct cluster *cluster, const struct raft_message *message);
/* The configuration that is effective before the next step. */
void cluster_note_config(struct member *member);

#endif
