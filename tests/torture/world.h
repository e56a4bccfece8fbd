/*
 * The engine in a simulated world, one program after the other on one disk.
 *
 *   world_new -> { world_begin -> world_step ... (finished, or world_crash) } ... -> world_free
 *
 * A life's program opens the engine, lets every player adopt what is there, plays, checks, closes. It runs on fibers
 * of the node; this interface is the host's, which looks at the world between two steps and may fork there.
 *
 * `events` counts the points at which a crash can make a difference: calls that reached the disk and operations that
 * ended.
 */
#ifndef HOLDFAST_TESTS_TORTURE_WORLD_H
#define HOLDFAST_TESTS_TORTURE_WORLD_H

#include "tests/sim/sim.h"
#include "tests/torture/player.h"

enum { WORLD_RECENT = 24 };

struct world {
    struct torture torture; /* first: what its `stepped` gets leads here */
    struct sim *sim;
    struct sim_node *node;
    struct engine_options options;
    /* What the next life does: */
    uint32_t operations_max; /* per player */
    bool checks_at_end;
    uint32_t operations_mended; /* then faults end, and after a while come so many more: without failures, unless the
                                   engine has stopped for good */
    uint32_t least[TORTURE_ACTORS_MAX];
    /* What has become of it: */
    uint64_t events;
    uint64_t running; /* players */
    bool finished;
    uint64_t open_failures;
    uint64_t leaked_blocks;
    /* The last things that happened, for messages. */
    struct {
        struct sim_trace trace;
        char text[64];
    } recent[WORLD_RECENT];
    uint64_t recent_count;
    char problem[ERROR_MESSAGE_BYTES_MAX]; /* why opening failed */
};

/* Engine options small enough that a few hundred operations flush and compact. */
void world_engine_options(struct engine_options *options);

struct world *world_new(uint64_t seed, unsigned actors, const struct script_profile *profile, uint32_t operations);
/* One of large values, which are apart from the tree, most of them in segments of the log. */
struct world *world_new_large(uint64_t seed, unsigned actors, const struct script_profile *profile,
                              uint32_t operations);
void world_free(struct world *world);

/* The node is up: it plays at most so many operations per player. */
void world_begin(struct world *world, uint32_t operations_max, bool checks_at_end);
/* Another program instead; it sets `finished` at its end. */
void world_begin_with(struct world *world, void (*run)(void *world));
/* One step; false when the life is over. */
bool world_step(struct world *world);
/* To its end. */
void world_run(struct world *world);
/* Whatever was broken works again. */
void world_mend(struct world *world);
/* The node goes down; players know what must be left of theirs. Then it starts again. */
void world_crash(struct world *world, enum sim_crash kind);

#endif
