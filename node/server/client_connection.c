/*
 * One client connection: who it is, its frames to their handlers, and back-pressure in both directions.
 *
 *   OPENING --known, has a role--> SERVING --the node stops, idle--> ENDING --closed--> (gone)
 *       \--else: refusal---------------------------------------------^
 *
 * Reading pauses while the connection has as many requests in flight as it may, or while its output is full. Reads that
 * are ready by then are held back with nothing but their keys in memory: what a slow reader costs is one output queue
 * (hazard 55). If nothing of it moves for 30 seconds, the connection is closed.
 *
 * A member's certificate may connect here, too, but only to ask for the status: operators on the machines have no other
 * one at hand. Everything else needs an [identity] of its own.
 */
#include "node/server/clients_internal.h"

#include "node/server/greeting.h"

#include <stdio.h>

enum permission { PERMIT_ANYONE, PERMIT_READ, PERMIT_WRITE, PERMIT_ADMIN };

/* Clients whose leader is silent ask others who leads. */
static void answer_ping(struct client_connection *connection, const struct connection_frame *frame) {
    const struct clients_options *options = &connection->clients->options;
    struct directory_entry leader;
    bool is_known = directory_look_up(consensus_directory(options->consensus), options->config,
                                      consensus_leader(options->consensus), &leader);
    Wire__Pong pong = WIRE__PONG__INIT;
    pong.has_leader_id = is_known;
    pong.leader_id = is_known ? leader.id : 0;
    pong.leader_address = is_known ? leader.client_address : NULL;
    client_connection__send(connection, FRAME_PONG, frame->request_id, &pong.base, NULL, 0);
}

struct frame_handler {
    void (*run)(struct client_connection *connection, const struct connection_frame *frame);
    enum permission permission;
    const char *name;
};

/* By frame type. */
static const struct frame_handler frame_handlers[] = {
    [FRAME_PING] = {answer_ping, PERMIT_ANYONE, "ping"},
    [FRAME_PUT] = {request_write__put, PERMIT_WRITE, "put"},
    [FRAME_DELETE] = {request_write__delete, PERMIT_WRITE, "delete"},
    [FRAME_DELETE_RANGE] = {request_write__delete_range, PERMIT_WRITE, "delete-range"},
    [FRAME_BATCH] = {request_write__batch, PERMIT_WRITE, "batch"},
    [FRAME_GET] = {request_read__get, PERMIT_READ, "get"},
    [FRAME_SCAN] = {request_scan__scan, PERMIT_READ, "scan"},
    [FRAME_STATUS] = {request_status__status, PERMIT_ANYONE, "status"},
    [FRAME_UPKEEP] = {request_upkeep__upkeep, PERMIT_ADMIN, "upkeep"},
    [FRAME_COMPARE] = {request_compare__compare, PERMIT_ADMIN, "compare"},
    [FRAME_MEMBER] = {request_member__member, PERMIT_ADMIN, "member"},
    [FRAME_EXPLAIN_LOG] = {request_explain__log, PERMIT_READ, "wal explain"},
};

/* ---- Sending --------------------------------------------------------------------------------------------------- */

void client_connection__send(struct client_connection *connection, uint8_t type, uint64_t request_id,
                             const ProtobufCMessage *message, const struct slice *raw, size_t raw_count) {
    enum status status = connection_send(connection->connection, type, request_id, message, raw, raw_count);
    if (status != STATUS_OK) {
        /* CLOSED: the other side is gone already. Else a reply would be missing for ever, which is worse than a lost
         * connection. */
        connection_close(connection->connection);
    }
}

void client_connection__send_error(struct client_connection *connection, uint64_t request_id, enum status status,
                                   bool unknown, const char *message) {
    const struct clients_options *options = &connection->clients->options;
    Wire__Error error = WIRE__ERROR__INIT;
    struct directory_entry leader;
    error.has_code = 1;
    error.code = (uint32_t)wire_code_of(status);
    error.has_outcome = 1;
    error.outcome = unknown ? WIRE__OUTCOME__OUTCOME_UNKNOWN : WIRE__OUTCOME__OUTCOME_FAILED;
    error.message = borrow_text(message);
    if (status == STATUS_NOT_LEADER) {
        bool is_known = directory_look_up(consensus_directory(options->consensus), options->config,
                                          consensus_leader(options->consensus), &leader);
        error.has_leader_id = is_known;
        error.leader_id = is_known ? leader.id : 0;
        error.leader_address = is_known ? leader.client_address : NULL;
    }
    client_connection__send(connection, FRAME_ERROR, request_id, &error.base, NULL, 0);
}

