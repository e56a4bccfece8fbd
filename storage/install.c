/*
 * Manifest edits, one at a time: a flushed memtable (in order, and not before the log is durable up to its frontier) or
 * a finished merge.
 *
 *   owner:  edit, next version, read set and view are made; nothing can fail after the manifest was written
 *   worker: append with two syncs, or a new manifest when the old one is long enough
 *   owner:  the next version is published, inputs of a merge become obsolete, callbacks
 *
 * A failed append is final: `failed` runs and no further job starts.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

/* ---- What the edit says -------------------------------------------------------------------------------------- */

static enum status encode_flush(struct storage *storage, const struct generation *generation, struct buf *out) {
    enum status status = manifest_put_next_file(out, storage->next_file);
    if (status == STATUS_OK) {
        status = manifest_put_frontier(out, &generation->frontier);
    }
    if (status == STATUS_OK && generation->sst != NULL) {
        status = manifest_put_add_file(out, 0, &generation->sst->meta);
    }
    return status;
}

static enum status encode_merge(struct storage *storage, struct buf *out) {
    const struct merge_job *merge = &storage->merge;
    const struct version *base = merge->base;
    enum status status = manifest_put_next_file(out, storage->next_file);
    if (status == STATUS_OK) {
        status = manifest_put_horizon(out, storage->edit.version->horizon);
    }
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < base->counts[level] && status == STATUS_OK; i++) {
            if (base->tables[level][i]->merging) {
                status = manifest_put_remove_file(out, level, base->tables[level][i]->meta.number);
            }
        }
    }
    for (size_t i = 0; i < merge->output_count && status == STATUS_OK; i++) {
        status = manifest_put_add_file(out, 1, &merge->outputs[i]->meta);
    }
    return status;
}

static struct version *next_version(struct storage *storage, const struct generation *flushed) {
    struct version_change change = {.horizon = 0};
    if (flushed != NULL) {
        change.added[0] = &flushed->sst;
        change.added_count[0] = flushed->sst != NULL;
    } else {
        change.added[1] = storage->merge.outputs;
        change.added_count[1] = storage->merge.output_count;
        change.remove_merging = true;
        change.horizon = storage->merge.horizon;
    }
    return version_new(storage->env->alloc, storage->version, &change);
}

/* ---- Worker -------------------------------------------------------------------------------------------------- */

/* The whole state after this edit, as one edit. */
static enum status encode_snapshot(const struct edit_job *job, struct buf *out) {
    const struct storage *storage = job->storage;
    const struct version *version = job->version;
    const struct storage_frontier *frontier = job->flushed != NULL ? &job->flushed->frontier : &storage->frontier;
    enum status status = manifest_put_next_file(out, job->rotate_number + 1);
    if (status == STATUS_OK) {
        status = manifest_put_frontier(out, frontier);
    }
    if (status == STATUS_OK) {
        status = manifest_put_horizon(out, version->horizon);
    }
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level] && status == STATUS_OK; i++) {
            status = manifest_put_add_file(out, level, &version->tables[level][i]->meta);
        }
    }
    return status;
}

static enum status rotate(struct edit_job *job, struct error *err) {
    struct storage *storage = job->storage;
    struct buf snapshot;
    buf_init(&snapshot, storage->env->alloc, 0);
    enum status status = encode_snapshot(job, &snapshot);
    if (status == STATUS_OK) {
        status = manifest_switch(&storage->manifest, job->rotate_number, buf_slice(&snapshot), err);
    }
    buf_deinit(&snapshot);
    return status;
}

static void run(struct env_work *work) {
    struct edit_job *job = CONTAINER_OF(work, struct edit_job, work);
    struct storage *storage = job->storage;
    error_clear(&job->error);
    enum status status = STATUS_NO_SPACE;
    if (job->rotate) {
        status = rotate(job, &job->error);
    }
    if (status == STATUS_NO_SPACE || status == STATUS_NO_MEMORY) {
        status = manifest_append(&storage->manifest, buf_slice(&job->payload), &job->error);
    }
    job->status = status;
}

/* ---- Owner --------------------------------------------------------------------------------------------------- */

/* Gives back what the edit had prepared. */
static void drop_preparation(struct edit_job *job) {
    struct storage *storage = job->storage;
    if (job->version != NULL) {
        storage__unref_version(storage, job->version);
    }
    mem_free(storage->env->alloc, job->read_set);
    view_unreserve(&storage->views, job->view);
    buf_deinit(&job->payload);
    job->version = NULL;
    job->read_set = NULL;
    job->view = NULL;
}

