/*
 * Stores that rot, within what the cluster must survive: while all others are up and whole,
 *
 *   rotten store   some bytes of a live table, value file or change file of a replica that runs are changed. Whoever
 *                  reads there first finds it: a read, a compaction, the scrub
 *   lost store     while a replica is down its manifest is changed: it begins again with an empty store, and with its
 *                  log only if that reaches back to the first entry
 *
 * A replica rots once in a life, for it would wait a minute before it filled its store the second time. Of a file that
 * is a segment of the log, too, the log would rot with it: those are left alone.
 */
#include "tests/sim/cluster.h"

#include "storage/file_names.h"
#include "storage/storage_internal.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim_internal.h"

#include <stdio.h>

enum { ROT_BYTES_MAX = 64, FILES_MAX = 1024 };

struct live_files {
    char paths[FILES_MAX][64];
    uint32_t count;
};

/* True if the log has a name for it. */
static bool is_of_log(struct sim_node *node, const char *wal_dir, const struct sim_inode *file) {
    const struct sim_inode *names = sim__disk_find(node->disk, wal_dir);
    for (size_t i = names == NULL ? 0 : sim__dir_count(names); i-- > 0;) {
        char path[LIMIT_PATH_BYTES + FILE_NAME_BYTES_MAX];
        (void)snprintf(path, sizeof path, "%s/%s", wal_dir, sim__dir_name(names, i));
        if (sim__disk_find(node->disk, path) == file) {
            return true;
        }
    }
    return false;
}

static void add_file(struct replica *replica, struct live_files *files,
                     void (*make_path)(char *, const char *, uint64_t), uint64_t number) {
    char path[LIMIT_PATH_BYTES];
    char dir[LIMIT_PATH_BYTES + 8];
    (void)snprintf(dir, sizeof dir, "%s/db", replica->config.data_dir);
    make_path(path, dir, number);
    const struct sim_inode *file = sim__disk_find(replica->sim_node->disk, path);
    (void)snprintf(dir, sizeof dir, "%s/wal", replica->config.data_dir);
    if (file != NULL && files->count < FILES_MAX && !is_of_log(replica->sim_node, dir, file)) {
        CHECK(strlen(path) < sizeof files->paths[0]);
        strcpy(files->paths[files->count++], path);
    }
}

static void list_live(struct replica *replica, const struct version *version, struct live_files *files) {
    files->count = 0;
    for (unsigned level = 0; level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version->counts[level]; i++) {
            add_file(replica, files, file_path_sst, version->tables[level][i]->meta.number);
        }
    }
    for (size_t i = 0; i < version->value_file_count; i++) {
        add_file(replica, files, file_path_values, version->value_files[i]->meta.number);
    }
    for (size_t i = 0; i < version->change_file_count; i++) {
        add_file(replica, files, file_path_changes, version->change_files[i]->meta.number);
    }
}

bool rot__is_rotten(const struct replica *replica) {
    const struct sim_inode *file =
        replica->rotten_inode != 0 ? sim__disk_find(replica->sim_node->disk, replica->rotten_path) : NULL;
    return file != NULL && sim__inode_id(file) == replica->rotten_inode;
}

/* Nobody else lost anything that isn't back. */
static bool others_are_whole(const struct replica *replica) {
    const struct cluster *cluster = replica->cluster;
    uint64_t first_index;
    bool are_whole = damage__others_are_whole(cluster, replica, &first_index);
    for (uint32_t i = 0; i < cluster->replica_count && are_whole; i++) {
        const struct replica *other = &cluster->replicas[i];
        are_whole =
            other == replica || (!rot__is_rotten(other) && replica__consensus(other)->rebuild.state == REBUILD_NONE);
    }
    return are_whole;
}

bool rot__store(struct replica *replica, struct random *random) {
    static struct live_files files; /* too large for the stack; one thread */
    struct consensus *consensus = replica__consensus(replica);
    if (consensus == NULL || consensus__is_dead(consensus) || consensus->rebuild.state != REBUILD_NONE ||
        consensus->rebuild.not_before_us != 0 || rot__is_rotten(replica) || !others_are_whole(replica)) {
        return false;
    }
    list_live(replica, consensus->storage->version, &files);
    if (files.count == 0) {
        return false;
    }
    const char *path = files.paths[random_below(random, files.count)];
    const struct sim_inode *file = sim__disk_find(replica->sim_node->disk, path);
    uint64_t size = sim__inode_size(file);
    uint64_t at = random_below(random, size);
    uint64_t len = 1 + random_below(random, ROT_BYTES_MAX);
    len = len < size - at ? len : size - at;
    CHECK(sim_disk_corrupt(replica->sim_node, path, at, len) == STATUS_OK);
    replica->rotten_inode = sim__inode_id(file);
    (void)snprintf(replica->rotten_path, sizeof replica->rotten_path, "%s", path);
    return true;
}

bool rot__lose_store(struct replica *replica) {
    char dir[LIMIT_PATH_BYTES + 8];
    (void)snprintf(dir, sizeof dir, "%s/db", replica->config.data_dir);
    const struct sim_inode *names = sim__disk_find(replica->sim_node->disk, dir);
    if (sim_node_is_up(replica->sim_node) || names == NULL || !others_are_whole(replica)) {
        return false;
    }
    bool lost = false;
    for (size_t i = 0; i < sim__dir_count(names); i++) {
        uint64_t number;
        char path[LIMIT_PATH_BYTES];
        if (file_name_parse(sim__dir_name(names, i), &number) == FILE_MANIFEST) {
            file_path_manifest(path, dir, number);
            uint64_t size = sim__inode_size(sim__disk_find(replica->sim_node->disk, path));
            uint64_t len = size < ROT_BYTES_MAX ? size : ROT_BYTES_MAX;
            bool is_hit = size > 0 && sim_disk_corrupt(replica->sim_node, path, 0, len) == STATUS_OK;
            lost = lost || is_hit;
        }
    }
    replica->log_was_damaged = replica->log_was_damaged || lost;
    replica->log_may_heal = replica->log_may_heal || lost;
    return lost;
}
