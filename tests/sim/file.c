/*
 * Blocking files: env's calls on the simulated disk, with time and faults.
 *
 * Each call first takes virtual time (others run meanwhile; a crash may come), then happens at one instant. On the host
 * it takes none. A sync covers what was there when it was called.
 */
#include "tests/sim/sim_internal.h"

#include <errno.h>
#include <string.h>

enum {
    BLOCK_BYTES = 4096,
    NAME_US_MAX = 30,
    LOCK_WAIT_US = 1000 * 1000,
    LOCK_POLL_US = 10 * 1000,
    LOCK_LINGER_US_MAX = 60 * 1000 /* a dead process may hold its lock a little longer */
};

/* ---- Time and faults -------------------------------------------------------------------------------------------- */

uint64_t sim__disk_delay_us(struct sim_node *node, uint32_t usual_us_max) {
    const struct sim_disk_options *options = &node->options.disk;
    return sim__draw_us(&node->disk_random, usual_us_max, options->slow_ppm, options->slow_us_max);
}

void sim__disk_take_time(struct sim_node *node, uint32_t usual_us_max) {
    struct sim *sim = node->sim;
    sim__check_may_block(node);
    sim__mappings_write_back(node);
    if (sim->current == NULL) {
        return;
    }
    sim__fiber_sleep_until(sim, sim->now_us + sim__disk_delay_us(node, usual_us_max));
    while (node->disk_hung) {
        sim->current->waits_for_disk = true;
        sim__fiber_wait(sim);
    }
}

/* Names work on a hung disk, too: they are in the journal. */
static void take_name_time(struct sim_node *node) {
    sim__check_may_block(node);
    if (node->sim->current != NULL) {
        sim__fiber_sleep_until(node->sim, node->sim->now_us + 1 + random_below(&node->disk_random, NAME_US_MAX));
    }
}

void sim__files_unhang(struct sim_node *node) {
    LIST_FOREACH (link, &node->fibers) {
        struct sim_fiber *fiber = LIST_ENTRY(link, struct sim_fiber, link);
        if (fiber->waits_for_disk) {
            fiber->waits_for_disk = false;
            sim__fiber_wake(fiber);
        }
    }
}

int sim__disk_error(struct sim_node *node, uint32_t ppm) {
    if (ppm == 0 || !random_chance(&node->disk_random, ppm, PPM)) {
        return 0;
    }
    node->sim->stats.io_errors++;
    sim__note(node->sim, node, SIM_TRACE_DISK_ERROR, EIO, 0, "");
    return EIO;
}

