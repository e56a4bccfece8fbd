/*
 * New members are tried before they are proposed; whole nodes in the simulator. Breaks when: an address where nobody
 * listens, where nothing answers in time, or where another node is, makes a learner; a refusal doesn't say why, or what
 * to do; a node that runs and waits isn't taken, or not nevertheless when that is asked for; a change that raft refuses
 * waits for a connection; writes wait for one; a leader that steps down, or stops, proposes nevertheless or never
 * answers; more nodes are tried at a time than may be.
 */
#include "tests/unit/member_probe.h"

#include "node/server/peers_internal.h"

enum { SEED = 2, SECOND_US = 1000 * 1000, HALFWAY_US = 100 * 1000 };

/* Three founders, one of which leads from the start; n4 and n5 wait to be added. */
static struct probe *probe;
static struct cluster *cluster;
static struct replica *leader;
static struct replica *fourth;
static struct replica *fifth;

static void configure_nothing(struct config *config) { (void)config; }

static int set_up(void **state) {
    (void)state;
    probe = probe_start(cluster_new_growing(SEED, 5, 3), configure_nothing);
    cluster = probe->cluster;
    leader = leader_of(cluster);
    fourth = &cluster->replicas[3];
    fifth = &cluster->replicas[4];
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    end(probe);
    return 0;
}

static void must_be_unreachable(struct consensus_change change, const char *address, const char *reason) {
    assert_int_equal(change.status, STATUS_CONDITION);
    assert_false(change.unknown);
    assert_int_equal(change.refusal, RAFT_REFUSAL_UNREACHABLE);
    const char *wanted[] = {address, " can't be reached: ", reason,
                            "start the node with join = on first, or say --unreachable"};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (strstr(change.err.message, wanted[i]) == NULL) {
            print_error("\"%s\" lacks \"%s\"\n", change.err.message, wanted[i]);
        }
        assert_non_null(strstr(change.err.message, wanted[i]));
    }
}

/* Nothing reaches it, and it hears nothing; nobody is told. */
static void cut_off(const struct replica *replica) { isolate(cluster, replica, false); }

static struct asked_change *begin_adding(struct raft_change add) {
    struct asked_change *asked = prepare(leader);
    asked->change.changes[0] = add;
    asked->change.change_count = 1;
    begin_change(asked);
    return asked;
}

static uint32_t member_count(void) { return ask_status(leader_of(cluster)).member_count; }

static void test_h62_node_that_does_not_run_is_refused_until_it_does(void **state) {
    (void)state;
    replica__crash(fourth, SIM_CRASH_PROCESS);
    must_be_unreachable(change_at(leader_of(cluster), adding(fourth)), "n4:4500", "refused");
    assert_int_equal(member_count(), 3);
    replica__schedule_restart(fourth, 1000);
    pass(cluster, SETTLE_US);
    must(change_at(leader_of(cluster), adding(fourth)));
    pass(cluster, SETTLE_US);
    must(change_one(cluster, RAFT_CHANGE_PROMOTE, 4));
}

static void test_node_that_is_added_nevertheless_may_come_later(void **state) {
    (void)state;
    replica__crash(fourth, SIM_CRASH_PROCESS);
    must(change_untried(leader_of(cluster), adding(fourth)));
    assert_int_equal(member_count(), 4);
    replica__schedule_restart(fourth, 1000);
    pass(cluster, SETTLE_US);
    must(change_one(cluster, RAFT_CHANGE_PROMOTE, 4));
}

static void test_h62_node_other_than_named_is_refused(void **state) {
    (void)state;
    struct raft_change add = adding(fourth);
    add.thumbprint = adding(fifth).thumbprint;
    must_be_unreachable(change_at(leader_of(cluster), add), "n4:4500", "another certificate");
    add = adding(fourth);
    add.id = 7;
    must_be_unreachable(change_at(leader_of(cluster), add), "n4:4500", "has the id 4");
    assert_int_equal(member_count(), 3);
    must(change_at(leader_of(cluster), adding(fourth)));
}

/* It would refuse the log, too. */
static void test_node_that_does_not_know_the_leader_is_refused(void **state) {
    (void)state;
    replica__crash(fourth, SIM_CRASH_PROCESS);
    for (uint32_t i = 0; i < fourth->config.member_count; i++) {
        fourth->config.members[i].thumbprint[0] ^= fourth->config.members[i].id == leader->config.id ? 1 : 0;
    }
    replica__schedule_restart(fourth, 1000);
    pass(cluster, SETTLE_US);
    must_be_unreachable(change_at(leader_of(cluster), adding(fourth)), "n4:4500", "needs a [member] section");
}

