/* holdfast-torture: see README.md. */
#include "tests/torture/player.h"
#include "tests/torture/sweeps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    bool (*run)(const struct sweep_options *options);
} commands[] = {
    {"crash", sweep_crashes},         {"io", sweep_io_faults},
    {"memory", sweep_allocations},    {"variants", sweep_variants},
    {"corruption", sweep_corruption}, {"write", real_write},
    {"verify", real_verify},          {"fill", real_fill},
};

static int usage(void) {
    (void)fprintf(stderr, "usage: holdfast-torture COMMAND [--seed N] [--seeds N] [--stride N] [--fates N] [--only N] "
                          "[--processes N] [--dir D] [--state F] [--power 0|1]\ncommands:");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        (void)fprintf(stderr, " %s", commands[i].name);
    }
    (void)fprintf(stderr, "\n");
    return 2;
}

static bool parse(int count, char **words, struct sweep_options *options) {
    for (int i = 0; i < count; i += 2) {
        char *end = NULL;
        if (i + 1 == count) {
            return false;
        }
        if (strcmp(words[i], "--dir") == 0) {
            options->dir = words[i + 1];
            continue;
        }
        if (strcmp(words[i], "--state") == 0) {
            options->state = words[i + 1];
            continue;
        }
        uint64_t number = strtoull(words[i + 1], &end, 10);
        if (*end != '\0' || end == words[i + 1]) {
            return false;
        }
        if (strcmp(words[i], "--seed") == 0) {
            options->first_seed = number;
        } else if (strcmp(words[i], "--seeds") == 0) {
            options->seeds = number;
        } else if (strcmp(words[i], "--stride") == 0 && number > 0) {
            options->stride = number;
        } else if (strcmp(words[i], "--fates") == 0 && number > 0) {
            options->fates = (uint32_t)number;
        } else if (strcmp(words[i], "--only") == 0) {
            options->only = number;
        } else if (strcmp(words[i], "--power") == 0) {
            options->power = number != 0;
        } else if (strcmp(words[i], "--processes") == 0 && number > 0) {
            options->processes = (unsigned)number;
        } else {
            return false;
        }
    }
    return true;
}

/* Fibers that a crash drops leave their buffers behind; the engine's memory is counted by the simulator. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "detect_leaks=0"; }

int main(int argc, char **argv) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct sweep_options options = {.first_seed = 1,
                                    .seeds = 1,
                                    .stride = 1,
                                    .fates = 3,
                                    .only = UINT64_MAX,
                                    .processes = cpus > 0 ? (unsigned)cpus : 1};
    if (argc < 2 || !parse(argc - 2, argv + 2, &options)) {
        return usage();
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(&options) ? 0 : 1;
        }
    }
    return usage();
}
