/* The rate of snapshots: two histograms, and a rate between a floor and a limit. */
#include "node/server/snapshot_pace.h"

#include "node/base/check.h"

#include <stdbool.h>

enum {
    PER_OCTAVE = 8,
    OCTAVE_BITS = 3,
    HURT_BUCKETS = 5 /* above: by a factor of 2^(5/8) */
};

/* ---- What writes take ------------------------------------------------------------------------------------------- */

/* Eight buckets for each power of two, so what is in a bucket takes about twice as long as what is eight buckets below,
 * and about half as long again as what is five below. */
static uint32_t bucket_of(uint64_t us) {
    if (us < PER_OCTAVE) {
        return (uint32_t)us;
    }
    uint32_t exponent = 63 - (uint32_t)__builtin_clzll(us);
    uint32_t within = (uint32_t)(us >> (exponent - OCTAVE_BITS)) % PER_OCTAVE;
    uint32_t bucket = (exponent - OCTAVE_BITS + 1) * PER_OCTAVE + within;
    return bucket < SNAPSHOT_PACE_BUCKETS ? bucket : SNAPSHOT_PACE_BUCKETS - 1;
}

static void add(struct snapshot_pace_writes *writes, uint64_t us) {
    writes->total++;
    writes->buckets[bucket_of(us)]++;
}

static void forget_half(struct snapshot_pace_writes *writes) {
    writes->total = 0;
    for (uint32_t i = 0; i < SNAPSHOT_PACE_BUCKETS; i++) {
        writes->buckets[i] /= 2;
        writes->total += writes->buckets[i];
    }
}

static uint64_t count_above(const struct snapshot_pace_writes *writes, uint32_t bucket) {
    uint64_t count = 0;
    for (uint32_t i = bucket + 1; i < SNAPSHOT_PACE_BUCKETS; i++) {
        count += writes->buckets[i];
    }
    return count;
}

/* The highest bucket with the slowest hundredth in it or above. */
static uint32_t slow_bucket(const struct snapshot_pace_writes *writes) {
    uint64_t above = 0;
    uint32_t bucket = SNAPSHOT_PACE_BUCKETS - 1;
    for (; bucket > 0; bucket--) {
        above += writes->buckets[bucket];
        if (above * 100 > writes->total) {
            break;
        }
    }
    return bucket;
}

void snapshot_pace_note_write(struct snapshot_pace *pace, uint64_t now_us, uint64_t took_us) {
    CHECK(took_us <= now_us);
    if (pace->rate_max == 0) {
        return;
    }
    if (pace->sent_us != 0 && now_us - took_us < pace->sent_us + SNAPSHOT_PACE_SETTLE_US) {
        add(&pace->busy, took_us);
        return;
    }
    add(&pace->quiet, took_us);
    if (pace->quiet.total >= SNAPSHOT_PACE_QUIET_MAX) {
        forget_half(&pace->quiet);
    }
}

/* ---- The rate --------------------------------------------------------------------------------------------------- */

static uint64_t part_of(const struct snapshot_pace *pace, uint64_t part) {
    uint64_t rate = pace->rate_max / part;
    return rate > 0 ? rate : 1;
}

static void rise(struct snapshot_pace *pace) {
    uint64_t step = part_of(pace, SNAPSHOT_PACE_RISE_PART);
    pace->rate = pace->rate_max - pace->rate > step ? pace->rate + step : pace->rate_max;
}

static void give_way(struct snapshot_pace *pace) {
    uint64_t floor = part_of(pace, SNAPSHOT_PACE_FLOOR_PART);
    uint64_t rate = pace->rate - pace->rate / 4;
    pace->rate = rate > floor ? rate : floor;
    pace->slowed++;
}

static void judge(struct snapshot_pace *pace) {
    struct snapshot_pace_writes *busy = &pace->busy;
    if (busy->total == 0) {
        rise(pace); /* nobody writes */
        return;
    }
    if (busy->total < SNAPSHOT_PACE_WRITES_MIN || pace->quiet.total < SNAPSHOT_PACE_WRITES_MIN) {
        return; /* can't be told yet */
    }
    uint64_t slow = count_above(busy, slow_bucket(&pace->quiet) + HURT_BUCKETS);
    if (slow * 100 > busy->total) {
        give_way(pace);
    } else if (slow * 200 <= busy->total) {
        rise(pace);
    }
    *busy = (struct snapshot_pace_writes){0};
}

