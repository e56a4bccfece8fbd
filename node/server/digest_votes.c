/* Counting digests: who has the same as whom, who has not, and who leads then. */
#include "node/server/digest_votes.h"

#include "node/server/consensus_internal.h"

#include <stdarg.h>
#include <stdio.h>

const char *digest_hex(const struct digest *digest, char text[DIGEST_HEX_BYTES]) {
    uint8_t bytes[DIGEST_BYTES];
    digest_encode(digest, bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
    return text;
}

bool digest_votes_has(const struct digest_votes *votes, uint64_t id) {
    for (uint32_t i = 0; i < votes->count; i++) {
        if (votes->votes[i].id == id) {
            return true;
        }
    }
    return false;
}

bool digest_votes_add(struct digest_votes *votes, uint64_t id, const struct digest *digest) {
    if (digest_votes_has(votes, id) || votes->count == LIMIT_MEMBERS) {
        return false;
    }
    votes->votes[votes->count++] = (struct digest_vote){.id = id, .digest = *digest};
    return true;
}

bool digest_votes_are_alike(const struct digest_votes *votes) {
    bool are_alike = true;
    for (uint32_t i = 1; i < votes->count; i++) {
        are_alike = are_alike && digest_equal(&votes->votes[i].digest, &votes->votes[0].digest);
    }
    return are_alike;
}

/* Those who have this one, as positions in the membership. */
static uint32_t positions_of(const struct consensus *consensus, const struct digest_votes *votes,
                             const struct digest *digest) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    uint32_t positions = 0;
    for (uint32_t i = 0; i < membership->member_count; i++) {
        for (uint32_t k = 0; k < votes->count; k++) {
            const struct digest_vote *vote = &votes->votes[k];
            bool same = vote->id == membership->members[i].id && digest_equal(&vote->digest, digest);
            positions |= same ? UINT32_C(1) << i : 0;
        }
    }
    return positions;
}

const struct digest *digest_votes_majority(const struct consensus *consensus, const struct digest_votes *votes) {
    for (uint32_t i = 0; i < votes->count; i++) {
        const struct digest *digest = &votes->votes[i].digest;
        if (raft_is_quorum(consensus->raft, positions_of(consensus, votes, digest))) {
            return digest;
        }
    }
    return NULL;
}

/* ---- Texts ------------------------------------------------------------------------------------------------------ */

static void append_text(char *text, size_t size, const char *format, ...) PRINTF_LIKE(3, 4);
static void append_text(char *text, size_t size, const char *format, ...) {
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

void digest_votes_list(const struct consensus *consensus, const struct digest_votes *votes, char *text, size_t size) {
    text[0] = '\0';
    for (uint32_t i = 0; i < votes->count; i++) {
        char digits[DIGEST_HEX_BYTES];
        append_text(text, size, "%s%s=%s", i > 0 ? "," : "", member__name(consensus, votes->votes[i].id),
                    digest_hex(&votes->votes[i].digest, digits));
    }
}

void digest_votes_suspects(const struct consensus *consensus, const struct digest_votes *votes,
                           const struct digest *majority, char *text, size_t size, struct digest *ret_digest) {
    text[0] = '\0';
    for (uint32_t i = 0; i < votes->count; i++) {
        const struct digest_vote *vote = &votes->votes[i];
        if (!digest_equal(&vote->digest, majority)) {
            *ret_digest = text[0] == '\0' ? vote->digest : *ret_digest;
            append_text(text, size, "%s%s", text[0] != '\0' ? "," : "", member__name(consensus, vote->id));
        }
    }
}

/* ---- The suspected ---------------------------------------------------------------------------------------------- */

void digest_votes_order_rebuilds(struct consensus *consensus, const struct digest_votes *votes,
                                 const struct digest *majority) {
    for (uint32_t i = 0; i < votes->count; i++) {
        const struct digest_vote *vote = &votes->votes[i];
        if (vote->id != consensus->options.config->id && !digest_equal(&vote->digest, majority)) {
            rebuild__order(consensus, vote->id, REBUILD_MISMATCH);
        }
    }
}

/* ---- The lead --------------------------------------------------------------------------------------------------- */

void digest_votes_hand_over(struct consensus *consensus, const struct digest_votes *votes,
                            const struct digest *majority, const char *event_name) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    uint32_t positions = positions_of(consensus, votes, majority);
    uint64_t target = RAFT_NO_NODE;
    uint64_t match_index = 0;
    for (uint32_t i = 0; i < membership->member_count; i++) {
        const struct raft_member *member = &membership->members[i];
        struct raft_peer_info info;
        bool may_lead = (positions >> i & 1) != 0 && member->role == RAFT_VOTER &&
                        raft_peer(consensus->raft, member->id, &info) == STATUS_OK && info.is_heard &&
                        info.needs_snapshot == 0;
        if (may_lead && info.match_index >= match_index) {
            target = member->id;
            match_index = info.match_index;
        }
    }
    if (target == RAFT_NO_NODE) {
        return;
    }
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .u.target = target};
    if (consensus__step(consensus, &event) == STATUS_OK) {
        log_event(consensus->options.logger, LOG_WARN, event_name,
                  "to=%s reason=\"this node differs from the majority\"", member__name(consensus, target));
    }
}
