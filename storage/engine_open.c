/*
 * Opening and closing.
 *
 *   directory -> store (its lock file keeps others out) -> log, recovered and durable -> replay into the store -> what
 *   the tail files have beyond the log: replayed, and written to the log -> the log's next term -> ready
 *
 * A crash anywhere in between is met by the next opening as this one met the last: the tail files are not written to
 * before the log holds what they have, and durably.
 *
 *   close: flush, if it is wanted -> what is left goes to the log -> store and log close -> loop, files, environment
 */
#include "storage/engine_internal.h"

#include <stdio.h>

enum {
    MAILBOX_MESSAGES_MAX = 1024,
    GROUP_BYTES_MIN = 16 * 1024,
    WRITE_BYTES_MIN = 1024,
    SEGMENT_MORE_BYTES = 64 * 1024, /* what else is in a segment than one largest write or group */
    SPARE_SEGMENTS_MAX = 16,
    FIRST_CONFIGURED_LEVEL = 2, /* above it tables live shortly: what costs little will do */
    ADOPT_PART = 8              /* of a memtable: large values that are worth a segment of the log of their own */
};

static const uint64_t LOG_SEGMENT_BYTES_MAX = (uint64_t)4 << 30;
static const uint64_t HISTORY_MS_MAX = (uint64_t)100 * 366 * 24 * 3600 * 1000;
static const uint8_t cluster_id[WAL_CLUSTER_ID_BYTES] = "holdfast engine";
static const uint64_t node_id = 1;

void engine_options_init(struct engine_options *options) {
    *options = (struct engine_options){.create_if_missing = true,
                                       .flush_on_close = true,
                                       .memtable_bytes = (uint64_t)64 << 20,
                                       .immutable_memtables_max = 2,
                                       .cache_bytes = (uint64_t)64 << 20,
                                       .open_files_max = 512,
                                       .block_bytes = 4096,
                                       .sst_bytes = (uint64_t)64 << 20,
                                       .bloom_bits = 10,
                                       .compression = ENGINE_COMPRESSION_LZ4,
                                       .zstd_level = 3,
                                       .level_base_bytes = (uint64_t)256 << 20,
                                       .value_threshold_bytes = (uint64_t)32 << 10,
                                       .log_segment_bytes = (uint64_t)32 << 20,
                                       .log_memtable_bytes = (uint64_t)128 << 20,
                                       .log_group_bytes = LIMIT_GROUP_BYTES,
                                       .write_bytes_max = LIMIT_ENTRY_PAYLOAD_BYTES,
                                       .workers = 2};
}

/* ---- The directory ---------------------------------------------------------------------------------------------- */

void engine__path_of(char path[LIMIT_PATH_BYTES], const char *dir, const char *name) {
    int len = snprintf(path, LIMIT_PATH_BYTES, "%s/%s", dir, name);
    CHECK(len > 0 && len < LIMIT_PATH_BYTES); /* engine__check_dir */
}

/* There is a store if there is a manifest. */
static enum status check_existence(struct engine *engine, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct env_file *file = NULL;
    engine__path_of(path, engine->dir, "tables/CURRENT");
    enum status status = env_open(engine->env, path, ENV_OPEN_READ, &file, err);
    env_close(file);
    if (status == STATUS_OK) {
        return engine->options.error_if_exists ? error_set(err, STATUS_EXISTS, "%s holds a store already", engine->dir)
                                               : STATUS_OK;
    }
    if (status != STATUS_NOT_FOUND) {
        return status;
    }
    if (!engine->options.create_if_missing) {
        return error_set(err, STATUS_NOT_FOUND, "%s holds no store", engine->dir);
    }
    status = env_mkdir(engine->env, engine->dir, err);
    return status == STATUS_OK || status == STATUS_EXISTS ? env_sync_parent(engine->env, engine->dir, err) : status;
}

/* ---- Store and log ---------------------------------------------------------------------------------------------- */

static enum compression compression_of(const struct engine_options *options) {
    return options->compression == ENGINE_COMPRESSION_NONE  ? COMPRESSION_NONE
           : options->compression == ENGINE_COMPRESSION_LZ4 ? COMPRESSION_LZ4
                                                            : COMPRESSION_ZSTD;
}

