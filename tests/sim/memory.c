/*
 * A node's allocator: knows every live block, so that a crash frees them all at once, and fails on demand.
 *
 * Fresh bytes hold a fixed pattern: code that reads what it never wrote behaves the same in every run. Resizing always
 * moves, so that stale pointers are stale at once. Under the address sanitizer the bytes in front of a block are
 * poisoned; those behind it are guarded by malloc.
 */
#include "tests/sim/sim_internal.h"

#include <stdlib.h>
#include <string.h>

#ifdef SIM_ASAN
#include <sanitizer/asan_interface.h>
#endif

enum { ALIGN_NATURAL = 16, GAP_BYTES = 16, FRESH_BYTE = 0xd5 };

struct block {
    struct list link;
    void *base; /* what malloc gave */
    size_t size;
    size_t align;
    size_t tail_bytes; /* behind the bytes, still malloc's block */
};

/* The block's struct lies in front of the bytes, with a gap between. */
enum { HEADER_BYTES = (sizeof(struct block) + GAP_BYTES + ALIGN_NATURAL - 1) / ALIGN_NATURAL * ALIGN_NATURAL };

static struct block *block_of(void *ptr) { return (struct block *)(void *)((uint8_t *)ptr - HEADER_BYTES); }

static void *block_take(struct sim_memory *memory, size_t size, size_t align) {
    size_t room = align > ALIGN_NATURAL ? align : 0;
    CHECK(size < SIZE_MAX - HEADER_BYTES - room);
    uint8_t *base = malloc(HEADER_BYTES + room + size);
    CHECK(base != NULL);
    uintptr_t start = (uintptr_t)base + HEADER_BYTES;
    size_t shift = align > ALIGN_NATURAL ? (align - start % align) % align : 0;
    uint8_t *ptr = base + HEADER_BYTES + shift;
    struct block *block = block_of(ptr);
    *block = (struct block){.base = base, .size = size, .align = align, .tail_bytes = room - shift};
    list_push_back(&memory->blocks, &block->link);
    memset(ptr, FRESH_BYTE, size);
#ifdef SIM_ASAN
    __asan_poison_memory_region(ptr - GAP_BYTES, GAP_BYTES);
    __asan_poison_memory_region(ptr + size, block->tail_bytes);
#endif
    memory->counts.allocations++;
    memory->counts.blocks++;
    memory->counts.used_bytes += size;
    if (memory->counts.used_bytes > memory->counts.peak_bytes) {
        memory->counts.peak_bytes = memory->counts.used_bytes;
    }
    return ptr;
}

static void block_give(struct sim_memory *memory, struct block *block) {
    CHECK(memory->counts.blocks > 0 && memory->counts.used_bytes >= block->size);
    memory->counts.blocks--;
    memory->counts.used_bytes -= block->size;
    list_remove(&block->link);
#ifdef SIM_ASAN
    uint8_t *ptr = (uint8_t *)(void *)block + HEADER_BYTES;
    __asan_unpoison_memory_region(ptr - GAP_BYTES, GAP_BYTES);
    __asan_unpoison_memory_region(ptr + block->size, block->tail_bytes);
#endif
    free(block->base);
}

static bool must_fail(struct sim_memory *memory) {
    bool counted = memory->fail_countdown > 0 && --memory->fail_countdown == 0;
    bool drawn = memory->fail_ppm > 0 && random_chance(&memory->random, memory->fail_ppm, PPM);
    if (counted || drawn) {
        memory->stats->failed_allocations++;
    }
    return counted || drawn;
}

static void *memory_resize(struct alloc *alloc, void *ptr, size_t size, size_t align) {
    struct sim_memory *memory = CONTAINER_OF(alloc, struct sim_memory, alloc);
    if (size == 0) {
        if (ptr != NULL) {
            block_give(memory, block_of(ptr));
        }
        return NULL;
    }
    CHECK(ptr == NULL || (align <= ALIGN_NATURAL && block_of(ptr)->align <= ALIGN_NATURAL));
    if (must_fail(memory)) {
        return NULL;
    }
    void *fresh = block_take(memory, size, align);
    if (ptr != NULL) {
        struct block *old = block_of(ptr);
        memcpy(fresh, ptr, old->size < size ? old->size : size);
        block_give(memory, old);
    }
    return fresh;
}

void sim__memory_init(struct sim_memory *memory, uint64_t seed, struct sim_stats *stats) {
    *memory = (struct sim_memory){.alloc = {.resize = memory_resize}, .stats = stats};
    list_init(&memory->blocks);
    random_seed(&memory->random, seed);
}

void sim__memory_drop(struct sim_memory *memory) {
    while (!list_is_empty(&memory->blocks)) {
        block_give(memory, LIST_ENTRY(memory->blocks.next, struct block, link));
    }
    CHECK(memory->counts.blocks == 0 && memory->counts.used_bytes == 0);
}
