/*
 * Manifests. Input: a byte that says what the rest is.
 *   0  one edit, applied to an empty state
 *   1  CURRENT, as it is and with a right checksum
 *   2  a manifest file, as it is
 *   3  edits, each behind a u16 length, sealed into a file with prepared space; then patches (offset u16, byte) of it
 *
 * Checked: no crash, nothing leaks, allocations stay in proportion, a state encoded again gives the same state, and a
 * sound file is read whole.
 */
#include "node/base/bytes.h"
#include "node/base/check.h"
#include "node/base/checksum.h"
#include "storage/manifest.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    NUMBER = 9,
    FILE_BYTES_MAX = 64 * 1024,
    ALLOCATION_MAX = 1024 * 1024,
    PREPARED_BYTES = 2 * MANIFEST_BLOCK_BYTES
};

static const struct manifest_identity identity = {.cluster_id = "cluster-of-tests", .node_id = 3};

static void *bounded_resize(struct alloc *alloc, void *ptr, size_t size, size_t align) {
    (void)alloc;
    CHECK(size <= ALLOCATION_MAX);
    return alloc_system()->resize(alloc_system(), ptr, size, align);
}

static struct alloc bounded = {.resize = bounded_resize};

static void check_state(const struct manifest_state *state) {
    struct manifest_state again;
    struct buf first;
    struct buf second;
    buf_init(&first, alloc_system(), 0);
    buf_init(&second, alloc_system(), 0);
    CHECK(manifest_state_encode(state, &first) == STATUS_OK);
    manifest_state_init(&again, &bounded);
    CHECK(manifest_state_apply(&again, buf_slice(&first)) == STATUS_OK);
    CHECK(manifest_state_encode(&again, &second) == STATUS_OK);
    CHECK(slice_equal(buf_slice(&first), buf_slice(&second)));
    manifest_state_deinit(&again);
    buf_deinit(&first);
    buf_deinit(&second);
}

static void try_edit(struct slice input) {
    struct manifest_state state;
    manifest_state_init(&state, &bounded);
    if (manifest_state_apply(&state, input) == STATUS_OK) {
        check_state(&state);
    }
    manifest_state_deinit(&state);
}

static void try_current(struct slice input) {
    uint8_t bytes[CURRENT_BYTES];
    uint64_t number;
    struct error err;
    (void)!manifest_current_decode(input, &identity, &number, &err);
    if (input.len < sizeof bytes) {
        return;
    }
    memcpy(bytes, input.data, sizeof bytes);
    put_u64(bytes + 56, checksum64(bytes, 56, 0));
    if (manifest_current_decode(slice_of(bytes, sizeof bytes), &identity, &number, &err) == STATUS_OK) {
        uint8_t again[CURRENT_BYTES];
        manifest_current_encode(again, &identity, number);
        CHECK(memcmp(again, bytes, sizeof again) == 0);
    }
}

static enum status parse(struct slice file, struct manifest_end *ret_end) {
    struct manifest_state state;
    struct error err;
    manifest_state_init(&state, &bounded);
    enum status status = manifest_parse(file, &identity, NUMBER, &state, ret_end, &err);
    if (status == STATUS_OK) {
        check_state(&state);
    }
    manifest_state_deinit(&state);
    return status;
}

static void try_file(struct slice input) {
    struct manifest_end end;
    (void)!parse(input, &end);
}

/* Zero blocks behind the last record. */
static size_t prepared(uint8_t *file, size_t len) {
    size_t room = FILE_BYTES_MAX - len < PREPARED_BYTES ? FILE_BYTES_MAX - len : PREPARED_BYTES;
    memset(file + len, 0, room);
    return room;
}

static void try_sealed(struct slice input) {
    static uint8_t file[FILE_BYTES_MAX];
    struct manifest_state state;
    struct manifest_end end;
    size_t len = MANIFEST_BLOCK_BYTES;
    uint64_t sequence = 0;
    bool sound = true;
    uint16_t payload_len;
    manifest_header_encode(file, &identity, NUMBER);
    manifest_state_init(&state, &bounded);
    while (sequence < 6 && cursor_u16(&input, &payload_len)) {
        struct slice payload;
        size_t room = len + manifest_edit_bytes(payload_len % 2048) + MANIFEST_BLOCK_BYTES;
        if (room > sizeof file || !cursor_bytes(&input, payload_len % 2048, &payload)) {
            break;
        }
        sequence++;
        manifest_edit_seal(file + len, payload, NUMBER, sequence, len);
        len += manifest_edit_bytes(payload.len);
        manifest_mark_seal(file + len, NUMBER, sequence, len);
        len += MANIFEST_BLOCK_BYTES;
        sound = sound && manifest_state_apply(&state, payload) == STATUS_OK;
    }
    manifest_state_deinit(&state);
    size_t whole = len + prepared(file, len);
    enum status status = parse(slice_of(file, whole), &end);
    CHECK((status == STATUS_OK) == (sound && sequence > 0));
    CHECK(status != STATUS_OK || (end.sequence == sequence && end.size_bytes == len));
    uint16_t where;
    uint8_t byte;
    while (cursor_u16(&input, &where) && cursor_u8(&input, &byte)) {
        file[where % whole] = byte;
    }
    (void)!parse(slice_of(file, whole), &end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const tries[])(struct slice) = {try_edit, try_current, try_file, try_sealed};
    if (size > 0) {
        tries[data[0] % (sizeof tries / sizeof tries[0])](slice_of(data + 1, size - 1));
    }
    return 0;
}
