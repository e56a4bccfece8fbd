/*
 * Three bugs that LevelDB had, as scenarios on our engine (its issues 178, 200 and 320; the stories, not the code).
 *
 *   178  a manual compaction moved a newer table past an older one with the same key: deleted keys came back
 *   200  an iterator that turned round skipped or repeated an entry
 *   320  with many snapshots at work, compactions dropped the version that one of them still needed
 *
 * Would break these: two compactions whose inputs part the versions of a key; a direction switch that leaves a source
 * one entry off; a horizon that isn't the oldest snapshot's.
 */
#include "storage/engine.h"
#include "tests/unit/support/support.h"

#include "node/base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { KEYS = 6000, KEY_BYTES = 32, HISTORY = 400 };

struct fixture {
    char *dir;
    struct engine *engine;
};

static void open_engine(struct fixture *fixture, uint64_t memtable_bytes) {
    struct engine_options options;
    struct error err;
    engine_options_init(&options);
    fixture->dir = test_dir_new();
    options.dir = fixture->dir;
    options.memtable_bytes = memtable_bytes;
    options.sst_bytes = 64 * 1024;
    options.level_base_bytes = 256 * 1024;
    options.block_bytes = 1024;
    options.write_bytes_max = 64 * 1024;
    options.log_segment_bytes = 1;
    enum status status = engine_open(&options, &fixture->engine, &err);
    if (status != STATUS_OK) {
        fail_msg("open: %s", err.message);
    }
}

static void close_engine(struct fixture *fixture) {
    engine_close(fixture->engine);
    test_dir_remove(fixture->dir);
}

static struct slice name(const char *format, unsigned number, char out[KEY_BYTES]) {
    (void)snprintf(out, KEY_BYTES, format, number);
    return slice_of_string(out);
}

static void put(struct fixture *fixture, struct slice key, const char *value) {
    assert_int_equal(engine_put(fixture->engine, NULL, key, slice_of_string(value), NULL), STATUS_OK);
}

/* ---- 178 -------------------------------------------------------------------------------------------------------- */

