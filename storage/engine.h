/*
 * The engine by itself: an ordered key-value store in one directory, for any program. This is the public header of
 * libholdfast-storage.a.
 *
 *   struct engine_options options;
 *   engine_options_init(&options);
 *   options.dir = "/var/lib/example";
 *   struct engine *engine;
 *   struct error err;
 *   if (engine_open(&options, &engine, &err) != STATUS_OK) { ... err.message ... }
 *   engine_put(engine, NULL, slice_of_string("key"), slice_of_string("value"), &err);
 *   struct engine_value value;
 *   if (engine_get(engine, NULL, slice_of_string("key"), &value, &err) == STATUS_OK) {
 *       ... value.bytes ...
 *       engine_value_release(&value);
 *   }
 *   engine_close(engine);
 *
 * Keys are 1 to LIMIT_KEY_BYTES bytes, in memcmp order; values 0 to LIMIT_VALUE_BYTES. A write is a put, a delete, a
 * range delete, or a batch of them: all of it or nothing, visible at once. Every write has a revision, a number that
 * grows.
 *
 * What survives. An acknowledged write survives the end of the process, however it ends. One that asked for `sync` also
 * survives the loss of power, with all writes before it. Power loss may take the newest writes without sync, never one
 * in the middle: what is left is a prefix of what was written. Writes larger than the log's memory (LIMIT_GROUP_BYTES)
 * are always synced. Nobody sees a write that asked for sync before it is durable, nor the writes behind it.
 *
 * Failure. Every call that touches the disk returns a status and explains it in *err (which may be NULL). When the log
 * or the manifest can't be written, the outcome of that write is unknown, and all later writes are refused with
 * STATUS_FAILED; reads go on. Close, find the reason, open again. On a full disk writes are refused with
 * STATUS_NO_SPACE until there is room again; single deletes and range deletes go on longer, as far as the log and the
 * memtables that are there reach.
 *
 * Threads. Any number may call anything on one engine at the same time; an iterator, a batch and a value belong to one
 * at a time. Calls block: on the disk, on a lock, and writes while flushing is behind. They may not be made on the
 * thread of an env_loop. The engine has threads of its own: one that only waits, and workers that write.
 *
 * A store is its directory. Copying it file by file while it is open gives nothing that opens: engine_checkpoint does.
 *
 * Legal order: engine_open, everything else, then all iterators freed, values and snapshots released, engine_close.
 * Borrowed slices that are handed in need to live until the call returns.
 */
#ifndef HOLDFAST_STORAGE_ENGINE_H
#define HOLDFAST_STORAGE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "node/base/alloc.h"
#include "node/base/buf.h"
#include "node/base/limits.h"
#include "node/base/slice.h"
#include "node/base/status.h"

struct engine;
struct engine_batch;
struct engine_iterator;
struct engine_snapshot;
struct env;

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

enum engine_compression { ENGINE_COMPRESSION_NONE, ENGINE_COMPRESSION_LZ4, ENGINE_COMPRESSION_ZSTD };

/* Every number has a range; engine_open names the one that is out of it. */
struct engine_options {
    const char *dir;        /* made if it isn't there, its parent must be */
    bool create_if_missing; /* true; false: STATUS_NOT_FOUND if there is no store */
    bool error_if_exists;   /* false; true: STATUS_EXISTS if there is one */
    bool sync_every_write;  /* false; true: as if each write asked for it */
    bool flush_on_close;    /* true: engine_close leaves nothing to replay, so that the next opening is fast */

    /* Memory: memtables, cache, log, and what iterators and values hold. */
    uint64_t memtable_bytes;          /* 64 MiB: written out when it has grown to this */
    uint32_t immutable_memtables_max; /* 2: so many may wait to be written out, then writers wait */
    uint64_t cache_bytes;             /* 64 MiB: blocks, filters and indexes of tables */
    uint32_t open_files_max;          /* 512: tables */

