/* Lines of an input that may never end, with bounded memory. */
#ifndef HOLDFAST_CTL_LINES_H
#define HOLDFAST_CTL_LINES_H

#include "node/base/buf.h"
#include "node/base/limits.h"

/* The longest line that can hold a pair: every byte escaped as \u00xx, and the field names. */
enum { LINES_BYTES_MAX = 6 * (LIMIT_VALUE_BYTES + LIMIT_KEY_BYTES) + 4 * KIB };

struct lines {
    int input;
    struct buf bytes;
    size_t start;         /* of the next line in bytes */
    size_t searched;      /* bytes up to here hold no newline */
    uint64_t number;      /* of the line that lines_next returned last; from 1 */
    uint64_t taken_bytes; /* of all lines returned so far */
    bool at_end;
};

enum lines_state { LINES_LINE, LINES_NEEDS_INPUT, LINES_END, LINES_TOO_LONG };

void lines_init(struct lines *lines, struct alloc *alloc, int input);
void lines_deinit(struct lines *lines);
/* A line without its newline, borrowed until the next call of lines_read. The last line needs no newline. */
enum lines_state lines_next(struct lines *lines, struct slice *ret_line);
/* Reads once; blocks if nothing is there. STATUS_IO with errno in err->sys, STATUS_NO_MEMORY. */
MUST_USE enum status lines_read(struct lines *lines, struct error *err);

#endif
