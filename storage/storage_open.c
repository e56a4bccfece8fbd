/*
 * Opening: lock, manifest, a new manifest, and only then the removal of files that no manifest names. Tables are opened
 * when something is first read from them, so opening a store takes as long as reading its manifest, at any size; a
 * table that is damaged hurts only those reads. But one that isn't there at all is noticed.
 *
 * Nothing that a crash left is believed before it is on disk for sure: a fresh manifest repeats what the old one said
 * (after a mere process crash that may be in the page cache only), and the directory is synced. On a full disk the old
 * manifest stays, synced.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Directory ----------------------------------------------------------------------------------------------- */

struct leftovers {
    struct storage *storage;
    const struct manifest_state *state;
    uint64_t number_max;   /* of any file that is ours */
    uint64_t manifest_max; /* of any manifest */
    uint64_t table_count;
    uint64_t named_count; /* tables, value files and change files that the manifest names */
    bool remove;          /* second pass */
};

static bool is_named(const struct leftovers *leftovers, uint64_t number) {
    /* Files are sorted by number. */
    const struct manifest_state *state = leftovers->state;
    size_t low = 0;
    size_t high = state->file_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (state->files[middle].meta.number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < state->file_count && state->files[low].meta.number == number;
}

static enum status look_at(void *context, const char *name) {
    struct leftovers *leftovers = context;
    uint64_t number = 0;
    enum file_kind kind = file_name_parse(name, &number);
    bool useless = false;
    switch (kind) {
    case FILE_SST:
        useless = !is_named(leftovers, number);
        leftovers->table_count++;
        leftovers->named_count += !useless;
        break;
    case FILE_VALUES:
        useless = manifest_state_find_values(leftovers->state, number) == NULL;
        leftovers->table_count++;
        leftovers->named_count += !useless;
        break;
    case FILE_CHANGES:
        useless = manifest_state_find_changes(leftovers->state, number) == NULL;
        leftovers->table_count++;
        leftovers->named_count += !useless;
        break;
    case FILE_MANIFEST:
        useless = number != leftovers->storage->manifest.number;
        leftovers->manifest_max = number > leftovers->manifest_max ? number : leftovers->manifest_max;
        break;
    case FILE_CURRENT_NEW: useless = true; break;
    case FILE_CURRENT:
    case FILE_OTHER: break;
    }
    leftovers->number_max = number > leftovers->number_max ? number : leftovers->number_max;
    if (useless && leftovers->remove) {
        char path[LIMIT_PATH_BYTES];
        struct error ignored;
        file_path(path, leftovers->storage->dir, name);
        enum status status = env_unlink(leftovers->storage->env, path, &ignored);
        (void)status; /* then at the next start; its number isn't used again */
    }
    return STATUS_OK;
}

static enum status make_dir(struct storage *storage, struct error *err) {
    enum status status = env_mkdir(storage->env, storage->dir, err);
    if (status != STATUS_OK && status != STATUS_EXISTS) {
        return status;
    }
    error_clear(err);
    return env_sync_parent(storage->env, storage->dir, err);
}

/* ---- Manifest and tables ------------------------------------------------------------------------------------- */

/* Some table that the manifest names isn't there: which? */
static enum status name_missing(struct storage *storage, const struct manifest_state *state, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    size_t values_end = state->file_count + state->values_count;
    for (size_t i = 0; i < values_end + state->changes_count; i++) {
        struct env_file *file;
        if (i < state->file_count) {
            file_path_sst(path, storage->dir, state->files[i].meta.number);
        } else if (i < values_end) {
            file_path_values(path, storage->dir, state->values[i - state->file_count].number);
        } else {
            file_path_changes(path, storage->dir, state->changes[i - values_end].number);
        }
        enum status status = env_open(storage->env, path, ENV_OPEN_READ, &file, err);
        if (status == STATUS_NOT_FOUND) {
            return error_set(err, STATUS_CORRUPT, "%s: missing, but the manifest names it", path);
        }
        if (status != STATUS_OK) {
            return status;
        }
        env_close(file);
    }
    return error_set(err, STATUS_CORRUPT, "%s: its tables changed while it was opened", storage->dir);
}

/* Reads the manifest, or sees that the store is new. */
static enum status load(struct storage *storage, struct manifest_state *state, struct leftovers *leftovers,
                        struct error *err) {
    enum status status = manifest_load(&storage->manifest, state, err);
    bool is_new = status == STATUS_NOT_FOUND;
    if (is_new) {
        error_clear(err);
    } else if (status != STATUS_OK) {
        return status;
    }
    status = env_list_dir(storage->env, storage->dir, look_at, leftovers, err);
    if (status != STATUS_OK) {
        return status;
    }
    /* A crash while a store is made can leave its first manifest, nothing else. */
    if (is_new && (leftovers->table_count > 0 || leftovers->manifest_max > 1)) {
        return error_set(err, STATUS_CORRUPT, "%s: there are tables or manifests, but %s is missing", storage->dir,
                         CURRENT_NAME);
    }
    status = manifest_state_check_values(state);
    if (status != STATUS_OK) {
        return error_set(err, status, "%s: the manifest's tables don't agree with its value files", storage->dir);
    }
    if (!is_new && leftovers->number_max >= state->next_file) {
        state->next_file = leftovers->number_max + 1;
    }
    bool complete = leftovers->named_count == state->file_count + state->values_count + state->changes_count;
    return complete ? STATUS_OK : name_missing(storage, state, err);
}

static const struct sst *table_at(const void *place) { return *(struct sst *const *)place; }

/* Newest first. */
static int compare_level0(const void *a, const void *b) {
    uint64_t a_revision = table_at(a)->meta.revision_last;
    uint64_t b_revision = table_at(b)->meta.revision_last;
    return a_revision > b_revision ? -1 : a_revision < b_revision;
}

static int compare_deeper(const void *a, const void *b) {
    return slice_compare(table_at(a)->meta.smallest, table_at(b)->meta.smallest);
}

/* The tables of a state by level, in their order. No file is looked at. */
struct table_lists {
    struct sst **tables; /* all of them, level by level */
    struct sst **levels[MANIFEST_LEVELS];
    size_t counts[MANIFEST_LEVELS];
    struct sst **values; /* value files, behind the tables */
    size_t values_count;
    struct sst **changes; /* change files, behind those */
    size_t changes_count;
};

static enum status make_tables(const struct sst_context *context, const struct manifest_state *state,
                               struct table_lists *lists) {
    size_t totals[MANIFEST_LEVELS] = {0};
    for (size_t i = 0; i < state->file_count; i++) {
        totals[state->files[i].level]++;
    }
    struct sst **next = lists->tables;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        lists->levels[level] = next;
        next += totals[level];
    }
    for (size_t i = 0; i < state->file_count; i++) {
        unsigned level = state->files[i].level;
        struct sst **place = &lists->levels[level][lists->counts[level]];
        enum status status = sst_new(context, &state->files[i].meta, place);
        if (status != STATUS_OK) {
            return status;
        }
        lists->counts[level]++;
    }
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        if (lists->counts[level] > 1) {
            qsort(lists->levels[level], lists->counts[level], sizeof(struct sst *),
                  level == 0 ? compare_level0 : compare_deeper);
        }
    }
    return STATUS_OK;
}

