/*
 * Histories from files, in three formats, of which the first line tells which it is:
 *
 *   JSON lines   ours: README.md
 *   log          one register: `INFO  jepsen.util - PROCESS <tab> :invoke|:ok|:fail|:info <tab> :read|:write|:cas <tab>
 *                VALUE`, where VALUE is a number, nil, [OLD NEW], or why it is unknown
 *   map          a map of keys to strings: `{:process 0, :type :invoke|:ok, :f :get|:put|:append, :key "k", :value
 * "v"}`, where an empty string means that there is no such key
 *
 * Nothing in a file is believed: a line that isn't as described, a client that begins twice or ends what it didn't
 * begin, make the file bad input.
 */
#ifndef HOLDFAST_CHAOS_CHECK_READER_H
#define HOLDFAST_CHAOS_CHECK_READER_H

#include "tests/chaos/check/history.h"

#include <stdio.h>

enum { READER_LINE_BYTES_MAX = 16 << 20, READER_PENDING_MAX = 65536 /* operations that have begun and not ended */ };

/* Adds the file's events to a history that was just made. "-" is standard input. STATUS_CORRUPT, STATUS_TOO_LARGE: bad
 * input, err names the line. STATUS_IO, STATUS_NOT_FOUND, STATUS_NO_MEMORY. Blocks. */
MUST_USE enum status check_read(struct check_history *history, const char *path, struct error *err);
/* The same of an open file, which stays open; name is for messages. */
MUST_USE enum status check_read_stream(struct check_history *history, FILE *file, const char *name, struct error *err);

#endif
