/*
 * How long a replay of the log takes on this machine, and whether to flush for it (DESIGN rule 12, restart_budget).
 *
 *   time = pace * (entries * ENTRY_NS + bytes * BYTE_NS)
 *
 * The two costs are those of a fast machine; `pace` is what was measured against them, so that one measurement of a
 * replay with any mix of small and large entries is enough. The last recovery's counts. A node that replayed next to
 * nothing takes its own applying for a while, and doubles it, as a replay also reads and checks.
 *
 * Plain data and arithmetic: no clocks. One thread.
 */
#ifndef HOLDFAST_SERVER_REPLAY_SPEED_H
#define HOLDFAST_SERVER_REPLAY_SPEED_H

#include "storage/storage.h"

#include <stdbool.h>
#include <stdint.h>

struct replay_speed {
    uint64_t pace;    /* in parts of REPLAY_PACE_ONE */
    bool is_measured; /* by a recovery */
    /* Applying, until that is worth a measurement: */
    uint64_t applied_entries;
    uint64_t applied_bytes;
    uint64_t applied_us;
};

enum {
    REPLAY_PACE_ONE = 1024,
    REPLAY_ENTRY_NS = 1500,
    REPLAY_BYTE_NS = 4,
    REPLAY_MEASURE_US = 50 * 1000, /* shorter measurements say nothing */
    REPLAY_FLUSH_PART = 16         /* of a memtable: nothing smaller is flushed for the budget's sake */
};

void replay_speed_init(struct replay_speed *speed);
/* A recovery replayed this in so many microseconds. */
void replay_speed_replayed(struct replay_speed *speed, uint64_t entries, uint64_t bytes, uint64_t us);
/* A turn of applying took so long. */
void replay_speed_applied(struct replay_speed *speed, uint64_t entries, uint64_t bytes, uint64_t us);
/* Microseconds. */
uint64_t replay_speed_estimate_us(const struct replay_speed *speed, uint64_t entries, uint64_t bytes);

/* True: a flush is due, or a start would take longer than the budget before the flush after it is done. Half of the
 * budget is for what comes while this flush is under way. Never while another is (it would not be done sooner), never
 * for less than a REPLAY_FLUSH_PART of a memtable, unless the memtable is empty: then it costs next to nothing. */
bool replay_wants_flush(const struct replay_speed *speed, const struct storage_unflushed *unflushed, uint64_t budget_us,
                        uint64_t memtable_bytes);

/* What a recovery that did `done` of `total` in so many microseconds has still to take; UINT64_MAX: can't be told. */
uint64_t replay_left_us(uint64_t done, uint64_t total, uint64_t elapsed_us);

#endif
