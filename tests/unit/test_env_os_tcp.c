/*
 * TCP streams of the production environment. Breaks if bytes are lost, doubled or reordered under back-pressure, if an
 * orderly end loses the last bytes (a reset overtakes them), if closed comes twice, never, or inside a call, if writes
 * of a turn aren't coalesced, if an error names no address, or if running out of descriptors stops or spins the node
 * (hazard 57).
 */
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

static uint64_t add_bytes(uint64_t sum, const uint8_t *data, size_t len) {
    for (size_t i = 0; i < len; i++) {
        sum = sum * 31 + data[i];
    }
    return sum;
}

/* Every call into the stream is marked, to catch a callback from inside it. */
static void do_write(struct end *end, const void *data, size_t len) {
    struct slice part = slice_of(data, len);
    end->is_in_call = true;
    assert_int_equal(env_stream_write(end->stream, &part, 1), STATUS_OK);
    end->is_in_call = false;
    end->sent_sum = add_bytes(end->sent_sum, data, len);
    end->sent_bytes += len;
    size_t queued = env_stream_queued_bytes(end->stream);
    end->peak_queued_bytes = queued > end->peak_queued_bytes ? queued : end->peak_queued_bytes;
}

static void do_finish(struct end *end) {
    end->is_in_call = true;
    env_stream_finish(end->stream);
    end->is_in_call = false;
    struct slice part = slice_of("x", 1);
    assert_int_equal(env_stream_write(end->stream, &part, 1), STATUS_CLOSED);
}

static void do_close(struct end *end) {
    end->is_in_call = true;
    env_stream_close(end->stream);
    env_stream_close(end->stream); /* twice does no harm */
    end->is_in_call = false;
}

static void send_more(struct end *end) {
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

static void on_opened(struct env_stream_handler *handler) {
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

static void on_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
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

static void on_received(struct env_stream_handler *handler, size_t len) {
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

static void on_drained(struct env_stream_handler *handler) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    assert_false(end->is_in_call);
    assert_true(env_stream_queued_bytes(end->stream) < ENV_STREAM_LOW_BYTES);
    end->drained_count++;
    send_more(end);
    if (end->echoes) {
        env_stream_resume(end->stream);
    }
}

static void on_closed(struct env_stream_handler *handler, const struct error *error) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    assert_false(end->is_in_call);
    end->closed_count++;
    end->error = *error;
    assert_int_equal(end->closed_count, 1);
}

static void end_init(struct end *end) {
    memset(end, 0, sizeof *end);
    end->handler = (struct env_stream_handler){
        .opened = on_opened, .room = on_room, .received = on_received, .drained = on_drained, .closed = on_closed};
    end->room_len = ROOM_BYTES;
}

static struct env_stream_handler *on_accepted(void *context, struct env_stream *stream) {
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

static int setup(void **state) {
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

static int teardown(void **state) {
    (void)state;
    env_listener_close(listener);
    env_loop_free(loop);
    env_os_free(env);
    return memory.live_blocks == 0 ? 0 : -1;
}

static void do_connect(const char *address) {
    client.is_in_call = true;
    assert_int_equal(env_connect(tcp, loop, address, &client.handler, &client.stream, &err), STATUS_OK);
    client.is_in_call = false;
}

static bool both_closed(void *context) {
    (void)context;
    return client.closed_count == 1 && server.closed_count == 1;
}

static bool client_opened(void *context) {
    (void)context;
    return client.opened_count > 0;
}

static bool client_closed(void *context) {
    (void)context;
    return client.closed_count == 1;
}

static bool both_opened(void *context) {
    (void)context;
    return client.opened_count == 1 && server.opened_count == 1;
}

static void run_until(bool (*done)(void *context)) { assert_true(test_loop_until(loop, done, NULL, 10000)); }

static void connect_both(void) {
    do_connect(env_listener_address(listener));
    run_until(both_opened);
}

/* ---- A peer that is a plain socket ------------------------------------------------------------------------------- */

static int raw_connection(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    return fd;
}

static void raw_connect(int fd) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons((in_port_t)atoi(strchr(env_listener_address(listener), ':') + 1));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)(void *)&address, sizeof address), 0);
    client.opened_count = 1; /* the other end takes no part */
    client.closed_count = 1;
}

