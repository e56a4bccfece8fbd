/*
 * The part of a loop that every implementation shares: mailbox, deferred tasks, timer heap (node/env/mailbox.c,
 * task.c, timer.c, io.c). An implementation embeds `struct env_loop` first and calls env__loop_* from its turn.
 */
#ifndef HOLDFAST_ENV_LOOP_INTERNAL_H
#define HOLDFAST_ENV_LOOP_INTERNAL_H

#include "node/env/env.h"

/* Multi-producer, single-consumer: a lock-free stack that the consumer takes whole and reverses. One of the three
 * structures that cross threads. */
struct env_mailbox {
    _Atomic(struct env_message *) head;
    _Atomic uint32_t counted;
    uint32_t count_max;
};

struct env_loop {
    struct env *env;
    struct env_mailbox mailbox;
    struct list tasks[ENV_STAGE_COUNT];
    struct env_timer **timers; /* heap, slot 0 unused */
    uint32_t timer_count;
    uint32_t timer_capacity;
    uint64_t timer_sequence;
    uint64_t now_us;
    struct env_mutex *guard; /* NULL: none */
};

/* Around everything that a turn does. */
static inline void env__loop_lock(struct env_loop *loop) {
    if (loop->guard != NULL) {
        env_mutex_lock(loop->guard);
    }
}

static inline void env__loop_unlock(struct env_loop *loop) {
    if (loop->guard != NULL) {
        env_mutex_unlock(loop->guard);
    }
}

/* The holder of the guard changed what the loop waits for; on the loop's own thread this does nothing. */
static inline void env__loop_changed(struct env_loop *loop) {
    if (loop->guard != NULL) {
        loop->env->ops->loop_wake(loop);
    }
}

void env__loop_init(struct env_loop *loop, struct env *env, uint32_t mailbox_count_max);
void env__loop_deinit(struct env_loop *loop);
/* Takes and runs all messages that are waiting now; returns how many. */
uint32_t env__loop_run_messages(struct env_loop *loop);
/* True if a message is waiting. */
bool env__loop_has_messages(struct env_loop *loop);
/* Runs timers with deadline <= now_us. */
void env__loop_run_timers(struct env_loop *loop);
/* UINT64_MAX if none is armed. */
uint64_t env__loop_next_deadline_us(const struct env_loop *loop);
/* Stage PROCESS until empty, then FLUSH until empty; again while FLUSH deferred PROCESS. */
void env__loop_run_tasks(struct env_loop *loop);
bool env__loop_has_tasks(const struct env_loop *loop);

/* Ends io with what io->progress says, and calls done: the one way to end an io that was started. sys 0: success, which
 * for writes means progress == limit; else the errno of the failure. */
void env__io_finish(struct env_io *io, int sys);
/* Ends io with this errno in a later turn: for an io that can't be started. Owner thread. */
void env__io_fail(struct env_io *io, int sys);

#endif
