/*
 * The engine: an LSM store of versioned keys, fed by a log that somebody else owns.
 *
 * Versions sort by (key ascending, revision descending, ordinal descending); revision is the Raft index of the entry
 * that wrote them. Writes arrive as whole committed entries (storage_apply), in order, and become visible atomically
 * with the applied index. Reads take a view: memtables plus a version (a set of SST files), reference counted, at any
 * revision from the horizon up to the one applied when it was taken.
 *
 *   apply -> memtable --(full)--> immutable memtable --(flush)--> level 0 --(compaction)--> base level -> ... -> level
 * 6
 *                                                        \-> manifest edit with the frontier
 *
 * There is no log in here: what a crash takes from the memtable is replayed from the WAL behind storage_frontier. One
 * thing is therefore vital: a manifest edit never claims more than the log holds durably (storage_set_durable).
 *
 * Threads. The owner loop (consensus) calls everything unless it says otherwise; views and reads on them are for any
 * thread, the blocking ones only for workers. The memtable has one writer and lock-free readers; the version pointer is
 * swapped by the owner.
 *
 * Legal order: storage_open (a worker), storage_apply for replayed entries (same worker), storage_start (the owner
 * loop), then the rest; storage_close.
 */
#ifndef HOLDFAST_STORAGE_H
#define HOLDFAST_STORAGE_H

#include "node/base/buf.h"
#include "node/base/slice.h"
#include "node/base/status.h"
#include "node/env/env.h"
#include "storage/cache.h"
#include "storage/change.h"
#include "storage/compress.h"
#include "storage/digest.h"
#include "storage/fetch.h"
#include "storage/log_share.h"
#include "storage/open_files.h"
#include "storage/sst.h"

struct storage;
struct storage_view;
struct storage_iterator;

enum { STORAGE_LEVELS = 7 };
enum { STORAGE_CLUSTER_ID_BYTES = 16, STORAGE_DIGEST_BYTES = DIGEST_BYTES };

/* What the manifest records with each flush: the state that the SST files hold, all of it derived from the log. */
struct storage_frontier {
    uint64_t index;
    uint64_t term;
    uint64_t cluster_time_ms;
    uint64_t horizon; /* oldest revision that can still be read */
    uint32_t feature_level;
    uint64_t session_epoch; /* session table that goes with it */
    uint8_t digest[STORAGE_DIGEST_BYTES];
    uint8_t membership[LIMIT_MEMBERSHIP_BYTES]; /* opaque, as in the log */
    uint32_t membership_len;
};

/* A damaged place of a file. */
struct storage_damage {
    uint64_t file;     /* number of the table, value file or change file */
    uint64_t offset;   /* of the block; 0: header, the file as a whole, or not known */
    uint64_t count;    /* passes of the scrub that met it */
    uint64_t since_us; /* env clock */
};

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
    uint64_t
        value_adopt_bytes; /* 1 MiB (0: never; to 4 GiB): a memtable that is mostly large values, with so many
                              bytes      of them, isn't copied: segments of the log are taken over (storage_set_log) */

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
     * STATUS_CORRUPT, STATUS_IO: a table of the range can't be read, what could be done without it was. Space and
     * memory are waited for. */
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

/* ---- Reading (any thread) ------------------------------------------------------------------------------------ */

/* The newest state; never NULL, never blocks. Owned: release it on any thread, soon; it pins memory and files. */
struct storage_view *storage_view_acquire(struct storage *storage);
void storage_view_release(struct storage_view *view);
/* Once more, for one that is held: released as often. */
void storage_view_hold(struct storage_view *view);
/* Revision applied when it was taken: the newest that it can show. Asking a view for a newer one is an error of the
 * caller's (CHECK). */
uint64_t storage_view_revision(const struct storage_view *view);
/* The oldest revision that it can show: reads below it are STATUS_COMPACTED. Fixed for the view's life. */
uint64_t storage_view_horizon(const struct storage_view *view);

/* What makes a read asynchronous. One operation at a time (a get, a multi-get, an iterator) uses it, on its loop:
 *
 *   storage_io_init -> read -> STATUS_PENDING -> storage_io_start -> ready -> the same read again -> ... -> deinit
 *
 * STATUS_PENDING means that blocks are missing, all that the read knows of at this point. Nothing has been asked for
 * yet: storage_io_start does, all at once, and `ready` runs on the loop, never inside a call, when they are there (or
 * failed: the read says so). An iterator that passes over very many deleted keys also says it, to give others their
 * turn. Until then the operation must be left alone: its view, keys and iterator stay. The read is then repeated with
 * the same arguments.
 *
 * Reads without one (io NULL) block: on threads that own no connections only. */
