/*
 * The simulated disk: what is synced stays, what isn't may stay, go, tear or turn to noise; names likewise.
 *
 * Would break these: a sync that covers too little or too much; a power loss that spares everything, or harms what is
 * durable; a sync of a directory that leaves out what it depends on; a failed sync whose retry saves the data. h27 and
 * h28 show that the disk can tell the bug.
 */
#include "tests/unit/sim_disk_fixture.h"

/* ---- Data ------------------------------------------------------------------------------------------------------- */

static void test_reads_see_unsynced_writes_and_holes_are_zero(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    struct env_file *file = open_file(&fixture, "/f", ENV_OPEN_CREATE);
    assert_int_equal(env_pwrite(file, "end", 3, 100000, NULL), STATUS_OK);
    assert_int_equal(env_pwrite(file, "mid", 3, 50001, NULL), STATUS_OK);
    uint64_t size = 0;
    assert_int_equal(env_size(file, &size, NULL), STATUS_OK);
    assert_int_equal(size, 100003);
    char data[8] = {0};
    size_t len = 0;
    assert_int_equal(env_pread(file, data, 5, 50000, &len, NULL), STATUS_OK);
    assert_int_equal(len, 5);
    assert_memory_equal(data, "\0mid\0", 5);
    assert_int_equal(env_pread(file, data, 8, 100000, &len, NULL), STATUS_OK);
    assert_int_equal(len, 3);
    assert_int_equal(env_pread(file, data, 8, 200000, &len, NULL), STATUS_OK);
    assert_int_equal(len, 0);
    assert_int_equal(env_truncate(file, 50002, NULL), STATUS_OK);
    assert_int_equal(env_truncate(file, 60000, NULL), STATUS_OK);
    assert_int_equal(env_pread(file, data, 5, 50000, &len, NULL), STATUS_OK);
    assert_memory_equal(data, "\0m\0\0\0", 5);
    env_close(file);
    cleanup(&fixture);
}

static void test_process_crash_keeps_the_cache(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    struct env_file *file = open_file(&fixture, "/f", ENV_OPEN_CREATE);
    assert_int_equal(env_pwrite(file, "unsynced", 8, 0, NULL), STATUS_OK);
    crash(&fixture, SIM_CRASH_PROCESS);
    char data[16];
    size_t len = 0;
    read_file(&fixture, "/f", data, sizeof data, &len);
    assert_int_equal(len, 8);
    assert_memory_equal(data, "unsynced", 8);
    cleanup(&fixture);
}

static void test_power_loss_shows_every_fate_of_unsynced_sectors(void **state) {
    (void)state;
    int kept = 0, lost = 0, mixed = 0, whole = 0, nothing = 0;
    struct sim_stats stats;
    uint64_t torn = 0, garbled = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *file = make_old_file(&fixture, "/f", 2);
        char data[2 * BLOCK];
        memset(data, 'n', BLOCK);
        assert_int_equal(env_pwrite(file, data, BLOCK, 0, NULL), STATUS_OK);
        crash(&fixture, SIM_CRASH_POWER);
        size_t len = 0;
        read_file(&fixture, "/f", data, sizeof data, &len);
        assert_int_equal(len, 2 * BLOCK);
        int kept_here = 0, lost_here = 0;
        for (size_t i = 0; i < BLOCK / SECTOR; i++) {
            kept_here += sector_of(data, i) == 'n';
            lost_here += sector_of(data, i) == 'o';
            assert_int_equal(sector_of(data, BLOCK / SECTOR + i), 'o'); /* what was synced is never harmed */
        }
        mixed += BLOCK / SECTOR - kept_here - lost_here;
        kept += kept_here;
        lost += lost_here;
        whole += kept_here == BLOCK / SECTOR;
        nothing += lost_here == BLOCK / SECTOR;
        sim_get_stats(fixture.sim, &stats);
        torn += stats.sectors_torn;
        garbled += stats.sectors_garbled;
        cleanup(&fixture);
    }
    assert_true(kept > 50 && lost > 50 && mixed > 5 && whole > 5 && nothing > 5);
    assert_true(torn > 2 && garbled > 2);
}

