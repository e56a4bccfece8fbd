/*
 * Replicas: a production node per simulated machine, restarted whenever it ends.
 */
#include "tests/sim/cluster.h"
#include "tests/sim/linearizable.h"

#include "raft/raft_internal.h"
#include "storage/storage_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAILBOX_MESSAGES = 4096,
    ENTRY_BYTES = 16 * 1024,
    SEGMENT_BYTES = 128 * 1024,
    FOLLOWER_LOG_BYTES = 2 * SEGMENT_BYTES, /* who is away for a moment needs a snapshot */
    SNAPSHOT_RATE = 1024 * 1024,            /* slow enough for faults to meet it */
    MEMTABLE_BYTES = 48 * 1024,
    CACHE_BYTES = MIB, /* a run has few tables, and to forget one walks the whole cache */
    SST_BYTES = 16 * 1024,
    LEVEL_BASE_BYTES = 32 * 1024,
    HISTORY = 300, /* revisions */
    SCAN_INTERVAL_S = 2,
    MANIFEST_BYTES = 64 * 1024,
    MANIFEST_BYTES_LITTLE = 4 * 1024, /* nearly every edit is a new manifest */
    VALUE_BYTES = 1000,
    VALUE_LIVE_PERCENT = 5,
    CLOCK_DRIFT_PPM_MAX = 150 * 1000,
    STEPS_MAX = 30 * 1000 * 1000,
    SECOND_US = 1000 * 1000,
    PROGRESS_US = 10 * SECOND_US,
    CONVERGE_US = 60 * SECOND_US
};

void cluster__fail(struct cluster *cluster, const char *format, ...) {
    if (cluster__has_failed(cluster)) {
        return;
    }
    cluster->failure_format = format;
    va_list args;
    va_start(args, format);
    int used = snprintf(cluster->failure, sizeof cluster->failure, "at %" PRIu64 " us: ", sim_now_us(cluster->sim));
    (void)vsnprintf(cluster->failure + used, sizeof cluster->failure - (size_t)used, format, args);
    va_end(args);
}

struct consensus *replica__consensus(const struct replica *replica) {
    struct consensus *consensus = replica->node != NULL ? node_consensus(replica->node) : NULL;
    return consensus != NULL && consensus->raft != NULL && consensus->raft->started ? consensus : NULL;
}

/* ---- Log lines, kept for a failure's report --------------------------------------------------------------------- */

static int64_t log_wall_ms(struct logger *logger) {
    struct replica *replica = CONTAINER_OF(logger, struct replica, logger);
    return (int64_t)(sim_now_us(replica->cluster->sim) / 1000);
}

static void log_write(struct logger *logger, enum log_level level, struct slice line) {
    struct replica *replica = CONTAINER_OF(logger, struct replica, logger);
    (void)level;
    char *out = replica->log_lines[replica->log_count++ % LOG_LINES_KEPT];
    size_t len = line.len < sizeof replica->log_lines[0] - 1 ? line.len : sizeof replica->log_lines[0] - 1;
    memcpy(out, line.data, len);
    out[len] = '\0';
}

/* ---- One life --------------------------------------------------------------------------------------------------- */

/* No configuration makes these as small as short runs need them: several tables a merge, a new manifest now and then.
 */
static void shrink_engine(struct storage *storage, uint64_t seed) {
    storage->options.sst_bytes = SST_BYTES;
    storage->options.level_base_bytes = LEVEL_BASE_BYTES;
    storage->options.level_ratio = 3;
    storage->options.manifest_bytes_max = seed % 4 == 2 ? MANIFEST_BYTES_LITTLE : MANIFEST_BYTES;
    storage->options.value_live_percent_min = VALUE_LIVE_PERCENT;
}

static void on_serving(void *context) {
    struct replica *replica = context;
    replica->serving = true;
    shrink_engine(replica__consensus(replica)->storage, replica->cluster->seed);
    replica->cluster->stats.restarts += replica->lives > 1;
}

static void on_failed(void *context, const struct error *err) {
    struct replica *replica = context;
    if (!replica->fault_explains_end) {
        cluster__fail(replica->cluster, "n%" PRIu32 " ended without a fault that explains it: %s", replica->number + 1,
                      err->message);
    }
    env_exit(replica->env, 1);
}

static void on_raft_step(void *context, const struct raft *raft, const struct raft_event *event, enum status status,
                         const struct raft_update *update) {
    const struct cluster *cluster = ((struct replica *)context)->cluster;
    matching__stepped(context, raft, event == NULL ? NULL : update);
    if (cluster->trace == NULL) {
        return;
    }
    if (event == NULL) {
        trace_started(cluster->trace, sim_now_us(cluster->sim), raft);
    } else {
        trace_stepped(cluster->trace, sim_now_us(cluster->sim), raft, event, status, update);
    }
}

