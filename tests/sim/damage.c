/*
 * Latent corruption of one replica's log, within what the cluster must survive: while the replica is down, some bytes
 * of a group of its newest segment change, with a good group behind it, so that recovery can see it; all others are up,
 * whole, and have what is lost (until snapshots bring what was trimmed).
 *
 * The newest segment is never lent to the store as a value file.
 */
#include "tests/sim/cluster.h"

#include "storage/wal_internal.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum { GROUPS_MAX = 1024, DAMAGE_BYTES_MAX = 300 };

struct log_view {
    char path[LIMIT_PATH_BYTES];
    uint32_t group_count;
    struct {
        uint64_t offset;
        struct wal__group_header header;
    } groups[GROUPS_MAX];
};

static bool read_block(const struct sim_inode *inode, uint64_t offset, uint8_t block[WAL_BLOCK_BYTES]) {
    return sim__inode_read(inode, block, WAL_BLOCK_BYTES, offset) == WAL_BLOCK_BYTES;
}

/* False if it holds no group. */
static bool look_at(struct sim_node *node, struct log_view *view) {
    uint8_t block[WAL_BLOCK_BYTES];
    struct wal__segment_header segment;
    const struct sim_inode *inode = sim__disk_find(node->disk, view->path);
    view->group_count = 0;
    if (!read_block(inode, 0, block) || wal__segment_header_decode(block, &segment) != STATUS_OK) {
        return false;
    }
    uint64_t offset = WAL_SEGMENT_HEADER_BYTES;
    while (view->group_count < GROUPS_MAX && read_block(inode, offset, block)) {
        struct wal__group_header *header = &view->groups[view->group_count].header;
        if (wal__group_header_decode(block, header) != STATUS_OK || header->generation != segment.generation) {
            break;
        }
        view->groups[view->group_count++].offset = offset;
        offset += wal__padded(header->total_bytes);
    }
    return view->group_count > 0;
}

/* The newest segment that was begun. */
static bool find_newest(struct sim_node *node, const char *dir, struct log_view *view) {
    const struct sim_inode *names = sim__disk_find(node->disk, dir);
    for (size_t i = names == NULL ? 0 : sim__dir_count(names); i-- > 0;) {
        uint64_t number;
        if (wal__segment_parse_name(sim__dir_name(names, i), "", &number)) {
            wal__segment_path(view->path, dir, number, "");
            if (look_at(node, view)) {
                return true;
            }
        }
    }
    return false;
}

bool damage__others_are_whole(const struct cluster *cluster, const struct replica *replica, uint64_t *ret_first) {
    *ret_first = 1;
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        const struct replica *other = &cluster->replicas[i];
        const struct consensus *consensus = replica__consensus(other);
        if (other == replica) {
            continue;
        }
        if (consensus == NULL || consensus__is_dead(consensus)) {
            return false;
        }
        struct raft_info info;
        raft_get_info(consensus->raft, &info);
        if (info.heal_index > 0) {
            return false;
        }
        uint64_t first_index = raft_first_index(consensus->raft);
        *ret_first = first_index > *ret_first ? first_index : *ret_first;
    }
    return true;
}

bool damage__log(struct replica *replica, struct random *random) {
    struct cluster *cluster = replica->cluster;
    static struct log_view view; /* too large for the stack; one thread */
    char dir[LIMIT_PATH_BYTES + 8];
    uint64_t first_index = 0;
    (void)snprintf(dir, sizeof dir, "%s/wal", replica->config.data_dir);
    if (sim_node_is_up(replica->sim_node) || !damage__others_are_whole(cluster, replica, &first_index) ||
        !find_newest(replica->sim_node, dir, &view)) {
        return false;
    }
    uint32_t candidates = 0;
    uint32_t chosen = 0;
    for (uint32_t i = 0; i + 1 < view.group_count; i++) {
        const struct wal__group_header *header = &view.groups[i].header;
        if (header->record_count > 0 && header->first_index >= first_index && random_below(random, ++candidates) == 0) {
            chosen = i;
        }
    }
    if (candidates == 0) {
        return false;
    }
    const struct wal__group_header *header = &view.groups[chosen].header;
    uint64_t at = random_below(random, header->total_bytes);
    uint64_t len = 1 + random_below(random, DAMAGE_BYTES_MAX);
    len = len < header->total_bytes - at ? len : header->total_bytes - at;
    CHECK(sim_disk_corrupt(replica->sim_node, view.path, view.groups[chosen].offset + at, len) == STATUS_OK);
    replica->log_was_damaged = true;
    replica->log_may_heal = true;
    return true;
}
