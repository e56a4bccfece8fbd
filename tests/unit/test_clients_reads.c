/*
 * Gets and scans through the client front end. What would break: a read before its barrier, a value of another
 * revision, a revision that is no longer kept answered from memory, a page that loses or repeats a key, a block that
 * hangs and holds up others, a slow reader that takes gigabytes (hazard 55), a view that is never released.
 */
#include "tests/unit/clients_fixture.h"

enum { DISK_CLIENTS = FAKE_CLIENTS_MAX, DISK_GETS = 80, DISK_READS_MAX = 1024, DISK_READS_OF_ONE_MAX = 64 };

/* ---- Gets ------------------------------------------------------------------------------------------------------ */

static void assert_value(const struct fake_client *client, uint32_t at, uint64_t id, uint64_t revision,
                         uint64_t mod_revision, size_t len) {
    Wire__GetReply *reply = fake_message(client, at, FRAME_GET_REPLY, &wire__get_reply__descriptor);
    assert_int_equal(client->frames[at].request_id, id);
    assert_true(reply->found);
    assert_int_equal(reply->revision, revision);
    assert_int_equal(reply->mod_revision, mod_revision);
    assert_int_equal(fake_raw(client, at).len, len);
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(fake_raw(client, at).data[i], 'v');
    }
    protobuf_c_message_free_unpacked(&reply->base, NULL);
}

static void assert_absent(const struct fake_client *client, uint32_t at, uint64_t id, uint64_t revision) {
    Wire__GetReply *reply = fake_message(client, at, FRAME_GET_REPLY, &wire__get_reply__descriptor);
    assert_int_equal(client->frames[at].request_id, id);
    assert_false(reply->found);
    assert_int_equal(reply->revision, revision);
    assert_int_equal(fake_raw(client, at).len, 0);
    protobuf_c_message_free_unpacked(&reply->base, NULL);
}

static void test_clients_get_from_memory_is_answered_after_its_barrier(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "key", 300, false);
    fixture_add_key(fixture, "empty", 0, false);
    fixture->consensus.hold = true;
    struct fake_client *client = fake_login(fixture, READER);
    fake_get(client, 5, "key", NULL);
    fake_get(client, 6, "empty", NULL);
    fake_get(client, 7, "none", NULL);
    fixture_run(fixture);
    assert_int_equal(client->frame_count, 0);
    assert_false(fixture->consensus.seen_local);
    assert_int_equal(fixture->consensus.seen_at_least, 0);
    assert_int_equal(fixture->consensus.storage.views, 0); /* taken after the barrier only */
    fixture->consensus.storage.applied = 150;
    fixture_answer(fixture);
    assert_value(client, 0, 5, 150, 101, 300);
    assert_value(client, 1, 6, 150, 102, 0);
    assert_absent(client, 2, 7, 150);
    assert_int_equal(fixture->consensus.storage.read_count, 0);
}

static void test_clients_read_options_reach_the_barrier(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "key", 3, false);
    struct fake_client *client = fake_login(fixture, READER);
    static const struct {
        bool local;
        uint64_t revision;
        uint64_t at_least;
        bool seen_local;
        uint64_t seen_at_least;
    } cases[] = {
        {false, 0, 0, false, 0}, {true, 0, 0, true, 0},      {false, 0, 77, false, 77},
        {true, 0, 77, true, 77}, {false, 101, 0, true, 101}, {false, 101, 102, true, 102},
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Wire__ReadOptions options = WIRE__READ_OPTIONS__INIT;
        options.has_local = options.has_revision = options.has_at_least = options.has_timeout_ms = 1;
        options.local = cases[i].local;
        options.revision = cases[i].revision;
        options.at_least = cases[i].at_least;
        options.timeout_ms = 1234;
        fake_get(client, i, "key", &options);
        fixture_run(fixture);
        assert_int_equal(fixture->consensus.seen_local, cases[i].seen_local);
        assert_int_equal(fixture->consensus.seen_at_least, cases[i].seen_at_least);
        assert_int_equal(fixture->consensus.seen_deadline_us, fixture->world.now_us + 1234 * 1000);
        assert_value(client, i, i, 101, 101, 3);
    }
}

