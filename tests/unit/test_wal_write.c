/*
 * Appending, sealing, the one write in flight, completion, cuts, the tail in memory.
 *
 * What would break these: a second write or any other file touched per group; a group that goes out before the previous
 * one is synced; records of one turn split over several groups; a synced index that counts cut records; a mark that
 * follows a mark.
 */
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct wal__group_header last_header(struct harness *harness) {
    struct wal__group_header header;
    CHECK(wal__group_header_decode(harness->fake->last_write->data, &header) == STATUS_OK);
    return header;
}

/* ---- Groups ----------------------------------------------------------------------------------------------------- */

static void test_wal_append_one_group_is_one_write(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    struct fake_counts before = harness->fake->counts;
    for (uint64_t index = 1; index <= 10; index++) {
        harness_append_ok(harness, index, index, 1);
        fake_turn(harness->fake);
        assert_true(fake_end_io(harness->fake, 0));
        fake_turn(harness->fake);
        assert_int_equal(wal_synced_index(harness->wal), index);
    }
    struct fake_counts after = harness->fake->counts;
    assert_int_equal(after.dsync_writes - before.dsync_writes, 10);
    assert_int_equal(after.calls - before.calls, 10); /* no other file, no sync, no directory */
    assert_int_equal(harness->synced_calls, 10);
    harness_free(harness);
}

static void test_wal_append_in_one_turn_joins_one_group(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    for (uint64_t index = 1; index <= 20; index++) {
        assert_int_equal(harness_append_len(harness, index, 1, 100), STATUS_OK);
    }
    wal_set_state(harness->wal, 1, 7);
    assert_int_equal(harness->fake->counts.dsync_writes, 0); /* nothing before the turn's end */
    fake_turn(harness->fake);
    assert_int_equal(harness->fake->counts.dsync_writes, 1);
    struct wal__group_header header = last_header(harness);
    assert_int_equal(header.record_count, 20);
    assert_int_equal(header.term, 1);
    assert_int_equal(header.vote, 7);
    assert_int_equal(harness->fake->last_write->len, wal__padded(header.total_bytes));
    fake_settle(harness->fake);
    assert_int_equal(harness->synced_calls, 1);
    assert_int_equal(harness->synced.last_index, 20);
    assert_int_equal(harness->synced.last_term, 1);
    assert_int_equal(harness->synced.vote, 7);
    assert_true(wal_is_idle(harness->wal));
    harness_free(harness);
}

/* h22: nothing counts before its own sync is done. */
static void test_h22_synced_index_waits_for_completion(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness_append_ok(harness, 1, 3, 1);
    fake_turn(harness->fake);
    harness_append_ok(harness, 4, 6, 1);
    for (int i = 0; i < 5; i++) {
        fake_turn(harness->fake);
    }
    assert_int_equal(harness->fake->counts.dsync_writes, 1); /* one in flight, the next only forms */
    assert_int_equal(wal_synced_index(harness->wal), 0);
    assert_int_equal(harness->synced_calls, 0);
    assert_false(wal_is_idle(harness->wal));
    assert_true(fake_end_io(harness->fake, 0));
    fake_turn(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), 3);
    assert_int_equal(harness->fake->counts.dsync_writes, 2); /* what gathered, in the same turn */
    assert_int_equal(last_header(harness).record_count, 3);
    assert_int_equal(last_header(harness).synced_index, 3);
    fake_settle(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), 6);
    harness_free(harness);
}

static void test_wal_append_beyond_group_limit_starts_next_group(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness->options.group_bytes_max = 8192;
    harness_up(harness);
    for (uint64_t index = 1; index <= 9; index++) {
        assert_int_equal(harness_append_len(harness, index, 1, 2000), STATUS_OK);
    }
    assert_int_equal(harness_append_len(harness, 10, 1, HARNESS_ENTRY_MAX), STATUS_OK); /* a group of its own */
    assert_int_equal(harness_append_len(harness, 11, 1, 10), STATUS_OK);
    uint32_t counts[5] = {3, 3, 3, 1, 1};
    for (int i = 0; i < 5; i++) {
        fake_turn(harness->fake);
        assert_int_equal(last_header(harness).record_count, counts[i]);
        assert_true(fake_end_io(harness->fake, 0));
    }
    fake_settle(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), 11);
    assert_int_equal(harness_append_len(harness, 12, 1, HARNESS_ENTRY_MAX + 1), STATUS_TOO_LARGE);
    harness_free(harness);
}

