/*
 * Merging: all tables of level 0 and what they overlap of level 1 become new tables of level 1.
 *
 * The inputs are those of one version, pinned by the job; they are marked, so that nothing else takes them (and there
 * is one merge at a time). Flushes go on meanwhile: what they add is newer and stays in level 0. Outputs are cut only
 * between user keys, so ranges stay disjoint and all versions of a key are found in one table.
 *
 * A merge that meets a bad block, a full disk or an error drops its outputs and leaves the store as it was: reads of
 * everything else go on (the problem shows in the statistics), and it is tried again later.
 */
#include "storage/merge.h"

#include "node/base/check.h"
#include "storage/storage_internal.h"

#include <assert.h>
#include <stdio.h>

static_assert(MANIFEST_LEVELS == 2, "deletes are dropped because level 1 is the last");

enum { OUTPUTS_SPARE = 16 };

/* ---- Filter -------------------------------------------------------------------------------------------------- */

void merge_filter_init(struct merge_filter *filter, uint64_t horizon) {
    filter->horizon = horizon;
    filter->settled = false;
    filter->revision = 0;
    filter->key_len = 0;
}

bool merge_filter_keeps(struct merge_filter *filter, const struct entry *entry, bool *ret_new_key) {
    bool new_key = !slice_equal(entry->key.user, slice_of(filter->key, filter->key_len));
    bool same_revision = !new_key && entry->key.revision == filter->revision;
    if (new_key) {
        memcpy(filter->key, entry->key.user.data, entry->key.user.len);
        filter->key_len = entry->key.user.len;
        filter->settled = false;
    }
    filter->revision = entry->key.revision;
    *ret_new_key = new_key;
    if (filter->settled || same_revision) {
        return false;
    }
    if (entry->key.revision > filter->horizon) {
        return true;
    }
    filter->settled = true;
    return entry->kind != BATCH_DELETE;
}

/* ---- Worker -------------------------------------------------------------------------------------------------- */

static enum status open_inputs(const struct merge_job *job, struct cursor **ret_cursor) {
    const struct version *base = job->base;
    struct alloc *alloc = job->storage->env->alloc;
    size_t count = base->counts[0] + (job->count > 0);
    struct cursor **sources = mem_alloc_zero(alloc, count * sizeof(struct cursor *));
    if (sources == NULL) {
        return STATUS_NO_MEMORY;
    }
    bool complete = true;
    for (size_t i = 0; i < base->counts[0]; i++) {
        sources[i] = sst_cursor_new(alloc, &base->tables[0][i], 1);
        complete = complete && sources[i] != NULL;
    }
    if (job->count > 0) {
        sources[count - 1] = sst_cursor_new(alloc, &base->tables[1][job->first], job->count);
        complete = complete && sources[count - 1] != NULL;
    }
    struct cursor *merged = NULL;
    if (complete) {
        merged = merging_cursor_new(alloc, sources, count);
    } else {
        for (size_t i = 0; i < count; i++) {
            cursor_free(sources[i]);
        }
    }
    mem_free(alloc, sources);
    if (merged == NULL) {
        return STATUS_NO_MEMORY;
    }
    *ret_cursor = merged;
    return STATUS_OK;
}

static enum status begin_output(struct merge_job *job, struct sst_builder **ret_builder, struct error *err) {
    struct storage *storage = job->storage;
    char path[LIMIT_PATH_BYTES];
    CHECK(job->number < job->number_end);
    file_path_sst(path, storage->dir, job->number);
    struct sst_builder_options options = {.env = storage->env,
                                          .path = path,
                                          .number = job->number,
                                          .id = job->id_seed + job->number,
                                          .block_bytes = storage->options.block_bytes};
    memcpy(options.cluster_id, storage->options.cluster_id, SST_CLUSTER_ID_BYTES);
    job->number++;
    return sst_builder_new(&options, ret_builder, err);
}

