/*
 * Connections that other members opened to us: identity first, then a hello, then messages.
 *
 *   accepted --identity is a member--> greeted --PeerHello--> introduced --> messages
 *        \--else--> refusal, finish
 */
#include "node/server/peers_internal.h"

#include "node/base/check.h"
#include "node/server/greeting.h"
#include "node/server/raft_wire.h"

#include <stdio.h>

static const char removed_message[] =
    "this node was removed from the cluster: stop it, or give it a new id and an empty data directory and add that";

static void refuse(struct peer_in *in, enum wire_code code, const char *message) {
    const struct env_peer *peer = connection_peer(in->connection);
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    log_event(in->peers->options.logger, LOG_WARN, "peer.refused", "addr=%s reason=%s", peer->address,
              log_quote(quoted, sizeof quoted, message));
    in->is_refused = true;
    if (greeting_refuse(in->connection, code, message) != STATUS_OK) {
        connection_close(in->connection);
    }
}

static void on_opened(struct connection_handler *handler) {
    struct peer_in *in = CONTAINER_OF(handler, struct peer_in, handler);
    const struct config *config = in->peers->options.config;
    char message[ERROR_MESSAGE_BYTES_MAX];
    enum wire_code code = identity_check(config, in->peers->options.directory, connection_peer(in->connection),
                                         &in->identity, message, sizeof message);
    if (code == WIRE_CERTIFICATE_UNKNOWN) {
        char thumbprint[2 * ENV_THUMBPRINT_BYTES + 1];
        identity_thumbprint_text(connection_peer(in->connection)->thumbprint, thumbprint);
        (void)
            snprintf(message, sizeof message,
                     "certificate %s is no member's that this node knows; add the node with `holdfastctl member add`, "
                     "or give this node a [member] section for it",
                     thumbprint);
    }
    if (code != WIRE_OK) {
        refuse(in, code, message);
        return;
    }
    if (!identity_is_peer(&in->identity)) {
        refuse(in, WIRE_DENIED, "this is the peer port: only certificates of members may connect");
        return;
    }
    Wire__Greeting greeting;
    greeting_fill(&greeting, config, in->identity.role);
    if (connection_send(in->connection, FRAME_GREETING, 0, &greeting.base, NULL, 0) != STATUS_OK) {
        connection_close(in->connection);
        return;
    }
    in->greeted = true;
}

/* Whose certificate this is may be told by the configuration file and by the membership, with different ids: a node
 * that came back under a new id and kept its certificate, which files still name with the old one. */
static bool may_be(struct peer_in *in, uint64_t node_id) {
    if (in->identity.node_id == node_id) {
        return true;
    }
    struct directory_entry entry;
    const uint8_t *thumbprint = connection_peer(in->connection)->thumbprint;
    if (!directory_find(in->peers->options.directory, node_id, &entry) ||
        memcmp(entry.thumbprint, thumbprint, sizeof entry.thumbprint) != 0) {
        return false;
    }
    in->identity.node_id = node_id;
    memcpy(in->identity.name, entry.name, sizeof in->identity.name);
    return true;
}

static void introduce(struct peer_in *in, const struct connection_frame *frame) {
    struct peers *peers = in->peers;
    const struct config *config = peers->options.config;
    arena_reset(&peers->arena);
    const Wire__PeerHello *hello =
        (const Wire__PeerHello *)(const void *)wire_unpack(&peers->arena, &wire__peer_hello__descriptor,
                                                           frame->message);
    if (frame->type != FRAME_PEER_HELLO || hello == NULL) {
        refuse(in, WIRE_INVALID, "the first frame of a peer must be its hello");
    } else if (hello->cluster_id.len != CONFIG_CLUSTER_ID_BYTES ||
               memcmp(hello->cluster_id.data, config->cluster_id, CONFIG_CLUSTER_ID_BYTES) != 0) {
        refuse(in, WIRE_WRONG_CLUSTER, "this node belongs to another cluster");
    } else if (!may_be(in, hello->node_id)) {
        refuse(in, WIRE_DENIED, "the hello's node id is not the one of this certificate");
    } else if (peers__is_removed(peers, hello->node_id)) {
        refuse(in, WIRE_REMOVED, removed_message);
    } else if (!peers__welcome(peers, hello->node_id)) {
        refuse(in, WIRE_BUSY, "no memory for a connection back");
    } else {
        in->introduced = true;
        env_timer_cancel(&in->timer);
    }
}

static void receive(struct peer_in *in, const struct connection_frame *frame) {
    struct peers *peers = in->peers;
    arena_reset(&peers->arena);
    const Wire__RaftMessage *wire =
        (const Wire__RaftMessage *)(const void *)wire_unpack(&peers->arena, &wire__raft_message__descriptor,
                                                             frame->message);
    struct raft_message message;
    struct error error = {0};
    if (wire == NULL || raft_wire_decode(wire, &message, &error) != STATUS_OK) {
        refuse(in, WIRE_INVALID, wire == NULL ? "malformed raft message" : error.message);
        return;
    }
    if (message.from != in->identity.node_id || message.to != peers->options.config->id) {
        refuse(in, WIRE_DENIED, "a raft message that is not from this certificate's node or not for this one");
        return;
    }
    if (peer_delay__check(peers, PEER_RECEIVE, &message, &frame->raw, 1) == PEER_PASS) {
        peers__deliver(peers, &message, frame->raw);
    }
}

