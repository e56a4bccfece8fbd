/* Prefix-compressed blocks: the builder and the cursor. */
#include "storage/block.h"

#include "node/base/bytes.h"
#include "node/base/check.h"

enum { ENTRY_HEAD_BYTES_MAX = 5 * VARINT_BYTES_MAX + 1 };

/* ---- Builder ------------------------------------------------------------------------------------------------- */

void block_builder_init(struct block_builder *builder, struct alloc *alloc) {
    buf_init(&builder->body, alloc, 0);
    buf_init(&builder->restarts, alloc, 0);
    builder->entry_count = 0;
    builder->last_key_len = 0;
}

void block_builder_deinit(struct block_builder *builder) {
    buf_deinit(&builder->body);
    buf_deinit(&builder->restarts);
}

void block_builder_reset(struct block_builder *builder) {
    buf_clear(&builder->body);
    buf_clear(&builder->restarts);
    builder->entry_count = 0;
    builder->last_key_len = 0;
}

static size_t shared_prefix(const struct block_builder *builder, struct slice key) {
    size_t limit = key.len < builder->last_key_len ? key.len : builder->last_key_len;
    size_t shared = 0;
    while (shared < limit && key.data[shared] == builder->last_key[shared]) {
        shared++;
    }
    return shared;
}

enum status block_builder_add(struct block_builder *builder, const struct entry *entry) {
    struct slice key = entry->key.user;
    CHECK(key.len >= 1 && key.len <= LIMIT_KEY_BYTES && entry->value.len <= LIMIT_VALUE_BYTES);
    bool restart = builder->entry_count % BLOCK_RESTART_INTERVAL == 0;
    size_t shared = restart ? 0 : shared_prefix(builder, key);
    size_t suffix_len = key.len - shared;
    enum status status = buf_reserve(&builder->body, ENTRY_HEAD_BYTES_MAX + suffix_len + entry->value.len);
    if (status == STATUS_OK && restart) {
        uint8_t offset[4];
        put_u32(offset, (uint32_t)builder->body.len);
        status = buf_append(&builder->restarts, offset, sizeof offset);
    }
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t *start = builder->body.data + builder->body.len;
    uint8_t *out = put_varint(start, shared);
    out = put_varint(out, suffix_len);
    out = put_varint(out, entry->value.len);
    *out++ = (uint8_t)entry->kind;
    out = put_varint(out, entry->key.revision);
    out = put_varint(out, entry->key.ordinal);
    memcpy(out, key.data + shared, suffix_len);
    out += suffix_len;
    if (entry->value.len > 0) {
        memcpy(out, entry->value.data, entry->value.len);
        out += entry->value.len;
    }
    builder->body.len += (size_t)(out - start);
    memcpy(builder->last_key + shared, key.data + shared, suffix_len);
    builder->last_key_len = key.len;
    builder->entry_count++;
    return STATUS_OK;
}

size_t block_builder_size(const struct block_builder *builder) {
    return builder->body.len + builder->restarts.len + sizeof(uint32_t);
}

enum status block_builder_finish(struct block_builder *builder, struct slice *ret_body) {
    CHECK(builder->entry_count > 0);
    uint8_t count[4];
    put_u32(count, (uint32_t)(builder->restarts.len / sizeof(uint32_t)));
    enum status status = buf_reserve(&builder->body, builder->restarts.len + sizeof count);
    if (status != STATUS_OK) {
        return status;
    }
    status = buf_append(&builder->body, builder->restarts.data, builder->restarts.len);
    CHECK(status == STATUS_OK);
    status = buf_append(&builder->body, count, sizeof count);
    CHECK(status == STATUS_OK);
    *ret_body = buf_slice(&builder->body);
    return STATUS_OK;
}

/* ---- Cursor -------------------------------------------------------------------------------------------------- */

