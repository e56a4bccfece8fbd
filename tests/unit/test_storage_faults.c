/*
 * What the engine does when disk or memory fail: full disks, failed writes and syncs, bad blocks, failed allocations.
 *
 * Would break these: a failed sync that is tried again on the same file; a manifest failure that is survived; a full
 * disk that is fatal, loses data or keeps the store from opening; a bad block that stops writes or hurts other keys; a
 * wrong value from a damaged table; a leak or half an entry after a failed allocation.
 */
#include "storage/manifest.h"
#include "tests/unit/storage_fixture.h"

#include <stdlib.h>

static void arm(const char *specification) {
    assert_int_equal(fault_arm(sim_node_faults(host.node), specification, NULL), STATUS_OK);
}

static void disarm(enum fault_hook hook) { fault_disarm(sim_node_faults(host.node), hook); }

static bool has_failed(void *context) { return ((struct host *)context)->failed_count > 0; }

/* ---- Flush ---------------------------------------------------------------------------------------------------- */

static void test_h31_full_disk_during_flush_is_waited_out(void **state) {
    (void)state;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    arm("flush.write=error(ENOSPC)");
    storage_flush(host.storage);
    host_run_ms(&host, 3500);
    assert_int_equal(host.full_count, 1);
    assert_int_equal(host.free_count, 0);
    assert_int_equal(host.failed_count, 0);
    assert_int_equal(tables_on_disk(), 0);
    host_assert(&host, "a", "1");
    (void)host_delete(&host, "a"); /* writes go on */
    host_assert(&host, "a", NULL);
    disarm(FAULT_FLUSH_WRITE);
    assert_true(host_wait(&host, host_is_settled));
    assert_int_equal(host.full_count, 1);
    assert_int_equal(host.free_count, 1);
    assert_int_equal(host.flushed.index, 1);
    host_close(&host);
}

static void test_h31_store_opens_on_a_full_disk(void **state) {
    (void)state;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    host_flush(&host);
    host_crash(&host, SIM_CRASH_POWER);
    for (int i = 0; i < 3; i++) {
        arm("manifest.write=error(ENOSPC);flush.write=error(ENOSPC)");
        host_open(&host);
        host_assert(&host, "a", "1");
        host_crash(&host, SIM_CRASH_PROCESS);
    }
    host_open(&host);
    (void)host_put(&host, "b", "1");
    host_flush(&host);
    host_reopen(&host);
    host_assert_scan(&host, 2, "", "", "a=1 b=1");
    host_close(&host);
}

static void test_h31_rotation_without_space_goes_on_in_the_old_manifest(void **state) {
    (void)state;
    host.options.manifest_bytes_max = 16 * 1024;
    host_compact_nothing(&host);
    host_open(&host);
    (void)host_put(&host, "a", "1");
    host_flush(&host); /* from the second edit on the bound is passed */
    for (int i = 0; i < 10; i++) {
        (void)host_put(&host, "a", "1");
        arm("manifest.write=error(ENOSPC),count=1"); /* the first write of the new file; the append after it works */
        host_flush(&host);
        assert_true(atomic_load(&sim_node_faults(host.node)->rules[FAULT_MANIFEST_WRITE].hits) >= 3);
        disarm(FAULT_MANIFEST_WRITE);
    }
    assert_int_equal(host.failed_count, 0);
    assert_int_equal(env_unlink(host.env, "/data/MANIFEST-0000000000000004", NULL), STATUS_NOT_FOUND);
    host_crash(&host, SIM_CRASH_POWER);
    host_open(&host);
    assert_int_equal(storage_frontier(host.storage)->index, 11);
    host_assert(&host, "a", "1");
    host_close(&host);
}

/* Tables still fit, but no more space for the manifest can be prepared: edits wait, nothing fails, all goes on when
 * there is room. */
