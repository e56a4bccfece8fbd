/*
 * The import's engine: batches of puts on their way, in order per key, sent again until acknowledged.
 *
 *   building --full, or no input is ready--> under way --acknowledged--> gone
 *                                              ^   |
 *                                              +---+ the cluster can't now: again, unless nothing was acknowledged for
 * too long
 *
 * Bounds: `in_flight_max` batches and IMPORT_BYTES_MAX bytes under way (one batch may exceed that alone), one batch
 * building. Owner: the command's thread; callbacks only push to the queue.
 */
#ifndef HOLDFAST_CTL_IMPORT_H
#define HOLDFAST_CTL_IMPORT_H

#include "node/base/list.h"
#include "node/ctl/ctl.h"
#include "node/ctl/key_set.h"
#include "node/ctl/queue.h"

enum { IMPORT_BATCH_BYTES = 64 * 1024, IMPORT_BATCH_OPERATIONS = 512, IMPORT_BYTES_MAX = 32 * 1024 * 1024 };

struct import_batch;

struct import {
    struct holdfast *handle;
    struct alloc *alloc;
    uint32_t in_flight_max;
    uint32_t give_up_s;
    struct ctl_queue queue;
    struct key_set keys;
    struct import_batch *building; /* or NULL */
    struct list under_way;         /* sent, or waiting to be sent again */
    uint32_t under_way_count;
    uint64_t under_way_bytes;
    uint32_t last_serial;
    uint64_t progress_us; /* when something was last acknowledged */
    uint64_t count;       /* acknowledged pairs */
    uint64_t bytes;       /* their keys and values */
    bool failed;
    struct holdfast_result failure;
    uint64_t failed_first_line, failed_last_line;
};

/* False: no descriptor or memory. */
bool import_init(struct import *import, struct holdfast *handle, struct alloc *alloc, uint32_t in_flight_max,
                 uint32_t give_up_s);
/* After the handle was closed: frees what was still under way. */
void import_deinit(struct import *import);

/* Adds a pair to the batch that is building, sending the batch before if the pair doesn't fit. STATUS_BUSY: collect
 * first, the pair was not taken (its key is under way, or there is no room). STATUS_NO_MEMORY. */
MUST_USE enum status import_add(struct import *import, struct slice key, struct slice value, uint64_t line);
/* Sends what is building. STATUS_BUSY: no room now. */
MUST_USE enum status import_flush(struct import *import);
/* Takes completions: counts, sends again, or sets failed. */
void import_collect(struct import *import, uint64_t now_us);
bool import_is_idle(const struct import *import);

#endif