static unsigned count(struct fixture *fixture) {
    struct engine_iterator *iterator;
    unsigned found = 0;
    assert_int_equal(engine_iterator_new(fixture->engine, NULL, &iterator, NULL), STATUS_OK);
    enum status status = engine_iterator_first(iterator, NULL);
    for (; status == STATUS_OK; found++) {
        status = engine_iterator_next(iterator, NULL);
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    engine_iterator_free(iterator);
    return found;
}

/* Two families of keys, one of them deleted, then compacted by hand: none comes back, and the other is whole. */
static void test_h33_engine_deleted_keys_stay_away_after_compact_range(void **state) {
    (void)state;
    struct fixture fixture;
    char key[KEY_BYTES];
    char bounds[2][KEY_BYTES];
    open_engine(&fixture, 32 * 1024);
    for (unsigned i = 0; i < KEYS; i++) {
        put(&fixture, name("first-%05u", i, key), "an old value, long enough to fill tables");
    }
    for (unsigned i = 0; i < KEYS; i++) {
        put(&fixture, name("second-%05u", i, key), "a value that stays where it is");
    }
    for (unsigned i = 0; i < KEYS; i++) {
        assert_int_equal(engine_delete(fixture.engine, NULL, name("first-%05u", i, key), NULL), STATUS_OK);
        if (i % 1500 == 0) { /* in the middle of it, too */
            assert_int_equal(engine_compact_range(fixture.engine, name("first-%05u", i / 2, bounds[0]),
                                                  name("first-%05u", KEYS - 1, bounds[1]), NULL),
                             STATUS_OK);
        }
    }
    assert_int_equal(count(&fixture), KEYS);
    assert_int_equal(engine_compact_range(fixture.engine, slice_of_string("first-"), slice_of_string("first."), NULL),
                     STATUS_OK);
    assert_int_equal(count(&fixture), KEYS);
    assert_int_equal(engine_compact_range(fixture.engine, SLICE_EMPTY, SLICE_EMPTY, NULL), STATUS_OK);
    assert_int_equal(count(&fixture), KEYS);
    struct engine_value value;
    for (unsigned i = 0; i < KEYS; i += 7) {
        assert_int_equal(engine_get(fixture.engine, NULL, name("first-%05u", i, key), &value, NULL), STATUS_NOT_FOUND);
    }
    close_engine(&fixture);
}

/* ---- 200 -------------------------------------------------------------------------------------------------------- */

static void assert_at(struct engine_iterator *iterator, enum status status, const char *key) {
    assert_int_equal(status, STATUS_OK);
    assert_true(slice_equal(engine_iterator_key(iterator), slice_of_string(key)));
}

/* Neighbours in different sources (memtable, tables): turning between them, at each place. */
static void test_h34_engine_iterator_turns_round_between_sources(void **state) {
    (void)state;
    struct fixture fixture;
    struct engine_iterator *iterator;
    open_engine(&fixture, 1024 * 1024);
    put(&fixture, slice_of_string("1"), "b");
    put(&fixture, slice_of_string("2"), "c");
    assert_int_equal(engine_flush(fixture.engine, NULL), STATUS_OK);
    put(&fixture, slice_of_string("3"), "d");
    put(&fixture, slice_of_string("5"), "f");
    assert_int_equal(engine_flush(fixture.engine, NULL), STATUS_OK);
    put(&fixture, slice_of_string("2"), "again");
    put(&fixture, slice_of_string("4"), "e");
    assert_int_equal(engine_iterator_new(fixture.engine, NULL, &iterator, NULL), STATUS_OK);
    assert_at(iterator, engine_iterator_seek(iterator, slice_of_string("5"), NULL), "5");
    assert_at(iterator, engine_iterator_prev(iterator, NULL), "4");
    assert_at(iterator, engine_iterator_prev(iterator, NULL), "3");
    assert_at(iterator, engine_iterator_next(iterator, NULL), "4");
    assert_at(iterator, engine_iterator_next(iterator, NULL), "5");
    for (char place = '1'; place <= '5'; place++) {
        const char here[] = {place, '\0'};
        const char before[] = {(char)(place - 1), '\0'};
        const char behind[] = {(char)(place + 1), '\0'};
        assert_at(iterator, engine_iterator_seek(iterator, slice_of_string(here), NULL), here);
        if (place > '1') {
            assert_at(iterator, engine_iterator_prev(iterator, NULL), before);
            assert_at(iterator, engine_iterator_next(iterator, NULL), here);
        }
        if (place < '5') {
            assert_at(iterator, engine_iterator_next(iterator, NULL), behind);
            assert_at(iterator, engine_iterator_prev(iterator, NULL), here);
        }
        assert_at(iterator, engine_iterator_seek_for_prev(iterator, slice_of_string(here), NULL), here);
    }
    assert_int_equal(engine_iterator_last(iterator, NULL), STATUS_OK);
    assert_int_equal(engine_iterator_next(iterator, NULL), STATUS_NOT_FOUND);
    engine_iterator_free(iterator);
    close_engine(&fixture);
}

/* ---- 320 -------------------------------------------------------------------------------------------------------- */

struct remembered {
    struct engine_snapshot *snapshot;
    unsigned versions[HISTORY / 4]; /* of each key, when it was taken */
};

static void check_remembered(struct fixture *fixture, const struct remembered *remembered, unsigned keys) {
    const struct engine_read_options options = {.snapshot = remembered->snapshot};
    char key[KEY_BYTES];
    for (unsigned i = 0; i < keys; i++) {
        struct engine_value value;
        enum status status = engine_get(fixture->engine, &options, name("%08u", i, key), &value, NULL);
        assert_int_equal(status, remembered->versions[i] == 0 ? STATUS_NOT_FOUND : STATUS_OK);
        if (status == STATUS_OK) {
            unsigned version;
            assert_true(value.bytes.len >= sizeof version);
            memcpy(&version, value.bytes.data, sizeof version);
            assert_int_equal(version, remembered->versions[i]);
            engine_value_release(&value);
        }
    }
}

/* Keys written over and over while snapshots come and go, and everything is compacted meanwhile. */
static void test_h33_engine_snapshots_keep_their_versions_through_compactions(void **state) {
    (void)state;
    enum { SNAPSHOTS = 24, ROUNDS = 12000, KEYS_HERE = HISTORY / 4 };
    struct fixture fixture;
    static struct remembered held[SNAPSHOTS];
    static unsigned versions[KEYS_HERE];
    static uint8_t bytes[300];
    struct random random;
    char key[KEY_BYTES];
    random_seed(&random, 320);
    memset(held, 0, sizeof held);
    memset(versions, 0, sizeof versions);
    open_engine(&fixture, 48 * 1024);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        unsigned i = (unsigned)random_below(&random, KEYS_HERE);
        if (random_chance(&random, 1, 12)) {
            assert_int_equal(engine_delete(fixture.engine, NULL, name("%08u", i, key), NULL), STATUS_OK);
            versions[i] = 0;
        } else {
            memcpy(bytes, &round, sizeof round);
            assert_int_equal(engine_put(fixture.engine, NULL, name("%08u", i, key),
                                        slice_of(bytes, 40 + (size_t)random_below(&random, 260)), NULL),
                             STATUS_OK);
            versions[i] = round;
        }
        if (random_chance(&random, 1, 25)) {
            struct remembered *slot = &held[random_below(&random, SNAPSHOTS)];
            if (slot->snapshot != NULL) {
                check_remembered(&fixture, slot, KEYS_HERE);
                engine_snapshot_release(fixture.engine, slot->snapshot);
            }
            slot->snapshot = engine_snapshot_new(fixture.engine);
            assert_non_null(slot->snapshot);
            memcpy(slot->versions, versions, sizeof versions);
        }
        if (round % (ROUNDS / 6) == 0) {
            assert_int_equal(engine_compact_range(fixture.engine, SLICE_EMPTY, SLICE_EMPTY, NULL), STATUS_OK);
        }
    }
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        if (held[i].snapshot != NULL) {
            check_remembered(&fixture, &held[i], KEYS_HERE);
            engine_snapshot_release(fixture.engine, held[i].snapshot);
        }
    }
    close_engine(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h33_engine_deleted_keys_stay_away_after_compact_range),
        cmocka_unit_test(test_h34_engine_iterator_turns_round_between_sources),
        cmocka_unit_test(test_h33_engine_snapshots_keep_their_versions_through_compactions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
