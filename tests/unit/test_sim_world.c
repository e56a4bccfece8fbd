/*
 * The simulated world: one seed, one run; virtual time; fibers that interleave; nodes that die and come back.
 *
 * Would break these: a choice made by address, hash order or real time; a fiber that runs after its node crashed;
 * memory of a node that survives a crash; a timer that runs early or on the wrong clock; env_exit that returns.
 */
#include "node/base/check.h"
#include "tests/sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { STEPS_MAX = 200 * 1000 };

static struct sim *world_new(uint64_t seed) {
    struct sim_options options;
    sim_options_init(&options);
    return sim_new(seed, &options);
}

static struct sim_node *node_new(struct sim *sim, const char *name, void (*main)(void *context, struct env *env),
                                 void *context) {
    struct sim_node_options options;
    sim_node_options_init(&options, name);
    options.main = main;
    options.context = context;
    return sim_node_new(sim, &options);
}

/* ---- Determinism ------------------------------------------------------------------------------------------------ */

/* Busy in every way: timers, messages, jobs, files, both clocks, randomness. */
struct busy {
    struct env *env;
    struct env_loop *loop;
    struct env_timer timer;
    struct env_work work;
    bool working;
    uint64_t ticks;
};

static void busy_job(struct env_work *work) {
    struct busy *busy = CONTAINER_OF(work, struct busy, work);
    struct env_file *file = NULL;
    if (env_open(busy->env, "/log", ENV_OPEN_READ | ENV_OPEN_WRITE | ENV_OPEN_CREATE, &file, NULL) == STATUS_OK) {
        uint64_t value = env_random(busy->env);
        (void)!env_pwrite(file, &value, sizeof value, busy->ticks * sizeof value, NULL);
        (void)!env_sync(file, NULL);
        env_close(file);
    }
}

static void busy_done(struct env_work *work) { CONTAINER_OF(work, struct busy, work)->working = false; }

static void busy_tick(struct env_timer *timer) {
    struct busy *busy = CONTAINER_OF(timer, struct busy, timer);
    busy->ticks++;
    if (!busy->working) {
        busy->working = true;
        busy->work = (struct env_work){.run = busy_job, .done = busy_done, .loop = busy->loop};
        env_work_submit(busy->env, ENV_WORK_SHORT, &busy->work);
    }
    (void)!env_timer_arm(timer, env_now_us(busy->loop) + 100 + env_random(busy->env) % 1000);
}

static void busy_main(void *context, struct env *env) {
    (void)context;
    struct busy *busy = mem_alloc_zero(env->alloc, sizeof *busy);
    busy->env = env;
    assert_int_equal(env_loop_new(env, "busy", 16, &busy->loop, NULL), STATUS_OK);
    env_timer_init(&busy->timer, busy->loop, busy_tick);
    assert_int_equal(env_timer_arm(&busy->timer, env_now_us(busy->loop)), STATUS_OK);
    env_loop_run(busy->loop);
}

static void crash_node(void *context) {
    struct sim_node *node = context;
    sim_node_crash(node, SIM_CRASH_POWER);
    sim_node_start(node);
}

static void count_trace(void *context, const struct sim_trace *trace) {
    assert_non_null(trace->text);
    assert_non_null(trace->node);
    assert_true(sim_trace_name(trace->kind)[0] != '\0');
    (*(uint64_t *)context)++;
}

/* trace_count NULL: without tracing. */
static uint64_t busy_run(uint64_t seed, uint64_t *trace_count) {
    struct sim_options options;
    sim_options_init(&options);
    options.trace = trace_count == NULL ? NULL : count_trace;
    options.trace_context = trace_count;
    struct sim *sim = sim_new(seed, &options);
    char name[16];
    for (int i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "n%d", i + 1);
        struct sim_node *node = node_new(sim, name, busy_main, NULL);
        sim_node_start(node);
        sim_call_at(sim, 20000 + sim_random(sim) % 20000, crash_node, node);
    }
    assert_int_equal(sim_run_until(sim, 100 * 1000, NULL, NULL, STEPS_MAX), SIM_END_DEADLINE);
    assert_int_equal(sim_now_us(sim), 100 * 1000);
    uint64_t hash = sim_hash(sim);
    struct sim_stats stats;
    sim_get_stats(sim, &stats);
    assert_true(stats.turns > 100 && stats.power_losses == 3 && stats.file_syncs > 10);
    sim_free(sim);
    return hash;
}

