/* status: every endpoint is asked at the same time; those that don't answer are listed too. */
#include "node/ctl/ctl.h"
#include "node/ctl/queue.h"
#include "node/ctl/table.h"

#include "node/base/check.h"

#include <inttypes.h>
#include <jansson.h>

struct node_answer {
    struct ctl_node node;
    struct ctl_queue *queue;
    uint32_t endpoint;
    bool answered;
    struct holdfast_result result;
    struct holdfast_node_status status;
};

static void answer_arrived(void *context, const struct holdfast_result *result,
                           const struct holdfast_node_status *status) {
    struct node_answer *answer = context;
    answer->result = *result;
    if (status != NULL) {
        answer->status = *status;
        answer->answered = true;
    }
    ctl_queue_push(answer->queue, &answer->node);
}

/* Asks those from first to first + count; waits for all of them. */
static void ask(struct ctl *ctl, struct ctl_queue *queue, struct node_answer *answers, uint32_t count) {
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct node_answer *answer = &answers[i];
        answer->queue = queue;
        enum holdfast_code code = holdfast_status_async(ctl->handle, answer->endpoint, 0, answer_arrived, answer);
        if (code == HOLDFAST_CODE_OK) {
            waiting++;
        } else {
            answer->result.outcome = HOLDFAST_FAILED;
            (void)snprintf(answer->result.message, sizeof answer->result.message, "%s", holdfast_code_name(code));
        }
    }
    while (waiting > 0) {
        (void)ctl_queue_wait(queue, -1, -1);
        for (struct ctl_node *node = ctl_queue_take(queue); node != NULL; node = node->next) {
            waiting--;
        }
    }
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

static void hex_of(const uint8_t *bytes, size_t count, char *out) {
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    }
}

/* Names from outside may be any bytes: what isn't UTF-8 becomes "?". */
static json_t *text_json(const char *text) {
    json_t *string = json_string(text);
    return string != NULL ? string : json_string("?");
}

static json_t *unreachable_json(const struct ctl *ctl, const struct node_answer *answer) {
    return json_pack("{s:o, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "name",
                     text_json(holdfast_endpoint_name(ctl->handle, answer->endpoint)), "id", (json_int_t)0, "role",
                     "unreachable", "term", (json_int_t)0, "synced", (json_int_t)0, "commit", (json_int_t)0, "applied",
                     (json_int_t)0, "flushed", (json_int_t)0, "address",
                     text_json(holdfast_endpoint_address(ctl->handle, answer->endpoint)), "problem",
                     text_json(answer->result.message));
}

static const char *node_name(const struct ctl *ctl, const struct node_answer *answer) {
    return answer->answered && answer->status.node_name[0] != '\0'
               ? answer->status.node_name
               : holdfast_endpoint_name(ctl->handle, answer->endpoint);
}

static json_t *members_json(const struct holdfast_node_status *status) {
    json_t *members = json_array();
    for (uint32_t i = 0; i < status->member_count; i++) {
        const struct holdfast_member *member = &status->members[i];
        json_t *object = json_pack("{s:I, s:o, s:o, s:o, s:o, s:I, s:o}", "id", (json_int_t)member->id, "name",
                                   text_json(member->name), "client_address", text_json(member->client_address),
                                   "peer_address", text_json(member->peer_address), "role", text_json(member->role),
                                   "match", (json_int_t)member->match, "heard_ms_ago",
                                   member->heard_ms_ago != UINT64_MAX ? json_integer((json_int_t)member->heard_ms_ago)
                                                                      : json_null());
        (void)json_array_append_new(members, object);
    }
    return members;
}

