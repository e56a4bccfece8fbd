/*
 * What core.c, link.c, endpoint.c and reply.c share. Owner of everything here: the loop's thread, bar the atomics.
 */
#ifndef HOLDFAST_CLIENT_CORE_INTERNAL_H
#define HOLDFAST_CLIENT_CORE_INTERNAL_H

#include "proto/client/client_internal.h"

enum { CLIENT_ERROR_BYTES = 200 };

/*
 * One connection.
 *
 *   CONNECTING --greeting--> OPEN <--ping, pong--> PROBING
 *       |                     |                      |
 *       +-- refused, error, silence, end of stream --+--> closed: freed
 *
 * A link that fell silent with unsafe writes on it is detached: it leaves its endpoint's slot, so that others go
 * elsewhere, and lives on until these writes are answered or their deadlines pass.
 */
enum link_state { LINK_CONNECTING, LINK_OPEN, LINK_PROBING, LINK_CLOSING };

struct client_endpoint;

struct client_link {
    struct connection_handler handler;
    struct env_stream_handler tap; /* in front of the connection's own: it sees when bytes come */
    struct env_stream_handler *inner;
    struct connection *connection;
    struct env_stream *stream; /* NULL once closed */
    struct client_core *core;
    struct client_endpoint *endpoint;
    struct list member; /* of core->links */
    struct list sent;   /* requests that wait for their replies */
    uint32_t sent_count;
    struct env_timer watch;
    uint64_t begun_us;
    uint64_t progress_us; /* when bytes last came or left */
    size_t queued_bytes;  /* at the last look */
    enum link_state state;
    bool attached; /* in its endpoint's slot */
    bool pinged;   /* since progress_us */
    bool refused;  /* failure was told to the endpoint already */
};

struct client_endpoint {
    struct client_core *core;
    char name[LIMIT_NAME_BYTES];
    char address[LIMIT_ADDRESS_BYTES];
    uint64_t node_id; /* 0: not known yet */
    struct client_link *links[CLIENT_CONNECTIONS_MAX];
    uint32_t link_count; /* of links, not NULL */
    uint32_t next_link;
    struct list ready;    /* requests that name this endpoint */
    uint32_t failures;    /* in a row */
    uint64_t retry_at_us; /* no connection attempt before */
    bool denied;          /* the last failure was a denial */
    bool learnt;          /* from another node, not configured */
    char last_error[CLIENT_ERROR_BYTES];
};

struct client_slot {
    struct client_request *request; /* NULL: free */
    uint32_t generation;
};

struct client_core {
    struct env *env;
    struct env_loop *loop;
    struct env_transport *transport;
    struct client_options options;
    struct client_endpoint endpoints[CLIENT_ENDPOINTS_MAX];
    uint32_t endpoint_count;
    uint32_t current;
    struct list links;
    struct list waiting; /* for a place */
    struct list ready;   /* to go to `current` */
    struct list delayed;
    struct client_slot *slots; /* request id = generation << 32 | slot */
    uint32_t *free_slots;
    uint32_t free_count;
    struct arena arena; /* one message's unpacking */
    struct env_task dispatch;
    struct env_task finish;
    struct env_timer retry; /* some endpoint has backed off for long enough: */
    uint64_t retry_at_us;   /* then, while it is armed */
    _Atomic uint32_t in_flight;
    _Atomic uint64_t in_flight_bytes;
    _Atomic uint32_t waiting_count;
    bool has_cluster_id;
    uint8_t cluster_id[16]; /* of the first greeting; nodes of other clusters are not talked to */
    bool closing;
    void (*closed)(void *context);
    void *closed_context;
};

/* A request or a connection attempt that takes longer makes us ask others who leads. */
static inline uint64_t core__doubt_us(const struct client_core *core) {
    return (uint64_t)core->options.silence_ms * 1000 / 10;
}

/* core.c */
void core__dispatch_soon(struct client_core *core);
uint64_t core__request_id(const struct client_core *core, const struct client_request *request);
/* The request that this id names and that was sent on this link, or NULL. */
struct client_request *core__find(struct client_core *core, const struct client_link *link, uint64_t request_id);
/* Ends the request; answer->result is set. An outcome "failed" becomes "unknown" if an earlier attempt may have
 * happened. */
void core__complete(struct client_request *request, struct client_answer *answer);
/* Ends it with this failure. */
void core__fail(struct client_request *request, enum holdfast_outcome outcome, enum holdfast_code code,
                const char *message);
