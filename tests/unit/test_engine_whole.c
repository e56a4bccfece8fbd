/*
 * The whole store, by the engine's own calls: checkpoint, verify, repair, destroy, scrub; open and closed, on real
 * files.
 *
 * What would break these: a checkpoint that lacks what was written before, has what came later, doesn't open, or shares
 * a file that goes on being written; one that overwrites what is there, or trips over what a killed attempt left;
 * damage that verifying doesn't find; a repair that leaves a store which doesn't open, or throws away what could be
 * read; a destroyed store that leaves files, or takes away others'.
 */
#include "storage/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { KEYS = 3000, VALUE_BYTES = 200, PATH_BYTES = 512 };

struct world {
    char parent[64];
    char dir[96];
    struct engine_options options;
    struct engine *engine;
    struct error err;
};

static void run_command(const char *format, const char *path) {
    char command[2 * PATH_BYTES];
    (void)snprintf(command, sizeof command, format, path);
    assert_int_equal(system(command), 0);
}

static void open_it(struct world *world) {
    enum status status = engine_open(&world->options, &world->engine, &world->err);
    if (status != STATUS_OK) {
        fail_msg("open %s: %s: %s", world->options.dir, status_name(status), world->err.message);
    }
}

static void close_it(struct world *world) {
    engine_close(world->engine);
    world->engine = NULL;
}

static void world_init(struct world *world) {
    memset(world, 0, sizeof *world);
    (void)snprintf(world->parent, sizeof world->parent, "build/test-engine-whole-XXXXXX");
    assert_non_null(mkdtemp(world->parent));
    (void)snprintf(world->dir, sizeof world->dir, "%s/store", world->parent);
    engine_options_init(&world->options);
    world->options.dir = world->dir;
    world->options.sst_bytes = 128 * 1024;
    open_it(world);
}

static void world_deinit(struct world *world) {
    close_it(world);
    run_command("rm -rf '%s'", world->parent);
}

static struct slice key_of(char *memory, unsigned number) {
    return slice_of(memory, (size_t)snprintf(memory, 32, "key%08u", number));
}

static void put_keys(struct world *world, unsigned first, unsigned end, char fill) {
    char value[VALUE_BYTES];
    char key[32];
    memset(value, fill, sizeof value);
    for (unsigned i = first; i < end; i++) {
        assert_int_equal(engine_put(world->engine, NULL, key_of(key, i), slice_of(value, sizeof value), &world->err),
                         STATUS_OK);
    }
}

/* How many keys have a value of these bytes; all others have none. */
static unsigned count_keys(struct world *world, char fill) {
    struct engine_iterator *iterator;
    struct slice value;
    unsigned count = 0;
    assert_int_equal(engine_iterator_new(world->engine, NULL, &iterator, &world->err), STATUS_OK);
    enum status status = engine_iterator_first(iterator, &world->err);
    for (; status == STATUS_OK; status = engine_iterator_next(iterator, &world->err)) {
        assert_int_equal(engine_iterator_value(iterator, &value, &world->err), STATUS_OK);
        assert_int_equal(value.len, VALUE_BYTES);
        assert_int_equal(value.data[0], fill);
        count++;
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    engine_iterator_free(iterator);
    return count;
}

static bool exists(const char *path) {
    struct stat stat_buffer;
    return stat(path, &stat_buffer) == 0;
}

/* The first file below the store's directory that the pattern names. */
static void find_file(struct world *world, const char *pattern, char path[PATH_BYTES]) {
    char command[2 * PATH_BYTES];
    (void)snprintf(command, sizeof command, "ls '%s'/%s | head -n 1", world->dir, pattern);
    FILE *stream = popen(command, "r");
    assert_non_null(stream);
    assert_non_null(fgets(path, PATH_BYTES, stream));
    (void)pclose(stream);
    path[strcspn(path, "\n")] = '\0';
}

/* Turns the bits of some bytes around. */
static void damage(const char *path, long offset, size_t len) {
    uint8_t bytes[256];
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_true(len <= sizeof bytes);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_int_equal(fread(bytes, 1, len, file), len);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)~bytes[i];
    }
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* ---- Checkpoint -------------------------------------------------------------------------------------------------- */

