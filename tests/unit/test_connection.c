/*
 * Breaks when: a frame is lost, doubled or delivered out of order however its bytes are cut; a length is trusted before
 * its bytes came; a paused connection delivers or reads on; a callback that finishes or closes the connection is
 * followed by another one; output isn't bounded or `drained` is missed; closed doesn't run exactly once, or a failed
 * allocation leaks or crashes.
 */
#include "proto/connection.h"

#include "node/base/buf.h"
#include "node/base/check.h"
#include "proto/wire.pb-c.h"
#include "tests/unit/support/memory_net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct connection_limits limits_full = {LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES};

/* ---- One end that is a connection, and one that writes raw bytes ------------------------------------------------- */

enum { ENDS_MAX = 2, FRAMES_MAX = 4096 };

enum on_frame { ON_FRAME_NOTHING, ON_FRAME_PAUSE, ON_FRAME_FINISH, ON_FRAME_CLOSE, ON_FRAME_ECHO };

struct end {
    struct connection_handler handler;
    struct connection *connection;
    enum on_frame on_frame;
    unsigned opened;
    unsigned drained;
    unsigned closed;
    struct error error;
    size_t frame_count;
    uint64_t ids[FRAMES_MAX];
    uint8_t last_type;
    struct buf messages; /* of all frames */
    struct buf raw;
};

struct raw_end {
    struct env_stream_handler handler;
    struct env_stream *stream;
    struct buf got;
    uint8_t room[64 * 1024];
    bool opened;
    bool deaf;
    unsigned closed;
};

struct fixture {
    struct memory_world world;
    struct env_listener *listener;
    struct connection_limits limits;
    struct end ends[ENDS_MAX];
    struct raw_end raw;
};

static void end_opened(struct connection_handler *handler) { CONTAINER_OF(handler, struct end, handler)->opened++; }
static void end_drained(struct connection_handler *handler) { CONTAINER_OF(handler, struct end, handler)->drained++; }

static void end_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    assert_int_equal(end->closed, 0);
    assert_true(end->frame_count < FRAMES_MAX);
    end->ids[end->frame_count++] = frame->request_id;
    end->last_type = frame->type;
    assert_int_equal(buf_append(&end->messages, frame->message.data, frame->message.len), STATUS_OK);
    assert_int_equal(buf_append(&end->raw, frame->raw.data, frame->raw.len), STATUS_OK);
    switch (end->on_frame) {
    case ON_FRAME_NOTHING: break;
    case ON_FRAME_PAUSE: connection_pause(end->connection); break;
    case ON_FRAME_FINISH: connection_finish(end->connection); break;
    case ON_FRAME_CLOSE: connection_close(end->connection); break;
    case ON_FRAME_ECHO:
        assert_int_equal(connection_send(end->connection, FRAME_PONG, frame->request_id, NULL, &frame->raw, 1),
                         STATUS_OK);
        break;
    }
}

static void end_closed(struct connection_handler *handler, const struct error *err) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    end->closed++;
    end->error = *err;
    /* Late calls do no harm. */
    connection_resume(end->connection);
    connection_close(end->connection);
    connection_finish(end->connection);
    assert_int_equal(connection_send(end->connection, FRAME_PING, 1, NULL, NULL, 0), STATUS_CLOSED);
    assert_true(strlen(connection_peer(end->connection)->address) > 0);
    end->connection = NULL;
}

static struct end *end_init(struct fixture *fixture, int which) {
    struct end *end = &fixture->ends[which];
    end->handler = (struct connection_handler){end_opened, end_frame, end_drained, end_closed};
    enum status status = connection_new(&fixture->world.loop, &fixture->limits, &end->handler, &end->connection);
    if (status != STATUS_OK) {
        assert_int_equal(status, STATUS_NO_MEMORY);
        end->connection = NULL;
        return NULL;
    }
    return end;
}

static struct env_stream_handler *accept_end(void *context, struct env_stream *stream) {
    struct end *end = end_init(context, 0);
    if (end == NULL) {
        return NULL;
    }
    connection_attach(end->connection, stream);
    return connection_stream_handler(end->connection);
}

static void raw_opened(struct env_stream_handler *handler) {
    CONTAINER_OF(handler, struct raw_end, handler)->opened = true;
}
static void raw_drained(struct env_stream_handler *handler) { (void)handler; }

