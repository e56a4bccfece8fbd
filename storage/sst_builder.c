/*
 * Writes one SST: data blocks as they fill, then index, properties, footer, sync.
 *
 * Bytes leave through a buffer of exactly one checksum piece, so the whole-file checksum falls out of writing. A
 * separator of the index is made when the next block's first key is known: the shortest key that parts the two.
 */
#include "node/base/check.h"
#include "node/base/checksum.h"
#include "storage/block.h"
#include "storage/sst.h"
#include "storage/sst_format.h"

#include <inttypes.h>

struct sst_builder {
    struct env *env;
    struct env_file *file;
    char *path;
    bool finished;
    uint64_t id;
    uint64_t number;
    uint32_t block_bytes;
    /* Output: */
    struct buf piece; /* grows to a whole one */
    uint64_t written; /* bytes of whole pieces in the file */
    uint64_t checksum;
    /* Contents: */
    struct block_builder data;
    struct block_builder index;
    struct sst_handle pending; /* a finished data block without an index entry; size 0: none */
    struct sst_properties properties;
    struct buf smallest;
    struct entry_key last; /* user key in last_key */
    uint8_t last_key[LIMIT_KEY_BYTES];
};

/* ---- Output -------------------------------------------------------------------------------------------------- */

static enum status no_memory(struct sst_builder *builder, struct error *err) {
    return error_set(err, STATUS_NO_MEMORY, "%s: no memory to build it", builder->path);
}

static uint64_t position(const struct sst_builder *builder) { return builder->written + builder->piece.len; }

static enum status write_piece(struct sst_builder *builder, struct error *err) {
    enum status status = env_fault_point(builder->env, FAULT_FLUSH_WRITE, err);
    if (status == STATUS_OK) {
        status = env_pwrite(builder->file, builder->piece.data, builder->piece.len, builder->written, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "%s: writing at offset %" PRIu64, builder->path, builder->written);
        return status;
    }
    builder->checksum = checksum64(builder->piece.data, builder->piece.len, builder->checksum);
    builder->written += builder->piece.len;
    buf_clear(&builder->piece);
    return STATUS_OK;
}

static enum status put_bytes(struct sst_builder *builder, const void *data, size_t len, struct error *err) {
    const uint8_t *from = data;
    while (len > 0) {
        size_t part = SST_CHECKSUM_PIECE_BYTES - builder->piece.len;
        part = part < len ? part : len;
        if (buf_append(&builder->piece, from, part) != STATUS_OK) {
            return no_memory(builder, err);
        }
        from += part;
        len -= part;
        if (builder->piece.len == SST_CHECKSUM_PIECE_BYTES) {
            enum status status = write_piece(builder, err);
            if (status != STATUS_OK) {
                return status;
            }
        }
    }
    return STATUS_OK;
}

static enum status put_block(struct sst_builder *builder, struct slice body, enum sst_block_kind kind,
                             struct sst_handle *ret_handle, struct error *err) {
    CHECK(body.len > 0);
    if (body.len > UINT32_MAX) {
        return error_set(err, STATUS_TOO_LARGE, "%s: a block of %zu bytes", builder->path, body.len);
    }
    struct sst_handle handle = {.offset = position(builder), .size = (uint32_t)body.len};
    uint8_t trailer[SST_TRAILER_BYTES];
    sst_trailer_encode(trailer, body, kind, builder->id, handle.offset);
    enum status status = put_bytes(builder, body.data, body.len, err);
    if (status == STATUS_OK) {
        status = put_bytes(builder, trailer, sizeof trailer, err);
    }
    if (status == STATUS_OK) {
        *ret_handle = handle;
    }
    return status;
}

/* ---- Blocks -------------------------------------------------------------------------------------------------- */

