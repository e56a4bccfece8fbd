/*
 * Timers of a loop: a binary heap of embedded timers, ordered by deadline, ties by order of arming.
 *
 * A deadline in the past counts as now. So a timer that re-arms itself from its own run comes after every timer that is
 * due already, and env__loop_run_timers, which leaves those armed since it began for the next turn, always ends and
 * starves nobody.
 *
 * Invariant: timers[i]->heap_slot == i for 1 <= i <= timer_count; slot 0 is unused and means "not armed".
 */
#include "node/base/check.h"
#include "node/env/env_loop_internal.h"

enum { CAPACITY_FIRST = 16 };

static bool runs_before(const struct env_timer *a, const struct env_timer *b) {
    return a->deadline_us != b->deadline_us ? a->deadline_us < b->deadline_us : a->sequence < b->sequence;
}

static void place(struct env_loop *loop, uint32_t slot, struct env_timer *timer) {
    loop->timers[slot] = timer;
    timer->heap_slot = slot;
}

/* Puts the timer at the free slot, or above or below it where it belongs. */
static void settle(struct env_loop *loop, uint32_t slot, struct env_timer *timer) {
    while (slot > 1 && runs_before(timer, loop->timers[slot / 2])) {
        place(loop, slot, loop->timers[slot / 2]);
        slot /= 2;
    }
    for (;;) {
        uint32_t child = slot * 2;
        if (child < loop->timer_count && runs_before(loop->timers[child + 1], loop->timers[child])) {
            child++;
        }
        if (child > loop->timer_count || !runs_before(loop->timers[child], timer)) {
            break;
        }
        place(loop, slot, loop->timers[child]);
        slot = child;
    }
    place(loop, slot, timer);
}

static enum status grow(struct env_loop *loop) {
    uint32_t capacity = loop->timer_capacity == 0 ? CAPACITY_FIRST : loop->timer_capacity * 2;
    CHECK(capacity > loop->timer_capacity);
    struct env_timer **timers = mem_resize(loop->env->alloc, loop->timers, capacity * sizeof(struct env_timer *));
    if (timers == NULL) {
        return STATUS_NO_MEMORY;
    }
    loop->timers = timers;
    loop->timer_capacity = capacity;
    return STATUS_OK;
}

void env_timer_init(struct env_timer *timer, struct env_loop *loop, void (*run)(struct env_timer *timer)) {
    CHECK(loop != NULL && run != NULL);
    *timer = (struct env_timer){.loop = loop, .run = run};
}

enum status env_timer_arm(struct env_timer *timer, uint64_t deadline_us) {
    struct env_loop *loop = timer->loop;
    uint32_t slot = timer->heap_slot;
    if (slot == 0) {
        if (loop->timer_count + 1 >= loop->timer_capacity && grow(loop) != STATUS_OK) {
            return STATUS_NO_MEMORY;
        }
        slot = ++loop->timer_count;
    }
    uint64_t now_us = env_now_us(loop);
    timer->deadline_us = deadline_us > now_us ? deadline_us : now_us;
    timer->sequence = loop->timer_sequence++;
    settle(loop, slot, timer);
    if (loop->timers[1] == timer) {
        env__loop_changed(loop);
    }
    return STATUS_OK;
}

void env_timer_cancel(struct env_timer *timer) {
    uint32_t slot = timer->heap_slot;
    if (slot == 0) {
        return;
    }
    struct env_loop *loop = timer->loop;
    CHECK(slot <= loop->timer_count && loop->timers[slot] == timer);
    timer->heap_slot = 0;
    struct env_timer *last = loop->timers[loop->timer_count--];
    if (last != timer) {
        settle(loop, slot, last);
    }
}

bool env_timer_is_armed(const struct env_timer *timer) { return timer->heap_slot != 0; }

void env__loop_run_timers(struct env_loop *loop) {
    uint64_t sequence_end = loop->timer_sequence;
    while (loop->timer_count > 0) {
        struct env_timer *timer = loop->timers[1];
        if (timer->deadline_us > loop->now_us || timer->sequence >= sequence_end) {
            break;
        }
        env_timer_cancel(timer);
        timer->run(timer); /* it may be freed by now */
    }
}

uint64_t env__loop_next_deadline_us(const struct env_loop *loop) {
    return loop->timer_count > 0 ? loop->timers[1]->deadline_us : UINT64_MAX;
}
