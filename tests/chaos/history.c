/*
 * Clients that write and read while the cluster is being hurt, and note every operation as it begins and ends.
 *
 *   holdfast-history --profile FILE --seconds N [--clients N] [--keys N] [--timeout MS] [--pause US] [--seed N]
 *                    [--prefix TEXT]
 *
 * Everybody writes and reads every key. No number is put twice, so the order of begins and ends alone decides what a
 * read may see (check_history.py). A put is a batch: the key gets the number, and its twin (the key and a tilde) gets
 * it too if the number is even, or is deleted if it is odd, now by its key, now as a range. So each put also tests that
 * a batch is all or nothing, and keys come and go. Reads are gets of the key, or scans of both. Some values are large,
 * to keep flushes coming.
 *
 * One JSON object a line on stdout, in the order of the clock (microseconds of CLOCK_MONOTONIC):
 *
 *   {"us":1,"client":1,"op":"put","key":"k000","number":65,"event":"invoke"}              then event ok, fail or info
 *   {"us":7,"client":1,"op":"put","key":"k000","number":65,"revision":9,"event":"ok"}     revision: of the write
 *   {"us":9,"client":2,"op":"get","key":"k000","number":65,"revision":9,"event":"ok"}     number 0: no such key
 *   {"us":9,"client":2,"op":"scan","key":"k000","number":65,"twin":0,"revision":9,"event":"ok"}  twin 0: it isn't there
 *
 * fail: surely not done. info: unknown. A thread a client, blocking calls: this is also a test of the library under
 * threads. On stderr, last: the number of acknowledged writes, and the longest time without one.
 */
#include "proto/client/holdfast.h"
#include "tests/chaos/number.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CLIENTS_MAX = 64, KEYS_MAX = 1000, PREFIX_BYTES = 16, KEY_BYTES = 32, VALUE_BYTES_MAX = 16 * 1024 };

struct settings {
    const char *profile;
    const char *prefix;
    uint64_t seconds;
    uint64_t clients;
    uint64_t keys;
    uint64_t timeout_ms;
    uint64_t pause_us; /* mean, between two operations of a client */
    uint64_t seed;
};

struct world {
    struct settings settings;
    struct holdfast *handle;
    uint64_t end_us;
    pthread_mutex_t lock;  /* one clock reading and one line at a time: lines are in order. Guards the next three */
    uint64_t acknowledged; /* puts */
    uint64_t acknowledged_us;
    uint64_t longest_gap_us;
};

struct client {
    struct world *world;
    uint64_t id; /* from 1 */
    uint64_t random;
    uint64_t puts;
};

struct event {
    const char *op;
    const char *key;
    uint64_t number;
    uint64_t twin;
    uint64_t revision; /* 0: none */
    const char *outcome;
};

static volatile sig_atomic_t stop_asked;

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t next_random(struct client *client, uint64_t bound) {
    client->random = client->random * 6364136223846793005u + 1442695040888963407u;
    return (client->random >> 33) % bound;
}

static void note(struct client *client, const struct event *event) {
    struct world *world = client->world;
    pthread_mutex_lock(&world->lock);
    uint64_t us = now_us();
    printf("{\"us\":%" PRIu64 ",\"client\":%" PRIu64 ",\"op\":\"%s\",\"key\":\"%s\",\"number\":%" PRIu64, us,
           client->id, event->op, event->key, event->number);
    if (event->revision > 0) {
        printf(",\"revision\":%" PRIu64, event->revision);
    }
    if (strcmp(event->op, "scan") == 0 && strcmp(event->outcome, "ok") == 0) {
        printf(",\"twin\":%" PRIu64, event->twin);
    }
    printf(",\"event\":\"%s\"}\n", event->outcome);
    if (strcmp(event->op, "put") == 0 && strcmp(event->outcome, "ok") == 0) {
        uint64_t gap_us = us - world->acknowledged_us;
        world->longest_gap_us = gap_us > world->longest_gap_us ? gap_us : world->longest_gap_us;
        world->acknowledged_us = us;
        world->acknowledged++;
    }
    pthread_mutex_unlock(&world->lock);
}

static void begin(struct client *client, struct event *event) {
    event->outcome = "invoke";
    note(client, event);
}

