/* One simulated node with a disk, driven by the host: what the tests of the simulated disk share. */
#ifndef HOLDFAST_SIM_DISK_FIXTURE_H
#define HOLDFAST_SIM_DISK_FIXTURE_H

#include "node/base/check.h"
#include "tests/sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS_MAX = 200 * 1000, SECTOR = 512, BLOCK = ENV_BLOCK_BYTES, SEEDS = 60 };

struct fixture {
    struct sim *sim;
    struct sim_node *node;
    struct env *env;
};

static inline void setup(struct fixture *fixture, uint64_t seed, const struct sim_disk_options *disk) {
    struct sim_options options;
    sim_options_init(&options);
    fixture->sim = sim_new(seed, &options);
    struct sim_node_options node_options;
    sim_node_options_init(&node_options, "n1");
    if (disk != NULL) {
        node_options.disk = *disk;
    }
    fixture->node = sim_node_new(fixture->sim, &node_options);
    sim_node_start(fixture->node);
    fixture->env = sim_node_env(fixture->node);
}

static inline void crash(struct fixture *fixture, enum sim_crash kind) {
    sim_node_crash(fixture->node, kind);
    sim_node_start(fixture->node);
    fixture->env = sim_node_env(fixture->node);
}

static inline void cleanup(struct fixture *fixture) { sim_free(fixture->sim); }

static inline struct env_file *open_file(struct fixture *fixture, const char *path, unsigned flags) {
    struct env_file *file = NULL;
    assert_int_equal(env_open(fixture->env, path, ENV_OPEN_READ | ENV_OPEN_WRITE | flags, &file, NULL), STATUS_OK);
    return file;
}

static inline bool exists(struct fixture *fixture, const char *path) {
    struct env_file *file = NULL;
    enum status status = env_open(fixture->env, path, ENV_OPEN_READ, &file, NULL);
    env_close(file);
    return status == STATUS_OK;
}

/* A durable file of `blocks` blocks of 'o'. */
static inline struct env_file *make_old_file(struct fixture *fixture, const char *path, size_t blocks) {
    struct env_file *file = open_file(fixture, path, ENV_OPEN_CREATE);
    char old[BLOCK];
    memset(old, 'o', sizeof old);
    for (size_t i = 0; i < blocks; i++) {
        assert_int_equal(env_pwrite(file, old, sizeof old, i * BLOCK, NULL), STATUS_OK);
    }
    assert_int_equal(env_sync(file, NULL), STATUS_OK);
    assert_int_equal(env_sync_dir(fixture->env, "/", NULL), STATUS_OK);
    return file;
}

/* The sector's only byte, or 0 if it holds several. */
static inline char sector_of(const char *data, size_t sector) {
    const char *bytes = data + sector * SECTOR;
    return memcmp(bytes, bytes + 1, SECTOR - 1) == 0 ? bytes[0] : '\0';
}

static inline void read_file(struct fixture *fixture, const char *path, char *data, size_t size, size_t *ret_len) {
    struct env_file *file = NULL;
    assert_int_equal(env_open(fixture->env, path, ENV_OPEN_READ, &file, NULL), STATUS_OK);
    assert_int_equal(env_pread(file, data, size, 0, ret_len, NULL), STATUS_OK);
    env_close(file);
}

#endif
