/*
 * Owned, growing bytes. One owner; not shared between threads.
 *
 * Growth doubles, up to `limit_bytes` if that is not 0. A failed call leaves the buffer as it was.
 */
#ifndef HOLDFAST_BASE_BUF_H
#define HOLDFAST_BASE_BUF_H

#include "node/base/alloc.h"
#include "node/base/slice.h"
#include "node/base/status.h"

struct buf {
    struct alloc *alloc;
    uint8_t *data;
    size_t len;
    size_t capacity;
    size_t limit_bytes;
};

/* Empty; allocates nothing. Borrows the allocator. */
void buf_init(struct buf *buf, struct alloc *alloc, size_t limit_bytes);
void buf_deinit(struct buf *buf);

/* Room for `more` bytes behind the end: STATUS_TOO_LARGE beyond the limit, STATUS_NO_MEMORY. */
MUST_USE enum status buf_reserve(struct buf *buf, size_t more);
MUST_USE enum status buf_append(struct buf *buf, const void *data, size_t len);
MUST_USE enum status buf_append_format(struct buf *buf, const char *format, ...) PRINTF_LIKE(2, 3);
/* Drops len bytes at the front, moving the rest. */
void buf_consume(struct buf *buf, size_t len);
/* Forgets the bytes, keeps the memory. */
void buf_clear(struct buf *buf);

static inline struct slice buf_slice(const struct buf *buf) { return slice_of(buf->data, buf->len); }

#endif