static void test_power_loss_without_scatter_keeps_writes_whole(void **state) {
    (void)state;
    struct sim_disk_options disk;
    sim_disk_options_init(&disk);
    disk.scatter = false;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, &disk);
        struct env_file *file = make_old_file(&fixture, "/f", 1);
        char data[BLOCK];
        memset(data, 'n', BLOCK);
        assert_int_equal(env_pwrite(file, data, BLOCK, 0, NULL), STATUS_OK);
        crash(&fixture, SIM_CRASH_POWER);
        size_t len = 0;
        read_file(&fixture, "/f", data, sizeof data, &len);
        for (size_t i = 1; i < BLOCK; i++) {
            assert_int_equal(data[i], data[0]);
        }
        cleanup(&fixture);
    }
}

static void test_synced_data_survives_every_power_loss(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *file = open_file(&fixture, "/f", ENV_OPEN_CREATE);
        char data[10000];
        memset(data, 'x', sizeof data);
        assert_int_equal(env_pwrite(file, data, sizeof data, 0, NULL), STATUS_OK);
        assert_int_equal(env_truncate(file, 9000, NULL), STATUS_OK);
        assert_int_equal(env_sync(file, NULL), STATUS_OK);
        assert_int_equal(env_sync_dir(fixture.env, "/", NULL), STATUS_OK);
        uint64_t bytes, names;
        sim_disk_get_pending(fixture.node, &bytes, &names);
        assert_int_equal(bytes, 0);
        assert_int_equal(names, 0);
        crash(&fixture, SIM_CRASH_POWER);
        crash(&fixture, SIM_CRASH_POWER);
        size_t len = 0;
        char back[10000];
        read_file(&fixture, "/f", back, sizeof back, &len);
        assert_int_equal(len, 9000);
        assert_memory_equal(back, data, 9000);
        cleanup(&fixture);
    }
}

static void test_power_loss_may_cost_an_appended_file_its_size_or_its_bytes(void **state) {
    (void)state;
    int shorter = 0, zeroes = 0, complete = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *file = make_old_file(&fixture, "/f", 1);
        char data[3 * BLOCK];
        memset(data, 'n', sizeof data);
        assert_int_equal(env_pwrite(file, data, BLOCK, BLOCK, NULL), STATUS_OK);
        assert_int_equal(env_pwrite(file, data, BLOCK, 2 * BLOCK, NULL), STATUS_OK);
        crash(&fixture, SIM_CRASH_POWER);
        size_t len = 0;
        read_file(&fixture, "/f", data, sizeof data, &len);
        assert_true(len == BLOCK || len == 2 * BLOCK || len == 3 * BLOCK);
        shorter += len < 3 * BLOCK;
        zeroes += len == 3 * BLOCK && sector_of(data, 2 * BLOCK / SECTOR) == '\0' && data[2 * BLOCK] == '\0';
        complete += len == 3 * BLOCK && data[BLOCK] == 'n' && data[3 * BLOCK - 1] == 'n';
        cleanup(&fixture);
    }
    assert_true(shorter > 5 && zeroes > 2 && complete > 5);
}

struct race {
    struct fixture *fixture;
    struct env_file *file;
    bool syncing;
    bool synced;
    uint64_t written_meanwhile;
    uint64_t pending_bytes;
};

static void race_sync(void *context) {
    struct race *race = context;
    uint64_t names;
    assert_int_equal(env_pwrite(race->file, "n", 1, 0, NULL), STATUS_OK);
    race->syncing = true;
    assert_int_equal(env_sync(race->file, NULL), STATUS_OK);
    race->synced = true;
    sim_disk_get_pending(race->fixture->node, &race->pending_bytes, &names);
}

