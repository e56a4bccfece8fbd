/*
 * Snapshots between whole nodes in the simulator (HAZARDS 18 to 21, 49, 63). Would break these: a follower behind the
 * log's begin stays there; a transfer that lost its connection begins anew, or hangs; a crash in an install leaves
 * tables without their log or a log without its tables; a new leader can't send; a full disk or no memory end a node,
 * or leave files, memory or a transfer behind; the rate isn't kept, or is kept however the load suffers; the log that a
 * transfer needs is deleted, or kept for ever. What peers may say falsely is in test_snapshot_lies.c.
 */
#include "tests/unit/snapshot_fixture.h"

/* ---- All is well ------------------------------------------------------------------------------------------------- */

static void test_snapshot_brings_back_a_follower_while_writes_go_on(void **state) {
    (void)state;
    struct probe *probe = start(configure);
    struct replica *away = leave_behind(probe);
    start_replica(away);
    fill(probe, 100);
    assert_same(probe->cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    assert_int_equal(ask_status(leader_of(probe->cluster)).snapshots.sent, 1);
    assert_int_equal(ask_status(leader_of(probe->cluster)).snapshots.failed, 0);
    assert_true(ask_status(away).first_index > 1);
    /* It is a member as any other afterwards: its log, its votes, its restarts. */
    replica__crash(away, SIM_CRASH_POWER);
    start_replica(away);
    fill(probe, 20);
    assert_same(probe->cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 0); /* of this life */
    end(probe);
}

static void test_h63_snapshot_keeps_to_its_rate_and_pins_what_it_needs(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    uint64_t term = ask_status(leader).term;
    start_replica(away);
    await_bytes(away, 1);
    uint64_t begin_us = sim_now_us(cluster->sim);
    uint64_t bytes = receive_of(away)->total_bytes;
    char owner[128];
    (void)snprintf(owner, sizeof owner, "follower %s (snapshot)", away->config.name);
    uint64_t sent_index = receive_of(away)->index;
    while (receives(away, 1)) {
        fill(probe, 1);
        pass(cluster, SECOND_US / 10);
        struct asked_log *asked = ask_log(leader);
        if (receives(away, 1)) { /* what follows the snapshot stays until it is there */
            assert_true(asked->query.first_index <= sent_index + 1);
            assert_non_null(pin_of(asked, owner));
        }
        forget_log(leader, asked);
    }
    uint64_t took_us = sim_now_us(cluster->sim) - begin_us;
    assert_true(bytes > 0 && took_us + SECOND_US / 2 > bytes * SECOND_US / SLOW_RATE);
    assert_same(cluster);
    assert_int_equal(ask_status(leader).term, term); /* nobody called an election */
    pass(cluster, SNAPSHOT_FOLLOW_US);
    struct asked_log *asked = ask_log(leader);
    assert_null(pin_of(asked, owner));
    forget_log(leader, asked);
    end(probe);
}

/* So many writes that the leader answered end at once, as far as the pace of its transfers knows. */
static void note_writes(const struct replica *leader, uint32_t count, uint64_t took_us) {
    for (uint32_t i = 0; i < count; i++) {
        snapshots_note_write(replica__consensus(leader)->snapshots, took_us);
    }
}

static void test_h63_snapshot_gives_way_to_writes_that_it_slows_down(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    note_writes(leader, 5000, 1000); /* what they take without one */
    start_replica(away);
    await_bytes(away, 1);
    struct snapshot_status sent = {0};
    uint64_t begin_us = sim_now_us(cluster->sim);
    const struct snapshot_pace *pace = &replica__consensus(leader)->snapshots->pace;
    while (pace->slowed < 5 && goes_on(cluster, begin_us)) {
        for (uint64_t sent_us = pace->sent_us; pace->sent_us == sent_us && goes_on(cluster, begin_us);) {
        }
        note_writes(leader, 300, SECOND_US / 5); /* those that meet a piece */
        struct snapshots_status status = ask_status(leader).snapshots;
        assert_int_equal(status.transfer_count, 1); /* it would be over too soon */
        sent = status.transfers[0];
    }
    assert_true(pace->slowed >= 5 && sim_now_us(cluster->sim) > begin_us + SECOND_US);
    assert_in_range(sent.bytes_per_second, SLOW_RATE / SNAPSHOT_PACE_FLOOR_PART, SLOW_RATE / 2);
    assert_string_equal(sent.pace, "load");
    assert_same(cluster); /* it ends nevertheless */
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    end(probe);
}

/* ---- Connections, leaders and nodes that go ---------------------------------------------------------------------- */

static void test_snapshot_goes_on_where_it_was_after_a_disconnect(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    start_replica(away);
    for (uint64_t part = 1; part <= 4; part++) {
        await_bytes(away, part * 60 * 1000);
        uint64_t id = receive_of(away)->id;
        uint64_t begin_us = sim_now_us(cluster->sim);
        while (send_to(leader, away)->flight_count > 0 && goes_on(cluster, begin_us)) {
        }
        while (send_to(leader, away)->flight_count == 0 && goes_on(cluster, begin_us)) {
        }
        sim_reset_connections(leader->sim_node, away->sim_node);
        sim_partition(leader->sim_node, away->sim_node);
        pass(cluster, 20 * 1000);
        sim_heal(leader->sim_node, away->sim_node);
        await_bytes(away, part * 60 * 1000 + 1); /* it never falls back */
        assert_int_equal(receive_of(away)->id, id);
    }
    assert_same(cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    assert_true(send_to(leader, away)->resumes >= 1);
    end(probe);
}

static void test_snapshot_of_a_leader_that_is_lost_is_sent_anew_by_the_next(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    start_replica(away);
    await_bytes(away, 100 * 1000);
    uint64_t id = receive_of(away)->id;
    replica__crash(leader, SIM_CRASH_POWER);
    uint64_t begin_us = sim_now_us(cluster->sim);
    while ((!receives(away, 1) || receive_of(away)->id == id) && goes_on(cluster, begin_us)) {
    }
    assert_true(receives(away, 1));
    start_replica(leader);
    assert_same(cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    end(probe);
}

static void test_snapshot_receiver_that_stops_leaves_no_files_and_gets_it_anew(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    start_replica(away);
    await_bytes(away, 100 * 1000);
    uint64_t lives = away->lives;
    assert_true(replica__stop(away)); /* the replica sees that no memory is left */
    uint64_t begin_us = sim_now_us(cluster->sim);
    while ((away->lives == lives || !away->serving) && goes_on(cluster, begin_us)) {
    }
    assert_true(receive_of(away)->arrived_bytes < 100 * 1000);
    struct replica *leader = leader_of(cluster);
    await_bytes(away, 1);
    lives = leader->lives;
    assert_true(replica__stop(leader)); /* and one that sends */
    begin_us = sim_now_us(cluster->sim);
    while ((leader->lives == lives || !leader->serving) && goes_on(cluster, begin_us)) {
    }
    assert_same(cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    end(probe);
}

static bool is_installing(const struct replica *replica) {
    const struct snapshot_receive *receive = receive_of(replica);
    return receive != NULL && receive->state == SNAPSHOT_RECEIVE_INSTALLING;
}

/* The node dies so many steps after a point of its install, and comes back. *ret_after: after the switch, as it knew.
 */
static void crash_after(struct probe *probe, struct replica *away, bool (*reached)(const struct replica *replica),
                        uint64_t steps, enum sim_crash crash, bool *ret_after) {
    struct cluster *cluster = probe->cluster;
    start_replica(away);
    uint64_t begin_us = sim_now_us(cluster->sim);
    while (!reached(away) && !is_level(cluster) && goes_on(cluster, begin_us)) {
    }
    bool was_after = is_level(cluster); /* already the last time: the switch was durable, and nobody knew */
    assert_true(reached(away) || was_after);
    for (uint64_t i = 0; i < steps && !was_after; i++) {
        step(cluster);
    }
    *ret_after = was_after || replica__consensus(away)->snapshots->installed > 0;
    replica__crash(away, crash);
    fill(probe, 2);
    if (*ret_after) {
        start_replica(away); /* whole, with the log that goes with it */
        await_level(cluster);
        replica__crash(away, SIM_CRASH_PROCESS);
        write_past(probe, ask_status(leader_of(cluster)).last_index);
    }
}

/* Power goes at any point of an install: the old state or the new one, and the log that goes with it. */
static void test_h21_crash_in_an_install_leaves_the_old_state_or_the_new_one(void **state) {
    (void)state;
    struct probe *probe = start(configure);
    struct replica *away = leave_behind(probe);
    bool is_after = false;
    uint32_t rounds = 0;
    for (uint64_t steps = 0; !is_after; steps += 60) {
        crash_after(probe, away, is_installing, steps, SIM_CRASH_POWER, &is_after);
        rounds++;
    }
    assert_true(rounds > 5);
    start_replica(away);
    assert_same(probe->cluster);
    end(probe);
}

/* The same, closely, around the switch of the manifest, where the commit point is, and the log's group behind it. */
static void test_h21_crash_between_the_switch_and_the_logs_group_is_no_damage(void **state) {
    (void)state;
    struct probe *probe = start(configure);
    struct replica *away = leave_behind(probe);
    uint32_t before = 0;
    uint32_t after = 0;
    for (uint64_t steps = 0; after < 6; steps += after == 0 ? 3 : 1) {
        bool is_after = false;
        crash_after(probe, away, is_about_to_switch, steps, steps % 2 == 0 ? SIM_CRASH_POWER : SIM_CRASH_PROCESS,
                    &is_after);
        before += !is_after;
        after += is_after;
        assert_true(before < 100);
    }
    assert_true(before > 2);
    start_replica(away);
    assert_same(probe->cluster);
    end(probe);
}

/* ---- Trouble ----------------------------------------------------------------------------------------------------- */

static void test_snapshot_that_meets_a_full_disk_is_told_of_and_comes_later(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    start_replica(away);
    await_bytes(away, 50 * 1000);
    sim_disk_options(away->sim_node)->capacity_bytes = 0;
    pass(cluster, 5 * SECOND_US);
    struct consensus_status status = ask_status(leader_of(cluster));
    assert_true(status.snapshots.failed > 0 && status.snapshots.failed < 20);
    char words[128];
    (void)snprintf(words, sizeof words, "follower %s gets no snapshot", away->config.name);
    assert_non_null(strstr(status.problem, words));
    sim_disk_options(away->sim_node)->capacity_bytes = CLUSTER_DISK_BYTES;
    assert_same(cluster);
    assert_string_equal(ask_status(leader_of(cluster)).problem, "");
    end(probe);
}

static void test_snapshot_without_memory_at_either_side_comes_later(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    start_replica(away);
    for (uint64_t part = 1; part <= 3; part++) {
        uint64_t begin_us = sim_now_us(cluster->sim);
        while (!receives(away, 1) && !is_level(cluster) && goes_on(cluster, begin_us)) {
        }
        struct replica *victim = part % 2 == 0 ? leader : away;
        victim->fault_explains_end = true; /* other parts of it may have to give up */
        sim_node_fail_allocations(victim->sim_node, 20 * 1000);
        pass(cluster, 50 * 1000);
        sim_node_fail_allocations(victim->sim_node, 0);
    }
    assert_same(cluster);
    end(probe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot_brings_back_a_follower_while_writes_go_on),
        cmocka_unit_test(test_h63_snapshot_keeps_to_its_rate_and_pins_what_it_needs),
        cmocka_unit_test(test_h63_snapshot_gives_way_to_writes_that_it_slows_down),
        cmocka_unit_test(test_snapshot_goes_on_where_it_was_after_a_disconnect),
        cmocka_unit_test(test_snapshot_of_a_leader_that_is_lost_is_sent_anew_by_the_next),
        cmocka_unit_test(test_snapshot_receiver_that_stops_leaves_no_files_and_gets_it_anew),
        cmocka_unit_test(test_h21_crash_in_an_install_leaves_the_old_state_or_the_new_one),
        cmocka_unit_test(test_h21_crash_between_the_switch_and_the_logs_group_is_no_damage),
        cmocka_unit_test(test_snapshot_that_meets_a_full_disk_is_told_of_and_comes_later),
        cmocka_unit_test(test_snapshot_without_memory_at_either_side_comes_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
