/*
 * Many threads on one engine, under ThreadSanitizer: writers with and without sync, readers, iterators, snapshots,
 * flushes, checkpoints, verification, all at once, in segments of the log that are used again; then reopened.
 *
 * What would break these: a leader that forgets a waiter, so that one sleeps for ever; a group written while a record
 * goes into it; state of log or store touched without the lock, by the loop or by a writer; a write that its own thread
 * can't read back; a batch seen in part.
 */
#include "storage/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

/* Where memory is checked, which is slow, fewer do: races are ThreadSanitizer's. */
#ifdef __SANITIZE_ADDRESS__
enum { WRITES = 300 };
#else
enum { WRITES = 1000 };
#endif
enum { WRITERS = 6, PAIR = 2 };

struct world {
    struct engine *engine;
    const char *dir;
    atomic_uint mistakes;
    atomic_uint done;
};

struct writer {
    struct world *world;
    unsigned number;
    pthread_t thread;
};

static struct slice key_of(char *memory, unsigned writer, unsigned number) {
    return slice_of(memory, (size_t)snprintf(memory, 32, "w%02u-%08u", writer, number));
}

static void expect(struct world *world, bool holds) {
    if (!holds) {
        atomic_fetch_add(&world->mistakes, 1);
    }
}

/* Every write is two keys with one value, in one batch; the writer reads one of them back at once. */
static void *write_pairs(void *argument) {
    struct writer *writer = argument;
    struct world *world = writer->world;
    struct engine_batch *batch = engine_batch_new(NULL);
    struct error err;
    for (unsigned i = 0; i < WRITES; i++) {
        char key[32];
        char value[400];
        memset(value, '.', sizeof value);
        int len = snprintf(value, sizeof value, "%u", i);
        struct slice bytes = slice_of(value, i % 3 == 0 ? sizeof value : (size_t)len);
        engine_batch_clear(batch);
        expect(world, engine_batch_put(batch, key_of(key, writer->number, i % 100), bytes) == STATUS_OK);
        expect(world, engine_batch_put(batch, key_of(key, writer->number, 100 + i % 100), bytes) == STATUS_OK);
        const struct engine_write_options options = {.sync = writer->number % 2 == 0 && i % 5 != 0};
        expect(world, engine_write(world->engine, &options, batch, &err) == STATUS_OK);
        struct engine_value found;
        if (engine_get(world->engine, NULL, key_of(key, writer->number, i % 100), &found, &err) == STATUS_OK) {
            expect(world, slice_equal(found.bytes, bytes));
            engine_value_release(&found);
        } else {
            expect(world, false);
        }
    }
    engine_batch_free(batch);
    atomic_fetch_add(&world->done, 1);
    return NULL;
}

/* At any snapshot, both keys of a pair have the same value. */
static void *check_pairs(void *argument) {
    struct world *world = argument;
    struct error err;
    for (unsigned round = 0; atomic_load(&world->done) < WRITERS; round++) {
        struct engine_snapshot *snapshot = engine_snapshot_new(world->engine);
        const struct engine_read_options options = {.snapshot = snapshot};
        for (unsigned i = 0; i < WRITERS; i++) {
            char key[32];
            struct engine_value first;
            struct engine_value second;
            enum status status = engine_get(world->engine, &options, key_of(key, i, round % 100), &first, &err);
            expect(world,
                   status == engine_get(world->engine, &options, key_of(key, i, 100 + round % 100), &second, &err));
            if (status == STATUS_OK) {
                expect(world, slice_equal(first.bytes, second.bytes) && first.revision == second.revision);
                engine_value_release(&first);
                engine_value_release(&second);
            }
        }
        engine_snapshot_release(world->engine, snapshot);
    }
    return NULL;
}

static void *scan(void *argument) {
    struct world *world = argument;
    struct error err;
    while (atomic_load(&world->done) < WRITERS) {
        struct engine_iterator *iterator;
        struct engine_stats stats;
        char last[32] = "";
        expect(world, engine_iterator_new(world->engine, NULL, &iterator, &err) == STATUS_OK);
        enum status status = engine_iterator_first(iterator, &err);
        for (; status == STATUS_OK; status = engine_iterator_next(iterator, &err)) {
            struct slice key = engine_iterator_key(iterator);
            expect(world, slice_compare(slice_of_string(last), key) < 0 && key.len < sizeof last);
            memcpy(last, key.data, key.len);
            last[key.len] = '\0';
        }
        expect(world, status == STATUS_NOT_FOUND);
        engine_iterator_free(iterator);
        expect(world, engine_flush(world->engine, &err) == STATUS_OK);
        engine_get_stats(world->engine, &stats);
        expect(world, stats.flushed <= stats.durable && stats.durable <= stats.revision && stats.problem[0] == '\0');
        usleep(2000);
    }
    return NULL;
}