static void race_write(void *context) {
    struct race *race = context;
    for (uint64_t sector = 1; !race->synced; sector++) {
        assert_int_equal(env_pwrite(race->file, "n", 1, sector * SECTOR, NULL), STATUS_OK);
        race->written_meanwhile += race->syncing && !race->synced;
    }
}

static void test_sync_covers_only_what_was_written_before_it_was_called(void **state) {
    (void)state;
    uint64_t written = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct fixture fixture;
        struct sim_disk_options disk;
        sim_disk_options_init(&disk);
        disk.sync_us_max = 2000;
        setup(&fixture, seed, &disk);
        struct race race = {.fixture = &fixture, .file = make_old_file(&fixture, "/f", 1024)};
        sim_node_thread(fixture.node, race_sync, &race);
        sim_node_thread(fixture.node, race_write, &race);
        assert_int_equal(sim_run_until(fixture.sim, UINT64_MAX, NULL, NULL, STEPS_MAX), SIM_END_IDLE);
        assert_int_equal(race.pending_bytes, race.written_meanwhile * SECTOR);
        written += race.written_meanwhile;
        cleanup(&fixture);
    }
    assert_true(written > 20);
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

static void test_h28_rename_without_directory_sync_may_be_lost(void **state) {
    (void)state;
    int renamed = 0, original = 0, overtaken = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        env_close(make_old_file(&fixture, "/current", 1));
        struct env_file *later = make_old_file(&fixture, "/later", 1);
        struct env_file *file = open_file(&fixture, "/next", ENV_OPEN_CREATE);
        assert_int_equal(env_pwrite(file, "next", 4, 0, NULL), STATUS_OK);
        assert_int_equal(env_sync(file, NULL), STATUS_OK);
        assert_int_equal(env_sync_dir(fixture.env, "/", NULL), STATUS_OK);
        assert_int_equal(env_rename(fixture.env, "/next", "/current", NULL), STATUS_OK);
        assert_false(exists(&fixture, "/next"));
        bool synced = seed % 2 == 0;
        if (synced) {
            assert_int_equal(env_sync_dir(fixture.env, "/", NULL), STATUS_OK);
        }
        assert_int_equal(env_pwrite(later, "late", 4, 0, NULL), STATUS_OK);
        crash(&fixture, SIM_CRASH_POWER);
        char data[4];
        size_t len = 0;
        read_file(&fixture, "/current", data, sizeof data, &len);
        bool is_next = memcmp(data, "next", 4) == 0;
        assert_int_equal(exists(&fixture, "/next"), !is_next); /* atomic: one or the other */
        assert_true(is_next || !synced);
        renamed += is_next && !synced;
        original += !is_next;
        read_file(&fixture, "/later", data, sizeof data, &len);
        overtaken += !is_next && memcmp(data, "late", 4) == 0; /* data doesn't wait for names */
        cleanup(&fixture);
    }
    assert_true(renamed > 3 && original > 3 && overtaken > 0);
}

static void test_power_loss_keeps_a_prefix_of_directory_operations(void **state) {
    (void)state;
    int counts[6] = {0};
    for (uint64_t seed = 0; seed < 2 * SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        assert_int_equal(env_mkdir(fixture.env, "/d", NULL), STATUS_OK);
        assert_int_equal(env_mkdir(fixture.env, "/d", NULL), STATUS_EXISTS);
        assert_int_equal(env_sync_dir(fixture.env, "/", NULL), STATUS_OK);
        char path[16];
        for (int i = 0; i < 5; i++) {
            (void)snprintf(path, sizeof path, "/d/f%c", '0' + i);
            env_close(open_file(&fixture, path, ENV_OPEN_CREATE | ENV_OPEN_EXCLUSIVE));
        }
        crash(&fixture, SIM_CRASH_POWER);
        int count = 0;
        for (int i = 0; i < 5; i++) {
            (void)snprintf(path, sizeof path, "/d/f%c", '0' + i);
            bool there = exists(&fixture, path);
            assert_true(!there || count == i);
            count += there;
        }
        counts[count]++;
        cleanup(&fixture);
    }
    for (int i = 0; i < 6; i++) {
        assert_true(counts[i] > 0);
    }
}

