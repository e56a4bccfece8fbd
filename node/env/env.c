/* The vtable's front: one line per call, so that callers and implementations meet at checked places. */
#include "node/env/env.h"

#include "node/base/check.h"
#include "node/env/env_loop_internal.h"

#include <errno.h>

uint64_t env_clock_us(struct env *env) { return env->ops->clock_us(env); }
int64_t env_wall_ms(struct env *env) { return env->ops->wall_ms(env); }
uint64_t env_random(struct env *env) { return env->ops->random(env); }
unsigned env_cpu_count(struct env *env) { return env->ops->cpu_count(env); }

_Noreturn void env_exit(struct env *env, int code) {
    env->ops->exit(env, code);
    check_failed(__FILE__, __LINE__, "env exit returned");
}

enum status env_loop_new(struct env *env, const char *name, uint32_t mailbox_count_max, struct env_loop **ret_loop,
                         struct error *err) {
    CHECK(mailbox_count_max > 0);
    return env->ops->loop_new(env, name, mailbox_count_max, ret_loop, err);
}

void env_loop_run(struct env_loop *loop) { loop->env->ops->loop_run(loop); }
enum status env_loop_spawn(struct env_loop *loop, struct error *err) { return loop->env->ops->loop_spawn(loop, err); }
void env_loop_stop(struct env_loop *loop) { loop->env->ops->loop_stop(loop); }
void env_loop_join(struct env_loop *loop) { loop->env->ops->loop_join(loop); }

void env_loop_free(struct env_loop *loop) {
    if (loop != NULL) {
        loop->env->ops->loop_free(loop);
    }
}

struct env *env_loop_env(struct env_loop *loop) {
    return loop->env;
}
/* Under a guard several threads ask, and a turn may be long ago. */
uint64_t env_now_us(struct env_loop *loop) { return loop->guard == NULL ? loop->now_us : env_clock_us(loop->env); }
void env_loop_set_guard(struct env_loop *loop, struct env_mutex *guard) { loop->guard = guard; }
bool env_on_loop(struct env_loop *loop) { return loop->env->ops->on_loop(loop); }

void env_work_submit(struct env *env, enum env_work_class work_class, struct env_work *work) {
    CHECK(work->run != NULL && work->done != NULL && work->loop != NULL);
    CHECK(work_class < ENV_WORK_CLASS_COUNT);
    env->ops->work_submit(env, work_class, work);
}

void env_sleep_us(struct env *env, uint64_t us) { env->ops->sleep_us(env, us); }

enum status env_event_new(struct env *env, struct env_event **ret_event) { return env->ops->event_new(env, ret_event); }

/* An event knows its env: the first member of every implementation. */
static struct env *event_env(struct env_event *event) { return *(struct env **)(void *)event; }

void env_event_free(struct env_event *event) {
    if (event != NULL) {
        event_env(event)->ops->event_free(event);
    }
}

void env_event_set(struct env_event *event) { event_env(event)->ops->event_set(event); }

enum status env_event_wait(struct env_event *event, uint64_t timeout_us) {
    return event_env(event)->ops->event_wait(event, timeout_us);
}

/* ---- Locks ------------------------------------------------------------------------------------------------------ */

enum { MUTEX_FREE, MUTEX_HELD, MUTEX_SLEPT_ON };

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Looks at the word until it is `wanted`, but not for long. */
static bool spin_until(const struct env *env, const _Atomic uint32_t *word, uint32_t wanted) {
    for (uint32_t i = 0; i < env->spin_max; i++) {
        if (atomic_load_explicit(word, memory_order_relaxed) == wanted) {
            return true;
        }
        relax();
    }
    return false;
}

void env__mutex_lock_slow(struct env_mutex *mutex) {
    uint32_t expected = MUTEX_FREE;
    if (spin_until(mutex->env, &mutex->state, MUTEX_FREE) &&
        atomic_compare_exchange_strong_explicit(&mutex->state, &expected, MUTEX_HELD, memory_order_acquire,
                                                memory_order_relaxed)) {
        return;
    }
    /* Who has slept can't know whether others still do: he holds it as slept on. */
    while (atomic_exchange_explicit(&mutex->state, MUTEX_SLEPT_ON, memory_order_acquire) != MUTEX_FREE) {
        mutex->env->ops->word_wait(mutex->env, &mutex->state, MUTEX_SLEPT_ON, false);
    }
}

