/* Strings of bytes as small numbers. The contract is in values.h. */
#include "tests/chaos/check/values.h"

#include "node/base/check.h"
#include "tests/chaos/check/grow.h"

#include <inttypes.h>
#include <stdio.h>

static const uint64_t BASE = 0x9e3779b97f4a7c15u; /* odd: products lose nothing */
static const uint32_t JOIN_END = UINT32_MAX;

static uint32_t bucket_of(uint64_t hash, uint32_t bucket_count) {
    hash ^= hash >> 32;
    return (uint32_t)((hash * BASE) >> 32) & (bucket_count - 1);
}

static uint64_t join_hash(uint32_t head, uint32_t tail) { return ((uint64_t)head << 32 | tail) * BASE; }

/* A larger table of buckets, empty. *buckets is untouched on failure. */
static enum status new_buckets(struct values *values, uint32_t **buckets, uint32_t *bucket_count, uint32_t want,
                               uint32_t empty) {
    uint32_t *made = mem_alloc(values->alloc, (size_t)want * sizeof *made);
    if (made == NULL) {
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < want; i++) {
        made[i] = empty;
    }
    mem_free(values->alloc, *buckets);
    *buckets = made;
    *bucket_count = want;
    return STATUS_OK;
}

static void link_value(struct values *values, uint32_t number) {
    struct value *value = &values->items[number];
    uint32_t bucket = bucket_of(value->hash, values->bucket_count);
    value->next = values->buckets[bucket];
    values->buckets[bucket] = number;
}

static void link_join(struct values *values, uint32_t number) {
    struct value_join *join = &values->joins[number];
    uint32_t bucket = bucket_of(join_hash(join->head, join->tail), values->join_bucket_count);
    join->next = values->join_buckets[bucket];
    values->join_buckets[bucket] = number;
}

/* Room for one more value. In the order of their numbers, so that the newest is at the front of its bucket. */
static enum status reserve_value(struct values *values) {
    enum status status = grow_items(values->alloc, &values->items, &values->capacity, sizeof *values->items,
                                    (uint64_t)values->count + 1, VALUES_MAX);
    if (status != STATUS_OK || values->count < values->bucket_count) {
        return status;
    }
    status = new_buckets(values, &values->buckets, &values->bucket_count, values->capacity, VALUES_NONE);
    for (uint32_t i = 1; status == STATUS_OK && i < values->count; i++) {
        link_value(values, i);
    }
    return status;
}

static enum status reserve_join(struct values *values) {
    enum status status = grow_items(values->alloc, &values->joins, &values->join_capacity, sizeof *values->joins,
                                    (uint64_t)values->join_count + 1, VALUES_MAX);
    if (status != STATUS_OK || values->join_count < values->join_bucket_count) {
        return status;
    }
    status = new_buckets(values, &values->join_buckets, &values->join_bucket_count, values->join_capacity, JOIN_END);
    for (uint32_t i = 0; status == STATUS_OK && i < values->join_count; i++) {
        link_join(values, i);
    }
    return status;
}

enum status values_init(struct values *values, struct alloc *alloc) {
    *values = (struct values){.alloc = alloc};
    buf_init(&values->bytes, alloc, 0);
    enum status status = reserve_value(values);
    if (status == STATUS_OK) {
        values->items[VALUES_NONE] = (struct value){.power = 1};
        values->count = 1;
        status = reserve_value(values);
    }
    if (status != STATUS_OK) {
        values_deinit(values);
    }
    return status;
}

void values_deinit(struct values *values) {
    buf_deinit(&values->bytes);
    mem_free(values->alloc, values->items);
    mem_free(values->alloc, values->buckets);
    mem_free(values->alloc, values->joins);
    mem_free(values->alloc, values->join_buckets);
    *values = (struct values){.alloc = values->alloc};
    buf_init(&values->bytes, values->alloc, 0);
}

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

/* Walks a value from its end: each step is the next flat piece. */
struct backwards {
    const struct values *values;
    uint32_t rest; /* what is in front of the piece; VALUES_NONE: nothing */
    struct slice piece;
};

