/*
 * A loop: turns on top of libuv's.
 *
 *   prepare   leftover tasks (from closing handles), file submissions in one call, the timer that bounds the wait
 *   poll      waits; streams, listeners and signals call back
 *   check     file completions, `later` tasks, messages, timers, then all deferred tasks: PROCESS, FLUSH
 *   closing   libuv's close callbacks: the last words of streams
 *
 * The turn's time is read by whatever runs first after the poll. env_loop_stop ends the run after check; what that turn
 * deferred or submitted is handed out before env_loop_run returns. A stop that comes before the run lets it have one
 * turn.
 *
 * Owner: the thread in env_loop_run; before and after, whoever makes and frees it. From other threads: post, stop,
 * join.
 */
#include "node/env/os/os_internal.h"
#include "node/env/os/tcp_internal.h"

#include <stdio.h>
#include <string.h>

/* The loop that this thread runs. */
static _Thread_local struct os_loop *current_loop;

enum { RETRY_SUBMIT_US = 1000 };

bool os_loop__is_running_here(void) { return current_loop != NULL; }
bool os_loop__is_current(struct env_loop *loop) { return current_loop == os_loop_of(loop); }

void os_loop__check_may_block(const char *what) {
    if (current_loop != NULL) {
        char message[96];
        (void)snprintf(message, sizeof message, "%s blocks: not on a thread that runs a loop", what);
        check_failed(__FILE__, __LINE__, message);
    }
}

void os_loop__enter(struct os_loop *loop) {
    if (!loop->turn_open) {
        loop->turn_open = true;
        loop->base.now_us = env_clock_us(loop->base.env);
        loop->stats.turns++;
    }
}

void os_loop__later(struct os_loop *loop, struct env_task *task) {
    if (!task->queued) {
        task->queued = true;
        list_push_back(&loop->later, &task->link);
    }
}

/* Those that are there now; what they add waits for the turn after. */
static void run_later(struct os_loop *loop) {
    struct list now;
    list_init(&now);
    list_splice_back(&now, &loop->later);
    struct list *node;
    while ((node = list_pop_front(&now)) != NULL) {
        struct env_task *task = LIST_ENTRY(node, struct env_task, link);
        task->queued = false;
        task->run(task);
    }
}

static void on_idle(uv_idle_t *idle) { (void)idle; }
static void on_timer(uv_timer_t *timer) { (void)timer; }
/* Under a guard the turn begins where the guard is taken. */
static void on_async(uv_async_t *async) {
    struct os_loop *loop = async->data;
    if (loop->base.guard == NULL) {
        os_loop__enter(loop);
    }
}

static void on_check(uv_check_t *check) {
    struct os_loop *loop = check->data;
    env__loop_lock(&loop->base);
    os_loop__enter(loop);
    if (loop->ring != NULL) {
        os_ring__reap(loop->ring);
    }
    run_later(loop);
    (void)env__loop_run_messages(&loop->base);
    env__loop_run_timers(&loop->base);
    env__loop_run_tasks(&loop->base);
    env__loop_unlock(&loop->base);
    if (atomic_load(&loop->stop)) {
        uv_stop(&loop->uv);
    }
}

/* Makes the poll end by the deadline. libuv counts in milliseconds: rounded up, so that the timer is due when it ends.
 */
static void bound_poll(struct os_loop *loop, uint64_t deadline_us) {
    if (deadline_us == loop->timer_deadline_us && uv_is_active((uv_handle_t *)&loop->timer)) {
        return;
    }
    loop->timer_deadline_us = deadline_us;
    if (deadline_us == UINT64_MAX) {
        (void)uv_timer_stop(&loop->timer);
        return;
    }
    uint64_t now_us = env_clock_us(loop->base.env);
    uint64_t wait_ms = deadline_us > now_us ? (deadline_us - now_us + 999) / 1000 : 0;
    CHECK(uv_timer_start(&loop->timer, on_timer, wait_ms, 0) == 0);
}

static void on_prepare(uv_prepare_t *prepare) {
    struct os_loop *loop = prepare->data;
    env__loop_lock(&loop->base);
    os_loop__enter(loop);
    env__loop_run_tasks(&loop->base);
    uint64_t deadline_us = env__loop_next_deadline_us(&loop->base);
    if (loop->ring != NULL && !os_ring__flush(loop->ring)) {
        uint64_t retry_us = loop->base.now_us + RETRY_SUBMIT_US;
        deadline_us = deadline_us < retry_us ? deadline_us : retry_us;
    }
    bound_poll(loop, deadline_us);
    if (list_is_empty(&loop->later) && !env__loop_has_messages(&loop->base)) {
        CHECK(uv_idle_stop(&loop->idle) == 0);
    } else {
        CHECK(uv_idle_start(&loop->idle, on_idle) == 0);
    }
    loop->turn_open = false;
    env__loop_unlock(&loop->base);
}

static void open_ring(struct os_loop *loop) {
    struct os_env *env = os_loop__env(loop);
    char reason[RING_REASON_BYTES] = "switched off";
    if (env->use_ring) {
        loop->ring = os_ring__new(loop, reason, sizeof reason);
    }
    os_env__set_ring_state(env, loop->ring != NULL ? OS_RING_USED : OS_RING_REFUSED, reason);
}

