/* Chunks and what is taken from them. */
#include "storage/memtable_heap.h"

#include "node/base/check.h"

enum { CHUNK_ALIGN = 64 };

struct heap_chunk {
    struct heap_chunk *next;
    size_t size; /* of what follows */
    _Alignas(CHUNK_ALIGN) uint8_t data[];
};

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
    heap->at = NULL;
    heap->end = NULL;
    heap->bytes = 0;
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
    chunk->next = heap->newest;
    heap->newest = chunk;
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
    heap->at = mark->at;
    heap->end = mark->end;
    heap->bytes = mark->bytes;
}
