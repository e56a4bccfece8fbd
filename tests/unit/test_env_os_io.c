/*
 * Asynchronous files, by the ring and by threads. Breaks if a short read at the end of a file loops for ever (hazard
 * 48), if completions meet the wrong operation, if more operations than the ring holds get lost, if submissions aren't
 * handed over once per turn, if done runs inside the submission, or if a fault hook lets a write through.
 */
#include "node/env/os/env_os.h"
#include "tests/unit/support/support.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct test_alloc memory;
static struct fault_set faults;
static struct env *env;
static struct env_loop *loop;
static char *dir;
static struct error err;

static int setup(bool use_ring) {
    test_alloc_init(&memory);
    fault_init(&faults);
    const struct env_os_options options = {
        .alloc = &memory.base, .faults = &faults, .use_ring = use_ring, .workers_short = 1, .workers_long = 1};
    dir = test_dir_new();
    return env_os_new(&options, &env, &err) == STATUS_OK && env_loop_new(env, "io", 16, &loop, &err) == STATUS_OK ? 0
                                                                                                                  : -1;
}

static int setup_ring(void **state) {
    (void)state;
    return setup(true);
}

static int setup_pool(void **state) {
    (void)state;
    return setup(false);
}

static int teardown(void **state) {
    (void)state;
    env_loop_free(loop);
    env_os_free(env);
    test_dir_remove(dir);
    return memory.live_blocks == 0 ? 0 : -1;
}

struct operation {
    struct env_io io;
    bool done;
    bool is_submitting; /* done must not run now */
};

static int done_count;

static void on_done(struct env_io *io) {
    struct operation *operation = CONTAINER_OF(io, struct operation, io);
    assert_false(operation->is_submitting);
    assert_false(operation->done);
    assert_true(env_on_loop(loop));
    operation->done = true;
    done_count++;
}

static void submit(struct operation *operation, enum env_io_kind kind, struct env_file *file, void *data, size_t len,
                   uint64_t offset, enum fault_hook hook) {
    *operation = (struct operation){
        .io = {.kind = kind, .file = file, .data = data, .len = len, .offset = offset, .hook = hook, .done = on_done},
        .is_submitting = true};
    env_io_submit(loop, &operation->io);
    operation->is_submitting = false;
}

static struct env_file *must_open(const char *name, unsigned flags) {
    struct env_file *file = NULL;
    assert_int_equal(env_open(env, test_path(dir, name), flags, &file, &err), STATUS_OK);
    return file;
}

enum { NEW_FILE = ENV_OPEN_READ | ENV_OPEN_WRITE | ENV_OPEN_CREATE };

static void test_env_says_which_way_files_go(void **state) {
    (void)state;
    const char *reason = NULL;
    bool has_ring = env_os_has_ring(env, &reason);
    assert_true(has_ring == (reason == NULL));
    if (reason != NULL) {
        print_message("files go through threads: %s\n", reason);
    }
}

static void test_io_write_dsync_then_read_back(void **state) {
    (void)state;
    struct env_file *file = must_open("a", NEW_FILE | ENV_OPEN_DIRECT);
    uint8_t *data = mem_alloc_aligned(&memory.base, ENV_BLOCK_BYTES, 2 * ENV_BLOCK_BYTES);
    memset(data, 'w', 2 * ENV_BLOCK_BYTES);
    struct operation operation;
    submit(&operation, ENV_IO_WRITE_DSYNC, file, data, 2 * ENV_BLOCK_BYTES, 4 * ENV_BLOCK_BYTES, FAULT_NONE);
    assert_true(test_loop_until_set(loop, &operation.done, 5000));
    assert_int_equal(operation.io.status, STATUS_OK);
    assert_int_equal(operation.io.done_len, 2 * ENV_BLOCK_BYTES);
    submit(&operation, ENV_IO_SYNC, file, NULL, 0, 0, FAULT_NONE);
    assert_true(test_loop_until_set(loop, &operation.done, 5000));
    assert_int_equal(operation.io.status, STATUS_OK);
    memset(data, 0, 2 * ENV_BLOCK_BYTES);
    submit(&operation, ENV_IO_READ, file, data, ENV_BLOCK_BYTES, 5 * ENV_BLOCK_BYTES, FAULT_NONE);
    assert_true(test_loop_until_set(loop, &operation.done, 5000));
    assert_int_equal(operation.io.done_len, ENV_BLOCK_BYTES);
    assert_int_equal(data[ENV_BLOCK_BYTES - 1], 'w');
    env_close(file);
    mem_free(&memory.base, data);
}

