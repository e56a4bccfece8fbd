/* What others may know of the core: status pages, the simulator's invariants, the log's floor. Nothing here changes it.
 */
#include "raft/raft_internal.h"

const char *raft_role_name(enum raft_role role) {
    switch (role) {
    case RAFT_FOLLOWER: return "follower";
    case RAFT_PRECANDIDATE: return "precandidate";
    case RAFT_CANDIDATE: return "candidate";
    case RAFT_LEADER: return "leader";
    }
    return "unknown";
}

enum raft_role raft_role(const struct raft *raft) { return raft->role; }

uint64_t raft_id(const struct raft *raft) { return raft->id; }

uint64_t raft_term(const struct raft *raft) { return raft->term; }

uint64_t raft_vote(const struct raft *raft) { return raft->vote; }

uint64_t raft_leader(const struct raft *raft) { return raft->leader; }

uint64_t raft_commit_index(const struct raft *raft) { return raft->commit_index; }

uint64_t raft_synced_index(const struct raft *raft) { return raft->synced_index; }

uint64_t raft_last_index(const struct raft *raft) { return raft->log.last_index; }

uint64_t raft_first_index(const struct raft *raft) { return raft->log.start_index + 1; }

uint64_t raft_term_at(const struct raft *raft, uint64_t index) { return raft__log_term_at(&raft->log, index); }

uint64_t raft_floor_index(const struct raft *raft) { return raft->floor_index; }

const char *raft_peer_state_name(enum raft_peer_state state) {
    switch (state) {
    case RAFT_PEER_PROBE: return "probe";
    case RAFT_PEER_REPLICATE: return "replicate";
    case RAFT_PEER_SNAPSHOT: return "snapshot";
    }
    return "unknown";
}

const char *raft_fence_name(enum raft_fence fence) {
    switch (fence) {
    case RAFT_FENCE_NONE: return "none";
    case RAFT_FENCE_LOG_STALLED: return "log stalled";
    case RAFT_FENCE_APPLY_STALLED: return "apply stalled";
    case RAFT_FENCE_CANT_WRITE: return "can't write";
    case RAFT_FENCE_COUNT: break;
    }
    return "unknown";
}

void raft_get_info(const struct raft *raft, struct raft_info *ret_info) {
    *ret_info =
        (struct raft_info){.config_index = raft->config_index,
                           .config_is_committed = raft->config_index <= raft->commit_index,
                           .is_voter = raft->votes,
                           .incarnation = raft->incarnation,
                           .recorded_incarnation =
                               raft->self == RAFT__NOWHERE ? 0 : raft->config.members[raft->self].incarnation,
                           .fence = raft->fence,
                           .transfer_target = raft->transfer.target,
                           .reads_waiting_round = raft->reads.issued > raft->reads.done ? raft->reads.issued : 0,
                           .uncommitted_bytes = raft__log_bytes(&raft->log, raft->commit_index, raft->log.last_index),
                           .leader_heard_us = raft->leader_heard_us,
                           .heal_index = raft->heal_index,
                           .heal_term = raft->heal_term,
                           .went_back_count = raft->went_back_count,
                           .went_back_id = raft->went_back_id,
                           .needs_snapshot = raft->needs_snapshot,
                           .prefer_after_us = raft__prefer_after_us(raft)};
}

const struct raft_config *raft_membership(const struct raft *raft) { return &raft->config; }

static_assert(LIMIT_MEMBERS <= 32, "a set of members fits 32 bits");

bool raft_is_quorum(const struct raft *raft, uint32_t positions) {
    uint64_t values[LIMIT_MEMBERS] = {0};
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        values[i] = positions >> i & 1;
    }
    return raft__config_quorum(&raft->config, values) == 1;
}

enum status raft_peer(const struct raft *raft, uint64_t id, struct raft_peer_info *ret_info) {
    uint32_t position = raft__config_find(&raft->config, id);
    if (raft->role != RAFT_LEADER || position == RAFT__NOWHERE || id == raft->id) {
        return STATUS_NOT_FOUND;
    }
    const struct raft__peer *peer = &raft->peers[position];
    *ret_info = (struct raft_peer_info){.id = id,
                                        .match_index = peer->match_index,
                                        .next_index = peer->next_index,
                                        .last_heard_us = peer->heard_us,
                                        .is_heard = raft__peer_is_heard(raft, peer),
                                        .inflight_appends = peer->inflight_count,
                                        .inflight_bytes = peer->inflight_bytes,
                                        .state = peer->progress,
                                        .elder_since_us = peer->elder_us,
                                        .needs_snapshot = peer->needs_snapshot,
                                        .stranger = peer->stranger,
                                        .stranger_since_us = peer->stranger == 0 ? 0 : peer->stranger_us,
                                        .return_refusal = peer->return_refusal};
    return STATUS_OK;
}
