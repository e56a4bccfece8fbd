/*
 * The engine's inside: one struct and what its parts ask of each other. All of it belongs to the owner loop (before
 * storage_start: to the opening worker), but for what jobs were handed, what view.h shares, and what says otherwise.
 *
 *   storage.c            memtables and their switch, applying
 *   storage_options.c    defaults and ranges of the options
 *   storage_open.c       opening
 *   storage_read.c       lookups over a view
 *   iterator.c           scans over a view
 *   schedule.c           what may start; retries; final failure; full disks
 *   flush.c              memtable -> table of level 0, and value files
 *   values_output.c      value files that flushes and compactions write
 *   values_adopt.c       segments of the log that flushes take over instead
 *   change_output.c      change files: written by flushes, dropped below the horizon
 *   compaction.c         which compactions start, what becomes of them; tables that they leave alone
 *   compaction_run.c     a compaction's work on its worker
 *   compact_range.c      compactions asked for by hand
 *   install.c            manifest edits, and new versions once they are durable
 *   history.c            horizon and pins
 *   quiet.c              level 0 while nobody writes
 *   throttle.c           rates: of compactions, of writers; stalls
 *   storage_stats.c      statistics, damage met by reads
 *   scrub.c              checksums of all tables, over and over
 *   upkeep.c             long jobs, one at a time: checkpoint.c, verify_live.c, digest_scan.c, ingest.c
 *   reaper.c             what nobody holds any more; closing
 *
 * A generation is one memtable's life:
 *
 *   ACTIVE --switch--> FULL --flush job--> WRITTEN --edit durable--> gone from the read set --last view--> reaper
 *                       ^ |
 *                       \-/ a flush that failed is tried again
 *
 * Jobs under way: at most one flush, one edit, one reaper, and compaction_workers compactions. storage__schedule starts
 * whatever may start; it is called after everything that could have made something possible.
 */
#ifndef HOLDFAST_STORAGE_INTERNAL_H
#define HOLDFAST_STORAGE_INTERNAL_H

#include "storage/compaction_pick.h"
#include "storage/file_names.h"
#include "storage/manifest.h"
#include "storage/memtable.h"
#include "storage/storage.h"
#include "storage/version.h"
#include "storage/view.h"

enum {
    STORAGE_RETRY_US = 1000 * 1000,            /* after a full disk, a lack of memory, a failed flush */
    STORAGE_UNWRITABLE_MAX = 3,                /* failed outputs in a row end what was asked for by hand */
    STORAGE_BACKOFF_MIN_US = 10 * 1000 * 1000, /* after a compaction met a bad block; doubles for the same table */
    STORAGE_BACKOFF_MAX_US = 3600 * 1000 * 1000u,
    STORAGE_PICK_INTERVAL_US = 1000 * 1000, /* how often a moving horizon alone makes us look for compactions */
    STORAGE_IDLE_US = 3600 * 1000 * 1000u,  /* the timer's period when there is nothing to try again */
    STORAGE_FLUSH_ATTEMPTS = 3,             /* of one memtable, before an I/O error is final */
    STORAGE_COMPACTION_WORKERS_MAX = 64,
    STORAGE_BLOCKED_MAX = 64, /* tables that compactions leave alone, at once */
    SCRUB_FOUND_MAX = 64      /* places in one piece of a table */
};

/* The value files that one flush or compaction writes: begun when the first value comes, cut at their size. */
struct values_output {
    struct storage *storage;
    unsigned level;                              /* of the tables that refer to them: says how they are compressed */
    void (*pace)(void *context, uint64_t bytes); /* as in sst_builder.h; context: the store */
    struct value_builder *builder;               /* NULL: none under way */
    struct sst **files;                          /* written or taken over, one reference each */
    size_t count;
    size_t capacity;
    uint64_t bytes;         /* of the files written */
    uint64_t adopted_bytes; /* of those taken over */
};