static void test_world_same_seed_same_hash(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        assert_int_equal(busy_run(seed, NULL), busy_run(seed, NULL));
    }
}

static void test_world_different_seeds_different_hashes(void **state) {
    (void)state;
    uint64_t hashes[10];
    for (uint64_t seed = 0; seed < 10; seed++) {
        hashes[seed] = busy_run(seed, NULL);
        for (uint64_t other = 0; other < seed; other++) {
            assert_true(hashes[seed] != hashes[other]);
        }
    }
}

static void test_world_traced_run_has_the_same_hash(void **state) {
    (void)state;
    uint64_t trace_count = 0;
    assert_int_equal(busy_run(3, NULL), busy_run(3, &trace_count));
    assert_true(trace_count > 1000);
}

/* ---- Timers and time -------------------------------------------------------------------------------------------- */

struct noted_timer {
    struct env_timer timer;
    struct timers *timers;
    uint64_t deadline_us;
};

struct timers {
    struct sim *sim;
    struct env_loop *loop;
    struct noted_timer items[3];
    int order[3];
    int count;
    uint64_t world_us; /* when the last one ran */
};

static void timer_note(struct env_timer *timer) {
    struct noted_timer *noted = CONTAINER_OF(timer, struct noted_timer, timer);
    struct timers *timers = noted->timers;
    assert_true(env_now_us(timers->loop) >= noted->deadline_us);
    assert_true(env_on_loop(timers->loop));
    timers->order[timers->count++] = (int)(noted - timers->items);
    timers->world_us = sim_now_us(timers->sim);
}

static void timer_arm(struct timers *timers, int which, uint64_t delay_us) {
    struct noted_timer *noted = &timers->items[which];
    *noted = (struct noted_timer){.timers = timers, .deadline_us = env_now_us(timers->loop) + delay_us};
    env_timer_init(&noted->timer, timers->loop, timer_note);
    assert_int_equal(env_timer_arm(&noted->timer, noted->deadline_us), STATUS_OK);
}

static void test_timers_run_in_order_at_their_virtual_time(void **state) {
    (void)state;
    struct sim *sim = world_new(1);
    struct sim_node *node = node_new(sim, "n1", NULL, NULL);
    sim_node_start(node);
    struct timers timers = {.sim = sim, .loop = NULL};
    assert_int_equal(env_loop_new(sim_node_env(node), "loop", 4, &timers.loop, NULL), STATUS_OK);
    timer_arm(&timers, 0, 5000 * 1000);
    timer_arm(&timers, 1, 10);
    timer_arm(&timers, 2, 3000 * 1000);
    env_loop_run(timers.loop);
    assert_int_equal(sim_run_until(sim, UINT64_MAX, NULL, NULL, STEPS_MAX), SIM_END_IDLE);
    assert_int_equal(timers.count, 3);
    assert_int_equal(timers.order[0], 1);
    assert_int_equal(timers.order[1], 2);
    assert_int_equal(timers.order[2], 0);
    assert_in_range(timers.world_us, 5000 * 1000, 5000 * 1000 + 1000); /* and no real seconds went by */
    env_loop_stop(timers.loop);
    env_loop_join(timers.loop);
    env_loop_free(timers.loop);
    sim_free(sim);
}

