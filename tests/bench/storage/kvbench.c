/*
 * Workloads over an engine, in the manner of LevelDB's db_bench: one line of JSON for each.
 *
 *   holdfast-kvbench [-n entries] [-v value bytes] [-z] [-u] [-s seconds] ENGINE DIR WORKLOAD[:operations[:threads]]...
 *
 * Keys are 16 decimal digits, numbers below `entries`. Values compress to about a half. Each workload stops after its
 * operations or `seconds`. The directory's state goes from one to the next, and from one run to the next. What is
 * written and asked for is drawn from fixed seeds, so every engine must find as much as the others: `found` is there to
 * be compared.
 *
 * Each write is timed (processor's counter where there is one), so that p99 and the longest stall are known; the
 * engines pay for that alike. The longest is told twice: as it was, and without the time in which disk or
 * machine stood still (disk_watch.h).
 *
 * Written bytes are what the kernel counts for this process: pages that became dirty, in mapped files, too, and direct
 * writes; so logs, zeroes, manifests and what is deleted again before it reaches the disk are all in it, of any engine.
 * Disk bytes are what the files have allocated, but not beyond their ends.
 */
#include "tests/bench/storage/kvbench.h"
#include "tests/bench/storage/disk_watch.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

enum { KEY_BYTES = 16, POOL_BYTES = 1 << 20, THREADS_MAX = 64, BUCKETS = 64 * 32, RANGE_KEYS = 64 };
enum { SLOW_US = 20 * 1000, SLOW_MAX = 1024 }; /* the disk is looked at for writes that take so long */
enum { WATCH_US = 20 * 1000, QUIET_US = 100 * 1000, QUIET_TIMES = 10 };

enum workload_kind { WRITE, READ, SCAN, SEEK, MIXED, REMOVE_RANGE, SETTLE };

struct workload {
    const char *name;
    enum workload_kind kind;
    bool ordered;
    bool sync;
    bool missing;
    bool backwards;
};

static const struct workload workloads[] = {
    {.name = "fillseq", .kind = WRITE, .ordered = true},
    {.name = "fillrandom", .kind = WRITE},
    {.name = "overwrite", .kind = WRITE},
    {.name = "fillsync", .kind = WRITE, .sync = true},
    {.name = "readrandom", .kind = READ},
    {.name = "readmissing", .kind = READ, .missing = true},
    {.name = "readseq", .kind = SCAN},
    {.name = "readreverse", .kind = SCAN, .backwards = true},
    {.name = "seekrandom", .kind = SEEK},
    {.name = "readwhilewriting", .kind = MIXED},
    {.name = "deleterange", .kind = REMOVE_RANGE},
    {.name = "settle", .kind = SETTLE},
};

enum { OVERWRITE = 2 }; /* its place there */

/* Latencies in ticks: 32 buckets for each power of two. */
struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t longest;
    struct {
        double end_us;
        double took_us;
    } slow[SLOW_MAX]; /* of SLOW_US and more, the first of them */
    unsigned slow_count;
};

struct runner {
    pthread_t thread;
    const struct workload *workload;
    uint64_t number;
    uint64_t operations; /* to do; then done */
    uint64_t found;
    struct histogram latency;
};

static const struct kv_engine *engine;
static void *db;
static const char *dir;
static uint64_t entries = 2000000;
static size_t value_bytes = 100;
static double seconds_max = 60;
static bool compressed;
static char pool[POOL_BYTES];
static double ticks_per_us;
static uint64_t slow_ticks;
static double deadline;
static atomic_bool stop_writer;
static atomic_bool stop_watcher;
static uint64_t own_memory_peak_bytes; /* the watcher's, until it is joined */

/* ---- Small things ----------------------------------------------------------------------------------------------- */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static uint64_t ticks(void) {
#if defined(__x86_64__)
    return __rdtsc();
#else
    return (uint64_t)(now() * 1e9);
#endif
}

static void calibrate(void) {
    double from = now();
    uint64_t ticks_from = ticks();
    while (now() - from < 0.05) {
    }
    ticks_per_us = (double)(ticks() - ticks_from) / ((now() - from) * 1e6);
    slow_ticks = (uint64_t)(ticks_per_us * SLOW_US);
}

