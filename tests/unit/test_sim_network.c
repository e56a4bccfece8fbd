/*
 * Simulated streams in good weather: bytes in order, ends, refusals, identities.
 *
 * Would break these: bytes that overtake, vanish or double within a stream; an output queue without a bound or without
 * a word when it drains; a close with unread data that is orderly; callbacks from inside env_stream_* calls, or after
 * closed.
 */
#include "tests/unit/sim_network_fixture.h"

/* ---- Bytes ------------------------------------------------------------------------------------------------------ */

static void test_streams_carry_bytes_in_order_both_ways(void **state) {
    (void)state;
    enum { LEN = 3 * 1000 * 1000 };
    uint8_t *bytes = make_bytes(LEN);
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct fixture fixture;
        setup_open(&fixture, seed);
        size_t sent = 0;
        while (sent < LEN) {
            size_t part = 1 + sim_random(fixture.sim) % 600000;
            part = part < LEN - sent ? part : LEN - sent;
            send_bytes(&fixture, &fixture.client, bytes + sent, part);
            send_bytes(&fixture, &fixture.server, bytes + sent, part);
            sent += part;
        }
        run_us(&fixture, 10 * SECOND);
        assert_true(slice_equal(buf_slice(&fixture.server.input), slice_of(bytes, LEN)));
        assert_true(slice_equal(buf_slice(&fixture.client.input), slice_of(bytes, LEN)));
        assert_int_equal(env_stream_queued_bytes(fixture.client.stream), 0);
        struct sim_stats stats;
        sim_get_stats(fixture.sim, &stats);
        assert_int_equal(stats.network_bytes, 2 * LEN);
        assert_true(stats.segments > 60);
        cleanup(&fixture);
    }
    free(bytes);
}

static void test_slow_reader_fills_the_queue_and_drains_it(void **state) {
    (void)state;
    enum { LEN = ENV_STREAM_HIGH_BYTES + 512 * 1024 };
    struct fixture fixture;
    setup_open(&fixture, 5);
    fixture.server.room_bytes = 0;
    uint8_t *bytes = make_bytes(LEN);
    send_bytes(&fixture, &fixture.client, bytes, LEN);
    run_us(&fixture, 30 * SECOND);
    assert_int_equal(fixture.server.input.len, 0);
    size_t queued = env_stream_queued_bytes(fixture.client.stream);
    assert_int_equal(queued, LEN - sim_network_options(fixture.sim)->pipe_bytes_max); /* bounded on the wire */
    assert_int_equal(fixture.client.drained, 0);
    on_loop(&fixture, &fixture.server, do_resume, NULL);
    run_us(&fixture, 10 * SECOND);
    assert_true(slice_equal(buf_slice(&fixture.server.input), slice_of(bytes, LEN)));
    assert_int_equal(fixture.client.drained, 1);
    free(bytes);
    cleanup(&fixture);
}

static void test_peer_shows_the_identity_of_its_node(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES];
    memset(thumbprint, 0x5a, sizeof thumbprint);
    sim_node_set_identity(fixture.client.node, ENV_CERTIFICATE_EXPIRED, thumbprint, "old client");
    on_loop(&fixture, &fixture.server, do_listen, "n2:4500");
    on_loop(&fixture, &fixture.client, do_connect, "n2:4500");
    assert_true(wait_for(&fixture, both_open));
    assert_int_equal(fixture.server.peer.certificate, ENV_CERTIFICATE_EXPIRED);
    assert_memory_equal(fixture.server.peer.thumbprint, thumbprint, sizeof thumbprint);
    assert_string_equal(fixture.server.peer.subject, "old client");
    assert_non_null(strstr(fixture.server.peer.address, "n1:"));
    sim_default_thumbprint("n2", thumbprint);
    assert_int_equal(fixture.client.peer.certificate, ENV_CERTIFICATE_VALID);
    assert_memory_equal(fixture.client.peer.thumbprint, thumbprint, sizeof thumbprint);
    assert_string_equal(fixture.client.peer.address, "n2:4500");
    cleanup(&fixture);
}

/* ---- Ends ------------------------------------------------------------------------------------------------------- */

static void test_finish_delivers_everything_before_the_end(void **state) {
    (void)state;
    enum { LEN = 700 * 1000 };
    uint8_t *bytes = make_bytes(LEN);
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct fixture fixture;
        setup_open(&fixture, seed);
        send_bytes(&fixture, &fixture.client, bytes, LEN);
        on_loop(&fixture, &fixture.client, do_finish, NULL);
        assert_true(wait_for(&fixture, both_closed));
        assert_true(slice_equal(buf_slice(&fixture.server.input), slice_of(bytes, LEN)));
        assert_int_equal(fixture.server.error.code, STATUS_OK);
        assert_int_equal(fixture.client.error.code, STATUS_OK);
        cleanup(&fixture);
    }
    free(bytes);
}

