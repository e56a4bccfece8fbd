/*
 * What the builder writes, taken apart again byte by byte; and what becomes of a table that can't be written.
 *
 * Would break these: a separator that sends a lookup to the wrong block or partition, a key that its partition's filter
 * denies, versions of one key that fill blocks and partitions and are missed, bytes that no checksum covers, a meta
 * that says other than the file, a range that leaves out a range delete, a second sync after a failed one, a file that
 * stays behind, a change of the format.
 */
#include "node/base/random.h"
#include "storage/tombstones.h"
#include "tests/sim/sim.h"
#include "tests/unit/golden.h"
#include "tests/unit/table_parse.h"

static const uint8_t cluster_id[SST_CLUSTER_ID_BYTES] = "cluster-of-tests";
static struct sim *sim;
static struct sim_node *node;
static struct env *env;

static int setup(void **state) {
    (void)state;
    struct sim_options options;
    struct sim_node_options node_options;
    sim_options_init(&options);
    sim = sim_new(1, &options);
    sim_node_options_init(&node_options, "n1");
    node = sim_node_new(sim, &node_options);
    sim_node_start(node);
    env = sim_node_env(node);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    sim_free(sim);
    return 0;
}

/* ---- Tables --------------------------------------------------------------------------------------------------- */

enum { ENTRIES_MAX = 1500, KEY_BYTES = 24, TOMBSTONES_MAX = 40 };

static struct {
    struct entry entries[ENTRIES_MAX];
    uint8_t keys[ENTRIES_MAX][KEY_BYTES];
    size_t count;
    struct tombstone tombstones[TOMBSTONES_MAX];
    uint8_t bounds[TOMBSTONES_MAX][2];
    size_t tombstone_count;
} input;

static int compare_entries(const void *a, const void *b) {
    return entry_key_compare(&((const struct entry *)a)->key, &((const struct entry *)b)->key);
}

/* Clustered keys with up to 100 versions each, some deletes, values of 0 to 200 bytes. */
static void make_entries(size_t count, uint64_t seed) {
    static uint8_t filler[256];
    struct random random;
    random_seed(&random, seed);
    for (size_t i = 0; i < sizeof filler; i++) {
        filler[i] = (uint8_t)(i / 16);
    }
    input.count = 0;
    input.tombstone_count = 0;
    uint64_t revision = 1;
    while (input.count < count) {
        uint8_t key[KEY_BYTES];
        size_t len = 1 + random_below(&random, KEY_BYTES);
        for (size_t i = 0; i < len; i++) {
            key[i] = (uint8_t)(random_chance(&random, 1, 4) ? random_below(&random, 256) : 'k');
        }
        uint64_t versions = random_chance(&random, 1, 8) ? 1 + random_below(&random, 100) : 1;
        for (uint64_t v = 0; v < versions && input.count < count; v++) {
            struct entry *entry = &input.entries[input.count];
            memcpy(input.keys[input.count], key, len);
            bool is_delete = random_chance(&random, 1, 6);
            *entry = (struct entry){.key = {slice_of(input.keys[input.count], len), revision++,
                                            (uint32_t)random_below(&random, 3)},
                                    .kind = is_delete ? BATCH_DELETE : BATCH_PUT};
            entry->value = is_delete ? SLICE_EMPTY : slice_of(filler, random_below(&random, 200));
            input.count++;
        }
    }
    qsort(input.entries, input.count, sizeof input.entries[0], compare_entries);
}

