/*
 * Large records that the log lends where they stand (wal_share.c), and the check of a segment's file by itself.
 *
 * Would break these: a place that holds another record, or one that a cut made void; a segment lent while groups still
 * go into it, or before they are durable; a turn that never comes, comes on a full disk, or holds records up; a shared
 * file that recovery cuts or writes to; damage in a segment that its check doesn't see; a list that outlives its
 * segment; values to come that nobody finds in the page cache, or small records that fill it; blocks of both ways of
 * writing that don't read back.
 */
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { LARGE_BYTES = 3000, SMALL_BYTES = 100 };

static struct harness *start(uint64_t seed, struct log_share *ret_share) {
    struct harness *harness = harness_new(seed);
    harness->options.share_payload_bytes = LARGE_BYTES;
    harness_up(harness);
    wal_share(harness->wal, ret_share);
    return harness;
}

/* Records that are large and small by turns; one group each, or all in one. */
static void append(struct harness *harness, uint64_t first, uint64_t last, uint64_t term, bool together) {
    for (uint64_t index = first; index <= last; index++) {
        size_t len = index % 2 == 0 ? LARGE_BYTES + (size_t)index : SMALL_BYTES;
        assert_int_equal(harness_append_len(harness, index, term, len), STATUS_OK);
        if (!together) {
            fake_settle(harness->fake);
        }
    }
    fake_settle(harness->fake);
}

static void turn(struct harness *harness, const struct log_share *share) {
    share->turn(share->log);
    fake_settle(harness->fake);
}

static struct log_segments take(const struct log_share *share, uint64_t first, uint64_t last) {
    struct log_segments segments;
    assert_int_equal(share->take(share->log, first, last, &segments), STATUS_OK);
    return segments;
}

/* The record is where the segment says. */
static void assert_place(struct harness *harness, const struct log_segment *segment, const struct log_record *record,
                         uint64_t term) {
    const struct fake_inode *inode = fake_file_at(harness->fake, segment->path);
    assert_non_null(inode);
    assert_true(record->offset + record->bytes <= segment->size_bytes && segment->size_bytes <= inode->durable_size);
    struct slice bytes = slice_of(inode->durable + record->offset, record->bytes);
    struct wal_record decoded;
    assert_int_equal(wal_record_decode(&bytes, &decoded, NULL), STATUS_OK);
    assert_int_equal(bytes.len, 0);
    assert_true(harness_is_right(&decoded, record->index, term, LARGE_BYTES + (size_t)record->index));
}

static void test_wal_share_lends_large_records_where_they_stand(void **state) {
    (void)state;
    for (unsigned together = 0; together < 2; together++) {
        struct log_share share;
        struct harness *harness = start(1, &share);
        append(harness, 1, 20, 1, together);
        assert_false(share.is_turned(share.log, 20));
        struct log_segments none = take(&share, 1, 20);
        assert_int_equal(none.count, 0); /* never the active one */
        log_segments_free(&none);
        turn(harness, &share);
        assert_true(share.is_turned(share.log, 20));
        append(harness, 21, 22, 1, together);
        assert_false(share.is_turned(share.log, 21));
        struct log_segments segments = take(&share, 5, 18);
        assert_int_equal(segments.count, 1);
        assert_int_equal(segments.list[0].record_count, 7);
        for (size_t i = 0; i < 7; i++) {
            assert_int_equal(segments.list[0].records[i].index, 6 + 2 * i);
            assert_place(harness, &segments.list[0], &segments.list[0].records[i], 1);
        }
        log_segments_free(&segments);
        harness_free(harness);
    }
}

/* What a cut voids isn't lent, from whatever segment; what took its place is. */
static void test_wal_share_records_that_were_cut_off_are_not_lent(void **state) {
    (void)state;
    struct log_share share;
    struct harness *harness = start(2, &share);
    append(harness, 1, 10, 1, false);
    turn(harness, &share);
    append(harness, 11, 20, 1, false);
    append(harness, 8, 9, 2, false); /* 8 to 20 are void */
    append(harness, 10, 12, 2, true);
    turn(harness, &share);
    struct log_segments segments = take(&share, 1, 12);
    assert_int_equal(segments.count, 2);
    assert_int_equal(segments.list[0].record_count, 3);
    assert_int_equal(segments.list[0].records[2].index, 6);
    assert_int_equal(segments.list[1].record_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(segments.list[1].records[i].index, 8 + 2 * i);
        assert_place(harness, &segments.list[0], &segments.list[0].records[i], 1);
        assert_place(harness, &segments.list[1], &segments.list[1].records[i], 2);
    }
    log_segments_free(&segments);
    harness_free(harness);
}

