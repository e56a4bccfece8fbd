/*
 * Memory of cached blocks: header and data in one piece, rounded up to classes; a little of what is freed waits for the
 * next block of about that size. One lock per class, held for a push or a pop.
 */
#include "storage/cache_internal.h"

enum {
    SPARE_SHARE = 64, /* of the capacity: one part of this many */
    SPARE_BYTES_MAX = 4 * MIB,
    CLASSES_TRIED = 3,        /* memory of a slightly larger class serves, too */
    ALLOC_OVERHEAD_BYTES = 16 /* what an allocator adds, as we count */
};

/* Data behind the header, aligned as allocations are. */
enum { HEADER_BYTES = (sizeof(struct cache_block) + 15) / 16 * 16 };

uint64_t cache__spare_bytes_max(uint64_t capacity_bytes) {
    uint64_t share = capacity_bytes / SPARE_SHARE;
    return share < SPARE_BYTES_MAX ? share : SPARE_BYTES_MAX;
}

void cache__spares_init(struct cache *cache) {
    for (unsigned i = 0; i < CACHE_CLASS_COUNT; i++) {
        env_mutex_init(&cache->spares[i].lock, cache->env);
    }
}

static struct cache_block *pop(struct cache *cache, struct cache_spares *spares) {
    env_mutex_lock(&spares->lock);
    struct cache_block *block = spares->first;
    if (block != NULL) {
        spares->first = block->chain;
    }
    env_mutex_unlock(&spares->lock);
    if (block != NULL) {
        (void)atomic_fetch_sub_explicit(&cache->spare_bytes, block->charge_bytes, memory_order_relaxed);
    }
    return block;
}

void cache__spares_drain(struct cache *cache) {
    for (unsigned i = 0; i < CACHE_CLASS_COUNT; i++) {
        struct cache_block *block;
        while ((block = pop(cache, &cache->spares[i])) != NULL) {
            mem_free(cache->env->alloc, block);
        }
    }
}

static struct cache_block *take_spare(struct cache *cache, size_t class) {
    if (atomic_load_explicit(&cache->spare_bytes, memory_order_relaxed) == 0) {
        return NULL;
    }
    struct cache_block *block = NULL;
    for (size_t i = class; block == NULL && i < class + CLASSES_TRIED && i < CACHE_CLASS_COUNT; i++) {
        block = pop(cache, &cache->spares[i]);
    }
    return block;
}

struct cache_block *cache_block_new(struct cache *cache, size_t len) {
    CHECK(len > 0 && len < UINT32_MAX - CACHE_CLASS_BYTES - HEADER_BYTES);
    size_t class = (HEADER_BYTES + len + ALLOC_OVERHEAD_BYTES + CACHE_CLASS_BYTES - 1) / CACHE_CLASS_BYTES;
    size_t charge_bytes = class * CACHE_CLASS_BYTES;
    struct cache_block *block = class < CACHE_CLASS_COUNT ? take_spare(cache, class) : NULL;
    if (block != NULL) {
        charge_bytes = block->charge_bytes;
    } else if ((block = mem_alloc(cache->env->alloc, charge_bytes - ALLOC_OVERHEAD_BYTES)) == NULL) {
        return NULL;
    }
    *block = (struct cache_block){.data = (uint8_t *)block + HEADER_BYTES,
                                  .len = len,
                                  .charge_bytes = (uint32_t)charge_bytes};
    atomic_init(&block->refs, 1);
    return block;
}

void cache__block_free(struct cache *cache, struct cache_block *block) {
    size_t class = block->charge_bytes / CACHE_CLASS_BYTES;
    uint64_t spare_bytes = atomic_load_explicit(&cache->spare_bytes, memory_order_relaxed);
    uint64_t capacity_bytes = atomic_load_explicit(&cache->capacity_bytes, memory_order_relaxed);
    if (class >= CACHE_CLASS_COUNT || spare_bytes + block->charge_bytes > cache__spare_bytes_max(capacity_bytes)) {
        mem_free(cache->env->alloc, block);
        return;
    }
    (void)atomic_fetch_add_explicit(&cache->spare_bytes, block->charge_bytes, memory_order_relaxed);
    struct cache_spares *spares = &cache->spares[class];
    env_mutex_lock(&spares->lock);
    block->chain = spares->first;
    spares->first = block;
    env_mutex_unlock(&spares->lock);
}