enum status os_loop__new(struct env *env, const char *name, uint32_t mailbox_count_max, struct env_loop **ret_loop,
                         struct error *err) {
    struct os_loop *loop = mem_alloc_zero(env->alloc, sizeof *loop);
    if (loop == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "loop %s: out of memory", name);
    }
    int result = uv_loop_init(&loop->uv);
    if (result == 0) {
        result = uv_async_init(&loop->uv, &loop->async, on_async);
        if (result != 0) {
            CHECK(uv_loop_close(&loop->uv) == 0);
        }
    }
    if (result != 0) {
        mem_free(env->alloc, loop);
        return error_set_sys(err, -result, "loop %s", name);
    }
    env__loop_init(&loop->base, env, mailbox_count_max);
    (void)snprintf(loop->name, sizeof loop->name, "%s", name);
    list_init(&loop->later);
    list_init(&loop->streams);
    list_init(&loop->listeners);
    list_init(&loop->signals);
    CHECK(uv_prepare_init(&loop->uv, &loop->prepare) == 0);
    CHECK(uv_check_init(&loop->uv, &loop->check) == 0);
    CHECK(uv_idle_init(&loop->uv, &loop->idle) == 0);
    CHECK(uv_timer_init(&loop->uv, &loop->timer) == 0);
    loop->prepare.data = loop;
    loop->check.data = loop;
    loop->async.data = loop;
    CHECK(uv_prepare_start(&loop->prepare, on_prepare) == 0);
    CHECK(uv_check_start(&loop->check, on_check) == 0);
    loop->timer_deadline_us = UINT64_MAX;
    open_ring(loop);
    *ret_loop = &loop->base;
    return STATUS_OK;
}

static void become_current(struct os_loop *loop) {
    CHECK(current_loop == NULL);
    current_loop = loop;
    env__loop_lock(&loop->base);
    loop->turn_open = false;
    os_loop__enter(loop);
    env__loop_unlock(&loop->base);
}

/* What the last turn left: close callbacks ran after its tasks, and its submissions are still ours. */
static void end_turn(struct os_loop *loop) {
    env__loop_lock(&loop->base);
    env__loop_run_tasks(&loop->base);
    env__loop_unlock(&loop->base);
    if (loop->ring != NULL) {
        (void)os_ring__flush(loop->ring);
    }
}

void os_loop__run(struct env_loop *base) {
    struct os_loop *loop = os_loop_of(base);
    become_current(loop);
    do {
        (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
    } while (!atomic_load(&loop->stop));
    end_turn(loop);
    atomic_store(&loop->stop, false);
    current_loop = NULL;
}

static void *thread_main(void *argument) {
    struct os_loop *loop = argument;
    (void)pthread_setname_np(pthread_self(), loop->name);
    os_loop__run(&loop->base);
    return NULL;
}

enum status os_loop__spawn(struct env_loop *base, struct error *err) {
    struct os_loop *loop = os_loop_of(base);
    CHECK(!loop->is_spawned);
    int result = pthread_create(&loop->thread, NULL, thread_main, loop);
    if (result != 0) {
        return error_set_sys(err, result, "start thread %s", loop->name);
    }
    loop->is_spawned = true;
    return STATUS_OK;
}

void os_loop__stop(struct env_loop *base) {
    struct os_loop *loop = os_loop_of(base);
    atomic_store(&loop->stop, true);
    CHECK(uv_async_send(&loop->async) == 0);
}

void os_loop__join(struct env_loop *base) {
    struct os_loop *loop = os_loop_of(base);
    CHECK(current_loop != loop);
    if (loop->is_spawned) {
        CHECK(pthread_join(loop->thread, NULL) == 0);
        loop->is_spawned = false;
    }
}

/* The loop's own thread is awake: on_prepare sees the message. */
void os_loop__wake(struct env_loop *base) {
    if (current_loop != os_loop_of(base)) {
        CHECK(uv_async_send(&os_loop_of(base)->async) == 0);
    }
}

struct env_os_loop_stats env_os_get_loop_stats(const struct env_loop *base) {
    return ((const struct os_loop *)(const void *)base)->stats;
}

/* Until no worker holds a job for this loop: neither running nor between posting its end and waking the loop. */
static void wait_for_workers(struct os_loop *loop) {
    struct os_workers *workers = &os_loop__env(loop)->workers;
    CHECK(pthread_mutex_lock(&workers->lock) == 0);
    while (loop->work_count > 0) {
        CHECK(pthread_cond_wait(&workers->settled, &workers->lock) == 0);
    }
    CHECK(pthread_mutex_unlock(&workers->lock) == 0);
}

static bool is_settled(struct os_loop *loop) {
    return list_is_empty(&loop->streams) && loop->io_count == 0 && loop->resolve_count == 0 &&
           !env__loop_has_messages(&loop->base) && !env__loop_has_tasks(&loop->base) && list_is_empty(&loop->later);
}

/* Turns, until what was begun has ended: streams that are closing, file operations, jobs, messages. */
static void settle(struct os_loop *loop) {
    CHECK(list_is_empty(&loop->listeners));
    do {
        wait_for_workers(loop);
        tcp__check_all_closing(loop);
        (void)uv_run(&loop->uv, is_settled(loop) ? UV_RUN_NOWAIT : UV_RUN_ONCE);
        end_turn(loop);
    } while (!is_settled(loop));
    CHECK(loop->base.timer_count == 0);
}

static void close_handle(uv_handle_t *handle, void *context) {
    (void)context;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

void os_loop__free(struct env_loop *base) {
    struct os_loop *loop = os_loop_of(base);
    CHECK(!loop->is_spawned);
    become_current(loop);
    settle(loop);
    os_signals__close(loop);
    if (loop->ring != NULL) {
        os_ring__close(loop->ring);
    }
    uv_walk(&loop->uv, close_handle, NULL);
    CHECK(uv_run(&loop->uv, UV_RUN_DEFAULT) == 0);
    CHECK(uv_loop_close(&loop->uv) == 0);
    current_loop = NULL;
    if (loop->ring != NULL) {
        os_ring__free(loop->ring);
    }
    env__loop_deinit(base);
    mem_free(base->env->alloc, loop);
}
