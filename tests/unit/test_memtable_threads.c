/*
 * One writer and several readers on one memtable, for ThreadSanitizer and for the eye: whatever revision was published,
 * its entry is found complete, and a walk meets every published entry in order.
 *
 * Would break these: a link that is stored before its node is complete, or without release; a reader that trusts a
 * height which it read too early.
 */
#include "storage/memtable.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ENTRIES = 30000, READERS = 3 };

struct shared {
    struct memtable *memtable;
    _Atomic uint64_t published;
    _Atomic unsigned mistakes;
};

/* The key of a revision: scattered, so that inserts land everywhere. */
static struct slice key_of(uint64_t revision, uint8_t out[8]) {
    uint64_t scattered = revision * 0x9e3779b97f4a7c15u;
    memcpy(out, &scattered, 8);
    return slice_of(out, 8);
}

static bool is_whole(const struct entry *entry) {
    uint8_t key[8];
    char value[32];
    (void)snprintf(value, sizeof value, "value %u", (unsigned)entry->key.revision);
    return slice_equal(entry->key.user, key_of(entry->key.revision, key)) &&
           slice_equal(entry->value, slice_of_string(value));
}

static void *read_always(void *context) {
    struct shared *shared = context;
    uint64_t turn = 0;
    uint64_t published;
    do {
        published = atomic_load_explicit(&shared->published, memory_order_acquire);
        if (published == 0) {
            continue;
        }
        uint8_t key[8];
        struct entry entry;
        uint64_t revision = 1 + turn++ * 7919 % published;
        bool found = memtable_get(shared->memtable, key_of(revision, key), published, &entry);
        shared->mistakes += !found || entry.key.revision != revision || !is_whole(&entry);
        /* A stretch of a walk. */
        struct entry_key target = entry_key_at(slice_of(key, 8), published);
        const struct memtable_node *node = memtable_seek(shared->memtable, &target);
        struct entry last = {.value = SLICE_EMPTY};
        for (int i = 0; i < 20 && node != NULL; i++, node = memtable_next(node)) {
            entry = memtable_entry(node);
            shared->mistakes += !is_whole(&entry) || (i > 0 && entry_key_compare(&last.key, &entry.key) >= 0);
            last = entry;
        }
    } while (published < ENTRIES);
    /* All is there: a whole walk meets everything. */
    struct entry_key start = entry_key_at(SLICE_EMPTY, UINT64_MAX);
    unsigned count = 0;
    for (const struct memtable_node *node = memtable_seek(shared->memtable, &start); node != NULL;
         node = memtable_next(node)) {
        count++;
    }
    shared->mistakes += count != ENTRIES;
    return NULL;
}

static void test_memtable_readers_beside_a_writer_see_whole_entries(void **state) {
    (void)state;
    static struct shared shared;
    pthread_t readers[READERS];
    shared.memtable = memtable_new(alloc_system(), 64 * 1024);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_always, &shared), 0);
    }
    for (uint64_t revision = 1; revision <= ENTRIES; revision++) {
        uint8_t key[8];
        uint8_t bytes[64];
        char value[32];
        (void)snprintf(value, sizeof value, "value %u", (unsigned)revision);
        struct batch_operation operation = {BATCH_PUT, key_of(revision, key), slice_of_string(value)};
        batch_encode(bytes, &operation, 1);
        assert_int_equal(memtable_apply(shared.memtable, revision, slice_of(bytes, batch_size(&operation, 1))),
                         STATUS_OK);
        atomic_store_explicit(&shared.published, revision, memory_order_release);
    }
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    }
    assert_int_equal(shared.mistakes, 0);
    memtable_free(shared.memtable);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memtable_readers_beside_a_writer_see_whole_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
