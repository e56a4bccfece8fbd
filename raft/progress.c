/*
 * The leader and one peer: where their logs meet, what is in flight, what was lost.
 *
 * Flow control: at most inflight_appends_max APPENDs and inflight_bytes_max bytes without an answer (one APPEND always
 * may), so a slow follower costs bounded memory here, on the way and there (hazard 24).
 *
 * Losses. A quiet peer (nothing acknowledged for a heartbeat interval although something is out) is asked: an APPEND
 * without entries behind the newest that was sent. If all arrived and the peer's disk is slow, nothing comes of it, and
 * nothing is sent twice; if something was lost, the refusal says from where.
 *
 * A peer that needs entries which were trimmed here needs a snapshot: snapshot.c. One whose answers don't count because
 * its log is another than the recorded one (incarnation.c) gets heartbeats only.
 */
#include "raft/raft_internal.h"

#include <string.h>

enum { APPEND_ENTRIES_MAX = 16384 };

static void forget_inflight(struct raft__peer *peer) {
    peer->inflight_head = 0;
    peer->inflight_count = 0;
    peer->inflight_bytes = 0;
}

void raft__peer_reset(struct raft *raft, struct raft__peer *peer) {
    raft__peer_probe(raft, peer, raft->log.last_index + 1);
    peer->unreachable = false;
    peer->match_index = 0;
    peer->heard_us = 0;
    peer->quiet_us = 0;
    peer->round = 0;
    peer->read_own_round = 0;
    peer->life = 0;
    peer->held_index = 0;
    peer->elder_us = 0;
    peer->needs_snapshot = 0;
    peer->snapshot_ask_us = 0;
}

void raft__peer_probe(struct raft *raft, struct raft__peer *peer, uint64_t next_index) {
    CHECK(next_index > 0 && next_index <= raft->log.last_index + 1);
    peer->progress = RAFT_PEER_PROBE;
    peer->waiting = false;
    peer->next_index = next_index;
    forget_inflight(peer);
}

bool raft__peer_is_heard(const struct raft *raft, const struct raft__peer *peer) {
    return peer->heard_us != 0 && !peer->unreachable &&
           raft->now_us - peer->heard_us < raft->options.election_timeout_us;
}

bool raft__peer_keeps_up(const struct raft *raft, const struct raft__peer *peer) {
    return peer->progress == RAFT_PEER_REPLICATE && raft__peer_is_heard(raft, peer) &&
           peer->match_index >= raft->log.start_index &&
           raft__log_bytes(&raft->log, peer->match_index, raft->log.last_index) <= raft->options.inflight_bytes_max;
}

bool raft__peer_is_awaited(const struct raft__peer *peer) {
    return peer->progress == RAFT_PEER_PROBE ? peer->waiting : peer->inflight_count > 0;
}

bool raft__peer_has_gap(const struct raft__peer *peer) {
    return peer->match_index + 1 < peer->next_index &&
           (peer->progress == RAFT_PEER_PROBE || (peer->progress == RAFT_PEER_REPLICATE && peer->inflight_count == 0));
}

/* ---- Sending ---------------------------------------------------------------------------------------------------- */

/* False if the peer needs entries that were trimmed here, or the previous entry's term is gone with them (hazard 18).
 */
static bool can_continue(const struct raft *raft, const struct raft__peer *peer) {
    uint64_t previous = peer->next_index - 1;
    return previous >= raft->log.start_index && (previous == 0 || raft__log_term_at(&raft->log, previous) != 0);
}

/* The same as an answer; a peer that can't continue needs a snapshot, and the update says so. */
static bool may_continue(struct raft *raft, struct raft__peer *peer) {
    if (peer->progress == RAFT_PEER_SNAPSHOT) {
        return false;
    }
    if (can_continue(raft, peer)) {
        return true;
    }
    raft__peer_probe(raft, peer, peer->match_index + 1);
    peer->progress = RAFT_PEER_SNAPSHOT;
    raft__snapshot_ask(raft, peer);
    return false;
}

static void send_append(struct raft *raft, const struct raft__peer *peer, uint32_t entry_count) {
    struct raft_message *message = raft__send(raft, RAFT_APPEND, peer->id);
    message->index = peer->next_index - 1;
    message->log_term = raft__log_term_at(&raft->log, message->index);
    message->commit = raft->commit_index;
    message->entry_count = entry_count;
}

/* The newest index that the next APPEND may carry now; 0 if none may go. */
static uint64_t next_append_end(struct raft *raft, struct raft__peer *peer) {
    if (peer->next_index > raft->log.last_index || peer->stranger != 0 || !may_continue(raft, peer)) {
        return 0;
    }
    bool closed =
        peer->progress == RAFT_PEER_PROBE ? peer->waiting : peer->inflight_count == raft->options.inflight_appends_max;
    if (closed) {
        return 0;
    }
    uint64_t previous = peer->next_index - 1;
    uint64_t bytes_max = raft__min(raft->options.append_bytes_max, raft->options.inflight_bytes_max);
    uint64_t end = raft__min(raft__log_fit(&raft->log, previous, bytes_max), previous + APPEND_ENTRIES_MAX);
    uint64_t bytes = raft__log_bytes(&raft->log, previous, end);
    bool fits = peer->inflight_count == 0 || peer->inflight_bytes + bytes <= raft->options.inflight_bytes_max;
    return fits ? end : 0;
}

