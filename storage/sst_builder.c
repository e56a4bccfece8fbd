/*
 * Builds one SST: data blocks as they fill, partitions behind them, then range deletes, top index, properties, footer.
 *
 * The separator of a block is made when the next block's first key is known: the shortest key that parts the two. It
 * goes into the partition under way; when that is full, its last separator is the partition's own in the top index.
 * Hashes of keys come from the data blocks, which need them for their buckets: each key is hashed once.
 */
#include "storage/sst_builder_internal.h"

#include "node/base/check.h"
#include "storage/filter.h"
#include "storage/tombstones.h"
#include "storage/value_file.h"

enum {
    /* Entries per restart. Against 16 it costs a hundredth of the space (keys of 16, values of 100 bytes) and makes
     * lookups in a block a seventh faster. */
    DATA_INTERVAL = 8,
    BLOCK_BYTES_MAX = 1024 * 1024,
    PARTITION_BYTES_MAX = 16 * 1024 * 1024,
    /* A partition with long keys or many hashes ends when its own body gets so large. */
    PARTITION_BODY_BYTES_END = 4 * 1024 * 1024,
    /* For each so many bytes of top index, which is held in memory while a table is open, partitions get twice as
     * large: so it stays small however large the table. */
    TOP_BYTES_STEP = 1024 * 1024
};

static_assert(BLOCK_BYTES_MAX + LIMIT_VALUE_BYTES + 2 * LIMIT_KEY_BYTES < SST_BLOCK_BYTES_MAX,
              "a data block with the largest entry last must fit");

struct sst_builder {
    struct sst_output output;
    bool finished;
    bool failed;
    uint64_t number;
    uint32_t block_bytes;
    uint32_t partition_bytes;
    struct block_builder data;
    struct sst_handle pending; /* a finished data block without an index entry; size 0: none */
    /* The partition under way: */
    struct block_builder index;
    struct buf hashes;             /* uint64_t each */
    uint64_t partition_data_bytes; /* of its data blocks in the file */
    struct buf partition;          /* its body while it is put together */
    struct block_builder top;
    size_t top_bytes_next; /* of top index, at which the partitions grow */
    struct block_builder tombstones;
    struct buf tombstone_end; /* of the last fragment */
    struct value_refs value_refs;
    struct sst_properties properties;
    struct buf smallest;       /* the first key */
    struct buf smallest_start; /* the first fragment's */
};

static enum status no_memory(const struct sst_builder *builder, struct error *err) {
    return sst__output_no_memory(&builder->output, err);
}

/* What a block builder's add came to. */
static enum status added(const struct sst_builder *builder, enum status status, struct error *err) {
    if (status == STATUS_CORRUPT) {
        return error_set(err, status, "%s: its entries come out of order", builder->output.path);
    }
    return status == STATUS_OK ? status : no_memory(builder, err);
}

static void note_revision(struct sst_properties *properties, uint64_t revision) {
    if (revision < properties->revision_first) {
        properties->revision_first = revision;
    }
    if (revision > properties->revision_last) {
        properties->revision_last = revision;
    }
}

/* ---- Partitions ---------------------------------------------------------------------------------------------- */

static size_t filter_bytes(const struct sst_builder *builder) {
    return filter_size(builder->hashes.len / sizeof(uint64_t), (uint32_t)builder->properties.bloom_bits);
}

/* Writes the partition; `separator` is that of its last data block. */
static enum status end_partition(struct sst_builder *builder, const struct entry_key *separator, struct error *err) {
    struct slice index;
    struct buf *body = &builder->partition;
    size_t filter_len = filter_bytes(builder);
    buf_clear(body);
    if (block_builder_finish(&builder->index, &index) != STATUS_OK ||
        buf_reserve(body, filter_len + index.len + SST_PARTITION_TAIL_BYTES) != STATUS_OK) {
        return no_memory(builder, err);
    }
    uint32_t probes = 0;
    if (filter_len > 0) {
        probes = filter_probes((uint32_t)builder->properties.bloom_bits);
        filter_build(body->data, filter_len, (const uint64_t *)(const void *)builder->hashes.data,
                     builder->hashes.len / sizeof(uint64_t), probes);
    }
    memcpy(body->data + filter_len, index.data, index.len);
    sst_partition_tail_encode(body->data + filter_len + index.len, (uint32_t)filter_len, probes);
    body->len = filter_len + index.len + SST_PARTITION_TAIL_BYTES;
    struct sst_handle handle;
    enum status status = sst__output_block(&builder->output, buf_slice(body), SST_BLOCK_PARTITION, false, &handle, err);
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t bytes[SST_HANDLE_BYTES];
    sst_handle_encode(bytes, &handle);
    struct entry entry = {.key = *separator, .value = slice_of(bytes, sizeof bytes), .kind = BATCH_PUT};
    status = added(builder, block_builder_add(&builder->top, &entry), err);
    block_builder_reset(&builder->index);
    buf_clear(&builder->hashes);
    builder->partition_data_bytes = 0;
    builder->properties.partitions++;
    if (block_builder_size(&builder->top) >= builder->top_bytes_next) {
        builder->top_bytes_next += TOP_BYTES_STEP;
        builder->partition_bytes *= builder->partition_bytes <= PARTITION_BYTES_MAX / 2 ? 2 : 1;
    }
    return status;
}

