/* See raft_node.h. */
#include "tests/unit/support/raft_node.h"

#include "node/base/check.h"

#include <stdlib.h>
#include <string.h>

static void *must(void *memory) {
    CHECK(memory != NULL);
    return memory;
}

/* ---- Configurations --------------------------------------------------------------------------------------------- */

/* One copy of each that was ever appended, so that records can point to them; they stay. */
static struct raft_config **shared_configs;
static size_t shared_config_count;

/* By way of the bytes that a log would hold. */
static const struct raft_config *share(const struct raft_config *config) {
    uint8_t bytes[RAFT_CONFIG_BYTES_MAX];
    uint8_t known[RAFT_CONFIG_BYTES_MAX];
    size_t len = raft_config_encode(config, bytes);
    for (size_t i = 0; i < shared_config_count; i++) {
        if (shared_configs[i]->member_count == config->member_count &&
            raft_config_encode(shared_configs[i], known) == len && memcmp(known, bytes, len) == 0) {
            return shared_configs[i];
        }
    }
    shared_configs = must(realloc(shared_configs, (shared_config_count + 1) * sizeof(void *)));
    struct raft_config *copy = must(calloc(1, sizeof *copy));
    CHECK(raft_config_decode(slice_of(bytes, len), copy, NULL) == STATUS_OK);
    shared_configs[shared_config_count++] = copy;
    return copy;
}

/* ---- Records and packets ---------------------------------------------------------------------------------------- */

static void records_push(struct raft_records *records, const struct raft_record *record) {
    if (records->count == records->capacity) {
        records->capacity = records->capacity == 0 ? 16 : records->capacity * 2;
        records->items = must(realloc(records->items, records->capacity * sizeof *records->items));
    }
    records->items[records->count++] = *record;
}

/* A log is cut where a record supersedes an older one. */
static void records_write(struct raft_records *log, const struct raft_record *record) {
    CHECK(record->index >= 1 && record->index <= log->count + 1);
    log->count = record->index - 1;
    records_push(log, record);
}

static void records_clear(struct raft_records *records) {
    free(records->items);
    memset(records, 0, sizeof *records);
}

static struct raft_packet *packet_new(const struct raft_message *message) {
    struct raft_packet *packet = must(calloc(1, sizeof *packet));
    packet->message = *message;
    if (message->entry_count > 0) {
        packet->entries = must(calloc(message->entry_count, sizeof *packet->entries));
        packet->values = must(calloc(message->entry_count, sizeof *packet->values));
    }
    packet->message.entries = packet->entries;
    return packet;
}

struct raft_packet *raft_packet_copy(const struct raft_packet *packet) {
    struct raft_packet *copy = packet_new(&packet->message);
    for (uint32_t i = 0; i < packet->message.entry_count; i++) {
        copy->entries[i] = packet->entries[i];
        copy->values[i] = packet->values[i];
    }
    return copy;
}