/* ---- Opening --------------------------------------------------------------------------------------------------- */

static void refuse(struct client_connection *connection, enum wire_code code, const char *message) {
    const struct env_peer *peer = connection_peer(connection->connection);
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    char subject[2 * LIMIT_NAME_BYTES];
    log_event(connection->clients->options.logger, LOG_WARN, "client.refused", "addr=%s subject=%s reason=%s",
              peer->address, log_quote(subject, sizeof subject, peer->subject),
              log_quote(quoted, sizeof quoted, message));
    connection->state = CLIENT_ENDING;
    if (greeting_refuse(connection->connection, code, message) != STATUS_OK) {
        connection_close(connection->connection);
    }
}

static void greet(struct client_connection *connection) {
    const struct clients_options *options = &connection->clients->options;
    const struct config *config = options->config;
    struct directory_entry leader;
    bool is_known = directory_look_up(consensus_directory(options->consensus), config,
                                      consensus_leader(options->consensus), &leader);
    Wire__Greeting greeting;
    greeting_fill(&greeting, config, connection->identity.role);
    greeting.has_leader_id = 1;
    greeting.leader_id = is_known ? leader.id : 0;
    greeting.leader_address = is_known ? leader.client_address : NULL;
    connection->state = CLIENT_SERVING;
    client_connection__send(connection, FRAME_GREETING, 0, &greeting.base, NULL, 0);
}

static struct client_connection *of_handler(struct connection_handler *handler) {
    return CONTAINER_OF(handler, struct client_connection, handler);
}

static void on_opened(struct connection_handler *handler) {
    struct client_connection *connection = of_handler(handler);
    struct clients *clients = connection->clients;
    const struct config *config = clients->options.config;
    char message[ERROR_MESSAGE_BYTES_MAX];
    connection->active_us = env_now_us(clients->options.loop);
    enum wire_code code =
        identity_check(config, consensus_directory(clients->options.consensus), connection_peer(connection->connection),
                       &connection->identity, message, sizeof message);
    if (code != WIRE_OK) {
        refuse(connection, code, message);
    } else if (clients->stopping) {
        refuse(connection, WIRE_UNAVAILABLE, "this node is stopping; ask another one");
    } else if (atomic_load_explicit(clients->total, memory_order_relaxed) > config->client_connections_max) {
        (void)snprintf(message, sizeof message,
                       "this node has its %u connections (client_connections_max); ask another one or try again later",
                       config->client_connections_max);
        refuse(connection, WIRE_BUSY, message);
    } else {
        greet(connection);
    }
}

/* ---- Frames ---------------------------------------------------------------------------------------------------- */

static bool is_permitted(const struct identity *identity, enum permission permission) {
    switch (permission) {
    case PERMIT_ANYONE: return true;
    case PERMIT_READ: return identity_may_read(identity);
    case PERMIT_WRITE: return identity_may_write(identity);
    case PERMIT_ADMIN: return identity_is_admin(identity);
    }
    CHECK(false);
}

static void deny(struct client_connection *connection, const struct connection_frame *frame,
                 const struct frame_handler *wanted) {
    const struct identity *identity = &connection->identity;
    char message[ERROR_MESSAGE_BYTES_MAX];
    if (identity_is_peer(identity)) {
        (void)snprintf(message, sizeof message,
                       "the certificate of member %s may only ask for the status here; use the one of an [identity]",
                       identity->name);
    } else {
        (void)snprintf(message, sizeof message, "identity %s has the role %s; %s needs %s", identity->name,
                       config_role_name(identity->role), wanted->name,
                       wanted->permission == PERMIT_ADMIN   ? "admin"
                       : wanted->permission == PERMIT_WRITE ? "write or admin"
                                                            : "read, write or admin");
    }
    client_connection__send_error(connection, frame->request_id, STATUS_DENIED, false, message);
}

