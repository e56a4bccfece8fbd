/*
 * Rates. Compactions are held to a number of bytes per second, writers to what flushes and compactions can take.
 *
 * Compactions: one clock for all workers says when the next piece may be written; each moves it on by what its piece
 * costs, and sleeps until its turn, in short naps. While level 0 grows there is no limit: compactions that fall behind
 * cost more than a busy disk.
 *
 * Writers: nothing happens until memtables or level 0 come near their bound, or compactions owe a lot. Then writes are
 * held to a rate: a multiple of what flushes (or compactions of level 0) achieved lately, that falls from two towards
 * nothing as the bound comes near; where it is one, writing and draining are in balance. So the bound itself, where
 * everything stops, is hardly ever met, and waits are short and even (hazard 47).
 *
 *   rate = drained per second * 2 * (1 - p)      p: from 0, where pacing begins, to 1, the bound
 */
#include "storage/storage_internal.h"

enum {
    NAP_US = 20 * 1000,
    BURST_US = 50 * 1000,    /* what a compaction may save up by being slower than the rate */
    PACE_STEP_US = 1000,     /* shorter waits are saved up: sleeping costs as much */
    RATE_UNKNOWN = 32 << 20, /* bytes per second, until something was measured */
    RATE_MIN = 64 << 10,
    DEBT_SLOW_BASES = 16, /* of level_base_bytes: what compactions may owe before writers are paced */
    DEBT_STOP_BASES = 64
};

/* ---- Compactions: any worker --------------------------------------------------------------------------------- */

static bool is_free(struct storage *storage) {
    return storage->limiter.bytes_per_second == 0 ||
           atomic_load_explicit(&storage->limiter.relaxed, memory_order_relaxed) ||
           atomic_load_explicit(&storage->stop, memory_order_relaxed);
}

void storage__pace_compaction(void *context, uint64_t bytes) {
    struct storage *storage = context;
    struct rate_limiter *limiter = &storage->limiter;
    if (is_free(storage)) {
        return;
    }
    uint64_t cost_us = bytes * 1000 * 1000 / limiter->bytes_per_second;
    uint64_t now_us = env_clock_us(storage->env);
    uint64_t earliest_us = now_us > BURST_US ? now_us - BURST_US : 0;
    uint64_t turn_us = atomic_load_explicit(&limiter->next_us, memory_order_relaxed);
    uint64_t begin_us;
    do {
        begin_us = turn_us > earliest_us ? turn_us : earliest_us;
    } while (!atomic_compare_exchange_weak_explicit(&limiter->next_us, &turn_us, begin_us + cost_us,
                                                    memory_order_relaxed, memory_order_relaxed));
    while (now_us < begin_us && !is_free(storage)) {
        uint64_t left_us = begin_us - now_us;
        env_sleep_us(storage->env, left_us < NAP_US ? left_us : NAP_US);
        now_us = env_clock_us(storage->env);
    }
}

/* ---- What was achieved (owner) ------------------------------------------------------------------------------- */

/* Half of what is known, half of what is new. */
static void learn(uint64_t *rate, uint64_t bytes, uint64_t us) {
    uint64_t measured = bytes * 1000 / (us / 1000 + 1);
    measured = measured > RATE_MIN ? measured : RATE_MIN;
    *rate = *rate == 0 ? measured : (*rate + measured) / 2;
}

void storage__note_flush(struct storage *storage, uint64_t bytes, uint64_t us) {
    learn(&storage->stalls.flush_rate, bytes, us);
}

void storage__note_level0(struct storage *storage, uint64_t bytes, uint64_t us) {
    learn(&storage->stalls.level0_rate, bytes, us);
}

/* ---- Writers (owner) ----------------------------------------------------------------------------------------- */

/* Where value lies between slow and stop, in thousandths. */
static uint64_t part_of(uint64_t value, uint64_t slow, uint64_t stop) {
    if (value <= slow) {
        return 0;
    }
    return value >= stop ? 1000 : (value - slow) * 1000 / (stop - slow);
}

static uint64_t scaled(uint64_t rate, uint64_t part) {
    uint64_t known = rate == 0 ? RATE_UNKNOWN : rate;
    uint64_t result = known / 500 * (1000 - part);
    return result > RATE_MIN ? result : RATE_MIN;
}