static void test_clients_get_at_a_revision_shows_that_revision(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "old", 1, false);
    fixture_add_key(fixture, "new", 1, false);
    struct fake_client *client = fake_login(fixture, READER);
    Wire__ReadOptions options = WIRE__READ_OPTIONS__INIT;
    options.has_revision = 1;
    options.revision = 101;
    fake_get(client, 1, "old", &options);
    fake_get(client, 2, "new", &options);
    options.revision = 103; /* the barrier says applied, the view says no: never a lie */
    fake_get(client, 3, "old", &options);
    fixture_run(fixture);
    assert_value(client, 0, 1, 101, 101, 1);
    assert_absent(client, 1, 2, 101);
    assert_error(client, 2, 3, WIRE_UNAVAILABLE, "revision 103 is beyond what this node shows, 102");
}

static void test_clients_refused_reads_are_told_why(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, READER);
    Wire__ReadOptions options = WIRE__READ_OPTIONS__INIT;
    fixture->consensus.leader = 2;
    fixture->consensus.read_status = STATUS_NOT_LEADER;
    fake_get(client, 1, "key", NULL);
    fixture_run(fixture);
    assert_error(client, 0, 1, WIRE_NOT_LEADER, "ask n2 at host-2:4400");
    fixture->consensus.read_status = STATUS_TIMEOUT;
    options.has_revision = 1;
    options.revision = 999;
    fake_get(client, 2, "key", &options);
    fixture_run(fixture);
    assert_error(client, 1, 2, WIRE_TIMEOUT, "revision 999 is not applied on this node yet");
    fixture->consensus.read_status = STATUS_UNAVAILABLE;
    fake_get(client, 3, "key", NULL);
    fixture_run(fixture);
    assert_error(client, 2, 3, WIRE_UNAVAILABLE, "no leader");
}

static void test_clients_get_from_disk_delays_no_other(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "disk", 70000, true);
    fixture_add_key(fixture, "gone", 1, true);
    fixture_add_key(fixture, "key", 3, false);
    fixture->hold_reads = true;
    struct fake_client *client = fake_login(fixture, READER);
    fake_get(client, 1, "disk", NULL);
    fake_get(client, 2, "key", NULL);
    fake_get(client, 3, "gone", NULL);
    fixture_run(fixture);
    assert_int_equal(fixture->consensus.storage.read_count, 2);
    assert_int_equal(client->frame_count, 1);
    assert_value(client, 0, 2, 103, 103, 3); /* doesn't wait for the disk */
    fake_end_reads(&fixture->consensus.storage);
    fixture_run(fixture);
    assert_value(client, 1, 1, 103, 101, 70000);
    assert_absent(client, 2, 3, 103);
    fixture->consensus.storage.disk_status = STATUS_CORRUPT;
    fake_get(client, 4, "disk", NULL);
    fixture_run(fixture);
    fake_end_reads(&fixture->consensus.storage);
    fixture_run(fixture);
    assert_error(client, 3, 4, WIRE_CORRUPT, "block 7 of 000001.sst is damaged");
}

static void test_clients_connection_lost_during_disk_read_releases_all(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "disk", 100, true);
    fixture->hold_reads = true;
    struct fake_client *client = fake_login(fixture, READER);
    Wire__ScanRequest scan = WIRE__SCAN_REQUEST__INIT;
    fake_get(client, 1, "disk", NULL);
    fake_send(client, FRAME_SCAN, 2, &scan.base, NULL, 0);
    fixture_run(fixture);
    assert_int_equal(fixture->consensus.storage.read_count, 2);
    memory_stream_reset(client->stream);
    fixture_run(fixture);
    assert_int_equal(clients_connection_count(fixture->clients), 0);
    assert_int_equal(fixture->consensus.storage.views, 2); /* the reads' still */
    clients_stop(fixture->clients, 0, fake_stopped, fixture);
    fixture_advance_ms(fixture, 1);
    assert_false(fixture->stopped);
    fake_end_reads(&fixture->consensus.storage);
    fixture_run(fixture);
    assert_true(fixture->stopped);
}

