/*
 * A world for the log's unit tests, small and entirely by hand: files in memory, one loop, jobs and I/O that end when
 * the test says so.
 *
 * Files. Each has what is seen and what is durable, by 512-byte sectors. fake_crash makes the image that a power loss
 * leaves: of what was never synced, each sector and each name is kept or lost by seed; the write in flight, too.
 * Counters say how often what was called. From `dead_after` calls on nothing has an effect any more and everything
 * fails: so a test can "crash" at any I/O, give the log up in an orderly way, and look at the image.
 *
 * Everything is in static inline functions: only the log's tests include this.
 */
#ifndef HOLDFAST_TESTS_WAL_FAKE_ENV_H
#define HOLDFAST_TESTS_WAL_FAKE_ENV_H

#include "node/base/random.h"
#include "node/env/env_loop_internal.h"
#include "tests/unit/support/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAKE_FILES_MAX = 512, FAKE_NAMES_MAX = 64, FAKE_SECTOR = 512, FAKE_PATH = 128 };

struct fake_inode {
    uint8_t *seen;
    uint8_t *durable;
    uint8_t
        *believed; /* what a sync that failed left in the cache as clean: later syncs leave it out. NULL: none failed */
    uint64_t believed_len;
    uint64_t size;
    uint64_t durable_size;
    uint64_t capacity;
};

struct fake_name {
    char path[FAKE_PATH];
    struct fake_inode *inode;
};

struct fake_names {
    struct fake_name list[FAKE_NAMES_MAX];
    size_t count;
};

struct fake_file {
    struct env_file base;
    struct fake_inode *inode;
    bool direct;
};

struct fake_counts {
    uint64_t calls; /* all that touch the disk; what dead_after counts */
    uint64_t pwrites;
    uint64_t dsync_writes;
    uint64_t cached_writes; /* of them, those through the page cache */
    uint64_t async_reads;
    uint64_t syncs;
    uint64_t dir_syncs;
    uint64_t unlinks;
    uint64_t renames;
    uint64_t opens;
};

struct fake_env {
    struct env env;
    struct env_loop loop;
    struct test_alloc memory;
    struct fault_set faults;
    struct fake_inode *inodes[FAKE_FILES_MAX];
    size_t inode_count;
    struct fake_names seen;
    struct fake_names durable;
    struct fake_counts counts;
    uint64_t dead_after;       /* 0: never */
    uint64_t failing_sync;     /* the sync with this number fails with EIO; 0: none */
    uint64_t failing_dir_sync; /* the same of a directory */
    bool refuses_cached;       /* opening a file that is there for buffered writes fails */
    uint64_t disk_bytes_max;   /* 0: no bound */
    uint64_t now_us;
    struct random random;
    struct list works;    /* submitted */
    struct list ios;      /* in flight */
    struct list done_ios; /* ended, to be told in the next turn */
    bool on_loop;
    struct env_io *last_write; /* newest submitted write, for looking at its bytes */
};

static inline struct fake_env *fake_of(struct env *env) { return CONTAINER_OF(env, struct fake_env, env); }

static inline bool fake_is_dead(struct fake_env *fake) {
    return fake->dead_after != 0 && fake->counts.calls >= fake->dead_after;
}

/* Counts one call that touches the disk; false: the world has ended. */
static inline bool fake_touch(struct fake_env *fake, struct error *err, enum status *ret_status) {
    fake->counts.calls++;
    if (fake_is_dead(fake)) {
        *ret_status = error_set_sys(err, EIO, "dead");
        return false;
    }
    return true;
}

/* ---- Names and inodes ------------------------------------------------------------------------------------------- */

static inline struct fake_name *fake_find(struct fake_names *names, const char *path) {
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->list[i].path, path) == 0) {
            return &names->list[i];
        }
    }
    return NULL;
}

static inline void fake_put(struct fake_names *names, const char *path, struct fake_inode *inode) {
    struct fake_name *name = fake_find(names, path);
    if (name == NULL) {
        CHECK(names->count < FAKE_NAMES_MAX && strlen(path) < FAKE_PATH);
        name = &names->list[names->count++];
        strcpy(name->path, path);
    }
    name->inode = inode;
}

