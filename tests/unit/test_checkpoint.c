/*
 * Checkpoints: stores of their own beside the one that goes on.
 *
 * Would break these: a version and a frontier of different edits; files that a compaction unlinks before they are
 * linked; a name or a manifest that isn't synced before the checkpoint is at its place; leftovers of an earlier attempt
 * taken along; copies where links would do; a checkpoint that is newer than the durable log (hazard 49); a close that
 * waits for the end of it, or forgets it.
 */
#include "storage/manifest.h"
#include "tests/unit/upkeep_fixture.h"

static void test_checkpoint_with_flush_has_all_that_was_applied(void **state) {
    (void)state;
    struct fixture *fixture = set_up(1);
    apply_some(fixture, ENTRIES);
    assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
    assert_int_equal(fixture->checkpoint.frontier.index, ENTRIES);
    assert_true(fixture->checkpoint.files > 3);
    assert_int_equal(fixture->checkpoint.copied_bytes, 0);
    assert_int_equal(fixture->checkpoint.upkeep.done_bytes, fixture->checkpoint.bytes);
    assert_int_equal(fixture->checkpoint.upkeep.total_bytes, fixture->checkpoint.bytes);
    /* All tables, a manifest, CURRENT. */
    struct names names = names_of(fixture, "/copy");
    assert_int_equal(names.count, fixture->checkpoint.files + 2);
    assert_int_equal(names.strangers, 0);
    assert_false(exists(fixture, "/copy.tmp"));
    apply_some(fixture, ENTRIES);
    check(fixture, "/copy", ENTRIES);
    model_check_all(&fixture->model, &fixture->host, 2 * ENTRIES);
    tear_down(fixture);
}

static void test_checkpoint_has_the_value_files_and_verify_reads_them(void **state) {
    (void)state;
    struct fixture *fixture = set_up_with(12, 64);
    struct storage_verify_report report;
    struct error err;
    char path[LIMIT_PATH_BYTES];
    apply_some(fixture, ENTRIES);
    assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
    path_with(fixture, "/copy", ".val", path);
    assert_int_equal(fixture->checkpoint.upkeep.done_bytes, fixture->checkpoint.upkeep.total_bytes);
    assert_int_equal(storage_verify_dir(fixture->host.env, "/copy", NULL, &report, &err), STATUS_OK);
    assert_int_equal(report.unnamed_files + report.other_files, 0);
    assert_int_equal(report.bytes, fixture->checkpoint.bytes);
    flip(fixture, path, 100);
    assert_int_equal(storage_verify_dir(fixture->host.env, "/copy", NULL, &report, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, path));
    flip(fixture, path, 100);
    apply_some(fixture, ENTRIES);
    settle(fixture);
    check(fixture, "/copy", ENTRIES);
    model_check_all(&fixture->model, &fixture->host, 2 * ENTRIES);
    assert_int_equal(storage_destroy(fixture->host.env, "/copy", NULL), STATUS_OK);
    assert_false(exists(fixture, "/copy"));
    tear_down(fixture);
}

static void test_checkpoint_without_flush_is_the_manifests_frontier(void **state) {
    (void)state;
    struct fixture *fixture = set_up(2);
    assert_int_equal(make(fixture, "/empty", false), STATUS_OK);
    assert_int_equal(fixture->checkpoint.frontier.index, 0);
    assert_int_equal(fixture->checkpoint.files, 0);
    apply_some(fixture, 40);
    host_flush(&fixture->host);
    apply_some(fixture, 1);
    assert_int_equal(make(fixture, "/copy", false), STATUS_OK);
    assert_int_equal(fixture->checkpoint.frontier.index, 40);
    check(fixture, "/copy", 40);
    check(fixture, "/empty", 0);
    tear_down(fixture);
}

