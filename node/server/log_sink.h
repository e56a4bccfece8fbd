/*
 * Where the daemon's log lines go: a file, or stderr. No thread that writes a line waits for a disk.
 *
 *   log_event, any thread --message--> the loop: forming batch --> worker: write(2) --> next batch
 *                             \--too many under way: counted, said later
 *
 * Direct mode, before log_sink_attach and after log_sink_finish, is for the one thread that starts and ends the
 * process: lines are written at once.
 *
 * Order of calls: open, [attach, reopen..., finish, flushed runs,] close. Owner: the loop, or the starting thread in
 * direct mode; the logger itself is for any thread.
 */
#ifndef HOLDFAST_SERVER_LOG_SINK_H
#define HOLDFAST_SERVER_LOG_SINK_H

#include "node/base/log.h"
#include "node/env/env.h"

enum {
    LOG_SINK_LINES_MAX = 1024,                                     /* under way from other threads to the loop */
    LOG_SINK_BATCH_BYTES = LOG_SINK_LINES_MAX * LOG_LINE_BYTES_MAX /* waiting for the worker */
};

struct log_sink;

/* path "": stderr. Opened for appending, mode 0640. Borrows env. STATUS_IO, STATUS_NO_MEMORY. */
MUST_USE enum status log_sink_open(struct env *env, const char *path, enum log_level level_min,
                                   struct log_sink **ret_sink, struct error *err);
/* In direct mode. NULL is accepted. */
void log_sink_close(struct log_sink *sink);
/* Borrowed; lives as long as the sink. */
struct logger *log_sink_logger(struct log_sink *sink);
/* From now on lines are queued; before the loop runs. */
void log_sink_attach(struct log_sink *sink, struct env_loop *loop);
/* On the loop: the file is opened anew before the next lines are written, for log rotation. */
void log_sink_reopen(struct log_sink *sink);
/* On the loop, when no other thread writes any more: all lines are written, then direct mode begins and flushed runs.
 */
void log_sink_finish(struct log_sink *sink, void (*flushed)(void *context), void *context);

#endif