static void raw_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    struct raw_end *raw = CONTAINER_OF(handler, struct raw_end, handler);
    *ret_data = raw->room;
    *ret_len = raw->deaf ? 0 : sizeof raw->room;
}

static void raw_received(struct env_stream_handler *handler, size_t len) {
    struct raw_end *raw = CONTAINER_OF(handler, struct raw_end, handler);
    assert_int_equal(buf_append(&raw->got, raw->room, len), STATUS_OK);
}

static void raw_closed(struct env_stream_handler *handler, const struct error *err) {
    (void)err;
    struct raw_end *raw = CONTAINER_OF(handler, struct raw_end, handler);
    raw->closed++;
    raw->stream = NULL;
}

static int setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    memory_world_init(&fixture->world, 7);
    fixture->limits = limits_full;
    for (int i = 0; i < ENDS_MAX; i++) {
        buf_init(&fixture->ends[i].messages, alloc_system(), 0);
        buf_init(&fixture->ends[i].raw, alloc_system(), 0);
    }
    buf_init(&fixture->raw.got, alloc_system(), 0);
    fixture->raw.handler = (struct env_stream_handler){raw_opened, raw_room, raw_received, raw_drained, raw_closed};
    assert_int_equal(env_listen(&fixture->world.transport, &fixture->world.loop, "there", accept_end, fixture,
                                &fixture->listener, NULL),
                     STATUS_OK);
    *state = fixture;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fixture = *state;
    for (int i = 0; i < ENDS_MAX; i++) {
        if (fixture->ends[i].connection != NULL) {
            connection_close(fixture->ends[i].connection);
        }
    }
    if (fixture->raw.stream != NULL) {
        env_stream_close(fixture->raw.stream);
    }
    memory_world_run(&fixture->world);
    for (int i = 0; i < ENDS_MAX; i++) {
        assert_null(fixture->ends[i].connection);
        assert_true(fixture->ends[i].closed <= 1);
        buf_deinit(&fixture->ends[i].messages);
        buf_deinit(&fixture->ends[i].raw);
    }
    buf_deinit(&fixture->raw.got);
    env_listener_close(fixture->listener);
    memory_world_deinit(&fixture->world);
    free(fixture);
    return 0;
}

/* Connects the raw end to ends[0]. */
static void connect_raw(struct fixture *fixture) {
    assert_int_equal(env_connect(&fixture->world.transport, &fixture->world.loop, "there", &fixture->raw.handler,
                                 &fixture->raw.stream, NULL),
                     STATUS_OK);
    memory_world_run(&fixture->world);
    assert_true(fixture->raw.opened);
    assert_int_equal(fixture->ends[0].opened, 1);
}

/* Connects ends[1] to ends[0]. */
static void connect_pair(struct fixture *fixture) {
    struct end *end = end_init(fixture, 1);
    struct env_stream *stream;
    assert_int_equal(env_connect(&fixture->world.transport, &fixture->world.loop, "there",
                                 connection_stream_handler(end->connection), &stream, NULL),
                     STATUS_OK);
    connection_attach(end->connection, stream);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].opened, 1);
    assert_int_equal(end->opened, 1);
}

static void write_raw(struct fixture *fixture, const void *data, size_t len) {
    struct slice part = slice_of(data, len);
    assert_int_equal(env_stream_write(fixture->raw.stream, &part, 1), STATUS_OK);
    memory_world_run(&fixture->world);
}

/* Appends a frame whose parts are filled with the id's low byte. */
static void put_frame(struct buf *out, uint64_t id, uint32_t message_len, uint32_t raw_len) {
    struct frame_header header = {FRAME_PUT, id, message_len, raw_len};
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_header_encode(bytes, &header);
    assert_int_equal(buf_append(out, bytes, sizeof bytes), STATUS_OK);
    size_t len = (size_t)message_len + raw_len;
    assert_int_equal(buf_reserve(out, len), STATUS_OK);
    memset(out->data + out->len, (int)(id & 0xff), len);
    out->len += len;
}

/* ---- Input ------------------------------------------------------------------------------------------------------ */

