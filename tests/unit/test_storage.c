/*
 * The engine as its owner sees it: what is applied can be read, at every revision, from memory and from tables, before
 * and after a restart.
 *
 * Would break these: a view that shows a later write or misses data during a memtable switch; a version of a key that
 * hides behind an older table; a frontier that doesn't belong to the flushed data; a manifest edit in front of the log;
 * views, memtables or files that are never let go; a merge that drops what somebody can still read, or keeps what
 * nobody can.
 */
#include "storage/manifest.h"
#include "tests/unit/storage_fixture.h"

/* ---- Reading what was written ----------------------------------------------------------------------------------- */

static void test_storage_new_is_empty(void **state) {
    (void)state;
    host_open(&host);
    assert_int_equal(storage_applied_index(host.storage), 0);
    assert_int_equal(storage_frontier(host.storage)->index, 0);
    host_assert(&host, "a", NULL);
    host_assert_scan(&host, 0, "", "", "");
    host_close(&host);
}

static void test_storage_put_is_read_at_its_revision(void **state) {
    (void)state;
    host_open(&host);
    uint64_t first = host_put(&host, "a", "1");
    uint64_t second = host_put(&host, "a", "2");
    uint64_t third = host_delete(&host, "a");
    host_assert_at(&host, "a", first - 1, NULL);
    host_assert_at(&host, "a", first, "1");
    host_assert_at(&host, "a", second, "2");
    host_assert_at(&host, "a", third, NULL);
    host_flush(&host);
    host_assert_at(&host, "a", first, "1");
    host_assert_at(&host, "a", second, "2");
    host_assert_at(&host, "a", third, NULL);
    host_close(&host);
}

static void test_storage_batch_last_operation_on_a_key_wins(void **state) {
    (void)state;
    host_open(&host);
    struct batch_operation operations[] = {
        {BATCH_PUT, slice_of_string("a"), slice_of_string("1")},
        {BATCH_DELETE, slice_of_string("a"), SLICE_EMPTY},
        {BATCH_PUT, slice_of_string("b"), slice_of_string("1")},
        {BATCH_PUT, slice_of_string("a"), slice_of_string("2")},
        {BATCH_DELETE, slice_of_string("b"), SLICE_EMPTY},
    };
    uint64_t revision = host_apply(&host, operations, 5);
    host_assert_scan(&host, revision, "", "", "a=2");
    host_flush(&host);
    host_assert_scan(&host, revision, "", "", "a=2");
    host_assert(&host, "b", NULL);
    host_close(&host);
}

static void test_storage_keys_with_any_bytes_are_kept_apart(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } keys[] = {{"\0", 1},  {"\0\0", 2}, {"\0\xff", 2}, {"a", 1},
                {"a\0", 2}, {"a\0b", 3}, {"a\x01", 2},  {"\xff\xff", 2}};
    enum { KEYS = sizeof keys / sizeof keys[0] };
    host_open(&host);
    for (int flushed = 0; flushed < 2; flushed++) {
        for (size_t i = 0; flushed == 0 && i < KEYS; i++) {
            char text = (char)('0' + i);
            struct batch_operation put = {BATCH_PUT, slice_of(keys[i].bytes, keys[i].len), slice_of(&text, 1)};
            (void)host_apply(&host, &put, 1);
        }
        for (size_t i = 0; i < KEYS; i++) {
            struct buf value;
            buf_init(&value, alloc_system(), 0);
            assert_int_equal(host_get_at(&host, slice_of(keys[i].bytes, keys[i].len), KEYS, &value, NULL), STATUS_OK);
            assert_int_equal(value.len, 1);
            assert_int_equal(value.data[0], '0' + i);
            buf_deinit(&value);
        }
        host_flush(&host);
    }
    host_close(&host);
}

static void test_storage_scan_merges_all_sources(void **state) {
    (void)state;
    host_open(&host);
    for (int round = 0; round < 3; round++) { /* the third flush starts a merge */
        (void)host_put(&host, "b", "old");
        (void)host_put(&host, "d", "old");
        (void)host_put(&host, "e", "gone");
        host_flush(&host);
    }
    assert_true(host_wait(&host, host_is_settled));
    (void)host_put(&host, "a", "0");
    (void)host_put(&host, "d", "middle");
    host_flush(&host);
    (void)host_put(&host, "c", "2");
    (void)host_put(&host, "d", "new");
    uint64_t before = host_delete(&host, "e");
    struct storage_stats now = stats();
    assert_int_equal(now.files[0], 1);
    assert_int_equal(host_deep_files(&host), 1);
    host_assert_scan(&host, before, "", "", "a=0 b=old c=2 d=new");
    host_assert_scan(&host, before, "b", "d", "b=old c=2");
    host_assert_scan(&host, before - 1, "d", "", "d=new e=gone");
    host_assert_scan(&host, 9, "", "", "b=old d=old e=gone");
    host_close(&host);
}

