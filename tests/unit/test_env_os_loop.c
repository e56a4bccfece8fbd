/*
 * The production loop: turns, wake-ups, stop, timers on the real clock, workers, events, signals. Breaks if a loop
 * sleeps through a message, a timer or a job's end, if a stop gets lost, if now is stale in a callback, or if blocking
 * calls pass on a loop's thread.
 */
#include "node/env/os/env_os.h"
#include "tests/unit/support/support.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct test_alloc memory;
static struct env *env;
static struct env_loop *loop;

static void make_env(struct env **ret_env) {
    const struct env_os_options options = {.alloc = &memory.base,
                                           .use_ring = true,
                                           .workers_short = 2,
                                           .workers_long = 1};
    struct error err;
    assert_int_equal(env_os_new(&options, ret_env, &err), STATUS_OK);
}

static int setup(void **state) {
    (void)state;
    test_alloc_init(&memory);
    make_env(&env);
    struct error err;
    return env_loop_new(env, "test", 16, &loop, &err) == STATUS_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    env_loop_free(loop);
    env_os_free(env);
    return memory.live_blocks == 0 ? 0 : -1;
}

/* ---- Clocks ------------------------------------------------------------------------------------------------------ */

static void test_clocks_and_random_are_sane(void **state) {
    (void)state;
    uint64_t before_us = env_clock_us(env);
    env_sleep_us(env, 2000);
    uint64_t slept_us = env_clock_us(env) - before_us;
    assert_in_range(slept_us, 2000, 2000000);
    assert_true(env_wall_ms(env) > 1600000000000);
    assert_true(env_cpu_count(env) >= 1);
    uint64_t seen = 0, all = UINT64_MAX;
    for (int i = 0; i < 1000; i++) { /* more than one pool */
        uint64_t value = env_random(env);
        seen |= value;
        all &= value;
    }
    assert_true(seen == UINT64_MAX && all == 0);
    assert_true(env_random(env) != env_random(env));
}

/* ---- Messages, stop ---------------------------------------------------------------------------------------------- */

struct stopper {
    struct env_message message;
    struct env_loop *loop;
    pthread_t thread;
    bool on_loop;
};

static void stop_by_message(struct env_message *message) {
    struct stopper *stopper = CONTAINER_OF(message, struct stopper, message);
    stopper->thread = pthread_self();
    stopper->on_loop = env_on_loop(stopper->loop);
    env_loop_stop(stopper->loop);
}

static void test_spawned_loop_runs_messages_on_its_own_thread_and_stops(void **state) {
    (void)state;
    struct stopper stopper = {.message = {.run = stop_by_message}, .loop = loop};
    struct error err;
    assert_int_equal(env_loop_spawn(loop, &err), STATUS_OK);
    env_sleep_us(env, 5000); /* it sleeps in its poll */
    env_post(loop, &stopper.message);
    env_loop_join(loop);
    assert_false(pthread_equal(stopper.thread, pthread_self()));
    assert_true(stopper.on_loop);
    assert_false(env_on_loop(loop));
}

static void test_stop_before_run_still_runs_the_messages_of_one_turn(void **state) {
    (void)state;
    struct stopper stopper = {.message = {.run = stop_by_message}, .loop = loop};
    env_post(loop, &stopper.message);
    env_loop_stop(loop);
    env_loop_run(loop);
    assert_true(stopper.on_loop);
    stopper.on_loop = false;
    env_post(loop, &stopper.message); /* and the loop can run again */
    env_loop_run(loop);
    assert_true(stopper.on_loop);
}

static void test_message_left_behind_runs_when_the_loop_is_freed(void **state) {
    (void)state;
    struct stopper stopper = {.message = {.run = stop_by_message}, .loop = loop};
    env_post(loop, &stopper.message);
    env_loop_free(loop);
    loop = NULL;
    assert_true(stopper.on_loop);
}

struct chain {
    struct env_message message;
    int left;
};

static void post_on(struct env_message *message) {
    struct chain *chain = CONTAINER_OF(message, struct chain, message);
    if (--chain->left > 0) {
        env_post(loop, message);
    } else {
        env_loop_stop(loop);
    }
}

/* No timer runs here: a lost wake-up is a hang, which the alarm ends. */
static void test_loop_that_posts_to_itself_does_not_sleep_on_it(void **state) {
    (void)state;
    struct chain chain = {.message = {.run = post_on}, .left = 1000};
    (void)alarm(20);
    env_post(loop, &chain.message);
    env_loop_run(loop);
    (void)alarm(0);
    assert_int_equal(chain.left, 0);
}

/* ---- Order of a turn --------------------------------------------------------------------------------------------- */

struct turn {
    struct env_message message;
    struct env_timer timer;
    struct env_task process, flush;
    char trace[32];
    uint64_t message_now_us, timer_now_us;
};

static struct turn turn;

static void add_trace(const char *what) { strcat(turn.trace, what); }