static void test_clock_with_drift_runs_fast_and_never_back(void **state) {
    (void)state;
    struct sim *sim = world_new(2);
    struct sim_node *node = node_new(sim, "n1", NULL, NULL);
    sim_node_start(node);
    struct env *env = sim_node_env(node);
    uint64_t start = env_clock_us(env);
    sim_node_set_clock_drift(node, 100 * 1000);
    (void)sim_run_until(sim, 1000 * 1000, NULL, NULL, STEPS_MAX);
    uint64_t fast = env_clock_us(env);
    assert_in_range(fast - start, 1099 * 1000, 1101 * 1000);
    sim_node_set_clock_drift(node, -100 * 1000);
    assert_true(env_clock_us(env) >= fast);
    (void)sim_run_until(sim, 2000 * 1000, NULL, NULL, STEPS_MAX);
    assert_in_range(env_clock_us(env) - fast, 899 * 1000, 901 * 1000);
    int64_t wall = env_wall_ms(env);
    sim_node_set_wall_offset(node, -3600 * 1000);
    assert_int_equal(env_wall_ms(env), wall - 3600 * 1000);
    sim_free(sim);
}

static void test_paused_node_sleeps_through_and_goes_on(void **state) {
    (void)state;
    struct sim *sim = world_new(2);
    struct sim_node *node = node_new(sim, "n1", NULL, NULL);
    sim_node_start(node);
    struct timers timers = {.sim = sim, .loop = NULL};
    assert_int_equal(env_loop_new(sim_node_env(node), "loop", 4, &timers.loop, NULL), STATUS_OK);
    timer_arm(&timers, 0, 1000);
    env_loop_run(timers.loop);
    sim_node_pause(node);
    assert_int_equal(sim_run_until(sim, 1000 * 1000, NULL, NULL, STEPS_MAX), SIM_END_DEADLINE);
    assert_int_equal(timers.count, 0);
    sim_node_resume(node);
    assert_int_equal(sim_run_until(sim, 2000 * 1000, NULL, NULL, STEPS_MAX), SIM_END_DEADLINE);
    assert_int_equal(timers.count, 1);
    assert_in_range(timers.world_us, 1000 * 1000, 1000 * 1000 + 1000);
    sim_free(sim);
}

/* ---- Workers ---------------------------------------------------------------------------------------------------- */

struct job {
    struct env_work work;
    struct env *env;
    struct jobs *jobs;
    bool done;
};

struct jobs {
    struct job items[6];
    int running;
    int running_max;
    int started;
    int switches; /* how often a job went on after another had run meanwhile */
    int last;
};

static void job_run(struct env_work *work) {
    struct job *job = CONTAINER_OF(work, struct job, work);
    struct jobs *jobs = job->jobs;
    int self = (int)(job - jobs->items);
    assert_int_equal(self, jobs->started++); /* in order of submission */
    jobs->running++;
    jobs->running_max = jobs->running > jobs->running_max ? jobs->running : jobs->running_max;
    jobs->last = self;
    for (int i = 0; i < 10; i++) {
        env_sleep_us(job->env, 50);
        jobs->switches += jobs->last != self;
        jobs->last = self;
    }
    jobs->running--;
}

static void job_done(struct env_work *work) {
    struct job *job = CONTAINER_OF(work, struct job, work);
    assert_true(env_on_loop(work->loop));
    job->done = true;
}

static bool all_done(void *context) {
    const struct jobs *jobs = context;
    for (size_t i = 0; i < sizeof jobs->items / sizeof jobs->items[0]; i++) {
        if (!jobs->items[i].done) {
            return false;
        }
    }
    return true;
}

static void submit_jobs(struct jobs *jobs, struct env *env, struct env_loop *loop, enum env_work_class work_class) {
    memset(jobs, 0, sizeof *jobs);
    for (size_t i = 0; i < sizeof jobs->items / sizeof jobs->items[0]; i++) {
        jobs->items[i] =
            (struct job){.work = {.run = job_run, .done = job_done, .loop = loop}, .env = env, .jobs = jobs};
        env_work_submit(env, work_class, &jobs->items[i].work);
    }
}

