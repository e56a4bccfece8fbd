/*
 * Repair: whatever can still be read is read again afterwards, and nothing else is.
 *
 * Would break these: a bad block that takes more with it than itself; a version that nobody wrote; a loss that isn't
 * told, or not with all keys that it may concern; range deletes that are forgotten (hazard 33), so that what they
 * deleted is back; a crash in the middle that leaves less than there was; a sound store that is rewritten; a value that
 * is apart and gone with its file though it could be read, or one that is referred to and isn't there; a change file
 * that stays in front of a gap, or beside tables that lost what it tells of, or goes for nothing.
 */
#include "storage/repair.h"
#include "storage/storage_internal.h"
#include "tests/unit/upkeep_fixture.h"

enum { LOSSES_MAX = 64, APART = 64 };

struct losses {
    unsigned count;
    unsigned values;
    bool whole; /* all of a table */
    struct {
        uint8_t key[32];
        size_t key_len;
        uint8_t after[32];
        uint8_t until[32];
        size_t after_len;
        size_t until_len;
    } pieces[LOSSES_MAX];
};

static void on_lost(void *context, const struct storage_loss *loss) {
    struct losses *losses = context;
    assert_true(losses->count < LOSSES_MAX && loss->after.len <= 32 && loss->until.len <= 32 && loss->key.len <= 32);
    losses->values += loss->key.len > 0;
    for (size_t i = 0; i < loss->key.len; i++) {
        losses->pieces[losses->count].key[i] = loss->key.data[i];
    }
    losses->pieces[losses->count].key_len = loss->key.len;
    losses->whole = losses->whole || loss->message != NULL;
    for (size_t i = 0; i < loss->after.len; i++) {
        losses->pieces[losses->count].after[i] = loss->after.data[i];
    }
    for (size_t i = 0; i < loss->until.len; i++) {
        losses->pieces[losses->count].until[i] = loss->until.data[i];
    }
    losses->pieces[losses->count].after_len = loss->after.len;
    losses->pieces[losses->count].until_len = loss->until.len;
    losses->count++;
}

static bool is_lost(const struct losses *losses, struct slice key) {
    for (unsigned i = 0; i < losses->count; i++) {
        struct slice after = slice_of(losses->pieces[i].after, losses->pieces[i].after_len);
        struct slice until = slice_of(losses->pieces[i].until, losses->pieces[i].until_len);
        struct slice own = slice_of(losses->pieces[i].key, losses->pieces[i].key_len);
        if (slice_equal(key, own) || (slice_compare(key, after) > 0 && slice_compare(key, until) <= 0)) {
            return true;
        }
    }
    return losses->whole;
}

static enum status repair(struct fixture *fixture, struct losses *losses, struct storage_repair_report *report,
                          struct error *err) {
    struct storage_options storage = fixture->host.options;
    storage.env = fixture->host.env;
    struct storage_repair_options options = {.storage = &storage, .context = losses, .lost = on_lost};
    *losses = (struct losses){0};
    error_clear(err);
    return storage_repair(&options, report, err);
}

/* Settled and closed; all of it is in tables, and in value files, unless the threshold is 0. */
static struct fixture *set_up_closed_with(uint64_t seed, uint64_t value_threshold_bytes) {
    struct fixture *fixture = set_up_with(seed, value_threshold_bytes);
    apply_some(fixture, ENTRIES);
    settle(fixture);
    host_close(&fixture->host);
    return fixture;
}

static struct fixture *set_up_closed(uint64_t seed) { return set_up_closed_with(seed, 0); }

/* True if some version of the key ever had this value. */
static bool was_ever(const struct model *model, unsigned key, struct slice value) {
    for (uint64_t index = 1; index <= model->count; index++) {
        for (unsigned i = 0; i < model->entries[index].count; i++) {
            uint8_t bytes[MODEL_VALUE_BYTES_MAX];
            size_t len = model->entries[index].operations[i].value_len;
            if (model->entries[index].operations[i].key == key &&
                model->entries[index].operations[i].kind == BATCH_PUT &&
                slice_equal(model_value(index, i, len, bytes), value)) {
                return true;
            }
        }
    }
    return false;
}

