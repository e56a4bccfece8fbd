/*
 * How long writers see no success: N clients that put in a closed loop, each with a library handle, a thread and a key
 * of its own, as N separate programs would.
 *
 *   holdfast-gaps --profile FILE --seconds S [--clients N] [--timeout MS] [--once 1]
 *
 * "ready" goes to stderr when every client has put once; from then on S seconds count. Then one JSON object:
 *
 *   {"clients":16,"puts":9000,"unknown":0,"failed":0,"gap_ms":210,"client_gap_ms":240}
 *
 * gap_ms: the longest time in which nobody's put succeeded; client_gap_ms: the longest that any one client saw between
 * two of his own. Nobody else writes a client's key, so its puts may be repeated (retry_unknown); --once 1: they
 * aren't, and a put whose reply is lost counts as unknown. Exit code 0 if all went well but for that.
 */
#include "proto/client/holdfast.h"
#include "tests/chaos/number.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CLIENTS_MAX = 256, VALUE_BYTES = 256 };

struct settings {
    const char *profile;
    uint64_t seconds;
    uint64_t clients;
    uint64_t timeout_ms;
    uint64_t once;
};

struct world {
    struct settings settings;
    _Atomic uint32_t ready;  /* clients that have put once */
    _Atomic uint64_t end_us; /* 0: not known yet */
    pthread_mutex_t lock;    /* guards the rest */
    uint64_t succeeded_us;   /* the newest success of all */
    uint64_t gap_us;
};

struct client {
    struct world *world;
    uint64_t number;
    struct holdfast *handle;
    uint64_t puts;
    uint64_t unknown;
    uint64_t failed;
    uint64_t succeeded_us;
    uint64_t gap_us;
    char first_problem[HOLDFAST_MESSAGE_BYTES];
};

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Up to now there was no success since the last one; `succeeds`: here is one. */
static void note(struct client *client, bool succeeds) {
    struct world *world = client->world;
    bool counts = atomic_load(&world->end_us) > 0;
    uint64_t us = now_us();
    client->gap_us = counts ? larger(client->gap_us, us - client->succeeded_us) : 0;
    client->succeeded_us = succeeds ? us : client->succeeded_us;
    client->puts += counts && succeeds;
    pthread_mutex_lock(&world->lock);
    uint64_t end_us = now_us();
    world->gap_us = counts ? larger(world->gap_us, end_us - world->succeeded_us) : 0;
    world->succeeded_us = succeeds ? end_us : world->succeeded_us;
    pthread_mutex_unlock(&world->lock);
}

static bool is_over(struct world *world) {
    uint64_t end_us = atomic_load(&world->end_us);
    return end_us > 0 && now_us() >= end_us;
}

static void *run_client(void *context) {
    struct client *client = context;
    struct world *world = client->world;
    struct holdfast_write_options options = {.timeout_ms = (uint32_t)world->settings.timeout_ms,
                                             .retry_unknown = world->settings.once == 0};
    char key[32];
    char value[VALUE_BYTES];
    bool is_ready = false;
    (void)snprintf(key, sizeof key, "gap-%03" PRIu64, client->number);
    memset(value, 'v', sizeof value);
    while (!is_over(world)) {
        struct holdfast_result result = {0};
        enum holdfast_outcome outcome =
            holdfast_put(client->handle, key, strlen(key), value, sizeof value, &options, &result);
        note(client, outcome == HOLDFAST_OK);
        client->unknown += outcome == HOLDFAST_UNKNOWN;
        client->failed += outcome == HOLDFAST_FAILED;
        if (outcome != HOLDFAST_OK && client->first_problem[0] == '\0') {
            (void)snprintf(client->first_problem, sizeof client->first_problem, "%s", result.message);
        }
        if (outcome == HOLDFAST_OK && !is_ready) {
            is_ready = true;
            if (atomic_fetch_add(&world->ready, 1) + 1 == world->settings.clients) {
                fprintf(stderr, "ready\n");
                atomic_store(&world->end_us, now_us() + world->settings.seconds * 1000000);
            }
        }
    }
    note(client, false);
    return NULL;
}

static int usage(void) {
    fprintf(stderr, "usage: holdfast-gaps --profile FILE --seconds S [--clients N] [--timeout MS] [--once 1]\n");
    return 2;
}

static bool parse(int argc, char **argv, struct settings *settings) {
    *settings = (struct settings){.clients = 16, .timeout_ms = 5000};
    struct {
        const char *name;
        uint64_t *number;
        uint64_t max;
    } known[] = {
        {"--seconds", &settings->seconds, 3600},
        {"--clients", &settings->clients, CLIENTS_MAX},
        {"--timeout", &settings->timeout_ms, 3600000},
        {"--once", &settings->once, 1},
    };
    for (int i = 1; i + 1 < argc; i += 2) {
        bool is_known = strcmp(argv[i], "--profile") == 0;
        settings->profile = is_known ? argv[i + 1] : settings->profile;
        for (size_t at = 0; at < sizeof known / sizeof known[0]; at++) {
            is_known = is_known || (strcmp(argv[i], known[at].name) == 0 &&
                                    parse_number(argv[i + 1], known[at].max, known[at].number));
        }
        if (!is_known) {
            return false;
        }
    }
    return argc % 2 == 1 && settings->profile != NULL && settings->seconds > 0 && settings->clients > 0 &&
           settings->timeout_ms > 0;
}

static int report(const struct world *world, const struct client *clients) {
    uint64_t puts = 0, unknown = 0, failed = 0, gap_us = 0;
    for (uint64_t i = 0; i < world->settings.clients; i++) {
        puts += clients[i].puts;
        unknown += clients[i].unknown;
        failed += clients[i].failed;
        gap_us = larger(gap_us, clients[i].gap_us);
        if (clients[i].first_problem[0] != '\0') {
            fprintf(stderr, "client %" PRIu64 ": %s\n", i, clients[i].first_problem);
        }
    }
    printf("{\"clients\":%" PRIu64 ",\"puts\":%" PRIu64 ",\"unknown\":%" PRIu64 ",\"failed\":%" PRIu64
           ",\"gap_ms\":%" PRIu64 ",\"client_gap_ms\":%" PRIu64 "}\n",
           world->settings.clients, puts, unknown, failed, world->gap_us / 1000, gap_us / 1000);
    return failed == 0 && (unknown == 0 || world->settings.once > 0) ? 0 : 1;
}

int main(int argc, char **argv) {
    static struct world world = {.lock = PTHREAD_MUTEX_INITIALIZER};
    static struct client clients[CLIENTS_MAX];
    static pthread_t threads[CLIENTS_MAX];
    if (!parse(argc, argv, &world.settings)) {
        return usage();
    }
    for (uint64_t i = 0; i < world.settings.clients; i++) {
        struct holdfast_result result;
        clients[i] = (struct client){.world = &world, .number = i};
        if (holdfast_open_profile(world.settings.profile, &clients[i].handle, &result) != HOLDFAST_OK) {
            fprintf(stderr, "holdfast-gaps: %s\n", result.message);
            return 4;
        }
    }
    for (uint64_t i = 0; i < world.settings.clients; i++) {
        if (pthread_create(&threads[i], NULL, run_client, &clients[i]) != 0) {
            fprintf(stderr, "holdfast-gaps: no thread\n");
            return 1;
        }
    }
    for (uint64_t i = 0; i < world.settings.clients; i++) {
        pthread_join(threads[i], NULL);
        holdfast_close(clients[i].handle);
    }
    return report(&world, clients);
}
