/*
 * One list of operations, many ways to set the engine up, the same answers.
 *
 * Each variant plays the list in a simulated world of its own (a few on the real disk, with threads), closes in the
 * middle, opens again and goes on. Every answer is compared with the model; what the variants read is compared between
 * them, too. If one diverges, operations are taken away as long as it still does, and what is left is printed: the
 * shortest list that one finds so (A. Zeller's ddmin), with the seed and the name of the variant.
 *
 * Would break this: anything that depends on where a block, a table, a level, a memtable or a cache ends.
 */
#include "tests/torture/variants.h"

#include "node/base/check.h"
#include "tests/torture/pool.h"
#include "tests/torture/sweeps.h"
#include "tests/torture/world.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OPERATIONS = 700, MINIMIZE_RUNS_MAX = 600, RUN_SECONDS_MAX = 120 };

static const struct script_profile profile = {
    .weights = {[OPERATION_PUT] = 40,
                [OPERATION_DELETE] = 10,
                [OPERATION_DELETE_RANGE] = 4,
                [OPERATION_BATCH] = 14,
                [OPERATION_SYNC] = 1,
                [OPERATION_FLUSH] = 4,
                [OPERATION_COMPACT] = 4,
                [OPERATION_SNAPSHOT] = 4,
                [OPERATION_RELEASE] = 3,
                [OPERATION_GET] = 12,
                [OPERATION_MULTI_GET] = 4,
                [OPERATION_SCAN] = 8,
                [OPERATION_WALK] = 12},
    .sync_percent = 5,
    .large_percent = 3,
    .value_bytes = 500,
};

/* What a run tells the one who waits for it. */
struct outcome {
    uint32_t position; /* of the operation that it was at */
    uint64_t answers;
    uint64_t checks;
    bool done;
    bool left_out; /* of this sample */
};

static struct outcome *outcomes; /* shared; [variant_count] is for minimizing */

/* ---- One run, in a child ---------------------------------------------------------------------------------------- */

struct run {
    const struct variant *variant;
    uint64_t seed;
    struct outcome *outcome;
    const bool *left_out; /* NULL: nothing is */
};

static struct outcome *current_outcome;

static void note_position(struct torture *torture, struct player *player) {
    (void)torture;
    current_outcome->position = player->position;
    current_outcome->answers = player->answers;
}

static void leave_out(struct player *player, const bool *left_out) {
    for (uint32_t i = 0; left_out != NULL && i < player->script.count; i++) {
        player->script.operations[i].dead = left_out[i];
    }
}

static uint64_t play_simulated(const struct run *run) {
    struct world *world = world_new(run->seed, 1, &profile, OPERATIONS);
    world->torture.stepped = note_position;
    run->variant->set(&world->options);
    leave_out(&world->torture.players[0], run->left_out);
    world_begin(world, OPERATIONS / 2, true);
    world_run(world);
    world_begin(world, OPERATIONS, true);
    world_run(world);
    return world->torture.checks;
}

static void play_half(struct torture *torture, const struct engine_options *options, uint32_t operations,
                      uint32_t least) {
    struct error err;
    if (engine_open(options, &torture->engine, &err) != STATUS_OK) {
        torture_fail(torture, &torture->players[0], "opening: %s", err.message);
    }
    player_adopt(&torture->players[0], least);
    for (uint32_t i = 0; i < operations && player_step(&torture->players[0]); i++) {
    }
    player_check_all(&torture->players[0]);
    player_let_go(&torture->players[0]);
    engine_close(torture->engine);
}

static uint64_t play_real(const struct run *run) {
    char dir[] = "/dev/shm/holdfast-torture-XXXXXX";
    struct engine_options options;
    static struct torture torture;
    CHECK(mkdtemp(dir) != NULL);
    world_engine_options(&options);
    run->variant->set(&options);
    options.dir = dir;
    options.env = NULL;
    torture.stepped = note_position;
    player_init(&torture, 0, run->seed, &profile, OPERATIONS);
    leave_out(&torture.players[0], run->left_out);
    play_half(&torture, &options, OPERATIONS / 2, 0);
    play_half(&torture, &options, OPERATIONS, torture.players[0].acknowledged);
    torture_remove_tree(dir);
    return torture.checks;
}

static void play(const struct run *run) {
    current_outcome = run->outcome;
    run->outcome->checks = run->variant->real ? play_real(run) : play_simulated(run);
    run->outcome->done = true;
}

/* ---- Shrinking -------------------------------------------------------------------------------------------------- */

/* True if it still goes wrong without those operations. */
static bool still_fails(const struct run *run) {
    memset(run->outcome, 0, sizeof *run->outcome);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        int silence = open("/dev/null", O_WRONLY);
        (void)dup2(silence, STDERR_FILENO);
        (void)alarm(RUN_SECONDS_MAX);
        play(run);
        _exit(0);
    }
    int state = 0;
    CHECK(waitpid(pid, &state, 0) == pid);
    return state != 0;
}

