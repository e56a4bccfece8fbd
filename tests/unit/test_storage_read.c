/*
 * Lookups and iterators over a whole view: memtables, level 0, levels, with range deletes in all of them.
 *
 * What would break: an older source asked before a newer one, a range delete of one source that doesn't reach the older
 * ones or reaches a newer version, an answer that depends on whether blocks had to be waited for (with a cache that
 * keeps nothing, too), a multi-get that reads its blocks one after the other, a direction switch (hazard 34), a read
 * below the horizon, a get that allocates.
 */
#include "tests/unit/read_fixture.h"

#include "storage/iterator_internal.h"

static void assert_value(const struct operation *want, enum status status, struct storage_value *value) {
    if (want == NULL) {
        assert_int_equal(status, STATUS_NOT_FOUND);
        return;
    }
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(value->revision, want->revision);
    assert_true(slice_equal(value->bytes, slice_of(want->value, want->value_len)));
    storage_value_release(value);
}

static uint64_t random_revision(struct reads *reads) {
    return random_chance(&reads->random, 1, 3) ? reads->revision : random_below(&reads->random, reads->revision + 1);
}

static void test_storage_get_any_key_at_any_revision_matches_the_history(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct reads *reads = reads_open(seed, seed % 2 == 0 ? 0 : 1 << 20);
        for (unsigned i = 0; i < 4000; i++) {
            uint32_t key = (uint32_t)random_below(&reads->random, HISTORY_KEYS);
            uint64_t revision = random_revision(reads);
            const struct operation *want = reads_model(reads, key, revision);
            struct storage_value value;
            enum status status = storage_get(&reads->view, NULL, reads_name(reads, key), revision, &value, NULL);
            assert_value(want, status, &value);
            struct slice bytes;
            uint64_t got;
            enum storage_lookup lookup =
                storage_get_memory(&reads->view, reads_name(reads, key), revision, &bytes, &got);
            assert_true(lookup == STORAGE_NEEDS_DISK || (lookup == STORAGE_FOUND) == (want != NULL));
            assert_true(lookup != STORAGE_FOUND || got == want->revision);
        }
        reads_close(reads);
    }
}

static void test_storage_get_waiting_for_blocks_changes_no_answer(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct reads *reads = reads_open(seed, seed % 2 == 0 ? 0 : 1 << 16);
        for (unsigned i = 0; i < 1500; i++) {
            uint32_t key = (uint32_t)random_below(&reads->random, HISTORY_KEYS);
            uint64_t revision = random_revision(reads);
            struct storage_value value;
            enum status status;
            while ((status = storage_get(&reads->view, &reads->io, reads_name(reads, key), revision, &value, NULL)) ==
                   STATUS_PENDING) {
                reads_wait(reads);
            }
            assert_value(reads_model(reads, key, revision), status, &value);
        }
        assert_true(reads->rounds > 0);
        reads_close(reads);
    }
}

/* All keys at once: hardly more rounds than one key takes. */
static void test_storage_multi_get_reads_blocks_side_by_side(void **state) {
    (void)state;
    struct reads *reads = reads_open(3, 0);
    struct slice keys[HISTORY_KEYS];
    struct storage_value values[HISTORY_KEYS];
    enum status statuses[HISTORY_KEYS];
    for (unsigned i = 0; i < 20; i++) {
        uint64_t revision = random_revision(reads);
        for (uint32_t key = 0; key < HISTORY_KEYS; key++) {
            keys[key] = reads_name(reads, key);
            statuses[key] = STATUS_PENDING;
        }
        struct storage_io *io = i % 4 == 3 ? NULL : &reads->io;
        uint64_t rounds = reads->rounds;
        while (storage_multi_get(&reads->view, io, revision, HISTORY_KEYS, keys, values, statuses, NULL) ==
               STATUS_PENDING) {
            reads_wait(reads);
        }
        assert_true(reads->rounds - rounds <= 3 * (LEVEL0_MAX + 2)); /* top, partition, block of each source */
        for (uint32_t key = 0; key < HISTORY_KEYS; key++) {
            assert_value(reads_model(reads, key, revision), statuses[key], &values[key]);
        }
    }
    reads_close(reads);
}

static void on_hung_ready(struct storage_io *io) { (void)io; }

