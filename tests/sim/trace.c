#include "tests/sim/trace.h"

#include "node/base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { NODE_IDS_MAX = 256, BUFFER_BYTES = 256 * 1024 };

/* What the lines so far say of one node: only changes are written again. */
struct told {
    enum raft_role role;
    uint64_t term;
    uint64_t vote;
    uint64_t leader;
    uint64_t commit_index;
    uint64_t last_index;
    uint64_t synced_index;
    uint64_t config_index;
    uint64_t ready_round;
};

struct trace {
    FILE *file;
    struct told nodes[NODE_IDS_MAX];
};

static const char *const event_names[] = {
    [RAFT_EVENT_TICK] = "tick",           [RAFT_EVENT_MESSAGE] = "receive",
    [RAFT_EVENT_PROPOSE] = "propose",     [RAFT_EVENT_SYNCED] = "synced",
    [RAFT_EVENT_READ] = "read",           [RAFT_EVENT_UNREACHABLE] = "unreachable",
    [RAFT_EVENT_TRIMMED] = "trimmed",     [RAFT_EVENT_CHANGE] = "change",
    [RAFT_EVENT_TRANSFER] = "transfer",   [RAFT_EVENT_SNAPSHOT_SENT] = "snapshot_sent",
    [RAFT_EVENT_INSTALLED] = "installed", [RAFT_EVENT_FENCE] = "fence",
    [RAFT_EVENT_GONE] = "gone",           [RAFT_EVENT_NEEDS_SNAPSHOT] = "store_damaged",
};

static const char *const message_names[RAFT_MESSAGE_TYPE_COUNT] = {
    [RAFT_PREVOTE] = "prevote",
    [RAFT_PREVOTE_REPLY] = "prevote_reply",
    [RAFT_VOTE] = "vote",
    [RAFT_VOTE_REPLY] = "vote_reply",
    [RAFT_APPEND] = "append",
    [RAFT_APPEND_REPLY] = "append_reply",
    [RAFT_HEARTBEAT] = "heartbeat",
    [RAFT_HEARTBEAT_REPLY] = "heartbeat_reply",
    [RAFT_TIMEOUT_NOW] = "timeout_now",
    [RAFT_READ_INDEX] = "read_index",
    [RAFT_READ_INDEX_REPLY] = "read_index_reply",
};

static struct told *told_of(struct trace *trace, uint64_t node_id) {
    CHECK(node_id > 0 && node_id < NODE_IDS_MAX);
    return &trace->nodes[node_id];
}

struct trace *trace_open(const char *path, uint64_t seed, const char *commit) {
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        return NULL;
    }
    struct trace *trace = calloc(1, sizeof *trace);
    CHECK(trace != NULL);
    trace->file = file;
    (void)setvbuf(file, NULL, _IOFBF, BUFFER_BYTES);
    fprintf(file, "{\"event\":\"trace\",\"version\":1,\"seed\":%" PRIu64 ",\"commit\":\"%s\"}\n", seed, commit);
    return trace;
}

bool trace_close(struct trace *trace) {
    if (trace == NULL) {
        return true;
    }
    bool good = ferror(trace->file) == 0;
    good = fclose(trace->file) == 0 && good;
    free(trace);
    return good;
}

/* ---- Parts of a line -------------------------------------------------------------------------------------------- */

static void put_number(FILE *file, const char *name, uint64_t value) {
    if (value != 0) {
        fprintf(file, ",\"%s\":%" PRIu64, name, value);
    }
}

/* Runs of entries of one term and kind: [first index, count, term, kind]. */
struct runs {
    FILE *file;
    uint64_t first_index;
    uint64_t count;
    uint64_t term;
    unsigned kind;
    bool some;
};

static void runs_flush(struct runs *runs) {
    if (runs->count > 0) {
        fprintf(runs->file, "%s[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%u]", runs->some ? "," : "", runs->first_index,
                runs->count, runs->term, runs->kind);
        runs->some = true;
    }
    runs->count = 0;
}

