/*
 * Blocking files of the production environment. Breaks if a short read or write isn't continued, if flags of open lose
 * their meaning, if an error names no file, if a listing isn't sorted, if a lock of a dying process fails a start-up
 * (hazard 64), if a read that mustn't wait waits or invents bytes, if a mapping and its file differ, or if what was
 * written past the page cache and what went through it do.
 */
#include "node/env/os/env_os.h"
#include "tests/unit/support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static struct test_alloc memory;
static struct fault_set faults;
static struct env *env;
static char *dir;
static struct error err;

static int make_env(void) {
    test_alloc_init(&memory);
    fault_init(&faults);
    const struct env_os_options options = {.alloc = &memory.base,
                                           .faults = &faults,
                                           .workers_short = 1,
                                           .workers_long = 1};
    return env_os_new(&options, &env, &err) == STATUS_OK ? 0 : -1;
}

static int setup(void **state) {
    (void)state;
    dir = test_dir_new();
    return make_env();
}

static int teardown(void **state) {
    (void)state;
    env_os_free(env);
    test_dir_remove(dir);
    return memory.live_blocks == 0 ? 0 : -1;
}

static struct env_file *must_open(const char *name, unsigned flags) {
    struct env_file *file = NULL;
    assert_int_equal(env_open(env, test_path(dir, name), flags, &file, &err), STATUS_OK);
    return file;
}

enum { NEW_FILE = ENV_OPEN_READ | ENV_OPEN_WRITE | ENV_OPEN_CREATE };

static void test_file_written_is_read_back_and_short_only_at_its_end(void **state) {
    (void)state;
    struct env_file *file = must_open("a", NEW_FILE);
    assert_string_equal(env_file_path(file), test_path(dir, "a"));
    assert_int_equal(env_pwrite(file, "0123456789", 10, 5, &err), STATUS_OK);
    assert_int_equal(env_sync(file, &err), STATUS_OK);
    uint64_t size = 0;
    assert_int_equal(env_size(file, &size, &err), STATUS_OK);
    assert_int_equal(size, 15);
    char data[64];
    size_t len = 99;
    assert_int_equal(env_pread(file, data, sizeof data, 3, &len, &err), STATUS_OK);
    assert_int_equal(len, 12);
    assert_memory_equal(data,
                        "\0\0"
                        "0123456789",
                        12);
    assert_int_equal(env_pread(file, data, sizeof data, 15, &len, &err), STATUS_OK);
    assert_int_equal(len, 0);
    assert_int_equal(env_truncate(file, 7, &err), STATUS_OK);
    assert_int_equal(env_pread(file, data, sizeof data, 0, &len, &err), STATUS_OK);
    assert_int_equal(len, 7);
    env_close(file);
}

