/*
 * The leader as a whole: taking office, proposals, heartbeats, check-quorum, commit. One peer at a time is progress.c.
 *
 * Commit (Figure 2, "Rules for Servers"): the newest index that a quorum holds durably, this node counted only up to
 * its own synced index, and only if that entry is of this term. Check-quorum (thesis, section 6.2): who heard no quorum
 * within the least election timeout steps down.
 */
#include "raft/raft_internal.h"

static bool is_self(const struct raft *raft, uint32_t position) { return position == raft->self; }

static void send_to_all(struct raft *raft) {
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        if (!is_self(raft, i)) {
            raft__peer_send(raft, &raft->peers[i]);
        }
    }
}

struct raft__peer *raft__peer_of(struct raft *raft, uint64_t id) {
    uint32_t position = raft__config_find(&raft->config, id);
    return position == RAFT__NOWHERE || position == raft->self ? NULL : &raft->peers[position];
}

/* ---- Taking office ---------------------------------------------------------------------------------------------- */

void raft__become_leader(struct raft *raft) {
    CHECK(raft->role == RAFT_CANDIDATE && raft->state_synced && raft->vote == raft->id);
    CHECK(raft->update.append.source == RAFT_APPEND_NONE);
    bool begins_cluster = raft__begins_cluster(raft);
    raft->role = RAFT_LEADER;
    raft->leader = raft->id;
    raft->leader_since_us = raft->now_us;
    raft->heartbeat_deadline_us = raft->now_us + raft->options.heartbeat_interval_us;
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        raft__peer_reset(raft, &raft->peers[i]);
    }
    raft__transfer_note_office(raft);
    raft->term_first_index = raft->log.last_index + 1;
    if (begins_cluster) {
        raft__incarnation_begin(raft);
    }
    raft__forget_strangers(raft);
    if (begins_cluster) {
        return;
    }
    raft__log_append(&raft->log, raft->term, RAFT_NOOP_BYTES);
    raft->update.append.source = RAFT_APPEND_NOOP;
    raft->update.append.count = 1;
    raft->update.append.first_index = raft->term_first_index;
    raft->update.append.term = raft->term;
    send_to_all(raft);
}

/* ---- Proposals -------------------------------------------------------------------------------------------------- */

enum status raft__propose(struct raft *raft, struct raft_entry *entries, uint32_t entry_count) {
    CHECK(entry_count > 0);
    if (raft->role != RAFT_LEADER) {
        return STATUS_NOT_LEADER;
    }
    if (raft->transfer.target != RAFT_NO_NODE) {
        return STATUS_BUSY;
    }
    struct raft__log *log = &raft->log;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < entry_count; i++) {
        CHECK(entries[i].size_bytes <= RAFT__ENTRY_BYTES_MAX && entries[i].kind != RAFT_ENTRY_CONFIG);
        bytes += entries[i].size_bytes;
    }
    uint64_t uncommitted_bytes = raft__log_bytes(log, raft->commit_index, log->last_index);
    if (uncommitted_bytes > 0 && uncommitted_bytes + bytes > raft->options.uncommitted_bytes_max) {
        return STATUS_BUSY;
    }
    uint64_t first_index = log->last_index + 1;
    enum status status = raft__log_reserve(log, log->last_index + entry_count, 1);
    if (status != STATUS_OK) {
        return status;
    }
    for (uint32_t i = 0; i < entry_count; i++) {
        entries[i].index = first_index + i;
        entries[i].term = raft->term;
        raft__log_append(log, raft->term, entries[i].size_bytes);
    }
    raft->update.append.source = RAFT_APPEND_PROPOSAL;
    raft->update.append.count = entry_count;
    raft->update.append.first_index = first_index;
    raft->update.append.term = raft->term;
    send_to_all(raft);
    return STATUS_OK;
}

void raft__append_config(struct raft *raft, const struct raft_config *config) {
    CHECK(raft->role == RAFT_LEADER && raft->update.append.source == RAFT_APPEND_NONE);
    uint64_t index = raft->log.last_index + 1;
    raft__membership_push(raft, index, config); /* first, so that a new peer is probed with this very entry */
    raft__log_append(&raft->log, raft->term, RAFT_NOOP_BYTES + (uint32_t)raft_config_encoded_size(config));
    raft->update.append.source = RAFT_APPEND_CONFIG;
    raft->update.append.count = 1;
    raft->update.append.first_index = index;
    raft->update.append.term = raft->term;
    raft->update.append.config = &raft->config;
    send_to_all(raft);
}

/* ---- Time ------------------------------------------------------------------------------------------------------- */

/* Of a stranger's log nothing is known: the match is that of the log in whose place it came. */
void raft__broadcast_heartbeat(struct raft *raft) {
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        if (is_self(raft, i)) {
            continue;
        }
        const struct raft__peer *peer = &raft->peers[i];
        struct raft_message *message = raft__send(raft, RAFT_HEARTBEAT, peer->id);
        message->commit = peer->stranger == 0 ? raft__min(raft->commit_index, peer->match_index) : 0;
        message->round = raft->reads.started;
        message->floor = raft->floor_index;
    }
}

