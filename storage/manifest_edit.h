/*
 * What a manifest says, as bytes and as state: edits are lists of fields, a state is what applying them in order gives.
 *
 * Pure functions over memory. FORMAT.md has the fields. A field of unknown kind is STATUS_UNSUPPORTED: a newer
 * version's store must not be opened by one that would drop what it doesn't know.
 */
#ifndef HOLDFAST_STORAGE_MANIFEST_EDIT_H
#define HOLDFAST_STORAGE_MANIFEST_EDIT_H

#include "node/base/buf.h"
#include "storage/change_file.h"
#include "storage/sst.h"
#include "storage/storage.h"
#include "storage/value_file.h"

enum { MANIFEST_LEVELS = STORAGE_LEVELS };

enum manifest_tag {
    MANIFEST_FRONTIER = 1,
    MANIFEST_NEXT_FILE = 2,
    MANIFEST_ADD_FILE = 3,
    MANIFEST_REMOVE_FILE = 4,
    MANIFEST_HORIZON = 5,
    MANIFEST_ADD_VALUES = 6,
    MANIFEST_ADD_CHANGES = 7,
    /* 8: checkpoint pin; reserved */
    MANIFEST_REMOVE_VALUES = 9,
    MANIFEST_CHANGES_AFTER = 10,
    MANIFEST_ADD_LOG_VALUES = 11 /* fields as in MANIFEST_ADD_VALUES */
};

/* ---- Writing: each appends one field; STATUS_NO_MEMORY ------------------------------------------------------- */

MUST_USE enum status manifest_put_frontier(struct buf *out, const struct storage_frontier *frontier);
MUST_USE enum status manifest_put_next_file(struct buf *out, uint64_t number);
MUST_USE enum status manifest_put_add_file(struct buf *out, unsigned level, const struct sst_meta *meta);
MUST_USE enum status manifest_put_remove_file(struct buf *out, unsigned level, uint64_t number);
/* A value file is there from the edit with its first reference to the one that removes the last. */
MUST_USE enum status manifest_put_add_values(struct buf *out, const struct value_meta *meta);
MUST_USE enum status manifest_put_remove_values(struct buf *out, uint64_t id);
/* Behind all change files that are there, and behind changes_after. */
MUST_USE enum status manifest_put_add_changes(struct buf *out, const struct change_meta *meta);
/* Changes of entries up to this revision aren't there any more, or never were; change files that have no others go. */
MUST_USE enum status manifest_put_changes_after(struct buf *out, uint64_t revision);
/* Reads below this revision can't be served any more: a compaction dropped what they would need. */
MUST_USE enum status manifest_put_horizon(struct buf *out, uint64_t revision);

/* ---- Reading ------------------------------------------------------------------------------------------------- */

struct manifest_file {
    unsigned level;
    struct sst_meta meta; /* keys and value_refs owned, in `memory` */
    void *memory;
};

struct manifest_state {
    struct alloc *alloc;
    struct storage_frontier frontier;
    uint64_t horizon;            /* highest that a compaction or flush used */
    uint64_t next_file;          /* greater than every number in use */
    struct manifest_file *files; /* by number, growing */
    size_t file_count;
    size_t file_capacity;
    struct value_meta *values;  /* value files, by id, growing */
    uint64_t values_number_max; /* of any there ever was */
    size_t values_count;
    size_t values_capacity;
    /* The changes of all entries behind changes_after, up to the frontier's, are in these files. */
    uint64_t changes_after;
    struct change_meta *changes; /* by revision: disjoint, ascending */
    uint64_t changes_number_max; /* of any there ever was */
    size_t changes_count;
    size_t changes_capacity;
};

void manifest_state_init(struct manifest_state *state, struct alloc *alloc);
void manifest_state_deinit(struct manifest_state *state);
/* Applies one edit. STATUS_CORRUPT (malformed, or impossible in this state), STATUS_UNSUPPORTED, STATUS_NO_MEMORY: the
 * state is half changed then and only good for deinit. */
MUST_USE enum status manifest_state_apply(struct manifest_state *state, struct slice edit);
/* NULL if there is no such file. */
const struct manifest_file *manifest_state_find(const struct manifest_state *state, uint64_t number);
/* True if tables refer to all value files that are there, to none that isn't, and to no more than there is in each.
 * STATUS_CORRUPT if not; STATUS_NO_MEMORY. For a state that is complete. */
MUST_USE enum status manifest_state_check_values(const struct manifest_state *state);
/* Appends the one edit that makes an empty state equal to this one. */
MUST_USE enum status manifest_state_encode(const struct manifest_state *state, struct buf *out);

/* ---- manifest_values.c, for manifest_edit.c: fields behind their tag ------------------------------------------ */
MUST_USE enum status manifest__add_values(struct manifest_state *state, bool is_log, struct slice *at);
MUST_USE enum status manifest__remove_values(struct manifest_state *state, struct slice *at);
/* The value file of this number; NULL. */
const struct value_meta *manifest_state_find_values(const struct manifest_state *state, uint64_t number);

/* ---- manifest_changes.c, likewise ------------------------------------------------------------------------------ */
MUST_USE enum status manifest__add_changes(struct manifest_state *state, struct slice *at);
MUST_USE enum status manifest__changes_after(struct manifest_state *state, struct slice *at);
/* Appends the fields that say all of it. */
MUST_USE enum status manifest__put_changes(const struct manifest_state *state, struct buf *out);
/* The change file of this number; NULL. */
const struct change_meta *manifest_state_find_changes(const struct manifest_state *state, uint64_t number);

#endif