static void test_h31_edits_wait_for_space_in_the_manifest(void **state) {
    (void)state;
    uint64_t free_bytes;
    uint64_t total_bytes;
    host.options.manifest_bytes_max = 1024 * 1024;
    host_compact_nothing(&host);
    host_open(&host);
    uint64_t capacity_bytes = sim_disk_options(host.node)->capacity_bytes;
    for (int i = 0; i < 40 && host.full_count == 0; i++) {
        assert_int_equal(env_disk_space(host.env, "/data", &free_bytes, &total_bytes, NULL), STATUS_OK);
        sim_disk_options(host.node)->capacity_bytes = total_bytes - free_bytes + 32 * 1024;
        (void)host_put(&host, "a", "1");
        storage_flush(host.storage);
        host_run_ms(&host, 100);
    }
    assert_int_equal(host.full_count, 1);
    assert_true(stats().immutable_memtables > 0);
    assert_true(stats().flushes >= MANIFEST_PREPARED_BYTES / (2 * MANIFEST_BLOCK_BYTES));
    host_run_ms(&host, 5000);
    assert_int_equal(host.failed_count, 0);
    assert_int_equal(host.free_count, 0);
    host_assert(&host, "a", "1");
    sim_disk_options(host.node)->capacity_bytes = capacity_bytes;
    assert_true(host_wait(&host, host_all_flushed));
    assert_int_equal(host.failed_count, 0);
    assert_int_equal(host.free_count, 1);
    host_reopen(&host);
    host_assert(&host, "a", "1");
    host_close(&host);
}

static void test_h27_failed_sync_of_a_table_is_never_repeated(void **state) {
    (void)state;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    arm("flush.sync=error(EIO),count=1");
    storage_flush(host.storage);
    assert_true(host_wait(&host, host_all_flushed));
    assert_int_equal(host.failed_count, 0);
    assert_int_equal(tables_on_disk(), 1);
    /* Table 2 was the attempt whose sync failed: it is gone, another file took its place. */
    assert_int_equal(env_unlink(host.env, "/data/0000000000000002.sst", NULL), STATUS_NOT_FOUND);
    host_reopen(&host);
    host_assert(&host, "a", "1");
    host_close(&host);
}

static void test_storage_flush_that_keeps_failing_is_final(void **state) {
    (void)state;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    arm("flush.write=error(EIO)");
    storage_flush(host.storage);
    assert_true(host_wait(&host, has_failed));
    host_run_ms(&host, 20000);
    assert_int_equal(host.failed_count, 1);
    assert_int_equal(host.failed.code, STATUS_IO);
    assert_non_null(strstr(host.failed.message, ".sst"));
    assert_int_equal(host.flushed_count, 0);
    assert_int_equal(tables_on_disk(), 0);
    host_assert(&host, "a", "1");
    host_close(&host);
}

/* ---- Manifest ------------------------------------------------------------------------------------------------- */

/* One failure: if the call were made again, it would succeed. */
static void check_manifest_failure_is_final(const char *specification, enum fault_hook hook, bool rotating) {
    host.options.manifest_bytes_max = rotating ? 4096 : 1024 * 1024;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    host_flush(&host);
    for (int i = 0; rotating && i < 3; i++) { /* until the bound of twice the snapshot is near */
        (void)host_put(&host, "a", "1");
        host_flush(&host);
    }
    (void)host_put(&host, "b", "1");
    unsigned flushed = host.flushed_count;
    arm(specification);
    for (unsigned i = 0; host.failed_count == 0; i++) {
        assert_true(i < 50); /* else the failure was not told */
        storage_flush(host.storage);
        host_run_ms(&host, 100);
        if (host.failed_count == 0) {
            flushed = host.flushed_count;
            (void)host_put(&host, "b", "1");
        }
    }
    assert_int_equal(host.failed_count, 1);
    assert_int_equal(host.flushed_count, flushed);
    uint64_t hits = atomic_load(&sim_node_faults(host.node)->rules[hook].hits);
    (void)host_put(&host, "c", "1");
    storage_flush(host.storage);
    host_run_ms(&host, 5000);
    assert_int_equal(atomic_load(&sim_node_faults(host.node)->rules[hook].hits), hits);
    assert_int_equal(host.failed_count, 1);
    assert_int_equal(host.flushed_count, flushed);
    /* Whether the edit counts is open; everything before it does. */
    uint64_t acknowledged = host.flushed.index;
    host_crash(&host, SIM_CRASH_POWER);
    host_open(&host);
    assert_true(storage_frontier(host.storage)->index >= acknowledged);
    host_assert(&host, "a", "1");
    host_close(&host);
}

