/*
 * What the files of the consensus actor share. In order of the data's way:
 *
 *   consensus.c          life; events into raft, updates carried out
 *   consensus_propose.c  writes: waiting, into the log, answered
 *   consensus_append.c   AppendEntries out (from memory, or read back) and in
 *   consensus_apply.c    committed entries into the engine
 *   consensus_member.c   membership: connections, what is kept of it, changes
 *   consensus_reach.c    new members are tried before they are proposed
 *   consensus_told.c     news of the membership for who lacks them
 *   consensus_digest.c   digests of what was applied, compared between nodes
 *   consensus_scan*.c    digests of all data, compared between nodes
 *   digest_votes.c       who has the same digest as whom
 *   consensus_budget.c   flushes in time, so that a restart replays no longer than it may
 *   consensus_floor.c    what the log must keep, and for whom
 *   consensus_fence.c    stepping aside when the log or apply stalls
 *   consensus_read.c     ReadIndex rounds and waiting for apply
 *   consensus_heal.c     what this node, or a peer, lost
 *   consensus_rebuild.c, consensus_orders.c  a damaged or differing store is filled again (rebuild.h)
 *   snapshot*.c          snapshots to and from other nodes
 *   consensus_upkeep.c   long jobs that an operator asked for
 *   consensus_ask.c      changes of membership and leadership, asked for from other threads
 *   consensus_status.c   what it says of itself
 *   consensus_explain.c  who keeps each segment of the log
 *
 * Owner: the consensus loop, everything. Atomics are what other threads may look at.
 */
#ifndef HOLDFAST_SERVER_CONSENSUS_INTERNAL_H
#define HOLDFAST_SERVER_CONSENSUS_INTERNAL_H

#include "node/base/check.h"
#include "node/server/consensus.h"
#include "node/server/consensus_scan.h"
#include "node/server/digest_votes.h"
#include "node/server/membership.h"
#include "node/server/peers.h"
#include "node/server/rebuild.h"
#include "node/server/replay_speed.h"
#include "node/server/snapshot.h"

enum {
    CONSENSUS_PROPOSALS_MAX = 64 * 1024, /* waiting or in the log */
    CONSENSUS_READS_MAX = 64 * 1024,
    CONSENSUS_BATCH_MAX = 1024,                /* proposals of one group */
    CONSENSUS_APPLY_MAX = 1024,                /* entries applied in one turn */
    CONSENSUS_PARTS_MAX = 64,                  /* pieces of memory that one AppendEntries is sent from */
    CONSENSUS_APPENDS_QUEUED_MAX = 256,        /* AppendEntries to one peer that wait for the disk */
    CONSENSUS_SENDERS_MAX = 2 * LIMIT_MEMBERS, /* peers with such a queue: members, and some that were */
    CONSENSUS_CONFIGS_MAX = 16, /* configurations taken from one AppendEntries; what follows comes again */
    CONSENSUS_DEADLINE_STEP_US = 10 * 1000,
    CONSENSUS_HOUSEKEEPING_US = 100 * 1000,
    CONSENSUS_STALL_US = 5 * 1000 * 1000 /* a log write or an apply that takes longer is no progress */
};

struct consensus_options {
    struct env *env;
    struct env_loop *loop;
    const struct config *config;
    struct logger *logger;
    struct env_transport *peer_transport;
    void *context;
    /* The log failed: nothing leaves any more. Once, on the loop, never from inside a call. */
    void (*failed)(void *context, const struct error *err);
    consensus_observe *observe; /* NULL in production */
    void *observe_context;
};

/* AppendEntries to one peer, in order. Those whose records are in memory leave at once, unless one before them waits
 * for the disk. */
struct append_sender {
    struct consensus *consensus;
    uint64_t node_id;
    struct raft_message *queue; /* ring of CONSENSUS_APPENDS_QUEUED_MAX, allocated when first needed */
    uint32_t queue_head;
    uint32_t queue_count;
    bool reading;
    struct wal_read read;
};

