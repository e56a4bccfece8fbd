/*
 * Linearizable reads without writing (thesis, section 6.4), in numbered rounds.
 *
 * A round takes the commit index, sends a heartbeat that carries its number, and is confirmed when a quorum answered
 * with that number or a later one: then nobody else was leader when the round started. One round is out at a time, and
 * whoever asks meanwhile waits for the next (hazard 16). No round starts before the term's NOOP is committed, for until
 * then the leader doesn't know what its predecessors committed (hazard 14).
 */
#include "raft/raft_internal.h"

static bool is_confirmed(const struct raft *raft) {
    uint64_t rounds[LIMIT_MEMBERS] = {0};
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        rounds[i] = raft->peers[i].id == raft->id ? raft->reads.started : raft->peers[i].round;
    }
    return raft__config_quorum(&raft->config, rounds) >= raft->reads.started;
}

/* Ends the round that is out, if it is confirmed. */
static bool end_round(struct raft *raft) {
    if (!is_confirmed(raft)) {
        return false;
    }
    raft->reads.done = raft->reads.started;
    raft->reads.ready = raft->reads.started;
    raft->reads.ready_index = raft->reads.started_index;
    return true;
}

void raft__reads_advance(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    if (raft->reads.started > raft->reads.done && !end_round(raft)) {
        return;
    }
    if (raft->reads.issued == raft->reads.started || raft->commit_index < raft->term_first_index) {
        return;
    }
    raft->reads.started = raft->reads.issued;
    raft->reads.started_index = raft->commit_index;
    raft__broadcast_heartbeat(raft);
    (void)end_round(raft); /* the only voter confirms itself */
}

void raft__read(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    if (raft->reads.issued == raft->reads.started) {
        raft->reads.issued++;
    }
    raft->update.read_round = raft->reads.issued;
    raft__reads_advance(raft);
}

void raft__reads_fail(struct raft *raft) {
    if (raft->reads.issued > raft->reads.done) {
        raft->update.reads_failed = true;
    }
    raft->reads.started = raft->reads.issued;
    raft->reads.done = raft->reads.issued;
}
