/* Edits as bytes, and the state they add up to. */
#include "storage/manifest_edit.h"

#include "node/base/bytes.h"
#include "node/base/check.h"

/* ---- Writing ------------------------------------------------------------------------------------------------- */

enum {
    FRONTIER_FIXED_BYTES = 5 * 8 + 4 + STORAGE_DIGEST_BYTES + 4,
    /* level, flags, numbers */
    FILE_NUMBERS = 13,
    FILE_FIXED_BYTES = 2 + FILE_NUMBERS * 8,
    VALUES_NUMBERS = 6,
    /* Flags: */
    FILE_LARGEST_EXCLUDED = 1,
    FILE_VALUE_REFS = 2
};

static enum status put_tag_and_u64(struct buf *out, enum manifest_tag tag, uint64_t value) {
    uint8_t bytes[9];
    bytes[0] = (uint8_t)tag;
    put_u64(bytes + 1, value);
    return buf_append(out, bytes, sizeof bytes);
}

enum status manifest_put_frontier(struct buf *out, const struct storage_frontier *frontier) {
    CHECK(frontier->membership_len <= LIMIT_MEMBERSHIP_BYTES);
    enum status status = buf_reserve(out, 1 + FRONTIER_FIXED_BYTES + frontier->membership_len);
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t *at = out->data + out->len;
    *at++ = MANIFEST_FRONTIER;
    put_u64(at, frontier->index);
    put_u64(at + 8, frontier->term);
    put_u64(at + 16, frontier->cluster_time_ms);
    put_u64(at + 24, frontier->horizon);
    put_u64(at + 32, frontier->session_epoch);
    put_u32(at + 40, frontier->feature_level);
    memcpy(at + 44, frontier->digest, STORAGE_DIGEST_BYTES);
    put_u32(at + 44 + STORAGE_DIGEST_BYTES, frontier->membership_len);
    memcpy(at + FRONTIER_FIXED_BYTES, frontier->membership, frontier->membership_len);
    out->len += 1 + FRONTIER_FIXED_BYTES + frontier->membership_len;
    return STATUS_OK;
}

enum status manifest_put_next_file(struct buf *out, uint64_t number) {
    return put_tag_and_u64(out, MANIFEST_NEXT_FILE, number);
}

static uint8_t *put_key(uint8_t *at, struct slice key) {
    put_u16(at, (uint16_t)key.len);
    memcpy(at + 2, key.data, key.len);
    return at + 2 + key.len;
}

enum status manifest_put_add_file(struct buf *out, unsigned level, const struct sst_meta *meta) {
    CHECK(level < MANIFEST_LEVELS);
    CHECK(meta->smallest.len <= LIMIT_KEY_BYTES && meta->largest.len <= LIMIT_KEY_BYTES);
    bool refers = meta->value_ref_count > 0;
    size_t size = 1 + FILE_FIXED_BYTES + 2 + meta->smallest.len + 2 + meta->largest.len + (refers ? 4 : 0);
    enum status status = buf_reserve(out, size);
    if (status != STATUS_OK) {
        return status;
    }
    const uint64_t numbers[FILE_NUMBERS] = {meta->number,       meta->id,          meta->size_bytes,
                                            meta->checksum,     meta->entries,     meta->deletes,
                                            meta->tombstones,   meta->superseded,  meta->superseded_until,
                                            meta->key_bytes,    meta->value_bytes, meta->revision_first,
                                            meta->revision_last};
    uint8_t *at = out->data + out->len;
    *at++ = MANIFEST_ADD_FILE;
    *at++ = (uint8_t)level;
    *at++ = (uint8_t)((meta->largest_excluded ? FILE_LARGEST_EXCLUDED : 0) | (refers ? FILE_VALUE_REFS : 0));
    for (size_t i = 0; i < FILE_NUMBERS; i++, at += 8) {
        put_u64(at, numbers[i]);
    }
    at = put_key(at, meta->smallest);
    at = put_key(at, meta->largest);
    if (refers) {
        put_u32(at, (uint32_t)meta->value_ref_count);
        at += 4;
    }
    CHECK(at == out->data + out->len + size);
    out->len += size;
    return refers ? value_refs_encode(out, meta->value_refs, meta->value_ref_count) : STATUS_OK;
}

