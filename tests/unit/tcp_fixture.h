/*
 * Two ends of a TCP connection of the production env on one loop, and a plain socket as a peer: for test_env_os_tcp.c
 * and test_env_os_tcp_failures.c. An end counts what it is told and does what the test has set.
 */
#ifndef HOLDFAST_TESTS_TCP_FIXTURE_H
#define HOLDFAST_TESTS_TCP_FIXTURE_H

#include "node/env/os/env_os.h"
#include "tests/unit/support/support.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM_BYTES = 64 * 1024 };

/* One end of a connection. */
struct end {
    struct env_stream_handler handler;
    struct env_stream *stream;
    uint8_t room[ROOM_BYTES];
    size_t room_len; /* how much of it is offered; 0: reading stops */
    size_t received_bytes;
    uint64_t received_sum; /* order-dependent */
    size_t peak_queued_bytes;
    int opened_count, closed_count, drained_count;
    struct error error;
    bool is_in_call;
    /* What it does: */
    bool echoes;
    size_t to_send_bytes; /* a counted stream of bytes, sent as the watermarks allow */
    size_t sent_bytes;
    uint64_t sent_sum;
    bool finishes_when_sent;
    bool closes_in_opened, closes_in_room, closes_in_received, finishes_in_received;
};

static struct test_alloc memory;
static struct env *env;
static struct env_loop *loop;
static struct env_transport *tcp;
static struct env_listener *listener;
static struct error err;
static struct end client, server;
static bool refuses_all;
static int accepted_count;
static void (*in_accepted)(struct end *end);

static inline uint64_t add_bytes(uint64_t sum, const uint8_t *data, size_t len) {
    for (size_t i = 0; i < len; i++) {
        sum = sum * 31 + data[i];
    }
    return sum;
}

/* Every call into the stream is marked, to catch a callback from inside it. */
static inline void do_write(struct end *end, const void *data, size_t len) {
    struct slice part = slice_of(data, len);
    end->is_in_call = true;
    assert_int_equal(env_stream_write(end->stream, &part, 1), STATUS_OK);
    end->is_in_call = false;
    end->sent_sum = add_bytes(end->sent_sum, data, len);
    end->sent_bytes += len;
    size_t queued = env_stream_queued_bytes(end->stream);
    end->peak_queued_bytes = queued > end->peak_queued_bytes ? queued : end->peak_queued_bytes;
}

static inline void do_finish(struct end *end) {
    end->is_in_call = true;
    env_stream_finish(end->stream);
    end->is_in_call = false;
    struct slice part = slice_of("x", 1);
    assert_int_equal(env_stream_write(end->stream, &part, 1), STATUS_CLOSED);
}

static inline void do_close(struct end *end) {
    end->is_in_call = true;
    env_stream_close(end->stream);
    env_stream_close(end->stream); /* twice does no harm */
    end->is_in_call = false;
}

static inline void send_more(struct end *end) {
    uint8_t chunk[10000];
    while (end->sent_bytes < end->to_send_bytes && env_stream_queued_bytes(end->stream) < ENV_STREAM_HIGH_BYTES) {
        size_t left = end->to_send_bytes - end->sent_bytes;
        size_t len = left < sizeof chunk ? left : sizeof chunk;
        for (size_t i = 0; i < len; i++) {
            chunk[i] = (uint8_t)((end->sent_bytes + i) * 7 >> 3);
        }
        do_write(end, chunk, len);
    }
    if (end->finishes_when_sent && end->sent_bytes == end->to_send_bytes) {
        do_finish(end);
    }
}

static inline void on_opened(struct env_stream_handler *handler) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    assert_false(end->is_in_call);
    assert_non_null(strchr(env_stream_peer(end->stream)->address, ':'));
    assert_int_equal(env_stream_peer(end->stream)->certificate, ENV_CERTIFICATE_NONE);
    end->opened_count++;
    send_more(end);
    if (end->closes_in_opened) {
        do_close(end);
    }
}

static inline void on_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    assert_false(end->is_in_call);
    assert_int_equal(end->closed_count, 0);
    *ret_data = end->room;
    bool is_full = end->echoes && env_stream_queued_bytes(end->stream) >= ENV_STREAM_HIGH_BYTES;
    *ret_len = is_full ? 0 : end->room_len;
    if (end->closes_in_room) {
        do_close(end);
    }
}

