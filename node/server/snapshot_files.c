/* Listing, reading, writing and removing the files of snapshots. */
#include "node/server/snapshot_files.h"

#include "node/base/buf.h"
#include "storage/store_files.h"

#include <inttypes.h>
#include <stdio.h>

#define OUT_PREFIX "snapshot-out-"
#define IN_NAME    "snapshot-in"

bool snapshot_file_kind_is_sent(uint32_t kind) {
    return kind == FILE_CURRENT || kind == FILE_MANIFEST || kind == FILE_SST || kind == FILE_VALUES ||
           kind == FILE_CHANGES;
}

void snapshot_out_dir(char out[LIMIT_PATH_BYTES], const char *data_dir, uint64_t peer) {
    (void)snprintf(out, LIMIT_PATH_BYTES, "%s/" OUT_PREFIX "%" PRIu64, data_dir, peer);
}

void snapshot_in_dir(char out[LIMIT_PATH_BYTES], const char *data_dir) {
    (void)snprintf(out, LIMIT_PATH_BYTES, "%s/" IN_NAME, data_dir);
}

static void make_path(char out[LIMIT_PATH_BYTES], const char *dir, enum file_kind kind, uint64_t number) {
    switch (kind) {
    case FILE_MANIFEST: file_path_manifest(out, dir, number); return;
    case FILE_SST: file_path_sst(out, dir, number); return;
    case FILE_VALUES: file_path_values(out, dir, number); return;
    case FILE_CHANGES: file_path_changes(out, dir, number); return;
    default: file_path(out, dir, CURRENT_NAME); return;
    }
}

/* ---- Listing ---------------------------------------------------------------------------------------------------- */

struct listing {
    struct env *env;
    const char *dir;
    struct buf files;
    uint64_t bytes;
    struct error *err;
};

static enum status add_file(void *context, const char *name) {
    struct listing *listing = context;
    struct snapshot_file file = {.begin = listing->bytes};
    file.kind = file_name_parse(name, &file.number);
    if (!snapshot_file_kind_is_sent((uint32_t)file.kind)) {
        return STATUS_OK;
    }
    if (listing->files.len / sizeof file >= SNAPSHOT_FILES_MAX) {
        return error_set(listing->err, STATUS_TOO_LARGE, "%s: more than %d files", listing->dir, SNAPSHOT_FILES_MAX);
    }
    char path[LIMIT_PATH_BYTES];
    struct env_file *opened = NULL;
    make_path(path, listing->dir, file.kind, file.number);
    enum status status = env_open(listing->env, path, ENV_OPEN_READ, &opened, listing->err);
    if (status == STATUS_OK) {
        status = env_size(opened, &file.bytes, listing->err);
    }
    env_close(opened);
    if (status != STATUS_OK) {
        return status;
    }
    listing->bytes += file.bytes;
    status = buf_append(&listing->files, &file, sizeof file);
    return status == STATUS_OK ? status : error_set(listing->err, status, "%s: no memory to list it", listing->dir);
}

enum status snapshot_files_list(struct env *env, const char *dir, struct snapshot_file **ret_files, uint32_t *ret_count,
                                struct error *err) {
    struct listing listing = {.env = env, .dir = dir, .err = err};
    if (!store_dir_fits(dir)) {
        return error_set(err, STATUS_INVALID, "%s: the path is too long", dir);
    }
    buf_init(&listing.files, env->alloc, 0);
    enum status status = env_list_dir(env, dir, add_file, &listing, err);
    if (status == STATUS_OK && listing.files.len == 0) {
        status = error_set(err, STATUS_NOT_FOUND, "%s: no store is in it", dir);
    }
    if (status == STATUS_OK) {
        *ret_count = (uint32_t)(listing.files.len / sizeof **ret_files);
        *ret_files = mem_alloc(env->alloc, listing.files.len);
        if (*ret_files == NULL) {
            status = error_set(err, STATUS_NO_MEMORY, "%s: no memory to list it", dir);
        } else {
            memcpy(*ret_files, listing.files.data, listing.files.len);
        }
    }
    buf_deinit(&listing.files);
    return status;
}

/* ---- Pieces ----------------------------------------------------------------------------------------------------- */

