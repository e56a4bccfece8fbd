/*
 * A log in the small world of wal_fake_env.h, with what its tests do over and over: open, append records whose payload
 * is known by (index, term), count the callbacks, replay and compare.
 */
#ifndef HOLDFAST_TESTS_WAL_HARNESS_H
#define HOLDFAST_TESTS_WAL_HARNESS_H

#include "storage/wal_internal.h"
#include "tests/unit/wal_fake_env.h"

enum { HARNESS_ENTRY_MAX = 16 * 1024, HARNESS_INDEX_MAX = 4096 };

struct harness {
    struct fake_env *fake;
    struct wal *wal;
    struct wal_options options;
    struct wal_frontier frontier;
    struct wal_recovered recovered;
    struct error error;
    /* Seen so far: */
    uint64_t synced_calls;
    struct wal_synced synced; /* the last one */
    uint64_t failed_calls;
    uint64_t prepare_bad_calls;
    uint64_t prepare_good_calls;
    bool closed;
    void (*on_synced)(struct harness *harness);
    uint64_t terms[HARNESS_INDEX_MAX]; /* by index, as replayed */
    uint64_t replayed;
};

static inline void harness_synced(void *context, const struct wal_synced *synced) {
    struct harness *harness = context;
    CHECK(harness->fake->on_loop);
    harness->synced_calls++;
    harness->synced = *synced;
    if (harness->on_synced != NULL) {
        harness->on_synced(harness);
    }
}

static inline void harness_failed(void *context, const struct error *err) {
    struct harness *harness = context;
    harness->failed_calls++;
    harness->error = *err;
}

static inline void harness_prepare_state(void *context, const struct error *err) {
    struct harness *harness = context;
    if (err != NULL) {
        harness->prepare_bad_calls++;
        harness->error = *err;
    } else {
        harness->prepare_good_calls++;
    }
}

static inline void harness_closed(void *context) {
    struct harness *harness = context;
    harness->closed = true;
    harness->wal = NULL;
}

static inline struct harness *harness_new(uint64_t seed) {
    struct harness *harness = calloc(1, sizeof *harness);
    CHECK(harness != NULL);
    harness->fake = fake_new(seed);
    harness->options = (struct wal_options){.env = &harness->fake->env,
                                            .loop = &harness->fake->loop,
                                            .dir = "/wal",
                                            .cluster_id = {1, 2, 3},
                                            .node_id = 7,
                                            .segment_bytes = 256 * 1024,
                                            .entry_payload_bytes_max = HARNESS_ENTRY_MAX,
                                            .group_bytes_max = 64 * 1024,
                                            .prepared_segments = 1,
                                            .cache_bytes_max = 64 * 1024,
                                            .mark_delay_us = 0,
                                            .context = harness,
                                            .synced = harness_synced,
                                            .failed = harness_failed,
                                            .prepare_state = harness_prepare_state};
    return harness;
}

/* wal_open as a worker would. */
static inline enum status harness_open(struct harness *harness) {
    memset(&harness->recovered, 0, sizeof harness->recovered);
    harness->fake->on_loop = false;
    harness->wal = NULL;
    return wal_open(&harness->options, &harness->frontier, &harness->wal, &harness->recovered, &harness->error);
}

static inline void harness_start(struct harness *harness) {
    struct fake_env *fake = harness->fake;
    fake->on_loop = true;
    enum status status = wal_start(harness->wal, &harness->error);
    fake->on_loop = false;
    CHECK(status == STATUS_OK);
}

/* Opened, started, all prepared. */
static inline void harness_up(struct harness *harness) {
    enum status status = harness_open(harness);
    if (status != STATUS_OK) {
        fprintf(stderr, "open: %s\n", harness->error.message);
    }
    CHECK(status == STATUS_OK && !harness->recovered.fault.present);
    harness_start(harness);
    fake_settle(harness->fake);
}

static inline void harness_close(struct harness *harness) {
    harness->closed = false;
    wal_close(harness->wal, harness_closed, harness);
    fake_settle(harness->fake);
    CHECK(harness->closed);
}

static inline void harness_free(struct harness *harness) {
    if (harness->wal != NULL) {
        harness_close(harness);
    }
    fake_free(harness->fake);
    free(harness);
}

/* Power goes; what is left is booted, the log not yet opened. */
static inline void harness_crash(struct harness *harness) {
    struct fake_env *fake = harness->fake;
    fake_lose_power(fake);
    fake->dead_after = 1;
    if (harness->wal != NULL) {
        harness_close(harness);
    }
    fake_reboot(fake);
}

/* ---- Records ---------------------------------------------------------------------------------------------------- */

static inline size_t harness_payload_len(uint64_t index, uint64_t term) {
    uint64_t mixed = (index * 0x9e3779b97f4a7c15u) ^ (term * 0xc2b2ae3d27d4eb4fu);
    mixed ^= mixed >> 29;
    return mixed % 16 == 0 ? (size_t)(mixed >> 8) % HARNESS_ENTRY_MAX : (size_t)(mixed >> 8) % 600;
}

enum { HARNESS_PERIOD = 256 };

