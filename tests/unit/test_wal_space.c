/*
 * When something runs out or fails: segments, the disk, memory, the write itself.
 *
 * What would break these: a failed write that is tried again; records in the space kept for term and vote; a full disk
 * that a node can't start on; a failed append that leaves traces; a busy log that allocates, or one that reserves
 * without end.
 */
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- Segments --------------------------------------------------------------------------------------------------- */

static void test_wal_full_segment_continues_in_prepared_one(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    assert_int_equal(wal_set_membership(harness->wal, slice_of_string("abc")), STATUS_OK);
    harness_write(harness, 1, 100, 1); /* a block each at least: more than one segment's 53 */
    struct wal_stats stats;
    wal_get_stats(harness->wal, &stats);
    assert_true(stats.segments >= 3);
    harness_crash(harness);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(slice_equal(harness->recovered.membership, slice_of_string("abc")));
    harness_replay(harness);
    assert_int_equal(harness->replayed, 100);
    harness_free(harness);
}

static void test_wal_full_segment_waits_for_slow_preparation(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_start(harness);
    uint64_t index = 1; /* the job that prepares never runs */
    while (wal__room(harness->wal, harness->wal->active) >= 8192) {
        assert_int_equal(harness_append_len(harness, index++, 1, 4000), STATUS_OK);
        fake_turn(harness->fake);
        assert_true(fake_end_io(harness->fake, 0));
        fake_turn(harness->fake);
    }
    assert_int_equal(harness_append_len(harness, index, 1, 4000), STATUS_OK); /* not an error */
    fake_turn(harness->fake);
    assert_true(list_is_empty(&harness->fake->ios));
    wal_set_state(harness->wal, 3, 3); /* term and vote don't wait */
    fake_turn(harness->fake);
    assert_true(fake_end_io(harness->fake, 0));
    fake_turn(harness->fake);
    assert_int_equal(harness->synced.term, 3);
    assert_int_equal(wal_synced_index(harness->wal), index - 1);
    fake_settle(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), index);
    harness_free(harness);
}

/* h31: a full disk refuses records with a type, keeps term and vote going, and heals by itself. */
static void test_h31_disk_full_refuses_records_and_keeps_state(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness->fake->disk_bytes_max = fake_used_bytes(harness->fake);
    uint64_t index = 1;
    enum status status;
    while ((status = harness_append_len(harness, index, 1, 4000)) == STATUS_OK) {
        index++;
        fake_settle(harness->fake);
    }
    assert_int_equal(status, STATUS_NO_SPACE);
    assert_int_equal(wal_reserve(harness->wal, 4000, 1), STATUS_NO_SPACE);
    assert_int_equal(harness->prepare_bad_calls, 1);
    assert_int_equal(harness->error.code, STATUS_NO_SPACE);
    assert_int_equal(wal_last_index(harness->wal), index - 1);
    assert_int_equal(wal_synced_index(harness->wal), index - 1); /* all that was accepted */
    for (uint64_t term = 2; term <= 8; term++) {
        wal_set_state(harness->wal, term, term % 3);
        fake_settle(harness->fake);
        assert_int_equal(harness->synced.term, term);
    }
    harness->fake->now_us += WAL_PREPARE_RETRY_US;
    fake_settle(harness->fake);
    assert_int_equal(harness->prepare_bad_calls, 1); /* told once */
    harness->fake->disk_bytes_max = 0;
    harness->fake->now_us += WAL_PREPARE_RETRY_US;
    fake_settle(harness->fake);
    assert_int_equal(harness->prepare_good_calls, 1);
    assert_int_equal(harness_append_len(harness, index, 8, 4000), STATUS_OK);
    fake_settle(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), index);
    assert_int_equal(harness->failed_calls, 0);
    harness_free(harness);
}

/* h31: it also starts again on a full disk, with what is prepared. */
static void test_h31_disk_full_restarts(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness_write(harness, 1, 3, 1);
    harness_close(harness);
    harness->fake->disk_bytes_max = fake_used_bytes(harness->fake);
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, 3);
    harness_write(harness, 4, 5, 1);
    harness_free(harness);
}

/* h31: without a prepared segment and room for one, too: again and again, until there is space. */
static void test_h31_disk_full_restarts_without_room_for_a_segment(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness->fake->disk_bytes_max = fake_used_bytes(harness->fake);
    uint64_t index = 1;
    while (harness_append_len(harness, index, 1, 4000) == STATUS_OK) {
        index++;
        fake_settle(harness->fake);
    }
    for (uint64_t term = 2; term <= 8; term++) {
        harness_close(harness);
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, index - 1);
        assert_int_equal(harness->recovered.term, term == 2 ? 0 : term - 1);
        wal_set_state(harness->wal, term, 1);
        fake_settle(harness->fake);
        assert_int_equal(harness->synced.term, term);
        assert_int_equal(harness_append_len(harness, index, term, 4000), STATUS_NO_SPACE);
    }
    /* The log is trimmed, and that is enough. */
    wal_set_commit(harness->wal, index - 1);
    wal_set_applied(harness->wal, index - 1);
    wal_set_floor(harness->wal, index - 1, UINT64_MAX);
    fake_settle(harness->fake);
    harness->fake->now_us += WAL_PREPARE_RETRY_US;
    fake_settle(harness->fake);
    assert_int_equal(harness_append_len(harness, index, 8, 4000), STATUS_OK);
    fake_settle(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), index);
    harness_free(harness);
}