/* One that was idle for long begins a period. */
static void begin_period(struct snapshot_pace *pace, uint64_t now_us) {
    pace->rest_us = now_us + SNAPSHOT_PACE_PERIOD_US;
    pace->rested_us = now_us;
    pace->looked_us = now_us;
    pace->busy = (struct snapshot_pace_writes){0};
}

void snapshot_pace_init(struct snapshot_pace *pace, uint64_t rate_max) {
    *pace = (struct snapshot_pace){.rate_max = rate_max};
    pace->rate = rate_max > 0 ? part_of(pace, SNAPSHOT_PACE_START_PART) : 0;
}

uint64_t snapshot_pace_due_us(struct snapshot_pace *pace, uint64_t now_us) {
    if (pace->rate_max == 0) {
        return now_us;
    }
    uint64_t active_us = pace->sent_us > pace->rested_us ? pace->sent_us : pace->rested_us;
    bool is_new = pace->rest_us == 0 || now_us > active_us + SNAPSHOT_PACE_PERIOD_US;
    if (is_new) {
        begin_period(pace, now_us);
    } else if (now_us >= pace->rest_us) {
        pace->rested_us = now_us + SNAPSHOT_PACE_REST_US;
        pace->rest_us = pace->rested_us + SNAPSHOT_PACE_PERIOD_US;
    }
    if (now_us - pace->looked_us >= SNAPSHOT_PACE_STEP_US) {
        pace->looked_us = now_us;
        judge(pace);
    }
    return pace->due_us > pace->rested_us ? pace->due_us : pace->rested_us;
}

void snapshot_pace_sent(struct snapshot_pace *pace, uint64_t now_us, uint64_t bytes) {
    if (pace->rate_max == 0) {
        return;
    }
    uint64_t earliest_us = now_us > SNAPSHOT_PACE_BEHIND_US ? now_us - SNAPSHOT_PACE_BEHIND_US : 0;
    uint64_t from_us = pace->due_us > earliest_us ? pace->due_us : earliest_us;
    pace->due_us = from_us + bytes * 1000 * 1000 / snapshot_pace_rate(pace);
    pace->sent_us = now_us;
}

void snapshot_pace_need(struct snapshot_pace *pace, uint64_t needed) { pace->needed = needed; }

uint64_t snapshot_pace_rate(const struct snapshot_pace *pace) {
    uint64_t needed = pace->needed < pace->rate_max ? pace->needed : pace->rate_max;
    return pace->rate > needed ? pace->rate : needed;
}

enum snapshot_pace_reason snapshot_pace_reason(const struct snapshot_pace *pace) {
    if (pace->rate == pace->rate_max) {
        return SNAPSHOT_PACE_FULL;
    }
    return pace->needed > pace->rate ? SNAPSHOT_PACE_LOG : SNAPSHOT_PACE_LOAD;
}

const char *snapshot_pace_reason_name(enum snapshot_pace_reason reason) {
    static const char *const names[] = {
        [SNAPSHOT_PACE_FULL] = "full",
        [SNAPSHOT_PACE_LOAD] = "load",
        [SNAPSHOT_PACE_LOG] = "log",
    };
    return names[reason];
}

uint64_t snapshot_pace_needed(uint64_t left_bytes, uint64_t used_bytes, uint64_t budget_bytes, uint64_t elapsed_us) {
    if (used_bytes >= budget_bytes) {
        return UINT64_MAX;
    }
    unsigned __int128 bytes = (unsigned __int128)left_bytes * used_bytes / (budget_bytes - used_bytes);
    if (bytes > UINT64_MAX || elapsed_us == 0) {
        return bytes == 0 ? 0 : UINT64_MAX;
    }
    unsigned __int128 rate = bytes * (1000 * 1000 + 250 * 1000) / elapsed_us;
    return rate < UINT64_MAX ? (uint64_t)rate : UINT64_MAX;
}
