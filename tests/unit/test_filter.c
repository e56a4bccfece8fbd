/*
 * Filters and compression.
 *
 * Would break these: a bit that is set in one place and looked for in another (a key that is there is denied), hashes
 * that don't spread (a filter that lets through far more than it should), a change of the bits that files hold, an
 * output of a decompressor that isn't bounded by what it was told, state of one block that gets into the next.
 */
#include "node/base/random.h"
#include "storage/compress.h"
#include "storage/filter.h"
#include "tests/unit/golden.h"
#include "tests/unit/support/support.h"

#include <stdlib.h>

enum { KEYS = 20000 };

static uint64_t key_hash(uint64_t number) {
    char key[24];
    (void)snprintf(key, sizeof key, "key%017llu", (unsigned long long)number);
    return filter_hash(slice_of_string(key));
}

/* Keys that were not put in and are let through, in 10,000. */
static unsigned false_positives(uint32_t bits_per_key, size_t count) {
    uint64_t *hashes = calloc(count, sizeof *hashes);
    size_t size = filter_size(count, bits_per_key);
    uint8_t *bytes = aligned_alloc(FILTER_LINE_BYTES, size);
    uint32_t probes = filter_probes(bits_per_key);
    unsigned passed = 0;
    for (size_t i = 0; i < count; i++) {
        hashes[i] = key_hash(i);
    }
    filter_build(bytes, size, hashes, count, probes);
    struct slice filter = slice_of(bytes, size);
    for (size_t i = 0; i < count; i++) {
        assert_true(filter_may_hold(filter, probes, hashes[i]));
    }
    for (uint64_t i = 0; i < 10000; i++) {
        passed += filter_may_hold(filter, probes, key_hash(1000000 + i));
    }
    free(hashes);
    free(bytes);
    return passed;
}

static void test_filter_holds_all_keys_and_few_others(void **state) {
    (void)state;
    /* Three times what a plain filter would let through, for the uneven lines and for chance. */
    assert_in_range(false_positives(1, KEYS), 4000, 9000);
    assert_in_range(false_positives(5, KEYS), 0, 3 * 950);
    assert_in_range(false_positives(10, KEYS), 0, 150);
    assert_in_range(false_positives(16, KEYS), 0, 25);
    assert_in_range(false_positives(FILTER_BITS_PER_KEY_MAX, KEYS), 0, 5);
    for (size_t count = 1; count < 60; count++) { /* one line and a few */
        assert_in_range(false_positives(10, count), 0, 700);
    }
}

static void test_filter_sizes_are_whole_lines(void **state) {
    (void)state;
    assert_int_equal(filter_size(0, 10), 0);
    assert_int_equal(filter_size(100, 0), 0);
    assert_int_equal(filter_size(1, 1), FILTER_LINE_BYTES);
    assert_int_equal(filter_size(512, 10), 10 * FILTER_LINE_BYTES);
    assert_int_equal(filter_size(513, 10), 11 * FILTER_LINE_BYTES);
    for (uint32_t bits = 1; bits <= FILTER_BITS_PER_KEY_MAX; bits++) {
        assert_in_range(filter_probes(bits), 1, FILTER_PROBES_MAX);
    }
    assert_true(filter_may_hold(SLICE_EMPTY, 0, 123)); /* no filter denies nothing */
}

/* The bits are in files: they may never change. */
static void test_filter_format_is_golden(void **state) {
    (void)state;
    uint8_t bytes[4 * FILTER_LINE_BYTES];
    uint64_t hashes[200];
    for (size_t i = 0; i < 200; i++) {
        hashes[i] = key_hash(i);
    }
    assert_int_equal(filter_size(200, 10), sizeof bytes);
    filter_build(bytes, sizeof bytes, hashes, 200, filter_probes(10));
    golden_assert("filter.bin", slice_of(bytes, sizeof bytes));
}

/* ---- Compression ---------------------------------------------------------------------------------------------- */

enum { BLOCK = 5000 };

/* Compresses to about a half; different for each seed. */
static void make_block(uint8_t *out, size_t len, uint64_t seed) {
    struct random random;
    random_seed(&random, seed);
    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)(i % 2 == 0 ? 'a' : random_below(&random, 256));
        out[i] = i % 64 < 32 ? 'x' : out[i];
    }
}

static void test_compress_reads_back_each_block_by_itself(void **state) {
    (void)state;
    struct test_alloc memory;
    test_alloc_init(&memory);
    for (enum compression kind = COMPRESSION_LZ4; kind <= COMPRESSION_ZSTD; kind++) {
        struct compressor compressor;
        assert_int_equal(compressor_init(&compressor, &memory.base, kind, 3), STATUS_OK);
        for (uint64_t round = 0; round < 200; round++) {
            uint8_t in[BLOCK];
            uint8_t packed[BLOCK];
            uint8_t out[BLOCK];
            size_t len = 1 + (size_t)(round * 977) % BLOCK;
            size_t packed_len = 0;
            make_block(in, len, round);
            enum status status = compressor_run(&compressor, slice_of(in, len), packed, len - len / 8, &packed_len);
            if (status == STATUS_TOO_LARGE) {
                assert_true(len < 200);
                continue;
            }
            assert_int_equal(status, STATUS_OK);
            assert_true(packed_len <= len - len / 8);
            assert_int_equal(compression_undo(&memory.base, kind, slice_of(packed, packed_len), out, len), STATUS_OK);
            assert_memory_equal(in, out, len);
            /* Any other length is damage. */
            assert_int_equal(compression_undo(&memory.base, kind, slice_of(packed, packed_len), out, len - 1),
                             STATUS_CORRUPT);
            uint8_t *longer = malloc(len + 1);
            assert_int_equal(compression_undo(&memory.base, kind, slice_of(packed, packed_len), longer, len + 1),
                             STATUS_CORRUPT);
            free(longer);
        }
        compressor_deinit(&compressor);
    }
    assert_int_equal(memory.live_blocks, 0);
}

