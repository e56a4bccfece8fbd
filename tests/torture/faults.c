/*
 * Every call on the disk fails once, and every allocation.
 *
 * As in crash.c one pass plays the workload and forks at each event. The child's disk then fails at its next call: with
 * EIO, once or from then on; with ENOSPC, once or until space comes back; a write that fails has written some of its
 * sectors, a sync that fails has lost some. Or the n-th allocation from there fails. The workload goes on to its end:
 * calls may fail with the status of their fault and no other one, those that succeed must be right, and a write that
 * failed is there wholly or not at all; after STATUS_FAILED writes are refused and reads go on. Closing gives back all
 * memory. Then the fault is over and the store opens (in a third of the cases after a loss of power) with everything
 * that was acknowledged, and takes writes.
 *
 * Would break this: a failure that isn't seen, or that is tried again on the same file; half a batch; a leak or a crash
 * on a path of failure; CORRUPT for what is only an error; a store that doesn't open again.
 */
#include "tests/torture/pool.h"
#include "tests/torture/sweeps.h"
#include "tests/torture/world.h"

#include "node/base/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPERATIONS = 170, LARGE_PERCENT = 4, MENDED = 20, AFTERWARDS = 20, EVENTS_MAX = 20000, FULL_EVENTS = 40 };

static const struct script_profile profile = {
    .weights = {[OPERATION_PUT] = 40,
                [OPERATION_DELETE] = 8,
                [OPERATION_DELETE_RANGE] = 3,
                [OPERATION_BATCH] = 12,
                [OPERATION_SYNC] = 2,
                [OPERATION_FLUSH] = 3,
                [OPERATION_COMPACT] = 2,
                [OPERATION_SNAPSHOT] = 3,
                [OPERATION_RELEASE] = 3,
                [OPERATION_GET] = 12,
                [OPERATION_MULTI_GET] = 3,
                [OPERATION_SCAN] = 4,
                [OPERATION_WALK] = 2},
    .sync_percent = 20,
    .value_bytes = 400,
};

#define MAY(status) ((uint64_t)1 << (status))

/* Every other seed has large values, some or most of them; the others have a log so small that segments are left behind
 * and used again. */
static struct world *make_world(uint64_t seed) {
    struct script_profile own = profile;
    own.large_percent = seed % 4 == 2 ? LARGE_PERCENT : 0;
    if (seed % 4 == 0) {
        return world_new_large(seed, 1, &own, OPERATIONS);
    }
    struct world *world = world_new(seed, seed % 3 == 0 ? 2 : 1, &own, OPERATIONS);
    if (seed % 2 != 0) {
        world->options.write_bytes_max = 16 * 1024;
        world->options.log_group_bytes = 16 * 1024;
    }
    return world;
}

/* In a child: the fault is armed. To the end of the workload, and then once more without faults. */
static void live_on(struct world *world, struct pool *pool, uint64_t full_events) {
    uint64_t until = world->events + full_events;
    bool loses_power = (world->events + world->torture.checks) % 3 == 0;
    while (full_events > 0 && world->events < until && world_step(world)) {
    }
    if (full_events > 0) {
        world_mend(world);
    }
    world->operations_mended = MENDED;
    world_run(world);
    world_mend(world);
    world->torture.may_fail = 0;
    pool->counts->failed_calls += world->torture.failures;
    if (loses_power) {
        world_crash(world, SIM_CRASH_POWER);
        pool->counts->crashes++;
    }
    world_begin(world, AFTERWARDS, true);
    world_run(world);
    pool->counts->checks += world->torture.checks;
}

/* ---- Calls on the disk ------------------------------------------------------------------------------------------ */

enum fault { FAULT_EIO, FAULT_EIO_EVER, FAULT_ENOSPC, FAULT_FULL, FAULT_KINDS };

static const char *const fault_names[FAULT_KINDS] = {"EIO", "EIO from there on", "ENOSPC", "disk full for a while"};

static void fail_here(struct world *world, struct pool *pool, enum fault fault) {
    bool is_space = fault == FAULT_ENOSPC || fault == FAULT_FULL;
    sim_disk_reseed(world->node, world->events * FAULT_KINDS + fault);
    /* A sync that fails leaves everything open, whatever its errno; a segment that couldn't be made is room that isn't
     * there. */
    world->torture.may_fail = MAY(STATUS_FAILED) | MAY(STATUS_IO) | MAY(STATUS_NO_SPACE);
    if (fault == FAULT_FULL) {
        sim_disk_options(world->node)->capacity_bytes = 0;
    } else {
        sim_disk_fail(world->node, 1, is_space ? ENOSPC : EIO, fault == FAULT_EIO_EVER);
    }
    pool->counts->faults++;
    live_on(world, pool, fault == FAULT_FULL ? FULL_EVENTS : 0);
}