uint64_t raft__quorum_deadline(const struct raft *raft) {
    uint64_t heard_us[LIMIT_MEMBERS] = {0};
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        uint64_t peer_us = raft__max(raft->peers[i].heard_us, raft->leader_since_us);
        heard_us[i] = is_self(raft, i) && raft__we_count(raft) ? raft->now_us : peer_us;
    }
    return raft__config_quorum(&raft->config, heard_us) + raft->options.election_timeout_us;
}

void raft__leader_tick(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    if (raft->now_us >= raft__quorum_deadline(raft)) {
        raft__step_down(raft);
        return;
    }
    raft__transfer_expire(raft);
    if (raft->now_us < raft->heartbeat_deadline_us) {
        return;
    }
    raft->heartbeat_deadline_us = raft->now_us + raft->options.heartbeat_interval_us;
    raft__broadcast_heartbeat(raft);
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        if (!is_self(raft, i) && raft__peer_is_awaited(&raft->peers[i])) {
            raft__peer_ask(raft, &raft->peers[i]);
        }
    }
    raft__snapshot_tick(raft);
    raft__transfer_heartbeat(raft);
}

/* ---- Commit and floor ------------------------------------------------------------------------------------------- */

void raft__leader_commit(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    uint64_t durable[LIMIT_MEMBERS] = {0};
    uint64_t floor_index = raft->synced_index; /* ours counts even if we are no member any more */
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        durable[i] = !is_self(raft, i) ? raft->peers[i].match_index : raft__we_count(raft) ? raft->synced_index : 0;
        floor_index = raft__min(floor_index, durable[i]);
    }
    raft->floor_index = raft__max(raft->floor_index, floor_index);
    uint64_t index = raft__config_quorum(&raft->config, durable);
    if (index > raft->commit_index && raft__log_term_at(&raft->log, index) == raft->term) {
        raft__set_commit(raft, index);
        raft__reads_advance(raft); /* the term's first commit lets them start */
    }
    raft__membership_advance(raft);
}

/* ---- Replies ---------------------------------------------------------------------------------------------------- */

/* False: nothing of it counts, because of who or of when it was sent. */
static bool reply_counts(struct raft *raft, const struct raft_message *message) {
    uint32_t position = raft__config_find(&raft->config, message->from);
    CHECK(position != RAFT__NOWHERE);
    return raft__counts(raft, position, message->incarnation) &&
           raft__heal_heard(raft, &raft->peers[position], message);
}

static struct raft__peer *hear_from(struct raft *raft, uint64_t id) {
    struct raft__peer *peer = raft__peer_of(raft, id);
    CHECK(peer != NULL);
    peer->heard_us = raft->now_us;
    if (peer->unreachable) {
        peer->unreachable = false;
        peer->waiting = false;
    }
    return peer;
}

/* The end of a reply. What went before may have committed a configuration: the peer may have moved, or be no peer any
 * more, and we may not lead. */
static void go_on(struct raft *raft, uint64_t id) {
    struct raft__peer *peer = raft->role == RAFT_LEADER ? raft__peer_of(raft, id) : NULL;
    if (peer != NULL) {
        raft__peer_send(raft, peer);
    }
    if (peer != NULL && id == raft->transfer.target) {
        raft__transfer_advance(raft);
    }
}

enum status raft__handle_append_reply(struct raft *raft, const struct raft_message *message) {
    CHECK(message->term == raft->term);
    if (raft->role != RAFT_LEADER) {
        return STATUS_OK;
    }
    if (message->index > raft->log.last_index) {
        return STATUS_INVALID;
    }
    if (!reply_counts(raft, message)) {
        return STATUS_OK;
    }
    struct raft__peer *peer = hear_from(raft, message->from);
    raft__snapshot_heard(raft, peer, message->needs_snapshot);
    if (message->reject) {
        raft__heal_refused(raft, peer, message);
        raft__peer_refused(raft, peer, message);
    } else {
        raft__peer_acked(raft, peer, message->index);
        raft__peer_replicate(raft, peer);
        raft__leader_commit(raft);
    }
    go_on(raft, message->from);
    return STATUS_OK;
}

enum status raft__handle_heartbeat_reply(struct raft *raft, const struct raft_message *message) {
    CHECK(message->term == raft->term);
    if (raft->role != RAFT_LEADER) {
        return STATUS_OK;
    }
    if (message->index > raft->log.last_index || message->round > raft->reads.started) {
        return STATUS_INVALID;
    }
    if (!reply_counts(raft, message)) {
        return STATUS_OK;
    }
    struct raft__peer *peer = hear_from(raft, message->from);
    raft__snapshot_heard(raft, peer, message->needs_snapshot);
    peer->round = raft__max(peer->round, message->round);
    if (message->index > peer->match_index) {
        raft__peer_acked(raft, peer, message->index);
        raft__leader_commit(raft);
    } else if (message->index < peer->match_index || raft__peer_has_gap(peer)) {
        raft__peer_ask(raft, peer); /* it restarted and doesn't know what it may commit, or lost what it had */
    }
    if (raft->role == RAFT_LEADER) {
        raft__reads_advance(raft);
    }
    go_on(raft, message->from);
    return STATUS_OK;
}
