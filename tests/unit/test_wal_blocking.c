/*
 * The log written by its owner's hand, with groups in memory that outlives the process.
 *
 * What would break these: a group that isn't durable when its write ends, so that after a power loss a later group
 * stands behind a hole; a group taken while records still go into it; a lent piece given to two groups; records of an
 * earlier life, a torn one or one behind a gap taken from a piece; a cancelled record that leaves a trace; a writer
 * that is never told of the segment it waits for; a failed write that is tried again; zeroes written over space that an
 * older segment left written.
 */
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct world {
    struct harness *harness;
    uint8_t *pieces[WAL_LENT_COUNT];
    uint64_t writable_calls;
};

static void writable(void *context) {
    struct harness *harness = context;
    harness->synced_calls++; /* free in this mode */
}

static void world_init(struct world *world, uint64_t seed) {
    memset(world, 0, sizeof *world);
    world->harness = harness_new(seed);
    world->harness->options.mode = WAL_MODE_BLOCKING;
    world->harness->options.synced = NULL;
    world->harness->options.writable = writable;
    world->harness->options.cache_bytes_max = 0;
    for (int i = 0; i < WAL_LENT_COUNT; i++) {
        world->pieces[i] = aligned_alloc(WAL_BLOCK_BYTES, world->harness->options.group_bytes_max);
        assert_non_null(world->pieces[i]);
        memset(world->pieces[i], 0, world->harness->options.group_bytes_max);
    }
}

static void world_deinit(struct world *world) {
    harness_free(world->harness);
    for (int i = 0; i < WAL_LENT_COUNT; i++) {
        free(world->pieces[i]);
    }
}

static void up(struct world *world) {
    harness_up(world->harness);
    wal_lend(world->harness->wal, world->pieces);
}

/* Takes, writes, ends; false if there was nothing to take. */
static bool write_one(struct world *world, enum status *ret_status) {
    struct wal *wal = world->harness->wal;
    if (wal_write_take(wal) != STATUS_OK) {
        return false;
    }
    wal_write_run(wal);
    *ret_status = wal_write_end(wal, &world->harness->error);
    return true;
}

static void write_all(struct world *world) {
    enum status status = STATUS_OK;
    while (!wal_is_idle(world->harness->wal)) {
        if (!write_one(world, &status)) {
            fake_settle(world->harness->fake);
        }
        assert_int_equal(status, STATUS_OK);
    }
}

static enum status append(struct world *world, uint64_t index, size_t len) {
    enum status status = harness_append_len(world->harness, index, 1, len);
    if (status == STATUS_OK) {
        wal_set_applied(world->harness->wal, index);
    }
    return status;
}

/* ---- Power losses ----------------------------------------------------------------------------------------------- */

/* Appends and writes by seed until the power goes; returns what was reported durable. */
static uint64_t work_until_dark(struct world *world, struct random *random) {
    struct wal *wal = world->harness->wal;
    uint64_t safe = wal_synced_index(wal);
    for (uint64_t steps = 0; steps < 400 && !fake_is_dead(world->harness->fake); steps++) {
        enum status status = append(world, wal_last_index(wal) + 1, (size_t)(random_next(random) % 9000));
        bool wants_sync = random_next(random) % 8 == 0;
        if (status != STATUS_BUSY && status != STATUS_OK) {
            break;
        }
        while (status == STATUS_BUSY || wants_sync || wal_has_full_group(wal)) {
            status = STATUS_OK;
            wants_sync = false;
            if (!write_one(world, &status)) {
                fake_settle(world->harness->fake);
                break;
            }
            if (status != STATUS_OK) {
                return safe;
            }
            safe = wal_synced_index(wal);
        }
        fake_settle(world->harness->fake);
    }
    return safe;
}