static void test_h27_failed_manifest_write_is_final(void **state) {
    (void)state;
    check_manifest_failure_is_final("manifest.write=error(EIO),count=1", FAULT_MANIFEST_WRITE, false);
}

static void test_h27_failed_manifest_sync_is_final(void **state) {
    (void)state;
    check_manifest_failure_is_final("manifest.sync=error(EIO),count=1", FAULT_MANIFEST_SYNC, false);
}

static void test_h27_failed_sync_of_the_mark_is_final(void **state) {
    (void)state;
    check_manifest_failure_is_final("manifest.sync=error(EIO),after=1,count=1", FAULT_MANIFEST_SYNC, false);
}

static void test_h27_failed_manifest_rename_is_final(void **state) {
    (void)state;
    check_manifest_failure_is_final("manifest.rename=error(ENOSPC),count=1", FAULT_MANIFEST_RENAME, true);
}

/* ---- Bad blocks ----------------------------------------------------------------------------------------------- */

enum { TABLES_REVISION = 3 * 42 };

/* Three tables of 42 keys each in level 0, 40 of them only there. Returns after a restart without any cache. */
static void make_tables(void) {
    host_compact_nothing(&host);
    host_open(&host);
    for (unsigned table = 0; table < 3; table++) {
        (void)host_put(&host, "0", "1"); /* all three overlap: they must be compacted together */
        (void)host_put(&host, "z", "1");
        for (unsigned i = 0; i < 40; i++) {
            char key[16];
            (void)snprintf(key, sizeof key, "%c%02u", 'a' + table, i);
            (void)host_put(&host, key, "a value of some length, so that there are several blocks");
        }
        host_flush(&host);
    }
}

static void test_h50_bad_block_hurts_only_its_reads(void **state) {
    (void)state;
    struct error err;
    make_tables();
    assert_int_equal(sim_disk_corrupt(host.node, "/data/0000000000000003.sst", 100, 4), STATUS_OK);
    unsigned bad = 0;
    for (unsigned i = 0; i < 40; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "b%02u", i);
        enum status status = host_get_at(&host, slice_of_string(key), TABLES_REVISION, NULL, &err);
        if (status == STATUS_CORRUPT) {
            assert_non_null(strstr(err.message, "/data/0000000000000003.sst"));
            assert_non_null(strstr(err.message, "offset 64"));
            bad++;
        } else {
            assert_int_equal(status, STATUS_OK);
        }
    }
    assert_true(bad > 0 && bad < 15);
    host_assert(&host, "a00", "a value of some length, so that there are several blocks");
    host_assert(&host, "c39", "a value of some length, so that there are several blocks");
    /* A scan fails where it meets the block, and stays failed. */
    struct storage_view *view = storage_view_acquire(host.storage);
    struct storage_iterator_options options = {.revision = TABLES_REVISION,
                                               .lower = slice_of_string("b"),
                                               .upper = slice_of_string("c")};
    struct storage_iterator *iterator;
    assert_int_equal(storage_iterator_new(view, NULL, &options, &iterator, NULL), STATUS_OK);
    assert_int_equal(storage_iterator_first(iterator, &err), STATUS_CORRUPT);
    assert_int_equal(storage_iterator_first(iterator, &err), STATUS_CORRUPT);
    storage_iterator_free(iterator);
    storage_view_release(view);
    host_close(&host);
}

static bool has_compacted(void *context) {
    (void)context;
    return stats().compaction_count > 0;
}

