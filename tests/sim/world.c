/*
 * The world: virtual time, its heap of events, the choice of who runs next, and the hash over all that happened.
 *
 * Invariants: now_us never goes back; events[i]->slot == i; while a fiber runs, sim->current is it and no event runs.
 */
#include "node/base/checksum.h"
#include "tests/sim/sim_internal.h"

#include <stdlib.h>
#include <string.h>

enum { CAPACITY_FIRST = 64, HASH_SEED = 0x484f4c44 };

static const char *const trace_names[SIM_TRACE_COUNT] = {
#define SIM_TRACE_NAME(suffix, name) [SIM_TRACE_##suffix] = name,
    SIM_TRACE_TABLE(SIM_TRACE_NAME)
#undef SIM_TRACE_NAME
};

const char *sim_trace_name(enum sim_trace_kind kind) {
    CHECK(kind < SIM_TRACE_COUNT);
    return trace_names[kind];
}

void *sim__alloc(size_t size) {
    void *block = calloc(1, size);
    CHECK(block != NULL);
    return block;
}

void sim__free(void *ptr) { free(ptr); }

/* ---- Events ----------------------------------------------------------------------------------------------------- */

static bool event_before(const struct sim_event *a, const struct sim_event *b) {
    return a->time_us != b->time_us ? a->time_us < b->time_us : a->sequence < b->sequence;
}

static void event_place(struct sim *sim, uint32_t slot, struct sim_event *event) {
    sim->events[slot] = event;
    event->slot = slot;
}

/* The slot is free; puts the event there, or above or below it. */
static void event_settle(struct sim *sim, uint32_t slot, struct sim_event *event) {
    for (; slot > 1 && event_before(event, sim->events[slot / 2]); slot /= 2) {
        event_place(sim, slot, sim->events[slot / 2]);
    }
    for (uint32_t child = slot * 2; child <= sim->event_count; child = slot * 2) {
        if (child < sim->event_count && event_before(sim->events[child + 1], sim->events[child])) {
            child++;
        }
        if (!event_before(sim->events[child], event)) {
            break;
        }
        event_place(sim, slot, sim->events[child]);
        slot = child;
    }
    event_place(sim, slot, event);
}

void sim__event_schedule(struct sim *sim, struct sim_event *event, uint64_t time_us) {
    CHECK(event->run != NULL);
    sim__event_cancel(sim, event);
    if (sim->event_count + 1 >= sim->event_capacity) {
        sim->event_capacity = sim->event_capacity == 0 ? CAPACITY_FIRST : sim->event_capacity * 2;
        sim->events = realloc(sim->events, sim->event_capacity * sizeof(struct sim_event *));
        CHECK(sim->events != NULL);
    }
    event->time_us = time_us > sim->now_us ? time_us : sim->now_us;
    event->sequence = sim->event_sequence++;
    sim->event_count++;
    event_settle(sim, sim->event_count, event);
}

void sim__event_cancel(struct sim *sim, struct sim_event *event) {
    uint32_t slot = event->slot;
    if (slot == 0) {
        return;
    }
    CHECK(slot <= sim->event_count && sim->events[slot] == event);
    event->slot = 0;
    struct sim_event *last = sim->events[sim->event_count--];
    if (last != event) {
        event_settle(sim, slot, last);
    }
}

/* ---- The host's calls ------------------------------------------------------------------------------------------- */

struct sim_call {
    struct list link;
    struct sim *sim;
    struct sim_event event;
    void (*run)(void *context);
    void *context;
};

static void call_run(struct sim_event *event) {
    struct sim_call *call = CONTAINER_OF(event, struct sim_call, event);
    void (*run)(void *context) = call->run;
    void *context = call->context;
    sim__note(call->sim, NULL, SIM_TRACE_CALL, 0, 0, "");
    list_remove(&call->link);
    sim__free(call);
    run(context);
}

