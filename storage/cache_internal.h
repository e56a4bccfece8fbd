/*
 * What the block cache's files share: shards, their tables, spare memory.
 *
 * A shard's lock guards its queues, its table and the queue fields of its blocks. Locks of spare memory are taken with
 * no other lock held.
 */
#ifndef HOLDFAST_STORAGE_CACHE_INTERNAL_H
#define HOLDFAST_STORAGE_CACHE_INTERNAL_H

#include "storage/cache.h"

#include <stdalign.h>

enum {
    CACHE_LINE_BYTES = 64,
    CACHE_SHARD_BITS_MAX = 6,
    CACHE_SHARD_BYTES_MIN = MIB,
    CACHE_CLASS_BYTES = 128,
    CACHE_CLASS_COUNT = 16 * KIB / CACHE_CLASS_BYTES + 2 /* data of 16 KiB and its header */
};

/* ---- Tables (cache_table.c) -------------------------------------------------------------------------------------- */

/* Blocks of some hashes, chained, and one that left the small queue: a newer one takes the place of an older one. A
 * lookup that finds nothing mostly ends here, without a look at blocks that lie elsewhere in memory. */
struct cache_slot {
    struct cache_block *first;
    uint32_t ghost_stamp; /* when the ghost was made */
    uint16_t ghost_tag;   /* enough of its hash to know it again */
    uint16_t marks;       /* those of the chain's blocks, and maybe of some that left it */
};

struct cache_table {
    struct cache_slot *slots;
    uint32_t slot_count; /* a power of two */
};

struct cache_shard {
    alignas(CACHE_LINE_BYTES) struct env_mutex lock;
    struct cache_table table;
    struct list small; /* oldest first */
    struct list main;
    uint64_t used_bytes; /* of both queues */
    uint64_t small_bytes;
    uint32_t block_count;
    uint32_t ghost_clock; /* ghosts made */
    uint64_t inserts;
    uint64_t evictions;
    uint64_t refused;
    uint64_t kind_bytes[CACHE_KIND_COUNT];
    uint64_t hits[CACHE_KIND_COUNT];
    uint64_t misses[CACHE_KIND_COUNT];
};

/* Slots for a shard of this many bytes. */
uint32_t cache__table_slots_for(uint64_t bytes);
uint64_t cache__table_bytes(const struct cache_table *table);
/* False: no memory. */
bool cache__table_init(struct cache_table *table, struct alloc *alloc, uint32_t slot_count);
void cache__table_deinit(struct cache_table *table, struct alloc *alloc);
/* All blocks move to the other, empty table, which becomes the shard's. Ghosts are forgotten. */
void cache__table_exchange(struct cache_shard *shard, struct cache_table *other);
void cache__table_add(struct cache_shard *shard, struct cache_block *block, uint64_t hash);
void cache__table_remove(struct cache_shard *shard, struct cache_block *block);
/* The first block of the file in this slot; NULL: none. */
struct cache_block *cache__table_find_file(struct cache_shard *shard, uint32_t slot, uint64_t id);
void cache__ghost_add(struct cache_shard *shard, uint64_t hash);
/* True if the block left not long ago; forgets that. */
bool cache__ghost_take(struct cache_shard *shard, uint64_t hash);

/* Ids are random and offsets are not: both are spread over all bits (multiplicative mixing, after Stafford). */
static inline uint64_t cache__hash(const struct cache_key *key) {
    uint64_t hash = key->id ^ key->offset * 0x9e3779b97f4a7c15u;
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
    return hash ^ (hash >> 29);
}

/* One of the bits of a slot's marks. */
static inline uint16_t cache__mark(uint64_t hash) { return (uint16_t)(1u << (hash >> 52 & 15)); }

static inline struct cache_block *cache__table_find(const struct cache_shard *shard, const struct cache_key *key,
                                                    uint64_t hash) {
    const struct cache_slot *slot = &shard->table.slots[hash & (shard->table.slot_count - 1)];
    if ((slot->marks & cache__mark(hash)) == 0) {
        return NULL;
    }
    struct cache_block *block = slot->first;
    while (block != NULL && (block->key.offset != key->offset || block->key.id != key->id)) {
        block = block->chain;
    }
    return block;
}

/* ---- Memory of blocks (cache_memory.c) --------------------------------------------------------------------------- */

/* Memory of one size that waits for the next block, linked through `chain`. */
struct cache_spares {
    struct env_mutex lock;
    struct cache_block *first;
};

void cache__spares_init(struct cache *cache);
/* Frees all spare memory there is. */
void cache__spares_drain(struct cache *cache);
uint64_t cache__spare_bytes_max(uint64_t capacity_bytes);
void cache__block_free(struct cache *cache, struct cache_block *block);

/* ---- The cache --------------------------------------------------------------------------------------------------- */

struct cache {
    struct env *env;
    unsigned shard_bits;
    _Atomic uint64_t capacity_bytes;
    _Atomic uint64_t fixed_bytes; /* tables and spare memory */
    _Atomic int64_t charged_bytes;
    _Atomic uint64_t kept_bytes;
    alignas(CACHE_LINE_BYTES) _Atomic uint64_t loose_bytes;
    _Atomic uint64_t spare_bytes;
    struct cache_spares spares[CACHE_CLASS_COUNT];
    struct cache_shard shards[]; /* 1 << shard_bits */
};

/* By the highest bits; tables go by the lowest. */
static inline struct cache_shard *cache__shard(struct cache *cache, uint64_t hash) {
    return &cache->shards[(hash >> 32) >> (32 - cache->shard_bits)];
}

#endif
