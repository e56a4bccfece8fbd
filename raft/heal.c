/*
 * Nodes that lost a part of what they had (DESIGN rule 13). One that lost all of it is another node: incarnation.c.
 *
 * A log that lost its end. Recovery found damage in the middle and kept what stands before it, so our log is shorter
 * than what we acknowledged. Raft's safety rests on voters that refuse whoever has less than they have (thesis, section
 * 3.6.1), so the end that the log once had, (heal_term, heal_index), takes the place of the log's own end where votes
 * are asked for, and we don't campaign, which would be a vote for a shorter log. The argument for leaders is then word
 * for word that of the paper: an entry committed with our acknowledgement is at or below the end that we compare with.
 * So with damage on several nodes, in different places, whoever still has it all can lead with all their votes, and
 * nobody else can.
 *
 * The end that is kept may be too high, never too low: that costs votes, not entries.
 *
 * The loss is healed when the synced log ends at or behind (heal_term, heal_index) again. What came behind the hole
 * came from leaders of our term or later ones, who hold every entry that was committed with our help; a log of theirs
 * that ends there holds those too. An entry of a later term does as well: the log of its leader may have been shorter
 * than ours was, but not where it counted.
 *
 * The leader. Within a term a match only grows, except that a node may have lost what it had: it says so (lost_log), in
 * every answer of the life in which it began with less. Lives are numbered; the first answer of such a life takes back
 * what earlier ones acknowledged, and what is still on its way from those counts for nothing. What was committed with
 * their help stays committed: the node won't vote for a leader that lacks it.
 *
 * A log that went back. A node whose data directory was replaced by an older copy of itself (the snapshot of a machine,
 * say) doesn't know what it lost, and says nothing. Its leader may notice:
 *   - by the life, if it is lower than one that was heard in this term. Nothing of it counts.
 *   - by a refusal in a later life of what an earlier one had acknowledged, which was durable before that life began,
 *     and which no leader of this term can have cut. Then the match is taken back, the rest is sent again, and the
 *     caller is told.
 * What can't be noticed: whom it votes for before that, or once another leads. Until its log is whole again, an entry
 * that was committed with its help may be on too few disks. Hence what operators are told: never to put a copy of a
 * member's data in the place of these data, but to empty the directory.
 *
 * Good entries behind a hole of our own log. They are fetched again. To use them would need more than their checksums:
 * an entry behind the hole may have been superseded by one that stood in it, so each would have to be compared, index
 * and term, with what the leader sends, and kept apart from the log until the hole is closed up to it. That spares a
 * transfer that is bounded by the log's budget, once in a disk's life, at the price of a second kind of log: not worth
 * it.
 */
#include "raft/raft_internal.h"

/* ---- The node that lost something ------------------------------------------------------------------------------- */

bool raft__may_lead(const struct raft *raft) {
    return raft->fence == RAFT_FENCE_NONE && raft->heal_index == 0 && raft->needs_snapshot == 0;
}

void raft__promised_end(const struct raft *raft, uint64_t *ret_term, uint64_t *ret_index) {
    uint64_t term = raft__log_last_term(&raft->log);
    bool heals = raft->heal_index > 0;
    bool was_later =
        heals && (raft->heal_term > term || (raft->heal_term == term && raft->heal_index > raft->log.last_index));
    *ret_term = was_later ? raft->heal_term : term;
    *ret_index = was_later ? raft->heal_index : raft->log.last_index;
}

void raft__heal_advance(struct raft *raft) {
    if (raft->heal_index == 0) {
        return;
    }
    uint64_t term = raft__log_term_at(&raft->log, raft->synced_index);
    if (term < raft->heal_term || (term == raft->heal_term && raft->synced_index < raft->heal_index)) {
        return;
    }
    CHECK(raft->role == RAFT_FOLLOWER);
    raft->heal_index = 0;
    raft->heal_term = 0;
    raft__draw_election_deadline(raft);
}

/* ---- Its leader ------------------------------------------------------------------------------------------------- */

bool raft__heal_heard(struct raft *raft, struct raft__peer *peer, const struct raft_message *message) {
    CHECK(raft->role == RAFT_LEADER);
    if (message->life < peer->life) {
        peer->elder_us = peer->elder_us == 0 ? raft->now_us : peer->elder_us;
        return false;
    }
    peer->elder_us = 0;
    if (message->life > peer->life) {
        peer->life = message->life;
        if (message->lost_log) {
            peer->match_index = 0; /* where the logs meet now, refusals will tell */
        }
        peer->held_index = peer->match_index;
    }
    return true;
}

void raft__heal_refused(struct raft *raft, struct raft__peer *peer, const struct raft_message *message) {
    CHECK(raft->role == RAFT_LEADER && message->reject && message->life == peer->life);
    if (message->index == 0 || message->index > peer->held_index) {
        return;
    }
    raft->went_back_id = peer->id;
    raft->went_back_count++;
    peer->match_index = 0;
    peer->held_index = 0;
}
