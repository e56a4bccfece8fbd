/*
 * A flipped bit in every kind of file.
 *
 * A store is built, closed, opened, written to and killed, so that there are tables, a manifest, CURRENT, log segments
 * and tail files with something in them. Then the process forks for each file and place: the child flips bits of one
 * byte and opens the store.
 *
 *   tables      it opens; every key is right, or CORRUPT with the file's name, and most are right; writes, flushes and
 *               compactions go on
 *   value files as tables: a value that can't be read hurts its key alone
 *   CURRENT, manifest
 *               CORRUPT with the file's name, or nothing is lost
 *   log         CORRUPT with the name, or nothing is lost; damage to the last group alone can't be told from a torn
 *               tail, so it may take the writes that were synced last
 *   tail files  what was never synced may end earlier, no more: a prefix is left
 *
 * Would break this: a block or a record whose checksum isn't looked at, a length that is trusted, damage that stops
 * more than what it hit.
 */
#include "tests/torture/pool.h"
#include "tests/torture/sweeps.h"
#include "tests/torture/world.h"

#include "node/base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPERATIONS = 260, FIRST_LIFE = 120, SECOND_LIFE = 100, FILES_MAX = 64, AFTERWARDS = 30, LARGE_PERCENT = 6 };

static const struct script_profile profile = {
    .weights = {[OPERATION_PUT] = 60,
                [OPERATION_DELETE] = 8,
                [OPERATION_DELETE_RANGE] = 2,
                [OPERATION_BATCH] = 10,
                [OPERATION_SYNC] = 1,
                [OPERATION_FLUSH] = 2},
    .sync_percent = 15,
    .value_bytes = 300,
};

enum file_kind { KIND_TABLE, KIND_VALUES, KIND_MANIFEST, KIND_LOG, KIND_TAIL, KIND_OTHER };

struct file {
    char path[128];
    const char *name; /* in path */
    enum file_kind kind;
    uint64_t size_bytes;
};

struct census {
    struct world *world;
    const char *dir;
    struct file files[FILES_MAX];
    unsigned count;
};

/* ---- What there is ---------------------------------------------------------------------------------------------- */

static enum file_kind kind_of(const char *name) {
    if (strstr(name, ".sst") != NULL) {
        return KIND_TABLE;
    }
    if (strstr(name, ".val") != NULL) {
        return KIND_VALUES;
    }
    if (strncmp(name, "MANIFEST-", 9) == 0 || strcmp(name, "CURRENT") == 0) {
        return KIND_MANIFEST;
    }
    if (strstr(name, ".log") != NULL) {
        return KIND_LOG;
    }
    return strncmp(name, "tail-", 5) == 0 ? KIND_TAIL : KIND_OTHER;
}

static enum status add_file(void *context, const char *name) {
    struct census *census = context;
    struct env *env = sim_node_env(census->world->node);
    struct env_file *opened = NULL;
    CHECK(census->count < FILES_MAX);
    struct file *file = &census->files[census->count];
    (void)snprintf(file->path, sizeof file->path, "%s/%s", census->dir, name);
    file->name = file->path + strlen(census->dir) + 1;
    file->kind = kind_of(name);
    if (file->kind == KIND_OTHER || env_open(env, file->path, ENV_OPEN_READ, &opened, NULL) != STATUS_OK) {
        return STATUS_OK;
    }
    CHECK(env_size(opened, &file->size_bytes, NULL) == STATUS_OK);
    env_close(opened);
    census->count += file->size_bytes > 0;
    return STATUS_OK;
}

static void take_census(struct world *world, struct census *census) {
    static const char *const dirs[] = {"/store", "/store/tables", "/store/log"};
    memset(census, 0, sizeof *census);
    census->world = world;
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        census->dir = dirs[i];
        CHECK(env_list_dir(sim_node_env(world->node), dirs[i], add_file, census, NULL) == STATUS_OK);
    }
}

/* ---- A life among damage ---------------------------------------------------------------------------------------- */

static const struct file *damaged; /* the child's */
static unsigned unreadable;

/* Where damage hurts who needs it, and nobody else. */
static bool is_data(void) { return damaged->kind == KIND_TABLE || damaged->kind == KIND_VALUES; }

static void judge_opening(struct world *world, enum status status, const struct error *err) {
    bool named = strstr(err->message, damaged->name) != NULL;
    bool may = damaged->kind == KIND_MANIFEST || damaged->kind == KIND_LOG;
    if (!may || !named || (status != STATUS_CORRUPT && status != STATUS_UNSUPPORTED)) {
        torture_fail(&world->torture, NULL, "a bit of %s was flipped, and opening says %s: %s", damaged->name,
                     status_name(status), err->message);
    }
}

