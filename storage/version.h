/*
 * A version: the set of tables that a manifest state names, in the order in which reads look at them. Immutable once
 * made.
 *
 *   level 0        newest table first; ranges overlap; revisions only grow from table to table
 *   levels 1 to 6  disjoint ranges, growing
 *
 * A source is newer than another if every version, and every range delete, of any key in it is newer than all that the
 * other has of that key. Memtables, level 0 from its newest table on, level 1, 2, ...: each is newer than the ones
 * behind it. All reads rest on that, and every compaction keeps it: it takes whatever overlaps in between along.
 *
 * A table's range is [smallest, largest], or [smallest, largest) if it ends with a range delete
 * (meta.largest_excluded).
 *
 * Large values are apart, in value files (value_file.h). A version knows all that its tables refer to; one that none
 * refers to any more isn't in it.
 *
 * Change files (change_file.h) stand beside the tree: a version has those of all entries behind changes_after.
 *
 * Counted by the owner of the store alone: read sets (view.h) hold versions, versions hold tables. Readers reach both
 * through a view and count nothing.
 */
#ifndef HOLDFAST_STORAGE_VERSION_H
#define HOLDFAST_STORAGE_VERSION_H

#include "storage/manifest_edit.h"
#include "storage/sst.h"

/* What the tables of a version refer to in one value file: derived from their lists. */
struct value_use {
    uint64_t values;
    uint64_t bytes;
};

struct version {
    struct alloc *alloc;
    uint64_t refs;
    uint64_t horizon; /* highest that a compaction or flush used: older revisions have holes */
    struct sst **tables[MANIFEST_LEVELS];
    size_t counts[MANIFEST_LEVELS];
    uint64_t bytes[MANIFEST_LEVELS];
    struct sst **value_files; /* all that the tables refer to, by id */
    struct value_use *value_uses;
    size_t value_file_count;
    uint64_t changes_after;    /* changes of later revisions, up to what was flushed, are in the change files: */
    struct sst **change_files; /* oldest first */
    size_t change_file_count;
};

/* What an edit changes. Lists of deeper levels are in the order of keys, those of level 0 newest first. */
struct version_change {
    struct sst *const *added[MANIFEST_LEVELS];
    size_t added_count[MANIFEST_LEVELS];
    struct sst *const *removed[MANIFEST_LEVELS]; /* all of them in base (CHECK) */
    size_t removed_count[MANIFEST_LEVELS];
    uint64_t horizon;                /* 0: as before */
    struct sst *const *values_added; /* value files; added tables refer to each of them (CHECK) */
    size_t values_added_count;
    struct sst *const *changes_added; /* change files, oldest first, behind those of base */
    size_t changes_added_count;
    uint64_t changes_after; /* 0: as before; change files that have no later revisions are left out */
};

/* base NULL: an empty one. Tables are referenced, and the value files that they refer to (CHECK: all of them are in
 * base or added); others of base are left out. The new version has one reference. NULL: out of memory. */
struct version *version_new(struct alloc *alloc, const struct version *base, const struct version_change *change);
/* Drops a reference; tables and value files that no version holds any more are chained to *dead by next_dead. NULL is
 * accepted. */
void version_unref(struct version *version, struct sst **dead);

/* True if the order within the levels holds (checked after opening: the manifest comes from a disk). */
bool version_is_sound(const struct version *version);

/* True if the table's range ends in front of the key. */
static inline bool version_ends_before(const struct sst *sst, struct slice key) {
    int order = slice_compare(sst->meta.largest, key);
    return order < 0 || (order == 0 && sst->meta.largest_excluded);
}

/* The value file of this id; NULL: none. ret_use: what is used of it; may be NULL. */
struct sst *version_value_file(const struct version *version, uint64_t id, struct value_use *ret_use);
/* The percentage of a value file that is still referred to. */
static inline unsigned version_live_percent(const struct sst *file, const struct value_use *use) {
    return file->meta.value_bytes == 0 ? 100 : (unsigned)((double)use->bytes * 100 / (double)file->meta.value_bytes);
}

/* version_changes.c, for version_new: fills in change_files, which has room for base's and the added ones. */
void version__fill_changes(struct version *version, const struct version *base, const struct version_change *change);
/* True if the change files are in order. */
bool version__changes_are_sound(const struct version *version);
/* What changes_after becomes if change files wholly below the horizon go: it stays as it is if there are none. */
uint64_t version_changes_droppable(const struct version *version, uint64_t horizon);
/* Bytes of all change files. */
uint64_t version_change_bytes(const struct version *version);

/* The functions below are for levels 1 and deeper. */

/* Place of the first table that doesn't end in front of the key; counts[level] if there is none. */
size_t version_first_reaching(const struct version *version, unsigned level, struct slice key);
/* The only table whose range has the key; NULL if there is none. */
struct sst *version_find(const struct version *version, unsigned level, struct slice key);
/* First and number of the tables that meet [lower, upper]; upper_excluded: [lower, upper). */
void version_overlap(const struct version *version, unsigned level, struct slice lower, struct slice upper,
                     bool upper_excluded, size_t *ret_first, size_t *ret_count);
/* The same for [lower, upper); upper.len 0: no end. */
void version_range(const struct version *version, unsigned level, struct slice lower, struct slice upper,
                   size_t *ret_first, size_t *ret_count);

#endif