static void test_directory_sync_takes_along_what_it_depends_on(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        assert_int_equal(env_mkdir(fixture.env, "/a", NULL), STATUS_OK);
        assert_int_equal(env_mkdir(fixture.env, "/b", NULL), STATUS_OK);
        assert_int_equal(env_sync_dir(fixture.env, "/", NULL), STATUS_OK);
        env_close(open_file(&fixture, "/a/x", ENV_OPEN_CREATE));
        assert_int_equal(env_rename(fixture.env, "/a/x", "/b/x", NULL), STATUS_OK);
        assert_int_equal(env_link(fixture.env, "/b/x", "/b/y", NULL), STATUS_OK);
        assert_int_equal(env_sync_dir(fixture.env, "/b", NULL), STATUS_OK);
        assert_int_equal(env_unlink(fixture.env, "/b/y", NULL), STATUS_OK);
        assert_false(exists(&fixture, "/b/y"));
        crash(&fixture, SIM_CRASH_POWER);
        assert_true(exists(&fixture, "/b/x"));
        assert_false(exists(&fixture, "/a/x"));
        cleanup(&fixture);
    }
}

static enum status collect(void *context, const char *name) {
    (void)strcat(context, name);
    (void)strcat(context, " ");
    return strcmp(name, "stop") == 0 ? STATUS_CANCELLED : STATUS_OK;
}

static void test_directory_lists_names_in_order(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    const char *names[] = {"b", "a", "stop", "zz", "ab"};
    char path[16];
    for (size_t i = 0; i < 5; i++) {
        (void)snprintf(path, sizeof path, "/%s", names[i]);
        env_close(open_file(&fixture, path, ENV_OPEN_CREATE));
    }
    char text[64] = "";
    assert_int_equal(env_list_dir(fixture.env, "/", collect, text, NULL), STATUS_CANCELLED);
    assert_string_equal(text, "a ab b stop ");
    assert_int_equal(env_list_dir(fixture.env, "/none", collect, text, NULL), STATUS_NOT_FOUND);
    struct env_file *file = NULL;
    assert_int_equal(env_open(fixture.env, "/none", ENV_OPEN_READ, &file, NULL), STATUS_NOT_FOUND);
    assert_int_equal(env_open(fixture.env, "/no/file", ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, NULL),
                     STATUS_NOT_FOUND);
    assert_int_equal(env_open(fixture.env, "/a", ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_EXCLUSIVE, &file, NULL),
                     STATUS_EXISTS);
    assert_int_equal(env_unlink(fixture.env, "/none", NULL), STATUS_NOT_FOUND);
    assert_int_equal(env_link(fixture.env, "/a", "/b", NULL), STATUS_EXISTS);
    assert_int_equal(env_mkdir(fixture.env, "/dir", NULL), STATUS_OK);
    env_close(open_file(&fixture, "/dir/file", ENV_OPEN_CREATE));
    assert_int_equal(env_unlink(fixture.env, "/dir", NULL), STATUS_IO); /* isn't empty */
    assert_int_equal(env_unlink(fixture.env, "/dir/file", NULL), STATUS_OK);
    assert_int_equal(env_unlink(fixture.env, "/dir", NULL), STATUS_OK);
    sim_disk_options(fixture.node)->links_refused = true;
    assert_int_equal(env_link(fixture.env, "/a", "/c", NULL), STATUS_IO);
    cleanup(&fixture);
}