static void test_jobs_interleave_and_are_bounded_per_class(void **state) {
    (void)state;
    struct sim *sim = world_new(4);
    struct sim_node *node = node_new(sim, "n1", NULL, NULL);
    sim_node_start(node);
    struct env_loop *loop;
    assert_int_equal(env_loop_new(sim_node_env(node), "loop", 4, &loop, NULL), STATUS_OK);
    assert_int_equal(env_loop_spawn(loop, NULL), STATUS_OK);
    struct jobs jobs;
    submit_jobs(&jobs, sim_node_env(node), loop, ENV_WORK_SHORT);
    assert_int_equal(sim_run_until(sim, UINT64_MAX, all_done, &jobs, STEPS_MAX), SIM_END_PREDICATE);
    assert_int_equal(jobs.running_max, 2);
    assert_true(jobs.switches > 5);
    submit_jobs(&jobs, sim_node_env(node), loop, ENV_WORK_LONG);
    assert_int_equal(sim_run_until(sim, UINT64_MAX, all_done, &jobs, STEPS_MAX), SIM_END_PREDICATE);
    assert_int_equal(jobs.running_max, 1);
    sim_free(sim);
}

/* ---- Crashes ---------------------------------------------------------------------------------------------------- */

struct victim {
    struct sim_node *node;
    int started;
    int reached;
    int crashes;
    int exit_code;
};

static void victim_crashed(void *context, enum sim_crash crash, int exit_code) {
    struct victim *victim = context;
    (void)crash;
    victim->crashes++;
    victim->exit_code = exit_code;
    assert_null(sim_node_env(victim->node));
    assert_false(sim_node_is_up(victim->node));
    struct sim_memory_stats memory;
    sim_node_get_memory(victim->node, &memory);
    assert_int_equal(memory.blocks, 0);
    assert_int_equal(memory.used_bytes, 0);
}

static struct sim_node *victim_new(struct sim *sim, struct victim *victim,
                                   void (*main)(void *context, struct env *env)) {
    struct sim_node_options options;
    sim_node_options_init(&options, "victim");
    options.main = main;
    options.crashed = victim_crashed;
    options.context = victim;
    *victim = (struct victim){.node = sim_node_new(sim, &options), .exit_code = -2};
    return victim->node;
}

/* Holds memory, an open file and a lock while it is in the middle of a job. */
static void holding_main(void *context, struct env *env) {
    struct victim *victim = context;
    victim->started++;
    struct env_file *lock = NULL;
    assert_int_equal(env_lock_file(env, "/lock", &lock, NULL), STATUS_OK);
    void *memory = mem_alloc(env->alloc, 100000);
    assert_non_null(memory);
    for (int i = 0; i < 1000; i++) {
        env_sleep_us(env, 1000);
        mem_free(env->alloc, memory);
        memory = mem_alloc_aligned(env->alloc, 4096, 4096);
        memset(memory, i, 4096);
    }
    victim->reached++;
}

static void test_crash_in_the_middle_of_a_job_frees_everything(void **state) {
    (void)state;
    for (int kind = SIM_CRASH_PROCESS; kind <= SIM_CRASH_POWER; kind++) {
        struct sim *sim = world_new(5);
        struct victim victim;
        struct sim_node *node = victim_new(sim, &victim, holding_main);
        sim_node_start(node);
        (void)sim_run_until(sim, 100 * 1000, NULL, NULL, STEPS_MAX);
        struct sim_memory_stats memory;
        sim_node_get_memory(node, &memory);
        assert_true(memory.used_bytes >= 4096 && memory.blocks >= 2);
        sim_node_crash(node, (enum sim_crash)kind);
        assert_int_equal(victim.crashes, 1);
        assert_int_equal(victim.exit_code, -1);
        assert_int_equal(sim_run_until(sim, UINT64_MAX, NULL, NULL, STEPS_MAX), SIM_END_IDLE); /* its fiber is gone */
        assert_int_equal(victim.reached, 0);
        sim_node_start(node); /* and gets the lock, which died with the process */
        assert_int_equal(sim_run_until(sim, UINT64_MAX, NULL, NULL, STEPS_MAX), SIM_END_IDLE);
        assert_int_equal(victim.started, 2);
        assert_int_equal(victim.reached, 1);
        sim_free(sim);
    }
}

static void exiting_main(void *context, struct env *env) {
    struct victim *victim = context;
    void *memory = mem_alloc(env->alloc, 100);
    assert_non_null(memory);
    env_sleep_us(env, 10);
    victim->started++;
    env_exit(env, 7);
}

