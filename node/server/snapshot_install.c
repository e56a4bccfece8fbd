/*
 * From whole files to a node that goes on behind them (DESIGN rule 16; HAZARDS 19 to 21).
 *
 *   storage_ingest: verified, linked, the store stands still
 *     ready --> the log is held: no record is appended, nobody is elected here --> what is under way to the disk ends
 *           --> raft still wants it? --> yes
 *   worker: the manifest is switched: the commit point
 *     switched, one turn: wal_reset, raft INSTALLED, then the new content is seen --> the log goes on: its next group
 *                         says "starts behind"
 *
 * Why the log is held. Between our yes and the news of the switch the worker writes, and turns pass. A record that was
 * appended meanwhile would be acknowledged and then forgotten with the log; a leader elected meanwhile could not take
 * a snapshot in. So APPENDs with entries are dropped (the leader sends them again), and ticks wait, as if the log had
 * no room. Votes for others and heartbeats go on: term and vote may be written.
 *
 * Why it must be at rest. What is written before the switch is of the old log and may be void a moment later; the term
 * that the snapshot's frontier has must be durable in the log first, or the next opening takes it for damage.
 *
 * A store that is damaged or differs (rebuild.h) takes in a snapshot that isn't ahead of what is applied. Where the log
 * has the snapshot's last entry, nothing happens to it: raft hears of the switch only if that commits something, and
 * the log behind the snapshot is applied again.
 *
 * A crash before the switch leaves the old state; after it the new store with the old log, which the next opening finds
 * to lack the frontier's entry, and resets (wal_recover.c). Owner: the consensus loop.
 */
#include "node/server/snapshot_internal.h"

#include <inttypes.h>

bool snapshot_install__wants(const struct consensus *consensus, uint64_t index, uint64_t term) {
    return rebuild__wants(consensus, index, term) ||
           (raft_wants_snapshot(consensus->raft, index, term) && index > storage_applied_index(consensus->storage));
}

static bool log_has(const struct consensus *consensus, const struct storage_frontier *frontier) {
    return raft_term_at(consensus->raft, frontier->index) == frontier->term;
}

static struct snapshot_receive *receive_of(struct storage_upkeep *upkeep) { return upkeep->context; }

static void release_log(struct snapshot_receive *receive) {
    receive->is_asked = false;
    receive->holds_log = false;
    env_timer_cancel(&receive->ready_timer);
}

static void say(struct snapshot_receive *receive, bool go) {
    receive->is_asked = false;
    receive->holds_log = go;
    env_timer_cancel(&receive->ready_timer);
    storage_ingest_answer(&receive->ingest, go);
}

/* ---- Before the switch ------------------------------------------------------------------------------------------ */

static bool is_wanted(const struct snapshot_receive *receive) {
    const struct consensus *consensus = receive->snapshots->consensus;
    const struct storage_frontier *frontier = &receive->ingest.frontier;
    const struct raft *raft = consensus->raft;
    bool is_of_a_leader = log_has(consensus, frontier) || frontier->term >= raft_term_at(raft, raft_last_index(raft));
    return !consensus__is_dead(consensus) && frontier->term <= raft_term(raft) && is_of_a_leader &&
           snapshot_install__wants(consensus, frontier->index, frontier->term);
}

/* The log has nothing to write any more, or it takes too long. */
static void try_to_answer(struct snapshot_receive *receive) {
    struct snapshots *snapshots = receive->snapshots;
    uint64_t now_us = snapshot__now_us(snapshots);
    if (!is_wanted(receive) || now_us - receive->asked_us >= SNAPSHOT_READY_PATIENCE_US) {
        say(receive, false);
    } else if (wal_is_idle(snapshots->consensus->wal)) {
        say(receive, true);
    } else {
        snapshot__arm(snapshots, &receive->ready_timer, now_us + SNAPSHOT_TICK_US / 10);
    }
}

static void on_ready_timer(struct env_timer *timer) {
    struct snapshot_receive *receive = CONTAINER_OF(timer, struct snapshot_receive, ready_timer);
    if (receive->is_asked) {
        try_to_answer(receive);
    }
}

