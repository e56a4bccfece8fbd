/*
 * Iterators over a view: one cursor for each memtable, level 0 table and level that meets the bounds, and what
 * iterator_walk.c makes of them.
 *
 * An iterator is one allocation and one for each cursor; moving it, seeks included, allocates nothing but, walking
 * backward, room for the largest value seen.
 */
#include "node/base/check.h"
#include "storage/iterator_internal.h"
#include "storage/storage_read_internal.h"

enum { RUN_LOOKED_THROUGH_MAX = 32 /* tables of a level that are asked for range deletes beforehand */ };

/* ---- Sources ------------------------------------------------------------------------------------------------- */

struct source_list {
    struct storage_iterator *iterator;
    struct iterator_source *sources;
    size_t count;
    size_t count_max;
    struct slice lower;
    struct slice upper;
};

/* Takes the cursor. False: out of memory. */
static bool add_source(struct source_list *list, struct cursor *cursor, struct iterator_source source) {
    if (cursor == NULL) {
        return false;
    }
    CHECK(list->count < list->count_max);
    list->iterator->heap[list->count].cursor = cursor;
    source.cursor = cursor;
    list->sources[list->count++] = source;
    list->iterator->walk.has_ranges |= source.set_count > 0 || source.table_count > 0;
    return true;
}

static bool add_memtable(struct source_list *list, const struct memtable *memtable) {
    struct memtable_tombstones ranges = memtable_tombstones(memtable);
    return add_source(list, memtable_cursor_new(list->iterator->alloc, memtable),
                      (struct iterator_source){.sets = ranges.sets, .set_count = ranges.count});
}

static bool add_run(struct source_list *list, struct sst *const *tables, size_t count) {
    struct iterator_source source = {.tables = tables, .table_count = count};
    if (count <= RUN_LOOKED_THROUGH_MAX) {
        bool has_ranges = false;
        for (size_t i = 0; i < count; i++) {
            has_ranges |= tables[i]->meta.tombstones > 0;
        }
        source.table_count = has_ranges ? count : 0;
    }
    struct storage_iterator *iterator = list->iterator;
    return add_source(list, sst_cursor_new(iterator->alloc, iterator->walk.fetch, tables, count), source);
}

/* From the newest to the oldest. False: out of memory. */
static bool add_sources(struct source_list *list, const struct read_set *read_set) {
    const struct version *version = read_set->version;
    uint64_t revision = list->iterator->walk.revision;
    for (size_t i = 0; i < read_set->generation_count; i++) {
        if (!add_memtable(list, read_set->generations[i]->memtable)) {
            return false;
        }
    }
    for (size_t i = 0; i < version->counts[0]; i++) {
        struct sst *const *table = &version->tables[0][i];
        bool matters = (*table)->meta.revision_first <= revision && sst_overlaps(*table, list->lower, list->upper);
        if (matters && !add_run(list, table, 1)) {
            return false;
        }
    }
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        size_t first;
        size_t count;
        version_range(version, level, list->lower, list->upper, &first, &count);
        if (count > 0 && !add_run(list, &version->tables[level][first], count)) {
            return false;
        }
    }
    return true;
}

/* ---- Life ---------------------------------------------------------------------------------------------------- */

static struct fetch *choose_fetch(struct storage_iterator *iterator, struct storage_view *view, struct storage_io *io,
                                  const struct storage_iterator_options *options) {
    struct fetch *fetch = &iterator->blocking;
    if (io != NULL) {
        fetch = &io->fetch;
    } else {
        storage__fetch_init(fetch, view);
    }
    fetch->options.fill_cache = !options->passing;
    fetch->options.readahead_bytes_max =
        options->readahead_bytes_max != 0 ? options->readahead_bytes_max : STORAGE_READAHEAD_BYTES;
    return fetch;
}

