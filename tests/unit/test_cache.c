/*
 * The block cache. Would break these: a hit on another key's block, or after the file was forgotten; a scan that pushes
 * out what is used again and again; memory beyond the capacity that nobody holds; a held block whose memory goes; a
 * block that is lost or freed twice on any path, without memory included.
 */
#include "node/env/os/env_os.h"
#include "storage/cache.h"
#include "tests/unit/support/support.h"

#include <string.h>

enum { BLOCK_BYTES = 4096 };

static struct test_alloc memory;
static struct env *env;
static struct cache *cache;
static struct error err;

static int setup_capacity(uint64_t capacity_bytes) {
    test_alloc_init(&memory);
    const struct env_os_options options = {.alloc = &memory.base, .workers_short = 1, .workers_long = 1};
    if (env_os_new(&options, &env, &err) != STATUS_OK) {
        return -1;
    }
    return cache_new(env, capacity_bytes, &cache, &err) == STATUS_OK ? 0 : -1;
}

static int setup(void **state) {
    (void)state;
    return setup_capacity(4 * MIB);
}

static int setup_nothing(void **state) {
    (void)state;
    return setup_capacity(0);
}

static int teardown(void **state) {
    (void)state;
    cache_free(cache);
    env_os_free(env);
    return memory.live_blocks == 0 ? 0 : -1;
}

static struct cache_key key_of(uint64_t number) {
    return (struct cache_key){.id = 7 + number / 1000, .offset = number % 1000 * BLOCK_BYTES};
}

static struct cache_block *make(uint64_t number, size_t len) {
    struct cache_block *block = cache_block_new(cache, len);
    assert_non_null(block);
    assert_int_equal(block->len, len);
    assert_int_equal((uintptr_t)block->data % 16, 0);
    memset(block->data, (int)(number % 251), len);
    return block;
}

/* Looks the block up, makes it on a miss; true on a hit. */
static bool use(uint64_t number) {
    struct cache_key key = key_of(number);
    struct cache_block *block = cache_lookup(cache, &key, CACHE_DATA);
    bool hit = block != NULL;
    if (!hit) {
        block = cache_insert(cache, &key, CACHE_DATA, make(number, BLOCK_BYTES), true);
    }
    assert_int_equal(block->data[0], number % 251);
    assert_int_equal(block->data[BLOCK_BYTES - 1], number % 251);
    cache_release(cache, block);
    return hit;
}

static struct cache_stats stats(void) {
    struct cache_stats result;
    cache_get_stats(cache, &result);
    return result;
}

/* ---- Finding ----------------------------------------------------------------------------------------------------- */

static void test_cache_finds_what_was_inserted_and_nothing_else(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 300; i++) {
        assert_false(use(i * 37));
    }
    for (uint64_t i = 0; i < 300; i++) {
        assert_true(use(i * 37));
    }
    struct cache_key near = {.id = 7, .offset = 1};
    assert_null(cache_lookup(cache, &near, CACHE_INDEX));
    near = (struct cache_key){.id = 6, .offset = 0};
    assert_null(cache_lookup(cache, &near, CACHE_INDEX));
    struct cache_stats now = stats();
    assert_int_equal(now.blocks, 300);
    assert_int_equal(now.inserts, 300);
    assert_int_equal(now.hits[CACHE_DATA], 300);
    assert_int_equal(now.misses[CACHE_DATA], 300);
    assert_int_equal(now.misses[CACHE_INDEX], 2);
    assert_int_equal(now.hits[CACHE_INDEX], 0);
    assert_int_equal(now.evictions, 0);
    assert_in_range(now.kind_bytes[CACHE_DATA], 300 * BLOCK_BYTES, 300 * (BLOCK_BYTES + 256));
}

static void test_second_insertion_of_a_key_returns_the_first_block(void **state) {
    (void)state;
    struct cache_key key = key_of(1);
    struct cache_block *first = cache_insert(cache, &key, CACHE_DATA, make(1, 100), true);
    struct cache_block *second = cache_insert(cache, &key, CACHE_DATA, make(1, 100), true);
    assert_ptr_equal(first, second);
    cache_release(cache, first);
    assert_int_equal(second->data[99], 1);
    cache_release(cache, second);
    assert_int_equal(stats().blocks, 1);
    assert_int_equal(stats().loose_bytes, 0);
}

static void test_block_not_to_be_retained_is_held_but_not_found(void **state) {
    (void)state;
    struct cache_key key = key_of(1);
    struct cache_block *block = cache_insert(cache, &key, CACHE_DATA, make(1, 5000), false);
    assert_null(cache_lookup(cache, &key, CACHE_DATA));
    assert_in_range(stats().loose_bytes, 5000, 5500);
    cache_hold(block);
    cache_release(cache, block);
    assert_int_equal(block->data[4999], 1);
    cache_release(cache, block);
    assert_int_equal(stats().loose_bytes, 0);
    cache_release(cache, NULL);
    cache_release(cache, make(2, 10)); /* never inserted */
}

