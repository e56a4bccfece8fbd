/*
 * Power losses at every I/O of a busy log, recovery included, with random fates of unsynced sectors and names.
 *
 * A model reads each group as it is handed to the disk: what was completed must be there after the crash, exactly; what
 * was in flight may be there whole or not at all. So nothing acknowledged is lost (hazard 22), term and vote never go
 * back (hazard 6), a cut stays a cut (hazard 19), and a second or third crash during recovery changes nothing (hazard
 * 32). Segments that the log no longer needs are used again meanwhile, and what they held never comes back (hazard 37).
 *
 * What would break these: a segment overwritten before the directory that took it out of the log is synced, a segment
 * used before its name is durable, a group written before the last one's sync, recovery that removes or cuts before the
 * replacement is safe, a deletion too early.
 */
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* What the disk holds: by group, as the writer handed them over. */
struct model {
    uint64_t terms[HARNESS_INDEX_MAX];
    uint64_t last;
    uint64_t term;
    uint64_t vote;
    uint64_t commit;
};

struct run {
    struct harness *harness;
    struct random random;
    struct model durable;
    struct model inflight; /* durable and the group in flight */
    bool has_inflight;
    uint64_t writes_seen;
    uint64_t synced_seen;
    uint64_t term; /* as set */
    uint64_t commit;
    uint64_t recycled; /* segments made out of old ones, over all lives */
};

static void model_apply(struct model *model, const uint8_t *group) {
    struct wal__group_header header;
    CHECK(wal__group_header_decode(group, &header) == STATUS_OK);
    CHECK(wal__group_check_body(&header, group) == STATUS_OK);
    CHECK(header.term >= model->term);
    model->term = header.term;
    model->vote = header.vote;
    model->commit = header.commit_index > model->commit ? header.commit_index : model->commit;
    const uint8_t *at = group + WAL_GROUP_HEADER_BYTES + header.membership_bytes;
    for (uint32_t i = 0; i < header.record_count; i++) {
        struct wal_record record = wal__record_at(at);
        at += record.bytes.len;
        CHECK(record.index <= model->last + 1 && record.index < HARNESS_INDEX_MAX);
        model->terms[record.index] = record.term;
        model->last = record.index;
    }
}

/* Keeps the model abreast of what was submitted and completed. */
static void observe(struct run *run) {
    struct harness *harness = run->harness;
    if (harness->synced_calls > run->synced_seen) {
        CHECK(run->has_inflight && harness->synced_calls == run->synced_seen + 1);
        run->durable = run->inflight;
        run->has_inflight = false;
        run->synced_seen = harness->synced_calls;
        CHECK(harness->synced.term == run->durable.term && harness->synced.vote == run->durable.vote);
    }
    if (harness->fake->counts.dsync_writes > run->writes_seen) {
        CHECK(!run->has_inflight && harness->fake->counts.dsync_writes == run->writes_seen + 1);
        run->inflight = run->durable;
        model_apply(&run->inflight, harness->fake->last_write->data);
        run->has_inflight = true;
        run->writes_seen = harness->fake->counts.dsync_writes;
    }
    uint64_t synced = wal_synced_index(harness->wal);
    CHECK(synced <= run->durable.last); /* hazard 22 */
}

static void turn(struct run *run) {
    fake_turn(run->harness->fake);
    observe(run);
}

static void append_some(struct run *run) {
    struct harness *harness = run->harness;
    uint64_t next = wal_last_index(harness->wal) + 1;
    if (random_chance(&run->random, 1, 8) && next - 1 > run->commit) {
        next -= random_below(&run->random, next - 1 - run->commit) + 1;
        run->term++;
        wal_set_state(harness->wal, run->term, random_below(&run->random, 3));
    }
    uint64_t count = 1 + random_below(&run->random, 5);
    for (uint64_t i = 0; i < count && next + i < HARNESS_INDEX_MAX; i++) {
        CHECK(harness_append(harness, next + i, run->term) == STATUS_OK);
    }
}

/* The manifest: durable at once, never beyond min(synced, committed). */
static void flush_some(struct run *run) {
    struct harness *harness = run->harness;
    uint64_t synced = wal_synced_index(harness->wal);
    if (synced > run->commit) {
        run->commit += random_below(&run->random, synced - run->commit + 1);
        wal_set_commit(harness->wal, run->commit);
        wal_set_applied(harness->wal, run->commit);
    }
    if (random_chance(&run->random, 1, 4) && run->commit > harness->frontier.index) {
        harness->frontier.index = run->commit;
        harness->frontier.term = run->durable.terms[run->commit];
        wal_set_floor(harness->wal, run->commit, UINT64_MAX);
    }
}