void raft_packet_free(struct raft_packet *packet) {
    if (packet != NULL) {
        free(packet->entries);
        free(packet->values);
        free(packet);
    }
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

void raft_node_init(struct raft_node *node, uint64_t id, const struct raft_config *config,
                    const struct raft_options *options) {
    memset(node, 0, sizeof *node);
    node->id = id;
    node->config = *config;
    node->options = *options;
    node->options.id = id;
}

void raft_node_deinit(struct raft_node *node) {
    raft_free(node->raft);
    records_clear(&node->log);
    records_clear(&node->disk_log);
    records_clear(&node->forming);
    records_clear(&node->inflight.records);
}

void raft_node_preload(struct raft_node *node, uint64_t term, uint64_t value, uint32_t size_bytes) {
    CHECK(node->raft == NULL);
    struct raft_record record = {.index = node->disk_log.count + 1,
                                 .term = term,
                                 .value = value,
                                 .size_bytes = size_bytes,
                                 .kind = RAFT_ENTRY_DATA};
    records_push(&node->disk_log, &record);
    node->disk_term = term > node->disk_term ? term : node->disk_term;
}

static struct raft_entry entry_of(const struct raft_record *record) {
    return (struct raft_entry){.index = record->index,
                               .term = record->term,
                               .size_bytes = record->size_bytes,
                               .kind = record->kind,
                               .config = record->config};
}

/* The configuration effective at an index, and the index of the entry that brought it. */
static uint64_t config_at(const struct raft_node *node, const struct raft_records *log, uint64_t index,
                          struct raft_config *ret_config) {
    for (uint64_t at = index; at > node->config_index; at--) {
        if (log->items[at - 1].kind == RAFT_ENTRY_CONFIG) {
            *ret_config = *log->items[at - 1].config;
            return at;
        }
    }
    *ret_config = node->config;
    return node->config_index;
}

void raft_node_damage(struct raft_node *node, uint64_t index) {
    CHECK(node->raft == NULL && index > node->trimmed_index && index <= node->disk_log.count);
    const struct raft_record *last = &node->disk_log.items[node->disk_log.count - 1];
    bool is_later = last->term > node->heal_term || (last->term == node->heal_term && last->index > node->heal_index);
    node->heal_index = is_later ? last->index : node->heal_index;
    node->heal_term = is_later ? last->term : node->heal_term;
    node->disk_log.count = index - 1;
    node->disk_commit = node->disk_commit < index ? node->disk_commit : index - 1;
}

void raft_node_wipe(struct raft_node *node) {
    CHECK(node->raft == NULL);
    records_clear(&node->disk_log);
    node->disk_term = 0;
    node->disk_vote = RAFT_NO_NODE;
    node->disk_commit = 0;
    node->trimmed_index = 0;
    node->installed_index = 0;
    node->life = 0;
    node->heal_index = 0;
    node->heal_term = 0;
}

void raft_node_start(struct raft_node *node, uint64_t now_us, uint64_t random_seed) {
    CHECK(node->raft == NULL);
    node->options.random_seed = random_seed;
    struct raft_saved saved = {.term = node->disk_term,
                               .vote = node->disk_vote,
                               .commit =
                                   node->disk_commit > node->trimmed_index ? node->disk_commit : node->trimmed_index,
                               .log_start_index = node->trimmed_index,
                               .life = ++node->life,
                               .heal_index = node->heal_index,
                               .heal_term = node->heal_term,
                               .config = node->config,
                               .config_index = node->config_index};
    if (node->trimmed_index > 0) {
        saved.log_start_term = node->disk_log.items[node->trimmed_index - 1].term;
    }
    CHECK(raft_new(&node->options, &saved, &node->raft) == STATUS_OK);
    for (size_t i = 0; i < node->disk_log.count; i++) {
        const struct raft_record *record = &node->disk_log.items[i];
        records_push(&node->log, record);
        if (record->index > node->trimmed_index) {
            struct raft_entry entry = entry_of(record);
            CHECK(raft_load_entry(node->raft, &entry) == STATUS_OK);
        }
    }
    CHECK(raft_start(node->raft, now_us, &node->update) == STATUS_OK);
    if (node->trace != NULL) {
        trace_started(node->trace, now_us, node->raft);
    }
    if (raft_term(node->raft) > node->disk_term) {
        node->disk_term = raft_term(node->raft); /* the manifest's: it crashed in an install */
        node->disk_vote = RAFT_NO_NODE;
    }
}

static void write_group(struct raft_node *node) {
    struct raft_group *group = &node->inflight;
    for (size_t i = 0; i < group->records.count; i++) {
        if (group->records.items[i].index > node->installed_index) {
            records_write(&node->disk_log, &group->records.items[i]);
        }
    }
    node->disk_term = group->term;
    node->disk_vote = group->vote;
    if (group->commit <= node->disk_log.count && group->commit > node->disk_commit) {
        node->disk_commit = group->commit;
    }
}

void raft_node_crash(struct raft_node *node, bool inflight_reaches_disk) {
    if (node->inflight.present && inflight_reaches_disk) {
        write_group(node);
    }
    struct raft_info info;
    raft_get_info(node->raft, &info);
    node->heal_index = info.heal_index;
    node->heal_term = info.heal_term;
    raft_free(node->raft);
    node->raft = NULL;
    node->state_waits = false;
    node->inflight.present = false;
    records_clear(&node->inflight.records);
    records_clear(&node->forming);
    records_clear(&node->log);
}

/* ---- Updates ---------------------------------------------------------------------------------------------------- */

static void append(struct raft_node *node, struct raft_record record) {
    record.index = node->update.append.first_index + record.index;
    records_write(&node->log, &record);
    records_push(&node->forming, &record);
}

static void send(struct raft_node *node, const struct raft_message *message) {
    CHECK(message->from == node->id && message->to != node->id && message->entries == NULL);
    struct raft_packet *packet = packet_new(message);
    for (uint32_t i = 0; i < message->entry_count; i++) {
        uint64_t index = message->index + 1 + i;
        CHECK(index <= node->log.count && index > node->trimmed_index);
        packet->entries[i] = entry_of(&node->log.items[index - 1]);
        packet->values[i] = node->log.items[index - 1].value;
    }
    node->send(node->context, packet);
}

/* `packet`, or `entries` with values from first_value on, are where appended records come from. */
static enum status step(struct raft_node *node, const struct raft_event *event, const struct raft_packet *packet,
                        const struct raft_entry *entries, uint64_t first_value) {
    CHECK(node->raft != NULL);
    enum status status = raft_step(node->raft, event, &node->update);
    if (node->trace != NULL) {
        trace_stepped(node->trace, event->now_us, node->raft, event, status, &node->update);
    }
    const struct raft_update *update = &node->update;
    node->state_waits |= update->save_state;
    for (uint32_t i = 0; i < update->append.count; i++) {
        uint32_t from = update->append.skip + i;
        struct raft_record record = {.index = i,
                                     .term = update->append.term,
                                     .kind = RAFT_ENTRY_NOOP,
                                     .size_bytes = RAFT_NOOP_BYTES};
        if (update->append.source == RAFT_APPEND_PROPOSAL) {
            CHECK(entries != NULL && entries[from].index == update->append.first_index + i &&
                  entries[from].term == update->append.term);
            record.kind = entries[from].kind;
            record.size_bytes = entries[from].size_bytes;
            record.value = first_value + from;
        } else if (update->append.source == RAFT_APPEND_CONFIG) {
            CHECK(update->append.count == 1 && update->append.config != NULL);
            record.kind = RAFT_ENTRY_CONFIG;
            record.config = share(update->append.config);
            record.size_bytes = RAFT_NOOP_BYTES + (uint32_t)raft_config_encoded_size(record.config);
        } else if (update->append.source == RAFT_APPEND_MESSAGE) {
            CHECK(packet != NULL && packet->entries[from].index == update->append.first_index + i);
            record.term = packet->entries[from].term;
            record.kind = packet->entries[from].kind;
            record.size_bytes = packet->entries[from].size_bytes;
            record.config = packet->entries[from].config;
            record.value = packet->values[from];
        }
        append(node, record);
    }
    CHECK(node->log.count == raft_last_index(node->raft));
    for (uint32_t i = 0; i < update->message_count; i++) {
        send(node, &update->messages[i]);
    }
    return status;
}

enum status raft_node_tick(struct raft_node *node, uint64_t now_us) {
    struct raft_event event = {.type = RAFT_EVENT_TICK, .now_us = now_us};
    return step(node, &event, NULL, NULL, 0);
}

enum status raft_node_receive(struct raft_node *node, uint64_t now_us, const struct raft_packet *packet) {
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .now_us = now_us, .u.message = &packet->message};
    return step(node, &event, packet, NULL, 0);
}

