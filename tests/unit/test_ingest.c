/*
 * Ingest: a checkpoint becomes the content of a store that is open.
 *
 * Would break these: tables of both contents in one version; a frontier without its tables, or the other way round,
 * after a crash at any step (hazard 21); jobs of the old content that write to the new one; a checkpoint that isn't
 * verified; a store that goes back; files of the old content that stay; views that lose what they showed; a
 * switch that the owner of the log wasn't asked about, or hears of too late; verifying that takes the machine for
 * itself, or can't be stopped. A store that may go back and shows that to readers, loses it at a crash, or shows the
 * new content before it is as far as the old one was.
 */
#include "tests/unit/upkeep_fixture.h"

/* The store of another node of the cluster, which makes the checkpoint, and ours, which gets it. */
struct pair {
    struct fixture *source;
    struct fixture *target; /* on the same machine, so on the same disk */
    struct storage_ingest ingest;
};

static void make_target(struct pair *pair, uint64_t entries) {
    struct fixture *target = calloc(1, sizeof *target);
    assert_non_null(target);
    random_seed(&target->random, 77);
    target->host = pair->source->host;
    target->host.storage = NULL;
    target->host.options.dir = "/target";
    target->host.options.node_id = 2;
    target->host.options.context = &target->host;
    pair->target = target;
    host_open(&target->host);
    apply_some(target, entries);
}

static void set_up_pair_with(struct pair *pair, uint64_t seed, uint64_t value_threshold_bytes, uint64_t entries,
                             uint64_t target_entries) {
    *pair = (struct pair){.source = set_up_with(seed, value_threshold_bytes)};
    apply_some(pair->source, entries);
    assert_int_equal(make(pair->source, "/copy", true), STATUS_OK);
    make_target(pair, target_entries);
}

static void set_up_pair(struct pair *pair, uint64_t seed, uint64_t entries, uint64_t target_entries) {
    set_up_pair_with(pair, seed, 0, entries, target_entries);
}

static void tear_down_pair(struct pair *pair) {
    if (pair->target->host.storage != NULL) {
        host_close(&pair->target->host);
    }
    free(pair->target);
    tear_down(pair->source);
}

static void ask_to_ingest(struct pair *pair, const char *dir) {
    struct fixture *target = pair->target;
    target->done_count = 0;
    pair->ingest = (struct storage_ingest){.upkeep = {.done = on_done, .context = target}};
    (void)snprintf(pair->ingest.dir, sizeof pair->ingest.dir, "%s", dir);
    storage_ingest(target->host.storage, &pair->ingest);
    assert_false(storage_can_apply(target->host.storage));
}

static enum status ingest(struct pair *pair, const char *dir) {
    ask_to_ingest(pair, dir);
    assert_true(host_wait(&pair->target->host, is_done));
    return pair->ingest.upkeep.status;
}

/* The target's further entries belong to the source's history. */
static void join_histories(struct pair *pair) {
    pair->target->model = pair->source->model;
    pair->target->random = pair->source->random;
}

static unsigned count_files(struct fixture *fixture, const char *dir) {
    struct names names = names_of(fixture, dir);
    assert_int_equal(names.strangers, 1); /* the lock */
    return names.count - 3;
}

static uint64_t live_files(struct fixture *fixture) {
    struct storage_stats stats;
    storage_get_stats(fixture->host.storage, &stats);
    return stats.files[0] + host_deep_files(&fixture->host) + stats.value_files;
}

