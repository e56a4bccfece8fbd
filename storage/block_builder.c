/* Builds bodies of blocks. */
#include "node/base/check.h"
#include "storage/block_internal.h"
#include "storage/filter.h"

enum { ENTRY_HEAD_BYTES_MAX = 1 + 4 * VARINT_BYTES_MAX + 8 };

void block_builder_init(struct block_builder *builder, struct alloc *alloc, uint32_t interval, bool hash_index) {
    CHECK(interval >= 1 && interval <= BLOCK_INTERVAL);
    buf_init(&builder->body, alloc, 0);
    buf_init(&builder->restarts, alloc, 0);
    buf_init(&builder->hashes, alloc, 0);
    buf_init(&builder->hash_places, alloc, 0);
    builder->interval = interval;
    builder->hash_index = hash_index;
    builder->repeats = false;
    builder->last = (struct entry_key){.user = SLICE_EMPTY};
    block_builder_reset(builder);
}

void block_builder_deinit(struct block_builder *builder) {
    buf_deinit(&builder->body);
    buf_deinit(&builder->restarts);
    buf_deinit(&builder->hashes);
    buf_deinit(&builder->hash_places);
}

void block_builder_reset(struct block_builder *builder) {
    buf_clear(&builder->body);
    buf_clear(&builder->restarts);
    buf_clear(&builder->hashes);
    buf_clear(&builder->hash_places);
    builder->entry_count = 0;
    builder->until_restart = 0;
}

static size_t restart_count(const struct block_builder *builder) { return builder->restarts.len / sizeof(uint32_t); }

static enum status add_restart(struct block_builder *builder) {
    uint8_t offset[sizeof(uint32_t)];
    put_u32(offset, (uint32_t)builder->body.len);
    builder->until_restart = builder->interval;
    return buf_append(&builder->restarts, offset, sizeof offset);
}

static enum status add_hash(struct block_builder *builder, struct slice user) {
    uint64_t hash = filter_hash(user);
    size_t place = restart_count(builder) - 1;
    uint8_t stored = place < BLOCK_BUCKET_RESTARTS_MAX ? (uint8_t)place : BLOCK_BUCKET_COLLISION;
    enum status status = buf_append(&builder->hashes, &hash, sizeof hash);
    return status != STATUS_OK ? status : buf_append(&builder->hash_places, &stored, sizeof stored);
}

/* Bytes of the revision in a file. */
static unsigned revision_size(uint64_t revision) {
    return revision == 0 ? 1 : 8 - (unsigned)__builtin_clzll(revision) / 8;
}

static uint8_t *put_head(uint8_t *out, const struct entry *entry, size_t shared, size_t suffix_len) {
    uint64_t revision = entry->key.revision;
    uint32_t ordinal = entry->key.ordinal;
    uint8_t *control = out++;
    unsigned kind = (unsigned)entry->kind << BLOCK_KIND_SHIFT;
    out = put_varint(out, shared);
    out = put_varint(out, suffix_len);
    out = put_varint(out, entry->value.len);
    if (revision == ENTRY_REVISION_NONE && ordinal == ENTRY_ORDINAL_MAX) {
        *control = (uint8_t)kind;
        return out;
    }
    if (ordinal != 0) {
        kind |= BLOCK_HAS_ORDINAL;
        out = put_varint(out, ordinal);
    }
    unsigned revision_len = revision_size(revision);
    *control = (uint8_t)(kind | revision_len);
    put_u64(out, revision); /* there is room; what is too much is overwritten */
    return out + revision_len;
}

