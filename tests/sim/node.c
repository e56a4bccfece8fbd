/*
 * Nodes: their lives, clocks and identity, and the vtable that gives them the world.
 *
 * A crash goes in this order: fibers are dropped (nothing of the node runs any more); writes in flight meet their fate
 * while their buffers still exist; files, loops and connections let go; the memory is freed; then the disk loses what
 * it loses; last the harness hears of it. It is never done on a fiber of the node.
 */
#include "tests/sim/sim_internal.h"

#include "node/base/checksum.h"

#include <stdio.h>
#include <string.h>

enum {
    CLOCK_BASE_US_MAX = 1000 * 1000 * 1000,
    BOOT_US_MAX = 1000,
    FIRST_PORT = 40000,
    WORKERS_SHORT = 2,
    WORKERS_LONG = 1
};

static const int64_t world_wall_ms = 1800000000000; /* virtual time 0 */

/* ---- Clocks, randomness ----------------------------------------------------------------------------------------- */

static uint64_t clock_at(const struct sim_node *node, uint64_t world_us) {
    uint64_t elapsed = world_us - node->clock_since_us;
    int64_t drift = (int64_t)((__int128)elapsed * node->drift_ppm / PPM);
    return node->clock_base_us + elapsed + (uint64_t)drift;
}

uint64_t sim__node_clock_us(struct sim_node *node) {
    uint64_t clock_us = clock_at(node, node->sim->now_us);
    if (clock_us < node->clock_last_us) {
        clock_us = node->clock_last_us;
    }
    node->clock_last_us = clock_us + random_below(&node->sim->schedule, 2);
    return node->clock_last_us;
}

uint64_t sim__node_world_time_us(const struct sim_node *node, uint64_t clock_us) {
    if (clock_us <= node->clock_base_us) {
        return node->clock_since_us;
    }
    unsigned __int128 ahead = clock_us - node->clock_base_us;
    unsigned __int128 elapsed = ahead * PPM / (unsigned)(PPM + node->drift_ppm) + 1;
    unsigned __int128 world_us = elapsed + node->clock_since_us;
    return world_us > UINT64_MAX ? UINT64_MAX : (uint64_t)world_us;
}

void sim_node_set_clock_drift(struct sim_node *node, int32_t drift_ppm) {
    CHECK(drift_ppm > -PPM / 2 && drift_ppm < PPM);
    node->clock_base_us = clock_at(node, node->sim->now_us);
    node->clock_since_us = node->sim->now_us;
    node->drift_ppm = drift_ppm;
    LIST_FOREACH (link, &node->loops) {
        sim__loop_wake(LIST_ENTRY(link, struct sim_loop, link)); /* to reckon its timers anew */
    }
}

void sim_node_set_wall_offset(struct sim_node *node, int64_t offset_ms) { node->wall_offset_ms = offset_ms; }

void sim__preempt(struct sim_node *node) {
    struct sim *sim = node->sim;
    if (sim->current == NULL || !random_chance(&sim->schedule, sim->options.preempt_ppm, PPM)) {
        return;
    }
    uint64_t us = 1 + random_below(&sim->schedule, sim->options.preempt_us_max);
    sim->stats.preemptions++;
    sim__note(sim, node, SIM_TRACE_PREEMPT, sim->current->id, us, "");
    sim__fiber_sleep_until(sim, sim->now_us + us);
}

static uint64_t env_clock(struct env *env) {
    struct sim_node *node = sim__node_of(env);
    sim__preempt(node);
    return sim__node_clock_us(node);
}

static int64_t env_wall(struct env *env) {
    struct sim_node *node = sim__node_of(env);
    return world_wall_ms + node->wall_offset_ms + (int64_t)(node->sim->now_us / 1000);
}

static uint64_t env_draw(struct env *env) { return random_next(&sim__node_of(env)->random); }
static unsigned env_cpus(struct env *env) { return sim__node_of(env)->options.cpu_count; }

static void env_end(struct env *env, int code) {
    struct sim_node *node = sim__node_of(env);
    struct sim *sim = node->sim;
    CHECK(sim->current != NULL && sim->current->node == node);
    sim->exiting = node;
    sim->exit_code = code;
    sim__fiber_wait(sim);
}

