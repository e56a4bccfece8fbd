/*
 * Breaks when: a command about members or the lead asks for something else than it was told, prints another form, ends
 * with another exit code; a learner is promoted before it keeps up, or waited for without end; an outcome that got lost
 * isn't looked for; what a new node's configuration needs isn't printed, or isn't right.
 *
 * The whole program in-process, against played nodes over TCP on a thread of their own.
 */
#include "tests/unit/ctl_fixture.h"

#define HEX64  "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define NEW_N4 "--id|4|--peer|host-4:4500|--client|host-4:4400|--thumbprint|" HEX64

static struct fake_members *members_of(struct fixture *fixture) { return &fixture->fake.cluster.members; }

static void test_ctl_member_list_shows_who_and_how_far(void **state) {
    struct fixture *fixture = *state;
    expect(fixture, "member|list", 0, NULL);
    assert_non_null(strstr(fixture->out, "term 7, membership of entry 5\n"));
    assert_non_null(strstr(fixture->out, "voter, leads"));
    assert_non_null(strstr(fixture->out, "host-3:4500"));
    expect(fixture, "member|list|--output|json", 0, NULL);
    json_t *root = json_loads(fixture->out, 0, NULL);
    json_t *members = json_object_get(root, "members");
    assert_int_equal(json_integer_value(json_object_get(root, "leader_id")), 1);
    assert_true(json_is_true(json_object_get(root, "committed")));
    assert_int_equal(json_array_size(members), 3);
    json_t *second = json_array_get(members, 1);
    assert_string_equal(json_string_value(json_object_get(second, "name")), "n2");
    assert_string_equal(json_string_value(json_object_get(second, "role")), "voter");
    assert_true(json_is_false(json_object_get(second, "leader")));
    assert_int_equal(json_integer_value(json_object_get(second, "match")), 990);
    assert_int_equal(json_integer_value(json_object_get(second, "lag")), 10);
    assert_int_equal(json_integer_value(json_object_get(second, "heard_ms_ago")), 12);
    assert_string_equal(json_string_value(json_object_get(second, "state")), "replicate");
    assert_int_equal(strlen(json_string_value(json_object_get(second, "thumbprint"))), 64);
    json_decref(root);
    /* One node's view: it doesn't know how far the others are. */
    expect(fixture, "--node|n3|member|list|--output|json", 0, NULL);
    root = json_loads(fixture->out, 0, NULL);
    assert_true(json_is_null(json_object_get(json_array_get(json_object_get(root, "members"), 1), "lag")));
    json_decref(root);
    atomic_store(&fixture->fake.cluster.leader, -1);
    expect(fixture, "--timeout|300|member|list", 4, "");
}

static void test_ctl_member_add_prints_what_the_new_node_needs(void **state) {
    struct fixture *fixture = *state;
    expect(fixture, "member|add|n4|" NEW_N4 "|--priority|9", 0, NULL);
    assert_int_equal(strncmp(fixture->out, "n4 (id 4) is a learner as of entry 6.\n", 38), 0);
    assert_non_null(strstr(fixture->out, "\n[raft]\njoin = on\n\n[member n1]\nid = 1\npeer = host-1:4500\nclient = "
                                         "host-1:4400\nthumbprint = 0101010101"));
    assert_non_null(strstr(fixture->out,
                           "\n[member n4]\nid = 4\npeer = host-4:4500\nclient = host-4:4400\nthumbprint = " HEX64
                           "\n"));
    assert_non_null(strstr(fixture->out, "`holdfastctl member promote n4 --wait"));
    assert_int_equal(members_of(fixture)->members[3].priority, 9);
    expect(fixture, "member|add|n5|" NEW_N4, 3, ""); /* its id is taken */
    assert_non_null(strstr(fixture->err, "member: n1: a member has this id"));
    assert_true(is_one_line(fixture->err));
    expect(fixture, "member|add|n5|" NEW_N4 "|--output|json", 3, NULL);
    assert_non_null(strstr(fixture->out, "\"code\":\"condition\",\"outcome\":\"failed\""));
    expect(fixture, "member|promote|n4|--output=json", 0,
           "{\"index\":7,\"id\":4,\"name\":\"n4\",\"role\":\"voter\"}\n");
    expect(fixture, "member|demote|4", 0, "n4 (id 4) is a learner as of entry 8.\n"); /* by its id */
    expect(fixture, "member|priority|n4|255", 0, "n4 (id 4) has the priority 255 as of entry 9.\n");
    expect(fixture, "member|remove|n4", 0, NULL);
    assert_int_equal(strncmp(fixture->out, "n4 (id 4) is no member any more as of entry 10. Stop it; ", 57), 0);
    assert_int_equal(members_of(fixture)->count, 3);
    expect(fixture, "member|remove|n4", 3, "");
    assert_non_null(strstr(fixture->err, "no member has the name or id \"n4\""));
}

