/*
 * Pre-vote (thesis, section 9.6) and vote (sections 3.4 and 3.6).
 *
 * A node whose election timer ran out first asks whether it could win, without touching its term; so a node that merely
 * can't hear the leader disturbs nobody. It is refused only by who hears from a leader within the least election
 * timeout (a leader hears itself), whose log is newer, or whose term is not below the one asked for. A refusal carries
 * the refuser's term, which the asker adopts if it is higher: with check-quorum alone such a node would be ignored for
 * ever.
 *
 * A candidacy counts, and its VOTE messages leave, only when the new term and the vote for itself are durable. Waiting
 * for the disk doesn't use up the election timeout.
 *
 * A voter grants by its log and its vote alone, whether it is a member or not; the candidate knows whose vote counts
 * (incarnation.c).
 */
#include "raft/raft_internal.h"

enum outcome { OUTCOME_OPEN, OUTCOME_WON, OUTCOME_LOST };

static enum outcome tally(const struct raft *raft) {
    uint64_t granted[LIMIT_MEMBERS] = {0};
    uint64_t possible[LIMIT_MEMBERS] = {0};
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        granted[i] = raft->peers[i].vote == RAFT__VOTE_GRANTED;
        possible[i] = raft->peers[i].vote != RAFT__VOTE_REFUSED;
    }
    if (raft__config_quorum(&raft->config, granted) > 0) {
        return OUTCOME_WON;
    }
    return raft__config_quorum(&raft->config, possible) > 0 ? OUTCOME_OPEN : OUTCOME_LOST;
}

static void set_vote_of(struct raft *raft, uint64_t id, uint64_t incarnation, bool refused) {
    uint32_t position = raft__config_find(&raft->config, id);
    CHECK(position != RAFT__NOWHERE || id == raft->id); /* we were removed, but that isn't committed */
    if (raft__vote_counts(raft, position, incarnation)) {
        raft->peers[position].vote = refused ? RAFT__VOTE_REFUSED : RAFT__VOTE_GRANTED;
    }
}

static void vote_for_ourselves(struct raft *raft) { set_vote_of(raft, raft->id, raft->incarnation, false); }

static void ask_voters(struct raft *raft, enum raft_message_type type, uint64_t term) {
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        if (raft->peers[i].id == raft->id || !raft__config_is_voter(&raft->config, i)) {
            continue;
        }
        struct raft_message *message = raft__send(raft, type, raft->peers[i].id);
        message->term = term;
        message->index = raft->log.last_index;
        message->log_term = raft__log_last_term(&raft->log);
    }
}

static void begin_campaign(struct raft *raft, enum raft_role role) {
    raft__reads_fail(raft);
    raft->role = role;
    raft->leader = RAFT_NO_NODE;
    for (uint32_t i = 0; i < raft->config.member_count; i++) {
        raft->peers[i].vote = RAFT__VOTE_NONE;
    }
    raft__draw_election_deadline(raft);
}

static void become_candidate(struct raft *raft) {
    raft__set_state(raft, raft->term + 1, raft->id);
    begin_campaign(raft, RAFT_CANDIDATE);
    ask_voters(raft, RAFT_VOTE, raft->term); /* held until the candidacy is durable */
}

static void become_precandidate(struct raft *raft) {
    begin_campaign(raft, RAFT_PRECANDIDATE);
    raft__forget_strangers(raft);
    vote_for_ourselves(raft);
    if (tally(raft) == OUTCOME_WON) {
        become_candidate(raft); /* the only voter */
        return;
    }
    ask_voters(raft, RAFT_PREVOTE, raft->term + 1);
}

void raft__election_due(struct raft *raft) {
    CHECK(raft->role != RAFT_LEADER && raft__may_campaign(raft));
    if (raft->role == RAFT_CANDIDATE && !raft->state_synced) {
        raft__draw_election_deadline(raft); /* our disk is slow: nobody was asked yet */
        return;
    }
    become_precandidate(raft);
}

void raft__candidacy_synced(struct raft *raft) {
    CHECK(raft->role == RAFT_CANDIDATE && raft->vote == raft->id);
    raft__draw_election_deadline(raft);
    vote_for_ourselves(raft);
    if (tally(raft) == OUTCOME_WON) {
        raft__become_leader(raft); /* the only voter */
    }
}

