/*
 * Simulated streams under faults: partitions, resets, crashes, all at once.
 *
 * Would break these: a partition that lets bytes through, or holds the other direction; an orderly end, or later bytes,
 * behind bytes that were lost; a crash that peers don't learn of; a power loss that they do; a run that its seed
 * doesn't fix.
 */
#include "tests/unit/sim_network_fixture.h"

/* ---- Partitions and crashes ------------------------------------------------------------------------------------- */

static void test_partition_holds_bytes_until_it_heals(void **state) {
    (void)state;
    struct fixture fixture;
    setup_open(&fixture, 1);
    sim_partition(fixture.client.node, fixture.server.node);
    send_bytes(&fixture, &fixture.client, "held", 4);
    send_bytes(&fixture, &fixture.server, "back", 4);
    run_us(&fixture, 5 * SECOND);
    assert_int_equal(fixture.server.input.len, 0);
    assert_int_equal(fixture.client.input.len, 0);
    sim_heal(fixture.client.node, fixture.server.node);
    run_us(&fixture, 3 * SECOND);
    assert_true(slice_equal(buf_slice(&fixture.server.input), slice_of_string("held")));
    assert_true(slice_equal(buf_slice(&fixture.client.input), slice_of_string("back")));
    assert_false(fixture.client.closed || fixture.server.closed);
    cleanup(&fixture);
}

static void test_one_way_partition_holds_one_direction(void **state) {
    (void)state;
    struct fixture fixture;
    setup_open(&fixture, 1);
    sim_link_set(fixture.client.node, fixture.server.node, false);
    send_bytes(&fixture, &fixture.client, "held", 4);
    send_bytes(&fixture, &fixture.server, "passes", 6);
    run_us(&fixture, SECOND);
    assert_int_equal(fixture.server.input.len, 0);
    assert_true(slice_equal(buf_slice(&fixture.client.input), slice_of_string("passes")));
    sim_heal_all(fixture.sim);
    run_us(&fixture, 3 * SECOND);
    assert_int_equal(fixture.server.input.len, 4);
    cleanup(&fixture);
}

static void test_long_partition_ends_the_sender_and_the_peer_only_when_it_speaks(void **state) {
    (void)state;
    struct fixture fixture;
    setup_open(&fixture, 1);
    sim_partition(fixture.client.node, fixture.server.node);
    send_bytes(&fixture, &fixture.client, "held", 4);
    assert_true(wait_for(&fixture, client_closed));
    assert_int_equal(fixture.client.error.sys, ETIMEDOUT);
    assert_in_range(sim_now_us(fixture.sim), 10 * SECOND, 21 * SECOND);
    sim_heal_all(fixture.sim);
    run_us(&fixture, 60 * (uint64_t)SECOND);
    assert_false(fixture.server.closed); /* above all not with an orderly end: bytes are missing */
    assert_int_equal(fixture.server.input.len, 0);
    send_bytes(&fixture, &fixture.server, "anybody?", 8);
    assert_true(wait_for(&fixture, server_closed));
    assert_int_equal(fixture.server.error.sys, ECONNRESET);
    cleanup(&fixture);
}

static void test_process_crash_ends_the_peer_soon(void **state) {
    (void)state;
    int orderly = 0, reset = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct fixture fixture;
        setup_open(&fixture, seed);
        sim_node_crash(fixture.server.node, SIM_CRASH_PROCESS);
        uint64_t start_us = sim_now_us(fixture.sim);
        assert_true(wait_for(&fixture, client_closed));
        assert_true(sim_now_us(fixture.sim) - start_us < SECOND);
        orderly += fixture.client.error.code == STATUS_OK;
        reset += fixture.client.error.sys == ECONNRESET;
        cleanup(&fixture);
    }
    assert_int_equal(orderly + reset, 20);
    assert_true(orderly > 0 && reset > 0);
}

