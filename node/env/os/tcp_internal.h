/*
 * TCP as a transport: what its files share. address.c parses, tcp_stream.c moves bytes, tcp_connect.c and tcp_listen.c
 * make streams.
 */
#ifndef HOLDFAST_ENV_OS_TCP_INTERNAL_H
#define HOLDFAST_ENV_OS_TCP_INTERNAL_H

#include "node/base/buf.h"
#include "node/env/os/os_internal.h"

/* ---- Addresses (address.c) ------------------------------------------------------------------------------------ */

struct tcp_name {
    char host[LIMIT_ADDRESS_BYTES];
    char port[6];
};

/* Splits "host:port", "[::1]:port". STATUS_INVALID with a message otherwise. Port 0 only if port_zero. */
MUST_USE enum status tcp__parse(const char *address, bool port_zero, struct tcp_name *ret_name, struct error *err);
/* True if the host is an IP address, or "localhost" (127.0.0.1); no resolver is asked. */
bool tcp__numeric(const struct tcp_name *name, struct sockaddr_storage *ret_address);
/* "127.0.0.1:4401", "[::1]:4401". */
void tcp__format(const struct sockaddr_storage *address, char out[LIMIT_ADDRESS_BYTES]);

/* ---- Streams (tcp_stream.c) ----------------------------------------------------------------------------------- */

enum tcp_state { STREAM_CONNECTING, STREAM_OPEN, STREAM_FINISHING, STREAM_CLOSING };

struct tcp_connecting; /* tcp_connect.c */

struct tcp_stream {
    struct env_stream base;
    struct os_loop *loop;
    struct list link;                   /* os_loop.streams */
    struct env_stream_handler *handler; /* NULL: nobody wants to hear (accepted and refused) */
    enum tcp_state state;
    bool is_connected;
    bool is_announced; /* opened was called */
    bool is_reading;
    bool is_asking_room;
    bool input_ended; /* nothing more is read */
    bool is_writing;  /* `sending` is libuv's */
    bool is_above_high;
    bool shutdown_begun;
    bool shutdown_done;
    struct env_task open;    /* PROCESS: opened, for accepted streams */
    struct env_task flush;   /* FLUSH: one send */
    struct env_task later;   /* next turn: drained, or what follows the end of input */
    struct env_timer linger; /* bounds STREAM_FINISHING */
    unsigned linger_steps;
    size_t linger_queued_bytes;
    size_t dropped_bytes;
    struct buf out;     /* gathers */
    struct buf sending; /* the rest of a send that the socket had no room for */
    uv_tcp_t tcp;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct tcp_connecting *connecting; /* while STREAM_CONNECTING or finishing before the connection; else NULL */
    struct env_peer peer;
    struct error error; /* what `closed` will say */
};

extern const struct env_transport_ops os_tcp__transport_ops;

/* A stream with an idle uv_tcp_t, in the loop's list. NULL: out of memory. Its end is tcp__end. */
struct tcp_stream *tcp__stream_new(struct os_loop *loop, enum tcp_state state);
/* The socket is up: options, the peer's address. Returns a negative libuv error. */
int tcp__stream_connected(struct tcp_stream *stream, const struct sockaddr_storage *address);
/* Calls opened and begins to read; or goes on finishing. */
void tcp__stream_announce(struct tcp_stream *stream);
/* Closes the socket; closed runs from libuv's close callback. The first call's reason counts. */
void tcp__end(struct tcp_stream *stream);
void tcp__fail(struct tcp_stream *stream, int uv_error, const char *doing);
/* Closes the socket, if that isn't under way; for tcp__end, and for a failed attempt to connect. */
void tcp__close_socket(struct tcp_stream *stream);
/* CHECK for env_loop_free: no stream is left that nobody has ended. */
void tcp__check_all_closing(struct os_loop *loop);

/* ---- Connecting and listening ----------------------------------------------------------------------------------- */

enum status tcp__connect(struct env_transport *transport, struct env_loop *loop, const char *address,
                         struct env_stream_handler *handler, struct env_stream **ret_stream, struct error *err);
/* After a socket of the stream was closed while it isn't ending: tries the next address. */
void tcp__connect_next(struct tcp_stream *stream);
/* The stream ends: gives up resolving. */
void tcp__connect_abandon(struct tcp_stream *stream);
/* Frees what connecting needed, once the socket is up or closed. */
void tcp__connect_release(struct tcp_stream *stream);

enum status tcp__listen(struct env_transport *transport, struct env_loop *loop, const char *address,
                        struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream), void *context,
                        struct env_listener **ret_listener, struct error *err);

#endif
