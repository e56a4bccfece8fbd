/*
 * Writing tables: sorted files that are written once, read for ever, never changed. FORMAT.md says every byte; sst.h
 * reads them.
 *
 *   header | (data block... , partition)... | range deletes? | top index? | properties | footer
 *
 * A partition is an index over the data blocks in front of it with the filter of their keys; the top index points to
 * the partitions. Nothing but the partition under way, one block and 1 MiB of output are held in memory.
 *
 * Legal order: new, (add or add_tombstone)..., finish, free. After a failure only free is legal: nothing is written
 * again after a failed write or sync, the file is removed, and whoever wants the table builds another one. All of it
 * blocks: workers only, or the thread that opens the store. One thread at a time.
 */
#ifndef HOLDFAST_STORAGE_SST_BUILDER_H
#define HOLDFAST_STORAGE_SST_BUILDER_H

#include "node/env/env.h"
#include "storage/compress.h"
#include "storage/entry.h"

struct tombstone;
struct value_ref;

enum { SST_CLUSTER_ID_BYTES = 16 };

/* What the manifest says of a table. */
struct sst_meta {
    uint64_t number; /* names the file */
    uint64_t id;     /* random, in the file's header: seeds its checksums */
    uint64_t size_bytes;
    uint64_t checksum;         /* of the whole file, see FORMAT.md */
    uint64_t entries;          /* puts and deletes of keys */
    uint64_t deletes;          /* ... of which deletes */
    uint64_t tombstones;       /* range deletes: one for each fragment and mark */
    uint64_t superseded;       /* entries whose key has a newer version in this table */
    uint64_t superseded_until; /* at and above this horizon none of them can be read any more; 0: there are none */
    uint64_t key_bytes;        /* of entries, before anything was shared or compressed */
    uint64_t value_bytes;
    uint64_t revision_first; /* of entries and range deletes */
    uint64_t revision_last;
    struct slice smallest; /* user keys: of entries, and starts and ends of range deletes */
    struct slice largest;
    bool largest_excluded; /* largest is the end of a range delete: no version of that key is in the table */
    const struct value_ref *value_refs; /* what its entries refer to in value files (value_file.h), by their ids */
    size_t value_ref_count;
};

struct sst_builder;

struct sst_builder_options {
    struct env *env;
    const char *path; /* copied */
    uint64_t number;
    uint64_t id;
    uint8_t cluster_id[SST_CLUSTER_ID_BYTES];
    uint32_t block_bytes;         /* a data block ends when it has as many, uncompressed; 1 to 1 MiB */
    uint32_t partition_bytes;     /* a partition ends when its data blocks have as many in the file; 1 to 16 MiB */
    uint32_t bloom_bits;          /* of filter for each key, 0 (no filters) to FILTER_BITS_PER_KEY_MAX */
    enum compression compression; /* of data blocks, where it saves an eighth */
    int zstd_level;               /* COMPRESSION_ZSTD_LEVEL_MIN to _MAX; counts for zstd only */
    /* Called before so many bytes (1 MiB, at the end less) are written; may sleep. NULL: no pacing. */
    void (*pace)(void *context, uint64_t bytes);
    void *pace_context;
};

/* Creates the file, replacing one of that name. The options must be in their ranges (CHECK). STATUS_IO,
 * STATUS_NO_SPACE, STATUS_NO_MEMORY. */
MUST_USE enum status sst_builder_new(const struct sst_builder_options *options, struct sst_builder **ret_builder,
                                     struct error *err);
/* A put (of a place, too) or a delete of a key; in strictly growing order, STATUS_CORRUPT if not (they come from a
 * disk), or if the place is none. Copies. STATUS_IO, STATUS_NO_SPACE, STATUS_NO_MEMORY; STATUS_TOO_LARGE: refers to too
 * many value files. */
MUST_USE enum status sst_builder_add(struct sst_builder *builder, const struct entry *entry, struct error *err);
/* A fragment's mark (tombstones.h): fragments in order, disjoint, the marks of each newest first; STATUS_CORRUPT if
 * not. In any order relative to entries. Copies. STATUS_NO_MEMORY. */
MUST_USE enum status sst_builder_add_tombstone(struct sst_builder *builder, const struct tombstone *tombstone,
                                               struct error *err);
/* About what the file would have if it were finished now. */
uint64_t sst_builder_size(const struct sst_builder *builder);
/* How many value files its entries refer to. */
size_t sst_builder_value_files(const struct sst_builder *builder);
/* Writes the rest, syncs the file (not its directory), closes it. At least one entry or range delete must be in it
 * (CHECK). Meta's keys and references are borrowed from the builder. */
MUST_USE enum status sst_builder_finish(struct sst_builder *builder, struct sst_meta *ret_meta, struct error *err);
/* Removes the file unless it was finished. NULL is accepted. */
void sst_builder_free(struct sst_builder *builder);

#endif
