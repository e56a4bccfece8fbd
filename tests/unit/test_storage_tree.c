/*
 * The tree behind the memtables: levels that grow and shrink, several compactions at once, deletes and history that
 * really go, rates, and what holds all that back.
 *
 * Would break these: a compaction that runs beside another one on the same tables or range; space that never comes
 * back; a pin that doesn't hold, or isn't named; writers that are stopped instead of slowed down; a rate that isn't
 * kept; a store whose opening looks at every table; a closing that waits for a long compaction.
 */
#include "storage/storage_internal.h"
#include "tests/unit/storage_host.h"

enum { KEYS = 400, VALUE_BYTES = 150 };

static struct host host;

static int setup(void **state) {
    (void)state;
    host_new(&host, 1);
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        host.options.compression[level] = COMPRESSION_NONE; /* so that sizes are what they look like */
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    host_free(&host);
    return 0;
}

static struct storage_stats stats(void) {
    struct storage_stats now;
    storage_get_stats(host.storage, &now);
    return now;
}

static uint64_t tree_bytes(void) {
    struct storage_stats now = stats();
    uint64_t bytes = 0;
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        bytes += now.bytes[level];
    }
    return bytes;
}

static const char *key_of(unsigned number) {
    static char key[16];
    (void)snprintf(key, sizeof key, "key%05u", number);
    return key;
}

static const char *value_of(unsigned number, unsigned round) {
    static char value[VALUE_BYTES + 1];
    memset(value, (int)('a' + (number + round) % 26), VALUE_BYTES);
    (void)snprintf(value, sizeof value, "%u-%u", number, round);
    value[strlen(value)] = '.';
    return value;
}

/* Writes every key once, in an order that is spread over all of them. */
static void write_round(unsigned round) {
    for (unsigned i = 0; i < KEYS; i++) {
        unsigned number = i * 7 % KEYS;
        (void)host_put(&host, key_of(number), value_of(number, round));
    }
}

static void check_round(unsigned round) {
    for (unsigned i = 0; i < KEYS; i++) {
        host_assert(&host, key_of(i), value_of(i, round));
    }
}

/* ---- Levels ----------------------------------------------------------------------------------------------------- */

static unsigned levels_used(void) {
    struct storage_stats now = stats();
    unsigned used = 0;
    for (unsigned level = 1; level < STORAGE_LEVELS; level++) {
        used += now.files[level] > 0;
    }
    return used;
}

static void test_storage_levels_grow_with_the_data(void **state) {
    (void)state;
    host.options.level_base_bytes = 16 * 1024;
    host.options.level_ratio = 3;
    unsigned most_running = 0;
    unsigned most_levels = 0;
    host_open(&host);
    for (unsigned round = 0; round < 12; round++) {
        write_round(round);
        most_running =
            stats().compactions_running > most_running ? (unsigned)stats().compactions_running : most_running;
        most_levels = levels_used() > most_levels ? levels_used() : most_levels;
        check_round(round);
    }
    host_flush(&host);
    assert_true(host_wait(&host, host_is_settled));
    check_round(11);
    assert_true(most_levels >= 3);
    assert_true(stats().compactions[2] > 0);                /* for size */
    host_assert_at(&host, key_of(7), KEYS, value_of(7, 0)); /* nothing was told to go */
    host_reopen(&host);                                     /* checks the order of all levels */
    check_round(11);
    host_close(&host);
}

static bool two_run(void *context) {
    struct storage_stats now;
    storage_get_stats(((struct host *)context)->storage, &now);
    return now.compactions_running >= 2;
}

static void test_storage_several_compactions_run_at_once(void **state) {
    (void)state;
    host.options.level_base_bytes = 16 * 1024;
    host.options.level_ratio = 3;
    host.options.compaction_workers = 2;
    bool seen = false;
    host_open(&host);
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < KEYS; i++) {
            unsigned number = i * 7 % KEYS;
            (void)host_put(&host, key_of(number), value_of(number, round));
            seen = seen || two_run(&host);
        }
    }
    assert_true(seen);
    host_flush(&host);
    assert_true(host_wait(&host, host_is_settled));
    check_round(7);
    host_close(&host);
}

