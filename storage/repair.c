/*
 * Repair: what is readable of all tables, merged into new ones.
 *
 *   verify: sound? then that was it
 *   manifest -> its tables;  or no manifest -> all tables, from their own properties
 *   value files: whole ones stay, what can be read of the others is written anew (repair_values.h)
 *   range deletes of all + a merge of salvaging cursors -> tables of the last level, cut between keys
 *   old files linked into lost/ -> manifest and CURRENT of a new state (the commit point) -> old names removed
 *
 * Change files stay where they can still be relied on (repair_changes.c).
 */
#include "storage/repair_internal.h"

#include "node/base/check.h"
#include "storage/verify.h"

#include <stdio.h>

/* ---- What is there ----------------------------------------------------------------------------------------------- */

static enum status look_at(void *context, const char *name) {
    struct repair *repair = context;
    uint64_t number = 0;
    enum file_kind kind = file_name_parse(name, &number);
    repair->next_file = number >= repair->next_file ? number + 1 : repair->next_file;
    switch (kind) {
    case FILE_SST: return buf_append(&repair->numbers, &number, sizeof number);
    case FILE_VALUES: return buf_append(&repair->value_numbers, &number, sizeof number);
    case FILE_CHANGES: return buf_append(&repair->change_numbers, &number, sizeof number);
    case FILE_MANIFEST: return buf_append(&repair->manifests, &number, sizeof number);
    default: return STATUS_OK;
    }
}

static void tell(const struct repair *repair, const struct storage_loss *loss) {
    if (repair->options->lost != NULL) {
        repair->options->lost(repair->options->context, loss);
    }
}

static void tell_table(struct repair *repair, uint64_t number, const struct error *why) {
    struct storage_loss loss = {.file = number, .message = why->message};
    repair->report->tables_lost++;
    tell(repair, &loss);
}

static void tell_piece(void *context, const struct sst *sst, uint64_t offset, struct slice after, struct slice until) {
    struct repair *repair = context;
    struct storage_loss loss = {.file = sst->meta.number, .offset = offset, .after = after, .until = until};
    repair->report->pieces_lost++;
    tell(repair, &loss);
}

/* The version whose value was missing had no other place, either. */
static void tell_missing(struct repair *repair) {
    if (repair->misses_value) {
        repair->misses_value = false;
        repair->report->values_lost++;
        tell(repair, &repair->missing_loss);
    }
}

