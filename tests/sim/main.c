/*
 * holdfast-sim: whole clusters in the simulator, seed by seed.
 *
 *   holdfast-sim --seed N            one seed: prints `hash: <hex>` of the run and the final state
 *   holdfast-sim --seeds N [--first F] [--jobs J] [--failures M]     ends after M (3) failures
 *
 *   --seconds S                      for one seed at most (120)
 *
 * Each seed runs in a process of its own, so that a failed CHECK, or code that never ends, names its seed. Exit code 0:
 * all hold; 1: some seed failed, with its report and the command that repeats it; 2: usage.
 */
#include "tests/sim/cluster.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { JOBS_MAX = 64, SEED_SECONDS = 120 };

struct settings {
    bool single;
    bool log;
    uint64_t seed;
    uint64_t first;
    uint64_t seeds;
    uint32_t jobs;
    uint64_t failures_max;
    uint32_t seconds;
};

static uint64_t run_hash(const struct cluster *cluster) {
    uint64_t parts[2] = {sim_hash(cluster->sim), cluster->state_digest};
    return parts[0] ^ (parts[1] * 0x9e3779b97f4a7c15u);
}

static bool run_seed(uint64_t seed, const struct settings *settings, struct cluster_stats *ret_stats) {
    (void)alarm(settings->seconds); /* a callback that never returns makes no steps that could be counted */
    struct cluster *cluster = cluster_new(seed);
    bool good = cluster_run(cluster);
    struct sim_stats sim;
    sim_get_stats(cluster->sim, &sim);
    if (!good) {
        cluster_print_failure(cluster);
        printf("repeat with: make sim SEED=%" PRIu64 "\n", seed);
    } else if (settings->single) {
        const struct cluster_stats *stats = &cluster->stats;
        printf("seed %" PRIu64 ": %" PRIu32 " replicas, %.1f virtual seconds, %" PRIu64 " steps, %" PRIu64
               " entries, %" PRIu64 " puts ok, %" PRIu64 " failed, %" PRIu64 " unknown, %" PRIu64 " reads, %" PRIu64
               " elections\n",
               seed, cluster->replica_count, (double)stats->virtual_us / 1e6, stats->steps, stats->entries,
               stats->puts_ok, stats->puts_failed, stats->puts_unknown, stats->reads, stats->elections);
    }
    if (good && settings->log) {
        cluster_print_failure(cluster);
    }
    if (settings->single) {
        printf("hash: %016" PRIx64 "\n", run_hash(cluster));
    }
    *ret_stats = cluster->stats;
    cluster_free(cluster);
    return good;
}

/* ---- Many seeds ---------------------------------------------------------------------------------------------------
 */

struct shared {
    uint64_t passed;
    uint64_t failed;
    struct cluster_stats sum;
};

static void add_stats(struct cluster_stats *sum, const struct cluster_stats *more) {
    uint64_t *to = (uint64_t *)(void *)sum;
    const uint64_t *from = (const uint64_t *)(const void *)more;
    for (size_t i = 0; i < sizeof *sum / sizeof *to; i++) {
        to[i] += from[i];
    }
}

/* A child per seed: its exit tells, its statistics come through shared memory. */
static pid_t start_child(uint64_t seed, const struct settings *settings, struct cluster_stats *slot) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        bool good = run_seed(seed, settings, slot);
        fflush(stdout);
        _exit(good ? 0 : 1);
    }
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    return pid;
}

static const char *how_it_ended(int status) {
    if (!WIFSIGNALED(status)) {
        return "";
    }
    return WTERMSIG(status) == SIGALRM   ? " (it hangs: no end in time)"
           : WTERMSIG(status) == SIGABRT ? " with SIGABRT (a failed check)"
                                         : " with a signal";
}