struct storage_io {
    struct fetch fetch;
    void (*ready)(struct storage_io *io);
    struct env_message pause; /* of a walk that took long without missing anything */
    bool is_paused;
};

/* Allocates nothing. */
void storage_io_init(struct storage_io *io, struct storage *storage, struct env_loop *loop,
                     void (*ready)(struct storage_io *io));
void storage_io_start(struct storage_io *io);
/* True between storage_io_start and ready. */
bool storage_io_is_busy(const struct storage_io *io);
/* Not busy. An iterator that used it is freed first. Afterwards it may be initialised again. */
void storage_io_deinit(struct storage_io *io);

/* A value that was found. */
struct storage_value {
    struct slice bytes;   /* borrowed until the release, which comes before the view's */
    uint64_t revision;    /* of the write that made it */
    struct sst_hold hold; /* the engine's: the block where the bytes lie; none if they lie in a memtable */
};

/* Legal on what a read filled in with STATUS_OK, once; any thread. */
void storage_value_release(struct storage_value *value);

enum storage_lookup {
    STORAGE_FOUND,
    STORAGE_ABSENT,
    STORAGE_NEEDS_DISK /* can't be told from memtables, or is below the horizon: storage_get knows */
};

/* The newest version of key at or below revision, from memtables only: never blocks. The value is borrowed from the
 * view. */
enum storage_lookup storage_get_memory(struct storage_view *view, struct slice key, uint64_t revision,
                                       struct slice *ret_value, uint64_t *ret_revision);
/* The same, from tables, too. On STATUS_OK the value is to be released. STATUS_NOT_FOUND if absent or deleted;
 * STATUS_COMPACTED: below the horizon; STATUS_PENDING (only with io); STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY. */
MUST_USE enum status storage_get(struct storage_view *view, struct storage_io *io, struct slice key, uint64_t revision,
                                 struct storage_value *ret_value, struct error *err);
/* Several gets at one revision; with io the blocks of all keys are asked for together. statuses: STATUS_PENDING for
 * each at first, then of each key what storage_get would say; values[i] is filled in (and to be released) where
 * statuses[i] is STATUS_OK. Returns STATUS_PENDING while any is pending, else STATUS_OK. err: of the first that failed
 * in this call. */
MUST_USE enum status storage_multi_get(struct storage_view *view, struct storage_io *io, uint64_t revision,
                                       size_t count, const struct slice *keys, struct storage_value *values,
                                       enum status *statuses, struct error *err);

/* About the bytes that tables have for keys in [lower, upper) (upper.len 0: no end), as stored. Memory only. */
uint64_t storage_approximate_bytes(const struct storage_view *view, struct slice lower, struct slice upper);

/* ---- Iterators: over one view at one revision, both directions ------------------------------------------------ */

enum { STORAGE_READAHEAD_BYTES = 256 * 1024 };

struct storage_iterator_options {
    uint64_t revision;  /* 0: the view's, unless */
    bool at_zero;       /* revision 0 itself is meant, before the first entry: there is nothing */
    struct slice lower; /* no key before it */
    struct slice upper; /* no key at or behind it; len 0: no end. Both are borrowed while the iterator lives */
    bool keys_only;     /* storage_iterator_value is not asked */
    bool passing;       /* blocks that it reads aren't kept in the cache */
    uint32_t readahead_bytes_max; /* of one read, when blocks of a table are walked through one after the other: it
                                     grows up to this. 0: STORAGE_READAHEAD_BYTES; less than a block: none */
};

/* Live keys within the bounds, each once, with the newest version at or below the revision. At no key yet. Borrows view
 * and io (NULL: it blocks). options NULL: all zero. STATUS_COMPACTED, STATUS_NO_MEMORY. */
MUST_USE enum status storage_iterator_new(struct storage_view *view, struct storage_io *io,
                                          const struct storage_iterator_options *options,
                                          struct storage_iterator **ret_iterator, struct error *err);
/* NULL is accepted. Its io must not be busy. */
void storage_iterator_free(struct storage_iterator *iterator);

