/*
 * Segments that the log no longer needs, used again for new groups (hazard 37).
 *
 * What would break these: a generation that isn't drawn anew (old groups pass for new ones, or for proof of damage); a
 * segment overwritten before the directory that took it out of the log is synced, or although that sync failed; one
 * of an earlier life; spare ones without bound, or left behind by a close or a crash; zeroes
 * written where there is nothing to prepare.
 */
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { PAYLOAD = 4000, SEGMENT = 128 * 1024, GROUP_BYTES = 2 * WAL_BLOCK_BYTES };

static struct harness *new_harness(uint64_t seed, uint32_t spare_segments) {
    struct harness *harness = harness_new(seed);
    harness->options.segment_bytes = SEGMENT;
    harness->options.spare_segments = spare_segments;
    return harness;
}

/* One group each, synced and committed, in blocks of GROUP_BYTES. */
static void write_more(struct harness *harness, uint64_t count, uint64_t term) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t index = wal_last_index(harness->wal) + 1;
        assert_int_equal(harness_append_len(harness, index, term, PAYLOAD), STATUS_OK);
        fake_settle(harness->fake);
        assert_int_equal(wal_synced_index(harness->wal), index);
    }
    wal_set_applied(harness->wal, wal_last_index(harness->wal));
}

static void flush_all(struct harness *harness, uint64_t term) {
    wal_set_applied(harness->wal, wal_last_index(harness->wal));
    harness->frontier = (struct wal_frontier){.index = wal_last_index(harness->wal), .term = term};
    wal_set_floor(harness->wal, harness->frontier.index, UINT64_MAX);
    fake_settle(harness->fake);
}

static void write_until_segment(struct harness *harness, uint64_t number, uint64_t term) {
    while (harness->wal->active->number < number) {
        write_more(harness, 1, term);
    }
}

static size_t count_names(const struct harness *harness, const char *suffix) {
    size_t count = 0;
    const struct fake_names *names = &harness->fake->seen;
    for (size_t i = 0; i < names->count; i++) {
        size_t len = strlen(names->list[i].path);
        count += len > strlen(suffix) && strcmp(names->list[i].path + len - strlen(suffix), suffix) == 0;
    }
    return count;
}

/* Its segments 1 and 2 were used again; groups of an older term fill what lies behind the end of the active one. */
static struct harness *with_recycled_active(uint64_t seed) {
    struct harness *harness = new_harness(seed, 2);
    harness_up(harness);
    wal_set_state(harness->wal, 3, 1);
    write_until_segment(harness, 4, 3);
    flush_all(harness, 3);
    wal_set_state(harness->wal, 5, 1);
    while (!harness->wal->active->recycled) {
        write_more(harness, 1, 5);
    }
    write_more(harness, 3, 5);
    return harness;
}

/* ---- What recovery makes of one --------------------------------------------------------------------------------- */

static void test_h37_old_groups_behind_the_end_neither_count_nor_look_like_damage(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct harness *harness = with_recycled_active(seed);
        uint64_t last = wal_last_index(harness->wal);
        uint64_t number = harness->wal->active->number;
        uint64_t end = harness->wal->active->end;
        struct fake_inode *inode = harness_inode(harness, number);
        bool stale = false;
        for (uint64_t at = end; at < SEGMENT; at += WAL_BLOCK_BYTES) {
            struct wal__group_header header;
            stale = stale || wal__group_header_decode(inode->durable + at, &header) == STATUS_OK;
        }
        assert_true(stale); /* else this shows nothing */
        harness_crash(harness);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_false(harness->recovered.fault.present);
        assert_int_equal(harness->recovered.last_index, last);
        assert_int_equal(harness->recovered.term, 5);
        harness_replay(harness);
        for (uint64_t index = harness->frontier.index + 1; index <= last; index++) {
            assert_int_equal(harness->terms[index], 5);
        }
        harness_free(harness);
    }
}

/* h30 in a used segment: the last group torn is a torn tail, an earlier one is corruption. */
static void test_h37_h30_torn_tail_and_damage_are_told_apart_over_old_groups(void **state) {
    (void)state;
    for (unsigned back = 1; back <= 3; back++) {
        for (unsigned sector = 0; sector < 3; sector++) {
            struct harness *harness = with_recycled_active(back);
            uint64_t last = wal_last_index(harness->wal);
            uint64_t number = harness->wal->active->number;
            uint64_t offset = harness->wal->active->end - (uint64_t)back * GROUP_BYTES;
            harness_crash(harness);
            harness_flip(harness_inode(harness, number), offset + sector * FAKE_SECTOR + 100, 3);
            assert_int_equal(harness_open(harness), STATUS_OK);
            assert_int_equal(harness->recovered.fault.present, back > 1);
            if (back == 1) {
                assert_int_equal(harness->recovered.last_index, last - 1);
                /* Without its header nothing tells it from what stood there before. */
                assert_int_equal(harness->recovered.torn_bytes, sector == 0 ? 0 : GROUP_BYTES);
            } else {
                assert_int_equal(harness->recovered.fault.first_index, last - back + 1);
            }
            harness_free(harness);
        }
    }
}

