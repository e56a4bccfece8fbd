/* Signals of the process as callbacks of a loop. */
#include "node/env/os/os_internal.h"

struct os_signal {
    struct os_loop *loop;
    struct list link; /* os_loop.signals */
    uv_signal_t handle;
    void (*callback)(void *context, int signum);
    void *context;
};

static void on_signal(uv_signal_t *handle, int signum) {
    struct os_signal *signal = handle->data;
    os_loop__enter(signal->loop);
    signal->callback(signal->context, signum);
}

static void on_closed(uv_handle_t *handle) {
    struct os_signal *signal = handle->data;
    mem_free(signal->loop->base.env->alloc, signal);
}

static void close_one(struct os_signal *signal) {
    list_remove(&signal->link);
    uv_close((uv_handle_t *)&signal->handle, on_closed);
}

enum status env_os_on_signal(struct env_loop *base, int signum, void (*callback)(void *context, int signum),
                             void *context, struct error *err) {
    struct os_loop *loop = os_loop_of(base);
    struct os_signal *signal = mem_alloc_zero(base->env->alloc, sizeof *signal);
    if (signal == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "signal %d: out of memory", signum);
    }
    signal->loop = loop;
    signal->callback = callback;
    signal->context = context;
    int result = uv_signal_init(&loop->uv, &signal->handle);
    if (result != 0) {
        mem_free(base->env->alloc, signal);
        return error_set_sys(err, -result, "signal %d", signum);
    }
    signal->handle.data = signal;
    list_push_back(&loop->signals, &signal->link);
    result = uv_signal_start(&signal->handle, on_signal, signum);
    if (result != 0) {
        close_one(signal);
        return error_set_sys(err, -result, "signal %d", signum);
    }
    return STATUS_OK;
}

void os_signals__close(struct os_loop *loop) {
    LIST_FOREACH (node, &loop->signals) {
        close_one(LIST_ENTRY(node, struct os_signal, link));
    }
}
