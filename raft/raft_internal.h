/*
 * What the files of this folder share. See README.md for the order to read them in.
 *
 * Names that cross files carry a double underscore. Every function here runs inside one raft_step (or raft_start) and
 * leaves its results in raft->update, raft->outbox and the state itself.
 */
#ifndef HOLDFAST_RAFT_INTERNAL_H
#define HOLDFAST_RAFT_INTERNAL_H

#include "node/base/check.h"
#include "node/base/random.h"
#include "raft/log.h"
#include "raft/raft.h"

enum {
    RAFT__NOWHERE = LIMIT_MEMBERS, /* position of a node that isn't a member */
    RAFT__SEND_BURST_MAX = 16,     /* APPENDs to one peer in one step; replies bring the next */
    RAFT__OUTBOX_MAX = LIMIT_MEMBERS * (RAFT__SEND_BURST_MAX + 12) + RAFT__SEND_BURST_MAX,
    RAFT__INFLIGHT_APPENDS_MAX = 4096,
    RAFT__STRANGERS_MAX = 4 /* nodes beyond our configuration that wait for an answer of ours */
};

/* Terms and indexes of outside messages stay below this, so that sums of ours don't wrap. */
#define RAFT__NUMBER_MAX (UINT64_MAX >> 1)
#define RAFT__NEVER      UINT64_MAX

enum raft__vote { RAFT__VOTE_NONE, RAFT__VOTE_GRANTED, RAFT__VOTE_REFUSED };

/*
 * How far the leader is with one peer.
 *
 *     PROBE       where the logs meet isn't known, or the connection broke: one APPEND at a time, next stays
 *     |  | an answer that matches at next - 1         ^ a refusal, UNREACHABLE                   ^
 *     |  v                                            |                                          |
 *     |  REPLICATE  APPENDs follow each other, next runs ahead of match by what is in flight     |
 *     | next was trimmed here                                                                    |
 *     v                                                                                          |
 *     SNAPSHOT    nothing but heartbeats; the caller was told, or will be at snapshot_ask_us ----+
 *                                                    SNAPSHOT_SENT, or it matches where our log still is
 */

/* An APPEND that wasn't answered yet. */
struct raft__inflight {
    uint64_t last_index;
    uint64_t bytes;
};

/* What is held back until term and vote are durable: of VOTE, VOTE_REPLY, APPEND_REPLY and HEARTBEAT_REPLY at most one
 * each per node. */
enum { RAFT__HELD_MAX = 4 * (LIMIT_MEMBERS + RAFT__STRANGERS_MAX) };

/* One member, at the same position as in config.members; our own included (only `vote` of it is used). */
struct raft__peer {
    uint64_t id;
    enum raft__vote vote; /* in the campaign that is on */

    /* Leader, this term. */
    enum raft_peer_state progress;
    bool waiting;         /* PROBE: an answer is due */
    bool unreachable;     /* nothing came from it since UNREACHABLE */
    uint64_t match_index; /* durable there and equal to ours */
    uint64_t next_index;
    uint64_t heard_us;        /* 0: never */
    uint64_t quiet_us;        /* since when nothing was acknowledged although something is out */
    uint64_t round;           /* newest ReadIndex round that it confirmed */
    uint64_t snapshot_ask_us; /* SNAPSHOT, needs_snapshot: when the caller is asked; RAFT__NEVER: one is on its way */
    uint64_t needs_snapshot;  /* as its newest answer says */
    uint64_t read_own_round;  /* our round that answers its READ_INDEX, 0: it didn't ask */
    uint64_t read_round;      /* its number of that, and of its run */
    uint64_t read_run;
    uint64_t life;       /* newest that was heard */
    uint64_t held_index; /* match when it began: durable there before */
    uint64_t elder_us;   /* since when only earlier ones are; 0: they aren't */
    /* incarnation.c, on any node: what it was last heard to be, if that doesn't count, else 0; and since when. */
    uint64_t stranger;
    uint64_t stranger_us;
    enum raft_refusal return_refusal; /* why it can't be taken back */
    struct raft__inflight *inflight;  /* a ring of options.inflight_appends_max */
    uint32_t inflight_head;
    uint32_t inflight_count;
    uint64_t inflight_bytes;
};

