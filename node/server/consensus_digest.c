/*
 * Digests compared: who has applied something else than the others (DESIGN section 5).
 *
 * The leader asks in rounds. A round is an entry that it has applied, and its digest chain (storage/digest.h) there.
 * The question travels with appends and heartbeats until a member has answered; the answer, the member's own chain at
 * the same entry, with its next reply. So all answers of a round are about one entry, and can be counted:
 *
 *   round open --all have answered, or ROUND_US--> judged --applied further, or somebody was missing--> next round
 *
 *   all alike                 good
 *   a quorum alike, some not  those are suspected: log, status. A leader among them hands the lead over first, to a
 *                             member of the quorum; the next leader names it then
 *   no quorum alike           nobody is suspected: log, status
 *
 * A member that differs differs from then on, so a round that is missed loses nothing. A suspected node is told so, and
 * fills its store again if its configuration says so (rebuild_on_mismatch); else an operator has it do that.
 *
 * Messages say which term they are of; what is of another term, or not from its leader, is ignored, so a round is one
 * leader's. Owner: the consensus loop. Memory: what is in struct consensus_digest.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    ROUND_US = 1000 * 1000,
    HAND_OVER_US = 2 * 1000 * 1000 /* between two attempts: writes wait for each */
};

static_assert((int)RAFT_DIGEST_BYTES == (int)DIGEST_BYTES, "a message carries one digest");

/* ---- The asked -----------------------------------------------------------------------------------------------------
 */

/* Finds the answer, if the entry is applied by now. */
static void find_answer(struct consensus *consensus) {
    struct consensus_digest *state = &consensus->digest;
    if (state->asked_index == 0 || state->is_found || storage_applied_index(consensus->storage) < state->asked_index) {
        return;
    }
    if (!storage_digest(consensus->storage, state->asked_index, &state->own)) {
        state->asked_index = 0; /* too long ago: the next round is about a newer one */
        return;
    }
    state->is_found = true;
    bool differs = !digest_equal(&state->own, &state->asked);
    if (differs && !state->differs) {
        char ours[DIGEST_HEX_BYTES];
        char theirs[DIGEST_HEX_BYTES];
        log_event(consensus->options.logger, LOG_WARN, "digest.differs",
                  "index=%" PRIu64
                  " own=%s leader=%s leaders=%s hint=\"the leader's log and status say who is suspected\"",
                  state->asked_index, digest_hex(&state->own, ours), member__name(consensus, state->asked_by),
                  digest_hex(&state->asked, theirs));
    }
    state->differs = differs;
    if (!differs) {
        state->agreed_index = state->asked_index;
        state->agreed = state->own;
    }
}

static void take_question(struct consensus *consensus, const struct raft_message *message) {
    struct consensus_digest *state = &consensus->digest;
    struct digest asked = digest_decode(message->digest);
    if (message->from != raft_leader(consensus->raft)) {
        return;
    }
    if (state->asked_index != message->digest_index || state->asked_by != message->from ||
        !digest_equal(&state->asked, &asked)) {
        state->asked_by = message->from;
        state->asked_index = message->digest_index;
        state->asked = asked;
        state->is_found = false;
    }
    state->is_owed = true;
    find_answer(consensus);
}

void digest__applied(struct consensus *consensus) { find_answer(consensus); }

/* ---- The leader's round ---------------------------------------------------------------------------------------- */

static bool is_member(const struct consensus *consensus, uint64_t id) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    for (uint32_t i = 0; i < membership->member_count; i++) {
        if (membership->members[i].id == id) {
            return true;
        }
    }
    return false;
}

static bool all_have_answered(const struct consensus *consensus) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    for (uint32_t i = 0; i < membership->member_count; i++) {
        if (!digest_votes_has(&consensus->digest.votes, membership->members[i].id)) {
            return false;
        }
    }
    return true;
}

