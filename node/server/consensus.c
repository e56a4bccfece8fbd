/*
 * The consensus actor: events into raft, updates carried out, start and stop.
 *
 * One way for data to flow: an event (message, timer, synced group, proposals, reads) goes through consensus__step; its
 * update is carried out in a fixed order: state and records into the log's forming group, then messages, then commit,
 * reads, deadline. The log writes at the end of the turn, so all steps of a turn share a group.
 */
#include "node/server/consensus_internal.h"

#include "proto/frame.h"

#include <inttypes.h>

static void run_failure(struct env_task *task) {
    struct consensus *consensus = CONTAINER_OF(task, struct consensus, failure_task);
    propose__end_all(consensus);
    read__refuse(consensus, STATUS_UNAVAILABLE, true);
    member__end_all(consensus);
    consensus->options.failed(consensus->options.context, &consensus->failure);
}

void consensus__fail(struct consensus *consensus, const struct error *err) {
    if (consensus->failure.code != STATUS_OK) {
        return;
    }
    CHECK(err->code != STATUS_OK);
    consensus->failure = *err;
    atomic_store_explicit(&consensus->leader_id, RAFT_NO_NODE, memory_order_relaxed);
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    log_event(consensus->options.logger, LOG_ERROR, "consensus.failed", "role=%s term=%" PRIu64 " reason=%s",
              raft_role_name(consensus->role), consensus->term, log_quote(quoted, sizeof quoted, err->message));
    if (!consensus->stopping) {
        env_defer(consensus->options.loop, ENV_STAGE_PROCESS, &consensus->failure_task);
    }
}

void consensus__schedule(struct consensus *consensus) {
    env_defer(consensus->options.loop, ENV_STAGE_PROCESS, &consensus->process_task);
}

static void fail_with(struct consensus *consensus, enum status status, const char *what) {
    struct error error;
    (void)error_set(&error, status, "%s: %s", what, status_name(status));
    consensus__fail(consensus, &error);
}

/* ---- Carrying out an update ------------------------------------------------------------------------------------- */

static void note_role(struct consensus *consensus) {
    enum raft_role role = raft_role(consensus->raft);
    uint64_t leader = raft_leader(consensus->raft);
    uint64_t term = raft_term(consensus->raft);
    if (role == consensus->role && leader == consensus->leader && term == consensus->term) {
        return;
    }
    if (role == RAFT_PRECANDIDATE && consensus->role != RAFT_PRECANDIDATE) {
        consensus->elections_started++;
    }
    enum log_level level = role != consensus->role || leader != consensus->leader ? LOG_INFO : LOG_DEBUG;
    log_event(consensus->options.logger, level, "raft.role",
              "role=%s term=%" PRIu64 " leader=%s last=%" PRIu64 " commit=%" PRIu64, raft_role_name(role), term,
              member__name(consensus, leader), raft_last_index(consensus->raft), raft_commit_index(consensus->raft));
    bool was_leader = consensus->role == RAFT_LEADER;
    consensus->role = role;
    consensus->leader = leader;
    consensus->term = term;
    atomic_store_explicit(&consensus->leader_id, leader, memory_order_relaxed);
    if (was_leader && role != RAFT_LEADER) {
        propose__refuse_waiting(consensus, STATUS_NOT_LEADER);
        propose__orphan(consensus);
    }
}

/* The log takes what raft took; room was made sure of before the step. */
static enum status append_records(struct consensus *consensus, const struct raft_update *update) {
    switch (update->append.source) {
    case RAFT_APPEND_NONE: return STATUS_OK;
    case RAFT_APPEND_NOOP: {
        uint8_t *payload;
        enum status status = wal_append_begin(consensus->wal, update->append.first_index, update->append.term,
                                              RAFT_ENTRY_NOOP, 0, &payload);
        if (status == STATUS_OK) {
            wal_append_end(consensus->wal);
        }
        return status;
    }
    case RAFT_APPEND_PROPOSAL:
        return propose__write_records(consensus, update->append.first_index, update->append.term, update->append.count);
    case RAFT_APPEND_CONFIG: return member__write(consensus, update);
    case RAFT_APPEND_MESSAGE: return append__write_records(consensus, update->append.skip, update->append.count);
    }
    CHECK(false);
}

