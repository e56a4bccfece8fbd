/*
 * Reading records back while the log lives: from memory, from disk, across cuts, deletions and damage.
 *
 * What would break these: records handed out unchecked (hazard 36 begins there) or after they were cut off; a segment
 * deleted under a read; done called from inside wal_read; more than WAL_READS_MAX reads at the disk; memory kept after
 * release.
 */
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct read_probe {
    struct wal_read read; /* first */
    int done_calls;
};

static void probe_done(struct wal_read *read) { CONTAINER_OF(read, struct read_probe, read)->done_calls++; }

static void probe_start(struct harness *harness, struct read_probe *probe, uint64_t first, uint32_t count,
                        size_t bytes) {
    *probe =
        (struct read_probe){.read = {.first_index = first, .count_max = count, .bytes_max = bytes, .done = probe_done}};
    wal_read(harness->wal, &probe->read);
    assert_int_equal(probe->done_calls, 0); /* never from inside */
}

/* Checks all records of an answered read; returns the index behind the last. */
static uint64_t probe_check(struct read_probe *probe, const uint64_t *terms) {
    assert_int_equal(probe->done_calls, 1);
    assert_int_equal(probe->read.status, STATUS_OK);
    assert_true(probe->read.count > 0);
    struct slice cursor = probe->read.records;
    uint64_t index = probe->read.first_index;
    for (uint32_t i = 0; i < probe->read.count; i++, index++) {
        struct wal_record record;
        assert_int_equal(wal_record_decode(&cursor, &record, NULL), STATUS_OK);
        uint64_t term = terms == NULL ? 1 : terms[index];
        assert_true(harness_is_right(&record, index, term, record.payload.len));
    }
    assert_int_equal(cursor.len, 0);
    wal_read_release(&probe->read);
    return index;
}

/* 1..last written, committed and applied, with nearly nothing left in memory. */
static struct harness *on_disk(uint64_t last) {
    struct harness *harness = harness_new(5);
    harness->options.cache_bytes_max = 0;
    harness_up(harness);
    harness_write(harness, 1, last, 1);
    wal_set_commit(harness->wal, last);
    wal_set_applied(harness->wal, last);
    struct wal_record record;
    assert_int_equal(wal_cached_record(harness->wal, last, &record), STATUS_NOT_FOUND);
    return harness;
}

static void test_wal_read_from_memory_shares_the_group(void **state) {
    (void)state;
    struct harness *harness = harness_new(5);
    harness_up(harness);
    harness_append_ok(harness, 1, 10, 1);
    fake_settle(harness->fake);
    struct read_probe probe;
    probe_start(harness, &probe, 4, 100, 1u << 20);
    fake_turn(harness->fake);
    assert_int_equal(harness->fake->counts.async_reads, 0);
    assert_int_equal(probe.read.count, 7);
    /* The records stay though the cache lets go of them. */
    harness->wal->options.cache_bytes_max = 0;
    wal_set_commit(harness->wal, 10);
    wal_set_applied(harness->wal, 10);
    harness_append_ok(harness, 11, 14, 1);
    fake_settle(harness->fake);
    assert_int_equal(probe_check(&probe, NULL), 11);
    harness_free(harness);
}

static void test_wal_read_of_forming_records_is_a_copy(void **state) {
    (void)state;
    struct harness *harness = harness_new(5);
    harness_up(harness);
    harness_append_ok(harness, 1, 3, 1);
    struct read_probe probe;
    probe_start(harness, &probe, 2, 100, 1u << 20);
    for (uint64_t index = 4; index < 30; index++) {
        assert_int_equal(harness_append_len(harness, index, 1, 1000), STATUS_OK); /* the group moves as it grows */
    }
    fake_settle(harness->fake);
    assert_int_equal(probe_check(&probe, NULL), 4);
    harness_free(harness);
}

static void test_wal_read_from_disk_finds_every_record(void **state) {
    (void)state;
    struct harness *harness = on_disk(400);
    for (uint64_t first = 1; first <= 400; first += 7) {
        struct read_probe probe;
        probe_start(harness, &probe, first, 1, 1);
        fake_settle(harness->fake);
        assert_int_equal(probe_check(&probe, NULL), first + 1);
    }
    struct read_probe probe;
    uint64_t next = 1;
    uint64_t reads = 0;
    while (next <= 400) {
        probe_start(harness, &probe, next, 1000, 64 * 1024);
        fake_settle(harness->fake);
        assert_true(probe.read.records.len <= 64 * 1024 || probe.read.count == 1);
        next = probe_check(&probe, NULL);
        reads++;
    }
    assert_true(reads < 60); /* groups are read together */
    assert_true(harness->wal->stats.cache_misses > 0);
    harness_free(harness);
}

static void test_wal_read_after_restart_finds_every_record(void **state) {
    (void)state;
    struct harness *harness = on_disk(150);
    harness_crash(harness);
    harness_up(harness);
    uint64_t next = 1;
    while (next <= 150) {
        struct read_probe probe;
        probe_start(harness, &probe, next, 20, 100 * 1024);
        fake_settle(harness->fake);
        next = probe_check(&probe, NULL);
    }
    harness_free(harness);
}

