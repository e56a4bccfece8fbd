/*
 * The simulator's judge of logs as they change. Breaks if an entry that was replaced under its own index and term, or
 * that follows another one in another log, isn't noticed; if a leader may cut or rewrite what it has; or if what is
 * right is complained of: a log that begins behind a trimmed entry, a former leader that is cut.
 */
#include "tests/sim/cluster.h"
#include "tests/sim/matching.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_matching_entry_of_another_size_is_noticed(void **state) {
    (void)state;
    struct matching matching;
    matching_init(&matching);
    assert_true(matching_entry(&matching, 1, 1, 0, 100));
    assert_true(matching_entry(&matching, 1, 1, 0, 100));
    assert_true(matching_entry(&matching, 1, 2, 0, 200)); /* another term: another entry */
    assert_false(matching_entry(&matching, 1, 1, 0, 101));
    assert_false(matching_entry(&matching, 1, 2, 0, 100));
    matching_deinit(&matching);
}

static void test_matching_entry_behind_another_one_is_noticed(void **state) {
    (void)state;
    struct matching matching;
    matching_init(&matching);
    assert_true(matching_entry(&matching, 5000, 7, 3, 100));
    assert_false(matching_entry(&matching, 5000, 7, 4, 100));
    assert_true(matching_entry(&matching, 5000, 7, 3, 100)); /* what was seen first stays */
    matching_deinit(&matching);
}

static void test_matching_entry_behind_a_trimmed_one_fits_any_until_it_is_known(void **state) {
    (void)state;
    struct matching matching;
    matching_init(&matching);
    assert_true(matching_entry(&matching, 9, 7, MATCHING_UNKNOWN, 100));
    assert_true(matching_entry(&matching, 9, 7, 3, 100));
    assert_true(matching_entry(&matching, 9, 7, MATCHING_UNKNOWN, 100));
    assert_false(matching_entry(&matching, 9, 7, 4, 100));
    assert_false(matching_entry(&matching, 9, 7, MATCHING_UNKNOWN, 99));
    matching_deinit(&matching);
}

static void test_matching_leader_appends_at_its_end_only(void **state) {
    (void)state;
    struct matching_log log = {.led_term = 0};
    assert_true(matching_leader(&log, false, 1, 1, 9));
    assert_true(matching_leader(&log, false, 1, 5, 5)); /* a follower may be cut */
    assert_true(matching_leader(&log, true, 2, 6, 6));  /* elected */
    assert_true(matching_leader(&log, true, 2, 0, 6));
    assert_true(matching_leader(&log, true, 2, 7, 9));
    assert_false(matching_leader(&log, true, 2, 9, 9)); /* the last one again */
    assert_false(matching_leader(&log, true, 2, 0, 8)); /* shorter, without a word */
    assert_false(matching_leader(&log, true, 2, 10, 10));
    assert_true(matching_leader(&log, true, 2, 11, 11));
    assert_true(matching_leader(&log, false, 3, 4, 4)); /* it gave way in this step */
    assert_true(matching_leader(&log, true, 4, 5, 5));
}

/* A whole run of a healthy cluster has something to look at, and nothing to complain of. */
static void test_matching_sees_what_a_cluster_does(void **state) {
    (void)state;
    struct plan_mask mask;
    memset(&mask, 0xff, sizeof mask);
    struct cluster *cluster = cluster_new(2);
    cluster->mask = &mask;
    assert_true(cluster_run(cluster));
    assert_true(cluster->matching.capacity > 0 && cluster->matching.by_index != NULL);
    for (uint64_t index = 1; index <= cluster->committed_index; index++) {
        assert_non_null(cluster->matching.by_index[index]);
        /* It knows them as they are: with another size they would be complained of. */
        assert_false(matching_entry(&cluster->matching, index, cluster->committed_terms[index], MATCHING_UNKNOWN, 1));
    }
    cluster_free(cluster);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matching_entry_of_another_size_is_noticed),
        cmocka_unit_test(test_matching_entry_behind_another_one_is_noticed),
        cmocka_unit_test(test_matching_entry_behind_a_trimmed_one_fits_any_until_it_is_known),
        cmocka_unit_test(test_matching_leader_appends_at_its_end_only),
        cmocka_unit_test(test_matching_sees_what_a_cluster_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
