/*
 * Connections between members.
 *
 * To each other member we hold two outgoing connections: control (votes, heartbeats, replies) and bulk (appends). What
 * others send us comes in on theirs. So a connection carries messages one way, and a large append never delays a
 * heartbeat.
 *
 * An APPEND has up to 256 KiB of records, or one larger one, which goes in one frame: DESIGN rule 15 would have it in
 * fragments. They'd give nothing: heartbeats go their own way; a record counts only as a whole, so the reader needs
 * memory for all of it, which grows as the bytes arrive (proto/connection_input.c); and the sender encrypts and sends
 * 1 MiB a turn at most (proto/tls/tls_stream.c). What waits behind a large frame on its connection is the PING: hence
 * bytes that get on count as a sign of life, too.
 *
 * Members come and go (peers_set). Besides them there are guests: nodes of our configuration file that
 * are no members as far as we know, and have opened a connection to us. They may know a newer membership than we do; as
 * long as they stay connected we answer them. So a new node, which knows no membership, connects to whoever talks to
 * it. Who was removed is no guest: it is told so on its connections, which then end, and whenever it comes again.
 *
 *   idle --> connecting --> greeted --> ready --(error, no PONG for 2 s)--> waiting (back-off) --> connecting
 *
 * Messages to a peer that isn't ready are dropped: Raft repeats what matters. `unreachable` tells it.
 * Liveness is ours, not TCP's (hazard 65): a PING each 500 ms; a silent connection, whose backlog doesn't get on
 * either, is closed and made anew. PING and
 * PONG also carry news of the membership to who lacks it (consensus_told.c).
 *
 * Owner: the consensus loop.
 */
#ifndef HOLDFAST_SERVER_PEERS_H
#define HOLDFAST_SERVER_PEERS_H

#include "node/base/log.h"
#include "node/server/config.h"
#include "node/server/directory.h"
#include "node/server/membership.h"
#include "raft/raft.h"

#include <protobuf-c/protobuf-c.h>

struct peers;

struct peers_options {
    struct env *env;
    struct env_loop *loop;
    struct env_transport *transport;
    const struct config *config;
    const struct directory *directory; /* whom we accept, besides the members of the configuration file */
    struct logger *logger;
    void *context;
    /* A message whose sender was authenticated; raw: the APPEND's records, unchecked. Borrowed for the call. */
    void (*received)(void *context, const struct raft_message *message, struct slice raw);
    void (*unreachable)(void *context, uint64_t node_id);
    /* A frame about stores: a snapshot of one, or a scan (FRAME_SNAPSHOT_*, FRAME_SCAN_*); its message still packed.
     * Borrowed for the call. */
    void (*store_frame)(void *context, uint64_t node_id, uint8_t type, struct slice message, struct slice raw);
    /* Its process has ended: its machine refuses connections to it, and it has none open to us. */
    void (*gone)(void *context, uint64_t node_id);
    /* A member says that this node was removed from the cluster. */
    void (*removed)(void *context, uint64_t by_node_id);
    /* The index of the newest membership that this node knows. */
    uint64_t (*known_membership)(void *context);
    /* The applied membership, if its index is above that; returns its length, 0: it isn't. */
    size_t (*newer_membership)(void *context, uint64_t known_index, uint8_t ret_bytes[MEMBERSHIP_BYTES_MAX]);
    /* A member knows a newer membership than this node. Borrowed for the call, not trusted. */
    void (*told_membership)(void *context, struct slice membership);
};

/* Listens; knows no members yet. STATUS_IO: the address is in use, err names it. */
MUST_USE enum status peers_start(const struct peers_options *options, struct peers **ret_peers, struct error *err);
/* These are the members (who is this node itself doesn't matter): connections to new ones begin, those to others end
 * when what was handed in is sent. Who is none of them and has an id up to retired_id was removed for good.
 * STATUS_NO_MEMORY: nobody was dropped, some weren't added. */
MUST_USE enum status peers_set(struct peers *peers, const struct directory_entries *members, uint64_t retired_id);
/* Sends or drops. raw: an APPEND's records. False: dropped. */
bool peers_send(struct peers *peers, const struct raft_message *message, const struct slice *raw, size_t raw_count);
/* One frame about stores: FRAME_SNAPSHOT_*, or (control, no raw) FRAME_SCAN_*. False: dropped, as the connection is
 * down, or full: each is repeated, or asked for again. */
bool peers_send_store_frame(struct peers *peers, uint64_t node_id, bool bulk, uint8_t type,
                            const ProtobufCMessage *message, struct slice raw);
/* True if its bulk connection is up. */
bool peers_is_ready(const struct peers *peers, uint64_t node_id);

/* Tries whether a node answers at this address (peer_probe.c). All borrowed for the call. */
struct peers_probe_target {
    const char *address;
    uint64_t node_id;          /* that it must say it is */
    const uint8_t *thumbprint; /* ENV_THUMBPRINT_BYTES that it must show; NULL: any */
};
struct peer_probe;

/* done runs once, never from inside the call, unless it is cancelled before: err->code STATUS_OK, it answers; else why
 * not. The probe isn't to be used afterwards. Other than STATUS_OK, with err: nothing was begun (STATUS_BUSY: too many
 * are under way; STATUS_NO_MEMORY; STATUS_UNAVAILABLE: stopping; else the address is wrong). */
MUST_USE enum status peers_probe(struct peers *peers, const struct peers_probe_target *target, uint64_t timeout_us,
                                 void (*done)(void *context, const struct error *err), void *context,
                                 struct peer_probe **ret_probe, struct error *err);
/* Before done: it won't run. To be done with all of them before peers_stop. */
void peers_probe_cancel(struct peer_probe *probe);

/* No other callbacks from now on; when all connections are gone, stopped runs and peers is free. */
void peers_stop(struct peers *peers, void (*stopped)(void *context), void *context);

#endif
