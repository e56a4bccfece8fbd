/*
 * What the log says of itself: statistics of its writes, and what keeps each segment.
 *
 * What would break these: a write counted under the wrong trigger, or twice, or not at all; a sync in the wrong bucket;
 * a segment that is kept although no reason is told, or told to be kept when it is about to go; a reader that nobody
 * sees.
 */
#include "node/base/histogram.h"
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

static struct wal_stats stats_of(struct harness *harness) {
    struct wal_stats stats;
    wal_get_stats(harness->wal, &stats);
    return stats;
}

/* What is true at any time. */
static void check_sums(const struct wal_stats *stats) {
    uint64_t triggered = 0;
    uint64_t timed = 0;
    for (size_t i = 0; i < WAL_TRIGGER_COUNT; i++) {
        triggered += stats->triggers[i];
    }
    for (size_t i = 0; i < WAL_SYNC_BUCKETS; i++) {
        timed += stats->sync_us_buckets[i];
    }
    assert_int_equal(triggered, stats->groups);
    assert_int_equal(timed, stats->groups);
    assert_int_equal(stats->written_bytes % WAL_BLOCK_BYTES, 0);
    assert_true(stats->padding_bytes + stats->record_bytes < stats->written_bytes || stats->groups == 0);
}

static void test_wal_stats_count_each_group_by_its_trigger(void **state) {
    (void)state;
    struct harness *harness = harness_new(1);
    harness->options.mark_delay_us = 50000;
    harness_up(harness);
    wal_set_state(harness->wal, 2, 1);
    fake_settle(harness->fake);
    struct wal_stats stats = stats_of(harness);
    assert_int_equal(stats.triggers[WAL_TRIGGER_STATE], 1);

    /* Three records of one turn: one group, at once. */
    for (uint64_t index = 1; index <= 3; index++) {
        assert_int_equal(harness_append_len(harness, index, 2, 100), STATUS_OK);
    }
    fake_turn(harness->fake);
    /* Two more while it is written. */
    for (uint64_t index = 4; index <= 5; index++) {
        assert_int_equal(harness_append_len(harness, index, 2, 100), STATUS_OK);
    }
    harness->fake->now_us += 300;
    assert_true(fake_end_io(harness->fake, 0));
    fake_settle(harness->fake);
    stats = stats_of(harness);
    assert_int_equal(stats.triggers[WAL_TRIGGER_IDLE], 1);
    assert_int_equal(stats.triggers[WAL_TRIGGER_BEHIND], 1);
    assert_int_equal(stats.records, 5);
    assert_int_equal(stats.group_records_max, 3);
    assert_int_equal(stats.groups, 3);
    assert_int_equal(stats.record_bytes, 5 * (WAL_RECORD_HEADER_BYTES + 100));
    assert_int_equal(stats.written_bytes, 3 * WAL_BLOCK_BYTES);
    assert_int_equal(stats.padding_bytes, 3 * WAL_BLOCK_BYTES - 3 * WAL_GROUP_HEADER_BYTES - stats.record_bytes);
    assert_int_equal(stats.sync_us_max, 300);
    assert_int_equal(stats.sync_us_buckets[9], 1); /* 256 to 511 */
    check_sums(&stats);

    /* More than one group takes. */
    for (uint64_t index = 6; index <= 45; index++) {
        assert_int_equal(harness_append_len(harness, index, 2, 3000), STATUS_OK);
    }
    fake_settle(harness->fake);
    stats = stats_of(harness);
    assert_int_equal(stats.triggers[WAL_TRIGGER_FULL], 1);
    assert_int_equal(stats.triggers[WAL_TRIGGER_BEHIND], 2);
    check_sums(&stats);

    harness->fake->now_us += 60000;
    fake_settle(harness->fake);
    stats = stats_of(harness);
    assert_int_equal(stats.triggers[WAL_TRIGGER_MARK], 1);
    assert_int_equal(stats.triggers[WAL_TRIGGER_START], 0);
    for (uint64_t index = 46; stats.triggers[WAL_TRIGGER_START] == 0; index++) {
        harness_write(harness, index, index, 2);
        stats = stats_of(harness);
        assert_true(index < 200);
    }
    /* Alone in its turn, but it had to wait for the segment. */
    assert_int_equal(stats.triggers[WAL_TRIGGER_BEHIND], 3);
    check_sums(&stats);
    harness_free(harness);
}

