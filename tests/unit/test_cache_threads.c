/*
 * The block cache with several threads on few keys and little room: lookups, insertions, evictions, forgotten files,
 * changed capacities all meet. For ThreadSanitizer and for the eye: a held block always has its key's bytes.
 *
 * Would break these: a block that is freed or used again while somebody holds it; a hold taken outside the lock; a
 * holder's read that isn't ordered before the memory's next use.
 */
#include "node/env/os/env_os.h"
#include "storage/cache.h"
#include "tests/unit/support/support.h"

#include <pthread.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 15000, KEYS = 1500, FILES = 3, HELD = 8 };

static struct env *env;
static struct cache *cache;
static struct error err;

struct user {
    uint64_t random;
    struct cache_block *held[HELD];
    uint64_t held_numbers[HELD];
};

static uint64_t draw(struct user *user, uint64_t below) {
    user->random = user->random * 6364136223846793005u + 1442695040888963407u;
    return (user->random >> 33) % below;
}

static struct cache_key key_of(uint64_t number) {
    return (struct cache_key){.id = number % FILES, .offset = number / FILES * 4096};
}

static size_t len_of(uint64_t number) { return 500 + number * 7 % 4000; }

static void check(const struct cache_block *block, uint64_t number) {
    CHECK(block->len == len_of(number));
    CHECK(block->data[0] == (uint8_t)number && block->data[block->len / 2] == (uint8_t)number);
    CHECK(block->data[block->len - 1] == (uint8_t)number);
}

static void use(struct user *user, uint64_t number) {
    struct cache_key key = key_of(number);
    struct cache_block *block = cache_lookup(cache, &key, CACHE_DATA);
    if (block == NULL) {
        block = cache_block_new(cache, len_of(number));
        CHECK(block != NULL);
        memset(block->data, (int)(uint8_t)number, block->len);
        block = cache_insert(cache, &key, CACHE_DATA, block, draw(user, 10) != 0);
    }
    check(block, number);
    uint64_t slot = draw(user, HELD);
    if (user->held[slot] != NULL) {
        check(user->held[slot], user->held_numbers[slot]);
        cache_release(cache, user->held[slot]);
    }
    if (draw(user, 4) == 0) {
        cache_hold(block);
        cache_release(cache, block);
    }
    user->held[slot] = block;
    user->held_numbers[slot] = number;
}

static void *use_always(void *context) {
    struct user *user = context;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t number = draw(user, 2) == 0 ? draw(user, 50) : draw(user, KEYS);
        use(user, number);
        if (draw(user, 3000) == 0) {
            cache_forget(cache, draw(user, FILES));
        }
        if (draw(user, 1000) == 0) {
            cache_charge(cache, MIB);
            struct cache_stats stats;
            cache_get_stats(cache, &stats);
            CHECK(stats.used_bytes >= stats.charged_bytes && stats.charged_bytes >= MIB);
            cache_charge(cache, -(int64_t)MIB);
        }
    }
    for (unsigned i = 0; i < HELD; i++) {
        cache_release(cache, user->held[i]);
    }
    return NULL;
}

static void test_cache_shared_by_threads_keeps_blocks_whole(void **state) {
    (void)state;
    const struct env_os_options options = {.workers_short = 1, .workers_long = 1};
    assert_int_equal(env_os_new(&options, &env, &err), STATUS_OK);
    assert_int_equal(cache_new(env, 2 * MIB, &cache, &err), STATUS_OK);
    pthread_t threads[THREADS];
    static struct user users[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        users[i].random = i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, use_always, &users[i]), 0);
    }
    for (unsigned i = 0; i < 30; i++) {
        cache_set_capacity(cache, i % 2 == 0 ? 8 * MIB : MIB);
        env_sleep_us(env, 10000);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    struct cache_stats stats;
    cache_get_stats(cache, &stats);
    assert_int_equal(stats.loose_bytes, 0);
    assert_int_equal(stats.charged_bytes, 0);
    assert_int_equal(stats.hits[CACHE_DATA] + stats.misses[CACHE_DATA], (uint64_t)THREADS * ROUNDS);
    assert_true(stats.hits[CACHE_DATA] > 0 && stats.evictions > 0);
    cache_free(cache);
    env_os_free(env);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_shared_by_threads_keeps_blocks_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
