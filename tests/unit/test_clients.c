/*
 * The client front end: connections, identities, wrong requests, back-pressure, the end. What would break: a stranger
 * that gets in, a reader that writes, memory that a client can make grow, a stop that hangs or forgets an answer, a
 * request that outlives its connection and is answered to somebody else.
 */
#include "tests/unit/clients_fixture.h"

/* ---- Opening --------------------------------------------------------------------------------------------------- */

static void test_clients_known_identity_is_greeted(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        int thumbprint;
        const char *role;
    } cases[] = {{READER, "read"}, {WRITER, "write"}, {ADMIN, "admin"}, {MEMBER, "peer"}};
    fixture->consensus.leader = 2;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fake_client *client = fake_connect(fixture, ENV_CERTIFICATE_VALID, cases[i].thumbprint);
        assert_int_equal(client->frame_count, 1);
        Wire__Greeting *greeting = fake_message(client, 0, FRAME_GREETING, &wire__greeting__descriptor);
        assert_string_equal(greeting->role, cases[i].role);
        assert_string_equal(greeting->node_name, "n1");
        assert_int_equal(greeting->node_id, 1);
        assert_int_equal(greeting->cluster_id.len, 16);
        assert_int_equal(greeting->cluster_id.data[0], 0xc1);
        assert_int_equal(greeting->protocol_min, 1);
        assert_int_equal(greeting->protocol_max, 1);
        assert_int_equal(greeting->leader_id, 2);
        assert_string_equal(greeting->leader_address, "host-2:4400");
        protobuf_c_message_free_unpacked(&greeting->base, NULL);
    }
    assert_int_equal(clients_connection_count(fixture->clients), 4);
}

static void assert_refused(struct fixture *fixture, struct fake_client *client, enum wire_code code,
                           const char *words) {
    assert_int_equal(client->frame_count, 1);
    Wire__Refusal *refusal = fake_message(client, 0, FRAME_REFUSAL, &wire__refusal__descriptor);
    assert_int_equal(refusal->code, code);
    assert_non_null(strstr(refusal->message, words));
    protobuf_c_message_free_unpacked(&refusal->base, NULL);
    assert_true(client->closed);
    assert_int_equal(client->end.code, STATUS_OK);
    assert_int_equal(fixture_count_log(fixture, "event=client.refused addr=memory:"), 1);
    assert_int_equal(clients_connection_count(fixture->clients), 0);
}

static void test_clients_stranger_is_refused_with_its_thumbprint(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_connect(fixture, ENV_CERTIFICATE_VALID, STRANGER);
    Wire__Refusal *refusal = fake_message(client, 0, FRAME_REFUSAL, &wire__refusal__descriptor);
    assert_string_equal(refusal->thumbprint, "6363636363636363636363636363636363636363636363636363636363636363");
    protobuf_c_message_free_unpacked(&refusal->base, NULL);
    assert_refused(fixture, client, WIRE_CERTIFICATE_UNKNOWN, "is not on the list");
}

static void test_clients_no_certificate_is_refused_without_thumbprint(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_connect(fixture, ENV_CERTIFICATE_NONE, 0);
    Wire__Refusal *refusal = fake_message(client, 0, FRAME_REFUSAL, &wire__refusal__descriptor);
    assert_null(refusal->thumbprint);
    protobuf_c_message_free_unpacked(&refusal->base, NULL);
    assert_refused(fixture, client, WIRE_NO_CERTIFICATE, "--cert and --key");
}

static void test_clients_expired_certificate_of_a_known_identity_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_connect(fixture, ENV_CERTIFICATE_EXPIRED, ADMIN);
    assert_refused(fixture, client, WIRE_CERTIFICATE_EXPIRED, "expired");
}

