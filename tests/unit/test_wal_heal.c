/*
 * Logs that are damaged in the middle, opened by an owner who can fetch what is lost (wal_heal.c).
 *
 * Breaks if such a log is shortened without remembering where it ended (also after a crash at any point of its
 * recovery, and in later segments and lives, until the owner says that it is whole), if more is given up than what
 * stands behind the damage (term and vote at all, in a log that says nothing else), if damage at or below the frontier
 * costs anything, if term or vote go back, or if damaged segments are thrown away too early, or never.
 */
#include "tests/unit/support/support.h"
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { VOTE = 2, ENTRY_BYTES = 3000 };

static uint64_t term_of(uint64_t index) { return 1 + index / 20; }

static void append(struct harness *harness, uint64_t first, uint64_t last) {
    for (uint64_t index = first; index <= last; index++) {
        wal_set_state(harness->wal, term_of(index), VOTE);
        assert_int_equal(harness_append_len(harness, index, term_of(index), ENTRY_BYTES), STATUS_OK);
        fake_settle(harness->fake);
    }
}

static void mark(struct harness *harness) {
    harness->fake->now_us += 100000;
    fake_settle(harness->fake);
}

/* Closed, with entries 1..last of ENTRY_BYTES each, one to a group, and a mark behind them: segments of about 25. */
static struct harness *make_log(uint64_t seed, uint64_t last) {
    struct harness *harness = harness_new(seed);
    harness->options.segment_bytes = 128 * 1024;
    harness->options.mark_delay_us = 50000;
    harness->options.heals = true;
    harness_up(harness);
    append(harness, 1, last / 2);
    mark(harness);
    if (seed % 2 == 0) { /* another life, whose first segment carries the last group */
        harness_close(harness);
        harness_up(harness);
    }
    append(harness, last / 2 + 1, last);
    mark(harness);
    harness_close(harness);
    return harness;
}

static void check(const struct harness *harness, uint64_t last, uint64_t term) {
    const struct wal_recovered *recovered = &harness->recovered;
    assert_false(recovered->fault.final);
    assert_int_equal(recovered->term, term);
    assert_int_equal(recovered->vote, VOTE);
    assert_true(recovered->last_index >= harness->frontier.index && recovered->last_index <= last);
    if (recovered->last_index < last) {
        assert_int_equal(recovered->heal_index, last);
        assert_int_equal(recovered->heal_term, term_of(last));
    } else {
        assert_int_equal(recovered->heal_index, 0);
    }
}

static void check_records(struct harness *harness) {
    harness_replay(harness);
    for (uint64_t index = wal_first_index(harness->wal); index <= wal_last_index(harness->wal); index++) {
        assert_int_equal(harness->terms[index], term_of(index));
    }
}

static uint64_t faulty_files(struct harness *harness) {
    uint64_t count = 0;
    for (uint64_t number = 1; number < 64; number++) {
        char path[LIMIT_PATH_BYTES];
        wal__segment_path(path, "/wal", number, WAL_FAULTY_SUFFIX);
        count += fake_file_at(harness->fake, path) != NULL;
    }
    return count;
}

/* Something stands where its start group does. */
static bool is_begun(struct harness *harness, uint64_t number) {
    const struct fake_inode *inode = harness_inode(harness, number);
    return inode->size > WAL_SEGMENT_HEADER_BYTES && inode->seen[WAL_SEGMENT_HEADER_BYTES] != 0;
}

static void open_damaged(struct harness *harness) {
    if (harness_open(harness) != STATUS_OK) {
        fail_msg("open: %s", harness->error.message);
    }
}