/* Fragments [a, b), [b, c), [d, e)... with one to three marks each. */
static void make_tombstones(size_t fragments, uint64_t seed) {
    struct random random;
    random_seed(&random, seed);
    uint8_t at = 'a';
    for (size_t i = 0; i < fragments; i++) {
        uint8_t *bounds = input.bounds[i];
        bounds[0] = (uint8_t)(at + random_below(&random, 3));
        bounds[1] = (uint8_t)(bounds[0] + 1 + random_below(&random, 3));
        at = bounds[1];
        uint64_t revision = 5000 + random_below(&random, 100);
        for (uint64_t marks = 1 + random_below(&random, 3); marks > 0; marks--) {
            input.tombstones[input.tombstone_count++] =
                (struct tombstone){slice_of(bounds, 1), slice_of(bounds + 1, 1), revision--,
                                   (uint32_t)random_below(&random, 5)};
        }
    }
}

static struct sst_builder_options default_options(void) {
    struct sst_builder_options options = {.env = env,
                                          .path = "/t.sst",
                                          .number = 7,
                                          .id = 1007,
                                          .block_bytes = 4096,
                                          .partition_bytes = 128 * 1024,
                                          .bloom_bits = 10,
                                          .compression = COMPRESSION_NONE,
                                          .zstd_level = 3};
    memcpy(options.cluster_id, cluster_id, sizeof cluster_id);
    return options;
}

static struct slice read_file(const char *path, size_t size) {
    struct env_file *file;
    size_t len;
    uint8_t *bytes = malloc(size + 1);
    assert_int_equal(env_open(env, path, ENV_OPEN_READ, &file, NULL), STATUS_OK);
    assert_int_equal(env_pread(file, bytes, size + 1, 0, &len, NULL), STATUS_OK);
    assert_int_equal(len, size);
    env_close(file);
    return slice_of(bytes, len);
}

static bool file_exists(const char *path) {
    struct env_file *file;
    enum status status = env_open(env, path, ENV_OPEN_READ, &file, NULL);
    if (status == STATUS_OK) {
        env_close(file);
    }
    return status == STATUS_OK;
}

/* Adds the whole input, range deletes somewhere in between. */
static enum status add_input(struct sst_builder *builder, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < input.count && status == STATUS_OK; i++) {
        if (i == input.count / 2) {
            for (size_t t = 0; t < input.tombstone_count && status == STATUS_OK; t++) {
                status = sst_builder_add_tombstone(builder, &input.tombstones[t], err);
            }
        }
        if (status == STATUS_OK) {
            status = sst_builder_add(builder, &input.entries[i], err);
        }
    }
    for (size_t t = 0; t < input.tombstone_count && input.count == 0 && status == STATUS_OK; t++) {
        status = sst_builder_add_tombstone(builder, &input.tombstones[t], err);
    }
    return status;
}

struct built {
    struct sst_meta meta; /* keys are the builder's */
    struct sst_builder *builder;
    struct slice file;
    struct parsed_table *table;
};

static void build(const struct sst_builder_options *options, struct built *ret_built) {
    assert_int_equal(sst_builder_new(options, &ret_built->builder, NULL), STATUS_OK);
    assert_int_equal(add_input(ret_built->builder, NULL), STATUS_OK);
    uint64_t estimate = sst_builder_size(ret_built->builder);
    assert_int_equal(sst_builder_finish(ret_built->builder, &ret_built->meta, NULL), STATUS_OK);
    assert_true(options->compression != COMPRESSION_NONE || estimate <= ret_built->meta.size_bytes);
    ret_built->file = read_file(options->path, ret_built->meta.size_bytes);
    ret_built->table = parse_table(ret_built->file);
}

static void built_free(struct built *built) {
    parse_free(built->table);
    free((void *)(uintptr_t)built->file.data);
    sst_builder_free(built->builder);
}

/* ---- What is in the file -------------------------------------------------------------------------------------- */

