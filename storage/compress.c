/*
 * lz4 and zstd, with their state in our memory.
 *
 * lz4 is used through its stream interface: a stream that was reset compresses a block by itself, and resetting costs
 * nothing, while the plain calls clear 16 KiB each time.
 */
#define ZSTD_STATIC_LINKING_ONLY /* contexts in memory that we hand in */

#include "storage/compress.h"

#include "node/base/check.h"

#include <limits.h>
#include <lz4.h>
#include <zstd.h>
#include <zstd_errors.h>

enum status compressor_init(struct compressor *compressor, struct alloc *alloc, enum compression kind, int zstd_level) {
    *compressor = (struct compressor){.alloc = alloc, .kind = kind, .zstd_level = zstd_level};
    size_t size = 0;
    switch (kind) {
    case COMPRESSION_NONE: return STATUS_OK;
    case COMPRESSION_LZ4: size = sizeof(LZ4_stream_t); break;
    case COMPRESSION_ZSTD:
        CHECK(zstd_level >= COMPRESSION_ZSTD_LEVEL_MIN && zstd_level <= COMPRESSION_ZSTD_LEVEL_MAX);
        size = ZSTD_estimateCCtxSize(zstd_level);
        break;
    case COMPRESSION_COUNT: break;
    }
    CHECK(size > 0);
    compressor->memory = mem_alloc(alloc, size);
    if (compressor->memory == NULL) {
        return STATUS_NO_MEMORY;
    }
    compressor->state = kind == COMPRESSION_LZ4 ? (void *)LZ4_initStream(compressor->memory, size)
                                                : (void *)ZSTD_initStaticCCtx(compressor->memory, size);
    CHECK(compressor->state != NULL);
    return STATUS_OK;
}

void compressor_deinit(struct compressor *compressor) {
    mem_free(compressor->alloc, compressor->memory);
    compressor->memory = NULL;
    compressor->state = NULL;
}

enum status compressor_run(struct compressor *compressor, struct slice in, uint8_t *out, size_t room, size_t *ret_len) {
    CHECK(compressor->state != NULL && in.len > 0 && in.len <= INT_MAX);
    if (room == 0) {
        return STATUS_TOO_LARGE;
    }
    if (compressor->kind == COMPRESSION_LZ4) {
        LZ4_resetStream_fast(compressor->state);
        int len = LZ4_compress_fast_continue(compressor->state, (const char *)in.data, (char *)out, (int)in.len,
                                             room > INT_MAX ? INT_MAX : (int)room, 1);
        if (len <= 0) {
            /* After a failure the stream is only good for a full reset. */
            CHECK(LZ4_initStream(compressor->memory, sizeof(LZ4_stream_t)) != NULL);
            return STATUS_TOO_LARGE;
        }
        *ret_len = (size_t)len;
        return STATUS_OK;
    }
    size_t len = ZSTD_compressCCtx(compressor->state, out, room, in.data, in.len, compressor->zstd_level);
    if (ZSTD_isError(len)) {
        return ZSTD_getErrorCode(len) == ZSTD_error_memory_allocation ? STATUS_NO_MEMORY : STATUS_TOO_LARGE;
    }
    *ret_len = len;
    return STATUS_OK;
}

static enum status undo_zstd(struct alloc *alloc, struct slice in, uint8_t *out, size_t len) {
    size_t size = ZSTD_estimateDCtxSize();
    void *memory = mem_alloc(alloc, size);
    if (memory == NULL) {
        return STATUS_NO_MEMORY;
    }
    ZSTD_DCtx *context = ZSTD_initStaticDCtx(memory, size);
    CHECK(context != NULL);
    size_t got = ZSTD_decompressDCtx(context, out, len, in.data, in.len);
    mem_free(alloc, memory);
    return got == len ? STATUS_OK : STATUS_CORRUPT;
}

enum status compression_undo(struct alloc *alloc, enum compression kind, struct slice in, uint8_t *out, size_t len) {
    if (in.len == 0 || in.len > INT_MAX || len > INT_MAX) {
        return STATUS_CORRUPT;
    }
    switch (kind) {
    case COMPRESSION_NONE:
        if (in.len != len) {
            return STATUS_CORRUPT;
        }
        memcpy(out, in.data, len);
        return STATUS_OK;
    case COMPRESSION_LZ4:
        return LZ4_decompress_safe((const char *)in.data, (char *)out, (int)in.len, (int)len) == (int)len
                   ? STATUS_OK
                   : STATUS_CORRUPT;
    case COMPRESSION_ZSTD: return undo_zstd(alloc, in, out, len);
    case COMPRESSION_COUNT: break;
    }
    return STATUS_UNSUPPORTED;
}