/* One block can't be read, and the disk says nothing. Who asked for it waits; nobody else does, on the same connection
 * neither. */
static void test_clients_hung_block_delays_no_other_request(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "disk", 10, true);
    fixture_add_key(fixture, "hung", 10, true);
    fixture_add_key(fixture, "key", 10, false);
    fixture->consensus.storage.hangs = true;
    struct fake_client *client = fake_login(fixture, READER);
    struct fake_client *other = fake_login(fixture, WRITER);
    Wire__ScanRequest scan = WIRE__SCAN_REQUEST__INIT;
    fake_get(client, 1, "hung", NULL);
    fake_send(client, FRAME_SCAN, 2, &scan.base, NULL, 0); /* meets it, too */
    fake_get(client, 3, "disk", NULL);
    fake_get(client, 4, "key", NULL);
    fake_get(other, 5, "disk", NULL);
    fake_put(other, 6, "key", "value", 5);
    fixture_run(fixture);
    assert_int_equal(fixture->consensus.storage.read_count, 2);
    assert_int_equal(client->frame_count, 2);
    assert_value(client, 0, 4, 103, 103, 10);
    assert_value(client, 1, 3, 103, 101, 10);
    assert_int_equal(other->frame_count, 2);
    fixture->consensus.storage.hangs = false;
    fixture_run(fixture);
    assert_int_equal(client->frame_count, 4);
}

enum { HUNG_GETS = 300, HUNG_SCANS = 20 };

/* As many ask for it as may wait for blocks, and more: what is in memory is read all the same. */
static void test_clients_hung_block_that_many_want_delays_nothing_in_memory(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "hung", 10, true);
    fixture_add_key(fixture, "key", 10, false);
    fixture->consensus.storage.hangs = true;
    struct fake_client *client = fake_login(fixture, READER);
    for (uint64_t id = 0; id < HUNG_GETS; id++) {
        fake_get(client, id, "hung", NULL);
    }
    fixture_run(fixture);
    assert_int_equal(fixture->consensus.storage.read_count, DISK_READS_OF_ONE_MAX);
    fake_get(client, 1000, "key", NULL);
    Wire__ScanRequest scan = WIRE__SCAN_REQUEST__INIT;
    scan.has_lower = 1;
    scan.lower = (ProtobufCBinaryData){.len = 1, .data = (uint8_t *)"k"};
    fake_send(client, FRAME_SCAN, 1001, &scan.base, NULL, 0);
    fixture_run(fixture);
    assert_int_equal(client->frame_count, 2);
    assert_int_equal(client->frames[0].request_id, 1000);
    assert_int_equal(client->frames[1].request_id, 1001);
    scan.lower.len = 0; /* these meet it */
    for (uint64_t id = 0; id < HUNG_SCANS; id++) {
        fake_send(client, FRAME_SCAN, 2000 + id, &scan.base, NULL, 0);
    }
    fake_get(client, 1002, "key", NULL);
    fixture_run(fixture);
    assert_int_equal(fixture->consensus.storage.read_count, DISK_READS_OF_ONE_MAX + 8);
    assert_int_equal(fixture->consensus.storage.views, DISK_READS_OF_ONE_MAX + 8); /* those parked hold none */
    assert_int_equal(client->frame_count, 3);
    fixture->consensus.storage.hangs = false;
    fixture_run(fixture);
    assert_int_equal(client->frame_count, 3 + HUNG_GETS + HUNG_SCANS);
}

