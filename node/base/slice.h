/*
 * Borrowed bytes. A slice never owns what it points to; who made it says how long it lives.
 */
#ifndef HOLDFAST_BASE_SLICE_H
#define HOLDFAST_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t len;
};

#define SLICE_EMPTY ((struct slice){NULL, 0})

static inline struct slice slice_of(const void *data, size_t len) { return (struct slice){(const uint8_t *)data, len}; }

static inline struct slice slice_of_string(const char *text) { return slice_of(text, strlen(text)); }

/* memcmp order; a proper prefix sorts first. */
static inline int slice_compare(struct slice a, struct slice b) {
    size_t shared = a.len < b.len ? a.len : b.len;
    int order = shared > 0 ? memcmp(a.data, b.data, shared) : 0;
    if (order != 0) {
        return order;
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

static inline bool slice_equal(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool slice_starts_with(struct slice text, struct slice prefix) {
    return text.len >= prefix.len && (prefix.len == 0 || memcmp(text.data, prefix.data, prefix.len) == 0);
}

#endif
