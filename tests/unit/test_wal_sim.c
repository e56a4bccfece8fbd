/*
 * The log on the simulated disk: its real schedule of turns, workers and I/O, virtual time, power losses that tear,
 * garble and scatter sectors, killed processes, failing writes, full disks. What was reported synced is there after
 * every crash, whatever used segments had in them before (hazard 37).
 *
 * What would break these: all that test_wal_crash.c names, and whatever depends on the order in which jobs, I/O and
 * turns end.
 */
#include "storage/wal.h"
#include "tests/sim/sim.h"
#include "tests/unit/support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { INDEX_MAX = 8000, TERM_MAX = 63, STATES_MAX = 64, ENTRY_MAX = 8 * 1024, READS = 3 };

/* What the outside world knows; survives crashes. */
struct oracle {
    struct sim_node *node;
    uint64_t terms[INDEX_MAX]; /* the log as appended */
    uint64_t ever[INDEX_MAX];  /* bit t: (index, t) was appended once */
    uint64_t last;
    uint64_t safe; /* all up to here was reported synced and not cut since */
    uint64_t term;
    uint64_t vote;
    struct {
        uint64_t term;
        uint64_t vote;
    } states[STATES_MAX]; /* [0] was reported synced, the others were set later */
    uint32_t state_count;
    struct wal_frontier frontier; /* the manifest's */
    uint64_t commit;
    uint64_t opens;
    uint64_t synced_calls;
    uint64_t failed_calls;
    uint64_t reads_done;
    uint64_t recycled; /* segments made out of old ones */
    bool may_fail;     /* the disk has errors: opening may fail */
};

/* One life of the program. */
struct life {
    struct oracle *oracle;
    struct env *env;
    struct env_loop *loop;
    struct wal *wal;
    struct env_timer timer;
    struct env_message start;
    struct wal_read reads[READS];
    bool reading[READS];
    uint64_t recycled;
};

static uint64_t below(struct life *life, uint64_t bound) { return env_random(life->env) % bound; }

static size_t payload_len(uint64_t index, uint64_t term) {
    uint64_t mixed = (index * 0x9e3779b97f4a7c15u) ^ (term * 0xc2b2ae3d27d4eb4fu);
    mixed ^= mixed >> 29;
    return (size_t)(mixed >> 8) % (mixed % 20 == 0 ? ENTRY_MAX : 400);
}

static void check_record(const struct oracle *oracle, const struct wal_record *record) {
    CHECK(record->index < INDEX_MAX && record->term <= TERM_MAX);
    CHECK((oracle->ever[record->index] >> record->term & 1) != 0);
    CHECK(record->payload.len == payload_len(record->index, record->term));
    for (size_t i = 0; i < record->payload.len; i++) {
        CHECK(record->payload.data[i] == (uint8_t)(record->index * 13 + record->term + i));
    }
}

/* ---- Recovery --------------------------------------------------------------------------------------------------- */

static enum status replayed(void *context, const struct wal_record *record, struct error *err) {
    struct oracle *oracle = context;
    (void)err;
    check_record(oracle, record);
    CHECK(record->index > oracle->safe || record->term == oracle->terms[record->index]);
    oracle->terms[record->index] = record->term;
    return STATUS_OK;
}

static void compare(struct life *life, const struct wal_recovered *recovered) {
    struct oracle *oracle = life->oracle;
    struct error error;
    bool known = false;
    for (uint32_t i = 0; i < oracle->state_count; i++) {
        known = known || (oracle->states[i].term == recovered->term && oracle->states[i].vote == recovered->vote);
    }
    CHECK(known);
    CHECK(recovered->last_index >= oracle->safe);
    CHECK(recovered->first_index <= oracle->frontier.index + 1);
    enum status status = wal_replay(life->wal, recovered->first_index, recovered->last_index, replayed, oracle, &error);
    if (status == STATUS_IO && oracle->may_fail) {
        env_exit(life->env, 4);
    }
    CHECK(status == STATUS_OK);
    oracle->last = recovered->last_index;
    oracle->safe = recovered->last_index;
    oracle->term = recovered->term;
    oracle->vote = recovered->vote;
    oracle->states[0].term = recovered->term;
    oracle->states[0].vote = recovered->vote;
    oracle->state_count = 1;
    oracle->commit = recovered->commit;
    oracle->opens++;
}

