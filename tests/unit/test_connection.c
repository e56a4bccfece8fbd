/*
 * Breaks when: a frame is lost, doubled or delivered out of order however its bytes are cut; a length is trusted before
 * its bytes came; a paused connection delivers or reads on; a callback that finishes or closes the connection is
 * followed by another one; closed doesn't run exactly once, or ahead of frames that came before it.
 */
#include "tests/unit/support/connection_ends.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- Input --------------------------------------------------------------------------------------------------- */

static void test_connection_frames_cut_at_every_byte_arrive_whole(void **state) {
    struct ends_fixture *fixture = *state;
    struct connection_end *end = &fixture->ends[0];
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    ends_put_frame(&bytes, 1, 5, 0);
    ends_put_frame(&bytes, 2, 0, 0);
    ends_put_frame(&bytes, 3, 7, 40);
    ends_connect_raw(fixture);
    for (size_t cut = 0; cut <= bytes.len; cut++) {
        end->frame_count = 0;
        buf_clear(&end->raw);
        if (cut > 0) {
            ends_write_raw(fixture, bytes.data, cut);
        }
        if (cut < bytes.len) {
            ends_write_raw(fixture, bytes.data + cut, bytes.len - cut);
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
    struct ends_fixture *fixture = *state;
    fixture->world.segment_bytes_max = 1;
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    for (uint64_t id = 1; id <= 20; id++) {
        ends_put_frame(&bytes, id, (uint32_t)id, (uint32_t)(id * 3));
    }
    ends_connect_raw(fixture);
    ends_write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(fixture->ends[0].frame_count, 20);
    buf_deinit(&bytes);
}

static void test_connection_many_frames_in_one_read_arrive_in_order(void **state) {
    struct ends_fixture *fixture = *state;
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    for (uint64_t id = 0; id < 2000; id++) {
        ends_put_frame(&bytes, id, 3, 11);
    }
    ends_connect_raw(fixture);
    ends_write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(fixture->ends[0].frame_count, 2000);
    for (uint64_t id = 0; id < 2000; id++) {
        assert_true(fixture->ends[0].ids[id] == id);
    }
    buf_deinit(&bytes);
}

static void test_connection_frames_of_random_sizes_in_random_segments_arrive_intact(void **state) {
    struct ends_fixture *fixture = *state;
    struct connection_end *end = &fixture->ends[0];
    fixture->world.segment_bytes_max = 40000;
    ends_connect_raw(fixture);
    struct buf bytes;
    struct buf expected;
    buf_init(&bytes, alloc_system(), 0);
    buf_init(&expected, alloc_system(), 0);
    for (uint64_t id = 1; id <= 200; id++) {
        static const uint32_t sizes[] = {0, 10, 300, 5000, 16384, 70000, 300000};
        uint32_t bound = sizes[random_below(&fixture->world.random, sizeof sizes / sizeof sizes[0])] + 1;
        uint32_t raw_len = (uint32_t)random_below(&fixture->world.random, bound);
        ends_put_frame(&bytes, id, (uint32_t)random_below(&fixture->world.random, 100), raw_len);
        assert_int_equal(buf_append(&expected, bytes.data + bytes.len - raw_len, raw_len), STATUS_OK);
    }
    ends_write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(end->frame_count, 200);
    assert_true(slice_equal(buf_slice(&end->raw), buf_slice(&expected)));
    buf_deinit(&bytes);
    buf_deinit(&expected);
}

static void test_connection_largest_frame_arrives_and_its_memory_goes_back(void **state) {
    struct ends_fixture *fixture = *state;
    ends_connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    ends_put_frame(&bytes, 1, LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES);
    ends_put_frame(&bytes, 2, 10, 10);
    size_t before = fixture->world.alloc.used_bytes;
    ends_write_raw(fixture, bytes.data, bytes.len);
    assert_int_equal(fixture->ends[0].frame_count, 2);
    assert_int_equal(fixture->ends[0].raw.len, LIMIT_FRAME_RAW_BYTES + 10);
    assert_true(fixture->world.alloc.peak_bytes > LIMIT_FRAME_RAW_BYTES);
    assert_true(fixture->world.alloc.used_bytes <= before + 16 * 1024);
    buf_deinit(&bytes);
}

static void test_h35_connection_announced_length_alone_allocates_nothing(void **state) {
    struct ends_fixture *fixture = *state;
    ends_connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    ends_put_frame(&bytes, 1, 0, LIMIT_FRAME_RAW_BYTES);
    ends_write_raw(fixture, bytes.data, 1000);
    assert_true(fixture->world.alloc.peak_bytes < 32 * 1024);
    ends_write_raw(fixture, bytes.data + 1000, 99 * 1000);
    assert_true(fixture->world.alloc.peak_bytes < 4 * 128 * 1024);
    assert_int_equal(fixture->ends[0].frame_count, 0);
    buf_deinit(&bytes);
}

static void check_refused(struct ends_fixture *fixture, size_t at, uint8_t value, enum status expected) {
    struct connection_end *end = &fixture->ends[0];
    ends_connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    ends_put_frame(&bytes, 1, 4, 4);
    size_t second = bytes.len;
    ends_put_frame(&bytes, 2, 4, 4);
    bytes.data[second + at] = value;
    ends_write_raw(fixture, bytes.data, bytes.len);
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
    struct ends_fixture *fixture = *state;
    fixture->ends[0].on_frame = ON_FRAME_ECHO;
    check_refused(fixture, 0, 'X', STATUS_CORRUPT);
    assert_int_equal(fixture->raw.got.len, FRAME_HEADER_BYTES + 4);
}

static void test_connection_end_within_a_frame_is_not_orderly(void **state) {
    struct ends_fixture *fixture = *state;
    ends_connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    ends_put_frame(&bytes, 1, 4, 100);
    ends_write_raw(fixture, bytes.data, 50);
    env_stream_finish(fixture->raw.stream);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].closed, 1);
    assert_int_equal(fixture->ends[0].error.code, STATUS_CLOSED);
    assert_non_null(strstr(fixture->ends[0].error.message, "within a frame"));
    buf_deinit(&bytes);
}

