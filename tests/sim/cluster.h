/*
 * A whole cluster in the simulator: replicas that run the production node (raft, storage, proto, server), clients that
 * run the production session core, faults by a plan from the seed, and a checker that looks on after every step.
 *
 *   cluster_new -> cluster_run -> (cluster_failure) -> cluster_free
 *
 * cluster.c    replicas: configuration, start, restart
 * workload.c   clients, and what a read may see
 * linearizable.c  ... and whether one order explains all that they saw
 * checker.c    invariants after every step, and of the end
 * members.c    ... and of the membership that each uses
 * matching.c   ... of logs as they change
 * accounting.c what nodes do to their files
 * plan.c       faults
 * depose.c     ... and leaders that are cut off, for clients that stick to them
 * damage.c     ... of logs
 * rot.c        ... of stores
 * operator.c   changes of membership
 * reduce.c     a failing seed with as few faults as it needs
 * main.c       seeds, processes, the table
 *
 * Everything is a function of (seed, this code). One thread.
 */
#ifndef HOLDFAST_SIM_CLUSTER_H
#define HOLDFAST_SIM_CLUSTER_H

#include "node/base/random.h"
#include "node/server/consensus_internal.h"
#include "node/server/node.h"
#include "proto/client/client_internal.h"
#include "tests/sim/matching.h"
#include "tests/sim/sim.h"
#include "tests/sim/trace.h"

enum {
    REPLICAS_MAX = 5,
    CLIENTS_MAX = 6,
    CLIENTS_ALL_MAX = CLIENTS_MAX + 2 * REPLICAS_MAX, /* with those that stick to a node */
    SHARED_KEYS = 3,
    KEYS_PER_CLIENT = 3,
    KEYS_MAX = CLIENTS_MAX * KEYS_PER_CLIENT,
    LOG_LINES_KEPT = 60,
    FAILURE_BYTES = 512,
    CLUSTER_DISK_BYTES = 256 * MIB,
    NUMBERS_MAX = 4096, /* of one key, that are remembered in full */
    PLAN_KINDS_MAX = 32,
    SEEN_CONFIGS_MAX = 1024,
    PLAN_FAULTS_MAX = 512 /* that a seed's plan may number */
};

/* One member, over all its lives. */
struct replica {
    struct cluster *cluster;
    uint32_t number; /* 0-based; its node id is number + 1 */
    struct config config;
    struct sim_node *sim_node;
    int32_t drift_ppm; /* of its clock, as a rule */
    struct logger logger;
    char log_lines[LOG_LINES_KEPT][256];
    uint64_t log_count;

    /* The present life; NULL and 0 while it is down. */
    struct env *env;
    struct env_loop *loop;
    struct node *node;
    bool serving;
    struct env_message stop_message;
    uint64_t lives;
    bool restarting;       /* a restart is on schedule */
    bool log_was_damaged;  /* since its last start */
    bool log_may_heal;     /* it was damaged, and no life has begun without healing since */
    uint64_t rotten_inode; /* of the file that was changed last; 0: none was */
    char rotten_path[64];
    bool was_wiped;          /* since its last start */
    bool was_added;          /* a change that adds it was asked for once */
    bool fault_explains_end; /* an injected error may end this life: its end is no failure */

    /* What the checker remembers of it, over its lives. */
    uint64_t durable_term; /* newest that a completed group saved */
    uint64_t durable_vote;
    uint64_t incarnation;  /* of its log */
    uint64_t synced_index; /* of this life; at a restart, what must be there */
    uint64_t synced_term;  /* of the entry at synced_index */
    /* What it promised under the incarnation that the newest wipe ended. */
    struct {
        uint64_t incarnation;
        uint64_t term;
        uint64_t vote;
        uint64_t synced_index;
    } lost;
    bool must_check_start;
    uint64_t group_writes; /* of this life */
    uint64_t snapshots_sent;
    uint64_t snapshots_installed;
    uint64_t rebuilds;
    uint64_t scan_index; /* of the newest round of scans that it judged good */
    uint64_t term;
    uint64_t commit_index;
    uint64_t applied_index; /* as it is shown */
    bool was_leader;        /* of `term`, at the last look */
    uint64_t digest_index;  /* digests up to here were compared in this life */
    uint64_t config_index;  /* and last_index, in which life: at the last look at its membership */
    uint64_t last_index;
    uint64_t config_life;
    struct matching_log log; /* of this life */
};