static uint64_t next_random(uint64_t *state) {
    *state += 0x9e3779b97f4a7c15;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static void make_key(char *key, uint64_t number) {
    for (int i = KEY_BYTES - 1; i >= 0; i--) {
        key[i] = (char)('0' + number % 10);
        number /= 10;
    }
}

static const char *make_value(uint64_t *state) { return pool + next_random(state) % (POOL_BYTES - value_bytes); }

/* Half random, half a repetition of it, in pieces of 100 bytes. */
static void fill_pool(void) {
    uint64_t state = 301;
    for (size_t i = 0; i < POOL_BYTES; i++) {
        size_t in_piece = i % 100;
        pool[i] = in_piece < 50 ? (char)(' ' + next_random(&state) % 95) : pool[i - 50];
    }
}

static void count_latency(struct histogram *histogram, uint64_t took) {
    unsigned power = took < 32 ? 0 : (unsigned)(63 - __builtin_clzll(took)) - 4;
    unsigned bucket = power == 0 ? (unsigned)took : power * 32 + (unsigned)(took >> (power - 1)) % 32;
    histogram->counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    histogram->longest = took > histogram->longest ? took : histogram->longest;
    if (took >= slow_ticks && histogram->slow_count < SLOW_MAX) {
        histogram->slow[histogram->slow_count].end_us = now() * 1e6;
        histogram->slow[histogram->slow_count++].took_us = (double)took / ticks_per_us;
    }
}

/* The longest without the time in which disk or machine stood still. */
static double longest_moving_us(const struct histogram *histogram) {
    double longest_us = (double)histogram->longest / ticks_per_us;
    if (histogram->slow_count == 0 || histogram->slow_count == SLOW_MAX) {
        return longest_us;
    }
    longest_us = SLOW_US;
    for (unsigned i = 0; i < histogram->slow_count; i++) {
        double end_us = histogram->slow[i].end_us;
        double took_us = histogram->slow[i].took_us;
        double moving_us = took_us - disk_watch_still_us(end_us - took_us, end_us);
        longest_us = moving_us > longest_us ? moving_us : longest_us;
    }
    return longest_us;
}

/* The lower end of the bucket that has this share of all below it. */
static double percentile_us(const struct histogram *histogram, double share) {
    uint64_t total = 0;
    uint64_t seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        total += histogram->counts[i];
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen > 0 && (double)seen >= share * (double)total) {
            unsigned power = i / 32;
            double value = power == 0 ? i : (double)((uint64_t)(32 + i % 32) << (power - 1));
            return value / ticks_per_us;
        }
    }
    return 0;
}

static uint64_t proc_number(const char *file, const char *name) {
    FILE *stream = fopen(file, "r");
    char line[256];
    uint64_t number = 0;
    size_t len = strlen(name);
    while (stream != NULL && fgets(line, sizeof line, stream) != NULL) {
        if (strncmp(line, name, len) == 0) {
            number = strtoull(line + len, NULL, 10);
        }
    }
    if (stream != NULL) {
        fclose(stream);
    }
    return number;
}

static uint64_t written_bytes(void) { return proc_number("/proc/self/io", "write_bytes:"); }
static uint64_t memory_peak_bytes(void) { return proc_number("/proc/self/status", "VmHWM:") * 1024; }
/* Without what is mapped from files, which is the page cache's. */
static uint64_t own_memory_bytes(void) { return proc_number("/proc/self/status", "RssAnon:") * 1024; }

/* Of the store's files, folders of one level included. */
static uint64_t size_of_files(const char *path, bool deeper) {
    DIR *stream = opendir(path);
    uint64_t total = 0;
    struct dirent *entry;
    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        char name[4096];
        struct stat info;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] == '.' || stat(name, &info) != 0) {
            continue;
        }
        if (S_ISREG(info.st_mode)) {
            uint64_t allocated = (uint64_t)info.st_blocks * 512;
            total += allocated < (uint64_t)info.st_size ? allocated : (uint64_t)info.st_size;
        } else if (S_ISDIR(info.st_mode) && deeper) {
            total += size_of_files(name, false);
        }
    }
    if (stream != NULL) {
        closedir(stream);
    }
    return total;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* ---- Workloads -------------------------------------------------------------------------------------------------- */