static void test_checkpoint_costs_no_copying(void **state) {
    (void)state;
    struct fixture *fixture = set_up(3);
    struct sim_stats before;
    struct sim_stats after;
    apply_some(fixture, 5000);
    settle(fixture);
    sim_get_stats(fixture->host.sim, &before);
    assert_int_equal(make(fixture, "/copy", false), STATUS_OK);
    sim_get_stats(fixture->host.sim, &after);
    assert_true(fixture->checkpoint.bytes > 500 * 1024);
    assert_true(after.file_bytes_written - before.file_bytes_written < 24 * 1024 + MANIFEST_PREPARED_BYTES);
    assert_true(after.file_bytes_read - before.file_bytes_read < 1024);
    tear_down(fixture);
}

static void test_checkpoint_to_another_file_system_is_copied(void **state) {
    (void)state;
    struct fixture *fixture = set_up(4);
    apply_some(fixture, ENTRIES);
    sim_disk_options(fixture->host.node)->links_refused = true;
    assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
    assert_int_equal(fixture->checkpoint.copied_bytes, fixture->checkpoint.bytes);
    host_crash(&fixture->host, SIM_CRASH_POWER);
    check(fixture, "/copy", ENTRIES);
    tear_down(fixture);
}

/* The slowest disk: every compaction that there is to do ends while the links are made. */
static void test_checkpoint_keeps_files_that_compactions_replace(void **state) {
    (void)state;
    struct fixture *fixture = set_up(5);
    for (unsigned round = 0; round < 20; round++) {
        char dir[16];
        (void)snprintf(dir, sizeof dir, "/copy%u", round);
        apply_some(fixture, 60);
        ask(fixture, dir, true);
        uint64_t index = fixture->model.count;
        for (unsigned i = 0; i < 60 && fixture->done_count == 0; i++) {
            apply_some(fixture, 1);
            (void)sim_step(fixture->host.sim);
        }
        assert_true(host_wait(&fixture->host, is_done));
        assert_int_equal(fixture->checkpoint.upkeep.status, STATUS_OK);
        assert_true(fixture->checkpoint.frontier.index >= index);
        check(fixture, dir, fixture->checkpoint.frontier.index);
    }
    tear_down(fixture);
}

static void test_checkpoint_where_something_is_says_exists(void **state) {
    (void)state;
    struct fixture *fixture = set_up(6);
    apply_some(fixture, 50);
    assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
    assert_int_equal(make(fixture, "/copy", true), STATUS_EXISTS);
    assert_non_null(strstr(fixture->checkpoint.upkeep.error.message, "/copy"));
    assert_int_equal(make(fixture, "/data", true), STATUS_EXISTS);
    assert_int_equal(make(fixture, "/none/copy", true), STATUS_NOT_FOUND);
    assert_int_equal(make(fixture, "", true), STATUS_INVALID);
    char long_dir[LIMIT_PATH_BYTES - 20];
    memset(long_dir, 'x', sizeof long_dir);
    long_dir[0] = '/';
    long_dir[sizeof long_dir - 1] = '\0';
    assert_int_equal(make(fixture, long_dir, true), STATUS_INVALID);
    check(fixture, "/copy", 50);
    model_check_all(&fixture->model, &fixture->host, 50);
    tear_down(fixture);
}

static void test_checkpoint_clears_what_an_earlier_attempt_left(void **state) {
    (void)state;
    struct fixture *fixture = set_up(7);
    struct env_file *file;
    apply_some(fixture, 50);
    assert_int_equal(env_mkdir(fixture->host.env, "/copy.tmp", NULL), STATUS_OK);
    static const char *const left[] = {"/copy.tmp/CURRENT", "/copy.tmp/0000000000000002.sst",
                                       "/copy.tmp/MANIFEST-0000000000000001", "/copy.tmp/0000000000000fff.sst"};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        assert_int_equal(env_open(fixture->host.env, left[i], ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, NULL),
                         STATUS_OK);
        env_close(file);
    }
    assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
    assert_int_equal(names_of(fixture, "/copy").count, fixture->checkpoint.files + 2);
    check(fixture, "/copy", 50);
    tear_down(fixture);
}

