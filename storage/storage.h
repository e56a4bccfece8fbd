/*
 * The engine: an LSM store of versioned keys, fed by a log that somebody else owns.
 *
 * Versions sort by (key ascending, revision descending, ordinal descending); revision is the Raft index of the entry
 * that wrote them. Writes arrive as whole committed entries (storage_apply), in order, and become visible atomically
 * with the applied index. Reads take a view: memtables plus a version (a set of SST files), reference counted, at any
 * revision from the horizon up to the one applied when it was taken.
 *
 *   apply -> memtable --(full)--> immutable memtable --(flush)--> level 0 --(compaction)--> base level -> ...
 *                                                        \-> manifest edit with the frontier
 *
 * There is no log in here: what a crash takes from the memtable is replayed from the WAL behind storage_frontier. One
 * thing is therefore vital: a manifest edit never claims more than the log holds durably (storage_set_durable).
 *
 * Threads. The owner loop (consensus) calls everything unless it says otherwise; views and reads on them are for any
 * thread, the blocking ones only for workers. The memtable has one writer and lock-free readers; the version pointer is
 * swapped by the owner.
 *
 * This header is the door: opening, writing, history, compacting by hand. storage_read.h, storage_upkeep.h and
 * storage_stats.h come with it: reading, long jobs, what the store says of itself.
 *
 * Legal order: storage_open (a worker), storage_apply for replayed entries (same worker), storage_start (the owner
 * loop), then the rest; storage_close.
 */
#ifndef HOLDFAST_STORAGE_H
#define HOLDFAST_STORAGE_H

#include "node/base/list.h"
#include "node/base/slice.h"
#include "node/base/status.h"
#include "node/env/env.h"
#include "storage/compress.h"
#include "storage/digest.h"
#include "storage/frontier.h"
#include "storage/log_share.h"
#include "storage/storage_read.h"
#include "storage/storage_stats.h"
#include "storage/storage_upkeep.h"

struct storage;

/* Every number has a range, in parentheses behind its default; storage_open names the one that is out of it. */
struct storage_options {
    struct env *env;
    struct env_loop *loop;
    const char *dir; /* made if it isn't there */
    uint8_t cluster_id[STORAGE_CLUSTER_ID_BYTES];
    uint64_t node_id; /* both are in the manifest; another's is refused */

    /* Memory. All of the store's is bounded by: immutable_memtables_max + 2 memtables, the cache, compaction_workers
     * times a few MiB, and what views hold. */
    uint64_t memtable_bytes;          /* 64 MiB (1 KiB to 4 GiB): switch and flush at this size */
    uint32_t immutable_memtables_max; /* 2 (1 to 64): waiting for their flush; beyond it storage_can_apply says no */
    uint64_t cache_bytes;             /* 64 MiB (0 to 1 TiB): blocks, filters, indexes */
    uint32_t open_files_max;          /* 512 (1 to 1 Mi) */

    /* Tables. */
    uint32_t block_bytes;               /* 4096 (64 to 1 MiB): of a data block, uncompressed */
    uint32_t partition_bytes;           /* 128 KiB (1 KiB to 16 MiB): of data blocks under one filter and index block */
    uint64_t sst_bytes;                 /* 64 MiB (1 KiB to 4 GiB): target size of a table below level 0 */
    uint8_t bloom_bits[STORAGE_LEVELS]; /* 10 (0 to 32) each: of filter for a key, by level */
    enum compression compression[STORAGE_LEVELS]; /* lz4 each, by level. Where two differ, no table moves from one to
                                                     the other: it is rewritten */
    int zstd_level;                               /* 3 (1 to 12): where compression is zstd */

    /* Large values. */
    uint64_t value_threshold_bytes; /* 32 KiB (0: none; 32 to 16 MiB): values from this length on go to value files when
                                       they are flushed; compactions move only their places */
    uint64_t value_file_bytes;      /* 256 MiB (4 KiB to 64 GiB): a value file ends when it has so many */
    uint32_t value_live_percent_min; /* 50 (0 to 90): of a value file that is still referred to; below it what is left
                                        is moved to another file. 0: never */
    uint64_t value_adopt_bytes;      /* 1 MiB (0: never; to 4 GiB): a memtable that is mostly large values, with so many
                                        bytes of them, isn't copied: segments of the log are taken over (storage_set_log) */

    /* Changes. */
    bool change_files; /* false: flushes write change files, and storage_changes_* reads what was flushed, too. It costs
                          about what the keys take, once */
    enum compression change_compression; /* lz4: of change files */

    bool digests; /* false: the digest chain over what is applied (digest.h) is kept: it fills in the frontier's, which
                     every entry since the first must have gone into */