/* What stands before the damage is kept, and the rest is fetched: it is whole again, in this life and the next. */
static void test_h30_prefix_is_kept_and_the_end_remembered(void **state) {
    (void)state;
    struct harness *harness = make_log(1, 60);
    harness_flip(harness_inode(harness, 2), harness_group_offset(5) + 700, 3);
    open_damaged(harness);
    assert_true(harness->recovered.fault.present);
    assert_non_null(strstr(harness->recovered.fault.where, "0000000000000002.log at "));
    uint64_t kept = harness->recovered.last_index;
    assert_true(kept > 20 && kept < 60);
    assert_int_equal(harness->recovered.fault.first_index, kept + 1);
    assert_int_equal(harness->recovered.fault.last_index, 60);
    check(harness, 60, term_of(60));
    check_records(harness);
    assert_true(faulty_files(harness) > 0);
    harness_start(harness);
    fake_settle(harness->fake);
    uint64_t middle = (kept + 60) / 2;
    wal_set_state(harness->wal, term_of(60), VOTE);
    for (uint64_t index = kept + 1; index <= middle; index++) {
        assert_int_equal(harness_append_len(harness, index, term_of(index), ENTRY_BYTES), STATUS_OK);
    }
    fake_settle(harness->fake);
    mark(harness);
    harness_close(harness);

    harness_up(harness); /* nothing new is wrong, and it knows what it lacks */
    check(harness, 60, term_of(60));
    assert_int_equal(harness->recovered.last_index, middle);
    struct wal_stats stats;
    wal_get_stats(harness->wal, &stats);
    assert_int_equal(stats.segments_faulty, faulty_files(harness));
    assert_true(stats.segments_faulty > 0);
    for (uint64_t index = middle + 1; index <= 60; index++) {
        assert_int_equal(harness_append_len(harness, index, term_of(index), ENTRY_BYTES), STATUS_OK);
    }
    fake_settle(harness->fake);
    wal_healed(harness->wal);
    fake_settle(harness->fake);
    assert_int_equal(faulty_files(harness), 0);
    harness_reopen(harness);
    assert_false(harness->recovered.fault.present);
    check(harness, 60, term_of(60));
    check_records(harness);
    harness_free(harness);
}

/* Segments that are begun while the log is being healed say so, too: the first ones may be deleted. */
static void test_h41_the_end_is_remembered_when_old_segments_are_deleted(void **state) {
    (void)state;
    struct harness *harness = make_log(1, 60);
    harness_flip(harness_inode(harness, 1), harness_group_offset(4) + 700, 3);
    open_damaged(harness);
    uint64_t kept = harness->recovered.last_index;
    assert_true(kept < 10);
    harness_start(harness);
    fake_settle(harness->fake);
    wal_set_state(harness->wal, term_of(60), VOTE);
    for (uint64_t index = kept + 1; index < 55; index++) {
        assert_int_equal(harness_append_len(harness, index, term_of(index), ENTRY_BYTES), STATUS_OK);
        fake_settle(harness->fake);
    }
    wal_set_commit(harness->wal, 54);
    wal_set_applied(harness->wal, 50);
    wal_set_floor(harness->wal, 50, 50);
    fake_settle(harness->fake);
    assert_true(wal_first_index(harness->wal) > 20);
    mark(harness);
    harness_close(harness);
    harness->frontier = (struct wal_frontier){.index = 50, .term = term_of(50)};
    harness_up(harness);
    check(harness, 60, term_of(60));
    assert_int_equal(harness->recovered.last_index, 54);
    /* What a later term wrote heals it as well: nobody has the rest. */
    wal_set_state(harness->wal, 9, VOTE);
    assert_int_equal(harness_append_len(harness, 55, 9, ENTRY_BYTES), STATUS_OK);
    fake_settle(harness->fake);
    harness_reopen(harness);
    assert_int_equal(harness->recovered.heal_index, 0);
    harness_free(harness);
}

/* Nothing at or below the frontier is needed: the log begins behind it, and isn't shorter. */
static void test_wal_damage_below_the_frontier_costs_nothing(void **state) {
    (void)state;
    struct harness *harness = make_log(1, 60);
    harness_flip(harness_inode(harness, 1), harness_group_offset(4) + 700, 3);
    harness->frontier = (struct wal_frontier){.index = 40, .term = term_of(40)};
    open_damaged(harness);
    assert_true(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.fault.first_index, 0);
    assert_int_equal(harness->recovered.last_index, 60);
    assert_true(harness->recovered.first_index > 10 && harness->recovered.first_index <= 41);
    check(harness, 60, term_of(60));
    check_records(harness);
    assert_int_equal(faulty_files(harness), 0);
    harness_start(harness);
    fake_settle(harness->fake);
    harness_reopen(harness);
    assert_false(harness->recovered.fault.present);
    check(harness, 60, term_of(60));
    harness_free(harness);
}

