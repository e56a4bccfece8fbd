/*
 * Breaks when: bytes over TLS are lost, doubled or damaged under any cutting, pausing or back-pressure; the writes of a
 * turn don't share their record and their send, or a large one holds up a turn; `drained` is missed; an end is reported
 * as another one than it was, more than once, or before the data that came ahead of it; a failed allocation leaks or
 * crashes.
 */
#include "tests/unit/support/tls_raw.h"
#include "tests/unit/tls_fixture.h"

/* ---- Writing ------------------------------------------------------------------------------------------------- */

static void test_tls_writes_of_one_turn_leave_as_one(void **state) {
    (void)state;
    struct tls_pair pair;
    open_pair(&pair, 1);
    uint64_t writes = pair.world.writes;
    uint64_t sends = pair.world.sends;
    uint64_t bytes = pair.world.sent_bytes;
    for (int i = 0; i < 100; i++) {
        struct slice parts[2] = {slice_of("0123456789", 10), slice_of("abcdefghij", 10)};
        assert_int_equal(env_stream_write(pair.server.stream, parts, 2), STATUS_OK);
    }
    assert_true(env_stream_queued_bytes(pair.server.stream) == 2000);
    assert_true(pair.world.writes == writes);
    (void)memory_world_turn(&pair.world);
    assert_true(pair.world.writes == writes + 1);
    assert_true(pair.world.sends == sends + 1);
    assert_true(pair.world.sent_bytes == bytes + 2000 + 22); /* one record: header, type, tag */
    assert_int_equal(env_stream_queued_bytes(pair.server.stream), 0);
    memory_world_run(&pair.world);
    assert_int_equal(pair.client.got.len, 2000);
    assert_int_equal(pair.client.received, 1);
    tls_pair_deinit(&pair);
}

static void test_tls_bytes_written_before_the_handshake_leave_after_it(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", "n2", 1);
    tls_pair_connect(&pair);
    tls_side_write(&pair.client, "early", 5);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.got.len, 5);
    tls_pair_deinit(&pair);
}

/* Both sides say as much as they may, and listen now and then. */
enum { FLOOD_BYTES = 6 * 1000 * 1000 };

struct flood {
    struct tls_pair pair;
    struct random random;
    size_t written[2];
    unsigned full;
};

static struct flood *the_flood;

static uint8_t flood_byte(size_t at, size_t side) { return (uint8_t)(at * 7 + (at >> 9) + side); }

static void flood_write(struct tls_side *side) {
    struct flood *flood = the_flood;
    size_t which = side == &flood->pair.server;
    static uint8_t data[100 * 1000];
    while (flood->written[which] < FLOOD_BYTES && env_stream_queued_bytes(side->stream) < ENV_STREAM_HIGH_BYTES) {
        size_t len = 1 + (size_t)random_below(&flood->random, random_chance(&flood->random, 1, 2) ? 400 : sizeof data);
        for (size_t i = 0; i < len; i++) {
            data[i] = flood_byte(flood->written[which] + i, which);
        }
        tls_side_write(side, data, len);
        flood->written[which] += len;
    }
    flood->full += env_stream_queued_bytes(side->stream) >= ENV_STREAM_HIGH_BYTES;
    /* Small rooms, large rooms, none for a while. */
    side->room_bytes = random_chance(&flood->random, 1, 20) ? 0 : 1 + (size_t)random_below(&flood->random, 20000);
}

