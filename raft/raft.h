/*
 * Raft as a pure function: events in, updates out. No files, sockets, clocks, threads, logging or errno.
 *
 *     struct raft_update update;
 *     status = raft_step(raft, &event, &update);
 *     ... carry out the update: append to the log, save term and vote, send messages, apply up to commit ...
 *
 * Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014), Figure 2; Ongaro's
 * thesis, chapters 3.10 (leader transfer), 4 (membership), 6.4 (ReadIndex), 9.6 (pre-vote), 6.2 (check-quorum), 10.2.1
 * (leader writes in parallel).
 *
 * The core knows entries by (index, term, kind, size), never by payload: the caller keeps the bytes in the write-ahead
 * log and binds messages to them. Memory per entry is a few bytes (sizes by entry, terms by run). Configurations are
 * the exception: the caller decodes their payload (raft_config_decode) and hands it in with the entry.
 *
 * What depends on the disk. Nothing leaves that depends on a term, vote or entry that isn't durable yet: the core holds
 * vote requests, vote replies, append replies and heartbeat replies back itself and emits them from the
 * RAFT_EVENT_SYNCED step that makes them true. So every message of an update may go at once. The leader sends appends
 * without waiting for its own disk, and counts itself only up to its synced index. Pre-vote depends on nothing durable.
 *
 * Legal order: raft_new, raft_load_entry for each entry of the log in order, raft_start, then any number of raft_step,
 * then raft_free. Owner: one thread (the consensus thread).
 *
 * Invariants, checked after every step: commit <= last; synced <= last; commit never decreases; term never
 * decreases; at most one vote per term; log terms don't decrease with the index.
 */
#ifndef HOLDFAST_RAFT_H
#define HOLDFAST_RAFT_H

#include "node/base/alloc.h"
#include "node/base/limits.h"
#include "node/base/slice.h"
#include "node/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct raft;

enum { RAFT_NO_NODE = 0 }; /* node ids start at 1 */

/* ---- Membership ----------------------------------------------------------------------------------------------- */

enum raft_member_role {
    RAFT_VOTER,
    RAFT_LEARNER, /* gets the log, counts nowhere */
    RAFT_LEAVING  /* only in a joint configuration: a voter of the outgoing set that is gone afterwards */
};

enum { RAFT_THUMBPRINT_BYTES = 32 };

struct raft_member {
    uint64_t id;
    enum raft_member_role role; /* in the incoming (or only) set */
    bool in_outgoing;           /* voter of the outgoing set of a joint configuration */
    uint8_t priority;           /* who leads by preference: more is better; see transfer.c */
    bool returns;               /* a learner that was a voter, lost its data, and votes again once it has caught up */
    uint64_t incarnation;       /* whose messages count as its; 0: nobody's was recorded yet; see incarnation.c */
    /* For the caller: how to reach and to know the node. The core only sees to it that no two members share one; what
     * is empty (a thumbprint of zeroes) is like nothing. */
    uint8_t thumbprint[RAFT_THUMBPRINT_BYTES]; /* SHA-256 of its certificate */
    char name[LIMIT_NAME_BYTES];
    char address[LIMIT_ADDRESS_BYTES];        /* where peers reach it */
    char client_address[LIMIT_ADDRESS_BYTES]; /* where clients reach it */
};

/* The set of nodes, plain or joint. Plain data; copied freely. Without members: a new node that waits for a leader to
 * add it; it answers, but never campaigns. */
struct raft_config {
    bool joint;
    uint32_t member_count;
    struct raft_member members[LIMIT_MEMBERS];
    uint64_t retired_id; /* the largest of a member that was removed, 0: nobody was. Who has an id up to this one and
                          * isn't a member never becomes one (again) */
};

enum {
    RAFT_MEMBER_BYTES_MIN = 22 + RAFT_THUMBPRINT_BYTES,
    RAFT_MEMBER_BYTES_MAX = RAFT_MEMBER_BYTES_MIN + LIMIT_NAME_BYTES - 1 + 2 * (LIMIT_ADDRESS_BYTES - 1),
    RAFT_CONFIG_BYTES_MAX = 12 + LIMIT_MEMBERS * RAFT_MEMBER_BYTES_MAX
};
static_assert((int)RAFT_CONFIG_BYTES_MAX <= (int)LIMIT_MEMBERSHIP_BYTES, "it must fit a segment's first group");

