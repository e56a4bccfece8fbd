/* The arithmetic of the restart budget. Sums saturate: an estimate that is absurd is at least a long one. */
#include "node/server/replay_speed.h"

enum { PACE_MIN = REPLAY_PACE_ONE / 16, PACE_MAX = REPLAY_PACE_ONE * 256, APPLY_TO_REPLAY = 2 };

static uint64_t saturated(unsigned __int128 value) { return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value; }

/* Nanoseconds at pace one. */
static unsigned __int128 cost_ns(uint64_t entries, uint64_t bytes) {
    return (unsigned __int128)entries * REPLAY_ENTRY_NS + (unsigned __int128)bytes * REPLAY_BYTE_NS;
}

static uint64_t pace_of(uint64_t entries, uint64_t bytes, uint64_t us) {
    unsigned __int128 cost = cost_ns(entries, bytes);
    uint64_t pace = cost == 0 ? PACE_MAX : saturated((unsigned __int128)us * 1000 * REPLAY_PACE_ONE / cost);
    pace = pace < PACE_MIN ? PACE_MIN : pace;
    return pace > PACE_MAX ? PACE_MAX : pace;
}

void replay_speed_init(struct replay_speed *speed) {
    *speed = (struct replay_speed){.pace = (uint64_t)REPLAY_PACE_ONE * APPLY_TO_REPLAY};
}

void replay_speed_replayed(struct replay_speed *speed, uint64_t entries, uint64_t bytes, uint64_t us) {
    if (us >= REPLAY_MEASURE_US && entries > 0) {
        speed->pace = pace_of(entries, bytes, us);
        speed->is_measured = true;
    }
}

void replay_speed_applied(struct replay_speed *speed, uint64_t entries, uint64_t bytes, uint64_t us) {
    if (speed->is_measured) {
        return;
    }
    speed->applied_entries += entries;
    speed->applied_bytes += bytes;
    speed->applied_us += us;
    if (speed->applied_us < REPLAY_MEASURE_US) {
        return;
    }
    uint64_t pace = APPLY_TO_REPLAY * pace_of(speed->applied_entries, speed->applied_bytes, speed->applied_us);
    speed->pace = (speed->pace + pace) / 2;
    speed->applied_entries = 0;
    speed->applied_bytes = 0;
    speed->applied_us = 0;
}

uint64_t replay_speed_estimate_us(const struct replay_speed *speed, uint64_t entries, uint64_t bytes) {
    uint64_t ns = saturated(cost_ns(entries, bytes));
    return saturated((unsigned __int128)ns * speed->pace / REPLAY_PACE_ONE / 1000);
}

bool replay_wants_flush(const struct replay_speed *speed, const struct storage_unflushed *unflushed, uint64_t budget_us,
                        uint64_t memtable_bytes) {
    bool is_worth_it =
        unflushed->active_memory_bytes == 0 || unflushed->active_memory_bytes >= memtable_bytes / REPLAY_FLUSH_PART;
    return unflushed->waiting == 0 && unflushed->active_entries > 0 && is_worth_it &&
           replay_speed_estimate_us(speed, unflushed->active_entries, unflushed->active_bytes) >= budget_us / 2;
}

uint64_t replay_left_us(uint64_t done, uint64_t total, uint64_t elapsed_us) {
    if (done == 0) {
        return UINT64_MAX;
    }
    return done >= total ? 0 : saturated((unsigned __int128)elapsed_us * (total - done) / done);
}