/* Each moves and says STATUS_OK: at a key; STATUS_NOT_FOUND: there is none that way; STATUS_PENDING (only with io): the
 * same call again when io is ready, nothing else before; STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY.
 * next and prev are legal after STATUS_OK, whatever the direction before; the others always (but for STATUS_PENDING).
 */
MUST_USE enum status storage_iterator_first(struct storage_iterator *iterator, struct error *err);
MUST_USE enum status storage_iterator_last(struct storage_iterator *iterator, struct error *err);
/* The first at or behind this key. */
MUST_USE enum status storage_iterator_seek(struct storage_iterator *iterator, struct slice key, struct error *err);
/* The last at or in front of this key. */
MUST_USE enum status storage_iterator_seek_for_prev(struct storage_iterator *iterator, struct slice key,
                                                    struct error *err);
MUST_USE enum status storage_iterator_next(struct storage_iterator *iterator, struct error *err);
MUST_USE enum status storage_iterator_prev(struct storage_iterator *iterator, struct error *err);

/* True if the last call said STATUS_OK. The others are legal only then; what they return is borrowed until the next
 * move. */
bool storage_iterator_is_valid(const struct storage_iterator *iterator);
struct slice storage_iterator_key(const struct storage_iterator *iterator);
uint64_t storage_iterator_revision(const struct storage_iterator *iterator);
/* Illegal with keys_only. STATUS_PENDING (only with io), STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY: of a value that
 * is stored apart from the tables. */
MUST_USE enum status storage_iterator_value(struct storage_iterator *iterator, struct slice *ret_value,
                                            struct error *err);

/* ---- Changes: what was done to which key, in the order of the log ----------------------------------------------
 *
 * Of all entries from some revision on, and whole entries: with the option change_files as far back as the horizon,
 * without it what isn't flushed yet. Each operation of an entry is one change (change.h), those that have no effect
 * included. An ingest brings the checkpoint's along; a repair keeps none. There are no values in them: read the key at
 * the revision. */

struct storage_changes;

struct storage_changes_options {
    uint64_t from;  /* the first revision of interest, at least 1 */
    uint64_t until; /* the last; 0: the view's */
    struct slice
        lower; /* only changes that have to do with keys in [lower, upper): a range delete that reaches into it */
    struct slice upper; /* is one. len 0: no end. Both are borrowed */
};

/* The oldest revision that changes can be read from in this view. Any thread. */
uint64_t storage_view_changes_oldest(const struct storage_view *view);
/* In front of the first change. Borrows view and io (NULL: it blocks). `from` may be one above the view's revision:
 * there are none. STATUS_COMPACTED: `from` is older than storage_view_changes_oldest: some are gone;
 * STATUS_NO_MEMORY. */
MUST_USE enum status storage_changes_new(struct storage_view *view, struct storage_io *io,
                                         const struct storage_changes_options *options,
                                         struct storage_changes **ret_changes, struct error *err);
/* NULL is accepted. Its io must not be busy. */
void storage_changes_free(struct storage_changes *changes);
/* The next one, by (revision, ordinal); its keys are borrowed until the next call. STATUS_NOT_FOUND: that were all;
 * STATUS_PENDING (only with io): the same call again when io is ready; STATUS_CORRUPT, STATUS_UNSUPPORTED, STATUS_IO,
 * STATUS_NO_MEMORY: none was skipped, another call tries again. */
MUST_USE enum status storage_changes_next(struct storage_changes *changes, struct change *ret_change,
                                          struct error *err);
/* Every entry up to here is done with: where to go on later is the revision behind it. */
uint64_t storage_changes_done(const struct storage_changes *changes);

/* ---- Upkeep (owner loop) -----------------------------------------------------------------------------------------
 *
 * Long jobs over the whole store: on a worker, one at a time, in the order in which they were asked for. The caller
 * fills in what is his and leaves the struct alone until `done` ran: once, on the loop, never inside a call. A store
 * that is closed cancels them and calls nobody; the structs are then the store's until `closed`. They take one of the
 * env's long workers: let it have one more for them. */

struct upkeep_kind;

struct storage_upkeep {
    void (*done)(struct storage_upkeep *upkeep);
    void *context; /* the caller's */
    /* Any thread: how far it is. */
    _Atomic uint64_t done_bytes;
    _Atomic uint64_t total_bytes;
    /* Results, valid in done: */
    enum status status;
    struct error error;
    /* The store's: */
    struct list link;
    const struct upkeep_kind *kind;
    struct storage *storage;
    struct env_work work;
    bool is_running;
    bool is_ended; /* done will run */
    atomic_bool is_cancelled;
    unsigned stage;
};

