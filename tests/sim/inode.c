/*
 * Files of the simulated disk: live and durable images, and the changes that wait between them.
 *
 * Invariants: live = durable + changes in order; both images are zero beyond their sizes; a sector of a change that is
 * `gone` is never applied. A change holds whole sectors as the cache had them, so a later one of the same sector
 * includes the earlier ones.
 */
#include "tests/sim/disk_internal.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 4096, CORRUPT_BYTES_MAX = 8, PENDING_BYTES_MAX = 64 * 1024 * 1024 };

struct sim_inode *sim__inode_new(struct sim_disk *disk, bool is_dir) {
    struct sim_inode *inode = sim__alloc(sizeof *inode);
    inode->disk = disk;
    inode->id = ++disk->inode_sequence;
    inode->is_dir = is_dir;
    list_init(&inode->changes);
    list_push_back(&disk->inodes, &inode->link);
    return inode;
}

void sim__inode_ref(struct sim_inode *inode) { inode->refs++; }

static void inode_free(struct sim_inode *inode) {
    LIST_FOREACH (link, &inode->changes) {
        sim__change_drop(inode, LIST_ENTRY(link, struct change, link));
    }
    sim__inode_set_live_size(inode, 0);
    sim__blob_free(&inode->live);
    sim__blob_free(&inode->durable);
    sim__names_free(&inode->live_names);
    sim__names_free(&inode->durable_names);
    sim__free(inode);
}

/* Freeing a directory lets go of others: they queue up instead of nesting. */
void sim__disk_reap(struct sim_disk *disk) {
    disk->reaping = true;
    struct list *link;
    while ((link = list_pop_front(&disk->dying)) != NULL) {
        inode_free(LIST_ENTRY(link, struct sim_inode, link));
    }
    disk->reaping = false;
}

void sim__inode_unref(struct sim_inode *inode) {
    CHECK(inode->refs > 0);
    if (--inode->refs > 0) {
        return;
    }
    list_remove(&inode->link);
    list_push_back(&inode->disk->dying, &inode->link);
    if (!inode->disk->reaping) {
        sim__disk_reap(inode->disk);
    }
}

bool sim__inode_is_dir(const struct sim_inode *inode) { return inode->is_dir; }
uint64_t sim__inode_id(const struct sim_inode *inode) { return inode->id; }
uint64_t sim__inode_size(const struct sim_inode *inode) { return inode->live_size; }
void **sim__inode_lock_holder(struct sim_inode *inode) { return &inode->lock_holder; }
uint64_t *sim__inode_lock_until_us(struct sim_inode *inode) { return &inode->lock_until_us; }