/* ---- What stays -------------------------------------------------------------------------------------------------- */

static void test_cache_stays_within_its_capacity(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (uint64_t i = 0; i < 20000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        struct cache_key key = key_of(seed >> 50);
        size_t len = 1 + (size_t)(seed >> 20) % (i % 50 == 0 ? 100000 : 9000);
        struct cache_block *block = cache_lookup(cache, &key, CACHE_DATA);
        if (block == NULL) {
            block = cache_insert(cache, &key, CACHE_DATA, make(i, len), true);
        }
        cache_release(cache, block);
        if (i % 500 == 0) {
            assert_true(stats().used_bytes <= 4 * MIB);
        }
    }
    assert_true(stats().used_bytes > 3 * MIB);
    assert_true(stats().evictions > 1000);
}

/* Blocks that are used again and again, then a scan of ten times the capacity. A list by recency would lose them all.
 */
static void test_scan_does_not_push_out_a_hot_set(void **state) {
    (void)state;
    enum { HOT = 400, SCAN = 10 * 1024 };
    for (int round = 0; round < 4; round++) {
        for (uint64_t i = 0; i < HOT; i++) {
            (void)use(i);
        }
    }
    for (uint64_t i = 0; i < SCAN; i++) {
        (void)use(100000 + i);
    }
    uint64_t hits = 0;
    for (uint64_t i = 0; i < HOT; i++) {
        hits += use(i);
    }
    assert_true(hits >= HOT * 95 / 100);
}

/* The same when the cache was full of something else before the hot set came: it must get in. */
static void test_new_hot_set_gets_into_a_full_cache_and_stays(void **state) {
    (void)state;
    enum { HOT = 300 };
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 900; i++) {
            (void)use(500000 + i);
        }
    }
    for (int round = 0; round < 12; round++) {
        for (uint64_t i = 0; i < HOT; i++) {
            (void)use(i);
        }
        for (uint64_t i = 0; i < 300; i++) {
            (void)use(200000 + (uint64_t)round * 300 + i); /* passes by */
        }
    }
    uint64_t hits = 0;
    for (uint64_t i = 0; i < HOT; i++) {
        hits += use(i);
    }
    assert_true(hits >= HOT * 90 / 100);
}

static void test_held_blocks_are_not_evicted_and_crowd_out_others(void **state) {
    (void)state;
    enum { HELD = 3000 };
    static struct cache_block *held[HELD];
    for (uint64_t i = 0; i < HELD; i++) {
        struct cache_key key = key_of(i);
        held[i] = cache_insert(cache, &key, CACHE_DATA, make(i, BLOCK_BYTES), true);
    }
    struct cache_stats now = stats();
    assert_int_equal(now.evictions, 0);
    assert_true(now.refused > 0 && now.loose_bytes > 4 * MIB); /* beyond the capacity, and said so */
    assert_true(now.used_bytes >= (uint64_t)HELD * BLOCK_BYTES);
    for (uint64_t i = 0; i < HELD; i++) {
        assert_int_equal(held[i]->data[17], i % 251);
        cache_release(cache, held[i]);
    }
    assert_int_equal(stats().loose_bytes, 0);
    for (uint64_t i = 0; i < 100; i++) {
        (void)use(900000 + i);
    }
    assert_true(stats().used_bytes <= 4 * MIB);
    assert_true(stats().blocks > 100); /* and serves again */
}

static void test_charges_take_room_and_give_it_back(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 2000; i++) {
        (void)use(i);
    }
    uint64_t blocks = stats().blocks;
    cache_charge(cache, 2 * MIB);
    for (uint64_t i = 2000; i < 2300; i++) {
        (void)use(i);
    }
    assert_in_range(stats().blocks, blocks / 4, blocks * 6 / 10);
    assert_true(stats().used_bytes <= 4 * MIB);
    assert_int_equal(stats().charged_bytes, 2 * MIB);
    cache_charge(cache, 8 * MIB); /* more than there is: nothing is retained, everything works */
    assert_false(use(5000));
    assert_false(use(5000));
    cache_charge(cache, -(int64_t)(10 * MIB));
    assert_false(use(5000));
    assert_true(use(5000));
}

static void test_capacity_of_zero_retains_nothing(void **state) {
    (void)state;
    assert_false(use(1));
    assert_false(use(1));
    assert_int_equal(stats().blocks, 0);
    assert_int_equal(stats().capacity_bytes, 0);
    cache_set_capacity(cache, MIB);
    assert_false(use(1));
    assert_true(use(1));
}

