/*
 * The range deletes of one source (a memtable's, a table's, a compaction's) as fragments: disjoint growing key ranges,
 * each with the marks (revision, ordinal) of the deletes that cover it, newest first.
 *
 *   deletes    [a-------m) @9   [f---------z) @5
 *   fragments  [a-f) 9   [f-m) 9,5   [m-z) 5
 *
 * Of several marks of one revision only the one with the highest ordinal is kept: nobody can read between the
 * operations of an entry. Neighbours that touch and have the same marks are one fragment.
 *
 * A set is immutable and owns its memory, keys included: one block. Readers on any thread.
 *
 * Legal order: tombstones_build or tombstones_merge, reads, tombstones_free. The empty set is legal.
 */
#ifndef HOLDFAST_STORAGE_TOMBSTONES_H
#define HOLDFAST_STORAGE_TOMBSTONES_H

#include "node/base/alloc.h"
#include "node/base/slice.h"
#include "node/base/status.h"
#include "storage/entry.h"

#include <stdbool.h>

/* Deletes every version of the keys in [start, end) that is older than (revision, ordinal). start < end. */
struct tombstone {
    struct slice start;
    struct slice end;
    uint64_t revision; /* not 0 */
    uint32_t ordinal;
};

/* When a range was deleted. revision 0: never. */
struct tombstone_mark {
    uint64_t revision;
    uint32_t ordinal;
};

#define TOMBSTONE_MARK_NONE ((struct tombstone_mark){0, 0})

/* True if a delete with this mark removes the version (revision, ordinal) of a key in its range. */
static inline bool tombstone_mark_covers(struct tombstone_mark mark, uint64_t revision, uint32_t ordinal) {
    return mark.revision != 0 && entry_compare_age(mark.revision, mark.ordinal, revision, ordinal) < 0;
}

/* The newer of two. */
static inline struct tombstone_mark tombstone_mark_newer(struct tombstone_mark a, struct tombstone_mark b) {
    return entry_compare_age(a.revision, a.ordinal, b.revision, b.ordinal) <= 0 ? a : b;
}

struct tombstones;

/* Borrowed from the set. */
struct tombstone_fragment {
    struct slice start;
    struct slice end;
    const struct tombstone_mark *marks; /* newest first */
    size_t mark_count;                  /* at least 1 */
};

/* From any list, in any order, overlapping as it likes; the keys are copied. O(n log n) and the size of the result.
 * The set is the caller's. STATUS_NO_MEMORY. */
MUST_USE enum status tombstones_build(struct alloc *alloc, const struct tombstone *list, size_t count,
                                      struct tombstones **ret_set);

/* The union of several sets, without the marks that no read at or above the horizon can need: it keeps those above the
 * horizon and of each place the newest at or below it; with drop_settled (the bottom of the tree, where there is
 * nothing left to cover) that one goes, too. Horizon 0 keeps all. A NULL set is an empty one. Linear in sets and
 * result. STATUS_NO_MEMORY. */
MUST_USE enum status tombstones_merge(struct alloc *alloc, const struct tombstones *const *sets, size_t count,
                                      uint64_t horizon, bool drop_settled, struct tombstones **ret_set);

/* What tombstones_merge would keep: marks of all fragments together. Overlapping ranges can make far more marks than
 * there are deletes; who merges what others sent looks here first. STATUS_NO_MEMORY. */
MUST_USE enum status tombstones_merge_marks(struct alloc *alloc, const struct tombstones *const *sets, size_t count,
                                            uint64_t horizon, bool drop_settled, uint64_t *ret_marks);

/* NULL is accepted. */
void tombstones_free(struct tombstones *set);

/* NULL is accepted by all below and stands for an empty set. */

/* Fragments. */
size_t tombstones_count(const struct tombstones *set);
/* Marks of all fragments. */
size_t tombstones_marks(const struct tombstones *set);
/* Memory that it occupies. */
size_t tombstones_bytes(const struct tombstones *set);
/* The highest revision of any mark; 0 if there is none. */
uint64_t tombstones_newest(const struct tombstones *set);

/* The newest mark at or below the revision that covers the key. Where a fragment holds the key, ret_start and ret_end
 * (may be NULL) get its range, whatever its marks; else both are SLICE_EMPTY. Borrowed from the set. */
struct tombstone_mark tombstones_find(const struct tombstones *set, struct slice key, uint64_t revision,
                                      struct slice *ret_start, struct slice *ret_end);

/* The newest mark of a fragment at or below the revision. */
struct tombstone_mark tombstone_fragment_mark(const struct tombstone_fragment *fragment, uint64_t revision);

/* The fragment at this place, 0 being the first; at < tombstones_count. */
struct tombstone_fragment tombstones_fragment(const struct tombstones *set, size_t at);
/* The place of the first fragment that ends behind the key; tombstones_count if none does. */
size_t tombstones_first_reaching(const struct tombstones *set, struct slice key);

#endif