    /* Tables. */
    uint32_t block_bytes;                /* 4096: before compression */
    uint64_t sst_bytes;                  /* 64 MiB: of a table below level 0 */
    uint8_t bloom_bits;                  /* 10: of filter for a key; 0: no filters */
    enum engine_compression compression; /* lz4. With zstd, levels 0 and 1, whose tables live shortly, have lz4 */
    int zstd_level;                      /* 3 (1 to 12) */
    uint64_t level_base_bytes;           /* 256 MiB: the least that a level below 0 is meant to hold */
    uint64_t value_threshold_bytes; /* 32 KiB (0: none; 32 to 16 MiB): values from this length on stay out of tables, in
                                       files of the log that the store takes over, or in files of their own */
    /* What was overwritten and deleted stays readable without a snapshot (engine_read_options.revision), as far back as
     * one of these reaches; what isn't is forgotten by flushes and compactions, and doesn't come back. */
    uint64_t history_revisions; /* 0 (to UINT64_MAX - 1): so many revisions behind the newest */
    uint64_t history_ms; /* 0 (to 100 years): what was the newest at any time so long ago, up to a 32nd part more.
                            Counted while the engine is open */

    /* The log. */
    uint64_t log_segment_bytes; /* 32 MiB (to 4 GiB): of a file of the log; never less than the largest write needs */
    /* 128 MiB: a memtable is also written out when its writes have taken so much of the log. It bounds the log's files,
     * and what an opening reads, where small writes are synced one by one: each takes a block of 4 KiB. Never less than
     * a segment. */
    uint64_t log_memtable_bytes;
    uint32_t log_group_bytes; /* LIMIT_GROUP_BYTES (16 KiB to that): of a write to it, unless one of ours is larger */
    uint32_t write_bytes_max; /* LIMIT_ENTRY_PAYLOAD_BYTES (1 KiB to that): of one write, as an encoded batch */

    /* The machine. */
    unsigned workers;                         /* 2: compactions at a time */
    uint64_t compaction_bytes_per_second_max; /* 0: as fast as it goes */
    uint64_t scrub_bytes_per_second;          /* 0: never (0 to 1 GiB); else all tables are read at this rate, over and
                                                 over, and their checksums checked: see the statistics */

    struct alloc *alloc; /* NULL: malloc. Thread-safe */
    struct env *env;     /* NULL: the engine makes one of its own; else borrowed, and alloc is env's */
};

void engine_options_init(struct engine_options *options);

/* Opens or creates, replays what the log has beyond the tables. STATUS_BUSY: another process, or this one, has it open.
 * STATUS_CORRUPT: err says which file and where (a store whose log or tables somebody took away, too). STATUS_INVALID:
 * an option is out of range. *ret_engine is owned. */
MUST_USE enum status engine_open(const struct engine_options *options, struct engine **ret_engine, struct error *err);
/* Waits for what is under way. Everything that was taken from the engine must have been given back. NULL is accepted.
 */
void engine_close(struct engine *engine);

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

struct engine_write_options {
    bool sync; /* durable on return */
};

/* options NULL: no sync. STATUS_INVALID: key, value or range beyond the limits; STATUS_TOO_LARGE: beyond the option
 * write_bytes_max; STATUS_NO_SPACE, STATUS_NO_MEMORY, STATUS_IO, STATUS_FAILED. */
MUST_USE enum status engine_put(struct engine *engine, const struct engine_write_options *options, struct slice key,
                                struct slice value, struct error *err);
/* Deleting what isn't there is no error. */
MUST_USE enum status engine_delete(struct engine *engine, const struct engine_write_options *options, struct slice key,
                                   struct error *err);
/* Every key in [start, end) that was written before; start < end. Costs as much as one put, however many there are. */
MUST_USE enum status engine_delete_range(struct engine *engine, const struct engine_write_options *options,
                                         struct slice start, struct slice end, struct error *err);
/* The whole batch, or nothing. The batch stays the caller's, as it is. */
MUST_USE enum status engine_write(struct engine *engine, const struct engine_write_options *options,
                                  struct engine_batch *batch, struct error *err);
/* Everything written before is durable on return. */
MUST_USE enum status engine_sync(struct engine *engine, struct error *err);

/* ---- Batches ---------------------------------------------------------------------------------------------------- */

/* NULL: no memory. alloc NULL: malloc. */
struct engine_batch *engine_batch_new(struct alloc *alloc);
void engine_batch_free(struct engine_batch *batch);
/* Operations take effect in this order. The bytes are copied. STATUS_INVALID: beyond the limits; STATUS_TOO_LARGE: more
 * than LIMIT_BATCH_OPERATIONS operations or LIMIT_ENTRY_PAYLOAD_BYTES bytes in all; STATUS_NO_MEMORY. The batch is then
 * as it was. */
