/*
 * Write batches from the log. What is accepted must mean one thing only: encoded again it has the same bytes, and the
 * memtable takes it whole; what is refused, the memtable refuses, too.
 */
#include "node/base/check.h"
#include "storage/memtable.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode_again(struct slice batch, uint32_t count) {
    struct batch_reader reader;
    struct batch_operation *operations = calloc((size_t)count + 1, sizeof *operations);
    uint8_t *bytes = malloc(batch.len + 1);
    CHECK(operations != NULL && bytes != NULL);
    CHECK(batch_open(batch, &reader) == STATUS_OK);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(batch_next(&reader, &operations[i]) == STATUS_OK);
    }
    CHECK(batch_size(operations, count) == batch.len);
    batch_encode(bytes, operations, count);
    CHECK(memcmp(bytes, batch.data, batch.len) == 0);
    free(operations);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice batch = slice_of(data, size);
    struct batch_reader reader;
    enum status status = batch_check(batch);
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    CHECK(memtable != NULL);
    size_t before = memtable_bytes(memtable);
    CHECK(memtable_apply(memtable, 1, batch) == status);
    if (status != STATUS_OK) {
        CHECK(memtable_bytes(memtable) == before && memtable_entries(memtable) == 0);
    } else if (size > 0) {
        CHECK(batch_open(batch, &reader) == STATUS_OK);
        CHECK(memtable_entries(memtable) == reader.count);
        encode_again(batch, reader.count);
    }
    memtable_free(memtable);
    return 0;
}
