/*
 * Breaks when: a change of members or a transfer is sent twice though it may have happened, or its outcome is told
 * wrongly; a refusal isn't final, or loses its code; the list isn't asked of the leader; asynchronous calls borrow the
 * caller's texts; changes that make no sense are sent.
 *
 * The session core in virtual time, then the public calls over TCP.
 */
#include "tests/unit/client_core_fixture.h"
#include "tests/unit/support/fake_thread.h"

#include <unistd.h>

static const uint8_t thumbprint[HOLDFAST_THUMBPRINT_BYTES] = {0xab, [31] = 0xcd};

static const struct holdfast_member_change add_n4 = {.action = HOLDFAST_MEMBER_ADD,
                                                     .id = 4,
                                                     .priority = 7,
                                                     .name = "n4",
                                                     .peer_address = "host-4:4500",
                                                     .client_address = "host-4:4400",
                                                     .thumbprint = thumbprint};

static struct op *change(struct fixture *fixture, const struct holdfast_member_change *changes, size_t count) {
    struct op *op = op_new(fixture, CLIENT_CHANGE_MEMBERS);
    op->request.changes = changes;
    op->request.change_count = count;
    return submit(fixture, op);
}

static struct op *list(struct fixture *fixture) { return submit(fixture, op_new(fixture, CLIENT_LIST_MEMBERS)); }

/* ---- The core ---------------------------------------------------------------------------------------------------- */

static void test_client_change_of_members_follows_the_leader(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    atomic_store(&fixture.cluster.leader, 2);
    start(&fixture);
    struct op *op = change(&fixture, &add_n4, 1);
    expect_ok(&fixture, op);
    assert_int_equal(op->result.revision, 6);
    assert_int_equal(fixture.cluster.members.count, 4);
    const struct fake_member *member = &fixture.cluster.members.members[3];
    assert_string_equal(member->name, "n4");
    assert_string_equal(member->peer_address, "host-4:4500");
    assert_string_equal(member->client_address, "host-4:4400");
    assert_int_equal(member->priority, 7);
    assert_memory_equal(member->thumbprint, thumbprint, sizeof thumbprint);
    expect_ok(&fixture, list(&fixture));
    teardown(&fixture);
}

static void test_client_refused_change_is_final(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    struct holdfast_member_change again = add_n4;
    again.id = 2;
    struct op *op = change(&fixture, &again, 1);
    assert_true(finish(&fixture, op) <= 2);
    expect(&fixture, op, HOLDFAST_FAILED, HOLDFAST_CODE_CONDITION);
    assert_non_null(strstr(op->result.message, "n1: a member has this id"));
    assert_int_equal(fixture.cluster.members.count, 3);
    teardown(&fixture);
}

static void test_client_change_while_another_one_runs_is_tried_again(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    fake_node_set_error(node(&fixture, 0), WIRE_BUSY, WIRE__OUTCOME__OUTCOME_FAILED, 3);
    expect_ok(&fixture, change(&fixture, &add_n4, 1));
    assert_int_equal(atomic_load(&node(&fixture, 0)->requests), 4);
    teardown(&fixture);
}

static void test_h51_client_lost_answer_of_a_change_is_unknown_and_not_repeated(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 3);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_APPLIES_THEN_DROPS, 1);
    expect(&fixture, change(&fixture, &add_n4, 1), HOLDFAST_UNKNOWN, HOLDFAST_CODE_CLOSED);
    run_ms(&fixture, 2000);
    assert_int_equal(fixture.cluster.members.count, 4);
    assert_int_equal(fixture.cluster.members.index, 6);
    set_fault(node(&fixture, 0), FAKE_APPLIES_THEN_DROPS, 1);
    struct op *op = op_new(&fixture, CLIENT_TRANSFER_LEADER);
    op->request.transfer_target = 3;
    expect(&fixture, submit(&fixture, op), HOLDFAST_UNKNOWN, HOLDFAST_CODE_CLOSED);
    set_fault(node(&fixture, 2), FAKE_DROPS, 1); /* a list is a read */
    expect_ok(&fixture, list(&fixture));
    teardown(&fixture);
}

static void test_client_answer_of_another_kind_ends_the_connection(void **state) {
    (void)state;
    struct fixture fixture;
    setup(&fixture, 1);
    start(&fixture);
    set_fault(node(&fixture, 0), FAKE_GARBLES, 1);
    expect(&fixture, change(&fixture, &add_n4, 1), HOLDFAST_UNKNOWN, HOLDFAST_CODE_CORRUPT);
    assert_int_equal(fixture.cluster.members.count, 1);
    teardown(&fixture);
}