static void test_open_flags_mean_what_they_say(void **state) {
    (void)state;
    struct env_file *file = NULL;
    const char *path = test_path(dir, "a");
    assert_int_equal(env_open(env, path, ENV_OPEN_READ, &file, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(err.sys, ENOENT);
    assert_null(file);
    file = must_open("a", NEW_FILE | ENV_OPEN_EXCLUSIVE);
    assert_int_equal(env_pwrite(file, "abc", 3, 0, &err), STATUS_OK);
    env_close(file);
    assert_int_equal(env_open(env, path, NEW_FILE | ENV_OPEN_EXCLUSIVE, &file, &err), STATUS_EXISTS);
    file = must_open("a", ENV_OPEN_READ);
    assert_int_equal(env_pwrite(file, "abc", 3, 0, &err), STATUS_IO);
    assert_non_null(strstr(err.message, path));
    env_close(file);
    file = must_open("a", ENV_OPEN_WRITE | ENV_OPEN_TRUNCATE);
    uint64_t size = 99;
    assert_int_equal(env_size(file, &size, &err), STATUS_OK);
    assert_int_equal(size, 0);
    env_close(file);
}

static void test_direct_file_reads_and_writes_blocks(void **state) {
    (void)state;
    struct env_file *file = must_open("a", NEW_FILE | ENV_OPEN_DIRECT);
    uint8_t *block = mem_alloc_aligned(&memory.base, ENV_BLOCK_BYTES, 4 * ENV_BLOCK_BYTES);
    assert_non_null(block);
    memset(block, 'x', 4 * ENV_BLOCK_BYTES);
    assert_int_equal(env_pwrite(file, block, 3 * ENV_BLOCK_BYTES, ENV_BLOCK_BYTES, &err), STATUS_OK);
    assert_int_equal(env_truncate(file, 3 * ENV_BLOCK_BYTES + 100, &err), STATUS_OK); /* the end is inside a block */
    memset(block, 0, 4 * ENV_BLOCK_BYTES);
    size_t len = 0;
    assert_int_equal(env_pread(file, block, 4 * ENV_BLOCK_BYTES, ENV_BLOCK_BYTES, &len, &err), STATUS_OK);
    assert_int_equal(len, 2 * ENV_BLOCK_BYTES + 100);
    assert_int_equal(block[len - 1], 'x');
    mem_free(&memory.base, block);
    env_close(file);
}

static void assert_block(struct env_file *file, uint8_t *block, uint64_t number, int byte) {
    size_t len = 0;
    assert_int_equal(env_pread(file, block, ENV_BLOCK_BYTES, number * ENV_BLOCK_BYTES, &len, &err), STATUS_OK);
    assert_int_equal(len, ENV_BLOCK_BYTES);
    assert_true(block[0] == byte && block[ENV_BLOCK_BYTES - 1] == byte);
}

/* The log does that: whole blocks, each durable before the next, in reserved space; a block may be written again, too.
 */
static void test_file_written_past_the_page_cache_and_through_it_reads_the_same_both_ways(void **state) {
    (void)state;
    enum { BLOCKS = 16 };
    struct env_file *direct = must_open("a", NEW_FILE | ENV_OPEN_DIRECT);
    struct env_file *cached = must_open("a", ENV_OPEN_READ | ENV_OPEN_WRITE);
    uint8_t *block = mem_alloc_aligned(&memory.base, ENV_BLOCK_BYTES, ENV_BLOCK_BYTES);
    assert_non_null(block);
    enum status status = env_allocate(direct, (uint64_t)2 * BLOCKS * ENV_BLOCK_BYTES, &err);
    assert_true(status == STATUS_OK || status == STATUS_UNSUPPORTED);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            struct env_file *file = (i + round) % 2 == 0 ? direct : cached;
            memset(block, (int)('a' + i + round), ENV_BLOCK_BYTES);
            assert_int_equal(env_pwrite_dsync(file, block, ENV_BLOCK_BYTES, (uint64_t)i * ENV_BLOCK_BYTES, &err),
                             STATUS_OK);
            assert_block(file == direct ? cached : direct, block, i, (int)('a' + i + round));
        }
        for (unsigned i = 0; i < BLOCKS; i++) {
            assert_block(direct, block, i, (int)('a' + i + round));
            assert_block(cached, block, i, (int)('a' + i + round));
        }
    }
    mem_free(&memory.base, block);
    env_close(cached);
    env_close(direct);
}

static void test_stream_holds_what_was_written(void **state) {
    (void)state;
    enum { PIECES = 9 };
    struct env_file *file = must_open("a", NEW_FILE | ENV_OPEN_STREAM);
    uint8_t *piece = mem_alloc(&memory.base, MIB);
    assert_non_null(piece);
    for (unsigned i = 0; i < PIECES; i++) {
        memset(piece, (int)('a' + i), MIB);
        assert_int_equal(env_pwrite(file, piece, MIB, (uint64_t)i * MIB, &err), STATUS_OK);
    }
    assert_int_equal(env_sync(file, &err), STATUS_OK);
    for (unsigned i = 0; i < PIECES; i++) {
        size_t len = 0;
        assert_int_equal(env_pread(file, piece, MIB, (uint64_t)i * MIB, &len, &err), STATUS_OK);
        assert_int_equal(len, MIB);
        assert_true(piece[0] == 'a' + i && piece[MIB - 1] == 'a' + i);
    }
    mem_free(&memory.base, piece);
    env_close(file);
}

static void write_unaligned(void *context) {
    (void)context;
    assert_int_equal(make_env(), 0);
    struct env_file *file = must_open("a", NEW_FILE | ENV_OPEN_DIRECT);
    (void)!env_pwrite(file, "abc", 3, 0, &err);
}