static void test_clients_revision_below_the_horizon_is_refused_even_from_memory(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "old", 1, false);
    fixture_add_key(fixture, "new", 1, false);
    fixture->consensus.storage.horizon = 102;
    struct fake_client *client = fake_login(fixture, READER);
    Wire__ReadOptions options = WIRE__READ_OPTIONS__INIT;
    options.has_revision = 1;
    options.revision = 101;
    fake_get(client, 1, "old", &options);
    Wire__ScanRequest scan = WIRE__SCAN_REQUEST__INIT;
    scan.options = &options;
    fake_send(client, FRAME_SCAN, 2, &scan.base, NULL, 0);
    options.revision = 102;
    fake_get(client, 3, "old", &options);
    fixture_run(fixture);
    assert_error(client, 0, 1, WIRE_COMPACTED, "the oldest that can be read is 102");
    assert_error(client, 1, 2, WIRE_COMPACTED, "the oldest that can be read is 102");
    assert_value(client, 2, 3, 102, 101, 1);
}

/* One connection doesn't take all the room, all together don't take more than there is, and who waited is served as
 * soon as there is some. */
static void test_clients_disk_reads_are_bounded_and_all_answered(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *clients[DISK_CLIENTS];
    fixture_add_key(fixture, "disk", 10, true);
    fixture->hold_reads = true;
    for (uint32_t i = 0; i < DISK_CLIENTS; i++) {
        clients[i] = fake_login(fixture, READER);
        for (uint64_t id = 0; id < DISK_GETS; id++) {
            fake_get(clients[i], id, "disk", NULL);
        }
        fixture_run(fixture);
        uint32_t wanted = (i + 1) * DISK_READS_OF_ONE_MAX;
        assert_int_equal(fixture->consensus.storage.read_count, wanted < DISK_READS_MAX ? wanted : DISK_READS_MAX);
        assert_int_equal(fixture->consensus.storage.views, fixture->consensus.storage.read_count);
    }
    for (uint32_t round = 0; fixture->consensus.storage.read_count > 0; round++) {
        assert_in_range(round, 0, DISK_GETS);
        fake_end_reads(&fixture->consensus.storage);
        fixture_run(fixture);
        assert_true(fixture->consensus.storage.read_count <= DISK_READS_MAX);
    }
    for (uint32_t i = 0; i < DISK_CLIENTS; i++) {
        assert_int_equal(clients[i]->frame_count, DISK_GETS);
        for (uint32_t k = 0; k < DISK_GETS; k++) {
            assert_value(clients[i], k, k, 101, 101, 10);
        }
    }
}

/* ---- Scans ----------------------------------------------------------------------------------------------------- */

struct scan {
    const char *lower;
    const char *upper;
    uint32_t limit;
    bool keys_only;
    bool count_only;
    uint64_t revision;
};

static void send_scan(struct fake_client *client, uint64_t id, const struct scan *scan) {
    Wire__ScanRequest request = WIRE__SCAN_REQUEST__INIT;
    Wire__ReadOptions options = WIRE__READ_OPTIONS__INIT;
    request.has_lower = request.has_upper = request.has_limit = request.has_keys_only = request.has_count_only = 1;
    request.lower = fake_bytes(scan->lower);
    request.upper = fake_bytes(scan->upper);
    request.limit = scan->limit;
    request.keys_only = scan->keys_only;
    request.count_only = scan->count_only;
    options.has_revision = 1;
    options.revision = scan->revision;
    request.options = &options;
    fake_send(client, FRAME_SCAN, id, &request.base, NULL, 0);
}

/* Sends, runs, returns the reply, which is the last frame. */
static Wire__ScanReply *do_scan(struct fixture *fixture, struct fake_client *client, const struct scan *scan) {
    send_scan(client, 1, scan);
    fixture_run(fixture);
    return fake_message(client, client->frame_count - 1, FRAME_SCAN_REPLY, &wire__scan_reply__descriptor);
}

