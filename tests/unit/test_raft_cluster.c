/*
 * Random clusters of 3 and 5 nodes, and clusters of up to 7 whose membership changes: messages are lost, doubled,
 * delayed and reordered, links break one way or both, disks are slow, nodes stand still for a while, nodes crash and
 * lose what wasn't synced, logs are trimmed. After every step of a node:
 *
 *   one leader per term; the same (index, term) is the same entry after the same predecessor everywhere (log matching);
 * a new leader has all that was ever committed; nodes commit the same entries in the same order; what a leader commits
 * is on the disks of a majority; nothing leaves before its term, vote and entries are on disk; a confirmed read sees
 * all that was committed before it was asked; the floor is on every disk.
 *
 * Where the membership changes, nodes are added, promoted, demoted, removed and preferred at random, leaders hand over
 * and are fenced, logs are trimmed without regard to followers, who then install snapshots, and everybody reads. There
 * a majority is what the leader's configuration says, joint or not; and nobody campaigns who has no vote or is fenced,
 * nor leads once a configuration without its vote is committed.
 *
 * At the end everything heals, and the cluster must commit again everywhere. Breaks if any safety rule of raft/ is
 * dropped.
 *
 * With HOLDFAST_TRACES=DIR the first runs of each kind leave their traces there (tests/sim/TRACE.md), for the judge
 * that knows none of this code.
 */
#include "node/base/check.h"
#include "node/base/random.h"
#include "tests/unit/support/raft_node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    NODES_MAX = 7,
    TRACES_EACH = 5,
    TRANSFERS_MAX = 16,
    PACKETS_MAX = 600,
    TERMS_MAX = 4096,
    INDEXES_MAX = 8192,
    READS_MAX = 64,
    ELECTION_US = 100 * 1000,
    HEARTBEAT_US = 20 * 1000
};

/* What the whole cluster ever agreed on. */
struct committed {
    uint64_t term;
    uint64_t value;
};

/* An entry that was ever in any log, in a hash table by (index, term). */
struct known_entry {
    uint64_t index;
    uint64_t term;
    uint64_t value;
    uint64_t previous_term;
};

struct waiting_read {
    uint64_t round;
    uint64_t committed_before;
};

struct member {
    struct raft_node node;
    enum raft_role role;
    uint64_t seen_last;
    uint64_t seen_commit;
    uint64_t seen_term_of_last;
    uint32_t disk_every; /* a group completes with chance 1 in this */
    uint64_t restart_at_us;
    uint64_t paused_until_us; /* the process stands still, and may find reads before it notices the time */
    struct waiting_read reads[READS_MAX];
    uint32_t read_count;
    struct raft_config seen_config;
    uint64_t seen_config_index;
    uint64_t fenced_until_us; /* 0: it isn't */
};

/* A snapshot on its way. */
struct transfer {
    uint64_t from;
    uint64_t to;
    uint64_t due_us;
    uint64_t term; /* of the sender */
};

struct cluster {
    struct trace *trace; /* or NULL */
    uint64_t seed;
    struct random random;
    uint32_t count;
    uint64_t now_us;
    uint64_t next_value;
    bool calm;
    bool changing;        /* the membership changes */
    uint32_t links_every; /* how often links change and nodes crash: chance 1 in this, per turn */
    uint32_t crash_every;
    bool link[NODES_MAX][NODES_MAX];
    struct member members[NODES_MAX];
    struct raft_packet *packets[PACKETS_MAX];
    uint32_t packet_count;
    uint64_t leader_of_term[TERMS_MAX];
    struct committed committed[INDEXES_MAX];
    uint64_t committed_index;
    struct known_entry known[INDEXES_MAX * 4];
    uint32_t elections;
    uint32_t reads_answered;
    uint32_t crashes;
    struct transfer transfers[TRANSFERS_MAX];
    uint32_t transfer_count;
    uint32_t changes;
    uint32_t refusals;
    uint32_t handovers;
    uint32_t installs;
    uint32_t reads_from_afar;
};

