/*
 * Log lines in logfmt: `ts=... level=info event=peer.connected peer=n2 addr=127.0.0.1:4502`.
 *
 * A logger belongs to a node, not to the process; only node/server and node/ctl log, libraries return errors. The sink
 * must not block: the server's queues lines to a worker. Values with blanks go through LOG_QUOTED (printf "%s" of
 * log_quote). No secrets, one line per failure.
 */
#ifndef HOLDFAST_BASE_LOG_H
#define HOLDFAST_BASE_LOG_H

#include "node/base/slice.h"
#include "node/base/status.h"

#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

enum { LOG_LINE_BYTES_MAX = 1024 };

struct logger {
    enum log_level level_min;
    /* Milliseconds since 1970, UTC. */
    int64_t (*wall_ms)(struct logger *logger);
    /* Takes one line without a newline; borrowed for the call. Any thread. */
    void (*write)(struct logger *logger, enum log_level level, struct slice line);
};

/* logger NULL: nothing. A line longer than LOG_LINE_BYTES_MAX is cut; control bytes become '?'. */
void log_event(struct logger *logger, enum log_level level, const char *event, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* text in double quotes, with '"' and '\' escaped, cut to fit; returns out. */
const char *log_quote(char *out, size_t size, const char *text);

/* "debug", "info", ...; parse returns STATUS_INVALID for anything else. */
const char *log_level_name(enum log_level level);
MUST_USE enum status log_level_parse(const char *name, enum log_level *ret_level);

#endif