static void step(struct run *run) {
    struct fake_env *fake = run->harness->fake;
    switch (random_below(&run->random, 10)) {
    case 0:
    case 1:
    case 2: append_some(run); break;
    case 3:
        run->term += random_below(&run->random, 2);
        if (run->term > 0) {
            wal_set_state(run->harness->wal, run->term, 1 + random_below(&run->random, 3));
        }
        break;
    case 4: flush_some(run); break;
    case 5: (void)fake_run_work(fake); break;
    case 6: fake->now_us += 30000; break; /* marks, now and then */
    default: (void)fake_end_io(fake, 0); break;
    }
    turn(run);
}

static bool equals(struct run *run, const struct model *model) {
    struct harness *harness = run->harness;
    const struct wal_recovered *recovered = &harness->recovered;
    if (recovered->last_index != model->last || recovered->term != model->term || recovered->vote != model->vote) {
        return false;
    }
    for (uint64_t index = recovered->first_index; index <= model->last; index++) {
        if (harness->terms[index] != model->terms[index]) {
            return false;
        }
    }
    return true;
}

static void recover_and_compare(struct run *run) {
    struct harness *harness = run->harness;
    enum status status = harness_open(harness);
    if (status != STATUS_OK || harness->recovered.fault.present) {
        fprintf(stderr, "open: %s %s\n", harness->error.message, harness->recovered.fault.where);
    }
    assert_int_equal(status, STATUS_OK);
    assert_false(harness->recovered.fault.present);
    harness_replay(harness);
    if (run->has_inflight && !equals(run, &run->durable)) {
        run->durable = run->inflight; /* it made it */
    }
    assert_true(equals(run, &run->durable));
    assert_true(harness->recovered.first_index <= harness->frontier.index + 1);
    assert_true(harness->recovered.commit >= run->durable.commit);
    assert_true(harness->recovered.commit >= harness->frontier.index);
    run->has_inflight = false;
    run->commit = harness->recovered.commit;
    run->durable.commit = harness->recovered.commit;
    run->writes_seen = harness->fake->counts.dsync_writes;
    run->synced_seen = harness->synced_calls;
    run->term = harness->recovered.term;
}

/* Works until the calls_max-th call to the disk, then loses power. */
static void work_and_crash(struct run *run, uint64_t calls_max) {
    struct harness *harness = run->harness;
    harness_start(harness);
    uint8_t membership[1500]; /* start groups are larger than a sector: they can be torn */
    memset(membership, 7, sizeof membership);
    CHECK(wal_set_membership(harness->wal, slice_of(membership, sizeof membership)) == STATUS_OK);
    uint64_t crash_at = harness->fake->counts.calls + calls_max;
    harness->fake->dead_after = crash_at;
    for (int i = 0; i < 4000 && !fake_is_dead(harness->fake); i++) {
        step(run);
        if (wal_last_index(harness->wal) > HARNESS_INDEX_MAX - 100) {
            break;
        }
    }
    run->recycled += harness->wal->stats.segments_recycled;
    harness_crash(harness);
}

static struct run *run_new(uint64_t seed) {
    struct run *run = calloc(1, sizeof *run);
    CHECK(run != NULL);
    run->harness = harness_new(seed);
    run->harness->options.segment_bytes = 128 * 1024;
    run->harness->options.mark_delay_us = seed % 2 == 0 ? 50000 : 0;
    run->harness->options.cache_bytes_max = seed % 3 == 0 ? 0 : 64 * 1024;
    run->harness->options.prepared_segments = 1 + (uint32_t)(seed % 2);
    run->harness->options.spare_segments = (uint32_t)(seed % 4);
    random_seed(&run->random, seed * 7919);
    return run;
}

static void run_free(struct run *run) {
    harness_free(run->harness);
    free(run);
}

/* Some crashes on one disk after another, some of them while recovering. */
static uint64_t crash_again_and_again(uint64_t seed, int cycles) {
    struct run *run = run_new(seed);
    struct harness *harness = run->harness;
    for (int cycle = 0; cycle < cycles; cycle++) {
        while (random_chance(&run->random, 1, 2)) { /* h32: recovery dies, too */
            harness->fake->dead_after = 1 + random_below(&run->random, 30);
            enum status status = harness_open(harness);
            if (status != STATUS_OK) {
                harness->wal = NULL;
            }
            harness_crash(harness);
        }
        recover_and_compare(run);
        work_and_crash(run, 1 + random_below(&run->random, 400));
    }
    recover_and_compare(run);
    uint64_t recycled = run->recycled;
    run_free(run);
    return recycled;
}

static void test_h32_h22_h06_h37_random_crashes_lose_nothing(void **state) {
    (void)state;
    uint64_t seeds = test_is_long() ? 2000 : 60;
    uint64_t recycled = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        recycled += crash_again_and_again(seed, 8);
    }
    assert_true(recycled >= seeds / 2);
}

