/*
 * How fast snapshots leave this node: never faster than the configured rate, and slower while that hurts those who
 * write (DESIGN section 2: workers and transfers give way; issue: their p99 at most doubles).
 *
 * The leader times its own writes, from a proposal's arrival to its end. Those that met no transfer make one
 * histogram, those that met one the other. "Hurt" means: of a step's writes more than one in a hundred took over twice
 * as long as the slowest hundredth of the undisturbed ones. Then the rate falls by a quarter; while fewer than one in
 * two hundred do, it rises by a 32nd of the configured rate (additive increase, multiplicative decrease).
 *
 *   |<---- PERIOD: pieces leave, one by one ---->|<- REST ->|<---- PERIOD ...
 *
 * In a rest nothing leaves, so that what undisturbed writes take is known as of now: load that grows by itself isn't
 * taken for harm. The rate begins at a quarter.
 *
 * It never falls below an eighth, so that a transfer ends; nor below what the log needs: the log behind a snapshot is
 * kept up to a budget only, and one that comes too late would begin anew for ever.
 *
 * Plain data and arithmetic, times are handed in. Owner: the consensus loop.
 */
#ifndef HOLDFAST_SERVER_SNAPSHOT_PACE_H
#define HOLDFAST_SERVER_SNAPSHOT_PACE_H

#include <stdint.h>

enum {
    SNAPSHOT_PACE_STEP_US = 100 * 1000, /* between two looks at the rate */
    SNAPSHOT_PACE_PERIOD_US = 900 * 1000,
    SNAPSHOT_PACE_REST_US = 100 * 1000,
    SNAPSHOT_PACE_SETTLE_US = 20 * 1000, /* a piece is felt for so long */
    SNAPSHOT_PACE_BEHIND_US = 4 * 1000,  /* of lateness that is made up for: no bursts beyond that */
    SNAPSHOT_PACE_WRITES_MIN = 200,      /* fewer have no slowest hundredth */
    SNAPSHOT_PACE_QUIET_MAX = 20 * 1000, /* undisturbed writes that are remembered; then all count half */
    SNAPSHOT_PACE_START_PART = 4,        /* of the configured rate */
    SNAPSHOT_PACE_FLOOR_PART = 8,
    SNAPSHOT_PACE_RISE_PART = 32,
    SNAPSHOT_PACE_BUCKETS = 200 /* eight for each power of two: the last begins at two minutes */
};

struct snapshot_pace_writes {
    uint64_t total;
    uint64_t buckets[SNAPSHOT_PACE_BUCKETS];
};

/* Why the rate is what it is. */
enum snapshot_pace_reason {
    SNAPSHOT_PACE_FULL, /* as configured */
    SNAPSHOT_PACE_LOAD, /* less: it gives way to the load, or has just begun */
    SNAPSHOT_PACE_LOG   /* more than the load would have it: the log can't be kept for longer */
};

struct snapshot_pace {
    uint64_t rate_max;  /* bytes per second; 0: no limit, and no giving way */
    uint64_t rate;      /* what the load bears */
    uint64_t needed;    /* what the log needs */
    uint64_t due_us;    /* the next piece */
    uint64_t sent_us;   /* the newest piece; 0: none yet */
    uint64_t rest_us;   /* the next rest begins, */
    uint64_t rested_us; /* the last one ended, or will */
    uint64_t looked_us;
    uint64_t slowed; /* how often the rate fell, ever */
    struct snapshot_pace_writes quiet;
    struct snapshot_pace_writes busy; /* since the rate was last judged */
};

void snapshot_pace_init(struct snapshot_pace *pace, uint64_t rate_max);
/* A write ended well after so many microseconds. */
void snapshot_pace_note_write(struct snapshot_pace *pace, uint64_t now_us, uint64_t took_us);
/* When the next piece may leave: now, if that isn't later than now. Judges the rate when it is time to. To be called
 * whenever a piece is ready. */
uint64_t snapshot_pace_due_us(struct snapshot_pace *pace, uint64_t now_us);
/* A piece left. */
void snapshot_pace_sent(struct snapshot_pace *pace, uint64_t now_us, uint64_t bytes);
/* Not slower than this from now on, if the configured rate allows it; bytes per second. */
void snapshot_pace_need(struct snapshot_pace *pace, uint64_t needed);
/* Bytes per second, now; 0: no limit. */
uint64_t snapshot_pace_rate(const struct snapshot_pace *pace);
enum snapshot_pace_reason snapshot_pace_reason(const struct snapshot_pace *pace);
/* One word for an operator. */
const char *snapshot_pace_reason_name(enum snapshot_pace_reason reason);

/* The rate at which left_bytes of a snapshot are sent before the log, which grew by used_bytes in elapsed_us, has
 * grown by budget_bytes; UINT64_MAX if it has already. A quarter is added for what comes between. */
uint64_t snapshot_pace_needed(uint64_t left_bytes, uint64_t used_bytes, uint64_t budget_bytes, uint64_t elapsed_us);

#endif