static void run_for_ms(unsigned ms) {
    bool never = false;
    assert_false(test_loop_until_set(loop, &never, ms));
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------- */

static bool client_has_all_back(void *context) {
    (void)context;
    return client.received_bytes == client.to_send_bytes;
}

static void test_echo_with_back_pressure_returns_every_byte_in_order(void **state) {
    (void)state;
    server.echoes = true;
    client.to_send_bytes = 24 * 1024 * 1024;
    do_connect(env_listener_address(listener));
    run_until(client_has_all_back);
    assert_true(client.received_sum == client.sent_sum);
    assert_int_equal(server.received_bytes, client.to_send_bytes);
    assert_true(client.drained_count > 0);
    assert_true(client.peak_queued_bytes < ENV_STREAM_HIGH_BYTES + 10000);
    assert_true(server.peak_queued_bytes < ENV_STREAM_HIGH_BYTES + ROOM_BYTES);
    do_close(&client);
    run_until(both_closed);
    assert_int_equal(client.error.code, STATUS_OK);
}

static void test_no_room_stops_reading_until_resume(void **state) {
    (void)state;
    connect_both();
    server.room_len = 0;
    do_write(&client, "hello", 5);
    run_for_ms(30);
    assert_int_equal(server.received_bytes, 0);
    assert_true(env_os_get_loop_stats(loop).turns < 1000); /* it sleeps meanwhile */
    server.room_len = 3;
    env_stream_resume(server.stream);
    run_for_ms(10);
    assert_int_equal(server.received_bytes, 5);
    do_close(&client);
    run_until(both_closed);
    assert_int_equal(server.error.code, STATUS_OK);
}

static void test_writes_of_a_turn_leave_in_one_send(void **state) {
    (void)state;
    connect_both();
    uint64_t before = env_os_get_loop_stats(loop).stream_sends;
    for (int i = 0; i < 100; i++) {
        do_write(&client, "0123456789", 10);
    }
    run_for_ms(5);
    assert_int_equal(server.received_bytes, 1000);
    assert_int_equal(env_os_get_loop_stats(loop).stream_sends - before, 1);
    do_close(&client);
    run_until(both_closed);
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

static void test_finish_lets_a_slow_reader_have_every_byte(void **state) {
    (void)state;
    server.to_send_bytes = ENV_STREAM_HIGH_BYTES; /* written at once, finished at once */
    server.finishes_when_sent = true;
    client.room_len = 777;
    do_connect(env_listener_address(listener));
    run_until(both_closed);
    assert_int_equal(client.received_bytes, server.to_send_bytes);
    assert_true(client.received_sum == server.sent_sum);
    assert_int_equal(client.error.code, STATUS_OK);
    assert_int_equal(server.error.code, STATUS_OK);
}

static void refuse_with_words(struct end *end) {
    do_write(end, "refused: unknown certificate", 28);
    do_finish(end);
}

static void test_finish_with_unread_input_still_delivers_the_last_words(void **state) {
    (void)state;
    in_accepted = refuse_with_words; /* before opened, which then never comes */
    client.to_send_bytes = 500 * 1000;
    do_connect(env_listener_address(listener));
    run_until(both_closed);
    assert_int_equal(client.received_bytes, 28);
    assert_int_equal(client.error.code, STATUS_OK);
    assert_int_equal(server.error.code, STATUS_OK);
    assert_int_equal(server.opened_count, 0);
    assert_int_equal(server.received_bytes, 0);
}

static void test_finish_drops_what_still_comes_until_the_peer_ends(void **state) {
    (void)state;
    static uint8_t data[100 * 1000];
    in_accepted = refuse_with_words;
    int fd = raw_connection();
    raw_connect(fd);
    run_for_ms(20);
    assert_int_equal(server.closed_count, 0); /* a close now would answer what follows with a reset */
    assert_int_equal(send(fd, data, sizeof data, 0), sizeof data);
    run_for_ms(20);
    assert_int_equal(recv(fd, data, sizeof data, 0), 28);
    assert_int_equal(recv(fd, data, sizeof data, 0), 0);
    (void)close(fd);
    run_until(both_closed);
    assert_int_equal(server.error.code, STATUS_OK);
    assert_int_equal(server.received_bytes, 0);
}

static void test_finish_drops_no_more_than_a_mebibyte(void **state) {
    (void)state;
    static uint8_t data[256 * 1024];
    in_accepted = refuse_with_words;
    int fd = raw_connection();
    raw_connect(fd);
    size_t sent = 0;
    uint64_t before_us = env_clock_us(env);
    while (server.closed_count == 0) {
        ssize_t put = send(fd, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += put > 0 ? (size_t)put : 0;
        run_for_ms(1);
    }
    assert_true(sent > 1024 * 1024);
    assert_true(env_clock_us(env) - before_us < 1500 * 1000); /* by size, not by time */
    (void)close(fd);
}

static void test_finish_gives_up_a_peer_that_takes_nothing(void **state) {
    (void)state;
    client.room_len = 0;
    connect_both();
    server.to_send_bytes = SIZE_MAX / 2;
    send_more(&server);
    run_for_ms(50); /* the socket is full now, and so is the queue */
    uint64_t before_us = env_clock_us(env);
    do_finish(&server);
    while (server.closed_count == 0) {
        run_for_ms(100);
    }
    assert_in_range(env_clock_us(env) - before_us, 1900 * 1000, 6000 * 1000);
    assert_int_equal(server.error.code, STATUS_TIMEOUT);
    do_close(&client);
    run_until(both_closed);
}

static void test_finish_while_connecting_sends_what_was_written(void **state) {
    (void)state;
    do_connect(env_listener_address(listener));
    do_write(&client, "hello", 5);
    do_finish(&client);
    run_until(both_closed);
    assert_int_equal(server.received_bytes, 5);
    assert_int_equal(client.opened_count, 0);
}

static void test_close_in_every_callback_closes_once(void **state) {
    (void)state;
    bool *switches[] = {&server.closes_in_opened, &server.closes_in_room, &server.closes_in_received,
                        &server.finishes_in_received};
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
        end_init(&client);
        end_init(&server);
        *switches[i] = true;
        client.to_send_bytes = 200000;
        do_connect(env_listener_address(listener));
        run_until(both_closed);
        assert_int_equal(server.error.code, STATUS_OK);
    }
}

static void test_close_while_connecting_closes_without_opened(void **state) {
    (void)state;
    refuses_all = true;
    static const char *const addresses[] = {NULL, "127.1:1", "192.0.2.1:9"}; /* numeric, by the resolver, far away */
    for (size_t i = 0; i < 3; i++) {
        end_init(&client);
        do_connect(addresses[i] != NULL ? addresses[i] : env_listener_address(listener));
        do_close(&client);
        run_until(client_closed);
        assert_int_equal(client.opened_count, 0);
        assert_int_equal(client.error.code, STATUS_OK);
    }
}

/* ---- Failures ---------------------------------------------------------------------------------------------------- */

static void test_connection_refused_is_closed_with_the_address(void **state) {
    (void)state;
    char address[LIMIT_ADDRESS_BYTES];
    (void)snprintf(address, sizeof address, "%s", env_listener_address(listener));
    env_listener_close(listener);
    listener = NULL;
    do_connect(address);
    run_until(client_closed);
    assert_int_equal(client.error.code, STATUS_IO);
    assert_int_equal(client.error.sys, ECONNREFUSED);
    assert_non_null(strstr(client.error.message, address));
    assert_int_equal(client.opened_count, 0);
}

static void test_listen_on_a_used_port_names_the_address(void **state) {
    (void)state;
    struct env_listener *second = NULL;
    assert_int_equal(env_listen(tcp, loop, env_listener_address(listener), on_accepted, &server, &second, &err),
                     STATUS_IO);
    assert_int_equal(err.sys, EADDRINUSE);
    assert_non_null(strstr(err.message, env_listener_address(listener)));
    assert_null(second);
}

static void test_listen_on_another_loops_port_shares_it(void **state) {
    (void)state;
    struct env_loop *other = NULL;
    struct env_listener *second = NULL;
    assert_int_equal(env_loop_new(env, "other", 16, &other, &err), STATUS_OK);
    assert_int_equal(env_listen(tcp, other, env_listener_address(listener), on_accepted, &server, &second, &err),
                     STATUS_OK);
    assert_string_equal(env_listener_address(second), env_listener_address(listener));
    /* The first one goes on alone when the second is gone. */
    env_listener_close(second);
    env_loop_free(other);
    do_connect(env_listener_address(listener));
    run_until(client_opened);
    do_close(&client);
    run_until(client_closed);
}

static void test_bad_addresses_are_refused_with_words(void **state) {
    (void)state;
    static const char *const bad[] = {"",         "host",  ":4401",   "host:",   "host:0",  "host:65536", "host:44a",
                                      "::1:4401", "[::1]", "[]:4401", "host:-1", "host: 1", "host:000001"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct env_stream *stream = NULL;
        assert_int_equal(env_connect(tcp, loop, bad[i], &client.handler, &stream, &err), STATUS_INVALID);
        assert_non_null(strstr(err.message, bad[i]));
        assert_null(stream);
    }
    char host[400];
    memset(host, 'a', sizeof host);
    memcpy(host + sizeof host - 6, ":4401", 6);
    struct env_stream *stream = NULL;
    assert_int_equal(env_connect(tcp, loop, host, &client.handler, &stream, &err), STATUS_INVALID);
}

static void test_peer_reset_is_closed_not_orderly(void **state) {
    (void)state;
    int fd = raw_connection();
    raw_connect(fd);
    run_until(both_opened);
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    (void)close(fd);
    run_until(both_closed);
    assert_int_equal(server.error.code, STATUS_CLOSED);
    assert_int_equal(server.error.sys, ECONNRESET);
}

static void test_half_closed_peer_gets_the_reply_to_what_it_sent(void **state) {
    (void)state;
    server.echoes = true;
    int fd = raw_connection();
    raw_connect(fd);
    assert_int_equal(send(fd, "last question", 13, 0), 13);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    run_until(both_closed);
    char reply[32];
    assert_int_equal(recv(fd, reply, sizeof reply, MSG_WAITALL), 13);
    assert_int_equal(server.error.code, STATUS_OK);
    (void)close(fd);
}

static void test_half_closed_peer_that_reads_late_gets_all_that_was_queued(void **state) {
    (void)state;
    static uint8_t data[64 * 1024];
    server.to_send_bytes = SIZE_MAX / 2; /* until the queue is full */
    int fd = raw_connection();
    raw_connect(fd);
    size_t before;
    do { /* until socket and queue take no more */
        before = server.sent_bytes;
        run_for_ms(20);
    } while (server.sent_bytes == 0 || server.sent_bytes != before);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    run_for_ms(20);
    assert_true(env_stream_queued_bytes(server.stream) > 0 && server.closed_count == 0);
    size_t received = 0;
    for (int empty = 0; empty < 1000;) {
        ssize_t got = recv(fd, data, sizeof data, MSG_DONTWAIT);
        if (got == 0) {
            break;
        }
        received += got > 0 ? (size_t)got : 0;
        if (got < 0) {
            assert_int_equal(errno, EAGAIN);
            empty++;
            run_for_ms(2);
        }
    }
    (void)close(fd);
    run_until(both_closed);
    assert_int_equal(received, server.sent_bytes);
    assert_int_equal(server.error.code, STATUS_OK);
}

static int open_fds(void) {
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

static void test_refused_accept_closes_the_socket_and_leaks_nothing(void **state) {
    (void)state;
    refuses_all = true;
    int before = 0;
    for (int round = 1; round <= 3; round++) {
        end_init(&client);
        do_connect(env_listener_address(listener));
        run_until(client_closed);
        bool never = false;
        assert_false(test_loop_until_set(loop, &never, 5));
        assert_int_equal(accepted_count, round);
        assert_int_equal(server.closed_count, 0);
        before = round == 1 ? open_fds() : before; /* the first stream makes libuv open a spare one of its own */
        assert_int_equal(open_fds(), before);
    }
}

static bool four_accepted(void *context) {
    (void)context;
    return accepted_count == 4;
}

static void test_h57_without_descriptors_connections_are_shed_and_the_rest_served_later(void **state) {
    (void)state;
    refuses_all = true; /* counting is enough */
    int clients[5], fillers[256];
    for (int i = 0; i < 5; i++) {
        clients[i] = raw_connection();
    }
    struct rlimit limit, low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = 200;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    int filler_count = 0;
    while (filler_count < 256 && (fillers[filler_count] = open("/dev/null", O_RDONLY)) >= 0) {
        filler_count++;
    }
    for (int i = 0; i < 5; i++) {
        raw_connect(clients[i]);
    }
    uint64_t turns = env_os_get_loop_stats(loop).turns;
    run_for_ms(60);
    assert_int_equal(accepted_count, 0);
    char byte;
    assert_int_equal(recv(clients[0], &byte, 1, 0), 0); /* one was shed: it knows at once */
    assert_int_equal(recv(clients[1], &byte, 1, MSG_DONTWAIT), -1);
    assert_true(env_os_get_loop_stats(loop).turns - turns < 200); /* the timer of test_loop_until, no spinning */
    for (int i = 0; i < filler_count; i++) {
        (void)close(fillers[i]);
    }
    run_until(four_accepted);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int i = 0; i < 5; i++) {
        (void)close(clients[i]);
    }
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

static void test_connect_by_name_and_by_ipv6(void **state) {
    (void)state;
    const char *port = strchr(env_listener_address(listener), ':') + 1;
    static const char *const hosts[] = {"localhost", "127.1"}; /* the second goes through the resolver */
    for (size_t i = 0; i < 2; i++) {
        char address[LIMIT_ADDRESS_BYTES];
        (void)snprintf(address, sizeof address, "%s:%s", hosts[i], port);
        end_init(&client);
        end_init(&server);
        do_connect(address);
        run_until(both_opened);
        assert_string_equal(env_stream_peer(client.stream)->address, env_listener_address(listener));
        do_close(&client);
        run_until(both_closed);
    }
    struct env_listener *six = NULL;
    if (env_listen(tcp, loop, "[::1]:0", on_accepted, &server, &six, &err) != STATUS_OK) {
        print_message("no IPv6 here: %s\n", err.message);
        return;
    }
    end_init(&client);
    end_init(&server);
    do_connect(env_listener_address(six));
    run_until(both_opened);
    assert_string_equal(env_stream_peer(client.stream)->address, env_listener_address(six));
    assert_int_equal(strncmp(env_stream_peer(server.stream)->address, "[::1]:", 6), 0);
    do_close(&client);
    run_until(both_closed);
    env_listener_close(six);
}

static void test_name_that_cannot_be_resolved_is_closed_with_it(void **state) {
    (void)state;
    char address[LIMIT_ADDRESS_BYTES];
    memset(address, 'a', 70); /* too long for a label: no name server is asked */
    memcpy(address + 70, ":4401", 6);
    do_connect(address);
    run_until(client_closed);
    assert_int_not_equal(client.error.code, STATUS_OK);
    assert_non_null(strstr(client.error.message, "aaaa"));
}

static void test_streams_without_memory_fail_cleanly(void **state) {
    (void)state;
    for (uint64_t n = 1; n < 6; n++) {
        end_init(&client);
        refuses_all = true;
        test_alloc_fail(&memory, n, true);
        enum status status =
            env_connect(tcp, loop, env_listener_address(listener), &client.handler, &client.stream, &err);
        struct slice part = slice_of("x", 1);
        if (status == STATUS_OK) {
            enum status written = env_stream_write(client.stream, &part, 1);
            assert_true(written == STATUS_OK || written == STATUS_NO_MEMORY);
            env_stream_finish(client.stream); /* its timer may find no memory */
            test_alloc_fail(&memory, 0, false);
            run_until(client_closed);
        } else {
            assert_int_equal(status, STATUS_NO_MEMORY);
        }
        test_alloc_fail(&memory, 0, false);
    }
}

#define WITH_LOOP(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_LOOP(test_echo_with_back_pressure_returns_every_byte_in_order),
        WITH_LOOP(test_no_room_stops_reading_until_resume),
        WITH_LOOP(test_writes_of_a_turn_leave_in_one_send),
        WITH_LOOP(test_finish_lets_a_slow_reader_have_every_byte),
        WITH_LOOP(test_finish_with_unread_input_still_delivers_the_last_words),
        WITH_LOOP(test_finish_drops_what_still_comes_until_the_peer_ends),
        WITH_LOOP(test_finish_drops_no_more_than_a_mebibyte),
        WITH_LOOP(test_finish_gives_up_a_peer_that_takes_nothing),
        WITH_LOOP(test_finish_while_connecting_sends_what_was_written),
        WITH_LOOP(test_close_in_every_callback_closes_once),
        WITH_LOOP(test_close_while_connecting_closes_without_opened),
        WITH_LOOP(test_connection_refused_is_closed_with_the_address),
        WITH_LOOP(test_listen_on_a_used_port_names_the_address),
        WITH_LOOP(test_listen_on_another_loops_port_shares_it),
        WITH_LOOP(test_bad_addresses_are_refused_with_words),
        WITH_LOOP(test_peer_reset_is_closed_not_orderly),
        WITH_LOOP(test_half_closed_peer_gets_the_reply_to_what_it_sent),
        WITH_LOOP(test_half_closed_peer_that_reads_late_gets_all_that_was_queued),
        WITH_LOOP(test_refused_accept_closes_the_socket_and_leaks_nothing),
        WITH_LOOP(test_h57_without_descriptors_connections_are_shed_and_the_rest_served_later),
        WITH_LOOP(test_connect_by_name_and_by_ipv6),
        WITH_LOOP(test_name_that_cannot_be_resolved_is_closed_with_it),
        WITH_LOOP(test_streams_without_memory_fail_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
