/*
 * A closed-loop load: N clients, each with one request outstanding, over C connections. Prints one JSON object.
 *
 *   holdfast-load --profile FILE --op put|get --clients N --connections C [--seconds S] [--warmup S] [--keys N]
 *       [--key-bytes N] [--value-bytes N] [--total N] [--pids P,P,P] [--until FILE] [--slice S]
 *
 * Clients are callbacks on one library handle, so the client's own CPU is the library's. --total N: stop after N
 * requests, no warm-up (to fill). --pids: server processes whose CPU time is accounted (/proc). --until: measures until
 * the file is there, for --seconds at most. --slice: p99 of each stretch of so many seconds, too.
 */
#include "proto/client/holdfast.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PIDS_MAX = 16, KEY_BYTES_MAX = 64, VALUE_BYTES_MAX = 1 << 20, SAMPLES_MAX = 1 << 24, SLICES_MAX = 1024 };

struct settings {
    const char *profile;
    bool get;
    uint32_t clients;
    uint32_t connections;
    double seconds;
    double warmup;
    uint64_t keys;
    uint32_t key_bytes;
    uint32_t value_bytes;
    uint64_t total;
    int pids[PIDS_MAX];
    int pid_count;
    const char *until;
    double slice; /* 0: none */
};

struct load {
    struct settings settings;
    struct holdfast *handle;
    _Atomic bool measuring;
    _Atomic bool stopping;
    _Atomic uint32_t running;
    _Atomic uint64_t issued;
    /* The library's thread alone: */
    uint32_t *samples_us;
    uint64_t sample_count;
    uint64_t slice_ends[SLICES_MAX]; /* counts of samples */
    uint32_t slice_count;
    uint64_t slice_end_us; /* of the one under way; 0: none is */
    uint64_t errors;
    char first_error[HOLDFAST_MESSAGE_BYTES];
    char value[VALUE_BYTES_MAX];
};

struct client {
    struct load *load;
    uint64_t random;
    uint64_t begun_us;
};

