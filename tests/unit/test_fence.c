/*
 * Whole nodes in the simulator whose disks hang, are slow, are full, or whose applying stands still. Breaks when: a
 * leader that can't write or apply keeps the lead (hazard 13), or gives it away although nobody would do better (hazard
 * 23); a node that can't write campaigns; a fence isn't lifted when its cause is over; time in which nobody could look
 * counts as a stall; nobody is told.
 */
#include "tests/sim/disk.h"
#include "tests/sim/sim_internal.h"
#include "tests/unit/node_probe.h"

enum {
    SEED = 2, /* three replicas, no drift, no preemption */
    MS = 1000,
    HANDED_OVER_US = 500 * MS, /* the limit, a look, a campaign without an election timeout */
    LONG_US = 60 * 1000 * MS
};

/* Clients write and read all the time. */
static struct cluster *begin(void) {
    struct cluster *cluster = cluster_new(SEED);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        cluster->replicas[i].config.scan_digest_interval_s = 0; /* only the clients write */
        cluster->replicas[i].config.scrub_rate = 0;             /* nobody damages anything */
    }
    pass(cluster, SETTLE_US);
    workload__start(cluster);
    pass(cluster, SETTLE_US / 2);
    return cluster;
}

static const struct consensus_fence *fence_of(const struct replica *replica) {
    return &replica__consensus(replica)->fence;
}

static uint64_t fences(const struct cluster *cluster) {
    uint64_t count = 0;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        count += fence_of(&cluster->replicas[i])->count;
    }
    return count;
}

/* Until somebody but `old` leads; the microseconds that took. */
static uint64_t await_other_leader(struct cluster *cluster, const struct replica *old) {
    uint64_t begin_us = sim_now_us(cluster->sim);
    for (;;) {
        for (uint32_t i = 0; i < cluster->replica_count; i++) {
            const struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
            if (&cluster->replicas[i] != old && consensus != NULL && consensus->role == RAFT_LEADER) {
                return sim_now_us(cluster->sim) - begin_us;
            }
        }
        assert_true(sim_now_us(cluster->sim) < begin_us + LONG_US);
        step(cluster);
    }
}

static void await_fence(struct cluster *cluster, const struct replica *replica, enum raft_fence reason) {
    uint64_t begin_us = sim_now_us(cluster->sim);
    while (fence_of(replica)->reason != reason) {
        assert_true(sim_now_us(cluster->sim) < begin_us + LONG_US);
        step(cluster);
    }
}

static void assert_writes_go_on(struct cluster *cluster) {
    uint64_t puts = cluster->stats.puts_ok;
    pass(cluster, 2000 * MS);
    assert_true(cluster->stats.puts_ok > puts + 20);
}

static void assert_says(const struct replica *replica, const char *words) {
    char problem[ERROR_MESSAGE_BYTES_MAX];
    fence__describe(replica__consensus(replica), problem, sizeof problem);
    if (strstr(problem, words) == NULL) {
        print_error("it says: %s\n", problem);
        fail();
    }
}

/* One after the other, the leader's disk last. */
static void hang_all(struct cluster *cluster, const struct replica *leader, bool hung, uint64_t apart_us) {
    for (uint32_t i = 1; i <= cluster->replica_count; i++) {
        sim_disk_hang(cluster->replicas[(leader->number + i) % cluster->replica_count].sim_node, hung);
        pass(cluster, apart_us);
    }
}

/* ---- The log ----------------------------------------------------------------------------------------------------- */

static void test_h13_fence_hung_log_another_leads_within_a_bound(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    struct replica *old = leader_of(cluster);
    sim_disk_hang(old->sim_node, true);
    assert_in_range(await_other_leader(cluster, old), 1, HANDED_OVER_US);
    assert_int_equal(fence_of(old)->reason, RAFT_FENCE_LOG_STALLED);
    assert_says(old, "a log write took over 350 ms");
    assert_writes_go_on(cluster);
    assert_int_equal(fence_of(old)->reason, RAFT_FENCE_LOG_STALLED);
    sim_disk_hang(old->sim_node, false);
    pass(cluster, 3000 * MS);
    assert_int_equal(fence_of(old)->reason, RAFT_FENCE_NONE);
    assert_says(old, "");
    assert_int_equal(fences(cluster), 1);
    cluster_free(cluster);
}