enum status storage_iterator_new(struct storage_view *view, struct storage_io *io,
                                 const struct storage_iterator_options *options, struct storage_iterator **ret_iterator,
                                 struct error *err) {
    static const struct storage_iterator_options defaults = {.revision = 0};
    options = options != NULL ? options : &defaults;
    uint64_t revision = options->revision != 0 || options->at_zero ? options->revision : view->revision;
    CHECK(!(options->at_zero && options->revision != 0));
    CHECK(revision <= view->revision && options->readahead_bytes_max <= FETCH_READAHEAD_BYTES_MAX);
    enum status status = storage__check_horizon(view, revision, err);
    if (status != STATUS_OK) {
        return status;
    }
    const struct read_set *read_set = view->read_set;
    struct alloc *alloc = view->publisher->alloc;
    size_t count_max = read_set->generation_count + read_set->version->counts[0] + MANIFEST_LEVELS - 1;
    struct storage_iterator *iterator =
        mem_alloc(alloc,
                  sizeof *iterator + count_max * (sizeof(struct merging_source) + sizeof(struct iterator_source)));
    if (iterator == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for an iterator");
    }
    struct source_list list = {.iterator = iterator,
                               .sources = (struct iterator_source *)(void *)&iterator->heap[count_max],
                               .count_max = count_max,
                               .lower = options->lower,
                               .upper = options->upper};
    iterator->alloc = alloc;
    iterator->version = read_set->version;
    iterator->apart = (struct sst_hold){.block = NULL};
    iterator->walk = (struct iterator_walk){.sources = list.sources,
                                            .keys_only = options->keys_only,
                                            .revision = revision,
                                            .lower = options->lower,
                                            .upper = options->upper,
                                            .fetch = choose_fetch(iterator, view, io, options),
                                            .moves_max = io != NULL ? ITERATOR_TURN_MOVES_MAX : 0,
                                            .key_bytes = iterator->key_bytes};
    buf_init(&iterator->walk.value, alloc, 0);
    bool complete = add_sources(&list, read_set);
    iterator->walk.source_count = list.count;
    merging_init(&iterator->walk.merging, iterator->heap, list.count);
    if (!complete) {
        storage_iterator_free(iterator);
        return error_set(err, STATUS_NO_MEMORY, "no memory for an iterator");
    }
    *ret_iterator = iterator;
    return STATUS_OK;
}

void storage_iterator_free(struct storage_iterator *iterator) {
    if (iterator == NULL) {
        return;
    }
    struct iterator_walk *walk = &iterator->walk;
    for (size_t i = 0; i < walk->source_count; i++) {
        cursor_free(iterator->heap[i].cursor);
    }
    buf_deinit(&walk->value);
    sst_hold_release(&iterator->apart);
    fetch_reset(walk->fetch);
    walk->fetch->options.fill_cache = true; /* an io may serve other reads now */
    walk->fetch->options.readahead_bytes_max = 0;
    mem_free(iterator->alloc, iterator);
}

/* ---- Moving -------------------------------------------------------------------------------------------------- */

static enum status move(struct storage_iterator *iterator, enum iterator_call call, struct slice key,
                        struct error *err) {
    sst_hold_release(&iterator->apart);
    return iterator_walk__call(&iterator->walk, call, key, err);
}

enum status storage_iterator_first(struct storage_iterator *iterator, struct error *err) {
    return move(iterator, ITERATOR_FIRST, SLICE_EMPTY, err);
}

enum status storage_iterator_last(struct storage_iterator *iterator, struct error *err) {
    return move(iterator, ITERATOR_LAST, SLICE_EMPTY, err);
}

enum status storage_iterator_seek(struct storage_iterator *iterator, struct slice key, struct error *err) {
    return move(iterator, ITERATOR_SEEK, key, err);
}

enum status storage_iterator_seek_for_prev(struct storage_iterator *iterator, struct slice key, struct error *err) {
    return move(iterator, ITERATOR_SEEK_FOR_PREV, key, err);
}

enum status storage_iterator_next(struct storage_iterator *iterator, struct error *err) {
    return move(iterator, ITERATOR_NEXT, SLICE_EMPTY, err);
}

enum status storage_iterator_prev(struct storage_iterator *iterator, struct error *err) {
    return move(iterator, ITERATOR_PREV, SLICE_EMPTY, err);
}

bool storage_iterator_is_valid(const struct storage_iterator *iterator) {
    return iterator->walk.state != ITERATOR_NOWHERE;
}

struct slice storage_iterator_key(const struct storage_iterator *iterator) {
    CHECK(storage_iterator_is_valid(iterator));
    return iterator->walk.shown.key.user;
}

uint64_t storage_iterator_revision(const struct storage_iterator *iterator) {
    CHECK(storage_iterator_is_valid(iterator));
    return iterator->walk.shown.key.revision;
}

enum status storage_iterator_value(struct storage_iterator *iterator, struct slice *ret_value, struct error *err) {
    const struct entry *shown = &iterator->walk.shown;
    CHECK(storage_iterator_is_valid(iterator) && !iterator->walk.keys_only);
    if (shown->kind != BATCH_PUT_APART) {
        *ret_value = shown->value;
        return STATUS_OK;
    }
    if (iterator->apart.block == NULL) {
        enum status status = storage__follow(iterator->version, iterator->walk.fetch, shown, &iterator->apart,
                                             &iterator->apart_value, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    *ret_value = iterator->apart_value;
    return STATUS_OK;
}