const struct env_ops sim__env_ops = {
    .clock_us = env_clock,
    .wall_ms = env_wall,
    .random = env_draw,
    .cpu_count = env_cpus,
    .exit = env_end,
    .loop_new = sim__loop_new,
    .loop_run = sim__loop_run,
    .loop_spawn = sim__loop_spawn,
    .loop_stop = sim__loop_stop,
    .loop_join = sim__loop_join,
    .loop_free = sim__loop_free,
    .on_loop = sim__on_loop,
    .loop_wake = sim__loop_wake_op,
    .work_submit = sim__work_submit,
    .sleep_us = sim__sleep_us,
    .event_new = sim__event_new,
    .event_free = sim__event_free,
    .event_set = sim__event_set,
    .event_wait = sim__event_wait,
    .word_wait = sim__word_wait,
    .word_wake = sim__word_wake,
    .open = sim__open,
    .close = sim__close,
    .pread = sim__pread,
    .pread_nowait = sim__pread_nowait,
    .pwrite = sim__pwrite,
    .pwrite_dsync = sim__pwrite_dsync,
    .sync = sim__sync,
    .size = sim__size,
    .truncate = sim__truncate,
    .map = sim__map,
    .unmap = sim__unmap,
    .rename = sim__rename,
    .link = sim__link,
    .unlink = sim__unlink,
    .mkdir = sim__mkdir,
    .sync_dir = sim__sync_dir,
    .list_dir = sim__list_dir,
    .lock_file = sim__lock_file,
    .disk_space = sim__disk_space,
    .io_submit = sim__io_submit,
};

/* ---- Life ------------------------------------------------------------------------------------------------------- */

void sim_disk_options_init(struct sim_disk_options *options) {
    *options = (struct sim_disk_options){
        .sector_bytes = 512,
        .capacity_bytes = (uint64_t)1024 * MIB,
        .torn = true,
        .garbled = true,
        .scatter = true,
        .nowait_pending_ppm = PPM / 2,
        .read_us_max = 100,
        .write_us_max = 50,
        .sync_us_max = 200,
        .slow_ppm = 1000,
        .slow_us_max = 10 * 1000,
    };
}

void sim_node_options_init(struct sim_node_options *options, const char *name) {
    *options = (struct sim_node_options){.name = name,
                                         .cpu_count = 2,
                                         .workers_short = WORKERS_SHORT,
                                         .workers_long = WORKERS_LONG};
    sim_disk_options_init(&options->disk);
}

void sim_default_thumbprint(const char *node_name, uint8_t ret_thumbprint[ENV_THUMBPRINT_BYTES]) {
    for (uint64_t i = 0; i < ENV_THUMBPRINT_BYTES / sizeof(uint64_t); i++) {
        uint64_t word = checksum64(node_name, strlen(node_name), i);
        memcpy(ret_thumbprint + i * sizeof word, &word, sizeof word);
    }
}

static void node_reset(struct sim_node *node) {
    node->env = NULL;
    node->transport = NULL;
    fault_init(&node->faults);
    list_init(&node->fibers);
    list_init(&node->loops);
    list_init(&node->files);
    list_init(&node->mappings);
    list_init(&node->ios);
    for (int i = 0; i < (int)ENV_WORK_CLASS_COUNT; i++) {
        list_init(&node->work_queue[i]);
        node->work_running[i] = 0;
        node->workers[i] = (struct sim_worker){.node = node, .work_class = (enum env_work_class)i};
    }
}

