/*
 * The wire: connections like TCP's, between any two nodes, with delay, partitions, resets and silence (pipe.c: bytes).
 *
 * Bytes of a pipe arrive in order, in segments; segments of different connections overtake each other. A link that is
 * down, or a node without power, holds what is sent; it goes on when the link is back, or the sender's patience ends.
 * What arrives for a stream that is gone is answered with a reset.
 *
 *   ASKING --listener--> QUEUED --accepted--> GREETED --answer arrives--> OPEN
 *     ^ |                  |
 *     | v nobody listens   v not accepted
 *   REFUSED (an answer that is lost is asked for again; without any: timed out)
 */
#include "tests/sim/network_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ASK_AGAIN_US = 200 * 1000 };

static void handshake_event(struct sim_event *event);
static void reset_event(struct sim_event *event);

static struct sim_network_options *options_of(struct sim *sim) { return &sim->options.network; }

uint64_t sim__network_delay_us(struct sim *sim) {
    const struct sim_network_options *options = options_of(sim);
    uint64_t spread = options->delay_us_max > options->delay_us_min ? options->delay_us_max - options->delay_us_min : 0;
    return options->delay_us_min + sim__draw_us(&sim->network->random, spread, options->slow_ppm, options->slow_us_max);
}

struct sim_network *sim__network_new(struct sim *sim) {
    CHECK(sim->options.network.segment_bytes_max >= 16 && sim->options.network.bytes_per_ms > 0);
    CHECK(sim->options.network.pipe_bytes_max > 0 && sim->options.network.silence_timeout_us > 0);
    struct sim_network *network = sim__alloc(sizeof *network);
    network->sim = sim;
    random_seed(&network->random, sim->seed ^ 0x77697265);
    list_init(&network->connections);
    list_init(&network->listeners);
    return network;
}

void sim__network_free(struct sim_network *network) {
    CHECK(list_is_empty(&network->connections) && list_is_empty(&network->listeners));
    sim__free(network);
}

/* ---- Connections ------------------------------------------------------------------------------------------------ */

static struct sim_node *node_by_name(struct sim *sim, const char *name, size_t len) {
    for (uint32_t i = 0; i < sim->node_count; i++) {
        if (strlen(sim->nodes[i]->name) == len && memcmp(sim->nodes[i]->name, name, len) == 0) {
            return sim->nodes[i];
        }
    }
    return NULL;
}

static struct sim_listener *listener_by_address(struct sim *sim, const char *address) {
    LIST_FOREACH (link, &sim->network->listeners) {
        struct sim_listener *listener = LIST_ENTRY(link, struct sim_listener, link);
        if (strcmp(listener->address, address) == 0) {
            return listener;
        }
    }
    return NULL;
}

/* The node that an address names, by its host part or by who listens there. */
static struct sim_node *node_of_address(struct sim *sim, const char *address) {
    struct sim_node *node = node_by_name(sim, address, strcspn(address, ":"));
    if (node == NULL) {
        struct sim_listener *listener = listener_by_address(sim, address);
        node = listener == NULL ? NULL : listener->node;
    }
    return node;
}

struct connection *sim__connection_new(struct sim_node *node, const char *address, struct sim_stream *stream) {
    struct sim *sim = node->sim;
    struct connection *connection = sim__alloc(sizeof *connection);
    connection->sim = sim;
    connection->id = ++sim->network->connection_sequence;
    connection->state = CONNECTION_ASKING;
    (void)snprintf(connection->address, sizeof connection->address, "%s", address);
    connection->handshake.run = handshake_event;
    connection->deadline_us = sim->now_us + options_of(sim)->connect_timeout_us;
    list_init(&connection->queue_link);
    for (int side = 0; side < 2; side++) {
        sim__pipe_init(&connection->pipes[side], connection);
        connection->ends[side].connection = connection;
        connection->ends[side].reset.run = reset_event;
    }
    connection->ends[0].node = node;
    connection->ends[0].stream = stream;
    connection->ends[0].shows = node->identity;
    (void)snprintf(connection->ends[0].shows.address, LIMIT_ADDRESS_BYTES, "%s:%u", node->name, node->next_port);
    node->next_port = (uint16_t)(node->next_port == UINT16_MAX ? UINT16_MAX / 2 : node->next_port + 1);
    connection->ends[1].node = node_of_address(sim, address);
    list_push_back(&sim->network->connections, &connection->link);
    sim->stats.connections++;
    sim__note(sim, node, SIM_TRACE_CONNECT, connection->id, 0, address);
    sim__event_schedule(sim, &connection->handshake, sim->now_us + sim__network_delay_us(sim));
    return connection;
}

