/*
 * The tail files: `tail-0` to `tail-7`, mapped, the memory that groups of the log form in (wal.h, lent memory). A
 * record is in the page cache as soon as it is appended, so it survives the process without a system call. Each file is
 * as long as the largest group, written once with zeroes so that no store ever meets a full disk.
 *
 * What is in them is judged when the engine opens (engine_open.c), never trusted: after a loss of power any of their
 * pages may be old.
 */
#include "storage/engine_internal.h"

#include <stdio.h>

static void tail_path(char *path, const struct engine *engine, unsigned number) {
    (void)snprintf(path, LIMIT_PATH_BYTES, "%s/tail-%u", engine->dir, number);
}

/* Zeroes from where the file ends, if it is too short: a crash left of making it no more, or its groups were smaller.
 * *ret_bytes: what is to be mapped of it. *made is set if it was. */
static enum status fill(struct engine *engine, struct env_file *file, size_t bytes, size_t *ret_bytes, bool *made,
                        struct error *err) {
    uint64_t size_bytes = 0;
    enum status status = env_size(file, &size_bytes, err);
    if (status != STATUS_OK) {
        return status;
    }
    *ret_bytes = size_bytes <= bytes ? bytes : size_bytes < LIMIT_GROUP_BYTES ? (size_t)size_bytes : LIMIT_GROUP_BYTES;
    if (size_bytes >= bytes) {
        return STATUS_OK;
    }
    *made = true;
    uint8_t *zeroes = mem_alloc_zero(engine->alloc, bytes);
    if (zeroes == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to make %s", env_file_path(file));
    }
    status = env_pwrite(file, zeroes, bytes - (size_t)size_bytes, size_bytes, err);
    mem_free(engine->alloc, zeroes);
    return status == STATUS_OK ? env_sync(file, err) : status;
}

enum status engine__tails_open(struct engine *engine, size_t bytes, struct error *err) {
    enum status status = STATUS_OK;
    bool made = false;
    engine->tail_bytes = bytes;
    for (unsigned i = 0; status == STATUS_OK && i < WAL_LENT_COUNT; i++) {
        char path[LIMIT_PATH_BYTES];
        void *data = NULL;
        tail_path(path, engine, i);
        status =
            env_open(engine->env, path, ENV_OPEN_READ | ENV_OPEN_WRITE | ENV_OPEN_CREATE, &engine->tail_files[i], err);
        if (status == STATUS_OK) {
            status = fill(engine, engine->tail_files[i], bytes, &engine->tail_mapped_bytes[i], &made, err);
        }
        if (status == STATUS_OK) {
            status = env_map(engine->tail_files[i], engine->tail_mapped_bytes[i], &data, err);
        }
        engine->tails[i] = data;
    }
    return status == STATUS_OK && made ? env_sync_dir(engine->env, engine->dir, err) : status;
}

void engine__tails_close(struct engine *engine) {
    for (unsigned i = 0; i < WAL_LENT_COUNT; i++) {
        if (engine->tails[i] != NULL) {
            env_unmap(engine->tail_files[i], engine->tails[i], engine->tail_mapped_bytes[i]);
        }
        env_close(engine->tail_files[i]);
        engine->tails[i] = NULL;
        engine->tail_files[i] = NULL;
    }
}
