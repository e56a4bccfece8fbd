/*
 * The fixed parts of a table, byte by byte: what was damaged, misplaced, made by a later version or says impossible
 * things is refused, with the right status and before anything is allocated for it.
 *
 * Would break these: a checksum that leaves out where and whose a block is, a size that is trusted because the checksum
 * is right, reserved bytes that are passed over, a field taken for another one.
 */
#include "node/base/bytes.h"
#include "node/base/checksum.h"
#include "storage/filter.h"
#include "storage/sst_format.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_sst_block_of_another_place_table_or_kind_is_corrupt(void **state) {
    (void)state;
    uint8_t block[100 + SST_TRAILER_BYTES] = "a body";
    struct sst_stored stored;
    struct slice all = slice_of(block, sizeof block);
    uint64_t checksum =
        sst_trailer_encode(block + 100, slice_of(block, 100), COMPRESSION_NONE, 100, SST_BLOCK_DATA, 7, 64);
    assert_int_equal(sst_block_check(all, SST_BLOCK_DATA, 7, 64, &stored), STATUS_OK);
    assert_int_equal(stored.checksum, checksum);
    assert_int_equal(sst_block_check(all, SST_BLOCK_DATA, 7, 65, &stored), STATUS_CORRUPT);
    assert_int_equal(sst_block_check(all, SST_BLOCK_DATA, 8, 64, &stored), STATUS_CORRUPT);
    assert_int_equal(sst_block_check(all, SST_BLOCK_PARTITION, 7, 64, &stored), STATUS_CORRUPT);
    assert_int_equal(sst_block_check(slice_of(block, sizeof block - 1), SST_BLOCK_DATA, 7, 64, &stored),
                     STATUS_CORRUPT);
    assert_int_equal(sst_block_check(slice_of(block, SST_TRAILER_BYTES), SST_BLOCK_DATA, 7, 64, &stored),
                     STATUS_CORRUPT);
}

/* A right checksum doesn't make a size true: it is bounded before anybody allocates it. */
static void test_h35_sst_block_that_claims_to_be_huge_is_corrupt(void **state) {
    (void)state;
    static const uint32_t sizes[] = {0, 99, SST_BLOCK_BYTES_MAX + 1, UINT32_MAX};
    uint8_t block[100 + SST_TRAILER_BYTES] = {0};
    struct sst_stored stored;
    for (uint8_t compression = 0; compression < COMPRESSION_COUNT; compression++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            uint8_t *trailer = block + 100;
            trailer[0] = compression;
            trailer[1] = SST_BLOCK_DATA;
            put_u32(trailer + 4, sizes[i]);
            uint64_t seed = checksum64(block, 100, 7 ^ (64 * 0x9e3779b97f4a7c15u));
            put_u64(trailer + 8, checksum64(trailer, 8, seed));
            assert_int_equal(sst_block_check(slice_of(block, sizeof block), SST_BLOCK_DATA, 7, 64, &stored),
                             STATUS_CORRUPT);
        }
    }
    uint8_t handle[SST_HANDLE_BYTES];
    struct sst_handle got;
    sst_handle_encode(handle, &(struct sst_handle){64, SST_BLOCK_BYTES_MAX + 1});
    assert_int_equal(sst_handle_decode(slice_of(handle, sizeof handle), 64, UINT64_MAX, &got), STATUS_CORRUPT);
    sst_handle_encode(handle, &(struct sst_handle){UINT64_MAX - 20, 100});
    assert_int_equal(sst_handle_decode(slice_of(handle, sizeof handle), 64, UINT64_MAX, &got), STATUS_CORRUPT);
}

static void test_sst_unknown_version_or_compression_is_unsupported(void **state) {
    (void)state;
    uint8_t header[SST_HEADER_BYTES];
    uint8_t footer[SST_FOOTER_BYTES];
    uint8_t block[10 + SST_TRAILER_BYTES] = {0};
    struct sst_header got_header;
    struct sst_footer got_footer;
    struct sst_stored stored;
    sst_header_encode(header, &(struct sst_header){.number = 1});
    header[8] = SST_VERSION + 1;
    put_u64(header + 56, checksum64(header, 56, 0));
    assert_int_equal(sst_header_decode(header, &got_header), STATUS_UNSUPPORTED);
    sst_footer_encode(footer, &(struct sst_footer){.properties = {64, 10}}, 7);
    assert_int_equal(sst_footer_decode(footer, 7, 64 + 26 + SST_FOOTER_BYTES, &got_footer), STATUS_OK);
    assert_int_equal(sst_footer_decode(footer, 7, 64 + 27 + SST_FOOTER_BYTES, &got_footer), STATUS_CORRUPT);
    for (size_t at = 36; at < 64; at++) { /* the reserved handle, the version, zeroes */
        footer[at]++;
        put_u64(footer + 64, checksum64(footer, 64, 7));
        assert_int_equal(sst_footer_decode(footer, 7, 64 + 26 + SST_FOOTER_BYTES, &got_footer), STATUS_UNSUPPORTED);
        footer[at]--;
    }
    uint8_t *trailer = block + 10;
    trailer[0] = COMPRESSION_COUNT;
    trailer[1] = SST_BLOCK_DATA;
    put_u32(trailer + 4, 10);
    put_u64(trailer + 8, checksum64(trailer, 8, checksum64(block, 10, 7 ^ (64 * 0x9e3779b97f4a7c15u))));
    assert_int_equal(sst_block_check(slice_of(block, sizeof block), SST_BLOCK_DATA, 7, 64, &stored),
                     STATUS_UNSUPPORTED);
}