/* ---- Views ------------------------------------------------------------------------------------------------------ */

static void test_h34_view_does_not_see_later_writes(void **state) {
    (void)state;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    uint64_t revision = host_put(&host, "b", "1");
    struct storage_view *view = storage_view_acquire(host.storage);
    assert_int_equal(storage_view_revision(view), revision);
    struct storage_iterator_options options = {.revision = revision};
    struct storage_iterator *iterator;
    struct slice value;
    assert_int_equal(storage_iterator_new(view, NULL, &options, &iterator, NULL), STATUS_OK);
    assert_int_equal(storage_iterator_first(iterator, NULL), STATUS_OK);
    (void)host_delete_range(&host, "a", "z");
    (void)host_put(&host, "c", "1");
    host_flush(&host);
    (void)host_put(&host, "b", "2");
    assert_int_equal(storage_view_revision(view), revision);
    assert_int_equal(storage_iterator_next(iterator, NULL), STATUS_OK);
    assert_true(slice_equal(storage_iterator_key(iterator), slice_of_string("b")));
    assert_int_equal(storage_iterator_value(iterator, &value, NULL), STATUS_OK);
    assert_true(slice_equal(value, slice_of_string("1")));
    assert_int_equal(storage_iterator_next(iterator, NULL), STATUS_NOT_FOUND);
    storage_iterator_free(iterator);
    storage_view_release(view);
    host_close(&host);
}

static void test_h46_held_view_is_counted_and_pins_files(void **state) {
    (void)state;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    host_flush(&host);
    struct storage_view *view = storage_view_acquire(host.storage);
    struct storage_view *same = storage_view_acquire(host.storage);
    assert_int_equal(stats().views, 2);
    storage_view_release(same);
    uint64_t revision = storage_view_revision(view);
    for (int i = 0; i < 2; i++) {
        storage_set_horizon(host.storage, host_put(&host, "a", "2"));
        host_flush(&host);
    }
    assert_true(host_wait(&host, host_is_settled));
    host_run_ms(&host, 100);
    assert_int_equal(stats().compaction_count, 1);
    assert_int_equal(stats().views, 1);
    /* The merged inputs are still there for the view. */
    struct storage_value value;
    assert_int_equal(storage_get(view, NULL, slice_of_string("a"), revision, &value, NULL), STATUS_OK);
    assert_true(slice_equal(value.bytes, slice_of_string("1")));
    storage_value_release(&value);
    assert_int_equal(env_unlink(host.env, "/data/0000000000000002.sst", NULL), STATUS_OK);
    /* What it costs, and since when. */
    assert_true(stats().held_bytes > 0);
    assert_true(stats().view_oldest_us >= 100 * 1000 && stats().view_oldest_us < 60 * 1000 * 1000);
    storage_view_release(view);
    assert_int_equal(stats().views, 0);
    host_run_ms(&host, 10);
    assert_int_equal(stats().held_bytes, 0);
    assert_int_equal(stats().view_oldest_us, 0);
    host_close(&host);
}

static void test_storage_merge_inputs_go_with_their_last_view(void **state) {
    (void)state;
    host_open(&host);
    uint64_t blocks = host_live_blocks(&host);
    (void)host_put(&host, "a", "1");
    host_flush(&host);
    struct storage_view *view = storage_view_acquire(host.storage);
    (void)host_put(&host, "a", "2");
    host_flush(&host);
    (void)host_put(&host, "a", "3");
    host_flush(&host);
    assert_true(host_wait(&host, host_is_settled));
    host_run_ms(&host, 100);
    assert_int_equal(tables_on_disk(), 2); /* the one that the view pins, and the result */
    storage_view_release(view);
    host_run_ms(&host, 100);
    assert_int_equal(tables_on_disk(), 1);
    assert_true(host_live_blocks(&host) < blocks + 20);
    host_assert(&host, "a", "3");
    host_close(&host);
}

