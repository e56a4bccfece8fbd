/*
 * Checkpoints: the version that the manifest has, under other names.
 *
 *   owner:  (flush first, if asked to) version pinned, frontier copied: both of the same edit
 *   worker: dir.tmp made, or emptied of what an earlier attempt left
 *           every file of the version linked into it
 *           a manifest with one edit, CURRENT; all of it and the directory synced
 *           dir.tmp renamed to dir, its parent synced
 *
 * The rename is the commit point. The pinned version keeps compactions from unlinking what isn't linked yet; the writes
 * go on, as what they make is in later versions. A table is synced before any version has it, so linking it costs no
 * I/O but the directory's.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"
#include "storage/store_files.h"

#include <stdio.h>

enum { STAGE_WAITING, STAGE_LINKED };

static struct storage_checkpoint *checkpoint_of(struct storage_upkeep *upkeep) {
    return CONTAINER_OF(upkeep, struct storage_checkpoint, upkeep);
}

/* ---- Worker -------------------------------------------------------------------------------------------------- */

static enum status refuse_existing(void *context, const char *name) {
    (void)context;
    (void)name;
    return STATUS_CANCELLED; /* seen enough */
}

/* Nothing is at dir, and dir.tmp is an empty directory. */
static enum status prepare(struct env *env, const char *dir, const char *tmp, struct error *err) {
    enum status status = env_list_dir(env, dir, refuse_existing, NULL, err);
    if (status == STATUS_OK || status == STATUS_CANCELLED) {
        return error_set(err, STATUS_EXISTS, "%s: there is something already", dir);
    }
    if (status != STATUS_NOT_FOUND) {
        return status;
    }
    error_clear(err);
    status = env_mkdir(env, tmp, err);
    if (status == STATUS_EXISTS) {
        error_clear(err);
        status = store_remove_files(env, tmp, err);
    }
    return status;
}

static enum status link_file(struct storage *storage, struct storage_checkpoint *checkpoint, const char *tmp,
                             void (*make_path)(char *out, const char *dir, uint64_t number),
                             const struct sst_meta *meta, struct error *err) {
    struct storage_upkeep *upkeep = &checkpoint->upkeep;
    char from[LIMIT_PATH_BYTES];
    char to[LIMIT_PATH_BYTES];
    uint64_t copied_bytes;
    if (storage__upkeep_is_cancelled(upkeep)) {
        return error_set(err, STATUS_CANCELLED, "%s: the checkpoint was cancelled", checkpoint->dir);
    }
    make_path(from, storage->dir, meta->number);
    make_path(to, tmp, meta->number);
    enum status status = store_link(storage->env, from, to, &upkeep->is_cancelled, &copied_bytes, err);
    if (status == STATUS_OK) {
        checkpoint->files++;
        checkpoint->bytes += meta->size_bytes;
        checkpoint->copied_bytes += copied_bytes;
        atomic_fetch_add_explicit(&upkeep->done_bytes, meta->size_bytes, memory_order_relaxed);
    }
    return status;
}

static enum status link_files(struct storage *storage, struct storage_checkpoint *checkpoint, const char *tmp,
                              struct error *err) {
    const struct version *version = checkpoint->version;
    enum status status = STATUS_OK;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level] && status == STATUS_OK; i++) {
            status = link_file(storage, checkpoint, tmp, file_path_sst, &version->tables[level][i]->meta, err);
        }
    }
    for (size_t i = 0; i < version->value_file_count && status == STATUS_OK; i++) {
        status = link_file(storage, checkpoint, tmp, file_path_values, &version->value_files[i]->meta, err);
    }
    for (size_t i = 0; i < version->change_file_count && status == STATUS_OK; i++) {
        status = link_file(storage, checkpoint, tmp, file_path_changes, &version->change_files[i]->meta, err);
    }
    return status;
}

/* Syncs the directory, too. */
static enum status write_manifest(struct storage *storage, const struct storage_checkpoint *checkpoint, const char *tmp,
                                  struct error *err) {
    struct manifest manifest = {.env = storage->env, .dir = tmp, .identity = storage->manifest.identity};
    struct buf snapshot;
    buf_init(&snapshot, storage->env->alloc, 0);
    enum status status =
        storage__encode_state(checkpoint->version, &checkpoint->frontier, checkpoint->next_file + 1, &snapshot);
    if (status == STATUS_OK) {
        status = manifest_switch(&manifest, checkpoint->next_file, buf_slice(&snapshot), err);
    } else {
        (void)error_set(err, status, "%s: no memory for its manifest", tmp);
    }
    manifest_close(&manifest);
    buf_deinit(&snapshot);
    return status;
}

