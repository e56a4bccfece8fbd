/*
 * What this node or one of its peers lost, and how far it is back (DESIGN rules 13 and 14).
 *
 *   recovery found damage --> HEALING: raft doesn't lead, nor vote for less than it once had --> the log reaches as far
 *   as it once did, and is synced --> the log is told: it forgets that end, and removes what it had kept aside
 *
 * raft/heal.c decides when that is; here it is seen by housekeeping, which is soon enough: nothing waits for it.
 *
 * A peer that answers only as an earlier life of itself lost its log without knowing it: its data directory was wiped,
 * or replaced by an older copy. The leader counts nothing of what it says (raft/heal.c); here the operator is told.
 *
 * Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum { ELDER_US = 1000 * 1000 }; /* so long no message is late */

void heal__update(struct consensus *consensus) {
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    bool heals = info.heal_index > 0;
    if (!consensus->healing || heals) {
        return;
    }
    struct wal_stats stats;
    wal_get_stats(consensus->wal, &stats);
    consensus->healing = false;
    log_event(consensus->options.logger, stats.segments_faulty > 0 ? LOG_INFO : LOG_DEBUG, "log.whole",
              "last=%" PRIu64 " synced=%" PRIu64 " faulty_segments=%" PRIu64, raft_last_index(consensus->raft),
              raft_synced_index(consensus->raft), stats.segments_faulty);
    wal_healed(consensus->wal);
}

/* The first peer that answers as an earlier life of itself; NULL: none does. */
static const struct raft_member *wiped_peer(const struct consensus *consensus, uint64_t now_us) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    for (uint32_t i = 0; i < membership->member_count; i++) {
        struct raft_peer_info info;
        if (raft_peer(consensus->raft, membership->members[i].id, &info) == STATUS_OK && info.elder_since_us != 0 &&
            now_us - info.elder_since_us >= ELDER_US) {
            return &membership->members[i];
        }
    }
    return NULL;
}

void heal__fill_status(struct consensus *consensus, struct consensus_status *status) {
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    status->heal_index = info.heal_index;
    status->lost_state = info.lost_state;
    if (status->problem[0] != '\0') {
        return;
    }
    const struct raft_member *wiped = wiped_peer(consensus, consensus__raft_now_us(consensus));
    if (info.heal_index > 0) {
        (void)snprintf(status->problem, sizeof status->problem,
                       "the log was damaged: it ends at %" PRIu64 " and once reached %" PRIu64
                       "; it is fetched from the leader, and until then this node can't lead",
                       status->synced_index, info.heal_index);
    } else if (wiped != NULL) {
        (void)snprintf(status->problem, sizeof status->problem,
                       "node %" PRIu64 " lost its data (its directory was wiped, or replaced by an older one) and "
                       "isn't counted: 'member remove' it, and 'member add' it under a new id",
                       wiped->id);
    }
}