static void test_client_senseless_changes_are_refused_here(void **state) {
    (void)state;
    struct holdfast_member_change wrong[12];
    char long_name[65];
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        wrong[i] = add_n4;
    }
    wrong[0].id = 0;
    wrong[1].id = UINT64_MAX;
    wrong[2].name = NULL;
    wrong[3].name = "";
    wrong[4].name = long_name;
    wrong[5].peer_address = NULL;
    wrong[6].client_address = "";
    wrong[7].thumbprint = NULL;
    wrong[8].action = (enum holdfast_member_action)0;
    wrong[9].action = (enum holdfast_member_action)6;
    wrong[10].peer_address = "";
    wrong[11].client_address = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(client_changes_check(&wrong[i], 1), HOLDFAST_CODE_INVALID);
    }
    assert_int_equal(client_changes_check(wrong, 0), HOLDFAST_CODE_INVALID);
    assert_int_equal(client_changes_check(wrong, HOLDFAST_MEMBER_CHANGES_MAX + 1), HOLDFAST_CODE_TOO_LARGE);
    assert_int_equal(client_changes_check(&add_n4, 1), HOLDFAST_CODE_OK);
}

/* ---- The calls --------------------------------------------------------------------------------------------------- */

static struct holdfast *open_handle(const struct fake_thread *fake) {
    struct holdfast_options options;
    struct holdfast *handle = NULL;
    holdfast_options_init(&options);
    options.endpoints = fake->endpoints;
    options.timeout_ms = 20000;
    options.silence_ms = 10000; /* slow machines under sanitizers are no hanging nodes */
    assert_int_equal(client_open_plain(&options, &handle, NULL), HOLDFAST_OK);
    return handle;
}

static void test_client_calls_about_members_answer_what_they_say(void **state) {
    (void)state;
    static struct fake_thread fake;
    struct holdfast_members members;
    struct holdfast_result result;
    uint64_t leader_id = 0;
    fake_thread_start(&fake, 3);
    struct holdfast *handle = open_handle(&fake);
    assert_int_equal(holdfast_change_members(handle, &add_n4, 1, 0, &result), HOLDFAST_OK);
    assert_int_equal(result.revision, 6);
    assert_int_equal(holdfast_list_members(handle, NULL, &members, &result), HOLDFAST_OK);
    assert_int_equal(members.leader_id, 1);
    assert_int_equal(members.term, 7);
    assert_int_equal(members.commit, 1000);
    assert_int_equal(members.index, 6);
    assert_true(members.committed);
    assert_false(members.joint);
    assert_int_equal(members.member_count, 4);
    const struct holdfast_member *added = &members.members[3];
    assert_int_equal(added->id, 4);
    assert_string_equal(added->name, "n4");
    assert_string_equal(added->role, "learner");
    assert_string_equal(added->state, "replicate");
    assert_string_equal(added->client_address, "host-4:4400");
    assert_int_equal(added->priority, 7);
    assert_int_equal(added->match, 990);
    assert_int_equal(added->heard_ms_ago, 12);
    assert_true(added->has_thumbprint);
    assert_memory_equal(added->thumbprint, thumbprint, sizeof thumbprint);
    assert_int_equal(holdfast_transfer_leader(handle, 3, 0, &leader_id, &result), HOLDFAST_OK);
    assert_int_equal(leader_id, 3);
    assert_int_equal(holdfast_transfer_leader(handle, 3, 0, NULL, &result), HOLDFAST_FAILED);
    assert_int_equal(result.code, HOLDFAST_CODE_CONDITION);
    assert_int_equal(holdfast_rebuild_member(handle, 0, 0, &result), HOLDFAST_FAILED); /* who? */
    assert_int_equal(result.code, HOLDFAST_CODE_INVALID);
    struct holdfast_member_change wrong = add_n4;
    wrong.name = NULL;
    assert_int_equal(holdfast_change_members(handle, &wrong, 1, 0, &result), HOLDFAST_FAILED);
    assert_int_equal(result.code, HOLDFAST_CODE_INVALID);
    assert_non_null(strstr(result.message, "who is added, a name"));
    /* Any node lists what it knows; the leader's own knowledge is missing there. */
    const struct holdfast_read_options local = {.local = true};
    assert_int_equal(holdfast_list_members(handle, &local, &members, &result), HOLDFAST_OK);
    assert_string_equal(members.members[3].state, "");
    holdfast_close(handle);
    fake_thread_stop(&fake);
    fake_thread_free(&fake);
}

