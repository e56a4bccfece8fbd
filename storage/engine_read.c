/* Lookups and iterators: over a view, without the lock. */
#include "storage/engine_internal.h"

static_assert((int)ENGINE_READAHEAD_BYTES_MAX <= (int)FETCH_READAHEAD_BYTES_MAX, "the store takes no more");

/* ---- Lookups ---------------------------------------------------------------------------------------------------- */

/* held: view, then the block. */
static_assert(sizeof(struct sst_hold) == 2 * sizeof(void *), "engine_value has room for it");

/* Below the horizon is the store's to tell. */
static enum status choose_revision(const struct storage_view *view, const struct engine_snapshot *snapshot,
                                   uint64_t wanted, uint64_t *ret_revision, struct error *err) {
    uint64_t newest = storage_view_revision(view);
    if (wanted == 0) {
        *ret_revision = snapshot != NULL ? snapshot->pin.revision : newest;
        return STATUS_OK;
    }
    if (snapshot != NULL) {
        return error_set(err, STATUS_INVALID, "a read was asked for at a snapshot and at revision %llu",
                         (unsigned long long)wanted);
    }
    if (wanted > newest) {
        return error_set(err, STATUS_INVALID, "revision %llu isn't there yet: the newest is %llu",
                         (unsigned long long)wanted, (unsigned long long)newest);
    }
    *ret_revision = wanted;
    return STATUS_OK;
}

static bool is_key(struct slice key) { return key.len > 0 && key.len <= LIMIT_KEY_BYTES; }

static enum status bad_key(struct slice key, struct error *err) {
    return error_set(err, STATUS_INVALID, "a key of %zu bytes: 1 to %d are possible", key.len, LIMIT_KEY_BYTES);
}

/* Takes both. */
static void hand_out(struct engine_value *ret_value, struct storage_view *view, const struct storage_value *value) {
    ret_value->bytes = value->bytes;
    ret_value->revision = value->revision;
    ret_value->held[0] = view;
    memcpy(&ret_value->held[1], &value->hold, sizeof value->hold);
}

enum status engine_get(struct engine *engine, const struct engine_read_options *options, struct slice key,
                       struct engine_value *ret_value, struct error *err) {
    if (!is_key(key)) {
        return bad_key(key, err);
    }
    struct storage_view *view = storage_view_acquire(engine->storage);
    uint64_t revision = storage_view_revision(view);
    struct storage_value value;
    enum status status = STATUS_OK;
    if (options != NULL) {
        status = choose_revision(view, options->snapshot, options->revision, &revision, err);
    }
    if (status == STATUS_OK) {
        status = storage_get(view, NULL, key, revision, &value, err);
    }
    if (status == STATUS_OK) {
        hand_out(ret_value, view, &value);
    } else {
        storage_view_release(view);
    }
    return status;
}

void engine_value_release(struct engine_value *value) {
    if (value->held[0] != NULL) {
        struct storage_value found = {.bytes = value->bytes};
        memcpy(&found.hold, &value->held[1], sizeof found.hold);
        storage_value_release(&found);
        storage_view_release(value->held[0]);
    }
    *value = (struct engine_value){.revision = 0};
}

/* What all of them say; the values that were found are handed out, each with a hold of the view. */
static enum status hand_all_out(struct storage_view *view, size_t count, const struct storage_value *found,
                                struct engine_value *values, const enum status *statuses) {
    enum status failure = STATUS_OK;
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] == STATUS_OK) {
            storage_view_hold(view);
            hand_out(&values[i], view, &found[i]);
        } else if (statuses[i] != STATUS_NOT_FOUND && failure == STATUS_OK) {
            failure = statuses[i];
        }
    }
    for (size_t i = 0; failure == STATUS_NO_MEMORY && i < count; i++) { /* all or nothing */
        if (statuses[i] == STATUS_OK) {
            engine_value_release(&values[i]);
        }
    }
    return failure;
}

enum status engine_multi_get(struct engine *engine, const struct engine_read_options *options, size_t count,
                             const struct slice *keys, struct engine_value *values, enum status *statuses,
                             struct error *err) {
    struct storage_value *found = mem_alloc_zero(engine->alloc, (count > 0 ? count : 1) * sizeof *found);
    if (found == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to look %zu keys up", count);
    }
    enum status failure = STATUS_OK;
    for (size_t i = 0; i < count; i++) {
        statuses[i] = STATUS_PENDING;
        if (!is_key(keys[i])) {
            failure = bad_key(keys[i], err);
        }
    }
    if (failure != STATUS_OK) {
        mem_free(engine->alloc, found);
        return failure;
    }
    struct storage_view *view = storage_view_acquire(engine->storage);
    uint64_t revision = storage_view_revision(view);
    if (options != NULL) {
        failure = choose_revision(view, options->snapshot, options->revision, &revision, err);
    }
    if (failure == STATUS_OK) {
        (void)!storage_multi_get(view, NULL, revision, count, keys, found, statuses, err);
        failure = hand_all_out(view, count, found, values, statuses);
    }
    storage_view_release(view);
    mem_free(engine->alloc, found);
    return failure;
}

