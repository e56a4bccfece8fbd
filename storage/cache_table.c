/* A shard's tables: which blocks are there, and which were not long ago. Under the shard's lock. */
#include "storage/cache_internal.h"

#include <string.h>

enum { SLOT_BYTES = 4096, SLOTS_MIN = 16, SLOTS_MAX = 1 << 30 };

uint32_t cache__table_slots_for(uint64_t bytes) {
    uint32_t slots = SLOTS_MIN;
    while (slots < SLOTS_MAX && (uint64_t)slots * SLOT_BYTES < bytes) {
        slots *= 2;
    }
    return slots;
}

uint64_t cache__table_bytes(const struct cache_table *table) {
    return (uint64_t)table->slot_count * (sizeof(struct cache_block *) + sizeof(struct cache_ghost));
}

bool cache__table_init(struct cache_table *table, struct alloc *alloc, uint32_t slot_count) {
    *table = (struct cache_table){.slot_count = slot_count};
    table->buckets = mem_alloc_zero(alloc, cache__table_bytes(table));
    if (table->buckets == NULL) {
        return false;
    }
    table->ghosts = (struct cache_ghost *)(void *)(table->buckets + slot_count);
    return true;
}

void cache__table_deinit(struct cache_table *table, struct alloc *alloc) {
    mem_free(alloc, table->buckets);
    *table = (struct cache_table){0};
}

static struct cache_block **bucket_of(struct cache_table *table, uint64_t hash) {
    return &table->buckets[hash & (table->slot_count - 1)];
}

void cache__table_exchange(struct cache_shard *shard, struct cache_table *other) {
    struct cache_table old = shard->table;
    for (uint32_t slot = 0; slot < old.slot_count; slot++) {
        struct cache_block *block;
        while ((block = old.buckets[slot]) != NULL) {
            old.buckets[slot] = block->chain;
            struct cache_block **bucket = bucket_of(other, cache__hash(&block->key));
            block->chain = *bucket;
            *bucket = block;
        }
    }
    shard->table = *other;
    *other = old;
}

void cache__table_add(struct cache_shard *shard, struct cache_block *block, uint64_t hash) {
    struct cache_block **bucket = bucket_of(&shard->table, hash);
    block->chain = *bucket;
    *bucket = block;
    shard->block_count++;
    shard->used_bytes += block->charge_bytes;
    shard->kind_bytes[block->kind] += block->charge_bytes;
}

void cache__table_remove(struct cache_shard *shard, struct cache_block *block) {
    struct cache_block **link = bucket_of(&shard->table, cache__hash(&block->key));
    while (*link != block) {
        CHECK(*link != NULL);
        link = &(*link)->chain;
    }
    *link = block->chain;
    block->chain = NULL;
    shard->block_count--;
    shard->used_bytes -= block->charge_bytes;
    shard->kind_bytes[block->kind] -= block->charge_bytes;
}

struct cache_block *cache__table_find_file(struct cache_shard *shard, uint32_t slot, uint64_t id) {
    struct cache_block *block = shard->table.buckets[slot];
    while (block != NULL && block->key.id != id) {
        block = block->chain;
    }
    return block;
}

/* ---- Ghosts ------------------------------------------------------------------------------------------------------ */

static struct cache_ghost *ghost_of(struct cache_shard *shard, uint64_t hash) {
    return &shard->table.ghosts[hash & (shard->table.slot_count - 1)];
}

static uint32_t tag_of(uint64_t hash) { return (uint32_t)(hash >> 20); }

void cache__ghost_add(struct cache_shard *shard, uint64_t hash) {
    *ghost_of(shard, hash) = (struct cache_ghost){.tag = tag_of(hash), .stamp = ++shard->ghost_clock};
}

/* Not long ago: within as many ghosts as there are blocks. */
bool cache__ghost_take(struct cache_shard *shard, uint64_t hash) {
    struct cache_ghost *ghost = ghost_of(shard, hash);
    bool is_known =
        ghost->tag == tag_of(hash) && ghost->stamp != 0 && shard->ghost_clock - ghost->stamp < shard->block_count;
    if (is_known) {
        ghost->stamp = 0;
    }
    return is_known;
}