static inline void fake_take(struct fake_names *names, const char *path) {
    struct fake_name *name = fake_find(names, path);
    if (name != NULL) {
        *name = names->list[--names->count];
    }
}

static inline struct fake_inode *fake_inode_new(struct fake_env *fake) {
    CHECK(fake->inode_count < FAKE_FILES_MAX);
    struct fake_inode *inode = calloc(1, sizeof *inode);
    CHECK(inode != NULL);
    fake->inodes[fake->inode_count++] = inode;
    return inode;
}

static inline void fake_grow(struct fake_inode *inode, uint64_t size) {
    if (size > inode->capacity) {
        uint64_t capacity = (size + FAKE_SECTOR - 1) / FAKE_SECTOR * FAKE_SECTOR;
        capacity = capacity > inode->capacity * 2 ? capacity : inode->capacity * 2;
        inode->seen = realloc(inode->seen, capacity);
        inode->durable = realloc(inode->durable, capacity);
        CHECK(inode->seen != NULL && inode->durable != NULL);
        memset(inode->seen + inode->capacity, 0, capacity - inode->capacity);
        memset(inode->durable + inode->capacity, 0, capacity - inode->capacity);
        inode->capacity = capacity;
    }
    inode->size = size > inode->size ? size : inode->size;
}

static inline struct fake_inode *fake_file_at(struct fake_env *fake, const char *path) {
    struct fake_name *name = fake_find(&fake->seen, path);
    return name == NULL ? NULL : name->inode;
}

static inline uint64_t fake_used_bytes(struct fake_env *fake) {
    uint64_t used = 0;
    for (size_t i = 0; i < fake->seen.count; i++) {
        used += fake->seen.list[i].inode->size;
    }
    return used;
}

/* ---- Blocking files --------------------------------------------------------------------------------------------- */

static inline enum status fake_open(struct env *env, const char *path, unsigned flags, struct env_file **ret,
                                    struct error *err) {
    struct fake_env *fake = fake_of(env);
    enum status status;
    CHECK(!fake->on_loop);
    fake->counts.opens++;
    if (!fake_touch(fake, err, &status)) {
        return status;
    }
    struct fake_inode *inode = fake_file_at(fake, path);
    if (inode == NULL) {
        if ((flags & ENV_OPEN_CREATE) == 0) {
            return error_set_sys(err, ENOENT, "open %s", path);
        }
        inode = fake_inode_new(fake);
        fake_put(&fake->seen, path, inode);
    }
    if (fake->refuses_cached && flags == ENV_OPEN_WRITE) {
        return error_set_sys(err, EMFILE, "open %s", path);
    }
    if ((flags & ENV_OPEN_TRUNCATE) != 0 && inode->size > 0) {
        memset(inode->seen, 0, inode->capacity);
        inode->size = 0;
    }
    struct fake_file *file = mem_alloc(env->alloc, sizeof *file);
    if (file == NULL) {
        return error_set_sys(err, ENOMEM, "open %s", path);
    }
    file->base.env = env;
    file->base.path = strdup(path);
    file->inode = inode;
    file->direct = (flags & ENV_OPEN_DIRECT) != 0;
    *ret = &file->base;
    return STATUS_OK;
}

static inline void fake_close(struct env_file *base) {
    struct fake_file *file = CONTAINER_OF(base, struct fake_file, base);
    CHECK(!fake_of(base->env)->on_loop);
    free(file->base.path);
    mem_free(base->env->alloc, file);
}

static inline enum status fake_pread(struct env_file *base, void *data, size_t len, uint64_t offset, size_t *ret_len,
                                     struct error *err) {
    struct fake_file *file = CONTAINER_OF(base, struct fake_file, base);
    enum status status;
    CHECK(!fake_of(base->env)->on_loop);
    CHECK(offset % 4096 == 0 && len % 4096 == 0 && (uintptr_t)data % 4096 == 0);
    if (!fake_touch(fake_of(base->env), err, &status)) {
        return status;
    }
    uint64_t left = offset < file->inode->size ? file->inode->size - offset : 0;
    *ret_len = left < len ? (size_t)left : len;
    if (*ret_len > 0) {
        memcpy(data, file->inode->seen + offset, *ret_len);
    }
    return STATUS_OK;
}