/* Opens the store: all keys that no loss concerns are as they were, the others have nothing that they never had. */
static void check_repaired(struct fixture *fixture, const struct losses *losses) {
    struct storage_verify_report report;
    struct error err;
    assert_int_equal(storage_verify_dir(fixture->host.env, "/data", NULL, &report, &err), STATUS_OK);
    host_open(&fixture->host);
    struct storage_view *view = storage_view_acquire(fixture->host.storage);
    uint64_t revision = storage_view_revision(view);
    assert_true(revision <= ENTRIES);
    for (unsigned key = 0; key < MODEL_KEYS; key++) {
        uint8_t bytes[32];
        struct slice name = model_key(key, bytes);
        struct storage_value value;
        enum status status;
        error_clear(&err);
        if (!is_lost(losses, name)) {
            status = model_check_key(&fixture->model, view, key, revision, &err);
            assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND);
            continue;
        }
        status = storage_get(view, NULL, name, revision, &value, &err);
        assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND);
        if (status == STATUS_OK) {
            assert_true(was_ever(&fixture->model, key, value.bytes));
            storage_value_release(&value);
        }
    }
    storage_view_release(view);
    host_close(&fixture->host);
}

static void test_repair_leaves_a_sound_store_alone(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed(1);
    struct storage_repair_report report;
    struct losses losses;
    struct error err;
    struct names before = names_of(fixture, "/data");
    assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
    assert_true(report.was_sound);
    assert_int_equal(report.frontier.index, ENTRIES);
    assert_int_equal(names_of(fixture, "/data").count, before.count);
    host_open(&fixture->host);
    assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_BUSY);
    model_check_all(&fixture->model, &fixture->host, ENTRIES);
    assert_int_equal(env_mkdir(fixture->host.env, "/empty", NULL), STATUS_OK);
    fixture->host.options.dir = "/empty";
    assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_NOT_FOUND);
    fixture->host.options.dir = "/none";
    assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_NOT_FOUND);
    tear_down(fixture);
}

static void test_repair_loses_a_bad_block_and_nothing_else(void **state) {
    (void)state;
    bool seen_piece = false;
    bool seen_table = false;
    for (uint64_t place = 0; place < 24; place++) {
        struct fixture *fixture = set_up_closed(2);
        struct storage_repair_report report;
        struct losses losses;
        struct error err;
        char path[LIMIT_PATH_BYTES];
        path_with(fixture, "/data", ".sst", path);
        uint64_t size_bytes = size_of(fixture, path);
        flip(fixture, path, place * (size_bytes - 1) / 23);
        assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
        assert_false(report.was_sound);
        assert_true(report.manifest_used);
        assert_int_equal(report.frontier.index, ENTRIES);
        assert_int_equal(losses.count, report.pieces_lost + report.tables_lost);
        seen_piece = seen_piece || (report.pieces_lost == 1 && report.tables_lost == 0);
        seen_table = seen_table || report.tables_lost == 1;
        check_repaired(fixture, &losses);
        tear_down(fixture);
    }
    assert_true(seen_piece && seen_table);
}

static void damage_current(struct fixture *fixture) { flip(fixture, "/data/CURRENT", 30); }

static void test_h33_repair_without_a_manifest_brings_back_all_and_nothing_deleted(void **state) {
    (void)state;
    for (uint64_t seed = 3; seed < 12; seed++) {
        struct fixture *fixture = set_up_closed(seed);
        struct storage_repair_report report;
        struct losses losses;
        struct error err;
        struct names before = names_of(fixture, "/data");
        damage_current(fixture);
        assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
        assert_false(report.manifest_used);
        assert_int_equal(losses.count, 0);
        assert_int_equal(report.tables, before.count - 3);
        /* Entries without data leave no trace. */
        assert_true(report.frontier.index <= ENTRIES && report.frontier.index > ENTRIES - 8);
        assert_int_equal(report.frontier.term, 1);
        assert_int_equal(report.frontier.horizon, report.frontier.index);
        check_repaired(fixture, &losses);
        /* The old tables and the manifest. */
        assert_int_equal(names_of(fixture, "/data/lost").count, before.count - 2);
        assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
        assert_true(report.was_sound);
        tear_down(fixture);
    }
}

/* Tables that compactions replaced and a crash left there: the same versions twice. */
static void test_repair_takes_versions_once_that_two_tables_have(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed(13);
    struct storage_repair_report report;
    struct losses losses;
    struct error err;
    char path[LIMIT_PATH_BYTES];
    path_with(fixture, "/data", ".sst", path);
    assert_int_equal(env_link(fixture->host.env, path, "/data/00000000000fffff.sst", NULL), STATUS_OK);
    damage_current(fixture);
    assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
    check_repaired(fixture, &losses);
    tear_down(fixture);
}