static void test_h48_read_across_the_end_of_the_file_ends_short(void **state) {
    (void)state;
    uint8_t *data = mem_alloc_aligned(&memory.base, ENV_BLOCK_BYTES, 4 * ENV_BLOCK_BYTES);
    for (int direct = 0; direct < 2; direct++) {
        struct env_file *file = must_open(direct ? "d" : "b", NEW_FILE | (direct ? ENV_OPEN_DIRECT : 0u));
        assert_int_equal(env_truncate(file, ENV_BLOCK_BYTES + 100, &err), STATUS_OK);
        static const struct {
            uint64_t offset;
            size_t expected;
        } cases[] = {{0, ENV_BLOCK_BYTES + 100}, {ENV_BLOCK_BYTES, 100}, {2 * ENV_BLOCK_BYTES, 0}};
        for (size_t i = 0; i < 3; i++) {
            struct operation operation;
            submit(&operation, ENV_IO_READ, file, data, 4 * ENV_BLOCK_BYTES, cases[i].offset, FAULT_NONE);
            assert_true(test_loop_until_set(loop, &operation.done, 2000));
            assert_int_equal(operation.io.status, STATUS_OK);
            assert_int_equal(operation.io.done_len, cases[i].expected);
        }
        env_close(file);
    }
    mem_free(&memory.base, data);
}

enum { MANY = 1000, MANY_BYTES = 64 };

static bool all_many_done(void *context) {
    (void)context;
    return done_count == MANY;
}

/* Every operation has a length of its own, so that one that gets another's result shows. */
static size_t many_len(int i) { return (size_t)(i * 7 % MANY_BYTES) + 1; }

static void submit_many(struct operation *operations, enum env_io_kind kind, struct env_file *file,
                        uint8_t (*data)[MANY_BYTES]) {
    done_count = 0;
    for (int i = 0; i < MANY; i++) {
        submit(&operations[i], kind, file, data[i], many_len(i), (uint64_t)i * MANY_BYTES, FAULT_NONE);
    }
    assert_true(test_loop_until(loop, all_many_done, NULL, 20000));
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(operations[i].io.status, STATUS_OK);
        assert_int_equal(operations[i].io.done_len, many_len(i));
    }
}

static void test_h48_many_more_operations_than_the_ring_holds_all_end_with_their_own_bytes(void **state) {
    (void)state;
    static struct operation operations[MANY];
    static uint8_t written[MANY][MANY_BYTES], read[MANY][MANY_BYTES];
    struct env_file *file = must_open("a", NEW_FILE);
    memset(written, 0, sizeof written);
    memset(read, 0, sizeof read);
    for (int i = 0; i < MANY; i++) {
        memset(written[i], i % 251, many_len(i));
    }
    submit_many(operations, ENV_IO_WRITE, file, written);
    submit_many(operations, ENV_IO_READ, file, read);
    assert_memory_equal(read, written, sizeof written);
    assert_int_equal(env_os_get_loop_stats(loop).file_operations, 2 * MANY);
    env_close(file);
}

static void stop_when_all_done(struct env_io *io) {
    on_done(io);
    if (done_count == MANY / 4) {
        env_loop_stop(loop);
    }
}

/* Reads from the page cache complete at once, all with one wake-up; no timer helps here, and the alarm ends a hang. */
static void test_io_many_completions_at_once_are_all_taken(void **state) {
    (void)state;
    static struct operation operations[MANY / 4];
    static uint8_t data[MANY / 4][MANY_BYTES];
    struct env_file *file = must_open("a", NEW_FILE);
    assert_int_equal(env_pwrite(file, data, sizeof data, 0, &err), STATUS_OK);
    done_count = 0;
    for (int i = 0; i < MANY / 4; i++) {
        submit(&operations[i], ENV_IO_READ, file, data[i], MANY_BYTES, (uint64_t)i * MANY_BYTES, FAULT_NONE);
        operations[i].io.done = stop_when_all_done;
    }
    (void)alarm(20);
    env_loop_run(loop);
    (void)alarm(0);
    assert_int_equal(done_count, MANY / 4);
    env_close(file);
}

