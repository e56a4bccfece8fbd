/*
 * Snapshots as far as the core knows them: that a peer needs one, that one arrived there, that one was installed here
 * (DESIGN rule 16). Carrying the bytes is the caller's.
 *
 * Leader. A peer whose next entry was trimmed here gets no APPENDs: the update names it once, and again a heartbeat
 * interval after a transfer that failed. SNAPSHOT_SENT proves nothing by itself: the peer is probed behind the
 * snapshot, and what it answers counts.
 *
 * A peer whose store is damaged. Its log is whole: it votes, acknowledges, and gets its APPENDs like any other. It says
 * so in its answers (needs_snapshot), to whoever leads, until a snapshot has taken the place of its store; the leader
 * has it sent one beside the APPENDs, and again if that failed. It doesn't campaign meanwhile, nor is the lead handed
 * to it. That is for those who read: nothing about the log depends on it, so the caller may withdraw it at any time.
 *
 * Receiver. If the log has the snapshot's last entry, the snapshot only says that this is committed. Otherwise the
 * whole log goes, and starts anew behind the snapshot; term and vote stay. What is in flight to the disk then doesn't
 * count: the log is treated as cut (see raft__handle_synced).
 */
#include "raft/raft_internal.h"

/* A peer that was sent one may be late to say that it doesn't need one any more: asked for again after so many. */
enum { DOUBT_HEARTBEATS = 20 };

/* A leader of our term has all that was committed in it or before, and what matches it has so, too. */
static bool contradicts(const struct raft *raft, uint64_t index, uint64_t term) {
    bool should_be_here = raft->role == RAFT_LEADER || (term <= raft->term && index <= raft->matched_index);
    return index > raft->commit_index && should_be_here && raft__log_term_at(&raft->log, index) != term;
}

bool raft_wants_snapshot(const struct raft *raft, uint64_t index, uint64_t term) {
    bool has_it = raft__log_term_at(&raft->log, index) == term;
    return index > raft->commit_index && !has_it && !contradicts(raft, index, term);
}

/* ---- Leader ----------------------------------------------------------------------------------------------------- */

void raft__snapshot_sent(struct raft *raft, uint64_t id, uint64_t index, bool ok) {
    struct raft__peer *peer = raft->role == RAFT_LEADER ? raft__peer_of(raft, id) : NULL;
    if (peer == NULL) {
        return;
    }
    bool is_doubtful = ok && peer->needs_snapshot > 0;
    peer->snapshot_ask_us = raft->now_us + raft->options.heartbeat_interval_us * (is_doubtful ? DOUBT_HEARTBEATS : 1);
    if (peer->progress != RAFT_PEER_SNAPSHOT) {
        return;
    }
    if (!ok || index < raft->log.start_index || index > raft->log.last_index) {
        /* Failed, or so slow that what follows it is gone too. */
        peer->snapshot_ask_us = raft->now_us + raft->options.heartbeat_interval_us;
        return;
    }
    raft__peer_probe(raft, peer, raft__max(index, peer->match_index) + 1);
    raft__peer_send(raft, peer);
    if (!peer->waiting) {
        peer->quiet_us = raft->now_us - raft->options.heartbeat_interval_us; /* nothing to send: ask at once */
        raft__peer_ask(raft, peer);
    }
}

void raft__snapshot_tick(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        struct raft__peer *peer = &raft->peers[i];
        bool needs_one = peer->progress == RAFT_PEER_SNAPSHOT || peer->needs_snapshot > 0;
        if (i != raft->self && needs_one && raft->now_us >= peer->snapshot_ask_us) {
            raft__snapshot_ask(raft, peer);
        }
    }
}

void raft__snapshot_ask(struct raft *raft, struct raft__peer *peer) {
    CHECK(peer->progress == RAFT_PEER_SNAPSHOT || peer->needs_snapshot > 0);
    if (peer->snapshot_ask_us == RAFT__NEVER) {
        return; /* the end of the one that is on its way decides */
    }
    CHECK(raft->update.snapshot_peer_count < LIMIT_MEMBERS);
    peer->snapshot_ask_us = RAFT__NEVER;
    raft->snapshot_peers[raft->update.snapshot_peer_count++] = peer->id;
}

void raft__snapshot_heard(struct raft *raft, struct raft__peer *peer, uint64_t needs_snapshot) {
    CHECK(raft->role == RAFT_LEADER);
    bool is_news = needs_snapshot > 0 && peer->needs_snapshot == 0;
    peer->needs_snapshot = needs_snapshot;
    if (is_news) {
        raft__snapshot_ask(raft, peer);
    }
}

/* ---- Our own store ---------------------------------------------------------------------------------------------- */

enum status raft__snapshot_needed(struct raft *raft, uint64_t index) {
    CHECK(index <= RAFT__NUMBER_MAX);
    bool was_needed = raft->needs_snapshot > 0;
    if (index > 0 && raft->role == RAFT_LEADER) {
        raft->update.refusal = RAFT_REFUSAL_IS_LEADER;
        return STATUS_CONDITION;
    }
    raft->needs_snapshot = index;
    if (index > 0 && raft->role != RAFT_FOLLOWER) {
        raft__step_down(raft);
    }
    if (index == 0 && was_needed) {
        raft__draw_election_deadline(raft);
    }
    return STATUS_OK;
}

/* ---- Receiver --------------------------------------------------------------------------------------------------- */

/* The log goes, and starts anew behind (index, term). */
static void start_anew(struct raft *raft, const struct raft_event *event) {
    uint64_t index = event->u.installed.index;
    if (raft->role != RAFT_FOLLOWER) {
        raft__step_down(raft); /* a candidate of a log that is gone */
    }
    raft__log_reset(&raft->log, index, event->u.installed.term);
    raft->synced_index = index;
    raft->truncated_term = raft->term;
    raft__membership_reset(raft, event->u.installed.config_index, event->u.installed.config);
}

enum status raft__snapshot_installed(struct raft *raft, const struct raft_event *event) {
    uint64_t index = event->u.installed.index;
    uint64_t term = event->u.installed.term;
    bool sane = index > 0 && index <= RAFT__NUMBER_MAX && term > 0 && term <= RAFT__NUMBER_MAX &&
                event->u.installed.config_index <= index && raft__config_check(event->u.installed.config) == STATUS_OK;
    bool has_it = sane && raft__log_term_at(&raft->log, index) == term;
    if (!sane || contradicts(raft, index, term)) {
        return STATUS_INVALID;
    }
    if (index <= raft->commit_index) {
        return STATUS_OK; /* overtaken by the log */
    }
    if (term > raft->term) {
        raft__adopt_term(raft, term);
    }
    if (has_it) {
        raft->synced_index = raft__max(raft->synced_index, index); /* the snapshot's files are durable */
    } else {
        start_anew(raft, event);
    }
    raft__set_commit(raft, index);
    raft__heal_advance(raft);
    if (raft->role != RAFT_LEADER) {
        raft__acknowledge(raft);
    }
    return STATUS_OK;
}