static void test_clients_more_than_the_limit_are_refused_busy(void **state) {
    struct fixture *fixture = *state;
    fixture->config.client_connections_max = 2;
    struct fake_client *first = fake_login(fixture, ADMIN);
    (void)fake_login(fixture, ADMIN);
    struct fake_client *third = fake_connect(fixture, ENV_CERTIFICATE_VALID, ADMIN);
    Wire__Refusal *refusal = fake_message(third, 0, FRAME_REFUSAL, &wire__refusal__descriptor);
    assert_int_equal(refusal->code, WIRE_BUSY);
    assert_non_null(strstr(refusal->message, "its 2 connections (client_connections_max)"));
    protobuf_c_message_free_unpacked(&refusal->base, NULL);
    assert_true(third->closed);
    connection_close(first->connection);
    fixture_run(fixture);
    (void)fake_login(fixture, ADMIN); /* there is a place again */
}

/* ---- Wrong requests -------------------------------------------------------------------------------------------- */

/* What each is answered; the connection stays. */
static void test_clients_wrong_requests_get_typed_errors(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    char *long_key = calloc(1, LIMIT_KEY_BYTES + 2);
    char *value = calloc(1, LIMIT_VALUE_BYTES + 1);
    memset(long_key, 'k', LIMIT_KEY_BYTES + 1);
    uint32_t at = 0;

    fake_put(client, 1, "", "v", 1);
    fake_put(client, 2, long_key, "v", 1);
    fake_put(client, 3, "k", value, LIMIT_VALUE_BYTES + 1);
    fake_get(client, 4, "", NULL);
    fake_get(client, 5, long_key, NULL);
    fixture_run(fixture);
    assert_error(client, at++, 1, WIRE_INVALID, "the key is empty");
    assert_error(client, at++, 2, WIRE_TOO_LARGE, "1 to 4096 bytes");
    assert_error(client, at++, 3, WIRE_TOO_LARGE, "the value has 16777217 bytes; the limit is 16777216");
    assert_error(client, at++, 4, WIRE_INVALID, "the key is empty");
    assert_error(client, at++, 5, WIRE_TOO_LARGE, "1 to 4096 bytes");

    /* No protobuf at all. */
    static const struct {
        uint8_t type;
        const char *words;
    } types[] = {{FRAME_PUT, "the put request is malformed"},
                 {FRAME_DELETE, "the delete request is malformed"},
                 {FRAME_DELETE_RANGE, "the delete-range request is malformed"},
                 {FRAME_BATCH, "the batch request is malformed"},
                 {FRAME_GET, "the get request is malformed"},
                 {FRAME_SCAN, "the scan request is malformed"},
                 {FRAME_STATUS, "the status request is malformed"},
                 {FRAME_UPKEEP, "the upkeep request is malformed"},
                 {FRAME_MEMBER, "the member request is malformed"},
                 {FRAME_COMPARE, "the compare request is malformed"},
                 {FRAME_EXPLAIN_LOG, "the explain log request is malformed"}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        uint8_t frame[FRAME_HEADER_BYTES + 4];
        struct frame_header header = {.type = types[i].type, .request_id = 10 + i, .message_len = 4};
        frame_header_encode(frame, &header);
        memset(frame + FRAME_HEADER_BYTES, 0xff, 4);
        struct slice bytes = slice_of(frame, sizeof frame);
        assert_int_equal(env_stream_write(client->stream, &bytes, 1), STATUS_OK);
        fixture_run(fixture);
        assert_error(client, at++, 10 + i, WIRE_INVALID, types[i].words);
    }

    /* Types that are no requests, and types that nobody knows. */
    static const uint8_t others[] = {FRAME_GREETING, FRAME_ERROR, FRAME_PONG, FRAME_WRITE_REPLY, FRAME_RAFT, 35, 255};
    for (size_t i = 0; i < sizeof others; i++) {
        fake_send(client, others[i], 20 + i, NULL, NULL, 0);
        fixture_run(fixture);
        assert_error(client, at++, 20 + i, WIRE_UNSUPPORTED, "no requests that this node knows");
    }
    assert_seen(fixture, "");
    free(long_key);
    free(value);
}

