/* Between repair.c, which reads and merges, and repair_commit.c, which makes the result the store. */
#ifndef HOLDFAST_STORAGE_REPAIR_INTERNAL_H
#define HOLDFAST_STORAGE_REPAIR_INTERNAL_H

#include "storage/repair.h"
#include "storage/repair_values.h"
#include "storage/salvage.h"
#include "storage/storage_internal.h"

struct repair {
    const struct storage_repair_options *options;
    const struct storage_options *storage;
    struct env *env;
    struct alloc *alloc;
    struct storage_repair_report *report;
    struct sst_context context;
    struct manifest_state found;   /* as the manifest had it; empty if it can't be read */
    struct manifest_state outcome; /* what the store becomes */
    uint64_t next_file;
    struct buf inputs;             /* struct sst * each, loaded */
    struct buf numbers;            /* uint64_t: of all files there are that are tables */
    struct buf value_numbers;      /* uint64_t: of all value files */
    struct buf change_numbers;     /* uint64_t: of all change files */
    struct buf manifests;          /* uint64_t: of all manifests */
    struct tombstones *tombstones; /* of all inputs */
    size_t tombstones_at;
    struct salvage_listener listener;
    struct cursor *merged;
    struct repair_values values;
    struct sst_builder *builder; /* NULL: no output under way */
    size_t lower_len;
    uint8_t lower[LIMIT_KEY_BYTES]; /* where the output under way begins; len 0: from the start */
    struct entry_key last;          /* written last; user.len 0: none */
    uint8_t last_user[LIMIT_KEY_BYTES];
    bool misses_value; /* of this version, unless another table knows another place: */
    struct entry_key missing;
    struct storage_loss missing_loss;
    uint8_t missing_user[LIMIT_KEY_BYTES];
};

static inline struct sst *const *repair__inputs(const struct repair *repair, size_t *ret_count) {
    *ret_count = repair->inputs.len / sizeof(struct sst *);
    return (struct sst *const *)(const void *)repair->inputs.data;
}

static inline enum status repair__no_memory(const struct repair *repair, struct error *err) {
    return error_set(err, STATUS_NO_MEMORY, "%s: no memory to repair it", repair->storage->dir);
}

/* repair_changes.c: into the outcome, whose frontier is set. STATUS_NO_MEMORY. */
MUST_USE enum status repair__keep_changes(struct repair *repair, struct error *err);

/* ---- repair_commit.c, in this order -------------------------------------------------------------------------- */

/* Of the outcome, from the manifest and what was found. */
void repair__set_frontier(struct repair *repair);
/* Links everything that doesn't stay into lost/. */
MUST_USE enum status repair__keep_all_lost(struct repair *repair, struct error *err);
/* Up to here: what was written goes again. Nothing names it. */
void repair__drop_outputs(struct repair *repair);
/* The outcome is the store when it returns. */
MUST_USE enum status repair__commit(struct repair *repair, struct error *err);
/* What is in lost/ now; what can't be removed goes at the next opening. */
MUST_USE enum status repair__remove_old(struct repair *repair, struct error *err);
void repair__unlink(const struct repair *repair, const char *path);

#endif
