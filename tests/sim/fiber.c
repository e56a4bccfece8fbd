/*
 * Fibers: every thread of every node, on one OS thread.
 *
 *   new -> WAITING <--> READY --(chosen)--> RUNNING --(waits)--> WAITING
 *                         ^ |                  \--(run returns)--> ENDED, freed
 *                  resume | v pause
 *                        PARKED
 *
 * A slice costs CPU time: a fiber that stopped can't run again before busy_until_us, so that time moves whatever a
 * fiber does. A dropped fiber is never resumed; its stack goes back to the pool, and whatever it held in the node's
 * memory goes with the node. Stacks have a guard page below.
 */
#include "tests/sim/sim_internal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef SIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct sim_stack {
    struct sim_stack *next; /* in the pool */
    uint8_t *mapping;
    size_t mapping_bytes;
    uint8_t *bottom;
    size_t bytes;
};

/* ---- Switching, and what the address sanitizer must be told ----------------------------------------------------- */

static void switch_begin(void **ret_fake_stack, const void *bottom, size_t bytes) {
#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(ret_fake_stack, bottom, bytes);
#else
    (void)ret_fake_stack, (void)bottom, (void)bytes;
#endif
}

static void switch_end(void *fake_stack, const void **ret_bottom, size_t *ret_bytes) {
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, ret_bottom, ret_bytes);
#else
    (void)fake_stack, (void)ret_bottom, (void)ret_bytes;
#endif
}

/* swapcontext sets the signal mask by two calls of the kernel, which is a good part of a run's time; a jump doesn't. A
 * sanitizer that watches stacks must not see a jump between two of them. */
static void switch_context(struct sim_context *from, struct sim_context *to) {
#ifdef SIM_JUMPS
    if (_setjmp(from->jump) != 0) {
        return;
    }
    if (to->entered) {
        _longjmp(to->jump, 1);
    }
    to->entered = true;
    CHECK(setcontext(&to->first) == 0);
#else
    CHECK(swapcontext(&from->first, &to->first) == 0);
#endif
}

/* From the running fiber to the host; returns when the fiber is resumed, never if it has ended. */
static void switch_to_host(struct sim *sim, struct sim_fiber *fiber) {
    switch_begin(fiber->state == FIBER_ENDED ? NULL : &fiber->fake_stack, sim->host_stack, sim->host_stack_bytes);
    switch_context(&fiber->context, &sim->host_context);
    switch_end(fiber->fake_stack, &sim->host_stack, &sim->host_stack_bytes);
}

static void fiber_main(unsigned high, unsigned low) {
    struct sim_fiber *fiber = (struct sim_fiber *)(((uintptr_t)high << 32) | (uintptr_t)low);
    struct sim *sim = fiber->node->sim;
    switch_end(NULL, &sim->host_stack, &sim->host_stack_bytes);
    fiber->run(fiber->argument);
    fiber->state = FIBER_ENDED;
    switch_to_host(sim, fiber);
    CHECK(false);
}

/* ---- Stacks ----------------------------------------------------------------------------------------------------- */