/* A client with one operation outstanding. A key has one writer, whose writes of it are numbered. */
struct sim_client {
    struct cluster *cluster;
    uint32_t number;
    struct client_core *core;
    struct client_request request;
    struct env_timer timer; /* pause between operations */
    bool busy;
    bool is_pinned;  /* talks to one node only, whoever leads ... */
    bool only_reads; /* ... and only reads, or only writes */
    uint64_t serial; /* of its puts of shared keys */
    /* The operation under way. */
    bool is_shared;                    /* on a shared key */
    uint32_t key;                      /* the only one, or the first of a batch */
    uint64_t numbers[KEYS_PER_CLIENT]; /* what is written to key, key + 1, ... */
    uint32_t number_count;
    uint64_t floors[KEYS_MAX]; /* what a read must see at least, taken when it began */
    uint64_t revision_floor;   /* likewise */
    uint8_t key_bytes[16];
    uint8_t value_bytes[4096];
    uint32_t batch_kinds[KEYS_PER_CLIENT];
    uint32_t batch_key_lens[KEYS_PER_CLIENT];
    uint32_t batch_value_lens[KEYS_PER_CLIENT];
};

/* What is known of one key. */
struct key_truth {
    uint64_t begun;                   /* largest number whose write began */
    uint64_t floor;                   /* largest number acknowledged or seen */
    uint8_t deletes[NUMBERS_MAX / 8]; /* which numbers are deletes */
    uint8_t failed[NUMBERS_MAX / 8];  /* surely failed */
    uint64_t revisions[NUMBERS_MAX];  /* of what was acknowledged; 0: not known */
};

/* One change of membership at a time. */
struct sim_operator {
    struct consensus_change change;
    struct env_message message;
    struct replica *replica; /* who was asked, in which of its lives */
    struct replica *added;   /* by this change; NULL: nobody */
    uint64_t life;
    bool is_busy;
};

/* Which of a plan's faults are left out, by number. A fault keeps its number, time and course whatever else is. */
struct plan_mask {
    uint8_t left_out[PLAN_FAULTS_MAX / 8];
};

/* One fault of the plan, or a change of membership, for a report. */
struct plan_fault {
    uint64_t at_us;
    uint64_t lasts_us; /* 0: it has no end */
    uint32_t kind;
    uint32_t victim;
    uint32_t other;
    const char *what; /* particulars; NULL: there was nothing to do */
};

/* A configuration that was in some log. */
struct seen_config {
    uint64_t index;
    uint64_t term;
    uint64_t sum; /* of its bytes */
};

/* What a run's parent process wants to know, also of a run that dies: in shared memory. */
struct run_report {
    uint32_t fault_count; /* of the plan */
    uint64_t check;       /* which one failed; 0: none, or it died */
};

struct cluster_stats {
    uint64_t puts_ok;
    uint64_t puts_failed;
    uint64_t puts_unknown;
    uint64_t reads;
    uint64_t scans;
    uint64_t judged;    /* operations, by the linearizability checker */
    uint64_t undecided; /* groups of keys that it gave up */
    uint64_t entries;   /* committed */
    uint64_t elections;
    uint64_t crashes;
    uint64_t power_losses;
    uint64_t restarts;
    uint64_t partitions;
    uint64_t deposed; /* leaders that were cut off with a slow clock */
    uint64_t pauses;
    uint64_t stops;
    uint64_t resets;
    uint64_t disk_faults;
    uint64_t damaged_logs;
    uint64_t rotten_stores;
    uint64_t lost_stores;
    uint64_t rebuilds; /* of stores, that ended well */
    uint64_t wipes;
    uint64_t snapshots_sent;
    uint64_t snapshots_installed;
    uint64_t scans_agreed; /* rounds in which a majority's data were found equal */
    uint64_t changes;      /* of membership */
    uint64_t changes_failed;
    uint64_t transfers;
    uint64_t flushes;
    uint64_t adopted_bytes;
    uint64_t segments_deleted;
    uint64_t groups;
    uint64_t checks;
    uint64_t virtual_us;
    uint64_t steps;
    uint64_t faults[PLAN_KINDS_MAX]; /* begun, by kind */
};