/* The payload of a CONFIG entry; README.md has its bytes. Returns the length. The configuration is one that
 * raft_config_decode accepts. */
size_t raft_config_encode(const struct raft_config *config, uint8_t ret_bytes[RAFT_CONFIG_BYTES_MAX]);
size_t raft_config_encoded_size(const struct raft_config *config);
/* STATUS_UNSUPPORTED: another version. STATUS_CORRUPT: cut, too long, or no sensible configuration. */
MUST_USE enum status raft_config_decode(struct slice bytes, struct raft_config *ret_config, struct error *err);

/* One part of a change of membership. All parts of a RAFT_EVENT_CHANGE take effect together. What it names is sane: an
 * id that isn't 0, texts that fit a raft_member with their NUL. */
enum raft_change_type {
    RAFT_CHANGE_ADD_LEARNER = 1, /* all fields: a node of a new id; nodes always start as learners */
    RAFT_CHANGE_PROMOTE,         /* id: a learner that has caught up becomes a voter */
    RAFT_CHANGE_DEMOTE,          /* id: a voter becomes a learner; one that would return by itself doesn't */
    RAFT_CHANGE_REMOVE,          /* id */
    RAFT_CHANGE_PRIORITY         /* id, priority */
};

struct raft_change {
    enum raft_change_type type;
    uint64_t id;
    uint8_t priority;
    /* Of a learner that is added; borrowed. NULL is "", or zeroes. */
    const char *name;
    const char *address;
    const char *client_address;
    const uint8_t *thumbprint; /* RAFT_THUMBPRINT_BYTES */
};

/* Why a change or a transfer was refused. */
enum raft_refusal {
    RAFT_REFUSAL_NONE,
    RAFT_REFUSAL_CHANGE_IN_PROGRESS,   /* the newest configuration is joint or not committed yet */
    RAFT_REFUSAL_TRANSFER_IN_PROGRESS, /* leadership is on its way to another node */
    RAFT_REFUSAL_NOTHING_COMMITTED,    /* no entry of this term is committed yet (hazard 8) */
    RAFT_REFUSAL_WOULD_LOSE_QUORUM,    /* those that are reachable now are no quorum of the new set */
    RAFT_REFUSAL_NO_VOTERS,            /* nobody would be left to vote */
    RAFT_REFUSAL_DUPLICATE_ID,
    RAFT_REFUSAL_DUPLICATE_ADDRESS,
    RAFT_REFUSAL_DUPLICATE_NAME,
    RAFT_REFUSAL_DUPLICATE_CERTIFICATE,
    RAFT_REFUSAL_RETIRED_ID, /* not above the ids of all that were removed */
    RAFT_REFUSAL_UNKNOWN_NODE,
    RAFT_REFUSAL_LEARNER_LAGS,
    RAFT_REFUSAL_NOT_A_LEARNER,
    RAFT_REFUSAL_NOT_A_VOTER,
    RAFT_REFUSAL_TOO_MANY_MEMBERS,
    RAFT_REFUSAL_UNREACHABLE, /* the node wasn't heard for an election timeout */
    RAFT_REFUSAL_IS_LEADER,   /* it leads already */
    RAFT_REFUSAL_NO_CHANGE,   /* everything is as asked for */
    RAFT_REFUSAL_COUNT
};

/* One sentence for an operator. */
const char *raft_refusal_text(enum raft_refusal refusal);

/* ---- Entries -------------------------------------------------------------------------------------------------- */

/* Record kinds that the core looks at or makes. Others pass through untouched. The numbers are the log's format. */
enum raft_entry_kind {
    RAFT_ENTRY_NOOP = 1,   /* a new leader's first entry; empty payload */
    RAFT_ENTRY_CONFIG = 2, /* a configuration, effective from append on */
    RAFT_ENTRY_DATA = 3,   /* a write batch */
    RAFT_ENTRY_DIGEST = 4  /* asks for a digest of all data at this entry's revision; empty payload */
};

enum { RAFT_NOOP_BYTES = 32 }; /* size of a NOOP in a message: a record header, no payload; a CONFIG adds its payload */

struct raft_entry {
    uint64_t index;
    uint64_t term;
    uint32_t size_bytes; /* what it takes in a message: record header and payload */
    uint8_t kind;
    const struct raft_config *config; /* CONFIG: the decoded payload, borrowed; else NULL */
};

/* ---- Messages ------------------------------------------------------------------------------------------------- */