/* A segment that is prepared out of an old one is as good as a new one for the next life, unless something was written
 * to it. */
static void test_h37_prepared_out_of_an_old_one_is_used_by_the_next_life(void **state) {
    (void)state;
    struct harness *harness = new_harness(1, 2);
    harness_up(harness);
    write_until_segment(harness, 4, 3);
    flush_all(harness, 3);
    write_until_segment(harness, 5, 3); /* and the next one is prepared */
    struct wal__segment *prepared = LIST_ENTRY(harness->wal->prepared.next, struct wal__segment, link);
    assert_true(prepared->recycled);
    uint64_t number = prepared->number;
    uint64_t last = wal_last_index(harness->wal);
    harness_crash(harness);
    uint64_t inodes = harness->fake->inode_count;
    harness_up(harness);
    assert_int_equal(harness->wal->active->number, number);
    write_more(harness, 3, 3);
    harness_crash(harness);
    assert_true(harness->fake->inode_count <= inodes + 1);
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, last + 3);
    harness_free(harness);
}

/* The start group and the group carried behind it go out in one write. Of a torn one the carried group may be there
 * and the start group not: that segment isn't empty, and it isn't damage. */
static void test_h37_carried_group_without_start_group_is_dropped(void **state) {
    (void)state;
    struct harness *harness = new_harness(1, 2);
    harness_up(harness);
    write_until_segment(harness, 4, 3);
    flush_all(harness, 3);
    write_until_segment(harness, 5, 3);
    uint64_t number = LIST_ENTRY(harness->wal->prepared.next, struct wal__segment, link)->number;
    uint64_t last = wal_last_index(harness->wal);
    harness_crash(harness);
    harness_up(harness);
    assert_int_equal(harness->wal->active->number, number);
    assert_true(harness->wal->active->recycled);
    harness_crash(harness);
    struct fake_inode *inode = harness_inode(harness, number);
    memset(inode->seen + WAL_SEGMENT_HEADER_BYTES, 0, WAL_START_GROUP_BYTES);
    memset(inode->durable + WAL_SEGMENT_HEADER_BYTES, 0, WAL_START_GROUP_BYTES);
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, last);
    assert_int_not_equal(harness->wal->active->number, number);
    write_more(harness, 2, 3);
    harness_crash(harness);
    harness_up(harness);
    assert_int_equal(harness->recovered.last_index, last + 2);
    harness_free(harness);
}

/* ---- Crashes ---------------------------------------------------------------------------------------------------- */

/* From the flush that frees segments to the group in the first one that is used again: at each call to the disk. What a
 * crash leaves of unsynced sectors and names is drawn. */
static void test_h37_crash_at_each_step_of_recycling_leaves_the_log(void **state) {
    (void)state;
    uint64_t crashes = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        bool done = false;
        for (uint64_t calls = 1; !done; calls++) {
            struct harness *harness = new_harness(seed * 100 + calls, 2);
            harness_up(harness);
            write_until_segment(harness, 4, 3);
            harness->fake->dead_after = harness->fake->counts.calls + calls;
            flush_all(harness, 3);
            uint64_t synced = harness->frontier.index;
            for (int i = 0; i < 200 && !harness->wal->active->recycled && !fake_is_dead(harness->fake); i++) {
                (void)harness_append_len(harness, wal_last_index(harness->wal) + 1, 3, PAYLOAD);
                fake_settle(harness->fake);
                synced = wal_synced_index(harness->wal);
            }
            done = !fake_is_dead(harness->fake);
            crashes += !done;
            harness_crash(harness);
            harness_up(harness); /* no fault */
            assert_true(harness->recovered.last_index >= synced);
            assert_int_equal(count_names(harness, ".tmp"), 0);
            harness_free(harness);
        }
    }
    assert_true(crashes > 300);
}

/* The sync of the directory that takes segments out of the log fails: their old names may be back after a crash, so
 * they must be as they were. */
static void test_h37_directory_that_failed_to_sync_recycles_nothing(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct harness *harness = new_harness(seed, 2);
        harness_up(harness);
        write_until_segment(harness, 4, 3);
        harness->fake->failing_dir_sync = harness->fake->counts.dir_syncs + 1;
        flush_all(harness, 3);
        write_until_segment(harness, 7, 3);
        assert_int_equal(harness->wal->stats.segments_recycled, 0);
        flush_all(harness, 3); /* nor later ones, whose sync works again */
        write_until_segment(harness, 10, 3);
        assert_int_equal(harness->wal->stats.segments_recycled, 0);
        assert_int_equal(count_names(harness, ".tmp"), 0);
        uint64_t last = wal_last_index(harness->wal);
        harness_crash(harness);
        harness_up(harness);
        assert_int_equal(harness->recovered.last_index, last);
        harness_free(harness);
    }
}

/* ---- What is used again, and what not --------------------------------------------------------------------------- */

