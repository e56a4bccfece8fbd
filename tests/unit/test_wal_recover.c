/*
 * Opening: what a log says after restarts and crashes, what becomes of its files, and how it fits the engine's
 * frontier.
 *
 * What would break these: term, vote or membership that go with old segments; a segment that is deleted although it is
 * needed; a half-made file that keeps a node from starting; a node without its log that starts as if it were new;
 * restarts that fill the disk.
 */
#include "node/base/checksum.h"
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- Simple cases ----------------------------------------------------------------------------------------------- */

static void test_wal_open_new_store_is_empty(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(harness->recovered.last_index, 0);
    assert_int_equal(harness->recovered.first_index, 1);
    assert_int_equal(harness->recovered.term, 0);
    assert_int_equal(harness->recovered.membership.len, 0);
    assert_false(harness->recovered.fault.present);
    harness_close(harness); /* also right after opening */
    harness_free(harness);
}

static void test_wal_open_again_finds_everything(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    uint64_t last = 0;
    for (uint64_t term = 1; term <= 6; term++) {
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, last);
        assert_int_equal(harness->recovered.term, term - 1);
        wal_set_state(harness->wal, term, term * 10);
        harness_append_ok(harness, last + 1, last + 20, term);
        fake_settle(harness->fake);
        wal_set_commit(harness->wal, last + 7);
        harness_append_ok(harness, last + 21, last + 22, term);
        fake_settle(harness->fake);
        harness_close(harness);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.commit, last + 7);
        assert_int_equal(harness->recovered.vote, term * 10);
        last += 22;
        harness_replay(harness);
        assert_int_equal(harness->replayed, last);
        assert_int_equal(harness->terms[last], term);
        harness_close(harness);
    }
    harness_free(harness);
}

static void test_wal_open_puts_uncommitted_tail_in_memory(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    harness_append_ok(harness, 1, 10, 1);
    fake_settle(harness->fake);
    wal_set_commit(harness->wal, 6);
    harness_append_ok(harness, 11, 15, 1);
    fake_settle(harness->fake);
    harness_append_ok(harness, 12, 13, 2); /* cuts */
    fake_settle(harness->fake);
    harness_crash(harness);
    harness_up(harness);
    assert_int_equal(harness->recovered.commit, 6);
    for (uint64_t index = 7; index <= 13; index++) {
        struct wal_record record;
        assert_int_equal(wal_cached_record(harness->wal, index, &record), STATUS_OK);
        assert_int_equal(record.term, index < 12 ? 1 : 2);
        assert_true(harness_is_right(&record, index, record.term, harness_payload_len(index, record.term)));
    }
    harness_write(harness, 14, 16, 2);
    harness_write(harness, 9, 9, 3); /* cuts what recovery loaded */
    harness_crash(harness);
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, 9);
    harness_free(harness);
}

static void test_wal_open_refuses_anothers_log(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_close(harness);
    harness->options.node_id = 8;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options.node_id = 7;
    harness->options.cluster_id[0] ^= 1;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options.cluster_id[0] ^= 1;
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_free(harness);
}

static void test_wal_open_refuses_newer_format(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_close(harness);
    struct fake_inode *inode = harness_inode(harness, 1);
    uint8_t saved[WAL_SEGMENT_HEADER_BYTES];
    memcpy(saved, inode->seen, sizeof saved);
    inode->seen[8] = 2;
    assert_int_equal(harness_open(harness), STATUS_OK); /* a flipped bit there is damage, ... */
    assert_true(harness->recovered.fault.present);
    harness_close(harness);
    memcpy(inode->seen, saved, sizeof saved);
    uint64_t seed = 0x686f6c6466736567;
    inode->seen[8] = 2; /* ... a sound header that says so is another format */
    put_u64(inode->seen + sizeof saved - 8, checksum64(inode->seen, sizeof saved - 8, seed));
    assert_int_equal(harness_open(harness), STATUS_UNSUPPORTED);
    memcpy(inode->seen, saved, sizeof saved);
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_free(harness);
}