static void test_engine_checkpoint_has_what_was_written_before(void **state) {
    (void)state;
    struct world world;
    char path[PATH_BYTES];
    struct engine_checkpoint checkpoint;
    world_init(&world);
    put_keys(&world, 0, KEYS, 'a');
    (void)snprintf(path, sizeof path, "%s/copy", world.parent);
    assert_int_equal(engine_checkpoint(world.engine, path, &checkpoint, &world.err), STATUS_OK);
    assert_int_equal(checkpoint.revision, KEYS);
    assert_true(checkpoint.files > 0 && checkpoint.bytes > 0);
    assert_int_equal(checkpoint.copied_bytes, 0);
    put_keys(&world, 0, KEYS + 100, 'b'); /* not seen there */
    assert_int_equal(engine_flush(world.engine, &world.err), STATUS_OK);
    assert_int_equal(engine_compact_range(world.engine, SLICE_EMPTY, SLICE_EMPTY, &world.err), STATUS_OK);
    struct world copy = world;
    copy.options.dir = path;
    copy.options.create_if_missing = false;
    for (int life = 0; life < 2; life++) { /* the second finds the log that the first wrote */
        open_it(&copy);
        assert_int_equal(count_keys(&copy, 'a'), KEYS);
        put_keys(&copy, 0, 1, 'a');
        struct engine_stats stats;
        engine_get_stats(copy.engine, &stats);
        assert_int_equal(stats.revision, checkpoint.revision + 1 + (uint64_t)life);
        copy.options.flush_on_close = false;
        close_it(&copy);
    }
    assert_int_equal(count_keys(&world, 'b'), KEYS + 100);
    world_deinit(&world);
}

static void test_engine_checkpoint_overwrites_nothing_and_cleans_up_after_a_killed_one(void **state) {
    (void)state;
    struct world world;
    char path[PATH_BYTES];
    world_init(&world);
    put_keys(&world, 0, 10, 'a');
    (void)snprintf(path, sizeof path, "%s/copy", world.parent);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(engine_checkpoint(world.engine, path, NULL, &world.err), STATUS_EXISTS);
    assert_int_equal(rmdir(path), 0);
    /* What a kill in the middle leaves. */
    run_command("mkdir -p '%s/copy.tmp/tables.tmp'", world.parent);
    (void)snprintf(path, sizeof path, "%s/copy.tmp/log/0000000000000001.log.tmp", world.parent);
    run_command("mkdir -p \"$(dirname '%s')\"", path);
    run_command("echo x >'%s'", path);
    (void)snprintf(path, sizeof path, "%s/copy", world.parent);
    assert_int_equal(engine_checkpoint(world.engine, path, NULL, &world.err), STATUS_OK);
    (void)snprintf(path, sizeof path, "%s/copy.tmp", world.parent);
    assert_false(exists(path));
    (void)snprintf(path, sizeof path, "%s/none/copy", world.parent);
    assert_int_equal(engine_checkpoint(world.engine, path, NULL, &world.err), STATUS_NOT_FOUND);
    world_deinit(&world);
}

/* ---- Verify ------------------------------------------------------------------------------------------------------ */

struct findings {
    unsigned count;
    char file[64];
};

static void on_found(void *context, const struct engine_finding *finding) {
    struct findings *findings = context;
    findings->count++;
    (void)snprintf(findings->file, sizeof findings->file, "%s", finding->file);
    assert_non_null(finding->message);
}

