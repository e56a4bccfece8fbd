/*
 * The engine's calls at and beyond what they take.
 *
 * Would break these: an option, a key, a bound or a size that a program gets wrong, and that ends it, or is taken for
 * something else, instead of an answer that says which; a way to a directory that makes two stores of one; stalls that
 * are counted without a reason.
 */
#include "storage/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    char dir[64];
    struct engine_options options;
    struct engine *engine;
    struct error err;
};

static void world_init(struct world *world) {
    memset(world, 0, sizeof *world);
    (void)snprintf(world->dir, sizeof world->dir, "build/test-engine-limits-XXXXXX");
    assert_non_null(mkdtemp(world->dir));
    engine_options_init(&world->options);
    world->options.dir = world->dir;
}

static void open_it(struct world *world) {
    assert_int_equal(engine_open(&world->options, &world->engine, &world->err), STATUS_OK);
}

static void world_deinit(struct world *world) {
    char command[256];
    engine_close(world->engine);
    (void)snprintf(command, sizeof command, "rm -rf '%s' '%s'.*", world->dir, world->dir);
    assert_int_equal(system(command), 0);
}

static enum status put(struct world *world, const char *key, size_t value_bytes) {
    uint8_t *value = calloc(1, value_bytes + 1);
    assert_non_null(value);
    enum status status =
        engine_put(world->engine, NULL, slice_of_string(key), slice_of(value, value_bytes), &world->err);
    free(value);
    return status;
}

/* ---- Options ----------------------------------------------------------------------------------------------------- */

struct wrong {
    const char *name;
    size_t offset;
    size_t bytes;
    uint64_t values[3];
};