static void test_checkpoints_run_one_after_the_other(void **state) {
    (void)state;
    struct fixture *fixture = set_up(8);
    struct storage_checkpoint *more = calloc(3, sizeof *more);
    assert_non_null(more);
    apply_some(fixture, 50);
    ask(fixture, "/copy", true);
    for (unsigned i = 0; i < 3; i++) {
        more[i].upkeep = (struct storage_upkeep){.done = on_done, .context = fixture};
        (void)snprintf(more[i].dir, sizeof more[i].dir, "/more%u", i);
        storage_checkpoint(fixture->host.storage, &more[i]);
    }
    storage_upkeep_cancel(&more[1].upkeep);
    while (fixture->done_count < 4) {
        assert_true(sim_step(fixture->host.sim));
    }
    assert_int_equal(fixture->checkpoint.upkeep.status, STATUS_OK);
    assert_int_equal(more[0].upkeep.status, STATUS_OK);
    assert_int_equal(more[1].upkeep.status, STATUS_CANCELLED);
    assert_int_equal(more[2].upkeep.status, STATUS_OK);
    assert_false(exists(fixture, "/more1"));
    assert_false(exists(fixture, "/more1.tmp"));
    check(fixture, "/more2", 50);
    free(more);
    tear_down(fixture);
}

static void test_close_cancels_checkpoint_and_calls_nobody(void **state) {
    (void)state;
    for (uint64_t steps = 0; steps < 120; steps += 3) {
        struct fixture *fixture = set_up(9);
        apply_some(fixture, 80);
        ask(fixture, "/copy", true);
        for (uint64_t i = 0; i < steps; i++) {
            (void)sim_step(fixture->host.sim);
        }
        unsigned done = fixture->done_count;
        host_close(&fixture->host);
        assert_int_equal(fixture->done_count, done);
        /* Whole, or nothing; and what was left of it is gone. */
        assert_false(exists(fixture, "/copy.tmp"));
        if (exists(fixture, "/copy")) {
            check(fixture, "/copy", fixture->checkpoint.frontier.index);
        }
        tear_down(fixture);
    }
}

static void test_checkpoint_that_fails_leaves_nothing_and_the_store_goes_on(void **state) {
    (void)state;
    struct fixture *fixture = set_up(10);
    apply_some(fixture, 80);
    settle(fixture);
    uint64_t blocks = host_live_blocks(&fixture->host);
    sim_disk_options(fixture->host.node)->sync_error_ppm = 1000 * 1000;
    assert_int_equal(make(fixture, "/copy", false), STATUS_IO);
    sim_disk_options(fixture->host.node)->sync_error_ppm = 0;
    assert_false(exists(fixture, "/copy"));
    host_run_ms(&fixture->host, 100);
    assert_int_equal(host_live_blocks(&fixture->host), blocks);
    assert_int_equal(make(fixture, "/copy", false), STATUS_OK);
    check(fixture, "/copy", 80);
    assert_int_equal(fixture->host.failed_count, 0);
    tear_down(fixture);
}

static void test_checkpoint_without_memory_says_so_and_loses_none(void **state) {
    (void)state;
    struct fixture *fixture = set_up(11);
    apply_some(fixture, 80);
    settle(fixture);
    uint64_t blocks = host_live_blocks(&fixture->host);
    for (uint64_t n = 1;; n++) {
        assert_true(n < 50);
        sim_node_fail_allocation(fixture->host.node, n);
        enum status status = make(fixture, "/copy", false);
        sim_node_fail_allocation(fixture->host.node, 0);
        host_run_ms(&fixture->host, 100);
        assert_int_equal(host_live_blocks(&fixture->host), blocks);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_false(exists(fixture, "/copy"));
    }
    check(fixture, "/copy", 80);
    tear_down(fixture);
}

/* ---- Crashes ------------------------------------------------------------------------------------------------- */

