/*
 * What leaves with this update, and what waits for the disk.
 *
 * A message that carries or depends on our term or vote may not leave before both are durable (DESIGN rule 3). Between
 * the change and its sync such messages are held, at most one per member and type: the newest replaces its elders, and
 * a new term drops them all. PREVOTE and its reply promise nothing and pass. A leader's APPENDs and HEARTBEATs never
 * wait here, because nobody leads before its candidacy is durable. (What a follower says about *entries* waits
 * elsewhere: follower.c.)
 */
#include "raft/raft_internal.h"

#include <string.h>

static enum raft__held held_slot(enum raft_message_type type) {
    switch (type) {
    case RAFT_VOTE: return RAFT__HELD_VOTE;
    case RAFT_VOTE_REPLY: return RAFT__HELD_VOTE_REPLY;
    case RAFT_APPEND_REPLY: return RAFT__HELD_APPEND_REPLY;
    case RAFT_HEARTBEAT_REPLY: return RAFT__HELD_HEARTBEAT_REPLY;
    default: return RAFT__HELD_COUNT;
    }
}

struct raft_message *raft__send(struct raft *raft, enum raft_message_type type, uint64_t to) {
    struct raft_message *message;
    bool needs_state = type != RAFT_PREVOTE && type != RAFT_PREVOTE_REPLY;
    if (needs_state && !raft->state_synced) {
        uint32_t position = raft__config_find(&raft->config, to);
        enum raft__held slot = held_slot(type);
        CHECK(position < raft->config.member_count && slot < RAFT__HELD_COUNT);
        message = &raft->held[position][slot];
    } else {
        CHECK(raft->outbox_count < RAFT__OUTBOX_MAX);
        message = &raft->outbox[raft->outbox_count++];
    }
    memset(message, 0, sizeof *message);
    message->type = type;
    message->from = raft->id;
    message->to = to;
    message->term = raft->term;
    return message;
}

void raft__release_held(struct raft *raft) {
    CHECK(raft->state_synced);
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        for (uint32_t slot = 0; slot < RAFT__HELD_COUNT; slot++) {
            if (raft->held[i][slot].type != 0) {
                CHECK(raft->held[i][slot].term == raft->term);
                CHECK(raft->outbox_count < RAFT__OUTBOX_MAX);
                raft->outbox[raft->outbox_count++] = raft->held[i][slot];
            }
        }
    }
    raft__drop_held(raft);
}

void raft__drop_held(struct raft *raft) { memset(raft->held, 0, sizeof raft->held); }
