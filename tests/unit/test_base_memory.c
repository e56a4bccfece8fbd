/*
 * Allocation helpers, arena and buf. Breaks if a budget or limit can be passed, if blocks overlap or lose their
 * alignment, if a failed call changes anything, or if something leaks.
 */
#include "node/base/arena.h"
#include "node/base/buf.h"
#include "tests/unit/support/support.h"

#include <string.h>

static struct test_alloc memory;

static int setup(void **state) {
    (void)state;
    test_alloc_init(&memory);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    return memory.live_blocks == 0 ? 0 : -1;
}

/* ---- alloc ------------------------------------------------------------------------------------------------------- */

static void test_alloc_zero_aligned_resize_free(void **state) {
    (void)state;
    uint8_t *zero = mem_alloc_zero(&memory.base, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(zero[i], 0);
    }
    memset(zero, 'z', 1000);
    zero = mem_resize(&memory.base, zero, 100000);
    assert_int_equal(zero[999], 'z');
    for (size_t align = 16; align <= 8192; align *= 2) {
        void *block = mem_alloc_aligned(&memory.base, align, 100);
        assert_int_equal((uintptr_t)block % align, 0);
        mem_free(&memory.base, block);
    }
    mem_free(&memory.base, zero);
    mem_free(&memory.base, NULL);
    uint8_t *from_null = mem_resize(&memory.base, NULL, 10);
    assert_non_null(from_null);
    mem_free(&memory.base, from_null);
}

static void test_alloc_without_memory_is_null(void **state) {
    (void)state;
    test_alloc_fail(&memory, 2, false);
    void *first = mem_alloc(&memory.base, 1);
    assert_non_null(first);
    assert_null(mem_alloc_zero(&memory.base, 1));
    void *third = mem_alloc(&memory.base, 1);
    assert_non_null(third);
    mem_free(&memory.base, first);
    mem_free(&memory.base, third);
    test_alloc_fail(&memory, 1, true);
    assert_null(mem_alloc(&memory.base, 1));
    assert_null(mem_alloc_aligned(&memory.base, 4096, 1));
}

/* ---- arena ------------------------------------------------------------------------------------------------------- */

static void test_arena_blocks_are_aligned_apart_and_within_budget(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, &memory.base, 256, 1000);
    assert_int_equal(memory.live_blocks, 0);
    uint8_t *blocks[100];
    size_t count = 0;
    while (count < 100 && (blocks[count] = arena_alloc(&arena, 20)) != NULL) {
        assert_int_equal((uintptr_t)blocks[count] % 16, 0);
        memset(blocks[count], (int)count, 20);
        count++;
    }
    assert_int_equal(count, 1000 / 32); /* 20 rounded up */
    for (size_t i = 0; i < count; i++) {
        for (int k = 0; k < 20; k++) {
            assert_int_equal(blocks[i][k], i);
        }
    }
    arena_deinit(&arena);
}

static void test_arena_takes_a_block_larger_than_a_chunk_and_zero_bytes(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, &memory.base, 64, 100000);
    memset(arena_alloc(&arena, 50000), 1, 50000);
    void *none = arena_alloc(&arena, 0), *other = arena_alloc(&arena, 0);
    assert_true(none != NULL && other != NULL && none != other);
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, 60000));
    arena_deinit(&arena);
}

static void test_arena_reset_keeps_one_chunk_and_gives_the_budget_back(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, &memory.base, 256, 4096);
    arena_reset(&arena); /* an empty one */
    for (int round = 0; round < 5; round++) {
        size_t used = 0;
        while (arena_alloc(&arena, 64) != NULL) {
            used += 64;
        }
        assert_int_equal(used, 4096);
        arena_reset(&arena);
        assert_int_equal(memory.live_blocks, 1);
        uint64_t attempts = memory.attempts;
        assert_non_null(arena_alloc(&arena, 64)); /* in the chunk that was kept */
        assert_int_equal(memory.attempts, attempts);
        arena_reset(&arena);
    }
    arena_deinit(&arena);
}