/* Frees the connection if nobody can notice it any more. */
static void release(struct connection *connection) {
    if (connection->ends[0].stream != NULL || connection->ends[1].stream != NULL) {
        return;
    }
    struct sim *sim = connection->sim;
    if (connection->state == CONNECTION_QUEUED) {
        list_remove(&connection->queue_link);
        connection->listener->queue_count--;
    }
    for (int side = 0; side < 2; side++) {
        struct pipe *pipe = &connection->pipes[side];
        sim__pipe_drop_flying(pipe);
        sim__pipe_drop_arrived(pipe);
        CHECK(pipe->bytes == 0 && pipe->arrived_bytes == 0);
        sim__event_cancel(sim, &pipe->window);
        sim__event_cancel(sim, &connection->ends[side].reset);
    }
    sim__event_cancel(sim, &connection->handshake);
    list_remove(&connection->link);
    sim__free(connection);
}

/* True while nothing that `side` sends can reach the other side. */
bool sim__connection_is_cut(const struct connection *connection, int side) {
    const struct sim_node *from = connection->ends[side].node;
    const struct sim_node *to = connection->ends[1 - side].node;
    if (to == NULL || to->state == NODE_OFF || to->state == NODE_NEW) {
        return true;
    }
    return from != NULL && from != to && connection->sim->network->down[from->index][to->index];
}

/* ---- Resets ----------------------------------------------------------------------------------------------------- */

void sim__connection_reset(struct connection *connection, int side, int sys, bool comes_from_peer) {
    struct sim *sim = connection->sim;
    struct end *end = &connection->ends[side];
    if (end->stream == NULL || end->reset.slot != 0) {
        return;
    }
    end->reset_sys = sys;
    end->reset_comes_from_peer = comes_from_peer;
    sim__event_schedule(sim, &end->reset, sim->now_us + sim__network_delay_us(sim));
}

/* A reset is sent once. Without one, a side that sends will be answered by another, one that asked asks again, and
 * others never learn. */
static void lose_reset(struct connection *connection) {
    if (connection->state == CONNECTION_REFUSED) {
        connection->state = CONNECTION_ASKING;
        sim__event_schedule(connection->sim, &connection->handshake, connection->sim->now_us + ASK_AGAIN_US);
    }
}

static void reset_event(struct sim_event *event) {
    struct end *end = CONTAINER_OF(event, struct end, reset);
    struct connection *connection = end->connection;
    struct sim *sim = connection->sim;
    int side = end == &connection->ends[1];
    if (end->stream == NULL) {
        return;
    }
    if (end->reset_comes_from_peer && sim__connection_is_cut(connection, 1 - side)) {
        lose_reset(connection);
        return;
    }
    struct pipe *incoming = &connection->pipes[1 - side];
    sim__pipe_drop_flying(incoming);
    sim__pipe_drop_flying(&connection->pipes[side]);
    connection->pipes[side].fin_sent = true; /* bytes are missing: no orderly end may follow */
    end->is_reset = true;
    if (random_chance(&sim->network->random, 1, 2)) {
        sim__pipe_drop_arrived(incoming);
    }
    sim->stats.resets++;
    sim__note(sim, end->node, SIM_TRACE_RESET, connection->id, (uint64_t)end->reset_sys, "");
    sim__stream_error(end->stream, end->reset_sys);
}

/* ---- Handshakes ------------------------------------------------------------------------------------------------- */

/* Nobody answered: the question is repeated until the caller's patience ends. */
static void ask_again(struct connection *connection) {
    struct sim *sim = connection->sim;
    if (sim->now_us < connection->deadline_us) {
        sim__event_schedule(sim, &connection->handshake, sim->now_us + ASK_AGAIN_US);
        return;
    }
    sim->stats.connects_failed++;
    sim__note(sim, connection->ends[0].node, SIM_TRACE_REFUSE, connection->id, ETIMEDOUT, connection->address);
    sim__stream_error(connection->ends[0].stream, ETIMEDOUT);
}