struct usage {
    uint64_t us;
    double client_cpu_s;
    double server_cpu_s;
};

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static double cpu_of(int pid) {
    char path[64];
    char text[1024] = {0};
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    size_t len = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    const char *behind_name = len > 0 ? strrchr(text, ')') : NULL;
    unsigned long user = 0;
    unsigned long system = 0;
    if (behind_name == NULL ||
        sscanf(behind_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) {
        return 0;
    }
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static struct usage take_usage(const struct settings *settings) {
    struct rusage self;
    getrusage(RUSAGE_SELF, &self);
    struct usage usage = {.us = now_us()};
    usage.client_cpu_s = (double)(self.ru_utime.tv_sec + self.ru_stime.tv_sec) +
                         (double)(self.ru_utime.tv_usec + self.ru_stime.tv_usec) / 1e6;
    for (int i = 0; i < settings->pid_count; i++) {
        usage.server_cpu_s += cpu_of(settings->pids[i]);
    }
    return usage;
}

static void issue(struct client *client);

static void keep_sample(struct load *load, uint64_t begun_us) {
    uint64_t end_us = now_us();
    uint64_t slice_us = (uint64_t)(load->settings.slice * 1e6);
    if (slice_us > 0 && load->slice_end_us == 0) {
        load->slice_end_us = end_us + slice_us;
    }
    if (slice_us > 0 && end_us >= load->slice_end_us && load->slice_count < SLICES_MAX) {
        load->slice_ends[load->slice_count++] = load->sample_count;
        load->slice_end_us = end_us + slice_us;
    }
    load->samples_us[load->sample_count++] = (uint32_t)(end_us - begun_us);
}

static void on_done(struct client *client, const struct holdfast_result *result) {
    struct load *load = client->load;
    bool good = result->outcome == HOLDFAST_OK || result->code == HOLDFAST_CODE_NOT_FOUND;
    if (!good) {
        if (load->errors++ == 0) {
            (void)snprintf(load->first_error, sizeof load->first_error, "%s", result->message);
        }
    } else if (atomic_load_explicit(&load->measuring, memory_order_relaxed) && load->sample_count < SAMPLES_MAX) {
        keep_sample(load, client->begun_us);
    }
    if (atomic_load_explicit(&load->stopping, memory_order_relaxed)) {
        atomic_fetch_sub(&load->running, 1);
    } else {
        issue(client);
    }
}

static void on_written(void *context, const struct holdfast_result *result) { on_done(context, result); }

static void on_got(void *context, const struct holdfast_result *result, const struct holdfast_value *value) {
    (void)value;
    on_done(context, result);
}

static void issue(struct client *client) {
    struct load *load = client->load;
    const struct settings *settings = &load->settings;
    uint64_t number = atomic_fetch_add_explicit(&load->issued, 1, memory_order_relaxed);
    if (settings->total > 0 && number >= settings->total) {
        atomic_fetch_sub(&load->running, 1);
        return;
    }
    client->random = client->random * 6364136223846793005u + 1442695040888963407u;
    uint64_t which = settings->total > 0 ? number % settings->keys : (client->random >> 20) % settings->keys;
    char key[KEY_BYTES_MAX + 1];
    (void)snprintf(key, sizeof key, "%0*" PRIu64, (int)settings->key_bytes, which);
    client->begun_us = now_us();
    enum holdfast_code code = settings->get
                                  ? holdfast_get_async(load->handle, key, settings->key_bytes, NULL, on_got, client)
                                  : holdfast_put_async(load->handle, key, settings->key_bytes, load->value,
                                                       settings->value_bytes, NULL, on_written, client);
    if (code != HOLDFAST_CODE_OK) {
        fprintf(stderr, "holdfast-load: not accepted: %s\n", holdfast_code_name(code));
        exit(1);
    }
}

static int compare_samples(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* Sorts each slice: before all of them are. */
static void print_slices(struct load *load) {
    uint64_t begin = 0;
    printf("\"slices_p99\":[");
    for (uint32_t i = 0; i < load->slice_count; i++) {
        uint64_t count = load->slice_ends[i] - begin;
        qsort(load->samples_us + begin, count, sizeof load->samples_us[0], compare_samples);
        printf("%s%" PRIu32, i == 0 ? "" : ",", count > 0 ? load->samples_us[begin + count * 99 / 100] : 0);
        begin = load->slice_ends[i];
    }
    printf("],");
}

static void print_result(struct load *load, const struct usage *begin, const struct usage *end) {
    const struct settings *settings = &load->settings;
    uint64_t count = load->sample_count;
    printf("{");
    if (settings->slice > 0) {
        print_slices(load);
    }
    qsort(load->samples_us, count, sizeof load->samples_us[0], compare_samples);
    double seconds = (double)(end->us - begin->us) / 1e6;
    double per_op = count > 0 ? 1e6 / (double)count : 0;
    printf("\"op\":\"%s\",\"clients\":%" PRIu32 ",\"conns\":%" PRIu32 ",\"secs\":%.3f,\"ops\":%" PRIu64
           ",\"ops_s\":%.1f,\"p50\":%" PRIu32 ",\"p90\":%" PRIu32 ",\"p99\":%" PRIu32 ",\"max\":%" PRIu32
           ",\"errors\":%" PRIu64 ",\"server_cpu_us_per_op\":%.2f,\"client_cpu_us_per_op\":%.2f}\n",
           settings->get ? "get-linearizable" : "put", settings->clients, settings->connections, seconds, count,
           (double)count / seconds, count > 0 ? load->samples_us[count / 2] : 0,
           count > 0 ? load->samples_us[count * 9 / 10] : 0, count > 0 ? load->samples_us[count * 99 / 100] : 0,
           count > 0 ? load->samples_us[count - 1] : 0, load->errors,
           (end->server_cpu_s - begin->server_cpu_s) * per_op, (end->client_cpu_s - begin->client_cpu_s) * per_op);
    if (load->errors > 0) {
        fprintf(stderr, "holdfast-load: %" PRIu64 " errors, the first: %s\n", load->errors, load->first_error);
    }
}

static int usage(void) {
    fprintf(stderr,
            "usage: holdfast-load --profile FILE --op put|get --clients N --connections C [--seconds S] [--warmup S]\n"
            "           [--keys N] [--key-bytes N] [--value-bytes N] [--total N] [--pids P,P,P] [--until FILE]\n"
            "           [--slice S]\n");
    return 2;
}

static void parse_pids(struct settings *settings, char *text) {
    for (char *word; (word = strsep(&text, ",")) != NULL && settings->pid_count < PIDS_MAX;) {
        settings->pids[settings->pid_count++] = atoi(word);
    }
}

static int parse(int argc, char **argv, struct settings *settings) {
    *settings = (struct settings){
        .clients = 1, .connections = 1, .seconds = 5, .warmup = 1, .keys = 50000, .key_bytes = 16, .value_bytes = 256};
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i];
        char *value = argv[i + 1];
        if (strcmp(name, "--profile") == 0) {
            settings->profile = value;
        } else if (strcmp(name, "--op") == 0) {
            settings->get = strcmp(value, "get") == 0;
        } else if (strcmp(name, "--clients") == 0) {
            settings->clients = (uint32_t)atoi(value);
        } else if (strcmp(name, "--connections") == 0) {
            settings->connections = (uint32_t)atoi(value);
        } else if (strcmp(name, "--seconds") == 0) {
            settings->seconds = atof(value);
        } else if (strcmp(name, "--warmup") == 0) {
            settings->warmup = atof(value);
        } else if (strcmp(name, "--keys") == 0) {
            settings->keys = strtoull(value, NULL, 10);
        } else if (strcmp(name, "--key-bytes") == 0) {
            settings->key_bytes = (uint32_t)atoi(value);
        } else if (strcmp(name, "--value-bytes") == 0) {
            settings->value_bytes = (uint32_t)atoi(value);
        } else if (strcmp(name, "--total") == 0) {
            settings->total = strtoull(value, NULL, 10);
        } else if (strcmp(name, "--pids") == 0) {
            parse_pids(settings, value);
        } else if (strcmp(name, "--until") == 0) {
            settings->until = value;
        } else if (strcmp(name, "--slice") == 0) {
            settings->slice = atof(value);
        } else {
            return usage();
        }
    }
    bool good = argc % 2 == 1 && settings->profile != NULL && settings->clients > 0 && settings->connections > 0 &&
                settings->keys > 0 && settings->key_bytes >= 8 && settings->key_bytes <= KEY_BYTES_MAX &&
                settings->value_bytes <= VALUE_BYTES_MAX;
    return good ? 0 : usage();
}

static void sleep_s(double seconds) {
    struct timespec pause = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&pause, NULL);
}

