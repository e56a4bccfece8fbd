/* The block cache: shards, lookups, S3-FIFO. The contract and the algorithm are in cache.h; cache_memory.c has the
 * memory of blocks, cache_table.c a shard's tables. */
#include "storage/cache_internal.h"

#include <string.h>

enum {
    SMALL_SHARE = 10,     /* the small queue gets one part of this many */
    USES_MAX = 3,         /* counted */
    KEPT_SHARE = 4,       /* of the capacity: one part of this many */
    USES_TO_STAY = 2,     /* before the small queue's end, to get into the main one */
    EVICT_STEPS_MAX = 256 /* blocks looked at: bounds the time under the lock */
};

/* ---- Queues: under the shard's lock ------------------------------------------------------------------------------ */

static void enqueue(struct cache_shard *shard, struct cache_block *block, bool in_main) {
    block->in_main = in_main;
    block->uses = 0;
    list_push_back(in_main ? &shard->main : &shard->small, &block->queue);
    shard->small_bytes += in_main ? 0 : block->charge_bytes;
}

static void dequeue(struct cache_shard *shard, struct cache_block *block) {
    list_remove(&block->queue);
    shard->small_bytes -= block->in_main ? 0 : block->charge_bytes;
}

static bool is_held(const struct cache_block *block) {
    return atomic_load_explicit(&block->refs, memory_order_acquire) > 1;
}

/* Takes a block that nobody holds out of the shard. Nobody can get hold of it any more: it is ours to free. */
static void take_out(struct cache_shard *shard, struct cache_block *block, struct list *gone) {
    dequeue(shard, block);
    cache__table_remove(shard, block);
    list_push_back(gone, &block->queue);
    shard->evictions++;
}

/* The oldest block of the main queue: another round if it was used or is held. */
static void step_main(struct cache_shard *shard, struct list *gone) {
    struct cache_block *block = LIST_ENTRY(shard->main.next, struct cache_block, queue);
    if (block->uses > 0 || is_held(block)) {
        block->uses = block->uses > 0 ? (uint8_t)(block->uses - 1) : 0;
        list_remove(&block->queue);
        list_push_back(&shard->main, &block->queue);
        return;
    }
    take_out(shard, block, gone);
}

static void step_small(struct cache_shard *shard, struct list *gone) {
    struct cache_block *block = LIST_ENTRY(shard->small.next, struct cache_block, queue);
    if (block->uses >= USES_TO_STAY) {
        dequeue(shard, block);
        enqueue(shard, block, true);
    } else if (is_held(block)) {
        list_remove(&block->queue);
        list_push_back(&shard->small, &block->queue);
    } else {
        take_out(shard, block, gone);
        cache__ghost_add(shard, cache__hash(&block->key));
    }
}

/* Evicts until `bytes` more fit below the limit. False if they don't: too much of it is held, or it would take long;
 * what went meanwhile helps the next one. */
static bool make_room(struct cache_shard *shard, uint64_t limit, uint64_t bytes, struct list *gone) {
    if (bytes > limit) {
        return false;
    }
    for (unsigned i = 0; shard->used_bytes + bytes > limit && i < EVICT_STEPS_MAX; i++) {
        if (shard->small_bytes > limit / SMALL_SHARE || list_is_empty(&shard->main)) {
            step_small(shard, gone);
        } else {
            step_main(shard, gone);
        }
    }
    return shard->used_bytes + bytes <= limit;
}

/* What one shard may hold. The counters it looks at may move meanwhile: the next insertion sees it. */
static uint64_t shard_limit(const struct cache *cache) {
    int64_t left = (int64_t)(atomic_load_explicit(&cache->capacity_bytes, memory_order_relaxed) -
                             atomic_load_explicit(&cache->fixed_bytes, memory_order_relaxed)) -
                   atomic_load_explicit(&cache->charged_bytes, memory_order_relaxed) -
                   (int64_t)atomic_load_explicit(&cache->loose_bytes, memory_order_relaxed);
    return left > 0 ? (uint64_t)left >> cache->shard_bits : 0;
}

