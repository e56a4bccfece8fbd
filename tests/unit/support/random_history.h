/*
 * Histories of a real object: clients whose operations begin, take effect at one moment, and end, in random order. So
 * they are linearizable by construction, until somebody changes a result. Operations are also lost on the way, with an
 * unknown outcome, some with effect, or fail for sure, without.
 *
 * Everything is a function of the options. Values of puts are never put twice.
 */
#ifndef HOLDFAST_TESTS_RANDOM_HISTORY_H
#define HOLDFAST_TESTS_RANDOM_HISTORY_H

#include "node/base/random.h"
#include "tests/chaos/check/history.h"

enum { RANDOM_CLIENTS_MAX = 16, RANDOM_KEYS_MAX = 8, RANDOM_TEXT_BYTES = 4096, RANDOM_PARTS_MAX = 3 };

struct random_history_options {
    uint64_t seed;
    uint32_t clients;
    uint32_t keys;
    uint32_t operations;
    uint32_t kinds;           /* bits of 1 << CHECK_GET ... */
    uint32_t values;          /* of puts: this many, again and again; 0: never the same */
    uint32_t batch_percent;   /* several keys at once */
    uint32_t unknown_percent; /* half of them take effect */
    uint32_t failed_percent;
    uint32_t wrong_percent; /* results that are changed, to others that come up */
};

struct random_client {
    bool is_busy;
    bool is_done; /* it took effect, or never will */
    uint32_t operation;
    struct check_part parts[RANDOM_PARTS_MAX];
    uint32_t part_count;
    enum check_outcome outcome;
    bool has_effect;
};

struct random_history {
    struct random_history_options options;
    struct check_history *history;
    struct random random;
    struct random_client clients[RANDOM_CLIENTS_MAX];
    uint32_t keys[RANDOM_KEYS_MAX];
    char state[RANDOM_KEYS_MAX][RANDOM_TEXT_BYTES]; /* what is there */
    bool is_there[RANDOM_KEYS_MAX];
    uint64_t serial;
    uint64_t clock;
    uint64_t client_base; /* a client that lost an operation goes on under another number */
    uint32_t begun;
};

/* Of an empty history, whose keys become "k0", "k1", ... */
void random_history_init(struct random_history *made, struct check_history *history,
                         const struct random_history_options *options);
/* Until as many operations as that have begun, in all. */
void random_history_run(struct random_history *made, uint32_t operations);
/* Until nobody has anything under way. */
void random_history_quiesce(struct random_history *made);
/* The number of what is there now. */
uint32_t random_history_value(struct random_history *made, uint32_t key);

#endif
