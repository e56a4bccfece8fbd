/*
 * Segments of the log as value files, through the whole engine: power losses and process crashes at any step, damage,
 * space, and what is written.
 *
 * Would break these: a large value written twice although its segment could stay; an edit that names a file whose name
 * isn't durable; a segment adopted while groups still go into it, or cut by recovery behind the manifest's back; a
 * place that leads to a record that a restart moved; a name that no edit has and nothing removes; a wrong value instead
 * of an error; an adopted file that is never emptied.
 */
#include "storage/engine.h"
#include "storage/repair.h"
#include "storage/storage.h"
#include "tests/sim/sim.h"
#include "tests/unit/engine_machine.h"
#include "tests/unit/storage_host.h"

#include "node/base/check.h"
#include "node/base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    KEYS = 600,
    OPERATIONS_MAX = 4000,
    VALUE_MIN = 2800,
    VALUE_MAX = 3800,
    MEMTABLE_BYTES = 64 * 1024,
    STEPS_MAX = 50 * 1000 * 1000
};

struct operation {
    unsigned key;
    bool is_delete;
};

struct run {
    struct sim *sim;
    struct sim_node *node;
    struct engine_options options;
    struct engine *engine;
    struct random random;
    struct operation operations[OPERATIONS_MAX + 1]; /* by revision */
    uint64_t begun;                                  /* revision of the newest that was asked for */
    uint64_t written;                                /* ... that was answered */
    uint64_t synced;
    uint64_t wanted; /* the writer's end */
    uint64_t adopted_bytes;
    uint64_t written_bytes;
    bool done;
    enum status status;
    struct error error;
};

static void run_new(struct run *run, uint64_t seed) {
    memset(run, 0, sizeof *run);
    random_seed(&run->random, seed);
    run->sim = machine_new(seed, 3, &run->node);
    engine_options_init(&run->options);
    run->options.dir = "/store";
    run->options.memtable_bytes = MEMTABLE_BYTES;
    run->options.value_threshold_bytes = 1000;
    machine_set_small_log(&run->options);
}

static void open_engine(struct run *run) {
    run->options.env = sim_node_env(run->node);
    run->status = engine_open(&run->options, &run->engine, &run->error);
}

static struct slice key_of(unsigned key, char out[16]) {
    (void)snprintf(out, 16, "key%04u", key);
    return slice_of_string(out);
}

/* Of the put with this revision: no two are alike. */
static struct slice value_of(uint64_t revision, uint8_t out[VALUE_MAX]) {
    size_t len = VALUE_MIN + (size_t)(revision * 7919 % (VALUE_MAX - VALUE_MIN));
    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)(revision * 31 + revision / 256 + i * 7);
    }
    return slice_of(out, len);
}

/* ---- On a thread of the node: CHECK, as no assertion can leave it ------------------------------------------------ */

static void play(struct run *run, void (*program)(void *run)) {
    machine_play(run->sim, run->node, program, run, &run->done, STEPS_MAX);
}

static void write_one(struct run *run) {
    char name[16];
    uint8_t bytes[VALUE_MAX];
    uint64_t revision = ++run->begun;
    bool sync = random_chance(&run->random, 1, 8);
    struct engine_write_options options = {.sync = sync};
    struct operation operation = {.key = (unsigned)random_below(&run->random, KEYS),
                                  .is_delete = random_chance(&run->random, 1, 10)};
    run->operations[revision] = operation;
    struct slice key = key_of(operation.key, name);
    enum status status = operation.is_delete
                             ? engine_delete(run->engine, &options, key, &run->error)
                             : engine_put(run->engine, &options, key, value_of(revision, bytes), &run->error);
    CHECK(status == STATUS_OK);
    run->written = revision;
    run->synced = sync ? revision : run->synced;
}