static void test_h50_compaction_that_meets_a_bad_block_stops_no_other(void **state) {
    (void)state;
    make_tables();
    assert_int_equal(sim_disk_corrupt(host.node, "/data/0000000000000003.sst", 100, 4), STATUS_OK);
    host_close(&host);
    host.options.l0_files_compact = 3;
    host.options.l0_files_slow = 4;
    host.options.l0_files_stop = 6;
    host_open(&host);
    host_run_ms(&host, 1000);
    assert_int_equal(stats().compaction_failures, 1);
    assert_int_equal(stats().damaged_tables, 1);
    assert_non_null(strstr(stats().problem, "/data/0000000000000003.sst"));
    assert_int_equal(host.failed_count, 0);
    assert_int_equal(tables_on_disk(), 3);
    /* The two other tables go on with whatever comes. */
    (void)host_put(&host, "new", "1");
    host_flush(&host);
    assert_true(host_wait(&host, has_compacted));
    assert_true(host_deep_files(&host) > 0);
    host_assert(&host, "a07", "a value of some length, so that there are several blocks");
    /* What is written over the bad table stays above it: more and more tables, but no write waits for them. */
    for (unsigned i = 0; i < 30; i++) {
        assert_true(storage_can_apply(host.storage));
        assert_int_equal(storage_pace_us(host.storage, 1000), 0);
        (void)host_put(&host, "b00", "1");
        (void)host_put(&host, "b39", "1");
        host_flush(&host);
    }
    host_run_ms(&host, 100);
    assert_true(stats().files[0] < 12); /* merged among themselves */
    host_assert(&host, "b00", "1");
    host_assert_at(&host, "a07", TABLES_REVISION, "a value of some length, so that there are several blocks");
    host_run_ms(&host, 1000 * 1000);
    assert_in_range(stats().compaction_failures, 4, 12); /* tried again, ever more rarely */
    assert_int_equal(stats().damaged_tables, 1);
    assert_int_equal(host.failed_count, 0);
    host_close(&host);
}

static struct storage_compact by_hand;
static enum status by_hand_status;
static unsigned by_hand_ends;

static void on_compacted(struct storage_compact *compact, enum status status) {
    assert_ptr_equal(compact, &by_hand);
    by_hand_status = status;
    by_hand_ends++;
}

static bool by_hand_ended(void *context) {
    (void)context;
    return by_hand_ends > 0;
}

/* Whoever asks for a compaction learns that it can't be done; asking once more tries once more. */
static void test_h50_compaction_by_hand_ends_at_a_bad_block(void **state) {
    (void)state;
    make_tables();
    assert_int_equal(sim_disk_corrupt(host.node, "/data/0000000000000003.sst", 100, 4), STATUS_OK);
    host_close(&host);
    host_open(&host);
    for (unsigned ends = 1; ends <= 2; ends++) {
        by_hand_ends = 0;
        uint64_t failures = stats().compaction_failures;
        by_hand = (struct storage_compact){.done = on_compacted};
        storage_compact_range(host.storage, &by_hand);
        assert_true(host_wait(&host, by_hand_ended));
        assert_int_equal(by_hand_status, STATUS_CORRUPT);
        assert_non_null(strstr(by_hand.error.message, "/data/0000000000000003.sst"));
        assert_true(stats().compaction_failures > failures);
    }
    assert_int_equal(host.failed_count, 0);
    host_close(&host);
}

/* It waits out a full disk, but not a disk that refuses: whoever asked would wait for ever. */
static void test_h50_compacting_a_range_ends_when_nothing_can_be_written(void **state) {
    (void)state;
    make_tables();
    host_reopen(&host);
    arm("flush.write=error(EIO)");
    for (unsigned rounds = 0; rounds < 2; rounds++) {
        by_hand_ends = 0;
        by_hand = (struct storage_compact){.done = on_compacted};
        storage_compact_range(host.storage, &by_hand);
        host_run_ms(&host, 1500);
        assert_int_equal(by_hand_ends, rounds); /* the first time it may be a passing trouble */
        assert_true(host_wait(&host, by_hand_ended));
        assert_int_equal(by_hand_status, STATUS_IO);
        assert_non_null(strstr(by_hand.error.message, ".sst"));
    }
    disarm(FAULT_FLUSH_WRITE);
    by_hand_ends = 0;
    by_hand = (struct storage_compact){.done = on_compacted};
    storage_compact_range(host.storage, &by_hand);
    assert_true(host_wait(&host, by_hand_ended));
    assert_int_equal(by_hand_status, STATUS_OK);
    assert_int_equal(host.failed_count, 0);
    host_assert(&host, "a07", "a value of some length, so that there are several blocks");
    host_close(&host);
}