static void send_messages(struct consensus *consensus, const struct raft_update *update) {
    for (uint32_t i = 0; i < update->message_count; i++) {
        const struct raft_message *message = &update->messages[i];
        if (message->type == RAFT_APPEND) {
            append__send(consensus, message);
        } else {
            struct raft_message tagged = *message;
            digest__tag(consensus, &tagged);
            rebuild__tag(consensus, &tagged);
            (void)peers_send(consensus->peers, &tagged, NULL, 0);
        }
    }
}

/*
 * Raft's clock stands still while this node can't look: a turn of the loop that took long (entries of 16 MiB, too few
 * CPUs) or a paused process leaves what others said meanwhile unread in the sockets, and silence must be counted in
 * looks, not in time that nobody looked. Else a busy leader takes its own deafness for a lost quorum and steps down. So
 * a deadline that is met late counts as met by a heartbeat interval late, at most.
 */
uint64_t consensus__raft_now_us(struct consensus *consensus) {
    uint64_t now_us = consensus__now_us(consensus);
    uint64_t tolerance_us = 1000ull * consensus->options.config->heartbeat_ms;
    if (now_us > tolerance_us && consensus->raft_due_us < now_us - tolerance_us) {
        consensus->held_up_us += now_us - tolerance_us - consensus->raft_due_us;
        consensus->raft_due_us = now_us - tolerance_us;
    }
    CHECK(consensus->held_up_us <= now_us);
    return now_us - consensus->held_up_us;
}

/* due_us: by the loop's clock; one that is over already counts from now, as nobody is late for it. */
static void await_raft(struct consensus *consensus, uint64_t due_us) {
    uint64_t now_us = consensus__now_us(consensus);
    consensus->raft_due_us = due_us > now_us ? due_us : now_us;
    if (env_timer_arm(&consensus->raft_timer, due_us) != STATUS_OK) {
        fail_with(consensus, STATUS_NO_MEMORY, "raft's timer can't be armed");
    }
}

static void carry_out(struct consensus *consensus, const struct raft_update *update, bool read_asked) {
    if (update->save_state) {
        wal_set_state(consensus->wal, update->term, update->vote);
    }
    enum status status = append_records(consensus, update);
    if (status != STATUS_OK) {
        fail_with(consensus, status, "the log refused records that it had promised room for");
        return;
    }
    note_role(consensus);
    status = member__updated(consensus, update);
    if (status != STATUS_OK) {
        fail_with(consensus, status, "connections to new members");
        return;
    }
    send_messages(consensus, update);
    if (update->commit_index > consensus->commit_index) {
        consensus->commit_index = update->commit_index;
        wal_set_commit(consensus->wal, update->commit_index);
        consensus__schedule(consensus);
    }
    if (read_asked) {
        read__asked(consensus, update->read_round);
    }
    if (update->reads_failed) {
        read__refuse(consensus, STATUS_NOT_LEADER, false);
    }
    if (update->ready_round > 0) {
        read__ready(consensus, update->ready_round, update->ready_index);
    }
    snapshots_request(consensus->snapshots, update->snapshot_peers, update->snapshot_peer_count);
    bool is_never = update->deadline_us > UINT64_MAX - consensus->held_up_us;
    await_raft(consensus, is_never ? UINT64_MAX : update->deadline_us + consensus->held_up_us);
}

static void observe(const struct consensus *consensus, const struct raft_event *event, enum status status,
                    const struct raft_update *update) {
    if (consensus->options.observe != NULL) {
        consensus->options.observe(consensus->options.observe_context, consensus->raft, event, status, update);
    }
}