static void judge_content(struct world *world) {
    struct torture *torture = &world->torture;
    struct player *player = &torture->players[0];
    if (!is_data()) {
        uint32_t least = damaged->kind == KIND_TAIL  ? player->durable
                         : damaged->kind == KIND_LOG ? player->durable_before
                                                     : player->acknowledged;
        player_adopt(player, least);
        player_check_all(player);
    } else {
        model_after(&player->now, &player->script, player->acknowledged);
        unreadable = player_count_damaged(player, damaged->name);
        if (unreadable > TORTURE_KEYS * 4 / 5) {
            torture_fail(torture, player, "one byte of %s makes %u of %u keys unreadable", damaged->name, unreadable,
                         TORTURE_KEYS);
        }
        player->adopted = true;
    }
}

static void live_damaged(void *context) {
    struct world *world = context;
    struct torture *torture = &world->torture;
    struct player *player = &torture->players[0];
    struct error err;
    error_clear(&err);
    enum status status = engine_open(&world->options, &torture->engine, &err);
    if (status != STATUS_OK) {
        judge_opening(world, status, &err);
        world->finished = true;
        return;
    }
    judge_content(world);
    /* Writes go on, whatever lies damaged. */
    for (unsigned i = 0; i < AFTERWARDS && player_step(player); i++) {
    }
    if (is_data()) {
        (void)player_count_damaged(player, damaged->name);
    } else {
        player_check_all(player);
    }
    player_let_go(player);
    engine_close(torture->engine);
    world->finished = true;
}

/* ---- The sweep -------------------------------------------------------------------------------------------------- */

static void flip(struct world *world, struct pool *pool, const struct file *file, uint64_t offset) {
    damaged = file;
    sim_disk_reseed(world->node, offset * 31 + file->size_bytes);
    CHECK(sim_disk_corrupt(world->node, file->path, offset, 1) == STATUS_OK);
    pool->counts->faults++;
    world_begin_with(world, live_damaged);
    world_run(world);
    pool->counts->failed_calls += unreadable;
    pool->counts->checks += world->torture.checks;
}

static void sweep_file(struct pool *pool, const struct sweep_options *options, struct world *world, uint64_t seed,
                       unsigned number, const struct file *file) {
    char label[POOL_LABEL_BYTES];
    /* Small files whole; of large ones the head, and places further and further apart. */
    uint64_t place = 0;
    for (uint64_t offset = 0; offset < file->size_bytes; offset += 1 + (offset > 512 ? offset / 96 : 0)) {
        uint64_t point = (uint64_t)number << 32 | offset;
        bool chosen = options->only == UINT64_MAX ? (place + number) % options->stride == 0 : point == options->only;
        place++;
        (void)snprintf(label, sizeof label,
                       "holdfast-torture corruption --seed %" PRIu64 " --only %" PRIu64 " (%s, %" PRIu64 ")", seed,
                       point, file->name, offset);
        if (chosen && pool_child(pool, label)) {
            flip(world, pool, file, offset);
            pool_child_done();
        }
    }
}

bool sweep_corruption(const struct sweep_options *options) {
    static struct census census;
    struct pool pool;
    pool_init(&pool, options->processes);
    for (uint64_t seed = options->first_seed; seed < options->first_seed + options->seeds; seed++) {
        struct script_profile own = profile;
        own.large_percent = seed % 2 * LARGE_PERCENT;
        bool is_adopting = seed % 4 == 0;
        struct world *world = (is_adopting ? world_new_large : world_new)(seed, 1, &own, OPERATIONS);
        if (seed % 4 == 2) { /* a log of several segments */
            world->options.write_bytes_max = 16 * 1024;
            world->options.log_group_bytes = 16 * 1024;
        }
        world_begin(world, FIRST_LIFE, true);
        world_run(world);
        world_begin(world, SECOND_LIFE, true);
        const struct player *player = &world->torture.players[0];
        while (player->position < FIRST_LIFE + SECOND_LIFE - 5 || player->begun != player->acknowledged) {
            (void)world_step(world);
        }
        world_crash(world, SIM_CRASH_PROCESS);
        take_census(world, &census);
        for (unsigned i = 0; i < census.count && !pool_has_failed(&pool); i++) {
            sweep_file(&pool, options, world, seed, i, &census.files[i]);
        }
        pool_wait(&pool);
        world_free(world);
    }
    bool good = pool_report(&pool, "corruption");
    pool_deinit(&pool);
    return good;
}