static void test_engine_verify_finds_a_damaged_block_open_and_closed(void **state) {
    (void)state;
    struct world world;
    struct engine_verify_report report;
    struct findings findings = {.count = 0};
    const struct engine_verify_options options = {.context = &findings, .found = on_found};
    char path[PATH_BYTES];
    world_init(&world);
    put_keys(&world, 0, KEYS, 'a');
    assert_int_equal(engine_flush(world.engine, &world.err), STATUS_OK);
    assert_int_equal(engine_verify(world.engine, &options, &report, &world.err), STATUS_OK);
    assert_true(report.tables > 0 && report.bytes > 0);
    assert_int_equal(report.entries, KEYS);
    assert_int_equal(report.revision, KEYS);
    assert_int_equal(engine_verify_closed(&world.options, NULL, NULL, &world.err), STATUS_BUSY);
    find_file(&world, "tables/*.sst", path);
    damage(path, 20000, 8);
    assert_int_equal(engine_verify(world.engine, &options, &report, &world.err), STATUS_CORRUPT);
    assert_int_equal(findings.count, 1);
    assert_non_null(strstr(path, findings.file));
    close_it(&world);
    assert_int_equal(engine_verify_closed(&world.options, &options, &report, &world.err), STATUS_CORRUPT);
    assert_int_equal(findings.count, 2);
    assert_true(report.findings > 0);
    damage(path, 20000, 8); /* back */
    assert_int_equal(engine_verify_closed(&world.options, &options, &report, &world.err), STATUS_OK);
    open_it(&world);
    world_deinit(&world);
}

/* The scrub finds it by itself. */
static void test_engine_scrub_tells_of_a_damaged_block(void **state) {
    (void)state;
    struct world world;
    char path[PATH_BYTES];
    struct engine_stats stats;
    world_init(&world);
    put_keys(&world, 0, KEYS, 'a');
    close_it(&world);
    find_file(&world, "tables/*.sst", path);
    damage(path, 20000, 8);
    world.options.scrub_bytes_per_second = 512 << 20;
    open_it(&world);
    for (int i = 0; i < 1000; i++) {
        engine_get_stats(world.engine, &stats);
        if (stats.scrub_passes > 0) {
            break;
        }
        (void)usleep(10 * 1000);
    }
    assert_true(stats.scrub_passes > 0 && stats.scrub_bytes > 0);
    assert_true(stats.scrub_findings > 0);
    assert_int_equal(stats.scrub_damages, 1);
    world_deinit(&world);
}

/* ---- Repair ------------------------------------------------------------------------------------------------------ */

static void on_lost(void *context, const struct engine_loss *loss) {
    unsigned *count = context;
    (void)loss;
    (*count)++;
}

static void test_engine_repair_leaves_a_sound_store_alone(void **state) {
    (void)state;
    struct world world;
    struct engine_repair_report report;
    unsigned lost = 0;
    world_init(&world);
    close_it(&world);
    world.options.flush_on_close = false;
    open_it(&world);
    put_keys(&world, 0, KEYS, 'a');
    assert_int_equal(engine_repair(&world.options, on_lost, &lost, &report, &world.err), STATUS_BUSY);
    close_it(&world);
    assert_int_equal(engine_repair(&world.options, on_lost, &lost, &report, &world.err), STATUS_OK);
    assert_true(report.tables_were_sound && report.log_was_sound);
    assert_int_equal(lost, 0);
    open_it(&world);
    assert_int_equal(count_keys(&world, 'a'), KEYS); /* they were in the log alone */
    world_deinit(&world);
}

static void test_engine_repair_keeps_the_rest_of_a_damaged_table(void **state) {
    (void)state;
    struct world world;
    struct engine_repair_report report;
    unsigned lost = 0;
    char path[PATH_BYTES];
    world_init(&world);
    put_keys(&world, 0, KEYS, 'a');
    close_it(&world);
    find_file(&world, "tables/*.sst", path);
    damage(path, 20000, 8);
    assert_int_equal(engine_repair(&world.options, on_lost, &lost, &report, &world.err), STATUS_OK);
    assert_false(report.tables_were_sound);
    assert_true(report.log_was_sound);
    assert_int_equal(lost, report.pieces_lost + report.tables_lost);
    assert_true(lost > 0 && report.entries > KEYS / 2 && report.entries < KEYS);
    open_it(&world);
    assert_int_equal(count_keys(&world, 'a'), report.entries);
    put_keys(&world, 0, KEYS, 'a');
    assert_int_equal(count_keys(&world, 'a'), KEYS);
    world_deinit(&world);
}

