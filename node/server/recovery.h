/*
 * What happens between a data directory and a node that can start: engine, log, replay, raft.
 *
 * Runs as one worker job and blocks. On success everything is durable and consistent: the engine has applied up to the
 * commit index that the log recorded, raft knows every entry of the log, term and vote are what they were.
 */
#ifndef HOLDFAST_SERVER_RECOVERY_H
#define HOLDFAST_SERVER_RECOVERY_H

#include "node/server/config.h"
#include "node/server/consensus.h"
#include "node/server/data_dir.h"

struct recovery {
    /* Inputs. */
    struct env *env;
    struct env_loop *loop;
    const struct config *config;
    struct consensus *consensus; /* its callbacks go into log and engine */

    /* Progress, for other threads: records read of how many, since when (env clock). */
    _Atomic uint64_t done;
    _Atomic uint64_t total;
    _Atomic uint64_t replay_began_us; /* 0: not yet */

    /* Outputs: the caller's on success; recovery_abandon closes them otherwise. */
    struct data_dir dir;
    struct raft *raft;
    struct wal *wal;
    struct storage *storage;
    uint64_t torn_bytes;      /* cut off the log's end */
    struct error store_fault; /* why the store was set aside in this start; code STATUS_OK: it wasn't */
    struct wal_fault fault;   /* damage to the log that this start met, and overcame */
    uint64_t replayed;        /* entries applied again, */
    uint64_t replayed_bytes;
    uint64_t replay_us; /* and what that took from the first of them on, reading included */
    uint64_t tail;      /* entries behind the recorded commit, which wait for the leader */
};

/* On failure recovery_abandon is due. */
MUST_USE enum status recovery_run(struct recovery *recovery, struct error *err);
/* Any thread, while it runs: what is left, as far as that can be told; UINT64_MAX: it can't. */
uint64_t recovery_left_us(const struct recovery *recovery);
/* After a failure, on the loop: closes what was opened, then done runs (never from inside). */
void recovery_abandon(struct recovery *recovery, void (*done)(void *context), void *context);

#endif
