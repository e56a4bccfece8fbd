/*
 * Reads and plain writes of files by io_uring: one ring per loop. What syncs goes by threads (thread_io.c).
 *
 *   submit -> submission queue (or `waiting` while OPERATIONS_MAX are in flight) -> flush, once per turn -> kernel
 *          -> completion, an eventfd wakes the loop -> reap, once per turn -> more of a short transfer, or done
 *
 * Never more in flight than the completion queue holds, so it can't overflow. A completion carries the pointer of its
 * env_io, which stays the kernel's until then. Owner: the loop.
 *
 * No DEFER_TASKRUN: completions have to be posted while the thread sleeps in epoll.
 */
#include "node/env/os/os_internal.h"

#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { OPERATIONS_MAX = 256, REAP_BATCH = 64 };

struct os_ring {
    struct os_loop *loop;
    struct io_uring uring;
    int event_fd;
    uv_poll_t poll;
    uint32_t inflight_count; /* in the submission queue or with the kernel */
    struct list waiting;
};

/* The eventfd's only message is "look": reap does, in the check phase of this turn. */
static void on_event(uv_poll_t *poll, int status, int events) {
    (void)events;
    struct os_ring *ring = poll->data;
    os_loop__enter(ring->loop);
    uint64_t count;
    CHECK(status == 0);
    CHECK(read(ring->event_fd, &count, sizeof count) > 0 || errno == EAGAIN || errno == EINTR);
}

static bool supports_operations(struct io_uring *uring) {
    struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
    bool answer = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_READ) &&
                  io_uring_opcode_supported(probe, IORING_OP_WRITE);
    if (probe != NULL) {
        io_uring_free_probe(probe);
    }
    return answer;
}

static int open_event(struct os_ring *ring) {
    ring->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ring->event_fd < 0) {
        return errno;
    }
    int result = io_uring_register_eventfd(&ring->uring, ring->event_fd);
    if (result == 0) {
        result = uv_poll_init(&ring->loop->uv, &ring->poll, ring->event_fd);
    }
    if (result < 0) {
        (void)close(ring->event_fd);
        return -result;
    }
    ring->poll.data = ring;
    CHECK(uv_poll_start(&ring->poll, UV_READABLE, on_event) == 0);
    return 0;
}

struct os_ring *os_ring__new(struct os_loop *loop, char *reason, size_t reason_size) {
    struct alloc *alloc = loop->base.env->alloc;
    struct os_ring *ring = mem_alloc_zero(alloc, sizeof *ring);
    if (ring == NULL) {
        (void)snprintf(reason, reason_size, "out of memory");
        return NULL;
    }
    ring->loop = loop;
    list_init(&ring->waiting);
    int result = io_uring_queue_init(OPERATIONS_MAX, &ring->uring, 0);
    if (result < 0) {
        (void)snprintf(reason, reason_size, "io_uring_setup: %s", strerror(-result));
        mem_free(alloc, ring);
        return NULL;
    }
    CHECK(*ring->uring.cq.kring_entries >= OPERATIONS_MAX);
    int sys = supports_operations(&ring->uring) ? open_event(ring) : ENOSYS;
    if (sys != 0) {
        (void)snprintf(reason, reason_size, "io_uring without what is needed: %s", strerror(sys));
        io_uring_queue_exit(&ring->uring);
        mem_free(alloc, ring);
        return NULL;
    }
    return ring;
}

void os_ring__close(struct os_ring *ring) {
    CHECK(ring->inflight_count == 0 && list_is_empty(&ring->waiting));
    uv_close((uv_handle_t *)&ring->poll, NULL);
}

void os_ring__free(struct os_ring *ring) {
    struct alloc *alloc = ring->loop->base.env->alloc;
    io_uring_queue_exit(&ring->uring);
    (void)close(ring->event_fd);
    mem_free(alloc, ring);
}

