/*
 * AppendEntries: out from memory or read back from the log, in with every record checked.
 *
 * Out. Messages to one peer keep their order. One whose records are in the log's memory leaves at once; else it and all
 * behind it queue until a read brought the records. When leadership ends, the queue is dropped: what it says may no
 * longer be in the log.
 */
#include "node/server/consensus_internal.h"

#include <inttypes.h>

static void send_next(struct append_sender *sender);

void append__init_senders(struct consensus *consensus) {
    const struct config *config = consensus->options.config;
    for (uint32_t i = 0; i < config->member_count; i++) {
        if (config->members[i].id != config->id) {
            struct append_sender *sender = &consensus->senders[consensus->sender_count++];
            sender->consensus = consensus;
            sender->node_id = config->members[i].id;
        }
    }
}

void append__deinit_senders(struct consensus *consensus) {
    for (uint32_t i = 0; i < consensus->sender_count; i++) {
        mem_free(consensus->options.env->alloc, consensus->senders[i].queue);
    }
}

/* Sends the first `count` entries of a message and leaves the message at the rest: several small APPENDs are as good as
 * one. */
static void send_piece(struct consensus *consensus, struct raft_message *message, uint32_t count,
                       const struct slice *parts, size_t part_count) {
    CHECK(count <= message->entry_count);
    struct raft_message piece = *message;
    piece.entry_count = count;
    (void)peers_send(consensus->peers, &piece, parts, part_count);
    message->index += count;
    message->log_term = raft_term_at(consensus->raft, message->index);
    message->entry_count -= count;
}

/* True if all of it left, or was dropped because nobody listens; false if the records of what remains aren't in memory.
 */
static bool send_from_memory(struct consensus *consensus, struct raft_message *message) {
    struct slice parts[CONSENSUS_PARTS_MAX];
    size_t part_count = 0;
    uint32_t count = 0;
    do {
        if (message->entry_count > 0) {
            count = wal_cached(consensus->wal, message->index + 1, message->entry_count, SIZE_MAX, parts,
                               CONSENSUS_PARTS_MAX, &part_count);
            if (count == 0) {
                return false;
            }
        }
        send_piece(consensus, message, count, parts, part_count);
    } while (message->entry_count > 0);
    return true;
}

static bool is_stale(const struct consensus *consensus, const struct raft_message *message) {
    return consensus->role != RAFT_LEADER || message->term != raft_term(consensus->raft);
}

static void on_read(struct wal_read *read) {
    struct append_sender *sender = CONTAINER_OF(read, struct append_sender, read);
    struct consensus *consensus = sender->consensus;
    struct raft_message *message = &sender->queue[sender->queue_head];
    sender->reading = false;
    enum status status = read->status;
    if (consensus__is_dead(consensus)) {
        wal_read_release(read);
        return;
    }
    if (status == STATUS_OK && !is_stale(consensus, message)) {
        send_piece(consensus, message, read->count, &read->records, 1);
    }
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
        log_event(consensus->options.logger, LOG_ERROR, "log.read", "index=%" PRIu64 " reason=%s", read->first_index,
                  log_quote(quoted, sizeof quoted, read->error.message));
    }
    wal_read_release(read);
    if (status != STATUS_OK) {
        sender->queue_count = 0;
        struct raft_event event = {.type = RAFT_EVENT_UNREACHABLE, .u.peer = sender->node_id};
        (void)consensus__step(consensus, &event);
        return;
    }
    if (message->entry_count == 0) {
        sender->queue_head = (sender->queue_head + 1) % CONSENSUS_APPENDS_QUEUED_MAX;
        sender->queue_count--;
    }
    send_next(sender);
}

/* Sends from the queue's head until it is empty or a read is under way. */
static void send_next(struct append_sender *sender) {
    struct consensus *consensus = sender->consensus;
    while (sender->queue_count > 0 && !sender->reading) {
        struct raft_message *message = &sender->queue[sender->queue_head];
        if (is_stale(consensus, message)) {
            sender->queue_count = 0;
            return;
        }
        if (send_from_memory(consensus, message)) {
            sender->queue_head = (sender->queue_head + 1) % CONSENSUS_APPENDS_QUEUED_MAX;
            sender->queue_count--;
            continue;
        }
        sender->reading = true;
        sender->read = (struct wal_read){.first_index = message->index + 1,
                                         .count_max = message->entry_count,
                                         .bytes_max = SIZE_MAX,
                                         .done = on_read};
        wal_read(consensus->wal, &sender->read);
    }
}

static struct append_sender *find_sender(struct consensus *consensus, uint64_t node_id) {
    for (uint32_t i = 0; i < consensus->sender_count; i++) {
        if (consensus->senders[i].node_id == node_id) {
            return &consensus->senders[i];
        }
    }
    return NULL;
}

