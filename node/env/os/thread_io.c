/*
 * Asynchronous files by threads, and the fork between them and the ring:
 *
 *   syncs, and writes with one   threads of their own, always
 *   reads, plain writes          the ring; threads where io_uring is refused or not wanted
 *
 * Why syncs don't go through the ring: an asynchronous write that syncs is completed by a kernel worker of its
 * processor, which issues the flush and takes its turn among that processor's other work. With more to compute than
 * processors that worker came up to half a second late (kernel 6.18, ext4, a disk with a write cache: 14 of 23,364
 * writes took over 150 ms), while a thread that makes the same call and waits for it was never late (0 of 26,467, the
 * same minute); a write and a linked sync were as late as the one write. Unloaded, both take the same time.
 *
 * The thread does the whole operation with the same continuing of short transfers as the ring, and leaves the errno in
 * io->error.sys; the loop ends it.
 */
#include "node/env/os/os_internal.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

static bool syncs(const struct env_io *io) { return io->kind == ENV_IO_SYNC || io->kind == ENV_IO_WRITE_DSYNC; }

/* Counted so that env_loop_free can wait for what is under way. */
void os_io__submit(struct env_loop *base, struct env_io *io) {
    struct os_loop *loop = os_loop_of(base);
    if (io->kind != ENV_IO_SYNC) {
        os_file__check_aligned(os_file_of(io->file), io->data, io->len, io->offset);
    }
    loop->io_count++;
    if (loop->ring != NULL && !syncs(io)) {
        os_ring__submit(loop->ring, io);
    } else {
        os_thread_io__submit(loop, io);
    }
}

void os_io__finish(struct env_io *io, int sys) {
    struct os_loop *loop = os_loop_of(io->loop);
    CHECK(loop->io_count > 0);
    loop->io_count--;
    env__io_finish(io, sys);
}

/* One system call. Returns bytes or a negative errno. */
static ssize_t transfer(struct env_io *io, size_t len) {
    int fd = os_file_of(io->file)->fd;
    uint8_t *data = (uint8_t *)io->data + io->progress;
    off_t offset = (off_t)(io->offset + io->progress);
    struct iovec part = {.iov_base = data, .iov_len = len};
    ssize_t result = io->kind == ENV_IO_READ    ? pread(fd, data, len, offset)
                     : io->kind == ENV_IO_WRITE ? pwrite(fd, data, len, offset)
                                                : pwritev2(fd, &part, 1, offset, RWF_DSYNC);
    return result < 0 ? -errno : result;
}

static int transfer_all(struct env_io *io) {
    while (io->progress < io->limit) {
        size_t left = io->limit - io->progress;
        size_t len = left < OS_CHUNK_BYTES ? left : OS_CHUNK_BYTES;
        ssize_t result = transfer(io, len);
        if (result == -EINTR) {
            continue;
        }
        if (result < 0) {
            return (int)-result;
        }
        io->progress += (size_t)result;
        if (io->kind == ENV_IO_READ && (size_t)result < len) {
            int sys = 0;
            if (os_file__after_short_read(os_file_of(io->file), (size_t)result, io->offset + io->progress, &sys) !=
                OS_READ_MORE) {
                return sys;
            }
        } else if (result == 0) {
            return EIO;
        }
    }
    return 0;
}

static void run_on_thread(struct env_work *work) {
    struct env_io *io = CONTAINER_OF(work, struct env_io, work);
    if (io->kind == ENV_IO_SYNC) {
        io->error.sys = fdatasync(os_file_of(io->file)->fd) == 0 ? 0 : errno;
    } else {
        io->error.sys = transfer_all(io);
    }
}

static void done_on_loop(struct env_work *work) {
    struct env_io *io = CONTAINER_OF(work, struct env_io, work);
    os_io__finish(io, io->error.sys);
}

void os_thread_io__submit(struct os_loop *loop, struct env_io *io) {
    io->work.run = run_on_thread;
    io->work.done = done_on_loop;
    io->work.loop = &loop->base;
    loop->stats.file_operations++;
    os_workers__submit(&os_loop__env(loop)->workers, syncs(io) ? WORKERS_CLASS_SYNC : WORKERS_CLASS_IO, &io->work);
}