static bool pong(struct peer_in *in, const struct connection_frame *frame) {
    const struct peers_options *options = &in->peers->options;
    arena_reset(&in->peers->arena);
    const Wire__PeerPing *ping =
        (const Wire__PeerPing *)(const void *)wire_unpack(&in->peers->arena, &wire__peer_ping__descriptor,
                                                          frame->message);
    uint8_t bytes[MEMBERSHIP_BYTES_MAX];
    Wire__Pong message = WIRE__PONG__INIT;
    if (ping != NULL && ping->has_config_index) {
        message.membership.len = options->newer_membership(options->context, ping->config_index, bytes);
        message.membership.data = bytes;
        message.has_membership = message.membership.len > 0;
    }
    return connection_send(in->connection, FRAME_PONG, frame->request_id, &message.base, NULL, 0) == STATUS_OK;
}

static void on_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct peer_in *in = CONTAINER_OF(handler, struct peer_in, handler);
    if (!in->greeted) {
        refuse(in, WIRE_INVALID, "the server speaks first: nothing may be sent before its greeting");
    } else if (!in->introduced) {
        introduce(in, frame);
    } else if (frame->type == FRAME_PING) {
        if (!pong(in, frame)) {
            connection_close(in->connection);
        }
    } else if (frame->type == FRAME_RAFT) {
        receive(in, frame);
    } else if (frame->type >= FRAME_SNAPSHOT_OFFER && frame->type <= FRAME_SCAN_REPORT) {
        in->peers->options.store_frame(in->peers->options.context, in->identity.node_id, frame->type, frame->message,
                                       frame->raw);
    } else {
        refuse(in, WIRE_UNSUPPORTED, "a frame type that doesn't belong on the peer port");
    }
}

static void on_drained(struct connection_handler *handler) { (void)handler; /* only PONGs are sent */ }

static void on_closed(struct connection_handler *handler, const struct error *err) {
    struct peer_in *in = CONTAINER_OF(handler, struct peer_in, handler);
    struct peers *peers = in->peers;
    if (err->code != STATUS_OK && err->code != STATUS_CLOSED && !peers->stopping) {
        char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
        log_event(peers->options.logger, LOG_WARN, "peer.lost", "peer=%s reason=%s",
                  in->introduced ? in->identity.name : "unknown", log_quote(quoted, sizeof quoted, err->message));
    }
    env_timer_cancel(&in->timer);
    list_remove(&in->link);
    peers->incoming_count--;
    if (in->introduced && !peers->stopping) {
        peers__guest_left(peers, in->identity.node_id);
    }
    mem_free(peers__alloc(peers), in);
    peers__connection_gone(peers);
}

static void on_timer(struct env_timer *timer) {
    struct peer_in *in = CONTAINER_OF(timer, struct peer_in, timer);
    connection_close(in->connection);
}

struct env_stream_handler *peer_in__accepted(void *context, struct env_stream *stream) {
    struct peers *peers = context;
    static const struct connection_limits limits = {.message_bytes_max = LIMIT_FRAME_MESSAGE_BYTES,
                                                    .raw_bytes_max = LIMIT_FRAME_RAW_BYTES};
    if (peers->stopping || peers->incoming_count >= PEER_INCOMING_MAX) {
        return NULL;
    }
    struct peer_in *in = mem_alloc_zero(peers__alloc(peers), sizeof *in);
    if (in == NULL) {
        return NULL;
    }
    in->handler =
        (struct connection_handler){.opened = on_opened, .frame = on_frame, .drained = on_drained, .closed = on_closed};
    in->peers = peers;
    env_timer_init(&in->timer, peers->options.loop, on_timer);
    if (connection_new(peers->options.loop, &limits, &in->handler, &in->connection) != STATUS_OK) {
        mem_free(peers__alloc(peers), in);
        return NULL;
    }
    if (env_timer_arm(&in->timer, env_now_us(peers->options.loop) + 2ull * PEER_CONNECT_TIMEOUT_US) != STATUS_OK) {
        connection_free_unattached(in->connection);
        mem_free(peers__alloc(peers), in);
        return NULL;
    }
    connection_attach(in->connection, stream);
    list_push_back(&peers->incoming, &in->link);
    peers->incoming_count++;
    peers__connection_opened(peers);
    return connection_stream_handler(in->connection);
}

void peer_in__stop_all(struct peers *peers) {
    LIST_FOREACH (node, &peers->incoming) {
        connection_finish(LIST_ENTRY(node, struct peer_in, link)->connection);
    }
}

void peer_in__expel_removed(struct peers *peers) {
    LIST_FOREACH (node, &peers->incoming) {
        struct peer_in *in = LIST_ENTRY(node, struct peer_in, link);
        if (in->introduced && !in->is_refused && peers__is_removed(peers, in->identity.node_id)) {
            refuse(in, WIRE_REMOVED, removed_message);
        }
    }
}

bool peer_in__is_connected(const struct peers *peers, uint64_t node_id) {
    LIST_FOREACH (node, &peers->incoming) {
        const struct peer_in *in = LIST_ENTRY(node, const struct peer_in, link);
        if (in->introduced && in->identity.node_id == node_id) {
            return true;
        }
    }
    return false;
}
