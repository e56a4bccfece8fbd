/*
 * Value files as bytes, taken apart by hand; places, references, and reading through a fetch.
 *
 * Would break these: a value whose block names another key or version, a byte that no checksum covers, a meta that says
 * other than the file, a place that leads out of the file, references that are counted twice or not at all, a change of
 * the format.
 */
#include "storage/value_file.h"

#include "node/base/bytes.h"
#include "tests/unit/golden.h"
#include "tests/unit/sst_fixture.h"

enum { COUNT = 40, VALUE_BYTES_MAX = 3000 };

static struct {
    struct entry entries[COUNT];
    uint8_t keys[COUNT][8];
    uint8_t values[COUNT][VALUE_BYTES_MAX];
    struct value_place places[COUNT];
} input;

/* Values of many lengths, every second one easy to compress. */
static void make_input(void) {
    struct random random;
    random_seed(&random, 5);
    for (unsigned i = 0; i < COUNT; i++) {
        (void)snprintf((char *)input.keys[i], sizeof input.keys[i], "k%05u", i);
        for (unsigned b = 0; b < VALUE_BYTES_MAX; b++) {
            input.values[i][b] = (uint8_t)(i % 2 == 0 ? i : random_below(&random, 256));
        }
        input.entries[i] = (struct entry){.key = {slice_of(input.keys[i], 6), 1000 - i * 7, i % 3},
                                          .value = slice_of(input.values[i], 1 + i * (VALUE_BYTES_MAX - 1) / COUNT),
                                          .kind = BATCH_PUT};
    }
}

static struct value_builder_options options_for(struct world *world, const char *path, enum compression compression) {
    struct value_builder_options options = {.env = world->env,
                                            .path = path,
                                            .number = 9,
                                            .id = 0x1122334455667788,
                                            .compression = compression,
                                            .zstd_level = 3};
    memcpy(options.cluster_id, cluster_id, sizeof cluster_id);
    return options;
}

static struct value_meta build(struct world *world, size_t count, enum compression compression) {
    char path[LIMIT_PATH_BYTES];
    struct value_builder *builder;
    struct value_meta meta;
    file_path_values(path, world->context.dir, 9);
    struct value_builder_options options = options_for(world, path, compression);
    assert_int_equal(value_builder_new(&options, &builder, NULL), STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(value_builder_add(builder, &input.entries[i], &input.places[i], NULL), STATUS_OK);
        assert_true(value_builder_size(builder) >= input.places[i].handle.offset + input.places[i].handle.size);
    }
    assert_int_equal(value_builder_finish(builder, &meta, NULL), STATUS_OK);
    value_builder_free(builder);
    return meta;
}

/* ---- Bytes ---------------------------------------------------------------------------------------------------- */

