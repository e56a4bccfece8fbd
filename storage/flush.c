/*
 * Flushing: the oldest full memtable becomes a table of level 0, entries and range deletes; large values go to value
 * files, which are complete and synced before the edit names them and the table, or stay where the log has them
 * (values_adopt.c). What was done in which order goes to a change file, likewise.
 *
 * What no read at or above the horizon can see isn't written: hot keys have many versions in one memtable. The horizon
 * is that of the moment of the switch, and no pin can be set below it afterwards. Deletes stay, as what they hide lies
 * deeper.
 *
 * The worker reads the memtable where it is, so nothing is copied twice; the memtable stays alive because the
 * generation is on the list of full ones until its edit is durable. A flush that failed leaves no file, or one that
 * nothing names; the next attempt goes into a new file, as after a failed sync nobody knows what the old one holds
 * (hazard 27).
 */
#include "node/base/check.h"
#include "storage/compaction_filter.h"
#include "storage/storage_internal.h"

/* ---- Worker, for compactions, too ---------------------------------------------------------------------------- */

void storage__builder_options(struct storage *storage, unsigned level, const char *path, uint64_t number,
                              struct sst_builder_options *ret_options) {
    const struct storage_options *options = &storage->options;
    *ret_options = (struct sst_builder_options){.env = storage->env,
                                                .path = path,
                                                .number = number,
                                                .id = env_random(storage->env),
                                                .block_bytes = options->block_bytes,
                                                .partition_bytes = options->partition_bytes,
                                                .bloom_bits = options->bloom_bits[level],
                                                .compression = options->compression[level],
                                                .zstd_level = options->zstd_level};
    memcpy(ret_options->cluster_id, options->cluster_id, SST_CLUSTER_ID_BYTES);
}

enum status storage__open_written(struct storage *storage, const struct sst_meta *meta, struct sst **ret_sst,
                                  struct error *err) {
    struct sst *sst;
    enum status status = sst_new(&storage->sst_context, meta, &sst);
    if (status != STATUS_OK) {
        return error_set(err, status, "no memory for a table");
    }
    status = sst_load(sst, err);
    if (status != STATUS_OK) {
        sst_free(sst);
        return status;
    }
    *ret_sst = sst;
    return STATUS_OK;
}

/* ---- Worker -------------------------------------------------------------------------------------------------- */

/* Large values go to value files, their places to the table. */
static enum status write_entries(struct flush_job *job, struct sst_builder *builder, const struct tombstones *covering,
                                 struct error *err) {
    const struct compaction_plan to_level0 = {.output_level = 0};
    uint64_t threshold = job->storage->options.value_threshold_bytes;
    struct compaction_filter filter;
    bool new_key;
    compaction_filter_init(&filter, NULL, &to_level0, job->generation->horizon, covering);
    struct memtable_place at;
    enum status status = STATUS_OK;
    for (bool more = memtable_first(job->generation->memtable, &at); more && status == STATUS_OK;
         more = memtable_next(&at)) {
        struct entry entry = memtable_entry(&at);
        uint8_t place[VALUE_PLACE_BYTES];
        if (!compaction_filter_keeps(&filter, &entry, &new_key)) {
            job->is_thinned = true;
            continue;
        }
        if (entry.kind == BATCH_PUT && value_is_apart(threshold, entry.value.len)) {
            if (!storage__adopt_place(&job->adoption, &entry, place)) {
                status = values_output__add(&job->values, &entry, place, err);
            }
            entry.kind = BATCH_PUT_APART;
            entry.value = slice_of(place, sizeof place);
        }
        if (status == STATUS_OK) {
            status = sst_builder_add(builder, &entry, err);
        }
    }
    return status == STATUS_OK ? values_output__end(&job->values, err) : status;
}

/* What the memtable has of range deletes, less what the horizon has passed; NULL: none. Returns owned. */
static enum status merge_tombstones(struct flush_job *job, struct tombstones **ret_set, struct error *err) {
    struct memtable_tombstones from = memtable_tombstones(job->generation->memtable);
    *ret_set = NULL;
    if (from.count == 0) {
        return STATUS_OK;
    }
    job->is_thinned = true;
    enum status status =
        tombstones_merge(job->storage->env->alloc, from.sets, from.count, job->generation->horizon, false, ret_set);
    return status == STATUS_OK ? STATUS_OK : error_set(err, status, "no memory for range deletes");
}

static enum status write_tombstones(const struct tombstones *set, struct sst_builder *builder, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < tombstones_count(set) && status == STATUS_OK; i++) {
        struct tombstone_fragment fragment = tombstones_fragment(set, i);
        for (size_t mark = 0; mark < fragment.mark_count && status == STATUS_OK; mark++) {
            struct tombstone tombstone = {.start = fragment.start,
                                          .end = fragment.end,
                                          .revision = fragment.marks[mark].revision,
                                          .ordinal = fragment.marks[mark].ordinal};
            status = sst_builder_add_tombstone(builder, &tombstone, err);
        }
    }
    return status;
}

static enum status write_table(struct flush_job *job, struct sst_meta *ret_meta, struct sst_builder **ret_builder,
                               struct error *err) {
    struct storage *storage = job->storage;
    struct tombstones *tombstones = NULL;
    char path[LIMIT_PATH_BYTES];
    struct sst_builder_options options;
    file_path_sst(path, storage->dir, job->number);
    storage__builder_options(storage, 0, path, job->number, &options);
    enum status status = sst_builder_new(&options, ret_builder, err);
    if (status == STATUS_OK) {
        status = merge_tombstones(job, &tombstones, err);
    }
    if (status == STATUS_OK) {
        storage__adopt_begin(job);
        status = write_entries(job, *ret_builder, tombstones, err);
        status = storage__adopt_finish(job, status, err);
    }
    if (status == STATUS_OK) {
        status = write_tombstones(tombstones, *ret_builder, err);
    }
    tombstones_free(tombstones);
    return status == STATUS_OK ? sst_builder_finish(*ret_builder, ret_meta, err) : status;
}

