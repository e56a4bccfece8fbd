/*
 * The cap on open files. Would break these: a file that is closed under somebody who pinned it; more open than the cap
 * though some are idle; a file used all the time that is closed before one that isn't; a failed open that leaves the
 * slot stuck; a process that runs out of descriptors although it holds idle ones (hazard 57).
 */
#include "node/env/os/env_os.h"
#include "storage/open_files.h"
#include "tests/unit/support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SLOTS = 40, CAP = 8 };

static struct test_alloc memory;
static struct env *env;
static struct open_files *files;
static struct open_file slots[SLOTS];
static char *dir;
static struct error err;

static const char *path_of(unsigned slot) {
    char name[16];
    (void)snprintf(name, sizeof name, "%u", slot);
    return test_path(dir, name);
}

static int setup(void **state) {
    (void)state;
    dir = test_dir_new();
    test_alloc_init(&memory);
    const struct env_os_options options = {.alloc = &memory.base, .workers_short = 1, .workers_long = 1};
    if (env_os_new(&options, &env, &err) != STATUS_OK || open_files_new(env, CAP, &files, &err) != STATUS_OK) {
        return -1;
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        struct env_file *file = NULL;
        if (env_open(env, path_of(i), ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, &err) != STATUS_OK ||
            env_pwrite(file, &i, sizeof i, 0, &err) != STATUS_OK) {
            return -1;
        }
        env_close(file);
        open_file_init(&slots[i], files);
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (unsigned i = 0; i < SLOTS; i++) {
        open_file_deinit(&slots[i]);
    }
    open_files_free(files);
    env_os_free(env);
    test_dir_remove(dir);
    return memory.live_blocks == 0 ? 0 : -1;
}

static void check_content(unsigned slot) {
    unsigned content = 0;
    size_t len = 0;
    assert_int_equal(env_pread(slots[slot].file, &content, sizeof content, 0, &len, &err), STATUS_OK);
    assert_int_equal(len, sizeof content);
    assert_int_equal(content, slot);
}

/* Pins, opens if it must. True if it was open. */
static bool use(unsigned slot) {
    enum status status = open_file_pin(&slots[slot]);
    assert_true(status == STATUS_OK || status == STATUS_PENDING);
    if (status == STATUS_PENDING) {
        assert_int_equal(open_file_open(&slots[slot], path_of(slot), &err), STATUS_OK);
    }
    check_content(slot);
    open_file_unpin(&slots[slot]);
    return status == STATUS_OK;
}

static struct open_files_stats stats(void) {
    struct open_files_stats result;
    open_files_get_stats(files, &result);
    return result;
}

static void test_file_is_opened_once_and_stays_open(void **state) {
    (void)state;
    assert_false(use(3));
    for (int i = 0; i < 10; i++) {
        assert_true(use(3));
    }
    assert_int_equal(open_file_open(&slots[3], path_of(3), &err), STATUS_OK); /* open already: pins */
    assert_int_equal(open_file_pin(&slots[3]), STATUS_OK);
    open_file_unpin(&slots[3]);
    open_file_unpin(&slots[3]);
    assert_int_equal(stats().opened_total, 1);
    assert_int_equal(stats().open, 1);
}

static void test_no_more_than_the_cap_stay_open(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        for (unsigned i = 0; i < SLOTS; i++) {
            (void)use(i);
            assert_true(stats().open <= CAP);
        }
    }
    struct open_files_stats now = stats();
    assert_int_equal(now.open, CAP);
    assert_int_equal(now.opened_total - now.closed_total, CAP);
    assert_true(now.opened_total > 2 * SLOTS);
}

static void test_file_in_use_outlives_idle_ones(void **state) {
    (void)state;
    (void)use(0);
    for (unsigned i = 1; i < SLOTS; i++) {
        (void)use(i);
        assert_true(use(0));
    }
}

static void test_pinned_files_are_not_closed_and_may_exceed_the_cap(void **state) {
    (void)state;
    for (unsigned i = 0; i < 2 * CAP; i++) {
        assert_int_equal(open_file_open(&slots[i], path_of(i), &err), STATUS_OK);
    }
    assert_int_equal(stats().open, 2 * CAP);
    assert_int_equal(stats().closed_total, 0);
    for (unsigned i = 0; i < 2 * CAP; i++) {
        check_content(i);
        open_file_unpin(&slots[i]);
    }
    for (unsigned i = 2 * CAP; i < SLOTS; i++) {
        (void)use(i);
    }
    assert_int_equal(stats().open, CAP);
}

static void test_failed_open_leaves_the_slot_closed(void **state) {
    (void)state;
    const char *nowhere = test_path(dir, "nowhere");
    assert_int_equal(open_file_open(&slots[0], nowhere, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "nowhere"));
    assert_int_equal(open_file_pin(&slots[0]), STATUS_PENDING);
    assert_int_equal(stats().open, 0);
    test_alloc_fail(&memory, 1, false);
    assert_int_equal(open_file_open(&slots[0], path_of(0), &err), STATUS_NO_MEMORY);
    assert_int_equal(open_file_pin(&slots[0]), STATUS_PENDING);
    assert_false(use(0));
    struct open_files *other = NULL;
    test_alloc_fail(&memory, 1, false);
    assert_int_equal(open_files_new(env, 1, &other, &err), STATUS_NO_MEMORY);
    assert_null(other);
}

static void test_h57_open_without_descriptors_closes_idle_files_first(void **state) {
    (void)state;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (unsigned i = 0; i < 4; i++) {
        (void)use(i);
    }
    int next = open("/dev/null", O_RDONLY); /* the lowest that is free */
    assert_true(next >= 0);
    assert_int_equal(close(next), 0);
    struct rlimit tight = {.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    enum status status = open_file_open(&slots[5], path_of(5), &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(status, STATUS_OK);
    check_content(5);
    open_file_unpin(&slots[5]);
    assert_true(stats().closed_total > 0);
}

int main(void) {
#define WITH_FILES(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_FILES(test_file_is_opened_once_and_stays_open),
        WITH_FILES(test_no_more_than_the_cap_stay_open),
        WITH_FILES(test_file_in_use_outlives_idle_ones),
        WITH_FILES(test_pinned_files_are_not_closed_and_may_exceed_the_cap),
        WITH_FILES(test_failed_open_leaves_the_slot_closed),
        WITH_FILES(test_h57_open_without_descriptors_closes_idle_files_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
