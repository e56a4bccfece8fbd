/*
 * A store that isn't what it should be is filled again while the node runs (DESIGN rule 13, section 5).
 *
 *   NONE --damage, mismatch, order--> WANTED --another node leads--> ASKING --a snapshot is the store--> CATCHING UP
 *
 *   WANTED       --the damaged file went by itself----------------> NONE
 *   WANTED       --a snapshot that raft wanted came first---------> CATCHING UP
 *   ASKING       --nobody leads for long, the snapshot was bad----> WANTED
 *   CATCHING UP  --the log is applied as far as it was before-----> NONE
 *
 * WANTED. A leader hands the lead over first, and leads on until somebody takes it. A node that knows no leader waits:
 * what it holds may be needed, damaged or not.
 *
 * ASKING. Raft says in each answer that a snapshot is needed, and from which entry on (raft/snapshot.c). The log stays
 * from there, within twice the budget that a follower has. Meanwhile everything goes on: acknowledging, voting,
 * applying, and reads that don't need what is damaged. Only campaigning doesn't.
 *
 * The snapshot is older than what is applied here, as a rule: the store goes *back* to its frontier and applies the log
 * behind it again. The other way, a snapshot that is ahead, would have to be awaited with applying stopped for the
 * whole transfer (what is applied moves on, the snapshot doesn't): no reads for minutes where now there is no gap at
 * all. For the store shows what it showed until it has caught up (storage_ingest), so that nobody sees anything go
 * back, and a crash on the way is a start like any other: the frontier is in the manifest, the rest in the log.
 *
 * Not again within a minute after one that ended, well or not: told in the status.
 *
 * A leader also passes orders on to others, with heartbeats (orders; struct rebuild_order).
 *
 * Owner: the consensus loop. Nothing here blocks.
 */
#ifndef HOLDFAST_SERVER_REBUILD_H
#define HOLDFAST_SERVER_REBUILD_H

#include "node/base/limits.h"
#include "node/env/env.h"
#include "raft/raft.h"
#include "storage/storage.h"

struct consensus;
struct consensus_status;

enum rebuild_state { REBUILD_NONE, REBUILD_WANTED, REBUILD_ASKING, REBUILD_CATCHING_UP };

/* Why. The numbers of the last two are on the wire, in heartbeats. */
enum rebuild_reason { REBUILD_DAMAGE, REBUILD_MISMATCH = 1, REBUILD_OPERATOR = 2 };

/* What the leader tells a member. */
struct rebuild_order {
    uint64_t peer; /* 0: none */
    enum rebuild_reason reason;
    uint64_t since_us;
};

struct consensus_rebuild {
    enum rebuild_state state;
    enum rebuild_reason reason;
    struct storage_damage damage; /* REBUILD_DAMAGE */
    uint64_t asked_index;         /* as raft was told: entries behind it are needed here */
    uint64_t catch_up_index;      /* CATCHING_UP: what was applied before */
    uint64_t begun_us;
    uint64_t not_before_us; /* the next one */
    uint64_t handed_us;     /* when a leader last tried to hand over; 0: never */
    uint64_t leader_us;     /* when another leader was last known, while ASKING */
    uint64_t completed;     /* since the node started */
    uint64_t failed;
    char failure[ERROR_MESSAGE_BYTES_MAX]; /* why the newest failed; empty: it didn't */
    struct rebuild_order orders[LIMIT_MEMBERS];
    /* A store that an earlier start set aside goes when the node is whole. */
    uint64_t whole_us; /* since when it looks so; 0: it doesn't */
    bool is_tidy;
    bool is_tidying;
    struct env_work work;
};

/* A file turned out to be damaged. */
void rebuild__damaged(struct consensus *consensus, const struct storage_damage *damage);
/* The store is to be filled again for another reason. Nothing happens if one is under way or wanted. */
void rebuild__want(struct consensus *consensus, enum rebuild_reason reason);
/* Now and then. */
void rebuild__update(struct consensus *consensus);
/* How many parts of it must end before the actor goes: each calls consensus__part_stopped. */
uint32_t rebuild__stop(struct consensus *consensus);

/* True if a snapshot whose last entry is this one can take the place of the store. */
bool rebuild__wants(const struct consensus *consensus, uint64_t index, uint64_t term);
/* A snapshot is the store now, though not yet shown. */
void rebuild__installed(struct consensus *consensus);
/* A snapshot came, and couldn't be taken in. */
void rebuild__failed(struct consensus *consensus, const char *message);
/* Up to here it doesn't need the log; UINT64_MAX: it needs nothing. */
uint64_t rebuild__pin_index(const struct consensus *consensus);

/* Leader: the member is told to fill its store again. Nothing happens if it does already. */
void rebuild__order(struct consensus *consensus, uint64_t peer, enum rebuild_reason reason);
/* Why the member can't fill its store again now; NULL: it can. Leader. */
const char *rebuild__refusal(struct consensus *consensus, uint64_t id);
/* Puts an order into a heartbeat that is about to go; takes one. */
void rebuild__tag(const struct consensus *consensus, struct raft_message *message);
void rebuild__received(struct consensus *consensus, const struct raft_message *message);

static inline const char *rebuild_state_name(enum rebuild_state state) {
    static const char *const names[] = {[REBUILD_NONE] = "",
                                        [REBUILD_WANTED] = "wanted",
                                        [REBUILD_ASKING] = "asking",
                                        [REBUILD_CATCHING_UP] = "catching up"};
    return names[state];
}
void rebuild__fill_status(struct consensus *consensus, struct consensus_status *status);

#endif
