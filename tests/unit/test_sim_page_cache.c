/*
 * The simulated page cache and locks: mappings, reads that never wait, writes that sync themselves, fibers that sleep
 * on a word.
 *
 * Would break these: a store that a process crash loses or a power loss always keeps; a power loss that shows only the
 * newest stores of a page; a sync that leaves out stores made before it, or takes in those made after; a nowait read
 * that blocks, is never or always absent, or gives old bytes; two fibers inside one mutex; a wake that is lost.
 */
#include "tests/unit/sim_disk_fixture.h"

/* ---- Mappings --------------------------------------------------------------------------------------------------- */

static char *map(struct env_file *file, size_t len) {
    void *data = NULL;
    assert_int_equal(env_map(file, len, &data, NULL), STATUS_OK);
    return data;
}

static void test_stores_are_read_at_once_and_survive_a_process_crash(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    struct env_file *file = make_old_file(&fixture, "/f", 2);
    char *mapped = map(file, 2 * BLOCK);
    memcpy(mapped + BLOCK - 3, "stored", 6);
    char data[2 * BLOCK];
    size_t len = 0;
    read_file(&fixture, "/f", data, sizeof data, &len);
    assert_int_equal(len, 2 * BLOCK);
    assert_memory_equal(data + BLOCK - 4, "ostoredo", 8);
    assert_int_equal(env_pwrite(file, "written", 7, 10, NULL), STATUS_OK);
    assert_memory_equal(mapped + 9, "owritteno", 9);
    memcpy(mapped, "last", 4);
    crash(&fixture, SIM_CRASH_PROCESS);
    read_file(&fixture, "/f", data, sizeof data, &len);
    assert_memory_equal(data, "last", 4);
    assert_memory_equal(data + 10, "written", 7);
    assert_memory_equal(data + BLOCK - 3, "stored", 6);
    cleanup(&fixture);
}

static void test_unmapped_stores_stay_and_short_files_are_refused(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    struct env_file *file = make_old_file(&fixture, "/f", 1);
    void *refused = NULL;
    assert_int_equal(env_map(file, BLOCK + 1, &refused, NULL), STATUS_INVALID);
    assert_null(refused);
    char *mapped = map(file, 100);
    memcpy(mapped + 94, "stored", 6);
    env_unmap(file, mapped, 100);
    env_unmap(file, NULL, 100);
    env_close(file);
    char data[BLOCK];
    size_t len = 0;
    read_file(&fixture, "/f", data, sizeof data, &len);
    assert_memory_equal(data + 93, "ostoredo", 8);
    cleanup(&fixture);
}

static void test_power_loss_treats_stores_as_unsynced_sectors(void **state) {
    (void)state;
    int kept = 0, lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *file = make_old_file(&fixture, "/f", 4);
        char *mapped = map(file, 4 * BLOCK);
        memset(mapped, 's', BLOCK);
        assert_int_equal(env_sync(file, NULL), STATUS_OK);
        memset(mapped + BLOCK, 'n', 2 * BLOCK);
        crash(&fixture, SIM_CRASH_POWER);
        char data[4 * BLOCK];
        size_t len = 0;
        read_file(&fixture, "/f", data, sizeof data, &len);
        for (size_t i = 0; i < BLOCK / SECTOR; i++) {
            assert_int_equal(sector_of(data, i), 's'); /* synced */
            kept += sector_of(data, BLOCK / SECTOR + i) == 'n';
            lost += sector_of(data, BLOCK / SECTOR + i) == 'o';
            assert_int_equal(sector_of(data, 3 * (BLOCK / SECTOR) + i), 'o'); /* untouched */
        }
        cleanup(&fixture);
    }
    assert_true(kept > 50 && lost > 50);
}

/* The kernel may have written back any earlier state of a page, and not the newest one. */
static void test_power_loss_may_leave_an_earlier_state_of_a_page(void **state) {
    (void)state;
    int old = 0, middle = 0, newest = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *other = make_old_file(&fixture, "/other", 1);
        char *mapped = map(make_old_file(&fixture, "/f", 1), BLOCK);
        for (int i = 1; i <= 9; i++) {
            memset(mapped, '0' + i, SECTOR);
            assert_int_equal(env_pwrite(other, "x", 1, 0, NULL), STATUS_OK); /* anything that takes time */
        }
        crash(&fixture, SIM_CRASH_POWER);
        char data[BLOCK];
        size_t len = 0;
        read_file(&fixture, "/f", data, sizeof data, &len);
        char found = sector_of(data, 0);
        old += found == 'o';
        middle += found >= '1' && found <= '8';
        newest += found == '9';
        cleanup(&fixture);
    }
    assert_true(old > 0 && middle > 0 && newest > 0);
}

/* ---- Reads that never wait, writes that sync themselves --------------------------------------------------------- */

static void test_nowait_read_is_right_or_pending_and_takes_no_time(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    struct env_file *file = make_old_file(&fixture, "/f", 1);
    char *mapped = map(file, BLOCK);
    uint64_t before_us = sim_now_us(fixture.sim);
    int pending = 0;
    char data[8];
    for (int i = 0; i < 100; i++) {
        mapped[7] = (char)i;
        enum status status = env_pread_nowait(file, data, 8, 0, NULL);
        pending += status == STATUS_PENDING;
        assert_true(status == STATUS_PENDING || (status == STATUS_OK && data[0] == 'o' && data[7] == (char)i));
    }
    assert_in_range(pending, 20, 80);
    assert_int_equal(sim_now_us(fixture.sim), before_us);
    sim_disk_options(fixture.node)->nowait_pending_ppm = 0;
    assert_int_equal(env_pread_nowait(file, data, 8, BLOCK - 8, NULL), STATUS_OK);
    assert_int_equal(env_pread_nowait(file, data, 8, BLOCK - 7, NULL), STATUS_PENDING);
    sim_disk_options(fixture.node)->read_error_ppm = 1000 * 1000;
    assert_int_equal(env_pread_nowait(file, data, 8, 0, NULL), STATUS_IO);
    cleanup(&fixture);
}

