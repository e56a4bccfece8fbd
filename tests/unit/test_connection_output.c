/*
 * Breaks when: a frame arrives otherwise than it was sent, or beyond its limits; the frames of a turn don't leave
 * together; output isn't bounded or `drained` is missed; it isn't told how much of it has left; a failed allocation
 * leaks or crashes.
 */
#include "proto/wire.pb-c.h"
#include "tests/unit/support/connection_ends.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- Output -------------------------------------------------------------------------------------------------- */

static void test_connection_message_and_raw_parts_arrive_as_sent(void **state) {
    struct ends_fixture *fixture = *state;
    struct connection_end *end = &fixture->ends[0];
    ends_connect_pair(fixture);
    char key[2000]; /* more than the stack holds */
    memset(key, 'k', sizeof key);
    Wire__PutRequest request = WIRE__PUT_REQUEST__INIT;
    request.has_key = true;
    request.key = (ProtobufCBinaryData){.data = (uint8_t *)key, .len = sizeof key};
    struct slice parts[20];
    for (size_t i = 0; i < 20; i++) {
        parts[i] = slice_of(&"abcdefghijklmnopqrst"[i], 1);
    }
    for (int round = 0; round < 3; round++) {
        request.key.len = round == 0 ? 3 : sizeof key;
        size_t part_count = round == 1 ? 0 : 20;
        buf_clear(&end->messages);
        buf_clear(&end->raw);
        assert_int_equal(connection_send(fixture->ends[1].connection, FRAME_PUT, 9, &request.base, parts, part_count),
                         STATUS_OK);
        memory_world_run(&fixture->world);
        assert_int_equal(end->last_type, FRAME_PUT);
        assert_int_equal(end->raw.len, part_count);
        if (part_count > 0) {
            assert_memory_equal(end->raw.data, "abcdefghijklmnopqrst", 20);
        }
        struct arena arena;
        arena_init(&arena, alloc_system(), 1024, LIMIT_UNPACK_BUDGET_BYTES);
        ProtobufCMessage *message = wire_unpack(&arena, &wire__put_request__descriptor, buf_slice(&end->messages));
        assert_non_null(message);
        assert_int_equal(((const Wire__PutRequest *)(const void *)message)->key.len, request.key.len);
        arena_deinit(&arena);
    }
}

static void test_connection_frames_of_one_turn_leave_in_one_send(void **state) {
    struct ends_fixture *fixture = *state;
    ends_connect_pair(fixture);
    uint64_t sends = fixture->world.sends;
    for (uint64_t id = 0; id < 100; id++) {
        assert_int_equal(connection_send(fixture->ends[1].connection, FRAME_PING, id, NULL, NULL, 0), STATUS_OK);
    }
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].frame_count, 100);
    assert_int_equal(fixture->world.sends - sends, 1);
}

static void test_connection_send_beyond_the_limits_is_refused(void **state) {
    struct ends_fixture *fixture = *state;
    ends_connect_pair(fixture);
    uint64_t writes = fixture->world.writes;
    struct slice huge[2] = {slice_of("", 1), slice_of("", LIMIT_FRAME_RAW_BYTES)};
    assert_int_equal(connection_send(fixture->ends[1].connection, FRAME_PUT, 1, NULL, huge, 2), STATUS_TOO_LARGE);
    huge[0].len = SIZE_MAX;
    assert_int_equal(connection_send(fixture->ends[1].connection, FRAME_PUT, 1, NULL, huge, 2), STATUS_TOO_LARGE);
    uint8_t *key = calloc(1, LIMIT_FRAME_MESSAGE_BYTES);
    Wire__PutRequest request = WIRE__PUT_REQUEST__INIT;
    request.has_key = true;
    request.key = (ProtobufCBinaryData){.data = key, .len = LIMIT_FRAME_MESSAGE_BYTES};
    assert_int_equal(connection_send(fixture->ends[1].connection, FRAME_PUT, 1, &request.base, NULL, 0),
                     STATUS_TOO_LARGE);
    free(key);
    assert_true(fixture->world.writes == writes);
}

static void test_h55_connection_full_says_so_and_drains_once(void **state) {
    struct ends_fixture *fixture = *state;
    struct connection_end *sender = &fixture->ends[1];
    ends_connect_pair(fixture);
    connection_pause(fixture->ends[0].connection);
    uint8_t *data = calloc(1, 64 * 1024);
    struct slice raw = slice_of(data, 64 * 1024);
    unsigned sent = 0;
    while (!connection_is_full(sender->connection)) {
        assert_int_equal(connection_send(sender->connection, FRAME_PUT, sent++, NULL, &raw, 1), STATUS_OK);
        memory_world_run(&fixture->world);
        assert_true(sent < 100);
    }
    assert_int_equal(sender->drained, 0);
    /* It still takes what the owner can't hold back. */
    assert_int_equal(connection_send(sender->connection, FRAME_PUT, sent++, NULL, &raw, 1), STATUS_OK);
    connection_resume(fixture->ends[0].connection);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].frame_count, sent);
    assert_int_equal(sender->drained, 1);
    assert_false(connection_is_full(sender->connection));
    free(data);
}

