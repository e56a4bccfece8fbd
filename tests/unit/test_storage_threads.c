/*
 * The engine on real threads and a real disk: the owner loop applies, workers flush and merge, and readers on threads
 * of their own take views and read through memory and tables.
 *
 * Every entry rewrites all of a few keys with its own revision, so a view shows one revision throughout or is torn.
 *
 * Would break these: a data race between owner, workers and readers; a table or memtable that goes while a view holds
 * it; a view that mixes two states; a read set that dies on a reader's thread and never reaches the owner.
 */
#include "node/base/check.h"
#include "node/env/os/env_os.h"
#include "storage/batch.h"
#include "storage/storage.h"
#include "tests/unit/support/support.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { KEYS = 8, ENTRIES = 3000, READERS = 2, VALUE_BYTES = 100, RUN_TIMEOUT_MS = 120 * 1000 };

struct world {
    struct env *env;
    struct env_loop *loop;
    struct storage *storage;
    struct env_task writer;
    bool flushed_all;
    bool closed;
    _Atomic bool stop;
    _Atomic unsigned mistakes;
    _Atomic uint64_t reads;
};

static void make_key(unsigned key, char out[16]) { (void)snprintf(out, 16, "key-%u", key); }

static void make_value(uint64_t revision, uint8_t out[VALUE_BYTES]) {
    memset(out, (int)(revision % 251), VALUE_BYTES);
    memcpy(out, &revision, sizeof revision);
}

static void apply_one(struct world *world, uint64_t index) {
    static uint8_t bytes[(KEYS + 1) * (VALUE_BYTES + 32)];
    struct batch_operation operations[KEYS + 1];
    uint32_t count = 0;
    char keys[KEYS][16];
    uint8_t value[VALUE_BYTES];
    make_value(index, value);
    if (index % 7 == 0) { /* what comes behind it in the entry stays */
        operations[count++] =
            (struct batch_operation){BATCH_DELETE_RANGE, slice_of_string("key-"), slice_of_string("key.")};
    }
    for (unsigned i = 0; i < KEYS; i++) {
        make_key(i, keys[i]);
        operations[count++] =
            (struct batch_operation){BATCH_PUT, slice_of_string(keys[i]), slice_of(value, sizeof value)};
    }
    batch_encode(bytes, operations, count);
    enum status status = storage_apply(world->storage, index, 1, slice_of(bytes, batch_size(operations, count)), NULL);
    assert_int_equal(status, STATUS_OK);
    storage_set_durable(world->storage, index);
    storage_set_horizon(world->storage, index > 100 ? index - 100 : 0);
}

/* Owner loop: a few entries per turn. */
static void write_some(struct env_task *task) {
    struct world *world = CONTAINER_OF(task, struct world, writer);
    uint64_t index = storage_applied_index(world->storage);
    for (int i = 0; i < 4 && index < ENTRIES && storage_can_apply(world->storage); i++) {
        apply_one(world, ++index);
    }
}

static bool is_done(void *context) {
    struct world *world = context;
    env_defer(world->loop, ENV_STAGE_PROCESS, &world->writer);
    if (storage_applied_index(world->storage) < ENTRIES) {
        return false;
    }
    struct storage_stats stats;
    storage_get_stats(world->storage, &stats);
    if (!world->flushed_all) {
        world->flushed_all = true;
        storage_flush(world->storage);
    }
    return stats.flushed_index == ENTRIES && stats.files[0] < 3;
}

static void check_value(struct world *world, struct slice value, uint64_t revision, uint64_t want) {
    uint8_t bytes[VALUE_BYTES];
    make_value(want, bytes);
    world->mistakes += revision != want || !slice_equal(value, slice_of(bytes, sizeof bytes));
    world->reads++;
}