/* A configuration that a newer one superseded; it comes back if the log is cut before that one. */
struct raft__past_config {
    uint64_t index;
    struct raft_config config;
};

struct raft {
    struct raft_options options;
    uint64_t id;
    struct random random;
    uint64_t run; /* a random number, to tell our reads from those of an earlier run */

    /* membership.c. peers[i] belongs to config.members[i]; those behind only keep their ring. */
    struct raft_config config;
    uint64_t config_index;
    uint32_t self;                  /* our position, or RAFT__NOWHERE */
    bool votes;                     /* we are a voter of either set, and count */
    bool campaigns;                 /* or were one, and the configuration that ended it isn't committed */
    struct raft__past_config *past; /* oldest first; the newest of them that is committed, and all behind it */
    size_t past_count;
    size_t past_capacity;
    struct raft__peer peers[LIMIT_MEMBERS];
    struct raft__inflight *inflight_memory;
    struct raft__log log;
    bool started;

    /* Raft's own. */
    enum raft_role role;
    uint64_t term;
    uint64_t vote;
    uint64_t vote_incarnation; /* of whom we voted for; 0: not known any more */
    uint64_t leader;
    bool state_synced; /* this very (term, vote) is durable */
    uint64_t commit_index;
    uint64_t synced_index;
    uint64_t truncated_term; /* our term when the log was last cut, 0: never; see raft__handle_synced */
    uint64_t floor_index;

    uint64_t now_us;
    uint64_t election_timeout_us; /* as drawn */
    uint64_t election_deadline_us;

    /* Follower, this term. */
    uint64_t leader_heard_us;
    uint64_t matched_index; /* our log is known to equal the leader's up to here; at least commit_index */
    uint64_t acked_index;   /* newest match that we told */
    uint64_t ack_to;        /* the leader that waits for a match, or RAFT_NO_NODE */

    /* Leader, this term. */
    uint64_t leader_since_us;
    uint64_t heartbeat_deadline_us;
    uint64_t term_first_index; /* our NOOP */

    enum raft_fence fence;
    uint64_t incarnation;
    uint64_t life;
    uint64_t heal_index; /* the end that our log once had; 0: it is as it was */
    uint64_t heal_term;
    bool lost_log;            /* this life began like that */
    uint64_t went_back_id;    /* whose log went back last, */
    uint64_t went_back_count; /* and how often some did */
    uint64_t needs_snapshot;  /* our store is damaged: a snapshot up to here or further takes its place; 0: it isn't */
    struct {
        uint64_t target; /* RAFT_NO_NODE: no transfer is on */
        uint64_t deadline_us;
        bool preferred; /* begun by us, for a member of higher priority */
    } transfer;
    struct {
        uint64_t id; /* who keeps up and has a higher priority than us */
        uint64_t since_us;
        uint64_t handed_us;    /* when we last handed the lead over for a priority; 0: never */
        uint32_t disappointed; /* how often it came back soon: the wait doubles each time */
    } preferred;
    uint64_t snapshot_peers[LIMIT_MEMBERS];

    /* ReadIndex: issued >= started >= done >= ready. A round waits to start while issued > started, is out while
     * started > done. Numbers are never used twice while the node runs. */
    struct {
        uint64_t issued;
        uint64_t started;
        uint64_t done;  /* answered or lost */
        uint64_t ready; /* answered */
        uint64_t started_index;
        uint64_t ready_index;
        uint64_t ask_again_us; /* not a leader: when the round that is out is asked for again */
    } reads;

    struct raft_message held[RAFT__HELD_MAX]; /* oldest first */
    uint32_t held_count;
    struct raft_message *outbox;
    uint32_t outbox_count;
    struct raft_update update;
};

/* ---- config.c: the one place that knows what a quorum is -------------------------------------------------------- */

