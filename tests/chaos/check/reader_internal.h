/* What the readers of the three formats share. */
#ifndef HOLDFAST_CHAOS_CHECK_READER_INTERNAL_H
#define HOLDFAST_CHAOS_CHECK_READER_INTERNAL_H

#include "tests/chaos/check/reader.h"

struct reader_pending {
    uint64_t client;
    uint32_t operation;
    uint32_t shape; /* what the format wants to know of it at its end */
};

struct reader {
    struct check_history *history;
    const char *path;
    uint64_t line; /* from 1 */
    uint64_t at;   /* the time of the last event */
    struct error *err;
    struct reader_pending *pending;
    uint32_t pending_count;
    uint32_t pending_capacity;
    struct check_part parts[CHECK_PARTS_MAX]; /* of the event that is being read */
};

/* Reads one line, without its end. Errors as check_read, and err is filled in. */
typedef enum status reader__line(struct reader *reader, struct slice line);
reader__line reader__json_line;
reader__line reader__log_line;
reader__line reader__map_line;

/* STATUS_CORRUPT with file, line and message. */
enum status reader__bad(struct reader *reader, const char *format, ...) PRINTF_LIKE(2, 3);
/* As check_history_begin, for a client that has nothing under way. */
MUST_USE enum status reader__begin(struct reader *reader, uint64_t client, uint64_t at, uint32_t shape,
                                   uint32_t part_count);
/* Takes what the client has under way out of the list. STATUS_CORRUPT: nothing. */
MUST_USE enum status reader__take(struct reader *reader, uint64_t client, struct reader_pending *ret);
/* As check_history_end. has_parts: reader->parts take the place of those it began with. */
MUST_USE enum status reader__end(struct reader *reader, uint32_t operation, uint64_t at, enum check_outcome outcome,
                                 bool has_parts, uint32_t part_count);
/* Of the history, with err filled in on failure. */
MUST_USE enum status reader__key(struct reader *reader, struct slice name, uint32_t *ret_key);
MUST_USE enum status reader__value(struct reader *reader, struct slice bytes, uint32_t *ret_value);

#endif
