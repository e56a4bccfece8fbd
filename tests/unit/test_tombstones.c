/*
 * Sets of range deletes against the simplest model: for every key and revision, a look at every delete.
 *
 * Would break these: an end that is taken for covered, marks in the wrong order, a mark that outlives its range, a
 * horizon that drops what a read at it still needs, pieces that touch and stay apart, sets that leak when memory is
 * out.
 */
#include "storage/tombstones.h"

#include "node/base/random.h"
#include "tests/unit/support/support.h"

#include <stdlib.h>
#include <string.h>

enum { KEYS = 24, LIST_MAX = 40, REVISIONS = 12 };

/* Key number k, in order, of one to three bytes. */
static struct slice key_of(unsigned k, uint8_t out[3]) {
    static const uint8_t alphabet[] = {0, 0x7f, 0x80, 0xff};
    out[0] = alphabet[k / 6 % 4];
    out[1] = alphabet[k % 6 / 3 * 3];
    out[2] = alphabet[k % 3];
    return slice_of(out, k % 6 == 0 ? 1 : k % 3 == 0 ? 2 : 3);
}

static uint8_t key_bytes[KEYS][3];
static struct slice keys[KEYS];

static void make_keys(void) {
    for (unsigned k = 0; k < KEYS; k++) {
        keys[k] = key_of(k, key_bytes[k]);
        assert_true(k == 0 || slice_compare(keys[k - 1], keys[k]) < 0);
    }
}

struct model {
    struct tombstone list[LIST_MAX];
    size_t count;
};

static struct tombstone_mark model_find(const struct model *model, struct slice key, uint64_t revision) {
    struct tombstone_mark newest = TOMBSTONE_MARK_NONE;
    for (size_t i = 0; i < model->count; i++) {
        const struct tombstone *one = &model->list[i];
        if (one->revision <= revision && slice_compare(one->start, key) <= 0 && slice_compare(key, one->end) < 0) {
            newest = tombstone_mark_newer(newest, (struct tombstone_mark){one->revision, one->ordinal});
        }
    }
    return newest;
}

static void model_random(struct model *model, struct random *random, size_t count) {
    model->count = count;
    for (size_t i = 0; i < count; i++) {
        unsigned start = (unsigned)random_below(random, KEYS - 1);
        unsigned end = start + 1 + (unsigned)random_below(random, KEYS - 1 - start);
        model->list[i] = (struct tombstone){.start = keys[start],
                                            .end = keys[end],
                                            .revision = 1 + random_below(random, REVISIONS),
                                            .ordinal = (uint32_t)random_below(random, 3)};
    }
}

static bool same_marks(const struct tombstone_fragment *a, const struct tombstone_fragment *b) {
    if (a->mark_count != b->mark_count) {
        return false;
    }
    for (size_t i = 0; i < a->mark_count; i++) {
        if (a->marks[i].revision != b->marks[i].revision || a->marks[i].ordinal != b->marks[i].ordinal) {
            return false;
        }
    }
    return true;
}

/* What holds of every set. */
static void assert_sound(const struct tombstones *set) {
    size_t marks = 0;
    uint64_t newest = 0;
    for (size_t at = 0; at < tombstones_count(set); at++) {
        struct tombstone_fragment fragment = tombstones_fragment(set, at);
        assert_true(slice_compare(fragment.start, fragment.end) < 0);
        assert_true(fragment.mark_count > 0);
        for (size_t i = 1; i < fragment.mark_count; i++) {
            assert_true(fragment.marks[i - 1].revision > fragment.marks[i].revision);
        }
        marks += fragment.mark_count;
        newest = fragment.marks[0].revision > newest ? fragment.marks[0].revision : newest;
        if (at > 0) {
            struct tombstone_fragment before = tombstones_fragment(set, at - 1);
            int order = slice_compare(before.end, fragment.start);
            assert_true(order < 0 || (order == 0 && !same_marks(&before, &fragment)));
        }
        assert_int_equal(tombstones_first_reaching(set, fragment.start), at);
        assert_int_equal(tombstones_first_reaching(set, fragment.end), at + 1);
    }
    assert_int_equal(tombstones_marks(set), marks);
    assert_int_equal(tombstones_newest(set), newest);
}