static void test_connection_frames_cut_at_every_byte_arrive_whole(void **state) {
    struct fixture *fixture = *state;
    struct end *end = &fixture->ends[0];
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    put_frame(&bytes, 1, 5, 0);
    put_frame(&bytes, 2, 0, 0);
    put_frame(&bytes, 3, 7, 40);
    connect_raw(fixture);
    for (size_t cut = 0; cut <= bytes.len; cut++) {
        end->frame_count = 0;
        buf_clear(&end->raw);
        if (cut > 0) {
            write_raw(fixture, bytes.data, cut);
        }
        if (cut < bytes.len) {
            write_raw(fixture, bytes.data + cut, bytes.len - cut);
        }
        assert_int_equal(end->frame_count, 3);
        for (uint64_t i = 0; i < 3; i++) {
            assert_true(end->ids[i] == i + 1);
        }
        assert_int_equal(end->raw.len, 40);
        assert_int_equal(end->raw.data[0], 3);
    }
    buf_deinit(&bytes);
}

static void test_connection_bytes_one_at_a_time_make_frames(void **state) {
    struct fixture *fixture = *state;
    fixture->world.segment_bytes_max = 1;
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    for (uint64_t id = 1; id <= 20; id++) {
        put_frame(&bytes, id, (uint32_t)id, (uint32_t)(id * 3));
    }
    connect_raw(fixture);
    write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(fixture->ends[0].frame_count, 20);
    buf_deinit(&bytes);
}

static void test_connection_many_frames_in_one_read_arrive_in_order(void **state) {
    struct fixture *fixture = *state;
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    for (uint64_t id = 0; id < 2000; id++) {
        put_frame(&bytes, id, 3, 11);
    }
    connect_raw(fixture);
    write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(fixture->ends[0].frame_count, 2000);
    for (uint64_t id = 0; id < 2000; id++) {
        assert_true(fixture->ends[0].ids[id] == id);
    }
    buf_deinit(&bytes);
}

static void test_connection_frames_of_random_sizes_in_random_segments_arrive_intact(void **state) {
    struct fixture *fixture = *state;
    struct end *end = &fixture->ends[0];
    fixture->world.segment_bytes_max = 40000;
    connect_raw(fixture);
    struct buf bytes;
    struct buf expected;
    buf_init(&bytes, alloc_system(), 0);
    buf_init(&expected, alloc_system(), 0);
    for (uint64_t id = 1; id <= 200; id++) {
        static const uint32_t sizes[] = {0, 10, 300, 5000, 16384, 70000, 300000};
        uint32_t bound = sizes[random_below(&fixture->world.random, sizeof sizes / sizeof sizes[0])] + 1;
        uint32_t raw_len = (uint32_t)random_below(&fixture->world.random, bound);
        put_frame(&bytes, id, (uint32_t)random_below(&fixture->world.random, 100), raw_len);
        assert_int_equal(buf_append(&expected, bytes.data + bytes.len - raw_len, raw_len), STATUS_OK);
    }
    write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(end->frame_count, 200);
    assert_true(slice_equal(buf_slice(&end->raw), buf_slice(&expected)));
    buf_deinit(&bytes);
    buf_deinit(&expected);
}

static void test_connection_largest_frame_arrives_and_its_memory_goes_back(void **state) {
    struct fixture *fixture = *state;
    connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    put_frame(&bytes, 1, LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES);
    put_frame(&bytes, 2, 10, 10);
    size_t before = fixture->world.alloc.used_bytes;
    write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(fixture->ends[0].frame_count, 2);
    assert_int_equal(fixture->ends[0].raw.len, LIMIT_FRAME_RAW_BYTES + 10);
    assert_true(fixture->world.alloc.peak_bytes > LIMIT_FRAME_RAW_BYTES);
    assert_true(fixture->world.alloc.used_bytes <= before + 16 * 1024);
    buf_deinit(&bytes);
}

static void test_h35_connection_announced_length_alone_allocates_nothing(void **state) {
    struct fixture *fixture = *state;
    connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    put_frame(&bytes, 1, 0, LIMIT_FRAME_RAW_BYTES);
    write_raw(fixture, bytes.data, 1000);
    assert_true(fixture->world.alloc.peak_bytes < 32 * 1024);
    write_raw(fixture, bytes.data + 1000, 99 * 1000);
    assert_true(fixture->world.alloc.peak_bytes < 4 * 128 * 1024);
    assert_int_equal(fixture->ends[0].frame_count, 0);
    buf_deinit(&bytes);
}