/* consensus_digest.c */
struct consensus_digest {
    /* As the one that is asked: */
    uint64_t asked_by;
    uint64_t asked_index; /* 0: nothing */
    struct digest asked;  /* the leader's */
    bool is_found;        /* `own` is ours there */
    bool is_owed;         /* the next reply says it */
    struct digest own;
    bool differs;
    /* As the leader: */
    bool round_open;
    uint64_t round_term;
    uint64_t round_index;
    uint64_t round_us; /* when it began */
    struct digest round;
    struct digest_votes votes; /* its own first */
    bool all_answered;         /* in the last round */
    bool must_hand_over;
    uint64_t handed_us; /* when it last tried to; 0: never */
    char suspects[DIGEST_NAMES_BYTES];
    char problem[ERROR_MESSAGE_BYTES_MAX]; /* empty: none */
    /* What came of it: */
    uint64_t agreed_index;
    struct digest agreed;
    uint64_t mismatches;
};

/* The newest of the long jobs. */
struct consensus_upkeep {
    struct consensus_upkeep_state state;
    uint64_t begun_us;
    uint8_t lower[LIMIT_KEY_BYTES];
    uint8_t upper[LIMIT_KEY_BYTES];
    union {
        struct storage_compact compact;
        struct storage_verification verification;
        struct storage_checkpoint checkpoint;
    } u;
};

/* What this node lost (consensus_heal.c). */
struct consensus_heal {
    bool is_open;             /* the log may lack something, as of the last look */
    uint64_t went_back_count; /* of other members' logs; as was logged */
};

/* What this node knows of its own stalls (consensus_fence.c). */
struct consensus_fence {
    struct env_timer timer;
    enum raft_fence reason;    /* as raft was told */
    uint64_t looked_us;        /* the last look, by the loop's clock */
    uint64_t write_since_us;   /* the log write that was under way then; 0: none */
    uint64_t log_stalled_us;   /* for how long it was looked at */
    uint64_t outrun_us;        /* for how long somebody else was durably ahead meanwhile, */
    uint64_t level_us;         /* or had all that there is */
    uint64_t applied_index;    /* at the last look */
    uint64_t apply_stalled_us; /* without a move, although there was something to apply */
    uint64_t calm_us;          /* since something was last too slow */
    uint64_t handed_us;        /* when a full leader last tried to hand over, */
    uint32_t heir;             /* and who is next */
    uint64_t count;            /* fences, since the node started */
    uint64_t stand_stills;     /* of the loop, for longer than an election timeout */
};

/* consensus_member.c */
struct consensus_members {
    struct membership applied; /* of the newest CONFIG entry that is applied, or what the node began with */
    struct membership before;  /* the one that it superseded */
    struct membership told;    /* a newer one that a member has applied; of no use once we have one as new */
    struct directory directory;
    uint64_t removed_by;       /* a member that says this node was removed; RAFT_NO_NODE: nobody does */
    uint64_t written_index;    /* of the newest CONFIG entry that raft asked for here */
    enum raft_refusal refusal; /* of the newest step */
    struct list changes;
    struct list changes_done;
    uint32_t change_count; /* of `changes` */
};

struct consensus {
    struct consensus_options options;
    struct raft *raft;
    struct wal *wal;
    struct storage *storage;
    struct peers *peers;
    struct snapshots *snapshots;

    enum raft_role role; /* as of the last update, to see changes */
    uint64_t leader;
    uint64_t term;
    uint64_t elections_started;

    /* Writes. */
    struct list proposals_waiting;  /* not in the log yet */
    struct list proposals_logged;   /* by index; all of this term of leadership */
    struct list proposals_orphaned; /* logged under an earlier leadership; unordered, soon gone */
    uint32_t proposal_count;        /* all of them */
    uint64_t proposal_bytes;        /* all of them */
    struct raft_entry batch_entries[CONSENSUS_BATCH_MAX];
    struct consensus_proposal *batch[CONSENSUS_BATCH_MAX];

