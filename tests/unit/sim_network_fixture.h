/*
 * Two simulated nodes with one stream between them, driven by the host: what the tests of the simulated network share.
 * A side checks the rules that env.h gives for its callbacks: never from inside a call, on the loop, nothing after
 * closed.
 */
#ifndef HOLDFAST_SIM_NETWORK_FIXTURE_H
#define HOLDFAST_SIM_NETWORK_FIXTURE_H

#include "node/base/buf.h"
#include "node/base/check.h"
#include "tests/sim/sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS_MAX = 500 * 1000, SECOND = 1000 * 1000 };

/* One end, in the test's own memory, so that it can be looked at after a crash. */
struct side {
    struct env_stream_handler handler;
    struct sim_node *node;
    struct env_loop *loop;
    struct env_stream *stream;
    struct env_listener *listener;
    struct env_peer peer;
    struct buf input;
    size_t sent;        /* of the pattern */
    bool wants_pattern; /* input is checked against it */
    size_t received;
    size_t received_before; /* by earlier streams */
    uint8_t room[1000];
    size_t room_bytes; /* 0: takes nothing */
    bool inside;       /* one of the test's own calls */
    bool opened;
    bool closed;
    int drained;
    struct error error;
};

struct fixture {
    struct sim *sim;
    struct side client;
    struct side server;
};

static inline uint8_t pattern_at(size_t position) { return (uint8_t)(position * 7 + position / 251); }

static inline struct side *side_of(struct env_stream_handler *handler) {
    struct side *side = CONTAINER_OF(handler, struct side, handler);
    assert_false(side->inside);
    assert_false(side->closed);
    assert_true(env_on_loop(side->loop));
    return side;
}

static inline void on_opened(struct env_stream_handler *handler) {
    struct side *side = side_of(handler);
    assert_false(side->opened);
    side->opened = true;
    side->peer = *env_stream_peer(side->stream);
}

static inline void on_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    struct side *side = side_of(handler);
    assert_true(side->opened);
    *ret_data = side->room;
    *ret_len = side->room_bytes;
}

static inline void on_received(struct env_stream_handler *handler, size_t len) {
    struct side *side = side_of(handler);
    assert_in_range(len, 1, side->room_bytes);
    for (size_t i = 0; i < len && side->wants_pattern; i++) {
        assert_int_equal(side->room[i], pattern_at(side->received + i));
    }
    side->received += len;
    assert_int_equal(buf_append(&side->input, side->room, len), STATUS_OK);
}

static inline void on_drained(struct env_stream_handler *handler) { side_of(handler)->drained++; }

static inline void on_closed(struct env_stream_handler *handler, const struct error *err) {
    struct side *side = side_of(handler);
    side->closed = true;
    side->error = *err;
    side->stream = NULL;
}

static inline void side_init(struct side *side, struct sim_node *node) {
    buf_deinit(&side->input);
    *side = (struct side){.node = node, .room_bytes = sizeof side->room};
    side->handler = (struct env_stream_handler){
        .opened = on_opened, .room = on_room, .received = on_received, .drained = on_drained, .closed = on_closed};
    buf_init(&side->input, alloc_system(), 0);
    assert_int_equal(env_loop_new(sim_node_env(node), "net", 4, &side->loop, NULL), STATUS_OK);
    env_loop_run(side->loop);
}

/* Ready for another stream. */
static inline void side_forget(struct side *side) {
    buf_clear(&side->input);
    side->opened = false;
    side->closed = false;
    side->sent = 0;
    side->received_before += side->received;
    side->received = 0;
}

static inline struct env_stream_handler *on_accepted(void *context, struct env_stream *stream) {
    struct side *side = context;
    if (side->stream != NULL) {
        return NULL;
    }
    side_forget(side);
    side->stream = stream;
    return &side->handler;
}

static inline struct sim_node *node_new(struct sim *sim, const char *name) {
    struct sim_node_options options;
    sim_node_options_init(&options, name);
    struct sim_node *node = sim_node_new(sim, &options);
    sim_node_start(node);
    return node;
}

static inline void setup(struct fixture *fixture, uint64_t seed) {
    struct sim_options options;
    sim_options_init(&options);
    memset(fixture, 0, sizeof *fixture);
    buf_init(&fixture->client.input, alloc_system(), 0);
    buf_init(&fixture->server.input, alloc_system(), 0);
    fixture->sim = sim_new(seed, &options);
    side_init(&fixture->client, node_new(fixture->sim, "n1"));
    side_init(&fixture->server, node_new(fixture->sim, "n2"));
}