enum status consensus__step(struct consensus *consensus, struct raft_event *event) {
    if (consensus__is_dead(consensus)) {
        return STATUS_FAILED;
    }
    struct raft_update update;
    event->now_us = consensus__raft_now_us(consensus);
    enum status status = raft_step(consensus->raft, event, &update);
    observe(consensus, event, status, &update);
    if (status == STATUS_NO_MEMORY) {
        fail_with(consensus, status, "raft");
        return STATUS_FAILED;
    }
    carry_out(consensus, &update, event->type == RAFT_EVENT_READ && status == STATUS_OK);
    return consensus->failure.code == STATUS_OK ? status : STATUS_FAILED;
}

/* ---- Events ----------------------------------------------------------------------------------------------------- */

static void on_raft_timer(struct env_timer *timer) {
    struct consensus *consensus = CONTAINER_OF(timer, struct consensus, raft_timer);
    if (snapshots_hold_log(consensus->snapshots)) {
        await_raft(consensus, consensus__now_us(consensus) + CONSENSUS_DEADLINE_STEP_US);
        return;
    }
    /* A tick may make a leader, whose first record needs room. Without it the node doesn't campaign, nor when a member
     * has told it that its removal is committed. A leader goes on without, but takes nobody back. */
    size_t room = consensus->role == RAFT_LEADER ? WAL_RECORD_HEADER_BYTES + (size_t)RAFT_CONFIG_BYTES_MAX
                                                 : member__room(consensus);
    bool has_room = wal_reserve(consensus->wal, room, 1) == STATUS_OK;
    bool may_campaign = consensus->members.removed_by == RAFT_NO_NODE && has_room;
    if (consensus->role != RAFT_LEADER && !may_campaign) {
        await_raft(consensus, consensus__now_us(consensus) + CONSENSUS_HOUSEKEEPING_US);
        return;
    }
    struct raft_event event = {.type = RAFT_EVENT_TICK, .u.tick.has_room = has_room};
    (void)consensus__step(consensus, &event);
}

static void on_store_frame(void *context, uint64_t node_id, uint8_t type, struct slice message, struct slice raw) {
    struct consensus *consensus = context;
    if (type == FRAME_SCAN_ASK || type == FRAME_SCAN_REPORT) {
        scan__received(consensus, node_id, type, message);
    } else {
        snapshots_receive(consensus->snapshots, node_id, type, message, raw);
    }
}

static void on_unreachable(void *context, uint64_t node_id) {
    struct consensus *consensus = context;
    struct raft_event event = {.type = RAFT_EVENT_UNREACHABLE, .u.peer = node_id};
    (void)consensus__step(consensus, &event);
}

static void on_gone(void *context, uint64_t node_id) {
    struct consensus *consensus = context;
    struct raft_event event = {.type = RAFT_EVENT_GONE, .u.peer = node_id};
    (void)consensus__step(consensus, &event);
}

/* A candidacy that becomes durable makes a single node leader, whose first record needs room, and a joint configuration
 * that becomes durable is left by another record: until there is room, the news waits; housekeeping asks again. */
static bool must_wait_for_room(struct consensus *consensus) {
    if (raft_role(consensus->raft) != RAFT_CANDIDATE && raft_role(consensus->raft) != RAFT_LEADER) {
        return false;
    }
    if (raft_role(consensus->raft) == RAFT_LEADER && !raft_membership(consensus->raft)->joint) {
        return false;
    }
    if (snapshots_hold_log(consensus->snapshots)) {
        return true;
    }
    enum status status = wal_reserve(consensus->wal, member__room(consensus), 1);
    return status == STATUS_NO_SPACE || status == STATUS_NO_MEMORY;
}

static void step_synced(struct consensus *consensus) {
    if (!consensus->has_synced || must_wait_for_room(consensus)) {
        return;
    }
    const struct wal_synced *synced = &consensus->newest_synced;
    consensus->has_synced = false;
    struct raft_event event = {.type = RAFT_EVENT_SYNCED,
                               .u.synced = {.term = synced->term,
                                            .vote = synced->vote,
                                            .last_index = synced->last_index,
                                            .last_term = synced->last_term}};
    (void)consensus__step(consensus, &event);
    apply__set_durable(consensus);
    consensus__schedule(consensus);
}

