/*
 * Which log this is (wal_recovered.incarnation; hazard 41, DESIGN rule 14).
 *
 * Breaks if a new log has no incarnation, or the one that was there before; if a log loses its own by restarts,
 * crashes, new segments, deletion of old ones, a reset, or damage that leaves one good header; if one that lost all
 * headers keeps it; or if segments of different logs pass for one.
 */
#include "node/base/checksum.h"
#include "tests/unit/support/support.h"
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { AT_INCARNATION = 64 };

static const uint64_t header_seed = 0x686f6c6466736567;

static uint64_t reopen(struct harness *harness) {
    if (harness->wal != NULL) {
        harness_close(harness);
    }
    harness_up(harness);
    return harness->recovered.incarnation;
}

static void test_h41_log_keeps_its_incarnation(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct harness *harness = harness_new(seed);
        uint64_t incarnation = reopen(harness);
        assert_true(incarnation != 0);
        assert_true(reopen(harness) == incarnation);
        harness_write(harness, 1, 120, 1); /* three segments */
        harness_crash(harness);
        assert_true(reopen(harness) == incarnation);
        harness->frontier = (struct wal_frontier){.index = 120, .term = 1};
        wal_set_applied(harness->wal, 120);
        wal_set_floor(harness->wal, 120, 120);
        harness_write(harness, 121, 240, 1);
        fake_settle(harness->fake);
        assert_true(wal_first_index(harness->wal) > 1); /* the first segment is gone */
        assert_true(reopen(harness) == incarnation);
        harness->frontier = (struct wal_frontier){.index = 900, .term = 1};
        assert_true(reopen(harness) == incarnation); /* the log was void, and isn't another for that */
        assert_int_equal(harness->recovered.last_index, 900);
        assert_true(reopen(harness) == incarnation);
        harness_free(harness);
    }
}

static void test_h41_emptied_directory_gets_another_incarnation(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    uint64_t before = reopen(harness);
    harness_close(harness);
    harness->fake->seen.count = 0;
    harness->fake->durable.count = 0;
    uint64_t after = reopen(harness);
    assert_true(after != 0 && after != before);
    assert_int_equal(harness->recovered.last_index, 0);
    assert_true(reopen(harness) == after);
    harness_free(harness);
    const struct wal_frontier base = {.index = 12, .term = 3};
    harness = harness_new(5); /* a log that is made for a store without one is another, too */
    harness->frontier = base;
    assert_int_equal(wal_create(&harness->options, &base, 3, &harness->error), STATUS_OK);
    uint64_t made = reopen(harness);
    assert_true(made != 0 && made != before && made != after);
    assert_true(reopen(harness) == made);
    harness_free(harness);
}

/* Entries in one segment, and a prepared one or not. */
static struct harness *heals(bool keeps_prepared) {
    struct harness *harness = harness_ten_groups();
    harness_close(harness);
    harness->options.heals = true;
    if (!keeps_prepared) {
        fake_take(&harness->fake->seen, harness_segment(2));
        fake_take(&harness->fake->durable, harness_segment(2));
    }
    return harness;
}

static void test_h41_damaged_log_keeps_its_incarnation(void **state) {
    (void)state;
    for (int header = 0; header < 2; header++) {
        struct harness *harness = heals(header == 1);
        uint64_t before = harness->recovered.incarnation;
        harness_flip(harness_inode(harness, 1), header == 1 ? 20 : harness_group_offset(3) + 700, 3);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_true(harness->recovered.fault.present && harness->recovered.heal_index == 10);
        assert_true(before != 0 && harness->recovered.incarnation == before);
        assert_true(reopen(harness) == before);
        harness_free(harness);
    }
}

/* Term and vote are still told by the groups; whose they are, nothing tells. */
static void test_h41_log_without_a_good_header_comes_back_as_another(void **state) {
    (void)state;
    struct harness *harness = heals(false);
    uint64_t before = harness->recovered.incarnation;
    harness_flip(harness_inode(harness, 1), 20, 3);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(harness->recovered.heal_index, 10);
    assert_int_equal(harness->recovered.term, 4);
    assert_int_equal(harness->recovered.vote, 2);
    uint64_t after = harness->recovered.incarnation;
    assert_true(after != 0 && after != before);
    assert_true(reopen(harness) == after);
    harness_free(harness);
}

static void test_h41_segments_of_two_logs_are_refused(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_close(harness);
    struct fake_inode *inode = harness_inode(harness, 2);
    put_u64(inode->seen + AT_INCARNATION, harness->recovered.incarnation + 1);
    put_u64(inode->seen + WAL_SEGMENT_HEADER_BYTES - 8,
            checksum64(inode->seen, WAL_SEGMENT_HEADER_BYTES - 8, header_seed));
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    assert_non_null(strstr(harness->error.message, "0000000000000002.log belongs to incarnation "));
    harness->wal = NULL;
    harness_free(harness);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h41_log_keeps_its_incarnation),
        cmocka_unit_test(test_h41_emptied_directory_gets_another_incarnation),
        cmocka_unit_test(test_h41_damaged_log_keeps_its_incarnation),
        cmocka_unit_test(test_h41_log_without_a_good_header_comes_back_as_another),
        cmocka_unit_test(test_h41_segments_of_two_logs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