static void on_ready(struct storage_upkeep *upkeep) {
    struct snapshot_receive *receive = receive_of(upkeep);
    const struct storage_frontier *frontier = &receive->ingest.frontier;
    struct error error;
    error_clear(&error);
    receive->is_asked = true;
    receive->asked_us = snapshot__now_us(receive->snapshots);
    enum status status =
        membership_decode(slice_of(frontier->membership, frontier->membership_len), &receive->membership, &error);
    if (status != STATUS_OK || frontier->index != receive->index || frontier->term != receive->log_term) {
        say(receive, false); /* not what was offered */
        return;
    }
    receive->holds_log = true;
    try_to_answer(receive);
}

/* ---- The switch ------------------------------------------------------------------------------------------------- */

static void on_switched(struct storage_upkeep *upkeep) {
    struct snapshot_receive *receive = receive_of(upkeep);
    struct consensus *consensus = receive->snapshots->consensus;
    const struct storage_frontier *frontier = &receive->ingest.frontier;
    if (consensus__is_dead(consensus)) {
        return; /* the next opening does it */
    }
    CHECK(snapshot_install__wants(consensus, frontier->index, frontier->term));
    bool commits = frontier->index > raft_commit_index(consensus->raft);
    /* The log first: it must reach what raft then says is committed. */
    if (!log_has(consensus, frontier)) {
        wal_reset(consensus->wal, &(struct wal_frontier){.index = frontier->index, .term = frontier->term});
    }
    struct raft_event event = {.type = RAFT_EVENT_INSTALLED,
                               .u.installed = {.index = frontier->index,
                                               .term = frontier->term,
                                               .config_index = receive->membership.index,
                                               .config = &receive->membership.config}};
    enum status status = commits ? consensus__step(consensus, &event) : STATUS_OK;
    CHECK(status == STATUS_OK || consensus__is_dead(consensus));
    if (frontier->index < storage_applied_index(consensus->storage)) {
        member__went_back(consensus, &receive->membership);
    } else {
        member__installed(consensus, &receive->membership, frontier->index);
    }
    rebuild__installed(consensus);
}

/* ---- The end ---------------------------------------------------------------------------------------------------- */

static void on_done(struct storage_upkeep *upkeep) {
    struct snapshot_receive *receive = receive_of(upkeep);
    struct snapshots *snapshots = receive->snapshots;
    receive->is_ingesting = false;
    release_log(receive);
    if (snapshots->stopping) {
        return;
    }
    switch (upkeep->status) {
    case STATUS_OK:
        snapshots->installed++;
        apply__installed(snapshots->consensus);
        floor__update(snapshots->consensus);
        snapshot_receive__end(receive, SNAPSHOT_WANT_NOTHING, NULL);
        return;
    case STATUS_CANCELLED: /* the log has overtaken it, or it will be offered again */
        snapshot_receive__end(receive, is_wanted(receive) ? SNAPSHOT_WANT_END : SNAPSHOT_WANT_NOTHING,
                              upkeep->error.message);
        return;
    default:
        rebuild__failed(snapshots->consensus, upkeep->error.message);
        snapshot_receive__end(receive, SNAPSHOT_WANT_END, upkeep->error.message);
        return;
    }
}

void snapshot_install__init(struct snapshot_receive *receive) {
    env_timer_init(&receive->ready_timer, receive->snapshots->consensus->options.loop, on_ready_timer);
}

void snapshot_install__begin(struct snapshot_receive *receive) {
    struct consensus *consensus = receive->snapshots->consensus;
    CHECK(!receive->is_ingesting);
    if (!snapshot_install__wants(consensus, receive->index, receive->log_term)) {
        snapshot_receive__end(receive, SNAPSHOT_WANT_NOTHING, NULL);
        return;
    }
    memset(&receive->ingest, 0, sizeof receive->ingest);
    receive->ingest.upkeep.done = on_done;
    receive->ingest.upkeep.context = receive;
    receive->ingest.may_go_back = consensus->rebuild.state == REBUILD_ASKING;
    receive->ingest.ready = on_ready;
    receive->ingest.switched = on_switched;
    memcpy(receive->ingest.dir, receive->dir, sizeof receive->dir);
    uint64_t rate = consensus->options.config->snapshot_rate;
    receive->ingest.bytes_per_second = rate < UINT64_MAX / SNAPSHOT_VERIFY_RATES ? SNAPSHOT_VERIFY_RATES * rate : 0;
    receive->is_ingesting = true;
    storage_ingest(consensus->storage, &receive->ingest);
}
