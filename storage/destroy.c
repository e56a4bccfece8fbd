/*
 * Removing a store. CURRENT goes first, the lock last, so that nobody takes what is left for a store, and two who
 * destroy, or one who opens meanwhile, don't meet. Whatever isn't ours stays, and the directory with it.
 */
#include "storage/storage.h"
#include "storage/store_files.h"

#include <errno.h>

enum status storage_destroy(struct env *env, const char *dir, struct error *err) {
    char lock_path[LIMIT_PATH_BYTES];
    struct env_file *lock = NULL;
    struct error kept;
    if (!store_dir_fits(dir)) {
        return error_set(err, STATUS_INVALID, "the directory's name is too long");
    }
    file_path(lock_path, dir, LOCK_NAME);
    enum status status = store_check_ours(env, dir, err);
    if (status == STATUS_OK) {
        status = env_lock_file(env, lock_path, &lock, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = store_remove_files(env, dir, err);
    if (status == STATUS_OK) {
        status = env_unlink(env, lock_path, err);
    }
    if (status == STATUS_OK) {
        status = env_sync_dir(env, dir, err);
    }
    env_close(lock);
    if (status != STATUS_OK) {
        return status;
    }
    status = env_unlink(env, dir, &kept);
    if (status == STATUS_OK) {
        return env_sync_parent(env, dir, err);
    }
    if (kept.sys == ENOTEMPTY || kept.sys == EEXIST || kept.sys == EBUSY) {
        return STATUS_OK; /* something else is in it, or mounted there */
    }
    if (err != NULL) {
        *err = kept;
    }
    return status;
}