#define EXPECT(cluster, condition)                                                                                     \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fail_msg("seed %llu, %u nodes, %llu us: %s", (unsigned long long)(cluster)->seed, (cluster)->count,        \
                     (unsigned long long)(cluster)->now_us, #condition);                                               \
        }                                                                                                              \
    } while (0)

static uint64_t below(struct cluster *cluster, uint64_t bound) { return random_below(&cluster->random, bound); }

/* ---- What must hold --------------------------------------------------------------------------------------------- */

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

static void check_log_matching(struct cluster *cluster, const struct member *member, uint64_t first) {
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
static bool is_on_quorum(const struct cluster *cluster, const struct raft_config *config, uint64_t index,
                         uint64_t term) {
    uint32_t sizes[2] = {0, 0};
    uint32_t held[2] = {0, 0};
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct raft_member *member = &config->members[i];
        bool in[2] = {member->role == RAFT_VOTER, config->joint && member->in_outgoing};
        for (int set = 0; set < 2; set++) {
            sizes[set] += in[set];
            held[set] += in[set] && term_on_disk(&cluster->members[member->id - 1].node, index) == term;
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
    uint64_t voters[2] = {0, 0};
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        voters[0] |= i < a->member_count && a->members[i].role == RAFT_VOTER ? 1u << a->members[i].id : 0;
        voters[1] |= i < b->member_count && b->members[i].role == RAFT_VOTER ? 1u << b->members[i].id : 0;
    }
    return voters[0] == voters[1];
}

/* A leader goes on to the next configuration only from a committed one, after a commit of its own term; and voters
 * change by way of a joint configuration, which is left as it is. */
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
                              .due_us = cluster->now_us + below(cluster, ELECTION_US),
                              .term = update->term};
    }
}

static void note_config(struct member *member) {
    struct raft_info info;
    raft_get_info(member->node.raft, &info);
    member->seen_config = *raft_membership(member->node.raft);
    member->seen_config_index = info.config_index;
}

static void check_member(struct cluster *cluster, struct member *member) {
    struct raft_node *node = &member->node;
    const struct raft_update *update = &node->update;
    if (update->append.count > 0) {
        check_log_matching(cluster, member, update->append.first_index);
    }
    if (raft_role(node->raft) == RAFT_LEADER && member->role != RAFT_LEADER) {
        check_leader(cluster, member);
    }
    check_commit(cluster, member);
    member->role = raft_role(node->raft);
    check_change(cluster, member);
    note_config(member);
    check_reads(cluster, member);
    check_standing(cluster, member);
    note_snapshots(cluster, member);
    uint64_t floor_index = cluster->changing ? 0 : raft_floor_index(node->raft);
    for (uint32_t i = 0; floor_index > 0 && i < cluster->count; i++) {
        EXPECT(cluster, term_on_disk(&cluster->members[i].node, floor_index) == term_in_log(node, floor_index));
    }
}

/* ---- The network ------------------------------------------------------------------------------------------------ */

static void drop_packet(struct cluster *cluster, uint32_t at) {
    raft_packet_free(cluster->packets[at]);
    cluster->packets[at] = cluster->packets[--cluster->packet_count];
}

static struct member *member_of(struct cluster *cluster, uint64_t id) { return &cluster->members[id - 1]; }