/* Segments of the log that one flush may take over as value files. */
struct values_adoption {
    struct log_segments segments;
    struct adopted *adopted; /* what becomes of each; NULL: nothing */
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
    struct values_output values;      /* WRITTEN */
    struct sst *changes;              /* WRITTEN: its change file; NULL: none */
    struct storage_frontier frontier; /* from FULL on */
    uint64_t horizon;                 /* FULL: the store's at the switch; WRITTEN: what reads below it can't be told any
                                         more, 0: nothing */
    /* For values_adopt.c: */
    uint64_t first_index;    /* of its entries */
    uint64_t batch_bytes;    /* of all that went into it */
    uint64_t large_bytes;    /* of these: batches of large values */
    bool adopts;             /* the log was asked for another segment; the flush waits for that, */
    uint64_t adopt_until_us; /* but no longer */
};

struct flush_job {
    struct env_work work;
    struct storage *storage;
    bool running;
    uint64_t retry_at_us;
    uint64_t started_us;
    struct generation *generation;
    uint64_t number;
    struct values_adoption adoption;
    /* Results: */
    enum status status;
    struct error error;
    bool is_thinned; /* something that only reads below the horizon could see was left out */
    struct sst *sst;
    struct values_output values;
    struct sst *changes;
};

enum compaction_state { COMPACTION_IDLE, COMPACTION_RUNNING, COMPACTION_WRITTEN };

struct compaction_job {
    struct env_work work;
    struct storage *storage;
    enum compaction_state state;
    struct list link; /* storage->written: waiting for its edit */
    struct compaction_plan plan;
    struct version *base; /* pinned: the inputs are its tables */
    uint64_t horizon;
    uint64_t started_us;
    /* Results: */
    enum status status;
    bool output_failed; /* the error is one of writing */
    struct error error;
    struct sst **outputs;
    size_t output_count;
    size_t output_capacity;
    struct values_output values;
    uint64_t read_bytes; /* values that were moved */
    uint64_t written_bytes;
};

/* A manifest edit under way, with all that publishing it will need. */
struct edit_job {
    struct env_work work;
    struct storage *storage;
    bool running;
    uint64_t retry_at_us;
    struct generation *flushed;        /* or: */
    struct compaction_job *compaction; /* or neither: change files go */
    uint64_t changes_after;            /* what becomes of the version's */
    struct buf payload;
    bool rotate;
    uint64_t rotate_number;
    uint64_t next_file; /* for the rotation */
    struct version *version;
    struct read_set *read_set;
    struct storage_view *view;
    enum status status;
    bool waits; /* for space: nothing was written */
    struct error error;
};

/* The scrub: one piece of a file at a time. */
struct sst_top;
struct scrub_job {
    struct env_work work;
    struct storage *storage;
    bool running;
    uint64_t next_us;    /* no piece before this */
    uint64_t number;     /* of the file under way, or the last one; 0: none in this pass */
    struct sst *sst;     /* a table or value file, referenced; NULL: between two */
    bool has_ends;       /* its first piece, which leads to all others, is done */
    bool is_done;        /* it has no more pieces */
    struct sst_top *top; /* a table's */
    uint32_t part;       /* the next partition, or value */
    struct buf sizes;    /* of a value file's values */
    uint8_t *window;     /* what its pieces are read into, one after the other; NULL: not yet */
    size_t window_capacity;
    uint64_t value_at; /* where the next one stands */
    uint64_t values_end;
    /* Results of a piece: */
    enum status status;
    uint64_t bytes;
    uint32_t found_count;
    uint64_t found[SCRUB_FOUND_MAX]; /* offsets */
    /* For the statistics: */
    uint64_t passes;
    uint64_t bytes_total;
    uint64_t finding_total;
    uint32_t damage_count;
    struct storage_damage damages[STORAGE_DAMAGES_MAX];
};

struct reap_job {
    struct env_work work;
    struct storage *storage;
    bool running;
    bool last;          /* also closes manifest and lock */
    uint64_t next_us;   /* no file goes before this */
    uint64_t unlink_us; /* result: what the last ones took */
    struct sst *tables;
    struct generation *generations;
    bool keeps;             /* one memtable is to be kept: */
    struct memtable *spare; /* result */
};

/* A table that compactions leave alone: it counts as taken until the time has come. */
struct blocked_table {
    struct sst *sst; /* referenced */
    uint64_t until_us;
    unsigned failures;
    enum status why;
    bool is_waiting; /* marked as taken; else a try is under way or may start */
};

