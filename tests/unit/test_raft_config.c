/*
 * The one quorum function against its definition: v is reached by a quorum if the members with at least v are a
 * majority of the incoming set and, if joint, of the outgoing one; and what follows from it: two quorums that may
 * decide at the same time share a node, whatever the two sets are. Breaks if learners count, a set is forgotten, or
 * half is a majority.
 *
 * The bytes of a configuration: fixed by an example, one form only, nothing cut or damaged accepted. Breaks if a length
 * is believed.
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

/* Sets of nodes 1..SET_NODES as bits. Voters of `incoming`, and of `outgoing` if that isn't empty; all are members. */
enum { SET_NODES = 7, SET_COUNT = 1 << SET_NODES };

static struct raft_config config_of(unsigned incoming, unsigned outgoing) {
    struct raft_config config = {.joint = outgoing != 0, .member_count = SET_NODES};
    for (unsigned i = 0; i < SET_NODES; i++) {
        config.members[i].id = i + 1;
        config.members[i].role = (incoming >> i & 1) != 0 ? RAFT_VOTER : RAFT_LEARNER;
        config.members[i].in_outgoing = (outgoing >> i & 1) != 0;
    }
    return config;
}

/* Which sets of nodes are a quorum: one bit for each. */
static void quorums_of(const struct raft_config *config, bool ret_quorums[SET_COUNT]) {
    for (unsigned set = 0; set < SET_COUNT; set++) {
        uint64_t values[LIMIT_MEMBERS] = {0};
        for (unsigned i = 0; i < SET_NODES; i++) {
            values[i] = set >> i & 1;
        }
        ret_quorums[set] = raft__config_quorum(config, values) > 0;
    }
}

/* One to seven voters: a quorum is more than half, so its complement never is one. */
static void test_raft_quorum_all_sets_are_majorities(void **state) {
    (void)state;
    for (unsigned voters = 1; voters < SET_COUNT; voters++) {
        bool quorums[SET_COUNT];
        const struct raft_config config = config_of(voters, 0);
        quorums_of(&config, quorums);
        for (unsigned set = 0; set < SET_COUNT; set++) {
            bool most = 2 * __builtin_popcount(set & voters) > __builtin_popcount(voters);
            assert_int_equal(quorums[set], most);
            assert_false(quorums[set] && quorums[~set & (SET_COUNT - 1)]);
        }
    }
}

/* All pairs of sets: while some use the old set, others the joint one and others the new, no two of the neighbours can
 * decide apart from each other. (The old and the new alone could: that is what the joint phase is for.) */
static void test_raft_quorum_all_joint_pairs_overlap(void **state) {
    (void)state;
    static bool plain[SET_COUNT][SET_COUNT];
    for (unsigned voters = 1; voters < SET_COUNT; voters++) {
        const struct raft_config config = config_of(voters, 0);
        quorums_of(&config, plain[voters]);
    }
    unsigned apart = 0;
    for (unsigned old = 1; old < SET_COUNT; old++) {
        for (unsigned next = 1; next < SET_COUNT; next++) {
            bool joint[SET_COUNT];
            const struct raft_config config = config_of(next, old);
            quorums_of(&config, joint);
            for (unsigned set = 0; set < SET_COUNT; set++) {
                unsigned others = ~set & (SET_COUNT - 1);
                bool right = joint[set] == (plain[old][set] && plain[next][set]);
                bool overlap = !joint[set] || (!plain[old][others] && !plain[next][others] && !joint[others]);
                if (!right || !overlap) {
                    fail_msg("old %#x, new %#x, set %#x", old, next, set);
                }
                apart += plain[old][set] && plain[next][others];
            }
        }
    }
    assert_true(apart > 0);
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------ */

static void test_raft_config_bytes_are_as_written_down(void **state) {
    (void)state;
    const struct raft_config config = {.joint = true,
                                       .member_count = 3,
                                       .members = {{.id = 1,
                                                    .role = RAFT_VOTER,
                                                    .in_outgoing = true,
                                                    .priority = 9,
                                                    .incarnation = 0x1112131415161718,
                                                    .thumbprint = {0xaa, [31] = 0xbb},
                                                    .name = "n",
                                                    .address = "a:1",
                                                    .client_address = "b:22"},
                                                   {.id = 0x0102030405060708, .role = RAFT_LEARNER, .returns = true},
                                                   {.id = 3, .role = RAFT_LEAVING, .in_outgoing = true}},
                                       .retired_id = 0x0200000000000007};
    /* clang-format off */
    static const uint8_t wanted[4 + 62 + 54 + 54 + 8] = {
        1, 1, 3, 0,                                           /* version, joint, members */
        1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9,                      /* n1: id, role, outgoing, priority */
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,       /* incarnation */
        0xaa, [54] = 0xbb, 1, 'n', 3, 'a', ':', '1', 4, 'b', ':', '2', '2', /* thumbprint, three texts */
        8, 7, 6, 5, 4, 3, 2, 1, 1, 2, 0, [120] = 3, [128] = 2, 1, 0, /* the learner returns, all else 0; one leaves */
        [174] = 7, 0, 0, 0, 0, 0, 0, 2, /* the largest id that was removed */
    };
    /* clang-format on */
    uint8_t bytes[RAFT_CONFIG_BYTES_MAX];
    assert_int_equal(raft_config_encode(&config, bytes), sizeof wanted);
    assert_int_equal(raft_config_encoded_size(&config), sizeof wanted);
    assert_memory_equal(bytes, wanted, sizeof wanted);
}

static void test_raft_config_random_bytes_come_back(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 3);
    for (int round = 0; round < 2000; round++) {
        struct raft_config config;
        struct raft_config back = {0};
        uint8_t bytes[RAFT_CONFIG_BYTES_MAX];
        uint8_t again[RAFT_CONFIG_BYTES_MAX];
        random_config(&random, &config);
        for (uint32_t i = 0; i < config.member_count; i++) {
            config.members[i].priority = (uint8_t)random_below(&random, 256);
            config.members[i].incarnation = random_next(&random);
            config.members[i].returns = config.members[i].role == RAFT_LEARNER && random_below(&random, 2) == 0;
            memset(config.members[i].thumbprint, (int)i + 1, random_below(&random, RAFT_THUMBPRINT_BYTES + 1));
            memset(config.members[i].name, 'a' + (int)i, random_below(&random, LIMIT_NAME_BYTES));
            memset(config.members[i].address, 'a' + (int)i, random_below(&random, LIMIT_ADDRESS_BYTES));
            memset(config.members[i].client_address, 'A' + (int)i, random_below(&random, LIMIT_ADDRESS_BYTES));
        }
        config.retired_id = random_next(&random);
        size_t len = raft_config_encode(&config, bytes);
        assert_int_equal(raft_config_decode(slice_of(bytes, len), &back, NULL), STATUS_OK);
        assert_int_equal(raft_config_encode(&back, again), len);
        assert_memory_equal(again, bytes, len);
        assert_int_equal(back.joint, config.joint);
        assert_int_equal(back.member_count, config.member_count);
        assert_int_equal(back.retired_id, config.retired_id);
        for (uint32_t i = 0; i < config.member_count; i++) {
            assert_int_equal(back.members[i].id, config.members[i].id);
            assert_int_equal(back.members[i].role, config.members[i].role);
            assert_int_equal(back.members[i].in_outgoing, config.members[i].in_outgoing);
            assert_int_equal(back.members[i].priority, config.members[i].priority);
            assert_int_equal(back.members[i].incarnation, config.members[i].incarnation);
            assert_int_equal(back.members[i].returns, config.members[i].returns);
            assert_memory_equal(back.members[i].thumbprint, config.members[i].thumbprint, RAFT_THUMBPRINT_BYTES);
            assert_string_equal(back.members[i].name, config.members[i].name);
            assert_string_equal(back.members[i].address, config.members[i].address);
            assert_string_equal(back.members[i].client_address, config.members[i].client_address);
        }
    }
}