static void test_wal_append_foreign_record_is_copied_as_it_is(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    uint8_t bytes[WAL_RECORD_HEADER_BYTES + 5] = {0};
    memcpy(bytes + WAL_RECORD_HEADER_BYTES, "hello", 5);
    wal_record_seal(bytes, 200, 1, 4, 5);
    struct slice cursor = slice_of(bytes, sizeof bytes);
    struct wal_record record;
    assert_int_equal(wal_record_decode(&cursor, &record, NULL), STATUS_OK);
    assert_int_equal(wal_append(harness->wal, &record), STATUS_OK);
    fake_settle(harness->fake);
    struct wal_record cached;
    assert_int_equal(wal_cached_record(harness->wal, 1, &cached), STATUS_OK);
    assert_true(slice_equal(cached.bytes, slice_of(bytes, sizeof bytes)));
    const uint8_t *disk = harness_inode(harness, 1)->durable + WAL_FIRST_RECORDS_OFFSET + WAL_GROUP_HEADER_BYTES;
    assert_memory_equal(disk, bytes, sizeof bytes);
    harness_free(harness);
}

/* ---- Term and vote ---------------------------------------------------------------------------------------------- */

static void test_wal_set_state_writes_without_records(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    wal_set_state(harness->wal, 5, 2);
    wal_set_state(harness->wal, 5, 2);
    fake_settle(harness->fake);
    assert_int_equal(harness->synced_calls, 1);
    assert_int_equal(harness->synced.term, 5);
    assert_int_equal(harness->synced.vote, 2);
    assert_int_equal(harness->synced.last_index, 0);
    wal_set_state(harness->wal, 5, 2); /* no change, no write */
    fake_settle(harness->fake);
    assert_int_equal(harness->synced_calls, 1);
    /* A change while one is in flight waits for the next. */
    wal_set_state(harness->wal, 6, 0);
    fake_turn(harness->fake);
    wal_set_state(harness->wal, 7, 3);
    fake_settle(harness->fake);
    assert_int_equal(harness->synced_calls, 3);
    assert_int_equal(harness->synced.term, 7);
    harness_free(harness);
}

static void test_wal_commit_rides_along_and_never_beyond_the_group(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness_append_ok(harness, 1, 4, 1);
    fake_turn(harness->fake);
    harness_append_ok(harness, 5, 6, 1);
    wal_set_commit(harness->wal, 6); /* a quorum of others */
    assert_int_equal(last_header(harness).commit_index, 0);
    assert_true(fake_end_io(harness->fake, 0));
    fake_turn(harness->fake);
    assert_int_equal(last_header(harness).commit_index, 6);
    fake_settle(harness->fake);
    assert_int_equal(harness->synced_calls, 2);
    uint64_t writes = harness->fake->counts.dsync_writes;
    wal_set_commit(harness->wal, 6);
    fake_settle(harness->fake);
    assert_int_equal(harness->fake->counts.dsync_writes, writes); /* never a reason to write */
    harness_free(harness);
}

/* ---- Marks ------------------------------------------------------------------------------------------------------ */

static void test_wal_mark_follows_idle_time_once(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness->options.mark_delay_us = 50000;
    harness_up(harness);
    harness_write(harness, 1, 2, 1);
    harness->fake->now_us += 49000;
    harness_write(harness, 3, 3, 1); /* not idle */
    harness->fake->now_us += 2000;
    fake_settle(harness->fake);
    assert_int_equal(harness->wal->stats.triggers[WAL_TRIGGER_MARK], 0);
    harness->fake->now_us += 50000;
    fake_settle(harness->fake);
    assert_int_equal(harness->wal->stats.triggers[WAL_TRIGGER_MARK], 1);
    assert_int_equal(last_header(harness).flags, WAL__GROUP_MARK);
    for (int i = 0; i < 5; i++) { /* a mark is no reason for a mark */
        harness->fake->now_us += 1000000;
        fake_settle(harness->fake);
    }
    assert_int_equal(harness->wal->stats.triggers[WAL_TRIGGER_MARK], 1);
    wal_set_state(harness->wal, 9, 9); /* somebody relies on it */
    fake_settle(harness->fake);
    harness->fake->now_us += 50000;
    fake_settle(harness->fake);
    assert_int_equal(harness->wal->stats.triggers[WAL_TRIGGER_MARK], 2);
    harness_free(harness);
}

