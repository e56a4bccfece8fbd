/* LevelDB through its C interface. */
#include "tests/bench/storage/kvbench.h"

#include <leveldb/c.h>
#include <stdio.h>
#include <stdlib.h>

#define API(name) leveldb_##name
#define NAME      "leveldb"
#include "tests/bench/storage/engine_common.inc"

static void *open_leveldb(const char *dir, const struct kv_options *options) {
    struct database *database = calloc(1, sizeof *database);
    database->options = leveldb_options_create();
    leveldb_options_set_create_if_missing(database->options, 1);
    leveldb_options_set_cache(database->options, leveldb_cache_create_lru(options->cache_bytes));
    leveldb_options_set_write_buffer_size(database->options, options->write_buffer_bytes);
    leveldb_options_set_filter_policy(database->options, leveldb_filterpolicy_create_bloom(options->bloom_bits));
    leveldb_options_set_compression(database->options,
                                    options->compressed ? leveldb_snappy_compression : leveldb_no_compression);
    open_database(database, dir);
    leveldb_readoptions_set_verify_checksums(database->reading, options->verifies_checksums);
    return database;
}

static bool get(void *db, const void *wanted, size_t wanted_len, struct kv_value *ret_value) {
    struct database *database = db;
    char *error = NULL;
    ret_value->owner[0] = leveldb_get(database->db, database->reading, wanted, wanted_len, &ret_value->len, &error);
    check(error);
    ret_value->data = ret_value->owner[0];
    return ret_value->data != NULL;
}

static void release(struct kv_value *found) { free(found->owner[0]); }

const struct kv_engine kv_leveldb = {.name = NAME,
                                     .open = open_leveldb,
                                     .close = close_database,
                                     .put = put,
                                     .get = get,
                                     .release = release,
                                     .iterator_new = iterator_new,
                                     .iterator_free = iterator_free,
                                     .seek = seek,
                                     .first = first,
                                     .last = last,
                                     .next = next,
                                     .prev = prev,
                                     .key = key,
                                     .value = value};
