/*
 * One writer and several readers on one memtable, for ThreadSanitizer and for the eye: whatever revision was published,
 * its entry is found complete, a walk in either direction meets every published entry in order, and a walk in the order
 * of the log meets every published change.
 *
 * Would break these: a link that is stored before its node is complete, or without release; a reader that takes a child
 * without its separator; neighbours that a split leaves unlinked in one direction; range deletes that come late.
 */
#include "storage/memtable.h"

#include "storage/filter.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ENTRIES = 30000, READERS = 3, STEPS = 40, RANGE_DELETE_EVERY = 64 };

struct shared {
    struct memtable *memtable;
    _Atomic uint64_t published;
    _Atomic unsigned mistakes;
    bool ascending;
};

/* The key of a revision: scattered, so that inserts land everywhere; or in order, so that they land at the end. */
static struct slice key_of(const struct shared *shared, uint64_t revision, uint8_t out[8]) {
    uint64_t number = shared->ascending ? __builtin_bswap64(revision) : revision * 0x9e3779b97f4a7c15u;
    memcpy(out, &number, 8);
    return slice_of(out, 8);
}

static bool is_whole(const struct shared *shared, const struct entry *entry) {
    uint8_t key[8];
    char value[32];
    (void)snprintf(value, sizeof value, "value %u", (unsigned)entry->key.revision);
    return slice_equal(entry->key.user, key_of(shared, entry->key.revision, key)) &&
           slice_equal(entry->value, slice_of_string(value));
}

/* Sorted as the keys are: what stands at the rank among the revisions up to `published` isn't known here, but in the
 * ascending case neighbours are. */
static unsigned walk(const struct shared *shared, struct memtable_place place, uint64_t published, bool forward) {
    unsigned mistakes = 0;
    struct entry last = memtable_entry(&place);
    uint64_t seen = last.key.revision;
    for (int i = 0; i < STEPS && (forward ? memtable_next(&place) : memtable_prev(&place)); i++) {
        struct entry entry = memtable_entry(&place);
        int order = entry_key_compare(&last.key, &entry.key);
        mistakes += !is_whole(shared, &entry) || (forward ? order >= 0 : order <= 0);
        if (shared->ascending && entry.key.revision <= published) {
            mistakes += entry.key.revision != (forward ? seen + 1 : seen - 1);
            seen = entry.key.revision;
        }
        last = entry;
    }
    return mistakes;
}

/* From a revision on, in the order of the log: each revision, and its range delete behind it if it has one. */
static unsigned walk_changes(const struct shared *shared, uint64_t revision, uint64_t published) {
    struct memtable_changes changes;
    struct change change;
    unsigned mistakes = 0;
    memtable_changes_seek(shared->memtable, revision, &changes);
    for (int i = 0; i < STEPS && revision <= published; i++, revision++) {
        uint8_t key[8];
        bool found = memtable_changes_next(&changes, &change);
        mistakes += !found || change.revision != revision || change.ordinal != 0 || change.kind != BATCH_PUT ||
                    !slice_equal(change.key, key_of(shared, revision, key));
        if (revision % RANGE_DELETE_EVERY == 0) {
            found = memtable_changes_next(&changes, &change);
            mistakes += !found || change.revision != revision || change.kind != BATCH_DELETE_RANGE;
        }
    }
    return mistakes;
}

static void *read_always(void *context) {
    struct shared *shared = context;
    uint64_t turn = 0;
    uint64_t published;
    struct memtable_place place;
    do {
        published = atomic_load_explicit(&shared->published, memory_order_acquire);
        if (published == 0) {
            continue;
        }
        uint8_t bytes[8];
        struct entry entry;
        /* Now near the newest, now anywhere. */
        uint64_t back = turn % 2 == 0 ? turn % 16 % published : turn * 7919 % published;
        uint64_t revision = published - back;
        turn++;
        struct slice key = key_of(shared, revision, bytes);
        bool found = memtable_get(shared->memtable, key, filter_hash(key), published, &entry);
        shared->mistakes += !found || entry.key.revision != revision || !is_whole(shared, &entry);
        struct tombstone_mark mark = memtable_covering(shared->memtable, key, published);
        shared->mistakes += mark.revision != published / RANGE_DELETE_EVERY * RANGE_DELETE_EVERY;
        shared->mistakes += walk_changes(shared, revision, published);
        struct entry_key target = entry_key_at(key, published);
        if (!memtable_seek(shared->memtable, &target, &place)) {
            shared->mistakes++;
            continue;
        }
        shared->mistakes += walk(shared, place, published, true) + walk(shared, place, published, false);
        target.revision = 0; /* behind the key */
        shared->mistakes += !memtable_seek_before(shared->memtable, &target, &place);
        entry = memtable_entry(&place);
        shared->mistakes += entry.key.revision != revision && slice_compare(entry.key.user, key) <= 0;
    } while (published < ENTRIES);
    /* All is there: a whole walk meets everything. */
    unsigned count = 0;
    for (bool found = memtable_first(shared->memtable, &place); found; found = memtable_next(&place)) {
        count++;
    }
    for (bool found = memtable_last(shared->memtable, &place); found; found = memtable_prev(&place)) {
        count++;
    }
    shared->mistakes += count != 2 * ENTRIES;
    return NULL;
}

