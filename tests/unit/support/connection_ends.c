/* Ends of connections for tests: see connection_ends.h. */
#include "tests/unit/support/connection_ends.h"

#include "node/base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct connection_limits limits_full = {LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES};

static void end_opened(struct connection_handler *handler) {
    CONTAINER_OF(handler, struct connection_end, handler)->opened++;
}
static void end_drained(struct connection_handler *handler) {
    CONTAINER_OF(handler, struct connection_end, handler)->drained++;
}

static void end_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct connection_end *end = CONTAINER_OF(handler, struct connection_end, handler);
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
    struct connection_end *end = CONTAINER_OF(handler, struct connection_end, handler);
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

struct connection_end *ends_new(struct ends_fixture *fixture, int which) {
    struct connection_end *end = &fixture->ends[which];
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
    struct connection_end *end = ends_new(context, 0);
    if (end == NULL) {
        return NULL;
    }
    connection_attach(end->connection, stream);
    return connection_stream_handler(end->connection);
}

static void raw_opened(struct env_stream_handler *handler) {
    CONTAINER_OF(handler, struct ends_raw, handler)->opened = true;
}
static void raw_drained(struct env_stream_handler *handler) { (void)handler; }

static void raw_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    struct ends_raw *raw = CONTAINER_OF(handler, struct ends_raw, handler);
    *ret_data = raw->room;
    *ret_len = raw->deaf ? 0 : sizeof raw->room;
}

static void raw_received(struct env_stream_handler *handler, size_t len) {
    struct ends_raw *raw = CONTAINER_OF(handler, struct ends_raw, handler);
    assert_int_equal(buf_append(&raw->got, raw->room, len), STATUS_OK);
}

static void raw_closed(struct env_stream_handler *handler, const struct error *err) {
    (void)err;
    struct ends_raw *raw = CONTAINER_OF(handler, struct ends_raw, handler);
    raw->closed++;
    raw->stream = NULL;
}

int ends_setup(void **state) {
    struct ends_fixture *fixture = calloc(1, sizeof *fixture);
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

int ends_teardown(void **state) {
    struct ends_fixture *fixture = *state;
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

void ends_connect_raw(struct ends_fixture *fixture) {
    assert_int_equal(env_connect(&fixture->world.transport, &fixture->world.loop, "there", &fixture->raw.handler,
                                 &fixture->raw.stream, NULL),
                     STATUS_OK);
    memory_world_run(&fixture->world);
    assert_true(fixture->raw.opened);
    assert_int_equal(fixture->ends[0].opened, 1);
}

void ends_connect_pair(struct ends_fixture *fixture) {
    struct connection_end *end = ends_new(fixture, 1);
    struct env_stream *stream;
    assert_int_equal(env_connect(&fixture->world.transport, &fixture->world.loop, "there",
                                 connection_stream_handler(end->connection), &stream, NULL),
                     STATUS_OK);
    connection_attach(end->connection, stream);
    memory_world_run(&fixture->world);
    assert_int_equal(fixture->ends[0].opened, 1);
    assert_int_equal(end->opened, 1);
}

void ends_write_raw(struct ends_fixture *fixture, const void *data, size_t len) {
    struct slice part = slice_of(data, len);
    assert_int_equal(env_stream_write(fixture->raw.stream, &part, 1), STATUS_OK);
    memory_world_run(&fixture->world);
}

void ends_put_frame(struct buf *out, uint64_t id, uint32_t message_len, uint32_t raw_len) {
    struct frame_header header = {FRAME_PUT, id, message_len, raw_len};
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_header_encode(bytes, &header);
    assert_int_equal(buf_append(out, bytes, sizeof bytes), STATUS_OK);
    size_t len = (size_t)message_len + raw_len;
    assert_int_equal(buf_reserve(out, len), STATUS_OK);
    memset(out->data + out->len, (int)(id & 0xff), len);
    out->len += len;
}
