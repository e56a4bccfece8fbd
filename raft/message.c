/*
 * What is checked of a message before anything is changed. A message that fails is ignored whole, whatever sent it.
 *
 * Beyond this, handlers answer STATUS_INVALID for what only shows against our own log: a second leader in one term, an
 * APPEND that would cut what is committed.
 */
#include "raft/raft_internal.h"

static bool numbers_are_sane(const struct raft_message *message) {
    const uint64_t numbers[] = {message->term,       message->index,     message->log_term, message->commit,
                                message->hint_index, message->hint_term, message->round,    message->floor};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (numbers[i] > RAFT__NUMBER_MAX) {
            return false;
        }
    }
    return message->term > 0 && message->log_term <= message->term;
}

/* Entries follow the previous one and each other, and their terms don't decrease. */
static bool entries_are_sane(const struct raft_message *message, uint32_t *ret_run_count) {
    uint64_t term = message->log_term;
    uint32_t run_count = 0;
    for (uint32_t i = 0; i < message->entry_count; i++) {
        const struct raft_entry *entry = &message->entries[i];
        if (entry->index != message->index + 1 + i || entry->term < term || entry->term > message->term ||
            entry->term == 0 || entry->size_bytes > RAFT__ENTRY_BYTES_MAX) {
            return false;
        }
        run_count += entry->term != term;
        term = entry->term;
    }
    *ret_run_count = run_count;
    return true;
}

enum status raft__message_check(const struct raft *raft, const struct raft_message *message, uint32_t *ret_run_count) {
    if (message->to != raft->id || message->from == raft->id ||
        raft__config_find(&raft->config, message->from) == RAFT__NOWHERE || !numbers_are_sane(message)) {
        return STATUS_INVALID;
    }
    *ret_run_count = 0;
    bool sane = true;
    switch (message->type) {
    case RAFT_PREVOTE:
    case RAFT_VOTE: sane = (message->index == 0) == (message->log_term == 0); break;
    case RAFT_APPEND:
        sane = (message->index == 0) == (message->log_term == 0) &&
               (message->entry_count == 0 || message->entries != NULL) && entries_are_sane(message, ret_run_count);
        break;
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE_REPLY:
    case RAFT_APPEND_REPLY:
    case RAFT_HEARTBEAT:
    case RAFT_HEARTBEAT_REPLY: break;
    case RAFT_MESSAGE_TYPE_COUNT:
    default: sane = false; break;
    }
    return sane ? STATUS_OK : STATUS_INVALID;
}
