/*
 * What an iterator shows of its sources, and with how many moves: over hand-made sources, against a model that looks at
 * every version.
 *
 * What would break it: an older version or a deleted key shown, one left out, a turn that goes wrong (hazard 34, LevelDB
 * issue 200), a range delete beyond the iterator's revision that counts or one below it that doesn't, an answer that
 * depends on whether a source had to wait; moving entry by entry through old versions and deleted ranges (hazard 47).
 */
#include "storage/iterator_internal.h"
#include "tests/unit/array_cursor.h"
#include "tests/unit/support/support.h"

#include <stdio.h>

enum { SOURCES_MAX = 5, KEYS = 12, PER_SOURCE = 24, RANGES_MAX = 4 };

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
    static const char *const names[KEYS + 1] = {"a",  "aa", "ab", "b",  "c",  "ca", "cb",
                                                "cc", "d",  "e",  "ea", "f", "g"};
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
    for (size_t i = 0; i < source_count; i++) {
        uint64_t first = (source_count - i) * 100;
        size_t count = array_random(state) % PER_SOURCE;
        for (size_t k = 0; k < count; k++) {
            const char *key = key_name(array_random(state) % KEYS);
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
            world->sources[i] = (struct iterator_source){.sets = (const struct tombstones *const *)&world->sets[i],
                                                         .set_count = 1};
        } else {
            world->tables[i].meta = (struct sst_meta){.smallest = slice_of_string("a"),
                                                      .largest = slice_of_string(key_name(KEYS)),
                                                      .tombstones = ranges};
            world->table_pointers[i] = &world->tables[i];
            world->sources[i] = (struct iterator_source){.tables = &world->table_pointers[i], .table_count = 1};
        }
        world->cursors[i] = array_cursor_new(world->entries[i], count, pending_percent, seed * 31 + i);
        world->heap[i].cursor = &world->cursors[i]->base;
    }
}

static void walk_open(struct world *world, uint64_t revision, struct slice lower, struct slice upper) {
    world->walk = (struct iterator_walk){.sources = world->sources,
                                         .source_count = world->source_count,
                                         .has_ranges = true,
                                         .revision = revision,
                                         .lower = lower,
                                         .upper = upper};
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
    bool shows = best != NULL && best->kind == BATCH_PUT &&
                 !tombstone_mark_covers(mark, best->key.revision, best->key.ordinal);
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
    run_seeds(1, 1500, false);
}

static void test_iterator_pending_sources_change_no_answer(void **state) {
    (void)state;
    run_seeds(1, 1500, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h34_iterator_any_order_of_calls_shows_what_the_model_shows),
        cmocka_unit_test(test_iterator_pending_sources_change_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
