/* Open tables: checks at open, block reads, point lookups. */
#include "storage/sst.h"

#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/block.h"
#include "storage/sst_format.h"
#include "storage/sst_internal.h"

#include <inttypes.h>

/* ---- Reading ------------------------------------------------------------------------------------------------- */

static enum status damaged(const struct sst *sst, enum status status, const char *what, uint64_t offset,
                           struct error *err) {
    return error_set(err, status, "%s: %s at offset %" PRIu64 " %s", env_file_path(sst->file), what, offset,
                     status == STATUS_UNSUPPORTED ? "is of an unknown version" : "is damaged");
}

/* Exactly len bytes, or STATUS_CORRUPT. */
static enum status read_exactly(const struct sst *sst, void *data, size_t len, uint64_t offset, struct error *err) {
    size_t got = 0;
    enum status status = env_fault_point(sst->env, FAULT_SST_READ, err);
    if (status == STATUS_OK) {
        status = env_pread(sst->file, data, len, offset, &got, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "%s: reading at offset %" PRIu64, env_file_path(sst->file), offset);
        return status;
    }
    if (got != len) {
        return error_set(err, STATUS_CORRUPT, "%s: ends at offset %" PRIu64 ", inside what starts at %" PRIu64,
                         env_file_path(sst->file), offset + got, offset);
    }
    return STATUS_OK;
}

static enum status read_block(const struct sst *sst, const struct sst_handle *handle, enum sst_block_kind kind,
                              struct buf *buf, struct slice *ret_body, struct error *err) {
    size_t len = (size_t)handle->size + SST_TRAILER_BYTES;
    buf_clear(buf);
    if (buf_reserve(buf, len) != STATUS_OK) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory for a block of %zu bytes", env_file_path(sst->file),
                         len);
    }
    enum status status = read_exactly(sst, buf->data, len, handle->offset, err);
    if (status != STATUS_OK) {
        return status;
    }
    buf->len = len;
    status = sst_block_check(buf_slice(buf), kind, sst->meta.id, handle->offset, ret_body);
    return status == STATUS_OK ? STATUS_OK : damaged(sst, status, "the block", handle->offset, err);
}

enum status sst__read_data(const struct sst *sst, const struct entry *index_entry, struct buf *buf,
                           struct block_cursor *cursor, uint64_t *ret_offset, struct error *err) {
    struct sst_handle handle;
    struct slice body = SLICE_EMPTY;
    enum status status = sst_handle_decode(index_entry->value, SST_HEADER_BYTES, sst->data_end, &handle);
    if (status != STATUS_OK) {
        return sst__damaged_index(sst, err);
    }
    status = read_block(sst, &handle, SST_BLOCK_DATA, buf, &body, err);
    if (status != STATUS_OK) {
        return status;
    }
    *ret_offset = handle.offset;
    status = block_cursor_open(cursor, body);
    return status == STATUS_OK ? STATUS_OK : sst__damaged_block(sst, handle.offset, err);
}

enum status sst__damaged_block(const struct sst *sst, uint64_t offset, struct error *err) {
    return damaged(sst, STATUS_CORRUPT, "the block", offset, err);
}

enum status sst__damaged_index(const struct sst *sst, struct error *err) {
    return damaged(sst, STATUS_CORRUPT, "the index behind the data", sst->data_end, err);
}

/* ---- Opening ------------------------------------------------------------------------------------------------- */