static void test_ctl_member_add_of_a_node_that_is_away_takes_an_option(void **state) {
    struct fixture *fixture = *state;
    atomic_store(&members_of(fixture)->newcomers_are_away, true);
    expect(fixture, "member|add|n4|" NEW_N4, 3, "");
    assert_non_null(strstr(fixture->err, "it can't be reached"));
    assert_int_equal(members_of(fixture)->count, 3);
    expect(fixture, "member|replace|n2|n4|" NEW_N4, 3, "");
    expect(fixture, "member|promote|n2|--unreachable", 2, ""); /* it is about new ones */
    expect(fixture, "member|add|n4|" NEW_N4 "|--unreachable", 0, NULL);
    assert_int_equal(members_of(fixture)->count, 4);
}

static void test_ctl_member_add_with_promotion_waits_until_it_keeps_up(void **state) {
    struct fixture *fixture = *state;
    atomic_store(&members_of(fixture)->looks_until_heard, 3);
    atomic_store(&members_of(fixture)->refusals, 2);
    expect(fixture, "member|add|n4|" NEW_N4 "|--promote", 0, NULL);
    assert_non_null(strstr(fixture->out, "join = on"));
    assert_non_null(strstr(fixture->out, "n4 (id 4) is a voter as of entry 7.\n"));
    assert_non_null(strstr(fixture->err, "n4 is not heard yet\n"));
    assert_string_equal(members_of(fixture)->members[3].role, "voter");
    /* One that never comes up stays a learner, and the command ends. */
    atomic_store(&members_of(fixture)->looks_until_heard, 1000);
    expect(fixture, "member|demote|n4", 0, NULL);
    expect(fixture, "member|promote|n4|--wait|1", 4, "");
    assert_non_null(strstr(fixture->err, "n4 is not heard yet, and stays a learner"));
    assert_string_equal(members_of(fixture)->members[3].role, "learner");
    /* One that is near, and refused for another reason than its lag. */
    atomic_store(&members_of(fixture)->looks_until_heard, 0);
    atomic_store(&members_of(fixture)->refusals, 1000);
    expect(fixture, "member|promote|n4", 3, ""); /* without --wait: once */
    atomic_store(&members_of(fixture)->refusals, 0);
    expect(fixture, "member|add|n5|--promote|--output|json|--id|5|--peer|h:1|--client|h:2|--thumbprint|" HEX64, 0,
           NULL);
    json_t *root = json_loads(fixture->out, 0, NULL); /* one object */
    assert_string_equal(json_string_value(json_object_get(root, "role")), "voter");
    assert_non_null(strstr(json_string_value(json_object_get(root, "config")), "[member n5]\nid = 5\n"));
    json_decref(root);
}

static void test_ctl_member_replace_lets_one_in_and_the_other_go_at_once(void **state) {
    struct fixture *fixture = *state;
    expect(fixture, "member|replace|n2|n4|" NEW_N4, 0, NULL);
    assert_non_null(strstr(fixture->out, "n4 (id 4) is a voter as of entry 7. n2 is no member any more: stop it"));
    assert_int_equal(members_of(fixture)->count, 3);
    assert_string_equal(members_of(fixture)->members[2].name, "n4");
    /* Stopped while it waited, it goes on. */
    atomic_store(&members_of(fixture)->looks_until_heard, 1000);
#define NEW_N5 "--id|5|--peer|host-5:4500|--client|host-5:4400|--thumbprint|" HEX64
    expect(fixture, "member|replace|n3|n5|" NEW_N5 "|--wait|1", 4, NULL);
    assert_int_equal(members_of(fixture)->count, 4);
    atomic_store(&members_of(fixture)->looks_until_heard, 0);
    expect(fixture, "member|replace|n3|n5|" NEW_N5, 0, NULL);
    assert_int_equal(members_of(fixture)->count, 3);
    expect(fixture, "member|replace|n9|n6|--id|6|--peer|a:1|--client|a:2|--thumbprint|" HEX64, 3, "");
    assert_int_equal(members_of(fixture)->count, 3); /* nobody was added for it */
}

