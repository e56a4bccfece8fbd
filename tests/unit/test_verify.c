/*
 * Verifying: of a store that is closed, and of one that goes on. And destroying.
 *
 * Would break these: a byte of a table, or of CURRENT, that nothing covers; a finding that hides the ones behind it;
 * tables that are newer than the frontier (hazard 39), or that overlap, taken for sound; a verification that changes
 * what it looks at; a destroyed store that leaves files, or takes those of others.
 */
#include "storage/manifest.h"
#include "tests/unit/upkeep_fixture.h"

struct findings {
    unsigned files;
    uint64_t places;
    char file[FILE_NAME_BYTES_MAX];
    char message[ERROR_MESSAGE_BYTES_MAX];
    uint64_t progress_bytes;
    uint64_t total_bytes;
    uint64_t stop_at_bytes;
};

static void on_found(void *context, const struct storage_verify_finding *finding) {
    struct findings *findings = context;
    findings->files++;
    findings->places += finding->count;
    (void)snprintf(findings->file, sizeof findings->file, "%s", finding->file);
    (void)snprintf(findings->message, sizeof findings->message, "%s", finding->message);
}

static bool on_progress(void *context, uint64_t done_bytes, uint64_t total_bytes) {
    struct findings *findings = context;
    assert_true(done_bytes >= findings->progress_bytes && done_bytes <= total_bytes);
    findings->progress_bytes = done_bytes;
    findings->total_bytes = total_bytes;
    return findings->stop_at_bytes == 0 || done_bytes < findings->stop_at_bytes;
}

static enum status verify(struct fixture *fixture, const char *dir, struct findings *findings,
                          struct storage_verify_report *report, struct error *err) {
    struct storage_verify_options options = {.context = findings, .found = on_found, .progress = on_progress};
    uint64_t stop_at_bytes = findings->stop_at_bytes;
    *findings = (struct findings){.stop_at_bytes = stop_at_bytes};
    error_clear(err);
    return storage_verify_dir(fixture->host.env, dir, &options, report, err);
}

/* A closed store with tables of several levels and range deletes. */
static struct fixture *set_up_closed(uint64_t seed) {
    struct fixture *fixture = set_up(seed);
    apply_some(fixture, 150);
    (void)host_delete_range(&fixture->host, "a", "b");
    settle(fixture);
    host_close(&fixture->host);
    return fixture;
}

static void make_file(struct fixture *fixture, const char *path) {
    struct env_file *file;
    assert_int_equal(env_open(fixture->host.env, path, ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, NULL), STATUS_OK);
    env_close(file);
}

static void test_verify_of_a_sound_store_counts_and_changes_nothing(void **state) {
    (void)state;
    struct fixture *fixture = set_up(1);
    struct storage_verify_report report;
    struct findings findings = {0};
    struct error err;
    apply_some(fixture, 150);
    assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
    struct names before = names_of(fixture, "/copy");
    assert_int_equal(verify(fixture, "/copy", &findings, &report, &err), STATUS_OK);
    assert_int_equal(report.tables, fixture->checkpoint.files);
    assert_int_equal(report.bytes, fixture->checkpoint.bytes);
    assert_true(report.entries > 100 && report.data_blocks >= report.tables && report.partitions >= report.tables);
    assert_int_equal(report.frontier.index, 150);
    assert_int_equal(report.findings + report.unnamed_files + report.other_files, 0);
    assert_int_equal(findings.progress_bytes, fixture->checkpoint.bytes);
    assert_int_equal(findings.total_bytes, fixture->checkpoint.bytes);
    assert_int_equal(names_of(fixture, "/copy").count, before.count); /* no lock file, either */
    make_file(fixture, "/copy/notes.txt");
    make_file(fixture, "/copy/000000000000beef.sst");
    make_file(fixture, "/copy/MANIFEST-000000000000beef");
    make_file(fixture, "/copy/CURRENT.tmp");
    assert_int_equal(verify(fixture, "/copy", &findings, &report, &err), STATUS_OK);
    assert_int_equal(report.other_files, 1);
    assert_int_equal(report.unnamed_files, 3);
    findings.stop_at_bytes = 1;
    assert_int_equal(verify(fixture, "/copy", &findings, &report, &err), STATUS_CANCELLED);
    assert_int_equal(storage_verify_dir(fixture->host.env, "/copy", NULL, &report, NULL), STATUS_OK);
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_BUSY);
    assert_int_equal(verify(fixture, "/none", &findings, &report, &err), STATUS_NOT_FOUND);
    assert_int_equal(env_mkdir(fixture->host.env, "/empty", NULL), STATUS_OK);
    assert_int_equal(verify(fixture, "/empty", &findings, &report, &err), STATUS_NOT_FOUND);
    tear_down(fixture);
}

