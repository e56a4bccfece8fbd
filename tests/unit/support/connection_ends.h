/*
 * For tests of connections: ends that record what they see, and one that writes raw bytes, in a memory world. ends[0]
 * is accepted at "there"; the raw end or ends[1] connects to it. A failed check fails the test.
 */
#ifndef HOLDFAST_TESTS_CONNECTION_ENDS_H
#define HOLDFAST_TESTS_CONNECTION_ENDS_H

#include "node/base/buf.h"
#include "proto/connection.h"
#include "tests/unit/support/memory_net.h"

enum { ENDS_MAX = 2, FRAMES_MAX = 4096 };

enum on_frame { ON_FRAME_NOTHING, ON_FRAME_PAUSE, ON_FRAME_FINISH, ON_FRAME_CLOSE, ON_FRAME_ECHO };

struct connection_end {
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

struct ends_raw {
    struct env_stream_handler handler;
    struct env_stream *stream;
    struct buf got;
    uint8_t room[64 * 1024];
    bool opened;
    bool deaf;
    unsigned closed;
};

struct ends_fixture {
    struct memory_world world;
    struct env_listener *listener;
    struct connection_limits limits;
    struct connection_end ends[ENDS_MAX];
    struct ends_raw raw;
};

/* cmocka's setup and teardown of one test; *state is a struct ends_fixture. Teardown checks that nothing is left. */
int ends_setup(void **state);
int ends_teardown(void **state);
/* A connection for ends[which], not attached; NULL without memory. */
struct connection_end *ends_new(struct ends_fixture *fixture, int which);
/* Connects the raw end, or ends[1], to ends[0] and runs the world. */
void ends_connect_raw(struct ends_fixture *fixture);
void ends_connect_pair(struct ends_fixture *fixture);
/* Sends bytes from the raw end and runs the world. */
void ends_write_raw(struct ends_fixture *fixture, const void *data, size_t len);
/* Appends a frame whose message and raw bytes are filled with the id's low byte. */
void ends_put_frame(struct buf *out, uint64_t id, uint32_t message_len, uint32_t raw_len);

#endif
