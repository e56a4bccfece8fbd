/*
 * The states that a search has been in: strings of 64-bit words, stored one behind the other, found by hash, compared
 * whole. One thread.
 */
#ifndef HOLDFAST_CHAOS_CHECK_SEEN_H
#define HOLDFAST_CHAOS_CHECK_SEEN_H

#include "node/base/alloc.h"
#include "node/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct seen {
    struct alloc *alloc;
    uint64_t bytes_max;
    uint64_t *words; /* of each entry: its hash, then its words; their number follows from the words themselves */
    uint32_t word_count;
    uint32_t word_capacity;
    uint32_t *table; /* places in `words`, plus 1; 0: free */
    uint32_t table_size;
    uint32_t entry_count;
    bool is_full; /* something was not remembered */
};

/* Borrows the allocator; allocates nothing yet. */
void seen_init(struct seen *seen, struct alloc *alloc, uint64_t bytes_max);
void seen_deinit(struct seen *seen);
/* False if an equal string was added before. No string is a proper front of another: the caller's words say how many
 * follow. Where the bytes are used up, or memory is out, it isn't remembered, and the answer is true: new. */
bool seen_add(struct seen *seen, const uint64_t *words, uint32_t count);

#endif