static void print_table(const struct shared *shared, double seconds) {
    const struct cluster_stats *sum = &shared->sum;
    double hours = (double)sum->virtual_us / 3.6e9;
    printf("%" PRIu64 " seeds passed, %" PRIu64
           " failed in %.1f s; %.2f simulated hours (%.0f simulated seconds a second)\n",
           shared->passed, shared->failed, seconds, hours, (double)sum->virtual_us / 1e6 / seconds);
    printf("  steps %" PRIu64 ", states checked %" PRIu64 ", entries committed %" PRIu64 ", elections %" PRIu64 "\n",
           sum->steps, sum->checks, sum->entries, sum->elections);
    printf("  writes: %" PRIu64 " ok, %" PRIu64 " failed, %" PRIu64 " unknown; reads checked %" PRIu64
           ", scans %" PRIu64 "\n",
           sum->puts_ok, sum->puts_failed, sum->puts_unknown, sum->reads, sum->scans);
    printf("  faults: %" PRIu64 " crashes, %" PRIu64 " power losses, %" PRIu64 " restarts, %" PRIu64
           " partitions, %" PRIu64 " resets, %" PRIu64 " pauses, %" PRIu64 " stops, %" PRIu64 " disk faults, %" PRIu64
           " damaged logs\n",
           sum->crashes, sum->power_losses, sum->restarts, sum->partitions, sum->resets, sum->pauses, sum->stops,
           sum->disk_faults, sum->damaged_logs);
    printf("  snapshots: %" PRIu64 " sent, %" PRIu64 " installed\n", sum->snapshots_sent, sum->snapshots_installed);
    printf("  membership: %" PRIu64 " changes, %" PRIu64 " transfers, %" PRIu64 " refused or unknown\n", sum->changes,
           sum->transfers, sum->changes_failed);
    printf("  last lives: %" PRIu64 " groups of one write and one sync each, %" PRIu64 " flushes, %" PRIu64
           " log segments deleted, %" PRIu64 " KiB of them taken over for their large values\n",
           sum->groups, sum->flushes, sum->segments_deleted, sum->adopted_bytes / 1024);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run_many(const struct settings *settings) {
    struct cluster_stats *slots =
        mmap(NULL, JOBS_MAX * sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(slots != MAP_FAILED);
    pid_t pids[JOBS_MAX] = {0};
    uint64_t seeds[JOBS_MAX] = {0};
    struct shared shared = {0};
    uint64_t next = settings->first;
    uint64_t end = settings->first + settings->seeds;
    uint32_t running = 0;
    double begin_s = now_s();
    while (running > 0 || next < end) {
        for (uint32_t i = 0; i < settings->jobs && next < end && shared.failed < settings->failures_max; i++) {
            if (pids[i] == 0) {
                seeds[i] = next;
                pids[i] = start_child(next++, settings, &slots[i]);
                running++;
            }
        }
        if (running == 0) {
            break;
        }
        int status;
        pid_t ended = wait(&status);
        for (uint32_t i = 0; i < settings->jobs; i++) {
            if (pids[i] != ended) {
                continue;
            }
            pids[i] = 0;
            running--;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
                shared.passed++;
                add_stats(&shared.sum, &slots[i]);
            } else {
                shared.failed++;
                printf("seed %" PRIu64 " FAILED%s\n", seeds[i], how_it_ended(status));
            }
        }
    }
    print_table(&shared, now_s() - begin_s);
    return shared.failed == 0 && shared.passed == settings->seeds ? 0 : 1;
}

static int usage(void) {
    fprintf(stderr,
            "usage: holdfast-sim --seed N [--log] | --seeds N [--first F] [--jobs J] [--failures M] [--seconds S]\n");
    return 2;
}

int main(int argc, char **argv) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct settings settings = {.first = 1,
                                .failures_max = 3,
                                .seconds = SEED_SECONDS,
                                .jobs = cpus > 0 && cpus < JOBS_MAX ? (uint32_t)cpus : 2};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--log") == 0) {
            settings.log = true;
            continue;
        }
        char *rest;
        uint64_t number = strtoull(value, &rest, 10);
        if (*value == '\0' || *rest != '\0') {
            return usage();
        }
        if (strcmp(argv[i], "--seed") == 0) {
            settings.single = true;
            settings.seed = number;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            settings.seeds = number;
        } else if (strcmp(argv[i], "--first") == 0) {
            settings.first = number;
        } else if (strcmp(argv[i], "--jobs") == 0 && number >= 1 && number <= JOBS_MAX) {
            settings.jobs = (uint32_t)number;
        } else if (strcmp(argv[i], "--seconds") == 0 && number >= 1 && number <= UINT32_MAX) {
            settings.seconds = (uint32_t)number;
        } else if (strcmp(argv[i], "--failures") == 0 && number >= 1) {
            settings.failures_max = number;
        } else {
            return usage();
        }
        i++;
    }
    if (settings.single) {
        struct cluster_stats stats;
        return run_seed(settings.seed, &settings, &stats) ? 0 : 1;
    }
    return settings.seeds > 0 ? run_many(&settings) : usage();
}