static const char *outcome_name(enum holdfast_outcome outcome) {
    switch (outcome) {
    case HOLDFAST_OK: return "ok";
    case HOLDFAST_FAILED: return "fail";
    case HOLDFAST_UNKNOWN: return "info";
    }
    abort();
}

static void put_one(struct client *client, struct event *event) {
    struct world *world = client->world;
    char value[VALUE_BYTES_MAX];
    char twin[KEY_BYTES + 1];
    event->op = "put";
    event->number = ++client->puts * CLIENTS_MAX + client->id - 1;
    (void)snprintf(twin, sizeof twin, "%s~", event->key);
    int len = snprintf(value, sizeof value, "%" PRIu64 " ", event->number);
    size_t more = next_random(client, 8) == 0 ? next_random(client, sizeof value - 32) : next_random(client, 200);
    memset(value + len, '.', more);
    size_t value_len = (size_t)len + more;
    struct holdfast_operation operations[] = {
        {.kind = HOLDFAST_PUT,
         .key = event->key,
         .key_len = strlen(event->key),
         .value = value,
         .value_len = value_len},
        {.kind = HOLDFAST_DELETE, .key = twin, .key_len = strlen(twin)},
    };
    if (event->number % 2 == 0) {
        operations[1].kind = HOLDFAST_PUT;
        operations[1].value = value;
        operations[1].value_len = value_len;
    } else if (next_random(client, 2) == 0) {
        operations[1].kind = HOLDFAST_DELETE_RANGE;
        operations[1].value = twin; /* with its zero byte it is the next key that there can be */
        operations[1].value_len = strlen(twin) + 1;
    }
    struct holdfast_write_options options = {.timeout_ms = (uint32_t)world->settings.timeout_ms};
    struct holdfast_result result = {0};
    begin(client, event);
    enum holdfast_outcome outcome = holdfast_batch(world->handle, operations, 2, &options, &result);
    event->revision = outcome == HOLDFAST_OK ? result.revision : 0;
    event->outcome = outcome_name(outcome);
    note(client, event);
}

static uint64_t number_of(const void *data, size_t len) {
    char text[32] = {0};
    memcpy(text, data, len < sizeof text - 1 ? len : sizeof text - 1);
    return strtoull(text, NULL, 10);
}

static void get_one(struct client *client, struct event *event) {
    struct world *world = client->world;
    struct holdfast_value value;
    struct holdfast_result result = {0};
    struct holdfast_read_options options = {.timeout_ms = (uint32_t)world->settings.timeout_ms};
    event->op = "get";
    begin(client, event);
    enum holdfast_outcome outcome =
        holdfast_get(world->handle, event->key, strlen(event->key), &options, &value, &result);
    event->outcome = outcome == HOLDFAST_OK || result.code == HOLDFAST_CODE_NOT_FOUND ? "ok" : "fail";
    if (outcome == HOLDFAST_OK) {
        event->number = number_of(value.data, value.len);
        event->revision = value.mod_revision;
        holdfast_value_free(world->handle, &value);
    }
    note(client, event);
}

static void scan_one(struct client *client, struct event *event) {
    struct world *world = client->world;
    struct holdfast_page *page = NULL;
    struct holdfast_result result = {0};
    struct holdfast_read_options options = {.timeout_ms = (uint32_t)world->settings.timeout_ms};
    char upper[KEY_BYTES + 1];
    size_t key_len = strlen(event->key);
    (void)snprintf(upper, sizeof upper, "%s~", event->key);
    struct holdfast_scan scan = {.lower = event->key,
                                 .lower_len = key_len,
                                 .upper = upper,
                                 .upper_len = key_len + 2 /* past the twin */};
    event->op = "scan";
    begin(client, event);
    enum holdfast_outcome outcome = holdfast_scan_page(world->handle, &scan, &options, &page, &result);
    event->outcome = outcome == HOLDFAST_OK ? "ok" : "fail";
    for (size_t i = 0; outcome == HOLDFAST_OK && i < page->pair_count; i++) {
        const struct holdfast_pair *pair = &page->pairs[i];
        uint64_t number = number_of(pair->value, pair->value_len);
        if (pair->key_len == key_len) {
            event->number = number;
            event->revision = pair->mod_revision;
        } else {
            event->twin = number;
        }
    }
    if (outcome == HOLDFAST_OK) {
        holdfast_page_free(world->handle, page);
    }
    note(client, event);
}

