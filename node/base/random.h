/*
 * A small deterministic generator (xoshiro256**, Blackman and Vigna; seeded through splitmix64). Not for secrets. Who
 * needs unpredictable seeds takes one from env_random.
 */
#ifndef HOLDFAST_BASE_RANDOM_H
#define HOLDFAST_BASE_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state[4];
};

void random_seed(struct random *random, uint64_t seed);
uint64_t random_next(struct random *random);
/* Uniform in [0, bound); bound > 0. */
uint64_t random_below(struct random *random, uint64_t bound);
/* True with probability part/whole. */
bool random_chance(struct random *random, uint64_t part, uint64_t whole);

#endif
