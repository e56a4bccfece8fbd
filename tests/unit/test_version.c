/*
 * Versions, without files: which tables a key or a range has to do with, and what an edit makes of the levels.
 *
 * Would break these: a range test that is off by one at either end, a table that is missed or taken twice, levels out
 * of order after a compaction, a reference that is lost.
 */
#include "storage/version.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { LEVEL = 3 }; /* stands for any of the deeper ones */

static struct sst table(const char *smallest, const char *largest, uint64_t first, uint64_t last) {
    return (struct sst){.meta = {.size_bytes = 100,
                                 .smallest = slice_of_string(smallest),
                                 .largest = slice_of_string(largest),
                                 .revision_first = first,
                                 .revision_last = last}};
}

static struct version *make(struct sst **level0, size_t count0, struct sst **deeper, size_t count) {
    struct version_change change = {.added = {[0] = level0, [LEVEL] = deeper},
                                    .added_count = {[0] = count0, [LEVEL] = count}};
    struct version *version = version_new(alloc_system(), NULL, &change);
    assert_non_null(version);
    return version;
}

static void test_version_finds_the_only_table_of_a_key(void **state) {
    (void)state;
    struct sst one = table("b", "d", 1, 4);
    struct sst two = table("d", "f", 1, 4);
    struct sst three = table("m", "p", 1, 4);
    struct sst *dead = NULL;
    one.meta.largest_excluded = true;
    struct version *version = make(NULL, 0, (struct sst *[]){&one, &two, &three}, 3);
    assert_true(version_is_sound(version));
    assert_int_equal(version->bytes[LEVEL], 300);
    static const char *const keys[] = {"a", "b", "c", "d", "f", "fa", "m", "p", "pa"};
    struct sst *const want[] = {NULL, &one, &one, &two, &two, NULL, &three, &three, NULL};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        assert_ptr_equal(version_find(version, LEVEL, slice_of_string(keys[i])), want[i]);
    }
    version_unref(version, &dead);
    assert_non_null(dead);
}

