/*
 * A cursor that passes over damage.
 *
 *   partition -> its index -> data block -> entries
 *
 * Whatever can't be read or is out of order is skipped in the smallest piece that can be told: the rest of a block, a
 * block, a partition. The keys between which something is missing are those around the piece.
 */
#include "storage/salvage.h"

#include "node/base/check.h"
#include "storage/file_names.h"
#include "storage/sst_internal.h"

struct salvage {
    struct cursor base;
    struct sst *sst;
    const struct salvage_listener *listener;
    uint32_t part;
    struct cache_block *index; /* of the partition under way; NULL: none */
    struct cache_block *data;  /* the block under way; NULL: none */
    bool index_fresh;          /* its cursor stands before the first */
    bool data_fresh;
    uint64_t start;       /* where the next data block may begin at the earliest */
    uint64_t data_offset; /* of the block under way */
    struct block_cursor index_cursor;
    struct block_cursor data_cursor;
    struct entry_key last; /* user.len 0: none yet */
    uint8_t last_user[LIMIT_KEY_BYTES];
};

static void lose(struct salvage *salvage, uint64_t offset, struct slice until) {
    salvage->listener->lost(salvage->listener->context, salvage->sst, offset, salvage->last.user, until);
}

static void release(struct salvage *salvage, struct cache_block **block) {
    if (*block != NULL) {
        cache_release(salvage->sst->context->cache, *block);
        *block = NULL;
    }
}

static enum status read_block(struct salvage *salvage, const struct sst_handle *handle, enum sst_block_kind kind,
                              struct cache_block **ret_block) {
    struct error err;
    enum status status = sst__pin(salvage->sst, &err);
    if (status == STATUS_OK) {
        status = sst__read_block(salvage->sst, handle, kind, ret_block, &err);
        open_file_unpin(&salvage->sst->file);
    }
    return status;
}

static struct slice body_of(const struct cache_block *block) { return slice_of(block->data, block->len); }

/* Each of the three below: STATUS_OK: something was got or skipped, go on; STATUS_NO_MEMORY. */

static enum status enter_partition(struct salvage *salvage) {
    const struct sst_top *top = sst__top(salvage->sst);
    const struct sst_handle *here = &top->parts[salvage->part].handle;
    struct sst_partition partition;
    salvage->start = sst__part_start(top, salvage->part);
    enum status status = read_block(salvage, here, SST_BLOCK_PARTITION, &salvage->index);
    if (status == STATUS_OK) {
        status = sst_partition_open(body_of(salvage->index), &partition);
    }
    if (status == STATUS_OK) {
        status = block_cursor_open(&salvage->index_cursor, partition.index);
    }
    salvage->index_fresh = true;
    if (status == STATUS_OK || status == STATUS_NO_MEMORY) {
        return status;
    }
    lose(salvage, here->offset, sst__part_key(top, salvage->part).user);
    release(salvage, &salvage->index);
    salvage->part++;
    return STATUS_OK;
}

static enum status enter_block(struct salvage *salvage) {
    const struct sst_top *top = sst__top(salvage->sst);
    const struct sst_handle *here = &top->parts[salvage->part].handle;
    struct block_cursor *index = &salvage->index_cursor;
    struct sst_handle handle = {.offset = here->offset};
    enum status status = salvage->index_fresh ? block_cursor_first(index) : block_cursor_next(index);
    salvage->index_fresh = false;
    if (status == STATUS_OK) {
        status = sst_handle_decode(index->entry.value, salvage->start, here->offset, &handle);
    }
    if (status != STATUS_OK) { /* the partition's end, or no way on */
        if (status != STATUS_NOT_FOUND) {
            lose(salvage, here->offset, sst__part_key(top, salvage->part).user);
        }
        release(salvage, &salvage->index);
        salvage->part++;
        return STATUS_OK;
    }
    salvage->start = handle.offset + handle.size + SST_TRAILER_BYTES;
    salvage->data_offset = handle.offset;
    salvage->data_fresh = true;
    status = read_block(salvage, &handle, SST_BLOCK_DATA, &salvage->data);
    if (status == STATUS_OK) {
        status = block_cursor_open(&salvage->data_cursor, body_of(salvage->data));
    }
    if (status == STATUS_OK || status == STATUS_NO_MEMORY) {
        return status;
    }
    lose(salvage, handle.offset, index->entry.key.user);
    release(salvage, &salvage->data);
    return STATUS_OK;
}

