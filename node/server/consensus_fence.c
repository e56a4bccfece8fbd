/*
 * Self-fencing: a node that can't do its work doesn't lead and doesn't campaign (hazard 13). It goes on to follow and
 * to vote.
 *
 *              log write, apply: too long; no room in the log (not while it leads)
 *     SOUND ------------------------------------------------------------------------> FENCED: raft hands over, follows
 *       ^                                                                               |
 *       +---- nothing stalled for CALM_LIMITS limits (at once: there is room again) ----+
 *
 * What is too long for a log write, with L = stall_limit_ms:
 *
 *   - of a leader L, if a voter that is heard is durably ahead of our disk, and was so for half of that: it has
 *     shown that it would do better. A follower whose disk works gets there, for it is sent what we write. If it
 *     can't be ahead, for it has all that there is: 3 L. Where nobody is ahead, all disks stand still or nobody is
 *     there, and another leader would help nobody (hazard 23).
 *   - of a follower 6 L. It may lead with a slow disk; with a hung one it wouldn't even get its candidacy down.
 *
 * Applying may stand still for 8 L. A write, and an apply that moves, begin anew each time.
 *
 * Stalls are counted in looks, and one that comes late counts as one in time: where this node gets no turn (a paused
 * process, too few CPUs), what completes a write or applies gets none either, or is done and wasn't seen. Such
 * stand-stills are logged if they outlast an election timeout.
 *
 * A leader without room for records keeps the lead, for reads and refusals with the right word, but tries the other
 * voters in turn: who has room takes the lead, who hasn't is fenced and lets it pass. A single voter is never fenced
 * for being slow.
 *
 * Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    LOOKS_PER_LIMIT = 8,
    LOOK_US_MAX = 50 * 1000,
    IDLE_LIMITS = 3,
    FOLLOWER_LIMITS = 6,
    APPLY_LIMITS = 8,
    CALM_LIMITS = 2,
    ROOM_BYTES = 4096,             /* who hasn't even this much in the log is full */
    HAND_OVER_US = 2 * 1000 * 1000 /* between two attempts of a full leader */
};

static uint64_t limit_us(const struct consensus *consensus) {
    return 1000ull * consensus->options.config->stall_limit_ms;
}

static uint64_t look_us(const struct consensus *consensus) {
    uint64_t step_us = limit_us(consensus) / LOOKS_PER_LIMIT;
    return step_us < LOOK_US_MAX ? step_us : LOOK_US_MAX;
}

static bool is_other_voter(const struct consensus *consensus, const struct raft_member *member) {
    return member->role == RAFT_VOTER && member->id != consensus->options.config->id;
}

static bool has_other_voters(const struct consensus *consensus) {
    const struct raft_config *members = raft_membership(consensus->raft);
    for (uint32_t i = 0; i < members->member_count; i++) {
        if (is_other_voter(consensus, &members->members[i])) {
            return true;
        }
    }
    return false;
}

/* The newest entry that a voter who is heard holds durably; 0: there is none. Leaders only. */
static uint64_t best_match(struct consensus *consensus) {
    const struct raft *raft = consensus->raft;
    const struct raft_config *members = raft_membership(raft);
    uint64_t now_us = consensus__raft_now_us(consensus);
    uint64_t recent_us = 1000ull * consensus->options.config->election_timeout_ms;
    uint64_t best_index = 0;
    for (uint32_t i = 0; i < members->member_count; i++) {
        struct raft_peer_info peer;
        bool is_heard = is_other_voter(consensus, &members->members[i]) &&
                        raft_peer(raft, members->members[i].id, &peer) == STATUS_OK && peer.last_heard_us != 0 &&
                        now_us - peer.last_heard_us < recent_us;
        if (is_heard && peer.match_index > best_index) {
            best_index = peer.match_index;
        }
    }
    return best_index;
}

/* ---- Looking ---------------------------------------------------------------------------------------------------- */

/* The time since the last look; of one that comes late, what it should have been. */
static uint64_t note_time(struct consensus *consensus) {
    struct consensus_fence *fence = &consensus->fence;
    uint64_t now_us = consensus__now_us(consensus);
    uint64_t passed_us = now_us - fence->looked_us;
    uint64_t due_us = look_us(consensus);
    fence->looked_us = now_us;
    if (passed_us <= due_us) {
        return passed_us;
    }
    if (passed_us - due_us >= 1000ull * consensus->options.config->election_timeout_ms) {
        fence->stand_stills++;
        log_event(consensus->options.logger, LOG_WARN, "loop.stood_still", "role=%s term=%" PRIu64 " ms=%" PRIu64,
                  raft_role_name(consensus->role), consensus->term, (passed_us - due_us) / 1000);
    }
    return due_us;
}