static void check_key(struct run *run, unsigned key, uint64_t revision) {
    char name[16];
    uint8_t bytes[VALUE_MAX];
    struct engine_value value;
    while (revision > 0 && run->operations[revision].key != key) {
        revision--;
    }
    enum status status = engine_get(run->engine, NULL, key_of(key, name), &value, &run->error);
    if (revision == 0 || run->operations[revision].is_delete) {
        CHECK(status == STATUS_NOT_FOUND);
        return;
    }
    CHECK(status == STATUS_OK);
    CHECK(value.revision == revision && slice_equal(value.bytes, value_of(revision, bytes)));
    engine_value_release(&value);
}

/* The state after some write that has all that must be there; what comes next continues it. */
static void check_all(struct run *run, uint64_t least) {
    struct engine_stats stats;
    engine_get_stats(run->engine, &stats);
    CHECK(stats.revision >= least && stats.revision <= run->begun);
    for (unsigned key = 0; key < KEYS; key++) {
        check_key(run, key, stats.revision);
    }
    run->begun = stats.revision;
    run->written = stats.revision;
    run->synced = run->synced < stats.revision ? run->synced : stats.revision;
}

static void note_stats(struct run *run) {
    struct engine_stats stats;
    engine_get_stats(run->engine, &stats);
    run->adopted_bytes = stats.adopted_bytes;
    run->written_bytes = stats.written_bytes;
}

/* ---- Crashes ---------------------------------------------------------------------------------------------------- */

struct crash_run {
    struct run run;
    uint64_t least;
};

static void live(void *context) {
    struct crash_run *it = context;
    struct run *run = &it->run;
    open_engine(run);
    CHECK(run->status == STATUS_OK);
    check_all(run, it->least);
    while (run->begun < run->wanted) {
        write_one(run);
        note_stats(run);
    }
    check_all(run, run->written);
    engine_close(run->engine);
    run->done = true;
}

static void verify(void *context) {
    struct run *run = context;
    struct storage_verify_report report;
    run->status = storage_verify_dir(sim_node_env(run->node), "/store/tables", NULL, &report, &run->error);
    run->done = true;
}

/* Some lives, each cut short at any step; then one to its end. True if a segment was adopted. */
static bool run_crashes(uint64_t seed) {
    struct crash_run *it = malloc(sizeof *it);
    assert_non_null(it);
    struct run *run = &it->run;
    uint64_t adopted_bytes = 0;
    run_new(run, seed);
    it->least = 0;
    run->wanted = OPERATIONS_MAX;
    for (unsigned life = 0; life < 5; life++) {
        uint64_t steps = random_below(&run->random, life % 2 == 0 ? 14000 : 600);
        run->done = false;
        sim_node_thread(run->node, live, run);
        for (uint64_t step = 0; step < steps && !run->done; step++) {
            (void)sim_step(run->sim);
        }
        adopted_bytes += run->adopted_bytes;
        run->adopted_bytes = 0;
        enum sim_crash crash = random_chance(&run->random, 1, 2) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS;
        it->least = crash == SIM_CRASH_POWER ? run->synced : run->written;
        run->written = it->least; /* whatever comes next: it may not get so far as to look */
        sim_node_crash(run->node, crash);
        sim_node_start(run->node);
    }
    run->wanted = run->begun + 100;
    play(run, live);
    play(run, verify);
    if (run->status != STATUS_OK) {
        fail_msg("seed %llu: %s", (unsigned long long)seed, run->error.message);
    }
    sim_free(run->sim);
    free(it);
    return adopted_bytes > 0;
}

static void test_value_adopt_crashes_at_any_step_lose_nothing_and_mix_nothing_up(void **state) {
    (void)state;
    unsigned adopting = 0;
    const char *length = getenv("HOLDFAST_TEST_LENGTH");
    unsigned seeds = length != NULL && strcmp(length, "long") == 0 ? 300 : 30;
    for (unsigned seed = 1; seed <= seeds; seed++) {
        adopting += run_crashes(seed);
    }
    assert_true(adopting > seeds / 2);
}

/* ---- What is written -------------------------------------------------------------------------------------------- */

