/*
 * What an iterator shows of its sources, and with how many moves: over hand-made sources, against a model that looks at
 * every version.
 *
 * What would break it: an older version or a deleted key shown, one left out, a turn that goes wrong (hazard 34,
 * LevelDB issue 200), a range delete beyond the iterator's revision that counts or one below it that doesn't, an answer
 * that depends on whether a source had to wait; moving entry by entry through old versions and deleted ranges (hazard
 * 47).
 */
#include "storage/iterator_internal.h"
#include "tests/unit/array_cursor.h"
#include "tests/unit/support/support.h"

#include <stdio.h>

enum { SOURCES_MAX = 5, KEYS = 12, PER_SOURCE = 60, RANGES_MAX = 4 };

struct world {
    struct entry entries[SOURCES_MAX][PER_SOURCE];
    size_t counts[SOURCES_MAX];
    struct tombstone ranges[SOURCES_MAX][RANGES_MAX];
    size_t range_counts[SOURCES_MAX];
    struct tombstones *sets[SOURCES_MAX];
    struct sst tables[SOURCES_MAX];
    struct sst *table_pointers[SOURCES_MAX];
    struct iterator_source sources[SOURCES_MAX];
    struct array_cursor *cursors[SOURCES_MAX];
    struct merging_source heap[SOURCES_MAX];
    size_t source_count;
    unsigned pending_percent;
    uint64_t random_state;
    struct iterator_walk walk;
    uint8_t key_bytes[LIMIT_KEY_BYTES];
};

static struct world *the_world; /* of sst_tombstones */

/* The table's range deletes, sometimes not there yet. */
enum status sst_tombstones(struct sst *sst, struct fetch *fetch, const struct tombstones **ret_set, struct error *err) {
    (void)fetch;
    (void)err;
    if (array_random(&the_world->random_state) % 100 < the_world->pending_percent) {
        return STATUS_PENDING;
    }
    *ret_set = the_world->sets[sst - the_world->tables];
    return STATUS_OK;
}

static const char *key_name(size_t key) {
    static const char *const names[KEYS + 1] = {"a", "aa", "ab", "b", "c", "ca", "cb", "cc", "d", "e", "ea", "f", "g"};
    return names[key];
}

static int compare_entries(const void *a, const void *b) {
    return entry_key_compare(&((const struct entry *)a)->key, &((const struct entry *)b)->key);
}

/* Sources from the newest to the oldest; each has its share of the revisions. */
static void world_open(struct world *world, uint64_t seed, size_t source_count, unsigned pending_percent) {
    memset(world, 0, sizeof *world);
    the_world = world;
    world->random_state = seed;
    world->source_count = source_count;
    world->pending_percent = pending_percent;
    uint64_t *state = &world->random_state;
    size_t keys = 1 + array_random(state) % KEYS; /* few keys have many versions */
    for (size_t i = 0; i < source_count; i++) {
        uint64_t first = (source_count - i) * 100;
        size_t count = array_random(state) % PER_SOURCE;
        for (size_t k = 0; k < count; k++) {
            const char *key = key_name(array_random(state) % keys);
            bool is_delete = array_random(state) % 4 == 0;
            world->entries[i][k] =
                (struct entry){.key = {slice_of_string(key), first + k / 2 * 2, (uint32_t)(k % 2) * 2},
                               .kind = is_delete ? BATCH_DELETE : BATCH_PUT,
                               .value = is_delete ? SLICE_EMPTY : slice_of_string(key)};
        }
        qsort(world->entries[i], count, sizeof world->entries[i][0], compare_entries);
        world->counts[i] = count;
        size_t ranges = array_random(state) % (RANGES_MAX + 1);
        for (size_t k = 0; k < ranges; k++) {
            size_t start = array_random(state) % KEYS;
            size_t end = start + 1 + array_random(state) % (KEYS - start);
            world->ranges[i][k] = (struct tombstone){slice_of_string(key_name(start)), slice_of_string(key_name(end)),
                                                     first + array_random(state) % PER_SOURCE / 2 * 2, 1};
        }
        world->range_counts[i] = ranges;
        assert_int_equal(tombstones_build(alloc_system(), world->ranges[i], ranges, &world->sets[i]), STATUS_OK);
        if (i % 2 == 0) {
            world->sources[i] =
                (struct iterator_source){.sets = (const struct tombstones *const *)&world->sets[i], .set_count = 1};
        } else {
            world->tables[i].meta = (struct sst_meta){.smallest = slice_of_string("a"),
                                                      .largest = slice_of_string(key_name(KEYS)),
                                                      .tombstones = ranges};
            world->table_pointers[i] = &world->tables[i];
            world->sources[i] = (struct iterator_source){.tables = &world->table_pointers[i], .table_count = 1};
        }
        world->cursors[i] = array_cursor_new(world->entries[i], count, pending_percent, seed * 31 + i);
        world->heap[i].cursor = &world->cursors[i]->base;
        world->sources[i].cursor = &world->cursors[i]->base;
    }
}