MUST_USE enum status engine_batch_put(struct engine_batch *batch, struct slice key, struct slice value);
MUST_USE enum status engine_batch_delete(struct engine_batch *batch, struct slice key);
MUST_USE enum status engine_batch_delete_range(struct engine_batch *batch, struct slice start, struct slice end);
void engine_batch_clear(struct engine_batch *batch);
uint32_t engine_batch_count(const struct engine_batch *batch);
/* Calls back for each operation, in order; stops when a callback doesn't return STATUS_OK, and returns what it did. */
struct engine_batch_walker {
    void *context;
    enum status (*put)(void *context, struct slice key, struct slice value);
    enum status (*remove)(void *context, struct slice key);
    enum status (*remove_range)(void *context, struct slice start, struct slice end);
};
MUST_USE enum status engine_batch_walk(struct engine_batch *batch, const struct engine_batch_walker *walker);

/* ---- Snapshots -------------------------------------------------------------------------------------------------- */

/* The store as it is now, for as long as the snapshot is held; it holds back the space of what is overwritten and
 * deleted meanwhile. NULL: no memory. */
struct engine_snapshot *engine_snapshot_new(struct engine *engine);
void engine_snapshot_release(struct engine *engine, struct engine_snapshot *snapshot);
uint64_t engine_snapshot_revision(const struct engine_snapshot *snapshot);

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

/* The newest state, unless one of these is given (STATUS_INVALID: both). */
struct engine_read_options {
    const struct engine_snapshot *snapshot;
    uint64_t revision; /* the store as it was right after this write. STATUS_COMPACTED: it is forgotten; no revision is
                          from engine_stats.horizon on; STATUS_INVALID: there is no such write yet */
};

struct engine_value {
    struct slice bytes;
    uint64_t revision; /* of the write that made it */
    void *held[3];     /* the engine's: what the bytes lie in */
};

/* options NULL: the defaults. STATUS_NOT_FOUND; STATUS_INVALID: a key beyond the limits; STATUS_CORRUPT, STATUS_IO,
 * STATUS_NO_MEMORY; see also the options. On STATUS_OK the value is to be released, soon: it may hold memory and files
 * of the engine. */
MUST_USE enum status engine_get(struct engine *engine, const struct engine_read_options *options, struct slice key,
                                struct engine_value *ret_value, struct error *err);
/* Also fine for one that is all zero. Leaves it all zero. */
void engine_value_release(struct engine_value *value);
/* Several lookups, all of the same state of the store. statuses[i] is what engine_get would say of keys[i]; values[i]
 * is filled in, and to be released, where that is STATUS_OK. Returns STATUS_OK, or the first failure among them
 * (STATUS_NOT_FOUND is none); with STATUS_INVALID (a key beyond the limits), STATUS_COMPACTED and STATUS_NO_MEMORY no
 * value is filled in. */
MUST_USE enum status engine_multi_get(struct engine *engine, const struct engine_read_options *options, size_t count,
                                      const struct slice *keys, struct engine_value *values, enum status *statuses,
                                      struct error *err);

/* ---- Iterators -------------------------------------------------------------------------------------------------- */

enum { ENGINE_READAHEAD_BYTES_MAX = 8 * 1024 * 1024 };

struct engine_iterator_options {
    /* As in engine_read_options; else the store as it is now, for the iterator's life. */
    const struct engine_snapshot *snapshot;
    uint64_t revision;
    struct slice lower;           /* no key before it; len 0: no bound. Borrowed while the iterator lives */
    struct slice upper;           /* no key at or behind it; len 0: no bound. Borrowed likewise */
    bool keys_only;               /* values aren't asked for */
    bool passing;                 /* what is read isn't kept in the cache: for large scans */
    uint32_t readahead_bytes_max; /* of one read of a table that is walked through: grows up to this. 0: 256 KiB; less
                                     than a block: none; at most ENGINE_READAHEAD_BYTES_MAX, more is as much */
};

/* At no place yet. options NULL: everything. It holds memory and files of the engine: don't keep it for ever.
 * STATUS_INVALID: bounds longer than keys can be; that, and STATUS_COMPACTED: see the options; STATUS_NO_MEMORY. */
MUST_USE enum status engine_iterator_new(struct engine *engine, const struct engine_iterator_options *options,
                                         struct engine_iterator **ret_iterator, struct error *err);
void engine_iterator_free(struct engine_iterator *iterator);
/* Each moves and says STATUS_OK: there is a key; STATUS_NOT_FOUND: none that way; or an error. next and prev are legal
 * after STATUS_OK, whatever the direction before; the others always. */