static void take_piece(struct backwards *walk) {
    const struct value *value = &walk->values->items[walk->rest];
    const struct value *flat = value->head == VALUES_NONE ? value : &walk->values->items[value->tail];
    walk->piece = slice_of(flat->len > 0 ? walk->values->bytes.data + flat->at : NULL, flat->len);
    walk->rest = value->head;
}

static bool equal(const struct values *values, uint32_t left_value, uint32_t right_value) {
    if (values->items[left_value].len != values->items[right_value].len) {
        return false;
    }
    uint64_t left_bytes = values->items[left_value].len;
    struct backwards left = {.values = values, .rest = left_value};
    struct backwards right = {.values = values, .rest = right_value};
    while (left_bytes > 0) {
        while (left.piece.len == 0) {
            take_piece(&left);
        }
        while (right.piece.len == 0) {
            take_piece(&right);
        }
        size_t len = left.piece.len < right.piece.len ? left.piece.len : right.piece.len;
        left.piece.len -= len;
        right.piece.len -= len;
        if (memcmp(left.piece.data + left.piece.len, right.piece.data + right.piece.len, len) != 0) {
            return false;
        }
        left_bytes -= len;
        if (left.piece.len == 0 && right.piece.len == 0 && left.rest == right.rest) {
            return true; /* one and the same from here to the front */
        }
    }
    return true;
}

/* The value at the end of the array gets its place, or goes again if there is an equal one already. */
static uint32_t settle(struct values *values) {
    uint32_t fresh = values->count;
    uint32_t bucket = bucket_of(values->items[fresh].hash, values->bucket_count);
    for (uint32_t at = values->buckets[bucket]; at != VALUES_NONE; at = values->items[at].next) {
        if (values->items[at].hash == values->items[fresh].hash && equal(values, at, fresh)) {
            return at;
        }
    }
    values->count++;
    link_value(values, fresh);
    return fresh;
}

/* ---- Making ------------------------------------------------------------------------------------------------------ */

enum status values_intern(struct values *values, struct slice bytes, uint32_t *ret_value) {
    struct value fresh = {.hash = 1, .power = 1, .at = values->bytes.len, .len = bytes.len};
    enum status status = reserve_value(values);
    if (status == STATUS_OK) {
        status = buf_append(&values->bytes, bytes.data, bytes.len);
    }
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < bytes.len; i++) {
        fresh.hash = fresh.hash * BASE + bytes.data[i] + 1;
        fresh.power *= BASE;
    }
    values->items[values->count] = fresh;
    uint32_t number = values->count;
    *ret_value = settle(values);
    if (*ret_value != number) {
        values->bytes.len = fresh.at;
    }
    return STATUS_OK;
}

static bool find_join(const struct values *values, uint32_t head, uint32_t tail, uint32_t *ret_value) {
    if (values->join_bucket_count == 0) {
        return false;
    }
    uint32_t bucket = bucket_of(join_hash(head, tail), values->join_bucket_count);
    for (uint32_t at = values->join_buckets[bucket]; at != JOIN_END; at = values->joins[at].next) {
        if (values->joins[at].head == head && values->joins[at].tail == tail) {
            *ret_value = values->joins[at].joined;
            return true;
        }
    }
    return false;
}

enum status values_concat(struct values *values, uint32_t head, uint32_t tail, uint32_t *ret_value) {
    CHECK(tail != VALUES_NONE && values->items[tail].head == VALUES_NONE);
    if (head == VALUES_NONE || values->items[tail].len == 0) {
        *ret_value = head == VALUES_NONE ? tail : head;
        return STATUS_OK;
    }
    if (find_join(values, head, tail, ret_value)) {
        return STATUS_OK;
    }
    enum status status = reserve_value(values);
    if (status == STATUS_OK) {
        status = reserve_join(values);
    }
    if (status != STATUS_OK) {
        return status;
    }
    const struct value *first = &values->items[head];
    const struct value *second = &values->items[tail];
    /* A hash is BASE^len + the bytes' part, so the second half's own BASE^len comes off. */
    uint64_t hash = first->hash * second->power + (second->hash - second->power);
    values->items[values->count] =
        (struct value){.hash = hash, .len = first->len + second->len, .head = head, .tail = tail};
    uint32_t joined = settle(values);
    values->joins[values->join_count] = (struct value_join){.head = head, .tail = tail, .joined = joined};
    link_join(values, values->join_count++);
    *ret_value = joined;
    return STATUS_OK;
}

