/*
 * Listening: a socket of our own under uv_poll, so that accepting can pause.
 *
 * At most ACCEPTS_PER_TURN connections are taken per turn. When descriptors or memory run out (hazard 57), the listener
 * gives up its spare descriptor to accept one connection and close it, so that the peer learns of it, and then rests
 * for PAUSE_US: a listener that stays readable doesn't spin.
 *
 * Loops of one env may listen on the same address: they share one socket, each takes one connection a turn, and who is
 * idle takes most.
 *
 * A new stream is handed to `accepted` first, so that its owner can attach; opened follows in this turn's PROCESS
 * stage. Owner: the loop.
 */
#include "node/env/os/tcp_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 1024, ACCEPTS_PER_TURN = 64, PAUSE_US = 100 * 1000 };

struct tcp_listener {
    struct env_listener base;
    struct os_loop *loop;
    struct list link; /* os_loop.listeners */
    struct list port; /* os_env.ports, under its lock */
    bool is_shared;   /* from then on: one connection a turn */
    int fd;
    int spare_fd; /* -1: none could be had */
    bool is_closing;
    uv_poll_t poll;
    struct env_timer rest;
    struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream);
    void *context;
    char address[LIMIT_ADDRESS_BYTES];
};

static const struct env_listener_ops listener_ops;

