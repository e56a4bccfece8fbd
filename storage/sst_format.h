/*
 * The fixed parts of an SST as bytes: header, footer, handles, block trailers, properties. Pure functions over memory,
 * for builder, reader, tools and fuzzers. FORMAT.md has the tables.
 */
#ifndef HOLDFAST_STORAGE_SST_FORMAT_H
#define HOLDFAST_STORAGE_SST_FORMAT_H

#include "node/base/buf.h"
#include "storage/sst.h"

enum {
    SST_VERSION = 1,
    SST_HEADER_BYTES = 64,
    SST_FOOTER_BYTES = 96,
    SST_TRAILER_BYTES = 16,
    SST_HANDLE_BYTES = 16,
    SST_CHECKSUM_PIECE_BYTES = 1024 * 1024 /* of the whole-file checksum, and what the builder writes at a time */
};

enum sst_block_kind { SST_BLOCK_DATA = 1, SST_BLOCK_INDEX = 2, SST_BLOCK_PROPERTIES = 3 /* 4: filter, reserved */ };
enum sst_compression { SST_COMPRESSION_NONE = 0 /* 1: lz4, 2: zstd; reserved */ };

/* Where a block's body stands; its trailer follows. */
struct sst_handle {
    uint64_t offset;
    uint32_t size;
};

struct sst_header {
    uint64_t number;
    uint64_t id;
    uint8_t cluster_id[SST_CLUSTER_ID_BYTES];
};

struct sst_footer {
    struct sst_handle index;
    struct sst_handle properties;
};

struct sst_properties {
    uint64_t entries;
    uint64_t deletes;
    uint64_t key_bytes;
    uint64_t value_bytes;
    uint64_t data_blocks;
    uint64_t revision_first;
    uint64_t revision_last;
    struct slice smallest;
    struct slice largest;
};

void sst_header_encode(uint8_t out[SST_HEADER_BYTES], const struct sst_header *header);
/* STATUS_CORRUPT, STATUS_UNSUPPORTED. */
MUST_USE enum status sst_header_decode(const uint8_t in[SST_HEADER_BYTES], struct sst_header *ret_header);

void sst_footer_encode(uint8_t out[SST_FOOTER_BYTES], const struct sst_footer *footer, uint64_t id);
/* Also checks that the blocks lie inside a file of this size, in their order. */
MUST_USE enum status sst_footer_decode(const uint8_t in[SST_FOOTER_BYTES], uint64_t id, uint64_t size_bytes,
                                       struct sst_footer *ret_footer);

void sst_handle_encode(uint8_t out[SST_HANDLE_BYTES], const struct sst_handle *handle);
/* STATUS_CORRUPT unless the block with its trailer lies in [start, end). */
MUST_USE enum status sst_handle_decode(struct slice in, uint64_t start, uint64_t end, struct sst_handle *ret_handle);

/* The trailer of an uncompressed block of this kind. */
void sst_trailer_encode(uint8_t out[SST_TRAILER_BYTES], struct slice body, enum sst_block_kind kind, uint64_t id,
                        uint64_t offset);
/* block: body and trailer as read from offset. */
MUST_USE enum status sst_block_check(struct slice block, enum sst_block_kind kind, uint64_t id, uint64_t offset,
                                     struct slice *ret_body);

MUST_USE enum status sst_properties_encode(struct buf *out, const struct sst_properties *properties);
/* Keys are borrowed from the body; unknown properties are passed over. */
MUST_USE enum status sst_properties_decode(struct slice body, struct sst_properties *ret_properties);

#endif
