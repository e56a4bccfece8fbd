/*
 * A disk that can be looked at as power losses would leave it: a file system in user space with one file, `image`, for
 * a loop device to lie on.
 *
 *   holdfast-power-disk MOUNTPOINT DIR SIZE_MIB EVERY SNAPSHOTS SEED
 *
 * DIR/live holds what was written, DIR/durable what it was at the last sync, and memory what lies between. At every
 * EVERY-th sync, before it takes effect, a snapshot is made: DIR/snapshot-N is the durable image with some of the
 * blocks written since (none, all, or each by the toss of a coin, some of them torn), DIR/before-N and DIR/after-N are
 * copies of DIR/state, the writer's own account, from before and after. Ends with the mount, or after SNAPSHOTS of
 * them by making no more.
 *
 * The loop device turns flushes of the file system above into fsync here; a write with FUA comes as write and fsync.
 * One thread.
 */
#define FUSE_USE_VERSION 31
#include <fuse.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096, SECTOR_BYTES = 512, PATH_BYTES = 512 };

struct disk {
    char dir[PATH_BYTES];
    uint64_t size_bytes;
    uint64_t every;
    uint64_t snapshots_left;
    uint64_t random;
    uint64_t syncs;
    uint64_t snapshots;
    int live;
    int durable;
    uint8_t *dirty; /* a bit per block: written since the last sync */
};

static struct disk disk;

/* ---- Small things ----------------------------------------------------------------------------------------------- */

static _Noreturn void die(const char *what) {
    perror(what);
    exit(1);
}

/* xorshift64*, G. Marsaglia and S. Vigna */
static uint64_t draw(void) {
    disk.random ^= disk.random >> 12;
    disk.random ^= disk.random << 25;
    disk.random ^= disk.random >> 27;
    return disk.random * 0x2545f4914f6cdd1dULL;
}

static int open_in_dir(const char *name, int flags) {
    char path[PATH_BYTES + 64];
    (void)snprintf(path, sizeof path, "%s/%s", disk.dir, name);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0) {
        die(path);
    }
    return fd;
}

static void copy_block(int from, int to, uint64_t block, size_t len) {
    uint8_t bytes[BLOCK_BYTES];
    if (pread(from, bytes, len, (off_t)(block * BLOCK_BYTES)) != (ssize_t)len ||
        pwrite(to, bytes, len, (off_t)(block * BLOCK_BYTES)) != (ssize_t)len) {
        die("copying a block");
    }
}

static bool is_dirty(uint64_t block) { return (disk.dirty[block / 8] >> (block % 8) & 1) != 0; }

/* ---- Snapshots -------------------------------------------------------------------------------------------------- */

static void copy_state(const char *kind) {
    char name[64];
    char bytes[256];
    (void)snprintf(name, sizeof name, "%s-%llu", kind, (unsigned long long)disk.snapshots);
    int from = open_in_dir("state", O_RDONLY | O_CREAT);
    int to = open_in_dir(name, O_WRONLY | O_CREAT | O_TRUNC);
    ssize_t len = read(from, bytes, sizeof bytes);
    if (len < 0 || write(to, bytes, (size_t)len) != len) {
        die("copying the state");
    }
    (void)close(from);
    (void)close(to);
}

/* Holes stay holes. */
static void copy_durable(int to) {
    uint8_t bytes[64 * 1024];
    off_t data = 0;
    while ((data = lseek(disk.durable, data, SEEK_DATA)) >= 0) {
        off_t end = lseek(disk.durable, data, SEEK_HOLE);
        while (data < end) {
            size_t len = (size_t)(end - data) < sizeof bytes ? (size_t)(end - data) : sizeof bytes;
            if (pread(disk.durable, bytes, len, data) != (ssize_t)len || pwrite(to, bytes, len, data) != (ssize_t)len) {
                die("copying the image");
            }
            data += (off_t)len;
        }
    }
}