static inline enum status fake_pwrite(struct env_file *base, const void *data, size_t len, uint64_t offset,
                                      struct error *err) {
    struct fake_env *fake = fake_of(base->env);
    struct fake_file *file = CONTAINER_OF(base, struct fake_file, base);
    enum status status;
    CHECK(!fake->on_loop);
    CHECK(offset % 4096 == 0 && len % 4096 == 0 && (uintptr_t)data % 4096 == 0);
    fake->counts.pwrites++;
    if (!fake_touch(fake, err, &status)) {
        return status;
    }
    if (fake->disk_bytes_max != 0 && offset + len > file->inode->size &&
        fake_used_bytes(fake) + offset + len - file->inode->size > fake->disk_bytes_max) {
        return error_set_sys(err, ENOSPC, "write %s", base->path);
    }
    fake_grow(file->inode, offset + len);
    memcpy(file->inode->seen + offset, data, len);
    return STATUS_OK;
}

static inline enum status fake_sync(struct env_file *base, struct error *err) {
    struct fake_env *fake = fake_of(base->env);
    struct fake_inode *inode = CONTAINER_OF(base, struct fake_file, base)->inode;
    enum status status;
    CHECK(!fake->on_loop);
    fake->counts.syncs++;
    if (!fake_touch(fake, err, &status)) {
        return status;
    }
    if (fake->counts.syncs == fake->failing_sync) {
        free(inode->believed);
        inode->believed = malloc(inode->capacity + 1);
        CHECK(inode->believed != NULL);
        memcpy(inode->believed, inode->seen, inode->capacity);
        inode->believed_len = inode->capacity;
        return error_set_sys(err, EIO, "the sync that was to fail");
    }
    for (uint64_t at = 0; at < inode->capacity; at += FAKE_SECTOR) {
        uint64_t len = inode->capacity - at < FAKE_SECTOR ? inode->capacity - at : FAKE_SECTOR;
        if (at + len > inode->believed_len || memcmp(inode->seen + at, inode->believed + at, len) != 0) {
            memcpy(inode->durable + at, inode->seen + at, len);
        }
    }
    inode->durable_size = inode->size;
    return STATUS_OK;
}

/* Two calls to the counter: the power may go between them, then each sector is there or not. */
static inline enum status fake_pwrite_dsync(struct env_file *base, const void *data, size_t len, uint64_t offset,
                                            struct error *err) {
    struct fake_env *fake = fake_of(base->env);
    struct fake_inode *inode = CONTAINER_OF(base, struct fake_file, base)->inode;
    enum status status = fake_pwrite(base, data, len, offset, err);
    fake->counts.dsync_writes++;
    fake->counts.cached_writes += !CONTAINER_OF(base, struct fake_file, base)->direct;
    if (status != STATUS_OK || !fake_touch(fake, err, &status)) {
        return status;
    }
    CHECK(offset + len <= inode->durable_size);
    memcpy(inode->durable + offset, data, len);
    return STATUS_OK;
}

static inline enum status fake_size(struct env_file *base, uint64_t *ret, struct error *err) {
    (void)err;
    *ret = CONTAINER_OF(base, struct fake_file, base)->inode->size;
    return STATUS_OK;
}

static inline enum status fake_truncate(struct env_file *base, uint64_t size_bytes, struct error *err) {
    struct fake_inode *inode = CONTAINER_OF(base, struct fake_file, base)->inode;
    enum status status;
    CHECK(!fake_of(base->env)->on_loop && size_bytes <= inode->size);
    if (!fake_touch(fake_of(base->env), err, &status)) {
        return status;
    }
    memset(inode->seen + size_bytes, 0, inode->size - size_bytes);
    inode->size = size_bytes;
    return STATUS_OK;
}

