/*
 * What a node knows of the membership after starts. Breaks when: one whose store is damaged, or whose log lost the
 * newest configuration, doesn't start; the frontier of a flush names a configuration that isn't of its time; or what
 * was never committed, and is cut, comes back with a start, because segments repeat it.
 */
#include "tests/unit/member_probe.h"

#include <inttypes.h>

enum { SEED = 2 }; /* short logs */

static void configure_nothing(struct config *config) { (void)config; }

static void prefer(struct cluster *cluster, uint64_t id, uint8_t priority) {
    must(change_at(leader_of(cluster),
                   (struct raft_change){.type = RAFT_CHANGE_PRIORITY, .id = id, .priority = priority}));
}

/* The store is gone and the log begins behind entries that only the store had: a snapshot brings both, and meanwhile
 * the node knows whom to expect it from. */
static void test_h41_node_damaged_store_and_trimmed_log_still_know_the_members(void **state) {
    (void)state;
    struct probe *probe = probe_start(cluster_new_growing(SEED, 3, 3), configure_nothing);
    struct cluster *cluster = probe->cluster;
    struct replica *follower = follower_of(cluster);
    prefer(cluster, leader_of(cluster)->config.id, 1);
    for (uint32_t i = 0; i < 3; i++) {
        write_until_flushed(probe);
    }
    uint64_t config_index = ask_status(leader_of(cluster)).config_index;
    assert_true(config_index > 0);
    assert_true(raft_first_index(replica__consensus(follower)->raft) > config_index);
    replica__crash(follower, SIM_CRASH_PROCESS);
    assert_int_equal(sim_disk_corrupt(follower->sim_node, "/data/db/CURRENT", 0, 4), STATUS_OK);
    follower->log_was_damaged = true;
    follower->log_may_heal = true;
    replica__schedule_restart(follower, 1000);
    pass(cluster, SETTLE_US);
    (void)put(probe, "key", "y", 1);
    pass(cluster, SETTLE_US);
    struct consensus_status status = ask_status(follower);
    assert_string_equal(status.problem, "");
    assert_int_equal(status.config_index, config_index);
    assert_int_equal(status.applied_index, ask_status(leader_of(cluster)).applied_index);
    end(probe);
}

static void damage_start_of_oldest_segment(struct replica *replica) {
    char path[LIMIT_PATH_BYTES];
    uint64_t number = 1;
    do {
        assert_true(number < 100);
        (void)snprintf(path, sizeof path, "/data/wal/%016" PRIx64 ".log", number++);
    } while (sim_disk_corrupt(replica->sim_node, path, 4096, 100) != STATUS_OK);
}

/* Only what is behind the damage still tells the newest configuration, which the log doesn't reach any more: it goes
 * through all of them once more, and a memtable that ends between two has the older one in its frontier. */
static void test_h30_node_log_damaged_before_the_newest_configuration_goes_through_it_again(void **state) {
    (void)state;
    struct probe *probe = probe_start(cluster_new_growing(SEED, 3, 3), configure_nothing);
    struct cluster *cluster = probe->cluster;
    struct replica *follower = follower_of(cluster);
    struct error error;
    prefer(cluster, leader_of(cluster)->config.id, 1);
    assert_int_equal(fault_arm(sim_node_faults(follower->sim_node), "flush.sync=delay(60000)", &error), STATUS_OK);
    for (uint32_t i = 0; i < 8; i++) {
        (void)put(probe, "key", "x", VALUE_BYTES);
    }
    prefer(cluster, leader_of(cluster)->config.id, 2);
    for (uint32_t i = 0; i < 10; i++) {
        (void)put(probe, "key", "y", VALUE_BYTES);
    }
    pass(cluster, 100 * 1000);
    uint64_t config_index = ask_status(leader_of(cluster)).config_index;
    struct consensus_status status = ask_status(follower);
    assert_int_equal(status.config_index, config_index);
    assert_int_equal(status.flushed_index, 0);
    assert_true(status.wal.triggers[WAL_TRIGGER_START] > 0); /* the next segment has begun, and knows the newest one */
    replica__crash(follower, SIM_CRASH_PROCESS);
    damage_start_of_oldest_segment(follower);
    follower->log_was_damaged = true;
    follower->log_may_heal = true;
    fault_disarm(sim_node_faults(follower->sim_node), FAULT_FLUSH_SYNC);
    replica__schedule_restart(follower, 1000);
    pass(cluster, 2 * SETTLE_US);
    status = ask_status(follower);
    assert_true(status.flushed_index > 0);
    assert_int_equal(status.heal_index, 0);
    assert_int_equal(status.config_index, config_index);
    assert_int_equal(replica__consensus(follower)->members.applied.index, config_index);
    end(probe);
}

