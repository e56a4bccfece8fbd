/*
 * The parts of value files, and what refers to them. Input: a byte that says what the rest is.
 *   0  a place   1  the body of a value block   2  references of a table   3  fields of a manifest edit
 *   4  a record of the log, as the bytes are, and the same with sound checksums
 *
 * Checked: nothing is read beyond the input, what comes out is within the limits and encodes to the same bytes.
 */
#include "node/base/check.h"
#include "storage/manifest_edit.h"
#include "storage/value_file.h"
#include "storage/wal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_place(struct slice input) {
    struct value_place place;
    uint8_t again[VALUE_PLACE_BYTES];
    if (value_place_decode(input, &place) == STATUS_OK) {
        CHECK(place.file > 0 && place.handle.size > 0 && place.value_len <= LIMIT_VALUE_BYTES);
        value_place_encode(again, &place);
        CHECK(slice_equal(input, slice_of(again, sizeof again)));
    }
}

static void try_block(struct slice input) {
    struct value_block block;
    if (value_block_open(input, &block) == STATUS_OK) {
        CHECK(block.key.user.len >= 1 && block.key.user.len <= LIMIT_KEY_BYTES);
        CHECK(VALUE_HEAD_BYTES + block.key.user.len + block.value.len == input.len);
        CHECK(block.value.data + block.value.len == input.data + input.len);
    }
}

static void try_refs(struct slice input) {
    if (!value_refs_check(input)) {
        return;
    }
    struct buf again;
    buf_init(&again, alloc_system(), 0);
    for (size_t at = 0; at < input.len; at += VALUE_REF_BYTES) {
        struct value_ref ref = value_ref_decode(input.data + at);
        CHECK(ref.values > 0);
        CHECK(value_refs_encode(&again, &ref, 1) == STATUS_OK);
    }
    CHECK(slice_equal(input, buf_slice(&again)));
    buf_deinit(&again);
}

static void try_edit(struct slice input) {
    struct manifest_state state;
    struct manifest_state second;
    struct buf edit;
    manifest_state_init(&state, alloc_system());
    manifest_state_init(&second, alloc_system());
    buf_init(&edit, alloc_system(), 0);
    if (manifest_state_apply(&state, input) == STATUS_OK) {
        enum status status = manifest_state_check_values(&state);
        CHECK(manifest_state_encode(&state, &edit) == STATUS_OK);
        CHECK(manifest_state_apply(&second, buf_slice(&edit)) == STATUS_OK);
        CHECK(second.values_count == state.values_count && second.file_count == state.file_count);
        CHECK(manifest_state_check_values(&second) == status);
    }
    buf_deinit(&edit);
    manifest_state_deinit(&state);
    manifest_state_deinit(&second);
}

/* Of the first operations and keys that the payload may have, each asked for. */
static void find_all(struct slice record) {
    for (uint32_t ordinal = 0; ordinal < 4; ordinal++) {
        for (size_t len = 1; len < 8; len++) {
            struct entry_key key = {.user = slice_of((const uint8_t *)"aaaaaaaa", len),
                                    .revision = 7,
                                    .ordinal = ordinal};
            struct slice value = SLICE_EMPTY;
            if (value_log_find(record, &key, &value) == STATUS_OK) {
                CHECK(value.len == 0 || (value.data > record.data && value.len < record.len &&
                                         value.data + value.len <= record.data + record.len));
            }
        }
    }
}

static void try_record(struct slice input) {
    struct buf sealed;
    buf_init(&sealed, alloc_system(), 0);
    find_all(input);
    CHECK(buf_reserve(&sealed, WAL_RECORD_HEADER_BYTES + input.len) == STATUS_OK);
    memcpy(sealed.data + WAL_RECORD_HEADER_BYTES, input.data, input.len);
    wal_record_seal(sealed.data, 3, 7, 1, input.len);
    sealed.len = WAL_RECORD_HEADER_BYTES + input.len;
    CHECK(value_log_check(buf_slice(&sealed)) == STATUS_OK);
    find_all(buf_slice(&sealed));
    buf_deinit(&sealed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const tries[])(struct slice) = {try_place, try_block, try_refs, try_edit, try_record};
    if (size > 0) {
        tries[data[0] % (sizeof tries / sizeof tries[0])](slice_of(data + 1, size - 1));
    }
    return 0;
}
