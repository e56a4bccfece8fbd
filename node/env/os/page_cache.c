/*
 * Files through the page cache: reads that never wait, and mappings.
 *
 * RWF_NOWAIT isn't known to every file system, and a kernel or a sandbox may refuse preadv2: the first such answer is
 * remembered with the file, and from then on every read is PENDING without a system call.
 */
#include "node/env/os/os_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

static bool is_refusal(int sys) { return sys == EOPNOTSUPP || sys == ENOSYS || sys == EPERM; }

enum status os_page_cache__pread_nowait(struct env_file *base, void *data, size_t len, uint64_t offset,
                                        struct error *err) {
    struct os_file *file = os_file_of(base);
    if (file->wants_direct || len > OS_CHUNK_BYTES ||
        atomic_load_explicit(&file->refuses_nowait, memory_order_relaxed)) {
        return STATUS_PENDING;
    }
    struct iovec part = {.iov_base = data, .iov_len = len};
    ssize_t got = preadv2(file->fd, &part, 1, (off_t)offset, RWF_NOWAIT);
    if (got >= 0) {
        return (size_t)got == len ? STATUS_OK : STATUS_PENDING;
    }
    int sys = errno;
    if (sys == EAGAIN || sys == EINTR) {
        return STATUS_PENDING;
    }
    if (is_refusal(sys)) {
        atomic_store_explicit(&file->refuses_nowait, true, memory_order_relaxed);
        return STATUS_PENDING;
    }
    return error_set_sys(err, sys, "read %s at %" PRIu64, base->path, offset);
}

enum status os_page_cache__map(struct env_file *base, size_t len, void **ret_data, struct error *err) {
    os_loop__check_may_block("env_map");
    struct os_file *file = os_file_of(base);
    CHECK(!file->wants_direct);
    struct stat info;
    if (fstat(file->fd, &info) != 0) {
        return error_set_sys(err, errno, "map %s", base->path);
    }
    if ((uint64_t)info.st_size < len) {
        return error_set(err, STATUS_INVALID, "map %s: it has %" PRIu64 " of %zu bytes", base->path,
                         (uint64_t)info.st_size, len);
    }
    void *data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file->fd, 0);
    if (data == MAP_FAILED) {
        return error_set_sys(err, errno, "map %s", base->path);
    }
    *ret_data = data;
    return STATUS_OK;
}

void os_page_cache__unmap(struct env_file *base, void *data, size_t len) {
    (void)base;
    os_loop__check_may_block("env_unmap");
    CHECK(munmap(data, len) == 0);
}
