/*
 * Verifying whole tables: sound ones pass, and no damaged byte escapes, wherever it is.
 *
 * Would break these: a byte that nothing looks at, a count or the file's checksum that isn't compared, a finding that
 * ends the walk, a pace that isn't asked or whose no isn't heard.
 */
#include "tests/unit/sst_fixture.h"

#include "storage/sst_format.h"

static const struct tombstone tombstones[] = {{{(const uint8_t *)"c", 1}, {(const uint8_t *)"d", 1}, 9000, 0},
                                              {{(const uint8_t *)"c", 1}, {(const uint8_t *)"d", 1}, 8000, 1},
                                              {{(const uint8_t *)"x", 1}, {(const uint8_t *)"y", 1}, 1, 0}};

static struct world *world_of(enum compression compression, size_t entries, size_t tombstone_count) {
    struct world *world = world_new(1, 1 << 20, 4);
    world->builder.compression = compression;
    make_entries(&world->list, entries, 7);
    (void)add_table(world, world->list.entries, entries, tombstones, tombstone_count);
    return world;
}

static void test_sst_verify_sound_table_passes(void **state) {
    (void)state;
    for (int c = 0; c < 9; c++) {
        size_t tombstone_count = c < 3 ? 0 : 3;
        size_t entries = c < 6 ? 2000 : 0;
        if (entries + tombstone_count == 0) {
            continue;
        }
        struct world *world = world_of((enum compression)(c % 3), entries, tombstone_count);
        struct sst_verify_report report;
        struct error err;
        assert_int_equal(sst_verify(world->tables[0], NULL, &report, &err), STATUS_OK);
        assert_int_equal(report.entries, entries);
        assert_int_equal(report.tombstones, tombstone_count);
        assert_int_equal(report.findings, 0);
        assert_int_equal(report.bytes, world->tables[0]->meta.size_bytes);
        assert_int_equal(world->damaged, 0);
        world_free(world);
    }
}

static void test_sst_verify_every_damaged_byte_is_found(void **state) {
    (void)state;
    struct world *world = world_of(COMPRESSION_LZ4, 400, 3);
    struct sst *sst = world->tables[0];
    struct env_file *file;
    char path[LIMIT_PATH_BYTES];
    file_path_sst(path, "/", sst->meta.number);
    assert_int_equal(env_open(world->env, path, ENV_OPEN_READ | ENV_OPEN_WRITE, &file, NULL), STATUS_OK);
    for (uint64_t offset = 0; offset < sst->meta.size_bytes; offset += offset % 17 == 0 ? 1 : 3) {
        struct sst_verify_report report;
        struct error err;
        uint8_t saved, flipped;
        size_t got;
        assert_int_equal(env_pread(file, &saved, 1, offset, &got, NULL), STATUS_OK);
        flipped = saved ^ (uint8_t)(1u << (offset % 8));
        assert_int_equal(env_pwrite(file, &flipped, 1, offset, NULL), STATUS_OK);
        enum status status = sst_verify(sst, NULL, &report, &err);
        assert_true(status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED);
        assert_true(report.findings >= 1);
        assert_non_null(strstr(err.message, path));
        assert_int_equal(env_pwrite(file, &saved, 1, offset, NULL), STATUS_OK);
    }
    struct sst_verify_report report;
    assert_int_equal(sst_verify(sst, NULL, &report, NULL), STATUS_OK);
    env_close(file);
    world_free(world);
}

static void test_sst_verify_goes_on_behind_damage(void **state) {
    (void)state;
    struct world *world = world_of(COMPRESSION_NONE, 2000, 3);
    struct sst *sst = world->tables[0];
    struct sst_verify_report report;
    struct error err;
    damage(world, sst, SST_HEADER_BYTES + 10);
    damage(world, sst, sst->meta.size_bytes / 2);
    assert_int_equal(sst_verify(sst, NULL, &report, &err), STATUS_CORRUPT);
    assert_int_equal(report.findings, 2);
    assert_int_equal(report.first_offset, SST_HEADER_BYTES);
    assert_true(report.entries > 1000 && report.entries < 2000);
    world_free(world);
}

static void test_sst_verify_other_file_under_the_manifests_checksum_is_found(void **state) {
    (void)state;
    struct world *world = world_of(COMPRESSION_NONE, 500, 0);
    struct sst_meta meta = world->tables[0]->meta;
    struct sst *sst;
    struct sst_verify_report report;
    struct error err;
    meta.checksum++;
    assert_int_equal(sst_new(&world->context, &meta, &sst), STATUS_OK);
    assert_int_equal(sst_verify(sst, NULL, &report, &err), STATUS_CORRUPT);
    assert_int_equal(report.findings, 1);
    sst_free(sst);
    world_free(world);
}

struct pacing {
    uint64_t bytes;
    int calls_left;
};

static bool pace(void *context, uint64_t bytes) {
    struct pacing *pacing = context;
    pacing->bytes += bytes;
    return --pacing->calls_left > 0;
}

static void test_sst_verify_pace_is_asked_and_heard(void **state) {
    (void)state;
    static uint8_t value[600 * 1024];
    struct world *world = world_new(1, 0, 4);
    struct entry entries[6];
    static const char *const keys[] = {"a", "b", "c", "d", "e", "f"};
    for (size_t i = 0; i < 6; i++) {
        entries[i] = (struct entry){.key = {slice_of_string(keys[i]), i + 1, 0},
                                    .kind = BATCH_PUT,
                                    .value = slice_of(value, sizeof value)};
    }
    struct sst *sst = add_table(world, entries, 6, NULL, 0);
    struct sst_verify_report report;
    struct error err;
    struct pacing pacing = {.calls_left = 100};
    struct sst_verify_options options = {.pace = pace, .context = &pacing};
    assert_int_equal(sst_verify(sst, &options, &report, &err), STATUS_OK);
    assert_int_equal(pacing.calls_left, 97);
    assert_in_range(pacing.bytes, 3 << 20, sst->meta.size_bytes);
    pacing.calls_left = 1;
    assert_int_equal(sst_verify(sst, &options, &report, &err), STATUS_CANCELLED);
    assert_true(report.bytes < sst->meta.size_bytes / 2);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sst_verify_sound_table_passes),
        cmocka_unit_test(test_sst_verify_every_damaged_byte_is_found),
        cmocka_unit_test(test_sst_verify_goes_on_behind_damage),
        cmocka_unit_test(test_sst_verify_other_file_under_the_manifests_checksum_is_found),
        cmocka_unit_test(test_sst_verify_pace_is_asked_and_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
