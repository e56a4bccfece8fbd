/*
 * What blocks besides files: worker jobs, sleeps, events that outside threads wait for, and words of memory, which
 * locks are made of.
 *
 * A worker is a fiber that takes jobs of its class until none is left; a bounded number per class and node exists at
 * once, so the other jobs wait, in order of submission. The end of a job is posted to its loop.
 */
#include "tests/sim/sim_internal.h"

enum { START_US_MAX = 50 };

/* ---- Workers ---------------------------------------------------------------------------------------------------- */

static void work_done(struct env_message *message) {
    struct env_work *work = CONTAINER_OF(message, struct env_work, message);
    work->done(work);
}

static void worker_main(void *argument) {
    struct sim_worker *worker = argument;
    struct sim_node *node = worker->node;
    struct list *link;
    while ((link = list_pop_front(&node->work_queue[worker->work_class])) != NULL) {
        struct env_work *work = LIST_ENTRY(link, struct env_work, link);
        sim__note(node->sim, node, SIM_TRACE_WORK, (uint64_t)worker->work_class, node->sim->current->id, "");
        work->run(work);
        work->message.run = work_done;
        env_post(work->loop, &work->message); /* the work may be freed from now on */
        sim__fiber_wait_until(node->sim, node->sim->now_us);
    }
    CHECK(node->work_running[worker->work_class] > 0);
    node->work_running[worker->work_class]--;
}

void sim__work_submit(struct env *env, enum env_work_class work_class, struct env_work *work) {
    struct sim_node *node = sim__node_of(env);
    struct sim *sim = node->sim;
    CHECK(sim__node_of(work->loop->env) == node);
    list_push_back(&node->work_queue[work_class], &work->link);
    unsigned worker_max = work_class == ENV_WORK_SHORT ? node->options.workers_short : node->options.workers_long;
    if (node->work_running[work_class] < worker_max) {
        node->work_running[work_class]++;
        uint64_t start_us = sim->now_us + 1 + random_below(&sim->schedule, START_US_MAX);
        (void)sim__fiber_new(node, worker_main, &node->workers[work_class], false, start_us);
    }
}

/* ---- Sleeps ----------------------------------------------------------------------------------------------------- */

void sim__check_may_block(const struct sim_node *node) {
    struct sim_fiber *current = node->sim->current;
    CHECK(current == NULL || (!current->is_loop && current->node == node));
}

void sim__sleep_us(struct env *env, uint64_t us) {
    struct sim_node *node = sim__node_of(env);
    struct sim *sim = node->sim;
    sim__check_may_block(node);
    uint64_t end_us = sim__node_world_time_us(node, sim__node_clock_us(node) + us);
    if (sim->current == NULL) {
        sim__host_wait(sim, end_us, NULL, NULL);
    } else {
        sim__fiber_sleep_until(sim, end_us);
    }
}

/* ---- Events ----------------------------------------------------------------------------------------------------- */

struct env_event {
    struct env *env; /* first: env.c looks here */
    bool set;
    struct sim_fiber *waiter;
};

enum status sim__event_new(struct env *env, struct env_event **ret_event) {
    struct env_event *event = mem_alloc_zero(env->alloc, sizeof *event);
    if (event == NULL) {
        return STATUS_NO_MEMORY;
    }
    event->env = env;
    *ret_event = event;
    return STATUS_OK;
}

void sim__event_free(struct env_event *event) {
    CHECK(event->waiter == NULL);
    mem_free(event->env->alloc, event);
}

void sim__event_set(struct env_event *event) {
    event->set = true;
    if (event->waiter != NULL) {
        sim__fiber_wake(event->waiter);
    }
}

static bool event_is_set(void *context) { return ((struct env_event *)context)->set; }

enum status sim__event_wait(struct env_event *event, uint64_t timeout_us) {
    struct sim_node *node = sim__node_of(event->env);
    struct sim *sim = node->sim;
    sim__check_may_block(node);
    uint64_t end_us = timeout_us > UINT64_MAX - sim->now_us ? UINT64_MAX : sim->now_us + timeout_us;
    if (sim->current == NULL) {
        sim__host_wait(sim, end_us, event_is_set, event);
    } else {
        CHECK(event->waiter == NULL);
        event->waiter = sim->current;
        while (!event->set && sim->now_us < end_us) {
            if (end_us == UINT64_MAX) {
                sim__fiber_wait(sim);
            } else {
                sim__fiber_wait_until(sim, end_us);
            }
        }
        event->waiter = NULL;
    }
    if (!event->set) {
        return STATUS_TIMEOUT;
    }
    event->set = false;
    return STATUS_OK;
}

/* ---- Words of memory -------------------------------------------------------------------------------------------- */

struct word_wait {
    const _Atomic uint32_t *word;
    uint32_t expected;
};

static bool word_changed(void *context) {
    const struct word_wait *wait = context;
    return atomic_load_explicit(wait->word, memory_order_relaxed) != wait->expected;
}

/* A loop's fiber may sleep here, too, within its turn: as its thread would. */
void sim__word_wait(struct env *env, const _Atomic uint32_t *word, uint32_t expected, bool may_block) {
    struct sim_node *node = sim__node_of(env);
    struct sim *sim = node->sim;
    struct word_wait wait = {.word = word, .expected = expected};
    if (may_block) {
        sim__check_may_block(node);
    }
    if (word_changed(&wait)) {
        return;
    }
    if (sim->current == NULL) {
        sim__host_wait(sim, UINT64_MAX, word_changed, &wait);
        return;
    }
    struct sim_fiber *fiber = sim->current;
    fiber->sleeps_on = word;
    sim__fiber_wait(sim);
    fiber->sleeps_on = NULL;
}

/* Any of those that sleep on it: the kernel promises no order. */
void sim__word_wake(struct env *env, const _Atomic uint32_t *word) {
    struct sim_node *node = sim__node_of(env);
    struct sim_fiber *chosen = NULL;
    uint64_t count = 0;
    LIST_FOREACH (link, &node->fibers) {
        struct sim_fiber *fiber = LIST_ENTRY(link, struct sim_fiber, link);
        if (fiber->sleeps_on == word && (count++ == 0 || random_chance(&node->sim->schedule, 1, count))) {
            chosen = fiber;
        }
    }
    if (chosen != NULL) {
        chosen->sleeps_on = NULL;
        sim__fiber_wake(chosen);
    }
}
