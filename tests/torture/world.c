/* See world.h. */
#include "tests/torture/world.h"

#include "node/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEPS_MAX = 20 * 1000 * 1000,
    OPEN_TRIES_MAX = 8,
    POLL_US = 200,
    MENDED_US = 3 * 1000 * 1000,
    LIFE_US_MAX = 600 * 1000 * 1000,
    REST_US = 100 * 1000
};

static const uint64_t DISK_BYTES = (uint64_t)4096 * MIB;

/* ---- Events ----------------------------------------------------------------------------------------------------- */

static void count_event(void *context, const struct sim_trace *trace) {
    struct world *world = context;
    if (trace->kind == SIM_TRACE_TURN || trace->kind == SIM_TRACE_SLICE) {
        return;
    }
    uint64_t place = world->recent_count++ % WORLD_RECENT;
    world->recent[place].trace = *trace;
    (void)snprintf(world->recent[place].text, sizeof world->recent[place].text, "%s", trace->text);
    switch (trace->kind) {
    case SIM_TRACE_OPEN:
    case SIM_TRACE_WRITE:
    case SIM_TRACE_WRITE_DSYNC:
    case SIM_TRACE_SYNC:
    case SIM_TRACE_TRUNCATE:
    case SIM_TRACE_RENAME:
    case SIM_TRACE_HARD_LINK:
    case SIM_TRACE_UNLINK:
    case SIM_TRACE_MKDIR:
    case SIM_TRACE_SYNC_DIR:
    case SIM_TRACE_IO_END: world->events++; break;
    default: break;
    }
}

static void operation_ended(struct torture *torture, struct player *player) {
    (void)player;
    ((struct world *)torture->context)->events++;
}

static void explain(const struct torture *torture) {
    const struct world *world = torture->context;
    uint64_t first = world->recent_count > WORLD_RECENT ? world->recent_count - WORLD_RECENT : 0;
    for (uint64_t i = first; i < world->recent_count; i++) {
        const struct sim_trace *trace = &world->recent[i % WORLD_RECENT].trace;
        (void)fprintf(stderr, "  %10llu us %-10s %llu %llu %s\n", (unsigned long long)trace->time_us,
                      sim_trace_name(trace->kind), (unsigned long long)trace->a, (unsigned long long)trace->b,
                      world->recent[i % WORLD_RECENT].text);
    }
}

void world_mend(struct world *world) {
    sim_disk_fail(world->node, 0, 0, false);
    sim_node_fail_allocation(world->node, 0);
    sim_disk_options(world->node)->capacity_bytes = DISK_BYTES;
}

/* ---- A life ----------------------------------------------------------------------------------------------------- */

static bool open_engine(struct world *world) {
    struct error err;
    for (unsigned i = 0; i < OPEN_TRIES_MAX; i++) {
        error_clear(&err);
        enum status status = engine_open(&world->options, &world->torture.engine, &err);
        if (status == STATUS_OK) {
            return true;
        }
        (void)snprintf(world->problem, sizeof world->problem, "%s", err.message);
        if ((world->torture.may_fail >> (unsigned)status & 1) == 0) {
            torture_fail(&world->torture, NULL, "opening: %s: %s", status_name(status), err.message);
        }
        if (i + 2 == OPEN_TRIES_MAX) {
            world_mend(world);
        }
        world->open_failures++;
        world->torture.failures++;
    }
    torture_fail(&world->torture, NULL, "opening fails again and again: %s", world->problem);
}

static void play(void *context) {
    struct player *player = context;
    struct world *world = player->torture->context;
    for (uint32_t i = 0; i < world->operations_max && player_step(player); i++) {
    }
    world->running--;
}

static uint64_t blocks(const struct world *world) {
    struct sim_memory_stats stats;
    sim_node_get_memory(world->node, &stats);
    return stats.blocks;
}

/* All players, each on a fiber. */
static void play_all(struct world *world, uint32_t operations) {
    struct torture *torture = &world->torture;
    world->operations_max = operations;
    world->running = torture->player_count;
    for (unsigned i = 1; i < torture->player_count; i++) {
        sim_node_thread(world->node, play, &torture->players[i]);
    }
    play(&torture->players[0]);
    while (world->running > 0) {
        env_sleep_us(sim_node_env(world->node), POLL_US);
    }
}

