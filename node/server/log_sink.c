/*
 * Two buffers take turns: one gathers lines on the loop while a worker writes the other. What doesn't fit, or can't be
 * written, is counted, and the count becomes a line of its own as soon as writing works again.
 *
 * The file is this process's, not the node's data, and appending in the way that log rotation expects (O_APPEND) isn't
 * what env's files do: so it is opened and written here, by the worker.
 */
#include "node/server/log_sink.h"

#include "node/base/buf.h"
#include "node/base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

struct log_sink {
    struct logger logger;
    struct env *env;
    struct env_loop *loop; /* NULL: direct mode */
    char path[LIMIT_PATH_BYTES];
    int fd;
    _Atomic uint32_t lines_posted; /* under way to the loop */
    _Atomic uint64_t lines_dropped;
    /* The loop's: */
    struct buf forming;
    uint64_t forming_lines;
    bool reopen_wanted;
    bool writing;
    bool finishing;
    void (*flushed)(void *context);
    void *flushed_context;
    struct env_message finish_message;
    struct env_work work;
    /* The worker's while `writing`: */
    struct buf batch;
    uint64_t batch_lines;
    bool reopen;
    bool failed; /* the last write */
};

struct posted_line {
    struct env_message message;
    struct log_sink *sink;
    size_t len;
    uint8_t text[];
};

static struct log_sink *of_logger(struct logger *logger) { return CONTAINER_OF(logger, struct log_sink, logger); }

static int64_t sink_wall_ms(struct logger *logger) { return env_wall_ms(of_logger(logger)->env); }

static void drop(struct log_sink *sink, uint64_t count) {
    atomic_fetch_add_explicit(&sink->lines_dropped, count, memory_order_relaxed);
}

/* ---- The file: on a worker, or in direct mode ------------------------------------------------------------------ */

static int open_file(const char *path) {
    return path[0] == '\0' ? STDERR_FILENO : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

static bool write_all(int fd, const uint8_t *data, size_t len) {
    while (len > 0) {
        ssize_t put = write(fd, data, len);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return false;
        }
        data += put;
        len -= (size_t)put;
    }
    return true;
}

static void run_write(struct env_work *work) {
    struct log_sink *sink = CONTAINER_OF(work, struct log_sink, work);
    if (sink->reopen && sink->path[0] != '\0') {
        int fd = open_file(sink->path);
        if (fd >= 0) { /* else the old one stays: better than none */
            (void)close(sink->fd);
            sink->fd = fd;
        }
    }
    sink->reopen = false;
    sink->failed = !write_all(sink->fd, sink->batch.data, sink->batch.len);
    if (sink->failed) {
        drop(sink, sink->batch_lines);
    }
    buf_clear(&sink->batch);
    sink->batch_lines = 0;
}

/* ---- On the loop ----------------------------------------------------------------------------------------------- */

static void on_written(struct env_work *work);

static void start_writing(struct log_sink *sink) {
    if (sink->writing || (sink->forming.len == 0 && !sink->reopen_wanted)) {
        return;
    }
    struct buf empty = sink->batch;
    sink->batch = sink->forming;
    sink->forming = empty;
    sink->batch_lines = sink->forming_lines;
    sink->forming_lines = 0;
    sink->reopen = sink->reopen_wanted;
    sink->reopen_wanted = false;
    sink->writing = true;
    sink->work = (struct env_work){.run = run_write, .done = on_written, .loop = sink->loop};
    env_work_submit(sink->env, ENV_WORK_SHORT, &sink->work);
}

static void end_if_flushed(struct log_sink *sink) {
    if (sink->finishing && !sink->writing && sink->forming.len == 0) {
        sink->finishing = false;
        sink->loop = NULL;
        sink->flushed(sink->flushed_context);
    }
}

static void on_written(struct env_work *work) {
    struct log_sink *sink = CONTAINER_OF(work, struct log_sink, work);
    sink->writing = false;
    if (!sink->failed) {
        uint64_t lost = atomic_exchange_explicit(&sink->lines_dropped, 0, memory_order_relaxed);
        if (lost > 0) {
            log_event(&sink->logger, LOG_WARN, "log.dropped", "lines=%" PRIu64, lost);
        }
    }
    start_writing(sink);
    end_if_flushed(sink);
}