static inline void on_received(struct env_stream_handler *handler, size_t len) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    assert_false(end->is_in_call);
    assert_in_range(len, 1, end->room_len);
    end->received_sum = add_bytes(end->received_sum, end->room, len);
    end->received_bytes += len;
    if (end->echoes) {
        do_write(end, end->room, len);
    }
    if (end->closes_in_received) {
        do_close(end);
    }
    if (end->finishes_in_received) {
        do_finish(end);
    }
}

static inline void on_drained(struct env_stream_handler *handler) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    assert_false(end->is_in_call);
    assert_true(env_stream_queued_bytes(end->stream) < ENV_STREAM_LOW_BYTES);
    end->drained_count++;
    send_more(end);
    if (end->echoes) {
        env_stream_resume(end->stream);
    }
}

static inline void on_closed(struct env_stream_handler *handler, const struct error *error) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    assert_false(end->is_in_call);
    end->closed_count++;
    end->error = *error;
    assert_int_equal(end->closed_count, 1);
}

static inline void end_init(struct end *end) {
    memset(end, 0, sizeof *end);
    end->handler = (struct env_stream_handler){
        .opened = on_opened, .room = on_room, .received = on_received, .drained = on_drained, .closed = on_closed};
    end->room_len = ROOM_BYTES;
}

static inline struct env_stream_handler *on_accepted(void *context, struct env_stream *stream) {
    assert_ptr_equal(context, &server);
    accepted_count++;
    if (refuses_all) {
        return NULL;
    }
    server.stream = stream;
    if (in_accepted != NULL) {
        in_accepted(&server);
    }
    assert_int_equal(server.opened_count, 0);
    return &server.handler;
}

static inline int setup(void **state) {
    (void)state;
    test_alloc_init(&memory);
    end_init(&client);
    end_init(&server);
    refuses_all = false;
    in_accepted = NULL;
    accepted_count = 0;
    const struct env_os_options options = {.alloc = &memory.base, .workers_short = 1, .workers_long = 1};
    if (env_os_new(&options, &env, &err) != STATUS_OK || env_loop_new(env, "tcp", 16, &loop, &err) != STATUS_OK) {
        return -1;
    }
    tcp = env_os_tcp(env);
    return env_listen(tcp, loop, "127.0.0.1:0", on_accepted, &server, &listener, &err) == STATUS_OK ? 0 : -1;
}

static inline int teardown(void **state) {
    (void)state;
    env_listener_close(listener);
    env_loop_free(loop);
    env_os_free(env);
    return memory.live_blocks == 0 ? 0 : -1;
}

static inline void do_connect(const char *address) {
    client.is_in_call = true;
    assert_int_equal(env_connect(tcp, loop, address, &client.handler, &client.stream, &err), STATUS_OK);
    client.is_in_call = false;
}

static inline bool both_closed(void *context) {
    (void)context;
    return client.closed_count == 1 && server.closed_count == 1;
}

static inline bool client_opened(void *context) {
    (void)context;
    return client.opened_count > 0;
}

static inline bool client_closed(void *context) {
    (void)context;
    return client.closed_count == 1;
}

static inline bool both_opened(void *context) {
    (void)context;
    return client.opened_count == 1 && server.opened_count == 1;
}

static void run_until(bool (*done)(void *context)) { assert_true(test_loop_until(loop, done, NULL, 10000)); }

static inline void connect_both(void) {
    do_connect(env_listener_address(listener));
    run_until(both_opened);
}

/* ---- A peer that is a plain socket ------------------------------------------------------------------------------- */

static inline int raw_connection(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    return fd;
}

static inline void raw_connect(int fd) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons((in_port_t)atoi(strchr(env_listener_address(listener), ':') + 1));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)(void *)&address, sizeof address), 0);
    client.opened_count = 1; /* the other end takes no part */
    client.closed_count = 1;
}

static inline void run_for_ms(unsigned ms) {
    bool never = false;
    assert_false(test_loop_until_set(loop, &never, ms));
}

#define WITH_LOOP(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
