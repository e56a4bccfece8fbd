/*
 * Asynchronous files: each operation ends after a time of its own, so in any order.
 *
 *   submitted --end of turn--> in flight (node->ios) --its time--> completed (loop->completions) --next turn--> done
 *                                   \--crash: a write may have happened, wholly, up to a sector, or not
 *
 * The disk changes when an operation completes. While a write is in flight its buffer is the kernel's: a checksum shows
 * that nobody touched it.
 */
#include "tests/sim/sim_internal.h"

#include "node/base/checksum.h"

#include <string.h>

enum { LOST_BYTE = 0xa7 };

struct sim_io {
    struct list link;
    struct env_io *io;
    struct sim_node *node;
    struct sim_event event;
    uint64_t sequence; /* what a sync covers */
    uint64_t checksum;
    bool stuck; /* its time came while the disk hung */
    int sys;
};

static bool is_write(const struct env_io *io) { return io->kind == ENV_IO_WRITE || io->kind == ENV_IO_WRITE_DSYNC; }
static uint8_t *io_data(const struct env_io *io) { return (uint8_t *)io->data + io->progress; }
static size_t io_left(const struct env_io *io) { return io->limit - io->progress; }

static uint64_t io_delay_us(struct sim_node *node, enum env_io_kind kind) {
    const struct sim_disk_options *options = &node->options.disk;
    switch (kind) {
    case ENV_IO_READ: return sim__disk_delay_us(node, options->read_us_max);
    case ENV_IO_WRITE: return sim__disk_delay_us(node, options->write_us_max);
    case ENV_IO_SYNC: return sim__disk_delay_us(node, options->sync_us_max);
    case ENV_IO_WRITE_DSYNC: return sim__disk_delay_us(node, options->write_us_max + options->sync_us_max);
    }
    CHECK(false);
}

void sim__io_submit(struct env_loop *loop, struct env_io *io) {
    list_push_back(&sim__loop_of(loop)->submissions, &io->link);
    if (!sim__on_loop(loop)) {
        sim__loop_wake(sim__loop_of(loop));
    }
}

/* What the operation does to the disk. */
static int perform(struct sim_io *sim_io) {
    struct env_io *io = sim_io->io;
    struct sim_node *node = sim_io->node;
    struct sim_file *file = sim__file_of(io->file);
    if (io->kind == ENV_IO_SYNC) {
        return sim__disk_sync_faulty(file, sim_io->sequence);
    }
    size_t count = 0;
    int sys;
    if (is_write(io)) {
        CHECK(checksum64(io_data(io), io_left(io), 0) == sim_io->checksum);
        sys = sim__disk_write_faulty(file, io_data(io), io_left(io), io->offset + io->progress,
                                     io->kind == ENV_IO_WRITE_DSYNC, &count);
    } else {
        sim__mappings_store(node, file->inode);
        sys = sim__disk_error(node, node->options.disk.read_error_ppm);
        count = sys != 0 ? 0 : sim__inode_read(file->inode, io_data(io), io_left(io), io->offset + io->progress);
        node->sim->stats.file_bytes_read += count;
    }
    io->progress += count;
    return sys;
}

static void complete(struct sim_event *event) {
    struct sim_io *sim_io = CONTAINER_OF(event, struct sim_io, event);
    struct sim_node *node = sim_io->node;
    if (node->disk_hung) {
        sim_io->stuck = true;
        return;
    }
    sim_io->sys = perform(sim_io);
    sim__note(node->sim, node, SIM_TRACE_IO_END, (uint64_t)sim_io->sys, sim_io->io->progress, sim_io->io->file->path);
    struct sim_loop *loop = sim__loop_of(sim_io->io->loop);
    list_remove(&sim_io->link);
    list_push_back(&loop->completions, &sim_io->link);
    sim__loop_wake(loop);
}

static enum sim_trace_kind trace_kind(enum env_io_kind kind) {
    switch (kind) {
    case ENV_IO_READ: return SIM_TRACE_IO_READ;
    case ENV_IO_WRITE: return SIM_TRACE_IO_WRITE;
    case ENV_IO_WRITE_DSYNC: return SIM_TRACE_IO_WRITE_DSYNC;
    case ENV_IO_SYNC: return SIM_TRACE_IO_SYNC;
    }
    CHECK(false);
}

