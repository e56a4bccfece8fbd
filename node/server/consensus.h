/*
 * The consensus actor: binds raft to the log, the peers and the engine.
 *
 *   proposals --(log idle)--> raft PROPOSE --> wal_append + AppendEntries --> SYNCED / replies --> commit --> apply -->
 * done reads ----> raft READ (ReadIndex round) --> ready index --> applied? --> done
 *
 * Owner: the consensus loop. Client front ends on any loop hand in requests (embedded in their own structs) and get
 * `done` back on their loop. Everything that is handed in gets exactly one `done`, never from inside the call.
 *
 * Outcomes of a write (hazard 51): STATUS_OK: applied at `revision` on a quorum's synced log. `unknown` false with
 * another status: surely not done and never will be. `unknown` true: it may or may not be done.
 */
#ifndef HOLDFAST_SERVER_CONSENSUS_H
#define HOLDFAST_SERVER_CONSENSUS_H

#include "node/base/log.h"
#include "node/env/env.h"
#include "node/server/config.h"
#include "node/server/directory.h"
#include "node/server/rebuild.h"
#include "node/server/snapshot.h"
#include "raft/raft.h"
#include "storage/batch.h"
#include "storage/storage.h"
#include "storage/wal.h"

struct consensus;

/* For tests that look on: what one raft_step (or raft_start: event NULL) was given and answered. Called before the
 * update is carried out; borrowed for the call, which must not call back. */
typedef void consensus_observe(void *context, const struct raft *raft, const struct raft_event *event,
                               enum status status, const struct raft_update *update);

/* ---- Writes (any thread) --------------------------------------------------------------------------------------- */

struct consensus_proposal {
    /* The caller's, unchanged until done: */
    struct env_loop *loop;                    /* done runs here */
    const struct batch_operation *operations; /* within the limits; borrowed */
    uint32_t operation_count;
    uint64_t deadline_us; /* env clock; then done comes with STATUS_TIMEOUT, unknown if it was already in the log */
    void (*done)(struct consensus_proposal *proposal);
    /* Results: */
    enum status status; /* OK, NOT_LEADER, UNAVAILABLE, BUSY, TIMEOUT, NO_SPACE, TOO_LARGE, FAILED */
    bool unknown;
    uint64_t revision;
    /* The consensus actor's: */
    struct consensus *consensus;
    struct env_message message;
    struct list link;
    uint8_t kind; /* enum raft_entry_kind */
    uint64_t index;
    uint64_t term;
    size_t payload_bytes;
    uint64_t taken_us; /* the consensus loop's time when it came */
};

void consensus_propose(struct consensus *consensus, struct consensus_proposal *proposal);

/* ---- Reads (any thread) ---------------------------------------------------------------------------------------- */

struct consensus_read {
    /* The caller's: */
    struct env_loop *loop;
    bool local;        /* don't ask: what is applied here */
    uint64_t at_least; /* and at least this revision applied here */
    uint64_t deadline_us;
    void (*done)(struct consensus_read *read);
    /* Results: STATUS_OK: a view acquired from now on shows the state that the read may see. NOT_LEADER, UNAVAILABLE,
     * BUSY, TIMEOUT. */
    enum status status;
    /* The consensus actor's: */
    struct consensus *consensus;
    struct env_message message;
    struct list link;
    uint64_t round;
    uint64_t wait_index;
};

void consensus_read(struct consensus *consensus, struct consensus_read *read);

/* ---- Status (any thread) --------------------------------------------------------------------------------------- */

struct consensus_member_status {
    uint64_t id;
    enum raft_member_role role;
    uint8_t priority;
    bool returns;         /* see raft_member */
    bool is_wiped;        /* leader only: it says to be another log than the recorded one */
    uint64_t incarnation; /* recorded; 0: none yet */
    char name[LIMIT_NAME_BYTES];
    char peer_address[LIMIT_ADDRESS_BYTES];
    char client_address[LIMIT_ADDRESS_BYTES];
    uint8_t thumbprint[RAFT_THUMBPRINT_BYTES]; /* zeroes: not known */
    uint64_t match_index;                      /* leader only */
    uint64_t heard_ms_ago;                     /* leader only; UINT64_MAX: never */
    enum raft_peer_state state;                /* leader only; of the leader itself and on others REPLICATE */
};

