/*
 * Many threads read the same tables at once: opening their tops, files that are closed under a cap, a small cache that
 * evicts all the time. For ThreadSanitizer and for the eye.
 *
 * Would break these: a top that is published before it is whole or charged twice, a file closed while it is read, a
 * block that is evicted while it is held, anything in a table that reading changes.
 */
#include "node/base/check.h"
#include "node/base/random.h"
#include "node/env/os/env_os.h"
#include "storage/file_names.h"
#include "storage/filter.h"
#include "storage/sst.h"
#include "tests/unit/support/support.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { THREADS = 4, TABLES = 4, ENTRIES = 800, ROUNDS = 6, GETS = 1500 };

struct shared {
    struct env *env;
    struct sst_context context;
    struct sst *tables[TABLES];
    pthread_barrier_t barrier;
    _Atomic unsigned mistakes;
    uint64_t seed;
};

static struct slice make_key(char key[32], uint64_t table, uint64_t i) {
    int len = snprintf(key, 32, "table %llu key %06llu", (unsigned long long)table, (unsigned long long)i * 2);
    return slice_of(key, (size_t)len);
}

static void build(struct shared *shared, uint64_t table, bool compressed) {
    char path[LIMIT_PATH_BYTES];
    char key[32];
    struct sst_builder *builder;
    struct sst_meta meta;
    file_path_sst(path, shared->context.dir, table + 1);
    struct sst_builder_options options = {.env = shared->env,
                                          .path = path,
                                          .number = table + 1,
                                          .id = 77 + table,
                                          .block_bytes = 512,
                                          .partition_bytes = 4096,
                                          .bloom_bits = 10,
                                          .compression = compressed ? COMPRESSION_LZ4 : COMPRESSION_NONE,
                                          .zstd_level = 1};
    assert_int_equal(sst_builder_new(&options, &builder, NULL), STATUS_OK);
    for (uint64_t i = 0; i < ENTRIES; i++) {
        struct entry entry = {.key = {make_key(key, table, i), i + 1, 0}, .kind = BATCH_PUT};
        entry.value = entry.key.user;
        assert_int_equal(sst_builder_add(builder, &entry, NULL), STATUS_OK);
    }
    assert_int_equal(sst_builder_finish(builder, &meta, NULL), STATUS_OK);
    assert_int_equal(sst_new(&shared->context, &meta, &shared->tables[table]), STATUS_OK);
    sst_builder_free(builder);
}

static void get_some(struct shared *shared, struct fetch *fetch, struct random *random) {
    struct sst_hold hold = {.block = NULL};
    for (int n = 0; n < GETS; n++) {
        char text[32];
        uint64_t table = random_below(random, TABLES);
        struct slice key = make_key(text, table, random_below(random, ENTRIES));
        struct entry entry;
        struct tombstone_mark mark;
        bool absent = random_chance(random, 1, 4);
        if (absent) {
            text[key.len - 1]++;
        }
        enum status status =
            sst_get(shared->tables[table], fetch, key, filter_hash(key), 1000000, &hold, &entry, &mark, NULL);
        if (status != (absent ? STATUS_NOT_FOUND : STATUS_OK) || (!absent && !slice_equal(entry.value, key))) {
            atomic_fetch_add(&shared->mistakes, 1);
        }
    }
    sst_hold_release(&hold);
}

static void walk_all(struct shared *shared, struct fetch *fetch, bool backward) {
    struct cursor *cursor = sst_cursor_new(shared->env->alloc, fetch, shared->tables, TABLES);
    CHECK(cursor != NULL);
    uint64_t count = 0;
    enum status status = backward ? cursor_last(cursor, NULL) : cursor_first(cursor, NULL);
    for (; status == STATUS_OK; status = backward ? cursor_prev(cursor, NULL) : cursor_next(cursor, NULL)) {
        char text[32];
        uint64_t at = backward ? (uint64_t)TABLES * ENTRIES - 1 - count : count;
        if (!slice_equal(cursor->entry.key.user, make_key(text, at / ENTRIES, at % ENTRIES)) ||
            !slice_equal(cursor->entry.key.user, cursor->entry.value)) {
            atomic_fetch_add(&shared->mistakes, 1);
        }
        count++;
    }
    if (status != STATUS_NOT_FOUND || count != (uint64_t)TABLES * ENTRIES) {
        atomic_fetch_add(&shared->mistakes, 1);
    }
    cursor_free(cursor);
}

static void *reader(void *argument) {
    struct shared *shared = argument;
    struct random random;
    struct fetch fetch;
    uint64_t seed = __atomic_fetch_add(&shared->seed, 1, __ATOMIC_RELAXED);
    random_seed(&random, seed);
    fetch_init(&fetch, &shared->context,
               &(struct fetch_options){.fill_cache = seed % 2 == 0, .readahead_bytes_max = seed % 3 == 0 ? 0 : 16384});
    (void)pthread_barrier_wait(&shared->barrier);
    get_some(shared, &fetch, &random);
    walk_all(shared, &fetch, seed % 2 == 0);
    if (seed % THREADS == 0) {
        struct sst_verify_report report;
        if (sst_verify(shared->tables[1], NULL, &report, NULL) != STATUS_OK) {
            atomic_fetch_add(&shared->mistakes, 1);
        }
    }
    fetch_deinit(&fetch);
    return NULL;
}

static void test_sst_threads_read_one_table_at_once(void **state) {
    (void)state;
    struct shared shared = {.seed = 0};
    const struct env_os_options options = {.workers_short = 1, .workers_long = 1};
    char *dir = test_dir_new();
    assert_int_equal(env_os_new(&options, &shared.env, NULL), STATUS_OK);
    shared.context = (struct sst_context){.env = shared.env, .dir = dir};
    assert_int_equal(pthread_barrier_init(&shared.barrier, NULL, THREADS), 0);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        struct cache_stats stats;
        assert_int_equal(cache_new(shared.env, round % 2 == 0 ? 0 : 64 * 1024, &shared.context.cache, NULL), STATUS_OK);
        assert_int_equal(open_files_new(shared.env, 2, &shared.context.files, NULL), STATUS_OK);
        for (uint64_t i = 0; i < TABLES; i++) {
            build(&shared, i, i % 2 == 0);
        }
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, reader, &shared), 0);
        }
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        }
        assert_int_equal(atomic_load(&shared.mistakes), 0);
        for (int i = 0; i < TABLES; i++) {
            sst_free(shared.tables[i]);
        }
        cache_get_stats(shared.context.cache, &stats);
        assert_int_equal(stats.charged_bytes, 0);
        cache_free(shared.context.cache);
        open_files_free(shared.context.files);
    }
    (void)pthread_barrier_destroy(&shared.barrier);
    env_os_free(shared.env);
    test_dir_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sst_threads_read_one_table_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