static void test_wal_open_checks_options(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    struct wal_options sound = harness->options;
    harness->options.segment_bytes = 4 * HARNESS_ENTRY_MAX; /* four entries, but not their headers */
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options = sound;
    harness->options.segment_bytes += 512;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options = sound;
    harness->options.prepared_segments = 0;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options = sound;
    harness->options.group_bytes_max = (uint32_t)sound.segment_bytes;
    assert_int_equal(harness_open(harness), STATUS_INVALID);
    harness->options = sound;
    harness->options.segment_bytes = 72 * MIB; /* the default is enough for the largest entries */
    harness->options.entry_payload_bytes_max = LIMIT_ENTRY_PAYLOAD_BYTES;
    harness->options.group_bytes_max = LIMIT_GROUP_BYTES;
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_free(harness);
}

/* ---- Files that a crash left ------------------------------------------------------------------------------------ */

/* h42: whatever is left of a segment that was being made, the log opens. */
static void test_h42_half_made_segments_are_removed(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct harness *harness = harness_ten_groups();
        harness_close(harness);
        struct fake_inode *inode = harness_inode(harness, 2); /* the prepared one */
        if (kind == 0) {
            inode->size = 0;
        } else if (kind == 1) {
            inode->size = 1000;
        } else if (kind == 2) {
            memset(inode->seen, 0, 4096);
        } else {
            harness_flip(inode, 100, 1);
        }
        struct fake_inode *temporary = fake_inode_new(harness->fake);
        fake_grow(temporary, 12345);
        fake_put(&harness->fake->seen, "/wal/0000000000000003.log.tmp", temporary);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_false(harness->recovered.fault.present);
        assert_int_equal(harness->recovered.last_index, 10);
        assert_null(fake_file_at(harness->fake, "/wal/0000000000000003.log.tmp"));
        assert_null(fake_file_at(harness->fake, harness_segment(2)));
        assert_non_null(fake_file_at(harness->fake, harness_segment(3))); /* a number is never used twice */
        harness_start(harness);
        fake_settle(harness->fake);
        harness_write(harness, 11, 12, 4);
        harness_free(harness);
    }
}

static void test_h42_first_opening_interrupted_anywhere_opens(void **state) {
    (void)state;
    for (uint64_t calls = 1; calls < 20; calls++) {
        for (uint64_t seed = 1; seed <= 6; seed++) {
            struct harness *harness = harness_new(seed);
            harness->fake->dead_after = calls;
            if (harness_open(harness) == STATUS_OK) {
                harness_close(harness);
            }
            fake_lose_power(harness->fake);
            fake_reboot(harness->fake);
            harness->wal = NULL;
            harness_up(harness);
            assert_int_equal(harness->recovered.last_index, 0);
            harness_write(harness, 1, 2, 1);
            harness_free(harness);
        }
    }
}

/* h28: a segment is never written to before its name is durable. */
static void test_h28_directory_is_synced_before_a_segment_is_used(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct harness *harness = harness_new(seed);
        harness_up(harness);
        harness_write(harness, 1, 120, 1); /* three segments */
        harness_crash(harness);            /* unsynced names are lost at random */
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, 120);
        harness_free(harness);
    }
}

static void test_wal_prepared_segment_is_used_again(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_close(harness);
    assert_int_equal(harness->fake->seen.count, 2);
    uint64_t syncs = harness->fake->counts.renames;
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(harness->fake->counts.renames, syncs); /* none was made */
    assert_int_equal(harness->wal->active->number, 2);
    harness_free(harness);
}