/* Loads the table and lists it; what can't be read at all is told. */
static enum status take_table(struct repair *repair, struct sst *sst, enum status status, uint64_t number,
                              struct error *err) {
    struct error why;
    if (status == STATUS_OK) {
        status = sst_load(sst, &why);
        if (status == STATUS_OK) {
            status = buf_append(&repair->inputs, &sst, sizeof(struct sst *));
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

/* Old value files: those that the manifest names, or all. Damage in them isn't a loss yet: it is one where an entry
 * that is left refers to what is damaged. */
static enum status take_values(struct repair *repair, struct error *err) {
    const uint64_t *numbers = (const uint64_t *)(const void *)repair->value_numbers.data;
    bool is_named = repair->report->manifest_used;
    size_t count = is_named ? repair->found.values_count : repair->value_numbers.len / sizeof *numbers;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        struct error why;
        bool is_sound;
        status = is_named ? repair_values__take(&repair->values, &repair->found.values[i], &is_sound, &why)
                          : repair_values__take_unnamed(&repair->values, numbers[i], &is_sound, &why);
        if (status == STATUS_OK) {
            repair->report->value_files_damaged += !is_sound;
        } else if (err != NULL) {
            *err = why;
        }
    }
    return status;
}

/* ---- Merging ----------------------------------------------------------------------------------------------------- */

static enum status open_inputs(struct repair *repair, struct error *err) {
    size_t count;
    struct sst *const *inputs = repair__inputs(repair, &count);
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
    return status == STATUS_NO_MEMORY ? repair__no_memory(repair, err) : status;
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

static enum status add_to_outcome(struct repair *repair, const struct sst_meta *meta) {
    struct buf edit;
    buf_init(&edit, repair->alloc, 0);
    enum status status = manifest_put_next_file(&edit, repair->next_file);
    if (status == STATUS_OK) {
        status = manifest_put_add_file(&edit, STORAGE_LEVELS - 1, meta);
    }
    if (status == STATUS_OK) {
        status = manifest_state_apply(&repair->outcome, buf_slice(&edit));
    }
    buf_deinit(&edit);
    repair->report->tables_written += status == STATUS_OK;
    return status;
}

static enum status end_output(struct repair *repair, struct slice upper, struct error *err) {
    struct sst_meta meta;
    enum status status = add_tombstones(repair, upper, err);
    if (status == STATUS_OK) {
        status = sst_builder_finish(repair->builder, &meta, err);
    }
    if (status == STATUS_OK && add_to_outcome(repair, &meta) != STATUS_OK) {
        char path[LIMIT_PATH_BYTES];
        file_path_sst(path, repair->storage->dir, meta.number);
        repair__unlink(repair, path);
        status = repair__no_memory(repair, err);
    }
    sst_builder_free(repair->builder);
    repair->builder = NULL;
    if (upper.len > 0) {
        memcpy(repair->lower, upper.data, upper.len);
    }
    repair->lower_len = upper.len;
    return status;
}

/* An entry whose value is apart: that must be there. *ret_missing: it isn't. */
static enum status take_value(struct repair *repair, struct entry *entry, uint8_t place[VALUE_PLACE_BYTES],
                              bool *ret_missing, struct error *err) {
    struct storage_loss loss = {.revision = entry->key.revision};
    enum status status = repair_values__move(&repair->values, entry, place, &loss.file, &loss.offset, err);
    *ret_missing = status == STATUS_NOT_FOUND;
    if (!*ret_missing) {
        return status;
    }
    memcpy(repair->missing_user, entry->key.user.data, entry->key.user.len);
    repair->missing = entry->key;
    repair->missing.user = slice_of(repair->missing_user, entry->key.user.len);
    repair->misses_value = true;
    loss.key = repair->missing.user;
    repair->missing_loss = loss;
    return STATUS_OK;
}

/* The output has all that it should hold, and the key is none of its own. */
static bool is_full(const struct repair *repair, struct slice user) {
    return repair->builder != NULL && !slice_equal(repair->last.user, user) &&
           (sst_builder_size(repair->builder) >= repair->storage->sst_bytes ||
            sst_builder_value_files(repair->builder) >= VALUE_REFS_CUT);
}

static enum status write_entry(struct repair *repair, const struct entry *entry, struct error *err) {
    enum status status = STATUS_OK;
    if (is_full(repair, entry->key.user)) {
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

static enum status take_entry(struct repair *repair, const struct entry *entry, struct error *err) {
    uint8_t place[VALUE_PLACE_BYTES];
    struct entry taken = *entry;
    bool is_missing = false;
    bool first = repair->last.user.len == 0;
    /* A table that was replaced has what its replacement has. */
    if (!first && entry_key_compare(&repair->last, &entry->key) == 0) {
        return STATUS_OK;
    }
    if (repair->misses_value && entry_key_compare(&repair->missing, &entry->key) != 0) {
        tell_missing(repair);
    }
    enum status status = STATUS_OK;
    if (entry->kind == BATCH_PUT_APART) {
        status = take_value(repair, &taken, place, &is_missing, err);
    }
    if (status != STATUS_OK || is_missing) {
        return status;
    }
    repair->misses_value = false;
    return write_entry(repair, &taken, err);
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
        tell_missing(repair);
    }
    bool is_left = repair->tombstones_at < tombstones_count(repair->tombstones);
    if (status == STATUS_OK && repair->builder == NULL && is_left) {
        status = begin_output(repair, err);
    }
    if (status == STATUS_OK && repair->builder != NULL) {
        status = end_output(repair, SLICE_EMPTY, err);
    }
    return status == STATUS_OK ? repair_values__end(&repair->values, err) : status;
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
        return repair__no_memory(repair, err);
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
        status = take_values(repair, err);
    }
    if (status == STATUS_OK) {
        status = write_outputs(repair, err);
    }
    if (status == STATUS_OK && repair_values__keep(&repair->values) != STATUS_OK) {
        status = repair__no_memory(repair, err);
    }
    if (status == STATUS_OK) {
        repair__set_frontier(repair);
        status = repair__keep_changes(repair, err);
    }
    if (status == STATUS_OK) {
        status = repair__keep_all_lost(repair, err);
    }
    bool is_harmless = true;
    if (status == STATUS_OK) {
        status = repair__commit(repair, err);
        is_harmless = status == STATUS_NO_SPACE || status == STATUS_NO_MEMORY; /* the old state is in force */
    }
    if (status == STATUS_OK) {
        return repair__remove_old(repair, err);
    }
    if (is_harmless) {
        repair__drop_outputs(repair);
    }
    return status;
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
    if (status == STATUS_NO_MEMORY) {
        return repair__no_memory(repair, err); /* look_at says nothing of it */
    }
    if (status == STATUS_OK && repair->numbers.len + repair->manifests.len == 0) {
        return error_set(err, STATUS_NOT_FOUND, "%s: there is nothing of a store", repair->storage->dir);
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
    struct sst *const *inputs = repair__inputs(repair, &count);
    for (size_t i = 0; i < count; i++) {
        sst_free(inputs[i]);
    }
    repair_values__deinit(&repair->values);
    buf_deinit(&repair->inputs);
    buf_deinit(&repair->numbers);
    buf_deinit(&repair->value_numbers);
    buf_deinit(&repair->change_numbers);
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
    buf_init(&repair->value_numbers, repair->alloc, 0);
    buf_init(&repair->change_numbers, repair->alloc, 0);
    buf_init(&repair->manifests, repair->alloc, 0);
    manifest_state_init(&repair->found, repair->alloc);
    manifest_state_init(&repair->outcome, repair->alloc);
    repair_values__init(&repair->values, repair->storage, &repair->context, &repair->outcome, &repair->next_file);
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