/* ---- What was never committed ------------------------------------------------------------------------------------ */

enum { WRITES = 20 }; /* more than a segment holds */

struct write {
    struct consensus_proposal proposal;
    struct batch_operation operation;
};

struct writer {
    struct replica *replica;
    struct env_message message;
    struct write writes[WRITES];
    uint8_t value[VALUE_BYTES];
};

static void write_done(struct consensus_proposal *proposal) { (void)proposal; }

static void run_writes(struct env_message *message) {
    struct writer *writer = CONTAINER_OF(message, struct writer, message);
    for (uint32_t i = 0; i < WRITES; i++) {
        struct write *write = &writer->writes[i];
        write->operation = (struct batch_operation){.kind = BATCH_PUT,
                                                    .key = slice_of_string("lost"),
                                                    .value = slice_of(writer->value, VALUE_BYTES)};
        write->proposal = (struct consensus_proposal){.loop = writer->replica->loop,
                                                      .operations = &write->operation,
                                                      .operation_count = 1,
                                                      .deadline_us = env_clock_us(writer->replica->env) + LONG_US,
                                                      .done = write_done};
        consensus_propose(replica__consensus(writer->replica), &write->proposal);
    }
}

static void restart(struct replica *replica) {
    replica__crash(replica, SIM_CRASH_POWER);
    replica__schedule_restart(replica, 1000);
    pass(replica->cluster, 100 * 1000);
}

static uint8_t priority_at(const struct replica *replica, uint64_t id) {
    const struct raft_config *membership = raft_membership(replica__consensus(replica)->raft);
    for (uint32_t i = 0; i < membership->member_count; i++) {
        if (membership->members[i].id == id) {
            return membership->members[i].priority;
        }
    }
    fail();
    return 0;
}

/* A leader that is cut off appends a configuration and begins segments behind it, goes through a crash with all that,
 * has its log cut by the next leader, and crashes again. */
static void test_h09_node_configuration_that_was_cut_stays_cut_after_starts(void **state) {
    (void)state;
    struct probe *probe = probe_start(cluster_new_growing(SEED, 3, 3), configure_nothing);
    struct cluster *cluster = probe->cluster;
    struct replica *old = leader_of(cluster);
    struct writer *writer = calloc(1, sizeof *writer);
    assert_non_null(writer);
    prefer(cluster, old->config.id, 1);
    uint64_t config_index = ask_status(old).config_index;
    isolate(cluster, old, false);
    struct asked_change *asked = prepare(old);
    asked->change.changes[0] = (struct raft_change){.type = RAFT_CHANGE_PRIORITY, .id = old->config.id, .priority = 7};
    asked->change.change_count = 1;
    begin_change(asked);
    writer->replica = old;
    writer->message.run = run_writes;
    env_post(old->loop, &writer->message);
    pass(cluster, 100 * 1000);
    struct consensus_status status = ask_status(old);
    assert_int_equal(status.config_index, config_index + 1);
    assert_false(status.config_is_committed);
    assert_int_equal(priority_at(old, old->config.id), 7);
    assert_true(status.wal.triggers[WAL_TRIGGER_START] > 0);
    restart(old);
    assert_int_equal(ask_status(old).config_index, config_index + 1); /* used from append on, and it is in the log */
    assert_int_equal(priority_at(old, old->config.id), 7);
    pass(cluster, SETTLE_US);
    (void)put(probe, "key", "x", 1);
    sim_heal_all(cluster->sim);
    pass(cluster, SETTLE_US);
    (void)put(probe, "key", "y", 1);
    for (uint32_t round = 0; round < 2; round++) {
        assert_int_equal(ask_status(old).config_index, config_index);
        assert_int_equal(priority_at(old, old->config.id), 1);
        restart(old);
    }
    end(probe);
    free(asked);
    free(writer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h41_node_damaged_store_and_trimmed_log_still_know_the_members),
        cmocka_unit_test(test_h30_node_log_damaged_before_the_newest_configuration_goes_through_it_again),
        cmocka_unit_test(test_h09_node_configuration_that_was_cut_stays_cut_after_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
