/*
 * A crash at every point of a workload, and again while the store recovers.
 *
 * One pass plays the workload; after each event (a call that reached the disk, an operation that ended) the process
 * forks, once for each fate. The child's node crashes there: its process alone, or power, and then what wasn't synced
 * is kept, lost or torn as the fate draws it. The node starts again, in half of the cases to crash anew while it opens.
 * What is there at last must be what a prefix of the writes left, with everything in it that was synced (or, where no
 * power was lost, acknowledged). Then it goes on working, closes, opens, and is compared once more.
 *
 * Would break this: an answer before the sync; a record or a table published out of order; a torn tail taken for more
 * or for less than it is; a recovery that can't be repeated; files removed too early.
 */
#include "tests/torture/pool.h"
#include "tests/torture/sweeps.h"
#include "tests/torture/world.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    OPERATIONS = 200,
    LARGE_PERCENT = 4,
    UNSYNCED_VALUE_BYTES = 4000,
    SMALL_WRITE_BYTES_MAX = 16 * 1024,
    SMALL_GROUP_BYTES = 16 * 1024,
    AFTERWARDS = 24,
    RECOVERY_EVENTS = 60, /* about as many as an opening has */
    RECOVERY_CRASHES_MAX = 2
};

/* By seed: a log so small that segments are left behind and used again; some large values; mostly large values, whose
 * segments of the log are adopted; hardly a sync, so that many groups of the log and several tail files are in use. */
static const struct script_profile profile = {
    .weights = {[OPERATION_PUT] = 40,
                [OPERATION_DELETE] = 8,
                [OPERATION_DELETE_RANGE] = 3,
                [OPERATION_BATCH] = 12,
                [OPERATION_SYNC] = 2,
                [OPERATION_FLUSH] = 3,
                [OPERATION_COMPACT] = 1,
                [OPERATION_SNAPSHOT] = 2,
                [OPERATION_RELEASE] = 2,
                [OPERATION_GET] = 4,
                [OPERATION_SCAN] = 1},
    .sync_percent = 20,
    .value_bytes = 400,
};

/* Crashes again at a random event of the opening, or does without. */
static void recover(struct world *world, struct pool *pool, struct random *random) {
    for (unsigned round = 0; round < RECOVERY_CRASHES_MAX && random_chance(random, 1, 2); round++) {
        uint64_t at = 1 + random_below(random, RECOVERY_EVENTS);
        world_begin(world, 0, false);
        while (world->events < at && world_step(world)) {
        }
        world_crash(world, random_chance(random, 1, 3) ? SIM_CRASH_PROCESS : SIM_CRASH_POWER);
        pool->counts->crashes++;
        pool->counts->second_crashes++;
    }
    world_begin(world, AFTERWARDS, true);
    world_run(world);
    world_begin(world, 0, true);
    world_run(world);
}

/* In a child. */
static void crash_here(struct world *world, struct pool *pool, uint64_t seed, uint32_t fate) {
    struct random random;
    random_seed(&random, seed * 7919 + world->events * 31 + fate);
    sim_disk_reseed(world->node, random_next(&random));
    world_crash(world, fate == 0 ? SIM_CRASH_PROCESS : SIM_CRASH_POWER);
    pool->counts->crashes++;
    recover(world, pool, &random);
    pool->counts->checks += world->torture.checks;
}

static void sweep_seed(struct pool *pool, const struct sweep_options *options, uint64_t seed) {
    unsigned actors = seed % 3 == 0 ? TORTURE_ACTORS_MAX : 1;
    bool hardly_syncs = seed % 4 == 3;
    struct script_profile own = profile;
    own.large_percent = seed % 2 * LARGE_PERCENT;
    bool is_adopting = seed % 4 == 2;
    if (hardly_syncs) {
        own.large_percent = 0;
        own.sync_percent = 1;
        own.value_bytes = UNSYNCED_VALUE_BYTES;
    }
    struct world *world = (is_adopting ? world_new_large : world_new)(seed, actors, &own, OPERATIONS);
    if (seed % 4 == 0) {
        world->options.write_bytes_max = SMALL_WRITE_BYTES_MAX;
    }
    if (seed % 4 == 0 || hardly_syncs) {
        world->options.log_group_bytes = SMALL_GROUP_BYTES;
    }
    char label[POOL_LABEL_BYTES];
    uint64_t seen = 0;
    world_begin(world, OPERATIONS - AFTERWARDS, true);
    do {
        if (world->events == seen) {
            continue;
        }
        seen = world->events;
        bool chosen = options->only == UINT64_MAX ? (seen + seed) % options->stride == 0 : seen == options->only;
        for (uint32_t fate = 0; chosen && fate < options->fates; fate++) {
            (void)snprintf(label, sizeof label,
                           "holdfast-torture crash --seed %" PRIu64 " --only %" PRIu64 " (fate %u)", seed, seen, fate);
            if (pool_child(pool, label)) {
                crash_here(world, pool, seed, fate);
                pool_child_done();
            }
        }
    } while (world_step(world) && !pool_has_failed(pool));
    world_free(world);
}

bool sweep_crashes(const struct sweep_options *options) {
    struct pool pool;
    pool_init(&pool, options->processes);
    for (uint64_t i = 0; i < options->seeds && !pool_has_failed(&pool); i++) {
        sweep_seed(&pool, options, options->first_seed + i);
    }
    pool_wait(&pool);
    bool good = pool_report(&pool, "crashes");
    pool_deinit(&pool);
    return good;
}
