/*
 * TCP streams of the production environment. Breaks if bytes are lost, doubled or reordered under back-pressure, if an
 * orderly end loses the last bytes (a reset overtakes them), if closed comes twice, never, or inside a call, if writes
 * of a turn aren't coalesced, if what a slow peer doesn't take hides in the system, if an error names no address, or if
 * running out of descriptors stops or spins the node (hazard 57).
 */
#include "tests/unit/tcp_fixture.h"

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

static bool is_accepted(void *context) {
    (void)context;
    return server.stream != NULL && server.opened_count > 0;
}

/* Else nobody can tell a slow link from a dead one, and what is written next waits behind it. */
static void test_what_a_peer_does_not_take_waits_here_and_not_in_the_system(void **state) {
    (void)state;
    enum { LARGE_BYTES = 8 * 1024 * 1024, HIDDEN_BYTES_MAX = 1024 * 1024 };
    uint8_t *data = calloc(1, LARGE_BYTES);
    assert_non_null(data);
    int fd = raw_connection();
    int receive_bytes = 64 * 1024;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes), 0);
    raw_connect(fd);
    run_until(is_accepted);
    do_write(&server, data, LARGE_BYTES);
    run_for_ms(100);
    assert_in_range(env_stream_queued_bytes(server.stream), LARGE_BYTES - HIDDEN_BYTES_MAX, LARGE_BYTES);
    free(data);
    (void)close(fd); /* a reset: there is more unread */
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

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_LOOP(test_echo_with_back_pressure_returns_every_byte_in_order),
        WITH_LOOP(test_no_room_stops_reading_until_resume),
        WITH_LOOP(test_writes_of_a_turn_leave_in_one_send),
        WITH_LOOP(test_what_a_peer_does_not_take_waits_here_and_not_in_the_system),
        WITH_LOOP(test_finish_lets_a_slow_reader_have_every_byte),
        WITH_LOOP(test_finish_with_unread_input_still_delivers_the_last_words),
        WITH_LOOP(test_finish_drops_what_still_comes_until_the_peer_ends),
        WITH_LOOP(test_finish_drops_no_more_than_a_mebibyte),
        WITH_LOOP(test_finish_gives_up_a_peer_that_takes_nothing),
        WITH_LOOP(test_finish_while_connecting_sends_what_was_written),
        WITH_LOOP(test_close_in_every_callback_closes_once),
        WITH_LOOP(test_close_while_connecting_closes_without_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
