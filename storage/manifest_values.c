/* Value files in manifests: as fields of an edit, as part of a state, and what tables may refer to. */
#include "node/base/bytes.h"
#include "storage/manifest_edit.h"

/* Where the id is, or would go. */
static size_t find(const struct manifest_state *state, uint64_t id) {
    size_t low = 0;
    size_t high = state->values_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (state->values[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct value_meta *manifest_state_find_values(const struct manifest_state *state, uint64_t number) {
    for (size_t i = 0; i < state->values_count; i++) {
        if (state->values[i].number == number) {
            return &state->values[i];
        }
    }
    return NULL;
}

static enum status reserve(struct manifest_state *state) {
    if (state->values_count < state->values_capacity) {
        return STATUS_OK;
    }
    size_t capacity = state->values_capacity == 0 ? 16 : 2 * state->values_capacity;
    struct value_meta *values = mem_resize(state->alloc, state->values, capacity * sizeof *values);
    if (values == NULL) {
        return STATUS_NO_MEMORY;
    }
    state->values = values;
    state->values_capacity = capacity;
    return STATUS_OK;
}

enum status manifest__add_values(struct manifest_state *state, bool is_log, struct slice *at) {
    struct value_meta meta = {.is_log = is_log};
    if (!cursor_u64(at, &meta.number) || !cursor_u64(at, &meta.id) || !cursor_u64(at, &meta.size_bytes) ||
        !cursor_u64(at, &meta.checksum) || !cursor_u64(at, &meta.values) || !cursor_u64(at, &meta.bytes)) {
        return STATUS_CORRUPT;
    }
    size_t slot = find(state, meta.id);
    bool is_there = slot < state->values_count && state->values[slot].id == meta.id;
    if (is_there || meta.id == 0 || meta.number == 0 || meta.values == 0 || meta.bytes > meta.size_bytes) {
        return STATUS_CORRUPT;
    }
    enum status status = reserve(state);
    if (status == STATUS_OK) {
        memmove(&state->values[slot + 1], &state->values[slot], (state->values_count - slot) * sizeof meta);
        state->values[slot] = meta;
        state->values_count++;
        state->values_number_max = meta.number > state->values_number_max ? meta.number : state->values_number_max;
    }
    return status;
}

enum status manifest__remove_values(struct manifest_state *state, struct slice *at) {
    uint64_t id;
    if (!cursor_u64(at, &id)) {
        return STATUS_CORRUPT;
    }
    size_t slot = find(state, id);
    if (slot == state->values_count || state->values[slot].id != id) {
        return STATUS_CORRUPT;
    }
    state->values_count--;
    memmove(&state->values[slot], &state->values[slot + 1], (state->values_count - slot) * sizeof state->values[0]);
    return STATUS_OK;
}

/* Takes what the table refers to from what is left of each file. False: it isn't there. */
static bool subtract(const struct manifest_state *state, const struct sst_meta *table, struct value_meta *left) {
    for (size_t i = 0; i < table->value_ref_count; i++) {
        const struct value_ref *ref = &table->value_refs[i];
        size_t at = find(state, ref->file);
        if (at == state->values_count || state->values[at].id != ref->file || left[at].values < ref->values ||
            left[at].bytes < ref->bytes) {
            return false;
        }
        left[at].values -= ref->values;
        left[at].bytes -= ref->bytes;
    }
    return true;
}

enum status manifest_state_check_values(const struct manifest_state *state) {
    struct value_meta *left = mem_alloc(state->alloc, state->values_count * sizeof *left + 1);
    enum status status = STATUS_OK;
    if (left == NULL) {
        return STATUS_NO_MEMORY;
    }
    if (state->values_count > 0) {
        memcpy(left, state->values, state->values_count * sizeof *left);
    }
    for (size_t i = 0; i < state->file_count && status == STATUS_OK; i++) {
        status = subtract(state, &state->files[i].meta, left) ? STATUS_OK : STATUS_CORRUPT;
    }
    for (size_t i = 0; i < state->values_count && status == STATUS_OK; i++) {
        status = left[i].values == state->values[i].values ? STATUS_CORRUPT : STATUS_OK; /* nobody refers to it */
    }
    mem_free(state->alloc, left);
    return status;
}