static void watch_log(struct consensus *consensus, uint64_t passed_us) {
    struct consensus_fence *fence = &consensus->fence;
    struct wal_stats stats;
    wal_get_stats(consensus->wal, &stats);
    bool goes_on = stats.inflight_since_us != 0 && stats.inflight_since_us == fence->write_since_us;
    if (!goes_on && fence->log_stalled_us >= limit_us(consensus)) {
        log_event(consensus->options.logger, LOG_WARN, "log.stalled", "role=%s term=%" PRIu64 " ms=%" PRIu64,
                  raft_role_name(consensus->role), consensus->term, fence->log_stalled_us / 1000);
    }
    if (goes_on) {
        fence->log_stalled_us += passed_us;
    } else if (stats.inflight_since_us != 0) {
        uint64_t age_us = fence->looked_us - stats.inflight_since_us;
        fence->log_stalled_us = age_us < passed_us ? age_us : passed_us;
    } else {
        fence->log_stalled_us = 0;
    }
    fence->write_since_us = stats.inflight_since_us;
    uint64_t best_index = goes_on && consensus->role == RAFT_LEADER ? best_match(consensus) : 0;
    fence->outrun_us = best_index > raft_synced_index(consensus->raft) ? fence->outrun_us + passed_us : 0;
    bool is_level = best_index > 0 && best_index == raft_last_index(consensus->raft);
    fence->level_us = is_level ? fence->level_us + passed_us : 0;
}

static void watch_apply(struct consensus *consensus, uint64_t passed_us) {
    struct consensus_fence *fence = &consensus->fence;
    uint64_t applied_index = storage_applied_index(consensus->storage);
    bool moves = applied_index != fence->applied_index || applied_index >= consensus->commit_index;
    fence->apply_stalled_us = moves ? 0 : fence->apply_stalled_us + passed_us;
    fence->applied_index = applied_index;
}

static bool is_full(struct consensus *consensus) {
    enum status status = wal_reserve(consensus->wal, WAL_RECORD_HEADER_BYTES + ROOM_BYTES, 1);
    return status == STATUS_NO_SPACE || status == STATUS_NO_MEMORY;
}

/* ---- Judging ---------------------------------------------------------------------------------------------------- */

static bool log_is_stalled(struct consensus *consensus) {
    const struct consensus_fence *fence = &consensus->fence;
    uint64_t limit = limit_us(consensus);
    if (fence->log_stalled_us < limit || fence->reason == RAFT_FENCE_LOG_STALLED) {
        return fence->log_stalled_us >= limit;
    }
    if (consensus->role != RAFT_LEADER) {
        return fence->log_stalled_us >= FOLLOWER_LIMITS * limit;
    }
    return fence->outrun_us >= limit / 2 || fence->level_us >= IDLE_LIMITS * limit;
}

static bool apply_is_stalled(const struct consensus *consensus) {
    const struct consensus_fence *fence = &consensus->fence;
    uint64_t limit = limit_us(consensus) * (fence->reason == RAFT_FENCE_APPLY_STALLED ? 1 : APPLY_LIMITS);
    return fence->apply_stalled_us >= limit;
}

static enum raft_fence judge(struct consensus *consensus, uint64_t passed_us) {
    struct consensus_fence *fence = &consensus->fence;
    enum raft_fence reason = RAFT_FENCE_NONE;
    if (consensus->role != RAFT_LEADER && is_full(consensus)) {
        reason = RAFT_FENCE_CANT_WRITE;
    } else if (!has_other_voters(consensus)) {
        return RAFT_FENCE_NONE;
    } else if (log_is_stalled(consensus)) {
        reason = RAFT_FENCE_LOG_STALLED;
    } else if (apply_is_stalled(consensus)) {
        reason = RAFT_FENCE_APPLY_STALLED;
    }
    bool was_stalled = fence->reason == RAFT_FENCE_LOG_STALLED || fence->reason == RAFT_FENCE_APPLY_STALLED;
    fence->calm_us = reason == RAFT_FENCE_NONE ? fence->calm_us + passed_us : 0;
    if (reason == RAFT_FENCE_NONE && was_stalled && fence->calm_us < CALM_LIMITS * limit_us(consensus)) {
        return fence->reason;
    }
    return reason;
}

