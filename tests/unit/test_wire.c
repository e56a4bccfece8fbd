/*
 * Breaks when: unpacking a message costs more than its arena's budget, touches memory it doesn't own when the budget or
 * memory runs out, or accepts malformed bytes; when a schema becomes recursive (protobuf-c recurses with it) or gets a
 * required field.
 */
#include "node/base/limits.h"
#include "proto/connection.h"
#include "tests/unit/support/memory_net.h"
#include "tests/unit/support/wire_messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_wire_unpack_of_packed_message_gives_it_back(void **state) {
    (void)state;
    Wire__PutRequest request = WIRE__PUT_REQUEST__INIT;
    request.has_key = true;
    request.key = (ProtobufCBinaryData){.data = (uint8_t *)"key", .len = 3};
    request.has_timeout_ms = true;
    request.timeout_ms = 1500;
    uint8_t bytes[64];
    size_t len = protobuf_c_message_pack(&request.base, bytes);
    struct arena arena;
    arena_init(&arena, alloc_system(), 1024, LIMIT_UNPACK_BUDGET_BYTES);
    ProtobufCMessage *message = wire_unpack(&arena, &wire__put_request__descriptor, slice_of(bytes, len));
    assert_non_null(message);
    const Wire__PutRequest *got = (const Wire__PutRequest *)(const void *)message;
    assert_int_equal(got->key.len, 3);
    assert_memory_equal(got->key.data, "key", 3);
    assert_int_equal(got->timeout_ms, 1500);
    arena_deinit(&arena);
}

/* The list that tests and the fuzzer go through has every message of the schema. */
static void test_wire_messages_are_all_listed(void **state) {
    (void)state;
    FILE *file = fopen("proto/wire.proto", "r");
    char line[1024];
    unsigned count = 0;
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        count += strncmp(line, "message ", 8) == 0;
    }
    (void)fclose(file);
    assert_int_equal(count, wire_message_count);
}

static void test_wire_unpack_of_nothing_gives_defaults(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, alloc_system(), 1024, LIMIT_UNPACK_BUDGET_BYTES);
    for (unsigned i = 0; i < wire_message_count; i++) {
        assert_non_null(wire_unpack(&arena, wire_messages[i], SLICE_EMPTY));
    }
    arena_deinit(&arena);
}

static void test_wire_unpack_of_malformed_bytes_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"\x0a", 1}, /* a field without its length */
        {"\x0a\x05"
         "ab",
         4},                                                      /* a length beyond the end */
        {"\x0a\xff\xff\xff\xff\x0f", 6},                          /* a length of 4 GiB */
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},     /* of 2^64 - 1 */
        {"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12}, /* a varint without end */
        {"\x0b", 1},                                              /* a group */
        {"\x00\x00", 2},                                          /* field number 0 */
    };
    struct arena arena;
    arena_init(&arena, alloc_system(), 1024, LIMIT_UNPACK_BUDGET_BYTES);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_null(wire_unpack(&arena, &wire__put_request__descriptor, slice_of(cases[i].bytes, cases[i].len)));
    }
    arena_deinit(&arena);
}

/* Repeats a piece until the message is as long as a frame allows. */
static size_t repeat(uint8_t *out, const char *piece, size_t piece_len) {
    size_t len = 0;
    while (len + piece_len <= LIMIT_FRAME_MESSAGE_BYTES) {
        memcpy(out + len, piece, piece_len);
        len += piece_len;
    }
    return len;
}

static void test_h35_wire_unpack_of_bombs_stays_within_budget(void **state) {
    (void)state;
    static const struct {
        const ProtobufCMessageDescriptor *descriptor;
        const char *piece;
        size_t len;
    } bombs[] = {
        {&wire__status_reply__descriptor, "\xca\x01\x00", 3},  /* 350,000 empty members */
        {&wire__put_request__descriptor, "\xf8\x07\x00", 3},   /* unknown fields */
        {&wire__put_request__descriptor, "\x10\x01", 2},       /* the same scalar again and again */
        {&wire__get_request__descriptor, "\x12\x00", 2},       /* the same nested message, merged each time */
        {&wire__batch_request__descriptor, "\x08\x01", 2},     /* a packed field, unpacked */
        {&wire__batch_request__descriptor, "\x0a\x01\x01", 3}, /* packed, one element at a time */
    };
    uint8_t *bytes = malloc(LIMIT_FRAME_MESSAGE_BYTES);
    assert_non_null(bytes);
    for (size_t i = 0; i < sizeof bombs / sizeof bombs[0]; i++) {
        struct memory_world world;
        memory_world_init(&world, 1);
        struct arena arena;
        arena_init(&arena, &world.alloc.base, 4096, LIMIT_UNPACK_BUDGET_BYTES);
        size_t len = repeat(bytes, bombs[i].piece, bombs[i].len);
        assert_null(wire_unpack(&arena, bombs[i].descriptor, slice_of(bytes, len)));
        assert_true(arena.used_bytes <= LIMIT_UNPACK_BUDGET_BYTES);
        assert_true(world.alloc.peak_bytes <= 2 * LIMIT_UNPACK_BUDGET_BYTES);
        arena_deinit(&arena);
        memory_world_deinit(&world);
    }
    free(bytes);
}