struct cluster {
    struct sim *sim;
    struct trace *trace; /* NULL: nobody asked for it. Borrowed; set before the run */
    uint64_t seed;
    uint32_t replica_count;
    uint32_t founder_count; /* the first of them are members from the start, the others join */
    struct replica replicas[REPLICAS_MAX];
    struct sim_node *client_node;
    struct env_loop *client_loop;
    uint32_t client_count;
    struct sim_operator admin;
    uint32_t pinned_count;
    struct sim_client clients[CLIENTS_ALL_MAX]; /* client_count writers, then pinned_count */
    struct linearizable *judge;
    struct key_truth keys[KEYS_MAX];
    uint64_t revision_seen; /* newest that was acknowledged or shown */
    bool workload_on;
    uint64_t puts_ok_before; /* the end of the faults */
    struct random random;    /* the plan's and the workload's */

    /* Set before the run by who wants to: */
    const struct plan_mask *mask; /* NULL: all faults. Borrowed */
    struct run_report *report;    /* NULL: nobody asks. Borrowed */

    struct plan_fault plan[PLAN_FAULTS_MAX];
    uint32_t plan_count;
    struct planned *planned;   /* plan.c's own, by the same numbers */
    bool crashes_at_elections; /* who votes or campaigns may lose power at that moment */
    bool crashes_at_switches;  /* ... or who has switched its manifest, soon after */

    struct matching matching; /* of all logs, over all lives */
    /* The checker's: by index, what was committed there; by term, its leader. */
    uint64_t *committed_terms; /* of the entry at each index, 0: not committed */
    uint64_t committed_capacity;
    uint64_t *committed_in; /* the term of the leader that committed it */
    uint64_t committed_in_capacity;
    uint64_t committed_index;
    uint64_t *leaders;
    uint64_t leaders_capacity;
    struct seen_config seen_configs[SEEN_CONFIGS_MAX];
    uint32_t seen_config_count;
    uint64_t *digests[2]; /* by index: what its first applier's digest was there, low and high; both 0: nobody yet */
    uint64_t digests_capacity[2];

    struct cluster_stats stats;
    uint64_t state_digest;       /* of the final, equal states */
    char failure[FAILURE_BYTES]; /* empty while all is well */
    const char *failure_format;  /* the same, without its particulars */
};

/* ---- Running ---------------------------------------------------------------------------------------------------- */

struct cluster *cluster_new(uint64_t seed);
/* Of these replicas, the first are the members; the others run, and wait to be added. */
struct cluster *cluster_new_growing(uint64_t seed, uint32_t replica_count, uint32_t founder_count);
/* Workload and faults, then quiet, then the checks of the end. False: cluster->failure says what is wrong. */
bool cluster_run(struct cluster *cluster);
/* Seed, failure, the faults that were on, the last lines of each replica's log. */
void cluster_print_failure(const struct cluster *cluster);
void cluster_free(struct cluster *cluster);

/* Each replica has a clock speed of its own. */
static inline bool cluster_has_drift(const struct cluster *cluster) { return cluster->seed % 3 == 1; }
/* Most values are apart from the tree, and stay in segments of the log. */
static inline bool cluster_has_large_values(const struct cluster *cluster) { return cluster->seed % 3 == 1; }

/* ---- Between the files ------------------------------------------------------------------------------------------ */

/* The first failure stays. */
void cluster__fail(struct cluster *cluster, const char *format, ...) PRINTF_LIKE(2, 3);
static inline bool cluster__has_failed(const struct cluster *cluster) { return cluster->failure[0] != '\0'; }
/* NULL while it is down, recovering, or as good as stopped. */
struct consensus *replica__consensus(const struct replica *replica);
void replica__schedule_restart(struct replica *replica, uint64_t delay_us);
/* What SIGTERM does. False: it isn't serving. */
bool replica__stop(struct replica *replica);
void replica__crash(struct replica *replica, enum sim_crash crash);

