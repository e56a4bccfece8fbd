/* The production environment: the vtable put together, clocks, random bytes, processors, the end of the process. */
#include "node/env/os/os_internal.h"
#include "node/env/os/tcp_internal.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static uint64_t clock_us(struct env *env) {
    (void)env;
    struct timespec time;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static int64_t wall_ms(struct env *env) {
    (void)env;
    struct timespec time;
    CHECK(clock_gettime(CLOCK_REALTIME, &time) == 0);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Under the lock. The kernel always has random bytes once the machine is up; short answers come with signals only. */
static void refill_random(struct os_env *env) {
    while (env->random_left < sizeof env->random_pool) {
        ssize_t got = getrandom(env->random_pool + env->random_left, sizeof env->random_pool - env->random_left, 0);
        CHECK(got > 0 || errno == EINTR);
        env->random_left += got > 0 ? (size_t)got : 0;
    }
}

/* Bytes are taken from the end of the pool, and wiped: no value is handed out twice or left behind. */
static uint64_t random_bits(struct env *base) {
    struct os_env *env = os_env_of(base);
    uint64_t value;
    CHECK(pthread_mutex_lock(&env->lock) == 0);
    if (env->random_left < sizeof value) {
        refill_random(env);
    }
    env->random_left -= sizeof value;
    memcpy(&value, env->random_pool + env->random_left, sizeof value);
    explicit_bzero(env->random_pool + env->random_left, sizeof value);
    CHECK(pthread_mutex_unlock(&env->lock) == 0);
    return value;
}

static unsigned cpu_count(struct env *env) {
    (void)env;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
        return (unsigned)CPU_COUNT(&set);
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more processors than cpu_set_t holds */
    return online > 0 ? (unsigned)online : 1;
}

static void exit_now(struct env *env, int code) {
    (void)env;
    _exit(code);
}

static void sleep_us(struct env *env, uint64_t us) {
    (void)env;
    os_loop__check_may_block("env_sleep_us");
    struct timespec left = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
}

static void work_submit(struct env *env, enum env_work_class work_class, struct env_work *work) {
    os_workers__submit(&os_env_of(env)->workers, work_class, work);
}

/* Advice: without huge pages the memory is as good, only slower. Whole huge pages within the memory, as it starts at
 * one. */
static void advise_huge(struct env *env, void *data, size_t size_bytes) {
    (void)env;
    (void)madvise(data, size_bytes / ENV_HUGE_BYTES * ENV_HUGE_BYTES, MADV_HUGEPAGE);
}

static void fill_ops(struct env_ops *ops) {
    *ops = (struct env_ops){
        .clock_us = clock_us,
        .wall_ms = wall_ms,
        .random = random_bits,
        .cpu_count = cpu_count,
        .exit = exit_now,
        .loop_new = os_loop__new,
        .loop_run = os_loop__run,
        .loop_spawn = os_loop__spawn,
        .loop_stop = os_loop__stop,
        .loop_join = os_loop__join,
        .loop_free = os_loop__free,
        .on_loop = os_loop__is_current,
        .loop_wake = os_loop__wake,
        .work_submit = work_submit,
        .sleep_us = sleep_us,
        .event_new = os_event__new,
        .event_free = os_event__free,
        .event_set = os_event__set,
        .event_wait = os_event__wait,
        .word_wait = os_word__wait,
        .word_wake = os_word__wake,
        .advise_huge = advise_huge,
        .pread_nowait = os_page_cache__pread_nowait,
        .map = os_page_cache__map,
        .unmap = os_page_cache__unmap,
        .io_submit = os_io__submit,
    };
    os_files__fill_ops(ops);
}

/* A peer that went away must be an error of the write, not the end of the process. Who handles SIGPIPE keeps his
 * handler. */
static void ignore_sigpipe(void) {
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL) {
        (void)signal(SIGPIPE, SIG_IGN);
    }
}

enum status env_os_new(const struct env_os_options *options, struct env **ret_env, struct error *err) {
    struct alloc *alloc = options->alloc != NULL ? options->alloc : alloc_system();
    struct os_env *env = mem_alloc_zero(alloc, sizeof *env);
    if (env == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "environment: out of memory");
    }
    enum status status = os_workers__init(&env->workers, alloc, options->workers_short, options->workers_long, err);
    if (status != STATUS_OK) {
        mem_free(alloc, env);
        return status;
    }
    fill_ops(&env->ops);
    env->base = (struct env){.ops = &env->ops, .alloc = alloc, .faults = options->faults};
    env->base.spin_max = os_word__spin_max(cpu_count(&env->base));
    env->tcp.ops = &os_tcp__transport_ops;
    env->use_ring = options->use_ring;
    list_init(&env->ports);
    CHECK(pthread_mutex_init(&env->lock, NULL) == 0);
    ignore_sigpipe();
    *ret_env = &env->base;
    return STATUS_OK;
}

void env_os_free(struct env *base) {
    if (base == NULL) {
        return;
    }
    struct os_env *env = os_env_of(base);
    os_workers__deinit(&env->workers);
    CHECK(pthread_mutex_destroy(&env->lock) == 0);
    mem_free(base->alloc, env);
}

struct env_transport *env_os_tcp(struct env *env) {
    return &os_env_of(env)->tcp;
}

void os_env__set_ring_state(struct os_env *env, enum os_ring_state state, const char *reason) {
    CHECK(pthread_mutex_lock(&env->lock) == 0);
    if (env->ring_state == OS_RING_UNTRIED) {
        env->ring_state = state;
        (void)snprintf(env->ring_reason, sizeof env->ring_reason, "%s", reason);
    }
    CHECK(pthread_mutex_unlock(&env->lock) == 0);
}

/* The reason isn't written any more once the state is known, so it may be lent out. */
bool env_os_has_ring(struct env *base, const char **ret_reason) {
    struct os_env *env = os_env_of(base);
    CHECK(pthread_mutex_lock(&env->lock) == 0);
    enum os_ring_state state = env->ring_state;
    CHECK(pthread_mutex_unlock(&env->lock) == 0);
    if (state != OS_RING_USED) {
        *ret_reason = state == OS_RING_UNTRIED ? "no loop has been made yet" : env->ring_reason;
    }
    return state == OS_RING_USED;
}
