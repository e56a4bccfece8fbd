/*
 * The memtable: order, visibility, all-or-nothing batches, accounting.
 *
 * Would break these: a comparison that the eight-byte prefix decides wrongly (short keys, NUL, high bytes), revisions
 * or ordinals in the wrong direction, a batch that is half in after a failed allocation, memory that a failed batch
 * keeps.
 */
#include "storage/memtable.h"

#include "node/base/random.h"
#include "tests/unit/support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct slice put_batch(uint8_t *out, struct slice key, struct slice value) {
    struct batch_operation operation = {BATCH_PUT, key, value};
    batch_encode(out, &operation, 1);
    return slice_of(out, batch_size(&operation, 1));
}

static void put(struct memtable *memtable, uint64_t revision, struct slice key, const char *value) {
    uint8_t bytes[256];
    assert_int_equal(memtable_apply(memtable, revision, put_batch(bytes, key, slice_of_string(value))), STATUS_OK);
}

static void test_memtable_get_finds_the_newest_at_or_below_the_revision(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    struct slice key = slice_of_string("key");
    struct entry entry;
    put(memtable, 10, key, "ten");
    put(memtable, 20, key, "twenty");
    assert_false(memtable_get(memtable, key, 9, &entry));
    assert_true(memtable_get(memtable, key, 10, &entry));
    assert_true(slice_equal(entry.value, slice_of_string("ten")));
    assert_true(memtable_get(memtable, key, 19, &entry));
    assert_int_equal(entry.key.revision, 10);
    assert_true(memtable_get(memtable, key, UINT64_MAX - 1, &entry));
    assert_int_equal(entry.key.revision, 20);
    assert_false(memtable_get(memtable, slice_of_string("ke"), 30, &entry));
    assert_false(memtable_get(memtable, slice_of_string("keys"), 30, &entry));
    memtable_free(memtable);
}

static void test_memtable_last_operation_of_a_batch_is_found(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    struct entry entry;
    uint8_t bytes[128];
    struct batch_operation operations[] = {
        {BATCH_PUT, slice_of_string("k"), slice_of_string("1")},
        {BATCH_PUT, slice_of_string("k"), slice_of_string("2")},
        {BATCH_DELETE, slice_of_string("k"), SLICE_EMPTY},
        {BATCH_PUT, slice_of_string("k"), SLICE_EMPTY},
    };
    batch_encode(bytes, operations, 4);
    assert_int_equal(memtable_apply(memtable, 1, slice_of(bytes, batch_size(operations, 4))), STATUS_OK);
    assert_true(memtable_get(memtable, slice_of_string("k"), 1, &entry));
    assert_int_equal(entry.key.ordinal, 3);
    assert_int_equal(entry.kind, BATCH_PUT);
    assert_int_equal(memtable_entries(memtable), 4);
    batch_encode(bytes, operations, 3);
    assert_int_equal(memtable_apply(memtable, 2, slice_of(bytes, batch_size(operations, 3))), STATUS_OK);
    assert_true(memtable_get(memtable, slice_of_string("k"), 2, &entry));
    assert_int_equal(entry.kind, BATCH_DELETE);
    memtable_free(memtable);
}

enum { RANDOM_KEYS = 3000 };

static int compare_entries(const void *a, const void *b) {
    return entry_key_compare(&((const struct entry *)a)->key, &((const struct entry *)b)->key);
}

static void test_memtable_iterates_in_order_for_any_bytes(void **state) {
    (void)state;
    static uint8_t keys[RANDOM_KEYS][12];
    static struct entry want[RANDOM_KEYS];
    static const uint8_t alphabet[] = {0, 1, 0x7f, 0x80, 0xff};
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    struct random random;
    random_seed(&random, 1);
    for (unsigned i = 0; i < RANDOM_KEYS; i++) {
        size_t len = 1 + random_below(&random, sizeof keys[i]);
        for (size_t byte = 0; byte < len; byte++) {
            keys[i][byte] = alphabet[random_below(&random, sizeof alphabet)];
        }
        struct slice key = slice_of(keys[i], len);
        put(memtable, i + 1, key, "v");
        want[i] = (struct entry){.key = {.user = key, .revision = i + 1}};
    }
    qsort(want, RANDOM_KEYS, sizeof want[0], compare_entries);
    struct entry_key start = entry_key_at(SLICE_EMPTY, UINT64_MAX);
    const struct memtable_node *node = memtable_seek(memtable, &start);
    for (unsigned i = 0; i < RANDOM_KEYS; i++, node = memtable_next(node)) {
        assert_non_null(node);
        struct entry entry = memtable_entry(node);
        assert_int_equal(entry_key_compare(&entry.key, &want[i].key), 0);
        struct entry_key target = {.user = want[i].key.user, .revision = want[i].key.revision, .ordinal = 0};
        assert_ptr_equal(memtable_seek(memtable, &target), node);
    }
    assert_null(node);
    memtable_free(memtable);
}

