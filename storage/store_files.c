/* Linking, copying and removing the files of a store. */
#include "storage/store_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { COPY_BYTES = 1024 * 1024 };

/* ---- Links ------------------------------------------------------------------------------------------------------- */

static enum status copy_bytes(struct env_file *from, struct env_file *to, uint8_t *bytes, const atomic_bool *stop,
                              uint64_t *ret_bytes, struct error *err) {
    uint64_t offset = 0;
    for (;;) {
        size_t got;
        if (stop != NULL && atomic_load_explicit(stop, memory_order_relaxed)) {
            return error_set(err, STATUS_CANCELLED, "%s: copying was stopped", env_file_path(from));
        }
        enum status status = env_pread(from, bytes, COPY_BYTES, offset, &got, err);
        if (status == STATUS_OK && got > 0) {
            status = env_pwrite(to, bytes, got, offset, err);
        }
        if (status != STATUS_OK) {
            return status;
        }
        offset += got;
        if (got < COPY_BYTES) {
            *ret_bytes = offset;
            return env_sync(to, err);
        }
    }
}

enum status store_copy(struct env *env, const char *from, const char *to, const atomic_bool *stop, uint64_t *ret_bytes,
                       struct error *err) {
    struct env_file *source = NULL;
    struct env_file *target = NULL;
    struct error ignored;
    uint8_t *bytes = mem_alloc(env->alloc, COPY_BYTES);
    if (bytes == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to copy it", from);
    }
    enum status status = env_open(env, from, ENV_OPEN_READ, &source, err);
    if (status == STATUS_OK) {
        status = env_open(env, to, ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_EXCLUSIVE, &target, err);
    }
    if (status == STATUS_OK) {
        status = copy_bytes(source, target, bytes, stop, ret_bytes, err);
    }
    bool made = target != NULL;
    env_close(source);
    env_close(target);
    mem_free(env->alloc, bytes);
    if (status != STATUS_OK && made) {
        enum status removed = env_unlink(env, to, &ignored);
        (void)removed; /* whoever comes next removes it */
    }
    return status;
}

enum status store_link(struct env *env, const char *from, const char *to, const atomic_bool *stop,
                       uint64_t *ret_copied_bytes, struct error *err) {
    struct error failed;
    *ret_copied_bytes = 0;
    enum status status = env_link(env, from, to, &failed);
    if (status == STATUS_OK) {
        return STATUS_OK;
    }
    if (failed.sys == EXDEV || failed.sys == EPERM || failed.sys == EMLINK || failed.sys == EOPNOTSUPP) {
        return store_copy(env, from, to, stop, ret_copied_bytes, err);
    }
    if (err != NULL) {
        *err = failed;
    }
    return status;
}

/* ---- Removing ---------------------------------------------------------------------------------------------------- */

struct removal {
    struct env *env;
    const char *dir;
    struct error *err;
};

static enum status remove_file(const struct removal *removal, const char *name) {
    char path[LIMIT_PATH_BYTES];
    file_path(path, removal->dir, name);
    enum status status = env_unlink(removal->env, path, removal->err);
    if (status == STATUS_NOT_FOUND) {
        error_clear(removal->err);
        status = STATUS_OK;
    }
    return status;
}

static enum status remove_ours(void *context, const char *name) {
    uint64_t number;
    return file_name_parse(name, &number) == FILE_OTHER ? STATUS_OK : remove_file(context, name);
}

enum status store_remove_files(struct env *env, const char *dir, struct error *err) {
    struct removal removal = {.env = env, .dir = dir, .err = err};
    /* Without CURRENT nobody takes what is left for a store. */
    enum status status = remove_file(&removal, CURRENT_NAME);
    if (status == STATUS_OK) {
        status = env_sync_dir(env, dir, err);
    }
    return status == STATUS_OK ? env_list_dir(env, dir, remove_ours, &removal, err) : status;
}

/* ---- Whose it is ------------------------------------------------------------------------------------------------- */

struct names {
    bool current;
    bool manifest;
};

static enum status note_name(void *context, const char *name) {
    struct names *names = context;
    uint64_t number;
    enum file_kind kind = file_name_parse(name, &number);
    names->current = names->current || kind == FILE_CURRENT;
    names->manifest = names->manifest || kind == FILE_MANIFEST;
    return STATUS_OK;
}

enum status store_check_ours(struct env *env, const char *dir, struct error *err) {
    struct names names = {.current = false};
    enum status status = env_list_dir(env, dir, note_name, &names, err);
    if (status == STATUS_OK && names.current && !names.manifest) {
        return error_set(err, STATUS_INVALID, "%s is no store of ours: it has a %s, but no manifest", dir,
                         CURRENT_NAME);
    }
    return status;
}

/* ---- Paths ------------------------------------------------------------------------------------------------------- */

bool store_dir_fits(const char *dir) { return strlen(dir) + 1 + FILE_NAME_BYTES_MAX <= LIMIT_PATH_BYTES; }
