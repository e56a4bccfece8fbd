/*
 * All data of all members compared, for admins: begins a round or tells how far it is (consensus_scan_round.c). Only
 * the leader knows.
 */
#include "node/server/clients_internal.h"

enum { ACTION_LOOK, ACTION_BEGIN, ACTION_COUNT };

struct compare_request {
    struct consensus_compare_query query;
    struct request *request;
};

static void fill_member(Wire__CompareMember *out, char *name, struct consensus_scan_member *member,
                        uint8_t digest[DIGEST_BYTES]) {
    wire__compare_member__init(out);
    SET(out, id, member->id);
    out->name = name;
    SET(out, state, (uint32_t)member->state);
    SET(out, suspected, member->is_suspected);
    SET(out, done_bytes, member->done_bytes);
    SET(out, total_bytes, member->total_bytes);
    out->reason = member->reason;
    if (member->state == CONSENSUS_SCAN_DONE) {
        digest_encode(&member->digest, digest);
        SET(out, keys, member->keys);
        SET(out, digest, ((ProtobufCBinaryData){.data = digest, .len = DIGEST_BYTES}));
    }
}

static void reply_round(struct request *request, struct consensus_compare_query *query) {
    Wire__CompareReply reply = WIRE__COMPARE_REPLY__INIT;
    Wire__CompareMember members[LIMIT_MEMBERS];
    Wire__CompareMember *pointers[LIMIT_MEMBERS];
    uint8_t digests[LIMIT_MEMBERS][DIGEST_BYTES];
    struct consensus_scan_round *round = &query->round;
    for (uint32_t i = 0; i < round->member_count; i++) {
        fill_member(&members[i], query->names[i], &round->members[i], digests[i]);
        pointers[i] = &members[i];
    }
    SET(&reply, index, round->index);
    SET(&reply, verdict, (uint32_t)round->verdict);
    SET(&reply, open, query->is_open);
    SET(&reply, above_index, query->above_index);
    SET(&reply, elapsed_ms, round->elapsed_us / 1000);
    reply.n_members = round->member_count;
    reply.members = pointers;
    request__reply(request, FRAME_COMPARE_REPLY, &reply.base, NULL, 0);
}

static void on_done(struct consensus_compare_query *query) {
    struct compare_request *asked = CONTAINER_OF(query, struct compare_request, query);
    struct request *request = asked->request;
    struct alloc *alloc = request->clients->alloc;
    if (query->status == STATUS_OK) {
        reply_round(request, query);
    } else {
        request__fail_by_status(request, query->status, false);
    }
    mem_free(alloc, asked);
}

void request_compare__compare(struct client_connection *connection, const struct connection_frame *frame) {
    struct clients *clients = connection->clients;
    const Wire__CompareRequest *compare =
        request__unpack(connection, frame, &wire__compare_request__descriptor, "compare");
    if (compare == NULL) {
        return;
    }
    if (compare->action >= ACTION_COUNT) {
        client_connection__send_error(connection, frame->request_id, STATUS_INVALID, false,
                                      "nothing that this node does about comparing");
        return;
    }
    bool begin = compare->action == ACTION_BEGIN;
    struct request *request = NULL;
    struct compare_request *asked = request__take_question(connection, frame, sizeof *asked, &request);
    if (asked == NULL) {
        return;
    }
    asked->request = request;
    asked->query.loop = clients->options.loop;
    asked->query.done = on_done;
    asked->query.begin = begin;
    consensus_compare(clients->options.consensus, &asked->query);
}
