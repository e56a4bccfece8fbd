/*
 * The write batch: the payload of a DATA record, and what storage_apply takes. Format in FORMAT.md.
 *
 *   batch     = version u8 (1), flags u8 (0), operation count varint, operation...
 *   operation = kind u8, key length varint, key, and for a put: value length varint, value
 *                                                   for a range delete: end length varint, end
 *
 * Operations apply in order; their position is the ordinal: a range delete doesn't touch what follows it in its batch.
 * Two ways to make one: batch_size and batch_encode write straight into the log's group memory; a batch_builder grows.
 */
#ifndef HOLDFAST_STORAGE_BATCH_H
#define HOLDFAST_STORAGE_BATCH_H

#include "node/base/alloc.h"
#include "node/base/buf.h"
#include "node/base/limits.h"
#include "node/base/slice.h"
#include "node/base/status.h"

enum batch_kind {
    BATCH_PUT = 1,
    BATCH_DELETE = 2,
    BATCH_DELETE_RANGE = 3,
    BATCH_PUT_APART = 4 /* in tables only, never in a batch: the value is a place in a value file (value_file.h) */
};

struct batch_operation {
    enum batch_kind kind;
    struct slice key;   /* 1 to LIMIT_KEY_BYTES bytes; BATCH_DELETE_RANGE: the first key that goes */
    struct slice value; /* BATCH_PUT: 0 to LIMIT_VALUE_BYTES bytes; BATCH_DELETE_RANGE: the end, the first key behind
                           `key` that stays: 1 to LIMIT_KEY_BYTES bytes, greater than `key` */
};

/* Bytes that batch_encode will write. Operations must be within the limits (CHECK). */
size_t batch_size(const struct batch_operation *operations, uint32_t count);
/* Writes exactly batch_size bytes. */
void batch_encode(uint8_t *out, const struct batch_operation *operations, uint32_t count);

struct batch_reader {
    struct slice rest;
    uint32_t count; /* operations in all */
    uint32_t next;  /* ordinal of the one that batch_next returns */
};

/* Checks the head. STATUS_CORRUPT, STATUS_UNSUPPORTED. An empty slice is a batch of no operations. */
MUST_USE enum status batch_open(struct slice batch, struct batch_reader *ret_reader);
/* The next operation, borrowed from the batch; STATUS_NOT_FOUND after the last, STATUS_CORRUPT on anything malformed,
 * limits and trailing bytes included. */
MUST_USE enum status batch_next(struct batch_reader *reader, struct batch_operation *ret_operation);
/* Walks it all: STATUS_OK or the first error. */
MUST_USE enum status batch_check(struct slice batch);

/* ---- A batch that grows ----------------------------------------------------------------------------------------
 * Legal order: batch_builder_init, the others in any order, batch_builder_deinit. One thread. */
struct batch_builder {
    struct buf bytes; /* room for the head, then operations */
    uint32_t count;
};

void batch_builder_init(struct batch_builder *builder, struct alloc *alloc);
void batch_builder_deinit(struct batch_builder *builder);
/* The bytes are copied. STATUS_INVALID: a key, an end or a value beyond the limits, or a range delete with
 * start >= end. STATUS_TOO_LARGE: more operations than LIMIT_BATCH_OPERATIONS or bytes than LIMIT_ENTRY_PAYLOAD_BYTES.
 * STATUS_NO_MEMORY. On failure the batch is as it was. */
MUST_USE enum status batch_builder_put(struct batch_builder *builder, struct slice key, struct slice value);
MUST_USE enum status batch_builder_delete(struct batch_builder *builder, struct slice key);
MUST_USE enum status batch_builder_delete_range(struct batch_builder *builder, struct slice start, struct slice end);
/* Back to no operations; the memory is kept. */
void batch_builder_clear(struct batch_builder *builder);
uint32_t batch_builder_count(const struct batch_builder *builder);
/* The batch, for batch_open and the log; borrowed until the next call. */
struct slice batch_builder_batch(struct batch_builder *builder);

#endif
