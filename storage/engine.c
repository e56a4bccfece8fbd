/* The engine's side of things that run in the background: what log and store call back, flushing, statistics. */
#include "storage/engine_internal.h"

#include <stdio.h>

/* ---- Callbacks: under the lock, on the loop or inside a call ------------------------------------------------------ */

static void log_failed(void *context, const struct error *err) { engine__fail(context, err); }
static void log_writable(void *context) { engine__log_kick(context); }

/* The memtable is being switched: what readers may still ask for is decided now; and its flush will wait for the log to
 * be durable up to here. */
static void fill_frontier(void *context, struct storage_frontier *frontier) {
    struct engine *engine = context;
    uint64_t horizon = frontier->index;
    if (!list_is_empty(&engine->snapshots)) {
        const struct engine_snapshot *oldest = LIST_ENTRY(engine->snapshots.next, struct engine_snapshot, link);
        horizon = oldest->revision < horizon ? oldest->revision : horizon;
    }
    storage_set_horizon(engine->storage, horizon);
    engine->log_wanted = frontier->index;
    if (engine->log_started) {
        engine__log_kick(engine); /* whoever wanted the flush may sleep already */
    }
}

static void flushed(void *context, const struct storage_frontier *frontier) {
    struct engine *engine = context;
    if (engine->is_open) {
        wal_set_floor(engine->wal, frontier->index, UINT64_MAX);
    }
    engine__wake(&engine->flush_waiters, frontier->index, STATUS_OK);
}

static void can_apply(void *context) {
    struct engine *engine = context;
    engine__wake(&engine->room_waiters, UINT64_MAX, STATUS_OK);
}

static void storage_failed(void *context, const struct error *err) { engine__fail(context, err); }

void engine__set_callbacks(struct engine *engine, struct wal_options *log, struct storage_options *storage) {
    log->context = engine;
    log->failed = log_failed;
    log->writable = log_writable;
    storage->context = engine;
    storage->fill_frontier = fill_frontier;
    storage->flushed = flushed;
    storage->can_apply = can_apply;
    storage->failed = storage_failed;
}

/* ---- Flushing --------------------------------------------------------------------------------------------------- */

enum status engine_flush(struct engine *engine, struct error *err) {
    enum status status = STATUS_OK;
    env_mutex_lock(&engine->lock);
    uint64_t index = storage_applied_index(engine->storage);
    if (index > storage_frontier(engine->storage)->index && !engine->failed) {
        storage_flush(engine->storage);
    }
    while (!engine->failed && status == STATUS_OK && storage_frontier(engine->storage)->index < index) {
        engine->log_wanted = index > engine->log_wanted ? index : engine->log_wanted;
        engine__log_kick(engine);
        status = engine__wait(engine, &engine->flush_waiters, index);
    }
    if (engine->failed) {
        status = engine__failure(engine, err);
    }
    env_mutex_unlock(&engine->lock);
    return status;
}

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

void engine_get_stats(struct engine *engine, struct engine_stats *ret_stats) {
    struct storage_stats store;
    struct wal_stats log;
    env_mutex_lock(&engine->lock);
    storage_get_stats(engine->storage, &store);
    wal_get_stats(engine->wal, &log);
    struct engine_stats stats = {.revision = storage_applied_index(engine->storage),
                                 .durable = wal_synced_index(engine->wal),
                                 .flushed = storage_frontier(engine->storage)->index,
                                 .memtable_bytes = store.memtable_bytes,
                                 .immutable_memtables = store.immutable_memtables,
                                 .flushes = store.flushes,
                                 .log_groups = log.groups,
                                 .log_records = log.records,
                                 .log_written_bytes = log.written_bytes,
                                 .log_segments = log.segments,
                                 .log_sync_us_total = log.sync_us_total,
                                 .log_sync_us_max = log.sync_us_max,
                                 .stalls = engine->stalls,
                                 .stall_us_total = engine->stall_us_total,
                                 .stall_us_max = engine->stall_us_max,
                                 .written_bytes = store.written_bytes,
                                 .snapshots = engine->snapshot_count,
                                 .views = store.views};
    for (size_t level = 0; level < sizeof store.files / sizeof store.files[0]; level++) {
        stats.table_files += store.files[level];
        stats.table_bytes += store.bytes[level];
    }
    (void)snprintf(stats.problem, sizeof stats.problem, "%s", engine->failed ? engine->failure.message : store.problem);
    env_mutex_unlock(&engine->lock);
    *ret_stats = stats;
}
