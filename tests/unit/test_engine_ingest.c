/*
 * Ingest by the engine's own call: another store's checkpoint becomes the content of one that is open and goes on being
 * written, on the simulated disk, with the power lost at any time.
 *
 * What would break these: a log that goes on behind the old content, so that the next opening finds a gap or takes old
 * records for new ones (hazard 21); a term in the tables that the log has never heard of; an acknowledged write that a
 * tail file alone has when the log's term changes; writers that wait for ever; revisions that go back.
 */
#include "tests/unit/engine_machine.h"

#include "node/base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS_MAX = 20 * 1000 * 1000, SOURCE_WRITES = 400, TARGET_WRITES = 40, MORE_WRITES = 60 };

struct run {
    struct sim *sim;
    struct sim_node *node;
    struct engine_options options;
    bool done;
    bool ingested;       /* engine_ingest has returned */
    unsigned old_synced; /* writes of the target's own that were acknowledged with sync, */
    unsigned new_synced; /* and likewise after the ingest */
    bool found_new;
    struct engine *target; /* open in the other thread */
    unsigned meanwhile;    /* writes of the second thread that were acknowledged before the ingest returned */
    uint64_t copy_revision;
};

static const struct engine_write_options synced = {.sync = true};

static void open_engine(struct run *run, const char *dir, struct engine **ret_engine) {
    struct error err;
    struct engine_options options = run->options;
    options.env = sim_node_env(run->node);
    options.dir = dir;
    enum status status = engine_open(&options, ret_engine, &err);
    if (status != STATUS_OK) {
        fprintf(stderr, "open %s: %s\n", dir, err.message);
    }
    CHECK(status == STATUS_OK);
}

static struct slice key_of(char *memory, char kind, unsigned number) {
    return slice_of(memory, (size_t)snprintf(memory, 24, "%c%08u", kind, number));
}

static void put(struct engine *engine, char kind, unsigned number, bool sync) {
    char key[24];
    struct error err;
    enum status status = engine_put(engine, sync ? &synced : NULL, key_of(key, kind, number),
                                    slice_of_string("a value of some bytes"), &err);
    if (status != STATUS_OK) {
        fprintf(stderr, "put %c%u: %s\n", kind, number, err.message);
    }
    CHECK(status == STATUS_OK);
}

static bool has(struct engine *engine, char kind, unsigned number) {
    char key[24];
    struct engine_value value;
    enum status status = engine_get(engine, NULL, key_of(key, kind, number), &value, NULL);
    CHECK(status == STATUS_OK || status == STATUS_NOT_FOUND);
    if (status == STATUS_OK) {
        engine_value_release(&value);
    }
    return status == STATUS_OK;
}

static void run_new(struct run *run, uint64_t seed) {
    memset(run, 0, sizeof *run);
    run->sim = machine_new(seed, 4, &run->node);
    engine_options_init(&run->options);
    machine_set_small_log(&run->options);
    run->options.memtable_bytes = 64 * 1024;
}

static void play(struct run *run, void (*program)(void *run)) {
    machine_play(run->sim, run->node, program, run, &run->done, STEPS_MAX);
}

/* A store that was opened several times, so that its terms are high, and a checkpoint of it. */
static void make_checkpoint(void *context) {
    struct run *run = context;
    struct engine *engine;
    struct engine_checkpoint checkpoint;
    for (unsigned life = 0; life < 4; life++) {
        open_engine(run, "/source", &engine);
        for (unsigned i = 0; i < SOURCE_WRITES / 4; i++) {
            put(engine, 's', life * (SOURCE_WRITES / 4) + i, false);
        }
        if (life == 3) {
            CHECK(engine_checkpoint(engine, "/copy", &checkpoint, NULL) == STATUS_OK);
            run->copy_revision = checkpoint.revision;
        }
        engine_close(engine);
    }
    run->done = true;
}

/* Another store takes it in and goes on. */
static void take_in(void *context) {
    struct run *run = context;
    struct engine *engine;
    struct error err;
    open_engine(run, "/target", &engine);
    for (unsigned i = 0; i < TARGET_WRITES; i++) {
        bool sync = i % 4 == 3;
        put(engine, 't', i, sync);
        run->old_synced = sync ? i + 1 : run->old_synced;
    }
    enum status status = engine_ingest(engine, "/copy", &err);
    if (status != STATUS_OK) {
        fprintf(stderr, "ingest: %s\n", err.message);
    }
    CHECK(status == STATUS_OK);
    run->ingested = true;
    CHECK(has(engine, 's', 0) && has(engine, 's', SOURCE_WRITES - 1) && !has(engine, 't', 0));
    for (unsigned i = 0; i < MORE_WRITES; i++) {
        bool sync = i % 4 == 3;
        put(engine, 'n', i, sync);
        run->new_synced = sync ? i + 1 : run->new_synced;
    }
    struct engine_stats stats;
    engine_get_stats(engine, &stats);
    CHECK(stats.revision == run->copy_revision + MORE_WRITES);
    run->done = true;
    env_sleep_us(run->options.env, UINT32_MAX); /* until the power goes */
}

/* The old content, with all that was synced, or the new one. */
static void look_at(void *context) {
    struct run *run = context;
    struct engine *engine;
    open_engine(run, "/target", &engine);
    run->found_new = has(engine, 's', 0);
    if (run->found_new) {
        for (unsigned i = 0; i < SOURCE_WRITES; i++) {
            CHECK(has(engine, 's', i));
        }
        CHECK(!has(engine, 't', 0));
        for (unsigned i = 0; i < run->new_synced; i++) {
            CHECK(has(engine, 'n', i));
        }
    } else {
        CHECK(!run->ingested);
        for (unsigned i = 0; i < run->old_synced; i++) {
            CHECK(has(engine, 't', i));
        }
    }
    put(engine, 'x', 0, true);
    engine_close(engine);
    open_engine(run, "/target", &engine);
    CHECK(has(engine, 'x', 0) && has(engine, 's', 0) == run->found_new);
    engine_close(engine);
    run->done = true;
}

