/*
 * The fixed parts of a table. Input: a byte that says what the rest is.
 *   0  a header   1  a footer   2  properties   3  a partition's body   4  a handle   5  a block as read, with its
 * trailer
 *
 * Checksums would stop nearly every change at once, so headers, footers and blocks are also tried with right ones.
 * Checked: nothing is read beyond the input, what comes out is within the limits and encodes to what it was.
 * Bodies of blocks are fuzz_block's.
 */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "node/base/checksum.h"
#include "storage/filter.h"
#include "storage/sst_format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_BYTES = 100000, STEPS_MAX = 300, FILE_ID = 7 };

static void try_header(struct slice input) {
    uint8_t bytes[SST_HEADER_BYTES];
    struct sst_header header;
    if (input.len < sizeof bytes) {
        return;
    }
    memcpy(bytes, input.data, sizeof bytes);
    (void)!sst_header_decode(bytes, &header);
    put_u64(bytes + 56, checksum64(bytes, 56, 0));
    if (sst_header_decode(bytes, &header) == STATUS_OK) {
        uint8_t again[SST_HEADER_BYTES];
        sst_header_encode(again, &header);
        CHECK(memcmp(again, bytes, sizeof again) == 0);
    }
}

/* Returns where the block ends, with its trailer. */
static uint64_t check_handle(const struct sst_handle *handle, uint64_t start) {
    if (handle->size == 0) {
        return start;
    }
    CHECK(handle->offset >= start && handle->size <= SST_BLOCK_BYTES_MAX);
    return handle->offset + handle->size + SST_TRAILER_BYTES;
}

static void try_footer(struct slice input) {
    uint8_t bytes[SST_FOOTER_BYTES];
    struct sst_footer footer;
    if (input.len < sizeof bytes) {
        return;
    }
    memcpy(bytes, input.data, sizeof bytes);
    (void)!sst_footer_decode(bytes, FILE_ID, FILE_BYTES, &footer);
    /* The last 16 bytes are checksum and magic. */
    put_u64(bytes + SST_FOOTER_BYTES - 16, checksum64(bytes, SST_FOOTER_BYTES - 16, FILE_ID));
    if (sst_footer_decode(bytes, FILE_ID, FILE_BYTES, &footer) == STATUS_OK) {
        uint64_t end = check_handle(&footer.tombstones, SST_HEADER_BYTES);
        end = check_handle(&footer.top, end);
        end = check_handle(&footer.properties, end);
        CHECK(end == FILE_BYTES - SST_FOOTER_BYTES);
    }
}

static void try_properties(struct slice input) {
    struct sst_properties properties;
    struct sst_properties again;
    struct buf body;
    buf_init(&body, alloc_system(), 0);
    if (sst_properties_decode(input, &properties) == STATUS_OK) {
        CHECK(sst_properties_encode(&body, &properties) == STATUS_OK);
        CHECK(body.len <= input.len);
        CHECK(sst_properties_decode(buf_slice(&body), &again) == STATUS_OK);
        CHECK(again.entries == properties.entries && slice_equal(again.largest, properties.largest));
    }
    buf_deinit(&body);
}

static void try_partition(struct slice body) {
    static struct block_cursor index;
    struct sst_partition partition;
    struct sst_handle handle;
    if (sst_partition_open(body, &partition) != STATUS_OK) {
        return;
    }
    CHECK(partition.filter.len + partition.index.len + SST_PARTITION_TAIL_BYTES == body.len);
    for (uint64_t hash = 1; hash != 0 && hash < UINT64_MAX / 3; hash *= 3) {
        (void)filter_may_hold(partition.filter, partition.probes, hash);
    }
    if (block_cursor_open(&index, partition.index) != STATUS_OK) {
        return;
    }
    enum status status = block_cursor_first(&index);
    for (int i = 0; i < STEPS_MAX && status == STATUS_OK; i++, status = block_cursor_next(&index)) {
        if (sst_handle_decode(index.entry.value, SST_HEADER_BYTES, FILE_BYTES, &handle) == STATUS_OK) {
            CHECK(check_handle(&handle, SST_HEADER_BYTES) <= FILE_BYTES);
        }
    }
}

static void try_handle(struct slice input) {
    struct sst_handle handle;
    uint8_t again[SST_HANDLE_BYTES];
    if (sst_handle_decode(input, 64, FILE_BYTES, &handle) == STATUS_OK) {
        CHECK(handle.size > 0 && check_handle(&handle, 64) <= FILE_BYTES);
        sst_handle_encode(again, &handle);
        CHECK(memcmp(again, input.data, sizeof again) == 0);
    }
}

static void try_block(struct slice block) {
    struct sst_stored stored;
    (void)!sst_block_check(block, SST_BLOCK_DATA, FILE_ID, 64, &stored);
    if (block.len <= SST_TRAILER_BYTES) {
        return;
    }
    uint8_t *copy = malloc(block.len);
    CHECK(copy != NULL);
    memcpy(copy, block.data, block.len);
    size_t len = block.len - SST_TRAILER_BYTES;
    (void)sst_trailer_encode(copy + len, slice_of(copy, len), COMPRESSION_NONE, (uint32_t)len, SST_BLOCK_DATA, FILE_ID,
                             64);
    CHECK(sst_block_check(slice_of(copy, block.len), SST_BLOCK_DATA, FILE_ID, 64, &stored) == STATUS_OK);
    CHECK(stored.size == len && stored.compression == COMPRESSION_NONE);
    CHECK(sst_block_check(slice_of(copy, block.len), SST_BLOCK_DATA, FILE_ID, 65, &stored) == STATUS_CORRUPT);
    CHECK(sst_block_check(slice_of(copy, block.len), SST_BLOCK_TOP, FILE_ID, 64, &stored) == STATUS_CORRUPT);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const tries[])(struct slice) = {try_header,    try_footer, try_properties,
                                                  try_partition, try_handle, try_block};
    if (size > 0) {
        tries[data[0] % (sizeof tries / sizeof tries[0])](slice_of(data + 1, size - 1));
    }
    return 0;
}