enum status block_cursor_open(struct block_cursor *cursor, struct slice body) {
    if (body.len < 2 * sizeof(uint32_t)) {
        return STATUS_CORRUPT;
    }
    uint32_t count = get_u32(body.data + body.len - sizeof(uint32_t));
    size_t restart_room = body.len / sizeof(uint32_t) - 1;
    if (count == 0 || count > restart_room) {
        return STATUS_CORRUPT;
    }
    size_t entries_len = body.len - sizeof(uint32_t) * ((size_t)count + 1);
    cursor->entries = slice_of(body.data, entries_len);
    cursor->restarts = body.data + entries_len;
    cursor->restart_count = count;
    cursor->next = 0;
    cursor->entry = (struct entry){.value = SLICE_EMPTY};
    return STATUS_OK;
}

struct entry_head {
    uint64_t shared;
    uint64_t suffix_len;
    uint64_t value_len;
    uint64_t revision;
    uint64_t ordinal;
    uint8_t kind;
};

static bool read_head(struct slice *at, struct entry_head *head) {
    return cursor_varint(at, &head->shared) && cursor_varint(at, &head->suffix_len) &&
           cursor_varint(at, &head->value_len) && cursor_u8(at, &head->kind) && cursor_varint(at, &head->revision) &&
           cursor_varint(at, &head->ordinal);
}

/* Decodes the entry at offset; the current entry supplies the shared prefix. */
static enum status decode(struct block_cursor *cursor, size_t offset) {
    struct slice at = slice_of(cursor->entries.data + offset, cursor->entries.len - offset);
    struct slice suffix;
    struct slice value;
    struct entry_head head;
    if (!read_head(&at, &head) || !cursor_bytes(&at, head.suffix_len, &suffix) ||
        !cursor_bytes(&at, head.value_len, &value)) {
        return STATUS_CORRUPT;
    }
    struct slice last = cursor->entry.key.user;
    if (head.shared > last.len || suffix.len > LIMIT_KEY_BYTES || head.shared + suffix.len < 1 ||
        head.shared + suffix.len > LIMIT_KEY_BYTES || value.len > LIMIT_VALUE_BYTES || head.ordinal > UINT32_MAX ||
        (head.kind != BATCH_PUT && head.kind != BATCH_DELETE) || (head.kind == BATCH_DELETE && value.len != 0)) {
        return STATUS_CORRUPT;
    }
    if (head.shared > 0) {
        if (last.data != cursor->key) {
            memcpy(cursor->key, last.data, (size_t)head.shared);
        }
        memcpy(cursor->key + head.shared, suffix.data, suffix.len);
        suffix = slice_of(cursor->key, (size_t)head.shared + suffix.len);
    }
    cursor->entry = (struct entry){.key = {suffix, head.revision, (uint32_t)head.ordinal},
                                   .value = value,
                                   .kind = (enum batch_kind)head.kind};
    cursor->next = cursor->entries.len - at.len;
    return STATUS_OK;
}

static enum status decode_restart(struct block_cursor *cursor, uint32_t restart) {
    size_t offset = get_u32(cursor->restarts + sizeof(uint32_t) * (size_t)restart);
    if (offset >= cursor->entries.len) {
        return STATUS_CORRUPT;
    }
    cursor->entry.key.user = SLICE_EMPTY; /* nothing to share: a full key is all that decode accepts */
    return decode(cursor, offset);
}

enum status block_cursor_first(struct block_cursor *cursor) { return decode_restart(cursor, 0); }

enum status block_cursor_next(struct block_cursor *cursor) {
    return cursor->next >= cursor->entries.len ? STATUS_NOT_FOUND : decode(cursor, cursor->next);
}

enum status block_cursor_seek(struct block_cursor *cursor, const struct entry_key *target) {
    /* The last restart in front of the target; the first if there is none. */
    uint32_t low = 0;
    uint32_t high = cursor->restart_count - 1;
    enum status status;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        status = decode_restart(cursor, middle);
        if (status != STATUS_OK) {
            return status;
        }
        if (entry_key_compare(&cursor->entry.key, target) < 0) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    status = decode_restart(cursor, low);
    while (status == STATUS_OK && entry_key_compare(&cursor->entry.key, target) < 0) {
        status = block_cursor_next(cursor);
    }
    return status;
}
