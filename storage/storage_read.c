/*
 * Lookups over a view, on any thread. Everything reached from a view is immutable but for the active memtable
 * (memtable.h).
 *
 * Sources are asked from the newest to the oldest: memtables, level 0 tables, one table of each level. Each holds only
 * versions and range deletes of a key that are newer than those of the next, so the first that has either decides. A
 * lookup that waits for a block begins anew when it is there: what it had found is still at hand (fetch.h).
 */
#include "node/base/check.h"
#include "storage/filter.h"
#include "storage/storage_read_internal.h"

/* ---- Views --------------------------------------------------------------------------------------------------- */

struct storage_view *storage_view_acquire(struct storage *storage) {
    return view_take(&storage->views);
}

void storage_view_release(struct storage_view *view) { view_release(view); }
void storage_view_hold(struct storage_view *view) { view_hold(view); }

uint64_t storage_view_revision(const struct storage_view *view) { return view->revision; }

uint64_t storage_view_horizon(const struct storage_view *view) { return view->read_set->version->horizon; }

enum status storage__check_horizon(const struct storage_view *view, uint64_t revision, struct error *err) {
    uint64_t horizon = storage_view_horizon(view);
    if (revision >= horizon) {
        return STATUS_OK;
    }
    return error_set(err, STATUS_COMPACTED, "revision %llu is below the horizon %llu", (unsigned long long)revision,
                     (unsigned long long)horizon);
}

/* ---- Asynchronous reads -------------------------------------------------------------------------------------- */

static void on_ready(struct fetch *fetch) {
    struct storage_io *io = CONTAINER_OF(fetch, struct storage_io, fetch);
    io->ready(io);
}

static void on_pause_over(struct env_message *message) {
    struct storage_io *io = CONTAINER_OF(message, struct storage_io, pause);
    io->is_paused = false;
    io->ready(io);
}

void storage_io_init(struct storage_io *io, struct storage *storage, struct env_loop *loop,
                     void (*ready)(struct storage_io *io)) {
    const struct fetch_options options = {.loop = loop, .ready = on_ready, .fill_cache = true};
    fetch_init(&io->fetch, &storage->sst_context, &options);
    io->ready = ready;
    io->pause = (struct env_message){.run = on_pause_over};
    io->is_paused = false;
}

void storage__fetch_init(struct fetch *fetch, const struct storage_view *view) {
    const struct fetch_options options = {.fill_cache = true};
    fetch_init(fetch, &view->publisher->storage->sst_context, &options);
}

void storage_io_start(struct storage_io *io) {
    CHECK(!storage_io_is_busy(io));
    if (io->fetch.wanted > 0) {
        fetch_start(&io->fetch);
    } else {
        io->is_paused = true;
        env_post(io->fetch.options.loop, &io->pause);
    }
}

bool storage_io_is_busy(const struct storage_io *io) { return io->is_paused || fetch_is_busy(&io->fetch); }

void storage_io_deinit(struct storage_io *io) {
    CHECK(!storage_io_is_busy(io));
    fetch_deinit(&io->fetch);
}

/* ---- One source ---------------------------------------------------------------------------------------------- */

struct lookup {
    struct fetch *fetch;
    struct slice key;
    uint64_t hash;
    uint64_t revision;
    struct sst_hold hold; /* of entry.value */
    struct entry entry;
    struct error *err;
};

/* What a source that has something says: the entry, if found, or a range delete. STATUS_OK: the key has this value. */
static inline enum status settle(const struct lookup *lookup, bool found, struct tombstone_mark mark) {
    const struct entry *entry = &lookup->entry;
    bool shows =
        found && entry->kind != BATCH_DELETE && !tombstone_mark_covers(mark, entry->key.revision, entry->key.ordinal);
    return shows ? STATUS_OK : STATUS_NOT_FOUND;
}

/* True: it decides, with *ret_status. */
static inline bool ask_memtable(struct lookup *lookup, const struct memtable *memtable, enum status *ret_status) {
    bool found = memtable_get(memtable, lookup->key, lookup->hash, lookup->revision, &lookup->entry);
    struct tombstone_mark mark = memtable_covering(memtable, lookup->key, lookup->revision);
    if (!found && mark.revision == 0) {
        return false;
    }
    *ret_status = settle(lookup, found, mark);
    return true;
}

static inline bool ask_table(struct lookup *lookup, struct sst *table, enum status *ret_status) {
    if (!sst_may_hold(table, lookup->key, lookup->revision)) {
        return false;
    }
    struct tombstone_mark mark = TOMBSTONE_MARK_NONE;
    enum status status = sst_get(table, lookup->fetch, lookup->key, lookup->hash, lookup->revision, &lookup->hold,
                                 &lookup->entry, &mark, lookup->err);
    if (status == STATUS_NOT_FOUND && mark.revision == 0) {
        return false;
    }
    if (status == STATUS_OK || status == STATUS_NOT_FOUND) {
        status = settle(lookup, status == STATUS_OK, mark);
    }
    *ret_status = status;
    return true;
}