/* What readers and compactions met; any thread, under its lock. */
struct damage_list {
    struct env_mutex lock;
    uint64_t count;
    uint32_t table_count;
    uint64_t tables[STORAGE_DAMAGES_MAX]; /* numbers, each once; the newest replace the oldest */
    uint32_t told_count;
    uint64_t told[STORAGE_DAMAGES_MAX]; /* likewise: what storage_next_damage has named, or will name next */
    uint32_t news_count;                /* of these the last are still to be named */
    uint64_t message_table;             /* which one it is about */
    char message[ERROR_MESSAGE_BYTES_MAX];
};

/* How fast compactions may write in all: any worker. */
struct rate_limiter {
    uint64_t bytes_per_second; /* 0: no limit */
    _Atomic uint64_t next_us;  /* when the next piece may be written */
    atomic_bool relaxed;       /* level 0 grows: no limit for now */
};

struct stall_state {
    struct storage_stall_stats stats[STORAGE_STALL_COUNT];
    bool is_stopped; /* storage_can_apply says no */
    enum storage_stall stopped_by;
    uint64_t stopped_us;
    uint64_t next_write_us; /* pacing: when the next write may come */
    uint64_t flush_rate;    /* bytes per second, as measured lately; 0: unknown */
    uint64_t level0_rate;   /* at which compactions empty level 0 */
};

/* quiet.c */
struct quiet_merge {
    uint64_t window_us;    /* the window began; 0: none is under way */
    uint64_t window_bytes; /* applied until then */
    bool is_quiet;         /* the last one was */
    uint64_t next_us;      /* no merging before */
};

/* Who found the disk full. */
enum { SPACE_FLUSH, SPACE_COMPACTION, SPACE_MANIFEST, SPACE_COUNT };

struct storage {
    struct storage_options options;
    struct env *env;
    struct env_loop *loop;
    struct log_share log; /* .log NULL: none */
    char dir[LIMIT_PATH_BYTES];
    struct env_file *lock;
    struct cache *cache;
    struct open_files *open_files;
    struct sst_context sst_context;
    struct manifest manifest;         /* the edit job's while one is running */
    struct storage_frontier frontier; /* durable */
    _Atomic uint64_t next_file;       /* workers take numbers, too */

    _Atomic uint64_t applied_index; /* shown to readers */
    uint64_t applied_term;
    uint64_t inserted_index; /* in the memtable */
    uint64_t inserted_term;
    uint64_t durable_index;
    uint64_t durable_wanted; /* what the next edit waits for; UINT64_MAX: nothing waits */
    struct generation *active;
    struct memtable *spare; /* empty, with the memory of one that was flushed; NULL: none */
    struct list full;       /* generations, oldest first */
    uint32_t full_count;
    uint64_t switched_index; /* inserted when the last generation was switched */
    struct version *version;
    struct read_set *read_set;      /* of the next view; the published one's or newer */
    struct digest_history *digests; /* of what was inserted; NULL: the option is off */
    struct view_publisher views;
    struct list old_sets; /* read sets that were replaced and live on, oldest first */

    uint64_t horizon_wanted;
    struct list pins; /* lowest revision first */

    bool started;
    bool closing;
    bool broken;       /* `failed` has run: no more jobs */
    bool flush_wanted; /* by storage_flush, when there was no room to switch */
    bool no_space[SPACE_COUNT];
    atomic_bool stop; /* compactions under way give up: any worker */
    void (*closed)(void *context);
    void *closed_context;

    struct flush_job flush;
    struct edit_job edit;
    struct reap_job reap;
    struct scrub_job scrub;
    struct compaction_job *jobs; /* compaction_workers of them */
    uint32_t jobs_running;       /* RUNNING */
    struct list written;         /* jobs that wait for their edit, oldest first */
    uint64_t debt_bytes;         /* of `version` */
    bool pick_wanted;            /* something changed since the picker found nothing */
    uint64_t picked_us;
    uint64_t compact_retry_us;
    struct blocked_table blocked[STORAGE_BLOCKED_MAX];
    uint32_t blocked_count;
    uint64_t catch_up_index; /* up to here entries were applied once more, or are to be, since it went back; 0: never */
    uint32_t ingest_count;   /* asked for and not done: nothing is applied */
    bool quiet;              /* an ingest is about to switch: no flush, edit or compaction starts */
    struct list upkeeps;     /* struct storage_upkeep, the first is under way */
    struct env_task upkeeps_task;
    struct list upkeeps_done;
    struct list compacts; /* struct storage_compact, the first is under way */
    struct env_task compacts_task;
    struct list compacts_done;