static json_t *snapshots_json(const struct holdfast_node_status *status) {
    json_t *snapshots = json_array();
    for (uint32_t i = 0; i < status->snapshot_count; i++) {
        const struct holdfast_snapshot *snapshot = &status->snapshots[i];
        json_t *object = json_pack("{s:o, s:b, s:o, s:I, s:I, s:I, s:I, s:o}", "peer", text_json(snapshot->peer),
                                   "incoming", (int)snapshot->incoming, "state", text_json(snapshot->state), "index",
                                   (json_int_t)snapshot->index, "done_bytes", (json_int_t)snapshot->done_bytes,
                                   "total_bytes", (json_int_t)snapshot->total_bytes, "bytes_per_second",
                                   (json_int_t)snapshot->bytes_per_second, "pace", text_json(snapshot->pace));
        (void)json_array_append_new(snapshots, object);
    }
    return snapshots;
}

/* In the membership as the node itself knows it; "none": it was removed, or not added yet. "" if it doesn't say. */
static const char *membership_of(const struct holdfast_node_status *status) {
    for (uint32_t i = 0; i < status->member_count; i++) {
        if (status->members[i].id == status->node_id) {
            return status->members[i].role;
        }
    }
    return status->member_count > 0 ? "none" : "";
}

/* Of groups that carry records. */
static double records_per_sync(const struct holdfast_node_status *status) {
    uint64_t groups = status->log_groups_idle + status->log_groups_behind + status->log_groups_full;
    return groups > 0 ? (double)status->log_records / (double)groups : 0;
}

static double padding_share(const struct holdfast_node_status *status) {
    return status->log_written_bytes > 0 ? (double)status->log_padding_bytes / (double)status->log_written_bytes : 0;
}

static json_t *buckets_json(const struct holdfast_node_status *status) {
    json_t *buckets = json_array();
    for (size_t i = 0; i < HOLDFAST_SYNC_BUCKETS; i++) {
        (void)json_array_append_new(buckets, json_integer((json_int_t)status->log_sync_us_buckets[i]));
    }
    return buckets;
}

/* Hex digits; null: nothing was compared yet. */
static json_t *digest_json(uint64_t index, const uint8_t digest[16]) {
    char text[2 * 16 + 1];
    hex_of(digest, 16, text);
    return index > 0 ? json_string(text) : json_null();
}