/* Clients whose leader is silent ask others who leads, and go there. */
static void test_clients_ping_is_answered_with_who_leads(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, READER);
    for (uint64_t leader = 0; leader <= 2; leader++) { /* 0: nobody */
        fixture->consensus.leader = leader;
        fake_send(client, FRAME_PING, 30 + leader, NULL, NULL, 0);
        fixture_run(fixture);
        Wire__Pong *pong = fake_message(client, (uint32_t)leader, FRAME_PONG, &wire__pong__descriptor);
        assert_int_equal(client->frames[leader].request_id, 30 + leader);
        assert_int_equal(pong->has_leader_id, leader > 0);
        assert_int_equal(pong->leader_id, leader);
        assert_int_equal(pong->leader_address != NULL, leader > 0);
        if (leader == 2) {
            assert_string_equal(pong->leader_address, "host-2:4400");
        }
        protobuf_c_message_free_unpacked(&pong->base, NULL);
    }
}

static void test_clients_malformed_frame_ends_the_connection_with_one_line(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    struct slice junk = slice_of_string("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(env_stream_write(client->stream, &junk, 1), STATUS_OK);
    fixture_run(fixture);
    assert_true(client->closed);
    assert_int_equal(fixture_count_log(fixture, "event=client.lost addr=memory:"), 1);
    assert_int_equal(fixture_count_log(fixture, "identity=the-admin reason=\"not a frame"), 1);
}

static void test_clients_roles_limit_what_is_done(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *reader = fake_login(fixture, READER);
    fake_put(reader, 1, "key", "value", 5);
    fake_get(reader, 2, "key", NULL);
    fake_send(reader, FRAME_DELETE_RANGE, 3, NULL, NULL, 0);
    fixture_run(fixture);
    assert_error(reader, 0, 1, WIRE_DENIED, "identity the-read has the role read; put needs write or admin");
    assert_error(reader, 1, 3, WIRE_DENIED, "identity the-read has the role read; delete-range needs write or admin");
    assert_int_equal(reader->frames[2].type, FRAME_GET_REPLY);
    struct fake_client *writer = fake_login(fixture, WRITER);
    fake_send(writer, FRAME_UPKEEP, 1, NULL, NULL, 0);
    fixture_run(fixture);
    assert_error(writer, 0, 1, WIRE_DENIED, "has the role write; upkeep needs admin");
    struct fake_client *member = fake_login(fixture, MEMBER);
    fake_put(member, 1, "key", "value", 5);
    fake_get(member, 2, "key", NULL);
    fake_send(member, FRAME_STATUS, 3, NULL, NULL, 0);
    fake_send(member, FRAME_EXPLAIN_LOG, 4, NULL, NULL, 0);
    fixture_run(fixture);
    assert_error(member, 0, 1, WIRE_DENIED, "the certificate of member n2 may only ask for the status");
    assert_error(member, 1, 2, WIRE_DENIED, "may only ask for the status");
    assert_error(member, 2, 4, WIRE_DENIED, "may only ask for the status");
    assert_int_equal(member->frames[3].type, FRAME_STATUS_REPLY);
    assert_seen(fixture, "");
}

static void test_clients_status_tells_what_consensus_and_config_know(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, READER);
    fixture_advance_ms(fixture, 1500);
    fake_send(client, FRAME_STATUS, 3, NULL, NULL, 0);
    fixture_run(fixture);
    Wire__StatusReply *reply = fake_message(client, 0, FRAME_STATUS_REPLY, &wire__status_reply__descriptor);
    assert_string_equal(reply->node_name, "n1");
    assert_string_equal(reply->raft_role, "leader");
    assert_string_equal(reply->version, HOLDFAST_VERSION);
    assert_string_equal(reply->problem, "disk full");
    assert_int_equal(reply->cluster_id.len, 16);
    assert_int_equal(reply->term, 3);
    assert_int_equal(reply->first, 2);
    assert_int_equal(reply->last, 9);
    assert_int_equal(reply->synced, 8);
    assert_int_equal(reply->commit, 7);
    assert_int_equal(reply->applied, 6);
    assert_int_equal(reply->flushed, 5);
    assert_int_equal(reply->uptime_ms, 1500);
    assert_int_equal(reply->client_connections, 1);
    assert_int_equal(reply->log_groups_idle, 2);
    assert_int_equal(reply->log_groups_mark, 3);
    assert_int_equal(reply->log_written_bytes, 8192);
    assert_int_equal(reply->log_padding_bytes, 4000);
    assert_int_equal(reply->log_group_records_max, 7);
    assert_int_equal(reply->n_log_sync_us_buckets, WAL_SYNC_BUCKETS);
    assert_int_equal(reply->log_sync_us_buckets[6], 4);
    assert_int_equal(reply->sst_files, 7); /* of all levels */
    assert_int_equal(reply->n_members, 2);
    assert_string_equal(reply->members[1]->name, "n2");
    assert_string_equal(reply->members[1]->client_address, "host-2:4400");
    assert_int_equal(reply->members[1]->match, 4);
    assert_string_equal(reply->members[1]->role, "learner");
    assert_int_equal(reply->config_index, 3);
    assert_true(reply->config_committed);
    assert_true(reply->members[0]->has_heard_ms_ago);
    assert_false(reply->members[1]->has_heard_ms_ago);
    protobuf_c_message_free_unpacked(&reply->base, NULL);
}

