/*
 * Logs without a log: one is made for a store that was copied or repaired and has none, or removed with its store.
 *
 * A log that begins behind an entry is one segment whose start group is a reset there (FORMAT-wal.md): it says from
 * which entry on records may follow, and the newest term. The next opening cuts the segment and starts one of its own.
 *
 * Both block: workers, and threads that run no loop. Nobody has the log open.
 */
#include "storage/wal_internal.h"

#include <errno.h>

enum { CREATED_BYTES = WAL_FIRST_RECORDS_OFFSET + 8 * WAL_BLOCK_BYTES, REMOVED_AT_ONCE = 64 };

/* ---- Making one ------------------------------------------------------------------------------------------------- */

static enum status write_start(const struct wal_options *options, const struct wal_frontier *base, uint64_t term,
                               uint64_t generation, struct env_file *file, struct error *err) {
    struct alloc *alloc = options->env->alloc;
    uint8_t *block = mem_alloc_aligned(alloc, WAL_BLOCK_BYTES, WAL_START_GROUP_BYTES);
    if (block == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to make the log %s", options->dir);
    }
    struct wal__group_header header = {.flags = WAL__GROUP_FIRST | WAL__GROUP_RESET,
                                       .total_bytes = WAL_GROUP_HEADER_BYTES,
                                       .generation = generation,
                                       .sequence = 1,
                                       .synced_index = base->index,
                                       .synced_term = base->term,
                                       .commit_index = base->index,
                                       .term = term};
    memset(block, 0, WAL_START_GROUP_BYTES);
    wal__group_seal(block, &header, NULL);
    enum status status = env_pwrite(file, block, WAL_START_GROUP_BYTES, WAL_SEGMENT_HEADER_BYTES, err);
    mem_free(alloc, block);
    return status == STATUS_OK ? env_sync(file, err) : status;
}

enum status wal_create(const struct wal_options *options, const struct wal_frontier *base, uint64_t term,
                       struct error *err) {
    CHECK(term >= base->term);
    struct env_file *file = NULL;
    struct wal__segment_header header = {.node_id = options->node_id,
                                         .number = 1,
                                         .generation = env_random(options->env),
                                         .bytes = CREATED_BYTES,
                                         .incarnation = wal__draw_incarnation(options->env),
                                         .filled_bytes = CREATED_BYTES};
    memcpy(header.cluster_id, options->cluster_id, WAL_CLUSTER_ID_BYTES);
    if (strlen(options->dir) + WAL_NAME_BYTES >= LIMIT_PATH_BYTES) {
        return error_set(err, STATUS_INVALID, "the log's path is longer than %d bytes",
                         LIMIT_PATH_BYTES - WAL_NAME_BYTES);
    }
    enum status status = wal__make_dir(options->env, options->dir, err);
    if (status == STATUS_OK) {
        status = wal__segment_create(options->env, options->dir, &header, &file, err);
    }
    if (status == STATUS_OK) {
        status = write_start(options, base, term, header.generation, file, err);
    }
    env_close(file);
    return status;
}

/* ---- Removing one ----------------------------------------------------------------------------------------------- */

struct removal {
    struct env *env;
    const char *dir;
    struct error *err;
    uint64_t numbers[REMOVED_AT_ONCE];
    const char *suffixes[REMOVED_AT_ONCE];
    size_t count;
};

static enum status collect(void *context, const char *name) {
    struct removal *removal = context;
    static const char *const suffixes[] = {"", ".tmp", WAL_FAULTY_SUFFIX};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if (removal->count < REMOVED_AT_ONCE &&
            wal__segment_parse_name(name, suffixes[i], &removal->numbers[removal->count])) {
            removal->suffixes[removal->count++] = suffixes[i];
        }
    }
    return STATUS_OK;
}

/* As many as are remembered at once; *ret_more if there may be others. */
static enum status remove_some(struct removal *removal, bool *ret_more) {
    removal->count = 0;
    enum status status = env_list_dir(removal->env, removal->dir, collect, removal, removal->err);
    for (size_t i = 0; status == STATUS_OK && i < removal->count; i++) {
        char path[LIMIT_PATH_BYTES];
        wal__segment_path(path, removal->dir, removal->numbers[i], removal->suffixes[i]);
        status = env_unlink(removal->env, path, removal->err);
    }
    *ret_more = removal->count == REMOVED_AT_ONCE;
    return status;
}

enum status wal_destroy(struct env *env, const char *dir, struct error *err) {
    struct removal removal = {.env = env, .dir = dir, .err = err};
    struct error kept;
    bool more = true;
    enum status status = STATUS_OK;
    if (strlen(dir) + WAL_NAME_BYTES >= LIMIT_PATH_BYTES) {
        return error_set(err, STATUS_INVALID, "the log's path is longer than %d bytes",
                         LIMIT_PATH_BYTES - WAL_NAME_BYTES);
    }
    while (status == STATUS_OK && more) {
        status = remove_some(&removal, &more);
    }
    if (status == STATUS_OK) {
        status = env_sync_dir(env, dir, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = env_unlink(env, dir, &kept);
    if (status == STATUS_OK || kept.sys == ENOTEMPTY || kept.sys == EEXIST || kept.sys == EBUSY) {
        return STATUS_OK; /* else something that isn't ours is in it */
    }
    if (err != NULL) {
        *err = kept;
    }
    return status;
}