enum raft_message_type {
    RAFT_PREVOTE = 1,
    RAFT_PREVOTE_REPLY,
    RAFT_VOTE,
    RAFT_VOTE_REPLY,
    RAFT_APPEND,
    RAFT_APPEND_REPLY,
    RAFT_HEARTBEAT,
    RAFT_HEARTBEAT_REPLY,
    RAFT_TIMEOUT_NOW,
    RAFT_READ_INDEX,
    RAFT_READ_INDEX_REPLY,
    RAFT_MESSAGE_TYPE_COUNT
};

enum { RAFT_DIGEST_BYTES = 16 };

/* One message, both directions. Fields that a type doesn't name are 0.
 *
 *   PREVOTE, VOTE        index, log_term: the candidate's last entry. A PREVOTE carries the term it would campaign in.
 *   *VOTE_REPLY          reject. A granted PREVOTE_REPLY carries the term that was asked for, else the replier's term.
 *   APPEND               index, log_term: the entry before the first; commit; entry_count entries from index + 1 on.
 *   APPEND_REPLY         reject false: index = match, at most min(index + entry_count of the request, synced).
 *                        reject true: index = the refused previous index; hint_index, hint_term: where to try next.
 *   HEARTBEAT            commit <= match of that peer; round: the ReadIndex round that a reply confirms; floor: the
 *                        newest index that every member holds, as the leader knows it.
 *   HEARTBEAT_REPLY      round copied; index = the follower's synced index that matches, if known, else 0.
 *   APPEND_REPLY, HEARTBEAT_REPLY
 *                        life: of the sender, raft_saved.life; lost_log: that life began with a shorter log than
 *                        earlier ones acknowledged (heal.c).
 *                        needs_snapshot: not 0: the sender's store is damaged, its log is whole: it wants a snapshot
 *                        whose last entry is this one or a later one (snapshot.c). In a HEARTBEAT the field isn't the
 *                        core's: there the caller says what it will.
 *   TIMEOUT_NOW          the leader asks for a campaign at once.
 *   READ_INDEX           round: the asker's own number; hint_index: a number of this run of the asker.
 *   READ_INDEX_REPLY     round, hint_index copied; index: what a read must have applied.
 *   all                  incarnation: of the sender, raft_saved.incarnation.
 */
struct raft_message {
    enum raft_message_type type;
    bool reject;
    uint64_t from;
    uint64_t to;
    uint64_t term;
    uint64_t index;
    uint64_t log_term;
    uint64_t commit;
    uint64_t hint_index;
    uint64_t hint_term;
    uint64_t round;
    uint64_t floor;
    uint64_t incarnation;
    uint64_t life;
    bool lost_log;
    uint64_t needs_snapshot;
    uint32_t entry_count;
    /* Not the core's, which neither looks at it nor sets it: what the node says along with a message about the digest
     * of what it has applied up to an entry. digest_index 0: nothing. */
    uint64_t digest_index;
    uint8_t digest[RAFT_DIGEST_BYTES];
    /* APPEND, received: entry_count of them, contiguous from index + 1; borrowed. Sent: NULL, the caller fills in the
     * records index + 1 .. index + entry_count from its log. */
    const struct raft_entry *entries;
};

/* ---- Events --------------------------------------------------------------------------------------------------- */

/* Why a node may not lead. It still follows and votes. */
enum raft_fence {
    RAFT_FENCE_NONE,
    RAFT_FENCE_LOG_STALLED,   /* a write or sync of the log takes too long */
    RAFT_FENCE_APPLY_STALLED, /* committed entries aren't applied */
    RAFT_FENCE_CANT_WRITE,    /* no space, or a disk that refuses writes */
    RAFT_FENCE_COUNT
};

const char *raft_fence_name(enum raft_fence fence);

enum raft_event_type {
    RAFT_EVENT_TICK,           /* time passed: call at the update's deadline */
    RAFT_EVENT_MESSAGE,        /* from another node; the caller checked that `from` is who it says */
    RAFT_EVENT_PROPOSE,        /* leader: append these entries */
    RAFT_EVENT_SYNCED,         /* a group is durable */
    RAFT_EVENT_READ,           /* a linearizable read waits */
    RAFT_EVENT_UNREACHABLE,    /* the connection to a peer broke, or a message to it was dropped on our side */
    RAFT_EVENT_TRIMMED,        /* the log was deleted up to an index, which was committed and flushed */
    RAFT_EVENT_CHANGE,         /* leader: change the membership */
    RAFT_EVENT_TRANSFER,       /* leader: hand leadership over */
    RAFT_EVENT_SNAPSHOT_SENT,  /* leader: a transfer that an update asked for ended */
    RAFT_EVENT_INSTALLED,      /* the manifest was switched to a received snapshot */
    RAFT_EVENT_FENCE,          /* this node can't do its work, or can again */
    RAFT_EVENT_NEEDS_SNAPSHOT, /* not the leader: the store is damaged, the log is whole; or all is well again */
    RAFT_EVENT_GONE            /* a peer's process has ended, for sure: its machine says that nobody listens there */
};

