/*
 * What a configuration means. raft__config_quorum is the only answer to every quorum question (DESIGN rule 17):
 *
 *     may this be committed?        values = durable match indexes    -> the index that a quorum holds
 *     is this read confirmed?       values = confirmed rounds         -> the round that a quorum confirmed
 *     when did a quorum last speak? values = times                    -> that time
 *     is the vote won?              values = 1 granted, 0 not         -> 1 if a quorum granted
 *     can it still be won?          values = 0 refused, 1 not         -> 0 if a quorum can't be had any more
 *
 * Learners count nowhere. A joint configuration needs a majority of both sets (thesis, section 4.3).
 */
#include "raft/raft_internal.h"

#include <string.h>

static bool same_text(const char *a, const char *b) {
    return a[0] != '\0' && slice_equal(slice_of_string(a), slice_of_string(b));
}

enum raft_refusal raft__member_clash(const struct raft_member *a, const struct raft_member *b) {
    static const uint8_t unknown[RAFT_THUMBPRINT_BYTES];
    if (a->id == b->id) {
        return RAFT_REFUSAL_DUPLICATE_ID;
    }
    if (same_text(a->name, b->name)) {
        return RAFT_REFUSAL_DUPLICATE_NAME;
    }
    if (same_text(a->address, b->address) || same_text(a->client_address, b->client_address)) {
        return RAFT_REFUSAL_DUPLICATE_ADDRESS;
    }
    bool is_known = memcmp(a->thumbprint, unknown, sizeof unknown) != 0;
    return is_known && memcmp(a->thumbprint, b->thumbprint, sizeof unknown) == 0 ? RAFT_REFUSAL_DUPLICATE_CERTIFICATE
                                                                                 : RAFT_REFUSAL_NONE;
}

static bool member_is_sane(const struct raft_config *config, uint32_t position) {
    const struct raft_member *member = &config->members[position];
    if (member->id == RAFT_NO_NODE || member->role > RAFT_LEAVING || member->name[LIMIT_NAME_BYTES - 1] != '\0' ||
        member->address[LIMIT_ADDRESS_BYTES - 1] != '\0' || member->client_address[LIMIT_ADDRESS_BYTES - 1] != '\0') {
        return false;
    }
    bool contradicts =
        (member->role == RAFT_LEAVING && !member->in_outgoing) || (member->returns && member->role != RAFT_LEARNER);
    if (contradicts) {
        return false;
    }
    for (uint32_t i = 0; i < position; i++) {
        if (raft__member_clash(&config->members[i], member) != RAFT_REFUSAL_NONE) {
            return false;
        }
    }
    return true;
}

enum status raft__config_check(const struct raft_config *config) {
    if (config->member_count > LIMIT_MEMBERS) {
        return STATUS_INVALID;
    }
    uint32_t incoming_count = 0;
    uint32_t outgoing_count = 0;
    for (uint32_t i = 0; i < config->member_count; i++) {
        if (!member_is_sane(config, i)) {
            return STATUS_INVALID;
        }
        incoming_count += config->members[i].role == RAFT_VOTER;
        outgoing_count += config->members[i].in_outgoing;
    }
    bool outgoing_fits = config->joint ? outgoing_count > 0 : outgoing_count == 0;
    return incoming_count > 0 && outgoing_fits ? STATUS_OK : STATUS_INVALID;
}

uint32_t raft__config_find(const struct raft_config *config, uint64_t id) {
    for (uint32_t i = 0; i < config->member_count; i++) {
        if (config->members[i].id == id) {
            return i;
        }
    }
    return RAFT__NOWHERE;
}

bool raft__config_is_voter(const struct raft_config *config, uint32_t position) {
    if (position >= config->member_count) {
        return false;
    }
    const struct raft_member *member = &config->members[position];
    return member->role == RAFT_VOTER || (config->joint && member->in_outgoing);
}

/* The largest value that a majority of one set reaches. */
static uint64_t majority(const struct raft_config *config, bool outgoing, const uint64_t *values) {
    uint64_t sorted[LIMIT_MEMBERS]; /* descending */
    uint32_t count = 0;
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct raft_member *member = &config->members[i];
        if (outgoing ? !member->in_outgoing : member->role != RAFT_VOTER) {
            continue;
        }
        uint32_t at = count++;
        for (; at > 0 && sorted[at - 1] < values[i]; at--) {
            sorted[at] = sorted[at - 1];
        }
        sorted[at] = values[i];
    }
    CHECK(count > 0);
    return sorted[count / 2];
}

uint64_t raft__config_quorum(const struct raft_config *config, const uint64_t *values) {
    uint64_t incoming = majority(config, false, values);
    return config->joint ? raft__min(incoming, majority(config, true, values)) : incoming;
}