static void fill(void *context) {
    struct run *run = context;
    run->options.memtable_bytes = 4 * MEMTABLE_BYTES;
    run->options.write_bytes_max = 512 * 1024; /* segments in which heads and padding are little */
    open_engine(run);
    CHECK(run->status == STATUS_OK);
    while (run->begun < 1500) {
        write_one(run);
    }
    CHECK(engine_flush(run->engine, &run->error) == STATUS_OK);
    note_stats(run);
    check_all(run, run->written);
    engine_close(run->engine);
    run->done = true;
}

static void test_value_adopt_writes_large_values_once(void **state) {
    (void)state;
    struct run *run = malloc(sizeof *run);
    assert_non_null(run);
    run_new(run, 7);
    play(run, fill);
    uint64_t user_bytes = run->begun * (VALUE_MIN + VALUE_MAX) / 2;
    assert_true(run->adopted_bytes > user_bytes / 2);
    assert_true(run->written_bytes < user_bytes); /* tables, and values that were copied or moved */
    play(run, verify);
    assert_int_equal(run->status, STATUS_OK);
    sim_free(run->sim);
    free(run);
}

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

struct damage {
    struct run run;
    char path[LIMIT_PATH_BYTES]; /* of an adopted file */
    uint64_t size_bytes;
    unsigned bad;
    unsigned lost;
    struct storage_repair_report repaired;
};

static enum status find_adopted(void *context, const char *name) {
    struct damage *damage = context;
    struct env *env = sim_node_env(damage->run.node);
    struct env_file *file;
    uint8_t magic[8];
    size_t got;
    if (strstr(name, ".val") == NULL || damage->size_bytes > 0) {
        return STATUS_OK;
    }
    (void)snprintf(damage->path, sizeof damage->path, "/store/tables/%s", name);
    CHECK(env_open(env, damage->path, ENV_OPEN_READ, &file, NULL) == STATUS_OK);
    CHECK(env_pread(file, magic, sizeof magic, 0, &got, NULL) == STATUS_OK);
    if (memcmp(magic, "HFWALSEG", sizeof magic) == 0) {
        CHECK(env_size(file, &damage->size_bytes, NULL) == STATUS_OK);
    }
    env_close(file);
    return STATUS_OK;
}

/* A byte of each of its groups. */
static void spoil(void *context) {
    struct damage *damage = context;
    struct env *env = sim_node_env(damage->run.node);
    struct env_file *file;
    CHECK(env_list_dir(env, "/store/tables", find_adopted, damage, NULL) == STATUS_OK);
    CHECK(damage->size_bytes > 0);
    CHECK(env_open(env, damage->path, ENV_OPEN_READ | ENV_OPEN_WRITE, &file, NULL) == STATUS_OK);
    for (uint64_t at = 8192 + 1000; at < damage->size_bytes; at += 2048) {
        uint8_t byte;
        size_t got;
        CHECK(env_pread(file, &byte, 1, at, &got, NULL) == STATUS_OK);
        byte ^= 0x10;
        CHECK(env_pwrite(file, &byte, 1, at, NULL) == STATUS_OK);
    }
    env_close(file);
    damage->run.done = true;
}

/* Right, or an error that names the file. */
static void read_all(void *context) {
    struct damage *damage = context;
    struct run *run = &damage->run;
    open_engine(run);
    CHECK(run->status == STATUS_OK);
    for (unsigned key = 0; key < KEYS; key++) {
        char name[16];
        uint8_t bytes[VALUE_MAX];
        struct engine_value value;
        enum status status = engine_get(run->engine, NULL, key_of(key, name), &value, &run->error);
        if (status == STATUS_OK) {
            CHECK(slice_equal(value.bytes, value_of(value.revision, bytes)));
            engine_value_release(&value);
        } else if (status == STATUS_CORRUPT) {
            CHECK(strstr(run->error.message, damage->path) != NULL);
            damage->bad++;
        } else {
            CHECK(status == STATUS_NOT_FOUND);
        }
    }
    engine_close(run->engine);
    run->done = true;
}

