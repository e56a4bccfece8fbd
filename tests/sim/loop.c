/*
 * Loops: turns as env.h orders them, each on the loop's fiber.
 *
 *   new --run, spawn--> running --stop--> stopped --free-->
 *
 * A turn brings notices (streams, listeners), timers, file completions and messages, in an order drawn by seed; then
 * deferred tasks; then submissions start. The fiber waits when there is nothing left; news wake it. Before a loop runs
 * and after it stopped, whoever holds it counts as its thread.
 */
#include "tests/sim/sim_internal.h"

enum source { SOURCE_NOTICES, SOURCE_TIMERS, SOURCE_COMPLETIONS, SOURCE_MESSAGES, SOURCE_COUNT };

static void timer_event(struct sim_event *event) { sim__loop_wake(CONTAINER_OF(event, struct sim_loop, timer_event)); }

enum status sim__loop_new(struct env *env, const char *name, uint32_t mailbox_count_max, struct env_loop **ret_loop,
                          struct error *err) {
    (void)name;
    struct sim_loop *loop = mem_alloc_zero(env->alloc, sizeof *loop);
    if (loop == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "no memory for a loop");
    }
    env__loop_init(&loop->loop, env, mailbox_count_max);
    loop->node = sim__node_of(env);
    loop->timer_event.run = timer_event;
    list_init(&loop->notices);
    list_init(&loop->delivering);
    list_init(&loop->submissions);
    list_init(&loop->completions);
    list_push_back(&loop->node->loops, &loop->link);
    *ret_loop = &loop->loop;
    return STATUS_OK;
}

static void run_notices(struct sim_loop *loop) {
    list_splice_back(&loop->delivering, &loop->notices);
    struct list *link;
    while ((link = list_pop_front(&loop->delivering)) != NULL) {
        struct sim_notice *notice = LIST_ENTRY(link, struct sim_notice, link);
        notice->run(notice); /* it may be freed by now */
    }
}

static void run_source(struct sim_loop *loop, enum source source) {
    switch (source) {
    case SOURCE_NOTICES: run_notices(loop); return;
    case SOURCE_TIMERS: env__loop_run_timers(&loop->loop); return;
    case SOURCE_COMPLETIONS: sim__ios_complete(loop); return;
    case SOURCE_MESSAGES: (void)env__loop_run_messages(&loop->loop); return;
    case SOURCE_COUNT: break;
    }
    CHECK(false);
}

static void run_turn(struct sim_loop *loop) {
    struct sim *sim = loop->node->sim;
    loop->loop.now_us = sim__node_clock_us(loop->node);
    sim->stats.turns++;
    sim__note(sim, loop->node, SIM_TRACE_TURN, loop->fiber->id, loop->loop.now_us, "");
    enum source order[SOURCE_COUNT] = {SOURCE_NOTICES, SOURCE_TIMERS, SOURCE_COMPLETIONS, SOURCE_MESSAGES};
    for (uint64_t left = SOURCE_COUNT; left > 0; left--) {
        uint64_t chosen = random_below(&sim->schedule, left);
        run_source(loop, order[chosen]);
        order[chosen] = order[left - 1];
    }
    env__loop_run_tasks(&loop->loop);
    sim__ios_start(loop);
}

static bool has_news(struct sim_loop *loop) {
    return env__loop_has_messages(&loop->loop) || env__loop_has_tasks(&loop->loop) || !list_is_empty(&loop->notices) ||
           !list_is_empty(&loop->completions) || !list_is_empty(&loop->submissions);
}

static void loop_main(void *argument) {
    struct sim_loop *loop = argument;
    struct sim *sim = loop->node->sim;
    while (!loop->stop) {
        run_turn(loop);
        if (loop->stop || has_news(loop)) {
            sim__fiber_wait_until(sim, sim->now_us);
            continue;
        }
        uint64_t deadline_us = env__loop_next_deadline_us(&loop->loop);
        if (deadline_us != UINT64_MAX) {
            sim__event_schedule(sim, &loop->timer_event, sim__node_world_time_us(loop->node, deadline_us));
        }
        sim__fiber_wait(sim);
        sim__event_cancel(sim, &loop->timer_event);
    }
    loop->fiber = NULL;
    if (loop->joiner != NULL) {
        sim__fiber_wake(loop->joiner);
    }
}

void sim__loop_run(struct env_loop *env_loop) {
    struct sim_loop *loop = sim__loop_of(env_loop);
    CHECK(loop->fiber == NULL);
    loop->fiber = sim__fiber_new(loop->node, loop_main, loop, true, loop->node->sim->now_us);
}

enum status sim__loop_spawn(struct env_loop *loop, struct error *err) {
    (void)err;
    sim__loop_run(loop);
    return STATUS_OK;
}

void sim__loop_wake(struct sim_loop *loop) {
    if (loop->fiber != NULL) {
        sim__fiber_wake(loop->fiber);
    }
}

void sim__loop_wake_op(struct env_loop *loop) { sim__loop_wake(sim__loop_of(loop)); }

void sim__notify(struct sim_loop *loop, struct sim_notice *notice) {
    if (list_is_empty(&notice->link)) {
        list_push_back(&loop->notices, &notice->link);
        sim__loop_wake(loop);
    }
}

void sim__loop_stop(struct env_loop *env_loop) {
    struct sim_loop *loop = sim__loop_of(env_loop);
    loop->stop = true;
    sim__loop_wake(loop);
}

static bool has_ended(void *context) { return ((struct sim_loop *)context)->fiber == NULL; }

void sim__loop_join(struct env_loop *env_loop) {
    struct sim_loop *loop = sim__loop_of(env_loop);
    struct sim *sim = loop->node->sim;
    CHECK(!sim__on_loop(env_loop) || loop->fiber == NULL);
    if (sim->current == NULL) {
        sim__host_wait(sim, UINT64_MAX, has_ended, loop);
        return;
    }
    CHECK(loop->joiner == NULL);
    loop->joiner = sim->current;
    while (loop->fiber != NULL) {
        sim__fiber_wait(sim);
    }
    loop->joiner = NULL;
}

void sim__loop_free(struct env_loop *env_loop) {
    struct sim_loop *loop = sim__loop_of(env_loop);
    CHECK(loop->fiber == NULL && loop->joiner == NULL);
    CHECK(loop->object_count == 0);
    CHECK(env_loop->timer_count == 0 && !env__loop_has_tasks(env_loop));
    CHECK(list_is_empty(&loop->completions) && list_is_empty(&loop->submissions));
    list_remove(&loop->link);
    env__loop_deinit(env_loop);
    mem_free(env_loop->env->alloc, loop);
}

bool sim__on_loop(struct env_loop *env_loop) {
    struct sim_loop *loop = sim__loop_of(env_loop);
    struct sim_fiber *current = loop->node->sim->current;
    return loop->fiber != NULL ? current == loop->fiber : current == NULL || !current->is_loop;
}

/* The memory goes with the node's. */
void sim__loops_drop(struct sim_node *node) {
    LIST_FOREACH (link, &node->loops) {
        sim__event_cancel(node->sim, &LIST_ENTRY(link, struct sim_loop, link)->timer_event);
    }
    list_init(&node->loops);
}
