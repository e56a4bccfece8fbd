/*
 * A whole node: everything between the configuration and the wire. The daemon's main runs one on the production env;
 * the simulator runs several on simulated ones. All the same code.
 *
 *   new --> recovering (a worker) --> serving --stop--> stopping --> stopped
 *                  \--------------- failed -----------------/
 *
 * Recovery: lock and identity of the data directory, engine, log, replay up to the recorded commit. Owner: the
 * consensus loop, which the caller made and runs.
 */
#ifndef HOLDFAST_SERVER_NODE_H
#define HOLDFAST_SERVER_NODE_H

#include "node/server/config.h"
#include "node/server/consensus.h"

struct node;

struct node_options {
    struct env *env;
    struct env_loop *loop;                /* the consensus loop */
    const struct config *config;          /* borrowed for the node's life */
    struct logger *logger;                /* borrowed */
    struct env_transport *peer_transport; /* for the consensus loop: listens for and connects to peers */
    /* For each loop that serves clients, once (the consensus loop itself, or io_threads others). Borrowed until the
     * node is free. NULL on failure. Runs on the consensus loop. */
    struct env_transport *(*client_transport)(void *context, struct env_loop *loop, struct error *err);
    /* Callbacks on the loop; never from inside a node_* call. */
    void *context;
    void (*serving)(void *context);
    /* Recovery moved on: records replayed of how many, and how long the rest may take (UINT64_MAX: can't be told yet),
     * for systemd. May be NULL. */
    void (*recovering)(void *context, uint64_t done, uint64_t total, uint64_t left_us);
    /* The node can't go on: recovery failed, the log failed. It has stopped talking; the process is to exit with
     * code 1. */
    void (*failed)(void *context, const struct error *err);
    void (*stopped)(void *context);
    consensus_observe *observe; /* NULL in production */
};

MUST_USE enum status node_new(const struct node_options *options, struct node **ret_node, struct error *err);
/* On the loop: begins recovery. */
void node_start(struct node *node);
/* On the loop: graceful end; requests in flight are answered for at most 2 s. `stopped` follows. */
void node_stop(struct node *node);
/* After stopped or failed. */
void node_free(struct node *node);
/* While it runs: from the end of recovery until the last step of stopping; else NULL. */
struct consensus *node_consensus(struct node *node);
const char *node_client_address(const struct node *node);
const char *node_state_name(const struct node *node); /* "recovering", "serving", "stopping", "failed", ... */

#endif
