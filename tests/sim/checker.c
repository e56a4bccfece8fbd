/*
 * What must hold after every step (Ongaro and Ousterhout, Figure 3, and DESIGN section 3), seen from outside: only
 * raft's getters, what the log reported as synced, and the engine's applied index are looked at.
 *
 *   election safety        one leader a term, and only with the durable votes of a quorum
 *   leader completeness    a new leader's log holds everything committed, with the same terms
 *   state-machine safety   what is committed at an index has one term, wherever it is committed
 *   synced by a quorum     when an index is committed first, a quorum's disks hold it
 *   own term               a leader's commit moves to an entry of its own term only
 *   same digest            what is applied up to an index has one digest, on whatever node, in whatever life
 *   same data              what the nodes' scans find at a revision has one digest
 *   applied <= committed   and synced <= last; commit, and what is shown as applied, never decrease in a life
 *   flushed <= durable     the manifest's frontier is at most min(synced, committed)
 *   durable means durable  after a restart, term and vote are not older than what a group saved, and the log reaches
 *                          what was synced; one that was damaged remembers at least how far it did, and no other heals
 *   log matching, leader append-only   matching.h, in every step of every core
 *   progress               after the faults writes are acknowledged (cluster.c)
 *   convergence            after the faults all replicas hold the same state, and every acknowledged number
 */
#include "tests/sim/cluster.h"
#include "tests/sim/linearizable.h"

#include "node/base/checksum.h"
#include "node/server/snapshot_internal.h"
#include "raft/raft_internal.h"

#include <inttypes.h>
#include <stdlib.h>

static void grow(uint64_t **array, uint64_t *capacity, uint64_t index) {
    if (index < *capacity) {
        return;
    }
    uint64_t wanted = *capacity == 0 ? 1024 : *capacity;
    while (wanted <= index) {
        wanted *= 2;
    }
    *array = realloc(*array, wanted * sizeof **array);
    CHECK(*array != NULL);
    memset(*array + *capacity, 0, (wanted - *capacity) * sizeof **array);
    *capacity = wanted;
}

/* What it lost to damage it still votes for. */
static bool promises(const struct consensus *consensus, uint64_t index) {
    struct raft_info info = {.heal_index = 0};
    if (consensus != NULL) {
        raft_get_info(consensus->raft, &info);
    }
    return info.heal_index >= index;
}

/* What a replica says of one question, and what it said before its disk was wiped: the one counts by its incarnation of
 * now, the other by the lost one. */
struct says {
    bool now[REPLICAS_MAX];
    bool once[REPLICAS_MAX];
};

/* True if this replica's disk holds the entry at index with this term, as its log reported. */
static bool holds(const struct replica *replica, uint64_t index, uint64_t term) {
    const struct consensus *consensus = replica__consensus(replica);
    if (replica->synced_index < index && !promises(consensus, index)) {
        return false;
    }
    /* A replica that is down or recovering counts by what it reported last; its terms can't have changed since. */
    return consensus == NULL || index < raft_first_index(consensus->raft) || index > raft_last_index(consensus->raft) ||
           raft_term_at(consensus->raft, index) == term;
}

/* More than half of the voters, of both sets in a joint configuration: counted here, not asked of what is judged. A
 * voter says what its incarnation says that the configuration records; where nothing is recorded, only who begins the
 * cluster (is_first) may ask it. */
static bool is_quorum(const struct cluster *cluster, const struct raft_config *config, const struct says *says,
                      bool is_first) {
    uint32_t voters[2] = {0};
    uint32_t agree[2] = {0};
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct raft_member *member = &config->members[i];
        const struct replica *replica = &cluster->replicas[member->id - 1];
        bool is_now = member->incarnation == replica->incarnation || (is_first && member->incarnation == 0);
        bool was_once = member->incarnation != 0 && member->incarnation == replica->lost.incarnation;
        bool yes = (is_now && says->now[replica->number]) || (was_once && says->once[replica->number]);
        bool is_in[2] = {member->role == RAFT_VOTER, config->joint && member->in_outgoing};
        for (uint32_t set = 0; set < 2; set++) {
            voters[set] += is_in[set];
            agree[set] += is_in[set] && yes;
        }
    }
    return 2 * agree[0] > voters[0] && (!config->joint || 2 * agree[1] > voters[1]);
}

/* By this replica's effective configuration, or one that it has just left: between two looks it may have done both,
 * what needed the quorum and the change. is_first: the question is who may begin the cluster, with nobody recorded. */
