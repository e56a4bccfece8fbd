/*
 * Which log speaks for an id (DESIGN rule 14, hazard 41).
 *
 * An id names a place in the cluster; an *incarnation* names the log that fills it: random bits that are drawn when a
 * log is made and that are lost only with all of it (raft_saved.incarnation). Every message says its sender's, and a
 * configuration records one for each member. What a node says counts (pre-vote, vote, acknowledgement, ReadIndex,
 * check-quorum) if and only if its incarnation is the one that the effective configuration records; so to all arguments
 * of Raft, (id, incarnation) is the node, and one whose data were wiped is another node, that isn't a member. It may
 * grant its vote to whom it likes: the candidate doesn't count it.
 *
 *     voter, nothing recorded --heard, one step--> voter                                                     (record)
 *     voter x --says y, and x is silent--> joint --> learner x, returns --one step--> learner y, returns      (demote,
 *     --has caught up--> joint --> voter y                                                            record, promote)
 *     learner, nothing recorded, or x silent --says y, one step--> learner y                                 (record)
 *
 * All of it is the leader's, by itself, when it ticks; each step waits until the one before it is committed, and a
 * demotion or promotion has the guards of any other (change.c). x must have been silent for a while before y takes its
 * place, so two machines that use one id don't push each other out.
 *
 * Recording in one step. A learner counts nowhere, so what is recorded for it is free. A voter for whom nothing is
 * recorded didn't count either. Recording it changes neither the ids nor the sizes of the majorities, and whoever
 * counted goes on counting: each quorum of the old configuration is one of the new, and two quorums of the new share an
 * id, whose one incarnation counts in both. One that was recorded is never replaced in the place of a voter: that would
 * let the new log stand for promises of the old one; hence the way around by way of a learner.
 *
 * How a cluster begins. In its first configuration, from files, nothing is recorded, so nobody would count. The
 * exception: a candidate whose log is empty counts votes of members for which it has nothing recorded. Its first entry
 * is then a configuration that records itself and everybody it has heard, and what it commits is committed by these
 * alone. Who holds entry 1 refuses every candidate without it. A candidate that holds an entry counts no vote but
 * recorded ones, even of those that its own, maybe older, configuration doesn't record yet: by a newer one they may
 * have helped to commit, and been wiped since.
 *
 * What that leaves open: until all members of a new cluster have been heard once, one that is wiped and one that never
 * held an entry can't tell that they aren't a new cluster by themselves. (Who voted for the wiped one and still runs
 * doesn't do so again in that term: so two first entries have different terms, and aren't taken for one another.) And a
 * copy of a data directory has the incarnation of the original: an older copy in its place is noticed within a term
 * only, if at all (heal.c).
 *
 * Nodes without an incarnation (0: tests of other things) are those that the first configuration means.
 */
#include "raft/raft_internal.h"

enum { SILENT_US_MIN = 3 * 1000 * 1000, SILENT_TIMEOUTS = 4 };

/* ---- Who counts ------------------------------------------------------------------------------------------------- */

bool raft__counts(const struct raft *raft, uint32_t position, uint64_t incarnation) {
    return position < raft->config.member_count && raft->config.members[position].incarnation == incarnation;
}

bool raft__we_count(const struct raft *raft) { return raft__counts(raft, raft->self, raft->incarnation); }

bool raft__begins_cluster(const struct raft *raft) {
    bool has_nothing = raft->log.last_index == 0 && raft->config_index == 0 && raft->heal_index == 0;
    return has_nothing && raft->incarnation != 0 && raft__config_is_voter(&raft->config, raft->self) &&
           raft->config.members[raft->self].incarnation == 0;
}

bool raft__vote_counts(const struct raft *raft, uint32_t position, uint64_t incarnation) {
    bool is_unrecorded = position < raft->config.member_count && raft->config.members[position].incarnation == 0;
    return raft__counts(raft, position, incarnation) || (is_unrecorded && raft__begins_cluster(raft));
}

