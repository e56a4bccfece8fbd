/*
 * Large values apart from the tree, through the whole store: written by flushes, read by gets and iterators, moved when
 * little of their file is left, gone from the disk when nothing refers to them.
 *
 * Would break these: a value file that nobody counts, so that its space never returns; a move that loses or mixes up
 * values; a move that is done over and over; a damaged value that hurts more than who asks for it; a get that blocks
 * its loop; value files that escape the cap on open files; a failed flush that leaves its value file behind.
 */
#include "node/base/random.h"
#include "tests/unit/storage_host.h"

#include <stdlib.h>

enum { VALUE_BYTES = 4000, KEYS = 60 };

static struct slice key_of(unsigned key, char out[16]) {
    int len = snprintf(out, 16, "key%05u", key);
    return slice_of((const uint8_t *)out, (size_t)len);
}

/* No two keys or rounds have the same one, and it doesn't compress. */
static struct slice value_of(unsigned key, unsigned round) {
    static uint8_t value[VALUE_BYTES];
    struct random random;
    random_seed(&random, key * 1000u + round);
    for (size_t i = 0; i < sizeof value; i++) {
        value[i] = (uint8_t)random_below(&random, 256);
    }
    return slice_of(value, sizeof value);
}

static void put(struct host *host, unsigned key, unsigned round) {
    char name[16];
    struct batch_operation operation = {BATCH_PUT, key_of(key, name), value_of(key, round)};
    (void)host_apply(host, &operation, 1);
}

static void delete (struct host *host, unsigned key) {
    char name[16];
    struct batch_operation operation = {.kind = BATCH_DELETE, .key = key_of(key, name)};
    (void)host_apply(host, &operation, 1);
}

static enum status get(struct host *host, unsigned key, struct buf *value) {
    char name[16];
    return host_get_at(host, key_of(key, name), storage_applied_index(host->storage), value, NULL);
}

static void assert_value(struct host *host, unsigned key, unsigned round) {
    struct buf value;
    buf_init(&value, alloc_system(), 0);
    assert_int_equal(get(host, key, &value), STATUS_OK);
    assert_true(slice_equal(buf_slice(&value), value_of(key, round)));
    buf_deinit(&value);
}

static void start(struct host *host, uint64_t seed) {
    host_new(host, seed);
    host->options.memtable_bytes = 64 * 1024;
    host->options.value_threshold_bytes = 1000;
    host_open(host);
}

static void stop(struct host *host) {
    assert_int_equal(host->failed_count, 0);
    host_close(host);
    host_free(host);
}

/* ---- What is on the disk ------------------------------------------------------------------------------------- */

struct disk_use {
    struct host *host;
    unsigned value_files;
    uint64_t value_bytes;
    char last[64]; /* the path of a value file */
};

static enum status look_at(void *context, const char *name) {
    struct disk_use *use = context;
    struct env_file *file;
    uint64_t size_bytes;
    if (strstr(name, ".val") == NULL) {
        return STATUS_OK;
    }
    (void)snprintf(use->last, sizeof use->last, "/data/%s", name);
    assert_int_equal(env_open(use->host->env, use->last, ENV_OPEN_READ, &file, NULL), STATUS_OK);
    assert_int_equal(env_size(file, &size_bytes, NULL), STATUS_OK);
    env_close(file);
    use->value_files++;
    use->value_bytes += size_bytes;
    return STATUS_OK;
}

static struct disk_use look(struct host *host) {
    struct disk_use use = {.host = host};
    assert_int_equal(env_list_dir(host->env, "/data", look_at, &use, NULL), STATUS_OK);
    return use;
}

/* Everything up to now may lose its history; until the store has nothing more to do. */
static void settle(struct host *host) {
    host_flush(host);
    storage_set_horizon(host->storage, storage_applied_index(host->storage));
    for (unsigned quiet = 0; quiet < 3;) { /* seconds */
        struct storage_stats before;
        struct storage_stats after;
        storage_get_stats(host->storage, &before);
        host_run_ms(host, 1100);
        storage_get_stats(host->storage, &after);
        bool same = before.compaction_count == after.compaction_count && after.compactions_running == 0;
        quiet = same ? quiet + 1 : 0;
        assert_true(after.compaction_count < 10000);
    }
}

