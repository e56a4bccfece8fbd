/*
 * Changes of a store against its log: random entries, flushes at random times, a horizon that moves, reopening, key
 * ranges, asynchronous reads, checkpoints and ingest, repair.
 *
 * Would break these: an entry that is in no file and no memtable, or in both; an entry cut in two; a range delete that
 * is split or forgotten; files that stay below the horizon or go above it, or that a view still needs; a gap that isn't
 * told; a change file that nobody verifies; damage that yields a wrong change.
 */
#include "storage/repair.h"
#include "tests/unit/upkeep_fixture.h"

enum { GROWN = 400 };

static struct fixture *set_up_changes(uint64_t seed) {
    struct fixture *fixture = set_up_kind(seed, seed % 2 == 0 ? 0 : 200, true);
    fixture->host.options.change_compression = (enum compression)(seed % COMPRESSION_COUNT);
    host_reopen(&fixture->host);
    return fixture;
}

static struct storage_stats stats_of(struct fixture *fixture) {
    struct storage_stats stats;
    storage_get_stats(fixture->host.storage, &stats);
    return stats;
}

static void set_horizon(struct fixture *fixture, uint64_t revision) {
    fixture->model.horizon = revision;
    storage_set_horizon(fixture->host.storage, revision);
}

/* Nothing below the horizon is kept beyond what shares a file with it, nothing above is gone. */
static void check_horizon(struct fixture *fixture) {
    struct storage_stats stats = stats_of(fixture);
    assert_true(stats.changes_oldest <= (stats.horizon == 0 ? 1 : stats.horizon));
}

/* A part of it: from, until and bounds at random. */
static void check_some(struct fixture *fixture) {
    struct storage_view *view = storage_view_acquire(fixture->host.storage);
    uint64_t oldest = storage_view_changes_oldest(view);
    uint64_t revision = storage_view_revision(view);
    for (unsigned i = 0; i < 10 && oldest <= revision; i++) {
        unsigned lower = (unsigned)random_below(&fixture->random, MODEL_KEYS + 1);
        unsigned upper = (unsigned)random_below(&fixture->random, MODEL_KEYS + 1);
        uint8_t bytes[2][32];
        struct storage_changes *changes;
        struct error err;
        uint64_t from = oldest + random_below(&fixture->random, revision + 2 - oldest);
        uint64_t until = from > revision ? revision : from + random_below(&fixture->random, revision + 1 - from);
        struct storage_changes_options options = {.from = from,
                                                  .until = until,
                                                  .lower =
                                                      lower == MODEL_KEYS ? SLICE_EMPTY : model_key(lower, bytes[0]),
                                                  .upper =
                                                      upper == MODEL_KEYS ? SLICE_EMPTY : model_key(upper, bytes[1])};
        assert_int_equal(storage_changes_new(view, NULL, &options, &changes, &err), STATUS_OK);
        assert_int_equal(model_check_changes(&fixture->model, changes, model_next_blocking, &err, from, until, lower,
                                             upper),
                         STATUS_NOT_FOUND);
        storage_changes_free(changes);
    }
    storage_view_release(view);
}

static void run_history(uint64_t seed) {
    struct fixture *fixture = set_up_changes(seed);
    while (fixture->model.count < GROWN) {
        apply_some(fixture, 1 + random_below(&fixture->random, 40));
        if (random_chance(&fixture->random, 1, 3)) {
            host_flush(&fixture->host);
        }
        if (random_chance(&fixture->random, 1, 4) && fixture->model.count > 60) {
            uint64_t wanted = fixture->model.count - random_below(&fixture->random, 60);
            set_horizon(fixture, wanted > fixture->model.horizon ? wanted : fixture->model.horizon);
        }
        host_run_ms(&fixture->host, random_below(&fixture->random, 3));
        if (random_chance(&fixture->random, 1, 8)) {
            host_reopen(&fixture->host);
            model_replay(&fixture->model, &fixture->host);
            storage_set_horizon(fixture->host.storage, fixture->model.horizon);
        }
        model_check_all_changes(&fixture->model, &fixture->host);
        check_horizon(fixture);
        check_some(fixture);
    }
    assert_true(stats_of(fixture).change_bytes > 0);
    tear_down(fixture);
}

