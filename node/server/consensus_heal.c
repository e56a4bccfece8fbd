/*
 * What this node or one of its peers lost, and how far it is back (DESIGN rules 13 and 14).
 *
 * The log. Recovery found damage: raft doesn't lead, nor vote for less than the log once had, until the log reaches as
 * far as it did, and is synced; then the log is told, forgets that end, and removes what it had kept aside.
 * raft/heal.c decides when that is; here it is seen by housekeeping, which is soon enough: nothing waits for it.
 *
 * The store. One that can't be opened was set aside by recovery, and the log with it, if that doesn't reach back to the
 * first entry: which is the case above, and ends with a snapshot. One that turns out to be damaged later is filled
 * again while the node runs (rebuild.h).
 *
 * A peer that answers only as an earlier life of itself lost its log without knowing it: its data directory was wiped,
 * or replaced by an older copy. The leader counts nothing of what it says (raft/heal.c); here the operator is told.
 *
 * Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    ELDER_US = 1000 * 1000 /* so long no message is late */
};

/* ---- The log ---------------------------------------------------------------------------------------------------- */

static void update_log(struct consensus *consensus) {
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    if (!consensus->heal.is_open || info.heal_index > 0) {
        return;
    }
    struct wal_stats stats;
    wal_get_stats(consensus->wal, &stats);
    consensus->heal.is_open = false;
    log_event(consensus->options.logger, stats.segments_faulty > 0 ? LOG_INFO : LOG_DEBUG, "log.whole",
              "last=%" PRIu64 " synced=%" PRIu64 " faulty_segments=%" PRIu64, raft_last_index(consensus->raft),
              raft_synced_index(consensus->raft), stats.segments_faulty);
    wal_healed(consensus->wal);
}

void heal__update(struct consensus *consensus) { update_log(consensus); }

/* ---- Status ----------------------------------------------------------------------------------------------------- */

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
    if (status->problem[0] != '\0') {
        return;
    }
    const struct raft_member *wiped = wiped_peer(consensus, consensus__raft_now_us(consensus));
    if (info.heal_index > 0) {
        (void)snprintf(status->problem, sizeof status->problem,
                       "data were damaged: the log ends at %" PRIu64 " and once reached %" PRIu64
                       "; the rest is fetched from the leader, and until then this node can't lead",
                       status->synced_index, info.heal_index);
    } else if (wiped != NULL) {
        (void)snprintf(status->problem, sizeof status->problem,
                       "node %" PRIu64 " lost its data (its directory was wiped, or replaced by an older one) and "
                       "isn't counted: 'member remove' it, and 'member add' it under a new id",
                       wiped->id);
    }
}
