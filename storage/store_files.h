/*
 * The files of a store as files: for those who look after whole stores (checkpoint, ingest, verify, repair, destroy).
 *
 * All of it blocks: workers, and threads that run no loop. Only files whose names are ours are ever touched.
 */
#ifndef HOLDFAST_STORAGE_STORE_FILES_H
#define HOLDFAST_STORAGE_STORE_FILES_H

#include "node/env/env.h"
#include "storage/file_names.h"

/* Makes `to` another name of the file `from`; where the file system can't, because it is another one, has no links, or
 * has no room for one more, a synced copy. `to` isn't there yet. The directory is left to be synced.
 * *ret_copied_bytes: of a copy, else 0. stop: may be NULL; looked at between pieces of a copy: STATUS_CANCELLED. After
 * a failure nothing is left at `to`. */
MUST_USE enum status store_link(struct env *env, const char *from, const char *to, const atomic_bool *stop,
                                uint64_t *ret_copied_bytes, struct error *err);
/* A synced copy, always. */
MUST_USE enum status store_copy(struct env *env, const char *from, const char *to, const atomic_bool *stop,
                                uint64_t *ret_bytes, struct error *err);

/* Removes every file of a store that is in the directory, CURRENT before all others, the lock file excepted. Others
 * are left alone. STATUS_NOT_FOUND: there is no such directory. */
MUST_USE enum status store_remove_files(struct env *env, const char *dir, struct error *err);

/* Whether what is in the directory may be removed: STATUS_INVALID if it has a CURRENT, but no manifest named as ours
 * are: another program's. STATUS_NOT_FOUND: there is no such directory. */
MUST_USE enum status store_check_ours(struct env *env, const char *dir, struct error *err);

/* True if paths of all our files in this directory fit LIMIT_PATH_BYTES. */
bool store_dir_fits(const char *dir);

#endif
