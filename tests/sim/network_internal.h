/*
 * What network.c (connections), pipe.c (their bytes) and stream.c (their ends, as env shows them) share.
 *
 * A connection has two sides, 0 the one that connected, and two pipes; pipe s carries bytes from side s to the other.
 * It is the world's and lives while either side has a stream, or may still be accepted.
 */
#ifndef HOLDFAST_SIM_NETWORK_INTERNAL_H
#define HOLDFAST_SIM_NETWORK_INTERNAL_H

#include "tests/sim/sim_internal.h"

struct connection;
struct sim_stream;

enum { ACCEPT_QUEUE_MAX = 128 };

struct segment {
    struct list link;
    uint64_t deliver_us;
    bool is_fin;
    size_t len;
    size_t taken; /* by the reader */
    uint8_t data[];
};

struct pipe {
    struct connection *connection;
    struct list flying;
    struct list arrived;
    size_t bytes;         /* flying and arrived, not yet read */
    size_t arrived_bytes; /* of these */
    uint64_t last_deliver_us;
    struct sim_event event;  /* the next arrival; while held: the sender's patience ends */
    struct sim_event window; /* the sender learns that there is room again */
    bool held;
    uint64_t held_since_us;
    bool fin_sent;
    bool fin_arrived;
};

struct end {
    struct connection *connection;
    struct sim_node *node;     /* NULL: an unknown host */
    struct sim_stream *stream; /* NULL: not yet, or no longer */
    struct env_peer shows;     /* what the other side learns of this one */
    bool is_reset;             /* nothing arrives here any more */
    struct sim_event reset;
    int reset_sys;
    bool reset_comes_from_peer; /* so it can be lost on the way */
};

enum connection_state {
    CONNECTION_ASKING,  /* side 0 waits for an answer */
    CONNECTION_QUEUED,  /* in the listener's queue */
    CONNECTION_GREETED, /* accepted; side 0 doesn't know yet */
    CONNECTION_OPEN,
    CONNECTION_REFUSED /* side 0 doesn't know yet */
};

struct connection {
    struct list link; /* network->connections */
    struct sim *sim;
    uint64_t id;
    enum connection_state state;
    char address[LIMIT_ADDRESS_BYTES]; /* that side 0 asked for */
    struct sim_listener *listener;     /* QUEUED */
    struct list queue_link;
    struct sim_event handshake;
    uint64_t deadline_us;
    struct end ends[2];
    struct pipe pipes[2];
};

struct sim_network {
    struct sim *sim;
    struct random random;
    struct list connections;
    struct list listeners;
    uint64_t connection_sequence;
    bool down[SIM_NODES_MAX][SIM_NODES_MAX]; /* from, to */
};

struct sim_listener {
    struct env_listener listener;
    struct sim_notice notice;
    struct list link; /* network->listeners */
    struct sim_node *node;
    struct sim_loop *loop;
    char address[LIMIT_ADDRESS_BYTES];
    struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream);
    void *context;
    struct list queue; /* connections */
    uint32_t queue_count;
    bool accepting; /* inside accepted: closing waits */
    bool closed;
};

/* ---- network.c -------------------------------------------------------------------------------------------------- */

/* A connection that begins to ask for address. Takes no reference to the stream, which is side 0. */
struct connection *sim__connection_new(struct sim_node *node, const char *address, struct sim_stream *stream);
/* Side 1 has been accepted by this stream (or refused: NULL). */
void sim__connection_accepted(struct connection *connection, struct sim_stream *stream);
/* The side's stream goes: with an orderly end if it has read everything, else with a reset. The connection may be gone
 * then. */
void sim__connection_leave(struct connection *connection, int side);
/* The side will see this error; after a while. */
void sim__connection_reset(struct connection *connection, int side, int sys, bool comes_from_peer);
/* True while nothing that `side` sends can reach the other side. */
bool sim__connection_is_cut(const struct connection *connection, int side);
/* The answer to side 0's question arrived, on its own or with the first bytes. */
void sim__connection_become_open(struct connection *connection);
/* How long something is on its way. */
uint64_t sim__network_delay_us(struct sim *sim);
/* Takes the listener's oldest waiting connection; NULL if there is none. */
struct connection *sim__listener_pop(struct sim_listener *listener);
/* No longer there; those that wait are refused. */
void sim__listener_remove(struct sim_listener *listener);

/* ---- pipe.c ----------------------------------------------------------------------------------------------------- */

void sim__pipe_init(struct pipe *pipe, struct connection *connection);
void sim__pipe_drop_flying(struct pipe *pipe);
void sim__pipe_drop_arrived(struct pipe *pipe);
/* What was held goes on if it can, as late as the sender's growing pauses have it. */
void sim__pipe_go_on(struct connection *connection, int side);
/* Room in the pipe that leaves this side. */
size_t sim__pipe_room(const struct connection *connection, int side);
/* A segment with room for len bytes (is_fin: 0) at the end of the pipe that leaves this side; the caller fills in the
 * data. */
uint8_t *sim__pipe_push(struct connection *connection, int side, size_t len, bool is_fin);
/* Bytes that have arrived at this side, copied out; at most len. */
size_t sim__pipe_read(struct connection *connection, int side, uint8_t *data, size_t len);

/* ---- stream.c --------------------------------------------------------------------------------------------------- */

/* The world tells a stream: the connection is open; bytes or the end arrived, or there is room again; an error ends it.
 */
void sim__stream_opened(struct sim_stream *stream);
void sim__stream_news(struct sim_stream *stream);
void sim__stream_error(struct sim_stream *stream, int sys);
bool sim__stream_has_output(const struct sim_stream *stream);
/* Its node crashes: cuts its events, nothing else. */
void sim__stream_drop(struct sim_stream *stream);

#endif
