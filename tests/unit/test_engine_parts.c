/*
 * A store of which something has gone, or that is about to go.
 *
 * Would break these: a store whose log or tables somebody took away that opens as an empty one, and then removes what
 * is left; an engine_destroy that a crash cuts short and that leaves a store which opens without its data, or one that
 * can't be destroyed; one that takes away what belongs to another program.
 */
#include "tests/unit/engine_machine.h"

#include "node/base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS_MAX = 5 * 1000 * 1000, KEYS = 40, VALUE_BYTES = 12000, NAMES_MAX = 64, NAME_BYTES = 64 };

struct run {
    struct sim *sim;
    struct sim_node *node;
    struct engine_options options;
    struct engine *engine;
    struct env *env;
    struct error err;
    bool flushed; /* the log holds none of it any more */
    const char *part;
    enum status status;
    unsigned keys;
    bool was_empty; /* there was nothing in the directory, or not even that */
    bool done;
};

static void run_new(struct run *run, uint64_t seed) {
    memset(run, 0, sizeof *run);
    run->sim = machine_new(seed, 3, &run->node);
    engine_options_init(&run->options);
    run->options.dir = "/store";
    machine_set_small_log(&run->options);
    run->options.flush_on_close = false;
}

static void play(struct run *run, void (*program)(void *run)) {
    run->env = run->options.env = sim_node_env(run->node);
    machine_play(run->sim, run->node, program, run, &run->done, STEPS_MAX);
}

/* Several segments of the log. */
static void make_store(void *context) {
    struct run *run = context;
    static const uint8_t value[VALUE_BYTES];
    char key[16];
    CHECK(engine_open(&run->options, &run->engine, NULL) == STATUS_OK);
    for (unsigned i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "%06u", i);
        CHECK(engine_put(run->engine, NULL, slice_of_string(key), slice_of(value, sizeof value), NULL) == STATUS_OK);
    }
    CHECK(!run->flushed || engine_flush(run->engine, NULL) == STATUS_OK);
    CHECK(engine_sync(run->engine, NULL) == STATUS_OK);
    engine_close(run->engine);
    run->done = true;
}

/* As far as it opens: how many keys it has. */
static void look(struct run *run) {
    struct engine_iterator *iterator;
    run->keys = 0;
    run->status = engine_open(&run->options, &run->engine, &run->err);
    if (run->status == STATUS_OK) {
        CHECK(engine_iterator_new(run->engine, NULL, &iterator, NULL) == STATUS_OK);
        enum status status = engine_iterator_first(iterator, NULL);
        for (; status == STATUS_OK; status = engine_iterator_next(iterator, NULL)) {
            run->keys++;
        }
        CHECK(status == STATUS_NOT_FOUND);
        engine_iterator_free(iterator);
        engine_close(run->engine);
    }
}

/* ---- Taken away -------------------------------------------------------------------------------------------------- */

struct names {
    char names[NAMES_MAX][NAME_BYTES];
    unsigned count;
};

static enum status note(void *context, const char *name) {
    struct names *names = context;
    CHECK(names->count < NAMES_MAX && strlen(name) < NAME_BYTES);
    (void)snprintf(names->names[names->count++], NAME_BYTES, "%s", name);
    return STATUS_OK;
}

static struct names names_in(struct run *run, const char *dir) {
    struct names names = {.count = 0};
    (void)!env_list_dir(run->env, dir, note, &names, NULL); /* none: it isn't there, or a file */
    return names;
}