static void test_ingest_replaces_everything_and_the_store_goes_on(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair(&pair, 1, 200, 130);
    struct fixture *target = pair.target;
    struct storage_view *view = storage_view_acquire(target->host.storage);
    struct error err;
    unsigned can_apply_count = target->host.can_apply_count;
    assert_int_equal(ingest(&pair, "/copy"), STATUS_OK);
    assert_true(target->host.can_apply_count > can_apply_count);
    assert_int_equal(pair.ingest.frontier.index, 200);
    assert_int_equal(storage_applied_index(target->host.storage), 200);
    assert_int_equal(storage_applied_term(target->host.storage), 1);
    host_assert_frontier(storage_frontier(target->host.storage));
    /* Who looked before sees what was there. */
    error_clear(&err);
    assert_int_equal(storage_view_revision(view), 130);
    for (unsigned key = 0; key < MODEL_KEYS; key++) {
        enum status status = model_check_key(&target->model, view, key, 130, &err);
        assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND);
    }
    storage_view_release(view);
    join_histories(&pair);
    model_check_all(&target->model, &target->host, 200);
    apply_some(target, 100);
    settle(target);
    model_check_all(&target->model, &target->host, 300);
    assert_int_equal(count_files(target, "/target"), live_files(target));
    host_reopen(&target->host);
    assert_int_equal(storage_applied_index(target->host.storage), 300);
    model_check_all(&target->model, &target->host, 300);
    /* The checkpoint took no harm. */
    check(pair.source, "/copy", 200);
    assert_int_equal(target->host.failed_count, 0);
    tear_down_pair(&pair);
}

/* ---- Going back ------------------------------------------------------------------------------------------------- */

enum { COPIED = 130, SHOWN = 200 };

/* The target has applied SHOWN entries of a history that is wrong; the checkpoint has COPIED of the right one. */
static void set_up_wrong(struct pair *pair, uint64_t seed) {
    set_up_pair(pair, seed, COPIED, SHOWN);
    apply_some(pair->source, SHOWN - COPIED);
}

static void go_back(struct pair *pair) {
    struct fixture *target = pair->target;
    target->done_count = 0;
    pair->ingest = (struct storage_ingest){.may_go_back = true, .upkeep = {.done = on_done, .context = target}};
    (void)snprintf(pair->ingest.dir, sizeof pair->ingest.dir, "/copy");
    storage_ingest(target->host.storage, &pair->ingest);
    assert_true(storage_can_apply(target->host.storage)); /* until the store stands still for the switch */
    assert_true(host_wait(&target->host, is_done));
    assert_int_equal(pair->ingest.upkeep.status, STATUS_OK);
    target->host.flushed.index = 0; /* the frontier went back, too */
}

/* The right entries, from what the target has up to this one. */
static void apply_again(struct pair *pair, uint64_t end_index) {
    struct storage *storage = pair->target->host.storage;
    for (uint64_t index = storage_inserted_index(storage) + 1; index <= end_index; index++) {
        assert_true(host_wait(&pair->target->host, host_can_apply));
        struct slice batch = model_batch(&pair->source->model, index);
        assert_int_equal(storage_apply(storage, index, 1, batch, NULL), STATUS_OK);
        storage_set_durable(storage, index);
    }
}

/* Readers see what they saw until the new content has come as far, and then that: at no moment anything in between. */
static void test_ingest_that_goes_back_shows_the_old_content_until_it_has_caught_up(void **state) {
    (void)state;
    struct pair pair;
    set_up_wrong(&pair, 31);
    struct host *host = &pair.target->host;
    struct storage_view *view = storage_view_acquire(host->storage);
    go_back(&pair);
    assert_int_equal(pair.ingest.frontier.index, COPIED);
    assert_int_equal(storage_frontier(host->storage)->index, COPIED);
    assert_int_equal(storage_inserted_index(host->storage), COPIED);
    for (uint64_t index = COPIED; index < SHOWN; index += 10) {
        apply_again(&pair, index < SHOWN - 1 ? index : SHOWN - 1);
        assert_int_equal(storage_applied_index(host->storage), SHOWN);
        model_check_all(&pair.target->model, host, SHOWN);
        storage_flush(host->storage); /* a version that is published shows nothing new either */
        host_run_ms(host, 20);
    }
    apply_again(&pair, SHOWN - 1);
    host_run_ms(host, 5000); /* compactions, too */
    model_check_all(&pair.target->model, host, SHOWN);
    apply_again(&pair, SHOWN);
    assert_int_equal(storage_applied_index(host->storage), SHOWN);
    model_check_all(&pair.source->model, host, SHOWN);
    assert_int_equal(storage_view_revision(view), SHOWN);
    storage_view_release(view);
    join_histories(&pair);
    apply_some(pair.target, 100);
    settle(pair.target);
    model_check_all(&pair.target->model, host, SHOWN + 100);
    assert_int_equal(count_files(pair.target, "/target"), live_files(pair.target)); /* the old ones went */
    host_reopen(host);
    assert_int_equal(storage_applied_index(host->storage), SHOWN + 100);
    model_check_all(&pair.target->model, host, SHOWN + 100);
    tear_down_pair(&pair);
}