/* ---- Work ------------------------------------------------------------------------------------------------------- */

static void synced(void *context, const struct wal_synced *synced) {
    struct life *life = context;
    struct oracle *oracle = life->oracle;
    oracle->synced_calls++;
    struct wal_stats stats;
    wal_get_stats(life->wal, &stats);
    oracle->recycled += stats.segments_recycled - life->recycled;
    life->recycled = stats.segments_recycled;
    oracle->safe = wal_synced_index(life->wal);
    CHECK(oracle->safe <= oracle->last);
    uint32_t i = 0;
    while (oracle->states[i].term != synced->term || oracle->states[i].vote != synced->vote) {
        i++;
        CHECK(i < oracle->state_count);
    }
    memmove(oracle->states, oracle->states + i, (oracle->state_count - i) * sizeof oracle->states[0]);
    oracle->state_count -= i;
}

static void failed(void *context, const struct error *err) {
    struct life *life = context;
    CHECK(life->oracle->may_fail && err->code != STATUS_OK);
    life->oracle->failed_calls++;
    env_exit(life->env, 1);
}

static void set_state(struct life *life, uint64_t term, uint64_t vote) {
    struct oracle *oracle = life->oracle;
    if (oracle->state_count == STATES_MAX || term > TERM_MAX) {
        return;
    }
    oracle->term = term;
    oracle->vote = vote;
    oracle->states[oracle->state_count].term = term;
    oracle->states[oracle->state_count].vote = vote;
    oracle->state_count++;
    wal_set_state(life->wal, term, vote);
}

static void append(struct life *life) {
    struct oracle *oracle = life->oracle;
    uint64_t index = oracle->last + 1;
    if (below(life, 10) == 0 && oracle->last > oracle->commit && oracle->term < TERM_MAX) {
        index -= 1 + below(life, oracle->last - oracle->commit);
        set_state(life, oracle->term + 1, 0);
    }
    for (uint64_t count = 1 + below(life, 6); count > 0 && index < INDEX_MAX; count--, index++) {
        size_t len = payload_len(index, oracle->term);
        uint8_t *payload;
        enum status status = wal_append_begin(life->wal, index, oracle->term, 3, len, &payload);
        if (status != STATUS_OK) {
            CHECK(status == STATUS_NO_SPACE || status == STATUS_FAILED || status == STATUS_NO_MEMORY);
            return;
        }
        for (size_t i = 0; i < len; i++) {
            payload[i] = (uint8_t)(index * 13 + oracle->term + i);
        }
        wal_append_end(life->wal);
        oracle->terms[index] = oracle->term;
        oracle->ever[index] |= 1ull << oracle->term;
        oracle->last = index;
        oracle->safe = oracle->safe < index ? oracle->safe : index - 1;
    }
}

static void flush(struct life *life) {
    struct oracle *oracle = life->oracle;
    uint64_t durable = wal_synced_index(life->wal);
    if (durable > oracle->commit) {
        oracle->commit += 1 + below(life, durable - oracle->commit);
        wal_set_applied(life->wal, oracle->commit);
    }
    if (below(life, 3) == 0 && oracle->commit > oracle->frontier.index) {
        oracle->frontier = (struct wal_frontier){.index = oracle->commit, .term = oracle->terms[oracle->commit]};
        wal_set_floor(life->wal, oracle->commit, UINT64_MAX);
    }
}

