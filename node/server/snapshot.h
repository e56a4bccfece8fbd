/*
 * Raft snapshots between nodes: a checkpoint's files, streamed, taken in, and the log that starts behind them (DESIGN
 * rule 16; HAZARDS 18 to 21, 49, 63).
 *
 *   leader    raft names a peer --> checkpoint --> offer --> chunks --> the peer says done --> SNAPSHOT_SENT
 *   follower  offer --> where it goes on --> chunks to snapshot-in --> storage_ingest --> INSTALLED --> done
 *
 * Offers and chunks go over the bulk connection, answers over the control connection of the other side; heartbeats wait
 * for neither. Disks are read and written by workers, one job at a time for each transfer. A few chunks are in memory.
 *
 * Transfers give way to the load (snapshot_pace.h): how long the leader's writes take decides how fast they are.
 *
 * A connection that breaks costs nothing but time: an offer is repeated until it is answered, and the answer says from
 * where to go on. A process that ends loses what it had of a transfer. A new leader starts anew.
 *
 * Legal order: snapshots_new; snapshots_start when raft, log, store and peers are there; the rest; snapshots_stop;
 * when that, and the store, have ended: snapshots_free. Owner: the consensus loop.
 */
#ifndef HOLDFAST_SERVER_SNAPSHOT_H
#define HOLDFAST_SERVER_SNAPSHOT_H

#include "node/base/slice.h"
#include "node/base/status.h"
#include "node/server/config.h"

struct consensus;
struct snapshots;

enum { SNAPSHOT_TRANSFERS_MAX = LIMIT_MEMBERS + 1 };

/* One transfer that is under way. */
struct snapshot_status {
    uint64_t peer;
    bool incoming;
    const char *state; /* static */
    uint64_t index;    /* of its frontier; 0: not known yet */
    uint64_t done_bytes;
    uint64_t total_bytes;
    /* Of one that is sent: what may leave now, of all of them together, and why (snapshot_pace.h). */
    uint64_t bytes_per_second; /* 0: no limit, or nothing is being sent */
    const char *pace;          /* static; empty: nothing is being sent */
};

struct snapshots_status {
    uint32_t transfer_count;
    struct snapshot_status transfers[SNAPSHOT_TRANSFERS_MAX];
    uint64_t sent; /* since the node started */
    uint64_t installed;
    uint64_t failed;                       /* of those that this node sends */
    uint64_t failed_peer;                  /* whose newest one failed; 0: none */
    char problem[ERROR_MESSAGE_BYTES_MAX]; /* why */
};

/* STATUS_NO_MEMORY only. Borrows consensus. */
MUST_USE enum status snapshots_new(struct consensus *consensus, struct snapshots **ret_snapshots);
/* NULL is accepted. */
void snapshots_free(struct snapshots *snapshots);
/* Nothing is sent or taken in any more; when no job runs, stopped runs, never from inside. */
void snapshots_stop(struct snapshots *snapshots, void (*stopped)(void *context), void *context);

/* Raft's snapshot_peers. May be called while raft's update is carried out: nothing is stepped from inside. */
void snapshots_request(struct snapshots *snapshots, const uint64_t *peers, uint32_t peer_count);
/* A frame of a peer that was authenticated. Borrowed for the call. */
void snapshots_receive(struct snapshots *snapshots, uint64_t node_id, uint8_t type, struct slice message,
                       struct slice raw);
/* A received snapshot is about to become the store's content: no record may be appended, nobody elected here. */
bool snapshots_hold_log(const struct snapshots *snapshots);
/* Up to here no transfer needs the log; UINT64_MAX: there is none. */
uint64_t snapshots_pin_index(const struct snapshots *snapshots);
/* For wal explain: each transfer's own, false where there is none. */
bool snapshots_pin_of(const struct snapshots *snapshots, uint64_t peer, uint64_t *ret_index);
/* A worker is about a transfer's files. */
bool snapshots_work(const struct snapshots *snapshots);
/* A write that this node led was answered well; it took so long since it was handed in. For the pace. */
void snapshots_note_write(struct snapshots *snapshots, uint64_t took_us);
void snapshots_get_status(const struct snapshots *snapshots, struct snapshots_status *ret_status);

#endif
