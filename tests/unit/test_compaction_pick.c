/*
 * What the picker chooses, case by case: versions made by hand, one rule each. test_compaction_model.c has the whole.
 *
 * Would break these: a table of level 0 that passes an older one or is held back by a newer one; a base level below
 * tables that are newer; a plan that takes what is taken; deletes or history picked too early, never, or at any price;
 * a move that gives a chance away; level 0 and the base level starving each other; a compaction by hand that never
 * ends.
 */
#include "storage/compaction_pick.h"

#include "tests/unit/support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { TABLES_MAX = 64, MB = 1024 * 1024 };

static struct sst pool[TABLES_MAX];
static size_t pool_used;
static struct sst *added[MANIFEST_LEVELS][TABLES_MAX];
static size_t added_count[MANIFEST_LEVELS];
static struct storage_options options;
static struct version *version;
static struct compaction_pick pick;
static struct compaction_plan plan;
static bool planned;

static int setup(void **state) {
    (void)state;
    memset(added_count, 0, sizeof added_count);
    pool_used = 0;
    storage_options_init(&options);
    options.l0_files_compact = 4;
    pick = (struct compaction_pick){.alloc = alloc_system(), .options = &options};
    planned = false;
    version = NULL;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    struct sst *dead = NULL;
    if (planned) {
        compaction_plan_deinit(alloc_system(), &plan);
    }
    version_unref(version, &dead);
    return 0;
}

/* Level 0: newest first; the others in the order of keys. Numbers grow with each call, from 1. */
static struct sst *add(unsigned level, const char *smallest, const char *largest, uint64_t mb) {
    struct sst *sst = &pool[pool_used++];
    *sst = (struct sst){.meta = {.number = pool_used,
                                 .size_bytes = mb * MB,
                                 .entries = mb * 10000 + 1,
                                 .revision_first = 1000 - 10 * pool_used,
                                 .revision_last = 1009 - 10 * pool_used,
                                 .smallest = slice_of_string(smallest),
                                 .largest = slice_of_string(largest)}};
    added[level][added_count[level]++] = sst;
    return sst;
}

static void make_version(void) {
    struct version_change change = {.horizon = 0};
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        change.added[level] = added[level];
        change.added_count[level] = added_count[level];
    }
    version = version_new(alloc_system(), NULL, &change);
    assert_non_null(version);
    pick.version = version;
}

static enum status choose(void) {
    if (version == NULL) {
        make_version();
    }
    if (planned) {
        compaction_plan_deinit(alloc_system(), &plan);
    }
    enum status status = compaction_pick(&pick, &plan);
    planned = status == STATUS_OK;
    return status;
}

static void expect(enum compaction_reason reason, unsigned level, unsigned output_level, size_t first, size_t second) {
    assert_int_equal(choose(), STATUS_OK);
    assert_int_equal(plan.reason, reason);
    assert_int_equal(plan.level, level);
    assert_int_equal(plan.output_level, output_level);
    assert_int_equal(plan.input_counts[0], first);
    assert_int_equal(plan.input_counts[1], second);
}

/* ---- Level 0 --------------------------------------------------------------------------------------------------- */

static void test_compaction_pick_of_a_small_tree_is_nothing(void **state) {
    (void)state;
    add(0, "a", "z", 64);
    add(0, "a", "z", 64);
    add(0, "a", "z", 64);
    add(6, "a", "z", 64);
    assert_int_equal(choose(), STATUS_NOT_FOUND);
}

static void test_compaction_pick_few_tables_of_level_0_go_only_when_it_is_quiet(void **state) {
    (void)state;
    add(0, "a", "m", 10);
    add(0, "c", "z", 10);
    add(6, "a", "k", 64);
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    pick.is_quiet = true;
    expect(COMPACTION_QUIET, 0, 6, 2, 1);
    options.l0_files_quiet = 3;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
}

static void test_compaction_pick_full_level_0_goes_to_the_base_level(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        add(0, "c", "p", 10);
    }
    add(6, "a", "b", 64);
    add(6, "d", "f", 64);
    add(6, "m", "r", 64);
    add(6, "s", "z", 64);
    expect(COMPACTION_L0, 0, 6, 4, 2);
    assert_true(plan.bottom);
    assert_false(plan.trivial);
    assert_true(slice_equal(plan.smallest, slice_of_string("c")));
    assert_true(slice_equal(plan.largest, slice_of_string("r")));
    assert_int_equal(plan.input_bytes, 168 * MB);
}

