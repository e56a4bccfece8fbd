/*
 * The tail of the log in memory: one ring of groups, contiguous in index, that ends with the log's last record. Oldest
 * first:
 *
 *   [ written and applied | written | in flight | pending (sealed later) ]
 *     may go                kept: apply and followers read them
 *
 * Look-up is a binary search over groups, then an array of offsets. A cut shortens the newest groups; what was sealed
 * already keeps its bytes, since they are on their way to the disk, but not its say (live_count).
 */
#include "storage/wal_internal.h"

enum { SLOTS_MIN = 64 };

static struct wal__group *slot(const struct wal__cache *cache, uint32_t position) {
    CHECK(position < cache->count);
    return cache->slots[(cache->head + position) & (cache->capacity - 1)];
}

enum status wal__cache_reserve(struct wal *wal, uint32_t more) {
    struct wal__cache *cache = &wal->cache;
    if (cache->count + more <= cache->capacity) {
        return STATUS_OK;
    }
    uint32_t capacity = cache->capacity < SLOTS_MIN ? SLOTS_MIN : cache->capacity;
    while (capacity < cache->count + more) {
        CHECK(capacity <= UINT32_MAX / 2);
        capacity *= 2;
    }
    struct wal__group **slots = mem_alloc(wal->alloc, capacity * sizeof(struct wal__group *));
    if (slots == NULL) {
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < cache->count; i++) {
        slots[i] = slot(cache, i);
    }
    mem_free(wal->alloc, cache->slots);
    cache->slots = slots;
    cache->capacity = capacity;
    cache->head = 0;
    return STATUS_OK;
}

void wal__cache_push(struct wal *wal, struct wal__group *group) {
    struct wal__cache *cache = &wal->cache;
    CHECK(cache->count < cache->capacity && !group->cached);
    if (cache->count > 0) {
        struct wal__group *last = slot(cache, cache->count - 1);
        CHECK(last->first_index + last->live_count == group->first_index);
    }
    cache->slots[(cache->head + cache->count) & (cache->capacity - 1)] = group;
    cache->count++;
    cache->bytes += group->buffer->capacity;
    group->cached = true;
}

void wal__cache_grown(struct wal *wal, size_t before, size_t after) { wal->cache.bytes += after - before; }

struct wal__group *wal__cache_last(struct wal *wal) {
    return wal->cache.count > 0 ? slot(&wal->cache, wal->cache.count - 1) : NULL;
}

struct wal__group *wal__cache_find(struct wal *wal, uint64_t index, uint32_t *ret_slot) {
    const struct wal__cache *cache = &wal->cache;
    uint32_t low = 0;
    uint32_t high = cache->count; /* the first group behind index is in [low, high] */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (slot(cache, middle)->first_index <= index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return NULL;
    }
    struct wal__group *group = slot(cache, low - 1);
    if (index - group->first_index >= group->live_count) {
        return NULL; /* behind the last group */
    }
    *ret_slot = low - 1;
    return group;
}

static void let_go(struct wal *wal, struct wal__group *group) {
    wal->cache.bytes -= group->buffer->capacity;
    group->cached = false;
    if (!group->writing) {
        wal__group_release(&wal->pool, group);
    }
}

/* ---- Cutting ---------------------------------------------------------------------------------------------------- */

/* A group that isn't sealed forgets the records for good and is ready for others. */
static void empty_pending(struct wal *wal, struct wal__group *group) {
    wal->cache.bytes -= group->buffer->capacity;
    group->cached = false;
    group->count = 0;
    group->live_count = 0;
    group->len = WAL_GROUP_HEADER_BYTES;
    list_remove(&group->link);
    wal->pending_count--;
    list_push_back(&wal->spares, &group->link);
}

void wal__cache_cut(struct wal *wal, uint64_t index) {
    struct wal__cache *cache = &wal->cache;
    while (cache->count > 0) {
        struct wal__group *last = slot(cache, cache->count - 1);
        if (last->first_index + last->live_count <= index) {
            return;
        }
        if (last->first_index < index) {
            last->live_count = (uint32_t)(index - last->first_index);
            if (!last->sealed) {
                last->len = last->offsets[last->live_count];
                last->count = last->live_count;
            }
            return;
        }
        CHECK(cache->count > cache->applied_count);
        cache->count--;
        if (last->sealed) {
            last->live_count = 0;
            let_go(wal, last);
        } else {
            empty_pending(wal, last);
        }
    }
}

