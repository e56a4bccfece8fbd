/*
 * The log's formats: records, group headers, segment headers, byte by byte.
 *
 * What would break these: any change of layout, seed or checksum rule (golden bytes); a length that is believed before
 * it is checked; a flipped bit that passes; a decoder that reads past its input or moves its cursor on failure.
 */
#include "node/base/checksum.h"
#include "tests/unit/wal_harness.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const uint8_t golden_record[] = {0x05, 0x00, 0x00, 0x00, 0x03, 0x01, 0x00, 0x00, 0x15, 0xcd, 0x5b, 0x07, 0x00,
                                        0x00, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0xf7,
                                        0x7f, 0xcd, 0x05, 0x8c, 0xb8, 0x6a, 0x68, 0x65, 0x6c, 0x6c, 0x6f};

static size_t make_record(uint8_t *out) {
    memcpy(out + WAL_RECORD_HEADER_BYTES, "hello", 5);
    wal_record_seal(out, 3, 123456789, 9, 5);
    return WAL_RECORD_HEADER_BYTES + 5;
}

static void print_bytes(const char *name, const uint8_t *bytes, size_t len) {
    fprintf(stderr, "%s:", name);
    for (size_t i = 0; i < len; i++) {
        fprintf(stderr, " 0x%02x,", bytes[i]);
    }
    fprintf(stderr, "\n");
}

/* Says what the bytes are now before it fails. */
static void assert_golden(const char *name, const uint8_t *bytes, const uint8_t *golden, size_t len) {
    if (memcmp(bytes, golden, len) != 0) {
        print_bytes(name, bytes, len);
    }
    assert_memory_equal(bytes, golden, len);
}

/* ---- Records ---------------------------------------------------------------------------------------------------- */

static void test_wal_record_golden_bytes(void **state) {
    (void)state;
    uint8_t bytes[64] = {0};
    assert_int_equal(make_record(bytes), sizeof golden_record);
    assert_golden("record", bytes, golden_record, sizeof golden_record);
}

static void test_wal_record_round_trip(void **state) {
    (void)state;
    static uint8_t bytes[WAL_RECORD_HEADER_BYTES + 5000];
    size_t lengths[] = {0, 1, 7, 16, 17, 128, 129, 240, 241, 1024, 5000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        size_t len = lengths[i];
        harness_fill(bytes + WAL_RECORD_HEADER_BYTES, len, 77, 5);
        wal_record_seal(bytes, 3, 77, 5, len);
        struct slice cursor = slice_of(bytes, sizeof bytes);
        struct wal_record record;
        assert_int_equal(wal_record_decode(&cursor, &record, NULL), STATUS_OK);
        assert_true(harness_is_right(&record, 77, 5, len));
        assert_int_equal(record.bytes.len, WAL_RECORD_HEADER_BYTES + len);
        assert_ptr_equal(cursor.data, bytes + record.bytes.len);
    }
}