enum status raft_node_propose(struct raft_node *node, uint64_t now_us, uint64_t first_value, uint32_t count,
                              uint32_t size_bytes) {
    struct raft_entry *entries = must(calloc(count, sizeof *entries));
    for (uint32_t i = 0; i < count; i++) {
        entries[i].kind = RAFT_ENTRY_DATA;
        entries[i].size_bytes = size_bytes;
    }
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE, .now_us = now_us};
    event.u.propose.entries = entries;
    event.u.propose.entry_count = count;
    enum status status = step(node, &event, NULL, entries, first_value);
    free(entries);
    return status;
}

enum status raft_node_read(struct raft_node *node, uint64_t now_us, bool forward) {
    struct raft_event event = {.type = RAFT_EVENT_READ, .now_us = now_us, .u.read.forward = forward};
    return step(node, &event, NULL, NULL, 0);
}

enum status raft_node_change(struct raft_node *node, uint64_t now_us, const struct raft_change *changes,
                             uint32_t count) {
    struct raft_event event = {.type = RAFT_EVENT_CHANGE,
                               .now_us = now_us,
                               .u.change = {.changes = changes, .change_count = count}};
    return step(node, &event, NULL, NULL, 0);
}

enum status raft_node_transfer(struct raft_node *node, uint64_t now_us, uint64_t target) {
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .now_us = now_us, .u.target = target};
    return step(node, &event, NULL, NULL, 0);
}