static void test_clients_explain_log_tells_segments_and_their_pins(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, READER);
    fake_send(client, FRAME_EXPLAIN_LOG, 3, NULL, NULL, 0);
    fixture_run(fixture);
    Wire__ExplainLogReply *reply =
        fake_message(client, 0, FRAME_EXPLAIN_LOG_REPLY, &wire__explain_log_reply__descriptor);
    assert_string_equal(reply->node_name, "n1");
    assert_int_equal(reply->floor, 4);
    assert_int_equal(reply->segment_total, 3);
    assert_int_equal(reply->n_pins, 3);
    assert_string_equal(reply->pins[2]->owner, "follower n2");
    assert_int_equal(reply->pins[2]->index, 4);
    assert_int_equal(reply->pins[2]->age_ms, 7);
    assert_false(reply->pins[1]->has_index);
    assert_int_equal(reply->n_segments, 2);
    assert_string_equal(reply->segments[0]->state, "kept");
    assert_int_equal(reply->segments[0]->first, 2);
    assert_true(reply->segments[0]->begun_earlier);
    assert_int_equal(reply->segments[0]->n_pins, 1);
    assert_int_equal(reply->segments[0]->pins[0], 2);
    assert_string_equal(reply->segments[1]->state, "active");
    assert_int_equal(reply->segments[1]->n_pins, 2);
    assert_int_equal(reply->segments[1]->pins[0], 0);
    protobuf_c_message_free_unpacked(&reply->base, NULL);
}

static void send_upkeep(struct fake_client *client, uint64_t id, uint32_t action, const char *lower, const char *upper,
                        const char *upkeep_dir) {
    Wire__UpkeepRequest upkeep = WIRE__UPKEEP_REQUEST__INIT;
    upkeep.has_action = upkeep.has_lower = upkeep.has_upper = 1;
    upkeep.action = action;
    upkeep.lower = fake_bytes(lower);
    upkeep.upper = fake_bytes(upper);
    upkeep.dir = (char *)upkeep_dir;
    fake_send(client, FRAME_UPKEEP, id, &upkeep.base, NULL, 0);
}

static void test_clients_upkeep_is_begun_and_told_of(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    send_upkeep(client, 1, CONSENSUS_UPKEEP_COMPACT, "a", "b", NULL);
    send_upkeep(client, 2, CONSENSUS_UPKEEP_CHECKPOINT, "", "", "/backup/today..1");
    fixture_run(fixture);
    assert_seen(fixture, "upkeep 1 a-b ;upkeep 3 - /backup/today..1;");
    Wire__UpkeepReply *reply = fake_message(client, 1, FRAME_UPKEEP_REPLY, &wire__upkeep_reply__descriptor);
    assert_int_equal(reply->node_id, 1);
    assert_int_equal(reply->job, 3);
    assert_string_equal(reply->kind, "verify");
    assert_true(reply->running);
    assert_int_equal(reply->done_bytes, 50);
    assert_int_equal(reply->total_bytes, 100);
    assert_int_equal(reply->elapsed_ms, 7);
    assert_int_equal(reply->findings, 2);
    protobuf_c_message_free_unpacked(&reply->base, NULL);
    fixture->consensus.write_status = STATUS_BUSY;
    send_upkeep(client, 3, CONSENSUS_UPKEEP_VERIFY, "", "", NULL);
    fixture_run(fixture);
    assert_error(client, 2, 3, WIRE_BUSY, "a verify is under way (50 of 100 bytes)");
    fixture->consensus.write_status = STATUS_UNSUPPORTED;
    send_upkeep(client, 4, CONSENSUS_UPKEEP_CANCEL, "", "", NULL);
    fixture_run(fixture);
    assert_error(client, 3, 4, WIRE_UNSUPPORTED, "can't be cancelled");
}