static void on_stopped(void *context) { env_loop_stop(((struct replica *)context)->loop); }

static struct env_transport *client_transport(void *context, struct env_loop *loop, struct error *err) {
    (void)loop;
    (void)err;
    return sim_transport(((struct replica *)context)->env);
}

static void replica_main(void *context, struct env *env) {
    struct replica *replica = context;
    struct error error = {0};
    replica->env = env;
    struct node_options options = {
        .env = env,
        .config = &replica->config,
        .logger = &replica->logger,
        .peer_transport = sim_transport(env),
        .client_transport = client_transport,
        .context = replica,
        .serving = on_serving,
        .failed = on_failed,
        .stopped = on_stopped,
        .observe = on_raft_step,
    };
    enum status status = env_loop_new(env, "consensus", MAILBOX_MESSAGES, &replica->loop, &error);
    options.loop = replica->loop;
    if (status == STATUS_OK) {
        status = node_new(&options, &replica->node, &error);
    }
    if (status != STATUS_OK) {
        on_failed(replica, &error);
    }
    node_start(replica->node);
    env_loop_run(replica->loop);
    env_loop_join(replica->loop);
    /* Stopped: the end of a process, with everything given back. */
    struct node *node = replica->node;
    replica->serving = false;
    replica->node = NULL;
    node_free(node);
    env_loop_free(replica->loop);
    struct sim_memory_stats memory;
    sim_node_get_memory(replica->sim_node, &memory);
    if (memory.blocks != 0) {
        cluster__fail(replica->cluster, "%s stopped and left %" PRIu64 " blocks of memory", replica->config.name,
                      memory.blocks);
    }
    env_exit(env, 0);
}

static void on_crashed(void *context, enum sim_crash crash, int exit_code) {
    struct replica *replica = context;
    log_event(&replica->logger, LOG_INFO, "sim.ended", "crash=%d code=%d", (int)crash, exit_code);
    checker__crashed(replica);
    if (replica->cluster->trace != NULL) {
        static const char *const kinds[] = {[SIM_CRASH_PROCESS] = "process", [SIM_CRASH_POWER] = "power"};
        trace_crashed(replica->cluster->trace, sim_now_us(replica->cluster->sim), replica->config.id,
                      exit_code >= 0 ? "exit" : kinds[crash]);
    }
    replica->env = NULL;
    replica->loop = NULL;
    replica->stop_message.run = NULL;
    replica->node = NULL;
    replica->serving = false;
    if (exit_code >= 0) {
        replica__schedule_restart(replica, 50 * 1000 + random_below(&replica->cluster->random, 500 * 1000));
    }
}

static void restart(void *context) {
    struct replica *replica = context;
    replica->restarting = false;
    if (!sim_node_is_up(replica->sim_node)) {
        replica->lives++;
        replica->must_check_start = true;
        replica->group_writes = 0;
        replica->snapshots_sent = 0;
        replica->snapshots_installed = 0;
        replica->rebuilds = 0;
        replica->scan_index = 0;
        log_event(&replica->logger, LOG_INFO, "sim.started", "life=%" PRIu64, replica->lives);
        replica->fault_explains_end = sim_disk_options(replica->sim_node)->write_error_ppm > 0 ||
                                      sim_disk_options(replica->sim_node)->capacity_bytes == 0;
        sim_node_start(replica->sim_node);
    }
}

void replica__schedule_restart(struct replica *replica, uint64_t delay_us) {
    if (!replica->restarting) {
        replica->restarting = true;
        sim_call_at(replica->cluster->sim, sim_now_us(replica->cluster->sim) + delay_us, restart, replica);
    }
}

static void run_stop(struct env_message *message) {
    struct replica *replica = CONTAINER_OF(message, struct replica, stop_message);
    node_stop(replica->node);
}

bool replica__stop(struct replica *replica) {
    if (!replica->serving || replica->stop_message.run != NULL || replica->fault_explains_end) {
        return false;
    }
    replica->stop_message.run = run_stop;
    env_post(replica->loop, &replica->stop_message);
    return true;
}

void replica__crash(struct replica *replica, enum sim_crash crash) {
    if (sim_node_is_up(replica->sim_node)) {
        sim_node_crash(replica->sim_node, crash);
    }
}

/* ---- The cluster ------------------------------------------------------------------------------------------------ */