static void test_wal_prepare_fault_hook_is_told_and_retried(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(fault_arm(&harness->fake->faults, "wal.segment.prepare=error(EIO)", NULL), STATUS_OK);
    harness_start(harness);
    fake_settle(harness->fake);
    assert_int_equal(harness->prepare_bad_calls, 1);
    harness_write(harness, 1, 3, 1); /* what is there still serves */
    fault_disarm(&harness->fake->faults, FAULT_WAL_SEGMENT_PREPARE);
    harness->fake->now_us += WAL_PREPARE_RETRY_US;
    fake_settle(harness->fake);
    assert_int_equal(harness->prepare_good_calls, 1);
    harness_free(harness);
}

/* ---- Failure ---------------------------------------------------------------------------------------------------- */

/* h27: a write or sync that failed is never tried again. */
static void test_h27_failed_write_is_final(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness_write(harness, 1, 2, 1);
    harness_append_ok(harness, 3, 4, 1);
    fake_turn(harness->fake);
    harness_append_ok(harness, 5, 5, 1);
    assert_true(fake_end_io(harness->fake, EIO));
    uint64_t writes = harness->fake->counts.dsync_writes;
    fake_settle(harness->fake);
    harness->fake->now_us += 10000000;
    fake_settle(harness->fake);
    assert_int_equal(harness->failed_calls, 1);
    assert_int_equal(harness->error.sys, EIO);
    assert_int_equal(harness->fake->counts.dsync_writes, writes);
    assert_int_equal(wal_synced_index(harness->wal), 2);
    assert_int_equal(harness->synced_calls, 2);
    uint8_t *payload;
    assert_int_equal(wal_append_begin(harness->wal, 6, 1, 3, 1, &payload), STATUS_FAILED);
    assert_int_equal(wal_reserve(harness->wal, 100, 1), STATUS_FAILED);
    assert_int_equal(wal_set_membership(harness->wal, slice_of_string("x")), STATUS_FAILED);
    wal_set_state(harness->wal, 9, 9);
    fake_settle(harness->fake);
    assert_int_equal(harness->fake->counts.dsync_writes, writes);
    harness_free(harness);
}

/* h27 across lives: what a failed sync left in the page cache looks good to the next opening, whose sync succeeds
 * without writing it. Breaks if an opening builds on a segment whose first sync failed. */
static void test_h27_segment_whose_first_sync_failed_is_not_built_upon(void **state) {
    (void)state;
    uint64_t failed = 0;
    uint64_t number = 1;
    for (uint64_t seed = 1;; seed++) { /* what the power loss keeps is drawn: several times for each sync */
        struct harness *harness = harness_new(seed);
        harness_up(harness);
        harness_write(harness, 1, 3, 1);
        harness_close(harness);
        harness->fake->failing_sync = harness->fake->counts.syncs + number;
        enum status status = harness_open(harness);
        harness->fake->failing_sync = 0;
        if (status == STATUS_OK) { /* an opening has fewer syncs */
            harness_free(harness);
            break;
        }
        assert_int_equal(status, STATUS_IO);
        failed++;
        harness_up(harness);
        harness_write(harness, 4, 5, 1);
        harness_crash(harness);
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, 5);
        harness_free(harness);
        number += seed % 16 == 0;
    }
    assert_true(failed >= 32);
}

static void test_wal_failure_is_told_once(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(fault_arm(&harness->fake->faults, "wal.segment.prepare=error(EIO),count=1", NULL), STATUS_OK);
    harness_start(harness);
    fake_settle(harness->fake);
    assert_int_equal(harness->prepare_bad_calls, 1);
    harness->fake->now_us += WAL_PREPARE_RETRY_US;
    harness_append_ok(harness, 1, 1, 1);
    fake_turn(harness->fake); /* a write and a job are under way */
    assert_true(fake_end_io(harness->fake, EIO));
    fake_turn(harness->fake);
    fake_turn(harness->fake);
    assert_int_equal(harness->failed_calls, 1);
    fake_settle(harness->fake); /* the job ends well: that is news, too */
    assert_int_equal(harness->failed_calls, 1);
    harness_free(harness);
}