static void runs_add(struct runs *runs, uint64_t index, uint64_t term, unsigned kind) {
    if (runs->count > 0 && (runs->term != term || runs->kind != kind)) {
        runs_flush(runs);
    }
    if (runs->count == 0) {
        runs->first_index = index;
        runs->term = term;
        runs->kind = kind;
    }
    runs->count++;
}

static void put_entries(FILE *file, const char *name, const struct raft_entry *entries, uint32_t count) {
    struct runs runs = {.file = file};
    fprintf(file, ",\"%s\":[", name);
    for (uint32_t i = 0; i < count; i++) {
        runs_add(&runs, entries[i].index, entries[i].term, entries[i].kind);
    }
    runs_flush(&runs);
    fputc(']', file);
}

enum member_set { SET_VOTERS, SET_OUTGOING, SET_LEARNERS };

static bool is_in(const struct raft_config *config, uint32_t position, enum member_set set) {
    const struct raft_member *member = &config->members[position];
    switch (set) {
    case SET_VOTERS: return member->role == RAFT_VOTER;
    case SET_OUTGOING: return config->joint && member->in_outgoing;
    case SET_LEARNERS: return member->role == RAFT_LEARNER;
    }
    CHECK(false);
}

static void put_configuration(FILE *file, uint64_t index, const struct raft_config *config) {
    static const char *const names[] = {
        [SET_VOTERS] = "voters", [SET_OUTGOING] = "outgoing", [SET_LEARNERS] = "learners"};
    fprintf(file, "{\"index\":%" PRIu64, index);
    for (enum member_set set = SET_VOTERS; set <= SET_LEARNERS; set++) {
        fprintf(file, ",\"%s\":[", names[set]);
        const char *comma = "";
        for (uint32_t i = 0; i < config->member_count; i++) {
            if (is_in(config, i, set)) {
                fprintf(file, "%s%" PRIu64, comma, config->members[i].id);
                comma = ",";
            }
        }
        fputc(']', file);
    }
    fputc('}', file);
}

/* Sent appends name no entries: those are the sender's log. */
static void put_message(FILE *file, const struct raft_message *message) {
    fprintf(file, "{\"type\":\"%s\",\"from\":%" PRIu64 ",\"to\":%" PRIu64 ",\"term\":%" PRIu64,
            message_names[message->type], message->from, message->to, message->term);
    put_number(file, "index", message->index);
    put_number(file, "log_term", message->log_term);
    put_number(file, "count", message->entry_count);
    put_number(file, "commit", message->commit);
    if (message->reject) {
        fputs(",\"reject\":true", file);
    }
    put_number(file, "hint", message->hint_index);
    put_number(file, "hint_term", message->hint_term);
    put_number(file, "round", message->round);
    put_number(file, "floor", message->floor);
    put_number(file, "life", message->life);
    if (message->lost_log) {
        fputs(",\"lost_log\":true", file);
    }
    if (message->entries != NULL && message->entry_count > 0) {
        put_entries(file, "entries", message->entries, message->entry_count);
        const char *before = ",\"configurations\":[";
        for (uint32_t i = 0; i < message->entry_count; i++) {
            if (message->entries[i].config != NULL) {
                fputs(before, file);
                put_configuration(file, message->entries[i].index, message->entries[i].config);
                before = ",";
            }
        }
        fputs(before[1] == '\0' ? "]" : "", file);
    }
    fputc('}', file);
}