static void test_storage_view_taken_around_a_switch_misses_nothing(void **state) {
    (void)state;
    struct storage_view *views[300];
    host_open(&host);
    for (unsigned i = 0; i < 300; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%03u", i);
        static char filler[400];
        memset(filler, 'x', sizeof filler - 1);
        (void)host_put(&host, key, filler);
        views[i] = storage_view_acquire(host.storage);
    }
    assert_true(stats().flushes > 3);
    for (unsigned i = 0; i < 300; i++) {
        assert_int_equal(storage_view_revision(views[i]), i + 1);
        struct storage_iterator_options options = {.revision = i + 1};
        struct storage_iterator *iterator;
        unsigned count = 0;
        assert_int_equal(storage_iterator_new(views[i], NULL, &options, &iterator, NULL), STATUS_OK);
        for (enum status status = storage_iterator_first(iterator, NULL); status == STATUS_OK;
             status = storage_iterator_next(iterator, NULL)) {
            count++;
        }
        assert_int_equal(count, i + 1);
        storage_iterator_free(iterator);
        storage_view_release(views[i]);
    }
    host_close(&host);
}

/* ---- Flushing --------------------------------------------------------------------------------------------------- */

static void test_h39_flush_waits_for_the_durable_log(void **state) {
    (void)state;
    host_open(&host);
    struct batch_operation put = {BATCH_PUT, slice_of_string("a"), slice_of_string("1")};
    uint8_t bytes[64];
    batch_encode(bytes, &put, 1);
    struct slice batch = slice_of(bytes, batch_size(&put, 1));
    for (uint64_t index = 1; index <= 3; index++) {
        assert_int_equal(storage_apply(host.storage, index, 1, batch, NULL), STATUS_OK);
    }
    storage_set_durable(host.storage, 2);
    storage_flush(host.storage);
    host_run_ms(&host, 500);
    assert_int_equal(host.flushed_count, 0);
    assert_int_equal(storage_frontier(host.storage)->index, 0);
    assert_int_equal(stats().files[0], 0);
    /* A crash now finds a store without that table. */
    host_crash(&host, SIM_CRASH_PROCESS);
    host_open(&host);
    assert_int_equal(storage_frontier(host.storage)->index, 0);
    assert_int_equal(tables_on_disk(), 0);
    for (uint64_t index = 1; index <= 3; index++) {
        assert_int_equal(storage_apply(host.storage, index, 1, batch, NULL), STATUS_OK);
    }
    storage_flush(host.storage);
    host_run_ms(&host, 500);
    assert_int_equal(host.flushed_count, 0);
    storage_set_durable(host.storage, 3);
    assert_true(host_wait(&host, host_all_flushed));
    assert_int_equal(host.flushed.index, 3);
    host_close(&host);
}

static void test_h38_frontier_is_that_of_the_flushed_memtable(void **state) {
    (void)state;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    uint64_t switched = host_put(&host, "b", "1");
    storage_flush(host.storage);
    (void)host_put(&host, "c", "1"); /* applied after the switch: not in that table */
    while (host.flushed_count == 0) {
        host_run_ms(&host, 1);
    }
    assert_int_equal(host.flushed.index, switched);
    host_assert_frontier(&host.flushed);
    host_crash(&host, SIM_CRASH_POWER);
    host_open(&host);
    assert_int_equal(storage_frontier(host.storage)->index, switched);
    host_assert_frontier(storage_frontier(host.storage));
    assert_int_equal(storage_applied_index(host.storage), switched);
    assert_int_equal(storage_applied_term(host.storage), 1);
    host_assert_scan(&host, switched, "", "", "a=1 b=1");
    host_close(&host);
}

static void test_storage_flush_without_versions_moves_the_frontier(void **state) {
    (void)state;
    host_open(&host);
    for (int i = 0; i < 5; i++) {
        (void)host_apply(&host, NULL, 0);
    }
    host_flush(&host);
    assert_int_equal(stats().files[0], 0);
    host_reopen(&host);
    assert_int_equal(storage_frontier(host.storage)->index, 5);
    storage_flush(host.storage); /* nothing new: nothing happens */
    host_run_ms(&host, 100);
    assert_int_equal(host.flushed_count, 0);
    host_close(&host);
}

