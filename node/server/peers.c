/*
 * Life of the peer connections as a whole, and routing of messages to links.
 */
#include "node/server/peers_internal.h"

#include "node/base/check.h"

struct alloc *peers__alloc(const struct peers *peers) {
    return peers->options.env->alloc;
}

static struct peer *find_peer(struct peers *peers, uint64_t node_id) {
    for (uint32_t i = 0; i < peers->peer_count; i++) {
        if (peers->peers[i].control.member->id == node_id) {
            return &peers->peers[i];
        }
    }
    return NULL;
}

static void run_stopped(struct env_task *task) {
    struct peers *peers = CONTAINER_OF(task, struct peers, stop_task);
    void (*stopped)(void *context) = peers->stopped;
    void *context = peers->stopped_context;
    arena_deinit(&peers->arena);
    mem_free(peers__alloc(peers), peers);
    stopped(context);
}

void peers__connection_opened(struct peers *peers) { peers->open_connections++; }

void peers__connection_gone(struct peers *peers) {
    CHECK(peers->open_connections > 0);
    peers->open_connections--;
    if (peers->stopping && peers->open_connections == 0) {
        env_defer(peers->options.loop, ENV_STAGE_PROCESS, &peers->stop_task);
    }
}

enum { ARENA_CHUNK_BYTES = 4096 };

enum status peers_start(const struct peers_options *options, struct peers **ret_peers, struct error *err) {
    struct peers *peers = mem_alloc_zero(options->env->alloc, sizeof *peers);
    if (peers == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "peers: out of memory");
    }
    peers->options = *options;
    list_init(&peers->incoming);
    list_init(&peers->delayed);
    arena_init(&peers->arena, options->env->alloc, ARENA_CHUNK_BYTES, LIMIT_UNPACK_BUDGET_BYTES);
    env_task_init(&peers->stop_task, run_stopped);
    const struct config *config = options->config;
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct config_member *member = &config->members[i];
        if (member->id != config->id) {
            struct peer *peer = &peers->peers[peers->peer_count++];
            peer_out__init(peers, &peer->control, member, false);
            peer_out__init(peers, &peer->bulk, member, true);
        }
    }
    enum status status = env_listen(options->transport, options->loop, config->peer_listen, peer_in__accepted, peers,
                                    &peers->listener, err);
    if (status != STATUS_OK) {
        arena_deinit(&peers->arena);
        mem_free(options->env->alloc, peers);
        return status;
    }
    for (uint32_t i = 0; i < peers->peer_count; i++) {
        peer_out__start(&peers->peers[i].control);
        peer_out__start(&peers->peers[i].bulk);
    }
    *ret_peers = peers;
    return STATUS_OK;
}

bool peers__send_now(struct peers *peers, const struct raft_message *message, const struct slice *raw,
                     size_t raw_count) {
    struct peer *peer = find_peer(peers, message->to);
    if (peer == NULL || peers->stopping) {
        return false;
    }
    return peer_out__send(message->type == RAFT_APPEND ? &peer->bulk : &peer->control, message, raw, raw_count);
}

bool peers_send(struct peers *peers, const struct raft_message *message, const struct slice *raw, size_t raw_count) {
    switch (peer_delay__check(peers, PEER_SEND, message, raw, raw_count)) {
    case PEER_PASS: return peers__send_now(peers, message, raw, raw_count);
    case PEER_DROPPED: return false;
    case PEER_DELAYED: return true;
    }
    CHECK(false);
}

void peers__deliver(struct peers *peers, const struct raft_message *message, struct slice raw) {
    if (!peers->stopping) {
        peers->options.received(peers->options.context, message, raw);
    }
}

bool peers_send_snapshot(struct peers *peers, uint64_t node_id, bool bulk, uint8_t type,
                         const ProtobufCMessage *message, struct slice raw) {
    struct peer *peer = find_peer(peers, node_id);
    if (peer == NULL || peers->stopping) {
        return false;
    }
    const struct peer_link *link = bulk ? &peer->bulk : &peer->control;
    if (link->state != PEER_LINK_READY || (bulk && connection_is_full(link->connection))) {
        return false;
    }
    return connection_send(link->connection, type, 0, message, &raw, raw.len > 0 ? 1 : 0) == STATUS_OK;
}

bool peers_is_ready(const struct peers *peers, uint64_t node_id) {
    for (uint32_t i = 0; i < peers->peer_count; i++) {
        if (peers->peers[i].bulk.member->id == node_id) {
            return peers->peers[i].bulk.state == PEER_LINK_READY;
        }
    }
    return false;
}

void peers_stop(struct peers *peers, void (*stopped)(void *context), void *context) {
    CHECK(!peers->stopping);
    peers->stopping = true;
    peers->stopped = stopped;
    peers->stopped_context = context;
    env_listener_close(peers->listener);
    peer_delay__drop_all(peers);
    for (uint32_t i = 0; i < peers->peer_count; i++) {
        peer_out__stop(&peers->peers[i].control);
        peer_out__stop(&peers->peers[i].bulk);
    }
    peer_in__stop_all(peers);
    if (peers->open_connections == 0) {
        env_defer(peers->options.loop, ENV_STAGE_PROCESS, &peers->stop_task);
    }
}
