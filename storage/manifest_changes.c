/* Change files in manifests: as fields of an edit, and as part of a state. */
#include "node/base/bytes.h"
#include "storage/manifest_edit.h"

enum { CHANGES_NUMBERS = 9 };

/* ---- Writing ------------------------------------------------------------------------------------------------- */

enum status manifest_put_add_changes(struct buf *out, const struct change_meta *meta) {
    const uint64_t numbers[CHANGES_NUMBERS] = {meta->number,        meta->id,           meta->size_bytes,
                                               meta->checksum,      meta->changes,      meta->revision_first,
                                               meta->revision_last, meta->index.offset, meta->index.size};
    uint8_t bytes[1 + CHANGES_NUMBERS * 8];
    bytes[0] = MANIFEST_ADD_CHANGES;
    for (size_t i = 0; i < CHANGES_NUMBERS; i++) {
        put_u64(bytes + 1 + i * 8, numbers[i]);
    }
    return buf_append(out, bytes, sizeof bytes);
}

enum status manifest_put_changes_after(struct buf *out, uint64_t revision) {
    uint8_t bytes[9];
    bytes[0] = MANIFEST_CHANGES_AFTER;
    put_u64(bytes + 1, revision);
    return buf_append(out, bytes, sizeof bytes);
}

enum status manifest__put_changes(const struct manifest_state *state, struct buf *out) {
    enum status status = manifest_put_changes_after(out, state->changes_after);
    for (size_t i = 0; i < state->changes_count && status == STATUS_OK; i++) {
        status = manifest_put_add_changes(out, &state->changes[i]);
    }
    return status;
}

/* ---- State --------------------------------------------------------------------------------------------------- */

static enum status reserve(struct manifest_state *state) {
    if (state->changes_count < state->changes_capacity) {
        return STATUS_OK;
    }
    size_t capacity = state->changes_capacity == 0 ? 16 : 2 * state->changes_capacity;
    struct change_meta *changes = mem_resize(state->alloc, state->changes, capacity * sizeof *changes);
    if (changes == NULL) {
        return STATUS_NO_MEMORY;
    }
    state->changes = changes;
    state->changes_capacity = capacity;
    return STATUS_OK;
}

enum status manifest__add_changes(struct manifest_state *state, struct slice *at) {
    struct change_meta meta;
    uint64_t index_size;
    if (!cursor_u64(at, &meta.number) || !cursor_u64(at, &meta.id) || !cursor_u64(at, &meta.size_bytes) ||
        !cursor_u64(at, &meta.checksum) || !cursor_u64(at, &meta.changes) || !cursor_u64(at, &meta.revision_first) ||
        !cursor_u64(at, &meta.revision_last) || !cursor_u64(at, &meta.index.offset) || !cursor_u64(at, &index_size) ||
        index_size > SST_BLOCK_BYTES_MAX) {
        return STATUS_CORRUPT;
    }
    meta.index.size = (uint32_t)index_size;
    uint64_t before = state->changes_count == 0 ? 0 : state->changes[state->changes_count - 1].revision_last;
    if (!change_meta_is_possible(&meta) || meta.revision_first <= before ||
        meta.revision_last <= state->changes_after) {
        return STATUS_CORRUPT;
    }
    enum status status = reserve(state);
    if (status == STATUS_OK) {
        state->changes[state->changes_count++] = meta;
        state->changes_number_max = meta.number > state->changes_number_max ? meta.number : state->changes_number_max;
    }
    return status;
}

enum status manifest__changes_after(struct manifest_state *state, struct slice *at) {
    uint64_t revision;
    size_t gone = 0;
    if (!cursor_u64(at, &revision) || revision < state->changes_after) {
        return STATUS_CORRUPT;
    }
    state->changes_after = revision;
    while (gone < state->changes_count && state->changes[gone].revision_last <= revision) {
        gone++;
    }
    if (gone > 0) {
        state->changes_count -= gone;
        memmove(state->changes, state->changes + gone, state->changes_count * sizeof state->changes[0]);
    }
    return STATUS_OK;
}

const struct change_meta *manifest_state_find_changes(const struct manifest_state *state, uint64_t number) {
    for (size_t i = 0; i < state->changes_count; i++) {
        if (state->changes[i].number == number) {
            return &state->changes[i];
        }
    }
    return NULL;
}
