/* Tables on a simulated disk with what readers share, and a sorted list of entries that says what they must find. */
#ifndef HOLDFAST_TESTS_SST_FIXTURE_H
#define HOLDFAST_TESTS_SST_FIXTURE_H

#include "node/base/random.h"
#include "storage/file_names.h"
#include "storage/filter.h"
#include "storage/sst.h"
#include "tests/sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ENTRIES_MAX = 3000, KEY_BYTES = 24, TABLES_MAX = 8 };

static const uint8_t cluster_id[SST_CLUSTER_ID_BYTES] = "cluster-of-tests";

struct list_of_entries {
    struct entry entries[ENTRIES_MAX];
    uint8_t keys[ENTRIES_MAX][KEY_BYTES];
    size_t count;
};

struct world {
    struct sim *sim;
    struct sim_node *node;
    struct env *env;
    struct sst_context context;
    struct sst_builder_options builder;
    struct list_of_entries list;
    struct sst *tables[TABLES_MAX];
    size_t table_count;
    uint64_t damaged; /* times that the owner was told */
    struct error last_damage;
};

static inline void world_damaged(void *context, const struct sst *sst, const struct error *err) {
    struct world *world = context;
    (void)sst;
    world->damaged++;
    world->last_damage = *err;
}

static inline struct world *world_new(uint64_t seed, uint64_t cache_bytes, uint32_t open_max) {
    struct world *world = calloc(1, sizeof *world);
    struct sim_options options;
    struct sim_node_options node_options;
    sim_options_init(&options);
    world->sim = sim_new(seed, &options);
    sim_node_options_init(&node_options, "n1");
    world->node = sim_node_new(world->sim, &node_options);
    sim_node_start(world->node);
    world->env = sim_node_env(world->node);
    world->context =
        (struct sst_context){.env = world->env, .dir = "/", .damaged = world_damaged, .damaged_context = world};
    memcpy(world->context.cluster_id, cluster_id, sizeof cluster_id);
    assert_int_equal(cache_new(world->env, cache_bytes, &world->context.cache, NULL), STATUS_OK);
    assert_int_equal(open_files_new(world->env, open_max, &world->context.files, NULL), STATUS_OK);
    world->builder = (struct sst_builder_options){.env = world->env,
                                                  .block_bytes = 512,
                                                  .partition_bytes = 4096,
                                                  .bloom_bits = 10,
                                                  .compression = COMPRESSION_NONE,
                                                  .zstd_level = 3};
    memcpy(world->builder.cluster_id, cluster_id, sizeof cluster_id);
    return world;
}

static inline void world_free(struct world *world) {
    for (size_t i = 0; i < world->table_count; i++) {
        sst_free(world->tables[i]);
    }
    struct cache_stats stats;
    cache_get_stats(world->context.cache, &stats);
    assert_int_equal(stats.charged_bytes, 0);
    assert_int_equal(stats.loose_bytes, 0);
    cache_free(world->context.cache);
    open_files_free(world->context.files);
    sim_free(world->sim);
    free(world);
}

static inline int compare_entries(const void *a, const void *b) {
    return entry_key_compare(&((const struct entry *)a)->key, &((const struct entry *)b)->key);
}

/* Clustered keys with up to 40 versions each, some deletes, values of 0 to 200 bytes; revisions from 1 on. */
static inline void make_entries(struct list_of_entries *list, size_t count, uint64_t seed) {
    static uint8_t filler[256];
    struct random random;
    random_seed(&random, seed);
    for (size_t i = 0; i < sizeof filler; i++) {
        filler[i] = (uint8_t)(i / 16);
    }
    list->count = 0;
    uint64_t revision = 1;
    while (list->count < count) {
        uint8_t key[KEY_BYTES];
        size_t len = 1 + random_below(&random, KEY_BYTES);
        for (size_t i = 0; i < len; i++) {
            key[i] = (uint8_t)(random_chance(&random, 1, 4) ? random_below(&random, 256) : 'k');
        }
        uint64_t versions = random_chance(&random, 1, 5) ? 1 + random_below(&random, 40) : 1;
        for (uint64_t v = 0; v < versions && list->count < count; v++) {
            struct entry *entry = &list->entries[list->count];
            memcpy(list->keys[list->count], key, len);
            bool is_delete = random_chance(&random, 1, 6);
            *entry = (struct entry){.key = {slice_of(list->keys[list->count], len), revision++,
                                            (uint32_t)random_below(&random, 3)},
                                    .kind = is_delete ? BATCH_DELETE : BATCH_PUT};
            entry->value = is_delete ? SLICE_EMPTY : slice_of(filler, random_below(&random, 200));
            list->count++;
        }
    }
    qsort(list->entries, list->count, sizeof list->entries[0], compare_entries);
}

