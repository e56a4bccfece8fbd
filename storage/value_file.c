/* Bytes of value files that tables don't have, and the list of what a table refers to. */
#include "storage/value_file.h"

#include "node/base/bytes.h"

/* ---- Places: file u64, offset u64, stored size u32, value length u32 ------------------------------------------ */

void value_place_encode(uint8_t out[VALUE_PLACE_BYTES], const struct value_place *place) {
    put_u64(out, place->file);
    put_u64(out + 8, place->handle.offset);
    put_u32(out + 16, place->handle.size);
    put_u32(out + 20, place->value_len);
}

enum status value_place_decode(struct slice in, struct value_place *ret_place) {
    if (in.len != VALUE_PLACE_BYTES) {
        return STATUS_CORRUPT;
    }
    struct value_place place = {.file = get_u64(in.data),
                                .handle = {.offset = get_u64(in.data + 8), .size = get_u32(in.data + 16)},
                                .value_len = get_u32(in.data + 20)};
    if (place.file == 0 || place.handle.offset < SST_HEADER_BYTES || place.handle.size == 0 ||
        place.handle.size > SST_BLOCK_BYTES_MAX || place.value_len > LIMIT_VALUE_BYTES) {
        return STATUS_CORRUPT;
    }
    *ret_place = place;
    return STATUS_OK;
}

/* ---- Blocks: key length u16, ordinal u32, revision u64, key, value -------------------------------------------- */

enum status value_block_open(struct slice body, struct value_block *ret_block) {
    if (body.len < VALUE_HEAD_BYTES) {
        return STATUS_CORRUPT;
    }
    size_t key_len = get_u16(body.data);
    if (key_len == 0 || key_len > LIMIT_KEY_BYTES || body.len - VALUE_HEAD_BYTES < key_len ||
        body.len - VALUE_HEAD_BYTES - key_len > LIMIT_VALUE_BYTES) {
        return STATUS_CORRUPT;
    }
    size_t value_at = VALUE_HEAD_BYTES + key_len;
    ret_block->key = (struct entry_key){.user = slice_of(body.data + VALUE_HEAD_BYTES, key_len),
                                        .revision = get_u64(body.data + 6),
                                        .ordinal = get_u32(body.data + 2)};
    ret_block->value = slice_of(body.data + value_at, body.len - value_at);
    return STATUS_OK;
}

/* ---- References: file u64, values u64, bytes u64 ------------------------------------------------------------- */

enum status value_refs_encode(struct buf *out, const struct value_ref *refs, size_t count) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        uint8_t bytes[VALUE_REF_BYTES];
        put_u64(bytes, refs[i].file);
        put_u64(bytes + 8, refs[i].values);
        put_u64(bytes + 16, refs[i].bytes);
        status = buf_append(out, bytes, sizeof bytes);
    }
    return status;
}

struct value_ref value_ref_decode(const uint8_t in[VALUE_REF_BYTES]) {
    return (struct value_ref){.file = get_u64(in), .values = get_u64(in + 8), .bytes = get_u64(in + 16)};
}

bool value_refs_check(struct slice bytes) {
    uint64_t last = 0;
    if (bytes.len == 0 || bytes.len % VALUE_REF_BYTES != 0 || bytes.len / VALUE_REF_BYTES > VALUE_REFS_MAX) {
        return false;
    }
    for (size_t at = 0; at < bytes.len; at += VALUE_REF_BYTES) {
        struct value_ref ref = value_ref_decode(bytes.data + at);
        if (ref.file <= last || ref.values == 0 || ref.bytes / (SST_TRAILER_BYTES + 1) < ref.values) {
            return false;
        }
        last = ref.file;
    }
    return true;
}

bool value_refs_equal(struct slice bytes, const struct value_ref *refs, size_t count) {
    if (bytes.len != count * VALUE_REF_BYTES) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        struct value_ref ref = value_ref_decode(bytes.data + i * VALUE_REF_BYTES);
        if (ref.file != refs[i].file || ref.values != refs[i].values || ref.bytes != refs[i].bytes) {
            return false;
        }
    }
    return true;
}

/* ---- A list of references that grows
 * ---------------------------------------------------------------------------------------------- */

void value_refs_init(struct value_refs *refs, struct alloc *alloc) { buf_init(&refs->list, alloc, 0); }

void value_refs_deinit(struct value_refs *refs) { buf_deinit(&refs->list); }

enum status value_refs_add(struct value_refs *refs, const struct value_place *place) {
    struct value_ref *list = (struct value_ref *)(void *)refs->list.data;
    size_t count = refs->list.len / sizeof *list;
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list[middle].file < place->file) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == count || list[low].file != place->file) {
        if (count == VALUE_REFS_MAX) {
            return STATUS_TOO_LARGE;
        }
        if (buf_reserve(&refs->list, sizeof *list) != STATUS_OK) {
            return STATUS_NO_MEMORY;
        }
        list = (struct value_ref *)(void *)refs->list.data;
        memmove(list + low + 1, list + low, (count - low) * sizeof *list);
        list[low] = (struct value_ref){.file = place->file};
        refs->list.len += sizeof *list;
    }
    list[low].values++;
    list[low].bytes += value_place_bytes(place);
    return STATUS_OK;
}