static void test_direct_file_with_an_unaligned_write_aborts(void **state) {
    (void)state;
    dir = test_dir_new();
    assert_true(test_aborts(write_unaligned, NULL));
    test_dir_remove(dir);
}

/* ---- Through the page cache -------------------------------------------------------------------------------------- */

static void test_nowait_read_answers_whole_or_not_at_all(void **state) {
    (void)state;
    struct env_file *file = must_open("a", NEW_FILE);
    assert_int_equal(env_pwrite(file, "0123456789", 10, 0, &err), STATUS_OK);
    char data[16] = "";
    enum status status = env_pread_nowait(file, data, 4, 3, &err);
    assert_true(status == STATUS_OK || status == STATUS_PENDING); /* not every file system can say */
    if (status == STATUS_OK) {
        assert_memory_equal(data, "3456", 4);
    }
    assert_int_equal(env_pread_nowait(file, data, 11, 0, &err), STATUS_PENDING);
    assert_int_equal(env_pread_nowait(file, data, 1, 10, &err), STATUS_PENDING);
    assert_int_equal(env_pread_nowait(file, data, 1, 1000000, &err), STATUS_PENDING);
    env_close(file);
    file = must_open("a", ENV_OPEN_WRITE);
    assert_int_equal(env_pread_nowait(file, data, 4, 0, &err), STATUS_IO); /* not open for reading */
    assert_non_null(strstr(err.message, test_path(dir, "a")));
    env_close(file);
    file = must_open("b", NEW_FILE | ENV_OPEN_DIRECT);
    assert_int_equal(env_pread_nowait(file, data, 4, 0, &err), STATUS_PENDING);
    env_close(file);
}

static void test_synced_write_is_written_whole(void **state) {
    (void)state;
    struct env_file *file = must_open("a", NEW_FILE);
    assert_int_equal(env_pwrite_dsync(file, "0123456789", 10, 2, &err), STATUS_OK);
    char data[16];
    size_t len = 0;
    assert_int_equal(env_pread(file, data, sizeof data, 0, &len, &err), STATUS_OK);
    assert_int_equal(len, 12);
    assert_memory_equal(data + 2, "0123456789", 10);
    env_close(file);
    file = must_open("a", ENV_OPEN_READ);
    assert_int_equal(env_pwrite_dsync(file, "x", 1, 0, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "write"));
    env_close(file);
}

static void test_mapping_and_file_are_the_same_bytes(void **state) {
    (void)state;
    struct env_file *file = must_open("a", NEW_FILE);
    char page[ENV_BLOCK_BYTES];
    memset(page, 'o', sizeof page);
    assert_int_equal(env_pwrite(file, page, sizeof page, 0, &err), STATUS_OK);
    void *data = NULL;
    assert_int_equal(env_map(file, sizeof page + 1, &data, &err), STATUS_INVALID);
    assert_null(data);
    assert_int_equal(env_map(file, sizeof page, &data, &err), STATUS_OK);
    assert_int_equal((uintptr_t)data % ENV_BLOCK_BYTES, 0);
    memcpy((char *)data + 100, "stored", 6);
    size_t len = 0;
    assert_int_equal(env_pread(file, page, 8, 99, &len, &err), STATUS_OK);
    assert_memory_equal(page, "ostoredo", 8);
    assert_int_equal(env_pwrite(file, "written", 7, 200, &err), STATUS_OK);
    assert_memory_equal((char *)data + 199, "owritteno", 9);
    assert_int_equal(env_sync(file, &err), STATUS_OK);
    env_unmap(file, data, sizeof page);
    env_unmap(file, NULL, sizeof page);
    env_close(file);
    file = must_open("a", ENV_OPEN_READ);
    assert_int_equal(env_pread(file, page, 6, 100, &len, &err), STATUS_OK);
    assert_memory_equal(page, "stored", 6);
    env_close(file);
}

