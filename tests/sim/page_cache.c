/*
 * Files through the simulated page cache: reads that never wait, and mappings.
 *
 * A mapping is memory of the simulator, so that a process crash keeps what was stored. The simulator doesn't see
 * stores: it compares the memory with the live image whenever somebody could tell the difference (a read, a write, a
 * sync, a crash) and carries over what changed, page by page, as unsynced writes. Now and then it does so without a
 * reason, as the kernel writes back when it likes: so a power loss may leave any earlier state of a page, too.
 */
#include "tests/sim/sim_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_BYTES = 4096, WRITE_BACK_ONE_IN = 8 };

struct sim_mapping {
    struct list link; /* node->mappings */
    struct sim_inode *inode;
    uint8_t *data;
    size_t len;
};

/* ---- Between memory and live image ------------------------------------------------------------------------------ */

/* One write per page, from its first sector that differs to its last one. */
static void store_page(const struct sim_node *node, struct sim_mapping *mapping, size_t offset) {
    uint8_t live[PAGE_BYTES];
    size_t len = mapping->len - offset < PAGE_BYTES ? mapping->len - offset : PAGE_BYTES;
    size_t there = sim__inode_read(mapping->inode, live, len, offset);
    CHECK(there == len); /* the file wasn't cut below its mapping */
    const uint8_t *page = mapping->data + offset;
    size_t sector_bytes = node->options.disk.sector_bytes;
    size_t first = SIZE_MAX;
    size_t end = 0;
    for (size_t at = 0; at < len; at += sector_bytes) {
        size_t part = len - at < sector_bytes ? len - at : sector_bytes;
        if (memcmp(page + at, live + at, part) != 0) {
            first = first == SIZE_MAX ? at : first;
            end = at + part;
        }
    }
    if (end > 0) {
        sim__inode_write(mapping->inode, page + first, end - first, offset + first, false);
    }
}

void sim__mappings_store(struct sim_node *node, const struct sim_inode *inode) {
    LIST_FOREACH (link, &node->mappings) {
        struct sim_mapping *mapping = LIST_ENTRY(link, struct sim_mapping, link);
        if (inode == NULL || mapping->inode == inode) {
            for (size_t offset = 0; offset < mapping->len; offset += PAGE_BYTES) {
                store_page(node, mapping, offset);
            }
        }
    }
}

void sim__mappings_load(struct sim_node *node, const struct sim_inode *inode) {
    LIST_FOREACH (link, &node->mappings) {
        struct sim_mapping *mapping = LIST_ENTRY(link, struct sim_mapping, link);
        if (mapping->inode == inode) {
            size_t there = sim__inode_read(inode, mapping->data, mapping->len, 0);
            CHECK(there == mapping->len);
        }
    }
}

void sim__mappings_write_back(struct sim_node *node) {
    if (!list_is_empty(&node->mappings) && random_chance(&node->disk_random, 1, WRITE_BACK_ONE_IN)) {
        sim__mappings_store(node, NULL);
    }
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static void mapping_free(struct sim_mapping *mapping) {
    list_remove(&mapping->link);
    sim__inode_unref(mapping->inode);
    free(mapping->data);
    sim__free(mapping);
}

void sim__mappings_drop(struct sim_node *node) {
    sim__mappings_store(node, NULL);
    LIST_FOREACH (link, &node->mappings) {
        mapping_free(LIST_ENTRY(link, struct sim_mapping, link));
    }
}

enum status sim__map(struct env_file *env_file, size_t len, void **ret_data, struct error *err) {
    struct sim_file *file = sim__file_of(env_file);
    struct sim_node *node = file->node;
    CHECK((file->flags & ENV_OPEN_READ) != 0 && (file->flags & ENV_OPEN_WRITE) != 0);
    CHECK((file->flags & ENV_OPEN_DIRECT) == 0);
    LIST_FOREACH (link, &node->mappings) {
        CHECK(LIST_ENTRY(link, struct sim_mapping, link)->inode != file->inode);
    }
    sim__disk_take_time(node, node->options.disk.read_us_max);
    if (sim__inode_size(file->inode) < len) {
        return error_set(err, STATUS_INVALID, "map %s: the file is too short", env_file->path);
    }
    int sys = sim__disk_error(node, node->options.disk.read_error_ppm);
    sim__note(node->sim, node, SIM_TRACE_MAP, (uint64_t)sys, len, env_file->path);
    if (sys != 0) {
        return error_set_sys(err, sys, "map %s", env_file->path);
    }
    struct sim_mapping *mapping = sim__alloc(sizeof *mapping);
    mapping->inode = file->inode;
    mapping->len = len;
    mapping->data = aligned_alloc(PAGE_BYTES, (len + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
    CHECK(mapping->data != NULL);
    sim__inode_ref(mapping->inode);
    list_push_back(&node->mappings, &mapping->link);
    sim__mappings_load(node, mapping->inode);
    *ret_data = mapping->data;
    return STATUS_OK;
}

void sim__unmap(struct env_file *env_file, void *data, size_t len) {
    struct sim_file *file = sim__file_of(env_file);
    struct sim_node *node = file->node;
    sim__check_may_block(node);
    LIST_FOREACH (link, &node->mappings) {
        struct sim_mapping *mapping = LIST_ENTRY(link, struct sim_mapping, link);
        if (mapping->data == data) {
            CHECK(mapping->inode == file->inode && mapping->len == len);
            sim__mappings_store(node, mapping->inode);
            sim__note(node->sim, node, SIM_TRACE_UNMAP, 0, len, env_file->path);
            mapping_free(mapping);
            return;
        }
    }
    CHECK(false);
}

/* ---- Reads that never wait -------------------------------------------------------------------------------------- */

enum status sim__pread_nowait(struct env_file *env_file, void *data, size_t len, uint64_t offset, struct error *err) {
    struct sim_file *file = sim__file_of(env_file);
    struct sim_node *node = file->node;
    CHECK((file->flags & ENV_OPEN_READ) != 0);
    sim__mappings_store(node, file->inode);
    uint64_t size = sim__inode_size(file->inode);
    bool is_absent = (file->flags & ENV_OPEN_DIRECT) != 0 || offset > size || len > size - offset ||
                     random_chance(&node->disk_random, node->options.disk.nowait_pending_ppm, PPM);
    int sys = is_absent ? EAGAIN : sim__disk_error(node, node->options.disk.read_error_ppm);
    sim__note(node->sim, node, SIM_TRACE_READ, (uint64_t)sys, sys == 0 ? len : 0, env_file->path);
    if (is_absent) {
        return STATUS_PENDING;
    }
    if (sys != 0) {
        return error_set_sys(err, sys, "read %s", env_file->path);
    }
    size_t count = sim__inode_read(file->inode, data, len, offset);
    CHECK(count == len);
    node->sim->stats.file_bytes_read += count;
    return STATUS_OK;
}
