/*
 * The engine's inside: one struct and what its parts ask of each other. All of it belongs to the owner loop (before
 * storage_start: to the opening worker), but for what jobs were handed and what view.h shares.
 *
 *   storage.c        options, apply, the switch of memtables, statistics
 *   storage_open.c   opening
 *   storage_read.c   lookups over a view
 *   iterator.c       scans over a view
 *   flush.c          memtable -> table of level 0
 *   merge.c          level 0 and what it overlaps -> level 1
 *   install.c        manifest edits, and new versions once they are durable
 *   reaper.c         what nobody holds any more; closing
 *
 * A generation is one memtable's life:
 *
 *   ACTIVE --switch--> FULL --flush job--> WRITTEN --edit durable--> gone from the read set --last view--> freed by the
 * reaper ^ |
 *                       \-/ a flush that failed is tried again
 *
 * Jobs: at most one flush, one merge, one edit, one reaper under way. storage__schedule starts whatever may start; it
 * is called after everything that could have made something possible.
 */
#ifndef HOLDFAST_STORAGE_INTERNAL_H
#define HOLDFAST_STORAGE_INTERNAL_H

#include "storage/file_names.h"
#include "storage/manifest.h"
#include "storage/memtable.h"
#include "storage/storage.h"
#include "storage/version.h"
#include "storage/view.h"

enum {
    STORAGE_RETRY_US = 1000 * 1000,            /* after a full disk, a lack of memory, a failed flush */
    STORAGE_MERGE_RETRY_US = 30 * 1000 * 1000, /* after a merge met a bad block */
    STORAGE_IDLE_US = 3600 * 1000 * 1000u,     /* the timer's period when there is nothing to try again */
    STORAGE_FLUSH_ATTEMPTS = 3                 /* of one memtable, before an I/O error is final */
};

enum generation_state { GENERATION_ACTIVE, GENERATION_FULL, GENERATION_WRITTEN };

struct generation {
    struct list link; /* storage->full, oldest first */
    struct memtable *memtable;
    enum generation_state state;
    uint64_t refs; /* read sets, and the storage until it is flushed */
    struct generation *next_dead;
    unsigned attempts;                /* flushes that failed with an I/O error */
    struct sst *sst;                  /* WRITTEN; NULL if it held no versions */
    struct storage_frontier frontier; /* from FULL on */
};

struct flush_job {
    struct env_work work;
    struct storage *storage;
    bool running;
    uint64_t retry_at_us;
    struct generation *generation;
    uint64_t number;
    uint64_t id;
    /* Results: */
    enum status status;
    struct error error;
    struct sst *sst;
};

enum merge_state { MERGE_IDLE, MERGE_RUNNING, MERGE_WRITTEN };

struct merge_job {
    struct env_work work;
    struct storage *storage;
    enum merge_state state;
    uint64_t retry_at_us;
    struct version *base; /* pinned: the inputs */
    size_t first, count;  /* of level 1 */
    uint64_t horizon;
    uint64_t number; /* first of those set aside for outputs */
    uint64_t number_end;
    uint64_t id_seed;
    /* Results: */
    enum status status;
    struct error error;
    struct sst **outputs;
    size_t output_count;
    size_t output_capacity;
};

/* A manifest edit under way, with all that publishing it will need. */
struct edit_job {
    struct env_work work;
    struct storage *storage;
    bool running;
    uint64_t retry_at_us;
    struct generation *flushed; /* NULL: a merge */
    struct buf payload;
    bool rotate;
    uint64_t rotate_number;
    struct version *version;
    struct read_set *read_set;
    struct storage_view *view;
    enum status status;
    struct error error;
};

struct reap_job {
    struct env_work work;
    struct storage *storage;
    bool running;
    bool last; /* also closes manifest and lock */
    struct sst *tables;
    struct generation *generations;
};

struct storage {
    struct storage_options options;
    struct env *env;
    struct env_loop *loop;
    char dir[LIMIT_PATH_BYTES];
    struct env_file *lock;
    struct manifest manifest;         /* the edit job's while one is running */
    struct storage_frontier frontier; /* durable */
    uint64_t horizon;
    uint64_t next_file;

    _Atomic uint64_t applied_index;
    uint64_t applied_term;
    uint64_t durable_index;
    struct generation *active;
    struct list full; /* generations, oldest first */
    uint32_t full_count;
    uint64_t switched_index; /* applied when the last generation was switched */
    struct version *version;
    struct read_set *read_set; /* of the next view; the published one's or newer */
    struct view_publisher views;

    bool started;
    bool closing;
    bool broken;       /* `failed` has run: no more jobs */
    bool flush_wanted; /* by storage_flush, when there was no room to switch */
    bool no_space[2];  /* flush, merge */
    void (*closed)(void *context);
    void *closed_context;

    struct flush_job flush;
    struct merge_job merge;
    struct edit_job edit;
    struct reap_job reap;
    struct sst *dead_tables; /* for the reaper */
    struct generation *dead_generations;
    struct env_message collect; /* read sets died on some thread */
    atomic_bool collect_posted;
    struct env_timer timer;

    uint64_t flushes;
    uint64_t merges;
    uint64_t merge_failures;
    uint64_t table_bytes_written;
    uint64_t manifest_bytes_written;
    char problem[ERROR_MESSAGE_BYTES_MAX];
};

/* ---- storage.c ----------------------------------------------------------------------------------------------- */
struct generation *storage__generation_new(struct storage *storage);
/* A read set with room for every generation there may be; empty. */
struct read_set *storage__read_set_new(struct storage *storage);
/* Fills it with the present generations and this version, and makes it the current one. Takes the read set. */
void storage__set_current(struct storage *storage, struct read_set *read_set, struct version *version);
/* Starts what can be started. */
void storage__schedule(struct storage *storage);
/* Wakes the scheduler at this time. */
void storage__wake_at(struct storage *storage, uint64_t deadline_us);
/* The `failed` callback, once. */
void storage__fail(struct storage *storage, const struct error *err);
enum { SPACE_FLUSH, SPACE_MERGE };
/* Remembers whether the disk is full for flushes or merges; tells when that changes for both together. */
void storage__set_space(struct storage *storage, unsigned who, const struct error *err);

/* ---- flush.c, merge.c, install.c: each starts its job if there is one to do ---------------------------------- */
void storage__start_flush(struct storage *storage);
void storage__start_merge(struct storage *storage);
void storage__start_edit(struct storage *storage);
/* The merge's edit is durable, or nothing will come of it: lets go of inputs and outputs, back to idle. */
void storage__merge_end(struct storage *storage);

/* ---- reaper.c ------------------------------------------------------------------------------------------------ */
/* For the publisher: any thread. */
void storage__read_set_dead(struct view_publisher *publisher);
void storage__collect(struct env_message *message);
void storage__unref_generation(struct storage *storage, struct generation *generation);
void storage__unref_version(struct storage *storage, struct version *version);
void storage__unref_table(struct storage *storage, struct sst *sst);
void storage__start_reaper(struct storage *storage);
/* If closing, goes on with it as far as it gets. */
void storage__close_step(struct storage *storage);
/* Worker or host: frees a store whose jobs have ended. */
void storage__free(struct storage *storage);

#endif