/* A torn start group: its segment isn't written to again. */
static void test_wal_segment_with_torn_start_is_replaced(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_reopen(harness);
    assert_int_equal(harness->wal->active->number, 2);
    harness_close(harness);
    memset(harness_inode(harness, 2)->seen + WAL_SEGMENT_HEADER_BYTES, 0, FAKE_SECTOR);
    harness_inode(harness, 2)->seen[WAL_SEGMENT_HEADER_BYTES + 2 * FAKE_SECTOR] = 1; /* a later sector made it */
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.last_index, 10);
    assert_int_equal(harness->recovered.torn_bytes, 2 * WAL_BLOCK_BYTES); /* and the group carried behind it */
    assert_int_equal(harness->wal->active->number, 3);
    assert_null(fake_file_at(harness->fake, harness_segment(2)));
    harness_free(harness);
}

/* Restarts without traffic don't pile up prepared space. */
static void test_wal_restarts_give_space_back(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    for (int i = 0; i < 20; i++) {
        harness_close(harness);
        harness_up(harness);
    }
    assert_in_range(harness->fake->seen.count, 2, 3); /* the one with records, the active, a prepared one */
    assert_true(fake_used_bytes(harness->fake) < 3 * harness->options.segment_bytes);
    harness_free(harness);
}

/* ---- Deleting --------------------------------------------------------------------------------------------------- */

/* h41: everything but the last segment is deleted, and nothing is forgotten. */
static void test_h41_deleted_log_keeps_term_vote_and_membership(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    wal_set_state(harness->wal, 6, 3);
    assert_int_equal(wal_set_membership(harness->wal, slice_of_string("n1 n2 n3")), STATUS_OK);
    harness_write(harness, 1, 120, 6);
    wal_set_commit(harness->wal, 120);
    wal_set_applied(harness->wal, 120);
    wal_set_floor(harness->wal, 120, UINT64_MAX);
    fake_settle(harness->fake);
    struct wal_stats stats;
    wal_get_stats(harness->wal, &stats);
    assert_int_equal(stats.segments_deleted, 2);
    assert_int_equal(stats.segments, 2); /* the active and a prepared one */
    uint64_t first = wal_first_index(harness->wal);
    assert_true(first > 90);
    harness_crash(harness);
    harness->frontier = (struct wal_frontier){.index = 120, .term = 6};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.term, 6);
    assert_int_equal(harness->recovered.vote, 3);
    assert_true(slice_equal(harness->recovered.membership, slice_of_string("n1 n2 n3")));
    assert_int_equal(harness->recovered.first_index, first);
    assert_int_equal(harness->recovered.start_term, 6);
    assert_int_equal(harness->recovered.last_index, 120);
    harness_start(harness);
    fake_settle(harness->fake);
    harness_write(harness, 121, 122, 6);
    harness_free(harness);
}

/* h40, this side of it: the floor is the smaller of both, and a segment stays if any record in it is above. */
static void test_h40_deletion_respects_flushed_and_pin(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    harness_write(harness, 1, 120, 1);
    wal_set_commit(harness->wal, 120);
    uint64_t last_of_first = harness->wal->index.entries[harness->wal->index.start].segment->max_index;
    wal_set_floor(harness->wal, 120, last_of_first - 1);
    fake_settle(harness->fake);
    assert_int_equal(harness->wal->stats.segments_deleted, 0);
    wal_set_floor(harness->wal, last_of_first - 1, 120);
    fake_settle(harness->fake);
    assert_int_equal(harness->wal->stats.segments_deleted, 0);
    wal_set_floor(harness->wal, last_of_first, 120);
    fake_settle(harness->fake);
    assert_int_equal(harness->wal->stats.segments_deleted, 1);
    assert_int_equal(wal_first_index(harness->wal), last_of_first + 1);
    harness_crash(harness);
    harness->frontier = (struct wal_frontier){.index = last_of_first, .term = 1};
    assert_int_equal(harness_open(harness), STATUS_OK);
    harness_replay(harness);
    assert_int_equal(harness->replayed, 120 - last_of_first);
    harness_free(harness);
}

