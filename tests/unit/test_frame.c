/*
 * Breaks when: a header field moves or changes its width; a decoder lets a wrong magic, version, flag or length
 * through, or changes its output on failure; a status or wire code maps to something else (the numbers are on the
 * wire).
 */
#include "proto/frame.h"

#include "node/base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct frame_header sample = {.type = FRAME_PUT,
                                           .request_id = 0x1122334455667788,
                                           .message_len = 0x00010203,
                                           .raw_len = 0x00040506};

static const uint8_t sample_bytes[FRAME_HEADER_BYTES] = {
    0x48, 0x46, 0x52, 0x31,                         /* "HFR1" */
    1,    16,   0,    0,                            /* version, type, flags */
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, /* request id */
    0x03, 0x02, 0x01, 0x00,                         /* message length */
    0x06, 0x05, 0x04, 0x00,                         /* raw length */
};

static enum status decode(const uint8_t *bytes, struct frame_header *ret, struct error *err) {
    return frame_header_decode(bytes, LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES, ret, err);
}

static void test_frame_header_encoded_matches_golden_bytes(void **state) {
    (void)state;
    uint8_t out[FRAME_HEADER_BYTES];
    memset(out, 0xff, sizeof out);
    frame_header_encode(out, &sample);
    assert_memory_equal(out, sample_bytes, sizeof out);
}

static void test_frame_header_decoded_gives_every_field(void **state) {
    (void)state;
    struct frame_header header;
    assert_int_equal(decode(sample_bytes, &header, NULL), STATUS_OK);
    assert_int_equal(header.type, sample.type);
    assert_true(header.request_id == sample.request_id);
    assert_int_equal(header.message_len, sample.message_len);
    assert_int_equal(header.raw_len, sample.raw_len);
}

static void test_frame_header_damaged_is_refused_and_leaves_output(void **state) {
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        enum status status;
        const char *says;
    } cases[] = {
        {0, 0x47, STATUS_CORRUPT, "not a frame"},
        {3, 0x32, STATUS_CORRUPT, "not a frame"},
        {4, 0, STATUS_UNSUPPORTED, "version 0"},
        {4, 2, STATUS_UNSUPPORTED, "version 2"},
        {6, 1, STATUS_CORRUPT, "flags 0001"},
        {7, 0x80, STATUS_CORRUPT, "flags 8000"},
        {19, 0x80, STATUS_TOO_LARGE, "the limit is 1048576"},
        {23, 0xff, STATUS_TOO_LARGE, "raw bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[FRAME_HEADER_BYTES];
        memcpy(bytes, sample_bytes, sizeof bytes);
        bytes[cases[i].at] = cases[i].value;
        struct frame_header header;
        memset(&header, 0x5a, sizeof header);
        struct error err;
        assert_int_equal(decode(bytes, &header, &err), cases[i].status);
        assert_int_equal(err.code, cases[i].status);
        assert_non_null(strstr(err.message, cases[i].says));
        assert_int_equal(header.message_len, 0x5a5a5a5a);
    }
}

static void test_frame_header_lengths_at_the_limit_pass_and_beyond_fail(void **state) {
    (void)state;
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header = {.type = FRAME_GET, .message_len = 100, .raw_len = 200};
    frame_header_encode(bytes, &header);
    assert_int_equal(frame_header_decode(bytes, 100, 200, &header, NULL), STATUS_OK);
    assert_int_equal(frame_header_decode(bytes, 99, 200, &header, NULL), STATUS_TOO_LARGE);
    assert_int_equal(frame_header_decode(bytes, 100, 199, &header, NULL), STATUS_TOO_LARGE);
}

static void test_frame_header_of_unknown_type_passes(void **state) {
    (void)state;
    uint8_t bytes[FRAME_HEADER_BYTES];
    memcpy(bytes, sample_bytes, sizeof bytes);
    bytes[5] = 255;
    struct frame_header header;
    assert_int_equal(decode(bytes, &header, NULL), STATUS_OK);
    assert_int_equal(header.type, 255);
}

/* What both sides of the wire agree on: written out, not computed. */
static void test_wire_code_of_every_status_is_fixed(void **state) {
    (void)state;
    static const int expected[STATUS_COUNT] = {
        [STATUS_OK] = 0,          [STATUS_NOT_FOUND] = 1,  [STATUS_EXISTS] = 16,     [STATUS_CORRUPT] = 11,
        [STATUS_IO] = 12,         [STATUS_NO_SPACE] = 10,  [STATUS_NO_MEMORY] = 4,   [STATUS_INVALID] = 2,
        [STATUS_TOO_LARGE] = 3,   [STATUS_BUSY] = 4,       [STATUS_TIMEOUT] = 5,     [STATUS_CLOSED] = 7,
        [STATUS_CANCELLED] = 7,   [STATUS_NOT_LEADER] = 6, [STATUS_UNAVAILABLE] = 7, [STATUS_DENIED] = 8,
        [STATUS_UNSUPPORTED] = 9, [STATUS_CONDITION] = 15, [STATUS_UNKNOWN] = 14,    [STATUS_COMPACTED] = 13,
        [STATUS_FAILED] = 7,      [STATUS_PENDING] = 12,
    };
    for (int status = 0; status < STATUS_COUNT; status++) {
        assert_int_equal(wire_code_of((enum status)status), expected[status]);
        assert_true((status_of_wire((uint32_t)expected[status]) == STATUS_OK) == (status == STATUS_OK));
    }
}

static void test_status_of_wire_covers_every_code_and_no_other(void **state) {
    (void)state;
    for (uint32_t code = 0; code <= WIRE_EXISTS; code++) {
        assert_int_equal(wire_code_of(status_of_wire(code)), code);
    }
    for (uint32_t code = WIRE_NO_CERTIFICATE; code <= WIRE_REMOVED; code++) {
        assert_int_equal(status_of_wire(code), STATUS_DENIED);
    }
    static const uint32_t unknown[] = {WIRE_EXISTS + 1, WIRE_NO_CERTIFICATE - 1, WIRE_REMOVED + 1, 1000, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        assert_int_equal(status_of_wire(unknown[i]), STATUS_UNSUPPORTED);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_header_encoded_matches_golden_bytes),
        cmocka_unit_test(test_frame_header_decoded_gives_every_field),
        cmocka_unit_test(test_frame_header_damaged_is_refused_and_leaves_output),
        cmocka_unit_test(test_frame_header_lengths_at_the_limit_pass_and_beyond_fail),
        cmocka_unit_test(test_frame_header_of_unknown_type_passes),
        cmocka_unit_test(test_wire_code_of_every_status_is_fixed),
        cmocka_unit_test(test_status_of_wire_covers_every_code_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