/* A table that was finished and comes to nothing: it mustn't wait for the next start on a disk that is full. */
static void unlink_table(struct storage *storage, uint64_t number) {
    char path[LIMIT_PATH_BYTES];
    struct error ignored;
    file_path_sst(path, storage->dir, number);
    enum status status = env_unlink(storage->env, path, &ignored);
    (void)status; /* it isn't there, or goes at the next start */
}

static void run(struct env_work *work) {
    struct flush_job *job = CONTAINER_OF(work, struct flush_job, work);
    struct storage *storage = job->storage;
    struct sst_meta meta;
    struct sst_builder *builder = NULL;
    error_clear(&job->error);
    job->is_thinned = false;
    job->changes = NULL;
    values_output__init(&job->values, storage, 0, NULL);
    enum status status = write_table(job, &meta, &builder, &job->error);
    if (status == STATUS_OK) {
        status = storage__write_changes(storage, job->generation->memtable, &job->changes, &job->error);
    }
    if (status == STATUS_OK) {
        status = env_sync_dir(storage->env, storage->dir, &job->error);
    }
    if (status == STATUS_OK) {
        status = storage__open_written(storage, &meta, &job->sst, &job->error);
    }
    sst_builder_free(builder);
    if (status != STATUS_OK) {
        values_output__drop(&job->values);
        storage__drop_changes(storage, job->changes);
        job->changes = NULL;
        unlink_table(storage, job->number);
    }
    job->status = status;
}

/* ---- Owner --------------------------------------------------------------------------------------------------- */

static void retry(struct storage *storage) {
    storage->flush.retry_at_us = env_now_us(storage->loop) + STORAGE_RETRY_US;
    storage__wake_at(storage, storage->flush.retry_at_us);
}

static void written(struct storage *storage, struct generation *generation) {
    struct flush_job *job = &storage->flush;
    uint64_t size_bytes = job->sst->meta.size_bytes + job->values.bytes;
    storage->adopted_bytes += job->values.adopted_bytes;
    generation->values = job->values;
    job->values = (struct values_output){0};
    generation->changes = job->changes;
    storage->change_bytes += job->changes != NULL ? job->changes->meta.size_bytes : 0;
    job->changes = NULL;
    generation->sst = job->sst;
    generation->sst->refs = 1;
    generation->state = GENERATION_WRITTEN;
    generation->horizon = job->is_thinned ? generation->horizon : 0;
    job->sst = NULL;
    storage->flush_bytes += size_bytes;
    storage__note_flush(storage, size_bytes, env_clock_us(storage->env) - job->started_us);
    storage__set_space(storage, SPACE_FLUSH, NULL);
}

static void done(struct env_work *work) {
    struct flush_job *job = CONTAINER_OF(work, struct flush_job, work);
    struct storage *storage = job->storage;
    struct generation *generation = job->generation;
    job->running = false;
    job->generation = NULL;
    storage__adopt_end(storage, &job->adoption);
    switch (job->status) {
    case STATUS_OK: written(storage, generation); break;
    case STATUS_NO_SPACE:
        retry(storage);
        storage__set_space(storage, SPACE_FLUSH, &job->error);
        break;
    case STATUS_NO_MEMORY: retry(storage); break;
    default:
        if (++generation->attempts >= STORAGE_FLUSH_ATTEMPTS) {
            storage__fail(storage, &job->error);
        } else {
            retry(storage);
        }
        break;
    }
    storage__schedule(storage);
    storage__close_step(storage);
}

static struct generation *oldest_unwritten(struct storage *storage) {
    LIST_FOREACH (link, &storage->full) {
        struct generation *generation = LIST_ENTRY(link, struct generation, link);
        if (generation->state == GENERATION_FULL) {
            return generation;
        }
    }
    return NULL;
}

static bool is_empty(const struct generation *generation) {
    return memtable_entries(generation->memtable) == 0 && memtable_range_deletes(generation->memtable) == 0;
}

void storage__start_flush(struct storage *storage) {
    struct flush_job *job = &storage->flush;
    if (job->running) {
        return;
    }
    struct generation *generation = oldest_unwritten(storage);
    while (generation != NULL && is_empty(generation)) {
        generation->state = GENERATION_WRITTEN; /* only entries without data: the frontier moves, no table */
        generation->horizon = 0;
        generation = oldest_unwritten(storage);
    }
    if (generation == NULL || env_now_us(storage->loop) < job->retry_at_us) {
        return;
    }
    if (!storage__adopt_is_ready(storage, generation, &job->retry_at_us)) {
        storage__wake_at(storage, job->retry_at_us);
        return;
    }
    storage__adopt_take(storage, generation, &job->adoption);
    job->storage = storage;
    job->running = true;
    job->generation = generation;
    job->number = atomic_fetch_add_explicit(&storage->next_file, 1, memory_order_relaxed);
    job->started_us = env_clock_us(storage->env);
    job->work = (struct env_work){.run = run, .done = done, .loop = storage->loop};
    env_work_submit(storage->env, ENV_WORK_LONG, &job->work);
}
