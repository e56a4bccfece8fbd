/*
 * Messages of peers that have gone mad, between events of the owner's own: whatever comes, the core may refuse it or
 * lose its way, but never ends the node.
 *
 * Input: events, each a byte of its kind and what it takes; numbers are a byte each, small ones nearly always. Checked:
 * the invariants that every step checks; that a step that is refused appends nothing; that memory is given back.
 */
#include "node/base/check.h"
#include "raft/raft.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ENTRIES_MAX = 6, EVENTS_MAX = 4000, RANDOM_SEED = 7, NODES = 4, SYNCS_MAX = 8 };

struct group {
    uint64_t term;
    uint64_t vote;
    uint64_t last_index;
    uint64_t last_term;
};

struct fuzzed {
    struct slice input;
    struct raft *raft;
    struct raft_update update;
    uint64_t now_us;
    /* What was to be written and isn't durable yet, oldest first. */
    struct group groups[SYNCS_MAX];
    uint32_t group_count;
    uint64_t snapshot_peer;
};

static uint8_t take_byte(struct fuzzed *fuzzed) {
    if (fuzzed->input.len == 0) {
        return 0;
    }
    uint8_t byte = fuzzed->input.data[0];
    fuzzed->input = slice_of(fuzzed->input.data + 1, fuzzed->input.len - 1);
    return byte;
}

/* Near what the node knows, or absurd. */
static uint64_t take_number(struct fuzzed *fuzzed) {
    uint8_t byte = take_byte(fuzzed);
    return byte < 192   ? byte % 24
           : byte < 250 ? raft_last_index(fuzzed->raft) + byte % 4 - 1
                        : UINT64_MAX >> (byte % 8);
}

static const struct raft_config *some_config(uint8_t byte) {
    static const struct raft_config configs[] = {
        {.member_count = 3, .members = {{.id = 1}, {.id = 2}, {.id = 3}}},
        {.member_count = 4, .members = {{.id = 1}, {.id = 2}, {.id = 3}, {.id = 4, .role = RAFT_LEARNER}}},
        {.joint = true,
         .member_count = 4,
         .members = {{.id = 1, .in_outgoing = true},
                     {.id = 2, .in_outgoing = true},
                     {.id = 3, .in_outgoing = true, .role = RAFT_LEAVING},
                     {.id = 4}}},
        {.member_count = 2, .members = {{.id = 2}, {.id = 4}}}, /* without us */
        {.member_count = 1, .members = {{.id = 1}}},
        {.member_count = 2, .members = {{.id = 1}, {.id = 1}}}, /* senseless */
    };
    return &configs[byte % (sizeof configs / sizeof configs[0])];
}

/* What the caller of raft does: groups become durable in their order. */
static void carry_out(struct fuzzed *fuzzed) {
    const struct raft_update *update = &fuzzed->update;
    if (update->append.source == RAFT_APPEND_NONE && !update->save_state) {
        return;
    }
    if (fuzzed->group_count == SYNCS_MAX) { /* all in one */
        fuzzed->group_count--;
    }
    uint64_t last_index = update->append.source == RAFT_APPEND_NONE ? 0 : raft_last_index(fuzzed->raft);
    fuzzed->groups[fuzzed->group_count++] = (struct group){.term = raft_term(fuzzed->raft),
                                                           .vote = raft_vote(fuzzed->raft),
                                                           .last_index = last_index,
                                                           .last_term = raft_term_at(fuzzed->raft, last_index)};
}

static enum status step(struct fuzzed *fuzzed, const struct raft_event *event) {
    uint64_t last_index = raft_last_index(fuzzed->raft);
    enum status status = raft_step(fuzzed->raft, event, &fuzzed->update);
    bool appends = fuzzed->update.append.source != RAFT_APPEND_NONE;
    CHECK(status == STATUS_OK || !appends);
    CHECK(appends || event->type == RAFT_EVENT_INSTALLED || raft_last_index(fuzzed->raft) == last_index);
    for (uint32_t i = 0; i < fuzzed->update.message_count; i++) {
        CHECK(fuzzed->update.messages[i].from == 1 && fuzzed->update.messages[i].to != 1);
    }
    if (fuzzed->update.snapshot_peer_count > 0) {
        fuzzed->snapshot_peer = fuzzed->update.snapshot_peers[0];
    }
    carry_out(fuzzed);
    return status;
}

static void message(struct fuzzed *fuzzed, uint8_t kind) {
    struct raft_entry entries[ENTRIES_MAX] = {0};
    struct raft_message message = {
        .type = (enum raft_message_type)(kind % (RAFT_MESSAGE_TYPE_COUNT + 1)),
        .from = 1 + take_byte(fuzzed) % NODES,
        .to = 1,
        .term = take_number(fuzzed),
        .index = take_number(fuzzed),
        .log_term = take_number(fuzzed),
        .commit = take_number(fuzzed),
    };
    uint8_t flags = take_byte(fuzzed);
    message.reject = (flags & 1) != 0;
    message.lost_log = (flags & 2) != 0;
    if ((flags & 4) != 0) {
        message.hint_index = take_number(fuzzed);
        message.hint_term = take_number(fuzzed);
        message.round = take_number(fuzzed);
        message.floor = take_number(fuzzed);
        message.life = take_number(fuzzed);
    }
    if (message.type == RAFT_APPEND) {
        message.entry_count = (flags >> 4) % (ENTRIES_MAX + 1);
        message.entries = (flags & 8) != 0 && message.entry_count > 1 ? NULL : entries;
    }
    uint64_t term = message.log_term;
    for (uint32_t i = 0; i < message.entry_count; i++) {
        uint8_t byte = take_byte(fuzzed);
        term += (byte & 3) == 3;
        entries[i] = (struct raft_entry){.index = message.index + 1 + i + ((byte & 63) == 63),
                                         .term = term - ((byte & 127) == 127),
                                         .size_bytes = byte == 255 ? UINT32_MAX : 32u + byte,
                                         .kind = (byte & 12) == 12 ? RAFT_ENTRY_CONFIG : RAFT_ENTRY_DATA};
        entries[i].config = (byte & 28) == 12 ? some_config(byte >> 5) : NULL;
    }
    const struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .now_us = fuzzed->now_us, .u.message = &message};
    (void)step(fuzzed, &event);
}

