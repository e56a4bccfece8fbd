/* Growing bytes: doubling, bounded by the limit that the owner named. */
#include "node/base/buf.h"

#include "node/base/check.h"

#include <stdarg.h>
#include <stdio.h>

enum { CAPACITY_MIN = 64 };

void buf_init(struct buf *buf, struct alloc *alloc, size_t limit_bytes) {
    *buf = (struct buf){.alloc = alloc, .limit_bytes = limit_bytes};
}

void buf_deinit(struct buf *buf) {
    if (buf->data != NULL) {
        mem_free(buf->alloc, buf->data);
    }
    buf->data = NULL;
    buf->len = 0;
    buf->capacity = 0;
}

enum status buf_reserve(struct buf *buf, size_t more) {
    CHECK(buf->alloc != NULL);
    CHECK(buf->len <= buf->capacity);
    if (more <= buf->capacity - buf->len) {
        return STATUS_OK;
    }
    if (more > SIZE_MAX / 4 - buf->len || (buf->limit_bytes != 0 && buf->len + more > buf->limit_bytes)) {
        return STATUS_TOO_LARGE;
    }
    size_t capacity = buf->capacity < CAPACITY_MIN ? CAPACITY_MIN : buf->capacity;
    while (capacity < buf->len + more) {
        capacity *= 2;
    }
    if (buf->limit_bytes != 0 && capacity > buf->limit_bytes) {
        capacity = buf->limit_bytes;
    }
    uint8_t *data = mem_resize(buf->alloc, buf->data, capacity);
    if (data == NULL) {
        return STATUS_NO_MEMORY;
    }
    buf->data = data;
    buf->capacity = capacity;
    return STATUS_OK;
}

enum status buf_append(struct buf *buf, const void *data, size_t len) {
    enum status status = buf_reserve(buf, len);
    if (status != STATUS_OK) {
        return status;
    }
    if (len > 0) {
        memcpy(buf->data + buf->len, data, len);
    }
    buf->len += len;
    return STATUS_OK;
}

enum status buf_append_format(struct buf *buf, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(size >= 0);
    enum status status = buf_reserve(buf, (size_t)size + 1);
    if (status != STATUS_OK) {
        return status;
    }
    va_start(args, format);
    (void)vsnprintf((char *)buf->data + buf->len, (size_t)size + 1, format, args);
    va_end(args);
    buf->len += (size_t)size;
    return STATUS_OK;
}

void buf_consume(struct buf *buf, size_t len) {
    CHECK(len <= buf->len);
    if (len > 0) {
        memmove(buf->data, buf->data + len, buf->len - len);
        buf->len -= len;
    }
}

void buf_clear(struct buf *buf) { buf->len = 0; }
