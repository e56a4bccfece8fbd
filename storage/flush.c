/*
 * Flushing: the oldest full memtable becomes a table of level 0.
 *
 * The worker reads the memtable through a cursor, so nothing is copied twice; the memtable stays alive because the
 * generation is on the list of full ones until its edit is durable. A flush that failed leaves no file, or one that
 * nothing names; the next attempt goes into a new file, as after a failed sync nobody knows what the old one holds.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

static enum status write_table(struct flush_job *job, const char *path, struct sst_meta *ret_meta,
                               struct sst_builder **ret_builder, struct error *err) {
    struct storage *storage = job->storage;
    struct sst_builder_options options = {.env = storage->env,
                                          .path = path,
                                          .number = job->number,
                                          .id = job->id,
                                          .block_bytes = storage->options.block_bytes};
    memcpy(options.cluster_id, storage->options.cluster_id, SST_CLUSTER_ID_BYTES);
    enum status status = sst_builder_new(&options, ret_builder, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct memtable_place place;
    bool found = memtable_first(job->generation->memtable, &place);
    for (; found && status == STATUS_OK; found = memtable_next(&place)) {
        struct entry entry = memtable_entry(&place);
        status = sst_builder_add(*ret_builder, &entry, err);
    }
    return status == STATUS_OK ? sst_builder_finish(*ret_builder, ret_meta, err) : status;
}

/* Worker. */
static void run(struct env_work *work) {
    struct flush_job *job = CONTAINER_OF(work, struct flush_job, work);
    struct storage *storage = job->storage;
    char path[LIMIT_PATH_BYTES];
    struct sst_meta meta;
    struct sst_builder *builder = NULL;
    file_path_sst(path, storage->dir, job->number);
    error_clear(&job->error);
    enum status status = write_table(job, path, &meta, &builder, &job->error);
    if (status == STATUS_OK) {
        status = env_sync_dir(storage->env, storage->dir, &job->error);
    }
    if (status == STATUS_OK) {
        status = sst_open(storage->env, path, &meta, storage->options.cluster_id, &job->sst, &job->error);
    }
    sst_builder_free(builder);
    job->status = status;
}

static void retry(struct storage *storage) {
    storage->flush.retry_at_us = env_now_us(storage->loop) + STORAGE_RETRY_US;
    storage__wake_at(storage, storage->flush.retry_at_us);
}

static void done(struct env_work *work) {
    struct flush_job *job = CONTAINER_OF(work, struct flush_job, work);
    struct storage *storage = job->storage;
    struct generation *generation = job->generation;
    job->running = false;
    job->generation = NULL;
    switch (job->status) {
    case STATUS_OK:
        generation->sst = job->sst;
        generation->sst->refs++;
        generation->state = GENERATION_WRITTEN;
        storage->table_bytes_written += job->sst->meta.size_bytes;
        job->sst = NULL;
        storage__set_space(storage, SPACE_FLUSH, NULL);
        break;
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

void storage__start_flush(struct storage *storage) {
    struct flush_job *job = &storage->flush;
    if (job->running) {
        return;
    }
    struct generation *generation = oldest_unwritten(storage);
    while (generation != NULL && memtable_entries(generation->memtable) == 0) {
        generation->state = GENERATION_WRITTEN; /* only entries without data: the frontier moves, no table */
        generation = oldest_unwritten(storage);
    }
    if (generation == NULL || env_now_us(storage->loop) < job->retry_at_us) {
        return;
    }
    job->storage = storage;
    job->running = true;
    job->generation = generation;
    job->number = storage->next_file++;
    job->id = env_random(storage->env);
    job->work = (struct env_work){.run = run, .done = done, .loop = storage->loop};
    env_work_submit(storage->env, ENV_WORK_LONG, &job->work);
}