static void test_power_loss_is_silent_until_the_node_is_back(void **state) {
    (void)state;
    struct fixture fixture;
    setup_open(&fixture, 1);
    sim_node_crash(fixture.server.node, SIM_CRASH_POWER);
    run_us(&fixture, 60 * (uint64_t)SECOND);
    assert_false(fixture.client.closed); /* it said nothing, so it learned nothing */
    send_bytes(&fixture, &fixture.client, "hello?", 6);
    run_us(&fixture, 5 * SECOND);
    assert_false(fixture.client.closed);
    sim_node_start(fixture.server.node);
    assert_true(wait_for(&fixture, client_closed));
    assert_int_equal(fixture.client.error.sys, ECONNRESET);
    cleanup(&fixture);
}

/* ---- Everything at once ----------------------------------------------------------------------------------------- */

/* More of the pattern than the pipe takes, now and then. */
static void send_pattern(struct fixture *fixture, struct side *side) {
    size_t len = 1 + sim_random(fixture->sim) % (sim_random(fixture->sim) % 4 == 0 ? 400000 : 3000);
    uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = pattern_at(side->sent + i);
    }
    if (env_stream_queued_bytes(side->stream) < ENV_STREAM_HIGH_BYTES && !side->closed) {
        struct slice slice = slice_of(bytes, len);
        on_loop(fixture, side, do_try_write, &slice);
    }
    free(bytes);
}

/* Bytes that were dropped must not be followed by later ones: races around the moment of a reset. */
static void test_nothing_arrives_behind_a_reset(void **state) {
    (void)state;
    uint64_t arrived = 0;
    uint64_t dropped = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct fixture fixture;
        setup_open(&fixture, seed);
        fixture.server.wants_pattern = true;
        sim_network_options(fixture.sim)->delay_us_max = 3000;
        sim_node_pause(fixture.server.node); /* its kernel receives, nobody reads */
        for (int i = 0; i < 20 && fixture.client.stream != NULL; i++) {
            send_pattern(&fixture, &fixture.client);
            if (i == 5) {
                sim_reset_connections(fixture.client.node, fixture.server.node);
            }
            run_us(&fixture, 200);
        }
        sim_node_resume(fixture.server.node);
        assert_true(wait_for(&fixture, both_closed));
        arrived += fixture.server.received;
        dropped += fixture.client.sent - fixture.server.received;
        cleanup(&fixture);
    }
    assert_true(arrived > 0 && dropped > 0);
}

static void heal(void *context) { sim_heal_all(context); }

static void test_nothing_arrives_behind_what_a_sender_gave_up(void **state) {
    (void)state;
    uint64_t gave_up = 0;
    uint64_t arrived = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct fixture fixture;
        setup_open(&fixture, seed);
        fixture.server.wants_pattern = true;
        sim_network_options(fixture.sim)->delay_us_max = SECOND;
        sim_network_options(fixture.sim)->silence_timeout_us = SECOND;
        sim_network_options(fixture.sim)->heal_backoff_us_max = 1000;
        sim_partition(fixture.client.node, fixture.server.node);
        sim_call_at(fixture.sim, 2 * SECOND + sim_random(fixture.sim) % (3 * SECOND / 2), heal, fixture.sim);
        while (fixture.client.stream != NULL && sim_now_us(fixture.sim) < 5 * SECOND) {
            send_pattern(&fixture, &fixture.client);
            run_us(&fixture, 50 * 1000);
        }
        gave_up += fixture.client.stream == NULL;
        run_us(&fixture, SECOND);
        arrived += fixture.server.received;
        cleanup(&fixture);
    }
    assert_true(gave_up > 0 && arrived > 0);
}

static bool server_opened(void *context) { return ((struct fixture *)context)->server.opened; }

