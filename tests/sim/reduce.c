#include "tests/sim/reduce.h"

#include "node/base/checksum.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t reduce_check_of(const struct cluster *cluster) {
    const char *format = cluster->failure_format;
    return format == NULL ? 0 : checksum64(format, strlen(format), 0) | 1;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* In a child: the run says nothing, its end and the report do. */
_Noreturn static void run_quietly(const struct reduce *reduce, const struct plan_mask *mask,
                                  struct run_report *report) {
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) {
        (void)dup2(null, STDOUT_FILENO);
        (void)dup2(null, STDERR_FILENO);
    }
    (void)alarm(reduce->run_seconds);
    struct cluster *cluster = cluster_new(reduce->seed);
    cluster->mask = mask;
    cluster->report = report;
    bool good = cluster_run(cluster);
    report->check = reduce_check_of(cluster);
    _exit(good ? 0 : 1);
}

/* Runs of one seed in processes of their own. */
struct runs {
    const struct reduce *reduce;
    struct run_report *report; /* shared with them */
    uint64_t check;            /* that failed with all faults */
};

/* What fails: 0 if nothing does, or it hangs; signals are checks, too. */
static uint64_t attempt(struct runs *runs, const struct plan_mask *mask) {
    *runs->report = (struct run_report){0};
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        run_quietly(runs->reduce, mask, runs->report);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        return 0;
    }
    if (WIFSIGNALED(status)) {
        return WTERMSIG(status) == SIGALRM ? 0 : (uint64_t)WTERMSIG(status) << 32;
    }
    return WEXITSTATUS(status) == 1 ? runs->report->check : 0;
}

static bool fails_alike(void *context, const struct plan_mask *mask) {
    struct runs *runs = context;
    return attempt(runs, mask) == runs->check;
}

/* ---- The search ------------------------------------------------------------------------------------------------- */

struct kept {
    uint32_t numbers[PLAN_FAULTS_MAX];
    uint32_t count;
};

/* Everything is left out but `kept` without [from, to). */
static struct plan_mask mask_without(const struct kept *kept, uint32_t from, uint32_t to) {
    struct plan_mask mask;
    memset(&mask, 0xff, sizeof mask);
    for (uint32_t i = 0; i < kept->count; i++) {
        if (i < from || i >= to) {
            plan_mask_set(&mask, kept->numbers[i], false);
        }
    }
    return mask;
}

static void drop(struct kept *kept, uint32_t from, uint32_t to) {
    memmove(kept->numbers + from, kept->numbers + to, (kept->count - to) * sizeof kept->numbers[0]);
    kept->count -= to - from;
}

struct search {
    struct reduce *reduce;
    double end_s;
    bool (*fails)(void *context, const struct plan_mask *mask);
    void *context;
    struct kept kept;
};

/* True if one of the parts could be left out. */
static bool drop_one_part(struct search *search, uint32_t parts) {
    struct kept *kept = &search->kept;
    for (uint32_t part = 0; part < parts && now_s() < search->end_s; part++) {
        uint32_t from = (uint32_t)((uint64_t)kept->count * part / parts);
        uint32_t to = (uint32_t)((uint64_t)kept->count * (part + 1) / parts);
        struct plan_mask mask = mask_without(kept, from, to);
        search->reduce->runs++;
        if (search->fails(search->context, &mask)) {
            drop(kept, from, to);
            return true;
        }
    }
    return false;
}

void reduce_search(struct reduce *reduce, uint32_t fault_count,
                   bool (*fails)(void *context, const struct plan_mask *mask), void *context) {
    CHECK(fault_count <= PLAN_FAULTS_MAX);
    struct search search = {.reduce = reduce,
                            .end_s = now_s() + reduce->seconds_max,
                            .fails = fails,
                            .context = context};
    struct kept *kept = &search.kept;
    for (; kept->count < fault_count; kept->count++) {
        kept->numbers[kept->count] = kept->count;
    }
    uint32_t parts = 1; /* all of them first */
    while (kept->count > 0 && now_s() < search.end_s) {
        if (drop_one_part(&search, parts)) {
            parts = parts > 2 ? parts - 1 : 2;
        } else if (parts >= kept->count) {
            break;
        } else {
            parts *= 2;
        }
        parts = parts < kept->count ? parts : kept->count;
    }
    reduce->mask = mask_without(kept, 0, 0);
    reduce->faults_before = fault_count;
    reduce->faults_after = kept->count;
}

bool reduce_run(struct reduce *reduce) {
    struct run_report *report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(report != MAP_FAILED);
    struct runs runs = {.reduce = reduce, .report = report};
    reduce->mask = (struct plan_mask){0};
    reduce->runs = 1;
    runs.check = attempt(&runs, &reduce->mask);
    if (runs.check != 0) {
        reduce_search(reduce, report->fault_count, fails_alike, &runs);
    }
    (void)munmap(report, sizeof *report);
    return runs.check != 0;
}