/* Nothing leaves before what it depends on is on disk. */
static void check_departure(struct cluster *cluster, const struct raft_message *message) {
    const struct raft_node *node = &member_of(cluster, message->from)->node;
    if (message->type == RAFT_PREVOTE || message->type == RAFT_PREVOTE_REPLY || message->type == RAFT_READ_INDEX) {
        return;
    }
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

static void on_send(void *context, struct raft_packet *packet) {
    struct cluster *cluster = context;
    check_departure(cluster, &packet->message);
    if (cluster->packet_count == PACKETS_MAX) {
        drop_packet(cluster, (uint32_t)below(cluster, PACKETS_MAX));
    }
    cluster->packets[cluster->packet_count++] = packet;
}

static void deliver_one(struct cluster *cluster) {
    if (cluster->packet_count == 0) {
        return;
    }
    /* Mostly roughly in order, sometimes any. */
    uint32_t window = below(cluster, 8) == 0 ? cluster->packet_count : 1 + cluster->packet_count / 4;
    uint32_t at = (uint32_t)below(cluster, window < cluster->packet_count ? window : cluster->packet_count);
    struct raft_packet *packet = cluster->packets[at];
    cluster->packet_count--;
    memmove(&cluster->packets[at], &cluster->packets[at + 1],
            (cluster->packet_count - at) * sizeof(struct raft_packet *));

    struct member *to = member_of(cluster, packet->message.to);
    bool linked = cluster->link[packet->message.from - 1][packet->message.to - 1];
    bool lost = !cluster->calm && below(cluster, 20) == 0;
    if (to->node.raft == NULL || !linked || lost || cluster->now_us < to->paused_until_us) {
        raft_packet_free(packet);
        return;
    }
    if (!cluster->calm && below(cluster, 20) == 0 && cluster->packet_count < PACKETS_MAX) {
        cluster->packets[cluster->packet_count++] = raft_packet_copy(packet);
    }
    enum status status = raft_node_receive(&to->node, cluster->now_us, packet);
    EXPECT(cluster, status == STATUS_OK);
    check_member(cluster, to);
    raft_packet_free(packet);
}

static void change_links(struct cluster *cluster) {
    uint64_t kind = below(cluster, 5);
    uint32_t a = (uint32_t)below(cluster, cluster->count);
    for (uint32_t i = 0; i < cluster->count && below(cluster, 2) == 0; i++) {
        const struct raft *raft = cluster->members[i].node.raft;
        a = raft != NULL && raft_role(raft) == RAFT_LEADER ? i : a; /* who leads has more to lose */
    }
    uint32_t b = (uint32_t)below(cluster, cluster->count);
    uint32_t side = (uint32_t)below(cluster, 1u << cluster->count);
    for (uint32_t i = 0; i < cluster->count; i++) {
        for (uint32_t j = 0; j < cluster->count; j++) {
            bool up = true;
            switch (kind) {
            case 1: up = i != a && j != a; break;                            /* one alone */
            case 2: up = ((side >> i) & 1) == ((side >> j) & 1); break;      /* two sides */
            case 3: up = !(i == a && j == b); break;                         /* one way */
            case 4: up = !((i == a && j == b) || (i == b && j == a)); break; /* partial */
            default: break;
            }
            cluster->link[i][j] = up;
        }
    }
}

/* ---- Random moves ----------------------------------------------------------------------------------------------- */

static void start_member(struct cluster *cluster, struct member *member) {
    member->node.trace = cluster->trace;
    raft_node_start(&member->node, cluster->now_us, random_next(&cluster->random));
    member->role = RAFT_FOLLOWER;
    note_config(member);
    member->fenced_until_us = 0;
    member->seen_commit = raft_commit_index(member->node.raft);
    member->read_count = 0;
    member->disk_every = below(cluster, 4) == 0 ? 60 : 2;
}

static void crash_member(struct cluster *cluster, struct member *member) {
    raft_node_crash(&member->node, below(cluster, 2) == 0);
    if (cluster->trace != NULL) {
        trace_crashed(cluster->trace, cluster->now_us, member->node.id, "power");
    }
    member->restart_at_us = cluster->now_us + below(cluster, 3 * ELECTION_US);
    cluster->crashes++;
}

static void run_disk(struct cluster *cluster, struct member *member) {
    size_t records_max = below(cluster, 4) == 0 ? 1 : SIZE_MAX;
    (void)raft_node_seal(&member->node, records_max);
    if (cluster->calm || below(cluster, member->disk_every) == 0) {
        if (raft_node_complete(&member->node, cluster->now_us)) {
            check_member(cluster, member);
        }
    }
}

static void use_member(struct cluster *cluster, struct member *member) {
    struct raft_node *node = &member->node;
    if (below(cluster, 4) == 0 && cluster->committed_index < INDEXES_MAX - 200) {
        uint32_t count = 1 + (uint32_t)below(cluster, 4);
        enum status status = raft_node_propose(node, cluster->now_us, cluster->next_value, count, 100);
        EXPECT(cluster, status == STATUS_OK || status == STATUS_BUSY || status == STATUS_NOT_LEADER);
        EXPECT(cluster, (status == STATUS_NOT_LEADER) == (raft_role(node->raft) != RAFT_LEADER));
        cluster->next_value += count;
        check_member(cluster, member);
    }
    if (below(cluster, 4) == 0 && member->read_count < READS_MAX) {
        uint64_t committed_before = cluster->committed_index;
        if (raft_node_read(node, cluster->now_us, cluster->changing) == STATUS_OK) {
            cluster->reads_from_afar += raft_role(node->raft) != RAFT_LEADER;
            member->reads[member->read_count++] =
                (struct waiting_read){.round = node->update.read_round, .committed_before = committed_before};
        }
        check_member(cluster, member);
    }
    if (below(cluster, 100) == 0) {
        uint64_t limit = raft_commit_index(node->raft) < raft_synced_index(node->raft) ? raft_commit_index(node->raft)
                                                                                       : raft_synced_index(node->raft);
        limit = cluster->changing || limit < raft_floor_index(node->raft) ? limit : raft_floor_index(node->raft);
        if (limit > node->trimmed_index) {
            CHECK(raft_node_trim(node, cluster->now_us, limit) == STATUS_OK);
            check_member(cluster, member);
        }
    }
}

/* ---- Membership, leaders, snapshots ----------------------------------------------------------------------------- */

static void change_membership(struct cluster *cluster, struct member *member) {
    static const char *const addresses[NODES_MAX] = {"h1", "h2", "h3", "h4", "h5", "h6", "h7"};
    struct raft_change changes[2];
    uint32_t count = 1 + (below(cluster, 3) == 0);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t id = 1 + below(cluster, cluster->count);
        changes[i] = (struct raft_change){.type = (enum raft_change_type)(RAFT_CHANGE_ADD_LEARNER +
                                                                          below(cluster, RAFT_CHANGE_PRIORITY)),
                                          .id = id,
                                          .priority = (uint8_t)below(cluster, 3),
                                          .address = addresses[id - 1]};
        bool skip = changes[i].type == RAFT_CHANGE_DEMOTE && below(cluster, 2) == 0;
        changes[i].type = skip ? RAFT_CHANGE_PROMOTE : changes[i].type;
    }
    enum status status = raft_node_change(&member->node, cluster->now_us, changes, count);
    EXPECT(cluster, status == STATUS_OK || status == STATUS_CONDITION);
    EXPECT(cluster, (status == STATUS_CONDITION) == (member->node.update.refusal != RAFT_REFUSAL_NONE));
    cluster->changes += status == STATUS_OK;
    cluster->refusals += status == STATUS_CONDITION;
    check_member(cluster, member);
}

