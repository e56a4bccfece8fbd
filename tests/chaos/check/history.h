/*
 * What clients asked for and were told, in the order in which it happened.
 *
 *   check_history_init -> check_history_key, values_... -> check_history_begin / check_history_end ...
 *                      -> check_run (check.h), as often as wanted -> check_history_deinit
 *
 * The order of the calls of begin and end is the order of time: an operation that ended before another began took
 * effect before it. An operation acts on one key or on several at once; its parts take effect together, in their order.
 * Values are numbers of `values` (values.h), VALUES_NONE where no such key is.
 *
 * An outcome is one of: OK, it took effect between its begin and its end, with the results that its parts name; FAILED,
 * it surely didn't, so it is forgotten; UNKNOWN, it may take effect at any moment from its begin on, or never. So are
 * those that never ended.
 *
 * One thread. Memory grows with the history; what of it an outside file may ask for is the readers' to bound.
 */
#ifndef HOLDFAST_CHAOS_CHECK_HISTORY_H
#define HOLDFAST_CHAOS_CHECK_HISTORY_H

#include "tests/chaos/check/values.h"

enum {
    CHECK_PARTS_MAX = 1024,        /* of an operation */
    CHECK_OPERATIONS_MAX = 1 << 26 /* of a history, and keys, and all parts together */
};

static const uint32_t CHECK_ANY = UINT32_MAX;   /* a result that isn't known */
static const uint32_t CHECK_NEVER = UINT32_MAX; /* the place in time of what didn't end */

enum check_kind {
    CHECK_GET,    /* result: what was seen */
    CHECK_PUT,    /* value: what is there then; VALUES_NONE deletes */
    CHECK_CAS,    /* put `value` if `expected` is there; result: 1 done, 0 another value was there */
    CHECK_APPEND, /* value: what is put behind the present one; result: what is there then */
    CHECK_ADD,    /* delta: what is added to the present decimal number, none being 0; result: what is there then */
    CHECK_KIND_COUNT
};

struct check_part {
    enum check_kind kind;
    uint32_t key;
    uint32_t value;    /* PUT, CAS, APPEND */
    uint32_t expected; /* CAS */
    uint32_t result;   /* GET, CAS, APPEND, ADD; CHECK_ANY */
    int64_t delta;     /* ADD */
};

enum check_outcome { CHECK_UNKNOWN, CHECK_OK, CHECK_FAILED };

struct check_operation {
    uint64_t client;
    uint64_t begin_at; /* for people: microseconds, or lines of the file */
    uint64_t end_at;   /* 0 unless OK */
    uint32_t begin;    /* places in the order of begins and ends, from 0 */
    uint32_t end;      /* CHECK_NEVER unless OK */
    uint32_t part;     /* the first, in check_history.parts */
    uint32_t part_count;
    enum check_outcome outcome;
    bool ended;
};

struct check_history {
    struct alloc *alloc;
    struct values values; /* values and, among them, the names of keys */
    const char *unit;     /* of begin_at and end_at: "us" or "line" */
    uint32_t *key_names;  /* by key */
    uint32_t key_count;
    uint32_t key_capacity;
    uint32_t *keys_by_name; /* by number of a value: key + 1, 0: it names none */
    uint32_t names_capacity;
    struct check_operation *operations; /* in the order of their begins */
    uint32_t operation_count;
    uint32_t operation_capacity;
    struct check_part *parts;
    uint32_t part_count;
    uint32_t part_capacity;
    uint32_t event_count;
};

/* Borrows the allocator. STATUS_NO_MEMORY: nothing is held, check_history_deinit is allowed. */
MUST_USE enum status check_history_init(struct check_history *history, struct alloc *alloc);
void check_history_deinit(struct check_history *history);

/* The key of this name, from 0; made if it is new. STATUS_NO_MEMORY, STATUS_TOO_LARGE. */
MUST_USE enum status check_history_key(struct check_history *history, struct slice name, uint32_t *ret_key);

/* An operation begins. Copies the parts (1 to CHECK_PARTS_MAX; their results are CHECK_ANY as yet, their keys known).
 * A read may have no parts as yet (part_count 0): its end names them. Errors as check_history_key. */
MUST_USE enum status check_history_begin(struct check_history *history, uint64_t client, uint64_t at,
                                         const struct check_part *parts, uint32_t part_count, uint32_t *ret_operation);
/* It ends, once. parts, if not NULL, take the place of those it began with: the same, with results. */
MUST_USE enum status check_history_end(struct check_history *history, uint32_t operation, uint64_t at,
                                       enum check_outcome outcome, const struct check_part *parts, uint32_t part_count);

/* True if it changes nothing, whenever it took effect: gets, and compare-and-sets that found another value. */
bool check_part_is_read(const struct check_part *part);

#endif