static void test_clients_comparison_is_begun_and_told_of(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    Wire__CompareRequest compare = WIRE__COMPARE_REQUEST__INIT;
    fake_send(client, FRAME_COMPARE, 1, &compare.base, NULL, 0);
    compare.has_action = 1;
    compare.action = 1;
    fake_send(client, FRAME_COMPARE, 2, &compare.base, NULL, 0);
    fixture_run(fixture);
    assert_seen(fixture, "compare look;compare begin;");
    Wire__CompareReply *reply = fake_message(client, 1, FRAME_COMPARE_REPLY, &wire__compare_reply__descriptor);
    assert_int_equal(reply->index, 9);
    assert_int_equal(reply->above_index, 8);
    assert_int_equal(reply->verdict, CONSENSUS_SCAN_OPEN);
    assert_true(reply->open);
    assert_int_equal(reply->n_members, 2);
    assert_string_equal(reply->members[0]->name, "n4");
    assert_int_equal(reply->members[0]->keys, 6);
    assert_int_equal(reply->members[0]->digest.len, DIGEST_BYTES);
    assert_int_equal(reply->members[0]->digest.data[8], 2);
    assert_false(reply->members[1]->has_digest);
    assert_string_equal(reply->members[1]->reason, "why");
    protobuf_c_message_free_unpacked(&reply->base, NULL);
    compare.action = 2;
    fake_send(client, FRAME_COMPARE, 3, &compare.base, NULL, 0);
    fixture->consensus.write_status = STATUS_NOT_LEADER;
    compare.action = 1;
    fake_send(client, FRAME_COMPARE, 4, &compare.base, NULL, 0);
    fixture_run(fixture);
    assert_error(client, 2, 3, WIRE_INVALID, "nothing that this node does about comparing");
    Wire__Error *error = fake_message(client, 3, FRAME_ERROR, &wire__error__descriptor);
    assert_int_equal(error->code, WIRE_NOT_LEADER);
    protobuf_c_message_free_unpacked(&error->base, NULL);
}

static void test_clients_wrong_upkeep_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    char *long_text = calloc(1, LIMIT_KEY_BYTES + 2);
    memset(long_text, '/', LIMIT_KEY_BYTES + 1);
    const struct {
        uint32_t action;
        const char *lower, *upper, *dir, *words;
    } cases[] = {
        {CONSENSUS_UPKEEP_CANCEL + 1, "", "", NULL, "no job that this node knows"},
        {UINT32_MAX, "", "", NULL, "no job that this node knows"},
        {CONSENSUS_UPKEEP_COMPACT, "b", "a", NULL, "the range is empty"},
        {CONSENSUS_UPKEEP_COMPACT, long_text, "", NULL, "more than 4096 bytes"},
        {CONSENSUS_UPKEEP_CHECKPOINT, "", "", NULL, "needs an absolute path"},
        {CONSENSUS_UPKEEP_CHECKPOINT, "", "", "", "needs an absolute path"},
        {CONSENSUS_UPKEEP_CHECKPOINT, "", "", "/", "needs an absolute path"},
        {CONSENSUS_UPKEEP_CHECKPOINT, "", "", "backup", "needs an absolute path"},
        {CONSENSUS_UPKEEP_CHECKPOINT, "", "", "/a/../b", "needs an absolute path"},
        {CONSENSUS_UPKEEP_CHECKPOINT, "", "", "/a/..", "needs an absolute path"},
        {CONSENSUS_UPKEEP_CHECKPOINT, "", "", long_text, "needs an absolute path"},
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        send_upkeep(client, i, cases[i].action, cases[i].lower, cases[i].upper, cases[i].dir);
        fixture_run(fixture);
        assert_error(client, i, i, WIRE_INVALID, cases[i].words);
    }
    assert_seen(fixture, "");
    free(long_text);
}

