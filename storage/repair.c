/*
 * Repair: what is readable of all tables, merged into new ones.
 *
 *   verify: sound? then that was it
 *   manifest -> its tables;  or no manifest -> all tables, from their own properties
 *   range deletes of all + a merge of salvaging cursors -> tables of the last level, cut between keys
 *   old files linked into lost/ -> manifest and CURRENT of a new state (the commit point) -> old names removed
 */
#include "storage/repair.h"

#include "node/base/check.h"
#include "storage/salvage.h"
#include "storage/storage_internal.h"
#include "storage/store_files.h"
#include "storage/verify.h"

#include <stdio.h>

struct repair {
    const struct storage_repair_options *options;
    const struct storage_options *storage;
    struct env *env;
    struct alloc *alloc;
    struct storage_repair_report *report;
    struct sst_context context;
    struct manifest_state found;   /* as the manifest had it; empty if it can't be read */
    struct manifest_state outcome; /* what the store becomes */
    uint64_t next_file;
    struct buf inputs;             /* struct sst * each, loaded */
    struct buf numbers;            /* uint64_t: of all files there are that are tables */
    bool has_values;               /* there are value files */
    struct buf manifests;          /* uint64_t: of all manifests */
    struct tombstones *tombstones; /* of all inputs */
    size_t tombstones_at;
    struct salvage_listener listener;
    struct cursor *merged;
    struct sst_builder *builder; /* NULL: no output under way */
    size_t lower_len;
    uint8_t lower[LIMIT_KEY_BYTES]; /* where the output under way begins; len 0: from the start */
    struct entry_key last;          /* written last; user.len 0: none */
    uint8_t last_user[LIMIT_KEY_BYTES];
};

/* ---- What is there ----------------------------------------------------------------------------------------------- */

static enum status look_at(void *context, const char *name) {
    struct repair *repair = context;
    uint64_t number = 0;
    enum file_kind kind = file_name_parse(name, &number);
    repair->next_file = number >= repair->next_file ? number + 1 : repair->next_file;
    repair->has_values = repair->has_values || kind == FILE_VALUES;
    if (kind == FILE_SST) {
        return buf_append(&repair->numbers, &number, sizeof number);
    }
    return kind == FILE_MANIFEST ? buf_append(&repair->manifests, &number, sizeof number) : STATUS_OK;
}

static void tell_table(struct repair *repair, uint64_t number, const struct error *why) {
    struct storage_loss loss = {.file = number, .message = why->message};
    repair->report->tables_lost++;
    if (repair->options->lost != NULL) {
        repair->options->lost(repair->options->context, &loss);
    }
}

static void tell_piece(void *context, const struct sst *sst, uint64_t offset, struct slice after, struct slice until) {
    struct repair *repair = context;
    struct storage_loss loss = {.file = sst->meta.number, .offset = offset, .after = after, .until = until};
    repair->report->pieces_lost++;
    if (repair->options->lost != NULL) {
        repair->options->lost(repair->options->context, &loss);
    }
}

/* Loads the table and lists it; what can't be read at all is told. */
static enum status take_table(struct repair *repair, struct sst *sst, enum status status, uint64_t number,
                              struct error *err) {
    struct error why;
    if (status == STATUS_OK) {
        status = sst_load(sst, &why);
        if (status == STATUS_OK) {
            status = buf_append(&repair->inputs, &sst, sizeof sst);
            if (status == STATUS_OK) {
                repair->report->tables++;
                return STATUS_OK;
            }
        }
        sst_free(sst);
    } else if (err != NULL) {
        why = *err;
    }
    if (status == STATUS_NO_MEMORY) {
        return error_set(err, status, "%s: no memory for its tables", repair->storage->dir);
    }
    tell_table(repair, number, &why);
    return STATUS_OK;
}