/* Records behind the turn go to the next segment, without a pause; those in front of it, and pending, don't. */
static void test_wal_share_turn_parts_what_comes_from_what_was(void **state) {
    (void)state;
    struct log_share share;
    struct harness *harness = start(3, &share);
    append(harness, 1, 4, 1, false);
    assert_int_equal(harness_append_len(harness, 5, 1, LARGE_BYTES), STATUS_OK);
    share.turn(share.log); /* 5 is still in memory */
    assert_false(share.is_turned(share.log, 5));
    fake_settle(harness->fake);
    assert_true(share.is_turned(share.log, 5));
    append(harness, 6, 6, 1, false);
    struct log_segments segments = take(&share, 1, 6);
    assert_int_equal(segments.count, 1);
    assert_int_equal(segments.list[0].records[segments.list[0].record_count - 1].index, 5);
    log_segments_free(&segments);
    /* Nothing is to be parted: a second turn makes one segment, no more. */
    struct wal_stats before;
    struct wal_stats after;
    turn(harness, &share);
    wal_get_stats(harness->wal, &before);
    fake_settle(harness->fake);
    wal_get_stats(harness->wal, &after);
    assert_int_equal(before.triggers[WAL_TRIGGER_START], after.triggers[WAL_TRIGGER_START]);
    harness_free(harness);
}

/* The segment that is prepared is what term and vote, and deletes, have left then. */
static void test_wal_share_turn_waits_while_no_segment_can_be_prepared(void **state) {
    (void)state;
    struct log_share share;
    struct harness *harness = start(4, &share);
    append(harness, 1, 4, 1, false);
    harness->wal->prepare.failing = true;
    turn(harness, &share);
    assert_false(share.is_turned(share.log, 4));
    append(harness, 5, 6, 1, false); /* goes on as ever */
    assert_int_equal(wal_synced_index(harness->wal), 6);
    harness->wal->prepare.failing = false;
    append(harness, 7, 8, 1, false);
    assert_true(share.is_turned(share.log, 4));
    assert_true(share.is_turned(share.log, 6));
    assert_false(share.is_turned(share.log, 8));
    harness_free(harness);
}

/* A life that didn't write a segment knows nothing of its records; and it leaves the file as it is. */
static void test_wal_share_segments_of_an_earlier_life_are_not_lent_or_touched(void **state) {
    (void)state;
    struct log_share share;
    struct harness *harness = start(5, &share);
    append(harness, 1, 10, 1, false);
    turn(harness, &share);
    struct log_segments segments = take(&share, 1, 10);
    assert_int_equal(segments.count, 1);
    char path[LIMIT_PATH_BYTES];
    uint64_t size_bytes = segments.list[0].size_bytes;
    (void)snprintf(path, sizeof path, "%s", segments.list[0].path);
    log_segments_free(&segments);
    uint8_t *copy = malloc(size_bytes);
    assert_non_null(copy);
    memcpy(copy, fake_file_at(harness->fake, path)->durable, size_bytes);
    for (unsigned life = 0; life < 4; life++) { /* the last group is carried on each time */
        harness_crash(harness);
        harness_up(harness);
        wal_share(harness->wal, &share);
        struct log_segments none = take(&share, 1, 10);
        assert_int_equal(none.count, 0);
        log_segments_free(&none);
        const struct fake_inode *now = fake_file_at(harness->fake, path);
        assert_non_null(now);
        assert_true(now->size >= size_bytes);
        assert_memory_equal(now->seen, copy, size_bytes);
    }
    free(copy);
    harness_free(harness);
}

/* The log deletes its own name as if nothing had been lent; what was taken stays readable by its list alone. */
static void test_wal_share_segment_is_deleted_as_always(void **state) {
    (void)state;
    struct log_share share;
    struct harness *harness = start(6, &share);
    append(harness, 1, 10, 1, false);
    turn(harness, &share);
    append(harness, 11, 12, 1, false);
    struct log_segments segments = take(&share, 1, 10);
    wal_set_applied(harness->wal, 12);
    wal_set_floor(harness->wal, 12, UINT64_MAX);
    fake_settle(harness->fake);
    assert_null(fake_file_at(harness->fake, segments.list[0].path));
    share.give_back(share.log, segments.list[0].number); /* too late, and no harm */
    log_segments_free(&segments);
    struct log_segments none = take(&share, 1, 10);
    assert_int_equal(none.count, 0);
    log_segments_free(&none);
    harness_free(harness);
}

