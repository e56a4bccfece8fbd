/* Lookups and iterators: over a view, without the lock. */
#include "storage/engine_internal.h"

/* ---- Lookups ---------------------------------------------------------------------------------------------------- */

enum status engine_get(struct engine *engine, const struct engine_read_options *options, struct slice key,
                       struct engine_value *ret_value, struct error *err) {
    if (key.len == 0 || key.len > LIMIT_KEY_BYTES) {
        return error_set(err, STATUS_INVALID, "a key of %zu bytes: 1 to %d are possible", key.len, LIMIT_KEY_BYTES);
    }
    struct storage_view *view = storage_view_acquire(engine->storage);
    uint64_t revision = options != NULL && options->snapshot != NULL ? options->snapshot->revision
                                                                      : storage_view_revision(view);
    struct engine_value value = {.revision = 0};
    buf_init(&value.held, engine->alloc, 0);
    enum status status = storage_get(view, key, revision, &value.held, &value.revision, err);
    storage_view_release(view);
    if (status != STATUS_OK) {
        buf_deinit(&value.held);
        return status;
    }
    value.bytes = buf_slice(&value.held);
    *ret_value = value;
    return STATUS_OK;
}

void engine_value_release(struct engine_value *value) {
    if (value->held.alloc != NULL) {
        buf_deinit(&value->held);
    }
    *value = (struct engine_value){.revision = 0};
}

/* ---- Iterators -------------------------------------------------------------------------------------------------- */

struct engine_iterator {
    struct engine *engine;
    struct storage_view *view;
    struct storage_iterator *scan; /* NULL: at no place yet */
    uint64_t revision;
    struct slice lower;
    struct slice upper;
    size_t start_len;
    uint8_t start[LIMIT_KEY_BYTES];
};

enum status engine_iterator_new(struct engine *engine, const struct engine_iterator_options *options,
                                struct engine_iterator **ret_iterator, struct error *err) {
    static const struct engine_iterator_options everything;
    if (options == NULL) {
        options = &everything;
    }
    struct engine_iterator *iterator = mem_alloc_zero(engine->alloc, sizeof *iterator);
    if (iterator == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for an iterator");
    }
    iterator->engine = engine;
    iterator->view = storage_view_acquire(engine->storage);
    iterator->revision =
        options->snapshot != NULL ? options->snapshot->revision : storage_view_revision(iterator->view);
    iterator->lower = options->lower;
    iterator->upper = options->upper;
    *ret_iterator = iterator;
    return STATUS_OK;
}

void engine_iterator_free(struct engine_iterator *iterator) {
    if (iterator != NULL) {
        storage_iterator_free(iterator->scan);
        storage_view_release(iterator->view);
        mem_free(iterator->engine->alloc, iterator);
    }
}

enum status engine_iterator_next(struct engine_iterator *iterator, struct error *err) {
    return storage_iterator_next(iterator->scan, err);
}

static enum status start_at(struct engine_iterator *iterator, struct slice start, struct error *err) {
    storage_iterator_free(iterator->scan);
    iterator->scan = NULL;
    enum status status =
        storage_iterator_new(iterator->view, iterator->revision, start, iterator->upper, &iterator->scan, err);
    return status == STATUS_OK ? engine_iterator_next(iterator, err) : status;
}

enum status engine_iterator_first(struct engine_iterator *iterator, struct error *err) {
    return start_at(iterator, iterator->lower, err);
}

enum status engine_iterator_seek(struct engine_iterator *iterator, struct slice key, struct error *err) {
    if (key.len > LIMIT_KEY_BYTES) {
        return error_set(err, STATUS_INVALID, "a key of %zu bytes: at most %d are possible", key.len, LIMIT_KEY_BYTES);
    }
    if (slice_compare(key, iterator->lower) <= 0) {
        return engine_iterator_first(iterator, err);
    }
    memcpy(iterator->start, key.data, key.len);
    return start_at(iterator, slice_of(iterator->start, key.len), err);
}

struct slice engine_iterator_key(const struct engine_iterator *iterator) {
    return storage_iterator_key(iterator->scan);
}

struct slice engine_iterator_value(const struct engine_iterator *iterator) {
    return storage_iterator_value(iterator->scan);
}

uint64_t engine_iterator_revision(const struct engine_iterator *iterator) {
    return storage_iterator_revision(iterator->scan);
}