/* The index entry of the pending block: at or behind its last key, in front of `next` (NULL: nothing follows). */
static enum status index_pending(struct sst_builder *builder, const struct entry_key *next, struct error *err) {
    if (builder->pending.size == 0) {
        return STATUS_OK;
    }
    uint8_t handle[SST_HANDLE_BYTES];
    sst_handle_encode(handle, &builder->pending);
    builder->pending.size = 0;
    const struct entry_key *last = &builder->data.last;
    struct entry entry = {.key = *last, .value = slice_of(handle, sizeof handle), .kind = BATCH_PUT};
    if (next != NULL && !slice_equal(next->user, last->user)) {
        /* One byte more than the two have in common, taken from the greater one. (If they are out of order, that
         * shows when `next` is added; here it must only stay inside.) */
        size_t shared = 0;
        while (shared < last->user.len && shared + 1 < next->user.len &&
               last->user.data[shared] == next->user.data[shared]) {
            shared++;
        }
        entry.key = (struct entry_key){slice_of(next->user.data, shared + 1), ENTRY_REVISION_NONE, ENTRY_ORDINAL_MAX};
    }
    enum status status = added(builder, block_builder_add(&builder->index, &entry), err);
    if (status == STATUS_OK &&
        (next == NULL || builder->partition_data_bytes >= builder->partition_bytes ||
         block_builder_size(&builder->index) + filter_bytes(builder) >= PARTITION_BODY_BYTES_END)) {
        status = end_partition(builder, &entry.key, err);
    }
    return status;
}

static enum status end_data_block(struct sst_builder *builder, struct error *err) {
    struct block_builder *data = &builder->data;
    struct slice body;
    if (data->entry_count == 0) {
        return STATUS_OK;
    }
    if (block_builder_finish(data, &body) != STATUS_OK ||
        (builder->properties.bloom_bits > 0 &&
         buf_append(&builder->hashes, data->hashes.data, data->hashes.len) != STATUS_OK)) {
        return no_memory(builder, err);
    }
    enum status status = sst__output_block(&builder->output, body, SST_BLOCK_DATA, true, &builder->pending, err);
    builder->properties.data_blocks++;
    builder->properties.raw_bytes += body.len;
    builder->partition_data_bytes += builder->pending.size + SST_TRAILER_BYTES;
    block_builder_reset(data);
    return status;
}

/* ---- Building ------------------------------------------------------------------------------------------------ */

enum status sst_builder_new(const struct sst_builder_options *options, struct sst_builder **ret_builder,
                            struct error *err) {
    CHECK(options->block_bytes >= 1 && options->block_bytes <= BLOCK_BYTES_MAX);
    CHECK(options->partition_bytes >= 1 && options->partition_bytes <= PARTITION_BYTES_MAX);
    CHECK(options->bloom_bits <= FILTER_BITS_PER_KEY_MAX && options->compression < COMPRESSION_COUNT);
    struct alloc *alloc = options->env->alloc;
    struct sst_builder *builder = mem_alloc_zero(alloc, sizeof *builder);
    if (builder == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to build it", options->path);
    }
    builder->number = options->number;
    builder->block_bytes = options->block_bytes;
    builder->partition_bytes = options->partition_bytes;
    builder->top_bytes_next = TOP_BYTES_STEP;
    builder->properties.revision_first = UINT64_MAX;
    builder->properties.bloom_bits = options->bloom_bits;
    builder->properties.compression = options->compression;
    block_builder_init(&builder->data, alloc, DATA_INTERVAL, true);
    block_builder_init(&builder->index, alloc, 1, false);
    block_builder_init(&builder->top, alloc, 1, false);
    block_builder_init(&builder->tombstones, alloc, DATA_INTERVAL, false);
    buf_init(&builder->hashes, alloc, 0);
    buf_init(&builder->partition, alloc, 0);
    buf_init(&builder->tombstone_end, alloc, 0);
    buf_init(&builder->smallest, alloc, 0);
    buf_init(&builder->smallest_start, alloc, 0);
    value_refs_init(&builder->value_refs, alloc);
    struct sst_header header = {.number = options->number, .id = options->id};
    uint8_t bytes[SST_HEADER_BYTES];
    memcpy(header.cluster_id, options->cluster_id, SST_CLUSTER_ID_BYTES);
    sst_header_encode(bytes, &header);
    enum status status = sst__output_open(&builder->output, options, err);
    if (status == STATUS_OK) {
        builder->output.checksum = sst_file_checksum_add(0, sst_header_checksum(bytes));
        status = sst__output_bytes(&builder->output, bytes, sizeof bytes, err);
    }
    if (status != STATUS_OK) {
        sst_builder_free(builder);
        return status;
    }
    *ret_builder = builder;
    return STATUS_OK;
}

