/*
 * Opening: lock, manifest, tables, a new manifest, and only then the removal of files that no manifest names.
 *
 * Nothing that a crash left is believed before it is on disk for sure: a fresh manifest repeats what the old one said
 * (after a mere process crash that may be in the page cache only), and the directory is synced. On a full disk the old
 * manifest stays, synced.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- Directory ----------------------------------------------------------------------------------------------- */

struct leftovers {
    struct storage *storage;
    const struct manifest_state *state;
    uint64_t number_max;   /* of any file that is ours */
    uint64_t manifest_max; /* of any manifest */
    bool has_tables;
    bool remove; /* second pass */
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
        leftovers->has_tables = true;
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
    char parent[LIMIT_PATH_BYTES];
    enum status status = env_mkdir(storage->env, storage->dir, err);
    if (status != STATUS_OK && status != STATUS_EXISTS) {
        return status;
    }
    error_clear(err);
    (void)snprintf(parent, sizeof parent, "%s", storage->dir);
    char *slash = strrchr(parent, '/');
    if (slash == NULL) {
        (void)snprintf(parent, sizeof parent, ".");
    } else {
        slash[slash == parent ? 1 : 0] = '\0';
    }
    return env_sync_dir(storage->env, parent, err);
}

/* ---- Manifest and tables ------------------------------------------------------------------------------------- */

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
    if (is_new && (leftovers->has_tables || leftovers->manifest_max > 1)) {
        return error_set(err, STATUS_CORRUPT, "%s: there are tables or manifests, but %s is missing", storage->dir,
                         CURRENT_NAME);
    }
    if (!is_new && leftovers->number_max >= state->next_file) {
        state->next_file = leftovers->number_max + 1;
    }
    return STATUS_OK;
}

static int compare_level0(const struct sst *a, const struct sst *b) {
    return a->meta.revision_last > b->meta.revision_last ? -1 : a->meta.revision_last < b->meta.revision_last;
}

static int compare_level1(const struct sst *a, const struct sst *b) {
    return slice_compare(a->meta.smallest, b->meta.smallest);
}

/* Puts the last table of an otherwise sorted array at its place; levels hold tables nearly in order of their numbers.
 */
static void sift_in(struct sst **tables, size_t count, int (*compare)(const struct sst *a, const struct sst *b)) {
    struct sst *sst = tables[count - 1];
    size_t low = 0;
    size_t high = count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(tables[middle], sst) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    memmove(&tables[low + 1], &tables[low], (count - 1 - low) * sizeof(struct sst *));
    tables[low] = sst;
}

static enum status open_tables(struct storage *storage, const struct manifest_state *state, struct sst **tables,
                               size_t counts[MANIFEST_LEVELS], struct error *err) {
    char path[LIMIT_PATH_BYTES];
    for (size_t i = 0; i < state->file_count; i++) {
        const struct manifest_file *file = &state->files[i];
        struct sst **level = file->level == 0 ? tables : tables + state->file_count;
        file_path_sst(path, storage->dir, file->meta.number);
        enum status status =
            sst_open(storage->env, path, &file->meta, storage->options.cluster_id, &level[counts[file->level]], err);
        if (status != STATUS_OK) {
            if (status == STATUS_NOT_FOUND) {
                status = error_set(err, STATUS_CORRUPT, "%s: missing, but the manifest names it", path);
            }
            return status;
        }
        counts[file->level]++;
        sift_in(level, counts[file->level], file->level == 0 ? compare_level0 : compare_level1);
    }
    return STATUS_OK;
}

