/*
 * What was synced survives a loss of power whatever came before it, in segments of the log that were used before, too;
 * and the log's files don't set the pace of flushes, unless they hold next to nothing.
 *
 * Would break these: segments of the log that stay although nobody needs them; a sync that counts as done because of
 * something unrelated (an earlier sync, a failed write, an empty batch); memtables written out early only so that a
 * segment of the log can go; a write that asked for sync, or one behind it, that is shown while a loss of power would
 * still take it.
 */
#include "tests/unit/engine_machine.h"

#include "node/base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum {
    STEPS_MAX = 5 * 1000 * 1000,
    SEEDS = 6,
    SETTLE_US = 1000 * 1000,
    SEGMENTS_LEAST = 9,
    WRITES = 2000,
    VALUE_BYTES = 6000,
    MEMTABLE_BYTES = 4 * 1024 * 1024
};

struct run {
    struct sim *sim;
    struct sim_node *node;
    struct engine_options options;
    struct engine *engine;
    unsigned before; /* which unrelated thing comes first */
    bool by_sync;    /* engine_sync, else a put that asks for it */
    bool done;
    bool found;
    uint64_t flushes;
    uint64_t segments_needed; /* of the log, when all was flushed, */
    uint64_t segments_made;   /* and all that there were */
    uint64_t written;         /* acknowledged */
    uint64_t recycled;
    uint64_t segments_max;
    unsigned writers; /* that haven't ended */
    unsigned seen;    /* writes that a reader saw */
};

static const struct engine_write_options synced = {.sync = true};

static void open_engine(struct run *run) {
    struct error err;
    run->options.env = sim_node_env(run->node);
    CHECK(engine_open(&run->options, &run->engine, &err) == STATUS_OK);
}

/* ---- Unrelated things ------------------------------------------------------------------------------------------- */

static void sync_before(struct engine *engine) {
    CHECK(engine_put(engine, &synced, slice_of_string("x"), slice_of_string("1"), NULL) == STATUS_OK);
}

static void flush_before(struct engine *engine) {
    CHECK(engine_put(engine, NULL, slice_of_string("x"), slice_of_string("1"), NULL) == STATUS_OK);
    CHECK(engine_flush(engine, NULL) == STATUS_OK);
}

static void compact_before(struct engine *engine) {
    flush_before(engine);
    CHECK(engine_compact_range(engine, SLICE_EMPTY, SLICE_EMPTY, NULL) == STATUS_OK);
}

static void refused_write_before(struct engine *engine) {
    CHECK(engine_put(engine, &synced, SLICE_EMPTY, slice_of_string("1"), NULL) == STATUS_INVALID);
}

static void empty_batch_before(struct engine *engine) {
    struct engine_batch *batch = engine_batch_new(NULL);
    CHECK(batch != NULL);
    CHECK(engine_write(engine, &synced, batch, NULL) == STATUS_OK);
    engine_batch_free(batch);
}

static void nothing_to_sync_before(struct engine *engine) {
    CHECK(engine_sync(engine, NULL) == STATUS_OK);
    CHECK(engine_sync(engine, NULL) == STATUS_OK);
}

static void reads_before(struct engine *engine) {
    struct engine_value value;
    struct engine_iterator *iterator;
    CHECK(engine_get(engine, NULL, slice_of_string("none"), &value, NULL) == STATUS_NOT_FOUND);
    CHECK(engine_iterator_new(engine, NULL, &iterator, NULL) == STATUS_OK);
    CHECK(engine_iterator_last(iterator, NULL) == STATUS_NOT_FOUND);
    engine_iterator_free(iterator);
    engine_snapshot_release(engine, engine_snapshot_new(engine));
}

static void (*const unrelated[])(struct engine *engine) = {sync_before,        flush_before,
                                                           compact_before,     refused_write_before,
                                                           empty_batch_before, nothing_to_sync_before,
                                                           reads_before};

enum { UNRELATED = sizeof unrelated / sizeof unrelated[0] };

/* ---- Runs ------------------------------------------------------------------------------------------------------- */

static void run_new(struct run *run, uint64_t seed) {
    memset(run, 0, sizeof *run);
    run->sim = machine_new(seed, 3, &run->node);
    engine_options_init(&run->options);
    run->options.dir = "/store";
    machine_set_small_log(&run->options);
}

