/*
 * Manifest edits, one at a time: a flushed memtable (in order, and not before the log is durable up to its frontier),
 * else the compaction that finished first, else what goes of change files by itself.
 *
 *   owner:  edit, next version, read set and view are made; nothing can fail after the manifest was written
 *   worker: append with two syncs, or a new manifest when the old one is long enough
 *   owner:  the next version is published, inputs of a compaction become obsolete, callbacks
 *
 * A failed append is final: `failed` runs and no further job starts. On a full disk an edit waits before it is written
 * and is tried again; those that give space back have a reserve (manifest.h), so they don't wait for themselves.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

/* ---- What the edit says -------------------------------------------------------------------------------------- */

static uint64_t next_file(struct storage *storage) {
    return atomic_load_explicit(&storage->next_file, memory_order_relaxed);
}

static enum status encode_flush(struct storage *storage, const struct generation *generation, struct buf *out) {
    enum status status = manifest_put_next_file(out, next_file(storage));
    if (status == STATUS_OK) {
        status = manifest_put_frontier(out, &generation->frontier);
    }
    if (status == STATUS_OK && generation->horizon > 0) {
        status = manifest_put_horizon(out, storage->edit.version->horizon);
    }
    if (status == STATUS_OK && generation->sst != NULL) {
        status = manifest_put_add_file(out, 0, &generation->sst->meta);
    }
    return status;
}

/* Value files come with the first table that refers to them and go with the last. */
static enum status encode_values(const struct version *old, const struct version *new, struct buf *out) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < new->value_file_count &&status == STATUS_OK; i++) {
        struct value_meta meta = value_file_meta(new->value_files[i]);
        if (version_value_file(old, meta.id, NULL) == NULL) {
            status = manifest_put_add_values(out, &meta);
        }
    }
    for (size_t i = 0; i < old->value_file_count && status == STATUS_OK; i++) {
        uint64_t id = old->value_files[i]->meta.id;
        if (version_value_file(new, id, NULL) == NULL) {
            status = manifest_put_remove_values(out, id);
        }
    }
    return status;
}

static enum status encode_compaction(struct storage *storage, const struct compaction_job *job, struct buf *out) {
    const struct compaction_plan *plan = &job->plan;
    enum status status = manifest_put_next_file(out, next_file(storage));
    if (status == STATUS_OK) {
        status = manifest_put_horizon(out, storage->edit.version->horizon);
    }
    for (unsigned side = 0; side < 2; side++) {
        unsigned level = side == 0 ? plan->level : plan->output_level;
        for (size_t i = 0; i < plan->input_counts[side] && status == STATUS_OK; i++) {
            status = manifest_put_remove_file(out, level, plan->inputs[side][i]->meta.number);
        }
    }
    for (size_t i = 0; plan->trivial && i < plan->input_counts[0] && status == STATUS_OK; i++) {
        status = manifest_put_add_file(out, plan->output_level, &plan->moved[i]->meta);
    }
    for (size_t i = 0; i < job->output_count && status == STATUS_OK; i++) {
        status = manifest_put_add_file(out, plan->output_level, &job->outputs[i]->meta);
    }
    return status;
}

enum status storage__encode_state(const struct version *version, const struct storage_frontier *frontier,
                                  uint64_t next_file_number, struct buf *out) {
    enum status status = manifest_put_next_file(out, next_file_number);
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
    for (size_t i = 0; i < version->value_file_count && status == STATUS_OK; i++) {
        struct value_meta meta = value_file_meta(version->value_files[i]);
        status = manifest_put_add_values(out, &meta);
    }
    if (status == STATUS_OK) {
        status = manifest_put_changes_after(out, version->changes_after);
    }
    for (size_t i = 0; i < version->change_file_count && status == STATUS_OK; i++) {
        struct change_meta meta = change_file_meta(version->change_files[i]);
        status = manifest_put_add_changes(out, &meta);
    }
    return status;
}

