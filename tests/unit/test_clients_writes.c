/*
 * Writes at the client front end. What would break: a write that is lost, that becomes another one, or is told the
 * wrong outcome; a range delete that takes a key too many or too few; a malformed batch that reaches the log.
 */
#include "tests/unit/clients_fixture.h"

/* ---- Writes ---------------------------------------------------------------------------------------------------- */

static void test_clients_put_reaches_the_log_and_is_answered(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    fixture->world.segment_bytes_max = 7; /* bytes trickle in */
    fake_put(client, 41, "key", "value", 5);
    fake_put(client, 42, "empty", "", 0);
    fixture_run(fixture);
    assert_seen(fixture, "put key=value;put empty=;");
    assert_int_equal(client->frame_count, 2);
    assert_written(client, 0, 41, 101);
    assert_written(client, 1, 42, 102);
}

static void test_clients_largest_put_is_taken(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    char *key = calloc(1, LIMIT_KEY_BYTES + 1);
    char *value = calloc(1, LIMIT_VALUE_BYTES);
    memset(key, 'k', LIMIT_KEY_BYTES);
    fake_put(client, 1, key, value, LIMIT_VALUE_BYTES);
    fixture_run(fixture);
    assert_written(client, 0, 1, 101);
    free(key);
    free(value);
}

static void test_clients_delete_is_a_delete(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    Wire__DeleteRequest delete = WIRE__DELETE_REQUEST__INIT;
    delete.has_key = 1;
    delete.key = fake_bytes("key");
    fake_send(client, FRAME_DELETE, 5, &delete.base, NULL, 0);
    fixture_run(fixture);
    assert_seen(fixture, "delete key=;");
    assert_written(client, 0, 5, 101);
}

static void send_batch(struct fake_client *client, uint64_t id, uint32_t *kinds, uint32_t *key_lens,
                       uint32_t *value_lens, size_t count, const void *raw, size_t raw_len) {
    Wire__BatchRequest batch = WIRE__BATCH_REQUEST__INIT;
    batch.n_kinds = batch.n_key_lens = batch.n_value_lens = count;
    batch.kinds = kinds;
    batch.key_lens = key_lens;
    batch.value_lens = value_lens;
    fake_send(client, FRAME_BATCH, id, &batch.base, raw, raw_len);
}

static void test_clients_batch_is_one_entry_in_order(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    uint32_t kinds[] = {1, 2, 1};
    uint32_t key_lens[] = {1, 2, 3};
    uint32_t value_lens[] = {4, 0, 1};
    send_batch(client, 9, kinds, key_lens, value_lens, 3, "aVALUbbccc!", 11);
    fixture_run(fixture);
    assert_written(client, 0, 9, 101); /* one revision */
    assert_int_equal(client->frame_count, 1);
    assert_seen(fixture, "put a=VALU;delete bb=;put ccc=!;");
}