uint64_t engine_approximate_bytes(struct engine *engine, struct slice lower, struct slice upper) {
    struct storage_view *view = storage_view_acquire(engine->storage);
    uint64_t bytes = storage_approximate_bytes(view, lower, upper);
    storage_view_release(view);
    return bytes;
}

/* ---- Iterators -------------------------------------------------------------------------------------------------- */

struct engine_iterator {
    struct storage_iterator *walk;
    struct storage_view *view;
    struct alloc *alloc;
};

enum status engine_iterator_new(struct engine *engine, const struct engine_iterator_options *options,
                                struct engine_iterator **ret_iterator, struct error *err) {
    static const struct engine_iterator_options everything;
    options = options != NULL ? options : &everything;
    if (options->lower.len > LIMIT_KEY_BYTES || options->upper.len > LIMIT_KEY_BYTES) {
        return error_set(err, STATUS_INVALID, "bounds of %zu and %zu bytes: keys have at most %d", options->lower.len,
                         options->upper.len, LIMIT_KEY_BYTES);
    }
    struct engine_iterator *iterator = mem_alloc_zero(engine->alloc, sizeof *iterator);
    if (iterator == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for an iterator");
    }
    iterator->alloc = engine->alloc;
    iterator->view = storage_view_acquire(engine->storage);
    uint64_t revision = 0;
    enum status status = choose_revision(iterator->view, options->snapshot, options->revision, &revision, err);
    if (status != STATUS_OK) {
        engine_iterator_free(iterator);
        return status;
    }
    uint32_t readahead_bytes_max = options->readahead_bytes_max < ENGINE_READAHEAD_BYTES_MAX
                                       ? options->readahead_bytes_max
                                       : ENGINE_READAHEAD_BYTES_MAX;
    const struct storage_iterator_options walk = {.revision = revision,
                                                  .at_zero = revision == 0,
                                                  .lower = options->lower,
                                                  .upper = options->upper,
                                                  .keys_only = options->keys_only,
                                                  .passing = options->passing,
                                                  .readahead_bytes_max = readahead_bytes_max};
    status = storage_iterator_new(iterator->view, NULL, &walk, &iterator->walk, err);
    if (status != STATUS_OK) {
        engine_iterator_free(iterator);
        return status;
    }
    *ret_iterator = iterator;
    return STATUS_OK;
}

void engine_iterator_free(struct engine_iterator *iterator) {
    if (iterator != NULL) {
        storage_iterator_free(iterator->walk);
        storage_view_release(iterator->view);
        mem_free(iterator->alloc, iterator);
    }
}

enum status engine_iterator_first(struct engine_iterator *iterator, struct error *err) {
    return storage_iterator_first(iterator->walk, err);
}

enum status engine_iterator_last(struct engine_iterator *iterator, struct error *err) {
    return storage_iterator_last(iterator->walk, err);
}

enum status engine_iterator_seek(struct engine_iterator *iterator, struct slice key, struct error *err) {
    return key.len <= LIMIT_KEY_BYTES ? storage_iterator_seek(iterator->walk, key, err) : bad_key(key, err);
}

enum status engine_iterator_seek_for_prev(struct engine_iterator *iterator, struct slice key, struct error *err) {
    return key.len <= LIMIT_KEY_BYTES ? storage_iterator_seek_for_prev(iterator->walk, key, err) : bad_key(key, err);
}

enum status engine_iterator_next(struct engine_iterator *iterator, struct error *err) {
    return storage_iterator_next(iterator->walk, err);
}

enum status engine_iterator_prev(struct engine_iterator *iterator, struct error *err) {
    return storage_iterator_prev(iterator->walk, err);
}

struct slice engine_iterator_key(const struct engine_iterator *iterator) {
    return storage_iterator_key(iterator->walk);
}

enum status engine_iterator_value(struct engine_iterator *iterator, struct slice *ret_value, struct error *err) {
    return storage_iterator_value(iterator->walk, ret_value, err);
}

uint64_t engine_iterator_revision(const struct engine_iterator *iterator) {
    return storage_iterator_revision(iterator->walk);
}
