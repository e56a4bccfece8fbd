/*
 * Arrays that double. Private to the checker.
 */
#ifndef HOLDFAST_CHAOS_CHECK_GROW_H
#define HOLDFAST_CHAOS_CHECK_GROW_H

#include "node/base/alloc.h"
#include "node/base/status.h"

#include <stdint.h>

enum { GROW_ITEMS_FIRST = 64 };

/* Room for `want` items of `item_bytes` in *items, which holds *capacity: STATUS_TOO_LARGE beyond items_max,
 * STATUS_NO_MEMORY; both leave the array as it was. */
MUST_USE static inline enum status grow_items(struct alloc *alloc, void *items, uint32_t *capacity, size_t item_bytes,
                                              uint64_t want, uint32_t items_max) {
    uint64_t to = *capacity < GROW_ITEMS_FIRST ? GROW_ITEMS_FIRST : *capacity;
    if (want <= *capacity) {
        return STATUS_OK;
    }
    if (want > items_max) {
        return STATUS_TOO_LARGE;
    }
    while (to < want) {
        to *= 2;
    }
    void *grown = mem_resize(alloc, *(void **)items, (size_t)to * item_bytes);
    if (grown == NULL) {
        return STATUS_NO_MEMORY;
    }
    *(void **)items = grown;
    *capacity = (uint32_t)to;
    return STATUS_OK;
}

#endif