static void free_gone(struct cache *cache, struct list *gone) {
    struct list *link;
    while ((link = list_pop_front(gone)) != NULL) {
        cache__block_free(cache, LIST_ENTRY(link, struct cache_block, queue));
    }
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------ */

void cache_hold(struct cache_block *block) {
    uint32_t before = atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
    CHECK(before > 0 && before < UINT32_MAX / 2);
}

/* Acquire on top of release: whoever is last sees what all others did with the block. */
void cache_release(struct cache *cache, struct cache_block *block) {
    if (block == NULL) {
        return;
    }
    uint32_t before = atomic_fetch_sub_explicit(&block->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1) {
        if (block->is_loose) {
            (void)atomic_fetch_sub_explicit(&cache->loose_bytes, block->charge_bytes, memory_order_relaxed);
        }
        cache__block_free(cache, block);
    }
}

/* It is held, and can't be found from now on (or ever). Before the hold that keeps it alive is let go. */
static void set_loose(struct cache *cache, struct cache_block *block) {
    block->is_loose = true;
    (void)atomic_fetch_add_explicit(&cache->loose_bytes, block->charge_bytes, memory_order_relaxed);
}

/* The block leaves its shard; whoever holds it keeps it. */
static void forget(struct cache *cache, struct cache_shard *shard, struct cache_block *block) {
    dequeue(shard, block);
    cache__table_remove(shard, block);
    set_loose(cache, block);
}

/* Asked for often: as often as uses are counted. */
bool cache_keep(struct cache *cache, struct cache_block *block) {
    uint64_t bytes = block->charge_bytes;
    uint64_t most = atomic_load_explicit(&cache->capacity_bytes, memory_order_relaxed) / KEPT_SHARE;
    if (atomic_load_explicit(&cache->kept_bytes, memory_order_relaxed) + bytes > most) {
        return false;
    }
    if (atomic_fetch_add_explicit(&cache->kept_bytes, bytes, memory_order_relaxed) + bytes > most) {
        (void)atomic_fetch_sub_explicit(&cache->kept_bytes, bytes, memory_order_relaxed);
        return false;
    }
    struct cache_shard *shard = cache__shard(cache, cache__hash(&block->key));
    env_mutex_lock(&shard->lock);
    bool is_kept = !block->is_loose && block->uses >= USES_MAX;
    if (is_kept) {
        forget(cache, shard, block); /* the cache's hold is the keeper's now */
    }
    env_mutex_unlock(&shard->lock);
    if (!is_kept) {
        (void)atomic_fetch_sub_explicit(&cache->kept_bytes, bytes, memory_order_relaxed);
    }
    return is_kept;
}

void cache_unkeep(struct cache *cache, struct cache_block *block) {
    uint64_t before = atomic_fetch_sub_explicit(&cache->kept_bytes, block->charge_bytes, memory_order_relaxed);
    CHECK(before >= block->charge_bytes);
    cache_release(cache, block);
}

struct cache_block *cache_lookup(struct cache *cache, const struct cache_key *key, enum cache_kind kind) {
    uint64_t hash = cache__hash(key);
    struct cache_shard *shard = cache__shard(cache, hash);
    env_mutex_lock(&shard->lock);
    struct cache_block *block = cache__table_find(shard, key, hash);
    if (block != NULL) {
        (void)atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
        block->uses = block->uses < USES_MAX ? (uint8_t)(block->uses + 1) : USES_MAX;
        shard->hits[kind]++;
    } else {
        shard->misses[kind]++;
        __builtin_prefetch(shard->small.next); /* an insertion is likely, and this one will have to go */
    }
    env_mutex_unlock(&shard->lock);
    return block;
}

static struct cache_block *insert_loose(struct cache *cache, struct cache_block *block) {
    set_loose(cache, block);
    return block;
}

struct cache_block *cache_insert(struct cache *cache, const struct cache_key *key, enum cache_kind kind,
                                 struct cache_block *block, bool retain) {
    CHECK(kind < CACHE_KIND_COUNT && !block->is_loose);
    CHECK(block->queue.next == NULL && atomic_load_explicit(&block->refs, memory_order_relaxed) == 1);
    uint64_t limit = shard_limit(cache);
    if (!retain || limit == 0) {
        return insert_loose(cache, block);
    }
    uint64_t hash = cache__hash(key);
    struct cache_shard *shard = cache__shard(cache, hash);
    struct list gone;
    list_init(&gone);
    block->key = *key;
    block->kind = (uint8_t)kind;
    bool has_room = false;
    env_mutex_lock(&shard->lock);
    struct cache_block *other = cache__table_find(shard, key, hash);
    if (other != NULL) {
        (void)atomic_fetch_add_explicit(&other->refs, 1, memory_order_relaxed);
    } else {
        bool comes_back = cache__ghost_take(shard, hash);
        has_room = make_room(shard, limit, block->charge_bytes, &gone);
        if (has_room) {
            atomic_store_explicit(&block->refs, 2, memory_order_relaxed);
            cache__table_add(shard, block, hash);
            enqueue(shard, block, comes_back);
            shard->inserts++;
        } else {
            shard->refused++;
        }
    }
    env_mutex_unlock(&shard->lock);
    free_gone(cache, &gone);
    if (other != NULL) {
        cache_release(cache, block);
        return other;
    }
    return has_room ? block : insert_loose(cache, block);
}

/* ---- The whole cache --------------------------------------------------------------------------------------------- */

static unsigned shard_bits_for(uint64_t capacity_bytes) {
    unsigned bits = 0;
    while (bits < CACHE_SHARD_BITS_MAX && capacity_bytes >> (bits + 1) >= CACHE_SHARD_BYTES_MIN) {
        bits++;
    }
    return bits;
}

static uint32_t shard_count(const struct cache *cache) { return 1u << cache->shard_bits; }

/* Tables that fit the capacity. Without memory a shard keeps those it has, which work as well, only slower. */
static uint64_t fit_tables(struct cache *cache, uint64_t capacity_bytes) {
    uint32_t slots = cache__table_slots_for(capacity_bytes >> cache->shard_bits);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < shard_count(cache); i++) {
        struct cache_shard *shard = &cache->shards[i];
        struct cache_table table;
        if (slots != shard->table.slot_count && cache__table_init(&table, cache->env->alloc, slots)) {
            env_mutex_lock(&shard->lock);
            cache__table_exchange(shard, &table);
            env_mutex_unlock(&shard->lock);
            cache__table_deinit(&table, cache->env->alloc);
        }
        bytes += cache__table_bytes(&shard->table);
    }
    return bytes;
}

