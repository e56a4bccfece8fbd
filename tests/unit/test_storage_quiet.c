/*
 * What the store does in its own time: level 0 while nobody writes, files that are no longer needed.
 *
 * Would break these: tables of level 0 that stay when writing ends, so that every seek looks into all of them; merging
 * them under load, or over and over, so that little is written at a high price; a store at rest that wakes up for
 * nothing; files that go in one burst, while the log waits for the disk (hazard 47), or that don't go at all.
 */
#include "storage/storage_internal.h"
#include "tests/unit/storage_fixture.h"

enum { KEYS = 64, VALUE_BYTES = 100, UNLINK_MS = 10, REST_MS = 4 * UNLINK_MS, UNLINKS_MAX = 256 };

static struct env_ops ops;
static enum status (*plain_unlink)(struct env *env, const char *path, struct error *err);
static uint64_t unlinked_us[UNLINKS_MAX];
static unsigned unlink_count;

static int setup(void **state) {
    (void)setup_host(state);
    host.options.l0_files_compact = 6;
    host.options.level_base_bytes = 1024 * 1024;
    unlink_count = 0;
    return 0;
}

static void put(unsigned number, size_t value_bytes) {
    static char value[LIMIT_VALUE_BYTES > 16384 ? 16384 : LIMIT_VALUE_BYTES];
    char key[16];
    (void)snprintf(key, sizeof key, "key%05u", number);
    memset(value, (int)('a' + number % 26), value_bytes);
    struct batch_operation operation = {BATCH_PUT, slice_of_string(key), slice_of(value, value_bytes)};
    (void)host_apply(&host, &operation, 1);
}

/* A table of level 0 that meets all others. */
static void write_table(void) {
    for (unsigned i = 0; i < KEYS; i++) {
        put(i, VALUE_BYTES);
    }
    host_flush(&host);
}

static void wake(struct env_message *message) { (void)message; }

/* ---- Level 0 ---------------------------------------------------------------------------------------------------- */

static void test_storage_quiet_level_0_is_merged_before_it_is_full(void **state) {
    (void)state;
    host_open(&host);
    write_table();
    host_run_ms(&host, 5000);
    assert_int_equal(stats().files[0], 1); /* one is left alone */
    write_table();
    assert_int_equal(stats().files[0], 2);
    host_run_ms(&host, 5000);
    assert_int_equal(stats().files[0], 0);
    assert_int_equal(stats().compactions[COMPACTION_QUIET], 1);
    assert_true(host_deep_files(&host) > 0);
    assert_true(host.loop != NULL && host.storage->timer.deadline_us > sim_now_us(host.sim) + 60u * 1000 * 1000);
    host_reopen(&host);
    host_close(&host);
}

static void test_storage_level_0_of_a_store_that_was_opened_is_merged(void **state) {
    (void)state;
    host_open(&host);
    write_table();
    write_table();
    host_reopen(&host);
    assert_int_equal(stats().files[0], 2);
    env_post(host.loop, &(struct env_message){.run = wake}); /* the loop slept while the test called the store */
    host_run_ms(&host, 5000);
    assert_int_equal(stats().files[0], 0);
    host_close(&host);
}

static void test_storage_level_0_is_left_alone_while_writers_are_busy(void **state) {
    (void)state;
    host.options.memtable_bytes = 64 * 1024;
    host_open(&host);
    write_table();
    write_table();
    for (unsigned i = 0; i < 40; i++) { /* a fifth of a memtable in all, but more than a 64th a second */
        host_run_ms(&host, 500);
        for (unsigned k = 0; k < 6; k++) {
            put(i, VALUE_BYTES);
        }
    }
    assert_int_equal(stats().compactions[COMPACTION_QUIET], 0);
    assert_int_equal(stats().files[0], 2);
    host_run_ms(&host, 5000);
    assert_int_equal(stats().files[0], 0);
    host_close(&host);
}