/* ---- All sources --------------------------------------------------------------------------------------------- */

static bool ask_memtables(struct lookup *lookup, const struct read_set *read_set, enum status *ret_status) {
    for (size_t i = 0; i < read_set->generation_count; i++) {
        if (ask_memtable(lookup, read_set->generations[i]->memtable, ret_status)) {
            return true;
        }
    }
    return false;
}

static enum status ask_all(struct lookup *lookup, const struct read_set *read_set) {
    enum status status = STATUS_NOT_FOUND;
    if (ask_memtables(lookup, read_set, &status)) {
        return status;
    }
    const struct version *version = read_set->version;
    for (size_t i = 0; i < version->counts[0]; i++) {
        if (ask_table(lookup, version->tables[0][i], &status)) {
            return status;
        }
    }
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        struct sst *table = version->counts[level] > 0 ? version_find(version, level, lookup->key) : NULL;
        if (table != NULL && ask_table(lookup, table, &status)) {
            return status;
        }
    }
    return STATUS_NOT_FOUND;
}

enum status storage__follow(const struct version *version, struct fetch *fetch, const struct entry *entry,
                            struct sst_hold *hold, struct slice *ret_value, struct error *err) {
    struct value_place place;
    CHECK(entry->kind == BATCH_PUT_APART);
    if (value_place_decode(entry->value, &place) != STATUS_OK) {
        return error_set(err, STATUS_CORRUPT, "an entry of revision %llu has no place for its value",
                         (unsigned long long)entry->key.revision);
    }
    struct sst *file = version_value_file(version, place.file, NULL);
    if (file == NULL) {
        return error_set(err, STATUS_CORRUPT, "an entry of revision %llu has its value in file %llx, which isn't there",
                         (unsigned long long)entry->key.revision, (unsigned long long)place.file);
    }
    return value_fetch(file, fetch, &place, &entry->key, hold, ret_value, err);
}

enum status storage__get(struct storage_view *view, struct fetch *fetch, struct slice key, uint64_t revision,
                         struct storage_value *ret_value, struct error *err) {
    struct lookup lookup = {.fetch = fetch, .key = key, .hash = filter_hash(key), .revision = revision, .err = err};
    enum status status = ask_all(&lookup, view->read_set);
    if (status == STATUS_OK && lookup.entry.kind == BATCH_PUT_APART) {
        status = storage__follow(view->read_set->version, fetch, &lookup.entry, &lookup.hold, &lookup.entry.value, err);
    }
    if (status == STATUS_OK) {
        *ret_value = (struct storage_value){.bytes = lookup.entry.value,
                                            .revision = lookup.entry.key.revision,
                                            .hold = lookup.hold};
    } else {
        sst_hold_release(&lookup.hold);
    }
    return status;
}

enum status storage_get(struct storage_view *view, struct storage_io *io, struct slice key, uint64_t revision,
                        struct storage_value *ret_value, struct error *err) {
    CHECK(revision <= view->revision);
    enum status status = storage__check_horizon(view, revision, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct fetch blocking;
    struct fetch *fetch = io != NULL ? &io->fetch : &blocking;
    if (io == NULL) {
        storage__fetch_init(fetch, view);
    }
    status = storage__get(view, fetch, key, revision, ret_value, err);
    if (status != STATUS_PENDING) {
        fetch_reset(fetch);
    }
    return status;
}

void storage_value_release(struct storage_value *value) { sst_hold_release(&value->hold); }

/* ---- From memory --------------------------------------------------------------------------------------------- */

/* True if a table may hold a version of the key, or a range delete over it, at or below the revision. */
static bool tables_may_hold(const struct version *version, struct slice key, uint64_t revision) {
    for (size_t i = 0; i < version->counts[0]; i++) {
        if (sst_may_hold(version->tables[0][i], key, revision)) {
            return true;
        }
    }
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        const struct sst *table = version->counts[level] > 0 ? version_find(version, level, key) : NULL;
        if (table != NULL && sst_may_hold(table, key, revision)) {
            return true;
        }
    }
    return false;
}

enum storage_lookup storage_get_memory(struct storage_view *view, struct slice key, uint64_t revision,
                                       struct slice *ret_value, uint64_t *ret_revision) {
    CHECK(revision <= view->revision);
    const struct read_set *read_set = view->read_set;
    if (revision < storage_view_horizon(view)) {
        return STORAGE_NEEDS_DISK;
    }
    struct lookup lookup = {.key = key, .hash = filter_hash(key), .revision = revision};
    enum status status;
    if (!ask_memtables(&lookup, read_set, &status)) {
        return tables_may_hold(read_set->version, key, revision) ? STORAGE_NEEDS_DISK : STORAGE_ABSENT;
    }
    if (status != STATUS_OK) {
        return STORAGE_ABSENT;
    }
    *ret_value = lookup.entry.value;
    *ret_revision = lookup.entry.key.revision;
    return STORAGE_FOUND;
}