    /* Reads. */
    struct list reads_new;      /* no round yet */
    struct list reads_asked;    /* by round */
    struct list reads_applying; /* wait for applied >= wait_index */
    uint32_t read_count;

    struct list proposals_done; /* answered in this turn, on this loop */
    struct list reads_done;

    /* Apply. */
    uint64_t commit_index;
    bool apply_suspended; /* a read from the log is under way, or the engine is full, or a fault hook delays */
    bool apply_reading;
    uint64_t apply_delayed_index; /* the fault hook has delayed this entry already */
    struct wal_read apply_read;

    /* Followers' side: the records of one AppendEntries. */
    struct wal_record *records;
    struct raft_entry *entries;
    uint32_t records_capacity;

    struct consensus_upkeep upkeep;
    struct consensus_digest digest;
    struct consensus_scan scan;
    struct replay_speed replay_speed;

    struct consensus_members members;
    struct append_sender senders[CONSENSUS_SENDERS_MAX];

    struct env_task process_task;
    struct env_task deliver_task;
    uint64_t raft_due_us; /* raft's deadline by the loop's clock */
    uint64_t held_up_us;  /* what raft's clock is behind the loop's */
    struct env_timer raft_timer;
    struct env_timer apply_timer;
    struct env_timer deadline_timer;
    struct env_timer pace_timer; /* armed: proposals wait until the engine has caught up a little */
    struct env_timer housekeeping_timer;
    struct consensus_fence fence;

    struct error failure; /* code STATUS_OK while all is well */
    struct env_task failure_task;
    struct error space_problem; /* log or engine: disk full */
    bool refusing;              /* the node is stopping: no new requests */

    bool stopping;
    uint32_t stop_pending;
    void (*stopped)(void *context);
    void *stopped_context;

    struct consensus_heal heal;
    struct consensus_rebuild rebuild;
    struct wal_synced newest_synced; /* what raft hasn't heard of yet, if has_synced */
    bool has_synced;

    uint64_t applied_progress_us;
    uint64_t trimmed_index;
    _Atomic uint64_t leader_id;
    _Atomic uint64_t progress_us;
};

/* ---- Life (node.c) ---------------------------------------------------------------------------------------------- */

/* Made first, so that log and engine can be given its callbacks; idle until consensus_start. */
MUST_USE enum status consensus_new(const struct consensus_options *options, struct consensus **ret_consensus,
                                   struct error *err);
/* Instead of consensus_start. */
void consensus_free_unstarted(struct consensus *consensus);
/* On the loop: takes over what recovery opened (and closes it in consensus_stop, also when this fails), connects to the
 * peers, begins. */
MUST_USE enum status consensus_start(struct consensus *consensus, struct raft *raft, struct wal *wal,
                                     struct storage *storage, struct error *err);
/* Before consensus_start: what recovery replayed, and in which time. */
void consensus_note_replay(struct consensus *consensus, uint64_t entries, uint64_t bytes, uint64_t us);
/* Answers everything that waits and refuses new requests from now on. */
void consensus_refuse_requests(struct consensus *consensus);
/* Answers everything that waits, closes peers, log and engine; then stopped runs and the consensus is gone. */
void consensus_stop(struct consensus *consensus, void (*stopped)(void *context), void *context);
/* Callbacks for wal_options and storage_options; context is the consensus. */
void consensus__wal_synced(void *context, const struct wal_synced *synced);
void consensus__wal_failed(void *context, const struct error *err);
void consensus__wal_prepare_state(void *context, const struct error *err);
void consensus__fill_frontier(void *context, struct storage_frontier *frontier);
void consensus__flushed(void *context, const struct storage_frontier *frontier);
void consensus__can_apply(void *context);
void consensus__storage_failed(void *context, const struct error *err);
void consensus__space_state(void *context, const struct error *err);
void consensus__damaged(void *context, const struct storage_damage *damage);

