/*
 * Deferred tasks and the mailbox of a loop, without threads. Breaks if a stage runs before the one ahead of it is
 * empty, if a task runs twice for two requests, if a task that defers itself is lost, if messages change their order,
 * or if the bound is not kept.
 */
#include "node/env/env_loop_internal.h"
#include "tests/unit/support/support.h"

#include <string.h>

static uint64_t fake_clock_us(struct env *env) {
    (void)env;
    return 0;
}

static int wakes;

static void count_wake(struct env_loop *loop) {
    (void)loop;
    wakes++;
}

static const struct env_ops fake_ops = {.clock_us = fake_clock_us, .loop_wake = count_wake};
static struct test_alloc memory;
static struct env fake_env = {.ops = &fake_ops, .alloc = &memory.base};
static struct env_loop loop;
static char trace[64];

static void add_trace(char letter) {
    size_t len = strlen(trace);
    assert_true(len + 1 < sizeof trace);
    trace[len] = letter;
    trace[len + 1] = '\0';
}

static int setup(void **state) {
    (void)state;
    test_alloc_init(&memory);
    trace[0] = '\0';
    wakes = 0;
    env__loop_init(&loop, &fake_env, 3);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    env__loop_deinit(&loop);
    return 0;
}

/* ---- Tasks ------------------------------------------------------------------------------------------------------- */

struct step {
    struct env_task task;
    char letter;
    struct step *defers;  /* run defers this one ... */
    enum env_stage stage; /* ... in this stage ... */
    int times;            /* ... so many times in all */
    struct step *cancels;
};

static void run_step(struct env_task *task) {
    struct step *step = CONTAINER_OF(task, struct step, task);
    add_trace(step->letter);
    if (step->cancels != NULL) {
        env_task_cancel(&step->cancels->task);
    }
    if (step->defers != NULL && step->times-- > 0) {
        env_defer(&loop, step->stage, &step->defers->task);
    }
}

static void step_init(struct step *step, char letter) {
    *step = (struct step){.letter = letter};
    env_task_init(&step->task, run_step);
}

static void test_tasks_process_comes_before_flush(void **state) {
    (void)state;
    struct step flush, first, second;
    step_init(&flush, 'f');
    step_init(&first, '1');
    step_init(&second, '2');
    env_defer(&loop, ENV_STAGE_FLUSH, &flush.task);
    env_defer(&loop, ENV_STAGE_PROCESS, &first.task);
    env_defer(&loop, ENV_STAGE_PROCESS, &second.task);
    env_defer(&loop, ENV_STAGE_PROCESS, &first.task); /* once per turn */
    assert_true(env__loop_has_tasks(&loop));
    env__loop_run_tasks(&loop);
    assert_string_equal(trace, "12f");
    assert_false(env__loop_has_tasks(&loop));
}

static void test_task_that_defers_itself_runs_again_in_the_same_turn(void **state) {
    (void)state;
    struct step step, flush;
    step_init(&step, 'p');
    step_init(&flush, 'f');
    step.defers = &step;
    step.stage = ENV_STAGE_PROCESS;
    step.times = 2;
    env_defer(&loop, ENV_STAGE_FLUSH, &flush.task);
    env_defer(&loop, ENV_STAGE_PROCESS, &step.task);
    env__loop_run_tasks(&loop);
    assert_string_equal(trace, "pppf");
}

static void test_flush_that_defers_process_is_followed_by_it(void **state) {
    (void)state;
    struct step flush, other, process;
    step_init(&flush, 'f');
    step_init(&other, 'g');
    step_init(&process, 'p');
    flush.defers = &process;
    flush.stage = ENV_STAGE_PROCESS;
    flush.times = 1;
    process.defers = &flush;
    process.stage = ENV_STAGE_FLUSH;
    process.times = 1;
    env_defer(&loop, ENV_STAGE_FLUSH, &flush.task);
    env_defer(&loop, ENV_STAGE_FLUSH, &other.task);
    env__loop_run_tasks(&loop);
    assert_string_equal(trace, "fgpf");
}

static void test_task_cancelled_does_not_run_and_can_be_deferred_again(void **state) {
    (void)state;
    struct step first, second;
    step_init(&first, '1');
    step_init(&second, '2');
    first.cancels = &second;
    env_defer(&loop, ENV_STAGE_PROCESS, &first.task);
    env_defer(&loop, ENV_STAGE_PROCESS, &second.task);
    env__loop_run_tasks(&loop);
    assert_string_equal(trace, "1");
    env_defer(&loop, ENV_STAGE_PROCESS, &second.task);
    env__loop_run_tasks(&loop);
    assert_string_equal(trace, "12");
}

/* ---- Messages ---------------------------------------------------------------------------------------------------- */

struct letter {
    struct env_message message;
    char letter;
    struct letter *posts;
};

static void run_letter(struct env_message *message) {
    struct letter *letter = CONTAINER_OF(message, struct letter, message);
    add_trace(letter->letter);
    if (letter->posts != NULL) {
        env_post(&loop, &letter->posts->message);
    }
}

static void letter_init(struct letter *letter, char name) {
    *letter = (struct letter){.message = {.run = run_letter}, .letter = name};
}

static void test_messages_keep_order_and_wake_once(void **state) {
    (void)state;
    struct letter letters[4];
    for (int i = 0; i < 4; i++) {
        letter_init(&letters[i], (char)('a' + i));
        env_post(&loop, &letters[i].message);
    }
    assert_int_equal(wakes, 1);
    assert_int_equal(env__loop_run_messages(&loop), 4);
    assert_string_equal(trace, "abcd");
    assert_false(env__loop_has_messages(&loop));
}

static void test_message_posted_by_a_message_waits_for_the_next_turn_and_wakes(void **state) {
    (void)state;
    struct letter first, second;
    letter_init(&first, 'a');
    letter_init(&second, 'b');
    first.posts = &second;
    env_post(&loop, &first.message);
    assert_int_equal(env__loop_run_messages(&loop), 1);
    assert_string_equal(trace, "a");
    assert_int_equal(wakes, 2);
    assert_int_equal(env__loop_run_messages(&loop), 1);
    assert_string_equal(trace, "ab");
}

static void test_mailbox_full_answers_busy_until_a_message_ran(void **state) {
    (void)state;
    struct letter letters[6];
    for (int i = 0; i < 6; i++) {
        letter_init(&letters[i], (char)('a' + i));
    }
    assert_int_equal(env_post_bounded(&loop, &letters[0].message), STATUS_OK);
    env_post(&loop, &letters[1].message); /* doesn't count */
    assert_int_equal(env_post_bounded(&loop, &letters[2].message), STATUS_OK);
    assert_int_equal(env_post_bounded(&loop, &letters[3].message), STATUS_OK);
    assert_int_equal(env_post_bounded(&loop, &letters[4].message), STATUS_BUSY);
    env_post(&loop, &letters[5].message); /* never refused */
    assert_int_equal(env__loop_run_messages(&loop), 5);
    assert_string_equal(trace, "abcdf");
    assert_int_equal(env_post_bounded(&loop, &letters[4].message), STATUS_OK);
    assert_int_equal(env__loop_run_messages(&loop), 1);
    assert_int_equal(atomic_load(&loop.mailbox.counted), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tasks_process_comes_before_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_task_that_defers_itself_runs_again_in_the_same_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_that_defers_process_is_followed_by_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_task_cancelled_does_not_run_and_can_be_deferred_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages_keep_order_and_wake_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_message_posted_by_a_message_waits_for_the_next_turn_and_wakes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_mailbox_full_answers_busy_until_a_message_ran, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