static void walk_open(struct world *world, uint64_t revision, struct slice lower, struct slice upper) {
    world->walk = (struct iterator_walk){.sources = world->sources,
                                         .source_count = world->source_count,
                                         .has_ranges = true,
                                         .revision = revision,
                                         .lower = lower,
                                         .upper = upper,
                                         .moves_max = world->pending_percent > 0 ? 2 : 0,
                                         .key_bytes = world->key_bytes};
    for (size_t i = 0; i < world->source_count; i++) {
        world->heap[i].cursor = &world->cursors[i]->base;
    }
    buf_init(&world->walk.value, alloc_system(), 0);
    merging_init(&world->walk.merging, world->heap, world->source_count);
}

static void world_close(struct world *world) {
    for (size_t i = 0; i < world->source_count; i++) {
        tombstones_free(world->sets[i]);
        cursor_free(&world->cursors[i]->base);
    }
}

/* The model: the newest version at or below the revision of the key, if it shows. */
static const struct entry *model_get(const struct world *world, const char *key, uint64_t revision) {
    const struct entry *best = NULL;
    struct tombstone_mark mark = TOMBSTONE_MARK_NONE;
    struct slice user = slice_of_string(key);
    for (size_t i = 0; i < world->source_count; i++) {
        for (size_t k = 0; k < world->counts[i]; k++) {
            const struct entry *entry = &world->entries[i][k];
            if (slice_equal(entry->key.user, user) && entry->key.revision <= revision &&
                (best == NULL || entry_key_compare(&entry->key, &best->key) < 0)) {
                best = entry;
            }
        }
        for (size_t k = 0; k < world->range_counts[i]; k++) {
            const struct tombstone *range = &world->ranges[i][k];
            if (range->revision <= revision && slice_compare(range->start, user) <= 0 &&
                slice_compare(user, range->end) < 0) {
                mark = tombstone_mark_newer(mark, (struct tombstone_mark){range->revision, range->ordinal});
            }
        }
    }
    bool shows =
        best != NULL && best->kind == BATCH_PUT && !tombstone_mark_covers(mark, best->key.revision, best->key.ordinal);
    return shows ? best : NULL;
}

static bool in_bounds(const struct iterator_walk *walk, const char *key) {
    struct slice user = slice_of_string(key);
    return slice_compare(user, walk->lower) >= 0 && (walk->upper.len == 0 || slice_compare(user, walk->upper) < 0);
}

/* The key that shows at or behind (in front of) this number; -1: none. */
static int model_find(const struct world *world, int key, int step) {
    for (; key >= 0 && key < KEYS; key += step) {
        if (in_bounds(&world->walk, key_name((size_t)key)) &&
            model_get(world, key_name((size_t)key), world->walk.revision) != NULL) {
            return key;
        }
    }
    return -1;
}

