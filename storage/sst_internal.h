/* Between the parts of the SST reader: sst.c, sst_top.c, fetch.c, sst_cursor.c, sst_window.c, sst_verify.c. */
#ifndef HOLDFAST_STORAGE_SST_INTERNAL_H
#define HOLDFAST_STORAGE_SST_INTERNAL_H

#include "storage/block.h"
#include "storage/filter.h"
#include "storage/sst.h"
#include "storage/sst_format.h"

/* ---- The top: what an open table keeps in memory ------------------------------------------------------------ */

/* One partition. */
struct sst_part {
    uint64_t revision; /* of its separator */
    uint32_t ordinal;
    uint32_t key_at; /* the user key, in keys */
    uint32_t key_len;
    struct sst_handle handle; /* its data blocks stand between the partition before and here */
};

/* A partition whose block the table keeps (cache_keep) while its top lives: lookups and cursors need no hold of it, nor
 * a search. What stands in `filter` and behind is of use once `block` is there. */
struct sst_kept {
    _Atomic(struct cache_block *) block; /* NULL: not kept */
    const uint8_t *filter;
    const uint8_t *index; /* for block_cursor_open */
    uint32_t filter_len;
    uint32_t index_len;
    uint16_t probes;
    atomic_bool is_claimed; /* by the one who fills it in */
};

/* A head: the 8 bytes of a separator behind what all separators share, big-endian, zero-padded. */
struct sst_top {
    struct tombstones *tombstones; /* NULL: none */
    uint64_t blocks_end;           /* data and partitions lie between the header and here */
    size_t charge_bytes;
    uint8_t *keys;
    struct sst_properties properties; /* its keys aren't kept */
    uint32_t shared_len;              /* bytes that all separators begin with */
    uint32_t part_count;
    uint64_t *heads; /* of the parts' separators, side by side: the search looks at these */
    struct sst_kept *kept;
    struct sst_part parts[];
};

/* Blocks: makes the top unless it is there. Any thread. */
MUST_USE enum status sst__load_top(struct sst *sst, struct error *err);
void sst__free_top(struct sst *sst);
/* Reads and checks header, footer, properties, top index and range deletes. Blocks. The file must be pinned. */
MUST_USE enum status sst__read_top(struct sst *sst, struct sst_top **ret_top, struct error *err);
void sst__discard_top(struct alloc *alloc, struct sst_top *top);
/* For as long as the top lives, unless it is NULL. */
static inline struct cache_block *sst__kept(const struct sst_top *top, uint32_t part) {
    return atomic_load_explicit(&top->kept[part].block, memory_order_acquire);
}
/* Of a partition that is kept. */
static inline struct slice sst__kept_filter(const struct sst_kept *kept) {
    return slice_of(kept->filter, kept->filter_len);
}
static inline struct slice sst__kept_index(const struct sst_kept *kept) {
    return slice_of(kept->index, kept->index_len);
}
/* Keeps this partition's block, which the caller holds, if it is asked for often and there is room. */
void sst__keep(struct sst *sst, const struct sst_top *top, uint32_t part, struct cache_block *block,
               const struct sst_partition *partition);
static inline const struct sst_top *sst__top(struct sst *sst) {
    return atomic_load_explicit(&sst->top, memory_order_acquire);
}
/* The first partition whose separator isn't in front of the target; part_count if there is none. */
uint32_t sst__find_part(const struct sst_top *top, const struct entry_key *target);
struct entry_key sst__part_key(const struct sst_top *top, uint32_t part);
/* Where the first of its data blocks stands. */
static inline uint64_t sst__part_start(const struct sst_top *top, uint32_t part) {
    return part == 0 ? (uint64_t)SST_HEADER_BYTES
                     : top->parts[part - 1].handle.offset + top->parts[part - 1].handle.size + SST_TRAILER_BYTES;
}

/* ---- Reading and checking blocks (sst.c) -------------------------------------------------------------------- */

/* Exactly len bytes, or STATUS_CORRUPT. STATUS_IO: not even when asked once more, and the owner was told that this is
 * damage. Blocks. The file must be pinned. */
MUST_USE enum status sst__read(struct sst *sst, void *data, size_t len, uint64_t offset, struct error *err);
/* The second half of it, also for bytes that failed their checks: as they stand on the disk now, past the page cache.
 * Errors likewise. */
