/*
 * The production environment: libuv for everything that waits, io_uring for files, pthreads for loops and workers.
 */
#ifndef HOLDFAST_ENV_OS_H
#define HOLDFAST_ENV_OS_H

#include "node/env/env.h"

struct env_os_options {
    struct alloc *alloc;      /* NULL: alloc_system() */
    struct fault_set *faults; /* may be NULL; borrowed */
    bool use_ring;            /* false: files go through libuv's thread pool (clients, containers) */
    unsigned workers_short;   /* threads per class; at least 1 */
    unsigned workers_long;
};

/* Threads are started lazily. STATUS_NO_MEMORY, STATUS_IO. */
MUST_USE enum status env_os_new(const struct env_os_options *options, struct env **ret_env, struct error *err);
/* After all loops are freed; waits for workers. */
void env_os_free(struct env *env);
/* Plain TCP (IPv4, IPv6), TCP_NODELAY. Borrowed, lives as long as the env. */
struct env_transport *env_os_tcp(struct env *env);
/* True if io_uring serves the files; else *ret_reason says why not (borrowed). Known after the first loop was made. */
bool env_os_has_ring(struct env *env, const char **ret_reason);

#endif
