/*
 * How far the log may be deleted: what is flushed and what every member holds, but for a follower that is away or slow
 * no more than its budget (DESIGN rule 11).
 *
 *   floor = min(flushed, max(what all members hold, what lies beyond follower_log_bytes))
 *
 * A follower below the log's begin gets a snapshot (snapshot.h). What it will need behind that is a pin of its own: as
 * hard as it must be for the transfer to be of use, but with twice the budget it is over (nothing is without a bound).
 * The same holds for the log behind a snapshot that this node's own store waits for (rebuild.h). While a snapshot is
 * about to become the store, nothing goes: what stands behind it is needed.
 * Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"

/* Segments that count against the followers' budget, oldest first. */
struct log_budget {
    uint64_t over_bytes; /* beyond it */
    uint64_t index;      /* up to here the oldest of them go for that */
};

static bool is_begun(const struct wal_segment_info *info) {
    return info->state == WAL_SEGMENT_ACTIVE || info->state == WAL_SEGMENT_KEPT;
}

static void add_segment(void *context, const struct wal_segment_info *info) {
    struct log_budget *budget = context;
    budget->over_bytes += is_begun(info) ? info->file_bytes : 0;
}

static void shed_segment(void *context, const struct wal_segment_info *info) {
    struct log_budget *budget = context;
    if (is_begun(info) && budget->over_bytes > 0) {
        budget->over_bytes -= info->file_bytes < budget->over_bytes ? info->file_bytes : budget->over_bytes;
        budget->index = info->last_index > budget->index ? info->last_index : budget->index;
    }
}

/* The pin of followers is a soft one (DESIGN rule 11): what it keeps beyond its budget goes, and they need a snapshot
 * (hazard 44). */
static uint64_t budget_index(const struct consensus *consensus, uint64_t bytes_max) {
    struct log_budget budget = {0};
    wal_explain(consensus->wal, add_segment, &budget);
    budget.over_bytes -= budget.over_bytes < bytes_max ? budget.over_bytes : bytes_max;
    if (budget.over_bytes > 0) {
        wal_explain(consensus->wal, shed_segment, &budget);
    }
    return budget.index < consensus->commit_index ? budget.index : consensus->commit_index;
}

void floor__update(struct consensus *consensus) {
    if (snapshots_hold_log(consensus->snapshots)) {
        return;
    }
    /* Committed before flushed: the floor may lag, it may never lead (hazard 40). */
    uint64_t pin_index = raft_floor_index(consensus->raft);
    uint64_t bytes_max = consensus->options.config->follower_log_bytes;
    uint64_t shed_index = budget_index(consensus, bytes_max);
    uint64_t transfer_index = snapshots_pin_index(consensus->snapshots);
    uint64_t own_index = rebuild__pin_index(consensus);
    transfer_index = own_index < transfer_index ? own_index : transfer_index;
    pin_index = own_index < pin_index ? own_index : pin_index;
    if (transfer_index < shed_index) {
        uint64_t twice_index = budget_index(consensus, bytes_max > UINT64_MAX / 2 ? UINT64_MAX : 2 * bytes_max);
        shed_index = transfer_index > twice_index ? transfer_index : twice_index;
    }
    pin_index = pin_index > shed_index ? pin_index : shed_index;
    uint64_t flushed_index = storage_frontier(consensus->storage)->index;
    wal_set_floor(consensus->wal, flushed_index, pin_index);
    uint64_t first_index = wal_first_index(consensus->wal);
    if (first_index > consensus->trimmed_index + 1) {
        consensus->trimmed_index = first_index - 1;
        struct raft_event event = {.type = RAFT_EVENT_TRIMMED, .u.trimmed_index = consensus->trimmed_index};
        (void)consensus__step(consensus, &event);
    }
}