static enum status add_output(struct merge_job *job, struct sst *sst) {
    if (job->output_count == job->output_capacity) {
        size_t capacity = job->output_capacity == 0 ? 16 : 2 * job->output_capacity;
        struct sst **outputs = mem_resize(job->storage->env->alloc, job->outputs, capacity * sizeof(struct sst *));
        if (outputs == NULL) {
            return STATUS_NO_MEMORY;
        }
        job->outputs = outputs;
        job->output_capacity = capacity;
    }
    sst->refs = 1;
    job->outputs[job->output_count++] = sst;
    return STATUS_OK;
}

/* Finishes the table, opens it for reading and lists it. */
static enum status end_output(struct merge_job *job, struct sst_builder *builder, struct error *err) {
    struct storage *storage = job->storage;
    char path[LIMIT_PATH_BYTES];
    struct sst_meta meta;
    struct sst *sst;
    enum status status = sst_builder_finish(builder, &meta, err);
    if (status != STATUS_OK) {
        return status;
    }
    file_path_sst(path, storage->dir, meta.number);
    status = sst_open(storage->env, path, &meta, storage->options.cluster_id, &sst, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = add_output(job, sst);
    if (status != STATUS_OK) {
        sst_free(sst);
    }
    return status;
}

/* Room for another output: the end is a matter of numbers set aside, never reached unless compression got far worse. */
static bool may_cut(const struct merge_job *job, const struct sst_builder *builder) {
    return sst_builder_size(builder) >= job->storage->options.sst_bytes && job->number < job->number_end;
}

static enum status write_outputs(struct merge_job *job, struct cursor *inputs, struct merge_filter *filter,
                                 struct error *err) {
    struct sst_builder *builder = NULL;
    struct entry_key start = entry_key_at(SLICE_EMPTY, ENTRY_REVISION_NONE);
    bool new_key;
    enum status status = cursor_seek(inputs, &start, err);
    for (; status == STATUS_OK; status = cursor_next(inputs, err)) {
        bool kept = merge_filter_keeps(filter, &inputs->entry, &new_key);
        if (builder != NULL && new_key && may_cut(job, builder)) {
            status = end_output(job, builder, err);
            sst_builder_free(builder);
            builder = NULL;
        }
        if (status == STATUS_OK && kept && builder == NULL) {
            status = begin_output(job, &builder, err);
        }
        if (status == STATUS_OK && kept) {
            status = sst_builder_add(builder, &inputs->entry, err);
        }
        if (status != STATUS_OK) {
            break;
        }
    }
    if (status == STATUS_NOT_FOUND) {
        status = builder == NULL ? STATUS_OK : end_output(job, builder, err);
    }
    sst_builder_free(builder);
    return status;
}

static void drop_outputs(struct merge_job *job) {
    char path[LIMIT_PATH_BYTES];
    for (size_t i = 0; i < job->output_count; i++) {
        struct error ignored;
        file_path_sst(path, job->storage->dir, job->outputs[i]->meta.number);
        job->outputs[i]->refs = 0;
        sst_free(job->outputs[i]);
        enum status status = env_unlink(job->storage->env, path, &ignored);
        (void)status;
    }
    job->output_count = 0;
}

static void run(struct env_work *work) {
    struct merge_job *job = CONTAINER_OF(work, struct merge_job, work);
    struct storage *storage = job->storage;
    struct alloc *alloc = storage->env->alloc;
    struct cursor *inputs = NULL;
    struct merge_filter *filter = mem_alloc(alloc, sizeof *filter);
    error_clear(&job->error);
    enum status status = filter == NULL ? STATUS_NO_MEMORY : open_inputs(job, &inputs);
    if (status == STATUS_OK) {
        merge_filter_init(filter, job->horizon);
        status = write_outputs(job, inputs, filter, &job->error);
    }
    if (status == STATUS_OK) {
        status = env_sync_dir(storage->env, storage->dir, &job->error);
    }
    if (status != STATUS_OK) {
        drop_outputs(job);
    }
    cursor_free(inputs);
    mem_free(alloc, filter);
    job->status = status;
}

/* ---- Owner --------------------------------------------------------------------------------------------------- */

void storage__merge_end(struct storage *storage) {
    struct merge_job *job = &storage->merge;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < job->base->counts[level]; i++) {
            job->base->tables[level][i]->merging = false;
        }
    }
    for (size_t i = 0; i < job->output_count; i++) {
        storage__unref_table(storage, job->outputs[i]);
    }
    mem_free(storage->env->alloc, job->outputs);
    storage__unref_version(storage, job->base);
    job->base = NULL;
    job->outputs = NULL;
    job->output_count = 0;
    job->output_capacity = 0;
    job->state = MERGE_IDLE;
}