/* *ret_found: there is one more. */
static void next_entry(struct salvage *salvage, bool *ret_found) {
    struct block_cursor *data = &salvage->data_cursor;
    enum status status = salvage->data_fresh ? block_cursor_first(data) : block_cursor_next(data);
    salvage->data_fresh = false;
    const struct entry_key *key = &data->entry.key;
    if (status == STATUS_OK && salvage->last.user.len > 0 && entry_key_compare(&salvage->last, key) >= 0) {
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_OK) {
        memcpy(salvage->last_user, key->user.data, key->user.len);
        salvage->last = *key;
        salvage->last.user = slice_of(salvage->last_user, key->user.len);
        salvage->base.entry = data->entry;
        *ret_found = true;
        return;
    }
    if (status != STATUS_NOT_FOUND) {
        lose(salvage, salvage->data_offset, salvage->index_cursor.entry.key.user);
    }
    release(salvage, &salvage->data);
}

static enum status next(struct cursor *base, struct error *err) {
    struct salvage *salvage = (struct salvage *)base;
    const struct sst_top *top = sst__top(salvage->sst);
    enum status status = STATUS_OK;
    bool found = false;
    while (status == STATUS_OK && !found) {
        if (salvage->data != NULL) {
            next_entry(salvage, &found);
        } else if (salvage->index != NULL) {
            status = enter_block(salvage);
        } else if (salvage->part < top->part_count) {
            status = enter_partition(salvage);
        } else {
            return STATUS_NOT_FOUND;
        }
    }
    return status == STATUS_OK ? status : error_set(err, status, "no memory for a block");
}

static enum status first(struct cursor *base, struct error *err) {
    struct salvage *salvage = (struct salvage *)base;
    release(salvage, &salvage->data);
    release(salvage, &salvage->index);
    salvage->part = 0;
    salvage->last.user = SLICE_EMPTY;
    return next(base, err);
}

static enum status refuse_target(struct cursor *base, const struct entry_key *target, struct error *err) {
    (void)base;
    (void)target;
    return error_set(err, STATUS_UNSUPPORTED, "a salvage goes forward only");
}

static enum status refuse(struct cursor *base, struct error *err) { return refuse_target(base, NULL, err); }

static void free_cursor(struct cursor *base) {
    struct salvage *salvage = (struct salvage *)base;
    release(salvage, &salvage->data);
    release(salvage, &salvage->index);
    mem_free(base->alloc, salvage);
}

struct cursor *salvage_cursor_new(struct alloc *alloc, struct sst *sst, const struct salvage_listener *listener) {
    static const struct cursor_ops ops = {.seek = refuse_target,
                                          .seek_before = refuse_target,
                                          .first = first,
                                          .last = refuse,
                                          .next = next,
                                          .prev = refuse,
                                          .free = free_cursor};
    CHECK(sst__top(sst) != NULL);
    struct salvage *salvage = mem_alloc_zero(alloc, sizeof *salvage);
    if (salvage == NULL) {
        return NULL;
    }
    salvage->base = (struct cursor){.ops = &ops, .alloc = alloc};
    salvage->sst = sst;
    salvage->listener = listener;
    return &salvage->base;
}

/* ---- A table without a manifest -------------------------------------------------------------------------------- */

static enum status read_all(struct env_file *file, void *data, size_t len, uint64_t offset, struct error *err) {
    size_t got = 0;
    enum status status = env_pread(file, data, len, offset, &got, err);
    return status == STATUS_OK && got != len ? error_set(err, STATUS_CORRUPT, "%s: ends early", env_file_path(file))
                                             : status;
}

