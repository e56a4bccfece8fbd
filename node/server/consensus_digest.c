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
#include <stdarg.h>
#include <stdio.h>

enum { ROUND_US = 1000 * 1000, HEX_BYTES = 2 * DIGEST_BYTES + 1, LIST_BYTES = 640 };

static_assert((int)RAFT_DIGEST_BYTES == (int)DIGEST_BYTES, "a message carries one digest");

static const char *hex(const struct digest *digest, char text[HEX_BYTES]) {
    uint8_t bytes[DIGEST_BYTES];
    digest_encode(digest, bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    return text;
}

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
        char ours[HEX_BYTES];
        char theirs[HEX_BYTES];
        log_event(consensus->options.logger, LOG_WARN, "digest.differs",
                  "index=%" PRIu64
                  " own=%s leader=%s leaders=%s hint=\"the leader's log and status say who is suspected\"",
                  state->asked_index, hex(&state->own, ours), member__name(consensus, state->asked_by),
                  hex(&state->asked, theirs));
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

static bool has_answered(const struct consensus_digest *state, uint64_t id) {
    for (uint32_t i = 0; i < state->vote_count; i++) {
        if (state->votes[i].id == id) {
            return true;
        }
    }
    return false;
}

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
        if (!has_answered(&consensus->digest, membership->members[i].id)) {
            return false;
        }
    }
    return true;
}

/* Those who answered the same, as positions in the membership. */
static uint32_t alike(const struct consensus *consensus, const struct digest *digest) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    const struct consensus_digest *state = &consensus->digest;
    uint32_t positions = 0;
    for (uint32_t i = 0; i < membership->member_count; i++) {
        for (uint32_t k = 0; k < state->vote_count; k++) {
            bool same =
                state->votes[k].id == membership->members[i].id && digest_equal(&state->votes[k].digest, digest);
            positions |= same ? UINT32_C(1) << i : 0;
        }
    }
    return positions;
}

/* A digest that a quorum has; NULL: there is none. */
static const struct digest *majority_of(const struct consensus *consensus) {
    const struct consensus_digest *state = &consensus->digest;
    for (uint32_t i = 0; i < state->vote_count; i++) {
        if (raft_is_quorum(consensus->raft, alike(consensus, &state->votes[i].digest))) {
            return &state->votes[i].digest;
        }
    }
    return NULL;
}