/* Tables that meet nothing of each other don't cost what lies between them. */
static void test_compaction_pick_far_ends_of_level_0_are_two_plans(void **state) {
    (void)state;
    add(0, "x", "z", 10);
    add(0, "a", "b", 10);
    add(0, "x", "y", 10);
    struct sst *oldest = add(0, "a", "c", 10);
    add(6, "a", "c", 64);
    add(6, "d", "w", 64);
    add(6, "x", "z", 64);
    expect(COMPACTION_L0, 0, 6, 2, 1);
    assert_ptr_equal(plan.inputs[0][1], oldest);
    assert_true(slice_equal(plan.largest, slice_of_string("c")));
}

static void test_compaction_pick_never_passes_an_older_table_that_is_taken(void **state) {
    (void)state;
    for (int i = 0; i < 7; i++) {
        add(0, "a", "k", 10);
    }
    add(0, "k", "z", 10)->compacting = true;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
}

/* Hazard 50: one bad table in level 0 isn't in the way of those that are older. */
static void test_h50_compaction_pick_older_tables_go_although_a_newer_one_is_taken(void **state) {
    (void)state;
    add(0, "a", "z", 10);
    struct sst *bad = add(0, "a", "z", 10);
    bad->compacting = true;
    for (int i = 0; i < 4; i++) {
        add(0, "a", "z", 10);
    }
    expect(COMPACTION_L0, 0, 6, 4, 0);
    for (size_t i = 0; i < 4; i++) {
        assert_true(plan.inputs[0][i]->meta.revision_last < bad->meta.revision_first);
    }
}

static void test_compaction_pick_base_level_is_never_below_tables_of_a_larger_store(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        add(0, "a", "m", 10);
    }
    add(3, "p", "q", 1);
    add(6, "a", "z", 64);
    expect(COMPACTION_L0, 0, 3, 8, 0);
    struct compaction_targets targets;
    compaction_get_targets(version, &options, &targets);
    assert_int_equal(targets.base_level, 3);
    assert_int_equal(targets.bytes[3], 0);
}

static void test_compaction_pick_what_is_left_above_the_base_level_moves_down(void **state) {
    (void)state;
    add(3, "p", "q", 100);
    add(6, "a", "z", 64);
    options.compression[3] = options.compression[4];
    expect(COMPACTION_SIZE, 3, 4, 1, 0);
    assert_true(plan.trivial);
}

static void test_compaction_pick_does_not_write_below_a_plan_under_way(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        add(0, "a", "m", 64);
    }
    struct compaction_plan other = {.level = 0,
                                    .output_level = 4,
                                    .smallest = slice_of_string("l"),
                                    .largest = slice_of_string("z")};
    const struct compaction_plan *under_way[] = {&other};
    pick.under_way = under_way;
    pick.under_way_count = 1;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    other.smallest = slice_of_string("n");
    expect(COMPACTION_L0, 0, 6, 4, 0);
}

static void test_compaction_pick_crowded_level_0_is_merged_by_itself_while_the_base_level_is_taken(void **state) {
    (void)state;
    for (int i = 0; i < 9; i++) {
        add(0, "a", "z", 20);
    }
    struct sst *base = add(6, "a", "z", 64);
    base->compacting = true;
    expect(COMPACTION_L0_ONLY, 0, 0, 9, 0);
    assert_false(plan.bottom);
    assert_false(plan.trivial);
}

/* What was merged within level 0 doesn't stay there as one large table. */
static void test_compaction_pick_one_large_table_of_level_0_goes_down(void **state) {
    (void)state;
    struct sst *sst = add(0, "a", "z", 255);
    add(6, "a", "z", 200);
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    sst->meta.size_bytes += 10 * MB;
    expect(COMPACTION_L0, 0, 6, 1, 1);
}

