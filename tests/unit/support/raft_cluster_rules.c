/*
 * What must hold in a random cluster (raft_cluster.h):
 *
 *   one leader per term; the same (index, term) is the same entry after the same predecessor everywhere (log matching);
 * a new leader has all that was ever committed; nodes commit the same entries in the same order; what a leader commits
 * is on the disks of a majority; nothing leaves before its term, vote and entries are on disk; only candidates ask for
 * votes; a confirmed read sees all that was committed before it was asked; the floor is on every disk.
 *
 * Where the membership changes, a majority is what the leader's configuration says, joint or not; and nobody campaigns
 * who has no vote or is fenced, nor leads once a configuration without its vote is committed.
 */
#include "tests/unit/support/raft_cluster.h"

#include "node/base/check.h"

static uint64_t term_on_disk(const struct raft_node *node, uint64_t index) {
    return index >= 1 && index <= node->disk_log.count ? node->disk_log.items[index - 1].term : 0;
}

static uint64_t term_in_log(const struct raft_node *node, uint64_t index) {
    return index >= 1 && index <= node->log.count ? node->log.items[index - 1].term : 0;
}

static struct known_entry *known_slot(struct cluster *cluster, uint64_t index, uint64_t term) {
    size_t count = sizeof cluster->known / sizeof cluster->known[0];
    size_t at = (size_t)((index * 0x9e3779b97f4a7c15u) ^ (term * 0xc2b2ae3d27d4eb4fu)) % count;
    for (size_t probes = 0; probes < count; probes++, at = (at + 1) % count) {
        struct known_entry *entry = &cluster->known[at];
        if (entry->index == 0 || (entry->index == index && entry->term == term)) {
            return entry;
        }
    }
    CHECK(false && "the table of entries is too small");
    return NULL;
}

void cluster_check_log_matching(struct cluster *cluster, const struct member *member, uint64_t first) {
    const struct raft_node *node = &member->node;
    for (uint64_t index = first; index <= node->log.count; index++) {
        const struct raft_record *record = &node->log.items[index - 1];
        uint64_t previous_term = term_in_log(node, index - 1);
        struct known_entry *known = known_slot(cluster, index, record->term);
        if (known->index == 0) {
            *known = (struct known_entry){.index = index,
                                          .term = record->term,
                                          .value = record->value,
                                          .previous_term = previous_term};
        }
        EXPECT(cluster, known->value == record->value);
        EXPECT(cluster, known->previous_term == previous_term);
    }
}

static void check_leader(struct cluster *cluster, const struct member *member) {
    const struct raft_node *node = &member->node;
    uint64_t term = raft_term(node->raft);
    EXPECT(cluster, term < TERMS_MAX);
    EXPECT(cluster, cluster->leader_of_term[term] == 0 || cluster->leader_of_term[term] == node->id);
    if (cluster->leader_of_term[term] == 0) {
        cluster->elections++;
    }
    cluster->leader_of_term[term] = node->id;
    for (uint64_t index = 1; index <= cluster->committed_index; index++) {
        EXPECT(cluster, term_in_log(node, index) == cluster->committed[index].term);
    }
}

/* The definition of a quorum, by counting: how many of each set have this entry on disk. */
static bool is_on_quorum(struct cluster *cluster, const struct raft_config *config, uint64_t index, uint64_t term) {
    uint32_t sizes[2] = {0, 0};
    uint32_t held[2] = {0, 0};
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct raft_member *member = &config->members[i];
        const struct member *of = cluster_member_of(cluster, member->id);
        bool in[2] = {member->role == RAFT_VOTER, config->joint && member->in_outgoing};
        for (int set = 0; set < 2; set++) {
            sizes[set] += in[set];
            held[set] += in[set] && of != NULL && term_on_disk(&of->node, index) == term;
        }
    }
    return held[0] * 2 > sizes[0] && (!config->joint || held[1] * 2 > sizes[1]);
}

static void check_commit(struct cluster *cluster, struct member *member) {
    const struct raft_node *node = &member->node;
    uint64_t commit = raft_commit_index(node->raft);
    EXPECT(cluster, commit >= member->seen_commit);
    for (uint64_t index = member->seen_commit + 1; index <= commit; index++) {
        const struct raft_record *record = &node->log.items[index - 1];
        if (index > cluster->committed_index) {
            /* What was effective before the step: the step may have gone on to the next one, or ended the lead. */
            EXPECT(cluster, member->role == RAFT_LEADER || raft_role(node->raft) == RAFT_LEADER);
            EXPECT(cluster, is_on_quorum(cluster, &member->seen_config, index, record->term));
            CHECK(index < INDEXES_MAX);
            cluster->committed[index] = (struct committed){.term = record->term, .value = record->value};
            cluster->committed_index = index;
        }
        EXPECT(cluster, cluster->committed[index].term == record->term);
        EXPECT(cluster, cluster->committed[index].value == record->value);
    }
    member->seen_commit = commit;
}

static void check_reads(struct cluster *cluster, struct member *member) {
    const struct raft_update *update = &member->node.update;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < member->read_count; i++) {
        if (member->reads[i].round <= update->ready_round) {
            EXPECT(cluster, update->ready_index >= member->reads[i].committed_before);
            cluster->reads_answered++;
        } else if (!update->reads_failed) {
            member->reads[kept++] = member->reads[i];
        }
    }
    member->read_count = kept;
}

