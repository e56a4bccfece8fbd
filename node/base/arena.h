/*
 * Many small blocks that die together, with a budget: what one outside message may make us allocate.
 *
 * Blocks are 16-byte aligned. arena_reset forgets them all and keeps the first chunk for the next message.
 */
#ifndef HOLDFAST_BASE_ARENA_H
#define HOLDFAST_BASE_ARENA_H

#include "node/base/alloc.h"

struct arena_chunk;

struct arena {
    struct alloc *alloc;
    struct arena_chunk *chunks; /* newest first */
    size_t chunk_bytes;
    size_t budget_bytes;
    size_t used_bytes;
};

/* Borrows the allocator; allocates nothing yet. budget_bytes bounds the sum of all blocks until a reset. */
void arena_init(struct arena *arena, struct alloc *alloc, size_t chunk_bytes, size_t budget_bytes);
void arena_deinit(struct arena *arena);
/* NULL when the budget or memory is out. Owned by the arena. */
void *arena_alloc(struct arena *arena, size_t size);
void arena_reset(struct arena *arena);

#endif
