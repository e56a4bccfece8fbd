/*
 * The write batch: the payload of a DATA record, and what storage_apply takes. Format in FORMAT.md.
 *
 *   batch     = version u8 (1), flags u8 (0), operation count varint, operation...
 *   operation = kind u8, key length varint, key, and for a put: value length varint, value
 *
 * Operations apply in order; their position is the ordinal. Written straight into the log's group memory: the size
 * comes first.
 */
#ifndef HOLDFAST_STORAGE_BATCH_H
#define HOLDFAST_STORAGE_BATCH_H

#include "node/base/limits.h"
#include "node/base/slice.h"
#include "node/base/status.h"

enum batch_kind {
    BATCH_PUT = 1,
    BATCH_DELETE = 2
    /* 3: range delete, 4: put of a value stored apart; reserved */
};

struct batch_operation {
    enum batch_kind kind;
    struct slice key;   /* 1 to LIMIT_KEY_BYTES bytes */
    struct slice value; /* BATCH_PUT: 0 to LIMIT_VALUE_BYTES bytes */
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

#endif