struct raft_event {
    enum raft_event_type type;
    uint64_t now_us; /* monotonic; never less than in the event before */
    union {
        struct {
            /* The log has room for one more CONFIG record: a leader may take back a member that lost its data. */
            bool has_room;
        } tick;
        const struct raft_message *message; /* MESSAGE */
        struct {
            /* kind and size_bytes are the caller's; index and term are filled in by the step on STATUS_OK. */
            struct raft_entry *entries;
            uint32_t entry_count; /* at least 1 */
        } propose;
        struct {
            /* What the group's header saved, and its newest record. A record counts only if (index, term) is still in
             * the log; all entries before it are durable then too. last_index 0: the group had no records. */
            uint64_t term;
            uint64_t vote;
            uint64_t last_index;
            uint64_t last_term;
        } synced;
        uint64_t peer;          /* UNREACHABLE, GONE */
        uint64_t trimmed_index; /* TRIMMED: the newest entry that is gone */
        struct {
            /* Not a leader: ask the leader (READ_INDEX) instead of answering STATUS_NOT_LEADER. */
            bool forward;
        } read;
        struct {
            const struct raft_change *changes;
            uint32_t change_count; /* at least 1 */
        } change;
        uint64_t target; /* TRANSFER: to whom; RAFT_NO_NODE: to the best */
        struct {
            uint64_t peer;
            uint64_t index; /* if ok: what the peer now has */
            bool ok;
        } snapshot_sent;
        struct {
            /* The snapshot's frontier: its last entry, and the configuration effective there. */
            uint64_t index;
            uint64_t term;
            uint64_t config_index; /* of the entry that brought it; 0: from the cluster's first start */
            const struct raft_config *config;
        } installed;
        enum raft_fence fence;   /* FENCE; NONE lifts it */
        uint64_t needs_snapshot; /* NEEDS_SNAPSHOT: the least last entry that it may have; 0: none is needed any more */
    } u;
};

/* ---- Updates -------------------------------------------------------------------------------------------------- */

enum raft_append_source {
    RAFT_APPEND_NONE,
    RAFT_APPEND_NOOP,     /* one NOOP record that a new leader starts its term with */
    RAFT_APPEND_PROPOSAL, /* the entries of the PROPOSE event */
    RAFT_APPEND_CONFIG,   /* one CONFIG record whose payload is the encoded append.config */
    RAFT_APPEND_MESSAGE   /* the entries of the APPEND message, without the first `skip` */
};

/* What to do now. Borrowed from the raft until the next step. */
struct raft_update {
    /* Save in the next group: this term and vote. */
    bool save_state;
    uint64_t term;
    uint64_t vote; /* RAFT_NO_NODE if none */

    /* Append to the log, in this order. If append.first_index <= the old last index, the log is cut there first. */
    struct {
        enum raft_append_source source;
        uint32_t skip;
        uint32_t count;
        uint64_t first_index;
        uint64_t term; /* of a NOOP, proposal or configuration */
        const struct raft_config *config;
    } append;

    /* Send, in this order. */
    const struct raft_message *messages;
    uint32_t message_count;

    /* All up to here is committed: apply it. Never decreases. */
    uint64_t commit_index;

    /* READ event: the round that will answer this read. Rounds up to ready_round are answered: they may be served from
     * state that has applied up to ready_index. reads_failed: all waiting rounds are lost, ask the new leader. */
    uint64_t read_round;
    uint64_t ready_round;
    uint64_t ready_index;
    bool reads_failed;