static void put_event(FILE *file, const struct raft_event *event) {
    switch (event->type) {
    case RAFT_EVENT_MESSAGE:
        fputs(",\"message\":", file);
        put_message(file, event->u.message);
        break;
    case RAFT_EVENT_SYNCED:
        fprintf(file, ",\"group\":{\"term\":%" PRIu64 ",\"vote\":%" PRIu64, event->u.synced.term, event->u.synced.vote);
        put_number(file, "last", event->u.synced.last_index);
        put_number(file, "last_term", event->u.synced.last_term);
        fputc('}', file);
        break;
    case RAFT_EVENT_UNREACHABLE:
    case RAFT_EVENT_GONE: put_number(file, "peer", event->u.peer); break;
    case RAFT_EVENT_TRIMMED: put_number(file, "index", event->u.trimmed_index); break;
    case RAFT_EVENT_TRANSFER: put_number(file, "target", event->u.target); break;
    case RAFT_EVENT_SNAPSHOT_SENT:
        put_number(file, "peer", event->u.snapshot_sent.peer);
        put_number(file, "index", event->u.snapshot_sent.index);
        fputs(event->u.snapshot_sent.ok ? ",\"ok\":true" : ",\"ok\":false", file);
        break;
    case RAFT_EVENT_INSTALLED:
        put_number(file, "index", event->u.installed.index);
        put_number(file, "index_term", event->u.installed.term);
        fputs(",\"installed\":", file);
        put_configuration(file, event->u.installed.config_index, event->u.installed.config);
        break;
    case RAFT_EVENT_NEEDS_SNAPSHOT: put_number(file, "index", event->u.needs_snapshot); break;
    case RAFT_EVENT_FENCE: fprintf(file, ",\"fence\":\"%s\"", raft_fence_name(event->u.fence)); break;
    case RAFT_EVENT_TICK:
    case RAFT_EVENT_PROPOSE:
    case RAFT_EVENT_READ:
    case RAFT_EVENT_CHANGE: break;
    }
}

/* What the step does to the log. */
static void put_append(FILE *file, const struct told *told, const struct raft_event *event,
                       const struct raft_update *update) {
    uint64_t first_index = update->append.first_index;
    if (update->append.source != RAFT_APPEND_NONE && first_index <= told->last_index) {
        fprintf(file, ",\"cut\":%" PRIu64, first_index - 1);
    }
    switch (update->append.source) {
    case RAFT_APPEND_NONE: break;
    case RAFT_APPEND_NOOP:
    case RAFT_APPEND_CONFIG:
        fprintf(file, ",\"append\":[[%" PRIu64 ",1,%" PRIu64 ",%d]]", first_index, update->append.term,
                update->append.source == RAFT_APPEND_NOOP ? RAFT_ENTRY_NOOP : RAFT_ENTRY_CONFIG);
        break;
    case RAFT_APPEND_PROPOSAL: put_entries(file, "append", event->u.propose.entries, update->append.count); break;
    case RAFT_APPEND_MESSAGE:
        put_entries(file, "append", event->u.message->entries + update->append.skip, update->append.count);
        break;
    }
}

static void put_reads(FILE *file, const struct told *told, const struct raft_update *update) {
    put_number(file, "asked", update->read_round);
    if (update->ready_round != told->ready_round) {
        fprintf(file, ",\"ready\":[%" PRIu64 ",%" PRIu64 "]", update->ready_round, update->ready_index);
    }
    fputs(update->reads_failed ? ",\"reads_failed\":true" : "", file);
}

static void put_sends(FILE *file, const struct raft_update *update) {
    for (uint32_t i = 0; i < update->snapshot_peer_count; i++) {
        fprintf(file, "%s%" PRIu64, i == 0 ? ",\"needs_snapshot\":[" : ",", update->snapshot_peers[i]);
    }
    fputs(update->snapshot_peer_count > 0 ? "]" : "", file);
    for (uint32_t i = 0; i < update->message_count; i++) {
        fputs(i == 0 ? ",\"send\":[" : ",", file);
        put_message(file, &update->messages[i]);
    }
    fputs(update->message_count > 0 ? "]" : "", file);
}