static bool is_quorum_for(const struct replica *replica, const struct says *says, bool is_first) {
    const struct cluster *cluster = replica->cluster;
    const struct consensus *consensus = replica__consensus(replica);
    const struct raft *raft = consensus->raft;
    bool is_enough = is_quorum(cluster, raft_membership(raft), says, is_first) ||
                     is_quorum(cluster, &consensus->members.applied.config, says, is_first) ||
                     is_quorum(cluster, &consensus->members.before.config, says, is_first);
    for (size_t i = 0; i < raft->past_count && !is_enough; i++) {
        is_enough = is_quorum(cluster, &raft->past[i].config, says, is_first);
    }
    return is_enough;
}

static bool is_held(const struct cluster *cluster, const struct replica *by, uint64_t index, uint64_t term) {
    struct says says = {.now = {false}};
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        says.now[i] = holds(&cluster->replicas[i], index, term);
        says.once[i] = cluster->replicas[i].lost.synced_index >= index;
    }
    return is_quorum_for(by, &says, false);
}

static void check_commit(struct cluster *cluster, struct replica *replica, const struct raft *raft) {
    uint64_t commit_index = raft_commit_index(raft);
    if (replica->was_leader && raft_role(raft) == RAFT_LEADER && raft_term(raft) == replica->term &&
        raft_term_at(raft, commit_index) != replica->term) {
        cluster__fail(cluster, "%s leads term %" PRIu64 " and committed up to entry %" PRIu64 " of term %" PRIu64,
                      replica->config.name, replica->term, commit_index, raft_term_at(raft, commit_index));
    }
    if (commit_index < replica->commit_index) {
        cluster__fail(cluster, "%s: commit went from %" PRIu64 " back to %" PRIu64, replica->config.name,
                      replica->commit_index, commit_index);
    }
    uint64_t from = replica->commit_index + 1;
    if (from < raft_first_index(raft)) {
        from = raft_first_index(raft);
    }
    for (uint64_t index = from; index <= commit_index; index++) {
        uint64_t term = raft_term_at(raft, index);
        grow(&cluster->committed_terms, &cluster->committed_capacity, index);
        if (cluster->committed_terms[index] == 0) {
            cluster->committed_terms[index] = term;
            grow(&cluster->committed_in, &cluster->committed_in_capacity, index);
            cluster->committed_in[index] = raft_term_at(raft, commit_index);
            if (!is_held(cluster, replica, index, term)) {
                cluster__fail(cluster,
                              "%s committed entry %" PRIu64 " of term %" PRIu64 ", but no quorum's disks hold it",
                              replica->config.name, index, term);
            }
        } else if (cluster->committed_terms[index] != term) {
            cluster__fail(cluster,
                          "entry %" PRIu64 " was committed with term %" PRIu64 ", and on %s with term %" PRIu64, index,
                          cluster->committed_terms[index], replica->config.name, term);
        }
        if (index > cluster->committed_index) {
            cluster->committed_index = index;
        }
    }
    replica->commit_index = commit_index;
}

static bool voted(uint64_t durable_term, uint64_t durable_vote, const struct replica *leader, uint64_t term) {
    return durable_term > term || (durable_term == term && durable_vote == leader->number + 1);
}

/* A vote that isn't on disk can be given twice. Who has moved on to a later term may have voted. */
static void check_votes(struct cluster *cluster, const struct replica *leader, uint64_t term) {
    struct says says = {.now = {false}};
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        const struct replica *replica = &cluster->replicas[i];
        says.now[i] = voted(replica->durable_term, replica->durable_vote, leader, term);
        says.once[i] = voted(replica->lost.term, replica->lost.vote, leader, term);
    }
    if (!is_quorum_for(leader, &says, replica__consensus(leader)->raft->term_first_index == 1)) {
        cluster__fail(cluster, "%s leads term %" PRIu64 ", but no quorum's votes for it are durable",
                      leader->config.name, term);
    }
}

static void check_leader(struct cluster *cluster, const struct replica *replica, const struct raft *raft) {
    uint64_t term = raft_term(raft);
    grow(&cluster->leaders, &cluster->leaders_capacity, term);
    if (cluster->leaders[term] == raft_id(raft)) {
        return;
    }
    if (cluster->leaders[term] != 0) {
        cluster__fail(cluster, "term %" PRIu64 " has two leaders: n%" PRIu64 " and %s", term, cluster->leaders[term],
                      replica->config.name);
    }
    cluster->leaders[term] = raft_id(raft);
    cluster->stats.elections++;
    check_votes(cluster, replica, term);
    for (uint64_t index = raft_first_index(raft); index <= cluster->committed_index; index++) {
        /* Votes may arrive when a later term has long had its leader: what that one committed needn't be known here. */
        if (cluster->committed_in[index] < term && raft_term_at(raft, index) != cluster->committed_terms[index]) {
            cluster__fail(cluster,
                          "%s leads term %" PRIu64 " without entry %" PRIu64 " of term %" PRIu64 ", which is committed",
                          replica->config.name, term, index, cluster->committed_terms[index]);
            return;
        }
    }
}