static enum status make_version(struct storage *storage, const struct manifest_state *state, struct error *err) {
    struct alloc *alloc = storage->env->alloc;
    size_t counts[MANIFEST_LEVELS] = {0, 0};
    struct version *version = NULL;
    struct sst **tables = mem_alloc_zero(alloc, (2 * state->file_count + 1) * sizeof(struct sst *));
    if (tables == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory for its list of tables", storage->dir);
    }
    enum status status = open_tables(storage, state, tables, counts, err);
    if (status == STATUS_OK) {
        struct version_change change = {.added = {tables, tables + state->file_count},
                                        .added_count = {counts[0], counts[1]},
                                        .horizon = state->horizon};
        version = version_new(alloc, NULL, &change);
        if (version == NULL) {
            status = error_set(err, STATUS_NO_MEMORY, "%s: no memory for its list of tables", storage->dir);
        } else if (!version_is_sound(version)) {
            status =
                error_set(err, STATUS_CORRUPT, "%s: the manifest's tables overlap where they must not", storage->dir);
        }
    }
    if (status == STATUS_OK) {
        storage->version = version;
    } else if (version != NULL) {
        version_unref(version, &storage->dead_tables);
    } else {
        for (size_t i = 0; i < counts[0] + counts[1]; i++) {
            sst_free(i < counts[0] ? tables[i] : tables[state->file_count + i - counts[0]]);
        }
    }
    mem_free(alloc, tables);
    return status;
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
    storage->next_file = state->next_file;
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
    storage__set_current(storage, read_set, storage->version);
    view_publish(&storage->views, view, storage->frontier.index, read_set);
    return STATUS_OK;
}

static enum status check_options(const struct storage_options *options, struct error *err) {
    if (strlen(options->dir) + FILE_NAME_BYTES_MAX + 1 > LIMIT_PATH_BYTES) {
        return error_set(err, STATUS_INVALID, "the storage directory's name is too long");
    }
    if (options->memtable_bytes == 0 || options->immutable_memtables_max == 0 ||
        options->immutable_memtables_max > 1024 || options->block_bytes == 0 || options->sst_bytes == 0 ||
        options->l0_files_merge == 0) {
        return error_set(err, STATUS_INVALID, "a size or number in the storage options is out of range");
    }
    return STATUS_OK;
}

static struct storage *make(const struct storage_options *options) {
    struct storage *storage = mem_alloc_aligned(options->env->alloc, 64, sizeof *storage);
    if (storage == NULL) {
        return NULL;
    }
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
    list_init(&storage->full);
    view_publisher_init(&storage->views, options->env->alloc, storage, storage__read_set_dead);
    storage->collect.run = storage__collect;
    atomic_init(&storage->collect_posted, false);
    return storage;
}

/* What a failed opening has made. Nothing was published that anybody could have taken. */
static void unmake(struct storage *storage) {
    if (storage->active != NULL) {
        memtable_free(storage->active->memtable);
        mem_free(storage->env->alloc, storage->active);
    }
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

enum status storage_open(const struct storage_options *options, struct storage **ret_storage, struct error *err) {
    enum status status = check_options(options, err);
    if (status != STATUS_OK) {
        return status;
    }
    char lock_path[LIMIT_PATH_BYTES];
    struct manifest_state state;
    struct storage *storage = make(options);
    if (storage == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to open it", options->dir);
    }
    struct leftovers leftovers = {.storage = storage, .state = &state};
    manifest_state_init(&state, options->env->alloc);
    file_path(lock_path, storage->dir, LOCK_NAME);
    status = make_dir(storage, err);
    if (status == STATUS_OK) {
        status = env_lock_file(storage->env, lock_path, &storage->lock, err);
    }
    if (status == STATUS_OK) {
        status = load(storage, &state, &leftovers, err);
    }
    if (status == STATUS_OK) {
        status = make_version(storage, &state, err);
    }
    if (status == STATUS_OK) {
        status = renew_manifest(storage, &state, err);
    }
    if (status == STATUS_OK) {
        leftovers.remove = true;
        status = env_list_dir(storage->env, storage->dir, look_at, &leftovers, err);
    }
    if (status == STATUS_OK) {
        storage->frontier = state.frontier;
        if (storage->frontier.horizon < state.horizon) {
            storage->frontier.horizon = state.horizon;
        }
        storage->horizon = storage->frontier.horizon;
        storage->applied_term = state.frontier.term;
        storage->durable_index = state.frontier.index;
        storage->switched_index = state.frontier.index;
        atomic_init(&storage->applied_index, state.frontier.index);
        status = make_first_view(storage, err);
    }
    manifest_state_deinit(&state);
    if (status != STATUS_OK) {
        unmake(storage);
        return status;
    }
    *ret_storage = storage;
    return STATUS_OK;
}