/* Random appends, cuts and group sizes; every record is then read from disk. */
static void test_wal_read_from_disk_never_returns_cut_records(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct harness *harness = harness_new(seed);
        harness->options.cache_bytes_max = 0;
        harness->options.segment_bytes = 512 * 1024;
        harness_up(harness);
        static uint64_t terms[HARNESS_INDEX_MAX];
        struct random random;
        random_seed(&random, seed);
        uint64_t term = 1;
        uint64_t last = 0;
        uint64_t commit = 0;
        for (int round = 0; round < 300; round++) {
            if (random_chance(&random, 1, 6) && last > commit) {
                term++;
                last -= random_below(&random, last - commit + 1);
            }
            uint64_t count = last < wal_last_index(harness->wal) ? 1 : 0; /* a cut is made by an append */
            for (uint64_t n = count + random_below(&random, 6); n > 0; n--) {
                terms[++last] = term;
                harness_append_ok(harness, last, last, term);
            }
            if (random_chance(&random, 1, 2)) {
                fake_settle(harness->fake);
            } else {
                fake_turn(harness->fake);
            }
            if (random_chance(&random, 1, 8) && wal_synced_index(harness->wal) > commit + 3) {
                commit = wal_synced_index(harness->wal) - 3;
                wal_set_commit(harness->wal, commit);
            }
        }
        fake_settle(harness->fake);
        wal_set_commit(harness->wal, last);
        wal_set_applied(harness->wal, last);
        uint64_t next = 1;
        while (next <= last) {
            struct read_probe probe;
            probe_start(harness, &probe, next, 1 + (uint32_t)random_below(&random, 50), 200 * 1024);
            fake_settle(harness->fake);
            next = probe_check(&probe, terms);
        }
        harness_free(harness);
    }
}

static void test_wal_read_cut_while_reading_looks_again(void **state) {
    (void)state;
    struct harness *harness = harness_new(5);
    harness->options.cache_bytes_max = 0;
    harness_up(harness);
    harness_write(harness, 1, 30, 1);
    while (harness->wal->cache.count > 5) { /* as if it had been beyond what recovery keeps in memory */
        wal__cache_pop(harness->wal);
    }
    struct read_probe kept;
    struct read_probe cut;
    struct read_probe gone;
    probe_start(harness, &kept, 10, 3, 1u << 20);
    probe_start(harness, &cut, 20, 100, 1u << 20);
    probe_start(harness, &gone, 24, 100, 1u << 20);
    harness_append_ok(harness, 20, 22, 2); /* cuts what two of them read */
    fake_settle(harness->fake);
    uint64_t terms[32];
    for (size_t i = 0; i < 32; i++) {
        terms[i] = i < 20 ? 1 : 2;
    }
    assert_int_equal(probe_check(&kept, terms), 13);
    assert_int_equal(probe_check(&cut, terms), 23);
    assert_int_equal(gone.done_calls, 1);
    assert_int_equal(gone.read.status, STATUS_NOT_FOUND);
    wal_read_release(&gone.read);
    harness_free(harness);
}

static void test_wal_read_outside_the_log_is_not_found(void **state) {
    (void)state;
    struct harness *harness = on_disk(120);
    wal_set_floor(harness->wal, 120, 120);
    fake_settle(harness->fake);
    struct read_probe below;
    struct read_probe above;
    probe_start(harness, &below, wal_first_index(harness->wal) - 1, 1, 1);
    probe_start(harness, &above, 121, 1, 1);
    fake_turn(harness->fake);
    assert_int_equal(below.read.status, STATUS_NOT_FOUND);
    assert_int_equal(above.read.status, STATUS_NOT_FOUND);
    assert_int_equal(below.done_calls + above.done_calls, 2);
    harness_free(harness);
}

static void test_wal_read_holds_back_deletion(void **state) {
    (void)state;
    struct harness *harness = on_disk(120);
    struct read_probe probe;
    probe_start(harness, &probe, 5, 3, 1u << 20);
    fake_turn(harness->fake);
    wal_set_floor(harness->wal, 120, 120);
    while (fake_run_work(harness->fake)) {
        fake_turn(harness->fake);
    }
    assert_int_equal(harness->fake->counts.unlinks, 0);
    fake_settle(harness->fake);
    assert_int_equal(probe_check(&probe, NULL), 8);
    assert_true(harness->fake->counts.unlinks > 0);
    harness_free(harness);
}

static void test_wal_reads_at_the_disk_are_bounded(void **state) {
    (void)state;
    struct harness *harness = on_disk(100);
    static struct read_probe probes[40];
    for (uint64_t i = 0; i < 40; i++) {
        probe_start(harness, &probes[i], 1 + i * 2, 1, 1);
    }
    fake_turn(harness->fake);
    assert_int_equal(harness->fake->counts.async_reads, WAL_READS_MAX);
    fake_settle(harness->fake);
    for (uint64_t i = 0; i < 40; i++) {
        assert_int_equal(probe_check(&probes[i], NULL), 2 + i * 2);
    }
    harness_free(harness);
}