static void test_storage_sequential_data_moves_instead_of_being_rewritten(void **state) {
    (void)state;
    host_open(&host);
    for (unsigned i = 0; i < 4 * KEYS; i++) {
        (void)host_put(&host, key_of(i), value_of(i, 0));
    }
    host_flush(&host);
    assert_true(host_wait(&host, host_is_settled));
    host_run_ms(&host, 100);
    assert_true(stats().compaction_count > 0);
    assert_int_equal(stats().compaction_written_bytes, 0);
    assert_true(host_deep_files(&host) > 0);
    for (unsigned i = 0; i < 4 * KEYS; i += 17) {
        host_assert(&host, key_of(i), value_of(i, 0));
    }
    host_reopen(&host);
    host_assert(&host, key_of(4 * KEYS - 1), value_of(4 * KEYS - 1, 0));
    host_close(&host);
}

/* ---- Space ------------------------------------------------------------------------------------------------------ */

static bool is_small(void *context) {
    (void)context;
    return tree_bytes() < 2000 && stats().compactions_running == 0;
}

static void test_h33_range_delete_gives_space_back_and_nothing_returns(void **state) {
    (void)state;
    host_open(&host);
    for (unsigned round = 0; round < 4; round++) {
        write_round(round);
    }
    host_flush(&host);
    assert_true(host_wait(&host, host_is_settled));
    uint64_t before = host_put(&host, "other", "1");
    uint64_t deleted = host_delete_range(&host, "key", "l");
    host_assert(&host, key_of(3), NULL);
    host_assert_at(&host, key_of(3), before, value_of(3, 3));
    host_flush(&host);
    host_assert(&host, key_of(3), NULL);
    host_assert_at(&host, key_of(3), before, value_of(3, 3));
    (void)host_put(&host, key_of(5), "again");
    storage_set_horizon(host.storage, deleted);
    for (unsigned i = 0; i < 3; i++) { /* level 0 is compacted, then what is left has a reason of its own */
        (void)host_put(&host, "other", "2");
        host_flush(&host);
    }
    assert_true(host_wait(&host, is_small));
    host_assert_scan(&host, storage_applied_index(host.storage), "", "", "key00005=again other=2");
    host_reopen(&host);
    host_assert_scan(&host, storage_applied_index(host.storage), "", "", "key00005=again other=2");
    host_close(&host);
}

/* No table lies over much of the level below its own. Returns how many have range deletes. */
static unsigned check_overlap(void) {
    const struct version *version = host.storage->version;
    unsigned ranged = 0;
    for (unsigned level = 1; level + 1 < STORAGE_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            const struct sst_meta *meta = &version->tables[level][i]->meta;
            size_t first;
            size_t count;
            uint64_t bytes = 0;
            version_overlap(version, level + 1, meta->smallest, meta->largest, meta->largest_excluded, &first, &count);
            for (size_t at = first; at < first + count; at++) {
                bytes += version->tables[level + 1][at]->meta.size_bytes;
            }
            if (meta->tombstones > 0) {
                assert_true(bytes < 24 * host.options.sst_bytes);
                ranged++;
            }
        }
    }
    return ranged;
}

static void test_storage_wide_range_delete_is_cut_into_pieces(void **state) {
    (void)state;
    host.options.level_base_bytes = 16 * 1024;
    host.options.level_ratio = 3;
    host.options.sst_bytes = 1024;
    unsigned most_ranged = 0;
    host_open(&host);
    for (unsigned round = 0; round < 4; round++) {
        write_round(round);
    }
    host_flush(&host);
    assert_true(host_wait(&host, host_is_settled));
    storage_set_horizon(host.storage, host_delete_range(&host, "key", "l"));
    for (unsigned i = 0; i < 3; i++) {
        (void)host_put(&host, "a", "1");
        (void)host_put(&host, "z", "1");
        storage_flush(host.storage);
        for (unsigned step = 0; step < 3000; step++) {
            (void)sim_step(host.sim);
            unsigned ranged = check_overlap();
            most_ranged = ranged > most_ranged ? ranged : most_ranged;
        }
    }
    assert_true(most_ranged > 2);
    host_assert_scan(&host, storage_applied_index(host.storage), "", "", "a=1 z=1");
    host_reopen(&host);
    host_assert_scan(&host, storage_applied_index(host.storage), "", "", "a=1 z=1");
    host_close(&host);
}

