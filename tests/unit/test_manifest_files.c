/*
 * The manifest's files on a simulated disk: prepared space, full disks, and power lost at each step.
 *
 * Would break these: an edit that is lost though it was acknowledged, or half there; a full disk that makes an append
 * fail, or stops for ever what would give space back; a torn edit that comes back after it was wiped; a manifest that
 * can't be opened twice; a file that grows by more than it needs.
 */
#include "storage/file_names.h"
#include "storage/manifest.h"
#include "tests/unit/sim_disk_fixture.h"

#include <inttypes.h>

static const struct manifest_identity identity = {.cluster_id = "cluster-of-tests", .node_id = 3};

static struct fixture fixture;
static struct manifest manifest;
static struct buf payload;

static void begin(uint64_t seed, bool harsh) {
    struct sim_disk_options disk;
    sim_disk_options_init(&disk);
    disk.torn = harsh;
    disk.garbled = harsh;
    disk.scatter = true;
    setup(&fixture, seed, &disk);
    assert_int_equal(env_mkdir(fixture.env, "/m", NULL), STATUS_OK);
    assert_int_equal(env_sync_dir(fixture.env, "/", NULL), STATUS_OK);
    memset(&manifest, 0, sizeof manifest);
    manifest = (struct manifest){.env = fixture.env, .dir = "/m", .identity = identity};
    buf_init(&payload, alloc_system(), 0);
}

static void end(void) {
    if (manifest.file != NULL) {
        manifest_close(&manifest);
    }
    buf_deinit(&payload);
    cleanup(&fixture);
}

static void lose_power(void) {
    if (manifest.file != NULL) {
        manifest_close(&manifest);
    }
    crash(&fixture, SIM_CRASH_POWER);
    manifest = (struct manifest){.env = fixture.env, .dir = "/m", .identity = identity};
}

/* The edit says that `number` is the next file; filler makes it longer. */
static struct slice edit_of(uint64_t number, size_t fillers) {
    buf_clear(&payload);
    assert_int_equal(manifest_put_next_file(&payload, number), STATUS_OK);
    for (size_t i = 0; i < fillers; i++) {
        assert_int_equal(manifest_put_horizon(&payload, number), STATUS_OK);
    }
    return buf_slice(&payload);
}

static enum status create(uint64_t number, struct error *err) {
    return manifest_switch(&manifest, number, edit_of(1, 0), err);
}

static enum status append(uint64_t number, size_t fillers, bool gives_space, struct error *err) {
    struct slice edit = edit_of(number, fillers);
    enum status status = manifest_reserve(&manifest, edit.len);
    if (status == STATUS_OK) {
        status = manifest_prepare(&manifest, edit.len, gives_space, err);
    }
    return status == STATUS_OK ? manifest_append(&manifest, edit, err) : status;
}

/* What the manifest on disk says is the next file. */
static uint64_t load(void) {
    struct manifest_state state;
    struct error err;
    manifest_state_init(&state, alloc_system());
    enum status status = manifest_load(&manifest, &state, &err);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    uint64_t next = state.next_file;
    manifest_state_deinit(&state);
    return next;
}

static uint64_t file_bytes(void) {
    uint64_t size_bytes;
    assert_int_equal(env_size(manifest.file, &size_bytes, NULL), STATUS_OK);
    return size_bytes;
}

static void fill_disk(void) {
    uint64_t free_bytes;
    uint64_t total_bytes;
    assert_int_equal(env_disk_space(fixture.env, "/m", &free_bytes, &total_bytes, NULL), STATUS_OK);
    sim_disk_options(fixture.node)->capacity_bytes = total_bytes - free_bytes;
}

/* ---- Space ----------------------------------------------------------------------------------------------------- */

static void test_manifest_appends_go_into_prepared_space(void **state) {
    (void)state;
    begin(1, false);
    assert_int_equal(create(1, NULL), STATUS_OK);
    for (uint64_t number = 2; number < 100; number++) {
        assert_int_equal(append(number, number * 20, false, NULL), STATUS_OK);
        assert_true(manifest.size_bytes + MANIFEST_RESERVE_BYTES <= manifest.prepared_bytes);
        assert_int_equal(file_bytes(), manifest.prepared_bytes);
        /* Hazard 45: what is prepared is bounded. */
        assert_true(manifest.prepared_bytes <= manifest.size_bytes + MANIFEST_PREPARED_BYTES);
    }
    lose_power();
    assert_int_equal(load(), 99);
    end();
}

