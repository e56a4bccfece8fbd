/*
 * TCP streams when something is wrong. Breaks when: an error lacks its address or has the wrong kind; a half-closed
 * peer doesn't get what it is owed; descriptors that run out make the listener spin, stop, or leak (hazard 57); a name
 * can't be used or its failure isn't told; memory that runs out leaks or crashes.
 */
#include "tests/unit/tcp_fixture.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
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
