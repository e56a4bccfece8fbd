/* Writes one change file through the same output as tables: blocks, index, properties, footer, sync. In memory are one
 * block, the index, and 1 MiB of output. */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/change_file.h"
#include "storage/sst_builder_internal.h"

struct change_builder {
    struct sst_output output;
    bool finished;
    bool failed;
    struct change_block_builder block;
    struct change_index_entry begin; /* of the block under way */
    uint64_t revision;               /* of the change added last */
    struct buf index;
    struct sst_properties properties;
    struct buf smallest;
    struct buf largest;
    struct change_meta meta;
};

static enum status no_memory(const struct change_builder *builder, struct error *err) {
    return sst__output_no_memory(&builder->output, err);
}

static enum status put_header(struct change_builder *builder, const struct change_builder_options *options,
                              struct error *err) {
    struct sst_header header = {.kind = SST_FILE_CHANGES, .number = options->number, .id = options->id};
    uint8_t bytes[SST_HEADER_BYTES];
    memcpy(header.cluster_id, options->cluster_id, SST_CLUSTER_ID_BYTES);
    sst_header_encode(bytes, &header);
    builder->output.checksum = sst_file_checksum_add(0, sst_header_checksum(bytes));
    return sst__output_bytes(&builder->output, bytes, sizeof bytes, err);
}

enum status change_builder_new(const struct change_builder_options *options, struct change_builder **ret_builder,
                               struct error *err) {
    CHECK(options->compression < COMPRESSION_COUNT);
    struct alloc *alloc = options->env->alloc;
    struct change_builder *builder = mem_alloc_zero(alloc, sizeof *builder);
    if (builder == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to build it", options->path);
    }
    change_block_builder_init(&builder->block, alloc);
    buf_init(&builder->index, alloc, 0);
    buf_init(&builder->smallest, alloc, 0);
    buf_init(&builder->largest, alloc, 0);
    builder->meta = (struct change_meta){.number = options->number, .id = options->id};
    builder->properties = (struct sst_properties){.compression = options->compression};
    const struct sst_builder_options output = {.env = options->env,
                                               .path = options->path,
                                               .id = options->id,
                                               .compression = options->compression,
                                               .zstd_level = options->zstd_level};
    enum status status = sst__output_open(&builder->output, &output, err);
    if (status == STATUS_OK) {
        status = put_header(builder, options, err);
    }
    if (status != STATUS_OK) {
        change_builder_free(builder);
        return status;
    }
    *ret_builder = builder;
    return STATUS_OK;
}

/* ---- Adding -------------------------------------------------------------------------------------------------- */

static enum status replace(struct buf *buf, struct slice with) {
    buf_clear(buf);
    return buf_append(buf, with.data, with.len);
}

static enum status count(struct change_builder *builder, const struct change *change) {
    struct sst_properties *properties = &builder->properties;
    struct slice highest = change->kind == BATCH_DELETE_RANGE ? change->end : change->key;
    bool is_first = builder->meta.changes == 0;
    enum status status = STATUS_OK;
    if (is_first || slice_compare(change->key, buf_slice(&builder->smallest)) < 0) {
        status = replace(&builder->smallest, change->key);
    }
    if (status == STATUS_OK && (is_first || slice_compare(highest, buf_slice(&builder->largest)) > 0)) {
        status = replace(&builder->largest, highest);
    }
    builder->meta.changes++;
    builder->meta.revision_first = is_first ? change->revision : builder->meta.revision_first;
    builder->meta.revision_last = change->revision;
    properties->entries += change->kind != BATCH_DELETE_RANGE;
    properties->deletes += change->kind == BATCH_DELETE;
    properties->tombstones += change->kind == BATCH_DELETE_RANGE;
    properties->key_bytes += change->key.len + change->end.len;
    return status;
}