void append__send(struct consensus *consensus, const struct raft_message *message) {
    struct append_sender *sender = find_sender(consensus, message->to);
    if (sender == NULL) {
        return;
    }
    struct raft_message rest = *message;
    if (sender->queue_count == 0 && send_from_memory(consensus, &rest)) {
        return;
    }
    if (sender->queue == NULL) {
        sender->queue = mem_alloc(consensus->options.env->alloc, CONSENSUS_APPENDS_QUEUED_MAX * sizeof *sender->queue);
    }
    /* Dropped when memory or the queue is out: raft finds the gap and probes again. */
    if (sender->queue == NULL || sender->queue_count == CONSENSUS_APPENDS_QUEUED_MAX) {
        return;
    }
    sender->queue[(sender->queue_head + sender->queue_count) % CONSENSUS_APPENDS_QUEUED_MAX] = rest;
    sender->queue_count++;
    send_next(sender);
}

/* ---- In --------------------------------------------------------------------------------------------------------- */

static enum status grow_records(struct consensus *consensus, uint32_t count) {
    if (count <= consensus->records_capacity) {
        return STATUS_OK;
    }
    struct alloc *alloc = consensus->options.env->alloc;
    struct wal_record *records = mem_resize(alloc, consensus->records, count * sizeof *records);
    if (records == NULL) {
        return STATUS_NO_MEMORY;
    }
    consensus->records = records;
    struct raft_entry *entries = mem_resize(alloc, consensus->entries, count * sizeof *entries);
    if (entries == NULL) {
        return STATUS_NO_MEMORY;
    }
    consensus->entries = entries;
    consensus->records_capacity = count;
    return STATUS_OK;
}

/* Every record is checked before raft hears of the first. */
static enum status decode_records(struct consensus *consensus, const struct raft_message *message, struct slice raw,
                                  struct error *err) {
    if (message->entry_count > raw.len / WAL_RECORD_HEADER_BYTES) {
        return error_set(err, STATUS_CORRUPT, "%u entries can't be in %zu bytes", message->entry_count, raw.len);
    }
    enum status status = grow_records(consensus, message->entry_count);
    if (status != STATUS_OK) {
        return error_set(err, status, "no memory for %u records", message->entry_count);
    }
    for (uint32_t i = 0; i < message->entry_count; i++) {
        struct wal_record *record = &consensus->records[i];
        status = wal_record_decode(&raw, record, err);
        if (status != STATUS_OK) {
            return status;
        }
        consensus->entries[i] = (struct raft_entry){.index = record->index,
                                                    .term = record->term,
                                                    .size_bytes = (uint32_t)record->bytes.len,
                                                    .kind = record->kind};
    }
    return raw.len == 0 ? STATUS_OK : error_set(err, STATUS_CORRUPT, "%zu bytes behind the last record", raw.len);
}

static bool has_room(struct consensus *consensus, const struct raft_message *message, size_t raw_len) {
    if (snapshots_hold_log(consensus->snapshots)) {
        return message->entry_count == 0 && message->type != RAFT_VOTE_REPLY;
    }
    enum status status = wal_reserve(consensus->wal, WAL_RECORD_HEADER_BYTES + raw_len, message->entry_count + 1);
    /* Without room nothing is appended and nobody is elected; heartbeats and votes for others go on. */
    return status == STATUS_OK || (message->entry_count == 0 && message->type != RAFT_VOTE_REPLY);
}

void append__received(void *context, const struct raft_message *message, struct slice raw) {
    struct consensus *consensus = context;
    if (consensus__is_dead(consensus)) {
        return;
    }
    struct raft_message with_entries = *message;
    struct error error = {0};
    if (decode_records(consensus, message, raw, &error) != STATUS_OK) {
        char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
        log_event(consensus->options.logger, LOG_WARN, "append.malformed", "from=%" PRIu64 " reason=%s", message->from,
                  log_quote(quoted, sizeof quoted, error.message));
        return;
    }
    if (!has_room(consensus, message, raw.len)) {
        return;
    }
    with_entries.entries = message->entry_count > 0 ? consensus->entries : NULL;
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .u.message = &with_entries};
    enum status status = consensus__step(consensus, &event);
    if (status == STATUS_INVALID) {
        log_event(consensus->options.logger, LOG_WARN, "raft.invalid", "from=%" PRIu64 " type=%d term=%" PRIu64,
                  message->from, (int)message->type, message->term);
    }
}

enum status append__write_records(struct consensus *consensus, uint32_t skip, uint32_t count) {
    CHECK(skip + count <= consensus->records_capacity);
    for (uint32_t i = skip; i < skip + count; i++) {
        enum status status = wal_append(consensus->wal, &consensus->records[i]);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}