static void assert_mark(struct tombstone_mark got, struct tombstone_mark want) {
    assert_int_equal(got.revision, want.revision);
    assert_int_equal(got.ordinal, want.revision == 0 ? 0 : want.ordinal);
}

/* Reads at or above the horizon see what the model sees; with settled false, too, unless a read needs nothing. */
static void assert_as_model(const struct tombstones *set, const struct model *model, uint64_t horizon, bool settled) {
    for (unsigned k = 0; k < KEYS; k++) {
        for (uint64_t revision = horizon; revision <= REVISIONS + 1; revision++) {
            struct slice start;
            struct slice end;
            struct tombstone_mark want = model_find(model, keys[k], revision);
            if (settled && want.revision <= horizon) {
                want = TOMBSTONE_MARK_NONE;
            }
            struct tombstone_mark got = tombstones_find(set, keys[k], revision, &start, &end);
            assert_mark(got, want);
            if (start.len > 0) {
                assert_true(slice_compare(start, keys[k]) <= 0 && slice_compare(keys[k], end) < 0);
            } else {
                assert_int_equal(got.revision, 0);
            }
        }
    }
}

static void test_tombstones_of_any_list_answer_as_the_model(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 11);
    for (unsigned round = 0; round < 400; round++) {
        struct model model;
        struct tombstones *set;
        model_random(&model, &random, random_below(&random, LIST_MAX + 1));
        assert_int_equal(tombstones_build(alloc_system(), model.list, model.count, &set), STATUS_OK);
        assert_sound(set);
        assert_as_model(set, &model, 0, false);
        tombstones_free(set);
    }
}

static void test_tombstones_merged_keep_what_reads_above_the_horizon_need(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 12);
    for (unsigned round = 0; round < 400; round++) {
        struct model model;
        struct tombstones *sets[5] = {NULL};
        struct tombstones *merged;
        uint64_t marks;
        model_random(&model, &random, random_below(&random, LIST_MAX + 1));
        size_t at = 0;
        size_t count = 1 + random_below(&random, 5);
        for (size_t i = 0; i < count; i++) {
            size_t len = i + 1 == count ? model.count - at : random_below(&random, model.count - at + 1);
            if (len > 0 || i % 2 == 0) {
                assert_int_equal(tombstones_build(alloc_system(), &model.list[at], len, &sets[i]), STATUS_OK);
            }
            at += len;
        }
        uint64_t horizon = random_below(&random, REVISIONS + 2);
        bool settled = random_below(&random, 2) == 0;
        const struct tombstones *const *inputs = (const struct tombstones *const *)sets;
        assert_int_equal(tombstones_merge(alloc_system(), inputs, count, horizon, settled, &merged), STATUS_OK);
        assert_int_equal(tombstones_merge_marks(alloc_system(), inputs, count, horizon, settled, &marks), STATUS_OK);
        assert_sound(merged);
        assert_int_equal(marks, tombstones_marks(merged));
        assert_as_model(merged, &model, horizon, settled);
        for (size_t i = 0; i < tombstones_count(merged); i++) {
            struct tombstone_fragment fragment = tombstones_fragment(merged, i);
            /* At most one that is at or below the horizon; none at the bottom. */
            size_t below = fragment.mark_count - (settled ? 0 : 1);
            assert_true(below == 0 || fragment.marks[below - 1].revision > horizon);
        }
        for (size_t i = 0; i < count; i++) {
            tombstones_free(sets[i]);
        }
        tombstones_free(merged);
    }
}