static struct version *next_version(const struct edit_job *job) {
    struct version_change change = {.horizon = 0};
    if (job->flushed != NULL) {
        change.added[0] = &job->flushed->sst;
        change.added_count[0] = job->flushed->sst != NULL;
        change.horizon = job->flushed->horizon;
        change.values_added = job->flushed->values.files;
        change.values_added_count = job->flushed->values.count;
        change.changes_added = &job->flushed->changes;
        change.changes_added_count = job->flushed->changes != NULL;
    } else if (job->compaction != NULL) {
        const struct compaction_plan *plan = &job->compaction->plan;
        unsigned to = plan->output_level;
        change.removed[plan->level] = plan->inputs[0];
        change.removed_count[plan->level] = plan->input_counts[0];
        if (to != plan->level) {
            change.removed[to] = plan->inputs[1];
            change.removed_count[to] = plan->input_counts[1];
        }
        change.added[to] = plan->trivial ? plan->moved : job->compaction->outputs;
        change.added_count[to] = plan->trivial ? plan->input_counts[0] : job->compaction->output_count;
        change.horizon = job->compaction->horizon;
        change.values_added = job->compaction->values.files;
        change.values_added_count = job->compaction->values.count;
    }
    change.changes_after = job->changes_after;
    return version_new(job->storage->env->alloc, job->storage->version, &change);
}

/* ---- Worker -------------------------------------------------------------------------------------------------- */