static void on_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct client_connection *connection = of_handler(handler);
    CHECK(connection->state == CLIENT_SERVING);
    connection->active_us = env_now_us(connection->clients->options.loop);
    const struct frame_handler *wanted = NULL;
    if (frame->type < sizeof frame_handlers / sizeof frame_handlers[0]) {
        wanted = &frame_handlers[frame->type];
    }
    if (wanted == NULL || wanted->run == NULL) {
        char message[80];
        (void)snprintf(message, sizeof message, "frames of type %u are no requests that this node knows", frame->type);
        client_connection__send_error(connection, frame->request_id, STATUS_UNSUPPORTED, false, message);
    } else if (!is_permitted(&connection->identity, wanted->permission)) {
        deny(connection, frame, wanted);
    } else {
        wanted->run(connection, frame);
    }
    client_connection__update(connection);
}

/* ---- Back-pressure --------------------------------------------------------------------------------------------- */

bool client_connection__has_room(const struct client_connection *connection) {
    return !connection_is_full(connection->connection);
}

static void answer_first(struct list *requests) {
    struct request *request = LIST_ENTRY(list_pop_front(requests), struct request, held_link);
    request->answer(request);
}

static void answer_held(struct client_connection *connection) {
    while (!list_is_empty(&connection->held) && client_connection__has_room(connection)) {
        answer_first(&connection->held);
    }
}

static void answer_parked(struct client_connection *connection, enum read_class read_class) {
    struct list *parked = &connection->reads[read_class].parked;
    while (!list_is_empty(parked) && client_connection__has_room(connection) &&
           request_read__has_room(connection, read_class)) {
        answer_first(parked);
    }
    bool waits = !list_is_empty(parked) && !request_read__has_room(connection, read_class);
    list_remove(&connection->reads[read_class].waiting_link);
    if (waits) {
        list_push_back(&connection->clients->reads[read_class].waiting, &connection->reads[read_class].waiting_link);
    }
}

void client_connection__update(struct client_connection *connection) {
    struct clients *clients = connection->clients;
    if (connection->updating) {
        return; /* a reply from within answer_held: what follows is about to come anyway */
    }
    connection->updating = true;
    answer_held(connection);
    for (unsigned i = 0; i < READ_CLASS_COUNT; i++) {
        answer_parked(connection, (enum read_class)i);
    }
    connection->updating = false;
    bool full = connection_is_full(connection->connection);
    if (full && connection->full_since_us == 0) {
        connection->full_since_us = env_now_us(clients->options.loop);
        connection->full_left_bytes = UINT64_MAX;
    } else if (!full) {
        connection->full_since_us = 0;
    }
    bool pause =
        full || clients->stopping || connection->request_count >= clients->options.config->requests_per_connection_max;
    if (pause && !connection->paused) {
        connection_pause(connection->connection);
    } else if (!pause && connection->paused) {
        connection_resume(connection->connection);
    }
    connection->paused = pause;
    if (clients->stopping && connection->request_count == 0 && connection->state != CLIENT_ENDING) {
        connection->state = CLIENT_ENDING;
        connection_finish(connection->connection);
    }
}

static void on_drained(struct connection_handler *handler) {
    struct client_connection *connection = of_handler(handler);
    connection->full_since_us = 0;
    client_connection__update(connection);
}

/* A large reply over a slow link fills the output for long and moves all the same; one byte a second is no movement. */
static bool is_stalled(struct client_connection *connection, uint64_t now_us) {
    uint64_t left_bytes = connection_left_bytes(connection->connection);
    if (connection->full_since_us == 0) {
        return false;
    }
    if (connection->full_left_bytes == UINT64_MAX) {
        connection->full_left_bytes = left_bytes; /* what the system takes at once is no sign of a reader */
    }
    if (now_us - connection->full_since_us < CLIENTS_STALL_US) {
        return false;
    }
    bool moves = left_bytes > connection->full_left_bytes + CLIENTS_STALL_BYTES;
    connection->full_since_us = moves ? now_us : connection->full_since_us;
    connection->full_left_bytes = left_bytes;
    return !moves;
}

