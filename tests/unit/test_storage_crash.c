/*
 * Power losses and process crashes at any step of a workload of applies, flushes and merges, and again while the
 * store opens.
 *
 * After each the frontier is one that was published or on its way, the data up to it is exactly right, replay brings
 * back the rest, the directory holds what the manifest names and nothing else, and the changes of all entries from the
 * horizon on can be read.
 *
 * Would break these: a value file or change file that isn't synced before its edit, or that outlives its use; an edit
 * that is acknowledged before it is synced, a table that isn't synced before its edit, a directory that isn't synced
 * after a new name, a rename without both; files removed before the manifest that drops them is durable; a frontier
 * that doesn't belong to the data; a torn manifest tail taken for corruption.
 */
#include "tests/unit/storage_model.h"

#include <stdlib.h>

enum { ENTRIES = 120, AFTERWARDS = 40, HORIZON_LAG = 30 };

struct crash_run {
    struct host host;
    struct model model;
    struct random random;
    uint64_t steps_left;   /* sim steps until the crash; UINT64_MAX: never */
    uint64_t acknowledged; /* frontier of the last `flushed` callback */
    /* Opening on a fiber: */
    bool opened;
    enum status open_status;
    struct error open_error;
};

/* One step of the world; false when it is time to crash. */
static bool world_step(struct crash_run *run) {
    if (run->steps_left == 0) {
        return false;
    }
    if (run->steps_left != UINT64_MAX) {
        run->steps_left--;
    }
    (void)sim_step(run->host.sim);
    if (run->host.storage != NULL && run->host.flushed.index > run->acknowledged) {
        run->acknowledged = run->host.flushed.index;
    }
    return true;
}

/* Applies entries up to `count`, flushing on the way; false if the crash came first. */
static bool work(struct crash_run *run, uint64_t count) {
    struct host *host = &run->host;
    while (storage_applied_index(host->storage) < count) {
        while (!storage_can_apply(host->storage)) {
            if (!world_step(run)) {
                return false;
            }
        }
        uint64_t index = storage_applied_index(host->storage) + 1;
        if (index > run->model.count) {
            (void)model_grow(&run->model, &run->random);
        }
        assert_int_equal(storage_apply(host->storage, index, 1, model_batch(&run->model, index), NULL), STATUS_OK);
        storage_set_durable(host->storage, index);
        if (index > HORIZON_LAG && index - HORIZON_LAG > run->model.horizon) {
            run->model.horizon = index - HORIZON_LAG;
            storage_set_horizon(host->storage, run->model.horizon);
        }
        if (index % 16 == 0) {
            storage_flush(host->storage);
        }
        if (!world_step(run)) {
            return false;
        }
    }
    struct storage_stats stats;
    do {
        if (!world_step(run)) {
            return false;
        }
        storage_get_stats(host->storage, &stats);
    } while (stats.immutable_memtables > 0 || stats.files[0] >= host->options.l0_files_compact ||
             stats.compactions_running > 0);
    return true;
}

static void open_on_fiber(void *context) {
    struct crash_run *run = context;
    run->host.options.env = run->host.env;
    run->host.options.loop = run->host.loop;
    struct storage *storage = NULL;
    enum status status = storage_open(&run->host.options, &storage, &run->open_error);
    run->host.storage = storage;
    run->open_status = status;
    run->opened = true;
}

/* Opens step by step; false if the crash came first. */
static bool open_slowly(struct crash_run *run) {
    run->opened = false;
    memset(&run->host.flushed, 0, sizeof run->host.flushed);
    sim_node_thread(run->host.node, open_on_fiber, run);
    while (!run->opened) {
        if (!world_step(run)) {
            return false;
        }
    }
    if (run->open_status != STATUS_OK) {
        fail_msg("open: %s", run->open_error.message);
    }
    return true;
}

struct census {
    unsigned tables;
    unsigned value_files;
    unsigned change_files;
    unsigned manifests;
    unsigned others;
};

static enum status take_census(void *context, const char *name) {
    struct census *census = context;
    if (strstr(name, ".sst") != NULL) {
        census->tables++;
    } else if (strstr(name, ".val") != NULL) {
        census->value_files++;
    } else if (strstr(name, ".chg") != NULL) {
        census->change_files++;
    } else if (strncmp(name, "MANIFEST-", 9) == 0) {
        census->manifests++;
    } else if (strcmp(name, "CURRENT") != 0 && strcmp(name, "STORAGE-LOCK") != 0) {
        census->others++;
    }
    return STATUS_OK;
}