/* The previous segment stays until the next one holds something durable. */
static void test_h41_deletion_waits_for_a_durable_start_group(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    wal_set_state(harness->wal, 2, 2);
    fake_settle(harness->fake);
    uint64_t index = 0;
    while (wal__room(harness->wal, harness->wal->active) >= 8192) {
        index++;
        assert_int_equal(harness_append_len(harness, index, 2, 4000), STATUS_OK);
        fake_settle(harness->fake);
    }
    wal_set_commit(harness->wal, index);
    assert_int_equal(harness_append_len(harness, index + 1, 2, 4000), STATUS_OK);
    fake_turn(harness->fake); /* the start group of segment 2 is in flight */
    assert_int_equal(harness->wal->active->number, 2);
    wal_set_floor(harness->wal, index, index);
    fake_turn(harness->fake);
    while (fake_run_work(harness->fake)) {
    }
    assert_int_equal(harness->fake->counts.unlinks, 0);
    harness_crash(harness); /* it never gets there */
    harness->frontier = (struct wal_frontier){.index = index, .term = 2};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(harness->recovered.term, 2);
    harness_free(harness);
}

/* ---- The frontier ----------------------------------------------------------------------------------------------- */

static void test_wal_frontier_beyond_the_log_resets_it(void **state) {
    (void)state;
    for (int twice = 0; twice < 2; twice++) {
        struct harness *harness = harness_ten_groups();
        harness_close(harness);
        harness->frontier = (struct wal_frontier){.index = 50, .term = 3};
        for (int i = 0; i <= twice; i++) {
            harness_reopen(harness);
            assert_int_equal(harness->recovered.last_index, 50);
            assert_int_equal(harness->recovered.first_index, 51);
            assert_int_equal(harness->recovered.start_term, 3);
            assert_int_equal(harness->recovered.commit, 50);
            assert_int_equal(harness->recovered.term, 4);
            assert_int_equal(harness->recovered.vote, 2);
        }
        harness_start(harness);
        fake_settle(harness->fake);
        harness_write(harness, 51, 53, 4);
        harness_crash(harness);
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, 53);
        assert_int_equal(harness->recovered.first_index, 51);
        harness_free(harness);
    }
}

static void test_wal_frontier_with_another_term_resets_the_log(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness->frontier = (struct wal_frontier){.index = 5, .term = 4};
    harness_reopen(harness);
    assert_int_equal(harness->recovered.last_index, 10);
    harness->frontier = (struct wal_frontier){.index = 5, .term = 3};
    harness_reopen(harness);
    assert_int_equal(harness->recovered.last_index, 5);
    assert_int_equal(harness->recovered.first_index, 6);
    harness_free(harness);
}

static void test_wal_missing_segments_below_the_frontier_are_fine(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness_up(harness);
    harness_write(harness, 1, 170, 1); /* four segments */
    assert_true(harness->wal->active->number >= 3);
    uint64_t last_of_second = 0; /* what is in segments 1 and 2 */
    LIST_FOREACH (node, &harness->wal->segments) {
        const struct wal__segment *segment = LIST_ENTRY(node, struct wal__segment, link);
        last_of_second = segment->number == 2 ? segment->max_index : last_of_second;
    }
    harness_close(harness);
    fake_take(&harness->fake->seen, harness_segment(2)); /* a deletion of 1 and 2 of which only one became durable */
    harness->frontier = (struct wal_frontier){.index = last_of_second - 1, .term = 1};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present); /* one entry that is needed is missing */
    assert_int_equal(harness->recovered.fault.first_index, last_of_second);
    assert_int_equal(harness->recovered.fault.last_index, last_of_second);
    harness_close(harness);
    harness->frontier = (struct wal_frontier){.index = last_of_second, .term = 1};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.last_index, 170);
    assert_int_equal(harness->recovered.first_index, last_of_second + 1);
    assert_null(fake_file_at(harness->fake, harness_segment(1))); /* of no use any more */
    harness_replay(harness);
    harness_close(harness);
    harness_free(harness);
}

