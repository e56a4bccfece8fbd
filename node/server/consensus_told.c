/*
 * News of the membership, for a node that lacks them: its log is empty, or far behind, and meanwhile there came members
 * that its configuration file doesn't name. One of them may lead; but who accepts only certificates that it knows never
 * hears that leader, and so never gets the entry that would name it.
 *
 *   PING, each 500 ms: the newest membership that I know ---> PONG: the one that I have applied, if it is newer
 *
 * What is told is believed as far as connections go, for who tells it is a member whose certificate we know, and it was
 * committed: its members may talk to us, and we to them. Raft isn't told; it hears of memberships from the log alone.
 *
 * Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

static uint64_t max_of(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* By our own log. */
static uint64_t own_index(const struct consensus *consensus) {
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    return max_of(info.config_index, consensus->members.applied.index);
}

const struct raft_config *told__config(const struct consensus *consensus) {
    const struct membership *told = &consensus->members.told;
    return told->index > own_index(consensus) ? &told->config : NULL;
}

uint64_t told__known_membership(void *context) {
    const struct consensus *consensus = context;
    return max_of(own_index(consensus), consensus->members.told.index);
}

size_t told__newer_membership(void *context, uint64_t known_index, uint8_t ret_bytes[MEMBERSHIP_BYTES_MAX]) {
    const struct consensus *consensus = context;
    const struct membership *applied = &consensus->members.applied;
    return applied->index > known_index ? membership_encode(applied, ret_bytes) : 0;
}

void told__membership(void *context, struct slice bytes) {
    struct consensus *consensus = context;
    struct membership membership;
    struct error error = {0};
    if (consensus__is_dead(consensus) || membership_decode(bytes, &membership, &error) != STATUS_OK ||
        membership.index <= told__known_membership(consensus) || membership.config.member_count == 0) {
        return;
    }
    consensus->members.told = membership;
    if (member__connect(consensus) != STATUS_OK) { /* no memory: the rest is tried again with the next news */
        consensus->members.told.index = 0;
    }
}
