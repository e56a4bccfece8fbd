/*
 * The merging cursor: several cursors as one, in both directions, with sources that make it wait.
 *
 * What would break it: a heap that isn't restored, a turn that leaves a source on the wrong side (hazard 34), a source
 * that is asked again although it had answered, or not asked although it could have been while another one waits, an
 * error of one source that is passed over. The answers must be those of a sorted array, whatever is pending.
 */
#include "tests/unit/array_cursor.h"
#include "tests/unit/support/support.h"

#include <stdio.h>

enum { SOURCES_MAX = 9, ENTRIES_MAX = 60 };

struct world {
    struct entry all[ENTRIES_MAX];
    struct entry parts[SOURCES_MAX][ENTRIES_MAX];
    size_t part_counts[SOURCES_MAX];
    struct array_cursor *sources[SOURCES_MAX];
    char keys[ENTRIES_MAX][8];
    size_t count;
    struct cursor *cursor;
};

static int compare_entries(const void *a, const void *b) {
    return entry_key_compare(&((const struct entry *)a)->key, &((const struct entry *)b)->key);
}

/* Entries with few different keys, dealt out to the sources. */
static void build(struct world *world, size_t source_count, size_t count, unsigned pending_percent, uint64_t seed) {
    memset(world, 0, sizeof *world);
    world->count = count;
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(world->keys[i], sizeof world->keys[i], "k%02u", (unsigned)(array_random(&seed) % 20));
        world->all[i] = (struct entry){.key = {slice_of_string(world->keys[i]), 1 + i, 0}, .kind = BATCH_PUT};
    }
    qsort(world->all, count, sizeof world->all[0], compare_entries);
    for (size_t i = 0; i < count; i++) {
        size_t source = array_random(&seed) % source_count;
        world->parts[source][world->part_counts[source]++] = world->all[i];
    }
    struct cursor *cursors[SOURCES_MAX];
    for (size_t i = 0; i < source_count; i++) {
        world->sources[i] = array_cursor_new(world->parts[i], world->part_counts[i], pending_percent, seed + i);
        cursors[i] = &world->sources[i]->base;
    }
    world->cursor = merging_cursor_new(alloc_system(), cursors, source_count);
    assert_non_null(world->cursor);
}

/* A call, repeated while it is pending. */
static enum status call(struct cursor *cursor, enum array_call what, const struct entry_key *target) {
    enum status status = STATUS_PENDING;
    for (unsigned i = 0; status == STATUS_PENDING; i++) {
        assert_true(i < 1000);
        switch (what) {
        case ARRAY_SEEK: status = cursor_seek(cursor, target, NULL); break;
        case ARRAY_SEEK_BEFORE: status = cursor_seek_before(cursor, target, NULL); break;
        case ARRAY_FIRST: status = cursor_first(cursor, NULL); break;
        case ARRAY_LAST: status = cursor_last(cursor, NULL); break;
        case ARRAY_NEXT: status = cursor_next(cursor, NULL); break;
        case ARRAY_PREV: status = cursor_prev(cursor, NULL); break;
        case ARRAY_NONE: break;
        }
    }
    return status;
}

/* Random calls against the sorted array. */
static void walk(struct world *world, uint64_t seed, unsigned steps) {
    size_t at = SIZE_MAX; /* nowhere */
    for (unsigned step = 0; step < steps; step++) {
        char key[8];
        (void)snprintf(key, sizeof key, "k%02u", (unsigned)(array_random(&seed) % 21));
        struct entry_key target = {slice_of_string(key), array_random(&seed) % (world->count + 2), 0};
        size_t found = 0;
        while (found < world->count && entry_key_compare(&world->all[found].key, &target) < 0) {
            found++;
        }
        enum array_call what = (enum array_call)(ARRAY_SEEK + array_random(&seed) % (at == SIZE_MAX ? 4 : 12));
        if (what > ARRAY_PREV) {
            what = what % 2 != 0 ? ARRAY_NEXT : ARRAY_PREV;
        }
        switch (what) {
        case ARRAY_SEEK: at = found; break;
        case ARRAY_SEEK_BEFORE: at = found - 1; break;
        case ARRAY_FIRST: at = 0; break;
        case ARRAY_LAST: at = world->count - 1; break;
        case ARRAY_NEXT: at++; break;
        case ARRAY_PREV: at--; break;
        case ARRAY_NONE: break;
        }
        enum status status = call(world->cursor, what, &target);
        if (at >= world->count) {
            assert_int_equal(status, STATUS_NOT_FOUND);
            at = SIZE_MAX;
            continue;
        }
        assert_int_equal(status, STATUS_OK);
        assert_int_equal(entry_key_compare(&world->cursor->entry.key, &world->all[at].key), 0);
    }
}