static void test_value_adopt_damage_is_an_error_and_never_a_wrong_value(void **state) {
    (void)state;
    struct damage *damage = malloc(sizeof *damage);
    assert_non_null(damage);
    memset(damage, 0, sizeof *damage);
    run_new(&damage->run, 9);
    play(&damage->run, fill);
    play(&damage->run, spoil);
    play(&damage->run, verify);
    assert_int_equal(damage->run.status, STATUS_CORRUPT);
    assert_non_null(strstr(damage->run.error.message, damage->path));
    play(&damage->run, read_all);
    assert_true(damage->bad > 0);
    sim_free(damage->run.sim);
    free(damage);
}

/* ---- Repair ----------------------------------------------------------------------------------------------------- */

static void on_lost(void *context, const struct storage_loss *loss) {
    struct damage *damage = context;
    CHECK(loss->key.len > 0 && loss->file != 0);
    damage->lost++;
}

/* What is lost is what couldn't be read; it was told, and the rest is there. */
static void repair(void *context) {
    struct damage *damage = context;
    struct run *run = &damage->run;
    struct storage_options storage;
    struct storage_repair_options options = {.storage = &storage, .context = damage, .lost = on_lost};
    storage_options_init(&storage);
    storage.env = sim_node_env(run->node);
    storage.dir = "/store/tables";
    memcpy(storage.cluster_id, "holdfast engine", sizeof storage.cluster_id);
    storage.node_id = 1;
    damage->lost = 0;
    run->status = storage_repair(&options, &damage->repaired, &run->error);
    run->done = true;
}

static void spoil_current(void *context) {
    struct damage *damage = context;
    struct env_file *file;
    struct env *env = sim_node_env(damage->run.node);
    CHECK(env_open(env, "/store/tables/CURRENT", ENV_OPEN_WRITE, &file, NULL) == STATUS_OK);
    CHECK(env_pwrite(file, "nothing", 7, 0, NULL) == STATUS_OK);
    env_close(file);
    damage->run.done = true;
}

static void reopen_and_check(void *context) {
    struct run *run = &((struct damage *)context)->run;
    open_engine(run);
    CHECK(run->status == STATUS_OK);
    check_all(run, run->written);
    engine_close(run->engine);
    run->done = true;
}

static void test_value_adopt_repair_drops_only_values_that_are_lost(void **state) {
    (void)state;
    struct damage *damage = malloc(sizeof *damage);
    assert_non_null(damage);
    memset(damage, 0, sizeof *damage);
    run_new(&damage->run, 9);
    play(&damage->run, fill);
    play(&damage->run, spoil);
    play(&damage->run, repair);
    assert_int_equal(damage->run.status, STATUS_OK);
    assert_true(damage->lost > 0 && damage->lost == damage->repaired.values_lost);
    assert_int_equal(damage->repaired.value_files_damaged, 1);
    play(&damage->run, verify);
    assert_int_equal(damage->run.status, STATUS_OK);
    damage->bad = 0;
    play(&damage->run, read_all);
    assert_int_equal(damage->bad, 0);
    sim_free(damage->run.sim);
    free(damage);
}

/* Nothing says then which segment has which id: the records themselves do. */
static void test_value_adopt_repair_without_a_manifest_finds_values_in_segments(void **state) {
    (void)state;
    struct damage *damage = malloc(sizeof *damage);
    assert_non_null(damage);
    memset(damage, 0, sizeof *damage);
    run_new(&damage->run, 9);
    play(&damage->run, fill);
    play(&damage->run, spoil_current);
    play(&damage->run, repair);
    assert_int_equal(damage->run.status, STATUS_OK);
    assert_false(damage->repaired.manifest_used);
    assert_int_equal(damage->lost, 0);
    play(&damage->run, verify);
    assert_int_equal(damage->run.status, STATUS_OK);
    play(&damage->run, reopen_and_check);
    sim_free(damage->run.sim);
    free(damage);
}

/* ---- The scrub: on the store without its log --------------------------------------------------------------------- */

static unsigned scrub_found;

