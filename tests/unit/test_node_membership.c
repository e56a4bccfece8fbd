/*
 * Whole nodes in the simulator, whose membership changes. Breaks when: a node that no configuration file names can't
 * join, isn't known after a restart, can't lead, or clients aren't sent to it; a learner counts (hazard 7); a change
 * is taken that raft refuses (hazard 8), or refused without a reason; a configuration that never was committed stays in
 * use (hazard 9); a leader that removes itself stops too early (hazard 10), goes on leading, or campaigns later; a
 * removed node isn't told, or not by those who were started since, or its id is used again; a change or a transfer is
 * never answered, or with another outcome than the log's; a follower doesn't answer linearizable reads.
 */
#include "tests/unit/member_probe.h"

#include "raft/raft_internal.h"

enum { SEED = 2 };

static void configure_nothing(struct config *config) { (void)config; }

/* Three founders; the others wait to be added. */
static struct probe *start(uint32_t count) {
    return probe_start(cluster_new_growing(SEED, count, 3), configure_nothing);
}

/* Puts go on while it catches up and becomes a voter. */
static void add_voter(struct probe *probe, uint32_t number) {
    struct cluster *cluster = probe->cluster;
    struct replica *replica = &cluster->replicas[number];
    must(change_at(leader_of(cluster), adding(replica)));
    struct consensus_status status = ask_status(leader_of(cluster));
    assert_int_equal(member_of(&status, number + 1)->role, RAFT_LEARNER);
    assert_string_equal(member_of(&status, number + 1)->name, replica->config.name);
    assert_string_equal(member_of(&status, number + 1)->client_address, replica->config.client_listen);
    (void)put(probe, "while", "catching-up", 20);
    pass(cluster, SETTLE_US);
    must(change_one(cluster, RAFT_CHANGE_PROMOTE, number + 1));
    status = ask_status(leader_of(cluster));
    assert_int_equal(member_of(&status, number + 1)->role, RAFT_VOTER);
    assert_true(status.config_is_committed);
    assert_false(status.config_is_joint);
}

/* ---- Reads ---------------------------------------------------------------------------------------------------------
 */

struct asked_read {
    struct consensus_read read;
    bool is_done;
};

static void read_done(struct consensus_read *read) { CONTAINER_OF(read, struct asked_read, read)->is_done = true; }

static enum status read_at(struct replica *replica) {
    struct asked_read asked = {.read = {.loop = replica->loop, .done = read_done}};
    asked.read.deadline_us = env_clock_us(replica->env) + 1000 * 1000;
    consensus_read(replica__consensus(replica), &asked.read); /* nothing else runs between two steps */
    while (!asked.is_done) {
        step(replica->cluster);
    }
    return asked.read.status;
}

static void test_node_follower_answers_linearizable_reads(void **state) {
    (void)state;
    struct probe *probe = start(4);
    struct cluster *cluster = probe->cluster;
    (void)put(probe, "key", "x", 1);
    uint64_t revision = probe->result.revision;
    struct replica *follower = &cluster->replicas[(leader_of(cluster)->number + 1) % 3];
    assert_int_equal(read_at(follower), STATUS_OK);
    assert_true(storage_applied_index(replica__consensus(follower)->storage) >= revision);
    /* Cut off from the leader it can't know, and says nothing rather than something old. */
    isolate(cluster, follower, false);
    (void)put(probe, "key", "y", 1);
    assert_int_not_equal(read_at(follower), STATUS_OK);
    isolate(cluster, follower, true);
    pass(cluster, SETTLE_US);
    assert_int_equal(read_at(follower), STATUS_OK);
    assert_true(storage_applied_index(replica__consensus(follower)->storage) >= probe->result.revision);
    end(probe);
}

/* ---- Growing and shrinking -----------------------------------------------------------------------------------------
 */

static void test_node_that_joins_is_known_everywhere_and_may_lead(void **state) {
    (void)state;
    struct probe *probe = start(4);
    struct cluster *cluster = probe->cluster;
    struct replica *fourth = &cluster->replicas[3];
    (void)put(probe, "key", "before", 6);
    struct consensus_status status = ask_status(fourth);
    assert_int_equal(status.member_count, 0);
    assert_int_equal(status.elections_started, 0); /* it never campaigns by itself */
    assert_non_null(strstr(status.problem, "waits to be added"));
    add_voter(probe, 3);
    pass(cluster, SETTLE_US);
    status = ask_status(fourth);
    assert_string_equal(status.problem, "");
    assert_int_equal(status.member_count, 4);
    assert_int_equal(status.applied_index, ask_status(leader_of(cluster)).applied_index);
    struct consensus_change handed = transfer(cluster, 4);
    must(handed);
    assert_int_equal(handed.leader, 4);
    assert_ptr_equal(leader_of(cluster), fourth);
    (void)put(probe, "key", "after", 5); /* the client is sent to a node that the others' files don't name */
    pass(cluster, SETTLE_US);
    struct directory_entry entry;
    for (uint32_t i = 0; i < 4; i++) {
        const struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
        assert_int_equal(consensus_leader(consensus), 4);
        assert_true(directory_look_up(consensus_directory(consensus), &cluster->replicas[i].config, 4, &entry));
        assert_string_equal(entry.client_address, fourth->config.client_listen);
    }
    must_refuse(transfer(cluster, 4), RAFT_REFUSAL_IS_LEADER);
    must_refuse(transfer(cluster, 9), RAFT_REFUSAL_UNKNOWN_NODE);
    end(probe);
}

