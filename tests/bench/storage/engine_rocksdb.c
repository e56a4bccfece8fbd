/*
 * RocksDB through its C interface; lookups by its pinned values, which copy nothing. What our engine has, it gets, too:
 * two compactions beside a flush, two full memtables beside the active one.
 */
#include "tests/bench/storage/kvbench.h"

#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>

#define API(name) rocksdb_##name
#define NAME      "rocksdb"
#include "tests/bench/storage/engine_common.inc"

enum { BACKGROUND_JOBS = 3, MEMTABLES = 3 };

static void *open_rocksdb(const char *dir, const struct kv_options *options) {
    struct database *database = calloc(1, sizeof *database);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru(options->cache_bytes));
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(options->bloom_bits));
    database->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(database->options, 1);
    rocksdb_options_set_block_based_table_factory(database->options, table);
    rocksdb_options_set_write_buffer_size(database->options, options->write_buffer_bytes);
    rocksdb_options_set_max_background_jobs(database->options, BACKGROUND_JOBS);
    rocksdb_options_set_max_write_buffer_number(database->options, MEMTABLES);
    rocksdb_options_set_compression(database->options,
                                    options->compressed ? rocksdb_lz4_compression : rocksdb_no_compression);
    open_database(database, dir);
    return database;
}

static void remove_range(void *db, const void *start, size_t start_len, const void *end, size_t end_len) {
    struct database *database = db;
    char *error = NULL;
    /* The C interface of this version has range deletes in batches only. */
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    rocksdb_writebatch_delete_range(batch, start, start_len, end, end_len);
    rocksdb_write(database->db, database->writing, batch, &error);
    rocksdb_writebatch_destroy(batch);
    check(error);
}

static bool get(void *db, const void *wanted, size_t wanted_len, struct kv_value *ret_value) {
    struct database *database = db;
    char *error = NULL;
    rocksdb_pinnableslice_t *slice = rocksdb_get_pinned(database->db, database->reading, wanted, wanted_len, &error);
    check(error);
    if (slice == NULL) {
        return false;
    }
    ret_value->owner[0] = slice;
    ret_value->data = rocksdb_pinnableslice_value(slice, &ret_value->len);
    return true;
}

static void release(struct kv_value *found) { rocksdb_pinnableslice_destroy(found->owner[0]); }

static void flush(void *db) {
    struct database *database = db;
    char *error = NULL;
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    rocksdb_flush(database->db, options, &error);
    rocksdb_flushoptions_destroy(options);
    check(error);
}

const struct kv_engine kv_rocksdb = {.name = NAME,
                                     .open = open_rocksdb,
                                     .close = close_database,
                                     .put = put,
                                     .remove_range = remove_range,
                                     .get = get,
                                     .release = release,
                                     .flush = flush,
                                     .iterator_new = iterator_new,
                                     .iterator_free = iterator_free,
                                     .seek = seek,
                                     .first = first,
                                     .last = last,
                                     .next = next,
                                     .prev = prev,
                                     .key = key,
                                     .value = value};