static json_t *node_json(const struct ctl *ctl, const struct node_answer *answer) {
    const struct holdfast_node_status *status = &answer->status;
    if (!answer->answered) {
        return unreachable_json(ctl, answer);
    }
    json_t *object = json_object();
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"id", status->node_id},
        {"term", status->term},
        {"synced", status->synced},
        {"commit", status->commit},
        {"applied", status->applied},
        {"flushed", status->flushed},
        {"first", status->first},
        {"last", status->last},
        {"leader_id", status->leader_id},
        {"uptime_ms", status->uptime_ms},
        {"log_segments", status->log_segments},
        {"log_groups", status->log_groups},
        {"log_records", status->log_records},
        {"log_sync_us_total", status->log_sync_us_total},
        {"log_sync_us_max", status->log_sync_us_max},
        {"memtable_bytes", status->memtable_bytes},
        {"sst_files", status->sst_files},
        {"sst_bytes", status->sst_bytes},
        {"client_connections", status->client_connections},
        {"log_group_records_max", status->log_group_records_max},
        {"log_written_bytes", status->log_written_bytes},
        {"log_padding_bytes", status->log_padding_bytes},
        {"log_groups_idle", status->log_groups_idle},
        {"log_groups_behind", status->log_groups_behind},
        {"log_groups_full", status->log_groups_full},
        {"log_groups_start", status->log_groups_start},
        {"log_groups_state", status->log_groups_state},
        {"log_groups_mark", status->log_groups_mark},
        {"log_sync_us_p50", status->log_sync_us_p50},
        {"log_sync_us_p99", status->log_sync_us_p99},
        {"horizon", status->horizon},
        {"scrub_passes", status->scrub_passes},
        {"scrub_bytes", status->scrub_bytes},
        {"damaged_places", status->damaged_places},
        {"write_stalls", status->write_stalls},
        {"write_stall_us_total", status->write_stall_us_total},
        {"write_stall_us_max", status->write_stall_us_max},
        {"heal_index", status->heal_index},
        {"log_segments_faulty", status->log_segments_faulty},
        {"snapshots_sent", status->snapshots_sent},
        {"snapshots_installed", status->snapshots_installed},
        {"snapshots_failed", status->snapshots_failed},
        {"fences", status->fences},
        {"loop_stand_stills", status->loop_stand_stills},
        {"digest_index", status->digest_index},
        {"digest_mismatches", status->digest_mismatches},
        {"scan_index", status->scan_index},
        {"scan_mismatches", status->scan_mismatches},
        {"rebuilds", status->rebuilds},
        {"rebuilds_failed", status->rebuilds_failed},
        {"replay_ms", status->replay_ms},
    };
    (void)json_object_set_new(object, "name", text_json(node_name(ctl, answer)));
    (void)json_object_set_new(object, "id", json_integer((json_int_t)status->node_id));
    (void)json_object_set_new(object, "role", text_json(status->role));
    (void)json_object_set_new(object, "membership", text_json(membership_of(status)));
    for (size_t i = 1; i < sizeof numbers / sizeof numbers[0]; i++) {
        (void)json_object_set_new(object, numbers[i].name, json_integer((json_int_t)numbers[i].value));
    }
    (void)json_object_set_new(object, "address", text_json(holdfast_endpoint_address(ctl->handle, answer->endpoint)));
    (void)json_object_set_new(object, "version", text_json(status->version));
    (void)json_object_set_new(object, "problem", text_json(status->problem));
    (void)json_object_set_new(object, "digest", digest_json(status->digest_index, status->digest));
    (void)json_object_set_new(object, "scan_digest", digest_json(status->scan_index, status->scan_digest));
    (void)json_object_set_new(object, "scan_state", text_json(status->scan_state));
    (void)json_object_set_new(object, "rebuild_state", text_json(status->rebuild_state));
    (void)json_object_set_new(object, "rebuild_reason", text_json(status->rebuild_reason));
    (void)json_object_set_new(object, "log_records_per_sync", json_real(records_per_sync(status)));
    (void)json_object_set_new(object, "log_padding_share", json_real(padding_share(status)));
    (void)json_object_set_new(object, "log_sync_us_buckets", buckets_json(status));
    (void)json_object_set_new(object, "snapshots", snapshots_json(status));
    if (status->member_count > 0) {
        (void)json_object_set_new(object, "members", members_json(status));
    }
    return object;
}

static void print_json(struct ctl *ctl, const struct node_answer *answers, uint32_t count, const char *cluster) {
    json_t *nodes = json_array();
    for (uint32_t i = 0; i < count; i++) {
        (void)json_array_append_new(nodes, node_json(ctl, &answers[i]));
    }
    json_t *root = json_object();
    (void)json_object_set_new(root, "cluster", cluster[0] != '\0' ? json_string(cluster) : json_null());
    (void)json_object_set_new(root, "nodes", nodes);
    (void)json_dumpf(root, ctl->io->out, JSON_COMPACT);
    (void)fputc('\n', ctl->io->out);
    json_decref(root);
}

/* ---- Text ----------------------------------------------------------------------------------------------------- */

static void add_heads(struct table *table, const char *const *heads, size_t count) {
    for (size_t i = 0; i < count; i++) {
        table_add(table, "%s", heads[i]);
    }
}

/* A follower without a vote is shown as what it is. */
static const char *shown_role(const struct holdfast_node_status *status) {
    const char *membership = membership_of(status);
    bool is_follower = strcmp(status->role, "follower") == 0;
    if (is_follower && strcmp(membership, "learner") == 0) {
        return "learner";
    }
    return is_follower && strcmp(membership, "none") == 0 ? "no member" : status->role;
}

