/*
 * A membership as this node keeps it: a configuration and the index of the entry that brought it.
 *
 *   bytes: index u64, then raft's bytes of the configuration (raft_config_encode, raft/README.md), or nothing for a
 *          node that was told to join and has none yet
 *
 * Kept are those that are applied, hence committed: in the manifest's frontier (the one effective at the frontier), and
 * in each segment's first group. What is effective but not committed is in the log, behind them.
 */
#ifndef HOLDFAST_SERVER_MEMBERSHIP_H
#define HOLDFAST_SERVER_MEMBERSHIP_H

#include "node/base/slice.h"
#include "node/base/status.h"
#include "node/server/config.h"
#include "raft/raft.h"

struct membership {
    uint64_t index; /* 0: from the cluster's first start */
    struct raft_config config;
};

enum { MEMBERSHIP_BYTES_MAX = 8 + RAFT_CONFIG_BYTES_MAX };
static_assert((int)MEMBERSHIP_BYTES_MAX <= (int)LIMIT_MEMBERSHIP_BYTES, "frontier and first groups hold it");

/* Returns the length. */
size_t membership_encode(const struct membership *membership, uint8_t ret_bytes[MEMBERSHIP_BYTES_MAX]);
/* STATUS_CORRUPT, STATUS_UNSUPPORTED. */
MUST_USE enum status membership_decode(struct slice bytes, struct membership *ret_membership, struct error *err);
/* What a new data directory begins with: every member of the configuration a voter, or nobody if this node joins. */
void membership_bootstrap(const struct config *config, struct membership *ret_membership);

#endif
