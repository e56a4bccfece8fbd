/*
 * Fault hooks: named places where a test may make the world fail. Compiled into the normal build, off by default.
 *
 * The table of hooks below is sorted by name and is the only list. A node has one fault_set; code at a hook calls
 * fault_hit (through env_fault_point for blocking code, through env_io.hook for asynchronous file I/O) and does what
 * the action says. Arming: `name=kind[(argument)][,probability=P][,count=N][,after=N][,seed=N]`, several separated by
 * ';'. Kinds: error(ERRNO-NAME), delay(MS), hang, short, exit(CODE). Example:
 *     wal.write=error(EIO),after=100,count=1;apply=delay(20),probability=0.1,seed=7
 *
 * Any thread may hit; arming and disarming is the owner's (start-up, later an admin request). A hook that is not armed
 * costs one relaxed load.
 */
#ifndef HOLDFAST_BASE_FAULT_H
#define HOLDFAST_BASE_FAULT_H

#include "node/base/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* name, enumerator suffix, what it does */
#define FAULT_TABLE(X)                                                                                                 \
    X("apply", APPLY, "before committed entries are applied to the memtable")                                          \
    X("flush.sync", FLUSH_SYNC, "sync of a new SST")                                                                   \
    X("flush.write", FLUSH_WRITE, "each block written to a new SST")                                                   \
    X("manifest.rename", MANIFEST_RENAME, "the switch of CURRENT to a new manifest")                                   \
    X("manifest.sync", MANIFEST_SYNC, "sync of the manifest")                                                          \
    X("manifest.write", MANIFEST_WRITE, "append to the manifest")                                                      \
    X("raft.append.receive", RAFT_APPEND_RECEIVE, "an AppendEntries that arrived; error drops it")                     \
    X("raft.append.send", RAFT_APPEND_SEND, "an AppendEntries about to leave; error drops it")                         \
    X("raft.vote.receive", RAFT_VOTE_RECEIVE, "a vote request or reply that arrived; error drops it")                  \
    X("raft.vote.send", RAFT_VOTE_SEND, "a vote request or reply about to leave; error drops it")                      \
    X("sst.read", SST_READ, "read of one SST block")                                                                   \
    X("wal.read", WAL_READ, "read of log records for a follower or for apply")                                         \
    X("wal.segment.prepare", WAL_SEGMENT_PREPARE, "zero-filling of the next log segment")                              \
    X("wal.write", WAL_WRITE, "the write and sync of one log group")

enum fault_hook {
#define FAULT_ENUM(name, suffix, text) FAULT_##suffix,
    FAULT_TABLE(FAULT_ENUM)
#undef FAULT_ENUM
        FAULT_HOOK_COUNT,
    FAULT_NONE = FAULT_HOOK_COUNT /* "no hook here" */
};

enum fault_kind {
    FAULT_KIND_OFF,
    FAULT_KIND_ERROR,
    FAULT_KIND_DELAY,
    FAULT_KIND_HANG,
    FAULT_KIND_SHORT,
    FAULT_KIND_EXIT
};

struct fault_action {
    enum fault_kind kind;
    int argument; /* errno, milliseconds or exit code */
};

struct fault_rule {
    _Atomic int kind; /* enum fault_kind; OFF while not armed. Written last when arming */
    int argument;
    uint64_t probability_ppm; /* parts per million */
    uint64_t after;           /* hits let through first */
    uint64_t count_max;       /* actions at most; 0: no bound */
    _Atomic uint64_t random_state;
    _Atomic uint64_t hits;
    _Atomic uint64_t actions;
};

struct fault_set {
    struct fault_rule rules[FAULT_HOOK_COUNT];
};

struct fault_info {
    const char *name;
    const char *text;
};

/* All hooks off. */
void fault_init(struct fault_set *set);
/* Parses and arms; on STATUS_INVALID err names the word that is wrong and what is allowed, and nothing is armed. */
MUST_USE enum status fault_arm(struct fault_set *set, const char *specification, struct error *err);
void fault_disarm(struct fault_set *set, enum fault_hook hook);
/* True while a rule for the hook is armed (a hang waits for this to end). */
bool fault_is_armed(struct fault_set *set, enum fault_hook hook);
/* What to do at this hook now; kind OFF nearly always. set NULL or hook FAULT_NONE: OFF. */
struct fault_action fault_hit(struct fault_set *set, enum fault_hook hook);
struct fault_info fault_describe(enum fault_hook hook);
/* FAULT_HOOK_COUNT if there is none of that name. */
enum fault_hook fault_find(const char *name);

#endif