MUST_USE enum status sst__read_again(struct sst *sst, void *data, size_t len, uint64_t offset, struct error *err);
/* Opens the file if need be, and pins it. Blocks. */
MUST_USE enum status sst__pin(struct sst *sst, struct error *err);
/* raw: body and trailer as read. STATUS_OK takes it and returns the block with its plain body, held; else raw stays the
 * caller's. err isn't set for STATUS_CORRUPT and STATUS_UNSUPPORTED. */
MUST_USE enum status sst__unpack(struct sst *sst, const struct sst_handle *handle, enum sst_block_kind kind,
                                 struct cache_block *raw, struct cache_block **ret_block, struct error *err);
/* Reads and unpacks a block, twice if need be. Blocks. The file must be pinned. */
MUST_USE enum status sst__read_block(struct sst *sst, const struct sst_handle *handle, enum sst_block_kind kind,
                                     struct cache_block **ret_block, struct error *err);
/* The second half of it, for raw (taken) that failed its checks once. */
MUST_USE enum status sst__retry_block(struct sst *sst, const struct sst_handle *handle, enum sst_block_kind kind,
                                      struct cache_block *raw, struct cache_block **ret_block, struct error *err);
/* Says so in err, with file and offset, and tells the owner. Returns status. */
enum status sst__damaged(struct sst *sst, enum status status, const char *what, uint64_t offset, struct error *err);
/* STATUS_NO_MEMORY. */
enum status sst__no_memory(const struct sst *sst, size_t bytes, struct error *err);

static inline enum cache_kind sst__cache_kind(enum sst_block_kind kind) {
    bool is_other = kind == SST_BLOCK_VALUE || kind == SST_BLOCK_CHANGES;
    return kind == SST_BLOCK_DATA ? CACHE_DATA : is_other ? CACHE_OTHER : CACHE_INDEX;
}

/* Large values would push out hundreds of blocks each, for little: reading one is a fraction of what is done with it.
 */
enum { SST_VALUE_RETAINED_BYTES_MAX = 16 * 1024 };
static inline bool sst__is_retained(enum sst_block_kind kind, const struct cache_block *block) {
    return kind != SST_BLOCK_VALUE || block->len <= SST_VALUE_RETAINED_BYTES_MAX;
}

/* STATUS_NOT_FOUND: the table has no version of the target's key at or behind it, says the filter. STATUS_OK: it may.
 * STATUS_PENDING and errors as sst_get. hash: filter_hash of the key. (sst.c) */
MUST_USE enum status sst__ask_filter(struct sst *sst, struct fetch *fetch, const struct entry_key *target,
                                     uint64_t hash, struct error *err);

/* ---- Fetching (fetch.c) ------------------------------------------------------------------------------------- */

/* STATUS_OK: the top is there. */
MUST_USE enum status fetch__top(struct fetch *fetch, struct sst *sst, const struct sst_top **ret_top,
                                struct error *err);
/* A data block or a partition that the caller didn't find in the cache; held. */
MUST_USE enum status fetch__missing(struct fetch *fetch, struct sst *sst, const struct sst_handle *handle,
                                    enum sst_block_kind kind, struct cache_block **ret_block, struct error *err);
/* Reads len unchecked bytes into data, which is the caller's and stays until this said something else than
 * STATUS_PENDING, or fetch__forget_window. data names the want: one per memory. */
MUST_USE enum status fetch__window(struct fetch *fetch, struct sst *sst, uint64_t offset, size_t len, uint8_t *data,
                                   struct error *err);
void fetch__forget_window(struct fetch *fetch, const uint8_t *data);

/* From the cache or else fetched; held. */
MUST_USE static inline enum status fetch__block(struct fetch *fetch, struct sst *sst, const struct sst_handle *handle,
                                                enum sst_block_kind kind, struct cache_block **ret_block,
                                                struct error *err) {
    struct cache_key key = {.id = sst->meta.id, .offset = handle->offset};
    struct cache_block *block = cache_lookup(sst->context->cache, &key, sst__cache_kind(kind));
    if (block != NULL) {
        *ret_block = block;
        return STATUS_OK;
    }
    return fetch__missing(fetch, sst, handle, kind, ret_block, err);
}

#endif