/* Of a member's digest of all its data (below). */
enum consensus_scan_state {
    CONSENSUS_SCAN_ASKED, /* nothing was heard of it yet */
    CONSENSUS_SCAN_RUNNING,
    CONSENSUS_SCAN_DONE,
    CONSENSUS_SCAN_MISSING /* it has no such scan: it restarted, got a snapshot, took too long, ... */
};

struct consensus_status {
    enum raft_role role;
    uint64_t term;
    uint64_t leader_id;
    uint64_t first_index;
    uint64_t last_index;
    uint64_t synced_index;
    uint64_t commit_index;
    uint64_t applied_index;
    uint64_t flushed_index;
    uint64_t elections_started;
    uint64_t fences;       /* how often it stood aside (consensus_fence.c) */
    uint64_t stand_stills; /* of the loop, for longer than an election timeout */
    uint64_t proposals_waiting;
    uint64_t digest_index; /* newest entry up to which the digests were found equal; 0: none yet */
    uint8_t digest[DIGEST_BYTES];
    uint64_t digest_mismatches; /* rounds that found a difference */
    uint64_t scan_index;        /* newest revision at which a majority's data were found equal; 0: none yet */
    uint8_t scan_digest[DIGEST_BYTES];
    uint64_t scan_mismatches;             /* rounds of scans that found a difference */
    enum consensus_scan_state scan_state; /* of this node's newest scan; ASKED: none yet */
    uint64_t replay_us;                   /* what a start would take to replay now, as far as that is known */
    struct wal_stats wal;
    struct storage_stats storage;
    /* The effective membership. */
    uint64_t config_index; /* of the entry that brought it; 0: from the cluster's first start */
    bool config_is_committed;
    bool config_is_joint;
    uint64_t transfer_target; /* RAFT_NO_NODE: the lead isn't on its way to another node */
    uint32_t member_count;
    struct consensus_member_status members[LIMIT_MEMBERS];
    uint64_t heal_index; /* see raft_info */
    enum rebuild_state rebuild_state;
    uint64_t rebuilds; /* of the store, since the node started, */
    uint64_t rebuilds_failed;
    char rebuild_reason[128]; /* and why the one that is on is; empty: none is */
    struct snapshots_status snapshots;
    char problem[ERROR_MESSAGE_BYTES_MAX]; /* empty when healthy */
};

struct consensus_status_query {
    struct env_loop *loop;
    void (*done)(struct consensus_status_query *query);
    struct consensus_status status;
    struct consensus *consensus; /* the consensus actor's */
    struct env_message message;  /* the consensus actor's */
};

void consensus_query_status(struct consensus *consensus, struct consensus_status_query *query);

/* ---- What keeps the log's segments (any thread) ---------------------------------------------------------------- */

enum { CONSENSUS_LOG_PINS_MAX = LIMIT_MEMBERS + 8, CONSENSUS_LOG_SEGMENTS_MAX = 4096 };

struct consensus_log_pin {
    char owner[LIMIT_NAME_BYTES + 32];
    bool has_index;
    uint64_t index; /* up to here the owner needs nothing */
    uint64_t segment_count;
    uint64_t file_bytes;
    uint64_t age_us; /* of the oldest segment that it keeps */
};

struct consensus_log_segment {
    struct wal_segment_info info;
    uint32_t pins; /* bit i: pins[i] */
};

struct consensus_log_query {
    struct env_loop *loop;
    void (*done)(struct consensus_log_query *query);
    /* Results: STATUS_OK, STATUS_NO_MEMORY, STATUS_UNAVAILABLE (stopping). */
    enum status status;
    uint64_t first_index;
    uint64_t last_index;
    uint64_t floor_index;
    uint64_t segment_total;
    uint64_t file_bytes;
    uint32_t pin_count;
    struct consensus_log_pin pins[CONSENSUS_LOG_PINS_MAX];
    /* The oldest CONSENSUS_LOG_SEGMENTS_MAX at most. The asker's, to be freed with env->alloc. */
    uint32_t segment_count;
    struct consensus_log_segment *segments;
    /* The consensus actor's: */
    struct consensus *consensus;
    struct env_message message;
};