static void clean_up(struct env *env, const char *tmp) {
    struct error ignored;
    if (store_remove_files(env, tmp, &ignored) == STATUS_OK) {
        enum status status = env_unlink(env, tmp, &ignored);
        (void)status; /* the next attempt uses it */
    }
}

static void run(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_checkpoint *checkpoint = checkpoint_of(upkeep);
    struct env *env = storage->env;
    char tmp[LIMIT_PATH_BYTES];
    int len = snprintf(tmp, sizeof tmp, "%s.tmp", checkpoint->dir);
    CHECK(len > 0 && len < (int)sizeof tmp);
    enum status status = prepare(env, checkpoint->dir, tmp, &upkeep->error);
    bool is_ours = status == STATUS_OK;
    if (status == STATUS_OK) {
        status = link_files(storage, checkpoint, tmp, &upkeep->error);
    }
    if (status == STATUS_OK) {
        status = write_manifest(storage, checkpoint, tmp, &upkeep->error);
    }
    if (status == STATUS_OK) {
        status = env_rename(env, tmp, checkpoint->dir, &upkeep->error);
    }
    if (status != STATUS_OK) {
        if (is_ours) {
            clean_up(env, tmp);
        }
        upkeep->status = status;
        return;
    }
    /* From here on it is there; only whether it stays is not known if this fails. */
    upkeep->status = env_sync_parent(env, checkpoint->dir, &upkeep->error);
}

/* ---- Owner --------------------------------------------------------------------------------------------------- */

static void pin(struct storage *storage, struct storage_checkpoint *checkpoint) {
    uint64_t bytes = 0;
    checkpoint->version = storage->version;
    checkpoint->version->refs++;
    checkpoint->frontier = storage->frontier;
    checkpoint->next_file = atomic_load_explicit(&storage->next_file, memory_order_relaxed);
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        bytes += checkpoint->version->bytes[level];
    }
    for (size_t i = 0; i < checkpoint->version->value_file_count; i++) {
        bytes += checkpoint->version->value_files[i]->meta.size_bytes;
    }
    bytes += version_change_bytes(checkpoint->version);
    atomic_store_explicit(&checkpoint->upkeep.total_bytes, bytes, memory_order_relaxed);
}

static enum upkeep_next step(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_checkpoint *checkpoint = checkpoint_of(upkeep);
    if (upkeep->stage == STAGE_LINKED) {
        return UPKEEP_END;
    }
    if (storage__upkeep_is_cancelled(upkeep)) {
        upkeep->status =
            error_set(&upkeep->error, STATUS_CANCELLED, "%s: the checkpoint was cancelled", checkpoint->dir);
        return UPKEEP_END;
    }
    if (storage->frontier.index < checkpoint->flush_index) {
        if (!storage->broken) {
            return UPKEEP_WAIT;
        }
        upkeep->status =
            error_set(&upkeep->error, STATUS_FAILED, "%s: the store failed before it was flushed", checkpoint->dir);
        return UPKEEP_END;
    }
    pin(storage, checkpoint);
    upkeep->stage = STAGE_LINKED;
    return UPKEEP_RUN;
}

static void drop(struct storage *storage, struct storage_upkeep *upkeep) {
    struct storage_checkpoint *checkpoint = checkpoint_of(upkeep);
    if (checkpoint->version != NULL) {
        storage__unref_version(storage, checkpoint->version);
        checkpoint->version = NULL;
        storage__start_reaper(storage);
    }
}

void storage_checkpoint(struct storage *storage, struct storage_checkpoint *checkpoint) {
    static const struct upkeep_kind kind = {.step = step, .run = run, .drop = drop};
    checkpoint->version = NULL;
    checkpoint->files = 0;
    checkpoint->bytes = 0;
    checkpoint->copied_bytes = 0;
    checkpoint->flush_index = checkpoint->flush ? storage->inserted_index : 0;
    checkpoint->dir[sizeof checkpoint->dir - 1] = '\0';
    if (checkpoint->flush && !storage->broken) {
        storage->flush_wanted = true;
    }
    storage__upkeep_ask(storage, &checkpoint->upkeep, &kind, checkpoint->dir);
}
