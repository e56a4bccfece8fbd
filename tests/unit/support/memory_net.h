/*
 * A world for tests of what talks over streams: one loop with virtual time, and a transport whose streams are buffers.
 * Bytes arrive in segments of random size, pipes are as narrow as the test wants, and every allocation is counted and
 * can fail.
 *
 *   memory_world_init; make listeners and streams on .transport and &.loop; memory_world_run ...; memory_world_deinit
 *
 * deinit fails the test when a stream or an allocation is left. One thread.
 */
#ifndef HOLDFAST_TESTS_MEMORY_NET_H
#define HOLDFAST_TESTS_MEMORY_NET_H

#include "node/base/random.h"
#include "node/env/env.h"
#include "node/env/env_loop_internal.h"

struct memory_alloc {
    struct alloc base;
    size_t used_bytes;
    size_t peak_bytes;
    size_t blocks;
    uint64_t calls;   /* allocations asked for so far */
    uint64_t fail_at; /* this one (counted from 1) fails, once; 0: none */
};

struct memory_world {
    struct env env;
    struct memory_alloc alloc;
    struct env_loop loop;
    struct env_transport transport;
    struct list streams;
    struct list listeners;
    struct random random;
    uint64_t now_us;
    int64_t wall_ms;
    size_t segment_bytes_max; /* a delivery carries 1 to this many bytes, at random; 0: all that fits */
    size_t pipe_bytes_max;    /* in flight one way; more stays queued at the sender */
    uint64_t writes;          /* env_stream_write calls */
    uint64_t sends;           /* turns in which a stream's output left */
    uint64_t sent_bytes;
    uint64_t flip_at; /* the byte with this number (counted from 1 over all streams) is damaged in flight; 0: none */
    uint64_t addresses;
};

void memory_world_init(struct memory_world *world, uint64_t seed);
void memory_world_deinit(struct memory_world *world);
/* One turn of the loop; false if nothing happened. */
bool memory_world_turn(struct memory_world *world);
/* Turns until nothing happens (time stands still). */
void memory_world_run(struct memory_world *world);
/* Moves time, then runs. */
void memory_world_advance(struct memory_world *world, uint64_t us);
/* The other side of this stream has died: both ends see a reset. */
void memory_stream_reset(struct env_stream *stream);
/* The same for every stream there is. */
void memory_streams_reset(struct memory_world *world);
/* Bytes that arrived and the owner doesn't take. */
size_t memory_stream_unread_bytes(const struct env_stream *stream);

#endif
