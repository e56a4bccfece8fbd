/*
 * What a log lends to the store: large values that stand in its segments already, so that a flush needn't write them
 * again. The store makes a segment's file its own by a hard link (value_log.h); this is how it learns which records
 * stand where. wal_share.c is the log's side, values_adopt.c the store's; neither knows the other's structs.
 *
 *   turn -> (the log goes on) -> is_turned -> take -> link, manifest edit -> nothing, or give_back
 *
 * Everything here is called by the owner of both, who is one.
 */
#ifndef HOLDFAST_STORAGE_LOG_SHARE_H
#define HOLDFAST_STORAGE_LOG_SHARE_H

#include "node/base/alloc.h"
#include "node/base/limits.h"
#include "node/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One record with a large payload. */
struct log_record {
    uint64_t index;
    uint64_t offset; /* of its header in the file */
    uint32_t bytes;  /* header and payload */
};

/* A segment that nothing is written to any more, all of it durable. */
struct log_segment {
    char path[LIMIT_PATH_BYTES]; /* it exists until the log deletes it, which it may at any time */
    uint64_t number;
    uint64_t size_bytes;        /* header and groups; what is behind them is of no use to anybody */
    uint64_t checksum;          /* of the header of its last group, which is bound to all before it */
    struct log_record *records; /* large ones that count, by index */
    size_t record_count;
};

/* Owned. */
struct log_segments {
    struct alloc *alloc;
    struct log_segment *list;
    size_t count;
};

struct log_share {
    void *log; /* NULL: there is none */
    /* Asks for another segment: what is appended from now on is to go there. It takes its time, and on a full disk may
     * not come to pass. */
    void (*turn)(void *log);
    /* True if the record `index` is durable and in a segment that nothing is written to any more. */
    bool (*is_turned)(void *log, uint64_t index);
    /* Those that have records of first..last, oldest first, with these records. From now on their files are never
     * written to again, recycled or cut. STATUS_NO_MEMORY. */
    enum status (*take)(void *log, uint64_t first_index, uint64_t last_index, struct log_segments *ret_segments);
    /* Nothing came of taking it, this once: the log may do with this segment's file what it likes. */
    void (*give_back)(void *log, uint64_t number);
};

static inline void log_segments_free(struct log_segments *segments) {
    for (size_t i = 0; i < segments->count; i++) {
        mem_free(segments->alloc, segments->list[i].records);
    }
    if (segments->alloc != NULL) {
        mem_free(segments->alloc, segments->list);
    }
    *segments = (struct log_segments){.alloc = NULL};
}

#endif