#define WRONG(member, ...)                                                                                             \
    {                                                                                                                  \
#member, offsetof(struct engine_options, member), sizeof((struct engine_options *)NULL)->member, {             \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }

static void test_engine_option_out_of_range_is_named(void **state) {
    (void)state;
    static const struct wrong wrongs[] = {
        WRONG(memtable_bytes, 0, 1023, UINT64_MAX),
        WRONG(immutable_memtables_max, 0, 65, UINT32_MAX),
        WRONG(cache_bytes, ((uint64_t)1 << 40) + 1, INT64_MAX, UINT64_MAX),
        WRONG(open_files_max, 0, 1024 * 1024 + 1, UINT32_MAX),
        WRONG(block_bytes, 0, 63, UINT32_MAX),
        WRONG(sst_bytes, 0, 1023, UINT64_MAX),
        WRONG(bloom_bits, 33, 100, 255),
        WRONG(compression, 3, 99, UINT32_MAX),
        WRONG(zstd_level, 0, 13, UINT32_MAX),
        WRONG(level_base_bytes, 0, 1023, UINT64_MAX),
        WRONG(value_threshold_bytes, 1, 31, LIMIT_VALUE_BYTES + 1),
        WRONG(history_revisions, UINT64_MAX, UINT64_MAX, UINT64_MAX),
        WRONG(history_ms, (uint64_t)1 << 42, INT64_MAX, UINT64_MAX),
        WRONG(log_segment_bytes, ((uint64_t)1 << 32) + 1, INT64_MAX, UINT64_MAX),
        WRONG(log_group_bytes, 0, 16 * 1024 - 1, LIMIT_GROUP_BYTES + 1),
        WRONG(write_bytes_max, 0, 1023, LIMIT_ENTRY_PAYLOAD_BYTES + 1),
        WRONG(workers, 0, 65, UINT32_MAX),
        WRONG(compaction_bytes_per_second_max, ((uint64_t)1 << 40) + 1, INT64_MAX, UINT64_MAX),
        WRONG(scrub_bytes_per_second, ((uint64_t)1 << 30) + 1, INT64_MAX, UINT64_MAX),
    };
    struct world world;
    world_init(&world);
    for (size_t i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++) {
        for (size_t j = 0; j < 3; j++) {
            struct engine_options options = world.options;
            memcpy((uint8_t *)&options + wrongs[i].offset, &wrongs[i].values[j], wrongs[i].bytes); /* little-endian */
            enum status status = engine_open(&options, &world.engine, &world.err);

            if (status != STATUS_INVALID || strstr(world.err.message, wrongs[i].name) == NULL) {
                fail_msg("%s, value %zu: %s: %s", wrongs[i].name, j, status_name(status), world.err.message);
            }
        }
    }
    world.engine = NULL;
    open_it(&world);
    world_deinit(&world);
}

/* ---- Keys and bounds --------------------------------------------------------------------------------------------- */

static void test_engine_bound_that_no_key_reaches_is_refused(void **state) {
    (void)state;
    static uint8_t bytes[LIMIT_KEY_BYTES + 1];
    struct slice longest = slice_of(bytes, LIMIT_KEY_BYTES);
    struct slice longer = slice_of(bytes, sizeof bytes);
    struct engine_iterator *iterator;
    struct world world;
    world_init(&world);
    open_it(&world);
    assert_int_equal(put(&world, "key", 100), STATUS_OK);
    assert_int_equal(engine_put(world.engine, NULL, longest, longest, &world.err), STATUS_OK);
    assert_int_equal(engine_put(world.engine, NULL, longer, longest, &world.err), STATUS_INVALID);
    assert_int_equal(engine_flush(world.engine, &world.err), STATUS_OK);
    struct engine_iterator_options options = {.lower = longer};
    assert_int_equal(engine_iterator_new(world.engine, &options, &iterator, &world.err), STATUS_INVALID);
    options = (struct engine_iterator_options){.upper = longer};
    assert_int_equal(engine_iterator_new(world.engine, &options, &iterator, &world.err), STATUS_INVALID);
    options = (struct engine_iterator_options){.lower = longest, .readahead_bytes_max = UINT32_MAX};
    assert_int_equal(engine_iterator_new(world.engine, &options, &iterator, &world.err), STATUS_OK);
    assert_int_equal(engine_iterator_first(iterator, &world.err), STATUS_OK);
    assert_true(slice_equal(engine_iterator_key(iterator), longest));
    assert_int_equal(engine_iterator_next(iterator, &world.err), STATUS_OK);
    assert_int_equal(engine_iterator_seek(iterator, longer, &world.err), STATUS_INVALID);
    assert_int_equal(engine_iterator_seek_for_prev(iterator, longer, &world.err), STATUS_INVALID);
    assert_int_equal(engine_iterator_seek_for_prev(iterator, longest, &world.err), STATUS_OK);
    engine_iterator_free(iterator);
    assert_true(engine_approximate_bytes(world.engine, longer, SLICE_EMPTY) > 0);
    assert_int_equal(engine_approximate_bytes(world.engine, slice_of_string("z"), longer), 0);
    assert_int_equal(engine_compact_range(world.engine, longer, SLICE_EMPTY, &world.err), STATUS_OK);
    assert_int_equal(engine_compact_range(world.engine, SLICE_EMPTY, longer, &world.err), STATUS_OK);
    assert_int_equal(engine_compact_range(world.engine, longer, longest, &world.err), STATUS_OK);
    world_deinit(&world);
}

static void test_engine_write_beyond_its_limit_changes_nothing(void **state) {
    (void)state;
    struct world world;
    struct engine_stats stats;
    world_init(&world);
    open_it(&world);
    assert_int_equal(put(&world, "large", LIMIT_VALUE_BYTES), STATUS_OK);
    assert_int_equal(put(&world, "larger", LIMIT_VALUE_BYTES + 1), STATUS_INVALID);
    engine_close(world.engine);
    world.options.write_bytes_max = 1024; /* less than what is there already */
    open_it(&world);
    assert_int_equal(put(&world, "small", 900), STATUS_OK);
    assert_int_equal(put(&world, "beyond", 1024), STATUS_TOO_LARGE);
    engine_get_stats(world.engine, &stats);
    assert_int_equal(stats.revision, 2);
    struct engine_value value;
    assert_int_equal(engine_get(world.engine, NULL, slice_of_string("large"), &value, &world.err), STATUS_OK);
    assert_int_equal(value.bytes.len, LIMIT_VALUE_BYTES);
    engine_value_release(&value);
    world_deinit(&world);
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

static void test_engine_is_the_same_by_any_name(void **state) {
    (void)state;
    struct world world;
    struct engine *second;
    char names[2][256];
    const char *last_part;
    world_init(&world);
    open_it(&world);
    assert_int_equal(put(&world, "key", 10), STATUS_OK);
    last_part = strrchr(world.dir, '/') + 1;
    (void)snprintf(names[0], sizeof names[0], "%s/../%.32s//", world.dir, last_part);
    (void)snprintf(names[1], sizeof names[1], "%s.link", world.dir);
    assert_int_equal(symlink(last_part, names[1]), 0);
    for (size_t i = 0; i < 2; i++) { /* each waits a little for the lock */
        struct engine_options options = world.options;
        options.dir = names[i];
        assert_int_equal(engine_open(&options, &second, &world.err), STATUS_BUSY);
    }
    assert_int_equal(engine_ingest(world.engine, names[1], &world.err), STATUS_BUSY);
    (void)snprintf(names[0], sizeof names[0], "%s.copy/", world.dir);
    assert_int_equal(engine_checkpoint(world.engine, names[0], NULL, &world.err), STATUS_OK);
    assert_int_equal(engine_checkpoint(world.engine, names[0], NULL, &world.err), STATUS_EXISTS);
    struct engine_options options = world.options;
    options.dir = names[0];
    options.create_if_missing = false;
    assert_int_equal(engine_open(&options, &second, &world.err), STATUS_OK);
    engine_close(second);
    world_deinit(&world);
}

/* ---- Stalls ------------------------------------------------------------------------------------------------------ */

static void test_engine_stalls_have_a_reason(void **state) {
    (void)state;
    struct world world;
    struct engine_stats stats;
    world_init(&world);
    world.options.memtable_bytes = 8 * 1024;
    world.options.immutable_memtables_max = 1;
    open_it(&world);
    do {
        assert_int_equal(put(&world, "key", 4000), STATUS_OK);
        engine_get_stats(world.engine, &stats);
        assert_true(stats.revision < 20000);
    } while (stats.stall_us_total == 0 || stats.stall_us_memtables == 0);
    assert_true(stats.stalls > 0 && stats.stall_us_max <= stats.stall_us_total);
    assert_true(stats.stall_us_log <= stats.stall_us_total);
    assert_int_equal(stats.stall_us_space, 0);
    world_deinit(&world);
}

/* ---- Another program's files ------------------------------------------------------------------------------------- */

static void run_command(const char *format, const char *path) {
    char command[4096];
    (void)snprintf(command, sizeof command, format, path);
    assert_int_equal(system(command), 0);
}

/* It can't be kept with the damaged log, and it isn't ours to remove. */
static void test_engine_repair_of_a_log_with_a_path_that_is_too_long_says_so(void **state) {
    (void)state;
    struct world world;
    char part[201];
    char dir[900];
    char path[1200];
    world_init(&world);
    memset(part, 'd', sizeof part - 1);
    part[sizeof part - 1] = '\0';
    (void)snprintf(dir, sizeof dir, "%s/%s/%s/%s/%s", world.dir, part, part, part, part);
    run_command("mkdir -p '%s'", dir);
    world.options.dir = dir;
    open_it(&world);
    assert_int_equal(put(&world, "key", 10), STATUS_OK);
    engine_close(world.engine);
    world.engine = NULL;
    run_command("for f in '%s'/log/*; do printf damage | dd of=\"$f\" conv=notrunc status=none; done", dir);
    (void)snprintf(path, sizeof path, "%s/log/%s", dir, part);
    run_command("touch '%s'", path);
    assert_int_equal(engine_repair(&world.options, NULL, NULL, NULL, &world.err), STATUS_INVALID);
    assert_non_null(strstr(world.err.message, "too long"));
    run_command("rm '%s'", path);
    assert_int_equal(engine_repair(&world.options, NULL, NULL, NULL, &world.err), STATUS_OK);
    world_deinit(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_option_out_of_range_is_named),
        cmocka_unit_test(test_engine_bound_that_no_key_reaches_is_refused),
        cmocka_unit_test(test_engine_write_beyond_its_limit_changes_nothing),
        cmocka_unit_test(test_engine_is_the_same_by_any_name),
        cmocka_unit_test(test_engine_stalls_have_a_reason),
        cmocka_unit_test(test_engine_repair_of_a_log_with_a_path_that_is_too_long_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