enum status values_intern_number(struct values *values, int64_t number, uint32_t *ret_value) {
    char text[VALUES_NUMBER_BYTES_MAX + 1];
    int len = snprintf(text, sizeof text, "%" PRId64, number);
    return values_intern(values, slice_of(text, (size_t)len), ret_value);
}

static bool parse_number(const char *text, size_t len, int64_t *ret_number) {
    bool negative = len > 0 && text[0] == '-';
    int64_t number = 0;
    if (len == (negative ? 1u : 0u)) {
        return false;
    }
    for (size_t i = negative ? 1 : 0; i < len; i++) {
        int digit = text[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(number, 10, &number) ||
            __builtin_sub_overflow(number, digit, &number)) { /* below zero there is room for one more */
            return false;
        }
    }
    if (!negative && __builtin_sub_overflow(0, number, &number)) {
        return false;
    }
    *ret_number = number;
    return true;
}

enum status values_add(struct values *values, uint32_t value, int64_t delta, uint32_t *ret_value) {
    char text[VALUES_NUMBER_BYTES_MAX];
    int64_t number = 0;
    if (value != VALUES_NONE) {
        if (values->items[value].len > sizeof text) {
            return STATUS_INVALID;
        }
        size_t len = values_copy(values, value, (uint8_t *)text, sizeof text);
        if (!parse_number(text, len, &number)) {
            return STATUS_INVALID;
        }
    }
    if (__builtin_add_overflow(number, delta, &number)) {
        return STATUS_INVALID;
    }
    return values_intern_number(values, number, ret_value);
}

/* ---- Showing, forgetting ----------------------------------------------------------------------------------------- */

/* The bytes of the value at places from `from` on, `count` of them, which are there. */
static void copy_part(const struct values *values, uint32_t value, uint64_t from, uint8_t *out, uint64_t count) {
    uint64_t end = values->items[value].len; /* where the piece that comes next ends */
    struct backwards walk = {.values = values, .rest = value};
    while (end > from && count > 0) {
        take_piece(&walk);
        uint64_t begin = end - walk.piece.len;
        uint64_t low = begin > from ? begin : from;
        uint64_t high = end < from + count ? end : from + count;
        if (low < high) {
            memcpy(out + (low - from), walk.piece.data + (low - begin), high - low);
        }
        end = begin;
    }
}

size_t values_copy(const struct values *values, uint32_t value, uint8_t *out, size_t capacity) {
    uint64_t len = values->items[value].len;
    size_t count = len < capacity ? (size_t)len : capacity;
    copy_part(values, value, 0, out, count);
    return count;
}

size_t values_copy_end(const struct values *values, uint32_t value, uint8_t *out, size_t capacity) {
    uint64_t len = values->items[value].len;
    size_t count = len < capacity ? (size_t)len : capacity;
    copy_part(values, value, len - count, out, count);
    return count;
}

struct values_mark values_mark(const struct values *values) {
    return (
        struct values_mark){.count = values->count, .join_count = values->join_count, .bytes_len = values->bytes.len};
}

void values_forget(struct values *values, struct values_mark mark) {
    CHECK(mark.count >= 1 && mark.count <= values->count && mark.join_count <= values->join_count);
    while (values->count > mark.count) { /* the newest of a bucket is at its front */
        const struct value *value = &values->items[--values->count];
        values->buckets[bucket_of(value->hash, values->bucket_count)] = value->next;
    }
    while (values->join_count > mark.join_count) {
        const struct value_join *join = &values->joins[--values->join_count];
        values->join_buckets[bucket_of(join_hash(join->head, join->tail), values->join_bucket_count)] = join->next;
    }
    values->bytes.len = mark.bytes_len;
}
