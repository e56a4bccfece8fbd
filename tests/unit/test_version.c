/*
 * Versions and the merge's choice, without files: which tables a lookup or a merge has to look at, and which versions
 * it keeps.
 *
 * Would break these: a range test that is off by one at either end, a table that is missed or taken twice, levels out
 * of order after a merge, a reference that is lost, a version dropped that some reader can see.
 */
#include "storage/merge.h"
#include "storage/version.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct sst table(const char *smallest, const char *largest, uint64_t first, uint64_t last) {
    return (struct sst){.meta = {.smallest = slice_of_string(smallest),
                                 .largest = slice_of_string(largest),
                                 .revision_first = first,
                                 .revision_last = last}};
}

static struct version *make(const struct version *base, struct sst **level0, size_t count0, struct sst **level1,
                            size_t count1, bool remove_merging) {
    struct version_change change = {.added = {level0, level1},
                                    .added_count = {count0, count1},
                                    .remove_merging = remove_merging};
    struct version *version = version_new(alloc_system(), base, &change);
    assert_non_null(version);
    return version;
}

static void test_version_ranges_include_their_ends(void **state) {
    (void)state;
    struct sst zero = table("d", "f", 5, 9);
    struct sst one = table("b", "c", 1, 4);
    struct sst two = table("m", "p", 1, 4);
    struct sst *dead = NULL;
    struct version *version = make(NULL, (struct sst *[]){&zero}, 1, (struct sst *[]){&one, &two}, 2, false);
    static const struct {
        const char *key;
        uint64_t revision;
        bool may_hold;
    } lookups[] = {{"a", 9, false}, {"b", 9, true}, {"c", 9, true},  {"ca", 9, false}, {"d", 9, true},
                   {"d", 4, false}, {"d", 5, true}, {"f", 9, true},  {"fa", 9, false}, {"m", 1, true},
                   {"m", 0, false}, {"p", 9, true}, {"pa", 9, false}};
    for (size_t i = 0; i < sizeof lookups / sizeof lookups[0]; i++) {
        assert_int_equal(version_may_hold(version, slice_of_string(lookups[i].key), lookups[i].revision),
                         lookups[i].may_hold);
    }
    static const struct {
        const char *lower;
        const char *upper;
        bool overlaps;
    } scans[] = {{"", "", true},    {"", "b", false},  {"", "ba", true}, {"ca", "d", false}, {"c", "d", true},
                 {"g", "m", false}, {"g", "ma", true}, {"p", "", true},  {"pa", "", false},  {"f", "fa", true}};
    for (size_t i = 0; i < sizeof scans / sizeof scans[0]; i++) {
        assert_int_equal(version_overlaps(version, slice_of_string(scans[i].lower), slice_of_string(scans[i].upper)),
                         scans[i].overlaps);
    }
    assert_ptr_equal(version_find(version, slice_of_string("c")), &one);
    assert_null(version_find(version, slice_of_string("d")));
    assert_ptr_equal(version_find(version, slice_of_string("p")), &two);
    version_unref(version, &dead);
    assert_non_null(dead);
}

static void test_version_overlap_takes_every_table_that_is_met(void **state) {
    (void)state;
    struct sst tables[3] = {table("b", "c", 1, 1), table("e", "g", 1, 1), table("i", "k", 1, 1)};
    struct sst *dead = NULL;
    struct version *version = make(NULL, NULL, 0, (struct sst *[]){&tables[0], &tables[1], &tables[2]}, 3, false);
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
        version_overlap(version, slice_of_string(cases[i].lower), slice_of_string(cases[i].upper), &first, &count);
        assert_int_equal(count, cases[i].count);
        assert_true(count == 0 || first == cases[i].first);
    }
    version_unref(version, &dead);
}

static void test_version_after_a_merge_has_its_levels_in_order(void **state) {
    (void)state;
    struct sst old[2] = {table("a", "z", 1, 5), table("c", "d", 6, 9)};
    struct sst low[3] = {table("a", "b", 1, 1), table("e", "f", 1, 1), table("x", "y", 1, 1)};
    struct sst merged[2] = {table("a", "c", 1, 9), table("d", "k", 1, 9)};
    struct sst newer = table("a", "q", 10, 12);
    struct sst *dead = NULL;
    struct version *first =
        make(NULL, (struct sst *[]){&old[1], &old[0]}, 2, (struct sst *[]){&low[0], &low[1], &low[2]}, 3, false);
    assert_true(version_is_sound(first));
    struct version *second = make(first, (struct sst *[]){&newer}, 1, NULL, 0, false);
    old[0].merging = old[1].merging = low[0].merging = low[1].merging = true;
    struct version *third = make(second, NULL, 0, (struct sst *[]){&merged[0], &merged[1]}, 2, true);
    assert_int_equal(third->counts[0], 1);
    assert_ptr_equal(third->tables[0][0], &newer);
    assert_int_equal(third->counts[1], 3);
    assert_ptr_equal(third->tables[1][0], &merged[0]);
    assert_ptr_equal(third->tables[1][1], &merged[1]);
    assert_ptr_equal(third->tables[1][2], &low[2]);
    assert_true(version_is_sound(third));
    assert_int_equal(low[2].refs, 3);
    assert_int_equal(old[0].refs, 2);
    version_unref(second, &dead);
    assert_null(dead);
    version_unref(first, &dead);
    unsigned buried = 0;
    for (struct sst *sst = dead; sst != NULL; sst = sst->next_dead) {
        assert_true(sst->merging);
        buried++;
    }
    assert_int_equal(buried, 4);
    dead = NULL;
    version_unref(third, &dead);
    assert_int_equal(low[2].refs + newer.refs + merged[0].refs, 0);
}