/* One block behind the other, each at its place; then properties and footer; nothing else. */
static void check_file(struct slice file, size_t count, const struct value_meta *meta, enum compression compression) {
    struct sst_header header;
    struct sst_footer footer;
    struct sst_properties properties;
    struct sst_stored stored;
    assert_int_equal(sst_header_decode(file.data, &header), STATUS_OK);
    assert_int_equal(header.kind, SST_FILE_VALUES);
    assert_int_equal(header.number, meta->number);
    assert_int_equal(header.id, meta->id);
    uint64_t checksum = sst_file_checksum_add(0, sst_header_checksum(file.data));
    uint64_t at = SST_HEADER_BYTES;
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        static uint8_t body[VALUE_BYTES_MAX + 64];
        const struct value_place *place = &input.places[i];
        struct value_block block;
        assert_int_equal(place->file, meta->id);
        assert_int_equal(place->handle.offset, at);
        assert_int_equal(place->value_len, input.entries[i].value.len);
        size_t len = place->handle.size + (size_t)SST_TRAILER_BYTES;
        assert_int_equal(sst_block_check(slice_of(file.data + at, len), SST_BLOCK_VALUE, meta->id, at, &stored),
                         STATUS_OK);
        assert_true(stored.size <= sizeof body);
        assert_true(compression != COMPRESSION_NONE || stored.compression == COMPRESSION_NONE);
        assert_int_equal(sst_block_unpack(alloc_system(), &stored, body), STATUS_OK);
        assert_int_equal(value_block_open(slice_of(body, stored.size), &block), STATUS_OK);
        assert_int_equal(entry_key_compare(&block.key, &input.entries[i].key), 0);
        assert_true(slice_equal(block.value, input.entries[i].value));
        checksum = sst_file_checksum_add(checksum, stored.checksum);
        at += len;
        bytes += value_place_bytes(place);
    }
    const uint8_t *footer_bytes = file.data + file.len - SST_FOOTER_BYTES;
    assert_int_equal(sst_footer_decode(footer_bytes, meta->id, file.len, &footer), STATUS_OK);
    assert_int_equal(footer.tombstones.size, 0);
    assert_int_equal(footer.top.offset, at);
    assert_int_equal(footer.top.size, count * VALUE_SIZE_BYTES);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(get_u32(file.data + at + i * VALUE_SIZE_BYTES), input.places[i].handle.size);
    }
    size_t sizes_len = footer.top.size + (size_t)SST_TRAILER_BYTES;
    assert_int_equal(sst_block_check(slice_of(file.data + at, sizes_len), SST_BLOCK_TOP, meta->id, at, &stored),
                     STATUS_OK);
    checksum = sst_file_checksum_add(checksum, stored.checksum);
    at += sizes_len;
    assert_int_equal(footer.properties.offset, at);
    size_t len = footer.properties.size + (size_t)SST_TRAILER_BYTES;
    assert_int_equal(sst_block_check(slice_of(file.data + at, len), SST_BLOCK_PROPERTIES, meta->id, at, &stored),
                     STATUS_OK);
    assert_int_equal(sst_properties_decode(stored.body, &properties), STATUS_OK);
    assert_int_equal(properties.entries, count);
    assert_true(slice_equal(properties.smallest, input.entries[0].key.user));
    assert_true(slice_equal(properties.largest, input.entries[count - 1].key.user));
    assert_int_equal(properties.revision_first, input.entries[count - 1].key.revision);
    assert_int_equal(properties.revision_last, input.entries[0].key.revision);
    checksum = sst_file_checksum_add(checksum, stored.checksum);
    checksum = sst_file_checksum_add(checksum, sst_footer_checksum(footer_bytes));
    assert_int_equal(checksum, meta->checksum);
    assert_int_equal(at + len + SST_FOOTER_BYTES, file.len);
    assert_int_equal(meta->size_bytes, file.len);
    assert_int_equal(meta->values, count);
    assert_int_equal(meta->bytes, bytes);
}

static void test_value_builder_writes_what_it_says(void **state) {
    (void)state;
    static const enum compression kinds[] = {COMPRESSION_NONE, COMPRESSION_LZ4, COMPRESSION_ZSTD};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct world *world = world_new(1, 0, 4);
        struct value_meta meta = build(world, COUNT, kinds[i]);
        char path[LIMIT_PATH_BYTES];
        file_path_values(path, world->context.dir, 9);
        struct slice file = read_file(world->env, path);
        check_file(file, COUNT, &meta, kinds[i]);
        free((void *)(uintptr_t)file.data);
        world_free(world);
    }
}

static void test_value_builder_golden_file_is_unchanged(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct value_meta meta = build(world, 4, COMPRESSION_NONE);
    char path[LIMIT_PATH_BYTES];
    file_path_values(path, world->context.dir, 9);
    struct slice file = read_file(world->env, path);
    check_file(file, 4, &meta, COMPRESSION_NONE);
    golden_assert("values.val", file);
    free((void *)(uintptr_t)file.data);
    world_free(world);
}

