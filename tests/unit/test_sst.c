/*
 * Tables: blocks with shared prefixes, separators, lookups, cursors, checksums, on the simulated disk.
 *
 * Would break these: a separator that sends a lookup into the wrong block, versions of one key that straddle blocks and
 * are missed, a prefix taken from the wrong key, a block of another file or place that passes, a checksum that isn't
 * compared, a change of the format.
 */
#include "node/base/checksum.h"
#include "node/base/random.h"
#include "storage/block.h"
#include "storage/sst_format.h"
#include "tests/sim/sim.h"
#include "tests/unit/golden.h"

#include <stdlib.h>
#include <string.h>

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

/* ---- Entries -------------------------------------------------------------------------------------------------- */

enum { ENTRIES_MAX = 3000, KEY_BYTES = 24 };

struct list_of_entries {
    struct entry entries[ENTRIES_MAX];
    uint8_t keys[ENTRIES_MAX][KEY_BYTES];
    size_t count;
};

static int compare_entries(const void *a, const void *b) {
    return entry_key_compare(&((const struct entry *)a)->key, &((const struct entry *)b)->key);
}

/* Clustered keys with up to 30 versions each, some deletes, values of 0 to 200 bytes. */
static void make_entries(struct list_of_entries *list, size_t count, uint64_t seed) {
    static uint8_t filler[256];
    struct random random;
    random_seed(&random, seed);
    for (size_t i = 0; i < sizeof filler; i++) {
        filler[i] = (uint8_t)i;
    }
    list->count = 0;
    uint64_t revision = 1;
    while (list->count < count) {
        uint8_t key[KEY_BYTES];
        size_t len = 1 + random_below(&random, KEY_BYTES);
        for (size_t i = 0; i < len; i++) {
            key[i] = (uint8_t)(random_chance(&random, 1, 4) ? random_below(&random, 256) : 'k');
        }
        uint64_t versions = random_chance(&random, 1, 5) ? 1 + random_below(&random, 30) : 1;
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

static enum status build(const char *path, uint64_t number, uint32_t block_bytes, const struct entry *entries,
                         size_t count, struct sst **ret_sst, struct sst_meta *ret_meta) {
    struct sst_builder *builder;
    struct sst_meta meta;
    struct sst_builder_options options = {
        .env = env, .path = path, .number = number, .id = 1000 + number, .block_bytes = block_bytes};
    memcpy(options.cluster_id, cluster_id, sizeof cluster_id);
    assert_int_equal(sst_builder_new(&options, &builder, NULL), STATUS_OK);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        status = sst_builder_add(builder, &entries[i], NULL);
    }
    if (status == STATUS_OK) {
        status = sst_builder_finish(builder, &meta, NULL);
    }
    if (status == STATUS_OK) {
        status = sst_open(env, path, &meta, cluster_id, ret_sst, NULL);
        if (ret_meta != NULL) {
            *ret_meta = (*ret_sst)->meta;
        }
    }
    sst_builder_free(builder);
    return status;
}

static void assert_entry(const struct entry *got, const struct entry *want) {
    assert_int_equal(entry_key_compare(&got->key, &want->key), 0);
    assert_int_equal(got->kind, want->kind);
    assert_true(slice_equal(got->value, want->value));
}

/* ---- Blocks --------------------------------------------------------------------------------------------------- */

static void test_block_seek_finds_what_a_walk_finds(void **state) {
    (void)state;
    static struct list_of_entries list;
    static struct block_cursor cursor;
    struct block_builder builder;
    struct slice body;
    make_entries(&list, 200, 3);
    block_builder_init(&builder, alloc_system());
    for (size_t i = 0; i < list.count; i++) {
        assert_int_equal(block_builder_add(&builder, &list.entries[i]), STATUS_OK);
    }
    size_t size = block_builder_size(&builder);
    assert_int_equal(block_builder_finish(&builder, &body), STATUS_OK);
    assert_int_equal(body.len, size);
    assert_int_equal(block_cursor_open(&cursor, body), STATUS_OK);
    enum status status = block_cursor_first(&cursor);
    for (size_t i = 0; i < list.count; i++, status = block_cursor_next(&cursor)) {
        assert_int_equal(status, STATUS_OK);
        assert_entry(&cursor.entry, &list.entries[i]);
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    for (size_t i = 0; i < list.count; i++) {
        struct entry_key before = list.entries[i].key;
        assert_int_equal(block_cursor_seek(&cursor, &before), STATUS_OK);
        assert_entry(&cursor.entry, &list.entries[i]);
        before.revision++; /* just in front of it */
        assert_int_equal(block_cursor_seek(&cursor, &before), STATUS_OK);
        assert_true(entry_key_compare(&cursor.entry.key, &list.entries[i].key) <= 0);
        if (i + 1 < list.count) { /* and onwards from there */
            assert_int_equal(block_cursor_seek(&cursor, &list.entries[i].key), STATUS_OK);
            assert_int_equal(block_cursor_next(&cursor), STATUS_OK);
            assert_entry(&cursor.entry, &list.entries[i + 1]);
        }
    }
    struct entry_key behind = {.user = slice_of("\xff\xff\xff\xff\xff", 5)};
    assert_int_equal(block_cursor_seek(&cursor, &behind), STATUS_NOT_FOUND);
    block_builder_deinit(&builder);
}

static void test_h35_block_of_random_damage_never_leaves_its_bounds(void **state) {
    (void)state;
    static struct list_of_entries list;
    static struct block_cursor cursor;
    struct block_builder builder;
    struct slice body;
    struct random random;
    random_seed(&random, 4);
    make_entries(&list, 40, 5);
    block_builder_init(&builder, alloc_system());
    for (size_t i = 0; i < list.count; i++) {
        assert_int_equal(block_builder_add(&builder, &list.entries[i]), STATUS_OK);
    }
    assert_int_equal(block_builder_finish(&builder, &body), STATUS_OK);
    for (int round = 0; round < 20000; round++) {
        size_t len = random_chance(&random, 1, 3) ? random_below(&random, body.len + 1) : body.len;
        uint8_t *damaged = malloc(len + 1);
        memcpy(damaged, body.data, len);
        for (int i = 0; i < 3 && len > 0; i++) {
            size_t near_end = len - 1 - random_below(&random, len < 20 ? len : 20);
            damaged[random_chance(&random, 1, 2) ? near_end : random_below(&random, len)] =
                (uint8_t)random_below(&random, 256);
        }
        uint8_t *exact = realloc(damaged, len > 0 ? len : 1);
        if (block_cursor_open(&cursor, slice_of(exact, len)) == STATUS_OK) {
            enum status status = block_cursor_seek(&cursor, &list.entries[random_below(&random, list.count)].key);
            for (int i = 0; i < 100 && status == STATUS_OK; i++) {
                assert_true(cursor.entry.key.user.len >= 1 && cursor.entry.key.user.len <= LIMIT_KEY_BYTES);
                status = block_cursor_next(&cursor);
            }
        }
        free(exact);
    }
    block_builder_deinit(&builder);
}

/* ---- Tables --------------------------------------------------------------------------------------------------- */

static void check_lookups(struct sst *sst, const struct list_of_entries *list) {
    struct buf scratch;
    struct entry got;
    buf_init(&scratch, alloc_system(), 0);
    for (size_t i = 0; i < list->count; i++) {
        const struct entry *want = &list->entries[i];
        struct slice key = want->key.user;
        assert_true(sst_may_hold(sst, key, want->key.revision));
        assert_int_equal(sst_get(sst, key, want->key.revision, &scratch, &got, NULL), STATUS_OK);
        assert_entry(&got, want);
        bool has_older = i + 1 < list->count && slice_equal(list->entries[i + 1].key.user, key);
        enum status status = sst_get(sst, key, want->key.revision - 1, &scratch, &got, NULL);
        assert_int_equal(status, has_older ? STATUS_OK : STATUS_NOT_FOUND);
        if (has_older) {
            assert_entry(&got, want + 1);
        }
        uint8_t longer[KEY_BYTES + 1] = {0};
        memcpy(longer, key.data, key.len);
        bool exists = i + 1 < list->count && slice_equal(list->entries[i + 1].key.user, slice_of(longer, key.len + 1));
        status = sst_get(sst, slice_of(longer, key.len + 1), UINT64_MAX - 1, &scratch, &got, NULL);
        assert_true(exists || has_older || status == STATUS_NOT_FOUND);
    }
    buf_deinit(&scratch);
}

static void check_cursor(struct sst *sst, const struct list_of_entries *list) {
    struct cursor *cursor = sst_cursor_new(alloc_system(), &sst, 1);
    struct entry_key start = entry_key_at(SLICE_EMPTY, ENTRY_REVISION_NONE);
    enum status status = cursor_seek(cursor, &start, NULL);
    for (size_t i = 0; i < list->count; i++, status = cursor_next(cursor, NULL)) {
        assert_int_equal(status, STATUS_OK);
        assert_entry(&cursor->entry, &list->entries[i]);
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    for (size_t i = 0; i < list->count; i += 7) {
        assert_int_equal(cursor_seek(cursor, &list->entries[i].key, NULL), STATUS_OK);
        assert_entry(&cursor->entry, &list->entries[i]);
        if (i + 1 < list->count) {
            assert_int_equal(cursor_next(cursor, NULL), STATUS_OK);
            assert_entry(&cursor->entry, &list->entries[i + 1]);
        }
    }
    cursor_free(cursor);
}

static void test_sst_reads_back_at_any_block_size(void **state) {
    (void)state;
    static struct list_of_entries list;
    static const uint32_t sizes[] = {1, 64, 300, 4096, 1024 * 1024};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct sst *sst;
        make_entries(&list, sizes[i] == 1 ? 300 : 1500, 10 + i);
        assert_int_equal(build("/t.sst", 1, sizes[i], list.entries, list.count, &sst, NULL), STATUS_OK);
        assert_int_equal(sst->meta.entries, list.count);
        assert_true(slice_equal(sst->meta.smallest, list.entries[0].key.user));
        assert_true(slice_equal(sst->meta.largest, list.entries[list.count - 1].key.user));
        check_lookups(sst, &list);
        check_cursor(sst, &list);
        sst_free(sst);
    }
}

static void test_sst_of_largest_key_and_value_reads_back(void **state) {
    (void)state;
    struct sst *sst;
    struct entry got;
    struct buf scratch;
    uint8_t *value = malloc(LIMIT_VALUE_BYTES);
    static uint8_t key[LIMIT_KEY_BYTES];
    buf_init(&scratch, alloc_system(), 0);
    for (size_t i = 0; i < LIMIT_VALUE_BYTES; i++) {
        value[i] = (uint8_t)(i * 31);
    }
    memset(key, 'k', sizeof key);
    const struct entry entries[] = {
        {.key = {slice_of_string("a"), 1, 0}, .kind = BATCH_PUT},
        {.key = {slice_of(key, sizeof key), 2, 0}, .value = slice_of(value, LIMIT_VALUE_BYTES), .kind = BATCH_PUT},
        {.key = {slice_of_string("z"), 1, 0}, .kind = BATCH_PUT},
    };
    assert_int_equal(build("/t.sst", 1, 4096, entries, 3, &sst, NULL), STATUS_OK);
    assert_int_equal(sst_get(sst, slice_of(key, sizeof key), 2, &scratch, &got, NULL), STATUS_OK);
    assert_true(slice_equal(got.value, entries[1].value));
    assert_int_equal(sst_get(sst, slice_of_string("z"), 2, &scratch, &got, NULL), STATUS_OK);
    sst_free(sst);
    buf_deinit(&scratch);
    free(value);
}

static void test_sst_run_cursor_crosses_tables(void **state) {
    (void)state;
    static struct list_of_entries list;
    struct sst *tables[3];
    make_entries(&list, 900, 30);
    size_t cuts[4] = {0, 300, 600, 900};
    for (int i = 1; i < 3; i++) { /* only between keys */
        while (slice_equal(list.entries[cuts[i]].key.user, list.entries[cuts[i] - 1].key.user)) {
            cuts[i]++;
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        char path[16];
        (void)snprintf(path, sizeof path, "/%u.sst", i);
        assert_int_equal(build(path, i + 1, 256, list.entries + cuts[i], cuts[i + 1] - cuts[i], &tables[i], NULL),
                         STATUS_OK);
    }
    struct cursor *cursor = sst_cursor_new(alloc_system(), tables, 3);
    for (size_t i = 0; i < list.count; i += 50) {
        enum status status = cursor_seek(cursor, &list.entries[i].key, NULL);
        for (size_t at = i; at < list.count && at < i + 400; at++, status = cursor_next(cursor, NULL)) {
            assert_int_equal(status, STATUS_OK);
            assert_entry(&cursor->entry, &list.entries[at]);
        }
    }
    struct entry_key behind = entry_key_at(slice_of("\xff\xff\xff\xff\xff\xff", 6), 0);
    assert_int_equal(cursor_seek(cursor, &behind, NULL), STATUS_NOT_FOUND);
    cursor_free(cursor);
    for (int i = 0; i < 3; i++) {
        sst_free(tables[i]);
    }
}

static void test_sst_entries_out_of_order_are_refused_and_leave_no_file(void **state) {
    (void)state;
    struct sst *sst;
    const struct entry orders[][2] = {
        {{.key = {slice_of_string("b"), 1, 0}, .kind = BATCH_PUT},
         {.key = {slice_of_string("a"), 1, 0}, .kind = BATCH_PUT}},
        {{.key = {slice_of_string("a"), 1, 0}, .kind = BATCH_PUT},
         {.key = {slice_of_string("a"), 2, 0}, .kind = BATCH_PUT}},
        {{.key = {slice_of_string("a"), 1, 0}, .kind = BATCH_PUT},
         {.key = {slice_of_string("a"), 1, 1}, .kind = BATCH_PUT}},
        {{.key = {slice_of_string("a"), 1, 0}, .kind = BATCH_PUT},
         {.key = {slice_of_string("a"), 1, 0}, .kind = BATCH_PUT}},
    };
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(build("/t.sst", 1, 4096, orders[i], 2, &sst, NULL), STATUS_CORRUPT);
        assert_int_equal(env_unlink(env, "/t.sst", NULL), STATUS_NOT_FOUND);
    }
}

static size_t read_file(const char *path, uint8_t *out, size_t size) {
    struct env_file *file;
    size_t len;
    assert_int_equal(env_open(env, path, ENV_OPEN_READ, &file, NULL), STATUS_OK);
    assert_int_equal(env_pread(file, out, size, 0, &len, NULL), STATUS_OK);
    env_close(file);
    return len;
}

static void write_file(const char *path, const uint8_t *bytes, size_t len) {
    struct env_file *file;
    assert_int_equal(env_open(env, path, ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_TRUNCATE, &file, NULL), STATUS_OK);
    assert_int_equal(env_pwrite(file, bytes, len, 0, NULL), STATUS_OK);
    env_close(file);
}

static void test_sst_whole_file_checksum_is_that_of_the_file(void **state) {
    (void)state;
    enum { VALUE = 300 * 1024 };
    struct sst *sst;
    struct sst_meta meta;
    uint8_t *value = calloc(1, VALUE);
    struct entry entries[9];
    char keys[9][2];
    for (unsigned i = 0; i < 9; i++) { /* 2.7 MB: three pieces */
        keys[i][0] = (char)('a' + i);
        entries[i] =
            (struct entry){.key = {slice_of(keys[i], 1), i + 1, 0}, .value = slice_of(value, VALUE), .kind = BATCH_PUT};
    }
    assert_int_equal(build("/t.sst", 1, 4096, entries, 9, &sst, &meta), STATUS_OK);
    uint8_t *bytes = malloc(4 * 1024 * 1024);
    size_t len = read_file("/t.sst", bytes, 4 * 1024 * 1024);
    assert_int_equal(len, meta.size_bytes);
    uint64_t checksum = 0;
    for (size_t at = 0; at < len; at += SST_CHECKSUM_PIECE_BYTES) {
        size_t piece = len - at < SST_CHECKSUM_PIECE_BYTES ? len - at : SST_CHECKSUM_PIECE_BYTES;
        checksum = checksum64(bytes + at, piece, checksum);
    }
    assert_true(checksum == meta.checksum);
    sst_free(sst);
    free(bytes);
    free(value);
}

/* ---- Misplaced and foreign ------------------------------------------------------------------------------------ */

enum { SMALL_BYTES = 64 * 1024 };

static void test_sst_block_from_another_place_or_table_is_corrupt(void **state) {
    (void)state;
    static uint8_t first[SMALL_BYTES];
    static uint8_t second[SMALL_BYTES];
    struct sst *sst[2];
    struct sst_meta meta;
    struct entry entries[64];
    char keys[64][4];
    for (unsigned i = 0; i < 64; i++) { /* all blocks alike in size */
        (void)snprintf(keys[i], sizeof keys[i], "%03u", i);
        entries[i] = (struct entry){.key = {slice_of(keys[i], 3), 1, 0},
                                    .value = slice_of("0123456789abcdef0123456789abcdef", 32),
                                    .kind = BATCH_PUT};
    }
    assert_int_equal(build("/a.sst", 1, 400, entries, 64, &sst[0], &meta), STATUS_OK);
    assert_int_equal(build("/b.sst", 2, 400, entries, 64, &sst[1], NULL), STATUS_OK);
    size_t len = read_file("/a.sst", first, sizeof first);
    assert_int_equal(read_file("/b.sst", second, sizeof second), len);
    struct buf scratch;
    struct entry got;
    struct error err;
    buf_init(&scratch, alloc_system(), 0);
    /* The same block of the other table: same bytes but for the checksum. */
    memcpy(first + SST_HEADER_BYTES, second + SST_HEADER_BYTES, 500);
    write_file("/a.sst", first, len);
    assert_int_equal(sst_get(sst[0], slice_of_string("000"), 1, &scratch, &got, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, "/a.sst"));
    assert_non_null(strstr(err.message, "offset 64"));
    assert_int_equal(sst_get(sst[0], slice_of_string("063"), 1, &scratch, &got, &err), STATUS_OK);
    /* The whole other table under this one's name. */
    write_file("/a.sst", second, len);
    struct sst *opened;
    assert_int_equal(sst_open(env, "/a.sst", &meta, cluster_id, &opened, &err), STATUS_CORRUPT);
    const uint8_t other_cluster[SST_CLUSTER_ID_BYTES] = "another cluster!";
    assert_int_equal(sst_open(env, "/b.sst", &sst[1]->meta, other_cluster, &opened, &err), STATUS_CORRUPT);
    buf_deinit(&scratch);
    sst_free(sst[0]);
    sst_free(sst[1]);
}

static void test_sst_unknown_version_is_unsupported(void **state) {
    (void)state;
    static uint8_t bytes[SMALL_BYTES];
    struct sst *sst;
    struct error err;
    const struct entry entry = {.key = {slice_of_string("a"), 1, 0}, .kind = BATCH_PUT};
    assert_int_equal(build("/t.sst", 1, 4096, &entry, 1, &sst, NULL), STATUS_OK);
    size_t len = read_file("/t.sst", bytes, sizeof bytes);
    bytes[8] = SST_VERSION + 1;
    write_file("/t.sst", bytes, len);
    struct sst *opened;
    assert_int_equal(sst_open(env, "/t.sst", &sst->meta, cluster_id, &opened, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "/t.sst"));
    sst_free(sst);
}

static void test_sst_properties_of_later_versions_are_passed_over(void **state) {
    (void)state;
    struct buf body;
    struct sst_properties properties = {.entries = 3,
                                        .smallest = slice_of_string("a"),
                                        .largest = slice_of_string("b")};
    struct sst_properties got;
    buf_init(&body, alloc_system(), 0);
    assert_int_equal(sst_properties_encode(&body, &properties), STATUS_OK);
    const uint8_t later[] = {99, 2, 'x', 'y'};
    assert_int_equal(buf_append(&body, later, sizeof later), STATUS_OK);
    assert_int_equal(sst_properties_decode(buf_slice(&body), &got), STATUS_OK);
    assert_int_equal(got.entries, 3);
    assert_int_equal(sst_properties_decode(slice_of(body.data, body.len - 1), &got), STATUS_CORRUPT);
    assert_int_equal(sst_properties_decode(slice_of(body.data, 10), &got), STATUS_CORRUPT);
    buf_deinit(&body);
}

static void test_sst_format_is_golden(void **state) {
    (void)state;
    static uint8_t bytes[SMALL_BYTES];
    struct sst *sst;
    struct entry entries[40];
    char keys[40][16];
    for (unsigned i = 0; i < 40; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "golden/%02u", i / 2);
        entries[i] = (struct entry){.key = {slice_of_string(keys[i]), 100 - i % 2, i % 2},
                                    .value = i % 4 == 3 ? SLICE_EMPTY : slice_of_string("a value"),
                                    .kind = i % 4 == 3 ? BATCH_DELETE : BATCH_PUT};
    }
    assert_int_equal(build("/t.sst", 7, 256, entries, 40, &sst, NULL), STATUS_OK);
    golden_assert("table.sst", slice_of(bytes, read_file("/t.sst", bytes, sizeof bytes)));
    sst_free(sst);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_block_seek_finds_what_a_walk_finds),
        TEST(test_h35_block_of_random_damage_never_leaves_its_bounds),
        TEST(test_sst_reads_back_at_any_block_size),
        TEST(test_sst_of_largest_key_and_value_reads_back),
        TEST(test_sst_run_cursor_crosses_tables),
        TEST(test_sst_entries_out_of_order_are_refused_and_leave_no_file),
        TEST(test_sst_whole_file_checksum_is_that_of_the_file),
        TEST(test_sst_block_from_another_place_or_table_is_corrupt),
        TEST(test_sst_unknown_version_is_unsupported),
        TEST(test_sst_properties_of_later_versions_are_passed_over),
        TEST(test_sst_format_is_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
