/*
 * Blocking files: thin, checked wrappers of the system calls. For workers and threads that run no loop; each call
 * asserts it.
 *
 * O_DIRECT is set after the open, so that a file system that refuses it leaves a good buffered handle. Alignment is
 * asserted either way: a mistake shows on every file system.
 */
#include "node/env/os/os_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MODE_FILE = 0640, MODE_DIR = 0750, LOCK_WAIT_MS = 1000, LOCK_STEP_MS = 20, STREAM_BEHIND_BYTES = 4 << 20 };

static_assert(OS_CHUNK_BYTES % ENV_BLOCK_BYTES == 0, "chunks keep O_DIRECT aligned");

static enum status file_new(struct env *env, const char *path, int fd, struct env_file **ret_file, struct error *err) {
    size_t path_bytes = strlen(path) + 1;
    struct os_file *file = mem_alloc_zero(env->alloc, sizeof *file + path_bytes);
    if (file == NULL) {
        (void)close(fd);
        return error_set(err, STATUS_NO_MEMORY, "open %s: out of memory", path);
    }
    file->base.env = env;
    file->base.path = (char *)(file + 1);
    memcpy(file->base.path, path, path_bytes);
    file->fd = fd;
    *ret_file = &file->base;
    return STATUS_OK;
}

static int open_retried(const char *path, int flags, mode_t mode) {
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static int open_flags(unsigned flags) {
    bool reads = (flags & ENV_OPEN_READ) != 0;
    bool writes = (flags & ENV_OPEN_WRITE) != 0;
    int result = reads && writes ? O_RDWR : writes ? O_WRONLY : O_RDONLY;
    result |= (flags & ENV_OPEN_CREATE) != 0 ? O_CREAT : 0;
    result |= (flags & ENV_OPEN_EXCLUSIVE) != 0 ? O_EXCL : 0;
    result |= (flags & ENV_OPEN_TRUNCATE) != 0 ? O_TRUNC : 0;
    return result;
}

static bool set_direct(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
}

static enum status files_open(struct env *env, const char *path, unsigned flags, struct env_file **ret_file,
                              struct error *err) {
    os_loop__check_may_block("env_open");
    int fd = open_retried(path, open_flags(flags), MODE_FILE);
    if (fd < 0) {
        return error_set_sys(err, errno, "open %s", path);
    }
    bool wants_direct = (flags & ENV_OPEN_DIRECT) != 0;
    bool is_direct = wants_direct && set_direct(fd);
    enum status status = file_new(env, path, fd, ret_file, err);
    if (status == STATUS_OK) {
        os_file_of(*ret_file)->is_direct = is_direct;
        os_file_of(*ret_file)->wants_direct = wants_direct;
        os_file_of(*ret_file)->is_stream = (flags & ENV_OPEN_STREAM) != 0;
    }
    return status;
}

static void files_close(struct env_file *base) {
    os_loop__check_may_block("env_close");
    struct os_file *file = os_file_of(base);
    (void)close(file->fd);
    mem_free(base->env->alloc, file);
}

void os_file__check_aligned(const struct os_file *file, const void *data, size_t len, uint64_t offset) {
    if (file->wants_direct) {
        CHECK((uintptr_t)data % ENV_BLOCK_BYTES == 0);
        CHECK(len % ENV_BLOCK_BYTES == 0);
        CHECK(offset % ENV_BLOCK_BYTES == 0);
    }
}

enum os_read_answer os_file__after_short_read(const struct os_file *file, size_t got, uint64_t end_offset,
                                              int *ret_sys) {
    if (got == 0) {
        return OS_READ_END;
    }
    struct stat info;
    if (fstat(file->fd, &info) != 0) {
        *ret_sys = errno;
        return OS_READ_ERROR;
    }
    if (end_offset >= (uint64_t)info.st_size) {
        return OS_READ_END;
    }
    if (file->is_direct && end_offset % ENV_BLOCK_BYTES != 0) {
        *ret_sys = EIO; /* stopped inside a block: the medium failed there */
        return OS_READ_ERROR;
    }
    return OS_READ_MORE;
}

static size_t chunk_of(size_t left) { return left < OS_CHUNK_BYTES ? left : OS_CHUNK_BYTES; }

static enum status files_pread(struct env_file *base, void *data, size_t len, uint64_t offset, size_t *ret_len,
                               struct error *err) {
    os_loop__check_may_block("env_pread");
    struct os_file *file = os_file_of(base);
    os_file__check_aligned(file, data, len, offset);
    size_t done = 0;
    while (done < len) {
        size_t chunk = chunk_of(len - done);
        ssize_t got = pread(file->fd, (uint8_t *)data + done, chunk, (off_t)(offset + done));
        int sys = got < 0 ? errno : 0;
        if (sys == EINTR) {
            continue;
        }
        enum os_read_answer answer = sys != 0 ? OS_READ_ERROR : OS_READ_MORE;
        if (sys == 0) {
            done += (size_t)got;
            if ((size_t)got < chunk) {
                answer = os_file__after_short_read(file, (size_t)got, offset + done, &sys);
            }
        }
        if (answer == OS_READ_ERROR) {
            return error_set_sys(err, sys, "read %s at %" PRIu64, base->path, offset + done);
        }
        if (answer == OS_READ_END) {
            break;
        }
    }
    *ret_len = done;
    return STATUS_OK;
}

/* Each system call of a synced write syncs what it wrote. */
static enum status write_all(struct env_file *base, const void *data, size_t len, uint64_t offset, int rwf_flags,
                             struct error *err) {
    struct os_file *file = os_file_of(base);
    os_file__check_aligned(file, data, len, offset);
    size_t done = 0;
    while (done < len) {
        struct iovec part = {.iov_base = (uint8_t *)data + done, .iov_len = chunk_of(len - done)};
        ssize_t put = pwritev2(file->fd, &part, 1, (off_t)(offset + done), rwf_flags);
        int sys = put < 0 ? errno : put == 0 ? EIO : 0;
        if (sys != 0 && sys != EINTR) {
            return error_set_sys(err, sys, "write %s at %" PRIu64, base->path, offset + done);
        }
        done += put > 0 ? (size_t)put : 0;
    }
    return STATUS_OK;
}

/* Who waits for pages is told of errors in writing them back, and the sync after it isn't told again: so they count
 * here. Where the call isn't known, all is left to the sync. */
static enum status push_out(struct env_file *base, size_t len, uint64_t offset, struct error *err) {
    int fd = os_file_of(base)->fd;
    int failed = sync_file_range(fd, (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE);
    if (failed == 0 && offset >= STREAM_BEHIND_BYTES) {
        failed = sync_file_range(fd, (off_t)(offset - STREAM_BEHIND_BYTES), (off_t)len,
                                 SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    }
    if (failed != 0 && errno != ENOSYS && errno != EINVAL && errno != ESPIPE) {
        return error_set_sys(err, errno, "write %s at %" PRIu64, base->path, offset);
    }
    return STATUS_OK;
}

static enum status files_pwrite(struct env_file *base, const void *data, size_t len, uint64_t offset,
                                struct error *err) {
    os_loop__check_may_block("env_pwrite");
    enum status status = write_all(base, data, len, offset, 0, err);
    if (status == STATUS_OK && os_file_of(base)->is_stream) {
        status = push_out(base, len, offset, err);
    }
    return status;
}

static enum status files_pwrite_dsync(struct env_file *base, const void *data, size_t len, uint64_t offset,
                                      struct error *err) {
    os_loop__check_may_block("env_pwrite_dsync");
    return write_all(base, data, len, offset, RWF_DSYNC, err);
}

static enum status files_sync(struct env_file *base, struct error *err) {
    os_loop__check_may_block("env_sync");
    if (fdatasync(os_file_of(base)->fd) != 0) {
        return error_set_sys(err, errno, "sync %s", base->path);
    }
    return STATUS_OK;
}

static enum status files_size(struct env_file *base, uint64_t *ret_size_bytes, struct error *err) {
    os_loop__check_may_block("env_size");
    struct stat info;
    if (fstat(os_file_of(base)->fd, &info) != 0) {
        return error_set_sys(err, errno, "size of %s", base->path);
    }
    *ret_size_bytes = (uint64_t)info.st_size;
    return STATUS_OK;
}

static enum status files_allocate(struct env_file *base, uint64_t size_bytes, struct error *err) {
    os_loop__check_may_block("env_allocate");
    int result;
    do {
        result = fallocate(os_file_of(base)->fd, 0, 0, (off_t)size_bytes);
    } while (result != 0 && errno == EINTR);
    if (result == 0) {
        return STATUS_OK;
    }
    return errno == EOPNOTSUPP || errno == ENOSYS
               ? error_set(err, STATUS_UNSUPPORTED, "space can't be reserved for %s", base->path)
               : error_set_sys(err, errno, "reserve %" PRIu64 " bytes for %s", size_bytes, base->path);
}

static enum status files_truncate(struct env_file *base, uint64_t size_bytes, struct error *err) {
    os_loop__check_may_block("env_truncate");
    int result;
    do {
        result = ftruncate(os_file_of(base)->fd, (off_t)size_bytes);
    } while (result != 0 && errno == EINTR);
    if (result != 0) {
        return error_set_sys(err, errno, "truncate %s to %" PRIu64, base->path, size_bytes);
    }
    return STATUS_OK;
}

static enum status files_rename(struct env *env, const char *from, const char *to, struct error *err) {
    (void)env;
    os_loop__check_may_block("env_rename");
    return rename(from, to) == 0 ? STATUS_OK : error_set_sys(err, errno, "rename %s to %s", from, to);
}

static enum status files_link(struct env *env, const char *from, const char *to, struct error *err) {
    (void)env;
    os_loop__check_may_block("env_link");
    return link(from, to) == 0 ? STATUS_OK : error_set_sys(err, errno, "link %s to %s", from, to);
}

static enum status files_unlink(struct env *env, const char *path, struct error *err) {
    (void)env;
    os_loop__check_may_block("env_unlink");
    return remove(path) == 0 ? STATUS_OK : error_set_sys(err, errno, "unlink %s", path);
}

static enum status files_mkdir(struct env *env, const char *path, struct error *err) {
    (void)env;
    os_loop__check_may_block("env_mkdir");
    return mkdir(path, MODE_DIR) == 0 ? STATUS_OK : error_set_sys(err, errno, "make directory %s", path);
}

static enum status files_sync_dir(struct env *env, const char *path, struct error *err) {
    (void)env;
    os_loop__check_may_block("env_sync_dir");
    int fd = open_retried(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        return error_set_sys(err, errno, "open directory %s", path);
    }
    int sys = fsync(fd) == 0 ? 0 : errno;
    (void)close(fd);
    return sys == 0 ? STATUS_OK : error_set_sys(err, sys, "sync directory %s", path);
}

/* A directory's names, read whole before the first callback: the caller may unlink what he is shown. */
struct names {
    struct alloc *alloc;
    char **items;
    size_t count;
    size_t capacity;
};

static enum status names_add(struct names *names, const char *name) {
    if (names->count == names->capacity) {
        size_t capacity = names->capacity == 0 ? 64 : names->capacity * 2;
        char **items = mem_resize(names->alloc, names->items, capacity * sizeof *items);
        if (items == NULL) {
            return STATUS_NO_MEMORY;
        }
        names->items = items;
        names->capacity = capacity;
    }
    size_t bytes = strlen(name) + 1;
    char *copy = mem_alloc(names->alloc, bytes);
    if (copy == NULL) {
        return STATUS_NO_MEMORY;
    }
    memcpy(copy, name, bytes);
    names->items[names->count++] = copy;
    return STATUS_OK;
}

static void names_free(struct names *names) {
    for (size_t i = 0; i < names->count; i++) {
        mem_free(names->alloc, names->items[i]);
    }
    mem_free(names->alloc, names->items);
}

static enum status names_read(struct names *names, const char *path, struct error *err) {
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return error_set_sys(err, errno, "list %s", path);
    }
    enum status status = STATUS_OK;
    struct dirent *entry;
    while (errno = 0, status == STATUS_OK && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            names_add(names, entry->d_name) != STATUS_OK) {
            status = error_set(err, STATUS_NO_MEMORY, "list %s: out of memory", path);
        }
    }
    if (status == STATUS_OK && errno != 0) {
        status = error_set_sys(err, errno, "list %s", path);
    }
    (void)closedir(dir);
    return status;
}

/* For names without zero bytes, strcmp is memcmp order. */
static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static enum status files_list_dir(struct env *env, const char *path,
                                  enum status (*each)(void *context, const char *name), void *context,
                                  struct error *err) {
    os_loop__check_may_block("env_list_dir");
    struct names names = {.alloc = env->alloc};
    enum status status = names_read(&names, path, err);
    if (status == STATUS_OK && names.count > 0) {
        qsort(names.items, names.count, sizeof *names.items, compare_names);
    }
    for (size_t i = 0; i < names.count && status == STATUS_OK; i++) {
        status = each(context, names.items[i]);
    }
    names_free(&names);
    return status;
}

/* flock belongs to the open file: it ends with the last descriptor, in the kernel if need be, which after a kill may
 * take tens of milliseconds while operations of the dead process are still under way. */
static enum status files_lock_file(struct env *env, const char *path, struct env_file **ret_file, struct error *err) {
    os_loop__check_may_block("env_lock_file");
    int fd = open_retried(path, O_RDWR | O_CREAT, MODE_FILE);
    if (fd < 0) {
        return error_set_sys(err, errno, "open lock file %s", path);
    }
    int waited_ms = 0;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int sys = errno;
        if (sys == EINTR) {
            continue;
        }
        if (sys != EWOULDBLOCK || waited_ms >= LOCK_WAIT_MS) {
            (void)close(fd);
            return sys == EWOULDBLOCK ? error_set(err, STATUS_BUSY, "%s is locked by another process", path)
                                      : error_set_sys(err, sys, "lock %s", path);
        }
        env_sleep_us(env, (uint64_t)LOCK_STEP_MS * 1000);
        waited_ms += LOCK_STEP_MS;
    }
    return file_new(env, path, fd, ret_file, err);
}

static enum status files_disk_space(struct env *env, const char *path, uint64_t *ret_free_bytes,
                                    uint64_t *ret_total_bytes, struct error *err) {
    (void)env;
    os_loop__check_may_block("env_disk_space");
    struct statvfs info;
    if (statvfs(path, &info) != 0) {
        return error_set_sys(err, errno, "disk space of %s", path);
    }
    *ret_free_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    *ret_total_bytes = (uint64_t)info.f_blocks * info.f_frsize;
    return STATUS_OK;
}

void os_files__fill_ops(struct env_ops *ops) {
    ops->open = files_open;
    ops->close = files_close;
    ops->pread = files_pread;
    ops->pwrite = files_pwrite;
    ops->pwrite_dsync = files_pwrite_dsync;
    ops->sync = files_sync;
    ops->size = files_size;
    ops->truncate = files_truncate;
    ops->allocate = files_allocate;
    ops->rename = files_rename;
    ops->link = files_link;
    ops->unlink = files_unlink;
    ops->mkdir = files_mkdir;
    ops->sync_dir = files_sync_dir;
    ops->list_dir = files_list_dir;
    ops->lock_file = files_lock_file;
    ops->disk_space = files_disk_space;
}