/* The store as it came back, before anything is replayed. */
static void check_recovered(struct crash_run *run) {
    const struct storage_frontier *frontier = storage_frontier(run->host.storage);
    struct storage_stats stats;
    struct census census = {0};
    assert_true(frontier->index >= run->acknowledged);
    assert_true(frontier->index <= run->model.count);
    host_assert_frontier(frontier);
    assert_true(frontier->horizon <= run->model.horizon);
    assert_int_equal(storage_applied_index(run->host.storage), frontier->index);
    model_check_all(&run->model, &run->host, frontier->index);
    if (run->model.horizon <= frontier->index) {
        model_check_all(&run->model, &run->host, run->model.horizon);
    }
    storage_get_stats(run->host.storage, &stats);
    assert_int_equal(env_list_dir(run->host.env, "/data", take_census, &census, NULL), STATUS_OK);
    assert_int_equal(census.tables, stats.files[0] + host_deep_files(&run->host));
    assert_int_equal(census.value_files, stats.value_files);
    assert_int_equal(census.change_files, stats.change_files);
    assert_int_equal(census.manifests, 1);
    assert_int_equal(census.others, 0);
    if (run->host.options.change_files) {
        assert_true(stats.changes_oldest <= (run->model.horizon == 0 ? 1 : run->model.horizon));
        model_check_all_changes(&run->model, &run->host);
    }
    run->acknowledged = frontier->index;
}

/* Crashes after so many steps; true if the workload ended before. */
static bool run_crash_at(uint64_t steps, uint64_t seed) {
    struct crash_run *run = calloc(1, sizeof *run);
    assert_non_null(run);
    random_seed(&run->random, seed);
    host_new(&run->host, seed);
    run->host.options.memtable_bytes = 4 * 1024;
    run->host.options.manifest_bytes_max = 48 * 1024;
    run->host.options.sst_bytes = 4 * 1024;
    if (seed % 2 == 1) { /* half of the values are stored apart, and often moved */
        run->host.options.value_threshold_bytes = 200;
        run->host.options.value_file_bytes = 4 * 1024;
        run->host.options.value_live_percent_min = 70;
    }
    run->host.options.change_files = seed % 4 != 2;
    run->steps_left = steps;
    bool finished = false;
    if (open_slowly(run)) {
        storage_start(run->host.storage);
        finished = work(run, ENTRIES);
    }
    /* The next openings may be cut short, too. */
    for (unsigned round = 0;; round++) {
        host_crash(&run->host, random_chance(&run->random, 2, 3) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
        run->steps_left = round < 2 && random_chance(&run->random, 1, 2) ? random_below(&run->random, 40) : UINT64_MAX;
        if (open_slowly(run)) {
            break;
        }
    }
    check_recovered(run);
    model_replay(&run->model, &run->host);
    storage_set_horizon(run->host.storage, run->model.horizon);
    storage_start(run->host.storage);
    run->steps_left = UINT64_MAX;
    assert_true(work(run, run->model.count + AFTERWARDS));
    model_check_all(&run->model, &run->host, run->model.count);
    model_check_all(&run->model, &run->host, run->model.horizon);
    model_check_all_changes(&run->model, &run->host);
    assert_int_equal(run->host.failed_count, 0);
    host_close(&run->host);
    host_free(&run->host);
    free(run);
    return finished;
}

/* The long set looks at every step, the short one at every third. */
static bool is_long(void) {
    const char *length = getenv("HOLDFAST_TEST_LENGTH");
    return length != NULL && strcmp(length, "long") == 0;
}

static void test_h26_crash_at_every_step_keeps_data_and_frontier(void **state) {
    (void)state;
    uint64_t steps = 0;
    while (!run_crash_at(steps, 1)) {
        steps += is_long() ? 1 : 3;
        assert_true(steps < 20000);
    }
    assert_true(steps > 200); /* or the workload has lost its flushes and merges */
}

static void test_h25_crash_at_random_steps_of_many_histories(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 99);
    for (uint64_t seed = 2; seed < (is_long() ? 1000 : 80); seed++) {
        (void)run_crash_at(random_below(&random, 700), seed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h26_crash_at_every_step_keeps_data_and_frontier),
        cmocka_unit_test(test_h25_crash_at_random_steps_of_many_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
