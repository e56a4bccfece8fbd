/*
 * Breaks when: a change of the membership reaches the consensus actor other than it was asked for, or unchecked; a
 * refusal loses its reason, or an unknown outcome passes for a failure; somebody who is no admin changes members; a
 * follower answers for the leader.
 */
#include "tests/unit/clients_fixture.h"

static uint8_t thumbprint[RAFT_THUMBPRINT_BYTES] = {[31] = 0xab};

static void init_add(Wire__MemberChange *change) {
    wire__member_change__init(change);
    change->has_type = change->has_id = change->has_priority = change->has_thumbprint = 1;
    change->type = RAFT_CHANGE_ADD_LEARNER;
    change->id = 4;
    change->priority = 200;
    change->name = (char *)"n4";
    change->peer_address = (char *)"host-4:4500";
    change->client_address = (char *)"[::4]:4400";
    change->thumbprint = (ProtobufCBinaryData){sizeof thumbprint, thumbprint};
}

static void send_changes(struct fake_client *client, uint64_t id, Wire__MemberChange *changes, size_t count) {
    Wire__MemberChange *pointers[2 * LIMIT_MEMBERS];
    Wire__MemberRequest request = WIRE__MEMBER_REQUEST__INIT;
    for (size_t i = 0; i < count; i++) {
        pointers[i] = &changes[i];
    }
    request.has_action = request.has_timeout_ms = 1;
    request.action = 1;
    request.timeout_ms = 3000;
    request.n_changes = count;
    request.changes = pointers;
    fake_send(client, FRAME_MEMBER, id, &request.base, NULL, 0);
    fixture_run(client->fixture);
}

static void send_simple(struct fake_client *client, uint64_t id, uint32_t action, bool local, uint64_t target) {
    Wire__MemberRequest request = WIRE__MEMBER_REQUEST__INIT;
    request.has_action = request.has_local = request.has_target = 1;
    request.action = action;
    request.local = local;
    request.target = target;
    fake_send(client, FRAME_MEMBER, id, &request.base, NULL, 0);
    fixture_run(client->fixture);
}

static Wire__MemberReply *reply_at(const struct fake_client *client, uint32_t at) {
    return fake_message(client, at, FRAME_MEMBER_REPLY, &wire__member_reply__descriptor);
}

/* ---- The list ---------------------------------------------------------------------------------------------------- */

static void test_clients_members_are_listed_by_the_leader(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    send_simple(client, 1, 0, false, 0);
    Wire__MemberReply *reply = reply_at(client, 0);
    assert_int_equal(reply->leader_id, 1);
    assert_int_equal(reply->term, 3);
    assert_int_equal(reply->commit, 7);
    assert_int_equal(reply->index, 3);
    assert_true(reply->committed);
    assert_int_equal(reply->n_members, 2);
    const Wire__MemberStatus *first = reply->members[0], *second = reply->members[1];
    assert_string_equal(first->role, "voter");
    assert_int_equal(first->thumbprint.len, 32);
    assert_int_equal(second->id, 2);
    assert_string_equal(second->name, "n2");
    assert_string_equal(second->role, "learner");
    assert_string_equal(second->state, "snapshot");
    assert_string_equal(second->peer_address, "host-2:4500");
    assert_string_equal(second->client_address, "host-2:4400");
    assert_int_equal(second->priority, 9);
    assert_int_equal(second->match, 4);
    assert_false(second->has_heard_ms_ago); /* never */
    assert_false(second->has_thumbprint);   /* not known */
    protobuf_c_message_free_unpacked(&reply->base, NULL);
}

static void test_clients_members_are_not_listed_by_a_follower_unless_asked_for(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    fixture->consensus.leader = 2;
    send_simple(client, 1, 0, false, 0);
    assert_error(client, 0, 1, WIRE_NOT_LEADER, "ask n2 at host-2:4400");
    send_simple(client, 2, 0, true, 0);
    Wire__MemberReply *reply = reply_at(client, 1);
    assert_int_equal(reply->n_members, 2);
    assert_null(reply->members[1]->state); /* it doesn't know */
    protobuf_c_message_free_unpacked(&reply->base, NULL);
    fixture->consensus.leader = 0;
    send_simple(client, 3, 0, false, 0);
    assert_error(client, 2, 3, WIRE_UNAVAILABLE, "no leader is known");
}

