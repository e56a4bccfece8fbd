/*
 * Value files: large values, apart from the tree.
 *
 * A value of at least `threshold` bytes goes into a value file when its memtable is flushed; the entry in the table
 * then holds only its *place*. Compactions move places, not values. So a large value is written twice at most, once to
 * the log and once here, however often its key is rewritten; and but once where a segment of the log is taken over as a
 * value file (values_adopt.c).
 *
 *   table entry (BATCH_PUT_APART): place 24 = id of the file, offset, stored size, value length
 *   value file  = header 64 | value block... | sizes | properties | footer 80       the frame of a table (FORMAT.md)
 *   value block = key length u16, ordinal u32, revision u64, key, value; compressed where that saves an eighth; trailer
 *
 * A block says whose value it is: a place that leads to another key's or version's value is found, and a file tells all
 * that it holds even if every table is lost.
 *
 * What of a file is still in use is not stored anywhere: each table's meta says how much of which file its entries
 * refer to (struct value_ref), and a version adds that up. A file that no table refers to goes; the values of one that
 * has little left are moved by rewriting the tables that refer to it.
 *
 * Builder: new, add..., finish, free; it blocks; one thread. After a failure only free is legal.
 */
#ifndef HOLDFAST_STORAGE_VALUE_FILE_H
#define HOLDFAST_STORAGE_VALUE_FILE_H

#include "storage/sst.h"
#include "storage/sst_format.h"

enum {
    VALUE_PLACE_BYTES = ENTRY_PLACE_BYTES,
    VALUE_REF_BYTES = 24,
    VALUE_THRESHOLD_BYTES_MIN = 32,  /* a place must be worth it */
    VALUE_SIZE_BYTES = 4,            /* of a block, in the list of sizes */
    VALUE_FILE_VALUES_MAX = 1 << 20, /* of one file: what its list of sizes has room for */
    VALUE_HEAD_BYTES = 14,           /* of a block's body, in front of the key */
    /* Value files that one table refers to: the most there may be, and where compactions cut. */
    VALUE_REFS_MAX = 65536,
    VALUE_REFS_CUT = 512
};

/* Where a value is. */
struct value_place {
    uint64_t file; /* id: it stays when the file gets another number */
    struct sst_handle handle;
    uint32_t value_len;
};

void value_place_encode(uint8_t out[VALUE_PLACE_BYTES], const struct value_place *place);
/* STATUS_CORRUPT. Whether the file exists and reaches that far is the reader's to check. */
MUST_USE enum status value_place_decode(struct slice in, struct value_place *ret_place);
/* Bytes of the file that a place takes: what is given back when nothing refers to it. */
static inline uint64_t value_place_bytes(const struct value_place *place) {
    return (uint64_t)place->handle.size + SST_TRAILER_BYTES;
}

/* The one place that decides. threshold 0: none is. */
static inline bool value_is_apart(uint64_t threshold, size_t value_len) {
    return threshold > 0 && value_len >= threshold;
}

/* What a table's entries refer to in one value file. */
struct value_ref {
    uint64_t file; /* id */
    uint64_t values;
    uint64_t bytes; /* value_place_bytes of all */
};

/* What the manifest says of a value file. */
struct value_meta {
    bool is_log; /* a log segment (value_log.c): checksum is its last group's, values are those it was taken for, and
                    bytes is all that it has: what isn't referred to of them is garbage */
    uint64_t number;
    uint64_t id;
    uint64_t size_bytes;
    uint64_t checksum; /* of the whole file */
    uint64_t values;
    uint64_t bytes; /* value_place_bytes of all */
};

struct value_builder;

struct value_builder_options {
    struct env *env;
    const char *path; /* copied */
    uint64_t number;
    uint64_t id;
    uint8_t cluster_id[SST_CLUSTER_ID_BYTES];
    enum compression compression;
    int zstd_level;
    void (*pace)(void *context, uint64_t bytes); /* as in sst_builder.h */
    void *pace_context;
};

/* Creates the file, replacing one of that name. STATUS_IO, STATUS_NO_SPACE, STATUS_NO_MEMORY. */
MUST_USE enum status value_builder_new(const struct value_builder_options *options, struct value_builder **ret_builder,
                                       struct error *err);
/* The key's version with its value (entry->kind doesn't matter). Copies. Statuses as above. At most
 * VALUE_FILE_VALUES_MAX (CHECK). */
