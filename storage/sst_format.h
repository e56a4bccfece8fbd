/*
 * The fixed parts of an SST as bytes: header, footer, handles, block trailers, partitions, properties. Pure functions
 * over memory, for builder, reader, tools and fuzzers. FORMAT.md has the tables.
 */
#ifndef HOLDFAST_STORAGE_SST_FORMAT_H
#define HOLDFAST_STORAGE_SST_FORMAT_H

#include "node/base/buf.h"
#include "storage/block.h"
#include "storage/sst_builder.h"

enum {
    SST_VERSION = 1,
    SST_HEADER_BYTES = 64,
    SST_FOOTER_BYTES = 80,
    SST_TRAILER_BYTES = 16,
    SST_HANDLE_BYTES = 12,
    SST_PARTITION_TAIL_BYTES = 8,
    SST_BLOCK_BYTES_MAX = BLOCK_BODY_BYTES_MAX /* of a body, uncompressed as in the file */
};

enum sst_block_kind {
    SST_BLOCK_DATA = 1,
    SST_BLOCK_PARTITION = 2,
    SST_BLOCK_PROPERTIES = 3,
    SST_BLOCK_TOMBSTONES = 4,
    SST_BLOCK_TOP = 5,
    SST_BLOCK_VALUE = 6,  /* in value files (value_file.h), and nothing but properties besides */
    SST_BLOCK_CHANGES = 7 /* in change files (change_file.h) */
};

enum sst_file_kind { SST_FILE_TABLE = 0, SST_FILE_VALUES = 1, SST_FILE_CHANGES = 2 };

/* Where a block's body stands; its trailer follows. Size 0: there is no such block. */
struct sst_handle {
    uint64_t offset;
    uint32_t size; /* in the file, without the trailer */
};

struct sst_header {
    enum sst_file_kind kind;
    uint64_t number;
    uint64_t id;
    uint8_t cluster_id[SST_CLUSTER_ID_BYTES];
};

struct sst_footer {
    struct sst_handle tombstones; /* size 0 if there are no range deletes */
    struct sst_handle top;        /* size 0 if there are no entries */
    struct sst_handle properties;
};

struct sst_properties {
    uint64_t entries;
    uint64_t deletes;
    uint64_t key_bytes;
    uint64_t value_bytes;
    uint64_t data_blocks;
    uint64_t partitions;
    uint64_t raw_bytes; /* bodies of data blocks, uncompressed */
    uint64_t revision_first;
    uint64_t revision_last;
    uint64_t tombstones;
    uint64_t superseded;
    uint64_t superseded_until;
    uint64_t largest_excluded; /* 0 or 1 */
    uint64_t bloom_bits;       /* what the builder was told */
    uint64_t compression;
    struct slice smallest;
    struct slice largest;
    /* Of a table that refers to value files; decoded, value_refs is NULL and they are value_ref_bytes. */
    const struct value_ref *value_refs;
    size_t value_ref_count;
    struct slice value_ref_bytes; /* value_ref_count times VALUE_REF_BYTES, checked */
};

void sst_header_encode(uint8_t out[SST_HEADER_BYTES], const struct sst_header *header);
/* STATUS_CORRUPT, STATUS_UNSUPPORTED. */
MUST_USE enum status sst_header_decode(const uint8_t in[SST_HEADER_BYTES], struct sst_header *ret_header);

void sst_footer_encode(uint8_t out[SST_FOOTER_BYTES], const struct sst_footer *footer, uint64_t id);
/* Also checks that the blocks lie inside a file of this size, in their order. */
MUST_USE enum status sst_footer_decode(const uint8_t in[SST_FOOTER_BYTES], uint64_t id, uint64_t size_bytes,
                                       struct sst_footer *ret_footer);

void sst_handle_encode(uint8_t out[SST_HANDLE_BYTES], const struct sst_handle *handle);
/* STATUS_CORRUPT unless the block with its trailer lies in [start, end) and has 1 to SST_BLOCK_BYTES_MAX bytes. */
MUST_USE enum status sst_handle_decode(struct slice in, uint64_t start, uint64_t end, struct sst_handle *ret_handle);

/* A block as it stands in the file. */
struct sst_stored {
    struct slice body; /* without the trailer */
    enum compression compression;
    uint32_t size;     /* of the body when decompressed; at most SST_BLOCK_BYTES_MAX. Uncompressed: body.len */
    uint64_t checksum; /* of body and trailer: what the file's checksum is made of */
};

/* size: of the body before it was compressed. Returns the block's checksum. */
uint64_t sst_trailer_encode(uint8_t out[SST_TRAILER_BYTES], struct slice body, enum compression compression,
                            uint32_t size, enum sst_block_kind kind, uint64_t id, uint64_t offset);
/* block: body and trailer as read from offset. STATUS_CORRUPT; STATUS_UNSUPPORTED: a compression that we don't know. */
MUST_USE enum status sst_block_check(struct slice block, enum sst_block_kind kind, uint64_t id, uint64_t offset,
                                     struct sst_stored *ret_stored);
/* Writes stored->size bytes: the body, decompressed if need be. STATUS_CORRUPT, STATUS_NO_MEMORY. */
MUST_USE enum status sst_block_unpack(struct alloc *alloc, const struct sst_stored *stored, uint8_t *out);

/* The checksum of a whole file: begin with 0; add the header's, each block's in the order of the file, the footer's. */
uint64_t sst_file_checksum_add(uint64_t checksum, uint64_t part);
uint64_t sst_header_checksum(const uint8_t in[SST_HEADER_BYTES]);
uint64_t sst_footer_checksum(const uint8_t in[SST_FOOTER_BYTES]);

/* A partition's body: the filter first, so that it is aligned as the body is. */
struct sst_partition {
    struct slice filter; /* empty: none, every key may be there */
    uint32_t probes;
    struct slice index; /* for block_cursor_open */
};

void sst_partition_tail_encode(uint8_t out[SST_PARTITION_TAIL_BYTES], uint32_t filter_len, uint32_t probes);
/* Borrowed from the body. STATUS_CORRUPT. */
MUST_USE enum status sst_partition_open(struct slice body, struct sst_partition *ret_partition);

MUST_USE enum status sst_properties_encode(struct buf *out, const struct sst_properties *properties);
/* Keys are borrowed from the body; unknown properties are passed over. */
MUST_USE enum status sst_properties_decode(struct slice body, struct sst_properties *ret_properties);

#endif
