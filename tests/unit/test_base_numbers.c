/*
 * The checksum, the generator, and failed checks. Breaks if the checksum isn't XXH3 with the published values (every
 * file on disk would become unreadable), if a seed gives another sequence (simulations would not repeat), or if a
 * failed CHECK goes on.
 */
#include "node/base/check.h"
#include "node/base/checksum.h"
#include "node/base/random.h"
#include "tests/unit/support/support.h"

#define PRIME32 2654435761u
#define PRIME64 11400714785074694797u

/* The buffer and the values of xxHash's own self-test. */
static void test_checksum_has_the_published_values(void **state) {
    (void)state;
    uint8_t buffer[64];
    uint64_t generator = PRIME32;
    for (size_t i = 0; i < sizeof buffer; i++) {
        buffer[i] = (uint8_t)(generator >> 56);
        generator *= PRIME64;
    }
    static const struct {
        size_t len;
        uint64_t seed, value;
    } known[] = {
        {0, 0, 0x2d06800538d394c2u},        {0, PRIME64, 0xa8a6b918b2f0364au},  {1, 0, 0xc44bdff4074eecdbu},
        {1, PRIME64, 0x032be332dd766ef8u},  {6, 0, 0x27b56a84cd2d7325u},        {6, PRIME64, 0x84589c116ab59ab9u},
        {12, 0, 0xa713daf0dfbb77e7u},       {12, PRIME64, 0xe7303e1b2336de0eu}, {24, 0, 0xa3fe70bf9d3510ebu},
        {24, PRIME64, 0x850e80fc35bdd690u},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        assert_true(checksum64(buffer, known[i].len, known[i].seed) == known[i].value);
    }
}

static void test_checksum_sees_every_bit_and_the_seed(void **state) {
    (void)state;
    uint8_t data[1000] = {0};
    uint64_t whole = checksum64(data, sizeof data, 1);
    assert_true(checksum64(data, sizeof data, 2) != whole);
    assert_true(checksum64(data, sizeof data - 1, 1) != whole);
    for (size_t bit = 0; bit < 8 * sizeof data; bit += 7) {
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true(checksum64(data, sizeof data, 1) != whole);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(checksum64(data, sizeof data, 1) == whole);
}

/* Any change here changes every recorded simulation seed. */
static void test_random_repeats_by_seed(void **state) {
    (void)state;
    struct random one, same, other;
    random_seed(&one, 1);
    random_seed(&same, 1);
    random_seed(&other, 2);
    int equal = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t value = random_next(&one);
        assert_true(random_next(&same) == value);
        equal += random_next(&other) == value;
    }
    assert_int_equal(equal, 0);
    struct random known = {.state = {1, 2, 3, 4}};
    assert_true(random_next(&known) == 11520); /* xoshiro256** from this state, as published */
    assert_true(random_next(&known) == 0);
    assert_true(random_next(&known) == 1509978240);
}

static void test_random_below_is_even_and_in_range(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 3);
    int counts[10] = {0};
    for (int i = 0; i < 100000; i++) {
        counts[random_below(&random, 10)]++;
    }
    for (int i = 0; i < 10; i++) {
        assert_in_range(counts[i], 9500, 10500);
    }
    assert_int_equal(random_below(&random, 1), 0);
    int hits = 0;
    for (int i = 0; i < 100000; i++) {
        hits += random_chance(&random, 1, 4);
    }
    assert_in_range(hits, 24000, 26000);
    assert_false(random_chance(&random, 0, 5));
    assert_true(random_chance(&random, 5, 5));
}

static void fail_check(void *context) { CHECK(context != NULL); }

static void test_check_aborts_only_if_it_fails(void **state) {
    (void)state;
    int something = 0;
    assert_true(test_aborts(fail_check, NULL));
    assert_false(test_aborts(fail_check, &something));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksum_has_the_published_values),
        cmocka_unit_test(test_checksum_sees_every_bit_and_the_seed),
        cmocka_unit_test(test_random_repeats_by_seed),
        cmocka_unit_test(test_random_below_is_even_and_in_range),
        cmocka_unit_test(test_check_aborts_only_if_it_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