enum status manifest_put_remove_file(struct buf *out, unsigned level, uint64_t number) {
    uint8_t bytes[10];
    CHECK(level < MANIFEST_LEVELS);
    bytes[0] = MANIFEST_REMOVE_FILE;
    bytes[1] = (uint8_t)level;
    put_u64(bytes + 2, number);
    return buf_append(out, bytes, sizeof bytes);
}

enum status manifest_put_add_values(struct buf *out, const struct value_meta *meta) {
    const uint64_t numbers[VALUES_NUMBERS] = {meta->number,   meta->id,     meta->size_bytes,
                                              meta->checksum, meta->values, meta->bytes};
    uint8_t bytes[1 + VALUES_NUMBERS * 8];
    bytes[0] = meta->is_log ? MANIFEST_ADD_LOG_VALUES : MANIFEST_ADD_VALUES;
    for (size_t i = 0; i < VALUES_NUMBERS; i++) {
        put_u64(bytes + 1 + i * 8, numbers[i]);
    }
    return buf_append(out, bytes, sizeof bytes);
}

enum status manifest_put_remove_values(struct buf *out, uint64_t id) {
    return put_tag_and_u64(out, MANIFEST_REMOVE_VALUES, id);
}

enum status manifest_put_horizon(struct buf *out, uint64_t revision) {
    return put_tag_and_u64(out, MANIFEST_HORIZON, revision);
}

/* ---- State --------------------------------------------------------------------------------------------------- */

void manifest_state_init(struct manifest_state *state, struct alloc *alloc) {
    memset(state, 0, sizeof *state);
    state->alloc = alloc;
    state->next_file = 1;
}

void manifest_state_deinit(struct manifest_state *state) {
    for (size_t i = 0; i < state->file_count; i++) {
        mem_free(state->alloc, state->files[i].memory);
    }
    mem_free(state->alloc, state->files);
    mem_free(state->alloc, state->values);
    mem_free(state->alloc, state->changes);
    state->files = NULL;
    state->file_count = 0;
    state->file_capacity = 0;
    state->values = NULL;
    state->values_count = 0;
    state->values_capacity = 0;
    state->changes = NULL;
    state->changes_count = 0;
    state->changes_capacity = 0;
}

