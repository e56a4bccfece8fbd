/*
 * Term, vote and role, and what a completed sync makes true.
 *
 *                 election due            quorum of grants             quorum of votes, candidacy durable
 *     FOLLOWER ----------------> PRECANDIDATE -------------> CANDIDATE -----------------------------> LEADER
 *        ^                           |  ^                       |                                       |
 *        |   refused by a quorum     |  +---- election due -----+                                       |
 *        +---------------------------+--------------------------+---------------------------------------+
 *            a higher term, a leader of this term, a fence, an installed snapshot (not LEADER),
 *            (LEADER) no quorum heard for an election timeout, a committed configuration without our vote
 *
 * TIMEOUT_NOW leads from FOLLOWER or PRECANDIDATE straight to CANDIDATE.
 *
 * Only raft__set_state changes term or vote. Only this file, election.c, follower.c and raft__become_leader change the
 * role.
 */
#include "raft/raft_internal.h"

void raft__set_state(struct raft *raft, uint64_t term, uint64_t vote) {
    CHECK(term >= raft->term);
    CHECK(term > raft->term || raft->vote == RAFT_NO_NODE || raft->vote == vote);
    raft->vote_incarnation = 0;
    if (term > raft->term) {
        raft__drop_held(raft);
        /* What an older leader's messages proved is void, but what is committed is in every later leader's log. */
        raft->matched_index = raft->commit_index;
        raft->acked_index = 0;
        raft->ack_to = RAFT_NO_NODE;
        raft->leader = RAFT_NO_NODE;
    }
    raft->term = term;
    raft->vote = vote;
    raft->state_synced = false;
    raft->update.save_state = true;
}

void raft__draw_election_deadline(struct raft *raft) {
    uint64_t least_us = raft->options.election_timeout_us;
    raft->election_timeout_us = least_us + random_below(&raft->random, least_us);
    raft->election_deadline_us = raft->now_us + raft->election_timeout_us;
}

void raft__step_down(struct raft *raft) {
    if (raft->role == RAFT_LEADER) {
        raft__reads_fail(raft);
        raft__transfer_reset(raft);
        raft__draw_election_deadline(raft);
    }
    raft->role = RAFT_FOLLOWER;
    raft->leader = RAFT_NO_NODE;
}

void raft__fence(struct raft *raft, enum raft_fence fence) {
    bool was_fenced = raft->fence != RAFT_FENCE_NONE;
    raft->fence = fence;
    if (fence == RAFT_FENCE_NONE) {
        if (was_fenced) {
            raft__draw_election_deadline(raft);
        }
    } else if (raft->role == RAFT_LEADER) {
        raft__transfer_abdicate(raft);
    } else if (raft->role != RAFT_FOLLOWER) {
        raft__step_down(raft);
    }
}

/*
 * Waiting for the heartbeats of an ended process is pointless. Pre-vote keeps this harmless where the news is wrong:
 * who still hears from the leader refuses, the leader itself above all, and its next heartbeat makes us follow again.
 * Several heard it at about the same moment, so each waits a little, to let one win.
 */
void raft__peer_gone(struct raft *raft, uint64_t id) {
    if (raft->role != RAFT_FOLLOWER || id == RAFT_NO_NODE || raft->leader != id) {
        return;
    }
    raft__reads_fail(raft);
    raft->leader = RAFT_NO_NODE;
    uint64_t soon_us = raft->now_us + random_below(&raft->random, 2 * raft->options.heartbeat_interval_us);
    raft->election_deadline_us = raft__min(raft->election_deadline_us, soon_us);
}

void raft__adopt_term(struct raft *raft, uint64_t term) {
    CHECK(term > raft->term);
    raft__step_down(raft);
    raft__set_state(raft, term, RAFT_NO_NODE);
}

void raft__set_commit(struct raft *raft, uint64_t commit_index) {
    CHECK(commit_index >= raft->commit_index && commit_index <= raft->log.last_index);
    raft->commit_index = commit_index;
    raft->matched_index = raft__max(raft->matched_index, commit_index);
    raft__membership_committed(raft);
}

/*
 * Which records of a completed group count. Its newest record (last_index, last_term) being in our log means that
 * everything up to it is the same and is on disk, unless the log was cut and grew back after the group was sealed: with
 * the records A5, B5, A5 of one index in three groups, a late word about the first must not pass for the third, for a
 * crash after the second leaves B5. A cut happens at most once per term (afterwards the log follows that term's
 * leader), so the term that the group saved tells: a group sealed in an earlier term than the last cut doesn't count at
 * all (whatever is in the log now gets into a group of its own), and one sealed in the same term, but before the cut,
 * ends with a record that the cut replaced.
 */
static bool records_count(const struct raft *raft, const struct raft_event *event) {
    uint64_t last_index = event->u.synced.last_index;
    return last_index > raft->synced_index && last_index <= raft->log.last_index &&
           event->u.synced.term >= raft->truncated_term &&
           raft__log_term_at(&raft->log, last_index) == event->u.synced.last_term;
}

void raft__handle_synced(struct raft *raft, const struct raft_event *event) {
    CHECK(event->u.synced.term <= raft->term);
    bool advanced = records_count(raft, event);
    if (advanced) {
        raft->synced_index = event->u.synced.last_index;
        raft__heal_advance(raft);
    }
    bool saved = !raft->state_synced && event->u.synced.term == raft->term && event->u.synced.vote == raft->vote;
    if (saved) {
        raft->state_synced = true;
        raft__release_held(raft);
    }
    if (saved && raft->role == RAFT_CANDIDATE) {
        raft__candidacy_synced(raft);
    }
    if (raft->role == RAFT_LEADER) {
        raft__leader_commit(raft);
    } else if (saved || advanced) {
        raft__acknowledge(raft);
    }
}