static void hand_over(struct cluster *cluster, struct member *member) {
    uint64_t target = below(cluster, 1 + cluster->count);
    enum status status = raft_node_transfer(&member->node, cluster->now_us, target);
    EXPECT(cluster, status == STATUS_OK || status == STATUS_CONDITION);
    cluster->handovers += status == STATUS_OK;
    check_member(cluster, member);
}

static void set_fence(struct cluster *cluster, struct member *member) {
    bool lift = member->fenced_until_us > 0;
    member->fenced_until_us = lift ? 0 : cluster->now_us + below(cluster, 4 * ELECTION_US);
    enum raft_fence fence = lift ? RAFT_FENCE_NONE : RAFT_FENCE_LOG_STALLED;
    EXPECT(cluster, raft_node_fence(&member->node, cluster->now_us, fence) == STATUS_OK);
    check_member(cluster, member);
}

static void use_changing(struct cluster *cluster, struct member *member) {
    if (raft_role(member->node.raft) == RAFT_LEADER && below(cluster, 30) == 0) {
        change_membership(cluster, member);
    }
    if (raft_role(member->node.raft) == RAFT_LEADER && below(cluster, 200) == 0) {
        hand_over(cluster, member);
    }
    if (member->fenced_until_us > 0 ? cluster->now_us >= member->fenced_until_us : below(cluster, 2000) == 0) {
        set_fence(cluster, member);
    }
}

