/* See fake_server.h. Its own failures are CHECKs. */
#include "tests/unit/support/fake_server.h"

#include "node/base/check.h"
#include "tests/unit/support/fake_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REVERSE_US = 2000, ARENA_CHUNK_BYTES = 64 * 1024, ARENA_BUDGET_BYTES = 64 * 1024 * 1024 };

/* ---- Replies --------------------------------------------------------------------------------------------------- */

void fake__send(struct fake_peer *peer, uint8_t type, uint64_t id, const ProtobufCMessage *message,
                const struct slice *raw, size_t raw_count) {
    if (peer != NULL) {
        /* A connection that is going takes nothing more; where memory is made to fail, the reply is lost. */
        enum status status = connection_send(peer->connection, type, id, message, raw, raw_count);
        CHECK(status == STATUS_OK || status == STATUS_CLOSED || status == STATUS_NO_MEMORY);
    }
}

void *fake__unpack(struct fake_cluster *cluster, const ProtobufCMessageDescriptor *descriptor, struct slice message) {
    void *unpacked = wire_unpack(&cluster->arena, descriptor, message);
    CHECK(unpacked != NULL);
    return unpacked;
}

static void send_error(struct fake_peer *peer, uint64_t id, uint32_t code, int outcome, bool with_hint) {
    Wire__Error error = WIRE__ERROR__INIT;
    struct fake_cluster *cluster = peer->node->cluster;
    int leader = atomic_load(&cluster->leader);
    error.has_code = 1;
    error.code = code;
    error.has_outcome = outcome != 0;
    error.outcome = outcome != 0 ? (Wire__Outcome)outcome : WIRE__OUTCOME__OUTCOME_FAILED;
    error.message = (char *)"as the test wants it";
    if (with_hint && leader >= 0) {
        error.has_leader_id = 1;
        error.leader_id = (uint64_t)leader + 1;
        error.leader_address = cluster->nodes[leader].address;
    }
    fake__send(peer, FRAME_ERROR, id, &error.base, NULL, 0);
}

static void greet(struct fake_peer *peer) {
    struct fake_node *node = peer->node;
    int leader = atomic_load(&node->cluster->leader);
    char name[16];
    uint8_t cluster_id[16];
    memset(cluster_id, 0x5a, sizeof cluster_id);
    (void)snprintf(name, sizeof name, "n%u", node->index + 1);
    Wire__Greeting greeting = WIRE__GREETING__INIT;
    greeting.has_protocol_min = greeting.has_protocol_max = greeting.has_cluster_id = greeting.has_node_id = 1;
    greeting.protocol_min = greeting.protocol_max = 1;
    greeting.cluster_id = (ProtobufCBinaryData){sizeof cluster_id, cluster_id};
    greeting.node_id = node->index + 1;
    greeting.node_name = name;
    greeting.role = (char *)"admin";
    if (leader >= 0) {
        greeting.has_leader_id = 1;
        greeting.leader_id = (uint64_t)leader + 1;
        greeting.leader_address = node->cluster->nodes[leader].address;
    }
    fake__send(peer, FRAME_GREETING, 0, &greeting.base, NULL, 0);
}

static void pong(struct fake_peer *peer, uint64_t id) {
    struct fake_cluster *cluster = peer->node->cluster;
    int leader = atomic_load(&cluster->leader);
    Wire__Pong pong = WIRE__PONG__INIT;
    if (leader >= 0) {
        pong.has_leader_id = 1;
        pong.leader_id = (uint64_t)leader + 1;
        pong.leader_address = cluster->nodes[leader].address;
    }
    fake__send(peer, FRAME_PONG, id, &pong.base, NULL, 0);
}

static void refuse(struct fake_peer *peer) {
    Wire__Refusal refusal = WIRE__REFUSAL__INIT;
    refusal.has_code = 1;
    refusal.code = WIRE_CERTIFICATE_UNKNOWN;
    refusal.message = (char *)"this certificate is on no list: add its thumbprint";
    fake__send(peer, FRAME_REFUSAL, 0, &refusal.base, NULL, 0);
    connection_finish(peer->connection);
}

/* ---- Requests -------------------------------------------------------------------------------------------------- */