static inline enum status fake_rename(struct env *env, const char *from, const char *to, struct error *err) {
    struct fake_env *fake = fake_of(env);
    enum status status;
    fake->counts.renames++;
    if (!fake_touch(fake, err, &status)) {
        return status;
    }
    struct fake_inode *inode = fake_file_at(fake, from);
    CHECK(inode != NULL);
    fake_take(&fake->seen, from);
    fake_put(&fake->seen, to, inode);
    return STATUS_OK;
}

static inline enum status fake_unlink(struct env *env, const char *path, struct error *err) {
    struct fake_env *fake = fake_of(env);
    enum status status;
    CHECK(!fake->on_loop);
    fake->counts.unlinks++;
    if (!fake_touch(fake, err, &status)) {
        return status;
    }
    if (fake_file_at(fake, path) == NULL) {
        return error_set_sys(err, ENOENT, "unlink %s", path);
    }
    fake_take(&fake->seen, path);
    return STATUS_OK;
}

static inline enum status fake_mkdir(struct env *env, const char *path, struct error *err) {
    (void)env;
    (void)path;
    return error_set(err, STATUS_EXISTS, "it is there");
}

static inline enum status fake_sync_dir(struct env *env, const char *path, struct error *err) {
    struct fake_env *fake = fake_of(env);
    enum status status;
    CHECK(!fake->on_loop);
    fake->counts.dir_syncs++;
    if (!fake_touch(fake, err, &status)) {
        return status;
    }
    if (fake->counts.dir_syncs == fake->failing_dir_sync) {
        return error_set_sys(err, EIO, "the sync that was to fail");
    }
    if (strcmp(path, "/wal") == 0) {
        fake->durable = fake->seen;
    }
    return STATUS_OK;
}

static inline int fake_compare_names(const void *a, const void *b) { return strcmp(a, b); }