void engine__fill_storage(struct storage_options *options, const struct engine_options *from) {
    options->env = from->env;
    memcpy(options->cluster_id, cluster_id, sizeof cluster_id);
    options->node_id = node_id;
    options->memtable_bytes = from->memtable_bytes;
    options->immutable_memtables_max = from->immutable_memtables_max;
    options->cache_bytes = from->cache_bytes;
    options->open_files_max = from->open_files_max;
    options->block_bytes = from->block_bytes;
    options->sst_bytes = from->sst_bytes;
    options->zstd_level = from->zstd_level;
    options->level_base_bytes = from->level_base_bytes;
    options->value_threshold_bytes = from->value_threshold_bytes;
    options->value_adopt_bytes = from->memtable_bytes / ADOPT_PART;
    options->compaction_workers = from->workers;
    options->compaction_bytes_per_second_max = from->compaction_bytes_per_second_max;
    options->scrub_bytes_per_second = from->scrub_bytes_per_second;
    /* With history_ms the engine moves the horizon itself. */
    options->history_revisions = from->history_ms > 0 ? 0 : from->history_revisions;
    options->history_none = from->history_ms == 0 && from->history_revisions == 0;
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        options->bloom_bits[level] = from->bloom_bits;
        options->compression[level] = compression_of(from);
        if (level < FIRST_CONFIGURED_LEVEL && options->compression[level] == COMPRESSION_ZSTD) {
            options->compression[level] = COMPRESSION_LZ4;
        }
    }
}

static enum status open_storage(struct engine *engine, struct storage_options *options, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    engine__path_of(path, engine->dir, "tables");
    engine__fill_storage(options, &engine->options);
    options->loop = engine->loop;
    options->dir = path;
    return storage_open(options, &engine->storage, err);
}

/* The largest write fits, with what else is in a segment. */
static uint64_t segment_bytes(const struct engine *engine) {
    const struct engine_options *options = &engine->options;
    uint64_t largest =
        options->write_bytes_max > options->log_group_bytes ? options->write_bytes_max : options->log_group_bytes;
    uint64_t least = largest + SEGMENT_MORE_BYTES;
    uint64_t bytes = options->log_segment_bytes > least ? options->log_segment_bytes : least;
    return (bytes + ENV_BLOCK_BYTES - 1) / ENV_BLOCK_BYTES * ENV_BLOCK_BYTES;
}

enum status engine__make_log(struct env *env, const char *dir, const struct storage_frontier *frontier, uint64_t term,
                             struct error *err) {
    struct wal_options options = {.env = env, .dir = dir, .node_id = node_id};
    const struct wal_frontier base = {.index = frontier->index, .term = frontier->term};
    memcpy(options.cluster_id, cluster_id, sizeof cluster_id);
    return wal_create(&options, &base, term, err);
}

/* Tail files are made when there is a log: with them, but without it, something has taken it away. */
static enum status look_for_tails(struct engine *engine, bool *ret_are_there, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct env_file *file = NULL;
    engine__path_of(path, engine->dir, "tail-0");
    enum status status = env_open(engine->env, path, ENV_OPEN_READ, &file, err);
    env_close(file);
    *ret_are_there = status == STATUS_OK;
    if (status == STATUS_NOT_FOUND) {
        error_clear(err);
        status = STATUS_OK;
    }
    return status;
}

static enum status open_log(struct engine *engine, struct wal_options *options, struct wal_recovered *ret_recovered,
                            struct error *err) {
    const struct storage_frontier *frontier = storage_frontier(engine->storage);
    const struct wal_frontier from = {.index = frontier->index, .term = frontier->term};
    char path[LIMIT_PATH_BYTES];
    engine__path_of(path, engine->dir, "log");
    options->env = engine->env;
    options->loop = engine->loop;
    options->dir = path;
    memcpy(options->cluster_id, cluster_id, sizeof cluster_id);
    options->node_id = node_id;
    options->mode = WAL_MODE_BLOCKING;
    options->segment_bytes = segment_bytes(engine);
    options->entry_payload_bytes_max = engine->options.write_bytes_max;
    options->group_bytes_max = engine->options.log_group_bytes;
    options->prepared_segments = 1;
    uint64_t wanted_bytes = engine->options.log_memtable_bytes;
    engine->log_bytes_max = wanted_bytes > options->segment_bytes ? wanted_bytes : options->segment_bytes;
    /* What a flush of such a memtable sets free at once. */
    uint64_t spare_segments = engine->log_bytes_max / options->segment_bytes + 1;
    options->spare_segments = spare_segments < SPARE_SEGMENTS_MAX ? (uint32_t)spare_segments : SPARE_SEGMENTS_MAX;
    options->mark_delay_us = 50 * 1000;
    bool heals = engine->salvage != NULL && !engine->salvage->is_strict;
    options->heals = heals;
    enum status status = look_for_tails(engine, &options->must_exist, err);
    if (status == STATUS_OK) {
        status = wal_open(options, &from, &engine->wal, ret_recovered, err);
    }
    options->dir = NULL; /* the log has a copy; ours ends here */
    if (status != STATUS_OK || !ret_recovered->fault.present) {
        return status;
    }
    if (!heals || ret_recovered->fault.final) {
        return error_set(err, STATUS_CORRUPT, "the log is damaged at %s", ret_recovered->fault.where);
    }
    engine->salvage->was_damaged = true;
    (void)snprintf(engine->salvage->where, sizeof engine->salvage->where, "%s", ret_recovered->fault.where);
    return STATUS_OK;
}

