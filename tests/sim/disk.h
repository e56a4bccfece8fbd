/*
 * A disk under a page cache, as bytes: what a process sees, what is durable, and what lies between. No time, no env, no
 * faults: file.c and io.c add those.
 *
 * Files. Each has a live image (what reads see) and a durable one, and a list of changes between the two, oldest first:
 * whole sectors of new content, and sizes. Syncing applies changes to the durable image. A power loss decides for each
 * unsynced sector: kept, lost, torn or garbled; and how far the file's size got.
 *
 * Names. Each directory has live and durable entries; operations (create, rename, link, unlink, mkdir) form one
 * journal. Syncing a directory makes its operations durable, and those that they depend on. A power loss keeps a prefix
 * of the rest.
 *
 * Memory is the simulator's and never fails. Paths: '/' between names, "" and "." are skipped, ".." is known only at
 * the end; everything is relative to the root.
 */
#ifndef HOLDFAST_SIM_DISK_H
#define HOLDFAST_SIM_DISK_H

#include "node/base/list.h"
#include "node/base/random.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_disk;
struct sim_disk_options;
struct sim_inode;

enum { SIM_NAME_BYTES_MAX = 255 };

struct sim_disk *sim__disk_new(uint32_t sector_bytes);
/* All handles must have been released. */
void sim__disk_free(struct sim_disk *disk);

/* What happened from now on isn't covered by a sync that was asked for at this point. */
uint64_t sim__disk_sequence(const struct sim_disk *disk);
/* Bytes that files occupy, unlinked ones that are still held included. */
uint64_t sim__disk_used_bytes(const struct sim_disk *disk);
void sim__disk_get_pending(const struct sim_disk *disk, uint64_t *ret_bytes, uint64_t *ret_names);

/* ---- Names (names.c): 0 or an errno ----------------------------------------------------------------------------- */

/* NULL if there is none. */
struct sim_inode *sim__disk_find(struct sim_disk *disk, const char *path);
int sim__disk_create(struct sim_disk *disk, const char *path, bool is_dir, struct sim_inode **ret_inode);
int sim__disk_rename(struct sim_disk *disk, const char *from, const char *to);
int sim__disk_link(struct sim_disk *disk, const char *from, const char *to);
int sim__disk_unlink(struct sim_disk *disk, const char *path);
/* Operations on this directory before `sequence` become durable. */
void sim__disk_sync_dir(struct sim_disk *disk, struct sim_inode *dir, uint64_t sequence);
size_t sim__dir_count(const struct sim_inode *dir);
/* In memcmp order. */
const char *sim__dir_name(const struct sim_inode *dir, size_t position);

/* ---- Files (inode.c) -------------------------------------------------------------------------------------------- */

bool sim__inode_is_dir(const struct sim_inode *inode);
uint64_t sim__inode_id(const struct sim_inode *inode);
uint64_t sim__inode_size(const struct sim_inode *inode);
/* An open file holds its inode. */
void sim__inode_ref(struct sim_inode *inode);
void sim__inode_unref(struct sim_inode *inode);
/* Advisory lock. */
void **sim__inode_lock_holder(struct sim_inode *inode);
uint64_t *sim__inode_lock_until_us(struct sim_inode *inode);

/* Returns how many bytes there were. */
size_t sim__inode_read(const struct sim_inode *inode, void *data, size_t len, uint64_t offset);
/* durable: this write is on the disk on return, others of the file needn't be (RWF_DSYNC). */
void sim__inode_write(struct sim_inode *inode, const void *data, size_t len, uint64_t offset, bool durable);
void sim__inode_truncate(struct sim_inode *inode, uint64_t size_bytes);
/* Changes before `sequence` become durable. */
void sim__inode_sync(struct sim_inode *inode, uint64_t sequence);
/* A sync that failed: some dirty sectors stay dirty, others are clean but not on the disk; of those the cache keeps the
 * new content or falls back to the old. */
void sim__inode_sync_failed(struct sim_inode *inode, struct random *random);
void sim__inode_corrupt(struct sim_inode *inode, uint64_t offset, uint64_t len, struct random *random);

/* ---- Power loss (power.c) --------------------------------------------------------------------------------------- */

struct sim_disk_loss {
    uint64_t sectors_kept, sectors_lost, sectors_torn, sectors_garbled;
    uint64_t names_kept, names_lost;
};

/* No handles are held. Adds to *loss. */
void sim__disk_lose_power(struct sim_disk *disk, const struct sim_disk_options *options, struct random *random,
                          struct sim_disk_loss *loss);

#endif