static void test_changes_of_random_histories_are_the_log(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        run_history(seed);
    }
}

/* A turn of the loop, so that it sees timers that were set from outside. */
static void nothing(struct env_message *message) { (void)message; }

static void let_time_pass(struct fixture *fixture) {
    static struct env_message message;
    message = (struct env_message){.run = nothing};
    env_post(fixture->host.loop, &message);
    host_run_ms(&fixture->host, 5000);
}

/* ---- The horizon ------------------------------------------------------------------------------------------------- */

static enum status count_changes(void *context, const char *name) {
    uint64_t number;
    *(unsigned *)context += file_name_parse(name, &number) == FILE_CHANGES;
    return STATUS_OK;
}

static unsigned count_change_files(struct fixture *fixture, const char *dir) {
    unsigned count = 0;
    assert_int_equal(env_list_dir(fixture->host.env, dir, count_changes, &count, NULL), STATUS_OK);
    return count;
}

static void test_changes_below_the_horizon_go_without_a_flush(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(2);
    apply_some(fixture, 100);
    settle(fixture);
    unsigned before = count_change_files(fixture, "/data");
    assert_true(before >= 3);
    assert_int_equal(stats_of(fixture).change_files, before);
    assert_int_equal(stats_of(fixture).changes_oldest, 1);
    struct storage_view *view = storage_view_acquire(fixture->host.storage);
    set_horizon(fixture, 100);
    let_time_pass(fixture);
    /* A view that was taken before still has them. */
    struct storage_changes_options options = {.from = 1};
    struct storage_changes *changes;
    struct error err;
    assert_int_equal(stats_of(fixture).change_files, 1); /* it has entry 100 */
    assert_true(count_change_files(fixture, "/data") >= before);
    assert_int_equal(storage_changes_new(view, NULL, &options, &changes, &err), STATUS_OK);
    assert_int_equal(model_check_changes(&fixture->model, changes, model_next_blocking, &err, 1, 100, MODEL_KEYS,
                                         MODEL_KEYS),
                     STATUS_NOT_FOUND);
    storage_changes_free(changes);
    storage_view_release(view);
    host_run_ms(&fixture->host, 5000);
    assert_int_equal(count_change_files(fixture, "/data"), 1);
    model_check_all_changes(&fixture->model, &fixture->host);
    tear_down(fixture);
}

static void test_changes_above_a_pin_stay(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(3);
    struct storage_pin pin = {.name = "backup", .revision = 10};
    apply_some(fixture, 100);
    settle(fixture);
    assert_int_equal(storage_pin_add(fixture->host.storage, &pin), STATUS_OK);
    set_horizon(fixture, 100);
    settle(fixture);
    assert_true(stats_of(fixture).changes_oldest <= 10);
    model_check_all_changes(&fixture->model, &fixture->host);
    storage_pin_remove(fixture->host.storage, &pin);
    let_time_pass(fixture);
    assert_true(stats_of(fixture).changes_oldest > 10);
    tear_down(fixture);
}

/* ---- On and off -------------------------------------------------------------------------------------------------- */