static enum status repeat(struct iterator_walk *walk, enum iterator_call call, struct slice key) {
    enum status status = STATUS_PENDING;
    for (unsigned i = 0; status == STATUS_PENDING; i++) {
        assert_true(i < 10000);
        status = iterator_walk__call(walk, call, key, NULL);
    }
    return status;
}

static void check_shown(const struct world *world, enum status status, int key) {
    if (key < 0) {
        assert_int_equal(status, STATUS_NOT_FOUND);
        return;
    }
    assert_int_equal(status, STATUS_OK);
    const struct entry *want = model_get(world, key_name((size_t)key), world->walk.revision);
    const struct entry *shown = &world->walk.shown;
    assert_true(slice_equal(shown->key.user, want->key.user));
    assert_int_equal(shown->key.revision, want->key.revision);
    assert_int_equal(shown->key.ordinal, want->key.ordinal);
    assert_true(slice_equal(shown->value, want->value));
}

/* Random calls against the model. */
static void walk_randomly(struct world *world, unsigned steps) {
    uint64_t *state = &world->random_state;
    int at = -1;
    for (unsigned step = 0; step < steps; step++) {
        int key = (int)(array_random(state) % KEYS);
        struct slice name = slice_of_string(key_name((size_t)key));
        enum iterator_call call = (enum iterator_call)(array_random(state) % (at < 0 ? 4 : 12));
        if (call > ITERATOR_PREV) {
            call = call % 2 != 0 ? ITERATOR_NEXT : ITERATOR_PREV;
        }
        switch (call) {
        case ITERATOR_FIRST: at = model_find(world, 0, 1); break;
        case ITERATOR_LAST: at = model_find(world, KEYS - 1, -1); break;
        case ITERATOR_SEEK: at = model_find(world, key, 1); break;
        case ITERATOR_SEEK_FOR_PREV: at = model_find(world, key, -1); break;
        case ITERATOR_NEXT: at = model_find(world, at + 1, 1); break;
        case ITERATOR_PREV: at = model_find(world, at - 1, -1); break;
        }
        check_shown(world, repeat(&world->walk, call, name), at);
    }
}

static void run_seeds(uint64_t first, uint64_t last, bool pending) {
    static struct world world;
    for (uint64_t seed = first; seed <= last; seed++) {
        world_open(&world, seed, 1 + seed % SOURCES_MAX, pending ? 5 + (unsigned)(seed % 50) : 0);
        for (unsigned round = 0; round < 4; round++) {
            uint64_t *state = &world.random_state;
            uint64_t revision = array_random(state) % ((world.source_count + 1) * 100 + 30);
            size_t low = array_random(state) % KEYS;
            size_t high = low + array_random(state) % (KEYS - low);
            bool bounded = array_random(state) % 2 == 0;
            walk_open(&world, revision, bounded ? slice_of_string(key_name(low)) : SLICE_EMPTY,
                      bounded && high > low ? slice_of_string(key_name(high)) : SLICE_EMPTY);
            walk_randomly(&world, 60);
            buf_deinit(&world.walk.value);
        }
        world_close(&world);
    }
}

static void test_h34_iterator_any_order_of_calls_shows_what_the_model_shows(void **state) {
    (void)state;
    run_seeds(1, 600, false);
}

static void test_iterator_pending_sources_change_no_answer(void **state) {
    (void)state;
    run_seeds(1, 600, true);
}

/* ---- Effort: counted in moves, as time tells nothing --------------------------------------------------------- */

enum { MANY = 5000 };

struct many {
    struct entry old[MANY];
    struct entry new[MANY];
    struct tombstone ranges[MANY];
    char names[MANY][16];
    struct tombstones *set;
    const struct tombstones *sets[1];
    struct iterator_source sources[2];
    struct array_cursor *cursors[2];
    struct merging_source heap[2];
    uint8_t key_bytes[LIMIT_KEY_BYTES];
    struct iterator_walk walk;
};