static void check_incarnation(struct cluster *cluster, struct replica *replica, uint64_t incarnation) {
    bool is_first = replica->incarnation == 0;
    if (incarnation == 0 || (!is_first && incarnation != replica->incarnation) ||
        (replica->was_wiped && incarnation == replica->lost.incarnation)) {
        cluster__fail(cluster, "%s restarted with incarnation %" PRIx64 ", but had %" PRIx64 "%s", replica->config.name,
                      incarnation, replica->incarnation, replica->was_wiped ? ", and was wiped" : "");
    }
    replica->was_wiped = false;
    replica->incarnation = incarnation;
}

/* What a life begins with against what earlier ones made durable. */
static void check_start(struct cluster *cluster, struct replica *replica, const struct raft *raft) {
    replica->must_check_start = false;
    uint64_t term = raft_term(raft);
    if (term < replica->durable_term) {
        cluster__fail(cluster, "%s restarted in term %" PRIu64 ", but had saved term %" PRIu64, replica->config.name,
                      term, replica->durable_term);
    }
    if (term == replica->durable_term && replica->durable_vote != 0 && raft_vote(raft) != replica->durable_vote) {
        cluster__fail(cluster,
                      "%s restarted with a vote for n%" PRIu64 " in term %" PRIu64 ", but had saved one for n%" PRIu64,
                      replica->config.name, raft_vote(raft), term, replica->durable_vote);
    }
    struct raft_info info;
    raft_get_info(raft, &info);
    check_incarnation(cluster, replica, info.incarnation);
    bool remembers = replica->log_was_damaged && info.heal_index >= replica->synced_index;
    replica->log_was_damaged = false;
    if (info.heal_index > 0 && !replica->log_may_heal) {
        cluster__fail(cluster, "%s heals its log up to %" PRIu64 ", but nobody damaged it", replica->config.name,
                      info.heal_index);
    }
    replica->log_may_heal = info.heal_index > 0;
    if (raft_last_index(raft) < replica->synced_index && !remembers) {
        cluster__fail(cluster, "%s restarted with a log up to %" PRIu64 ", but had synced %" PRIu64,
                      replica->config.name, raft_last_index(raft), replica->synced_index);
    }
    /* What was found on disk is durable now, whether its sync was heard of or not. */
    replica->durable_term = term;
    replica->durable_vote = raft_vote(raft);
    replica->commit_index = 0;
    replica->applied_index = 0;
    replica->digest_index = 0;
    replica->term = term;
    replica->was_leader = false;
}

static void note_durable(struct cluster *cluster, struct replica *replica, const struct consensus *consensus) {
    const struct wal_synced *synced = &consensus->newest_synced;
    if (synced->term < replica->durable_term ||
        (synced->term == replica->durable_term && synced->vote == replica->durable_vote)) {
        return;
    }
    if (synced->term == replica->durable_term && replica->durable_vote != 0) {
        cluster__fail(cluster, "%s voted for n%" PRIu64 " and for n%" PRIu64 " in term %" PRIu64, replica->config.name,
                      replica->durable_vote, synced->vote, synced->term);
    }
    replica->durable_term = synced->term;
    replica->durable_vote = synced->vote;
}

static void check_digests(struct cluster *cluster, struct replica *replica, const struct storage *storage) {
    uint64_t applied_index = storage_applied_index(storage);
    uint64_t index = replica->digest_index + 1;
    if (applied_index >= DIGESTS_KEPT && index <= applied_index - DIGESTS_KEPT) {
        index = applied_index - DIGESTS_KEPT + 1;
    }
    for (; index <= applied_index; index++) {
        struct digest digest;
        if (!storage_digest(storage, index, &digest)) {
            continue; /* of an earlier life */
        }
        grow(&cluster->digests[0], &cluster->digests_capacity[0], index);
        grow(&cluster->digests[1], &cluster->digests_capacity[1], index);
        struct digest known = {.low = cluster->digests[0][index], .high = cluster->digests[1][index]};
        if (known.low == 0 && known.high == 0) {
            cluster->digests[0][index] = digest.low;
            cluster->digests[1][index] = digest.high;
        } else if (!digest_equal(&known, &digest)) {
            cluster__fail(cluster, "%s has another digest at entry %" PRIu64 " than whoever applied it first",
                          replica->config.name, index);
        }
    }
    replica->digest_index = applied_index;
}