static enum status make_value_files(const struct sst_context *context, const struct manifest_state *state,
                                    struct table_lists *lists) {
    lists->values = lists->tables + state->file_count;
    for (size_t i = 0; i < state->values_count; i++) {
        enum status status = value_file_new(context, &state->values[i], &lists->values[i]);
        if (status != STATUS_OK) {
            return status;
        }
        lists->values_count++;
    }
    return STATUS_OK;
}

static enum status make_change_files(const struct sst_context *context, const struct manifest_state *state,
                                     struct table_lists *lists) {
    lists->changes = lists->tables + state->file_count + state->values_count;
    for (size_t i = 0; i < state->changes_count; i++) {
        enum status status = change_file_new(context, &state->changes[i], &lists->changes[i]);
        if (status != STATUS_OK) {
            return status;
        }
        lists->changes_count++;
    }
    return STATUS_OK;
}

static void free_lists(struct table_lists *lists) {
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < lists->counts[level]; i++) {
            sst_free(lists->levels[level][i]);
        }
    }
    for (size_t i = 0; i < lists->values_count; i++) {
        sst_free(lists->values[i]);
    }
    for (size_t i = 0; i < lists->changes_count; i++) {
        sst_free(lists->changes[i]);
    }
}

enum status storage__make_version(const struct sst_context *context, const struct manifest_state *state,
                                  struct version **ret_version, struct error *err) {
    struct alloc *alloc = context->env->alloc;
    size_t total = state->file_count + state->values_count + state->changes_count;
    struct table_lists lists = {.tables = mem_alloc_zero(alloc, (total + 1) * sizeof(struct sst *))};
    struct version_change change = {.horizon = state->horizon};
    struct version *version = NULL;
    enum status status = lists.tables == NULL ? STATUS_NO_MEMORY : make_tables(context, state, &lists);
    if (status == STATUS_OK) {
        status = make_value_files(context, state, &lists);
    }
    if (status == STATUS_OK) {
        status = make_change_files(context, state, &lists);
    }
    change.values_added = lists.values;
    change.values_added_count = lists.values_count;
    change.changes_added = lists.changes;
    change.changes_added_count = lists.changes_count;
    change.changes_after = state->changes_after;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        change.added[level] = lists.levels[level];
        change.added_count[level] = lists.counts[level];
    }
    if (status == STATUS_OK) {
        version = version_new(alloc, NULL, &change);
    }
    if (version == NULL) {
        status = error_set(err, STATUS_NO_MEMORY, "%s: no memory for its list of tables", context->dir);
        free_lists(&lists);
    } else {
        *ret_version = version;
    }
    mem_free(alloc, lists.tables);
    return status;
}

