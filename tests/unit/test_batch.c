/*
 * The write batch: bytes and back.
 *
 * Would break these: a size that isn't what is written, a length from the log that is trusted, bytes behind the last
 * operation that go unnoticed, a change of the format, a builder that makes what the reader refuses or is left torn by
 * a failed call.
 */
#include "storage/batch.h"

#include "tests/unit/golden.h"
#include "tests/unit/support/support.h"

#include <string.h>

static size_t encode(uint8_t *out, const struct batch_operation *operations, uint32_t count) {
    size_t size = batch_size(operations, count);
    out[size] = 0x5a;
    batch_encode(out, operations, count);
    assert_int_equal(out[size], 0x5a);
    return size;
}

static size_t encode_sample(uint8_t *out) {
    static const struct batch_operation operations[] = {
        {BATCH_PUT, {(const uint8_t *)"alpha", 5}, {(const uint8_t *)"one", 3}},
        {BATCH_DELETE, {(const uint8_t *)"b\0c", 3}, {NULL, 0}},
        {BATCH_PUT, {(const uint8_t *)"empty", 5}, {NULL, 0}},
        {BATCH_DELETE_RANGE, {(const uint8_t *)"f", 1}, {(const uint8_t *)"f\0", 2}},
    };
    return encode(out, operations, 4);
}

static void test_batch_encoded_reads_back(void **state) {
    (void)state;
    uint8_t bytes[128];
    struct batch_reader reader;
    struct batch_operation operation;
    struct slice batch = slice_of(bytes, encode_sample(bytes));
    assert_int_equal(batch_check(batch), STATUS_OK);
    assert_int_equal(batch_open(batch, &reader), STATUS_OK);
    assert_int_equal(reader.count, 4);
    assert_int_equal(batch_next(&reader, &operation), STATUS_OK);
    assert_int_equal(operation.kind, BATCH_PUT);
    assert_true(slice_equal(operation.key, slice_of_string("alpha")));
    assert_true(slice_equal(operation.value, slice_of_string("one")));
    assert_int_equal(reader.next, 1);
    assert_int_equal(batch_next(&reader, &operation), STATUS_OK);
    assert_int_equal(operation.kind, BATCH_DELETE);
    assert_true(slice_equal(operation.key, slice_of("b\0c", 3)));
    assert_int_equal(operation.value.len, 0);
    assert_int_equal(batch_next(&reader, &operation), STATUS_OK);
    assert_int_equal(operation.value.len, 0);
    assert_int_equal(batch_next(&reader, &operation), STATUS_OK);
    assert_int_equal(operation.kind, BATCH_DELETE_RANGE);
    assert_true(slice_equal(operation.key, slice_of_string("f")));
    assert_true(slice_equal(operation.value, slice_of("f\0", 2)));
    assert_int_equal(batch_next(&reader, &operation), STATUS_NOT_FOUND);
}

static void test_batch_format_is_golden(void **state) {
    (void)state;
    uint8_t bytes[128];
    golden_assert("batch.bin", slice_of(bytes, encode_sample(bytes)));
}

static void test_batch_empty_slice_has_no_operations(void **state) {
    (void)state;
    struct batch_reader reader;
    struct batch_operation operation;
    assert_int_equal(batch_open(SLICE_EMPTY, &reader), STATUS_OK);
    assert_int_equal(batch_next(&reader, &operation), STATUS_NOT_FOUND);
    assert_int_equal(batch_check(SLICE_EMPTY), STATUS_OK);
}

static void test_batch_limits_are_accepted_and_what_is_beyond_refused(void **state) {
    (void)state;
    static uint8_t key[LIMIT_KEY_BYTES + 1];
    static uint8_t bytes[LIMIT_VALUE_BYTES + LIMIT_KEY_BYTES + 64];
    uint8_t *value = calloc(1, LIMIT_VALUE_BYTES);
    struct batch_operation operation = {BATCH_PUT, slice_of(key, LIMIT_KEY_BYTES), slice_of(value, LIMIT_VALUE_BYTES)};
    size_t len = encode(bytes, &operation, 1);
    assert_int_equal(batch_check(slice_of(bytes, len)), STATUS_OK);
    free(value);
    /* By hand: a key of no bytes, and one of a byte too many. */
    const uint8_t no_key[] = {1, 0, 1, BATCH_DELETE, 0};
    assert_int_equal(batch_check(slice_of(no_key, sizeof no_key)), STATUS_CORRUPT);
    static uint8_t long_key[6 + LIMIT_KEY_BYTES + 1] = {1, 0, 1, BATCH_DELETE, 0x81, 0x20};
    assert_int_equal(batch_check(slice_of(long_key, sizeof long_key)), STATUS_CORRUPT);
    /* More operations than there may be. */
    const uint8_t many[] = {1, 0, 0x81, 0x80, 0x04};
    assert_int_equal(batch_check(slice_of(many, sizeof many)), STATUS_CORRUPT);
}