/* ---- Changes ----------------------------------------------------------------------------------------------------- */

static void test_clients_member_changes_arrive_as_they_were_asked_for(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    Wire__MemberChange changes[3];
    init_add(&changes[0]);
    for (size_t i = 1; i < 3; i++) {
        wire__member_change__init(&changes[i]);
        changes[i].has_type = changes[i].has_id = 1;
        changes[i].type = i == 1 ? RAFT_CHANGE_PROMOTE : RAFT_CHANGE_REMOVE;
        changes[i].id = i;
        changes[i].name = (char *)"not a name"; /* ignored where nothing is named */
    }
    uint64_t now_us = fixture->world.now_us;
    send_changes(client, 1, changes, 3);
    assert_seen(fixture, "add 4 n4 host-4:4500 [::4]:4400 200 ab;promote 1;remove 2;");
    assert_int_equal(fixture->consensus.seen_deadline_us, now_us + 3000 * 1000);
    changes[0].has_unreachable = changes[0].unreachable = 1;
    send_changes(client, 2, changes, 1);
    assert_seen(fixture, "add 4 n4 host-4:4500 [::4]:4400 200 ab;promote 1;remove 2;"
                         "add 4 n4 host-4:4500 [::4]:4400 200 ab unreachable;");
    Wire__MemberReply *reply = reply_at(client, 0);
    assert_int_equal(reply->index, 44);
    protobuf_c_message_free_unpacked(&reply->base, NULL);
    assert_int_equal(fixture_count_log(fixture, "event=member.asked by=the-admin what=change parts=3 first=4"), 1);
}

static void test_clients_transfer_says_who_leads(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    send_simple(client, 1, 2, false, 2);
    assert_seen(fixture, "transfer 2;");
    Wire__MemberReply *reply = reply_at(client, 0);
    assert_int_equal(reply->leader_id, 2);
    protobuf_c_message_free_unpacked(&reply->base, NULL);
}

static void test_clients_refused_changes_say_why_and_what_to_do(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    const struct {
        enum raft_refusal refusal;
        enum wire_code code; /* what passes by itself is tried again */
        const char *words;
    } cases[] = {
        {RAFT_REFUSAL_CHANGE_IN_PROGRESS, WIRE_BUSY, "another change"},
        {RAFT_REFUSAL_TRANSFER_IN_PROGRESS, WIRE_BUSY, "transferred"},
        {RAFT_REFUSAL_NOTHING_COMMITTED, WIRE_BUSY, "new"},
        {RAFT_REFUSAL_WOULD_LOSE_QUORUM, WIRE_CONDITION, "would not be a quorum: start the members that are away"},
        {RAFT_REFUSAL_NO_VOTERS, WIRE_CONDITION, ": promote a learner first"},
        {RAFT_REFUSAL_DUPLICATE_ID, WIRE_CONDITION, ": an id is never used twice"},
        {RAFT_REFUSAL_DUPLICATE_ADDRESS, WIRE_CONDITION, "this address: "},
        {RAFT_REFUSAL_DUPLICATE_NAME, WIRE_CONDITION, ": choose another name"},
        {RAFT_REFUSAL_DUPLICATE_CERTIFICATE, WIRE_CONDITION, ": each member needs a certificate"},
        {RAFT_REFUSAL_RETIRED_ID, WIRE_CONDITION, ": take one above all"},
        {RAFT_REFUSAL_UNKNOWN_NODE, WIRE_CONDITION, ": list the members"},
        {RAFT_REFUSAL_LEARNER_LAGS, WIRE_CONDITION, "caught up with the log: wait"},
        {RAFT_REFUSAL_TOO_MANY_MEMBERS, WIRE_CONDITION, ": remove one first"},
        {RAFT_REFUSAL_UNREACHABLE, WIRE_CONDITION, "host-4:4500 can't be reached: why: what to do"},
        {RAFT_REFUSAL_IS_LEADER, WIRE_CONDITION, "the node leads already"},
    };
    fixture->consensus.write_status = STATUS_CONDITION;
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Wire__MemberChange change;
        init_add(&change);
        fixture->consensus.refusal = cases[i].refusal;
        send_changes(client, i, &change, 1);
        assert_error(client, i, i, cases[i].code, cases[i].words);
    }
}

