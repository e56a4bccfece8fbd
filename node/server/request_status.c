/*
 * Status: the consensus actor's figures. The one request that also a member's certificate may make.
 */
#include "node/server/clients_internal.h"

struct status_request {
    struct consensus_status_query query;
    struct request *request;
};

/* What only a leader knows of its peers is left out elsewhere. */
void request_status__fill_member(Wire__MemberStatus *out, const struct consensus_status *status,
                                 const struct consensus_member_status *member) {
    static const char *const ROLES[] = {[RAFT_VOTER] = "voter", [RAFT_LEARNER] = "learner", [RAFT_LEAVING] = "leaving"};
    static const uint8_t unknown[RAFT_THUMBPRINT_BYTES];
    wire__member_status__init(out);
    SET(out, id, member->id);
    out->role = borrow_text(ROLES[member->role]);
    out->name = borrow_text(member->name);
    out->client_address = borrow_text(member->client_address);
    out->peer_address = borrow_text(member->peer_address);
    SET(out, priority, member->priority);
    SET(out, match, member->match_index);
    if (member->heard_ms_ago != UINT64_MAX) {
        SET(out, heard_ms_ago, member->heard_ms_ago);
    }
    if (status->role == RAFT_LEADER) {
        out->state = borrow_text(member->is_wiped ? "wiped" : raft_peer_state_name(member->state));
    }
    if (member->incarnation != 0) {
        SET(out, incarnation, member->incarnation);
    }
    SET(out, returns, member->returns);
    if (memcmp(member->thumbprint, unknown, sizeof unknown) != 0) {
        out->has_thumbprint = 1;
        out->thumbprint.len = sizeof member->thumbprint;
        out->thumbprint.data = (uint8_t *)member->thumbprint;
    }
}

static void fill_node(Wire__StatusReply *reply, const struct clients *clients) {
    const struct config *config = clients->options.config;
    uint64_t now_us = env_clock_us(clients->options.env);
    reply->has_cluster_id = 1;
    reply->cluster_id.data = (uint8_t *)config->cluster_id;
    reply->cluster_id.len = CONFIG_CLUSTER_ID_BYTES;
    SET(reply, node_id, config->id);
    reply->node_name = borrow_text(config->name);
    reply->version = borrow_text(HOLDFAST_VERSION);
    SET(reply, uptime_ms, (now_us - clients->options.started_us) / 1000);
    SET(reply, client_connections, atomic_load_explicit(clients->total, memory_order_relaxed));
}

static void fill_state(Wire__StatusReply *reply, const struct consensus_status *status) {
    reply->raft_role = borrow_text(raft_role_name(status->role));
    SET(reply, term, status->term);
    SET(reply, leader_id, status->leader_id == RAFT_NO_NODE ? 0 : status->leader_id);
    SET(reply, first, status->first_index);
    SET(reply, last, status->last_index);
    SET(reply, synced, status->synced_index);
    SET(reply, commit, status->commit_index);
    SET(reply, applied, status->applied_index);
    SET(reply, flushed, status->flushed_index);
    SET(reply, log_segments, status->wal.segments);
    SET(reply, log_groups, status->wal.groups);
    SET(reply, log_records, status->wal.records);
    SET(reply, log_sync_us_total, status->wal.sync_us_total);
    SET(reply, log_sync_us_max, status->wal.sync_us_max);
    SET(reply, log_group_records_max, status->wal.group_records_max);
    SET(reply, log_written_bytes, status->wal.written_bytes);
    SET(reply, log_padding_bytes, status->wal.padding_bytes);
    SET(reply, log_groups_idle, status->wal.triggers[WAL_TRIGGER_IDLE]);
    SET(reply, log_groups_behind, status->wal.triggers[WAL_TRIGGER_BEHIND]);
    SET(reply, log_groups_full, status->wal.triggers[WAL_TRIGGER_FULL]);
    SET(reply, log_groups_start, status->wal.triggers[WAL_TRIGGER_START]);
    SET(reply, log_groups_state, status->wal.triggers[WAL_TRIGGER_STATE]);
    SET(reply, log_groups_mark, status->wal.triggers[WAL_TRIGGER_MARK]);
    SET(reply, fences, status->fences);
    SET(reply, loop_stand_stills, status->stand_stills);
    SET(reply, log_segments_faulty, status->wal.segments_faulty);
    SET(reply, heal_index, status->heal_index);
    SET(reply, rebuilds, status->rebuilds);
    SET(reply, rebuilds_failed, status->rebuilds_failed);
    reply->rebuild_state = (char *)rebuild_state_name(status->rebuild_state);
    reply->rebuild_reason = (char *)status->rebuild_reason;
    SET(reply, config_index, status->config_index);
    SET(reply, config_committed, status->config_is_committed);
    SET(reply, config_joint, status->config_is_joint);
    SET(reply, transfer_target, status->transfer_target);
    SET(reply, digest_index, status->digest_index);
    reply->has_digest = 1;
    reply->digest.data = (uint8_t *)status->digest;
    reply->digest.len = sizeof status->digest;
    SET(reply, digest_mismatches, status->digest_mismatches);
    SET(reply, scan_index, status->scan_index);
    reply->has_scan_digest = 1;
    reply->scan_digest.data = (uint8_t *)status->scan_digest;
    reply->scan_digest.len = sizeof status->scan_digest;
    SET(reply, scan_mismatches, status->scan_mismatches);
    reply->scan_state = borrow_text(consensus_scan_state_name(status->scan_state));
    SET(reply, replay_ms, status->replay_us / 1000);
    reply->problem = borrow_text(status->problem);
}