static void print_left(const struct variant *variant, uint64_t seed, const bool *left_out, uint32_t end) {
    struct script script;
    static struct operation operations[OPERATIONS];
    char text[96];
    script_make(&script, 0, seed, &profile, operations, OPERATIONS);
    (void)fprintf(stderr,
                  "the shortest list for variant %s, seed %" PRIu64 " (the engine is opened again before %d):\n",
                  variant->name, seed, OPERATIONS / 2);
    for (uint32_t i = 0; i < end; i++) {
        if (!left_out[i]) {
            (void)fprintf(stderr, "  %4u %s\n", i, operation_text(&operations[i], text));
        }
    }
}

static void minimize(const struct variant *variant, uint64_t seed, uint32_t position, struct outcome *outcome) {
    static bool left_out[OPERATIONS];
    static bool attempt[OPERATIONS];
    struct run run = {.variant = variant, .seed = seed, .outcome = outcome, .left_out = attempt};
    uint32_t end = position + 1 < OPERATIONS ? position + 1 : OPERATIONS;
    memset(left_out, 0, sizeof left_out);
    for (uint32_t i = end; i < OPERATIONS; i++) {
        left_out[i] = true;
    }
    memcpy(attempt, left_out, sizeof attempt);
    unsigned runs = 1;
    if (!still_fails(&run)) {
        (void)fprintf(stderr, "variant %s, seed %" PRIu64 ": not so again with operations 0 to %u alone\n",
                      variant->name, seed, position);
        return;
    }
    for (uint32_t chunk = end / 2; chunk > 0 && runs < MINIMIZE_RUNS_MAX; chunk /= 2) {
        for (uint32_t first = 0; first < end && runs < MINIMIZE_RUNS_MAX; first += chunk) {
            bool removes = false;
            memcpy(attempt, left_out, sizeof attempt);
            for (uint32_t i = first; i < first + chunk && i < end; i++) {
                removes = removes || !attempt[i];
                attempt[i] = true;
            }
            if (removes && ++runs > 0 && still_fails(&run)) {
                memcpy(left_out, attempt, sizeof left_out);
            }
        }
    }
    print_left(variant, seed, left_out, end);
    memcpy(attempt, left_out, sizeof attempt);
    CHECK(waitpid(-1, NULL, WNOHANG) <= 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) { /* once more, to be heard */
        torture_say_how("(the shortest list)");
        play(&run);
        _exit(0);
    }
    (void)waitpid(pid, NULL, 0);
}

/* ---- All of them ------------------------------------------------------------------------------------------------ */

static void judge(struct pool *pool, uint64_t seed) {
    for (unsigned i = 0; i < variant_count; i++) {
        struct outcome *outcome = &outcomes[i];
        bool differs = outcome->done && outcomes[0].done && outcome->answers != outcomes[0].answers;
        if (outcome->left_out) {
            continue;
        }
        pool->counts->checks += outcome->checks;
        if (differs) {
            pool->counts->failures++;
            (void)fprintf(stderr, "FAILED variant %s, seed %" PRIu64 " has read other things than variant %s\n",
                          variants[i].name, seed, variants[0].name);
        } else if (!outcome->done) {
            minimize(&variants[i], seed, outcome->position, &outcomes[variant_count]);
            return; /* one is enough */
        }
    }
}

bool sweep_variants(const struct sweep_options *options) {
    struct pool pool;
    char label[POOL_LABEL_BYTES];
    pool_init(&pool, options->processes);
    size_t bytes = (variant_count + 1) * sizeof *outcomes;
    outcomes = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(outcomes != MAP_FAILED);
    for (uint64_t seed = options->first_seed; seed < options->first_seed + options->seeds; seed++) {
        memset(outcomes, 0, bytes);
        for (unsigned i = 0; i < variant_count && !pool_has_failed(&pool); i++) {
            if (options->only != UINT64_MAX ? i != options->only : i % options->stride != 0) {
                outcomes[i].left_out = true;
                continue;
            }
            struct run run = {.variant = &variants[i], .seed = seed, .outcome = &outcomes[i]};
            (void)snprintf(label, sizeof label, "holdfast-torture variants --seed %" PRIu64 " --only %u (%s)", seed, i,
                           variants[i].name);
            if (pool_child(&pool, label)) {
                play(&run);
                pool_child_done();
            }
        }
        pool_wait(&pool);
        judge(&pool, seed);
    }
    bool good = pool_report(&pool, "variants");
    (void)munmap(outcomes, bytes);
    pool_deinit(&pool);
    return good;
}
