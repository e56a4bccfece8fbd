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
    return (uint64_t)table->slot_count * sizeof(struct cache_slot);
}

bool cache__table_init(struct cache_table *table, struct alloc *alloc, uint32_t slot_count) {
    *table = (struct cache_table){.slot_count = slot_count};
    table->slots = mem_alloc_zero(alloc, cache__table_bytes(table));
    return table->slots != NULL;
}

void cache__table_deinit(struct cache_table *table, struct alloc *alloc) {
    mem_free(alloc, table->slots);
    *table = (struct cache_table){0};
}

static struct cache_slot *slot_of(struct cache_table *table, uint64_t hash) {
    return &table->slots[hash & (table->slot_count - 1)];
}

static void push(struct cache_table *table, struct cache_block *block, uint64_t hash) {
    struct cache_slot *slot = slot_of(table, hash);
    block->chain = slot->first;
    slot->first = block;
    slot->marks |= cache__mark(hash);
}

void cache__table_exchange(struct cache_shard *shard, struct cache_table *other) {
    struct cache_table old = shard->table;
    for (uint32_t i = 0; i < old.slot_count; i++) {
        struct cache_block *block;
        while ((block = old.slots[i].first) != NULL) {
            old.slots[i].first = block->chain;
            push(other, block, cache__hash(&block->key));
        }
    }
    shard->table = *other;
    *other = old;
}

void cache__table_add(struct cache_shard *shard, struct cache_block *block, uint64_t hash) {
    push(&shard->table, block, hash);
    shard->block_count++;
    shard->used_bytes += block->charge_bytes;
    shard->kind_bytes[block->kind] += block->charge_bytes;
}

/* Its mark stays as long as others are in the chain: which marks those have isn't known without a look at all. */
void cache__table_remove(struct cache_shard *shard, struct cache_block *block) {
    struct cache_slot *slot = slot_of(&shard->table, cache__hash(&block->key));
    struct cache_block **link = &slot->first;
    while (*link != block) {
        CHECK(*link != NULL);
        link = &(*link)->chain;
    }
    *link = block->chain;
    slot->marks = slot->first == NULL ? 0 : slot->marks;
    block->chain = NULL;
    shard->block_count--;
    shard->used_bytes -= block->charge_bytes;
    shard->kind_bytes[block->kind] -= block->charge_bytes;
}

struct cache_block *cache__table_find_file(struct cache_shard *shard, uint32_t slot, uint64_t id) {
    struct cache_block *block = shard->table.slots[slot].first;
    while (block != NULL && block->key.id != id) {
        block = block->chain;
    }
    return block;
}

/* ---- Ghosts ------------------------------------------------------------------------------------------------------ */

static uint16_t tag_of(uint64_t hash) { return (uint16_t)(hash >> 36); }

void cache__ghost_add(struct cache_shard *shard, uint64_t hash) {
    struct cache_slot *slot = slot_of(&shard->table, hash);
    slot->ghost_tag = tag_of(hash);
    slot->ghost_stamp = ++shard->ghost_clock;
}

/* Not long ago: within as many ghosts as there are blocks. */
bool cache__ghost_take(struct cache_shard *shard, uint64_t hash) {
    struct cache_slot *slot = slot_of(&shard->table, hash);
    bool is_known = slot->ghost_tag == tag_of(hash) && slot->ghost_stamp != 0 &&
                    shard->ghost_clock - slot->ghost_stamp < shard->block_count;
    if (is_known) {
        slot->ghost_stamp = 0;
    }
    return is_known;
}