static void check_refused(struct fixture *fixture, size_t at, uint8_t value, enum status expected) {
    struct end *end = &fixture->ends[0];
    connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    put_frame(&bytes, 1, 4, 4);
    size_t second = bytes.len;
    put_frame(&bytes, 2, 4, 4);
    bytes.data[second + at] = value;
    write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(end->frame_count, 1);
    assert_int_equal(end->closed, 1);
    assert_int_equal(end->error.code, expected);
    assert_int_equal(fixture->raw.closed, 1);
    buf_deinit(&bytes);
}

static void test_connection_wrong_magic_ends_it_as_corrupt(void **state) {
    check_refused(*state, 0, 'X', STATUS_CORRUPT);
}
static void test_connection_unknown_version_ends_it_as_unsupported(void **state) {
    check_refused(*state, 4, 9, STATUS_UNSUPPORTED);
}
static void test_connection_unknown_flags_end_it_as_corrupt(void **state) {
    check_refused(*state, 7, 1, STATUS_CORRUPT);
}
static void test_h35_connection_oversize_message_ends_it_as_too_large(void **state) {
    check_refused(*state, 19, 0xff, STATUS_TOO_LARGE);
}
static void test_h35_connection_oversize_raw_ends_it_as_too_large(void **state) {
    check_refused(*state, 23, 0x02, STATUS_TOO_LARGE);
}

static void test_connection_replies_before_a_bad_frame_still_leave(void **state) {
    struct fixture *fixture = *state;
    fixture->ends[0].on_frame = ON_FRAME_ECHO;
    check_refused(fixture, 0, 'X', STATUS_CORRUPT);
    assert_int_equal(fixture->raw.got.len, FRAME_HEADER_BYTES + 4);
}

static void test_connection_end_within_a_frame_is_not_orderly(void **state) {
    struct fixture *fixture = *state;
    connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    put_frame(&bytes, 1, 4, 100);
    write_raw(fixture, bytes.data, 50);
    env_stream_finish(fixture->raw.stream);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].closed, 1);
    assert_int_equal(fixture->ends[0].error.code, STATUS_CLOSED);
    assert_non_null(strstr(fixture->ends[0].error.message, "within a frame"));
    buf_deinit(&bytes);
}

static void test_connection_end_between_frames_is_orderly(void **state) {
    struct fixture *fixture = *state;
    connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    put_frame(&bytes, 1, 4, 100);
    write_raw(fixture, bytes.data, bytes.len);
    env_stream_finish(fixture->raw.stream);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].frame_count, 1);
    assert_int_equal(fixture->ends[0].closed, 1);
    assert_int_equal(fixture->ends[0].error.code, STATUS_OK);
    buf_deinit(&bytes);
}

static void test_connection_reset_reports_the_streams_error(void **state) {
    struct fixture *fixture = *state;
    connect_raw(fixture);
    memory_stream_reset(fixture->raw.stream);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].closed, 1);
    assert_int_equal(fixture->ends[0].error.code, STATUS_IO);
}

static void test_connection_refused_reports_the_error_and_never_opens(void **state) {
    struct fixture *fixture = *state;
    struct end *end = end_init(fixture, 1);
    struct env_stream *stream;
    assert_int_equal(env_connect(&fixture->world.transport, &fixture->world.loop, "nowhere",
                                 connection_stream_handler(end->connection), &stream, NULL),
                     STATUS_OK);
    connection_attach(end->connection, stream);
    memory_world_run(&fixture->world);
    assert_int_equal(end->opened, 0);
    assert_int_equal(end->closed, 1);
    assert_int_equal(end->error.code, STATUS_IO);
}

static void test_connection_never_attached_is_freed(void **state) {
    struct fixture *fixture = *state;
    struct end *end = end_init(fixture, 1);
    connection_free_unattached(end->connection);
    end->connection = NULL;
    connection_free_unattached(NULL);
}

/* ---- Pause ------------------------------------------------------------------------------------------------------ */

static void test_connection_paused_stops_reading_and_resume_delivers_the_rest(void **state) {
    struct fixture *fixture = *state;
    struct end *end = &fixture->ends[0];
    connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    for (uint64_t id = 0; id < 1000; id++) {
        put_frame(&bytes, id, 3, 97);
    }
    end->on_frame = ON_FRAME_PAUSE;
    write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(end->frame_count, 1);
    assert_true(env_stream_queued_bytes(fixture->raw.stream) > 0); /* the sender feels it */
    for (size_t count = 2; count <= 10; count++) {
        connection_resume(end->connection);
        assert_int_equal(end->frame_count, count - 1); /* not from inside resume */
        memory_world_run(&fixture->world);
        assert_int_equal(end->frame_count, count);
    }
    connection_resume(end->connection);
    connection_pause(end->connection); /* changed his mind */
    memory_world_run(&fixture->world);
    assert_int_equal(end->frame_count, 10);
    end->on_frame = ON_FRAME_NOTHING;
    connection_resume(end->connection);
    memory_world_run(&fixture->world);
    assert_int_equal(end->frame_count, 1000);
    assert_int_equal(env_stream_queued_bytes(fixture->raw.stream), 0);
    buf_deinit(&bytes);
}