/* ---- Between the files ------------------------------------------------------------------------------------------ */

/* One event into raft, its update carried out. The status is raft_step's; STATUS_FAILED once the node failed. */
enum status consensus__step(struct consensus *consensus, struct raft_event *event);
/* Stops for good: no message leaves any more. */
void consensus__fail(struct consensus *consensus, const struct error *err);
static inline bool consensus__is_dead(const struct consensus *consensus) {
    return consensus->failure.code != STATUS_OK || consensus->stopping;
}
static inline uint64_t consensus__now_us(const struct consensus *consensus) {
    return env_now_us(consensus->options.loop);
}
/* The time that raft is told. */
uint64_t consensus__raft_now_us(struct consensus *consensus);
/* Runs the process task in this turn. */
void consensus__schedule(struct consensus *consensus);
/* Arms the deadline timer if it isn't. */
void consensus__watch_deadlines(struct consensus *consensus);

void propose__submit_waiting(struct consensus *consensus);
/* Like consensus_propose, on the loop: an entry that asks for a digest of all data, without operations. */
void propose__digest(struct consensus *consensus, struct consensus_proposal *proposal);
void propose__on_pace_timer(struct env_timer *timer);
/* The records of the PROPOSE step under way: count of them from first_index on. */
MUST_USE enum status propose__write_records(struct consensus *consensus, uint64_t first_index, uint64_t term,
                                            uint32_t count);
/* Leadership is lost: what is logged waits for what will be applied at its index. */
void propose__orphan(struct consensus *consensus);
void propose__refuse_waiting(struct consensus *consensus, enum status status);
void propose__applied(struct consensus *consensus, uint64_t index, uint64_t term);
void propose__expire(struct consensus *consensus, uint64_t now_us);
void propose__end_all(struct consensus *consensus);
void propose__deliver(struct consensus *consensus);

void append__deinit_senders(struct consensus *consensus);
void append__send(struct consensus *consensus, const struct raft_message *message);
void append__received(void *context, const struct raft_message *message, struct slice raw);
MUST_USE enum status append__write_records(struct consensus *consensus, uint32_t skip, uint32_t count);

/* A member's name; "none" if there is none. */
const char *member__name(const struct consensus *consensus, uint64_t id);
/* What recovery found, as of the applied state; before consensus_start. */
void member__begin(struct consensus *consensus, const struct membership *membership);
/* The log's next first groups repeat the applied membership. */
MUST_USE enum status member__save(struct consensus *consensus);
/* Connections and directory as the membership says. */
MUST_USE enum status member__connect(struct consensus *consensus);
void member__fill_frontier(const struct consensus *consensus, struct storage_frontier *frontier);
/* Bytes of the record that raft may append in the next step by itself: to be reserved before. */
size_t member__room(const struct consensus *consensus);
/* RAFT_APPEND_CONFIG. */
MUST_USE enum status member__write(struct consensus *consensus, const struct raft_update *update);
/* After note_role, before the messages go. */
MUST_USE enum status member__updated(struct consensus *consensus, const struct raft_update *update);
/* Any record: right before the engine applies it (in recovery too), and after. STATUS_CORRUPT, STATUS_UNSUPPORTED. */
MUST_USE enum status member__applying(struct consensus *consensus, const struct wal_record *record, struct error *err);
void member__applied(struct consensus *consensus, const struct wal_record *record);
/* A received snapshot took the place of the state; its frontier is at index. After raft's INSTALLED step. */
void member__installed(struct consensus *consensus, const struct membership *membership, uint64_t index);
/* The store went back to this state; CONFIG entries behind it are applied again. */
void member__went_back(struct consensus *consensus, const struct membership *membership);
/* consensus_told.c. Callbacks for peers_options. */
uint64_t told__known_membership(void *context);
size_t told__newer_membership(void *context, uint64_t known_index, uint8_t ret_bytes[MEMBERSHIP_BYTES_MAX]);
void told__membership(void *context, struct slice membership);
/* The membership that others know and this node doesn't yet; NULL: there is none. */
const struct raft_config *told__config(const struct consensus *consensus);