/* ---- Tests --------------------------------------------------------------------------------------------------- */

static void test_storage_large_values_are_stored_apart_and_read_back(void **state) {
    (void)state;
    struct host host;
    start(&host, 1);
    for (unsigned key = 0; key < KEYS; key++) {
        put(&host, key, 1);
        (void)host_put(&host, "small", "value");
    }
    settle(&host);
    for (unsigned round = 0; round < 2; round++) {
        struct storage_stats stats;
        storage_get_stats(host.storage, &stats);
        assert_true(stats.value_files >= 1);
        assert_true(stats.value_bytes > (uint64_t)KEYS * VALUE_BYTES && stats.value_bytes < stats.value_file_bytes);
        assert_int_equal(look(&host).value_bytes, stats.value_file_bytes);
        uint64_t tables = 0;
        for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
            tables += stats.bytes[level];
        }
        assert_true(tables < (uint64_t)KEYS * VALUE_BYTES / 4);
        for (unsigned key = 0; key < KEYS; key++) {
            assert_value(&host, key, 1);
        }
        host_assert(&host, "small", "value");
        struct storage_view *view = storage_view_acquire(host.storage);
        assert_true(storage_approximate_bytes(view, SLICE_EMPTY, SLICE_EMPTY) > (uint64_t)KEYS * VALUE_BYTES);
        storage_view_release(view);
        host_reopen(&host);
    }
    stop(&host);
}

/* Both directions; a value may be asked for more than once, or not at all. */
static void test_storage_iterators_read_values_apart_when_asked(void **state) {
    (void)state;
    struct host host;
    start(&host, 2);
    for (unsigned key = 0; key < KEYS; key++) {
        put(&host, key, key % 3);
    }
    settle(&host);
    struct storage_view *view = storage_view_acquire(host.storage);
    for (unsigned backward = 0; backward < 2; backward++) {
        struct storage_iterator *iterator;
        assert_int_equal(storage_iterator_new(view, NULL, NULL, &iterator, NULL), STATUS_OK);
        enum status status = backward ? storage_iterator_last(iterator, NULL) : storage_iterator_first(iterator, NULL);
        unsigned seen = 0;
        for (; status == STATUS_OK; seen++) {
            unsigned key = backward ? KEYS - 1 - seen : seen;
            for (unsigned times = 0; times < key % 3; times++) {
                struct slice value;
                assert_int_equal(storage_iterator_value(iterator, &value, NULL), STATUS_OK);
                assert_true(slice_equal(value, value_of(key, key % 3)));
            }
            status = backward ? storage_iterator_prev(iterator, NULL) : storage_iterator_next(iterator, NULL);
        }
        assert_int_equal(status, STATUS_NOT_FOUND);
        assert_int_equal(seen, KEYS);
        storage_iterator_free(iterator);
    }
    storage_view_release(view);
    stop(&host);
}

static void test_storage_space_of_overwritten_and_deleted_values_returns(void **state) {
    (void)state;
    struct host host;
    start(&host, 3);
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned key = 0; key < KEYS; key++) {
            put(&host, key, round);
        }
    }
    settle(&host);
    assert_true(look(&host).value_bytes < (uint64_t)KEYS * VALUE_BYTES * 5 / 2);
    for (unsigned key = 0; key < KEYS; key++) {
        assert_value(&host, key, 7);
        delete (&host, key);
    }
    settle(&host);
    assert_int_equal(look(&host).value_files, 0);
    struct storage_stats stats;
    storage_get_stats(host.storage, &stats);
    assert_int_equal(stats.value_files, 0);
    assert_int_equal(stats.value_file_bytes, 0);
    stop(&host);
}

