/*
 * `wal explain`: what keeps each segment of this node's log, as the consensus actor says. One block of memory holds the
 * reply's parts.
 */
#include "node/server/clients_internal.h"

struct explain_request {
    struct consensus_log_query query;
    struct request *request;
};

/* Of the reply, for one segment. */
struct explain_parts {
    Wire__LogSegment segment;
    uint32_t pins[CONSENSUS_LOG_PINS_MAX];
};

static const char *state_name(enum wal_segment_state state) {
    switch (state) {
    case WAL_SEGMENT_ACTIVE: return "active";
    case WAL_SEGMENT_KEPT: return "kept";
    case WAL_SEGMENT_PREPARED: return "prepared";
    case WAL_SEGMENT_FAULTY: return "faulty";
    case WAL_SEGMENT_SPARE: return "spare";
    case WAL_SEGMENT_DOOMED: return "doomed";
    }
    CHECK(false);
}

static void fill_pin(Wire__LogPin *out, const struct consensus_log_pin *pin) {
    wire__log_pin__init(out);
    out->owner = borrow_text(pin->owner);
    if (pin->has_index) {
        SET(out, index, pin->index);
    }
    SET(out, segments, pin->segment_count);
    SET(out, file_bytes, pin->file_bytes);
    SET(out, age_ms, pin->age_us / 1000);
}

static void fill_segment(struct explain_parts *parts, const struct consensus_log_segment *segment) {
    const struct wal_segment_info *info = &segment->info;
    Wire__LogSegment *out = &parts->segment;
    wire__log_segment__init(out);
    SET(out, number, info->number);
    out->state = borrow_text(state_name(info->state));
    SET(out, file_bytes, info->file_bytes);
    SET(out, used_bytes, info->used_bytes);
    SET(out, first, info->first_index);
    SET(out, last, info->last_index);
    SET(out, age_ms, info->age_us / 1000);
    SET(out, begun_earlier, info->begun_before_opened);
    out->pins = parts->pins;
    for (uint32_t i = 0; i < CONSENSUS_LOG_PINS_MAX; i++) {
        if ((segment->pins & 1U << i) != 0) {
            parts->pins[out->n_pins++] = i;
        }
    }
}

static void reply(struct request *request, const struct consensus_log_query *query, struct explain_parts *parts,
                  Wire__LogSegment **segments) {
    const struct config *config = request->clients->options.config;
    Wire__ExplainLogReply reply = WIRE__EXPLAIN_LOG_REPLY__INIT;
    Wire__LogPin pins[CONSENSUS_LOG_PINS_MAX];
    Wire__LogPin *pin_pointers[CONSENSUS_LOG_PINS_MAX];
    for (uint32_t i = 0; i < query->pin_count; i++) {
        fill_pin(&pins[i], &query->pins[i]);
        pin_pointers[i] = &pins[i];
    }
    for (uint32_t i = 0; i < query->segment_count; i++) {
        fill_segment(&parts[i], &query->segments[i]);
        segments[i] = &parts[i].segment;
    }
    SET(&reply, node_id, config->id);
    reply.node_name = borrow_text(config->name);
    SET(&reply, first, query->first_index);
    SET(&reply, last, query->last_index);
    SET(&reply, floor, query->floor_index);
    SET(&reply, segment_total, query->segment_total);
    SET(&reply, file_bytes, query->file_bytes);
    reply.n_pins = query->pin_count;
    reply.pins = pin_pointers;
    reply.n_segments = query->segment_count;
    reply.segments = segments;
    request__reply(request, FRAME_EXPLAIN_LOG_REPLY, &reply.base, NULL, 0);
}

static void on_done(struct consensus_log_query *query) {
    struct explain_request *asked = CONTAINER_OF(query, struct explain_request, query);
    struct request *request = asked->request;
    struct clients *clients = request->clients;
    size_t count = query->segment_count;
    struct explain_parts *parts = NULL;
    if (query->status == STATUS_OK) {
        parts = mem_alloc(clients->alloc, (count + 1) * (sizeof *parts + sizeof(Wire__LogSegment *)));
    }
    if (query->status == STATUS_UNAVAILABLE) {
        request__fail(request, STATUS_UNAVAILABLE, false, "this node is stopping");
    } else if (parts == NULL) {
        request__fail(request, STATUS_BUSY, false, "this node is out of memory; try again");
    } else {
        reply(request, query, parts, (Wire__LogSegment **)(void *)(parts + count + 1));
    }
    mem_free(clients->alloc, parts);
    mem_free(clients->alloc, query->segments);
    mem_free(clients->alloc, asked);
}

void request_explain__log(struct client_connection *connection, const struct connection_frame *frame) {
    struct clients *clients = connection->clients;
    if (request__unpack(connection, frame, &wire__explain_log_request__descriptor, "explain log") == NULL) {
        return;
    }
    struct request *request = NULL;
    struct explain_request *asked = request__take_question(connection, frame, sizeof *asked, &request);
    if (asked == NULL) {
        return;
    }
    asked->request = request;
    asked->query.loop = clients->options.loop;
    asked->query.done = on_done;
    consensus_explain_log(clients->options.consensus, &asked->query);
}
