/*
 * A cluster that is played: nodes that speak the client's protocol, with one store behind all of them and faults on
 * demand. Runs on any loop and transport: in a memory_world with virtual time, or on a thread of its own over TCP.
 *
 *   fake_cluster_init; fake_cluster_start; ... faults and leader changed at will ...; fake_cluster_stop
 *
 * Owner: the loop. Fields marked "any" are atomics that tests may set and read from other threads.
 */
#ifndef HOLDFAST_TESTS_FAKE_SERVER_H
#define HOLDFAST_TESTS_FAKE_SERVER_H

#include "node/base/buf.h"
#include "node/env/env.h"
#include "proto/connection.h"
#include "proto/wire.pb-c.h"
#include "tests/unit/support/fake_members.h"

#include <stdatomic.h>

enum { FAKE_NODES_MAX = 5, FAKE_HELD_MAX = 1024 };

enum fake_fault {
    FAKE_SERVES,
    FAKE_MUTE,               /* accepts, and says nothing at all */
    FAKE_HANGS,              /* greets, then says nothing at all */
    FAKE_HOLDS,              /* answers PING only; keeps requests until the fault ends (fake_node_release) */
    FAKE_REFUSES,            /* a refusal instead of the greeting */
    FAKE_ERRORS,             /* every request but STATUS gets error_code and error_outcome */
    FAKE_APPLIES_THEN_DROPS, /* a write is done, then the connection dies without a reply */
    FAKE_DROPS,              /* the connection dies when a data request comes */
    FAKE_GARBLES,            /* replies of the wrong type */
    FAKE_LIES,               /* replies to scans whose lengths or keys are wrong: error_code says how, 0 to 6 */
    FAKE_REVERSES            /* writes of 2 ms are gathered and done in reverse order */
};

struct fake_cluster;
struct fake_peer;

struct fake_node {
    struct fake_cluster *cluster;
    uint32_t index; /* node id = index + 1, name "n<id>" */
    char address[LIMIT_ADDRESS_BYTES];
    struct env_listener *listener;
    struct list peers;
    _Atomic int fault;                /* any; enum fake_fault */
    _Atomic uint32_t fault_count;     /* any; requests (or greetings) that it hits; 0: until changed */
    _Atomic uint32_t error_code;      /* any */
    _Atomic int error_outcome;        /* any; 0: not set in the reply */
    _Atomic uint32_t connections;     /* any; accepted so far */
    _Atomic uint32_t requests;        /* any; data requests received so far */
    _Atomic uint32_t open;            /* any; connections now */
    _Atomic uint32_t pings;           /* any */
    _Atomic uint32_t last_timeout_ms; /* any; of the last request */
    uint64_t upkeep_job;
    uint32_t upkeep_kind;
    uint32_t upkeep_looks; /* until it has ended */
};

struct fake_entry {
    uint8_t *key;
    size_t key_len;
    uint8_t *value;
    size_t value_len;
    uint64_t revision;
};

struct fake_held {
    struct fake_peer *peer; /* NULL: its connection died meanwhile */
    struct connection_frame frame;
    uint8_t *bytes;
};

struct fake_cluster {
    struct env *env;
    struct env_loop *loop;
    struct env_transport *transport;
    uint32_t count;
    struct fake_node nodes[FAKE_NODES_MAX];
    _Atomic int leader;          /* any; index, -1: none */
    _Atomic uint64_t revision;   /* any */
    _Atomic uint64_t applied;    /* any; write requests done */
    _Atomic uint32_t page_limit; /* any; entries of a scan's page; 0: 1000 */
    struct fake_entry *entries;  /* sorted */
    size_t entry_count, entry_capacity;
    struct fake_held held[FAKE_HELD_MAX];
    size_t held_count;
    struct env_timer reverse_timer;
    _Atomic uint32_t odd_nodes;  /* any; bit i: node i holds other data */
    _Atomic uint32_t away_nodes; /* any; bit i: node i has no digest of its data */
    uint32_t compare_looks;      /* until the comparison that was begun is judged */
    struct fake_members members;
    struct arena arena;
};

/* Node i has the id i + 1. Borrows env, loop and transport. */
void fake_cluster_init(struct fake_cluster *cluster, struct env *env, struct env_loop *loop,
                       struct env_transport *transport, uint32_t count);
/* Listens with all nodes. On the loop, or before it runs. address: "memory" (memory:1, memory:2, ...) or "127.0.0.1:0".
 */
void fake_cluster_start(struct fake_cluster *cluster, const char *address);
/* Closes listeners and connections. On the loop, or when it runs no more; the loop must turn once more, then
 * fake_cluster_deinit. */
void fake_cluster_stop(struct fake_cluster *cluster);
void fake_cluster_deinit(struct fake_cluster *cluster);
/* Listener and connections of one node go. On the loop. */
void fake_node_kill(struct fake_node *node); /* once, before a revive */
/* It listens again at its address. On the loop. */
void fake_node_revive(struct fake_node *node);
/* Does and answers what FAKE_HOLDS kept; the node serves from now on. On the loop. */
void fake_node_release(struct fake_node *node);
void fake_node_set_error(struct fake_node *node, uint32_t code, int outcome, uint32_t count);
/* NULL: not there. On the loop, or when it runs no more. */
const struct fake_entry *fake_find(const struct fake_cluster *cluster, struct slice key);
/* Directly into the store. On the loop, or before it runs. */
void fake_put(struct fake_cluster *cluster, struct slice key, struct slice value);
/* "n1=address,n2=address,..." */
void fake_endpoints(const struct fake_cluster *cluster, char *out, size_t size);

#endif