MUST_USE enum status value_builder_add(struct value_builder *builder, const struct entry *entry,
                                       struct value_place *ret_place, struct error *err);
/* What the file would have if it were finished now, about. */
uint64_t value_builder_size(const struct value_builder *builder);
uint64_t value_builder_values(const struct value_builder *builder);
/* Writes the rest, syncs the file (not its directory), closes it. At least one value must be in it (CHECK). */
MUST_USE enum status value_builder_finish(struct value_builder *builder, struct value_meta *ret_meta,
                                          struct error *err);
/* Removes the file unless it was finished. NULL is accepted. */
void value_builder_free(struct value_builder *builder);

/* The parts of a value block's body (unpacked): borrowed. STATUS_CORRUPT. */
struct value_block {
    struct entry_key key;
    struct slice value;
};
MUST_USE enum status value_block_open(struct slice body, struct value_block *ret_block);

/* ---- References of one table --------------------------------------------------------------------------------- */

/* A growing list, by the files' ids. */
struct value_refs {
    struct buf list; /* struct value_ref each */
};

void value_refs_init(struct value_refs *refs, struct alloc *alloc);
void value_refs_deinit(struct value_refs *refs);
/* STATUS_NO_MEMORY; STATUS_TOO_LARGE: too many files. */
MUST_USE enum status value_refs_add(struct value_refs *refs, const struct value_place *place);
static inline const struct value_ref *value_refs_list(const struct value_refs *refs, size_t *ret_count) {
    *ret_count = refs->list.len / sizeof(struct value_ref);
    return (const struct value_ref *)(const void *)refs->list.data;
}

/* As bytes: file u64, values u64, bytes u64 each. Appends; STATUS_NO_MEMORY. */
MUST_USE enum status value_refs_encode(struct buf *out, const struct value_ref *refs, size_t count);
/* One of them, of VALUE_REF_BYTES. */
struct value_ref value_ref_decode(const uint8_t in[VALUE_REF_BYTES]);
/* True if this is a list: one to VALUE_REFS_MAX, growing ids, no zeroes. */
bool value_refs_check(struct slice bytes);
/* True if the bytes say the same as the list. */
bool value_refs_equal(struct slice bytes, const struct value_ref *refs, size_t count);

/* ---- Reading (value_read.c) ------------------------------------------------------------------------------------ */

/* A value file as an object: counted, opened and closed like a table. The meta's entries and value_bytes are values and
 * bytes. sst_free frees it. No I/O. STATUS_NO_MEMORY. */
MUST_USE enum status value_file_new(const struct sst_context *context, const struct value_meta *meta,
                                    struct sst **ret_file);
struct value_meta value_file_meta(const struct sst *file);

/* The value of this version at its place in the file (place->file is its id), borrowed from what `hold` holds from
 * then on; what it held before is released only on STATUS_OK. Like all reads through a fetch: STATUS_PENDING,
 * STATUS_CORRUPT (another key's or version's value stands there, too), STATUS_UNSUPPORTED, STATUS_IO, STATUS_NO_MEMORY.
 */
MUST_USE enum status value_fetch(struct sst *file, struct fetch *fetch, const struct value_place *place,
                                 const struct entry_key *key, struct sst_hold *hold, struct slice *ret_value,
                                 struct error *err);

/* ---- Log segments (value_log.c) -------------------------------------------------------------------------------- */

/* The handle of a place that leads to a record of the log, `record_bytes` long with its header. */
struct sst_handle value_log_handle(uint64_t offset, uint32_t record_bytes);
/* Who wants the value reads the whole record: true if that is not much more. */
bool value_log_is_worth(size_t value_len, uint32_t record_bytes);
/* True if the bytes are just one sound record. STATUS_CORRUPT. */
MUST_USE enum status value_log_check(struct slice bytes);
/* The value that this version has in a record that was checked: borrowed. STATUS_CORRUPT: it has none there. */
MUST_USE enum status value_log_find(struct slice bytes, const struct entry_key *key, struct slice *ret_value);
/* As value_verify, which calls it. */
MUST_USE enum status value_log_verify(struct sst *file, const struct sst_verify_options *options,
                                      struct sst_verify_report *ret_report, struct error *err);

/* Blocks: as sst_verify, which calls it for value files. */
MUST_USE enum status value_verify(struct sst *file, const struct sst_verify_options *options,
                                  struct sst_verify_report *ret_report, struct error *err);

#endif