static void on_message(struct env_message *message) {
    (void)message;
    add_trace("m");
    turn.message_now_us = env_now_us(loop);
    env_defer(loop, ENV_STAGE_FLUSH, &turn.flush);
    env_defer(loop, ENV_STAGE_PROCESS, &turn.process);
}

static void on_timer(struct env_timer *timer) {
    (void)timer;
    add_trace("t");
    turn.timer_now_us = env_now_us(loop);
}

static void on_process(struct env_task *task) {
    (void)task;
    add_trace("p");
}

static void on_flush(struct env_task *task) {
    (void)task;
    add_trace("f");
    env_loop_stop(loop);
}

static void test_turn_runs_input_then_process_then_flush(void **state) {
    (void)state;
    memset(&turn, 0, sizeof turn);
    turn.message.run = on_message;
    env_timer_init(&turn.timer, loop, on_timer);
    env_task_init(&turn.process, on_process);
    env_task_init(&turn.flush, on_flush);
    assert_int_equal(env_timer_arm(&turn.timer, 0), STATUS_OK);
    env_post(loop, &turn.message);
    env_loop_run(loop);
    assert_string_equal(turn.trace, "mtpf");
    assert_true(turn.message_now_us == turn.timer_now_us);
}

static void test_task_deferred_before_the_run_is_not_slept_on(void **state) {
    (void)state;
    memset(&turn, 0, sizeof turn);
    env_task_init(&turn.flush, on_flush);
    env_defer(loop, ENV_STAGE_FLUSH, &turn.flush);
    env_loop_run(loop);
    assert_string_equal(turn.trace, "f");
}

static void stop_by_timer(struct env_timer *timer) { env_loop_stop(timer->loop); }

static void test_timer_runs_not_before_its_deadline(void **state) {
    (void)state;
    struct env_timer timer;
    env_timer_init(&timer, loop, stop_by_timer);
    for (uint64_t delay_us = 100; delay_us < 12000; delay_us = delay_us * 3) {
        uint64_t deadline_us = env_clock_us(env) + delay_us;
        assert_int_equal(env_timer_arm(&timer, deadline_us), STATUS_OK);
        env_loop_run(loop);
        uint64_t now_us = env_clock_us(env);
        assert_true(env_now_us(loop) >= deadline_us);
        assert_in_range(now_us, deadline_us, deadline_us + 1000000);
    }
    uint64_t turns = env_os_get_loop_stats(loop).turns;
    assert_in_range(turns, 1, 100); /* it sleeps, it doesn't spin */
}

/* ---- Workers ----------------------------------------------------------------------------------------------------- */

struct job {
    struct env_work work;
    enum env_work_class class;
    int policy;
    pthread_t ran_on;
    bool done, done_on_loop;
};

static void run_job(struct env_work *work) {
    struct job *job = CONTAINER_OF(work, struct job, work);
    job->ran_on = pthread_self();
    job->policy = sched_getscheduler(0);
    env_sleep_us(env, 1000); /* a worker may */
}

static void finish_job(struct env_work *work) {
    struct job *job = CONTAINER_OF(work, struct job, work);
    job->done = true;
    job->done_on_loop = env_on_loop(loop);
}

static void submit_job(struct job *job, enum env_work_class class) {
    *job = (struct job){.work = {.run = run_job, .done = finish_job, .loop = loop}, .class = class};
    env_work_submit(env, class, &job->work);
}

static bool all_done(void *context) {
    const struct job *jobs = context;
    bool done = true;
    for (int i = 0; i < 8; i++) {
        done = done && jobs[i].done;
    }
    return done;
}

static void test_workers_of_both_classes_run_jobs_off_the_loop_and_end_on_it(void **state) {
    (void)state;
    struct job jobs[8];
    for (int i = 0; i < 8; i++) {
        submit_job(&jobs[i], i % 2 == 0 ? ENV_WORK_SHORT : ENV_WORK_LONG);
    }
    assert_true(test_loop_until(loop, all_done, jobs, 5000));
    for (int i = 0; i < 8; i++) {
        assert_true(jobs[i].done_on_loop);
        assert_false(pthread_equal(jobs[i].ran_on, pthread_self()));
        if (jobs[i].class == ENV_WORK_LONG) {
            assert_int_equal(jobs[i].policy, SCHED_BATCH);
        }
    }
}

static void test_job_under_way_is_waited_for_when_the_loop_is_freed(void **state) {
    (void)state;
    struct job job;
    submit_job(&job, ENV_WORK_LONG);
    env_loop_free(loop);
    loop = NULL;
    assert_true(job.done && job.ran_on != 0);
}

/* ---- Events, signals --------------------------------------------------------------------------------------------- */

static void *set_event_soon(void *event) {
    env_sleep_us(env, 3000);
    env_event_set(event);
    return NULL;
}

