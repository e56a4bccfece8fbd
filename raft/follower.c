/*
 * What a leader's messages do to the others (Figure 2, "AppendEntries RPC").
 *
 * matched_index is how far our log is known to equal this term's leader's: the largest previous index plus entries of
 * an APPEND that fitted, at least what is committed. It bounds what a message may commit, and nothing at or below it is
 * ever cut.
 *
 * Answers. A refusal goes at once. A match goes when the entries of the request are durable: at once if they are
 * already, else from the step that hears of the sync; several APPENDs may share one answer. What an answer says is
 * min(matched_index, synced_index), never more.
 */
#include "raft/raft_internal.h"

/* The message is from this term's leader: follow it. STATUS_INVALID if there is another, which no correct peer can
 * cause. */
static enum status follow(struct raft *raft, uint64_t leader) {
    CHECK(leader != raft->id);
    if (raft->role == RAFT_LEADER || (raft->leader != RAFT_NO_NODE && raft->leader != leader)) {
        return STATUS_INVALID;
    }
    raft->role = RAFT_FOLLOWER;
    raft->leader = leader;
    raft->leader_heard_us = raft->now_us;
    raft->election_deadline_us = raft->now_us + raft->election_timeout_us;
    return STATUS_OK;
}

static void commit_up_to(struct raft *raft, uint64_t leader_commit) {
    uint64_t commit_index = raft__min(leader_commit, raft->matched_index);
    if (commit_index > raft->commit_index) {
        raft__set_commit(raft, commit_index);
    }
}

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

static uint64_t provable_match(const struct raft *raft) { return raft__min(raft->matched_index, raft->synced_index); }

static void answer_match(struct raft *raft) {
    uint64_t match = provable_match(raft);
    raft__send(raft, RAFT_APPEND_REPLY, raft->ack_to)->index = match;
    raft->acked_index = match;
    if (match == raft->matched_index) {
        raft->ack_to = RAFT_NO_NODE;
    }
}

void raft__acknowledge(struct raft *raft) {
    if (raft->ack_to == RAFT_NO_NODE || !raft->state_synced) {
        return;
    }
    uint64_t match = provable_match(raft);
    if (match > raft->acked_index || match == raft->matched_index) {
        answer_match(raft);
    }
}

/*
 * Where the leader should try next: the newest entry of ours that may be in its log. Its entries up to `index` have
 * terms up to the message's, so longer runs of higher terms of ours are skipped in one go; what is known to match
 * needn't be doubted.
 */
static void answer_refusal(struct raft *raft, const struct raft_message *message) {
    uint64_t hint = raft__log_newest_with_term(&raft->log, message->index, message->log_term);
    hint = raft__max(hint, raft->matched_index);
    struct raft_message *reply = raft__send(raft, RAFT_APPEND_REPLY, message->from);
    reply->reject = true;
    reply->index = message->index;
    reply->hint_index = hint;
    reply->hint_term = raft__log_term_at(&raft->log, hint);
}

/* ---- APPEND ----------------------------------------------------------------------------------------------------- */

enum fit { FIT_MATCHES, FIT_REFUSED, FIT_CONTRADICTS };

/* How the entry before the first new one relates to our log. */
static enum fit fit_of_previous(const struct raft *raft, const struct raft_message *message) {
    const struct raft__log *log = &raft->log;
    if (message->index > log->last_index) {
        return FIT_REFUSED;
    }
    uint64_t term = raft__log_term_at(log, message->index);
    if (term == message->log_term || (term == 0 && message->index <= log->start_index)) {
        return FIT_MATCHES; /* what was trimmed was committed: every leader has it */
    }
    return message->index <= raft->matched_index ? FIT_CONTRADICTS : FIT_REFUSED;
}

/* How many of the first entries are here already (or were, before they were trimmed). */
static uint32_t count_present(const struct raft__log *log, const struct raft_message *message) {
    uint32_t skip = 0;
    if (message->index == log->last_index) {
        return 0; /* the usual case */
    }
    if (message->index < log->start_index) {
        skip = (uint32_t)raft__min(message->entry_count, log->start_index - message->index);
    }
    while (skip < message->entry_count && message->entries[skip].index <= log->last_index &&
           raft__log_term_at(log, message->entries[skip].index) == message->entries[skip].term) {
        skip++;
    }
    return skip;
}

/* Cuts the log at the first entry that differs, and only there, and takes over the rest. */
static enum status take_entries(struct raft *raft, const struct raft_message *message, uint32_t skip) {
    struct raft__log *log = &raft->log;
    const struct raft_entry *first = &message->entries[skip];
    CHECK(first->index > log->start_index && first->index <= log->last_index + 1);
    if (first->index <= raft->matched_index || first->term < raft__log_term_at(log, first->index - 1)) {
        return STATUS_INVALID; /* would cut what is known to match, or is committed */
    }
    if (first->index <= log->last_index) {
        raft__log_truncate(log, first->index - 1);
        raft__membership_truncate(raft, first->index - 1);
        raft->synced_index = raft__min(raft->synced_index, log->last_index);
        raft->truncated_term = raft->term;
    }
    for (uint32_t i = skip; i < message->entry_count; i++) {
        raft__log_append(log, message->entries[i].term, message->entries[i].size_bytes);
        if (message->entries[i].kind == RAFT_ENTRY_CONFIG) {
            raft__membership_push(raft, message->entries[i].index, message->entries[i].config);
        }
    }
    raft->update.append.source = RAFT_APPEND_MESSAGE;
    raft->update.append.skip = skip;
    raft->update.append.count = message->entry_count - skip;
    raft->update.append.first_index = first->index;
    raft->update.append.term = raft->term;
    return STATUS_OK;
}

enum status raft__handle_append(struct raft *raft, const struct raft_message *message) {
    CHECK(message->term == raft->term);
    enum status status = follow(raft, message->from);
    if (status != STATUS_OK) {
        return status;
    }
    switch (fit_of_previous(raft, message)) {
    case FIT_MATCHES: break;
    case FIT_REFUSED: answer_refusal(raft, message); return STATUS_OK;
    case FIT_CONTRADICTS: return STATUS_INVALID;
    }
    uint32_t skip = count_present(&raft->log, message);
    if (skip < message->entry_count) {
        status = take_entries(raft, message, skip);
        if (status != STATUS_OK) {
            return status;
        }
    }
    uint64_t request_match = message->index + message->entry_count;
    raft->matched_index = raft__max(raft->matched_index, request_match);
    commit_up_to(raft, message->commit);
    raft->ack_to = message->from;
    if (raft->state_synced && request_match <= raft->synced_index) {
        answer_match(raft);
    }
    return STATUS_OK;
}

/* ---- HEARTBEAT -------------------------------------------------------------------------------------------------- */

enum status raft__handle_heartbeat(struct raft *raft, const struct raft_message *message) {
    CHECK(message->term == raft->term);
    enum status status = follow(raft, message->from);
    if (status != STATUS_OK) {
        return status;
    }
    commit_up_to(raft, message->commit);
    uint64_t floor_index = raft__min(message->floor, raft->log.last_index);
    raft->floor_index = raft__max(raft->floor_index, floor_index);
    struct raft_message *reply = raft__send(raft, RAFT_HEARTBEAT_REPLY, message->from);
    reply->round = message->round;
    reply->index = provable_match(raft);
    return STATUS_OK;
}