void consensus__wal_synced(void *context, const struct wal_synced *synced) {
    struct consensus *consensus = context;
    consensus->newest_synced = *synced;
    consensus->has_synced = true;
    step_synced(consensus);
}

void consensus__wal_failed(void *context, const struct error *err) { consensus__fail(context, err); }

static void set_space_problem(struct consensus *consensus, const struct error *err) {
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    if (err != NULL) {
        consensus->space_problem = *err;
        log_event(consensus->options.logger, LOG_WARN, "disk.problem", "reason=%s",
                  log_quote(quoted, sizeof quoted, err->message));
    } else {
        error_clear(&consensus->space_problem);
        log_event(consensus->options.logger, LOG_INFO, "disk.recovered", "%s", "");
    }
}

void consensus__wal_prepare_state(void *context, const struct error *err) { set_space_problem(context, err); }

void consensus__space_state(void *context, const struct error *err) {
    struct consensus *consensus = context;
    set_space_problem(consensus, err);
    if (err != NULL && consensus->wal != NULL) {
        wal_give_space(consensus->wal);
    }
}

void consensus__damaged(void *context, const struct storage_damage *damage) {
    struct consensus *consensus = context;
    log_event(consensus->options.logger, LOG_ERROR, "storage.damaged", "table=%" PRIu64 " offset=%" PRIu64,
              damage->file, damage->offset);
    rebuild__damaged(consensus, damage);
}

void consensus__storage_failed(void *context, const struct error *err) { consensus__fail(context, err); }

void consensus__fill_frontier(void *context, struct storage_frontier *frontier) {
    struct consensus *consensus = context;
    member__fill_frontier(consensus, frontier);
    frontier->feature_level = 1;
}

void consensus__flushed(void *context, const struct storage_frontier *frontier) {
    struct consensus *consensus = context;
    log_event(consensus->options.logger, LOG_INFO, "storage.flushed", "index=%" PRIu64 " term=%" PRIu64,
              frontier->index, frontier->term);
    floor__update(consensus);
}

void consensus__can_apply(void *context) {
    struct consensus *consensus = context;
    if (!consensus->apply_reading) {
        consensus->apply_suspended = false;
        consensus__schedule(consensus);
    }
}

static void note_progress(struct consensus *consensus) {
    uint64_t now_us = consensus__now_us(consensus);
    struct wal_stats stats;
    wal_get_stats(consensus->wal, &stats);
    bool log_moves = stats.inflight_since_us == 0 || now_us - stats.inflight_since_us < CONSENSUS_STALL_US;
    bool applied_all = storage_applied_index(consensus->storage) >= consensus->commit_index;
    if (applied_all) {
        consensus->applied_progress_us = now_us;
    }
    bool apply_moves = now_us - consensus->applied_progress_us < CONSENSUS_STALL_US;
    if (log_moves && apply_moves) {
        atomic_store_explicit(&consensus->progress_us, env_clock_us(consensus->options.env), memory_order_relaxed);
    }
}

static void on_housekeeping(struct env_timer *timer) {
    struct consensus *consensus = CONTAINER_OF(timer, struct consensus, housekeeping_timer);
    if (consensus__is_dead(consensus)) {
        return;
    }
    note_progress(consensus);
    step_synced(consensus);
    heal__update(consensus);
    rebuild__update(consensus);
    digest__tick(consensus);
    scan__tick(consensus);
    budget__tick(consensus);
    floor__update(consensus);
    if (env_timer_arm(timer, consensus__now_us(consensus) + CONSENSUS_HOUSEKEEPING_US) != STATUS_OK) {
        fail_with(consensus, STATUS_NO_MEMORY, "the housekeeping timer can't be armed");
    }
}