/* Whatever sectors a power loss takes, what is left is a prefix that has all that was durable, and no damage. */
static void test_wal_blocking_power_loss_leaves_a_prefix(void **state) {
    (void)state;
    uint64_t lost = 0;
    for (uint64_t seed = 1; seed <= 250; seed++) {
        struct world world;
        struct random random;
        world_init(&world, seed);
        random_seed(&random, seed * 31);
        up(&world);
        uint64_t safe = 0;
        for (int life = 0; life < 3; life++) {
            struct fake_env *fake = world.harness->fake;
            fake->dead_after = fake->counts.calls + 1 + random_next(&random) % 120;
            safe = work_until_dark(&world, &random);
            uint64_t appended = wal_last_index(world.harness->wal);
            harness_crash(world.harness);
            assert_int_equal(harness_open(world.harness), STATUS_OK);
            assert_false(world.harness->recovered.fault.present);
            uint64_t last = world.harness->recovered.last_index;
            assert_true(last >= safe && last <= appended);
            lost += appended - last;
            harness_replay(world.harness);
            harness_start(world.harness);
            fake_settle(world.harness->fake);
            wal_set_applied(world.harness->wal, last);
            wal_lend(world.harness->wal, world.pieces);
        }
        world_deinit(&world);
    }
    assert_true(lost > 0); /* else nothing was put to the test */
}

/* ---- Lent memory ------------------------------------------------------------------------------------------------ */

static uint64_t count_records(struct slice records, uint64_t *ret_first) {
    struct wal_record record;
    uint64_t count = 0;
    while (wal_record_decode(&records, &record, NULL) == STATUS_OK) {
        *ret_first = count == 0 ? record.index : *ret_first;
        count++;
    }
    assert_int_equal(records.len, 0);
    return count;
}

/* Of both pieces, what continues the log at next. */
static uint64_t found_in_pieces(struct world *world, uint64_t term, uint64_t next) {
    uint64_t before;
    uint64_t found = 0;
    do {
        before = found;
        for (int i = 0; i < WAL_LENT_COUNT; i++) {
            uint64_t first = 0;
            struct slice piece = slice_of(world->pieces[i], world->harness->options.group_bytes_max);
            uint64_t count = count_records(wal_lent_records(piece, term, next + found), &first);
            assert_true(count == 0 || first == next + found);
            found += count;
        }
    } while (found > before);
    return found;
}

/* Every acknowledged record is in the log or in a piece, at any moment. */
static void test_wal_blocking_every_record_is_in_the_log_or_in_a_piece(void **state) {
    (void)state;
    struct world world;
    struct random random;
    world_init(&world, 5);
    random_seed(&random, 7);
    up(&world);
    enum status status = STATUS_OK;
    for (uint64_t index = 1; index < 2000;) {
        enum status appended = append(&world, index, (size_t)(random_next(&random) % 3000));
        if (appended == STATUS_BUSY || random_next(&random) % 50 == 0) {
            if (!write_one(&world, &status)) {
                fake_settle(world.harness->fake);
            }
        }
        index += appended == STATUS_OK ? 1 : 0;
        uint64_t synced = wal_synced_index(world.harness->wal);
        assert_int_equal(found_in_pieces(&world, 1, synced + 1), index - 1 - synced);
        assert_int_equal(found_in_pieces(&world, 2, synced + 1), 0);
        assert_int_equal(found_in_pieces(&world, 1, index), 0);
    }
    write_all(&world);
    world_deinit(&world);
}

/* A torn record ends what is found, and so does one behind a gap. */
static void test_wal_blocking_torn_piece_ends_at_the_tear(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 6);
    up(&world);
    for (uint64_t index = 1; index <= 10; index++) {
        assert_int_equal(append(&world, index, 100), STATUS_OK);
    }
    assert_int_equal(found_in_pieces(&world, 1, 1), 10);
    assert_int_equal(found_in_pieces(&world, 1, 4), 7);
    world.pieces[0][WAL_GROUP_HEADER_BYTES + 6 * 132 + 50] ^= 1;
    assert_int_equal(found_in_pieces(&world, 1, 1), 6);
    assert_int_equal(found_in_pieces(&world, 1, 7), 0);
    assert_int_equal(found_in_pieces(&world, 1, 8), 0);
    world.pieces[0][WAL_GROUP_HEADER_BYTES + 6 * 132 + 50] ^= 1;
    write_all(&world);
    world_deinit(&world);
}

