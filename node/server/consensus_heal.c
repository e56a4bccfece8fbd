/*
 * What this node or one of its peers lost, and how far it is back (DESIGN rules 13 and 14).
 *
 * The log. Recovery found damage: raft doesn't lead, nor vote for less than the log once had, until the log reaches as
 * far as it did, and is synced; then the log is told, forgets that end, and removes what it had kept aside.
 * raft/heal.c decides when that is; here it is seen by housekeeping, which is soon enough: nothing waits for it.
 *
 * The store. One that can't be opened was set aside by recovery, and the log with it, if that doesn't reach back to the
 * first entry: which is the case above, and ends with a snapshot. For a table that turns out to be damaged later:
 *
 *   found --(leads: hands the lead over)--> another leads --> a worker writes the request down --> the node ends, and
 *   its next start sets the store aside
 *
 * Reads that don't need what is damaged go on until then. A node that knows of no other leader waits: what it holds may
 * be needed, damaged or not.
 *
 * A peer that answers only as an earlier life of itself lost its log without knowing it: its data directory was wiped,
 * or replaced by an older copy. The leader counts nothing of what it says (raft/heal.c); here the operator is told.
 *
 * Owner: the consensus loop.
 */
#include "node/server/consensus_internal.h"
#include "node/server/store_faulty.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    ELDER_US = 1000 * 1000,       /* so long no message is late */
    REQUEST_US = 10 * 1000 * 1000 /* between two tries to write the request down */
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

/* ---- The store -------------------------------------------------------------------------------------------------- */

static void run_request(struct env_work *work) {
    struct consensus *consensus = CONTAINER_OF(work, struct consensus, heal.work);
    consensus->heal.status =
        store_faulty_request(consensus->options.env, consensus->options.config->data_dir, &consensus->heal.error);
}

static void on_requested(struct env_work *work) {
    struct consensus *consensus = CONTAINER_OF(work, struct consensus, heal.work);
    struct consensus_heal *heal = &consensus->heal;
    heal->is_requesting = false;
    if (consensus->stopping) {
        consensus__part_stopped(consensus);
    } else if (heal->status == STATUS_OK) {
        struct error error;
        (void)error_set(&error, STATUS_CORRUPT,
                        "table %" PRIu64 " is damaged at %" PRIu64
                        ": start the node again, and it gets its data anew from the others ([storage] heal = on)",
                        heal->damage.file, heal->damage.offset);
        consensus__fail(consensus, &error);
    } else { /* a request that a loss of power takes back costs the next start another look by the scrub */
        char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
        heal->again_us = consensus__now_us(consensus) + REQUEST_US;
        log_event(consensus->options.logger, LOG_WARN, "store.not_rebuilt", "reason=%s",
                  log_quote(quoted, sizeof quoted, heal->error.message));
    }
}

static void update_store(struct consensus *consensus) {
    struct consensus_heal *heal = &consensus->heal;
    if (!heal->is_store_damaged || heal->is_requesting || !consensus->options.config->heal ||
        consensus__now_us(consensus) < heal->again_us) {
        return;
    }
    uint64_t leader = raft_leader(consensus->raft);
    if (leader == consensus->options.config->id) {
        struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .u.target = RAFT_NO_NODE};
        (void)consensus__step(consensus, &event); /* refused: nobody can take over now; asked again */
        return;
    }
    if (leader == RAFT_NO_NODE) {
        return;
    }
    heal->is_requesting = true;
    error_clear(&heal->error);
    heal->work = (struct env_work){.run = run_request, .done = on_requested, .loop = consensus->options.loop};
    env_work_submit(consensus->options.env, ENV_WORK_SHORT, &heal->work);
}

void heal__store_damaged(struct consensus *consensus, const struct storage_damage *damage) {
    if (!consensus->heal.is_store_damaged) {
        consensus->heal.is_store_damaged = true;
        consensus->heal.damage = *damage;
    }
}

uint32_t heal__stop(struct consensus *consensus) { return consensus->heal.is_requesting ? 1 : 0; }

void heal__update(struct consensus *consensus) {
    update_log(consensus);
    update_store(consensus);
}

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