static void test_h13_fence_node_does_not_campaign_until_it_is_lifted(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    struct replica *old = leader_of(cluster);
    sim_disk_hang(old->sim_node, true);
    (void)await_other_leader(cluster, old);
    uint64_t elections = replica__consensus(old)->elections_started;
    /* No leader is heard any more, and nobody can be elected without it. */
    struct replica *other = leader_of(cluster);
    replica__crash(other, SIM_CRASH_PROCESS);
    pass(cluster, 2000 * MS);
    assert_int_equal(replica__consensus(old)->role, RAFT_FOLLOWER);
    assert_int_equal(replica__consensus(old)->elections_started, elections);
    sim_disk_hang(old->sim_node, false);
    pass(cluster, 3000 * MS);
    assert_int_equal(fence_of(old)->reason, RAFT_FENCE_NONE);
    assert_writes_go_on(cluster);
    cluster_free(cluster);
}

static void test_h23_fence_slow_logs_below_the_limit_no_election(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    struct replica *leader = leader_of(cluster);
    uint64_t term = leader->term;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct sim_disk_options *disk = sim_disk_options(cluster->replicas[i].sim_node);
        disk->slow_ppm = 500 * 1000;
        disk->slow_us_max = 110 * MS; /* once for the write, once for its sync */
    }
    pass(cluster, 10 * 1000 * MS);
    assert_ptr_equal(leader_of(cluster), leader);
    assert_int_equal(leader->term, term);
    assert_int_equal(fences(cluster), 0);
    cluster_free(cluster);
}

/* Handing over would help nobody, also when they go on, one a little earlier than the other. */
static void test_h23_fence_all_logs_hang_leader_stays(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    struct replica *leader = leader_of(cluster);
    pass(cluster, 100 * MS);
    uint64_t term = leader->term;
    for (uint32_t round = 0; round < 3; round++) {
        hang_all(cluster, leader, true, 10 * MS);
        pass(cluster, 5000 * MS);
        assert_ptr_equal(leader_of(cluster), leader);
        hang_all(cluster, leader, false, 50 * MS);
        assert_writes_go_on(cluster);
    }
    assert_int_equal(leader->term, term);
    cluster_free(cluster);
}

/* The write is long done when it is looked at again. */
static void test_h23_fence_pause_is_no_stall(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        sim_node_pause(cluster->replicas[i].sim_node);
    }
    pass(cluster, 5000 * MS);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        sim_node_resume(cluster->replicas[i].sim_node);
    }
    assert_writes_go_on(cluster);
    assert_int_equal(fences(cluster), 0);
    assert_int_equal(fence_of(&cluster->replicas[0])->stand_stills, 1);
    cluster_free(cluster);
}

/* ---- Applying ---------------------------------------------------------------------------------------------------- */

static void test_h13_fence_apply_stands_still_another_leads(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    struct replica *old = leader_of(cluster);
    struct error error;
    assert_int_equal(fault_arm(sim_node_faults(old->sim_node), "apply=hang", &error), STATUS_OK);
    assert_in_range(await_other_leader(cluster, old), 2700 * MS, 3100 * MS);
    assert_int_equal(fence_of(old)->reason, RAFT_FENCE_APPLY_STALLED);
    assert_says(old, "weren't applied for 2800 ms");
    assert_writes_go_on(cluster);
    fault_disarm(sim_node_faults(old->sim_node), FAULT_APPLY);
    pass(cluster, 3000 * MS);
    assert_int_equal(fence_of(old)->reason, RAFT_FENCE_NONE);
    cluster_free(cluster);
}

/* ---- Room -------------------------------------------------------------------------------------------------------- */

static void fill(struct replica *replica, bool full) {
    replica->fault_explains_end = replica->fault_explains_end || full;
    sim_disk_options(replica->sim_node)->capacity_bytes = full ? 0 : CLUSTER_DISK_BYTES;
}

static void test_h31_fence_full_follower_does_not_campaign(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    struct replica *leader = leader_of(cluster);
    struct replica *full = &cluster->replicas[(leader->number + 1) % cluster->replica_count];
    fill(full, true);
    await_fence(cluster, full, RAFT_FENCE_CANT_WRITE);
    assert_says(full, "the log has no room");
    uint64_t elections = replica__consensus(full)->elections_started;
    replica__crash(leader, SIM_CRASH_PROCESS);
    pass(cluster, 2000 * MS);
    assert_int_equal(replica__consensus(full)->elections_started, elections);
    fill(full, false);
    await_fence(cluster, full, RAFT_FENCE_NONE);
    pass(cluster, 1000 * MS);
    assert_writes_go_on(cluster);
    cluster_free(cluster);
}