static bool is_write(uint8_t type) {
    return type == FRAME_PUT || type == FRAME_DELETE || type == FRAME_DELETE_RANGE || type == FRAME_BATCH;
}

static void serve(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    if (is_write(frame->type)) {
        fake__write(peer, cluster, frame);
    } else if (frame->type == FRAME_GET) {
        fake__get(peer, cluster, frame);
    } else if (frame->type == FRAME_MEMBER) {
        fake__member(peer, cluster, frame);
    } else {
        CHECK(frame->type == FRAME_SCAN);
        fake__scan(peer, cluster, frame);
    }
}

static bool is_local_read(struct fake_cluster *cluster, const struct connection_frame *frame) {
    const Wire__ReadOptions *options = NULL;
    if (frame->type == FRAME_GET) {
        options = ((Wire__GetRequest *)fake__unpack(cluster, &wire__get_request__descriptor, frame->message))->options;
    } else if (frame->type == FRAME_SCAN) {
        options =
            ((Wire__ScanRequest *)fake__unpack(cluster, &wire__scan_request__descriptor, frame->message))->options;
    } else if (frame->type == FRAME_MEMBER) {
        return ((Wire__MemberRequest *)fake__unpack(cluster, &wire__member_request__descriptor, frame->message))->local;
    }
    return options != NULL && options->local;
}

static void note_timeout(struct fake_node *node, const struct connection_frame *frame) {
    struct fake_cluster *cluster = node->cluster;
    uint32_t timeout_ms = 0;
    if (frame->type == FRAME_PUT) {
        timeout_ms =
            ((Wire__PutRequest *)fake__unpack(cluster, &wire__put_request__descriptor, frame->message))->timeout_ms;
    } else if (frame->type == FRAME_GET) {
        timeout_ms = ((Wire__GetRequest *)fake__unpack(cluster, &wire__get_request__descriptor, frame->message))
                         ->options->timeout_ms;
    }
    atomic_store(&node->last_timeout_ms, timeout_ms);
}

/* ---- Faults ---------------------------------------------------------------------------------------------------- */

/* The fault that hits now; counts it down. */
static enum fake_fault take_fault(struct fake_node *node) {
    enum fake_fault fault = (enum fake_fault)atomic_load(&node->fault);
    uint32_t left = atomic_load(&node->fault_count);
    if (fault != FAKE_SERVES && left > 0) {
        atomic_store(&node->fault_count, left - 1);
        if (left == 1) {
            atomic_store(&node->fault, FAKE_SERVES);
        }
    }
    return fault;
}

static void hold(struct fake_peer *peer, const struct connection_frame *frame) {
    struct fake_cluster *cluster = peer->node->cluster;
    CHECK(cluster->held_count < FAKE_HELD_MAX);
    struct fake_held *held = &cluster->held[cluster->held_count++];
    *held = (struct fake_held){peer, *frame, malloc(frame->message.len + frame->raw.len + 1)};
    CHECK(held->bytes != NULL);
    if (frame->message.len > 0) {
        memcpy(held->bytes, frame->message.data, frame->message.len);
    }
    if (frame->raw.len > 0) {
        memcpy(held->bytes + frame->message.len, frame->raw.data, frame->raw.len);
    }
    held->frame.message = slice_of(held->bytes, frame->message.len);
    held->frame.raw = slice_of(held->bytes + frame->message.len, frame->raw.len);
}

static void release(struct fake_cluster *cluster, bool reversed) {
    for (size_t i = 0; i < cluster->held_count; i++) {
        struct fake_held *held = &cluster->held[reversed ? cluster->held_count - 1 - i : i];
        serve(held->peer, cluster, &held->frame);
        arena_reset(&cluster->arena);
        free(held->bytes);
    }
    cluster->held_count = 0;
}

void fake_node_release(struct fake_node *node) {
    atomic_store(&node->fault, FAKE_SERVES);
    release(node->cluster, false);
}

static void reverse_run(struct env_timer *timer) {
    release(CONTAINER_OF(timer, struct fake_cluster, reverse_timer), true);
}

