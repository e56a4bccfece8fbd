/*
 * Every maximum, in one place. Nothing that another party can make grow is without one.
 */
#ifndef HOLDFAST_BASE_LIMITS_H
#define HOLDFAST_BASE_LIMITS_H

#include <assert.h>

#define KIB (1024u)
#define MIB (1024u * 1024u)

enum {
    LIMIT_KEY_BYTES = 4 * KIB,                       /* a key */
    LIMIT_VALUE_BYTES = 16 * MIB,                    /* a value */
    LIMIT_ENTRY_PAYLOAD_BYTES = 16 * MIB + 64 * KIB, /* one log entry's payload: a write, transaction included */
    LIMIT_BATCH_OPERATIONS = 64 * 1024,              /* operations in one write */
    LIMIT_GROUP_BYTES = 1 * MIB,                     /* one log write, unless a single entry is larger */
    LIMIT_UNCOMMITTED_BYTES = 64 * MIB,              /* the tail of the log that no quorum has yet */
    LIMIT_APPEND_BYTES = 256 * KIB,                  /* one AppendEntries, unless a single entry is larger (peers.h) */
    LIMIT_FRAME_MESSAGE_BYTES = 1 * MIB,             /* a frame's protobuf part */
    LIMIT_FRAME_RAW_BYTES = 16 * MIB + 256 * KIB,    /* a frame's raw part */
    LIMIT_UNPACK_BUDGET_BYTES = 8 * MIB,             /* what one message may allocate when unpacked */
    LIMIT_MEMBERS = 9,                               /* nodes of a cluster, learners included */
    LIMIT_NAME_BYTES = 64,                           /* a node's name */
    LIMIT_ADDRESS_BYTES = 128,                       /* "host:port" */
    LIMIT_PATH_BYTES = 1024,                         /* a path that we build */
    LIMIT_MEMBERSHIP_BYTES = 7 * KIB / 2,            /* an encoded membership; it must fit a segment's first group */
    LIMIT_SCAN_ENTRIES = 100 * 1000,                 /* a page of a scan */
    LIMIT_SCAN_BYTES = 4 * MIB,                      /* a page of a scan, unless a single pair is larger */
};

static_assert(LIMIT_ENTRY_PAYLOAD_BYTES > LIMIT_VALUE_BYTES + LIMIT_KEY_BYTES, "the largest pair must fit an entry");
static_assert(LIMIT_FRAME_RAW_BYTES > LIMIT_ENTRY_PAYLOAD_BYTES, "the largest entry must fit a frame");
static_assert(LIMIT_UNCOMMITTED_BYTES > 2 * LIMIT_ENTRY_PAYLOAD_BYTES,
              "two of the largest entries must be able to wait");

#endif