static void snapshot(void) {
    char name[64];
    disk.snapshots++;
    disk.snapshots_left--;
    copy_state("before");
    (void)snprintf(name, sizeof name, "snapshot-%llu", (unsigned long long)disk.snapshots);
    int to = open_in_dir(name, O_RDWR | O_CREAT | O_TRUNC);
    if (ftruncate(to, (off_t)disk.size_bytes) != 0) {
        die("making a snapshot");
    }
    copy_durable(to);
    uint64_t mode = draw() % 4; /* nothing of it, all of it, or by the block */
    for (uint64_t block = 0; mode > 0 && block < disk.size_bytes / BLOCK_BYTES; block++) {
        if (is_dirty(block) && (mode == 1 || draw() % 2 == 0)) {
            bool torn = mode == 3 && draw() % 8 == 0;
            copy_block(disk.live, to, block, torn ? SECTOR_BYTES * (1 + draw() % 7) : BLOCK_BYTES);
        }
    }
    (void)close(to);
    copy_state("after");
}

/* ---- The file system -------------------------------------------------------------------------------------------- */

static bool is_image(const char *path) { return strcmp(path, "/image") == 0; }

static int disk_getattr(const char *path, struct stat *status, struct fuse_file_info *info) {
    (void)info;
    memset(status, 0, sizeof *status);
    if (strcmp(path, "/") == 0) {
        status->st_mode = S_IFDIR | 0700;
        status->st_nlink = 2;
        return 0;
    }
    if (!is_image(path)) {
        return -ENOENT;
    }
    status->st_mode = S_IFREG | 0600;
    status->st_nlink = 1;
    status->st_size = (off_t)disk.size_bytes;
    return 0;
}

static int disk_open(const char *path, struct fuse_file_info *info) {
    (void)info;
    return is_image(path) ? 0 : -ENOENT;
}

static int disk_read(const char *path, char *data, size_t len, off_t offset, struct fuse_file_info *info) {
    (void)path;
    (void)info;
    ssize_t count = pread(disk.live, data, len, offset);
    return count < 0 ? -errno : (int)count;
}

static int disk_write(const char *path, const char *data, size_t len, off_t offset, struct fuse_file_info *info) {
    (void)path;
    (void)info;
    if (offset < 0 || (uint64_t)offset + len > disk.size_bytes) {
        return -ENOSPC;
    }
    ssize_t count = pwrite(disk.live, data, len, offset);
    if (count < 0) {
        return -errno;
    }
    for (uint64_t block = (uint64_t)offset / BLOCK_BYTES; block * BLOCK_BYTES < (uint64_t)offset + (size_t)count;
         block++) {
        disk.dirty[block / 8] |= (uint8_t)(1 << block % 8);
    }
    return (int)count;
}

static int disk_fsync(const char *path, int only_data, struct fuse_file_info *info) {
    (void)path;
    (void)only_data;
    (void)info;
    disk.syncs++;
    if (disk.snapshots_left > 0 && disk.syncs % disk.every == 0) {
        snapshot();
    }
    for (uint64_t block = 0; block < disk.size_bytes / BLOCK_BYTES; block++) {
        if (is_dirty(block)) {
            copy_block(disk.live, disk.durable, block, BLOCK_BYTES);
        }
    }
    memset(disk.dirty, 0, disk.size_bytes / BLOCK_BYTES / 8 + 1);
    return 0;
}

static const struct fuse_operations operations = {
    .getattr = disk_getattr, .open = disk_open, .read = disk_read, .write = disk_write, .fsync = disk_fsync};

int main(int argc, char **argv) {
    if (argc != 7) {
        (void)fprintf(stderr, "usage: %s MOUNTPOINT DIR SIZE_MIB EVERY SNAPSHOTS SEED\n", argv[0]);
        return 2;
    }
    (void)snprintf(disk.dir, sizeof disk.dir, "%s", argv[2]);
    disk.size_bytes = strtoull(argv[3], NULL, 10) << 20;
    disk.every = strtoull(argv[4], NULL, 10);
    disk.snapshots_left = strtoull(argv[5], NULL, 10);
    disk.random = strtoull(argv[6], NULL, 10) * 0x9e3779b97f4a7c15ULL + 1;
    disk.dirty = calloc(disk.size_bytes / BLOCK_BYTES / 8 + 1, 1);
    if (disk.dirty == NULL || disk.every == 0) {
        die("starting");
    }
    disk.live = open_in_dir("live", O_RDWR);
    disk.durable = open_in_dir("durable", O_RDWR);
    char *fuse_words[] = {argv[0], (char[]){"-f"}, (char[]){"-s"}, argv[1], NULL};
    return fuse_main(4, fuse_words, &operations, NULL);
}