/* Each file keeps one value of four: what is left moves, the files go, and then it is over. */
static void test_storage_values_of_emptied_files_move_once(void **state) {
    (void)state;
    struct host host;
    start(&host, 4);
    for (unsigned key = 0; key < KEYS; key++) {
        put(&host, key, 0);
    }
    settle(&host);
    for (unsigned key = 0; key < KEYS; key++) {
        if (key % 4 != 0) {
            delete (&host, key);
        }
    }
    settle(&host); /* says that it ends */
    struct storage_stats stats;
    storage_get_stats(host.storage, &stats);
    assert_true(stats.moved_value_bytes > 0);
    assert_true(stats.moved_value_bytes < (uint64_t)KEYS * VALUE_BYTES / 2);
    assert_true(look(&host).value_bytes < (uint64_t)KEYS * VALUE_BYTES / 2);
    for (unsigned key = 0; key < KEYS; key += 4) {
        assert_value(&host, key, 0);
    }
    host_reopen(&host);
    for (unsigned key = 0; key < KEYS; key++) {
        if (key % 4 == 0) {
            assert_value(&host, key, 0);
        } else {
            assert_int_equal(get(&host, key, NULL), STATUS_NOT_FOUND);
        }
    }
    stop(&host);
}

/* An old view still reads what was moved away and removed; the files go when it is let go. */
static void test_storage_values_stay_for_views_that_see_them(void **state) {
    (void)state;
    struct host host;
    start(&host, 5);
    for (unsigned key = 0; key < KEYS; key++) {
        put(&host, key, 0);
    }
    settle(&host);
    struct storage_view *view = storage_view_acquire(host.storage);
    uint64_t revision = storage_view_revision(view);
    for (unsigned key = 0; key < KEYS; key++) {
        delete (&host, key);
    }
    settle(&host);
    for (unsigned key = 0; key < KEYS; key++) {
        char name[16];
        struct storage_value value;
        assert_int_equal(storage_get(view, NULL, key_of(key, name), revision, &value, NULL), STATUS_OK);
        assert_true(slice_equal(value.bytes, value_of(key, 0)));
        storage_value_release(&value);
    }
    assert_true(look(&host).value_files > 0);
    storage_view_release(view);
    host_run_ms(&host, 100);
    assert_int_equal(look(&host).value_files, 0);
    stop(&host);
}

/* Where these bytes stand in the file. */
static uint64_t find_bytes(struct host *host, const char *path, struct slice bytes) {
    struct env_file *file;
    uint64_t size_bytes;
    size_t got;
    assert_int_equal(env_open(host->env, path, ENV_OPEN_READ, &file, NULL), STATUS_OK);
    assert_int_equal(env_size(file, &size_bytes, NULL), STATUS_OK);
    uint8_t *all = malloc(size_bytes);
    assert_non_null(all);
    assert_int_equal(env_pread(file, all, size_bytes, 0, &got, NULL), STATUS_OK);
    env_close(file);
    const uint8_t *at = memmem(all, got, bytes.data, bytes.len);
    uint64_t offset = at == NULL ? UINT64_MAX : (uint64_t)(at - all);
    free(all);
    return offset;
}

static void test_h50_flipped_bit_in_a_value_file_hurts_one_key(void **state) {
    (void)state;
    enum { FEW = 12, BAD = 4 };
    struct host host;
    start(&host, 6);
    for (unsigned key = 0; key < FEW; key++) {
        put(&host, key, 0);
    }
    settle(&host);
    struct disk_use use = look(&host);
    assert_int_equal(use.value_files, 1);
    uint64_t offset = find_bytes(&host, use.last, value_of(BAD, 0));
    assert_true(offset != UINT64_MAX);
    assert_int_equal(sim_disk_corrupt(host.node, use.last, offset + 1000, 1), STATUS_OK);
    for (unsigned key = 0; key < FEW; key++) {
        if (key == BAD) {
            assert_int_equal(get(&host, key, NULL), STATUS_CORRUPT);
        } else {
            assert_value(&host, key, 0);
        }
    }
    struct storage_stats stats;
    storage_get_stats(host.storage, &stats);
    assert_true(stats.damaged_blocks > 0 && strstr(stats.problem, ".val") != NULL);
    /* Moving what is left: the bad one stays where it is, the others move, nothing is tried in a loop. */
    for (unsigned key = 6; key < FEW; key++) {
        delete (&host, key);
    }
    delete (&host, 0);
    settle(&host);
    assert_true(look(&host).value_files == 2);
    for (unsigned key = 1; key < 6; key++) {
        if (key == BAD) {
            assert_int_equal(get(&host, key, NULL), STATUS_CORRUPT);
        } else {
            assert_value(&host, key, 0);
        }
    }
    delete (&host, BAD);
    settle(&host);
    assert_int_equal(look(&host).value_files, 1);
    stop(&host);
}