static enum status make_version(struct storage *storage, const struct manifest_state *state, struct error *err) {
    struct version *version;
    enum status status = storage__make_version(&storage->sst_context, state, &version, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (!version_is_sound(version)) {
        version_unref(version, &storage->dead_tables);
        return error_set(err, STATUS_CORRUPT, "%s: the manifest's tables overlap where they must not", storage->dir);
    }
    storage->version = version;
    return STATUS_OK;
}

/* A new manifest with the same contents. */
static enum status renew_manifest(struct storage *storage, struct manifest_state *state, struct error *err) {
    struct buf snapshot;
    uint64_t number = state->next_file++;
    bool had_one = storage->manifest.number != 0;
    buf_init(&snapshot, storage->env->alloc, 0);
    enum status status = manifest_state_encode(state, &snapshot);
    if (status == STATUS_OK) {
        status = manifest_switch(&storage->manifest, number, buf_slice(&snapshot), err);
    }
    buf_deinit(&snapshot);
    if (status == STATUS_NO_SPACE && had_one) {
        error_clear(err);
        status = manifest_keep(&storage->manifest, err);
    }
    atomic_init(&storage->next_file, state->next_file);
    storage->manifest_bytes_written = storage->manifest.written_bytes;
    return status;
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

/* The first memtable, read set and view. */
static enum status make_first_view(struct storage *storage, struct error *err) {
    struct read_set *read_set = storage__read_set_new(storage);
    struct storage_view *view = view_reserve(&storage->views);
    storage->active = storage__generation_new(storage);
    if (read_set == NULL || view == NULL || storage->active == NULL) {
        mem_free(storage->env->alloc, read_set);
        view_unreserve(&storage->views, view);
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory for a memtable", storage->dir);
    }
    storage->debt_bytes = compaction_debt(storage->version, &storage->options);
    storage__set_current(storage, read_set, storage->version);
    view_publish(&storage->views, view, storage->frontier.index, read_set);
    return STATUS_OK;
}

static void init(struct storage *storage, const struct storage_options *options) {
    memset((void *)storage, 0, sizeof *storage);
    storage->options = *options;
    storage->env = options->env;
    storage->loop = options->loop;
    (void)snprintf(storage->dir, sizeof storage->dir, "%s", options->dir);
    storage->options.dir = storage->dir;
    storage->manifest.env = options->env;
    storage->manifest.dir = storage->dir;
    memcpy(storage->manifest.identity.cluster_id, options->cluster_id, STORAGE_CLUSTER_ID_BYTES);
    storage->manifest.identity.node_id = options->node_id;
    storage->durable_wanted = UINT64_MAX;
    storage->limiter.bytes_per_second = options->compaction_bytes_per_second_max;
    list_init(&storage->full);
    list_init(&storage->old_sets);
    list_init(&storage->pins);
    list_init(&storage->written);
    env_mutex_init(&storage->damage.lock, options->env);
    view_publisher_init(&storage->views, options->env->alloc, storage, storage__read_set_dead);
    storage->collect.run = storage__collect;
    atomic_init(&storage->collect_posted, false);
    storage__compact_range_init(storage);
    storage__upkeep_init(storage);
}

static enum status make(const struct storage_options *options, struct storage **ret_storage, struct error *err) {
    struct alloc *alloc = options->env->alloc;
    struct storage *storage = mem_alloc_aligned(alloc, 64, sizeof *storage);
    if (storage == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to open it", options->dir);
    }
    init(storage, options);
    enum status status = cache_new(storage->env, options->cache_bytes, &storage->cache, err);
    if (status == STATUS_OK) {
        status = open_files_new(storage->env, options->open_files_max, &storage->open_files, err);
    }
    if (status == STATUS_OK && options->digests) {
        storage->digests = mem_alloc_zero(alloc, sizeof *storage->digests);
    }
    if (status == STATUS_OK) {
        storage->jobs = mem_alloc_zero(alloc, options->compaction_workers * sizeof storage->jobs[0]);
        if (storage->jobs == NULL || (options->digests && storage->digests == NULL)) {
            status = error_set(err, STATUS_NO_MEMORY, "%s: no memory to open it", options->dir);
        }
    }
    storage->sst_context = (struct sst_context){.env = storage->env,
                                                .cache = storage->cache,
                                                .files = storage->open_files,
                                                .dir = storage->dir,
                                                .damaged = storage__damaged,
                                                .damaged_context = storage};
    memcpy(storage->sst_context.cluster_id, options->cluster_id, STORAGE_CLUSTER_ID_BYTES);
    if (status != STATUS_OK) {
        storage__free(storage);
        return status;
    }
    *ret_storage = storage;
    return STATUS_OK;
}

/* What a failed opening has made. Nothing was published that anybody could have taken. */
static void unmake(struct storage *storage) {
    storage__generation_free(storage, storage->active);
    if (storage->version != NULL) {
        version_unref(storage->version, &storage->dead_tables);
    }
    for (struct sst *sst = storage->dead_tables; sst != NULL;) {
        struct sst *next = sst->next_dead;
        sst_free(sst);
        sst = next;
    }
    manifest_close(&storage->manifest);
    env_close(storage->lock);
    storage__free(storage);
}

/* What the manifest's frontier says of the log's place. */
static void take_frontier(struct storage *storage, const struct manifest_state *state) {
    storage->frontier = state->frontier;
    if (storage->frontier.horizon < state->horizon) {
        storage->frontier.horizon = state->horizon;
    }
    storage->horizon_wanted = storage->frontier.horizon;
    storage->applied_term = state->frontier.term;
    storage->inserted_term = state->frontier.term;
    storage->inserted_index = state->frontier.index;
    storage->durable_index = state->frontier.index;
    storage->switched_index = state->frontier.index;
    atomic_init(&storage->applied_index, state->frontier.index);
    storage__begin_digests(storage);
}

static enum status open_store(struct storage *storage, struct manifest_state *state, struct error *err) {
    char lock_path[LIMIT_PATH_BYTES];
    struct leftovers leftovers = {.storage = storage, .state = state};
    file_path(lock_path, storage->dir, LOCK_NAME);
    enum status status = make_dir(storage, err);
    if (status == STATUS_OK) {
        status = env_lock_file(storage->env, lock_path, &storage->lock, err);
    }
    if (status == STATUS_OK) {
        status = load(storage, state, &leftovers, err);
    }
    if (status == STATUS_OK) {
        status = make_version(storage, state, err);
    }
    if (status == STATUS_OK) {
        status = renew_manifest(storage, state, err);
    }
    if (status == STATUS_OK) {
        leftovers.remove = true;
        status = env_list_dir(storage->env, storage->dir, look_at, &leftovers, err);
    }
    if (status == STATUS_OK) {
        take_frontier(storage, state);
        status = make_first_view(storage, err);
    }
    return status;
}

enum status storage_open(const struct storage_options *options, struct storage **ret_storage, struct error *err) {
    struct manifest_state state;
    struct storage *storage = NULL;
    enum status status = storage__check_options(options, err);
    if (status == STATUS_OK) {
        status = make(options, &storage, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    CHECK(storage != NULL);
    manifest_state_init(&state, options->env->alloc);
    status = open_store(storage, &state, err);
    manifest_state_deinit(&state);
    if (status != STATUS_OK) {
        unmake(storage);
        return status;
    }
    *ret_storage = storage;
    return STATUS_OK;
}
