/* Writes one value file through the same output as tables: a block for each value, properties, footer, sync. */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/sst_builder_internal.h"
#include "storage/value_file.h"

static_assert(VALUE_HEAD_BYTES + LIMIT_KEY_BYTES + LIMIT_VALUE_BYTES < SST_BLOCK_BYTES_MAX,
              "a block with the largest key and value must fit");

struct value_builder {
    struct sst_output output;
    bool finished;
    bool failed;
    struct buf body;
    struct buf sizes; /* of the blocks, u32 each */
    struct sst_properties properties;
    struct buf smallest;
    struct buf largest;
    struct value_meta meta;
};

static enum status no_memory(const struct value_builder *builder, struct error *err) {
    return sst__output_no_memory(&builder->output, err);
}

enum status value_builder_new(const struct value_builder_options *options, struct value_builder **ret_builder,
                              struct error *err) {
    CHECK(options->compression < COMPRESSION_COUNT);
    struct alloc *alloc = options->env->alloc;
    struct value_builder *builder = mem_alloc_zero(alloc, sizeof *builder);
    if (builder == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to build it", options->path);
    }
    buf_init(&builder->body, alloc, 0);
    buf_init(&builder->sizes, alloc, 0);
    buf_init(&builder->smallest, alloc, 0);
    buf_init(&builder->largest, alloc, 0);
    builder->meta = (struct value_meta){.number = options->number, .id = options->id};
    builder->properties = (struct sst_properties){.revision_first = UINT64_MAX, .compression = options->compression};
    const struct sst_builder_options output = {.env = options->env,
                                               .path = options->path,
                                               .id = options->id,
                                               .compression = options->compression,
                                               .zstd_level = options->zstd_level,
                                               .pace = options->pace,
                                               .pace_context = options->pace_context};
    struct sst_header header = {.kind = SST_FILE_VALUES, .number = options->number, .id = options->id};
    uint8_t bytes[SST_HEADER_BYTES];
    memcpy(header.cluster_id, options->cluster_id, SST_CLUSTER_ID_BYTES);
    sst_header_encode(bytes, &header);
    enum status status = sst__output_open(&builder->output, &output, err);
    if (status == STATUS_OK) {
        builder->output.checksum = sst_file_checksum_add(0, sst_header_checksum(bytes));
        status = sst__output_bytes(&builder->output, bytes, sizeof bytes, err);
    }
    if (status != STATUS_OK) {
        value_builder_free(builder);
        return status;
    }
    *ret_builder = builder;
    return STATUS_OK;
}

/* ---- Adding -------------------------------------------------------------------------------------------------- */

static enum status make_body(struct value_builder *builder, const struct entry *entry) {
    struct slice user = entry->key.user;
    size_t len = VALUE_HEAD_BYTES + user.len + entry->value.len;
    buf_clear(&builder->body);
    if (buf_reserve(&builder->body, len) != STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    uint8_t *out = builder->body.data;
    put_u16(out, (uint16_t)user.len);
    put_u32(out + 2, entry->key.ordinal);
    put_u64(out + 6, entry->key.revision);
    memcpy(out + VALUE_HEAD_BYTES, user.data, user.len);
    memcpy(out + VALUE_HEAD_BYTES + user.len, entry->value.data, entry->value.len);
    builder->body.len = len;
    return STATUS_OK;
}

static enum status replace(struct buf *buf, struct slice with) {
    buf_clear(buf);
    return buf_append(buf, with.data, with.len);
}

/* The properties of a table, over the versions whose values these are. */
static enum status count(struct value_builder *builder, const struct entry_key *key, size_t value_len) {
    struct sst_properties *properties = &builder->properties;
    enum status status = STATUS_OK;
    if (properties->entries == 0 || slice_compare(key->user, buf_slice(&builder->smallest)) < 0) {
        status = replace(&builder->smallest, key->user);
    }
    if (status == STATUS_OK &&
        (properties->entries == 0 || slice_compare(key->user, buf_slice(&builder->largest)) > 0)) {
        status = replace(&builder->largest, key->user);
    }
    properties->entries++;
    properties->data_blocks++;
    properties->key_bytes += key->user.len;
    properties->value_bytes += value_len;
    properties->raw_bytes += builder->body.len;
    if (key->revision < properties->revision_first) {
        properties->revision_first = key->revision;
    }
    if (key->revision > properties->revision_last) {
        properties->revision_last = key->revision;
    }
    return status;
}

enum status value_builder_add(struct value_builder *builder, const struct entry *entry, struct value_place *ret_place,
                              struct error *err) {
    CHECK(!builder->finished && !builder->failed && builder->meta.values < VALUE_FILE_VALUES_MAX);
    CHECK(entry->key.user.len >= 1 && entry->key.user.len <= LIMIT_KEY_BYTES && entry->value.len <= LIMIT_VALUE_BYTES);
    struct value_place place = {.file = builder->meta.id, .value_len = (uint32_t)entry->value.len};
    builder->failed = true;
    if (make_body(builder, entry) != STATUS_OK || count(builder, &entry->key, entry->value.len) != STATUS_OK) {
        return no_memory(builder, err);
    }
    enum status status =
        sst__output_block(&builder->output, buf_slice(&builder->body), SST_BLOCK_VALUE, true, &place.handle, err);
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t size[VALUE_SIZE_BYTES];
    put_u32(size, place.handle.size);
    if (buf_append(&builder->sizes, size, sizeof size) != STATUS_OK) {
        return no_memory(builder, err);
    }
    builder->failed = false;
    builder->meta.values++;
    builder->meta.bytes += value_place_bytes(&place);
    *ret_place = place;
    return STATUS_OK;
}

uint64_t value_builder_values(const struct value_builder *builder) { return builder->meta.values; }

uint64_t value_builder_size(const struct value_builder *builder) { return sst__output_position(&builder->output); }

/* ---- Finishing ----------------------------------------------------------------------------------------------- */

static enum status put_tail(struct value_builder *builder, struct error *err) {
    struct sst_footer footer = {.properties = {0}};
    builder->properties.smallest = buf_slice(&builder->smallest);
    builder->properties.largest = buf_slice(&builder->largest);
    enum status status =
        sst__output_block(&builder->output, buf_slice(&builder->sizes), SST_BLOCK_TOP, false, &footer.top, err);
    return status == STATUS_OK ? sst__output_tail(&builder->output, &builder->properties, &footer, err) : status;
}

enum status value_builder_finish(struct value_builder *builder, struct value_meta *ret_meta, struct error *err) {
    CHECK(!builder->finished && !builder->failed && builder->meta.values > 0);
    enum status status = put_tail(builder, err);
    if (status == STATUS_OK) {
        status = sst__output_end(&builder->output, err);
    }
    builder->failed = status != STATUS_OK;
    if (status != STATUS_OK) {
        return status;
    }
    builder->finished = true;
    builder->meta.size_bytes = builder->output.written;
    builder->meta.checksum = builder->output.checksum;
    *ret_meta = builder->meta;
    return STATUS_OK;
}

void value_builder_free(struct value_builder *builder) {
    if (builder == NULL) {
        return;
    }
    struct alloc *alloc = builder->body.alloc;
    buf_deinit(&builder->body);
    buf_deinit(&builder->sizes);
    buf_deinit(&builder->smallest);
    buf_deinit(&builder->largest);
    sst__output_abandon(&builder->output);
    mem_free(alloc, builder);
}
