/* The commands, one or two a file; each prints its counts and says whether all was well. */
#ifndef HOLDFAST_TESTS_TORTURE_SWEEPS_H
#define HOLDFAST_TESTS_TORTURE_SWEEPS_H

#include <stdbool.h>
#include <stdint.h>

struct sweep_options {
    uint64_t first_seed;
    uint64_t seeds;
    uint64_t stride; /* 1: every point; n: every n-th */
    uint32_t fates;  /* of each point: power losses drawn differently */
    uint64_t only;   /* this point; UINT64_MAX: all */
    unsigned processes;
    const char *dir;   /* of real stores */
    const char *state; /* the file that says what was acknowledged */
    bool power;        /* power was lost: only what was synced must be there */
};

bool sweep_crashes(const struct sweep_options *options);     /* crash.c */
bool sweep_io_faults(const struct sweep_options *options);   /* faults.c */
bool sweep_allocations(const struct sweep_options *options); /* faults.c */
bool sweep_corruption(const struct sweep_options *options);  /* corruption.c */
bool sweep_variants(const struct sweep_options *options);    /* variants.c */

/* real.c: on a real disk, in processes that are killed from outside. */
bool real_write(const struct sweep_options *options);
bool real_verify(const struct sweep_options *options);
bool real_fill(const struct sweep_options *options); /* full.c */

#endif