/* Once for each new finding; the status keeps it until all agree. */
static void alarm_if_new(struct consensus *consensus, const char *suspects) {
    struct consensus_digest *state = &consensus->digest;
    char votes[DIGEST_LIST_BYTES];
    bool is_same = state->problem[0] != '\0' && strcmp(state->suspects, suspects) == 0;
    state->mismatches++;
    if (is_same) {
        return;
    }
    (void)snprintf(state->suspects, sizeof state->suspects, "%s", suspects);
    digest_votes_list(consensus, &state->votes, votes, sizeof votes);
    log_event(consensus->options.logger, LOG_ERROR, "digest.mismatch",
              "index=%" PRIu64 " suspected=%s digests=%s rebuild=\"%s\"", state->round_index,
              suspects[0] != '\0' ? suspects : "none", votes,
              suspects[0] != '\0' ? "holdfastctl member rebuild NAME, for each of the suspected nodes"
                                  : "no majority agrees: find out which node is right first");
}

static void alarm_minority(struct consensus *consensus, const struct digest *majority) {
    struct consensus_digest *state = &consensus->digest;
    char suspects[sizeof state->suspects];
    char odd[DIGEST_HEX_BYTES];
    char usual[DIGEST_HEX_BYTES];
    struct digest digest = *majority;
    digest_votes_suspects(consensus, &state->votes, majority, suspects, sizeof suspects, &digest);
    digest_votes_order_rebuilds(consensus, &state->votes, majority);
    alarm_if_new(consensus, suspects);
    (void)snprintf(state->problem, sizeof state->problem,
                   "at entry %" PRIu64 " %.64s applied other changes than the majority (digest %s, not %s): "
                   "'member rebuild' it",
                   state->round_index, suspects, digest_hex(&digest, odd), digest_hex(majority, usual));
}

static void alarm_split(struct consensus *consensus) {
    struct consensus_digest *state = &consensus->digest;
    alarm_if_new(consensus, "");
    (void)snprintf(state->problem, sizeof state->problem,
                   "at entry %" PRIu64
                   " the nodes' digests differ, and no majority agrees: the log of this node has them",
                   state->round_index);
}

static void judge(struct consensus *consensus) {
    struct consensus_digest *state = &consensus->digest;
    const struct digest *majority = digest_votes_majority(consensus, &state->votes);
    bool all_alike = digest_votes_are_alike(&state->votes);
    state->round_open = false;
    state->all_answered = all_have_answered(consensus);
    state->must_hand_over = false;
    if (!all_alike && majority == NULL) {
        alarm_split(consensus);
    } else if (!all_alike) {
        state->must_hand_over = !digest_equal(&state->round, majority);
        alarm_minority(consensus, majority);
    } else if (majority != NULL) {
        state->agreed_index = state->round_index;
        state->agreed = state->round;
        if (state->all_answered && state->problem[0] != '\0') {
            state->problem[0] = '\0';
            log_event(consensus->options.logger, LOG_INFO, "digest.agrees", "index=%" PRIu64, state->round_index);
        }
    }
    uint64_t now_us = consensus__now_us(consensus);
    bool is_time = state->handed_us == 0 || now_us - state->handed_us >= HAND_OVER_US;
    if (majority != NULL && state->must_hand_over && is_time) {
        state->handed_us = now_us;
        struct digest_votes votes = state->votes; /* the step may end the round */
        struct digest of_quorum = *majority;
        digest_votes_hand_over(consensus, &votes, &of_quorum, "digest.hand_over");
    }
}

static void take_answer(struct consensus *consensus, const struct raft_message *message) {
    struct consensus_digest *state = &consensus->digest;
    struct digest answer = digest_decode(message->digest);
    if (!state->round_open || state->round_term != message->term || state->round_index != message->digest_index ||
        !is_member(consensus, message->from) || !digest_votes_add(&state->votes, message->from, &answer)) {
        return;
    }
    if (all_have_answered(consensus)) {
        judge(consensus);
    }
}