static void read_done(struct wal_read *read) {
    struct life *life = CONTAINER_OF(read - (read->first_index % READS), struct life, reads[0]);
    struct slice cursor = read->records;
    life->reading[read->first_index % READS] = false;
    if (read->status == STATUS_OK) {
        for (uint32_t i = 0; i < read->count; i++) {
            struct wal_record record;
            CHECK(wal_record_decode(&cursor, &record, NULL) == STATUS_OK);
            CHECK(record.index == read->first_index + i);
            check_record(life->oracle, &record);
        }
        life->oracle->reads_done++;
    } else {
        CHECK(read->status == STATUS_NOT_FOUND || (life->oracle->may_fail && read->status == STATUS_IO));
    }
    wal_read_release(read);
}

static void read_some(struct life *life) {
    uint64_t first = wal_first_index(life->wal);
    uint64_t last = wal_last_index(life->wal);
    if (first > last) {
        return;
    }
    uint64_t index = first + below(life, last - first + 1);
    uint64_t slot = index % READS;
    if (!life->reading[slot]) {
        life->reading[slot] = true;
        life->reads[slot] =
            (struct wal_read){.first_index = index, .count_max = 20, .bytes_max = 64 * 1024, .done = read_done};
        wal_read(life->wal, &life->reads[slot]);
    }
}

static void tick(struct env_timer *timer) {
    struct life *life = CONTAINER_OF(timer, struct life, timer);
    switch (below(life, 8)) {
    case 0: set_state(life, life->oracle->term + below(life, 2), 1 + below(life, 3)); break;
    case 1: flush(life); break;
    case 2: read_some(life); break;
    default: append(life); break;
    }
    uint64_t pause_us = below(life, 30) == 0 ? 3000 : 10 + below(life, 300);
    CHECK(env_timer_arm(timer, env_now_us(life->loop) + pause_us) == STATUS_OK);
}

static void start(struct env_message *message) {
    struct life *life = CONTAINER_OF(message, struct life, start);
    struct error error;
    CHECK(wal_start(life->wal, &error) == STATUS_OK);
    env_timer_init(&life->timer, life->loop, tick);
    CHECK(env_timer_arm(&life->timer, env_now_us(life->loop) + 10) == STATUS_OK);
}

static void program(void *context, struct env *env) {
    struct oracle *oracle = context;
    struct error error;
    struct life *life = mem_alloc_zero(env->alloc, sizeof *life);
    CHECK(life != NULL);
    life->oracle = oracle;
    life->env = env;
    CHECK(env_loop_new(env, "log", 64, &life->loop, &error) == STATUS_OK);
    struct wal_options options = {.env = env,
                                  .loop = life->loop,
                                  .dir = "/data/wal",
                                  .node_id = 1,
                                  .segment_bytes = 128 * 1024,
                                  .entry_payload_bytes_max = ENTRY_MAX,
                                  .group_bytes_max = 32 * 1024,
                                  .prepared_segments = 1,
                                  .spare_segments = 2,
                                  .cache_bytes_max = 32 * 1024,
                                  .mark_delay_us = 1500,
                                  .context = life,
                                  .synced = synced,
                                  .failed = failed};
    struct wal_recovered recovered;
    enum status status = env_mkdir(env, "/data", &error);
    if (status == STATUS_OK || status == STATUS_EXISTS) {
        status = env_sync_dir(env, "/", &error);
    }
    if (status == STATUS_OK) {
        status = wal_open(&options, &oracle->frontier, &life->wal, &recovered, &error);
    }
    if (status != STATUS_OK) {
        if (!oracle->may_fail) {
            fprintf(stderr, "%s\n", error.message);
        }
        CHECK(oracle->may_fail && (status == STATUS_IO || status == STATUS_NO_SPACE));
        env_exit(env, 3);
    }
    if (recovered.fault.present) {
        fprintf(stderr, "fault: %s\n", recovered.fault.where);
    }
    CHECK(!recovered.fault.present);
    compare(life, &recovered);
    life->start.run = start;
    env_post(life->loop, &life->start);
    env_loop_run(life->loop);
}

/* ---- Runs ------------------------------------------------------------------------------------------------------- */