/* Tables up to KEYS, the log further; closed. */
static void make_log(struct world *world) {
    world_init(world);
    close_it(world);
    world->options.flush_on_close = false;
    open_it(world);
    put_keys(world, 0, KEYS, 'a');
    assert_int_equal(engine_flush(world->engine, &world->err), STATUS_OK);
    for (unsigned i = 0; i < 10; i++) {
        put_keys(world, KEYS + i * KEYS / 10, KEYS + (i + 1) * KEYS / 10, 'a');
        assert_int_equal(engine_sync(world->engine, &world->err), STATUS_OK);
    }
    put_keys(world, KEYS * 2, KEYS * 2 + 1, 'a');
    close_it(world);
}

static void check_lives(struct world *world, unsigned keys) {
    for (unsigned life = 0; life < 2; life++) {
        open_it(world);
        assert_int_equal(count_keys(world, 'a'), keys + life);
        put_keys(world, keys + life, keys + 1 + life, 'a');
        close_it(world);
    }
    open_it(world);
}

/* What is in tables is there again, and writes go on. */
static void test_engine_repair_replaces_a_log_that_is_gone(void **state) {
    (void)state;
    struct world world;
    struct engine_repair_report report;
    make_log(&world);
    run_command("rm -r '%s/log'", world.dir);
    assert_int_equal(engine_open(&world.options, &world.engine, &world.err), STATUS_CORRUPT);
    assert_int_equal(engine_repair(&world.options, NULL, NULL, &report, &world.err), STATUS_OK);
    assert_true(report.tables_were_sound && !report.log_was_sound && report.log_was_replaced);
    assert_int_equal(report.revision, KEYS);
    assert_int_equal(report.log_lost_first, 0); /* that can't be told */
    check_lives(&world, KEYS);
    world_deinit(&world);
}

static void on_log_lost(void *context, const struct engine_loss *loss) {
    assert_int_equal(loss->file, 0);
    assert_true(loss->after.len == 0 && loss->until.len == 0);
    assert_non_null(strstr(loss->message, "writes "));
    ++*(unsigned *)context;
}

/* Where the last group of a segment begins. */
static long end_of_log(const char *path) {
    char block[4096];
    long end = 0;
    long at = 0;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    for (; fread(block, 1, sizeof block, file) == sizeof block; at += (long)sizeof block) {
        end = memcmp(block, "HFWALGRP", 8) == 0 ? at : end;
    }
    assert_int_equal(fclose(file), 0);
    return end;
}

/* In the middle, at several places: the writes before it are kept, all of them, those behind it are told, and the
 * log as it was is kept aside. The tail files, which have the newest ones, are gone, too. */
static void test_engine_repair_keeps_the_log_before_the_damage(void **state) {
    (void)state;
    uint64_t most = 0;
    for (unsigned place = 1; place < 4; place++) {
        struct world world;
        struct engine_repair_report report;
        char path[PATH_BYTES];
        unsigned lost = 0;
        make_log(&world);
        run_command("rm '%s'/tail-*", world.dir);
        find_file(&world, "log/*.log", path);
        damage(path, end_of_log(path) / 4096 * (5 + place) / 9 * 4096, 100); /* with good groups behind it */
        assert_int_equal(engine_open(&world.options, &world.engine, &world.err), STATUS_CORRUPT);
        assert_int_equal(engine_repair(&world.options, on_log_lost, &lost, &report, &world.err), STATUS_OK);
        assert_true(report.tables_were_sound && !report.log_was_sound && !report.log_was_replaced);
        assert_int_equal(lost, 1);
        assert_true(report.revision > KEYS && report.revision > most);
        most = report.revision;
        assert_int_equal(report.log_lost_first, report.revision + 1);
        assert_int_equal(report.log_lost_last, KEYS * 2 + 1);
        run_command("ls '%s'/log.lost-0/*.log >/dev/null", world.dir);
        run_command("! ls '%s'/log/*.faulty 2>/dev/null", world.dir);
        assert_int_equal(engine_repair(&world.options, on_log_lost, &lost, &report, &world.err), STATUS_OK);
        assert_true(report.log_was_sound && report.revision == most);
        (void)snprintf(path, sizeof path, "%s/log.lost-1", world.dir);
        assert_false(exists(path));
        check_lives(&world, (unsigned)most);
        world_deinit(&world);
    }
}

