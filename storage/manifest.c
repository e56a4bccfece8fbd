/* The manifest's files. The order of writes and syncs is argued in manifest.h. */
#include "storage/manifest.h"

#include "node/base/check.h"
#include "storage/file_names.h"

#include <inttypes.h>

enum { MANIFEST_READ_BYTES_MAX = 1024 * 1024 * 1024, ZEROES_BYTES = 4 * MANIFEST_BLOCK_BYTES };

static const uint8_t zeroes[ZEROES_BYTES];

/* ---- Writing ------------------------------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t bytes) {
    return (bytes + MANIFEST_BLOCK_BYTES - 1) / MANIFEST_BLOCK_BYTES * MANIFEST_BLOCK_BYTES;
}

static enum status write_at(struct manifest *manifest, struct env_file *file, const void *data, size_t len,
                            uint64_t offset, struct error *err) {
    enum status status = env_fault_point(manifest->env, FAULT_MANIFEST_WRITE, err);
    if (status == STATUS_OK) {
        status = env_pwrite(file, data, len, offset, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "%s: writing at offset %" PRIu64, env_file_path(file), offset);
        return status;
    }
    manifest->written_bytes += len;
    return STATUS_OK;
}

static enum status sync_file(struct manifest *manifest, struct env_file *file, struct error *err) {
    enum status status = env_fault_point(manifest->env, FAULT_MANIFEST_SYNC, err);
    if (status == STATUS_OK) {
        status = env_sync(file, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "%s: sync", env_file_path(file));
    }
    return status;
}

/* Fills with zeroes from `from`, a block's start, up to `to`. Not synced. */
static enum status fill(struct manifest *manifest, struct env_file *file, uint64_t from, uint64_t to,
                        struct error *err) {
    enum status status = STATUS_OK;
    while (from < to && status == STATUS_OK) {
        size_t len = to - from < ZEROES_BYTES ? (size_t)(to - from) : ZEROES_BYTES;
        status = write_at(manifest, file, zeroes, len, from, err);
        from += len;
    }
    return status;
}

/* What a crash left behind the last edit was never acknowledged: it becomes prepared space again. The file doesn't get
 * longer, so this works on a full disk; on one where it doesn't, the file is cut. What isn't on disk after another
 * crash is found and wiped once more. */
static enum status wipe_torn(struct manifest *manifest, struct slice bytes, struct error *err) {
    uint64_t torn_end = manifest->size_bytes;
    for (uint64_t at = manifest->size_bytes; at < bytes.len; at++) {
        torn_end = bytes.data[at] != 0 ? at + 1 : torn_end;
    }
    torn_end = torn_end == manifest->size_bytes ? torn_end : round_up(torn_end);
    torn_end = torn_end < bytes.len ? torn_end : bytes.len;
    enum status status = fill(manifest, manifest->file, manifest->size_bytes, torn_end, err);
    if (status == STATUS_NO_SPACE) {
        error_clear(err);
        manifest->prepared_bytes = manifest->size_bytes;
        status = env_truncate(manifest->file, manifest->size_bytes, err);
    }
    return status;
}

/* ---- Reading ------------------------------------------------------------------------------------------------- */

/* The whole file, appended to buf. */
static enum status read_file(struct env_file *file, struct buf *buf, struct error *err) {
    uint64_t size_bytes;
    size_t got;
    enum status status = env_size(file, &size_bytes, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (size_bytes > MANIFEST_READ_BYTES_MAX) {
        return error_set(err, STATUS_CORRUPT, "%s: %" PRIu64 " bytes are too many", env_file_path(file), size_bytes);
    }
    if (buf_reserve(buf, (size_t)size_bytes) != STATUS_OK) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to read it", env_file_path(file));
    }
    if (size_bytes == 0) {
        return STATUS_OK;
    }
    status = env_pread(file, buf->data + buf->len, (size_t)size_bytes, 0, &got, err);
    if (status == STATUS_OK) {
        buf->len += got;
    }
    return status;
}