static void test_storage_history_below_the_horizon_goes_by_itself(void **state) {
    (void)state;
    host.options.history_revisions = KEYS;
    host_open(&host);
    for (unsigned round = 0; round < 6; round++) {
        write_round(round);
    }
    host_flush(&host);
    assert_int_equal(stats().horizon, 5 * KEYS);
    uint64_t one_round = (uint64_t)KEYS * (VALUE_BYTES + 20);
    host_run_ms(&host, 5000);
    assert_true(tree_bytes() < 3 * one_round); /* six were written; one counts, one is being kept */
    check_round(5);
    host_assert_at(&host, key_of(9), 5 * KEYS, value_of(9, 4));
    host_close(&host);
}

/* A hot key: many versions in one memtable. */
static void write_versions(unsigned count) {
    for (unsigned round = 0; round < count; round++) {
        (void)host_put(&host, "hot", value_of(0, round));
    }
    (void)host_put(&host, "other", "1");
}

static void test_storage_flush_leaves_out_what_the_horizon_has_passed(void **state) {
    (void)state;
    host_compact_nothing(&host);
    host_open(&host);
    write_versions(10);
    storage_set_horizon(host.storage, 11);
    struct storage_view *before = storage_view_acquire(host.storage);
    host_flush(&host);
    assert_int_equal(host.storage->version->tables[0][0]->meta.entries, 2);
    host_assert(&host, "hot", value_of(0, 9));
    struct storage_value value;
    assert_int_equal(storage_get(before, NULL, slice_of_string("hot"), 3, &value, NULL), STATUS_OK);
    assert_true(slice_equal(value.bytes, slice_of_string(value_of(0, 2)))); /* who came before still sees it */
    storage_value_release(&value);
    storage_view_release(before);
    for (unsigned life = 0; life < 2; life++) {
        assert_int_equal(host_get_at(&host, slice_of_string("hot"), 3, NULL, NULL), STATUS_COMPACTED);
        host_assert(&host, "hot", value_of(0, 9));
        host_reopen(&host);
    }
    host_close(&host);
}

static void test_storage_flush_keeps_what_a_pin_holds(void **state) {
    (void)state;
    host_compact_nothing(&host);
    host_open(&host);
    write_versions(10);
    struct storage_pin pin = {.name = "test", .revision = 4};
    assert_int_equal(storage_pin_add(host.storage, &pin), STATUS_OK);
    storage_set_horizon(host.storage, 11);
    host_flush(&host);
    assert_int_equal(host.storage->version->tables[0][0]->meta.entries, 8); /* 4 to 11 */
    host_assert_at(&host, "hot", 4, value_of(0, 3));
    host_assert_at(&host, "hot", 7, value_of(0, 6));
    storage_pin_remove(host.storage, &pin);
    write_versions(3);
    host_flush(&host); /* nothing is left out above the horizon of the switch */
    host_assert(&host, "hot", value_of(0, 2));
    host_close(&host);
}

static void test_h33_flush_keeps_deletes_and_drops_what_they_cover(void **state) {
    (void)state;
    host_compact_nothing(&host);
    host_open(&host);
    write_versions(1);
    (void)host_put(&host, "ranged", "1");
    host_flush(&host);
    (void)host_put(&host, "hot", "2");
    (void)host_delete(&host, "hot");
    (void)host_put(&host, "ranged", "2");
    (void)host_delete_range(&host, "r", "s");
    storage_set_horizon(host.storage, storage_applied_index(host.storage));
    host_flush(&host);
    const struct sst_meta *meta = &host.storage->version->tables[0][0]->meta;
    assert_int_equal(meta->entries, 1);
    assert_int_equal(meta->deletes, 1);
    assert_int_equal(meta->tombstones, 1);
    host_assert_scan(&host, storage_applied_index(host.storage), "", "", "other=1");
    host_assert(&host, "hot", NULL);
    host_assert(&host, "ranged", NULL);
    host_reopen(&host);
    host_assert_scan(&host, storage_applied_index(host.storage), "", "", "other=1");
    host_close(&host);
}

/* What keeps its history isn't told that it has none. */
static void test_storage_flush_that_leaves_out_nothing_raises_no_horizon(void **state) {
    (void)state;
    host_compact_nothing(&host);
    host_open(&host);
    (void)host_put(&host, "a", "1");
    (void)host_put(&host, "b", "2");
    storage_set_horizon(host.storage, 2);
    host_flush(&host);
    host_assert_at(&host, "a", 1, "1");
    host_assert_at(&host, "b", 1, NULL);
    host_close(&host);
}

