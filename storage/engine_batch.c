/* Batches: batch.h's, with memory of their own. */
#include "storage/engine_internal.h"

struct engine_batch {
    struct alloc *alloc;
    struct batch_builder builder;
};

struct engine_batch *engine_batch_new(struct alloc *alloc) {
    alloc = alloc != NULL ? alloc : alloc_system();
    struct engine_batch *batch = mem_alloc_zero(alloc, sizeof *batch);
    if (batch != NULL) {
        batch->alloc = alloc;
        batch_builder_init(&batch->builder, alloc);
    }
    return batch;
}

void engine_batch_free(struct engine_batch *batch) {
    if (batch != NULL) {
        batch_builder_deinit(&batch->builder);
        mem_free(batch->alloc, batch);
    }
}

enum status engine_batch_put(struct engine_batch *batch, struct slice key, struct slice value) {
    return batch_builder_put(&batch->builder, key, value);
}

enum status engine_batch_delete(struct engine_batch *batch, struct slice key) {
    return batch_builder_delete(&batch->builder, key);
}

enum status engine_batch_delete_range(struct engine_batch *batch, struct slice start, struct slice end) {
    return batch_builder_delete_range(&batch->builder, start, end);
}

void engine_batch_clear(struct engine_batch *batch) { batch_builder_clear(&batch->builder); }
uint32_t engine_batch_count(const struct engine_batch *batch) { return batch_builder_count(&batch->builder); }
struct slice engine__batch_bytes(struct engine_batch *batch) {
    return batch_builder_batch(&batch->builder);
}

enum status engine_batch_walk(struct engine_batch *batch, const struct engine_batch_walker *walker) {
    struct batch_reader reader;
    struct batch_operation operation;
    enum status status = batch_open(engine__batch_bytes(batch), &reader);
    while (status == STATUS_OK && (status = batch_next(&reader, &operation)) == STATUS_OK) {
        switch (operation.kind) {
        case BATCH_PUT: status = walker->put(walker->context, operation.key, operation.value); break;
        case BATCH_DELETE: status = walker->remove(walker->context, operation.key); break;
        case BATCH_DELETE_RANGE: status = walker->remove_range(walker->context, operation.key, operation.value); break;
        case BATCH_PUT_APART: return STATUS_CORRUPT; /* in no batch */
        }
        if (status == STATUS_NOT_FOUND) {
            return status; /* a callback's, not the batch's end */
        }
    }
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}