/* A file, or a directory with all its files. */
static void take_away(struct run *run, const char *dir) {
    struct names names = names_in(run, dir);
    for (unsigned i = 0; i < names.count; i++) {
        char path[2 * NAME_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s", dir, names.names[i]);
        CHECK(env_unlink(run->env, path, NULL) == STATUS_OK);
    }
    CHECK(env_unlink(run->env, dir, NULL) == STATUS_OK);
}

static void take_and_look(void *context) {
    struct run *run = context;
    unsigned tables = names_in(run, "/store/tables").count;
    take_away(run, run->part);
    look(run);
    if (strcmp(run->part, "/store/log") == 0) {
        CHECK(names_in(run, "/store/tables").count == tables); /* it wasn't cleaned up as a new one */
        CHECK(engine_repair(&run->options, NULL, NULL, NULL, &run->err) == STATUS_OK);
        enum status without_log = run->status;
        look(run);
        CHECK(run->status == STATUS_OK);
        run->status = without_log;
    }
    run->done = true;
}

static void test_engine_without_a_part_of_its_own_is_damaged_not_new(void **state) {
    (void)state;
    static const char *const parts[] = {"/store/log", "/store/tables", "/store/tables/CURRENT"};
    for (unsigned i = 0; i < 2 * sizeof parts / sizeof parts[0]; i++) {
        struct run run;
        run_new(&run, i + 1);
        run.flushed = i % 2 == 0;
        run.part = parts[i / 2];
        play(&run, make_store);
        play(&run, take_and_look);
        /* What is lost with tables that held nothing is nothing: the log has it all. */
        bool is_whole = run.status == STATUS_OK && run.keys == KEYS && !run.flushed && i / 2 > 0;
        if (run.status != STATUS_CORRUPT && !is_whole) {
            fail_msg("without %s, %s: %s, %u keys", run.part, run.flushed ? "flushed" : "not flushed",
                     status_name(run.status), run.keys);
        }
        sim_free(run.sim);
    }
}

/* ---- Destroyed --------------------------------------------------------------------------------------------------- */

static void destroy(void *context) {
    struct run *run = context;
    run->status = engine_destroy(&run->options, &run->err);
    run->done = true;
}

static void look_and_destroy(void *context) {
    struct run *run = context;
    run->was_empty = names_in(run, "/store").count == 0;
    look(run);
    enum status destroyed = engine_destroy(&run->options, &run->err);
    CHECK(destroyed == STATUS_OK || destroyed == STATUS_NOT_FOUND);
    CHECK(env_list_dir(run->env, "/store", note, &(struct names){.count = 0}, NULL) == STATUS_NOT_FOUND);
    run->done = true;
}

static void test_engine_destroy_cut_short_leaves_no_store_that_opens(void **state) {
    (void)state;
    bool finished = false;
    unsigned damaged = 0;
    unsigned whole = 0;
    for (unsigned i = 0; !finished || i % 2 != 0; i++) {
        struct run run;
        run_new(&run, i + 1);
        run.flushed = i % 2 == 0;
        play(&run, make_store);
        run.done = false;
        sim_node_thread(run.node, destroy, &run);
        for (unsigned step = 0; step < i / 2 && !run.done; step++) {
            (void)sim_step(run.sim);
        }
        finished = run.done;
        sim_node_crash(run.node, run.flushed ? SIM_CRASH_PROCESS : SIM_CRASH_POWER);
        sim_node_start(run.node);
        play(&run, look_and_destroy);
        bool is_untouched = run.status == STATUS_OK && run.keys == KEYS;
        bool is_new = run.status == STATUS_OK && run.keys == 0 && run.was_empty;
        if (run.status != STATUS_CORRUPT && !is_untouched && !is_new) {
            fail_msg("case %u: %s, %u keys: %s", i, status_name(run.status), run.keys, run.err.message);
        }
        damaged += run.status == STATUS_CORRUPT;
        whole += is_untouched;
        sim_free(run.sim);
    }
    assert_true(damaged > 8 && whole > 2);
}

static void make_file(struct run *run, const char *path) {
    struct env_file *file;
    CHECK(env_open(run->env, path, ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, NULL) == STATUS_OK);
    env_close(file);
}

/* Of a program that keeps its things under names like ours. */
static void destroy_anothers(void *context) {
    struct run *run = context;
    static const char *const files[] = {"/store/notes", "/store/log/app.log", "/store/tables/CURRENT",
                                        "/store/tables/LOCK", "/store/tables/MANIFEST-000005"};
    CHECK(env_mkdir(run->env, "/store", NULL) == STATUS_OK);
    CHECK(env_mkdir(run->env, "/store/log", NULL) == STATUS_OK);
    CHECK(env_mkdir(run->env, "/store/tables", NULL) == STATUS_OK);
    for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++) {
        make_file(run, files[i]);
    }
    CHECK(engine_destroy(&run->options, &run->err) == STATUS_INVALID);
    for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++) {
        CHECK(env_unlink(run->env, files[i], NULL) == STATUS_OK); /* it is still there */
    }
    run->done = true;
}

static void test_engine_destroy_leaves_what_is_another_programs(void **state) {
    (void)state;
    struct run run;
    run_new(&run, 1);
    play(&run, destroy_anothers);
    sim_free(run.sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_without_a_part_of_its_own_is_damaged_not_new),
        cmocka_unit_test(test_engine_destroy_cut_short_leaves_no_store_that_opens),
        cmocka_unit_test(test_engine_destroy_leaves_what_is_another_programs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
