/*
 * Change files of a store: written with each flush, named by the same edit, gone when all of their revisions lie below
 * the horizon.
 *
 * The memtable has its operations in the order of the log already (memtable_changes.c), so the worker walks over it
 * once more and holds no more than the builder does. What a manifest says is always true of the files that it names:
 * changes of all entries behind changes_after are in them. A flush without a change file moves changes_after to its
 * frontier.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

/* ---- Worker -------------------------------------------------------------------------------------------------- */

static void unlink_file(struct storage *storage, uint64_t number) {
    char path[LIMIT_PATH_BYTES];
    struct error ignored;
    file_path_changes(path, storage->dir, number);
    enum status status = env_unlink(storage->env, path, &ignored);
    (void)status; /* then it goes at the next start */
}

static enum status write_file(struct storage *storage, const struct memtable *memtable, struct change_meta *ret_meta,
                              struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct change_builder *builder = NULL;
    struct memtable_changes changes;
    struct change change;
    uint64_t number = atomic_fetch_add_explicit(&storage->next_file, 1, memory_order_relaxed);
    file_path_changes(path, storage->dir, number);
    struct change_builder_options options = {.env = storage->env,
                                             .path = path,
                                             .number = number,
                                             .id = env_random(storage->env),
                                             .compression = storage->options.change_compression,
                                             .zstd_level = storage->options.zstd_level};
    memcpy(options.cluster_id, storage->options.cluster_id, SST_CLUSTER_ID_BYTES);
    enum status status = change_builder_new(&options, &builder, err);
    memtable_changes_seek(memtable, 0, &changes);
    while (status == STATUS_OK && memtable_changes_next(&changes, &change)) {
        status = change_builder_add(builder, &change, err);
    }
    if (status == STATUS_OK) {
        status = change_builder_finish(builder, ret_meta, err);
    }
    change_builder_free(builder);
    return status;
}

enum status storage__write_changes(struct storage *storage, const struct memtable *memtable, struct sst **ret_file,
                                   struct error *err) {
    struct change_meta meta;
    struct sst *file;
    *ret_file = NULL;
    if (!storage->options.change_files) {
        return STATUS_OK;
    }
    enum status status = write_file(storage, memtable, &meta, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (change_file_new(&storage->sst_context, &meta, &file) != STATUS_OK) {
        unlink_file(storage, meta.number);
        return error_set(err, STATUS_NO_MEMORY, "no memory for a change file");
    }
    file->refs = 1;
    *ret_file = file;
    return STATUS_OK;
}

void storage__drop_changes(struct storage *storage, struct sst *file) {
    if (file != NULL) {
        uint64_t number = file->meta.number;
        file->refs = 0;
        sst_free(file);
        unlink_file(storage, number);
    }
}

/* ---- Owner --------------------------------------------------------------------------------------------------- */

uint64_t storage__changes_after(struct storage *storage, const struct generation *flushed) {
    bool is_gap = flushed != NULL && flushed->changes == NULL &&
                  (memtable_entries(flushed->memtable) > 0 || memtable_range_deletes(flushed->memtable) > 0);
    return is_gap ? flushed->frontier.index : version_changes_droppable(storage->version, storage_horizon(storage));
}

enum status storage__encode_changes(const struct version *old, const struct version *new, struct buf *out) {
    enum status status = STATUS_OK;
    if (new->changes_after > old->changes_after) {
        status = manifest_put_changes_after(out, new->changes_after);
    }
    uint64_t had = old->change_file_count == 0 ? 0 : old->change_files[old->change_file_count - 1]->meta.revision_last;
    for (size_t i = 0; i < new->change_file_count &&status == STATUS_OK; i++) {
        if (new->change_files[i]->meta.revision_first > had) {
            struct change_meta meta = change_file_meta(new->change_files[i]);
            status = manifest_put_add_changes(out, &meta);
        }
    }
    return status;
}

void storage__retire_changes(struct storage *storage, const struct version *old, const struct version *new) {
    for (size_t i = 0; i < old->change_file_count; i++) {
        struct sst *file = old->change_files[i];
        if (file->meta.revision_last <= new->changes_after) {
            file->obsolete = true;
            storage->obsolete_bytes += file->meta.size_bytes;
        }
    }
}
