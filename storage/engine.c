/* The engine's side of things that run in the background: what log and store call back, flushing, statistics. */
#include "node/base/histogram.h"
#include "storage/engine_internal.h"

#include <stdio.h>

/* ---- Callbacks: under the lock, on the loop or inside a call ------------------------------------------------------
 */

static void log_failed(void *context, const struct error *err) { engine__fail(context, err); }
/* Writers that wait for room find out. */
static void log_space(void *context, const struct error *err) {
    struct engine *engine = context;
    engine->log_full = err != NULL && err->code == STATUS_NO_SPACE;
    engine__wake(&engine->room_waiters, UINT64_MAX, STATUS_OK);
    engine__wake(&engine->flush_waiters, UINT64_MAX, STATUS_OK); /* they look again */
}

static void tables_space(void *context, const struct error *err) {
    struct engine *engine = context;
    engine->tables_full = err != NULL;
    if (err != NULL && engine->is_open) {
        wal_give_space(engine->wal);
    }
    engine__wake(&engine->room_waiters, UINT64_MAX, STATUS_OK);
    if (err != NULL) {
        engine__wake(&engine->flush_waiters, UINT64_MAX, STATUS_NO_SPACE);
    }
}

static void log_writable(void *context) {
    struct engine *engine = context;
    engine__wake(&engine->room_waiters, UINT64_MAX, STATUS_OK);
    engine__log_kick(engine);
}

/* The memtable is being switched: its flush will wait for the log to be durable up to here. */
static void fill_frontier(void *context, struct storage_frontier *frontier) {
    struct engine *engine = context;
    engine->log_wanted = frontier->index;
    engine->log_bytes_before = wal_written_bytes(engine->wal);
    if (engine->is_open) {
        engine__log_kick(engine); /* whoever waits for the flush may be all that is awake */
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
    log->prepare_state = log_space;
    storage->context = engine;
    storage->fill_frontier = fill_frontier;
    storage->flushed = flushed;
    storage->can_apply = can_apply;
    storage->failed = storage_failed;
    storage->space_state = tables_space;
}

/* ---- Flushing --------------------------------------------------------------------------------------------------- */

/* A table can't be written, or the log that must be durable first. */
static bool is_full(const struct engine *engine) {
    return engine->tables_full || (engine->log_full && engine->log_wanted > wal_synced_index(engine->wal));
}

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
        status = is_full(engine) ? STATUS_NO_SPACE : engine__wait(engine, &engine->flush_waiters, index);
    }
    if (engine->failed) {
        status = engine__failure(engine, err);
    } else if (status == STATUS_NO_SPACE) {
        status = error_set(err, status, "the disk of %s is full: it is tried again every second", engine->dir);
    }
    env_mutex_unlock(&engine->lock);
    return status;
}

/* ---- Compacting ------------------------------------------------------------------------------------------------- */

struct compaction {
    struct storage_compact compact;
    struct env_waiter waiter;
    enum status status;
};

static void compacted(struct storage_compact *compact, enum status status) {
    struct compaction *compaction = CONTAINER_OF(compact, struct compaction, compact);
    compaction->status = status;
    env_waiter_wake(&compaction->waiter);
}

enum status engine_compact_range(struct engine *engine, struct slice lower, struct slice upper, struct error *err) {
    struct compaction compaction = {.compact = {.lower = lower, .upper = upper, .done = compacted}};
    env_waiter_init(&compaction.waiter, engine->env);
    env_mutex_lock(&engine->lock);
    if (engine->failed) {
        enum status status = engine__failure(engine, err);
        env_mutex_unlock(&engine->lock);
        return status;
    }
    storage_compact_range(engine->storage, &compaction.compact);
    env_mutex_unlock(&engine->lock);
    env_waiter_wait(&compaction.waiter);
    return compaction.status == STATUS_OK ? STATUS_OK
                                          : error_set(err, compaction.status, "%s", compaction.compact.error.message);
}

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

static_assert((int)ENGINE_LEVELS == (int)STORAGE_LEVELS, "as many as the store has");
static_assert((int)ENGINE_SYNC_BUCKETS == (int)WAL_SYNC_BUCKETS, "as many as the log has");