void sim_call_at(struct sim *sim, uint64_t time_us, void (*run)(void *context), void *context) {
    CHECK(run != NULL);
    struct sim_call *call = sim__alloc(sizeof *call);
    *call = (struct sim_call){.sim = sim, .event = {.run = call_run}, .run = run, .context = context};
    list_push_back(&sim->calls, &call->link);
    sim__event_schedule(sim, &call->event, time_us);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

void sim_options_init(struct sim_options *options) {
    *options = (struct sim_options){
        .turn_us_max = 20,
        .preempt_us_max = 2000,
        .stack_bytes = 256 * KIB,
        .network =
            {
                .delay_us_min = 30,
                .delay_us_max = 300,
                .slow_ppm = 1000,
                .slow_us_max = 20 * 1000,
                .segment_bytes_max = 64 * KIB,
                .pipe_bytes_max = 256 * KIB,
                .bytes_per_ms = 1000 * 1000,
                .connect_timeout_us = 5 * 1000 * 1000,
                .silence_timeout_us = 10 * 1000 * 1000,
                .heal_backoff_us_max = 2 * 1000 * 1000,
            },
    };
}

struct sim *sim_new(uint64_t seed, const struct sim_options *options) {
    CHECK(options->turn_us_max > 0 && options->stack_bytes >= 64 * KIB);
    struct sim *sim = sim__alloc(sizeof *sim);
    sim->options = *options;
    sim->seed = seed;
    sim->hash = checksum64(&seed, sizeof seed, HASH_SEED);
    random_seed(&sim->schedule, seed);
    random_seed(&sim->host, seed ^ 0x686f7374);
    list_init(&sim->calls);
    sim->network = sim__network_new(sim);
    return sim;
}

void sim_free(struct sim *sim) {
    if (sim == NULL) {
        return;
    }
    CHECK(sim->current == NULL);
    for (uint32_t i = 0; i < sim->node_count; i++) {
        if (sim->nodes[i]->state == NODE_UP) {
            sim__node_crash(sim->nodes[i], SIM_CRASH_PROCESS, -1);
        }
    }
    sim__network_free(sim->network);
    for (uint32_t i = 0; i < sim->node_count; i++) {
        sim__disk_free(sim->nodes[i]->disk);
        sim__free(sim->nodes[i]);
    }
    LIST_FOREACH (link, &sim->calls) {
        struct sim_call *call = LIST_ENTRY(link, struct sim_call, link);
        sim__event_cancel(sim, &call->event);
        sim__free(call);
    }
    CHECK(sim->event_count == 0 && sim->ready_count == 0);
    sim__stacks_free(sim);
    free(sim->events);
    free(sim->ready);
    sim__free(sim);
}

uint64_t sim_now_us(const struct sim *sim) { return sim->now_us; }
uint64_t sim_random(struct sim *sim) { return random_next(&sim->host); }
uint64_t sim_hash(const struct sim *sim) { return sim->hash; }
void sim_get_stats(const struct sim *sim, struct sim_stats *ret_stats) { *ret_stats = sim->stats; }

void sim__note(struct sim *sim, const struct sim_node *node, enum sim_trace_kind kind, uint64_t a, uint64_t b,
               const char *text) {
    uint64_t words[5] = {sim->now_us, (uint64_t)kind, node == NULL ? UINT64_MAX : node->index, a, b};
    sim->hash = checksum64(words, sizeof words, sim->hash);
    if (text[0] != '\0') {
        sim->hash = checksum64(text, strlen(text), sim->hash);
    }
    if (sim->options.trace != NULL) {
        struct sim_trace trace = {
            .time_us = sim->now_us, .kind = kind, .node = node == NULL ? "" : node->name, .a = a, .b = b, .text = text};
        sim->options.trace(sim->options.trace_context, &trace);
    }
}

uint64_t sim__draw_us(struct random *random, uint64_t max_us, uint32_t slow_ppm, uint64_t slow_max_us) {
    uint64_t bound = random_chance(random, slow_ppm, PPM) && slow_max_us > max_us ? slow_max_us : max_us;
    return 1 + random_below(random, bound > 0 ? bound : 1);
}

/* ---- Steps ------------------------------------------------------------------------------------------------------ */

/* Time jumps to the next instant at which something happens; all of it happens. */
static void run_events(struct sim *sim) {
    struct sim_event *event = sim->events[1];
    CHECK(event->time_us >= sim->now_us);
    sim->now_us = event->time_us;
    while (sim->event_count > 0 && sim->events[1]->time_us <= sim->now_us) {
        event = sim->events[1];
        sim__event_cancel(sim, event);
        event->run(event); /* it may be freed by now */
    }
}

bool sim_step(struct sim *sim) {
    CHECK(sim->current == NULL);
    if (sim->ready_count == 0 && sim->event_count == 0) {
        return false;
    }
    sim->stats.steps++;
    if (sim->ready_count == 0) {
        run_events(sim);
        return true;
    }
    sim__fiber_resume(sim, sim->ready[random_below(&sim->schedule, sim->ready_count)]);
    if (sim->exiting != NULL) {
        struct sim_node *node = sim->exiting;
        sim->exiting = NULL;
        sim__node_crash(node, SIM_CRASH_PROCESS, sim->exit_code);
    }
    return true;
}

enum sim_end sim_run_until(struct sim *sim, uint64_t deadline_us, bool (*done)(void *context), void *context,
                           uint64_t step_count_max) {
    CHECK(sim->current == NULL);
    for (uint64_t step = 0; step < step_count_max; step++) {
        if (done != NULL && done(context)) {
            return SIM_END_PREDICATE;
        }
        bool later = sim->ready_count == 0 && (sim->event_count == 0 || sim->events[1]->time_us > deadline_us);
        if (later && deadline_us != UINT64_MAX) {
            sim->now_us = deadline_us > sim->now_us ? deadline_us : sim->now_us;
            return SIM_END_DEADLINE;
        }
        if (!sim_step(sim)) {
            return SIM_END_IDLE;
        }
    }
    return SIM_END_STEPS;
}

void sim__host_wait(struct sim *sim, uint64_t deadline_us, bool (*done)(void *context), void *context) {
    enum sim_end end = sim_run_until(sim, deadline_us, done, context, UINT64_MAX);
    CHECK(end == SIM_END_PREDICATE || end == SIM_END_DEADLINE);
}
