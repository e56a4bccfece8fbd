/* See fake_server.h. Its own failures are CHECKs. */
#include "tests/unit/support/fake_server.h"

#include "node/base/check.h"
#include "proto/client/holdfast.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REVERSE_US = 2000, PAGE_ENTRIES = 1000, ARENA_CHUNK_BYTES = 64 * 1024, ARENA_BUDGET_BYTES = 64 * 1024 * 1024 };

struct fake_peer {
    struct connection_handler handler;
    struct connection *connection;
    struct fake_node *node;
    struct list link;
};

/* ---- The store ------------------------------------------------------------------------------------------------- */

static size_t lower_bound(const struct fake_cluster *cluster, struct slice key) {
    size_t low = 0;
    size_t high = cluster->entry_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct fake_entry *entry = &cluster->entries[middle];
        if (slice_compare(slice_of(entry->key, entry->key_len), key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct fake_entry *fake_find(const struct fake_cluster *cluster, struct slice key) {
    size_t at = lower_bound(cluster, key);
    if (at == cluster->entry_count) {
        return NULL;
    }
    const struct fake_entry *entry = &cluster->entries[at];
    return slice_equal(slice_of(entry->key, entry->key_len), key) ? entry : NULL;
}

static uint8_t *copy_of(struct slice bytes) {
    uint8_t *copy = malloc(bytes.len + 1);
    CHECK(copy != NULL);
    if (bytes.len > 0) {
        memcpy(copy, bytes.data, bytes.len);
    }
    return copy;
}

static void remove_entry(struct fake_cluster *cluster, size_t at) {
    free(cluster->entries[at].key);
    free(cluster->entries[at].value);
    memmove(&cluster->entries[at], &cluster->entries[at + 1],
            (cluster->entry_count - at - 1) * sizeof *cluster->entries);
    cluster->entry_count--;
}

static void store(struct fake_cluster *cluster, struct slice key, const struct slice *value, uint64_t revision) {
    size_t at = lower_bound(cluster, key);
    if (fake_find(cluster, key) != NULL) {
        remove_entry(cluster, at);
    }
    if (value == NULL) {
        return;
    }
    if (cluster->entry_count == cluster->entry_capacity) {
        cluster->entry_capacity = cluster->entry_capacity * 2 + 64;
        cluster->entries = realloc(cluster->entries, cluster->entry_capacity * sizeof *cluster->entries);
        CHECK(cluster->entries != NULL);
    }
    memmove(&cluster->entries[at + 1], &cluster->entries[at], (cluster->entry_count - at) * sizeof *cluster->entries);
    cluster->entries[at] = (struct fake_entry){copy_of(key), key.len, copy_of(*value), value->len, revision};
    cluster->entry_count++;
}

/* upper empty: no end. */
static void remove_range(struct fake_cluster *cluster, struct slice lower, struct slice upper) {
    size_t at = lower_bound(cluster, lower);
    while (at < cluster->entry_count &&
           (upper.len == 0 ||
            slice_compare(slice_of(cluster->entries[at].key, cluster->entries[at].key_len), upper) < 0)) {
        remove_entry(cluster, at);
    }
}

void fake_put(struct fake_cluster *cluster, struct slice key, struct slice value) {
    store(cluster, key, &value, atomic_fetch_add(&cluster->revision, 1) + 1);
}

/* ---- Replies --------------------------------------------------------------------------------------------------- */

static void send(struct fake_peer *peer, uint8_t type, uint64_t id, const ProtobufCMessage *message,
                 const struct slice *raw, size_t raw_count) {
    if (peer != NULL) {
        /* A connection that is going takes nothing more; where memory is made to fail, the reply is lost. */
        enum status status = connection_send(peer->connection, type, id, message, raw, raw_count);
        CHECK(status == STATUS_OK || status == STATUS_CLOSED || status == STATUS_NO_MEMORY);
    }
}

static void send_error(struct fake_peer *peer, uint64_t id, uint32_t code, int outcome, bool with_hint) {
    Wire__Error error = WIRE__ERROR__INIT;
    struct fake_cluster *cluster = peer->node->cluster;
    int leader = atomic_load(&cluster->leader);
    error.has_code = 1;
    error.code = code;
    error.has_outcome = outcome != 0;
    error.outcome = outcome != 0 ? (Wire__Outcome)outcome : WIRE__OUTCOME__OUTCOME_FAILED;
    error.message = (char *)"as the test wants it";
    if (with_hint && leader >= 0) {
        error.has_leader_id = 1;
        error.leader_id = (uint64_t)leader + 1;
        error.leader_address = cluster->nodes[leader].address;
    }
    send(peer, FRAME_ERROR, id, &error.base, NULL, 0);
}

static void greet(struct fake_peer *peer) {
    struct fake_node *node = peer->node;
    int leader = atomic_load(&node->cluster->leader);
    char name[16];
    uint8_t cluster_id[16];
    memset(cluster_id, 0x5a, sizeof cluster_id);
    (void)snprintf(name, sizeof name, "n%u", node->index + 1);
    Wire__Greeting greeting = WIRE__GREETING__INIT;
    greeting.has_protocol_min = greeting.has_protocol_max = greeting.has_cluster_id = greeting.has_node_id = 1;
    greeting.protocol_min = greeting.protocol_max = 1;
    greeting.cluster_id = (ProtobufCBinaryData){sizeof cluster_id, cluster_id};
    greeting.node_id = node->index + 1;
    greeting.node_name = name;
    greeting.role = (char *)"admin";
    if (leader >= 0) {
        greeting.has_leader_id = 1;
        greeting.leader_id = (uint64_t)leader + 1;
        greeting.leader_address = node->cluster->nodes[leader].address;
    }
    send(peer, FRAME_GREETING, 0, &greeting.base, NULL, 0);
}

static void pong(struct fake_peer *peer, uint64_t id) {
    struct fake_cluster *cluster = peer->node->cluster;
    int leader = atomic_load(&cluster->leader);
    Wire__Pong pong = WIRE__PONG__INIT;
    if (leader >= 0) {
        pong.has_leader_id = 1;
        pong.leader_id = (uint64_t)leader + 1;
        pong.leader_address = cluster->nodes[leader].address;
    }
    send(peer, FRAME_PONG, id, &pong.base, NULL, 0);
}

static void refuse(struct fake_peer *peer) {
    Wire__Refusal refusal = WIRE__REFUSAL__INIT;
    refusal.has_code = 1;
    refusal.code = WIRE_CERTIFICATE_UNKNOWN;
    refusal.message = (char *)"this certificate is on no list: add its thumbprint";
    send(peer, FRAME_REFUSAL, 0, &refusal.base, NULL, 0);
    connection_finish(peer->connection);
}

/* ---- Requests -------------------------------------------------------------------------------------------------- */

static void *unpack(struct fake_cluster *cluster, const ProtobufCMessageDescriptor *descriptor, struct slice message) {
    void *unpacked = wire_unpack(&cluster->arena, descriptor, message);
    CHECK(unpacked != NULL);
    return unpacked;
}

static struct slice slice_of_binary(ProtobufCBinaryData bytes) { return slice_of(bytes.data, bytes.len); }

static void apply_batch(struct fake_cluster *cluster, const struct connection_frame *frame, uint64_t revision) {
    const Wire__BatchRequest *batch = unpack(cluster, &wire__batch_request__descriptor, frame->message);
    struct slice raw = frame->raw;
    CHECK(batch->n_kinds == batch->n_key_lens && batch->n_kinds == batch->n_value_lens && batch->n_kinds > 0);
    for (size_t i = 0; i < batch->n_kinds; i++) {
        CHECK((size_t)batch->key_lens[i] + batch->value_lens[i] <= raw.len);
        struct slice key = slice_of(raw.data, batch->key_lens[i]);
        struct slice value = slice_of(raw.data + key.len, batch->value_lens[i]);
        if (batch->kinds[i] == HOLDFAST_DELETE_RANGE) {
            remove_range(cluster, key, value);
        } else {
            store(cluster, key, batch->kinds[i] == HOLDFAST_PUT ? &value : NULL, revision);
        }
        raw = slice_of(raw.data + key.len + value.len, raw.len - key.len - value.len);
    }
    CHECK(raw.len == 0);
}

static uint64_t apply(struct fake_cluster *cluster, const struct connection_frame *frame) {
    uint64_t revision = atomic_fetch_add(&cluster->revision, 1) + 1;
    if (frame->type == FRAME_PUT) {
        const Wire__PutRequest *put = unpack(cluster, &wire__put_request__descriptor, frame->message);
        store(cluster, slice_of_binary(put->key), &frame->raw, revision);
    } else if (frame->type == FRAME_DELETE) {
        const Wire__DeleteRequest *request = unpack(cluster, &wire__delete_request__descriptor, frame->message);
        store(cluster, slice_of_binary(request->key), NULL, revision);
    } else if (frame->type == FRAME_DELETE_RANGE) {
        const Wire__DeleteRangeRequest *range =
            unpack(cluster, &wire__delete_range_request__descriptor, frame->message);
        remove_range(cluster, slice_of_binary(range->lower), slice_of_binary(range->upper));
    } else {
        apply_batch(cluster, frame, revision);
    }
    atomic_fetch_add(&cluster->applied, 1);
    return revision;
}

static void do_write(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    Wire__WriteReply reply = WIRE__WRITE_REPLY__INIT;
    reply.has_revision = 1;
    reply.revision = apply(cluster, frame);
    send(peer, FRAME_WRITE_REPLY, frame->request_id, &reply.base, NULL, 0);
}

static void do_get(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    const Wire__GetRequest *request = unpack(cluster, &wire__get_request__descriptor, frame->message);
    const struct fake_entry *entry = fake_find(cluster, slice_of_binary(request->key));
    Wire__GetReply reply = WIRE__GET_REPLY__INIT;
    struct slice value = SLICE_EMPTY;
    reply.has_revision = reply.has_mod_revision = reply.has_found = 1;
    reply.revision = atomic_load(&cluster->revision);
    reply.found = entry != NULL;
    if (entry != NULL) {
        reply.mod_revision = entry->revision;
        value = slice_of(entry->value, entry->value_len);
    }
    send(peer, FRAME_GET_REPLY, frame->request_id, &reply.base, &value, 1);
}

static void do_scan(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    const Wire__ScanRequest *request = unpack(cluster, &wire__scan_request__descriptor, frame->message);
    uint32_t page = atomic_load(&cluster->page_limit);
    page = page == 0 ? PAGE_ENTRIES : page;
    uint32_t limit = request->limit != 0 && request->limit < page ? request->limit : page;
    struct slice upper = slice_of_binary(request->upper);
    uint32_t *lens = malloc(2 * (size_t)limit * sizeof *lens);
    uint64_t *revisions = malloc(limit * sizeof *revisions);
    struct buf raw;
    CHECK(lens != NULL && revisions != NULL);
    buf_init(&raw, alloc_system(), 0);
    Wire__ScanReply reply = WIRE__SCAN_REPLY__INIT;
    reply.has_revision = reply.has_more = reply.has_count = 1;
    reply.key_lens = lens;
    reply.value_lens = lens + limit;
    reply.mod_revisions = revisions;
    reply.revision = request->options->revision != 0 ? request->options->revision : atomic_load(&cluster->revision);
    for (size_t i = lower_bound(cluster, slice_of_binary(request->lower)); i < cluster->entry_count; i++) {
        const struct fake_entry *entry = &cluster->entries[i];
        if (upper.len > 0 && slice_compare(slice_of(entry->key, entry->key_len), upper) >= 0) {
            break;
        }
        if (reply.count == limit) {
            reply.more = 1;
            break;
        }
        reply.count++;
        if (request->count_only) {
            continue;
        }
        lens[reply.n_key_lens++] = (uint32_t)entry->key_len;
        revisions[reply.n_mod_revisions++] = entry->revision;
        CHECK(buf_append(&raw, entry->key, entry->key_len) == STATUS_OK);
        if (!request->keys_only) {
            reply.value_lens[reply.n_value_lens++] = (uint32_t)entry->value_len;
            CHECK(buf_append(&raw, entry->value, entry->value_len) == STATUS_OK);
        }
    }
    struct slice bytes = buf_slice(&raw);
    send(peer, FRAME_SCAN_REPLY, frame->request_id, &reply.base, &bytes, 1);
    buf_deinit(&raw);
    free(lens);
    free(revisions);
}

/* Two pairs, "a" "1" and "b" "2", with one thing wrong. Variant 7: nothing. */
static void lie(struct fake_peer *peer, const struct connection_frame *frame, uint32_t variant) {
    uint32_t key_lens[] = {1, 1};
    uint32_t value_lens[] = {1, 1};
    uint64_t revisions[] = {1, 1};
    struct slice raw = slice_of_string("a1b2");
    Wire__ScanReply reply = WIRE__SCAN_REPLY__INIT;
    reply.has_revision = reply.has_count = reply.has_more = 1;
    reply.revision = 1;
    reply.count = 2;
    reply.n_key_lens = reply.n_value_lens = reply.n_mod_revisions = 2;
    reply.key_lens = key_lens;
    reply.value_lens = value_lens;
    reply.mod_revisions = revisions;
    switch (variant) {
    case 0: value_lens[1] = UINT32_MAX; break;
    case 1: raw = slice_of_string("b1a2"); break;
    case 2: reply.n_value_lens = 1; break;
    case 3: raw = slice_of_string("a1b2c"); break;
    case 4: reply.count = 3; break;
    case 5: key_lens[0] = 0; break;
    case 6: reply.n_mod_revisions = 1; break;
    default: break;
    }
    send(peer, FRAME_SCAN_REPLY, frame->request_id, &reply.base, &raw, 1);
}

static void do_status(struct fake_peer *peer, const struct connection_frame *frame) {
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
    send(peer, FRAME_STATUS_REPLY, frame->request_id, &reply.base, NULL, 0);
}

/* A job ends with the third look, a verification with damage where the node is n3. */
static void do_upkeep(struct fake_peer *peer, const struct connection_frame *frame) {
    static const char *const KINDS[] = {"none", "compact", "verify", "checkpoint", "cancel"};
    struct fake_cluster *cluster = peer->node->cluster;
    const Wire__UpkeepRequest *request = unpack(cluster, &wire__upkeep_request__descriptor, frame->message);
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
    send(peer, FRAME_UPKEEP_REPLY, frame->request_id, &reply.base, NULL, 0);
}

/* As the leader: judged with the third look. */
static void do_compare(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    const Wire__CompareRequest *request = unpack(cluster, &wire__compare_request__descriptor, frame->message);
    Wire__CompareReply reply = WIRE__COMPARE_REPLY__INIT;
    Wire__CompareMember members[FAKE_NODES_MAX];
    Wire__CompareMember *pointers[FAKE_NODES_MAX];
    uint8_t digests[FAKE_NODES_MAX][16] = {{0}};
    char names[FAKE_NODES_MAX][16];
    uint32_t odd = atomic_load(&cluster->odd_nodes);
    uint32_t away = atomic_load(&cluster->away_nodes);
    uint32_t all = (1u << cluster->count) - 1;
    if (request->action == 1) {
        reply.has_above_index = 1;
        reply.above_index = atomic_fetch_add(&cluster->revision, 1);
        cluster->compare_looks = 3;
    } else if (cluster->compare_looks > 0) {
        cluster->compare_looks--;
    }
    bool is_open = cluster->compare_looks > 0;
    for (uint32_t i = 0; i < cluster->count; i++) {
        Wire__CompareMember *member = &members[i];
        wire__compare_member__init(member);
        (void)snprintf(names[i], sizeof names[i], "n%u", i + 1);
        member->name = names[i];
        member->has_id = member->has_state = member->has_suspected = member->has_keys = 1;
        member->id = i + 1;
        bool is_away = (away >> i & 1) != 0;
        member->state = is_open ? 1 : is_away ? 3 : 2;
        member->reason = (char *)(is_away && !is_open ? "it restarted" : "");
        member->keys = 12;
        member->suspected = !is_open && odd != all && (odd >> i & 1) != 0;
        digests[i][0] = 0xd1;
        digests[i][15] = (odd >> i & 1) != 0 ? (uint8_t)(i + 1) : 0;
        member->has_digest = member->state == 2;
        member->digest = (ProtobufCBinaryData){.data = digests[i], .len = sizeof digests[i]};
        pointers[i] = member;
    }
    reply.has_index = reply.has_verdict = reply.has_open = 1;
    reply.index = atomic_load(&cluster->revision);
    reply.open = is_open;
    reply.verdict = is_open ? 1 : odd == all ? 4 : odd != 0 ? 3 : away != 0 ? 5 : 2;
    reply.n_members = cluster->count;
    reply.members = pointers;
    send(peer, FRAME_COMPARE_REPLY, frame->request_id, &reply.base, NULL, 0);
}

static void do_explain_log(struct fake_peer *peer, const struct connection_frame *frame) {
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
    send(peer, FRAME_EXPLAIN_LOG_REPLY, frame->request_id, &reply.base, NULL, 0);
}

/* peer NULL: done, but not answered. */
static void do_member(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    const Wire__MemberRequest *request = unpack(cluster, &wire__member_request__descriptor, frame->message);
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
        send(peer, FRAME_ERROR, frame->request_id, &error.base, NULL, 0);
    } else {
        send(peer, FRAME_MEMBER_REPLY, frame->request_id, &reply.base, NULL, 0);
    }
}

static bool is_write(uint8_t type) {
    return type == FRAME_PUT || type == FRAME_DELETE || type == FRAME_DELETE_RANGE || type == FRAME_BATCH;
}

static void serve(struct fake_peer *peer, struct fake_cluster *cluster, const struct connection_frame *frame) {
    if (is_write(frame->type)) {
        do_write(peer, cluster, frame);
    } else if (frame->type == FRAME_GET) {
        do_get(peer, cluster, frame);
    } else if (frame->type == FRAME_MEMBER) {
        do_member(peer, cluster, frame);
    } else if (frame->type == FRAME_COMPARE) {
        do_compare(peer, cluster, frame);
    } else {
        CHECK(frame->type == FRAME_SCAN);
        do_scan(peer, cluster, frame);
    }
}

static bool is_local_read(struct fake_cluster *cluster, const struct connection_frame *frame) {
    const Wire__ReadOptions *options = NULL;
    if (frame->type == FRAME_GET) {
        options = ((Wire__GetRequest *)unpack(cluster, &wire__get_request__descriptor, frame->message))->options;
    } else if (frame->type == FRAME_SCAN) {
        options = ((Wire__ScanRequest *)unpack(cluster, &wire__scan_request__descriptor, frame->message))->options;
    } else if (frame->type == FRAME_MEMBER) {
        return ((Wire__MemberRequest *)unpack(cluster, &wire__member_request__descriptor, frame->message))->local;
    }
    return options != NULL && options->local;
}

static void note_timeout(struct fake_node *node, const struct connection_frame *frame) {
    struct fake_cluster *cluster = node->cluster;
    uint32_t timeout_ms = 0;
    if (frame->type == FRAME_PUT) {
        timeout_ms = ((Wire__PutRequest *)unpack(cluster, &wire__put_request__descriptor, frame->message))->timeout_ms;
    } else if (frame->type == FRAME_GET) {
        timeout_ms =
            ((Wire__GetRequest *)unpack(cluster, &wire__get_request__descriptor, frame->message))->options->timeout_ms;
    }
    atomic_store(&node->last_timeout_ms, timeout_ms);
}

/* ---- Faults ---------------------------------------------------------------------------------------------------- */

/* The fault that hits now; counts it down. */
static enum fake_fault take_fault(struct fake_node *node) {
    enum fake_fault fault = (enum fake_fault)atomic_load(&node->fault);
    uint32_t left = atomic_load(&node->fault_count);
    if (fault != FAKE_SERVES && left > 0) {
        atomic_store(&node->fault_count, left - 1);
        if (left == 1) {
            atomic_store(&node->fault, FAKE_SERVES);
        }
    }
    return fault;
}

static void hold(struct fake_peer *peer, const struct connection_frame *frame) {
    struct fake_cluster *cluster = peer->node->cluster;
    CHECK(cluster->held_count < FAKE_HELD_MAX);
    struct fake_held *held = &cluster->held[cluster->held_count++];
    *held = (struct fake_held){peer, *frame, malloc(frame->message.len + frame->raw.len + 1)};
    CHECK(held->bytes != NULL);
    if (frame->message.len > 0) {
        memcpy(held->bytes, frame->message.data, frame->message.len);
    }
    if (frame->raw.len > 0) {
        memcpy(held->bytes + frame->message.len, frame->raw.data, frame->raw.len);
    }
    held->frame.message = slice_of(held->bytes, frame->message.len);
    held->frame.raw = slice_of(held->bytes + frame->message.len, frame->raw.len);
}

static void release(struct fake_cluster *cluster, bool reversed) {
    for (size_t i = 0; i < cluster->held_count; i++) {
        struct fake_held *held = &cluster->held[reversed ? cluster->held_count - 1 - i : i];
        serve(held->peer, cluster, &held->frame);
        arena_reset(&cluster->arena);
        free(held->bytes);
    }
    cluster->held_count = 0;
}

void fake_node_release(struct fake_node *node) {
    atomic_store(&node->fault, FAKE_SERVES);
    release(node->cluster, false);
}

static void reverse_run(struct env_timer *timer) {
    release(CONTAINER_OF(timer, struct fake_cluster, reverse_timer), true);
}

static void hold_reversed(struct fake_peer *peer, const struct connection_frame *frame) {
    struct fake_cluster *cluster = peer->node->cluster;
    hold(peer, frame);
    if (!env_timer_is_armed(&cluster->reverse_timer)) {
        enum status status = env_timer_arm(&cluster->reverse_timer, env_now_us(cluster->loop) + REVERSE_US);
        CHECK(status == STATUS_OK);
    }
}

static void data_request(struct fake_peer *peer, const struct connection_frame *frame) {
    struct fake_node *node = peer->node;
    struct fake_cluster *cluster = node->cluster;
    atomic_fetch_add(&node->requests, 1);
    note_timeout(node, frame);
    if (atomic_load(&cluster->leader) != (int)node->index && !is_local_read(cluster, frame)) {
        send_error(peer, frame->request_id, WIRE_NOT_LEADER, WIRE__OUTCOME__OUTCOME_FAILED, true);
        return;
    }
    switch (take_fault(node)) {
    case FAKE_SERVES:
    case FAKE_REFUSES: serve(peer, cluster, frame); return;
    case FAKE_MUTE:
    case FAKE_HANGS: return;
    case FAKE_HOLDS: hold(peer, frame); return;
    case FAKE_ERRORS:
        send_error(peer, frame->request_id, atomic_load(&node->error_code), atomic_load(&node->error_outcome), false);
        return;
    case FAKE_APPLIES_THEN_DROPS:
        if (is_write(frame->type)) {
            (void)apply(cluster, frame);
        } else if (frame->type == FRAME_MEMBER) {
            do_member(NULL, cluster, frame);
        }
        connection_close(peer->connection);
        return;
    case FAKE_DROPS: connection_close(peer->connection); return;
    case FAKE_GARBLES: send(peer, FRAME_PEER_HELLO, frame->request_id, NULL, NULL, 0); return;
    case FAKE_LIES: lie(peer, frame, atomic_load(&node->error_code)); return;
    case FAKE_REVERSES:
        if (is_write(frame->type)) {
            hold_reversed(peer, frame);
        } else {
            serve(peer, cluster, frame);
        }
        return;
    }
}

/* ---- Connections ----------------------------------------------------------------------------------------------- */

static struct fake_peer *peer_of(struct connection_handler *handler) {
    return CONTAINER_OF(handler, struct fake_peer, handler);
}

static void peer_opened(struct connection_handler *handler) {
    struct fake_peer *peer = peer_of(handler);
    int fault = atomic_load(&peer->node->fault);
    if (fault == FAKE_MUTE) {
        return;
    }
    if (fault == FAKE_REFUSES) {
        refuse(peer);
        return;
    }
    greet(peer);
}

static void peer_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct fake_peer *peer = peer_of(handler);
    struct fake_node *node = peer->node;
    int fault = atomic_load(&node->fault);
    bool answers = fault != FAKE_HANGS && fault != FAKE_MUTE;
    if (frame->type == FRAME_PING) {
        atomic_fetch_add(&node->pings, 1);
        if (answers) {
            pong(peer, frame->request_id);
        }
    } else if (frame->type == FRAME_STATUS) {
        if (answers) {
            do_status(peer, frame);
        }
    } else if (frame->type == FRAME_UPKEEP) {
        if (answers) {
            do_upkeep(peer, frame);
        }
    } else if (frame->type == FRAME_EXPLAIN_LOG) {
        if (answers) {
            do_explain_log(peer, frame);
        }
    } else {
        data_request(peer, frame);
    }
    arena_reset(&node->cluster->arena);
}

static void peer_drained(struct connection_handler *handler) { (void)handler; }

static void peer_closed(struct connection_handler *handler, const struct error *err) {
    (void)err;
    struct fake_peer *peer = peer_of(handler);
    struct fake_cluster *cluster = peer->node->cluster;
    for (size_t i = 0; i < cluster->held_count; i++) {
        if (cluster->held[i].peer == peer) {
            cluster->held[i].peer = NULL;
        }
    }
    atomic_fetch_sub(&peer->node->open, 1);
    list_remove(&peer->link);
    free(peer);
}

static struct env_stream_handler *accepted(void *context, struct env_stream *stream) {
    struct fake_node *node = context;
    const struct connection_limits limits = {LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES};
    struct fake_peer *peer = calloc(1, sizeof *peer);
    CHECK(peer != NULL);
    peer->handler = (struct connection_handler){peer_opened, peer_frame, peer_drained, peer_closed};
    peer->node = node;
    if (connection_new(node->cluster->loop, &limits, &peer->handler, &peer->connection) != STATUS_OK) {
        free(peer);
        return NULL;
    }
    connection_attach(peer->connection, stream);
    list_push_back(&node->peers, &peer->link);
    atomic_fetch_add(&node->connections, 1);
    atomic_fetch_add(&node->open, 1);
    return connection_stream_handler(peer->connection);
}

/* ---- The cluster ------------------------------------------------------------------------------------------------ */

void fake_cluster_init(struct fake_cluster *cluster, struct env *env, struct env_loop *loop,
                       struct env_transport *transport, uint32_t count) {
    CHECK(count <= FAKE_NODES_MAX);
    memset(cluster, 0, sizeof *cluster);
    cluster->env = env;
    cluster->loop = loop;
    cluster->transport = transport;
    cluster->count = count;
    arena_init(&cluster->arena, alloc_system(), ARENA_CHUNK_BYTES, ARENA_BUDGET_BYTES);
    env_timer_init(&cluster->reverse_timer, loop, reverse_run);
    fake_members_init(&cluster->members, count);
    for (uint32_t i = 0; i < count; i++) {
        cluster->nodes[i].cluster = cluster;
        cluster->nodes[i].index = i;
        list_init(&cluster->nodes[i].peers);
    }
}

static void node_listen(struct fake_node *node) {
    struct error err;
    enum status status =
        env_listen(node->cluster->transport, node->cluster->loop, node->address, accepted, node, &node->listener, &err);
    CHECK(status == STATUS_OK);
    (void)snprintf(node->address, sizeof node->address, "%s", env_listener_address(node->listener));
}

void fake_cluster_start(struct fake_cluster *cluster, const char *address) {
    for (uint32_t i = 0; i < cluster->count; i++) {
        struct fake_node *node = &cluster->nodes[i];
        if (strcmp(address, "memory") == 0) {
            (void)snprintf(node->address, sizeof node->address, "memory:%u", i + 1);
        } else {
            (void)snprintf(node->address, sizeof node->address, "%s", address);
        }
        node_listen(node);
    }
}

void fake_node_kill(struct fake_node *node) {
    env_listener_close(node->listener);
    node->listener = NULL;
    LIST_FOREACH (link, &node->peers) {
        connection_close(LIST_ENTRY(link, struct fake_peer, link)->connection);
    }
}

void fake_node_revive(struct fake_node *node) { node_listen(node); }

void fake_node_set_error(struct fake_node *node, uint32_t code, int outcome, uint32_t count) {
    atomic_store(&node->error_code, code);
    atomic_store(&node->error_outcome, outcome);
    atomic_store(&node->fault_count, count);
    atomic_store(&node->fault, FAKE_ERRORS);
}

void fake_cluster_stop(struct fake_cluster *cluster) {
    env_timer_cancel(&cluster->reverse_timer);
    for (uint32_t i = 0; i < cluster->count; i++) {
        fake_node_kill(&cluster->nodes[i]);
    }
}

void fake_cluster_deinit(struct fake_cluster *cluster) {
    for (uint32_t i = 0; i < cluster->count; i++) {
        CHECK(list_is_empty(&cluster->nodes[i].peers));
    }
    for (size_t i = 0; i < cluster->held_count; i++) {
        free(cluster->held[i].bytes);
    }
    while (cluster->entry_count > 0) {
        remove_entry(cluster, cluster->entry_count - 1);
    }
    free(cluster->entries);
    arena_deinit(&cluster->arena);
}

void fake_endpoints(const struct fake_cluster *cluster, char *out, size_t size) {
    size_t len = 0;
    for (uint32_t i = 0; i < cluster->count; i++) {
        int wrote = snprintf(out + len, size - len, "%sn%u=%s", i > 0 ? "," : "", i + 1, cluster->nodes[i].address);
        CHECK(wrote > 0 && (size_t)wrote < size - len);
        len += (size_t)wrote;
    }
}