static void test_exit_from_a_fiber_crashes_the_node_and_never_returns(void **state) {
    (void)state;
    struct sim *sim = world_new(6);
    struct victim victim;
    sim_node_start(victim_new(sim, &victim, exiting_main));
    assert_int_equal(sim_run_until(sim, UINT64_MAX, NULL, NULL, STEPS_MAX), SIM_END_IDLE);
    assert_int_equal(victim.started, 1);
    assert_int_equal(victim.crashes, 1);
    assert_int_equal(victim.exit_code, 7);
    sim_free(sim);
}

struct exiter {
    struct env_timer timer;
    struct env *env;
};

static void exit_in_callback(struct env_timer *timer) { env_exit(CONTAINER_OF(timer, struct exiter, timer)->env, 9); }

static void callback_main(void *context, struct env *env) {
    struct victim *victim = context;
    victim->started++;
    struct env_loop *loop;
    assert_int_equal(env_loop_new(env, "loop", 4, &loop, NULL), STATUS_OK);
    struct exiter *exiter = mem_alloc(env->alloc, sizeof *exiter);
    exiter->env = env;
    env_timer_init(&exiter->timer, loop, exit_in_callback);
    assert_int_equal(env_timer_arm(&exiter->timer, env_now_us(loop) + 500), STATUS_OK);
    env_loop_run(loop);
}

static void test_exit_from_a_callback_crashes_the_node_and_it_restarts(void **state) {
    (void)state;
    struct sim *sim = world_new(7);
    struct victim victim;
    struct sim_node *node = victim_new(sim, &victim, callback_main);
    for (int round = 1; round <= 3; round++) {
        sim_node_start(node);
        assert_int_equal(sim_run_until(sim, UINT64_MAX, NULL, NULL, STEPS_MAX), SIM_END_IDLE);
        assert_int_equal(victim.started, round);
        assert_int_equal(victim.crashes, round);
        assert_int_equal(victim.exit_code, 9);
    }
    sim_free(sim);
}

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

static void test_allocations_fail_on_demand(void **state) {
    (void)state;
    struct sim *sim = world_new(8);
    struct sim_node *node = node_new(sim, "n1", NULL, NULL);
    sim_node_start(node);
    struct alloc *alloc = sim_node_env(node)->alloc;
    sim_node_fail_allocation(node, 3);
    void *first = mem_alloc(alloc, 10);
    void *second = mem_alloc(alloc, 10);
    assert_non_null(first);
    assert_non_null(second);
    memset(second, 'x', 10);
    assert_null(mem_resize(alloc, second, 20));
    assert_int_equal(((char *)second)[9], 'x'); /* a failed resize leaves the block */
    second = mem_resize(alloc, second, 20);
    assert_int_equal(((char *)second)[9], 'x');
    int failed = 0;
    sim_node_fail_allocations(node, 500 * 1000);
    for (int i = 0; i < 100; i++) {
        void *block = mem_alloc(alloc, 1);
        failed += block == NULL;
        mem_free(alloc, block);
    }
    assert_in_range(failed, 25, 75);
    struct env_loop *loop = NULL;
    sim_node_fail_allocations(node, 1000 * 1000);
    assert_int_equal(env_loop_new(sim_node_env(node), "loop", 1, &loop, NULL), STATUS_NO_MEMORY);
    sim_node_fail_allocations(node, 0);
    struct sim_memory_stats memory;
    sim_node_get_memory(node, &memory);
    assert_int_equal(memory.blocks, 2);
    assert_int_equal(memory.used_bytes, 30);
    sim_free(sim);
}

/* ---- Waiting from outside --------------------------------------------------------------------------------------- */

struct waiting {
    struct env_event *event;
    enum status first;
    enum status second;
    bool ended;
};

static void waiting_thread(void *context) {
    struct waiting *waiting = context;
    waiting->first = env_event_wait(waiting->event, 1000);
    waiting->second = env_event_wait(waiting->event, UINT64_MAX);
    waiting->ended = true;
}

static void set_event(void *context) { env_event_set(context); }