void wal__cache_drop_empty(struct wal *wal, struct wal__group *group) {
    struct wal__cache *cache = &wal->cache;
    CHECK(group != NULL && wal__cache_last(wal) == group && group->count == 0 && !group->sealed);
    CHECK(cache->count > cache->applied_count);
    cache->count--;
    cache->bytes -= group->buffer->capacity;
    group->cached = false;
    list_remove(&group->link);
    wal->pending_count--;
}

/* ---- Trimming --------------------------------------------------------------------------------------------------- */

void wal__cache_pop(struct wal *wal) {
    struct wal__cache *cache = &wal->cache;
    struct wal__group *oldest = slot(cache, 0);
    if (cache->applied_count > 0) {
        cache->applied_count--;
        cache->applied_bytes -= oldest->buffer->capacity;
    }
    cache->head = (cache->head + 1) & (cache->capacity - 1);
    cache->count--;
    let_go(wal, oldest);
}

void wal__cache_trim(struct wal *wal) {
    struct wal__cache *cache = &wal->cache;
    while (cache->applied_count < cache->count) {
        struct wal__group *group = slot(cache, cache->applied_count);
        if (!group->sealed || group->writing || group->first_index + group->live_count - 1 > wal->applied_index) {
            break;
        }
        cache->applied_count++;
        cache->applied_bytes += group->buffer->capacity;
    }
    while (cache->applied_bytes > wal->options.cache_bytes_max) {
        wal__cache_pop(wal);
    }
}

void wal__cache_deinit(struct wal *wal) {
    while (wal->cache.count > 0) {
        wal__cache_pop(wal);
    }
    mem_free(wal->alloc, wal->cache.slots);
    wal->cache.slots = NULL;
}

/* ---- Looking up ------------------------------------------------------------------------------------------------- */

static struct wal_record record_at(const struct wal__group *group, uint64_t index) {
    return wal__record_at(group->buffer->data + group->offsets[index - group->first_index]);
}

uint64_t wal__cache_term(struct wal *wal, uint64_t index) {
    uint32_t position;
    struct wal__group *group = wal__cache_find(wal, index, &position);
    return group == NULL ? 0 : record_at(group, index).term;
}

enum status wal_cached_record(struct wal *wal, uint64_t index, struct wal_record *ret_record) {
    uint32_t position;
    struct wal__group *group = wal__cache_find(wal, index, &position);
    if (group == NULL) {
        return STATUS_NOT_FOUND;
    }
    *ret_record = record_at(group, index);
    CHECK(ret_record->index == index);
    return STATUS_OK;
}

/* Where record i ends; i == count - 1 for the last. */
static size_t record_end(const struct wal__group *group, uint32_t i) {
    return i + 1 < group->count ? group->offsets[i + 1] : group->len;
}

/* How many records from `from` on, at most count_max, fit bytes_max. */
static uint32_t fit(const struct wal__group *group, uint32_t from, uint32_t count_max, size_t bytes_max) {
    uint32_t available = group->live_count - from;
    uint32_t high = available < count_max ? available : count_max;
    uint32_t low = 0;
    while (low < high) { /* low fit, high + 1 don't */
        uint32_t middle = low + (high - low + 1) / 2;
        if (record_end(group, from + middle - 1) - group->offsets[from] <= bytes_max) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

uint32_t wal_cached(struct wal *wal, uint64_t first_index, uint32_t count_max, size_t bytes_max, struct slice *parts,
                    size_t part_count_max, size_t *ret_part_count) {
    uint32_t total = 0;
    size_t part_count = 0;
    uint32_t position = 0;
    struct wal__group *group = wal__cache_find(wal, first_index, &position);
    while (group != NULL && total < count_max && part_count < part_count_max) {
        uint32_t from = (uint32_t)(first_index + total - group->first_index);
        uint32_t count = fit(group, from, count_max - total, bytes_max);
        if (count == 0 && total == 0) {
            count = 1; /* the first goes whatever its size */
        }
        if (count == 0) {
            break;
        }
        size_t len = record_end(group, from + count - 1) - group->offsets[from];
        parts[part_count++] = slice_of(group->buffer->data + group->offsets[from], len);
        bytes_max -= len < bytes_max ? len : bytes_max;
        total += count;
        bool whole = from + count == group->live_count;
        position++;
        group = whole && position < wal->cache.count ? slot(&wal->cache, position) : NULL;
    }
    *ret_part_count = part_count;
    return total;
}
