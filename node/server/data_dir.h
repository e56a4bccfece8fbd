/*
 * The data directory as a whole: who may use it.
 *
 *   LOCK       held while a process has it open
 *   IDENTITY   which cluster and node it belongs to; written once
 *   db/        the engine (storage/FORMAT.md)
 *   wal/       the log (storage/FORMAT.md)
 *   snapshot-out-N, snapshot-in
 *              snapshots on their way to node N, and to here (snapshot_files.h); gone after a restart
 *
 * IDENTITY: magic u32 0x44494648 ("HFID"), format version u32 (1), cluster id 16 bytes, node id u64, incarnation u64,
 * checksum u64 of all before it. Little-endian. An incarnation counts the lives of a node: one that lost its durable
 * state returns under a new one.
 *
 * Everything here blocks: workers and start-up only.
 */
#ifndef HOLDFAST_SERVER_DATA_DIR_H
#define HOLDFAST_SERVER_DATA_DIR_H

#include "node/server/config.h"

struct data_dir {
    struct env_file *lock;
    uint64_t incarnation;
    bool created; /* it was empty */
};

/* Makes the directory if it isn't there, locks it, checks or writes IDENTITY. STATUS_BUSY: another process has it.
 * STATUS_INVALID: another cluster's or node's. STATUS_UNSUPPORTED: format version. STATUS_CORRUPT. err says what to do.
 */
MUST_USE enum status data_dir_open(struct env *env, const struct config *config, struct data_dir *ret_dir,
                                   struct error *err);
void data_dir_close(struct data_dir *dir);

#endif