static void test_h62_node_that_never_answers_is_refused_after_a_second_and_writes_go_on(void **state) {
    (void)state;
    cut_off(fourth);
    uint64_t begin_us = sim_now_us(cluster->sim);
    struct asked_change *asked = begin_adding(adding(fourth));
    for (int i = 0; i < 5; i++) {
        (void)put(probe, "key", "x", 1);
    }
    assert_false(asked->is_done);
    must_be_unreachable(await_change(asked), "n4:4500", "within 1000 ms");
    uint64_t took_us = sim_now_us(cluster->sim) - begin_us;
    assert_true(took_us >= SECOND_US && took_us < 2 * SECOND_US);
    /* Within the request's own time. */
    begin_us = sim_now_us(cluster->sim);
    asked = begin_adding(adding(fourth));
    asked->change.deadline_us = env_clock_us(leader->env) + 4ull * HALFWAY_US;
    must_be_unreachable(await_change(asked), "n4:4500", "within ");
    assert_true(sim_now_us(cluster->sim) - begin_us < 4ull * HALFWAY_US);
    /* What raft refuses isn't tried at all. */
    struct raft_change add = adding(fourth);
    add.name = "n1";
    begin_us = sim_now_us(cluster->sim);
    must_refuse(change_at(leader, add), RAFT_REFUSAL_DUPLICATE_NAME);
    assert_true(sim_now_us(cluster->sim) - begin_us < HALFWAY_US);
}

/* Its machine takes the connection, and nobody greets. */
static void test_h62_node_that_stands_still_is_refused_until_it_moves(void **state) {
    (void)state;
    sim_node_pause(fourth->sim_node);
    must_be_unreachable(change_at(leader_of(cluster), adding(fourth)), "n4:4500", "within 1000 ms");
    sim_node_resume(fourth->sim_node);
    pass(cluster, SETTLE_US);
    must(change_at(leader_of(cluster), adding(fourth)));
}

static void test_node_leader_that_steps_down_meanwhile_proposes_nothing(void **state) {
    (void)state;
    cut_off(fourth);
    struct asked_change *asked = begin_adding(adding(fourth));
    uint64_t begin_us = sim_now_us(cluster->sim);
    pass(cluster, HALFWAY_US);
    must(transfer(cluster, RAFT_NO_NODE));
    struct consensus_change change = await_change(asked);
    assert_int_equal(change.status, STATUS_NOT_LEADER);
    assert_false(change.unknown);
    assert_true(sim_now_us(cluster->sim) - begin_us < SECOND_US); /* not at the end of its time */
    pass(cluster, SETTLE_US);
    assert_int_equal(member_count(), 3);
    assert_int_equal(replica__consensus(leader)->peers->probe_count, 0);
}

static void test_node_that_stops_meanwhile_answers_and_ends(void **state) {
    (void)state;
    cut_off(fourth);
    struct asked_change *asked = begin_adding(adding(fourth));
    pass(cluster, HALFWAY_US);
    assert_false(asked->is_done);
    uint64_t lives = leader->lives;
    assert_true(replica__stop(leader));
    struct consensus_change change = await_change(asked);
    assert_int_equal(change.status, STATUS_UNAVAILABLE);
    assert_false(change.unknown);
    pass(cluster, SETTLE_US);
    assert_true(leader->node == NULL || leader->lives > lives); /* it ended, and may be back */
}

static void test_node_more_changes_than_may_be_tried_are_busy(void **state) {
    (void)state;
    struct asked_change *asked[PEER_PROBES_MAX];
    cut_off(fourth);
    for (size_t i = 0; i < PEER_PROBES_MAX; i++) {
        asked[i] = begin_adding(adding(fourth));
    }
    pass(cluster, HALFWAY_US);
    assert_int_equal(change_at(leader, adding(fourth)).status, STATUS_BUSY);
    for (size_t i = 0; i < PEER_PROBES_MAX; i++) {
        must_be_unreachable(await_change(asked[i]), "n4:4500", "within 1000 ms");
    }
    pass(cluster, HALFWAY_US);
    must(change_at(leader, adding(fifth)));
}

/* One that is there and one that isn't: none of them comes in. */
static void test_node_change_of_many_parts_tries_all_that_are_added(void **state) {
    (void)state;
    replica__crash(fifth, SIM_CRASH_PROCESS);
    struct asked_change *asked = prepare(leader);
    asked->change.changes[0] =
        (struct raft_change){.type = RAFT_CHANGE_PRIORITY, .id = leader->config.id, .priority = 3};
    asked->change.changes[1] = adding(fourth);
    asked->change.changes[2] = adding(fifth);
    asked->change.change_count = 3;
    begin_change(asked);
    must_be_unreachable(await_change(asked), "n5:4500", "refused");
    assert_int_equal(member_count(), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_h62_node_that_does_not_run_is_refused_until_it_does),
        TEST(test_node_that_is_added_nevertheless_may_come_later),
        TEST(test_h62_node_other_than_named_is_refused),
        TEST(test_node_that_does_not_know_the_leader_is_refused),
        TEST(test_h62_node_that_never_answers_is_refused_after_a_second_and_writes_go_on),
        TEST(test_h62_node_that_stands_still_is_refused_until_it_moves),
        TEST(test_node_leader_that_steps_down_meanwhile_proposes_nothing),
        TEST(test_node_that_stops_meanwhile_answers_and_ends),
        TEST(test_node_more_changes_than_may_be_tried_are_busy),
        TEST(test_node_change_of_many_parts_tries_all_that_are_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
