/*
 * Bodies of blocks, and blocks that say that they are compressed. Input: a byte that says what the rest is.
 *   0  a body: walked in both directions, searched
 *   1  compression u8, uncompressed size u16, compressed bytes
 *
 * Checked: nothing is read or written beyond the input and the output that was asked for, every call ends, what comes
 * out is within the limits; both directions agree; in a body that our builder could have written every entry is found
 * by search and by hash.
 */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "storage/block.h"
#include "storage/compress.h"
#include "storage/filter.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS_MAX = 400, KEYS_BYTES_MAX = 256 * 1024 };

struct walked {
    struct entry entries[STEPS_MAX];
    size_t count;
    uint8_t keys[KEYS_BYTES_MAX]; /* copies */
    size_t keys_len;
    bool whole; /* to the end without an error */
};

static struct block_cursor cursor;
static struct walked forward;

static void check_bounds(const struct entry *entry, struct slice body) {
    CHECK(entry->key.user.len >= 1 && entry->key.user.len <= LIMIT_KEY_BYTES);
    CHECK(entry->value.data >= body.data && entry->value.data + entry->value.len <= body.data + cursor.entries_len);
    CHECK(entry->kind == BATCH_PUT || (entry->kind == BATCH_DELETE && entry->value.len == 0));
}

static bool same_entry(const struct entry *a, const struct entry *b) {
    return entry_key_compare(&a->key, &b->key) == 0 && a->kind == b->kind && a->value.data == b->value.data &&
           a->value.len == b->value.len;
}

static void walk_forward(struct slice body) {
    forward.count = 0;
    forward.keys_len = 0;
    enum status status = block_cursor_first(&cursor);
    for (; status == STATUS_OK && forward.count < STEPS_MAX; status = block_cursor_next(&cursor)) {
        struct slice user = cursor.entry.key.user;
        check_bounds(&cursor.entry, body);
        if (user.len > KEYS_BYTES_MAX - forward.keys_len) {
            break;
        }
        uint8_t *key = forward.keys + forward.keys_len;
        memcpy(key, user.data, user.len);
        forward.entries[forward.count] = cursor.entry;
        forward.entries[forward.count++].key.user = slice_of(key, user.len);
        forward.keys_len += user.len;
    }
    CHECK(status == STATUS_OK || status == STATUS_NOT_FOUND || status == STATUS_CORRUPT);
    forward.whole = status == STATUS_NOT_FOUND;
}

/* True if the builder makes these very bytes of the entries. */
static bool is_ours(struct slice body) {
    bool same = false;
    for (uint32_t interval = 1; interval <= BLOCK_INTERVAL && !same && forward.whole && forward.count > 0;
         interval += BLOCK_INTERVAL - 1) {
        static struct block_builder builder;
        struct slice again;
        block_builder_init(&builder, alloc_system(), interval, cursor.bucket_count > 0);
        enum status status = STATUS_OK;
        for (size_t i = 0; i < forward.count && status == STATUS_OK; i++) {
            status = block_builder_add(&builder, &forward.entries[i]);
        }
        same = status == STATUS_OK && block_builder_finish(&builder, &again) == STATUS_OK && slice_equal(again, body);
        block_builder_deinit(&builder);
    }
    return same;
}

/* In a body of ours it meets what the walk forward met; and may turn anywhere. (Elsewhere a restart may lie in the
 * middle of an entry.) */
static void walk_back(struct slice body, bool ours) {
    enum status status = block_cursor_last(&cursor);
    size_t left = forward.count;
    for (int i = 0; status == STATUS_OK && i < STEPS_MAX; i++, status = block_cursor_prev(&cursor)) {
        check_bounds(&cursor.entry, body);
        if (ours) {
            CHECK(left > 0);
            left--;
            CHECK(same_entry(&cursor.entry, &forward.entries[left]));
            if (left % 5 == 0 && left + 1 < forward.count) {
                CHECK(block_cursor_next(&cursor) == STATUS_OK);
                CHECK(same_entry(&cursor.entry, &forward.entries[left + 1]));
                status = block_cursor_prev(&cursor);
                CHECK(status == STATUS_OK && same_entry(&cursor.entry, &forward.entries[left]));
            }
        }
    }
    CHECK(!ours || (status == STATUS_NOT_FOUND && left == 0));
}

static void search(struct slice body, bool ours) {
    for (size_t i = 0; i < forward.count; i++) {
        const struct entry *entry = &forward.entries[i];
        struct slice user = entry->key.user;
        enum status status = block_cursor_seek(&cursor, &entry->key);
        CHECK(!ours || (status == STATUS_OK && same_entry(&cursor.entry, entry)));
        if (status == STATUS_OK) {
            check_bounds(&cursor.entry, body);
            status = block_cursor_prev(&cursor);
            CHECK(!ours || (i == 0 ? status == STATUS_NOT_FOUND : same_entry(&cursor.entry, entry - 1)));
        }
        status = block_cursor_seek_before(&cursor, &entry->key);
        CHECK(!ours || (i == 0 ? status == STATUS_NOT_FOUND : same_entry(&cursor.entry, entry - 1)));
        status = block_cursor_find(&cursor, user, filter_hash(user), entry->key.revision);
        CHECK(!ours || (status == STATUS_OK && cursor.entry.key.revision == entry->key.revision &&
                        slice_equal(cursor.entry.key.user, user)));
        if (status == STATUS_OK) {
            check_bounds(&cursor.entry, body);
            status = block_cursor_next(&cursor);
        }
    }
}

static void try_body(struct slice input) {
    if (block_cursor_open(&cursor, input) != STATUS_OK) {
        return;
    }
    walk_forward(input);
    bool ours = is_ours(input);
    walk_back(input, ours);
    search(input, ours);
}

static void try_compressed(struct slice input) {
    uint8_t kind;
    uint16_t size;
    if (!cursor_u8(&input, &kind) || !cursor_u16(&input, &size) || size == 0) {
        return;
    }
    uint8_t *out = malloc(size);
    uint8_t *again = malloc(2 * (size_t)size + 1024);
    uint8_t *undone = malloc(size);
    CHECK(out != NULL && again != NULL && undone != NULL);
    enum compression compression = (enum compression)(kind % (COMPRESSION_COUNT + 1));
    enum status status = compression_undo(alloc_system(), compression, input, out, size);
    CHECK(status == STATUS_OK || status == STATUS_CORRUPT || compression == COMPRESSION_COUNT);
    if (status == STATUS_OK && compression != COMPRESSION_NONE) {
        struct compressor compressor;
        size_t len;
        CHECK(compressor_init(&compressor, alloc_system(), compression, 1) == STATUS_OK);
        CHECK(compressor_run(&compressor, slice_of(out, size), again, 2 * (size_t)size + 1024, &len) == STATUS_OK);
        CHECK(compression_undo(alloc_system(), compression, slice_of(again, len), undone, size) == STATUS_OK);
        CHECK(memcmp(out, undone, size) == 0);
        compressor_deinit(&compressor);
    }
    free(out);
    free(again);
    free(undone);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    /* In memory of exactly that size, so that a read behind it is seen. */
    uint8_t *copy = malloc(size > 1 ? size - 1 : 1);
    CHECK(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    if (data[0] % 2 == 0) {
        try_body(slice_of(copy, size - 1));
    } else {
        try_compressed(slice_of(copy, size - 1));
    }
    free(copy);
    return 0;
}