static inline void cleanup(struct fixture *fixture) {
    sim_free(fixture->sim);
    buf_deinit(&fixture->client.input);
    buf_deinit(&fixture->server.input);
}

static inline void run_us(struct fixture *fixture, uint64_t us) {
    assert_int_equal(sim_run_until(fixture->sim, sim_now_us(fixture->sim) + us, NULL, NULL, STEPS_MAX),
                     SIM_END_DEADLINE);
}

/* A function of the test, on the side's loop. */
struct call {
    struct env_message message;
    struct side *side;
    void (*run)(struct side *side, void *context);
    void *context;
    bool done;
};

static inline void call_run(struct env_message *message) {
    struct call *call = CONTAINER_OF(message, struct call, message);
    call->side->inside = true;
    call->run(call->side, call->context);
    call->side->inside = false;
    call->done = true;
}

static inline bool call_is_done(void *context) { return ((struct call *)context)->done; }

static inline void on_loop(struct fixture *fixture, struct side *side, void (*run)(struct side *side, void *context),
                           void *context) {
    struct call call = {.message = {.run = call_run}, .side = side, .run = run, .context = context};
    env_post(side->loop, &call.message);
    assert_int_equal(sim_run_until(fixture->sim, UINT64_MAX, call_is_done, &call, STEPS_MAX), SIM_END_PREDICATE);
}

static inline void do_listen(struct side *side, void *context) {
    assert_int_equal(env_listen(sim_node_transport(side->node), side->loop, context, on_accepted, side, &side->listener,
                                NULL),
                     STATUS_OK);
}

static inline void do_connect(struct side *side, void *context) {
    assert_int_equal(env_connect(sim_node_transport(side->node), side->loop, context, &side->handler, &side->stream,
                                 NULL),
                     STATUS_OK);
}

static inline void do_write(struct side *side, void *context) {
    const struct slice *data = context;
    struct slice parts[2] = {slice_of(data->data, data->len / 2),
                             slice_of(data->data + data->len / 2, data->len - data->len / 2)};
    assert_int_equal(env_stream_write(side->stream, parts, 2), STATUS_OK);
}

static inline void do_close(struct side *side, void *context) {
    (void)context;
    env_stream_close(side->stream);
}

static inline void do_finish(struct side *side, void *context) {
    (void)context;
    env_stream_finish(side->stream);
}

static inline void do_resume(struct side *side, void *context) {
    (void)context;
    side->room_bytes = sizeof side->room;
    env_stream_resume(side->stream);
}

/* The same, where the stream may have gone meanwhile. */
static inline void do_try_write(struct side *side, void *context) {
    const struct slice *data = context;
    if (side->stream != NULL && env_stream_write(side->stream, data, 1) == STATUS_OK) {
        side->sent += data->len;
    }
}

static inline void do_try_close(struct side *side, void *context) {
    if (side->stream != NULL) {
        do_close(side, context);
    }
}

static inline void do_try_finish(struct side *side, void *context) {
    if (side->stream != NULL) {
        do_finish(side, context);
    }
}

static inline bool both_open(void *context) {
    const struct fixture *fixture = context;
    return fixture->client.opened && fixture->server.opened;
}

static inline bool both_closed(void *context) {
    const struct fixture *fixture = context;
    return fixture->client.closed && fixture->server.closed;
}

static inline bool wait_for(struct fixture *fixture, bool (*done)(void *context)) {
    return sim_run_until(fixture->sim, sim_now_us(fixture->sim) + 60 * (uint64_t)SECOND, done, fixture, STEPS_MAX) ==
           SIM_END_PREDICATE;
}

static inline void setup_open(struct fixture *fixture, uint64_t seed) {
    setup(fixture, seed);
    on_loop(fixture, &fixture->server, do_listen, "n2:4500");
    on_loop(fixture, &fixture->client, do_connect, "n2:4500");
    assert_true(wait_for(fixture, both_open));
}

static inline uint8_t *make_bytes(size_t len) {
    uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = pattern_at(i);
    }
    return bytes;
}

static inline void send_bytes(struct fixture *fixture, struct side *side, const void *data, size_t len) {
    struct slice slice = slice_of(data, len);
    on_loop(fixture, side, do_write, &slice);
}

static inline bool client_closed(void *context) { return ((struct fixture *)context)->client.closed; }
static inline bool server_closed(void *context) { return ((struct fixture *)context)->server.closed; }

#endif