static void test_changes_without_files_begin_behind_the_last_flush(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(4);
    fixture->host.options.change_files = false;
    host_reopen(&fixture->host);
    apply_some(fixture, 5);
    assert_int_equal(stats_of(fixture).changes_oldest, 1);
    model_check_all_changes(&fixture->model, &fixture->host);
    host_flush(&fixture->host);
    assert_int_equal(count_change_files(fixture, "/data"), 0);
    assert_int_equal(stats_of(fixture).changes_oldest, fixture->model.count + 1);
    uint64_t gap_end = fixture->model.count;
    /* Switched on: from here on they are there, nothing from before. */
    fixture->host.options.change_files = true;
    host_reopen(&fixture->host);
    apply_some(fixture, 60);
    host_flush(&fixture->host);
    assert_int_equal(stats_of(fixture).changes_oldest, gap_end + 1);
    model_check_all_changes(&fixture->model, &fixture->host);
    /* Switched off again: a flush without one makes those before it useless. */
    fixture->host.options.change_files = false;
    host_reopen(&fixture->host);
    assert_int_equal(stats_of(fixture).changes_oldest, gap_end + 1);
    model_check_all_changes(&fixture->model, &fixture->host);
    apply_some(fixture, 30);
    settle(fixture);
    assert_int_equal(stats_of(fixture).change_files, 0);
    assert_int_equal(count_change_files(fixture, "/data"), 0);
    model_check_all_changes(&fixture->model, &fixture->host);
    tear_down(fixture);
}

/* ---- Large entries ----------------------------------------------------------------------------------------------- */

enum { WIDE_OPERATIONS = 6000 };

/* An entry that fills several blocks, between two others. */
static void test_changes_of_an_entry_larger_than_a_block_are_whole(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(5);
    struct batch_operation *operations = calloc(WIDE_OPERATIONS, sizeof *operations);
    char(*keys)[16] = calloc(WIDE_OPERATIONS, sizeof *keys);
    assert_non_null(operations);
    assert_non_null(keys);
    for (unsigned i = 0; i < WIDE_OPERATIONS; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "%07u-wide", i * 7919 % 1000003);
        operations[i] =
            (struct batch_operation){.kind = i % 3 == 0 ? BATCH_DELETE : BATCH_PUT, .key = slice_of_string(keys[i])};
    }
    (void)host_put(&fixture->host, "before", "1");
    uint64_t wide = host_apply(&fixture->host, operations, WIDE_OPERATIONS);
    (void)host_put(&fixture->host, "after", "1");
    host_flush(&fixture->host);
    struct storage_view *view = storage_view_acquire(fixture->host.storage);
    struct storage_changes_options options = {.from = wide};
    struct storage_changes *changes;
    struct change change;
    assert_int_equal(storage_changes_new(view, NULL, &options, &changes, NULL), STATUS_OK);
    for (unsigned i = 0; i < WIDE_OPERATIONS; i++) {
        assert_int_equal(storage_changes_next(changes, &change, NULL), STATUS_OK);
        assert_int_equal(change.revision, wide);
        assert_int_equal(change.ordinal, i);
        assert_int_equal(change.kind, operations[i].kind);
        assert_true(slice_equal(change.key, operations[i].key));
        assert_int_equal(storage_changes_done(changes), wide - 1);
    }
    assert_int_equal(storage_changes_next(changes, &change, NULL), STATUS_OK);
    assert_true(slice_equal(change.key, slice_of_string("after")));
    assert_int_equal(storage_changes_done(changes), wide);
    assert_int_equal(storage_changes_next(changes, &change, NULL), STATUS_NOT_FOUND);
    storage_changes_free(changes);
    storage_view_release(view);
    free(operations);
    free(keys);
    tear_down(fixture);
}

/* ---- Asynchronous reads ------------------------------------------------------------------------------------------ */

struct waiter {
    struct host *host;
    struct storage_io io;
    bool ready;
    unsigned waits;
};

static void on_ready(struct storage_io *io) { CONTAINER_OF(io, struct waiter, io)->ready = true; }

static enum status next_waiting(void *context, struct storage_changes *changes, struct change *ret_change) {
    struct waiter *waiter = context;
    enum status status;
    while ((status = storage_changes_next(changes, ret_change, NULL)) == STATUS_PENDING) {
        waiter->ready = false;
        waiter->waits++;
        storage_io_start(&waiter->io);
        while (!waiter->ready) {
            (void)sim_step(waiter->host->sim);
        }
    }
    return status;
}