static enum status read_current(struct manifest *manifest, bool inspect, uint64_t *ret_number, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct env_file *file;
    struct buf bytes;
    buf_init(&bytes, manifest->env->alloc, 0);
    file_path(path, manifest->dir, CURRENT_NAME);
    enum status status = env_open(manifest->env, path, ENV_OPEN_READ, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = read_file(file, &bytes, err);
    if (status == STATUS_OK) {
        status = inspect ? manifest_current_identify(buf_slice(&bytes), &manifest->identity, ret_number, err)
                         : manifest_current_decode(buf_slice(&bytes), &manifest->identity, ret_number, err);
        if (status != STATUS_OK) {
            error_prefix(err, "%s", path);
        }
    }
    env_close(file);
    buf_deinit(&bytes);
    return status;
}

static enum status load(struct manifest *manifest, bool inspect, struct manifest_state *state, struct error *err) {
    CHECK(manifest->file == NULL);
    char path[LIMIT_PATH_BYTES];
    uint64_t number = 0;
    struct manifest_end end;
    struct buf bytes;
    buf_init(&bytes, manifest->env->alloc, 0);
    enum status status = read_current(manifest, inspect, &number, err);
    if (status != STATUS_OK) {
        return status;
    }
    file_path_manifest(path, manifest->dir, number);
    unsigned flags = inspect ? ENV_OPEN_READ : ENV_OPEN_READ | ENV_OPEN_WRITE;
    status = env_open(manifest->env, path, flags, &manifest->file, err);
    if (status != STATUS_OK) {
        if (status == STATUS_NOT_FOUND) {
            status = error_set(err, STATUS_CORRUPT, "%s: missing, but %s names it", path, CURRENT_NAME);
        }
        goto out;
    }
    status = read_file(manifest->file, &bytes, err);
    if (status != STATUS_OK) {
        goto out;
    }
    status = manifest_parse(buf_slice(&bytes), &manifest->identity, number, state, &end, err);
    if (status != STATUS_OK) {
        error_prefix(err, "%s", path);
        goto out;
    }
    manifest->number = number;
    manifest->size_bytes = end.size_bytes;
    manifest->prepared_bytes = bytes.len / MANIFEST_BLOCK_BYTES * MANIFEST_BLOCK_BYTES;
    if (!inspect) {
        status = wipe_torn(manifest, buf_slice(&bytes), err);
        if (status != STATUS_OK) {
            goto out;
        }
    }
    manifest->sequence = end.sequence;
    manifest->marked = end.marked;
out:
    buf_deinit(&bytes);
    if (status != STATUS_OK || inspect) {
        manifest_close(manifest);
    }
    return status;
}

enum status manifest_load(struct manifest *manifest, struct manifest_state *state, struct error *err) {
    return load(manifest, false, state, err);
}

enum status manifest_inspect(struct manifest *manifest, struct manifest_state *state, struct error *err) {
    return load(manifest, true, state, err);
}

void manifest_close(struct manifest *manifest) {
    env_close(manifest->file);
    mem_free(manifest->env->alloc, manifest->reserved);
    manifest->file = NULL;
    manifest->reserved = NULL;
    manifest->reserved_len = 0;
}

enum status manifest_keep(struct manifest *manifest, struct error *err) {
    CHECK(manifest->file != NULL);
    enum status status = sync_file(manifest, manifest->file, err);
    if (status == STATUS_OK && !manifest->marked) {
        uint8_t mark[MANIFEST_BLOCK_BYTES];
        uint64_t mark_at = manifest->size_bytes - MANIFEST_BLOCK_BYTES;
        manifest_mark_seal(mark, manifest->number, manifest->sequence, mark_at);
        status = write_at(manifest, manifest->file, mark, sizeof mark, mark_at, err);
        if (status == STATUS_OK) {
            status = sync_file(manifest, manifest->file, err);
        } else if (status == STATUS_NO_SPACE) {
            error_clear(err); /* the edit holds without it */
            status = STATUS_OK;
        }
    }
    return status == STATUS_OK ? env_sync_dir(manifest->env, manifest->dir, err) : status;
}

enum status manifest_reserve(struct manifest *manifest, size_t payload_len) {
    size_t len = manifest_edit_bytes(payload_len);
    if (len <= manifest->reserved_len) {
        return STATUS_OK;
    }
    uint8_t *bytes = mem_alloc(manifest->env->alloc, len);
    if (bytes == NULL) {
        return STATUS_NO_MEMORY;
    }
    mem_free(manifest->env->alloc, manifest->reserved);
    manifest->reserved = bytes;
    manifest->reserved_len = len;
    return STATUS_OK;
}

/* Where an append of this payload would end. */
static uint64_t end_of_append(const struct manifest *manifest, size_t payload_len) {
    return manifest->size_bytes + manifest_edit_bytes(payload_len) + MANIFEST_BLOCK_BYTES;
}

/* A sync that failed is final, whatever it says: nobody knows any more what the file's blocks are. */
static enum status final_lack_of_space(const struct manifest *manifest, struct error *err) {
    return error_set(err, STATUS_IO, "%s: the disk was full when prepared space was synced",
                     env_file_path(manifest->file));
}

/* Gives back what a full disk had left for zeroes that don't suffice: others may need it. */
static enum status drop_unprepared(struct manifest *manifest, struct error *err) {
    struct error full = {0};
    if (manifest->prepared_bytes < manifest->size_bytes) {
        return STATUS_NO_SPACE;
    }
    if (err != NULL) {
        full = *err;
    }
    enum status status = env_truncate(manifest->file, manifest->prepared_bytes, err);
    if (status == STATUS_OK && err != NULL) {
        *err = full;
    }
    return status == STATUS_OK ? STATUS_NO_SPACE : status;
}

enum status manifest_prepare(struct manifest *manifest, size_t payload_len, bool gives_space, struct error *err) {
    CHECK(manifest->file != NULL);
    uint64_t end = end_of_append(manifest, payload_len);
    if (end + MANIFEST_RESERVE_BYTES <= manifest->prepared_bytes) {
        return STATUS_OK;
    }
    uint64_t from = manifest->prepared_bytes > manifest->size_bytes ? manifest->prepared_bytes : manifest->size_bytes;
    uint64_t to = end + MANIFEST_PREPARED_BYTES;
    enum status status = fill(manifest, manifest->file, from, to, err);
    if (status == STATUS_NO_SPACE) {
        status = drop_unprepared(manifest, err);
        if (status == STATUS_NO_SPACE && gives_space && end <= manifest->prepared_bytes) {
            error_clear(err);
            status = STATUS_OK;
        }
        return status;
    }
    if (status == STATUS_OK) {
        status = sync_file(manifest, manifest->file, err);
    }
    if (status == STATUS_OK) {
        manifest->prepared_bytes = to;
    }
    return status == STATUS_NO_SPACE ? final_lack_of_space(manifest, err) : status;
}

enum status manifest_append(struct manifest *manifest, struct slice edit, struct error *err) {
    uint8_t mark[MANIFEST_BLOCK_BYTES];
    size_t len = manifest_edit_bytes(edit.len);
    uint64_t sequence = manifest->sequence + 1;
    uint64_t mark_at = manifest->size_bytes + len;
    CHECK(manifest->file != NULL && len <= manifest->reserved_len);
    CHECK(mark_at + MANIFEST_BLOCK_BYTES <= manifest->prepared_bytes);
    manifest_edit_seal(manifest->reserved, edit, manifest->number, sequence, manifest->size_bytes);
    manifest_mark_seal(mark, manifest->number, sequence, mark_at);
    enum status status = write_at(manifest, manifest->file, manifest->reserved, len, manifest->size_bytes, err);
    if (status == STATUS_OK) {
        status = sync_file(manifest, manifest->file, err);
    }
    if (status == STATUS_OK) {
        status = write_at(manifest, manifest->file, mark, sizeof mark, mark_at, err);
    }
    if (status == STATUS_OK) {
        status = sync_file(manifest, manifest->file, err);
    }
    if (status == STATUS_OK) {
        manifest->size_bytes = mark_at + MANIFEST_BLOCK_BYTES;
        manifest->sequence = sequence;
    }
    return status;
}

/* A new, synced manifest file with one marked edit, and space prepared behind it. */
static enum status write_new(struct manifest *manifest, const char *path, uint64_t number, struct slice snapshot,
                             struct env_file **ret_file, uint64_t *ret_size, struct error *err) {
    size_t edit_len = manifest_edit_bytes(snapshot.len);
    size_t len = MANIFEST_BLOCK_BYTES + edit_len + MANIFEST_BLOCK_BYTES;
    struct env_file *file = NULL;
    uint8_t *bytes = mem_alloc(manifest->env->alloc, len);
    if (bytes == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory for it", path);
    }
    manifest_header_encode(bytes, &manifest->identity, number);
    manifest_edit_seal(bytes + MANIFEST_BLOCK_BYTES, snapshot, number, 1, MANIFEST_BLOCK_BYTES);
    manifest_mark_seal(bytes + MANIFEST_BLOCK_BYTES + edit_len, number, 1, MANIFEST_BLOCK_BYTES + edit_len);
    enum status status =
        env_open(manifest->env, path, ENV_OPEN_READ | ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_TRUNCATE, &file, err);
    if (status == STATUS_OK) {
        status = write_at(manifest, file, bytes, len, 0, err);
    }
    if (status == STATUS_OK) {
        status = fill(manifest, file, len, len + MANIFEST_PREPARED_BYTES, err);
    }
    if (status == STATUS_OK) {
        status = sync_file(manifest, file, err);
    }
    mem_free(manifest->env->alloc, bytes);
    if (status != STATUS_OK) {
        env_close(file);
        return status;
    }
    *ret_file = file;
    *ret_size = len;
    return STATUS_OK;
}

static enum status write_current(struct manifest *manifest, const char *path, uint64_t number, struct error *err) {
    uint8_t bytes[CURRENT_BYTES];
    struct env_file *file;
    manifest_current_encode(bytes, &manifest->identity, number);
    enum status status =
        env_open(manifest->env, path, ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_TRUNCATE, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = write_at(manifest, file, bytes, sizeof bytes, 0, err);
    if (status == STATUS_OK) {
        status = sync_file(manifest, file, err);
    }
    env_close(file);
    return status;
}

static void unlink_quietly(struct manifest *manifest, const char *path) {
    /* A leftover is named by nothing and goes at the next start. */
    struct error ignored;
    enum status status = env_unlink(manifest->env, path, &ignored);
    (void)status;
}

enum status manifest_switch(struct manifest *manifest, uint64_t number, struct slice snapshot, struct error *err) {
    CHECK(number > manifest->number);
    char path[LIMIT_PATH_BYTES];
    char current[LIMIT_PATH_BYTES];
    char current_new[LIMIT_PATH_BYTES];
    struct env_file *file = NULL;
    uint64_t size_bytes = 0;
    file_path_manifest(path, manifest->dir, number);
    file_path(current, manifest->dir, CURRENT_NAME);
    file_path(current_new, manifest->dir, CURRENT_NEW_NAME);
    enum status status = write_new(manifest, path, number, snapshot, &file, &size_bytes, err);
    if (status == STATUS_OK) {
        status = env_sync_dir(manifest->env, manifest->dir, err);
    }
    if (status == STATUS_OK) {
        status = write_current(manifest, current_new, number, err);
    }
    if (status != STATUS_OK) {
        /* Nothing names the new file. */
        env_close(file);
        unlink_quietly(manifest, current_new);
        unlink_quietly(manifest, path);
        return status;
    }
    status = env_fault_point(manifest->env, FAULT_MANIFEST_RENAME, err);
    if (status == STATUS_OK) {
        status = env_rename(manifest->env, current_new, current, err);
    }
    if (status == STATUS_OK) {
        status = env_sync_dir(manifest->env, manifest->dir, err);
    }
    if (status != STATUS_OK) {
        /* Which one CURRENT names after a crash is not known; the error must not pass for a harmless one. */
        env_close(file);
        error_prefix(err, "%s: the switch to manifest %" PRIx64 " has an unknown outcome", manifest->dir, number);
        if (err != NULL) {
            err->code = STATUS_IO;
        }
        return STATUS_IO;
    }
    env_close(manifest->file);
    if (manifest->number != 0) {
        file_path_manifest(path, manifest->dir, manifest->number);
        unlink_quietly(manifest, path);
    }
    manifest->file = file;
    manifest->number = number;
    manifest->size_bytes = size_bytes;
    manifest->prepared_bytes = size_bytes + MANIFEST_PREPARED_BYTES;
    manifest->snapshot_bytes = size_bytes;
    manifest->sequence = 1;
    manifest->marked = true;
    return STATUS_OK;
}