static void run(uint64_t seed, const struct sim_disk_options *disk, uint64_t cycles, struct oracle *oracle) {
    struct sim_options options;
    sim_options_init(&options);
    struct sim *sim = sim_new(seed, &options);
    struct sim_node_options node_options;
    sim_node_options_init(&node_options, "n1");
    node_options.main = program;
    node_options.context = oracle;
    node_options.disk = *disk;
    memset(oracle, 0, sizeof *oracle);
    oracle->state_count = 1;
    oracle->may_fail =
        disk->write_error_ppm + disk->read_error_ppm + disk->sync_error_ppm > 0 || disk->capacity_bytes < 1024 * 1024;
    oracle->node = sim_node_new(sim, &node_options);
    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
        sim_node_start(oracle->node);
        /* Often within recovery, which takes a millisecond or two here. */
        uint64_t time_us = sim_random(sim) % (sim_random(sim) % 3 == 0 ? 4000 : 60000);
        (void)sim_run_until(sim, sim_now_us(sim) + time_us, NULL, NULL, 1000 * 1000);
        if (sim_node_is_up(oracle->node)) {
            sim_node_crash(oracle->node, sim_random(sim) % 3 == 0 ? SIM_CRASH_PROCESS : SIM_CRASH_POWER);
        }
    }
    sim_disk_options(oracle->node)->read_error_ppm = 0;
    sim_disk_options(oracle->node)->write_error_ppm = 0;
    sim_disk_options(oracle->node)->sync_error_ppm = 0;
    sim_disk_options(oracle->node)->capacity_bytes = 1ull << 30;
    oracle->may_fail = false;
    uint64_t opens = oracle->opens;
    sim_node_start(oracle->node);
    (void)sim_run_until(sim, sim_now_us(sim) + 200 * 1000, NULL, NULL, 1000 * 1000);
    assert_int_equal(oracle->opens, opens + 1);
    sim_free(sim);
}

static void test_h22_h32_h37_crashes_on_simulated_disk_lose_nothing(void **state) {
    (void)state;
    struct sim_disk_options disk;
    sim_disk_options_init(&disk);
    disk.torn = true;
    disk.garbled = true;
    disk.scatter = true;
    static struct oracle oracle;
    uint64_t synced_calls = 0;
    uint64_t opens = 0;
    uint64_t reads = 0;
    uint64_t recycled = 0;
    for (uint64_t seed = 1; seed <= (test_is_long() ? 1000u : 25u); seed++) {
        run(seed, &disk, 12, &oracle);
        synced_calls += oracle.synced_calls;
        opens += oracle.opens;
        reads += oracle.reads_done;
        recycled += oracle.recycled;
    }
    assert_true(synced_calls > 1000 && opens > 100 && reads > 100 && recycled > 50);
}

static void test_h27_failing_disk_loses_nothing(void **state) {
    (void)state;
    struct sim_disk_options disk;
    sim_disk_options_init(&disk);
    disk.scatter = true;
    disk.write_error_ppm = 3000;
    disk.read_error_ppm = 3000;
    static struct oracle oracle;
    uint64_t failures = 0;
    for (uint64_t seed = 1; seed <= (test_is_long() ? 600u : 30u); seed++) {
        /* Often enough that a sync fails while the log is opened, and the next opening's succeeds without writing. */
        disk.sync_error_ppm = seed % 2 == 0 ? 3000 : 60000;
        run(seed, &disk, 12, &oracle);
        failures += oracle.failed_calls;
    }
    assert_true(failures > 3);
}

static void test_h31_full_disk_loses_nothing(void **state) {
    (void)state;
    struct sim_disk_options disk;
    sim_disk_options_init(&disk);
    disk.capacity_bytes = 5 * 128 * 1024;
    static struct oracle oracle;
    for (uint64_t seed = 1; seed <= (test_is_long() ? 300u : 8u); seed++) {
        run(seed, &disk, 6, &oracle);
        assert_true(oracle.synced_calls > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h22_h32_h37_crashes_on_simulated_disk_lose_nothing),
        cmocka_unit_test(test_h27_failing_disk_loses_nothing),
        cmocka_unit_test(test_h31_full_disk_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