static void add_node(const struct ctl *ctl, const struct node_answer *answer, struct table *table) {
    const struct holdfast_node_status *status = &answer->status;
    const uint64_t numbers[] = {status->term, status->applied, status->commit, status->synced, status->flushed};
    table_add(table, "%s", node_name(ctl, answer));
    table_add(table, "%s", answer->answered ? shown_role(status) : "unreachable");
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (answer->answered) {
            table_add(table, "%" PRIu64, numbers[i]);
        } else {
            table_add(table, "-");
        }
    }
    table_add(table, "%s", holdfast_endpoint_address(ctl->handle, answer->endpoint));
    table_add(table, "%s", answer->answered ? status->problem : answer->result.message);
}

static bool print_nodes(struct ctl *ctl, const struct node_answer *answers, uint32_t count) {
    static const char *const HEADS[] = {"NODE",   "ROLE",    "TERM",    "APPLIED", "COMMIT",
                                        "SYNCED", "FLUSHED", "ADDRESS", "PROBLEM"};
    enum { COLUMNS = sizeof HEADS / sizeof HEADS[0], RIGHT = 0x7c };
    struct table table;
    table_init(&table, ctl->alloc, COLUMNS, RIGHT);
    add_heads(&table, HEADS, COLUMNS);
    for (uint32_t i = 0; i < count; i++) {
        add_node(ctl, &answers[i], &table);
    }
    bool done = table_print(&table, ctl->io->out);
    table_deinit(&table);
    return done;
}

static void add_log(const struct ctl *ctl, const struct node_answer *answer, struct table *table) {
    const struct holdfast_node_status *status = &answer->status;
    const uint64_t numbers[] = {status->log_sync_us_p50,  status->log_sync_us_p99,   status->log_sync_us_max,
                                status->log_groups_idle,  status->log_groups_behind, status->log_groups_full,
                                status->log_groups_start, status->log_groups_state,  status->log_groups_mark};
    table_add(table, "%s", node_name(ctl, answer));
    table_add(table, "%" PRIu64, status->log_groups);
    table_add(table, "%.1f", records_per_sync(status));
    table_add(table, "%.0f%%", 100 * padding_share(status));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        table_add(table, "%" PRIu64, numbers[i]);
    }
}

/* What the logs did since their nodes started. */
static bool print_logs(struct ctl *ctl, const struct node_answer *answers, uint32_t count) {
    static const char *const HEADS[] = {"LOG",  "SYNCS",  "RECORDS/SYNC", "PADDING", "P50 us", "P99 us", "MAX us",
                                        "IDLE", "BEHIND", "FULL",         "START",   "STATE",  "MARK"};
    enum { COLUMNS = sizeof HEADS / sizeof HEADS[0], RIGHT = 0x1ffe };
    struct table table;
    table_init(&table, ctl->alloc, COLUMNS, RIGHT);
    add_heads(&table, HEADS, COLUMNS);
    bool any = false;
    for (uint32_t i = 0; i < count; i++) {
        if (answers[i].answered) {
            add_log(ctl, &answers[i], &table);
            any = true;
        }
    }
    bool done = true;
    if (any) {
        (void)fputc('\n', ctl->io->out);
        done = table_print(&table, ctl->io->out);
    }
    table_deinit(&table);
    return done;
}

/* One line for each that is under way. */
static void print_snapshots(struct ctl *ctl, const struct node_answer *answers, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const struct holdfast_node_status *status = &answers[i].status;
        for (uint32_t k = 0; answers[i].answered && k < status->snapshot_count; k++) {
            const struct holdfast_snapshot *snapshot = &status->snapshots[k];
            (void)fprintf(ctl->io->out,
                          "%ssnapshot on %s %s %s: %s, %" PRIu64 " of %" PRIu64 " bytes, up to entry %" PRIu64,
                          k == 0 ? "\n" : "", node_name(ctl, &answers[i]), snapshot->incoming ? "from" : "to",
                          snapshot->peer, snapshot->state, snapshot->done_bytes, snapshot->total_bytes,
                          snapshot->index);
            if (snapshot->bytes_per_second > 0) {
                (void)fprintf(ctl->io->out, ", %" PRIu64 " a second (%s)", snapshot->bytes_per_second, snapshot->pace);
            }
            (void)fputs("\n", ctl->io->out);
        }
    }
}

