/*
 * The life of a core and the one step function: adopt the time, make room, one handler per event, check, report.
 *
 * Memory is made before anything changes: the only things that grow are the log's metadata and the list of
 * configurations that may come back, so a step first reserves what it may append and fails whole if it can't.
 * Everything else has its final size from raft_new on.
 */
#include "raft/raft.h"

#include "raft/raft_internal.h"

#include <string.h>

enum { INFLIGHT_BYTES_DEFAULT = 8 * MIB };

void raft_options_init(struct raft_options *options) {
    memset(options, 0, sizeof *options);
    options->election_timeout_us = 1000000;
    options->heartbeat_interval_us = 100000;
    options->append_bytes_max = LIMIT_APPEND_BYTES;
    options->inflight_appends_max = 64;
    options->inflight_bytes_max = INFLIGHT_BYTES_DEFAULT;
    options->uncommitted_bytes_max = LIMIT_UNCOMMITTED_BYTES;
}

/* ---- Life -----------------------------------------------------------------------------------------------------------
 */

static enum status check_options(const struct raft_options *options) {
    bool sane = options->id != RAFT_NO_NODE && options->heartbeat_interval_us > 0 &&
                options->heartbeat_interval_us < options->election_timeout_us &&
                options->election_timeout_us <= RAFT__NUMBER_MAX / 4 && options->append_bytes_max > 0 &&
                options->inflight_appends_max > 0 && options->inflight_appends_max <= RAFT__INFLIGHT_APPENDS_MAX &&
                options->inflight_bytes_max > 0 && options->uncommitted_bytes_max > 0;
    return sane ? STATUS_OK : STATUS_INVALID;
}

static enum status check_saved(const struct raft_saved *saved) {
    bool sane = saved->term <= RAFT__NUMBER_MAX && saved->commit <= RAFT__NUMBER_MAX &&
                saved->log_start_index <= saved->commit && saved->config_index <= saved->commit &&
                saved->log_start_term <= RAFT__NUMBER_MAX &&
                (saved->log_start_index > 0 || saved->log_start_term == 0) &&
                (saved->term > 0 || saved->vote == RAFT_NO_NODE) && saved->heal_index <= RAFT__NUMBER_MAX &&
                (saved->heal_index > 0 ? saved->heal_term <= saved->term : saved->heal_term == 0);
    return sane ? STATUS_OK : STATUS_CORRUPT;
}

enum status raft_new(const struct raft_options *options, const struct raft_saved *saved, struct raft **ret_raft) {
    enum status status = check_options(options);
    if (status == STATUS_OK && saved->config.member_count > 0) {
        status = raft__config_check(&saved->config);
    }
    if (status == STATUS_OK) {
        status = check_saved(saved);
    }
    if (status != STATUS_OK) {
        return status;
    }
    struct raft *raft = mem_alloc_zero(options->alloc, sizeof *raft);
    if (raft == NULL) {
        return STATUS_NO_MEMORY;
    }
    raft->options = *options;
    raft__log_init(&raft->log, options->alloc, saved->log_start_index, saved->log_start_term);
    size_t inflight_count = (size_t)LIMIT_MEMBERS * options->inflight_appends_max;
    raft->inflight_memory = mem_alloc(options->alloc, inflight_count * sizeof *raft->inflight_memory);
    raft->outbox = mem_alloc(options->alloc, RAFT__OUTBOX_MAX * sizeof *raft->outbox);
    if (raft->inflight_memory == NULL || raft->outbox == NULL) {
        raft_free(raft);
        return STATUS_NO_MEMORY;
    }
    raft->id = options->id;
    random_seed(&raft->random, options->random_seed);
    raft->run = random_below(&raft->random, RAFT__NUMBER_MAX) + 1;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        raft->peers[i].inflight = raft->inflight_memory + (size_t)i * options->inflight_appends_max;
    }
    raft__membership_reset(raft, saved->config_index, &saved->config);
    raft->role = RAFT_FOLLOWER;
    /* A crash right after a snapshot was installed: its term is in the manifest, but not in the log yet. */
    bool knows_later_term = saved->log_start_term > saved->term;
    raft->term = knows_later_term ? saved->log_start_term : saved->term;
    raft->vote = knows_later_term ? RAFT_NO_NODE : saved->vote;
    raft->state_synced = true;
    raft->commit_index = saved->commit;
    raft->matched_index = saved->commit;
    raft->life = saved->life;
    raft->heal_index = saved->heal_index;
    raft->heal_term = saved->heal_term;
    *ret_raft = raft;
    return STATUS_OK;
}