static void test_h46_pin_holds_the_horizon_and_is_named(void **state) {
    (void)state;
    host_open(&host);
    struct storage_pin older = {.name = "backup", .revision = host_put(&host, "a", "1")};
    struct storage_pin newer = {.name = "reader", .revision = host_put(&host, "a", "2")};
    assert_int_equal(storage_pin_add(host.storage, &newer), STATUS_OK);
    assert_int_equal(storage_pin_add(host.storage, &older), STATUS_OK);
    for (unsigned i = 0; i < 3; i++) {
        storage_set_horizon(host.storage, host_put(&host, "a", "3"));
        host_flush(&host);
    }
    assert_true(host_wait(&host, host_is_settled));
    host_run_ms(&host, 3000);
    assert_int_equal(stats().horizon, older.revision);
    host_assert_at(&host, "a", older.revision, "1");
    host_assert_at(&host, "a", newer.revision, "2");
    assert_int_equal(stats().pins, 2);
    assert_string_equal(stats().pin_lowest, "backup");
    assert_int_equal(stats().pin_held_revisions, 4);
    assert_true(stats().pin_oldest_us >= 3000 * 1000);
    storage_pin_remove(host.storage, &older);
    assert_int_equal(stats().horizon, newer.revision);
    assert_string_equal(stats().pin_lowest, "reader");
    assert_int_equal(storage_pin_add(host.storage, &older), STATUS_COMPACTED);
    storage_pin_remove(host.storage, &newer);
    assert_int_equal(stats().horizon, 5);
    assert_int_equal(stats().pins, 0);
    storage_flush(host.storage); /* the test is no loop: its timers aren't seen before something else happens */
    host_run_ms(&host, 3000);
    assert_int_equal(stats().files[0], 0);
    assert_int_equal(host_get_at(&host, slice_of_string("a"), 2, NULL, NULL), STATUS_COMPACTED);
    host_assert(&host, "a", "3");
    host_close(&host);
}

/* ---- By hand ---------------------------------------------------------------------------------------------------- */

static unsigned compacts_done;
static enum status compact_status;

static void on_compacted(struct storage_compact *compact, enum status status) {
    (void)compact;
    compact_status = status;
    compacts_done++;
}

static bool has_one_compacted(void *context) {
    (void)context;
    return compacts_done == 1;
}

static void test_storage_compact_range_sinks_everything_and_drops_the_dead(void **state) {
    (void)state;
    host_compact_nothing(&host);
    host.options.tombstone_percent = 101;
    host.options.history_percent = 101;
    host_open(&host);
    compacts_done = 0;
    for (unsigned round = 0; round < 4; round++) {
        write_round(round);
    }
    for (unsigned i = 0; i < KEYS; i += 2) {
        (void)host_delete(&host, key_of(i));
    }
    storage_set_horizon(host.storage, storage_applied_index(host.storage));
    struct storage_compact compact = {.done = on_compacted};
    storage_compact_range(host.storage, &compact);
    assert_true(host_wait(&host, has_one_compacted));
    assert_int_equal(compact_status, STATUS_OK);
    assert_true(compact.done_bytes > 0);
    assert_int_equal(compact.left_bytes, 0);
    struct storage_stats now = stats();
    assert_int_equal(now.files[0], 0);
    assert_int_equal(levels_used(), 1);
    assert_true(tree_bytes() < (uint64_t)KEYS / 2 * (VALUE_BYTES + 90));
    for (unsigned i = 0; i < KEYS; i++) {
        host_assert(&host, key_of(i), i % 2 == 0 ? NULL : value_of(i, 3));
    }
    host_close(&host);
}

static void test_storage_compact_range_rewrites_only_its_range(void **state) {
    (void)state;
    host_open(&host);
    write_round(0);
    host_flush(&host);
    assert_true(host_wait(&host, host_is_settled));
    compacts_done = 0;
    struct storage_compact all = {.done = on_compacted};
    storage_compact_range(host.storage, &all);
    assert_true(host_wait(&host, has_one_compacted));
    uint64_t before = stats().compaction_written_bytes;
    compacts_done = 0;
    struct storage_compact part = {.done = on_compacted,
                                   .lower = slice_of_string("key00100"),
                                   .upper = slice_of_string("key00110")};
    storage_compact_range(host.storage, &part);
    assert_true(host_wait(&host, has_one_compacted));
    uint64_t written = stats().compaction_written_bytes - before;
    assert_true(written > 0 && written <= 4 * host.options.sst_bytes);
    check_round(0);
    host_close(&host);
}

/* ---- Rates ------------------------------------------------------------------------------------------------------ */