/* On a fiber: what main() of a program with an engine does. */
static void live(void *context) {
    struct world *world = context;
    struct torture *torture = &world->torture;
    uint64_t blocks_before = blocks(world);
    if (!open_engine(world)) {
        return;
    }
    for (unsigned i = 0; i < torture->player_count; i++) {
        player_adopt(&torture->players[i], world->least[i]);
    }
    play_all(world, world->operations_max);
    if (world->operations_mended > 0) {
        world_mend(world);
        env_sleep_us(sim_node_env(world->node), MENDED_US);
        torture->may_fail &= (uint64_t)1 << STATUS_FAILED;
        play_all(world, world->operations_mended);
    }
    for (unsigned i = 0; i < torture->player_count && world->checks_at_end; i++) {
        if (torture->players[i].adopted) {
            player_check_all(&torture->players[i]);
        }
    }
    for (unsigned i = 0; i < torture->player_count; i++) {
        player_let_go(&torture->players[i]);
    }
    engine_close(torture->engine);
    torture->engine = NULL;
    world->leaked_blocks = blocks(world) - blocks_before;
    if (world->leaked_blocks != 0) {
        torture_fail(&world->torture, NULL, "%llu blocks of memory are still there after engine_close",
                     (unsigned long long)world->leaked_blocks);
    }
    world->finished = true;
}

/* ---- The host's side -------------------------------------------------------------------------------------------- */

void world_engine_options(struct engine_options *options) {
    engine_options_init(options);
    options->dir = "/store";
    options->memtable_bytes = 24 * 1024;
    options->block_bytes = 512;
    options->sst_bytes = 8 * 1024;
    options->log_group_bytes = 32 * 1024;
    options->write_bytes_max = TORTURE_WRITE_BYTES_MAX;
    options->log_segment_bytes = 1; /* as small as can be */
}

struct world *world_new(uint64_t seed, unsigned actors, const struct script_profile *profile, uint32_t operations) {
    struct world *world = calloc(1, sizeof *world);
    struct sim_options sim_options;
    struct sim_node_options node_options;
    CHECK(world != NULL);
    sim_options_init(&sim_options);
    sim_options.trace = count_event;
    sim_options.trace_context = world;
    world->sim = sim_new(seed, &sim_options);
    sim_node_options_init(&node_options, "n1");
    node_options.workers_long = 3;
    node_options.disk.capacity_bytes = DISK_BYTES;
    world->node = sim_node_new(world->sim, &node_options);
    sim_node_start(world->node);
    world_engine_options(&world->options);
    world->torture.stepped = operation_ended;
    world->torture.explain = explain;
    world->torture.context = world;
    for (unsigned i = 0; i < actors; i++) {
        player_init(&world->torture, i, seed, profile, operations);
    }
    return world;
}

struct world *world_new_large(uint64_t seed, unsigned actors, const struct script_profile *profile,
                              uint32_t operations) {
    struct script_profile own = *profile;
    own.large_percent = 60;
    struct world *world = world_new(seed, actors, &own, operations);
    world->options.value_threshold_bytes = 2000;
    world->options.memtable_bytes = 192 * 1024;
    return world;
}

void world_free(struct world *world) {
    for (unsigned i = 0; i < world->torture.player_count; i++) {
        player_deinit(&world->torture.players[i]);
    }
    sim_free(world->sim);
    free(world);
}

void world_begin_with(struct world *world, void (*run)(void *world)) {
    world->operations_mended = 0;
    world->options.env = sim_node_env(world->node);
    for (unsigned i = 0; i < world->torture.player_count; i++) {
        world->torture.players[i].adopted = false;
    }
    world->finished = false;
    world->events = 0;
    sim_node_thread(world->node, run, world);
}

void world_begin(struct world *world, uint32_t operations_max, bool checks_at_end) {
    world->operations_max = operations_max;
    world->checks_at_end = checks_at_end;
    world_begin_with(world, live);
}

bool world_step(struct world *world) {
    if (world->finished) {
        return false;
    }
    if (!sim_step(world->sim)) {
        torture_fail(&world->torture, &world->torture.players[0], "everything waits, and nothing will come");
    }
    return true;
}

void world_run(struct world *world) {
    uint64_t since_us = sim_now_us(world->sim);
    for (uint64_t steps = 0; world_step(world); steps++) {
        if (steps == STEPS_MAX || sim_now_us(world->sim) - since_us > LIFE_US_MAX) {
            torture_fail(&world->torture, &world->torture.players[0], "no end in sight after %llu steps",
                         (unsigned long long)steps);
        }
    }
    /* What the program left runs out. */
    (void)sim_run_until(world->sim, sim_now_us(world->sim) + REST_US, NULL, NULL, STEPS_MAX);
    for (unsigned i = 0; i < world->torture.player_count; i++) {
        const struct player *player = &world->torture.players[i];
        world->least[i] = player->adopted ? player->acknowledged : world->least[i];
    }
}

void world_crash(struct world *world, enum sim_crash kind) {
    for (unsigned i = 0; i < world->torture.player_count; i++) {
        struct player *player = &world->torture.players[i];
        player_forget(player);
        if (kind == SIM_CRASH_PROCESS) {
            world->least[i] = player->adopted ? player->acknowledged : world->least[i];
        } else {
            world->least[i] = player->durable;
        }
    }
    sim_node_crash(world->node, kind);
    sim_node_start(world->node);
}