static bool is_filled(const struct harness *harness) {
    const struct list *link = harness->wal->prepared.next;
    assert_true(link != &harness->wal->prepared);
    return LIST_ENTRY(link, struct wal__segment, link)->filled_end == 0; /* else only so far */
}

static bool is_used_again(bool first_is_given_back, bool second_is_given_back) {
    struct log_share share;
    struct harness *harness = harness_new(9);
    harness->options.share_payload_bytes = LARGE_BYTES;
    harness->options.spare_segments = 2;
    harness_up(harness);
    wal_share(harness->wal, &share);
    append(harness, 1, 10, 1, false);
    turn(harness, &share);
    append(harness, 11, 12, 1, false);
    struct log_segments first = take(&share, 1, 6); /* two flushes meet in one segment */
    struct log_segments second = take(&share, 7, 10);
    assert_true(first.count == 1 && second.count == 1 && first.list[0].number == second.list[0].number);
    if (first_is_given_back) {
        share.give_back(share.log, first.list[0].number);
    }
    if (second_is_given_back) {
        share.give_back(share.log, second.list[0].number);
    }
    log_segments_free(&first);
    log_segments_free(&second);
    wal_set_applied(harness->wal, 12);
    wal_set_floor(harness->wal, 12, UINT64_MAX);
    fake_settle(harness->fake);
    struct wal_stats stats;
    wal_get_stats(harness->wal, &stats);
    assert_int_equal(stats.segments_deleted, 1);
    bool is_kept = harness->wal->spare_segment_count > 0;
    harness_free(harness);
    return is_kept;
}

/* wal_explain of the first segment: is it the store's, too? */
static void note_lent(void *context, const struct wal_segment_info *info) {
    bool *first_is_lent = context;
    *first_is_lent = info->number == 1 ? info->is_lent : *first_is_lent;
    assert_true(info->number == 1 || !info->is_lent);
}

static void test_wal_share_loan_is_told_until_it_is_given_back(void **state) {
    (void)state;
    struct log_share share;
    struct harness *harness = start(10, &share);
    append(harness, 1, 10, 1, false);
    turn(harness, &share);
    append(harness, 11, 12, 1, false);
    bool is_lent = true;
    wal_explain(harness->wal, note_lent, &is_lent);
    assert_false(is_lent);
    struct log_segments segments = take(&share, 1, 10);
    wal_explain(harness->wal, note_lent, &is_lent);
    assert_true(is_lent);
    share.give_back(share.log, segments.list[0].number);
    wal_explain(harness->wal, note_lent, &is_lent);
    assert_false(is_lent);
    log_segments_free(&segments);
    harness_free(harness);
}

/* Somebody else may have its bytes under another name. */
static void test_h37_wal_share_segment_that_was_lent_is_never_used_again(void **state) {
    (void)state;
    assert_false(is_used_again(false, false));
    assert_false(is_used_again(true, false));
    assert_false(is_used_again(false, true));
    assert_true(is_used_again(true, true));
}

/* A file that may be given away isn't written twice; one that small groups go to is. */
static void test_wal_share_segments_for_large_records_are_reserved_not_filled(void **state) {
    (void)state;
    struct log_share share;
    struct harness *harness = start(7, &share);
    assert_true(is_filled(harness));
    for (uint64_t index = 1; index <= 20; index++) {
        assert_int_equal(harness_append_len(harness, index, 1, LARGE_BYTES), STATUS_OK);
        fake_settle(harness->fake);
    }
    turn(harness, &share);
    assert_false(is_filled(harness));
    append(harness, 21, 21, 1, false);
    turn(harness, &share); /* behind a small record */
    append(harness, 22, 23, 1, false);
    turn(harness, &share);
    assert_true(is_filled(harness));
    harness_free(harness);
}

/* ---- Through the page cache or past it -------------------------------------------------------------------------- */

/* Appends records first..first+count-1 of len bytes and one more of last_len as one group; true if that one went
 * through the page cache. */