static size_t status_reply_bytes(uint8_t *out) {
    Wire__MemberStatus members[3];
    Wire__MemberStatus *list[3];
    for (int i = 0; i < 3; i++) {
        wire__member_status__init(&members[i]);
        members[i].name = (char *)"n1";
        members[i].client_address = (char *)"127.0.0.1:4401";
        list[i] = &members[i];
    }
    Wire__StatusReply reply = WIRE__STATUS_REPLY__INIT;
    reply.node_name = (char *)"n1";
    reply.problem = (char *)"none";
    reply.n_members = 3;
    reply.members = list;
    size_t len = protobuf_c_message_pack(&reply.base, out);
    memcpy(out + len,
           "\xfa\x7f\x03"
           "new",
           6); /* a field of a later version */
    return len + 6;
}

static void test_wire_unpack_under_every_budget_fails_cleanly_or_succeeds(void **state) {
    (void)state;
    uint8_t bytes[512];
    size_t len = status_reply_bytes(bytes);
    bool fitted = false;
    for (size_t budget = 0; budget <= 8192; budget += 16) {
        struct arena arena;
        arena_init(&arena, alloc_system(), 256, budget);
        bool ok = wire_unpack(&arena, &wire__status_reply__descriptor, slice_of(bytes, len)) != NULL;
        assert_true(ok || !fitted);
        fitted = ok;
        arena_deinit(&arena);
    }
    assert_true(fitted);
}

static void test_wire_unpack_with_each_allocation_failing_is_clean(void **state) {
    (void)state;
    uint8_t bytes[512];
    size_t len = status_reply_bytes(bytes);
    struct memory_world world;
    memory_world_init(&world, 1);
    bool ok = false;
    for (uint64_t nth = 1; !ok; nth++) {
        struct arena arena;
        arena_init(&arena, &world.alloc.base, 16, LIMIT_UNPACK_BUDGET_BYTES);
        world.alloc.calls = 0;
        world.alloc.fail_at = nth;
        ok = wire_unpack(&arena, &wire__status_reply__descriptor, slice_of(bytes, len)) != NULL;
        assert_true(ok == (world.alloc.calls < nth));
        arena_deinit(&arena);
        assert_true(nth < 1000);
    }
    memory_world_deinit(&world);
}

enum { DEPTH_MAX = 4, PATH_MAX_DESCRIPTORS = 64 };

static void test_wire_schemas_are_not_recursive_and_require_nothing(void **state) {
    (void)state;
    struct {
        const ProtobufCMessageDescriptor *descriptor;
        unsigned depth;
    } open[PATH_MAX_DESCRIPTORS];
    size_t open_count = 0;
    for (unsigned i = 0; i < wire_message_count; i++) {
        open[open_count].descriptor = wire_messages[i];
        open[open_count++].depth = 1;
    }
    while (open_count > 0) {
        open_count--;
        const ProtobufCMessageDescriptor *descriptor = open[open_count].descriptor;
        unsigned depth = open[open_count].depth;
        assert_true(depth <= DEPTH_MAX);
        for (unsigned f = 0; f < descriptor->n_fields; f++) {
            assert_int_not_equal(descriptor->fields[f].label, PROTOBUF_C_LABEL_REQUIRED);
            if (descriptor->fields[f].type == PROTOBUF_C_TYPE_MESSAGE) {
                assert_true(open_count < PATH_MAX_DESCRIPTORS);
                open[open_count].descriptor = descriptor->fields[f].descriptor;
                open[open_count++].depth = depth + 1;
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wire_unpack_of_packed_message_gives_it_back),
        cmocka_unit_test(test_wire_messages_are_all_listed),
        cmocka_unit_test(test_wire_unpack_of_nothing_gives_defaults),
        cmocka_unit_test(test_wire_unpack_of_malformed_bytes_is_refused),
        cmocka_unit_test(test_h35_wire_unpack_of_bombs_stays_within_budget),
        cmocka_unit_test(test_wire_unpack_under_every_budget_fails_cleanly_or_succeeds),
        cmocka_unit_test(test_wire_unpack_with_each_allocation_failing_is_clean),
        cmocka_unit_test(test_wire_schemas_are_not_recursive_and_require_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
