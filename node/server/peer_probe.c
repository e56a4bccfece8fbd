/*
 * One look whether a node answers where it is said to: a connection as a link makes it, TLS and the greeting, and then
 * its end. Nothing is said on it, so the other node takes it for nobody.
 *
 *   begun --opened: the right certificate--> greeted: the right cluster and node --> done, no error
 *     \----- closed, refused, another one, no answer in time ----------------------> done, the reason
 *     \----- cancelled ------------------------------------------------------------> (no done)
 *
 * It lives until its connection is gone, whatever was told before: peers_stop waits for that. At most PEER_PROBES_MAX
 * at a time. Owner: the consensus loop.
 */
#include "node/server/peers_internal.h"

#include "node/base/check.h"
#include "node/server/greeting.h"

#include <inttypes.h>
#include <string.h>

struct peer_probe {
    struct connection_handler handler;
    struct peers *peers;
    struct connection *connection;
    struct env_timer timer;
    uint64_t timeout_us;
    uint64_t node_id;
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES];
    bool has_thumbprint;
    bool is_opened;
    void (*done)(void *context, const struct error *err); /* NULL: it ran, or was cancelled */
    void *context;
};

/* The verdict: err->code STATUS_OK, it answers. The probe may be gone afterwards. */
static void settle(struct peer_probe *probe, const struct error *err) {
    void (*done)(void *context, const struct error *err) = probe->done;
    void *context = probe->context;
    if (done == NULL) {
        return;
    }
    probe->done = NULL;
    env_timer_cancel(&probe->timer);
    if (err->code == STATUS_OK) {
        connection_finish(probe->connection); /* what it sent was read: no reset, which it would log */
    } else if (probe->connection != NULL) {
        connection_close(probe->connection);
    }
    done(context, err);
}

static void settle_with(struct peer_probe *probe, enum status status, const char *reason) {
    struct error error = {0};
    (void)error_set(&error, status, "%s", reason);
    settle(probe, &error);
}

static void on_timer(struct env_timer *timer) {
    struct peer_probe *probe = CONTAINER_OF(timer, struct peer_probe, timer);
    struct error error = {0};
    (void)error_set(&error, STATUS_TIMEOUT, "%s within %" PRIu64 " ms",
                    probe->is_opened ? "it accepts connections, but did not greet" : "no connection",
                    probe->timeout_us / 1000);
    settle(probe, &error);
}

static void on_opened(struct connection_handler *handler) {
    struct peer_probe *probe = CONTAINER_OF(handler, struct peer_probe, handler);
    const struct env_peer *peer = connection_peer(probe->connection);
    probe->is_opened = true;
    if (probe->has_thumbprint && memcmp(peer->thumbprint, probe->thumbprint, sizeof probe->thumbprint) != 0) {
        settle_with(probe, STATUS_DENIED, "it shows another certificate than the one given");
    }
}

static void hear_greeting(struct peer_probe *probe, const struct connection_frame *frame) {
    struct peers *peers = probe->peers;
    arena_reset(&peers->arena);
    const Wire__Greeting *greeting =
        (const Wire__Greeting *)(const void *)wire_unpack(&peers->arena, &wire__greeting__descriptor, frame->message);
    if (greeting == NULL) {
        settle_with(probe, STATUS_CORRUPT, "its greeting can't be read");
    } else if (greeting->cluster_id.len != CONFIG_CLUSTER_ID_BYTES ||
               memcmp(greeting->cluster_id.data, peers->options.config->cluster_id, CONFIG_CLUSTER_ID_BYTES) != 0) {
        settle_with(probe, STATUS_DENIED, "it belongs to another cluster");
    } else if (greeting->node_id != probe->node_id) {
        struct error error = {0};
        (void)error_set(&error, STATUS_DENIED, "the node there has the id %" PRIu64, greeting->node_id);
        settle(probe, &error);
    } else {
        settle(probe, &(struct error){.code = STATUS_OK});
    }
}