static void test_clients_timeouts_become_deadlines(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    static const struct {
        uint32_t timeout_ms;
        uint64_t granted_ms;
    } cases[] = {{0, 5000}, {1, 1}, {700, 700}, {60000, 60000}, {60001, 60000}, {UINT32_MAX, 60000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Wire__DeleteRequest delete = WIRE__DELETE_REQUEST__INIT;
        delete.has_key = delete.has_timeout_ms = 1;
        delete.key = fake_bytes("key");
        delete.timeout_ms = cases[i].timeout_ms;
        fake_send(client, FRAME_DELETE, i, &delete.base, NULL, 0);
        fixture_run(fixture);
        assert_int_equal(fixture->consensus.seen_deadline_us, fixture->world.now_us + cases[i].granted_ms * 1000);
    }
}

/* Hazard 51: "surely not" and "perhaps" are never mixed up, and the leader is named. */
static void test_h51_clients_outcomes_are_told_apart(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    static const struct {
        enum status status;
        bool unknown;
        enum wire_code code;
        const char *words;
    } cases[] = {
        {STATUS_NOT_LEADER, false, WIRE_NOT_LEADER, "ask n2 at host-2:4400"},
        {STATUS_UNAVAILABLE, false, WIRE_UNAVAILABLE, "no leader"},
        {STATUS_BUSY, false, WIRE_BUSY, "try again"},
        {STATUS_TIMEOUT, false, WIRE_TIMEOUT, "not done within"},
        {STATUS_TIMEOUT, true, WIRE_TIMEOUT, "may or may not"},
        {STATUS_NO_SPACE, false, WIRE_NO_SPACE, "disk"},
        {STATUS_TOO_LARGE, false, WIRE_TOO_LARGE, "larger than"},
        {STATUS_FAILED, false, WIRE_UNAVAILABLE, "failed"},
        {STATUS_UNAVAILABLE, true, WIRE_UNAVAILABLE, "may or may not"},
    };
    fixture->consensus.leader = 2;
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fixture->consensus.write_status = cases[i].status;
        fixture->consensus.write_unknown = cases[i].unknown;
        fake_put(client, 70 + i, "key", "value", 5);
        fixture_run(fixture);
        Wire__Error *error = fake_message(client, i, FRAME_ERROR, &wire__error__descriptor);
        assert_int_equal(client->frames[i].request_id, 70 + i);
        assert_int_equal(error->code, cases[i].code);
        assert_true(error->has_outcome);
        assert_int_equal(error->outcome,
                         cases[i].unknown ? WIRE__OUTCOME__OUTCOME_UNKNOWN : WIRE__OUTCOME__OUTCOME_FAILED);
        assert_non_null(strstr(error->message, cases[i].words));
        bool hint = cases[i].status == STATUS_NOT_LEADER;
        assert_int_equal(error->leader_id, hint ? 2 : 0);
        assert_int_equal(error->leader_address != NULL, hint);
        protobuf_c_message_free_unpacked(&error->base, NULL);
    }
}

/* ---- Range deletes --------------------------------------------------------------------------------------------- */

static void send_range(struct fake_client *client, uint64_t id, struct slice lower, struct slice upper) {
    Wire__DeleteRangeRequest range = WIRE__DELETE_RANGE_REQUEST__INIT;
    range.has_lower = range.has_upper = 1;
    range.lower = (ProtobufCBinaryData){lower.len, (uint8_t *)lower.data};
    range.upper = (ProtobufCBinaryData){upper.len, (uint8_t *)upper.data};
    fake_send(client, FRAME_DELETE_RANGE, id, &range.base, NULL, 0);
}

static void test_clients_range_delete_is_one_operation(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    send_range(client, 5, slice_of_string("a"), slice_of_string("b"));
    send_range(client, 6, slice_of_string("key"), slice_of("key\0", 4));
    fixture_run(fixture);
    assert_int_equal(fixture->consensus.seen.data[fixture->consensus.seen.len - 2], '\0');
    fixture->consensus.seen.data[fixture->consensus.seen.len - 2] = '0';
    assert_seen(fixture, "range a=b;range key=key0;");
    assert_written(client, 0, 5, 101);
    assert_written(client, 1, 6, 102);
}

/* Without an end even the last key that there can be goes, which no range's end can be above; without a lower bound the
 * first one. */
static void test_clients_range_delete_without_bounds_takes_every_key(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    char last[LIMIT_KEY_BYTES + 1];
    memset(last, 0xff, sizeof last);
    send_range(client, 1, SLICE_EMPTY, SLICE_EMPTY);
    fixture_run(fixture);
    struct buf *seen = &fixture->consensus.seen;
    struct buf want;
    buf_init(&want, alloc_system(), 0);
    assert_int_equal(buf_append(&want, "range \0=", 8), STATUS_OK);
    assert_int_equal(buf_append(&want, last, 64), STATUS_OK); /* what the fake writes down of it */
    assert_int_equal(buf_append(&want, ";delete ", 8), STATUS_OK);
    assert_int_equal(buf_append(&want, last, LIMIT_KEY_BYTES), STATUS_OK);
    assert_int_equal(buf_append(&want, "=;", 2), STATUS_OK);
    assert_int_equal(seen->len, want.len);
    assert_memory_equal(seen->data, want.data, want.len);
    assert_written(client, 0, 1, 101); /* one entry */
    /* From the last key on there is nothing but it. */
    buf_clear(seen);
    send_range(client, 2, slice_of(last, LIMIT_KEY_BYTES), SLICE_EMPTY);
    fixture_run(fixture);
    assert_int_equal(seen->len, 7 + LIMIT_KEY_BYTES + 2);
    assert_memory_equal(seen->data, "delete ", 7);
    assert_written(client, 1, 2, 102);
    buf_deinit(&want);
}

