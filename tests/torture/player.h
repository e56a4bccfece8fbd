/*
 * Plays a script on an engine and checks every answer against the model; judges what a restart has left.
 *
 *   player_init -> [ player_adopt -> player_step ... -> player_let_go ] once per life of the engine -> player_deinit
 *
 * What an actor knows. Its writes are numbered; `acknowledged` were answered with success in this life or survived the
 * last one, `durable` of them must survive a loss of power: those that asked for sync, and all writes acknowledged
 * before a sync of anybody was begun. A write that failed without a word on its outcome is `doubtful`: it may be there
 * or not, in this life and the next one; after it the engine refuses writes. As long as a fault keeps the player from
 * seeing which, its reads of the newest state prove nothing, and are left out.
 *
 * Several players on one engine share a `struct torture`. One thread per player; in the simulator a fiber.
 */
#ifndef HOLDFAST_TESTS_TORTURE_PLAYER_H
#define HOLDFAST_TESTS_TORTURE_PLAYER_H

#include "storage/engine.h"
#include "tests/torture/script.h"

#include <stdatomic.h>

struct player {
    struct torture *torture;
    struct script script;
    struct model now;  /* as this life must show it */
    uint32_t position; /* next operation */
    uint32_t begun;    /* writes handed to the engine */
    uint32_t acknowledged;
    uint32_t durable;
    uint32_t durable_before; /* the last sync but one */
    bool adopted;            /* this life: the numbers above and below tell of it */
    bool refused;            /* writes are refused from now on */
    bool doubt;              /* the write at `doubtful` failed, and what it did couldn't be read yet */
    uint32_t doubtful;
    uint64_t answers; /* digest of everything that was read, to compare runs */
    struct {
        struct engine_snapshot *snapshot;
        struct model model;
    } slots[TORTURE_SLOTS];
    uint64_t *digests; /* of values, by id */
};

struct torture {
    struct engine *engine;
    unsigned player_count;
    struct player players[TORTURE_ACTORS_MAX];
    uint64_t may_fail; /* bit n: calls may end with status n, for faults are about */
    uint64_t failures; /* calls that did */
    /* Called when an operation has ended. May be NULL. */
    void (*stepped)(struct torture *torture, struct player *player);
    /* Called before the process ends by torture_fail: to say more. May be NULL. */
    void (*explain)(const struct torture *torture);
    void *context;
    uint64_t checks;
};

/* Lets the process end with a message that says what, where and how to repeat it. */
_Noreturn void torture_fail(const struct torture *torture, const struct player *player, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* rm -rf, on the real disk. */
void torture_remove_tree(const char *dir);
/* Put in front of such messages: how to repeat. */
void torture_say_how(const char *format, ...) __attribute__((format(printf, 1, 2)));

void player_init(struct torture *torture, unsigned actor, uint64_t seed, const struct script_profile *profile,
                 uint32_t operations);
void player_deinit(struct player *player);

/* A life begins: what is there must be what some number of writes left, at least `least` of them, none beyond those
 * that were begun. The player goes on behind them. */
void player_adopt(struct player *player, uint32_t least);
/* One operation; false: the script is over. */
bool player_step(struct player *player);
/* Snapshots are released: before the engine is closed. */
void player_let_go(struct player *player);
/* After a crash: they are gone. */
void player_forget(struct player *player);
/* Everything that the player's keys hold, by gets and by iterators both ways, against the model. */
void player_check_all(struct player *player);

/* How many keys can't be read because something is CORRUPT, by gets and by iterators; `file` must be in the message.
 * All that can be read is right. */
unsigned player_count_damaged(struct player *player, const char *file);

/* What tells of a failure that was allowed to happen; anything else ends the process. True if the call failed. */
bool player_failed(struct player *player, enum status status, const struct error *err, const char *what);

#endif