static bool is_chosen(const struct sweep_options *options, uint64_t seed, uint64_t point) {
    return options->only == UINT64_MAX ? (point + seed) % options->stride == 0 : point == options->only;
}

static void sweep_io_seed(struct pool *pool, const struct sweep_options *options, uint64_t seed) {
    struct world *world = make_world(seed);
    char label[POOL_LABEL_BYTES];
    uint64_t seen = UINT64_MAX;
    world_begin(world, OPERATIONS - MENDED - AFTERWARDS, true);
    do {
        if (world->events == seen) {
            continue;
        }
        seen = world->events;
        for (int fault = 0; is_chosen(options, seed, seen) && fault < FAULT_KINDS; fault++) {
            (void)snprintf(label, sizeof label, "holdfast-torture io --seed %" PRIu64 " --only %" PRIu64 " (%s)", seed,
                           seen, fault_names[fault]);
            if (pool_child(pool, label)) {
                fail_here(world, pool, (enum fault)fault);
                pool_child_done();
            }
        }
    } while (world_step(world) && !pool_has_failed(pool));
    world_free(world);
}

/* ---- Allocations ------------------------------------------------------------------------------------------------ */

static uint64_t allocations(const struct world *world) {
    struct sim_memory_stats stats;
    sim_node_get_memory(world->node, &stats);
    return stats.allocations;
}

/* How many allocations there were at each event, from a pass without faults. Returns how many events there are. */
static uint64_t count_allocations(uint64_t seed, uint64_t counts[EVENTS_MAX]) {
    struct world *world = make_world(seed);
    uint64_t events = 0;
    world_begin(world, OPERATIONS - MENDED - AFTERWARDS, true);
    do {
        for (; events <= world->events; events++) {
            CHECK(events < EVENTS_MAX);
            counts[events] = allocations(world);
        }
    } while (world_step(world));
    world_free(world);
    return events;
}

static void sweep_allocations_seed(struct pool *pool, const struct sweep_options *options, uint64_t seed) {
    uint64_t *counts = calloc(EVENTS_MAX, sizeof *counts);
    CHECK(counts != NULL);
    uint64_t events = count_allocations(seed, counts);
    struct world *world = make_world(seed);
    char label[POOL_LABEL_BYTES];
    uint64_t seen = UINT64_MAX;
    world_begin(world, OPERATIONS - MENDED - AFTERWARDS, true);
    do {
        if (world->events == seen || world->events + 1 >= events) {
            continue;
        }
        seen = world->events;
        for (uint64_t n = 1; n <= counts[seen + 1] - counts[seen]; n++) {
            uint64_t point = counts[seen] + n;
            (void)snprintf(label, sizeof label, "holdfast-torture memory --seed %" PRIu64 " --only %" PRIu64, seed,
                           point);
            if (is_chosen(options, seed, point) && pool_child(pool, label)) {
                world->torture.may_fail = MAY(STATUS_NO_MEMORY);
                sim_node_fail_allocation(world->node, n);
                pool->counts->faults++;
                live_on(world, pool, 0);
                pool_child_done();
            }
        }
    } while (world_step(world) && !pool_has_failed(pool));
    world_free(world);
    free(counts);
}

/* ---- The calls -------------------------------------------------------------------------------------------------- */

static bool sweep(const struct sweep_options *options, const char *title,
                  void (*sweep_seed)(struct pool *pool, const struct sweep_options *options, uint64_t seed)) {
    struct pool pool;
    pool_init(&pool, options->processes);
    for (uint64_t i = 0; i < options->seeds && !pool_has_failed(&pool); i++) {
        sweep_seed(&pool, options, options->first_seed + i);
    }
    pool_wait(&pool);
    bool good = pool_report(&pool, title);
    pool_deinit(&pool);
    return good;
}

bool sweep_io_faults(const struct sweep_options *options) { return sweep(options, "failing I/O", sweep_io_seed); }

bool sweep_allocations(const struct sweep_options *options) {
    return sweep(options, "failing allocations", sweep_allocations_seed);
}
