/*
 * The leader's part in filling other members' stores again: whom to tell, and whether that can be afforded (rebuild.h).
 *
 * An order goes with each heartbeat to the member until its answers say that it asks for a snapshot, or ORDER_US have
 * passed. It is a leader's own: the next one knows nothing of it. A member obeys an operator always, a mismatch only if
 * its own configuration allows that, and not right after it was filled: what was said of it then is of before.
 *
 * Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

enum { ORDER_US = 10 * 1000 * 1000 };

static bool is_pending(const struct consensus *consensus, const struct rebuild_order *order) {
    struct raft_peer_info info;
    return order->peer != 0 && env_now_us(consensus->options.loop) - order->since_us < ORDER_US &&
           raft_peer(consensus->raft, order->peer, &info) == STATUS_OK && info.needs_snapshot == 0;
}

/* A mismatch is found again and again, and a member may be configured not to heed that: it doesn't keep an operator's
 * order out. */
void rebuild__order(struct consensus *consensus, uint64_t peer, enum rebuild_reason reason) {
    struct rebuild_order *place = NULL;
    struct raft_peer_info info;
    if (raft_peer(consensus->raft, peer, &info) != STATUS_OK || info.needs_snapshot > 0) {
        return;
    }
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        struct rebuild_order *order = &consensus->rebuild.orders[i];
        bool is_free = !is_pending(consensus, order);
        if (!is_free && order->peer == peer) {
            place = reason == REBUILD_OPERATOR ? order : NULL;
            break;
        }
        place = is_free ? order : place;
    }
    if (place != NULL) {
        *place = (struct rebuild_order){.peer = peer, .reason = reason, .since_us = consensus__now_us(consensus)};
    }
}

void rebuild__tag(const struct consensus *consensus, struct raft_message *message) {
    for (uint32_t i = 0; message->type == RAFT_HEARTBEAT && i < LIMIT_MEMBERS; i++) {
        const struct rebuild_order *order = &consensus->rebuild.orders[i];
        if (order->peer == message->to && is_pending(consensus, order)) {
            message->needs_snapshot = order->reason;
        }
    }
}

/* The member does what it was told. */
static void forget_order(struct consensus *consensus, uint64_t peer) {
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        struct rebuild_order *order = &consensus->rebuild.orders[i];
        order->peer = order->peer == peer ? 0 : order->peer;
    }
}

void rebuild__received(struct consensus *consensus, const struct raft_message *message) {
    bool is_answer = message->type == RAFT_APPEND_REPLY || message->type == RAFT_HEARTBEAT_REPLY;
    if (is_answer && message->needs_snapshot > 0) {
        forget_order(consensus, message->from);
    }
    if (message->type != RAFT_HEARTBEAT || message->needs_snapshot == 0 || consensus__is_dead(consensus) ||
        message->term != raft_term(consensus->raft) || message->from != raft_leader(consensus->raft)) {
        return;
    }
    bool may_by_itself = consensus->options.config->rebuild_on_mismatch &&
                         consensus__now_us(consensus) >= consensus->rebuild.not_before_us;
    if (message->needs_snapshot == REBUILD_OPERATOR) {
        rebuild__want(consensus, REBUILD_OPERATOR);
    } else if (message->needs_snapshot == REBUILD_MISMATCH && may_by_itself) {
        rebuild__want(consensus, REBUILD_MISMATCH);
    }
}

/* The others that are heard, with whole stores, as positions in the membership. */
static uint32_t whole_others(struct consensus *consensus, uint64_t id) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    uint32_t positions = 0;
    for (uint32_t i = 0; i < membership->member_count; i++) {
        struct raft_peer_info info;
        uint64_t member = membership->members[i].id;
        bool is_whole =
            member == consensus->options.config->id
                ? consensus->rebuild.state == REBUILD_NONE
                : raft_peer(consensus->raft, member, &info) == STATUS_OK && info.needs_snapshot == 0 && info.is_heard;
        positions |= is_whole && member != id ? UINT32_C(1) << i : 0;
    }
    return positions;
}

const char *rebuild__refusal(struct consensus *consensus, uint64_t id) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    struct raft_peer_info info;
    bool is_self = id == consensus->options.config->id;
    bool is_learner = false;
    for (uint32_t i = 0; i < membership->member_count; i++) {
        is_learner = is_learner || (membership->members[i].id == id && membership->members[i].role == RAFT_LEARNER);
    }
    if (!is_self && raft_peer(consensus->raft, id, &info) != STATUS_OK) {
        return "there is no such member";
    }
    if (!is_self && !info.is_heard) {
        return "the member can't be reached";
    }
    uint32_t others = whole_others(consensus, id);
    if (is_learner) {
        return others != 0 ? NULL : "no other member's store is known to be whole";
    }
    if (!raft_is_quorum(consensus->raft, others)) {
        return is_self ? "it leads, and no quorum of others with whole stores could take over"
                       : "the others that can be reached and have whole stores are no quorum without it";
    }
    return NULL;
}