MUST_USE enum status engine_iterator_first(struct engine_iterator *iterator, struct error *err);
MUST_USE enum status engine_iterator_last(struct engine_iterator *iterator, struct error *err);
/* To the first key at or behind this one. */
MUST_USE enum status engine_iterator_seek(struct engine_iterator *iterator, struct slice key, struct error *err);
/* To the last key at or in front of this one. */
MUST_USE enum status engine_iterator_seek_for_prev(struct engine_iterator *iterator, struct slice key,
                                                   struct error *err);
MUST_USE enum status engine_iterator_next(struct engine_iterator *iterator, struct error *err);
MUST_USE enum status engine_iterator_prev(struct engine_iterator *iterator, struct error *err);
/* Of where it stands, after STATUS_OK; borrowed until it moves. */
struct slice engine_iterator_key(const struct engine_iterator *iterator);
/* Not with keys_only. STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY: of a value that lies apart from its table. */
MUST_USE enum status engine_iterator_value(struct engine_iterator *iterator, struct slice *ret_value,
                                           struct error *err);
uint64_t engine_iterator_revision(const struct engine_iterator *iterator);

/* ---- Upkeep ----------------------------------------------------------------------------------------------------- */

/* Waits until everything written before is in tables. STATUS_NO_SPACE: not yet, the disk is full. */
MUST_USE enum status engine_flush(struct engine *engine, struct error *err);
/* Rewrites all that is in [lower, upper) (upper.len 0: no end) down to the last level that holds any of it, without
 * what nobody can see any more. Waits for it. STATUS_CORRUPT, STATUS_IO: a table of the range can't be read; the others
 * were compacted as far as that goes without it. STATUS_IO also: the disk takes no new table. STATUS_FAILED: the log
 * has failed meanwhile. */
MUST_USE enum status engine_compact_range(struct engine *engine, struct slice lower, struct slice upper,
                                          struct error *err);
/* About the bytes of files that keys in [lower, upper) (upper.len 0: no end) take. Memtables don't count. */
uint64_t engine_approximate_bytes(struct engine *engine, struct slice lower, struct slice upper);

/* ---- The whole store, open -------------------------------------------------------------------------------------- */

struct engine_checkpoint {
    uint64_t revision; /* of the newest write in it */
    uint64_t files;
    uint64_t bytes;
    uint64_t copied_bytes; /* of files that couldn't be linked */
};

/* A store of its own at `dir`, for a backup or to be sent: it has everything that was written before the call, and
 * engine_open opens it. Its tables are further names of ours (copies only where the file system has no links between
 * the two places), so it costs no space until compactions replace them here. Reads and writes go on; one at a time for
 * each `dir`. Blocks for a flush and a few syncs. ret_checkpoint may be NULL.
 *
 * Durable on return. A crash leaves nothing at `dir`, or all of it; what it may leave at `dir`.tmp goes with the next
 * attempt. STATUS_EXISTS: there is something at `dir`; STATUS_NOT_FOUND: its parent isn't there; STATUS_INVALID: the
 * path is too long; STATUS_NO_SPACE, STATUS_IO, STATUS_FAILED, STATUS_NO_MEMORY. */
MUST_USE enum status engine_checkpoint(struct engine *engine, const char *dir, struct engine_checkpoint *ret_checkpoint,
                                       struct error *err);

/* Replaces the whole content by that of a checkpoint, as engine_checkpoint made it of this store or another: verified
 * first, then linked, then made the store's by one switch; a crash leaves the old content or the new one. Revisions
 * never go back: those of the checkpoint's writes stay what they were there, and it must be at least as new as what was
 * written here. Writes wait meanwhile, reads go on; iterators and values that were taken before show what they showed.
 * The checkpoint stays as it is. One at a time: STATUS_BUSY.
 *
 * STATUS_NOT_FOUND: there is none; STATUS_INVALID: it is older than this store; STATUS_BUSY also: a store has it open,
 * or a snapshot here is older than the oldest that it can show; STATUS_CORRUPT, STATUS_IO, STATUS_NO_SPACE,
 * STATUS_NO_MEMORY: nothing has changed. STATUS_FAILED: the outcome is unknown, the next opening will tell. */
MUST_USE enum status engine_ingest(struct engine *engine, const char *dir, struct error *err);

/* What verifying found in one file. */
struct engine_finding {
    const char *file;    /* its name; "" for the store as a whole */
    uint64_t count;      /* places; the rest is about the first */
    uint64_t offset;     /* 0 where it is of no use */
    const char *message; /* with the path */
};