void env__mutex_unlock_slow(struct env *env, const _Atomic uint32_t *state, uint32_t before) {
    CHECK(before == MUTEX_SLEPT_ON); /* else nobody held it */
    env->ops->word_wake(env, state);
}

enum { WAITER_IDLE, WAITER_SLEEPS, WAITER_WOKEN };

void env_waiter_wait(struct env_waiter *waiter) {
    struct env *env = waiter->env;
    (void)spin_until(env, &waiter->state, WAITER_WOKEN);
    uint32_t seen = WAITER_IDLE;
    (void)atomic_compare_exchange_strong_explicit(&waiter->state, &seen, WAITER_SLEEPS, memory_order_relaxed,
                                                  memory_order_relaxed);
    CHECK(seen != WAITER_SLEEPS); /* one thread per waiter */
    while (atomic_load_explicit(&waiter->state, memory_order_acquire) != WAITER_WOKEN) {
        env->ops->word_wait(env, &waiter->state, WAITER_SLEEPS, true);
    }
    atomic_store_explicit(&waiter->state, WAITER_IDLE, memory_order_relaxed);
}

void env_waiter_wake(struct env_waiter *waiter) {
    struct env *env = waiter->env;
    uint32_t before = atomic_exchange_explicit(&waiter->state, WAITER_WOKEN, memory_order_release);
    CHECK(before != WAITER_WOKEN);
    if (before == WAITER_SLEEPS) {
        env->ops->word_wake(env, &waiter->state);
    }
}

/* ---- Large memory ----------------------------------------------------------------------------------------------- */

void *env_huge_alloc(struct env *env, size_t size_bytes) {
    if (size_bytes < ENV_HUGE_BYTES) {
        return mem_alloc(env->alloc, size_bytes);
    }
    void *data = mem_alloc_aligned(env->alloc, ENV_HUGE_BYTES, size_bytes);
    if (data != NULL && env->ops->advise_huge != NULL) {
        env->ops->advise_huge(env, data, size_bytes);
    }
    return data;
}

void env_huge_free(struct env *env, void *data) { mem_free(env->alloc, data); }

/* ---- Files ------------------------------------------------------------------------------------------------------ */

enum status env_open(struct env *env, const char *path, unsigned flags, struct env_file **ret_file, struct error *err) {
    CHECK((flags & (ENV_OPEN_READ | ENV_OPEN_WRITE)) != 0);
    return env->ops->open(env, path, flags, ret_file, err);
}

void env_close(struct env_file *file) {
    if (file != NULL) {
        file->env->ops->close(file);
    }
}

const char *env_file_path(const struct env_file *file) { return file->path; }

enum status env_pread(struct env_file *file, void *data, size_t len, uint64_t offset, size_t *ret_len,
                      struct error *err) {
    return file->env->ops->pread(file, data, len, offset, ret_len, err);
}

enum status env_pread_nowait(struct env_file *file, void *data, size_t len, uint64_t offset, struct error *err) {
    return file->env->ops->pread_nowait(file, data, len, offset, err);
}

enum status env_pwrite_dsync(struct env_file *file, const void *data, size_t len, uint64_t offset, struct error *err) {
    return file->env->ops->pwrite_dsync(file, data, len, offset, err);
}

enum status env_map(struct env_file *file, size_t len, void **ret_data, struct error *err) {
    CHECK(len > 0);
    return file->env->ops->map(file, len, ret_data, err);
}

void env_unmap(struct env_file *file, void *data, size_t len) {
    if (data != NULL) {
        file->env->ops->unmap(file, data, len);
    }
}

enum status env_pwrite(struct env_file *file, const void *data, size_t len, uint64_t offset, struct error *err) {
    return file->env->ops->pwrite(file, data, len, offset, err);
}

enum status env_sync(struct env_file *file, struct error *err) { return file->env->ops->sync(file, err); }

enum status env_size(struct env_file *file, uint64_t *ret_size_bytes, struct error *err) {
    return file->env->ops->size(file, ret_size_bytes, err);
}

enum status env_allocate(struct env_file *file, uint64_t size_bytes, struct error *err) {
    CHECK(size_bytes > 0);
    return file->env->ops->allocate != NULL
               ? file->env->ops->allocate(file, size_bytes, err)
               : error_set(err, STATUS_UNSUPPORTED, "space can't be reserved for %s", file->path);
}

