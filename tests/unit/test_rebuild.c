/*
 * Whole nodes in the simulator fill their stores again while they run. Would break these: a damaged table, or one that
 * can't be read, that ends a node, or stays; a leader that goes on leading with one although others could; a node that
 * asks and campaigns, or, when nobody else is there, never leads again; a mismatch that is healed without the option,
 * or not with it; a log that loses what the snapshot needs behind it; a node that does so over and over; an order that
 * isn't carried out, is carried out twice, or costs the quorum of whole stores.
 */
#include "tests/unit/content.h"
#include "tests/unit/nodes_fixture.h"

enum { SLOW_RATE = 20 * 1000, MINUTE_US = 60 * 1000 * 1000 };

static void configure_quiet(struct config *config) { config->scan_digest_interval_s = 0; }

static int tear_down(void **state) {
    (void)state;
    cluster_free(cluster);
    return 0;
}

static const struct consensus_rebuild *rebuild_of(uint32_t number) { return &consensus_of(number)->rebuild; }

static uint32_t a_follower(void) { return (leader() + 1) % cluster->replica_count; }

/* Tables, and entries behind them. */
static void write_some(void) {
    put_some(30);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        storage_flush(consensus_of(i)->storage);
    }
    pass(SETTLE_US);
    put_some(10);
}

static void await_state(uint32_t number, enum rebuild_state state) {
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    while (rebuild_of(number)->state != state && sim_now_us(cluster->sim) < end_us) {
        step();
    }
    assert_int_equal(rebuild_of(number)->state, state);
}

static void await_completed(uint32_t number, uint64_t count) {
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    while (rebuild_of(number)->completed < count && sim_now_us(cluster->sim) < end_us) {
        step();
    }
    assert_int_equal(rebuild_of(number)->completed, count);
    assert_int_equal(rebuild_of(number)->state, REBUILD_NONE);
}

/* The newest table that this node has, as damaged. */
static struct storage_damage damage_of(uint32_t number) {
    const struct version *version = consensus_of(number)->storage->version;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        if (version->counts[level] > 0) {
            return (struct storage_damage){.file = version->tables[level][0]->meta.number, .offset = 128};
        }
    }
    fail_msg("there is no table");
    return (struct storage_damage){.file = 0};
}

static struct consensus_status status_of(uint32_t number) {
    struct consensus_status status = {.term = 0};
    rebuild__fill_status(consensus_of(number), &status);
    return status;
}

static void assert_all_alike(void) {
    pass(SETTLE_US);
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    while (!checker__converged(cluster) && sim_now_us(cluster->sim) < end_us) {
        step();
    }
    assert_true(checker__converged(cluster));
    uint64_t content = content_of(consensus_of(0)->storage);
    for (uint32_t i = 1; i < cluster->replica_count; i++) {
        assert_true(content_of(consensus_of(i)->storage) == content);
    }
    if (cluster__has_failed(cluster)) {
        cluster_print_failure(cluster);
    }
    assert_false(cluster__has_failed(cluster));
}

/* ---- Damage ------------------------------------------------------------------------------------------------------ */

static void test_rebuild_of_a_rotten_follower_needs_no_restart(void **state) {
    (void)state;
    nodes_start_with(configure_quiet, true);
    with_checker = true;
    write_some();
    uint32_t odd = a_follower();
    struct replica *replica = &cluster->replicas[odd];
    uint32_t first = leader();
    assert_true(rot__store(replica, &cluster->random));
    await_completed(odd, 1);
    assert_int_equal(replica->lives, 1);
    assert_int_equal(leader(), first);
    assert_true(log_has(odd, "event=store.rebuilt"));
    assert_string_equal(status_of(odd).problem, "");
    assert_all_alike();
}

static void test_rebuild_of_a_leader_comes_after_it_handed_the_lead_over(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    with_checker = true;
    write_some();
    uint32_t odd = leader();
    struct storage_damage damage = damage_of(odd);
    rebuild__damaged(consensus_of(odd), &damage);
    await_completed(odd, 1);
    assert_int_not_equal(leader(), odd);
    assert_int_equal(cluster->replicas[odd].lives, 1);
    assert_false(storage_has_file(consensus_of(odd)->storage, damage.file));
    assert_all_alike();
}

