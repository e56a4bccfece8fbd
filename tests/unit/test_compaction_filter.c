/*
 * Which versions a compaction keeps, and where it cuts its outputs.
 *
 * Would break these: a version dropped that some reader at or above the horizon can see; a delete dropped while
 * something older is left below, so that the key comes back; versions kept that nobody can see; a range delete that
 * covers what is newer than it; a key's versions in two tables; outputs too small, too large, or over too much of the
 * next level.
 */
#include "storage/compaction_filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { HORIZON = 50 };

static struct sst table(const char *smallest, const char *largest, bool largest_excluded, uint64_t size_bytes) {
    return (struct sst){.meta = {.smallest = slice_of_string(smallest),
                                 .largest = slice_of_string(largest),
                                 .largest_excluded = largest_excluded,
                                 .size_bytes = size_bytes}};
}

static struct version *version_of(unsigned level, struct sst **tables, size_t count) {
    struct version_change change = {.horizon = 0};
    change.added[level] = tables;
    change.added_count[level] = count;
    struct version *version = version_new(alloc_system(), NULL, &change);
    assert_non_null(version);
    return version;
}

static void unref(struct version *version) {
    struct sst *dead = NULL;
    version_unref(version, &dead);
}

/* Feeds "key@revision.ordinal" in order, a delete with a '-' in front; returns what is kept, in the same words. */
static const char *kept(const struct version *version, unsigned output_level, const struct tombstones *covering,
                        const char *entries) {
    static char out[1024];
    char copy[1024];
    char *rest = NULL;
    struct compaction_plan plan = {.output_level = output_level};
    struct compaction_filter *filter = malloc(sizeof *filter);
    char last = '\0';
    compaction_filter_init(filter, version, &plan, HORIZON, covering);
    (void)snprintf(copy, sizeof copy, "%s", entries);
    out[0] = '\0';
    for (char *word = strtok_r(copy, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        bool is_delete = word[0] == '-';
        const char *key = word + is_delete;
        char *dot;
        struct entry entry = {.kind = is_delete ? BATCH_DELETE : BATCH_PUT};
        entry.key.user = slice_of(key, 1);
        entry.key.revision = strtoull(key + 2, &dot, 10);
        entry.key.ordinal = *dot == '.' ? (uint32_t)strtoul(dot + 1, NULL, 10) : 0;
        bool new_key;
        if (compaction_filter_keeps(filter, &entry, &new_key)) {
            (void)snprintf(out + strlen(out), sizeof out - strlen(out), "%s%s", out[0] == '\0' ? "" : " ", word);
        }
        assert_int_equal(new_key, *key != last);
        last = *key;
    }
    free(filter);
    return out;
}

static void test_compaction_filter_keeps_what_readers_from_the_horizon_on_can_see(void **state) {
    (void)state;
    struct version *version = version_of(6, NULL, 0);
    assert_string_equal(kept(version, 6, NULL, "a@70 a@60 a@50 a@40 a@30 b@49 b@48 c@51 c@20"),
                        "a@70 a@60 a@50 b@49 c@51 c@20");
    /* Of one entry's operations on a key only the last can be seen. */
    assert_string_equal(kept(version, 6, NULL, "a@70.2 a@70.1 a@40.9 a@40.3 -b@60.2 b@60.1"), "a@70.2 a@40.9 -b@60.2");
    unref(version);
}

static void test_h33_compaction_filter_keeps_deletes_above_anything_deeper(void **state) {
    (void)state;
    struct sst first = table("b", "c", false, 1);
    struct sst second = table("f", "h", true, 1);
    struct version *version = version_of(5, (struct sst *[]){&first, &second}, 2);
    const char *all = "-a@10 -b@60 -b@10 -c@10 -d@10 -e@50 -f@10 -g@10 -h@10 -i@51 -i@10 i@9";
    assert_string_equal(kept(version, 4, NULL, all), "-b@60 -b@10 -c@10 -f@10 -g@10 -i@51");
    assert_string_equal(kept(version, 5, NULL, all), "-b@60 -i@51"); /* all that is older is among the inputs */
    assert_string_equal(kept(version, 0, NULL, all),
                        "-a@10 -b@60 -b@10 -c@10 -d@10 -e@50 -f@10 -g@10 -h@10 -i@51 -i@10");
    unref(version);
}

static void test_compaction_filter_drops_what_settled_range_deletes_cover(void **state) {
    (void)state;
    const struct tombstone list[] = {{slice_of_string("b"), slice_of_string("e"), 40, 5},
                                     {slice_of_string("d"), slice_of_string("g"), 60, 0}};
    struct tombstones *covering = NULL;
    assert_int_equal(tombstones_build(alloc_system(), list, 2, &covering), STATUS_OK);
    struct version *version = version_of(6, NULL, 0);
    /* At 40 the ordinal tells; the one at 60 is above the horizon: a reader at 55 doesn't see it. */
    assert_string_equal(kept(version, 6, covering, "a@39 b@41 b@39 c@40.6 c@40.5 c@40.4 d@70 d@45 d@30 e@40 f@55 f@20"),
                        "a@39 b@41 c@40.6 d@70 d@45 e@40 f@55 f@20");
    assert_string_equal(kept(version, 6, covering, "b@40.4 b@39 c@45.1 c@12 d@60 d@39"), "c@45.1 d@60");
    tombstones_free(covering);
    unref(version);
}

/* ---- Cuts ------------------------------------------------------------------------------------------------------ */

enum { SST_BYTES = 1000 };

static struct compaction_cut cut_over(struct version **ret_version, struct sst **tables, size_t count,
                                      unsigned output_level) {
    struct storage_options options = {.sst_bytes = SST_BYTES};
    struct compaction_plan plan = {.output_level = output_level,
                                   .smallest = slice_of_string("b"),
                                   .largest = slice_of_string("y")};
    struct compaction_cut cut;
    *ret_version = version_of(6, tables, count);
    compaction_cut_init(&cut, *ret_version, &plan, &options);
    return cut;
}

static bool cuts(struct compaction_cut *cut, const char *key, uint64_t size_bytes) {
    return compaction_cut_before(cut, slice_of_string(key), size_bytes);
}

static void test_compaction_cut_comes_at_the_target_size(void **state) {
    (void)state;
    struct version *version;
    struct compaction_cut cut = cut_over(&version, NULL, 0, 6);
    assert_false(cuts(&cut, "c", SST_BYTES - 1));
    assert_true(cuts(&cut, "d", SST_BYTES));
    assert_false(cuts(&cut, "e", 0));
    unref(version);
    cut = cut_over(&version, NULL, 0, 0); /* level 0: one output */
    assert_false(cuts(&cut, "c", 100 * SST_BYTES));
    unref(version);
}

static void test_compaction_cut_follows_the_tables_below(void **state) {
    (void)state;
    struct sst tables[] = {table("a", "c", false, 900), table("d", "f", true, 900), table("g", "i", false, 900)};
    struct version *version;
    struct compaction_cut cut = cut_over(&version, (struct sst *[]){&tables[0], &tables[1], &tables[2]}, 3, 5);
    assert_false(cuts(&cut, "c", SST_BYTES / 2));
    assert_true(cuts(&cut, "d", SST_BYTES / 2)); /* the first table ends in front of it */
    assert_false(cuts(&cut, "e", SST_BYTES / 2));
    assert_false(cuts(&cut, "f", SST_BYTES / 2 - 1)); /* too small yet */
    assert_false(cuts(&cut, "g", SST_BYTES - 1));
    assert_true(cuts(&cut, "j", SST_BYTES - 1));
    unref(version);
}

static void test_compaction_cut_bounds_the_overlap_with_the_next_level(void **state) {
    (void)state;
    struct sst tables[] = {table("c", "d", false, 6 * SST_BYTES), table("e", "f", false, 5 * SST_BYTES),
                           table("g", "h", false, 20 * SST_BYTES), table("p", "q", false, SST_BYTES)};
    struct version *version;
    struct compaction_cut cut =
        cut_over(&version, (struct sst *[]){&tables[0], &tables[1], &tables[2], &tables[3]}, 4, 5);
    assert_false(cuts(&cut, "b", 1));
    assert_false(cuts(&cut, "e", 1));
    assert_true(cuts(&cut, "g", 1));
    /* What was passed while there was no output isn't the next one's. */
    assert_false(cuts(&cut, "k", 0));
    assert_false(cuts(&cut, "l", 1));
    unref(version);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compaction_filter_keeps_what_readers_from_the_horizon_on_can_see),
        cmocka_unit_test(test_h33_compaction_filter_keeps_deletes_above_anything_deeper),
        cmocka_unit_test(test_compaction_filter_drops_what_settled_range_deletes_cover),
        cmocka_unit_test(test_compaction_cut_comes_at_the_target_size),
        cmocka_unit_test(test_compaction_cut_follows_the_tables_below),
        cmocka_unit_test(test_compaction_cut_bounds_the_overlap_with_the_next_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