struct engine_verify_options {
    void *context;
    /* For each file with findings, on a thread of the engine's; no calls of the engine in it. May be NULL. */
    void (*found)(void *context, const struct engine_finding *finding);
};

struct engine_verify_report {
    uint64_t revision; /* up to which tables have everything */
    uint64_t tables;
    uint64_t bytes; /* read */
    uint64_t entries;
    uint64_t range_deletes;
    uint64_t findings;
    uint64_t unnamed_files; /* ours, but not of the store: the next opening removes them. Closed stores only, */
    uint64_t other_files;   /* as these, which are not ours */
};

/* Reads all tables as they are now and checks every checksum and invariant. Blocks as long as that takes; reads and
 * writes go on. options and ret_report may be NULL. STATUS_CORRUPT: something was found, err is the first of it; the
 * report is filled in then, too. */
MUST_USE enum status engine_verify(struct engine *engine, const struct engine_verify_options *options,
                                   struct engine_verify_report *ret_report, struct error *err);

/* ---- The whole store, closed -------------------------------------------------------------------------------------
 * Of `options` dir, env and alloc count as for engine_open; repairing looks at all of them. All block, on threads that
 * run no loop. STATUS_BUSY: somebody has it open. */

/* As engine_verify, and what names the tables, too. Changes nothing. The log isn't looked at: that is done whenever the
 * store is opened. STATUS_NOT_FOUND: there is no store. */
MUST_USE enum status engine_verify_closed(const struct engine_options *options,
                                          const struct engine_verify_options *verify_options,
                                          struct engine_verify_report *ret_report, struct error *err);

struct engine_loss {
    uint64_t file;       /* number of the table; 0: it was in the log, and message says which writes */
    uint64_t offset;     /* of the block; 0: all of the table */
    struct slice after;  /* what is missing lies behind this key, */
    struct slice until;  /* and not behind this one; both empty: anywhere. Borrowed */
    const char *message; /* for a whole table why, for the log what; else NULL */
};

struct engine_repair_report {
    bool tables_were_sound; /* they were left alone */
    bool log_was_sound;     /* so was the log; else what stood before the damage was kept, */
    bool log_was_replaced;  /* or not even that */
    /* Revisions of writes that the log had and the store hasn't, ends included; 0: none, or it can't be told. */
    uint64_t log_lost_first;
    uint64_t log_lost_last;
    bool manifest_used; /* what names the tables could be read */
    uint64_t revision;  /* of the newest write in the store */
    uint64_t entries;   /* written into new tables, */
    uint64_t tables_written;
    uint64_t tables_lost;
    uint64_t pieces_lost;         /* blocks and partitions of other tables */
    uint64_t values_lost;         /* versions whose large value can't be read */
    uint64_t value_files_damaged; /* files with large values, missing ones included */
};

/* Makes a store that doesn't open, or is damaged, one that opens. What can be read of the tables is kept; a lost piece
 * may show older versions of its keys, or deleted ones. Of a damaged log the writes before the damage
 * are kept; one that says nothing that can be relied on is replaced by an empty one. Other writes that weren't in
 * tables yet are gone. Nothing is deleted: what was replaced goes to tables/lost, and a damaged log is copied to
 * log.lost-N in the store's directory. `lost` is called for each piece, with the context; it may be NULL.
 *
 * On STATUS_OK the store was opened and closed again. STATUS_NOT_FOUND: there is nothing of a store; STATUS_NO_SPACE:
 * it may need as much room as the store has, beside it; STATUS_INVALID, STATUS_IO,
 * STATUS_NO_MEMORY. Cut short by a crash, or after a failure: call it again. */
MUST_USE enum status engine_repair(const struct engine_options *options,
                                   void (*lost)(void *context, const struct engine_loss *loss), void *context,
                                   struct engine_repair_report *ret_report, struct error *err);

/* Removes the store's files, and its directory, if nothing else is in it. A crash leaves a part of the files, and no
 * store that opens; call it again. STATUS_NOT_FOUND: there is no such directory; STATUS_INVALID: it is another
 * program's. */
MUST_USE enum status engine_destroy(const struct engine_options *options, struct error *err);

/* ---- Statistics -------------------------------------------------------------------------------------------------- */

enum { ENGINE_LEVELS = 7 };

enum { ENGINE_SYNC_BUCKETS = 26 };