/* The disk says no, and says it again: that is no better than a bad checksum. */
static void test_rebuild_of_a_table_that_can_t_be_read_begins_by_itself(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    with_checker = true;
    write_some();
    uint32_t odd = a_follower();
    struct fault_set *faults = sim_node_faults(cluster->replicas[odd].sim_node);
    struct storage_view *view = storage_view_acquire(consensus_of(odd)->storage);
    struct storage_value value;
    struct error error = {0};
    assert_int_equal(fault_arm(faults, "sst.read=error(EIO)", &error), STATUS_OK);
    enum status status = storage_get(view, NULL, slice_of_string("key25"), storage_view_revision(view), &value, &error);
    fault_disarm(faults, FAULT_SST_READ);
    storage_view_release(view);
    assert_int_equal(status, STATUS_IO);
    assert_non_null(strstr(error.message, ".sst"));
    await_completed(odd, 1);
    assert_int_equal(cluster->replicas[odd].lives, 1);
    assert_all_alike();
}

/* What was damaged went by itself, with a compaction, say. */
static void test_rebuild_for_a_file_that_went_is_none(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    write_some();
    uint32_t odd = a_follower();
    const struct storage_damage damage = {.file = UINT64_MAX};
    rebuild__damaged(consensus_of(odd), &damage);
    await_state(odd, REBUILD_NONE);
    pass(SETTLE_US);
    assert_int_equal(rebuild_of(odd)->completed, 0);
}

static void test_rebuild_isn_t_done_again_within_a_minute(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    write_some();
    uint32_t odd = a_follower();
    struct storage_damage damage = damage_of(odd);
    rebuild__damaged(consensus_of(odd), &damage);
    await_completed(odd, 1);
    uint64_t begun_us = sim_now_us(cluster->sim);
    damage = damage_of(odd);
    rebuild__damaged(consensus_of(odd), &damage);
    pass(MINUTE_US / 2);
    assert_int_equal(rebuild_of(odd)->state, REBUILD_WANTED);
    assert_non_null(strstr(status_of(odd).problem, "is to be filled again in "));
    pass(MINUTE_US / 2 + SETTLE_US);
    await_completed(odd, 2);
    assert_true(sim_now_us(cluster->sim) - begun_us >= MINUTE_US);
}

/* ---- Nobody to ask ----------------------------------------------------------------------------------------------- */

static void configure_slow(struct config *config) {
    configure_quiet(config);
    config->snapshot_rate = SLOW_RATE;
    config->follower_log_bytes = 1024 * MIB;
}

static void test_rebuild_that_nobody_answers_lets_the_node_lead_again(void **state) {
    (void)state;
    nodes_start(configure_slow);
    write_some();
    uint32_t odd = a_follower();
    uint32_t other = (odd + 1) % cluster->replica_count == leader() ? (odd + 2) % cluster->replica_count
                                                                    : (odd + 1) % cluster->replica_count;
    uint32_t first = leader();
    struct storage_damage damage = damage_of(odd);
    rebuild__damaged(consensus_of(odd), &damage);
    await_state(odd, REBUILD_ASKING);
    replica__crash(&cluster->replicas[first], SIM_CRASH_PROCESS);
    replica__crash(&cluster->replicas[other], SIM_CRASH_PROCESS);
    uint64_t elections = consensus_of(odd)->elections_started;
    pass(1000 * 1000);
    assert_int_equal(rebuild_of(odd)->state, REBUILD_ASKING);
    assert_int_equal(consensus_of(odd)->elections_started, elections);
    pass(3 * 1000 * 1000);
    assert_int_equal(rebuild_of(odd)->state, REBUILD_WANTED);
    assert_non_null(strstr(status_of(odd).problem, "nobody leads"));
    assert_true(consensus_of(odd)->elections_started > elections);
    /* Somebody who has less than it comes back: it leads, until that one may. */
    replica__schedule_restart(&cluster->replicas[other], 1000);
    replica__schedule_restart(&cluster->replicas[first], 1000);
    pass(SETTLE_US);
    await_completed(odd, 1);
    assert_all_alike();
}

/* It isn't begun over and over, and not given up either. */
static void test_rebuild_that_failed_is_tried_again_after_a_minute(void **state) {
    (void)state;
    nodes_start(configure_slow);
    write_some();
    uint32_t odd = a_follower();
    struct storage_damage damage = damage_of(odd);
    rebuild__damaged(consensus_of(odd), &damage);
    await_state(odd, REBUILD_ASKING);
    uint64_t begun_us = sim_now_us(cluster->sim);
    rebuild__failed(consensus_of(odd), "there is no room for it");
    assert_int_equal(rebuild_of(odd)->state, REBUILD_WANTED);
    assert_int_equal(rebuild_of(odd)->failed, 1);
    assert_true(log_has(odd, "there is no room for it"));
    pass(MINUTE_US - SETTLE_US);
    assert_int_equal(rebuild_of(odd)->state, REBUILD_WANTED);
    assert_int_equal(rebuild_of(odd)->completed, 0);
    await_completed(odd, 1);
    assert_true(sim_now_us(cluster->sim) - begun_us >= MINUTE_US);
    assert_all_alike();
}