static uint64_t blocks_bytes(uint64_t size_bytes) { return (size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES; }

void sim__inode_set_live_size(struct sim_inode *inode, uint64_t size_bytes) {
    inode->disk->used_bytes += blocks_bytes(size_bytes) - blocks_bytes(inode->live_size);
    inode->live_size = size_bytes;
}

/* ---- Changes ---------------------------------------------------------------------------------------------------- */

static void add_size_change(struct sim_inode *inode) {
    struct change *change = sim__alloc(sizeof *change);
    change->sequence = inode->disk->sequence++;
    change->is_size = true;
    change->size_bytes = inode->live_size;
    list_push_back(&inode->changes, &change->link);
}

/* The sectors that hold [offset, offset + len), as they are in the live image. */
static struct change *add_sector_change(struct sim_inode *inode, uint64_t offset, size_t len) {
    uint64_t sector_bytes = inode->disk->sector_bytes;
    struct change *change = sim__alloc(sizeof *change);
    change->sequence = inode->disk->sequence++;
    change->first_sector = offset / sector_bytes;
    change->sector_count = (uint32_t)((offset + len + sector_bytes - 1) / sector_bytes - change->first_sector);
    change->gone = sim__alloc(change->sector_count * sizeof(bool));
    change->data = malloc(change->sector_count * sector_bytes);
    CHECK(change->data != NULL);
    sim__blob_read(&inode->live, change->data, change->sector_count * sector_bytes,
                   change->first_sector * sector_bytes);
    list_push_back(&inode->changes, &change->link);
    inode->disk->pending_bytes += change->sector_count * sector_bytes;
    return change;
}

static void mark_gone(struct sim_inode *inode, struct change *change, uint32_t sector) {
    if (!change->gone[sector]) {
        change->gone[sector] = true;
        change->gone_count++;
        inode->disk->pending_bytes -= inode->disk->sector_bytes;
    }
}

void sim__change_drop(struct sim_inode *inode, struct change *change) {
    if (!change->is_size) {
        inode->disk->pending_bytes -= (uint64_t)(change->sector_count - change->gone_count) * inode->disk->sector_bytes;
    }
    list_remove(&change->link);
    sim__free(change->gone);
    sim__free(change->data);
    sim__free(change);
}

void sim__change_apply(struct sim_inode *inode, const struct change *change) {
    if (change->is_size) {
        if (change->size_bytes < inode->durable_size) {
            sim__blob_cut(&inode->durable, change->size_bytes);
        }
        inode->durable_size = change->size_bytes;
        return;
    }
    uint64_t sector_bytes = inode->disk->sector_bytes;
    for (uint32_t i = 0; i < change->sector_count; i++) {
        if (!change->gone[i]) {
            sim__blob_write(&inode->durable, change->data + i * sector_bytes, sector_bytes,
                            (change->first_sector + i) * sector_bytes);
        }
    }
}

/* No earlier version of sectors first..end (exclusive) may reach the disk any more. */
static void supersede(struct sim_inode *inode, const struct change *before, uint64_t first, uint64_t end) {
    for (struct list *link = inode->changes.next; link != &before->link;) {
        struct change *older = LIST_ENTRY(link, struct change, link);
        link = link->next;
        if (older->is_size) {
            continue;
        }
        for (uint32_t i = 0; i < older->sector_count; i++) {
            if (older->first_sector + i >= first && older->first_sector + i < end) {
                mark_gone(inode, older, i);
            }
        }
        if (older->gone_count == older->sector_count) {
            sim__change_drop(inode, older);
        }
    }
}

/* All sizes so far become durable: one inode holds them. */
static void commit_sizes(struct sim_inode *inode) {
    uint64_t sector_bytes = inode->disk->sector_bytes;
    LIST_FOREACH (link, &inode->changes) {
        struct change *change = LIST_ENTRY(link, struct change, link);
        if (change->is_size) {
            supersede(inode, change, (change->size_bytes + sector_bytes - 1) / sector_bytes, UINT64_MAX);
            sim__change_apply(inode, change);
            sim__change_drop(inode, change);
        }
    }
}

/* ---- What a process does ---------------------------------------------------------------------------------------- */

size_t sim__inode_read(const struct sim_inode *inode, void *data, size_t len, uint64_t offset) {
    uint64_t left = offset < inode->live_size ? inode->live_size - offset : 0;
    size_t count = left < len ? (size_t)left : len;
    sim__blob_read(&inode->live, data, count, offset);
    return count;
}

void sim__inode_write(struct sim_inode *inode, const void *data, size_t len, uint64_t offset, bool durable) {
    CHECK(!inode->is_dir);
    if (len == 0) {
        return;
    }
    sim__blob_write(&inode->live, data, len, offset);
    struct change *change = add_sector_change(inode, offset, len);
    if (offset + len > inode->live_size) {
        sim__inode_set_live_size(inode, offset + len);
        add_size_change(inode);
    }
    if (durable) {
        commit_sizes(inode);
        supersede(inode, change, change->first_sector, change->first_sector + change->sector_count);
        sim__change_apply(inode, change);
        sim__change_drop(inode, change);
    }
    if (inode->disk->pending_bytes > PENDING_BYTES_MAX) {
        sim__inode_sync(inode, inode->disk->sequence); /* the kernel writes back when too much is dirty */
    }
}

void sim__inode_truncate(struct sim_inode *inode, uint64_t size_bytes) {
    CHECK(!inode->is_dir);
    if (size_bytes == inode->live_size) {
        return;
    }
    bool shrinks = size_bytes < inode->live_size;
    sim__inode_set_live_size(inode, size_bytes);
    if (shrinks) {
        sim__blob_cut(&inode->live, size_bytes);
        if (size_bytes % inode->disk->sector_bytes != 0) {
            (void)add_sector_change(inode, size_bytes - 1, 1); /* its tail is zero now */
        }
    }
    add_size_change(inode);
}

void sim__inode_sync(struct sim_inode *inode, uint64_t sequence) {
    LIST_FOREACH (link, &inode->changes) {
        struct change *change = LIST_ENTRY(link, struct change, link);
        if (change->sequence >= sequence) {
            return;
        }
        sim__change_apply(inode, change);
        sim__change_drop(inode, change);
    }
}

static bool is_dirty(struct sim_inode *inode, uint64_t sector) {
    LIST_FOREACH (link, &inode->changes) {
        const struct change *change = LIST_ENTRY(link, struct change, link);
        if (!change->is_size && sector >= change->first_sector &&
            sector - change->first_sector < change->sector_count && !change->gone[sector - change->first_sector]) {
            return true;
        }
    }
    return false;
}

/* The cache forgets a sector and reads it from the disk again. */
static void fall_back(struct sim_inode *inode, uint64_t sector) {
    uint64_t sector_bytes = inode->disk->sector_bytes;
    uint8_t *old = sim__alloc(sector_bytes);
    sim__blob_read(&inode->durable, old, sector_bytes, sector * sector_bytes);
    sim__blob_write(&inode->live, old, sector_bytes, sector * sector_bytes);
    sim__blob_cut(&inode->live, inode->live_size);
    sim__free(old);
}

void sim__inode_sync_failed(struct sim_inode *inode, struct random *random) {
    bool falls_back = random_chance(random, 1, 2);
    LIST_FOREACH (link, &inode->changes) {
        struct change *change = LIST_ENTRY(link, struct change, link);
        for (uint32_t i = 0; !change->is_size && i < change->sector_count; i++) {
            if (change->gone[i] || random_chance(random, 1, 2)) {
                continue;
            }
            mark_gone(inode, change, i);
            if (falls_back && !is_dirty(inode, change->first_sector + i)) {
                fall_back(inode, change->first_sector + i);
            }
        }
        if (!change->is_size && change->gone_count == change->sector_count) {
            sim__change_drop(inode, change);
        }
    }
}

/* ---- Latent corruption ------------------------------------------------------------------------------------------ */

static void corrupt_changes(struct sim_inode *inode, uint64_t position, uint8_t mask) {
    uint64_t sector_bytes = inode->disk->sector_bytes;
    LIST_FOREACH (link, &inode->changes) {
        struct change *change = LIST_ENTRY(link, struct change, link);
        uint64_t start = change->first_sector * sector_bytes;
        if (!change->is_size && position >= start && position - start < change->sector_count * sector_bytes) {
            change->data[position - start] ^= mask;
        }
    }
}

static void corrupt_blob(struct blob *blob, uint64_t position, uint8_t mask) {
    uint8_t byte;
    sim__blob_read(blob, &byte, 1, position);
    byte ^= mask;
    sim__blob_write(blob, &byte, 1, position);
}

void sim__inode_corrupt(struct sim_inode *inode, uint64_t offset, uint64_t len, struct random *random) {
    CHECK(len > 0 && offset + len <= inode->live_size);
    uint64_t count = 1 + random_below(random, len < CORRUPT_BYTES_MAX ? len : CORRUPT_BYTES_MAX);
    uint64_t start = offset + random_below(random, len - count + 1);
    for (uint64_t position = start; position < start + count; position++) {
        uint8_t mask = (uint8_t)(1 + random_below(random, UINT8_MAX));
        corrupt_blob(&inode->live, position, mask);
        if (position < inode->durable_size) {
            corrupt_blob(&inode->durable, position, mask);
        }
        corrupt_changes(inode, position, mask);
    }
}
