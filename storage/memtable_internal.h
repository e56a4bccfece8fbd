/*
 * Inside the memtable: what its files share.
 *
 *   memtable_heap     memory in chunks
 *   memtable_tree     inserting (writer)
 *   memtable_read     finding and walking (any thread)
 *   memtable_ranges   range deletes
 *   memtable_changes  all of it in the order of the log
 *   memtable          the public rest: batches in, lookups
 *
 * The tree. Records (a version each) never move. Leaves hold pointers to them, branches separators (the first record
 * that the child to the right of it got when it was made) and children. Leaves are linked both ways.
 *
 *               [ branch: < d | d ]
 *              /                   \
 *      [ leaf: a b ]  <------->  [ leaf: d e f ]
 *
 * In front of each pointer a node has the *window* of its key: the eight bytes behind those that all keys of the node's
 * range share (both ends of the range share them, so all between do). So one comparison of integers decides nearly
 * always, without a look at the record. Prefix truncation as in Bayer and Unterauer's prefix B-trees (1977).
 *
 * Concurrency. A node's slots are filled once, in the order of arrival; `order`, one atomic word, says how many there
 * are and which comes first, second, ... (the permutation of Mao, Kohler, Morris: Masstree, 2012). An insert fills a
 * free slot and stores the new order with release; a reader that loads it with acquire has a whole, sorted, immutable
 * state.
 *
 * A full node is never changed: it is *replaced* by two new ones, and stays as it is for readers who are in it. Its
 * range is the ranges of the two together; ranges never change otherwise. Call a node fit for a reader if it was
 * replaced after the revision at which he reads was published, or not yet. A fit leaf holds all that he may see of its
 * range: later inserts into the range are newer. What he reaches is fit:
 * - The root that he loads: the loads of a reader happen after the publication that he acquired, so they yield what was
 *   stored last before it, or something newer.
 * - Children of a fit branch and neighbours of a fit leaf: if the node lives when he loads the pointer, as for the
 *   root; if it was replaced, its pointers are those of that moment, and that was after the publication.
 * Neighbours adjoin in range always, as a neighbour is replaced by one that has the same end. The child that he takes
 * has his key in its range: when a child is replaced by two, the separator between them becomes visible before the left
 * one takes the old child's place; so a reader who loads order, then the child, then finds order unchanged, has a child
 * that goes with that order; else he looks again (at most as often as the writer inserts there).
 *
 * The bloom filter's bits and the range deletes are stored before the revision is published; that makes them visible.
 */
#ifndef HOLDFAST_STORAGE_MEMTABLE_INTERNAL_H
#define HOLDFAST_STORAGE_MEMTABLE_INTERNAL_H

#include "storage/filter.h"
#include "storage/memtable.h"
#include "storage/memtable_heap.h"

#include <assert.h>
#include <endian.h>
#include <stdatomic.h>

enum {
    NODE_SLOTS = 14,        /* so that a leaf is four cache lines, and an order fits 64 bits */
    RECORD_HEAD_BYTES = 40, /* what an order of keys is decided by, mostly */
    TREE_HEIGHT_MAX = 16,   /* a branch that isn't the last of its level has at least 8 children: 8^16 leaves */
    NODE_ALIGN = 64,
    MEMTABLE_FILTER_PROBES = 6
};

/* One version: key, then value, in `bytes`. Or a range delete: start, then end; those are in no tree, but among the
 * records, whose order of arrival is that of the log (memtable_changes.c). */
struct memtable_record {
    union {
        uint64_t revision;
        struct memtable_record *pending; /* the next of the batch, before they are in the tree */
    };
    uint32_t ordinal;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t kind;
    uint8_t bytes[];
};

/* Of its memory. */
static inline size_t record_size(size_t key_len, size_t value_len) {
    size_t size = offsetof(struct memtable_record, bytes) + key_len + value_len;
    return size < sizeof(struct memtable_record) ? sizeof(struct memtable_record) : size;
}

/* The range of a node: from low to in front of high; NULL: no bound. */
struct memtable_range {
    const struct memtable_record *low;
    const struct memtable_record *high;
};

struct memtable_leaf {
    _Alignas(NODE_ALIGN) _Atomic uint64_t order;
    uint32_t shared; /* bytes that all keys of the range share */
    _Atomic(struct memtable_leaf *) next;
    _Atomic(struct memtable_leaf *) prev;
    uint64_t windows[NODE_SLOTS];
    const struct memtable_record *records[NODE_SLOTS];
};

static_assert(TREE_HEIGHT_MAX < NODE_ALIGN, "a height fits the low bits of a node's address");
static_assert(sizeof(struct memtable_leaf) == (size_t)4 * NODE_ALIGN, "a leaf is four cache lines");

struct memtable_branch {
    _Alignas(NODE_ALIGN) _Atomic uint64_t order;
    uint32_t shared;
    uint64_t windows[NODE_SLOTS];
    _Atomic(void *) first;                /* child in front of all separators */
    _Atomic(void *) children[NODE_SLOTS]; /* behind the separator of this slot */
    const struct memtable_record *separators[NODE_SLOTS];
};

struct memtable_range_deletes;

/* Where the last insert went: while each comes right behind the one before it, no search is needed. */
struct memtable_hint {
    struct memtable_leaf *leaf;         /* NULL: none */
    unsigned rank;                      /* of the record that was inserted last */
    bool ascending;                     /* it came right behind the one before it */
    const struct memtable_record *high; /* if it did: the end of the leaf's range, NULL: none */
};