static void hold_reversed(struct fake_peer *peer, const struct connection_frame *frame) {
    struct fake_cluster *cluster = peer->node->cluster;
    hold(peer, frame);
    if (!env_timer_is_armed(&cluster->reverse_timer)) {
        enum status status = env_timer_arm(&cluster->reverse_timer, env_now_us(cluster->loop) + REVERSE_US);
        CHECK(status == STATUS_OK);
    }
}

static void data_request(struct fake_peer *peer, const struct connection_frame *frame) {
    struct fake_node *node = peer->node;
    struct fake_cluster *cluster = node->cluster;
    atomic_fetch_add(&node->requests, 1);
    note_timeout(node, frame);
    if (atomic_load(&cluster->leader) != (int)node->index && !is_local_read(cluster, frame)) {
        send_error(peer, frame->request_id, WIRE_NOT_LEADER, WIRE__OUTCOME__OUTCOME_FAILED, true);
        return;
    }
    switch (take_fault(node)) {
    case FAKE_SERVES:
    case FAKE_REFUSES: serve(peer, cluster, frame); return;
    case FAKE_MUTE:
    case FAKE_HANGS: return;
    case FAKE_HOLDS: hold(peer, frame); return;
    case FAKE_ERRORS:
        send_error(peer, frame->request_id, atomic_load(&node->error_code), atomic_load(&node->error_outcome), false);
        return;
    case FAKE_APPLIES_THEN_DROPS:
        if (is_write(frame->type)) {
            (void)fake__apply(cluster, frame);
        } else if (frame->type == FRAME_MEMBER) {
            fake__member(NULL, cluster, frame);
        }
        connection_close(peer->connection);
        return;
    case FAKE_DROPS: connection_close(peer->connection); return;
    case FAKE_GARBLES: fake__send(peer, FRAME_PEER_HELLO, frame->request_id, NULL, NULL, 0); return;
    case FAKE_LIES: fake__lie(peer, frame, atomic_load(&node->error_code)); return;
    case FAKE_REVERSES:
        if (is_write(frame->type)) {
            hold_reversed(peer, frame);
        } else {
            serve(peer, cluster, frame);
        }
        return;
    }
}

/* ---- Connections ----------------------------------------------------------------------------------------------- */

static struct fake_peer *peer_of(struct connection_handler *handler) {
    return CONTAINER_OF(handler, struct fake_peer, handler);
}

static void peer_opened(struct connection_handler *handler) {
    struct fake_peer *peer = peer_of(handler);
    int fault = atomic_load(&peer->node->fault);
    if (fault == FAKE_MUTE) {
        return;
    }
    if (fault == FAKE_REFUSES) {
        refuse(peer);
        return;
    }
    greet(peer);
}

static void peer_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct fake_peer *peer = peer_of(handler);
    struct fake_node *node = peer->node;
    int fault = atomic_load(&node->fault);
    bool answers = fault != FAKE_HANGS && fault != FAKE_MUTE;
    if (frame->type == FRAME_PING) {
        atomic_fetch_add(&node->pings, 1);
        if (answers) {
            pong(peer, frame->request_id);
        }
    } else if (frame->type == FRAME_STATUS) {
        if (answers) {
            fake__status(peer, frame);
        }
    } else if (frame->type == FRAME_UPKEEP) {
        if (answers) {
            fake__upkeep(peer, frame);
        }
    } else if (frame->type == FRAME_EXPLAIN_LOG) {
        if (answers) {
            fake__explain_log(peer, frame);
        }
    } else {
        data_request(peer, frame);
    }
    arena_reset(&node->cluster->arena);
}

static void peer_drained(struct connection_handler *handler) { (void)handler; }

static void peer_closed(struct connection_handler *handler, const struct error *err) {
    (void)err;
    struct fake_peer *peer = peer_of(handler);
    struct fake_cluster *cluster = peer->node->cluster;
    for (size_t i = 0; i < cluster->held_count; i++) {
        if (cluster->held[i].peer == peer) {
            cluster->held[i].peer = NULL;
        }
    }
    atomic_fetch_sub(&peer->node->open, 1);
    list_remove(&peer->link);
    free(peer);
}