static void check_flood(uint64_t seed, size_t segment_bytes_max, size_t pipe_bytes_max) {
    struct flood *flood = calloc(1, sizeof *flood);
    assert_non_null(flood);
    the_flood = flood;
    random_seed(&flood->random, seed);
    struct tls_pair *pair = &flood->pair;
    tls_pair_init(pair, dir, "n1", "n2", seed);
    pair->world.segment_bytes_max = segment_bytes_max;
    pair->world.pipe_bytes_max = pipe_bytes_max;
    struct tls_side *sides[2] = {&pair->client, &pair->server};
    sides[0]->on_event = sides[1]->on_event = flood_write;
    tls_pair_connect(pair);
    do {
        memory_world_run(&pair->world);
        for (size_t i = 0; i < 2; i++) {
            sides[i]->room_bytes = 10000;
            env_stream_resume(sides[i]->stream);
        }
    } while (memory_world_turn(&pair->world));
    assert_true(flood->full > 2);
    for (size_t i = 0; i < 2; i++) {
        assert_true(sides[i]->drained > 0);
        assert_true(flood->written[i] >= FLOOD_BYTES);
        assert_int_equal(sides[1 - i]->got.len, flood->written[i]);
        for (size_t at = 0; at < flood->written[i]; at++) {
            if (sides[1 - i]->got.data[at] != flood_byte(at, i)) {
                fail_msg("byte %zu of side %zu is damaged", at, i);
            }
        }
        sides[i]->on_event = NULL;
    }
    assert_true(sides[0]->rooms_refused + sides[1]->rooms_refused > 0);
    tls_pair_deinit(pair);
    free(flood);
}

static void test_tls_floods_both_ways_arrive_intact(void **state) {
    (void)state;
    check_flood(1, 0, 64 * 1024);
    check_flood(2, 5000, 64 * 1024);
    check_flood(3, 40000, 20000);
    check_flood(4, 0, 4 * 1024 * 1024);
}

static void test_h55_tls_reader_that_stops_stops_the_writer(void **state) {
    (void)state;
    struct tls_pair pair;
    open_pair(&pair, 1);
    pair.client.room_bytes = 0;
    char block[10000] = {0};
    while (env_stream_queued_bytes(pair.server.stream) < ENV_STREAM_HIGH_BYTES) {
        tls_side_write(&pair.server, block, sizeof block);
        memory_world_run(&pair.world);
    }
    assert_int_equal(pair.server.drained, 0);
    assert_true(pair.client.got.len == 0);
    assert_true(pair.world.alloc.used_bytes < 512 * 1024);
    pair.client.room_bytes = 3000;
    env_stream_resume(pair.client.stream);
    assert_true(pair.client.got.len == 0); /* not from inside resume */
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.drained, 1);
    assert_true(pair.client.got.len >= ENV_STREAM_HIGH_BYTES);
    tls_pair_deinit(&pair);
}

static void test_tls_writer_that_filled_up_between_two_flushes_is_told(void **state) {
    (void)state;
    struct tls_pair pair;
    open_pair(&pair, 1);
    pair.client.room_bytes = 0;
    char *block = calloc(1, 700 * 1024);
    assert_non_null(block);
    tls_side_write(&pair.server, block, 700 * 1024);
    memory_world_run(&pair.world);
    /* Full with what waits here and in the inner stream, which then empties before it gets the rest. */
    tls_side_write(&pair.server, block, 500 * 1024);
    assert_true(env_stream_queued_bytes(pair.server.stream) >= ENV_STREAM_HIGH_BYTES);
    pair.world.pipe_bytes_max = 4 * 1024 * 1024;
    pair.client.room_bytes = 20000;
    env_stream_resume(pair.client.stream);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.drained, 1);
    assert_int_equal(pair.client.got.len, 1200 * 1024);
    free(block);
    tls_pair_deinit(&pair);
}

/* A frame with a value of 16 MiB isn't encrypted in one go, during which no heartbeat could leave, and is never there
 * twice. */