/* Steps until done or it is time to crash, applying on the way; the log is durable some entries behind. True: done. */
static bool run_until_crash(struct fixture *fixture, uint64_t steps, uint64_t *durable) {
    struct storage *storage = fixture->host.storage;
    for (uint64_t i = 0; i < steps; i++) {
        if (fixture->done_count > 0) {
            return true;
        }
        if (i % 8 == 0 && storage_can_apply(storage)) {
            uint64_t index = model_grow(&fixture->model, &fixture->random);
            assert_int_equal(storage_apply(storage, index, 1, model_batch(&fixture->model, index), NULL), STATUS_OK);
            if (index - *durable > 6) {
                *durable = index - 3;
                storage_set_durable(storage, *durable);
            }
        }
        (void)sim_step(fixture->host.sim);
    }
    return fixture->done_count > 0;
}

/* True: the checkpoint was done before the crash. */
static bool crash_at(uint64_t steps, uint64_t seed) {
    struct fixture *fixture = set_up(seed);
    apply_some(fixture, 60);
    uint64_t durable = fixture->model.count;
    ask(fixture, "/copy", steps % 2 == 0);
    bool done = run_until_crash(fixture, steps, &durable);
    if (done) {
        assert_int_equal(fixture->checkpoint.upkeep.status, STATUS_OK);
    }
    host_crash(&fixture->host, random_chance(&fixture->random, 3, 4) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
    if (exists(fixture, "/copy")) {
        assert_true(fixture->checkpoint.frontier.index <= durable);
        check(fixture, "/copy", fixture->checkpoint.frontier.index);
    } else {
        assert_false(done);
    }
    /* The store itself took no harm, and the next attempt isn't in the way of what is left. */
    host_open(&fixture->host);
    model_check_all(&fixture->model, &fixture->host, storage_frontier(fixture->host.storage)->index);
    assert_int_equal(make(fixture, "/next", false), STATUS_OK);
    if (!exists(fixture, "/copy")) {
        assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
        assert_int_equal(names_of(fixture, "/copy").count, fixture->checkpoint.files + 2);
    }
    tear_down(fixture);
    return done;
}

static void test_h49_crash_at_every_step_leaves_nothing_or_all_and_never_more_than_the_log(void **state) {
    (void)state;
    const char *length = getenv("HOLDFAST_TEST_LENGTH");
    bool is_long = length != NULL && strcmp(length, "long") == 0;
    uint64_t steps = 0;
    for (unsigned done = 0; done < 6; steps++) {
        for (uint64_t seed = 1; seed <= (is_long ? 20 : 2); seed++) {
            done += crash_at(steps, seed);
        }
        assert_true(steps < 3000);
    }
    assert_true(steps > 40); /* or the checkpoint has lost its steps */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_with_flush_has_all_that_was_applied),
        cmocka_unit_test(test_checkpoint_has_the_value_files_and_verify_reads_them),
        cmocka_unit_test(test_checkpoint_without_flush_is_the_manifests_frontier),
        cmocka_unit_test(test_checkpoint_costs_no_copying),
        cmocka_unit_test(test_checkpoint_to_another_file_system_is_copied),
        cmocka_unit_test(test_checkpoint_keeps_files_that_compactions_replace),
        cmocka_unit_test(test_checkpoint_where_something_is_says_exists),
        cmocka_unit_test(test_checkpoint_clears_what_an_earlier_attempt_left),
        cmocka_unit_test(test_checkpoints_run_one_after_the_other),
        cmocka_unit_test(test_close_cancels_checkpoint_and_calls_nobody),
        cmocka_unit_test(test_checkpoint_that_fails_leaves_nothing_and_the_store_goes_on),
        cmocka_unit_test(test_checkpoint_without_memory_says_so_and_loses_none),
        cmocka_unit_test(test_h49_crash_at_every_step_leaves_nothing_or_all_and_never_more_than_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