/* The index entry of the pending block: at or behind its last key, in front of `next` (NULL: nothing follows). */
static enum status index_pending(struct sst_builder *builder, const struct entry_key *next, struct error *err) {
    if (builder->pending.size == 0) {
        return STATUS_OK;
    }
    uint8_t handle[SST_HANDLE_BYTES];
    sst_handle_encode(handle, &builder->pending);
    struct entry entry = {.key = builder->last, .value = slice_of(handle, sizeof handle), .kind = BATCH_PUT};
    if (next != NULL && !slice_equal(next->user, builder->last.user)) {
        /* One byte more than the two have in common, taken from the greater one. */
        size_t shared = 0;
        while (shared < builder->last.user.len && builder->last.user.data[shared] == next->user.data[shared]) {
            shared++;
        }
        entry.key = (struct entry_key){slice_of(next->user.data, shared + 1), ENTRY_REVISION_NONE, ENTRY_ORDINAL_MAX};
    }
    builder->pending.size = 0;
    return block_builder_add(&builder->index, &entry) == STATUS_OK ? STATUS_OK : no_memory(builder, err);
}

static enum status end_data_block(struct sst_builder *builder, struct error *err) {
    if (builder->data.entry_count == 0) {
        return STATUS_OK;
    }
    struct slice body;
    if (block_builder_finish(&builder->data, &body) != STATUS_OK) {
        return no_memory(builder, err);
    }
    builder->properties.data_blocks++;
    enum status status = put_block(builder, body, SST_BLOCK_DATA, &builder->pending, err);
    block_builder_reset(&builder->data);
    return status;
}

static void count_entry(struct sst_properties *properties, const struct entry *entry) {
    properties->entries++;
    properties->deletes += entry->kind == BATCH_DELETE;
    properties->key_bytes += entry->key.user.len;
    properties->value_bytes += entry->value.len;
    if (entry->key.revision < properties->revision_first) {
        properties->revision_first = entry->key.revision;
    }
    if (entry->key.revision > properties->revision_last) {
        properties->revision_last = entry->key.revision;
    }
}

/* ---- Public -------------------------------------------------------------------------------------------------- */

enum status sst_builder_new(const struct sst_builder_options *options, struct sst_builder **ret_builder,
                            struct error *err) {
    struct alloc *alloc = options->env->alloc;
    struct sst_builder *builder = mem_alloc_zero(alloc, sizeof *builder);
    if (builder == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "%s: no memory to build it", options->path);
    }
    builder->env = options->env;
    builder->id = options->id;
    builder->number = options->number;
    builder->block_bytes = options->block_bytes;
    builder->properties.revision_first = UINT64_MAX;
    block_builder_init(&builder->data, alloc);
    block_builder_init(&builder->index, alloc);
    buf_init(&builder->smallest, alloc, 0);
    buf_init(&builder->piece, alloc, SST_CHECKSUM_PIECE_BYTES);
    size_t path_size = strlen(options->path) + 1;
    builder->path = mem_alloc(alloc, path_size);
    enum status status = STATUS_NO_MEMORY;
    if (builder->path == NULL || buf_reserve(&builder->piece, SST_HEADER_BYTES) != STATUS_OK) {
        (void)error_set(err, status, "%s: no memory to build it", options->path);
        goto out;
    }
    memcpy(builder->path, options->path, path_size);
    status = env_open(builder->env, builder->path, ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_TRUNCATE, &builder->file,
                      err);
    if (status != STATUS_OK) {
        goto out;
    }
    struct sst_header header = {.number = options->number, .id = options->id};
    memcpy(header.cluster_id, options->cluster_id, SST_CLUSTER_ID_BYTES);
    sst_header_encode(builder->piece.data, &header);
    builder->piece.len = SST_HEADER_BYTES;
    *ret_builder = builder;
    return STATUS_OK;
out:
    sst_builder_free(builder);
    return status;
}