static void check_meta(const struct built *built) {
    const struct sst_meta *meta = &built->meta;
    const struct sst_properties *properties = &built->table->properties;
    struct sst_meta want = {.revision_first = UINT64_MAX};
    for (size_t i = 0; i < input.count; i++) {
        const struct entry *entry = &input.entries[i];
        want.deletes += entry->kind == BATCH_DELETE;
        want.key_bytes += entry->key.user.len;
        want.value_bytes += entry->value.len;
        want.revision_first = entry->key.revision < want.revision_first ? entry->key.revision : want.revision_first;
        want.revision_last = entry->key.revision > want.revision_last ? entry->key.revision : want.revision_last;
        if (i > 0 && slice_equal(input.entries[i - 1].key.user, entry->key.user)) {
            uint64_t newer = input.entries[i - 1].key.revision;
            want.superseded++;
            want.superseded_until = newer > want.superseded_until ? newer : want.superseded_until;
        }
    }
    for (size_t i = 0; i < input.tombstone_count; i++) {
        uint64_t revision = input.tombstones[i].revision;
        want.revision_first = revision < want.revision_first ? revision : want.revision_first;
        want.revision_last = revision > want.revision_last ? revision : want.revision_last;
    }
    assert_int_equal(meta->number, 7);
    assert_int_equal(meta->id, 1007);
    assert_int_equal(meta->checksum, built->table->checksum);
    assert_int_equal(meta->entries, input.count);
    assert_int_equal(meta->deletes, want.deletes);
    assert_int_equal(meta->tombstones, input.tombstone_count);
    assert_int_equal(meta->superseded, want.superseded);
    assert_int_equal(meta->superseded_until, want.superseded_until);
    assert_int_equal(meta->key_bytes, want.key_bytes);
    assert_int_equal(meta->value_bytes, want.value_bytes);
    assert_int_equal(meta->revision_first, want.revision_first);
    assert_int_equal(meta->revision_last, want.revision_last);
    assert_int_equal(properties->entries, meta->entries);
    assert_int_equal(properties->deletes, meta->deletes);
    assert_int_equal(properties->tombstones, meta->tombstones);
    assert_int_equal(properties->superseded, meta->superseded);
    assert_int_equal(properties->superseded_until, meta->superseded_until);
    assert_int_equal(properties->key_bytes, meta->key_bytes);
    assert_int_equal(properties->value_bytes, meta->value_bytes);
    assert_int_equal(properties->revision_first, meta->revision_first);
    assert_int_equal(properties->revision_last, meta->revision_last);
    assert_int_equal(properties->largest_excluded, meta->largest_excluded);
    assert_int_equal(properties->data_blocks, built->table->data_blocks);
    assert_int_equal(properties->partitions, built->table->partitions);
    assert_int_equal(properties->raw_bytes, built->table->raw_bytes);
    assert_true(slice_equal(properties->smallest, meta->smallest));
    assert_true(slice_equal(properties->largest, meta->largest));
}

static void check_contents(const struct built *built) {
    const struct parsed_table *table = built->table;
    assert_int_equal(table->header.number, 7);
    assert_memory_equal(table->header.cluster_id, cluster_id, sizeof cluster_id);
    assert_int_equal(table->entry_count, input.count);
    for (size_t i = 0; i < input.count; i++) {
        assert_int_equal(entry_key_compare(&table->entries[i].key, &input.entries[i].key), 0);
        assert_int_equal(table->entries[i].kind, input.entries[i].kind);
        assert_true(slice_equal(table->entries[i].value, input.entries[i].value));
    }
    assert_int_equal(table->tombstone_count, input.tombstone_count);
    for (size_t i = 0; i < input.tombstone_count; i++) {
        const struct tombstone *want = &input.tombstones[i];
        assert_true(slice_equal(table->tombstones[i].key.user, want->start));
        assert_true(slice_equal(table->tombstones[i].value, want->end));
        assert_int_equal(table->tombstones[i].key.revision, want->revision);
        assert_int_equal(table->tombstones[i].key.ordinal, want->ordinal);
    }
}