/* Back to the queue: at once, or after a back-off. The request is on no list. Remembers why. */
void core__retry(struct client_request *request, bool at_once, enum holdfast_code code, const char *reason);
/* Its reply will not come: again if that is safe, else an unknown outcome. Takes it from its link. */
void core__lost(struct client_request *request, enum holdfast_code code, const char *reason);
/* Takes a sent request from its link. */
void core__unlink_sent(struct client_request *request);
bool core__may_repeat(const struct client_request *request);

/* endpoint.c */
void endpoint__init_all(struct client_core *core);
/* Where to go now: `current`, or the next that isn't backing off (then it becomes current); NULL: none before
 * *ret_retry_at_us. */
struct client_endpoint *endpoint__choose(struct client_core *core, uint64_t *ret_retry_at_us);
/* Connecting failed, or it was refused, or it fell silent: back off, let `current` move on, end requests that can't be
 * served. */
void endpoint__failed(struct client_endpoint *endpoint, const struct error *err);
void endpoint__succeeded(struct client_endpoint *endpoint, uint64_t node_id);
/* It has no leader to name: others may. */
void endpoint__pass_over(struct client_endpoint *endpoint);
/* A node names the leader. True if `current` is another endpoint than `from` now. */
bool endpoint__follow_hint(struct client_endpoint *from, uint64_t leader_id, const char *address);
/* A node names the leader, asked or not: if `current` is in doubt, or requests wait elsewhere for long, they go there.
 */
void endpoint__told(struct client_endpoint *from, uint64_t leader_id, const char *address);
/* Asks all others who leads; connects for that. */
void endpoint__ask_others(struct client_endpoint *endpoint);
/* One sentence on why nothing works, for deadlines. */
void endpoint__explain(const struct client_core *core, const struct client_request *request, char *out, size_t size);
uint64_t core__jitter_us(struct client_core *core, uint64_t delay_us);

/* link.c */
/* A link that takes a request now, or NULL: opens what is missing, up to options.connections. */
struct client_link *link__pick(struct client_endpoint *endpoint);
/* A request waits for long on one of its links, or connecting takes long. */
bool link__is_in_doubt(const struct client_endpoint *endpoint);
/* Connecting or a probe takes long, and no link is open. */
bool link__is_late(const struct client_endpoint *endpoint);
/* Asks who leads: by a PING, or by connecting. */
void link__ask(struct client_endpoint *endpoint);
/* What waits for long and may be repeated goes back to the queue. */
void link__move_slow(struct client_endpoint *endpoint, const char *reason);
/* Sends; STATUS_OK: the request is on link->sent. */
MUST_USE enum status link__send(struct client_link *link, struct client_request *request);
/* Closes it when it is detached and nothing waits on it any more. */
void link__settle(struct client_link *link);
/* Ends its requests as lost or failed and closes the connection. */
void link__close(struct client_link *link, const struct error *err);

/* encode.c */
MUST_USE enum status encode__request(struct client_link *link, const struct client_request *request,
                                     uint64_t request_id, uint32_t timeout_ms);

/* members.c: the request, its answer, and a member as status gives it, too. */
MUST_USE enum status encode__members(struct client_link *link, const struct client_request *request,
                                     uint64_t request_id, uint32_t timeout_ms);
MUST_USE enum status reply__members(struct client_request *request, const struct connection_frame *frame,
                                    struct client_answer *answer, struct error *err);
void reply__copy_member(struct holdfast_member *out, const Wire__MemberStatus *member);

/* reply.c */
/* A reply for `request`, which is on its link's list still. STATUS_CORRUPT: the link can't be trusted any more. */
MUST_USE enum status reply__receive(struct client_request *request, const struct connection_frame *frame,
                                    struct error *err);

/* reply_node.c: fill in the answer from the message of the right type. STATUS_CORRUPT: it can't be read. */
MUST_USE enum status reply__status(struct client_request *request, const struct connection_frame *frame,
                                   struct client_answer *answer, struct error *err);
MUST_USE enum status reply__log(struct client_request *request, const struct connection_frame *frame,
                                struct client_answer *answer, struct error *err);
/* compare.c */
MUST_USE enum status encode__compare(struct client_link *link, const struct client_request *request,
                                     uint64_t request_id);
MUST_USE enum status reply__compare(struct client_request *request, const struct connection_frame *frame,
                                    struct client_answer *answer, struct error *err);
MUST_USE enum status reply__upkeep(struct client_request *request, const struct connection_frame *frame,
                                   struct client_answer *answer, struct error *err);

#endif