    /* raft_membership() is another one than before. Connect to new members before the messages go. */
    bool membership_changed;
    /* CHANGE, TRANSFER: why STATUS_CONDITION was answered. */
    enum raft_refusal refusal;
    /* A transfer that was begun came to nothing: proposals are taken again. (Success shows as the loss of the lead.) */
    bool transfer_failed;
    /* Peers that need a snapshot: what they lack is trimmed here, or they say that their store is damaged. Each is
     * named once; SNAPSHOT_SENT must follow. */
    const uint64_t *snapshot_peers;
    uint32_t snapshot_peer_count;

    /* When to call TICK if nothing else comes. */
    uint64_t deadline_us;
};

/* ---- Life ----------------------------------------------------------------------------------------------------- */

struct raft_options {
    struct alloc *alloc;
    uint64_t id;
    uint64_t random_seed;
    uint64_t election_timeout_us;   /* at least; the actual one is drawn from [t, 2t) */
    uint64_t heartbeat_interval_us; /* well below the election timeout */
    uint32_t append_bytes_max;      /* entries of one APPEND, unless a single one is larger */
    uint32_t inflight_appends_max;  /* APPENDs to one peer without a reply */
    uint64_t inflight_bytes_max;    /* their bytes, unless a single one is larger */
    uint64_t uncommitted_bytes_max; /* PROPOSE answers STATUS_BUSY beyond this */
};

/* What recovery found. */
struct raft_saved {
    uint64_t term;
    uint64_t vote;
    uint64_t commit;          /* highest known committed; >= log_start_index */
    uint64_t log_start_index; /* newest entry that isn't in the log any more (the frontier, or 0) */
    uint64_t log_start_term;  /* above `term` after a crash in an install: then this is the term, without a vote */
    /* Effective at log_start_index, or later if the log still has the entry that brought it: CONFIG entries of the log
     * that are newer follow it. */
    struct raft_config config;
    uint64_t config_index; /* of the entry that brought it, <= commit; 0: from the cluster's first start */
    /* Of the log: drawn when it was made, and lost only with the whole of it (incarnation.c). 0: nobody draws them. */
    uint64_t incarnation;
    uint64_t life; /* higher than in any earlier life of this log; 0 if nobody counts them */
    /* The log lost its end to damage: it once ended at heal_index, in heal_term (higher than they were is safe), and is
     * shorter now. 0: it is whole. */
    uint64_t heal_index;
    uint64_t heal_term;
};

/* The defaults of everything but alloc, id and random_seed. */
void raft_options_init(struct raft_options *options);
/* STATUS_INVALID: an option or the configuration makes no sense. STATUS_CORRUPT: what was saved contradicts itself. */
MUST_USE enum status raft_new(const struct raft_options *options, const struct raft_saved *saved,
                              struct raft **ret_raft);
/* The next entry of the recovered log; all of these are durable. STATUS_CORRUPT if it doesn't follow. */
MUST_USE enum status raft_load_entry(struct raft *raft, const struct raft_entry *entry);
/* Becomes a follower; fills the first update (deadline). STATUS_CORRUPT: the log ends before what is committed. */
MUST_USE enum status raft_start(struct raft *raft, uint64_t now_us, struct raft_update *ret_update);
void raft_free(struct raft *raft);

/*
 * One event. The update is valid in every case, and is to be carried out whatever is returned (a message that is
 * refused may still have brought a higher term). Returns:
 *
 *   STATUS_OK
 *   STATUS_NOT_LEADER   PROPOSE, READ, CHANGE, TRANSFER: nothing was taken; see raft_leader
 *   STATUS_BUSY         PROPOSE: the uncommitted tail is full, or a transfer is on; nothing was taken
 *   STATUS_CONDITION    CHANGE, TRANSFER: refused, update.refusal says why; nothing was changed. NEEDS_SNAPSHOT: it
 *                       leads, and hands the lead over first
 *   STATUS_INVALID      MESSAGE, INSTALLED: malformed (contradictory fields, senseless configuration); ignored
 *   STATUS_NO_MEMORY    the node can't go on; nothing was changed that a message or update depends on
 */
MUST_USE enum status raft_step(struct raft *raft, const struct raft_event *event, struct raft_update *ret_update);

/* ---- State, for status pages, invariants and the log's floor --------------------------------------------------------
 */