/* What doesn't get smaller is refused, and the next block is none the worse for it. */
static void test_compress_refuses_noise_and_goes_on(void **state) {
    (void)state;
    for (enum compression kind = COMPRESSION_LZ4; kind <= COMPRESSION_ZSTD; kind++) {
        struct compressor compressor;
        struct random random;
        uint8_t noise[BLOCK];
        uint8_t in[BLOCK];
        uint8_t packed[BLOCK];
        uint8_t out[BLOCK];
        size_t packed_len = 0;
        random_seed(&random, 1);
        for (size_t i = 0; i < BLOCK; i++) {
            noise[i] = (uint8_t)random_below(&random, 256);
        }
        make_block(in, BLOCK, 2);
        assert_int_equal(compressor_init(&compressor, alloc_system(), kind, 1), STATUS_OK);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(compressor_run(&compressor, slice_of(noise, BLOCK), packed, BLOCK - BLOCK / 8,
                                            &packed_len),
                             STATUS_TOO_LARGE);
            assert_int_equal(compressor_run(&compressor, slice_of(in, BLOCK), packed, BLOCK - BLOCK / 8, &packed_len),
                             STATUS_OK);
            assert_int_equal(compression_undo(alloc_system(), kind, slice_of(packed, packed_len), out, BLOCK),
                             STATUS_OK);
            assert_memory_equal(in, out, BLOCK);
        }
        compressor_deinit(&compressor);
    }
}

static void test_h35_compress_undoes_damage_within_bounds(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 6);
    for (enum compression kind = COMPRESSION_LZ4; kind <= COMPRESSION_ZSTD; kind++) {
        struct compressor compressor;
        uint8_t in[BLOCK];
        uint8_t packed[BLOCK];
        size_t packed_len = 0;
        make_block(in, BLOCK, 3);
        assert_int_equal(compressor_init(&compressor, alloc_system(), kind, 1), STATUS_OK);
        assert_int_equal(compressor_run(&compressor, slice_of(in, BLOCK), packed, BLOCK, &packed_len), STATUS_OK);
        for (int round = 0; round < 2000; round++) {
            size_t cut = random_chance(&random, 1, 4) ? random_below(&random, packed_len) : packed_len;
            uint8_t *damaged = malloc(cut > 0 ? cut : 1);
            uint8_t *out = malloc(BLOCK);
            memcpy(damaged, packed, cut);
            for (int i = 0; i < 2 && cut > 0; i++) {
                damaged[random_below(&random, cut)] = (uint8_t)random_below(&random, 256);
            }
            enum status status = compression_undo(alloc_system(), kind, slice_of(damaged, cut), out, BLOCK);
            assert_true(status == STATUS_OK || status == STATUS_CORRUPT);
            free(damaged);
            free(out);
        }
        compressor_deinit(&compressor);
    }
    uint8_t byte = 0;
    assert_int_equal(compression_undo(alloc_system(), COMPRESSION_COUNT, slice_of(&byte, 1), &byte, 1),
                     STATUS_UNSUPPORTED);
}

static void test_compress_without_memory_says_so(void **state) {
    (void)state;
    struct test_alloc memory;
    struct compressor compressor;
    uint8_t in[BLOCK];
    uint8_t packed[BLOCK];
    size_t packed_len = 0;
    test_alloc_init(&memory);
    for (enum compression kind = COMPRESSION_LZ4; kind <= COMPRESSION_ZSTD; kind++) {
        test_alloc_fail(&memory, 1, false);
        assert_int_equal(compressor_init(&compressor, &memory.base, kind, 1), STATUS_NO_MEMORY);
    }
    make_block(in, BLOCK, 3);
    assert_int_equal(compressor_init(&compressor, &memory.base, COMPRESSION_ZSTD, 1), STATUS_OK);
    assert_int_equal(compressor_run(&compressor, slice_of(in, BLOCK), packed, BLOCK, &packed_len), STATUS_OK);
    test_alloc_fail(&memory, 1, false);
    assert_int_equal(compression_undo(&memory.base, COMPRESSION_ZSTD, slice_of(packed, packed_len), in, BLOCK),
                     STATUS_NO_MEMORY);
    compressor_deinit(&compressor);
    assert_int_equal(memory.live_blocks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filter_holds_all_keys_and_few_others),
        cmocka_unit_test(test_filter_sizes_are_whole_lines),
        cmocka_unit_test(test_filter_format_is_golden),
        cmocka_unit_test(test_compress_reads_back_each_block_by_itself),
        cmocka_unit_test(test_compress_refuses_noise_and_goes_on),
        cmocka_unit_test(test_h35_compress_undoes_damage_within_bounds),
        cmocka_unit_test(test_compress_without_memory_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