static void measure(const struct settings *settings) {
    uint64_t end_us = now_us() + (uint64_t)(settings->seconds * 1e6);
    if (settings->until == NULL) {
        sleep_s(settings->seconds);
    }
    while (settings->until != NULL && now_us() < end_us && access(settings->until, F_OK) != 0) {
        sleep_s(0.05);
    }
}

int main(int argc, char **argv) {
    static struct load load;
    struct holdfast_profile *profile;
    struct holdfast_options options;
    struct holdfast_result result;
    if (parse(argc, argv, &load.settings) != 0) {
        return 2;
    }
    load.samples_us = malloc(SAMPLES_MAX * sizeof load.samples_us[0]);
    struct client *clients = calloc(load.settings.clients, sizeof *clients);
    if (load.samples_us == NULL || clients == NULL ||
        holdfast_profile_load(load.settings.profile, &profile, &result) != HOLDFAST_OK) {
        fprintf(stderr, "holdfast-load: %s\n", result.message);
        return 1;
    }
    holdfast_profile_options(profile, &options);
    options.connections = load.settings.connections;
    options.timeout_ms = 20000;
    if (holdfast_open(&options, &load.handle, &result) != HOLDFAST_OK) {
        fprintf(stderr, "holdfast-load: %s\n", result.message);
        return 4;
    }
    for (uint32_t i = 0; i < load.settings.value_bytes; i++) {
        load.value[i] = (char)('a' + i * 7 % 26);
    }
    bool filling = load.settings.total > 0;
    atomic_store(&load.running, load.settings.clients);
    atomic_store(&load.measuring, filling);
    struct usage begin = take_usage(&load.settings);
    for (uint32_t i = 0; i < load.settings.clients; i++) {
        clients[i] = (struct client){.load = &load, .random = i * 7919 + 1};
        issue(&clients[i]);
    }
    if (!filling) {
        sleep_s(load.settings.warmup);
        begin = take_usage(&load.settings);
        atomic_store(&load.measuring, true);
        measure(&load.settings);
        atomic_store(&load.measuring, false);
    }
    struct usage end = take_usage(&load.settings);
    atomic_store(&load.stopping, !filling);
    while (atomic_load(&load.running) > 0) {
        sleep_s(0.001);
    }
    if (filling) {
        end = take_usage(&load.settings);
    }
    holdfast_close(load.handle);
    holdfast_profile_free(profile);
    print_result(&load, &begin, &end);
    free(load.samples_us);
    free(clients);
    return load.errors > 0 ? 1 : 0;
}