static void test_h50_merge_goes_on_when_reads_work_again(void **state) {
    (void)state;
    make_tables();
    host_close(&host);
    host.options.l0_files_compact = 3;
    arm("sst.read=error(EIO),after=20"); /* the openings work */
    host_open(&host);
    host_run_ms(&host, 1000);
    assert_true(stats().compaction_failures > 0);
    disarm(FAULT_SST_READ);
    assert_true(host_wait(&host, host_is_settled));
    assert_int_equal(stats().files[0], 0);
    host_assert(&host, "b07", "a value of some length, so that there are several blocks");
    host_close(&host);
}

static void test_storage_merge_retry_is_not_lost_to_an_earlier_one(void **state) {
    (void)state;
    make_tables();
    host_close(&host);
    host.options.l0_files_compact = 3;
    arm("sst.read=error(EIO),after=20");
    host_open(&host);
    host_run_ms(&host, 1000);
    assert_int_equal(stats().compaction_failures, 1); /* the next attempt: in half a minute */
    (void)host_put(&host, "z", "1");
    arm("flush.write=error(ENOSPC),count=2"); /* the flush's next attempt: in a second */
    storage_flush(host.storage);
    disarm(FAULT_SST_READ);
    assert_true(host_wait(&host, host_all_flushed));
    assert_int_equal(stats().compaction_count, 0);
    host_run_ms(&host, 40 * 1000);
    assert_int_equal(stats().compaction_count, 1);
    host_close(&host);
}

static void test_h31_full_disk_during_merge_drops_outputs_and_is_waited_out(void **state) {
    (void)state;
    make_tables();
    host_close(&host);
    host.options.l0_files_compact = 3;
    host.options.sst_bytes = 1024;
    arm("flush.write=error(ENOSPC),after=1"); /* one output gets done */
    host_open(&host);
    host_run_ms(&host, 3500);
    assert_int_equal(host.full_count, 1);
    assert_int_equal(tables_on_disk(), 3);
    disarm(FAULT_FLUSH_WRITE);
    assert_true(host_wait(&host, host_is_settled));
    host_run_ms(&host, 100);
    assert_int_equal(host.free_count, 1);
    assert_int_equal(stats().compaction_count, 1);
    host_assert(&host, "b07", "a value of some length, so that there are several blocks");
    host_close(&host);
}

/* ---- Every byte of a table ------------------------------------------------------------------------------------ */

struct table_copy {
    char path[64];
    uint8_t bytes[16 * 1024];
    size_t len;
};

static void read_table(struct table_copy *copy, const char *path) {
    struct env_file *file;
    (void)snprintf(copy->path, sizeof copy->path, "%s", path);
    assert_int_equal(env_open(host.env, path, ENV_OPEN_READ, &file, NULL), STATUS_OK);
    assert_int_equal(env_pread(file, copy->bytes, sizeof copy->bytes, 0, &copy->len, NULL), STATUS_OK);
    assert_true(copy->len < sizeof copy->bytes);
    env_close(file);
}

static void write_byte(const struct table_copy *copy, size_t offset, uint8_t byte) {
    struct env_file *file;
    assert_int_equal(env_open(host.env, copy->path, ENV_OPEN_WRITE, &file, NULL), STATUS_OK);
    assert_int_equal(env_pwrite(file, &byte, 1, offset, NULL), STATUS_OK);
    env_close(file);
}

/* What a flipped bit may lead to. */
static bool is_refused(enum status status) { return status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED; }

/* Reads everything while one byte of the table is wrong; returns how many reads failed. */
static unsigned read_damaged(const struct model *model) {
    unsigned refused = 0;
    struct error err;
    struct storage_view *view = storage_view_acquire(host.storage);
    for (unsigned key = 0; key < MODEL_KEYS; key++) {
        enum status status = model_check_key(model, view, key, model->count, &err);
        assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND || is_refused(status));
        refused += is_refused(status);
    }
    /* No byte of the file goes unchecked. */
    enum status status = model_check_scan(model, view, MODEL_KEYS, MODEL_KEYS, model->count, &err);
    assert_true(is_refused(status));
    assert_non_null(strstr(err.message, "0000000000000002.sst"));
    storage_view_release(view);
    return refused;
}

