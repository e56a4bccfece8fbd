/*
 * Long jobs that an operator asks of a running node: compacting a range, verifying all tables, a checkpoint.
 *
 *   (none) --begin--> running --done--> ended --begin--> running ...
 *
 * One at a time. Beginning one is answered at once with its number; how far it is, and how it ended, is asked for as
 * often as somebody cares, until the next one begins: so neither a lost connection nor a deadline loses a result. What
 * is asked for beside a running one is refused; its state comes along.
 *
 * Owner: the consensus loop. The storage's jobs lie in the actor, which is freed after the storage has been closed; a
 * storage that is being closed calls nobody.
 */
#include "node/server/consensus_internal.h"

#include <stdio.h>

const char *consensus_upkeep_name(enum consensus_upkeep_action kind) {
    switch (kind) {
    case CONSENSUS_UPKEEP_COMPACT: return "compact";
    case CONSENSUS_UPKEEP_VERIFY: return "verify";
    case CONSENSUS_UPKEEP_CHECKPOINT: return "checkpoint";
    case CONSENSUS_UPKEEP_LOOK:
    case CONSENSUS_UPKEEP_CANCEL: break;
    }
    return "none";
}

/* ---- How far, and how it ended ---------------------------------------------------------------------------------- */

static struct storage_upkeep *upkeep_of(struct consensus_upkeep *upkeep) {
    switch (upkeep->state.kind) {
    case CONSENSUS_UPKEEP_VERIFY: return &upkeep->u.verification.upkeep;
    case CONSENSUS_UPKEEP_CHECKPOINT: return &upkeep->u.checkpoint.upkeep;
    default: return NULL;
    }
}

static void note_progress(struct consensus *consensus) {
    struct consensus_upkeep *upkeep = &consensus->upkeep;
    struct consensus_upkeep_state *state = &upkeep->state;
    struct storage_upkeep *job = upkeep_of(upkeep);
    if (!state->running) {
        return;
    }
    if (job != NULL) {
        state->done_bytes = atomic_load_explicit(&job->done_bytes, memory_order_relaxed);
        state->total_bytes = atomic_load_explicit(&job->total_bytes, memory_order_relaxed);
    } else {
        state->done_bytes = upkeep->u.compact.done_bytes;
        state->total_bytes = upkeep->u.compact.done_bytes + upkeep->u.compact.left_bytes;
    }
    state->elapsed_us = consensus__now_us(consensus) - upkeep->begun_us;
}

static void end(struct consensus *consensus, enum status status, const char *message) {
    struct consensus_upkeep_state *state = &consensus->upkeep.state;
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    note_progress(consensus);
    state->running = false;
    state->status = status;
    (void)snprintf(state->message, sizeof state->message, "%s", message);
    log_event(consensus->options.logger, status == STATUS_OK ? LOG_INFO : LOG_WARN, "upkeep.ended",
              "kind=%s status=%s ms=%llu reason=%s", consensus_upkeep_name(state->kind), status_name(status),
              (unsigned long long)(state->elapsed_us / 1000), log_quote(quoted, sizeof quoted, message));
}

static void end_upkeep(struct consensus *consensus, const struct storage_upkeep *job) {
    end(consensus, job->status, job->status == STATUS_OK ? "" : job->error.message);
}

static void on_compacted(struct storage_compact *compact, enum status status) {
    end(compact->context, status, status == STATUS_OK ? "" : compact->error.message);
}

static void on_verified(struct storage_upkeep *job) {
    struct consensus *consensus = job->context;
    const struct storage_verify_report *report = &consensus->upkeep.u.verification.report;
    struct consensus_upkeep_state *state = &consensus->upkeep.state;
    state->files = report->tables;
    state->bytes = report->bytes;
    state->findings = report->findings;
    state->index = report->frontier.index;
    end_upkeep(consensus, job);
}

static void on_checkpoint(struct storage_upkeep *job) {
    struct consensus *consensus = job->context;
    const struct storage_checkpoint *checkpoint = &consensus->upkeep.u.checkpoint;
    struct consensus_upkeep_state *state = &consensus->upkeep.state;
    state->files = checkpoint->files;
    state->bytes = checkpoint->bytes;
    state->copied_bytes = checkpoint->copied_bytes;
    state->index = checkpoint->frontier.index;
    end_upkeep(consensus, job);
}

/* ---- Beginning and cancelling ----------------------------------------------------------------------------------- */

