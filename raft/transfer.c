/*
 * Handing the lead over (thesis, section 3.10).
 *
 *     none --- asked --> CATCHING UP: proposals wait --- target has everything --> TOLD: TIMEOUT_NOW, again at each
 *       ^                                  |                                        heartbeat
 *       +------ an election timeout -------+-----------------------------------------+   (or a higher term: done)
 *
 * Preferred leaders. A leader that finds a voter of higher priority keeping up for a while hands over to it. "A while"
 * doubles each time that the lead comes back soon (the preferred node couldn't hold it: a partial partition, a slow
 * disk) or that the transfer fails, so a preference never becomes a flutter.
 *
 * A node that is fenced abdicates: it tells who is best, if anybody is, and follows.
 */
#include "raft/raft_internal.h"

enum {
    PREFER_AFTER_TIMEOUTS = 4, /* election timeouts that a preferred node keeps up before it gets the lead */
    DISAPPOINTMENTS_MAX = 10,  /* doublings of that */
    SOON_FACTOR = 4            /* the lead came back within so many times the wait: it was handed over in vain */
};

void raft__transfer_reset(struct raft *raft) {
    raft->transfer.target = RAFT_NO_NODE;
    raft->preferred.id = RAFT_NO_NODE;
}

static bool may_be_target(const struct raft *raft, uint32_t position) {
    return position != raft->self && raft->config.members[position].role == RAFT_VOTER &&
           raft->peers[position].needs_snapshot == 0 && raft__peer_is_heard(raft, &raft->peers[position]);
}

uint64_t raft__transfer_best(const struct raft *raft) {
    uint32_t best = RAFT__NOWHERE;
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        if (!may_be_target(raft, i)) {
            continue;
        }
        uint64_t match = raft->peers[i].match_index;
        bool better = best == RAFT__NOWHERE || match > raft->peers[best].match_index ||
                      (match == raft->peers[best].match_index &&
                       raft->config.members[i].priority > raft->config.members[best].priority);
        best = better ? i : best;
    }
    return best == RAFT__NOWHERE ? RAFT_NO_NODE : raft->config.members[best].id;
}

void raft__transfer_abdicate(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    uint64_t heir = raft__transfer_best(raft);
    if (heir != RAFT_NO_NODE) {
        (void)raft__send(raft, RAFT_TIMEOUT_NOW, heir);
    }
    raft__step_down(raft);
}

/* ---- A transfer ------------------------------------------------------------------------------------------------- */

static void begin(struct raft *raft, uint64_t target, bool preferred) {
    raft->transfer.target = target;
    raft->transfer.deadline_us = raft->now_us + raft->options.election_timeout_us;
    raft->transfer.preferred = preferred;
    raft__transfer_advance(raft);
}

static enum raft_refusal refusal_of(const struct raft *raft, uint64_t target) {
    if (raft->transfer.target != RAFT_NO_NODE) {
        return RAFT_REFUSAL_TRANSFER_IN_PROGRESS;
    }
    if (target == RAFT_NO_NODE) {
        return RAFT_REFUSAL_UNREACHABLE; /* there is no best */
    }
    if (target == raft->id) {
        return RAFT_REFUSAL_IS_LEADER;
    }
    uint32_t position = raft__config_find(&raft->config, target);
    if (position == RAFT__NOWHERE) {
        return RAFT_REFUSAL_UNKNOWN_NODE;
    }
    if (raft->config.members[position].role != RAFT_VOTER) {
        return RAFT_REFUSAL_NOT_A_VOTER;
    }
    return may_be_target(raft, position) ? RAFT_REFUSAL_NONE : RAFT_REFUSAL_UNREACHABLE;
}

enum status raft__transfer(struct raft *raft, uint64_t target) {
    if (raft->role != RAFT_LEADER) {
        return STATUS_NOT_LEADER;
    }
    target = target == RAFT_NO_NODE ? raft__transfer_best(raft) : target;
    raft->update.refusal = refusal_of(raft, target);
    if (raft->update.refusal != RAFT_REFUSAL_NONE) {
        return STATUS_CONDITION;
    }
    begin(raft, target, false);
    return STATUS_OK;
}

void raft__transfer_advance(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    if (raft->transfer.target == RAFT_NO_NODE) {
        return;
    }
    const struct raft__peer *peer = raft__peer_of(raft, raft->transfer.target);
    if (peer != NULL && peer->match_index == raft->log.last_index) {
        (void)raft__send(raft, RAFT_TIMEOUT_NOW, peer->id);
    }
}

/* ---- Preferred leaders ------------------------------------------------------------------------------------------ */

uint64_t raft__prefer_after_us(const struct raft *raft) {
    return (raft->options.election_timeout_us * PREFER_AFTER_TIMEOUTS) << raft->preferred.disappointed;
}

static void note_disappointment(struct raft *raft) {
    if (raft->preferred.disappointed < DISAPPOINTMENTS_MAX) {
        raft->preferred.disappointed++;
    }
}

/* Who should lead for its priority and could; RAFT_NO_NODE if nobody. */
static uint64_t find_preferred(const struct raft *raft) {
    uint32_t best = raft->self;
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        bool higher = raft->config.members[i].priority > raft->config.members[best].priority;
        if (higher && may_be_target(raft, i) && raft__peer_keeps_up(raft, &raft->peers[i])) {
            best = i;
        }
    }
    return best == raft->self ? RAFT_NO_NODE : raft->config.members[best].id;
}

static void prefer(struct raft *raft) {
    bool busy = raft->transfer.target != RAFT_NO_NODE || raft->config.joint || raft->self == RAFT__NOWHERE ||
                raft->config_index > raft->commit_index || raft->commit_index < raft->term_first_index;
    uint64_t id = busy ? RAFT_NO_NODE : find_preferred(raft);
    if (id != raft->preferred.id) {
        raft->preferred.id = id;
        raft->preferred.since_us = raft->now_us;
    }
    if (id != RAFT_NO_NODE && raft->now_us - raft->preferred.since_us >= raft__prefer_after_us(raft)) {
        raft->preferred.handed_us = raft->now_us;
        begin(raft, id, true);
    }
}

void raft__transfer_note_office(struct raft *raft) {
    raft__transfer_reset(raft);
    uint64_t handed_us = raft->preferred.handed_us;
    if (handed_us == 0) {
        return;
    }
    raft->preferred.handed_us = 0;
    if (raft->now_us - handed_us < SOON_FACTOR * raft__prefer_after_us(raft)) {
        note_disappointment(raft);
    } else {
        raft->preferred.disappointed = 0;
    }
}

void raft__transfer_expire(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    if (raft->transfer.target == RAFT_NO_NODE || raft->now_us < raft->transfer.deadline_us) {
        return;
    }
    if (raft->transfer.preferred) {
        raft->preferred.handed_us = 0;
        note_disappointment(raft);
    }
    raft__transfer_reset(raft);
    raft->update.transfer_failed = true;
}

void raft__transfer_heartbeat(struct raft *raft) {
    raft__transfer_advance(raft);
    prefer(raft);
}
