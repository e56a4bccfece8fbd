/*
 * What blob.c, inode.c, names.c and power.c share.
 *
 * References: an inode is held by live entries, durable entries, journal operations and open files; without any it
 * goes.
 */
#ifndef HOLDFAST_SIM_DISK_INTERNAL_H
#define HOLDFAST_SIM_DISK_INTERNAL_H

#include "node/base/check.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim_internal.h"

/* ---- Sparse bytes (blob.c): what was never written reads as zero ------------------------------------------------ */

struct blob {
    uint8_t **chunks;
    size_t chunk_count;
};

void sim__blob_read(const struct blob *blob, void *data, size_t len, uint64_t offset);
void sim__blob_write(struct blob *blob, const void *data, size_t len, uint64_t offset);
/* Everything from offset on becomes zero. */
void sim__blob_cut(struct blob *blob, uint64_t offset);
/* to becomes equal to from. */
void sim__blob_copy(struct blob *to, const struct blob *from);
void sim__blob_free(struct blob *blob);

/* ---- Inodes ----------------------------------------------------------------------------------------------------- */

struct name_entry {
    char *name;
    struct sim_inode *inode;
};

/* Sorted by name. */
struct name_map {
    struct name_entry *entries;
    size_t count;
    size_t capacity;
};

/* A step from the durable image towards the live one: new sectors, or a new size. */
struct change {
    struct list link;
    uint64_t sequence;
    bool is_size;
    uint64_t size_bytes;   /* is_size */
    uint64_t first_sector; /* else */
    uint32_t sector_count;
    uint32_t gone_count;
    bool *gone; /* sectors that no longer wait: durable meanwhile, or dropped */
    uint8_t *data;
};

struct sim_inode {
    struct sim_disk *disk;
    struct list link; /* disk->inodes, or disk->dying */
    uint64_t id;
    uint32_t refs;
    bool is_dir;
    bool marked; /* while sync_dir collects */

    struct blob live;
    struct blob durable;
    uint64_t live_size;
    uint64_t durable_size;
    struct list changes;
    void *lock_holder;
    uint64_t lock_until_us;

    struct name_map live_names;
    struct name_map durable_names;
};

/* One atomic operation of the journal: entries set (inode) or removed (NULL). */
struct name_change {
    struct sim_inode *dir;
    char *name;
    struct sim_inode *inode;
};

struct name_operation {
    struct list link;
    uint64_t sequence;
    bool selected;
    unsigned change_count;
    struct name_change changes[2];
};

struct sim_disk {
    uint32_t sector_bytes;
    uint64_t sequence;
    uint64_t inode_sequence;
    uint64_t used_bytes;
    uint64_t pending_bytes;
    uint64_t pending_names;
    struct list inodes; /* in order of creation */
    struct list dying;
    bool reaping;
    struct list journal; /* name_operation, oldest first */
    struct sim_inode *root;
};

struct sim_inode *sim__inode_new(struct sim_disk *disk, bool is_dir);
/* Frees what nothing refers to any more. */
void sim__disk_reap(struct sim_disk *disk);
/* Applies a change to the durable image. */
void sim__change_apply(struct sim_inode *inode, const struct change *change);
/* Takes it off the list and frees it. */
void sim__change_drop(struct sim_inode *inode, struct change *change);
void sim__inode_set_live_size(struct sim_inode *inode, uint64_t size_bytes);

void sim__names_free(struct name_map *map);
/* to becomes equal to from. */
void sim__names_copy(struct name_map *to, const struct name_map *from);
void sim__operation_apply_durable(struct name_operation *operation);
void sim__operation_drop(struct sim_disk *disk, struct name_operation *operation);

#endif