void raft__peer_send(struct raft *raft, struct raft__peer *peer) {
    for (uint32_t burst = 0; burst < RAFT__SEND_BURST_MAX; burst++) {
        uint64_t end = next_append_end(raft, peer);
        if (end == 0) {
            return;
        }
        uint64_t bytes = raft__log_bytes(&raft->log, peer->next_index - 1, end);
        send_append(raft, peer, (uint32_t)(end - peer->next_index + 1));
        if (peer->inflight_count == 0) {
            peer->quiet_us = raft->now_us;
        }
        uint32_t at = (peer->inflight_head + peer->inflight_count) % raft->options.inflight_appends_max;
        peer->inflight[at] = (struct raft__inflight){.last_index = end, .bytes = bytes};
        peer->inflight_count++;
        peer->inflight_bytes += bytes;
        if (peer->progress == RAFT_PEER_PROBE) {
            peer->waiting = true;
            return;
        }
        peer->next_index = end + 1;
    }
}

void raft__peer_ask(struct raft *raft, struct raft__peer *peer) {
    bool quiet = raft->now_us - peer->quiet_us >= raft->options.heartbeat_interval_us;
    if (!quiet || peer->stranger != 0 || !may_continue(raft, peer)) {
        return;
    }
    send_append(raft, peer, 0);
    peer->quiet_us = raft->now_us;
    if (peer->progress == RAFT_PEER_PROBE) {
        peer->waiting = true;
        forget_inflight(peer); /* if the answer is "matches", the entries of the first probe go again */
    }
}

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

void raft__peer_acked(struct raft *raft, struct raft__peer *peer, uint64_t index) {
    CHECK(index <= raft->log.last_index);
    if (index <= peer->match_index) {
        return;
    }
    peer->match_index = index;
    peer->next_index = raft__max(peer->next_index, index + 1);
    peer->quiet_us = raft->now_us;
    while (peer->inflight_count > 0 && peer->inflight[peer->inflight_head].last_index <= index) {
        peer->inflight_bytes -= peer->inflight[peer->inflight_head].bytes;
        peer->inflight_head = (peer->inflight_head + 1) % raft->options.inflight_appends_max;
        peer->inflight_count--;
    }
    if (peer->progress == RAFT_PEER_SNAPSHOT && can_continue(raft, peer)) {
        peer->progress = RAFT_PEER_PROBE; /* it got there some other way, or the transfer's end wasn't reported yet */
    }
}

void raft__peer_replicate(struct raft *raft, struct raft__peer *peer) {
    if (peer->progress != RAFT_PEER_PROBE || peer->match_index + 1 < peer->next_index) {
        return; /* an answer to something older than the probe */
    }
    peer->progress = RAFT_PEER_REPLICATE;
    peer->waiting = false;
    if (peer->inflight_count > 0) {
        uint32_t newest = (peer->inflight_head + peer->inflight_count - 1) % raft->options.inflight_appends_max;
        peer->next_index = raft__max(peer->next_index, peer->inflight[newest].last_index + 1);
    }
}

/* The newest entry of ours that may be in the peer's log, given the newest of its that may be in ours (its hint). */
static uint64_t meeting_point(const struct raft *raft, const struct raft_message *refusal) {
    uint64_t index = raft__log_newest_with_term(&raft->log, refusal->hint_index, refusal->hint_term);
    return raft__min(index, refusal->index - 1);
}

void raft__peer_refused(struct raft *raft, struct raft__peer *peer, const struct raft_message *message) {
    bool stale = message->index <= peer->match_index || peer->progress == RAFT_PEER_SNAPSHOT ||
                 (peer->progress == RAFT_PEER_PROBE && message->index != peer->next_index - 1);
    if (stale) {
        return;
    }
    raft__peer_probe(raft, peer, raft__max(meeting_point(raft, message), peer->match_index) + 1);
}

void raft__peer_unreachable(struct raft *raft, struct raft__peer *peer) {
    peer->unreachable = true;
    if (peer->progress == RAFT_PEER_SNAPSHOT) {
        return; /* a transfer goes on when the connection is back, or its end is reported */
    }
    bool replicates = peer->progress == RAFT_PEER_REPLICATE;
    raft__peer_probe(raft, peer, replicates ? peer->match_index + 1 : peer->next_index);
    peer->waiting = true; /* until it is heard again, or is asked */
    peer->quiet_us = raft->now_us;
}