static void test_huge_memory_is_aligned_counted_and_may_fail(void **state) {
    (void)state;
    uint64_t blocks = memory.live_blocks;
    char *small = env_huge_alloc(env, 1000);
    char *large = env_huge_alloc(env, 3 * (size_t)ENV_HUGE_BYTES + 5);
    assert_true(small != NULL && large != NULL);
    assert_int_equal((uintptr_t)large % ENV_HUGE_BYTES, 0);
    assert_int_equal(memory.live_blocks, blocks + 2);
    memset(large, 1, 3 * (size_t)ENV_HUGE_BYTES + 5);
    env_huge_free(env, small);
    env_huge_free(env, large);
    env_huge_free(env, NULL);
    assert_int_equal(memory.live_blocks, blocks);
    test_alloc_fail(&memory, 1, false);
    assert_null(env_huge_alloc(env, ENV_HUGE_BYTES));
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

static enum status collect(void *context, const char *name) {
    strcat(context, name);
    strcat(context, " ");
    return STATUS_OK;
}

static enum status stop_at_second(void *context, const char *name) {
    (void)name;
    return ++*(int *)context == 2 ? STATUS_CANCELLED : STATUS_OK;
}

static void make_file(const char *name) { env_close(must_open(name, NEW_FILE)); }

static void test_list_dir_is_sorted_and_stops_when_told(void **state) {
    (void)state;
    make_file("b");
    make_file("a10");
    make_file("a2");
    assert_int_equal(env_mkdir(env, test_path(dir, "Z"), &err), STATUS_OK);
    assert_int_equal(env_mkdir(env, test_path(dir, "Z"), &err), STATUS_EXISTS);
    char names[64] = "";
    assert_int_equal(env_list_dir(env, dir, collect, names, &err), STATUS_OK);
    assert_string_equal(names, "Z a10 a2 b ");
    int count = 0;
    assert_int_equal(env_list_dir(env, dir, stop_at_second, &count, &err), STATUS_CANCELLED);
    assert_int_equal(count, 2);
    assert_int_equal(env_list_dir(env, test_path(dir, "nowhere"), collect, names, &err), STATUS_NOT_FOUND);
    test_alloc_fail(&memory, 3, false);
    assert_int_equal(env_list_dir(env, dir, collect, names, &err), STATUS_NO_MEMORY);
}

static void test_rename_link_unlink_sync_dir(void **state) {
    (void)state;
    make_file("a");
    assert_int_equal(env_link(env, test_path(dir, "a"), test_path(dir, "c"), &err), STATUS_OK);
    assert_int_equal(env_link(env, test_path(dir, "a"), test_path(dir, "c"), &err), STATUS_EXISTS);
    assert_int_equal(env_rename(env, test_path(dir, "a"), test_path(dir, "b"), &err), STATUS_OK);
    assert_int_equal(env_unlink(env, test_path(dir, "c"), &err), STATUS_OK);
    assert_int_equal(env_unlink(env, test_path(dir, "c"), &err), STATUS_NOT_FOUND);
    assert_int_equal(env_mkdir(env, test_path(dir, "Z"), &err), STATUS_OK);
    assert_int_equal(env_unlink(env, test_path(dir, "Z"), &err), STATUS_OK); /* an empty directory */
    assert_int_equal(env_unlink(env, test_path(dir, "Z"), &err), STATUS_NOT_FOUND);
    assert_int_equal(env_unlink(env, dir, &err), STATUS_IO); /* one that isn't */
    assert_int_equal(env_sync_dir(env, dir, &err), STATUS_OK);
    assert_int_equal(env_sync_dir(env, test_path(dir, "nowhere"), &err), STATUS_NOT_FOUND);
    char names[64] = "";
    assert_int_equal(env_list_dir(env, dir, collect, names, &err), STATUS_OK);
    assert_string_equal(names, "b ");
    uint64_t free_bytes = 0, total_bytes = 0;
    assert_int_equal(env_disk_space(env, dir, &free_bytes, &total_bytes, &err), STATUS_OK);
    assert_true(free_bytes > 0 && free_bytes <= total_bytes);
}

/* ---- Locks ------------------------------------------------------------------------------------------------------- */

static void *release_soon(void *lock) {
    (void)usleep(200 * 1000);
    env_close(lock);
    return NULL;
}

static void test_h64_lock_of_a_dying_holder_is_waited_for(void **state) {
    (void)state;
    struct env_file *first = NULL, *second = NULL;
    assert_int_equal(env_lock_file(env, test_path(dir, "lock"), &first, &err), STATUS_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, release_soon, first), 0);
    assert_int_equal(env_lock_file(env, test_path(dir, "lock"), &second, &err), STATUS_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    env_close(second);
}

static void test_lock_that_is_held_is_busy_after_a_second(void **state) {
    (void)state;
    struct env_file *first = NULL, *second = NULL;
    assert_int_equal(env_lock_file(env, test_path(dir, "lock"), &first, &err), STATUS_OK);
    uint64_t before_us = env_clock_us(env);
    assert_int_equal(env_lock_file(env, test_path(dir, "lock"), &second, &err), STATUS_BUSY);
    assert_in_range(env_clock_us(env) - before_us, 900 * 1000, 5000 * 1000);
    assert_non_null(strstr(err.message, "lock"));
    env_close(first);
}

/* ---- Parents ----------------------------------------------------------------------------------------------------- */

static char synced[LIMIT_PATH_BYTES];

static enum status note_synced(struct env *unused, const char *path, struct error *unused_err) {
    (void)unused;
    (void)unused_err;
    (void)snprintf(synced, sizeof synced, "%s", path);
    return STATUS_OK;
}

static void test_h28_sync_parent_syncs_the_directory_that_holds_the_path(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"a/b/c", "a/b"}, {"a/b//", "a"}, {"a//b", "a"}, {"b", "."},    {"b/", "."},
                                           {"/b", "/"},      {"/", "/"},     {"//b/", "/"}, {"/a/b", "/a"}};
    struct env_ops ops = {.sync_dir = note_synced};
    struct env noting = {.ops = &ops};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(env_sync_parent(&noting, cases[i][0], &err), STATUS_OK);
        assert_string_equal(synced, cases[i][1]);
    }
    char path[LIMIT_PATH_BYTES + 1];
    memset(path, 'a', LIMIT_PATH_BYTES);
    path[LIMIT_PATH_BYTES] = '\0';
    assert_int_equal(env_sync_parent(&noting, path, &err), STATUS_INVALID);
}

