/*
 * Asynchronous files, the part that every implementation shares: fault hooks before an operation starts, results at its
 * end.
 *
 *   env_io_submit --hook off-----------------------> ops->io_submit ... env__io_finish -> done
 *                 --delay, hang: io->timer --------> (the same)
 *                 --short (writes) --> half of it -> (the same, but it ends with STATUS_IO)
 *                 --error, short of the rest ------> env__io_fail -> done, the file untouched
 *
 * done never runs inside env_io_submit: the end of an operation that wasn't started comes as a message of a later turn.
 */
#include "node/base/check.h"
#include "node/env/env_loop_internal.h"

#include <errno.h>
#include <inttypes.h>

enum { HANG_POLL_US = 100 * 1000 };

static const char *const kind_names[] = {
    [ENV_IO_WRITE] = "write", [ENV_IO_WRITE_DSYNC] = "write and sync", [ENV_IO_READ] = "read", [ENV_IO_SYNC] = "sync"};

static bool is_write(const struct env_io *io) { return io->kind == ENV_IO_WRITE || io->kind == ENV_IO_WRITE_DSYNC; }

/* The owner may free or reuse the io in done. */
static void finish(struct env_io *io, int sys, const char *because) {
    io->done_len = io->progress;
    if (sys == 0) {
        CHECK(!is_write(io) || io->progress == io->len);
        io->status = STATUS_OK;
        error_clear(&io->error);
    } else {
        io->status = error_set_sys(&io->error, sys, "%s %s at %" PRIu64 "%s", kind_names[io->kind],
                                   env_file_path(io->file), io->offset + io->progress, because);
    }
    io->done(io);
}

void env__io_finish(struct env_io *io, int sys) {
    CHECK(io->progress <= io->limit && io->limit <= io->len);
    if (sys == 0 && io->cut) {
        finish(io, EIO, " (cut short by a fault hook)");
    } else {
        finish(io, sys, "");
    }
}

static void finish_failed(struct env_message *message) {
    struct env_io *io = CONTAINER_OF(message, struct env_io, work.message);
    finish(io, io->error.sys, "");
}

void env__io_fail(struct env_io *io, int sys) {
    CHECK(sys > 0);
    io->error.sys = sys;
    io->work.message.run = finish_failed;
    env_post(io->loop, &io->work.message);
}

static void start(struct env_io *io) { io->loop->env->ops->io_submit(io->loop, io); }

static void start_after_delay(struct env_timer *timer) { start(CONTAINER_OF(timer, struct env_io, timer)); }

static void wait_until_disarmed(struct env_timer *timer) {
    struct env_io *io = CONTAINER_OF(timer, struct env_io, timer);
    if (!fault_is_armed(io->loop->env->faults, io->hook)) {
        start(io);
    } else if (env_timer_arm(timer, io->loop->now_us + HANG_POLL_US) != STATUS_OK) {
        env__io_fail(io, ENOMEM);
    }
}

static void start_by_timer(struct env_io *io, void (*run)(struct env_timer *timer), uint64_t delay_us) {
    env_timer_init(&io->timer, io->loop, run);
    if (env_timer_arm(&io->timer, io->loop->now_us + delay_us) != STATUS_OK) {
        env__io_fail(io, ENOMEM);
    }
}

static void start_cut(struct env_io *io) {
    io->cut = true;
    io->limit = is_write(io) ? io->len / 2 / ENV_BLOCK_BYTES * ENV_BLOCK_BYTES : 0;
    if (io->limit > 0) {
        start(io);
    } else {
        env__io_fail(io, EIO);
    }
}

void env_io_submit(struct env_loop *loop, struct env_io *io) {
    CHECK(io->file != NULL && io->done != NULL);
    CHECK(io->kind == ENV_IO_SYNC || (io->data != NULL && io->len > 0));
    io->loop = loop;
    io->progress = 0;
    io->limit = io->kind == ENV_IO_SYNC ? 0 : io->len;
    io->cut = false;
    list_init(&io->link);
    struct fault_action action = fault_hit(loop->env->faults, io->hook);
    switch (action.kind) {
    case FAULT_KIND_OFF: start(io); return;
    case FAULT_KIND_ERROR: env__io_fail(io, action.argument); return;
    case FAULT_KIND_SHORT: start_cut(io); return;
    case FAULT_KIND_DELAY: start_by_timer(io, start_after_delay, (uint64_t)action.argument * 1000); return;
    case FAULT_KIND_HANG: start_by_timer(io, wait_until_disarmed, HANG_POLL_US); return;
    case FAULT_KIND_EXIT: env_exit(loop->env, action.argument);
    }
    CHECK(false);
}