void workload__start(struct cluster *cluster);
/* True when no operation is under way. */
bool workload__is_idle(const struct cluster *cluster);
/* The final state of one replica against what is known: every key's number. */
void workload__check_pair(struct cluster *cluster, const struct replica *replica, struct slice key, struct slice value,
                          uint64_t *seen_keys);
void workload__check_missing(struct cluster *cluster, const struct replica *replica, uint64_t seen_keys);

/* Who has keys of its own, and who sticks to a node. */
static inline uint32_t workload__client_count(const struct cluster *cluster) {
    return cluster->client_count + cluster->pinned_count;
}

/* After every step. */
void checker__step(struct cluster *cluster);
/* The configuration that a replica uses, by what its log holds. */
void members__check(struct replica *replica, const struct raft *raft);
/* A replica's life ended, or its node began to serve again. */
void checker__crashed(struct replica *replica);
/* After convergence: all replicas hold the same, and what they must. */
void checker__final(struct cluster *cluster);
bool checker__converged(void *context);

/* The simulator's trace; context is the cluster. */
void accounting__note(void *context, const struct sim_trace *trace);
/* Of a replica's present life. */
void accounting__final(struct cluster *cluster, const struct replica *replica);

/* Changes some bytes in the middle of a replica's log; it is down. False: it isn't the time for that. */
bool damage__log(struct replica *replica, struct random *random);
/* All others are up and whole. *ret_first: the oldest entry that each of them has. */
bool damage__others_are_whole(const struct cluster *cluster, const struct replica *replica, uint64_t *ret_first);
/* Changes some bytes of a replica's live files; it is up. False: it isn't the time for that. */
bool rot__store(struct replica *replica, struct random *random);
/* Changes its manifest; it is down. False likewise. */
bool rot__lose_store(struct replica *replica);
/* What was changed is still there. */
bool rot__is_rotten(const struct replica *replica);
/* Empties a replica's disk; it is down. False: it isn't the time for that. */
bool damage__wipe(struct replica *replica);
/* Into the plan: changes of membership until end_us, if there are nodes that wait to be added. */
void operator__schedule(struct cluster *cluster, uint64_t end_us);
/* Tries one. Returns what, or NULL if it isn't the time for any. */
const char *operator__act(struct cluster *cluster, struct random *random);
/* True while an answer is due. */
bool operator__is_waiting(const struct cluster *cluster);
/* Into the plan: leaders are cut off now and then until end_us, in seeds with clients that stick to nodes. */
void depose__schedule(struct cluster *cluster, uint64_t end_us);
/* Cuts the leader off, and returns it; NULL: nobody leads. */
struct replica *depose__begin(struct cluster *cluster);
void depose__end(struct replica *replica);

/* A replica's term changed. */
void plan__term_changed(struct replica *replica);
/* A replica's CURRENT was renamed. */
void plan__manifest_switched(struct replica *replica);
/* Puts this seed's faults on schedule until end_us, but those that the mask leaves out. */
void plan__schedule(struct cluster *cluster, uint64_t end_us);
/* Then, likewise, what has other sources. */
void plan__add_change(struct cluster *cluster, uint64_t at_us);
void plan__add_leader_cut(struct cluster *cluster, uint64_t at_us, uint64_t lasts_us);
/* The faults that have begun, one a line. */
void plan__print(const struct cluster *cluster);
/* NULL beyond the last kind. */
const char *plan_kind_name(uint32_t kind);
/* False for what the plan numbers besides. */
bool plan_kind_is_fault(uint32_t kind);
bool plan_mask_has(const struct plan_mask *mask, uint32_t number);
void plan_mask_set(struct plan_mask *mask, uint32_t number, bool left_out);
/* Everything healed, nothing hangs, errors off. */
void plan__end_faults(struct cluster *cluster);

#endif