static void test_verify_finds_a_flipped_byte_anywhere_in_a_table(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed(2);
    struct storage_verify_report report;
    struct findings findings = {0};
    struct error err;
    char path[LIMIT_PATH_BYTES];
    path_with(fixture, "/data", ".sst", path);
    uint64_t size_bytes = size_of(fixture, path);
    for (uint64_t offset = 0; offset < size_bytes; offset += offset < 80 || offset + 400 > size_bytes ? 1 : 13) {
        flip(fixture, path, offset);
        enum status status = verify(fixture, "/data", &findings, &report, &err);
        if (status != STATUS_CORRUPT || findings.files != 1) {
            fail_msg("byte %u of %u: %s, %u files", (unsigned)offset, (unsigned)size_bytes, status_name(status),
                     findings.files);
        }
        assert_string_equal(findings.file, strrchr(path, '/') + 1);
        assert_non_null(strstr(err.message, path));
        flip(fixture, path, offset);
    }
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_OK);
    tear_down(fixture);
}

static void test_verify_goes_on_behind_a_finding(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed(3);
    struct storage_verify_report before;
    struct storage_verify_report report;
    struct findings findings = {0};
    struct error err;
    char first[LIMIT_PATH_BYTES];
    char last[LIMIT_PATH_BYTES];
    assert_int_equal(verify(fixture, "/data", &findings, &before, &err), STATUS_OK);
    path_with(fixture, "/data", ".sst", last);
    assert_int_equal(env_rename(fixture->host.env, last, "/away", NULL), STATUS_OK);
    path_with(fixture, "/data", ".sst", first);
    flip(fixture, first, 100);
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_CORRUPT);
    assert_int_equal(findings.files, 2);
    assert_int_equal(report.findings, findings.places);
    assert_int_equal(report.tables, before.tables);
    /* Cut short, and gone to another's name. */
    flip(fixture, first, 100);
    assert_int_equal(env_rename(fixture->host.env, first, last, NULL), STATUS_OK);
    assert_int_equal(env_rename(fixture->host.env, "/away", first, NULL), STATUS_OK);
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_CORRUPT);
    assert_int_equal(findings.files, 2);
    tear_down(fixture);
}

static void test_verify_finds_damage_of_current_and_manifest(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed(4);
    struct storage_verify_report report;
    struct findings findings = {0};
    struct error err;
    char path[LIMIT_PATH_BYTES];
    for (uint64_t offset = 0; offset < CURRENT_BYTES; offset++) {
        flip(fixture, "/data/CURRENT", offset);
        assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_CORRUPT);
        assert_non_null(strstr(err.message, "CURRENT"));
        flip(fixture, "/data/CURRENT", offset);
    }
    path_with(fixture, "/data", "MANIFEST-", path);
    flip(fixture, path, 20);
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, path));
    flip(fixture, path, 20);
    flip(fixture, path, MANIFEST_BLOCK_BYTES + 40); /* its mark says that the edit was synced */
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(env_unlink(fixture->host.env, path, NULL), STATUS_OK);
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_CORRUPT);
    tear_down(fixture);
}

/* Writes a manifest of its own over the store's. */
static void change_manifest(struct fixture *fixture, void (*change)(struct manifest_state *state)) {
    struct env *env = fixture->host.env;
    struct manifest manifest = {.env = env, .dir = "/data"};
    struct manifest_state state;
    struct buf snapshot;
    buf_init(&snapshot, env->alloc, 0);
    manifest_state_init(&state, env->alloc);
    assert_int_equal(manifest_inspect(&manifest, &state, NULL), STATUS_OK);
    change(&state);
    uint64_t number = state.next_file++;
    assert_int_equal(manifest_state_encode(&state, &snapshot), STATUS_OK);
    assert_int_equal(manifest_switch(&manifest, number, buf_slice(&snapshot), NULL), STATUS_OK);
    manifest_close(&manifest);
    manifest_state_deinit(&state);
    buf_deinit(&snapshot);
}