    /* The tree. */
    uint64_t level_base_bytes;   /* 256 MiB (1 KiB to 1 TiB): the least that a level's target may be */
    uint32_t level_ratio;        /* 10 (2 to 100): of a level's target to that of the one above it */
    uint32_t l0_files_compact;   /* 6 (1 to 1000): tables of level 0 that start a compaction */
    uint32_t l0_files_quiet;     /* 2 (1 to 1000): the same when hardly anything is written, at a low rate */
    uint32_t l0_files_slow;      /* 12 (> l0_files_compact, to 1000): from here on writers are paced */
    uint32_t l0_files_stop;      /* 24 (> l0_files_slow, to 2000): storage_can_apply says no */
    uint32_t tombstone_percent;  /* 50 (1 to 101): of a table's entries: rewritten to get rid of deletes */
    uint32_t history_percent;    /* 50 (1 to 101): of a table's entries below the horizon: rewritten likewise */
    uint64_t history_revisions;  /* 0: only storage_set_horizon moves the horizon; else it also follows the
                                    applied index at this distance */
    uint64_t manifest_bytes_max; /* 4 MiB (4 KiB to 1 GiB): rotate the manifest beyond this */
    /* False. True, with history_revisions 0: no history; the horizon is the applied index, unless a pin holds it. */
    bool history_none;

    /* The machine. */
    uint32_t compaction_workers;              /* 2 (1 to 64) at once. The env's long workers must be more by one, or a
                                                 flush waits for a compaction */
    uint64_t compaction_bytes_per_second_max; /* 0 (0 to 1 TiB): as fast as it goes; else the rate at which
                                                 compactions write in all, as long as level 0 doesn't grow */

    uint64_t scrub_bytes_per_second; /* 0 (0 to 1 GiB): never; else the rate at which all tables are read, over and
                                        over, past the page cache, and their checksums checked. 1 MiB is a good one */

    /* Callbacks, on the loop, never from inside a storage_* call unless it says so. */
    void *context;
    /* The memtable is being switched at (index, term), which are filled in, of the last applied entry: fill in the rest
     * of its frontier, as it was after that entry. This one runs inside calls: in storage_apply of the next entry,
     * before it is applied, and in storage_flush. The horizon is raised to the store's. May be NULL. */
    void (*fill_frontier)(void *context, struct storage_frontier *frontier);
    /* A manifest with this frontier is durable. */
    void (*flushed)(void *context, const struct storage_frontier *frontier);
    /* storage_can_apply is true again. */
    void (*can_apply)(void *context);
    /* The manifest's write or sync failed, or a memtable couldn't be written in several attempts: stop. Runs once; no
     * job is started afterwards. A compaction that can't read a table is not among the reasons: see storage_stats. */
    void (*failed)(void *context, const struct error *err);
    /* Disk full while writing an SST: output dropped, tried again every second. err NULL: over. */
    void (*space_state)(void *context, const struct error *err);
    /* The scrub met a damaged place for the first time. */
    void (*damaged)(void *context, const struct storage_damage *damage);
};

void storage_options_init(struct storage_options *options);

/* Opens or creates. Blocks, but no longer than it takes to read the manifest: tables are opened when they are first
 * needed. Holds a lock file while it is open: STATUS_BUSY. Removes its own files that no manifest names.
 * STATUS_INVALID: another cluster's or node's, or options out of range; STATUS_UNSUPPORTED: format version;
 * STATUS_CORRUPT, STATUS_IO: err names file and offset. Works on a full disk. */
MUST_USE enum status storage_open(const struct storage_options *options, struct storage **ret_storage,
                                  struct error *err);
/* On the loop: flushes and compactions may begin. */
void storage_start(struct storage *storage);
/* On the loop, after storage_start: what the owner's log lends of its segments (log_share.h), for large values; copied.
 * Log and store are on one file system, and their files may be linked, or else values are copied. It is called until
 * storage_close, from inside of calls, too. NULL: nothing any more. */
void storage_set_log(struct storage *storage, const struct log_share *share);
/* On the loop, also before storage_start. No callbacks from now on; jobs under way finish first, then closed runs and
 * the storage is gone. All views must have been released. What is only in the memtable is left to the log. */
void storage_close(struct storage *storage, void (*closed)(void *context), void *context);

/* Removes the files of a store that nobody has open (STATUS_BUSY), and the directory, if nothing else is in it. Blocks:
 * a worker, or a thread without a loop. A crash leaves a part of the files and no store; call it again.
 * STATUS_NOT_FOUND: there is no directory; STATUS_INVALID: it is another program's. */
MUST_USE enum status storage_destroy(struct env *env, const char *dir, struct error *err);

/* The manifest's. After storage_open, replay starts behind its index. */
const struct storage_frontier *storage_frontier(const struct storage *storage);
/* The newest entry that the store has: the last applied one, or an older one as long as it catches up with what is
 * shown after it went back (storage_ingest). */
uint64_t storage_inserted_index(const struct storage *storage);
/* Last applied (index, term). */
uint64_t storage_applied_index(const struct storage *storage); /* any thread */
uint64_t storage_applied_term(const struct storage *storage);
/* Of all that was applied up to this entry (digest.h). False: the option `digests` is off, the entry isn't applied yet,
 * or it isn't among the newest DIGESTS_KEPT since the opening (or an ingest) any more. */