static void hear_refusal(struct peer_probe *probe, const struct connection_frame *frame) {
    struct peers *peers = probe->peers;
    struct error error = {0};
    arena_reset(&peers->arena);
    const Wire__Refusal *refusal =
        (const Wire__Refusal *)(const void *)wire_unpack(&peers->arena, &wire__refusal__descriptor, frame->message);
    if (refusal != NULL && refusal->code == WIRE_CERTIFICATE_UNKNOWN) {
        (void)error_set(&error, STATUS_DENIED, "it does not know this node: its file needs a [member] section for it");
    } else {
        bool has_reason = refusal != NULL && refusal->message != NULL;
        (void)error_set(&error, STATUS_DENIED, "it refuses: %s", has_reason ? refusal->message : "no reason given");
    }
    settle(probe, &error);
}

static void on_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct peer_probe *probe = CONTAINER_OF(handler, struct peer_probe, handler);
    switch (frame->type) {
    case FRAME_GREETING: hear_greeting(probe, frame); return;
    case FRAME_REFUSAL: hear_refusal(probe, frame); return;
    default: settle_with(probe, STATUS_CORRUPT, "what answers there is no node"); return;
    }
}

static void on_drained(struct connection_handler *handler) { (void)handler; /* nothing is sent */ }

static void on_closed(struct connection_handler *handler, const struct error *err) {
    struct peer_probe *probe = CONTAINER_OF(handler, struct peer_probe, handler);
    struct peers *peers = probe->peers;
    probe->connection = NULL;
    if (err->code == STATUS_OK) {
        settle_with(probe, STATUS_CLOSED, "it closed the connection");
    } else {
        settle(probe, err);
    }
    env_timer_cancel(&probe->timer);
    peers->probe_count--;
    mem_free(peers__alloc(peers), probe);
    peers__connection_gone(peers);
}

/* As link_connect: both or neither. */
static enum status connect(struct peer_probe *probe, const char *address, struct error *err) {
    struct peers *peers = probe->peers;
    static const struct connection_limits limits = {.message_bytes_max = LIMIT_FRAME_MESSAGE_BYTES};
    struct env_stream *stream = NULL;
    struct connection *connection = NULL;
    enum status status = connection_new(peers->options.loop, &limits, &probe->handler, &connection);
    if (status != STATUS_OK) {
        return error_set(err, status, "out of memory");
    }
    status = env_connect(peers->options.transport, peers->options.loop, address, connection_stream_handler(connection),
                         &stream, err);
    if (status != STATUS_OK) {
        connection_free_unattached(connection);
        return status;
    }
    connection_attach(connection, stream);
    probe->connection = connection;
    peers__connection_opened(peers);
    return STATUS_OK;
}

enum status peers_probe(struct peers *peers, const struct peers_probe_target *target, uint64_t timeout_us,
                        void (*done)(void *context, const struct error *err), void *context,
                        struct peer_probe **ret_probe, struct error *err) {
    CHECK(done != NULL && target->address != NULL);
    if (peers->stopping) {
        return error_set(err, STATUS_UNAVAILABLE, "this node is stopping");
    }
    if (peers->probe_count == PEER_PROBES_MAX) {
        return error_set(err, STATUS_BUSY, "too many nodes are being tried on this one");
    }
    struct peer_probe *probe = mem_alloc_zero(peers__alloc(peers), sizeof *probe);
    if (probe == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "out of memory");
    }
    probe->handler =
        (struct connection_handler){.opened = on_opened, .frame = on_frame, .drained = on_drained, .closed = on_closed};
    probe->peers = peers;
    probe->timeout_us = timeout_us;
    probe->node_id = target->node_id;
    probe->has_thumbprint = target->thumbprint != NULL;
    if (probe->has_thumbprint) {
        memcpy(probe->thumbprint, target->thumbprint, sizeof probe->thumbprint);
    }
    probe->done = done;
    probe->context = context;
    env_timer_init(&probe->timer, peers->options.loop, on_timer);
    enum status status = env_timer_arm(&probe->timer, env_now_us(peers->options.loop) + timeout_us);
    if (status != STATUS_OK) {
        (void)error_set(err, status, "out of memory");
    } else {
        status = connect(probe, target->address, err);
    }
    if (status != STATUS_OK) {
        env_timer_cancel(&probe->timer);
        mem_free(peers__alloc(peers), probe);
        return status;
    }
    peers->probe_count++;
    *ret_probe = probe;
    return STATUS_OK;
}

void peers_probe_cancel(struct peer_probe *probe) {
    CHECK(probe->done != NULL && probe->connection != NULL);
    probe->done = NULL;
    env_timer_cancel(&probe->timer);
    connection_close(probe->connection);
}