/* True if the snapshot got there, whether or not it was of any use. */
static bool carry_snapshot(struct cluster *cluster, const struct transfer *transfer, uint64_t *ret_index) {
    struct member *from = &cluster->members[transfer->from - 1];
    struct member *to = &cluster->members[transfer->to - 1];
    const struct raft_node *source = &from->node;
    uint64_t commit = raft_commit_index(source->raft);
    uint64_t least = source->trimmed_index > source->config_index ? source->trimmed_index : source->config_index;
    bool lost = !cluster->calm && below(cluster, 4) == 0;
    if (to->node.raft == NULL || !cluster->link[transfer->from - 1][transfer->to - 1] || lost || commit == 0) {
        return false;
    }
    struct raft_snapshot snapshot;
    least = least > 0 ? least : 1;
    *ret_index = least + below(cluster, commit - least + 1);
    raft_snapshot_take(source, *ret_index, &snapshot);
    uint64_t term = snapshot.records.items[snapshot.index - 1].term;
    bool leads = raft_role(to->node.raft) == RAFT_LEADER;
    if (raft_wants_snapshot(to->node.raft, snapshot.index, term) || (!leads && below(cluster, 2) == 0)) {
        EXPECT(cluster, raft_node_install(&to->node, cluster->now_us, &snapshot) == STATUS_OK);
        check_log_matching(cluster, to, 1);
        check_member(cluster, to);
        cluster->installs++;
    }
    raft_snapshot_free(&snapshot);
    return true;
}

static void run_transfers(struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->transfer_count;) {
        struct transfer transfer = cluster->transfers[i];
        struct member *from = &cluster->members[transfer.from - 1];
        bool is_stale = from->node.raft == NULL || raft_role(from->node.raft) != RAFT_LEADER ||
                        raft_term(from->node.raft) != transfer.term;
        if (!is_stale && cluster->now_us < transfer.due_us) {
            i++;
            continue;
        }
        cluster->transfers[i] = cluster->transfers[--cluster->transfer_count];
        if (is_stale) {
            continue;
        }
        uint64_t index = 0;
        bool ok = carry_snapshot(cluster, &transfer, &index);
        EXPECT(cluster, raft_node_snapshot_sent(&from->node, cluster->now_us, transfer.to, index, ok) == STATUS_OK);
        check_member(cluster, from);
    }
}

static void disturb(struct cluster *cluster) {
    struct member *member = &cluster->members[below(cluster, cluster->count)];
    if (below(cluster, cluster->links_every) == 0) {
        change_links(cluster);
    }
    if (below(cluster, cluster->crash_every) == 0 && member->node.raft != NULL) {
        crash_member(cluster, member);
    }
    if (below(cluster, 400) == 0) {
        member->paused_until_us = cluster->now_us + below(cluster, 4 * ELECTION_US);
    }
    if (below(cluster, 200) == 0 && member->node.raft != NULL && cluster->now_us >= member->paused_until_us) {
        uint64_t peer = 1 + below(cluster, cluster->count);
        if (peer != member->node.id) {
            CHECK(raft_node_unreachable(&member->node, cluster->now_us, peer) == STATUS_OK);
            check_member(cluster, member);
        }
    }
}