/* The disk is silent about one block. Other reads of the same thread go on, from the disk, too. */
static void test_storage_hung_block_delays_no_other_read(void **state) {
    (void)state;
    struct reads *reads = reads_open(6, 0);
    struct storage_io hung;
    storage_io_init(&hung, &reads->storage, reads->loop, on_hung_ready);
    struct fault_set *faults = sim_node_faults(reads->world->node);
    struct storage_value value;
    struct slice key = reads_name(reads, 7);
    uint64_t revision = 20;            /* old: on disk */
    for (unsigned i = 0; i < 2; i++) { /* the first time, the table's top is what is missing */
        assert_int_equal(fault_arm(faults, "sst.read=hang,count=1", NULL), STATUS_OK);
        assert_int_equal(storage_get(&reads->view, &hung, key, revision, &value, NULL), STATUS_PENDING);
        storage_io_start(&hung);
        for (uint32_t other = 0; other < HISTORY_KEYS; other++) {
            enum status status;
            while ((status = storage_get(&reads->view, &reads->io, reads_name(reads, other), revision, &value, NULL)) ==
                   STATUS_PENDING) {
                reads_wait(reads);
            }
            assert_value(reads_model(reads, other, revision), status, &value);
        }
        assert_true(storage_io_is_busy(&hung));
        fault_disarm(faults, FAULT_SST_READ);
        while (storage_io_is_busy(&hung)) {
            assert_true(sim_step(reads->world->sim));
        }
    }
    storage_io_deinit(&hung);
    reads_close(reads);
}

static void test_storage_reads_below_the_horizon_are_refused(void **state) {
    (void)state;
    struct reads *reads = reads_open(5, 1 << 16);
    struct storage_value value;
    struct slice bytes;
    uint64_t revision;
    struct storage_iterator *iterator;
    enum status status = STATUS_PENDING;
    struct slice key = reads_name(reads, 1);
    reads->version.horizon = reads->revision - 1;
    assert_int_equal(storage_view_horizon(&reads->view), reads->revision - 1);
    uint64_t old = reads->revision - 2;
    assert_int_equal(storage_get(&reads->view, NULL, key, old, &value, NULL), STATUS_COMPACTED);
    assert_int_equal(storage_get(&reads->view, &reads->io, key, old, &value, NULL), STATUS_COMPACTED);
    assert_int_equal(storage_get_memory(&reads->view, key, old, &bytes, &revision), STORAGE_NEEDS_DISK);
    assert_int_equal(storage_multi_get(&reads->view, NULL, old, 1, &key, &value, &status, NULL), STATUS_OK);
    assert_int_equal(status, STATUS_COMPACTED);
    struct storage_iterator_options options = {.revision = old};
    assert_int_equal(storage_iterator_new(&reads->view, NULL, &options, &iterator, NULL), STATUS_COMPACTED);
    options.revision++;
    assert_int_equal(storage_iterator_new(&reads->view, NULL, &options, &iterator, NULL), STATUS_OK);
    storage_iterator_free(iterator);
    reads_close(reads);
}

/* ---- Iterators ------------------------------------------------------------------------------------------------- */

static enum status call(struct reads *reads, struct storage_iterator *iterator, enum iterator_call what,
                        struct slice key) {
    for (;;) {
        enum status status = STATUS_OK;
        switch (what) {
        case ITERATOR_FIRST: status = storage_iterator_first(iterator, NULL); break;
        case ITERATOR_LAST: status = storage_iterator_last(iterator, NULL); break;
        case ITERATOR_SEEK: status = storage_iterator_seek(iterator, key, NULL); break;
        case ITERATOR_SEEK_FOR_PREV: status = storage_iterator_seek_for_prev(iterator, key, NULL); break;
        case ITERATOR_NEXT: status = storage_iterator_next(iterator, NULL); break;
        case ITERATOR_PREV: status = storage_iterator_prev(iterator, NULL); break;
        }
        if (status != STATUS_PENDING) {
            return status;
        }
        assert_false(storage_iterator_is_valid(iterator));
        reads_wait(reads);
    }
}

static int find(const struct reads *reads, int key, int step, int first, int last, uint64_t revision) {
    for (; key >= 0 && key < HISTORY_KEYS; key += step) {
        if (key >= first && key < last && reads_model(reads, (uint32_t)key, revision) != NULL) {
            return key;
        }
    }
    return -1;
}