static bool print_text(struct ctl *ctl, const struct node_answer *answers, uint32_t count, const char *cluster) {
    (void)fprintf(ctl->io->out, "cluster %s\n", cluster[0] != '\0' ? cluster : "unknown: no node answers");
    if (!print_nodes(ctl, answers, count)) {
        return false;
    }
    print_snapshots(ctl, answers, count);
    return print_logs(ctl, answers, count);
}

/* ---- The command ---------------------------------------------------------------------------------------------- */

/* Endpoints to ask: all, or the one that --node names. */
static uint32_t choose_endpoints(const struct ctl *ctl, struct node_answer *answers) {
    uint32_t count = 0;
    const char *node = ctl->options.node;
    for (uint32_t i = 0; i < holdfast_endpoint_count(ctl->handle); i++) {
        if (node == NULL || strcmp(node, holdfast_endpoint_name(ctl->handle, i)) == 0 ||
            strcmp(node, holdfast_endpoint_address(ctl->handle, i)) == 0) {
            answers[count++].endpoint = i;
        }
    }
    return count;
}

enum ctl_exit ctl_cmd_status(struct ctl *ctl, int argc, char **argv) {
    (void)argc, (void)argv;
    struct ctl_queue queue;
    char cluster[33] = "";
    bool has_leader = false;
    bool denied = false;
    bool printed = true;
    enum ctl_exit code = ctl_connect(ctl);
    if (code != CTL_DONE) {
        return code;
    }
    struct node_answer *answers = mem_alloc_zero(ctl->alloc, holdfast_endpoint_count(ctl->handle) * sizeof *answers);
    if (answers == NULL || !ctl_queue_init(&queue)) {
        mem_free(ctl->alloc, answers);
        return ctl_fail(ctl, CTL_FAILED, "out of memory or descriptors");
    }
    uint32_t count = choose_endpoints(ctl, answers);
    CHECK(count > 0);
    ask(ctl, &queue, answers, count);
    for (uint32_t i = 0; i < count; i++) {
        if (answers[i].answered) {
            hex_of(answers[i].status.cluster_id, sizeof answers[i].status.cluster_id, cluster);
            has_leader = has_leader || strcmp(answers[i].status.role, "leader") == 0;
        }
        denied = denied || answers[i].result.code == HOLDFAST_CODE_DENIED;
    }
    if (ctl->options.json) {
        print_json(ctl, answers, count, cluster);
    } else {
        printed = print_text(ctl, answers, count, cluster);
    }
    code = printed ? ctl_finish_output(ctl) : ctl_fail(ctl, CTL_FAILED, "out of memory");
    if (code == CTL_DONE && !has_leader && ctl->options.node == NULL) {
        ctl->data_on_out = true;
        bool only_denied = denied && cluster[0] == '\0';
        code = ctl_fail(ctl, only_denied ? CTL_DENIED : CTL_UNREACHABLE, "%s",
                        only_denied ? "the nodes refuse this certificate: their messages say what to do"
                                    : "no leader was seen: a majority of the nodes must run and reach each other");
    } else if (code == CTL_DONE && cluster[0] == '\0') {
        ctl->data_on_out = true;
        code = ctl_fail_result(ctl, &answers[0].result);
    }
    ctl_disconnect(ctl); /* ends the thread that pushes */
    ctl_queue_deinit(&queue);
    mem_free(ctl->alloc, answers);
    return code;
}
