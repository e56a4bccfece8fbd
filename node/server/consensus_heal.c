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
 * A node whose data directory was wiped has another log (raft/incarnation.c): the leader takes it back by itself as
 * soon as it may, and here the operator is told until then, on both. A peer that answers only as an earlier life of
 * itself had its directory replaced by an older copy: nothing of what it says counts (raft/heal.c), until an operator
 * acts. One whose copy passes for a later life is sent what it lacks as soon as that shows, and the log says so.
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

/* An older copy of a member's data, which it doesn't know of itself: it is filled up again, and that's all that can be
 * done now. */
static void update_copies(struct consensus *consensus) {
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    if (info.went_back_count == consensus->heal.went_back_count) {
        return;
    }
    consensus->heal.went_back_count = info.went_back_count;
    log_event(consensus->options.logger, LOG_WARN, "member.went_back",
              "peer=%s count=%" PRIu64
              " reason=\"it restarted with an older copy of its data, and is sent the rest; what "
              "it voted until then may have cost acknowledged writes: empty a member's data directory instead\"",
              member__name(consensus, info.went_back_id), info.went_back_count);
}

void heal__update(struct consensus *consensus) {
    update_log(consensus);
    update_copies(consensus);
}

/* ---- Status ----------------------------------------------------------------------------------------------------- */

/* The first peer whose words don't count, because they are of another log than the recorded one, or an older copy of
 * it. False: there is none. */
static bool lost_peer(const struct consensus *consensus, uint64_t now_us, struct raft_peer_info *ret_info) {
    const struct raft_config *membership = raft_membership(consensus->raft);
    for (uint32_t i = 0; i < membership->member_count; i++) {
        struct raft_peer_info info;
        if (raft_peer(consensus->raft, membership->members[i].id, &info) != STATUS_OK) {
            continue;
        }
        bool is_elder = info.elder_since_us != 0 && now_us - info.elder_since_us >= ELDER_US;
        bool is_wiped = info.stranger != 0 && membership->members[i].incarnation != 0 &&
                        now_us - info.stranger_since_us >= ELDER_US;
        if (is_elder || is_wiped) {
            *ret_info = info;
            return true;
        }
    }
    return false;
}

static void describe_lost_peer(const struct consensus *consensus, const struct raft_peer_info *info, char *ret_text,
                               size_t size) {
    if (info->stranger == 0) {
        (void)snprintf(ret_text, size,
                       "node %" PRIu64 " (%s) has an older copy of its data and isn't counted: stop it, empty its data "
                       "directory, and start it again",
                       info->id, member__name(consensus, info->id));
        return;
    }
    bool is_refused = info->return_refusal != RAFT_REFUSAL_NONE;
    (void)snprintf(ret_text, size,
                   "node %" PRIu64
                   " (%s) lost its data, or two machines use its id: it isn't counted, and comes back as "
                   "a learner%s%s",
                   info->id, member__name(consensus, info->id),
                   is_refused ? " later: " : " once the old one was silent for some seconds",
                   is_refused ? raft_refusal_text(info->return_refusal) : "");
}

void heal__fill_status(struct consensus *consensus, struct consensus_status *status) {
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    status->heal_index = info.heal_index;
    if (status->problem[0] != '\0') {
        return;
    }
    struct raft_peer_info lost;
    if (info.heal_index > 0) {
        (void)snprintf(status->problem, sizeof status->problem,
                       "data were damaged: the log ends at %" PRIu64 " and once reached %" PRIu64
                       "; the rest is fetched from the leader, and until then this node can't lead",
                       status->synced_index, info.heal_index);
    } else if (info.recorded_incarnation != 0 && info.recorded_incarnation != info.incarnation) {
        (void)snprintf(status->problem, sizeof status->problem,
                       "the cluster knows another log (%08" PRIx64 ") than this node's (%08" PRIx64
                       "), which isn't counted until the leader takes it back",
                       info.recorded_incarnation >> 32, info.incarnation >> 32);
    } else if (info.recorded_incarnation != info.incarnation && raft_leader(consensus->raft) != RAFT_NO_NODE) {
        (void)snprintf(status->problem, sizeof status->problem,
                       "this node's log is new (%08" PRIx64 "), and isn't counted until the leader has recorded it",
                       info.incarnation >> 32);
    } else if (lost_peer(consensus, consensus__raft_now_us(consensus), &lost)) {
        describe_lost_peer(consensus, &lost, status->problem, sizeof status->problem);
    }
}