static void test_event_wait_times_out_then_wakes(void **state) {
    (void)state;
    struct sim *sim = world_new(9);
    struct sim_node *node = node_new(sim, "n1", NULL, NULL);
    sim_node_start(node);
    struct waiting waiting = {0};
    assert_int_equal(env_event_new(sim_node_env(node), &waiting.event), STATUS_OK);
    sim_node_thread(node, waiting_thread, &waiting);
    sim_call_at(sim, 50 * 1000, set_event, waiting.event);
    assert_int_equal(sim_run_until(sim, UINT64_MAX, NULL, NULL, STEPS_MAX), SIM_END_IDLE);
    assert_true(waiting.ended);
    assert_int_equal(waiting.first, STATUS_TIMEOUT);
    assert_int_equal(waiting.second, STATUS_OK);
    /* The host may wait, too: the world goes on meanwhile. */
    sim_call_at(sim, sim_now_us(sim) + 5000, set_event, waiting.event);
    assert_int_equal(env_event_wait(waiting.event, 1000), STATUS_TIMEOUT);
    assert_int_equal(env_event_wait(waiting.event, 10000), STATUS_OK);
    env_event_free(waiting.event);
    sim_free(sim);
}

/* A turn may be interrupted between any two env calls: other threads see time pass, the loop's callbacks stay one at a
 * time. */
/* A turn of its own, which is long, and may be interrupted anywhere in it. */
struct preempted {
    struct env *env;
    struct env_loop *loop;
    struct env_timer timers[3];
    bool inside;
    uint64_t ticks;
};

static struct preempted preempted;

static void preempted_tick(struct env_timer *timer) {
    assert_false(preempted.inside);
    preempted.inside = true;
    preempted.ticks++;
    uint64_t before_us = env_clock_us(preempted.env);
    assert_true(env_clock_us(preempted.env) >= before_us);
    assert_int_equal(env_timer_arm(timer, env_now_us(preempted.loop) + 100), STATUS_OK);
    preempted.inside = false;
}

static void preempted_main(void *context, struct env *env) {
    (void)context;
    preempted = (struct preempted){.env = env};
    assert_int_equal(env_loop_new(env, "preempted", 16, &preempted.loop, NULL), STATUS_OK);
    for (unsigned i = 0; i < 3; i++) {
        env_timer_init(&preempted.timers[i], preempted.loop, preempted_tick);
        assert_int_equal(env_timer_arm(&preempted.timers[i], env_now_us(preempted.loop)), STATUS_OK);
    }
    env_loop_run(preempted.loop);
}

static void test_preempted_turns_keep_callbacks_apart(void **state) {
    (void)state;
    struct sim_options options;
    struct sim_stats stats;
    sim_options_init(&options);
    options.preempt_ppm = 500 * 1000;
    struct sim *sim = sim_new(10, &options);
    struct sim_node *node = node_new(sim, "n1", preempted_main, NULL);
    sim_node_start(node);
    (void)sim_run_until(sim, 200 * 1000, NULL, NULL, STEPS_MAX);
    sim_get_stats(sim, &stats);
    assert_true(stats.preemptions > 50);
    assert_true(preempted.ticks > 50);
    sim_node_crash(node, SIM_CRASH_PROCESS); /* perhaps in the middle of a turn */
    sim_free(sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_world_same_seed_same_hash),
        cmocka_unit_test(test_world_different_seeds_different_hashes),
        cmocka_unit_test(test_world_traced_run_has_the_same_hash),
        cmocka_unit_test(test_timers_run_in_order_at_their_virtual_time),
        cmocka_unit_test(test_clock_with_drift_runs_fast_and_never_back),
        cmocka_unit_test(test_paused_node_sleeps_through_and_goes_on),
        cmocka_unit_test(test_jobs_interleave_and_are_bounded_per_class),
        cmocka_unit_test(test_crash_in_the_middle_of_a_job_frees_everything),
        cmocka_unit_test(test_exit_from_a_fiber_crashes_the_node_and_never_returns),
        cmocka_unit_test(test_exit_from_a_callback_crashes_the_node_and_it_restarts),
        cmocka_unit_test(test_allocations_fail_on_demand),
        cmocka_unit_test(test_event_wait_times_out_then_wakes),
        cmocka_unit_test(test_preempted_turns_keep_callbacks_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