static bool is_cached(struct harness *harness, uint64_t first, uint64_t count, size_t len, size_t last_len) {
    const struct fake_counts before = harness->fake->counts;
    for (uint64_t index = first; index < first + count; index++) {
        assert_int_equal(harness_append_len(harness, index, 1, len), STATUS_OK);
    }
    assert_int_equal(harness_append_len(harness, first + count, 1, last_len), STATUS_OK);
    fake_settle(harness->fake);
    assert_true(harness->fake->counts.dsync_writes > before.dsync_writes); /* one, and maybe a start group */
    return harness->fake->counts.cached_writes > before.cached_writes;
}

/* Also in the second segment, that a worker made. */
static void test_wal_share_groups_of_mostly_large_records_go_through_the_page_cache(void **state) {
    (void)state;
    struct log_share share;
    struct harness *harness = start(9, &share);
    uint64_t index = 1;
    for (unsigned segment = 0; segment < 2; segment++) {
        assert_true(is_cached(harness, index, 3, LARGE_BYTES, LARGE_BYTES));
        assert_false(is_cached(harness, index + 4, 3, SMALL_BYTES, SMALL_BYTES));
        assert_true(is_cached(harness, index + 8, 3, SMALL_BYTES, LARGE_BYTES));
        assert_false(is_cached(harness, index + 12, 3, LARGE_BYTES - 1, LARGE_BYTES));
        index += 16;
        uint64_t cached = harness->fake->counts.cached_writes;
        turn(harness, &share);
        assert_int_equal(harness->fake->counts.cached_writes, cached); /* a start group isn't worth it */
    }
    harness_free(harness);
}

static void test_wal_share_without_large_records_nothing_goes_through_the_page_cache(void **state) {
    (void)state;
    struct harness *harness = harness_new(10);
    harness_up(harness);
    assert_false(is_cached(harness, 1, 3, LARGE_BYTES, LARGE_BYTES));
    harness_free(harness);
}

static void test_wal_share_file_that_cannot_be_opened_twice_is_written_one_way(void **state) {
    (void)state;
    struct harness *harness = harness_new(11);
    harness->fake->refuses_cached = true;
    harness->options.share_payload_bytes = LARGE_BYTES;
    harness_up(harness);
    assert_false(is_cached(harness, 1, 3, LARGE_BYTES, LARGE_BYTES));
    assert_true(wal_synced_index(harness->wal) == 4);
    harness_free(harness);
}

static enum status check_both_ways(void *context, const struct wal_record *record, struct error *err) {
    (void)err;
    uint64_t *next = context;
    assert_true(harness_is_right(record, *next, 1, *next % 4 == 2 ? LARGE_BYTES : SMALL_BYTES));
    ++*next;
    return STATUS_OK;
}

/* Both ways by turns, over several segments, then the next life: every record stands where it did. */
static void test_wal_share_records_of_both_ways_are_recovered(void **state) {
    (void)state;
    struct log_share share;
    struct harness *harness = start(12, &share);
    for (uint64_t index = 1; index < 200; index += 2) {
        assert_int_equal(is_cached(harness, index, 1, SMALL_BYTES, index % 4 == 1 ? LARGE_BYTES : SMALL_BYTES),
                         index % 4 == 1);
    }
    assert_true(harness->fake->counts.cached_writes == 50);
    harness_crash(harness);
    assert_int_equal(harness_open(harness), STATUS_OK);
    assert_int_equal(harness->recovered.last_index, 200);
    uint64_t next = 1;
    assert_int_equal(wal_replay(harness->wal, 1, 200, check_both_ways, &next, NULL), STATUS_OK);
    assert_int_equal(next, 201);
    harness_start(harness);
    harness_free(harness);
}

/* ---- Checking a file -------------------------------------------------------------------------------------------- */

struct file_case {
    struct harness *harness;
    struct log_segments segments;
    struct wal_check check;
    uint64_t records;
    uint64_t offset;
};

static enum status run_check(struct file_case *it) {
    return wal_check_segment(&it->check, &it->records, &it->offset, NULL);
}

static void open_case(struct file_case *it) {
    struct log_share share;
    *it = (struct file_case){.harness = start(8, &share)};
    append(it->harness, 1, 10, 1, false);
    append(it->harness, 11, 14, 1, true);
    turn(it->harness, &share);
    it->segments = take(&share, 1, 14);
    it->check = (struct wal_check){.env = &it->harness->fake->env,
                                   .size_bytes = it->segments.list[0].size_bytes,
                                   .checksum = it->segments.list[0].checksum};
    memcpy(it->check.cluster_id, it->harness->options.cluster_id, sizeof it->check.cluster_id);
    assert_int_equal(env_open(it->check.env, it->segments.list[0].path, ENV_OPEN_READ, &it->check.file, NULL),
                     STATUS_OK);
}