static void free_reply(Wire__ScanReply *reply) { protobuf_c_message_free_unpacked(&reply->base, NULL); }

static void add_keys(struct fixture *fixture, uint32_t count, size_t value_len, bool on_disk) {
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "k%05u", i);
        fixture_add_key(fixture, key, value_len, on_disk);
    }
}

static void test_clients_scan_returns_pairs_in_order(void **state) {
    struct fixture *fixture = *state;
    add_keys(fixture, 5, 2, false);
    struct fake_client *client = fake_login(fixture, READER);
    Wire__ScanReply *reply = do_scan(fixture, client, &(struct scan){"k00001", "k00004", 0, false, false, 0});
    assert_int_equal(reply->count, 3);
    assert_false(reply->more);
    assert_int_equal(reply->revision, 105);
    assert_int_equal(reply->n_key_lens, 3);
    assert_int_equal(reply->n_value_lens, 3);
    assert_int_equal(reply->n_mod_revisions, 3);
    assert_int_equal(reply->mod_revisions[2], 104);
    assert_true(slice_equal(fake_raw(client, 0), slice_of_string("k00001vvk00002vvk00003vv")));
    free_reply(reply);
    reply = do_scan(fixture, client, &(struct scan){"", "", 0, true, false, 0});
    assert_int_equal(reply->count, 5);
    assert_int_equal(reply->n_value_lens, 0);
    assert_true(slice_equal(fake_raw(client, 1), slice_of_string("k00000k00001k00002k00003k00004")));
    free_reply(reply);
    reply = do_scan(fixture, client, &(struct scan){"", "", 0, false, false, 102});
    assert_int_equal(reply->count, 2); /* as of that revision */
    assert_int_equal(reply->revision, 102);
    free_reply(reply);
    static const struct scan empty[] = {{"l", "", 0, false, false, 0},
                                        {"k", "k", 0, false, false, 0},
                                        {"z", "a", 0, false, false, 0},
                                        {"a", "k", 0, false, true, 0}};
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        reply = do_scan(fixture, client, &empty[i]);
        assert_int_equal(reply->count, 0);
        assert_false(reply->more);
        assert_int_equal(fake_raw(client, client->frame_count - 1).len, 0);
        free_reply(reply);
    }
}

static void test_clients_scan_limit_says_whether_there_is_more(void **state) {
    struct fixture *fixture = *state;
    add_keys(fixture, 5, 2, false);
    struct fake_client *client = fake_login(fixture, READER);
    for (uint32_t limit = 1; limit <= 6; limit++) {
        Wire__ScanReply *reply = do_scan(fixture, client, &(struct scan){"", "", limit, false, false, 0});
        assert_int_equal(reply->count, limit < 5 ? limit : 5);
        assert_int_equal(reply->more, limit < 5);
        free_reply(reply);
        reply = do_scan(fixture, client, &(struct scan){"", "", limit, false, true, 0});
        assert_int_equal(reply->count, limit < 5 ? limit : 5);
        assert_int_equal(reply->more, limit < 5);
        /* A count that stops says where. */
        assert_int_equal(reply->n_key_lens, limit < 5 ? 1 : 0);
        struct slice raw = fake_raw(client, client->frame_count - 1);
        assert_int_equal(raw.len, limit < 5 ? 6 : 0);
        assert_true(raw.len == 0 || raw.data[5] == '0' + (int)limit - 1);
        free_reply(reply);
    }
}

