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

void append__deinit_senders(struct consensus *consensus) {
    for (uint32_t i = 0; i < CONSENSUS_SENDERS_MAX; i++) {
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
    digest__tag(consensus, &piece);
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

static bool is_free(const struct append_sender *sender) { return sender->queue_count == 0 && !sender->reading; }

/* The peer's own, or one that has nothing to do. NULL: former members still wait for the disk in all of them. */
static struct append_sender *find_sender(struct consensus *consensus, uint64_t node_id) {
    struct append_sender *unused = NULL;
    for (uint32_t i = 0; i < CONSENSUS_SENDERS_MAX; i++) {
        struct append_sender *sender = &consensus->senders[i];
        if (sender->node_id == node_id) {
            return sender;
        }
        unused = is_free(sender) && (unused == NULL || sender->queue == NULL) ? sender : unused;
    }
    if (unused != NULL) {
        unused->consensus = consensus;
        unused->node_id = node_id;
    }
    return unused;
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

/* The next of the configurations of a message; *configs is made with the first. */
static enum status decode_config(struct consensus *consensus, const struct wal_record *record, uint32_t position,
                                 struct raft_config **configs, struct error *err) {
    if (*configs == NULL) {
        *configs = mem_alloc(consensus->options.env->alloc, CONSENSUS_CONFIGS_MAX * sizeof **configs);
    }
    return *configs != NULL ? raft_config_decode(record->payload, &(*configs)[position], err)
                            : error_set(err, STATUS_NO_MEMORY, "no memory for a configuration");
}

/* Every record is checked before raft hears of the first. A message of very many configurations is cut; its sender sees
 * by the answer what is missing. *configs is the caller's to free, also after a failure. */
static enum status decode_records(struct consensus *consensus, struct raft_message *message, struct slice raw,
                                  struct raft_config **configs, struct error *err) {
    if (message->entry_count > raw.len / WAL_RECORD_HEADER_BYTES) {
        return error_set(err, STATUS_CORRUPT, "%u entries can't be in %zu bytes", message->entry_count, raw.len);
    }
    enum status status = grow_records(consensus, message->entry_count);
    if (status != STATUS_OK) {
        return error_set(err, status, "no memory for %u records", message->entry_count);
    }
    uint32_t config_count = 0;
    for (uint32_t i = 0; i < message->entry_count; i++) {
        struct wal_record *record = &consensus->records[i];
        status = wal_record_decode(&raw, record, err);
        bool is_config = status == STATUS_OK && record->kind == RAFT_ENTRY_CONFIG;
        if (is_config && config_count == CONSENSUS_CONFIGS_MAX) {
            message->entry_count = i;
            return STATUS_OK;
        }
        if (is_config) {
            status = decode_config(consensus, record, config_count++, configs, err);
        }
        if (status != STATUS_OK) {
            return status;
        }
        consensus->entries[i] = (struct raft_entry){.index = record->index,
                                                    .term = record->term,
                                                    .size_bytes = (uint32_t)record->bytes.len,
                                                    .kind = record->kind,
                                                    .config = is_config ? &(*configs)[config_count - 1] : NULL};
    }
    return raw.len == 0 ? STATUS_OK : error_set(err, STATUS_CORRUPT, "%zu bytes behind the last record", raw.len);
}

static bool has_room(struct consensus *consensus, const struct raft_message *message, size_t raw_len) {
    bool is_answer = message->type == RAFT_APPEND_REPLY || message->type == RAFT_HEARTBEAT_REPLY;
    bool may_append = message->entry_count > 0 || message->type == RAFT_VOTE_REPLY ||
                      (is_answer && raft_membership(consensus->raft)->joint);
    if (snapshots_hold_log(consensus->snapshots)) {
        return !may_append;
    }
    enum status status = wal_reserve(consensus->wal, member__room(consensus) + raw_len, message->entry_count + 1);
    /* Without room nothing is appended, nobody is elected, and no joint configuration is left; heartbeats and votes for
     * others go on. */
    return status == STATUS_OK || !may_append;
}

void append__received(void *context, const struct raft_message *message, struct slice raw) {
    struct consensus *consensus = context;
    if (consensus__is_dead(consensus)) {
        return;
    }
    struct raft_message with_entries = *message;
    struct raft_config *configs = NULL;
    struct error error = {0};
    if (decode_records(consensus, &with_entries, raw, &configs, &error) != STATUS_OK) {
        char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
        log_event(consensus->options.logger, LOG_WARN, "append.malformed", "from=%" PRIu64 " reason=%s", message->from,
                  log_quote(quoted, sizeof quoted, error.message));
        goto out;
    }
    if (!has_room(consensus, message, raw.len)) {
        goto out;
    }
    with_entries.entries = with_entries.entry_count > 0 ? consensus->entries : NULL;
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .u.message = &with_entries};
    enum status status = consensus__step(consensus, &event);
    if (status == STATUS_OK) {
        digest__received(consensus, message);
        rebuild__received(consensus, message);
    }
    if (status == STATUS_INVALID) {
        log_event(consensus->options.logger, LOG_WARN, "raft.invalid", "from=%" PRIu64 " type=%d term=%" PRIu64,
                  message->from, (int)message->type, message->term);
    }
out:
    mem_free(consensus->options.env->alloc, configs);
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