/* What tail files had of it isn't lost. */
static void note_salvaged(const struct engine *engine, const struct wal_recovered *recovered) {
    struct engine__salvage *salvage = engine->salvage;
    salvage->revision = wal_last_index(engine->wal);
    if (recovered->heal_index > salvage->revision) {
        salvage->lost_first = salvage->revision + 1;
        salvage->lost_last = recovered->heal_index;
    }
}

/* ---- Replay ----------------------------------------------------------------------------------------------------- */

/* Flushes go on meanwhile, so memory stays bounded. */
static enum status replay_record(void *context, const struct wal_record *record, struct error *err) {
    struct engine *engine = context;
    enum status status = STATUS_OK;
    env_mutex_lock(&engine->lock);
    while (status == STATUS_OK && !engine->failed && !storage_can_apply(engine->storage)) {
        status = engine->tables_full
                     ? error_set(err, STATUS_NO_SPACE, "the disk of %s is full: no table can be written", engine->dir)
                     : engine__wait(engine, &engine->room_waiters, 0);
    }
    if (engine->failed) {
        status = engine__failure(engine, err);
    } else if (status == STATUS_OK) {
        status = storage_apply(engine->storage, record->index, record->term, record->payload, err);
    }
    env_mutex_unlock(&engine->lock);
    return status;
}

static enum status replay_log(struct engine *engine, const struct wal_recovered *recovered, struct error *err) {
    uint64_t first_index = storage_applied_index(engine->storage) + 1;
    env_mutex_lock(&engine->lock);
    storage_set_durable(engine->storage, recovered->last_index);
    env_mutex_unlock(&engine->lock);
    return first_index > recovered->last_index
               ? STATUS_OK
               : wal_replay(engine->wal, first_index, recovered->last_index, replay_record, engine, err);
}

/* The records of one tail file that continue the log. */
static enum status replay_tail(struct engine *engine, unsigned number, uint64_t term, struct error *err) {
    struct slice piece = slice_of(engine->tails[number], engine->tail_mapped_bytes[number]);
    struct slice records = wal_lent_records(piece, term, wal_last_index(engine->wal) + 1);
    enum status status = STATUS_OK;
    while (status == STATUS_OK && records.len > 0) {
        struct wal_record record;
        status = wal_record_decode(&records, &record, err);
        if (status == STATUS_OK) {
            status = replay_record(engine, &record, err);
        }
        if (status == STATUS_OK) {
            env_mutex_lock(&engine->lock);
            status = wal_append(engine->wal, &record);
            env_mutex_unlock(&engine->lock);
            if (status != STATUS_OK) {
                (void)error_set(err, status, "no room in the log for what tail-%u holds: %s", number,
                                status_name(status));
            }
        }
    }
    return status;
}

/* Any of the files may be the next. */
static enum status replay_tails(struct engine *engine, uint64_t term, struct error *err) {
    enum status status = STATUS_OK;
    uint64_t before;
    do {
        before = wal_last_index(engine->wal);
        for (unsigned i = 0; status == STATUS_OK && i < WAL_LENT_COUNT; i++) {
            status = replay_tail(engine, i, term, err);
        }
    } while (status == STATUS_OK && wal_last_index(engine->wal) > before);
    return status;
}

