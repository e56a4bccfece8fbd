/*
 * Strings of bytes as small numbers: equal strings, and only they, have the same number. Number 0 (VALUES_NONE) stands
 * for "nothing is there", which is another thing than the empty string.
 *
 *   values_init -> values_intern, values_concat, values_add ... -> values_deinit
 *   values_mark -> ... -> values_forget      what came since is gone, and its numbers will be given out again
 *
 * A search appends to long strings again and again, on many paths: a concatenation is therefore kept as its two halves,
 * and has a hash without being spelled out; only equal hashes make bytes be compared. That the same two halves come
 * together again costs a look-up.
 *
 * Invariant: a value's halves have smaller numbers than itself, and its second half is spelled out ("flat"); so chains
 * end, and forgetting the newest leaves no loose end. One thread.
 */
#ifndef HOLDFAST_CHAOS_CHECK_VALUES_H
#define HOLDFAST_CHAOS_CHECK_VALUES_H

#include "node/base/buf.h"

enum {
    VALUES_NONE = 0,
    VALUES_MAX = 1 << 28,
    VALUES_SHOWN_BYTES_MAX = 48,
    VALUES_NUMBER_BYTES_MAX = 20 /* of a number in decimal, with its sign */
};

struct value {
    uint64_t hash;
    uint64_t power; /* of a flat value: what the hash in front of it is multiplied with */
    uint64_t at;    /* of a flat value: in `bytes` */
    uint64_t len;
    uint32_t head; /* the first half, VALUES_NONE: flat */
    uint32_t tail; /* the second half */
    uint32_t next; /* in its bucket; VALUES_NONE: the last */
};

/* Two halves that came together before. */
struct value_join {
    uint32_t head;
    uint32_t tail;
    uint32_t joined;
    uint32_t next; /* in its bucket; UINT32_MAX: the last */
};

struct values {
    struct alloc *alloc;
    struct buf bytes;
    struct value *items; /* [0] is VALUES_NONE */
    uint32_t count;
    uint32_t capacity;
    uint32_t *buckets;
    uint32_t bucket_count;
    struct value_join *joins;
    uint32_t join_count;
    uint32_t join_capacity;
    uint32_t *join_buckets;
    uint32_t join_bucket_count;
};

struct values_mark {
    uint32_t count;
    uint32_t join_count;
    size_t bytes_len;
};

/* Borrows the allocator. STATUS_NO_MEMORY: nothing is held, values_deinit is allowed. */
MUST_USE enum status values_init(struct values *values, struct alloc *alloc);
void values_deinit(struct values *values);

/* The number of these bytes. Copies them if they are new. STATUS_NO_MEMORY, STATUS_TOO_LARGE. */
MUST_USE enum status values_intern(struct values *values, struct slice bytes, uint32_t *ret_value);
/* Appends: head may be VALUES_NONE, which appends to nothing; tail is flat. Errors as values_intern. */
MUST_USE enum status values_concat(struct values *values, uint32_t head, uint32_t tail, uint32_t *ret_value);
/* The decimal number `value` (VALUES_NONE counts as 0) plus delta. STATUS_INVALID: it is no number, or the sum has no
 * place in 64 bits. Else errors as values_intern. */
MUST_USE enum status values_add(struct values *values, uint32_t value, int64_t delta, uint32_t *ret_value);
MUST_USE enum status values_intern_number(struct values *values, int64_t number, uint32_t *ret_value);

/* The last `capacity` bytes at most; returns their number. */
size_t values_copy_end(const struct values *values, uint32_t value, uint8_t *out, size_t capacity);
/* The first `capacity` bytes at most; returns their number. */
size_t values_copy(const struct values *values, uint32_t value, uint8_t *out, size_t capacity);
static inline uint64_t values_len(const struct values *values, uint32_t value) { return values->items[value].len; }

struct values_mark values_mark(const struct values *values);
void values_forget(struct values *values, struct values_mark mark);

#endif