static void walk(struct reads *reads, bool asynchronous, unsigned steps) {
    int first = (int)random_below(&reads->random, HISTORY_KEYS);
    int last = first + (int)random_below(&reads->random, (uint64_t)(HISTORY_KEYS - first));
    bool bounded = random_chance(&reads->random, 1, 2);
    struct storage_iterator_options options = {.revision = random_revision(reads),
                                               .passing = random_chance(&reads->random, 1, 2),
                                               .readahead_bytes_max = random_chance(&reads->random, 1, 2) ? 4096 : 1};
    options.revision = options.revision == 0 ? 1 : options.revision;
    if (bounded && last > first) {
        options.lower = reads_name(reads, (uint32_t)first);
        options.upper = reads_name(reads, (uint32_t)last);
    } else {
        first = 0;
        last = HISTORY_KEYS;
    }
    struct storage_iterator *iterator;
    assert_int_equal(storage_iterator_new(&reads->view, asynchronous ? &reads->io : NULL, &options, &iterator, NULL),
                     STATUS_OK);
    assert_false(storage_iterator_is_valid(iterator));
    int at = -1;
    for (unsigned i = 0; i < steps; i++) {
        int key = (int)random_below(&reads->random, HISTORY_KEYS);
        enum iterator_call what = (enum iterator_call)random_below(&reads->random, at < 0 ? 4 : 12);
        what = what > ITERATOR_PREV ? (i / 8 % 2 != 0 ? ITERATOR_NEXT : ITERATOR_PREV) : what;
        switch (what) {
        case ITERATOR_FIRST: at = find(reads, 0, 1, first, last, options.revision); break;
        case ITERATOR_LAST: at = find(reads, HISTORY_KEYS - 1, -1, first, last, options.revision); break;
        case ITERATOR_SEEK: at = find(reads, key, 1, first, last, options.revision); break;
        case ITERATOR_SEEK_FOR_PREV: at = find(reads, key, -1, first, last, options.revision); break;
        case ITERATOR_NEXT: at = find(reads, at + 1, 1, first, last, options.revision); break;
        case ITERATOR_PREV: at = find(reads, at - 1, -1, first, last, options.revision); break;
        }
        enum status status = call(reads, iterator, what, reads_name(reads, (uint32_t)key));
        if (at < 0) {
            assert_int_equal(status, STATUS_NOT_FOUND);
            continue;
        }
        assert_int_equal(status, STATUS_OK);
        const struct operation *want = reads_model(reads, (uint32_t)at, options.revision);
        struct slice value;
        assert_int_equal(storage_iterator_value(iterator, &value, NULL), STATUS_OK);
        assert_true(slice_equal(storage_iterator_key(iterator), reads_name(reads, (uint32_t)at)));
        assert_true(slice_equal(value, slice_of(want->value, want->value_len)));
        assert_int_equal(storage_iterator_revision(iterator), want->revision);
    }
    storage_iterator_free(iterator);
}

static void test_h34_storage_iterator_any_order_of_calls_matches_the_history(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct reads *reads = reads_open(seed, seed % 2 == 0 ? 0 : 1 << 20);
        for (unsigned i = 0; i < 40; i++) {
            walk(reads, false, 80);
        }
        reads_close(reads);
    }
}

static void test_storage_iterator_waiting_for_blocks_changes_no_answer(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct reads *reads = reads_open(seed, seed % 2 == 0 ? 0 : 1 << 16);
        for (unsigned i = 0; i < 20; i++) {
            walk(reads, true, 60);
        }
        assert_true(reads->rounds > 0);
        reads_close(reads);
    }
}

/* ---- Limits ---------------------------------------------------------------------------------------------------- */

enum { DELETED_KEYS = 10000 };

/* Deleted keys without end don't keep the thread for themselves, though nothing has to be read for them. */
static void test_h47_storage_iterator_over_many_deletes_lets_others_run(void **state) {
    (void)state;
    struct reads *reads = reads_open(8, 1 << 20);
    struct batch_builder builder;
    batch_builder_init(&builder, alloc_system());
    for (uint32_t i = 0; i < DELETED_KEYS; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "z%06u", i);
        assert_int_equal(batch_builder_delete(&builder, slice_of_string(key)), STATUS_OK);
    }
    struct memtable *memtable = reads->generations[0].memtable;
    assert_int_equal(memtable_apply(memtable, ++reads->view.revision, batch_builder_batch(&builder)), STATUS_OK);
    batch_builder_deinit(&builder);
    struct storage_iterator_options options = {.lower = slice_of_string("z")};
    struct storage_iterator *iterator;
    for (unsigned backward = 0; backward < 2; backward++) {
        uint64_t rounds = reads->rounds;
        assert_int_equal(storage_iterator_new(&reads->view, &reads->io, &options, &iterator, NULL), STATUS_OK);
        assert_int_equal(call(reads, iterator, backward == 1 ? ITERATOR_LAST : ITERATOR_FIRST, SLICE_EMPTY),
                         STATUS_NOT_FOUND);
        assert_in_range(reads->rounds - rounds, DELETED_KEYS / ITERATOR_TURN_MOVES_MAX, 5);
        storage_iterator_free(iterator);
    }
    assert_int_equal(storage_iterator_new(&reads->view, NULL, &options, &iterator, NULL), STATUS_OK);
    assert_int_equal(storage_iterator_first(iterator, NULL), STATUS_NOT_FOUND);
    storage_iterator_free(iterator);
    reads_close(reads);
}