static void begin_compact(struct consensus *consensus, const struct consensus_upkeep_query *query) {
    struct consensus_upkeep *upkeep = &consensus->upkeep;
    if (query->lower.len > 0) {
        memcpy(upkeep->lower, query->lower.data, query->lower.len);
    }
    if (query->upper.len > 0) {
        memcpy(upkeep->upper, query->upper.data, query->upper.len);
    }
    upkeep->u.compact = (struct storage_compact){.lower = slice_of(upkeep->lower, query->lower.len),
                                                 .upper = slice_of(upkeep->upper, query->upper.len),
                                                 .done = on_compacted,
                                                 .context = consensus};
    storage_compact_range(consensus->storage, &upkeep->u.compact);
}

static void begin_verify(struct consensus *consensus) {
    struct storage_verification *verification = &consensus->upkeep.u.verification;
    memset(verification, 0, sizeof *verification);
    verification->upkeep.done = on_verified;
    verification->upkeep.context = consensus;
    storage_verify(consensus->storage, verification);
}

static void begin_checkpoint(struct consensus *consensus, const struct consensus_upkeep_query *query) {
    struct storage_checkpoint *checkpoint = &consensus->upkeep.u.checkpoint;
    memset(checkpoint, 0, sizeof *checkpoint);
    checkpoint->upkeep.done = on_checkpoint;
    checkpoint->upkeep.context = consensus;
    checkpoint->flush = true;
    (void)snprintf(checkpoint->dir, sizeof checkpoint->dir, "%s", query->dir);
    storage_checkpoint(consensus->storage, checkpoint);
}

static enum status begin(struct consensus *consensus, const struct consensus_upkeep_query *query) {
    struct consensus_upkeep *upkeep = &consensus->upkeep;
    if (upkeep->state.running) {
        return STATUS_BUSY;
    }
    CHECK(query->lower.len <= LIMIT_KEY_BYTES && query->upper.len <= LIMIT_KEY_BYTES);
    upkeep->state = (struct consensus_upkeep_state){.job = upkeep->state.job + 1,
                                                    .kind = query->action,
                                                    .running = true,
                                                    .status = STATUS_OK};
    upkeep->begun_us = consensus__now_us(consensus);
    log_event(consensus->options.logger, LOG_INFO, "upkeep.begun", "kind=%s", consensus_upkeep_name(query->action));
    switch (query->action) {
    case CONSENSUS_UPKEEP_COMPACT: begin_compact(consensus, query); break;
    case CONSENSUS_UPKEEP_VERIFY: begin_verify(consensus); break;
    case CONSENSUS_UPKEEP_CHECKPOINT: begin_checkpoint(consensus, query); break;
    case CONSENSUS_UPKEEP_LOOK:
    case CONSENSUS_UPKEEP_CANCEL: CHECK(false);
    }
    return STATUS_OK;
}

static enum status cancel(struct consensus *consensus) {
    struct storage_upkeep *job = upkeep_of(&consensus->upkeep);
    if (!consensus->upkeep.state.running) {
        return STATUS_OK;
    }
    if (job == NULL) {
        return STATUS_UNSUPPORTED; /* compactions that have begun end */
    }
    storage_upkeep_cancel(job);
    return STATUS_OK;
}

static enum status act(struct consensus *consensus, const struct consensus_upkeep_query *query) {
    if (consensus__is_dead(consensus) || consensus->refusing || consensus->storage == NULL) {
        return STATUS_UNAVAILABLE;
    }
    switch (query->action) {
    case CONSENSUS_UPKEEP_LOOK: return STATUS_OK;
    case CONSENSUS_UPKEEP_CANCEL: return cancel(consensus);
    case CONSENSUS_UPKEEP_COMPACT:
    case CONSENSUS_UPKEEP_VERIFY:
    case CONSENSUS_UPKEEP_CHECKPOINT: return begin(consensus, query);
    }
    CHECK(false);
}

static void run_done(struct env_message *message) {
    struct consensus_upkeep_query *query = CONTAINER_OF(message, struct consensus_upkeep_query, message);
    query->done(query);
}

static void run_query(struct env_message *message) {
    struct consensus_upkeep_query *query = CONTAINER_OF(message, struct consensus_upkeep_query, message);
    struct consensus *consensus = query->consensus;
    query->status = act(consensus, query);
    note_progress(consensus);
    query->state = consensus->upkeep.state;
    query->message.run = run_done;
    env_post(query->loop, &query->message);
}

void consensus_upkeep(struct consensus *consensus, struct consensus_upkeep_query *query) {
    query->consensus = consensus;
    query->message.run = run_query;
    env_post(consensus->options.loop, &query->message);
}