static void test_wal_record_every_flipped_bit_is_found(void **state) {
    (void)state;
    uint8_t bytes[64] = {0};
    size_t len = make_record(bytes);
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct slice cursor = slice_of(bytes, len);
        struct wal_record record;
        assert_int_equal(wal_record_decode(&cursor, &record, NULL), STATUS_CORRUPT);
        assert_ptr_equal(cursor.data, bytes); /* not moved */
        assert_int_equal(cursor.len, len);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void test_wal_record_every_cut_is_found(void **state) {
    (void)state;
    uint8_t bytes[64] = {0};
    size_t len = make_record(bytes);
    for (size_t left = 0; left < len; left++) {
        uint8_t *copy = malloc(left > 0 ? left : 1); /* ASan sees a read past it */
        assert_non_null(copy);
        memcpy(copy, bytes, left);
        struct slice cursor = slice_of(copy, left);
        struct wal_record record;
        assert_int_equal(wal_record_decode(&cursor, &record, NULL), STATUS_CORRUPT);
        free(copy);
    }
}

/* h35: a length is checked against what is there before it is used. */
static void test_h35_record_length_is_not_trusted(void **state) {
    (void)state;
    uint32_t lengths[] = {6,         LIMIT_ENTRY_PAYLOAD_BYTES, LIMIT_ENTRY_PAYLOAD_BYTES + 1,
                          INT32_MAX, UINT32_MAX - 31,           UINT32_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t bytes[64] = {0};
        size_t len = make_record(bytes);
        put_u32(bytes, lengths[i]);
        uint8_t *copy = malloc(len);
        assert_non_null(copy);
        memcpy(copy, bytes, len);
        struct slice cursor = slice_of(copy, len);
        struct wal_record record;
        struct error error;
        assert_int_equal(wal_record_decode(&cursor, &record, &error), STATUS_CORRUPT);
        assert_non_null(strstr(error.message, "claims"));
        free(copy);
    }
}

/* ---- Groups ----------------------------------------------------------------------------------------------------- */

static const uint8_t golden_group[WAL_GROUP_HEADER_BYTES] = {
    0x48, 0x46, 0x57, 0x41, 0x4c, 0x47, 0x52, 0x50, 0x01, 0x00, 0x00, 0x00, 0xfe, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x2a, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x63, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x62,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x64, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xef, 0xcd, 0xab, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x4b, 0xf4,
    0x96, 0xa7, 0x4a, 0x50, 0x4f, 0x50, 0x78, 0xac, 0xcd, 0xbc, 0xad, 0x0e, 0x94, 0x59};

static size_t make_group(uint8_t *out, struct wal__group_header *header) {
    uint32_t offsets[3];
    size_t len = WAL_GROUP_HEADER_BYTES;
    for (uint32_t i = 0; i < 3; i++) {
        offsets[i] = (uint32_t)len;
        harness_fill(out + len + WAL_RECORD_HEADER_BYTES, i * 10, 100 + i, 9);
        wal_record_seal(out + len, 3, 100 + i, 9, i * 10);
        len += WAL_RECORD_HEADER_BYTES + i * 10;
    }
    *header = (struct wal__group_header){.total_bytes = (uint32_t)len,
                                         .record_count = 3,
                                         .generation = 0x1122334455667788,
                                         .sequence = 42,
                                         .synced_index = 99,
                                         .synced_term = 8,
                                         .commit_index = 98,
                                         .term = 9,
                                         .vote = 2,
                                         .first_index = 100,
                                         .previous_checksum = 0xabcdef};
    wal__group_seal(out, header, offsets);
    return len;
}

/* Sound bytes that say what no writer says. */
static void test_wal_record_implausible_headers_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
    } cases[] = {{4, 0}, {5, 0}, {5, 2}, {6, 1}, {7, 0x80}};
    uint8_t bytes[64] = {0};
    struct wal_record record;
    for (size_t i = 0; i <= sizeof cases / sizeof cases[0]; i++) {
        size_t len = make_record(bytes);
        if (i < sizeof cases / sizeof cases[0]) {
            bytes[cases[i].at] = cases[i].value;
        } else {
            put_u64(bytes + 8, 0); /* no entry has this index */
        }
        uint64_t seed = checksum64(bytes, 24, 0x686f6c6466726563);
        put_u64(bytes + 24, checksum64(bytes + WAL_RECORD_HEADER_BYTES, 5, seed));
        struct slice cursor = slice_of(bytes, len);
        struct error error;
        assert_int_equal(wal_record_decode(&cursor, &record, &error), STATUS_CORRUPT);
        assert_non_null(strstr(error.message, "with kind")); /* not its checksum */
        assert_int_equal(cursor.len, len);
    }
}

static void test_wal_group_golden_bytes(void **state) {
    (void)state;
    uint8_t bytes[512] = {0};
    struct wal__group_header header;
    (void)make_group(bytes, &header);
    assert_golden("group", bytes, golden_group, sizeof golden_group);
}

static void test_wal_group_round_trip(void **state) {
    (void)state;
    uint8_t bytes[512] = {0};
    struct wal__group_header header;
    struct wal__group_header decoded;
    (void)make_group(bytes, &header);
    memset(&decoded, 0, sizeof decoded);
    assert_int_equal(wal__group_header_decode(bytes, &decoded), STATUS_OK);
    assert_int_equal(decoded.sequence, 42);
    assert_int_equal(decoded.previous_checksum, 0xabcdef);
    assert_int_equal(decoded.checksum, header.checksum);
    assert_int_equal(decoded.body_checksum, header.body_checksum);
    assert_int_equal(wal__group_last_index(&decoded), 102);
    assert_int_equal(wal__group_check_body(&decoded, bytes), STATUS_OK);
}

