/*
 * Long jobs of the store for admins: checked here, carried out by the consensus actor, which answers soon.
 */
#include "node/server/clients_internal.h"

#include <stdio.h>

struct upkeep_request {
    struct consensus_upkeep_query query;
    struct request *request;
    uint8_t bounds[2 * LIMIT_KEY_BYTES];
};

static void reply(struct request *request, const struct consensus_upkeep_state *state) {
    const struct config *config = request->clients->options.config;
    Wire__UpkeepReply reply = WIRE__UPKEEP_REPLY__INIT;
    SET(&reply, node_id, config->id);
    reply.node_name = borrow_text(config->name);
    SET(&reply, job, state->job);
    reply.kind = borrow_text(consensus_upkeep_name(state->kind));
    SET(&reply, running, state->running);
    SET(&reply, done_bytes, state->done_bytes);
    SET(&reply, total_bytes, state->total_bytes);
    SET(&reply, elapsed_ms, state->elapsed_us / 1000);
    SET(&reply, code, (uint32_t)wire_code_of(state->status));
    reply.message = borrow_text(state->message);
    SET(&reply, files, state->files);
    SET(&reply, bytes, state->bytes);
    SET(&reply, copied_bytes, state->copied_bytes);
    SET(&reply, findings, state->findings);
    SET(&reply, index, state->index);
    request__reply(request, FRAME_UPKEEP_REPLY, &reply.base, NULL, 0);
}

static void on_done(struct consensus_upkeep_query *query) {
    struct upkeep_request *asked = CONTAINER_OF(query, struct upkeep_request, query);
    struct request *request = asked->request;
    struct alloc *alloc = request->clients->alloc;
    switch (query->status) {
    case STATUS_OK: reply(request, &query->state); break;
    case STATUS_BUSY:
        request__fail(request, STATUS_BUSY, false, "a %s is under way (%llu of %llu bytes); one job runs at a time",
                      consensus_upkeep_name(query->state.kind), (unsigned long long)query->state.done_bytes,
                      (unsigned long long)query->state.total_bytes);
        break;
    case STATUS_UNSUPPORTED:
        request__fail(request, STATUS_UNSUPPORTED, false, "a compaction can't be cancelled; it ends by itself");
        break;
    default: request__fail(request, query->status, false, "this node is stopping"); break;
    }
    mem_free(alloc, asked);
}

/* A path from the root that goes nowhere up: what an admin reads in it is where it leads. */
static bool is_plain_path(const char *path) {
    size_t len = strlen(path);
    bool goes_up = strstr(path, "/../") != NULL || (len >= 3 && strcmp(path + len - 3, "/..") == 0);
    return path[0] == '/' && path[1] != '\0' && len < LIMIT_PATH_BYTES && !goes_up;
}

/* NULL, or what is wrong. */
static const char *problem_of(const Wire__UpkeepRequest *upkeep) {
    if (upkeep->action > CONSENSUS_UPKEEP_CANCEL) {
        return "no job that this node knows";
    }
    struct slice lower = slice_of(upkeep->lower.data, upkeep->lower.len);
    struct slice upper = slice_of(upkeep->upper.data, upkeep->upper.len);
    if (lower.len > LIMIT_KEY_BYTES || upper.len > LIMIT_KEY_BYTES ||
        (upper.len > 0 && slice_compare(lower, upper) >= 0)) {
        return "the range is empty, or a bound has more than 4096 bytes";
    }
    if (upkeep->action == CONSENSUS_UPKEEP_CHECKPOINT && (upkeep->dir == NULL || !is_plain_path(upkeep->dir))) {
        return "a checkpoint needs an absolute path on the node's machine, without \"..\"";
    }
    return NULL;
}

static struct slice copy_bound(uint8_t *out, ProtobufCBinaryData bound) {
    if (bound.len > 0) {
        memcpy(out, bound.data, bound.len);
    }
    return slice_of(out, bound.len);
}

void request_upkeep__upkeep(struct client_connection *connection, const struct connection_frame *frame) {
    struct clients *clients = connection->clients;
    const Wire__UpkeepRequest *upkeep = request__unpack(connection, frame, &wire__upkeep_request__descriptor, "upkeep");
    if (upkeep == NULL) {
        return;
    }
    const char *problem = problem_of(upkeep);
    if (problem != NULL) {
        client_connection__send_error(connection, frame->request_id, STATUS_INVALID, false, problem);
        return;
    }
    struct request *request = NULL;
    struct upkeep_request *asked = request__take_question(connection, frame, sizeof *asked, &request);
    if (asked == NULL) {
        return;
    }
    asked->request = request;
    asked->query.loop = clients->options.loop;
    asked->query.done = on_done;
    asked->query.action = (enum consensus_upkeep_action)upkeep->action;
    asked->query.lower = copy_bound(asked->bounds, upkeep->lower);
    asked->query.upper = copy_bound(asked->bounds + LIMIT_KEY_BYTES, upkeep->upper);
    (void)snprintf(asked->query.dir, sizeof asked->query.dir, "%s", upkeep->dir != NULL ? upkeep->dir : "");
    consensus_upkeep(clients->options.consensus, &asked->query);
}