/* Files still name its certificate with the id that it had. */
static void test_node_that_returns_under_a_new_id_may_keep_its_certificate(void **state) {
    (void)state;
    struct probe *probe = start(4);
    struct cluster *cluster = probe->cluster;
    for (uint32_t i = 0; i < 3; i++) {
        struct config *config = &cluster->replicas[i].config;
        replica__crash(&cluster->replicas[i], SIM_CRASH_PROCESS);
        struct config_member *old = &config->members[config->member_count++];
        *old = (struct config_member){.id = 9, .name = "old", .peer_address = "old:1", .client_address = "old:2"};
        memcpy(old->thumbprint, adding(&cluster->replicas[3]).thumbprint, sizeof old->thumbprint);
        replica__schedule_restart(&cluster->replicas[i], 1000);
    }
    pass(cluster, 10 * 1000);
    await_leader(cluster);
    pass(cluster, SETTLE_US);
    assert_int_equal(ask_status(leader_of(cluster)).member_count, 3); /* no file makes a member */
    must(change_at(leader_of(cluster), adding(&cluster->replicas[3])));
    pass(cluster, SETTLE_US);
    must(change_one(cluster, RAFT_CHANGE_PROMOTE, 4));
    end(probe);
}

/* `join` is turned round: a data directory that has a membership doesn't listen to it. */
static void restart_all(struct probe *probe) {
    struct cluster *cluster = probe->cluster;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct replica *replica = &cluster->replicas[i];
        replica__crash(replica, SIM_CRASH_POWER);
        replica->config.join = !replica->config.join;
        replica__schedule_restart(replica, 1000);
    }
    pass(cluster, 10 * 1000);
    await_leader(cluster);
    /* The client sees that its connections are gone, one by one, and can't know what became of these. */
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        client_request_init(&probe->request, CLIENT_PUT, probe_done);
        probe->request.key = slice_of_string("nudge");
        (void)run(probe);
    }
    (void)put(probe, "key", "y", 1);
    pass(cluster, SETTLE_US);
}

/* After a loss of power the log brings the membership back; after flushes the manifest does, and what is kept after
 * such a start is right again. */
static void test_node_membership_survives_restarts(void **state) {
    (void)state;
    for (uint32_t flushes = 0; flushes < 2; flushes++) {
        struct probe *probe = start(5);
        struct cluster *cluster = probe->cluster;
        add_voter(probe, 3);
        add_voter(probe, 4);
        must(change_one(cluster, RAFT_CHANGE_REMOVE, leader_of(cluster)->config.id == 1 ? 2 : 1));
        if (flushes > 0) {
            write_until_flushed(probe);
        }
        pass(cluster, SETTLE_US);
        uint64_t config_index = ask_status(leader_of(cluster)).config_index;
        assert_true(config_index > 0);
        for (uint32_t round = 0; round < 3; round++) {
            restart_all(probe);
            struct consensus_status status = ask_status(leader_of(cluster));
            assert_int_equal(status.config_index, config_index);
            assert_int_equal(status.member_count, 4);
            for (uint32_t i = 2; i < 5; i++) {
                const struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
                assert_int_equal(ask_status(&cluster->replicas[i]).config_index, config_index);
                assert_int_equal(consensus->members.applied.index, config_index);
                assert_int_equal(ask_status(&cluster->replicas[i]).applied_index, status.applied_index);
            }
            if (round > 0) {
                write_until_flushed(probe);
                write_until_flushed(probe); /* and the log is trimmed */
            }
        }
        end(probe);
    }
}