enum status block_builder_add(struct block_builder *builder, const struct entry *entry) {
    struct slice key = entry->key.user;
    struct slice last = builder->last.user;
    CHECK(key.len >= 1 && key.len <= LIMIT_KEY_BYTES && entry->value.len <= LIMIT_VALUE_BYTES);
    CHECK(entry->kind == BATCH_PUT || (entry->kind == BATCH_DELETE && entry->value.len == 0) ||
          (entry->kind == BATCH_PUT_APART && entry->value.len == ENTRY_PLACE_BYTES));
    size_t shared = block__shared(last.data, last.len, key.data, key.len);
    int order = block__order(last, key, shared);
    if (order > 0 || (order == 0 && entry_compare_age(builder->last.revision, builder->last.ordinal,
                                                      entry->key.revision, entry->key.ordinal) >= 0)) {
        return STATUS_CORRUPT;
    }
    size_t stored_shared = builder->until_restart == 0 ? 0 : shared;
    size_t suffix_len = key.len - stored_shared;
    size_t room = ENTRY_HEAD_BYTES_MAX + suffix_len + entry->value.len;
    enum status status = STATUS_OK;
    if (builder->body.capacity - builder->body.len < room) {
        status = buf_reserve(&builder->body, room);
    }
    if (status == STATUS_OK && builder->until_restart == 0) {
        status = add_restart(builder);
    }
    if (status == STATUS_OK && builder->hash_index && (order != 0 || builder->entry_count == 0)) {
        status = add_hash(builder, key);
    }
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t *start = builder->body.data + builder->body.len;
    uint8_t *out = put_head(start, entry, stored_shared, suffix_len);
    memcpy(out, key.data + stored_shared, suffix_len);
    out += suffix_len;
    if (entry->value.len > 0) {
        memcpy(out, entry->value.data, entry->value.len);
        out += entry->value.len;
    }
    builder->body.len += (size_t)(out - start);
    builder->until_restart--;
    builder->entry_count++;
    builder->repeats = order == 0;
    memcpy(builder->last_key + shared, key.data + shared, key.len - shared);
    builder->last = (struct entry_key){slice_of(builder->last_key, key.len), entry->key.revision, entry->key.ordinal};
    return STATUS_OK;
}

/* Three keys to four buckets; 0: no hash index. */
static uint32_t bucket_count(const struct block_builder *builder) {
    size_t keys = builder->hash_places.len;
    return keys == 0 || restart_count(builder) > BLOCK_BUCKET_RESTARTS_MAX ? 0 : (uint32_t)(keys + keys / 3) | 1;
}

static_assert(BLOCK_BUCKET_RESTARTS_MAX * BLOCK_INTERVAL * 4 / 3 < UINT16_MAX, "the tail has 16 bits for the buckets");

size_t block_builder_size(const struct block_builder *builder) {
    return builder->body.len + builder->restarts.len + bucket_count(builder) + BLOCK_TAIL_BYTES;
}

static void put_buckets(const struct block_builder *builder, uint8_t *buckets, uint32_t count) {
    memset(buckets, BLOCK_BUCKET_EMPTY, count);
    for (size_t i = 0; i < builder->hash_places.len; i++) {
        uint64_t hash;
        memcpy(&hash, builder->hashes.data + i * sizeof hash, sizeof hash);
        uint8_t *bucket = &buckets[block__bucket(hash, count)];
        uint8_t place = builder->hash_places.data[i];
        *bucket = *bucket == BLOCK_BUCKET_EMPTY || *bucket == place ? place : BLOCK_BUCKET_COLLISION;
    }
}

enum status block_builder_finish(struct block_builder *builder, struct slice *ret_body) {
    CHECK(builder->entry_count > 0);
    struct buf *body = &builder->body;
    uint32_t buckets = bucket_count(builder);
    enum status status = buf_reserve(body, builder->restarts.len + buckets + BLOCK_TAIL_BYTES);
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t *out = body->data + body->len;
    memcpy(out, builder->restarts.data, builder->restarts.len);
    out += builder->restarts.len;
    if (buckets > 0) {
        put_buckets(builder, out, buckets);
        out += buckets;
    }
    put_u32(out, builder->entry_count);
    put_u32(out + 4, (uint32_t)restart_count(builder));
    put_u16(out + 8, (uint16_t)buckets);
    put_u16(out + 10, 0);
    body->len += builder->restarts.len + buckets + BLOCK_TAIL_BYTES;
    *ret_body = buf_slice(body);
    return STATUS_OK;
}