struct sim_node *sim_node_new(struct sim *sim, const struct sim_node_options *options) {
    CHECK(sim->node_count < SIM_NODES_MAX);
    CHECK(options->name[0] != '\0' && strlen(options->name) < LIMIT_NAME_BYTES && strchr(options->name, ':') == NULL);
    for (uint32_t i = 0; i < sim->node_count; i++) {
        CHECK(strcmp(sim->nodes[i]->name, options->name) != 0);
    }
    struct sim_node *node = sim__alloc(sizeof *node);
    node->sim = sim;
    node->index = sim->node_count;
    (void)snprintf(node->name, sizeof node->name, "%s", options->name);
    node->options = *options;
    node->options.name = node->name;
    node->options.cpu_count = options->cpu_count > 0 ? options->cpu_count : 1;
    node->options.workers_short = options->workers_short > 0 ? options->workers_short : WORKERS_SHORT;
    node->options.workers_long = options->workers_long > 0 ? options->workers_long : WORKERS_LONG;
    node->state = NODE_NEW;
    random_seed(&node->disk_random, sim->seed ^ (0x6469736bull << 8 | node->index));
    node->disk = sim__disk_new(options->disk.sector_bytes);
    node->next_port = FIRST_PORT;
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES];
    sim_default_thumbprint(node->name, thumbprint);
    sim_node_set_identity(node, ENV_CERTIFICATE_VALID, thumbprint, node->name);
    node_reset(node);
    sim__memory_init(&node->memory, 0, &sim->stats);
    sim->nodes[sim->node_count++] = node;
    return node;
}

static void run_main(void *argument) {
    struct sim_node *node = argument;
    node->options.main(node->options.context, &node->env->env);
}

void sim_node_start(struct sim_node *node) {
    struct sim *sim = node->sim;
    CHECK(node->state != NODE_UP);
    node->state = NODE_UP;
    node->paused = false;
    node->incarnation++;
    uint64_t seed = sim->seed ^ (node->incarnation << 16 | (uint64_t)node->index << 8);
    random_seed(&node->random, seed);
    sim__memory_init(&node->memory, seed + 1, &sim->stats);
    node->clock_base_us = 1 + random_below(&sim->schedule, CLOCK_BASE_US_MAX);
    node->clock_since_us = sim->now_us;
    node->clock_last_us = 0;
    node->env = sim__alloc(sizeof *node->env);
    *node->env = (struct sim_env){.env = {.ops = &sim__env_ops, .alloc = &node->memory.alloc, .faults = &node->faults},
                                  .node = node};
    node->transport = sim__alloc(sizeof *node->transport);
    *node->transport = (struct sim_transport){.transport = {.ops = &sim__transport_ops}, .node = node};
    sim__note(sim, node, SIM_TRACE_START, node->incarnation, 0, "");
    sim__network_node_started(node);
    if (node->options.main != NULL) {
        (void)sim__fiber_new(node, run_main, node, false, sim->now_us + 1 + random_below(&sim->schedule, BOOT_US_MAX));
    }
}

static void drop_fibers(struct sim_node *node) {
    LIST_FOREACH (link, &node->fibers) {
        sim__fiber_drop(LIST_ENTRY(link, struct sim_fiber, link));
    }
}

void sim__node_crash(struct sim_node *node, enum sim_crash crash, int exit_code) {
    struct sim *sim = node->sim;
    CHECK(node->state == NODE_UP);
    CHECK(sim->current == NULL || sim->current->node != node);
    sim__note(sim, node, SIM_TRACE_CRASH, (uint64_t)crash, (uint64_t)(int64_t)exit_code, "");
    node->state = crash == SIM_CRASH_POWER ? NODE_OFF : NODE_DOWN;
    drop_fibers(node);
    sim__ios_drop(node, crash);
    sim__mappings_drop(node);
    sim__files_drop(node);
    sim__network_drop(node, crash);
    sim__loops_drop(node);
    sim__memory_drop(&node->memory);
    sim__free(node->env);
    sim__free(node->transport);
    node_reset(node);
    node->paused = false;
    if (crash == SIM_CRASH_PROCESS) {
        sim->stats.process_crashes++;
    } else {
        struct sim_disk_loss loss = {0};
        sim__disk_lose_power(node->disk, &node->options.disk, &node->disk_random, &loss);
        sim->stats.power_losses++;
        sim->stats.sectors_kept += loss.sectors_kept;
        sim->stats.sectors_lost += loss.sectors_lost;
        sim->stats.sectors_torn += loss.sectors_torn;
        sim->stats.sectors_garbled += loss.sectors_garbled;
        sim->stats.names_kept += loss.names_kept;
        sim->stats.names_lost += loss.names_lost;
        sim__note(sim, node, SIM_TRACE_SECTORS, loss.sectors_lost, loss.sectors_torn + loss.sectors_garbled, "");
        sim__note(sim, node, SIM_TRACE_NAMES, loss.names_kept, loss.names_lost, "");
    }
    if (node->options.crashed != NULL) {
        node->options.crashed(node->options.context, crash, exit_code);
    }
}

