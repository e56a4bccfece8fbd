/*
 * The simulator's checker fires: what it remembers of a healthy cluster is changed, so that what the cluster does next
 * contradicts it. Breaks if a check that no mutant reaches (others fail before it) doesn't look any more. The other way
 * round, tests/sim/mutants has the bugs that the rest of the checks find.
 */
#include "tests/sim/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ENTRIES = 30, STEPS_MAX = 2000 * 1000 };

static void look(struct cluster *cluster) {
    assert_true(sim_step(cluster->sim));
    checker__step(cluster);
}

/* A cluster of three that has committed something, and its leader. */
static struct cluster *start(struct replica **ret_leader) {
    struct cluster *cluster = cluster_new_growing(2, 3, 3);
    workload__start(cluster);
    *ret_leader = NULL;
    for (uint32_t steps = 0; *ret_leader == NULL || cluster->committed_index < ENTRIES; steps++) {
        assert_true(steps < STEPS_MAX && !cluster__has_failed(cluster));
        look(cluster);
        for (uint32_t i = 0; i < cluster->replica_count; i++) {
            *ret_leader = cluster->replicas[i].was_leader ? &cluster->replicas[i] : *ret_leader;
        }
    }
    return cluster;
}

/* A moment later the checker says so. */
static void expect(struct cluster *cluster, const char *words) {
    for (uint32_t steps = 0; !cluster__has_failed(cluster); steps++) {
        assert_true(steps < STEPS_MAX);
        look(cluster);
    }
    if (strstr(cluster->failure, words) == NULL) {
        fail_msg("it says: %s", cluster->failure);
    }
    cluster_free(cluster);
}

static void test_checker_two_leaders_of_one_term(void **state) {
    struct replica *leader;
    (void)state;
    struct cluster *cluster = start(&leader);
    cluster->leaders[leader->term] = (leader->number + 1) % 3 + 1;
    expect(cluster, "has two leaders");
}

static void test_checker_leader_without_durable_votes(void **state) {
    struct replica *leader;
    (void)state;
    struct cluster *cluster = start(&leader);
    cluster->leaders[leader->term] = 0;
    for (uint32_t i = 0; i < 3; i++) {
        /* As if it had voted in no term yet: what it says next isn't news. */
        struct consensus *consensus = replica__consensus(&cluster->replicas[i]);
        cluster->replicas[i].durable_term = 0;
        cluster->replicas[i].durable_vote = 0;
        consensus->newest_synced.term = 0;
        consensus->newest_synced.vote = 0;
    }
    expect(cluster, "no quorum's votes for it are durable");
}

static void test_checker_leader_without_a_committed_entry(void **state) {
    struct replica *leader;
    (void)state;
    struct cluster *cluster = start(&leader);
    cluster->leaders[leader->term] = 0;
    cluster->committed_in[ENTRIES / 2] = leader->term - 1;
    cluster->committed_terms[ENTRIES / 2] = leader->term + 7;
    expect(cluster, "which is committed");
}

static void test_checker_entry_committed_twice(void **state) {
    struct replica *leader;
    (void)state;
    struct cluster *cluster = start(&leader);
    cluster->committed_terms[ENTRIES / 2]++;
    leader->commit_index = 0;
    expect(cluster, "was committed with term");
}

static void test_checker_entry_committed_without_a_quorum(void **state) {
    struct replica *leader;
    (void)state;
    struct cluster *cluster = start(&leader);
    uint64_t index = cluster->committed_index;
    /* Nobody has committed it yet, and the disks of the others are far behind. */
    for (uint32_t i = 0; i < 3; i++) {
        cluster->replicas[i].synced_index = 0;
    }
    memset(&cluster->committed_terms[index], 0, sizeof cluster->committed_terms[0]);
    leader->commit_index = index - 1;
    struct replica *other = &cluster->replicas[(leader->number + 1) % 3];
    struct replica *third = &cluster->replicas[(leader->number + 2) % 3];
    sim_node_crash(other->sim_node, SIM_CRASH_PROCESS);
    sim_node_crash(third->sim_node, SIM_CRASH_PROCESS);
    expect(cluster, "no quorum's disks hold it");
}

static void test_checker_commit_or_term_that_goes_back(void **state) {
    struct replica *leader;
    (void)state;
    struct cluster *cluster = start(&leader);
    leader->commit_index = UINT64_MAX / 2;
    expect(cluster, "commit went from");
    cluster = start(&leader);
    leader->term = UINT64_MAX / 2;
    expect(cluster, "the term went back");
}

static void test_checker_another_digest(void **state) {
    struct replica *leader;
    (void)state;
    struct cluster *cluster = start(&leader);
    uint64_t index = leader->digest_index;
    cluster->digests[1][index] ^= 1;
    leader->digest_index = index - 1;
    expect(cluster, "has another digest");
}

static void test_checker_restart_behind_what_was_durable(void **state) {
    struct replica *leader;
    (void)state;
    struct cluster *cluster = start(&leader);
    leader->must_check_start = true;
    leader->durable_term = UINT64_MAX / 2;
    expect(cluster, "but had saved term");
    cluster = start(&leader);
    leader->must_check_start = true;
    leader->synced_index = UINT64_MAX / 2;
    expect(cluster, "but had synced");
    cluster = start(&leader);
    leader->must_check_start = true;
    leader->durable_vote = leader->durable_vote % 3 + 1;
    expect(cluster, "but had saved one for");
}

static void test_checker_two_votes_in_one_term(void **state) {
    struct replica *leader;
    (void)state;
    struct cluster *cluster = start(&leader);
    leader->durable_vote = leader->durable_vote % 3 + 1;
    expect(cluster, "voted for");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checker_two_leaders_of_one_term),
        cmocka_unit_test(test_checker_leader_without_durable_votes),
        cmocka_unit_test(test_checker_leader_without_a_committed_entry),
        cmocka_unit_test(test_checker_entry_committed_twice),
        cmocka_unit_test(test_checker_entry_committed_without_a_quorum),
        cmocka_unit_test(test_checker_commit_or_term_that_goes_back),
        cmocka_unit_test(test_checker_another_digest),
        cmocka_unit_test(test_checker_restart_behind_what_was_durable),
        cmocka_unit_test(test_checker_two_votes_in_one_term),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
