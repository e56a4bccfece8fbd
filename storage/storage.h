/*
 * The engine: an LSM store of versioned keys, fed by a log that somebody else owns.
 *
 * Versions sort by (key ascending, revision descending, ordinal descending); revision is the Raft index of the entry
 * that wrote them. Writes arrive as whole committed entries (storage_apply), in order, and become visible atomically
 * with the applied index. Reads take a view: memtables plus a version (a set of SST files), reference counted, at any
 * revision from the horizon up to the one applied when it was taken.
 *
 *   apply -> memtable --(full)--> immutable memtable --(worker)--> SST in L0 --(worker)--> L1
 *                                                        \-> manifest edit with the frontier
 *
 * There is no log in here: what a crash takes from the memtable is replayed from the WAL behind storage_frontier. One
 * thing is therefore vital: a manifest edit never claims more than the log holds durably (storage_set_durable).
 *
 * Threads. The owner loop (consensus) calls everything unless it says otherwise; views and reads on them are for any
 * thread, the blocking ones only for workers. The memtable has one writer and lock-free readers; the version pointer is
 * swapped by the owner. These two, with the mailbox, are all that crosses threads.
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

struct storage;
struct storage_view;
struct storage_iterator;

enum { STORAGE_CLUSTER_ID_BYTES = 16, STORAGE_DIGEST_BYTES = 16 };

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

struct storage_options {
    struct env *env;
    struct env_loop *loop;
    const char *dir; /* made if it isn't there */
    uint8_t cluster_id[STORAGE_CLUSTER_ID_BYTES];
    uint64_t node_id;                 /* both are in the manifest; another's is refused */
    uint64_t memtable_bytes;          /* switch and flush at this size */
    uint32_t immutable_memtables_max; /* beyond it storage_can_apply says no until a flush ends; at least 1 */
    uint32_t block_bytes;             /* of an SST, before padding; 4096 */
    uint64_t sst_bytes;               /* target size of an L1 file */
    uint32_t l0_files_merge;          /* merge L0 into L1 at this many files */
    uint64_t manifest_bytes_max;      /* rotate the manifest beyond this */

    /* Callbacks, on the loop, never from inside a storage_* call. */
    void *context;
    /* The memtable is being switched at (index, term), which are filled in, of the last applied entry: fill in the rest
     * of its frontier, as it was after that entry. This one runs inside calls: in storage_apply of the next entry,
     * before it is applied, and in storage_flush. The horizon is raised to that of storage_set_horizon. May be NULL. */
    void (*fill_frontier)(void *context, struct storage_frontier *frontier);
    /* A manifest with this frontier is durable. */
    void (*flushed)(void *context, const struct storage_frontier *frontier);
    /* storage_can_apply is true again. */
    void (*can_apply)(void *context);
    /* The manifest's write or sync failed, or a memtable couldn't be written in several attempts: stop. Runs once; no
     * job is started afterwards. A merge that can't read a table is not among the reasons: see storage_stats. */
    void (*failed)(void *context, const struct error *err);
    /* Disk full while writing an SST: output dropped, tried again every second. err NULL: over. */
    void (*space_state)(void *context, const struct error *err);
};

void storage_options_init(struct storage_options *options);

/* Opens or creates. Blocks. Holds a lock file while it is open: STATUS_BUSY. Removes its own files that no manifest
 * names. STATUS_INVALID: another cluster's or node's, or options out of range; STATUS_UNSUPPORTED: format version;
 * STATUS_CORRUPT, STATUS_IO: err names file and offset. Works on a full disk. */
MUST_USE enum status storage_open(const struct storage_options *options, struct storage **ret_storage,
                                  struct error *err);
/* On the loop: flushing and merging may begin. */
void storage_start(struct storage *storage);
/* On the loop, also before storage_start. No callbacks from now on; jobs under way finish first, then closed runs and
 * the storage is gone. All views must have been released. What is only in the memtable is left to the log. */
void storage_close(struct storage *storage, void (*closed)(void *context), void *context);

/* The manifest's. After storage_open, replay starts behind its index. */
const struct storage_frontier *storage_frontier(const struct storage *storage);
/* Last applied (index, term). */
uint64_t storage_applied_index(const struct storage *storage); /* any thread */
uint64_t storage_applied_term(const struct storage *storage);

/* ---- Writing (owner loop, or the opening worker before storage_start) ---------------------------------------- */

