/* Tables: their life, reading and checking blocks, lookups of one key. */
#include "storage/sst.h"

#include "node/base/check.h"
#include "storage/file_names.h"
#include "storage/sst_internal.h"
#include "storage/value_file.h"

#include <errno.h>
#include <inttypes.h>

void sst_path(const struct sst *sst, char *out) {
    (sst->is_values    ? file_path_values
     : sst->is_changes ? file_path_changes
                       : file_path_sst)(out, sst->context->dir, sst->meta.number);
}

/* ---- Messages -------------------------------------------------------------------------------------------------- */

enum status sst__damaged(struct sst *sst, enum status status, const char *what, uint64_t offset, struct error *err) {
    struct error own;
    char path[LIMIT_PATH_BYTES];
    struct error *said = err != NULL ? err : &own;
    sst_path(sst, path);
    (void)error_set(said, status, "%s: %s at offset %" PRIu64 " %s", path, what, offset,
                    status == STATUS_UNSUPPORTED ? "is of an unknown version" : "is damaged");
    if (sst->context->damaged != NULL) {
        sst->context->damaged(sst->context->damaged_context, sst, said);
    }
    return status;
}

enum status sst__no_memory(const struct sst *sst, size_t bytes, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    sst_path(sst, path);
    return error_set(err, STATUS_NO_MEMORY, "%s: no memory for %zu bytes of it", path, bytes);
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

enum status sst_new(const struct sst_context *context, const struct sst_meta *meta, struct sst **ret_sst) {
    struct alloc *alloc = context->env->alloc;
    CHECK(meta->smallest.len >= 1 && meta->largest.len >= 1);
    size_t refs_len = meta->value_ref_count * sizeof(struct value_ref);
    struct sst *sst = mem_alloc_zero(alloc, sizeof *sst);
    uint8_t *memory = mem_alloc(alloc, refs_len + meta->smallest.len + meta->largest.len);
    if (sst == NULL || memory == NULL) {
        mem_free(alloc, sst);
        mem_free(alloc, memory);
        return STATUS_NO_MEMORY;
    }
    uint8_t *keys = memory + refs_len;
    if (refs_len > 0) {
        memcpy(memory, meta->value_refs, refs_len);
    }
    memcpy(keys, meta->smallest.data, meta->smallest.len);
    memcpy(keys + meta->smallest.len, meta->largest.data, meta->largest.len);
    sst->context = context;
    sst->memory = memory;
    sst->meta = *meta;
    sst->meta.value_refs = refs_len == 0 ? NULL : (const struct value_ref *)(const void *)memory;
    sst->meta.smallest = slice_of(keys, meta->smallest.len);
    sst->meta.largest = slice_of(keys + meta->smallest.len, meta->largest.len);
    atomic_init(&sst->top, NULL);
    open_file_init(&sst->file, context->files);
    *ret_sst = sst;
    return STATUS_OK;
}

void sst_free(struct sst *sst) {
    if (sst == NULL) {
        return;
    }
    struct alloc *alloc = sst->context->env->alloc;
    CHECK(sst->refs == 0);
    open_file_deinit(&sst->file);
    sst__free_top(sst);
    mem_free(alloc, sst->memory);
    mem_free(alloc, sst);
}

enum status sst_load(struct sst *sst, struct error *err) { return sst__load_top(sst, err); }

bool sst_may_hold(const struct sst *sst, struct slice key, uint64_t revision) {
    if (sst->meta.revision_first > revision || slice_compare(sst->meta.smallest, key) > 0) {
        return false;
    }
    int order = slice_compare(key, sst->meta.largest);
    return sst->meta.largest_excluded ? order < 0 : order <= 0;
}

bool sst_overlaps(const struct sst *sst, struct slice lower, struct slice upper) {
    int order = slice_compare(lower, sst->meta.largest);
    return (sst->meta.largest_excluded ? order < 0 : order <= 0) &&
           (upper.len == 0 || slice_compare(sst->meta.smallest, upper) < 0);
}

/* ---- Reading --------------------------------------------------------------------------------------------------- */

/* The bytes are lost to the owner as those of a bad checksum are, and he may have them elsewhere; who asked gets what
 * the disk said. */
static void unreadable(struct sst *sst, uint64_t offset, struct error *err) {
    struct error own;
    char path[LIMIT_PATH_BYTES];
    struct error *said = err != NULL ? err : &own;
    if (err == NULL) {
        sst_path(sst, path);
        (void)error_set(said, STATUS_IO, "%s: what stands at offset %" PRIu64 " can't be read", path, offset);
    }
    if (sst->context->damaged != NULL) {
        sst->context->damaged(sst->context->damaged_context, sst, said);
    }
}

static bool is_lost(enum status status, const struct error *error) {
    return status == STATUS_NOT_FOUND || (status == STATUS_IO && error->sys == EIO);
}

enum status sst__pin(struct sst *sst, struct error *err) {
    char path[LIMIT_PATH_BYTES];
    struct error error = {0};
    if (open_file_pin(&sst->file) == STATUS_OK) {
        return STATUS_OK;
    }
    sst_path(sst, path);
    enum status status = open_file_open(&sst->file, path, &error);
    if (is_lost(status, &error)) {
        status = open_file_open(&sst->file, path, &error);
        if (is_lost(status, &error)) {
            unreadable(sst, 0, &error);
        }
    }
    if (status != STATUS_OK && err != NULL) {
        *err = error;
    }
    return status;
}

/* Fewer bytes than asked for: the file was cut. */
static enum status read_exactly(struct sst *sst, struct env_file *file, void *data, size_t len, uint64_t offset,
                                struct error *err) {
    size_t got = 0;
    enum status status = env_pread(file, data, len, offset, &got, err);
    if (status != STATUS_OK) {
        error_prefix(err, "%s: reading at offset %" PRIu64, env_file_path(file), offset);
        return status;
    }
    if (got != len) {
        return sst__damaged(sst, STATUS_CORRUPT, "the file ends early: what stands", offset, err);
    }
    return STATUS_OK;
}

static enum status read_once(struct sst *sst, void *data, size_t len, uint64_t offset, struct error *err) {
    enum status status = env_fault_point(sst->context->env, FAULT_SST_READ, err);
    if (status != STATUS_OK) {
        error_prefix(err, "%s: reading at offset %" PRIu64, env_file_path(sst->file.file), offset);
        return status;
    }
    return read_exactly(sst, sst->file.file, data, len, offset, err);
}

enum status sst__read(struct sst *sst, void *data, size_t len, uint64_t offset, struct error *err) {
    enum status status = read_once(sst, data, len, offset, err);
    return status == STATUS_IO ? sst__read_again(sst, data, len, offset, err) : status;
}

static enum status read_past_cache(struct sst *sst, void *data, size_t len, uint64_t offset, struct error *err) {
    struct env *env = sst->context->env;
    uint64_t start = offset / ENV_BLOCK_BYTES * ENV_BLOCK_BYTES;
    size_t room = (size_t)((offset + len - start + ENV_BLOCK_BYTES - 1) / ENV_BLOCK_BYTES * ENV_BLOCK_BYTES);
    struct env_file *file = NULL;
    size_t got = 0;
    uint8_t *blocks = mem_alloc_aligned(env->alloc, ENV_BLOCK_BYTES, room);
    enum status status = blocks == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    if (status == STATUS_OK) {
        status = env_open(env, env_file_path(sst->file.file), ENV_OPEN_READ | ENV_OPEN_DIRECT, &file, NULL);
    }
    if (status == STATUS_OK) {
        status = env_pread(file, blocks, room, start, &got, NULL);
    }
    if (status == STATUS_OK && got >= offset - start + len) {
        memcpy(data, blocks + (offset - start), len);
    } else { /* not that way: through the page cache, then */
        status = read_exactly(sst, sst->file.file, data, len, offset, err);
    }
    env_close(file);
    mem_free(env->alloc, blocks);
    return status;
}

enum status sst__read_again(struct sst *sst, void *data, size_t len, uint64_t offset, struct error *err) {
    error_clear(err);
    enum status status = env_fault_point(sst->context->env, FAULT_SST_READ, err);
    if (status == STATUS_OK) {
        status = read_past_cache(sst, data, len, offset, err);
    } else {
        error_prefix(err, "%s: reading at offset %" PRIu64, env_file_path(sst->file.file), offset);
    }
    if (status == STATUS_IO) {
        unreadable(sst, offset, err);
    }
    return status;
}

enum status sst__unpack(struct sst *sst, const struct sst_handle *handle, enum sst_block_kind kind,
                        struct cache_block *raw, struct cache_block **ret_block, struct error *err) {
    struct cache *cache = sst->context->cache;
    struct sst_stored stored;
    if (sst->is_log) {
        enum status found = value_log_check(slice_of(raw->data, raw->len));
        *ret_block = found == STATUS_OK ? raw : *ret_block;
        return found;
    }
    enum status status = sst_block_check(slice_of(raw->data, raw->len), kind, sst->meta.id, handle->offset, &stored);
    if (status != STATUS_OK) {
        return status;
    }
    if (stored.compression == COMPRESSION_NONE) {
        raw->len = stored.body.len;
        *ret_block = raw;
        return STATUS_OK;
    }
    struct cache_block *block = cache_block_new(cache, stored.size);
    if (block == NULL) {
        return sst__no_memory(sst, stored.size, err);
    }
    status = sst_block_unpack(sst->context->env->alloc, &stored, block->data);
    if (status != STATUS_OK) {
        cache_release(cache, block);
        return status == STATUS_NO_MEMORY ? sst__no_memory(sst, stored.size, err) : status;
    }
    cache_release(cache, raw);
    *ret_block = block;
    return STATUS_OK;
}

/* A bit may have flipped on the way: in the page cache, on the bus, in our memory. The disk may still have it right, so
 * before a table is called damaged (which makes a node fetch it anew), the bytes are read once more, past the page
 * cache, whose copy may be what is wrong. */
enum status sst__retry_block(struct sst *sst, const struct sst_handle *handle, enum sst_block_kind kind,
                             struct cache_block *raw, struct cache_block **ret_block, struct error *err) {
    enum status status = sst__read_again(sst, raw->data, raw->len, handle->offset, err);
    if (status == STATUS_OK) {
        status = sst__unpack(sst, handle, kind, raw, ret_block, err);
        if (status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED) {
            (void)sst__damaged(sst, status, "the block", handle->offset, err);
        }
    }
    if (status != STATUS_OK) {
        cache_release(sst->context->cache, raw);
    }
    return status;
}

enum status sst__read_block(struct sst *sst, const struct sst_handle *handle, enum sst_block_kind kind,
                            struct cache_block **ret_block, struct error *err) {
    struct cache *cache = sst->context->cache;
    size_t len = (size_t)handle->size + SST_TRAILER_BYTES;
    struct cache_block *raw = cache_block_new(cache, len);
    if (raw == NULL) {
        return sst__no_memory(sst, len, err);
    }
    enum status status = sst__read(sst, raw->data, len, handle->offset, err);
    if (status == STATUS_OK) {
        status = sst__unpack(sst, handle, kind, raw, ret_block, err);
        if (status == STATUS_CORRUPT) {
            return sst__retry_block(sst, handle, kind, raw, ret_block, err);
        }
        if (status == STATUS_UNSUPPORTED) {
            (void)sst__damaged(sst, status, "the block", handle->offset, err);
        }
    }
    if (status != STATUS_OK) {
        cache_release(cache, raw);
    }
    return status;
}

/* ---- Lookups --------------------------------------------------------------------------------------------------- */

/* Where the data block stands that has the version if there is one, by the partition's index. */
static enum status find_block(struct sst *sst, const struct sst_top *top, uint32_t part, struct slice entries,
                              const struct entry_key *target, struct sst_handle *ret_handle, struct error *err) {
    struct block_cursor index;
    const struct sst_handle *here = &top->parts[part].handle;
    enum status status = block_cursor_open(&index, entries);
    if (status == STATUS_OK) {
        status = block_cursor_seek(&index, target);
        /* The top sent us here, so there is a separator at or behind the target. */
        status = status == STATUS_NOT_FOUND ? STATUS_CORRUPT : status;
    }
    if (status == STATUS_OK) {
        status = sst_handle_decode(index.entry.value, sst__part_start(top, part), here->offset, ret_handle);
    }
    return status == STATUS_OK ? STATUS_OK : sst__damaged(sst, status, "the partition", here->offset, err);
}

/* Of a partition that isn't kept: asks its filter, and its index if ret_handle isn't NULL. STATUS_NOT_FOUND: denied. */
static enum status ask_partition(struct sst *sst, struct fetch *fetch, const struct sst_top *top, uint32_t part,
                                 const struct entry_key *target, uint64_t hash, struct sst_handle *ret_handle,
                                 struct error *err) {
    struct sst_partition partition;
    const struct sst_handle *here = &top->parts[part].handle;
    struct cache_block *block;
    enum status status = fetch__block(fetch, sst, here, SST_BLOCK_PARTITION, &block, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst_partition_open(slice_of(block->data, block->len), &partition);
    if (status != STATUS_OK) {
        (void)sst__damaged(sst, status, "the partition", here->offset, err);
    } else {
        sst__keep(sst, top, part, block, &partition);
        status = filter_may_hold(partition.filter, partition.probes, hash) ? STATUS_OK : STATUS_NOT_FOUND;
    }
    if (status == STATUS_OK && ret_handle != NULL) {
        status = find_block(sst, top, part, partition.index, target, ret_handle, err);
    }
    cache_release(sst->context->cache, block);
    return status;
}

/* The same of any partition. One that is kept needs nothing but its filter if that denies. */
static enum status find_handle(struct sst *sst, struct fetch *fetch, const struct sst_top *top, uint32_t part,
                               const struct entry_key *target, uint64_t hash, struct sst_handle *ret_handle,
                               struct error *err) {
    const struct sst_kept *kept = &top->kept[part];
    if (sst__kept(top, part) == NULL) {
        return ask_partition(sst, fetch, top, part, target, hash, ret_handle, err);
    }
    if (!filter_may_hold(sst__kept_filter(kept), kept->probes, hash)) {
        return STATUS_NOT_FOUND;
    }
    return ret_handle == NULL ? STATUS_OK : find_block(sst, top, part, sst__kept_index(kept), target, ret_handle, err);
}

enum status sst__ask_filter(struct sst *sst, struct fetch *fetch, const struct entry_key *target, uint64_t hash,
                            struct error *err) {
    const struct sst_top *top;
    if (!sst_may_hold(sst, target->user, target->revision)) {
        return STATUS_NOT_FOUND;
    }
    enum status status = fetch__top(fetch, sst, &top, err);
    if (status != STATUS_OK) {
        return status;
    }
    uint32_t part = sst__find_part(top, target);
    return part == top->part_count ? STATUS_NOT_FOUND : find_handle(sst, fetch, top, part, target, hash, NULL, err);
}

static enum status get_entry(struct sst *sst, struct fetch *fetch, const struct sst_top *top,
                             const struct entry_key *target, uint64_t hash, struct sst_hold *hold,
                             struct entry *ret_entry, struct error *err) {
    struct cache *cache = sst->context->cache;
    struct block_cursor cursor;
    struct cache_block *block = NULL;
    struct sst_handle handle = {.size = 0};
    uint32_t part = sst__find_part(top, target);
    if (part == top->part_count) {
        return STATUS_NOT_FOUND;
    }
    enum status status = find_handle(sst, fetch, top, part, target, hash, &handle, err);
    if (status == STATUS_OK) {
        status = fetch__block(fetch, sst, &handle, SST_BLOCK_DATA, &block, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = block_cursor_open(&cursor, slice_of(block->data, block->len));
    if (status == STATUS_OK) {
        status = block_cursor_find(&cursor, target->user, hash, target->revision);
    }
    if (status != STATUS_OK) {
        cache_release(cache, block);
        return status == STATUS_CORRUPT ? sst__damaged(sst, status, "the block", handle.offset, err) : status;
    }
    *ret_entry = cursor.entry;
    ret_entry->key.user = target->user;
    *hold = (struct sst_hold){.cache = cache, .block = block};
    return STATUS_OK;
}

enum status sst_get(struct sst *sst, struct fetch *fetch, struct slice key, uint64_t hash, uint64_t revision,
                    struct sst_hold *hold, struct entry *ret_entry, struct tombstone_mark *ret_mark,
                    struct error *err) {
    struct entry_key target = entry_key_at(key, revision);
    const struct sst_top *top = sst__top(sst);
    sst_hold_release(hold);
    *ret_mark = TOMBSTONE_MARK_NONE;
    if (__builtin_expect(top == NULL, 0)) {
        enum status status = fetch__top(fetch, sst, &top, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (top->tombstones != NULL) {
        *ret_mark = tombstones_find(top->tombstones, key, revision, NULL, NULL);
    }
    return get_entry(sst, fetch, top, &target, hash, hold, ret_entry, err);
}

enum status sst_tombstones(struct sst *sst, struct fetch *fetch, const struct tombstones **ret_set, struct error *err) {
    const struct sst_top *top = sst__top(sst);
    if (sst->meta.tombstones == 0) {
        *ret_set = NULL;
        return STATUS_OK;
    }
    if (top == NULL) {
        enum status status = fetch__top(fetch, sst, &top, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    *ret_set = top->tombstones;
    return STATUS_OK;
}
