/*
 * Memory of a memtable: taken in pieces from chunks, given back as a whole, or down to a mark.
 *
 * Room can be reserved: what is taken within a reservation can't fail. The writer's alone; but what was taken can be
 * walked over, in the order in which it was, by any thread that knows by other means which piece to stop at.
 *
 * Legal order: heap_init, the others, heap_deinit. Memory that was used once is cheaper than new memory, which the
 * kernel has to clear (2 MiB at a time): who needs another heap of that kind clears an old one.
 */
#ifndef HOLDFAST_STORAGE_MEMTABLE_HEAP_H
#define HOLDFAST_STORAGE_MEMTABLE_HEAP_H

#include "node/base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A piece of more than a quarter of a chunk is alone in one; small ones go on meanwhile where they were, in an older
 * chunk. So the pieces taken from the moment when this one became the newest until the next did are those in it, then
 * those in [rest, rest_end). */
struct heap_chunk {
    struct heap_chunk *next;  /* older */
    struct heap_chunk *newer; /* the one that became the newest after it; of no use before there is one */
    size_t size;              /* of what follows */
    bool is_alone;
    const uint8_t *rest;               /* is_alone; may be NULL */
    _Atomic(const uint8_t *) end;      /* of the pieces in it; NULL: not known yet */
    _Atomic(const uint8_t *) rest_end; /* is_alone; NULL: not known yet */
    _Alignas(64) uint8_t data[];
};

struct heap {
    struct alloc *alloc;
    size_t chunk_bytes;
    size_t align;
    struct heap_chunk *newest; /* all that were taken from; linked from newer to older */
    struct heap_chunk *oldest; /* where a walk begins */
    struct heap_chunk *spare;  /* free: reserved, or left from before heap_clear */
    uint8_t *at;               /* the free part of the chunk where small pieces go */
    uint8_t *end;
    size_t bytes; /* taken */
};

struct heap_mark {
    struct heap_chunk *newest;
    uint8_t *at;
    uint8_t *end;
    size_t bytes;
};

/* Pieces are aligned to `align`, a power of two up to 64. Allocates nothing. */
void heap_init(struct heap *heap, struct alloc *alloc, size_t chunk_bytes, size_t align);
void heap_deinit(struct heap *heap);
/* Everything is given back, but the chunks stay, to be taken from again. */
void heap_clear(struct heap *heap);

/* Pieces of more than a quarter of a chunk get a chunk of their own. NULL: out of memory. */
void *heap_take_slowly(struct heap *heap, size_t size);
static inline void *heap_take(struct heap *heap, size_t size) {
    size = (size + heap->align - 1) & ~(heap->align - 1);
    if (size > (size_t)(heap->end - heap->at)) {
        return heap_take_slowly(heap, size);
    }
    void *piece = heap->at;
    heap->at += size;
    heap->bytes += size;
    return piece;
}

/* From now on pieces of at most piece_bytes_max (a quarter of a chunk at most), `bytes` in all, can be taken without
 * fail. False: out of memory, nothing changed. */
bool heap_reserve_slowly(struct heap *heap, size_t bytes, size_t piece_bytes_max);
static inline bool heap_reserve(struct heap *heap, size_t bytes, size_t piece_bytes_max) {
    return bytes <= (size_t)(heap->end - heap->at) || heap_reserve_slowly(heap, bytes, piece_bytes_max);
}

static inline struct heap_mark heap_mark(const struct heap *heap) {
    return (struct heap_mark){heap->newest, heap->at, heap->end, heap->bytes};
}
/* Forgets what was taken since the mark. */
void heap_rewind(struct heap *heap, const struct heap_mark *mark);

/* ---- Walking ---------------------------------------------------------------------------------------------------
 * Any thread, while the writer goes on. The walker knows the size of each piece, and a piece that was taken before he
 * came to know of it, the last that he goes to. No heap_clear meanwhile. */
struct heap_walk {
    const struct heap_chunk *chunk;
    const uint8_t *at; /* the piece */
    bool in_rest;
};

/* To the oldest piece; there is one (CHECK). */
void heap_walk_first(const struct heap *heap, struct heap_walk *ret_walk);
/* From a piece of this size, as it was asked for, that isn't the last, to the next. */
void heap_walk_next(struct heap_walk *walk, const struct heap *heap, size_t size);
/* Far ahead: to the first piece of the next chunk. False: the last piece may stand in front of it. */
bool heap_walk_chunk(struct heap_walk *walk, const void *last);

#endif