static void begin_round(struct consensus *consensus) {
    struct consensus_digest *state = &consensus->digest;
    uint64_t index = storage_applied_index(consensus->storage);
    uint64_t term = raft_term(consensus->raft);
    /* What everybody has said about is not asked again. A leader that should go tries again, though. */
    bool is_news = term != state->round_term || index > state->round_index || !state->all_answered;
    struct digest digest;
    if (index == 0 || (!is_news && !state->must_hand_over) || !storage_digest(consensus->storage, index, &digest)) {
        return;
    }
    state->round_open = true;
    state->round_term = term;
    state->round_index = index;
    state->round = digest;
    state->round_us = consensus__now_us(consensus);
    state->votes.count = 0;
    (void)digest_votes_add(&state->votes, consensus->options.config->id, &digest);
}

void digest__tick(struct consensus *consensus) {
    struct consensus_digest *state = &consensus->digest;
    if (consensus->role != RAFT_LEADER) {
        state->round_open = false;
        state->problem[0] = '\0'; /* the leader's to say */
        state->must_hand_over = false;
        return;
    }
    state->differs = false; /* ... as long as that was another one */
    if (state->round_open && (state->round_term != raft_term(consensus->raft) ||
                              consensus__now_us(consensus) - state->round_us >= ROUND_US)) {
        if (state->round_term == raft_term(consensus->raft)) {
            judge(consensus);
        }
        state->round_open = false;
    }
    if (!state->round_open && consensus->role == RAFT_LEADER && raft_membership(consensus->raft)->member_count > 1) {
        begin_round(consensus);
    }
}

/* ---- With messages ------------------------------------------------------------------------------------------------
 */

void digest__tag(struct consensus *consensus, struct raft_message *message) {
    struct consensus_digest *state = &consensus->digest;
    const struct digest *digest = NULL;
    switch (message->type) {
    case RAFT_APPEND:
    case RAFT_HEARTBEAT:
        if (state->round_open && state->round_term == message->term && !digest_votes_has(&state->votes, message->to)) {
            message->digest_index = state->round_index;
            digest = &state->round;
        }
        break;
    case RAFT_APPEND_REPLY:
    case RAFT_HEARTBEAT_REPLY:
        if (state->is_owed && state->is_found && state->asked_by == message->to) {
            message->digest_index = state->asked_index;
            digest = &state->own;
            state->is_owed = false;
        }
        break;
    default: break;
    }
    if (digest != NULL) {
        digest_encode(digest, message->digest);
    }
}

void digest__received(struct consensus *consensus, const struct raft_message *message) {
    if (message->digest_index == 0 || message->term != raft_term(consensus->raft) || consensus__is_dead(consensus)) {
        return;
    }
    switch (message->type) {
    case RAFT_APPEND:
    case RAFT_HEARTBEAT: take_question(consensus, message); break;
    case RAFT_APPEND_REPLY:
    case RAFT_HEARTBEAT_REPLY:
        if (raft_role(consensus->raft) == RAFT_LEADER) {
            take_answer(consensus, message);
        }
        break;
    default: break;
    }
}

/* ---- Status -------------------------------------------------------------------------------------------------------
 */

void digest__fill_status(const struct consensus *consensus, struct consensus_status *status) {
    const struct consensus_digest *state = &consensus->digest;
    status->digest_index = state->agreed_index;
    digest_encode(&state->agreed, status->digest);
    status->digest_mismatches = state->mismatches;
}

bool digest__problem(const struct consensus *consensus, char *ret_text, size_t size) {
    const struct consensus_digest *state = &consensus->digest;
    if (state->problem[0] != '\0') {
        (void)snprintf(ret_text, size, "%s", state->problem);
    } else if (state->differs) {
        (void)snprintf(ret_text, size,
                       "the digest of what is applied here differs from the leader's at entry %" PRIu64
                       ": the leader's status says who is suspected",
                       state->asked_index);
    }
    return state->problem[0] != '\0' || state->differs;
}