static uint64_t blocks_bytes(uint64_t size_bytes) { return (size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES; }

/* How large the file may become. */
static uint64_t size_max(const struct sim_node *node, const struct sim_inode *inode) {
    uint64_t used = sim__disk_used_bytes(node->disk);
    uint64_t capacity = node->options.disk.capacity_bytes;
    return blocks_bytes(sim__inode_size(inode)) + (used < capacity ? (capacity - used) / BLOCK_BYTES * BLOCK_BYTES : 0);
}

int sim__disk_write_faulty(struct sim_file *file, const void *data, size_t len, uint64_t offset, bool durable,
                           size_t *ret_len) {
    struct sim_node *node = file->node;
    int sys = sim__disk_error(node, node->options.disk.write_error_ppm);
    sim__mappings_store(node, file->inode);
    uint64_t end_max = size_max(node, file->inode);
    size_t count = len;
    if (sys != 0) {
        count = (size_t)random_below(&node->disk_random, len + 1);
    } else if (len > 0 && offset + len > end_max) {
        sys = ENOSPC;
        count = offset < end_max ? (size_t)(end_max - offset) : 0;
    } else if (durable) {
        sys = sim__disk_error(node, node->options.disk.sync_error_ppm); /* written, but who knows where */
    }
    if (sys != 0) {
        count -= count % node->options.disk.sector_bytes;
    }
    sim__inode_write(file->inode, data, count, offset, durable && sys == 0);
    sim__mappings_load(node, file->inode);
    node->sim->stats.file_bytes_written += count;
    *ret_len = count;
    return sys;
}

int sim__disk_sync_faulty(struct sim_file *file, uint64_t sequence) {
    struct sim_node *node = file->node;
    node->sim->stats.file_syncs++;
    int sys = sim__disk_error(node, node->options.disk.sync_error_ppm);
    if (sys != 0) {
        sim__mappings_store(node, file->inode);
        sim__inode_sync_failed(file->inode, &node->disk_random);
        sim__mappings_load(node, file->inode);
    } else {
        sim__inode_sync(file->inode, sequence);
    }
    return sys;
}

void sim__check_direct(const struct sim_file *file, const void *data, size_t len, uint64_t offset) {
    if ((file->flags & ENV_OPEN_DIRECT) != 0) {
        CHECK((uintptr_t)data % ENV_BLOCK_BYTES == 0 && len % ENV_BLOCK_BYTES == 0 && offset % ENV_BLOCK_BYTES == 0);
    }
}

static enum status result(struct sim_node *node, enum sim_trace_kind call, const char *path, int sys, uint64_t bytes,
                          struct error *err) {
    sim__note(node->sim, node, call, (uint64_t)sys, bytes, path);
    return sys == 0 ? STATUS_OK : error_set_sys(err, sys, "%s %s", sim_trace_name(call), path);
}

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

/* Finds or makes the inode, truncates it. */
static int open_inode(struct sim_node *node, const char *path, unsigned flags, struct sim_inode **ret_inode) {
    struct sim_inode *inode = sim__disk_find(node->disk, path);
    if (inode == NULL) {
        return (flags & ENV_OPEN_CREATE) == 0 ? ENOENT : sim__disk_create(node->disk, path, false, ret_inode);
    }
    if ((flags & ENV_OPEN_CREATE) != 0 && (flags & ENV_OPEN_EXCLUSIVE) != 0) {
        return EEXIST;
    }
    if (sim__inode_is_dir(inode)) {
        return EISDIR;
    }
    if ((flags & ENV_OPEN_TRUNCATE) != 0) {
        sim__inode_truncate(inode, 0);
    }
    *ret_inode = inode;
    return 0;
}

static struct sim_file *file_new(struct sim_node *node, const char *path, unsigned flags) {
    struct alloc *alloc = &node->memory.alloc;
    struct sim_file *file = mem_alloc_zero(alloc, sizeof *file);
    char *copy = file == NULL ? NULL : mem_alloc(alloc, strlen(path) + 1);
    if (copy == NULL) {
        mem_free(alloc, file);
        return NULL;
    }
    memcpy(copy, path, strlen(path) + 1);
    file->file = (struct env_file){.env = &node->env->env, .path = copy};
    file->node = node;
    file->flags = flags;
    list_init(&file->link);
    return file;
}

static void file_free(struct sim_file *file) {
    struct alloc *alloc = &file->node->memory.alloc;
    list_remove(&file->link);
    if (file->inode != NULL) {
        sim__inode_unref(file->inode);
    }
    mem_free(alloc, file->file.path);
    mem_free(alloc, file);
}

enum status sim__open(struct env *env, const char *path, unsigned flags, struct env_file **ret_file,
                      struct error *err) {
    struct sim_node *node = sim__node_of(env);
    take_name_time(node);
    struct sim_file *file = file_new(node, path, flags);
    if (file == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "open %s: no memory", path);
    }
    struct sim_inode *inode = NULL;
    int sys = open_inode(node, path, flags, &inode);
    if (sys != 0) {
        file_free(file);
        return result(node, SIM_TRACE_OPEN, path, sys, 0, err);
    }
    file->inode = inode;
    sim__inode_ref(inode);
    list_push_back(&node->files, &file->link);
    *ret_file = &file->file;
    return result(node, SIM_TRACE_OPEN, path, 0, 0, err);
}

void sim__close(struct env_file *env_file) {
    struct sim_file *file = sim__file_of(env_file);
    CHECK(file->ios == 0);
    if (file->is_lock) {
        *sim__inode_lock_holder(file->inode) = NULL;
    }
    file_free(file);
}

void sim__files_drop(struct sim_node *node) {
    LIST_FOREACH (link, &node->files) {
        struct sim_file *file = LIST_ENTRY(link, struct sim_file, link);
        if (file->is_lock) {
            *sim__inode_lock_holder(file->inode) = NULL;
            *sim__inode_lock_until_us(file->inode) =
                node->sim->now_us + random_below(&node->disk_random, LOCK_LINGER_US_MAX);
        }
        file_free(file);
    }
}

