/*
 * Some bits flip in the head of a file of a node that is down, whatever the file: the node comes back by itself, with
 * all that the others have. No byte there can make it refuse to start, or take the file for one of a later version.
 *
 * Breaks if anything of a header is believed before its checksum is; if damage to IDENTITY, CURRENT, a manifest, a
 * table, a value file, a change file or a segment of the log ends a node; if one of them isn't found, or heals to
 * something else.
 *
 * The pure readers of these bytes see every single bit flipped in tests of their own; here it is bytes of each field.
 */
#include "tests/unit/node_probe.h"

#include "raft/raft_internal.h"
#include "storage/file_names.h"
#include "storage/storage_internal.h"
#include "storage/wal_internal.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim_internal.h"

enum { SEED = 4, TURN_US = 100 * 1000, LOOK_US = 20 * 1000, KEYS = 30, STEP = 5, FILE_STEP = 29 };

enum file_of { OF_IDENTITY, OF_CURRENT, OF_MANIFEST, OF_SEGMENT, OF_TABLE, OF_VALUES, OF_CHANGES };

/* A piece of a file that has fields. */
static const struct part {
    const char *name;
    enum file_of file;
    bool from_end;
    uint64_t offset;
    uint64_t len;
    uint64_t step;
} parts[] = {
    {"IDENTITY", OF_IDENTITY, false, 0, 40, STEP},
    {"CURRENT", OF_CURRENT, false, 0, 64, STEP},
    {"manifest's header", OF_MANIFEST, false, 0, 64, STEP},
    {"manifest's first edit", OF_MANIFEST, false, 4096, 64, STEP},
    {"segment's header", OF_SEGMENT, false, 0, 72, STEP},
    {"segment's checksum", OF_SEGMENT, false, 4088, 8, STEP},
    {"start group", OF_SEGMENT, false, 4096, 128, STEP},
    {"first group", OF_SEGMENT, false, 8192, 160, STEP},
    {"table's header", OF_TABLE, false, 0, 64, FILE_STEP},
    {"table's footer", OF_TABLE, true, 80, 80, FILE_STEP},
    {"value file's header", OF_VALUES, false, 0, 64, FILE_STEP},
    {"value file's footer", OF_VALUES, true, 80, 80, FILE_STEP},
    {"change file's header", OF_CHANGES, false, 0, 64, FILE_STEP},
    {"change file's footer", OF_CHANGES, true, 80, 80, FILE_STEP},
};

/* A segment of the log with something behind its start group. */
static bool is_begun_segment(const struct sim_inode *inode) {
    uint8_t block[WAL_BLOCK_BYTES];
    struct wal__group_header header;
    return sim__inode_read(inode, block, sizeof block, WAL_FIRST_RECORDS_OFFSET) == sizeof block &&
           wal__group_header_decode(block, &header) == STATUS_OK;
}

static bool is_it(const struct sim_inode *inode, const char *name, enum file_of file) {
    uint64_t number;
    enum file_kind kind = file_name_parse(name, &number);
    switch (file) {
    case OF_IDENTITY: return strcmp(name, "IDENTITY") == 0;
    case OF_CURRENT: return kind == FILE_CURRENT;
    case OF_MANIFEST: return kind == FILE_MANIFEST;
    case OF_SEGMENT: return wal__segment_parse_name(name, "", &number) && is_begun_segment(inode);
    case OF_TABLE: return kind == FILE_SST;
    case OF_VALUES:
        /* One that is a segment, too, is checked as the log checks it. */
        return kind == FILE_VALUES && !is_begun_segment(inode);
    case OF_CHANGES: return kind == FILE_CHANGES;
    }
    return false;
}

/* The newest such file. */
static bool find(struct replica *replica, enum file_of file, char path[LIMIT_PATH_BYTES]) {
    const char *below = file == OF_IDENTITY ? "" : file == OF_SEGMENT ? "/wal" : "/db";
    char dir[LIMIT_PATH_BYTES / 2];
    (void)snprintf(dir, sizeof dir, "%.100s%s", replica->config.data_dir, below);
    struct sim_disk *disk = replica->sim_node->disk;
    const struct sim_inode *names = sim__disk_find(disk, dir);
    for (size_t i = sim__dir_count(names); i-- > 0;) {
        (void)snprintf(path, LIMIT_PATH_BYTES, "%s/%s", dir, sim__dir_name(names, i));
        const struct sim_inode *inode = sim__disk_find(disk, path);
        if (!sim__inode_is_dir(inode) && is_it(inode, sim__dir_name(names, i), file)) {
            return true;
        }
    }
    return false;
}