static void test_batch_range_that_is_empty_or_has_no_end_is_refused(void **state) {
    (void)state;
    static uint8_t long_end[8 + LIMIT_KEY_BYTES + 1] = {1, 0, 1, BATCH_DELETE_RANGE, 1, 0, 0x81, 0x20};
    const uint8_t good[] = {1, 0, 1, BATCH_DELETE_RANGE, 1, 'b', 1, 'c'};
    const uint8_t equal[] = {1, 0, 1, BATCH_DELETE_RANGE, 1, 'b', 1, 'b'};
    const uint8_t backwards[] = {1, 0, 1, BATCH_DELETE_RANGE, 1, 'b', 2, 'a', 'z'};
    const uint8_t no_start[] = {1, 0, 1, BATCH_DELETE_RANGE, 0, 1, 'b'};
    const uint8_t no_end[] = {1, 0, 1, BATCH_DELETE_RANGE, 1, 'b', 0};
    memset(long_end + 8, 'z', sizeof long_end - 8);
    assert_int_equal(batch_check(slice_of(good, sizeof good)), STATUS_OK);
    assert_int_equal(batch_check(slice_of(equal, sizeof equal)), STATUS_CORRUPT);
    assert_int_equal(batch_check(slice_of(backwards, sizeof backwards)), STATUS_CORRUPT);
    assert_int_equal(batch_check(slice_of(no_start, sizeof no_start)), STATUS_CORRUPT);
    assert_int_equal(batch_check(slice_of(no_end, sizeof no_end)), STATUS_CORRUPT);
    assert_int_equal(batch_check(slice_of(long_end, sizeof long_end)), STATUS_CORRUPT);
    long_end[6] = 0x80; /* one byte less: as long as it may be */
    assert_int_equal(batch_check(slice_of(long_end, sizeof long_end - 1)), STATUS_OK);
}

static void test_batch_built_step_by_step_has_the_same_bytes(void **state) {
    (void)state;
    uint8_t bytes[128];
    size_t len = encode_sample(bytes);
    struct batch_builder builder;
    batch_builder_init(&builder, alloc_system());
    for (int round = 0; round < 2; round++) {
        assert_int_equal(batch_builder_count(&builder), 0);
        assert_int_equal(batch_builder_batch(&builder).len, 0);
        assert_int_equal(batch_builder_put(&builder, slice_of_string("alpha"), slice_of_string("one")), STATUS_OK);
        assert_int_equal(batch_builder_delete(&builder, slice_of("b\0c", 3)), STATUS_OK);
        (void)batch_builder_batch(&builder); /* may be asked for in between */
        assert_int_equal(batch_builder_put(&builder, slice_of_string("empty"), SLICE_EMPTY), STATUS_OK);
        assert_int_equal(batch_builder_delete_range(&builder, slice_of_string("f"), slice_of("f\0", 2)), STATUS_OK);
        assert_int_equal(batch_builder_count(&builder), 4);
        assert_true(slice_equal(batch_builder_batch(&builder), slice_of(bytes, len)));
        batch_builder_clear(&builder);
    }
    batch_builder_deinit(&builder);
}