static void test_h23_tls_large_write_is_spread_over_turns(void **state) {
    (void)state;
    enum { LARGE_BYTES = 8 * 1024 * 1024, TURN_BYTES = ENV_STREAM_HIGH_BYTES + 256 * 1024 };
    struct tls_pair pair;
    open_pair(&pair, 1);
    pair.world.pipe_bytes_max = 64 * 1024 * 1024; /* the socket would take all of it */
    uint8_t *block = malloc(LARGE_BYTES);
    assert_non_null(block);
    for (size_t i = 0; i < LARGE_BYTES; i++) {
        block[i] = flood_byte(i, 1);
    }
    tls_side_write(&pair.server, block, LARGE_BYTES);
    size_t used_bytes = pair.world.alloc.used_bytes;
    uint64_t sent = pair.world.sent_bytes;
    unsigned turns = 0;
    while (memory_world_turn(&pair.world)) {
        assert_true(pair.world.sent_bytes - sent <= TURN_BYTES);
        assert_true(env_stream_queued_bytes(pair.server.stream) <= LARGE_BYTES + TURN_BYTES / 16);
        turns += pair.world.sent_bytes > sent;
        sent = pair.world.sent_bytes;
    }
    assert_true(turns >= 6);
    assert_int_equal(pair.client.got.len, LARGE_BYTES);
    assert_memory_equal(pair.client.got.data, block, LARGE_BYTES);
    assert_int_equal(env_stream_queued_bytes(pair.server.stream), 0);
    assert_int_equal(pair.server.drained, 1);
    assert_true(used_bytes < 20 * 1024 * 1024);
    free(block);
    tls_pair_deinit(&pair);
}

/* ---- Ends ---------------------------------------------------------------------------------------------------- */

static void test_tls_finish_sends_what_is_queued_and_both_end_orderly(void **state) {
    (void)state;
    struct tls_pair pair;
    open_pair(&pair, 1);
    pair.world.pipe_bytes_max = 3000;
    char *block = calloc(1, 300 * 1000);
    assert_non_null(block);
    tls_side_write(&pair.client, block, 300 * 1000);
    env_stream_finish(pair.client.stream);
    assert_int_equal(env_stream_write(pair.client.stream, &(struct slice){(const uint8_t *)"x", 1}, 1), STATUS_CLOSED);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.got.len, 300 * 1000);
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(pair.server.error.code, STATUS_OK);
    assert_int_equal(pair.client.closed, 1);
    assert_int_equal(pair.client.error.code, STATUS_OK);
    free(block);
    tls_pair_deinit(&pair);
}

static void test_tls_answer_to_a_finished_peer_still_leaves(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    struct tls_raw raw;
    tls_raw_init(&raw, &pair.world, TLS1_3_VERSION);
    memory_world_run(&pair.world);
    tls_side_write(&pair.server, "answer", 6);
    assert_int_equal(SSL_shutdown(raw.ssl), 0); /* close_notify, and still listening */
    tls_raw_pump(&raw);
    memory_world_run(&pair.world);
    assert_int_equal(raw.got.len, 6);
    assert_int_equal(SSL_get_shutdown(raw.ssl), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(pair.server.error.code, STATUS_OK);
    assert_int_equal(raw.closed, 1);
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

static void test_tls_end_without_close_notify_is_not_orderly(void **state) {
    (void)state;
    struct tls_pair pair;
    open_pair(&pair, 1);
    tls_side_write(&pair.client, "half", 4);
    (void)memory_world_turn(&pair.world);
    env_stream_close(pair.client.stream);
    memory_world_run(&pair.world);
    assert_int_equal(pair.client.error.code, STATUS_OK);
    assert_int_equal(pair.server.got.len, 4);
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(pair.server.error.code, STATUS_CLOSED);
    assert_non_null(strstr(pair.server.error.message, "without close_notify"));
    tls_pair_deinit(&pair);
}

/* ends: 0 finish, 1 close, 2 reset. */
static void check_paused_until_after_the_end(int ends, enum status expected) {
    struct tls_pair pair;
    open_pair(&pair, 1);
    pair.server.room_bytes = 0;
    char block[5000] = {0};
    tls_side_write(&pair.client, block, sizeof block);
    memory_world_run(&pair.world);
    assert_true(pair.server.rooms_refused > 0);
    if (ends == 0) {
        env_stream_finish(pair.client.stream);
    } else if (ends == 1) {
        env_stream_close(pair.client.stream);
    } else {
        memory_streams_reset(&pair.world);
    }
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.got.len, 0);
    assert_int_equal(pair.server.closed, 0);
    assert_int_equal(env_stream_write(pair.server.stream, &(struct slice){(const uint8_t *)"x", 1}, 1), STATUS_CLOSED);
    pair.server.room_bytes = 100;
    env_stream_resume(pair.server.stream);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.got.len, sizeof block);
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(pair.server.error.code, expected);
    tls_pair_deinit(&pair);
}