/* Before done ran: it ends soon, with STATUS_CANCELLED, or as if it hadn't been asked to. One that waits for others
 * ends at once. */
void storage_upkeep_cancel(struct storage_upkeep *upkeep);

/* A store of its own beside this one, for a backup or to be sent: same cluster, same node. Its files are further names
 * of ours (copies only where the file system has no links between the two places), so it costs no space until
 * compactions replace them here. Nothing waits for it.
 *
 * A crash leaves nothing at `dir`, or all of it; what it may leave at `dir`.tmp goes with the next attempt. Durable
 * when done says STATUS_OK. STATUS_EXISTS: there is something at `dir`; STATUS_NOT_FOUND: its parent isn't there;
 * STATUS_INVALID: the path is too long; STATUS_FAILED: the store has failed before it was flushed. */
struct storage_checkpoint {
    struct storage_upkeep upkeep;
    char dir[LIMIT_PATH_BYTES];
    bool flush; /* all that was applied by now is in it: flushed first. Else: what the manifest has */
    /* Results: */
    struct storage_frontier frontier; /* its own */
    uint64_t files;
    uint64_t bytes;
    uint64_t copied_bytes; /* of files that couldn't be linked */
    /* The store's: */
    struct version *version;
    uint64_t flush_index;
    uint64_t next_file;
};

void storage_checkpoint(struct storage *storage, struct storage_checkpoint *checkpoint);

/* What verifying found in one file. */
struct storage_verify_finding {
    const char *file;    /* its name in the directory; "" for the store as a whole */
    uint64_t count;      /* places; the rest is about the first */
    uint64_t offset;     /* 0 where it is of no use */
    const char *message; /* with the path */
};

struct storage_verify_report {
    uint64_t tables;
    uint64_t bytes; /* read */
    uint64_t partitions;
    uint64_t data_blocks;
    uint64_t entries;
    uint64_t tombstones;
    uint64_t changes; /* in change files */
    uint64_t findings;
    uint64_t unnamed_files; /* ours, but the manifest doesn't name them: the next opening removes them */
    uint64_t other_files;   /* not ours */
    struct storage_frontier frontier;
};

/* Reads all tables of the store as it is now and checks every checksum and invariant: of each table (sst.h), between
 * tables, and of tables and frontier. STATUS_CORRUPT: something was found, the error is the first of it. Reads that
 * fail count as findings. Slows down reads of others no more than a compaction does. */
struct storage_verification {
    struct storage_upkeep upkeep;
    /* For each file with findings, on the worker. May be NULL. */
    void (*found)(void *context, const struct storage_verify_finding *finding);
    void *found_context;
    struct storage_verify_report report; /* result; its counts of files in the directory are 0 */
    struct version *version;             /* the store's */
};

void storage_verify(struct storage *storage, struct storage_verification *verification);

/* One number for all that can be seen at a revision (digest_scan.c), to be compared with other nodes'. Everything is
 * read once, past the cache, at a rate. It holds a view from the call until its end, and so the space of what
 * compactions replace meanwhile: bound it by a storage_upkeep_cancel in time. Other long jobs come in between its
 * parts. STATUS_INVALID: the revision isn't applied yet; STATUS_COMPACTED: it is below the horizon; STATUS_NO_MEMORY;
 * STATUS_CORRUPT, STATUS_IO: something can't be read. */
struct storage_digest_scan {
    struct storage_upkeep upkeep;
    uint64_t revision;
    uint64_t bytes_per_second; /* of keys and values; 0: as fast as it goes */
    /* Results: */
    struct digest digest;
    uint64_t keys;
    uint64_t bytes; /* keys and values */
    /* The store's: */
    struct storage_view *view;
    struct storage_iterator *iterator;
    struct error refusal; /* why there is none */
    bool is_begun;
    bool is_through;
};

void storage_scan_digest(struct storage *storage, struct storage_digest_scan *scan);