/* Where the number is, or would go. */
static size_t find_file(const struct manifest_state *state, uint64_t number) {
    size_t low = 0;
    size_t high = state->file_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (state->files[middle].meta.number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct manifest_file *manifest_state_find(const struct manifest_state *state, uint64_t number) {
    size_t slot = find_file(state, number);
    return slot < state->file_count && state->files[slot].meta.number == number ? &state->files[slot] : NULL;
}

static enum status reserve_file(struct manifest_state *state) {
    if (state->file_count < state->file_capacity) {
        return STATUS_OK;
    }
    size_t capacity = state->file_capacity == 0 ? 16 : 2 * state->file_capacity;
    struct manifest_file *files = mem_resize(state->alloc, state->files, capacity * sizeof *files);
    if (files == NULL) {
        return STATUS_NO_MEMORY;
    }
    state->files = files;
    state->file_capacity = capacity;
    return STATUS_OK;
}

static bool take_key(struct slice *at, struct slice *ret_key) {
    uint16_t len;
    return cursor_u16(at, &len) && len >= 1 && len <= LIMIT_KEY_BYTES && cursor_bytes(at, len, ret_key);
}

/* What no table can be. */
static bool is_possible(const struct sst_meta *meta) {
    int order = slice_compare(meta->smallest, meta->largest);
    uint64_t revisions = meta->revision_last - meta->revision_first;
    return order <= 0 && (order < 0 || !meta->largest_excluded) && meta->entries + meta->tombstones > 0 &&
           meta->entries <= UINT64_MAX - meta->tombstones && meta->deletes <= meta->entries &&
           meta->superseded <= meta->entries && meta->revision_first <= meta->revision_last && revisions < UINT64_MAX;
}

static bool take_refs(struct slice *at, struct slice *ret_refs) {
    uint32_t count;
    return cursor_u32(at, &count) && count <= VALUE_REFS_MAX &&
           cursor_bytes(at, (size_t)count * VALUE_REF_BYTES, ret_refs) && value_refs_check(*ret_refs);
}

/* ret_refs: as bytes; empty if there are none. */
static enum status read_meta(struct slice *at, unsigned *ret_level, struct sst_meta *ret_meta, struct slice *ret_refs) {
    uint8_t level;
    uint8_t flags;
    struct sst_meta meta;
    memset(&meta, 0, sizeof meta);
    uint64_t *const numbers[FILE_NUMBERS] = {&meta.number,       &meta.id,          &meta.size_bytes,
                                             &meta.checksum,     &meta.entries,     &meta.deletes,
                                             &meta.tombstones,   &meta.superseded,  &meta.superseded_until,
                                             &meta.key_bytes,    &meta.value_bytes, &meta.revision_first,
                                             &meta.revision_last};
    if (!cursor_u8(at, &level) || level >= MANIFEST_LEVELS || !cursor_u8(at, &flags)) {
        return STATUS_CORRUPT;
    }
    if ((flags & ~(FILE_LARGEST_EXCLUDED | FILE_VALUE_REFS)) != 0) {
        return STATUS_UNSUPPORTED;
    }
    for (size_t i = 0; i < FILE_NUMBERS; i++) {
        if (!cursor_u64(at, numbers[i])) {
            return STATUS_CORRUPT;
        }
    }
    meta.largest_excluded = (flags & FILE_LARGEST_EXCLUDED) != 0;
    struct slice refs = SLICE_EMPTY;
    if (!take_key(at, &meta.smallest) || !take_key(at, &meta.largest) || !is_possible(&meta) ||
        ((flags & FILE_VALUE_REFS) != 0 && !take_refs(at, &refs))) {
        return STATUS_CORRUPT;
    }
    *ret_refs = refs;
    *ret_level = level;
    *ret_meta = meta;
    return STATUS_OK;
}

/* Copies of what meta borrows from the edit, in memory that is returned. NULL: out of memory. */
static void *own_meta(struct alloc *alloc, struct sst_meta *meta, struct slice refs) {
    size_t count = refs.len / VALUE_REF_BYTES;
    struct value_ref *memory = mem_alloc(alloc, count * sizeof *memory + meta->smallest.len + meta->largest.len);
    if (memory == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        memory[i] = value_ref_decode(refs.data + i * VALUE_REF_BYTES);
    }
    uint8_t *keys = (uint8_t *)(memory + count);
    memcpy(keys, meta->smallest.data, meta->smallest.len);
    memcpy(keys + meta->smallest.len, meta->largest.data, meta->largest.len);
    meta->smallest.data = keys;
    meta->largest.data = keys + meta->smallest.len;
    meta->value_refs = count == 0 ? NULL : memory;
    meta->value_ref_count = count;
    return memory;
}

static enum status apply_add(struct manifest_state *state, struct slice *at) {
    unsigned level;
    struct sst_meta meta;
    struct slice refs;
    enum status status = read_meta(at, &level, &meta, &refs);
    if (status != STATUS_OK) {
        return status;
    }
    size_t slot = find_file(state, meta.number);
    if (slot < state->file_count && state->files[slot].meta.number == meta.number) {
        return STATUS_CORRUPT;
    }
    status = reserve_file(state);
    if (status != STATUS_OK) {
        return status;
    }
    void *memory = own_meta(state->alloc, &meta, refs);
    if (memory == NULL) {
        return STATUS_NO_MEMORY;
    }
    memmove(&state->files[slot + 1], &state->files[slot], (state->file_count - slot) * sizeof *state->files);
    state->files[slot] = (struct manifest_file){.level = level, .meta = meta, .memory = memory};
    state->file_count++;
    return STATUS_OK;
}

static enum status apply_remove(struct manifest_state *state, struct slice *at) {
    uint8_t level;
    uint64_t number;
    if (!cursor_u8(at, &level) || !cursor_u64(at, &number)) {
        return STATUS_CORRUPT;
    }
    size_t slot = find_file(state, number);
    if (slot == state->file_count || state->files[slot].meta.number != number || state->files[slot].level != level) {
        return STATUS_CORRUPT;
    }
    mem_free(state->alloc, state->files[slot].memory);
    state->file_count--;
    memmove(&state->files[slot], &state->files[slot + 1], (state->file_count - slot) * sizeof *state->files);
    return STATUS_OK;
}

/* No part of a frontier ever goes back. */
static enum status apply_frontier(struct manifest_state *state, struct slice *at) {
    struct storage_frontier frontier;
    struct slice digest;
    struct slice membership;
    memset(&frontier, 0, sizeof frontier);
    if (!cursor_u64(at, &frontier.index) || !cursor_u64(at, &frontier.term) ||
        !cursor_u64(at, &frontier.cluster_time_ms) || !cursor_u64(at, &frontier.horizon) ||
        !cursor_u64(at, &frontier.session_epoch) || !cursor_u32(at, &frontier.feature_level) ||
        !cursor_bytes(at, STORAGE_DIGEST_BYTES, &digest) || !cursor_u32(at, &frontier.membership_len) ||
        frontier.membership_len > LIMIT_MEMBERSHIP_BYTES || !cursor_bytes(at, frontier.membership_len, &membership)) {
        return STATUS_CORRUPT;
    }
    const struct storage_frontier *old = &state->frontier;
    if (frontier.index < old->index || frontier.term < old->term || frontier.horizon < old->horizon) {
        return STATUS_CORRUPT;
    }
    memcpy(frontier.digest, digest.data, STORAGE_DIGEST_BYTES);
    memcpy(frontier.membership, membership.data, membership.len);
    state->frontier = frontier;
    return STATUS_OK;
}

static enum status apply_growing(uint64_t *number, struct slice *at) {
    uint64_t value;
    if (!cursor_u64(at, &value) || value < *number) {
        return STATUS_CORRUPT;
    }
    *number = value;
    return STATUS_OK;
}

enum status manifest_state_apply(struct manifest_state *state, struct slice edit) {
    enum status status = STATUS_OK;
    uint8_t tag;
    while (status == STATUS_OK && cursor_u8(&edit, &tag)) {
        switch (tag) {
        case MANIFEST_FRONTIER: status = apply_frontier(state, &edit); break;
        case MANIFEST_NEXT_FILE: status = apply_growing(&state->next_file, &edit); break;
        case MANIFEST_ADD_FILE: status = apply_add(state, &edit); break;
        case MANIFEST_REMOVE_FILE: status = apply_remove(state, &edit); break;
        case MANIFEST_HORIZON: status = apply_growing(&state->horizon, &edit); break;
        case MANIFEST_ADD_VALUES: status = manifest__add_values(state, false, &edit); break;
        case MANIFEST_ADD_LOG_VALUES: status = manifest__add_values(state, true, &edit); break;
        case MANIFEST_REMOVE_VALUES: status = manifest__remove_values(state, &edit); break;
        case MANIFEST_ADD_CHANGES: status = manifest__add_changes(state, &edit); break;
        case MANIFEST_CHANGES_AFTER: status = manifest__changes_after(state, &edit); break;
        default: status = STATUS_UNSUPPORTED; break;
        }
    }
    if (status == STATUS_OK && state->file_count > 0 &&
        state->files[state->file_count - 1].meta.number >= state->next_file) {
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_OK && state->values_number_max >= state->next_file) {
        status = STATUS_CORRUPT;
    }
    if (status == STATUS_OK && state->changes_number_max >= state->next_file) {
        status = STATUS_CORRUPT;
    }
    return status;
}

enum status manifest_state_encode(const struct manifest_state *state, struct buf *out) {
    enum status status = manifest_put_next_file(out, state->next_file);
    if (status == STATUS_OK) {
        status = manifest_put_frontier(out, &state->frontier);
    }
    if (status == STATUS_OK) {
        status = manifest_put_horizon(out, state->horizon);
    }
    for (size_t i = 0; i < state->file_count && status == STATUS_OK; i++) {
        status = manifest_put_add_file(out, state->files[i].level, &state->files[i].meta);
    }
    for (size_t i = 0; i < state->values_count && status == STATUS_OK; i++) {
        status = manifest_put_add_values(out, &state->values[i]);
    }
    return status == STATUS_OK ? manifest__put_changes(state, out) : status;
}