static void gather(struct log_sink *sink, struct slice line) {
    if (buf_reserve(&sink->forming, line.len + 1) != STATUS_OK) {
        drop(sink, 1);
        return;
    }
    memcpy(sink->forming.data + sink->forming.len, line.data, line.len);
    sink->forming.data[sink->forming.len + line.len] = '\n';
    sink->forming.len += line.len + 1;
    sink->forming_lines++;
    start_writing(sink);
}

static void run_posted(struct env_message *message) {
    struct posted_line *posted = CONTAINER_OF(message, struct posted_line, message);
    struct log_sink *sink = posted->sink;
    atomic_fetch_sub_explicit(&sink->lines_posted, 1, memory_order_relaxed);
    gather(sink, slice_of(posted->text, posted->len));
    mem_free(sink->env->alloc, posted);
}

/* ---- Any thread ------------------------------------------------------------------------------------------------ */

static void post(struct log_sink *sink, struct slice line) {
    uint32_t before = atomic_fetch_add_explicit(&sink->lines_posted, 1, memory_order_relaxed);
    struct posted_line *posted = NULL;
    if (before < LOG_SINK_LINES_MAX) {
        posted = mem_alloc(sink->env->alloc, sizeof *posted + line.len);
    }
    if (posted == NULL) {
        atomic_fetch_sub_explicit(&sink->lines_posted, 1, memory_order_relaxed);
        drop(sink, 1);
        return;
    }
    posted->message.run = run_posted;
    posted->sink = sink;
    posted->len = line.len;
    memcpy(posted->text, line.data, line.len);
    env_post(sink->loop, &posted->message);
}

static void sink_write(struct logger *logger, enum log_level level, struct slice line) {
    (void)level;
    struct log_sink *sink = of_logger(logger);
    CHECK(line.len <= LOG_LINE_BYTES_MAX);
    if (sink->loop == NULL) {
        uint8_t text[LOG_LINE_BYTES_MAX + 1];
        memcpy(text, line.data, line.len);
        text[line.len] = '\n';
        (void)write_all(sink->fd, text, line.len + 1);
    } else if (env_on_loop(sink->loop)) {
        gather(sink, line);
    } else {
        post(sink, line);
    }
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

enum status log_sink_open(struct env *env, const char *path, enum log_level level_min, struct log_sink **ret_sink,
                          struct error *err) {
    struct log_sink *sink = mem_alloc_zero(env->alloc, sizeof *sink);
    if (sink == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "log: out of memory");
    }
    sink->logger = (struct logger){.level_min = level_min, .wall_ms = sink_wall_ms, .write = sink_write};
    sink->env = env;
    CHECK(strlen(path) < sizeof sink->path);
    (void)snprintf(sink->path, sizeof sink->path, "%s", path);
    buf_init(&sink->forming, env->alloc, LOG_SINK_BATCH_BYTES);
    buf_init(&sink->batch, env->alloc, LOG_SINK_BATCH_BYTES);
    sink->fd = open_file(path);
    if (sink->fd < 0) {
        enum status status = error_set_sys(err, errno, "can't open the log file %s", path);
        mem_free(env->alloc, sink);
        return status;
    }
    *ret_sink = sink;
    return STATUS_OK;
}

void log_sink_close(struct log_sink *sink) {
    if (sink == NULL) {
        return;
    }
    CHECK(sink->loop == NULL && !sink->writing);
    if (sink->path[0] != '\0') {
        (void)close(sink->fd);
    }
    buf_deinit(&sink->forming);
    buf_deinit(&sink->batch);
    mem_free(sink->env->alloc, sink);
}

struct logger *log_sink_logger(struct log_sink *sink) {
    return &sink->logger;
}

void log_sink_attach(struct log_sink *sink, struct env_loop *loop) {
    CHECK(sink->loop == NULL);
    sink->loop = loop;
}

void log_sink_reopen(struct log_sink *sink) {
    sink->reopen_wanted = true;
    start_writing(sink);
}

static void run_finish(struct env_message *message) {
    struct log_sink *sink = CONTAINER_OF(message, struct log_sink, finish_message);
    sink->finishing = true;
    end_if_flushed(sink);
}

void log_sink_finish(struct log_sink *sink, void (*flushed)(void *context), void *context) {
    CHECK(sink->loop != NULL && !sink->finishing);
    sink->flushed = flushed;
    sink->flushed_context = context;
    sink->finish_message.run = run_finish; /* behind every line that was posted before */
    env_post(sink->loop, &sink->finish_message);
}
