/*
 * Fetching: how an operation (a get, a multi-get, an iterator, a compaction) gets at the blocks of tables.
 *
 * A fetch belongs to one operation and to the thread that runs it. Without a loop it reads at once and blocks. With a
 * loop it never blocks: what is in the block cache or in the page cache is there at once; for anything else the
 * function that wanted it says STATUS_PENDING, and the fetch remembers the want:
 *
 *   read -> STATUS_PENDING, ask for what else can be asked for -> fetch_start -> ... ready -> the same reads again
 *
 * All wants of one round go to env together: one env_io READ for each block, or a worker's job where a table must be
 * opened first. Nothing is shared between fetches, so that one read that hangs delays only who needs that block.
 *
 * What a round brought is held by the fetch until nobody asked for it in two later rounds, or until fetch_reset: an
 * operation that begins anew after each round finds again all that it had found, even if the cache keeps nothing. The
 * tables must stay until then. A failed read is reported to the one who asks for it next, once; after that it is read
 * again.
 *
 *   idle --a want--> wanting --fetch_start--> busy --all there, `ready` runs--> idle
 *
 * What can't be read, or fails its checks, is read once more, past the page cache, before it is called damaged.
 */
#ifndef HOLDFAST_STORAGE_FETCH_H
#define HOLDFAST_STORAGE_FETCH_H

#include "node/env/env.h"

struct fetch;
struct fetch_want;
struct sst_context;

enum { FETCH_READAHEAD_BYTES_MAX = 8 * 1024 * 1024 };

struct fetch_options {
    struct env_loop *loop;              /* NULL: blocking */
    void (*ready)(struct fetch *fetch); /* on the loop, never inside fetch_start */
    bool fill_cache;                    /* blocks read from files stay in the cache */
    bool readahead_at_once;             /* cursors begin with the largest reads: the operation walks to the end */
    uint32_t readahead_bytes_max;       /* of one read of a cursor, at most FETCH_READAHEAD_BYTES_MAX; 0: by blocks */
};

/* Embedded by the operation; must stay where it is while busy. */
struct fetch {
    const struct sst_context *context;
    struct fetch_options options;
    struct fetch_want *wants; /* what was asked for, in no order */
    uint64_t round;
    uint32_t wanted; /* of wants: not started yet */
    uint32_t under_way;
};

/* Allocates nothing. The options are copied. */
static inline void fetch_init(struct fetch *fetch, const struct sst_context *context,
                              const struct fetch_options *options) {
    *fetch = (struct fetch){.context = context, .options = *options};
}

void fetch__drop_all(struct fetch *fetch);

/* Between fetch_start and `ready`. */
static inline bool fetch_is_busy(const struct fetch *fetch) { return fetch->under_way > 0; }

/* The operation moved on (to another key, say): lets go of what rounds brought, forgets wants that weren't started. Not
 * while busy. */
static inline void fetch_reset(struct fetch *fetch) {
    if (fetch->wants != NULL) {
        fetch__drop_all(fetch);
    }
}

/* Not while busy. May be initialised again. Cursors over it are freed first. */
static inline void fetch_deinit(struct fetch *fetch) { fetch_reset(fetch); }

/* After STATUS_PENDING, on the fetch's loop. */
void fetch_start(struct fetch *fetch);

#endif