static void test_histogram_buckets_and_quantiles(void **state) {
    (void)state;
    uint64_t buckets[WAL_SYNC_BUCKETS] = {0};
    assert_int_equal(histogram_quantile(buckets, WAL_SYNC_BUCKETS, 0, 500), 0);
    assert_int_equal(histogram_bucket(0, WAL_SYNC_BUCKETS), 0);
    assert_int_equal(histogram_bucket(1, WAL_SYNC_BUCKETS), 1);
    assert_int_equal(histogram_bucket(2, WAL_SYNC_BUCKETS), 2);
    assert_int_equal(histogram_bucket(3, WAL_SYNC_BUCKETS), 2);
    assert_int_equal(histogram_bucket(4, WAL_SYNC_BUCKETS), 3);
    assert_int_equal(histogram_bucket(UINT64_MAX, WAL_SYNC_BUCKETS), WAL_SYNC_BUCKETS - 1);
    buckets[7] = 98; /* 64 to 127 */
    buckets[10] = 2; /* 512 to 1023 */
    assert_int_equal(histogram_quantile(buckets, WAL_SYNC_BUCKETS, 700, 500), 127);
    assert_int_equal(histogram_quantile(buckets, WAL_SYNC_BUCKETS, 700, 980), 127);
    assert_int_equal(histogram_quantile(buckets, WAL_SYNC_BUCKETS, 700, 990), 700); /* no more than the longest */
    assert_int_equal(histogram_quantile(buckets, WAL_SYNC_BUCKETS, 2000, 990), 1023);
    buckets[WAL_SYNC_BUCKETS - 1] = 1000;
    assert_int_equal(histogram_quantile(buckets, WAL_SYNC_BUCKETS, 1u << 30, 990), 1u << 30);
}

/* ---- Segments --------------------------------------------------------------------------------------------------- */

enum { INFOS_MAX = 32 };

struct account {
    struct wal_segment_info infos[INFOS_MAX];
    size_t count;
};

static void note(void *context, const struct wal_segment_info *info) {
    struct account *account = context;
    assert_true(account->count < INFOS_MAX);
    account->infos[account->count++] = *info;
}

static struct account explain(struct harness *harness) {
    struct account account = {.count = 0};
    wal_explain(harness->wal, note, &account);
    return account;
}

static const struct wal_segment_info *of_state(const struct account *account, enum wal_segment_state state) {
    for (size_t i = 0; i < account->count; i++) {
        if (account->infos[i].state == state) {
            return &account->infos[i];
        }
    }
    return NULL;
}

/* Three segments at least, on records of one block each. */
static struct harness *three_segments(void) {
    struct harness *harness = harness_new(1);
    harness_up(harness);
    harness_write(harness, 1, 120, 1);
    wal_set_commit(harness->wal, 120);
    return harness;
}

