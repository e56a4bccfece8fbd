/* Finding and walking: any thread. Why this needs no locks is argued in memtable_internal.h. */
#include "node/base/check.h"
#include "storage/memtable_internal.h"

/* The leaf whose range has the target, its order, and how many of its records sort in front of the target. */
static struct memtable_place find(const struct memtable *memtable, const struct entry_key *target) {
    uintptr_t root = atomic_load_explicit(&memtable->root, memory_order_acquire);
    const void *node = root_node(root);
    for (unsigned height = root_height(root); height > 0; height--) {
        const struct memtable_branch *branch = node;
        uint64_t window = key_window(target->user, branch->shared);
        uint64_t order = atomic_load_explicit(&branch->order, memory_order_acquire);
        for (;;) {
            unsigned rank = node_rank(order, branch->windows, branch->separators, window, target, true);
            node = atomic_load_explicit(branch_child(branch, order, rank), memory_order_acquire);
            uint64_t again = atomic_load_explicit(&branch->order, memory_order_acquire);
            if (again == order) {
                break;
            }
            order = again;
        }
        prefetch_lines(node, sizeof(struct memtable_leaf));
    }
    const struct memtable_leaf *leaf = node;
    uint64_t order = atomic_load_explicit(&leaf->order, memory_order_acquire);
    uint64_t window = key_window(target->user, leaf->shared);
    return (struct memtable_place){leaf, order, node_rank(order, leaf->windows, leaf->records, window, target, false)};
}

static const struct memtable_record *place_record(const struct memtable_place *place) {
    return place->leaf->records[order_slot(place->order, place->rank)];
}

/* Memory is far away, and a walk knows where it will go: the records of the leaf behind the one that was just entered,
 * and the leaf behind that, are asked for now. */
static void look_ahead(const _Atomic(struct memtable_leaf *) *next_link, ptrdiff_t link_offset) {
    const struct memtable_leaf *next = atomic_load_explicit(next_link, memory_order_acquire);
    if (next == NULL) {
        return;
    }
    const uint8_t *link = (const uint8_t *)next + link_offset;
    const struct memtable_leaf *after =
        atomic_load_explicit((const _Atomic(struct memtable_leaf *) *)(const void *)link, memory_order_acquire);
    if (after != NULL) {
        prefetch_lines(after, sizeof *after);
    }
    unsigned count = order_count(atomic_load_explicit(&next->order, memory_order_acquire));
    for (unsigned slot = 0; slot < count; slot++) {
        prefetch_lines(next->records[slot], RECORD_HEAD_BYTES);
    }
}

/* To the first record of the leaf; only the leaf of an empty memtable has none. */
static bool enter_front(const struct memtable_leaf *leaf, struct memtable_place *ret_place) {
    if (leaf == NULL) {
        return false;
    }
    uint64_t order = atomic_load_explicit(&leaf->order, memory_order_acquire);
    *ret_place = (struct memtable_place){leaf, order, 0};
    look_ahead(&leaf->next, offsetof(struct memtable_leaf, next));
    return order_count(order) > 0;
}

static bool enter_back(const struct memtable_leaf *leaf, struct memtable_place *ret_place) {
    if (leaf == NULL) {
        return false;
    }
    uint64_t order = atomic_load_explicit(&leaf->order, memory_order_acquire);
    *ret_place = (struct memtable_place){leaf, order, order_count(order) - 1};
    look_ahead(&leaf->prev, offsetof(struct memtable_leaf, prev));
    return order_count(order) > 0;
}

bool memtable_seek(const struct memtable *memtable, const struct entry_key *target, struct memtable_place *ret_place) {
    *ret_place = find(memtable, target);
    return ret_place->rank < order_count(ret_place->order) ||
           enter_front(atomic_load_explicit(&ret_place->leaf->next, memory_order_acquire), ret_place);
}

bool memtable_seek_before(const struct memtable *memtable, const struct entry_key *target,
                          struct memtable_place *ret_place) {
    *ret_place = find(memtable, target);
    return memtable_prev(ret_place);
}

/* The outermost leaf on one side. */
static const struct memtable_leaf *edge(const struct memtable *memtable, bool last) {
    uintptr_t root = atomic_load_explicit(&memtable->root, memory_order_acquire);
    const void *node = root_node(root);
    for (unsigned height = root_height(root); height > 0; height--) {
        const struct memtable_branch *branch = node;
        uint64_t order = atomic_load_explicit(&branch->order, memory_order_acquire);
        for (;;) {
            node =
                atomic_load_explicit(branch_child(branch, order, last ? order_count(order) : 0), memory_order_acquire);
            uint64_t again = atomic_load_explicit(&branch->order, memory_order_acquire);
            if (again == order) {
                break;
            }
            order = again;
        }
    }
    return node;
}

bool memtable_first(const struct memtable *memtable, struct memtable_place *ret_place) {
    return enter_front(edge(memtable, false), ret_place);
}

bool memtable_last(const struct memtable *memtable, struct memtable_place *ret_place) {
    return enter_back(edge(memtable, true), ret_place);
}

bool memtable_next(struct memtable_place *place) {
    if (place->rank + 1 < order_count(place->order)) {
        place->rank++;
        return true;
    }
    return enter_front(atomic_load_explicit(&place->leaf->next, memory_order_acquire), place);
}

bool memtable_prev(struct memtable_place *place) {
    if (place->rank > 0) {
        place->rank--;
        return true;
    }
    return enter_back(atomic_load_explicit(&place->leaf->prev, memory_order_acquire), place);
}

struct entry memtable_entry(const struct memtable_place *place) {
    const struct memtable_record *record = place_record(place);
    return (struct entry){.key = record_entry_key(record),
                          .value = slice_of(record->bytes + record->key_len, record->value_len),
                          .kind = (enum batch_kind)record->kind};
}

/* ---- Lookup ------------------------------------------------------------------------------------------------------ */

static bool filter_holds(const struct memtable *memtable, uint64_t hash) {
    const _Atomic uint64_t *line = &memtable->filter[(size_t)filter_line(hash, memtable->filter_lines) * 8];
    uint32_t bits = filter_bits_begin(hash);
    for (unsigned i = 0; i < MEMTABLE_FILTER_PROBES; i++, bits = filter_bits_next(bits)) {
        uint32_t bit = filter_bit(bits);
        if ((atomic_load_explicit(&line[bit / 64], memory_order_relaxed) >> bit % 64 & 1) == 0) {
            return false;
        }
    }
    return true;
}

/* As after opening, in a store that is only read: the filter's lines are far away, the root isn't. */
static bool is_empty(const struct memtable *memtable) {
    uintptr_t root = atomic_load_explicit(&memtable->root, memory_order_acquire);
    const struct memtable_leaf *leaf = root_node(root);
    return root_height(root) == 0 && order_count(atomic_load_explicit(&leaf->order, memory_order_acquire)) == 0;
}

bool memtable_may_hold(const struct memtable *memtable, uint64_t hash) {
    return !is_empty(memtable) && filter_holds(memtable, hash);
}

bool memtable_get(const struct memtable *memtable, struct slice key, uint64_t hash, uint64_t revision,
                  struct entry *ret_entry) {
    if (!memtable_may_hold(memtable, hash)) {
        return false;
    }
    struct entry_key target = entry_key_at(key, revision);
    struct memtable_place place;
    if (!memtable_seek(memtable, &target, &place)) {
        return false;
    }
    struct entry entry = memtable_entry(&place);
    if (!slice_equal(entry.key.user, key)) {
        return false;
    }
    CHECK(entry.key.revision <= revision);
    *ret_entry = entry;
    return true;
}