void sim_node_crash(struct sim_node *node, enum sim_crash crash) { sim__node_crash(node, crash, -1); }
bool sim_node_is_up(const struct sim_node *node) { return node->state == NODE_UP; }
const char *sim_node_name(const struct sim_node *node) { return node->name; }
struct env *sim_node_env(struct sim_node *node) {
    return node->env == NULL ? NULL : &node->env->env;
}

struct env_transport *sim_node_transport(struct sim_node *node) {
    return node->transport == NULL ? NULL : &node->transport->transport;
}

struct env_transport *sim_transport(struct env *env) {
    return &sim__node_of(env)->transport->transport;
}
struct fault_set *sim_node_faults(struct sim_node *node) {
    return &node->faults;
}

void sim_node_thread(struct sim_node *node, void (*run)(void *context), void *context) {
    CHECK(node->state == NODE_UP);
    (void)sim__fiber_new(node, run, context, false, node->sim->now_us);
}

void sim_node_pause(struct sim_node *node) {
    CHECK(node->state == NODE_UP && (node->sim->current == NULL || node->sim->current->node != node));
    sim__note(node->sim, node, SIM_TRACE_PAUSE, 0, 0, "");
    node->paused = true;
    sim__fibers_park(node);
}

void sim_node_resume(struct sim_node *node) {
    if (node->state == NODE_UP && node->paused) {
        sim__note(node->sim, node, SIM_TRACE_RESUME, 0, 0, "");
        node->paused = false;
        sim__fibers_unpark(node);
    }
}

void sim_node_set_identity(struct sim_node *node, enum env_certificate_state state,
                           const uint8_t thumbprint[ENV_THUMBPRINT_BYTES], const char *subject) {
    node->identity.certificate = state;
    memset(node->identity.thumbprint, 0, sizeof node->identity.thumbprint);
    if (state != ENV_CERTIFICATE_NONE) {
        memcpy(node->identity.thumbprint, thumbprint, ENV_THUMBPRINT_BYTES);
    }
    (void)snprintf(node->identity.subject, sizeof node->identity.subject, "%s", subject);
}

void sim_node_fail_allocations(struct sim_node *node, uint32_t ppm) { node->memory.fail_ppm = ppm; }
void sim_node_fail_allocation(struct sim_node *node, uint64_t n) { node->memory.fail_countdown = n; }
void sim_node_get_memory(const struct sim_node *node, struct sim_memory_stats *ret_stats) {
    *ret_stats = node->memory.counts;
}

struct sim_disk_options *sim_disk_options(struct sim_node *node) {
    return &node->options.disk;
}

void sim_disk_hang(struct sim_node *node, bool hung) {
    sim__note(node->sim, node, SIM_TRACE_DISK_HANG, hung, 0, "");
    node->disk_hung = hung;
    if (!hung) {
        sim__files_unhang(node);
        sim__ios_unhang(node);
    }
}

enum status sim_disk_corrupt(struct sim_node *node, const char *path, uint64_t offset, uint64_t len) {
    struct sim_inode *inode = sim__disk_find(node->disk, path);
    if (inode == NULL || sim__inode_is_dir(inode)) {
        return STATUS_NOT_FOUND;
    }
    if (len == 0 || offset > sim__inode_size(inode) || len > sim__inode_size(inode) - offset) {
        return STATUS_INVALID;
    }
    sim__note(node->sim, node, SIM_TRACE_CORRUPT, offset, len, path);
    sim__mappings_store(node, inode);
    sim__inode_corrupt(inode, offset, len, &node->disk_random);
    sim__mappings_load(node, inode);
    return STATUS_OK;
}

void sim_disk_wipe(struct sim_node *node) {
    CHECK(node->state != NODE_UP);
    sim__disk_free(node->disk);
    node->disk = sim__disk_new(node->options.disk.sector_bytes);
}

void sim_disk_get_pending(const struct sim_node *node, uint64_t *ret_bytes, uint64_t *ret_names) {
    sim__disk_get_pending(node->disk, ret_bytes, ret_names);
}