static struct sim_stack *stack_take(struct sim *sim) {
    struct sim_stack *stack = sim->free_stacks;
    if (stack != NULL) {
        sim->free_stacks = stack->next;
        return stack;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    stack = sim__alloc(sizeof *stack);
    stack->bytes = (sim->options.stack_bytes + page - 1) / page * page;
    stack->mapping_bytes = stack->bytes + page;
    stack->mapping =
        mmap(NULL, stack->mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(stack->mapping != MAP_FAILED);
    CHECK(mprotect(stack->mapping, page, PROT_NONE) == 0);
    stack->bottom = stack->mapping + page;
    return stack;
}

static void stack_give(struct sim *sim, struct sim_stack *stack) {
#ifdef SIM_ASAN
    __asan_unpoison_memory_region(stack->bottom, stack->bytes); /* frames that never returned */
#endif
    stack->next = sim->free_stacks;
    sim->free_stacks = stack;
}

void sim__stacks_free(struct sim *sim) {
    while (sim->free_stacks != NULL) {
        struct sim_stack *stack = sim->free_stacks;
        sim->free_stacks = stack->next;
        CHECK(munmap(stack->mapping, stack->mapping_bytes) == 0);
        sim__free(stack);
    }
}

/* ---- Ready fibers ----------------------------------------------------------------------------------------------- */

static void ready_add(struct sim *sim, struct sim_fiber *fiber) {
    if (sim->ready_count == sim->ready_capacity) {
        sim->ready_capacity = sim->ready_capacity == 0 ? 64 : sim->ready_capacity * 2;
        sim->ready = realloc(sim->ready, sim->ready_capacity * sizeof(struct sim_fiber *));
        CHECK(sim->ready != NULL);
    }
    fiber->state = FIBER_READY;
    fiber->ready_slot = sim->ready_count;
    sim->ready[sim->ready_count++] = fiber;
}

static void ready_remove(struct sim *sim, struct sim_fiber *fiber) {
    CHECK(fiber->state == FIBER_READY && sim->ready[fiber->ready_slot] == fiber);
    struct sim_fiber *last = sim->ready[--sim->ready_count];
    sim->ready[fiber->ready_slot] = last;
    last->ready_slot = fiber->ready_slot;
}

void sim__fiber_wake(struct sim_fiber *fiber) {
    struct sim *sim = fiber->node->sim;
    if (fiber->state != FIBER_WAITING) {
        return;
    }
    if (sim->now_us < fiber->busy_until_us) {
        sim__event_schedule(sim, &fiber->wake_event, fiber->busy_until_us);
        return;
    }
    sim__event_cancel(sim, &fiber->wake_event);
    if (fiber->node->paused) {
        fiber->state = FIBER_PARKED;
    } else {
        ready_add(sim, fiber);
    }
}

static void wake_by_event(struct sim_event *event) {
    sim__fiber_wake(CONTAINER_OF(event, struct sim_fiber, wake_event));
}

void sim__fibers_park(struct sim_node *node) {
    LIST_FOREACH (link, &node->fibers) {
        struct sim_fiber *fiber = LIST_ENTRY(link, struct sim_fiber, link);
        if (fiber->state == FIBER_READY) {
            ready_remove(node->sim, fiber);
            fiber->state = FIBER_PARKED;
        }
    }
}

void sim__fibers_unpark(struct sim_node *node) {
    LIST_FOREACH (link, &node->fibers) {
        struct sim_fiber *fiber = LIST_ENTRY(link, struct sim_fiber, link);
        if (fiber->state == FIBER_PARKED) {
            ready_add(node->sim, fiber);
        }
    }
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

struct sim_fiber *sim__fiber_new(struct sim_node *node, void (*run)(void *argument), void *argument, bool is_loop,
                                 uint64_t start_us) {
    struct sim *sim = node->sim;
    struct sim_fiber *fiber = sim__alloc(sizeof *fiber);
    fiber->node = node;
    fiber->id = ++sim->fiber_sequence;
    fiber->state = FIBER_WAITING;
    fiber->is_loop = is_loop;
    fiber->run = run;
    fiber->argument = argument;
    fiber->wake_event.run = wake_by_event;
    fiber->stack = stack_take(sim);
    CHECK(getcontext(&fiber->context.first) == 0);
    fiber->context.first.uc_stack.ss_sp = fiber->stack->bottom;
    fiber->context.first.uc_stack.ss_size = fiber->stack->bytes;
    fiber->context.first.uc_link = NULL;
    uintptr_t self = (uintptr_t)fiber;
    makecontext(&fiber->context.first, (void (*)(void))fiber_main, 2, (unsigned)(self >> 32),
                (unsigned)(self & UINT32_MAX));
    list_push_back(&node->fibers, &fiber->link);
    sim__event_schedule(sim, &fiber->wake_event, start_us);
    return fiber;
}

void sim__fiber_drop(struct sim_fiber *fiber) {
    struct sim *sim = fiber->node->sim;
    CHECK(sim->current != fiber);
    if (fiber->state == FIBER_READY) {
        ready_remove(sim, fiber);
    }
    sim__event_cancel(sim, &fiber->wake_event);
    list_remove(&fiber->link);
    stack_give(sim, fiber->stack);
    sim__free(fiber);
}

void sim__fiber_resume(struct sim *sim, struct sim_fiber *fiber) {
    CHECK(sim->current == NULL);
    ready_remove(sim, fiber);
    fiber->state = FIBER_RUNNING;
    if (!fiber->is_loop) {
        sim__note(sim, fiber->node, SIM_TRACE_SLICE, fiber->id, 0, "");
    }
    sim->current = fiber;
    void *fake_stack = NULL;
    switch_begin(&fake_stack, fiber->stack->bottom, fiber->stack->bytes);
    sim->host_context.entered = true;
    switch_context(&sim->host_context, &fiber->context);
    switch_end(fake_stack, NULL, NULL);
    sim->current = NULL;
    if (fiber->state == FIBER_ENDED) {
        sim__fiber_drop(fiber);
    }
}

/* ---- On a fiber ------------------------------------------------------------------------------------------------- */

static struct sim_fiber *stop_begin(struct sim *sim) {
    struct sim_fiber *fiber = sim->current;
    CHECK(fiber != NULL && fiber->state == FIBER_RUNNING);
    fiber->state = FIBER_WAITING;
    fiber->busy_until_us = sim->now_us + 1 + random_below(&sim->schedule, sim->options.turn_us_max);
    return fiber;
}

void sim__fiber_wait(struct sim *sim) { switch_to_host(sim, stop_begin(sim)); }

void sim__fiber_wait_until(struct sim *sim, uint64_t time_us) {
    struct sim_fiber *fiber = stop_begin(sim);
    sim__event_schedule(sim, &fiber->wake_event, time_us > fiber->busy_until_us ? time_us : fiber->busy_until_us);
    switch_to_host(sim, fiber);
}

void sim__fiber_sleep_until(struct sim *sim, uint64_t time_us) {
    do {
        sim__fiber_wait_until(sim, time_us);
    } while (sim->now_us < time_us);
}
