/* The write batch: sizes, bytes and the checked way back. The format is in batch.h and FORMAT.md. */
#include "storage/batch.h"

#include "node/base/bytes.h"
#include "node/base/check.h"

enum { BATCH_VERSION = 1, BATCH_FLAGS = 0 };

static size_t operation_size(const struct batch_operation *operation) {
    CHECK(operation->kind == BATCH_PUT || operation->kind == BATCH_DELETE);
    CHECK(operation->key.len >= 1 && operation->key.len <= LIMIT_KEY_BYTES);
    size_t size = 1 + varint_size(operation->key.len) + operation->key.len;
    if (operation->kind == BATCH_PUT) {
        CHECK(operation->value.len <= LIMIT_VALUE_BYTES);
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

void batch_encode(uint8_t *out, const struct batch_operation *operations, uint32_t count) {
    CHECK(count <= LIMIT_BATCH_OPERATIONS);
    *out++ = BATCH_VERSION;
    *out++ = BATCH_FLAGS;
    out = put_varint(out, count);
    for (uint32_t i = 0; i < count; i++) {
        *out++ = (uint8_t)operations[i].kind;
        out = put_prefixed(out, operations[i].key);
        if (operations[i].kind == BATCH_PUT) {
            out = put_prefixed(out, operations[i].value);
        }
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
    if (!cursor_u8(&at, &kind) || (kind != BATCH_PUT && kind != BATCH_DELETE)) {
        return STATUS_CORRUPT;
    }
    operation.kind = (enum batch_kind)kind;
    if (!cursor_prefixed(&at, &operation.key) || operation.key.len < 1 || operation.key.len > LIMIT_KEY_BYTES) {
        return STATUS_CORRUPT;
    }
    if (kind == BATCH_PUT && (!cursor_prefixed(&at, &operation.value) || operation.value.len > LIMIT_VALUE_BYTES)) {
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