static void fill_engine(Wire__StatusReply *reply, const struct storage_stats *stats) {
    SET(reply, memtable_bytes, stats->memtable_bytes);
    SET(reply, sst_files, 0);
    SET(reply, sst_bytes, 0);
    for (size_t level = 0; level < STORAGE_LEVELS; level++) {
        reply->sst_files += stats->files[level];
        reply->sst_bytes += stats->bytes[level];
    }
    SET(reply, horizon, stats->horizon);
    SET(reply, scrub_passes, stats->scrub_passes);
    SET(reply, scrub_bytes, stats->scrub_bytes);
    SET(reply, damaged_places, stats->damage_count);
    SET(reply, write_stalls, 0);
    SET(reply, write_stall_us_total, 0);
    SET(reply, write_stall_us_max, 0);
    for (size_t reason = 0; reason < STORAGE_STALL_COUNT; reason++) {
        const struct storage_stall_stats *stall = &stats->stalls[reason];
        reply->write_stalls += stall->count;
        reply->write_stall_us_total += stall->total_us;
        if (stall->longest_us > reply->write_stall_us_max) {
            reply->write_stall_us_max = stall->longest_us;
        }
    }
}

static const char *name_of(const struct consensus_status *status, uint64_t node_id) {
    for (uint32_t i = 0; i < status->member_count; i++) {
        if (status->members[i].id == node_id) {
            return status->members[i].name;
        }
    }
    return "";
}

static void fill_snapshots(Wire__StatusReply *reply, const struct consensus_status *status,
                           Wire__SnapshotStatus *messages, Wire__SnapshotStatus **pointers) {
    const struct snapshots_status *snapshots = &status->snapshots;
    SET(reply, snapshots_sent, snapshots->sent);
    SET(reply, snapshots_installed, snapshots->installed);
    SET(reply, snapshots_failed, snapshots->failed);
    for (uint32_t i = 0; i < snapshots->transfer_count; i++) {
        const struct snapshot_status *transfer = &snapshots->transfers[i];
        Wire__SnapshotStatus *message = pointers[i] = &messages[i];
        wire__snapshot_status__init(message);
        message->peer = borrow_text(name_of(status, transfer->peer));
        message->state = borrow_text(transfer->state);
        SET(message, incoming, transfer->incoming);
        SET(message, done_bytes, transfer->done_bytes);
        SET(message, total_bytes, transfer->total_bytes);
        SET(message, index, transfer->index);
        if (!transfer->incoming) {
            SET(message, bytes_per_second, transfer->bytes_per_second);
            message->pace = borrow_text(transfer->pace);
        }
    }
    reply->n_snapshots = snapshots->transfer_count;
    reply->snapshots = pointers;
}

static void on_done(struct consensus_status_query *query) {
    struct status_request *asked = CONTAINER_OF(query, struct status_request, query);
    struct request *request = asked->request;
    struct clients *clients = request->clients;
    const struct consensus_status *status = &query->status;
    Wire__StatusReply reply = WIRE__STATUS_REPLY__INIT;
    Wire__MemberStatus members[LIMIT_MEMBERS];
    Wire__MemberStatus *member_pointers[LIMIT_MEMBERS];
    fill_node(&reply, clients);
    fill_state(&reply, status);
    fill_engine(&reply, &status->storage);
    for (uint32_t i = 0; i < status->member_count; i++) {
        request_status__fill_member(&members[i], status, &status->members[i]);
        member_pointers[i] = &members[i];
    }
    Wire__SnapshotStatus snapshots[SNAPSHOT_TRANSFERS_MAX];
    Wire__SnapshotStatus *snapshot_pointers[SNAPSHOT_TRANSFERS_MAX];
    fill_snapshots(&reply, status, snapshots, snapshot_pointers);
    reply.n_log_sync_us_buckets = WAL_SYNC_BUCKETS;
    reply.log_sync_us_buckets = query->status.wal.sync_us_buckets;
    reply.n_members = status->member_count;
    reply.members = member_pointers;
    request__reply(request, FRAME_STATUS_REPLY, &reply.base, NULL, 0);
    mem_free(clients->alloc, asked);
}

void request_status__status(struct client_connection *connection, const struct connection_frame *frame) {
    struct clients *clients = connection->clients;
    if (request__unpack(connection, frame, &wire__status_request__descriptor, "status") == NULL) {
        return;
    }
    struct request *request = NULL;
    struct status_request *asked = request__take_question(connection, frame, sizeof *asked, &request);
    if (asked == NULL) {
        return;
    }
    asked->request = request;
    asked->query.loop = clients->options.loop;
    asked->query.done = on_done;
    consensus_query_status(clients->options.consensus, &asked->query);
}