static void test_h10_leader_that_removes_itself_leads_until_then_and_is_silent_after(void **state) {
    (void)state;
    struct probe *probe = start(4);
    struct cluster *cluster = probe->cluster;
    struct replica *removed = leader_of(cluster);
    (void)put(probe, "key", "x", 1);
    must(change_one(cluster, RAFT_CHANGE_REMOVE, removed->config.id));
    pass(cluster, SETTLE_US);
    assert_ptr_not_equal(leader_of(cluster), removed);
    (void)put(probe, "key", "y", 1);
    struct consensus_status status = ask_status(removed);
    assert_non_null(strstr(status.problem, "not a member of the cluster"));
    uint64_t elections = status.elections_started;
    uint64_t term = ask_status(leader_of(cluster)).term;
    pass(cluster, LONG_US);
    assert_int_equal(ask_status(removed).elections_started, elections);
    assert_int_equal(ask_status(leader_of(cluster)).term, term);
    status = ask_status(leader_of(cluster));
    assert_int_equal(status.member_count, 2);
    assert_null(member_of(&status, removed->config.id));
    end(probe);
}

/* A follower that is removed never gets the entry that says so; those who have it tell it. */
static void test_node_follower_that_is_removed_is_told_and_does_not_campaign(void **state) {
    (void)state;
    struct probe *probe = start(4);
    struct cluster *cluster = probe->cluster;
    struct replica *removed = &cluster->replicas[(leader_of(cluster)->number + 1) % 3];
    must(change_one(cluster, RAFT_CHANGE_REMOVE, removed->config.id));
    pass(cluster, SETTLE_US);
    assert_non_null(strstr(ask_status(removed).problem, "removed from the cluster"));
    assert_int_equal(read_at(removed), STATUS_UNAVAILABLE); /* at once, for nobody would answer it */
    uint64_t elections = ask_status(removed).elections_started;
    uint64_t term = ask_status(leader_of(cluster)).term;
    pass(cluster, LONG_US);
    assert_int_equal(ask_status(removed).elections_started, elections);
    assert_int_equal(ask_status(leader_of(cluster)).term, term);
    for (uint32_t i = 0; i < 3; i++) {
        if (&cluster->replicas[i] != removed) {
            assert_false(peers_is_ready(replica__consensus(&cluster->replicas[i])->peers, removed->config.id));
        }
    }
    (void)put(probe, "key", "y", 1);
    end(probe);
}

/* ---- What must not be ----------------------------------------------------------------------------------------------
 */

static void test_h07_learner_does_not_help_to_commit(void **state) {
    (void)state;
    struct probe *probe = start(5);
    struct cluster *cluster = probe->cluster;
    must(change_at(leader_of(cluster), adding(&cluster->replicas[3])));
    must(change_at(leader_of(cluster), adding(&cluster->replicas[4])));
    pass(cluster, SETTLE_US);
    struct replica *leader = leader_of(cluster);
    for (uint32_t i = 0; i < 3; i++) {
        if (&cluster->replicas[i] != leader) {
            sim_partition(leader->sim_node, cluster->replicas[i].sim_node);
        }
    }
    uint64_t commit_index = ask_status(leader).commit_index;
    struct asked_change *asked = prepare(leader);
    asked->change.changes[0] = (struct raft_change){.type = RAFT_CHANGE_PRIORITY, .id = 4, .priority = 1};
    asked->change.change_count = 1;
    begin_change(asked);
    pass(cluster, 60 * 1000); /* less than an election */
    assert_int_equal(raft_commit_index(replica__consensus(leader)->raft), commit_index);
    sim_heal_all(cluster->sim);
    (void)await_change(asked);
    end(probe);
}

static void test_h08_changes_that_raft_refuses_come_back_with_the_reason(void **state) {
    (void)state;
    struct probe *probe = start(4);
    struct cluster *cluster = probe->cluster;
    struct replica *leader = leader_of(cluster);
    struct replica *follower = &cluster->replicas[(leader->number + 1) % 3];
    struct raft_change add = adding(&cluster->replicas[3]);
    assert_int_equal(change_at(follower, add).status, STATUS_NOT_LEADER);
    must_refuse(change_one(cluster, RAFT_CHANGE_REMOVE, 9), RAFT_REFUSAL_UNKNOWN_NODE);
    must_refuse(change_one(cluster, RAFT_CHANGE_PROMOTE, 1), RAFT_REFUSAL_NOT_A_LEARNER);
    add.name = "n1";
    must_refuse(change_at(leader, add), RAFT_REFUSAL_DUPLICATE_NAME);
    add = adding(&cluster->replicas[3]);
    add.address = "n2:4500";
    must_refuse(change_at(leader, add), RAFT_REFUSAL_DUPLICATE_ADDRESS);
    add = adding(&cluster->replicas[3]);
    add.thumbprint = adding(&cluster->replicas[1]).thumbprint;
    must_refuse(change_at(leader, add), RAFT_REFUSAL_DUPLICATE_CERTIFICATE);
    replica__crash(&cluster->replicas[3], SIM_CRASH_PROCESS);
    must(change_untried(leader, adding(&cluster->replicas[3])));
    must_refuse(change_one(cluster, RAFT_CHANGE_PROMOTE, 4), RAFT_REFUSAL_LEARNER_LAGS);
    replica__crash(follower, SIM_CRASH_PROCESS);
    pass(cluster, SETTLE_US);
    uint64_t other = 6 - leader->config.id - follower->config.id;
    must_refuse(change_one(cluster, RAFT_CHANGE_REMOVE, other), RAFT_REFUSAL_WOULD_LOSE_QUORUM);
    (void)put(probe, "key", "x", 1);
    end(probe);
}