/* From page to page with last key + '\0', as clients do: each key once. */
static void check_pages(struct fixture *fixture, struct fake_client *client, uint32_t key_count, size_t value_len) {
    char lower[32] = "";
    size_t lower_len = 0;
    uint32_t seen = 0;
    bool more = true;
    for (uint32_t page = 0; more; page++) {
        assert_in_range(page, 0, key_count);
        Wire__ScanRequest request = WIRE__SCAN_REQUEST__INIT;
        request.has_lower = 1;
        request.lower = (ProtobufCBinaryData){.len = lower_len, .data = (uint8_t *)lower};
        fake_send(client, FRAME_SCAN, page, &request.base, NULL, 0);
        fixture_run(fixture);
        Wire__ScanReply *reply =
            fake_message(client, client->frame_count - 1, FRAME_SCAN_REPLY, &wire__scan_reply__descriptor);
        struct slice raw = fake_raw(client, client->frame_count - 1);
        assert_true(raw.len <= LIMIT_SCAN_BYTES || reply->count == 1);
        for (uint64_t i = 0; i < reply->count; i++) {
            (void)snprintf(lower, sizeof lower, "k%05u", seen++);
            assert_int_equal(reply->key_lens[i], 6);
            assert_int_equal(reply->value_lens[i], value_len);
            assert_memory_equal(raw.data, lower, 6);
            raw = slice_of(raw.data + 6 + value_len, raw.len - 6 - value_len);
        }
        assert_int_equal(raw.len, 0);
        lower_len = 7; /* with the zero byte */
        more = reply->more;
        free_reply(reply);
    }
    assert_int_equal(seen, key_count);
}

static void test_clients_scan_pages_are_bounded_in_bytes_and_lose_nothing(void **state) {
    struct fixture *fixture = *state;
    add_keys(fixture, 20, MIB, false);
    struct fake_client *client = fake_login(fixture, READER);
    check_pages(fixture, client, 20, MIB);
    assert_int_equal(client->frame_count, 7); /* three fit one page */
}

static void test_clients_scan_of_a_pair_larger_than_a_page_returns_it(void **state) {
    struct fixture *fixture = *state;
    add_keys(fixture, 2, LIMIT_VALUE_BYTES, true);
    struct fake_client *client = fake_login(fixture, READER);
    check_pages(fixture, client, 2, LIMIT_VALUE_BYTES);
}

/* A long scan takes several turns: a get that came with it isn't answered behind it. */
static void test_clients_long_scan_lets_others_pass(void **state) {
    struct fixture *fixture = *state;
    add_keys(fixture, 3000, 8, false);
    struct fake_client *client = fake_login(fixture, READER);
    send_scan(client, 1, &(struct scan){"", "", 0, false, false, 0});
    fake_get(client, 2, "k00007", NULL);
    fixture_run(fixture);
    assert_int_equal(client->frame_count, 2);
    assert_int_equal(client->frames[0].request_id, 2);
    assert_int_equal(client->frames[1].request_id, 1);
    send_scan(client, 3, &(struct scan){"", "", 200, false, false, 0}); /* fits one turn */
    fake_get(client, 4, "k00007", NULL);
    fixture_run(fixture);
    assert_int_equal(client->frames[2].request_id, 3);
    check_pages(fixture, client, 3000, 8);
}

static void test_clients_scan_of_disk_waits_for_blocks_and_reports_damage(void **state) {
    struct fixture *fixture = *state;
    add_keys(fixture, 10, 100, true);
    struct fake_client *client = fake_login(fixture, READER);
    check_pages(fixture, client, 10, 100);
    fixture->consensus.storage.disk_status = STATUS_CORRUPT;
    send_scan(client, 2, &(struct scan){"", "", 0, false, false, 0});
    fixture_run(fixture);
    assert_error(client, 1, 2, WIRE_CORRUPT, "block 7 of 000001.sst is damaged");
}

static void test_clients_scan_bounds_are_checked(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, READER);
    char *bound = calloc(1, LIMIT_KEY_BYTES + 3);
    memset(bound, 'k', LIMIT_KEY_BYTES + 2);
    send_scan(client, 1, &(struct scan){bound, "", 0, false, false, 0});
    send_scan(client, 2, &(struct scan){"", bound, 0, false, false, 0});
    bound[LIMIT_KEY_BYTES + 1] = '\0'; /* what follows the largest key */
    send_scan(client, 3, &(struct scan){bound, bound, 0, false, false, 0});
    fixture_run(fixture);
    assert_error(client, 0, 1, WIRE_TOO_LARGE, "at most 4097 bytes");
    assert_error(client, 1, 2, WIRE_TOO_LARGE, "at most 4097 bytes");
    assert_int_equal(client->frames[2].type, FRAME_SCAN_REPLY);
    free(bound);
}