static void test_clients_wrong_range_deletes_get_typed_errors(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    char long_key[LIMIT_KEY_BYTES + 1];
    memset(long_key, 'k', sizeof long_key);
    const struct {
        struct slice lower, upper;
        enum wire_code code;
        const char *words;
    } cases[] = {
        {slice_of_string("b"), slice_of_string("a"), WIRE_INVALID, "the range is empty"},
        {slice_of_string("b"), slice_of_string("b"), WIRE_INVALID, "the range is empty"},
        {SLICE_EMPTY, slice_of("", 1), WIRE_INVALID, "the range is empty"},
        {slice_of(long_key, sizeof long_key), SLICE_EMPTY, WIRE_TOO_LARGE, "a bound of the range is too long"},
        {SLICE_EMPTY, slice_of(long_key, sizeof long_key), WIRE_TOO_LARGE, "a bound of the range is too long"},
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        send_range(client, i, cases[i].lower, cases[i].upper);
        fixture_run(fixture);
        assert_error(client, i, i, cases[i].code, cases[i].words);
    }
    assert_seen(fixture, "");
}

static void test_clients_batch_takes_range_deletes_in_order(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, WRITER);
    uint32_t kinds[] = {1, 3, 1};
    uint32_t key_lens[] = {1, 1, 2};
    uint32_t value_lens[] = {1, 2, 1};
    send_batch(client, 9, kinds, key_lens, value_lens, 3, "avaccbbw", 8);
    fixture_run(fixture);
    assert_written(client, 0, 9, 101);
    assert_seen(fixture, "put a=v;range a=cc;put bb=w;");
}

/* ---- Wrong batches --------------------------------------------------------------------------------------------- */