static void read_view(struct world *world, struct storage_view *view, uint64_t revision) {
    for (unsigned key = 0; key < KEYS; key++) {
        char name[16];
        uint64_t got = 0;
        struct slice fast;
        make_key(key, name);
        enum storage_lookup lookup = storage_get_memory(view, slice_of_string(name), revision, &fast, &got);
        if (lookup == STORAGE_FOUND) {
            check_value(world, fast, got, revision);
        } else if (lookup == STORAGE_NEEDS_DISK) {
            struct storage_value value;
            if (storage_get(view, NULL, slice_of_string(name), revision, &value, NULL) == STATUS_OK) {
                check_value(world, value.bytes, value.revision, revision);
                storage_value_release(&value);
            } else {
                world->mistakes++;
            }
        } else {
            world->mistakes++;
        }
    }
}

static void scan_view(struct world *world, struct storage_view *view, uint64_t revision) {
    struct storage_iterator_options options = {.revision = revision};
    struct storage_iterator *iterator;
    enum status status = storage_iterator_new(view, NULL, &options, &iterator, NULL);
    if (status != STATUS_OK) {
        world->mistakes++;
        return;
    }
    unsigned count = 0;
    for (status = storage_iterator_first(iterator, NULL); status == STATUS_OK;
         status = storage_iterator_next(iterator, NULL)) {
        struct slice value;
        world->mistakes += storage_iterator_value(iterator, &value, NULL) != STATUS_OK;
        check_value(world, value, storage_iterator_revision(iterator), revision);
        count++;
    }
    world->mistakes += count != KEYS;
    storage_iterator_free(iterator);
}

static void *read_always(void *context) {
    struct world *world = context;
    while (!atomic_load(&world->stop)) {
        uint64_t at_least = storage_applied_index(world->storage);
        struct storage_view *view = storage_view_acquire(world->storage);
        uint64_t revision = storage_view_revision(view);
        world->mistakes += revision < at_least;
        if (revision > 0) {
            read_view(world, view, revision);
            scan_view(world, view, revision);
            read_view(world, view, revision > 50 ? revision - 50 : 1);
        }
        storage_view_release(view);
    }
    return NULL;
}

static void on_closed(void *context) { ((struct world *)context)->closed = true; }

static void test_storage_readers_on_threads_see_one_revision(void **state) {
    (void)state;
    static struct world world;
    struct env_os_options env_options = {.workers_short = 1, .workers_long = 3};
    struct storage_options options;
    pthread_t readers[READERS];
    char *dir = test_dir_new();
    char path[256];
    (void)snprintf(path, sizeof path, "%s/data", dir);
    assert_int_equal(env_os_new(&env_options, &world.env, NULL), STATUS_OK);
    assert_int_equal(env_loop_new(world.env, "owner", 100, &world.loop, NULL), STATUS_OK);
    storage_options_init(&options);
    options.env = world.env;
    options.loop = world.loop;
    options.dir = path;
    options.memtable_bytes = 128 * 1024;
    options.sst_bytes = 64 * 1024;
    options.l0_files_compact = 3;
    options.level_base_bytes = 32 * 1024;
    options.level_ratio = 2;
    options.cache_bytes = 64 * 1024;
    options.open_files_max = 4;
    options.manifest_bytes_max = 32 * 1024;
    assert_int_equal(storage_open(&options, &world.storage, NULL), STATUS_OK);
    storage_start(world.storage);
    env_task_init(&world.writer, write_some);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_always, &world), 0);
    }
    assert_true(test_loop_until(world.loop, is_done, &world, RUN_TIMEOUT_MS));
    atomic_store(&world.stop, true);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    }
    assert_int_equal(world.mistakes, 0);
    assert_true(world.reads > 100);
    struct storage_stats stats;
    storage_get_stats(world.storage, &stats);
    assert_true(stats.compaction_count > 2 && stats.flushes > 5);
    assert_int_equal(stats.views, 0);
    storage_close(world.storage, on_closed, &world);
    assert_true(test_loop_until_set(world.loop, &world.closed, RUN_TIMEOUT_MS));
    env_loop_free(world.loop);
    env_os_free(world.env);
    test_dir_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storage_readers_on_threads_see_one_revision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