/* Every cut is refused, and so is a byte behind; a changed byte means something else or nothing. */
static void test_h35_raft_config_cut_or_damaged_is_refused(void **state) {
    (void)state;
    const struct raft_config config = {
        .joint = true,
        .member_count = 3,
        .members = {{.id = 1, .role = RAFT_VOTER, .in_outgoing = true, .address = "host1:4501"},
                    {.id = 2, .role = RAFT_LEARNER, .name = "n2", .address = "host2:4502", .thumbprint = {3}},
                    {.id = 3, .role = RAFT_LEAVING, .in_outgoing = true, .address = "host3:4503"}}};
    uint8_t bytes[RAFT_CONFIG_BYTES_MAX + 1];
    uint8_t again[RAFT_CONFIG_BYTES_MAX];
    struct raft_config back = {0};
    struct error err;
    size_t len = raft_config_encode(&config, bytes);
    for (size_t cut = 0; cut < len; cut++) {
        assert_int_equal(raft_config_decode(slice_of(bytes, cut), &back, &err), STATUS_CORRUPT);
    }
    bytes[len] = 0;
    assert_int_equal(raft_config_decode(slice_of(bytes, len + 1), &back, &err), STATUS_CORRUPT);
    assert_int_equal(back.member_count, 0);
    unsigned accepted = 0;
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        enum status status = raft_config_decode(slice_of(bytes, len), &back, &err);
        if (status == STATUS_OK) {
            accepted++;
            assert_int_equal(raft_config_encode(&back, again), len);
            assert_memory_equal(again, bytes, len);
        } else {
            assert_int_equal(status, bit < 8 ? STATUS_UNSUPPORTED : STATUS_CORRUPT);
        }
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(accepted > 0);
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
        {.member_count = 2, .members = {{.id = 1}, {.id = 2, .role = RAFT_LEAVING}}},
        {.joint = true, .member_count = 1, .members = {{.id = 1, .role = RAFT_LEAVING, .in_outgoing = true}}},
        {.member_count = 2, .members = {{.id = 1, .address = "a:1"}, {.id = 2, .address = "a:1"}}},
        {.member_count = 2, .members = {{.id = 1, .client_address = "a:1"}, {.id = 2, .client_address = "a:1"}}},
        {.member_count = 2, .members = {{.id = 1, .name = "n"}, {.id = 2, .name = "n"}}},
        {.member_count = 2, .members = {{.id = 1, .thumbprint = {7}}, {.id = 2, .thumbprint = {7}}}},
        {.member_count = 1, .members = {{.id = 1, .role = RAFT_VOTER, .returns = true}}},
        {.member_count = 1, .members = {{.id = 1, .name = {[LIMIT_NAME_BYTES - 1] = 'n'}}}},
        {.member_count = 1, .members = {{.id = 1, .address = {[LIMIT_ADDRESS_BYTES - 1] = 'a'}}}},
        {.member_count = 1, .members = {{.id = 1, .client_address = {[LIMIT_ADDRESS_BYTES - 1] = 'a'}}}},
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
        cmocka_unit_test(test_raft_quorum_all_sets_are_majorities),
        cmocka_unit_test(test_raft_quorum_all_joint_pairs_overlap),
        cmocka_unit_test(test_raft_config_bytes_are_as_written_down),
        cmocka_unit_test(test_raft_config_random_bytes_come_back),
        cmocka_unit_test(test_h35_raft_config_cut_or_damaged_is_refused),
        cmocka_unit_test(test_raft_config_senseless_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
