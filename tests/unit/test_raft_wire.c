/*
 * Raft messages through their wire form. Breaks when: a field doesn't arrive as it left; a message without a digest
 * costs bytes for one, or arrives with one; a digest of another length than 16 bytes is read.
 */
#include "node/server/raft_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PACKED_BYTES_MAX = 512 };

static size_t pack(const struct raft_message *message, uint8_t bytes[PACKED_BYTES_MAX]) {
    Wire__RaftMessage wire;
    raft_wire_encode(message, &wire);
    size_t len = wire__raft_message__get_packed_size(&wire);
    assert_true(len <= PACKED_BYTES_MAX);
    assert_int_equal(wire__raft_message__pack(&wire, bytes), len);
    return len;
}

static struct raft_message there(const uint8_t *bytes, size_t len) {
    Wire__RaftMessage *wire = wire__raft_message__unpack(NULL, len, bytes);
    assert_non_null(wire);
    struct raft_message message;
    memset(&message, 0xff, sizeof message);
    assert_int_equal(raft_wire_decode(wire, &message, NULL), STATUS_OK);
    wire__raft_message__free_unpacked(wire, NULL);
    return message;
}

static void test_raft_wire_every_field_arrives(void **state) {
    (void)state;
    struct raft_message message = {.type = RAFT_APPEND, .reject = true, .from = 1, .to = 2, .term = 3};
    message.index = 4;
    message.log_term = 5;
    message.commit = 6;
    message.hint_index = 7;
    message.hint_term = 8;
    message.round = 9;
    message.floor = 10;
    message.incarnation = UINT64_MAX - 1;
    message.entry_count = 11;
    message.lost_log = true;
    message.life = 12;
    message.needs_snapshot = 13;
    message.digest_index = UINT64_MAX;
    memset(message.digest, 0xd1, sizeof message.digest);
    uint8_t bytes[PACKED_BYTES_MAX];
    struct raft_message arrived = there(bytes, pack(&message, bytes));
    assert_int_equal(arrived.type, message.type);
    assert_true(arrived.reject);
    assert_int_equal(arrived.from, 1);
    assert_int_equal(arrived.to, 2);
    assert_int_equal(arrived.term, 3);
    assert_int_equal(arrived.index, 4);
    assert_int_equal(arrived.log_term, 5);
    assert_int_equal(arrived.commit, 6);
    assert_int_equal(arrived.hint_index, 7);
    assert_int_equal(arrived.hint_term, 8);
    assert_int_equal(arrived.incarnation, UINT64_MAX - 1);
    assert_int_equal(arrived.round, 9);
    assert_int_equal(arrived.floor, 10);
    assert_int_equal(arrived.entry_count, 11);
    assert_true(arrived.lost_log);
    assert_int_equal(arrived.life, 12);
    assert_int_equal(arrived.needs_snapshot, 13);
    assert_true(arrived.digest_index == UINT64_MAX);
    assert_memory_equal(arrived.digest, message.digest, sizeof message.digest);
    assert_null(arrived.entries);
}

static void test_raft_wire_message_without_a_digest_carries_none(void **state) {
    (void)state;
    static const uint8_t zeroes[RAFT_DIGEST_BYTES];
    struct raft_message message = {.type = RAFT_HEARTBEAT, .from = 1, .to = 2, .term = 3};
    memset(message.digest, 0xd1, sizeof message.digest);
    uint8_t bytes[PACKED_BYTES_MAX];
    size_t len = pack(&message, bytes);
    assert_true(len <= 8);
    struct raft_message arrived = there(bytes, len);
    assert_int_equal(arrived.digest_index, 0);
    assert_memory_equal(arrived.digest, zeroes, sizeof zeroes);
}

static void test_raft_wire_digest_of_another_length_is_refused(void **state) {
    (void)state;
    static uint8_t bytes[RAFT_DIGEST_BYTES + 1];
    for (size_t len = 0; len <= sizeof bytes; len++) {
        Wire__RaftMessage wire = WIRE__RAFT_MESSAGE__INIT;
        struct raft_message message;
        wire.type = RAFT_HEARTBEAT;
        wire.digest_index = 1;
        wire.digest = (ProtobufCBinaryData){.data = len > 0 ? bytes : NULL, .len = len};
        enum status want = len == RAFT_DIGEST_BYTES ? STATUS_OK : STATUS_CORRUPT;
        assert_int_equal(raft_wire_decode(&wire, &message, NULL), want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raft_wire_every_field_arrives),
        cmocka_unit_test(test_raft_wire_message_without_a_digest_carries_none),
        cmocka_unit_test(test_raft_wire_digest_of_another_length_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
