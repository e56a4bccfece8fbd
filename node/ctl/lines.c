/* See lines.h. Bytes are searched once, moved only when the buffer's front half is used up. */
#include "node/ctl/lines.h"

#include <errno.h>
#include <unistd.h>

enum { READ_BYTES = 256 * KIB };

void lines_init(struct lines *lines, struct alloc *alloc, int input) {
    *lines = (struct lines){.input = input};
    buf_init(&lines->bytes, alloc, 0);
}

void lines_deinit(struct lines *lines) { buf_deinit(&lines->bytes); }

enum lines_state lines_next(struct lines *lines, struct slice *ret_line) {
    struct slice left = slice_of(lines->bytes.data + lines->searched, lines->bytes.len - lines->searched);
    const uint8_t *newline = left.len > 0 ? memchr(left.data, '\n', left.len) : NULL;
    size_t end = newline != NULL ? (size_t)(newline - lines->bytes.data) : lines->bytes.len;
    lines->searched = end;
    size_t len = end - lines->start;
    if (len > LINES_BYTES_MAX) {
        lines->number++;
        return LINES_TOO_LONG;
    }
    if (newline == NULL && (!lines->at_end || len == 0)) {
        return lines->at_end ? LINES_END : LINES_NEEDS_INPUT;
    }
    *ret_line = slice_of(lines->bytes.data + lines->start, len);
    size_t next = newline != NULL ? end + 1 : end;
    lines->taken_bytes += next - lines->start;
    lines->start = next;
    lines->searched = next;
    lines->number++;
    return LINES_LINE;
}

enum status lines_read(struct lines *lines, struct error *err) {
    if (lines->start > 0 && lines->start >= lines->bytes.len / 2) {
        buf_consume(&lines->bytes, lines->start);
        lines->searched -= lines->start;
        lines->start = 0;
    }
    if (buf_reserve(&lines->bytes, READ_BYTES) != STATUS_OK) {
        return error_set(err, STATUS_NO_MEMORY, "out of memory for a line of %zu bytes",
                         lines->bytes.len - lines->start);
    }
    ssize_t got;
    do {
        got = read(lines->input, lines->bytes.data + lines->bytes.len, READ_BYTES);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return error_set_sys(err, errno, "the input can't be read");
    }
    lines->at_end = got == 0;
    lines->bytes.len += (size_t)got;
    return STATUS_OK;
}