static void lower_frontier(struct manifest_state *state) { state->frontier.index -= 1; }
static void raise_horizon(struct manifest_state *state) { state->horizon = state->frontier.index + 1; }
static void misplace(struct manifest_state *state) {
    for (size_t i = 0; i < state->file_count; i++) {
        state->files[i].level = 6;
    }
    state->horizon = 0;
    state->files[0].meta.largest = state->files[state->file_count - 1].meta.largest;
}

static void test_h39_verify_finds_a_table_that_is_newer_than_the_frontier(void **state) {
    (void)state;
    struct fixture *fixture = set_up(5);
    struct storage_verify_report report;
    struct findings findings = {0};
    struct error err;
    (void)host_put(&fixture->host, "key", "value");
    settle(fixture);
    host_close(&fixture->host);
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_OK);
    change_manifest(fixture, lower_frontier);
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, "frontier"));
    assert_true(strstr(findings.file, ".sst") != NULL);
    tear_down(fixture);
}

static void test_verify_finds_tables_and_horizon_where_they_must_not_be(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed(6);
    struct storage_verify_report report;
    struct findings findings = {0};
    struct error err;
    change_manifest(fixture, raise_horizon);
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, "horizon"));
    change_manifest(fixture, misplace);
    assert_int_equal(verify(fixture, "/data", &findings, &report, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, "overlap"));
    tear_down(fixture);
}

static void test_verify_without_memory_says_so_and_loses_none(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed(7);
    struct storage_verify_report report;
    struct findings findings = {0};
    struct error err;
    uint64_t blocks = host_live_blocks(&fixture->host);
    for (uint64_t n = 1;; n++) {
        assert_true(n < 2000);
        sim_node_fail_allocation(fixture->host.node, n);
        enum status status = verify(fixture, "/data", &findings, &report, &err);
        sim_node_fail_allocation(fixture->host.node, 0);
        assert_int_equal(host_live_blocks(&fixture->host), blocks);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_true(err.message[0] != '\0');
    }
    tear_down(fixture);
}

/* ---- Live ---------------------------------------------------------------------------------------------------- */

static void ask_to_verify(struct fixture *fixture, struct storage_verification *verification,
                          struct findings *findings) {
    fixture->done_count = 0;
    *findings = (struct findings){0};
    *verification = (struct storage_verification){.upkeep = {.done = on_done, .context = fixture},
                                                  .found = on_found,
                                                  .found_context = findings};
    storage_verify(fixture->host.storage, verification);
}

static void test_live_verification_finds_damage_while_writes_go_on(void **state) {
    (void)state;
    struct fixture *fixture = set_up(8);
    struct storage_verification verification;
    struct findings findings;
    char path[LIMIT_PATH_BYTES];
    apply_some(fixture, 150);
    settle(fixture);
    ask_to_verify(fixture, &verification, &findings);
    while (fixture->done_count == 0) {
        apply_some(fixture, 1);
        (void)sim_step(fixture->host.sim);
    }
    assert_int_equal(verification.upkeep.status, STATUS_OK);
    assert_true(verification.report.entries > 100);
    assert_int_equal(verification.upkeep.done_bytes, verification.upkeep.total_bytes);
    assert_int_equal(verification.report.frontier.index, 150);
    settle(fixture);
    path_with(fixture, "/data", ".sst", path);
    flip(fixture, path, 100);
    ask_to_verify(fixture, &verification, &findings);
    assert_true(host_wait(&fixture->host, is_done));
    assert_int_equal(verification.upkeep.status, STATUS_CORRUPT);
    assert_int_equal(findings.files, 1);
    assert_non_null(strstr(verification.upkeep.error.message, path));
    tear_down(fixture);
}