static void test_storage_full_memtables_refuse_until_a_flush_ends(void **state) {
    (void)state;
    host_open(&host);
    static char filler[1000];
    memset(filler, 'x', sizeof filler);
    struct batch_operation put = {BATCH_PUT, slice_of_string("a"), slice_of(filler, sizeof filler)};
    uint8_t bytes[1100];
    batch_encode(bytes, &put, 1);
    uint64_t index = 0;
    while (storage_can_apply(host.storage)) {
        index++;
        assert_int_equal(storage_apply(host.storage, index, 1, slice_of(bytes, batch_size(&put, 1)), NULL), STATUS_OK);
        assert_true(index < 1000);
    }
    host_run_ms(&host, 500);
    assert_false(storage_can_apply(host.storage)); /* not durable yet */
    assert_int_equal(host.can_apply_count, 0);
    assert_int_equal(stats().immutable_memtables, host.options.immutable_memtables_max);
    storage_set_durable(host.storage, index);
    assert_true(host_wait(&host, host_can_apply));
    host_run_ms(&host, 500);
    assert_int_equal(host.can_apply_count, 1);
    host_close(&host);
}

static void test_storage_replay_before_start_is_not_bounded(void **state) {
    (void)state;
    struct error err;
    static char filler[1000];
    memset(filler, 'x', sizeof filler);
    struct batch_operation put = {BATCH_PUT, slice_of_string("a"), slice_of(filler, sizeof filler)};
    uint8_t bytes[1100];
    batch_encode(bytes, &put, 1);
    assert_int_equal(host_try_open(&host, &err), STATUS_OK);
    for (uint64_t index = 1; index <= 200; index++) {
        assert_true(storage_can_apply(host.storage));
        assert_int_equal(storage_apply(host.storage, index, 1, slice_of(bytes, batch_size(&put, 1)), NULL), STATUS_OK);
    }
    storage_start(host.storage);
    assert_int_equal(host_put(&host, "b", "1"), 201);
    assert_true(host_wait(&host, host_is_settled));
    assert_int_equal(storage_frontier(host.storage)->index, 200);
    host_close(&host);
}

static void test_storage_close_with_jobs_under_way_waits_and_leaks_nothing(void **state) {
    (void)state;
    host_open(&host);
    host_close(&host); /* the loop keeps what its timers needed */
    uint64_t before = host_live_blocks(&host);
    for (uint64_t steps = 0; steps < 60; steps += 3) {
        host_open(&host);
        char key[16];
        (void)snprintf(key, sizeof key, "k%u", (unsigned)steps);
        (void)host_put(&host, key, "1");
        storage_flush(host.storage);
        for (uint64_t i = 0; i < steps; i++) {
            (void)sim_step(host.sim);
        }
        host_close(&host);
        assert_int_equal(host_live_blocks(&host), before);
    }
}

/* ---- Merging ---------------------------------------------------------------------------------------------------- */

static void test_h33_deleted_key_stays_deleted_after_merges(void **state) {
    (void)state;
    host_open(&host);
    for (int i = 0; i < 3; i++) {
        (void)host_put(&host, "a", "old");
        (void)host_put(&host, "z", "old");
        host_flush(&host);
    }
    assert_true(host_wait(&host, host_is_settled)); /* "a" is in a deeper level now */
    uint64_t deleted = host_delete(&host, "a");
    storage_set_horizon(host.storage, deleted);
    host_flush(&host);
    for (int i = 0; i < 2; i++) {
        (void)host_put(&host, "m", "new");
        host_flush(&host);
        host_assert(&host, "a", NULL);
    }
    assert_true(host_wait(&host, host_is_settled));
    assert_true(stats().compaction_count >= 2);
    host_assert(&host, "a", NULL);
    host_reopen(&host);
    host_assert(&host, "a", NULL);
    host_assert_scan(&host, storage_applied_index(host.storage), "", "", "m=new z=old");
    host_close(&host);
}

static void test_storage_merge_keeps_what_the_horizon_allows_to_read(void **state) {
    (void)state;
    host_open(&host);
    char value[2] = {'0', 0};
    for (int i = 1; i <= 9; i++) {
        value[0] = (char)('0' + i);
        (void)host_put(&host, "a", value);
        if (i == 7) {
            storage_set_horizon(host.storage, 5);
        }
        if (i % 3 == 0) {
            host_flush(&host);
        }
    }
    assert_true(host_wait(&host, host_is_settled));
    assert_int_equal(stats().compaction_count, 1);
    for (unsigned i = 5; i <= 9; i++) {
        value[0] = (char)('0' + i);
        host_assert_at(&host, "a", i, value);
    }
    assert_int_equal(host_get_at(&host, slice_of_string("a"), 4, NULL, NULL), STATUS_COMPACTED);
    /* The horizon that was used is remembered without a flush. */
    host_crash(&host, SIM_CRASH_POWER);
    host_open(&host);
    assert_int_equal(host_get_at(&host, slice_of_string("a"), 4, NULL, NULL), STATUS_COMPACTED);
    host_assert_at(&host, "a", 5, "5");
    assert_int_equal(storage_frontier(host.storage)->horizon, 5);
    host_close(&host);
}