static void append_text(char *text, size_t size, const char *format, ...) PRINTF_LIKE(3, 4);
static void append_text(char *text, size_t size, const char *format, ...) {
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

/* "n1=<hex>,n2=<hex>": all that answered. */
static void list_votes(const struct consensus *consensus, char *text, size_t size) {
    const struct consensus_digest *state = &consensus->digest;
    text[0] = '\0';
    for (uint32_t i = 0; i < state->vote_count; i++) {
        char digits[HEX_BYTES];
        append_text(text, size, "%s%s=%s", i > 0 ? "," : "", member__name(consensus, state->votes[i].id),
                    hex(&state->votes[i].digest, digits));
    }
}

/* "n2,n3": those that differ from the majority. The first one's digest is in ret_digest. */
static void list_suspects(const struct consensus *consensus, const struct digest *majority, char *text, size_t size,
                          struct digest *ret_digest) {
    const struct consensus_digest *state = &consensus->digest;
    text[0] = '\0';
    for (uint32_t i = 0; i < state->vote_count; i++) {
        if (!digest_equal(&state->votes[i].digest, majority)) {
            *ret_digest = text[0] == '\0' ? state->votes[i].digest : *ret_digest;
            append_text(text, size, "%s%s", text[0] != '\0' ? "," : "", member__name(consensus, state->votes[i].id));
        }
    }
}

/* Once for each new finding; the status keeps it until all agree. */
static void alarm_if_new(struct consensus *consensus, const char *suspects) {
    struct consensus_digest *state = &consensus->digest;
    char votes[LIST_BYTES];
    bool is_same = state->problem[0] != '\0' && strcmp(state->suspects, suspects) == 0;
    state->mismatches++;
    if (is_same) {
        return;
    }
    (void)snprintf(state->suspects, sizeof state->suspects, "%s", suspects);
    list_votes(consensus, votes, sizeof votes);
    log_event(consensus->options.logger, LOG_ERROR, "digest.mismatch",
              "index=%" PRIu64 " suspected=%s digests=%s rebuild=\"%s\"", state->round_index,
              suspects[0] != '\0' ? suspects : "none", votes,
              suspects[0] != '\0' ? "holdfastctl member rebuild NAME, for each of the suspected nodes"
                                  : "no majority agrees: find out which node is right first");
}

static void alarm_minority(struct consensus *consensus, const struct digest *majority) {
    struct consensus_digest *state = &consensus->digest;
    char suspects[sizeof state->suspects];
    char odd[HEX_BYTES];
    char usual[HEX_BYTES];
    struct digest digest = *majority;
    list_suspects(consensus, majority, suspects, sizeof suspects, &digest);
    for (uint32_t i = 0; i < state->vote_count; i++) {
        if (state->votes[i].id != consensus->options.config->id && !digest_equal(&state->votes[i].digest, majority)) {
            rebuild__order(consensus, state->votes[i].id, REBUILD_MISMATCH);
        }
    }
    alarm_if_new(consensus, suspects);
    (void)snprintf(state->problem, sizeof state->problem,
                   "at entry %" PRIu64 " %.64s applied other changes than the majority (digest %s, not %s): "
                   "'member rebuild' it",
                   state->round_index, suspects, hex(&digest, odd), hex(majority, usual));
}

static void alarm_split(struct consensus *consensus) {
    struct consensus_digest *state = &consensus->digest;
    alarm_if_new(consensus, "");
    (void)snprintf(state->problem, sizeof state->problem,
                   "at entry %" PRIu64
                   " the nodes' digests differ, and no majority agrees: the log of this node has them",
                   state->round_index);
}

/* A leader that differs from a quorum gives the lead to one of the quorum, the one that is furthest. */
static void hand_over(struct consensus *consensus, const struct digest *majority) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    uint32_t positions = alike(consensus, majority);
    uint64_t target = RAFT_NO_NODE;
    uint64_t match_index = 0;
    for (uint32_t i = 0; i < membership->member_count; i++) {
        const struct raft_member *member = &membership->members[i];
        struct raft_peer_info info;
        if ((positions >> i & 1) != 0 && member->role == RAFT_VOTER &&
            raft_peer(consensus->raft, member->id, &info) == STATUS_OK && info.match_index >= match_index) {
            target = member->id;
            match_index = info.match_index;
        }
    }
    if (target == RAFT_NO_NODE) {
        return;
    }
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .u.target = target};
    if (consensus__step(consensus, &event) == STATUS_OK) {
        log_event(consensus->options.logger, LOG_WARN, "digest.hand_over",
                  "to=%s reason=\"this node differs from the majority\"", member__name(consensus, target));
    }
}

static void judge(struct consensus *consensus) {
    struct consensus_digest *state = &consensus->digest;
    const struct digest *majority = majority_of(consensus);
    bool all_alike = true;
    for (uint32_t i = 1; i < state->vote_count; i++) {
        all_alike = all_alike && digest_equal(&state->votes[i].digest, &state->votes[0].digest);
    }
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
    if (state->must_hand_over) {
        struct digest of_quorum = *majority;
        hand_over(consensus, &of_quorum);
    }
}

static void take_answer(struct consensus *consensus, const struct raft_message *message) {
    struct consensus_digest *state = &consensus->digest;
    if (!state->round_open || state->round_term != message->term || state->round_index != message->digest_index ||
        has_answered(state, message->from) || !is_member(consensus, message->from) ||
        state->vote_count == LIMIT_MEMBERS) {
        return;
    }
    state->votes[state->vote_count++] =
        (struct digest_vote){.id = message->from, .digest = digest_decode(message->digest)};
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
    state->votes[0] = (struct digest_vote){.id = consensus->options.config->id, .digest = digest};
    state->vote_count = 1;
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
        if (state->round_open && state->round_term == message->term && !has_answered(state, message->to)) {
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