static int open_spare(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

static void close_fd(int fd) {
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* ---- Accepting ------------------------------------------------------------------------------------------------ */

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_rested(struct env_timer *timer) {
    struct tcp_listener *listener = CONTAINER_OF(timer, struct tcp_listener, rest);
    if (listener->spare_fd < 0) {
        listener->spare_fd = open_spare();
    }
    CHECK(uv_poll_start(&listener->poll, UV_READABLE, on_readable) == 0);
}

/* Without memory for the timer the listener goes on: it only sheds faster. */
static void rest(struct tcp_listener *listener) {
    if (env_timer_arm(&listener->rest, env_now_us(&listener->loop->base) + PAUSE_US) == STATUS_OK) {
        CHECK(uv_poll_stop(&listener->poll) == 0);
    }
}

static void shed_one(struct tcp_listener *listener) {
    if (listener->spare_fd >= 0) {
        (void)close(listener->spare_fd);
        close_fd(accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC));
        listener->spare_fd = open_spare();
    }
}

/* The connection's own trouble, of which accept tells: the next one may be fine. */
static bool is_passing(int sys) {
    return sys == EINTR || sys == ECONNABORTED || sys == EPROTO || sys == ENETDOWN || sys == ENOPROTOOPT ||
           sys == EHOSTDOWN || sys == ENONET || sys == EHOSTUNREACH || sys == EOPNOTSUPP || sys == ENETUNREACH;
}

static void take(struct tcp_listener *listener, int fd, const struct sockaddr_storage *address) {
    struct tcp_stream *stream = tcp__stream_new(listener->loop, STREAM_OPEN);
    if (stream == NULL) {
        (void)close(fd);
        return;
    }
    int result = uv_tcp_open(&stream->tcp, fd);
    if (result < 0) {
        (void)close(fd);
    } else {
        result = tcp__stream_connected(stream, address);
    }
    if (result < 0) {
        tcp__end(stream);
        return;
    }
    struct env_stream_handler *handler = listener->accepted(listener->context, &stream->base);
    if (handler == NULL) {
        tcp__end(stream);
        return;
    }
    stream->handler = handler;
    if (stream->state == STREAM_OPEN) {
        env_defer(&listener->loop->base, ENV_STAGE_PROCESS, &stream->open);
    }
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    (void)events;
    struct tcp_listener *listener = poll->data;
    os_loop__enter(listener->loop);
    if (status < 0) { /* libuv stopped the handle */
        rest(listener);
        return;
    }
    int count_max = listener->is_shared ? 1 : ACCEPTS_PER_TURN;
    for (int i = 0; i < count_max && !listener->is_closing; i++) {
        struct sockaddr_storage address;
        socklen_t address_len = sizeof address;
        memset(&address, 0, sizeof address);
        int fd = accept4(listener->fd, (struct sockaddr *)(void *)&address, &address_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        int sys = fd < 0 ? errno : 0;
        if (sys == 0) {
            take(listener, fd, &address);
        } else if (sys == EAGAIN) {
            return;
        } else if (!is_passing(sys)) {
            shed_one(listener);
            rest(listener);
            return;
        }
    }
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

static enum status resolve(const char *address, struct sockaddr_storage *ret_address, struct error *err) {
    struct tcp_name name;
    enum status status = tcp__parse(address, true, &name, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (tcp__numeric(&name, ret_address)) {
        return STATUS_OK;
    }
    if (os_loop__is_running_here()) {
        return error_set(err, STATUS_INVALID, "listen on %s: give an IP address, names can't be resolved here",
                         address);
    }
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    int result = getaddrinfo(name.host, name.port, &hints, &found);
    if (result != 0) {
        return error_set(err, STATUS_NOT_FOUND, "listen on %s: %s", address, gai_strerror(result));
    }
    memset(ret_address, 0, sizeof *ret_address);
    memcpy(ret_address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return STATUS_OK;
}

/* Returns an errno, with *ret_fd bound and listening if 0. */
static int open_socket(struct sockaddr_storage *address, int *ret_fd) {
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    const int on = 1;
    socklen_t len = address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    struct sockaddr *plain = (struct sockaddr *)(void *)address;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 || bind(fd, plain, len) != 0 ||
        listen(fd, BACKLOG) != 0 || getsockname(fd, plain, &len) != 0) {
        int sys = errno;
        (void)close(fd);
        return sys;
    }
    *ret_fd = fd;
    return 0;
}

/* Another descriptor of the socket that this env listens with on the address already, or -1. Under the env's lock. */
static int share_socket(struct os_env *env, struct tcp_listener *listener) {
    int fd = -1;
    LIST_FOREACH (node, &env->ports) {
        struct tcp_listener *other = LIST_ENTRY(node, struct tcp_listener, port);
        if (fd < 0 && other->loop != listener->loop && strcmp(other->address, listener->address) == 0) {
            fd = fcntl(other->fd, F_DUPFD_CLOEXEC, 0);
        }
    }
    listener->is_shared = fd >= 0;
    return fd;
}

/* A socket for the listener, new or shared; returns an errno. One step for other loops: a port that is taken by one of
 * them is in the list. */
static int join_ports(struct os_env *env, struct tcp_listener *listener, struct sockaddr_storage *address) {
    CHECK(pthread_mutex_lock(&env->lock) == 0);
    int sys = open_socket(address, &listener->fd);
    tcp__format(address, listener->address);
    if (sys == EADDRINUSE && (listener->fd = share_socket(env, listener)) >= 0) {
        sys = 0;
    }
    if (sys == 0) {
        list_push_back(&env->ports, &listener->port);
    }
    CHECK(pthread_mutex_unlock(&env->lock) == 0);
    return sys;
}

static void leave_ports(struct os_env *env, struct tcp_listener *listener) {
    CHECK(pthread_mutex_lock(&env->lock) == 0);
    list_remove(&listener->port);
    CHECK(pthread_mutex_unlock(&env->lock) == 0);
}

enum status tcp__listen(struct env_transport *transport, struct env_loop *base, const char *address,
                        struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream), void *context,
                        struct env_listener **ret_listener, struct error *err) {
    (void)transport;
    struct os_loop *loop = os_loop_of(base);
    struct sockaddr_storage bound;
    enum status status = resolve(address, &bound, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct tcp_listener *listener = mem_alloc_zero(base->env->alloc, sizeof *listener);
    if (listener == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "listen on %s: out of memory", address);
    }
    listener->loop = loop;
    int sys = join_ports(os_env_of(base->env), listener, &bound);
    if (sys == 0) {
        sys = -uv_poll_init(&loop->uv, &listener->poll, listener->fd);
        if (sys != 0) {
            leave_ports(os_env_of(base->env), listener);
            (void)close(listener->fd);
        }
    }
    if (sys != 0) {
        mem_free(base->env->alloc, listener);
        return error_set_sys(err, sys, "listen on %s", address);
    }
    listener->base.ops = &listener_ops;
    listener->spare_fd = open_spare();
    listener->poll.data = listener;
    listener->accepted = accepted;
    listener->context = context;
    env_timer_init(&listener->rest, base, on_rested);
    list_push_back(&loop->listeners, &listener->link);
    CHECK(uv_poll_start(&listener->poll, UV_READABLE, on_readable) == 0);
    *ret_listener = &listener->base;
    return STATUS_OK;
}

/* ---- The vtable ----------------------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle) {
    struct tcp_listener *listener = handle->data;
    mem_free(listener->loop->base.env->alloc, listener);
}

static void listener_close(struct env_listener *base) {
    struct tcp_listener *listener = (struct tcp_listener *)(void *)base;
    CHECK(!listener->is_closing);
    listener->is_closing = true;
    list_remove(&listener->link);
    leave_ports(os_env_of(listener->loop->base.env), listener);
    env_timer_cancel(&listener->rest);
    uv_close((uv_handle_t *)&listener->poll, on_handle_closed);
    (void)close(listener->fd); /* the port is free on return; uv_close took it out of epoll before */
    close_fd(listener->spare_fd);
}

static const char *listener_address(const struct env_listener *base) {
    return ((const struct tcp_listener *)(const void *)base)->address;
}

static const struct env_listener_ops listener_ops = {.address = listener_address, .close = listener_close};