/* Copies of the whole, at any time: each opens, and has whole pairs only. */
static void *copy(void *argument) {
    struct world *world = argument;
    struct error err;
    char path[80];
    (void)snprintf(path, sizeof path, "%s/copy", world->dir);
    while (atomic_load(&world->done) < WRITERS) {
        struct engine_options options;
        struct engine_checkpoint checkpoint;
        struct engine *engine;
        struct engine_stats stats;
        expect(world, engine_checkpoint(world->engine, path, &checkpoint, &err) == STATUS_OK);
        expect(world, engine_verify(world->engine, NULL, NULL, &err) == STATUS_OK);
        enum status refused = engine_ingest(world->engine, path, &err); /* something newer was written, mostly */
        expect(world, refused == STATUS_INVALID || refused == STATUS_OK || refused == STATUS_BUSY);
        engine_options_init(&options);
        options.dir = path;
        options.create_if_missing = false;
        if (engine_open(&options, &engine, &err) == STATUS_OK) {
            engine_get_stats(engine, &stats);
            expect(world, stats.revision == checkpoint.revision);
            engine_close(engine);
        } else {
            expect(world, false);
        }
        expect(world, engine_destroy(&options, &err) == STATUS_OK);
        usleep(2000);
    }
    return NULL;
}

static void test_engine_used_by_many_threads_answers_right(void **state) {
    (void)state;
    char dir[64] = "build/test-engine-XXXXXX";
    struct world world = {.engine = NULL};
    struct writer writers[WRITERS];
    pthread_t others[4];
    struct engine_options options;
    struct error err;
    assert_non_null(mkdtemp(dir));
    engine_options_init(&options);
    options.dir = dir;
    options.memtable_bytes = 256 * 1024;
    options.write_bytes_max = 16 * 1024;
    options.log_group_bytes = 16 * 1024;
    options.log_segment_bytes = 1; /* as small as they can be, so that they are used again */
    options.log_memtable_bytes = 1;
    world.dir = dir;
    assert_int_equal(engine_open(&options, &world.engine, &err), STATUS_OK);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.world = &world, .number = i};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_pairs, &writers[i]), 0);
    }
    assert_int_equal(pthread_create(&others[0], NULL, check_pairs, &world), 0);
    assert_int_equal(pthread_create(&others[1], NULL, check_pairs, &world), 0);
    assert_int_equal(pthread_create(&others[2], NULL, scan, &world), 0);
    assert_int_equal(pthread_create(&others[3], NULL, copy, &world), 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(others[i], NULL), 0);
    }
    assert_int_equal(world.mistakes, 0);
    engine_close(world.engine);

    assert_int_equal(engine_open(&options, &world.engine, &err), STATUS_OK);
    struct engine_stats stats;
    engine_get_stats(world.engine, &stats);
    assert_int_equal(stats.revision, WRITERS * WRITES);
    engine_close(world.engine);
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

/* ---- Large values -------------------------------------------------------------------------------------------- */

enum { LARGE_BYTES = 6000, LARGE_WRITES = 600, LARGE_KEYS = 300 };

static void fill_large(uint8_t value[LARGE_BYTES], unsigned writer, unsigned number) {
    memset(value, (int)('a' + writer), LARGE_BYTES);
    (void)snprintf((char *)value, LARGE_BYTES, "%u", number);
}

/* The log is asked for segments, and gives them away, while others write to it and read what was given. */
static void *write_large(void *argument) {
    struct writer *writer = argument;
    struct world *world = writer->world;
    uint8_t value[LARGE_BYTES];
    struct error err;
    for (unsigned i = 0; i < LARGE_WRITES; i++) {
        char key[32];
        struct engine_value found;
        struct engine_write_options options = {.sync = i % 16 == 0};
        fill_large(value, writer->number, i);
        struct slice name = key_of(key, writer->number, i % LARGE_KEYS);
        expect(world, engine_put(world->engine, &options, name, slice_of(value, sizeof value), &err) == STATUS_OK);
        unsigned old = i < 10 ? i : i - 10;
        fill_large(value, writer->number, old);
        name = key_of(key, writer->number, old % LARGE_KEYS);
        enum status status = engine_get(world->engine, NULL, name, &found, &err);
        expect(world, status == STATUS_OK && slice_equal(found.bytes, slice_of(value, sizeof value)));
        if (status == STATUS_OK) {
            engine_value_release(&found);
        }
    }
    return NULL;
}

static void test_engine_large_values_by_many_threads_answer_right(void **state) {
    (void)state;
    char dir[64] = "build/test-engine-XXXXXX";
    struct world world = {.engine = NULL};
    struct writer writers[WRITERS];
    struct engine_options options;
    struct engine_stats stats;
    struct error err;
    assert_non_null(mkdtemp(dir));
    engine_options_init(&options);
    options.dir = dir;
    options.memtable_bytes = 2 * 1024 * 1024;
    options.value_threshold_bytes = 1000;
    options.log_group_bytes = 64 * 1024;
    assert_int_equal(engine_open(&options, &world.engine, &err), STATUS_OK);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.world = &world, .number = i};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_large, &writers[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
    }
    assert_int_equal(world.mistakes, 0);
    assert_int_equal(engine_flush(world.engine, &err), STATUS_OK);
    engine_get_stats(world.engine, &stats);
    assert_true(stats.adopted_bytes > 0);
    engine_close(world.engine);
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_used_by_many_threads_answers_right),
        cmocka_unit_test(test_engine_large_values_by_many_threads_answer_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