static void done(struct env_work *work) {
    struct merge_job *job = CONTAINER_OF(work, struct merge_job, work);
    struct storage *storage = job->storage;
    job->state = MERGE_WRITTEN;
    if (job->status == STATUS_OK) {
        for (size_t i = 0; i < job->output_count; i++) {
            storage->table_bytes_written += job->outputs[i]->meta.size_bytes;
        }
        storage->problem[0] = '\0';
        storage__set_space(storage, SPACE_MERGE, NULL);
    } else {
        bool soon = job->status == STATUS_NO_SPACE || job->status == STATUS_NO_MEMORY;
        job->retry_at_us = env_now_us(storage->loop) + (soon ? STORAGE_RETRY_US : STORAGE_MERGE_RETRY_US);
        storage->merge_failures++;
        (void)snprintf(storage->problem, sizeof storage->problem, "%s", job->error.message);
        storage__merge_end(storage);
        if (storage->started && !storage->closing) {
            storage__wake_at(storage, job->retry_at_us);
        }
        if (job->status == STATUS_NO_SPACE) {
            storage__set_space(storage, SPACE_MERGE, &job->error);
        }
    }
    storage__schedule(storage);
    storage__close_step(storage);
}

/* Marks the inputs: all of level 0, and what their common range meets of level 1. */
static void choose_inputs(struct merge_job *job, struct version *base) {
    struct slice smallest = base->tables[0][0]->meta.smallest;
    struct slice largest = base->tables[0][0]->meta.largest;
    uint64_t revision_last = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < base->counts[0]; i++) {
        const struct sst_meta *meta = &base->tables[0][i]->meta;
        smallest = slice_compare(meta->smallest, smallest) < 0 ? meta->smallest : smallest;
        largest = slice_compare(meta->largest, largest) > 0 ? meta->largest : largest;
        revision_last = meta->revision_last > revision_last ? meta->revision_last : revision_last;
    }
    version_overlap(base, smallest, largest, &job->first, &job->count);
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        size_t first = level == 0 ? 0 : job->first;
        size_t end = level == 0 ? base->counts[0] : job->first + job->count;
        for (size_t i = first; i < end; i++) {
            CHECK(!base->tables[level][i]->merging && !base->tables[level][i]->obsolete);
            base->tables[level][i]->merging = true;
            bytes += base->tables[level][i]->meta.size_bytes;
        }
    }
    struct storage *storage = job->storage;
    base->refs++;
    job->base = base;
    /* Beyond the newest input the horizon drops nothing more; so a reader at any revision of the log's unflushed part
     * is safe. */
    job->horizon = storage->horizon < revision_last ? storage->horizon : revision_last;
    job->number = storage->next_file;
    job->number_end = job->number + 2 * (bytes / storage->options.sst_bytes) + OUTPUTS_SPARE;
    storage->next_file = job->number_end;
}

void storage__start_merge(struct storage *storage) {
    struct merge_job *job = &storage->merge;
    if (job->state != MERGE_IDLE || storage->version->counts[0] < storage->options.l0_files_merge ||
        env_now_us(storage->loop) < job->retry_at_us) {
        return;
    }
    job->storage = storage;
    job->state = MERGE_RUNNING;
    choose_inputs(job, storage->version);
    job->id_seed = env_random(storage->env);
    job->work = (struct env_work){.run = run, .done = done, .loop = storage->loop};
    env_work_submit(storage->env, ENV_WORK_LONG, &job->work);
}
