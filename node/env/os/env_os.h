/*
 * The production environment: libuv for everything that waits, io_uring for files, pthreads for loops and workers.
 *
 * Legal order: env_os_new, loops and everything on them, env_loop_free for each, env_os_free.
 */
#ifndef HOLDFAST_ENV_OS_H
#define HOLDFAST_ENV_OS_H

#include "node/env/env.h"

struct env_os_options {
    struct alloc *alloc;      /* NULL: alloc_system() */
    struct fault_set *faults; /* may be NULL; borrowed */
    bool use_ring;            /* false: files go through threads (clients, containers) */
    unsigned workers_short;   /* threads per class; at least 1 */
    unsigned workers_long;
};

/* Starts one worker; the others start when there is work. SIGPIPE is ignored from now on unless the process handles it.
 * STATUS_NO_MEMORY, STATUS_IO. */
MUST_USE enum status env_os_new(const struct env_os_options *options, struct env **ret_env, struct error *err);
/* After all loops are freed; waits for workers. NULL is accepted. */
void env_os_free(struct env *env);
/* Plain TCP (IPv4, IPv6), TCP_NODELAY, keepalive after 30 s. Borrowed, lives as long as the env. Host names: connect
 * resolves them without blocking; listen only on a thread that runs no loop, but for "localhost". */
struct env_transport *env_os_tcp(struct env *env);
/* True if io_uring serves the files; else *ret_reason says why not (borrowed). Known after the first loop was made. */
bool env_os_has_ring(struct env *env, const char **ret_reason);

/* Calls back on the loop for each arrival of the signal (several may become one), until the loop is freed. Before the
 * loop runs, or on it. STATUS_NO_MEMORY, STATUS_IO. */
MUST_USE enum status env_os_on_signal(struct env_loop *loop, int signum, void (*callback)(void *context, int signum),
                                      void *context, struct error *err);

/* What a loop did since it was made. */
struct env_os_loop_stats {
    uint64_t turns;
    uint64_t stream_sends;    /* send calls tried: one per stream and turn, unless the socket was full */
    uint64_t ring_submits;    /* calls that handed file operations to the ring */
    uint64_t file_operations; /* operations that these calls, or threads, were given */
};

/* Owner thread, or after env_loop_join. */
struct env_os_loop_stats env_os_get_loop_stats(const struct env_loop *loop);

#endif
