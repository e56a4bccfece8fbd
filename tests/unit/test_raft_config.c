/*
 * The one quorum function against its definition: v is reached by a quorum if the members with at least v are a
 * majority of the incoming set and, if joint, of the outgoing one. Breaks if learners count, a set is forgotten, or
 * half is a majority.
 */
#include "node/base/random.h"
#include "raft/raft_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static bool is_reached(const struct raft_config *config, const uint64_t *values, uint64_t wanted) {
    uint32_t sizes[2] = {0, 0};
    uint32_t reached[2] = {0, 0};
    for (uint32_t i = 0; i < config->member_count; i++) {
        bool in[2] = {config->members[i].role == RAFT_VOTER, config->joint && config->members[i].in_outgoing};
        for (int set = 0; set < 2; set++) {
            sizes[set] += in[set];
            reached[set] += in[set] && values[i] >= wanted;
        }
    }
    return reached[0] * 2 > sizes[0] && (!config->joint || reached[1] * 2 > sizes[1]);
}

static uint64_t naive_quorum(const struct raft_config *config, const uint64_t *values) {
    uint64_t best = 0;
    for (uint32_t i = 0; i < config->member_count; i++) {
        if (values[i] > best && is_reached(config, values, values[i])) {
            best = values[i];
        }
    }
    return best;
}

static void random_config(struct random *random, struct raft_config *config) {
    do {
        memset(config, 0, sizeof *config);
        config->joint = random_below(random, 2) == 0;
        config->member_count = 1 + (uint32_t)random_below(random, LIMIT_MEMBERS);
        for (uint32_t i = 0; i < config->member_count; i++) {
            config->members[i].id = i + 1;
            config->members[i].role = random_below(random, 3) == 0 ? RAFT_LEARNER : RAFT_VOTER;
            config->members[i].in_outgoing = config->joint && random_below(random, 2) == 0;
        }
    } while (raft__config_check(config) != STATUS_OK);
}

static void test_raft_quorum_random_configs_equal_definition(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 7);
    for (int round = 0; round < 20000; round++) {
        struct raft_config config;
        uint64_t values[LIMIT_MEMBERS];
        random_config(&random, &config);
        for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
            values[i] = random_below(&random, round % 2 == 0 ? 2 : 12);
        }
        assert_int_equal(raft__config_quorum(&config, values), naive_quorum(&config, values));
    }
}

static void test_h07_quorum_learners_do_not_count(void **state) {
    (void)state;
    const struct raft_config config = {.member_count = 5,
                                       .members = {{.id = 1},
                                                   {.id = 2},
                                                   {.id = 3},
                                                   {.id = 4, .role = RAFT_LEARNER, .in_outgoing = false},
                                                   {.id = 5, .role = RAFT_LEARNER, .in_outgoing = false}}};
    assert_int_equal(raft__config_quorum(&config, (uint64_t[LIMIT_MEMBERS]){9, 0, 0, 9, 9}), 0);
    assert_int_equal(raft__config_quorum(&config, (uint64_t[LIMIT_MEMBERS]){9, 4, 0, 0, 0}), 4);
    assert_false(raft__config_is_voter(&config, 3));
    assert_true(raft__config_is_voter(&config, 2));
    assert_false(raft__config_is_voter(&config, RAFT__NOWHERE));
}

static void test_raft_quorum_even_set_needs_more_than_half(void **state) {
    (void)state;
    const struct raft_config config = {.member_count = 4, .members = {{.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}}};
    assert_int_equal(raft__config_quorum(&config, (uint64_t[LIMIT_MEMBERS]){7, 7, 0, 0}), 0);
    assert_int_equal(raft__config_quorum(&config, (uint64_t[LIMIT_MEMBERS]){7, 7, 5, 0}), 5);
}

/* From {1} to {2, 3}: neither side decides alone. */
static void test_raft_quorum_joint_needs_both_sets(void **state) {
    (void)state;
    const struct raft_config config = {.joint = true,
                                       .member_count = 3,
                                       .members = {{.id = 1, .role = RAFT_LEARNER, .in_outgoing = true},
                                                   {.id = 2, .role = RAFT_VOTER, .in_outgoing = false},
                                                   {.id = 3, .role = RAFT_VOTER, .in_outgoing = false}}};
    assert_int_equal(raft__config_check(&config), STATUS_OK);
    assert_int_equal(raft__config_quorum(&config, (uint64_t[LIMIT_MEMBERS]){9, 9, 0}), 0);
    assert_int_equal(raft__config_quorum(&config, (uint64_t[LIMIT_MEMBERS]){0, 9, 9}), 0);
    assert_int_equal(raft__config_quorum(&config, (uint64_t[LIMIT_MEMBERS]){3, 9, 4}), 3);
    assert_true(raft__config_is_voter(&config, 0));
}

static void test_raft_config_senseless_is_refused(void **state) {
    (void)state;
    const struct raft_config configs[] = {
        {.member_count = 0},
        {.member_count = LIMIT_MEMBERS + 1},
        {.member_count = 1, .members = {{.id = RAFT_NO_NODE}}},
        {.member_count = 2, .members = {{.id = 4}, {.id = 4}}},
        {.member_count = 1, .members = {{.id = 1, .role = RAFT_LEARNER, .in_outgoing = false}}},
        {.member_count = 1, .members = {{.id = 1, .role = RAFT_VOTER, .in_outgoing = true}}},
        {.joint = true, .member_count = 1, .members = {{.id = 1, .role = RAFT_VOTER, .in_outgoing = false}}},
        {.member_count = 1, .members = {{.id = 1, .role = (enum raft_member_role)7}}},
    };
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        assert_int_equal(raft__config_check(&configs[i]), STATUS_INVALID);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raft_quorum_random_configs_equal_definition),
        cmocka_unit_test(test_h07_quorum_learners_do_not_count),
        cmocka_unit_test(test_raft_quorum_even_set_needs_more_than_half),
        cmocka_unit_test(test_raft_quorum_joint_needs_both_sets),
        cmocka_unit_test(test_raft_config_senseless_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
