/*
 * Range deletes for an iterator: of the newest one that covers a key, and how far left and right of the key that stays
 * so. A walk asks once for each such stretch of keys, then compares with its end.
 *
 * Sources are asked from the newest on; the first that covers the key has the newest mark, and older ones needn't be
 * asked. Each narrows the stretch to where its own answer stays the same.
 */
#include "node/base/check.h"
#include "storage/iterator_internal.h"
#include "storage/version.h"

static void narrow_start(struct iterator_cover *cover, struct slice start) {
    if (cover->start.len == 0 || slice_compare(start, cover->start) > 0) {
        cover->start = start;
    }
}

static void narrow_end(struct iterator_cover *cover, struct slice end) {
    if (cover->end.len == 0 || slice_compare(end, cover->end) < 0) {
        cover->end = end;
    }
}

static void narrow_by_set(struct iterator_walk *walk, struct iterator_cover *cover, const struct tombstones *set,
                          struct slice key) {
    size_t count = tombstones_count(set);
    size_t at = tombstones_first_reaching(set, key);
    if (at > 0) {
        narrow_start(cover, tombstones_fragment(set, at - 1).end);
    }
    if (at == count) {
        return;
    }
    struct tombstone_fragment fragment = tombstones_fragment(set, at);
    if (slice_compare(fragment.start, key) > 0) {
        narrow_end(cover, fragment.start);
        return;
    }
    narrow_start(cover, fragment.start);
    narrow_end(cover, fragment.end);
    struct tombstone_mark mark = tombstone_fragment_mark(&fragment, walk->revision);
    if (mark.revision != 0 &&
        entry_compare_age(mark.revision, mark.ordinal, cover->mark.revision, cover->mark.ordinal) < 0) {
        cover->mark = mark;
        cover->set = set;
        cover->fragment = at;
    }
}

static enum status narrow_by_run(struct iterator_walk *walk, struct iterator_cover *cover,
                                 const struct iterator_source *source, struct slice key, struct error *err) {
    size_t low = 0;
    size_t high = source->table_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (version_ends_before(source->tables[middle], key)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low > 0) {
        narrow_start(cover, source->tables[low - 1]->meta.largest); /* no range delete of a table reaches behind it */
    }
    if (low < source->table_count && slice_compare(source->tables[low]->meta.smallest, key) > 0) {
        narrow_end(cover, source->tables[low]->meta.smallest);
        return STATUS_OK;
    }
    if (low + 1 < source->table_count) {
        narrow_end(cover, source->tables[low + 1]->meta.smallest);
    }
    if (low == source->table_count || source->tables[low]->meta.tombstones == 0) {
        return STATUS_OK;
    }
    const struct tombstones *set = NULL;
    enum status status = sst_tombstones(source->tables[low], walk->fetch, &set, err);
    if (status == STATUS_OK) {
        narrow_by_set(walk, cover, set, key);
    }
    return status;
}

enum status iterator_ranges__find(struct iterator_walk *walk, struct slice key, struct error *err) {
    struct iterator_cover cover = {.mark = TOMBSTONE_MARK_NONE};
    for (size_t rank = 0; rank < walk->source_count && cover.mark.revision == 0; rank++) {
        const struct iterator_source *source = &walk->sources[rank];
        for (size_t i = 0; i < source->set_count; i++) {
            narrow_by_set(walk, &cover, source->sets[i], key);
        }
        if (source->table_count > 0) {
            enum status status = narrow_by_run(walk, &cover, source, key, err);
            if (status != STATUS_OK) {
                return status;
            }
        }
        cover.rank = (uint32_t)rank;
    }
    cover.known = true;
    walk->cover = cover;
    return STATUS_OK;
}

/* A fragment that touches continues the range if any mark of it shows: whatever an older source has there is older. */
struct slice iterator_ranges__reach(const struct iterator_walk *walk) {
    const struct iterator_cover *cover = &walk->cover;
    CHECK(cover->known && cover->mark.revision != 0);
    struct tombstone_fragment last = tombstones_fragment(cover->set, cover->fragment);
    size_t count = tombstones_count(cover->set);
    size_t at = cover->fragment;
    bool forward = walk->merging.forward;
    while (forward ? ++at < count : at-- > 0) {
        struct tombstone_fragment fragment = tombstones_fragment(cover->set, at);
        bool touches = forward ? slice_equal(last.end, fragment.start) : slice_equal(fragment.end, last.start);
        if (!touches || tombstone_fragment_mark(&fragment, walk->revision).revision == 0) {
            break;
        }
        last = fragment;
    }
    return forward ? last.end : last.start;
}