static void write_and_read(bool ascending) {
    static struct shared shared;
    pthread_t readers[READERS];
    atomic_store(&shared.published, 0);
    shared.ascending = ascending;
    shared.memtable = memtable_new(alloc_system(), 1024 * 1024);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_always, &shared), 0);
    }
    for (uint64_t revision = 1; revision <= ENTRIES; revision++) {
        static const uint8_t high[9] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
        uint8_t key[8];
        uint8_t bytes[96];
        char value[32];
        (void)snprintf(value, sizeof value, "value %u", (unsigned)revision);
        struct batch_operation operations[] = {
            {BATCH_PUT, key_of(&shared, revision, key), slice_of_string(value)},
            {BATCH_DELETE_RANGE, slice_of("", 1), slice_of(high, sizeof high)},
        };
        uint32_t count = revision % RANGE_DELETE_EVERY == 0 ? 2 : 1;
        batch_encode(bytes, operations, count);
        assert_int_equal(memtable_apply(shared.memtable, revision, slice_of(bytes, batch_size(operations, count))),
                         STATUS_OK);
        atomic_store_explicit(&shared.published, revision, memory_order_release);
    }
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    }
    assert_int_equal(shared.mistakes, 0);
    memtable_free(shared.memtable);
}

static void test_memtable_readers_beside_a_writer_see_whole_entries(void **state) {
    (void)state;
    write_and_read(false);
}

static void test_memtable_readers_beside_a_writer_at_the_end_miss_nothing(void **state) {
    (void)state;
    write_and_read(true);
}

/* Small trees, one after the other, in which nearly every insert is near a split that a reader may be in the middle of.
 */
enum { TREES = 400, TREE_ENTRIES = 200 };

struct forest {
    struct memtable *trees[TREES];
    _Atomic uint64_t published; /* tree * TREE_ENTRIES + revision */
    _Atomic unsigned mistakes;
};

static void *read_newest_tree(void *context) {
    static const struct shared scattered = {.ascending = false};
    struct forest *forest = context;
    uint64_t published;
    uint64_t turn = 0;
    while ((published = atomic_load_explicit(&forest->published, memory_order_acquire)) <
           (uint64_t)TREES * TREE_ENTRIES) {
        const struct memtable *tree = forest->trees[published / TREE_ENTRIES];
        uint64_t newest = published % TREE_ENTRIES;
        for (uint64_t i = 0; i < 4 && newest > 0; i++) {
            uint8_t bytes[8];
            struct entry entry;
            uint64_t revision = 1 + turn++ * 7919 % newest;
            struct slice key = key_of(&scattered, revision, bytes);
            forest->mistakes += !memtable_get(tree, key, filter_hash(key), newest, &entry);
        }
    }
    return NULL;
}

static void test_memtable_readers_in_the_middle_of_splits_find_all(void **state) {
    (void)state;
    static const struct shared scattered = {.ascending = false};
    static struct forest forest;
    pthread_t readers[READERS];
    for (int tree = 0; tree < TREES; tree++) {
        forest.trees[tree] = memtable_new(alloc_system(), 64 * 1024);
        assert_non_null(forest.trees[tree]);
    }
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_newest_tree, &forest), 0);
    }
    for (uint64_t at = 1; at <= (uint64_t)TREES * TREE_ENTRIES; at++) {
        uint64_t revision = at % TREE_ENTRIES;
        if (revision > 0) {
            uint8_t key[8];
            uint8_t bytes[64];
            struct batch_operation operation = {BATCH_DELETE, key_of(&scattered, revision, key), SLICE_EMPTY};
            batch_encode(bytes, &operation, 1);
            assert_int_equal(memtable_apply(forest.trees[at / TREE_ENTRIES], revision,
                                            slice_of(bytes, batch_size(&operation, 1))),
                             STATUS_OK);
        }
        atomic_store_explicit(&forest.published, at, memory_order_release);
    }
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    }
    assert_int_equal(forest.mistakes, 0);
    for (int tree = 0; tree < TREES; tree++) {
        memtable_free(forest.trees[tree]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memtable_readers_beside_a_writer_see_whole_entries),
        cmocka_unit_test(test_memtable_readers_beside_a_writer_at_the_end_miss_nothing),
        cmocka_unit_test(test_memtable_readers_in_the_middle_of_splits_find_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