static void test_memtable_failed_allocation_leaves_no_part_of_a_batch(void **state) {
    (void)state;
    static uint8_t value[3000];
    static uint8_t bytes[8 * (sizeof value + 32)];
    struct test_alloc alloc;
    struct batch_operation operations[8];
    char keys[8][4];
    test_alloc_init(&alloc);
    for (unsigned i = 0; i < 8; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "k%u", i);
        operations[i] = (struct batch_operation){BATCH_PUT, slice_of_string(keys[i]), slice_of(value, sizeof value)};
    }
    batch_encode(bytes, operations, 8);
    struct slice batch = slice_of(bytes, batch_size(operations, 8));
    struct memtable *memtable = memtable_new(&alloc.base, 4096);
    put(memtable, 1, slice_of_string("k3"), "before");
    size_t used = memtable_bytes(memtable);
    uint64_t blocks = alloc.live_blocks;
    uint64_t n = 0;
    enum status status;
    do {
        struct entry entry;
        n++;
        test_alloc_fail(&alloc, n, false);
        status = memtable_apply(memtable, 2, batch);
        test_alloc_fail(&alloc, 0, false);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_int_equal(memtable_bytes(memtable), used);
            assert_int_equal(alloc.live_blocks, blocks);
            assert_int_equal(memtable_entries(memtable), 1);
            assert_false(memtable_get(memtable, slice_of_string("k0"), 2, &entry));
            assert_true(memtable_get(memtable, slice_of_string("k3"), 2, &entry));
            assert_int_equal(entry.key.revision, 1);
        }
    } while (status != STATUS_OK);
    assert_in_range(n, 5, 20);
    assert_int_equal(memtable_entries(memtable), 9);
    memtable_free(memtable);
    assert_int_equal(alloc.live_blocks, 0);
}

static void test_memtable_malformed_batch_changes_nothing(void **state) {
    (void)state;
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    uint8_t bytes[128];
    struct entry entry;
    struct batch_operation operations[] = {
        {BATCH_PUT, slice_of_string("a"), slice_of_string("1")},
        {BATCH_PUT, slice_of_string("b"), slice_of_string("1")},
    };
    batch_encode(bytes, operations, 2);
    size_t len = batch_size(operations, 2);
    size_t used = memtable_bytes(memtable);
    assert_int_equal(memtable_apply(memtable, 1, slice_of(bytes, len - 1)), STATUS_CORRUPT);
    assert_int_equal(memtable_bytes(memtable), used);
    assert_false(memtable_get(memtable, slice_of_string("a"), 1, &entry));
    assert_int_equal(memtable_apply(memtable, 1, slice_of(bytes, len)), STATUS_OK);
    assert_true(memtable_get(memtable, slice_of_string("a"), 1, &entry));
    memtable_free(memtable);
}

static void test_memtable_bytes_follow_what_is_stored(void **state) {
    (void)state;
    static uint8_t value[100000];
    static uint8_t bytes[sizeof value + 64];
    struct memtable *memtable = memtable_new(alloc_system(), 4096);
    size_t before = memtable_bytes(memtable);
    struct slice batch = put_batch(bytes, slice_of_string("k"), slice_of(value, sizeof value));
    assert_int_equal(memtable_apply(memtable, 1, batch), STATUS_OK);
    assert_in_range(memtable_bytes(memtable) - before, sizeof value, sizeof value + 200);
    memtable_free(memtable);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memtable_get_finds_the_newest_at_or_below_the_revision),
        cmocka_unit_test(test_memtable_last_operation_of_a_batch_is_found),
        cmocka_unit_test(test_memtable_iterates_in_order_for_any_bytes),
        cmocka_unit_test(test_memtable_failed_allocation_leaves_no_part_of_a_batch),
        cmocka_unit_test(test_memtable_malformed_batch_changes_nothing),
        cmocka_unit_test(test_memtable_bytes_follow_what_is_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
