/*
 * Deferred tasks: what a loop does once all input of the turn is in; and the parts of a loop put together.
 *
 * Each stage is a queue of embedded tasks in order of deferring. A task that is queued already stays where it is,
 * whatever stage is asked for. Tasks leave the queue before they run, so they may defer or cancel themselves and each
 * other.
 */
#include "node/base/check.h"
#include "node/env/env_loop_internal.h"

#include <string.h>

void env__loop_init(struct env_loop *loop, struct env *env, uint32_t mailbox_count_max) {
    CHECK(env != NULL && mailbox_count_max > 0);
    memset(loop, 0, sizeof *loop);
    loop->env = env;
    loop->mailbox.count_max = mailbox_count_max;
    for (int stage = 0; stage < (int)ENV_STAGE_COUNT; stage++) {
        list_init(&loop->tasks[stage]);
    }
    loop->now_us = env_clock_us(env);
}

void env__loop_deinit(struct env_loop *loop) {
    mem_free(loop->env->alloc, loop->timers);
    loop->timers = NULL;
    loop->timer_count = 0;
    loop->timer_capacity = 0;
}

void env_task_init(struct env_task *task, void (*run)(struct env_task *task)) {
    CHECK(run != NULL);
    list_init(&task->link);
    task->run = run;
    task->queued = false;
}

void env_defer(struct env_loop *loop, enum env_stage stage, struct env_task *task) {
    CHECK(stage < ENV_STAGE_COUNT);
    CHECK(task->run != NULL);
    if (!task->queued) {
        task->queued = true;
        list_push_back(&loop->tasks[stage], &task->link);
        env__loop_changed(loop);
    }
}

void env_task_cancel(struct env_task *task) {
    if (task->queued) {
        task->queued = false;
        list_remove(&task->link);
    }
}

bool env__loop_has_tasks(const struct env_loop *loop) {
    return !list_is_empty(&loop->tasks[ENV_STAGE_PROCESS]) || !list_is_empty(&loop->tasks[ENV_STAGE_FLUSH]);
}

static void run_stage(struct env_loop *loop, enum env_stage stage) {
    struct list *node;
    while ((node = list_pop_front(&loop->tasks[stage])) != NULL) {
        struct env_task *task = LIST_ENTRY(node, struct env_task, link);
        task->queued = false;
        task->run(task); /* it may be freed by now */
    }
}

void env__loop_run_tasks(struct env_loop *loop) {
    while (env__loop_has_tasks(loop)) {
        run_stage(loop, ENV_STAGE_PROCESS);
        run_stage(loop, ENV_STAGE_FLUSH);
    }
}