static void check_scans(struct cluster *cluster, struct replica *replica, const struct consensus_scan *scan) {
    if (scan->mismatches > 0) {
        cluster__fail(cluster, "%s compared all data by their digests, and they differ: %s", replica->config.name,
                      scan->problem);
    }
    cluster->stats.scans_agreed += scan->agreed_index != replica->scan_index;
    replica->scan_index = scan->agreed_index;
}

static void check_replica(struct cluster *cluster, struct replica *replica, struct consensus *consensus) {
    const struct raft *raft = consensus->raft;
    if (raft_term(raft) < replica->term) {
        cluster__fail(cluster, "%s: the term went back", replica->config.name);
    }
    if (raft_term(raft) > replica->term) {
        plan__term_changed(replica);
        replica->was_leader = false;
    }
    replica->term = raft_term(raft);
    if (replica->synced_index > raft_last_index(raft)) {
        cluster__fail(cluster, "%s: synced beyond the end of the log", replica->config.name);
    }
    if (raft_role(raft) == RAFT_LEADER) {
        check_leader(cluster, replica, raft);
    }
    if (raft_commit_index(raft) != replica->commit_index) {
        check_commit(cluster, replica, raft);
    }
    members__check(replica, raft);
    uint64_t applied_index = storage_applied_index(consensus->storage);
    if (applied_index > raft_commit_index(raft)) {
        cluster__fail(cluster, "%s applied entry %" PRIu64 ", but only %" PRIu64 " are committed", replica->config.name,
                      applied_index, raft_commit_index(raft));
    }
    if (applied_index < replica->applied_index) {
        cluster__fail(cluster,
                      "%s shows what is applied up to entry %" PRIu64 ", and showed it up to %" PRIu64 " before",
                      replica->config.name, applied_index, replica->applied_index);
    }
    replica->applied_index = applied_index;
    if (applied_index != replica->digest_index) {
        check_digests(cluster, replica, consensus->storage);
    }
    uint64_t flushed_index = storage_frontier(consensus->storage)->index;
    if (flushed_index > replica->synced_index || flushed_index > raft_commit_index(raft)) {
        cluster__fail(cluster,
                      "%s flushed up to entry %" PRIu64 ", but only %" PRIu64 " are synced and %" PRIu64 " committed",
                      replica->config.name, flushed_index, replica->synced_index, raft_commit_index(raft));
    }
    const struct snapshots *snapshots = consensus->snapshots;
    cluster->stats.snapshots_sent += snapshots->sent - replica->snapshots_sent;
    cluster->stats.snapshots_installed += snapshots->installed - replica->snapshots_installed;
    replica->snapshots_sent = snapshots->sent;
    replica->snapshots_installed = snapshots->installed;
    cluster->stats.rebuilds += consensus->rebuild.completed - replica->rebuilds;
    replica->rebuilds = consensus->rebuild.completed;
    check_scans(cluster, replica, &consensus->scan);
    replica->was_leader = raft_role(raft) == RAFT_LEADER;
    cluster->stats.checks++;
}

void checker__step(struct cluster *cluster) {
    /* What is durable first, then what is committed, so that nobody's news is judged by somebody's past. A node that
     * just failed or stopped may have spoken in the same turn. */
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct replica *replica = &cluster->replicas[i];
        const struct consensus *consensus = replica__consensus(replica);
        if (consensus == NULL) {
            continue;
        }
        if (replica->must_check_start) {
            check_start(cluster, replica, consensus->raft);
        }
        note_durable(cluster, replica, consensus);
        replica->synced_index = raft_synced_index(consensus->raft);
    }
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct replica *replica = &cluster->replicas[i];
        struct consensus *consensus = replica__consensus(replica);
        if (consensus != NULL && !consensus__is_dead(consensus)) {
            check_replica(cluster, replica, consensus);
        }
    }
}

void checker__crashed(struct replica *replica) { replica->must_check_start = false; }

/* ---- The end ----------------------------------------------------------------------------------------------------- */

/* A member of the membership that it knows. */
static bool is_member(const struct replica *replica) {
    const struct consensus *consensus = replica__consensus(replica);
    const struct raft_config *membership = raft_membership(consensus->raft);
    return raft__config_find(membership, replica->config.id) != RAFT__NOWHERE;
}

