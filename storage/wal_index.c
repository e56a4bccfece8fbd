/*
 * Where on disk a log index is: a vector of (first index, segment, offset), ordered by index, one entry per
 * WAL_INDEX_STRIDE of segment or so. It holds the effective log: a cut drops what is superseded, so a look-up never
 * lands on a void record.
 *
 * Between an entry's offset and the next entry, records with indexes below the next entry's stand in unbroken order.
 */
#include "storage/wal_internal.h"

enum { CAPACITY_MIN = 64 };

enum status wal__index_reserve(struct wal__index *index, struct alloc *alloc, size_t more) {
    if (index->start + index->count + more <= index->capacity) {
        return STATUS_OK;
    }
    if (index->start > 0) {
        memmove(index->entries, index->entries + index->start, index->count * sizeof *index->entries);
        index->start = 0;
    }
    size_t capacity = index->capacity < CAPACITY_MIN ? CAPACITY_MIN : index->capacity;
    while (capacity < (index->count + more) * 2) { /* room to move rarely */
        capacity *= 2;
    }
    if (capacity == index->capacity) {
        return STATUS_OK;
    }
    struct wal__index_entry *entries = mem_resize(alloc, index->entries, capacity * sizeof *entries);
    if (entries == NULL) {
        return index->count + more <= index->capacity ? STATUS_OK : STATUS_NO_MEMORY;
    }
    index->entries = entries;
    index->capacity = capacity;
    return STATUS_OK;
}

void wal__index_cut(struct wal__index *index, uint64_t first_index) {
    index->was_cut = true;
    while (index->count > 0 && wal__index_at(index, index->count - 1)->first_index >= first_index) {
        index->count--;
    }
}

void wal__index_add(struct wal__index *index, uint64_t first_index, struct wal__segment *segment, uint64_t offset) {
    bool after_cut = index->was_cut;
    index->was_cut = false;
    if (index->count > 0) {
        const struct wal__index_entry *last = wal__index_at(index, index->count - 1);
        CHECK(last->first_index < first_index);
        if (!after_cut && last->segment == segment && offset - last->offset < WAL_INDEX_STRIDE) {
            return;
        }
    }
    CHECK(index->start + index->count < index->capacity);
    index->entries[index->start + index->count] = (struct wal__index_entry){.first_index = first_index,
                                                                            .segment = segment,
                                                                            .offset = offset,
                                                                            .after_cut = after_cut};
    index->count++;
}

void wal__index_drop_segment(struct wal__index *index, const struct wal__segment *segment) {
    while (index->count > 0 && index->entries[index->start].segment == segment) {
        index->start++;
        index->count--;
    }
    if (index->count == 0) {
        index->start = 0;
    }
}

size_t wal__index_find(const struct wal__index *index, uint64_t log_index) {
    size_t low = 0;
    size_t high = index->count; /* the first entry behind log_index is in [low, high] */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (wal__index_at(index, middle)->first_index <= log_index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 ? low - 1 : index->count;
}