void consensus_explain_log(struct consensus *consensus, struct consensus_log_query *query);

/* ---- Long jobs of the store (any thread) ------------------------------------------------------------------------ */

enum consensus_upkeep_action {
    CONSENSUS_UPKEEP_LOOK, /* only how far the newest one is */
    CONSENSUS_UPKEEP_COMPACT,
    CONSENSUS_UPKEEP_VERIFY,
    CONSENSUS_UPKEEP_CHECKPOINT,
    CONSENSUS_UPKEEP_CANCEL /* the one that runs; it ends soon */
};

/* Of the newest job. */
struct consensus_upkeep_state {
    uint64_t job; /* 1, 2, ... since the node started; 0: there was none */
    enum consensus_upkeep_action kind;
    bool running;
    uint64_t done_bytes;
    uint64_t total_bytes; /* as estimated now; 0: not known yet */
    uint64_t elapsed_us;
    /* Of one that has ended: */
    enum status status;
    char message[ERROR_MESSAGE_BYTES_MAX]; /* why it failed */
    uint64_t files;                        /* verify: tables; checkpoint */
    uint64_t bytes;
    uint64_t copied_bytes; /* checkpoint: what couldn't be linked */
    uint64_t findings;     /* verify */
    uint64_t index;        /* checkpoint, verify: of the frontier */
};

struct consensus_upkeep_query {
    struct env_loop *loop;
    void (*done)(struct consensus_upkeep_query *query);
    enum consensus_upkeep_action action;
    struct slice lower; /* compact: the range; upper empty: no end. At most LIMIT_KEY_BYTES each, borrowed until done */
    struct slice upper;
    char dir[LIMIT_PATH_BYTES]; /* checkpoint: see storage_checkpoint */
    /* Results. STATUS_OK; STATUS_BUSY: one runs already; STATUS_UNSUPPORTED: a compaction can't be cancelled;
     * STATUS_UNAVAILABLE: the node stops or has failed. state in any case. */
    enum status status;
    struct consensus_upkeep_state state;
    /* The consensus actor's: */
    struct consensus *consensus;
    struct env_message message;
};

/* done comes soon, whatever the job takes. */
void consensus_upkeep(struct consensus *consensus, struct consensus_upkeep_query *query);
const char *consensus_upkeep_name(enum consensus_upkeep_action kind);

/* ---- All data of all members compared (any thread) ----------------------------------------------------------------
 * A committed entry asks every member for a digest of all that can be seen at its revision; the leader compares them
 * (consensus_scan.c). */

enum { CONSENSUS_SCAN_REASON_BYTES = ERROR_MESSAGE_BYTES_MAX };

enum consensus_scan_verdict {
    CONSENSUS_SCAN_NONE,      /* no round yet under this leader */
    CONSENSUS_SCAN_OPEN,      /* not all have answered */
    CONSENSUS_SCAN_ALIKE,     /* all members hold the same */
    CONSENSUS_SCAN_DIFFERS,   /* a majority does; the suspected ones don't */
    CONSENSUS_SCAN_SPLIT,     /* different data, and no majority agrees */
    CONSENSUS_SCAN_INCOMPLETE /* those that answered hold the same, but not all did */
};

struct consensus_scan_member {
    uint64_t id;
    enum consensus_scan_state state;
    bool is_suspected;
    uint64_t done_bytes;
    uint64_t total_bytes; /* as estimated */
    uint64_t keys;        /* DONE, like the digest */
    struct digest digest;
    char reason[CONSENSUS_SCAN_REASON_BYTES]; /* MISSING */
};

struct consensus_scan_round {
    uint64_t index; /* the revision; 0: none */
    enum consensus_scan_verdict verdict;
    uint64_t elapsed_us;
    uint32_t member_count;
    struct consensus_scan_member members[LIMIT_MEMBERS];
};