/* ---- Bounds ---------------------------------------------------------------------------------------------------- */

static void test_clients_requests_beyond_the_limit_wait_and_are_all_served(void **state) {
    struct fixture *fixture = *state;
    fixture->config.requests_per_connection_max = 4;
    fixture->consensus.hold = true;
    struct fake_client *client = fake_login(fixture, WRITER);
    for (uint64_t id = 0; id < 100; id++) {
        fake_put(client, id, "key", "value", 5);
    }
    fixture_run(fixture);
    assert_int_equal(fixture->consensus.proposal_count, 4);
    uint32_t rounds = 0;
    while (client->frame_count < 100) {
        fixture_answer(fixture);
        assert_true(fixture->consensus.proposal_count <= 4);
        assert_in_range(++rounds, 1, 25);
    }
    for (uint32_t i = 0; i < 100; i++) {
        assert_written(client, i, i, 101 + i);
    }
}

static void test_clients_bytes_beyond_the_limit_are_refused_busy(void **state) {
    struct fixture *fixture = *state;
    fixture->config.proposal_bytes_max = 2 * MIB;
    fixture->consensus.hold = true;
    struct fake_client *client = fake_login(fixture, WRITER);
    char *value = calloc(1, MIB);
    fake_put(client, 1, "k", value, MIB);
    fake_put(client, 2, "k", value, MIB - 2);
    fake_put(client, 3, "k", value, 1);
    fixture_run(fixture);
    assert_error(client, 0, 3, WIRE_BUSY, "(proposal_bytes_max)");
    fixture_answer(fixture);
    fake_put(client, 4, "k", value, MIB);
    fixture_run(fixture);
    fixture_answer(fixture);
    assert_written(client, 1, 1, 101);
    assert_written(client, 3, 4, 103);
    free(value);
}

static void test_clients_idle_connection_is_closed(void **state) {
    struct fixture *fixture = *state;
    fixture->config.idle_timeout_ms = 10 * 1000;
    struct fake_client *idle = fake_login(fixture, ADMIN);
    struct fake_client *busy = fake_login(fixture, ADMIN);
    struct fake_client *waiting = fake_login(fixture, ADMIN);
    fixture->consensus.hold = true;
    fake_put(waiting, 1, "key", "value", 5);
    for (int second = 0; second < 12; second++) {
        fixture_advance_ms(fixture, 1000);
        assert_int_equal(idle->closed, second >= 9);
        fake_send(busy, FRAME_PING, 1, NULL, NULL, 0);
        fixture_run(fixture);
    }
    assert_false(busy->closed);
    assert_false(waiting->closed); /* it waits for us, not we for it */
    assert_int_equal(fixture_count_log(fixture, "reason=\"idle\""), 1);
}

static void test_clients_no_idle_timeout_keeps_connections(void **state) {
    struct fixture *fixture = *state;
    fixture->config.idle_timeout_ms = 0;
    struct fake_client *client = fake_login(fixture, ADMIN);
    fixture_advance_ms(fixture, 24 * 3600 * 1000ull);
    assert_false(client->closed);
}

/* ---- Ends ------------------------------------------------------------------------------------------------------ */

static void test_clients_lost_connection_leaves_requests_to_end_silently(void **state) {
    struct fixture *fixture = *state;
    fixture->consensus.hold = true;
    struct fake_client *gone = fake_login(fixture, ADMIN);
    struct fake_client *other = fake_login(fixture, ADMIN);
    for (uint64_t id = 0; id < 5; id++) {
        fake_put(gone, id, "key", "value", 5);
        fake_get(gone, 10 + id, "key", NULL);
    }
    fake_send(gone, FRAME_STATUS, 3, NULL, NULL, 0);
    fixture_run(fixture);
    memory_stream_reset(gone->stream);
    fixture_run(fixture);
    assert_int_equal(clients_connection_count(fixture->clients), 1);
    fake_put(other, 77, "key", "value", 5);
    fixture_run(fixture);
    fixture_answer(fixture);
    assert_int_equal(other->frame_count, 1);
    assert_written(other, 0, 77, 106);
}