static void turn(struct cluster *cluster) {
    cluster->now_us += below(cluster, 2000);
    for (uint32_t i = 0; i < cluster->count; i++) {
        struct member *member = &cluster->members[i];
        if (member->node.raft == NULL) {
            if (cluster->calm || cluster->now_us >= member->restart_at_us) {
                start_member(cluster, member);
            }
            continue;
        }
        if (!cluster->calm && cluster->now_us < member->paused_until_us) {
            continue;
        }
        if (!cluster->calm) {
            use_member(cluster, member);
        }
        if (!cluster->calm && cluster->changing) {
            use_changing(cluster, member);
        }
        if (cluster->now_us >= member->node.update.deadline_us) {
            CHECK(raft_node_tick(&member->node, cluster->now_us) == STATUS_OK);
            check_member(cluster, member);
            EXPECT(cluster, member->node.update.deadline_us > cluster->now_us);
        }
        run_disk(cluster, member);
    }
    run_transfers(cluster);
    for (uint64_t left = below(cluster, 3 * cluster->count); left > 0; left--) {
        deliver_one(cluster);
    }
    if (!cluster->calm) {
        disturb(cluster);
    }
}

/* ---- A run ------------------------------------------------------------------------------------------------------ */

static struct trace *trace_run(uint64_t seed) {
    const char *dir = getenv("HOLDFAST_TRACES");
    char path[256];
    if (dir == NULL) {
        return NULL;
    }
    (void)snprintf(path, sizeof path, "%s/raft-%llu.ndjson", dir, (unsigned long long)seed);
    struct trace *trace = trace_open(path, seed, "");
    CHECK(trace != NULL);
    return trace;
}

/* count nodes, of which the first voter_count are members. */
static struct cluster *cluster_new(uint64_t seed, uint32_t count, uint32_t voter_count, bool traced) {
    struct cluster *cluster = calloc(1, sizeof *cluster);
    CHECK(cluster != NULL);
    cluster->trace = traced ? trace_run(seed) : NULL;
    cluster->seed = seed;
    cluster->count = count;
    cluster->next_value = 1;
    random_seed(&cluster->random, seed);
    memset(cluster->link, 1, sizeof cluster->link);
    cluster->links_every = 100 + (uint32_t)below(cluster, 300);
    cluster->crash_every = 100 + (uint32_t)below(cluster, 500);
    cluster->changing = count != voter_count;
    static const struct raft_config nobody;
    struct raft_config config = {.member_count = voter_count};
    for (uint32_t i = 0; i < voter_count; i++) {
        config.members[i] = (struct raft_member){.id = i + 1, .role = RAFT_VOTER};
    }
    struct raft_options options;
    raft_options_init(&options);
    options.alloc = alloc_system();
    options.election_timeout_us = ELECTION_US;
    options.heartbeat_interval_us = HEARTBEAT_US;
    options.append_bytes_max = 500;
    options.inflight_appends_max = 3;
    options.inflight_bytes_max = 1000;
    options.uncommitted_bytes_max = 20000;
    for (uint32_t i = 0; i < count; i++) {
        struct member *member = &cluster->members[i];
        raft_node_init(&member->node, i + 1, i < voter_count ? &config : &nobody, &options);
        member->node.send = on_send;
        member->node.context = cluster;
        start_member(cluster, member);
    }
    return cluster;
}

static void cluster_free(struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->count; i++) {
        raft_node_deinit(&cluster->members[i].node);
    }
    while (cluster->packet_count > 0) {
        drop_packet(cluster, 0);
    }
    CHECK(trace_close(cluster->trace));
    free(cluster);
}

/* All members, as its leader sees it, have committed up to index. */
static bool is_settled(const struct cluster *cluster, uint64_t index) {
    const struct raft_config *config = NULL;
    uint64_t term = 0;
    for (uint32_t i = 0; i < cluster->count; i++) {
        const struct raft *raft = cluster->members[i].node.raft;
        if (raft != NULL && raft_role(raft) == RAFT_LEADER && raft_term(raft) > term) {
            config = raft_membership(raft);
            term = raft_term(raft);
        }
    }
    for (uint32_t i = 0; config != NULL && i < config->member_count; i++) {
        const struct raft *raft = cluster->members[config->members[i].id - 1].node.raft;
        if (raft == NULL || raft_commit_index(raft) < index) {
            return false;
        }
    }
    return config != NULL;
}