/* h41: the manifest holds an entry of a term that the log has never heard of: its end is gone, votes included. */
static void test_h41_log_older_than_manifest_is_refused(void **state) {
    (void)state;
    struct harness *harness = harness_ten_groups();
    harness_close(harness);
    harness->frontier = (struct wal_frontier){.index = 12, .term = 5};
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_true(harness->recovered.fault.present);
    harness_free(harness);
}

/* h41: without any log, term and vote are unknown: a node that has data doesn't start as if it were new. */
static void test_h41_lost_log_with_data_is_refused(void **state) {
    (void)state;
    struct harness *harness = harness_new(3);
    harness->frontier = (struct wal_frontier){.index = 5, .term = 1};
    assert_int_equal(harness_open(harness), STATUS_CORRUPT);
    harness_free(harness);
}

/* ---- Failures while opening ------------------------------------------------------------------------------------- */

static void test_wal_open_without_memory_leaves_no_trace(void **state) {
    (void)state;
    uint64_t failures = 0;
    for (uint64_t n = 1; n < 200; n++) {
        struct harness *harness = harness_ten_groups();
        harness_close(harness);
        test_alloc_fail(&harness->fake->memory, n, false);
        enum status status = harness_open(harness);
        test_alloc_fail(&harness->fake->memory, 0, false);
        if (status == STATUS_OK) {
            harness_free(harness);
            break;
        }
        failures++;
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_int_equal(harness->fake->memory.live_blocks, 0);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.last_index, 10);
        harness_free(harness);
    }
    assert_in_range(failures, 10, 150);
}

static void test_wal_open_io_error_anywhere_is_told_and_harmless(void **state) {
    (void)state;
    uint64_t failures = 0;
    for (uint64_t n = 1; n < 100; n++) {
        struct harness *harness = harness_ten_groups();
        harness_crash(harness);
        harness->fake->dead_after = n;
        enum status status = harness_open(harness);
        harness->fake->dead_after = 0;
        if (status == STATUS_OK) {
            harness_free(harness);
            break;
        }
        failures++;
        assert_int_equal(status, STATUS_IO);
        assert_int_equal(harness->fake->memory.live_blocks, 0);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.last_index, 10);
        harness_free(harness);
    }
    assert_in_range(failures, 10, 90);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_open_new_store_is_empty),
        cmocka_unit_test(test_wal_open_again_finds_everything),
        cmocka_unit_test(test_wal_open_puts_uncommitted_tail_in_memory),
        cmocka_unit_test(test_wal_open_refuses_anothers_log),
        cmocka_unit_test(test_wal_open_refuses_newer_format),
        cmocka_unit_test(test_wal_open_checks_options),
        cmocka_unit_test(test_h42_half_made_segments_are_removed),
        cmocka_unit_test(test_h42_first_opening_interrupted_anywhere_opens),
        cmocka_unit_test(test_h28_directory_is_synced_before_a_segment_is_used),
        cmocka_unit_test(test_wal_prepared_segment_is_used_again),
        cmocka_unit_test(test_wal_segment_with_torn_start_is_replaced),
        cmocka_unit_test(test_wal_restarts_give_space_back),
        cmocka_unit_test(test_h41_deleted_log_keeps_term_vote_and_membership),
        cmocka_unit_test(test_h40_deletion_respects_flushed_and_pin),
        cmocka_unit_test(test_h41_deletion_waits_for_a_durable_start_group),
        cmocka_unit_test(test_wal_frontier_beyond_the_log_resets_it),
        cmocka_unit_test(test_wal_frontier_with_another_term_resets_the_log),
        cmocka_unit_test(test_wal_missing_segments_below_the_frontier_are_fine),
        cmocka_unit_test(test_h41_log_older_than_manifest_is_refused),
        cmocka_unit_test(test_h41_lost_log_with_data_is_refused),
        cmocka_unit_test(test_wal_open_without_memory_leaves_no_trace),
        cmocka_unit_test(test_wal_open_io_error_anywhere_is_told_and_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