static void test_wal_write_fault_hook_fails_the_log(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    assert_int_equal(fault_arm(&harness->fake->faults, "wal.write=error(ENOSPC)", NULL), STATUS_OK);
    harness_append_ok(harness, 1, 1, 1);
    fake_settle(harness->fake);
    assert_int_equal(harness->failed_calls, 1);
    harness_free(harness);
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

static void test_wal_append_without_memory_changes_nothing(void **state) {
    (void)state;
    bool failed_once = false;
    for (uint64_t n = 1; n < 12; n++) {
        struct harness *harness = harness_new(1);
        harness_up(harness);
        harness_write(harness, 1, 3, 1);
        harness_append_ok(harness, 4, 6, 1);
        fake_turn(harness->fake);
        harness_append_ok(harness, 7, 8, 1);
        uint64_t last = wal_last_index(harness->wal);
        uint64_t synced = wal_synced_index(harness->wal);
        bool cutting = n % 2 == 0;
        test_alloc_fail(&harness->fake->memory, n / 2 + 1, false);
        uint64_t index = cutting ? 3 : 9;
        enum status status = harness_append_len(harness, index, 2, HARNESS_ENTRY_MAX);
        test_alloc_fail(&harness->fake->memory, 0, false);
        if (status != STATUS_OK) {
            failed_once = true;
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_int_equal(wal_last_index(harness->wal), last);
            assert_int_equal(wal_synced_index(harness->wal), synced);
            assert_int_equal(harness_append_len(harness, index, 2, HARNESS_ENTRY_MAX), STATUS_OK);
        }
        fake_settle(harness->fake);
        assert_int_equal(wal_synced_index(harness->wal), index);
        harness_free(harness);
    }
    assert_true(failed_once);
}

static void test_wal_reserve_keeps_its_promise_without_memory(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    for (uint32_t round = 0; round < 40; round++) {
        uint64_t next = wal_last_index(harness->wal) + 1;
        uint32_t count = round % 5 == 4 ? 1 : round % 5 == 3 ? 90 : 30;
        size_t len = round % 5 == 4 ? HARNESS_ENTRY_MAX : 1000; /* 90 of them need two groups */
        assert_int_equal(wal_reserve(harness->wal, count * (len + WAL_RECORD_HEADER_BYTES), count), STATUS_OK);
        test_alloc_fail(&harness->fake->memory, 1, true);
        for (uint32_t i = 0; i < count; i++) {
            assert_int_equal(harness_append_len(harness, next + i, 1, len), STATUS_OK);
        }
        test_alloc_fail(&harness->fake->memory, 0, false);
        if (round % 3 == 0) {
            fake_turn(harness->fake);
        } else {
            fake_settle(harness->fake);
        }
    }
    harness_free(harness);
}

/* Consensus reserves for messages that then append nothing. */
static void test_wal_reserve_again_and_again_takes_no_more(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    uint64_t lent = 0;
    for (uint32_t round = 0; round < 200; round++) {
        uint32_t count = 1 + round * 7 % 40;
        assert_int_equal(wal_reserve(harness->wal, count * 4000, count), STATUS_OK);
        lent = harness->wal->pool.lent > lent ? harness->wal->pool.lent : lent;
    }
    assert_in_range(lent, 1, 8);
    harness_free(harness);
}

/* A busy log allocates nothing. */
static void test_wal_steady_state_allocates_nothing(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness->options.segment_bytes = 4 * 1024 * 1024;
    harness_up(harness);
    uint64_t index = 1;
    uint64_t attempts = 0;
    for (int round = 0; round < 400; round++) {
        if (round == 200) {
            attempts = harness->fake->memory.attempts;
        }
        for (int i = 0; i < 10; i++) {
            assert_int_equal(harness_append_len(harness, index++, 1, 200), STATUS_OK);
        }
        fake_turn(harness->fake);
        assert_true(fake_end_io(harness->fake, 0));
        fake_turn(harness->fake);
        wal_set_commit(harness->wal, index - 1);
        wal_set_applied(harness->wal, index - 1);
    }
    assert_int_equal(harness->fake->memory.attempts - attempts, 0);
    assert_true(harness->wal->cache.bytes <= 64 * 1024 + 16 * 1024);
    harness_free(harness);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_full_segment_continues_in_prepared_one),
        cmocka_unit_test(test_wal_full_segment_waits_for_slow_preparation),
        cmocka_unit_test(test_h31_disk_full_refuses_records_and_keeps_state),
        cmocka_unit_test(test_h31_disk_full_restarts),
        cmocka_unit_test(test_h31_disk_full_restarts_without_room_for_a_segment),
        cmocka_unit_test(test_wal_prepare_fault_hook_is_told_and_retried),
        cmocka_unit_test(test_h27_failed_write_is_final),
        cmocka_unit_test(test_h27_segment_whose_first_sync_failed_is_not_built_upon),
        cmocka_unit_test(test_wal_failure_is_told_once),
        cmocka_unit_test(test_wal_write_fault_hook_fails_the_log),
        cmocka_unit_test(test_wal_append_without_memory_changes_nothing),
        cmocka_unit_test(test_wal_reserve_keeps_its_promise_without_memory),
        cmocka_unit_test(test_wal_reserve_again_and_again_takes_no_more),
        cmocka_unit_test(test_wal_steady_state_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