/* No group says a term that the tables rely on: the log as a whole goes. */
static void test_engine_repair_sets_aside_a_log_that_says_nothing(void **state) {
    (void)state;
    struct world world;
    struct engine_repair_report report;
    char path[PATH_BYTES];
    make_log(&world);
    run_command("for f in '%s'/log/*.log; do head -c 65536 /dev/urandom >\"$f\"; done", world.dir);
    assert_int_equal(engine_open(&world.options, &world.engine, &world.err), STATUS_CORRUPT);
    assert_int_equal(engine_repair(&world.options, NULL, NULL, &report, &world.err), STATUS_OK);
    assert_true(report.log_was_replaced && report.revision == KEYS);
    (void)snprintf(path, sizeof path, "%s/log.lost-0", world.dir);
    assert_true(exists(path));
    check_lives(&world, KEYS);
    world_deinit(&world);
}

/* ---- Destroy ----------------------------------------------------------------------------------------------------- */

static void test_engine_destroy_takes_the_store_and_nothing_else(void **state) {
    (void)state;
    struct world world;
    char path[PATH_BYTES];
    world_init(&world);
    put_keys(&world, 0, KEYS, 'a');
    assert_int_equal(engine_destroy(&world.options, &world.err), STATUS_BUSY);
    assert_int_equal(count_keys(&world, 'a'), KEYS);
    close_it(&world);
    (void)snprintf(path, sizeof path, "%s/theirs", world.dir);
    run_command("echo x >'%s'", path);
    assert_int_equal(engine_destroy(&world.options, &world.err), STATUS_OK);
    assert_true(exists(path));
    run_command("test \"$(ls '%s')\" = theirs", world.dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(engine_destroy(&world.options, &world.err), STATUS_OK);
    assert_false(exists(world.dir));
    assert_int_equal(engine_destroy(&world.options, &world.err), STATUS_NOT_FOUND);
    assert_int_equal(engine_verify_closed(&world.options, NULL, NULL, &world.err), STATUS_NOT_FOUND);
    assert_int_equal(engine_repair(&world.options, NULL, NULL, NULL, &world.err), STATUS_NOT_FOUND);
    open_it(&world); /* a new one */
    assert_int_equal(count_keys(&world, 'a'), 0);
    world_deinit(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_checkpoint_has_what_was_written_before),
        cmocka_unit_test(test_engine_checkpoint_overwrites_nothing_and_cleans_up_after_a_killed_one),
        cmocka_unit_test(test_engine_verify_finds_a_damaged_block_open_and_closed),
        cmocka_unit_test(test_engine_scrub_tells_of_a_damaged_block),
        cmocka_unit_test(test_engine_repair_leaves_a_sound_store_alone),
        cmocka_unit_test(test_engine_repair_keeps_the_rest_of_a_damaged_table),
        cmocka_unit_test(test_engine_repair_replaces_a_log_that_is_gone),
        cmocka_unit_test(test_engine_repair_keeps_the_log_before_the_damage),
        cmocka_unit_test(test_engine_repair_sets_aside_a_log_that_says_nothing),
        cmocka_unit_test(test_engine_destroy_takes_the_store_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