static bool is_ready;
static void on_ready(struct storage_io *io) {
    (void)io;
    is_ready = true;
}
static bool ready(void *context) {
    (void)context;
    return is_ready;
}

static void test_storage_values_apart_are_read_without_blocking(void **state) {
    (void)state;
    struct host host;
    start(&host, 7);
    for (unsigned key = 0; key < KEYS; key++) {
        put(&host, key, 0);
    }
    settle(&host);
    storage_flush(host.storage);
    host_crash(&host, SIM_CRASH_POWER); /* empties the page cache */
    host_open(&host);
    struct storage_io io;
    unsigned rounds = 0;
    struct storage_view *view = storage_view_acquire(host.storage);
    storage_io_init(&io, host.storage, host.loop, on_ready);
    for (unsigned key = 0; key < KEYS; key++) {
        char name[16];
        struct storage_value value;
        enum status status;
        while ((status = storage_get(view, &io, key_of(key, name), storage_view_revision(view), &value, NULL)) ==
               STATUS_PENDING) {
            is_ready = false;
            storage_io_start(&io);
            assert_true(host_wait(&host, ready));
            rounds++;
        }
        assert_int_equal(status, STATUS_OK);
        assert_true(slice_equal(value.bytes, value_of(key, 0)));
        storage_value_release(&value);
    }
    assert_true(rounds > 3);
    storage_io_deinit(&io);
    storage_view_release(view);
    stop(&host);
}

static void test_storage_value_files_count_against_the_open_file_cap(void **state) {
    (void)state;
    struct host host;
    host_new(&host, 8);
    host.options.memtable_bytes = 16 * 1024;
    host.options.value_threshold_bytes = 1000;
    host.options.open_files_max = 2;
    host_open(&host);
    for (unsigned key = 0; key < KEYS; key++) {
        put(&host, key, 0);
    }
    settle(&host);
    assert_true(look(&host).value_files > 4);
    for (unsigned key = 0; key < KEYS; key++) {
        struct storage_stats stats;
        assert_value(&host, key * 7 % KEYS, 0);
        storage_get_stats(host.storage, &stats);
        assert_true(stats.open_files.open <= 2);
    }
    stop(&host);
}

static void test_storage_failed_flush_leaves_no_value_file(void **state) {
    (void)state;
    struct host host;
    start(&host, 9);
    struct fault_set *faults = sim_node_faults(host.node);
    for (unsigned after = 0; after < 3; after++) {
        char spec[64];
        for (unsigned key = 0; key < 5; key++) {
            put(&host, key, after);
        }
        unsigned before = look(&host).value_files;
        (void)snprintf(spec, sizeof spec, "flush.sync=error(ENOSPC),after=%u,count=1", after % 2);
        assert_int_equal(fault_arm(faults, spec, NULL), STATUS_OK);
        storage_flush(host.storage);
        host_run_ms(&host, 500); /* less than until it is tried again */
        assert_int_equal(look(&host).value_files, before);
        assert_true(host_wait(&host, host_all_flushed));
        assert_value(&host, 3, after);
    }
    stop(&host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storage_large_values_are_stored_apart_and_read_back),
        cmocka_unit_test(test_storage_iterators_read_values_apart_when_asked),
        cmocka_unit_test(test_storage_space_of_overwritten_and_deleted_values_returns),
        cmocka_unit_test(test_storage_values_of_emptied_files_move_once),
        cmocka_unit_test(test_storage_values_stay_for_views_that_see_them),
        cmocka_unit_test(test_h50_flipped_bit_in_a_value_file_hurts_one_key),
        cmocka_unit_test(test_storage_values_apart_are_read_without_blocking),
        cmocka_unit_test(test_storage_value_files_count_against_the_open_file_cap),
        cmocka_unit_test(test_storage_failed_flush_leaves_no_value_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