/* Founders name each other; one that joins later names them and itself. */
static void fill_config(struct cluster *cluster, struct replica *replica) {
    struct config *config = &replica->config;
    config_init(config, alloc_system());
    config->join = replica->number >= cluster->founder_count;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        if (i >= cluster->founder_count && i != replica->number) {
            continue;
        }
        struct config_member *member = &config->members[config->member_count++];
        (void)snprintf(member->name, sizeof member->name, "n%" PRIu32, i + 1);
        member->id = i + 1;
        (void)snprintf(member->peer_address, sizeof member->peer_address, "n%" PRIu32 ":4500", i + 1);
        (void)snprintf(member->client_address, sizeof member->client_address, "n%" PRIu32 ":4400", i + 1);
        sim_default_thumbprint(member->name, member->thumbprint);
    }
    const struct config_member self = config->members[config->join ? cluster->founder_count : replica->number];
    (void)snprintf(config->name, sizeof config->name, "%s", self.name);
    config->id = self.id;
    memcpy(config->cluster_id, "simulated cluste", CONFIG_CLUSTER_ID_BYTES);
    (void)snprintf(config->data_dir, sizeof config->data_dir, "/data");
    (void)snprintf(config->client_listen, sizeof config->client_listen, "%s", self.client_address);
    (void)snprintf(config->peer_listen, sizeof config->peer_listen, "%s", self.peer_address);
    config->io_threads = cluster->seed % 4 == 3 ? 1 : 0;
    config->entry_bytes_max = ENTRY_BYTES;
    config->segment_bytes = SEGMENT_BYTES;
    config->follower_log_bytes = cluster->seed % 2 == 0 ? FOLLOWER_LOG_BYTES : config->follower_log_bytes;
    config->snapshot_rate = SNAPSHOT_RATE;
    config->scan_digest_interval_s = SCAN_INTERVAL_S;
    config->memtable_bytes = MEMTABLE_BYTES;
    config->cache_bytes = CACHE_BYTES;
    config->history_revisions = HISTORY;
    config->value_threshold_bytes = cluster_has_large_values(cluster) ? VALUE_BYTES : config->value_threshold_bytes;
    config->change_files = cluster->seed % 8 != 5;
    config->wal_cache_bytes = cluster->seed % 2 == 0 ? 0 : SEGMENT_BYTES;
    config->identities = calloc(1, sizeof *config->identities);
    CHECK(config->identities != NULL);
    config->identity_count = 1;
    (void)snprintf(config->identities[0].name, sizeof config->identities[0].name, "clients");
    config->identities[0].role = CONFIG_ROLE_ADMIN;
    sim_default_thumbprint("clients", config->identities[0].thumbprint);
}

static void make_replica(struct cluster *cluster, uint32_t number) {
    struct replica *replica = &cluster->replicas[number];
    replica->cluster = cluster;
    replica->number = number;
    replica->logger = (struct logger){.level_min = LOG_DEBUG, .wall_ms = log_wall_ms, .write = log_write};
    fill_config(cluster, replica);
    struct sim_node_options options;
    sim_node_options_init(&options, replica->config.name);
    options.main = replica_main;
    options.crashed = on_crashed;
    options.context = replica;
    options.cpu_count = 2;
    options.workers_long = 4;
    options.disk.capacity_bytes = CLUSTER_DISK_BYTES;
    options.disk.slow_ppm = 200;
    options.disk.slow_us_max = 30 * 1000;
    replica->sim_node = sim_node_new(cluster->sim, &options);
}

struct cluster *cluster_new(uint64_t seed) {
    bool grows = seed % 7 == 3;
    uint32_t replica_count = grows || seed % 6 == 5 ? 5 : 3;
    return cluster_new_growing(seed, replica_count, grows ? 3 : replica_count);
}

