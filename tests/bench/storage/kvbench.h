/*
 * Where an engine is plugged into the storage benchmark: one struct of functions each (engine_*.c).
 *
 * Every function may be called by several threads at once, but an iterator belongs to one. What can't be done is NULL.
 * Failures are printed by the engine's file and end the run: a benchmark of errors is worth nothing.
 */
#ifndef HOLDFAST_BENCH_KVBENCH_H
#define HOLDFAST_BENCH_KVBENCH_H

#include <stdbool.h>
#include <stddef.h>

struct kv_options {
    size_t cache_bytes;
    size_t write_buffer_bytes;
    int bloom_bits;
    bool compressed;         /* with what each engine does best here: lz4, or snappy for LevelDB */
    bool verifies_checksums; /* of blocks, when they are read: RocksDB and ours always do */
};

/* What a lookup found; `owner` is the engine's to keep what it needs for release. */
struct kv_value {
    const void *data;
    size_t len;
    void *owner[8];
};

struct kv_engine {
    const char *name;
    void *(*open)(const char *dir, const struct kv_options *options);
    void (*close)(void *db);
    void (*put)(void *db, const void *key, size_t key_len, const void *value, size_t value_len, bool sync);
    void (*remove_range)(void *db, const void *start, size_t start_len, const void *end, size_t end_len);
    bool (*get)(void *db, const void *key, size_t key_len, struct kv_value *ret_value); /* false: not there */
    void (*release)(struct kv_value *value);
    void (*flush)(void *db); /* the memtable is in tables on return */
    void *(*iterator_new)(void *db);
    void (*iterator_free)(void *iterator);
    bool (*seek)(void *iterator, const void *key, size_t key_len); /* each: whether there is an entry */
    bool (*first)(void *iterator);
    bool (*last)(void *iterator);
    bool (*next)(void *iterator);
    bool (*prev)(void *iterator);
    const void *(*key)(void *iterator, size_t *ret_len);
    const void *(*value)(void *iterator, size_t *ret_len);
};

extern const struct kv_engine kv_holdfast;
extern const struct kv_engine kv_leveldb;
extern const struct kv_engine kv_rocksdb;

#endif