/* A source with MANY keys, and a newer one with these entries and range deletes. */
static struct many *many_open(size_t new_count, size_t range_count, uint64_t revision) {
    static struct many many;
    struct many *world = &many;
    for (size_t i = 0; i < MANY; i++) {
        (void)snprintf(world->names[i], sizeof world->names[i], "key%06zu", i);
        world->old[i] = (struct entry){.key = {slice_of_string(world->names[i]), 10, 0}, .kind = BATCH_PUT};
    }
    assert_int_equal(tombstones_build(alloc_system(), world->ranges, range_count, &world->set), STATUS_OK);
    world->sets[0] = world->set;
    world->sources[0] = (struct iterator_source){.sets = world->sets, .set_count = 1};
    world->sources[1] = (struct iterator_source){.set_count = 0};
    world->cursors[0] = array_cursor_new(world->new, new_count, 0, 1);
    world->cursors[1] = array_cursor_new(world->old, MANY, 0, 1);
    for (size_t i = 0; i < 2; i++) {
        world->heap[i].cursor = &world->cursors[i]->base;
        world->sources[i].cursor = &world->cursors[i]->base;
    }
    world->walk = (struct iterator_walk){.sources = world->sources,
                                         .source_count = 2,
                                         .has_ranges = range_count > 0,
                                         .revision = revision,
                                         .key_bytes = world->key_bytes};
    buf_init(&world->walk.value, alloc_system(), 0);
    merging_init(&world->walk.merging, world->heap, 2);
    return world;
}

static void many_close(struct many *world) {
    buf_deinit(&world->walk.value);
    tombstones_free(world->set);
    cursor_free(&world->cursors[0]->base);
    cursor_free(&world->cursors[1]->base);
}