static void test_wal_spare_segments_are_bounded_and_go_with_a_close(void **state) {
    (void)state;
    for (uint32_t spare = 0; spare <= 3; spare++) {
        struct harness *harness = new_harness(1, spare);
        harness_up(harness);
        write_until_segment(harness, 7, 1);
        flush_all(harness, 1);
        struct wal_stats stats;
        wal_get_stats(harness->wal, &stats);
        assert_int_equal(stats.segments_spare, spare);
        assert_int_equal(stats.segments_deleted, 6);
        assert_int_equal(count_names(harness, ".tmp"), spare);
        assert_int_equal(stats.segments, 2 + spare);
        uint64_t filled = stats.segments_filled;
        write_until_segment(harness, 9 + spare, 1); /* those behind 8 are made now */
        wal_get_stats(harness->wal, &stats);
        assert_int_equal(stats.segments_recycled, spare);
        assert_int_equal(stats.segments_filled, filled + 2);
        flush_all(harness, 1);
        harness_close(harness);
        assert_int_equal(count_names(harness, ".tmp"), 0);
        harness_free(harness);
    }
}

/* What an earlier life wrote may have names that this one doesn't know of. */
static void test_h37_segments_of_earlier_lives_are_not_used_again(void **state) {
    (void)state;
    struct harness *harness = new_harness(1, 4);
    harness_up(harness);
    write_until_segment(harness, 4, 1);
    harness_crash(harness);
    harness_up(harness);
    flush_all(harness, 1);
    struct wal_stats stats;
    wal_get_stats(harness->wal, &stats);
    assert_true(stats.segments_deleted >= 3);
    assert_int_equal(stats.segments_spare, 0);
    write_until_segment(harness, harness->wal->active->number + 2, 1);
    flush_all(harness, 1);
    wal_get_stats(harness->wal, &stats);
    assert_true(stats.segments_spare > 0); /* its own are */
    harness_free(harness);
}

/* The reason for all of it: nothing but header and start block is written ahead. */
static void test_wal_recycled_segment_costs_two_blocks(void **state) {
    (void)state;
    struct harness *harness = new_harness(1, 2);
    harness_up(harness);
    write_until_segment(harness, 4, 1);
    flush_all(harness, 1);
    write_until_segment(harness, 5, 1);
    struct fake_inode *recycled = fake_file_at(harness->fake, harness_segment(6));
    assert_non_null(recycled);
    struct wal__group_header header;
    assert_int_equal(wal__group_header_decode(recycled->seen + WAL_SEGMENT_HEADER_BYTES, &header), STATUS_CORRUPT);
    assert_int_equal(wal__group_header_decode(recycled->seen + WAL_FIRST_RECORDS_OFFSET, &header), STATUS_OK);
    uint64_t pwrites = harness->fake->counts.pwrites;
    flush_all(harness, 1);
    write_until_segment(harness, 6, 1); /* prepares one more */
    assert_int_equal(harness->fake->counts.pwrites, pwrites + 1);
    harness_free(harness);
}

/* h31: on a full disk what is spare is of more use to others, also when another job is under way. */
static void test_h31_spare_segments_are_given_to_a_full_disk(void **state) {
    (void)state;
    for (int busy = 0; busy < 2; busy++) {
        struct harness *harness = new_harness(1, 3);
        harness_up(harness);
        write_until_segment(harness, 5, 1);
        flush_all(harness, 1);
        write_until_segment(harness, 7, 1);
        assert_true(count_names(harness, ".tmp") >= 1);
        uint64_t used = fake_used_bytes(harness->fake);
        if (busy == 1) { /* a job that sets others aside */
            harness->frontier = (struct wal_frontier){.index = wal_last_index(harness->wal), .term = 1};
            wal_set_floor(harness->wal, harness->frontier.index, UINT64_MAX);
        }
        wal_give_space(harness->wal);
        fake_settle(harness->fake);
        if (busy == 1) {
            wal_give_space(harness->wal);
            fake_settle(harness->fake);
        }
        assert_int_equal(count_names(harness, ".tmp"), 0);
        assert_true(fake_used_bytes(harness->fake) <= used - SEGMENT);
        write_more(harness, 50, 1);
        harness_crash(harness);
        harness_up(harness);
        harness_free(harness);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h37_old_groups_behind_the_end_neither_count_nor_look_like_damage),
        cmocka_unit_test(test_h37_h30_torn_tail_and_damage_are_told_apart_over_old_groups),
        cmocka_unit_test(test_h37_prepared_out_of_an_old_one_is_used_by_the_next_life),
        cmocka_unit_test(test_h37_carried_group_without_start_group_is_dropped),
        cmocka_unit_test(test_h37_crash_at_each_step_of_recycling_leaves_the_log),
        cmocka_unit_test(test_h37_directory_that_failed_to_sync_recycles_nothing),
        cmocka_unit_test(test_wal_spare_segments_are_bounded_and_go_with_a_close),
        cmocka_unit_test(test_h37_segments_of_earlier_lives_are_not_used_again),
        cmocka_unit_test(test_wal_recycled_segment_costs_two_blocks),
        cmocka_unit_test(test_h31_spare_segments_are_given_to_a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
