/*
 * Which of a leader's slots for outgoing snapshots serves whom, on whole nodes in the simulator. Would break these: a
 * peer that is no member keeps a slot for as long as this node leads, until a member finds none; a new transfer takes
 * the slot of one for whom the log behind his snapshot is still kept; what a new one says of itself is of the last.
 */
#include "node/server/snapshot_internal.h"
#include "tests/unit/nodes_fixture.h"

enum { NOBODY = 77, MORE_THAN_SLOTS = 2 * LIMIT_MEMBERS };

static void configure_quiet(struct config *config) { config->scan_digest_interval_s = 0; }

static int tear_down(void **state) {
    (void)state;
    cluster_free(cluster);
    return 0;
}

static struct snapshots *snapshots_of_leader(void) { return consensus_of(leader())->snapshots; }

static const struct snapshot_send *send_to(uint64_t peer) {
    const struct snapshots *snapshots = snapshots_of_leader();
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (snapshots->sends[i].peer == peer) {
            return &snapshots->sends[i];
        }
    }
    return NULL;
}

static uint64_t follower_id(uint32_t which) {
    return cluster->replicas[(leader() + which) % cluster->replica_count].config.id;
}

/* A transfer to it, to the end. */
static void send_one(uint64_t peer) {
    uint64_t sent = snapshots_of_leader()->sent;
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    snapshots_request(snapshots_of_leader(), &peer, 1);
    assert_non_null(send_to(peer));
    while (send_to(peer)->state != SNAPSHOT_SEND_IDLE && sim_now_us(cluster->sim) < end_us) {
        step();
    }
    assert_int_equal(send_to(peer)->state, SNAPSHOT_SEND_IDLE);
    assert_int_equal(snapshots_of_leader()->sent, sent + 1);
}

/* Tables, so that there is something to send. */
static void write_some(void) {
    put_some(30);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        storage_flush(consensus_of(i)->storage);
    }
    pass(SETTLE_US);
}

static void test_snapshot_slot_of_who_is_no_member_is_given_back(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    write_some();
    struct snapshots *snapshots = snapshots_of_leader();
    for (uint64_t i = 0; i < MORE_THAN_SLOTS; i++) {
        snapshots_request(snapshots, &(uint64_t){NOBODY + i}, 1);
        assert_non_null(send_to(NOBODY + i));
        pass(5 * SNAPSHOT_TICK_US);
        assert_int_equal(send_to(NOBODY + i)->state, SNAPSHOT_SEND_IDLE);
    }
    send_one(follower_id(1));
    assert_false(cluster__has_failed(cluster));
}

static void test_snapshot_slot_of_one_that_is_followed_is_left_alone(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    write_some();
    uint64_t one = follower_id(1);
    uint64_t two = follower_id(2);
    send_one(one);
    struct snapshot_send *send = (struct snapshot_send *)send_to(one);
    send->follow_until_us = sim_now_us(cluster->sim) + PATIENCE_US; /* it hasn't caught up yet */
    snapshots_request(snapshots_of_leader(), &two, 1);
    assert_ptr_equal(send_to(one), send);
    assert_true(send->follow_until_us != 0);
    assert_ptr_not_equal(send_to(two), send);
    assert_non_null(send_to(two));
}

static void test_snapshot_that_waits_tells_nothing_of_the_last_one(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    write_some();
    uint64_t peer = follower_id(1);
    send_one(peer);
    snapshots_request(snapshots_of_leader(), &peer, 1);
    struct snapshots_status status;
    snapshots_get_status(snapshots_of_leader(), &status);
    assert_int_equal(status.transfer_count, 1);
    assert_string_equal(status.transfers[0].state, "waiting");
    assert_int_equal(status.transfers[0].index, 0);
    assert_int_equal(status.transfers[0].done_bytes, 0);
    assert_int_equal(status.transfers[0].total_bytes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_snapshot_slot_of_who_is_no_member_is_given_back, tear_down),
        cmocka_unit_test_teardown(test_snapshot_slot_of_one_that_is_followed_is_left_alone, tear_down),
        cmocka_unit_test_teardown(test_snapshot_that_waits_tells_nothing_of_the_last_one, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
