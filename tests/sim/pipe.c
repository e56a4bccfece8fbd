/*
 * One direction of a connection: segments that fly, arrive, and wait to be read.
 *
 *   push --> flying --its time--> arrived --read-->
 *              ^ |
 *      healed  | v cut off
 *             held --too long--> the sender is reset
 *
 * Segments arrive in the order of pushing, no faster than the bandwidth. What a reset dropped is never followed by
 * later bytes: the end is marked and takes nothing more.
 */
#include "tests/sim/network_internal.h"

#include <errno.h>
#include <string.h>

static void pipe_event(struct sim_event *event);
static void window_event(struct sim_event *event);

void sim__pipe_init(struct pipe *pipe, struct connection *connection) {
    pipe->connection = connection;
    list_init(&pipe->flying);
    list_init(&pipe->arrived);
    pipe->event.run = pipe_event;
    pipe->window.run = window_event;
}

static void drop_segments(struct pipe *pipe, struct list *segments) {
    struct list *link;
    while ((link = list_pop_front(segments)) != NULL) {
        struct segment *segment = LIST_ENTRY(link, struct segment, link);
        size_t left = segment->len - segment->taken;
        pipe->bytes -= left;
        if (segments == &pipe->arrived) {
            pipe->arrived_bytes -= left;
        }
        sim__free(segment);
    }
}

void sim__pipe_drop_flying(struct pipe *pipe) {
    drop_segments(pipe, &pipe->flying);
    sim__event_cancel(pipe->connection->sim, &pipe->event);
    pipe->held = false;
}

void sim__pipe_drop_arrived(struct pipe *pipe) { drop_segments(pipe, &pipe->arrived); }

size_t sim__pipe_room(const struct connection *connection, int side) {
    size_t bytes_max = connection->sim->options.network.pipe_bytes_max;
    size_t bytes = connection->pipes[side].bytes;
    return bytes < bytes_max ? bytes_max - bytes : 0;
}

uint8_t *sim__pipe_push(struct connection *connection, int side, size_t len, bool is_fin) {
    struct sim *sim = connection->sim;
    struct pipe *pipe = &connection->pipes[side];
    CHECK(!pipe->fin_sent && (len == 0) == is_fin);
    struct segment *segment = sim__alloc(sizeof *segment + len);
    segment->len = len;
    segment->is_fin = is_fin;
    uint64_t earliest_us = sim->now_us + sim__network_delay_us(sim);
    uint64_t deliver_us = earliest_us > pipe->last_deliver_us ? earliest_us : pipe->last_deliver_us;
    segment->deliver_us = deliver_us + (uint64_t)len * 1000 / sim->options.network.bytes_per_ms;
    pipe->last_deliver_us = segment->deliver_us;
    pipe->bytes += len;
    pipe->fin_sent = is_fin;
    list_push_back(&pipe->flying, &segment->link);
    if (pipe->event.slot == 0) {
        sim__event_schedule(sim, &pipe->event, segment->deliver_us);
    }
    return segment->data;
}

/* Cut off: holds what flies; when this lasted too long, the sender gives up (and the reset drops it). */
static void hold(struct connection *connection, int side) {
    struct sim *sim = connection->sim;
    struct pipe *pipe = &connection->pipes[side];
    if (pipe->held) {
        sim__connection_reset(connection, side, ETIMEDOUT, false);
        return;
    }
    pipe->held = true;
    pipe->held_since_us = sim->now_us;
    uint64_t patience_us = sim->options.network.silence_timeout_us;
    sim__note(sim, connection->ends[side].node, SIM_TRACE_HELD, connection->id, pipe->bytes, "");
    sim__event_schedule(sim, &pipe->event,
                        sim->now_us + patience_us + random_below(&sim->network->random, patience_us));
}