static void refuse(struct connection *connection, int sys) {
    connection->state = CONNECTION_REFUSED;
    connection->sim->stats.connects_failed++;
    sim__note(connection->sim, connection->ends[0].node, SIM_TRACE_REFUSE, connection->id, (uint64_t)sys,
              connection->address);
    sim__connection_reset(connection, 0, sys, true);
}

/* Side 0's question arrived. */
static void handshake_asked(struct connection *connection) {
    struct sim *sim = connection->sim;
    struct end *server = &connection->ends[1];
    if (server->node == NULL) {
        server->node = node_of_address(sim, connection->address);
    }
    if (sim__connection_is_cut(connection, 0)) {
        ask_again(connection);
        return;
    }
    struct sim_listener *listener = listener_by_address(sim, connection->address);
    bool refused = random_chance(&sim->network->random, options_of(sim)->refuse_ppm, PPM);
    if (listener == NULL || refused || listener->queue_count >= ACCEPT_QUEUE_MAX) {
        refuse(connection, ECONNREFUSED);
        return;
    }
    server->node = listener->node;
    server->shows = listener->node->identity;
    (void)snprintf(server->shows.address, sizeof server->shows.address, "%s", listener->address);
    connection->state = CONNECTION_QUEUED;
    connection->listener = listener;
    listener->queue_count++;
    list_push_back(&listener->queue, &connection->queue_link);
    sim__notify(listener->loop, &listener->notice);
}

/* The answer arrived at side 0, on its own or with the first bytes. */
void sim__connection_become_open(struct connection *connection) {
    if (connection->state == CONNECTION_GREETED && connection->ends[0].stream != NULL) {
        connection->state = CONNECTION_OPEN;
        sim__event_cancel(connection->sim, &connection->handshake);
        sim__stream_opened(connection->ends[0].stream);
    }
}

static void handshake_event(struct sim_event *event) {
    struct connection *connection = CONTAINER_OF(event, struct connection, handshake);
    if (connection->ends[0].stream == NULL) {
        return; /* side 0 left; side 1 will notice */
    }
    if (connection->state == CONNECTION_ASKING) {
        handshake_asked(connection);
    } else if (sim__connection_is_cut(connection, 1)) {
        ask_again(connection);
    } else {
        sim__connection_become_open(connection);
    }
}

struct connection *sim__listener_pop(struct sim_listener *listener) {
    struct list *link = list_pop_front(&listener->queue);
    if (link == NULL) {
        return NULL;
    }
    listener->queue_count--;
    struct connection *connection = LIST_ENTRY(link, struct connection, queue_link);
    connection->state = CONNECTION_GREETED;
    connection->listener = NULL;
    return connection;
}

void sim__connection_accepted(struct connection *connection, struct sim_stream *stream) {
    struct sim *sim = connection->sim;
    connection->ends[1].stream = stream;
    if (stream == NULL && connection->ends[0].stream == NULL) {
        release(connection);
        return;
    }
    if (stream == NULL) {
        refuse(connection, ECONNRESET);
        return;
    }
    sim__note(sim, connection->ends[1].node, SIM_TRACE_ACCEPT, connection->id, 0, connection->ends[0].shows.address);
    sim__event_schedule(sim, &connection->handshake, sim->now_us + sim__network_delay_us(sim));
}

void sim__listener_remove(struct sim_listener *listener) {
    list_remove(&listener->link);
    struct connection *connection;
    while ((connection = sim__listener_pop(listener)) != NULL) {
        refuse(connection, ECONNREFUSED);
    }
}

/* ---- Leaving ---------------------------------------------------------------------------------------------------- */

void sim__connection_leave(struct connection *connection, int side) {
    struct end *end = &connection->ends[side];
    struct pipe *incoming = &connection->pipes[1 - side];
    bool unread = incoming->bytes > 0;
    end->stream = NULL;
    sim__event_cancel(connection->sim, &end->reset);
    sim__pipe_drop_arrived(incoming);
    if (unread) {
        sim__connection_reset(connection, 1 - side, ECONNRESET, true);
    } else if (!connection->pipes[side].fin_sent && connection->ends[1 - side].stream != NULL) {
        (void)sim__pipe_push(connection, side, 0, true);
    }
    release(connection);
}