struct seen {
    _Atomic unsigned changed, listed, moved;
    uint32_t member_count;
    uint64_t leader_id;
};

static void on_changed(void *context, const struct holdfast_result *result) {
    struct seen *seen = context;
    if (result->outcome == HOLDFAST_OK) {
        atomic_fetch_add(&seen->changed, 1);
    }
}

static void on_listed(void *context, const struct holdfast_result *result, const struct holdfast_members *members) {
    struct seen *seen = context;
    if (result->outcome == HOLDFAST_OK) {
        seen->member_count = members->member_count;
        atomic_fetch_add(&seen->listed, 1);
    }
}

static void on_moved(void *context, const struct holdfast_result *result, uint64_t leader_id) {
    struct seen *seen = context;
    if (result->outcome == HOLDFAST_OK) {
        seen->leader_id = leader_id;
        atomic_fetch_add(&seen->moved, 1);
    }
}

static void await(_Atomic unsigned *count) {
    for (unsigned i = 0; i < 10000 && atomic_load(count) == 0; i++) {
        usleep(1000);
    }
    assert_int_equal(atomic_load(count), 1);
}

static void test_client_async_changes_copy_what_they_were_handed(void **state) {
    (void)state;
    static struct fake_thread fake;
    static struct seen seen;
    fake_thread_start(&fake, 3);
    struct holdfast *handle = open_handle(&fake);
    char name[8] = "n4", peer[16] = "host-4:4500", client[16] = "host-4:4400";
    uint8_t print[HOLDFAST_THUMBPRINT_BYTES];
    memcpy(print, thumbprint, sizeof print);
    struct holdfast_member_change changes[2] = {add_n4, {.action = HOLDFAST_MEMBER_REMOVE, .id = 2}};
    changes[0].name = name;
    changes[0].peer_address = peer;
    changes[0].client_address = client;
    changes[0].thumbprint = print;
    changes[0].unreachable = true;
    atomic_store(&fake.cluster.members.newcomers_are_away, true);
    assert_int_equal(holdfast_change_members_async(handle, changes, 0, 0, on_changed, &seen), HOLDFAST_CODE_INVALID);
    assert_int_equal(holdfast_rebuild_member_async(handle, 0, 0, on_changed, &seen), HOLDFAST_CODE_INVALID);
    assert_int_equal(holdfast_change_members_async(handle, changes, 2, 0, on_changed, &seen), HOLDFAST_CODE_OK);
    memset(name, 'x', sizeof name);
    memset(peer, 'x', sizeof peer);
    memset(client, 'x', sizeof client);
    memset(print, 'x', sizeof print);
    memset(changes, 0, sizeof changes);
    await(&seen.changed);
    assert_int_equal(holdfast_list_members_async(handle, NULL, on_listed, &seen), HOLDFAST_CODE_OK);
    await(&seen.listed);
    assert_int_equal(seen.member_count, 3);
    assert_int_equal(holdfast_transfer_leader_async(handle, 3, 0, on_moved, &seen), HOLDFAST_CODE_OK);
    await(&seen.moved);
    assert_int_equal(seen.leader_id, 3);
    holdfast_close(handle);
    fake_thread_stop(&fake);
    const struct fake_member *member = &fake.cluster.members.members[2];
    assert_string_equal(member->name, "n4");
    assert_string_equal(member->peer_address, "host-4:4500");
    assert_string_equal(member->client_address, "host-4:4400");
    assert_memory_equal(member->thumbprint, thumbprint, sizeof thumbprint);
    fake_thread_free(&fake);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_change_of_members_follows_the_leader),
        cmocka_unit_test(test_client_refused_change_is_final),
        cmocka_unit_test(test_client_change_while_another_one_runs_is_tried_again),
        cmocka_unit_test(test_h51_client_lost_answer_of_a_change_is_unknown_and_not_repeated),
        cmocka_unit_test(test_client_answer_of_another_kind_ends_the_connection),
        cmocka_unit_test(test_client_senseless_changes_are_refused_here),
        cmocka_unit_test(test_client_calls_about_members_answer_what_they_say),
        cmocka_unit_test(test_client_async_changes_copy_what_they_were_handed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
