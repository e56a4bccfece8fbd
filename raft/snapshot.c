/*
 * Snapshots as far as the core knows them: that a peer needs one, that one arrived there, that one was installed here
 * (DESIGN rule 16). Carrying the bytes is the caller's.
 *
 * Leader. A peer whose next entry was trimmed here gets no APPENDs: the update names it once, and again a heartbeat
 * interval after a transfer that failed. SNAPSHOT_SENT proves nothing by itself: the peer is probed behind the
 * snapshot, and what it answers counts.
 *
 * Receiver. If the log has the snapshot's last entry, the snapshot only says that this is committed. Otherwise the
 * whole log goes, and starts anew behind the snapshot; term and vote stay. What is in flight to the disk then doesn't
 * count: the log is treated as cut (see raft__handle_synced).
 */
#include "raft/raft_internal.h"

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
    if (peer == NULL || peer->progress != RAFT_PEER_SNAPSHOT) {
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
        if (i != raft->self && peer->progress == RAFT_PEER_SNAPSHOT && raft->now_us >= peer->snapshot_ask_us) {
            raft__snapshot_ask(raft, peer);
        }
    }
}

void raft__snapshot_ask(struct raft *raft, struct raft__peer *peer) {
    CHECK(peer->progress == RAFT_PEER_SNAPSHOT);
    CHECK(raft->update.snapshot_peer_count < LIMIT_MEMBERS);
    peer->snapshot_ask_us = RAFT__NEVER;
    raft->snapshot_peers[raft->update.snapshot_peer_count++] = peer->id;
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