struct engine_stats {
    uint64_t revision; /* of the newest write */
    uint64_t durable;  /* revision up to which power loss takes nothing */
    uint64_t flushed;  /* revision up to which tables have it */
    uint64_t horizon;  /* oldest revision that can be read */
    uint64_t memtable_bytes;
    uint64_t immutable_memtables;
    uint64_t cache_bytes; /* used */
    uint64_t cache_hits;  /* of data blocks, */
    uint64_t cache_misses;
    uint64_t cache_index_hits; /* and of filters and indexes */
    uint64_t cache_index_misses;
    uint64_t open_files;
    uint64_t table_files;
    uint64_t table_bytes;
    uint64_t level_files[ENGINE_LEVELS];
    uint64_t level_bytes[ENGINE_LEVELS];
    uint64_t debt_bytes; /* that compactions have yet to rewrite */
    uint64_t dead_bytes; /* of files that are about to be removed */
    uint64_t flushes;
    uint64_t compactions;
    uint64_t compactions_running;
    uint64_t compaction_failures; /* each is tried again */
    uint64_t compaction_read_bytes;
    uint64_t compaction_written_bytes;
    uint64_t applied_bytes;     /* of writes, as encoded batches */
    uint64_t log_groups;        /* writes to the log, */
    uint64_t log_records;       /* the writes in them, */
    uint64_t log_written_bytes; /* and what went to disk, */
    uint64_t log_padding_bytes; /* of which this holds nothing */
    uint64_t log_segments;
    uint64_t log_segments_spare;    /* of them, kept to be used again, */
    uint64_t log_segments_filled;   /* made as new files so far, */
    uint64_t log_segments_recycled; /* and out of old ones */
    uint64_t log_group_records_max;
    uint64_t log_groups_idle;   /* of log_groups: begun when none was being written, */
    uint64_t log_groups_behind; /* gathered while one was, */
    uint64_t log_groups_full;   /* full, with more waiting, */
    uint64_t log_groups_start;  /* segments begun, */
    uint64_t log_groups_state;
    uint64_t log_groups_mark; /* and marks after idle time */
    uint64_t log_sync_us_total;
    uint64_t log_sync_us_max;
    uint64_t log_sync_us_p50; /* to the next power of two above, */
    uint64_t log_sync_us_p99;
    uint64_t log_sync_us_buckets[ENGINE_SYNC_BUCKETS]; /* from: bucket 0 below 1 us, bucket i below 2^i */
    uint64_t stalls; /* times that a writer waited, or was held back so that compactions keep up */
    uint64_t stall_us_total;
    uint64_t stall_us_max;
    uint64_t stall_us_log;       /* why they waited, in times that are over: for the log's disk; */
    uint64_t stall_us_memtables; /* for memtables to be written out, */
    uint64_t stall_us_level0;    /* for compactions of level 0, */
    uint64_t stall_us_debt;      /* of deeper levels, */
    uint64_t stall_us_space;     /* and for room on the disk: as long as writes were held up, writers or not */
    uint64_t written_bytes;      /* tables and manifests */
    /* Large values. */
    uint64_t adopted_bytes;    /* files of the log that the store took over */
    uint64_t value_files;      /* now, those among them */
    uint64_t value_file_bytes; /* their sizes */
    uint64_t value_bytes;      /* of these: what is still referred to */
    uint64_t snapshots;        /* held now */
    uint64_t snapshot_oldest_us;
    uint64_t snapshot_held_revisions;      /* that the oldest keeps from going */
    uint64_t views;                        /* iterators and values held now, */
    uint64_t view_oldest_us;               /* for how long the oldest has kept something from going, */
    uint64_t view_held_bytes;              /* and the files that only they keep */
    uint64_t damaged_blocks;               /* met by reads and compactions */
    uint64_t scrub_passes;                 /* over all tables, */
    uint64_t scrub_bytes;                  /* what was read in them, */
    uint64_t scrub_findings;               /* damaged places met, once in each pass, */
    uint64_t scrub_damages;                /* and those that are in tables of now */
    char problem[ERROR_MESSAGE_BYTES_MAX]; /* why writes are refused, or the last trouble in the background; or empty */
};

void engine_get_stats(struct engine *engine, struct engine_stats *ret_stats);
/* One of them by its name, in decimal digits ("flushes", "level_bytes.6"); "problem"; or "all": a line `name value` of
 * each. Appended to ret_text. STATUS_NOT_FOUND: no such name; STATUS_NO_MEMORY. */
MUST_USE enum status engine_property(struct engine *engine, const char *name, struct buf *ret_text);

#ifdef __cplusplus
}
#endif
#endif