/* What stands behind the snapshot is kept while it is on its way, and not longer. */
static void test_rebuild_keeps_the_log_that_it_needs(void **state) {
    (void)state;
    nodes_start(configure_slow);
    write_some();
    uint32_t odd = a_follower();
    struct storage_damage damage = damage_of(odd);
    rebuild__damaged(consensus_of(odd), &damage);
    await_state(odd, REBUILD_ASKING);
    uint64_t asked_index = rebuild_of(odd)->asked_index;
    for (uint32_t round = 0; round < 6 && rebuild_of(odd)->state == REBUILD_ASKING; round++) {
        put_some(200);
        for (uint32_t i = 0; i < cluster->replica_count; i++) {
            storage_flush(consensus_of(i)->storage);
        }
        if (rebuild_of(odd)->state == REBUILD_ASKING) {
            assert_true(wal_first_index(consensus_of(odd)->wal) <= asked_index + 1);
            assert_true(wal_floor_index(consensus_of(odd)->wal) <= asked_index);
        }
    }
    await_completed(odd, 1);
    put_some(200);
    storage_flush(consensus_of(odd)->storage);
    pass(SETTLE_US);
    assert_true(wal_floor_index(consensus_of(odd)->wal) > asked_index);
    assert_all_alike();
}

/* ---- Mismatches and orders --------------------------------------------------------------------------------------- */

/* As in test_digest_nodes. */
static void falsify(uint32_t number) {
    struct digest_history *history = consensus_of(number)->storage->digests;
    history->at_newest.low ^= 1;
    history->chain[history->newest % DIGESTS_KEPT] = history->at_newest;
}

static void configure_mismatch(struct config *config) {
    configure_quiet(config);
    config->rebuild_on_mismatch = true;
}

static void test_rebuild_of_a_node_that_differs_is_done_where_it_is_allowed(void **state) {
    (void)state;
    for (unsigned is_allowed = 0; is_allowed < 2; is_allowed++) {
        nodes_start(is_allowed ? configure_mismatch : configure_quiet);
        write_some();
        uint32_t odd = a_follower();
        uint32_t first = leader();
        falsify(odd);
        put_some(1);
        pass(3 * SETTLE_US);
        assert_int_equal(rebuild_of(odd)->completed, is_allowed);
        put_some(1);
        pass(SETTLE_US);
        char problem[ERROR_MESSAGE_BYTES_MAX];
        assert_int_equal(digest__problem(consensus_of(first), problem, sizeof problem), !is_allowed);
        assert_int_equal(rebuild_of(first)->completed, 0);
        pass(MINUTE_US + SETTLE_US); /* once is enough */
        assert_int_equal(rebuild_of(odd)->completed, is_allowed);
        if (is_allowed == 0) {
            cluster_free(cluster);
        }
    }
}

static void test_rebuild_that_is_ordered_is_done_once(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    with_checker = true;
    write_some();
    uint32_t odd = a_follower();
    struct consensus *first = consensus_of(leader());
    uint64_t id = cluster->replicas[odd].config.id;
    assert_null(rebuild__refusal(first, id));
    rebuild__order(first, id, REBUILD_OPERATOR);
    await_completed(odd, 1);
    pass(3 * SETTLE_US);
    assert_int_equal(rebuild_of(odd)->completed, 1);
    assert_int_equal(rebuild_of(odd)->state, REBUILD_NONE);
    assert_all_alike();
}

/* A node that differs, and doesn't heed that, is found to in each round, and each time it is told. */
static void test_rebuild_that_an_operator_orders_is_not_kept_out_by_a_mismatch(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    write_some();
    uint32_t odd = a_follower();
    struct consensus *first = consensus_of(leader());
    uint64_t id = cluster->replicas[odd].config.id;
    falsify(odd);
    put_some(1);
    pass(SETTLE_US);
    assert_int_equal(rebuild_of(odd)->state, REBUILD_NONE);
    rebuild__order(first, id, REBUILD_MISMATCH);
    rebuild__order(first, id, REBUILD_OPERATOR);
    rebuild__order(first, id, REBUILD_MISMATCH);
    await_completed(odd, 1);
    pass(3 * SETTLE_US);
    assert_int_equal(rebuild_of(odd)->completed, 1);
    assert_all_alike();
}

