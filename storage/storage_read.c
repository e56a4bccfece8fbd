/* Reading over a view, on any thread. Everything reached from a view is immutable but for the active memtable
 * (memtable.h). */
#include "node/base/check.h"
#include "storage/filter.h"
#include "storage/storage_internal.h"

struct storage_view *storage_view_acquire(struct storage *storage) {
    return view_take(&storage->views);
}

void storage_view_release(struct storage_view *view) { view_release(view); }

uint64_t storage_view_revision(const struct storage_view *view) { return view->revision; }

static bool get_from_memtables(const struct read_set *read_set, struct slice key, uint64_t revision,
                               struct entry *ret_entry) {
    uint64_t hash = filter_hash(key);
    for (size_t i = 0; i < read_set->generation_count; i++) {
        if (memtable_get(read_set->generations[i]->memtable, key, hash, revision, ret_entry)) {
            return true;
        }
    }
    return false;
}

enum storage_lookup storage_get_memory(struct storage_view *view, struct slice key, uint64_t revision,
                                       struct slice *ret_value, uint64_t *ret_revision) {
    CHECK(revision <= view->revision);
    struct entry entry;
    /* Each source holds only revisions above those of the next one: the first that has any decides. */
    if (get_from_memtables(view->read_set, key, revision, &entry)) {
        if (entry.kind == BATCH_DELETE) {
            return STORAGE_ABSENT;
        }
        *ret_value = entry.value;
        *ret_revision = entry.key.revision;
        return STORAGE_FOUND;
    }
    const struct version *version = view->read_set->version;
    bool elsewhere = revision < version->horizon || version_may_hold(version, key, revision);
    return elsewhere ? STORAGE_NEEDS_DISK : STORAGE_ABSENT;
}

enum status storage_get(struct storage_view *view, struct slice key, uint64_t revision, struct buf *value,
                        uint64_t *ret_revision, struct error *err) {
    CHECK(revision <= view->revision);
    const struct version *version = view->read_set->version;
    struct entry entry;
    struct buf scratch;
    enum status status = STATUS_OK;
    buf_init(&scratch, view->publisher->alloc, 0);
    if (!get_from_memtables(view->read_set, key, revision, &entry)) {
        if (revision < version->horizon) {
            return error_set(err, STATUS_COMPACTED, "revision %llu is below the horizon %llu",
                             (unsigned long long)revision, (unsigned long long)version->horizon);
        }
        status = version_get(version, key, revision, &scratch, &entry, err);
    }
    if (status == STATUS_OK && entry.kind == BATCH_DELETE) {
        status = STATUS_NOT_FOUND;
    }
    if (status == STATUS_OK) {
        status = buf_append(value, entry.value.data, entry.value.len);
        if (status != STATUS_OK) {
            (void)error_set(err, status, "no room for a value of %zu bytes", entry.value.len);
        } else {
            *ret_revision = entry.key.revision;
        }
    }
    buf_deinit(&scratch);
    return status;
}

bool storage_view_in_memory(struct storage_view *view, struct slice lower, struct slice upper) {
    return !version_overlaps(view->read_set->version, lower, upper);
}