/* ---- Slow readers ---------------------------------------------------------------------------------------------- */

enum { SLOW_GETS = 100, SLOW_VALUE_BYTES = MIB };

/* 100 MiB are asked for at once; what the front end holds for it stays near one output queue. */
static void test_h55_clients_slow_reader_costs_one_output_queue(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "key", SLOW_VALUE_BYTES, false);
    fixture_add_key(fixture, "disk", SLOW_VALUE_BYTES, true);
    struct fake_client *client = fake_login(fixture, READER);
    connection_pause(client->connection);
    uint64_t writes_before = fixture->world.writes;
    for (uint64_t id = 0; id < SLOW_GETS; id++) {
        fake_get(client, id, id % 2 == 0 ? "key" : "disk", NULL);
    }
    fixture_run(fixture);
    /* The stream's own queue isn't in the world's count, so count replies: one in the client's buffer, one that fills
     * the queue. What was read meanwhile is let go of, to be read again. */
    assert_in_range(fixture->world.writes - writes_before - SLOW_GETS, 1, 3);
    assert_int_equal(fixture->consensus.storage.views, 0);
    assert_true(fixture->world.alloc.used_bytes < 2 * MIB);
    assert_true(fixture->world.alloc.peak_bytes < 8 * MIB);
    assert_true(fixture->world.sent_bytes < 2 * MIB);
    uint64_t writes_stalled = fixture->world.writes;
    fixture_advance_ms(fixture, 1000);
    assert_int_equal(fixture->world.writes, writes_stalled);
    connection_resume(client->connection);
    fixture_run(fixture);
    assert_int_equal(client->frame_count, SLOW_GETS);
    bool answered[SLOW_GETS] = {false};
    for (uint32_t i = 0; i < SLOW_GETS; i++) {
        assert_int_equal(client->frames[i].raw_len, SLOW_VALUE_BYTES);
        assert_false(answered[client->frames[i].request_id]);
        answered[client->frames[i].request_id] = true;
    }
    assert_true(fixture->world.alloc.peak_bytes < 8 * MIB);
}

static void test_h55_clients_reader_that_never_reads_is_closed(void **state) {
    struct fixture *fixture = *state;
    fixture_add_key(fixture, "key", SLOW_VALUE_BYTES, false);
    struct fake_client *client = fake_login(fixture, READER);
    connection_pause(client->connection);
    for (uint64_t id = 0; id < 10; id++) {
        fake_get(client, id, "key", NULL);
    }
    fixture_run(fixture);
    for (int second = 0; second < 29; second++) {
        fixture_advance_ms(fixture, 1000);
    }
    assert_int_equal(clients_connection_count(fixture->clients), 1);
    fixture_advance_ms(fixture, 2000);
    assert_int_equal(clients_connection_count(fixture->clients), 0);
    assert_int_equal(fixture_count_log(fixture, "doesn't read its replies"), 1);
    connection_resume(client->connection);
    fixture_run(fixture);
}

/* A client that has one small reply before it and takes no more of a large one than the pipe has room for. */
static struct fake_client *ask_for_much(struct fixture *fixture, size_t pipe_bytes) {
    fixture_add_key(fixture, "small", 10, false);
    fixture_add_key(fixture, "large", 4 * SLOW_VALUE_BYTES, false);
    struct fake_client *client = fake_login(fixture, READER);
    fixture->world.pipe_bytes_max = pipe_bytes;
    connection_pause(client->connection);
    fake_get(client, 1, "small", NULL);
    fixture_run(fixture);
    fake_get(client, 2, "large", NULL);
    fixture_run(fixture);
    return client;
}