static void one_write(struct runner *runner, uint64_t *random, uint64_t i) {
    char key[KEY_BYTES];
    make_key(key, runner->workload->ordered ? i : next_random(random) % entries);
    const char *value = make_value(random);
    uint64_t from = ticks();
    engine->put(db, key, KEY_BYTES, value, value_bytes, runner->workload->sync);
    count_latency(&runner->latency, ticks() - from);
}

/* One that is not there is one that is, with a dot behind it: it falls between keys of the store. */
static void one_read(struct runner *runner, uint64_t *random) {
    char key[KEY_BYTES + 1];
    struct kv_value value;
    make_key(key, next_random(random) % entries);
    key[KEY_BYTES] = '.';
    if (engine->get(db, key, KEY_BYTES + (runner->workload->missing ? 1 : 0), &value)) {
        runner->found += value.len == value_bytes;
        engine->release(&value);
    }
}

static void one_seek(struct runner *runner, uint64_t *random, void *iterator) {
    char key[KEY_BYTES];
    size_t len = 0;
    make_key(key, next_random(random) % entries);
    if (engine->seek(iterator, key, KEY_BYTES)) {
        const void *at = engine->key(iterator, &len);
        runner->found += len == KEY_BYTES && memcmp(at, key, KEY_BYTES) == 0;
    }
}

static void one_remove_range(struct runner *runner, uint64_t *random) {
    char start[KEY_BYTES];
    char end[KEY_BYTES];
    uint64_t at = next_random(random) % (entries - RANGE_KEYS);
    make_key(start, at);
    make_key(end, at + RANGE_KEYS);
    uint64_t from = ticks();
    engine->remove_range(db, start, KEY_BYTES, end, KEY_BYTES);
    count_latency(&runner->latency, ticks() - from);
}

static void scan(struct runner *runner) {
    void *iterator = engine->iterator_new(db);
    bool backwards = runner->workload->backwards;
    uint64_t sum = 0;
    uint64_t i = 0;
    bool more = backwards ? engine->last(iterator) : engine->first(iterator);
    for (; more && i < runner->operations; i++) {
        size_t key_len;
        size_t value_len;
        const char *key = engine->key(iterator, &key_len);
        const char *value = engine->value(iterator, &value_len);
        sum += (uint64_t)key[key_len - 1] + (uint64_t)value[0];
        runner->found += value_len == value_bytes;
        more = backwards ? engine->prev(iterator) : engine->next(iterator);
    }
    engine->iterator_free(iterator);
    runner->operations = sum == 0 ? 0 : i;
}

/* Until nothing has been written for a while: what is owed to compactions is paid. */
static void settle(struct runner *runner) {
    uint64_t written = written_bytes();
    for (unsigned quiet = 0; quiet < QUIET_TIMES && now() < deadline; quiet++) {
        usleep(QUIET_US);
        uint64_t written_now = written_bytes();
        quiet = written_now == written ? quiet : 0;
        written = written_now;
    }
    runner->operations = 1;
}

static uint64_t seed_of(uint64_t thread, size_t workload) { return thread * 7919 + workload * 104729; }

static void *run(void *argument) {
    struct runner *runner = argument;
    uint64_t random = seed_of(runner->number, (size_t)(runner->workload - workloads));
    void *iterator = runner->workload->kind == SEEK ? engine->iterator_new(db) : NULL;
    uint64_t i = 0;
    if (runner->workload->kind == SCAN) {
        scan(runner);
        return NULL;
    }
    if (runner->workload->kind == SETTLE) {
        settle(runner);
        return NULL;
    }
    for (; i < runner->operations && ((i & 255) != 255 || now() < deadline); i++) {
        switch (runner->workload->kind) {
        case WRITE: one_write(runner, &random, i); break;
        case READ:
        case MIXED: one_read(runner, &random); break;
        case SEEK: one_seek(runner, &random, iterator); break;
        case REMOVE_RANGE: one_remove_range(runner, &random); break;
        case SCAN:
        case SETTLE: break;
        }
    }
    if (iterator != NULL) {
        engine->iterator_free(iterator);
    }
    runner->operations = i;
    return NULL;
}

/* The keys of an `overwrite` of as many operations as there are entries, round and round: they are all there already,
 * so what is there doesn't depend on how far it gets. */