void consensus__watch_deadlines(struct consensus *consensus) {
    if (!env_timer_is_armed(&consensus->deadline_timer) &&
        env_timer_arm(&consensus->deadline_timer, consensus__now_us(consensus) + CONSENSUS_DEADLINE_STEP_US) !=
            STATUS_OK) {
        fail_with(consensus, STATUS_NO_MEMORY, "the deadline timer can't be armed");
    }
}

static void on_deadline(struct env_timer *timer) {
    struct consensus *consensus = CONTAINER_OF(timer, struct consensus, deadline_timer);
    uint64_t now_us = env_clock_us(consensus->options.env);
    propose__expire(consensus, now_us);
    read__expire(consensus, now_us);
    member__expire(consensus, now_us);
    if (consensus->proposal_count > 0 || consensus->read_count > 0 || consensus->members.change_count > 0) {
        consensus__watch_deadlines(consensus);
    }
}

static void run_process(struct env_task *task) {
    struct consensus *consensus = CONTAINER_OF(task, struct consensus, process_task);
    if (consensus__is_dead(consensus)) {
        return;
    }
    read__ask(consensus);
    propose__submit_waiting(consensus);
    apply__advance(consensus);
}

static void run_deliver(struct env_task *task) {
    struct consensus *consensus = CONTAINER_OF(task, struct consensus, deliver_task);
    propose__deliver(consensus);
    read__deliver(consensus);
    member__deliver(consensus);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static void init_lists(struct consensus *consensus) {
    list_init(&consensus->proposals_waiting);
    list_init(&consensus->proposals_logged);
    list_init(&consensus->proposals_orphaned);
    list_init(&consensus->proposals_done);
    list_init(&consensus->reads_new);
    list_init(&consensus->reads_asked);
    list_init(&consensus->reads_applying);
    list_init(&consensus->reads_done);
    list_init(&consensus->members.changes);
    list_init(&consensus->members.changes_done);
}

static void init_timers(struct consensus *consensus) {
    struct env_loop *loop = consensus->options.loop;
    env_timer_init(&consensus->raft_timer, loop, on_raft_timer);
    env_timer_init(&consensus->apply_timer, loop, apply__on_timer);
    env_timer_init(&consensus->deadline_timer, loop, on_deadline);
    env_timer_init(&consensus->pace_timer, loop, propose__on_pace_timer);
    env_timer_init(&consensus->housekeeping_timer, loop, on_housekeeping);
    fence__init(consensus);
    env_task_init(&consensus->process_task, run_process);
    env_task_init(&consensus->deliver_task, run_deliver);
    env_task_init(&consensus->failure_task, run_failure);
}

static enum status start_peers(struct consensus *consensus, struct error *err) {
    const struct consensus_options *options = &consensus->options;
    struct peers_options peers_options = {
        .env = options->env,
        .loop = options->loop,
        .transport = options->peer_transport,
        .config = options->config,
        .directory = &consensus->members.directory,
        .logger = options->logger,
        .context = consensus,
        .received = append__received,
        .unreachable = on_unreachable,
        .store_frame = on_store_frame,
        .gone = on_gone,
        .removed = member__was_removed,
        .known_membership = told__known_membership,
        .newer_membership = told__newer_membership,
        .told_membership = told__membership,
    };
    return peers_start(&peers_options, &consensus->peers, err);
}

enum status consensus_new(const struct consensus_options *options, struct consensus **ret_consensus,
                          struct error *err) {
    struct consensus *consensus = mem_alloc_zero(options->env->alloc, sizeof *consensus);
    if (consensus == NULL) {
        return error_set(err, STATUS_NO_MEMORY, "consensus: out of memory");
    }
    consensus->options = *options;
    init_lists(consensus);
    init_timers(consensus);
    replay_speed_init(&consensus->replay_speed);
    scan__init(consensus);
    if (snapshots_new(consensus, &consensus->snapshots) != STATUS_OK) {
        mem_free(options->env->alloc, consensus);
        return error_set(err, STATUS_NO_MEMORY, "consensus: out of memory");
    }
    *ret_consensus = consensus;
    return STATUS_OK;
}

void consensus_free_unstarted(struct consensus *consensus) {
    CHECK(consensus->raft == NULL);
    snapshots_free(consensus->snapshots);
    mem_free(consensus->options.env->alloc, consensus);
}

enum status consensus_start(struct consensus *consensus, struct raft *raft, struct wal *wal, struct storage *storage,
                            struct error *err) {
    consensus->raft = raft;
    consensus->wal = wal;
    consensus->storage = storage;
    consensus->commit_index = raft_commit_index(raft);
    consensus->trimmed_index = raft_first_index(raft) - 1;
    consensus->term = raft_term(raft);
    consensus->applied_progress_us = consensus__now_us(consensus);
    atomic_store(&consensus->progress_us, env_clock_us(consensus->options.env));
    enum status status = start_peers(consensus, err);
    if (status == STATUS_OK) {
        status = wal_start(wal, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = member__save(consensus);
    if (status == STATUS_OK) {
        status = member__connect(consensus);
    }
    if (status != STATUS_OK) {
        return error_set(err, status, "the membership can't be kept: %s", status_name(status));
    }
    storage_start(storage);
    struct log_share share;
    wal_share(wal, &share);
    storage_set_log(storage, &share);
    struct raft_update update;
    consensus->raft_due_us = UINT64_MAX;
    status = raft_start(raft, consensus__raft_now_us(consensus), &update);
    if (status != STATUS_OK) {
        return error_set(err, status, "raft can't start: %s", status_name(status));
    }
    consensus->heal.is_open = true; /* until the first look */
    observe(consensus, NULL, STATUS_OK, &update);
    carry_out(consensus, &update, false);
    apply__set_durable(consensus);
    consensus__schedule(consensus);
    on_housekeeping(&consensus->housekeeping_timer);
    fence__start(consensus);
    return STATUS_OK;
}

static void free_consensus(struct consensus *consensus) {
    struct alloc *alloc = consensus->options.env->alloc;
    void (*stopped)(void *context) = consensus->stopped;
    void *context = consensus->stopped_context;
    append__deinit_senders(consensus);
    snapshots_free(consensus->snapshots);
    raft_free(consensus->raft);
    mem_free(alloc, consensus->records);
    mem_free(alloc, consensus->entries);
    mem_free(alloc, consensus);
    stopped(context);
}

void consensus__part_stopped(void *context) {
    struct consensus *consensus = context;
    CHECK(consensus->stop_pending > 0);
    consensus->stop_pending--;
    if (consensus->stop_pending > 0) {
        return;
    }
    env_task_cancel(&consensus->process_task);
    env_task_cancel(&consensus->deliver_task);
    env_task_cancel(&consensus->failure_task);
    free_consensus(consensus);
}

void consensus_refuse_requests(struct consensus *consensus) {
    consensus->refusing = true;
    propose__end_all(consensus);
    read__refuse(consensus, STATUS_UNAVAILABLE, true);
    member__end_all(consensus);
}

void consensus_stop(struct consensus *consensus, void (*stopped)(void *context), void *context) {
    CHECK(!consensus->stopping);
    consensus_refuse_requests(consensus);
    run_deliver(&consensus->deliver_task);
    consensus->stopping = true;
    consensus->stopped = stopped;
    consensus->stopped_context = context;
    env_timer_cancel(&consensus->raft_timer);
    env_timer_cancel(&consensus->apply_timer);
    env_timer_cancel(&consensus->deadline_timer);
    env_timer_cancel(&consensus->pace_timer);
    env_timer_cancel(&consensus->housekeeping_timer);
    fence__stop(consensus);
    consensus->stop_pending = (consensus->peers != NULL ? 4 : 3) + rebuild__stop(consensus);
    snapshots_stop(consensus->snapshots, consensus__part_stopped, consensus);
    if (consensus->peers != NULL) {
        peers_stop(consensus->peers, consensus__part_stopped, consensus);
    }
    wal_close(consensus->wal, consensus__part_stopped, consensus);
    storage_close(consensus->storage, consensus__part_stopped, consensus);
}
