/*
 * What a torture run does: a list of operations made from a seed, and what the store must hold after any of them.
 *
 * An actor is one writer with keys of its own (all of them start with its number), so that several can work on one
 * engine at once and each still knows what it must read. A write has a number (1, 2, ...) within its actor; a value is
 * made from the number of the write and its place in it, so that any byte that doesn't belong is noticed.
 *
 * A model is what an actor's keys hold: for each key in order, which value, or none. Memory is the caller's; nothing
 * here blocks, allocates or fails.
 */
#ifndef HOLDFAST_TESTS_TORTURE_SCRIPT_H
#define HOLDFAST_TESTS_TORTURE_SCRIPT_H

#include "node/base/limits.h"
#include "node/base/random.h"
#include "node/base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TORTURE_ACTORS_MAX = 3,
    TORTURE_KEYS = 72,
    TORTURE_EFFECTS_MAX = 10, /* of one write */
    TORTURE_SLOTS = 4,        /* snapshots held at once */
    TORTURE_VALUE_BYTES_MAX = 40 * KIB,
    TORTURE_WRITE_BYTES_MAX = TORTURE_EFFECTS_MAX * 41 * KIB,
    TORTURE_KEY_BYTES_MAX = 512
};

enum operation_kind {
    OPERATION_PUT,
    OPERATION_DELETE,
    OPERATION_DELETE_RANGE,
    OPERATION_BATCH,
    OPERATION_WRITES, /* the kinds before it */
    OPERATION_SYNC = OPERATION_WRITES,
    OPERATION_FLUSH,
    OPERATION_COMPACT,
    OPERATION_SNAPSHOT,
    OPERATION_RELEASE,
    OPERATION_GET,
    OPERATION_MULTI_GET,
    OPERATION_SCAN,
    OPERATION_WALK,
    OPERATION_KINDS
};

struct operation {
    enum operation_kind kind;
    bool sync;
    unsigned from;  /* keys, by their place in the order */
    unsigned to;    /* behind from, or TORTURE_KEYS: no bound */
    unsigned slot;  /* TORTURE_SLOTS: none */
    bool dead;      /* left out; a write that surely failed: it has no effects */
    uint32_t write; /* number of the write; 0: it writes nothing */
    uint64_t salt;
};

/* How often which kind comes (parts of their sum), and how large values are. */
struct script_profile {
    unsigned weights[OPERATION_KINDS];
    unsigned sync_percent;
    unsigned large_percent; /* of values: on both sides of what lies apart from tables, to TORTURE_VALUE_BYTES_MAX */
    unsigned value_bytes;   /* most values are shorter than this */
};

struct script {
    unsigned actor;
    uint64_t seed;
    struct script_profile profile;
    uint32_t count;
    struct operation *operations; /* the caller's, room for count */
    uint32_t writes;
};

/* Fills in `count` operations. */
void script_make(struct script *script, unsigned actor, uint64_t seed, const struct script_profile *profile,
                 struct operation *operations, uint32_t count);
/* For messages: "put 12 sync". */
const char *operation_text(const struct operation *operation, char text[96]);

/* ---- Keys and values -------------------------------------------------------------------------------------------- */

/* The key at this place of the order; borrowed from out. */
struct slice script_key(unsigned actor, unsigned place, uint8_t out[TORTURE_KEY_BYTES_MAX]);
/* The place of a key, or TORTURE_KEYS if it is none of the actor's. */
unsigned script_place(unsigned actor, struct slice key);
/* The value with this id, borrowed from out. Ids are never 0. */
struct slice script_value(const struct script *script, uint32_t id, uint8_t out[TORTURE_VALUE_BYTES_MAX]);

/* ---- What writes do --------------------------------------------------------------------------------------------- */

enum effect_kind { EFFECT_PUT, EFFECT_DELETE, EFFECT_DELETE_RANGE };

struct effect {
    enum effect_kind kind;
    unsigned from;
    unsigned to; /* of a range */
    uint32_t id; /* of what is put */
};

/* In order; returns how many. Only of an operation that writes. */
unsigned operation_effects(const struct operation *operation, struct effect effects[TORTURE_EFFECTS_MAX]);

struct model {
    uint32_t ids[TORTURE_KEYS]; /* 0: none */
};

void model_apply(struct model *model, const struct operation *operation);
/* Everything up to and with write number `writes` of the script. */
void model_after(struct model *model, const struct script *script, uint32_t writes);
bool model_equal(const struct model *a, const struct model *b);
/* The next place at or behind (step 1) or at or in front (step -1) that holds something, within [from, to), or
 * TORTURE_KEYS. */
unsigned model_next(const struct model *model, int place, int step, unsigned from, unsigned to);

#endif