struct cluster *cluster_new_growing(uint64_t seed, uint32_t replica_count, uint32_t founder_count) {
    CHECK(founder_count > 0 && founder_count <= replica_count && replica_count <= REPLICAS_MAX);
    struct cluster *cluster = calloc(1, sizeof *cluster);
    CHECK(cluster != NULL);
    cluster->seed = seed;
    random_seed(&cluster->random, seed ^ 0x5eed);
    cluster->judge = linearizable__new();
    matching_init(&cluster->matching);
    struct sim_options options;
    sim_options_init(&options);
    options.trace = accounting__note;
    options.trace_context = cluster;
    if (seed % 5 == 1) {
        options.preempt_ppm = 200;
        options.preempt_us_max = 20 * 1000;
    }
    cluster->sim = sim_new(seed, &options);
    cluster->replica_count = replica_count;
    cluster->founder_count = founder_count;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        make_replica(cluster, i);
    }
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        cluster->replicas[i].lives = 1;
        cluster->replicas[i].must_check_start = true;
        sim_node_start(cluster->replicas[i].sim_node);
    }
    for (uint32_t i = 0; cluster_has_drift(cluster) && i < cluster->replica_count; i++) {
        int32_t drift_ppm = (int32_t)random_below(&cluster->random, 2 * CLOCK_DRIFT_PPM_MAX) - CLOCK_DRIFT_PPM_MAX;
        cluster->replicas[i].drift_ppm = drift_ppm;
        sim_node_set_clock_drift(cluster->replicas[i].sim_node, drift_ppm);
    }
    return cluster;
}

/* Steps with the checker looking on, until done, the time, or a failure. */
static bool advance(struct cluster *cluster, uint64_t until_us, bool (*done)(void *context)) {
    while (sim_now_us(cluster->sim) < until_us && !cluster__has_failed(cluster)) {
        if (done != NULL && done(cluster)) {
            return true;
        }
        if (!sim_step(cluster->sim)) {
            cluster__fail(cluster, "nothing can happen any more");
        }
        checker__step(cluster);
        if (++cluster->stats.steps > STEPS_MAX) {
            cluster__fail(cluster, "too many steps: something spins");
        }
    }
    return false;
}

static bool is_idle(void *context) { return workload__is_idle(context) && !operator__is_waiting(context); }

static bool has_progressed(void *context) {
    const struct cluster *cluster = context;
    return cluster->stats.puts_ok > cluster->puts_ok_before;
}

bool cluster_run(struct cluster *cluster) {
    uint64_t busy_us = (4 + random_below(&cluster->random, 8)) * SECOND_US;
    workload__start(cluster);
    plan__schedule(cluster, busy_us);
    operator__schedule(cluster, busy_us);
    depose__schedule(cluster, busy_us);
    (void)advance(cluster, busy_us, NULL);
    plan__end_faults(cluster);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        if (!sim_node_is_up(cluster->replicas[i].sim_node)) {
            replica__schedule_restart(&cluster->replicas[i], 1000);
        }
    }
    /* Work goes on for a second without faults, and until it makes progress; then it stops, and all must agree. */
    cluster->puts_ok_before = cluster->stats.puts_ok;
    (void)advance(cluster, sim_now_us(cluster->sim) + SECOND_US, NULL);
    if (!advance(cluster, sim_now_us(cluster->sim) + PROGRESS_US, has_progressed)) {
        cluster__fail(cluster, "no write is acknowledged within %d s after the faults", PROGRESS_US / SECOND_US);
    }
    cluster->workload_on = false;
    uint64_t deadline_us = sim_now_us(cluster->sim) + CONVERGE_US;
    if (!advance(cluster, deadline_us, is_idle)) {
        cluster__fail(cluster, "operations don't end");
    }
    if (!advance(cluster, deadline_us, checker__converged)) {
        cluster__fail(cluster, "the replicas don't converge within %d s after the faults", CONVERGE_US / SECOND_US);
    }
    if (!cluster__has_failed(cluster)) {
        checker__final(cluster);
        linearizable__judge(cluster);
    }
    cluster->stats.virtual_us = sim_now_us(cluster->sim);
    cluster->stats.entries = cluster->committed_index;
    return !cluster__has_failed(cluster);
}

void cluster_print_failure(const struct cluster *cluster) {
    printf("seed %" PRIu64 " failed: %s\n%s", cluster->seed, cluster->failure, linearizable__report(cluster->judge));
    plan__print(cluster);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        const struct replica *replica = &cluster->replicas[i];
        uint64_t count = replica->log_count < LOG_LINES_KEPT ? replica->log_count : LOG_LINES_KEPT;
        for (uint64_t line = replica->log_count - count; line < replica->log_count; line++) {
            printf("  n%" PRIu32 ": %s\n", i + 1, replica->log_lines[line % LOG_LINES_KEPT]);
        }
    }
}

void cluster_free(struct cluster *cluster) {
    cluster->workload_on = false;
    sim_free(cluster->sim);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        config_deinit(&cluster->replicas[i].config);
    }
    linearizable__free(cluster->judge);
    matching_deinit(&cluster->matching);
    free(cluster->committed_terms);
    free(cluster->committed_in);
    free(cluster->leaders);
    free(cluster->planned);
    free(cluster->digests[0]);
    free(cluster->digests[1]);
    free(cluster);
}
