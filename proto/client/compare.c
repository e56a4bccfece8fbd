/*
 * All data of all members compared: the request, and the leader's answer. As in reply.c, nothing that comes from the
 * wire is trusted.
 */
#include "proto/client/core_internal.h"

enum { ACTION_LOOK, ACTION_BEGIN }; /* of a CompareRequest */

enum status encode__compare(struct client_link *link, const struct client_request *request, uint64_t request_id) {
    Wire__CompareRequest message = WIRE__COMPARE_REQUEST__INIT;
    message.has_action = 1;
    message.action = request->compare_begins ? ACTION_BEGIN : ACTION_LOOK;
    return connection_send(link->connection, FRAME_COMPARE, request_id, &message.base, NULL, 0);
}

static void copy_member(struct holdfast_compared *out, const Wire__CompareMember *member) {
    out->id = member->id;
    client_text_copy(out->name, sizeof out->name, member->name);
    client_text_copy(out->reason, sizeof out->reason, member->reason);
    out->state = member->state <= HOLDFAST_COMPARED_MISSING ? (enum holdfast_compared_state)member->state
                                                            : HOLDFAST_COMPARED_MISSING;
    out->suspected = member->suspected;
    out->done_bytes = member->done_bytes;
    out->total_bytes = member->total_bytes;
    out->keys = member->keys;
    out->has_digest = member->digest.len == sizeof out->digest;
    if (out->has_digest) {
        memcpy(out->digest, member->digest.data, sizeof out->digest);
    }
}

enum status reply__compare(struct client_request *request, const struct connection_frame *frame,
                           struct client_answer *answer, struct error *err) {
    struct client_core *core = request->core;
    const Wire__CompareReply *reply =
        (const Wire__CompareReply *)(const void *)wire_unpack(&core->arena, &wire__compare_reply__descriptor,
                                                              frame->message);
    struct holdfast_comparison *comparison = arena_alloc(&core->arena, sizeof *comparison);
    if (reply == NULL || comparison == NULL || reply->n_members > HOLDFAST_MEMBERS_MAX ||
        reply->verdict > HOLDFAST_VERDICT_INCOMPLETE) {
        return error_set(err, STATUS_CORRUPT, "an answer about a comparison that can't be read");
    }
    *comparison = (struct holdfast_comparison){
        .index = reply->index,
        .verdict = (enum holdfast_verdict)reply->verdict,
        .open = reply->open,
        .above_index = reply->above_index,
        .elapsed_ms = reply->elapsed_ms,
    };
    for (size_t i = 0; i < reply->n_members; i++) {
        copy_member(&comparison->members[comparison->member_count++], reply->members[i]);
    }
    answer->comparison = comparison;
    return STATUS_OK;
}
