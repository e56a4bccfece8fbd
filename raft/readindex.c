/*
 * Linearizable reads without writing (thesis, section 6.4), in numbered rounds.
 *
 * A round takes the commit index, sends a heartbeat that carries its number, and is confirmed when a quorum answered
 * with that number or a later one: then nobody else was leader when the round started. One round is out at a time, and
 * whoever asks meanwhile waits for the next (hazard 16). No round starts before the term's NOOP is committed, for until
 * then the leader doesn't know what its predecessors committed (hazard 14).
 *
 * Other nodes, learners too, ask the leader (READ_INDEX) in rounds of the same kind: one out at a time, numbered, asked
 * again each heartbeat interval until answered, whoever leads then. Any answer to a number was computed after that
 * number was first asked for, so a doubled or late one is as good. Numbers start anew with the process; the number of
 * the run keeps answers to an earlier run out.
 *
 *     not a leader: READ ----> READ_INDEX ----> leader: READ_INDEX joins its next round ----> READ_INDEX_REPLY
 */
#include "raft/raft_internal.h"

static bool is_confirmed(const struct raft *raft) {
    uint64_t rounds[LIMIT_MEMBERS] = {0};
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        bool is_self = i == raft->self && raft__we_count(raft);
        rounds[i] = is_self ? raft->reads.started : raft->peers[i].round;
    }
    return raft__config_quorum(&raft->config, rounds) >= raft->reads.started;
}

/* Answers who asked from afar and is served by the round that ended. */
static void answer_peers(struct raft *raft) {
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        struct raft__peer *peer = &raft->peers[i];
        if (peer->read_own_round == 0 || peer->read_own_round > raft->reads.ready) {
            continue;
        }
        peer->read_own_round = 0;
        struct raft_message *reply = raft__send(raft, RAFT_READ_INDEX_REPLY, peer->id);
        reply->round = peer->read_round;
        reply->hint_index = peer->read_run;
        reply->index = raft->reads.ready_index;
    }
}

/* Ends the round that is out, if it is confirmed. */
static bool end_round(struct raft *raft) {
    if (!is_confirmed(raft)) {
        return false;
    }
    raft->reads.done = raft->reads.started;
    raft->reads.ready = raft->reads.started;
    raft->reads.ready_index = raft->reads.started_index;
    answer_peers(raft);
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

/* The round that whoever asks now waits for: it hasn't started yet. */
static uint64_t next_round(struct raft *raft) {
    if (raft->reads.issued == raft->reads.started) {
        raft->reads.issued++;
    }
    return raft->reads.issued;
}

void raft__read(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    raft->update.read_round = next_round(raft);
    raft__reads_advance(raft);
}

void raft__handle_read_index(struct raft *raft, const struct raft_message *message) {
    struct raft__peer *peer = raft->role == RAFT_LEADER ? raft__peer_of(raft, message->from) : NULL;
    if (peer == NULL) {
        return; /* it asks again, and somebody else by then */
    }
    bool waits_already =
        peer->read_own_round != 0 && peer->read_round == message->round && peer->read_run == message->hint_index;
    if (!waits_already) {
        peer->read_round = message->round;
        peer->read_run = message->hint_index;
        peer->read_own_round = next_round(raft);
    }
    raft__reads_advance(raft);
}

/* ---- Not a leader ----------------------------------------------------------------------------------------------- */

static void ask(struct raft *raft) {
    raft->reads.ask_again_us = raft->now_us + raft->options.heartbeat_interval_us;
    if (raft->leader == RAFT_NO_NODE) {
        return;
    }
    struct raft_message *message = raft__send(raft, RAFT_READ_INDEX, raft->leader);
    message->round = raft->reads.started;
    message->hint_index = raft->run;
}

/* The waiting round goes out if none is. */
static void advance_forwarded(struct raft *raft) {
    if (raft->reads.started == raft->reads.done && raft->reads.issued > raft->reads.started) {
        raft->reads.started = raft->reads.issued;
        ask(raft);
    }
}

enum status raft__read_forward(struct raft *raft) {
    CHECK(raft->role != RAFT_LEADER);
    if (raft->leader == RAFT_NO_NODE) {
        return STATUS_NOT_LEADER;
    }
    raft->update.read_round = next_round(raft);
    advance_forwarded(raft);
    return STATUS_OK;
}

void raft__forward_tick(struct raft *raft) {
    CHECK(raft->role != RAFT_LEADER);
    if (raft->reads.started > raft->reads.done && raft->now_us >= raft->reads.ask_again_us) {
        ask(raft);
    }
}

void raft__handle_read_index_reply(struct raft *raft, const struct raft_message *message) {
    bool answers = raft->role != RAFT_LEADER && raft->reads.started > raft->reads.done &&
                   message->round == raft->reads.started && message->hint_index == raft->run;
    if (!answers) {
        return;
    }
    raft->reads.done = raft->reads.started;
    raft->reads.ready = raft->reads.started;
    raft->reads.ready_index = message->index;
    advance_forwarded(raft);
}

/* ---- Both ------------------------------------------------------------------------------------------------------- */

void raft__reads_fail(struct raft *raft) {
    if (raft->reads.issued > raft->reads.done) {
        raft->update.reads_failed = true;
    }
    raft->reads.started = raft->reads.issued;
    raft->reads.done = raft->reads.issued;
}
