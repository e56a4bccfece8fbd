/* Repair: from new tables and what stays to a store, by one switch of the manifest; the old files are kept in lost/. */
#include "storage/repair_internal.h"
#include "storage/store_files.h"

#include <stdio.h>

void repair__set_frontier(struct repair *repair) {
    struct storage_frontier *frontier = &repair->outcome.frontier;
    uint64_t newest = 0;
    size_t count;
    struct sst *const *inputs = repair__inputs(repair, &count);
    for (size_t i = 0; i < count; i++) {
        newest = inputs[i]->meta.revision_last > newest ? inputs[i]->meta.revision_last : newest;
    }
    if (repair->report->manifest_used) {
        *frontier = repair->found.frontier;
        repair->outcome.horizon = repair->found.horizon;
    }
    if (newest > frontier->index) { /* then the manifest says nothing of what compactions left out */
        frontier->index = newest;
        frontier->horizon = newest;
        repair->outcome.horizon = newest;
        frontier->term = frontier->term == 0 ? 1 : frontier->term;
    }
    repair->outcome.changes_after = frontier->index; /* unless some can be kept */
    repair->report->frontier = *frontier;
}

/* Calls back for every old file's name but those of value files and change files that stay. */
static enum status for_each_old(struct repair *repair,
                                enum status (*each)(struct repair *repair, const char *path, struct error *err),
                                struct error *err) {
    const uint64_t *numbers = (const uint64_t *)(const void *)repair->numbers.data;
    const uint64_t *values = (const uint64_t *)(const void *)repair->value_numbers.data;
    const uint64_t *changes = (const uint64_t *)(const void *)repair->change_numbers.data;
    const uint64_t *manifests = (const uint64_t *)(const void *)repair->manifests.data;
    char path[LIMIT_PATH_BYTES];
    enum status status = STATUS_OK;
    for (size_t i = 0; i < repair->numbers.len / sizeof *numbers && status == STATUS_OK; i++) {
        file_path_sst(path, repair->storage->dir, numbers[i]);
        status = each(repair, path, err);
    }
    for (size_t i = 0; i < repair->value_numbers.len / sizeof *values && status == STATUS_OK; i++) {
        if (!repair_values__stays(&repair->values, values[i])) {
            file_path_values(path, repair->storage->dir, values[i]);
            status = each(repair, path, err);
        }
    }
    for (size_t i = 0; i < repair->change_numbers.len / sizeof *changes && status == STATUS_OK; i++) {
        if (manifest_state_find_changes(&repair->outcome, changes[i]) == NULL) {
            file_path_changes(path, repair->storage->dir, changes[i]);
            status = each(repair, path, err);
        }
    }
    for (size_t i = 0; i < repair->manifests.len / sizeof *manifests && status == STATUS_OK; i++) {
        file_path_manifest(path, repair->storage->dir, manifests[i]);
        status = each(repair, path, err);
    }
    return status;
}

static enum status keep_lost(struct repair *repair, const char *path, struct error *err) {
    char to[LIMIT_PATH_BYTES];
    uint64_t copied_bytes;
    int len = snprintf(to, sizeof to, "%s/%s%s", repair->storage->dir, REPAIR_LOST_NAME, strrchr(path, '/'));
    if (len < 0 || len >= (int)sizeof to) {
        return error_set(err, STATUS_INVALID, "%s: the directory's name is too long", repair->storage->dir);
    }
    enum status status = store_link(repair->env, path, to, NULL, &copied_bytes, err);
    if (status == STATUS_EXISTS) { /* from an attempt that was cut short: numbers aren't used again */
        error_clear(err);
        return STATUS_OK;
    }
    return status;
}

void repair__unlink(const struct repair *repair, const char *path) {
    struct error ignored;
    enum status status = env_unlink(repair->env, path, &ignored);
    (void)status; /* then at the next opening */
}

static enum status remove_one(struct repair *repair, const char *path, struct error *err) {
    (void)err;
    repair__unlink(repair, path);
    return STATUS_OK;
}

enum status repair__remove_old(struct repair *repair, struct error *err) {
    return for_each_old(repair, remove_one, err);
}

enum status repair__keep_all_lost(struct repair *repair, struct error *err) {
    char lost[LIMIT_PATH_BYTES];
    file_path(lost, repair->storage->dir, REPAIR_LOST_NAME);
    enum status status = env_mkdir(repair->env, lost, err);
    if (status == STATUS_EXISTS) {
        error_clear(err);
        status = STATUS_OK;
    }
    if (status == STATUS_OK) {
        status = for_each_old(repair, keep_lost, err);
    }
    return status == STATUS_OK ? env_sync_dir(repair->env, lost, err) : status;
}

enum status repair__commit(struct repair *repair, struct error *err) {
    struct manifest manifest = {.env = repair->env, .dir = repair->storage->dir};
    struct buf snapshot;
    uint64_t number = repair->next_file++;
    memcpy(manifest.identity.cluster_id, repair->context.cluster_id, STORAGE_CLUSTER_ID_BYTES);
    manifest.identity.node_id = repair->storage->node_id;
    repair->outcome.next_file = repair->next_file;
    buf_init(&snapshot, repair->alloc, 0);
    enum status status = manifest_state_encode(&repair->outcome, &snapshot);
    if (status == STATUS_OK) {
        status = manifest_switch(&manifest, number, buf_slice(&snapshot), err);
    } else {
        status = repair__no_memory(repair, err);
    }
    manifest_close(&manifest);
    buf_deinit(&snapshot);
    return status;
}

/* Nothing names them. */
void repair__drop_outputs(struct repair *repair) {
    for (size_t i = 0; i < repair->outcome.file_count; i++) {
        char path[LIMIT_PATH_BYTES];
        file_path_sst(path, repair->storage->dir, repair->outcome.files[i].meta.number);
        repair__unlink(repair, path);
    }
    for (size_t i = 0; i < repair->outcome.values_count; i++) {
        uint64_t number = repair->outcome.values[i].number;
        if (!repair_values__stays(&repair->values, number)) {
            char path[LIMIT_PATH_BYTES];
            file_path_values(path, repair->storage->dir, number);
            repair__unlink(repair, path);
        }
    }
}