static void test_wal_explain_tells_every_segment_and_why(void **state) {
    (void)state;
    struct harness *harness = three_segments();
    harness->fake->now_us += 5000000;
    struct account account = explain(harness);
    assert_int_equal(account.count, stats_of(harness).segments);
    assert_int_equal(wal_floor_index(harness->wal), 0);
    uint64_t next = 1;
    for (size_t i = 0; i + 1 < account.count; i++) {
        const struct wal_segment_info *info = &account.infos[i];
        bool is_active = i + 2 == account.count;
        assert_int_equal(info->number, i + 1);
        assert_int_equal(info->state, is_active ? WAL_SEGMENT_ACTIVE : WAL_SEGMENT_KEPT);
        assert_int_equal(info->file_bytes, 256 * 1024);
        assert_true(info->used_bytes > WAL_FIRST_RECORDS_OFFSET && info->used_bytes <= info->file_bytes);
        assert_int_equal(info->first_index, next);
        assert_true(info->last_index >= info->first_index);
        assert_true(info->age_us >= 5000000);
        assert_false(info->begun_before_opened);
        next = info->last_index + 1;
        uint32_t pins = WAL_PIN_FLOOR | (i > 0 ? WAL_PIN_ORDER : 0);
        assert_int_equal(info->pins, is_active ? pins | WAL_PIN_ACTIVE | WAL_PIN_NEWEST_DURABLE : pins);
    }
    assert_int_equal(next, 121);
    const struct wal_segment_info *prepared = &account.infos[account.count - 1];
    assert_int_equal(prepared->state, WAL_SEGMENT_PREPARED);
    assert_int_equal(prepared->pins, 0);
    assert_int_equal(prepared->first_index + prepared->last_index + prepared->age_us, 0);
    harness_free(harness);
}

static void test_wal_explain_follows_floor_and_reader(void **state) {
    (void)state;
    struct harness *harness = three_segments();
    struct account account = explain(harness);
    uint64_t last_of_first = account.infos[0].last_index;
    wal_set_applied(harness->wal, 120);
    /* As a read from disk does (test_wal_read.c has real ones). */
    LIST_ENTRY(harness->wal->segments.next, struct wal__segment, link)->readers = 1;
    wal_set_floor(harness->wal, 120, last_of_first);
    fake_settle(harness->fake);
    account = explain(harness);
    assert_int_equal(wal_floor_index(harness->wal), last_of_first);
    assert_int_equal(account.infos[0].number, 1);
    assert_int_equal(account.infos[0].pins, WAL_PIN_READER); /* the floor has passed it */
    assert_int_equal(account.infos[0].readers, 1);
    assert_int_equal(account.infos[1].pins, WAL_PIN_FLOOR | WAL_PIN_ORDER);

    /* The reader goes: what nothing keeps is on its way out, then gone. */
    LIST_ENTRY(harness->wal->segments.next, struct wal__segment, link)->readers = 0;
    wal__delete_more(harness->wal);
    account = explain(harness);
    assert_int_equal(account.infos[0].number, 1);
    assert_int_equal(account.infos[0].state, WAL_SEGMENT_DOOMED);
    assert_int_equal(account.infos[0].pins, 0);
    fake_settle(harness->fake);
    account = explain(harness);
    assert_int_equal(account.infos[0].number, 2);
    assert_null(of_state(&account, WAL_SEGMENT_DOOMED));

    /* Without any need for records, one stays: it has term, vote and membership. */
    wal_set_floor(harness->wal, 120, 120);
    fake_settle(harness->fake);
    account = explain(harness);
    assert_int_equal(account.infos[0].state, WAL_SEGMENT_ACTIVE);
    assert_int_equal(account.infos[0].pins, WAL_PIN_ACTIVE | WAL_PIN_NEWEST_DURABLE);
    harness_free(harness);
}

static void test_wal_explain_after_reopening_knows_what_is_older(void **state) {
    (void)state;
    struct harness *harness = three_segments();
    harness->fake->now_us += 1000000;
    harness_close(harness);
    harness_up(harness);
    harness->fake->now_us += 2000000;
    struct account account = explain(harness);
    assert_true(account.infos[0].begun_before_opened);
    assert_int_equal(account.infos[0].age_us, 2000000);
    const struct wal_segment_info *active = of_state(&account, WAL_SEGMENT_ACTIVE);
    assert_non_null(active);
    assert_false(active->begun_before_opened);
    assert_int_equal(active->age_us, 2000000);
    harness_free(harness);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_stats_count_each_group_by_its_trigger),
        cmocka_unit_test(test_histogram_buckets_and_quantiles),
        cmocka_unit_test(test_wal_explain_tells_every_segment_and_why),
        cmocka_unit_test(test_wal_explain_follows_floor_and_reader),
        cmocka_unit_test(test_wal_explain_after_reopening_knows_what_is_older),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
