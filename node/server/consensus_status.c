/*
 * What the consensus actor says of itself: answers to status queries, and the few words that any thread may read at
 * once.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>
#include <stdio.h>

static void fill_members(const struct consensus *consensus, struct consensus_status *status, uint64_t now_us) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    struct raft_info state;
    raft_get_info(consensus->raft, &state);
    status->config_index = state.config_index;
    status->config_is_committed = state.config_is_committed;
    status->config_is_joint = membership->joint;
    status->transfer_target = state.transfer_target;
    status->member_count = membership->member_count;
    for (uint32_t i = 0; i < membership->member_count; i++) {
        struct consensus_member_status *member = &status->members[i];
        struct raft_peer_info info;
        struct directory_entry entry;
        directory_merge(consensus->options.config, &membership->members[i], &entry);
        *member = (struct consensus_member_status){.id = entry.id,
                                                   .role = membership->members[i].role,
                                                   .priority = membership->members[i].priority,
                                                   .state = RAFT_PEER_REPLICATE,
                                                   .heard_ms_ago = UINT64_MAX};
        memcpy(member->name, entry.name, sizeof member->name);
        memcpy(member->peer_address, entry.peer_address, sizeof member->peer_address);
        memcpy(member->client_address, entry.client_address, sizeof member->client_address);
        memcpy(member->thumbprint, entry.thumbprint, sizeof member->thumbprint);
        if (member->id == consensus->options.config->id) {
            member->match_index = status->synced_index;
            member->heard_ms_ago = 0;
        } else if (raft_peer(consensus->raft, member->id, &info) == STATUS_OK) {
            member->match_index = info.match_index;
            member->state = info.state;
            member->heard_ms_ago = info.last_heard_us == 0 ? UINT64_MAX : (now_us - info.last_heard_us) / 1000;
        }
    }
}

static void fill_problem(const struct consensus *consensus, struct consensus_status *status) {
    const struct error *problem =
        consensus->failure.code != STATUS_OK ? &consensus->failure : &consensus->space_problem;
    if (problem->code != STATUS_OK) {
        (void)snprintf(status->problem, sizeof status->problem, "%s", problem->message);
    } else if (consensus->fence.reason != RAFT_FENCE_NONE) {
        fence__describe(consensus, status->problem, sizeof status->problem);
    } else if (digest__problem(consensus, status->problem, sizeof status->problem) ||
               scan__problem(consensus, status->problem, sizeof status->problem)) {
        return;
    } else if (status->storage.problem[0] != '\0') {
        (void)snprintf(status->problem, sizeof status->problem, "%s", status->storage.problem);
    } else if (status->snapshots.failed_peer != 0) {
        (void)snprintf(status->problem, sizeof status->problem, "follower %s gets no snapshot: %.160s",
                       member__name(consensus, status->snapshots.failed_peer), status->snapshots.problem);
    } else {
        (void)member__problem(consensus, status->problem, sizeof status->problem);
    }
}

static void fill_status(struct consensus *consensus, struct consensus_status *status) {
    const struct raft *raft = consensus->raft;
    *status = (struct consensus_status){
        .role = raft_role(raft),
        .term = raft_term(raft),
        .leader_id = raft_leader(raft),
        .first_index = raft_first_index(raft),
        .last_index = raft_last_index(raft),
        .synced_index = raft_synced_index(raft),
        .commit_index = raft_commit_index(raft),
        .applied_index = storage_applied_index(consensus->storage),
        .flushed_index = storage_frontier(consensus->storage)->index,
        .elections_started = consensus->elections_started,
        .fences = consensus->fence.count,
        .stand_stills = consensus->fence.stand_stills,
        .proposals_waiting = consensus->proposal_count,
    };
    wal_get_stats(consensus->wal, &status->wal);
    storage_get_stats(consensus->storage, &status->storage);
    digest__fill_status(consensus, status);
    scan__fill_status(consensus, status);
    status->replay_us = budget__replay_us(consensus);
    fill_members(consensus, status, consensus__raft_now_us(consensus));
    snapshots_get_status(consensus->snapshots, &status->snapshots);
    fill_problem(consensus, status);
    heal__fill_status(consensus, status);
    rebuild__fill_status(consensus, status);
}

static void run_done(struct env_message *message) {
    struct consensus_status_query *query = CONTAINER_OF(message, struct consensus_status_query, message);
    query->done(query);
}

static void run_query(struct env_message *message) {
    struct consensus_status_query *query = CONTAINER_OF(message, struct consensus_status_query, message);
    fill_status(query->consensus, &query->status);
    query->message.run = run_done;
    env_post(query->loop, &query->message);
}

void consensus_query_status(struct consensus *consensus, struct consensus_status_query *query) {
    query->consensus = consensus;
    query->message.run = run_query;
    env_post(consensus->options.loop, &query->message);
}

uint64_t consensus_leader(const struct consensus *consensus) {
    return atomic_load_explicit(&consensus->leader_id, memory_order_relaxed);
}

uint64_t consensus_progress_us(const struct consensus *consensus) {
    return atomic_load_explicit(&consensus->progress_us, memory_order_relaxed);
}

struct storage *consensus_storage(struct consensus *consensus) {
    return consensus->storage;
}