static void test_unlinked_file_stays_readable_while_open_and_gives_its_space_back(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    uint64_t before, during, total;
    assert_int_equal(env_disk_space(fixture.env, "/", &before, &total, NULL), STATUS_OK);
    struct env_file *file = make_old_file(&fixture, "/f", 4);
    assert_int_equal(env_unlink(fixture.env, "/f", NULL), STATUS_OK);
    assert_int_equal(env_sync_dir(fixture.env, "/", NULL), STATUS_OK);
    char data[1];
    size_t len = 0;
    assert_int_equal(env_pread(file, data, 1, 4 * BLOCK - 1, &len, NULL), STATUS_OK);
    assert_int_equal(len, 1);
    assert_int_equal(env_disk_space(fixture.env, "/", &during, &total, NULL), STATUS_OK);
    assert_int_equal(before - during, 4 * BLOCK);
    env_close(file);
    assert_int_equal(env_disk_space(fixture.env, "/", &during, &total, NULL), STATUS_OK);
    assert_int_equal(before, during);
    cleanup(&fixture);
}

/* ---- Faults ----------------------------------------------------------------------------------------------------- */

static void test_h27_data_of_a_failed_sync_is_not_saved_by_the_next(void **state) {
    (void)state;
    int lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *file = make_old_file(&fixture, "/f", 1);
        char data[BLOCK];
        memset(data, 'n', BLOCK);
        assert_int_equal(env_pwrite(file, data, BLOCK, 0, NULL), STATUS_OK);
        sim_disk_options(fixture.node)->sync_error_ppm = 1000 * 1000;
        struct error err;
        assert_int_equal(env_sync(file, &err), STATUS_IO);
        sim_disk_options(fixture.node)->sync_error_ppm = 0;
        assert_int_equal(env_sync(file, NULL), STATUS_OK); /* and claims all is well */
        crash(&fixture, SIM_CRASH_POWER);
        size_t len = 0;
        read_file(&fixture, "/f", data, sizeof data, &len);
        for (size_t i = 0; i < BLOCK / SECTOR; i++) {
            char byte = sector_of(data, i);
            assert_true(byte == 'n' || byte == 'o');
            lost += byte == 'o';
        }
        cleanup(&fixture);
    }
    assert_in_range(lost, SEEDS, SEEDS * BLOCK / SECTOR - SEEDS);
}

static void test_full_disk_refuses_what_does_not_fit(void **state) {
    (void)state;
    struct sim_disk_options disk;
    sim_disk_options_init(&disk);
    disk.capacity_bytes = 4 * BLOCK;
    struct fixture fixture;
    setup(&fixture, 1, &disk);
    struct env_file *file = open_file(&fixture, "/f", ENV_OPEN_CREATE);
    char data[6 * BLOCK];
    memset(data, 'x', sizeof data);
    assert_int_equal(env_pwrite(file, data, sizeof data, 0, NULL), STATUS_NO_SPACE);
    uint64_t size, left, total;
    assert_int_equal(env_size(file, &size, NULL), STATUS_OK);
    assert_int_equal(size, 4 * BLOCK);
    assert_int_equal(env_pwrite(file, data, 4 * BLOCK, 0, NULL), STATUS_OK); /* in place */
    assert_int_equal(env_disk_space(fixture.env, "/", &left, &total, NULL), STATUS_OK);
    assert_int_equal(left, 0);
    assert_int_equal(total, 4 * BLOCK);
    assert_int_equal(env_truncate(file, 100, NULL), STATUS_OK);
    assert_int_equal(env_pwrite(file, data, 2 * BLOCK, BLOCK, NULL), STATUS_OK);
    env_close(file);
    cleanup(&fixture);
}

static void test_io_errors_come_at_their_rate(void **state) {
    (void)state;
    struct sim_disk_options disk;
    sim_disk_options_init(&disk);
    struct fixture fixture;
    setup(&fixture, 1, &disk);
    struct env_file *file = make_old_file(&fixture, "/f", 1);
    sim_disk_options(fixture.node)->read_error_ppm = 250 * 1000;
    sim_disk_options(fixture.node)->write_error_ppm = 250 * 1000;
    int reads = 0, writes = 0;
    for (int i = 0; i < 400; i++) {
        char byte = 'x';
        size_t len = 0;
        struct error err = {0};
        enum status status = env_pread(file, &byte, 1, 0, &len, &err);
        assert_true(status == STATUS_OK || (status == STATUS_IO && strstr(err.message, "/f") != NULL));
        reads += status == STATUS_IO;
        writes += env_pwrite(file, &byte, 1, 0, NULL) == STATUS_IO;
    }
    assert_in_range(reads, 60, 140);
    assert_in_range(writes, 60, 140);
    cleanup(&fixture);
}

