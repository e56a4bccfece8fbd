/* Bump allocation from a chain of chunks. */
#include "node/base/arena.h"

#include "node/base/check.h"

#include <assert.h>
#include <stdint.h>

enum { BLOCK_ALIGN = 16 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
    size_t used;
    size_t unused; /* keeps data 16-byte aligned */
    uint8_t data[];
};

static_assert(offsetof(struct arena_chunk, data) % BLOCK_ALIGN == 0, "blocks must be aligned");

void arena_init(struct arena *arena, struct alloc *alloc, size_t chunk_bytes, size_t budget_bytes) {
    CHECK(chunk_bytes > 0);
    *arena = (struct arena){.alloc = alloc, .chunk_bytes = chunk_bytes, .budget_bytes = budget_bytes};
}

static void free_chunks(struct arena *arena, struct arena_chunk *keep) {
    while (arena->chunks != keep) {
        struct arena_chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        mem_free(arena->alloc, chunk);
    }
}

void arena_deinit(struct arena *arena) {
    free_chunks(arena, NULL);
    arena->used_bytes = 0;
}

void *arena_alloc(struct arena *arena, size_t size) {
    if (size > arena->budget_bytes) {
        return NULL;
    }
    size_t need = (size + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
    if (need == 0) {
        need = BLOCK_ALIGN;
    }
    if (need > arena->budget_bytes - arena->used_bytes) {
        return NULL;
    }
    struct arena_chunk *chunk = arena->chunks;
    if (chunk == NULL || need > chunk->size - chunk->used) {
        size_t chunk_size = need > arena->chunk_bytes ? need : arena->chunk_bytes;
        chunk = mem_alloc(arena->alloc, sizeof *chunk + chunk_size);
        if (chunk == NULL) {
            return NULL;
        }
        chunk->next = arena->chunks;
        chunk->size = chunk_size;
        chunk->used = 0;
        arena->chunks = chunk;
    }
    void *block = chunk->data + chunk->used;
    chunk->used += need;
    arena->used_bytes += need;
    return block;
}

void arena_reset(struct arena *arena) {
    struct arena_chunk *first = arena->chunks;
    while (first != NULL && first->next != NULL) {
        first = first->next;
    }
    free_chunks(arena, first);
    if (first != NULL) {
        first->used = 0;
    }
    arena->used_bytes = 0;
}