/* That bytes get on, though the frame isn't through and nothing comes back. */
static void test_connection_output_that_leaves_is_counted(void **state) {
    struct ends_fixture *fixture = *state;
    enum { FRAME_BYTES = FRAME_HEADER_BYTES + 300 * 1024, PIPE_BYTES = 64 * 1024 };
    ends_connect_pair(fixture);
    struct connection *sender = fixture->ends[1].connection;
    uint64_t before = connection_left_bytes(sender);
    uint8_t *data = calloc(1, FRAME_BYTES);
    struct slice raw = slice_of(data, FRAME_BYTES - FRAME_HEADER_BYTES);
    assert_int_equal(connection_send(fixture->ends[1].connection, FRAME_PING, 1, NULL, NULL, 0), STATUS_OK);
    connection_pause(fixture->ends[0].connection);
    fixture->world.pipe_bytes_max = PIPE_BYTES;
    memory_world_run(&fixture->world);
    assert_int_equal(connection_left_bytes(sender) - before, FRAME_HEADER_BYTES);
    before = connection_left_bytes(sender);
    assert_int_equal(connection_send(sender, FRAME_PUT, 2, NULL, &raw, 1), STATUS_OK);
    assert_int_equal(connection_left_bytes(sender), before);
    assert_int_equal(connection_queued_bytes(sender), FRAME_BYTES);
    memory_world_run(&fixture->world);
    assert_int_equal(connection_left_bytes(sender) - before, PIPE_BYTES);
    memory_world_run(&fixture->world); /* nothing moves */
    assert_int_equal(connection_left_bytes(sender) - before, PIPE_BYTES);
    fixture->world.pipe_bytes_max += 1000;
    memory_world_run(&fixture->world);
    assert_int_equal(connection_left_bytes(sender) - before, PIPE_BYTES + 1000);
    connection_resume(fixture->ends[0].connection);
    memory_world_run(&fixture->world);
    assert_int_equal(connection_left_bytes(sender) - before, FRAME_BYTES);
    assert_int_equal(connection_queued_bytes(sender), 0);
    free(data);
}

/* ---- Failing memory ------------------------------------------------------------------------------------------ */

/* One exchange in which every step may fail; true if nothing did. */
static bool exchange(struct ends_fixture *fixture) {
    bool ok = false;
    struct connection_end *end = ends_new(fixture, 1);
    if (end == NULL) {
        return false;
    }
    struct env_stream *stream;
    assert_int_equal(env_connect(&fixture->world.transport, &fixture->world.loop, "there",
                                 connection_stream_handler(end->connection), &stream, NULL),
                     STATUS_OK);
    connection_attach(end->connection, stream);
    memory_world_run(&fixture->world);
    static uint8_t data[100 * 1000];
    struct slice parts[10];
    for (size_t i = 0; i < 10; i++) {
        parts[i] = slice_of(data, sizeof data / 10);
    }
    Wire__PutRequest request = WIRE__PUT_REQUEST__INIT;
    request.has_key = true;
    request.key = (ProtobufCBinaryData){.data = data, .len = 2000};
    if (end->connection != NULL) {
        enum status status = connection_send(end->connection, FRAME_PUT, 1, &request.base, parts, 10);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        ok = status == STATUS_OK;
        memory_world_run(&fixture->world);
    }
    ok = ok && fixture->ends[0].frame_count == 1 && end->connection != NULL;
    for (int i = 0; i < ENDS_MAX; i++) {
        if (fixture->ends[i].connection != NULL) {
            connection_close(fixture->ends[i].connection);
        }
    }
    memory_world_run(&fixture->world);
    return ok;
}

static void test_connection_with_each_allocation_failing_ends_cleanly(void **state) {
    struct ends_fixture *fixture = *state;
    bool ok = false;
    unsigned failed = 0;
    for (uint64_t nth = 1; !ok; nth++) {
        fixture->ends[0].frame_count = 0;
        fixture->ends[0].closed = fixture->ends[1].closed = 0;
        buf_clear(&fixture->ends[0].raw);
        fixture->world.alloc.calls = 0;
        fixture->world.alloc.fail_at = nth;
        ok = exchange(fixture);
        assert_true(ok == (fixture->world.alloc.calls < nth));
        failed += !ok;
        assert_true(nth < 100);
    }
    assert_true(failed >= 6);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ends_setup, ends_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_connection_message_and_raw_parts_arrive_as_sent),
        TEST(test_connection_frames_of_one_turn_leave_in_one_send),
        TEST(test_connection_send_beyond_the_limits_is_refused),
        TEST(test_h55_connection_full_says_so_and_drains_once),
        TEST(test_connection_output_that_leaves_is_counted),
        TEST(test_connection_with_each_allocation_failing_ends_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