static void test_corruption_changes_bytes_in_range_and_stays(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        env_close(make_old_file(&fixture, "/f", 2));
        assert_int_equal(sim_disk_corrupt(fixture.node, "/f", 5000, 100), STATUS_OK);
        assert_int_equal(sim_disk_corrupt(fixture.node, "/f", 8190, 3), STATUS_INVALID);
        assert_int_equal(sim_disk_corrupt(fixture.node, "/g", 0, 1), STATUS_NOT_FOUND);
        for (int round = 0; round < 2; round++) {
            char data[2 * BLOCK];
            size_t len = 0;
            read_file(&fixture, "/f", data, sizeof data, &len);
            int changed = 0;
            for (size_t i = 0; i < len; i++) {
                changed += data[i] != 'o';
                assert_true(data[i] == 'o' || (i >= 5000 && i < 5100));
            }
            assert_in_range(changed, 1, 8);
            crash(&fixture, SIM_CRASH_POWER);
        }
        cleanup(&fixture);
    }
}

static void test_lock_dies_with_the_process_after_a_while(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    struct env_file *lock = NULL;
    struct env_file *second = NULL;
    assert_int_equal(env_lock_file(fixture.env, "/lock", &lock, NULL), STATUS_OK);
    uint64_t start_us = sim_now_us(fixture.sim);
    assert_int_equal(env_lock_file(fixture.env, "/lock", &second, NULL), STATUS_BUSY);
    assert_in_range(sim_now_us(fixture.sim) - start_us, 1000 * 1000, 1100 * 1000);
    crash(&fixture, SIM_CRASH_PROCESS);
    start_us = sim_now_us(fixture.sim);
    assert_int_equal(env_lock_file(fixture.env, "/lock", &lock, NULL), STATUS_OK);
    assert_in_range(sim_now_us(fixture.sim) - start_us, 0, 100 * 1000);
    env_close(lock);
    assert_int_equal(env_lock_file(fixture.env, "/lock", &lock, NULL), STATUS_OK);
    env_close(lock);
    cleanup(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_see_unsynced_writes_and_holes_are_zero),
        cmocka_unit_test(test_process_crash_keeps_the_cache),
        cmocka_unit_test(test_power_loss_shows_every_fate_of_unsynced_sectors),
        cmocka_unit_test(test_power_loss_without_scatter_keeps_writes_whole),
        cmocka_unit_test(test_synced_data_survives_every_power_loss),
        cmocka_unit_test(test_power_loss_may_cost_an_appended_file_its_size_or_its_bytes),
        cmocka_unit_test(test_sync_covers_only_what_was_written_before_it_was_called),
        cmocka_unit_test(test_h28_rename_without_directory_sync_may_be_lost),
        cmocka_unit_test(test_power_loss_keeps_a_prefix_of_directory_operations),
        cmocka_unit_test(test_directory_sync_takes_along_what_it_depends_on),
        cmocka_unit_test(test_directory_lists_names_in_order),
        cmocka_unit_test(test_unlinked_file_stays_readable_while_open_and_gives_its_space_back),
        cmocka_unit_test(test_h27_data_of_a_failed_sync_is_not_saved_by_the_next),
        cmocka_unit_test(test_full_disk_refuses_what_does_not_fit),
        cmocka_unit_test(test_io_errors_come_at_their_rate),
        cmocka_unit_test(test_corruption_changes_bytes_in_range_and_stays),
        cmocka_unit_test(test_lock_dies_with_the_process_after_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