bool raft__may_campaign(const struct raft *raft) {
    return (raft->campaigns || raft__begins_cluster(raft)) && raft__may_lead(raft);
}

/* ---- Who is heard ----------------------------------------------------------------------------------------------- */

void raft__incarnation_heard(struct raft *raft, uint32_t position, uint64_t incarnation) {
    struct raft__peer *peer = &raft->peers[position];
    if (raft__counts(raft, position, incarnation)) {
        peer->stranger = 0;
    } else if (incarnation != 0 && peer->stranger != incarnation) {
        peer->stranger = incarnation;
        peer->stranger_us = raft->now_us;
    }
}

void raft__forget_strangers(struct raft *raft) {
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        raft->peers[i].stranger = 0;
        raft->peers[i].return_refusal = RAFT_REFUSAL_NONE;
    }
}

/* True if the recorded incarnation was silent long enough for another to take its place. */
static bool is_silent(const struct raft *raft, const struct raft__peer *peer) {
    uint64_t least_us = raft__max(SILENT_US_MIN, SILENT_TIMEOUTS * raft->options.election_timeout_us);
    uint64_t heard_us = raft__max(peer->heard_us, raft->leader_since_us);
    return raft->now_us - heard_us >= least_us;
}

/* ---- The leader ------------------------------------------------------------------------------------------------- */

/* Records whom it may record in one step. False: nobody. */
static bool record(const struct raft *raft, struct raft_config *config) {
    bool changed = false;
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct raft__peer *peer = &raft->peers[i];
        struct raft_member *member = &config->members[i];
        bool may = member->incarnation == 0 || (member->role == RAFT_LEARNER && is_silent(raft, peer));
        if (i != raft->self && peer->stranger != 0 && may) {
            member->incarnation = peer->stranger;
            changed = true;
        }
    }
    return changed;
}

void raft__incarnation_begin(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER && raft->log.last_index == 0);
    struct raft_config config = raft->config;
    (void)record(raft, &config);
    config.members[raft->self].incarnation = raft->incarnation;
    raft__append_config(raft, &config);
}

/* A voter whose data are gone becomes a learner that returns. */
static bool demote(struct raft *raft) {
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        struct raft__peer *peer = &raft->peers[i];
        bool is_due = i != raft->self && raft->config.members[i].role == RAFT_VOTER && peer->stranger != 0 &&
                      is_silent(raft, peer);
        if (!is_due) {
            continue;
        }
        struct raft_change change = {.type = RAFT_CHANGE_DEMOTE, .id = peer->id};
        struct raft_config config;
        peer->return_refusal = raft__change_plan(raft, &change, 1, &config);
        if (peer->return_refusal == RAFT_REFUSAL_NONE) {
            config.members[raft__config_find(&config, peer->id)].returns = true;
            raft__append_config(raft, &config);
            return true;
        }
    }
    return false;
}

static void promote(struct raft *raft) {
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        struct raft__peer *peer = &raft->peers[i];
        if (!raft->config.members[i].returns || i == raft->self || !raft__peer_keeps_up(raft, peer)) {
            continue;
        }
        struct raft_change change = {.type = RAFT_CHANGE_PROMOTE, .id = peer->id};
        struct raft_config config;
        peer->return_refusal = raft__change_plan(raft, &change, 1, &config);
        if (peer->return_refusal == RAFT_REFUSAL_NONE) {
            raft__append_config(raft, &config);
            return;
        }
    }
}

void raft__incarnation_tick(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    bool busy = raft->transfer.target != RAFT_NO_NODE || raft->config.joint ||
                raft->config_index > raft->commit_index || raft->commit_index < raft->term_first_index ||
                raft->update.append.source != RAFT_APPEND_NONE;
    if (busy) {
        return;
    }
    struct raft_config config = raft->config;
    if (record(raft, &config)) {
        raft__append_config(raft, &config);
    } else if (!demote(raft)) {
        promote(raft);
    }
}
