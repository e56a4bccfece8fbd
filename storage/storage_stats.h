/*
 * What a store says of itself: what a start would have to replay, which of its files are damaged, and numbers for
 * operators. Owner loop. Part of storage.h.
 */
#ifndef HOLDFAST_STORAGE_STATS_H
#define HOLDFAST_STORAGE_STATS_H

#include "node/base/limits.h"
#include "node/base/status.h"
#include "storage/cache.h"
#include "storage/frontier.h"
#include "storage/open_files.h"

#include <stdbool.h>
#include <stdint.h>

struct storage;

/* ---- What a start would have to replay -------------------------------------------------------------------------- */

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

/* ---- Damage ----------------------------------------------------------------------------------------------------- */

/* A damaged place of a file. */
struct storage_damage {
    uint64_t file;     /* number of the table, value file or change file */
    uint64_t offset;   /* of the block; 0: header, the file as a whole, or not known */
    uint64_t count;    /* passes of the scrub that met it */
    uint64_t since_us; /* env clock */
};

/* A live file that a read, a flush or a compaction met damaged, and that wasn't named here before. False: there is
 * none. Owner loop; cheap enough for a look now and then. The scrub's findings come by the callback `damaged`. */
bool storage_next_damage(struct storage *storage, struct storage_damage *ret_damage);
/* The store still consists of this file, among others: what is damaged in it may be needed. */
bool storage_has_file(const struct storage *storage, uint64_t number);

/* ---- Statistics ------------------------------------------------------------------------------------------------- */

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