/* Every version at its revision and just below, and keys that aren't there. */
static void check_lookups(const struct built *built) {
    unsigned denied = 0;
    for (size_t i = 0; i < input.count; i++) {
        const struct entry *want = &input.entries[i];
        struct slice user = want->key.user;
        struct entry got;
        bool is_newest_of_revision = i == 0 || !slice_equal(input.entries[i - 1].key.user, user) ||
                                     input.entries[i - 1].key.revision != want->key.revision;
        if (is_newest_of_revision) {
            assert_int_equal(parse_get(built->table, user, want->key.revision, true, &got), STATUS_OK);
            assert_int_equal(entry_key_compare(&got.key, &want->key), 0);
        }
        bool has_older = i + 1 < input.count && slice_equal(input.entries[i + 1].key.user, user);
        enum status status = parse_get(built->table, user, want->key.revision - 1, true, &got);
        assert_int_equal(status, has_older ? STATUS_OK : STATUS_NOT_FOUND);
        assert_true(!has_older || entry_key_compare(&got.key, &want[1].key) == 0);
        if (i % 8 == 0) {
            uint8_t longer[KEY_BYTES + 1] = {0};
            memcpy(longer, user.data, user.len);
            longer[user.len] = 1;
            struct slice other = slice_of(longer, user.len + 1);
            assert_int_equal(parse_get(built->table, other, UINT64_MAX - 1, false, &got), STATUS_NOT_FOUND);
            denied += parse_get(built->table, other, UINT64_MAX - 1, true, &got) == STATUS_NOT_FOUND;
        }
    }
    assert_true(denied > 0 || input.count == 0);
}