static void test_tls_data_before_any_end_waits_for_a_paused_owner(void **state) {
    (void)state;
    check_paused_until_after_the_end(0, STATUS_OK);
    check_paused_until_after_the_end(1, STATUS_CLOSED);
    check_paused_until_after_the_end(2, STATUS_IO);
}

static void test_tls_close_notify_counts_for_more_than_a_reset_behind_it(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    struct tls_raw raw;
    tls_raw_init(&raw, &pair.world, TLS1_3_VERSION);
    memory_world_run(&pair.world);
    pair.server.room_bytes = 0;
    assert_int_equal(SSL_write(raw.ssl, "last words", 10), 10);
    assert_int_equal(SSL_shutdown(raw.ssl), 0);
    tls_raw_pump(&raw);
    memory_world_run(&pair.world);
    memory_streams_reset(&pair.world);
    memory_world_run(&pair.world);
    assert_int_equal(raw.closed, 1);
    assert_int_equal(pair.server.closed, 0);
    pair.server.room_bytes = 100;
    env_stream_resume(pair.server.stream);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.got.len, 10);
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(pair.server.error.code, STATUS_OK);
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

static void test_tls_owner_that_closes_while_data_waits_after_the_end_gets_closed(void **state) {
    (void)state;
    for (int finish = 0; finish <= 1; finish++) {
        struct tls_pair pair;
        open_pair(&pair, 1);
        pair.server.room_bytes = 0;
        tls_side_write(&pair.client, "data", 4);
        env_stream_finish(pair.client.stream);
        memory_world_run(&pair.world);
        assert_int_equal(pair.server.closed, 0);
        if (finish) {
            env_stream_finish(pair.server.stream);
        } else {
            env_stream_close(pair.server.stream);
        }
        assert_int_equal(pair.server.closed, 0);
        memory_world_run(&pair.world);
        assert_int_equal(pair.server.closed, 1);
        assert_int_equal(pair.server.got.len, 0);
        tls_pair_deinit(&pair);
    }
}

static void test_tls_closed_from_received_hears_no_more(void **state) {
    (void)state;
    struct tls_pair pair;
    open_pair(&pair, 1);
    pair.server.close_on_received = true;
    pair.server.room_bytes = 10;
    char block[1000] = {0};
    tls_side_write(&pair.client, block, sizeof block);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.received, 1);
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(pair.server.error.code, STATUS_OK);
    tls_pair_deinit(&pair);
}

static void test_tls_closed_or_finished_before_the_handshake_says_so_once(void **state) {
    (void)state;
    for (int turns = 0; turns < 3; turns++) {
        for (int finish = 0; finish <= 1; finish++) {
            struct tls_pair pair;
            tls_pair_init(&pair, dir, "n1", "n2", 1);
            tls_pair_connect(&pair);
            for (int i = 0; i < turns; i++) {
                (void)memory_world_turn(&pair.world);
            }
            assert_int_equal(pair.client.opened, 0);
            if (finish) {
                env_stream_finish(pair.client.stream);
            } else {
                env_stream_close(pair.client.stream);
            }
            memory_world_run(&pair.world);
            assert_int_equal(pair.client.opened, 0);
            assert_int_equal(pair.client.closed, 1);
            assert_int_equal(pair.server.opened, 0);
            assert_int_equal(pair.server.closed, 1);
            assert_int_equal(pair.rejected, 1);
            tls_pair_deinit(&pair);
        }
    }
}

/* ---- Failing memory ------------------------------------------------------------------------------------------ */

