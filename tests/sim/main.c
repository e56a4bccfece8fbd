/*
 * holdfast-sim: whole clusters in the simulator, seed by seed.
 *
 *   holdfast-sim --seed N            one seed: prints `hash: <hex>` of the run and the final state
 *   holdfast-sim --seeds N [--first F] [--jobs J] [--failures M]     ends after M (3) failures
 *
 *   --seconds S                      for one seed at most (120)
 *   --trace FILE                     with --seed: every transition of every node (TRACE.md)
 *   --faults A,B,...                 with --seed: only these of its plan's faults; "none"
 *   --reduce S                       seconds for reducing a failing seed (20; 0: it isn't)
 *
 * Each of many seeds runs in a process of its own, so that a failed CHECK, or code that never ends, names its seed. A
 * failing seed is run again with fewer and fewer faults; the report is that of the shortest run that still fails in the
 * same way, and its trace is left in build/sim. Exit code 0: all hold; 1: some seed failed, with its report and the
 * command that repeats it; 2: usage.
 */
#include "tests/sim/reduce.h"

#include "build-commit.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { JOBS_MAX = 64, SEED_SECONDS = 120, REDUCE_SECONDS = 20, DEATH_SECONDS = 5, DEATH_STACK_BYTES = 256 * 1024 };

struct settings {
    bool single;
    bool log;
    uint64_t seed;
    uint64_t first;
    uint64_t seeds;
    uint32_t jobs;
    uint64_t failures_max;
    uint32_t seconds;
    uint32_t reduce_seconds;
    const char *trace_path; /* NULL: none */
    const char *faults;     /* NULL: all */
    struct plan_mask mask;  /* what `faults` leaves out */
};

static uint64_t run_hash(const struct cluster *cluster) {
    uint64_t parts[2] = {sim_hash(cluster->sim), cluster->state_digest};
    return parts[0] ^ (parts[1] * 0x9e3779b97f4a7c15u);
}

static struct trace *open_trace(const char *path, uint64_t seed) {
    struct trace *trace = trace_open(path, seed, BUILD_COMMIT);
    if (trace == NULL) {
        perror(path);
        exit(1);
    }
    return trace;
}

static void close_trace(struct trace *trace, const char *path) {
    if (!trace_close(trace)) {
        fprintf(stderr, "%s: not everything could be written\n", path);
        exit(1);
    }
}

static void print_run(const struct cluster *cluster) {
    const struct cluster_stats *stats = &cluster->stats;
    printf("seed %" PRIu64 ": %" PRIu32 " replicas, %.1f virtual seconds, %" PRIu64 " steps, %" PRIu64
           " entries, %" PRIu64 " puts ok, %" PRIu64 " failed, %" PRIu64 " unknown, %" PRIu64 " reads, %" PRIu64
           " elections\n",
           cluster->seed, cluster->replica_count, (double)stats->virtual_us / 1e6, stats->steps, stats->entries,
           stats->puts_ok, stats->puts_failed, stats->puts_unknown, stats->reads, stats->elections);
}

static void print_failure(const struct cluster *cluster, const struct settings *settings) {
    cluster_print_failure(cluster);
    printf("commit %s; repeat with: make sim SEED=%" PRIu64 "%s%s%s\n", BUILD_COMMIT, cluster->seed,
           settings->faults != NULL ? " SIMFLAGS=\"--faults " : "", settings->faults != NULL ? settings->faults : "",
           settings->faults != NULL ? "\"" : "");
}

/* The run of this process, for when it dies: of a failed check, or of time that is up. */
static struct {
    struct cluster *cluster;
    const struct settings *settings;
} own_run;

/* The report may fail in its turn, or never end; the process dies anyway. */
static void on_death(int sig) {
    (void)signal(SIGABRT, SIG_DFL);
    (void)signal(SIGALRM, SIG_DFL);
    (void)alarm(DEATH_SECONDS);
    struct cluster *cluster = own_run.cluster;
    if (cluster != NULL) {
        cluster__fail(cluster, sig == SIGALRM ? "it hangs: no end in time" : "a check failed (its line is above)");
        print_failure(cluster, own_run.settings);
        (void)trace_close(cluster->trace);
        fflush(stdout);
    }
    (void)raise(sig);
}

/* Fibers' stacks are small. */
static void expect_death(struct cluster *cluster, const struct settings *settings) {
    static uint8_t stack[DEATH_STACK_BYTES];
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_death, .sa_flags = SA_ONSTACK | SA_NODEFER};
    own_run.cluster = cluster;
    own_run.settings = settings;
    CHECK(sigaltstack(&alternative, NULL) == 0);
    CHECK(sigaction(SIGABRT, &action, NULL) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
}

