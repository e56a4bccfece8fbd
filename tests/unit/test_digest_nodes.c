/*
 * Digests between whole nodes in the simulator. What one of them applied is falsified by hand. Breaks when: a node that
 * applied something else isn't noticed, or one that didn't is suspected; a leader that differs from a majority goes on
 * leading; somebody is suspected although no majority agrees; nothing differs and there is an alarm all the same, after
 * restarts too; the simulator's own check is blind.
 */
#include "tests/unit/nodes_fixture.h"

enum { TEXT_BYTES = 256 };

/* Their lines in the logs would be counted, too. */
static void without_scans(struct config *config) { config->scan_digest_interval_s = 0; }

static int set_up(void **state) {
    (void)state;
    nodes_start(without_scans);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    cluster_free(cluster);
    return 0;
}

/* From now on this node's chain is another one, as if its last entry had done something else to its memtable. */
static void falsify(uint32_t number, uint64_t by) {
    struct digest_history *history = consensus_of(number)->storage->digests;
    history->at_newest.low ^= by;
    history->chain[history->newest % DIGESTS_KEPT] = history->at_newest;
}

/* ---- What is said ----------------------------------------------------------------------------------------------- */

static struct consensus_status status_of(uint32_t number) {
    struct consensus_status status = {.term = 0};
    digest__fill_status(consensus_of(number), &status);
    if (!digest__problem(consensus_of(number), status.problem, sizeof status.problem)) {
        status.problem[0] = '\0';
    }
    return status;
}

static void assert_all_agree(void) {
    uint64_t applied_index = storage_applied_index(consensus_of(0)->storage);
    struct digest digest;
    uint8_t want[DIGEST_BYTES];
    assert_true(storage_digest(consensus_of(0)->storage, applied_index, &digest));
    digest_encode(&digest, want);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct consensus_status status = status_of(i);
        assert_int_equal(storage_applied_index(consensus_of(i)->storage), applied_index);
        assert_int_equal(status.digest_index, applied_index);
        assert_memory_equal(status.digest, want, sizeof want);
        assert_int_equal(status.digest_mismatches, 0);
        assert_string_equal(status.problem, "");
    }
}

static void test_digest_nodes_that_did_the_same_agree(void **state) {
    (void)state;
    with_checker = true;
    put_some(30);
    pass(SETTLE_US);
    assert_all_agree();
    /* Whoever comes back, from its tables and its log, has the same digest as those that never were away. */
    uint32_t away = (leader() + 1) % cluster->replica_count;
    storage_flush(consensus_of(away)->storage);
    put_some(5);
    replica__crash(&cluster->replicas[away], SIM_CRASH_POWER);
    put_some(10);
    replica__schedule_restart(&cluster->replicas[away], 1000);
    pass(SETTLE_US);
    assert_true(storage_frontier(consensus_of(away)->storage)->index > 0);
    assert_all_agree();
    replica__crash(&cluster->replicas[leader()], SIM_CRASH_POWER);
    put_some(10);
    replica__schedule_restart(&cluster->replicas[0], 1000);
    replica__schedule_restart(&cluster->replicas[1], 1000);
    replica__schedule_restart(&cluster->replicas[2], 1000);
    pass(SETTLE_US);
    put_some(1);
    pass(SETTLE_US);
    assert_false(cluster__has_failed(cluster));
    const struct consensus_status status = status_of(leader());
    assert_int_equal(status.digest_index, storage_applied_index(consensus_of(leader())->storage));
    assert_int_equal(status.digest_mismatches, 0);
}

static void test_digest_follower_that_differs_is_suspected_and_named(void **state) {
    (void)state;
    put_some(5);
    uint32_t first = leader();
    uint32_t odd = (first + 1) % cluster->replica_count;
    uint32_t other = (first + 2) % cluster->replica_count;
    falsify(odd, 1);
    put_some(1);
    pass(SETTLE_US);
    assert_int_equal(leader(), first); /* it has done nothing wrong */
    struct consensus_status status = status_of(first);
    char words[TEXT_BYTES];
    (void)snprintf(words, sizeof words, "%s applied other changes than the majority",
                   cluster->replicas[odd].config.name);
    assert_non_null(strstr(status.problem, words));
    assert_non_null(strstr(status.problem, "'member rebuild' it")); /* what to do is not cut off */
    assert_true(status.digest_mismatches > 0);
    (void)snprintf(words, sizeof words, "suspected=%s ", cluster->replicas[odd].config.name);
    assert_true(log_has(first, "event=digest.mismatch"));
    assert_true(log_has(first, words));
    /* With what each of them has, so that one can tell from the log alone. */
    struct digest right;
    uint8_t bytes[DIGEST_BYTES];
    assert_true(storage_digest(consensus_of(first)->storage, consensus_of(first)->digest.round_index, &right));
    digest_encode(&right, bytes);
    int len = snprintf(words, sizeof words, "%s=", cluster->replicas[first].config.name);
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        len += snprintf(words + len, sizeof words - (size_t)len, "%02x", bytes[i]);
    }
    assert_true(log_has(first, words));
    assert_true(log_has(odd, "event=digest.differs"));
    assert_non_null(strstr(status_of(odd).problem, "differs from the leader's"));
    assert_string_equal(status_of(other).problem, "");
    /* The alarm is given once, not in each round. */
    uint64_t lines = cluster->replicas[first].log_count;
    put_some(3);
    pass(SETTLE_US);
    assert_true(status_of(first).digest_mismatches > status.digest_mismatches);
    assert_int_equal(cluster->replicas[first].log_count, lines);
    /* Right again (as after a rebuild): the alarm ends. */
    for (uint32_t i = 0; i < DIGESTS_KEPT; i++) {
        consensus_of(odd)->storage->digests->chain[i] = consensus_of(first)->storage->digests->chain[i];
    }
    consensus_of(odd)->storage->digests->at_newest = consensus_of(first)->storage->digests->at_newest;
    put_some(1);
    pass(SETTLE_US);
    assert_string_equal(status_of(first).problem, "");
    assert_string_equal(status_of(odd).problem, "");
    assert_true(log_has(first, "event=digest.agrees"));
}

