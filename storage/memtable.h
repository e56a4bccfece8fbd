/*
 * The newest versions, in memory: a skip list (Pugh, 1990) in the order of entry.h, over memory that dies with it.
 *
 * One writer (the owner of the store), any number of readers, no locks. A node is complete before the release store
 * that links it; readers load links with acquire, and nothing is ever unlinked or moved, so whatever a reader reached
 * stays valid as long as the memtable. What a reader may see is not decided here: it asks at a revision that was
 * published (view.h), and newer versions sort in front of the place where it looks.
 *
 * A batch goes in whole or not at all: all its nodes are made first; linking them can't fail.
 *
 * Legal order: memtable_new, memtable_apply with growing revisions, reads at any time, memtable_free when nobody can
 * reach it.
 */
#ifndef HOLDFAST_STORAGE_MEMTABLE_H
#define HOLDFAST_STORAGE_MEMTABLE_H

#include "node/base/alloc.h"
#include "storage/entry.h"

#include <stdbool.h>

struct memtable;
struct memtable_node;

/* Memory comes in chunks of about chunk_bytes; the first is taken now. NULL: out of memory. */
struct memtable *memtable_new(struct alloc *alloc, size_t chunk_bytes);
void memtable_free(struct memtable *memtable);

/* Writer only. Inserts every operation of the batch at this revision; the position in the batch is the ordinal. The
 * bytes are copied. STATUS_CORRUPT, STATUS_UNSUPPORTED (malformed batch), STATUS_NO_MEMORY: nothing changed. */
MUST_USE enum status memtable_apply(struct memtable *memtable, uint64_t revision, struct slice batch);

/* Writer only: bytes that nodes occupy, and their number. */
size_t memtable_bytes(const struct memtable *memtable);
uint64_t memtable_entries(const struct memtable *memtable);

/* Any thread. The newest version of the key at or below the revision, deletes included; borrowed from the memtable.
 * False if there is none. */
bool memtable_get(const struct memtable *memtable, struct slice key, uint64_t revision, struct entry *ret_entry);

/* Any thread: the first node at or behind the target (an empty user key: the very first), and onwards; NULL at the end.
 * Sees whatever is linked by now. */
const struct memtable_node *memtable_seek(const struct memtable *memtable, const struct entry_key *target);
const struct memtable_node *memtable_next(const struct memtable_node *node);
/* Borrowed from the memtable. */
struct entry memtable_entry(const struct memtable_node *node);

#endif