static void test_sst_builder_whole_file_reads_back(void **state) {
    (void)state;
    static const struct {
        uint32_t block_bytes, partition_bytes, bloom_bits;
        enum compression compression;
        size_t entries, fragments;
    } cases[] = {
        {4096, 128 * 1024, 10, COMPRESSION_NONE, 1500, 0},
        {300, 2000, 10, COMPRESSION_NONE, 1500, 5},
        {1, 1, 10, COMPRESSION_NONE, 300, 0},
        {64, 500, 0, COMPRESSION_LZ4, 800, 0},
        {4096, 8192, 16, COMPRESSION_LZ4, 1500, 8},
        {2000, 1, 1, COMPRESSION_ZSTD, 1000, 3},
        {1024 * 1024, 4096, 10, COMPRESSION_ZSTD, 1500, 1},
        {4096, 4096, 10, COMPRESSION_NONE, 1, 0},
        {4096, 4096, 10, COMPRESSION_NONE, 0, 6},
        {4096, 4096, 10, COMPRESSION_NONE, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sst_builder_options options = default_options();
        struct built built;
        options.block_bytes = cases[i].block_bytes;
        options.partition_bytes = cases[i].partition_bytes;
        options.bloom_bits = cases[i].bloom_bits;
        options.compression = cases[i].compression;
        make_entries(cases[i].entries, 10 + i);
        make_tombstones(cases[i].fragments, 20 + i);
        build(&options, &built);
        check_contents(&built);
        check_meta(&built);
        check_lookups(&built);
        assert_int_equal(built.table->compressed_blocks > 0, cases[i].compression != COMPRESSION_NONE);
        built_free(&built);
    }
}

/* One key whose versions fill many blocks and partitions, between two others. */
static void test_sst_builder_versions_of_a_key_over_partitions_are_found(void **state) {
    (void)state;
    struct sst_builder_options options = default_options();
    struct built built;
    options.block_bytes = 100;
    options.partition_bytes = 300;
    input.count = 0;
    input.tombstone_count = 0;
    for (size_t i = 0; i < 600; i++) {
        const char *key = i == 0 ? "a" : i < 599 ? "many" : "z";
        input.entries[i] = (struct entry){.key = {slice_of_string(key), 2000 - i, 0}, .kind = BATCH_PUT};
        input.count++;
    }
    build(&options, &built);
    assert_true(built.table->partitions > 10);
    check_contents(&built);
    check_lookups(&built);
    check_meta(&built);
    assert_int_equal(built.meta.superseded, 597);
    assert_int_equal(built.meta.superseded_until, 1999);
    built_free(&built);
}

static void test_sst_builder_of_largest_key_and_value_reads_back(void **state) {
    (void)state;
    struct sst_builder_options options = default_options();
    struct built built;
    uint8_t *value = malloc(LIMIT_VALUE_BYTES);
    static uint8_t key[LIMIT_KEY_BYTES];
    for (size_t i = 0; i < LIMIT_VALUE_BYTES; i++) {
        value[i] = (uint8_t)(i * 31);
    }
    memset(key, 'k', sizeof key);
    const struct entry entries[] = {
        {.key = {slice_of_string("a"), 1, 0}, .kind = BATCH_PUT},
        {.key = {slice_of(key, sizeof key), 2, 0}, .value = slice_of(value, LIMIT_VALUE_BYTES), .kind = BATCH_PUT},
        {.key = {slice_of_string("z"), 1, 0}, .kind = BATCH_PUT},
    };
    memcpy(input.entries, entries, sizeof entries);
    input.count = 3;
    input.tombstone_count = 0;
    for (enum compression kind = COMPRESSION_NONE; kind < COMPRESSION_COUNT; kind++) {
        options.compression = kind;
        build(&options, &built);
        check_contents(&built);
        check_meta(&built);
        built_free(&built);
    }
    free(value);
}

/* Separators of 4 KiB: without larger partitions the top index would grow with the table, and beyond what a block may
 * have. */
static void test_sst_builder_partitions_grow_with_the_top_index(void **state) {
    (void)state;
    struct sst_builder_options options = default_options();
    struct built built;
    uint8_t *keys = malloc((size_t)ENTRIES_MAX * LIMIT_KEY_BYTES);
    options.partition_bytes = 6000; /* two blocks of one entry */
    memset(keys, 'k', (size_t)ENTRIES_MAX * LIMIT_KEY_BYTES);
    for (size_t i = 0; i < ENTRIES_MAX; i++) {
        uint8_t *key = keys + i * LIMIT_KEY_BYTES;
        key[LIMIT_KEY_BYTES - 2] = (uint8_t)(i / 256);
        key[LIMIT_KEY_BYTES - 1] = (uint8_t)i;
        input.entries[i] = (struct entry){.key = {slice_of(key, LIMIT_KEY_BYTES), i + 1, 0}, .kind = BATCH_PUT};
    }
    input.count = ENTRIES_MAX;
    input.tombstone_count = 0;
    build(&options, &built);
    assert_int_equal(built.table->data_blocks, ENTRIES_MAX);
    assert_in_range(built.table->partitions, 300, 620); /* of two, then of three, not 750 */
    check_contents(&built);
    check_meta(&built);
    built_free(&built);
    free(keys);
}

/* The range of a table is what decides whether it is asked at all: it must cover what its range deletes cover. */
static void test_sst_builder_range_covers_range_deletes(void **state) {
    (void)state;
    static const struct {
        const char *first, *last; /* entries; NULL: none */
        const char *start, *end;  /* of the range delete */
        const char *smallest, *largest;
        bool excluded;
    } cases[] = {
        {"c", "m", "d", "e", "c", "m", false}, {"c", "m", "a", "b", "a", "m", false},
        {"c", "m", "d", "z", "c", "z", true},  {"c", "m", "a", "m", "a", "m", false},
        {"c", "m", "b", "n", "b", "n", true},  {NULL, NULL, "b", "n", "b", "n", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sst_builder_options options = default_options();
        struct built built;
        input.count = 0;
        if (cases[i].first != NULL) {
            input.entries[0] = (struct entry){.key = {slice_of_string(cases[i].first), 1, 0}, .kind = BATCH_PUT};
            input.entries[1] = (struct entry){.key = {slice_of_string(cases[i].last), 2, 0}, .kind = BATCH_PUT};
            input.count = 2;
        }
        input.tombstones[0] = (struct tombstone){slice_of_string(cases[i].start), slice_of_string(cases[i].end), 9, 1};
        input.tombstone_count = 1;
        build(&options, &built);
        check_contents(&built);
        check_meta(&built);
        assert_true(slice_equal(built.meta.smallest, slice_of_string(cases[i].smallest)));
        assert_true(slice_equal(built.meta.largest, slice_of_string(cases[i].largest)));
        assert_int_equal(built.meta.largest_excluded, cases[i].excluded);
        built_free(&built);
    }
}

/* ---- Failures ------------------------------------------------------------------------------------------------- */

static void test_sst_builder_refuses_what_is_out_of_order_and_leaves_no_file(void **state) {
    (void)state;
#define PUT(user, revision, ordinal)                                                                                   \
    { .key = {slice_of_string(user), revision, ordinal}, .kind = BATCH_PUT }
    const struct entry orders[][2] = {
        {PUT("b", 1, 0), PUT("a", 1, 0)}, {PUT("a", 1, 0), PUT("a", 2, 0)},  {PUT("a", 1, 0), PUT("a", 1, 1)},
        {PUT("a", 1, 0), PUT("a", 1, 0)}, {PUT("ab", 1, 0), PUT("a", 1, 0)},
    };
#undef PUT
    for (size_t i = 0; i < 2 * sizeof orders / sizeof orders[0]; i++) {
        struct sst_builder_options options = default_options();
        struct sst_builder *builder;
        struct error err;
        options.block_bytes = i % 2 == 0 ? 4096 : 1; /* also from one block to the next */
        assert_int_equal(sst_builder_new(&options, &builder, NULL), STATUS_OK);
        assert_int_equal(sst_builder_add(builder, &orders[i / 2][0], &err), STATUS_OK);
        assert_int_equal(sst_builder_add(builder, &orders[i / 2][1], &err), STATUS_CORRUPT);
        assert_non_null(strstr(err.message, "/t.sst"));
        sst_builder_free(builder);
        assert_false(file_exists("/t.sst"));
    }
}

static void test_sst_builder_refuses_range_deletes_out_of_order(void **state) {
    (void)state;
#define RANGE(start, end, revision, ordinal)                                                                           \
    { slice_of_string(start), slice_of_string(end), revision, ordinal }
    const struct tombstone orders[][2] = {
        {RANGE("a", "c", 5, 0), RANGE("b", "d", 5, 0)}, {RANGE("a", "c", 5, 0), RANGE("a", "c", 6, 0)},
        {RANGE("a", "c", 5, 0), RANGE("a", "c", 5, 0)}, {RANGE("a", "c", 5, 0), RANGE("a", "b", 4, 0)},
        {RANGE("b", "c", 5, 0), RANGE("a", "b", 5, 0)}, {RANGE("a", "c", 5, 0), RANGE("d", "d", 5, 0)},
    };
#undef RANGE
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        struct sst_builder_options options = default_options();
        struct sst_builder *builder;
        assert_int_equal(sst_builder_new(&options, &builder, NULL), STATUS_OK);
        assert_int_equal(sst_builder_add_tombstone(builder, &orders[i][0], NULL), STATUS_OK);
        assert_int_equal(sst_builder_add_tombstone(builder, &orders[i][1], NULL), STATUS_CORRUPT);
        sst_builder_free(builder);
        assert_false(file_exists("/t.sst"));
    }
}

/* Builds the input with a hook armed; what it came to, and how often the hook was hit. */
static enum status build_with_fault(const char *fault, enum fault_hook hook, uint64_t *ret_hits) {
    struct sst_builder_options options = default_options();
    struct fault_set *faults = sim_node_faults(node);
    struct sst_builder *builder;
    struct sst_meta meta;
    struct error err;
    assert_int_equal(fault_arm(faults, fault, NULL), STATUS_OK);
    uint64_t hits = atomic_load(&faults->rules[hook].hits);
    enum status status = sst_builder_new(&options, &builder, &err);
    assert_int_equal(status, STATUS_OK);
    status = add_input(builder, &err);
    if (status == STATUS_OK) {
        status = sst_builder_finish(builder, &meta, &err);
    }
    *ret_hits = atomic_load(&faults->rules[hook].hits) - hits;
    sst_builder_free(builder);
    fault_disarm(faults, hook);
    assert_int_equal(err.code, status);
    assert_non_null(strstr(err.message, "/t.sst"));
    return status;
}

static void test_h27_sst_builder_syncs_once_and_drops_the_file(void **state) {
    (void)state;
    uint64_t hits;
    make_entries(500, 3);
    assert_int_equal(build_with_fault("flush.sync=error(EIO)", FAULT_FLUSH_SYNC, &hits), STATUS_IO);
    assert_int_equal(hits, 1);
    assert_false(file_exists("/t.sst"));
    assert_int_equal(build_with_fault("flush.write=error(EIO)", FAULT_FLUSH_WRITE, &hits), STATUS_IO);
    assert_int_equal(hits, 1);
    assert_false(file_exists("/t.sst"));
}

static void test_h31_sst_builder_without_space_says_so_and_drops_the_file(void **state) {
    (void)state;
    uint64_t hits;
    make_entries(500, 3);
    assert_int_equal(build_with_fault("flush.write=error(ENOSPC)", FAULT_FLUSH_WRITE, &hits), STATUS_NO_SPACE);
    assert_int_equal(hits, 1);
    assert_false(file_exists("/t.sst"));
    assert_int_equal(build_with_fault("flush.sync=error(ENOSPC)", FAULT_FLUSH_SYNC, &hits), STATUS_NO_SPACE);
    assert_false(file_exists("/t.sst"));
}

/* Each allocation of a build fails in turn. */
static void test_sst_builder_without_memory_says_so_and_leaks_nothing(void **state) {
    (void)state;
    struct sst_builder_options options = default_options();
    options.compression = COMPRESSION_LZ4;
    options.block_bytes = 500;
    options.partition_bytes = 2000;
    struct sim_memory_stats before;
    struct sim_memory_stats after;
    enum status status = STATUS_NO_MEMORY;
    uint64_t failures = 0;
    make_entries(200, 5);
    make_tombstones(5, 6);
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        struct sst_builder *builder = NULL;
        struct sst_meta meta;
        sim_node_get_memory(node, &before);
        sim_node_fail_allocation(node, n);
        status = sst_builder_new(&options, &builder, NULL);
        if (status == STATUS_OK) {
            status = add_input(builder, NULL);
        }
        if (status == STATUS_OK) {
            status = sst_builder_finish(builder, &meta, NULL);
        }
        sim_node_fail_allocation(node, 0);
        sst_builder_free(builder);
        sim_node_get_memory(node, &after);
        assert_int_equal(after.blocks, before.blocks);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        assert_int_equal(file_exists("/t.sst"), status == STATUS_OK);
        failures += status != STATUS_OK;
    }
    assert_true(failures > 20);
}