/* The block under way goes into the file. */
static enum status end_block(struct change_builder *builder, struct error *err) {
    uint8_t entry[CHANGE_INDEX_ENTRY_BYTES];
    struct slice body = buf_slice(&builder->block.body);
    if (builder->block.count == 0) {
        return STATUS_OK;
    }
    enum status status =
        sst__output_block(&builder->output, body, SST_BLOCK_CHANGES, true, &builder->begin.handle, err);
    if (status != STATUS_OK) {
        return status;
    }
    change_index_encode(entry, &builder->begin);
    if (buf_append(&builder->index, entry, sizeof entry) != STATUS_OK) {
        return no_memory(builder, err);
    }
    builder->properties.data_blocks++;
    builder->properties.raw_bytes += body.len;
    change_block_builder_reset(&builder->block);
    return STATUS_OK;
}

enum status change_builder_add(struct change_builder *builder, const struct change *change, struct error *err) {
    CHECK(!builder->finished && !builder->failed);
    builder->failed = true;
    if (builder->block.body.len >= CHANGE_BLOCK_BYTES) {
        enum status status = end_block(builder, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (builder->block.count == 0) {
        CHECK(change->revision >= builder->revision);
        builder->begin = (struct change_index_entry){.revision = change->revision, .ordinal = change->ordinal};
    }
    if (change_block_builder_add(&builder->block, change) != STATUS_OK || count(builder, change) != STATUS_OK) {
        return no_memory(builder, err);
    }
    builder->revision = change->revision;
    builder->failed = false;
    return STATUS_OK;
}

/* ---- Finishing ----------------------------------------------------------------------------------------------- */

static enum status put_tail(struct change_builder *builder, struct error *err) {
    struct sst_footer footer = {.properties = {0}};
    struct buf properties;
    buf_init(&properties, builder->output.env->alloc, 0);
    builder->properties.revision_first = builder->meta.revision_first;
    builder->properties.revision_last = builder->meta.revision_last;
    builder->properties.smallest = buf_slice(&builder->smallest);
    builder->properties.largest = buf_slice(&builder->largest);
    enum status status = sst_properties_encode(&properties, &builder->properties);
    if (status != STATUS_OK) {
        (void)no_memory(builder, err);
        goto out;
    }
    status = sst__output_block(&builder->output, buf_slice(&builder->index), SST_BLOCK_TOP, false, &footer.top, err);
    if (status == STATUS_OK) {
        status = sst__output_block(&builder->output, buf_slice(&properties), SST_BLOCK_PROPERTIES, false,
                                   &footer.properties, err);
    }
    if (status != STATUS_OK) {
        goto out;
    }
    uint8_t bytes[SST_FOOTER_BYTES];
    sst_footer_encode(bytes, &footer, builder->output.id);
    builder->output.checksum = sst_file_checksum_add(builder->output.checksum, sst_footer_checksum(bytes));
    builder->meta.index = footer.top;
    status = sst__output_bytes(&builder->output, bytes, sizeof bytes, err);
out:
    buf_deinit(&properties);
    return status;
}

enum status change_builder_finish(struct change_builder *builder, struct change_meta *ret_meta, struct error *err) {
    CHECK(!builder->finished && !builder->failed && builder->meta.changes > 0);
    builder->failed = true;
    enum status status = end_block(builder, err);
    if (status == STATUS_OK) {
        status = put_tail(builder, err);
    }
    if (status == STATUS_OK) {
        status = sst__output_end(&builder->output, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    builder->failed = false;
    builder->finished = true;
    builder->meta.size_bytes = builder->output.written;
    builder->meta.checksum = builder->output.checksum;
    *ret_meta = builder->meta;
    return STATUS_OK;
}

void change_builder_free(struct change_builder *builder) {
    if (builder == NULL) {
        return;
    }
    struct alloc *alloc = builder->index.alloc;
    change_block_builder_deinit(&builder->block);
    buf_deinit(&builder->index);
    buf_deinit(&builder->smallest);
    buf_deinit(&builder->largest);
    sst__output_abandon(&builder->output);
    mem_free(alloc, builder);
}