enum status raft_load_entry(struct raft *raft, const struct raft_entry *entry) {
    CHECK(!raft->started);
    struct raft__log *log = &raft->log;
    if (entry->index != log->last_index + 1 || entry->index > RAFT__NUMBER_MAX || entry->term == 0 ||
        entry->term < raft__log_last_term(log) || entry->term > raft->term ||
        entry->size_bytes > RAFT__ENTRY_BYTES_MAX) {
        return STATUS_CORRUPT;
    }
    bool brings_config = entry->kind == RAFT_ENTRY_CONFIG && entry->index > raft->config_index;
    if (brings_config && (entry->config == NULL || raft__config_check(entry->config) != STATUS_OK)) {
        return STATUS_CORRUPT;
    }
    enum status status = raft__log_reserve(log, entry->index, 1);
    if (status == STATUS_OK) {
        status = raft__membership_reserve(raft, 1);
    }
    if (status != STATUS_OK) {
        return status;
    }
    raft__log_append(log, entry->term, entry->size_bytes);
    if (brings_config) {
        raft__membership_push(raft, entry->index, entry->config);
        raft__membership_committed(raft);
    }
    return STATUS_OK;
}

void raft_free(struct raft *raft) {
    if (raft == NULL) {
        return;
    }
    struct alloc *alloc = raft->options.alloc;
    raft__log_deinit(&raft->log);
    mem_free(alloc, raft->past);
    mem_free(alloc, raft->inflight_memory);
    mem_free(alloc, raft->outbox);
    mem_free(alloc, raft);
}

/* ---- Around a step
 * ---------------------------------------------------------------------------------------------------- */

static void begin_step(struct raft *raft, uint64_t now_us) {
    CHECK(now_us >= raft->now_us);
    raft->now_us = now_us;
    raft->outbox_count = 0;
    struct raft_update *update = &raft->update;
    update->save_state = false;
    update->append.source = RAFT_APPEND_NONE;
    update->append.skip = 0;
    update->append.count = 0;
    update->append.first_index = 0;
    update->append.term = 0;
    update->append.config = NULL;
    update->read_round = 0;
    update->reads_failed = false;
    update->membership_changed = false;
    update->refusal = RAFT_REFUSAL_NONE;
    update->transfer_failed = false;
    update->snapshot_peer_count = 0;
}

static uint64_t election_deadline(const struct raft *raft) {
    return raft->campaigns && raft__may_lead(raft) ? raft->election_deadline_us : RAFT__NEVER;
}

static uint64_t next_deadline(const struct raft *raft) {
    if (raft->role != RAFT_LEADER) {
        bool asks = raft->reads.started > raft->reads.done;
        return raft__min(election_deadline(raft), asks ? raft->reads.ask_again_us : RAFT__NEVER);
    }
    uint64_t deadline_us = raft__min(raft->heartbeat_deadline_us, raft__quorum_deadline(raft));
    bool transfers = raft->transfer.target != RAFT_NO_NODE;
    return transfers ? raft__min(deadline_us, raft->transfer.deadline_us) : deadline_us;
}

static void finish_step(struct raft *raft, struct raft_update *ret_update) {
    struct raft_update *update = &raft->update;
    update->term = raft->term;
    update->vote = raft->vote;
    update->messages = raft->outbox;
    update->snapshot_peers = raft->snapshot_peers;
    update->message_count = raft->outbox_count;
    update->commit_index = raft->commit_index;
    update->ready_round = raft->reads.ready;
    update->ready_index = raft->reads.ready_index;
    update->deadline_us = next_deadline(raft);
    *ret_update = *update;
}