static void test_compaction_pick_level_0_and_base_level_take_turns(void **state) {
    (void)state;
    struct compaction_plan other = {.level = 5,
                                    .output_level = 6,
                                    .smallest = slice_of_string("a"),
                                    .largest = slice_of_string("m")};
    const struct compaction_plan *under_way[] = {&other};
    for (int i = 0; i < 5; i++) {
        add(0, "a", "z", 10);
    }
    struct sst *first = add(5, "a", "m", 300);
    add(5, "n", "z", 300);
    add(6, "a", "m", 1000);
    add(6, "n", "z", 1000);
    expect(COMPACTION_SIZE, 5, 6, 1, 1); /* at three times its target, level 0 at five fourths */
    first->meta.size_bytes = 30 * MB;
    struct sst *dead = NULL;
    version_unref(version, &dead);
    version = NULL;
    first->compacting = true;
    added[5][1]->meta.size_bytes = 220 * MB;
    pick.under_way = under_way;
    pick.under_way_count = 1;
    /* Now level 0 comes first. It waits for the table that is taken, and the other one is kept free for it. */
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    first->compacting = false;
    other.smallest = slice_of_string("zz");
    other.largest = slice_of_string("zzz");
    expect(COMPACTION_L0, 0, 5, 5, 2);
}

/* ---- Moves ----------------------------------------------------------------------------------------------------- */

static void test_compaction_pick_moves_only_where_nothing_is_lost_by_it(void **state) {
    (void)state;
    add(0, "g", "h", 64);
    add(0, "e", "f", 64);
    add(0, "c", "d", 64);
    struct sst *oldest = add(0, "a", "b", 64);
    add(6, "x", "z", 64);
    options.compression[6] = options.compression[0];
    expect(COMPACTION_L0, 0, 6, 4, 0);
    assert_true(plan.trivial);
    for (size_t i = 1; i < 4; i++) {
        assert_true(slice_compare(plan.moved[i - 1]->meta.smallest, plan.moved[i]->meta.smallest) < 0);
    }
    oldest->meta.superseded = oldest->meta.entries / 2;
    oldest->meta.superseded_until = 900;
    pick.horizon = 899;
    expect(COMPACTION_L0, 0, 6, 4, 0);
    assert_true(plan.trivial);
    pick.horizon = 980;
    expect(COMPACTION_L0, 0, 6, 1, 0);
    assert_false(plan.trivial);
    oldest->meta.superseded = 0;
    oldest->meta.deletes = oldest->meta.entries / 2;
    expect(COMPACTION_L0, 0, 6, 1, 0);
    assert_false(plan.trivial);
    oldest->meta.deletes = 0;
    options.compression[6] = COMPRESSION_ZSTD;
    expect(COMPACTION_L0, 0, 6, 1, 0);
    assert_false(plan.trivial);
}

static void test_compaction_pick_does_not_move_a_table_over_much_of_the_next_level(void **state) {
    (void)state;
    add(4, "a", "z", 400);
    for (int i = 0; i < 11; i++) {
        static const char *const keys[] = {"b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
        add(6, keys[i], keys[i], 64);
    }
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        options.compression[level] = COMPRESSION_NONE;
    }
    expect(COMPACTION_SIZE, 4, 5, 1, 0);
    assert_false(plan.trivial);
}

/* ---- Space ----------------------------------------------------------------------------------------------------- */

static void test_compaction_pick_settled_deletes_at_the_bottom_are_rewritten(void **state) {
    (void)state;
    struct sst *sst = add(6, "a", "m", 64);
    sst->meta.deletes = sst->meta.entries / 9;
    pick.horizon = sst->meta.revision_last - 1;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    pick.horizon++;
    expect(COMPACTION_BOTTOM, 6, 6, 1, 0);
    assert_true(plan.bottom);
    sst->meta.deletes = sst->meta.entries / 11;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    sst->meta.tombstones = 1;
    expect(COMPACTION_BOTTOM, 6, 6, 1, 0);
    sst->compacting = true;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
}

static void test_compaction_pick_deletes_go_down_once_the_horizon_reaches_them(void **state) {
    (void)state;
    struct sst *sst = add(5, "a", "m", 20);
    add(6, "a", "f", 200);
    add(6, "g", "m", 200);
    add(6, "n", "z", 900);
    sst->meta.deletes = sst->meta.entries / 2 + 1;
    pick.horizon = sst->meta.revision_first - 1;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    pick.horizon++;
    expect(COMPACTION_TOMBSTONES, 5, 6, 1, 2);
    options.tombstone_percent = 101;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    sst->meta.tombstones = 1;
    expect(COMPACTION_TOMBSTONES, 5, 6, 1, 2);
}