/* Payloads count up from a byte that index and term give: a period of that, so that nobody goes byte by byte. */
static inline const uint8_t *harness_period(uint64_t index, uint64_t term) {
    static uint8_t counting[2 * HARNESS_PERIOD];
    if (counting[1] == 0) {
        for (size_t i = 0; i < sizeof counting; i++) {
            counting[i] = (uint8_t)i;
        }
    }
    return counting + (uint8_t)(index * 31 + term * 7);
}

static inline void harness_fill(uint8_t *payload, size_t len, uint64_t index, uint64_t term) {
    const uint8_t *period = harness_period(index, term);
    for (size_t i = 0; i < len; i += HARNESS_PERIOD) {
        memcpy(payload + i, period, len - i < HARNESS_PERIOD ? len - i : HARNESS_PERIOD);
    }
}

static inline enum status harness_append_len(struct harness *harness, uint64_t index, uint64_t term, size_t len) {
    uint8_t *payload = NULL;
    enum status status = wal_append_begin(harness->wal, index, term, 3, len, &payload);
    if (status == STATUS_OK) {
        harness_fill(payload, len, index, term);
        wal_append_end(harness->wal);
    }
    return status;
}

static inline enum status harness_append(struct harness *harness, uint64_t index, uint64_t term) {
    return harness_append_len(harness, index, term, harness_payload_len(index, term));
}

static inline void harness_append_ok(struct harness *harness, uint64_t first, uint64_t last, uint64_t term) {
    for (uint64_t index = first; index <= last; index++) {
        CHECK(harness_append(harness, index, term) == STATUS_OK);
    }
}

/* first..last in one group each, all synced. */
static inline void harness_write(struct harness *harness, uint64_t first, uint64_t last, uint64_t term) {
    for (uint64_t index = first; index <= last; index++) {
        harness_append_ok(harness, index, index, term);
        fake_settle(harness->fake);
        CHECK(wal_synced_index(harness->wal) == index);
    }
}

static inline bool harness_is_right(const struct wal_record *record, uint64_t index, uint64_t term, size_t len) {
    if (record->index != index || record->term != term || record->kind != 3 || record->payload.len != len) {
        return false;
    }
    const uint8_t *period = harness_period(index, term);
    bool is_right = true;
    for (size_t i = 0; i < len && is_right; i += HARNESS_PERIOD) {
        size_t part = len - i < HARNESS_PERIOD ? len - i : HARNESS_PERIOD;
        is_right = memcmp(record->payload.data + i, period, part) == 0;
    }
    return is_right;
}

static inline enum status harness_replay_one(void *context, const struct wal_record *record, struct error *err) {
    struct harness *harness = context;
    (void)err;
    CHECK(record->index < HARNESS_INDEX_MAX);
    CHECK(harness_is_right(record, record->index, record->term, record->payload.len));
    harness->terms[record->index] = record->term;
    harness->replayed++;
    return STATUS_OK;
}

/* Replays all that there is into terms[]; wal_open must just have returned. */
static inline void harness_replay(struct harness *harness) {
    memset(harness->terms, 0, sizeof harness->terms);
    harness->replayed = 0;
    enum status status = wal_replay(harness->wal, wal_first_index(harness->wal), wal_last_index(harness->wal),
                                    harness_replay_one, harness, &harness->error);
    CHECK(status == STATUS_OK);
    CHECK(harness->replayed == wal_last_index(harness->wal) + 1 - wal_first_index(harness->wal));
}

/* ---- Looking at the disk ---------------------------------------------------------------------------------------- */

/* Path of a segment; static buffer. */
static inline const char *harness_segment(uint64_t number) {
    static char path[LIMIT_PATH_BYTES];
    wal__segment_path(path, "/wal", number, "");
    return path;
}

/* Bytes of a segment file, to look at or damage (seen and durable alike are to be changed). */
static inline struct fake_inode *harness_inode(struct harness *harness, uint64_t number) {
    struct fake_inode *inode = fake_file_at(harness->fake, harness_segment(number));
    CHECK(inode != NULL);
    return inode;
}

static inline void harness_flip(struct fake_inode *inode, uint64_t offset, unsigned bit) {
    inode->seen[offset] ^= (uint8_t)(1u << bit);
    inode->durable[offset] = inode->seen[offset];
}

/* ---- A log that many tests start with --------------------------------------------------------------------------- */

/* Ten groups of one record and some thousand bytes each in segment 1, marks off. */
static inline struct harness *harness_ten_groups(void) {
    struct harness *harness = harness_new(3);
    harness_up(harness);
    wal_set_state(harness->wal, 4, 2);
    fake_settle(harness->fake);
    for (uint64_t index = 1; index <= 10; index++) {
        CHECK(harness_append_len(harness, index, 4, 3000) == STATUS_OK);
        fake_settle(harness->fake);
    }
    return harness;
}

/* Start group and state group come before them. */
static inline uint64_t harness_group_offset(uint64_t n) { return WAL_FIRST_RECORDS_OFFSET + n * WAL_BLOCK_BYTES; }

static inline void harness_reopen(struct harness *harness) {
    if (harness->wal != NULL) {
        harness_close(harness);
    }
    CHECK(harness_open(harness) == STATUS_OK);
}

#endif