enum status snapshot_file_read(struct env *env, const char *dir, const struct snapshot_file *file, uint64_t offset,
                               uint8_t *data, size_t len, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct env_file *opened = NULL;
    size_t got = 0;
    make_path(path, dir, file->kind, file->number);
    enum status status = env_open(env, path, ENV_OPEN_READ, &opened, err);
    if (status == STATUS_OK) {
        status = env_pread(opened, data, len, offset, &got, err);
    }
    env_close(opened);
    if (status == STATUS_OK && got != len) {
        status = error_set(err, STATUS_CORRUPT, "%s: ends at %" PRIu64, path, offset + got);
    }
    return status;
}

enum status snapshot_file_write(struct env *env, const char *dir, const struct snapshot_file *file, uint64_t offset,
                                const uint8_t *data, size_t len, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct env_file *opened = NULL;
    make_path(path, dir, file->kind, file->number);
    unsigned flags = ENV_OPEN_WRITE | ENV_OPEN_STREAM;
    flags |= offset == 0 ? (unsigned)(ENV_OPEN_CREATE | ENV_OPEN_EXCLUSIVE) : 0;
    enum status status = env_open(env, path, flags, &opened, err);
    if (status == STATUS_OK && len > 0) {
        status = env_pwrite(opened, data, len, offset, err);
    }
    if (status == STATUS_OK && offset + len == file->bytes) {
        status = env_sync(opened, err); /* a failed one fails the transfer, and the file goes */
    }
    env_close(opened);
    return status;
}

/* ---- Directories ------------------------------------------------------------------------------------------------ */

enum status snapshot_dir_make(struct env *env, const char *dir, struct error *err) {
    if (!store_dir_fits(dir)) {
        return error_set(err, STATUS_INVALID, "%s: the path is too long", dir);
    }
    enum status status = env_mkdir(env, dir, err);
    if (status == STATUS_EXISTS) {
        error_clear(err);
        status = store_remove_files(env, dir, err);
    }
    return status;
}

enum status snapshot_dir_sync(struct env *env, const char *dir, struct error *err) {
    enum status status = env_sync_dir(env, dir, err);
    return status == STATUS_OK ? env_sync_parent(env, dir, err) : status;
}

static enum status remove_one(struct env *env, const char *dir, struct error *err) {
    char lock[LIMIT_PATH_BYTES];
    enum status status = store_remove_files(env, dir, err);
    if (status == STATUS_OK) {
        file_path(lock, dir, LOCK_NAME); /* verifying made it */
        status = env_unlink(env, lock, err);
        status = status == STATUS_NOT_FOUND ? STATUS_OK : status;
    }
    if (status == STATUS_OK) {
        error_clear(err);
        status = env_unlink(env, dir, err);
    }
    if (status == STATUS_NOT_FOUND) {
        error_clear(err);
        return STATUS_OK;
    }
    return status;
}

enum status snapshot_dir_remove(struct env *env, const char *dir, struct error *err) {
    char tmp[LIMIT_PATH_BYTES];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", dir) >= (int)sizeof tmp || !store_dir_fits(tmp)) {
        return STATUS_OK; /* nothing can be there */
    }
    enum status status = remove_one(env, tmp, err);
    return status == STATUS_OK ? remove_one(env, dir, err) : status;
}

struct leftovers {
    struct env *env;
    const char *data_dir;
};

static enum status remove_leftover(void *context, const char *name) {
    const struct leftovers *leftovers = context;
    char path[LIMIT_PATH_BYTES];
    struct error ignored;
    bool is_ours = strncmp(name, OUT_PREFIX, sizeof OUT_PREFIX - 1) == 0 || strcmp(name, IN_NAME) == 0;
    if (is_ours && snprintf(path, sizeof path, "%s/%s", leftovers->data_dir, name) < (int)sizeof path &&
        store_dir_fits(path)) {
        error_clear(&ignored);
        enum status status = remove_one(leftovers->env, path, &ignored);
        (void)status;
    }
    return STATUS_OK;
}

void snapshot_remove_leftovers(struct env *env, const char *data_dir) {
    struct leftovers leftovers = {.env = env, .data_dir = data_dir};
    struct error ignored;
    error_clear(&ignored);
    enum status status = env_list_dir(env, data_dir, remove_leftover, &leftovers, &ignored);
    (void)status;
}
