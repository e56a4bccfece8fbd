/* Value files as readers see them: objects like tables, and the way from a place to a value. Any thread. */
#include "node/base/check.h"
#include "storage/sst_internal.h"
#include "storage/value_file.h"

enum status value_file_new(const struct sst_context *context, const struct value_meta *meta, struct sst **ret_file) {
    struct sst *file = mem_alloc_zero(context->env->alloc, sizeof *file);
    if (file == NULL) {
        return STATUS_NO_MEMORY;
    }
    file->context = context;
    file->is_values = true;
    file->is_log = meta->is_log;
    file->meta = (struct sst_meta){.number = meta->number,
                                   .id = meta->id,
                                   .size_bytes = meta->size_bytes,
                                   .checksum = meta->checksum,
                                   .entries = meta->values,
                                   .value_bytes = meta->bytes};
    atomic_init(&file->top, NULL);
    open_file_init(&file->file, context->files);
    *ret_file = file;
    return STATUS_OK;
}

struct value_meta value_file_meta(const struct sst *file) {
    CHECK(file->is_values);
    return (struct value_meta){.is_log = file->is_log,
                               .number = file->meta.number,
                               .id = file->meta.id,
                               .size_bytes = file->meta.size_bytes,
                               .checksum = file->meta.checksum,
                               .values = file->meta.entries,
                               .bytes = file->meta.value_bytes};
}

/* True if the block, or the record, can stand there: between what begins and what ends the file. */
static bool lies_within(const struct sst *file, const struct sst_handle *handle) {
    uint64_t len = (uint64_t)handle->size + SST_TRAILER_BYTES;
    uint64_t end_bytes = file->is_log ? 0 : SST_FOOTER_BYTES;
    return file->meta.size_bytes >= SST_HEADER_BYTES + end_bytes &&
           handle->offset <= file->meta.size_bytes - end_bytes &&
           len <= file->meta.size_bytes - end_bytes - handle->offset;
}

/* STATUS_CORRUPT: another version's, or none. */
static enum status find_value(const struct sst *file, struct slice block, const struct entry_key *key,
                              struct slice *ret_value) {
    struct value_block parts;
    if (file->is_log) {
        return value_log_find(block, key, ret_value);
    }
    enum status status = value_block_open(block, &parts);
    if (status != STATUS_OK || entry_key_compare(&parts.key, key) != 0) {
        return STATUS_CORRUPT;
    }
    *ret_value = parts.value;
    return STATUS_OK;
}

enum status value_fetch(struct sst *file, struct fetch *fetch, const struct value_place *place,
                        const struct entry_key *key, struct sst_hold *hold, struct slice *ret_value,
                        struct error *err) {
    struct cache_block *block;
    struct slice value;
    CHECK(file->is_values && file->meta.id == place->file);
    if (!lies_within(file, &place->handle)) {
        return sst__damaged(file, STATUS_CORRUPT, "a value's place", place->handle.offset, err);
    }
    enum status status = fetch__block(fetch, file, &place->handle, SST_BLOCK_VALUE, &block, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = find_value(file, slice_of(block->data, block->len), key, &value);
    if (status != STATUS_OK || value.len != place->value_len) {
        cache_release(file->context->cache, block);
        return sst__damaged(file, STATUS_CORRUPT, "the value", place->handle.offset, err);
    }
    sst_hold_release(hold);
    *hold = (struct sst_hold){.cache = file->context->cache, .block = block};
    *ret_value = value;
    return STATUS_OK;
}