static void test_h26_horizon_of_a_merge_stays_below_the_frontier(void **state) {
    (void)state;
    host_open(&host);
    for (int i = 0; i < 2; i++) {
        (void)host_put(&host, "a", "1");
        host_flush(&host);
    }
    uint64_t flushed = host_put(&host, "a", "2");
    storage_flush(host.storage);
    (void)host_put(&host, "a", "3");
    storage_set_horizon(host.storage, host_put(&host, "a", "4"));
    assert_true(host_wait(&host, host_is_settled));
    assert_int_equal(stats().compaction_count, 1);
    host_crash(&host, SIM_CRASH_POWER);
    /* The log's tail waits for a leader, say: what is applied is the frontier, and that must be readable. */
    host_open(&host);
    assert_int_equal(storage_applied_index(host.storage), flushed);
    assert_true(storage_frontier(host.storage)->horizon <= flushed);
    host_assert(&host, "a", "2");
    host_close(&host);
}

static void test_storage_merge_of_nothing_but_dropped_deletes_leaves_no_table(void **state) {
    (void)state;
    host_open(&host);
    for (int i = 0; i < 3; i++) {
        (void)host_put(&host, "a", "1");
        storage_set_horizon(host.storage, host_delete(&host, "a"));
        host_flush(&host);
    }
    assert_true(host_wait(&host, host_is_settled));
    host_run_ms(&host, 100);
    assert_int_equal(stats().files[0] + host_deep_files(&host), 0);
    assert_int_equal(tables_on_disk(), 0);
    host_assert(&host, "a", NULL);
    host_close(&host);
}

static void test_storage_merge_cuts_tables_between_keys(void **state) {
    (void)state;
    static char filler[600];
    memset(filler, 'x', sizeof filler - 1);
    host_open(&host);
    for (int i = 0; i < 60; i++) { /* 36 KiB of one key, above the horizon: one table of 8 KiB can't hold it */
        (void)host_put(&host, "a", "b");
        (void)host_put(&host, "k", filler);
        (void)host_put(&host, "z", filler);
    }
    host_flush(&host);
    assert_true(host_wait(&host, host_is_settled));
    assert_true(stats().compaction_count > 0);
    for (uint64_t revision = 2; revision <= 180; revision += 9) {
        host_assert_at(&host, "k", revision, filler);
    }
    host_assert_scan(&host, 180, "", "b", "a=b");
    host_reopen(&host); /* checks that ranges are disjoint */
    host_assert(&host, "k", filler);
    host_close(&host);
}

/* ---- Manifest --------------------------------------------------------------------------------------------------- */

static void test_h45_manifest_does_not_grow_without_bound(void **state) {
    (void)state;
    host_open(&host);
    for (int i = 0; i < 60; i++) {
        (void)host_put(&host, "a", "1");
        host_flush(&host);
        uint64_t size_bytes = 0;
        char path[64];
        for (unsigned number = 1; number < 1000; number++) {
            struct env_file *file;
            (void)snprintf(path, sizeof path, "/data/MANIFEST-%016x", number);
            if (env_open(host.env, path, ENV_OPEN_READ, &file, NULL) == STATUS_OK) {
                uint64_t size;
                assert_int_equal(env_size(file, &size, NULL), STATUS_OK);
                size_bytes += size;
                env_close(file);
            }
        }
        assert_true(size_bytes <= 2 * host.options.manifest_bytes_max + MANIFEST_PREPARED_BYTES);
    }
    host_reopen(&host);
    host_assert(&host, "a", "1");
    host_close(&host);
}

static void test_storage_open_refuses_other_cluster_node_or_second_opener(void **state) {
    (void)state;
    struct error err;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    host_flush(&host);
    struct storage *first = host.storage;
    assert_int_equal(host_try_open(&host, &err), STATUS_BUSY);
    host.storage = first;
    host_close(&host);
    host.options.node_id = 2;
    assert_int_equal(host_try_open(&host, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "node 1"));
    host.options.node_id = 1;
    host.options.cluster_id[3] ^= 1;
    assert_int_equal(host_try_open(&host, &err), STATUS_INVALID);
    host.options.cluster_id[3] ^= 1;
    host_open(&host);
    host_close(&host);
}