/* One segment reaches the side opposite to `side`. False if nobody was there. */
static bool arrive(struct connection *connection, int side, struct segment *segment) {
    struct sim *sim = connection->sim;
    struct pipe *pipe = &connection->pipes[side];
    struct end *end = &connection->ends[1 - side];
    list_remove(&segment->link);
    if (side == 1) {
        sim__connection_become_open(connection);
    }
    bool somebody = end->stream != NULL && !end->is_reset;
    if (!somebody || segment->is_fin) {
        pipe->fin_arrived = somebody;
        sim__note(sim, end->node, SIM_TRACE_FIN, connection->id, somebody, "");
        pipe->bytes -= segment->len;
        sim__free(segment);
        return somebody;
    }
    sim->stats.segments++;
    sim->stats.network_bytes += segment->len;
    sim__note(sim, end->node, SIM_TRACE_SEGMENT, connection->id, segment->len, "");
    pipe->arrived_bytes += segment->len;
    list_push_back(&pipe->arrived, &segment->link);
    return true;
}

static void pipe_event(struct sim_event *event) {
    struct pipe *pipe = CONTAINER_OF(event, struct pipe, event);
    struct connection *connection = pipe->connection;
    struct sim *sim = connection->sim;
    int side = pipe == &connection->pipes[1];
    if (sim__connection_is_cut(connection, side)) {
        hold(connection, side);
        return;
    }
    pipe->held = false;
    while (!list_is_empty(&pipe->flying)) {
        struct segment *segment = LIST_ENTRY(pipe->flying.next, struct segment, link);
        if (segment->deliver_us > sim->now_us) {
            sim__event_schedule(sim, event, segment->deliver_us);
            break;
        }
        if (!arrive(connection, side, segment)) {
            sim__pipe_drop_flying(pipe);
            sim__connection_reset(connection, side, ECONNRESET, true);
            return;
        }
    }
    if (connection->ends[1 - side].stream != NULL) {
        sim__stream_news(connection->ends[1 - side].stream);
    }
    if (random_chance(&sim->network->random, sim->options.network.reset_ppm, PPM)) {
        sim__connection_reset(connection, 0, ECONNRESET, false);
        sim__connection_reset(connection, 1, ECONNRESET, false);
    }
}

size_t sim__pipe_read(struct connection *connection, int side, uint8_t *data, size_t len) {
    struct sim *sim = connection->sim;
    struct pipe *pipe = &connection->pipes[1 - side];
    size_t done = 0;
    while (done < len && !list_is_empty(&pipe->arrived)) {
        struct segment *segment = LIST_ENTRY(pipe->arrived.next, struct segment, link);
        size_t left = segment->len - segment->taken;
        size_t part = left < len - done ? left : len - done;
        memcpy(data + done, segment->data + segment->taken, part);
        segment->taken += part;
        done += part;
        if (segment->taken == segment->len) {
            list_remove(&segment->link);
            sim__free(segment);
        }
    }
    pipe->bytes -= done;
    pipe->arrived_bytes -= done;
    struct sim_stream *sender = connection->ends[1 - side].stream;
    if (done > 0 && pipe->window.slot == 0 && sender != NULL && sim__stream_has_output(sender)) {
        sim__event_schedule(sim, &pipe->window, sim->now_us + sim__network_delay_us(sim));
    }
    return done;
}

static void window_event(struct sim_event *event) {
    struct pipe *pipe = CONTAINER_OF(event, struct pipe, window);
    struct sim_stream *sender = pipe->connection->ends[pipe == &pipe->connection->pipes[1]].stream;
    if (sender != NULL) {
        sim__stream_news(sender);
    }
}

void sim__pipe_go_on(struct connection *connection, int side) {
    struct sim *sim = connection->sim;
    struct pipe *pipe = &connection->pipes[side];
    if (!pipe->held || sim__connection_is_cut(connection, side)) {
        return;
    }
    uint64_t held_us = sim->now_us - pipe->held_since_us;
    uint64_t late_us_max = sim->options.network.heal_backoff_us_max;
    late_us_max = held_us < late_us_max ? held_us : late_us_max;
    pipe->held = false;
    sim__event_schedule(sim, &pipe->event,
                        sim->now_us + sim__network_delay_us(sim) +
                            random_below(&sim->network->random, late_us_max + 1));
}