/* The whole state after this edit, as one edit. */
static enum status encode_snapshot(const struct edit_job *job, struct buf *out) {
    const struct storage *storage = job->storage;
    const struct storage_frontier *frontier = job->flushed != NULL ? &job->flushed->frontier : &storage->frontier;
    return storage__encode_state(job->version, frontier, job->next_file, out);
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

/* A flush lets go of the log, a compaction of its inputs; a move of nothing. */
static bool gives_space(const struct edit_job *job) {
    return job->compaction == NULL || !job->compaction->plan.trivial;
}

static void run(struct env_work *work) {
    struct edit_job *job = CONTAINER_OF(work, struct edit_job, work);
    struct storage *storage = job->storage;
    error_clear(&job->error);
    enum status status = STATUS_NO_SPACE;
    if (job->rotate) {
        status = rotate(job, &job->error);
    }
    bool rotated = status != STATUS_NO_SPACE && status != STATUS_NO_MEMORY;
    job->waits = false;
    if (!rotated) {
        error_clear(&job->error);
        status = manifest_prepare(&storage->manifest, job->payload.len, gives_space(job), &job->error);
        job->waits = status == STATUS_NO_SPACE;
    }
    if (!rotated && status == STATUS_OK) {
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

/* The memtable's table is in the version: the memtable may go. */
static void end_flush(struct storage *storage, struct generation *flushed) {
    if (flushed->sst != NULL) {
        storage__unref_table(storage, flushed->sst);
    }
    if (flushed->changes != NULL) {
        storage__unref_table(storage, flushed->changes);
    }
    values_output__release(&flushed->values);
    storage__unref_generation(storage, flushed);
}

/* The inputs are in no version any more, but for those that were merely moved. */
static void retire_inputs(struct storage *storage, const struct compaction_plan *plan) {
    for (unsigned side = 0; side < 2 && !plan->trivial; side++) {
        for (size_t i = 0; i < plan->input_counts[side]; i++) {
            struct sst *sst = plan->inputs[side][i];
            sst->obsolete = true;
            storage->obsolete_bytes += sst->meta.size_bytes;
        }
    }
}

/* Value files that the new version has no use for. */
static void retire_values(struct storage *storage, const struct version *old, const struct version *new) {
    for (size_t i = 0; i < old->value_file_count; i++) {
        struct sst *file = old->value_files[i];
        if (version_value_file(new, file->meta.id, NULL) == NULL) {
            file->obsolete = true;
            storage->obsolete_bytes += file->meta.size_bytes;
        }
    }
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
    retire_values(storage, old, storage->version);
    storage__retire_changes(storage, old, storage->version);
    storage->debt_bytes = compaction_debt(storage->version, &storage->options);
    storage->pick_wanted = true;
    storage__set_current(storage, job->read_set, job->version);
    if (storage->inserted_index >= storage_applied_index(storage)) {
        view_publish(&storage->views, job->view, storage_applied_index(storage), storage->read_set);
    } else { /* it catches up: what is shown is newer */
        view_unreserve(&storage->views, job->view);
    }
    job->version = NULL;
    job->read_set = NULL;
    job->view = NULL;
    if (job->flushed != NULL) {
        end_flush(storage, job->flushed);
    } else if (job->compaction != NULL) {
        retire_inputs(storage, &job->compaction->plan);
        storage->compactions[job->compaction->plan.reason]++;
        list_remove(&job->compaction->link);
        storage__compaction_end(storage, job->compaction);
    }
    storage__unref_version(storage, old);
}

/* No space for the edit, which isn't written: later. A move lets others pass. */
static void postpone(struct edit_job *job) {
    struct storage *storage = job->storage;
    drop_preparation(job);
    if (job->compaction != NULL) {
        list_remove(&job->compaction->link);
        list_push_back(&storage->written, &job->compaction->link);
    }
    storage__set_space(storage, SPACE_MANIFEST, &job->error);
    job->retry_at_us = env_now_us(storage->loop) + STORAGE_RETRY_US;
    if (!storage->closing) {
        storage__wake_at(storage, job->retry_at_us);
    }
    storage__schedule(storage);
    storage__close_step(storage);
}

static void done(struct env_work *work) {
    struct edit_job *job = CONTAINER_OF(work, struct edit_job, work);
    struct storage *storage = job->storage;
    job->running = false;
    storage->manifest_bytes_written = storage->manifest.written_bytes;
    if (job->waits) {
        postpone(job);
        return;
    }
    if (job->status != STATUS_OK) {
        drop_preparation(job);
        storage__fail(storage, &job->error);
        storage__close_step(storage);
        return;
    }
    storage__set_space(storage, SPACE_MANIFEST, NULL);
    bool flushed = job->flushed != NULL;
    bool refused = !storage_can_apply(storage);
    publish(storage);
    buf_deinit(&job->payload);
    job->flushed = NULL;
    job->compaction = NULL;
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
    storage->durable_wanted = UINT64_MAX;
    if (list_is_empty(&storage->full)) {
        return NULL;
    }
    struct generation *oldest = LIST_ENTRY(storage->full.next, struct generation, link);
    if (oldest->state != GENERATION_WRITTEN) {
        return NULL;
    }
    if (oldest->frontier.index > storage->durable_index) {
        storage->durable_wanted = oldest->frontier.index;
        return NULL;
    }
    return oldest;
}

/* Everything that publishing the edit will need. STATUS_NO_MEMORY. */
static enum status prepare(struct edit_job *job) {
    struct storage *storage = job->storage;
    buf_init(&job->payload, storage->env->alloc, 0);
    job->version = next_version(job);
    job->read_set = storage__read_set_new(storage);
    job->view = view_reserve(&storage->views);
    if (job->version == NULL || job->read_set == NULL || job->view == NULL) {
        return STATUS_NO_MEMORY;
    }
    enum status status = STATUS_OK;
    if (job->flushed != NULL) {
        status = encode_flush(storage, job->flushed, &job->payload);
    } else if (job->compaction != NULL) {
        status = encode_compaction(storage, job->compaction, &job->payload);
    }
    if (status == STATUS_OK) {
        status = encode_values(storage->version, job->version, &job->payload);
    }
    if (status == STATUS_OK) {
        status = storage__encode_changes(storage->version, job->version, &job->payload);
    }
    return status == STATUS_OK ? manifest_reserve(&storage->manifest, job->payload.len) : status;
}

void storage__start_edit(struct storage *storage) {
    struct edit_job *job = &storage->edit;
    if (job->running) {
        return;
    }
    struct generation *flushed = ready_generation(storage);
    bool compacted = !list_is_empty(&storage->written);
    uint64_t changes_after = storage__changes_after(storage, flushed);
    bool drops = changes_after > storage->version->changes_after;
    if ((flushed == NULL && !compacted && !drops) || env_now_us(storage->loop) < job->retry_at_us) {
        return;
    }
    job->storage = storage;
    job->flushed = flushed;
    job->compaction =
        flushed == NULL && compacted ? LIST_ENTRY(storage->written.next, struct compaction_job, link) : NULL;
    job->changes_after = changes_after;
    enum status status = prepare(job);
    if (status != STATUS_OK) {
        CHECK(status == STATUS_NO_MEMORY);
        drop_preparation(job);
        job->retry_at_us = env_now_us(storage->loop) + STORAGE_RETRY_US;
        storage__wake_at(storage, job->retry_at_us);
        return;
    }
    job->rotate = is_manifest_long(storage, job->payload.len);
    job->rotate_number = job->rotate ? atomic_fetch_add_explicit(&storage->next_file, 1, memory_order_relaxed) : 0;
    job->next_file = next_file(storage);
    job->running = true;
    job->work = (struct env_work){.run = run, .done = done, .loop = storage->loop};
    env_work_submit(storage->env, ENV_WORK_SHORT, &job->work);
}
