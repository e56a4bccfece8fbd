/*
 * Whole nodes in the simulator, one of which loses its data directory and starts with the same configuration (hazard
 * 41).
 *
 * Breaks if what was acknowledged with a wiped node's help is lost because of its vote; if it isn't a voter again by
 * itself, or is one before it has the data; if nobody is told meanwhile; if a node that restarts with its data passes
 * for another; if a node never hears a leader that came to the cluster when it wasn't there.
 */
#include "tests/unit/node_probe.h"

#include "raft/raft_internal.h"

enum { SEED = 2, LONG_US = 8 * 1000 * 1000, MOMENT_US = 1500 * 1000, TURN_US = 100 * 1000 };

static void configure_nothing(struct config *config) { (void)config; }

static struct probe *start(void) { return probe_start(cluster_new(SEED), configure_nothing); }

static void wipe(struct replica *replica) {
    replica__crash(replica, SIM_CRASH_PROCESS);
    assert_true(damage__wipe(replica));
    replica__schedule_restart(replica, TURN_US);
}

static const struct raft_member *member_of(struct cluster *cluster, const struct replica *replica) {
    const struct raft_config *config = raft_membership(replica__consensus(leader_of(cluster))->raft);
    return &config->members[raft__config_find(config, replica->config.id)];
}

static void fill(struct probe *probe, unsigned from, unsigned count) {
    char key[16];
    for (unsigned i = from; i < from + count; i++) {
        (void)snprintf(key, sizeof key, "key-%03u", i % 40);
        (void)put(probe, key, key, VALUE_BYTES);
    }
}

static void check_all_there(struct probe *probe) {
    char key[16];
    for (unsigned i = 0; i < 40; i++) {
        (void)snprintf(key, sizeof key, "key-%03u", i);
        assert_int_equal(get_at(probe, key, 0), HOLDFAST_CODE_OK);
        assert_int_equal(strncmp(probe->value, key, strlen(key)), 0);
    }
}

/* More than the log keeps: it gets a snapshot. */
static void test_h41_node_that_was_wiped_is_a_voter_again(void **state) {
    (void)state;
    struct probe *probe = start();
    struct cluster *cluster = probe->cluster;
    fill(probe, 0, 120);
    struct replica *victim = follower_of(cluster);
    uint64_t before = member_of(cluster, victim)->incarnation;
    assert_true(before != 0 && before == victim->incarnation);
    wipe(victim);
    pass(cluster, MOMENT_US);
    assert_true(victim->serving && victim->incarnation != 0 && victim->incarnation != before);
    assert_true(member_of(cluster, victim)->incarnation == before);
    struct consensus_status status = ask_status(leader_of(cluster));
    assert_non_null(strstr(status.problem, "lost its data"));
    assert_true(status.members[victim->number].is_wiped);
    assert_non_null(strstr(ask_status(victim).problem, "this node's log is new"));
    pass(cluster, LONG_US);
    const struct raft_member *member = member_of(cluster, victim);
    assert_true(member->incarnation == victim->incarnation && !member->returns);
    assert_int_equal(member->role, RAFT_VOTER);
    assert_string_equal(ask_status(leader_of(cluster)).problem, "");
    assert_string_equal(ask_status(victim).problem, "");
    assert_true(checker__converged(cluster));
    /* It makes a quorum with either of the others. */
    struct replica *other = leader_of(cluster);
    replica__crash(other, SIM_CRASH_PROCESS);
    check_all_there(probe);
    (void)put(probe, "key", "value", 5);
    replica__schedule_restart(other, TURN_US);
    pass(cluster, LONG_US);
    assert_true(checker__converged(cluster));
    end(probe);
}

/* The leader has an entry that is acknowledged with n3's help, the other follower hasn't; n3 is wiped, the leader gone.
 */