static void test_engine_ingested_checkpoint_is_the_content_and_writes_go_on(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct run run;
        run_new(&run, seed);
        run.options.env = sim_node_env(run.node);
        play(&run, make_checkpoint);
        play(&run, take_in);
        sim_node_crash(run.node, seed % 2 == 0 ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
        sim_node_start(run.node);
        run.new_synced = seed % 2 == 0 ? run.new_synced : MORE_WRITES; /* a killed process loses nothing */
        play(&run, look_at);
        assert_true(run.found_new);
        sim_free(run.sim);
    }
}

static void test_h21_engine_ingest_cut_short_leaves_the_old_content_or_the_new_one(void **state) {
    (void)state;
    unsigned old = 0;
    unsigned fresh = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct run run;
        run_new(&run, 2100 + seed);
        run.options.env = sim_node_env(run.node);
        play(&run, make_checkpoint);
        run.done = false;
        sim_node_thread(run.node, take_in, &run);
        uint64_t from_us = sim_now_us(run.sim);
        uint64_t time_us = 500 + seed * 700;
        (void)sim_run_until(run.sim, from_us + time_us, NULL, NULL, STEPS_MAX);
        sim_node_crash(run.node, seed % 4 == 0 ? SIM_CRASH_PROCESS : SIM_CRASH_POWER);
        sim_node_start(run.node);
        play(&run, look_at);
        old += !run.found_new;
        fresh += run.found_new;
        sim_free(run.sim);
    }
    assert_true(old >= 5 && fresh >= 5);
}

/* Writes without sync while the other thread takes the checkpoint in. */
static void write_meanwhile(void *context) {
    struct run *run = context;
    while (run->target == NULL) {
        env_sleep_us(run->options.env, 20);
    }
    for (unsigned i = 0;; i++) {
        put(run->target, 'w', i, false);
        run->meanwhile = run->ingested ? 0 : i + 1;
        env_sleep_us(run->options.env, 5);
    }
}

static void take_in_and_hang(void *context) {
    struct run *run = context;
    struct engine *engine;
    open_engine(run, "/target", &engine);
    run->target = engine;
    env_sleep_us(run->options.env, 300);
    CHECK(engine_ingest(engine, "/copy", NULL) == STATUS_OK);
    run->ingested = true;
    env_sleep_us(run->options.env, UINT32_MAX);
}

static void look_for_meanwhile(void *context) {
    struct run *run = context;
    struct engine *engine;
    open_engine(run, "/target", &engine);
    run->found_new = has(engine, 's', 0);
    for (unsigned i = 0; i < run->meanwhile && !run->found_new; i++) {
        CHECK(has(engine, 'w', i));
    }
    engine_close(engine);
    run->done = true;
}

/* What a writer was told is there after a kill as long as the old content is: also while the log's term changes. */
static void test_engine_writes_during_an_ingest_survive_a_kill_with_the_old_content(void **state) {
    (void)state;
    unsigned old = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct run run;
        run_new(&run, 5000 + seed);
        run.options.env = sim_node_env(run.node);
        play(&run, make_checkpoint);
        sim_node_thread(run.node, take_in_and_hang, &run);
        sim_node_thread(run.node, write_meanwhile, &run);
        while (run.target == NULL) {
            (void)sim_run_until(run.sim, sim_now_us(run.sim) + 20, NULL, NULL, STEPS_MAX);
        }
        (void)sim_run_until(run.sim, sim_now_us(run.sim) + 200 + seed * 15, NULL, NULL, STEPS_MAX);
        sim_node_crash(run.node, SIM_CRASH_PROCESS);
        sim_node_start(run.node);
        play(&run, look_for_meanwhile);
        old += !run.found_new;
        sim_free(run.sim);
    }
    assert_true(old > 10);
}

/* What isn't there, is older, or is a store that somebody has open. */
static void refuse(void *context) {
    struct run *run = context;
    struct engine *engine;
    struct engine *source;
    open_engine(run, "/target", &engine);
    CHECK(engine_ingest(engine, "/nothing", NULL) == STATUS_NOT_FOUND);
    open_engine(run, "/source", &source);
    CHECK(engine_ingest(engine, "/source", NULL) == STATUS_BUSY);
    engine_close(source);
    for (unsigned i = 0; i < SOURCE_WRITES + 1; i++) {
        put(engine, 't', i, false);
    }
    CHECK(engine_ingest(engine, "/copy", NULL) == STATUS_INVALID);
    put(engine, 't', SOURCE_WRITES + 1, true);
    CHECK(has(engine, 't', 0) && !has(engine, 's', 0));
    engine_close(engine);
    open_engine(run, "/target", &engine);
    CHECK(has(engine, 't', SOURCE_WRITES + 1));
    engine_close(engine);
    run->done = true;
}

static void test_engine_ingest_refused_changes_nothing(void **state) {
    (void)state;
    struct run run;
    run_new(&run, 9);
    play(&run, make_checkpoint);
    play(&run, refuse);
    sim_free(run.sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_ingested_checkpoint_is_the_content_and_writes_go_on),
        cmocka_unit_test(test_h21_engine_ingest_cut_short_leaves_the_old_content_or_the_new_one),
        cmocka_unit_test(test_engine_writes_during_an_ingest_survive_a_kill_with_the_old_content),
        cmocka_unit_test(test_engine_ingest_refused_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