static bool run_seed(uint64_t seed, const struct settings *settings, struct cluster_stats *ret_stats) {
    (void)alarm(settings->seconds); /* a callback that never returns makes no steps that could be counted */
    struct trace *trace = settings->trace_path != NULL ? open_trace(settings->trace_path, seed) : NULL;
    struct cluster *cluster = cluster_new(seed);
    expect_death(cluster, settings);
    cluster->trace = trace;
    cluster->mask = settings->faults != NULL ? &settings->mask : NULL;
    bool good = cluster_run(cluster);
    if (!good) {
        print_failure(cluster, settings);
    } else if (settings->log) {
        cluster_print_failure(cluster);
    }
    if (good && settings->single) {
        print_run(cluster);
    }
    if (settings->single) {
        printf("hash: %016" PRIx64 "\n", run_hash(cluster));
    }
    *ret_stats = cluster->stats;
    own_run.cluster = NULL;
    cluster_free(cluster);
    close_trace(trace, settings->trace_path);
    return good;
}

/* ---- A failing seed, reduced --------------------------------------------------------------------------------------
 */

static void format_faults(const struct reduce *reduce, char *out, size_t size) {
    size_t used = 0;
    (void)snprintf(out, size, "none");
    for (uint32_t i = 0; i < reduce->faults_before && used < size; i++) {
        if (!plan_mask_has(&reduce->mask, i)) {
            used += (size_t)snprintf(out + used, size - used, "%s%" PRIu32, used == 0 ? "" : ",", i);
        }
    }
}

/* The report and the trace come from one more run, with what the reduction left. */
static void report_failure(uint64_t seed, const struct settings *settings) {
    struct reduce reduce = {.seed = seed,
                            .seconds_max = settings->reduce_seconds,
                            .run_seconds = settings->reduce_seconds};
    if (settings->reduce_seconds == 0 || !reduce_run(&reduce)) {
        return;
    }
    char faults[PLAN_FAULTS_MAX * 4];
    char path[64];
    format_faults(&reduce, faults, sizeof faults);
    (void)mkdir("build", 0777);
    (void)mkdir("build/sim", 0777);
    (void)snprintf(path, sizeof path, "build/sim/seed-%" PRIu64 ".ndjson", seed);
    printf("seed %" PRIu64 " reduced from %" PRIu32 " faults to %" PRIu32 " in %" PRIu32 " runs; its trace: %s\n", seed,
           reduce.faults_before, reduce.faults_after, reduce.runs, path);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct settings reduced = *settings;
        struct cluster_stats stats;
        reduced.single = false;
        reduced.trace_path = path;
        reduced.faults = faults;
        reduced.mask = reduce.mask;
        (void)run_seed(seed, &reduced, &stats);
        fflush(stdout);
        _exit(0);
    }
    if (pid > 0) {
        (void)waitpid(pid, NULL, 0);
    }
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

static double cpu_s(void) {
    struct rusage usage;
    CHECK(getrusage(RUSAGE_CHILDREN, &usage) == 0);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static uint64_t print_faults(const struct cluster_stats *sum) {
    uint64_t total = 0;
    printf("  faults begun:");
    for (uint32_t kind = 0; kind < PLAN_KINDS_MAX && plan_kind_name(kind) != NULL; kind++) {
        if (plan_kind_is_fault(kind)) {
            printf("%s %s %" PRIu64, kind == 0 ? "" : ",", plan_kind_name(kind), sum->faults[kind]);
            total += sum->faults[kind];
        }
    }
    printf("\n");
    return total;
}

static void print_table(const struct shared *shared, double seconds) {
    const struct cluster_stats *sum = &shared->sum;
    double hours = (double)sum->virtual_us / 3.6e9;
    double cpu_seconds = cpu_s();
    printf("%" PRIu64 " seeds passed, %" PRIu64
           " failed in %.1f s; %.2f simulated hours (%.4f hours, %.0f simulated seconds a second)\n",
           shared->passed, shared->failed, seconds, hours, hours / seconds, (double)sum->virtual_us / 1e6 / seconds);
    printf("  steps %" PRIu64 ", states checked %" PRIu64 ", entries committed %" PRIu64 ", elections %" PRIu64 "\n",
           sum->steps, sum->checks, sum->entries, sum->elections);
    printf("  writes: %" PRIu64 " ok, %" PRIu64 " failed, %" PRIu64 " unknown; reads checked %" PRIu64
           ", scans %" PRIu64 "\n",
           sum->puts_ok, sum->puts_failed, sum->puts_unknown, sum->reads, sum->scans);
    printf("  histories: %" PRIu64 " operations judged, %" PRIu64 " groups of keys undecided\n", sum->judged,
           sum->undecided);
    printf("  what became of them: %" PRIu64 " crashes, %" PRIu64 " power losses, %" PRIu64 " restarts, %" PRIu64
           " partitions, %" PRIu64 " leaders cut off, %" PRIu64 " resets, %" PRIu64 " pauses, %" PRIu64
           " stops, %" PRIu64 " disk faults, %" PRIu64 " damaged logs, %" PRIu64 " rotten and %" PRIu64
           " lost stores, %" PRIu64 " of them filled again at work\n",
           sum->crashes, sum->power_losses, sum->restarts, sum->partitions, sum->deposed, sum->resets, sum->pauses,
           sum->stops, sum->disk_faults, sum->damaged_logs, sum->rotten_stores, sum->lost_stores, sum->rebuilds);
    printf("  snapshots: %" PRIu64 " sent, %" PRIu64 " installed; all data compared and equal %" PRIu64 " times\n",
           sum->snapshots_sent, sum->snapshots_installed, sum->scans_agreed);
    printf("  membership: %" PRIu64 " changes, %" PRIu64 " transfers, %" PRIu64 " refused or unknown\n", sum->changes,
           sum->transfers, sum->changes_failed);
    printf("  last lives: %" PRIu64 " groups of one write and one sync each, %" PRIu64 " flushes, %" PRIu64
           " log segments deleted, %" PRIu64 " KiB of them taken over for their large values\n",
           sum->groups, sum->flushes, sum->segments_deleted, sum->adopted_bytes / 1024);
    uint64_t faults = print_faults(sum);
    printf("  a CPU second (of %.1f): %.0f entries, %.1f crashes and power losses, %.1f faults\n", cpu_seconds,
           (double)sum->entries / cpu_seconds, (double)(sum->crashes + sum->power_losses) / cpu_seconds,
           (double)faults / cpu_seconds);
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
                report_failure(seeds[i], settings);
            }
        }
    }
    print_table(&shared, now_s() - begin_s);
    return shared.failed == 0 && shared.passed == settings->seeds ? 0 : 1;
}