static inline enum status fake_list_dir(struct env *env, const char *path,
                                        enum status (*each)(void *context, const char *name), void *context,
                                        struct error *err) {
    struct fake_env *fake = fake_of(env);
    enum status status;
    size_t prefix = strlen(path) + 1;
    char names[FAKE_NAMES_MAX][FAKE_PATH];
    if (!fake_touch(fake, err, &status)) {
        return status;
    }
    size_t count = fake->seen.count;
    for (size_t i = 0; i < count; i++) {
        strcpy(names[i], fake->seen.list[i].path + prefix);
    }
    qsort(names, count, FAKE_PATH, fake_compare_names);
    for (size_t i = 0; i < count; i++) {
        status = each(context, names[i]);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

/* ---- The loop --------------------------------------------------------------------------------------------------- */

static inline uint64_t fake_clock_us(struct env *env) { return fake_of(env)->now_us; }
static inline uint64_t fake_random(struct env *env) { return random_next(&fake_of(env)->random); }
static inline bool fake_on_loop(struct env_loop *loop) { return fake_of(loop->env)->on_loop; }
static inline void fake_wake(struct env_loop *loop) { (void)loop; }

static inline void fake_work_submit(struct env *env, enum env_work_class work_class, struct env_work *work) {
    (void)work_class;
    list_push_back(&fake_of(env)->works, &work->link);
}

static inline void fake_io_submit(struct env_loop *loop, struct env_io *io) {
    struct fake_env *fake = fake_of(loop->env);
    CHECK(io->offset % 4096 == 0 && io->len % 4096 == 0 && (uintptr_t)io->data % 4096 == 0 && io->len > 0);
    fake->counts.calls++;
    if (io->kind == ENV_IO_READ) {
        fake->counts.async_reads++;
    } else {
        CHECK(io->kind == ENV_IO_WRITE_DSYNC);
        fake->counts.dsync_writes++;
        fake->counts.cached_writes += !CONTAINER_OF(io->file, struct fake_file, base)->direct;
        fake->last_write = io;
    }
    list_push_back(&fake->ios, &io->link);
}

static const struct env_ops fake_ops = {.clock_us = fake_clock_us,
                                        .random = fake_random,
                                        .on_loop = fake_on_loop,
                                        .loop_wake = fake_wake,
                                        .work_submit = fake_work_submit,
                                        .open = fake_open,
                                        .close = fake_close,
                                        .pread = fake_pread,
                                        .pwrite = fake_pwrite,
                                        .pwrite_dsync = fake_pwrite_dsync,
                                        .sync = fake_sync,
                                        .size = fake_size,
                                        .truncate = fake_truncate,
                                        .rename = fake_rename,
                                        .unlink = fake_unlink,
                                        .mkdir = fake_mkdir,
                                        .sync_dir = fake_sync_dir,
                                        .list_dir = fake_list_dir,
                                        .io_submit = fake_io_submit};

static inline void fake_boot(struct fake_env *fake) {
    memset(&fake->counts, 0, sizeof fake->counts);
    fake->dead_after = 0;
    fake->last_write = NULL;
    list_init(&fake->works);
    list_init(&fake->ios);
    list_init(&fake->done_ios);
    fault_init(&fake->faults);
    test_alloc_init(&fake->memory);
    fake->env = (struct env){.ops = &fake_ops, .alloc = &fake->memory.base, .faults = &fake->faults};
    env__loop_init(&fake->loop, &fake->env, 1024);
}

static inline struct fake_env *fake_new(uint64_t seed) {
    struct fake_env *fake = calloc(1, sizeof *fake);
    CHECK(fake != NULL);
    random_seed(&fake->random, seed);
    fake->now_us = 1000000;
    fake_boot(fake);
    return fake;
}

/* The log must be closed; checks that it gave everything back. */
static inline void fake_shut(struct fake_env *fake) {
    CHECK(list_is_empty(&fake->works) && list_is_empty(&fake->ios) && list_is_empty(&fake->done_ios));
    env__loop_deinit(&fake->loop);
    CHECK(fake->memory.live_blocks == 0);
}

static inline void fake_free(struct fake_env *fake) {
    fake_shut(fake);
    for (size_t i = 0; i < fake->inode_count; i++) {
        free(fake->inodes[i]->seen);
        free(fake->inodes[i]->durable);
        free(fake->inodes[i]->believed);
        free(fake->inodes[i]);
    }
    free(fake);
}

/* One turn of the loop: ended I/O, timers, messages, tasks. */
static inline void fake_turn(struct fake_env *fake) {
    struct list *node;
    fake->on_loop = true;
    fake->loop.now_us = fake->now_us;
    struct list ended;
    list_init(&ended);
    list_splice_back(&ended, &fake->done_ios);
    while ((node = list_pop_front(&ended)) != NULL) {
        struct env_io *io = LIST_ENTRY(node, struct env_io, link);
        env__io_finish(io, io->error.sys);
    }
    env__loop_run_timers(&fake->loop);
    (void)env__loop_run_messages(&fake->loop);
    env__loop_run_tasks(&fake->loop);
    fake->on_loop = false;
}

static inline void fake_post_done(struct env_message *message) {
    struct env_work *work = CONTAINER_OF(message, struct env_work, message);
    work->done(work);
}

/* Runs the oldest job that was submitted; its done comes with the next turn. False: there is none. */
static inline bool fake_run_work(struct fake_env *fake) {
    struct list *node = list_pop_front(&fake->works);
    if (node == NULL) {
        return false;
    }
    struct env_work *work = LIST_ENTRY(node, struct env_work, link);
    work->run(work);
    work->message.run = fake_post_done;
    env_post(work->loop, &work->message);
    return true;
}

/* ---- Asynchronous I/O by hand ----------------------------------------------------------------------------------- */

static inline void fake_carry_out(struct fake_env *fake, struct env_io *io) {
    struct fake_inode *inode = CONTAINER_OF(io->file, struct fake_file, base)->inode;
    if (fake_is_dead(fake)) {
        io->error.sys = EIO;
        return;
    }
    io->error.sys = 0;
    if (io->kind == ENV_IO_READ) {
        uint64_t left = io->offset < inode->size ? inode->size - io->offset : 0;
        io->progress = left < io->limit ? (size_t)left : io->limit;
        memcpy(io->data, inode->seen + io->offset, io->progress);
        return;
    }
    CHECK(io->offset + io->limit <= inode->size); /* into prepared space only */
    memcpy(inode->seen + io->offset, io->data, io->limit);
    memcpy(inode->durable + io->offset, io->data, io->limit);
    io->progress = io->limit;
}

/* Ends the oldest one in flight: sys 0 or an errno (then it has no effect). False: there is none. */
static inline bool fake_end_io(struct fake_env *fake, int sys) {
    struct list *node = list_pop_front(&fake->ios);
    if (node == NULL) {
        return false;
    }
    struct env_io *io = LIST_ENTRY(node, struct env_io, link);
    if (sys == 0) {
        fake_carry_out(fake, io);
    } else {
        io->error.sys = sys;
    }
    list_push_back(&fake->done_ios, &io->link);
    return true;
}

/* Turns, jobs and I/O until nothing is left to do; time stands still. */
static inline void fake_settle(struct fake_env *fake) {
    for (;;) {
        fake_turn(fake);
        bool more = fake_run_work(fake);
        more = fake_end_io(fake, 0) || more;
        if (!more && list_is_empty(&fake->done_ios) && !env__loop_has_messages(&fake->loop)) {
            return;
        }
    }
}

/* ---- Crashing --------------------------------------------------------------------------------------------------- */

static inline void fake_choose_sector(struct fake_env *fake, uint8_t *durable, const uint8_t *seen) {
    if (memcmp(durable, seen, FAKE_SECTOR) != 0 && random_chance(&fake->random, 1, 2)) {
        memcpy(durable, seen, FAKE_SECTOR);
    }
}

/* What a power loss leaves. Call while the write in flight is still in flight: it may have got anywhere. */
static inline void fake_lose_power(struct fake_env *fake) {
    LIST_FOREACH (node, &fake->ios) {
        struct env_io *io = LIST_ENTRY(node, struct env_io, link);
        struct fake_inode *inode = CONTAINER_OF(io->file, struct fake_file, base)->inode;
        for (size_t at = 0; io->kind == ENV_IO_WRITE_DSYNC && at < io->len; at += FAKE_SECTOR) {
            fake_choose_sector(fake, inode->durable + io->offset + at, (const uint8_t *)io->data + at);
        }
    }
    for (size_t i = 0; i < fake->inode_count; i++) {
        struct fake_inode *inode = fake->inodes[i];
        for (uint64_t at = 0; at < inode->size; at += FAKE_SECTOR) {
            fake_choose_sector(fake, inode->durable + at, inode->seen + at);
        }
        if (inode->size != inode->durable_size && random_chance(&fake->random, 1, 2)) {
            inode->durable_size = inode->size;
        }
    }
    /* Names: each difference is kept or lost. */
    struct fake_names names = fake->durable;
    for (size_t i = 0; i < fake->seen.count; i++) {
        struct fake_name *name = fake_find(&fake->durable, fake->seen.list[i].path);
        bool differs = name == NULL || name->inode != fake->seen.list[i].inode;
        if (differs && random_chance(&fake->random, 1, 2)) {
            fake_put(&names, fake->seen.list[i].path, fake->seen.list[i].inode);
        }
    }
    for (size_t i = 0; i < fake->durable.count; i++) {
        if (fake_find(&fake->seen, fake->durable.list[i].path) == NULL && random_chance(&fake->random, 1, 2)) {
            fake_take(&names, fake->durable.list[i].path);
        }
    }
    fake->durable = names;
}

/* After fake_lose_power and after the log was closed in the dead world: boots on the image. */
static inline void fake_reboot(struct fake_env *fake) {
    fake_shut(fake);
    fake->seen = fake->durable;
    for (size_t i = 0; i < fake->inode_count; i++) {
        struct fake_inode *inode = fake->inodes[i];
        inode->size = inode->durable_size;
        if (inode->capacity > 0) {
            memset(inode->durable + inode->size, 0, inode->capacity - inode->size);
            memcpy(inode->seen, inode->durable, inode->capacity);
        }
    }
    fake_boot(fake);
}

#endif