/* ---- Fault points ------------------------------------------------------------------------------------------------ */

static void test_fault_point_acts_as_armed(void **state) {
    (void)state;
    assert_int_equal(env_fault_point(env, FAULT_FLUSH_SYNC, &err), STATUS_OK);
    assert_int_equal(fault_arm(&faults, "flush.sync=error(ENOSPC);flush.write=short;sst.read=delay(5)", &err),
                     STATUS_OK);
    assert_int_equal(env_fault_point(env, FAULT_FLUSH_SYNC, &err), STATUS_NO_SPACE);
    assert_non_null(strstr(err.message, "flush.sync"));
    assert_int_equal(env_fault_point(env, FAULT_FLUSH_WRITE, &err), STATUS_IO);
    uint64_t before_us = env_clock_us(env);
    assert_int_equal(env_fault_point(env, FAULT_SST_READ, &err), STATUS_OK);
    assert_true(env_clock_us(env) - before_us >= 5000);
    assert_int_equal(env_fault_point(env, FAULT_NONE, &err), STATUS_OK);
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_direct_file_with_an_unaligned_write_aborts), /* first: it forks */
        WITH_DIR(test_file_written_is_read_back_and_short_only_at_its_end),
        WITH_DIR(test_open_flags_mean_what_they_say),
        WITH_DIR(test_direct_file_reads_and_writes_blocks),
        WITH_DIR(test_file_written_past_the_page_cache_and_through_it_reads_the_same_both_ways),
        WITH_DIR(test_stream_holds_what_was_written),
        WITH_DIR(test_nowait_read_answers_whole_or_not_at_all),
        WITH_DIR(test_synced_write_is_written_whole),
        WITH_DIR(test_mapping_and_file_are_the_same_bytes),
        WITH_DIR(test_huge_memory_is_aligned_counted_and_may_fail),
        WITH_DIR(test_list_dir_is_sorted_and_stops_when_told),
        WITH_DIR(test_rename_link_unlink_sync_dir),
        cmocka_unit_test(test_h28_sync_parent_syncs_the_directory_that_holds_the_path),
        WITH_DIR(test_h64_lock_of_a_dying_holder_is_waited_for),
        WITH_DIR(test_lock_that_is_held_is_busy_after_a_second),
        WITH_DIR(test_fault_point_acts_as_armed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