/* What was shown is no promise of the store's: the log has it. A start begins at the frontier, with the new content. */
static void test_ingest_that_goes_back_is_a_start_like_any_after_a_crash(void **state) {
    (void)state;
    for (uint64_t end_index = COPIED; end_index <= SHOWN; end_index += 35) {
        struct pair pair;
        set_up_wrong(&pair, 32);
        struct host *host = &pair.target->host;
        go_back(&pair);
        apply_again(&pair, end_index);
        host_reopen(host);
        uint64_t index = storage_applied_index(host->storage);
        assert_true(index >= COPIED && index <= end_index);
        assert_int_equal(storage_inserted_index(host->storage), index);
        model_check_all(&pair.source->model, host, index);
        apply_again(&pair, SHOWN);
        model_check_all(&pair.source->model, host, SHOWN);
        tear_down_pair(&pair);
    }
}

/* A horizon that is wanted for what is shown must not stand above what the store has: after a crash nothing of it could
 * be read. */
static void test_ingest_that_goes_back_keeps_the_horizon_below_what_it_has(void **state) {
    (void)state;
    struct pair pair;
    set_up_wrong(&pair, 34);
    struct host *host = &pair.target->host;
    go_back(&pair);
    storage_set_horizon(host->storage, SHOWN);
    assert_int_equal(storage_horizon(host->storage), COPIED);
    apply_again(&pair, SHOWN - 20);
    assert_int_equal(storage_horizon(host->storage), SHOWN - 20);
    storage_flush(host->storage);
    host_run_ms(host, 5000);
    assert_int_equal(storage_frontier(host->storage)->index, SHOWN - 20);
    host_reopen(host);
    assert_int_equal(storage_applied_index(host->storage), SHOWN - 20);
    model_check_all(&pair.source->model, host, SHOWN - 20);
    tear_down_pair(&pair);
}

/* Who may go back may go forward, too, and is there at once. */
static void test_ingest_that_may_go_back_and_needn_t_is_seen_at_once(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair(&pair, 33, 200, 130);
    go_back(&pair);
    assert_int_equal(storage_applied_index(pair.target->host.storage), 200);
    join_histories(&pair);
    model_check_all(&pair.target->model, &pair.target->host, 200);
    tear_down_pair(&pair);
}

/* Who verifies must not take the disk and the processor from those who wait for an answer. */
static void test_ingest_keeps_to_its_rate_and_can_be_cancelled_meanwhile(void **state) {
    (void)state;
    enum { RATE = 20 * 1000 };
    for (int round = 0; round < 2; round++) {
        struct pair pair;
        set_up_pair(&pair, 12, 200, 0);
        struct fixture *target = pair.target;
        struct sim *sim = target->host.sim;
        uint64_t begin_us = sim_now_us(sim);
        pair.ingest = (struct storage_ingest){.upkeep = {.done = on_done, .context = target}, .dir = "/copy"};
        pair.ingest.bytes_per_second = RATE;
        target->done_count = 0;
        storage_ingest(target->host.storage, &pair.ingest);
        while (target->done_count == 0 && sim_now_us(sim) < begin_us + 60 * 1000 * 1000) {
            assert_true(sim_step(sim));
            bool is_late = round == 1 && sim_now_us(sim) > begin_us + 100 * 1000;
            if (is_late && !atomic_load(&pair.ingest.upkeep.is_cancelled)) {
                storage_upkeep_cancel(&pair.ingest.upkeep);
            }
        }
        uint64_t total_bytes = atomic_load(&pair.ingest.upkeep.total_bytes);
        uint64_t took_us = sim_now_us(sim) - begin_us;
        assert_true(total_bytes > RATE / 2);
        if (round == 0) {
            assert_int_equal(pair.ingest.upkeep.status, STATUS_OK);
            assert_in_range(took_us, total_bytes * 900 * 1000 / RATE, total_bytes * 1100 * 1000 / RATE + 500 * 1000);
        } else {
            assert_int_equal(pair.ingest.upkeep.status, STATUS_CANCELLED);
            assert_true(took_us < 300 * 1000);
        }
        tear_down_pair(&pair);
    }
}

