/*
 * A writer on a real disk that may be killed at any moment, or lose its power; and who looks at what it has left.
 *
 * Beside the store, on a disk that loses nothing, lies the state file: mapped, it says which writes were begun,
 * acknowledged and synced. `write` goes on where the store is, until it is killed; `verify` judges and ends.
 *
 *   write: adopt -> { begun -> the write -> acknowledged, durable } ...
 */
#include "tests/torture/player.h"
#include "tests/torture/sweeps.h"

#include "node/base/check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { OPERATIONS = 400 * 1000 };

static const struct script_profile profile = {
    .weights = {[OPERATION_PUT] = 60,
                [OPERATION_DELETE] = 8,
                [OPERATION_DELETE_RANGE] = 3,
                [OPERATION_BATCH] = 14,
                [OPERATION_SYNC] = 2,
                [OPERATION_FLUSH] = 1,
                [OPERATION_COMPACT] = 1,
                [OPERATION_SNAPSHOT] = 1,
                [OPERATION_RELEASE] = 1,
                [OPERATION_GET] = 6,
                [OPERATION_SCAN] = 1},
    .sync_percent = 20,
    .large_percent = 3,
    .value_bytes = 600,
};

struct state {
    _Atomic uint64_t begun;
    _Atomic uint64_t acknowledged;
    _Atomic uint64_t durable;
};

static struct state *map_state(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    CHECK(fd >= 0 && ftruncate(fd, sizeof(struct state)) == 0);
    struct state *state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(state != MAP_FAILED);
    (void)close(fd);
    return state;
}

static void real_options(struct engine_options *options, const char *dir) {
    engine_options_init(options);
    options->dir = dir;
    options->memtable_bytes = 128 * 1024;
    options->block_bytes = 1024;
    options->sst_bytes = 64 * 1024;
    options->write_bytes_max = TORTURE_WRITE_BYTES_MAX;
    options->log_group_bytes = 64 * 1024;
    options->log_segment_bytes = 1;
}

/* What this life may find: from `least` to what was begun. */
static void open_and_adopt(struct torture *torture, const struct sweep_options *options, const struct state *state) {
    struct engine_options engine_options;
    struct error err;
    struct player *player = &torture->players[0];
    error_clear(&err);
    real_options(&engine_options, options->dir);
    struct script_profile own = profile;
    if (options->first_seed % 2 == 0) { /* hardly ever waits for the disk: killed with much that isn't synced */
        own.sync_percent = 0;
        own.weights[OPERATION_SYNC] = 0;
        own.weights[OPERATION_FLUSH] = 0;
        own.weights[OPERATION_COMPACT] = 0;
    }
    player_init(torture, 0, options->first_seed, &own, OPERATIONS);
    player->begun = (uint32_t)state->begun;
    player->acknowledged = (uint32_t)state->acknowledged;
    player->durable = (uint32_t)state->durable;
    enum status status = engine_open(&engine_options, &torture->engine, &err);
    if (status != STATUS_OK) {
        torture_fail(torture, player, "opening %s: %s: %s", options->dir, status_name(status), err.message);
    }
    player_adopt(player, options->power ? player->durable : player->acknowledged);
    player_check_all(player);
}

static struct state *shared_state;

/* The write that the next step makes counts as begun before it is. */
static void note_begun(const struct player *player) {
    uint32_t next = player->acknowledged + 1;
    atomic_store(&shared_state->begun, next > player->script.writes ? player->script.writes : next);
}

static void note_done(const struct player *player) {
    atomic_store(&shared_state->durable, player->durable);
    atomic_store(&shared_state->acknowledged, player->acknowledged);
}

bool real_write(const struct sweep_options *options) {
    static struct torture torture;
    if (options->dir == NULL || options->state == NULL) {
        return false;
    }
    torture_say_how("holdfast-torture write --seed %" PRIu64, options->first_seed);
    shared_state = map_state(options->state);
    open_and_adopt(&torture, options, shared_state);
    struct player *player = &torture.players[0];
    note_done(player);
    printf("writing from %u\n", player->acknowledged);
    (void)fflush(stdout);
    do {
        note_done(player);
        note_begun(player);
    } while (player_step(player));
    note_done(player);
    player_let_go(player);
    engine_close(torture.engine);
    printf("all %u writes are done\n", player->acknowledged);
    return true;
}

bool real_verify(const struct sweep_options *options) {
    static struct torture torture;
    if (options->dir == NULL || options->state == NULL) {
        return false;
    }
    torture_say_how("holdfast-torture verify --seed %" PRIu64, options->first_seed);
    struct state *state = map_state(options->state);
    uint64_t begun = state->begun;
    uint64_t acknowledged = state->acknowledged;
    uint64_t durable = state->durable;
    open_and_adopt(&torture, options, state);
    engine_close(torture.engine);
    printf("%u writes are there: %" PRIu64 " durable, %" PRIu64 " acknowledged, %" PRIu64 " begun; %" PRIu64
           " checks\n",
           torture.players[0].acknowledged, durable, acknowledged, begun, torture.checks);
    return true;
}