static void tell_raft(struct consensus *consensus, enum raft_fence reason) {
    struct consensus_fence *fence = &consensus->fence;
    const char *role = raft_role_name(consensus->role);
    fence->reason = reason;
    if (reason == RAFT_FENCE_NONE) {
        log_event(consensus->options.logger, LOG_INFO, "raft.unfenced", "role=%s term=%" PRIu64, role, consensus->term);
    } else {
        fence->count++;
        log_event(consensus->options.logger, LOG_WARN, "raft.fenced",
                  "role=%s term=%" PRIu64 " reason=\"%s\" log_ms=%" PRIu64 " apply_ms=%" PRIu64 " limit_ms=%" PRIu32,
                  role, consensus->term, raft_fence_name(reason), fence->log_stalled_us / 1000,
                  fence->apply_stalled_us / 1000, consensus->options.config->stall_limit_ms);
    }
    struct raft_event event = {.type = RAFT_EVENT_FENCE, .u.fence = reason};
    (void)consensus__step(consensus, &event);
}

/* A full leader offers the lead to one voter after the other. */
static void hand_over(struct consensus *consensus) {
    struct consensus_fence *fence = &consensus->fence;
    const struct raft_config *members = raft_membership(consensus->raft);
    if (fence->looked_us - fence->handed_us < HAND_OVER_US) {
        return;
    }
    for (uint32_t i = 0; i < members->member_count; i++) {
        const struct raft_member *member = &members->members[fence->heir++ % members->member_count];
        if (is_other_voter(consensus, member)) {
            struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .u.target = member->id};
            fence->handed_us = fence->looked_us;
            (void)consensus__step(consensus, &event);
            return;
        }
    }
}

static void arm(struct consensus *consensus) {
    if (env_timer_arm(&consensus->fence.timer, consensus->fence.looked_us + look_us(consensus)) != STATUS_OK) {
        struct error error;
        (void)error_set(&error, STATUS_NO_MEMORY, "the fence's timer can't be armed");
        consensus__fail(consensus, &error);
    }
}

static void on_look(struct env_timer *timer) {
    struct consensus *consensus = CONTAINER_OF(timer, struct consensus, fence.timer);
    if (consensus__is_dead(consensus)) {
        return;
    }
    uint64_t passed_us = note_time(consensus);
    watch_log(consensus, passed_us);
    watch_apply(consensus, passed_us);
    enum raft_fence reason = judge(consensus, passed_us);
    if (reason != consensus->fence.reason) {
        tell_raft(consensus, reason);
    }
    if (consensus->role == RAFT_LEADER && is_full(consensus)) {
        hand_over(consensus);
    }
    if (!consensus__is_dead(consensus)) {
        arm(consensus);
    }
}

/* ---- For the others --------------------------------------------------------------------------------------------- */

void fence__init(struct consensus *consensus) {
    env_timer_init(&consensus->fence.timer, consensus->options.loop, on_look);
}

void fence__start(struct consensus *consensus) {
    CHECK(consensus->fence.reason == RAFT_FENCE_NONE);
    consensus->fence.looked_us = consensus__now_us(consensus);
    consensus->fence.applied_index = storage_applied_index(consensus->storage);
    arm(consensus);
}

void fence__stop(struct consensus *consensus) { env_timer_cancel(&consensus->fence.timer); }

void fence__describe(const struct consensus *consensus, char *out, size_t size) {
    const struct consensus_fence *fence = &consensus->fence;
    switch (fence->reason) {
    case RAFT_FENCE_NONE:
    case RAFT_FENCE_COUNT: out[0] = '\0'; return;
    case RAFT_FENCE_LOG_STALLED:
        (void)snprintf(out, size,
                       "it doesn't lead: a log write took over %" PRIu32 " ms (stall_limit_ms): look at the disk",
                       consensus->options.config->stall_limit_ms);
        return;
    case RAFT_FENCE_APPLY_STALLED:
        (void)snprintf(out, size,
                       "it doesn't lead: committed entries weren't applied for %" PRIu32
                       " ms (%d times stall_limit_ms)",
                       APPLY_LIMITS * consensus->options.config->stall_limit_ms, APPLY_LIMITS);
        return;
    case RAFT_FENCE_CANT_WRITE:
        (void)snprintf(out, size, "it doesn't lead: the log has no room: free some space on its disk");
        return;
    }
    CHECK(false);
}