static void test_batch_builder_refuses_what_the_reader_would(void **state) {
    (void)state;
    static uint8_t key[LIMIT_KEY_BYTES + 1];
    uint8_t *value = calloc(1, LIMIT_VALUE_BYTES + 1);
    struct slice good = slice_of_string("k");
    struct batch_builder builder;
    batch_builder_init(&builder, alloc_system());
    assert_int_equal(batch_builder_put(&builder, SLICE_EMPTY, good), STATUS_INVALID);
    assert_int_equal(batch_builder_delete(&builder, slice_of(key, sizeof key)), STATUS_INVALID);
    assert_int_equal(batch_builder_put(&builder, good, slice_of(value, LIMIT_VALUE_BYTES + 1)), STATUS_INVALID);
    assert_int_equal(batch_builder_delete_range(&builder, good, good), STATUS_INVALID);
    assert_int_equal(batch_builder_delete_range(&builder, good, SLICE_EMPTY), STATUS_INVALID);
    assert_int_equal(batch_builder_count(&builder), 0);
    /* A large value fits once. */
    assert_int_equal(batch_builder_put(&builder, good, slice_of(value, LIMIT_VALUE_BYTES)), STATUS_OK);
    assert_int_equal(batch_builder_put(&builder, good, slice_of(value, LIMIT_VALUE_BYTES)), STATUS_TOO_LARGE);
    assert_int_equal(batch_builder_count(&builder), 1);
    batch_builder_clear(&builder);
    for (uint32_t i = 0; i < LIMIT_BATCH_OPERATIONS; i++) {
        assert_int_equal(batch_builder_delete_range(&builder, slice_of_string("a"), good), STATUS_OK);
    }
    assert_int_equal(batch_builder_delete(&builder, good), STATUS_TOO_LARGE);
    assert_int_equal(batch_check(batch_builder_batch(&builder)), STATUS_OK);
    batch_builder_deinit(&builder);
    free(value);
}

static void test_batch_builder_without_memory_keeps_what_it_has(void **state) {
    (void)state;
    static uint8_t value[1000];
    struct test_alloc alloc;
    struct batch_builder builder;
    test_alloc_init(&alloc);
    batch_builder_init(&builder, &alloc.base);
    assert_int_equal(batch_builder_delete(&builder, slice_of_string("k")), STATUS_OK);
    test_alloc_fail(&alloc, 1, false);
    assert_int_equal(batch_builder_put(&builder, slice_of_string("k"), slice_of(value, sizeof value)),
                     STATUS_NO_MEMORY);
    assert_int_equal(batch_builder_count(&builder), 1);
    const uint8_t want[] = {1, 0, 1, BATCH_DELETE, 1, 'k'};
    assert_true(slice_equal(batch_builder_batch(&builder), slice_of(want, sizeof want)));
    batch_builder_deinit(&builder);
    assert_int_equal(alloc.live_blocks, 0);
}

static void test_batch_unknown_version_flags_or_kind_is_refused(void **state) {
    (void)state;
    uint8_t bytes[128];
    size_t len = encode_sample(bytes);
    bytes[0] = 2;
    assert_int_equal(batch_check(slice_of(bytes, len)), STATUS_UNSUPPORTED);
    bytes[0] = 1;
    bytes[1] = 1;
    assert_int_equal(batch_check(slice_of(bytes, len)), STATUS_UNSUPPORTED);
    bytes[1] = 0;
    for (unsigned kind = 0; kind < 256; kind++) {
        bytes[3] = (uint8_t)kind;
        /* "alpha" to "one" is a range, too. */
        bool known = kind == BATCH_PUT || kind == BATCH_DELETE_RANGE;
        assert_int_equal(batch_check(slice_of(bytes, len)) == STATUS_OK, known);
    }
}

static void test_h35_batch_cut_or_extended_anywhere_is_refused(void **state) {
    (void)state;
    uint8_t bytes[128];
    size_t len = encode_sample(bytes);
    for (size_t cut = 1; cut < len; cut++) {
        uint8_t *exact = malloc(cut); /* so that a read beyond shows */
        memcpy(exact, bytes, cut);
        assert_int_equal(batch_check(slice_of(exact, cut)), STATUS_CORRUPT);
        free(exact);
    }
    bytes[len] = 0;
    assert_int_equal(batch_check(slice_of(bytes, len + 1)), STATUS_CORRUPT);
    /* A length of 2^63 in front of few bytes. */
    const uint8_t huge[] = {1, 0, 1, BATCH_PUT, 1, 'k', 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1};
    assert_int_equal(batch_check(slice_of(huge, sizeof huge)), STATUS_CORRUPT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_encoded_reads_back),
        cmocka_unit_test(test_batch_format_is_golden),
        cmocka_unit_test(test_batch_empty_slice_has_no_operations),
        cmocka_unit_test(test_batch_limits_are_accepted_and_what_is_beyond_refused),
        cmocka_unit_test(test_batch_range_that_is_empty_or_has_no_end_is_refused),
        cmocka_unit_test(test_batch_built_step_by_step_has_the_same_bytes),
        cmocka_unit_test(test_batch_builder_refuses_what_the_reader_would),
        cmocka_unit_test(test_batch_builder_without_memory_keeps_what_it_has),
        cmocka_unit_test(test_batch_unknown_version_flags_or_kind_is_refused),
        cmocka_unit_test(test_h35_batch_cut_or_extended_anywhere_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
