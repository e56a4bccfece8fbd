/*
 * Integers and varints on cursors, slices, lists. Breaks if a decoder reads past its cursor, moves it on failure, or
 * takes two encodings for one value (hazard 35: lengths from outside are never trusted); if slices compare wrongly; if
 * a list loses a node.
 */
#include "node/base/bytes.h"
#include "node/base/list.h"
#include "node/base/random.h"
#include "tests/unit/support/support.h"

/* ---- Fixed width ------------------------------------------------------------------------------------------------- */

static void test_fixed_integers_are_little_endian(void **state) {
    (void)state;
    uint8_t bytes[14];
    put_u16(bytes, 0x0102);
    put_u32(bytes + 2, 0x03040506);
    put_u64(bytes + 6, 0x0708090a0b0c0d0eu);
    const uint8_t expected[] = {2, 1, 6, 5, 4, 3, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 9, 8, 7};
    assert_memory_equal(bytes, expected, sizeof expected);
    struct slice cursor = slice_of(bytes, sizeof bytes);
    uint16_t small;
    uint32_t medium;
    uint64_t large;
    assert_true(cursor_u16(&cursor, &small) && small == 0x0102);
    assert_true(cursor_u32(&cursor, &medium) && medium == 0x03040506);
    assert_true(cursor_u64(&cursor, &large) && large == 0x0708090a0b0c0d0eu);
    assert_int_equal(cursor.len, 0);
}

static void test_cursor_too_short_neither_moves_nor_writes(void **state) {
    (void)state;
    const uint8_t bytes[7] = {0};
    uint8_t u8 = 7;
    uint16_t u16 = 7;
    uint32_t u32 = 7;
    uint64_t u64 = 7;
    struct slice taken = slice_of("kept", 4);
    struct slice cursor = slice_of(bytes, 0);
    assert_false(cursor_u8(&cursor, &u8));
    cursor = slice_of(bytes, 1);
    assert_false(cursor_u16(&cursor, &u16));
    cursor = slice_of(bytes, 3);
    assert_false(cursor_u32(&cursor, &u32));
    cursor = slice_of(bytes, 7);
    assert_false(cursor_u64(&cursor, &u64));
    assert_false(cursor_bytes(&cursor, 8, &taken));
    assert_false(cursor_bytes(&cursor, UINT64_MAX, &taken));
    assert_true(cursor.data == bytes && cursor.len == 7);
    assert_true(u8 == 7 && u16 == 7 && u32 == 7 && u64 == 7 && taken.len == 4);
}

/* ---- Varints ----------------------------------------------------------------------------------------------------- */

static void check_round_trip(uint64_t value) {
    uint8_t bytes[VARINT_BYTES_MAX];
    size_t size = (size_t)(put_varint(bytes, value) - bytes);
    assert_int_equal(size, varint_size(value));
    struct slice cursor = slice_of(bytes, size);
    uint64_t back = ~value;
    assert_true(cursor_varint(&cursor, &back));
    assert_true(back == value && cursor.len == 0);
    for (size_t cut = 0; cut < size; cut++) { /* every prefix is refused */
        cursor = slice_of(bytes, cut);
        back = 1234;
        assert_false(cursor_varint(&cursor, &back));
        assert_true(back == 1234 && cursor.len == cut);
    }
}

static void test_varint_round_trips_at_every_length(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 1);
    for (int bits = 0; bits < 64; bits++) {
        uint64_t edge = (uint64_t)1 << bits;
        check_round_trip(edge);
        check_round_trip(edge - 1);
        check_round_trip(random_next(&random) >> bits);
    }
    check_round_trip(UINT64_MAX);
}

static void test_varint_other_encodings_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t len;
        uint8_t bytes[11];
    } bad[] = {
        {2, {0x80, 0x00}},                                                        /* zero in two bytes */
        {3, {0xff, 0x80, 0x00}},                                                  /* 127 in three */
        {10, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}},       /* 65 bits */
        {11, {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}}, /* eleven bytes */
        {10, {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00}},       /* zero in ten */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct slice cursor = slice_of(bad[i].bytes, bad[i].len);
        uint64_t value = 99;
        assert_false(cursor_varint(&cursor, &value));
        assert_true(value == 99 && cursor.len == bad[i].len);
    }
}