static void test_close_with_unread_input_resets_the_peer(void **state) {
    (void)state;
    struct fixture fixture;
    setup_open(&fixture, 1);
    fixture.client.room_bytes = 0;
    send_bytes(&fixture, &fixture.server, "unread", 6);
    run_us(&fixture, SECOND);
    on_loop(&fixture, &fixture.client, do_close, NULL);
    assert_true(wait_for(&fixture, both_closed));
    assert_int_equal(fixture.client.error.code, STATUS_OK);
    assert_int_equal(fixture.server.error.code, STATUS_IO);
    assert_int_equal(fixture.server.error.sys, ECONNRESET);
    cleanup(&fixture);
}

static void test_orderly_close_ends_the_peer_without_error(void **state) {
    (void)state;
    struct fixture fixture;
    setup_open(&fixture, 1);
    on_loop(&fixture, &fixture.server, do_close, NULL);
    assert_true(wait_for(&fixture, both_closed));
    assert_int_equal(fixture.client.error.code, STATUS_OK);
    assert_int_equal(fixture.server.error.code, STATUS_OK);
    cleanup(&fixture);
}

static void test_reset_is_seen_by_both(void **state) {
    (void)state;
    struct fixture fixture;
    setup_open(&fixture, 1);
    sim_reset_connections(fixture.client.node, fixture.server.node);
    assert_true(wait_for(&fixture, both_closed));
    assert_int_equal(fixture.client.error.sys, ECONNRESET);
    assert_int_equal(fixture.server.error.sys, ECONNRESET);
    cleanup(&fixture);
}

static void test_random_resets_come_with_traffic(void **state) {
    (void)state;
    int resets = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct fixture fixture;
        setup_open(&fixture, seed);
        sim_network_options(fixture.sim)->reset_ppm = 50 * 1000;
        for (int i = 0; i < 10 && !fixture.client.closed; i++) {
            send_bytes(&fixture, &fixture.client, "ping", 4);
            run_us(&fixture, SECOND);
        }
        resets += fixture.client.closed && fixture.server.closed;
        cleanup(&fixture);
    }
    assert_in_range(resets, 3, 18);
}

/* ---- Connecting ------------------------------------------------------------------------------------------------- */

static void test_connect_without_listener_is_refused(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    on_loop(&fixture, &fixture.client, do_connect, "n2:1");
    assert_true(wait_for(&fixture, client_closed));
    assert_int_equal(fixture.client.error.sys, ECONNREFUSED);
    assert_false(fixture.client.opened);
    assert_true(sim_now_us(fixture.sim) < SECOND);
    cleanup(&fixture);
}

static void test_connect_to_a_dead_host_times_out(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    sim_node_crash(fixture.server.node, SIM_CRASH_POWER);
    uint64_t start_us = sim_now_us(fixture.sim);
    on_loop(&fixture, &fixture.client, do_connect, "n2:4500");
    assert_true(wait_for(&fixture, client_closed));
    assert_int_equal(fixture.client.error.sys, ETIMEDOUT);
    assert_in_range(sim_now_us(fixture.sim) - start_us, 5 * SECOND, 6 * SECOND);
    cleanup(&fixture);
}

static void test_second_connection_refused_by_the_owner_is_reset(void **state) {
    (void)state;
    struct fixture fixture;
    setup_open(&fixture, 1);
    struct side other = {0};
    buf_init(&other.input, alloc_system(), 0);
    side_init(&other, node_new(fixture.sim, "n3"));
    on_loop(&fixture, &other, do_connect, "n2:4500");
    run_us(&fixture, SECOND);
    assert_true(other.closed);
    assert_int_equal(other.error.sys, ECONNRESET);
    assert_false(fixture.server.closed);
    cleanup(&fixture);
}

static void test_listen_on_a_taken_address_fails(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    on_loop(&fixture, &fixture.server, do_listen, "n2:4500");
    struct env_listener *listener = NULL;
    struct error err;
    assert_int_equal(env_listen(sim_node_transport(fixture.server.node), fixture.server.loop, "n2:4500", on_accepted,
                                NULL, &listener, &err),
                     STATUS_IO);
    assert_int_equal(err.sys, EADDRINUSE);
    assert_int_equal(env_listen(sim_node_transport(fixture.server.node), fixture.server.loop, "n2:0", on_accepted, NULL,
                                &listener, &err),
                     STATUS_OK);
    assert_string_not_equal(env_listener_address(listener), "n2:0");
    env_listener_close(listener);
    env_listener_close(fixture.server.listener);
    on_loop(&fixture, &fixture.server, do_listen, "n2:4500");
    cleanup(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams_carry_bytes_in_order_both_ways),
        cmocka_unit_test(test_slow_reader_fills_the_queue_and_drains_it),
        cmocka_unit_test(test_peer_shows_the_identity_of_its_node),
        cmocka_unit_test(test_finish_delivers_everything_before_the_end),
        cmocka_unit_test(test_close_with_unread_input_resets_the_peer),
        cmocka_unit_test(test_orderly_close_ends_the_peer_without_error),
        cmocka_unit_test(test_reset_is_seen_by_both),
        cmocka_unit_test(test_random_resets_come_with_traffic),
        cmocka_unit_test(test_connect_without_listener_is_refused),
        cmocka_unit_test(test_connect_to_a_dead_host_times_out),
        cmocka_unit_test(test_second_connection_refused_by_the_owner_is_reset),
        cmocka_unit_test(test_listen_on_a_taken_address_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
