/*
 * A node around the raft core for tests: the log in memory, a disk that completes groups when it is told, and packets
 * that the test carries from node to node. It carries out updates the way the server does, so scenarios and random
 * clusters share it.
 *
 *     step -> forming group -> raft_node_seal -> group in flight -> raft_node_complete -> disk, RAFT_EVENT_SYNCED
 *
 * A crash loses the forming group, and the group in flight unless the caller lets it reach the disk. One group is in
 * flight at a time. The disk is a sequence of groups; a record with an index at or below an older one cuts the log
 * there.
 *
 * Failures of the helper itself, and of raft's contract with its caller, are CHECKs. One thread.
 */
#ifndef HOLDFAST_TESTS_RAFT_NODE_H
#define HOLDFAST_TESTS_RAFT_NODE_H

#include "raft/raft.h"
#include "tests/sim/trace.h"

#include <stddef.h>

struct raft_record {
    uint64_t index;
    uint64_t term;
    uint64_t value; /* stands for the payload */
    uint32_t size_bytes;
    uint8_t kind;
    const struct raft_config *config; /* CONFIG: shared and never freed */
};

struct raft_records {
    struct raft_record *items;
    size_t count;
    size_t capacity;
};

/* A message on its way, with what the caller of raft binds to it. */
struct raft_packet {
    struct raft_message message; /* entries points into this packet */
    struct raft_entry *entries;
    uint64_t *values;
};

struct raft_packet *raft_packet_copy(const struct raft_packet *packet);
void raft_packet_free(struct raft_packet *packet);

/* What a leader's manifest says and its files hold, up to an index. */
struct raft_snapshot {
    uint64_t index;
    uint64_t config_index;
    struct raft_config config;
    struct raft_records records;
};

struct raft_group {
    bool present;
    struct raft_records records;
    uint64_t term;
    uint64_t vote;
    uint64_t commit;
};

struct raft_node {
    uint64_t id;
    struct raft_options options;
    struct raft_config config; /* what the manifest says: effective at its frontier */
    uint64_t config_index;
    uint64_t installed_index; /* frontier of the newest installed snapshot: older records aren't written any more */
    struct raft *raft;        /* NULL while it is down */
    struct raft_update update;
    struct raft_records log; /* items[i] has index i + 1; trimming doesn't shorten it */
    uint64_t trimmed_index;

    /* The disk. */
    uint64_t disk_term;
    uint64_t disk_vote;
    uint64_t disk_commit;
    struct raft_records disk_log;
    uint64_t life;       /* counted up with each start */
    uint64_t heal_index; /* where the log ended before it was damaged; 0: it wasn't */
    uint64_t heal_term;

    bool state_waits; /* a new term or vote isn't in a group yet */
    struct raft_records forming;
    struct raft_group inflight;

    struct trace *trace; /* told of starts and steps, or NULL. Borrowed */

    /* Called for each message of an update; takes the packet. */
    void (*send)(void *context, struct raft_packet *packet);
    void *context;
};

/* Down, with an empty disk. `options` without id and random_seed. */
void raft_node_init(struct raft_node *node, uint64_t id, const struct raft_config *config,
                    const struct raft_options *options);
void raft_node_deinit(struct raft_node *node);

/* Before the start: one more durable entry. */
void raft_node_preload(struct raft_node *node, uint64_t term, uint64_t value, uint32_t size_bytes);
/* While it is down: its entries from `index` on are lost to damage, and recovery sees that. */
void raft_node_damage(struct raft_node *node, uint64_t index);
/* While it is down: its data directory is empty, and it doesn't know that it wasn't. */
void raft_node_wipe(struct raft_node *node);
/* From what is on disk. */
void raft_node_start(struct raft_node *node, uint64_t now_us, uint64_t random_seed);
void raft_node_crash(struct raft_node *node, bool inflight_reaches_disk);

/* One event; the update is carried out and stays in node->update. */
enum status raft_node_tick(struct raft_node *node, uint64_t now_us);
/* Borrows the packet. */
enum status raft_node_receive(struct raft_node *node, uint64_t now_us, const struct raft_packet *packet);
/* `count` entries of values first_value, first_value + 1, ... */
enum status raft_node_propose(struct raft_node *node, uint64_t now_us, uint64_t first_value, uint32_t count,
                              uint32_t size_bytes);
enum status raft_node_read(struct raft_node *node, uint64_t now_us, bool forward);
enum status raft_node_change(struct raft_node *node, uint64_t now_us, const struct raft_change *changes,
                             uint32_t count);
/* RAFT_NO_NODE: to the best. */
enum status raft_node_transfer(struct raft_node *node, uint64_t now_us, uint64_t target);
enum status raft_node_fence(struct raft_node *node, uint64_t now_us, enum raft_fence fence);
enum status raft_node_snapshot_sent(struct raft_node *node, uint64_t now_us, uint64_t peer, uint64_t index, bool ok);
/* What the node would send now: all that it committed, up to index. The caller frees it. */
void raft_snapshot_take(const struct raft_node *node, uint64_t index, struct raft_snapshot *ret_snapshot);
void raft_snapshot_free(struct raft_snapshot *snapshot);
/* As the server does it: a group in flight completes, the manifest is switched, the core is told. */
enum status raft_node_install(struct raft_node *node, uint64_t now_us, const struct raft_snapshot *snapshot);
enum status raft_node_unreachable(struct raft_node *node, uint64_t now_us, uint64_t peer);
enum status raft_node_need(struct raft_node *node, uint64_t now_us, uint64_t index);
enum status raft_node_gone(struct raft_node *node, uint64_t now_us, uint64_t peer);
enum status raft_node_trim(struct raft_node *node, uint64_t now_us, uint64_t index);

/* Puts the first records_max waiting records and the state into a group. False if one is in flight or nothing waits. */
bool raft_node_seal(struct raft_node *node, size_t records_max);
/* The group in flight is durable. False if there is none. */
bool raft_node_complete(struct raft_node *node, uint64_t now_us);

/* "PREVOTE", ... */
const char *raft_message_type_name(enum raft_message_type type);

#endif
