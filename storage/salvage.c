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
#include "storage/sst_frame.h"
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

/* ---- Files without a manifest ----------------------------------------------------------------------------------- */

/* A frame that was read, as far as it could be. STATUS_INVALID: another cluster's, or another kind of file. */
static enum status read_frame(const struct sst_context *context, const char *path, uint8_t kind,
                              struct sst_frame *frame, struct error *err) {
    struct env_file *file;
    enum status status = env_open(context->env, path, ENV_OPEN_READ, &file, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = sst_frame_read(frame, file, err);
    env_close(file);
    if (frame->has_header && (frame->header.kind != kind ||
                              memcmp(frame->header.cluster_id, context->cluster_id, SST_CLUSTER_ID_BYTES) != 0)) {
        frame->has_header = false;
        return error_set(err, STATUS_INVALID, "%s: belongs to another cluster, or is no such file", path);
    }
    return status;
}

enum status salvage_table(const struct sst_context *context, uint64_t number, struct sst **ret_sst, struct error *err) {
    struct sst_meta meta;
    struct sst_frame frame;
    char path[LIMIT_PATH_BYTES];
    file_path_sst(path, context->dir, number);
    sst_frame_init(&frame, context->env->alloc);
    enum status status = read_frame(context, path, SST_FILE_TABLE, &frame, err);
    if (status == STATUS_OK) {
        sst_frame_meta(&frame, &meta);
        meta.number = number;
        status = sst_new(context, &meta, ret_sst);
        if (status != STATUS_OK) {
            (void)error_set(err, status, "%s: no memory for it", path);
        }
    }
    sst_frame_deinit(&frame);
    return status;
}

enum status salvage_values(const struct sst_context *context, uint64_t number, struct value_meta *ret_meta,
                           bool *ret_whole, struct error *err) {
    struct sst_frame frame;
    char path[LIMIT_PATH_BYTES];
    file_path_values(path, context->dir, number);
    sst_frame_init(&frame, context->env->alloc);
    enum status status = read_frame(context, path, SST_FILE_VALUES, &frame, err);
    bool is_whole = status == STATUS_OK && frame.footer.top.size > 0 && frame.properties.entries > 0;
    if (frame.has_header && status != STATUS_NO_MEMORY) {
        *ret_whole = is_whole;
        *ret_meta = (struct value_meta){.number = number, .id = frame.header.id, .size_bytes = frame.size_bytes};
        if (is_whole) {
            ret_meta->values = frame.properties.entries;
            ret_meta->bytes = frame.footer.top.offset - SST_HEADER_BYTES;
        }
        status = STATUS_OK;
    }
    sst_frame_deinit(&frame);
    return status;
}
