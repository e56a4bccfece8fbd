/*
 * Where a table's bytes go: the file, its checksum, the buffer in front of it.
 *
 * Legal order: open, (bytes | block)..., then end or abandon. After a failure of any only abandon is legal. One thread;
 * blocks.
 */
#ifndef HOLDFAST_STORAGE_SST_BUILDER_INTERNAL_H
#define HOLDFAST_STORAGE_SST_BUILDER_INTERNAL_H

#include "storage/sst_format.h"

enum { SST_PIECE_BYTES = 1024 * 1024 /* written at a time */ };

struct sst_output {
    struct env *env;
    struct env_file *file; /* NULL: not open, or ended */
    char *path;
    uint64_t id;
    void (*pace)(void *context, uint64_t bytes);
    void *pace_context;
    struct compressor compressor;
    struct buf compressed;
    struct buf piece;  /* grows to SST_PIECE_BYTES, then it is written */
    uint64_t written;  /* bytes in the file */
    uint64_t checksum; /* of the whole file so far */
};

/* Creates the file. On failure there is nothing to abandon. */
MUST_USE enum status sst__output_open(struct sst_output *output, const struct sst_builder_options *options,
                                      struct error *err);
/* Bytes that are part of the file as they are; their checksum is the caller's to add. */
MUST_USE enum status sst__output_bytes(struct sst_output *output, const void *data, size_t len, struct error *err);
/* A block and its trailer. Compressed, if `compress` and the options say so and it is worth it. */
MUST_USE enum status sst__output_block(struct sst_output *output, struct slice body, enum sst_block_kind kind,
                                       bool compress, struct sst_handle *ret_handle, struct error *err);
/* Where the next byte will stand. */
static inline uint64_t sst__output_position(const struct sst_output *output) {
    return output->written + output->piece.len;
}
/* Properties and footer, behind the blocks that the footer names already. */
MUST_USE enum status sst__output_tail(struct sst_output *output, const struct sst_properties *properties,
                                      struct sst_footer *footer, struct error *err);
/* Writes what is left, syncs, closes. */
MUST_USE enum status sst__output_end(struct sst_output *output, struct error *err);
/* Frees all; removes the file unless it was ended. Zeroed memory is accepted. */
void sst__output_abandon(struct sst_output *output);

/* STATUS_NO_MEMORY, with the path. */
enum status sst__output_no_memory(const struct sst_output *output, struct error *err);

#endif
