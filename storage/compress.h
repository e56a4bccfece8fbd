/*
 * Compression of blocks: lz4 and zstd behind one pair of functions. Each block is compressed by itself.
 *
 * A compressor holds the libraries' state between blocks and belongs to one thread. Decompressing has no state but what
 * it allocates for one call; any thread.
 */
#ifndef HOLDFAST_STORAGE_COMPRESS_H
#define HOLDFAST_STORAGE_COMPRESS_H

#include "node/base/alloc.h"
#include "node/base/slice.h"
#include "node/base/status.h"

/* As in files. */
enum compression { COMPRESSION_NONE = 0, COMPRESSION_LZ4 = 1, COMPRESSION_ZSTD = 2, COMPRESSION_COUNT };

enum { COMPRESSION_ZSTD_LEVEL_MIN = 1, COMPRESSION_ZSTD_LEVEL_MAX = 12 };

struct compressor {
    struct alloc *alloc;
    enum compression kind;
    int zstd_level;
    void *state; /* of the library; in `memory` for zstd */
    void *memory;
};

/* zstd_level counts for zstd only. STATUS_NO_MEMORY. */
MUST_USE enum status compressor_init(struct compressor *compressor, struct alloc *alloc, enum compression kind,
                                     int zstd_level);
void compressor_deinit(struct compressor *compressor);
/* Writes at most `room` bytes to out. STATUS_TOO_LARGE: it doesn't get that small (nothing useful was written). Not
 * legal for COMPRESSION_NONE. */
MUST_USE enum status compressor_run(struct compressor *compressor, struct slice in, uint8_t *out, size_t room,
                                    size_t *ret_len);
/* Writes exactly len bytes to out. STATUS_CORRUPT if the input says otherwise; STATUS_UNSUPPORTED: unknown kind;
 * STATUS_NO_MEMORY. */
MUST_USE enum status compression_undo(struct alloc *alloc, enum compression kind, struct slice in, uint8_t *out,
                                      size_t len);

#endif