enum status env_truncate(struct env_file *file, uint64_t size_bytes, struct error *err) {
    return file->env->ops->truncate(file, size_bytes, err);
}

enum status env_rename(struct env *env, const char *from, const char *to, struct error *err) {
    return env->ops->rename(env, from, to, err);
}

enum status env_link(struct env *env, const char *from, const char *to, struct error *err) {
    return env->ops->link(env, from, to, err);
}

enum status env_unlink(struct env *env, const char *path, struct error *err) {
    return env->ops->unlink(env, path, err);
}

enum status env_mkdir(struct env *env, const char *path, struct error *err) { return env->ops->mkdir(env, path, err); }

enum status env_sync_dir(struct env *env, const char *path, struct error *err) {
    return env->ops->sync_dir(env, path, err);
}

/* What is left of the path in front of its last part. */
static size_t parent_len(const char *path, size_t len) {
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    while (len > 0 && path[len - 1] != '/') {
        len--;
    }
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    return len;
}

enum status env_sync_parent(struct env *env, const char *path, struct error *err) {
    char parent[LIMIT_PATH_BYTES];
    size_t len = strlen(path);
    if (len >= sizeof parent) {
        return error_set(err, STATUS_INVALID, "%s: the name is too long", path);
    }
    len = parent_len(path, len);
    memcpy(parent, len == 0 ? "." : path, len == 0 ? 1 : len);
    parent[len == 0 ? 1 : len] = '\0';
    return env_sync_dir(env, parent, err);
}

enum status env_list_dir(struct env *env, const char *path, enum status (*each)(void *context, const char *name),
                         void *context, struct error *err) {
    return env->ops->list_dir(env, path, each, context, err);
}

enum status env_lock_file(struct env *env, const char *path, struct env_file **ret_file, struct error *err) {
    return env->ops->lock_file(env, path, ret_file, err);
}

enum status env_disk_space(struct env *env, const char *path, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes,
                           struct error *err) {
    return env->ops->disk_space(env, path, ret_free_bytes, ret_total_bytes, err);
}

enum { HANG_STEP_US = 1000 * 1000 };

enum status env_fault_point(struct env *env, enum fault_hook hook, struct error *err) {
    struct fault_action action = fault_hit(env->faults, hook);
    switch (action.kind) {
    case FAULT_KIND_OFF: return STATUS_OK;
    case FAULT_KIND_ERROR: return error_set_sys(err, action.argument, "fault hook %s", fault_describe(hook).name);
    case FAULT_KIND_SHORT: return error_set_sys(err, EIO, "fault hook %s", fault_describe(hook).name);
    case FAULT_KIND_DELAY: env_sleep_us(env, (uint64_t)action.argument * 1000); return STATUS_OK;
    case FAULT_KIND_EXIT: env_exit(env, action.argument);
    case FAULT_KIND_HANG:
        while (fault_is_armed(env->faults, hook)) {
            env_sleep_us(env, HANG_STEP_US);
        }
        return STATUS_OK;
    }
    CHECK(false);
}

enum status env_listen(struct env_transport *transport, struct env_loop *loop, const char *address,
                       struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream), void *context,
                       struct env_listener **ret_listener, struct error *err) {
    return transport->ops->listen(transport, loop, address, accepted, context, ret_listener, err);
}

enum status env_connect(struct env_transport *transport, struct env_loop *loop, const char *address,
                        struct env_stream_handler *handler, struct env_stream **ret_stream, struct error *err) {
    return transport->ops->connect(transport, loop, address, handler, ret_stream, err);
}

enum status env_stream_write(struct env_stream *stream, const struct slice *parts, size_t part_count) {
    return stream->ops->write(stream, parts, part_count);
}

size_t env_stream_queued_bytes(const struct env_stream *stream) { return stream->ops->queued_bytes(stream); }
void env_stream_resume(struct env_stream *stream) { stream->ops->resume(stream); }
const struct env_peer *env_stream_peer(const struct env_stream *stream) { return stream->ops->peer(stream); }
void env_stream_finish(struct env_stream *stream) { stream->ops->finish(stream); }
void env_stream_close(struct env_stream *stream) { stream->ops->close(stream); }
const char *env_listener_address(const struct env_listener *listener) { return listener->ops->address(listener); }

void env_listener_close(struct env_listener *listener) {
    if (listener != NULL) {
        listener->ops->close(listener);
    }
}
