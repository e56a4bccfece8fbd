/*
 * The parts of change files. Input: a byte that says what the rest is.
 *   0  the body of a block   1  an index   2  fields of a manifest edit
 *
 * Checked: nothing is read beyond the input, changes are within the limits and grow, and what comes out of a block
 * makes a block that says the same.
 */
#include "node/base/check.h"
#include "storage/change_file.h"
#include "storage/manifest_edit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_change(const struct change *change) {
    CHECK(change->revision > 0 && change->ordinal < LIMIT_BATCH_OPERATIONS);
    CHECK(change->key.len >= 1 && change->key.len <= LIMIT_KEY_BYTES && change->end.len <= LIMIT_KEY_BYTES);
    CHECK(change->kind >= BATCH_PUT && change->kind <= BATCH_DELETE_RANGE);
    CHECK(change->kind == BATCH_DELETE_RANGE ? slice_compare(change->key, change->end) < 0 : change->end.len == 0);
}

static void try_block(struct slice input) {
    struct change_block block;
    struct change_block_builder builder;
    struct change_block again;
    size_t count = 0;
    change_block_builder_init(&builder, alloc_system());
    enum status status = change_block_open(&block, input);
    for (uint64_t revision = 0, ordinal = 0;
         status == STATUS_OK && (status = change_block_next(&block)) == STATUS_OK;) {
        check_change(&block.change);
        CHECK(count == 0 ||
              change_compare(revision, (uint32_t)ordinal, block.change.revision, block.change.ordinal) < 0);
        CHECK(change_block_builder_add(&builder, &block.change) == STATUS_OK);
        revision = block.change.revision;
        ordinal = block.change.ordinal;
        count++;
    }
    CHECK(status == STATUS_NOT_FOUND || status == STATUS_CORRUPT);
    if (count > 0) {
        CHECK(change_block_open(&again, buf_slice(&builder.body)) == STATUS_OK);
        while ((status = change_block_next(&again)) == STATUS_OK) {
            check_change(&again.change);
            count--;
        }
        CHECK(status == STATUS_NOT_FOUND && count == 0);
    }
    change_block_builder_deinit(&builder);
}

static void try_index(struct slice input) {
    size_t count = change_index_count(input);
    if (count == 0) {
        return;
    }
    CHECK(change_index_find(input, 0) == 0 && change_index_find(input, UINT64_MAX) < count);
    for (size_t at = 0; at < count; at++) {
        struct change_index_entry entry;
        uint8_t again[CHANGE_INDEX_ENTRY_BYTES];
        if (change_index_decode(input, at, UINT32_MAX, &entry) == STATUS_OK) {
            CHECK(entry.handle.offset + entry.handle.size + SST_TRAILER_BYTES <= UINT32_MAX);
            change_index_encode(again, &entry);
            CHECK(memcmp(again, input.data + at * CHANGE_INDEX_ENTRY_BYTES, sizeof again) == 0);
        }
    }
}

static void try_edit(struct slice input) {
    struct manifest_state state;
    struct manifest_state second;
    struct buf edit;
    manifest_state_init(&state, alloc_system());
    manifest_state_init(&second, alloc_system());
    buf_init(&edit, alloc_system(), 0);
    if (manifest_state_apply(&state, input) == STATUS_OK) {
        for (size_t i = 0; i < state.changes_count; i++) {
            CHECK(change_meta_is_possible(&state.changes[i]) && state.changes[i].revision_last > state.changes_after);
            CHECK(i == 0 || state.changes[i - 1].revision_last < state.changes[i].revision_first);
        }
        CHECK(manifest_state_encode(&state, &edit) == STATUS_OK);
        CHECK(manifest_state_apply(&second, buf_slice(&edit)) == STATUS_OK);
        CHECK(second.changes_count == state.changes_count && second.changes_after == state.changes_after);
    }
    buf_deinit(&edit);
    manifest_state_deinit(&state);
    manifest_state_deinit(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const tries[])(struct slice) = {try_block, try_index, try_edit};
    if (size > 0) {
        tries[data[0] % (sizeof tries / sizeof tries[0])](slice_of(data + 1, size - 1));
    }
    return 0;
}