/* A handshake and some bytes both ways; true if nothing failed. */
static bool exchange(struct tls_pair *pair) {
    pair->server.got.len = pair->client.got.len = 0;
    struct env_stream *stream = NULL;
    pair->client.opened = pair->client.closed = 0;
    enum status status = env_connect(tls_context_transport(pair->client_context), &pair->world.loop, "there",
                                     &pair->client.handler, &stream, NULL);
    if (status != STATUS_OK) {
        assert_int_equal(status, STATUS_NO_MEMORY);
        return false;
    }
    pair->client.stream = stream;
    pair->client.say_on_opened = "hello";
    pair->server.say_on_opened = "hello";
    memory_world_run(&pair->world);
    bool ok = pair->client.got.len == 5 && pair->server.got.len == 5;
    if (pair->client.stream != NULL) {
        env_stream_finish(pair->client.stream);
    }
    memory_world_run(&pair->world);
    if (pair->server.stream != NULL) {
        env_stream_close(pair->server.stream);
    }
    memory_world_run(&pair->world);
    assert_null(pair->client.stream);
    assert_null(pair->server.stream);
    return ok;
}

static void test_tls_with_each_allocation_failing_ends_cleanly(void **state) {
    (void)state;
    bool ok = false;
    unsigned failed = 0;
    for (uint64_t nth = 1; !ok; nth++) {
        struct tls_pair pair;
        tls_pair_init(&pair, dir, "n1", "n2", 1);
        pair.world.alloc.calls = 0;
        pair.world.alloc.fail_at = nth;
        ok = exchange(&pair);
        bool reached = pair.world.alloc.calls >= nth;
        pair.world.alloc.fail_at = 0;
        tls_pair_deinit(&pair);
        assert_true(ok || reached);
        ok = ok && !reached;
        failed++;
        assert_true(nth < 200);
    }
    assert_true(failed > 10);
}

static void test_tls_context_with_each_allocation_failing_is_refused(void **state) {
    (void)state;
    struct memory_world world;
    memory_world_init(&world, 1);
    char ca[600];
    char cert[600];
    char key[600];
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", dir);
    (void)snprintf(cert, sizeof cert, "%s/n1.crt", dir);
    (void)snprintf(key, sizeof key, "%s/n1.key", dir);
    static const uint8_t expected[1][ENV_THUMBPRINT_BYTES];
    struct tls_options options = {.ca_file = ca,
                                  .cert_file = cert,
                                  .key_file = key,
                                  .handshake_timeout_us = 1,
                                  .handshakes_per_turn = 1,
                                  .expected = expected,
                                  .expected_count = 1};
    struct tls_context *context = NULL;
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t nth = 1; status != STATUS_OK; nth++) {
        world.alloc.calls = 0;
        world.alloc.fail_at = nth;
        status = tls_context_new(&world.env, &world.transport, &options, &context, NULL);
        assert_true(status == STATUS_OK ? world.alloc.calls < nth : status == STATUS_NO_MEMORY);
    }
    tls_context_free(context);
    tls_context_free(NULL);
    memory_world_deinit(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls_writes_of_one_turn_leave_as_one),
        cmocka_unit_test(test_tls_bytes_written_before_the_handshake_leave_after_it),
        cmocka_unit_test(test_tls_floods_both_ways_arrive_intact),
        cmocka_unit_test(test_h55_tls_reader_that_stops_stops_the_writer),
        cmocka_unit_test(test_tls_writer_that_filled_up_between_two_flushes_is_told),
        cmocka_unit_test(test_h23_tls_large_write_is_spread_over_turns),
        cmocka_unit_test(test_tls_finish_sends_what_is_queued_and_both_end_orderly),
        cmocka_unit_test(test_tls_answer_to_a_finished_peer_still_leaves),
        cmocka_unit_test(test_tls_end_without_close_notify_is_not_orderly),
        cmocka_unit_test(test_tls_data_before_any_end_waits_for_a_paused_owner),
        cmocka_unit_test(test_tls_close_notify_counts_for_more_than_a_reset_behind_it),
        cmocka_unit_test(test_tls_owner_that_closes_while_data_waits_after_the_end_gets_closed),
        cmocka_unit_test(test_tls_closed_from_received_hears_no_more),
        cmocka_unit_test(test_tls_closed_or_finished_before_the_handshake_says_so_once),
        cmocka_unit_test(test_tls_with_each_allocation_failing_ends_cleanly),
        cmocka_unit_test(test_tls_context_with_each_allocation_failing_is_refused),
    };
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
