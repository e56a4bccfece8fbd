/*
 * Asynchronous files on the simulated disk: completions in any order, and what a crash makes of operations in flight.
 *
 * Would break these: a DSYNC write that isn't durable when done, drags others along, or is overwritten by older ones;
 * operations that complete inside env_io_submit, after their node's crash, or on a hung disk; fault hooks that aren't
 * consulted.
 */
#include "tests/unit/sim_disk_fixture.h"

enum { IO_COUNT = 8 };

struct item {
    struct env_io io;
    struct ios *ios;
    uint8_t *data;
};

struct ios {
    struct env_loop *loop;
    struct env_task task;
    struct item items[IO_COUNT];
    int order[IO_COUNT];
    int done;
};

static void io_done(struct env_io *io) {
    struct item *item = CONTAINER_OF(io, struct item, io);
    struct ios *ios = item->ios;
    assert_true(env_on_loop(ios->loop));
    ios->order[ios->done++] = (int)(item - ios->items);
}

static void submit_all(struct env_task *task) {
    struct ios *ios = CONTAINER_OF(task, struct ios, task);
    for (int i = 0; i < IO_COUNT; i++) {
        env_io_submit(ios->loop, &ios->items[i].io);
    }
    assert_int_equal(ios->done, 0); /* never from inside */
}

/* Starts IO_COUNT operations of one block each, block i full of 'A' + i. Memory is the node's. */
static struct ios *start_ios(struct fixture *fixture, struct env_file *file, enum env_io_kind kind,
                             enum fault_hook hook) {
    struct alloc *alloc = fixture->env->alloc;
    struct ios *ios = mem_alloc_zero(alloc, sizeof *ios);
    assert_int_equal(env_loop_new(fixture->env, "io", 4, &ios->loop, NULL), STATUS_OK);
    env_task_init(&ios->task, submit_all);
    for (int i = 0; i < IO_COUNT; i++) {
        struct item *item = &ios->items[i];
        item->ios = ios;
        item->data = mem_alloc_aligned(alloc, BLOCK, BLOCK);
        memset(item->data, 'A' + i, BLOCK);
        item->io = (struct env_io){.kind = kind,
                                   .file = file,
                                   .data = item->data,
                                   .len = BLOCK,
                                   .offset = (uint64_t)i * BLOCK,
                                   .hook = hook,
                                   .done = io_done};
    }
    env_defer(ios->loop, ENV_STAGE_PROCESS, &ios->task);
    env_loop_run(ios->loop);
    return ios;
}

static bool ios_done(void *context) { return ((struct ios *)context)->done == IO_COUNT; }

static void test_async_completions_come_in_any_order(void **state) {
    (void)state;
    int sorted = 0;
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *file = make_old_file(&fixture, "/f", IO_COUNT);
        struct ios *ios = start_ios(&fixture, file, ENV_IO_WRITE, FAULT_NONE);
        assert_int_equal(sim_run_until(fixture.sim, UINT64_MAX, ios_done, ios, STEPS_MAX), SIM_END_PREDICATE);
        bool is_sorted = true;
        for (int i = 0; i < IO_COUNT; i++) {
            assert_int_equal(ios->items[i].io.status, STATUS_OK);
            assert_int_equal(ios->items[i].io.done_len, BLOCK);
            is_sorted = is_sorted && ios->order[i] == i;
        }
        sorted += is_sorted;
        uint64_t bytes, names;
        sim_disk_get_pending(fixture.node, &bytes, &names);
        assert_int_equal(bytes, IO_COUNT * BLOCK);
        /* The same blocks, read back asynchronously by another loop. */
        ios = start_ios(&fixture, file, ENV_IO_READ, FAULT_NONE);
        assert_int_equal(sim_run_until(fixture.sim, UINT64_MAX, ios_done, ios, STEPS_MAX), SIM_END_PREDICATE);
        for (int i = 0; i < IO_COUNT; i++) {
            assert_int_equal(ios->items[i].io.done_len, BLOCK);
            assert_int_equal(ios->items[i].data[0], 'A' + i);
            assert_int_equal(ios->items[i].data[BLOCK - 1], 'A' + i);
        }
        cleanup(&fixture);
    }
    assert_in_range(sorted, 0, 2);
}

