/* xoshiro256** with splitmix64 seeding. */
#include "node/base/random.h"

#include "node/base/check.h"

static uint64_t splitmix(uint64_t *state) {
    uint64_t mixed = (*state += 0x9e3779b97f4a7c15u);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

static uint64_t rotate_left(uint64_t value, int bits) { return (value << bits) | (value >> (64 - bits)); }

void random_seed(struct random *random, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        random->state[i] = splitmix(&seed);
    }
}

uint64_t random_next(struct random *random) {
    uint64_t *s = random->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t random_below(struct random *random, uint64_t bound) {
    CHECK(bound > 0);
    return (uint64_t)(((unsigned __int128)random_next(random) * bound) >> 64);
}

bool random_chance(struct random *random, uint64_t part, uint64_t whole) {
    CHECK(whole > 0);
    return random_below(random, whole) < part;
}