/* The manifest says so; now the readers may see it. */
static void publish(struct storage *storage) {
    struct edit_job *job = &storage->edit;
    struct version *old = storage->version;
    if (job->flushed != NULL) {
        list_remove(&job->flushed->link);
        storage->full_count--;
        storage->frontier = job->flushed->frontier;
        storage->flushes++;
    }
    storage->version = job->version;
    storage__set_current(storage, job->read_set, job->version);
    view_publish(&storage->views, job->view, storage_applied_index(storage), storage->read_set);
    job->version = NULL;
    job->read_set = NULL;
    job->view = NULL;
    if (job->flushed != NULL) {
        if (job->flushed->sst != NULL) {
            storage__unref_table(storage, job->flushed->sst);
        }
        storage__unref_generation(storage, job->flushed);
    } else {
        for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
            for (size_t i = 0; i < storage->merge.base->counts[level]; i++) {
                struct sst *sst = storage->merge.base->tables[level][i];
                sst->obsolete = sst->obsolete || sst->merging;
            }
        }
        storage->merges++;
        storage__merge_end(storage);
    }
    storage__unref_version(storage, old);
}

static void done(struct env_work *work) {
    struct edit_job *job = CONTAINER_OF(work, struct edit_job, work);
    struct storage *storage = job->storage;
    job->running = false;
    storage->manifest_bytes_written = storage->manifest.written_bytes;
    if (job->status != STATUS_OK) {
        drop_preparation(job);
        storage__fail(storage, &job->error);
        storage__close_step(storage);
        return;
    }
    bool flushed = job->flushed != NULL;
    bool refused = !storage_can_apply(storage);
    publish(storage);
    buf_deinit(&job->payload);
    job->flushed = NULL;
    if (flushed && !storage->closing && storage->options.flushed != NULL) {
        storage->options.flushed(storage->options.context, &storage->frontier);
    }
    if (refused && storage_can_apply(storage) && !storage->closing && storage->options.can_apply != NULL) {
        storage->options.can_apply(storage->options.context);
    }
    storage__schedule(storage);
    storage__close_step(storage);
}

static bool is_manifest_long(const struct storage *storage, size_t payload_len) {
    uint64_t bound = 2 * storage->manifest.snapshot_bytes;
    bound = bound > storage->options.manifest_bytes_max ? bound : storage->options.manifest_bytes_max;
    return storage->manifest.size_bytes + manifest_edit_bytes(payload_len) + MANIFEST_BLOCK_BYTES > bound;
}

/* A generation whose table is written and whose frontier the log holds: only the oldest may go. */
static struct generation *ready_generation(struct storage *storage) {
    if (list_is_empty(&storage->full)) {
        return NULL;
    }
    struct generation *oldest = LIST_ENTRY(storage->full.next, struct generation, link);
    bool ready = oldest->state == GENERATION_WRITTEN && oldest->frontier.index <= storage->durable_index;
    return ready ? oldest : NULL;
}

void storage__start_edit(struct storage *storage) {
    struct edit_job *job = &storage->edit;
    struct generation *flushed = job->running ? NULL : ready_generation(storage);
    bool merged = storage->merge.state == MERGE_WRITTEN;
    if (job->running || (flushed == NULL && !merged) || env_now_us(storage->loop) < job->retry_at_us) {
        return;
    }
    job->storage = storage;
    job->flushed = flushed;
    buf_init(&job->payload, storage->env->alloc, 0);
    job->version = next_version(storage, flushed);
    job->read_set = storage__read_set_new(storage);
    job->view = view_reserve(&storage->views);
    enum status status = STATUS_NO_MEMORY;
    if (job->version != NULL && job->read_set != NULL && job->view != NULL) {
        status = flushed != NULL ? encode_flush(storage, flushed, &job->payload) : encode_merge(storage, &job->payload);
    }
    if (status == STATUS_OK) {
        status = manifest_reserve(&storage->manifest, job->payload.len);
    }
    if (status != STATUS_OK) {
        CHECK(status == STATUS_NO_MEMORY);
        drop_preparation(job);
        job->retry_at_us = env_now_us(storage->loop) + STORAGE_RETRY_US;
        storage__wake_at(storage, job->retry_at_us);
        return;
    }
    job->rotate = is_manifest_long(storage, job->payload.len);
    job->rotate_number = job->rotate ? storage->next_file++ : 0;
    job->running = true;
    job->work = (struct env_work){.run = run, .done = done, .loop = storage->loop};
    env_work_submit(storage->env, ENV_WORK_SHORT, &job->work);
}