static void close_case(struct file_case *it) {
    env_close(it->check.file);
    log_segments_free(&it->segments);
    harness_free(it->harness);
}

static void test_wal_check_segment_accepts_what_was_lent_and_nothing_else(void **state) {
    (void)state;
    struct file_case it;
    open_case(&it);
    assert_int_equal(run_check(&it), STATUS_OK);
    assert_int_equal(it.records, 14);
    assert_int_equal(it.offset, it.check.size_bytes);
    it.check.checksum ^= 1;
    assert_int_equal(run_check(&it), STATUS_CORRUPT);
    it.check.checksum ^= 1;
    it.check.size_bytes -= WAL_BLOCK_BYTES; /* a group less */
    assert_int_equal(run_check(&it), STATUS_CORRUPT);
    it.check.size_bytes += 2 * WAL_BLOCK_BYTES;
    assert_int_equal(run_check(&it), STATUS_CORRUPT);
    it.check.size_bytes = 0;
    assert_int_equal(run_check(&it), STATUS_CORRUPT);
    it.check.size_bytes = UINT64_MAX / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES;
    assert_int_equal(run_check(&it), STATUS_CORRUPT);
    it.check.size_bytes = it.segments.list[0].size_bytes;
    it.check.cluster_id[0] ^= 1;
    assert_int_equal(run_check(&it), STATUS_CORRUPT);
    close_case(&it);
}

/* Each byte of headers, groups and records; padding means nothing. */
static void test_wal_check_segment_finds_every_flipped_byte(void **state) {
    (void)state;
    struct file_case it;
    open_case(&it);
    struct fake_inode *inode = fake_file_at(it.harness->fake, it.segments.list[0].path);
    uint64_t found = 0;
    for (uint64_t at = 0; at < it.check.size_bytes; at += at < 512 ? 1 : 7) {
        bool is_padding = inode->seen[at] == 0;
        harness_flip(inode, at, at % 8);
        enum status status = run_check(&it);
        assert_true(status == STATUS_CORRUPT || (status == STATUS_OK && is_padding) ||
                    (status == STATUS_UNSUPPORTED && at >= WAL_SEGMENT_HEADER_BYTES));
        found += status != STATUS_OK;
        harness_flip(inode, at, at % 8);
    }
    assert_true(found > 3000);
    assert_int_equal(run_check(&it), STATUS_OK);
    close_case(&it);
}

static bool stop(void *context, uint64_t bytes) {
    (void)bytes;
    return --*(unsigned *)context > 0;
}

static void test_wal_check_segment_can_be_stopped(void **state) {
    (void)state;
    struct file_case it;
    unsigned left = 3;
    open_case(&it);
    it.check.pace = stop;
    it.check.context = &left;
    assert_int_equal(run_check(&it), STATUS_CANCELLED);
    assert_int_equal(left, 0);
    close_case(&it);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_share_lends_large_records_where_they_stand),
        cmocka_unit_test(test_wal_share_records_that_were_cut_off_are_not_lent),
        cmocka_unit_test(test_wal_share_turn_parts_what_comes_from_what_was),
        cmocka_unit_test(test_wal_share_turn_waits_while_no_segment_can_be_prepared),
        cmocka_unit_test(test_wal_share_segments_of_an_earlier_life_are_not_lent_or_touched),
        cmocka_unit_test(test_wal_share_segment_is_deleted_as_always),
        cmocka_unit_test(test_wal_share_loan_is_told_until_it_is_given_back),
        cmocka_unit_test(test_h37_wal_share_segment_that_was_lent_is_never_used_again),
        cmocka_unit_test(test_wal_share_segments_for_large_records_are_reserved_not_filled),
        cmocka_unit_test(test_wal_share_groups_of_mostly_large_records_go_through_the_page_cache),
        cmocka_unit_test(test_wal_share_without_large_records_nothing_goes_through_the_page_cache),
        cmocka_unit_test(test_wal_share_file_that_cannot_be_opened_twice_is_written_one_way),
        cmocka_unit_test(test_wal_share_records_of_both_ways_are_recovered),
        cmocka_unit_test(test_wal_check_segment_accepts_what_was_lent_and_nothing_else),
        cmocka_unit_test(test_wal_check_segment_finds_every_flipped_byte),
        cmocka_unit_test(test_wal_check_segment_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
