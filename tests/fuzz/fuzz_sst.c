/*
 * The parts of an SST. Input: a byte that says what the rest is.
 *   0  a header   1  a footer   2  properties   3  a block as read, with its trailer   4  the body of a block
 *
 * Checksums would stop nearly every change at once, so headers, footers and blocks are also tried with right ones.
 * Checked: nothing is read beyond the input, what comes out is within the limits, a seek and a walk agree.
 */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "node/base/checksum.h"
#include "storage/block.h"
#include "storage/sst_format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_BYTES = 100000, STEPS_MAX = 300 };

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

static void try_footer(struct slice input) {
    uint8_t bytes[SST_FOOTER_BYTES];
    struct sst_footer footer;
    if (input.len < sizeof bytes) {
        return;
    }
    memcpy(bytes, input.data, sizeof bytes);
    (void)!sst_footer_decode(bytes, 7, FILE_BYTES, &footer);
    put_u64(bytes + 80, checksum64(bytes, 80, 7));
    if (sst_footer_decode(bytes, 7, FILE_BYTES, &footer) == STATUS_OK) {
        CHECK(footer.index.offset >= SST_HEADER_BYTES);
        CHECK(footer.index.offset + footer.index.size < footer.properties.offset);
        CHECK(footer.properties.offset + footer.properties.size < FILE_BYTES - SST_FOOTER_BYTES);
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

static void try_body(struct slice body) {
    static struct block_cursor walk;
    static struct block_cursor seek;
    if (block_cursor_open(&walk, body) != STATUS_OK) {
        return;
    }
    CHECK(block_cursor_open(&seek, body) == STATUS_OK);
    enum status status = block_cursor_first(&walk);
    uint8_t last[LIMIT_KEY_BYTES];
    struct entry_key previous = {.user = SLICE_EMPTY};
    bool sorted = true;
    for (int i = 0; i < STEPS_MAX && status == STATUS_OK; i++, status = block_cursor_next(&walk)) {
        const struct entry *entry = &walk.entry;
        CHECK(entry->key.user.len >= 1 && entry->key.user.len <= LIMIT_KEY_BYTES);
        CHECK(entry->value.len <= body.len && (entry->value.len == 0 || entry->value.data >= body.data));
        sorted = sorted && (i == 0 || entry_key_compare(&previous, &entry->key) < 0);
        enum status sought = block_cursor_seek(&seek, &entry->key);
        if (sorted && sought == STATUS_OK) {
            CHECK(entry_key_compare(&seek.entry.key, &entry->key) >= 0);
        }
        memcpy(last, entry->key.user.data, entry->key.user.len);
        previous = entry->key;
        previous.user = slice_of(last, entry->key.user.len);
    }
}

static void try_block(struct slice block) {
    struct slice body;
    (void)!sst_block_check(block, SST_BLOCK_DATA, 7, 64, &body);
    if (block.len <= SST_TRAILER_BYTES) {
        return;
    }
    uint8_t *copy = malloc(block.len);
    CHECK(copy != NULL);
    memcpy(copy, block.data, block.len);
    size_t len = block.len - SST_TRAILER_BYTES;
    sst_trailer_encode(copy + len, slice_of(copy, len), SST_BLOCK_DATA, 7, 64);
    CHECK(sst_block_check(slice_of(copy, block.len), SST_BLOCK_DATA, 7, 64, &body) == STATUS_OK);
    CHECK(sst_block_check(slice_of(copy, block.len), SST_BLOCK_DATA, 7, 65, &body) == STATUS_CORRUPT);
    try_body(body);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const tries[])(struct slice) = {try_header, try_footer, try_properties, try_block, try_body};
    if (size > 0) {
        tries[data[0] % (sizeof tries / sizeof tries[0])](slice_of(data + 1, size - 1));
    }
    return 0;
}