static void test_changes_read_without_blocking_are_the_same(void **state) {
    (void)state;
    for (unsigned cached = 0; cached < 2; cached++) {
        struct fixture *fixture = set_up_changes(6);
        fixture->host.options.cache_bytes = cached ? 1 << 20 : 0;
        host_reopen(&fixture->host);
        apply_some(fixture, 120);
        host_flush(&fixture->host);
        apply_some(fixture, 10);
        host_crash(&fixture->host, SIM_CRASH_POWER); /* the page cache is empty */
        host_open(&fixture->host);
        model_replay(&fixture->model, &fixture->host);
        struct waiter waiter = {.host = &fixture->host};
        struct storage_changes *changes;
        struct storage_changes_options options = {.from = 7};
        struct storage_view *view = storage_view_acquire(fixture->host.storage);
        storage_io_init(&waiter.io, fixture->host.storage, fixture->host.loop, on_ready);
        assert_int_equal(storage_changes_new(view, &waiter.io, &options, &changes, NULL), STATUS_OK);
        assert_int_equal(model_check_changes(&fixture->model, changes, next_waiting, &waiter, 7, fixture->model.count,
                                             MODEL_KEYS, MODEL_KEYS),
                         STATUS_NOT_FOUND);
        assert_true(waiter.waits > 0);
        storage_changes_free(changes);
        storage_io_deinit(&waiter.io);
        storage_view_release(view);
        tear_down(fixture);
    }
}

/* ---- Damage ------------------------------------------------------------------------------------------------------ */

static void test_changes_that_are_damaged_are_never_wrong(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(7);
    char path[LIMIT_PATH_BYTES];
    unsigned refused = 0;
    apply_some(fixture, 60);
    host_flush(&fixture->host);
    host_close(&fixture->host);
    path_with(fixture, "/data", ".chg", path);
    uint64_t size = size_of(fixture, path);
    for (uint64_t at = 0; at < size; at += 3) {
        struct storage_verify_report report;
        struct error err;
        flip(fixture, path, at);
        assert_int_equal(storage_verify_dir(fixture->host.env, "/data", NULL, &report, &err), STATUS_CORRUPT);
        assert_non_null(strstr(err.message, ".chg"));
        host_open(&fixture->host); /* only those who need it are hurt */
        struct storage_view *view = storage_view_acquire(fixture->host.storage);
        struct storage_changes_options options = {.from = 1};
        struct storage_changes *changes;
        assert_int_equal(storage_changes_new(view, NULL, &options, &changes, &err), STATUS_OK);
        enum status status =
            model_check_changes(&fixture->model, changes, model_next_blocking, &err, 1, 60, MODEL_KEYS, MODEL_KEYS);
        assert_true(status == STATUS_NOT_FOUND || status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED);
        refused += status != STATUS_NOT_FOUND;
        storage_changes_free(changes);
        storage_view_release(view);
        host_close(&fixture->host);
        flip(fixture, path, at);
    }
    assert_true(refused > 0);
    host_open(&fixture->host);
    model_check_all_changes(&fixture->model, &fixture->host);
    tear_down(fixture);
}

static void test_changes_file_that_is_missing_is_noticed(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(8);
    char path[LIMIT_PATH_BYTES];
    struct error err;
    apply_some(fixture, 60);
    host_flush(&fixture->host);
    host_close(&fixture->host);
    path_with(fixture, "/data", ".chg", path);
    assert_int_equal(env_unlink(fixture->host.env, path, NULL), STATUS_OK);
    assert_int_equal(host_try_open(&fixture->host, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, ".chg"));
    tear_down(fixture);
}

/* ---- Whole stores ------------------------------------------------------------------------------------------------ */