/* What no step may break. `term`, `vote` and `commit_index` are from before it. */
static void check_invariants(const struct raft *raft, uint64_t term, uint64_t vote, uint64_t commit_index) {
    const struct raft__log *log = &raft->log;
    CHECK(raft->term >= term);
    CHECK(raft->term > term || vote == RAFT_NO_NODE || raft->vote == vote);
    CHECK(raft->commit_index >= commit_index && raft->commit_index >= log->start_index);
    CHECK(raft->commit_index <= log->last_index);
    CHECK(raft->synced_index <= log->last_index && raft->synced_index >= log->start_index);
    CHECK(raft->matched_index >= raft->commit_index && raft->matched_index <= log->last_index);
    CHECK(raft__log_last_term(log) <= raft->term);
    CHECK(raft->role != RAFT_LEADER || (raft->vote == raft->id && raft->leader == raft->id && raft->state_synced));
    CHECK(raft->role != RAFT_CANDIDATE || raft->vote == raft->id);
    CHECK(raft->role == RAFT_FOLLOWER || raft__may_lead(raft));
    CHECK(raft->role == RAFT_LEADER || raft->transfer.target == RAFT_NO_NODE);
    CHECK(raft->config_index <= log->last_index && (raft->past_count > 0) == (raft->config_index > raft->commit_index));
    CHECK(raft->reads.ready <= raft->reads.done && raft->reads.done <= raft->reads.started &&
          raft->reads.started <= raft->reads.issued);
}

enum status raft_start(struct raft *raft, uint64_t now_us, struct raft_update *ret_update) {
    CHECK(!raft->started);
    const struct raft__log *log = &raft->log;
    bool start_is_unknown = log->last_index > 0 && raft__log_last_term(log) == 0;
    if (raft->commit_index > log->last_index || start_is_unknown) {
        return STATUS_CORRUPT;
    }
    raft->started = true;
    begin_step(raft, now_us);
    raft->synced_index = log->last_index;
    raft__draw_election_deadline(raft);
    raft__heal_advance(raft);
    raft->lost_log = raft->heal_index > 0;
    check_invariants(raft, raft->term, raft->vote, raft->commit_index);
    finish_step(raft, ret_update);
    return STATUS_OK;
}

/* ---- Events ---------------------------------------------------------------------------------------------------------
 */

/* Room for all that this message may append. */
static enum status reserve_for(struct raft *raft, const struct raft_message *message, uint32_t run_count,
                               uint32_t config_count) {
    bool may_append = message->type == RAFT_APPEND && message->entry_count > 0 && message->term >= raft->term &&
                      message->index <= raft->log.last_index;
    if (!may_append) {
        return STATUS_OK;
    }
    uint64_t last_index = raft__max(raft->log.last_index, message->index + message->entry_count);
    enum status status = raft__log_reserve(&raft->log, last_index, (size_t)run_count + 1);
    return status == STATUS_OK ? raft__membership_reserve(raft, config_count) : status;
}

/* A message of an older term is from somebody who missed an election: our term in the answer gets him unstuck. */
static void answer_old_term(struct raft *raft, const struct raft_message *message) {
    switch (message->type) {
    case RAFT_VOTE: raft__send(raft, RAFT_VOTE_REPLY, message->from)->reject = true; break;
    case RAFT_APPEND: {
        struct raft_message *reply = raft__send(raft, RAFT_APPEND_REPLY, message->from);
        reply->reject = true;
        reply->index = message->index;
        break;
    }
    case RAFT_HEARTBEAT: (void)raft__send(raft, RAFT_HEARTBEAT_REPLY, message->from); break;
    default: break; /* replies to what we no longer ask */
    }
}

static enum status handle_message(struct raft *raft, const struct raft_message *message) {
    uint32_t run_count = 0;
    uint32_t config_count = 0;
    enum status status = raft__message_check(raft, message, &run_count, &config_count);
    if (status == STATUS_OK) {
        status = reserve_for(raft, message, run_count, config_count);
    }
    if (status != STATUS_OK) {
        return status;
    }
    bool is_stranger = raft__config_find(&raft->config, message->from) == RAFT__NOWHERE;
    if (is_stranger && raft__message_is_for_members(message)) {
        return STATUS_OK; /* late words of a node that was removed */
    }
    if (message->type == RAFT_PREVOTE) {
        raft__handle_prevote(raft, message);
        return STATUS_OK;
    }
    if (message->type == RAFT_PREVOTE_REPLY) {
        raft__handle_prevote_reply(raft, message);
        return STATUS_OK;
    }
    if (message->term < raft->term) {
        answer_old_term(raft, message);
        return STATUS_OK;
    }
    if (message->term > raft->term) {
        raft__adopt_term(raft, message->term);
    }
    switch (message->type) {
    case RAFT_VOTE: raft__handle_vote(raft, message); return STATUS_OK;
    case RAFT_VOTE_REPLY: raft__handle_vote_reply(raft, message); return STATUS_OK;
    case RAFT_APPEND: return raft__handle_append(raft, message);
    case RAFT_APPEND_REPLY: return raft__handle_append_reply(raft, message);
    case RAFT_HEARTBEAT: return raft__handle_heartbeat(raft, message);
    case RAFT_HEARTBEAT_REPLY: return raft__handle_heartbeat_reply(raft, message);
    case RAFT_TIMEOUT_NOW: return raft__handle_timeout_now(raft, message);
    case RAFT_READ_INDEX: raft__handle_read_index(raft, message); return STATUS_OK;
    case RAFT_READ_INDEX_REPLY: raft__handle_read_index_reply(raft, message); return STATUS_OK;
    default: return STATUS_INVALID;
    }
}