/* The rest after a merge is in proportion to what it wrote: 16 MiB, so about 4 s. */
static void test_storage_quiet_merges_rest_in_proportion(void **state) {
    (void)state;
    host.options.memtable_bytes = 8 * 1024 * 1024;
    host.options.sst_bytes = 64 * 1024 * 1024;
    host.options.level_base_bytes = 64 * 1024 * 1024;
    host.options.compression[6] = COMPRESSION_NONE;
    host_open(&host);
    for (unsigned i = 0; i < 2048; i++) {
        put(i * 7 % 2048, 8 * 1024);
    }
    host_flush(&host);
    host_run_ms(&host, 10 * 1000);
    uint64_t merges = stats().compactions[COMPACTION_QUIET];
    assert_int_equal(stats().files[0], 0);
    assert_true(host_deep_files(&host) > 0);
    host_run_ms(&host, 10 * 1000);
    for (unsigned round = 0; round < 2; round++) {
        write_table();
        write_table();
        while (round == 0 && stats().compactions[COMPACTION_QUIET] == merges) {
            host_run_ms(&host, 100);
        }
    }
    host_run_ms(&host, 3000);
    assert_int_equal(stats().files[0], 2);
    assert_int_equal(stats().compactions[COMPACTION_QUIET], merges + 1);
    host_run_ms(&host, 4000);
    assert_int_equal(stats().files[0], 0);
    assert_int_equal(stats().compactions[COMPACTION_QUIET], merges + 2);
    host_close(&host);
}

/* ---- Files that go ---------------------------------------------------------------------------------------------- */

static enum status slow_unlink(struct env *env, const char *path, struct error *err) {
    if (strstr(path, ".sst") != NULL && unlink_count < UNLINKS_MAX) {
        unlinked_us[unlink_count++] = sim_now_us(host.sim);
        env_sleep_us(env, UNLINK_MS * 1000);
    }
    return plain_unlink(env, path, err);
}

/* Many tables go at once, when the last view of them does. */
static struct storage_view *make_obsolete(unsigned tables, uint64_t sst_bytes) {
    host.options.sst_bytes = sst_bytes;
    ops = *host.env->ops;
    plain_unlink = ops.unlink;
    ops.unlink = slow_unlink;
    host.options.l0_files_compact = tables;
    host.options.l0_files_quiet = tables;
    host_open(&host);
    for (unsigned i = 0; i + 1 < tables; i++) {
        write_table();
    }
    struct storage_view *view = storage_view_acquire(host.storage);
    write_table();
    assert_true(host_wait(&host, host_is_settled));
    host_run_ms(&host, 1000);
    host.env->ops = &ops;
    assert_int_equal(stats().files[0], 0);
    assert_true(stats().held_bytes > 0);
    return view;
}

static void test_h47_files_go_one_at_a_time_with_a_rest(void **state) {
    (void)state;
    struct storage_view *view = make_obsolete(6, 64 * 1024 * 1024);
    storage_view_release(view);
    host_run_ms(&host, 1000);
    assert_true(unlink_count >= 5);
    for (unsigned i = 1; i < unlink_count; i++) {
        assert_true(unlinked_us[i] - unlinked_us[i - 1] >= (UNLINK_MS * 10 + REST_MS * 9) * 100);
    }
    assert_int_equal(stats().dead_bytes, 0);
    host_close(&host);
}

/* What waits to be removed has a bound: beyond it nobody rests. */
static void test_storage_files_that_wait_in_numbers_go_without_a_rest(void **state) {
    (void)state;
    struct storage_view *view = make_obsolete(11, 1024);
    storage_view_release(view);
    host_run_ms(&host, 2);
    assert_true(stats().dead_bytes > 0);
    host_run_ms(&host, 4000);
    assert_int_equal(stats().dead_bytes, 0);
    assert_true(unlink_count >= 10);
    for (unsigned i = 1; i < 5; i++) {
        assert_true(unlinked_us[i] - unlinked_us[i - 1] < (UNLINK_MS * 10 + REST_MS) * 100);
    }
    host_close(&host);
}

static void test_storage_close_unlinks_what_is_left_without_a_rest(void **state) {
    (void)state;
    struct storage_view *view = make_obsolete(6, 64 * 1024 * 1024);
    storage_view_release(view);
    uint64_t begin_us = sim_now_us(host.sim);
    host_close(&host);
    assert_true(unlink_count >= 5);
    assert_true(sim_now_us(host.sim) - begin_us < (uint64_t)unlink_count * (UNLINK_MS + REST_MS) * 1000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown_host)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_storage_quiet_level_0_is_merged_before_it_is_full),
        TEST(test_storage_level_0_of_a_store_that_was_opened_is_merged),
        TEST(test_storage_level_0_is_left_alone_while_writers_are_busy),
        TEST(test_storage_quiet_merges_rest_in_proportion),
        TEST(test_h47_files_go_one_at_a_time_with_a_rest),
        TEST(test_storage_files_that_wait_in_numbers_go_without_a_rest),
        TEST(test_storage_close_unlinks_what_is_left_without_a_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
