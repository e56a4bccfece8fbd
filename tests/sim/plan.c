/*
 * Faults: each seed draws a swarm (which kinds, how often), then a schedule. Every fault ends by itself after a while;
 * the plan's end ends them all.
 *
 * Faults have numbers: 0 and 1 are crashes at elections and at switches of the manifest, which come when there is
 * something to crash at, the others are the schedule's: what is drawn here, then what others put on it (changes of
 * membership, leaders that are cut off; to whom that happens is known only then). All are drawn before the run, and
 * each has a source of randomness of its own, so that any can be left out and the others come when and as they would
 * have.
 */
#include "tests/sim/cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum fault {
    PLAN_CRASH,
    PLAN_POWER_LOSS,
    PLAN_POWER_LOSS_ALL,
    PLAN_CRASH_ALL,
    PLAN_PARTITION,
    PLAN_ONE_WAY,
    PLAN_ISOLATE,
    PLAN_RESETS,
    PLAN_PAUSE,
    PLAN_DISK_HANG,
    PLAN_DISK_SLOW,
    PLAN_DISK_ERRORS,
    PLAN_NETWORK_SLOW,
    PLAN_DISK_FULL,
    PLAN_STOP,
    PLAN_APPLY_SLOW,
    PLAN_CLIENT_RESETS,
    PLAN_LOG_DAMAGE,
    PLAN_ROT,
    PLAN_STORE_LOST,
    PLAN_COUNT, /* that are drawn here */
    PLAN_LEADER_CUT = PLAN_COUNT,
    PLAN_CHANGE,
    PLAN_ALL_COUNT
};

static_assert((int)PLAN_ALL_COUNT <= (int)PLAN_KINDS_MAX, "the statistics have a place for each kind");

enum { CRASHES_AT_ELECTIONS, CRASHES_AT_SWITCHES, FIRST_SCHEDULED }; /* numbers of faults */

enum { SWITCH_DELAY_US_MAX = 2000 }; /* by then something else has synced the directory */

struct planned {
    struct cluster *cluster;
    struct random random; /* its own */
    enum fault fault;
    uint32_t victim;
    uint32_t other;
    uint64_t lasts_us;
};

static struct replica *replica_at(const struct planned *planned) {
    return &planned->cluster->replicas[planned->victim];
}

static struct sim_node *other_node(const struct planned *planned) {
    return planned->cluster->replicas[planned->other].sim_node;
}

static void restart_later(struct planned *planned, struct replica *replica) {
    replica__schedule_restart(replica, planned->lasts_us / 2 + 1000);
}

/* Committed entries wait before they are applied, now and then. */
static void slow_apply(struct replica *replica) {
    struct error error;
    if (sim_node_is_up(replica->sim_node)) {
        CHECK(fault_arm(sim_node_faults(replica->sim_node), "apply=delay(20),probability=0.05", &error) == STATUS_OK);
    }
}

/* As if somebody else had taken what was left, bar a little. */
static void fill_disk(struct replica *replica, bool full) {
    struct sim_disk_options *disk = sim_disk_options(replica->sim_node);
    disk->capacity_bytes = full ? 0 : CLUSTER_DISK_BYTES;
    replica->fault_explains_end = replica->fault_explains_end || full;
}

static void isolate(struct planned *planned, bool up) {
    struct cluster *cluster = planned->cluster;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        if (i != planned->victim) {
            sim_link_set(replica_at(planned)->sim_node, cluster->replicas[i].sim_node, up);
            sim_link_set(cluster->replicas[i].sim_node, replica_at(planned)->sim_node, up);
        }
    }
}

static void end_fault(void *context) {
    struct planned *planned = context;
    struct replica *replica = replica_at(planned);
    switch (planned->fault) {
    case PLAN_PARTITION: sim_heal(replica->sim_node, other_node(planned)); break;
    case PLAN_ONE_WAY: sim_link_set(replica->sim_node, other_node(planned), true); break;
    case PLAN_ISOLATE: isolate(planned, true); break;
    case PLAN_PAUSE: sim_node_resume(replica->sim_node); break;
    case PLAN_DISK_HANG: sim_disk_hang(replica->sim_node, false); break;
    case PLAN_DISK_SLOW: sim_disk_options(replica->sim_node)->slow_ppm = 200; break;
    case PLAN_DISK_ERRORS:
        sim_disk_options(replica->sim_node)->write_error_ppm = 0;
        sim_disk_options(replica->sim_node)->sync_error_ppm = 0;
        break;
    case PLAN_NETWORK_SLOW: sim_network_options(planned->cluster->sim)->slow_ppm = 0; break;
    case PLAN_DISK_FULL: fill_disk(replica, false); break;
    case PLAN_LEADER_CUT: depose__end(replica); break;
    case PLAN_APPLY_SLOW:
        if (sim_node_is_up(replica->sim_node)) {
            fault_disarm(sim_node_faults(replica->sim_node), FAULT_APPLY);
        }
        break;
    default: break;
    }
}