static void on_damaged(void *context, const struct storage_damage *damage) {
    (void)context;
    assert_true(damage->file != 0);
    scrub_found++;
}

static void test_value_adopt_scrub_checks_segments(void **state) {
    (void)state;
    for (unsigned damaged = 0; damaged < 2; damaged++) {
        struct damage *damage = malloc(sizeof *damage);
        struct host host = {.closed = false};
        struct storage_stats stats;
        assert_non_null(damage);
        memset(damage, 0, sizeof *damage);
        scrub_found = 0;
        run_new(&damage->run, 9);
        play(&damage->run, fill);
        if (damaged == 1) {
            play(&damage->run, spoil);
        }
        host.sim = damage->run.sim;
        host.node = damage->run.node;
        storage_options_init(&host.options);
        host.options.dir = "/store/tables";
        memcpy(host.options.cluster_id, "holdfast engine", sizeof host.options.cluster_id);
        host.options.node_id = 1;
        host.options.scrub_bytes_per_second = 16 * 1024 * 1024;
        host.options.context = &host;
        host.options.fill_frontier = host_fill_frontier;
        host.options.failed = host_on_failed;
        host.options.damaged = on_damaged;
        host.env = sim_node_env(host.node);
        assert_int_equal(env_loop_new(host.env, "owner", 1000, &host.loop, NULL), STATUS_OK);
        env_loop_run(host.loop);
        host_open(&host);
        host_run_ms(&host, 10 * 1000);
        storage_get_stats(host.storage, &stats);
        assert_true(stats.scrub_passes >= 2 && stats.scrub_bytes >= 2 * stats.value_file_bytes);
        assert_int_equal(scrub_found, damaged);
        assert_int_equal(stats.damage_count, damaged);
        host_close(&host);
        sim_free(damage->run.sim);
        free(damage);
    }
}

/* ---- Space ------------------------------------------------------------------------------------------------------ */

/* Everything is overwritten, over and over: what is kept stays within a bound. */
static void overwrite(void *context) {
    struct run *run = context;
    struct engine_stats stats;
    run->options.memtable_bytes = 4 * MEMTABLE_BYTES;
    run->options.write_bytes_max = 512 * 1024; /* segments in which heads and padding are little */
    open_engine(run);
    CHECK(run->status == STATUS_OK);
    while (run->begun < 3000) {
        write_one(run);
    }
    CHECK(engine_compact_range(run->engine, SLICE_EMPTY, SLICE_EMPTY, &run->error) == STATUS_OK);
    for (unsigned second = 0; second < 20; second++) {
        env_sleep_us(run->options.env, 1000 * 1000);
    }
    engine_get_stats(run->engine, &stats);
    CHECK(stats.adopted_bytes > 1000 * 1000);
    CHECK(stats.value_file_bytes < 4 * KEYS * VALUE_MAX);
    check_all(run, run->written);
    engine_close(run->engine);
    run->done = true;
}

static void test_value_adopt_files_are_emptied_and_go(void **state) {
    (void)state;
    struct run *run = malloc(sizeof *run);
    assert_non_null(run);
    run_new(run, 11);
    run->options.sst_bytes = 8 * 1024;
    run->options.level_base_bytes = 16 * 1024;
    play(run, overwrite);
    play(run, verify);
    assert_int_equal(run->status, STATUS_OK);
    sim_free(run->sim);
    free(run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value_adopt_crashes_at_any_step_lose_nothing_and_mix_nothing_up),
        cmocka_unit_test(test_value_adopt_writes_large_values_once),
        cmocka_unit_test(test_value_adopt_damage_is_an_error_and_never_a_wrong_value),
        cmocka_unit_test(test_value_adopt_repair_drops_only_values_that_are_lost),
        cmocka_unit_test(test_value_adopt_repair_without_a_manifest_finds_values_in_segments),
        cmocka_unit_test(test_value_adopt_scrub_checks_segments),
        cmocka_unit_test(test_value_adopt_files_are_emptied_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