static void test_h31_full_disk_lets_edits_wait_that_give_no_space(void **state) {
    (void)state;
    struct error err;
    uint64_t capacity_bytes;
    begin(2, false);
    assert_int_equal(create(1, NULL), STATUS_OK);
    capacity_bytes = sim_disk_options(fixture.node)->capacity_bytes;
    fill_disk();
    uint64_t number = 1;
    uint64_t size_bytes = file_bytes();
    enum status status;
    while ((status = append(number + 1, 0, false, &err)) == STATUS_OK) {
        number++;
    }
    assert_int_equal(status, STATUS_NO_SPACE);
    assert_true(number > 5);
    /* The reserve is for those that give some back; it, too, ends without harm. */
    uint64_t waiting = number;
    while ((status = append(number + 1, 0, true, &err)) == STATUS_OK) {
        number++;
    }
    assert_int_equal(status, STATUS_NO_SPACE);
    assert_int_equal(number - waiting, MANIFEST_RESERVE_BYTES / (2 * MANIFEST_BLOCK_BYTES));
    assert_int_equal(file_bytes(), size_bytes);
    /* Any number of tries, and starts. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(append(number + 1, 0, true, &err), STATUS_NO_SPACE);
        lose_power();
        assert_int_equal(load(), number);
        assert_int_equal(manifest_keep(&manifest, &err), STATUS_OK);
    }
    sim_disk_options(fixture.node)->capacity_bytes = capacity_bytes;
    assert_int_equal(append(number + 1, 0, false, &err), STATUS_OK);
    lose_power();
    assert_int_equal(load(), number + 1);
    end();
}

/* What is left on the disk isn't eaten up by tries that can't succeed. */
static void test_h31_failed_preparation_gives_back_what_it_took(void **state) {
    (void)state;
    struct error err;
    uint64_t free_bytes;
    uint64_t total_bytes;
    begin(3, false);
    assert_int_equal(create(1, NULL), STATUS_OK);
    fill_disk();
    sim_disk_options(fixture.node)->capacity_bytes += 5 * BLOCK;
    uint64_t number = 2;
    while (append(number, 0, true, &err) == STATUS_OK) {
        number++;
        assert_true(number < 100);
    }
    assert_int_equal(env_disk_space(fixture.env, "/m", &free_bytes, &total_bytes, NULL), STATUS_OK);
    assert_int_equal(free_bytes, 5 * BLOCK);
    end();
}

/* A store that finds no room for a new manifest goes on in the old one, with the space that it had prepared. */
static void test_h31_prepared_space_outlives_a_crash(void **state) {
    (void)state;
    struct error err;
    begin(4, false);
    assert_int_equal(create(1, NULL), STATUS_OK);
    assert_int_equal(append(2, 0, true, NULL), STATUS_OK);
    fill_disk();
    lose_power();
    assert_int_equal(load(), 2);
    assert_int_equal(create(2, &err), STATUS_NO_SPACE);
    assert_int_equal(manifest_keep(&manifest, &err), STATUS_OK);
    for (uint64_t number = 3; number < 10; number++) {
        assert_int_equal(append(number, 0, true, &err), STATUS_OK);
    }
    lose_power();
    assert_int_equal(load(), 9);
    end();
}

/* ---- Power ----------------------------------------------------------------------------------------------------- */

/* Behind what counts there are zeroes only: were something of a torn edit left, a later one that is torn, too, could
 * complete it. */
static void check_wiped(void) {
    static char bytes[4 * 1024 * 1024];
    size_t len;
    assert_int_equal(env_pread(manifest.file, bytes, sizeof bytes, 0, &len, NULL), STATUS_OK);
    assert_true(len < sizeof bytes);
    for (size_t at = manifest.size_bytes; at < len; at++) {
        assert_int_equal(bytes[at], 0);
    }
}

/* Fails the n-th write or sync and loses power there. Returns false when there was none. */
static bool try_step(uint64_t seed, const char *hook, unsigned n) {
    char specification[64];
    struct error err;
    uint64_t acknowledged = 0;
    begin(seed * 1000 + n, true);
    assert_int_equal(create(1, NULL), STATUS_OK);
    (void)snprintf(specification, sizeof specification, "%s=error(EIO),after=%u", hook, n);
    assert_int_equal(fault_arm(sim_node_faults(fixture.node), specification, NULL), STATUS_OK);
    uint64_t number = 1;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && number < 30) {
        acknowledged = number;
        number++;
        status = append(number, number % 3 * 900, false, &err);
        assert_true(status == STATUS_OK || status == STATUS_IO);
    }
    fault_disarm(sim_node_faults(fixture.node), FAULT_MANIFEST_WRITE);
    fault_disarm(sim_node_faults(fixture.node), FAULT_MANIFEST_SYNC);
    bool failed = status != STATUS_OK;
    acknowledged = failed ? acknowledged : number;
    lose_power();
    uint64_t found = load();
    check_wiped();
    if (found != acknowledged && !(failed && found == number)) {
        fail_msg("seed %" PRIu64 ", %s %u: acknowledged %" PRIu64 ", found %" PRIu64, seed, hook, n, acknowledged,
                 found);
    }
    /* Its torn end is wiped, and never comes back: neither after going on in the old file ... */
    bool fresh = seed % 2 == 0;
    assert_int_equal(fresh ? create(2, &err) : manifest_keep(&manifest, &err), STATUS_OK);
    if (!fresh) {
        assert_int_equal(append(found + 100, 700, true, &err), STATUS_OK);
        found += 100;
    } else {
        assert_int_equal(append(found, 0, true, &err), STATUS_OK); /* ... nor in a new one */
    }
    lose_power();
    assert_int_equal(load(), found);
    end();
    return failed;
}

static void test_h30_power_loss_at_each_step_of_appending_keeps_what_was_acknowledged(void **state) {
    (void)state;
    static const char *const hooks[] = {"manifest.write", "manifest.sync"};
    for (size_t hook = 0; hook < 2; hook++) {
        for (uint64_t seed = 1; seed <= 4; seed++) {
            unsigned n = 0;
            while (try_step(seed, hooks[hook], n)) {
                n++;
            }
            assert_true(n > 50);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest_appends_go_into_prepared_space),
        cmocka_unit_test(test_h31_full_disk_lets_edits_wait_that_give_no_space),
        cmocka_unit_test(test_h31_failed_preparation_gives_back_what_it_took),
        cmocka_unit_test(test_h31_prepared_space_outlives_a_crash),
        cmocka_unit_test(test_h30_power_loss_at_each_step_of_appending_keeps_what_was_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