/* Its requests that were not begun are forgotten with it: nobody is there to be told. */
static void test_clients_connection_that_ends_while_paused_goes(void **state) {
    struct fixture *fixture = *state;
    fixture->config.requests_per_connection_max = 1;
    fixture->consensus.hold = true;
    struct fake_client *client = fake_login(fixture, WRITER);
    for (uint64_t id = 0; id < 3; id++) {
        fake_put(client, id, "key", "value", 5);
    }
    fixture_run(fixture);
    connection_finish(client->connection);
    fixture_run(fixture);
    fixture_answer(fixture);
    assert_seen(fixture, "put key=value;");
    assert_int_equal(clients_connection_count(fixture->clients), 0);
}

static void test_clients_stop_answers_what_is_in_flight(void **state) {
    struct fixture *fixture = *state;
    fixture->consensus.hold = true;
    struct fake_client *busy = fake_login(fixture, ADMIN);
    struct fake_client *idle = fake_login(fixture, ADMIN);
    fake_put(busy, 1, "key", "value", 5);
    fixture_run(fixture);
    clients_stop(fixture->clients, 2000 * 1000, fake_stopped, fixture);
    fixture_run(fixture);
    assert_true(idle->closed);
    assert_int_equal(idle->end.code, STATUS_OK);
    assert_false(busy->closed);
    assert_false(fixture->stopped);
    fake_put(busy, 2, "late", "value", 5);
    fixture_answer(fixture);
    assert_true(fixture->stopped);
    assert_true(busy->closed);
    assert_int_equal(busy->frame_count, 1);
    assert_written(busy, 0, 1, 101);
    assert_seen(fixture, "put key=value;");
}

static void test_clients_stop_without_answers_ends_after_grace_and_the_last_request(void **state) {
    struct fixture *fixture = *state;
    fixture->consensus.hold = true;
    struct fake_client *client = fake_login(fixture, ADMIN);
    fake_put(client, 1, "key", "value", 5);
    fixture_run(fixture);
    clients_stop(fixture->clients, 2000 * 1000, fake_stopped, fixture);
    fixture_advance_ms(fixture, 1999);
    assert_false(client->closed);
    fixture_advance_ms(fixture, 1);
    assert_true(client->closed);
    assert_false(fixture->stopped); /* the consensus actor still has its request */
    fixture_answer(fixture);
    assert_true(fixture->stopped);
}

static void test_clients_stop_with_nobody_there_ends_at_once(void **state) {
    struct fixture *fixture = *state;
    fixture_stop(fixture, 2000);
    assert_true(fixture->stopped);
}

/* Each allocation of a whole session fails once: an error or a lost connection, never a crash, a leak or a wrong
 * answer. */