static void handle_tick(struct raft *raft) {
    if (raft->role == RAFT_LEADER) {
        raft__leader_tick(raft);
        return;
    }
    if (raft->now_us >= election_deadline(raft)) {
        raft__election_due(raft);
    }
    if (raft->role != RAFT_LEADER) {
        raft__forward_tick(raft);
    }
}

static void handle_unreachable(struct raft *raft, uint64_t id) {
    struct raft__peer *peer = raft->role == RAFT_LEADER ? raft__peer_of(raft, id) : NULL;
    if (peer != NULL) {
        raft__peer_unreachable(raft, peer);
    }
}

static void handle_trimmed(struct raft *raft, uint64_t index) {
    CHECK(index <= raft->commit_index);
    if (index > raft->log.start_index) {
        raft__log_trim(&raft->log, index);
        raft->synced_index = raft__max(raft->synced_index, index); /* flushed is durable, wherever it is */
    }
}

static enum status handle_event(struct raft *raft, const struct raft_event *event) {
    switch (event->type) {
    case RAFT_EVENT_TICK: handle_tick(raft); return STATUS_OK;
    case RAFT_EVENT_MESSAGE: return handle_message(raft, event->u.message);
    case RAFT_EVENT_PROPOSE: return raft__propose(raft, event->u.propose.entries, event->u.propose.entry_count);
    case RAFT_EVENT_SYNCED: raft__handle_synced(raft, event); return STATUS_OK;
    case RAFT_EVENT_READ:
        if (raft->role != RAFT_LEADER) {
            return event->u.read.forward ? raft__read_forward(raft) : STATUS_NOT_LEADER;
        }
        raft__read(raft);
        return STATUS_OK;
    case RAFT_EVENT_UNREACHABLE: handle_unreachable(raft, event->u.peer); return STATUS_OK;
    case RAFT_EVENT_TRIMMED: handle_trimmed(raft, event->u.trimmed_index); return STATUS_OK;
    case RAFT_EVENT_CHANGE: return raft__change(raft, event->u.change.changes, event->u.change.change_count);
    case RAFT_EVENT_TRANSFER: return raft__transfer(raft, event->u.target);
    case RAFT_EVENT_SNAPSHOT_SENT:
        raft__snapshot_sent(raft, event->u.snapshot_sent.peer, event->u.snapshot_sent.index, event->u.snapshot_sent.ok);
        return STATUS_OK;
    case RAFT_EVENT_INSTALLED: return raft__snapshot_installed(raft, event);
    case RAFT_EVENT_FENCE:
        CHECK(event->u.fence < RAFT_FENCE_COUNT);
        raft__fence(raft, event->u.fence);
        return STATUS_OK;
    case RAFT_EVENT_NEEDS_SNAPSHOT: return raft__snapshot_needed(raft, event->u.needs_snapshot);
    case RAFT_EVENT_GONE: raft__peer_gone(raft, event->u.peer); return STATUS_OK;
    }
    CHECK(false && "an event of unknown type");
    return STATUS_INVALID;
}

enum status raft_step(struct raft *raft, const struct raft_event *event, struct raft_update *ret_update) {
    CHECK(raft->started);
    uint64_t term = raft->term;
    uint64_t vote = raft->vote;
    uint64_t commit_index = raft->commit_index;
    begin_step(raft, event->now_us);
    /* Any step may make us leader, whose NOOP must find room, or let a leader leave a joint configuration. */
    enum status status = raft__log_reserve(&raft->log, raft->log.last_index + 1, 1);
    if (status == STATUS_OK) {
        status = raft__membership_reserve(raft, 1);
    }
    if (status == STATUS_OK) {
        status = handle_event(raft, event);
    }
    check_invariants(raft, term, vote, commit_index);
    finish_step(raft, ret_update);
    return status;
}