static void test_h34_merging_any_order_of_calls_gives_what_an_array_gives(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct world world;
        build(&world, 1 + seed % SOURCES_MAX, seed % ENTRIES_MAX, 0, seed);
        walk(&world, seed, 200);
        cursor_free(world.cursor);
    }
}

static void test_merging_pending_sources_change_no_answer(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct world world;
        build(&world, 1 + seed % SOURCES_MAX, seed % ENTRIES_MAX, 10 + (unsigned)(seed % 60), seed);
        walk(&world, seed, 200);
        cursor_free(world.cursor);
    }
}

/* All sources are asked before the caller has to wait, and those that answered aren't asked again. */
static void test_merging_seek_pending_asks_each_source_once(void **state) {
    (void)state;
    struct world world;
    build(&world, 4, 40, 100, 7);
    uint64_t calls[4] = {0};
    for (size_t i = 0; i < 4; i++) {
        world.sources[i]->calls = &calls[i];
        world.sources[i]->pending_percent = i % 2 == 0 ? 100 : 0;
    }
    struct entry_key target = entry_key_at(slice_of_string("k05"), 1000);
    assert_int_equal(cursor_seek(world.cursor, &target, NULL), STATUS_PENDING);
    assert_int_equal(cursor_seek(world.cursor, &target, NULL), STATUS_PENDING);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(calls[i], i % 2 == 0 ? 2 : 1);
        world.sources[i]->pending_percent = 0;
    }
    assert_int_equal(cursor_seek(world.cursor, &target, NULL), STATUS_OK);
    cursor_free(world.cursor);
}

static void test_merging_error_of_one_source_is_final_until_a_seek(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct world world;
        build(&world, 3, 40, seed % 2 == 0 ? 0 : 40, seed);
        size_t source = seed % 3;
        if (world.part_counts[source] == 0) {
            cursor_free(world.cursor);
            continue;
        }
        world.sources[source]->bad_at = world.part_counts[source] / 2;
        enum status status = call(world.cursor, ARRAY_FIRST, NULL);
        while (status == STATUS_OK) {
            status = call(world.cursor, ARRAY_NEXT, NULL);
        }
        assert_int_equal(status, STATUS_CORRUPT);
        status = call(world.cursor, ARRAY_LAST, NULL);
        while (status == STATUS_OK) {
            status = call(world.cursor, ARRAY_PREV, NULL);
        }
        assert_int_equal(status, STATUS_CORRUPT);
        world.sources[source]->bad_at = SIZE_MAX;
        walk(&world, seed, 50);
        cursor_free(world.cursor);
    }
}

static void test_merging_nothing_to_merge_finds_nothing(void **state) {
    (void)state;
    struct cursor *cursor = merging_cursor_new(alloc_system(), NULL, 0);
    struct entry_key target = entry_key_at(slice_of_string("a"), 1);
    assert_int_equal(cursor_first(cursor, NULL), STATUS_NOT_FOUND);
    assert_int_equal(cursor_last(cursor, NULL), STATUS_NOT_FOUND);
    assert_int_equal(cursor_seek(cursor, &target, NULL), STATUS_NOT_FOUND);
    assert_int_equal(cursor_seek_before(cursor, &target, NULL), STATUS_NOT_FOUND);
    cursor_free(cursor);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h34_merging_any_order_of_calls_gives_what_an_array_gives),
        cmocka_unit_test(test_merging_pending_sources_change_no_answer),
        cmocka_unit_test(test_merging_seek_pending_asks_each_source_once),
        cmocka_unit_test(test_merging_error_of_one_source_is_final_until_a_seek),
        cmocka_unit_test(test_merging_nothing_to_merge_finds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
