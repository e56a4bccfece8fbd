/*
 * What the scans' files share: consensus_scan.c (a member's own scan; messages), consensus_scan_round.c (the leader's
 * rounds). Part of struct consensus; owner: the consensus loop.
 */
#ifndef HOLDFAST_SERVER_CONSENSUS_SCAN_H
#define HOLDFAST_SERVER_CONSENSUS_SCAN_H

#include "node/server/consensus.h"
#include "node/server/digest_votes.h"

enum { SCAN_JOBS = 2 }; /* one that is being stopped, and the newest */

struct consensus_scan {
    /* As a member: the newest scan of this node. */
    struct storage_digest_scan jobs[SCAN_JOBS];
    bool is_used[SCAN_JOBS]; /* until its done ran */
    uint32_t newest;         /* of the jobs; matters while it runs */
    uint64_t index;          /* of the entry that asked for it; 0: none in this life, or none of this store */
    enum consensus_scan_state state;
    const char *reason; /* SCAN_MISSING: why; static text or `error` */
    char error[CONSENSUS_SCAN_REASON_BYTES];
    uint64_t begun_us;
    uint64_t keys;
    uint64_t bytes;
    struct digest digest;
    bool is_suspected; /* a leader says so, about this scan */
    /* As the leader: */
    struct consensus_proposal proposal;
    bool is_proposed;     /* until the proposal's done ran */
    bool is_wanted;       /* a round is due, or was asked for */
    uint64_t due_us;      /* when the next one is, of itself */
    uint64_t proposed_us; /* the last time */
    uint64_t round_term;
    uint64_t round_begun_us; /* with the entry */
    uint64_t opened_us;      /* by this leader */
    uint64_t asked_us;       /* the members, the last time */
    struct consensus_scan_round round;
    char suspects[DIGEST_NAMES_BYTES];
    char problem[ERROR_MESSAGE_BYTES_MAX]; /* empty: none */
    /* What came of it: */
    uint64_t agreed_index;
    struct digest agreed;
    uint64_t mismatches;
};

/* ---- consensus_scan.c ------------------------------------------------------------------------------------------- */

void scan__init(struct consensus *consensus);
/* Right after the engine applied this entry, which isn't replayed from an earlier life. */
void scan__applied(struct consensus *consensus, const struct wal_record *record);
/* A snapshot took the place of the store: what was found in the old one says nothing any more. */
void scan__forget(struct consensus *consensus);
/* FRAME_SCAN_ASK, FRAME_SCAN_REPORT from an authenticated peer. */
void scan__received(struct consensus *consensus, uint64_t from, uint8_t type, struct slice message);
/* Now and then: scans that take too long end; the leader's rounds go on. */
void scan__tick(struct consensus *consensus);
void scan__fill_status(const struct consensus *consensus, struct consensus_status *status);
/* False: there is none. */
bool scan__problem(const struct consensus *consensus, char *ret_text, size_t size);
/* What this node says of the scan that the entry at index asked for. */
void scan__own_report(const struct consensus *consensus, uint64_t index, struct consensus_scan_member *ret_report);
/* Asks a member; is_suspected: and tells it that its digest there is not the majority's. */
void scan__ask(struct consensus *consensus, uint64_t to, uint64_t index, bool is_suspected);

/* ---- consensus_scan_round.c ------------------------------------------------------------------------------------- */

void scan_round__tick(struct consensus *consensus);
/* This node applied the entry of a round. */
void scan_round__begun(struct consensus *consensus);
/* A member's word, in this term. */
void scan_round__reported(struct consensus *consensus, uint64_t from, uint64_t index,
                          const struct consensus_scan_member *report);

#endif