static void test_wal_blocking_both_pieces_full_is_busy(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 7);
    world.harness->options.segment_bytes = 1024 * 1024; /* no lack of those */
    up(&world);
    uint64_t index = 1;
    enum status status = STATUS_OK;
    while ((status = append(&world, index, 3000)) == STATUS_OK) {
        index++;
        assert_true(index < 1000);
    }
    assert_int_equal(status, STATUS_BUSY);
    assert_true(wal_has_full_group(world.harness->wal));
    assert_int_equal(append(&world, index, 3000), STATUS_BUSY); /* nothing changed */
    while (!write_one(&world, &status)) {
        fake_settle(world.harness->fake);
    }
    assert_int_equal(append(&world, index, 3000), STATUS_OK);
    write_all(&world);
    assert_int_equal(wal_synced_index(world.harness->wal), index);
    world_deinit(&world);
}

/* ---- Appending and writing -------------------------------------------------------------------------------------- */

static void test_wal_blocking_cancelled_append_leaves_nothing(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 8);
    up(&world);
    struct wal *wal = world.harness->wal;
    uint8_t *payload;
    for (uint64_t index = 1; index <= 5; index++) {
        assert_int_equal(wal_append_begin(wal, index, 1, 3, 500, &payload), STATUS_OK);
        wal_append_cancel(wal);
        assert_int_equal(wal_last_index(wal), index - 1);
        assert_int_equal(append(&world, index, 200), STATUS_OK);
    }
    write_all(&world);
    assert_int_equal(wal_append_begin(wal, 6, 1, 3, 500, &payload), STATUS_OK);
    wal_append_cancel(wal);
    assert_true(wal_is_idle(wal));
    harness_crash(world.harness);
    assert_int_equal(harness_open(world.harness), STATUS_OK);
    assert_int_equal(world.harness->recovered.last_index, 5);
    world_deinit(&world);
}

/* While a group is being written, others go into the next one, never into that. */
static void test_wal_blocking_records_join_the_next_group_while_one_is_written(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 9);
    up(&world);
    struct wal *wal = world.harness->wal;
    assert_int_equal(append(&world, 1, 100), STATUS_OK);
    assert_int_equal(wal_write_take(wal), STATUS_OK);
    assert_int_equal(append(&world, 2, 100), STATUS_OK);
    assert_int_equal(wal_write_take(wal), STATUS_NOT_FOUND);
    wal_write_run(wal);
    assert_int_equal(append(&world, 3, 100), STATUS_OK);
    assert_int_equal(wal_write_end(wal, &world.harness->error), STATUS_OK);
    assert_int_equal(wal_synced_index(wal), 1);
    write_all(&world);
    assert_int_equal(wal_synced_index(wal), 3);
    harness_crash(world.harness);
    assert_int_equal(harness_open(world.harness), STATUS_OK);
    assert_int_equal(world.harness->recovered.last_index, 3);
    world_deinit(&world);
}

/* A record larger than a piece has memory of its own. */
static void test_wal_blocking_large_record_is_written_alone(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 10);
    world.harness->options.group_bytes_max = 8 * 1024;
    up(&world);
    assert_int_equal(append(&world, 1, 100), STATUS_OK);
    assert_int_equal(append(&world, 2, HARNESS_ENTRY_MAX), STATUS_OK);
    assert_int_equal(append(&world, 3, 100), STATUS_OK);
    write_all(&world);
    harness_crash(world.harness);
    assert_int_equal(harness_open(world.harness), STATUS_OK);
    assert_int_equal(world.harness->recovered.last_index, 3);
    harness_replay(world.harness);
    world_deinit(&world);
}