static void test_h47_writers_are_slowed_down_before_they_are_stopped(void **state) {
    (void)state;
    host.options.l0_files_compact = 2;
    host.options.l0_files_slow = 4;
    host.options.l0_files_stop = 20;
    host.options.compaction_workers = 1;
    host_open(&host);
    assert_int_equal(storage_pace_us(host.storage, 1 << 20), 0);
    host.storage->compact_retry_us = UINT64_MAX; /* as after a full disk, but for ever */
    uint64_t longest = 0;
    uint64_t last = 0;
    for (unsigned i = 0; stats().files[0] < 16; i++) {
        (void)host_put(&host, "a", value_of(i, 0));
        host_flush(&host);
        uint64_t wait_us = storage_pace_us(host.storage, 64 * 1024);
        longest = wait_us > longest ? wait_us : longest;
        last = wait_us;
        if (wait_us > 0) {
            host_run_ms(&host, wait_us / 1000);
        }
        assert_true(i < 100);
    }
    assert_true(last > 0 && longest <= STORAGE_PACE_US_MAX);
    assert_true(stats().stalls[STORAGE_STALL_LEVEL0].count > 3);
    assert_true(stats().stalls[STORAGE_STALL_LEVEL0].longest_us <= STORAGE_PACE_US_MAX);
    assert_true(storage_can_apply(host.storage));
    host.storage->compact_retry_us = 0;
    storage__schedule(host.storage);
    assert_true(host_wait(&host, host_is_settled));
    assert_int_equal(storage_pace_us(host.storage, 1 << 20), 0);
    host_close(&host);
}

static void test_h47_time_without_room_counts_as_a_stall(void **state) {
    (void)state;
    host.options.immutable_memtables_max = 1;
    host_open(&host);
    assert_int_equal(fault_arm(sim_node_faults(host.node), "flush.write=hang", NULL), STATUS_OK);
    uint8_t bytes[VALUE_BYTES + 64];
    while (storage_can_apply(host.storage)) {
        struct batch_operation put = {BATCH_PUT, slice_of_string("a"), slice_of_string(value_of(1, 1))};
        batch_encode(bytes, &put, 1);
        uint64_t index = storage_applied_index(host.storage) + 1;
        assert_int_equal(storage_apply(host.storage, index, 1, slice_of(bytes, batch_size(&put, 1)), NULL), STATUS_OK);
        storage_set_durable(host.storage, index);
    }
    host_run_ms(&host, 700);
    fault_disarm(sim_node_faults(host.node), FAULT_FLUSH_WRITE);
    assert_true(host_wait(&host, host_can_apply));
    struct storage_stall_stats stall = stats().stalls[STORAGE_STALL_MEMTABLES];
    assert_int_equal(stall.count, 1);
    assert_in_range(stall.longest_us, 700 * 1000, 2000 * 1000);
    assert_int_equal(stall.total_us, stall.longest_us);
    host_close(&host);
}

static void test_storage_compactions_keep_their_rate(void **state) {
    (void)state;
    host_compact_nothing(&host);
    host.options.compaction_bytes_per_second_max = 32 * 1024;
    host_open(&host);
    for (unsigned round = 0; round < 3; round++) {
        write_round(round);
    }
    host_flush(&host);
    compacts_done = 0;
    struct storage_compact compact = {.done = on_compacted};
    uint64_t begin_us = sim_now_us(host.sim);
    storage_compact_range(host.storage, &compact);
    assert_true(host_wait(&host, has_one_compacted));
    uint64_t took_us = sim_now_us(host.sim) - begin_us;
    uint64_t needs_us = stats().compaction_written_bytes * 1000 * 1000 / (32 * 1024);
    assert_true(needs_us > 3 * 1000 * 1000);
    assert_in_range(took_us, needs_us * 8 / 10, needs_us * 13 / 10);
    host_close(&host);
}

static void test_storage_close_does_not_wait_for_a_long_compaction(void **state) {
    (void)state;
    host_compact_nothing(&host);
    host.options.compaction_bytes_per_second_max = 1024; /* it would take minutes */
    host_open(&host);
    write_round(0);
    host_flush(&host);
    compacts_done = 0;
    struct storage_compact compact = {.done = on_compacted};
    storage_compact_range(host.storage, &compact);
    host_run_ms(&host, 2000);
    assert_int_equal(stats().compactions_running, 1);
    uint64_t begin_us = sim_now_us(host.sim);
    host_close(&host);
    assert_true(sim_now_us(host.sim) - begin_us < 500 * 1000);
    assert_int_equal(compacts_done, 0);
    host.options.compaction_bytes_per_second_max = 0;
    host_open(&host);
    check_round(0);
    host_close(&host);
}