static void synced(struct fuzzed *fuzzed) {
    if (fuzzed->group_count == 0) {
        return;
    }
    struct group group = fuzzed->groups[0];
    memmove(&fuzzed->groups[0], &fuzzed->groups[1], --fuzzed->group_count * sizeof group);
    struct raft_event event = {.type = RAFT_EVENT_SYNCED, .now_us = fuzzed->now_us};
    event.u.synced.term = group.term;
    event.u.synced.vote = group.vote;
    event.u.synced.last_index = group.last_index;
    event.u.synced.last_term = group.last_term;
    (void)step(fuzzed, &event);
}

static void change(struct fuzzed *fuzzed) {
    uint8_t byte = take_byte(fuzzed);
    const struct raft_change part = {.type = (enum raft_change_type)(1 + byte % RAFT_CHANGE_PRIORITY),
                                     .id = 1 + (byte >> 4) % (NODES + 2),
                                     .priority = byte >> 6};
    struct raft_event event = {.type = RAFT_EVENT_CHANGE, .now_us = fuzzed->now_us};
    event.u.change.changes = &part;
    event.u.change.change_count = 1;
    (void)step(fuzzed, &event);
}

static void installed(struct fuzzed *fuzzed) {
    struct raft_event event = {.type = RAFT_EVENT_INSTALLED, .now_us = fuzzed->now_us};
    event.u.installed.index = take_number(fuzzed);
    event.u.installed.term = take_number(fuzzed);
    event.u.installed.config = some_config(take_byte(fuzzed));
    (void)step(fuzzed, &event);
}

/* What the owner does by itself. */
static void own_event(struct fuzzed *fuzzed, uint8_t kind) {
    struct raft_entry entry = {.size_bytes = 100, .kind = RAFT_ENTRY_DATA};
    struct raft_event event = {.type = RAFT_EVENT_TICK, .now_us = fuzzed->now_us};
    switch (kind % 10) {
    case 0:
        event.now_us = fuzzed->now_us = fuzzed->now_us > fuzzed->update.deadline_us ? fuzzed->now_us
                                        : fuzzed->update.deadline_us == UINT64_MAX  ? fuzzed->now_us + 1000
                                                                                    : fuzzed->update.deadline_us;
        break;
    case 1: synced(fuzzed); return;
    case 2:
        event.type = RAFT_EVENT_PROPOSE;
        event.u.propose.entries = &entry;
        event.u.propose.entry_count = 1;
        break;
    case 3:
        event.type = RAFT_EVENT_READ;
        event.u.read.forward = (take_byte(fuzzed) & 1) != 0;
        break;
    case 4:
        event.type = (take_byte(fuzzed) & 1) != 0 ? RAFT_EVENT_UNREACHABLE : RAFT_EVENT_GONE;
        event.u.peer = 1 + take_byte(fuzzed) % (NODES + 1);
        break;
    case 5:
        event.type = RAFT_EVENT_TRIMMED;
        event.u.trimmed_index = raft_commit_index(fuzzed->raft);
        break;
    case 6: change(fuzzed); return;
    case 7:
        event.type = RAFT_EVENT_TRANSFER;
        event.u.target = take_byte(fuzzed) % (NODES + 1);
        break;
    case 8:
        event.type = RAFT_EVENT_FENCE;
        event.u.fence = (enum raft_fence)(take_byte(fuzzed) % RAFT_FENCE_COUNT);
        break;
    case 9:
        if ((take_byte(fuzzed) & 1) != 0) {
            installed(fuzzed);
            return;
        }
        event.type = RAFT_EVENT_SNAPSHOT_SENT;
        event.u.snapshot_sent.peer = fuzzed->snapshot_peer;
        event.u.snapshot_sent.index = take_number(fuzzed);
        event.u.snapshot_sent.ok = (take_byte(fuzzed) & 1) != 0;
        break;
    }
    (void)step(fuzzed, &event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzzed fuzzed = {.input = slice_of(data, size)};
    struct raft_options options;
    raft_options_init(&options);
    options.alloc = alloc_system();
    options.id = 1;
    options.random_seed = RANDOM_SEED;
    options.inflight_appends_max = 3;
    const struct raft_saved saved = {.config = *some_config(0)};
    CHECK(raft_new(&options, &saved, &fuzzed.raft) == STATUS_OK);
    CHECK(raft_start(fuzzed.raft, 0, &fuzzed.update) == STATUS_OK);
    for (uint32_t i = 0; i < EVENTS_MAX && fuzzed.input.len > 0; i++) {
        uint8_t kind = take_byte(&fuzzed);
        if (kind < 128) {
            own_event(&fuzzed, kind);
        } else {
            message(&fuzzed, kind);
        }
    }
    raft_free(fuzzed.raft);
    return 0;
}
