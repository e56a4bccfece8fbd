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
 * IDENTITY: magic u32 0x44494648 ("HFID"), format version u32 (1), cluster id 16 bytes, node id u64; in every version
 * the last 8 bytes are the checksum of all before them. Little-endian.
 *
 * It says nothing that log and store don't say, too, in each of their files: it is there so that a directory that was
 * confused with another is told at once, in plain words. So one that is damaged, or gone, is no loss: the node opens
 * log and store, which refuse another's, and then data_dir_renew writes it again.
 *
 * Everything here blocks: workers and start-up only.
 */
#ifndef HOLDFAST_SERVER_DATA_DIR_H
#define HOLDFAST_SERVER_DATA_DIR_H

#include "node/server/config.h"

struct data_dir {
    struct env_file *lock;
    bool created;       /* it was empty */
    struct error fault; /* what is wrong with IDENTITY; code STATUS_OK: nothing */
};

/* Makes the directory if it isn't there, locks it, checks IDENTITY, or writes that of an empty directory. With the
 * configuration's `heal`, damage to IDENTITY fails nothing, and is told in ret_dir->fault. STATUS_BUSY: another process
 * has it. STATUS_INVALID: another cluster's or node's. STATUS_UNSUPPORTED: format version. STATUS_CORRUPT. err says
 * what to do. */
MUST_USE enum status data_dir_open(struct env *env, const struct config *config, struct data_dir *ret_dir,
                                   struct error *err);
/* Once log and store of the directory turned out to be this node's: writes IDENTITY if it is damaged. */
MUST_USE enum status data_dir_renew(struct env *env, const struct config *config, const struct data_dir *dir,
                                    struct error *err);
void data_dir_close(struct data_dir *dir);

#endif