/* Section 3.6.1: the candidate's log must be at least as new as ours, or as ours was before it lost its end. A node
 * that waits to be added helps nobody to begin a cluster: whoever has no entry isn't of the one that it waits for. */
static bool log_is_new_enough(const struct raft *raft, const struct raft_message *message) {
    uint64_t last_term;
    uint64_t last_index;
    if (raft->config.member_count == 0 && message->index == 0) {
        return false;
    }
    raft__promised_end(raft, &last_term, &last_index);
    return message->log_term > last_term || (message->log_term == last_term && message->index >= last_index);
}

/* The candidate that has our vote of this term asks again. One that lost its data isn't that one, and would begin a
 * second log in one term; all of a new cluster may have votes to give to it (incarnation.c). */
static bool has_our_vote(const struct raft *raft, const struct raft_message *message) {
    bool is_same = raft->vote_incarnation == 0 || raft->vote_incarnation == message->incarnation;
    return raft->vote == message->from && is_same;
}

static bool hears_leader(const struct raft *raft) {
    return raft->role == RAFT_LEADER ||
           (raft->leader != RAFT_NO_NODE && raft->now_us - raft->leader_heard_us < raft->options.election_timeout_us);
}

void raft__handle_prevote(struct raft *raft, const struct raft_message *message) {
    bool vote_is_free = message->term > raft->term ||
                        (message->term == raft->term && (raft->vote == RAFT_NO_NODE || has_our_vote(raft, message)));
    bool granted = vote_is_free && log_is_new_enough(raft, message) && !hears_leader(raft);
    struct raft_message *reply = raft__send(raft, RAFT_PREVOTE_REPLY, message->from);
    reply->term = granted ? message->term : raft->term;
    reply->reject = !granted;
}

void raft__handle_prevote_reply(struct raft *raft, const struct raft_message *message) {
    if (message->reject && message->term > raft->term) {
        raft__adopt_term(raft, message->term);
        return;
    }
    bool about_this = message->reject || message->term == raft->term + 1;
    if (raft->role != RAFT_PRECANDIDATE || !about_this) {
        return;
    }
    set_vote_of(raft, message->from, message->incarnation, message->reject);
    enum outcome outcome = tally(raft);
    if (outcome == OUTCOME_WON) {
        become_candidate(raft);
    } else if (outcome == OUTCOME_LOST) {
        raft__step_down(raft);
    }
}

void raft__handle_vote(struct raft *raft, const struct raft_message *message) {
    CHECK(message->term == raft->term);
    bool vote_is_free = has_our_vote(raft, message) || (raft->vote == RAFT_NO_NODE && raft->leader == RAFT_NO_NODE);
    bool granted = vote_is_free && log_is_new_enough(raft, message);
    if (granted && raft->vote == RAFT_NO_NODE) {
        raft__step_down(raft); /* from a pre-candidacy */
        raft__set_state(raft, raft->term, message->from);
        raft->vote_incarnation = message->incarnation;
    }
    if (granted) {
        raft->election_deadline_us = raft->now_us + raft->election_timeout_us;
    }
    raft__send(raft, RAFT_VOTE_REPLY, message->from)->reject = !granted;
}

void raft__handle_vote_reply(struct raft *raft, const struct raft_message *message) {
    CHECK(message->term == raft->term);
    if (raft->role != RAFT_CANDIDATE || !raft->state_synced) {
        return;
    }
    set_vote_of(raft, message->from, message->incarnation, message->reject);
    enum outcome outcome = tally(raft);
    if (outcome == OUTCOME_WON) {
        raft__become_leader(raft);
    } else if (outcome == OUTCOME_LOST) {
        raft__step_down(raft);
    }
}

/* Thesis, section 3.10: no pre-vote, for the others hear the leader still. Who can't lead lets it pass, and the
 * leader's transfer fails in its time. */
enum status raft__handle_timeout_now(struct raft *raft, const struct raft_message *message) {
    CHECK(message->term == raft->term);
    if (raft->role == RAFT_LEADER || (raft->leader != RAFT_NO_NODE && raft->leader != message->from)) {
        return STATUS_INVALID; /* only this term's leader asks */
    }
    bool is_known = raft->leader != RAFT_NO_NODE || raft__config_find(&raft->config, message->from) != RAFT__NOWHERE;
    bool may_campaign = is_known && raft__may_campaign(raft) && raft->role != RAFT_CANDIDATE;
    if (may_campaign) {
        become_candidate(raft);
    }
    return STATUS_OK;
}
