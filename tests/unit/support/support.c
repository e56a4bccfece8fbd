/* Helpers of the unit tests. */
#include "tests/unit/support/support.h"

#include "node/base/check.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool must_fail(struct test_alloc *alloc) {
    uint64_t attempt = atomic_fetch_add(&alloc->attempts, 1) + 1;
    uint64_t fail_at = atomic_load(&alloc->fail_at);
    return fail_at != 0 && (attempt == fail_at || (attempt > fail_at && atomic_load(&alloc->fail_all_later)));
}

static void *counted_resize(struct alloc *base, void *ptr, size_t size, size_t align) {
    struct test_alloc *alloc = CONTAINER_OF(base, struct test_alloc, base);
    struct alloc *system = alloc_system();
    if (size == 0) {
        if (ptr != NULL) {
            uint64_t before = atomic_fetch_sub(&alloc->live_blocks, 1);
            CHECK(before > 0);
        }
        return system->resize(system, ptr, size, align);
    }
    if (must_fail(alloc)) {
        return NULL;
    }
    void *block = system->resize(system, ptr, size, align);
    if (ptr == NULL && block != NULL) {
        atomic_fetch_add(&alloc->live_blocks, 1);
    }
    return block;
}

void test_alloc_init(struct test_alloc *alloc) {
    memset(alloc, 0, sizeof *alloc);
    alloc->base.resize = counted_resize;
}

void test_alloc_fail(struct test_alloc *alloc, uint64_t n, bool and_all_later) {
    atomic_store(&alloc->fail_all_later, and_all_later);
    atomic_store(&alloc->fail_at, n == 0 ? 0 : atomic_load(&alloc->attempts) + n);
}

char *test_dir_new(void) {
    const char *root = getenv("TMPDIR");
    char *dir = NULL;
    CHECK(asprintf(&dir, "%s/holdfast-test-XXXXXX", root != NULL ? root : "/tmp") > 0);
    CHECK(mkdtemp(dir) != NULL);
    return dir;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk) {
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

void test_dir_remove(char *dir) {
    CHECK(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0);
    free(dir);
}

const char *test_path(const char *dir, const char *name) {
    static char paths[8][LIMIT_PATH_BYTES];
    static unsigned next;
    char *path = paths[next++ % 8];
    int len = snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    CHECK(len > 0 && (size_t)len < sizeof paths[0]);
    return path;
}

struct until {
    struct env_timer timer;
    bool (*done)(void *context);
    void *context;
    uint64_t deadline_us;
    bool answer;
};

enum { STEP_US = 1000 };

static void look(struct env_timer *timer) {
    struct until *until = CONTAINER_OF(timer, struct until, timer);
    uint64_t now_us = env_now_us(timer->loop);
    until->answer = until->done(until->context);
    if (until->answer || now_us >= until->deadline_us) {
        env_loop_stop(timer->loop);
    } else {
        CHECK(env_timer_arm(timer, now_us + STEP_US) == STATUS_OK);
    }
}

bool test_loop_until(struct env_loop *loop, bool (*done)(void *context), void *context, unsigned timeout_ms) {
    uint64_t now_us = env_clock_us(env_loop_env(loop));
    struct until until = {.done = done, .context = context, .deadline_us = now_us + (uint64_t)timeout_ms * 1000};
    env_timer_init(&until.timer, loop, look);
    CHECK(env_timer_arm(&until.timer, now_us) == STATUS_OK);
    env_loop_run(loop);
    env_timer_cancel(&until.timer);
    return until.answer;
}

static bool is_set(void *context) { return *(const bool *)context; }

bool test_loop_until_set(struct env_loop *loop, const bool *flag, unsigned timeout_ms) {
    return test_loop_until(loop, is_set, (void *)(uintptr_t)flag, timeout_ms);
}

bool test_aborts(void (*run)(void *context), void *context) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        (void)dup2(null, STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL); /* cmocka and sanitizers may have handlers */
        run(context);
        _exit(0);
    }
    int state = 0;
    CHECK(waitpid(child, &state, 0) == child);
    return WIFSIGNALED(state) && WTERMSIG(state) == SIGABRT;
}

bool test_is_long(void) {
    const char *length = getenv("HOLDFAST_TEST_LENGTH");
    return length != NULL && strcmp(length, "long") == 0;
}