static bool same_voters(const struct raft_config *a, const struct raft_config *b) {
    uint32_t counts[2] = {0, 0};
    uint32_t both = 0;
    for (uint32_t i = 0; i < a->member_count; i++) {
        counts[0] += a->members[i].role == RAFT_VOTER;
        for (uint32_t k = 0; k < b->member_count; k++) {
            both += a->members[i].id == b->members[k].id && a->members[i].role == RAFT_VOTER &&
                    b->members[k].role == RAFT_VOTER;
        }
    }
    for (uint32_t k = 0; k < b->member_count; k++) {
        counts[1] += b->members[k].role == RAFT_VOTER;
    }
    return counts[0] == both && counts[1] == both;
}

static bool is_member(const struct raft_config *config, uint64_t id) {
    for (uint32_t i = 0; i < config->member_count; i++) {
        if (config->members[i].id == id) {
            return true;
        }
    }
    return false;
}

/* A leader goes on to the next configuration only from a committed one, after a commit of its own term; voters change
 * by way of a joint configuration, which is left as it is; and ids aren't used again. */
static void check_change(struct cluster *cluster, const struct member *member) {
    const struct raft_node *node = &member->node;
    if (node->update.append.source != RAFT_APPEND_CONFIG) {
        return;
    }
    uint64_t commit = raft_commit_index(node->raft);
    const struct raft_config *config = node->update.append.config;
    EXPECT(cluster, member->seen_config_index <= commit);
    EXPECT(cluster, raft_term_at(node->raft, commit) == raft_term(node->raft));
    EXPECT(cluster, !config->joint || !member->seen_config.joint);
    EXPECT(cluster, config->joint || same_voters(&member->seen_config, config));
    EXPECT(cluster, config->retired_id >= member->seen_config.retired_id);
    for (uint32_t i = 0; i < config->member_count; i++) {
        uint64_t id = config->members[i].id;
        EXPECT(cluster, id > member->seen_config.retired_id || is_member(&member->seen_config, id));
    }
    for (uint32_t i = 0; i < member->seen_config.member_count; i++) {
        uint64_t id = member->seen_config.members[i].id;
        EXPECT(cluster, id <= config->retired_id || is_member(config, id));
    }
}

static void check_standing(struct cluster *cluster, const struct member *member) {
    const struct raft *raft = member->node.raft;
    struct raft_info info;
    raft_get_info(raft, &info);
    EXPECT(cluster, info.is_voter || !info.config_is_committed || raft_role(raft) == RAFT_FOLLOWER ||
                        raft_role(raft) == RAFT_LEADER);
    EXPECT(cluster, info.fence == RAFT_FENCE_NONE || raft_role(raft) == RAFT_FOLLOWER);
    bool must_lead_no_more = info.config_is_committed && !info.is_voter && !raft_membership(raft)->joint;
    EXPECT(cluster, !must_lead_no_more || raft_role(raft) == RAFT_FOLLOWER);
    EXPECT(cluster, cluster->changing || member->node.update.snapshot_peer_count == 0);
}

/* Whom the leader has to send a snapshot gets one in a while. */
static void note_snapshots(struct cluster *cluster, const struct member *member) {
    const struct raft_update *update = &member->node.update;
    for (uint32_t i = 0; i < update->snapshot_peer_count; i++) {
        EXPECT(cluster, cluster->transfer_count < TRANSFERS_MAX);
        cluster->transfers[cluster->transfer_count++] =
            (struct transfer){.from = member->node.id,
                              .to = update->snapshot_peers[i],
                              .due_us = cluster->now_us + cluster_below(cluster, ELECTION_US),
                              .term = update->term};
    }
}

void cluster_note_config(struct member *member) {
    struct raft_info info;
    raft_get_info(member->node.raft, &info);
    member->seen_config = *raft_membership(member->node.raft);
    member->seen_config_index = info.config_index;
}

void cluster_check_member(struct cluster *cluster, struct member *member) {
    struct raft_node *node = &member->node;
    const struct raft_update *update = &node->update;
    if (update->append.count > 0) {
        cluster_check_log_matching(cluster, member, update->append.first_index);
    }
    if (raft_role(node->raft) == RAFT_LEADER && member->role != RAFT_LEADER) {
        check_leader(cluster, member);
    }
    check_commit(cluster, member);
    member->role = raft_role(node->raft);
    check_change(cluster, member);
    cluster_note_config(member);
    check_reads(cluster, member);
    check_standing(cluster, member);
    note_snapshots(cluster, member);
    uint64_t floor_index = cluster->changing ? 0 : raft_floor_index(node->raft);
    for (uint32_t i = 0; floor_index > 0 && i < cluster->count; i++) {
        EXPECT(cluster, term_on_disk(&cluster->members[i].node, floor_index) == term_in_log(node, floor_index));
    }
}

void cluster_check_departure(struct cluster *cluster, const struct raft_message *message) {
    const struct raft_node *node = &cluster_member_of(cluster, message->from)->node;
    if (message->type == RAFT_PREVOTE || message->type == RAFT_PREVOTE_REPLY || message->type == RAFT_READ_INDEX) {
        return;
    }
    EXPECT(cluster, message->type != RAFT_VOTE || raft_role(node->raft) == RAFT_CANDIDATE);
    EXPECT(cluster, message->term == raft_term(node->raft));
    EXPECT(cluster, node->disk_term == message->term);
    EXPECT(cluster, node->disk_vote == raft_vote(node->raft));
    if (message->type == RAFT_VOTE_REPLY && !message->reject) {
        EXPECT(cluster, node->disk_vote == message->to);
    }
    bool states_match =
        (message->type == RAFT_APPEND_REPLY && !message->reject) || message->type == RAFT_HEARTBEAT_REPLY;
    if (states_match && message->index > 0) {
        EXPECT(cluster, term_on_disk(node, message->index) == term_in_log(node, message->index));
    }
}
