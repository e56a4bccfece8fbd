/*
 * An operator who changes the membership under load: nodes that wait are added, learners promoted, members removed,
 * demoted and preferred, the lead handed over. One change at a time, asked of whoever leads; what raft refuses, or what
 * a fault swallows, is left, and something else is tried next.
 *
 * The script stands in the plan: its attempts have numbers, as faults have. Every change gets exactly one answer while
 * the node that was asked lives, and one that succeeded is committed.
 */
#include "tests/sim/cluster.h"

#include <inttypes.h>

enum {
    FIRST_US = 100 * 1000, /* a new node needs the whole log: before the first of it is trimmed */
    GAP_US_MAX = 400 * 1000,
    DEADLINE_US = 3 * 1000 * 1000,
    VOTERS_MIN = 3
};

enum deed { DEED_ADD, DEED_PROMOTE, DEED_REMOVE, DEED_DEMOTE, DEED_PRIORITY, DEED_TRANSFER, DEED_COUNT };

static void on_done(struct consensus_change *change) {
    struct sim_operator *op = CONTAINER_OF(change, struct sim_operator, change);
    struct cluster *cluster = op->replica->cluster;
    op->is_busy = false;
    if (change->status != STATUS_OK) {
        cluster->stats.changes_failed++;
        if (op->added != NULL && !change->unknown) {
            op->added->was_added = false; /* surely not: it may be tried again */
        }
        return;
    }
    cluster->stats.transfers += change->is_transfer;
    cluster->stats.changes += !change->is_transfer;
    const struct consensus *consensus = replica__consensus(op->replica);
    if (!change->is_transfer &&
        (consensus->members.applied.index < change->index || consensus->commit_index < change->index)) {
        cluster__fail(cluster, "%s says that the change of entry %" PRIu64 " is done, but it isn't applied",
                      op->replica->config.name, change->index);
    }
}

static void run_change(struct env_message *message) {
    struct sim_operator *op = CONTAINER_OF(message, struct sim_operator, message);
    consensus_change(replica__consensus(op->replica), &op->change);
}

static struct replica *find_leader(struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        const struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
        if (consensus != NULL && !consensus__is_dead(consensus) && consensus->role == RAFT_LEADER &&
            cluster->replicas[i].serving) {
            return &cluster->replicas[i];
        }
    }
    return NULL;
}

static bool is_member(const struct raft_config *membership, uint64_t id) {
    for (uint32_t i = 0; i < membership->member_count; i++) {
        if (membership->members[i].id == id) {
            return true;
        }
    }
    return false;
}

static uint32_t voter_count(const struct raft_config *membership) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < membership->member_count; i++) {
        count += membership->members[i].role == RAFT_VOTER;
    }
    return count;
}

/* A node that never was a member: ids don't come back. One that is down is refused, mostly, and tried again later. */
static bool add_one(struct cluster *cluster, const struct raft *raft, struct random *random,
                    struct raft_change *ret_part) {
    for (uint32_t i = cluster->founder_count; i < cluster->replica_count; i++) {
        struct replica *replica = &cluster->replicas[i];
        const struct config_member *self = config_member_by_id(&replica->config, replica->config.id);
        if (!replica->was_added && !is_member(raft_membership(raft), self->id)) {
            replica->was_added = true;
            cluster->admin.added = replica;
            cluster->admin.change.unreachable_too[0] = random_chance(random, 1, 4);
            *ret_part = (struct raft_change){.type = RAFT_CHANGE_ADD_LEARNER,
                                             .id = self->id,
                                             .name = self->name,
                                             .address = self->peer_address,
                                             .client_address = self->client_address,
                                             .thumbprint = self->thumbprint};
            return true;
        }
    }
    return false;
}

static bool is_role(const struct raft_member *member, enum deed deed) {
    return deed == DEED_PROMOTE ? member->role == RAFT_LEARNER : member->role == RAFT_VOTER;
}

/* False: there is nothing of this kind to do. */
static bool plan(struct cluster *cluster, const struct raft *raft, enum deed deed, struct random *random,
                 struct consensus_change *change) {
    static const enum raft_change_type types[DEED_COUNT] = {
        [DEED_PROMOTE] = RAFT_CHANGE_PROMOTE,
        [DEED_REMOVE] = RAFT_CHANGE_REMOVE,
        [DEED_DEMOTE] = RAFT_CHANGE_DEMOTE,
        [DEED_PRIORITY] = RAFT_CHANGE_PRIORITY,
    };
    const struct raft_config *membership = raft_membership(raft);
    change->change_count = 1;
    if (deed == DEED_ADD) {
        return add_one(cluster, raft, random, &change->changes[0]);
    }
    if ((deed == DEED_REMOVE || deed == DEED_DEMOTE) && voter_count(membership) <= VOTERS_MIN) {
        return false;
    }
    uint32_t start = (uint32_t)random_below(random, membership->member_count);
    for (uint32_t i = 0; i < membership->member_count; i++) {
        const struct raft_member *member = &membership->members[(start + i) % membership->member_count];
        if (!is_role(member, deed)) {
            continue;
        }
        if (deed == DEED_TRANSFER) {
            change->is_transfer = true;
            change->change_count = 0;
            change->target = random_chance(random, 1, 3) ? RAFT_NO_NODE : member->id;
            return true;
        }
        change->changes[0] =
            (struct raft_change){.type = types[deed], .id = member->id, .priority = (uint8_t)random_below(random, 3)};
        return true;
    }
    return false;
}

bool operator__is_waiting(const struct cluster *cluster) {
    const struct sim_operator *op = &cluster->admin;
    return op->is_busy && op->life == op->replica->lives && op->replica->node != NULL;
}

const char *operator__act(struct cluster *cluster, struct random *random) {
    static const char *const texts[DEED_COUNT] = {
        [DEED_ADD] = "add",       [DEED_PROMOTE] = "promote",   [DEED_REMOVE] = "remove",
        [DEED_DEMOTE] = "demote", [DEED_PRIORITY] = "priority", [DEED_TRANSFER] = "transfer",
    };
    struct sim_operator *op = &cluster->admin;
    struct replica *leader = find_leader(cluster);
    if (leader == NULL || operator__is_waiting(cluster)) {
        return NULL;
    }
    const struct raft *raft = replica__consensus(leader)->raft;
    op->change = (struct consensus_change){.done = on_done};
    op->added = NULL;
    enum deed deed = (enum deed)random_below(random, DEED_COUNT);
    if (plan(cluster, raft, DEED_ADD, random, &op->change)) {
        deed = DEED_ADD;
    } else if (!plan(cluster, raft, deed, random, &op->change)) {
        return NULL;
    }
    op->change.deadline_us = env_clock_us(leader->env) + DEADLINE_US;
    op->replica = leader;
    op->life = leader->lives;
    op->is_busy = true;
    op->message.run = run_change;
    env_post(leader->loop, &op->message);
    return texts[deed];
}

void operator__schedule(struct cluster *cluster, uint64_t end_us) {
    bool has_work = cluster->founder_count < cluster->replica_count;
    for (uint64_t at_us = FIRST_US; has_work && at_us < end_us;
         at_us += 1 + random_below(&cluster->random, GAP_US_MAX)) {
        plan__add_change(cluster, at_us);
    }
}
