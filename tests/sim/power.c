/*
 * The disk as a whole, and what a power loss leaves of it.
 *
 * Two ways for data to be lost, drawn once per power loss: in order (everything up to a moment reached the disk), or
 * scattered: each write is kept, lost, or decided sector by sector. Sizes go by prefix per file, names by prefix of the
 * whole journal, as a journaling file system has it.
 */
#include "tests/sim/disk_internal.h"

#include <string.h>

enum { DAMAGE_ONE_IN = 8, SECTOR_BYTES_MAX = 4096 };

struct sim_disk *sim__disk_new(uint32_t sector_bytes) {
    CHECK(sector_bytes == 512 || sector_bytes == SECTOR_BYTES_MAX);
    struct sim_disk *disk = sim__alloc(sizeof *disk);
    disk->sector_bytes = sector_bytes;
    list_init(&disk->inodes);
    list_init(&disk->dying);
    list_init(&disk->journal);
    disk->root = sim__inode_new(disk, true);
    sim__inode_ref(disk->root);
    return disk;
}

void sim__disk_free(struct sim_disk *disk) {
    LIST_FOREACH (link, &disk->journal) {
        sim__operation_drop(disk, LIST_ENTRY(link, struct name_operation, link));
    }
    sim__inode_unref(disk->root);
    CHECK(list_is_empty(&disk->inodes) && disk->used_bytes == 0 && disk->pending_bytes == 0);
    sim__free(disk);
}

uint64_t sim__disk_sequence(const struct sim_disk *disk) { return disk->sequence; }
uint64_t sim__disk_used_bytes(const struct sim_disk *disk) { return disk->used_bytes; }

void sim__disk_get_pending(const struct sim_disk *disk, uint64_t *ret_bytes, uint64_t *ret_names) {
    *ret_bytes = disk->pending_bytes;
    *ret_names = disk->pending_names;
}

/* ---- Data ------------------------------------------------------------------------------------------------------- */

struct fate {
    const struct sim_disk_options *options;
    struct random *random;
    struct sim_disk_loss *loss;
    bool in_order;
    uint64_t cut; /* in_order: the sequence up to which all is kept */
};

enum outcome { KEPT, LOST, TORN, GARBLED };

static enum outcome draw_damage(const struct fate *fate) {
    uint64_t drawn = random_below(fate->random, DAMAGE_ONE_IN);
    if (drawn == 0 && fate->options->torn) {
        return TORN;
    }
    return drawn == 1 && fate->options->garbled ? GARBLED : LOST;
}

static void settle_sector(struct sim_inode *inode, uint64_t sector, uint8_t *data, enum outcome outcome,
                          struct fate *fate) {
    uint64_t sector_bytes = inode->disk->sector_bytes;
    uint8_t old[SECTOR_BYTES_MAX];
    switch (outcome) {
    case KEPT: fate->loss->sectors_kept++; break;
    case LOST: fate->loss->sectors_lost++; return;
    case TORN: {
        fate->loss->sectors_torn++;
        sim__blob_read(&inode->durable, old, sector_bytes, sector * sector_bytes);
        size_t cut = 1 + (size_t)random_below(fate->random, sector_bytes - 1);
        if (random_chance(fate->random, 1, 2)) {
            memcpy(data, old, cut);
        } else {
            memcpy(data + cut, old + cut, sector_bytes - cut);
        }
        break;
    }
    case GARBLED:
        fate->loss->sectors_garbled++;
        for (uint64_t i = 0; i < sector_bytes; i++) {
            data[i] = (uint8_t)random_next(fate->random);
        }
        break;
    }
    sim__blob_write(&inode->durable, data, sector_bytes, sector * sector_bytes);
}

static void settle_write(struct sim_inode *inode, struct change *change, struct fate *fate) {
    enum { KEEP_ALL, LOSE_ALL, EVENLY, UNEVENLY, MODE_COUNT };
    uint64_t mode = random_below(fate->random, fate->options->scatter ? MODE_COUNT : EVENLY);
    uint64_t keep_ppm = mode == UNEVENLY ? random_below(fate->random, PPM) : PPM / 2;
    if (fate->in_order) {
        mode = change->sequence < fate->cut ? KEEP_ALL : LOSE_ALL;
    }
    for (uint32_t i = 0; i < change->sector_count; i++) {
        if (change->gone[i]) {
            continue;
        }
        enum outcome outcome = mode == KEEP_ALL ? KEPT : LOST;
        if (mode >= EVENLY) {
            outcome = random_chance(fate->random, keep_ppm, PPM) ? KEPT : draw_damage(fate);
        }
        settle_sector(inode, change->first_sector + i, change->data + i * inode->disk->sector_bytes, outcome, fate);
    }
}