/* What contradicts the leader's log would end the node when it becomes the store. */
static void test_rebuild_by_what_contradicts_the_log_is_not_wanted(void **state) {
    (void)state;
    nodes_start(configure_slow);
    write_some();
    replica__crash(&cluster->replicas[leader()], SIM_CRASH_PROCESS);
    pass(SETTLE_US);
    put_some(1); /* in a later term than the first */
    uint32_t odd = cluster->replica_count;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        bool is_follower = replica__consensus(&cluster->replicas[i]) != NULL && i != leader();
        odd = is_follower ? i : odd;
    }
    struct consensus *consensus = consensus_of(odd);
    struct storage_damage damage = damage_of(odd);
    rebuild__damaged(consensus, &damage);
    await_state(odd, REBUILD_ASKING);
    const struct raft *raft = consensus->raft;
    uint64_t term = raft_term(raft);
    assert_true(term > 1);
    struct write write = {.message = {.run = write_begin},
                          .consensus = consensus_of(leader()),
                          .proposal = {.loop = cluster->replicas[leader()].loop,
                                       .operations = &(struct batch_operation){BATCH_PUT, slice_of_string("key"),
                                                                               slice_of_string("value")},
                                       .operation_count = 1,
                                       .deadline_us = UINT64_MAX,
                                       .done = write_done}};
    env_post(write.proposal.loop, &write.message);
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    while (raft_last_index(raft) == raft_commit_index(raft) && sim_now_us(cluster->sim) < end_us) {
        step();
    }
    uint64_t index = raft_last_index(raft);
    assert_true(index > raft_commit_index(raft)); /* here, and in the leader's log */
    assert_true(rebuild__wants(consensus, index, term));
    assert_false(rebuild__wants(consensus, index, term - 1));
    while (!write.is_done) {
        step();
    }
}

static void test_rebuild_that_costs_the_quorum_of_whole_stores_is_refused(void **state) {
    (void)state;
    nodes_start(configure_quiet);
    write_some();
    uint32_t first = leader();
    uint32_t one = (first + 1) % cluster->replica_count;
    uint32_t two = (first + 2) % cluster->replica_count;
    struct consensus *consensus = consensus_of(first);
    assert_non_null(strstr(rebuild__refusal(consensus, 77), "no such member"));
    assert_null(rebuild__refusal(consensus, cluster->replicas[first].config.id));
    replica__crash(&cluster->replicas[two], SIM_CRASH_PROCESS);
    pass(SETTLE_US);
    assert_int_equal(leader(), first);
    assert_non_null(strstr(rebuild__refusal(consensus, cluster->replicas[one].config.id), "no quorum"));
    assert_non_null(strstr(rebuild__refusal(consensus, cluster->replicas[first].config.id), "no quorum"));
    assert_non_null(strstr(rebuild__refusal(consensus, cluster->replicas[two].config.id), "can't be reached"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_rebuild_of_a_rotten_follower_needs_no_restart, tear_down),
        cmocka_unit_test_teardown(test_rebuild_of_a_leader_comes_after_it_handed_the_lead_over, tear_down),
        cmocka_unit_test_teardown(test_rebuild_of_a_table_that_can_t_be_read_begins_by_itself, tear_down),
        cmocka_unit_test_teardown(test_rebuild_for_a_file_that_went_is_none, tear_down),
        cmocka_unit_test_teardown(test_rebuild_isn_t_done_again_within_a_minute, tear_down),
        cmocka_unit_test_teardown(test_rebuild_that_nobody_answers_lets_the_node_lead_again, tear_down),
        cmocka_unit_test_teardown(test_rebuild_that_failed_is_tried_again_after_a_minute, tear_down),
        cmocka_unit_test_teardown(test_rebuild_keeps_the_log_that_it_needs, tear_down),
        cmocka_unit_test_teardown(test_rebuild_of_a_node_that_differs_is_done_where_it_is_allowed, tear_down),
        cmocka_unit_test_teardown(test_rebuild_that_is_ordered_is_done_once, tear_down),
        cmocka_unit_test_teardown(test_rebuild_that_an_operator_orders_is_not_kept_out_by_a_mismatch, tear_down),
        cmocka_unit_test_teardown(test_rebuild_by_what_contradicts_the_log_is_not_wanted, tear_down),
        cmocka_unit_test_teardown(test_rebuild_that_costs_the_quorum_of_whole_stores_is_refused, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