static uint64_t walk_through(struct iterator_walk *walk, bool forward, uint64_t *ret_moves) {
    uint64_t shown = 0;
    uint64_t before = walk->moves;
    enum status status = repeat(walk, forward ? ITERATOR_FIRST : ITERATOR_LAST, SLICE_EMPTY);
    for (; status == STATUS_OK; shown++) {
        status = repeat(walk, forward ? ITERATOR_NEXT : ITERATOR_PREV, SLICE_EMPTY);
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    *ret_moves = walk->moves - before;
    return shown;
}

/* One range delete over nearly all keys of an older source. */
static void test_h47_iterator_passes_a_deleted_range_by_seeking(void **state) {
    (void)state;
    for (unsigned forward = 0; forward < 2; forward++) {
        static struct many *world;
        world = many_open(0, 0, 30);
        many_close(world);
        world->ranges[0] = (struct tombstone){slice_of_string("key000001"), slice_of_string("key004999"), 20, 0};
        world = many_open(0, 1, 30);
        uint64_t moves;
        assert_int_equal(walk_through(&world->walk, forward == 1, &moves), 2);
        assert_true(moves < 3 * ITERATOR_STEPS_MAX);
        many_close(world);
    }
}

/* As many range deletes as keys, each touching the next. */
static void test_h47_iterator_passes_many_touching_ranges_by_seeking(void **state) {
    (void)state;
    for (unsigned forward = 0; forward < 2; forward++) {
        struct many *world = many_open(0, 0, 30);
        many_close(world);
        for (size_t i = 0; i + 2 < MANY; i++) {
            world->ranges[i] = (struct tombstone){slice_of_string(world->names[i + 1]),
                                                  slice_of_string(world->names[i + 2]), 20 + i % 3, 0};
        }
        world = many_open(0, MANY - 2, 30);
        uint64_t moves;
        assert_int_equal(walk_through(&world->walk, forward == 1, &moves), 2);
        assert_true(moves < 3 * ITERATOR_STEPS_MAX);
        many_close(world);
    }
}

/* Thousands of versions of one key: newer ones than the revision, and older ones than what shows. */
static void test_h47_iterator_passes_versions_by_seeking(void **state) {
    (void)state;
    for (unsigned forward = 0; forward < 2; forward++) {
        struct many *world = many_open(0, 0, 30);
        many_close(world);
        for (size_t i = 0; i < MANY; i++) {
            world->new[i] = (struct entry){.key = {slice_of_string("key000007"), 100 + MANY - i, 0}, .kind = BATCH_PUT};
        }
        world = many_open(MANY, 0, 100 + MANY / 2);
        enum iterator_call seek = forward == 1 ? ITERATOR_SEEK : ITERATOR_SEEK_FOR_PREV;
        assert_int_equal(repeat(&world->walk, seek, slice_of_string("key000007")), STATUS_OK);
        assert_int_equal(world->walk.shown.key.revision, 100 + MANY / 2);
        enum iterator_call on = forward == 1 ? ITERATOR_NEXT : ITERATOR_PREV;
        assert_int_equal(repeat(&world->walk, on, SLICE_EMPTY), STATUS_OK);
        assert_true(slice_equal(world->walk.shown.key.user, slice_of_string(forward == 1 ? "key000008" : "key000006")));
        assert_true(world->walk.moves < 6 * ITERATOR_STEPS_MAX);
        many_close(world);
    }
}

/* A range delete newer than the iterator's revision hides nothing, however it is walked. */
static void test_h34_iterator_at_a_revision_sees_no_later_range_delete(void **state) {
    (void)state;
    struct many *world = many_open(0, 0, 30);
    many_close(world);
    world->ranges[0] = (struct tombstone){slice_of_string("a"), slice_of_string("z"), 20, 0};
    world = many_open(0, 1, 19);
    uint64_t moves;
    assert_int_equal(walk_through(&world->walk, true, &moves), MANY);
    assert_int_equal(walk_through(&world->walk, false, &moves), MANY);
    many_close(world);
}

/* A seek to a key that is there: only the newest source that has it moves, until the walk goes on. */
static void test_iterator_seek_to_a_key_that_is_there_moves_one_source(void **state) {
    (void)state;
    struct many *world = many_open(0, 0, 30);
    many_close(world);
    world->new[0] = (struct entry){.key = {slice_of_string("key000007"), 20, 0}, .kind = BATCH_PUT};
    world->new[1] = (struct entry){.key = {slice_of_string("key000009"), 20, 0}, .kind = BATCH_DELETE};
    world = many_open(2, 0, 30);
    uint64_t calls = 0;
    world->cursors[1]->calls = &calls;
    assert_int_equal(repeat(&world->walk, ITERATOR_SEEK, slice_of_string("key000007")), STATUS_OK);
    assert_int_equal(world->walk.shown.key.revision, 20);
    assert_int_equal(calls, 0);
    assert_int_equal(repeat(&world->walk, ITERATOR_NEXT, SLICE_EMPTY), STATUS_OK);
    assert_true(slice_equal(world->walk.shown.key.user, slice_of_string("key000008")));
    assert_true(calls > 0);
    assert_int_equal(repeat(&world->walk, ITERATOR_SEEK, slice_of_string("key000009")), STATUS_OK);
    assert_true(slice_equal(world->walk.shown.key.user, slice_of_string("key000010")));
    assert_int_equal(repeat(&world->walk, ITERATOR_SEEK, slice_of_string("key000007")), STATUS_OK);
    assert_int_equal(repeat(&world->walk, ITERATOR_PREV, SLICE_EMPTY), STATUS_OK);
    assert_true(slice_equal(world->walk.shown.key.user, slice_of_string("key000006")));
    many_close(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h34_iterator_any_order_of_calls_shows_what_the_model_shows),
        cmocka_unit_test(test_iterator_pending_sources_change_no_answer),
        cmocka_unit_test(test_h47_iterator_passes_a_deleted_range_by_seeking),
        cmocka_unit_test(test_h47_iterator_passes_many_touching_ranges_by_seeking),
        cmocka_unit_test(test_h47_iterator_passes_versions_by_seeking),
        cmocka_unit_test(test_h34_iterator_at_a_revision_sees_no_later_range_delete),
        cmocka_unit_test(test_iterator_seek_to_a_key_that_is_there_moves_one_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