/* ---- Cutting ---------------------------------------------------------------------------------------------------- */

/* h19: a cut while the group with the old suffix is in flight. */
static void test_h19_cut_of_group_in_flight_does_not_count(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness_write(harness, 1, 2, 1);
    harness_append_ok(harness, 3, 8, 1);
    fake_turn(harness->fake); /* 3..8 in flight */
    harness_append_ok(harness, 5, 6, 2);
    assert_int_equal(wal_last_index(harness->wal), 6);
    assert_int_equal(wal_synced_index(harness->wal), 2);
    assert_true(fake_end_io(harness->fake, 0));
    fake_turn(harness->fake);
    assert_int_equal(harness->synced.last_index, 8); /* as written: raft knows that (8, 1) is gone */
    assert_int_equal(harness->synced.last_term, 1);
    assert_int_equal(wal_synced_index(harness->wal), 4); /* what of it still counts */
    fake_settle(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), 6);
    struct wal_record record;
    assert_int_equal(wal_cached_record(harness->wal, 4, &record), STATUS_OK);
    assert_int_equal(record.term, 1);
    assert_int_equal(wal_cached_record(harness->wal, 5, &record), STATUS_OK);
    assert_int_equal(record.term, 2);
    assert_int_equal(wal_cached_record(harness->wal, 7, &record), STATUS_NOT_FOUND);
    harness_free(harness);
}

static void test_h19_cut_of_all_in_flight_leaves_synced_where_it_was(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness_write(harness, 1, 5, 1);
    harness_append_ok(harness, 6, 8, 1);
    fake_turn(harness->fake);
    harness_append_ok(harness, 4, 4, 3); /* below what is in flight: synced goes down at once */
    assert_int_equal(wal_synced_index(harness->wal), 3);
    assert_true(fake_end_io(harness->fake, 0));
    fake_turn(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), 3);
    fake_settle(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), 4);
    harness_crash(harness);
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, 4);
    harness_free(harness);
}

static void test_wal_cut_of_forming_records_forgets_them(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness->options.group_bytes_max = 8192;
    harness_up(harness);
    for (uint64_t index = 1; index <= 12; index++) { /* four groups wait */
        assert_int_equal(harness_append_len(harness, index, 1, 2000), STATUS_OK);
    }
    assert_int_equal(harness_append_len(harness, 5, 2, 700), STATUS_OK);
    assert_int_equal(harness_append_len(harness, 6, 2, 700), STATUS_OK);
    fake_settle(harness->fake);
    assert_int_equal(wal_synced_index(harness->wal), 6);
    assert_int_equal(harness->wal->stats.records, 6); /* the cut ones were never written */
    harness_crash(harness);
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_replay(harness);
    assert_int_equal(harness->terms[4], 1);
    assert_int_equal(harness->terms[5], 2);
    assert_int_equal(wal_last_index(harness->wal), 6);
    harness_free(harness);
}

/* ---- Cache ------------------------------------------------------------------------------------------------------ */