static void test_connection_frames_before_the_streams_end_outlive_a_pause(void **state) {
    struct fixture *fixture = *state;
    struct end *end = &fixture->ends[0];
    connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    put_frame(&bytes, 1, 3, 97);
    put_frame(&bytes, 2, 3, 97);
    end->on_frame = ON_FRAME_PAUSE;
    write_raw(fixture, bytes.data, bytes.len);
    memory_stream_reset(fixture->raw.stream);
    memory_world_run(&fixture->world);
    assert_int_equal(end->frame_count, 1);
    assert_int_equal(end->closed, 0);
    assert_int_equal(connection_send(end->connection, FRAME_PING, 1, NULL, NULL, 0), STATUS_CLOSED);
    assert_false(connection_is_full(end->connection));
    connection_resume(end->connection);
    memory_world_run(&fixture->world);
    assert_int_equal(end->frame_count, 2);
    assert_int_equal(end->closed, 1); /* nothing is left, so the pause doesn't hold it */
    assert_int_equal(end->error.code, STATUS_IO);
    buf_deinit(&bytes);
}

static void test_connection_closed_while_frames_wait_after_the_end_drops_them(void **state) {
    struct fixture *fixture = *state;
    struct end *end = &fixture->ends[0];
    connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    put_frame(&bytes, 1, 3, 97);
    connection_pause(end->connection);
    write_raw(fixture, bytes.data, bytes.len);
    memory_stream_reset(fixture->raw.stream);
    memory_world_run(&fixture->world);
    assert_int_equal(end->closed, 0);
    connection_finish(end->connection);
    assert_int_equal(end->closed, 0);
    memory_world_run(&fixture->world);
    assert_int_equal(end->frame_count, 0);
    assert_int_equal(end->closed, 1);
    buf_deinit(&bytes);
}

/* ---- Ends ------------------------------------------------------------------------------------------------------- */

static void check_ended_by_callback(struct fixture *fixture, enum on_frame on_frame) {
    struct end *end = &fixture->ends[0];
    connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    put_frame(&bytes, 1, 3, 0);
    put_frame(&bytes, 2, 3, 0);
    end->on_frame = on_frame;
    write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(end->frame_count, 1);
    assert_int_equal(end->closed, 1);
    assert_int_equal(end->error.code, STATUS_OK);
    assert_int_equal(fixture->raw.closed, 1);
    buf_deinit(&bytes);
}

static void test_connection_closed_by_frame_callback_delivers_no_more(void **state) {
    check_ended_by_callback(*state, ON_FRAME_CLOSE);
}
static void test_connection_finished_by_frame_callback_delivers_no_more(void **state) {
    check_ended_by_callback(*state, ON_FRAME_FINISH);
}

static void test_connection_finish_sends_what_was_queued(void **state) {
    struct fixture *fixture = *state;
    fixture->world.pipe_bytes_max = 1000;
    connect_pair(fixture);
    uint8_t *data = calloc(1, 100000);
    assert_non_null(data);
    struct slice raw = slice_of(data, 100000);
    assert_int_equal(connection_send(fixture->ends[1].connection, FRAME_PUT, 5, NULL, &raw, 1), STATUS_OK);
    connection_finish(fixture->ends[1].connection);
    assert_int_equal(connection_send(fixture->ends[1].connection, FRAME_PUT, 6, NULL, &raw, 1), STATUS_CLOSED);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].frame_count, 1);
    assert_int_equal(fixture->ends[0].raw.len, 100000);
    assert_int_equal(fixture->ends[0].error.code, STATUS_OK);
    assert_int_equal(fixture->ends[1].closed, 1);
    assert_int_equal(fixture->ends[1].error.code, STATUS_OK);
    free(data);
}

