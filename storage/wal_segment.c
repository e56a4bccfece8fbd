/*
 * One segment file: its header block, its name, and how it comes to be (DESIGN rules 8 and 10).
 *
 *   create N.log.tmp -> zeroes everywhere, header in front -> sync -> rename to N.log -> sync the directory -> use
 *
 * or out of an old one, which costs two blocks instead of all of them (hazard 37):
 *
 *   O.log, not needed any more -> rename to O.log.tmp -> sync the directory: set aside
 *   -> header of N and an empty start block over its own -> sync -> rename to N.log -> sync the directory -> use
 *
 * Whatever crash falls in between, recovery finds a .tmp, which it removes, or O.log as it was, or a sound segment N
 * without groups. What O left behind the start block is there for good: no group counts that doesn't repeat the
 * generation of the header, and that is drawn anew each time.
 */
#include "node/base/checksum.h"
#include "storage/wal_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    AT_VERSION = 8,
    AT_FLAGS = 12,
    AT_CLUSTER = 16,
    AT_NODE = 32,
    AT_NUMBER = 40,
    AT_GENERATION = 48,
    AT_BYTES = 56,
    AT_INCARNATION = 64,
    HEADER_USED = 72,
    AT_CHECKSUM = WAL_SEGMENT_HEADER_BYTES - 8,
    NUMBER_DIGITS = 16
};

enum { FLAG_RECYCLED = 1, FLAGS_KNOWN = 1 };

static const char segment_magic[8] = "HFWALSEG";
static const uint64_t segment_seed = 0x686f6c6466736567;

void wal__segment_header_seal(uint8_t *block, const struct wal__segment_header *header) {
    CHECK(header->incarnation != 0);
    memset(block, 0, WAL_SEGMENT_HEADER_BYTES);
    memcpy(block, segment_magic, sizeof segment_magic);
    put_u32(block + AT_VERSION, WAL_FORMAT_VERSION);
    put_u32(block + AT_FLAGS, header->recycled ? FLAG_RECYCLED : 0);
    memcpy(block + AT_CLUSTER, header->cluster_id, WAL_CLUSTER_ID_BYTES);
    put_u64(block + AT_NODE, header->node_id);
    put_u64(block + AT_NUMBER, header->number);
    put_u64(block + AT_GENERATION, header->generation);
    put_u64(block + AT_BYTES, header->bytes);
    put_u64(block + AT_INCARNATION, header->incarnation);
    put_u64(block + AT_CHECKSUM, checksum64(block, AT_CHECKSUM, segment_seed));
}