bool storage_digest(const struct storage *storage, uint64_t index, struct digest *ret_digest);

/* ---- Writing (owner loop, or the opening worker before storage_start) ---------------------------------------- */

/* False: wait for the can_apply callback; storage_apply is illegal until then. */
bool storage_can_apply(const struct storage *storage);

/* Applies entry `index` = storage_inserted_index + 1: batch is a checked write batch (batch.h) or empty for entries
 * without data. All its operations and the applied index become visible together. While the store catches up they stay
 * unseen, up to the entry that is shown already, and all are seen with that. STATUS_CORRUPT, STATUS_UNSUPPORTED (the
 * batch), STATUS_NO_MEMORY: nothing applied. Before storage_start the size of the memtable is not bounded by a flush:
 * the replay is, by the log. */
MUST_USE enum status storage_apply(struct storage *storage, uint64_t index, uint64_t term, struct slice batch,
                                   struct error *err);
/* The two halves of it, for groups: storage_insert puts the entry behind the last inserted one into the memtable, where
 * no reader sees it; storage_publish shows all up to an index at once. Views, storage_applied_index and the
 * statistics know nothing of it before; a flush may take it along, so the log has it by then. STATUS_NO_MEMORY of
 * storage_publish: nothing is lost, try again. */
MUST_USE enum status storage_insert(struct storage *storage, uint64_t index, uint64_t term, struct slice batch,
                                    struct error *err);
MUST_USE enum status storage_publish(struct storage *storage, uint64_t index, uint64_t term, struct error *err);

/* All up to here is synced in this node's log and committed: min(synced, committed). A flush beyond it waits. */
void storage_set_durable(struct storage *storage, uint64_t index);

/* The owner's log has failed, so nothing will be durable any more: no job is started from now on, storage_compact_range
 * ends with STATUS_FAILED, and `failed` runs, as after a failure of the store's own. Reads go on. */
void storage_fail(struct storage *storage, const struct error *err);

/* Switches the memtable if anything was applied since the last switch, be it entries without data; `flushed` will tell.
 * If too many wait for their flush already, as soon as one is done. */
void storage_flush(struct storage *storage);

/* How long a writer should wait before it goes on, so that flushes and compactions keep up: microseconds, at most
 * STORAGE_PACE_US_MAX; 0 nearly always. `bytes`: what was just applied, as batch bytes. It grows smoothly with the
 * immutable memtables, level 0, and what compactions owe; storage_can_apply stays the hard bound. The answer counts as
 * a stall in the statistics: ask once for each write (or group of them), and do wait. */
enum { STORAGE_PACE_US_MAX = 100 * 1000 };
uint64_t storage_pace_us(struct storage *storage, size_t bytes);

/* ---- History (owner loop) -------------------------------------------------------------------------------------- */

/* Versions that no read at or above the horizon can see are dropped by flushes and compactions. Never decreases; not
 * above the applied index, nor above any pin. */
void storage_set_horizon(struct storage *storage, uint64_t revision);
/* The oldest revision that reads may still ask for. */
uint64_t storage_horizon(const struct storage *storage);

/* Holds the horizon back: while the pin is there, everything at its revision and above stays readable. */
struct storage_pin {
    struct list link;
    char name[LIMIT_NAME_BYTES]; /* for the statistics: who holds it */
    uint64_t revision;
    uint64_t since_us; /* the store's */
};

/* Name and revision filled in; borrowed until storage_pin_remove, which must come before storage_close.
 * STATUS_COMPACTED: the revision is below the horizon already; nothing is pinned. */
MUST_USE enum status storage_pin_add(struct storage *storage, struct storage_pin *pin);
void storage_pin_remove(struct storage *storage, struct storage_pin *pin);

/* ---- Compacting by hand (owner loop) ---------------------------------------------------------------------------- */

/* Rewrites everything in [lower, upper) down to the last level that holds any of it, and drops all that the horizon
 * allows: deletes, range deletes, old versions. */
struct storage_compact {
    struct slice lower; /* borrowed until done, or until the store is closed */
    struct slice upper; /* len 0: no end */
    /* Runs once, on the loop, unless the store is closed before. STATUS_OK; STATUS_FAILED: the store has failed;
     * STATUS_CORRUPT, STATUS_IO: a table of the range can't be read, what could be done without it was; STATUS_IO also:
     * nothing can be written, tried three times. Space and memory are waited for. */
    void (*done)(struct storage_compact *compact, enum status status);
    void *context; /* the caller's */
    /* Progress, the store's: */
    uint64_t done_bytes;
    uint64_t left_bytes; /* as estimated now */
    /* The store's: */
    struct list link;
    unsigned state;
    enum status status;
    struct error error; /* for `done`, if it didn't work */
    uint64_t flush_index;
    uint64_t number_end;
};

/* What is in the memtable when this is called is flushed first. One after the other, in order. */
void storage_compact_range(struct storage *storage, struct storage_compact *compact);

#endif
