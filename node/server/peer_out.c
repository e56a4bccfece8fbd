/*
 * One outgoing link: connecting, greeting, liveness, back-off, sending.
 *
 *   WAITING --timer--> CONNECTING --greeting, hello--> READY
 *      ^                   |                             |
 *      +------ closed -----+--------- closed ------------+        any --stop--> STOPPED
 */
#include "node/server/peers_internal.h"

#include "node/base/check.h"
#include "node/server/raft_wire.h"

#include <errno.h>

static void link_connect(struct peer_link *link);

static const char *link_name(const struct peer_link *link) { return link->bulk ? "bulk" : "control"; }

/* A timer that can't be armed leaves a link without a future: memory is out, and the node with it. */
static void arm(struct peer_link *link, uint64_t delay_us) {
    enum status status = env_timer_arm(&link->timer, env_now_us(link->peer->peers->options.loop) + delay_us);
    CHECK(status == STATUS_OK);
}

static void log_problem(struct peer_link *link, const char *what) {
    if (link->problem_logged || link->peer->peers->stopping) {
        return;
    }
    link->problem_logged = true;
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    log_event(link->peer->peers->options.logger, LOG_WARN, "peer.unreachable", "peer=%s addr=%s link=%s reason=%s",
              link->peer->entry.name, link->peer->entry.peer_address, link_name(link),
              log_quote(quoted, sizeof quoted, what));
}

static void link_wait(struct peer_link *link) {
    link->state = PEER_LINK_WAITING;
    uint64_t jitter_us = env_random(link->peer->peers->options.env) % (link->backoff_us / 2 + 1);
    arm(link, link->backoff_us + jitter_us);
    link->backoff_us *= 2;
    if (link->backoff_us > PEER_BACKOFF_MAX_US) {
        link->backoff_us = PEER_BACKOFF_MAX_US;
    }
}

static bool ping(struct peer_link *link) {
    const struct peers_options *options = &link->peer->peers->options;
    Wire__PeerPing message = WIRE__PEER_PING__INIT;
    message.has_config_index = 1;
    message.config_index = options->known_membership(options->context);
    return connection_send(link->connection, FRAME_PING, 0, &message.base, NULL, 0) == STATUS_OK;
}

/* A malformed one says nothing. */
static void hear_pong(struct peer_link *link, const struct connection_frame *frame) {
    struct peers *peers = link->peer->peers;
    arena_reset(&peers->arena);
    const Wire__Pong *pong =
        (const Wire__Pong *)(const void *)wire_unpack(&peers->arena, &wire__pong__descriptor, frame->message);
    if (pong != NULL && pong->has_membership && link->state == PEER_LINK_READY) {
        peers->options.told_membership(peers->options.context, slice_of(pong->membership.data, pong->membership.len));
    }
}

/* A PING waits behind what was sent before, which may be one APPEND of 16 MiB: a slow link would never get it across if
 * only answers counted. So that bytes of a backlog leave counts, too. */
static void look_for_progress(struct peer_link *link) {
    uint64_t left_bytes = connection_left_bytes(link->connection);
    if (link->has_backlog && left_bytes > link->left_bytes) {
        link->heard_us = env_now_us(link->peer->peers->options.loop);
    }
    link->left_bytes = left_bytes;
    link->has_backlog = connection_queued_bytes(link->connection) >= PEER_BACKLOG_BYTES;
}

static void on_timer(struct env_timer *timer) {
    struct peer_link *link = CONTAINER_OF(timer, struct peer_link, timer);
    struct env_loop *loop = link->peer->peers->options.loop;
    switch (link->state) {
    case PEER_LINK_WAITING: link_connect(link); return;
    case PEER_LINK_CONNECTING:
        log_problem(link, "no connection within 2 s");
        connection_close(link->connection);
        return;
    case PEER_LINK_READY:
        look_for_progress(link);
        if (env_now_us(loop) - link->heard_us > PEER_SILENCE_MAX_US) {
            log_problem(link, "silent for 2 s");
            connection_close(link->connection);
            return;
        }
        if (!ping(link)) {
            connection_close(link->connection);
            return;
        }
        arm(link, PEER_PING_INTERVAL_US);
        return;
    case PEER_LINK_STOPPED: return;
    }
}

static void on_opened(struct connection_handler *handler) {
    struct peer_link *link = CONTAINER_OF(handler, struct peer_link, handler);
    const struct env_peer *peer = connection_peer(link->connection);
    if (memcmp(peer->thumbprint, link->peer->entry.thumbprint, ENV_THUMBPRINT_BYTES) != 0) {
        log_problem(link, "it shows another certificate than its [member] section, or the membership, names");
        connection_close(link->connection);
    }
}

static void greet(struct peer_link *link, const struct connection_frame *frame) {
    struct peers *peers = link->peer->peers;
    const struct config *config = peers->options.config;
    arena_reset(&peers->arena);
    const Wire__Greeting *greeting =
        (const Wire__Greeting *)(const void *)wire_unpack(&peers->arena, &wire__greeting__descriptor, frame->message);
    if (greeting == NULL || greeting->cluster_id.len != CONFIG_CLUSTER_ID_BYTES ||
        memcmp(greeting->cluster_id.data, config->cluster_id, CONFIG_CLUSTER_ID_BYTES) != 0 ||
        greeting->node_id != link->peer->entry.id) {
        log_problem(link, "it belongs to another cluster or is another node");
        connection_close(link->connection);
        return;
    }
    Wire__PeerHello hello = WIRE__PEER_HELLO__INIT;
    hello.has_cluster_id = 1;
    hello.cluster_id.data = (uint8_t *)config->cluster_id;
    hello.cluster_id.len = CONFIG_CLUSTER_ID_BYTES;
    hello.has_node_id = 1;
    hello.node_id = config->id;
    hello.has_bulk = 1;
    hello.bulk = link->bulk;
    if (connection_send(link->connection, FRAME_PEER_HELLO, 0, &hello.base, NULL, 0) != STATUS_OK) {
        connection_close(link->connection);
        return;
    }
    link->state = PEER_LINK_READY;
    link->backoff_us = PEER_BACKOFF_MIN_US;
    link->problem_logged = false;
    link->heard_us = env_now_us(peers->options.loop);
    link->left_bytes = 0;
    link->has_backlog = false;
    arm(link, PEER_PING_INTERVAL_US);
    log_event(peers->options.logger, LOG_INFO, "peer.connected", "peer=%s addr=%s link=%s", link->peer->entry.name,
              link->peer->entry.peer_address, link_name(link));
}