static void test_clients_each_failed_allocation_is_survived(void **state) {
    (void)state;
    bool all_went = false;
    for (uint64_t n = 1; !all_went; n++) {
        struct fixture *fixture = calloc(1, sizeof *fixture);
        fixture_prepare(fixture, n);
        fixture_add_key(fixture, "disk", 2000, true);
        fixture_add_key(fixture, "key", 2000, false);
        fixture_start(fixture);
        struct fake_client *client = fake_login(fixture, ADMIN);
        char value[1000] = "";
        uint32_t kinds[] = {1, 2};
        uint32_t lens[] = {1, 1};
        uint32_t value_lens[] = {1, 0};
        Wire__ScanRequest scan = WIRE__SCAN_REQUEST__INIT;
        fixture->world.alloc.fail_at = fixture->world.alloc.calls + n;
        if (client->connection != NULL &&
            connection_send(client->connection, FRAME_PING, 0, NULL, NULL, 0) == STATUS_OK) {
            static const uint8_t types[] = {FRAME_PUT, FRAME_BATCH, FRAME_GET, FRAME_GET, FRAME_SCAN, FRAME_STATUS};
            for (uint32_t i = 0; i < sizeof types && client->connection != NULL; i++) {
                Wire__PutRequest put = WIRE__PUT_REQUEST__INIT;
                put.has_key = 1;
                put.key = fake_bytes("key");
                Wire__GetRequest get = WIRE__GET_REQUEST__INIT;
                get.has_key = 1;
                get.key = fake_bytes(i == 2 ? "key" : "disk");
                Wire__BatchRequest batch = WIRE__BATCH_REQUEST__INIT;
                batch.n_kinds = batch.n_key_lens = batch.n_value_lens = 2;
                batch.kinds = kinds;
                batch.key_lens = lens;
                batch.value_lens = value_lens;
                const ProtobufCMessage *messages[] = {&put.base, &batch.base, &get.base, &get.base, &scan.base, NULL};
                struct slice raw = i == 0 ? slice_of(value, sizeof value) : i == 1 ? slice_of("ab!", 3) : SLICE_EMPTY;
                enum status status = connection_send(client->connection, types[i], i + 1, messages[i], &raw, 1);
                assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
                fixture_run(fixture);
            }
        }
        all_went = fixture->world.alloc.fail_at > fixture->world.alloc.calls;
        assert_int_equal(client->frame_count == 7 || client->closed || !all_went, true);
        fixture->world.alloc.fail_at = 0;
        fixture_end(fixture);
        assert_in_range(n, 1, 200);
    }
}

static void test_clients_start_failures_leave_nothing(void **state) {
    (void)state;
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture_prepare(fixture, 1);
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        struct clients_options options = {.env = &fixture->world.env,
                                          .loop = &fixture->world.loop,
                                          .transport = &fixture->transport,
                                          .consensus = &fixture->consensus,
                                          .config = &fixture->config,
                                          .logger = &fixture->logger,
                                          .listen_address = "clients:1"};
        size_t blocks = fixture->world.alloc.blocks;
        struct error error = {0};
        fixture->world.alloc.fail_at = fixture->world.alloc.calls + n;
        status = clients_start(&options, &fixture->clients, &error);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && error.message[0] != '\0'));
        assert_true(status == STATUS_OK || fixture->world.alloc.blocks <= blocks + 1); /* the loop's timer heap stays */
    }
    fixture->world.alloc.fail_at = 0;
    assert_string_equal(clients_address(fixture->clients), "clients:1");
    fixture_end(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_clients_known_identity_is_greeted),
        TEST(test_clients_stranger_is_refused_with_its_thumbprint),
        TEST(test_clients_no_certificate_is_refused_without_thumbprint),
        TEST(test_clients_expired_certificate_of_a_known_identity_is_refused),
        TEST(test_clients_more_than_the_limit_are_refused_busy),
        TEST(test_clients_wrong_requests_get_typed_errors),
        TEST(test_clients_ping_is_answered_with_who_leads),
        TEST(test_clients_malformed_frame_ends_the_connection_with_one_line),
        TEST(test_clients_roles_limit_what_is_done),
        TEST(test_clients_explain_log_tells_segments_and_their_pins),
        TEST(test_clients_status_tells_what_consensus_and_config_know),
        TEST(test_clients_upkeep_is_begun_and_told_of),
        TEST(test_clients_comparison_is_begun_and_told_of),
        TEST(test_clients_wrong_upkeep_is_refused),
        TEST(test_clients_requests_beyond_the_limit_wait_and_are_all_served),
        TEST(test_clients_bytes_beyond_the_limit_are_refused_busy),
        TEST(test_clients_idle_connection_is_closed),
        TEST(test_clients_no_idle_timeout_keeps_connections),
        TEST(test_clients_lost_connection_leaves_requests_to_end_silently),
        TEST(test_clients_connection_that_ends_while_paused_goes),
        TEST(test_clients_stop_answers_what_is_in_flight),
        TEST(test_clients_stop_without_answers_ends_after_grace_and_the_last_request),
        TEST(test_clients_stop_with_nobody_there_ends_at_once),
        cmocka_unit_test(test_clients_each_failed_allocation_is_survived),
        cmocka_unit_test(test_clients_start_failures_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