MUST_USE enum status raft__config_check(const struct raft_config *config);
/* What two members of one set may not share: id, name, an address, certificate. Unknown ones ("") are never the same.
 */
enum raft_refusal raft__member_clash(const struct raft_member *a, const struct raft_member *b);
/* RAFT__NOWHERE if the node isn't a member. */
uint32_t raft__config_find(const struct raft_config *config, uint64_t id);
/* True if the member votes, in either set. False for RAFT__NOWHERE. */
bool raft__config_is_voter(const struct raft_config *config, uint32_t position);
/* The largest value that a quorum reaches, given one value per member, by position. Both majorities if joint. */
uint64_t raft__config_quorum(const struct raft_config *config, const uint64_t *values);

/* ---- membership.c: which configuration is effective, and changes of it --------------------------------------------
 */

/* Room for count more configurations. STATUS_NO_MEMORY. */
MUST_USE enum status raft__membership_reserve(struct raft *raft, size_t count);
/* The one that all others follow: at the start, after an installed snapshot. */
void raft__membership_reset(struct raft *raft, uint64_t index, const struct raft_config *config);
/* An entry of the log brought it; room was reserved. */
void raft__membership_push(struct raft *raft, uint64_t index, const struct raft_config *config);
/* The log was cut behind last_index. */
void raft__membership_truncate(struct raft *raft, uint64_t last_index);
void raft__membership_committed(struct raft *raft);
/* Leader: leaves a joint configuration, or the lead, when it is time. May end the leadership. */
void raft__membership_advance(struct raft *raft);

/* ---- change.c ------------------------------------------------------------------------------------------------------
 */

/* The configuration to append for these changes: joint if voters change. */
enum raft_refusal raft__change_plan(const struct raft *raft, const struct raft_change *changes, uint32_t change_count,
                                    struct raft_config *ret_config);
/* What follows a joint configuration. */
void raft__change_leave(const struct raft_config *joint, struct raft_config *ret_config);
MUST_USE enum status raft__change(struct raft *raft, const struct raft_change *changes, uint32_t change_count);

/* ---- transfer.c: handing the lead over ----------------------------------------------------------------------------
 */

MUST_USE enum status raft__transfer(struct raft *raft, uint64_t target);
/* Who should lead instead of us, RAFT_NO_NODE if nobody can. */
uint64_t raft__transfer_best(const struct raft *raft);
/* Gives up the lead now, in favour of who is best. */
void raft__transfer_abdicate(struct raft *raft);
/* A peer advanced: if it is the target and has everything, it is told. */
void raft__transfer_advance(struct raft *raft);
/* Gives up a transfer whose time is over. */
void raft__transfer_expire(struct raft *raft);
/* Each heartbeat: the target is told again, preferred nodes are looked for. */
void raft__transfer_heartbeat(struct raft *raft);
void raft__transfer_reset(struct raft *raft);
/* We became leader. */
void raft__transfer_note_office(struct raft *raft);
uint64_t raft__prefer_after_us(const struct raft *raft);

/* ---- snapshot.c ----------------------------------------------------------------------------------------------------
 */

void raft__snapshot_sent(struct raft *raft, uint64_t peer, uint64_t index, bool ok);
MUST_USE enum status raft__snapshot_installed(struct raft *raft, const struct raft_event *event);
void raft__snapshot_tick(struct raft *raft);
/* Our own store: NEEDS_SNAPSHOT. */
MUST_USE enum status raft__snapshot_needed(struct raft *raft, uint64_t index);
/* What an answer of the peer says of its store. */
void raft__snapshot_heard(struct raft *raft, struct raft__peer *peer, uint64_t needs_snapshot);
/* The update names the peer, which is in SNAPSHOT, or says that it needs one; unless one is on its way. */
void raft__snapshot_ask(struct raft *raft, struct raft__peer *peer);

/* ---- heal.c --------------------------------------------------------------------------------------------------------
 */

