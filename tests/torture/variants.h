/* The ways to set the engine up that variants.c compares. */
#ifndef HOLDFAST_TESTS_TORTURE_VARIANTS_H
#define HOLDFAST_TESTS_TORTURE_VARIANTS_H

#include "storage/engine.h"

struct variant {
    const char *name;
    bool real; /* on the real disk, with threads */
    /* Changes options that were made for small simulated runs (world_engine_options). */
    void (*set)(struct engine_options *options);
};

extern const struct variant variants[];
extern const unsigned variant_count;

#endif
