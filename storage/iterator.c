/*
 * Scans: memtables, level 0 tables and level 1 merged, and of each key the newest version at or below the revision,
 * deletes passed over.
 *
 * The key that was shown is copied, as the cursor that lent it moves on; the value is lent by the cursor until the next
 * call.
 */
#include "node/base/check.h"
#include "storage/storage_internal.h"

struct storage_iterator {
    struct alloc *alloc;
    struct cursor *cursor;
    uint64_t revision;
    struct slice lower;
    struct slice upper;
    enum status status; /* of the last call; before the first one STATUS_OK with key_len 0 */
    struct slice value;
    uint64_t value_revision;
    size_t key_len;
    uint8_t key[LIMIT_KEY_BYTES];
};

/* One cursor for each source that meets the bounds. */
static enum status open_sources(struct storage_view *view, struct slice lower, struct slice upper,
                                struct cursor **ret_cursor) {
    const struct read_set *read_set = view->read_set;
    const struct version *version = read_set->version;
    struct alloc *alloc = view->publisher->alloc;
    size_t count = 0;
    size_t first;
    size_t run;
    version_range(version, lower, upper, &first, &run);
    struct cursor **sources =
        mem_alloc_zero(alloc, (read_set->generation_count + version->counts[0] + 1) * sizeof(struct cursor *));
    if (sources == NULL) {
        return STATUS_NO_MEMORY;
    }
    bool complete = true;
    for (size_t i = 0; i < read_set->generation_count; i++) {
        sources[count] = memtable_cursor_new(alloc, read_set->generations[i]->memtable);
        complete = complete && sources[count++] != NULL;
    }
    for (size_t i = 0; i < version->counts[0]; i++) {
        if (sst_overlaps(version->tables[0][i], lower, upper)) {
            sources[count] = sst_cursor_new(alloc, &version->tables[0][i], 1);
            complete = complete && sources[count++] != NULL;
        }
    }
    if (run > 0) {
        sources[count] = sst_cursor_new(alloc, &version->tables[1][first], run);
        complete = complete && sources[count++] != NULL;
    }
    struct cursor *merged = NULL;
    if (complete) {
        merged = merging_cursor_new(alloc, sources, count);
    } else {
        for (size_t i = 0; i < count; i++) {
            cursor_free(sources[i]);
        }
    }
    mem_free(alloc, sources);
    if (merged == NULL) {
        return STATUS_NO_MEMORY;
    }
    *ret_cursor = merged;
    return STATUS_OK;
}

enum status storage_iterator_new(struct storage_view *view, uint64_t revision, struct slice lower, struct slice upper,
                                 struct storage_iterator **ret_iterator, struct error *err) {
    CHECK(revision <= view->revision);
    uint64_t horizon = view->read_set->version->horizon;
    if (revision < horizon) {
        return error_set(err, STATUS_COMPACTED, "revision %llu is below the horizon %llu", (unsigned long long)revision,
                         (unsigned long long)horizon);
    }
    struct alloc *alloc = view->publisher->alloc;
    struct storage_iterator *iterator = mem_alloc_zero(alloc, sizeof *iterator);
    if (iterator == NULL || open_sources(view, lower, upper, &iterator->cursor) != STATUS_OK) {
        mem_free(alloc, iterator);
        return error_set(err, STATUS_NO_MEMORY, "no memory for a scan");
    }
    iterator->alloc = alloc;
    iterator->revision = revision;
    iterator->lower = lower;
    iterator->upper = upper;
    *ret_iterator = iterator;
    return STATUS_OK;
}

void storage_iterator_free(struct storage_iterator *iterator) {
    if (iterator != NULL) {
        cursor_free(iterator->cursor);
        mem_free(iterator->alloc, iterator);
    }
}

enum status storage_iterator_next(struct storage_iterator *iterator, struct error *err) {
    if (iterator->status != STATUS_OK) {
        return iterator->status;
    }
    struct cursor *cursor = iterator->cursor;
    struct entry_key start = entry_key_at(iterator->lower, iterator->revision);
    bool first = iterator->key_len == 0;
    enum status status = first ? cursor_seek(cursor, &start, err) : cursor_next(cursor, err);
    for (; status == STATUS_OK; status = cursor_next(cursor, err)) {
        const struct entry *entry = &cursor->entry;
        if (iterator->upper.len > 0 && slice_compare(entry->key.user, iterator->upper) >= 0) {
            status = STATUS_NOT_FOUND;
            break;
        }
        /* Too new, or an older version of a key that was dealt with: shown or seen to be deleted. */
        if (entry->key.revision > iterator->revision ||
            slice_equal(entry->key.user, slice_of(iterator->key, iterator->key_len))) {
            continue;
        }
        memcpy(iterator->key, entry->key.user.data, entry->key.user.len);
        iterator->key_len = entry->key.user.len;
        if (entry->kind != BATCH_DELETE) {
            iterator->value = entry->value;
            iterator->value_revision = entry->key.revision;
            break;
        }
    }
    iterator->status = status;
    return status;
}

struct slice storage_iterator_key(const struct storage_iterator *iterator) {
    CHECK(iterator->status == STATUS_OK && iterator->key_len > 0);
    return slice_of(iterator->key, iterator->key_len);
}

struct slice storage_iterator_value(const struct storage_iterator *iterator) {
    CHECK(iterator->status == STATUS_OK && iterator->key_len > 0);
    return iterator->value;
}

uint64_t storage_iterator_revision(const struct storage_iterator *iterator) {
    CHECK(iterator->status == STATUS_OK && iterator->key_len > 0);
    return iterator->value_revision;
}