/* False while we can't do a leader's work, our log is shorter than what we acknowledged, or our store is damaged. */
bool raft__may_lead(const struct raft *raft);
/* The end that a candidate's log is compared with. */
void raft__promised_end(const struct raft *raft, uint64_t *ret_term, uint64_t *ret_index);
/* synced_index moved. */
void raft__heal_advance(struct raft *raft);
/* A refusal in the newest life: is it of what an earlier one held? */
void raft__heal_refused(struct raft *raft, struct raft__peer *peer, const struct raft_message *message);
/* An answer of a peer. False: it is of an earlier life, and to be ignored. */
bool raft__heal_heard(struct raft *raft, struct raft__peer *peer, const struct raft_message *message);

/* ---- incarnation.c: which log speaks for an id ------------------------------------------------------------------ */

/* The one answer to whether what the member at this position says counts. False for RAFT__NOWHERE. */
bool raft__counts(const struct raft *raft, uint32_t position, uint64_t incarnation);
/* The same of ourselves. */
bool raft__we_count(const struct raft *raft);
/* True if our log is empty, and the cluster's first configuration, from files, has us as a voter. */
bool raft__begins_cluster(const struct raft *raft);
/* Whether a vote for us counts: in the first election of all, nobody is recorded. */
bool raft__vote_counts(const struct raft *raft, uint32_t position, uint64_t incarnation);
bool raft__may_campaign(const struct raft *raft);
/* The member at this position spoke. */
void raft__incarnation_heard(struct raft *raft, uint32_t position, uint64_t incarnation);
void raft__forget_strangers(struct raft *raft);
/* A new leader's first entry, if it is the cluster's first, instead of a NOOP. */
void raft__incarnation_begin(struct raft *raft);
/* Leader: records who is new, takes back who lost its data. Appends a CONFIG entry at most. */
void raft__incarnation_tick(struct raft *raft);

/* ---- message.c ----------------------------------------------------------------------------------------------------
 */

/* STATUS_INVALID if it can't be from a correct peer. What it may make grow: how often the term changes along its
 * entries, and how many of them are configurations. */
MUST_USE enum status raft__message_check(const struct raft *raft, const struct raft_message *message,
                                         uint32_t *ret_run_count, uint32_t *ret_config_count);
/* True for what only an answer to ours, or a message between members, can be: from others it is ignored. */
bool raft__message_is_for_members(const struct raft_message *message);

/* ---- outbox.c: what leaves, and what waits for the disk --------------------------------------------------------- */

/* A new message with from, to and term set, else zero; the caller fills in the rest. Held back if it depends on a state
 * that isn't durable; a later one of the same type and peer takes its place. */
struct raft_message *raft__send(struct raft *raft, enum raft_message_type type, uint64_t to);
/* Term and vote became durable: everything held goes. */
void raft__release_held(struct raft *raft);
void raft__drop_held(struct raft *raft);

/* ---- state.c: term, vote, role, and what a sync makes true ------------------------------------------------------- */

void raft__set_state(struct raft *raft, uint64_t term, uint64_t vote);
/* A higher term was seen: follower of nobody in that term. */
void raft__adopt_term(struct raft *raft, uint64_t term);
/* Leader, candidate or precandidate: back to follower in the same term, with a fresh timeout. */
void raft__step_down(struct raft *raft);
void raft__draw_election_deadline(struct raft *raft);
void raft__fence(struct raft *raft, enum raft_fence fence);
/* Its process has ended: if it led us, an election is due soon. */
void raft__peer_gone(struct raft *raft, uint64_t id);
void raft__handle_synced(struct raft *raft, const struct raft_event *event);
void raft__set_commit(struct raft *raft, uint64_t commit_index);

/* ---- election.c -------------------------------------------------------------------------------------------------- */

void raft__election_due(struct raft *raft);
/* Our candidacy became durable. */
void raft__candidacy_synced(struct raft *raft);
void raft__handle_prevote(struct raft *raft, const struct raft_message *message);
void raft__handle_prevote_reply(struct raft *raft, const struct raft_message *message);
void raft__handle_vote(struct raft *raft, const struct raft_message *message);
void raft__handle_vote_reply(struct raft *raft, const struct raft_message *message);
MUST_USE enum status raft__handle_timeout_now(struct raft *raft, const struct raft_message *message);

