/*
 * Random puts, deletes, flushes, merges, horizons and restarts against the naive model, read back at random revisions,
 * through new views and through views that were held for long.
 *
 * Would break these: almost any bug of lookup order, version visibility, merge dropping, table boundaries, prefix
 * compression or recovery; a value that is looked for at the wrong place, or in a file that is gone.
 */
#include "tests/unit/storage_model.h"

enum { STEPS = 1800, HELD_VIEWS = 4 };

struct run {
    struct host host;
    struct model model;
    struct random random;
    struct storage_view *views[HELD_VIEWS];
    uint64_t horizons[HELD_VIEWS]; /* when the view was taken */
};

static void apply_next(struct run *run) {
    uint64_t index = model_grow(&run->model, &run->random);
    assert_true(host_wait(&run->host, host_can_apply));
    assert_int_equal(storage_apply(run->host.storage, index, 1, model_batch(&run->model, index), NULL), STATUS_OK);
    /* The log lags behind now and then. */
    if (random_chance(&run->random, 9, 10) || !storage_can_apply(run->host.storage)) {
        storage_set_durable(run->host.storage, index);
    }
}

static void release_views(struct run *run) {
    for (unsigned i = 0; i < HELD_VIEWS; i++) {
        if (run->views[i] != NULL) {
            storage_view_release(run->views[i]);
            run->views[i] = NULL;
        }
    }
}

static void swap_view(struct run *run) {
    unsigned i = (unsigned)random_below(&run->random, HELD_VIEWS);
    if (run->views[i] != NULL) {
        storage_view_release(run->views[i]);
    }
    run->views[i] = storage_view_acquire(run->host.storage);
    run->horizons[i] = run->model.horizon;
    assert_int_equal(storage_view_revision(run->views[i]), run->model.count);
}

/* A revision between the horizon and what the view shows. */
static uint64_t some_revision(struct run *run, const struct storage_view *view, uint64_t horizon) {
    uint64_t newest = storage_view_revision(view);
    return random_chance(&run->random, 1, 3) ? newest : horizon + random_below(&run->random, newest - horizon + 1);
}

static void read_some(struct run *run) {
    unsigned i = (unsigned)random_below(&run->random, HELD_VIEWS);
    bool held = run->views[i] != NULL && random_chance(&run->random, 1, 2);
    struct storage_view *view = held ? run->views[i] : storage_view_acquire(run->host.storage);
    uint64_t revision = some_revision(run, view, held ? run->horizons[i] : run->model.horizon);
    for (int n = 0; n < 4; n++) {
        unsigned key = (unsigned)random_below(&run->random, MODEL_KEYS);
        enum status status = model_check_key(&run->model, view, key, revision, NULL);
        assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND);
    }
    unsigned lower = (unsigned)random_below(&run->random, MODEL_KEYS + 1);
    unsigned upper = (unsigned)random_below(&run->random, MODEL_KEYS + 1);
    assert_int_equal(model_check_scan(&run->model, view, lower, upper, revision, NULL), STATUS_NOT_FOUND);
    if (!held) {
        storage_view_release(view);
    }
}

static void restart(struct run *run) {
    release_views(run);
    if (random_chance(&run->random, 1, 2)) {
        host_close(&run->host);
    } else {
        host_crash(&run->host, random_chance(&run->random, 1, 2) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
    }
    struct error err;
    assert_int_equal(host_try_open(&run->host, &err), STATUS_OK);
    assert_true(storage_frontier(run->host.storage)->index <= run->model.count);
    host_assert_frontier(storage_frontier(run->host.storage));
    model_replay(&run->model, &run->host);
    storage_set_horizon(run->host.storage, run->model.horizon);
    storage_start(run->host.storage);
}

static void step(struct run *run) {
    uint64_t dice = random_below(&run->random, 1000);
    if (dice < 650) {
        apply_next(run);
    } else if (dice < 850) {
        read_some(run);
    } else if (dice < 900) {
        swap_view(run);
    } else if (dice < 930) {
        storage_flush(run->host.storage);
    } else if (dice < 980) {
        host_run_ms(&run->host, random_below(&run->random, 20));
    } else if (dice < 995) {
        uint64_t span = run->model.count - run->model.horizon;
        run->model.horizon += random_below(&run->random, span / 2 + 1);
        storage_set_horizon(run->host.storage, run->model.horizon);
    } else {
        restart(run);
    }
}

/* Returns the bytes of value files that compactions wrote. */
static uint64_t run_seed(uint64_t seed) {
    static struct run run;
    memset(&run, 0, sizeof run);
    random_seed(&run.random, seed);
    host_new(&run.host, seed);
    run.host.options.memtable_bytes = 4096 + random_below(&run.random, 16 * 1024);
    run.host.options.block_bytes = 64 + (uint32_t)random_below(&run.random, 1024);
    run.host.options.sst_bytes = 2048 + random_below(&run.random, 8 * 1024);
    run.host.options.l0_files_compact = 1 + (uint32_t)random_below(&run.random, 5);
    run.host.options.immutable_memtables_max = 1 + (uint32_t)random_below(&run.random, 3);
    run.host.options.partition_bytes = 1024 + (uint32_t)random_below(&run.random, 4096);
    run.host.options.level_base_bytes = 1024 + random_below(&run.random, 32 * 1024);
    run.host.options.level_ratio = 2 + (uint32_t)random_below(&run.random, 5);
    run.host.options.cache_bytes = random_chance(&run.random, 1, 4) ? 0 : 1024 * random_below(&run.random, 256);
    run.host.options.open_files_max = 1 + (uint32_t)random_below(&run.random, 10);
    run.host.options.compaction_workers = 1 + (uint32_t)random_below(&run.random, 2);
    for (unsigned level = 0; level < STORAGE_LEVELS; level++) {
        run.host.options.compression[level] = (enum compression)random_below(&run.random, COMPRESSION_COUNT);
        run.host.options.bloom_bits[level] = (uint8_t)random_below(&run.random, 16);
    }
    if (random_chance(&run.random, 2, 3)) { /* else no value is as large as the default's threshold */
        run.host.options.value_threshold_bytes = 50 + random_below(&run.random, MODEL_VALUE_BYTES_MAX);
        run.host.options.value_file_bytes = 4096 + random_below(&run.random, 8192);
        run.host.options.value_live_percent_min = (uint32_t)random_below(&run.random, 91);
    }
    host_open(&run.host);
    for (int i = 0; i < STEPS; i++) {
        step(&run);
    }
    storage_set_durable(run.host.storage, run.model.count);
    model_check_all(&run.model, &run.host, run.model.count);
    release_views(&run);
    host_flush(&run.host);
    assert_true(host_wait(&run.host, host_is_settled));
    model_check_all(&run.model, &run.host, run.model.count);
    model_check_all(&run.model, &run.host, run.model.horizon);
    struct storage_stats stats;
    storage_get_stats(run.host.storage, &stats);
    assert_int_equal(stats.views, 0);
    assert_true(stats.compaction_count > 0 || host_deep_files(&run.host) > 0);
    assert_int_equal(run.host.failed_count, 0);
    host_close(&run.host);
    host_free(&run.host);
    return stats.moved_value_bytes;
}

static void test_storage_random_history_reads_like_the_model(void **state) {
    (void)state;
    uint64_t moved_value_bytes = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        moved_value_bytes += run_seed(seed);
    }
    assert_true(moved_value_bytes > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storage_random_history_reads_like_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