static void test_ctl_member_lost_outcomes_are_looked_for(void **state) {
    struct fixture *fixture = *state;
    struct fake_node *leader = &fixture->fake.cluster.nodes[0];
    /* The first request is the list that finds the member; the second one is done, and its answer lost. */
    atomic_store(&members_of(fixture)->lost_answers, 1);
    expect(fixture, "member|remove|n3", 0, NULL);
    assert_int_equal(members_of(fixture)->count, 2);
    atomic_store(&members_of(fixture)->lost_answers, 1);
    expect(fixture, "leader|transfer|n2", 0, "n2 (id 2) at host-2:4400 leads in term 7\n");
    atomic_store(&fixture->fake.cluster.leader, 0);
    fake_node_set_error(leader, WIRE_UNAVAILABLE, WIRE__OUTCOME__OUTCOME_UNKNOWN, 1);
    uint64_t begun_us = ctl_clock_us();
    expect(fixture, "--timeout|500|member|add|n4|" NEW_N4, 6, "");           /* nothing shows that it happened */
    assert_in_range(ctl_clock_us() - begun_us, 500 * 1000, 5 * 1000 * 1000); /* looked for as long as it was told */
    assert_non_null(strstr(fixture->err, "`holdfastctl member list` shows what became of it"));
}

static void test_ctl_leader_is_shown_and_moved(void **state) {
    struct fixture *fixture = *state;
    expect(fixture, "leader|show", 0, "n1 (id 1) at host-1:4400 leads in term 7\n");
    expect(fixture, "leader|show|--output=json", 0,
           "{\"leader\":{\"id\":1,\"name\":\"n1\",\"client_address\":\"host-1:4400\"},\"term\":7}\n");
    expect(fixture, "leader|transfer|n3", 0, "n3 (id 3) at host-3:4400 leads in term 7\n");
    assert_int_equal(atomic_load(&fixture->fake.cluster.leader), 2);
    expect(fixture, "leader|transfer|3", 3, "");
    assert_non_null(strstr(fixture->err, "the node leads already"));
    expect(fixture, "leader|transfer", 0, "n1 (id 1) at host-1:4400 leads in term 7\n");
    expect(fixture, "leader|transfer|nobody", 3, "");
    fake_node_set_error(&fixture->fake.cluster.nodes[0], WIRE_DENIED, WIRE__OUTCOME__OUTCOME_FAILED, 1);
    expect(fixture, "leader|show", 5, "");
    expect(fixture, "leader", 2, "");
    expect(fixture, "leader|take", 2, "");
    expect(fixture, "leader|show|n1", 2, "");
}

static void test_ctl_member_usage_errors_are_named(void **state) {
    struct fixture *fixture = *state;
    const struct {
        const char *words, *shows;
    } cases[] = {
        {"member", "an argument is missing"},
        {"member|frobnicate", "nothing that can be done with members"},
        {"member|list|n1", "it is `member list`"},
        {"member|add", "it is `member add NAME"},
        {"member|add|n4", "needs --id, --peer and --client"},
        {"member|add|n4|--id|4|--peer|a:1|--client|a:2", "Say --thumbprint HEX or --member-cert FILE"},
        {"member|add|n4|" NEW_N4 "|--member-cert|x", "Say --thumbprint HEX or --member-cert FILE"},
        {"member|add|n4|--id|4|--peer|a:1|--client|a:2|--thumbprint|00:11", "64 hex digits"},
        {"member|add|n4|--id|0", "--id is \"0\""},
        {"member|add|n4|--priority|256", "--priority is \"256\""},
        {"member|promote|n4|--id|4", "an option that doesn't belong to `member promote NODE"},
        {"member|promote|n4|--promote", "an option that doesn't belong"},
        {"member|replace|n1|n4|" NEW_N4 "|--promote", "an option that doesn't belong"},
        {"member|priority|n1|256", "the priority is \"256\""},
        {"member|priority|n1|-1", "unknown option"},
        {"status|--id|4", "--id is no option of this command"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect(fixture, cases[i].words, 2, "");
        if (strstr(fixture->err, cases[i].shows) == NULL) {
            fail_msg("%s: %s", cases[i].words, fixture->err);
        }
    }
    expect(fixture, "member|add|n4|--id|4|--peer|a:1|--client|a:2|--member-cert|nowhere.crt", 1, "");
    assert_non_null(strstr(fixture->err, "nowhere.crt"));
    assert_int_equal(members_of(fixture)->index, 5); /* nothing was asked for */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ctl_member_list_shows_who_and_how_far, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ctl_member_add_prints_what_the_new_node_needs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ctl_member_add_of_a_node_that_is_away_takes_an_option, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ctl_member_add_with_promotion_waits_until_it_keeps_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ctl_member_replace_lets_one_in_and_the_other_go_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ctl_member_lost_outcomes_are_looked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ctl_leader_is_shown_and_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ctl_member_usage_errors_are_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
