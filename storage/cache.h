/*
 * The block cache: blocks of tables as plain bytes (uncompressed, checked), shared by all threads of a store.
 *
 *   cache_lookup --NULL--> cache_block_new, fill in --> cache_insert --> use --> cache_release
 *                \--held-----------------------------------------------> use --> cache_release
 *
 * A block is one allocation and counted: whoever looked it up or inserted it holds it until cache_release. Nobody
 * writes to a block after its insertion. A block that is held isn't evicted; one that can't be kept (no room, a scan's,
 * a forgotten file's) lives on until its last holder lets go.
 *
 * Sharded by key. Each shard has one lock, held for a few instructions, never across I/O or an allocation. A hit moves
 * nothing: it counts in the block's own use counter.
 *
 * Eviction is S3-FIFO (J. Yang, Y. Zhang, Z. Qiu, Y. Yue, R. Vinayak: "FIFO queues are all you need for cache
 * eviction", SOSP 2023). New blocks go through a small queue, a tenth of the room. At its end those that were used
 * again (more than once) go to the main queue; the others leave, and only a fingerprint is remembered for a while: a
 * block that comes back within that time goes to the main queue at once. The main queue gives blocks that were used
 * another round, at most three. So a scan of any length passes through the small queue and leaves the main one alone.
 *
 * Capacity covers blocks with their headers and rounding, the shards' tables, the spare memory below, blocks that are
 * held without being findable, and what cache_charge adds. Only held blocks and charges can bring it beyond. Blocks of
 * up to 16 KiB are rounded to 128 bytes, and a little memory of evicted ones (at most 1/64 of the capacity) is kept for
 * the next ones, so that a full cache allocates almost nothing.
 *
 * Any thread.
 */
#ifndef HOLDFAST_STORAGE_CACHE_H
#define HOLDFAST_STORAGE_CACHE_H

#include "node/env/env.h"

struct cache;

enum cache_kind {
    CACHE_DATA,
    CACHE_INDEX, /* index entries and filters */
    CACHE_OTHER,
    CACHE_KIND_COUNT
};

struct cache_key {
    uint64_t id;     /* of the file: random, never used for another one */
    uint64_t offset; /* of the block in it */
};

struct cache_block {
    uint8_t *data; /* aligned to 16 bytes */
    size_t len;
    /* The cache's: */
    _Atomic uint32_t refs; /* holders, and the cache while it is findable */
    uint32_t charge_bytes; /* what it really takes */
    struct cache_block *chain;
    struct list queue;
    struct cache_key key;
    uint8_t kind;
    uint8_t uses; /* since it was queued, at most 3 */
    bool in_main;
    bool is_loose; /* counted as held without being findable */
};

/* Capacity 0: nothing is retained. The number of shards is fixed by the capacity given here (none below 1 MiB).
 * STATUS_NO_MEMORY. */
MUST_USE enum status cache_new(struct env *env, uint64_t capacity_bytes, struct cache **ret_cache, struct error *err);
/* All blocks have been released. NULL is accepted. */
void cache_free(struct cache *cache);
/* Evicts what is too much, and fits the tables' size (as far as there is memory for that). One thread at a time, beside
 * all other calls. */
void cache_set_capacity(struct cache *cache, uint64_t capacity_bytes);

/* Held, or NULL. Counted as hit or miss of this kind. */
struct cache_block *cache_lookup(struct cache *cache, const struct cache_key *key, enum cache_kind kind);
/* A block of len > 0 bytes to be filled in; held by the caller, nobody else can find it. NULL: no memory. */
struct cache_block *cache_block_new(struct cache *cache, size_t len);
/* Makes it findable; with retain false, or without room, it is merely counted. Takes the caller's hold and returns one:
 * of this block, or of another thread's that was there first (then this one is gone). Never NULL. */
struct cache_block *cache_insert(struct cache *cache, const struct cache_key *key, enum cache_kind kind,
                                 struct cache_block *block, bool retain);
/* One more hold, by somebody who has one. */
void cache_hold(struct cache_block *block);
/* NULL is accepted. */
void cache_release(struct cache *cache, struct cache_block *block);
/* Forgets all blocks of a file that is gone. Those inserted meanwhile may stay until they are evicted. Walks the whole
 * cache, in small steps. */
void cache_forget(struct cache *cache, uint64_t id);
/* Memory elsewhere that counts against the capacity (negative: no longer). Makes room at the next insertions. */
void cache_charge(struct cache *cache, int64_t bytes);

struct cache_stats {
    uint64_t capacity_bytes;
    uint64_t used_bytes;                   /* all that the capacity covers, charges included */
    uint64_t charged_bytes;                /* of these: cache_charge */
    uint64_t loose_bytes;                  /* of these: held, but not findable */
    uint64_t fixed_bytes;                  /* of these: tables, and the most that spare memory may take */
    uint64_t kind_bytes[CACHE_KIND_COUNT]; /* of these: findable blocks, by what they were inserted as */
    uint64_t blocks;                       /* findable */
    uint64_t inserts;
    uint64_t evictions;
    uint64_t refused; /* insertions without room */
    uint64_t hits[CACHE_KIND_COUNT];
    uint64_t misses[CACHE_KIND_COUNT];
};

/* Shard by shard, so not of one instant. */
void cache_get_stats(struct cache *cache, struct cache_stats *ret_stats);

#endif