static void fill_tables(struct engine_stats *stats, const struct storage_stats *store) {
    stats->memtable_bytes = store->memtable_bytes;
    stats->immutable_memtables = store->immutable_memtables;
    stats->cache_bytes = store->cache.used_bytes;
    stats->cache_hits = store->cache.hits[CACHE_DATA];
    stats->cache_misses = store->cache.misses[CACHE_DATA];
    stats->cache_index_hits = store->cache.hits[CACHE_INDEX];
    stats->cache_index_misses = store->cache.misses[CACHE_INDEX];
    stats->open_files = store->open_files.open;
    for (size_t level = 0; level < ENGINE_LEVELS; level++) {
        stats->level_files[level] = store->files[level];
        stats->level_bytes[level] = store->bytes[level];
        stats->table_files += store->files[level];
        stats->table_bytes += store->bytes[level];
    }
    stats->stall_us_memtables = store->stalls[STORAGE_STALL_MEMTABLES].total_us;
    stats->stall_us_level0 = store->stalls[STORAGE_STALL_LEVEL0].total_us;
    stats->stall_us_debt = store->stalls[STORAGE_STALL_DEBT].total_us;
    stats->stall_us_space = store->stalls[STORAGE_STALL_SPACE].total_us;
    stats->debt_bytes = store->debt_bytes;
    stats->dead_bytes = store->dead_bytes;
    stats->flushes = store->flushes;
    stats->compactions = store->compaction_count;
    stats->compactions_running = store->compactions_running;
    stats->compaction_failures = store->compaction_failures;
    stats->compaction_read_bytes = store->compaction_read_bytes;
    stats->compaction_written_bytes = store->compaction_written_bytes;
    stats->applied_bytes = store->applied_bytes;
    stats->written_bytes = store->written_bytes;
    stats->adopted_bytes = store->adopted_bytes;
    stats->value_files = store->value_files;
    stats->value_file_bytes = store->value_file_bytes;
    stats->value_bytes = store->value_bytes;
    stats->snapshot_oldest_us = store->pin_oldest_us;
    stats->snapshot_held_revisions = store->pin_held_revisions;
    stats->views = store->views;
    stats->view_oldest_us = store->view_oldest_us;
    stats->view_held_bytes = store->held_bytes;
    stats->damaged_blocks = store->damaged_blocks;
    stats->scrub_passes = store->scrub_passes;
    stats->scrub_bytes = store->scrub_bytes;
    stats->scrub_findings = store->scrub_findings;
    stats->scrub_damages = store->damage_count;
}

static void fill_log(struct engine_stats *stats, const struct wal_stats *log) {
    stats->log_groups = log->groups;
    stats->log_records = log->records;
    stats->log_written_bytes = log->written_bytes;
    stats->log_padding_bytes = log->padding_bytes;
    stats->log_segments = log->segments;
    stats->log_segments_spare = log->segments_spare;
    stats->log_segments_filled = log->segments_filled;
    stats->log_segments_recycled = log->segments_recycled;
    stats->log_group_records_max = log->group_records_max;
    stats->log_groups_idle = log->triggers[WAL_TRIGGER_IDLE];
    stats->log_groups_behind = log->triggers[WAL_TRIGGER_BEHIND];
    stats->log_groups_full = log->triggers[WAL_TRIGGER_FULL];
    stats->log_groups_start = log->triggers[WAL_TRIGGER_START];
    stats->log_groups_state = log->triggers[WAL_TRIGGER_STATE];
    stats->log_groups_mark = log->triggers[WAL_TRIGGER_MARK];
    stats->log_sync_us_total = log->sync_us_total;
    stats->log_sync_us_max = log->sync_us_max;
    stats->log_sync_us_p50 = histogram_quantile(log->sync_us_buckets, WAL_SYNC_BUCKETS, log->sync_us_max, 500);
    stats->log_sync_us_p99 = histogram_quantile(log->sync_us_buckets, WAL_SYNC_BUCKETS, log->sync_us_max, 990);
    memcpy(stats->log_sync_us_buckets, log->sync_us_buckets, sizeof stats->log_sync_us_buckets);
}

void engine_get_stats(struct engine *engine, struct engine_stats *ret_stats) {
    struct storage_stats store;
    struct wal_stats log;
    env_mutex_lock(&engine->lock);
    storage_get_stats(engine->storage, &store);
    wal_get_stats(engine->wal, &log);
    struct engine_stats stats = {.revision = storage_applied_index(engine->storage),
                                 .durable = wal_synced_index(engine->wal),
                                 .flushed = storage_frontier(engine->storage)->index,
                                 .horizon = storage_horizon(engine->storage),
                                 .stalls = engine->stalls,
                                 .stall_us_total = engine->stall_us_total,
                                 .stall_us_max = engine->stall_us_max,
                                 .stall_us_log = engine->stall_us_log,
                                 .snapshots = engine->snapshot_count};
    fill_tables(&stats, &store);
    fill_log(&stats, &log);
    (void)snprintf(stats.problem, sizeof stats.problem, "%s", engine->failed ? engine->failure.message : store.problem);
    env_mutex_unlock(&engine->lock);
    *ret_stats = stats;
}

/* ---- Properties ------------------------------------------------------------------------------------------------- */

struct property {
    const char *name;
    size_t offset; /* in struct engine_stats, a uint64_t */
};

