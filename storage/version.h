/*
 * A version: the set of tables that a manifest state names, in the order in which reads look at them. Immutable once
 * made.
 *
 *   level 0   newest table first; ranges overlap; revisions of one key only grow from table to table
 *   level 1   disjoint ranges, growing; everything in it is older than what level 0 says of the same key
 *
 * Counted by the owner of the store alone: read sets (view.h) hold versions, versions hold tables. Readers reach both
 * through a view and count nothing.
 */
#ifndef HOLDFAST_STORAGE_VERSION_H
#define HOLDFAST_STORAGE_VERSION_H

#include "storage/manifest_edit.h"
#include "storage/sst.h"

struct version {
    struct alloc *alloc;
    uint64_t refs;
    uint64_t horizon; /* highest that a merge used: older revisions have holes */
    struct sst **tables[MANIFEST_LEVELS];
    size_t counts[MANIFEST_LEVELS];
};

struct version_change {
    struct sst *const *added[MANIFEST_LEVELS];
    size_t added_count[MANIFEST_LEVELS];
    bool remove_merging; /* tables marked `merging` are left out */
    uint64_t horizon;    /* 0: as before */
};

/* base NULL: an empty one. Tables are referenced. The new version has one reference. Added tables of level 1 are put at
 * their place; of level 0 they must come newest first. NULL: out of memory. */
struct version *version_new(struct alloc *alloc, const struct version *base, const struct version_change *change);
/* Drops a reference; tables that no version holds any more are chained to *dead by next_dead. NULL is accepted. */
void version_unref(struct version *version, struct sst **dead);

/* True if the order within the levels holds (checked after opening: the manifest comes from a disk). */
bool version_is_sound(const struct version *version);

/* The only level 1 table that may hold the key; NULL if there is none. */
struct sst *version_find(const struct version *version, struct slice key);
/* First and number of level 1 tables that meet [lower, upper]; both ends included. */
void version_overlap(const struct version *version, struct slice lower, struct slice upper, size_t *ret_first,
                     size_t *ret_count);
/* The same for [lower, upper); upper.len 0: no end. */
void version_range(const struct version *version, struct slice lower, struct slice upper, size_t *ret_first,
                   size_t *ret_count);
/* True if a table may hold a version of the key at or below the revision. */
bool version_may_hold(const struct version *version, struct slice key, uint64_t revision);
/* True if a table's range meets [lower, upper); upper.len 0: no end. */
bool version_overlaps(const struct version *version, struct slice lower, struct slice upper);

/* The newest version of the key at or below the revision, deletes included. As sst_get. */
MUST_USE enum status version_get(const struct version *version, struct slice key, uint64_t revision,
                                 struct buf *scratch, struct entry *ret_entry, struct error *err);

#endif