static void test_synced_write_survives_every_power_loss_and_others_need_not(void **state) {
    (void)state;
    int others_lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *file = make_old_file(&fixture, "/f", 2);
        char data[2 * BLOCK];
        memset(data, 'n', sizeof data);
        assert_int_equal(env_pwrite(file, data, BLOCK, BLOCK, NULL), STATUS_OK);
        assert_int_equal(env_pwrite_dsync(file, data, BLOCK, 0, NULL), STATUS_OK);
        crash(&fixture, SIM_CRASH_POWER);
        size_t len = 0;
        read_file(&fixture, "/f", data, sizeof data, &len);
        for (size_t i = 0; i < BLOCK / SECTOR; i++) {
            assert_int_equal(sector_of(data, i), 'n');
            others_lost += sector_of(data, BLOCK / SECTOR + i) != 'n';
        }
        cleanup(&fixture);
    }
    assert_true(others_lost > 50);
}

/* ---- Locks ------------------------------------------------------------------------------------------------------ */

enum { FIBERS = 4, ROUNDS = 20 };

struct locked {
    struct env *env;
    struct env_mutex mutex;
    struct env_waiter waiter;
    bool is_inside;
    int ended;
    bool is_told;
};

static void enter_always(void *context) {
    struct locked *locked = context;
    for (int i = 0; i < ROUNDS; i++) {
        env_mutex_lock(&locked->mutex);
        assert_false(locked->is_inside);
        locked->is_inside = true;
        env_sleep_us(locked->env, 50); /* never in real code: so that others run meanwhile */
        locked->is_inside = false;
        env_mutex_unlock(&locked->mutex);
        env_sleep_us(locked->env, 20);
    }
    locked->ended++;
}

static bool all_ended(void *context) { return ((struct locked *)context)->ended == FIBERS; }

static uint64_t run_locked(uint64_t seed) {
    struct fixture fixture;
    setup(&fixture, seed, NULL);
    struct locked locked = {.env = fixture.env};
    env_mutex_init(&locked.mutex, fixture.env);
    for (int i = 0; i < FIBERS; i++) {
        sim_node_thread(fixture.node, enter_always, &locked);
    }
    env_mutex_lock(&locked.mutex); /* the host waits as any thread does */
    assert_false(locked.is_inside);
    env_mutex_unlock(&locked.mutex);
    assert_int_equal(sim_run_until(fixture.sim, UINT64_MAX, all_ended, &locked, STEPS_MAX), SIM_END_PREDICATE);
    assert_int_equal(atomic_load(&locked.mutex.state), 0);
    uint64_t hash = sim_hash(fixture.sim);
    cleanup(&fixture);
    return hash;
}

static void test_mutex_lets_one_fiber_in_and_the_seed_decides_who(void **state) {
    (void)state;
    assert_true(run_locked(1) == run_locked(1));
    assert_true(run_locked(1) != run_locked(2));
}

static void wait_for_it(void *context) {
    struct locked *locked = context;
    env_waiter_wait(&locked->waiter);
    assert_true(locked->is_told);
    locked->ended = FIBERS;
}

static void test_waiter_sleeps_until_it_is_woken(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    struct locked locked = {.env = fixture.env};
    env_waiter_init(&locked.waiter, fixture.env);
    sim_node_thread(fixture.node, wait_for_it, &locked);
    (void)sim_run_until(fixture.sim, sim_now_us(fixture.sim) + 10000, all_ended, &locked, STEPS_MAX);
    assert_int_equal(locked.ended, 0);
    locked.is_told = true;
    env_waiter_wake(&locked.waiter);
    assert_int_equal(sim_run_until(fixture.sim, UINT64_MAX, all_ended, &locked, STEPS_MAX), SIM_END_PREDICATE);
    /* A fiber that sleeps when its node crashes is simply gone. */
    locked.ended = 0;
    sim_node_thread(fixture.node, wait_for_it, &locked);
    (void)sim_run_until(fixture.sim, sim_now_us(fixture.sim) + 10000, all_ended, &locked, STEPS_MAX);
    crash(&fixture, SIM_CRASH_PROCESS);
    (void)sim_run_until(fixture.sim, sim_now_us(fixture.sim) + 10000, all_ended, &locked, STEPS_MAX);
    assert_int_equal(locked.ended, 0);
    cleanup(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stores_are_read_at_once_and_survive_a_process_crash),
        cmocka_unit_test(test_unmapped_stores_stay_and_short_files_are_refused),
        cmocka_unit_test(test_power_loss_treats_stores_as_unsynced_sectors),
        cmocka_unit_test(test_power_loss_may_leave_an_earlier_state_of_a_page),
        cmocka_unit_test(test_nowait_read_is_right_or_pending_and_takes_no_time),
        cmocka_unit_test(test_synced_write_survives_every_power_loss_and_others_need_not),
        cmocka_unit_test(test_mutex_lets_one_fiber_in_and_the_seed_decides_who),
        cmocka_unit_test(test_waiter_sleeps_until_it_is_woken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