/* In steps, so that the lock is free in between. What is held stays. */
static void shrink(struct cache *cache, struct cache_shard *shard) {
    struct list gone;
    list_init(&gone);
    bool goes_on = true;
    while (goes_on) {
        uint64_t limit = shard_limit(cache);
        env_mutex_lock(&shard->lock);
        bool fits = make_room(shard, limit, 0, &gone);
        env_mutex_unlock(&shard->lock);
        goes_on = !fits && !list_is_empty(&gone);
        free_gone(cache, &gone);
    }
}

void cache_set_capacity(struct cache *cache, uint64_t capacity_bytes) {
    CHECK(capacity_bytes <= INT64_MAX);
    uint64_t fixed_bytes = fit_tables(cache, capacity_bytes) + cache__spare_bytes_max(capacity_bytes);
    atomic_store_explicit(&cache->fixed_bytes, fixed_bytes, memory_order_relaxed);
    atomic_store_explicit(&cache->capacity_bytes, capacity_bytes, memory_order_relaxed);
    for (uint32_t i = 0; i < shard_count(cache); i++) {
        shrink(cache, &cache->shards[i]);
    }
    cache__spares_drain(cache);
}

enum status cache_new(struct env *env, uint64_t capacity_bytes, struct cache **ret_cache, struct error *err) {
    CHECK(capacity_bytes <= INT64_MAX);
    unsigned shard_bits = shard_bits_for(capacity_bytes);
    size_t size = sizeof(struct cache) + (sizeof(struct cache_shard) << shard_bits);
    struct cache *cache = mem_alloc_aligned(env->alloc, CACHE_LINE_BYTES, size);
    if (cache == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "block cache: out of memory");
    }
    memset(cache, 0, size);
    cache->env = env;
    cache->shard_bits = shard_bits;
    cache__spares_init(cache);
    uint32_t slots = cache__table_slots_for(capacity_bytes >> shard_bits);
    for (uint32_t i = 0; i < shard_count(cache); i++) {
        struct cache_shard *shard = &cache->shards[i];
        env_mutex_init(&shard->lock, env);
        list_init(&shard->small);
        list_init(&shard->main);
        if (!cache__table_init(&shard->table, env->alloc, slots)) {
            cache_free(cache);
            return error_set(err, STATUS_NO_MEMORY, "block cache: out of memory");
        }
    }
    cache_set_capacity(cache, capacity_bytes);
    *ret_cache = cache;
    return STATUS_OK;
}