enum status raft_node_fence(struct raft_node *node, uint64_t now_us, enum raft_fence fence) {
    struct raft_event event = {.type = RAFT_EVENT_FENCE, .now_us = now_us, .u.fence = fence};
    return step(node, &event, NULL, NULL, 0);
}

enum status raft_node_snapshot_sent(struct raft_node *node, uint64_t now_us, uint64_t peer, uint64_t index, bool ok) {
    struct raft_event event = {.type = RAFT_EVENT_SNAPSHOT_SENT,
                               .now_us = now_us,
                               .u.snapshot_sent = {.peer = peer, .index = index, .ok = ok}};
    return step(node, &event, NULL, NULL, 0);
}

enum status raft_node_unreachable(struct raft_node *node, uint64_t now_us, uint64_t peer) {
    struct raft_event event = {.type = RAFT_EVENT_UNREACHABLE, .now_us = now_us, .u.peer = peer};
    return step(node, &event, NULL, NULL, 0);
}

enum status raft_node_need(struct raft_node *node, uint64_t now_us, uint64_t index) {
    struct raft_event event = {.type = RAFT_EVENT_NEEDS_SNAPSHOT, .now_us = now_us, .u.needs_snapshot = index};
    return step(node, &event, NULL, NULL, 0);
}

enum status raft_node_gone(struct raft_node *node, uint64_t now_us, uint64_t peer) {
    struct raft_event event = {.type = RAFT_EVENT_GONE, .now_us = now_us, .u.peer = peer};
    return step(node, &event, NULL, NULL, 0);
}

enum status raft_node_trim(struct raft_node *node, uint64_t now_us, uint64_t index) {
    struct raft_event event = {.type = RAFT_EVENT_TRIMMED, .now_us = now_us, .u.trimmed_index = index};
    node->config_index = config_at(node, &node->log, index, &node->config);
    node->trimmed_index = index;
    /* The manifest, which says what was flushed, also says that it was committed. */
    node->disk_commit = index > node->disk_commit ? index : node->disk_commit;
    return step(node, &event, NULL, NULL, 0);
}

/* ---- Snapshots -------------------------------------------------------------------------------------------------- */

void raft_snapshot_take(const struct raft_node *node, uint64_t index, struct raft_snapshot *ret_snapshot) {
    CHECK(index > 0 && index <= raft_commit_index(node->raft) && index >= node->config_index);
    memset(ret_snapshot, 0, sizeof *ret_snapshot);
    ret_snapshot->index = index;
    ret_snapshot->config_index = config_at(node, &node->log, index, &ret_snapshot->config);
    for (uint64_t i = 0; i < index; i++) {
        records_push(&ret_snapshot->records, &node->log.items[i]);
    }
}

void raft_snapshot_free(struct raft_snapshot *snapshot) { records_clear(&snapshot->records); }

static void records_copy(struct raft_records *to, const struct raft_records *from) {
    to->count = 0;
    for (size_t i = 0; i < from->count; i++) {
        records_push(to, &from->items[i]);
    }
}

