/*
 * The effective membership as bytes: what a segment's first group and the manifest's frontier repeat.
 *
 * The bytes are raft's (raft_config_encode, raft/README.md). Addresses and thumbprints still come from the
 * configuration: a bootstrapped membership leaves the addresses empty.
 */
#ifndef HOLDFAST_SERVER_MEMBERSHIP_H
#define HOLDFAST_SERVER_MEMBERSHIP_H

#include "node/base/slice.h"
#include "node/base/status.h"
#include "node/server/config.h"
#include "raft/raft.h"

enum { MEMBERSHIP_BYTES_MAX = RAFT_CONFIG_BYTES_MAX };

/* Returns the length. */
size_t membership_encode(const struct raft_config *membership, uint8_t ret_bytes[MEMBERSHIP_BYTES_MAX]);
/* STATUS_CORRUPT, STATUS_UNSUPPORTED. */
MUST_USE enum status membership_decode(struct slice bytes, struct raft_config *ret_membership, struct error *err);
/* Every member of the configuration a voter: how a new cluster starts. */
void membership_bootstrap(const struct config *config, struct raft_config *ret_membership);
/* Every node of the membership is a member of the configuration: STATUS_INVALID names one that isn't. */
MUST_USE enum status membership_match(const struct raft_config *membership, const struct config *config,
                                      struct error *err);

#endif
