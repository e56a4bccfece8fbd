/* Puts a table's blocks into its file, 1 MiB at a time. */
#include "storage/sst_builder_internal.h"

#include "node/base/check.h"

#include <inttypes.h>

/* A block is stored compressed if that saves at least one byte of so many. */
enum { COMPRESSION_SAVES_ONE_OF = 8 };

enum status sst__output_no_memory(const struct sst_output *output, struct error *err) {
    return error_set(err, STATUS_NO_MEMORY, "%s: no memory to build it", output->path);
}

enum status sst__output_open(struct sst_output *output, const struct sst_builder_options *options, struct error *err) {
    struct alloc *alloc = options->env->alloc;
    *output = (struct sst_output){.env = options->env,
                                  .id = options->id,
                                  .pace = options->pace,
                                  .pace_context = options->pace_context};
    buf_init(&output->compressed, alloc, 0);
    buf_init(&output->piece, alloc, SST_PIECE_BYTES);
    size_t path_size = strlen(options->path) + 1;
    output->path = mem_alloc(alloc, path_size);
    enum status status = STATUS_NO_MEMORY;
    if (output->path != NULL) {
        memcpy(output->path, options->path, path_size);
        status = compressor_init(&output->compressor, alloc, options->compression, options->zstd_level);
    }
    if (status == STATUS_OK) {
        status = env_open(output->env, output->path,
                          ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_TRUNCATE | ENV_OPEN_STREAM, &output->file, err);
    } else {
        (void)error_set(err, status, "%s: no memory to build it", options->path);
    }
    if (status != STATUS_OK) {
        sst__output_abandon(output);
    }
    return status;
}

static enum status write_piece(struct sst_output *output, struct error *err) {
    if (output->pace != NULL) {
        output->pace(output->pace_context, output->piece.len);
    }
    enum status status = env_fault_point(output->env, FAULT_FLUSH_WRITE, err);
    if (status == STATUS_OK) {
        status = env_pwrite(output->file, output->piece.data, output->piece.len, output->written, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "%s: writing at offset %" PRIu64, output->path, output->written);
        return status;
    }
    output->written += output->piece.len;
    buf_clear(&output->piece);
    return STATUS_OK;
}

enum status sst__output_bytes(struct sst_output *output, const void *data, size_t len, struct error *err) {
    const uint8_t *from = data;
    while (len > 0) {
        size_t part = SST_PIECE_BYTES - output->piece.len;
        part = part < len ? part : len;
        if (buf_append(&output->piece, from, part) != STATUS_OK) {
            return sst__output_no_memory(output, err);
        }
        from += part;
        len -= part;
        if (output->piece.len == SST_PIECE_BYTES) {
            enum status status = write_piece(output, err);
            if (status != STATUS_OK) {
                return status;
            }
        }
    }
    return STATUS_OK;
}

/* The body as it goes into the file. */
static enum status pack(struct sst_output *output, struct slice body, bool compress, struct slice *ret_stored,
                        enum compression *ret_compression) {
    *ret_stored = body;
    *ret_compression = COMPRESSION_NONE;
    if (!compress || output->compressor.kind == COMPRESSION_NONE) {
        return STATUS_OK;
    }
    size_t room = body.len - (body.len + COMPRESSION_SAVES_ONE_OF - 1) / COMPRESSION_SAVES_ONE_OF;
    size_t len;
    buf_clear(&output->compressed);
    enum status status = buf_reserve(&output->compressed, room);
    if (status == STATUS_OK) {
        status = compressor_run(&output->compressor, body, output->compressed.data, room, &len);
    }
    if (status == STATUS_OK) {
        *ret_stored = slice_of(output->compressed.data, len);
        *ret_compression = output->compressor.kind;
    }
    return status == STATUS_TOO_LARGE ? STATUS_OK : status;
}

enum status sst__output_block(struct sst_output *output, struct slice body, enum sst_block_kind kind, bool compress,
                              struct sst_handle *ret_handle, struct error *err) {
    CHECK(body.len > 0);
    struct slice stored;
    enum compression compression;
    if (body.len > SST_BLOCK_BYTES_MAX) {
        return error_set(err, STATUS_TOO_LARGE, "%s: a block of %zu bytes", output->path, body.len);
    }
    if (pack(output, body, compress, &stored, &compression) != STATUS_OK) {
        return sst__output_no_memory(output, err);
    }
    struct sst_handle handle = {.offset = sst__output_position(output), .size = (uint32_t)stored.len};
    uint8_t trailer[SST_TRAILER_BYTES];
    uint64_t checksum =
        sst_trailer_encode(trailer, stored, compression, (uint32_t)body.len, kind, output->id, handle.offset);
    enum status status = sst__output_bytes(output, stored.data, stored.len, err);
    if (status == STATUS_OK) {
        status = sst__output_bytes(output, trailer, sizeof trailer, err);
    }
    if (status == STATUS_OK) {
        output->checksum = sst_file_checksum_add(output->checksum, checksum);
        *ret_handle = handle;
    }
    return status;
}

enum status sst__output_tail(struct sst_output *output, const struct sst_properties *properties,
                             struct sst_footer *footer, struct error *err) {
    struct buf body;
    buf_init(&body, output->env->alloc, 0);
    enum status status = sst_properties_encode(&body, properties);
    if (status != STATUS_OK) {
        status = sst__output_no_memory(output, err);
        goto out;
    }
    status = sst__output_block(output, buf_slice(&body), SST_BLOCK_PROPERTIES, false, &footer->properties, err);
    if (status != STATUS_OK) {
        goto out;
    }
    uint8_t bytes[SST_FOOTER_BYTES];
    sst_footer_encode(bytes, footer, output->id);
    output->checksum = sst_file_checksum_add(output->checksum, sst_footer_checksum(bytes));
    status = sst__output_bytes(output, bytes, sizeof bytes, err);
out:
    buf_deinit(&body);
    return status;
}

enum status sst__output_end(struct sst_output *output, struct error *err) {
    enum status status = STATUS_OK;
    if (output->piece.len > 0) {
        status = write_piece(output, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = env_fault_point(output->env, FAULT_FLUSH_SYNC, err);
    if (status == STATUS_OK) {
        status = env_sync(output->file, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "%s: sync", output->path);
        return status;
    }
    env_close(output->file);
    output->file = NULL;
    return STATUS_OK;
}

void sst__output_abandon(struct sst_output *output) {
    if (output->env == NULL) {
        return;
    }
    if (output->file != NULL) {
        env_close(output->file);
        /* What stays behind is named by no manifest and goes at the next start. */
        struct error ignored;
        enum status status = env_unlink(output->env, output->path, &ignored);
        (void)status;
    }
    compressor_deinit(&output->compressor);
    buf_deinit(&output->compressed);
    buf_deinit(&output->piece);
    mem_free(output->env->alloc, output->path);
    output->env = NULL;
}