/* How many of `count` steps in order reached the disk; all of them often enough that long runs do. */
static uint64_t draw_prefix(struct random *random, uint64_t count) {
    return random_chance(random, 1, 3) ? count : random_below(random, count + 1);
}

static void settle_inode(struct sim_inode *inode, struct fate *fate) {
    uint64_t size_count = 0;
    LIST_FOREACH (counted, &inode->changes) {
        size_count += LIST_ENTRY(counted, struct change, link)->is_size;
    }
    uint64_t sizes_kept = draw_prefix(fate->random, size_count);
    LIST_FOREACH (link, &inode->changes) {
        struct change *change = LIST_ENTRY(link, struct change, link);
        if (!change->is_size) {
            settle_write(inode, change, fate);
        } else if (fate->in_order ? change->sequence < fate->cut : sizes_kept > 0) {
            sim__change_apply(inode, change);
            sizes_kept -= sizes_kept > 0;
        } else {
            sizes_kept = 0;
        }
        sim__change_drop(inode, change);
    }
    sim__blob_cut(&inode->durable, inode->durable_size);
    sim__blob_copy(&inode->live, &inode->durable);
    sim__inode_set_live_size(inode, inode->durable_size);
    inode->lock_holder = NULL;
    inode->lock_until_us = 0;
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

static void settle_names(struct sim_disk *disk, struct fate *fate) {
    uint64_t kept = draw_prefix(fate->random, disk->pending_names);
    LIST_FOREACH (link, &disk->journal) {
        struct name_operation *operation = LIST_ENTRY(link, struct name_operation, link);
        if (fate->in_order ? operation->sequence < fate->cut : kept > 0) {
            sim__operation_apply_durable(operation);
            fate->loss->names_kept++;
            kept -= kept > 0;
        } else {
            fate->loss->names_lost++;
            kept = 0;
        }
        sim__operation_drop(disk, operation);
    }
}

/* Directories go back to their durable entries. All inodes are held meanwhile, so that the list stays as it is. */
static void forget_live_names(struct sim_disk *disk) {
    LIST_FOREACH (held, &disk->inodes) {
        sim__inode_ref(LIST_ENTRY(held, struct sim_inode, link));
    }
    LIST_FOREACH (link, &disk->inodes) {
        struct sim_inode *inode = LIST_ENTRY(link, struct sim_inode, link);
        if (inode->is_dir) {
            sim__names_copy(&inode->live_names, &inode->durable_names);
        }
    }
    disk->reaping = true; /* so that letting go of one doesn't free others */
    LIST_FOREACH (let_go, &disk->inodes) {
        sim__inode_unref(LIST_ENTRY(let_go, struct sim_inode, link));
    }
    sim__disk_reap(disk);
}

/* A moment among those since which something waits. */
static uint64_t draw_cut(struct sim_disk *disk, struct random *random) {
    uint64_t oldest = disk->sequence;
    if (!list_is_empty(&disk->journal)) {
        oldest = LIST_ENTRY(disk->journal.next, struct name_operation, link)->sequence;
    }
    LIST_FOREACH (link, &disk->inodes) {
        const struct sim_inode *inode = LIST_ENTRY(link, struct sim_inode, link);
        if (!list_is_empty(&inode->changes)) {
            uint64_t first = LIST_ENTRY(inode->changes.next, struct change, link)->sequence;
            oldest = first < oldest ? first : oldest;
        }
    }
    return oldest + random_below(random, disk->sequence - oldest + 1);
}

void sim__disk_lose_power(struct sim_disk *disk, const struct sim_disk_options *options, struct random *random,
                          struct sim_disk_loss *loss) {
    struct fate fate = {.options = options, .random = random, .loss = loss};
    fate.in_order = random_chance(random, 1, 3);
    fate.cut = draw_cut(disk, random);
    settle_names(disk, &fate);
    forget_live_names(disk);
    LIST_FOREACH (link, &disk->inodes) {
        settle_inode(LIST_ENTRY(link, struct sim_inode, link), &fate);
    }
}