/* Callback for peers_options. */
void member__was_removed(void *context, uint64_t by_node_id);
/* True if nobody would answer this node's questions: it is no member, or was told so. */
bool member__is_out(const struct consensus *consensus);
/* What is wrong with this node's membership. False: nothing. */
bool member__problem(const struct consensus *consensus, char *ret_text, size_t size);
void member__expire(struct consensus *consensus, uint64_t now_us);
void member__end_all(struct consensus *consensus);
/* Its newest part was reached: the next one, or the proposal. Or it wasn't: the change has refusal and err. */
void member__go_on(struct consensus *consensus, struct consensus_change *change);
void member__refused(struct consensus *consensus, struct consensus_change *change);

/* True: a new member is to be tried before raft gets the change, which it would take as things are. */
bool reach__is_needed(const struct consensus *consensus, struct consensus_change *change);
/* STATUS_OK: it is being tried, member__go_on or member__refused follows. Else change->err says why not. */
MUST_USE enum status reach__begin(struct consensus *consensus, struct consensus_change *change);
/* If it is being tried. */
void reach__cancel(struct consensus_change *change);
void member__deliver(struct consensus *consensus);

/* Tells the engine how far a flush may claim: min(synced, committed). */
void apply__set_durable(struct consensus *consensus);
void apply__advance(struct consensus *consensus);
void apply__on_timer(struct env_timer *timer);
/* The store holds what a snapshot brought: it goes on behind that. */
void apply__installed(struct consensus *consensus);

/* One of the parts that consensus_stop waits for. */
void consensus__part_stopped(void *context);
/* Looks whether what was lost is back, and what can be done about it. */
void heal__update(struct consensus *consensus);
/* What an operator should know of it: fills status->problem, if there is anything. */
void heal__fill_status(struct consensus *consensus, struct consensus_status *status);

/* Puts the question of the round, or the answer that is owed, into a message that is about to go. */
void digest__tag(struct consensus *consensus, struct raft_message *message);
/* What a message that raft took says about digests. */
void digest__received(struct consensus *consensus, const struct raft_message *message);
/* More was applied. */
void digest__applied(struct consensus *consensus);
/* Now and then: rounds begin and end. */
void digest__tick(struct consensus *consensus);
void digest__fill_status(const struct consensus *consensus, struct consensus_status *status);
/* False: there is none. */
bool digest__problem(const struct consensus *consensus, char *ret_text, size_t size);

/* Now and then: flushes if a restart would replay for too long. */
void budget__tick(struct consensus *consensus);
/* Around a turn of applying: its begin (0: nobody wants to know), and what was applied since. */
uint64_t budget__begin_us(const struct consensus *consensus);
void budget__note_applied(struct consensus *consensus, uint64_t entries, uint64_t bytes, uint64_t begin_us);
/* What a restart would replay now. */
uint64_t budget__replay_us(const struct consensus *consensus);

/* Lets the log go as far as it may; tells raft where it begins. */
void floor__update(struct consensus *consensus);

void fence__init(struct consensus *consensus);
void fence__start(struct consensus *consensus);
void fence__stop(struct consensus *consensus);
/* One sentence for an operator; empty: it isn't fenced. */
void fence__describe(const struct consensus *consensus, char *out, size_t size);

void read__ask(struct consensus *consensus);
/* The READ step under way put all new reads into this round. */
void read__asked(struct consensus *consensus, uint64_t round);
void read__ready(struct consensus *consensus, uint64_t ready_round, uint64_t ready_index);
void read__applied(struct consensus *consensus);
void read__refuse(struct consensus *consensus, enum status status, bool waiting_for_apply_too);
void read__expire(struct consensus *consensus, uint64_t now_us);
void read__deliver(struct consensus *consensus);

#endif