static void test_repair_of_another_nodes_store_is_refused(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed(14);
    struct storage_repair_report report;
    struct losses losses;
    struct error err;
    char path[LIMIT_PATH_BYTES];
    path_with(fixture, "/data", ".sst", path);
    flip(fixture, path, 200);
    fixture->host.options.node_id = 9;
    assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_INVALID);
    assert_false(exists(fixture, "/data/lost"));
    fixture->host.options.node_id = 1;
    assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
    check_repaired(fixture, &losses);
    tear_down(fixture);
}

/* Anywhere in a value file: what can't be read of it is told by key, all else stays, the file only if it is whole. */
static void test_repair_loses_a_damaged_value_and_no_other(void **state) {
    (void)state;
    bool seen_none = false;
    bool seen_one = false;
    for (uint64_t place = 0; place < 24; place++) {
        struct fixture *fixture = set_up_closed_with(17, APART);
        struct storage_repair_report report;
        struct losses losses;
        struct error err;
        char path[LIMIT_PATH_BYTES];
        char other[LIMIT_PATH_BYTES];
        struct name_search first = {.part = ".val", .first = true};
        assert_int_equal(env_list_dir(fixture->host.env, "/data", find_part, &first, NULL), STATUS_OK);
        file_path(other, "/data", first.found);
        path_with(fixture, "/data", ".val", path);
        assert_true(strcmp(other, path) != 0);
        flip(fixture, path, place * (size_of(fixture, path) - 1) / 23);
        assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
        assert_false(report.was_sound);
        assert_int_equal(report.value_files_damaged, 1);
        assert_int_equal(losses.count, report.values_lost);
        assert_int_equal(losses.values, report.values_lost);
        assert_true(report.values_lost <= 1);
        assert_true(size_of(fixture, other) > 0);
        seen_none = seen_none || report.values_lost == 0;
        seen_one = seen_one || report.values_lost == 1;
        check_repaired(fixture, &losses);
        tear_down(fixture);
    }
    assert_true(seen_none && seen_one);
}

/* All of one is gone: as many losses as it had values that were in use. */
static void test_repair_without_a_value_file_loses_its_values(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed_with(18, APART);
    struct storage_repair_report report;
    struct losses losses;
    struct error err;
    char path[LIMIT_PATH_BYTES];
    path_with(fixture, "/data", ".val", path);
    assert_int_equal(env_unlink(fixture->host.env, path, NULL), STATUS_OK);
    assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
    assert_int_equal(report.tables_lost + report.pieces_lost, 0);
    assert_true(report.values_lost > 0 && report.values_lost == losses.values);
    check_repaired(fixture, &losses);
    tear_down(fixture);
}

static void test_repair_without_a_manifest_keeps_values_apart(void **state) {
    (void)state;
    for (unsigned damaged = 0; damaged < 2; damaged++) {
        struct fixture *fixture = set_up_closed_with(19, APART);
        struct storage_repair_report report;
        struct losses losses;
        struct error err;
        char path[LIMIT_PATH_BYTES];
        damage_current(fixture);
        path_with(fixture, "/data", ".val", path);
        if (damaged == 1) { /* its checksum alone: the values are there */
            flip(fixture, path, size_of(fixture, path) - 20);
        }
        assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
        assert_false(report.manifest_used);
        assert_int_equal(losses.count, 0);
        assert_int_equal(report.value_files_damaged, damaged);
        check_repaired(fixture, &losses);
        tear_down(fixture);
    }
}

static void test_repair_without_memory_changes_nothing_and_loses_none(void **state) {
    (void)state;
    struct fixture *fixture = set_up_closed_with(15, APART);
    struct storage_repair_report report;
    struct losses losses;
    struct error err;
    char path[LIMIT_PATH_BYTES];
    path_with(fixture, "/data", ".sst", path);
    flip(fixture, path, 200);
    path_with(fixture, "/data", ".val", path); /* what is left of it is written anew */
    flip(fixture, path, size_of(fixture, path) / 2);
    uint64_t blocks = host_live_blocks(&fixture->host);
    unsigned names = names_of(fixture, "/data").count;
    for (uint64_t n = 1;; n += n < 60 ? 1 : 11) {
        assert_true(n < 20000);
        sim_node_fail_allocation(fixture->host.node, n);
        enum status status = repair(fixture, &losses, &report, &err);
        sim_node_fail_allocation(fixture->host.node, 0);
        assert_int_equal(host_live_blocks(&fixture->host), blocks);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_true(err.message[0] != '\0');
        assert_true(names_of(fixture, "/data").count - names <= 1); /* lost/ */
    }
    check_repaired(fixture, &losses);
    tear_down(fixture);
}