static void test_ingest_of_a_copy_into_an_empty_store(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair(&pair, 2, 150, 0);
    sim_disk_options(pair.source->host.node)->links_refused = true;
    assert_int_equal(ingest(&pair, "/copy"), STATUS_OK);
    join_histories(&pair);
    model_check_all(&pair.target->model, &pair.target->host, 150);
    /* And once more, at the same index: healing. */
    assert_int_equal(ingest(&pair, "/copy"), STATUS_OK);
    model_check_all(&pair.target->model, &pair.target->host, 150);
    assert_int_equal(storage_destroy(pair.source->host.env, "/copy", NULL), STATUS_OK);
    host_reopen(&pair.target->host);
    model_check_all(&pair.target->model, &pair.target->host, 150);
    tear_down_pair(&pair);
}

/* Flushes, compactions and edits of the old content are under way when the new one comes, at any point of it. */
static void test_h33_ingest_while_jobs_are_under_way_keeps_nothing_of_them(void **state) {
    (void)state;
    bool was_in_time = true;
    for (uint64_t steps = 0; was_in_time; steps += 2) {
        struct pair pair;
        set_up_pair(&pair, 3, 170, 100);
        struct fixture *target = pair.target;
        settle(target);
        apply_some(target, 20);
        ask_to_ingest(&pair, "/copy");
        for (uint64_t i = 0; i < steps && target->done_count == 0; i++) {
            (void)sim_step(target->host.sim);
        }
        was_in_time = target->done_count == 0;
        storage_flush(target->host.storage);
        assert_true(host_wait(&target->host, is_done));
        assert_int_equal(pair.ingest.upkeep.status, STATUS_OK);
        join_histories(&pair);
        model_check_all(&target->model, &target->host, 170);
        settle(target);
        assert_int_equal(count_files(target, "/target"), live_files(target));
        host_reopen(&target->host);
        model_check_all(&target->model, &target->host, 170);
        tear_down_pair(&pair);
    }
}

static void assert_unchanged(struct pair *pair, uint64_t index) {
    struct fixture *target = pair->target;
    assert_true(pair->ingest.upkeep.error.message[0] != '\0');
    assert_int_equal(storage_applied_index(target->host.storage), index);
    model_check_all(&target->model, &target->host, index);
    settle(target);
    assert_int_equal(count_files(target, "/target"), live_files(target));
    assert_int_equal(target->host.failed_count, 0);
}

static void test_ingest_refuses_what_is_older_damaged_or_anothers(void **state) {
    (void)state;
    struct pair pair;
    char path[LIMIT_PATH_BYTES];
    set_up_pair(&pair, 4, 100, 130);
    assert_int_equal(ingest(&pair, "/copy"), STATUS_INVALID);
    assert_unchanged(&pair, 130);
    assert_int_equal(ingest(&pair, "/none"), STATUS_NOT_FOUND);
    assert_int_equal(ingest(&pair, "/data"), STATUS_BUSY);
    assert_int_equal(ingest(&pair, "/target"), STATUS_BUSY);
    apply_some(pair.source, 100);
    assert_int_equal(make(pair.source, "/newer", true), STATUS_OK);
    path_with(pair.source, "/newer", ".sst", path);
    flip(pair.source, path, 200);
    assert_int_equal(ingest(&pair, "/newer"), STATUS_CORRUPT);
    assert_non_null(strstr(pair.ingest.upkeep.error.message, path));
    flip(pair.source, path, 200);
    assert_unchanged(&pair, 130);
    flip(pair.source, "/newer/CURRENT", 24);
    assert_int_equal(ingest(&pair, "/newer"), STATUS_CORRUPT);
    flip(pair.source, "/newer/CURRENT", 24);
    apply_some(pair.target, 20);
    assert_int_equal(ingest(&pair, "/newer"), STATUS_OK);
    join_histories(&pair);
    model_check_all(&pair.target->model, &pair.target->host, 200);
    tear_down_pair(&pair);
}