static enum status take_named(struct repair *repair, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < repair->found.file_count && status == STATUS_OK; i++) {
        struct sst *sst = NULL;
        struct error why;
        error_clear(&why);
        status = sst_new(&repair->context, &repair->found.files[i].meta, &sst);
        status = take_table(repair, sst, status, repair->found.files[i].meta.number, &why);
        if (status != STATUS_OK && err != NULL) {
            *err = why;
        }
    }
    return status;
}

static enum status take_all(struct repair *repair, struct error *err) {
    enum status status = STATUS_OK;
    const uint64_t *numbers = (const uint64_t *)(const void *)repair->numbers.data;
    for (size_t i = 0; i < repair->numbers.len / sizeof *numbers && status == STATUS_OK; i++) {
        struct sst *sst = NULL;
        struct error why;
        error_clear(&why);
        status = salvage_table(&repair->context, numbers[i], &sst, &why);
        status = take_table(repair, sst, status, numbers[i], &why);
        if (status != STATUS_OK && err != NULL) {
            *err = why;
        }
    }
    return status;
}

static struct sst *const *inputs_of(const struct repair *repair, size_t *ret_count) {
    *ret_count = repair->inputs.len / sizeof(struct sst *);
    return (struct sst *const *)(const void *)repair->inputs.data;
}

/* ---- Merging ----------------------------------------------------------------------------------------------------- */

static enum status no_memory(const struct repair *repair, struct error *err) {
    return error_set(err, STATUS_NO_MEMORY, "%s: no memory to repair it", repair->storage->dir);
}

static enum status open_inputs(struct repair *repair, struct error *err) {
    size_t count;
    struct sst *const *inputs = inputs_of(repair, &count);
    struct cursor **cursors = mem_alloc_zero(repair->alloc, (count + 1) * sizeof(struct cursor *));
    const struct tombstones **sets = mem_alloc_zero(repair->alloc, (count + 1) * sizeof(struct tombstones *));
    enum status status = cursors == NULL || sets == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        cursors[i] = salvage_cursor_new(repair->alloc, inputs[i], &repair->listener);
        status = cursors[i] == NULL ? STATUS_NO_MEMORY : sst_tombstones(inputs[i], NULL, &sets[i], err);
    }
    if (status == STATUS_OK) {
        status = tombstones_merge(repair->alloc, sets, count, 0, false, &repair->tombstones);
    }
    if (status == STATUS_OK) {
        repair->merged = merging_cursor_new(repair->alloc, cursors, count);
        status = repair->merged == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    } else {
        for (size_t i = 0; cursors != NULL && i < count; i++) {
            cursor_free(cursors[i]);
        }
    }
    mem_free(repair->alloc, cursors);
    mem_free(repair->alloc, sets);
    return status == STATUS_NO_MEMORY ? no_memory(repair, err) : status;
}

static enum status begin_output(struct repair *repair, struct error *err) {
    const struct storage_options *storage = repair->storage;
    unsigned level = STORAGE_LEVELS - 1;
    char path[LIMIT_PATH_BYTES];
    uint64_t number = repair->next_file++;
    struct sst_builder_options options = {.env = repair->env,
                                          .path = path,
                                          .number = number,
                                          .id = env_random(repair->env),
                                          .block_bytes = storage->block_bytes,
                                          .partition_bytes = storage->partition_bytes,
                                          .bloom_bits = storage->bloom_bits[level],
                                          .compression = storage->compression[level],
                                          .zstd_level = storage->zstd_level};
    memcpy(options.cluster_id, repair->context.cluster_id, SST_CLUSTER_ID_BYTES);
    file_path_sst(path, storage->dir, number);
    return sst_builder_new(&options, &repair->builder, err);
}