/* ---- Opening, options, groups ----------------------------------------------------------------------------------- */

static void test_storage_open_looks_at_no_table(void **state) {
    (void)state;
    host_compact_nothing(&host);
    host_open(&host);
    for (unsigned round = 0; round < 3; round++) {
        write_round(round);
    }
    host_flush(&host);
    assert_true(stats().files[0] > 10);
    host_reopen(&host);
    assert_int_equal(stats().open_files.opened_total, 0);
    check_round(2);
    assert_true(stats().open_files.opened_total > 0);
    assert_true(stats().open_files.open <= host.options.open_files_max);
    host_close(&host);
}

static void test_storage_open_names_the_option_that_is_out_of_range(void **state) {
    (void)state;
    struct error err;
    struct storage_options good = host.options;
    host.options.l0_files_slow = host.options.l0_files_compact;
    assert_int_equal(host_try_open(&host, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "l0_files_slow"));
    host.options = good;
    host.options.bloom_bits[4] = 33;
    assert_int_equal(host_try_open(&host, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "bloom_bits of level 4"));
    host.options = good;
    host.options.memtable_bytes = 1;
    assert_int_equal(host_try_open(&host, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "memtable_bytes is 1, not 1024 to"));
    host.options = good;
}

static void test_storage_inserted_entries_show_together(void **state) {
    (void)state;
    uint8_t bytes[64];
    host_open(&host);
    struct storage_view *before = storage_view_acquire(host.storage);
    for (uint64_t index = 1; index <= 3; index++) {
        char key[2] = {(char)('a' + index), 0};
        struct batch_operation put = {BATCH_PUT, slice_of_string(key), slice_of_string("1")};
        batch_encode(bytes, &put, 1);
        struct slice batch = slice_of(bytes, batch_size(&put, 1));
        assert_int_equal(storage_insert(host.storage, index, 1, batch, NULL), STATUS_OK);
        assert_int_equal(storage_applied_index(host.storage), 0);
        host_assert_scan(&host, 0, "", "", "");
    }
    storage_set_durable(host.storage, 3);
    storage_flush(host.storage); /* takes along what nobody has seen yet */
    host_run_ms(&host, 100);
    assert_int_equal(storage_frontier(host.storage)->index, 3);
    assert_int_equal(storage_applied_index(host.storage), 0);
    host_assert_scan(&host, 0, "", "", "");
    assert_int_equal(storage_publish(host.storage, 3, 1, NULL), STATUS_OK);
    assert_int_equal(storage_applied_index(host.storage), 3);
    host_assert_scan(&host, 3, "", "", "b=1 c=1 d=1");
    assert_int_equal(storage_view_revision(before), 0);
    storage_view_release(before);
    host_close(&host);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_storage_levels_grow_with_the_data),
        TEST(test_storage_several_compactions_run_at_once),
        TEST(test_storage_sequential_data_moves_instead_of_being_rewritten),
        TEST(test_h33_range_delete_gives_space_back_and_nothing_returns),
        TEST(test_storage_wide_range_delete_is_cut_into_pieces),
        TEST(test_storage_history_below_the_horizon_goes_by_itself),
        TEST(test_storage_flush_leaves_out_what_the_horizon_has_passed),
        TEST(test_storage_flush_keeps_what_a_pin_holds),
        TEST(test_h33_flush_keeps_deletes_and_drops_what_they_cover),
        TEST(test_storage_flush_that_leaves_out_nothing_raises_no_horizon),
        TEST(test_h46_pin_holds_the_horizon_and_is_named),
        TEST(test_storage_compact_range_sinks_everything_and_drops_the_dead),
        TEST(test_storage_compact_range_rewrites_only_its_range),
        TEST(test_h47_writers_are_slowed_down_before_they_are_stopped),
        TEST(test_h47_time_without_room_counts_as_a_stall),
        TEST(test_storage_compactions_keep_their_rate),
        TEST(test_storage_close_does_not_wait_for_a_long_compaction),
        TEST(test_storage_open_looks_at_no_table),
        TEST(test_storage_open_names_the_option_that_is_out_of_range),
        TEST(test_storage_inserted_entries_show_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