static void test_value_builder_failed_or_dropped_leaves_no_file(void **state) {
    (void)state;
    for (unsigned dropped = 0; dropped < 2; dropped++) {
        struct world *world = world_new(1, 0, 4);
        char path[LIMIT_PATH_BYTES];
        struct value_builder *builder;
        struct value_meta meta;
        struct env_file *file;
        file_path_values(path, world->context.dir, 9);
        struct value_builder_options options = options_for(world, path, COMPRESSION_NONE);
        assert_int_equal(value_builder_new(&options, &builder, NULL), STATUS_OK);
        assert_int_equal(value_builder_add(builder, &input.entries[3], &input.places[3], NULL), STATUS_OK);
        if (!dropped) {
            struct fault_set *faults = sim_node_faults(world->node);
            assert_int_equal(fault_arm(faults, "flush.sync=error(EIO),count=1", NULL), STATUS_OK);
            assert_int_equal(value_builder_finish(builder, &meta, NULL), STATUS_IO);
        }
        value_builder_free(builder);
        assert_int_equal(env_open(world->env, path, ENV_OPEN_READ, &file, NULL), STATUS_NOT_FOUND);
        world_free(world);
    }
}

/* ---- Places and references ------------------------------------------------------------------------------------ */

static void test_value_place_bad_bytes_are_corrupt(void **state) {
    (void)state;
    struct value_place place = {.file = 7, .handle = {.offset = 64, .size = 100}, .value_len = 50};
    struct value_place got;
    uint8_t bytes[VALUE_PLACE_BYTES];
    value_place_encode(bytes, &place);
    assert_int_equal(value_place_decode(slice_of(bytes, sizeof bytes), &got), STATUS_OK);
    assert_true(got.file == 7 && got.handle.offset == 64 && got.handle.size == 100 && got.value_len == 50);
    assert_int_equal(value_place_bytes(&got), 100 + SST_TRAILER_BYTES);
    assert_int_equal(value_place_decode(slice_of(bytes, sizeof bytes - 1), &got), STATUS_CORRUPT);
    const struct value_place bad[] = {{.handle = {64, 100}, .value_len = 5},
                                      {.file = 7, .handle = {63, 100}, .value_len = 5},
                                      {.file = 7, .handle = {64, 0}, .value_len = 5},
                                      {.file = 7, .handle = {64, SST_BLOCK_BYTES_MAX + 1}, .value_len = 5},
                                      {.file = 7, .handle = {64, 100}, .value_len = LIMIT_VALUE_BYTES + 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        value_place_encode(bytes, &bad[i]);
        assert_int_equal(value_place_decode(slice_of(bytes, sizeof bytes), &got), STATUS_CORRUPT);
    }
}

static void test_value_refs_add_up_by_file(void **state) {
    (void)state;
    struct value_refs refs;
    size_t count;
    struct buf bytes;
    buf_init(&bytes, alloc_system(), 0);
    value_refs_init(&refs, alloc_system());
    static const uint64_t files[] = {5, 3, 9, 3, 5, 5};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct value_place place = {.file = files[i], .handle = {.offset = 64, .size = 100}};
        assert_int_equal(value_refs_add(&refs, &place), STATUS_OK);
    }
    const struct value_ref *list = value_refs_list(&refs, &count);
    assert_int_equal(count, 3);
    assert_true(list[0].file == 3 && list[0].values == 2 && list[0].bytes == 232);
    assert_true(list[1].file == 5 && list[1].values == 3 && list[1].bytes == 348);
    assert_true(list[2].file == 9 && list[2].values == 1 && list[2].bytes == 116);
    assert_int_equal(value_refs_encode(&bytes, list, count), STATUS_OK);
    assert_true(value_refs_check(buf_slice(&bytes)) && value_refs_equal(buf_slice(&bytes), list, count));
    assert_false(value_refs_check(slice_of(bytes.data, bytes.len - 1)));
    assert_false(value_refs_check(SLICE_EMPTY));
    put_u64(bytes.data + VALUE_REF_BYTES, 3); /* the same file again */
    assert_false(value_refs_check(buf_slice(&bytes)));
    value_refs_deinit(&refs);
    buf_deinit(&bytes);
}