/* Also in the version: damage isn't taken for a later version, which nobody would heal. */
static void test_sst_header_and_footer_with_any_flipped_bit_are_corrupt(void **state) {
    (void)state;
    uint8_t header[SST_HEADER_BYTES];
    uint8_t footer[SST_FOOTER_BYTES];
    struct sst_header got_header;
    struct sst_footer got_footer;
    for (uint32_t kind = SST_FILE_TABLE; kind <= SST_FILE_CHANGES; kind++) {
        sst_header_encode(header, &(struct sst_header){.kind = (enum sst_file_kind)kind, .number = 1, .id = 7});
        for (size_t bit = 0; bit < sizeof header * 8; bit++) {
            header[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(sst_header_decode(header, &got_header), STATUS_CORRUPT);
            header[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    sst_footer_encode(footer, &(struct sst_footer){.properties = {64, 10}}, 7);
    for (size_t bit = 0; bit < sizeof footer * 8; bit++) {
        footer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(sst_footer_decode(footer, 7, 64 + 26 + SST_FOOTER_BYTES, &got_footer), STATUS_CORRUPT);
        footer[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void test_sst_partition_tail_that_lies_is_corrupt(void **state) {
    (void)state;
    uint8_t body[128 + 20 + SST_PARTITION_TAIL_BYTES] = {0};
    struct sst_partition partition;
    uint8_t *tail = body + 148;
    sst_partition_tail_encode(tail, 128, 6);
    assert_int_equal(sst_partition_open(slice_of(body, sizeof body), &partition), STATUS_OK);
    assert_int_equal(partition.filter.len, 128);
    assert_int_equal(partition.index.len, 20);
    static const struct {
        uint32_t filter_len, probes;
    } lies[] = {{192, 6}, {64, 0}, {0, 6}, {100, 6}, {128, FILTER_PROBES_MAX + 1}, {UINT32_MAX - 63, 6}};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        put_u32(tail, lies[i].filter_len);
        put_u32(tail + 4, lies[i].probes);
        assert_int_equal(sst_partition_open(slice_of(body, sizeof body), &partition), STATUS_CORRUPT);
    }
    assert_int_equal(sst_partition_open(slice_of(body, SST_PARTITION_TAIL_BYTES - 1), &partition), STATUS_CORRUPT);
}

static void test_sst_properties_of_later_versions_are_passed_over(void **state) {
    (void)state;
    struct buf body;
    struct sst_properties properties = {.entries = 3,
                                        .superseded_until = 77,
                                        .smallest = slice_of_string("a"),
                                        .largest = slice_of_string("b")};
    struct sst_properties got;
    buf_init(&body, alloc_system(), 0);
    assert_int_equal(sst_properties_encode(&body, &properties), STATUS_OK);
    const uint8_t later[] = {99, 2, 'x', 'y'};
    assert_int_equal(buf_append(&body, later, sizeof later), STATUS_OK);
    assert_int_equal(sst_properties_decode(buf_slice(&body), &got), STATUS_OK);
    assert_int_equal(got.entries, 3);
    assert_int_equal(got.superseded_until, 77);
    for (size_t len = 0; len < body.len; len++) { /* cut anywhere but in front of what we don't know */
        enum status status = sst_properties_decode(slice_of(body.data, len), &got);
        assert_int_equal(status, len == body.len - sizeof later ? STATUS_OK : STATUS_CORRUPT);
    }
    buf_deinit(&body);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sst_block_of_another_place_table_or_kind_is_corrupt),
        cmocka_unit_test(test_h35_sst_block_that_claims_to_be_huge_is_corrupt),
        cmocka_unit_test(test_sst_unknown_version_or_compression_is_unsupported),
        cmocka_unit_test(test_sst_header_and_footer_with_any_flipped_bit_are_corrupt),
        cmocka_unit_test(test_sst_partition_tail_that_lies_is_corrupt),
        cmocka_unit_test(test_sst_properties_of_later_versions_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