static void test_ingest_of_another_cluster_is_invalid(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair(&pair, 6, 100, 0);
    host_close(&pair.target->host);
    assert_int_equal(storage_destroy(pair.target->host.env, "/target", NULL), STATUS_OK);
    pair.target->host.options.cluster_id[3] ^= 1;
    host_open(&pair.target->host);
    assert_int_equal(ingest(&pair, "/copy"), STATUS_INVALID);
    assert_unchanged(&pair, 0);
    tear_down_pair(&pair);
}

/* Ours has value files, too, and they go. Taken in twice, the same ids come again under other numbers. */
static void test_ingest_brings_value_files_along_under_new_numbers(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair_with(&pair, 12, 64, 100, 50);
    struct fixture *target = pair.target;
    struct storage_stats stats;
    settle(target);
    apply_some(target, 10);
    storage_flush(target->host.storage);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(ingest(&pair, "/copy"), STATUS_OK);
        join_histories(&pair);
        storage_get_stats(target->host.storage, &stats);
        assert_true(stats.value_files > 0);
        model_check_all(&target->model, &target->host, 100);
        host_run_ms(&target->host, 1000);
        assert_int_equal(count_files(target, "/target"), live_files(target));
    }
    apply_some(target, 50);
    settle(target);
    model_check_all(&target->model, &target->host, 150);
    host_reopen(&target->host);
    model_check_all(&target->model, &target->host, 150);
    tear_down_pair(&pair);
}

/* A value file that doesn't hold what it should is found before anything changes. */
static void test_ingest_refuses_a_damaged_value_file(void **state) {
    (void)state;
    struct pair pair;
    char path[LIMIT_PATH_BYTES];
    set_up_pair_with(&pair, 13, 64, 100, 50);
    path_with(pair.source, "/copy", ".val", path);
    flip(pair.source, path, size_of(pair.source, path) / 2);
    assert_int_equal(ingest(&pair, "/copy"), STATUS_CORRUPT);
    assert_unchanged(&pair, 50);
    tear_down_pair(&pair);
}

static void test_ingest_over_a_pin_says_busy(void **state) {
    (void)state;
    struct pair pair;
    struct storage_pin pin = {.name = "backup of Monday", .revision = 20};
    pair = (struct pair){.source = set_up(7)};
    apply_some(pair.source, 150);
    storage_set_horizon(pair.source->host.storage, 140);
    pair.source->model.horizon = 140;
    settle(pair.source);
    for (unsigned i = 0; i < 5; i++) { /* until a compaction has used the horizon */
        apply_some(pair.source, 60);
        settle(pair.source);
    }
    assert_int_equal(make(pair.source, "/copy", true), STATUS_OK);
    make_target(&pair, 50);
    assert_int_equal(storage_pin_add(pair.target->host.storage, &pin), STATUS_OK);
    assert_int_equal(ingest(&pair, "/copy"), STATUS_BUSY);
    assert_non_null(strstr(pair.ingest.upkeep.error.message, "backup of Monday"));
    assert_unchanged(&pair, 50);
    storage_pin_remove(pair.target->host.storage, &pin);
    assert_int_equal(ingest(&pair, "/copy"), STATUS_OK);
    join_histories(&pair);
    model_check_all(&pair.target->model, &pair.target->host, pair.source->model.count);
    model_check_all(&pair.target->model, &pair.target->host, 140);
    tear_down_pair(&pair);
}