static void fill_meta(const struct sst_properties *properties, struct sst_meta *meta) {
    meta->entries = properties->entries;
    meta->deletes = properties->deletes;
    meta->tombstones = properties->tombstones;
    meta->superseded = properties->superseded;
    meta->superseded_until = properties->superseded_until;
    meta->key_bytes = properties->key_bytes;
    meta->value_bytes = properties->value_bytes;
    meta->revision_first = properties->revision_first;
    meta->revision_last = properties->revision_last;
    meta->smallest = properties->smallest;
    meta->largest = properties->largest;
    meta->largest_excluded = properties->largest_excluded != 0;
}

/* The plain properties block, appended to body. */
static enum status read_properties(struct env_file *file, struct alloc *alloc, uint64_t id, uint64_t size_bytes,
                                   struct buf *body, struct error *err) {
    uint8_t footer_bytes[SST_FOOTER_BYTES];
    struct sst_footer footer;
    struct sst_stored stored;
    struct buf raw;
    buf_init(&raw, alloc, 0);
    enum status status = read_all(file, footer_bytes, sizeof footer_bytes, size_bytes - SST_FOOTER_BYTES, err);
    if (status == STATUS_OK) {
        status = sst_footer_decode(footer_bytes, id, size_bytes, &footer);
    }
    if (status == STATUS_OK) {
        size_t len = (size_t)footer.properties.size + SST_TRAILER_BYTES;
        status = buf_reserve(&raw, len);
        if (status == STATUS_OK) {
            status = read_all(file, raw.data, len, footer.properties.offset, err);
        }
        if (status == STATUS_OK) {
            status =
                sst_block_check(slice_of(raw.data, len), SST_BLOCK_PROPERTIES, id, footer.properties.offset, &stored);
        }
    }
    if (status == STATUS_OK) {
        status = buf_reserve(body, stored.size);
    }
    if (status == STATUS_OK) {
        status = sst_block_unpack(alloc, &stored, body->data);
        body->len = stored.size;
    }
    buf_deinit(&raw);
    return status;
}

static enum status read_meta(const struct sst_context *context, struct env_file *file, struct sst_meta *meta,
                             struct buf *body, struct error *err) {
    uint8_t header_bytes[SST_HEADER_BYTES];
    struct sst_header header;
    struct sst_properties properties;
    enum status status = env_size(file, &meta->size_bytes, err);
    if (status == STATUS_OK && meta->size_bytes < SST_HEADER_BYTES + SST_FOOTER_BYTES) {
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_OK) {
        status = read_all(file, header_bytes, sizeof header_bytes, 0, err);
    }
    if (status == STATUS_OK) {
        status = sst_header_decode(header_bytes, &header);
    }
    if (status == STATUS_OK && memcmp(header.cluster_id, context->cluster_id, SST_CLUSTER_ID_BYTES) != 0) {
        status = STATUS_INVALID;
    }
    if (status == STATUS_OK) {
        meta->id = header.id;
        status = read_properties(file, context->env->alloc, header.id, meta->size_bytes, body, err);
    }
    if (status == STATUS_OK) {
        status = sst_properties_decode(buf_slice(body), &properties);
    }
    if (status == STATUS_OK) {
        fill_meta(&properties, meta);
    }
    return status;
}

enum status salvage_table(const struct sst_context *context, uint64_t number, struct sst **ret_sst, struct error *err) {
    struct sst_meta meta = {.number = number};
    struct env_file *file;
    struct buf body;
    char path[LIMIT_PATH_BYTES];
    file_path_sst(path, context->dir, number);
    enum status status = env_open(context->env, path, ENV_OPEN_READ, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    buf_init(&body, context->env->alloc, 0);
    status = read_meta(context, file, &meta, &body, err);
    if (status == STATUS_OK && (meta.smallest.len == 0 || meta.largest.len == 0)) {
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_OK) {
        status = sst_new(context, &meta, ret_sst);
    }
    env_close(file);
    buf_deinit(&body);
    if (status != STATUS_OK) {
        const char *why = status == STATUS_NO_MEMORY ? "no memory to read it"
                          : status == STATUS_INVALID ? "belongs to another cluster"
                                                     : "its header, footer or properties can't be read";
        return error_set(err, status, "%s: %s", path, why);
    }
    return STATUS_OK;
}