static void test_dsync_write_is_durable_when_done_and_others_are_not(void **state) {
    (void)state;
    int others_lost = 0, in_flight_kept = 0, in_flight_lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *file = make_old_file(&fixture, "/f", IO_COUNT + 1);
        char data[(IO_COUNT + 1) * BLOCK];
        memset(data, 'u', BLOCK);
        assert_int_equal(env_pwrite(file, data, BLOCK, IO_COUNT * BLOCK, NULL), STATUS_OK); /* another of the file */
        memset(data, 'u', BLOCK);
        assert_int_equal(env_pwrite(file, data, BLOCK, 0, NULL), STATUS_OK); /* an older version of block 0 */
        struct ios *ios = start_ios(&fixture, file, ENV_IO_WRITE_DSYNC, FAULT_NONE);
        while (ios->done < (int)(seed % IO_COUNT) + 1) {
            assert_true(sim_step(fixture.sim));
        }
        bool done[IO_COUNT] = {false};
        for (int i = 0; i < ios->done; i++) {
            done[ios->order[i]] = true;
        }
        crash(&fixture, SIM_CRASH_POWER);
        size_t len = 0;
        read_file(&fixture, "/f", data, sizeof data, &len);
        for (size_t i = 0; i < IO_COUNT; i++) {
            bool whole = true;
            for (size_t k = 0; k < BLOCK; k++) {
                whole = whole && data[i * BLOCK + k] == (char)('A' + i);
            }
            assert_true(whole || !done[i]);
            in_flight_kept += whole && !done[i];
            in_flight_lost += !whole;
        }
        others_lost += sector_of(data, IO_COUNT * BLOCK / SECTOR) != 'u';
        cleanup(&fixture);
    }
    assert_true(others_lost > 5);
    assert_true(in_flight_kept > 5 && in_flight_lost > 5);
}

static void test_process_crash_leaves_writes_in_flight_done_cut_or_undone(void **state) {
    (void)state;
    int whole = 0, cut = 0, none = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct fixture fixture;
        setup(&fixture, seed, NULL);
        struct env_file *file = make_old_file(&fixture, "/f", IO_COUNT);
        struct ios *ios = start_ios(&fixture, file, ENV_IO_WRITE_DSYNC, FAULT_NONE);
        while (ios->done < 1) {
            assert_true(sim_step(fixture.sim));
        }
        crash(&fixture, SIM_CRASH_PROCESS);
        char data[IO_COUNT * BLOCK];
        size_t len = 0;
        read_file(&fixture, "/f", data, sizeof data, &len);
        for (size_t i = 0; i < IO_COUNT; i++) {
            bool first = data[i * BLOCK] == (char)('A' + i);
            bool last = data[(i + 1) * BLOCK - 1] == (char)('A' + i);
            assert_true(first || !last); /* a prefix */
            whole += last;
            cut += first && !last;
            none += !first;
        }
        cleanup(&fixture);
    }
    assert_true(whole > 10 && cut > 10 && none > 10);
}

static void test_hung_disk_ends_nothing_until_released(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    struct env_file *file = make_old_file(&fixture, "/f", IO_COUNT);
    sim_disk_hang(fixture.node, true);
    struct ios *ios = start_ios(&fixture, file, ENV_IO_WRITE_DSYNC, FAULT_NONE);
    assert_int_equal(sim_run_until(fixture.sim, 60 * 1000 * 1000, ios_done, ios, STEPS_MAX), SIM_END_DEADLINE);
    assert_int_equal(ios->done, 0);
    sim_disk_hang(fixture.node, false);
    assert_int_equal(sim_run_until(fixture.sim, 61 * 1000 * 1000, ios_done, ios, STEPS_MAX), SIM_END_PREDICATE);
    cleanup(&fixture);
}

static void test_fault_hooks_work_on_async_and_blocking_calls(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1, NULL);
    struct env_file *file = make_old_file(&fixture, "/f", IO_COUNT);
    assert_int_equal(fault_arm(sim_node_faults(fixture.node), "wal.write=error(EIO),after=2,count=1", NULL), STATUS_OK);
    struct ios *ios = start_ios(&fixture, file, ENV_IO_WRITE_DSYNC, FAULT_WAL_WRITE);
    assert_int_equal(sim_run_until(fixture.sim, UINT64_MAX, ios_done, ios, STEPS_MAX), SIM_END_PREDICATE);
    for (int i = 0; i < IO_COUNT; i++) {
        assert_int_equal(ios->items[i].io.status, i == 2 ? STATUS_IO : STATUS_OK);
    }
    assert_int_equal(fault_arm(sim_node_faults(fixture.node), "apply=delay(500),count=1", NULL), STATUS_OK);
    uint64_t start_us = sim_now_us(fixture.sim);
    assert_int_equal(env_fault_point(fixture.env, FAULT_APPLY, NULL), STATUS_OK);
    assert_in_range(sim_now_us(fixture.sim) - start_us, 500 * 1000, 501 * 1000);
    cleanup(&fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_async_completions_come_in_any_order),
        cmocka_unit_test(test_dsync_write_is_durable_when_done_and_others_are_not),
        cmocka_unit_test(test_process_crash_leaves_writes_in_flight_done_cut_or_undone),
        cmocka_unit_test(test_hung_disk_ends_nothing_until_released),
        cmocka_unit_test(test_fault_hooks_work_on_async_and_blocking_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
