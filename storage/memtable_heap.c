/* Chunks, what is taken from them, and how to find it again. */
#include "storage/memtable_heap.h"

#include "node/base/check.h"

#include <assert.h>

enum { CHUNK_ALIGN = 64 };

static_assert(sizeof(struct heap_chunk) == CHUNK_ALIGN, "a chunk's head is one cache line");

/* `whole` bytes, the chunk's head included. */
static struct heap_chunk *chunk_new(struct heap *heap, size_t whole) {
    struct heap_chunk *chunk = whole % ALLOC_HUGE_BYTES == 0 ? mem_alloc_huge(heap->alloc, whole)
                                                             : mem_alloc_aligned(heap->alloc, CHUNK_ALIGN, whole);
    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->size = whole - sizeof *chunk;
    }
    return chunk;
}

void heap_init(struct heap *heap, struct alloc *alloc, size_t chunk_bytes, size_t align) {
    CHECK(align > 0 && (align & (align - 1)) == 0 && align <= CHUNK_ALIGN);
    CHECK(chunk_bytes >= 16 * sizeof(struct heap_chunk));
    *heap = (struct heap){.alloc = alloc, .chunk_bytes = chunk_bytes, .align = align};
}

static void free_chunks(struct heap *heap, struct heap_chunk *chunk, const struct heap_chunk *end) {
    while (chunk != end) {
        struct heap_chunk *next = chunk->next;
        mem_free(heap->alloc, chunk);
        chunk = next;
    }
}

void heap_deinit(struct heap *heap) {
    free_chunks(heap, heap->newest, NULL);
    free_chunks(heap, heap->spare, NULL);
    heap_init(heap, heap->alloc, heap->chunk_bytes, heap->align);
}

/* Chunks of the common size become spare, the others go. */
static void give_back(struct heap *heap, struct heap_chunk *chunk, const struct heap_chunk *end) {
    while (chunk != end) {
        struct heap_chunk *next = chunk->next;
        if (chunk->size == heap->chunk_bytes - sizeof *chunk) {
            chunk->next = heap->spare;
            heap->spare = chunk;
        } else {
            mem_free(heap->alloc, chunk);
        }
        chunk = next;
    }
}

void heap_clear(struct heap *heap) {
    give_back(heap, heap->newest, NULL);
    heap->newest = NULL;
    heap->oldest = NULL;
    heap->at = NULL;
    heap->end = NULL;
    heap->bytes = 0;
}

/* The chunk becomes the newest: what was taken since the one before did ends here. */
static void push(struct heap *heap, struct heap_chunk *chunk, bool alone, size_t size) {
    struct heap_chunk *before = heap->newest;
    if (before == NULL) {
        heap->oldest = chunk;
    } else {
        before->newer = chunk;
        atomic_store_explicit(before->is_alone ? &before->rest_end : &before->end, heap->at, memory_order_relaxed);
    }
    chunk->next = before;
    chunk->newer = NULL;
    chunk->is_alone = alone;
    chunk->rest = alone ? heap->at : NULL;
    atomic_store_explicit(&chunk->end, alone ? chunk->data + size : NULL, memory_order_relaxed);
    atomic_store_explicit(&chunk->rest_end, NULL, memory_order_relaxed);
    heap->newest = chunk;
}

void *heap_take_slowly(struct heap *heap, size_t size) {
    bool alone = size > heap->chunk_bytes / 4;
    struct heap_chunk *chunk = alone ? NULL : heap->spare;
    if (chunk != NULL) {
        heap->spare = chunk->next;
    } else {
        chunk = chunk_new(heap, alone ? sizeof *chunk + size : heap->chunk_bytes);
        if (chunk == NULL) {
            return NULL;
        }
    }
    push(heap, chunk, alone, size);
    if (!alone) {
        heap->at = chunk->data + size;
        heap->end = chunk->data + chunk->size;
    }
    heap->bytes += size;
    return chunk->data;
}

bool heap_reserve_slowly(struct heap *heap, size_t bytes, size_t piece_bytes_max) {
    CHECK(piece_bytes_max <= heap->chunk_bytes / 4);
    struct heap_chunk *added = NULL;
    size_t there = (size_t)(heap->end - heap->at);
    /* At the end of a chunk less than one piece is left over. */
    for (const struct heap_chunk *chunk = heap->spare; chunk != NULL && there < bytes; chunk = chunk->next) {
        there += chunk->size - piece_bytes_max;
    }
    bytes += piece_bytes_max;
    while (there < bytes) {
        struct heap_chunk *chunk = chunk_new(heap, heap->chunk_bytes);
        if (chunk == NULL) {
            free_chunks(heap, added, NULL);
            return false;
        }
        chunk->next = added;
        added = chunk;
        there += chunk->size - piece_bytes_max;
    }
    while (added != NULL) {
        struct heap_chunk *chunk = added;
        added = chunk->next;
        chunk->next = heap->spare;
        heap->spare = chunk;
    }
    return true;
}

void heap_rewind(struct heap *heap, const struct heap_mark *mark) {
    give_back(heap, heap->newest, mark->newest);
    heap->newest = mark->newest;
    if (heap->newest == NULL) {
        heap->oldest = NULL;
    } else { /* what its end is isn't known again */
        atomic_store_explicit(heap->newest->is_alone ? &heap->newest->rest_end : &heap->newest->end, NULL,
                              memory_order_relaxed);
    }
    heap->at = mark->at;
    heap->end = mark->end;
    heap->bytes = mark->bytes;
}

/* ---- Walking ---------------------------------------------------------------------------------------------------
 *
 * A walker never goes behind the piece that he knows to be the last, so of a chunk whose end he needs the next one was
 * begun before he came to know of that piece. A chunk that ends meanwhile may be seen with its end or without: he isn't
 * there yet. */

void heap_walk_first(const struct heap *heap, struct heap_walk *ret_walk) {
    CHECK(heap->oldest != NULL);
    *ret_walk = (struct heap_walk){.chunk = heap->oldest, .at = heap->oldest->data};
}

void heap_walk_next(struct heap_walk *walk, const struct heap *heap, size_t size) {
    walk->at += (size + heap->align - 1) & ~(heap->align - 1);
    const struct heap_chunk *chunk = walk->chunk;
    if (!walk->in_rest && walk->at == atomic_load_explicit(&chunk->end, memory_order_relaxed)) {
        walk->in_rest = true;
        walk->at = chunk->rest;
        if (!chunk->is_alone) {
            *walk = (struct heap_walk){.chunk = chunk->newer, .at = chunk->newer->data};
            return;
        }
    }
    if (walk->in_rest && walk->at == atomic_load_explicit(&chunk->rest_end, memory_order_relaxed)) {
        *walk = (struct heap_walk){.chunk = chunk->newer, .at = chunk->newer->data};
    }
}

bool heap_walk_chunk(struct heap_walk *walk, const void *last) {
    const struct heap_chunk *chunk = walk->chunk;
    const uint8_t *piece = last;
    if (piece >= chunk->data && piece < chunk->data + chunk->size) {
        return false;
    }
    if (chunk->is_alone) {
        const uint8_t *rest_end = atomic_load_explicit(&chunk->rest_end, memory_order_relaxed);
        if (chunk->rest != NULL && piece >= chunk->rest && (rest_end == NULL || piece < rest_end)) {
            return false;
        }
    }
    *walk = (struct heap_walk){.chunk = chunk->newer, .at = chunk->newer->data};
    return true;
}