static void test_wal_group_every_flipped_bit_is_found(void **state) {
    (void)state;
    uint8_t bytes[512] = {0};
    struct wal__group_header header;
    size_t len = make_group(bytes, &header);
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct wal__group_header decoded;
        enum status status = wal__group_header_decode(bytes, &decoded);
        if (bit / 8 < WAL_GROUP_HEADER_BYTES) {
            assert_int_equal(status, STATUS_CORRUPT);
        } else {
            assert_int_equal(status, STATUS_OK);
            assert_int_equal(wal__group_check_body(&decoded, bytes), STATUS_CORRUPT);
        }
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* A sound record of another place or life, in the right position, doesn't pass: the body's checksum binds record
 * headers. */
static void test_h37_foreign_record_in_group_is_found(void **state) {
    (void)state;
    uint8_t bytes[512] = {0};
    struct wal__group_header header;
    (void)make_group(bytes, &header);
    harness_fill(bytes + WAL_GROUP_HEADER_BYTES + WAL_RECORD_HEADER_BYTES, 0, 100, 8);
    wal_record_seal(bytes + WAL_GROUP_HEADER_BYTES, 3, 100, 8, 0); /* an old-term record with the same index */
    assert_int_equal(wal__group_check_body(&header, bytes), STATUS_CORRUPT);
    wal_record_seal(bytes + WAL_GROUP_HEADER_BYTES, 1, 100, 9, 0); /* another kind */
    assert_int_equal(wal__group_check_body(&header, bytes), STATUS_CORRUPT);
    wal_record_seal(bytes + WAL_GROUP_HEADER_BYTES, 3, 100, 9, 0);
    assert_int_equal(wal__group_check_body(&header, bytes), STATUS_OK);
}

static void seal_bare(uint8_t *bytes, struct wal__group_header *header) {
    memset(bytes, 0, 512);
    wal__group_seal(bytes, header, NULL);
}

static void test_wal_group_implausible_headers_are_refused(void **state) {
    (void)state;
    const struct wal__group_header sound = {.total_bytes = WAL_GROUP_HEADER_BYTES, .generation = 5, .sequence = 1};
    uint8_t bytes[512];
    struct wal__group_header decoded;
    struct wal__group_header header = sound;
    seal_bare(bytes, &header);
    assert_int_equal(wal__group_header_decode(bytes, &decoded), STATUS_OK);
    header = sound;
    header.flags = 32; /* unknown */
    seal_bare(bytes, &header);
    assert_int_equal(wal__group_header_decode(bytes, &decoded), STATUS_CORRUPT);
    header = sound;
    header.sequence = 0;
    seal_bare(bytes, &header);
    assert_int_equal(wal__group_header_decode(bytes, &decoded), STATUS_CORRUPT);
    header = sound;
    header.total_bytes = WAL_GROUP_HEADER_BYTES + 1; /* more than it holds */
    seal_bare(bytes, &header);
    assert_int_equal(wal__group_header_decode(bytes, &decoded), STATUS_CORRUPT);
    header = sound;
    header.previous_segment = 3; /* not the first of its segment */
    seal_bare(bytes, &header);
    assert_int_equal(wal__group_header_decode(bytes, &decoded), STATUS_CORRUPT);
    header = sound;
    header.flags = WAL__GROUP_RESET;
    seal_bare(bytes, &header);
    assert_int_equal(wal__group_header_decode(bytes, &decoded), STATUS_CORRUPT);
}

/* ---- Segments --------------------------------------------------------------------------------------------------- */

static const uint8_t golden_segment_head[72] = {0x48, 0x46, 0x57, 0x41, 0x4c, 0x53, 0x45, 0x47, 0x01, 0x00, 0x00, 0x00,
                                                0x00, 0x00, 0x00, 0x00, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37,
                                                0x38, 0x39, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x07, 0x00, 0x00, 0x00,
                                                0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                                                0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x00, 0x00, 0x10, 0x00,
                                                0x00, 0x00, 0x00, 0x00, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11};
static const uint8_t golden_segment_checksum[8] = {0xe8, 0x77, 0x69, 0x46, 0x58, 0xce, 0xda, 0xb4};

static void make_segment(uint8_t *block) {
    struct wal__segment_header header = {.node_id = 7,
                                         .number = 3,
                                         .generation = 0x0102030405060708,
                                         .bytes = 1 << 20,
                                         .incarnation = 0x1112131415161718};
    memcpy(header.cluster_id, "0123456789abcdef", WAL_CLUSTER_ID_BYTES);
    wal__segment_header_seal(block, &header);
}

static void test_wal_segment_header_golden_bytes(void **state) {
    (void)state;
    static uint8_t block[WAL_SEGMENT_HEADER_BYTES];
    make_segment(block);
    assert_golden("segment", block, golden_segment_head, sizeof golden_segment_head);
    for (size_t i = 72; i < sizeof block - 8; i++) {
        assert_int_equal(block[i], 0);
    }
    assert_golden("segment checksum", block + sizeof block - 8, golden_segment_checksum, 8);
}

static void test_wal_segment_header_every_damaged_byte_is_found(void **state) {
    (void)state;
    static uint8_t block[WAL_SEGMENT_HEADER_BYTES];
    make_segment(block);
    struct wal__segment_header header;
    assert_int_equal(wal__segment_header_decode(block, &header), STATUS_OK);
    assert_int_equal(header.number, 3);
    assert_int_equal(header.bytes, 1 << 20);
    assert_int_equal(header.incarnation, 0x1112131415161718);
    for (size_t i = 0; i < sizeof block; i++) {
        block[i] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(wal__segment_header_decode(block, &header), STATUS_CORRUPT);
        block[i] ^= (uint8_t)(1u << i % 8);
    }
    memset(block + 64, 0, 8); /* a log is never without its incarnation, whatever the checksum says */
    put_u64(block + sizeof block - 8, checksum64(block, sizeof block - 8, 0x686f6c6466736567));
    assert_int_equal(wal__segment_header_decode(block, &header), STATUS_CORRUPT);
}

static void test_wal_segment_names(void **state) {
    (void)state;
    uint64_t number = 0;
    assert_string_equal(harness_segment(0x2a), "/wal/000000000000002a.log");
    assert_true(wal__segment_parse_name("000000000000002a.log", "", &number));
    assert_int_equal(number, 0x2a);
    assert_true(wal__segment_parse_name("ffffffffffffffff.log.tmp", ".tmp", &number));
    const char *others[] = {"",
                            "2a.log",
                            "000000000000002A.log",
                            "000000000000002a.log.tmp",
                            "000000000000002a.lo",
                            "000000000000002a.sst",
                            "0000000000000002a.log",
                            "LOCK"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_false(wal__segment_parse_name(others[i], "", &number));
    }
}

/* ---- All decoders against noise --------------------------------------------------------------------------------- */

static void test_wal_decoders_survive_mutations(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 99);
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[512] = {0};
        struct wal__group_header header;
        size_t len = make_group(bytes, &header);
        uint64_t changes = 1 + random_below(&random, 4);
        for (uint64_t i = 0; i < changes; i++) {
            bytes[random_below(&random, len)] = (uint8_t)random_next(&random);
        }
        uint8_t *copy = malloc(len);
        assert_non_null(copy);
        memcpy(copy, bytes, len);
        struct wal__group_header decoded;
        if (wal__group_header_decode(copy, &decoded) == STATUS_OK && decoded.total_bytes <= len) {
            (void)!wal__group_check_body(&decoded, copy);
        }
        struct slice cursor = slice_of(copy + WAL_GROUP_HEADER_BYTES, len - WAL_GROUP_HEADER_BYTES);
        struct wal_record record;
        while (wal_record_decode(&cursor, &record, NULL) == STATUS_OK) {
            assert_true(record.payload.data + record.payload.len <= copy + len);
        }
        free(copy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_record_golden_bytes),
        cmocka_unit_test(test_wal_record_round_trip),
        cmocka_unit_test(test_wal_record_every_flipped_bit_is_found),
        cmocka_unit_test(test_wal_record_every_cut_is_found),
        cmocka_unit_test(test_h35_record_length_is_not_trusted),
        cmocka_unit_test(test_wal_record_implausible_headers_are_refused),
        cmocka_unit_test(test_wal_group_golden_bytes),
        cmocka_unit_test(test_wal_group_round_trip),
        cmocka_unit_test(test_wal_group_every_flipped_bit_is_found),
        cmocka_unit_test(test_h37_foreign_record_in_group_is_found),
        cmocka_unit_test(test_wal_group_implausible_headers_are_refused),
        cmocka_unit_test(test_wal_segment_header_golden_bytes),
        cmocka_unit_test(test_wal_segment_header_every_damaged_byte_is_found),
        cmocka_unit_test(test_wal_segment_names),
        cmocka_unit_test(test_wal_decoders_survive_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