/* From here on the log takes records of this life. */
static enum status begin_term(struct engine *engine, uint64_t last_term, struct error *err) {
    env_mutex_lock(&engine->lock);
    wal_set_applied(engine->wal, wal_last_index(engine->wal));
    enum status status = engine__log_drain(engine, err);
    if (status == STATUS_OK) {
        engine->term = last_term + 1;
        wal_set_state(engine->wal, engine->term, 0);
        status = engine__log_drain(engine, err);
    }
    if (status == STATUS_OK) {
        struct log_share share;
        wal_lend(engine->wal, engine->tails);
        wal_share(engine->wal, &share);
        storage_set_log(engine->storage, &share);
        engine->is_open = true;
        wal_set_floor(engine->wal, storage_frontier(engine->storage)->index, UINT64_MAX);
        status = engine__history_start(engine, err);
    }
    env_mutex_unlock(&engine->lock);
    return status;
}

/* ---- Closing ---------------------------------------------------------------------------------------------------- */

static void has_closed(void *context) { env_event_set(((struct engine *)context)->closed); }

static void storage_has_closed(void *context) {
    ((struct engine *)context)->storage = NULL;
    has_closed(context);
}

static void close_storage(struct engine *engine) {
    if (engine->storage != NULL) {
        env_mutex_lock(&engine->lock);
        storage_close(engine->storage, storage_has_closed, engine);
        env_mutex_unlock(&engine->lock);
        CHECK(env_event_wait(engine->closed, UINT64_MAX) == STATUS_OK);
    }
}

static void close_log(struct engine *engine) {
    if (engine->wal != NULL) {
        env_mutex_lock(&engine->lock);
        wal_close(engine->wal, has_closed, engine);
        env_mutex_unlock(&engine->lock);
        CHECK(env_event_wait(engine->closed, UINT64_MAX) == STATUS_OK);
    }
}

/* A half-built one, too. */
static void dismantle(struct engine *engine) {
    if (engine->loop != NULL) {
        env_mutex_lock(&engine->lock);
        engine->closing = true;
        engine__history_stop(engine);
        while (engine->log_busy) {
            (void)!engine__wait(engine, &engine->room_waiters, 0);
        }
        env_mutex_unlock(&engine->lock);
        close_storage(engine);
        close_log(engine);
        env_loop_stop(engine->loop);
        env_loop_join(engine->loop);
        env_loop_free(engine->loop);
    }
    engine__tails_close(engine);
    env_event_free(engine->closed);
    struct env *env = engine->env;
    void (*free_env)(struct env * env) = engine->free_env;
    mem_free(engine->alloc, engine);
    if (free_env != NULL) {
        free_env(env);
    }
}

void engine_close(struct engine *engine) {
    if (engine == NULL) {
        return;
    }
    struct error ignored;
    if (engine->options.flush_on_close) {
        (void)!engine_flush(engine, &ignored);
    }
    env_mutex_lock(&engine->lock);
    CHECK(engine->snapshot_count == 0);
    (void)!engine__log_drain(engine, &ignored);
    env_mutex_unlock(&engine->lock);
    dismantle(engine);
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

static enum status make_loop(struct engine *engine, struct error *err) {
    if (env_event_new(engine->env, &engine->closed) != STATUS_OK) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", engine->dir);
    }
    enum status status = env_loop_new(engine->env, "hf-engine", MAILBOX_MESSAGES_MAX, &engine->loop, err);
    if (status == STATUS_OK) {
        env_loop_set_guard(engine->loop, &engine->lock);
        status = env_loop_spawn(engine->loop, err);
        if (status != STATUS_OK) {
            env_loop_free(engine->loop);
            engine->loop = NULL;
        }
    }
    return status;
}

static void start_storage(struct engine *engine) {
    env_mutex_lock(&engine->lock);
    storage_start(engine->storage);
    env_mutex_unlock(&engine->lock);
}

static enum status start_log(struct engine *engine, struct error *err) {
    env_mutex_lock(&engine->lock);
    enum status status = wal_start(engine->wal, err);
    env_mutex_unlock(&engine->lock);
    return status;
}

enum status engine__check_dir(const char *dir, struct error *err) {
    return dir != NULL && dir[0] != '\0' && strlen(dir) < ENGINE_DIR_BYTES
               ? STATUS_OK
               : error_set(err, STATUS_INVALID, "the engine's directory is missing, or its name longer than %d bytes",
                           ENGINE_DIR_BYTES - 1);
}

