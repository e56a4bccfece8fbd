/*
 * Raft messages to their protobuf form and back. Log records travel as the frame's raw part, not in here.
 */
#ifndef HOLDFAST_SERVER_RAFT_WIRE_H
#define HOLDFAST_SERVER_RAFT_WIRE_H

#include "node/base/status.h"
#include "proto/wire.pb-c.h"
#include "raft/raft.h"

void raft_wire_encode(const struct raft_message *message, Wire__RaftMessage *ret_wire);
/* entries stays NULL. STATUS_CORRUPT: a type that isn't one, or fields that contradict it. */
MUST_USE enum status raft_wire_decode(const Wire__RaftMessage *wire, struct raft_message *ret_message,
                                      struct error *err);

#endif