/* NULL unless there is exactly one. */
static const struct replica *the_leader(const struct cluster *cluster) {
    const struct replica *leader = NULL;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        const struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
        if (consensus == NULL || consensus__is_dead(consensus)) {
            return NULL;
        }
        if (raft_role(consensus->raft) == RAFT_LEADER) {
            if (leader != NULL) {
                return NULL;
            }
            leader = &cluster->replicas[i];
        }
    }
    return leader;
}

/* Whoever was wiped is what it was again. One that was never heard may wait to be recorded. */
static bool all_are_back(const struct cluster *cluster, const struct raft_config *config) {
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct raft_member *member = &config->members[i];
        struct raft_info info;
        raft_get_info(replica__consensus(&cluster->replicas[member->id - 1])->raft, &info);
        if (member->returns || member->incarnation != info.incarnation) {
            return false;
        }
    }
    return true;
}

bool checker__converged(void *context) {
    const struct cluster *cluster = context;
    const struct replica *leader = the_leader(cluster);
    if (leader == NULL) {
        return false;
    }
    const struct raft *raft = replica__consensus(leader)->raft;
    uint64_t last_index = raft_last_index(raft);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        const struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
        bool counts = raft__config_find(raft_membership(raft), i + 1) != RAFT__NOWHERE;
        bool has_all = storage_applied_index(consensus->storage) == last_index &&
                       raft_last_index(consensus->raft) == last_index && is_member(&cluster->replicas[i]);
        if (counts && (!has_all || rot__is_rotten(&cluster->replicas[i]))) {
            return false; /* rot is found, and healed, by itself */
        }
    }
    return !raft_membership(raft)->joint && all_are_back(cluster, raft_membership(raft)) &&
           last_index >= cluster->committed_index;
}

static uint64_t mix(uint64_t digest, const void *data, size_t len) { return checksum64(data, len, digest); }

/* is_told: what it holds is what clients would read at the end. */
static uint64_t digest_of(struct cluster *cluster, const struct replica *replica, bool is_told) {
    struct storage_view *view = storage_view_acquire(replica__consensus(replica)->storage);
    struct storage_iterator *iterator = NULL;
    struct error error = {0};
    uint64_t digest = storage_view_revision(view);
    uint64_t seen_keys = 0;
    enum status status = storage_iterator_new(view, NULL, NULL, &iterator, &error);
    if (status == STATUS_OK) {
        status = storage_iterator_first(iterator, &error);
    }
    for (; status == STATUS_OK; status = storage_iterator_next(iterator, &error)) {
        struct slice key = storage_iterator_key(iterator);
        struct slice value;
        status = storage_iterator_value(iterator, &value, &error);
        if (status != STATUS_OK) {
            break;
        }
        uint64_t revision = storage_iterator_revision(iterator);
        digest = mix(mix(mix(digest, key.data, key.len), value.data, value.len), &revision, sizeof revision);
        workload__check_pair(cluster, replica, key, value, &seen_keys);
        if (is_told) {
            linearizable__final_pair(cluster, key, value);
        }
    }
    if (status != STATUS_NOT_FOUND) {
        cluster__fail(cluster, "%s can't be read: %s", replica->config.name, error.message);
    }
    storage_iterator_free(iterator);
    storage_view_release(view);
    workload__check_missing(cluster, replica, seen_keys);
    return digest;
}

void checker__final(struct cluster *cluster) {
    const struct replica *leader = the_leader(cluster);
    cluster->state_digest = digest_of(cluster, leader, true);
    for (uint32_t i = 0; i < cluster->replica_count && !cluster__has_failed(cluster); i++) {
        struct replica *replica = &cluster->replicas[i];
        const struct raft *raft = replica__consensus(leader)->raft;
        if (raft__config_find(raft_membership(raft), replica->config.id) == RAFT__NOWHERE) {
            continue;
        }
        if (replica != leader && digest_of(cluster, replica, false) != cluster->state_digest) {
            cluster__fail(cluster, "%s holds another state than %s at the same index", replica->config.name,
                          leader->config.name);
        }
        struct consensus *consensus = replica__consensus(replica);
        struct storage_stats storage;
        struct wal_stats wal;
        storage_get_stats(consensus->storage, &storage);
        wal_get_stats(consensus->wal, &wal);
        accounting__final(cluster, replica);
        cluster->stats.flushes += storage.flushes;
        cluster->stats.adopted_bytes += storage.adopted_bytes;
        cluster->stats.segments_deleted += wal.segments_deleted;
    }
}