static void test_h35_any_flipped_bit_of_a_table_is_found(void **state) {
    (void)state;
    static struct model model;
    static struct table_copy copy;
    struct random random;
    random_seed(&random, 5);
    model.count = 0;
    host_compact_nothing(&host);
    host.options.block_bytes = 1024;
    host_open(&host);
    for (int i = 0; i < 12; i++) {
        (void)model_grow(&model, &random);
    }
    model_replay(&model, &host);
    host_flush(&host);
    host_close(&host);
    read_table(&copy, "/data/0000000000000002.sst");
    unsigned refused = 0;
    for (size_t offset = 0; offset < copy.len; offset++) {
        write_byte(&copy, offset, (uint8_t)(copy.bytes[offset] ^ (1u << random_below(&random, 8))));
        host_open(&host); /* whatever is wrong with a table hurts only its reads */
        refused += read_damaged(&model);
        host_close(&host);
        write_byte(&copy, offset, copy.bytes[offset]);
    }
    assert_true(refused > 1000);
    host_open(&host);
    model_check_all(&model, &host, model.count);
    host_close(&host);
}

static void test_h50_cut_table_hurts_only_its_reads(void **state) {
    (void)state;
    struct error err;
    make_tables();
    host_close(&host);
    struct env_file *file;
    assert_int_equal(env_open(host.env, "/data/0000000000000003.sst", ENV_OPEN_WRITE, &file, NULL), STATUS_OK);
    assert_int_equal(env_truncate(file, 700, NULL), STATUS_OK);
    env_close(file);
    host_open(&host);
    host_assert(&host, "c07", "a value of some length, so that there are several blocks");
    assert_int_equal(host_get_at(&host, slice_of_string("b07"), TABLES_REVISION, NULL, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, "0000000000000003.sst"));
    assert_true(stats().damaged_blocks > 0);
    assert_non_null(strstr(stats().problem, "0000000000000003.sst"));
    (void)host_put(&host, "b07", "1");
    host_flush(&host);
    host_assert(&host, "b07", "1");
    host_close(&host);
}

/* ---- Memory --------------------------------------------------------------------------------------------------- */

static void test_storage_open_with_failing_allocations_is_refused_cleanly(void **state) {
    (void)state;
    struct error err;
    make_tables();
    host_close(&host);
    uint64_t before = host_live_blocks(&host);
    uint64_t n = 0;
    enum status status;
    do {
        n++;
        sim_node_fail_allocation(host.node, n);
        status = host_try_open(&host, &err);
        sim_node_fail_allocation(host.node, 0);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_int_equal(host_live_blocks(&host), before);
        }
    } while (status != STATUS_OK);
    assert_true(n > 20);
    storage_start(host.storage);
    host_assert(&host, "b07", "a value of some length, so that there are several blocks");
    host_close(&host);
    assert_int_equal(host_live_blocks(&host), before);
}

static void test_storage_apply_with_a_failed_allocation_changes_nothing(void **state) {
    (void)state;
    static uint8_t value[40 * 1024];
    static uint8_t bytes[sizeof value + 64];
    host.options.memtable_bytes = 1024 * 1024;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    struct batch_operation operations[] = {
        {BATCH_DELETE, slice_of_string("a"), SLICE_EMPTY},
        {BATCH_PUT, slice_of_string("b"), slice_of(value, sizeof value)},
    };
    batch_encode(bytes, operations, 2);
    struct slice batch = slice_of(bytes, batch_size(operations, 2));
    unsigned failures = 0;
    for (uint64_t index = 2; index < 40; index++) {
        uint64_t memory = stats().memtable_bytes;
        sim_node_fail_allocation(host.node, 1);
        enum status status = storage_apply(host.storage, index, 1, batch, NULL);
        sim_node_fail_allocation(host.node, 0);
        if (status != STATUS_OK) {
            failures++;
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_int_equal(stats().memtable_bytes, memory);
            assert_int_equal(storage_applied_index(host.storage), index - 1);
            host_assert(&host, "a", index == 2 ? "1" : NULL);
            assert_int_equal(storage_apply(host.storage, index, 1, batch, NULL), STATUS_OK);
        }
    }
    assert_true(failures > 10);
    host_assert(&host, "a", NULL);
    host_close(&host);
}

