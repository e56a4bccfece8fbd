/*
 * Sorted tables on disk: written once, read for ever, never changed.
 *
 *   file = header 64 | data block... | index block | properties block | footer 96
 *
 * FORMAT.md says every byte. Each block carries a checksum bound to the file's id and the block's offset, checked on
 * every read: a block that was damaged, misplaced or of another file is STATUS_CORRUPT with the file's name and the
 * offset, never a wrong value, and hurts only the reads that need it.
 *
 * The builder writes through one 1 MiB buffer and syncs at the end. The reader keeps the index block in memory and
 * reads data blocks as asked. Both block: workers only, or the thread that opens the store. An open table is immutable,
 * so any number of threads may read it; its last four members belong to the owner of the store.
 */
#ifndef HOLDFAST_STORAGE_SST_H
#define HOLDFAST_STORAGE_SST_H

#include "node/base/buf.h"
#include "node/env/env.h"
#include "storage/cursor.h"

enum { SST_CLUSTER_ID_BYTES = 16 };

/* What the manifest says of a table. */
struct sst_meta {
    uint64_t number; /* names the file */
    uint64_t id;     /* random, in the file's header: seeds its checksums */
    uint64_t size_bytes;
    uint64_t entries;
    uint64_t checksum; /* of the whole file, see FORMAT.md */
    uint64_t revision_first;
    uint64_t revision_last;
    struct slice smallest; /* user keys */
    struct slice largest;
};

/* ---- Writing ------------------------------------------------------------------------------------------------- */

struct sst_builder;

struct sst_builder_options {
    struct env *env;
    const char *path; /* copied */
    uint64_t number;
    uint64_t id;
    uint8_t cluster_id[SST_CLUSTER_ID_BYTES];
    uint32_t block_bytes;
};

/* Creates the file, replacing one of that name. */
MUST_USE enum status sst_builder_new(const struct sst_builder_options *options, struct sst_builder **ret_builder,
                                     struct error *err);
/* Entries in strictly growing order; STATUS_CORRUPT if not (they come from a disk). Copies. STATUS_IO, STATUS_NO_SPACE,
 * STATUS_NO_MEMORY. After a failure only sst_builder_free is legal. */
MUST_USE enum status sst_builder_add(struct sst_builder *builder, const struct entry *entry, struct error *err);
/* About what the file would have if it were finished now. */
uint64_t sst_builder_size(const struct sst_builder *builder);
/* Writes the rest, syncs the file (not its directory), closes it. At least one entry must be in it. Meta's keys are
 * borrowed from the builder. */
MUST_USE enum status sst_builder_finish(struct sst_builder *builder, struct sst_meta *ret_meta, struct error *err);
/* Removes the file unless it was finished. NULL is accepted. */
void sst_builder_free(struct sst_builder *builder);

/* ---- Reading ------------------------------------------------------------------------------------------------- */

struct sst {
    struct env *env;
    struct env_file *file;
    struct sst_meta meta; /* keys owned, in `keys` */
    uint8_t *keys;
    uint64_t data_end; /* data blocks lie between the header and here */
    struct buf index;
    struct slice index_body;
    /* The owner's: */
    uint64_t refs; /* versions that hold it, and the job that made it until it is published */
    bool merging;  /* input of the merge under way */
    bool obsolete; /* no durable version names it: unlinked when refs end */
    struct sst *next_dead;
};

/* Opens and checks header, footer, index and properties against meta (copied). STATUS_CORRUPT, STATUS_UNSUPPORTED
 * (format version, compression), STATUS_IO, STATUS_NOT_FOUND. */
MUST_USE enum status sst_open(struct env *env, const char *path, const struct sst_meta *meta,
                              const uint8_t cluster_id[SST_CLUSTER_ID_BYTES], struct sst **ret_sst, struct error *err);
/* Blocks (closes the file). NULL is accepted. */
void sst_free(struct sst *sst);

/* True if the table can hold a version of the key at or below the revision. Memory only. */
bool sst_may_hold(const struct sst *sst, struct slice key, uint64_t revision);
/* True if its key range meets [lower, upper); upper.len 0: no end. */
bool sst_overlaps(const struct sst *sst, struct slice lower, struct slice upper);

/* The newest version at or below the revision, deletes included; its value is borrowed from `scratch`, which is
 * overwritten. STATUS_NOT_FOUND, STATUS_CORRUPT, STATUS_IO, STATUS_NO_MEMORY. */
MUST_USE enum status sst_get(struct sst *sst, struct slice key, uint64_t revision, struct buf *scratch,
                             struct entry *ret_entry, struct error *err);

/* A cursor over tables with disjoint, growing key ranges (a level), or over one. Borrows the tables and the array.
 * Holds one block in memory. NULL: out of memory. */
struct cursor *sst_cursor_new(struct alloc *alloc, struct sst *const *tables, size_t count);

#endif