static enum status check_header(struct sst *sst, const uint8_t *cluster_id, struct error *err) {
    uint8_t bytes[SST_HEADER_BYTES];
    struct sst_header header;
    enum status status = read_exactly(sst, bytes, sizeof bytes, 0, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst_header_decode(bytes, &header);
    if (status != STATUS_OK) {
        return damaged(sst, status, "the header", 0, err);
    }
    if (header.id != sst->meta.id || memcmp(header.cluster_id, cluster_id, SST_CLUSTER_ID_BYTES) != 0) {
        return error_set(err, STATUS_CORRUPT, "%s: the header at offset 0 is another table's or cluster's",
                         env_file_path(sst->file));
    }
    return STATUS_OK;
}

static bool properties_agree(const struct sst_properties *properties, const struct sst_meta *meta) {
    return properties->entries == meta->entries && properties->revision_first == meta->revision_first &&
           properties->revision_last == meta->revision_last && slice_equal(properties->smallest, meta->smallest) &&
           slice_equal(properties->largest, meta->largest);
}

static enum status read_tail(struct sst *sst, struct error *err) {
    uint8_t bytes[SST_FOOTER_BYTES];
    struct sst_footer footer;
    struct sst_properties properties = {.smallest = SLICE_EMPTY};
    struct slice body = SLICE_EMPTY;
    struct buf scratch;
    buf_init(&scratch, sst->env->alloc, 0);
    uint64_t footer_at = sst->meta.size_bytes - SST_FOOTER_BYTES;
    enum status status = read_exactly(sst, bytes, sizeof bytes, footer_at, err);
    if (status != STATUS_OK) {
        goto out;
    }
    status = sst_footer_decode(bytes, sst->meta.id, sst->meta.size_bytes, &footer);
    if (status != STATUS_OK) {
        status = damaged(sst, status, "the footer", footer_at, err);
        goto out;
    }
    status = read_block(sst, &footer.properties, SST_BLOCK_PROPERTIES, &scratch, &body, err);
    if (status != STATUS_OK) {
        goto out;
    }
    status = sst_properties_decode(body, &properties);
    if (status != STATUS_OK || !properties_agree(&properties, &sst->meta)) {
        status = damaged(sst, STATUS_CORRUPT, "the properties block", footer.properties.offset, err);
        goto out;
    }
    sst->data_end = footer.index.offset;
    status = read_block(sst, &footer.index, SST_BLOCK_INDEX, &sst->index, &sst->index_body, err);
out:
    buf_deinit(&scratch);
    return status;
}

static enum status copy_meta(struct sst *sst, const struct sst_meta *meta) {
    CHECK(meta->smallest.len >= 1 && meta->largest.len >= 1);
    sst->keys = mem_alloc(sst->env->alloc, meta->smallest.len + meta->largest.len);
    if (sst->keys == NULL) {
        return STATUS_NO_MEMORY;
    }
    memcpy(sst->keys, meta->smallest.data, meta->smallest.len);
    memcpy(sst->keys + meta->smallest.len, meta->largest.data, meta->largest.len);
    sst->meta = *meta;
    sst->meta.smallest = slice_of(sst->keys, meta->smallest.len);
    sst->meta.largest = slice_of(sst->keys + meta->smallest.len, meta->largest.len);
    return STATUS_OK;
}

enum status sst_open(struct env *env, const char *path, const struct sst_meta *meta,
                     const uint8_t cluster_id[SST_CLUSTER_ID_BYTES], struct sst **ret_sst, struct error *err) {
    uint64_t size_bytes;
    struct sst *sst = mem_alloc_zero(env->alloc, sizeof *sst);
    if (sst == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to open it", path);
    }
    sst->env = env;
    buf_init(&sst->index, env->alloc, 0);
    enum status status = copy_meta(sst, meta);
    if (status != STATUS_OK) {
        (void)error_set(err, status, "%s: no memory to open it", path);
        goto out;
    }
    status = env_open(env, path, ENV_OPEN_READ, &sst->file, err);
    if (status != STATUS_OK) {
        goto out;
    }
    status = env_size(sst->file, &size_bytes, err);
    if (status != STATUS_OK) {
        goto out;
    }
    if (size_bytes != meta->size_bytes || size_bytes < SST_HEADER_BYTES + SST_FOOTER_BYTES) {
        status = error_set(err, STATUS_CORRUPT, "%s: has %" PRIu64 " bytes, the manifest says %" PRIu64, path,
                           size_bytes, meta->size_bytes);
        goto out;
    }
    status = check_header(sst, cluster_id, err);
    if (status == STATUS_OK) {
        status = read_tail(sst, err);
    }
    if (status == STATUS_OK) {
        *ret_sst = sst;
        return STATUS_OK;
    }
out:
    sst_free(sst);
    return status;
}

void sst_free(struct sst *sst) {
    if (sst == NULL) {
        return;
    }
    struct alloc *alloc = sst->env->alloc;
    CHECK(sst->refs == 0);
    env_close(sst->file);
    buf_deinit(&sst->index);
    mem_free(alloc, sst->keys);
    mem_free(alloc, sst);
}

/* ---- Lookups ------------------------------------------------------------------------------------------------- */

bool sst_may_hold(const struct sst *sst, struct slice key, uint64_t revision) {
    return sst->meta.revision_first <= revision && slice_compare(sst->meta.smallest, key) <= 0 &&
           slice_compare(key, sst->meta.largest) <= 0;
}

bool sst_overlaps(const struct sst *sst, struct slice lower, struct slice upper) {
    return slice_compare(sst->meta.largest, lower) >= 0 &&
           (upper.len == 0 || slice_compare(sst->meta.smallest, upper) < 0);
}

enum status sst_get(struct sst *sst, struct slice key, uint64_t revision, struct buf *scratch, struct entry *ret_entry,
                    struct error *err) {
    struct block_cursor cursor;
    struct entry_key target = entry_key_at(key, revision);
    uint64_t offset = 0;
    /* A block's separator is at or behind its last entry, and a version of `key` can only be in the first block whose
     * separator is not in front of the target: a separator between two user keys sorts in front of all versions of the
     * second. */
    enum status status = block_cursor_open(&cursor, sst->index_body);
    if (status == STATUS_OK) {
        status = block_cursor_seek(&cursor, &target);
    }
    if (status != STATUS_OK) {
        return status == STATUS_NOT_FOUND ? status : sst__damaged_index(sst, err);
    }
    struct entry index_entry = cursor.entry;
    status = sst__read_data(sst, &index_entry, scratch, &cursor, &offset, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = block_cursor_seek(&cursor, &target);
    if (status == STATUS_CORRUPT) {
        return sst__damaged_block(sst, offset, err);
    }
    if (status != STATUS_OK || !slice_equal(cursor.entry.key.user, key)) {
        return STATUS_NOT_FOUND;
    }
    *ret_entry = cursor.entry;
    ret_entry->key.user = key;
    return STATUS_OK;
}