/* The pipe takes so many bytes more each second. */
static void trickle(struct fixture *fixture, int seconds, size_t bytes) {
    for (int second = 0; second < seconds; second++) {
        fixture->world.pipe_bytes_max += bytes;
        fixture_advance_ms(fixture, 1000);
    }
}

/* However long it takes, until nothing moves any more. */
static void test_clients_slow_reader_of_a_large_reply_stays_as_long_as_it_moves(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = ask_for_much(fixture, 64 * KIB);
    trickle(fixture, 75, 32 * KIB);
    assert_int_equal(clients_connection_count(fixture->clients), 1);
    trickle(fixture, 62, 0);
    assert_int_equal(clients_connection_count(fixture->clients), 0);
    assert_int_equal(fixture_count_log(fixture, "doesn't read its replies"), 1);
    connection_resume(client->connection);
    fixture_run(fixture);
}

static void test_h56_clients_reader_of_a_byte_a_second_is_closed(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = ask_for_much(fixture, 64 * KIB);
    trickle(fixture, 29, 1);
    assert_int_equal(clients_connection_count(fixture->clients), 1);
    trickle(fixture, 3, 1);
    assert_int_equal(clients_connection_count(fixture->clients), 0);
    connection_resume(client->connection);
    fixture_run(fixture);
}

enum { SMALL_REQUESTS = 16000 };

/* Small replies fill the output, too: then nothing more is read from that client, and nobody else feels it. */
static void test_h55_clients_full_output_stops_reading(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, MEMBER);
    struct fake_client *other = fake_login(fixture, WRITER);
    connection_pause(client->connection);
    uint64_t writes_before = fixture->world.writes;
    for (uint64_t id = 0; id < SMALL_REQUESTS; id++) {
        fake_get(client, id, "key", NULL); /* denied with some 120 bytes */
    }
    fixture_run(fixture);
    assert_in_range(fixture->world.writes - writes_before - SMALL_REQUESTS, 1, SMALL_REQUESTS * 3 / 4);
    fake_put(other, 1, "key", "value", 5);
    fixture_run(fixture);
    assert_int_equal(other->frame_count, 1);
    connection_resume(client->connection);
    fixture_run(fixture);
    assert_int_equal(client->frame_count, SMALL_REQUESTS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_clients_get_from_memory_is_answered_after_its_barrier),
        TEST(test_clients_read_options_reach_the_barrier),
        TEST(test_clients_get_at_a_revision_shows_that_revision),
        TEST(test_clients_refused_reads_are_told_why),
        TEST(test_clients_get_from_disk_delays_no_other),
        TEST(test_clients_hung_block_delays_no_other_request),
        TEST(test_clients_hung_block_that_many_want_delays_nothing_in_memory),
        TEST(test_clients_revision_below_the_horizon_is_refused_even_from_memory),
        TEST(test_clients_connection_lost_during_disk_read_releases_all),
        TEST(test_clients_disk_reads_are_bounded_and_all_answered),
        TEST(test_clients_scan_returns_pairs_in_order),
        TEST(test_clients_scan_limit_says_whether_there_is_more),
        TEST(test_clients_scan_pages_are_bounded_in_bytes_and_lose_nothing),
        TEST(test_clients_scan_of_a_pair_larger_than_a_page_returns_it),
        TEST(test_clients_long_scan_lets_others_pass),
        TEST(test_clients_scan_of_disk_waits_for_blocks_and_reports_damage),
        TEST(test_clients_scan_bounds_are_checked),
        TEST(test_h55_clients_slow_reader_costs_one_output_queue),
        TEST(test_h55_clients_reader_that_never_reads_is_closed),
        TEST(test_clients_slow_reader_of_a_large_reply_stays_as_long_as_it_moves),
        TEST(test_h56_clients_reader_of_a_byte_a_second_is_closed),
        TEST(test_h55_clients_full_output_stops_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