/* The output's share of the range deletes: [lower, upper); upper.len 0: no end. */
static enum status add_tombstones(struct repair *repair, struct slice upper, struct error *err) {
    struct slice lower = slice_of(repair->lower, repair->lower_len);
    enum status status = STATUS_OK;
    for (; repair->tombstones_at < tombstones_count(repair->tombstones) && status == STATUS_OK;
         repair->tombstones_at++) {
        struct tombstone_fragment fragment = tombstones_fragment(repair->tombstones, repair->tombstones_at);
        bool goes_on = upper.len > 0 && slice_compare(fragment.end, upper) > 0;
        struct slice start = slice_compare(fragment.start, lower) < 0 ? lower : fragment.start;
        struct slice end = goes_on ? upper : fragment.end;
        for (size_t i = 0; i < fragment.mark_count && status == STATUS_OK && slice_compare(start, end) < 0; i++) {
            struct tombstone tombstone = {.start = start,
                                          .end = end,
                                          .revision = fragment.marks[i].revision,
                                          .ordinal = fragment.marks[i].ordinal};
            status = sst_builder_add_tombstone(repair->builder, &tombstone, err);
        }
        if (goes_on) {
            break;
        }
    }
    return status;
}

static enum status remove_old(struct repair *repair, const char *path, struct error *err) {
    (void)err;
    struct error ignored;
    enum status status = env_unlink(repair->env, path, &ignored);
    (void)status; /* then at the next opening */
    return STATUS_OK;
}

static enum status end_output(struct repair *repair, struct slice upper, struct error *err) {
    struct sst_meta meta;
    struct buf edit;
    enum status status = add_tombstones(repair, upper, err);
    if (status == STATUS_OK) {
        status = sst_builder_finish(repair->builder, &meta, err);
    }
    if (status == STATUS_OK) {
        buf_init(&edit, repair->alloc, 0);
        status = manifest_put_next_file(&edit, repair->next_file);
        if (status == STATUS_OK) {
            status = manifest_put_add_file(&edit, STORAGE_LEVELS - 1, &meta);
        }
        if (status == STATUS_OK) {
            status = manifest_state_apply(&repair->outcome, buf_slice(&edit));
        }
        buf_deinit(&edit);
        if (status != STATUS_OK) { /* complete, but on no list */
            char path[LIMIT_PATH_BYTES];
            file_path_sst(path, repair->storage->dir, meta.number);
            (void)remove_old(repair, path, NULL);
        }
        status = status == STATUS_NO_MEMORY ? no_memory(repair, err) : status;
        repair->report->tables_written++;
    }
    sst_builder_free(repair->builder);
    repair->builder = NULL;
    if (upper.len > 0) {
        memcpy(repair->lower, upper.data, upper.len);
    }
    repair->lower_len = upper.len;
    return status;
}

static enum status take_entry(struct repair *repair, const struct entry *entry, struct error *err) {
    enum status status = STATUS_OK;
    bool first = repair->last.user.len == 0;
    /* A table that was replaced has what its replacement has. */
    if (!first && entry_key_compare(&repair->last, &entry->key) == 0) {
        return STATUS_OK;
    }
    if (repair->builder != NULL && !slice_equal(repair->last.user, entry->key.user) &&
        sst_builder_size(repair->builder) >= repair->storage->sst_bytes) {
        status = end_output(repair, entry->key.user, err);
    }
    if (status == STATUS_OK && repair->builder == NULL) {
        status = begin_output(repair, err);
    }
    if (status == STATUS_OK) {
        status = sst_builder_add(repair->builder, entry, err);
    }
    if (status == STATUS_OK) {
        memcpy(repair->last_user, entry->key.user.data, entry->key.user.len);
        repair->last = entry->key;
        repair->last.user = slice_of(repair->last_user, entry->key.user.len);
        repair->report->entries++;
    }
    return status;
}