static void test_io_submissions_of_a_turn_go_to_the_ring_in_one_call(void **state) {
    (void)state;
    static uint8_t data[8][MANY_BYTES];
    struct operation operations[8];
    struct env_file *file = must_open("a", NEW_FILE);
    for (int i = 0; i < 8; i++) {
        submit(&operations[i], ENV_IO_WRITE, file, data[i], MANY_BYTES, (uint64_t)i * MANY_BYTES, FAULT_NONE);
    }
    for (int i = 0; i < 8; i++) {
        assert_true(test_loop_until_set(loop, &operations[i].done, 5000));
    }
    const char *reason = NULL;
    if (env_os_has_ring(env, &reason)) {
        assert_int_equal(env_os_get_loop_stats(loop).ring_submits, 1);
    }
    env_close(file);
}

static void test_io_failure_names_the_file_and_keeps_errno(void **state) {
    (void)state;
    env_close(must_open("a", NEW_FILE));
    struct env_file *file = must_open("a", ENV_OPEN_READ);
    uint8_t data[16] = {0};
    struct operation operation;
    submit(&operation, ENV_IO_WRITE, file, data, sizeof data, 0, FAULT_NONE);
    assert_true(test_loop_until_set(loop, &operation.done, 5000));
    assert_int_equal(operation.io.status, STATUS_IO);
    assert_int_equal(operation.io.error.sys, EBADF);
    assert_non_null(strstr(operation.io.error.message, test_path(dir, "a")));
    env_close(file);
}

static void test_io_under_way_is_waited_for_when_the_loop_is_freed(void **state) {
    (void)state;
    uint8_t data[16] = {0};
    struct operation operation;
    struct env_file *file = must_open("a", NEW_FILE);
    submit(&operation, ENV_IO_WRITE_DSYNC, file, data, sizeof data, 0, FAULT_NONE);
    env_loop_free(loop);
    loop = NULL;
    assert_true(operation.done);
    env_close(file);
}

/* ---- Fault hooks ------------------------------------------------------------------------------------------------- */

static uint64_t file_size(struct env_file *file) {
    uint64_t size = 0;
    assert_int_equal(env_size(file, &size, &err), STATUS_OK);
    return size;
}

static void arm(const char *specification) { assert_int_equal(fault_arm(&faults, specification, &err), STATUS_OK); }

static void test_io_hook_error_fails_without_touching_the_file(void **state) {
    (void)state;
    static uint8_t data[3 * ENV_BLOCK_BYTES];
    struct env_file *file = must_open("a", NEW_FILE);
    struct operation operation, other;
    arm("wal.write=error(ENOSPC),count=1");
    submit(&operation, ENV_IO_WRITE_DSYNC, file, data, sizeof data, 0, FAULT_WAL_WRITE);
    assert_true(test_loop_until_set(loop, &operation.done, 5000));
    assert_int_equal(operation.io.status, STATUS_NO_SPACE);
    assert_int_equal(operation.io.done_len, 0);
    assert_int_equal(file_size(file), 0);
    submit(&other, ENV_IO_WRITE_DSYNC, file, data, sizeof data, 0, FAULT_WAL_WRITE);
    assert_true(test_loop_until_set(loop, &other.done, 5000));
    assert_int_equal(other.io.status, STATUS_OK);
    env_close(file);
}

static void test_io_hook_short_writes_the_first_half_and_fails(void **state) {
    (void)state;
    static uint8_t data[3 * ENV_BLOCK_BYTES];
    struct env_file *file = must_open("a", NEW_FILE);
    struct operation operation;
    arm("wal.write=short");
    submit(&operation, ENV_IO_WRITE_DSYNC, file, data, sizeof data, 0, FAULT_WAL_WRITE);
    assert_true(test_loop_until_set(loop, &operation.done, 5000));
    assert_int_equal(operation.io.status, STATUS_IO);
    assert_int_equal(operation.io.done_len, ENV_BLOCK_BYTES);
    assert_int_equal(file_size(file), ENV_BLOCK_BYTES);
    submit(&operation, ENV_IO_WRITE, file, data, ENV_BLOCK_BYTES, 8 * ENV_BLOCK_BYTES, FAULT_WAL_WRITE);
    assert_true(test_loop_until_set(loop, &operation.done, 5000));
    assert_int_equal(operation.io.status, STATUS_IO);
    assert_int_equal(file_size(file), ENV_BLOCK_BYTES); /* half a block is nothing */
    env_close(file);
}