static void count_paced(void *context, uint64_t bytes) {
    uint64_t *total = context;
    assert_in_range(bytes, 1, 1024 * 1024);
    *total += bytes;
}

static void test_sst_builder_asks_for_every_byte_before_it_writes(void **state) {
    (void)state;
    struct sst_builder_options options = default_options();
    uint64_t total = 0;
    uint8_t *value = calloc(1, 3 * 1024 * 1024);
    struct built built;
    options.pace = count_paced;
    options.pace_context = &total;
    input.entries[0] = (struct entry){.key = {slice_of_string("a"), 1, 0},
                                      .value = slice_of(value, 3 * 1024 * 1024),
                                      .kind = BATCH_PUT};
    input.count = 1;
    input.tombstone_count = 0;
    build(&options, &built);
    assert_int_equal(total, built.meta.size_bytes);
    built_free(&built);
    free(value);
}

/* ---- The format ------------------------------------------------------------------------------------------------ */

static void test_sst_builder_any_flipped_byte_is_noticed(void **state) {
    (void)state;
    struct sst_builder_options options = default_options();
    struct built built;
    struct random random;
    random_seed(&random, 8);
    options.block_bytes = 300;
    options.partition_bytes = 1000;
    make_entries(30, 12);
    make_tombstones(3, 13);
    build(&options, &built);
    uint8_t *bytes = malloc(built.file.len);
    for (size_t at = 0; at < built.file.len; at++) {
        memcpy(bytes, built.file.data, built.file.len);
        bytes[at] ^= (uint8_t)(1u << random_below(&random, 8));
        struct sst_header header;
        struct sst_footer footer;
        struct sst_stored stored;
        unsigned noticed = 0;
        noticed += sst_header_decode(bytes, &header) != STATUS_OK;
        noticed +=
            sst_footer_decode(bytes + built.file.len - SST_FOOTER_BYTES, 1007, built.file.len, &footer) != STATUS_OK;
        for (size_t i = 0; i < built.table->part_count; i++) {
            struct sst_handle part = built.table->parts[i].handle;
            noticed += sst_block_check(slice_of(bytes + part.offset, (size_t)part.size + SST_TRAILER_BYTES),
                                       built.table->parts[i].kind, 1007, part.offset, &stored) != STATUS_OK;
        }
        assert_int_equal(noticed, 1); /* by the one part that it belongs to */
    }
    free(bytes);
    built_free(&built);
}