enum status sim__lock_file(struct env *env, const char *path, struct env_file **ret_file, struct error *err) {
    struct sim_node *node = sim__node_of(env);
    struct sim *sim = node->sim;
    struct env_file *env_file;
    enum status status = sim__open(env, path, ENV_OPEN_READ | ENV_OPEN_WRITE | ENV_OPEN_CREATE, &env_file, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct sim_file *file = sim__file_of(env_file);
    uint64_t deadline_us = sim->now_us + LOCK_WAIT_US;
    while (*sim__inode_lock_holder(file->inode) != NULL || *sim__inode_lock_until_us(file->inode) > sim->now_us) {
        if (sim->now_us >= deadline_us) {
            sim__note(sim, node, SIM_TRACE_LOCK, EWOULDBLOCK, 0, path);
            sim__close(env_file);
            return error_set(err, STATUS_BUSY, "lock %s: held by another process", path);
        }
        if (sim->current == NULL) {
            sim__host_wait(sim, sim->now_us + LOCK_POLL_US, NULL, NULL);
        } else {
            sim__fiber_sleep_until(sim, sim->now_us + LOCK_POLL_US);
        }
    }
    *sim__inode_lock_holder(file->inode) = file;
    file->is_lock = true;
    *ret_file = env_file;
    return result(node, SIM_TRACE_LOCK, path, 0, 0, err);
}

/* ---- Content ---------------------------------------------------------------------------------------------------- */

enum status sim__pread(struct env_file *env_file, void *data, size_t len, uint64_t offset, size_t *ret_len,
                       struct error *err) {
    struct sim_file *file = sim__file_of(env_file);
    struct sim_node *node = file->node;
    CHECK((file->flags & ENV_OPEN_READ) != 0);
    sim__check_direct(file, data, len, offset);
    sim__disk_take_time(node, node->options.disk.read_us_max);
    int sys = sim__disk_error(node, node->options.disk.read_error_ppm);
    size_t count = 0;
    if (sys == 0) {
        sim__mappings_store(node, file->inode);
        count = sim__inode_read(file->inode, data, len, offset);
        node->sim->stats.file_bytes_read += count;
        *ret_len = count;
    }
    return result(node, SIM_TRACE_READ, env_file->path, sys, count, err);
}

enum status sim__pwrite(struct env_file *env_file, const void *data, size_t len, uint64_t offset, struct error *err) {
    struct sim_file *file = sim__file_of(env_file);
    struct sim_node *node = file->node;
    CHECK((file->flags & ENV_OPEN_WRITE) != 0);
    sim__check_direct(file, data, len, offset);
    sim__disk_take_time(node, node->options.disk.write_us_max);
    size_t count = 0;
    int sys = sim__disk_write_faulty(file, data, len, offset, false, &count);
    return result(node, SIM_TRACE_WRITE, env_file->path, sys, count, err);
}

enum status sim__pwrite_dsync(struct env_file *env_file, const void *data, size_t len, uint64_t offset,
                              struct error *err) {
    struct sim_file *file = sim__file_of(env_file);
    struct sim_node *node = file->node;
    CHECK((file->flags & ENV_OPEN_WRITE) != 0);
    sim__check_direct(file, data, len, offset);
    sim__disk_take_time(node, node->options.disk.write_us_max + node->options.disk.sync_us_max);
    size_t count = 0;
    int sys = sim__disk_write_faulty(file, data, len, offset, true, &count);
    node->sim->stats.file_syncs++;
    return result(node, SIM_TRACE_WRITE_DSYNC, env_file->path, sys, count, err);
}

enum status sim__sync(struct env_file *env_file, struct error *err) {
    struct sim_file *file = sim__file_of(env_file);
    struct sim_node *node = file->node;
    sim__mappings_store(node, file->inode);
    uint64_t sequence = sim__disk_sequence(node->disk);
    sim__disk_take_time(node, node->options.disk.sync_us_max);
    return result(node, SIM_TRACE_SYNC, env_file->path, sim__disk_sync_faulty(file, sequence), 0, err);
}

enum status sim__size(struct env_file *env_file, uint64_t *ret_size_bytes, struct error *err) {
    (void)err;
    struct sim_file *file = sim__file_of(env_file);
    take_name_time(file->node);
    *ret_size_bytes = sim__inode_size(file->inode);
    return STATUS_OK;
}

enum status sim__truncate(struct env_file *env_file, uint64_t size_bytes, struct error *err) {
    struct sim_file *file = sim__file_of(env_file);
    struct sim_node *node = file->node;
    CHECK((file->flags & ENV_OPEN_WRITE) != 0);
    sim__disk_take_time(node, node->options.disk.write_us_max);
    int sys = sim__disk_error(node, node->options.disk.write_error_ppm);
    if (sys == 0 && size_bytes > size_max(node, file->inode)) {
        sys = ENOSPC;
    }
    if (sys == 0) {
        sim__mappings_store(node, file->inode);
        sim__inode_truncate(file->inode, size_bytes);
        sim__mappings_load(node, file->inode);
    }
    return result(node, SIM_TRACE_TRUNCATE, env_file->path, sys, size_bytes, err);
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

enum status sim__rename(struct env *env, const char *from, const char *to, struct error *err) {
    struct sim_node *node = sim__node_of(env);
    take_name_time(node);
    return result(node, SIM_TRACE_RENAME, to, sim__disk_rename(node->disk, from, to), 0, err);
}

enum status sim__link(struct env *env, const char *from, const char *to, struct error *err) {
    struct sim_node *node = sim__node_of(env);
    take_name_time(node);
    return result(node, SIM_TRACE_HARD_LINK, to, sim__disk_link(node->disk, from, to), 0, err);
}

enum status sim__unlink(struct env *env, const char *path, struct error *err) {
    struct sim_node *node = sim__node_of(env);
    take_name_time(node);
    return result(node, SIM_TRACE_UNLINK, path, sim__disk_unlink(node->disk, path), 0, err);
}

enum status sim__mkdir(struct env *env, const char *path, struct error *err) {
    struct sim_node *node = sim__node_of(env);
    take_name_time(node);
    struct sim_inode *inode = NULL;
    return result(node, SIM_TRACE_MKDIR, path, sim__disk_create(node->disk, path, true, &inode), 0, err);
}

enum status sim__sync_dir(struct env *env, const char *path, struct error *err) {
    struct sim_node *node = sim__node_of(env);
    uint64_t sequence = sim__disk_sequence(node->disk);
    sim__disk_take_time(node, node->options.disk.sync_us_max);
    struct sim_inode *inode = sim__disk_find(node->disk, path);
    int sys = inode == NULL ? ENOENT : sim__inode_is_dir(inode) ? 0 : ENOTDIR;
    if (sys == 0) {
        node->sim->stats.file_syncs++;
        sys = sim__disk_error(node, node->options.disk.sync_error_ppm);
    }
    if (sys == 0) {
        sim__disk_sync_dir(node->disk, inode, sequence);
    }
    return result(node, SIM_TRACE_SYNC_DIR, path, sys, 0, err);
}

/* The names, one behind the other, each with its NUL; NULL without memory. */
static char *copy_names(struct sim_node *node, const struct sim_inode *dir) {
    size_t bytes = 1;
    for (size_t i = 0; i < sim__dir_count(dir); i++) {
        bytes += strlen(sim__dir_name(dir, i)) + 1;
    }
    char *names = mem_alloc(&node->memory.alloc, bytes);
    char *next = names;
    for (size_t i = 0; names != NULL && i < sim__dir_count(dir); i++) {
        size_t len = strlen(sim__dir_name(dir, i)) + 1;
        memcpy(next, sim__dir_name(dir, i), len);
        next += len;
    }
    return names;
}

/* The callback may block and change the directory, so it goes over a copy. */
enum status sim__list_dir(struct env *env, const char *path, enum status (*each)(void *context, const char *name),
                          void *context, struct error *err) {
    struct sim_node *node = sim__node_of(env);
    take_name_time(node);
    struct sim_inode *dir = sim__disk_find(node->disk, path);
    if (dir == NULL || !sim__inode_is_dir(dir)) {
        return error_set_sys(err, dir == NULL ? ENOENT : ENOTDIR, "list %s", path);
    }
    size_t count = sim__dir_count(dir);
    char *names = copy_names(node, dir);
    if (names == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "list %s: no memory", path);
    }
    enum status status = STATUS_OK;
    const char *name = names;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        status = each(context, name);
        name += strlen(name) + 1;
    }
    mem_free(env->alloc, names);
    return status;
}

enum status sim__disk_space(struct env *env, const char *path, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes,
                            struct error *err) {
    struct sim_node *node = sim__node_of(env);
    take_name_time(node);
    if (sim__disk_find(node->disk, path) == NULL) {
        return error_set_sys(err, ENOENT, "space of %s", path);
    }
    uint64_t used = sim__disk_used_bytes(node->disk);
    uint64_t capacity = node->options.disk.capacity_bytes;
    *ret_free_bytes = used < capacity ? capacity - used : 0;
    *ret_total_bytes = capacity;
    return STATUS_OK;
}