static void test_ingest_without_memory_changes_nothing_and_loses_none(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair_with(&pair, 8, 64, 150, 40);
    struct fixture *target = pair.target;
    settle(target);
    host_run_ms(&target->host, 1000);
    uint64_t blocks = host_live_blocks(&target->host);
    for (uint64_t n = 1;; n += n < 40 ? 1 : 17) {
        assert_true(n < 5000);
        sim_node_fail_allocation(target->host.node, n);
        enum status status = ingest(&pair, "/copy");
        sim_node_fail_allocation(target->host.node, 0);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        host_run_ms(&target->host, 100);
        /* Compactions go on behind an attempt that failed: they may leave less, never more. */
        assert_true(host_live_blocks(&target->host) <= blocks);
        blocks = host_live_blocks(&target->host);
        assert_int_equal(storage_applied_index(target->host.storage), 40);
    }
    join_histories(&pair);
    model_check_all(&target->model, &target->host, 150);
    settle(target);
    assert_int_equal(count_files(target, "/target"), live_files(target));
    tear_down_pair(&pair);
}

static bool has_failed(void *context) { return ((struct host *)context)->failed_count > 0; }

static void test_ingest_with_an_unknown_outcome_ends_the_store(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair(&pair, 9, 150, 40);
    struct fixture *target = pair.target;
    settle(target);
    assert_int_equal(fault_arm(sim_node_faults(target->host.node), "manifest.rename=error(EIO)", NULL), STATUS_OK);
    ask_to_ingest(&pair, "/copy");
    assert_true(host_wait(&target->host, has_failed));
    assert_true(host_wait(&target->host, is_done));
    assert_int_equal(pair.ingest.upkeep.status, STATUS_IO);
    fault_disarm(sim_node_faults(target->host.node), FAULT_MANIFEST_RENAME);
    host_close(&target->host);
    host_open(&target->host);
    uint64_t index = storage_applied_index(target->host.storage);
    assert_true(index == 40 || index == 150);
    if (index == 150) {
        join_histories(&pair);
    }
    model_check_all(&target->model, &target->host, index);
    tear_down_pair(&pair);
}

static void test_close_while_ingesting_leaves_old_or_new(void **state) {
    (void)state;
    for (uint64_t steps = 0; steps < 260; steps += 10) {
        struct pair pair;
        set_up_pair(&pair, 10, 100, 40);
        struct fixture *target = pair.target;
        settle(target);
        ask_to_ingest(&pair, "/copy");
        for (uint64_t i = 0; i < steps; i++) {
            (void)sim_step(target->host.sim);
        }
        unsigned done = target->done_count;
        host_close(&target->host);
        assert_int_equal(target->done_count, done);
        host_open(&target->host);
        uint64_t index = storage_applied_index(target->host.storage);
        assert_true(index == 100 || (index == 40 && done == 0));
        if (index == 100) {
            join_histories(&pair);
        }
        model_check_all(&target->model, &target->host, index);
        assert_int_equal(count_files(target, "/target"), live_files(target));
        tear_down_pair(&pair);
    }
}

/* ---- Crashes ------------------------------------------------------------------------------------------------- */

