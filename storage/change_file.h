/*
 * Change files: which keys each entry of the log changed, in the order of the log. A flush writes one beside its table.
 *
 *   file = header 64 | block of changes... | index | properties | footer 80        the frame of a table (FORMAT.md)
 *
 * The files of a store are disjoint and ascend; together with what the manifest says (changes_after) they have the
 * changes of every entry from some revision up to the flushed one, whole entries, none missing. They are never
 * rewritten: a file goes when all of it lies below the horizon. There are no values in them: whoever needs one asks for
 * the key at the revision.
 *
 * A file is an object like a table: counted, opened and closed, cached, scrubbed as one. The manifest says where its
 * index is, so a reader needs two blocks to be anywhere.
 *
 * Builder: new, add..., finish, free; it blocks; one thread. After a failure only free is legal.
 */
#ifndef HOLDFAST_STORAGE_CHANGE_FILE_H
#define HOLDFAST_STORAGE_CHANGE_FILE_H

#include "storage/change.h"
#include "storage/sst.h"
#include "storage/sst_format.h"

enum {
    CHANGE_BLOCK_BYTES = 32 * 1024, /* a block ends when it has so many, before it is compressed */
    CHANGE_INDEX_ENTRY_BYTES = 24
};

/* What the manifest says of a change file. */
struct change_meta {
    uint64_t number;
    uint64_t id;
    uint64_t size_bytes;
    uint64_t checksum; /* of the whole file */
    uint64_t changes;
    uint64_t revision_first; /* of its changes */
    uint64_t revision_last;
    struct sst_handle index;
};

/* What no file can be: false. */
bool change_meta_is_possible(const struct change_meta *meta);

/* ---- Index: revision u64, offset u64, ordinal u32, size u32 for each block ------------------------------------- */

struct change_index_entry {
    uint64_t revision; /* where the block begins */
    uint32_t ordinal;
    struct sst_handle handle;
};

void change_index_encode(uint8_t out[CHANGE_INDEX_ENTRY_BYTES], const struct change_index_entry *entry);
/* How many there are; 0: no index can have this length. */
static inline size_t change_index_count(struct slice index) {
    return index.len % CHANGE_INDEX_ENTRY_BYTES == 0 ? index.len / CHANGE_INDEX_ENTRY_BYTES : 0;
}
/* The entry at this place. STATUS_CORRUPT unless the block lies between the file's header and `end`, where the index
 * begins. */
MUST_USE enum status change_index_decode(struct slice index, size_t at, uint64_t end,
                                         struct change_index_entry *ret_entry);
/* The block to begin with for changes of this revision and later ones: the last that begins in front of it, or the
 * first. */
size_t change_index_find(struct slice index, uint64_t revision);

/* ---- Writing (change_builder.c) -------------------------------------------------------------------------------- */

struct change_builder;

struct change_builder_options {
    struct env *env;
    const char *path; /* copied */
    uint64_t number;
    uint64_t id;
    uint8_t cluster_id[SST_CLUSTER_ID_BYTES];
    enum compression compression;
    int zstd_level;
};

/* Creates the file, replacing one of that name. STATUS_IO, STATUS_NO_SPACE, STATUS_NO_MEMORY. */
MUST_USE enum status change_builder_new(const struct change_builder_options *options,
                                        struct change_builder **ret_builder, struct error *err);
/* In the order of the log (CHECK). Copies. Statuses as above. */
MUST_USE enum status change_builder_add(struct change_builder *builder, const struct change *change, struct error *err);
/* Writes the rest, syncs the file (not its directory), closes it. At least one change must be in it (CHECK). */
MUST_USE enum status change_builder_finish(struct change_builder *builder, struct change_meta *ret_meta,
                                           struct error *err);
/* Removes the file unless it was finished. NULL is accepted. */
void change_builder_free(struct change_builder *builder);

/* ---- Reading (change_file.c) ----------------------------------------------------------------------------------- */

/* A change file as an object: sst_free frees it. No I/O. STATUS_NO_MEMORY. */
MUST_USE enum status change_file_new(const struct sst_context *context, const struct change_meta *meta,
                                     struct sst **ret_file);
struct change_meta change_file_meta(const struct sst *file);

/* A walk over files that ascend, from a revision on. Owns nothing but what it holds of the cache. */
struct change_walk {
    struct fetch *fetch;
    struct sst *const *files; /* borrowed */
    size_t file_count;
    uint64_t from;
    size_t file;                 /* the one under way; file_count: it has ended */
    size_t block;                /* of it */
    struct cache_block *index;   /* of it, held; NULL: not there yet */
    struct cache_block *changes; /* the block, held; NULL: not there yet */
    uint64_t last_revision;      /* of the change returned last, or passed over */
    uint32_t last_ordinal;
    struct change_block reader;
};

/* Files and array stay until change_walk_deinit. */
void change_walk_init(struct change_walk *walk, struct fetch *fetch, struct sst *const *files, size_t count,
                      uint64_t from);
void change_walk_deinit(struct change_walk *walk);
/* The next change, in walk->reader.change until the next call. STATUS_NOT_FOUND: there are no more. STATUS_PENDING, as
 * all reads through a fetch; STATUS_CORRUPT, STATUS_UNSUPPORTED, STATUS_IO, STATUS_NO_MEMORY: another call tries again.
 */
MUST_USE enum status change_walk_next(struct change_walk *walk, struct error *err);

/* Blocks: as sst_verify, which calls it for change files. report.entries: changes. */
MUST_USE enum status change_verify(struct sst *file, const struct sst_verify_options *options,
                                   struct sst_verify_report *ret_report, struct error *err);

#endif