static void prepare(struct io_uring_sqe *sqe, struct env_io *io) {
    int fd = os_file_of(io->file)->fd;
    uint8_t *data = (uint8_t *)io->data + io->progress;
    size_t left = io->limit - io->progress;
    unsigned len = (unsigned)(left < OS_CHUNK_BYTES ? left : OS_CHUNK_BYTES);
    uint64_t offset = io->offset + io->progress;
    if (io->kind == ENV_IO_READ) {
        io_uring_prep_read(sqe, fd, data, len, offset);
    } else {
        CHECK(io->kind == ENV_IO_WRITE);
        io_uring_prep_write(sqe, fd, data, len, offset);
    }
    io_uring_sqe_set_data(sqe, io);
}

void os_ring__submit(struct os_ring *ring, struct env_io *io) {
    struct io_uring_sqe *sqe = ring->inflight_count < OPERATIONS_MAX ? io_uring_get_sqe(&ring->uring) : NULL;
    if (sqe == NULL) {
        list_push_back(&ring->waiting, &io->link);
        return;
    }
    prepare(sqe, io);
    ring->inflight_count++;
    ring->loop->stats.file_operations++;
}

static void submit_waiting(struct os_ring *ring) {
    while (ring->inflight_count < OPERATIONS_MAX && io_uring_sq_space_left(&ring->uring) > 0) {
        struct list *node = list_pop_front(&ring->waiting);
        if (node == NULL) {
            break;
        }
        os_ring__submit(ring, LIST_ENTRY(node, struct env_io, link));
    }
}

bool os_ring__flush(struct os_ring *ring) {
    submit_waiting(ring);
    while (io_uring_sq_ready(&ring->uring) > 0) {
        int result = io_uring_submit(&ring->uring);
        ring->loop->stats.ring_submits++;
        if (result == -EAGAIN || result == -EBUSY || result == -ENOMEM) {
            return false;
        }
        CHECK(result > 0 || result == -EINTR);
    }
    return true;
}

/* result: bytes, or a negative errno. */
static void complete(struct os_ring *ring, struct env_io *io, int result) {
    if (result == -EINTR) {
        os_ring__submit(ring, io); /* nothing was transferred */
        return;
    }
    int sys = result < 0 ? -result : 0;
    if (sys != 0) {
        os_io__finish(io, sys);
        return;
    }
    CHECK((size_t)result <= io->limit - io->progress);
    io->progress += (size_t)result;
    if (io->progress == io->limit) {
        os_io__finish(io, 0);
        return;
    }
    enum os_read_answer answer = OS_READ_MORE;
    if (io->kind == ENV_IO_READ && result != OS_CHUNK_BYTES) {
        answer = os_file__after_short_read(os_file_of(io->file), (size_t)result, io->offset + io->progress, &sys);
    } else if (result == 0) {
        answer = OS_READ_ERROR;
        sys = EIO;
    }
    if (answer == OS_READ_MORE) {
        os_ring__submit(ring, io);
    } else {
        os_io__finish(io, sys);
    }
}

/* The completions are copied out before the first done runs, which may submit more. */
void os_ring__reap(struct os_ring *ring) {
    struct io_uring_cqe *cqes[REAP_BATCH];
    struct env_io *ios[REAP_BATCH];
    int results[REAP_BATCH];
    unsigned count = REAP_BATCH;
    while (count == REAP_BATCH && ring->inflight_count > 0) {
        count = io_uring_peek_batch_cqe(&ring->uring, cqes, REAP_BATCH);
        for (unsigned i = 0; i < count; i++) {
            ios[i] = io_uring_cqe_get_data(cqes[i]);
            results[i] = cqes[i]->res;
        }
        io_uring_cq_advance(&ring->uring, count);
        CHECK(count <= ring->inflight_count);
        ring->inflight_count -= count;
        for (unsigned i = 0; i < count; i++) {
            complete(ring, ios[i], results[i]);
        }
    }
}