struct failing_alloc {
    struct alloc base;
    unsigned left; /* allocations that succeed */
    unsigned held;
};

static void *resize_or_fail(struct alloc *alloc, void *ptr, size_t size, size_t align) {
    struct failing_alloc *failing = CONTAINER_OF(alloc, struct failing_alloc, base);
    if (size == 0) {
        failing->held -= ptr != NULL;
        return alloc_system()->resize(alloc_system(), ptr, size, align);
    }
    if (failing->left == 0) {
        return NULL;
    }
    failing->left--;
    failing->held += ptr == NULL;
    return alloc_system()->resize(alloc_system(), ptr, size, align);
}

static void test_storage_iterator_without_memory_says_so_and_leaks_nothing(void **state) {
    (void)state;
    struct reads *reads = reads_open(9, 1 << 20);
    struct failing_alloc failing = {.base = {.resize = resize_or_fail}};
    reads->publisher.alloc = &failing.base;
    enum status status = STATUS_NO_MEMORY;
    unsigned count = 0;
    for (; status == STATUS_NO_MEMORY; count++) {
        struct storage_iterator *iterator;
        failing.left = count;
        status = storage_iterator_new(&reads->view, NULL, NULL, &iterator, NULL);
        if (status == STATUS_OK) {
            status = storage_iterator_last(iterator, NULL); /* needs room for a value */
            storage_iterator_free(iterator);
        }
        assert_int_equal(failing.held, 0);
    }
    assert_int_equal(status, STATUS_OK);
    assert_in_range(count, GENERATIONS_MAX + LEVEL0_MAX + 2, 40);
    reads_close(reads);
}

static void test_storage_approximate_bytes_add_up(void **state) {
    (void)state;
    struct reads *reads = reads_open(10, 1 << 20);
    uint64_t all = storage_approximate_bytes(&reads->view, SLICE_EMPTY, SLICE_EMPTY);
    uint64_t files = 0;
    for (size_t i = 0; i < reads->world->table_count; i++) {
        files += reads->world->tables[i]->meta.size_bytes;
    }
    assert_int_equal(all, files);
    uint64_t before = 0;
    for (uint32_t key = 1; key < HISTORY_KEYS; key++) {
        struct slice name = reads_name(reads, key);
        uint64_t left = storage_approximate_bytes(&reads->view, SLICE_EMPTY, name);
        uint64_t right = storage_approximate_bytes(&reads->view, name, SLICE_EMPTY);
        assert_true(left >= before);
        assert_in_range(left + right, all - 100, all + 100); /* rounding */
        before = left;
    }
    uint64_t third = storage_approximate_bytes(&reads->view, reads_name(reads, 20), reads_name(reads, 40));
    assert_in_range(third, all / 6, all / 2);
    assert_int_equal(storage_approximate_bytes(&reads->view, slice_of_string("x"), slice_of_string("y")), 0);
    reads_close(reads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storage_get_any_key_at_any_revision_matches_the_history),
        cmocka_unit_test(test_storage_get_waiting_for_blocks_changes_no_answer),
        cmocka_unit_test(test_storage_multi_get_reads_blocks_side_by_side),
        cmocka_unit_test(test_storage_hung_block_delays_no_other_read),
        cmocka_unit_test(test_storage_reads_below_the_horizon_are_refused),
        cmocka_unit_test(test_h34_storage_iterator_any_order_of_calls_matches_the_history),
        cmocka_unit_test(test_storage_iterator_waiting_for_blocks_changes_no_answer),
        cmocka_unit_test(test_h47_storage_iterator_over_many_deletes_lets_others_run),
        cmocka_unit_test(test_storage_iterator_without_memory_says_so_and_leaks_nothing),
        cmocka_unit_test(test_storage_approximate_bytes_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