/* The node of this side is gone without a word, or its kernel speaks for it. */
static void side_crashed(struct connection *connection, int side, enum sim_crash crash) {
    struct sim *sim = connection->sim;
    struct end *end = &connection->ends[side];
    if (end->stream == NULL) {
        return;
    }
    sim__stream_drop(end->stream);
    struct pipe *outgoing = &connection->pipes[side];
    if (crash == SIM_CRASH_PROCESS) {
        if (random_chance(&sim->network->random, 1, 2)) {
            sim__connection_reset(connection, 1 - side, ECONNRESET, true);
            outgoing->fin_sent = true;
        }
        sim__connection_leave(connection, side);
        return;
    }
    end->stream = NULL;
    sim__event_cancel(sim, &end->reset);
    sim__pipe_drop_arrived(&connection->pipes[1 - side]);
    release(connection);
}

void sim__network_drop(struct sim_node *node, enum sim_crash crash) {
    struct sim_network *network = node->sim->network;
    LIST_FOREACH (listener_link, &network->listeners) {
        struct sim_listener *listener = LIST_ENTRY(listener_link, struct sim_listener, link);
        if (listener->node == node) {
            sim__listener_remove(listener);
        }
    }
    LIST_FOREACH (link, &network->connections) {
        struct connection *connection = LIST_ENTRY(link, struct connection, link);
        if (connection->ends[0].node == node && connection->ends[1].node == node) {
            /* Both go at once: the second look would find the connection freed. */
            if (connection->ends[0].stream != NULL) {
                sim__stream_drop(connection->ends[0].stream);
            }
            if (connection->ends[1].stream != NULL) {
                sim__stream_drop(connection->ends[1].stream);
            }
            connection->ends[0].stream = NULL;
            connection->ends[1].stream = NULL;
            release(connection);
        } else if (connection->ends[0].node == node) {
            side_crashed(connection, 0, crash);
        } else if (connection->ends[1].node == node) {
            side_crashed(connection, 1, crash);
        }
    }
}

/* ---- Links ------------------------------------------------------------------------------------------------------ */

static void go_on_all(struct sim *sim) {
    LIST_FOREACH (link, &sim->network->connections) {
        sim__pipe_go_on(LIST_ENTRY(link, struct connection, link), 0);
        sim__pipe_go_on(LIST_ENTRY(link, struct connection, link), 1);
    }
}

void sim__network_node_started(struct sim_node *node) { go_on_all(node->sim); }

struct sim_network_options *sim_network_options(struct sim *sim) {
    return options_of(sim);
}

void sim_link_set(struct sim_node *from, struct sim_node *to, bool up) {
    struct sim *sim = from->sim;
    CHECK(from != to && to->sim == sim);
    bool *down = &sim->network->down[from->index][to->index];
    if (*down == !up) {
        return;
    }
    *down = !up;
    sim__note(sim, from, SIM_TRACE_LINK, to->index, up, to->name);
    if (up) {
        go_on_all(sim);
    } else {
        sim->stats.partitions++;
    }
}

void sim_partition(struct sim_node *a, struct sim_node *b) {
    sim_link_set(a, b, false);
    sim_link_set(b, a, false);
}

void sim_heal(struct sim_node *a, struct sim_node *b) {
    sim_link_set(a, b, true);
    sim_link_set(b, a, true);
}

void sim_heal_all(struct sim *sim) {
    for (uint32_t from = 0; from < sim->node_count; from++) {
        for (uint32_t to = 0; to < sim->node_count; to++) {
            if (from != to) {
                sim_link_set(sim->nodes[from], sim->nodes[to], true);
            }
        }
    }
}

void sim_reset_connections(struct sim_node *a, struct sim_node *b) {
    LIST_FOREACH (link, &a->sim->network->connections) {
        struct connection *connection = LIST_ENTRY(link, struct connection, link);
        const struct sim_node *from = connection->ends[0].node;
        const struct sim_node *to = connection->ends[1].node;
        if ((from == a && to == b) || (from == b && to == a)) {
            sim__connection_reset(connection, 0, ECONNRESET, false);
            sim__connection_reset(connection, 1, ECONNRESET, false);
        }
    }
}
