/* What the player's files share: player.c (lives and writes), player_read.c (reads). */
#ifndef HOLDFAST_TESTS_TORTURE_PLAYER_INTERNAL_H
#define HOLDFAST_TESTS_TORTURE_PLAYER_INTERNAL_H

#include "tests/torture/player.h"

struct bounds {
    struct slice lower;
    struct slice upper;
    uint8_t bytes[2][TORTURE_KEY_BYTES_MAX];
};

/* [from, to) as keys; to TORTURE_KEYS: the end of the actor's. */
void player__bounds(const struct player *player, unsigned from, unsigned to, struct bounds *bounds);
struct slice player__end_key(const struct player *player, unsigned place, uint8_t out[TORTURE_KEY_BYTES_MAX]);

/* Never 0 for a value; 0 for none. */
uint64_t player__digest(struct player *player, uint32_t id);
uint64_t player__digest_of(struct slice value);

/* Looks again whether the write that failed is there. */
void player__resolve_doubt(struct player *player);

/* Everything that a snapshot shows, if there is one: before it goes. */
void player__check_snapshot(struct player *player, unsigned slot);

/* Performs what only reads, and compares. */
void player__read(struct player *player, const struct operation *operation);

#endif