static void on_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct peer_link *link = CONTAINER_OF(handler, struct peer_link, handler);
    link->heard_us = env_now_us(link->peer->peers->options.loop);
    switch (frame->type) {
    case FRAME_GREETING:
        if (link->state == PEER_LINK_CONNECTING) {
            greet(link, frame);
        }
        return;
    case FRAME_REFUSAL: {
        arena_reset(&link->peer->peers->arena);
        const Wire__Refusal *refusal =
            (const Wire__Refusal *)(const void *)wire_unpack(&link->peer->peers->arena, &wire__refusal__descriptor,
                                                             frame->message);
        log_problem(link, refusal != NULL && refusal->message != NULL ? refusal->message : "refused without a reason");
        bool is_removal = refusal != NULL && refusal->code == WIRE_REMOVED;
        link->backoff_us = is_removal ? PEER_BACKOFF_MAX_US : link->backoff_us; /* it won't change its mind */
        connection_close(link->connection);
        if (is_removal && link->state != PEER_LINK_STOPPED) {
            link->peer->peers->options.removed(link->peer->peers->options.context, link->peer->entry.id);
        }
        return;
    }
    case FRAME_PONG: hear_pong(link, frame); return;
    default:
        log_problem(link, "it sent a frame that doesn't belong on this connection");
        connection_close(link->connection);
        return;
    }
}

static void on_drained(struct connection_handler *handler) {
    (void)handler; /* raft's window bounds what is queued, else PEER_QUEUED_BYTES_MAX does */
}

static void on_closed(struct connection_handler *handler, const struct error *err) {
    struct peer_link *link = CONTAINER_OF(handler, struct peer_link, handler);
    struct peers *peers = link->peer->peers;
    bool was_ready = link->state == PEER_LINK_READY;
    link->connection = NULL;
    if (link->state != PEER_LINK_STOPPED) {
        log_problem(link, err->code == STATUS_OK ? "it closed the connection" : err->message);
        link_wait(link);
        if (was_ready) {
            peers->options.unreachable(peers->options.context, link->peer->entry.id); /* the peer may be gone then */
        } else if (err->sys == ECONNREFUSED && !peer_in__is_connected(peers, link->peer->entry.id)) {
            peers->options.gone(peers->options.context, link->peer->entry.id);
        }
    } else {
        peers__free_if_gone(link->peer);
    }
    peers__connection_gone(peers);
}

static void link_connect(struct peer_link *link) {
    struct peers *peers = link->peer->peers;
    static const struct connection_limits limits = {.message_bytes_max = LIMIT_FRAME_MESSAGE_BYTES,
                                                    .raw_bytes_max = LIMIT_FRAME_RAW_BYTES};
    struct connection *connection = NULL;
    struct env_stream *stream = NULL;
    struct error error = {0};
    enum status status = connection_new(peers->options.loop, &limits, &link->handler, &connection);
    if (status == STATUS_OK) {
        status = env_connect(peers->options.transport, peers->options.loop, link->peer->entry.peer_address,
                             connection_stream_handler(connection), &stream, &error);
    }
    if (status != STATUS_OK) {
        if (connection != NULL) {
            connection_free_unattached(connection);
        }
        log_problem(link, error.code != STATUS_OK ? error.message : status_name(status));
        link_wait(link);
        return;
    }
    connection_attach(connection, stream);
    link->connection = connection;
    link->state = PEER_LINK_CONNECTING;
    peers__connection_opened(peers);
    arm(link, PEER_CONNECT_TIMEOUT_US);
}

void peer_out__init(struct peer *peer, struct peer_link *link, bool bulk) {
    *link = (struct peer_link){
        .handler = {.opened = on_opened, .frame = on_frame, .drained = on_drained, .closed = on_closed},
        .peer = peer,
        .bulk = bulk,
        .state = PEER_LINK_WAITING,
        .backoff_us = PEER_BACKOFF_MIN_US,
    };
    env_timer_init(&link->timer, peer->peers->options.loop, on_timer);
}

void peer_out__start(struct peer_link *link) { link_connect(link); }

void peer_out__stop(struct peer_link *link) {
    bool introduced = link->state == PEER_LINK_READY;
    link->state = PEER_LINK_STOPPED;
    env_timer_cancel(&link->timer);
    if (link->connection != NULL && introduced) {
        connection_finish(link->connection);
    } else if (link->connection != NULL) {
        connection_close(link->connection);
    }
}

bool peer_out__send(struct peer_link *link, const struct raft_message *message, const struct slice *raw,
                    size_t raw_count) {
    if (link->state != PEER_LINK_READY || connection_queued_bytes(link->connection) > PEER_QUEUED_BYTES_MAX) {
        return false;
    }
    Wire__RaftMessage wire;
    raft_wire_encode(message, &wire);
    return connection_send(link->connection, FRAME_RAFT, 0, &wire.base, raw, raw_count) == STATUS_OK;
}