static void *write_meanwhile(void *argument) {
    struct runner *runner = argument;
    uint64_t random = 0;
    for (; !atomic_load_explicit(&stop_writer, memory_order_relaxed); runner->operations++) {
        if (runner->operations % entries == 0) {
            random = seed_of(1, OVERWRITE);
        }
        one_write(runner, &random, 0);
    }
    return NULL;
}

static void *watch_memory(void *argument) {
    (void)argument;
    while (!atomic_load_explicit(&stop_watcher, memory_order_relaxed)) {
        uint64_t bytes = own_memory_bytes();
        own_memory_peak_bytes = bytes > own_memory_peak_bytes ? bytes : own_memory_peak_bytes;
        usleep(WATCH_US);
    }
    return NULL;
}

static bool is_possible(const struct workload *workload) {
    return (workload->kind != REMOVE_RANGE || engine->remove_range != NULL) &&
           (!workload->backwards || engine->prev != NULL);
}

/* ---- One workload ----------------------------------------------------------------------------------------------- */

struct before {
    double seconds;
    double cpu;
    uint64_t written;
};

static void report(const struct workload *workload, unsigned threads, const struct runner *runners,
                   const struct runner *writer, const struct before *before, double took) {
    static struct histogram latency;
    uint64_t operations = 0;
    uint64_t found = 0;
    double moving_us = 0;
    memset(&latency, 0, sizeof latency);
    for (unsigned i = 0; i <= threads; i++) {
        const struct runner *runner = i < threads ? &runners[i] : writer;
        operations += i < threads ? runner->operations : 0;
        found += i < threads ? runner->found : 0;
        for (int k = 0; k < BUCKETS; k++) {
            latency.counts[k] += runner->latency.counts[k];
        }
        latency.longest = runner->latency.longest > latency.longest ? runner->latency.longest : latency.longest;
        double longest_us = longest_moving_us(&runner->latency);
        moving_us = longest_us > moving_us ? longest_us : moving_us;
    }
    uint64_t written = written_bytes() - before->written;
    uint64_t writes = workload->kind == WRITE ? operations : writer->operations;
    printf("{\"engine\": \"%s\", \"workload\": \"%s\", \"compressed\": %s, \"threads\": %u, \"value_bytes\": %zu, "
           "\"operations\": %llu, \"found\": %llu, \"seconds\": %.3f, \"per_second\": %.0f, \"cpu_seconds\": %.2f",
           engine->name, workload->name, compressed ? "true" : "false", threads, value_bytes,
           (unsigned long long)operations, (unsigned long long)found, took, (double)operations / took,
           cpu_seconds() - before->cpu);
    if (writes > 0) {
        printf(", \"writes_per_second\": %.0f, \"write_amplification\": %.2f", (double)writes / took,
               (double)written / ((double)writes * (double)(KEY_BYTES + value_bytes)));
    }
    if (writes > 0 || workload->kind == REMOVE_RANGE) {
        printf(", \"p50_us\": %.2f, \"p99_us\": %.2f, \"longest_us\": %.0f, \"longest_moving_us\": %.0f",
               percentile_us(&latency, 0.5), percentile_us(&latency, 0.99), (double)latency.longest / ticks_per_us,
               moving_us);
    }
    printf(", \"written_bytes\": %llu, \"disk_bytes\": %llu, \"memory_peak_bytes\": %llu, "
           "\"own_memory_peak_bytes\": %llu}\n",
           (unsigned long long)written, (unsigned long long)size_of_files(dir, true),
           (unsigned long long)memory_peak_bytes(), (unsigned long long)own_memory_peak_bytes);
    fflush(stdout);
}