static void test_arena_without_memory_is_null_and_stays_good(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, &memory.base, 64, 4096);
    assert_non_null(arena_alloc(&arena, 64));
    test_alloc_fail(&memory, 1, false);
    assert_null(arena_alloc(&arena, 64));
    assert_non_null(arena_alloc(&arena, 64));
    arena_deinit(&arena);
}

/* ---- buf --------------------------------------------------------------------------------------------------------- */

static void test_buf_appends_consumes_and_keeps_to_its_limit(void **state) {
    (void)state;
    struct buf buf;
    buf_init(&buf, &memory.base, 100);
    assert_int_equal(memory.live_blocks, 0);
    assert_int_equal(buf_append(&buf, NULL, 0), STATUS_OK);
    assert_int_equal(buf_append(&buf, "0123456789", 10), STATUS_OK);
    buf_consume(&buf, 3);
    assert_true(slice_equal(buf_slice(&buf), slice_of_string("3456789")));
    assert_int_equal(buf_reserve(&buf, 94), STATUS_TOO_LARGE);
    assert_int_equal(buf_reserve(&buf, 93), STATUS_OK);
    assert_int_equal(buf.capacity, 100);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX), STATUS_TOO_LARGE);
    assert_int_equal(buf.len, 7);
    buf_clear(&buf);
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf.capacity, 100);
    buf_deinit(&buf);
    buf_deinit(&buf); /* twice does no harm */
}

static void test_buf_grows_by_doubling(void **state) {
    (void)state;
    struct buf buf;
    buf_init(&buf, &memory.base, 0);
    for (uint32_t i = 0; i < 100000; i++) {
        assert_int_equal(buf_append(&buf, &i, sizeof i), STATUS_OK);
    }
    assert_true(memory.attempts < 20);
    uint32_t value;
    memcpy(&value, buf.data + 99999 * sizeof value, sizeof value);
    assert_int_equal(value, 99999);
    buf_deinit(&buf);
}

static void test_buf_without_memory_stays_as_it_was(void **state) {
    (void)state;
    struct buf buf;
    buf_init(&buf, &memory.base, 0);
    assert_int_equal(buf_append(&buf, "abc", 3), STATUS_OK);
    test_alloc_fail(&memory, 1, false);
    char more[100] = {0};
    assert_int_equal(buf_append(&buf, more, sizeof more), STATUS_NO_MEMORY);
    assert_true(slice_equal(buf_slice(&buf), slice_of_string("abc")));
    buf_deinit(&buf);
}

static void test_buf_format_appends_text_without_a_zero_byte(void **state) {
    (void)state;
    struct buf buf;
    buf_init(&buf, &memory.base, 16);
    assert_int_equal(buf_append_format(&buf, "%s=%d", "key", 42), STATUS_OK);
    assert_int_equal(buf_append_format(&buf, ";"), STATUS_OK);
    assert_true(slice_equal(buf_slice(&buf), slice_of_string("key=42;")));
    assert_int_equal(buf_append_format(&buf, "%010d", 1), STATUS_TOO_LARGE);
    assert_int_equal(buf.len, 7);
    buf_deinit(&buf);
}

#define COUNTED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        COUNTED(test_alloc_zero_aligned_resize_free),
        COUNTED(test_alloc_without_memory_is_null),
        COUNTED(test_arena_blocks_are_aligned_apart_and_within_budget),
        COUNTED(test_arena_takes_a_block_larger_than_a_chunk_and_zero_bytes),
        COUNTED(test_arena_reset_keeps_one_chunk_and_gives_the_budget_back),
        COUNTED(test_arena_without_memory_is_null_and_stays_good),
        COUNTED(test_buf_appends_consumes_and_keeps_to_its_limit),
        COUNTED(test_buf_grows_by_doubling),
        COUNTED(test_buf_without_memory_stays_as_it_was),
        COUNTED(test_buf_format_appends_text_without_a_zero_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