static void crash_all(struct planned *planned, enum sim_crash crash) {
    struct cluster *cluster = planned->cluster;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        replica__crash(&cluster->replicas[i], crash);
        replica__schedule_restart(&cluster->replicas[i], 1000 + random_below(&planned->random, planned->lasts_us));
    }
}

/* False: nobody leads. */
static bool cut_leader(struct planned *planned) {
    struct cluster *cluster = planned->cluster;
    struct replica *leader = depose__begin(cluster);
    struct plan_fault *fault = &cluster->plan[planned - cluster->planned];
    planned->victim = leader != NULL ? leader->number : planned->victim;
    fault->victim = planned->victim;
    fault->what = leader != NULL ? "" : NULL;
    return leader != NULL;
}

static void begin_fault(struct planned *planned) {
    struct cluster *cluster = planned->cluster;
    struct replica *replica = replica_at(planned);
    struct cluster_stats *stats = &cluster->stats;
    switch (planned->fault) {
    case PLAN_CRASH:
        replica__crash(replica, SIM_CRASH_PROCESS);
        restart_later(planned, replica);
        stats->crashes++;
        break;
    case PLAN_POWER_LOSS:
        replica__crash(replica, SIM_CRASH_POWER);
        restart_later(planned, replica);
        stats->power_losses++;
        break;
    case PLAN_POWER_LOSS_ALL:
        crash_all(planned, SIM_CRASH_POWER);
        stats->power_losses += cluster->replica_count;
        break;
    case PLAN_CRASH_ALL:
        crash_all(planned, SIM_CRASH_PROCESS);
        stats->crashes += cluster->replica_count;
        break;
    case PLAN_PARTITION:
        sim_partition(replica->sim_node, other_node(planned));
        stats->partitions++;
        break;
    case PLAN_ONE_WAY:
        sim_link_set(replica->sim_node, other_node(planned), false);
        stats->partitions++;
        break;
    case PLAN_ISOLATE:
        isolate(planned, false);
        stats->partitions++;
        break;
    case PLAN_RESETS:
        sim_reset_connections(replica->sim_node, other_node(planned));
        stats->resets++;
        break;
    case PLAN_PAUSE:
        if (sim_node_is_up(replica->sim_node)) {
            sim_node_pause(replica->sim_node);
            stats->pauses++;
        }
        break;
    case PLAN_DISK_HANG:
        sim_disk_hang(replica->sim_node, true);
        stats->disk_faults++;
        break;
    case PLAN_DISK_SLOW:
        sim_disk_options(replica->sim_node)->slow_ppm = 200 * 1000;
        stats->disk_faults++;
        break;
    case PLAN_DISK_ERRORS:
        replica->fault_explains_end = true;
        sim_disk_options(replica->sim_node)->write_error_ppm = 20 * 1000;
        sim_disk_options(replica->sim_node)->sync_error_ppm = 20 * 1000;
        stats->disk_faults++;
        break;
    case PLAN_NETWORK_SLOW:
        sim_network_options(cluster->sim)->slow_ppm = 100 * 1000;
        sim_network_options(cluster->sim)->slow_us_max = 200 * 1000;
        break;
    case PLAN_DISK_FULL:
        fill_disk(replica, true);
        stats->disk_faults++;
        break;
    case PLAN_STOP: stats->stops += replica__stop(replica) ? 1 : 0; break;
    case PLAN_APPLY_SLOW: slow_apply(replica); break;
    case PLAN_CLIENT_RESETS:
        sim_reset_connections(replica->sim_node, cluster->client_node);
        stats->resets++;
        break;
    case PLAN_LOG_DAMAGE:
        replica__crash(replica, random_chance(&planned->random, 1, 2) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
        stats->damaged_logs += damage__log(replica, &planned->random);
        restart_later(planned, replica);
        break;
    case PLAN_ROT: stats->rotten_stores += rot__store(replica, &planned->random); break;
    case PLAN_STORE_LOST:
        replica__crash(replica, random_chance(&planned->random, 1, 2) ? SIM_CRASH_POWER : SIM_CRASH_PROCESS);
        stats->lost_stores += rot__lose_store(replica);
        restart_later(planned, replica);
        break;
    case PLAN_LEADER_CUT:
    case PLAN_CHANGE:
    case PLAN_ALL_COUNT: CHECK(false);
    }
}

static void begin(void *context) {
    struct planned *planned = context;
    struct cluster *cluster = planned->cluster;
    if (planned->fault == PLAN_CHANGE) {
        cluster->plan[planned - cluster->planned].what = operator__act(cluster, &planned->random);
        return;
    }
    if (planned->fault != PLAN_LEADER_CUT) {
        begin_fault(planned);
    } else if (!cut_leader(planned)) {
        return;
    }
    cluster->stats.faults[planned->fault]++;
    sim_call_at(cluster->sim, sim_now_us(cluster->sim) + planned->lasts_us, end_fault, planned);
}

static void lose_power(void *context) {
    struct replica *replica = context;
    replica__crash(replica, SIM_CRASH_POWER);
    replica__schedule_restart(replica, 1000);
    replica->cluster->stats.power_losses++;
}

void plan__term_changed(struct replica *replica) {
    struct cluster *cluster = replica->cluster;
    if (cluster->crashes_at_elections && random_chance(&cluster->random, 1, 8)) {
        sim_call_at(cluster->sim, sim_now_us(cluster->sim) + random_below(&cluster->random, 1000), lose_power, replica);
    }
}

/* The log and the tables go on from the new manifest at once, and delete what only the old one needs. */
void plan__manifest_switched(struct replica *replica) {
    struct cluster *cluster = replica->cluster;
    if (cluster->crashes_at_switches && random_chance(&cluster->random, 1, 4)) {
        uint64_t delay_us = random_below(&cluster->random, SWITCH_DELAY_US_MAX);
        sim_call_at(cluster->sim, sim_now_us(cluster->sim) + delay_us, lose_power, replica);
    }
}

/* ---- Numbers ---------------------------------------------------------------------------------------------------- */

bool plan_mask_has(const struct plan_mask *mask, uint32_t number) {
    return mask != NULL && number < PLAN_FAULTS_MAX && (mask->left_out[number / 8] >> (number % 8) & 1) != 0;
}

void plan_mask_set(struct plan_mask *mask, uint32_t number, bool left_out) {
    CHECK(number < PLAN_FAULTS_MAX);
    uint8_t bit = (uint8_t)(1 << (number % 8));
    uint8_t *byte = &mask->left_out[number / 8];
    *byte = (uint8_t)(left_out ? *byte | bit : *byte & ~bit);
}

const char *plan_kind_name(uint32_t kind) {
    switch ((enum fault)kind) {
    case PLAN_CRASH: return "crash";
    case PLAN_POWER_LOSS: return "power loss";
    case PLAN_POWER_LOSS_ALL: return "power loss of all";
    case PLAN_CRASH_ALL: return "crash of all";
    case PLAN_PARTITION: return "partition";
    case PLAN_ONE_WAY: return "partition one way";
    case PLAN_ISOLATE: return "isolation";
    case PLAN_RESETS: return "reset";
    case PLAN_PAUSE: return "pause";
    case PLAN_DISK_HANG: return "hung disk";
    case PLAN_DISK_SLOW: return "slow disk";
    case PLAN_DISK_ERRORS: return "disk errors";
    case PLAN_NETWORK_SLOW: return "slow network";
    case PLAN_DISK_FULL: return "full disk";
    case PLAN_STOP: return "stop";
    case PLAN_APPLY_SLOW: return "slow apply";
    case PLAN_CLIENT_RESETS: return "clients' reset";
    case PLAN_LOG_DAMAGE: return "damaged log";
    case PLAN_ROT: return "rotten store";
    case PLAN_STORE_LOST: return "lost store";
    case PLAN_LEADER_CUT: return "leader cut off";
    case PLAN_CHANGE: return "change of membership";
    case PLAN_ALL_COUNT: break;
    }
    return NULL;
}

bool plan_kind_is_fault(uint32_t kind) { return kind != PLAN_CHANGE; }

/* Whom a fault is about. */
static void print_names(const struct plan_fault *fault) {
    switch ((enum fault)fault->kind) {
    case PLAN_POWER_LOSS_ALL:
    case PLAN_CRASH_ALL:
    case PLAN_NETWORK_SLOW: return;
    case PLAN_PARTITION:
    case PLAN_ONE_WAY:
    case PLAN_RESETS: printf(" n%" PRIu32 " to n%" PRIu32, fault->victim + 1, fault->other + 1); return;
    case PLAN_CHANGE: printf(" (%s)", fault->what); return;
    default: printf(" n%" PRIu32, fault->victim + 1); return;
    }
}

void plan__print(const struct cluster *cluster) {
    if (cluster->crashes_at_elections) {
        printf("  fault %d: power loss at elections\n", CRASHES_AT_ELECTIONS);
    }
    if (cluster->crashes_at_switches) {
        printf("  fault %d: power loss at switches of the manifest\n", CRASHES_AT_SWITCHES);
    }
    for (uint32_t i = FIRST_SCHEDULED; i < cluster->plan_count; i++) {
        const struct plan_fault *fault = &cluster->plan[i];
        if (plan_mask_has(cluster->mask, i) || fault->at_us > sim_now_us(cluster->sim) || fault->what == NULL) {
            continue;
        }
        printf("  fault %" PRIu32 ": %.3f s: %s", i, (double)fault->at_us / 1e6, plan_kind_name(fault->kind));
        print_names(fault);
        if (fault->lasts_us > 0) {
            printf(" for %.3f s", (double)fault->lasts_us / 1e6);
        }
        printf("\n");
    }
}

/* Gives the fault its number, and puts it on schedule if it isn't left out. */
static void enter(struct cluster *cluster, struct planned *planned, uint64_t at_us) {
    uint32_t number = cluster->plan_count++;
    cluster->plan[number] = (struct plan_fault){.at_us = at_us,
                                                .lasts_us = planned->lasts_us,
                                                .kind = (uint32_t)planned->fault,
                                                .victim = planned->victim,
                                                .other = planned->other,
                                                .what = planned->fault < PLAN_COUNT ? "" : NULL};
    random_seed(&planned->random, cluster->seed * PLAN_FAULTS_MAX + number);
    if (!plan_mask_has(cluster->mask, number)) {
        sim_call_at(cluster->sim, at_us, begin, planned);
    }
    if (cluster->report != NULL) {
        cluster->report->fault_count = cluster->plan_count;
    }
}

static struct planned *next_planned(struct cluster *cluster) {
    CHECK(cluster->planned != NULL && cluster->plan_count < PLAN_FAULTS_MAX);
    struct planned *planned = &cluster->planned[cluster->plan_count];
    planned->cluster = cluster;
    return planned;
}

void plan__add_change(struct cluster *cluster, uint64_t at_us) {
    struct planned *planned = next_planned(cluster);
    planned->fault = PLAN_CHANGE;
    enter(cluster, planned, at_us);
}

void plan__add_leader_cut(struct cluster *cluster, uint64_t at_us, uint64_t lasts_us) {
    struct planned *planned = next_planned(cluster);
    planned->fault = PLAN_LEADER_CUT;
    planned->lasts_us = lasts_us;
    enter(cluster, planned, at_us);
}

void plan__schedule(struct cluster *cluster, uint64_t end_us) {
    struct random *random = &cluster->random;
    cluster->planned = calloc(PLAN_FAULTS_MAX, sizeof *cluster->planned);
    CHECK(cluster->planned != NULL);
    cluster->plan_count = FIRST_SCHEDULED;
    if (cluster->report != NULL) {
        cluster->report->fault_count = FIRST_SCHEDULED;
    }
    uint32_t weights[PLAN_COUNT];
    uint32_t sum = 0;
    for (int i = 0; i < PLAN_COUNT; i++) {
        weights[i] = random_chance(random, 1, 2) ? 1 + (uint32_t)random_below(random, 5) : 0;
        sum += weights[i];
    }
    if (sum == 0) {
        return;
    }
    cluster->crashes_at_elections = random_chance(random, 1, 3) && !plan_mask_has(cluster->mask, CRASHES_AT_ELECTIONS);
    uint64_t gap_us = 100 * 1000 + random_below(random, 900 * 1000);
    for (uint64_t at_us = 400 * 1000; at_us < end_us; at_us += 1 + random_below(random, 2 * gap_us)) {
        uint64_t draw = random_below(random, sum);
        int fault = 0;
        while (draw >= weights[fault]) {
            draw -= weights[fault++];
        }
        struct planned *planned = next_planned(cluster);
        planned->fault = (enum fault)fault;
        planned->victim = (uint32_t)random_below(random, cluster->replica_count);
        planned->other =
            (planned->victim + 1 + (uint32_t)random_below(random, cluster->replica_count - 1)) % cluster->replica_count;
        planned->lasts_us = 20 * 1000 + random_below(random, random_chance(random, 1, 4) ? 3000 * 1000 : 600 * 1000);
        enter(cluster, planned, at_us);
    }
    cluster->crashes_at_switches = random_chance(random, 1, 4) && !plan_mask_has(cluster->mask, CRASHES_AT_SWITCHES);
}

void plan__end_faults(struct cluster *cluster) {
    sim_heal_all(cluster->sim);
    cluster->crashes_at_elections = false;
    cluster->crashes_at_switches = false;
    sim_network_options(cluster->sim)->slow_ppm = 0;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct replica *replica = &cluster->replicas[i];
        struct sim_disk_options *disk = sim_disk_options(replica->sim_node);
        sim_disk_hang(replica->sim_node, false);
        disk->write_error_ppm = 0;
        disk->sync_error_ppm = 0;
        disk->slow_ppm = 200;
        disk->capacity_bytes = CLUSTER_DISK_BYTES;
        sim_node_resume(replica->sim_node);
    }
}
