/*
 * Repairing a store that doesn't open, or is damaged, where there is no replica and no backup to fetch it from.
 *
 * A store that verifies is left alone. Else everything that can be read of its tables is written into new tables of the
 * last level, merged by (key, revision); what can't be read is left out and told, and so are versions whose value is
 * apart and can't be read. Value files that are whole stay; values of others go to new ones. All other old files go to
 * the directory `lost` in the store's, for whoever knows more; nothing is deleted.
 *
 * What comes out opens, and is sound. It isn't what was there:
 *   - with a readable manifest: its frontier, its horizon, its tables but for what was lost. Where a lost piece had the
 *     newest version of a key, an older one, or none, is seen now; deleted keys can be back. If no table and no value
 *     lost anything, the newest change files stay, back to one that is damaged; else none does.
 *   - without: all tables that there are, those too that were replaced and not removed yet. Frontier and horizon are
 * the newest revision found, its term is 1, membership and digest are empty. So a node whose store was repaired must
 * not count as the member it was (DESIGN.md, rule 14).
 *
 * Cut short by a crash it has changed nothing yet, or is done; then the next opening removes what it hadn't moved.
 */
#ifndef HOLDFAST_STORAGE_REPAIR_H
#define HOLDFAST_STORAGE_REPAIR_H

#include "storage/storage.h"

#define REPAIR_LOST_NAME "lost"

struct storage_loss {
    uint64_t file;      /* number of the table or, with a key, of the value file; 0: there is none such */
    uint64_t offset;    /* of the block; 0: all of the table */
    struct slice key;   /* only the value of this version of this key is missing; empty: a piece of a table. Borrowed */
    uint64_t revision;  /* ... this one */
    struct slice after; /* what is missing lies behind this key, */
    struct slice until; /* and not behind this one; both empty: anywhere. Borrowed */
    const char *message; /* why, for a whole table; else NULL */
};

struct storage_repair_options {
    const struct storage_options *storage; /* env, dir, cluster and node, and how tables are built */
    void *context;
    void (*lost)(void *context, const struct storage_loss *loss); /* may be NULL */
};

struct storage_repair_report {
    bool was_sound;     /* nothing was done */
    bool manifest_used; /* it could be read */
    uint64_t tables;    /* that something was read from */
    uint64_t tables_lost;
    uint64_t pieces_lost;         /* blocks and partitions of other tables */
    uint64_t values_lost;         /* versions whose value is apart and can't be read */
    uint64_t value_files_damaged; /* missing ones included */
    uint64_t entries;             /* written */
    uint64_t tables_written;
    struct storage_frontier frontier;
};

/* Blocks: a thread without a loop, or a worker. Nobody has the store open (STATUS_BUSY). STATUS_NOT_FOUND: there is
 * nothing of a store; STATUS_NO_SPACE: it needs as much room as the store has, beside it; STATUS_INVALID: the options,
 * or it is another cluster's; STATUS_IO, STATUS_NO_MEMORY: nothing has changed. */
MUST_USE enum status storage_repair(const struct storage_repair_options *options,
                                    struct storage_repair_report *ret_report, struct error *err);

#endif