static void test_value_block_bad_lengths_are_corrupt(void **state) {
    (void)state;
    struct value_block block;
    uint8_t bytes[VALUE_HEAD_BYTES + 4] = {3, 0};
    assert_int_equal(value_block_open(slice_of(bytes, sizeof bytes), &block), STATUS_OK);
    assert_true(block.key.user.len == 3 && block.value.len == 1);
    for (size_t len = 0; len < VALUE_HEAD_BYTES + 3; len++) {
        assert_int_equal(value_block_open(slice_of(bytes, len), &block), STATUS_CORRUPT);
    }
    bytes[0] = 0;
    assert_int_equal(value_block_open(slice_of(bytes, sizeof bytes), &block), STATUS_CORRUPT);
    bytes[0] = 5;
    assert_int_equal(value_block_open(slice_of(bytes, sizeof bytes), &block), STATUS_CORRUPT);
}

/* A table says what its entries refer to, in its meta and in its properties. */
static void test_sst_builder_counts_references(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    struct entry entries[6];
    uint8_t places[6][VALUE_PLACE_BYTES];
    for (unsigned i = 0; i < 6; i++) {
        struct value_place place = {.file = 20 + i % 2, .handle = {.offset = 64 + 200 * i, .size = 100 + i}};
        value_place_encode(places[i], &place);
        entries[i] = (struct entry){.key = input.entries[i].key,
                                    .value = slice_of(places[i], VALUE_PLACE_BYTES),
                                    .kind = i < 5 ? BATCH_PUT_APART : BATCH_PUT};
    }
    struct sst *sst = add_table(world, entries, 6, NULL, 0);
    assert_int_equal(sst->meta.value_ref_count, 2);
    assert_true(sst->meta.value_refs[0].file == 20 && sst->meta.value_refs[0].values == 3);
    assert_true(sst->meta.value_refs[1].file == 21 && sst->meta.value_refs[1].values == 2);
    assert_int_equal(sst->meta.value_refs[1].bytes, 101 + 103 + 2 * SST_TRAILER_BYTES);
    assert_int_equal(sst_load(sst, NULL), STATUS_OK);
    sst_free(sst);
    world->tables[0] = NULL;
    /* A manifest that says otherwise is found out. */
    entries[1].value = slice_of(places[0], VALUE_PLACE_BYTES);
    struct sst *other = add_table(world, entries, 6, NULL, 0);
    ((struct value_ref *)other->memory)[0].values++;
    assert_int_equal(sst_load(other, NULL), STATUS_CORRUPT);
    world_free(world);
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

static enum status fetch_one(struct world *world, struct sst *file, const struct value_place *place,
                             const struct entry_key *key, struct slice want) {
    struct fetch fetch;
    struct sst_hold hold = {0};
    struct slice value;
    struct fetch_options options = {.fill_cache = true};
    fetch_init(&fetch, &world->context, &options);
    enum status status = value_fetch(file, &fetch, place, key, &hold, &value, NULL);
    if (status == STATUS_OK) {
        assert_true(slice_equal(value, want));
    }
    sst_hold_release(&hold);
    fetch_deinit(&fetch);
    return status;
}

static void test_value_fetch_finds_each_value_and_nothing_else(void **state) {
    (void)state;
    for (unsigned compressed = 0; compressed < 2; compressed++) {
        struct world *world = world_new(1, 1 << 20, 4);
        struct value_meta meta = build(world, COUNT, compressed ? COMPRESSION_LZ4 : COMPRESSION_NONE);
        struct sst *file;
        assert_int_equal(value_file_new(&world->context, &meta, &file), STATUS_OK);
        for (unsigned i = 0; i < COUNT; i++) {
            struct entry_key key = input.entries[i].key;
            struct value_place place = input.places[i];
            assert_int_equal(fetch_one(world, file, &place, &key, input.entries[i].value), STATUS_OK);
            assert_int_equal(world->damaged, 0);
            key.revision++;
            assert_int_equal(fetch_one(world, file, &place, &key, SLICE_EMPTY), STATUS_CORRUPT);
            key = input.entries[(i + 1) % COUNT].key;
            assert_int_equal(fetch_one(world, file, &place, &key, SLICE_EMPTY), STATUS_CORRUPT);
            key = input.entries[i].key;
            place.value_len++;
            assert_int_equal(fetch_one(world, file, &place, &key, SLICE_EMPTY), STATUS_CORRUPT);
            place = input.places[i];
            place.handle.offset++;
            assert_int_equal(fetch_one(world, file, &place, &key, SLICE_EMPTY), STATUS_CORRUPT);
            place.handle.offset = meta.size_bytes;
            assert_int_equal(fetch_one(world, file, &place, &key, SLICE_EMPTY), STATUS_CORRUPT);
            assert_non_null(strstr(world->last_damage.message, ".val"));
            world->damaged = 0;
        }
        struct value_meta again = value_file_meta(file);
        assert_true(!again.is_log && again.number == meta.number && again.id == meta.id &&
                    again.size_bytes == meta.size_bytes && again.checksum == meta.checksum &&
                    again.values == meta.values && again.bytes == meta.bytes);
        sst_free(file);
        world_free(world);
    }
}

/* A flipped byte anywhere is found, wherever it stands; a value block's alone is all that is found. */
static void test_value_verify_finds_every_flipped_byte(void **state) {
    (void)state;
    struct world *world = world_new(1, 0, 4);
    char path[LIMIT_PATH_BYTES];
    struct sst_verify_report report;
    struct error err;
    file_path_values(path, world->context.dir, 9);
    struct value_meta meta = build(world, 6, COMPRESSION_LZ4);
    for (uint64_t offset = 0; offset <= meta.size_bytes; offset += offset < 64 ? 1 : 7) {
        struct sst *file;
        meta = build(world, 6, COMPRESSION_LZ4);
        assert_int_equal(value_file_new(&world->context, &meta, &file), STATUS_OK);
        if (offset < meta.size_bytes) {
            assert_int_equal(sst_verify(file, NULL, &report, &err), STATUS_OK);
            assert_int_equal(report.entries, 6);
            assert_int_equal(report.checksum, meta.checksum);
            assert_int_equal(sim_disk_corrupt(world->node, path, offset, 1), STATUS_OK);
            assert_int_equal(sst_verify(file, NULL, &report, &err), STATUS_CORRUPT);
            assert_true(report.findings > 0);
            uint64_t first = input.places[0].handle.offset;
            uint64_t last = input.places[5].handle.offset;
            assert_true(offset < first || offset >= last || (report.findings == 1 && report.entries == 6));
        } else {
            struct env_file *cut;
            assert_int_equal(env_open(world->env, path, ENV_OPEN_WRITE, &cut, NULL), STATUS_OK);
            assert_int_equal(env_truncate(cut, meta.size_bytes - 1, NULL), STATUS_OK);
            env_close(cut);
            assert_int_equal(sst_verify(file, NULL, &report, &err), STATUS_CORRUPT);
        }
        sst_free(file);
    }
    world_free(world);
}

static int setup(void **state) {
    (void)state;
    make_input();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value_builder_writes_what_it_says),
        cmocka_unit_test(test_value_builder_golden_file_is_unchanged),
        cmocka_unit_test(test_value_builder_failed_or_dropped_leaves_no_file),
        cmocka_unit_test(test_value_place_bad_bytes_are_corrupt),
        cmocka_unit_test(test_value_refs_add_up_by_file),
        cmocka_unit_test(test_value_block_bad_lengths_are_corrupt),
        cmocka_unit_test(test_sst_builder_counts_references),
        cmocka_unit_test(test_value_fetch_finds_each_value_and_nothing_else),
        cmocka_unit_test(test_value_verify_finds_every_flipped_byte),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
