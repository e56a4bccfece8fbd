/*
 * Sorted tables on disk, the reading half: written once (sst_builder.h), read for ever, never changed.
 *
 *   file = header | (data block... , partition)... | range deletes? | top index? | properties | footer
 *
 * A lookup goes top index (in memory while the table lives) -> partition (cache: filter, index) -> data block (cache).
 * FORMAT.md says every byte.
 *
 * A table is made from what the manifest says of it; its file is opened and its header, footer, properties, top index
 * and range deletes are read and checked when they are first needed. Damage hurts only the reads that need what is
 * damaged: they get STATUS_CORRUPT with the file's name and the offset, never a wrong value, and the owner is told
 * through sst_context.damaged. So they do, with STATUS_IO, of what the disk doesn't give at a second try, or a file
 * that is gone.
 *
 *   sst_new -> (sst_load) -> sst_get, cursors, sst_tombstones, sst_verify on any threads -> sst_free, by the last
 *
 * Everything but the owner's members is immutable or atomic: any number of threads may read one table at once. Two that
 * need the top at the same moment both read it, and one of them wins.
 */
#ifndef HOLDFAST_STORAGE_SST_H
#define HOLDFAST_STORAGE_SST_H

#include "storage/cache.h"
#include "storage/cursor.h"
#include "storage/fetch.h"
#include "storage/open_files.h"
#include "storage/sst_builder.h"
#include "storage/tombstones.h"

struct sst;
struct sst_top;

/* What all tables of one store share. Immutable; outlives them. */
struct sst_context {
    struct env *env;
    struct cache *cache;
    struct open_files *files;
    const char *dir;
    uint8_t cluster_id[SST_CLUSTER_ID_BYTES];
    /* Something couldn't be read, or failed its checks, twice (the read that needed it fails, too). Any thread; must
     * not block. May be NULL. */
    void (*damaged)(void *context, const struct sst *sst, const struct error *err);
    void *damaged_context;
};

struct sst {
    const struct sst_context *context;
    bool is_log;          /* is_values, and a segment of the log (value_log.c) */
    bool is_values;       /* a value file: counted and opened like a table, read by value_fetch only (value_file.h) */
    bool is_changes;      /* a change file, likewise (change_file.h) */
    struct sst_meta meta; /* keys and value_refs owned, in `memory` */
    void *memory;
    struct open_file file;
    _Atomic(struct sst_top *) top; /* NULL until it is first needed */
    /* The owner's: */
    uint64_t refs; /* versions that hold it, and the job that made it until it is published */
    unsigned level;
    bool compacting;       /* input of a compaction under way */
    bool obsolete;         /* no durable version names it: unlinked when refs end */
    _Atomic bool is_stuck; /* a value file with values that can't be read: none are moved out of it */
    struct sst *next_dead;
};

/* Of its file. out: LIMIT_PATH_BYTES. */
void sst_path(const struct sst *sst, char *out);

/* No I/O. Copies meta. STATUS_NO_MEMORY. */
MUST_USE enum status sst_new(const struct sst_context *context, const struct sst_meta *meta, struct sst **ret_sst);
/* Blocks: closes the file. Nobody reads it any more; refs are 0 (CHECK). NULL is accepted. Its blocks stay in the cache
 * until they are evicted (cache_forget). */
void sst_free(struct sst *sst);

/* Blocks: opens the file and checks what opening checks, unless that was done. For a table that was just written,
 * before the manifest names it. STATUS_CORRUPT, STATUS_UNSUPPORTED, STATUS_IO, STATUS_NOT_FOUND, STATUS_NO_MEMORY. */
MUST_USE enum status sst_load(struct sst *sst, struct error *err);

/* ---- By meta: memory only --------------------------------------------------------------------------------------- */

/* True if the table can hold a version of the key, or a range delete over it, at or below the revision. */
bool sst_may_hold(const struct sst *sst, struct slice key, uint64_t revision);
/* True if its key range meets [lower, upper); upper.len 0: no end. */
bool sst_overlaps(const struct sst *sst, struct slice lower, struct slice upper);

/* ---- Reading -------------------------------------------------------------------------------------------------- */

/* What keeps an entry's value in memory. All zero: nothing. */
struct sst_hold {
    struct cache *cache;
    struct cache_block *block;
};

/* Any thread. Leaves it all zero; that is accepted, too. */
static inline void sst_hold_release(struct sst_hold *hold) {
    if (hold->block != NULL) {
        cache_release(hold->cache, hold->block);
        hold->block = NULL;
    }
}

/* The newest version of the key at or below the revision among the table's entries, deletes included. hash:
 * filter_hash(key). On STATUS_OK ret_entry's value is borrowed from a block that `hold` holds from then on (what it
 * held before is released at once, whatever the answer), its key is `key`.
 * ret_mark, with STATUS_OK and STATUS_NOT_FOUND: the newest range delete of this table over the key at or below the
 * revision, or TOMBSTONE_MARK_NONE.
 * STATUS_NOT_FOUND, STATUS_PENDING, STATUS_CORRUPT, STATUS_UNSUPPORTED, STATUS_IO, STATUS_NO_MEMORY. */
MUST_USE enum status sst_get(struct sst *sst, struct fetch *fetch, struct slice key, uint64_t hash, uint64_t revision,
                             struct sst_hold *hold, struct entry *ret_entry, struct tombstone_mark *ret_mark,
                             struct error *err);

/* A cursor over the entries (not the range deletes) of tables with disjoint, growing key ranges (a level), or of one.
 * Borrows the fetch, the tables and the array. Holds one partition and one block, and reads ahead as the fetch says.
 * NULL: out of memory. */
struct cursor *sst_cursor_new(struct alloc *alloc, struct fetch *fetch, struct sst *const *tables, size_t count);

/* The table's range deletes, borrowed as long as the table lives; NULL if it has none (known from meta, without I/O).
 * STATUS_PENDING and errors as above. */
MUST_USE enum status sst_tombstones(struct sst *sst, struct fetch *fetch, const struct tombstones **ret_set,
                                    struct error *err);

/* ---- Verifying ------------------------------------------------------------------------------------------------- */

struct sst_verify_options {
    /* Called before so many bytes are read; may sleep; false: stop, with STATUS_CANCELLED. NULL: no pacing. */
    bool (*pace)(void *context, uint64_t bytes);
    void *context;
    bool checksum_unknown; /* meta's checksum of the file means nothing: a table without its manifest */
};

struct sst_verify_report {
    uint64_t bytes; /* read */
    uint64_t data_blocks;
    uint64_t partitions;
    uint64_t entries;
    uint64_t tombstones;
    uint64_t findings; /* places that are damaged or contradict others; err names the first */
    uint64_t first_offset;
    uint64_t checksum; /* of the file as read; 0 if it couldn't be told */
};

/* Blocks: reads the whole file past the block cache and checks every checksum, the order of all keys, separators,
 * filters, all counts against properties and meta, and the checksum of the file. Goes on behind a finding as far as it
 * can. STATUS_CORRUPT if there were any; other errors end it. options NULL: no pacing. */
MUST_USE enum status sst_verify(struct sst *sst, const struct sst_verify_options *options,
                                struct sst_verify_report *ret_report, struct error *err);

#endif