static enum status check_options(const struct engine_options *options, struct error *err) {
    enum status status = engine__check_dir(options->dir, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (options->log_group_bytes < GROUP_BYTES_MIN || options->log_group_bytes > LIMIT_GROUP_BYTES) {
        return error_set(err, STATUS_INVALID, "engine option log_group_bytes is %u, not %d to %d",
                         options->log_group_bytes, GROUP_BYTES_MIN, LIMIT_GROUP_BYTES);
    }
    if (options->write_bytes_max < WRITE_BYTES_MIN || options->write_bytes_max > LIMIT_ENTRY_PAYLOAD_BYTES) {
        return error_set(err, STATUS_INVALID, "engine option write_bytes_max is %u, not %d to %d",
                         options->write_bytes_max, WRITE_BYTES_MIN, LIMIT_ENTRY_PAYLOAD_BYTES);
    }
    if (options->log_segment_bytes > LOG_SEGMENT_BYTES_MAX) {
        return error_set(err, STATUS_INVALID, "engine option log_segment_bytes is %llu, not 0 to %llu",
                         (unsigned long long)options->log_segment_bytes, (unsigned long long)LOG_SEGMENT_BYTES_MAX);
    }
    if ((unsigned)options->compression > ENGINE_COMPRESSION_ZSTD || options->history_revisions == UINT64_MAX ||
        options->history_ms > HISTORY_MS_MAX) {
        return error_set(err, STATUS_INVALID,
                         "engine option compression, history_revisions or history_ms is out of range");
    }
    return STATUS_OK;
}

static enum status open_parts(struct engine *engine, struct error *err) {
    struct storage_options storage;
    struct wal_options log = {.env = NULL};
    struct wal_recovered recovered;
    storage_options_init(&storage);
    engine__set_callbacks(engine, &log, &storage);
    enum status status = check_existence(engine, err);
    if (status == STATUS_OK) {
        status = make_loop(engine, err);
    }
    if (status == STATUS_OK) {
        engine__log_init(engine);
        engine__history_init(engine);
        status = open_storage(engine, &storage, err);
    }
    if (status == STATUS_OK) {
        log.share_payload_bytes = (uint32_t)storage.value_threshold_bytes; /* at most LIMIT_VALUE_BYTES */
        status = open_log(engine, &log, &recovered, err);
    }
    if (status == STATUS_OK) {
        status = engine__tails_open(engine, wal_group_bytes_max(engine->wal), err);
    }
    if (status == STATUS_OK) {
        start_storage(engine);
        status = replay_log(engine, &recovered, err);
    }
    if (status == STATUS_OK) {
        status = start_log(engine, err);
    }
    if (status == STATUS_OK) {
        status = replay_tails(engine, recovered.term, err);
    }
    if (status == STATUS_OK && engine->salvage != NULL) {
        note_salvaged(engine, &recovered);
    }
    return status == STATUS_OK ? begin_term(engine, recovered.term, err) : status;
}

static enum status open_with(const struct engine_options *options, void (*free_env)(struct env *env),
                             struct engine__salvage *salvage, struct engine **ret_engine, struct error *err) {
    struct alloc *alloc = options->env->alloc;
    enum status status = check_options(options, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct engine *engine = mem_alloc_zero(alloc, sizeof *engine);
    if (engine == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", options->dir);
    }
    engine->env = options->env;
    engine->alloc = alloc;
    engine->options = *options;
    engine->salvage = salvage;
    (void)snprintf(engine->dir, sizeof engine->dir, "%s", options->dir);
    engine->options.dir = engine->dir;
    env_mutex_init(&engine->lock, engine->env);
    status = open_parts(engine, err);
    if (status != STATUS_OK) {
        dismantle(engine);
        return status;
    }
    engine->free_env = free_env;
    error_clear(err);
    *ret_engine = engine;
    return STATUS_OK;
}

enum status engine__open(const struct engine_options *options, void (*free_env)(struct env *env),
                         struct engine **ret_engine, struct error *err) {
    return open_with(options, free_env, NULL, ret_engine, err);
}

enum status engine__open_salvaging(const struct engine_options *options, struct engine__salvage *salvage,
                                   struct engine **ret_engine, struct error *err) {
    return open_with(options, NULL, salvage, ret_engine, err);
}