/* The same workload, crashed at each of its I/Os in turn. */
static void test_h22_crash_at_every_io_loses_nothing(void **state) {
    (void)state;
    for (uint64_t calls = 1; calls <= 160; calls++) {
        struct run *run = run_new(4);
        recover_and_compare(run);
        work_and_crash(run, calls);
        recover_and_compare(run);
        run_free(run);
    }
}

/* One image, and recovery crashed at each of its I/Os in turn. */
static void test_h32_recovery_crashed_at_every_io_recovers(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        for (uint64_t calls = 1; calls <= 24; calls++) {
            struct run *run = run_new(seed);
            struct harness *harness = run->harness;
            recover_and_compare(run);
            work_and_crash(run, 200 + seed * 13);
            harness->fake->dead_after = calls;
            if (harness_open(harness) != STATUS_OK) {
                harness->wal = NULL;
            }
            harness_crash(harness);
            recover_and_compare(run);
            run_free(run);
        }
    }
}

/* h06, h32: the newest segment holds nothing but a vote; opening replaces it, and dies at each I/O of that in turn. */
static void test_h06_vote_survives_crashes_while_its_segment_is_replaced(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        bool done = false;
        for (uint64_t calls = 1; !done; calls++) {
            struct harness *harness = harness_new(seed);
            uint8_t membership[1500];
            memset(membership, 7, sizeof membership);
            harness->options.segment_bytes = 128 * 1024;
            harness_up(harness);
            CHECK(wal_set_membership(harness->wal, slice_of(membership, sizeof membership)) == STATUS_OK);
            uint64_t last = 0; /* into the second segment, whose start group is the first to carry the membership */
            while (harness->wal->active->number < 2) {
                CHECK(harness_append_len(harness, ++last, 1, 4000) == STATUS_OK);
                fake_settle(harness->fake);
            }
            harness_close(harness);
            harness_up(harness);
            wal_set_state(harness->wal, 9, 3);
            fake_settle(harness->fake);
            harness_crash(harness);
            harness->fake->dead_after = calls;
            done = harness_open(harness) == STATUS_OK && !fake_is_dead(harness->fake);
            harness_crash(harness);
            assert_int_equal(harness_open(harness), STATUS_OK);
            assert_false(harness->recovered.fault.present);
            assert_int_equal(harness->recovered.term, 9);
            assert_int_equal(harness->recovered.vote, 3);
            assert_int_equal(harness->recovered.last_index, last);
            assert_int_equal(harness->recovered.membership.len, sizeof membership);
            harness_free(harness);
        }
    }
}

/* A killed process: the page cache survives, the write in flight lands whole or not. */
static void test_wal_killed_process_loses_nothing(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct run *run = run_new(seed);
        struct harness *harness = run->harness;
        for (int cycle = 0; cycle < 5; cycle++) {
            recover_and_compare(run);
            harness_start(harness);
            for (int i = 0; i < 200; i++) {
                step(run);
            }
            if (random_chance(&run->random, 1, 2)) {
                while (fake_end_io(harness->fake, 0)) {
                }
            }
            harness->fake->dead_after = 1;
            harness_close(harness);
            harness->fake->dead_after = 0;
        }
        recover_and_compare(run);
        run_free(run);
    }
}

/* Rule 12: what a killed process left in the page cache only is durable before opening returns: the power may go right
 * then. */
static void test_h22_recovered_tail_is_durable_when_opening_returns(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct harness *harness = harness_new(seed);
        harness_up(harness);
        harness_write(harness, 1, 3, 1);
        harness_append_ok(harness, 4, 6, 1);
        fake_turn(harness->fake);
        struct env_io *io = harness->fake->last_write;
        struct fake_inode *inode = harness_inode(harness, 1);
        memcpy(inode->seen + io->offset, io->data, io->len); /* written, not yet synced */
        assert_true(fake_end_io(harness->fake, EIO));
        fake_settle(harness->fake);
        harness_close(harness);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_int_equal(harness->recovered.last_index, 6);
        harness_crash(harness);
        assert_int_equal(harness_open(harness), STATUS_OK);
        assert_false(harness->recovered.fault.present);
        assert_int_equal(harness->recovered.last_index, 6);
        harness_free(harness);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h32_h22_h06_h37_random_crashes_lose_nothing),
        cmocka_unit_test(test_h22_crash_at_every_io_loses_nothing),
        cmocka_unit_test(test_h32_recovery_crashed_at_every_io_recovers),
        cmocka_unit_test(test_h06_vote_survives_crashes_while_its_segment_is_replaced),
        cmocka_unit_test(test_wal_killed_process_loses_nothing),
        cmocka_unit_test(test_h22_recovered_tail_is_durable_when_opening_returns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
