/*
 * Verifying a version, for whoever has one: of a live store (verify_live.c) or of one that is closed (verify.c).
 *
 *   fill in verify_run -> verify__version -> verify__result
 *
 * Blocks: workers, and threads without a loop.
 */
#ifndef HOLDFAST_STORAGE_VERIFY_H
#define HOLDFAST_STORAGE_VERIFY_H

#include "storage/version.h"

struct verify_run {
    /* Filled in by the caller: */
    struct storage_verify_options options;
    struct storage_verify_report *report; /* frontier filled in, the rest all zero */
    struct error *err;                    /* gets the first finding; may be NULL */
    /* Its own: */
    uint64_t done_bytes;
    uint64_t total_bytes;
    bool is_cancelled;
};

/* Reports a finding. file: its name, or "". */
void verify__found(struct verify_run *run, const char *file, uint64_t count, uint64_t offset,
                   const struct error *found);
/* All tables and what must hold between them. STATUS_OK whatever was found; STATUS_CANCELLED, STATUS_NO_MEMORY. */
MUST_USE enum status verify__version(struct verify_run *run, const struct version *version);
/* Keeps out those who would open the store, if it ever was one that is opened: else NULL. STATUS_NOT_FOUND: there is no
 * directory. */
MUST_USE enum status verify__lock(struct env *env, const char *dir, struct env_file **ret_lock, struct error *err);
/* CURRENT, manifest, directory, all tables. STATUS_CORRUPT if there are findings. */
MUST_USE enum status verify__dir(struct verify_run *run, struct env *env, const char *dir);
/* status: of the steps before. STATUS_CORRUPT if there were findings. */
enum status verify__result(const struct verify_run *run, enum status status);

#endif
