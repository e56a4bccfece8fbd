/*
 * What the files of the peer connections share: peers.c (life and routing), peer_out.c (outgoing links), peer_in.c
 * (incoming connections), peer_probe.c (whether a node is there), peer_delay.c (fault hooks that hold a message back).
 */
#ifndef HOLDFAST_SERVER_PEERS_INTERNAL_H
#define HOLDFAST_SERVER_PEERS_INTERNAL_H

#include "node/base/arena.h"
#include "node/server/identity.h"
#include "node/server/peers.h"
#include "proto/connection.h"

enum {
    PEER_INCOMING_MAX = 8 * LIMIT_MEMBERS, /* connections from members, half-open ones included */
    PEER_PROBES_MAX = 8,
    PEER_CONNECT_TIMEOUT_US = 2 * 1000 * 1000,
    PEER_PING_INTERVAL_US = 500 * 1000,
    PEER_SILENCE_MAX_US = 2 * 1000 * 1000,
    PEER_BACKLOG_BYTES = 64 * KIB,                     /* waiting for the system, which has no room */
    PEER_QUEUED_BYTES_MAX = 2 * LIMIT_FRAME_RAW_BYTES, /* then messages are dropped: raft's window is far below */
    PEER_BACKOFF_MIN_US = 5 * 1000,
    PEER_BACKOFF_MAX_US = 1000 * 1000,
    PEER_DELAYED_MAX = 1024 /* messages that hooks hold back */
};

enum peer_link_state { PEER_LINK_WAITING, PEER_LINK_CONNECTING, PEER_LINK_READY, PEER_LINK_STOPPED };

struct peer_link {
    struct connection_handler handler;
    struct peer *peer;
    bool bulk;
    enum peer_link_state state;
    struct connection *connection; /* NULL while waiting */
    struct env_timer timer;        /* WAITING: try again; CONNECTING: give up; READY: ping */
    uint64_t backoff_us;
    uint64_t heard_us;
    uint64_t left_bytes; /* at the last look */
    bool has_backlog;    /* likewise */
    bool problem_logged; /* once per outage */
};

/* Lives until it is dropped and both connections are gone. */
struct peer {
    struct peers *peers;
    struct list link;
    struct directory_entry entry;
    bool is_guest;
    struct peer_link control;
    struct peer_link bulk;
};

struct peer_in {
    struct connection_handler handler;
    struct peers *peers;
    struct connection *connection;
    struct list link;
    struct identity identity;
    bool greeted;
    bool is_refused;        /* it ends */
    bool introduced;        /* its PeerHello was right */
    struct env_timer timer; /* closes it if it isn't introduced in time */
};

struct peers {
    struct peers_options options;
    struct env_listener *listener;
    struct list peers;    /* struct peer: at most members, and those of the configuration file */
    struct list dropped;  /* struct peer: wait for the end of their connections */
    uint64_t retired_id;  /* who isn't a member and has an id up to it was removed */
    struct list incoming; /* struct peer_in */
    uint32_t incoming_count;
    uint32_t probe_count; /* struct peer_probe, until their connections are gone */
    struct list delayed;  /* struct peer_delayed */
    uint32_t delayed_count;
    struct arena arena; /* of one incoming message */
    uint32_t open_connections;
    bool stopping;
    struct env_task stop_task;
    void (*stopped)(void *context);
    void *stopped_context;
};

struct alloc *peers__alloc(const struct peers *peers);
void peers__connection_opened(struct peers *peers);
void peers__connection_gone(struct peers *peers);

/* A node that this one may not know as a member has introduced itself. False: it can't be answered. */
bool peers__welcome(struct peers *peers, uint64_t node_id);
/* It has no connection to us any more. */
void peers__guest_left(struct peers *peers, uint64_t node_id);
bool peers__is_removed(const struct peers *peers, uint64_t node_id);
/* A link of a dropped peer has lost its connection. */
void peers__free_if_gone(struct peer *peer);

void peer_out__init(struct peer *peer, struct peer_link *link, bool bulk);
void peer_out__start(struct peer_link *link);
void peer_out__stop(struct peer_link *link);
bool peer_out__send(struct peer_link *link, const struct raft_message *message, const struct slice *raw,
                    size_t raw_count);

struct env_stream_handler *peer_in__accepted(void *context, struct env_stream *stream);
void peer_in__stop_all(struct peers *peers);
/* Tells removed nodes so on all their connections, and ends them. */
void peer_in__expel_removed(struct peers *peers);
bool peer_in__is_connected(const struct peers *peers, uint64_t node_id);
/* Behind the fault hooks. */
void peers__deliver(struct peers *peers, const struct raft_message *message, struct slice raw);
bool peers__send_now(struct peers *peers, const struct raft_message *message, const struct slice *raw,
                     size_t raw_count);

enum peer_direction { PEER_SEND, PEER_RECEIVE };

enum peer_verdict { PEER_PASS, PEER_DROPPED, PEER_DELAYED };

/* Asks the fault hook of this message; PEER_DELAYED: a copy will be sent or delivered later. */
enum peer_verdict peer_delay__check(struct peers *peers, enum peer_direction direction,
                                    const struct raft_message *message, const struct slice *raw, size_t raw_count);
void peer_delay__drop_all(struct peers *peers);

#endif