static void test_clients_wrong_batches_get_typed_errors(void **state) {
    struct fixture *fixture = *state;
    struct fake_client *client = fake_login(fixture, ADMIN);
    static const struct {
        uint32_t kind;
        uint32_t key_len;
        uint32_t value_len;
        size_t raw_len;
        enum wire_code code;
        const char *words;
    } cases[] = {
        {0, 1, 1, 2, WIRE_INVALID, "operation 2 is neither a put nor a range delete"},
        {4, 1, 1, 2, WIRE_INVALID, "operation 2 is neither a put nor a range delete nor a delete"},
        {2, 1, 1, 2, WIRE_INVALID, "operation 2 is neither a put nor a range delete nor a delete without a value"},
        {3, 1, 0, 1, WIRE_INVALID, "operation 2: the range has no end"},
        {3, 1, 1, 2, WIRE_INVALID, "operation 2: the range is empty"}, /* both bounds are zero bytes */
        {3, 2, 1, 3, WIRE_INVALID, "operation 2: the range is empty"},
        {3, 1, 4097, 4098, WIRE_TOO_LARGE, "operation 2: a bound of the range is too long"},
        {3, 0, 1, 1, WIRE_INVALID, "operation 2: the key is empty"},
        {3, 1, UINT32_MAX, 2, WIRE_TOO_LARGE, "operation 2: the value has 4294967295 bytes"},
        {1, 0, 1, 1, WIRE_INVALID, "operation 2: the key is empty"},
        {1, 4097, 1, 4098, WIRE_TOO_LARGE, "operation 2: the key is too long"},
        {1, 1, 16777217, 16777218, WIRE_TOO_LARGE, "operation 2: the value has 16777217 bytes"},
        {1, 1, 2, 2, WIRE_INVALID, "add up to another number than its 4 bytes"},
        {1, 1, 0, 2, WIRE_INVALID, "add up to another number than its 4 bytes"},
        {1, 4096, UINT32_MAX, 2, WIRE_TOO_LARGE, "operation 2: the value has 4294967295 bytes"},
    };
    uint8_t *raw = calloc(1, LIMIT_FRAME_RAW_BYTES);
    uint32_t at = 0;
    for (; at < sizeof cases / sizeof cases[0]; at++) {
        uint32_t kinds[] = {1, cases[at].kind};
        uint32_t key_lens[] = {1, cases[at].key_len};
        uint32_t value_lens[] = {1, cases[at].value_len};
        send_batch(client, at, kinds, key_lens, value_lens, 2, raw, 2 + cases[at].raw_len);
        fixture_run(fixture);
        assert_error(client, at, at, cases[at].code, cases[at].words);
    }
    /* None at all, lists of unequal length, too many, too much. */
    uint32_t one[] = {1, 1};
    send_batch(client, at, one, one, one, 0, raw, 0);
    fixture_run(fixture);
    assert_error(client, at, at, WIRE_INVALID, "has 0 kinds");
    at++;
    Wire__BatchRequest unequal = WIRE__BATCH_REQUEST__INIT;
    unequal.n_kinds = 2;
    unequal.n_key_lens = unequal.n_value_lens = 1;
    unequal.kinds = unequal.key_lens = unequal.value_lens = one;
    fake_send(client, FRAME_BATCH, at, &unequal.base, raw, 2);
    fixture_run(fixture);
    assert_error(client, at, at, WIRE_INVALID, "2 kinds, 1 key lengths and 1 value lengths");
    at++;
    uint32_t *many = calloc(LIMIT_BATCH_OPERATIONS + 1, sizeof *many);
    for (uint32_t i = 0; i <= LIMIT_BATCH_OPERATIONS; i++) {
        many[i] = 1;
    }
    send_batch(client, at, many, many, many, LIMIT_BATCH_OPERATIONS + 1, raw, 2 * (LIMIT_BATCH_OPERATIONS + 1));
    fixture_run(fixture);
    assert_error(client, at, at, WIRE_TOO_LARGE, "65537 operations; the limit is 65536");
    at++;
    uint32_t kinds[] = {1, 1};
    uint32_t big_key_lens[] = {1, 1};
    uint32_t big_lens[] = {LIMIT_VALUE_BYTES, 70 * 1024};
    send_batch(client, at, kinds, big_key_lens, big_lens, 2, raw, 2 + LIMIT_VALUE_BYTES + 70 * 1024);
    fixture_run(fixture);
    assert_error(client, at, at, WIRE_TOO_LARGE, "bytes in the log; the limit is 16842752");
    at++;
    send_batch(client, at, many, many, many, LIMIT_BATCH_OPERATIONS, raw, 2 * LIMIT_BATCH_OPERATIONS); /* just fits */
    fixture_run(fixture);
    assert_written(client, at, at, 101);
    free(many);
    free(raw);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_clients_put_reaches_the_log_and_is_answered),
        TEST(test_clients_largest_put_is_taken),
        TEST(test_clients_delete_is_a_delete),
        TEST(test_clients_batch_is_one_entry_in_order),
        TEST(test_clients_timeouts_become_deadlines),
        TEST(test_h51_clients_outcomes_are_told_apart),
        TEST(test_clients_range_delete_is_one_operation),
        TEST(test_clients_range_delete_without_bounds_takes_every_key),
        TEST(test_clients_wrong_range_deletes_get_typed_errors),
        TEST(test_clients_batch_takes_range_deletes_in_order),
        TEST(test_clients_wrong_batches_get_typed_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