    struct sst *dead_tables; /* for the reaper; */
    uint64_t dead_bytes;     /* obsolete ones among them */
    struct generation *dead_generations;
    struct env_message collect; /* read sets died on some thread */
    atomic_bool collect_posted;
    struct env_timer timer;

    struct rate_limiter limiter;
    struct quiet_merge quiet_merge;
    struct stall_state stalls;
    struct damage_list damage;
    uint64_t flushes;
    uint64_t flush_bytes;
    uint64_t adopted_bytes;
    uint64_t change_bytes;
    uint64_t compactions[STORAGE_COMPACTION_REASONS];
    uint64_t compaction_failures;
    uint32_t unwritable_count; /* of them, in a row: the disk failed to take an output */
    uint64_t compaction_read_bytes;
    uint64_t compaction_written_bytes;
    uint64_t moved_value_bytes;
    uint64_t manifest_bytes_written;
    uint64_t applied_bytes;
    uint64_t obsolete_bytes; /* of tables that no version needs but some view still holds */
    char problem[ERROR_MESSAGE_BYTES_MAX];
};

/* ---- storage.c ----------------------------------------------------------------------------------------------- */
struct generation *storage__generation_new(struct storage *storage);
void storage__generation_free(struct storage *storage, struct generation *generation);
/* A read set with room for every generation there may be; empty. */
struct read_set *storage__read_set_new(struct storage *storage);
/* Fills it with the present generations and this version, and makes it the current one. Takes the read set. */
void storage__set_current(struct storage *storage, struct read_set *read_set, struct version *version);
/* A storage_flush that is still owed. */
void storage__switch_if_wanted(struct storage *storage);
bool storage__is_full(const struct storage *storage);
bool storage__can_switch(const struct storage *storage);
/* The frontier was taken over: the digest chain goes on behind it. */
void storage__begin_digests(struct storage *storage);

/* ---- storage_options.c --------------------------------------------------------------------------------------- */
MUST_USE enum status storage__check_options(const struct storage_options *options, struct error *err);

/* ---- schedule.c ---------------------------------------------------------------------------------------------- */
/* Starts what can be started. */
void storage__schedule(struct storage *storage);
/* Wakes the scheduler at this time. */
void storage__wake_at(struct storage *storage, uint64_t deadline_us);
/* The `failed` callback, once. */
void storage__fail(struct storage *storage, const struct error *err);
/* Remembers whether the disk is full for flushes or compactions; tells when that changes for both together. */
void storage__set_space(struct storage *storage, unsigned who, const struct error *err);

/* ---- storage_open.c ------------------------------------------------------------------------------------------ */
/* A version with one reference, of tables that nothing was read of yet. Whether it is sound is to be seen. Any thread.
 * STATUS_NO_MEMORY. */
MUST_USE enum status storage__make_version(const struct sst_context *context, const struct manifest_state *state,
                                           struct version **ret_version, struct error *err);

/* ---- flush.c, install.c: each starts its job if there is one to do ------------------------------------------- */
void storage__start_flush(struct storage *storage);
void storage__start_edit(struct storage *storage);
/* The edit that makes an empty store into this. Any thread. STATUS_NO_MEMORY. */
MUST_USE enum status storage__encode_state(const struct version *version, const struct storage_frontier *frontier,
                                           uint64_t next_file_number, struct buf *out);
/* What a table of this level is built like. Worker. */
void storage__builder_options(struct storage *storage, unsigned level, const char *path, uint64_t number,
                              struct sst_builder_options *ret_options);
/* A table that was written, opened for reading. Worker. */
MUST_USE enum status storage__open_written(struct storage *storage, const struct sst_meta *meta, struct sst **ret_sst,
                                           struct error *err);

/* ---- values_output.c: workers, but for the last --------------------------------------------------------------- */
void values_output__init(struct values_output *output, struct storage *storage, unsigned level,
                         void (*pace)(void *context, uint64_t bytes));
/* Writes the version's value; what its entry says instead is in ret_place. STATUS_IO, STATUS_NO_SPACE,
 * STATUS_NO_MEMORY. */