static void test_io_hook_delay_and_hang_hold_it_back(void **state) {
    (void)state;
    static uint8_t data[ENV_BLOCK_BYTES];
    struct env_file *file = must_open("a", NEW_FILE);
    struct operation operation;
    arm("wal.write=delay(20)");
    uint64_t before_us = env_clock_us(env);
    submit(&operation, ENV_IO_WRITE, file, data, sizeof data, 0, FAULT_WAL_WRITE);
    assert_true(test_loop_until_set(loop, &operation.done, 5000));
    assert_true(env_clock_us(env) - before_us >= 20000);
    assert_int_equal(operation.io.status, STATUS_OK);
    arm("wal.write=hang");
    submit(&operation, ENV_IO_WRITE, file, data, sizeof data, 2 * ENV_BLOCK_BYTES, FAULT_WAL_WRITE);
    assert_false(test_loop_until_set(loop, &operation.done, 250));
    assert_int_equal(file_size(file), ENV_BLOCK_BYTES);
    fault_disarm(&faults, FAULT_WAL_WRITE);
    assert_true(test_loop_until_set(loop, &operation.done, 5000));
    assert_int_equal(operation.io.status, STATUS_OK);
    assert_int_equal(file_size(file), 3 * ENV_BLOCK_BYTES);
    env_close(file);
}

/* ---- A ring that is refused -------------------------------------------------------------------------------------- */

/* As the default rules of container engines do. */
static bool forbid_ring(void) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof rules / sizeof rules[0], .filter = rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

enum { CHILD_GOOD = 0, CHILD_BAD = 1, CHILD_CANNOT = 2 };

static int run_without_ring(void) {
    if (!forbid_ring()) {
        return CHILD_CANNOT;
    }
    if (setup(true) != 0) {
        return CHILD_BAD;
    }
    const char *reason = "";
    bool good = !env_os_has_ring(env, &reason) && strstr(reason, "not permitted") != NULL;
    static uint8_t data[64];
    struct operation operation;
    struct env_file *file = must_open("a", NEW_FILE);
    submit(&operation, ENV_IO_WRITE_DSYNC, file, data, sizeof data, 0, FAULT_NONE);
    good = good && test_loop_until_set(loop, &operation.done, 5000) && operation.io.status == STATUS_OK;
    env_close(file);
    return good && teardown(NULL) == 0 ? CHILD_GOOD : CHILD_BAD;
}

static void test_ring_refused_by_the_kernel_is_replaced_by_threads(void **state) {
    (void)state;
    pid_t child = fork(); /* before there are threads */
    assert_true(child >= 0);
    if (child == 0) {
        _exit(run_without_ring());
    }
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    if (WEXITSTATUS(result) == CHILD_CANNOT) {
        skip(); /* no seccomp here */
    }
    assert_int_equal(WEXITSTATUS(result), CHILD_GOOD);
}

#define WITH_BOTH(test)                                                                                                \
    {#test "_by_ring", test, setup_ring, teardown, NULL}, { #test "_by_threads", test, setup_pool, teardown, NULL }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_refused_by_the_kernel_is_replaced_by_threads), /* first: it forks */
        WITH_BOTH(test_env_says_which_way_files_go),
        WITH_BOTH(test_io_write_dsync_then_read_back),
        WITH_BOTH(test_h48_read_across_the_end_of_the_file_ends_short),
        WITH_BOTH(test_h48_many_more_operations_than_the_ring_holds_all_end_with_their_own_bytes),
        WITH_BOTH(test_io_many_completions_at_once_are_all_taken),
        WITH_BOTH(test_io_submissions_of_a_turn_go_to_the_ring_in_one_call),
        WITH_BOTH(test_io_failure_names_the_file_and_keeps_errno),
        WITH_BOTH(test_io_under_way_is_waited_for_when_the_loop_is_freed),
        WITH_BOTH(test_io_hook_error_fails_without_touching_the_file),
        WITH_BOTH(test_io_hook_short_writes_the_first_half_and_fails),
        WITH_BOTH(test_io_hook_delay_and_hang_hold_it_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