struct storage_verify_options {
    void *context;
    void (*found)(void *context, const struct storage_verify_finding *finding); /* may be NULL */
    /* Now and then; false: stop, with STATUS_CANCELLED. May be NULL. */
    bool (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
};

/* The same for a store that nobody has open (STATUS_BUSY), CURRENT and the manifest included; blocks: for tools.
 * Changes nothing. STATUS_NOT_FOUND: there is no store. options may be NULL. */
MUST_USE enum status storage_verify_dir(struct env *env, const char *dir, const struct storage_verify_options *options,
                                        struct storage_verify_report *ret_report, struct error *err);

/* Replaces the whole content by that of a checkpoint of the same cluster, any node's: verified first, then linked under
 * new names, then made the store by one switch of the manifest; a crash leaves the old content or the new one. From the
 * call until done storage_can_apply says no. Afterwards applied, durable and flushed index are the checkpoint's
 * frontier; views that were taken before show what they showed. `flushed` isn't called. The checkpoint stays as it is.
 *
 * A store that isn't what it should be may go back (`may_go_back`): the frontier may lie behind what was applied, if
 * the owner has all entries behind it and applies them again: what is shown, and storage_applied_index, stay as they
 * are until the new content has come so far, so no reader sees anything go back. storage_can_apply says no only from
 * the standstill on.
 *
 * An owner whose log has to agree has two more callbacks. `ready`, if there is one, runs on the loop when all is there
 * and the store stands still for the switch: nothing happens until storage_ingest_answer, then or later; a no ends the
 * ingest with STATUS_CANCELLED. `switched` runs in the turn in which the loop hears of the durable switch, before any
 * thread can see the new content.
 *
 * STATUS_NOT_FOUND: there is none; STATUS_INVALID: another cluster's, or its frontier lies behind what was applied
 * here; STATUS_BUSY: a store has it open, or a pin here is below its horizon; STATUS_CORRUPT, STATUS_IO,
 * STATUS_NO_SPACE, STATUS_NO_MEMORY. Nothing has changed then, unless `failed` ran:
 * the outcome of the switch is unknown, and the next opening will tell. */
struct storage_ingest {
    struct storage_upkeep upkeep;
    char dir[LIMIT_PATH_BYTES];
    bool may_go_back;
    uint64_t bytes_per_second;                       /* verified at most so fast; 0: no limit */
    void (*ready)(struct storage_upkeep *upkeep);    /* may be NULL: go on */
    void (*switched)(struct storage_upkeep *upkeep); /* may be NULL */
    struct storage_frontier frontier;                /* result; valid in ready and switched, too */
    /* The store's: */
    bool holds_apply;  /* it is in ingest_count */
    uint64_t paced_us; /* what was verified may have taken until then */
    bool was_asked;
    bool is_in_ready; /* the answer is looked at when it returns */
    bool is_asking;   /* ready ran, no answer yet */
    bool may_switch;
    struct version *version;
    struct generation *generation;
    struct read_set *read_set;
    struct storage_view *view;
    struct buf snapshot;
    uint64_t manifest_number;
    bool is_named; /* the manifest may name its tables */
};

void storage_ingest(struct storage *storage, struct storage_ingest *ingest);
/* On the loop, after `ready` and before `done` ran: once; also from inside `ready`. */
void storage_ingest_answer(struct storage_ingest *ingest, bool go);

/* Removes the files of a store that nobody has open (STATUS_BUSY), and the directory, if nothing else is in it. Blocks:
 * a worker, or a thread without a loop. A crash leaves a part of the files and no store; call it again.
 * STATUS_NOT_FOUND: there is no directory; STATUS_INVALID: it is another program's. */
MUST_USE enum status storage_destroy(struct env *env, const char *dir, struct error *err);

/* ---- What a start would have to replay (owner loop) -------------------------------------------------------------- */

/* Behind the manifest's frontier, as it is now. */
struct storage_unflushed {
    uint64_t entries; /* applied */
    uint64_t bytes;   /* of their batches */
    /* Of these, what no flush has been asked for yet: */
    uint64_t active_entries;
    uint64_t active_bytes;
    uint64_t active_memory_bytes; /* what the memtable takes; 0: nothing is in it, a flush only moves the frontier */
    uint32_t waiting;             /* memtables whose flush is under way, or not begun */
};

void storage_get_unflushed(const struct storage *storage, struct storage_unflushed *ret_unflushed);

/* ---- Damage (owner loop) -------------------------------------------------------------------------------------------
 */

/* A live file that a read, a flush or a compaction met damaged, and that wasn't named here before. False: there is
 * none. Owner loop; cheap enough for a look now and then. The scrub's findings come by the callback `damaged`. */
bool storage_next_damage(struct storage *storage, struct storage_damage *ret_damage);
/* The store still consists of this file, among others: what is damaged in it may be needed. */
bool storage_has_file(const struct storage *storage, uint64_t number);

/* ---- Statistics (owner loop) ----------------------------------------------------------------------------------- */

/* Why writers had to wait. */
enum storage_stall {
    STORAGE_STALL_MEMTABLES, /* too many wait for their flush */
    STORAGE_STALL_LEVEL0,    /* too many tables in it */
    STORAGE_STALL_DEBT,      /* compactions are far behind */
    STORAGE_STALL_SPACE,     /* the disk is full */
    STORAGE_STALL_COUNT
};

enum {
    STORAGE_COMPACTION_REASONS = 9,
    STORAGE_DAMAGES_MAX = 64 /* remembered at once */
};

const char *storage_stall_name(enum storage_stall reason);
/* Of the numbers in storage_stats.compactions; NULL: unused. */
const char *storage_compaction_reason_name(unsigned reason);

struct storage_stall_stats {
    uint64_t count;
    uint64_t total_us;
    uint64_t longest_us;
};

struct storage_stats {
    /* Memory. */
    uint64_t memtable_bytes; /* active one */
    uint64_t immutable_memtables;
    struct cache_stats cache;
    struct open_files_stats open_files;
    /* The tree. */
    uint64_t flushed_index;
    uint64_t horizon;
    uint64_t files[STORAGE_LEVELS];
    uint64_t bytes[STORAGE_LEVELS];
    uint64_t value_files;
    uint64_t value_file_bytes; /* their sizes */
    uint64_t value_log_files;  /* of these: segments of the log that were taken over */
    uint64_t value_log_bytes;  /* their sizes */
    uint64_t value_bytes;      /* of these: values that tables refer to */
    uint64_t change_files;
    uint64_t change_file_bytes; /* their sizes */
    uint64_t changes_oldest;    /* of this revision on changes can be read */
    uint64_t debt_bytes;        /* to be rewritten until every level is within its target */
    uint64_t dead_bytes;        /* files that nothing uses any more, and that are about to be removed */
    /* Work. */
    uint64_t flushes;
    uint64_t flush_bytes;       /* tables of level 0, and value files */
    uint64_t adopted_bytes;     /* segments of the log that flushes took over: not written once more */
    uint64_t change_bytes;      /* change files */
    uint64_t moved_value_bytes; /* of compaction_written_bytes: value files */
    uint64_t compactions[STORAGE_COMPACTION_REASONS];
    uint64_t compaction_count; /* all of them */
    uint64_t compactions_running;
    uint64_t compaction_failures; /* each is tried again later */
    uint64_t compaction_read_bytes;
    uint64_t compaction_written_bytes;
    uint64_t written_bytes; /* tables, value files, change files and manifests */
    uint64_t applied_bytes; /* batches; written_bytes / applied_bytes is the write amplification without the log */
    /* What is held. */
    uint64_t views;          /* held now */
    uint64_t view_oldest_us; /* for how long the oldest of them has kept something alive that is otherwise gone */
    uint64_t held_bytes;     /* files that only views keep */
    uint64_t pins;
    uint64_t pin_oldest_us;
    uint64_t pin_held_revisions;       /* revisions that the lowest pin keeps from going */
    char pin_lowest[LIMIT_NAME_BYTES]; /* its name */
    /* Trouble. */
    struct storage_stall_stats stalls[STORAGE_STALL_COUNT];
    uint64_t damaged_blocks; /* met by reads or compactions; one may count more than once */
    uint64_t scrub_passes;   /* over all tables */
    uint64_t scrub_bytes;    /* read by it */
    uint64_t scrub_findings; /* ever; each pass counts */
    uint64_t damage_count;   /* places in live tables that it found, in `damages` */
    struct storage_damage damages[STORAGE_DAMAGES_MAX];
    uint64_t damaged_tables;               /* that compactions leave alone for the time being */
    char problem[ERROR_MESSAGE_BYTES_MAX]; /* what stands in the way now: of compactions, of reads, or why all
                                              stopped; empty: nothing */
};

void storage_get_stats(struct storage *storage, struct storage_stats *ret_stats); /* owner loop */

#endif