enum status sst_builder_add(struct sst_builder *builder, const struct entry *entry, struct error *err) {
    CHECK(!builder->finished);
    bool first = builder->properties.entries == 0;
    if (!first && entry_key_compare(&builder->last, &entry->key) >= 0) {
        return error_set(err, STATUS_CORRUPT, "%s: its entries come out of order", builder->path);
    }
    enum status status = index_pending(builder, &entry->key, err);
    if (status != STATUS_OK) {
        return status;
    }
    if ((first && buf_append(&builder->smallest, entry->key.user.data, entry->key.user.len) != STATUS_OK) ||
        block_builder_add(&builder->data, entry) != STATUS_OK) {
        return no_memory(builder, err);
    }
    count_entry(&builder->properties, entry);
    memcpy(builder->last_key, entry->key.user.data, entry->key.user.len);
    builder->last = entry->key;
    builder->last.user = slice_of(builder->last_key, entry->key.user.len);
    return block_builder_size(&builder->data) >= builder->block_bytes ? end_data_block(builder, err) : STATUS_OK;
}

uint64_t sst_builder_size(const struct sst_builder *builder) {
    return position(builder) + block_builder_size(&builder->data) + block_builder_size(&builder->index);
}

/* Index, properties and footer. */
static enum status put_tail(struct sst_builder *builder, struct error *err) {
    struct sst_footer footer;
    struct slice body;
    struct buf properties;
    buf_init(&properties, builder->env->alloc, 0);
    enum status status = STATUS_NO_MEMORY;
    builder->properties.smallest = buf_slice(&builder->smallest);
    builder->properties.largest = builder->last.user;
    if (block_builder_finish(&builder->index, &body) != STATUS_OK ||
        sst_properties_encode(&properties, &builder->properties) != STATUS_OK) {
        status = no_memory(builder, err);
        goto out;
    }
    status = put_block(builder, body, SST_BLOCK_INDEX, &footer.index, err);
    if (status != STATUS_OK) {
        goto out;
    }
    status = put_block(builder, buf_slice(&properties), SST_BLOCK_PROPERTIES, &footer.properties, err);
    if (status != STATUS_OK) {
        goto out;
    }
    uint8_t bytes[SST_FOOTER_BYTES];
    sst_footer_encode(bytes, &footer, builder->id);
    status = put_bytes(builder, bytes, sizeof bytes, err);
    if (status == STATUS_OK && builder->piece.len > 0) {
        status = write_piece(builder, err);
    }
out:
    buf_deinit(&properties);
    return status;
}

enum status sst_builder_finish(struct sst_builder *builder, struct sst_meta *ret_meta, struct error *err) {
    CHECK(!builder->finished && builder->properties.entries > 0);
    enum status status = end_data_block(builder, err);
    if (status == STATUS_OK) {
        status = index_pending(builder, NULL, err);
    }
    if (status == STATUS_OK) {
        status = put_tail(builder, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = env_fault_point(builder->env, FAULT_FLUSH_SYNC, err);
    if (status == STATUS_OK) {
        status = env_sync(builder->file, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "%s: sync", builder->path);
        return status;
    }
    env_close(builder->file);
    builder->file = NULL;
    builder->finished = true;
    *ret_meta = (struct sst_meta){.number = builder->number,
                                  .id = builder->id,
                                  .size_bytes = builder->written,
                                  .entries = builder->properties.entries,
                                  .checksum = builder->checksum,
                                  .revision_first = builder->properties.revision_first,
                                  .revision_last = builder->properties.revision_last,
                                  .smallest = builder->properties.smallest,
                                  .largest = builder->properties.largest};
    return STATUS_OK;
}

void sst_builder_free(struct sst_builder *builder) {
    if (builder == NULL) {
        return;
    }
    struct alloc *alloc = builder->env->alloc;
    if (builder->file != NULL) {
        env_close(builder->file);
        /* What stays behind is named by no manifest and goes at the next start. */
        struct error ignored;
        enum status status = env_unlink(builder->env, builder->path, &ignored);
        (void)status;
    }
    block_builder_deinit(&builder->data);
    block_builder_deinit(&builder->index);
    buf_deinit(&builder->smallest);
    mem_free(alloc, builder->path);
    buf_deinit(&builder->piece);
    mem_free(alloc, builder);
}
