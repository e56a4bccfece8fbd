/*
 * The newest versions, in memory: a B+-tree in the order of entry.h, over memory that dies with it; beside it a bloom
 * filter of the user keys and the range deletes.
 *
 * One writer (the owner of the store), any number of readers, no locks. What a reader may see is not decided here: it
 * asks at a revision that was published (view.h) after the batch was applied, and newer versions sort in front of the
 * place where it looks. The argument why readers need nothing more is in memtable_internal.h.
 *
 * A batch goes in whole or not at all: all memory is taken first; linking can't fail.
 *
 * Legal order: memtable_new, memtable_apply with growing revisions, reads at any time, memtable_free when nobody can
 * reach it.
 */
#ifndef HOLDFAST_STORAGE_MEMTABLE_H
#define HOLDFAST_STORAGE_MEMTABLE_H

#include "node/base/alloc.h"
#include "storage/change.h"
#include "storage/entry.h"
#include "storage/memtable_heap.h"
#include "storage/tombstones.h"

#include <stdbool.h>

struct digest_effects;
struct memtable;
struct memtable_leaf;

/* Made for about bytes_expected of memtable_bytes; more is legal, but misses get slower. NULL: out of memory. */
struct memtable *memtable_new(struct alloc *alloc, size_t bytes_expected);
void memtable_free(struct memtable *memtable);
/* Nobody reads it any more: it becomes an empty one, with the memory that it has. False: no memory for that; it is to
 * be freed. */
bool memtable_reset(struct memtable *memtable);

/* Writer only. Inserts every operation of the batch at this revision; the position in the batch is the ordinal. The
 * bytes are copied. STATUS_CORRUPT, STATUS_UNSUPPORTED (malformed batch), STATUS_NO_MEMORY: nothing changed. */
MUST_USE enum status memtable_apply(struct memtable *memtable, uint64_t revision, struct slice batch);
/* The same; on STATUS_OK ret_effects is what digest.h makes of the operations, as they stand in the memtable now; else
 * it is of no use. */
MUST_USE enum status memtable_apply_digested(struct memtable *memtable, uint64_t revision, struct slice batch,
                                             struct digest_effects *ret_effects);

/* Writer only: bytes that versions and range deletes occupy, and what it takes to find them. A memtable whose range
 * deletes overlap so much that writing them out would explode says SIZE_MAX: switch it. */
size_t memtable_bytes(const struct memtable *memtable);
/* Writer only: versions (puts and deletes), and range deletes. */
uint64_t memtable_entries(const struct memtable *memtable);
uint64_t memtable_range_deletes(const struct memtable *memtable);

/* ---- Reading: any thread ---------------------------------------------------------------------------------------
 * Everything that is returned is borrowed from the memtable. */

/* The newest version of the key at or below the revision, deletes included; range deletes are not looked at. False if
 * there is none. The hash is filter_hash(key). */
bool memtable_get(const struct memtable *memtable, struct slice key, uint64_t hash, uint64_t revision,
                  struct entry *ret_entry);

/* False: it has no version of the key with this filter_hash, of whatever revision. */
bool memtable_may_hold(const struct memtable *memtable, uint64_t hash);

/* The newest range delete at or below the revision that covers the key; TOMBSTONE_MARK_NONE. One load if there are no
 * range deletes. */
struct tombstone_mark memtable_covering(const struct memtable *memtable, struct slice key, uint64_t revision);

/* All range deletes, as a few sets (each delete in one of them) that live as long as the memtable. */
struct memtable_tombstones {
    const struct tombstones *const *sets;
    size_t count;
};
struct memtable_tombstones memtable_tombstones(const struct memtable *memtable);

/* A place in the memtable. It stays valid whatever is inserted, and every step from it meets all that was applied
 * before the place was taken by a seek, first or last; of what is applied later it may meet some. */
struct memtable_place {
    const struct memtable_leaf *leaf;
    uint64_t order;
    unsigned rank;
};

/* Each says false if there is nothing there: the place is then of no use. */
/* The first version at or behind the target. */
bool memtable_seek(const struct memtable *memtable, const struct entry_key *target, struct memtable_place *ret_place);
/* The last version in front of the target, strictly. */
bool memtable_seek_before(const struct memtable *memtable, const struct entry_key *target,
                          struct memtable_place *ret_place);
bool memtable_first(const struct memtable *memtable, struct memtable_place *ret_place);
bool memtable_last(const struct memtable *memtable, struct memtable_place *ret_place);
bool memtable_next(struct memtable_place *place);
bool memtable_prev(struct memtable_place *place);
struct entry memtable_entry(const struct memtable_place *place);

/* ---- Changes: any thread ----------------------------------------------------------------------------------------
 * All operations of all batches that were applied before memtable_changes_seek, in the order of the log. */

struct memtable_record;

struct memtable_changes {
    const struct memtable *memtable;
    const struct memtable_record *last; /* where it ends; NULL: it has ended */
    struct heap_walk walk;              /* at the next record */
};

/* In front of the first change of this revision, or of a later one. */
void memtable_changes_seek(const struct memtable *memtable, uint64_t revision, struct memtable_changes *ret_changes);
/* False: there are no more. The keys live as long as the memtable. */
bool memtable_changes_next(struct memtable_changes *changes, struct change *ret_change);

#endif