static void test_h09_configuration_that_was_not_committed_is_rolled_back(void **state) {
    (void)state;
    struct probe *probe = start(4);
    struct cluster *cluster = probe->cluster;
    struct replica *old = leader_of(cluster);
    isolate(cluster, old, false);
    sim_link_set(old->sim_node, cluster->replicas[3].sim_node, true); /* the newcomer hears of it */
    sim_link_set(cluster->replicas[3].sim_node, old->sim_node, true);
    struct asked_change *asked = prepare(old);
    asked->change.changes[0] = adding(&cluster->replicas[3]);
    asked->change.change_count = 1;
    begin_change(asked);
    pass(cluster, 50 * 1000);
    assert_int_equal(raft_membership(replica__consensus(old)->raft)->member_count, 4);
    pass(cluster, SETTLE_US); /* it steps down; the others elect, and write where the configuration is here */
    (void)put(probe, "key", "x", 1);
    sim_heal_all(cluster->sim);
    struct consensus_change change = await_change(asked);
    assert_int_equal(change.status, STATUS_NOT_LEADER);
    assert_false(change.unknown);
    assert_int_equal(change.index, 0);
    pass(cluster, SETTLE_US);
    struct directory_entry entry;
    assert_int_equal(raft_membership(replica__consensus(old)->raft)->member_count, 3);
    assert_false(directory_find(consensus_directory(replica__consensus(old)), 4, &entry));
    assert_int_equal(ask_status(leader_of(cluster)).member_count, 3);
    end(probe);
}

static void test_node_change_without_a_quorum_is_unknown_at_its_deadline(void **state) {
    (void)state;
    struct probe *probe = start(4);
    struct cluster *cluster = probe->cluster;
    struct replica *leader = leader_of(cluster);
    for (uint32_t i = 0; i < 3; i++) {
        if (&cluster->replicas[i] != leader) {
            replica__crash(&cluster->replicas[i], SIM_CRASH_PROCESS);
        }
    }
    struct consensus_change change = change_at(leader, adding(&cluster->replicas[3]));
    assert_int_equal(change.status, STATUS_TIMEOUT);
    assert_true(change.unknown);
    end(probe);
}

/* What was removed is in the membership, and outlives whoever saw it go. */
static void test_node_that_was_removed_is_told_by_nodes_that_started_later(void **state) {
    (void)state;
    struct probe *probe = start(5);
    struct cluster *cluster = probe->cluster;
    add_voter(probe, 3);
    struct replica *removed = &cluster->replicas[(leader_of(cluster)->number + 1) % 3];
    replica__crash(removed, SIM_CRASH_PROCESS);
    must(change_one(cluster, RAFT_CHANGE_REMOVE, removed->config.id));
    add_voter(probe, 4);
    write_until_flushed(probe);
    restart_all(probe); /* it starts, too, and has never heard of its removal */
    pass(cluster, SETTLE_US);
    struct consensus_status status = ask_status(removed);
    assert_int_equal(status.member_count, 4);
    assert_non_null(strstr(status.problem, "removed from the cluster"));
    uint64_t elections = status.elections_started;
    pass(cluster, LONG_US);
    assert_int_equal(ask_status(removed).elections_started, elections);
    /* Nor does its id come back. */
    must_refuse(change_at(leader_of(cluster), adding(removed)), RAFT_REFUSAL_RETIRED_ID);
    end(probe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_node_follower_answers_linearizable_reads),
        cmocka_unit_test(test_node_that_joins_is_known_everywhere_and_may_lead),
        cmocka_unit_test(test_node_that_returns_under_a_new_id_may_keep_its_certificate),
        cmocka_unit_test(test_node_membership_survives_restarts),
        cmocka_unit_test(test_h10_leader_that_removes_itself_leads_until_then_and_is_silent_after),
        cmocka_unit_test(test_node_follower_that_is_removed_is_told_and_does_not_campaign),
        cmocka_unit_test(test_node_that_was_removed_is_told_by_nodes_that_started_later),
        cmocka_unit_test(test_h07_learner_does_not_help_to_commit),
        cmocka_unit_test(test_h08_changes_that_raft_refuses_come_back_with_the_reason),
        cmocka_unit_test(test_h09_configuration_that_was_not_committed_is_rolled_back),
        cmocka_unit_test(test_node_change_without_a_quorum_is_unknown_at_its_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