MUST_USE enum status values_output__add(struct values_output *output, const struct entry *entry,
                                        uint8_t ret_place[VALUE_PLACE_BYTES], struct error *err);
/* Writes the rest and syncs the last file (not the directory). Statuses as above. */
MUST_USE enum status values_output__end(struct values_output *output, struct error *err);
/* One more file, with one reference; taken. STATUS_NO_MEMORY: it isn't. */
MUST_USE enum status values_output__take(struct values_output *output, struct sst *file);
/* Nothing will come of them: removes the files. */
void values_output__drop(struct values_output *output);
/* Owner: lets go of the files, which stay where they are unless they are obsolete. */
void values_output__release(struct values_output *output);

/* ---- values_adopt.c ------------------------------------------------------------------------------------------- */
/* Owner: a batch went into the memtable. */
void storage__adopt_note(const struct storage *storage, struct generation *generation, struct slice batch);
/* Owner: the memtable was switched. */
void storage__adopt_turn(struct storage *storage, struct generation *generation);
/* Owner: false: it is worth waiting with the flush until then. */
bool storage__adopt_is_ready(struct storage *storage, const struct generation *generation, uint64_t *ret_again_us);
/* Owner: before and after the flush's work, whatever came of it. */
void storage__adopt_take(struct storage *storage, const struct generation *generation,
                         struct values_adoption *adoption);
void storage__adopt_end(struct storage *storage, struct values_adoption *adoption);
/* Worker: before the first entry. covering: the range deletes, as the table gets them. */
void storage__adopt_begin(struct flush_job *job, const struct tombstones *covering);
/* Worker: true: what the version's entry says instead of its value is in ret_place; else it is to be copied. */
bool storage__adopt_place(struct values_adoption *adoption, const struct entry *entry,
                          uint8_t ret_place[VALUE_PLACE_BYTES]);
/* Worker: behind the last entry, status says whether all went well so far. The files that entries refer to are among
 * job->values then, unless it says otherwise; the others are gone. Returns status, or STATUS_NO_MEMORY. */
MUST_USE enum status storage__adopt_finish(struct flush_job *job, enum status status, struct error *err);
/* ---- change_output.c ----------------------------------------------------------------------------------------- */
/* Worker: the memtable's change file, synced (not the directory), one reference; NULL if the option is off. STATUS_IO,
 * STATUS_NO_SPACE, STATUS_NO_MEMORY: there is none. */
MUST_USE enum status storage__write_changes(struct storage *storage, const struct memtable *memtable,
                                            struct sst **ret_file, struct error *err);
/* Worker: nothing will come of it: removes the file. NULL is accepted. */
void storage__drop_changes(struct storage *storage, struct sst *file);
/* Owner: what changes_after of the version becomes with an edit now: behind change files that lie below the horizon,
 * and behind all that is flushed without one. flushed NULL: no flush. */
uint64_t storage__changes_after(struct storage *storage, const struct generation *flushed);
/* The fields of an edit that makes one of the other. STATUS_NO_MEMORY. */
MUST_USE enum status storage__encode_changes(const struct version *old, const struct version *new, struct buf *out);
/* Changes of this revision and later ones can be read of the version, and of memtables behind it. Any thread. */
static inline uint64_t storage__changes_oldest(const struct version *version) {
    return version->changes_after + 1 > version->horizon ? version->changes_after + 1 : version->horizon;
}
/* Owner: change files that the new version doesn't have are obsolete. */
void storage__retire_changes(struct storage *storage, const struct version *old, const struct version *new);

/* ---- compaction.c, compaction_run.c, compact_range.c --------------------------------------------------------- */
struct storage_pick {
    struct compaction_pick pick;
    const struct compaction_plan *under_way[STORAGE_COMPACTION_WORKERS_MAX];
};

/* Must stay where it is. */
void storage__pick_init(struct storage *storage, struct storage_pick *pick);
void storage__start_compactions(struct storage *storage);
/* The compaction's edit is durable, or nothing will come of it: lets go of inputs and outputs; the job is idle. */
void storage__compaction_end(struct storage *storage, struct compaction_job *job);
/* Worker. */
void storage__compaction_run(struct env_work *work);
/* Lets go of the tables that compactions leave alone, all or those that are obsolete. */
void storage__unblock(struct storage *storage, bool all);
/* Owner: such tables of a range are tried again as soon as may be. */
void storage__retry_blocked(struct storage *storage, struct slice lower, struct slice upper);
/* Owner: what compactions met in such a table of a range, if older than number_end; STATUS_OK: there is none. */
enum status storage__why_blocked(const struct storage *storage, struct slice lower, struct slice upper,
                                 uint64_t number_end);