/* h36: a damaged byte anywhere in what is read is an error, never records. */
static void test_h36_damaged_bytes_are_found_by_reads(void **state) {
    (void)state;
    struct harness *harness = on_disk(20);
    struct fake_inode *inode = harness_inode(harness, 1);
    uint64_t refused = 0;
    for (uint64_t at = WAL_FIRST_RECORDS_OFFSET; at < harness->wal->active->end; at += 61) {
        harness_flip(inode, at, (unsigned)(at % 8));
        uint64_t next = 1;
        while (next <= 20) {
            struct read_probe probe;
            probe_start(harness, &probe, next, 4, 1u << 20);
            fake_settle(harness->fake);
            assert_int_equal(probe.done_calls, 1);
            if (probe.read.status != STATUS_OK) {
                assert_int_equal(probe.read.status, STATUS_CORRUPT);
                assert_non_null(strstr(probe.read.error.message, "0000000000000001.log"));
                refused++;
                break;
            }
            next = probe_check(&probe, NULL);
        }
        harness_flip(inode, at, (unsigned)(at % 8));
    }
    assert_true(refused > 20); /* the rest hit padding */
    harness_free(harness);
}

static void test_h36_read_error_is_told_and_not_final(void **state) {
    (void)state;
    struct harness *harness = on_disk(20);
    assert_int_equal(fault_arm(&harness->fake->faults, "wal.read=error(EIO),count=1", NULL), STATUS_OK);
    struct read_probe probe;
    probe_start(harness, &probe, 3, 4, 1u << 20);
    fake_settle(harness->fake);
    assert_int_equal(probe.read.status, STATUS_IO);
    assert_int_equal(probe.read.error.sys, EIO);
    assert_int_equal(probe.read.count, 0);
    wal_read_release(&probe.read);
    probe_start(harness, &probe, 3, 4, 1u << 20);
    fake_settle(harness->fake);
    assert_int_equal(probe_check(&probe, NULL), 7);
    harness_write(harness, 21, 22, 1);
    harness_free(harness);
}

/* h48's rule: a file shorter than what is known to be there ends a read, it doesn't repeat it. */
static void test_h48_short_file_ends_the_read(void **state) {
    (void)state;
    struct harness *harness = on_disk(20);
    struct fake_inode *inode = harness_inode(harness, 1);
    uint64_t size = inode->size;
    inode->size = WAL_FIRST_RECORDS_OFFSET + 3 * WAL_BLOCK_BYTES;
    struct read_probe probe;
    probe_start(harness, &probe, 15, 4, 1u << 20);
    fake_settle(harness->fake);
    assert_int_equal(probe.read.status, STATUS_CORRUPT);
    inode->size = size;
    harness_free(harness);
}

static void test_wal_read_without_memory_is_told(void **state) {
    (void)state;
    struct harness *harness = on_disk(20);
    struct read_probe probe;
    wal__pool_deinit(&harness->wal->pool); /* no buffer kept for reuse */
    wal__pool_init(&harness->wal->pool, harness->wal->alloc);
    test_alloc_fail(&harness->fake->memory, 1, false);
    probe_start(harness, &probe, 3, 4, 1u << 20);
    fake_settle(harness->fake);
    test_alloc_fail(&harness->fake->memory, 0, false);
    assert_int_equal(probe.read.status, STATUS_NO_MEMORY);
    harness_free(harness);
}

static void test_wal_close_drops_reads_without_answer(void **state) {
    (void)state;
    struct harness *harness = on_disk(60);
    static struct read_probe probes[20];
    for (uint64_t i = 0; i < 20; i++) {
        probe_start(harness, &probes[i], 1 + i, 1, 1);
    }
    fake_turn(harness->fake);
    harness_close(harness);
    for (uint64_t i = 0; i < 20; i++) {
        assert_int_equal(probes[i].done_calls, 0);
    }
    harness_free(harness);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_read_from_memory_shares_the_group),
        cmocka_unit_test(test_wal_read_of_forming_records_is_a_copy),
        cmocka_unit_test(test_wal_read_from_disk_finds_every_record),
        cmocka_unit_test(test_wal_read_after_restart_finds_every_record),
        cmocka_unit_test(test_wal_read_from_disk_never_returns_cut_records),
        cmocka_unit_test(test_wal_read_cut_while_reading_looks_again),
        cmocka_unit_test(test_wal_read_outside_the_log_is_not_found),
        cmocka_unit_test(test_wal_read_holds_back_deletion),
        cmocka_unit_test(test_wal_reads_at_the_disk_are_bounded),
        cmocka_unit_test(test_h36_damaged_bytes_are_found_by_reads),
        cmocka_unit_test(test_h36_read_error_is_told_and_not_final),
        cmocka_unit_test(test_h48_short_file_ends_the_read),
        cmocka_unit_test(test_wal_read_without_memory_is_told),
        cmocka_unit_test(test_wal_close_drops_reads_without_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
