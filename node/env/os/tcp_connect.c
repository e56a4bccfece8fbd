/*
 * Connecting: resolve the name (not for numeric addresses), then try its addresses in turn, each with a socket of its
 * own.
 *
 *   tcp__connect -> [resolve in libuv's threads] -> try -> connected
 *                                                   try -> failed -> close the socket -> try the next, or fail for good
 *
 * A resolution can't be called back once it runs; it outlives a stream that ends meanwhile, and then throws its answer
 * away. Owner: the loop.
 */
#include "node/env/os/tcp_internal.h"

#include <netdb.h>
#include <string.h>

enum { ADDRESSES_MAX = 8 };

struct tcp_connecting {
    struct os_loop *loop;
    struct tcp_stream *stream; /* NULL: it ended */
    bool is_resolving;
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    unsigned address_count;
    unsigned next; /* address to try */
    struct sockaddr_storage addresses[ADDRESSES_MAX];
};

static void free_connecting(struct tcp_connecting *connecting) {
    mem_free(connecting->loop->base.env->alloc, connecting);
}

void tcp__connect_abandon(struct tcp_stream *stream) {
    struct tcp_connecting *connecting = stream->connecting;
    if (connecting != NULL && connecting->is_resolving) {
        connecting->stream = NULL;
        stream->connecting = NULL;
        (void)uv_cancel((uv_req_t *)&connecting->resolve);
    }
}

void tcp__connect_release(struct tcp_stream *stream) {
    if (stream->connecting != NULL) {
        free_connecting(stream->connecting);
        stream->connecting = NULL;
    }
}

/* With another address to try, the socket is closed first; its close callback calls tcp__connect_next. */
static void attempt_failed(struct tcp_stream *stream, int uv_error) {
    const struct tcp_connecting *connecting = stream->connecting;
    if (connecting->next < connecting->address_count) {
        tcp__close_socket(stream);
    } else {
        tcp__fail(stream, uv_error, "connect to");
    }
}

static void on_connected(uv_connect_t *request, int status) {
    struct tcp_stream *stream = request->data;
    os_loop__enter(stream->loop);
    if (stream->state == STREAM_CLOSING) {
        return; /* cancelled by the close, whose callback follows */
    }
    if (status == 0) {
        status = tcp__stream_connected(stream, &stream->connecting->addresses[stream->connecting->next - 1]);
    }
    if (status < 0) {
        attempt_failed(stream, status);
        return;
    }
    tcp__connect_release(stream);
    if (stream->state == STREAM_CONNECTING) {
        stream->state = STREAM_OPEN;
    }
    tcp__stream_announce(stream);
}

static void try_next(struct tcp_stream *stream) {
    struct tcp_connecting *connecting = stream->connecting;
    if (connecting->next == connecting->address_count) {
        tcp__fail(stream, UV_EADDRNOTAVAIL, "connect to");
        return;
    }
    const struct sockaddr_storage *address = &connecting->addresses[connecting->next++];
    connecting->connect.data = stream;
    int result = uv_tcp_connect(&connecting->connect, &stream->tcp, (const struct sockaddr *)(const void *)address,
                                on_connected);
    if (result < 0) {
        attempt_failed(stream, result);
    }
}

void tcp__connect_next(struct tcp_stream *stream) {
    CHECK(stream->connecting != NULL && !stream->is_connected);
    CHECK(uv_tcp_init(&stream->loop->uv, &stream->tcp) == 0);
    stream->tcp.data = stream;
    try_next(stream);
}

static void take_addresses(struct tcp_connecting *connecting, const struct addrinfo *found) {
    for (; found != NULL && connecting->address_count < ADDRESSES_MAX; found = found->ai_next) {
        if (found->ai_addrlen <= sizeof(struct sockaddr_storage)) {
            memcpy(&connecting->addresses[connecting->address_count++], found->ai_addr, found->ai_addrlen);
        }
    }
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
    struct tcp_connecting *connecting = request->data;
    struct tcp_stream *stream = connecting->stream;
    os_loop__enter(connecting->loop);
    connecting->is_resolving = false;
    connecting->loop->resolve_count--;
    if (status == 0 && stream != NULL) {
        take_addresses(connecting, found);
    }
    uv_freeaddrinfo(found);
    if (stream == NULL) {
        free_connecting(connecting);
    } else if (status == 0) {
        try_next(stream);
    } else {
        (void)error_set(&stream->error, STATUS_NOT_FOUND, "resolve %.150s: %s", stream->peer.address,
                        uv_strerror(status));
        tcp__end(stream);
    }
}

static void resolve(struct tcp_stream *stream, const struct tcp_name *name) {
    struct tcp_connecting *connecting = stream->connecting;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
    connecting->resolve.data = connecting;
    int result =
        uv_getaddrinfo(&connecting->loop->uv, &connecting->resolve, on_resolved, name->host, name->port, &hints);
    if (result < 0) {
        tcp__fail(stream, result, "resolve");
        return;
    }
    connecting->is_resolving = true;
    connecting->loop->resolve_count++;
}

enum status tcp__connect(struct env_transport *transport, struct env_loop *base, const char *address,
                         struct env_stream_handler *handler, struct env_stream **ret_stream, struct error *err) {
    (void)transport;
    struct os_loop *loop = os_loop_of(base);
    struct alloc *alloc = base->env->alloc;
    struct tcp_name name;
    enum status status = tcp__parse(address, false, &name, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct tcp_connecting *connecting = mem_alloc_zero(alloc, sizeof *connecting);
    struct tcp_stream *stream = connecting != NULL ? tcp__stream_new(loop, STREAM_CONNECTING) : NULL;
    if (stream == NULL) {
        mem_free(alloc, connecting);
        return error_set(err, STATUS_NO_MEMORY, "connect to %s: out of memory", address);
    }
    connecting->loop = loop;
    connecting->stream = stream;
    stream->connecting = connecting;
    stream->handler = handler;
    (void)strncpy(stream->peer.address, address, sizeof stream->peer.address - 1);
    /* From here on the caller hears of failures from closed only. */
    if (tcp__numeric(&name, &connecting->addresses[0])) {
        connecting->address_count = 1;
        try_next(stream);
    } else {
        resolve(stream, &name);
    }
    *ret_stream = &stream->base;
    return STATUS_OK;
}