#define PROPERTY(member)                                                                                               \
    { #member, offsetof(struct engine_stats, member) }
static const struct property properties[] = {PROPERTY(revision),
                                             PROPERTY(durable),
                                             PROPERTY(flushed),
                                             PROPERTY(horizon),
                                             PROPERTY(memtable_bytes),
                                             PROPERTY(immutable_memtables),
                                             PROPERTY(cache_bytes),
                                             PROPERTY(cache_hits),
                                             PROPERTY(cache_misses),
                                             PROPERTY(cache_index_hits),
                                             PROPERTY(cache_index_misses),
                                             PROPERTY(open_files),
                                             PROPERTY(table_files),
                                             PROPERTY(table_bytes),
                                             PROPERTY(debt_bytes),
                                             PROPERTY(dead_bytes),
                                             PROPERTY(flushes),
                                             PROPERTY(compactions),
                                             PROPERTY(compactions_running),
                                             PROPERTY(compaction_failures),
                                             PROPERTY(compaction_read_bytes),
                                             PROPERTY(compaction_written_bytes),
                                             PROPERTY(applied_bytes),
                                             PROPERTY(log_groups),
                                             PROPERTY(log_records),
                                             PROPERTY(log_written_bytes),
                                             PROPERTY(log_padding_bytes),
                                             PROPERTY(log_segments),
                                             PROPERTY(log_segments_spare),
                                             PROPERTY(log_segments_filled),
                                             PROPERTY(log_segments_recycled),
                                             PROPERTY(log_group_records_max),
                                             PROPERTY(log_groups_idle),
                                             PROPERTY(log_groups_behind),
                                             PROPERTY(log_groups_full),
                                             PROPERTY(log_groups_start),
                                             PROPERTY(log_groups_state),
                                             PROPERTY(log_groups_mark),
                                             PROPERTY(log_sync_us_total),
                                             PROPERTY(log_sync_us_max),
                                             PROPERTY(log_sync_us_p50),
                                             PROPERTY(log_sync_us_p99),
                                             PROPERTY(stalls),
                                             PROPERTY(stall_us_total),
                                             PROPERTY(stall_us_max),
                                             PROPERTY(stall_us_log),
                                             PROPERTY(stall_us_memtables),
                                             PROPERTY(stall_us_level0),
                                             PROPERTY(stall_us_debt),
                                             PROPERTY(stall_us_space),
                                             PROPERTY(written_bytes),
                                             PROPERTY(adopted_bytes),
                                             PROPERTY(value_files),
                                             PROPERTY(value_file_bytes),
                                             PROPERTY(value_bytes),
                                             PROPERTY(snapshots),
                                             PROPERTY(snapshot_oldest_us),
                                             PROPERTY(snapshot_held_revisions),
                                             PROPERTY(views),
                                             PROPERTY(view_oldest_us),
                                             PROPERTY(view_held_bytes),
                                             PROPERTY(damaged_blocks),
                                             PROPERTY(scrub_passes),
                                             PROPERTY(scrub_bytes),
                                             PROPERTY(scrub_findings),
                                             PROPERTY(scrub_damages)};
#undef PROPERTY

/* Appends it if it is the one asked for, or if all are. */
static enum status put_number(const char *wanted, const char *name, uint64_t number, struct buf *text, bool *found) {
    bool all = strcmp(wanted, "all") == 0;
    if (!all && strcmp(wanted, name) != 0) {
        return STATUS_OK;
    }
    *found = true;
    return all ? buf_append_format(text, "%s %llu\n", name, (unsigned long long)number)
               : buf_append_format(text, "%llu", (unsigned long long)number);
}

enum status engine_property(struct engine *engine, const char *name, struct buf *ret_text) {
    struct engine_stats stats;
    enum status status = STATUS_OK;
    bool found = false;
    engine_get_stats(engine, &stats);
    for (size_t i = 0; status == STATUS_OK && i < sizeof properties / sizeof properties[0]; i++) {
        uint64_t number;
        memcpy(&number, (const uint8_t *)&stats + properties[i].offset, sizeof number);
        status = put_number(name, properties[i].name, number, ret_text, &found);
    }
    for (unsigned level = 0; status == STATUS_OK && level < ENGINE_LEVELS; level++) {
        char text[32];
        (void)snprintf(text, sizeof text, "level_files.%u", level);
        status = put_number(name, text, stats.level_files[level], ret_text, &found);
        (void)snprintf(text, sizeof text, "level_bytes.%u", level);
        status = status == STATUS_OK ? put_number(name, text, stats.level_bytes[level], ret_text, &found) : status;
    }
    for (unsigned bucket = 0; status == STATUS_OK && bucket < ENGINE_SYNC_BUCKETS; bucket++) {
        char text[32];
        (void)snprintf(text, sizeof text, "log_sync_us_buckets.%u", bucket);
        status = put_number(name, text, stats.log_sync_us_buckets[bucket], ret_text, &found);
    }
    if (status == STATUS_OK && (strcmp(name, "problem") == 0 || strcmp(name, "all") == 0)) {
        status = buf_append_format(ret_text, found ? "problem %s\n" : "%s", stats.problem);
        found = true;
    }
    return status == STATUS_OK && !found ? STATUS_NOT_FOUND : status;
}