static void test_h35_prefixed_length_beyond_the_bytes_is_refused(void **state) {
    (void)state;
    uint8_t bytes[32];
    uint8_t *end = put_varint(bytes, UINT64_MAX);
    struct slice cursor = slice_of(bytes, (size_t)(end - bytes) + 3), taken = SLICE_EMPTY;
    assert_false(cursor_prefixed(&cursor, &taken));
    assert_true(cursor.data == bytes && taken.data == NULL);
    bytes[0] = 3;
    memcpy(bytes + 1, "abcd", 4);
    cursor = slice_of(bytes, 3);
    assert_false(cursor_prefixed(&cursor, &taken));
    assert_int_equal(cursor.len, 3);
    cursor = slice_of(bytes, 5);
    assert_true(cursor_prefixed(&cursor, &taken));
    assert_true(slice_equal(taken, slice_of_string("abc")));
    assert_int_equal(cursor.len, 1);
}

/* ---- Slices ------------------------------------------------------------------------------------------------------ */

static void test_slices_compare_as_unsigned_bytes_prefix_first(void **state) {
    (void)state;
    static const char *const sorted[] = {"", "a", "a\x01", "aa", "b", "\x7f", "\x80", "\xff", "\xff\xff"};
    for (size_t i = 0; i < sizeof sorted / sizeof sorted[0]; i++) {
        for (size_t k = 0; k < sizeof sorted / sizeof sorted[0]; k++) {
            int order = slice_compare(slice_of_string(sorted[i]), slice_of_string(sorted[k]));
            assert_true(i < k ? order < 0 : i > k ? order > 0 : order == 0);
            assert_true(slice_equal(slice_of_string(sorted[i]), slice_of_string(sorted[k])) == (i == k));
        }
    }
    assert_true(slice_compare(SLICE_EMPTY, SLICE_EMPTY) == 0 && slice_equal(SLICE_EMPTY, slice_of("", 0)));
    assert_true(slice_starts_with(slice_of_string("abc"), slice_of_string("ab")));
    assert_true(slice_starts_with(slice_of_string("abc"), SLICE_EMPTY));
    assert_false(slice_starts_with(slice_of_string("ab"), slice_of_string("abc")));
    assert_false(slice_starts_with(slice_of_string("abc"), slice_of_string("b")));
}

/* ---- Lists ------------------------------------------------------------------------------------------------------- */

struct item {
    int number;
    struct list link;
};

static void expect(struct list *head, const char *numbers) {
    LIST_FOREACH (node, head) {
        assert_int_equal(LIST_ENTRY(node, struct item, link)->number, *numbers++ - '0');
    }
    assert_int_equal(*numbers, '\0');
}

static void test_list_pushes_pops_removes_and_splices(void **state) {
    (void)state;
    struct list a, b;
    struct item items[6];
    list_init(&a);
    list_init(&b);
    assert_true(list_is_empty(&a) && list_pop_front(&a) == NULL);
    for (int i = 0; i < 6; i++) {
        items[i].number = i;
        list_push_back(i < 3 ? &a : &b, &items[i].link);
    }
    list_splice_back(&a, &b);
    expect(&a, "012345");
    assert_true(list_is_empty(&b));
    list_splice_back(&a, &b);
    list_remove(&items[2].link);
    list_remove(&items[2].link); /* twice does no harm */
    list_push_front(&a, &items[2].link);
    expect(&a, "201345");
    list_splice_back(&b, &a);
    expect(&b, "201345");
    LIST_FOREACH (node, &b) { /* removing while walking */
        if (LIST_ENTRY(node, struct item, link)->number % 2 == 0) {
            list_remove(node);
        }
    }
    expect(&b, "135");
    assert_ptr_equal(list_pop_front(&b), &items[1].link);
    expect(&b, "35");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixed_integers_are_little_endian),
        cmocka_unit_test(test_cursor_too_short_neither_moves_nor_writes),
        cmocka_unit_test(test_varint_round_trips_at_every_length),
        cmocka_unit_test(test_varint_other_encodings_are_refused),
        cmocka_unit_test(test_h35_prefixed_length_beyond_the_bytes_is_refused),
        cmocka_unit_test(test_slices_compare_as_unsigned_bytes_prefix_first),
        cmocka_unit_test(test_list_pushes_pops_removes_and_splices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