static struct env_stream_handler *accepted(void *context, struct env_stream *stream) {
    struct fake_node *node = context;
    const struct connection_limits limits = {LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES};
    struct fake_peer *peer = calloc(1, sizeof *peer);
    CHECK(peer != NULL);
    peer->handler = (struct connection_handler){peer_opened, peer_frame, peer_drained, peer_closed};
    peer->node = node;
    if (connection_new(node->cluster->loop, &limits, &peer->handler, &peer->connection) != STATUS_OK) {
        free(peer);
        return NULL;
    }
    connection_attach(peer->connection, stream);
    list_push_back(&node->peers, &peer->link);
    atomic_fetch_add(&node->connections, 1);
    atomic_fetch_add(&node->open, 1);
    return connection_stream_handler(peer->connection);
}

/* ---- The cluster ------------------------------------------------------------------------------------------------ */

void fake_cluster_init(struct fake_cluster *cluster, struct env *env, struct env_loop *loop,
                       struct env_transport *transport, uint32_t count) {
    CHECK(count <= FAKE_NODES_MAX);
    memset(cluster, 0, sizeof *cluster);
    cluster->env = env;
    cluster->loop = loop;
    cluster->transport = transport;
    cluster->count = count;
    arena_init(&cluster->arena, alloc_system(), ARENA_CHUNK_BYTES, ARENA_BUDGET_BYTES);
    env_timer_init(&cluster->reverse_timer, loop, reverse_run);
    fake_members_init(&cluster->members, count);
    for (uint32_t i = 0; i < count; i++) {
        cluster->nodes[i].cluster = cluster;
        cluster->nodes[i].index = i;
        list_init(&cluster->nodes[i].peers);
    }
}

static void node_listen(struct fake_node *node) {
    struct error err;
    enum status status =
        env_listen(node->cluster->transport, node->cluster->loop, node->address, accepted, node, &node->listener, &err);
    CHECK(status == STATUS_OK);
    (void)snprintf(node->address, sizeof node->address, "%s", env_listener_address(node->listener));
}

void fake_cluster_start(struct fake_cluster *cluster, const char *address) {
    for (uint32_t i = 0; i < cluster->count; i++) {
        struct fake_node *node = &cluster->nodes[i];
        if (strcmp(address, "memory") == 0) {
            (void)snprintf(node->address, sizeof node->address, "memory:%u", i + 1);
        } else {
            (void)snprintf(node->address, sizeof node->address, "%s", address);
        }
        node_listen(node);
    }
}

void fake_node_kill(struct fake_node *node) {
    env_listener_close(node->listener);
    node->listener = NULL;
    LIST_FOREACH (link, &node->peers) {
        connection_close(LIST_ENTRY(link, struct fake_peer, link)->connection);
    }
}

void fake_node_revive(struct fake_node *node) { node_listen(node); }

void fake_node_set_error(struct fake_node *node, uint32_t code, int outcome, uint32_t count) {
    atomic_store(&node->error_code, code);
    atomic_store(&node->error_outcome, outcome);
    atomic_store(&node->fault_count, count);
    atomic_store(&node->fault, FAKE_ERRORS);
}

void fake_cluster_stop(struct fake_cluster *cluster) {
    env_timer_cancel(&cluster->reverse_timer);
    for (uint32_t i = 0; i < cluster->count; i++) {
        fake_node_kill(&cluster->nodes[i]);
    }
}

void fake_cluster_deinit(struct fake_cluster *cluster) {
    for (uint32_t i = 0; i < cluster->count; i++) {
        CHECK(list_is_empty(&cluster->nodes[i].peers));
    }
    for (size_t i = 0; i < cluster->held_count; i++) {
        free(cluster->held[i].bytes);
    }
    while (cluster->entry_count > 0) {
        fake__remove_at(cluster, cluster->entry_count - 1);
    }
    free(cluster->entries);
    arena_deinit(&cluster->arena);
}

void fake_endpoints(const struct fake_cluster *cluster, char *out, size_t size) {
    size_t len = 0;
    for (uint32_t i = 0; i < cluster->count; i++) {
        int wrote = snprintf(out + len, size - len, "%sn%u=%s", i > 0 ? "," : "", i + 1, cluster->nodes[i].address);
        CHECK(wrote > 0 && (size_t)wrote < size - len);
        len += (size_t)wrote;
    }
}
