/* Between the parts of a cursor over tables: sst_cursor.c walks, sst_window.c reads ahead. */
#ifndef HOLDFAST_STORAGE_SST_CURSOR_INTERNAL_H
#define HOLDFAST_STORAGE_SST_CURSOR_INTERNAL_H

#include "storage/sst_internal.h"

enum operation { OPERATION_NONE, OPERATION_SEEK, OPERATION_SEEK_BEFORE, OPERATION_EDGE, OPERATION_STEP };
enum landing { LAND_FIRST, LAND_LAST, LAND_SEEK, LAND_BEFORE };
enum step { STEP_TABLE, STEP_PART, STEP_BLOCK, STEP_LANDED };

/* Bytes of a table as they stand in the file, blocks cut off at either end. */
struct window {
    const struct sst *sst; /* NULL: empty */
    uint64_t offset;
    size_t len;
    uint8_t *data;
    size_t room;
    size_t next_len; /* of the next one */
};

struct sst_cursor {
    struct cursor base;
    struct fetch *fetch;
    struct sst *const *tables;
    size_t count;
    bool placed;              /* data is at an entry: next and prev are legal */
    bool backward;            /* direction of the operation */
    enum operation under_way; /* said STATUS_PENDING */
    enum landing landing;
    enum step step;
    size_t at;                      /* table; count: none */
    uint32_t part;                  /* of that table */
    const struct sst_top *top;      /* of that table, from STEP_PART on */
    struct sst_handle handle;       /* of the data block */
    uint32_t walked;                /* blocks entered one behind the other since the last seek */
    struct cache_block *part_block; /* held; NULL: none, or the table keeps it */
    const struct sst *part_sst;     /* where part_block is from, if there is one */
    uint64_t part_offset;
    struct cache_block *block; /* NULL: data lies in the window or in unpacked */
    struct window window;
    struct buf unpacked; /* a block of the window that was compressed */
    struct entry_key target;
    struct block_cursor index;
    struct block_cursor data;
    uint8_t target_user[LIMIT_KEY_BYTES];
};

static inline struct sst *sst_cursor__table(const struct sst_cursor *cursor) { return cursor->tables[cursor->at]; }

/* ---- sst_window.c -------------------------------------------------------------------------------------------- */

static inline bool sst_window__covers(const struct window *window, const struct sst *sst,
                                      const struct sst_handle *handle) {
    uint64_t end = handle->offset + handle->size + SST_TRAILER_BYTES;
    return window->sst == sst && handle->offset >= window->offset && end <= window->offset + window->len;
}
/* A block that the window covers, with its trailer. */
static inline struct slice sst_window__slice(const struct window *window, const struct sst_handle *handle) {
    return slice_of(window->data + (handle->offset - window->offset), (size_t)handle->size + SST_TRAILER_BYTES);
}
/* True if the walk has come so far that the data block is worth a window. */
bool sst_window__is_wanted(const struct sst_cursor *cursor);
/* Brings a window that covers the data block. resumed: it was placed, and said STATUS_PENDING. STATUS_NOT_FOUND: there
 * is no memory for one. Else as fetch__window. */
MUST_USE enum status sst_window__fill(struct sst_cursor *cursor, bool resumed, struct error *err);
/* A block of the window as one of the cache's, held. Any failure: fetch it by itself, which says what is wrong. */
MUST_USE enum status sst_window__copy(struct sst_cursor *cursor, const struct sst_stored *stored, uint64_t offset,
                                      enum sst_block_kind kind, struct cache_block **ret_block);
/* The body of the data block out of the window; likewise. */
MUST_USE enum status sst_window__use(struct sst_cursor *cursor, struct slice *ret_body);

#endif