struct fiber {
    struct fixture *fixture;
    enum status status;
    bool done;
};

static void repair_on_fiber(void *context) {
    struct fiber *fiber = context;
    struct storage_repair_report report;
    struct losses losses;
    struct error err;
    fiber->status = repair(fiber->fixture, &losses, &report, &err);
    fiber->done = true;
}

static void test_h32_repair_cut_short_by_a_crash_can_be_repeated(void **state) {
    (void)state;
    bool finished = false;
    for (uint64_t steps = 0; !finished; steps += 7) {
        struct fixture *fixture = set_up_closed_with(16, APART);
        struct storage_repair_report report;
        struct fiber fiber = {.fixture = fixture};
        struct losses losses;
        struct error err;
        damage_current(fixture);
        sim_node_thread(fixture->host.node, repair_on_fiber, &fiber);
        for (uint64_t i = 0; i < steps && !fiber.done; i++) {
            (void)sim_step(fixture->host.sim);
        }
        finished = fiber.done;
        assert_true(!finished || fiber.status == STATUS_OK);
        host_crash(&fixture->host, SIM_CRASH_POWER);
        assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
        assert_true(!finished || report.was_sound);
        assert_int_equal(losses.count, report.tables_lost); /* at most what the crash left half written */
        losses.whole = false;
        check_repaired(fixture, &losses);
        tear_down(fixture);
        assert_true(steps < 20000);
    }
}

/* ---- Change files ------------------------------------------------------------------------------------------------ */

/* Opens the repaired store and reads its changes: all behind `after`, up to the end, none before. */
static void check_changes(struct fixture *fixture, uint64_t after, size_t files) {
    struct error err;
    struct storage_verify_report report;
    assert_int_equal(storage_verify_dir(fixture->host.env, "/data", NULL, &report, &err), STATUS_OK);
    host_open(&fixture->host);
    const struct version *version = fixture->host.storage->version;
    assert_int_equal(version->changes_after, after);
    assert_int_equal(version->change_file_count, files);
    host_close(&fixture->host);
}

/* The newest ones stay, back to the damaged one; where tables lost something, none does. */
static void test_repair_keeps_change_files_that_can_be_relied_on(void **state) {
    (void)state;
    for (unsigned loses = 0; loses < 2; loses++) {
        struct fixture *fixture = set_up_kind(21, 0, true);
        struct storage_repair_report report;
        struct losses losses;
        struct error err;
        char path[LIMIT_PATH_BYTES];
        apply_some(fixture, ENTRIES);
        settle(fixture);
        const struct version *version = fixture->host.storage->version;
        size_t count = version->change_file_count;
        assert_true(count >= 4);
        struct change_meta damaged = change_file_meta(version->change_files[count / 2]);
        host_close(&fixture->host);
        file_path_changes(path, "/data", damaged.number);
        flip(fixture, path, 70);
        if (loses == 1) {
            path_with(fixture, "/data", ".sst", path);
            flip(fixture, path, 100);
        }
        assert_int_equal(repair(fixture, &losses, &report, &err), STATUS_OK);
        assert_true(!report.was_sound && report.manifest_used);
        assert_true((report.tables_lost + report.pieces_lost > 0) == (loses == 1));
        if (loses == 1) {
            check_changes(fixture, ENTRIES, 0);
        } else {
            check_changes(fixture, damaged.revision_last, count - count / 2 - 1);
            file_path_changes(path, "/data/lost", damaged.number);
            assert_true(size_of(fixture, path) == damaged.size_bytes);
        }
        check_repaired(fixture, &losses);
        tear_down(fixture);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repair_leaves_a_sound_store_alone),
        cmocka_unit_test(test_repair_loses_a_bad_block_and_nothing_else),
        cmocka_unit_test(test_h33_repair_without_a_manifest_brings_back_all_and_nothing_deleted),
        cmocka_unit_test(test_repair_takes_versions_once_that_two_tables_have),
        cmocka_unit_test(test_repair_of_another_nodes_store_is_refused),
        cmocka_unit_test(test_repair_loses_a_damaged_value_and_no_other),
        cmocka_unit_test(test_repair_without_a_value_file_loses_its_values),
        cmocka_unit_test(test_repair_without_a_manifest_keeps_values_apart),
        cmocka_unit_test(test_repair_keeps_change_files_that_can_be_relied_on),
        cmocka_unit_test(test_repair_without_memory_changes_nothing_and_loses_none),
        cmocka_unit_test(test_h32_repair_cut_short_by_a_crash_can_be_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
