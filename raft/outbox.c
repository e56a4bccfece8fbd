/*
 * What leaves with this update, and what waits for the disk.
 *
 * A message that carries or depends on our term or vote may not leave before both are durable (DESIGN rule 3). Between
 * the change and its sync such messages are held, at most one per node and type: the newest replaces its elders, and
 * a new term drops them all. Room is for all members and a few nodes beyond our configuration; if more ask, the oldest
 * answer is lost, and asked for again. PREVOTE and its reply, and READ_INDEX, promise nothing and pass. What a
 * leader sends never waits here, because nobody leads before its candidacy is durable. VOTE of a candidate that stepped
 * down meanwhile doesn't go: nobody would look at the answers. (What a follower says about *entries* waits elsewhere:
 * follower.c.)
 */
#include "raft/raft_internal.h"

#include <string.h>

/* The place where a message of this type for this node is held: that of its elder, or a new one. */
static struct raft_message *hold(struct raft *raft, enum raft_message_type type, uint64_t to) {
    CHECK(type == RAFT_VOTE || type == RAFT_VOTE_REPLY || type == RAFT_APPEND_REPLY || type == RAFT_HEARTBEAT_REPLY);
    for (uint32_t i = 0; i < raft->held_count; i++) {
        if (raft->held[i].type == type && raft->held[i].to == to) {
            return &raft->held[i];
        }
    }
    if (raft->held_count == RAFT__HELD_MAX) {
        raft->held_count--;
        memmove(&raft->held[0], &raft->held[1], raft->held_count * sizeof raft->held[0]);
    }
    return &raft->held[raft->held_count++];
}

struct raft_message *raft__send(struct raft *raft, enum raft_message_type type, uint64_t to) {
    struct raft_message *message;
    bool needs_state = type != RAFT_PREVOTE && type != RAFT_PREVOTE_REPLY && type != RAFT_READ_INDEX;
    if (needs_state && !raft->state_synced) {
        message = hold(raft, type, to);
    } else {
        CHECK(raft->outbox_count < RAFT__OUTBOX_MAX);
        message = &raft->outbox[raft->outbox_count++];
    }
    memset(message, 0, sizeof *message);
    message->type = type;
    message->from = raft->id;
    message->to = to;
    message->term = raft->term;
    if (type == RAFT_APPEND_REPLY || type == RAFT_HEARTBEAT_REPLY) {
        message->life = raft->life;
        message->lost_log = raft->lost_log;
        message->needs_snapshot = raft->needs_snapshot;
    }
    return message;
}

void raft__release_held(struct raft *raft) {
    CHECK(raft->state_synced);
    for (uint32_t i = 0; i < raft->held_count; i++) {
        CHECK(raft->held[i].term == raft->term);
        if (raft->held[i].type == RAFT_VOTE && raft->role != RAFT_CANDIDATE) {
            continue;
        }
        CHECK(raft->outbox_count < RAFT__OUTBOX_MAX);
        raft->outbox[raft->outbox_count++] = raft->held[i];
    }
    raft__drop_held(raft);
}

void raft__drop_held(struct raft *raft) { raft->held_count = 0; }
