/* The write batch: sizes, bytes and the checked way back. The format is in batch.h and FORMAT.md. */
#include "storage/batch.h"

#include "node/base/bytes.h"
#include "node/base/check.h"

enum {
    BATCH_VERSION = 1,
    BATCH_FLAGS = 0,
    HEAD_BYTES_MAX = 5 /* version, flags, the longest count */
};

static_assert(LIMIT_BATCH_OPERATIONS < 1 << 21, "the count fits three bytes of a varint");

/* True if the lengths, and for a range delete the order of its keys, are as they must be. */
static bool is_within_limits(const struct batch_operation *operation) {
    if (operation->key.len < 1 || operation->key.len > LIMIT_KEY_BYTES) {
        return false;
    }
    switch (operation->kind) {
    case BATCH_PUT: return operation->value.len <= LIMIT_VALUE_BYTES;
    case BATCH_DELETE: return true;
    case BATCH_DELETE_RANGE:
        return operation->value.len <= LIMIT_KEY_BYTES && slice_compare(operation->key, operation->value) < 0;
    case BATCH_PUT_APART: return false; /* made by flushes alone */
    }
    return false;
}

static bool has_value(uint8_t kind) { return kind == BATCH_PUT || kind == BATCH_DELETE_RANGE; }

static size_t operation_size(const struct batch_operation *operation) {
    CHECK(is_within_limits(operation));
    size_t size = 1 + varint_size(operation->key.len) + operation->key.len;
    if (has_value((uint8_t)operation->kind)) {
        size += varint_size(operation->value.len) + operation->value.len;
    }
    return size;
}

size_t batch_size(const struct batch_operation *operations, uint32_t count) {
    CHECK(count <= LIMIT_BATCH_OPERATIONS);
    size_t size = 2 + varint_size(count);
    for (uint32_t i = 0; i < count; i++) {
        size += operation_size(&operations[i]);
    }
    return size;
}

static uint8_t *put_prefixed(uint8_t *out, struct slice bytes) {
    out = put_varint(out, bytes.len);
    if (bytes.len > 0) {
        memcpy(out, bytes.data, bytes.len);
    }
    return out + bytes.len;
}

static uint8_t *put_operation(uint8_t *out, const struct batch_operation *operation) {
    *out++ = (uint8_t)operation->kind;
    out = put_prefixed(out, operation->key);
    return has_value((uint8_t)operation->kind) ? put_prefixed(out, operation->value) : out;
}

void batch_encode(uint8_t *out, const struct batch_operation *operations, uint32_t count) {
    CHECK(count <= LIMIT_BATCH_OPERATIONS);
    *out++ = BATCH_VERSION;
    *out++ = BATCH_FLAGS;
    out = put_varint(out, count);
    for (uint32_t i = 0; i < count; i++) {
        out = put_operation(out, &operations[i]);
    }
}

enum status batch_open(struct slice batch, struct batch_reader *ret_reader) {
    if (batch.len == 0) {
        *ret_reader = (struct batch_reader){.rest = SLICE_EMPTY};
        return STATUS_OK;
    }
    uint8_t version;
    uint8_t flags;
    uint64_t count;
    if (!cursor_u8(&batch, &version)) {
        return STATUS_CORRUPT;
    }
    if (version != BATCH_VERSION) {
        return STATUS_UNSUPPORTED;
    }
    if (!cursor_u8(&batch, &flags)) {
        return STATUS_CORRUPT;
    }
    if (flags != BATCH_FLAGS) {
        return STATUS_UNSUPPORTED;
    }
    if (!cursor_varint(&batch, &count) || count > LIMIT_BATCH_OPERATIONS) {
        return STATUS_CORRUPT;
    }
    *ret_reader = (struct batch_reader){.rest = batch, .count = (uint32_t)count};
    return STATUS_OK;
}

enum status batch_next(struct batch_reader *reader, struct batch_operation *ret_operation) {
    if (reader->next == reader->count) {
        return reader->rest.len == 0 ? STATUS_NOT_FOUND : STATUS_CORRUPT;
    }
    struct slice at = reader->rest;
    struct batch_operation operation = {.value = SLICE_EMPTY};
    uint8_t kind;
    if (!cursor_u8(&at, &kind) || kind < BATCH_PUT || kind > BATCH_DELETE_RANGE) {
        return STATUS_CORRUPT;
    }
    operation.kind = (enum batch_kind)kind;
    if (!cursor_prefixed(&at, &operation.key) || (has_value(kind) && !cursor_prefixed(&at, &operation.value)) ||
        !is_within_limits(&operation)) {
        return STATUS_CORRUPT;
    }
    reader->rest = at;
    reader->next++;
    *ret_operation = operation;
    return STATUS_OK;
}

enum status batch_check(struct slice batch) {
    struct batch_reader reader;
    struct batch_operation operation;
    enum status status = batch_open(batch, &reader);
    while (status == STATUS_OK) {
        status = batch_next(&reader, &operation);
    }
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

/* ---- A batch that grows ----------------------------------------------------------------------------------------
 * The operations begin HEAD_BYTES_MAX into the buffer; the head is written right in front of them when it is asked for.
 */

void batch_builder_init(struct batch_builder *builder, struct alloc *alloc) {
    buf_init(&builder->bytes, alloc, LIMIT_ENTRY_PAYLOAD_BYTES + HEAD_BYTES_MAX);
    builder->count = 0;
}

void batch_builder_deinit(struct batch_builder *builder) {
    buf_deinit(&builder->bytes);
    builder->count = 0;
}

static enum status builder_add(struct batch_builder *builder, const struct batch_operation *operation) {
    if (!is_within_limits(operation)) {
        return STATUS_INVALID;
    }
    struct buf *bytes = &builder->bytes;
    size_t head = builder->count == 0 ? HEAD_BYTES_MAX : 0;
    size_t size = operation_size(operation);
    if (builder->count == LIMIT_BATCH_OPERATIONS || bytes->len + head + size > LIMIT_ENTRY_PAYLOAD_BYTES) {
        return STATUS_TOO_LARGE;
    }
    enum status status = buf_reserve(bytes, head + size);
    if (status == STATUS_OK) {
        uint8_t *end = put_operation(bytes->data + bytes->len + head, operation);
        bytes->len = (size_t)(end - bytes->data);
        builder->count++;
    }
    return status;
}

enum status batch_builder_put(struct batch_builder *builder, struct slice key, struct slice value) {
    return builder_add(builder, &(struct batch_operation){BATCH_PUT, key, value});
}

enum status batch_builder_delete(struct batch_builder *builder, struct slice key) {
    return builder_add(builder, &(struct batch_operation){BATCH_DELETE, key, SLICE_EMPTY});
}

enum status batch_builder_delete_range(struct batch_builder *builder, struct slice start, struct slice end) {
    return builder_add(builder, &(struct batch_operation){BATCH_DELETE_RANGE, start, end});
}

void batch_builder_clear(struct batch_builder *builder) {
    buf_clear(&builder->bytes);
    builder->count = 0;
}

uint32_t batch_builder_count(const struct batch_builder *builder) { return builder->count; }

struct slice batch_builder_batch(struct batch_builder *builder) {
    if (builder->count == 0) {
        return SLICE_EMPTY;
    }
    size_t unused = HEAD_BYTES_MAX - 2 - varint_size(builder->count);
    uint8_t *head = builder->bytes.data + unused;
    head[0] = BATCH_VERSION;
    head[1] = BATCH_FLAGS;
    (void)put_varint(head + 2, builder->count);
    return slice_of(head, builder->bytes.len - unused);
}