static void test_connection_of_a_dead_process_is_not_given_to_its_successor(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct fixture fixture;
        setup(&fixture, seed);
        on_loop(&fixture, &fixture.server, do_listen, "n2:4500");
        on_loop(&fixture, &fixture.client, do_connect, "n2:4500");
        assert_true(wait_for(&fixture, server_opened));
        sim_partition(fixture.client.node, fixture.server.node);
        sim_node_crash(fixture.server.node, SIM_CRASH_PROCESS);
        sim_node_start(fixture.server.node);
        side_init(&fixture.server, fixture.server.node);
        on_loop(&fixture, &fixture.server, do_listen, "n2:4500");
        run_us(&fixture, SECOND);
        sim_heal_all(fixture.sim);
        run_us(&fixture, SECOND);
        assert_false(fixture.server.opened);
        if (!fixture.client.closed) { /* it learns when it speaks */
            send_bytes(&fixture, &fixture.client, "?", 1);
            assert_true(wait_for(&fixture, client_closed));
            assert_int_equal(fixture.client.error.sys, ECONNRESET);
        }
        cleanup(&fixture);
    }
}

static void chaos_fault(struct fixture *fixture) {
    struct sim *sim = fixture->sim;
    struct side *client = &fixture->client;
    struct side *server = &fixture->server;
    struct side *either = sim_random(sim) % 2 == 0 ? client : server;
    switch (sim_random(sim) % 10) {
    case 0: sim_partition(client->node, server->node); break;
    case 1: sim_link_set(client->node, server->node, false); break;
    case 2: sim_link_set(server->node, client->node, false); break;
    case 3: sim_reset_connections(client->node, server->node); break;
    case 4:
        sim_node_crash(server->node, sim_random(sim) % 2 == 0 ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
        sim_node_start(server->node);
        side_init(server, server->node);
        break;
    case 5:
        if (either->stream != NULL) {
            on_loop(fixture, either, sim_random(sim) % 2 == 0 ? do_try_close : do_try_finish, NULL);
        }
        break;
    case 6:
        sim_node_pause(either->node);
        run_us(fixture, SECOND / 4);
        sim_node_resume(either->node);
        break;
    default: sim_heal_all(sim); break;
    }
}

/* Whatever happens, what a stream brings is a prefix of what was sent into it. */
static uint64_t chaos_run(uint64_t seed, size_t *received) {
    struct fixture fixture;
    setup(&fixture, seed);
    struct sim *sim = fixture.sim;
    sim_network_options(sim)->reset_ppm = 500;
    sim_network_options(sim)->silence_timeout_us = SECOND;
    for (int round = 0; round < 150; round++) {
        struct side *client = &fixture.client;
        struct side *server = &fixture.server;
        client->wants_pattern = true;
        server->wants_pattern = true;
        if (server->listener == NULL) {
            on_loop(&fixture, server, do_listen, "n2:4500");
        }
        if (client->stream == NULL) {
            side_forget(client);
            on_loop(&fixture, client, do_connect, "n2:4500");
        }
        run_us(&fixture, 1000 + sim_random(sim) % (sim_random(sim) % 8 == 0 ? 3 * SECOND : 20000));
        if (client->stream != NULL && client->opened) {
            send_pattern(&fixture, client);
        }
        if (server->stream != NULL && server->opened) {
            send_pattern(&fixture, server);
        }
        chaos_fault(&fixture);
    }
    uint64_t hash = sim_hash(sim);
    *received = fixture.client.received_before + fixture.client.received;
    cleanup(&fixture);
    return hash;
}

static void test_streams_under_faults_bring_prefixes_and_runs_repeat(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        size_t received = 0;
        uint64_t hash = chaos_run(seed, &received);
        assert_true(received > 100 * 1000);
        assert_int_equal(hash, chaos_run(seed, &received));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partition_holds_bytes_until_it_heals),
        cmocka_unit_test(test_one_way_partition_holds_one_direction),
        cmocka_unit_test(test_long_partition_ends_the_sender_and_the_peer_only_when_it_speaks),
        cmocka_unit_test(test_process_crash_ends_the_peer_soon),
        cmocka_unit_test(test_power_loss_is_silent_until_the_node_is_back),
        cmocka_unit_test(test_nothing_arrives_behind_a_reset),
        cmocka_unit_test(test_nothing_arrives_behind_what_a_sender_gave_up),
        cmocka_unit_test(test_connection_of_a_dead_process_is_not_given_to_its_successor),
        cmocka_unit_test(test_streams_under_faults_bring_prefixes_and_runs_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