static void test_tombstones_that_touch_and_are_of_one_time_are_one_fragment(void **state) {
    (void)state;
    const struct tombstone list[] = {
        {slice_of_string("f"), slice_of_string("m"), 9, 1},
        {slice_of_string("a"), slice_of_string("f"), 9, 1},
        {slice_of_string("c"), slice_of_string("d"), 9, 0}, /* of the same entry, before */
        {slice_of_string("p"), slice_of_string("q"), 4, 0},
    };
    struct tombstones *set;
    assert_int_equal(tombstones_build(alloc_system(), list, 4, &set), STATUS_OK);
    assert_int_equal(tombstones_count(set), 2);
    struct tombstone_fragment fragment = tombstones_fragment(set, 0);
    assert_true(slice_equal(fragment.start, slice_of_string("a")));
    assert_true(slice_equal(fragment.end, slice_of_string("m")));
    assert_int_equal(fragment.mark_count, 1);
    struct slice start;
    struct slice end;
    assert_mark(tombstones_find(set, slice_of_string("m"), 10, &start, &end), TOMBSTONE_MARK_NONE);
    assert_int_equal(end.len, 0);
    /* A fragment that holds the key is named even if the read is too old for it. */
    assert_mark(tombstones_find(set, slice_of_string("p"), 3, &start, &end), TOMBSTONE_MARK_NONE);
    assert_true(slice_equal(end, slice_of_string("q")));
    tombstones_free(set);
}

static void test_tombstone_mark_covers_only_what_is_older(void **state) {
    (void)state;
    struct tombstone_mark mark = {5, 2};
    assert_true(tombstone_mark_covers(mark, 4, 9));
    assert_true(tombstone_mark_covers(mark, 5, 1));
    assert_false(tombstone_mark_covers(mark, 5, 2));
    assert_false(tombstone_mark_covers(mark, 5, 3));
    assert_false(tombstone_mark_covers(mark, 6, 0));
    assert_false(tombstone_mark_covers(TOMBSTONE_MARK_NONE, 1, 0));
}

static void test_tombstones_empty_and_null_sets_cover_nothing(void **state) {
    (void)state;
    struct tombstones *set;
    assert_int_equal(tombstones_build(alloc_system(), NULL, 0, &set), STATUS_OK);
    for (int i = 0; i < 2; i++) {
        struct slice end;
        assert_int_equal(tombstones_count(set), 0);
        assert_int_equal(tombstones_marks(set), 0);
        assert_int_equal(tombstones_newest(set), 0);
        assert_int_equal(tombstones_first_reaching(set, slice_of_string("a")), 0);
        assert_mark(tombstones_find(set, slice_of_string("a"), 9, NULL, &end), TOMBSTONE_MARK_NONE);
        assert_int_equal(end.len, 0);
        tombstones_free(set);
        set = NULL;
    }
}

static void test_tombstones_failed_allocations_leak_nothing(void **state) {
    (void)state;
    struct test_alloc alloc;
    struct random random;
    struct model model;
    test_alloc_init(&alloc);
    random_seed(&random, 13);
    model_random(&model, &random, LIST_MAX);
    for (uint64_t n = 1;; n++) {
        struct tombstones *sets[3] = {NULL};
        struct tombstones *merged = NULL;
        uint64_t marks;
        test_alloc_fail(&alloc, n, false);
        enum status status = tombstones_build(&alloc.base, model.list, 1, &sets[0]);
        status = status != STATUS_OK ? status : tombstones_build(&alloc.base, model.list, 20, &sets[1]);
        status = status != STATUS_OK ? status : tombstones_build(&alloc.base, &model.list[20], 20, &sets[2]);
        const struct tombstones *const *inputs = (const struct tombstones *const *)sets;
        status = status != STATUS_OK ? status : tombstones_merge_marks(&alloc.base, inputs, 3, 0, false, &marks);
        status = status != STATUS_OK ? status : tombstones_merge(&alloc.base, inputs, 3, 0, false, &merged);
        test_alloc_fail(&alloc, 0, false);
        for (int i = 0; i < 3; i++) {
            tombstones_free(sets[i]);
        }
        tombstones_free(merged);
        assert_int_equal(alloc.live_blocks, 0);
        if (status == STATUS_OK) {
            assert_in_range(n, 10, 30);
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tombstones_of_any_list_answer_as_the_model),
        cmocka_unit_test(test_tombstones_merged_keep_what_reads_above_the_horizon_need),
        cmocka_unit_test(test_tombstones_that_touch_and_are_of_one_time_are_one_fragment),
        cmocka_unit_test(test_tombstone_mark_covers_only_what_is_older),
        cmocka_unit_test(test_tombstones_empty_and_null_sets_cover_nothing),
        cmocka_unit_test(test_tombstones_failed_allocations_leak_nothing),
    };
    make_keys();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