/* For whoever has to find out why nothing moves. */
static void print_cluster(const struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->count; i++) {
        const struct raft *raft = cluster->members[i].node.raft;
        if (raft == NULL) {
            continue;
        }
        const struct raft_config *config = raft_membership(raft);
        print_message("# n%u %s term=%llu leader=%llu first=%llu last=%llu synced=%llu commit=%llu%s members", i + 1,
                      raft_role_name(raft_role(raft)), (unsigned long long)raft_term(raft),
                      (unsigned long long)raft_leader(raft), (unsigned long long)raft_first_index(raft),
                      (unsigned long long)raft_last_index(raft), (unsigned long long)raft_synced_index(raft),
                      (unsigned long long)raft_commit_index(raft), config->joint ? " joint" : "");
        for (uint32_t k = 0; k < config->member_count; k++) {
            struct raft_peer_info info = {0};
            bool known = raft_peer(raft, config->members[k].id, &info) == STATUS_OK;
            print_message(" %u:%d%s", (unsigned)config->members[k].id, (int)config->members[k].role,
                          config->members[k].in_outgoing ? "o" : "");
            if (known) {
                print_message("(%s match=%llu next=%llu)", raft_peer_state_name(info.state),
                              (unsigned long long)info.match_index, (unsigned long long)info.next_index);
            }
        }
        print_message("\n");
    }
}

/* All heals: one more write must get through everywhere, and soon. */
static void settle(struct cluster *cluster) {
    cluster->calm = true;
    for (uint32_t i = 0; i < cluster->count; i++) {
        cluster->members[i].paused_until_us = 0;
        if (cluster->members[i].fenced_until_us > 0 && cluster->members[i].node.raft != NULL) {
            set_fence(cluster, &cluster->members[i]);
        }
    }
    memset(cluster->link, 1, sizeof cluster->link);
    uint64_t start_us = cluster->now_us;
    uint64_t wanted = UINT64_MAX;
    while (!is_settled(cluster, wanted)) {
        if (cluster->now_us >= start_us + 50 * (uint64_t)ELECTION_US) {
            print_cluster(cluster);
            EXPECT(cluster, false && "it heals within 50 election timeouts");
        }
        turn(cluster);
        for (uint32_t i = 0; i < cluster->count && wanted == UINT64_MAX; i++) {
            struct member *member = &cluster->members[i];
            bool leads = member->node.raft != NULL && raft_role(member->node.raft) == RAFT_LEADER;
            if (leads && raft_commit_index(member->node.raft) == raft_last_index(member->node.raft)) {
                enum status status = raft_node_propose(&member->node, cluster->now_us, cluster->next_value++, 1, 100);
                EXPECT(cluster, status == STATUS_OK || (cluster->changing && status == STATUS_BUSY));
                check_member(cluster, member);
                wanted = status == STATUS_OK ? raft_last_index(member->node.raft) : wanted;
            }
        }
    }
}