static void run_workload(const struct workload *workload, uint64_t operations, unsigned threads) {
    static struct runner runners[THREADS_MAX];
    static struct runner writer;
    const struct before before = {.seconds = now(), .cpu = cpu_seconds(), .written = written_bytes()};
    static const struct workload writing = {.kind = WRITE};
    memset(&writer, 0, sizeof writer);
    writer.workload = &writing;
    deadline = before.seconds + seconds_max;
    atomic_store(&stop_writer, false);
    atomic_store(&stop_watcher, false);
    own_memory_peak_bytes = 0;
    pthread_t watcher;
    pthread_create(&watcher, NULL, watch_memory, NULL);
    disk_watch_start(dir);
    if (workload->kind == MIXED) {
        pthread_create(&writer.thread, NULL, write_meanwhile, &writer);
    }
    for (unsigned i = 0; i < threads; i++) {
        memset(&runners[i], 0, sizeof runners[i]);
        runners[i].workload = workload;
        runners[i].number = i + 1;
        runners[i].operations = operations / threads;
        pthread_create(&runners[i].thread, NULL, run, &runners[i]);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(runners[i].thread, NULL);
    }
    double took = now() - before.seconds;
    atomic_store(&stop_writer, true);
    if (workload->kind == MIXED) {
        pthread_join(writer.thread, NULL);
    }
    atomic_store(&stop_watcher, true);
    pthread_join(watcher, NULL);
    disk_watch_stop();
    report(workload, threads, runners, &writer, &before, took);
}

static int run_named(char *text) {
    const char *name = strtok(text, ":");
    const char *operations = strtok(NULL, ":");
    const char *threads = operations != NULL ? strtok(NULL, ":") : NULL;
    unsigned thread_count = threads != NULL ? (unsigned)strtoul(threads, NULL, 10) : 1;
    if (strcmp(name, "flush") == 0) {
        if (engine->flush != NULL) {
            engine->flush(db);
        }
        return 0;
    }
    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++) {
        if (strcmp(name, workloads[i].name) == 0 && thread_count > 0 && thread_count <= THREADS_MAX) {
            if (is_possible(&workloads[i])) {
                run_workload(&workloads[i], operations != NULL ? strtoull(operations, NULL, 10) : entries,
                             thread_count);
            } else {
                printf("{\"engine\": \"%s\", \"workload\": \"%s\", \"skipped\": true}\n", engine->name, name);
            }
            return 0;
        }
    }
    fprintf(stderr, "no workload %s\n", name);
    return 2;
}

static void report_time(const char *what, double from) {
    printf("{\"engine\": \"%s\", \"workload\": \"%s\", \"compressed\": %s, \"value_bytes\": %zu, \"seconds\": %.4f, "
           "\"written_bytes\": %llu, \"disk_bytes\": %llu, \"memory_peak_bytes\": %llu}\n",
           engine->name, what, compressed ? "true" : "false", value_bytes, now() - from,
           (unsigned long long)written_bytes(), (unsigned long long)size_of_files(dir, true),
           (unsigned long long)memory_peak_bytes());
    fflush(stdout);
}

int main(int count, char **arguments) {
    static const struct kv_engine *const engines[] = {&kv_holdfast, &kv_leveldb, &kv_rocksdb};
    bool verifies = true;
    int option;
    while ((option = getopt(count, arguments, "n:v:zus:")) != -1) {
        switch (option) {
        case 'n': entries = strtoull(optarg, NULL, 10); break;
        case 'v': value_bytes = strtoull(optarg, NULL, 10); break;
        case 'z': compressed = true; break;
        case 'u': verifies = false; break;
        case 's': seconds_max = strtod(optarg, NULL); break;
        default: return 2;
        }
    }
    for (size_t i = 0; optind + 1 < count && i < sizeof engines / sizeof engines[0]; i++) {
        engine = strcmp(arguments[optind], engines[i]->name) == 0 ? engines[i] : engine;
    }
    if (engine == NULL || entries <= RANGE_KEYS || value_bytes == 0 || value_bytes >= POOL_BYTES) {
        fprintf(stderr,
                "usage: %s [-n entries] [-v value bytes] [-z] [-u] [-s seconds] holdfast|leveldb|rocksdb DIR "
                "WORKLOAD[:operations[:threads]]...\n",
                arguments[0]);
        return 2;
    }
    dir = arguments[optind + 1];
    calibrate();
    fill_pool();
    const struct kv_options options = {.cache_bytes = 64 << 20,
                                       .write_buffer_bytes = 64 << 20,
                                       .bloom_bits = 10,
                                       .compressed = compressed,
                                       .verifies_checksums = verifies};
    double from = now();
    db = engine->open(dir, &options);
    report_time("open", from);
    int result = 0;
    for (int i = optind + 2; result == 0 && i < count; i++) {
        result = run_named(arguments[i]);
    }
    from = now();
    engine->close(db);
    report_time("close", from);
    return result;
}