/* The frontier lies behind the damage, in the same segment: the log starts behind it. */
static void test_h32_log_that_lost_the_frontier_starts_behind_it(void **state) {
    (void)state;
    struct harness *harness = make_log(1, 60);
    harness_flip(harness_inode(harness, 1), harness_group_offset(4) + 700, 3);
    harness->frontier = (struct wal_frontier){.index = 10, .term = term_of(10)};
    open_damaged(harness);
    assert_int_equal(harness->recovered.last_index, 10);
    assert_int_equal(harness->recovered.first_index, 11);
    assert_int_equal(harness->recovered.fault.first_index, 11);
    check(harness, 60, term_of(60));
    harness_start(harness);
    fake_settle(harness->fake);
    harness_reopen(harness);
    assert_false(harness->recovered.fault.present);
    assert_int_equal(harness->recovered.last_index, 10);
    check(harness, 60, term_of(60));
    harness_free(harness);
}

/* Who lost term and vote can't go on as what he was. */
static void test_h41_lost_term_is_final(void **state) {
    (void)state;
    struct harness *harness = make_log(1, 60);
    harness->frontier = (struct wal_frontier){.index = 60, .term = 77};
    open_damaged(harness);
    assert_true(harness->recovered.fault.final);
    harness->fake->on_loop = true;
    assert_int_equal(wal_start(harness->wal, NULL), STATUS_FAILED);
    harness->fake->on_loop = false;
    assert_int_equal(faulty_files(harness), 0);
    harness_free(harness);
}

/* Term and vote alone: no entry was ever written, and what said them before is removed when the log is opened. Any bit
 * of its heads may flip then. */
static void test_h06_term_and_vote_survive_any_flip_in_a_log_without_records(void **state) {
    (void)state;
    for (uint64_t at = 0; at < WAL_GROUP_HEADER_BYTES; at++) {
        for (unsigned part = 0; part < 2; part++) {
            struct harness *harness = harness_new(1);
            harness->options.segment_bytes = 128 * 1024;
            harness->options.mark_delay_us = 50000;
            harness->options.heals = true;
            harness_up(harness);
            wal_set_state(harness->wal, 7, VOTE);
            mark(harness);
            for (unsigned life = 0; life < 2; life++) {
                harness_close(harness);
                harness_up(harness);
                mark(harness);
            }
            harness_close(harness);
            uint64_t newest = 63;
            char path[LIMIT_PATH_BYTES];
            do {
                newest--;
                wal__segment_path(path, "/wal", newest, "");
            } while (newest > 1 && (fake_file_at(harness->fake, path) == NULL || !is_begun(harness, newest)));
            harness_flip(harness_inode(harness, newest), part * WAL_SEGMENT_HEADER_BYTES + at, (unsigned)at % 8);
            open_damaged(harness);
            assert_false(harness->recovered.fault.final);
            assert_int_equal(harness->recovered.term, 7);
            assert_int_equal(harness->recovered.vote, VOTE);
            harness_free(harness);
        }
    }
}