static void test_changes_go_with_a_checkpoint(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(10);
    struct storage_verify_report report;
    struct error err;
    apply_some(fixture, 100);
    set_horizon(fixture, 40);
    assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
    assert_int_equal(count_change_files(fixture, "/copy"), stats_of(fixture).change_files);
    assert_int_equal(storage_verify_dir(fixture->host.env, "/copy", NULL, &report, &err), STATUS_OK);
    assert_true(report.changes > 0);
    assert_int_equal(report.unnamed_files, 0);
    struct host *copy = calloc(1, sizeof *copy);
    assert_non_null(copy);
    *copy = fixture->host;
    copy->options.dir = "/copy";
    copy->options.context = copy;
    host_open(copy);
    model_check_all_changes(&fixture->model, copy);
    host_close(copy);
    free(copy);
    host_close(&fixture->host);
    assert_int_equal(storage_destroy(fixture->host.env, "/copy", &err), STATUS_OK);
    assert_false(exists(fixture, "/copy"));
    tear_down(fixture);
}

static struct storage_ingest ingest;

static void on_ingested(struct storage_upkeep *upkeep) { ((struct fixture *)upkeep->context)->done_count++; }

/* `with`: the checkpoint has change files. */
static void ingest_checkpoint(bool with) {
    struct fixture *fixture = set_up_changes(2);
    fixture->host.options.change_files = with;
    host_reopen(&fixture->host);
    apply_some(fixture, 80);
    settle(fixture);
    assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
    host_close(&fixture->host);
    assert_int_equal(storage_destroy(fixture->host.env, "/data", NULL), STATUS_OK);
    fixture->host.options.change_files = true;
    host_open(&fixture->host);
    for (uint64_t index = 1; index <= 30; index++) {
        assert_true(host_wait(&fixture->host, host_can_apply));
        assert_int_equal(storage_apply(fixture->host.storage, index, 1, model_batch(&fixture->model, index), NULL),
                         STATUS_OK);
        storage_set_durable(fixture->host.storage, index);
    }
    fixture->done_count = 0;
    ingest = (struct storage_ingest){.upkeep = {.done = on_ingested, .context = fixture}, .dir = "/copy"};
    storage_ingest(fixture->host.storage, &ingest);
    assert_true(host_wait(&fixture->host, is_done));
    assert_int_equal(ingest.upkeep.status, STATUS_OK);
    assert_int_equal(stats_of(fixture).changes_oldest, with ? 1 : 81);
    model_check_all_changes(&fixture->model, &fixture->host);
    apply_some(fixture, 30);
    settle(fixture);
    model_check_all_changes(&fixture->model, &fixture->host);
    assert_int_equal(stats_of(fixture).changes_oldest, with ? 1 : 81);
    assert_int_equal(count_change_files(fixture, "/data"), stats_of(fixture).change_files);
    host_reopen(&fixture->host);
    model_check_all_changes(&fixture->model, &fixture->host);
    tear_down(fixture);
}

static void test_changes_come_with_an_ingest(void **state) {
    (void)state;
    ingest_checkpoint(true);
    ingest_checkpoint(false);
}

/* None is kept, and who asks for one is told. */
static void test_changes_of_a_repaired_store_begin_anew(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(4);
    struct storage_repair_options options = {.storage = &fixture->host.options};
    struct storage_repair_report report;
    char path[LIMIT_PATH_BYTES];
    struct error err;
    apply_some(fixture, 60);
    host_flush(&fixture->host);
    host_close(&fixture->host);
    path_with(fixture, "/data", ".chg", path);
    flip(fixture, path, size_of(fixture, path) / 2);
    assert_int_equal(storage_repair(&options, &report, &err), STATUS_OK);
    assert_false(report.was_sound);
    host_open(&fixture->host);
    model_check_all(&fixture->model, &fixture->host, 60);
    assert_int_equal(stats_of(fixture).changes_oldest, 61);
    assert_int_equal(count_change_files(fixture, "/data"), 0);
    model_check_all_changes(&fixture->model, &fixture->host);
    apply_some(fixture, 30);
    host_flush(&fixture->host);
    model_check_all_changes(&fixture->model, &fixture->host);
    assert_int_equal(stats_of(fixture).changes_oldest, 61);
    tear_down(fixture);
}