/* A few deletes spread over everything aren't worth all of it. */
static void test_compaction_pick_deletes_go_down_only_at_a_fair_price(void **state) {
    (void)state;
    struct compaction_plan other = {.level = 0, .output_level = 0};
    const struct compaction_plan *under_way[] = {&other};
    struct sst *sst = add(5, "a", "z", 1);
    sst->meta.deletes = sst->meta.entries;
    add(6, "b", "y", 100 * 1000)->meta.entries = 1000 * 1000 * 1000;
    pick.horizon = 1000;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    version->tables[6][0]->meta.entries = 100 * 1000; /* each hides a megabyte */
    expect(COMPACTION_TOMBSTONES, 5, 6, 1, 1);
    version->tables[6][0]->meta.entries = 1000 * 1000 * 1000;
    sst->meta.tombstones = 1; /* what that hides isn't known: when there is nothing else to do */
    expect(COMPACTION_TOMBSTONES, 5, 6, 1, 1);
    pick.under_way = under_way;
    pick.under_way_count = 1;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
}

static void test_compaction_pick_deletes_in_level_0_go_when_all_is_quiet(void **state) {
    (void)state;
    struct compaction_plan other = {.level = 5, .output_level = 6};
    const struct compaction_plan *under_way[] = {&other};
    struct sst *sst = add(0, "a", "z", 1);
    sst->meta.tombstones = 1;
    add(6, "b", "y", 100);
    pick.horizon = 1000;
    expect(COMPACTION_TOMBSTONES, 0, 6, 1, 1);
    pick.under_way = under_way;
    pick.under_way_count = 1;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
}

static void test_compaction_pick_history_is_rewritten_once_the_horizon_has_passed_it(void **state) {
    (void)state;
    struct sst *sst = add(6, "a", "m", 64);
    sst->meta.superseded = sst->meta.entries / 2 + 1;
    sst->meta.superseded_until = 700;
    pick.horizon = 699;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
    pick.horizon = 700;
    expect(COMPACTION_HISTORY, 6, 6, 1, 0);
    options.history_percent = 51;
    sst->meta.superseded = sst->meta.entries / 2;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
}

/* Numbers come from a disk: none of them may overflow into an answer. */
static void test_compaction_pick_absurd_counts_do_no_harm(void **state) {
    (void)state;
    struct sst *sst = add(6, "a", "m", 64);
    sst->meta.entries = UINT64_MAX - 5;
    sst->meta.tombstones = 5;
    sst->meta.superseded = UINT64_MAX / 4;
    sst->meta.deletes = UINT64_MAX / 30;
    pick.horizon = 500;
    assert_int_equal(choose(), STATUS_NOT_FOUND);
}

/* ---- By hand --------------------------------------------------------------------------------------------------- */

static enum status choose_range(unsigned level, const char *lower, const char *upper, uint64_t number_end) {
    if (version == NULL) {
        make_version();
    }
    if (planned) {
        compaction_plan_deinit(alloc_system(), &plan);
    }
    enum status status =
        compaction_pick_range(&pick, level, slice_of_string(lower), slice_of_string(upper), number_end, &plan);
    planned = status == STATUS_OK;
    return status;
}