/* ---- follower.c -------------------------------------------------------------------------------------------------- */

MUST_USE enum status raft__handle_append(struct raft *raft, const struct raft_message *message);
MUST_USE enum status raft__handle_heartbeat(struct raft *raft, const struct raft_message *message);
/* Something became durable: tell the leader if it waits for that. */
void raft__acknowledge(struct raft *raft);

/* ---- leader.c, progress.c ------------------------------------------------------------------------------------------
 */

void raft__become_leader(struct raft *raft);
MUST_USE enum status raft__propose(struct raft *raft, struct raft_entry *entries, uint32_t entry_count);
void raft__leader_tick(struct raft *raft);
/* When the leader has to step down if no more is heard. */
uint64_t raft__quorum_deadline(const struct raft *raft);
void raft__broadcast_heartbeat(struct raft *raft);
void raft__leader_commit(struct raft *raft);
MUST_USE enum status raft__handle_append_reply(struct raft *raft, const struct raft_message *message);
MUST_USE enum status raft__handle_heartbeat_reply(struct raft *raft, const struct raft_message *message);

/* Appends a configuration and sends it; our own peers are the new ones then. */
void raft__append_config(struct raft *raft, const struct raft_config *config);
/* The peer of a member other than us; NULL if there is none. */
struct raft__peer *raft__peer_of(struct raft *raft, uint64_t id);
/* True if it was heard within the last election timeout. */
bool raft__peer_is_heard(const struct raft *raft, const struct raft__peer *peer);
/* True if entries stream to it and no more than one window is missing. */
bool raft__peer_keeps_up(const struct raft *raft, const struct raft__peer *peer);

void raft__peer_reset(struct raft *raft, struct raft__peer *peer);
/* Back to PROBE, with nothing in flight. */
void raft__peer_probe(struct raft *raft, struct raft__peer *peer, uint64_t next_index);
/* As many APPENDs as flow control lets go. */
void raft__peer_send(struct raft *raft, struct raft__peer *peer);
/* An APPEND without entries if the peer was quiet for a heartbeat interval: its answer shows what was lost. */
void raft__peer_ask(struct raft *raft, struct raft__peer *peer);
/* True if nothing is on its way that would close the gap between what matches and what is sent next. */
bool raft__peer_has_gap(const struct raft__peer *peer);
/* True if the peer waits for something that is out. */
bool raft__peer_is_awaited(const struct raft__peer *peer);
void raft__peer_acked(struct raft *raft, struct raft__peer *peer, uint64_t index);
/* After an answer that matches: from PROBE to REPLICATE if it was about the probe. */
void raft__peer_replicate(struct raft *raft, struct raft__peer *peer);
void raft__peer_refused(struct raft *raft, struct raft__peer *peer, const struct raft_message *message);
void raft__peer_unreachable(struct raft *raft, struct raft__peer *peer);

/* ---- readindex.c ---------------------------------------------------------------------------------------------------
 */

void raft__read(struct raft *raft);
/* Starts the waiting round if nothing is in its way, ends the one that is confirmed. */
void raft__reads_advance(struct raft *raft);
/* Leadership is gone, or we want it. */
void raft__reads_fail(struct raft *raft);
/* Not a leader: the reads go to the leader, in rounds of our own. */
MUST_USE enum status raft__read_forward(struct raft *raft);
void raft__forward_tick(struct raft *raft);
void raft__handle_read_index(struct raft *raft, const struct raft_message *message);
void raft__handle_read_index_reply(struct raft *raft, const struct raft_message *message);

static inline uint64_t raft__min(uint64_t a, uint64_t b) { return a < b ? a : b; }

static inline uint64_t raft__max(uint64_t a, uint64_t b) { return a > b ? a : b; }

#endif