static void test_version_with_overlap_in_level_1_is_not_sound(void **state) {
    (void)state;
    struct sst tables[2] = {table("a", "c", 1, 1), table("c", "d", 1, 1)};
    struct sst levels[2] = {table("a", "b", 5, 9), table("a", "b", 3, 5)};
    struct sst *dead = NULL;
    struct version *version = make(NULL, NULL, 0, (struct sst *[]){&tables[0], &tables[1]}, 2, false);
    assert_false(version_is_sound(version));
    version_unref(version, &dead);
    version = make(NULL, (struct sst *[]){&levels[0], &levels[1]}, 2, NULL, 0, false); /* revision 5 in both */
    assert_false(version_is_sound(version));
    version_unref(version, &dead);
}

/* ---- The merge's choice --------------------------------------------------------------------------------------- */

/* "k5 k4- k3": key, revision, minus for a delete. Returns what is kept, in the same notation. */
static void filter(const char *entries, uint64_t horizon, const char *want) {
    static struct merge_filter filter;
    char kept[128] = "";
    char last = '\0';
    merge_filter_init(&filter, horizon);
    for (const char *at = entries; *at != '\0';) {
        const char *end = at + strcspn(at, " ");
        bool new_key;
        struct entry entry = {.key = {slice_of(at, 1), (uint64_t)(at[1] - '0'), 0},
                              .kind = end[-1] == '-' ? BATCH_DELETE : BATCH_PUT};
        if (merge_filter_keeps(&filter, &entry, &new_key)) {
            strncat(kept, at, (size_t)(end - at));
            strcat(kept, " ");
        }
        assert_int_equal(new_key, at[0] != last);
        last = at[0];
        at = *end == '\0' ? end : end + 1;
    }
    size_t len = strlen(kept);
    if (len > 0) {
        kept[len - 1] = '\0';
    }
    assert_string_equal(kept, want);
}

static void test_merge_keeps_everything_above_the_horizon(void **state) {
    (void)state;
    filter("a9 a8- a7 b9- b3", 2, "a9 a8- a7 b9- b3");
    filter("a9 a8- a7 b9- b3", 0, "a9 a8- a7 b9- b3");
}

static void test_merge_keeps_the_newest_at_or_below_the_horizon(void **state) {
    (void)state;
    filter("a9 a5 a4 a3 b5 b1", 5, "a9 a5 b5");
    filter("a9 a6 a4 a3 b2 b1", 5, "a9 a6 a4 b2");
    filter("a1 b1", 9, "a1 b1");
}

static void test_h33_merge_drops_a_delete_only_with_all_it_hides(void **state) {
    (void)state;
    filter("a5- a4 a3", 5, "");
    filter("a6- a4 a3", 5, "a6- a4");
    filter("a9 a5- a4 b1", 5, "a9 b1");
    filter("a9- a5- a4", 5, "a9-");
    filter("a6- a5- a4", 6, "");
}

static void test_merge_keeps_only_the_last_operation_of_an_entry(void **state) {
    (void)state;
    filter("a7 a7- a7 a6", 5, "a7 a6");
    filter("a7- a7", 5, "a7-");
    filter("a7 b7", 5, "a7 b7");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_ranges_include_their_ends),
        cmocka_unit_test(test_version_overlap_takes_every_table_that_is_met),
        cmocka_unit_test(test_version_after_a_merge_has_its_levels_in_order),
        cmocka_unit_test(test_version_with_overlap_in_level_1_is_not_sound),
        cmocka_unit_test(test_merge_keeps_everything_above_the_horizon),
        cmocka_unit_test(test_merge_keeps_the_newest_at_or_below_the_horizon),
        cmocka_unit_test(test_h33_merge_drops_a_delete_only_with_all_it_hides),
        cmocka_unit_test(test_merge_keeps_only_the_last_operation_of_an_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