static void test_live_verification_can_be_cancelled_and_ends_with_the_store(void **state) {
    (void)state;
    struct fixture *fixture = set_up(9);
    struct storage_verification verification;
    struct findings findings;
    apply_some(fixture, 300);
    settle(fixture);
    ask_to_verify(fixture, &verification, &findings);
    for (unsigned i = 0; i < 20; i++) {
        (void)sim_step(fixture->host.sim);
    }
    storage_upkeep_cancel(&verification.upkeep);
    assert_true(host_wait(&fixture->host, is_done));
    assert_int_equal(verification.upkeep.status, STATUS_CANCELLED);
    ask_to_verify(fixture, &verification, &findings);
    for (unsigned i = 0; i < 20; i++) {
        (void)sim_step(fixture->host.sim);
    }
    host_close(&fixture->host);
    assert_int_equal(fixture->done_count, 0);
    tear_down(fixture);
}

/* ---- Destroying ---------------------------------------------------------------------------------------------- */

static void test_destroy_takes_what_is_ours_and_leaves_the_rest(void **state) {
    (void)state;
    struct fixture *fixture = set_up(10);
    struct env *env = fixture->host.env;
    apply_some(fixture, 100);
    assert_int_equal(make(fixture, "/copy", true), STATUS_OK);
    assert_int_equal(storage_destroy(env, "/data", NULL), STATUS_BUSY);
    model_check_all(&fixture->model, &fixture->host, 100);
    make_file(fixture, "/copy/notes.txt");
    make_file(fixture, "/copy/x.sst");
    assert_int_equal(storage_destroy(env, "/copy", NULL), STATUS_OK);
    struct names names = names_of(fixture, "/copy");
    assert_int_equal(names.count, 2);
    assert_int_equal(names.strangers, 2);
    host_close(&fixture->host);
    assert_int_equal(storage_destroy(env, "/data", NULL), STATUS_OK);
    assert_false(exists(fixture, "/data"));
    assert_int_equal(storage_destroy(env, "/data", NULL), STATUS_NOT_FOUND);
    /* And it isn't remembered. */
    host_open(&fixture->host);
    assert_int_equal(storage_applied_index(fixture->host.storage), 0);
    tear_down(fixture);
}

static void destroy_on_fiber(void *context) {
    struct fixture *fixture = context;
    fixture->done_count = storage_destroy(fixture->host.env, "/data", NULL) == STATUS_OK ? 1 : 2;
}

static void test_destroy_cut_short_by_a_crash_can_be_repeated(void **state) {
    (void)state;
    bool finished = false;
    for (uint64_t steps = 0; !finished; steps++) {
        struct fixture *fixture = set_up_closed(11);
        fixture->done_count = 0;
        sim_node_thread(fixture->host.node, destroy_on_fiber, fixture);
        for (uint64_t i = 0; i < steps && fixture->done_count == 0; i++) {
            (void)sim_step(fixture->host.sim);
        }
        finished = fixture->done_count > 0;
        assert_true(fixture->done_count != 2);
        host_crash(&fixture->host, SIM_CRASH_POWER);
        if (finished) {
            assert_false(exists(fixture, "/data"));
        } else if (exists(fixture, "/data")) {
            assert_int_equal(storage_destroy(fixture->host.env, "/data", NULL), STATUS_OK);
            assert_false(exists(fixture, "/data"));
        }
        tear_down(fixture);
        assert_true(steps < 1000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verify_of_a_sound_store_counts_and_changes_nothing),
        cmocka_unit_test(test_verify_finds_a_flipped_byte_anywhere_in_a_table),
        cmocka_unit_test(test_verify_goes_on_behind_a_finding),
        cmocka_unit_test(test_verify_finds_damage_of_current_and_manifest),
        cmocka_unit_test(test_h39_verify_finds_a_table_that_is_newer_than_the_frontier),
        cmocka_unit_test(test_verify_finds_tables_and_horizon_where_they_must_not_be),
        cmocka_unit_test(test_verify_without_memory_says_so_and_loses_none),
        cmocka_unit_test(test_live_verification_finds_damage_while_writes_go_on),
        cmocka_unit_test(test_live_verification_can_be_cancelled_and_ends_with_the_store),
        cmocka_unit_test(test_destroy_takes_what_is_ours_and_leaves_the_rest),
        cmocka_unit_test(test_destroy_cut_short_by_a_crash_can_be_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
