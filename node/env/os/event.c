/* A flag that one thread sets and another sleeps on: mutex and condition variable on the monotonic clock. */
#include "node/env/os/os_internal.h"

#include <errno.h>
#include <time.h>

struct env_event {
    struct env *env; /* first: env.c finds the vtable by it */
    pthread_mutex_t lock;
    pthread_cond_t ready;
    bool is_set;
};

enum status os_event__new(struct env *env, struct env_event **ret_event) {
    struct env_event *event = mem_alloc_zero(env->alloc, sizeof *event);
    if (event == NULL) {
        return STATUS_NO_MEMORY;
    }
    event->env = env;
    pthread_condattr_t attributes;
    CHECK(pthread_condattr_init(&attributes) == 0);
    CHECK(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&event->ready, &attributes) == 0);
    CHECK(pthread_condattr_destroy(&attributes) == 0);
    CHECK(pthread_mutex_init(&event->lock, NULL) == 0);
    *ret_event = event;
    return STATUS_OK;
}

void os_event__free(struct env_event *event) {
    CHECK(pthread_cond_destroy(&event->ready) == 0);
    CHECK(pthread_mutex_destroy(&event->lock) == 0);
    mem_free(event->env->alloc, event);
}

/* Signals under the lock: the waiter may free the event as soon as it holds the lock. */
void os_event__set(struct env_event *event) {
    CHECK(pthread_mutex_lock(&event->lock) == 0);
    event->is_set = true;
    CHECK(pthread_cond_signal(&event->ready) == 0);
    CHECK(pthread_mutex_unlock(&event->lock) == 0);
}

static struct timespec deadline_after(uint64_t timeout_us) {
    struct timespec time;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    uint64_t ns = (uint64_t)time.tv_nsec + timeout_us % 1000000 * 1000;
    time.tv_sec += (time_t)(timeout_us / 1000000 + ns / 1000000000);
    time.tv_nsec = (long)(ns % 1000000000);
    return time;
}

enum status os_event__wait(struct env_event *event, uint64_t timeout_us) {
    os_loop__check_may_block("env_event_wait");
    bool for_ever = timeout_us == UINT64_MAX;
    struct timespec deadline = deadline_after(for_ever ? 0 : timeout_us);
    int result = 0;
    CHECK(pthread_mutex_lock(&event->lock) == 0);
    while (!event->is_set && result != ETIMEDOUT) {
        result = for_ever ? pthread_cond_wait(&event->ready, &event->lock)
                          : pthread_cond_timedwait(&event->ready, &event->lock, &deadline);
        CHECK(result == 0 || result == ETIMEDOUT);
    }
    bool was_set = event->is_set;
    event->is_set = false;
    CHECK(pthread_mutex_unlock(&event->lock) == 0);
    return was_set ? STATUS_OK : STATUS_TIMEOUT;
}