/* One seed, in this process unless it might have to be reduced. */
static int run_one(const struct settings *settings) {
    struct cluster_stats stats;
    if (settings->reduce_seconds == 0 || settings->faults != NULL) {
        return run_seed(settings->seed, settings, &stats) ? 0 : 1;
    }
    pid_t pid = start_child(settings->seed, settings, &stats);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return 0;
    }
    printf("seed %" PRIu64 " FAILED%s\n", settings->seed, how_it_ended(status));
    report_failure(settings->seed, settings);
    return 1;
}

static int usage(void) {
    fprintf(stderr,
            "usage: holdfast-sim --seed N [--log] [--trace FILE] [--faults A,B,...|none] [--reduce S] [--seconds S]\n"
            "       holdfast-sim --seeds N [--first F] [--jobs J] [--failures M] [--reduce S] [--seconds S]\n");
    return 2;
}

/* Everything is left out but what the list names. */
static bool parse_faults(const char *list, struct plan_mask *ret_mask) {
    memset(ret_mask, 0xff, sizeof *ret_mask);
    if (strcmp(list, "none") == 0) {
        return true;
    }
    for (const char *at = list;;) {
        char *rest;
        unsigned long number = strtoul(at, &rest, 10);
        if (rest == at || number >= PLAN_FAULTS_MAX || (*rest != ',' && *rest != '\0')) {
            return false;
        }
        plan_mask_set(ret_mask, (uint32_t)number, false);
        if (*rest == '\0') {
            return true;
        }
        at = rest + 1;
    }
}

/* An option and its number; false: unknown, or out of range. */
static bool take_number(struct settings *settings, const char *option, const char *value) {
    char *rest;
    uint64_t number = strtoull(value, &rest, 10);
    if (*value == '\0' || *rest != '\0') {
        return false;
    }
    if (strcmp(option, "--seed") == 0) {
        settings->single = true;
        settings->seed = number;
    } else if (strcmp(option, "--seeds") == 0) {
        settings->seeds = number;
    } else if (strcmp(option, "--first") == 0) {
        settings->first = number;
    } else if (strcmp(option, "--jobs") == 0 && number >= 1 && number <= JOBS_MAX) {
        settings->jobs = (uint32_t)number;
    } else if (strcmp(option, "--seconds") == 0 && number >= 1 && number <= UINT32_MAX) {
        settings->seconds = (uint32_t)number;
    } else if (strcmp(option, "--reduce") == 0 && number <= UINT32_MAX) {
        settings->reduce_seconds = (uint32_t)number;
    } else if (strcmp(option, "--failures") == 0 && number >= 1) {
        settings->failures_max = number;
    } else {
        return false;
    }
    return true;
}

int main(int argc, char **argv) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct settings settings = {.first = 1,
                                .failures_max = 3,
                                .seconds = SEED_SECONDS,
                                .reduce_seconds = REDUCE_SECONDS,
                                .jobs = cpus > 0 && cpus < JOBS_MAX ? (uint32_t)cpus : 2};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--log") == 0) {
            settings.log = true;
            continue;
        }
        if (strcmp(argv[i], "--trace") == 0 && *value != '\0') {
            settings.trace_path = value;
        } else if (strcmp(argv[i], "--faults") == 0 && parse_faults(value, &settings.mask)) {
            settings.faults = value;
        } else if (!take_number(&settings, argv[i], value)) {
            return usage();
        }
        i++;
    }
    bool one_only = settings.trace_path != NULL || settings.faults != NULL;
    if (settings.single) {
        return run_one(&settings);
    }
    return settings.seeds > 0 && !one_only ? run_many(&settings) : usage();
}