static void play(struct run *run, void (*program)(void *run)) {
    machine_play(run->sim, run->node, program, run, &run->done, STEPS_MAX);
}

static void write_after(void *context) {
    struct run *run = context;
    open_engine(run);
    unrelated[run->before](run->engine);
    CHECK(engine_put(run->engine, run->by_sync ? NULL : &synced, slice_of_string("key"), slice_of_string("value"),
                     NULL) == STATUS_OK);
    CHECK(!run->by_sync || engine_sync(run->engine, NULL) == STATUS_OK);
    run->done = true;
    env_sleep_us(run->options.env, UINT32_MAX); /* until the power goes */
}

static void read_after(void *context) {
    struct run *run = context;
    struct engine_value value;
    open_engine(run);
    run->found = engine_get(run->engine, NULL, slice_of_string("key"), &value, NULL) == STATUS_OK;
    if (run->found) {
        engine_value_release(&value);
    }
    engine_close(run->engine);
    run->done = true;
}

static void test_h29_engine_sync_holds_whatever_came_before_it(void **state) {
    (void)state;
    for (unsigned i = 0; i < UNRELATED * SEEDS * 2; i++) {
        struct run run;
        run_new(&run, i + 1);
        run.before = i % UNRELATED;
        run.by_sync = i / UNRELATED % 2 == 1;
        play(&run, write_after);
        sim_node_crash(run.node, SIM_CRASH_POWER);
        sim_node_start(run.node);
        play(&run, read_after);
        if (!run.found) {
            fail_msg("lost, after unrelated thing %u, seed %u", run.before, i + 1);
        }
        sim_free(run.sim);
    }
}

/* ---- What is seen before it is durable -------------------------------------------------------------------------- */

enum { SYNCED_WRITES = 40, POLL_US = 3 };

static void write_one(struct run *run, unsigned number, const struct engine_write_options *options) {
    char value[16];
    (void)snprintf(value, sizeof value, "%u", number);
    CHECK(engine_put(run->engine, options, slice_of_string("key"), slice_of_string(value), NULL) == STATUS_OK);
}

static void write_synced(void *context) {
    struct run *run = context;
    for (unsigned i = 0; i < SYNCED_WRITES; i++) {
        write_one(run, i, &synced);
    }
    run->writers--;
}

/* Each third write asks for no sync, and may meet that of another writer. */
static void write_mixed(void *context) {
    struct run *run = context;
    for (unsigned i = 0; i < SYNCED_WRITES; i++) {
        write_one(run, i, i % 3 == 2 ? NULL : &synced);
    }
    run->writers--;
}

static void read_meanwhile(void *context) {
    struct run *run = context;
    uint64_t newest = 0;
    open_engine(run);
    CHECK(engine_put(run->engine, &synced, slice_of_string("first"), SLICE_EMPTY, NULL) == STATUS_OK);
    run->writers = 2;
    sim_node_thread(run->node, write_synced, run);
    sim_node_thread(run->node, write_mixed, run);
    while (run->writers > 0) {
        struct engine_value value;
        struct engine_stats stats;
        if (engine_get(run->engine, NULL, slice_of_string("key"), &value, NULL) == STATUS_OK) {
            engine_get_stats(run->engine, &stats);
            run->seen += value.revision > newest;
            newest = value.revision;
            run->found = run->found || stats.durable + 1 < value.revision; /* one asked for none */
            engine_value_release(&value);
        }
        env_sleep_us(run->options.env, POLL_US);
    }
    engine_close(run->engine);
    run->done = true;
}

static void test_engine_synced_write_is_not_seen_before_it_is_durable(void **state) {
    (void)state;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct run run;
        run_new(&run, seed);
        play(&run, read_meanwhile);
        assert_true(run.seen > SYNCED_WRITES / 2);
        assert_false(run.found);
        sim_free(run.sim);
    }
}

/* ---- Flushes ---------------------------------------------------------------------------------------------------- */