static void test_compaction_by_hand_goes_down_level_by_level_and_ends_in_place(void **state) {
    (void)state;
    struct sst *zero = add(0, "a", "f", 1);
    struct sst *five = add(5, "a", "f", 1);
    struct sst *six = add(6, "a", "f", 64);
    struct sst *other = add(6, "m", "p", 64);
    pick.asked_revision = 2000;
    assert_int_equal(choose_range(0, "g", "z", 100), STATUS_NOT_FOUND);
    assert_int_equal(choose_range(0, "b", "z", 100), STATUS_OK);
    assert_ptr_equal(plan.inputs[0][0], zero);
    assert_int_equal(plan.output_level, 5);
    assert_int_equal(choose_range(5, "b", "", 100), STATUS_OK);
    assert_ptr_equal(plan.inputs[0][0], five);
    assert_ptr_equal(plan.inputs[1][0], six);
    assert_false(plan.trivial);
    assert_int_equal(choose_range(6, "g", "", 100), STATUS_OK);
    assert_ptr_equal(plan.inputs[0][0], other);
    assert_int_equal(plan.output_level, 6);
    other->compacting = true;
    assert_int_equal(choose_range(6, "g", "", 100), STATUS_BUSY);
    assert_int_equal(choose_range(6, "g", "", 4), STATUS_NOT_FOUND); /* made since: done */
    assert_int_equal(choose_range(6, "g", "m", 100), STATUS_NOT_FOUND);
}

/* Under steady writes every level always has something; only what was there when it was asked for counts. */
static void test_compaction_by_hand_is_not_kept_up_by_newer_tables(void **state) {
    (void)state;
    struct sst *zero = add(0, "a", "f", 1);
    struct sst *five = add(5, "a", "f", 1);
    add(6, "a", "f", 64);
    pick.asked_revision = zero->meta.revision_first - 1;
    assert_int_equal(choose_range(0, "a", "", 100), STATUS_NOT_FOUND);
    assert_int_equal(choose_range(5, "a", "", 100), STATUS_OK);
    pick.asked_revision = five->meta.revision_first - 1;
    assert_int_equal(choose_range(5, "a", "", 100), STATUS_NOT_FOUND);
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

static void test_compaction_pick_without_memory_says_so(void **state) {
    (void)state;
    struct test_alloc alloc;
    for (int i = 0; i < 4; i++) {
        add(0, "a", "z", 64);
    }
    add(6, "a", "z", 64);
    make_version();
    test_alloc_init(&alloc);
    pick.alloc = &alloc.base;
    enum status status;
    uint64_t n = 0;
    do {
        test_alloc_fail(&alloc, ++n, false);
        status = compaction_pick(&pick, &plan);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
    } while (status != STATUS_OK);
    assert_true(n > 2);
    test_alloc_fail(&alloc, 0, false);
    compaction_plan_deinit(&alloc.base, &plan);
    assert_int_equal(alloc.live_blocks, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_compaction_pick_of_a_small_tree_is_nothing),
        TEST(test_compaction_pick_few_tables_of_level_0_go_only_when_it_is_quiet),
        TEST(test_compaction_pick_full_level_0_goes_to_the_base_level),
        TEST(test_compaction_pick_far_ends_of_level_0_are_two_plans),
        TEST(test_compaction_pick_never_passes_an_older_table_that_is_taken),
        TEST(test_h50_compaction_pick_older_tables_go_although_a_newer_one_is_taken),
        TEST(test_compaction_pick_base_level_is_never_below_tables_of_a_larger_store),
        TEST(test_compaction_pick_what_is_left_above_the_base_level_moves_down),
        TEST(test_compaction_pick_does_not_write_below_a_plan_under_way),
        TEST(test_compaction_pick_crowded_level_0_is_merged_by_itself_while_the_base_level_is_taken),
        TEST(test_compaction_pick_one_large_table_of_level_0_goes_down),
        TEST(test_compaction_pick_level_0_and_base_level_take_turns),
        TEST(test_compaction_pick_moves_only_where_nothing_is_lost_by_it),
        TEST(test_compaction_pick_does_not_move_a_table_over_much_of_the_next_level),
        TEST(test_compaction_pick_settled_deletes_at_the_bottom_are_rewritten),
        TEST(test_compaction_pick_deletes_go_down_once_the_horizon_reaches_them),
        TEST(test_compaction_pick_deletes_go_down_only_at_a_fair_price),
        TEST(test_compaction_pick_deletes_in_level_0_go_when_all_is_quiet),
        TEST(test_compaction_pick_history_is_rewritten_once_the_horizon_has_passed_it),
        TEST(test_compaction_pick_absurd_counts_do_no_harm),
        TEST(test_compaction_by_hand_goes_down_level_by_level_and_ends_in_place),
        TEST(test_compaction_by_hand_is_not_kept_up_by_newer_tables),
        TEST(test_compaction_pick_without_memory_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