/* The next step of the compaction asked for by hand; STATUS_NOT_FOUND: none now. */
MUST_USE enum status storage__compact_range_pick(struct storage *storage, const struct compaction_pick *pick,
                                                 struct compaction_plan *ret_plan);
void storage__compact_range_init(struct storage *storage);
void storage__compact_range_advance(struct storage *storage);
void storage__compact_range_fail(struct storage *storage);
/* Owner: the disk took no output, again and again: the compaction asked for by hand ends. */
void storage__compact_range_unwritable(struct storage *storage);

/* ---- quiet.c -------------------------------------------------------------------------------------------------- */
/* Nearly nothing is written, nothing is under way, and level 0 is worth merging; else it is seen to that somebody asks
 * again in time. */
bool storage__is_quiet(struct storage *storage);
void storage__note_quiet_merge(struct storage *storage, uint64_t written_bytes);

/* ---- upkeep.c ------------------------------------------------------------------------------------------------ */
enum upkeep_next {
    UPKEEP_WAIT,   /* not yet: ask again when the store has got on */
    UPKEEP_RUN,    /* on a worker, then ask again */
    UPKEEP_OTHERS, /* those that wait come first, then ask again */
    UPKEEP_END     /* upkeep->status says how */
};

/* A kind of job. upkeep->stage is its own, 0 at first. */
struct upkeep_kind {
    enum upkeep_next (*step)(struct storage *storage, struct storage_upkeep *upkeep); /* owner */
    void (*run)(struct storage *storage, struct storage_upkeep *upkeep);              /* worker; sets status, error */
    void (*drop)(struct storage *storage, struct storage_upkeep *upkeep); /* owner: gives back what it holds */
    /* Owner: right before done; true if `can_apply` is to be called behind it. May be NULL. */
    bool (*release)(struct storage *storage, struct storage_upkeep *upkeep);
};

void storage__upkeep_init(struct storage *storage);
/* Queues it. dir NULL: it has none; else STATUS_INVALID if names in it get too long. */
void storage__upkeep_ask(struct storage *storage, struct storage_upkeep *upkeep, const struct upkeep_kind *kind,
                         const char *dir);
/* Starts and ends what can be. */
void storage__upkeep_advance(struct storage *storage);
/* Closing: true once none is left. */
bool storage__upkeep_close(struct storage *storage);
static inline bool storage__upkeep_is_cancelled(const struct storage_upkeep *upkeep) {
    return atomic_load_explicit(&upkeep->is_cancelled, memory_order_relaxed);
}

/* ---- scrub.c ------------------------------------------------------------------------------------------------- */
void storage__start_scrub(struct storage *storage);
/* True if the version has this file. */
bool storage__is_live(const struct version *version, uint64_t number);
/* Not running: it holds nothing afterwards. */
void storage__scrub_let_go(struct storage *storage);
void storage__fill_scrub_stats(struct storage *storage, struct storage_stats *stats);

/* ---- throttle.c ---------------------------------------------------------------------------------------------- */
/* Worker: before a compaction writes so many bytes. Sleeps. context: the store. */
void storage__pace_compaction(void *context, uint64_t bytes);
/* Owner: after anything that may have let writers go on or stopped them. */
void storage__note_stall(struct storage *storage);
void storage__note_flush(struct storage *storage, uint64_t bytes, uint64_t us);
void storage__note_level0(struct storage *storage, uint64_t bytes, uint64_t us);
/* True while level 0 grows. */
bool storage__is_level0_growing(const struct storage *storage);

/* ---- storage_stats.c ----------------------------------------------------------------------------------------- */
/* For sst_context: any thread. */
void storage__damaged(void *context, const struct sst *sst, const struct error *err);
/* True if damage of this table was reported; forgets it. */
bool storage__take_damage(struct storage *storage, uint64_t number);

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