static void test_h41_vote_of_a_wiped_node_brings_back_no_past(void **state) {
    (void)state;
    struct probe *probe = start();
    struct cluster *cluster = probe->cluster;
    struct replica *leader = leader_of(cluster);
    struct replica *behind = follower_of(cluster);
    struct replica *victim = &cluster->replicas[3 - leader->number - behind->number];
    pass(cluster, LONG_US); /* all are recorded */
    sim_partition(leader->sim_node, behind->sim_node);
    sim_partition(victim->sim_node, behind->sim_node);
    (void)put(probe, "key", "acknowledged", 12);
    replica__crash(victim, SIM_CRASH_PROCESS);
    assert_true(damage__wipe(victim)); /* all others are up, as it must be */
    replica__crash(leader, SIM_CRASH_POWER);
    uint64_t last_index = raft_last_index(replica__consensus(behind)->raft);
    assert_true(last_index < leader->synced_index);
    sim_heal(victim->sim_node, behind->sim_node); /* what the leader had sent stays on its way */
    replica__schedule_restart(victim, TURN_US);
    for (uint64_t passed_us = 0; passed_us < LONG_US; passed_us += TURN_US) {
        pass(cluster, TURN_US);
        assert_int_not_equal(raft_role(replica__consensus(behind)->raft), RAFT_LEADER);
    }
    assert_true(raft_last_index(replica__consensus(behind)->raft) == last_index);
    sim_heal_all(cluster->sim);
    replica__schedule_restart(leader, TURN_US);
    pass(cluster, 2ull * LONG_US);
    assert_int_equal(get_at(probe, "key", 0), HOLDFAST_CODE_OK);
    assert_int_equal(strncmp(probe->value, "acknowledged", 12), 0);
    assert_true(checker__converged(cluster));
    end(probe);
}

static void test_h41_node_that_restarts_with_its_data_stays_what_it_was(void **state) {
    (void)state;
    struct probe *probe = start();
    struct cluster *cluster = probe->cluster;
    fill(probe, 0, 40);
    struct replica *follower = follower_of(cluster);
    uint64_t before = follower->incarnation;
    for (int i = 0; i < 3; i++) {
        replica__crash(follower, SIM_CRASH_POWER);
        replica__schedule_restart(follower, TURN_US);
        pass(cluster, MOMENT_US);
        assert_true(follower->incarnation == before);
        assert_int_equal(member_of(cluster, follower)->role, RAFT_VOTER);
        assert_string_equal(ask_status(follower).problem, "");
    }
    check_all_there(probe);
    end(probe);
}

/* Its configuration file doesn't name who leads now. The others tell it. */
static void test_h41_wiped_node_accepts_a_leader_that_it_never_knew(void **state) {
    (void)state;
    struct probe *probe = probe_start(cluster_new_growing(SEED, 4, 3), configure_nothing);
    struct cluster *cluster = probe->cluster;
    struct replica *fourth = &cluster->replicas[3];
    const struct holdfast_member_change add = adding_of(fourth);
    const struct holdfast_member_change promote = {.action = HOLDFAST_MEMBER_PROMOTE, .id = add.id};
    assert_int_equal(change_member(probe, &add), HOLDFAST_CODE_OK);
    pass(cluster, SETTLE_US);
    assert_int_equal(change_member(probe, &promote), HOLDFAST_CODE_OK);
    assert_int_equal(transfer_lead(probe, add.id), HOLDFAST_OK);
    assert_ptr_equal(leader_of(cluster), fourth);
    pass(cluster, SETTLE_US);
    struct replica *victim = &cluster->replicas[1];
    wipe(victim);
    pass(cluster, LONG_US);
    assert_ptr_equal(leader_of(cluster), fourth);
    assert_true(member_of(cluster, victim)->incarnation == victim->incarnation);
    assert_int_equal(member_of(cluster, victim)->role, RAFT_VOTER);
    assert_true(checker__converged(cluster));
    end(probe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h41_node_that_was_wiped_is_a_voter_again),
        cmocka_unit_test(test_h41_vote_of_a_wiped_node_brings_back_no_past),
        cmocka_unit_test(test_h41_node_that_restarts_with_its_data_stays_what_it_was),
        cmocka_unit_test(test_h41_wiped_node_accepts_a_leader_that_it_never_knew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
