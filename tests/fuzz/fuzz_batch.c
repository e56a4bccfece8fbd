/*
 * Write batches from the log. What is accepted must mean one thing only: encoded again, or built again, it has the same
 * bytes, and the memtable takes it whole and finds it again; what is refused, the memtable refuses, too.
 */
#include "node/base/check.h"
#include "storage/filter.h"
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

/* The builder makes the same bytes, unless there are none. */
static void build_again(struct slice batch) {
    struct batch_reader reader;
    struct batch_operation operation;
    struct batch_builder builder;
    batch_builder_init(&builder, alloc_system());
    CHECK(batch_open(batch, &reader) == STATUS_OK);
    while (batch_next(&reader, &operation) == STATUS_OK) {
        enum status status = operation.kind == BATCH_PUT ? batch_builder_put(&builder, operation.key, operation.value)
                             : operation.kind == BATCH_DELETE
                                 ? batch_builder_delete(&builder, operation.key)
                                 : batch_builder_delete_range(&builder, operation.key, operation.value);
        CHECK(status == STATUS_OK);
    }
    CHECK(reader.count == 0 || slice_equal(batch_builder_batch(&builder), batch));
    batch_builder_deinit(&builder);
}

/* Each version is where a lookup finds it, both ways round there are as many, and each range delete covers its start.
 */
static void check_tree(const struct memtable *memtable) {
    struct memtable_place place;
    uint64_t count = 0;
    struct entry last = {.value = SLICE_EMPTY};
    for (bool found = memtable_first(memtable, &place); found; found = memtable_next(&place), count++) {
        struct entry entry = memtable_entry(&place);
        struct memtable_place sought;
        CHECK(count == 0 || entry_key_compare(&last.key, &entry.key) < 0);
        CHECK(memtable_seek(memtable, &entry.key, &sought) && sought.leaf == place.leaf && sought.rank == place.rank);
        CHECK(memtable_get(memtable, entry.key.user, filter_hash(entry.key.user), 1, &last));
        last = entry;
    }
    CHECK(count == memtable_entries(memtable));
    for (bool found = memtable_last(memtable, &place); found; found = memtable_prev(&place)) {
        count--;
    }
    CHECK(count == 0);
    struct memtable_tombstones tombstones = memtable_tombstones(memtable);
    CHECK(tombstones.count == (memtable_range_deletes(memtable) > 0 ? 1 : 0));
    for (size_t i = 0; tombstones.count > 0 && i < tombstones_count(tombstones.sets[0]); i++) {
        struct tombstone_fragment fragment = tombstones_fragment(tombstones.sets[0], i);
        struct tombstone_mark mark = memtable_covering(memtable, fragment.start, 1);
        CHECK(fragment.mark_count == 1 && mark.revision == 1 && mark.ordinal == fragment.marks[0].ordinal);
        CHECK(memtable_covering(memtable, fragment.start, 0).revision == 0);
    }
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
        CHECK(memtable_bytes(memtable) == before && memtable_entries(memtable) == 0 &&
              memtable_range_deletes(memtable) == 0);
    } else if (size > 0) {
        CHECK(batch_open(batch, &reader) == STATUS_OK);
        CHECK(memtable_entries(memtable) + memtable_range_deletes(memtable) == reader.count);
        encode_again(batch, reader.count);
        build_again(batch);
        check_tree(memtable);
    }
    memtable_free(memtable);
    return 0;
}