void client_connection__sweep(struct client_connection *connection, uint64_t now_us) {
    const struct clients_options *options = &connection->clients->options;
    uint64_t idle_us = (uint64_t)options->config->idle_timeout_ms * 1000;
    if (connection->state != CLIENT_SERVING) {
        return; /* handshakes and endings have deadlines of their own */
    }
    client_connection__update(connection); /* an output that emptied because its stream went says nothing */
    const char *reason = NULL;
    if (is_stalled(connection, now_us)) {
        reason = "it doesn't read its replies";
        connection_close(connection->connection);
    } else if (idle_us != 0 && connection->request_count == 0 && now_us - connection->active_us >= idle_us) {
        reason = "idle";
        connection_finish(connection->connection);
    }
    if (reason != NULL) {
        connection->state = CLIENT_ENDING;
        char quoted[64];
        log_event(options->logger, LOG_INFO, "client.closed", "addr=%s identity=%s reason=%s",
                  connection_peer(connection->connection)->address, connection->identity.name,
                  log_quote(quoted, sizeof quoted, reason));
    }
}

/* ---- Begin and end --------------------------------------------------------------------------------------------- */

/* Not an end that a client or this node chose. */
static bool is_worth_a_line(enum status status) {
    return status == STATUS_CORRUPT || status == STATUS_TOO_LARGE || status == STATUS_UNSUPPORTED ||
           status == STATUS_NO_MEMORY;
}

static void on_closed(struct connection_handler *handler, const struct error *err) {
    struct client_connection *connection = of_handler(handler);
    struct clients *clients = connection->clients;
    if (connection->state != CLIENT_OPENING && is_worth_a_line(err->code)) { /* of handshakes, the transport tells */
        char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
        log_event(clients->options.logger, LOG_WARN, "client.lost", "addr=%s identity=%s reason=%s",
                  connection_peer(connection->connection)->address,
                  connection->identity.name[0] != '\0' ? connection->identity.name : "none",
                  log_quote(quoted, sizeof quoted, err->message));
    }
    struct list held;
    list_init(&held);
    list_splice_back(&held, &connection->held);
    for (unsigned i = 0; i < READ_CLASS_COUNT; i++) {
        list_splice_back(&held, &connection->reads[i].parked);
    }
    for (struct list *node; (node = list_pop_front(&connection->requests)) != NULL;) {
        LIST_ENTRY(node, struct request, link)->connection = NULL;
    }
    for (struct list *node; (node = list_pop_front(&held)) != NULL;) {
        request__release(LIST_ENTRY(node, struct request, held_link)); /* nobody else has it */
    }
    clients__connection_gone(connection);
    mem_free(clients->alloc, connection);
}

struct env_stream_handler *client_connection__accepted(void *context, struct env_stream *stream) {
    struct clients *clients = context;
    static const struct connection_limits limits = {.message_bytes_max = LIMIT_FRAME_MESSAGE_BYTES,
                                                    .raw_bytes_max = LIMIT_FRAME_RAW_BYTES};
    uint64_t count_max = (uint64_t)clients->options.config->client_connections_max + CLIENTS_REFUSED_MAX;
    if (clients->stopping || atomic_load_explicit(clients->total, memory_order_relaxed) >= count_max) {
        return NULL;
    }
    struct client_connection *connection = mem_alloc_zero(clients->alloc, sizeof *connection);
    if (connection == NULL) {
        return NULL;
    }
    connection->handler =
        (struct connection_handler){.opened = on_opened, .frame = on_frame, .drained = on_drained, .closed = on_closed};
    connection->clients = clients;
    connection->state = CLIENT_OPENING;
    list_init(&connection->requests);
    list_init(&connection->held);
    for (unsigned i = 0; i < READ_CLASS_COUNT; i++) {
        list_init(&connection->reads[i].parked);
        list_init(&connection->reads[i].waiting_link);
    }
    if (connection_new(clients->options.loop, &limits, &connection->handler, &connection->connection) != STATUS_OK) {
        mem_free(clients->alloc, connection);
        return NULL;
    }
    connection_attach(connection->connection, stream);
    clients__connection_opened(connection);
    return connection_stream_handler(connection->connection);
}