/* One more table with these entries and range deletes. */
static inline struct sst *add_table(struct world *world, const struct entry *entries, size_t count,
                                    const struct tombstone *tombstones, size_t tombstone_count) {
    char path[LIMIT_PATH_BYTES];
    struct sst_builder *builder;
    struct sst_meta meta;
    struct sst_builder_options options = world->builder;
    uint64_t number = world->table_count + 1;
    assert_true(number <= TABLES_MAX);
    file_path_sst(path, world->context.dir, number);
    options.path = path;
    options.number = number;
    options.id = 0x1234567 * number;
    assert_int_equal(sst_builder_new(&options, &builder, NULL), STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(sst_builder_add(builder, &entries[i], NULL), STATUS_OK);
    }
    for (size_t i = 0; i < tombstone_count; i++) {
        assert_int_equal(sst_builder_add_tombstone(builder, &tombstones[i], NULL), STATUS_OK);
    }
    assert_int_equal(sst_builder_finish(builder, &meta, NULL), STATUS_OK);
    assert_int_equal(sst_new(&world->context, &meta, &world->tables[world->table_count]), STATUS_OK);
    sst_builder_free(builder);
    return world->tables[world->table_count++];
}

/* The list as `count` tables, cut at user keys. */
static inline void add_tables(struct world *world, size_t count) {
    const struct list_of_entries *list = &world->list;
    size_t from = 0;
    for (size_t i = 1; i <= count; i++) {
        size_t to = list->count * i / count;
        while (to < list->count && to > 0 && slice_equal(list->entries[to - 1].key.user, list->entries[to].key.user)) {
            to++;
        }
        if (to > from) {
            (void)add_table(world, &list->entries[from], to - from, NULL, 0);
        }
        from = to;
    }
}

/* Place of the first entry at or behind the target. */
static inline size_t list_find(const struct list_of_entries *list, const struct entry_key *target) {
    size_t at = 0;
    while (at < list->count && entry_key_compare(&list->entries[at].key, target) < 0) {
        at++;
    }
    return at;
}

static inline void assert_entry(const struct entry *got, const struct entry *want) {
    assert_int_equal(entry_key_compare(&got->key, &want->key), 0);
    assert_int_equal(got->kind, want->kind);
    assert_true(slice_equal(got->value, want->value));
}

/* A key to look for: mostly one that is there, or nearly. key: KEY_BYTES + 1. */
static inline struct entry_key random_target(const struct list_of_entries *list, struct random *random, uint8_t *key) {
    const struct entry_key *near = &list->entries[random_below(random, list->count)].key;
    struct entry_key target = *near;
    memcpy(key, near->user.data, near->user.len);
    target.user = slice_of(key, near->user.len);
    if (random_chance(random, 1, 4)) {
        key[target.user.len - 1] = (uint8_t)random_below(random, 256);
    }
    if (random_chance(random, 1, 4)) {
        key[target.user.len++] = (uint8_t)random_below(random, 256);
    }
    if (random_chance(random, 1, 2)) {
        target.revision = random_below(random, list->count + 2);
    }
    target.ordinal = random_chance(random, 1, 2) ? ENTRY_ORDINAL_MAX : target.ordinal;
    return target;
}

/* The whole file, malloc's. */
static inline struct slice read_file(struct env *env, const char *path) {
    struct env_file *file;
    uint64_t size_bytes;
    size_t got;
    assert_int_equal(env_open(env, path, ENV_OPEN_READ, &file, NULL), STATUS_OK);
    assert_int_equal(env_size(file, &size_bytes, NULL), STATUS_OK);
    uint8_t *bytes = malloc(size_bytes);
    assert_non_null(bytes);
    assert_int_equal(env_pread(file, bytes, size_bytes, 0, &got, NULL), STATUS_OK);
    assert_int_equal(got, size_bytes);
    env_close(file);
    return slice_of(bytes, size_bytes);
}

/* Flips a byte of the file for good. */
static inline void damage(struct world *world, const struct sst *sst, uint64_t offset) {
    char path[LIMIT_PATH_BYTES];
    file_path_sst(path, world->context.dir, sst->meta.number);
    assert_int_equal(sim_disk_corrupt(world->node, path, offset, 1), STATUS_OK);
}

#endif