static void test_connection_end_between_frames_is_orderly(void **state) {
    struct ends_fixture *fixture = *state;
    ends_connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    ends_put_frame(&bytes, 1, 4, 100);
    ends_write_raw(fixture, bytes.data, bytes.len);
    env_stream_finish(fixture->raw.stream);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].frame_count, 1);
    assert_int_equal(fixture->ends[0].closed, 1);
    assert_int_equal(fixture->ends[0].error.code, STATUS_OK);
    buf_deinit(&bytes);
}

static void test_connection_reset_reports_the_streams_error(void **state) {
    struct ends_fixture *fixture = *state;
    ends_connect_raw(fixture);
    memory_stream_reset(fixture->raw.stream);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].closed, 1);
    assert_int_equal(fixture->ends[0].error.code, STATUS_IO);
}

static void test_connection_refused_reports_the_error_and_never_opens(void **state) {
    struct ends_fixture *fixture = *state;
    struct connection_end *end = ends_new(fixture, 1);
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
    struct ends_fixture *fixture = *state;
    struct connection_end *end = ends_new(fixture, 1);
    connection_free_unattached(end->connection);
    end->connection = NULL;
    connection_free_unattached(NULL);
}

/* ---- Pause --------------------------------------------------------------------------------------------------- */

static void test_connection_paused_stops_reading_and_resume_delivers_the_rest(void **state) {
    struct ends_fixture *fixture = *state;
    struct connection_end *end = &fixture->ends[0];
    ends_connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    for (uint64_t id = 0; id < 1000; id++) {
        ends_put_frame(&bytes, id, 3, 97);
    }
    end->on_frame = ON_FRAME_PAUSE;
    ends_write_raw(fixture, bytes.data, bytes.len);
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
    struct ends_fixture *fixture = *state;
    struct connection_end *end = &fixture->ends[0];
    ends_connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    ends_put_frame(&bytes, 1, 3, 97);
    ends_put_frame(&bytes, 2, 3, 97);
    end->on_frame = ON_FRAME_PAUSE;
    ends_write_raw(fixture, bytes.data, bytes.len);
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
    struct ends_fixture *fixture = *state;
    struct connection_end *end = &fixture->ends[0];
    ends_connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    ends_put_frame(&bytes, 1, 3, 97);
    connection_pause(end->connection);
    ends_write_raw(fixture, bytes.data, bytes.len);
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

/* ---- Ends ---------------------------------------------------------------------------------------------------- */

static void check_ended_by_callback(struct ends_fixture *fixture, enum on_frame on_frame) {
    struct connection_end *end = &fixture->ends[0];
    ends_connect_raw(fixture);
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    ends_put_frame(&bytes, 1, 3, 0);
    ends_put_frame(&bytes, 2, 3, 0);
    end->on_frame = on_frame;
    ends_write_raw(fixture, bytes.data, bytes.len);
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
    struct ends_fixture *fixture = *state;
    fixture->world.pipe_bytes_max = 1000;
    ends_connect_pair(fixture);
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
    struct ends_fixture *fixture = *state;
    struct connection_end *end = ends_new(fixture, 1);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, ends_setup, ends_teardown)

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