/* The rate that writers are to keep and why; UINT64_MAX: none. */
static uint64_t writers_rate(const struct storage *storage, enum storage_stall *ret_reason) {
    const struct storage_options *options = &storage->options;
    uint64_t debt = storage->debt_bytes;
    uint64_t base = options->level_base_bytes;
    uint64_t parts[STORAGE_STALL_COUNT] = {
        [STORAGE_STALL_LEVEL0] = part_of(storage->version->counts[0], options->l0_files_slow, options->l0_files_stop),
        [STORAGE_STALL_DEBT] = part_of(debt, DEBT_SLOW_BASES * base, DEBT_STOP_BASES * base),
    };
    if (storage->full_count == options->immutable_memtables_max) {
        parts[STORAGE_STALL_MEMTABLES] =
            part_of(memtable_bytes(storage->active->memtable), options->memtable_bytes / 2, options->memtable_bytes);
    }
    if (storage->blocked_count > 0) {
        parts[STORAGE_STALL_LEVEL0] = 0; /* waiting wouldn't help */
        parts[STORAGE_STALL_DEBT] = 0;
    }
    uint64_t lowest = UINT64_MAX;
    for (unsigned reason = 0; reason < STORAGE_STALL_COUNT; reason++) {
        if (parts[reason] == 0) {
            continue;
        }
        bool by_flush = reason == STORAGE_STALL_MEMTABLES;
        uint64_t rate = scaled(by_flush ? storage->stalls.flush_rate : storage->stalls.level0_rate, parts[reason]);
        if (rate < lowest) {
            lowest = rate;
            *ret_reason = (enum storage_stall)reason;
        }
    }
    return lowest;
}

static void count(struct storage *storage, enum storage_stall reason, uint64_t us) {
    struct storage_stall_stats *stats = &storage->stalls.stats[reason];
    stats->count++;
    stats->total_us += us;
    stats->longest_us = us > stats->longest_us ? us : stats->longest_us;
}

uint64_t storage_pace_us(struct storage *storage, size_t bytes) {
    struct stall_state *stalls = &storage->stalls;
    enum storage_stall reason = STORAGE_STALL_MEMTABLES;
    if (!storage->started || storage->closing || storage->broken) {
        return 0;
    }
    uint64_t rate = writers_rate(storage, &reason);
    if (rate == UINT64_MAX) {
        stalls->next_write_us = 0;
        return 0;
    }
    uint64_t now_us = env_now_us(storage->loop);
    uint64_t from_us = stalls->next_write_us > now_us ? stalls->next_write_us : now_us;
    uint64_t next_us = from_us + (uint64_t)bytes * 1000 / (rate / 1000 + 1);
    uint64_t latest_us = now_us + STORAGE_PACE_US_MAX;
    stalls->next_write_us = next_us < latest_us ? next_us : latest_us;
    uint64_t wait_us = stalls->next_write_us - now_us;
    if (wait_us < PACE_STEP_US) {
        return 0;
    }
    count(storage, reason, wait_us);
    return wait_us;
}

static enum storage_stall stop_reason(const struct storage *storage) {
    if (storage->no_space[SPACE_FLUSH]) {
        return STORAGE_STALL_SPACE;
    }
    bool memtables = storage->full_count >= storage->options.immutable_memtables_max;
    return memtables ? STORAGE_STALL_MEMTABLES : STORAGE_STALL_LEVEL0;
}

void storage__note_stall(struct storage *storage) {
    struct stall_state *stalls = &storage->stalls;
    bool is_stopped = !storage_can_apply(storage);
    if (is_stopped == stalls->is_stopped) {
        return;
    }
    uint64_t now_us = env_clock_us(storage->env);
    if (is_stopped) {
        stalls->stopped_us = now_us;
        stalls->stopped_by = stop_reason(storage);
    } else {
        count(storage, stalls->stopped_by, now_us - stalls->stopped_us);
    }
    stalls->is_stopped = is_stopped;
}

bool storage__is_level0_growing(const struct storage *storage) {
    const struct storage_options *options = &storage->options;
    size_t files = storage->version->counts[0];
    return files >= 2 * (size_t)options->l0_files_compact || files >= options->l0_files_slow ||
           storage->full_count >= options->immutable_memtables_max;
}