static void test_capacity_can_shrink_and_grow(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 3000; i++) {
        (void)use(i);
    }
    cache_set_capacity(cache, MIB);
    assert_true(stats().used_bytes <= MIB);
    uint64_t blocks = stats().blocks;
    assert_true(blocks > 100);
    cache_set_capacity(cache, 64 * MIB);
    uint64_t hits = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        hits += use(i);
    }
    assert_int_equal(hits, blocks); /* what stayed moved to other tables twice, and is found there */
    for (uint64_t i = 0; i < 3000; i++) {
        assert_true(use(i));
    }
    cache_set_capacity(cache, 0);
    assert_int_equal(stats().blocks, 0);
}

static void test_forgotten_file_is_gone_and_others_stay(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 900; i++) {
        (void)use(i % 2 * 1000 + i / 2); /* two files in turn */
    }
    struct cache_key key = key_of(3);
    struct cache_block *held = cache_lookup(cache, &key, CACHE_DATA);
    assert_non_null(held);
    cache_forget(cache, 7);
    assert_int_equal(stats().blocks, 450);
    assert_null(cache_lookup(cache, &key, CACHE_DATA));
    assert_int_equal(held->data[BLOCK_BYTES - 1], 3); /* the holder's, as long as he likes */
    assert_true(stats().loose_bytes >= BLOCK_BYTES);
    cache_release(cache, held);
    assert_int_equal(stats().loose_bytes, 0);
    for (uint64_t i = 0; i < 450; i++) {
        assert_true(use(1000 + i));
    }
    assert_false(use(3));
}

/* Its keeper reads it without a hold, however much goes through the cache; only what is used often, and no more than a
 * quarter of the capacity. */
static void test_kept_block_stays_and_keeping_has_a_limit(void **state) {
    (void)state;
    struct cache_block *kept[400];
    size_t count = 0;
    for (uint64_t i = 0; i < 400; i++) {
        struct cache_key key = key_of(i);
        (void)use(i);
        struct cache_block *block = cache_lookup(cache, &key, CACHE_DATA);
        assert_false(cache_keep(cache, block)); /* used once */
        for (int again = 0; again < 3; again++) {
            (void)use(i);
        }
        if (cache_keep(cache, block)) {
            assert_null(cache_lookup(cache, &key, CACHE_DATA));
            kept[count++] = block;
        }
        cache_release(cache, block);
    }
    assert_in_range(count * BLOCK_BYTES, MIB / 2, MIB);
    for (uint64_t i = 1000; i < 4000; i++) {
        (void)use(i);
    }
    assert_true(stats().used_bytes <= 4 * MIB);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(kept[i]->data[BLOCK_BYTES - 1], i % 251);
        cache_unkeep(cache, kept[i]);
    }
    assert_int_equal(stats().loose_bytes, 0);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static void test_full_cache_allocates_almost_nothing(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 3000; i++) {
        (void)use(i);
    }
    uint64_t attempts = memory.attempts;
    for (uint64_t i = 3000; i < 6000; i++) {
        (void)use(i);
    }
    assert_true(memory.attempts - attempts < 30);
}

static void test_without_memory_nothing_is_lost(void **state) {
    (void)state;
    assert_false(use(1));
    test_alloc_fail(&memory, 1, true);
    assert_null(cache_block_new(cache, 20000));
    cache_set_capacity(cache, 16 * MIB); /* keeps its tables */
    assert_true(use(1));
    test_alloc_fail(&memory, 0, false);
    for (uint64_t n = 1; n < 20; n++) {
        struct cache *other = NULL;
        test_alloc_fail(&memory, n, false);
        if (cache_new(env, 4 * MIB, &other, &err) == STATUS_OK) {
            assert_true(n > 4);
            cache_free(other);
            break;
        }
        assert_null(other);
        assert_int_equal(err.code, STATUS_NO_MEMORY);
    }
    test_alloc_fail(&memory, 0, false);
}

int main(void) {
#define WITH_CACHE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_CACHE(test_cache_finds_what_was_inserted_and_nothing_else),
        WITH_CACHE(test_second_insertion_of_a_key_returns_the_first_block),
        WITH_CACHE(test_block_not_to_be_retained_is_held_but_not_found),
        WITH_CACHE(test_cache_stays_within_its_capacity),
        WITH_CACHE(test_scan_does_not_push_out_a_hot_set),
        WITH_CACHE(test_new_hot_set_gets_into_a_full_cache_and_stays),
        WITH_CACHE(test_held_blocks_are_not_evicted_and_crowd_out_others),
        WITH_CACHE(test_charges_take_room_and_give_it_back),
        cmocka_unit_test_setup_teardown(test_capacity_of_zero_retains_nothing, setup_nothing, teardown),
        WITH_CACHE(test_capacity_can_shrink_and_grow),
        WITH_CACHE(test_kept_block_stays_and_keeping_has_a_limit),
        WITH_CACHE(test_forgotten_file_is_gone_and_others_stay),
        WITH_CACHE(test_full_cache_allocates_almost_nothing),
        WITH_CACHE(test_without_memory_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