static void test_sst_format_is_golden(void **state) {
    (void)state;
    struct sst_builder_options options = default_options();
    struct built built;
    static char keys[120][16];
    options.block_bytes = 400;
    options.partition_bytes = 900;
    input.count = 120;
    for (unsigned i = 0; i < 120; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "golden/%02u", i / 2);
        input.entries[i] = (struct entry){.key = {slice_of_string(keys[i]), 100 + 200 * (i / 10) - i % 2, i % 2},
                                          .value = i % 4 == 3 ? SLICE_EMPTY : slice_of_string("a value"),
                                          .kind = i % 4 == 3 ? BATCH_DELETE : BATCH_PUT};
    }
    input.tombstones[0] = (struct tombstone){slice_of_string("golden/03"), slice_of_string("golden/05"), 90, 2};
    input.tombstones[1] = (struct tombstone){slice_of_string("golden/03"), slice_of_string("golden/05"), 80, 0};
    input.tombstones[2] = (struct tombstone){slice_of_string("golden/07"), slice_of_string("golden/~"), 70000, 0};
    input.tombstone_count = 3;
    build(&options, &built);
    assert_true(built.table->partitions > 1 && built.table->data_blocks > built.table->partitions);
    check_contents(&built);
    golden_assert("table.sst", built.file);
    built_free(&built);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_sst_builder_whole_file_reads_back),
        TEST(test_sst_builder_versions_of_a_key_over_partitions_are_found),
        TEST(test_sst_builder_of_largest_key_and_value_reads_back),
        TEST(test_sst_builder_partitions_grow_with_the_top_index),
        TEST(test_sst_builder_range_covers_range_deletes),
        TEST(test_sst_builder_refuses_what_is_out_of_order_and_leaves_no_file),
        TEST(test_sst_builder_refuses_range_deletes_out_of_order),
        TEST(test_h27_sst_builder_syncs_once_and_drops_the_file),
        TEST(test_h31_sst_builder_without_space_says_so_and_drops_the_file),
        TEST(test_sst_builder_without_memory_says_so_and_leaks_nothing),
        TEST(test_sst_builder_asks_for_every_byte_before_it_writes),
        TEST(test_sst_builder_any_flipped_byte_is_noticed),
        TEST(test_sst_format_is_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