/* One place, anywhere in front of the last mark; a whole file, at times. Deterministic by seed. */
static void damage(struct harness *harness, struct random *random) {
    uint64_t segments = 0;
    while (fake_file_at(harness->fake, harness_segment(segments + 1)) != NULL) {
        segments++;
    }
    uint64_t marked = segments; /* the last one that has records or a mark */
    while (memcmp(harness_inode(harness, marked)->seen + WAL_SEGMENT_HEADER_BYTES, "HFWALGRP", 8) != 0) {
        marked--;
    }
    uint64_t number = 1 + random_below(random, marked);
    struct fake_inode *inode = harness_inode(harness, number);
    uint64_t end = inode->size;
    while (number == marked && memcmp(inode->seen + end - WAL_BLOCK_BYTES, "HFWALGRP", 8) != 0) {
        end -= WAL_BLOCK_BYTES; /* to the mark's own block */
    }
    end -= number == marked ? WAL_BLOCK_BYTES : 0;
    uint64_t offset = random_below(random, end);
    switch (random_below(random, number < marked ? 4 : 3)) {
    case 0: harness_flip(inode, offset, (unsigned)(offset % 8)); break;
    case 1: /* a block of zeroes */
        offset = offset / WAL_BLOCK_BYTES * WAL_BLOCK_BYTES;
        memset(inode->seen + offset, 0, WAL_BLOCK_BYTES);
        memset(inode->durable + offset, 0, WAL_BLOCK_BYTES);
        break;
    case 2: /* several blocks of garbage */
        for (uint64_t at = offset; at < end && at < offset + 5 * WAL_BLOCK_BYTES; at++) {
            inode->seen[at] = (uint8_t)(at * 131 + at / 7);
            inode->durable[at] = inode->seen[at];
        }
        break;
    default:
        harness->fake->on_loop = false;
        assert_int_equal(env_unlink(&harness->fake->env, harness_segment(number), &harness->error), STATUS_OK);
        assert_int_equal(env_sync_dir(&harness->fake->env, "/wal", &harness->error), STATUS_OK);
        break;
    }
}

static struct harness *make_damaged(uint64_t seed, uint64_t last) {
    struct harness *harness = make_log(seed % 16, last);
    struct random random;
    random_seed(&random, seed);
    uint64_t frontier = random_chance(&random, 1, 3) ? random_below(&random, last + 1) : 0;
    harness->frontier = (struct wal_frontier){.index = frontier, .term = frontier > 0 ? term_of(frontier) : 0};
    damage(harness, &random);
    return harness;
}

static void test_h30_any_damage_is_remembered(void **state) {
    (void)state;
    uint64_t seeds = test_is_long() ? 3000 : 150;
    uint64_t healed = 0;
    uint64_t kept = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct harness *harness = make_damaged(seed, 60);
        open_damaged(harness);
        check(harness, 60, term_of(60));
        check_records(harness);
        healed += harness->recovered.heal_index > 0;
        kept += harness->recovered.fault.present && harness->recovered.last_index > harness->frontier.index;
        uint64_t last = harness->recovered.last_index;
        harness_start(harness);
        fake_settle(harness->fake);
        wal_set_state(harness->wal, term_of(60), VOTE);
        for (uint64_t index = last + 1; index <= 60; index++) {
            assert_int_equal(harness_append_len(harness, index, term_of(index), ENTRY_BYTES), STATUS_OK);
        }
        fake_settle(harness->fake);
        harness_reopen(harness);
        assert_false(harness->recovered.fault.present);
        check(harness, 60, term_of(60));
        check_records(harness);
        harness_free(harness);
    }
    assert_true(healed > seeds / 4 && kept > seeds / 8);
}

/* h32: recovery of a damaged log, cut short at each of its I/Os in turn. */
static void test_h32_healing_crashed_at_every_io_forgets_nothing(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        bool done = false;
        for (uint64_t calls = 1; !done; calls++) {
            struct harness *harness = make_damaged(seed, 40);
            harness->fake->dead_after = harness->fake->counts.calls + calls;
            enum status status = harness_open(harness);
            done = status == STATUS_OK && !fake_is_dead(harness->fake);
            if (status != STATUS_OK) {
                harness->wal = NULL;
            }
            harness_crash(harness);
            open_damaged(harness);
            check(harness, 40, term_of(40));
            check_records(harness);
            harness_free(harness);
            assert_true(calls < 500);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h30_prefix_is_kept_and_the_end_remembered),
        cmocka_unit_test(test_h41_the_end_is_remembered_when_old_segments_are_deleted),
        cmocka_unit_test(test_wal_damage_below_the_frontier_costs_nothing),
        cmocka_unit_test(test_h32_log_that_lost_the_frontier_starts_behind_it),
        cmocka_unit_test(test_h41_lost_term_is_final),
        cmocka_unit_test(test_h06_term_and_vote_survive_any_flip_in_a_log_without_records),
        cmocka_unit_test(test_h30_any_damage_is_remembered),
        cmocka_unit_test(test_h32_healing_crashed_at_every_io_forgets_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