static void make_file(const char *path) {
    struct env_file *file;
    assert_int_equal(env_open(host.env, path, ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, NULL), STATUS_OK);
    assert_int_equal(env_pwrite(file, "x", 1, 0, NULL), STATUS_OK);
    env_close(file);
}

static void test_storage_open_removes_its_unknown_files_only(void **state) {
    (void)state;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    host_flush(&host);
    host_close(&host);
    make_file("/data/00000000000000ff.sst");
    make_file("/data/MANIFEST-00000000000000fe");
    make_file("/data/CURRENT.tmp");
    make_file("/data/wal-0001");
    make_file("/data/ff.sst");
    host_open(&host);
    host_assert(&host, "a", "1");
    assert_int_equal(env_unlink(host.env, "/data/00000000000000ff.sst", NULL), STATUS_NOT_FOUND);
    assert_int_equal(env_unlink(host.env, "/data/MANIFEST-00000000000000fe", NULL), STATUS_NOT_FOUND);
    assert_int_equal(env_unlink(host.env, "/data/CURRENT.tmp", NULL), STATUS_NOT_FOUND);
    assert_int_equal(env_unlink(host.env, "/data/wal-0001", NULL), STATUS_OK);
    assert_int_equal(env_unlink(host.env, "/data/ff.sst", NULL), STATUS_OK);
    host_close(&host);
}

static void test_h32_missing_table_or_current_is_refused_and_nothing_removed(void **state) {
    (void)state;
    struct error err;
    host_open(&host);
    (void)host_put(&host, "a", "1");
    host_flush(&host);
    host_close(&host);
    assert_int_equal(env_rename(host.env, "/data/CURRENT", "/data/aside", NULL), STATUS_OK);
    assert_int_equal(host_try_open(&host, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, "CURRENT"));
    assert_int_equal(tables_on_disk(), 1);
    assert_int_equal(env_rename(host.env, "/data/aside", "/data/CURRENT", NULL), STATUS_OK);
    assert_int_equal(env_rename(host.env, "/data/0000000000000002.sst", "/data/aside", NULL), STATUS_OK);
    assert_int_equal(host_try_open(&host, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, "0000000000000002.sst"));
    assert_int_equal(env_rename(host.env, "/data/aside", "/data/0000000000000002.sst", NULL), STATUS_OK);
    host_open(&host);
    host_assert(&host, "a", "1");
    host_close(&host);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_host, teardown_host)
    const struct CMUnitTest tests[] = {
        TEST(test_storage_new_is_empty),
        TEST(test_storage_put_is_read_at_its_revision),
        TEST(test_storage_batch_last_operation_on_a_key_wins),
        TEST(test_storage_keys_with_any_bytes_are_kept_apart),
        TEST(test_storage_scan_merges_all_sources),
        TEST(test_h34_view_does_not_see_later_writes),
        TEST(test_h46_held_view_is_counted_and_pins_files),
        TEST(test_storage_merge_inputs_go_with_their_last_view),
        TEST(test_storage_view_taken_around_a_switch_misses_nothing),
        TEST(test_h39_flush_waits_for_the_durable_log),
        TEST(test_h38_frontier_is_that_of_the_flushed_memtable),
        TEST(test_storage_flush_without_versions_moves_the_frontier),
        TEST(test_storage_full_memtables_refuse_until_a_flush_ends),
        TEST(test_storage_replay_before_start_is_not_bounded),
        TEST(test_storage_close_with_jobs_under_way_waits_and_leaks_nothing),
        TEST(test_h33_deleted_key_stays_deleted_after_merges),
        TEST(test_storage_merge_keeps_what_the_horizon_allows_to_read),
        TEST(test_h26_horizon_of_a_merge_stays_below_the_frontier),
        TEST(test_storage_merge_of_nothing_but_dropped_deletes_leaves_no_table),
        TEST(test_storage_merge_cuts_tables_between_keys),
        TEST(test_h45_manifest_does_not_grow_without_bound),
        TEST(test_storage_open_refuses_other_cluster_node_or_second_opener),
        TEST(test_storage_open_removes_its_unknown_files_only),
        TEST(test_h32_missing_table_or_current_is_refused_and_nothing_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