static void test_h31_fence_full_leader_hands_over(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    struct replica *old = leader_of(cluster);
    fill(old, true);
    (void)await_other_leader(cluster, old);
    assert_writes_go_on(cluster);
    fill(old, false);
    await_fence(cluster, old, RAFT_FENCE_NONE);
    cluster_free(cluster);
}

/* Somebody leads, and all others know that they can't write. */
static bool is_all_full(struct cluster *cluster) {
    const struct replica *leader = leader_or_none(cluster);
    bool all = leader != NULL;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        const struct replica *replica = &cluster->replicas[i];
        all = all && (replica == leader || fence_of(replica)->reason == RAFT_FENCE_CANT_WRITE);
    }
    return all;
}

/* Nobody has room: somebody leads all the same, for reads, and to say why writes are refused. */
static void test_h31_fence_all_full_leader_stays(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        fill(&cluster->replicas[i], true);
    }
    uint64_t begin_us = sim_now_us(cluster->sim);
    while (!is_all_full(cluster)) {
        assert_true(sim_now_us(cluster->sim) < begin_us + LONG_US);
        step(cluster);
    }
    struct replica *leader = leader_of(cluster);
    pass(cluster, 10 * 1000 * MS);
    assert_ptr_equal(leader_of(cluster), leader);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        fill(&cluster->replicas[i], false);
    }
    pass(cluster, 3000 * MS);
    assert_writes_go_on(cluster);
    cluster_free(cluster);
}

/* All restart on full disks: nobody may campaign. Once two have room again, one of them leads within seconds, by
 * itself. */
static void test_h31_fence_all_full_without_a_leader_one_comes_with_room(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        fill(&cluster->replicas[i], true);
    }
    pass(cluster, 5000 * MS);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct sim_node *node = cluster->replicas[i].sim_node;
        replica__crash(&cluster->replicas[i], SIM_CRASH_PROCESS);
        sim_disk_options(node)->capacity_bytes = sim__disk_used_bytes(node->disk); /* what a node gives up it may use */
        replica__schedule_restart(&cluster->replicas[i], 100 * MS);
    }
    pass(cluster, 5000 * MS);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        assert_true(cluster->replicas[i].serving);
        assert_int_equal(fence_of(&cluster->replicas[i])->reason, RAFT_FENCE_CANT_WRITE);
        assert_int_equal(replica__consensus(&cluster->replicas[i])->role, RAFT_FOLLOWER);
        assert_int_equal(replica__consensus(&cluster->replicas[i])->elections_started, 0);
    }
    fill(&cluster->replicas[0], false);
    fill(&cluster->replicas[1], false);
    assert_true(await_other_leader(cluster, NULL) < 4000 * MS);
    assert_writes_go_on(cluster);
    assert_int_equal(fence_of(&cluster->replicas[2])->reason, RAFT_FENCE_CANT_WRITE);
    fill(&cluster->replicas[2], false);
    await_fence(cluster, &cluster->replicas[2], RAFT_FENCE_NONE);
    cluster_free(cluster);
}

/* ---- Ended processes --------------------------------------------------------------------------------------------- */

/* Its machine refuses connections: nobody waits for an election timeout. */
static void test_fence_killed_leader_is_replaced_at_once(void **state) {
    (void)state;
    struct cluster *cluster = begin();
    struct replica *old = leader_of(cluster);
    replica__crash(old, SIM_CRASH_PROCESS);
    assert_in_range(await_other_leader(cluster, old), 1, 130 * MS);
    assert_writes_go_on(cluster);
    cluster_free(cluster);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h13_fence_hung_log_another_leads_within_a_bound),
        cmocka_unit_test(test_h13_fence_node_does_not_campaign_until_it_is_lifted),
        cmocka_unit_test(test_h23_fence_slow_logs_below_the_limit_no_election),
        cmocka_unit_test(test_h23_fence_all_logs_hang_leader_stays),
        cmocka_unit_test(test_h23_fence_pause_is_no_stall),
        cmocka_unit_test(test_h13_fence_apply_stands_still_another_leads),
        cmocka_unit_test(test_h31_fence_full_follower_does_not_campaign),
        cmocka_unit_test(test_h31_fence_full_leader_hands_over),
        cmocka_unit_test(test_h31_fence_all_full_leader_stays),
        cmocka_unit_test(test_h31_fence_all_full_without_a_leader_one_comes_with_room),
        cmocka_unit_test(test_fence_killed_leader_is_replaced_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