static void test_version_overlap_takes_every_table_that_is_met(void **state) {
    (void)state;
    struct sst tables[3] = {table("b", "c", 1, 1), table("e", "g", 1, 1), table("i", "k", 1, 1)};
    struct sst *dead = NULL;
    struct version *version = make(NULL, 0, (struct sst *[]){&tables[0], &tables[1], &tables[2]}, 3);
    static const struct {
        const char *lower;
        const char *upper;
        size_t first;
        size_t count;
    } cases[] = {{"a", "a", 0, 0}, {"a", "b", 0, 1}, {"c", "c", 0, 1}, {"d", "d", 1, 0}, {"c", "e", 0, 2},
                 {"d", "h", 1, 1}, {"g", "i", 1, 2}, {"a", "z", 0, 3}, {"l", "z", 3, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t first;
        size_t count;
        version_overlap(version, LEVEL, slice_of_string(cases[i].lower), slice_of_string(cases[i].upper), false, &first,
                        &count);
        assert_int_equal(count, cases[i].count);
        assert_true(count == 0 || first == cases[i].first);
    }
    size_t first;
    size_t count;
    version_overlap(version, LEVEL, slice_of_string("a"), slice_of_string("e"), true, &first, &count);
    assert_int_equal(count, 1);
    version_range(version, LEVEL, slice_of_string("a"), slice_of_string("e"), &first, &count);
    assert_int_equal(count, 1);
    version_range(version, LEVEL, slice_of_string("d"), SLICE_EMPTY, &first, &count);
    assert_int_equal(first, 1);
    assert_int_equal(count, 2);
    version_unref(version, &dead);
}

static void test_version_after_a_compaction_has_its_levels_in_order(void **state) {
    (void)state;
    struct sst old[2] = {table("a", "z", 1, 5), table("c", "d", 6, 9)};
    struct sst low[3] = {table("a", "b", 1, 1), table("e", "f", 1, 1), table("x", "y", 1, 1)};
    struct sst merged[2] = {table("a", "c", 1, 9), table("d", "k", 1, 9)};
    struct sst newer = table("a", "q", 10, 12);
    struct sst *dead = NULL;
    struct version *first = make((struct sst *[]){&old[1], &old[0]}, 2, (struct sst *[]){&low[0], &low[1], &low[2]}, 3);
    assert_true(version_is_sound(first));
    struct version_change flush = {.added = {(struct sst *[]){&newer}}, .added_count = {1}};
    struct version *second = version_new(alloc_system(), first, &flush);
    struct version_change compaction = {
        .added = {[LEVEL] = (struct sst *[]){&merged[0], &merged[1]}},
        .added_count = {[LEVEL] = 2},
        .removed = {(struct sst *[]){&old[1], &old[0]}, [LEVEL] = (struct sst *[]){&low[0], &low[1]}},
        .removed_count = {2, [LEVEL] = 2},
        .horizon = 7};
    struct version *third = version_new(alloc_system(), second, &compaction);
    assert_int_equal(third->counts[0], 1);
    assert_ptr_equal(third->tables[0][0], &newer);
    assert_int_equal(third->counts[LEVEL], 3);
    assert_ptr_equal(third->tables[LEVEL][0], &merged[0]);
    assert_ptr_equal(third->tables[LEVEL][1], &merged[1]);
    assert_ptr_equal(third->tables[LEVEL][2], &low[2]);
    assert_int_equal(third->horizon, 7);
    assert_true(version_is_sound(third));
    assert_int_equal(low[2].refs, 3);
    assert_int_equal(old[0].refs, 2);
    version_unref(second, &dead);
    assert_null(dead);
    version_unref(first, &dead);
    unsigned buried = 0;
    for (struct sst *sst = dead; sst != NULL; sst = sst->next_dead) {
        buried++;
    }
    assert_int_equal(buried, 4);
    dead = NULL;
    version_unref(third, &dead);
    assert_int_equal(low[2].refs + newer.refs + merged[0].refs, 0);
}

static void test_version_level0_goes_by_revisions_not_by_age(void **state) {
    (void)state;
    struct sst tables[3] = {table("a", "z", 7, 9), table("a", "z", 4, 6), table("a", "z", 1, 3)};
    struct sst merged = table("a", "z", 1, 6);
    struct sst *dead = NULL;
    struct version *first = make((struct sst *[]){&tables[0], &tables[1], &tables[2]}, 3, NULL, 0);
    struct version_change change = {.added = {(struct sst *[]){&merged}},
                                    .added_count = {1},
                                    .removed = {(struct sst *[]){&tables[1], &tables[2]}},
                                    .removed_count = {2}};
    struct version *second = version_new(alloc_system(), first, &change);
    assert_true(version_is_sound(second));
    assert_ptr_equal(second->tables[0][0], &tables[0]);
    assert_ptr_equal(second->tables[0][1], &merged);
    version_unref(first, &dead);
    version_unref(second, &dead);
}

static void test_version_with_overlap_in_a_deeper_level_is_not_sound(void **state) {
    (void)state;
    struct sst tables[2] = {table("a", "c", 1, 1), table("c", "d", 1, 1)};
    struct sst levels[2] = {table("a", "b", 5, 9), table("a", "b", 3, 5)};
    struct sst *dead = NULL;
    struct version *version = make(NULL, 0, (struct sst *[]){&tables[0], &tables[1]}, 2);
    assert_false(version_is_sound(version));
    version_unref(version, &dead);
    version = make((struct sst *[]){&levels[0], &levels[1]}, 2, NULL, 0); /* revision 5 in both */
    assert_false(version_is_sound(version));
    version_unref(version, &dead);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_finds_the_only_table_of_a_key),
        cmocka_unit_test(test_version_overlap_takes_every_table_that_is_met),
        cmocka_unit_test(test_version_after_a_compaction_has_its_levels_in_order),
        cmocka_unit_test(test_version_level0_goes_by_revisions_not_by_age),
        cmocka_unit_test(test_version_with_overlap_in_a_deeper_level_is_not_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