/* The log turns over several segments for each memtable. */
static void write_much(void *context) {
    struct run *run = context;
    static const uint8_t value[VALUE_BYTES];
    struct engine_stats stats;
    run->options.memtable_bytes = MEMTABLE_BYTES;
    open_engine(run);
    for (unsigned i = 0; i < WRITES; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "%08u", i);
        CHECK(engine_put(run->engine, i % 16 == 0 ? &synced : NULL, slice_of_string(key), slice_of(value, sizeof value),
                         NULL) == STATUS_OK);
    }
    engine_get_stats(run->engine, &stats);
    run->flushes = stats.flushes;
    CHECK(engine_flush(run->engine, NULL) == STATUS_OK);
    env_sleep_us(run->options.env, SETTLE_US);
    engine_get_stats(run->engine, &stats);
    run->segments_needed = stats.log_segments - stats.log_segments_spare;
    run->segments_made = stats.log_segments_filled + stats.log_segments_recycled;
    engine_close(run->engine);
    run->done = true;
}

static void test_h43_engine_log_does_not_force_flushes(void **state) {
    (void)state;
    struct run run;
    run_new(&run, 43);
    play(&run, write_much);
    assert_true(run.flushes > 0);
    assert_true(run.segments_made >= SEGMENTS_LEAST);
    assert_true(run.flushes <= WRITES * (VALUE_BYTES + 200) / MEMTABLE_BYTES + 1);
    sim_free(run.sim);
}

static void test_engine_log_goes_with_what_is_flushed(void **state) {
    (void)state;
    struct run run;
    run_new(&run, 44);
    play(&run, write_much);
    assert_true(run.segments_made >= SEGMENTS_LEAST);
    assert_true(run.segments_needed <= 3); /* the one that is written, the one behind it, one that is prepared */
    sim_free(run.sim);
}

/* ---- Small synced writes ----------------------------------------------------------------------------------------- */

enum { SMALL_WRITES = 1500, LIVES = 3 };

static struct slice small_key(char *memory, uint64_t number) {
    return slice_of(memory, (size_t)snprintf(memory, 24, "%08llu", (unsigned long long)number));
}

/* Goes on where the last life ended, a block of the log each, until the power goes in the middle of it. */
static void write_small(void *context) {
    struct run *run = context;
    struct engine_stats stats;
    char key[24];
    open_engine(run);
    uint64_t written = run->written;
    for (uint64_t i = 0; i < written; i++) {
        struct engine_value value;
        CHECK(engine_get(run->engine, NULL, small_key(key, i), &value, NULL) == STATUS_OK);
        engine_value_release(&value);
    }
    while (run->written < written + SMALL_WRITES) {
        CHECK(engine_put(run->engine, &synced, small_key(key, run->written), slice_of_string("value"), NULL) ==
              STATUS_OK);
        run->written++;
        engine_get_stats(run->engine, &stats);
        run->segments_max = stats.log_segments > run->segments_max ? stats.log_segments : run->segments_max;
    }
    run->flushes += stats.flushes;
    run->recycled += stats.log_segments_recycled;
    run->done = true;
    for (;;) {
        CHECK(engine_put(run->engine, &synced, small_key(key, run->written), slice_of_string("value"), NULL) ==
              STATUS_OK);
        run->written++;
    }
}

/* Each takes a block of the log and some bytes of a memtable: the log is bounded all the same, its segments are used
 * again, and what they held before never comes back. */
static void test_h37_engine_log_of_small_synced_writes_is_bounded_and_used_again(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct run run;
        run_new(&run, 370 + seed);
        run.options.log_memtable_bytes = 512 * 1024; /* some segments; without it they would be 75 in each life */
        for (int life = 0; life < LIVES; life++) {
            play(&run, write_small);
            uint64_t now_us = sim_now_us(run.sim);
            (void)sim_run_until(run.sim, now_us + 3000 + seed * 777, NULL, NULL, STEPS_MAX);
            sim_node_crash(run.node, SIM_CRASH_POWER);
            sim_node_start(run.node);
        }
        assert_true(run.flushes >= LIVES * 5);
        assert_true(run.recycled >= LIVES * 5);
        assert_true(run.segments_max <= 32);
        sim_free(run.sim);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h29_engine_sync_holds_whatever_came_before_it),
        cmocka_unit_test(test_engine_synced_write_is_not_seen_before_it_is_durable),
        cmocka_unit_test(test_h43_engine_log_does_not_force_flushes),
        cmocka_unit_test(test_engine_log_goes_with_what_is_flushed),
        cmocka_unit_test(test_h37_engine_log_of_small_synced_writes_is_bounded_and_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
