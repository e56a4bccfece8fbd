/*
 * The directory under one writer and several readers, for ThreadSanitizer and for the eye: an entry that is found is
 * one that was set, whole. Would break it: a word that is stored before the version says so, or a reader that doesn't
 * look at the version again.
 */
#include "node/server/directory.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { CHANGES = 20000, READERS = 3 };

struct shared {
    struct directory directory;
    _Atomic bool ended;
    _Atomic unsigned mistakes;
    _Atomic unsigned found;
};

/* All of an entry follows from its number, which is in its name; the id is always one of two. */
static void fill(struct directory_entry *entry, uint64_t id, unsigned number) {
    memset(entry, 0, sizeof *entry);
    entry->id = id;
    memset(entry->thumbprint, (int)(number % 255) + 1, sizeof entry->thumbprint);
    (void)snprintf(entry->name, sizeof entry->name, "%u", number);
    (void)snprintf(entry->peer_address, sizeof entry->peer_address, "%0*u", (int)(number % 100) + 1, number);
    (void)snprintf(entry->client_address, sizeof entry->client_address, "%0*u", (int)(number % 77) + 1, number);
}

static void *read_entries(void *context) {
    struct shared *shared = context;
    unsigned mistakes = 0;
    unsigned count = 0;
    while (!atomic_load(&shared->ended)) {
        struct directory_entry entry;
        struct directory_entry wanted;
        uint64_t id = 1 + count % 2;
        if (directory_find(&shared->directory, id, &entry)) {
            unsigned number = 0;
            mistakes += sscanf(entry.name, "%u", &number) != 1;
            fill(&wanted, id, number);
            mistakes += memcmp(&entry, &wanted, sizeof entry) != 0;
            mistakes += !directory_find_thumbprint(&shared->directory, wanted.thumbprint, &entry) &&
                        number + 1 == CHANGES; /* the last one stays */
        }
        count++;
    }
    atomic_fetch_add(&shared->mistakes, mistakes);
    atomic_fetch_add(&shared->found, count);
    return NULL;
}

static void test_directory_readers_see_whole_entries(void **state) {
    (void)state;
    static struct shared shared;
    pthread_t readers[READERS];
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_entries, &shared), 0);
    }
    for (unsigned number = 0; number < CHANGES; number++) {
        struct directory_entries entries = {.count = 2};
        fill(&entries.entries[number % 2], 1, number);
        fill(&entries.entries[(number + 1) % 2], 2, number);
        directory_set(&shared.directory, &entries);
    }
    atomic_store(&shared.ended, true);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    }
    assert_int_equal(atomic_load(&shared.mistakes), 0);
    assert_true(atomic_load(&shared.found) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_directory_readers_see_whole_entries)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