static void test_wal_blocking_writer_is_told_of_the_segment_that_it_waits_for(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 11);
    up(&world);
    struct wal *wal = world.harness->wal;
    enum status taken = STATUS_OK;
    enum status status = STATUS_OK;
    uint64_t index = 1;
    while ((status = append(&world, index, 3000)) == STATUS_OK) {
        assert_true(++index < 1000);
        while ((taken = wal_write_take(wal)) == STATUS_OK) {
            wal_write_run(wal);
            assert_int_equal(wal_write_end(wal, &world.harness->error), STATUS_OK);
        }
        assert_int_equal(taken, STATUS_NOT_FOUND); /* what was taken can be written */
    }
    assert_int_equal(status, STATUS_BUSY);
    assert_int_equal(world.harness->synced_calls, 0);
    fake_settle(world.harness->fake); /* the worker makes it */
    assert_int_equal(world.harness->synced_calls, 1);
    assert_int_equal(append(&world, index, 3000), STATUS_OK);
    assert_true(write_one(&world, &status));
    write_all(&world);
    world_deinit(&world);
}

/* Hazard 27: the outcome is unknown, so nothing is tried again. */
static void test_h27_wal_blocking_failed_write_is_final(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 12);
    up(&world);
    struct fake_env *fake = world.harness->fake;
    enum status status = STATUS_OK;
    assert_int_equal(append(&world, 1, 100), STATUS_OK);
    assert_int_equal(fault_arm(&fake->faults, "wal.write=error(EIO),count=1", NULL), STATUS_OK);
    assert_true(write_one(&world, &status));
    assert_int_equal(status, STATUS_FAILED);
    assert_int_equal(wal_synced_index(world.harness->wal), 0);
    assert_int_equal(wal_write_take(world.harness->wal), STATUS_FAILED);
    assert_int_equal(append(&world, 2, 100), STATUS_FAILED);
    world_deinit(&world);
}

static void turn_segment(struct world *world, uint64_t *index, size_t len) {
    uint64_t number = world->harness->wal->active->number;
    while (world->harness->wal->active->number == number) {
        enum status status = append(world, *index, len);
        assert_true(status == STATUS_OK || status == STATUS_BUSY);
        *index += status == STATUS_OK;
        write_all(world);
        fake_settle(world->harness->fake);
    }
}

/* Space that was written before needs no zeroes ahead of small groups; large groups need none anyway, so for them no
 * segment is kept. */
static void test_h37_wal_blocking_small_groups_use_old_segments_without_writing_ahead(void **state) {
    (void)state;
    struct world world;
    world_init(&world, 13);
    world.harness->options.spare_segments = 2;
    up(&world);
    struct wal *wal = world.harness->wal;
    uint64_t index = 1;
    turn_segment(&world, &index, 500);
    turn_segment(&world, &index, 500);
    world.harness->frontier = (struct wal_frontier){.index = index - 1, .term = 1};
    wal_set_floor(wal, index - 1, UINT64_MAX);
    fake_settle(world.harness->fake);
    struct wal_stats stats;
    wal_get_stats(wal, &stats);
    assert_int_equal(stats.segments_spare, 2);
    while (!wal->active->recycled) {
        turn_segment(&world, &index, 500);
    }
    enum status status;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(append(&world, index++, 500), STATUS_OK);
        assert_true(write_one(&world, &status));
        assert_int_equal(status, STATUS_OK);
        assert_int_equal(wal->write_io.len, WAL_BLOCK_BYTES);
    }
    harness_crash(world.harness);
    assert_int_equal(harness_open(world.harness), STATUS_OK);
    assert_false(world.harness->recovered.fault.present);
    world_deinit(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_blocking_power_loss_leaves_a_prefix),
        cmocka_unit_test(test_wal_blocking_every_record_is_in_the_log_or_in_a_piece),
        cmocka_unit_test(test_wal_blocking_torn_piece_ends_at_the_tear),
        cmocka_unit_test(test_wal_blocking_both_pieces_full_is_busy),
        cmocka_unit_test(test_wal_blocking_cancelled_append_leaves_nothing),
        cmocka_unit_test(test_wal_blocking_records_join_the_next_group_while_one_is_written),
        cmocka_unit_test(test_wal_blocking_large_record_is_written_alone),
        cmocka_unit_test(test_wal_blocking_writer_is_told_of_the_segment_that_it_waits_for),
        cmocka_unit_test(test_h27_wal_blocking_failed_write_is_final),
        cmocka_unit_test(test_h37_wal_blocking_small_groups_use_old_segments_without_writing_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