void cache_free(struct cache *cache) {
    if (cache == NULL) {
        return;
    }
    CHECK(atomic_load_explicit(&cache->loose_bytes, memory_order_relaxed) == 0);
    for (uint32_t i = 0; i < shard_count(cache) && cache->shards[i].table.slots != NULL; i++) {
        struct cache_shard *shard = &cache->shards[i];
        list_splice_back(&shard->main, &shard->small);
        struct list *link;
        while ((link = list_pop_front(&shard->main)) != NULL) {
            struct cache_block *block = LIST_ENTRY(link, struct cache_block, queue);
            CHECK(!is_held(block));
            cache__block_free(cache, block);
        }
        cache__table_deinit(&shard->table, cache->env->alloc);
    }
    cache__spares_drain(cache);
    mem_free(cache->env->alloc, cache);
}

void cache_charge(struct cache *cache, int64_t bytes) {
    int64_t before = atomic_fetch_add_explicit(&cache->charged_bytes, bytes, memory_order_relaxed);
    CHECK(before + bytes >= 0);
}

void cache_forget(struct cache *cache, uint64_t id) {
    enum { SLOTS_AT_ONCE = 64 };
    struct list gone;
    list_init(&gone);
    for (uint32_t i = 0; i < shard_count(cache); i++) {
        struct cache_shard *shard = &cache->shards[i];
        uint32_t slot_count = 1;
        for (uint32_t slot = 0; slot < slot_count; slot += SLOTS_AT_ONCE) {
            env_mutex_lock(&shard->lock);
            slot_count = shard->table.slot_count;
            for (uint32_t at = slot; at < slot_count && at < slot + SLOTS_AT_ONCE; at++) {
                struct cache_block *block;
                while ((block = cache__table_find_file(shard, at, id)) != NULL) {
                    forget(cache, shard, block);
                    list_push_back(&gone, &block->queue);
                }
            }
            env_mutex_unlock(&shard->lock);
            struct list *link;
            while ((link = list_pop_front(&gone)) != NULL) {
                cache_release(cache, LIST_ENTRY(link, struct cache_block, queue));
            }
        }
    }
}

void cache_get_stats(struct cache *cache, struct cache_stats *ret_stats) {
    struct cache_stats stats = {
        .capacity_bytes = atomic_load_explicit(&cache->capacity_bytes, memory_order_relaxed),
        .charged_bytes = (uint64_t)atomic_load_explicit(&cache->charged_bytes, memory_order_relaxed),
        .loose_bytes = atomic_load_explicit(&cache->loose_bytes, memory_order_relaxed),
        .fixed_bytes = atomic_load_explicit(&cache->fixed_bytes, memory_order_relaxed),
    };
    stats.used_bytes = stats.charged_bytes + stats.loose_bytes + stats.fixed_bytes;
    for (uint32_t i = 0; i < shard_count(cache); i++) {
        struct cache_shard *shard = &cache->shards[i];
        env_mutex_lock(&shard->lock);
        stats.used_bytes += shard->used_bytes;
        stats.blocks += shard->block_count;
        stats.inserts += shard->inserts;
        stats.evictions += shard->evictions;
        stats.refused += shard->refused;
        for (int kind = 0; kind < (int)CACHE_KIND_COUNT; kind++) {
            stats.kind_bytes[kind] += shard->kind_bytes[kind];
            stats.hits[kind] += shard->hits[kind];
            stats.misses[kind] += shard->misses[kind];
        }
        env_mutex_unlock(&shard->lock);
    }
    *ret_stats = stats;
}