static enum status write_outputs(struct repair *repair, struct error *err) {
    enum status status = open_inputs(repair, err);
    if (status == STATUS_OK && repair->inputs.len > 0) {
        for (status = cursor_first(repair->merged, err); status == STATUS_OK;
             status = cursor_next(repair->merged, err)) {
            status = take_entry(repair, &repair->merged->entry, err);
            if (status != STATUS_OK) {
                return status;
            }
        }
        status = status == STATUS_NOT_FOUND ? STATUS_OK : status;
    }
    bool is_left = repair->tombstones_at < tombstones_count(repair->tombstones);
    if (status == STATUS_OK && repair->builder == NULL && is_left) {
        status = begin_output(repair, err);
    }
    return status == STATUS_OK && repair->builder != NULL ? end_output(repair, SLICE_EMPTY, err) : status;
}

/* ---- The new state ----------------------------------------------------------------------------------------------- */

static void set_frontier(struct repair *repair) {
    struct storage_frontier *frontier = &repair->outcome.frontier;
    uint64_t newest = 0;
    size_t count;
    struct sst *const *inputs = inputs_of(repair, &count);
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
    repair->report->frontier = *frontier;
}

/* Calls back for every old file's name. */
static enum status for_each_old(struct repair *repair,
                                enum status (*each)(struct repair *repair, const char *path, struct error *err),
                                struct error *err) {
    const uint64_t *numbers = (const uint64_t *)(const void *)repair->numbers.data;
    const uint64_t *manifests = (const uint64_t *)(const void *)repair->manifests.data;
    char path[LIMIT_PATH_BYTES];
    enum status status = STATUS_OK;
    for (size_t i = 0; i < repair->numbers.len / sizeof *numbers && status == STATUS_OK; i++) {
        file_path_sst(path, repair->storage->dir, numbers[i]);
        status = each(repair, path, err);
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

static enum status keep_all_lost(struct repair *repair, struct error *err) {
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

static enum status commit(struct repair *repair, struct error *err) {
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
        status = no_memory(repair, err);
    }
    manifest_close(&manifest);
    buf_deinit(&snapshot);
    return status;
}

/* Nothing names them. */
static void drop_outputs(struct repair *repair) {
    for (size_t i = 0; i < repair->outcome.file_count; i++) {
        char path[LIMIT_PATH_BYTES];
        file_path_sst(path, repair->storage->dir, repair->outcome.files[i].meta.number);
        (void)remove_old(repair, path, NULL);
    }
}

/* ---- The whole --------------------------------------------------------------------------------------------------- */

static enum status verify(struct repair *repair, struct error *err) {
    struct storage_verify_report report = {.tables = 0};
    struct verify_run run = {.report = &report, .err = err};
    enum status status = verify__dir(&run, repair->env, repair->storage->dir);
    repair->report->frontier = report.frontier;
    return status;
}

static enum status read_manifest(struct repair *repair, struct error *err) {
    struct manifest manifest = {.env = repair->env, .dir = repair->storage->dir};
    struct error ignored;
    enum status status = manifest_inspect(&manifest, &repair->found, &ignored);
    if (status == STATUS_NO_MEMORY) {
        return no_memory(repair, err);
    }
    if (status != STATUS_OK) {
        manifest_state_deinit(&repair->found);
        manifest_state_init(&repair->found, repair->alloc);
        return STATUS_OK;
    }
    if (memcmp(manifest.identity.cluster_id, repair->context.cluster_id, STORAGE_CLUSTER_ID_BYTES) != 0 ||
        manifest.identity.node_id != repair->storage->node_id) {
        return error_set(err, STATUS_INVALID, "%s: belongs to another cluster or node", repair->storage->dir);
    }
    repair->report->manifest_used = true;
    repair->next_file = repair->found.next_file > repair->next_file ? repair->found.next_file : repair->next_file;
    return STATUS_OK;
}

static enum status rebuild(struct repair *repair, struct error *err) {
    enum status status = repair->report->manifest_used ? take_named(repair, err) : take_all(repair, err);
    if (status == STATUS_OK) {
        status = write_outputs(repair, err);
    }
    if (status == STATUS_OK) {
        set_frontier(repair);
        status = keep_all_lost(repair, err);
    }
    if (status != STATUS_OK) {
        drop_outputs(repair);
        return status;
    }
    status = commit(repair, err);
    if (status == STATUS_NO_MEMORY || status == STATUS_NO_SPACE) {
        drop_outputs(repair); /* after any other failure a manifest may name them */
    }
    return status == STATUS_OK ? for_each_old(repair, remove_old, err) : status;
}

static enum status repair_locked(struct repair *repair, struct error *err) {
    enum status status = verify(repair, err);
    if (status == STATUS_OK) {
        repair->report->was_sound = true;
        return STATUS_OK;
    }
    if (status != STATUS_CORRUPT && status != STATUS_NOT_FOUND) {
        return status;
    }
    error_clear(err);
    status = env_list_dir(repair->env, repair->storage->dir, look_at, repair, err);
    if (status == STATUS_OK && repair->numbers.len + repair->manifests.len == 0) {
        return error_set(err, STATUS_NOT_FOUND, "%s: there is nothing of a store", repair->storage->dir);
    }
    if (status == STATUS_OK && repair->has_values) {
        status =
            error_set(err, STATUS_UNSUPPORTED, "%s: has value files, which can't be repaired", repair->storage->dir);
    }
    if (status == STATUS_OK) {
        status = read_manifest(repair, err);
    }
    return status == STATUS_OK ? rebuild(repair, err) : status;
}

static void deinit(struct repair *repair) {
    size_t count;
    sst_builder_free(repair->builder);
    cursor_free(repair->merged);
    tombstones_free(repair->tombstones);
    struct sst *const *inputs = inputs_of(repair, &count);
    for (size_t i = 0; i < count; i++) {
        sst_free(inputs[i]);
    }
    buf_deinit(&repair->inputs);
    buf_deinit(&repair->numbers);
    buf_deinit(&repair->manifests);
    manifest_state_deinit(&repair->found);
    manifest_state_deinit(&repair->outcome);
    open_files_free(repair->context.files);
    cache_free(repair->context.cache);
    mem_free(repair->alloc, repair);
}

static enum status init(struct repair *repair, struct error *err) {
    struct env *env = repair->env;
    buf_init(&repair->inputs, repair->alloc, 0);
    buf_init(&repair->numbers, repair->alloc, 0);
    buf_init(&repair->manifests, repair->alloc, 0);
    manifest_state_init(&repair->found, repair->alloc);
    manifest_state_init(&repair->outcome, repair->alloc);
    repair->next_file = 1;
    repair->listener = (struct salvage_listener){.context = repair, .lost = tell_piece};
    repair->context.env = env;
    repair->context.dir = repair->storage->dir;
    memcpy(repair->context.cluster_id, repair->storage->cluster_id, SST_CLUSTER_ID_BYTES);
    enum status status = cache_new(env, 0, &repair->context.cache, err);
    return status == STATUS_OK ? open_files_new(env, repair->storage->open_files_max, &repair->context.files, err)
                               : status;
}

enum status storage_repair(const struct storage_repair_options *options, struct storage_repair_report *ret_report,
                           struct error *err) {
    const struct storage_options *storage = options->storage;
    char lock_path[LIMIT_PATH_BYTES];
    struct env_file *lock = NULL;
    *ret_report = (struct storage_repair_report){.was_sound = false};
    enum status status = storage__check_options(storage, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct repair *repair = mem_alloc_zero(storage->env->alloc, sizeof *repair);
    if (repair == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to repair it", storage->dir);
    }
    repair->options = options;
    repair->storage = storage;
    repair->env = storage->env;
    repair->alloc = storage->env->alloc;
    repair->report = ret_report;
    file_path(lock_path, storage->dir, LOCK_NAME);
    status = init(repair, err);
    if (status == STATUS_OK) {
        status = env_lock_file(repair->env, lock_path, &lock, err);
    }
    if (status == STATUS_OK) {
        status = repair_locked(repair, err);
    }
    deinit(repair);
    env_close(lock);
    return status;
}