/* Counts what the entry takes of its value file. */
static enum status refer(struct sst_builder *builder, const struct entry *entry, struct error *err) {
    struct value_place place;
    enum status status = value_place_decode(entry->value, &place);
    if (status == STATUS_OK) {
        status = value_refs_add(&builder->value_refs, &place);
    }
    switch (status) {
    case STATUS_OK: return STATUS_OK;
    case STATUS_NO_MEMORY: return no_memory(builder, err);
    case STATUS_TOO_LARGE:
        return error_set(err, status, "%s: refers to more than %d value files", builder->output.path, VALUE_REFS_MAX);
    default: return error_set(err, STATUS_CORRUPT, "%s: an entry's place is none", builder->output.path);
    }
}

static enum status add_entry(struct sst_builder *builder, const struct entry *entry, struct error *err) {
    struct block_builder *data = &builder->data;
    struct sst_properties *properties = &builder->properties;
    enum status status = index_pending(builder, &entry->key, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (properties->entries == 0 &&
        buf_append(&builder->smallest, entry->key.user.data, entry->key.user.len) != STATUS_OK) {
        return no_memory(builder, err);
    }
    uint64_t last_revision = data->last.revision;
    status = block_builder_add(data, entry);
    if (status != STATUS_OK) {
        return added(builder, status, err);
    }
    properties->entries++;
    properties->deletes += entry->kind == BATCH_DELETE;
    properties->key_bytes += entry->key.user.len;
    properties->value_bytes += entry->value.len;
    note_revision(properties, entry->key.revision);
    if (entry->kind == BATCH_PUT_APART) {
        status = refer(builder, entry, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (data->repeats) {
        properties->superseded++;
        if (last_revision > properties->superseded_until) {
            properties->superseded_until = last_revision;
        }
    }
    return block_builder_size(data) >= builder->block_bytes ? end_data_block(builder, err) : STATUS_OK;
}

enum status sst_builder_add(struct sst_builder *builder, const struct entry *entry, struct error *err) {
    CHECK(!builder->finished && !builder->failed);
    enum status status = add_entry(builder, entry, err);
    builder->failed = status != STATUS_OK;
    return status;
}

static enum status add_tombstone(struct sst_builder *builder, const struct tombstone *tombstone, struct error *err) {
    struct sst_properties *properties = &builder->properties;
    struct block_builder *block = &builder->tombstones;
    struct buf *end = &builder->tombstone_end;
    bool first = properties->tombstones == 0;
    bool same = !first && slice_equal(tombstone->start, block->last.user);
    /* Another mark of the same fragment, or a fragment behind it. */
    if (slice_compare(tombstone->start, tombstone->end) >= 0 ||
        (same && !slice_equal(tombstone->end, buf_slice(end))) ||
        (!same && !first && slice_compare(tombstone->start, buf_slice(end)) < 0)) {
        return added(builder, STATUS_CORRUPT, err);
    }
    struct entry entry = {.key = {tombstone->start, tombstone->revision, tombstone->ordinal},
                          .value = tombstone->end,
                          .kind = BATCH_PUT};
    enum status status = added(builder, block_builder_add(block, &entry), err);
    if (status != STATUS_OK) {
        return status;
    }
    if (block_builder_size(block) > SST_BLOCK_BYTES_MAX) {
        return error_set(err, STATUS_TOO_LARGE, "%s: too many range deletes", builder->output.path);
    }
    if (!same) {
        buf_clear(end);
        status = buf_append(end, tombstone->end.data, tombstone->end.len);
    }
    if (first && status == STATUS_OK) {
        status = buf_append(&builder->smallest_start, tombstone->start.data, tombstone->start.len);
    }
    properties->tombstones++;
    note_revision(properties, tombstone->revision);
    return status == STATUS_OK ? status : no_memory(builder, err);
}

enum status sst_builder_add_tombstone(struct sst_builder *builder, const struct tombstone *tombstone,
                                      struct error *err) {
    CHECK(!builder->finished && !builder->failed);
    enum status status = add_tombstone(builder, tombstone, err);
    builder->failed = status != STATUS_OK;
    return status;
}

size_t sst_builder_value_files(const struct sst_builder *builder) {
    size_t count;
    (void)value_refs_list(&builder->value_refs, &count);
    return count;
}

uint64_t sst_builder_size(const struct sst_builder *builder) {
    return sst__output_position(&builder->output) + block_builder_size(&builder->data) +
           block_builder_size(&builder->index) + filter_bytes(builder) + block_builder_size(&builder->top) +
           block_builder_size(&builder->tombstones);
}

/* ---- Finishing ----------------------------------------------------------------------------------------------- */

/* The block of a builder, if it has any entries. */
static enum status put_built(struct sst_builder *builder, struct block_builder *block, enum sst_block_kind kind,
                             struct sst_handle *ret_handle, struct error *err) {
    struct slice body;
    if (block->entry_count == 0) {
        *ret_handle = (struct sst_handle){0};
        return STATUS_OK;
    }
    if (block_builder_finish(block, &body) != STATUS_OK) {
        return no_memory(builder, err);
    }
    return sst__output_block(&builder->output, body, kind, false, ret_handle, err);
}

/* Smallest and largest over entries and range deletes. */
static void set_range(struct sst_builder *builder) {
    struct sst_properties *properties = &builder->properties;
    struct slice start = buf_slice(&builder->smallest_start);
    struct slice end = buf_slice(&builder->tombstone_end);
    properties->smallest = buf_slice(&builder->smallest);
    properties->largest = builder->data.last.user;
    if (properties->tombstones == 0) {
        return;
    }
    if (properties->entries == 0 || slice_compare(start, properties->smallest) < 0) {
        properties->smallest = start;
    }
    if (properties->entries == 0 || slice_compare(end, properties->largest) > 0) {
        properties->largest = end;
        properties->largest_excluded = 1;
    }
}

/* What follows the last data block. */
static enum status put_tail(struct sst_builder *builder, struct error *err) {
    struct sst_footer footer = {.properties = {0}};
    enum status status = put_built(builder, &builder->tombstones, SST_BLOCK_TOMBSTONES, &footer.tombstones, err);
    if (status == STATUS_OK) {
        status = put_built(builder, &builder->top, SST_BLOCK_TOP, &footer.top, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    builder->properties.value_refs = value_refs_list(&builder->value_refs, &builder->properties.value_ref_count);
    return sst__output_tail(&builder->output, &builder->properties, &footer, err);
}

enum status sst_builder_finish(struct sst_builder *builder, struct sst_meta *ret_meta, struct error *err) {
    const struct sst_properties *properties = &builder->properties;
    CHECK(!builder->finished && !builder->failed);
    CHECK(properties->entries > 0 || properties->tombstones > 0);
    set_range(builder);
    enum status status = end_data_block(builder, err);
    if (status == STATUS_OK) {
        status = index_pending(builder, NULL, err);
    }
    if (status == STATUS_OK) {
        status = put_tail(builder, err);
    }
    if (status == STATUS_OK) {
        status = sst__output_end(&builder->output, err);
    }
    builder->failed = status != STATUS_OK;
    if (status != STATUS_OK) {
        return status;
    }
    builder->finished = true;
    *ret_meta = (struct sst_meta){.number = builder->number,
                                  .id = builder->output.id,
                                  .size_bytes = builder->output.written,
                                  .checksum = builder->output.checksum,
                                  .entries = properties->entries,
                                  .deletes = properties->deletes,
                                  .tombstones = properties->tombstones,
                                  .superseded = properties->superseded,
                                  .superseded_until = properties->superseded_until,
                                  .key_bytes = properties->key_bytes,
                                  .value_bytes = properties->value_bytes,
                                  .revision_first = properties->revision_first,
                                  .revision_last = properties->revision_last,
                                  .smallest = properties->smallest,
                                  .largest = properties->largest,
                                  .largest_excluded = properties->largest_excluded != 0};
    ret_meta->value_refs = value_refs_list(&builder->value_refs, &ret_meta->value_ref_count);
    return STATUS_OK;
}

void sst_builder_free(struct sst_builder *builder) {
    if (builder == NULL) {
        return;
    }
    struct alloc *alloc = builder->data.body.alloc;
    block_builder_deinit(&builder->data);
    block_builder_deinit(&builder->index);
    block_builder_deinit(&builder->top);
    block_builder_deinit(&builder->tombstones);
    buf_deinit(&builder->hashes);
    buf_deinit(&builder->partition);
    buf_deinit(&builder->tombstone_end);
    buf_deinit(&builder->smallest);
    buf_deinit(&builder->smallest_start);
    value_refs_deinit(&builder->value_refs);
    sst__output_abandon(&builder->output);
    mem_free(alloc, builder);
}