enum raft_role { RAFT_FOLLOWER, RAFT_PRECANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

const char *raft_role_name(enum raft_role role);
enum raft_role raft_role(const struct raft *raft);
uint64_t raft_id(const struct raft *raft);
uint64_t raft_term(const struct raft *raft);
uint64_t raft_vote(const struct raft *raft);
/* The leader of this term as far as known, else RAFT_NO_NODE. */
uint64_t raft_leader(const struct raft *raft);
uint64_t raft_commit_index(const struct raft *raft);
uint64_t raft_synced_index(const struct raft *raft);
uint64_t raft_last_index(const struct raft *raft);
/* First index that is still in the log (log_start_index + 1 when empty). */
uint64_t raft_first_index(const struct raft *raft);
/* 0 when the index is outside [first - 1, last]. */
uint64_t raft_term_at(const struct raft *raft, uint64_t index);
/* Newest index that every member is known to hold durably: the hard pin on log deletion. A leader computes it from the
 * match indexes (its own synced index included), a follower repeats the highest floor that a heartbeat told it. Never
 * decreases while the node runs; 0 after a start until it is known. A member that is added later is behind it. */
uint64_t raft_floor_index(const struct raft *raft);
/* The effective configuration: the newest in the log, committed or not (DESIGN rule 17). */
const struct raft_config *raft_membership(const struct raft *raft);
/* Leader only: why a CHANGE of at least one part would be refused now; RAFT_REFUSAL_NONE: it wouldn't. */
enum raft_refusal raft_check_change(const struct raft *raft, const struct raft_change *changes, uint32_t change_count);

/* True if the members at these positions of raft_membership() (bit i: members[i]) are a quorum of it, joint included.
 */
bool raft_is_quorum(const struct raft *raft, uint32_t positions);

/* True if a snapshot whose last entry is (index, term) would bring this node forward: ask before the manifest is
 * switched to it, on the consensus thread, and report INSTALLED in the same turn. */
bool raft_wants_snapshot(const struct raft *raft, uint64_t index, uint64_t term);

/* What an operator may want to know beyond the functions above. */
struct raft_info {
    uint64_t config_index;    /* of the entry that brought raft_membership() */
    bool config_is_committed; /* at least as far as this node knows */
    bool is_voter;            /* and counts as one */
    /* Our own; what the effective configuration has for our id, 0: nothing, or we are no member. */
    uint64_t incarnation;
    uint64_t recorded_incarnation;
    enum raft_fence fence;
    uint64_t leader_heard_us;     /* when raft_leader() was last heard, if that is another node; else of no meaning */
    uint64_t transfer_target;     /* RAFT_NO_NODE: none */
    uint64_t reads_waiting_round; /* newest round that isn't answered; 0: none */
    uint64_t uncommitted_bytes;
    uint64_t heal_index; /* so far the log must reach again before this node leads, or votes for less; 0: all is well */
    uint64_t heal_term;
    /* As a leader: how often a member turned out to have an older copy of its data, and which one did last. */
    uint64_t went_back_count;
    uint64_t went_back_id;
    uint64_t needs_snapshot;  /* as the event said; 0: it doesn't */
    uint64_t prefer_after_us; /* how long a preferred node must keep up before it is handed the lead */
};

void raft_get_info(const struct raft *raft, struct raft_info *ret_info);

enum raft_peer_state {
    RAFT_PEER_PROBE,     /* where the logs meet isn't known */
    RAFT_PEER_REPLICATE, /* entries stream */
    RAFT_PEER_SNAPSHOT   /* it needs a snapshot, or gets one */
};

const char *raft_peer_state_name(enum raft_peer_state state);

struct raft_peer_info {
    uint64_t id;
    uint64_t match_index;
    uint64_t next_index;
    uint64_t last_heard_us; /* 0: never in this term */
    bool is_heard;          /* within the last election timeout, and its connection stands */
    uint32_t inflight_appends;
    uint64_t inflight_bytes;
    enum raft_peer_state state;
    /* Since when all that comes from it is of an earlier life than one that was heard in this term; 0: no. After a
     * while that is no late message: its data were replaced by an older copy. Nothing of it counts. */
    uint64_t elder_since_us;
    uint64_t needs_snapshot; /* as its newest answer says; see struct raft_message */
    /* The incarnation that it says to be, if that isn't the recorded one, else 0; and since when. Nothing of it counts:
     * its data were lost. return_refusal: why it isn't taken back yet. */
    uint64_t stranger;
    uint64_t stranger_since_us;
    enum raft_refusal return_refusal;
};

/* Leader only: STATUS_NOT_FOUND for others and unknown peers. */
MUST_USE enum status raft_peer(const struct raft *raft, uint64_t id, struct raft_peer_info *ret_info);

#endif