enum status wal__segment_header_decode(const uint8_t *block, struct wal__segment_header *ret_header) {
    if (memcmp(block, segment_magic, sizeof segment_magic) != 0 ||
        get_u64(block + AT_CHECKSUM) != checksum64(block, AT_CHECKSUM, segment_seed)) {
        return STATUS_CORRUPT;
    }
    if (get_u32(block + AT_VERSION) != WAL_FORMAT_VERSION) {
        return STATUS_UNSUPPORTED;
    }
    uint32_t flags = get_u32(block + AT_FLAGS);
    if ((flags & ~(uint32_t)FLAGS_KNOWN) != 0) {
        return STATUS_UNSUPPORTED;
    }
    struct wal__segment_header header = {.node_id = get_u64(block + AT_NODE),
                                         .number = get_u64(block + AT_NUMBER),
                                         .generation = get_u64(block + AT_GENERATION),
                                         .bytes = get_u64(block + AT_BYTES),
                                         .incarnation = get_u64(block + AT_INCARNATION),
                                         .recycled = (flags & FLAG_RECYCLED) != 0};
    memcpy(header.cluster_id, block + AT_CLUSTER, WAL_CLUSTER_ID_BYTES);
    if (header.incarnation == 0) {
        return STATUS_CORRUPT;
    }
    *ret_header = header;
    return STATUS_OK;
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

void wal__segment_path(char *path, const char *dir, uint64_t number, const char *suffix) {
    int len = snprintf(path, LIMIT_PATH_BYTES, "%s/%016" PRIx64 ".log%s", dir, number, suffix);
    CHECK(len > 0 && len < LIMIT_PATH_BYTES);
}

bool wal__segment_parse_name(const char *name, const char *suffix, uint64_t *ret_number) {
    uint64_t number = 0;
    for (int i = 0; i < NUMBER_DIGITS; i++) {
        const char *digits = "0123456789abcdef";
        const char *digit = name[i] == '\0' ? NULL : strchr(digits, name[i]);
        if (digit == NULL) {
            return false;
        }
        number = number << 4 | (uint64_t)(digit - digits);
    }
    if (strncmp(name + NUMBER_DIGITS, ".log", 4) != 0 || strcmp(name + NUMBER_DIGITS + 4, suffix) != 0) {
        return false;
    }
    *ret_number = number;
    return true;
}

/* ---- Making one (blocking) -------------------------------------------------------------------------------------- */

/* Every byte up to filled_bytes is written, so that later writes there change no metadata of the file. */
static enum status fill(struct env *env, struct env_file *file, const struct wal__segment_header *header,
                        struct error *err) {
    size_t chunk_bytes = header->bytes < WAL_SCAN_BYTES ? (size_t)header->bytes : WAL_SCAN_BYTES;
    uint8_t *chunk = mem_alloc_aligned(env->alloc, WAL_BLOCK_BYTES, chunk_bytes);
    if (chunk == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to prepare a log segment");
    }
    memset(chunk, 0, chunk_bytes);
    wal__segment_header_seal(chunk, header);
    enum status status = header->filled_bytes < header->bytes ? env_allocate(file, header->bytes, err) : STATUS_OK;
    uint64_t filled_bytes = status == STATUS_OK ? header->filled_bytes : header->bytes;
    status = status == STATUS_UNSUPPORTED ? STATUS_OK : status;
    for (uint64_t offset = 0; status == STATUS_OK && offset < filled_bytes; offset += chunk_bytes) {
        uint64_t left = filled_bytes - offset;
        status = env_pwrite(file, chunk, left < chunk_bytes ? (size_t)left : chunk_bytes, offset, err);
        if (offset == 0) {
            memset(chunk, 0, WAL_SEGMENT_HEADER_BYTES);
        }
    }
    mem_free(env->alloc, chunk);
    return status == STATUS_OK ? env_sync(file, err) : status;
}

/* Gives the synced file `temporary` the name `path`, durably, and opens it by that. A failure removes both names;
 * should that fail, too, the next opening does it. */
static enum status publish(struct env *env, const char *dir, const char *temporary, const char *path,
                           struct env_file **ret_file, struct error *err) {
    struct env_file *file = NULL;
    struct error ignored;
    enum status status = env_rename(env, temporary, path, err);
    if (status != STATUS_OK) {
        (void)!env_unlink(env, temporary, &ignored);
        return status;
    }
    status = env_sync_dir(env, dir, err);
    if (status == STATUS_OK) {
        status = env_open(env, path, ENV_OPEN_READ | ENV_OPEN_WRITE | ENV_OPEN_DIRECT, &file, err);
    }
    if (status != STATUS_OK) {
        (void)!env_unlink(env, path, &ignored);
        return status;
    }
    *ret_file = file;
    return STATUS_OK;
}

enum status wal__segment_create(struct env *env, const char *dir, const struct wal__segment_header *header,
                                struct env_file **ret_file, struct error *err) {
    CHECK(header->bytes % WAL_BLOCK_BYTES == 0 && header->number > 0 && !header->recycled);
    static_assert(HEADER_USED <= AT_CHECKSUM, "the header block holds its fields");
    char temporary[LIMIT_PATH_BYTES];
    char path[LIMIT_PATH_BYTES];
    wal__segment_path(temporary, dir, header->number, ".tmp");
    wal__segment_path(path, dir, header->number, "");
    struct env_file *file = NULL;
    struct error ignored;
    enum status status = env_fault_point(env, FAULT_WAL_SEGMENT_PREPARE, err);
    if (status != STATUS_OK) {
        return status;
    }
    status =
        env_open(env, temporary, ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_TRUNCATE | ENV_OPEN_DIRECT, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = fill(env, file, header, err);
    env_close(file);
    if (status != STATUS_OK) {
        bool is_gone = env_unlink(env, temporary, &ignored) == STATUS_OK;
        /* Gives the space back, at the latest when the directory is durable: a smaller one may fit then. */
        if (status == STATUS_NO_SPACE && is_gone && env_sync_dir(env, dir, &ignored) != STATUS_OK) {
            status = ignored.code;
            if (err != NULL) {
                *err = ignored;
            }
        }
        return status;
    }
    return publish(env, dir, temporary, path, ret_file, err);
}

void wal__segment_open_cached(const struct wal *wal, struct wal__segment *segment) {
    struct error ignored;
    CHECK(segment->file != NULL && segment->cached == NULL);
    if (wal->options.share_payload_bytes > 0 &&
        env_open(wal->env, env_file_path(segment->file), ENV_OPEN_WRITE, &segment->cached, &ignored) != STATUS_OK) {
        segment->cached = NULL;
    }
}

void wal__segment_close(struct wal__segment *segment) {
    env_close(segment->cached);
    env_close(segment->file);
    segment->cached = NULL;
    segment->file = NULL;
}

/* ---- ... out of an old one (blocking) --------------------------------------------------------------------------- */

enum status wal__segment_set_aside(struct env *env, const char *dir, uint64_t number, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    char aside[LIMIT_PATH_BYTES];
    wal__segment_path(path, dir, number, "");
    wal__segment_path(aside, dir, number, ".tmp");
    return env_rename(env, path, aside, err);
}

/* The header, and nothing where the start group goes: what stands there now was one. */
static enum status write_head(struct env *env, struct env_file *file, const struct wal__segment_header *header,
                              struct error *err) {
    uint8_t *head = mem_alloc_aligned(env->alloc, WAL_BLOCK_BYTES, WAL_FIRST_RECORDS_OFFSET);
    if (head == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory to prepare a log segment");
    }
    memset(head, 0, WAL_FIRST_RECORDS_OFFSET);
    wal__segment_header_seal(head, header);
    enum status status = env_pwrite(file, head, WAL_FIRST_RECORDS_OFFSET, 0, err);
    mem_free(env->alloc, head);
    return status == STATUS_OK ? env_sync(file, err) : status;
}

enum status wal__segment_reuse(struct env *env, const char *dir, uint64_t old_number,
                               const struct wal__segment_header *header, struct env_file **ret_file,
                               struct error *err) {
    CHECK(header->recycled && header->number > old_number);
    char aside[LIMIT_PATH_BYTES];
    char path[LIMIT_PATH_BYTES];
    wal__segment_path(aside, dir, old_number, ".tmp");
    wal__segment_path(path, dir, header->number, "");
    struct env_file *file = NULL;
    struct error ignored;
    enum status status = env_fault_point(env, FAULT_WAL_SEGMENT_PREPARE, err);
    if (status == STATUS_OK) {
        status = env_open(env, aside, ENV_OPEN_WRITE | ENV_OPEN_DIRECT, &file, err);
    }
    if (status == STATUS_OK) {
        status = write_head(env, file, header, err);
    }
    env_close(file);
    if (status != STATUS_OK) {
        (void)!env_unlink(env, aside, &ignored);
        return status;
    }
    return publish(env, dir, aside, path, ret_file, err);
}