static void run_seeds(uint32_t node_count, uint32_t voter_count, uint64_t first_seed, uint32_t seed_count,
                      uint32_t turns) {
    struct cluster *sum = calloc(1, sizeof *sum);
    CHECK(sum != NULL);
    uint32_t elections = 0;
    uint32_t reads = 0;
    uint32_t crashes = 0;
    uint64_t committed = 0;
    for (uint64_t seed = first_seed; seed < first_seed + seed_count; seed++) {
        struct cluster *cluster = cluster_new(seed, node_count, voter_count, seed < first_seed + TRACES_EACH);
        for (uint32_t i = 0; i < turns; i++) {
            turn(cluster);
        }
        settle(cluster);
        elections += cluster->elections;
        reads += cluster->reads_answered;
        crashes += cluster->crashes;
        committed += cluster->committed_index;
        sum->changes += cluster->changes;
        sum->refusals += cluster->refusals;
        sum->handovers += cluster->handovers;
        sum->installs += cluster->installs;
        sum->reads_from_afar += cluster->reads_from_afar;
        cluster_free(cluster);
    }
    print_message("# %u seeds: %u elections, %u crashes, %llu entries, %u reads\n", seed_count, elections, crashes,
                  (unsigned long long)committed, reads);
    if (node_count != voter_count) {
        print_message("# %u changes, %u refused, %u transfers, %u installs, %u reads asked from afar\n", sum->changes,
                      sum->refusals, sum->handovers, sum->installs, sum->reads_from_afar);
        assert_true(sum->changes > seed_count * 5);
        assert_true(sum->refusals > seed_count);
        assert_true(sum->handovers > seed_count);
        assert_true(sum->installs > seed_count);
        assert_true(sum->reads_from_afar > seed_count * 20);
    }
    free(sum);
    /* A cluster that hardly works would pass everything above. */
    assert_true(elections > seed_count * 2);
    assert_true(crashes > seed_count);
    assert_true(committed > (uint64_t)seed_count * turns / 40);
    assert_true(reads > seed_count * 20);
}

static uint32_t seeds(void) {
    const char *length = getenv("HOLDFAST_TEST_LENGTH");
    return length != NULL && strcmp(length, "long") == 0 ? 1000 : 80;
}

static void test_raft_cluster_three_nodes_random_faults_stay_safe(void **state) {
    (void)state;
    run_seeds(3, 3, 1, seeds(), 5000);
}

static void test_raft_cluster_five_nodes_random_faults_stay_safe(void **state) {
    (void)state;
    run_seeds(5, 5, 100001, seeds(), 5000);
}

static void test_raft_cluster_changing_membership_random_faults_stay_safe(void **state) {
    (void)state;
    run_seeds(7, 3, 200001, seeds(), 5000);
}

/* n2 is preferred, and is cut off whenever it leads: it gets the lead ever more rarely, and the others lead between.
 * Breaks if a preference makes leadership go to and fro for ever. */
static void test_h12_raft_cluster_preferred_leader_that_fails_gets_it_rarely(void **state) {
    (void)state;
    struct cluster *cluster = cluster_new(600001, 3, 3, true);
    const struct raft_change change = {.type = RAFT_CHANGE_PRIORITY, .id = 2, .priority = 5};
    bool changed = false;
    uint32_t times_n2_led = 0;
    bool led = false;
    cluster->calm = true;
    cluster->changing = true; /* only so that reads and floors aren't looked at */
    while (cluster->now_us < 600 * (uint64_t)ELECTION_US) {
        turn(cluster);
        for (uint32_t i = 0; i < cluster->count && !changed; i++) {
            struct member *member = &cluster->members[i];
            if (raft_role(member->node.raft) == RAFT_LEADER) {
                changed = raft_node_change(&member->node, cluster->now_us, &change, 1) == STATUS_OK;
                check_member(cluster, member);
            }
        }
        bool leads = raft_role(cluster->members[1].node.raft) == RAFT_LEADER;
        times_n2_led += leads && !led;
        led = leads;
        for (uint32_t i = 0; i < cluster->count; i++) {
            cluster->link[1][i] = !leads;
            cluster->link[i][1] = !leads;
        }
    }
    print_message("# n2 led %u times, %u elections in 600 election timeouts\n", times_n2_led, cluster->elections);
    assert_true(changed);
    assert_true(times_n2_led >= 3);
    assert_true(times_n2_led <= 20);
    cluster_free(cluster);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raft_cluster_three_nodes_random_faults_stay_safe),
        cmocka_unit_test(test_raft_cluster_five_nodes_random_faults_stay_safe),
        cmocka_unit_test(test_raft_cluster_changing_membership_random_faults_stay_safe),
        cmocka_unit_test(test_h12_raft_cluster_preferred_leader_that_fails_gets_it_rarely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
