/* See pool.h. */
#include "tests/torture/pool.h"

#include "node/base/check.h"
#include "tests/torture/player.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_SECONDS_MAX = 120 };

void pool_init(struct pool *pool, unsigned processes) {
    memset(pool, 0, sizeof *pool);
    pool->processes = processes < 1 ? 1 : processes < POOL_PROCESSES_MAX ? processes : POOL_PROCESSES_MAX;
    pool->seconds = CHILD_SECONDS_MAX;
    pool->counts = mmap(NULL, sizeof *pool->counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(pool->counts != MAP_FAILED);
}

void pool_deinit(struct pool *pool) { (void)munmap(pool->counts, sizeof *pool->counts); }

static void reap_one(struct pool *pool) {
    int state = 0;
    pid_t pid = wait(&state);
    CHECK(pid > 0);
    for (unsigned i = 0; i < POOL_PROCESSES_MAX; i++) {
        if (pool->children[i].pid != pid) {
            continue;
        }
        pool->children[i].pid = 0;
        pool->running--;
        if (state != 0) {
            pool->counts->failures++;
            (void)fprintf(stderr, "FAILED %s: %s %d\n", pool->children[i].label,
                          WIFSIGNALED(state) ? "ended by signal" : "exit code",
                          WIFSIGNALED(state) ? WTERMSIG(state) : WEXITSTATUS(state));
        }
    }
}

bool pool_has_failed(const struct pool *pool) { return pool->counts->failures >= POOL_FAILURES_MAX; }

bool pool_child(struct pool *pool, const char *label) {
    while (pool->running == pool->processes) {
        reap_one(pool);
    }
    if (pool_has_failed(pool)) {
        return false;
    }
    unsigned place = 0;
    while (pool->children[place].pid != 0) {
        place++;
    }
    (void)fflush(stdout);
    (void)fflush(stderr);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        torture_say_how("%s", label);
        (void)alarm(pool->seconds);
        return true;
    }
    pool->counts->runs++;
    pool->running++;
    pool->children[place].pid = pid;
    (void)snprintf(pool->children[place].label, POOL_LABEL_BYTES, "%s", label);
    return false;
}

void pool_child_done(void) {
    (void)fflush(stdout);
    _exit(0);
}

void pool_wait(struct pool *pool) {
    while (pool->running > 0) {
        reap_one(pool);
    }
}

bool pool_report(const struct pool *pool, const char *title) {
    const struct pool_counts *counts = pool->counts;
    printf("%s: %" PRIu64 " runs, %" PRIu64 " crashes, %" PRIu64 " of them while opening, %" PRIu64 " faults, %" PRIu64
           " calls failed by them, %" PRIu64 " checks, %" PRIu64 " failures\n",
           title, counts->runs, counts->crashes, counts->second_crashes, counts->faults, counts->failed_calls,
           counts->checks, counts->failures);
    (void)fflush(stdout);
    return counts->failures == 0 && counts->runs > 0;
}
