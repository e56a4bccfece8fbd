/*
 * Answers of one node about itself: status, its log, its long jobs. As in reply.c, nothing that comes from the wire is
 * trusted: texts are cut, lists that are longer than ours are cut or refused.
 */
#include "proto/client/core_internal.h"

#include "node/base/histogram.h"

/* What has the same name on both sides. */
#define COPY(to, from, field) ((to)->field = (from)->field)

static void copy_snapshot(struct holdfast_snapshot *out, const Wire__SnapshotStatus *snapshot) {
    client_text_copy(out->peer, sizeof out->peer, snapshot->peer);
    client_text_copy(out->state, sizeof out->state, snapshot->state);
    client_text_copy(out->pace, sizeof out->pace, snapshot->pace);
    COPY(out, snapshot, incoming);
    COPY(out, snapshot, index);
    COPY(out, snapshot, done_bytes);
    COPY(out, snapshot, total_bytes);
    COPY(out, snapshot, bytes_per_second);
}

static void copy_log_figures(struct holdfast_node_status *status, const Wire__StatusReply *reply) {
    COPY(status, reply, log_groups_idle);
    COPY(status, reply, log_groups_behind);
    COPY(status, reply, log_groups_full);
    COPY(status, reply, log_groups_start);
    COPY(status, reply, log_groups_state);
    COPY(status, reply, log_groups_mark);
    COPY(status, reply, log_group_records_max);
    COPY(status, reply, log_written_bytes);
    COPY(status, reply, log_padding_bytes);
    /* A newer node may have more buckets: its longer times are the last one's. */
    for (size_t i = 0; i < reply->n_log_sync_us_buckets; i++) {
        size_t bucket = i < HOLDFAST_SYNC_BUCKETS ? i : HOLDFAST_SYNC_BUCKETS - 1;
        status->log_sync_us_buckets[bucket] += reply->log_sync_us_buckets[i];
    }
    const uint64_t *buckets = status->log_sync_us_buckets;
    status->log_sync_us_p50 = histogram_quantile(buckets, HOLDFAST_SYNC_BUCKETS, status->log_sync_us_max, 500);
    status->log_sync_us_p99 = histogram_quantile(buckets, HOLDFAST_SYNC_BUCKETS, status->log_sync_us_max, 990);
}

enum status reply__status(struct client_request *request, const struct connection_frame *frame,
                          struct client_answer *answer, struct error *err) {
    struct client_core *core = request->core;
    const Wire__StatusReply *reply =
        (const Wire__StatusReply *)(const void *)wire_unpack(&core->arena, &wire__status_reply__descriptor,
                                                             frame->message);
    struct holdfast_node_status *status = arena_alloc(&core->arena, sizeof *status);
    if (reply == NULL || status == NULL || reply->cluster_id.len != sizeof status->cluster_id) {
        return error_set(err, STATUS_CORRUPT, "a status that can't be read");
    }
    memset(status, 0, sizeof *status);
    memcpy(status->cluster_id, reply->cluster_id.data, sizeof status->cluster_id);
    client_text_copy(status->node_name, sizeof status->node_name, reply->node_name);
    client_text_copy(status->version, sizeof status->version, reply->version);
    client_text_copy(status->role, sizeof status->role, reply->raft_role);
    client_text_copy(status->problem, sizeof status->problem, reply->problem);
    COPY(status, reply, node_id);
    COPY(status, reply, term);
    COPY(status, reply, leader_id);
    COPY(status, reply, first);
    COPY(status, reply, last);
    COPY(status, reply, synced);
    COPY(status, reply, commit);
    COPY(status, reply, applied);
    COPY(status, reply, flushed);
    COPY(status, reply, uptime_ms);
    COPY(status, reply, log_segments);
    COPY(status, reply, log_groups);
    COPY(status, reply, log_records);
    COPY(status, reply, log_sync_us_total);
    COPY(status, reply, log_sync_us_max);
    COPY(status, reply, memtable_bytes);
    COPY(status, reply, sst_files);
    COPY(status, reply, sst_bytes);
    COPY(status, reply, client_connections);
    COPY(status, reply, horizon);
    COPY(status, reply, scrub_passes);
    COPY(status, reply, scrub_bytes);
    COPY(status, reply, damaged_places);
    COPY(status, reply, write_stalls);
    COPY(status, reply, write_stall_us_total);
    COPY(status, reply, write_stall_us_max);
    COPY(status, reply, heal_index);
    COPY(status, reply, log_segments_faulty);
    client_text_copy(status->rebuild_state, sizeof status->rebuild_state, reply->rebuild_state);
    client_text_copy(status->rebuild_reason, sizeof status->rebuild_reason, reply->rebuild_reason);
    COPY(status, reply, rebuilds);
    COPY(status, reply, rebuilds_failed);
    COPY(status, reply, snapshots_sent);
    COPY(status, reply, snapshots_installed);
    COPY(status, reply, snapshots_failed);
    for (size_t i = 0; i < reply->n_snapshots && i < HOLDFAST_MEMBERS_MAX; i++) {
        copy_snapshot(&status->snapshots[status->snapshot_count++], reply->snapshots[i]);
    }
    COPY(status, reply, fences);
    COPY(status, reply, loop_stand_stills);
    COPY(status, reply, config_index);
    COPY(status, reply, config_committed);
    COPY(status, reply, config_joint);
    COPY(status, reply, transfer_target);
    COPY(status, reply, digest_index);
    COPY(status, reply, digest_mismatches);
    COPY(status, reply, scan_index);
    COPY(status, reply, scan_mismatches);
    client_text_copy(status->scan_state, sizeof status->scan_state, reply->scan_state);
    if (reply->scan_digest.len == sizeof status->scan_digest) {
        memcpy(status->scan_digest, reply->scan_digest.data, sizeof status->scan_digest);
    }
    COPY(status, reply, replay_ms);
    if (reply->digest.len == sizeof status->digest) {
        memcpy(status->digest, reply->digest.data, sizeof status->digest);
    }
    copy_log_figures(status, reply);
    for (size_t i = 0; i < reply->n_members && i < HOLDFAST_MEMBERS_MAX; i++) {
        reply__copy_member(&status->members[status->member_count++], reply->members[i]);
    }
    answer->status = status;
    answer->result.revision = reply->applied;
    return STATUS_OK;
}