static void test_digest_leader_that_differs_hands_over_and_is_suspected(void **state) {
    (void)state;
    put_some(5);
    pass(SETTLE_US);
    uint32_t odd = leader();
    falsify(odd, 1);
    put_some(1);
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    while (leader() == odd && sim_now_us(cluster->sim) < end_us) {
        step();
    }
    assert_int_not_equal(leader(), odd);
    assert_true(log_has(odd, "event=digest.hand_over"));
    put_some(1);
    pass(SETTLE_US);
    char words[TEXT_BYTES];
    (void)snprintf(words, sizeof words, "suspected=%s ", cluster->replicas[odd].config.name);
    assert_int_not_equal(leader(), odd);
    assert_true(log_has(leader(), words));
    assert_non_null(strstr(status_of(leader()).problem, "than the majority"));
}

static void fence(uint32_t number) {
    struct raft_event event = {.type = RAFT_EVENT_FENCE, .u.fence = RAFT_FENCE_CANT_WRITE};
    assert_int_equal(consensus__step(consensus_of(number), &event), STATUS_OK);
}

/* Nobody takes the lead from a leader that differs: it tries again, but writes, which wait for each attempt, go on. */
static void test_digest_leader_that_nobody_relieves_tries_now_and_then(void **state) {
    (void)state;
    enum { WATCHED_S = 20 };
    put_some(5);
    pass(SETTLE_US);
    uint32_t odd = leader();
    fence((odd + 1) % cluster->replica_count);
    fence((odd + 2) % cluster->replica_count);
    falsify(odd, 1);
    put_some(1);
    uint32_t attempts = 0;
    bool was_on = false;
    uint64_t end_us = sim_now_us(cluster->sim) + WATCHED_S * UINT64_C(1000000);
    while (sim_now_us(cluster->sim) < end_us) {
        struct raft_info info;
        step();
        raft_get_info(consensus_of(odd)->raft, &info);
        bool is_on = info.transfer_target != RAFT_NO_NODE;
        attempts += is_on && !was_on;
        was_on = is_on;
    }
    assert_int_equal(leader(), odd);
    assert_in_range(attempts, 2, WATCHED_S / 2 + 1);
    put_some(3);
}

static void test_digest_without_a_majority_nobody_is_suspected(void **state) {
    (void)state;
    put_some(5);
    pass(SETTLE_US);
    uint32_t first = leader();
    falsify((first + 1) % cluster->replica_count, 1);
    falsify((first + 2) % cluster->replica_count, 2);
    put_some(1);
    pass(SETTLE_US);
    assert_int_equal(leader(), first);
    assert_true(log_has(first, "suspected=none "));
    assert_non_null(strstr(status_of(first).problem, "no majority agrees"));
    assert_false(log_has(first, "event=digest.hand_over"));
}

static void test_digest_two_of_three_are_enough_to_tell(void **state) {
    (void)state;
    put_some(5);
    pass(SETTLE_US);
    uint32_t first = leader();
    uint32_t odd = (first + 1) % cluster->replica_count;
    replica__crash(&cluster->replicas[(first + 2) % cluster->replica_count], SIM_CRASH_PROCESS);
    falsify(odd, 1);
    put_some(1);
    pass(SETTLE_US);
    /* One against one: who is right can't be said. */
    assert_non_null(strstr(status_of(leader()).problem, "no majority agrees"));
    replica__schedule_restart(&cluster->replicas[(first + 2) % cluster->replica_count], 1000);
    pass(SETTLE_US);
    put_some(1);
    pass(SETTLE_US);
    char words[TEXT_BYTES];
    (void)snprintf(words, sizeof words, "suspected=%s ", cluster->replicas[odd].config.name);
    assert_true(log_has(leader(), words));
}

static void test_digest_simulator_sees_what_differs(void **state) {
    (void)state;
    with_checker = true;
    put_some(5);
    pass(SETTLE_US);
    assert_false(cluster__has_failed(cluster));
    falsify((leader() + 1) % cluster->replica_count, 1);
    put_some(1);
    pass(SETTLE_US);
    assert_true(cluster__has_failed(cluster));
    assert_non_null(strstr(cluster->failure, "digest"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_digest_nodes_that_did_the_same_agree),
        TEST(test_digest_follower_that_differs_is_suspected_and_named),
        TEST(test_digest_leader_that_differs_hands_over_and_is_suspected),
        TEST(test_digest_leader_that_nobody_relieves_tries_now_and_then),
        TEST(test_digest_without_a_majority_nobody_is_suspected),
        TEST(test_digest_two_of_three_are_enough_to_tell),
        TEST(test_digest_simulator_sees_what_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