/* False: wait for the can_apply callback; storage_apply is illegal until then. */
bool storage_can_apply(const struct storage *storage);

/* Applies entry `index` = applied + 1: batch is a checked write batch (batch.h) or empty for entries without data. All
 * its operations and the applied index become visible together. STATUS_CORRUPT, STATUS_UNSUPPORTED (the batch),
 * STATUS_NO_MEMORY: nothing applied. Before storage_start the size of the memtable is not bounded by a flush: the
 * replay is, by the log. */
MUST_USE enum status storage_apply(struct storage *storage, uint64_t index, uint64_t term, struct slice batch,
                                   struct error *err);

/* All up to here is synced in this node's log and committed: min(synced, committed). A flush beyond it waits. */
void storage_set_durable(struct storage *storage, uint64_t index);

/* Switches the memtable if anything was applied since the last switch, be it entries without data; `flushed` will tell.
 * If too many wait for their flush already, as soon as one is done. */
void storage_flush(struct storage *storage);

/* Versions that no read at or above the horizon can see are dropped by merges. Never decreases; not above the applied
 * index. */
void storage_set_horizon(struct storage *storage, uint64_t revision);

/* ---- Reading (any thread) ------------------------------------------------------------------------------------ */

/* The newest state; never NULL, never blocks. Owned: release it on any thread, soon; it pins memory and files. */
struct storage_view *storage_view_acquire(struct storage *storage);
void storage_view_release(struct storage_view *view);
/* Revision applied when it was taken: the newest that it can show. Asking a view for a newer one is an error of the
 * caller's (CHECK). */
uint64_t storage_view_revision(const struct storage_view *view);

enum storage_lookup {
    STORAGE_FOUND,
    STORAGE_ABSENT,
    STORAGE_NEEDS_DISK /* can't be told from memory: ask storage_get on a worker */
};

/* The newest version of key at or below revision, from memory only: never blocks. The value is borrowed from the view.
 */
enum storage_lookup storage_get_memory(struct storage_view *view, struct slice key, uint64_t revision,
                                       struct slice *ret_value, uint64_t *ret_revision);
/* The same with disk reads: workers only. STATUS_NOT_FOUND if absent or deleted; STATUS_COMPACTED: a merge
 * dropped what that revision would need; STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY, STATUS_TOO_LARGE (beyond the
 * limit of `value`). The value is appended to `value`. */
MUST_USE enum status storage_get(struct storage_view *view, struct slice key, uint64_t revision, struct buf *value,
                                 uint64_t *ret_revision, struct error *err);
/* True if the view has no SST that a scan over [lower, upper) would need: then iterating doesn't block. upper.len 0: no
 * end. */
bool storage_view_in_memory(struct storage_view *view, struct slice lower, struct slice upper);

/* ---- Iterators: forward, over one view at one revision; workers only unless storage_view_in_memory ----------- */

/* Live keys in [lower, upper) (upper.len 0: no end), each once, newest version <= revision. Borrows the view and the
 * bounds. STATUS_COMPACTED, STATUS_NO_MEMORY. */
MUST_USE enum status storage_iterator_new(struct storage_view *view, uint64_t revision, struct slice lower,
                                          struct slice upper, struct storage_iterator **ret_iterator,
                                          struct error *err);
void storage_iterator_free(struct storage_iterator *iterator);
/* Moves to the first key; then onwards. STATUS_NOT_FOUND at the end; errors are final. */
MUST_USE enum status storage_iterator_next(struct storage_iterator *iterator, struct error *err);
/* Borrowed until the next call. */
struct slice storage_iterator_key(const struct storage_iterator *iterator);
struct slice storage_iterator_value(const struct storage_iterator *iterator);
uint64_t storage_iterator_revision(const struct storage_iterator *iterator);

struct storage_stats {
    uint64_t memtable_bytes; /* active one */
    uint64_t immutable_memtables;
    uint64_t flushes;
    uint64_t merges;
    uint64_t flushed_index;
    uint64_t files[2]; /* per level */
    uint64_t bytes[2];
    uint64_t written_bytes;                /* SSTs and manifests */
    uint64_t views;                        /* held now */
    uint64_t merge_failures;               /* each is tried again later */
    char problem[ERROR_MESSAGE_BYTES_MAX]; /* why the last merge failed, or why all stopped; empty: neither */
};

void storage_get_stats(const struct storage *storage, struct storage_stats *ret_stats); /* owner loop */

#endif