static void test_storage_apply_of_a_malformed_batch_changes_nothing(void **state) {
    (void)state;
    struct error err;
    uint8_t bytes[64];
    host_open(&host);
    (void)host_put(&host, "a", "1");
    struct batch_operation operations[] = {
        {BATCH_DELETE, slice_of_string("a"), SLICE_EMPTY},
        {BATCH_PUT, slice_of_string("b"), slice_of_string("1")},
    };
    batch_encode(bytes, operations, 2);
    size_t len = batch_size(operations, 2);
    uint64_t memory = stats().memtable_bytes;
    assert_int_equal(storage_apply(host.storage, 2, 1, slice_of(bytes, len - 1), &err), STATUS_CORRUPT);
    assert_int_equal(stats().memtable_bytes, memory);
    host_assert(&host, "a", "1");
    assert_int_equal(storage_apply(host.storage, 2, 1, slice_of(bytes, len), &err), STATUS_OK);
    host_assert(&host, "a", NULL);
    host_close(&host);
}

/* Allocations fail now and then for as long as the workload runs: all that may happen is delay. */
static void test_storage_flush_and_merge_with_failing_allocations_end_well(void **state) {
    (void)state;
    static struct model model;
    struct random random;
    random_seed(&random, 3);
    model.count = 0;
    host_open(&host);
    host_close(&host); /* the loop keeps what its timers needed */
    uint64_t before = host_live_blocks(&host);
    host_open(&host);
    for (int i = 0; i < 400; i++) {
        uint64_t index = model_grow(&model, &random);
        sim_node_fail_allocations(host.node, 30000);
        while (!storage_can_apply(host.storage) ||
               storage_apply(host.storage, index, 1, model_batch(&model, index), NULL) != STATUS_OK) {
            host_run_ms(&host, 50);
            assert_int_equal(host.failed_count, 0);
        }
        storage_set_durable(host.storage, index);
        if (i % 20 == 0) {
            storage_flush(host.storage);
            host_run_ms(&host, 20);
        }
        sim_node_fail_allocations(host.node, 0);
        if (i % 40 == 0) {
            model_check_all(&model, &host, index);
        }
    }
    host_flush(&host);
    assert_true(host_wait(&host, host_is_settled));
    assert_true(stats().compaction_count > 0);
    model_check_all(&model, &host, model.count);
    host_reopen(&host);
    model_check_all(&model, &host, model.count);
    host_close(&host);
    assert_int_equal(host_live_blocks(&host), before);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_host, teardown_host)
    const struct CMUnitTest tests[] = {
        TEST(test_h31_full_disk_during_flush_is_waited_out),
        TEST(test_h31_store_opens_on_a_full_disk),
        TEST(test_h31_rotation_without_space_goes_on_in_the_old_manifest),
        TEST(test_h31_edits_wait_for_space_in_the_manifest),
        TEST(test_h27_failed_sync_of_a_table_is_never_repeated),
        TEST(test_storage_flush_that_keeps_failing_is_final),
        TEST(test_h27_failed_manifest_write_is_final),
        TEST(test_h27_failed_manifest_sync_is_final),
        TEST(test_h27_failed_sync_of_the_mark_is_final),
        TEST(test_h27_failed_manifest_rename_is_final),
        TEST(test_h50_bad_block_hurts_only_its_reads),
        TEST(test_h50_compaction_that_meets_a_bad_block_stops_no_other),
        TEST(test_h50_compaction_by_hand_ends_at_a_bad_block),
        TEST(test_h50_compacting_a_range_ends_when_nothing_can_be_written),
        TEST(test_h50_merge_goes_on_when_reads_work_again),
        TEST(test_storage_merge_retry_is_not_lost_to_an_earlier_one),
        TEST(test_h31_full_disk_during_merge_drops_outputs_and_is_waited_out),
        TEST(test_h35_any_flipped_bit_of_a_table_is_found),
        TEST(test_h50_cut_table_hurts_only_its_reads),
        TEST(test_storage_open_with_failing_allocations_is_refused_cleanly),
        TEST(test_storage_apply_with_a_failed_allocation_changes_nothing),
        TEST(test_storage_apply_of_a_malformed_batch_changes_nothing),
        TEST(test_storage_flush_and_merge_with_failing_allocations_end_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