/* True: the ingest was done before. */
static bool crash_at(uint64_t steps, uint64_t seed) {
    struct pair pair;
    set_up_pair_with(&pair, seed, 64, 100, 60);
    struct fixture *target = pair.target;
    struct storage_verify_report report;
    host_close(&pair.source->host); /* its memory goes with the machine */
    if (steps % 3 == 0) {
        settle(target);
    } else {
        storage_flush(target->host.storage);
    }
    uint64_t flushed = storage_frontier(target->host.storage)->index;
    ask_to_ingest(&pair, "/copy");
    for (uint64_t i = 0; i < steps && target->done_count == 0; i++) {
        (void)sim_step(target->host.sim);
    }
    bool done = target->done_count > 0;
    assert_true(!done || pair.ingest.upkeep.status == STATUS_OK);
    host_crash(&pair.source->host, steps % 4 != 0 ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
    struct host *host = &target->host;
    host->env = pair.source->host.env;
    host->loop = pair.source->host.loop;
    host_open(host);
    uint64_t index = storage_frontier(host->storage)->index;
    host_assert_frontier(storage_frontier(host->storage));
    assert_int_equal(storage_applied_index(host->storage), index);
    assert_true(index == 100 || (!done && index >= flushed && index <= 60));
    if (index == 100) {
        join_histories(&pair);
    }
    model_check_all(&target->model, host, index);
    assert_int_equal(count_files(target, "/target"), live_files(target));
    host_close(host);
    assert_int_equal(storage_verify_dir(host->env, "/target", NULL, &report, NULL), STATUS_OK);
    /* The checkpoint is as good as before. */
    assert_int_equal(storage_verify_dir(host->env, "/copy", NULL, &report, NULL), STATUS_OK);
    assert_int_equal(report.frontier.index, 100);
    tear_down_pair(&pair);
    return done;
}

static void test_h21_crash_at_every_step_of_an_ingest_leaves_old_or_new(void **state) {
    (void)state;
    const char *length = getenv("HOLDFAST_TEST_LENGTH");
    bool is_long = length != NULL && strcmp(length, "long") == 0;
    uint64_t steps = 0;
    for (unsigned done = 0; done < 6; steps += is_long ? 1 : 4) {
        done += crash_at(steps, 11);
        assert_true(steps < 3000);
    }
    assert_true(steps > 60);
}

/* ---- The owner of the log has a say ------------------------------------------------------------------------------ */

struct owner {
    struct fixture *target;
    unsigned ready_count;
    unsigned switched_count;
    bool answers_at_once;
    bool answer;
    uint64_t applied_at_switch; /* still the old one: the new content isn't seen yet */
};

static struct owner owner;

static void on_ready(struct storage_upkeep *upkeep) {
    struct storage_ingest *ingest = CONTAINER_OF(upkeep, struct storage_ingest, upkeep);
    owner.ready_count++;
    assert_int_equal(ingest->frontier.index, 200);
    if (owner.answers_at_once) {
        storage_ingest_answer(ingest, owner.answer);
    }
}

static void on_switched(struct storage_upkeep *upkeep) {
    owner.switched_count++;
    owner.applied_at_switch = storage_applied_index(upkeep->storage);
}

static void ask_with_owner(struct pair *pair) {
    pair->target->done_count = 0;
    pair->ingest = (struct storage_ingest){.upkeep = {.done = on_done, .context = pair->target},
                                           .ready = on_ready,
                                           .switched = on_switched};
    (void)snprintf(pair->ingest.dir, sizeof pair->ingest.dir, "/copy");
    storage_ingest(pair->target->host.storage, &pair->ingest);
}

static void test_ingest_whose_owner_says_no_changes_nothing(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair(&pair, 31, 200, 130);
    struct fixture *target = pair.target;
    settle(target);
    unsigned files = count_files(target, "/target");
    owner = (struct owner){.target = target, .answers_at_once = true, .answer = false};
    ask_with_owner(&pair);
    assert_true(host_wait(&target->host, is_done));
    assert_int_equal(pair.ingest.upkeep.status, STATUS_CANCELLED);
    assert_int_equal(owner.ready_count, 1);
    assert_int_equal(owner.switched_count, 0);
    assert_true(storage_can_apply(target->host.storage));
    assert_int_equal(storage_applied_index(target->host.storage), 130);
    apply_some(target, 70);
    settle(target);
    model_check_all(&target->model, &target->host, 200);
    host_reopen(&target->host);
    model_check_all(&target->model, &target->host, 200);
    assert_true(count_files(target, "/target") <= files + 10); /* no link stays */
    assert_int_equal(target->host.failed_count, 0);
    tear_down_pair(&pair);
}

static void test_ingest_waits_for_its_owners_answer(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair(&pair, 32, 200, 130);
    struct fixture *target = pair.target;
    owner = (struct owner){.target = target};
    ask_with_owner(&pair);
    for (unsigned i = 0; i < 3000; i++) {
        (void)sim_step(target->host.sim);
    }
    assert_int_equal(owner.ready_count, 1); /* asked once, and nothing happened since */
    assert_int_equal(target->done_count, 0);
    assert_int_equal(storage_applied_index(target->host.storage), 130);
    storage_ingest_answer(&pair.ingest, true);
    assert_true(host_wait(&target->host, is_done));
    assert_int_equal(pair.ingest.upkeep.status, STATUS_OK);
    assert_int_equal(owner.switched_count, 1);
    assert_int_equal(owner.applied_at_switch, 130);
    join_histories(&pair);
    model_check_all(&target->model, &target->host, 200);
    tear_down_pair(&pair);
}

/* One that waits behind it, or is refused at once, must not wake what stands still for the switch. */
static void test_ingest_that_comes_to_nothing_disturbs_no_other(void **state) {
    (void)state;
    struct pair pair;
    set_up_pair(&pair, 35, 200, 130);
    struct fixture *target = pair.target;
    struct storage *storage = target->host.storage;
    owner = (struct owner){.target = target};
    ask_with_owner(&pair);
    for (unsigned i = 0; i < 3000 && owner.ready_count == 0; i++) {
        (void)sim_step(target->host.sim);
    }
    assert_int_equal(owner.ready_count, 1);
    uint64_t flushed_index = storage_frontier(storage)->index;
    assert_true(flushed_index < 130);
    struct storage_ingest others[] = {{.upkeep = {.done = on_done, .context = target}, .dir = ""},
                                      {.upkeep = {.done = on_done, .context = target}, .dir = "/copy"}};
    storage_ingest(storage, &others[0]);
    storage_ingest(storage, &others[1]);
    storage_upkeep_cancel(&others[1].upkeep);
    storage_flush(storage);
    host_run_ms(&target->host, 1000);
    assert_int_equal(others[0].upkeep.status, STATUS_INVALID);
    assert_int_equal(others[1].upkeep.status, STATUS_CANCELLED);
    assert_int_equal(target->done_count, 2);
    assert_int_equal(storage_frontier(storage)->index, flushed_index);
    storage_ingest_answer(&pair.ingest, true);
    target->done_count = 0;
    assert_true(host_wait(&target->host, is_done));
    assert_int_equal(pair.ingest.upkeep.status, STATUS_OK);
    join_histories(&pair);
    apply_some(target, 50);
    settle(target);
    model_check_all(&target->model, &target->host, 250);
    tear_down_pair(&pair);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ingest_replaces_everything_and_the_store_goes_on),
        cmocka_unit_test(test_ingest_keeps_to_its_rate_and_can_be_cancelled_meanwhile),
        cmocka_unit_test(test_ingest_of_a_copy_into_an_empty_store),
        cmocka_unit_test(test_ingest_that_goes_back_shows_the_old_content_until_it_has_caught_up),
        cmocka_unit_test(test_ingest_that_goes_back_is_a_start_like_any_after_a_crash),
        cmocka_unit_test(test_ingest_that_goes_back_keeps_the_horizon_below_what_it_has),
        cmocka_unit_test(test_ingest_that_may_go_back_and_needn_t_is_seen_at_once),
        cmocka_unit_test(test_h33_ingest_while_jobs_are_under_way_keeps_nothing_of_them),
        cmocka_unit_test(test_ingest_refuses_what_is_older_damaged_or_anothers),
        cmocka_unit_test(test_ingest_of_another_cluster_is_invalid),
        cmocka_unit_test(test_ingest_brings_value_files_along_under_new_numbers),
        cmocka_unit_test(test_ingest_refuses_a_damaged_value_file),
        cmocka_unit_test(test_ingest_over_a_pin_says_busy),
        cmocka_unit_test(test_ingest_without_memory_changes_nothing_and_loses_none),
        cmocka_unit_test(test_ingest_with_an_unknown_outcome_ends_the_store),
        cmocka_unit_test(test_close_while_ingesting_leaves_old_or_new),
        cmocka_unit_test(test_h21_crash_at_every_step_of_an_ingest_leaves_old_or_new),
        cmocka_unit_test(test_ingest_whose_owner_says_no_changes_nothing),
        cmocka_unit_test(test_ingest_waits_for_its_owners_answer),
        cmocka_unit_test(test_ingest_that_comes_to_nothing_disturbs_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