enum status raft_node_install(struct raft_node *node, uint64_t now_us, const struct raft_snapshot *snapshot) {
    uint64_t term = snapshot->records.items[snapshot->index - 1].term;
    (void)raft_node_complete(node, now_us);
    bool forward = snapshot->index > raft_commit_index(node->raft);
    bool has_it = raft_term_at(node->raft, snapshot->index) == term;
    if (forward && (has_it || raft_role(node->raft) != RAFT_LEADER)) {
        bool on_disk =
            node->disk_log.count >= snapshot->index && node->disk_log.items[snapshot->index - 1].term == term;
        if (!on_disk || !has_it) {
            records_copy(&node->disk_log, &snapshot->records);
        }
        if (!has_it) {
            records_copy(&node->log, &snapshot->records);
            node->forming.count = 0;
            node->trimmed_index = snapshot->index;
        }
        node->disk_commit = snapshot->index;
        node->installed_index = snapshot->index;
        node->config = snapshot->config;
        node->config_index = snapshot->config_index;
    }
    struct raft_event event = {.type = RAFT_EVENT_INSTALLED,
                               .now_us = now_us,
                               .u.installed = {.index = snapshot->index,
                                               .term = term,
                                               .config_index = snapshot->config_index,
                                               .config = &snapshot->config}};
    return step(node, &event, NULL, NULL, 0);
}

/* ---- The disk --------------------------------------------------------------------------------------------------- */

bool raft_node_seal(struct raft_node *node, size_t records_max) {
    if (node->inflight.present || (node->forming.count == 0 && !node->state_waits)) {
        return false;
    }
    struct raft_group *group = &node->inflight;
    size_t count = node->forming.count < records_max ? node->forming.count : records_max;
    group->present = true;
    group->term = raft_term(node->raft);
    group->vote = raft_vote(node->raft);
    group->commit = raft_commit_index(node->raft);
    for (size_t i = 0; i < count; i++) {
        records_push(&group->records, &node->forming.items[i]);
    }
    node->forming.count -= count;
    if (node->forming.count > 0) {
        memmove(node->forming.items, node->forming.items + count, node->forming.count * sizeof *node->forming.items);
    }
    node->state_waits = false;
    return true;
}

bool raft_node_complete(struct raft_node *node, uint64_t now_us) {
    struct raft_group *group = &node->inflight;
    if (!group->present) {
        return false;
    }
    write_group(node);
    struct raft_event event = {.type = RAFT_EVENT_SYNCED, .now_us = now_us};
    event.u.synced.term = group->term;
    event.u.synced.vote = group->vote;
    if (group->records.count > 0) {
        const struct raft_record *newest = &group->records.items[group->records.count - 1];
        event.u.synced.last_index = newest->index;
        event.u.synced.last_term = newest->term;
    }
    group->present = false;
    records_clear(&group->records);
    CHECK(step(node, &event, NULL, NULL, 0) == STATUS_OK);
    return true;
}

const char *raft_message_type_name(enum raft_message_type type) {
    static const char *const names[RAFT_MESSAGE_TYPE_COUNT] = {[RAFT_PREVOTE] = "PREVOTE",
                                                               [RAFT_PREVOTE_REPLY] = "PREVOTE_REPLY",
                                                               [RAFT_VOTE] = "VOTE",
                                                               [RAFT_VOTE_REPLY] = "VOTE_REPLY",
                                                               [RAFT_APPEND] = "APPEND",
                                                               [RAFT_APPEND_REPLY] = "APPEND_REPLY",
                                                               [RAFT_HEARTBEAT] = "HEARTBEAT",
                                                               [RAFT_HEARTBEAT_REPLY] = "HEARTBEAT_REPLY",
                                                               [RAFT_TIMEOUT_NOW] = "TIMEOUT_NOW",
                                                               [RAFT_READ_INDEX] = "READ_INDEX",
                                                               [RAFT_READ_INDEX_REPLY] = "READ_INDEX_REPLY"};
    return type > 0 && type < RAFT_MESSAGE_TYPE_COUNT ? names[type] : "?";
}