static void test_h51_clients_outcomes_of_changes_are_told_apart(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    Wire__MemberChange change;
    init_add(&change);
    fixture->consensus.write_status = STATUS_NOT_LEADER;
    fixture->consensus.write_unknown = true;
    send_changes(client, 1, &change, 1);
    Wire__Error *error = fake_message(client, 0, FRAME_ERROR, &wire__error__descriptor);
    assert_true(error->has_outcome);
    assert_int_equal(error->outcome, WIRE__OUTCOME__OUTCOME_UNKNOWN);
    assert_non_null(strstr(error->message, "it may still happen"));
    protobuf_c_message_free_unpacked(&error->base, NULL);
    fixture->consensus.write_unknown = false;
    fixture->consensus.leader = 2;
    send_changes(client, 2, &change, 1);
    assert_error(client, 1, 2, WIRE_NOT_LEADER, "ask n2 at host-2:4400");
    fixture->consensus.write_status = STATUS_TIMEOUT;
    send_simple(client, 3, 2, false, 0);
    assert_error(client, 2, 3, WIRE_TIMEOUT, "the transfer of the lead came to nothing in its time");
}

/* ---- What is wrong ----------------------------------------------------------------------------------------------- */

static void test_clients_wrong_member_requests_are_refused(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    static char long_text[LIMIT_ADDRESS_BYTES + 8];
    static uint8_t zeroes[RAFT_THUMBPRINT_BYTES];
    memset(long_text, 'a', sizeof long_text - 1);
    memcpy(long_text + sizeof long_text - 5, ":440", 4);
    Wire__MemberChange changes[14];
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        init_add(&changes[i]);
    }
    changes[0].type = 0;
    changes[1].type = 6;
    changes[2].id = 0;
    changes[3].id = (UINT64_C(1) << 63) + 1;
    changes[4].priority = 256;
    changes[5].name = NULL;
    changes[6].name = (char *)"n 4";
    changes[7].name = long_text;
    changes[8].peer_address = (char *)"host-4";
    changes[9].client_address = long_text;
    changes[10].client_address = changes[10].peer_address;
    changes[11].thumbprint.len = 31;
    changes[12].thumbprint.data = zeroes;
    changes[13].peer_address = NULL;
    static const char *const words[] = {"no change",     "no change",     "id is",       "id is",
                                        "priority is",   "name has",      "name has",    "name has",
                                        "addresses are", "addresses are", "one address", "thumbprint is",
                                        "thumbprint is", "addresses are"};
    uint32_t at = 0;
    for (; at < sizeof changes / sizeof changes[0]; at++) {
        send_changes(client, at, &changes[at], 1);
        assert_error(client, at, at, WIRE_INVALID, words[at]);
    }
    send_changes(client, at, changes, 0);
    assert_error(client, at, at, WIRE_INVALID, "1 to 9 parts");
    at++;
    send_changes(client, at, changes, LIMIT_MEMBERS + 1);
    assert_error(client, at, at, WIRE_INVALID, "1 to 9 parts");
    at++;
    send_simple(client, at, 4, false, 0);
    assert_error(client, at, at, WIRE_INVALID, "nothing that this node does");
    assert_seen(fixture, "");
}

static void test_clients_members_are_for_admins(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *writer = fake_login(fixture, WRITER);
    send_simple(writer, 1, 2, false, 2);
    assert_error(writer, 0, 1, WIRE_DENIED, "has the role write; member needs admin");
    struct fake_client *member = fake_login(fixture, MEMBER);
    send_simple(member, 1, 0, true, 0);
    assert_error(member, 0, 1, WIRE_DENIED, "may only ask for the status");
    assert_seen(fixture, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_clients_members_are_listed_by_the_leader),
        TEST(test_clients_members_are_not_listed_by_a_follower_unless_asked_for),
        TEST(test_clients_member_changes_arrive_as_they_were_asked_for),
        TEST(test_clients_transfer_says_who_leads),
        TEST(test_clients_refused_changes_say_why_and_what_to_do),
        TEST(test_h51_clients_outcomes_of_changes_are_told_apart),
        TEST(test_clients_wrong_member_requests_are_refused),
        TEST(test_clients_members_are_for_admins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