struct memtable {
    /* What readers load: it hardly ever changes, so it has a cache line of its own. */
    _Alignas(
        NODE_ALIGN) _Atomic uintptr_t root; /* the node, and in the low bits how many branches are above each leaf */
    _Atomic(struct memtable_range_deletes *) range_deletes; /* NULL: none */
    _Atomic uint64_t *filter;                               /* lines of 64 bytes, as in filter.h */
    uint32_t filter_lines;
    _Atomic(const struct memtable_record *) last; /* of the records of all batches so far; NULL: none */
    /* The writer's. */
    _Alignas(NODE_ALIGN) struct alloc *alloc;
    uint64_t revision; /* of the last batch */
    uint64_t entries;
    uint64_t branches;
    struct memtable_hint hint;
    struct heap records;
    struct heap nodes;
    uint64_t range_delete_count;
    size_t range_delete_bytes;
    bool full; /* its range deletes overlap too much */
};

/* ---- Orders: the count in the lowest four bits, then the slots by rank, four bits each --------------------------- */

static inline unsigned order_count(uint64_t order) { return (unsigned)(order & 15); }

static inline unsigned order_slot(uint64_t order, unsigned rank) { return (unsigned)(order >> (4 + 4 * rank) & 15); }

/* With the next free slot at this rank. */
static inline uint64_t order_insert(uint64_t order, unsigned rank) {
    unsigned shift = 4 + 4 * rank;
    uint64_t front = order & (((uint64_t)1 << shift) - 1);
    uint64_t slot = order_count(order);
    return (front | slot << shift | order >> shift << 4 << shift) + 1;
}

/* Slots 0, 1, ... in this order. */
static inline uint64_t order_identity(unsigned count) {
    return (UINT64_C(0x00dcba9876543210) & (((uint64_t)1 << 4 * count) - 1)) << 4 | count;
}

/* ---- Keys ------------------------------------------------------------------------------------------------------ */

static inline struct slice record_key(const struct memtable_record *record) {
    return slice_of(record->bytes, record->key_len);
}

static inline struct entry_key record_entry_key(const struct memtable_record *record) {
    return (struct entry_key){.user = record_key(record), .revision = record->revision, .ordinal = record->ordinal};
}

static inline uint64_t key_window(struct slice key, size_t from) {
    uint64_t window = 0;
    if (key.len >= from + sizeof window) {
        memcpy(&window, key.data + from, sizeof window);
    } else if (key.len > from) {
        memcpy(&window, key.data + from, key.len - from);
    }
    return be64toh(window);
}

/* How many of a node's keys sort in front of the target, or (or_equal) at it; the target is in the node's range, its
 * window is given. */
static inline unsigned node_rank(uint64_t order, const uint64_t *windows, const struct memtable_record *const *records,
                                 uint64_t window, const struct entry_key *target, bool or_equal) {
    unsigned from = 0;
    unsigned to = order_count(order);
    while (from < to) {
        unsigned middle = (from + to) / 2;
        unsigned slot = order_slot(order, middle);
        bool in_front = windows[slot] < window;
        if (__builtin_expect(windows[slot] == window, 0)) {
            struct entry_key key = record_entry_key(records[slot]);
            in_front = entry_key_compare(&key, target) < (int)or_equal;
        }
        from = in_front ? middle + 1 : from;
        to = in_front ? to : middle;
    }
    return from;
}

/* ---- Nodes ----------------------------------------------------------------------------------------------------- */

enum { ROOT_HEIGHT_MASK = NODE_ALIGN - 1 };

static inline void *root_node(uintptr_t root) {
    uintptr_t address = root & ~(uintptr_t)ROOT_HEIGHT_MASK;
    return (void *)address; /* NOLINT(performance-no-int-to-ptr): height and address in one word */
}

static inline unsigned root_height(uintptr_t root) { return (unsigned)(root & ROOT_HEIGHT_MASK); }

static inline const _Atomic(void *) *branch_child(const struct memtable_branch *branch, uint64_t order, unsigned rank) {
    return rank == 0 ? &branch->first : &branch->children[order_slot(order, rank - 1)];
}

/* The lines of these bytes. */
static inline void prefetch_lines(const void *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += NODE_ALIGN) {
        __builtin_prefetch((const uint8_t *)at + i);
    }
    __builtin_prefetch((const uint8_t *)at + bytes - 1);
}

/* ---- memtable_tree --------------------------------------------------------------------------------------------- */

/* The empty tree. False: out of memory. */
bool memtable__tree_init(struct memtable *memtable);
/* Makes sure that so many inserts can't fail. False: out of memory, nothing changed. */
bool memtable__tree_reserve(struct memtable *memtable, uint32_t inserts);
/* The record becomes visible to readers; it must be whole but for `pending`. */
void memtable__tree_insert(struct memtable *memtable, const struct memtable_record *record);

/* ---- memtable_ranges ------------------------------------------------------------------------------------------- */

/* The state behind memtable->range_deletes after so many more deletes; not visible yet. STATUS_NO_MEMORY. */
MUST_USE enum status memtable__ranges_prepare(struct memtable *memtable, const struct tombstone *list, size_t count,
                                              struct memtable_range_deletes **ret_next);
/* Makes it visible. */
void memtable__ranges_publish(struct memtable *memtable, struct memtable_range_deletes *next);
/* What was prepared and won't be published. */
void memtable__ranges_drop(struct memtable *memtable, struct memtable_range_deletes *next);
void memtable__ranges_deinit(struct memtable *memtable);

#endif