static void test_event_wakes_once_and_times_out(void **state) {
    (void)state;
    struct env_event *event;
    assert_int_equal(env_event_new(env, &event), STATUS_OK);
    uint64_t before_us = env_clock_us(env);
    assert_int_equal(env_event_wait(event, 2500), STATUS_TIMEOUT);
    assert_true(env_clock_us(env) - before_us >= 2500);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, set_event_soon, event), 0);
    assert_int_equal(env_event_wait(event, UINT64_MAX), STATUS_OK);
    assert_int_equal(env_event_wait(event, 0), STATUS_TIMEOUT); /* consumed */
    assert_int_equal(pthread_join(thread, NULL), 0);
    env_event_set(event);
    env_event_set(event);
    assert_int_equal(env_event_wait(event, 0), STATUS_OK);
    assert_int_equal(env_event_wait(event, 0), STATUS_TIMEOUT);
    env_event_free(event);
}

static void note_signal(void *context, int signum) { *(bool *)context = signum == SIGHUP; }

static void test_signal_calls_back_on_the_loop(void **state) {
    (void)state;
    bool arrived = false;
    struct error err;
    assert_int_equal(env_os_on_signal(loop, SIGHUP, note_signal, &arrived, &err), STATUS_OK);
    assert_int_equal(kill(getpid(), SIGHUP), 0);
    assert_true(test_loop_until_set(loop, &arrived, 2000));
}

/* ---- Calls that must not be made --------------------------------------------------------------------------------- */

enum forbidden { FORBID_NOTHING, FORBID_SLEEP, FORBID_OPEN, FORBID_EVENT };

struct attempt {
    struct env_message message;
    struct env *env;
    struct env_loop *loop;
    enum forbidden what;
};

static void try_forbidden(struct env_message *message) {
    struct attempt *attempt = CONTAINER_OF(message, struct attempt, message);
    struct env_file *file = NULL;
    struct env_event *event = NULL;
    struct error err;
    switch (attempt->what) {
    case FORBID_NOTHING: break;
    case FORBID_SLEEP: env_sleep_us(attempt->env, 1); break;
    case FORBID_OPEN: (void)!env_open(attempt->env, "/dev/null", ENV_OPEN_READ, &file, &err); break;
    case FORBID_EVENT:
        (void)!env_event_new(attempt->env, &event);
        (void)!env_event_wait(event, 1);
        break;
    }
    env_loop_stop(attempt->loop);
}

/* In a child process. */
static void attempt_in_child(void *context) {
    struct attempt attempt = {.message = {.run = try_forbidden}, .what = *(enum forbidden *)context};
    struct error err;
    make_env(&attempt.env);
    assert_int_equal(env_loop_new(attempt.env, "child", 1, &attempt.loop, &err), STATUS_OK);
    env_post(attempt.loop, &attempt.message);
    env_loop_run(attempt.loop);
}

static void test_blocking_call_on_a_loop_aborts(void **state) {
    (void)state;
    test_alloc_init(&memory);
    enum forbidden what = FORBID_NOTHING;
    assert_false(test_aborts(attempt_in_child, &what));
    for (what = FORBID_SLEEP; what <= FORBID_EVENT; what++) {
        assert_true(test_aborts(attempt_in_child, &what));
    }
}

static void test_env_without_memory_fails_cleanly(void **state) {
    (void)state;
    test_alloc_init(&memory);
    const struct env_os_options options = {.alloc = &memory.base, .workers_short = 1, .workers_long = 1};
    struct error err;
    for (uint64_t n = 1; n < 20; n++) {
        struct env *made = NULL;
        struct env_loop *made_loop = NULL;
        test_alloc_fail(&memory, n, false);
        enum status status = env_os_new(&options, &made, &err);
        if (status == STATUS_OK) {
            status = env_loop_new(made, "test", 1, &made_loop, &err);
        }
        env_loop_free(made_loop);
        env_os_free(made);
        assert_int_equal(memory.live_blocks, 0);
        if (status == STATUS_OK) {
            return;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
    }
    fail_msg("it never had enough");
}

#define WITH_LOOP(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocking_call_on_a_loop_aborts), /* first: it forks, and there are no threads yet */
        cmocka_unit_test(test_env_without_memory_fails_cleanly),
        WITH_LOOP(test_clocks_and_random_are_sane),
        WITH_LOOP(test_spawned_loop_runs_messages_on_its_own_thread_and_stops),
        WITH_LOOP(test_stop_before_run_still_runs_the_messages_of_one_turn),
        WITH_LOOP(test_message_left_behind_runs_when_the_loop_is_freed),
        WITH_LOOP(test_loop_that_posts_to_itself_does_not_sleep_on_it),
        WITH_LOOP(test_turn_runs_input_then_process_then_flush),
        WITH_LOOP(test_task_deferred_before_the_run_is_not_slept_on),
        WITH_LOOP(test_timer_runs_not_before_its_deadline),
        WITH_LOOP(test_workers_of_both_classes_run_jobs_off_the_loop_and_end_on_it),
        WITH_LOOP(test_job_under_way_is_waited_for_when_the_loop_is_freed),
        WITH_LOOP(test_event_wakes_once_and_times_out),
        WITH_LOOP(test_signal_calls_back_on_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
