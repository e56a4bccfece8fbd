/*
 * Two rules about logs as they change, looked at in every step of every node's core (Ongaro and Ousterhout, Figure 3):
 *
 *   log matching         an entry of one index and term has the same size and the same entry before it in whatever log,
 *                        now and in earlier lives; so two logs that share it are equal up to it
 *   leader append-only   a leader appends behind its last entry, and nowhere else
 *
 *   matching_init, then matching_entry and matching_leader in any order, matching_deinit
 *
 * What was once in a log stays known, also if it was cut: its index and term are never used for anything else. Owner:
 * one thread.
 */
#ifndef HOLDFAST_SIM_MATCHING_H
#define HOLDFAST_SIM_MATCHING_H

#include "raft/raft.h"

struct matching__known;

struct matching {
    struct matching__known **by_index; /* of each index, one for each term */
    uint64_t capacity;
};

/* What one node's log was after its last step. */
struct matching_log {
    uint64_t led_term; /* it led this term; 0: it didn't lead */
    uint64_t last_index;
};

void matching_init(struct matching *matching);
void matching_deinit(struct matching *matching);

/* An entry that is in some log now. previous_term: of the entry before it, 0 at the log's first beginning;
 * MATCHING_UNKNOWN: that entry isn't in this log any more. False: another log had another one, or another before it. */
#define MATCHING_UNKNOWN UINT64_MAX
MUST_USE bool matching_entry(struct matching *matching, uint64_t index, uint64_t term, uint64_t previous_term,
                             uint64_t size_bytes);

/* A node's log after a step: who leads, where it was appended to (0: nowhere) and where it ends. False: a leader, who
 * was one before, cut or rewrote what it had. */
MUST_USE bool matching_leader(struct matching_log *log, bool leads, uint64_t term, uint64_t first_appended,
                              uint64_t last_index);

struct replica;

/* After each step of a replica's core, and with `update` NULL when a life has begun: fails the run if a rule is
 * broken. */
void matching__stepped(struct replica *replica, const struct raft *raft, const struct raft_update *update);

#endif