static bool is_whole(struct replica *replica, bool must_rebuild) {
    const struct consensus *consensus = replica__consensus(replica);
    if (!replica->serving || consensus == NULL) {
        return false;
    }
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    bool is_rebuilt = consensus->rebuild.state == REBUILD_NONE && (!must_rebuild || consensus->rebuild.completed > 0);
    return info.heal_index == 0 && is_rebuilt && checker__converged(replica->cluster);
}

static void await_whole(struct replica *replica, const struct part *part, uint64_t at) {
    struct cluster *cluster = replica->cluster;
    bool must_rebuild = part->file >= OF_TABLE;
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    while (!is_whole(replica, must_rebuild) && sim_now_us(cluster->sim) < end_us) {
        pass(cluster, LOOK_US);
    }
    if (!is_whole(replica, must_rebuild)) {
        fail_msg("%s: byte %llu: the node isn't whole again", part->name, (unsigned long long)at);
    }
}

static void flip(struct replica *replica, const struct part *part, uint64_t at) {
    char path[LIMIT_PATH_BYTES];
    if (!find(replica, part->file, path)) {
        fail_msg("there is no file with a %s", part->name);
    }
    uint64_t size = sim__inode_size(sim__disk_find(replica->sim_node->disk, path));
    uint64_t offset = part->from_end ? size - part->offset + at : part->offset + at;
    assert_int_equal(sim_disk_corrupt(replica->sim_node, path, offset, 1), STATUS_OK);
    replica->log_was_damaged = true;
    replica->log_may_heal = true;
}

static void configure(struct config *config) {
    config->scan_digest_interval_s = 0;
    config->memtable_bytes = 1024 * 1024;
    config->value_threshold_bytes = 4096;
    config->change_files = true;
}

static void fill(struct probe *probe, uint64_t from) {
    char key[16];
    for (uint64_t i = from; i < from + KEYS; i++) {
        (void)snprintf(key, sizeof key, "key-%03u", (unsigned)(i % KEYS));
        (void)put(probe, key, key, i % 2 == 0 ? VALUE_BYTES : 100);
    }
    for (uint32_t i = 0; i < probe->cluster->replica_count; i++) {
        storage_flush(replica__consensus(&probe->cluster->replicas[i])->storage);
    }
    pass(probe->cluster, TURN_US);
}

static void sweep(enum file_of first, enum file_of last) {
    struct probe *probe = probe_start(cluster_new(SEED), configure);
    struct cluster *cluster = probe->cluster;
    uint64_t flips = 0;
    fill(probe, 0);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const struct part *part = &parts[i];
        for (uint64_t at = i % part->step; at < part->len && part->file >= first && part->file <= last;
             at += part->step) {
            struct replica *victim = follower_of(cluster);
            if (part->file >= OF_VALUES) {
                fill(probe, flips); /* a rebuilt store has the leader's files, and not yet any of its own */
            }
            pass(cluster, TURN_US); /* the last group has its mark */
            replica__crash(victim, SIM_CRASH_PROCESS);
            flip(victim, part, at);
            victim->config.scrub_rate = part->file >= OF_TABLE ? 4 * 1024 * 1024 : 0;
            replica__schedule_restart(victim, TURN_US);
            pass(cluster, 2ull * TURN_US);
            await_whole(victim, part, at);
            char key[16];
            (void)snprintf(key, sizeof key, "flip-%03u", (unsigned)flips++);
            (void)put(probe, key, key, 100);
        }
    }
    for (uint64_t i = 0; i < flips; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "flip-%03u", (unsigned)i);
        assert_int_equal(get_at(probe, key, 0), HOLDFAST_CODE_OK);
    }
    end(probe);
}

static void test_node_flips_in_identity_and_manifest_heal_by_themselves(void **state) {
    (void)state;
    sweep(OF_IDENTITY, OF_MANIFEST);
}

static void test_h30_node_flips_in_heads_of_the_log_heal_by_themselves(void **state) {
    (void)state;
    sweep(OF_SEGMENT, OF_SEGMENT);
}

static void test_node_flips_in_heads_of_the_store_s_files_heal_by_themselves(void **state) {
    (void)state;
    sweep(OF_TABLE, OF_CHANGES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_node_flips_in_identity_and_manifest_heal_by_themselves),
        cmocka_unit_test(test_h30_node_flips_in_heads_of_the_log_heal_by_themselves),
        cmocka_unit_test(test_node_flips_in_heads_of_the_store_s_files_heal_by_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