static void *run_client(void *context) {
    struct client *client = context;
    const struct settings *settings = &client->world->settings;
    while (now_us() < client->world->end_us && !stop_asked) {
        char key[KEY_BYTES];
        (void)snprintf(key, sizeof key, "%sk%03" PRIu64, settings->prefix, next_random(client, settings->keys));
        struct event event = {.key = key};
        switch (next_random(client, 6)) {
        case 0: get_one(client, &event); break;
        case 1: scan_one(client, &event); break;
        default: put_one(client, &event); break;
        }
        uint64_t pause_us = next_random(client, 2 * settings->pause_us + 1);
        struct timespec pause = {.tv_sec = (time_t)(pause_us / 1000000), .tv_nsec = (long)(pause_us % 1000000 * 1000)};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static int usage(void) {
    fprintf(stderr, "usage: holdfast-history --profile FILE --seconds N [--clients N] [--keys N] [--timeout MS] "
                    "[--pause US] [--seed N] [--prefix TEXT]\n");
    return 2;
}

static bool parse(int argc, char **argv, struct settings *settings) {
    *settings =
        (struct settings){.prefix = "", .clients = 8, .keys = 32, .timeout_ms = 2000, .pause_us = 200, .seed = 1};
    struct {
        const char *name;
        const char **text;
        uint64_t *number;
        uint64_t max;
    } known[] = {
        {"--profile", &settings->profile, NULL, 0},           {"--prefix", &settings->prefix, NULL, 0},
        {"--seconds", NULL, &settings->seconds, 86400},       {"--clients", NULL, &settings->clients, CLIENTS_MAX},
        {"--keys", NULL, &settings->keys, KEYS_MAX},          {"--timeout", NULL, &settings->timeout_ms, 3600000},
        {"--pause", NULL, &settings->pause_us, 60 * 1000000}, {"--seed", NULL, &settings->seed, UINT32_MAX},
    };
    for (int i = 1; i < argc; i += 2) {
        size_t at = 0;
        while (at < sizeof known / sizeof known[0] && strcmp(argv[i], known[at].name) != 0) {
            at++;
        }
        if (at == sizeof known / sizeof known[0] || i + 1 == argc) {
            return false;
        }
        if (known[at].text != NULL) {
            *known[at].text = argv[i + 1];
        } else if (!parse_number(argv[i + 1], known[at].max, known[at].number)) {
            return false;
        }
    }
    return settings->profile != NULL && settings->seconds > 0 && settings->clients > 0 && settings->keys > 0 &&
           settings->timeout_ms > 0 && strlen(settings->prefix) < PREFIX_BYTES;
}

static void on_signal(int signum) {
    (void)signum;
    stop_asked = 1;
}

int main(int argc, char **argv) {
    static struct world world = {.lock = PTHREAD_MUTEX_INITIALIZER};
    static struct client clients[CLIENTS_MAX];
    pthread_t threads[CLIENTS_MAX];
    if (!parse(argc, argv, &world.settings)) {
        return usage();
    }
    struct holdfast_result result;
    if (holdfast_open_profile(world.settings.profile, &world.handle, &result) != HOLDFAST_OK) {
        fprintf(stderr, "holdfast-history: %s\n", result.message);
        return 4;
    }
    (void)signal(SIGTERM, on_signal);
    world.acknowledged_us = now_us();
    world.end_us = world.acknowledged_us + world.settings.seconds * 1000000;
    for (uint64_t i = 0; i < world.settings.clients; i++) {
        clients[i] = (struct client){.world = &world, .id = i + 1, .random = world.settings.seed * 1000 + i};
        if (pthread_create(&threads[i], NULL, run_client, &clients[i]) != 0) {
            fprintf(stderr, "holdfast-history: no thread\n");
            return 1;
        }
    }
    for (uint64_t i = 0; i < world.settings.clients; i++) {
        pthread_join(threads[i], NULL);
    }
    holdfast_close(world.handle);
    uint64_t last_gap_us = now_us() - world.acknowledged_us;
    fprintf(stderr, "%" PRIu64 " writes acknowledged, longest gap %" PRIu64 " ms\n", world.acknowledged,
            (last_gap_us > world.longest_gap_us ? last_gap_us : world.longest_gap_us) / 1000);
    return fflush(stdout) == 0 ? 0 : 1;
}
