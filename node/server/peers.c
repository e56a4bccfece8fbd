/*
 * Life of the peer connections as a whole, and routing of messages to links.
 */
#include "node/server/peers_internal.h"

#include "node/base/check.h"

struct alloc *peers__alloc(const struct peers *peers) {
    return peers->options.env->alloc;
}

static struct peer *find_peer(const struct peers *peers, uint64_t node_id) {
    LIST_FOREACH (node, &peers->peers) {
        struct peer *peer = LIST_ENTRY(node, struct peer, link);
        if (peer->entry.id == node_id) {
            return peer;
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
    list_init(&peers->peers);
    list_init(&peers->dropped);
    list_init(&peers->incoming);
    list_init(&peers->delayed);
    arena_init(&peers->arena, options->env->alloc, ARENA_CHUNK_BYTES, LIMIT_UNPACK_BUDGET_BYTES);
    env_task_init(&peers->stop_task, run_stopped);
    enum status status = env_listen(options->transport, options->loop, options->config->peer_listen, peer_in__accepted,
                                    peers, &peers->listener, err);
    if (status != STATUS_OK) {
        arena_deinit(&peers->arena);
        mem_free(options->env->alloc, peers);
        return status;
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

bool peers_send_store_frame(struct peers *peers, uint64_t node_id, bool bulk, uint8_t type,
                            const ProtobufCMessage *message, struct slice raw) {
    struct peer *peer = find_peer(peers, node_id);
    if (peer == NULL || peers->stopping) {
        return false;
    }
    const struct peer_link *link = bulk ? &peer->bulk : &peer->control;
    if (link->state != PEER_LINK_READY || connection_is_full(link->connection)) {
        return false;
    }
    return connection_send(link->connection, type, 0, message, &raw, raw.len > 0 ? 1 : 0) == STATUS_OK;
}

bool peers_is_ready(const struct peers *peers, uint64_t node_id) {
    const struct peer *peer = find_peer(peers, node_id);
    return peer != NULL && peer->bulk.state == PEER_LINK_READY;
}

/* ---- Who is a peer ----------------------------------------------------------------------------------------------- */

static enum status add(struct peers *peers, const struct directory_entry *entry, bool is_guest) {
    struct peer *peer = mem_alloc_zero(peers__alloc(peers), sizeof *peer);
    if (peer == NULL) {
        return STATUS_NO_MEMORY;
    }
    peer->peers = peers;
    peer->entry = *entry;
    peer->is_guest = is_guest;
    list_push_back(&peers->peers, &peer->link);
    peer_out__init(peer, &peer->control, false);
    peer_out__init(peer, &peer->bulk, true);
    peer_out__start(&peer->control);
    peer_out__start(&peer->bulk);
    return STATUS_OK;
}

void peers__free_if_gone(struct peer *peer) {
    CHECK(peer->control.state == PEER_LINK_STOPPED);
    if (peer->bulk.state == PEER_LINK_STOPPED && peer->control.connection == NULL && peer->bulk.connection == NULL) {
        list_remove(&peer->link);
        mem_free(peers__alloc(peer->peers), peer);
    }
}

static void drop(struct peer *peer) {
    list_remove(&peer->link);
    list_push_back(&peer->peers->dropped, &peer->link);
    peer_out__stop(&peer->control);
    peer_out__stop(&peer->bulk);
    peers__free_if_gone(peer);
}

static const struct directory_entry *find_entry(const struct directory_entries *members, uint64_t node_id) {
    for (uint64_t i = 0; i < members->count; i++) {
        if (members->entries[i].id == node_id) {
            return &members->entries[i];
        }
    }
    return NULL;
}

static bool is_same(const struct directory_entry *a, const struct directory_entry *b) {
    return strcmp(a->peer_address, b->peer_address) == 0 && strcmp(a->name, b->name) == 0 &&
           memcmp(a->thumbprint, b->thumbprint, sizeof a->thumbprint) == 0;
}

bool peers__is_removed(const struct peers *peers, uint64_t node_id) {
    const struct peer *peer = find_peer(peers, node_id);
    bool is_member = node_id == peers->options.config->id || (peer != NULL && !peer->is_guest);
    return node_id <= peers->retired_id && !is_member;
}

enum status peers_set(struct peers *peers, const struct directory_entries *members, uint64_t retired_id) {
    CHECK(members->count <= DIRECTORY_ENTRIES_MAX);
    peers->retired_id = retired_id;
    LIST_FOREACH (node, &peers->peers) {
        struct peer *peer = LIST_ENTRY(node, struct peer, link);
        const struct directory_entry *entry = find_entry(members, peer->entry.id);
        peer->is_guest = entry == NULL && peer->entry.id > retired_id && peer_in__is_connected(peers, peer->entry.id);
        if (entry != NULL ? !is_same(entry, &peer->entry) : !peer->is_guest) {
            drop(peer);
        }
    }
    enum status status = STATUS_OK;
    for (uint64_t i = 0; i < members->count && status == STATUS_OK && !peers->stopping; i++) {
        const struct directory_entry *entry = &members->entries[i];
        if (entry->id != peers->options.config->id && find_peer(peers, entry->id) == NULL) {
            status = add(peers, entry, false);
        }
    }
    if (status == STATUS_OK) {
        peer_in__expel_removed(peers);
    }
    return status;
}

bool peers__welcome(struct peers *peers, uint64_t node_id) {
    if (find_peer(peers, node_id) != NULL || peers->stopping) {
        return true;
    }
    struct directory_entry entry;
    bool is_known = directory_look_up(peers->options.directory, peers->options.config, node_id, &entry);
    return is_known && add(peers, &entry, true) == STATUS_OK;
}

void peers__guest_left(struct peers *peers, uint64_t node_id) {
    struct peer *peer = find_peer(peers, node_id);
    if (peer != NULL && peer->is_guest && !peer_in__is_connected(peers, node_id)) {
        drop(peer);
    }
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

void peers_stop(struct peers *peers, void (*stopped)(void *context), void *context) {
    CHECK(!peers->stopping);
    peers->stopping = true;
    peers->stopped = stopped;
    peers->stopped_context = context;
    env_listener_close(peers->listener);
    peer_delay__drop_all(peers);
    LIST_FOREACH (node, &peers->peers) {
        drop(LIST_ENTRY(node, struct peer, link));
    }
    peer_in__stop_all(peers);
    if (peers->open_connections == 0) {
        env_defer(peers->options.loop, ENV_STAGE_PROCESS, &peers->stop_task);
    }
}
