/*
 * Range deletes of a memtable: a stack of immutable sets, published to readers as an array behind one pointer.
 *
 * Each batch with range deletes adds a set of level 0; four sets of one level become one of the next. So a lookup
 * asks a logarithmic number of sets, and each delete is copied a logarithmic number of times. Where ranges overlap
 * so much that a merged set would have far more marks than deletes, sets stay as they are; too many of those make
 * the memtable full. What readers may still look at (arrays and sets) lives as long as the memtable.
 */
#include "node/base/check.h"
#include "storage/memtable_internal.h"

enum {
    MERGE_SETS = 4,
    MARKS_PER_DELETE_MAX = 4,
    MARKS_ALWAYS = 1024, /* so many are fine however they came about */
    SETS_FULL = 64,      /* at most 2^12 deletes of which each overlaps all others: 2^24 marks when written out */
    LEVEL_STUCK = UINT8_MAX
};

struct memtable_range_deletes {
    struct memtable_range_deletes *older; /* what it superseded */
    struct tombstones *own;               /* the last of the sets; the others are the older ones' */
    uint64_t deletes;                     /* in own */
    uint64_t deletes_all;
    uint8_t level; /* of own */
    size_t count;
    const struct memtable_range_deletes **owners; /* of the sets; behind them */
    const struct tombstones *sets[];
};

static struct memtable_range_deletes *newest(const struct memtable *memtable) {
    return atomic_load_explicit(&memtable->range_deletes, memory_order_relaxed);
}

static size_t state_bytes(size_t count) {
    return sizeof(struct memtable_range_deletes) +
           count * (sizeof(struct tombstones *) + sizeof(struct memtable_range_deletes *));
}

/* Merges the last sets with `next->own` as long as there are enough of its level. STATUS_NO_MEMORY: next->own is as
 * valid as before. */
static enum status merge_up(struct memtable *memtable, const struct memtable_range_deletes *current,
                            struct memtable_range_deletes *next, size_t *in_out_below) {
    while (*in_out_below >= MERGE_SETS - 1) {
        const struct tombstones *inputs[MERGE_SETS];
        uint64_t deletes = next->deletes;
        inputs[MERGE_SETS - 1] = next->own;
        for (size_t i = 1; i < MERGE_SETS; i++) {
            const struct memtable_range_deletes *owner = current->owners[*in_out_below - i];
            if (owner->level != next->level) {
                return STATUS_OK;
            }
            inputs[MERGE_SETS - 1 - i] = owner->own;
            deletes += owner->deletes;
        }
        uint64_t marks;
        enum status status = tombstones_merge_marks(memtable->alloc, inputs, MERGE_SETS, 0, false, &marks);
        if (status != STATUS_OK) {
            return status;
        }
        if (marks > MARKS_ALWAYS && marks > deletes * MARKS_PER_DELETE_MAX) {
            next->level = LEVEL_STUCK;
            return STATUS_OK;
        }
        struct tombstones *merged;
        status = tombstones_merge(memtable->alloc, inputs, MERGE_SETS, 0, false, &merged);
        if (status != STATUS_OK) {
            return status;
        }
        tombstones_free(next->own);
        next->own = merged;
        next->deletes = deletes;
        next->level++;
        *in_out_below -= MERGE_SETS - 1;
    }
    return STATUS_OK;
}

enum status memtable__ranges_prepare(struct memtable *memtable, const struct tombstone *list, size_t count,
                                     struct memtable_range_deletes **ret_next) {
    CHECK(count > 0);
    struct memtable_range_deletes *current = newest(memtable);
    size_t below = current == NULL ? 0 : current->count;
    struct memtable_range_deletes *next = mem_alloc_zero(memtable->alloc, state_bytes(below + 1));
    if (next == NULL) {
        return STATUS_NO_MEMORY;
    }
    next->older = current;
    next->deletes = count;
    next->deletes_all = count + (current == NULL ? 0 : current->deletes_all);
    enum status status = tombstones_build(memtable->alloc, list, count, &next->own);
    if (status == STATUS_OK) {
        status = merge_up(memtable, current, next, &below);
    }
    if (status != STATUS_OK) {
        memtable__ranges_drop(memtable, next);
        return status;
    }
    next->count = below + 1;
    next->owners = (const struct memtable_range_deletes **)&next->sets[next->count];
    for (size_t i = 0; i < below; i++) {
        next->sets[i] = current->sets[i];
        next->owners[i] = current->owners[i];
    }
    next->sets[below] = next->own;
    next->owners[below] = next;
    *ret_next = next;
    return STATUS_OK;
}

void memtable__ranges_publish(struct memtable *memtable, struct memtable_range_deletes *next) {
    CHECK(next->older == newest(memtable));
    memtable->range_delete_bytes += state_bytes(next->count) + tombstones_bytes(next->own);
    memtable->range_delete_count = next->deletes_all;
    memtable->full = memtable->full || next->count >= SETS_FULL;
    atomic_store_explicit(&memtable->range_deletes, next, memory_order_release);
}

void memtable__ranges_drop(struct memtable *memtable, struct memtable_range_deletes *next) {
    if (next != NULL) {
        tombstones_free(next->own);
        mem_free(memtable->alloc, next);
    }
}

void memtable__ranges_deinit(struct memtable *memtable) {
    struct memtable_range_deletes *state = newest(memtable);
    while (state != NULL) {
        struct memtable_range_deletes *older = state->older;
        memtable__ranges_drop(memtable, state);
        state = older;
    }
    atomic_store_explicit(&memtable->range_deletes, NULL, memory_order_relaxed);
}

struct memtable_tombstones memtable_tombstones(const struct memtable *memtable) {
    const struct memtable_range_deletes *state = atomic_load_explicit(&memtable->range_deletes, memory_order_acquire);
    return state == NULL ? (struct memtable_tombstones){NULL, 0}
                         : (struct memtable_tombstones){state->sets, state->count};
}

struct tombstone_mark memtable_covering(const struct memtable *memtable, struct slice key, uint64_t revision) {
    struct memtable_tombstones tombstones = memtable_tombstones(memtable);
    struct tombstone_mark newest_mark = TOMBSTONE_MARK_NONE;
    for (size_t i = 0; i < tombstones.count; i++) {
        struct tombstone_mark mark = tombstones_find(tombstones.sets[i], key, revision, NULL, NULL);
        newest_mark = tombstone_mark_newer(newest_mark, mark);
    }
    return newest_mark;
}