static struct told state_of(const struct raft *raft, uint64_t ready_round) {
    struct raft_info info;
    raft_get_info(raft, &info);
    return (struct told){
        .role = raft_role(raft),
        .term = raft_term(raft),
        .vote = raft_vote(raft),
        .leader = raft_leader(raft),
        .commit_index = raft_commit_index(raft),
        .last_index = raft_last_index(raft),
        .synced_index = raft_synced_index(raft),
        .config_index = info.config_index,
        .ready_round = ready_round,
    };
}

/* The state after the transition, and the end of the line. */
static void put_state(FILE *file, const struct raft *raft, const struct told *now, bool with_configuration) {
    fprintf(file,
            ",\"role\":\"%s\",\"term\":%" PRIu64 ",\"vote\":%" PRIu64 ",\"leader\":%" PRIu64 ",\"commit\":%" PRIu64
            ",\"last\":%" PRIu64 ",\"last_term\":%" PRIu64 ",\"synced\":%" PRIu64 ",\"config\":%" PRIu64,
            raft_role_name(now->role), now->term, now->vote, now->leader, now->commit_index, now->last_index,
            raft_term_at(raft, now->last_index), now->synced_index, now->config_index);
    if (with_configuration) {
        fputs(",\"configuration\":", file);
        put_configuration(file, now->config_index, raft_membership(raft));
    }
    fputs("}\n", file);
}

static void begin_line(struct trace *trace, uint64_t time_us, uint64_t node_id, const char *event) {
    fprintf(trace->file, "{\"t\":%" PRIu64 ",\"node\":%" PRIu64 ",\"event\":\"%s\"", time_us, node_id, event);
}

/* ---- Lines ------------------------------------------------------------------------------------------------------ */

void trace_started(struct trace *trace, uint64_t time_us, const struct raft *raft) {
    struct told *told = told_of(trace, raft_id(raft));
    uint64_t start_index = raft_first_index(raft) - 1;
    begin_line(trace, time_us, raft_id(raft), "start");
    put_number(trace->file, "start_index", start_index);
    put_number(trace->file, "start_term", raft_term_at(raft, start_index));
    struct raft_info info;
    raft_get_info(raft, &info);
    put_number(trace->file, "heal_index", info.heal_index);
    put_number(trace->file, "heal_term", info.heal_term);
    fputs(",\"log\":[", trace->file);
    struct runs runs = {.file = trace->file};
    for (uint64_t index = start_index + 1; index <= raft_last_index(raft); index++) {
        runs_add(&runs, index, raft_term_at(raft, index), 0);
    }
    runs_flush(&runs);
    fputc(']', trace->file);
    *told = state_of(raft, 0);
    put_state(trace->file, raft, told, true);
}

void trace_stepped(struct trace *trace, uint64_t time_us, const struct raft *raft, const struct raft_event *event,
                   enum status status, const struct raft_update *update) {
    struct told *told = told_of(trace, raft_id(raft));
    struct told now = state_of(raft, update->ready_round);
    /* Time that passes and does nothing is no transition. */
    bool idle = event->type == RAFT_EVENT_TICK && update->message_count == 0 && update->snapshot_peer_count == 0 &&
                update->append.source == RAFT_APPEND_NONE && now.role == told->role && now.term == told->term;
    if (idle) {
        return;
    }
    FILE *file = trace->file;
    begin_line(trace, time_us, raft_id(raft), event_names[event->type]);
    put_event(file, event);
    if (status != STATUS_OK) {
        fprintf(file, ",\"status\":\"%s\"", status_name(status));
    }
    put_append(file, told, event, update);
    put_reads(file, told, update);
    put_sends(file, update);
    put_state(file, raft, &now, now.config_index != told->config_index || update->membership_changed);
    *told = now;
}

void trace_crashed(struct trace *trace, uint64_t time_us, uint64_t node_id, const char *kind) {
    begin_line(trace, time_us, node_id, "crash");
    fprintf(trace->file, ",\"kind\":\"%s\"}\n", kind);
}