/* ---- Failures ---------------------------------------------------------------------------------------------------- */

/* A flush whose change file can't be written leaves nothing behind, not even the table that it had finished: the disk
 * is full, and the next attempts come every second. */
static void test_h31_changes_that_find_no_space_leave_no_table_behind(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(2);
    struct fault_set *faults = sim_node_faults(fixture->host.node);
    apply_some(fixture, 3);
    /* The table is written and synced, the change file isn't. */
    assert_int_equal(fault_arm(faults, "flush.write=error(ENOSPC),after=1,count=1", NULL), STATUS_OK);
    storage_flush(fixture->host.storage);
    host_run_ms(&fixture->host, 500);
    assert_int_equal(fixture->host.full_count, 1);
    assert_int_equal(names_of(fixture, "/data").count, 3); /* CURRENT, manifest, lock */
    assert_true(host_wait(&fixture->host, host_all_flushed));
    assert_int_equal(fixture->host.free_count, 1);
    assert_int_equal(count_change_files(fixture, "/data"), 1);
    model_check_all_changes(&fixture->model, &fixture->host);
    tear_down(fixture);
}

/* Every allocation fails in turn: nothing is lost or leaked, nothing wrong is said. */
static void test_changes_without_memory_say_so_and_lose_nothing(void **state) {
    (void)state;
    struct fixture *fixture = set_up_changes(3);
    fixture->host.options.cache_bytes = 0;
    host_reopen(&fixture->host);
    apply_some(fixture, 60);
    host_flush(&fixture->host);
    apply_some(fixture, 2);
    model_check_all_changes(&fixture->model, &fixture->host);
    uint64_t blocks = host_live_blocks(&fixture->host);
    unsigned failures = 0;
    for (uint64_t n = 1;; n++) {
        struct storage_view *view = storage_view_acquire(fixture->host.storage);
        struct storage_changes_options options = {.from = 1};
        struct storage_changes *changes = NULL;
        struct error err;
        sim_node_fail_allocation(fixture->host.node, n);
        enum status status = storage_changes_new(view, NULL, &options, &changes, &err);
        if (status == STATUS_OK) {
            status =
                model_check_changes(&fixture->model, changes, model_next_blocking, &err, 1, 62, MODEL_KEYS, MODEL_KEYS);
        }
        sim_node_fail_allocation(fixture->host.node, 0);
        storage_changes_free(changes);
        storage_view_release(view);
        assert_int_equal(host_live_blocks(&fixture->host), blocks);
        if (status == STATUS_NOT_FOUND) {
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        failures++;
    }
    assert_true(failures >= 1);
    tear_down(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes_of_random_histories_are_the_log),
        cmocka_unit_test(test_changes_below_the_horizon_go_without_a_flush),
        cmocka_unit_test(test_changes_above_a_pin_stay),
        cmocka_unit_test(test_changes_without_files_begin_behind_the_last_flush),
        cmocka_unit_test(test_changes_of_an_entry_larger_than_a_block_are_whole),
        cmocka_unit_test(test_changes_read_without_blocking_are_the_same),
        cmocka_unit_test(test_changes_that_are_damaged_are_never_wrong),
        cmocka_unit_test(test_changes_file_that_is_missing_is_noticed),
        cmocka_unit_test(test_changes_go_with_a_checkpoint),
        cmocka_unit_test(test_changes_come_with_an_ingest),
        cmocka_unit_test(test_changes_of_a_repaired_store_begin_anew),
        cmocka_unit_test(test_h31_changes_that_find_no_space_leave_no_table_behind),
        cmocka_unit_test(test_changes_without_memory_say_so_and_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
