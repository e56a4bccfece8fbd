/*
 * What is checked of a message before anything is changed. A message that fails is ignored whole, whatever sent it.
 *
 * Beyond this, handlers answer STATUS_INVALID for what only shows against our own log: a second leader in one term, an
 * APPEND that would cut what is committed.
 *
 * Nodes that aren't in our configuration may lead and campaign: ours may be older than theirs (thesis, section 4.1),
 * and a new node has none at all. Their answers, though, count for nothing.
 */
#include "raft/raft_internal.h"

static bool numbers_are_sane(const struct raft_message *message) {
    const uint64_t numbers[] = {message->term,           message->index,     message->log_term, message->commit,
                                message->hint_index,     message->hint_term, message->round,    message->floor,
                                message->needs_snapshot, message->life};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (numbers[i] > RAFT__NUMBER_MAX) {
            return false;
        }
    }
    return message->term > 0 && message->log_term <= message->term;
}

/* Entries follow the previous one and each other, and their terms don't decrease. */
static bool entries_are_sane(const struct raft_message *message, uint32_t *ret_run_count, uint32_t *ret_config_count) {
    uint64_t term = message->log_term;
    uint32_t run_count = 0;
    uint32_t config_count = 0;
    for (uint32_t i = 0; i < message->entry_count; i++) {
        const struct raft_entry *entry = &message->entries[i];
        if (entry->index != message->index + 1 + i || entry->term < term || entry->term > message->term ||
            entry->term == 0 || entry->size_bytes > RAFT__ENTRY_BYTES_MAX) {
            return false;
        }
        if (entry->kind == RAFT_ENTRY_CONFIG) {
            if (entry->config == NULL || raft__config_check(entry->config) != STATUS_OK) {
                return false;
            }
            config_count++;
        }
        run_count += entry->term != term;
        term = entry->term;
    }
    *ret_run_count = run_count;
    *ret_config_count = config_count;
    return true;
}

bool raft__message_is_for_members(const struct raft_message *message) {
    switch (message->type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE:
    case RAFT_APPEND:
    case RAFT_HEARTBEAT:
    case RAFT_TIMEOUT_NOW: return false; /* the last from a leader that removed itself */
    default: return true;
    }
}

enum status raft__message_check(const struct raft *raft, const struct raft_message *message, uint32_t *ret_run_count,
                                uint32_t *ret_config_count) {
    if (message->to != raft->id || message->from == raft->id || message->from == RAFT_NO_NODE ||
        !numbers_are_sane(message)) {
        return STATUS_INVALID;
    }
    *ret_run_count = 0;
    *ret_config_count = 0;
    bool sane = true;
    switch (message->type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE: sane = (message->index == 0) == (message->log_term == 0); break;
    case RAFT_APPEND:
        sane = (message->index == 0) == (message->log_term == 0) &&
               (message->entry_count == 0 || message->entries != NULL) &&
               entries_are_sane(message, ret_run_count, ret_config_count);
        break;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY:
    case RAFT_APPEND_REPLY:
    case RAFT_HEARTBEAT:
    case RAFT_HEARTBEAT_REPLY:
    case RAFT_TIMEOUT_NOW: break;
    case RAFT_READ_INDEX:
    case RAFT_READ_INDEX_REPLY: sane = message->round > 0; break;
    case RAFT_MESSAGE_TYPE_COUNT:
    default: sane = false; break;
    }
    return sane ? STATUS_OK : STATUS_INVALID;
}