static void copy_pin(struct holdfast_log_pin *out, const Wire__LogPin *pin) {
    client_text_copy(out->owner, sizeof out->owner, pin->owner);
    COPY(out, pin, has_index);
    COPY(out, pin, index);
    COPY(out, pin, segments);
    COPY(out, pin, file_bytes);
    COPY(out, pin, age_ms);
}

static void copy_segment(struct holdfast_log_segment *out, const Wire__LogSegment *segment, uint32_t pin_count) {
    client_text_copy(out->state, sizeof out->state, segment->state);
    COPY(out, segment, number);
    COPY(out, segment, file_bytes);
    COPY(out, segment, used_bytes);
    COPY(out, segment, first);
    COPY(out, segment, last);
    COPY(out, segment, age_ms);
    COPY(out, segment, begun_earlier);
    for (size_t i = 0; i < segment->n_pins; i++) {
        out->pins |= segment->pins[i] < pin_count ? 1U << segment->pins[i] : 0;
    }
}

/* One block: the log, then its segments. */
enum status reply__log(struct client_request *request, const struct connection_frame *frame,
                       struct client_answer *answer, struct error *err) {
    struct client_core *core = request->core;
    const Wire__ExplainLogReply *reply =
        (const Wire__ExplainLogReply *)(const void *)wire_unpack(&core->arena, &wire__explain_log_reply__descriptor,
                                                                 frame->message);
    if (reply == NULL || reply->n_pins > HOLDFAST_LOG_PINS_MAX) {
        return error_set(err, STATUS_CORRUPT, "an account of the log that can't be read");
    }
    /* Each segment took bytes of the frame, so their number is bounded by it. */
    size_t segment_bytes = reply->n_segments * sizeof(struct holdfast_log_segment);
    struct holdfast_log *log = mem_alloc_zero(core->env->alloc, sizeof *log + segment_bytes);
    if (log == NULL) {
        client_result_set(&answer->result, HOLDFAST_FAILED, HOLDFAST_CODE_NO_MEMORY, "out of memory for the reply");
        return STATUS_OK;
    }
    struct holdfast_log_segment *segments = (struct holdfast_log_segment *)(void *)(log + 1);
    COPY(log, reply, node_id);
    client_text_copy(log->node_name, sizeof log->node_name, reply->node_name);
    COPY(log, reply, first);
    COPY(log, reply, last);
    COPY(log, reply, floor);
    COPY(log, reply, segment_total);
    COPY(log, reply, file_bytes);
    log->pin_count = (uint32_t)reply->n_pins;
    for (size_t i = 0; i < reply->n_pins; i++) {
        copy_pin(&log->pins[i], reply->pins[i]);
    }
    log->segment_count = reply->n_segments;
    log->segments = segments;
    for (size_t i = 0; i < reply->n_segments; i++) {
        copy_segment(&segments[i], reply->segments[i], log->pin_count);
    }
    answer->log = log;
    return STATUS_OK;
}

enum status reply__upkeep(struct client_request *request, const struct connection_frame *frame,
                          struct client_answer *answer, struct error *err) {
    struct client_core *core = request->core;
    const Wire__UpkeepReply *reply =
        (const Wire__UpkeepReply *)(const void *)wire_unpack(&core->arena, &wire__upkeep_reply__descriptor,
                                                             frame->message);
    struct holdfast_upkeep *upkeep = arena_alloc(&core->arena, sizeof *upkeep);
    if (reply == NULL || upkeep == NULL) {
        return error_set(err, STATUS_CORRUPT, "an answer about upkeep that can't be read");
    }
    *upkeep = (struct holdfast_upkeep){
        .node_id = reply->node_id,
        .job = reply->job,
        .running = reply->running,
        .done_bytes = reply->done_bytes,
        .total_bytes = reply->total_bytes,
        .elapsed_ms = reply->elapsed_ms,
        .code = reply->code == WIRE_OK ? HOLDFAST_CODE_OK : client_code_of_wire(reply->code),
        .files = reply->files,
        .bytes = reply->bytes,
        .copied_bytes = reply->copied_bytes,
        .findings = reply->findings,
        .index = reply->index,
    };
    client_text_copy(upkeep->node_name, sizeof upkeep->node_name, reply->node_name);
    client_text_copy(upkeep->kind, sizeof upkeep->kind, reply->kind);
    client_text_copy(upkeep->message, sizeof upkeep->message, reply->message);
    answer->upkeep = upkeep;
    return STATUS_OK;
}