static void test_wal_cached_gives_whole_records_across_groups(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    for (uint64_t index = 1; index <= 30; index++) {
        assert_int_equal(harness_append_len(harness, index, 1, 68), STATUS_OK); /* 100 bytes each */
        if (index % 10 == 0) {
            fake_turn(harness->fake); /* 1..10 in flight, 11..30 forming */
        }
    }
    struct slice parts[4];
    size_t part_count;
    assert_int_equal(wal_cached(harness->wal, 5, 100, 1u << 20, parts, 4, &part_count), 26);
    assert_int_equal(part_count, 2);
    assert_int_equal(parts[0].len, 600);
    assert_int_equal(parts[1].len, 2000);
    uint64_t index = 5;
    for (size_t i = 0; i < part_count; i++) {
        struct slice cursor = parts[i];
        while (cursor.len > 0) {
            struct wal_record record;
            if (i == 1 && index == 30) {
                break;
            }
            assert_int_equal(wal_record_decode(&cursor, &record, NULL), STATUS_OK);
            assert_true(harness_is_right(&record, index++, 1, 68));
        }
    }
    assert_int_equal(wal_cached(harness->wal, 5, 100, 350, parts, 4, &part_count), 3);
    assert_int_equal(wal_cached(harness->wal, 5, 2, 350, parts, 4, &part_count), 2);
    assert_int_equal(wal_cached(harness->wal, 5, 2, 10, parts, 4, &part_count), 1); /* the first goes anyhow */
    assert_int_equal(wal_cached(harness->wal, 9, 100, 350, parts, 4, &part_count), 3);
    assert_int_equal(part_count, 2);
    assert_int_equal(wal_cached(harness->wal, 9, 100, 350, parts, 1, &part_count), 2);
    assert_int_equal(wal_cached(harness->wal, 31, 100, 350, parts, 1, &part_count), 0);
    fake_settle(harness->fake);
    harness_free(harness);
}

static void test_wal_cache_drops_only_what_is_applied(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness->options.cache_bytes_max = 16 * 1024;
    harness_up(harness);
    harness_write(harness, 1, 20, 1);
    struct wal_record record;
    assert_int_equal(wal_cached_record(harness->wal, 1, &record), STATUS_OK); /* far beyond the budget */
    wal_set_commit(harness->wal, 20);
    wal_set_applied(harness->wal, 10);
    assert_int_equal(wal_cached_record(harness->wal, 1, &record), STATUS_NOT_FOUND);
    assert_int_equal(wal_cached_record(harness->wal, 10, &record), STATUS_OK); /* within it */
    assert_int_equal(wal_cached_record(harness->wal, 11, &record), STATUS_OK);
    harness_free(harness);
}

/* ---- Closing ---------------------------------------------------------------------------------------------------- */

static void test_wal_close_waits_for_write_and_jobs(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_start(harness); /* a job is under way */
    harness_append_ok(harness, 1, 1, 1);
    fake_turn(harness->fake);
    wal_close(harness->wal, harness_closed, harness);
    for (int i = 0; i < 3; i++) {
        fake_turn(harness->fake);
    }
    assert_false(harness->closed);
    assert_true(fake_end_io(harness->fake, 0));
    fake_turn(harness->fake);
    assert_false(harness->closed);
    fake_settle(harness->fake);
    assert_true(harness->closed);
    assert_int_equal(harness->synced_calls, 0); /* no callbacks any more */
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, 1);
    harness_free(harness);
}

static void close_in_callback(struct harness *harness) { wal_close(harness->wal, harness_closed, harness); }

static void test_wal_close_from_a_callback_is_fine(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness->on_synced = close_in_callback;
    harness_append_ok(harness, 1, 1, 1);
    fake_settle(harness->fake);
    assert_true(harness->closed);
    assert_int_equal(harness->synced_calls, 1);
    harness_free(harness);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_append_one_group_is_one_write),
        cmocka_unit_test(test_wal_append_in_one_turn_joins_one_group),
        cmocka_unit_test(test_h22_synced_index_waits_for_completion),
        cmocka_unit_test(test_wal_append_beyond_group_limit_starts_next_group),
        cmocka_unit_test(test_wal_append_foreign_record_is_copied_as_it_is),
        cmocka_unit_test(test_wal_set_state_writes_without_records),
        cmocka_unit_test(test_wal_commit_rides_along_and_never_beyond_the_group),
        cmocka_unit_test(test_wal_mark_follows_idle_time_once),
        cmocka_unit_test(test_h19_cut_of_group_in_flight_does_not_count),
        cmocka_unit_test(test_h19_cut_of_all_in_flight_leaves_synced_where_it_was),
        cmocka_unit_test(test_wal_cut_of_forming_records_forgets_them),
        cmocka_unit_test(test_wal_cached_gives_whole_records_across_groups),
        cmocka_unit_test(test_wal_cache_drops_only_what_is_applied),
        cmocka_unit_test(test_wal_close_waits_for_write_and_jobs),
        cmocka_unit_test(test_wal_close_from_a_callback_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
