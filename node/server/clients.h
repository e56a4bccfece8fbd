/*
 * The client front end of one loop: its connections, and the requests in flight on them.
 *
 * A node has one front end per client thread, or one on the consensus loop where io_threads is 0. All listen on the
 * same address; the env shares its connections among them.
 *
 *   accepted --identity--> greeting --> serving --stop--> draining --> gone
 *                     \--> refusal, finish
 *
 * Owner: its loop.
 */
#ifndef HOLDFAST_SERVER_CLIENTS_H
#define HOLDFAST_SERVER_CLIENTS_H

#include "node/server/config.h"
#include "node/server/consensus.h"

struct clients;

struct clients_options {
    struct env *env;
    struct env_loop *loop;
    struct env_transport *transport;
    struct consensus *consensus;
    const struct config *config;
    struct logger *logger;
    const char *listen_address;
    uint64_t started_us; /* env clock at the node's start */
    /* Connections of all front ends of the node, which client_connections_max bounds; borrowed. NULL: this is the only
     * one. */
    _Atomic uint32_t *connection_total;
};

/* On the loop. STATUS_INVALID, STATUS_IO (address in use: err names it). */
MUST_USE enum status clients_start(const struct clients_options *options, struct clients **ret_clients,
                                   struct error *err);
/* The address that it listens on (port 0 in the options picks one). */
const char *clients_address(const struct clients *clients);
uint32_t clients_connection_count(const struct clients *clients); /* any thread */
/* On the loop: no new connections and requests; connections end when their requests are answered, or after grace_us.
 * When none is left and the consensus actor has given back all requests that it was handed (also those of connections
 * that went before), stopped runs on the loop and clients is gone. */
void clients_stop(struct clients *clients, uint64_t grace_us, void (*stopped)(void *context), void *context);

#endif
