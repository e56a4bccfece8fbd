/* What a played cluster tells operators: canned figures, jobs that end, who its members are. See fake_server.h. */
#include "proto/client/holdfast.h"
#include "tests/unit/support/fake_internal.h"

#include <stdio.h>
#include <string.h>

void fake__status(struct fake_peer *peer, const struct connection_frame *frame) {
    struct fake_node *node = peer->node;
    struct fake_cluster *cluster = node->cluster;
    int leader = atomic_load(&cluster->leader);
    uint8_t cluster_id[16];
    char name[16];
    memset(cluster_id, 0x5a, sizeof cluster_id);
    (void)snprintf(name, sizeof name, "n%u", node->index + 1);
    Wire__StatusReply reply = WIRE__STATUS_REPLY__INIT;
    reply.has_cluster_id = reply.has_node_id = reply.has_term = reply.has_applied = reply.has_commit = 1;
    reply.cluster_id = (ProtobufCBinaryData){sizeof cluster_id, cluster_id};
    reply.node_id = node->index + 1;
    reply.node_name = name;
    reply.raft_role = (char *)(leader == (int)node->index ? "leader" : "follower");
    reply.term = 7;
    reply.applied = reply.commit = atomic_load(&cluster->revision);
    reply.has_log_records = reply.has_log_groups = reply.has_log_groups_idle = reply.has_log_groups_mark = 1;
    reply.has_log_written_bytes = reply.has_log_padding_bytes = reply.has_log_sync_us_max = 1;
    reply.log_records = 30;
    reply.log_groups = 15;
    reply.log_groups_idle = 12;
    reply.log_groups_mark = 3;
    reply.log_written_bytes = 4000;
    reply.log_padding_bytes = 1000;
    reply.log_sync_us_max = 900;
    uint64_t buckets[30] = {[7] = 14, [29] = 1}; /* more of them than the library knows */
    reply.n_log_sync_us_buckets = sizeof buckets / sizeof buckets[0];
    reply.log_sync_us_buckets = buckets;
    fake__send(peer, FRAME_STATUS_REPLY, frame->request_id, &reply.base, NULL, 0);
}

/* A job ends with the third look, a verification with damage where the node is n3. */
void fake__upkeep(struct fake_peer *peer, const struct connection_frame *frame) {
    static const char *const KINDS[] = {"none", "compact", "verify", "checkpoint", "cancel", "digest"};
    struct fake_cluster *cluster = peer->node->cluster;
    const Wire__UpkeepRequest *request = fake__unpack(cluster, &wire__upkeep_request__descriptor, frame->message);
    char name[16];
    (void)snprintf(name, sizeof name, "n%u", peer->node->index + 1);
    if (request->action != HOLDFAST_UPKEEP_LOOK) {
        peer->node->upkeep_kind = request->action;
        peer->node->upkeep_job++;
        peer->node->upkeep_looks = 3;
    } else if (peer->node->upkeep_looks > 0) {
        peer->node->upkeep_looks--;
    }
    bool is_damaged = peer->node->upkeep_kind == HOLDFAST_UPKEEP_VERIFY && peer->node->index == 2;
    Wire__UpkeepReply reply = WIRE__UPKEEP_REPLY__INIT;
    reply.has_job = reply.has_running = reply.has_code = reply.has_files = reply.has_done_bytes = 1;
    reply.node_name = name;
    reply.job = peer->node->upkeep_job;
    reply.kind = (char *)KINDS[peer->node->upkeep_kind];
    reply.running = peer->node->upkeep_looks > 0;
    reply.done_bytes = 100;
    reply.files = 4;
    reply.code = is_damaged ? WIRE_CORRUPT : WIRE_OK;
    reply.message = (char *)(is_damaged ? "table 7 is damaged" : "");
    bool is_odd = (atomic_load(&cluster->odd_nodes) >> peer->node->index & 1) != 0;
    uint8_t digest[16] = {0xd1, [15] = (uint8_t)(is_odd ? peer->node->index + 1 : 0)};
    if (peer->node->upkeep_kind == HOLDFAST_UPKEEP_DIGEST && !reply.running) {
        reply.has_digest = reply.has_keys = 1;
        reply.digest = (ProtobufCBinaryData){.data = digest, .len = sizeof digest};
        reply.keys = 12;
    }
    fake__send(peer, FRAME_UPKEEP_REPLY, frame->request_id, &reply.base, NULL, 0);
}

void fake__explain_log(struct fake_peer *peer, const struct connection_frame *frame) {
    char name[16];
    (void)snprintf(name, sizeof name, "n%u", peer->node->index + 1);
    Wire__LogPin pins[2] = {WIRE__LOG_PIN__INIT, WIRE__LOG_PIN__INIT};
    Wire__LogSegment segments[2] = {WIRE__LOG_SEGMENT__INIT, WIRE__LOG_SEGMENT__INIT};
    uint32_t both[] = {0, 1, 40}; /* the last one is nobody */
    pins[0].owner = (char *)"active";
    pins[1].owner = (char *)"follower n3";
    pins[1].has_index = 1;
    pins[1].index = 17;
    for (size_t i = 0; i < 2; i++) {
        segments[i].has_number = segments[i].has_first = segments[i].has_last = segments[i].has_age_ms = 1;
        segments[i].number = i + 1;
        segments[i].state = (char *)(i == 0 ? "kept" : "active");
        segments[i].first = 10 * i + 1;
        segments[i].last = 10 * i + 10;
        segments[i].age_ms = 2500;
    }
    segments[0].has_begun_earlier = segments[0].begun_earlier = 1;
    segments[1].n_pins = 3;
    segments[1].pins = both;
    Wire__ExplainLogReply reply = WIRE__EXPLAIN_LOG_REPLY__INIT;
    reply.node_name = name;
    reply.has_segment_total = 1;
    reply.segment_total = 5;
    reply.n_pins = reply.n_segments = 2;
    reply.pins = (Wire__LogPin *[]){&pins[0], &pins[1]};
    reply.segments = (Wire__LogSegment *[]){&segments[0], &segments[1]};
    fake__send(peer, FRAME_EXPLAIN_LOG_REPLY, frame->request_id, &reply.base, NULL, 0);
}

/* peer NULL: done, but not answered. */
void fake__member(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    const Wire__MemberRequest *request = fake__unpack(cluster, &wire__member_request__descriptor, frame->message);
    Wire__MemberReply reply = WIRE__MEMBER_REPLY__INIT;
    const char *refusal = fake_members_do(&cluster->members, request, &cluster->leader, &reply);
    if (peer != NULL && request->action != 0 && atomic_load(&cluster->members.lost_answers) > 0) {
        atomic_fetch_sub(&cluster->members.lost_answers, 1);
        connection_close(peer->connection);
    } else if (peer != NULL && refusal != NULL) {
        Wire__Error error = WIRE__ERROR__INIT;
        error.has_code = error.has_outcome = 1;
        error.code = WIRE_CONDITION;
        error.outcome = WIRE__OUTCOME__OUTCOME_FAILED;
        error.message = (char *)refusal;
        fake__send(peer, FRAME_ERROR, frame->request_id, &error.base, NULL, 0);
    } else {
        fake__send(peer, FRAME_MEMBER_REPLY, frame->request_id, &reply.base, NULL, 0);
    }
}