struct consensus_compare_query {
    struct env_loop *loop;
    void (*done)(struct consensus_compare_query *query);
    bool begin; /* a round, unless one is on its way; else only look */
    /* Results: STATUS_OK; STATUS_NOT_LEADER, STATUS_UNAVAILABLE; begin: STATUS_NO_SPACE, none is begun on a full disk.
     */
    enum status status;
    bool is_open;         /* a round is on its way, though perhaps not in `round` yet */
    uint64_t above_index; /* begin: the round's index is above this one */
    struct consensus_scan_round round;
    char names[LIMIT_MEMBERS][LIMIT_NAME_BYTES]; /* of round.members */
    /* The consensus actor's: */
    struct consensus *consensus;
    struct env_message message;
};

/* done comes soon. */
void consensus_compare(struct consensus *consensus, struct consensus_compare_query *query);
const char *consensus_scan_verdict_name(enum consensus_scan_verdict verdict);
const char *consensus_scan_state_name(enum consensus_scan_state state);

/* ---- Membership and leadership (the consensus loop) -------------------------------------------------------------- */

enum { CONSENSUS_CHANGES_MAX = 64 }; /* that wait for their end; more are refused with STATUS_BUSY */

struct peer_probe;

/* A change of the membership, or a transfer of the lead. A node that is to be added must answer first, within a second
 * and half of the time that is left: at its address, with its certificate and id (STATUS_CONDITION,
 * RAFT_REFUSAL_UNREACHABLE, and err says why it doesn't). A change is done when a configuration that has it is
 * committed, applied here and not joint any more; a transfer when another node is known to lead. */
struct consensus_change {
    /* The caller's, unchanged until done: */
    struct raft_change changes[LIMIT_MEMBERS]; /* what they point to too; sane as raft.h says */
    uint32_t change_count;                     /* 0 if is_transfer, else at least 1 */
    bool unreachable_too[LIMIT_MEMBERS];       /* ADD_LEARNER: without trying whether the node is there */
    bool is_transfer;
    bool is_rebuild;      /* a member is told to fill its store again; done when it is being told */
    uint64_t target;      /* transfer: to whom; RAFT_NO_NODE: to the best; rebuild: who */
    uint64_t deadline_us; /* env clock */
    void (*done)(struct consensus_change *change);
    /* Results. STATUS_OK. Surely not done: STATUS_NOT_LEADER, STATUS_CONDITION (err has the refusal's sentence),
     * STATUS_BUSY, STATUS_UNAVAILABLE (stopping, failed), STATUS_NO_SPACE, STATUS_TIMEOUT. With `unknown`, any other
     * than STATUS_OK: it may still happen. A transfer that came to nothing is STATUS_TIMEOUT. */
    enum status status;
    bool unknown;
    struct error err;
    enum raft_refusal refusal; /* STATUS_CONDITION */
    uint64_t index;            /* of the configuration that was reached; a transfer: 0 */
    uint64_t leader;           /* transfer: who leads now */
    /* The consensus actor's: */
    struct list link;
    uint64_t term;
    uint32_t phase;
    uint32_t tried;
    struct peer_probe *probe;
    struct consensus *reaching;
};

/* done runs on the consensus loop, once, never from inside the call. */
void consensus_change(struct consensus *consensus, struct consensus_change *change);

/* The same from any thread. Of `change`, all but `done` is the asker's as above. */
struct consensus_change_query {
    struct env_loop *loop;
    void (*done)(struct consensus_change_query *query);
    struct consensus_change change;
    /* The consensus actor's: */
    struct consensus *consensus;
    struct env_message message;
};

void consensus_ask_change(struct consensus *consensus, struct consensus_change_query *query);

/* Any thread, at once: the leader's id as last known, or RAFT_NO_NODE. */
uint64_t consensus_leader(const struct consensus *consensus);
/* Any thread: who the members are. */
const struct directory *consensus_directory(const struct consensus *consensus);
/* Any thread: env clock of the last time that the log or apply made progress, or had nothing to do. For the watchdog.
 */
uint64_t consensus_progress_us(const struct consensus *consensus);
/* Any thread. Views for reads come from here. */
struct storage *consensus_storage(struct consensus *consensus);

#endif