static void test_connection_closed_before_opened_says_so_once(void **state) {
    struct fixture *fixture = *state;
    struct end *end = end_init(fixture, 1);
    struct env_stream *stream;
    assert_int_equal(env_connect(&fixture->world.transport, &fixture->world.loop, "there",
                                 connection_stream_handler(end->connection), &stream, NULL),
                     STATUS_OK);
    connection_attach(end->connection, stream);
    assert_int_equal(connection_send(end->connection, FRAME_PING, 1, NULL, NULL, 0), STATUS_CLOSED);
    connection_close(end->connection);
    memory_world_run(&fixture->world);
    assert_int_equal(end->opened, 0);
    assert_int_equal(end->closed, 1);
}

/* ---- Output ----------------------------------------------------------------------------------------------------- */

static void test_connection_message_and_raw_parts_arrive_as_sent(void **state) {
    struct fixture *fixture = *state;
    struct end *end = &fixture->ends[0];
    connect_pair(fixture);
    char key[2000]; /* more than the stack holds */
    memset(key, 'k', sizeof key);
    Wire__PutRequest request = WIRE__PUT_REQUEST__INIT;
    request.has_key = true;
    request.key = (ProtobufCBinaryData){.data = (uint8_t *)key, .len = sizeof key};
    struct slice parts[20];
    for (size_t i = 0; i < 20; i++) {
        parts[i] = slice_of("abcdefghijklmnopqrst" + i, 1);
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
    struct fixture *fixture = *state;
    connect_pair(fixture);
    uint64_t sends = fixture->world.sends;
    for (uint64_t id = 0; id < 100; id++) {
        assert_int_equal(connection_send(fixture->ends[1].connection, FRAME_PING, id, NULL, NULL, 0), STATUS_OK);
    }
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].frame_count, 100);
    assert_int_equal(fixture->world.sends - sends, 1);
}

static void test_connection_send_beyond_the_limits_is_refused(void **state) {
    struct fixture *fixture = *state;
    connect_pair(fixture);
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
    struct fixture *fixture = *state;
    struct end *sender = &fixture->ends[1];
    connect_pair(fixture);
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

/* ---- Failing memory --------------------------------------------------------------------------------------------- */

/* One exchange in which every step may fail; true if nothing did. */
static bool exchange(struct fixture *fixture) {
    bool ok = false;
    struct end *end = end_init(fixture, 1);
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
    struct fixture *fixture = *state;
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_connection_frames_cut_at_every_byte_arrive_whole),
        TEST(test_connection_bytes_one_at_a_time_make_frames),
        TEST(test_connection_many_frames_in_one_read_arrive_in_order),
        TEST(test_connection_frames_of_random_sizes_in_random_segments_arrive_intact),
        TEST(test_connection_largest_frame_arrives_and_its_memory_goes_back),
        TEST(test_h35_connection_announced_length_alone_allocates_nothing),
        TEST(test_connection_wrong_magic_ends_it_as_corrupt),
        TEST(test_connection_unknown_version_ends_it_as_unsupported),
        TEST(test_connection_unknown_flags_end_it_as_corrupt),
        TEST(test_h35_connection_oversize_message_ends_it_as_too_large),
        TEST(test_h35_connection_oversize_raw_ends_it_as_too_large),
        TEST(test_connection_replies_before_a_bad_frame_still_leave),
        TEST(test_connection_end_within_a_frame_is_not_orderly),
        TEST(test_connection_end_between_frames_is_orderly),
        TEST(test_connection_reset_reports_the_streams_error),
        TEST(test_connection_refused_reports_the_error_and_never_opens),
        TEST(test_connection_never_attached_is_freed),
        TEST(test_connection_paused_stops_reading_and_resume_delivers_the_rest),
        TEST(test_connection_frames_before_the_streams_end_outlive_a_pause),
        TEST(test_connection_closed_while_frames_wait_after_the_end_drops_them),
        TEST(test_connection_closed_by_frame_callback_delivers_no_more),
        TEST(test_connection_finished_by_frame_callback_delivers_no_more),
        TEST(test_connection_finish_sends_what_was_queued),
        TEST(test_connection_closed_before_opened_says_so_once),
        TEST(test_connection_message_and_raw_parts_arrive_as_sent),
        TEST(test_connection_frames_of_one_turn_leave_in_one_send),
        TEST(test_connection_send_beyond_the_limits_is_refused),
        TEST(test_h55_connection_full_says_so_and_drains_once),
        TEST(test_connection_with_each_allocation_failing_ends_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