static void io_start(struct sim_loop *loop, struct env_io *io) {
    struct sim_node *node = loop->node;
    struct sim_file *file = sim__file_of(io->file);
    CHECK(file->node == node && io->progress <= io->limit && io->limit <= io->len);
    CHECK((file->flags & (io->kind == ENV_IO_READ ? ENV_OPEN_READ : ENV_OPEN_WRITE)) != 0 || io->kind == ENV_IO_SYNC);
    struct sim_io *sim_io = sim__alloc(sizeof *sim_io);
    sim_io->io = io;
    sim_io->node = node;
    sim_io->event.run = complete;
    if (io->kind == ENV_IO_SYNC) {
        sim__mappings_store(node, file->inode);
    }
    sim_io->sequence = sim__disk_sequence(node->disk);
    if (io->kind != ENV_IO_SYNC) {
        sim__check_direct(file, io_data(io), io_left(io), io->offset + io->progress);
    }
    if (is_write(io)) {
        sim_io->checksum = checksum64(io_data(io), io_left(io), 0);
    } else if (io->kind == ENV_IO_READ) {
        memset(io_data(io), LOST_BYTE, io_left(io)); /* nothing to be read from it before done */
    }
    file->ios++;
    list_push_back(&node->ios, &sim_io->link);
    sim__note(node->sim, node, trace_kind(io->kind), io->offset, io->len, io->file->path);
    sim__event_schedule(node->sim, &sim_io->event, node->sim->now_us + io_delay_us(node, io->kind));
}

void sim__ios_start(struct sim_loop *loop) {
    struct list *link;
    while ((link = list_pop_front(&loop->submissions)) != NULL) {
        io_start(loop, LIST_ENTRY(link, struct env_io, link));
    }
}

void sim__ios_complete(struct sim_loop *loop) {
    uint64_t count = 0;
    LIST_FOREACH (counted, &loop->completions) {
        count++;
    }
    for (; count > 0; count--) { /* those that come meanwhile are the next turn's */
        struct sim_io *sim_io = LIST_ENTRY(list_pop_front(&loop->completions), struct sim_io, link);
        struct env_io *io = sim_io->io;
        int sys = sim_io->sys;
        sim__file_of(io->file)->ios--;
        sim__free(sim_io);
        env__io_finish(io, sys);
    }
}

void sim__ios_unhang(struct sim_node *node) {
    LIST_FOREACH (link, &node->ios) {
        struct sim_io *sim_io = LIST_ENTRY(link, struct sim_io, link);
        if (sim_io->stuck) {
            sim_io->stuck = false;
            sim__event_schedule(node->sim, &sim_io->event, node->sim->now_us + io_delay_us(node, sim_io->io->kind));
        }
    }
}

/* The bytes that a write had handed over when its process ended. After a power loss the disk decides further. */
static void leave_behind(struct sim_io *sim_io, enum sim_crash crash) {
    const struct env_io *io = sim_io->io;
    struct random *random = &sim_io->node->disk_random;
    size_t count = io_left(io);
    if (crash == SIM_CRASH_PROCESS) {
        uint64_t drawn = random_below(random, 3);
        count = drawn == 0 ? 0 : drawn == 1 ? (size_t)random_below(random, count + 1) : count;
        count -= count < io_left(io) ? count % sim_io->node->options.disk.sector_bytes : 0;
    }
    size_t written = 0;
    if (sim_io->node->disk_hung && crash == SIM_CRASH_POWER) {
        return;
    }
    (void)sim__disk_write_faulty(sim__file_of(io->file), io_data(io), count, io->offset + io->progress, false,
                                 &written);
}

void sim__ios_drop(struct sim_node *node, enum sim_crash crash) {
    LIST_FOREACH (link, &node->ios) {
        struct sim_io *sim_io = LIST_ENTRY(link, struct sim_io, link);
        if (is_write(sim_io->io)) {
            leave_behind(sim_io, crash);
        }
        sim__event_cancel(node->sim, &sim_io->event);
        list_remove(&sim_io->link);
        sim__free(sim_io);
    }
    LIST_FOREACH (loop_link, &node->loops) {
        struct sim_loop *loop = LIST_ENTRY(loop_link, struct sim_loop, link);
        struct list *completed;
        while ((completed = list_pop_front(&loop->completions)) != NULL) {
            sim__free(LIST_ENTRY(completed, struct sim_io, link));
        }
    }
}
