/*
 * Clients that write and read while the cluster is being hurt, and note every operation as it begins and ends.
 *
 *   holdfast-history --profile FILE --seconds N [--clients N] [--keys N] [--timeout MS] [--seed N]
 *
 * Each key has one writer, which puts ever larger numbers; everybody reads every key. So what a read may see follows from the order of
 * begins and ends alone (check_history.py). One JSON object a line on stdout, in the order of the clock:
 *
 *   {"us":123,"client":1,"op":"put","key":"c1-k0","number":7,"event":"invoke"}      then event ok, fail or info
 *   {"us":130,"client":2,"op":"get","key":"c1-k0","number":7,"event":"ok"}          number 0: no such key
 *
 * fail: surely not done. info: unknown. A thread a client, blocking calls: this is also a test of the library under threads.
 */
#include "proto/client/holdfast.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CLIENTS_MAX = 64, KEYS_MAX = 64, KEY_BYTES = 32, PAUSE_NS = 200 * 1000 };

struct settings {
    const char *profile;
    uint32_t seconds;
    uint32_t clients;
    uint32_t keys; /* per client */
    uint32_t timeout_ms;
    uint64_t seed;
};

struct world {
    struct settings settings;
    struct holdfast *handle;
    uint64_t start_us;
    uint64_t end_us;
    pthread_mutex_t lock; /* one clock reading and one line at a time: lines are in order */
    _Atomic uint64_t acknowledged;
};

struct client {
    struct world *world;
    uint32_t id;
    uint64_t random;
    uint64_t numbers[KEYS_MAX];
};

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t next_random(struct client *client, uint64_t bound) {
    client->random = client->random * 6364136223846793005u + 1442695040888963407u;
    return (client->random >> 33) % bound;
}

static void note(struct client *client, const char *op, const char *key, uint64_t number, const char *event) {
    struct world *world = client->world;
    pthread_mutex_lock(&world->lock);
    printf("{\"us\":%" PRIu64 ",\"client\":%" PRIu32 ",\"op\":\"%s\",\"key\":\"%s\",\"number\":%" PRIu64
           ",\"event\":\"%s\"}\n",
           now_us() - world->start_us, client->id, op, key, number, event);
    pthread_mutex_unlock(&world->lock);
}

static const char *event_of(enum holdfast_outcome outcome) {
    switch (outcome) {
    case HOLDFAST_OK: return "ok";
    case HOLDFAST_FAILED: return "fail";
    case HOLDFAST_UNKNOWN: return "info";
    }
    abort();
}

static void put_one(struct client *client) {
    struct world *world = client->world;
    uint32_t slot = (uint32_t)next_random(client, world->settings.keys);
    char key[KEY_BYTES];
    char value[256];
    uint64_t number = ++client->numbers[slot];
    (void)snprintf(key, sizeof key, "c%" PRIu32 "-k%" PRIu32, client->id, slot);
    memset(value, '.', sizeof value);
    int len = snprintf(value, sizeof value, "%" PRIu64 " ", number);
    value[len] = '.';
    note(client, "put", key, number, "invoke");
    struct holdfast_write_options options = {.timeout_ms = world->settings.timeout_ms};
    enum holdfast_outcome outcome =
        holdfast_put(world->handle, key, strlen(key), value, (size_t)len + next_random(client, 200), &options, NULL);
    note(client, "put", key, number, event_of(outcome));
    if (outcome == HOLDFAST_OK) {
        atomic_fetch_add(&world->acknowledged, 1);
    }
}

static void get_one(struct client *client) {
    struct world *world = client->world;
    char key[KEY_BYTES];
    (void)snprintf(key, sizeof key, "c%" PRIu64 "-k%" PRIu64, 1 + next_random(client, world->settings.clients),
                   next_random(client, world->settings.keys));
    struct holdfast_value value;
    struct holdfast_result result;
    struct holdfast_read_options options = {.timeout_ms = world->settings.timeout_ms};
    note(client, "get", key, 0, "invoke");
    enum holdfast_outcome outcome = holdfast_get(world->handle, key, strlen(key), &options, &value, &result);
    if (outcome == HOLDFAST_OK) {
        char text[32] = {0};
        memcpy(text, value.data, value.len < sizeof text - 1 ? value.len : sizeof text - 1);
        holdfast_value_free(world->handle, &value);
        note(client, "get", key, strtoull(text, NULL, 10), "ok");
    } else {
        note(client, "get", key, 0, result.code == HOLDFAST_CODE_NOT_FOUND ? "ok" : "fail");
    }
}

static void *run_client(void *context) {
    struct client *client = context;
    while (now_us() < client->world->end_us) {
        if (next_random(client, 3) == 0) {
            get_one(client);
        } else {
            put_one(client);
        }
        struct timespec pause = {.tv_nsec = (long)next_random(client, 2 * PAUSE_NS)};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static int usage(void) {
    fprintf(stderr, "usage: holdfast-history --profile FILE --seconds N [--clients N] [--keys N] [--timeout MS] [--seed N]\n");
    return 2;
}

static int parse(int argc, char **argv, struct settings *settings) {
    *settings = (struct settings){.clients = 8, .keys = 4, .timeout_ms = 2000, .seed = 1};
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t number = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--profile") == 0) {
            settings->profile = argv[i + 1];
        } else if (strcmp(argv[i], "--seconds") == 0) {
            settings->seconds = (uint32_t)number;
        } else if (strcmp(argv[i], "--clients") == 0) {
            settings->clients = (uint32_t)number;
        } else if (strcmp(argv[i], "--keys") == 0) {
            settings->keys = (uint32_t)number;
        } else if (strcmp(argv[i], "--timeout") == 0) {
            settings->timeout_ms = (uint32_t)number;
        } else if (strcmp(argv[i], "--seed") == 0) {
            settings->seed = number;
        } else {
            return usage();
        }
    }
    bool good = argc % 2 == 1 && settings->profile != NULL && settings->seconds > 0 && settings->clients >= 1 &&
                settings->clients <= CLIENTS_MAX && settings->keys >= 1 && settings->keys <= KEYS_MAX;
    return good ? 0 : usage();
}

int main(int argc, char **argv) {
    static struct world world = {.lock = PTHREAD_MUTEX_INITIALIZER};
    static struct client clients[CLIENTS_MAX];
    pthread_t threads[CLIENTS_MAX];
    if (parse(argc, argv, &world.settings) != 0) {
        return 2;
    }
    struct holdfast_result result;
    if (holdfast_open_profile(world.settings.profile, &world.handle, &result) != HOLDFAST_OK) {
        fprintf(stderr, "holdfast-history: %s\n", result.message);
        return 4;
    }
    world.start_us = now_us();
    world.end_us = world.start_us + (uint64_t)world.settings.seconds * 1000000;
    for (uint32_t i = 0; i < world.settings.clients; i++) {
        clients[i] = (struct client){.world = &world, .id = i + 1, .random = world.settings.seed * 1000 + i};
        if (pthread_create(&threads[i], NULL, run_client, &clients[i]) != 0) {
            fprintf(stderr, "holdfast-history: no thread: %s\n", strerror(errno));
            return 1;
        }
    }
    for (uint32_t i = 0; i < world.settings.clients; i++) {
        pthread_join(threads[i], NULL);
    }
    holdfast_close(world.handle);
    fprintf(stderr, "%" PRIu64 " writes acknowledged\n", atomic_load(&world.acknowledged));
    return fflush(stdout) == 0 ? 0 : 1;
}
