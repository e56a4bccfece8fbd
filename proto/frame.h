/*
 * The frame: a fixed header, a small protobuf message, raw bytes.
 *
 *   0  u32  magic        0x31524648 ("HFR1")
 *   4  u8   version      1
 *   5  u8   type         enum frame_type
 *   6  u16  flags        0; anything else is refused
 *   8  u64  request id   chosen by who asks; a reply repeats it; 0 for what the server says on its own
 *   16 u32  message length
 *   20 u32  raw length
 *   24 message, raw
 *
 * All little-endian. Lengths are checked against the connection's limits before anything is allocated.
 */
#ifndef HOLDFAST_PROTO_FRAME_H
#define HOLDFAST_PROTO_FRAME_H

#include "node/base/slice.h"
#include "node/base/status.h"

#include <stdint.h>

enum { FRAME_HEADER_BYTES = 24, FRAME_VERSION = 1, FRAME_MAGIC = 0x31524648 };

enum frame_type {
    FRAME_GREETING = 1,
    FRAME_REFUSAL = 2,
    FRAME_ERROR = 3, /* Error: the reply of any request that failed */
    FRAME_PING = 4,  /* empty, a peer's PeerPing; answered by PONG with the same id */
    FRAME_PONG = 5,

    FRAME_PUT = 16,
    FRAME_DELETE = 17,
    FRAME_BATCH = 18,
    FRAME_WRITE_REPLY = 19,
    FRAME_GET = 20,
    FRAME_GET_REPLY = 21,
    FRAME_SCAN = 22,
    FRAME_SCAN_REPLY = 23,
    FRAME_STATUS = 24,
    FRAME_STATUS_REPLY = 25,
    FRAME_EXPLAIN_LOG = 26,
    FRAME_EXPLAIN_LOG_REPLY = 27,
    FRAME_DELETE_RANGE = 28, /* answered by WRITE_REPLY */
    FRAME_UPKEEP = 29,
    FRAME_UPKEEP_REPLY = 30,
    FRAME_MEMBER = 31,
    FRAME_MEMBER_REPLY = 32,
    FRAME_COMPARE = 33,
    FRAME_COMPARE_REPLY = 34,

    FRAME_PEER_HELLO = 64,
    FRAME_RAFT = 65,
    FRAME_SNAPSHOT_OFFER = 66, /* bulk connection; answered by SNAPSHOT_WANT */
    FRAME_SNAPSHOT_CHUNK = 67, /* bulk connection */
    FRAME_SNAPSHOT_WANT = 68,  /* control connection, from the receiver */
    FRAME_SCAN_ASK = 69,       /* control connection, from the leader; answered by SCAN_REPORT */
    FRAME_SCAN_REPORT = 70     /* control connection */
};

/* Stable numbers of errors on the wire; wire_code_of and status_of_wire translate. */
enum wire_code {
    WIRE_OK = 0,
    WIRE_NOT_FOUND = 1,
    WIRE_INVALID = 2, /* malformed request */
    WIRE_TOO_LARGE = 3,
    WIRE_BUSY = 4,
    WIRE_TIMEOUT = 5,
    WIRE_NOT_LEADER = 6,
    WIRE_UNAVAILABLE = 7,
    WIRE_DENIED = 8, /* the identity has no role that permits this */
    WIRE_UNSUPPORTED = 9,
    WIRE_NO_SPACE = 10,
    WIRE_CORRUPT = 11,
    WIRE_INTERNAL = 12,
    WIRE_COMPACTED = 13,
    WIRE_UNKNOWN = 14,   /* outcome unknown */
    WIRE_CONDITION = 15, /* a condition of the request does not hold */
    WIRE_EXISTS = 16,
    WIRE_NO_CERTIFICATE = 32,
    WIRE_CERTIFICATE_UNKNOWN = 33, /* its thumbprint is on no list */
    WIRE_CERTIFICATE_EXPIRED = 34,
    WIRE_CERTIFICATE_NOT_YET_VALID = 35,
    WIRE_CERTIFICATE_UNTRUSTED = 36, /* not signed by the CA */
    WIRE_WRONG_CLUSTER = 37,
    WIRE_REMOVED = 38 /* peers: the node was removed from the cluster */
};

struct frame_header {
    uint8_t type;
    uint64_t request_id;
    uint32_t message_len;
    uint32_t raw_len;
};

/* Complete both ways. A code that this version doesn't know gives STATUS_UNSUPPORTED, every refusal STATUS_DENIED. */
enum wire_code wire_code_of(enum status status);
enum status status_of_wire(uint32_t code);

void frame_header_encode(uint8_t out[FRAME_HEADER_BYTES], const struct frame_header *header);
/* in: FRAME_HEADER_BYTES bytes. STATUS_CORRUPT (magic, flags), STATUS_UNSUPPORTED (version), STATUS_TOO_LARGE (a length
 * beyond its limit); err names what it saw. Unknown types pass: the receiver answers UNSUPPORTED. */
MUST_USE enum status frame_header_decode(const uint8_t *in, uint32_t message_len_max, uint32_t raw_len_max,
                                         struct frame_header *ret_header, struct error *err);

#endif
