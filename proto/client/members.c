/*
 * Membership and leadership in the session core: what is asked for is checked and packed here, and the answer read. As
 * in reply.c, nothing that comes from the wire is trusted: texts are cut, a list that is longer than ours is refused.
 *
 * Owner: the loop's thread, except client_changes_check (any thread).
 */
#include "proto/client/core_internal.h"

#include "node/base/check.h"

static_assert((int)HOLDFAST_THUMBPRINT_BYTES == (int)ENV_THUMBPRINT_BYTES, "a SHA-256 sum");
static_assert((int)HOLDFAST_MEMBER_CHANGES_MAX == (int)LIMIT_MEMBERS, "one for each member");
static_assert((int)HOLDFAST_MEMBERS_MAX >= (int)LIMIT_MEMBERS, "a whole cluster fits");

enum { ACTION_LIST = 0, ACTION_CHANGE = 1, ACTION_TRANSFER = 2, ACTION_REBUILD = 3 }; /* of a MemberRequest */

/* ---- Requests --------------------------------------------------------------------------------------------------- */

static bool fits(const char *text, size_t size) {
    return text != NULL && text[0] != '\0' && strnlen(text, size) < size;
}

static bool is_sound(const struct holdfast_member_change *change) {
    if (change->id == 0 || change->id > UINT64_C(1) << 63) {
        return false;
    }
    switch (change->action) {
    case HOLDFAST_MEMBER_ADD:
        return fits(change->name, LIMIT_NAME_BYTES) && fits(change->peer_address, LIMIT_ADDRESS_BYTES) &&
               fits(change->client_address, LIMIT_ADDRESS_BYTES) && change->thumbprint != NULL;
    case HOLDFAST_MEMBER_PROMOTE:
    case HOLDFAST_MEMBER_DEMOTE:
    case HOLDFAST_MEMBER_REMOVE:
    case HOLDFAST_MEMBER_PRIORITY: return true;
    }
    return false;
}

enum holdfast_code client_changes_check(const struct holdfast_member_change *changes, size_t count) {
    if (count == 0) {
        return HOLDFAST_CODE_INVALID;
    }
    if (count > HOLDFAST_MEMBER_CHANGES_MAX) {
        return HOLDFAST_CODE_TOO_LARGE;
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_sound(&changes[i])) {
            return HOLDFAST_CODE_INVALID;
        }
    }
    return HOLDFAST_CODE_OK;
}

static void fill_change(Wire__MemberChange *out, const struct holdfast_member_change *change) {
    wire__member_change__init(out);
    out->has_type = out->has_id = 1;
    out->type = (uint32_t)change->action;
    out->id = change->id;
    out->has_priority = change->action == HOLDFAST_MEMBER_ADD || change->action == HOLDFAST_MEMBER_PRIORITY;
    out->priority = change->priority;
    if (change->action == HOLDFAST_MEMBER_ADD) { /* protobuf-c only reads what it packs */
        out->name = (char *)change->name;
        out->peer_address = (char *)change->peer_address;
        out->client_address = (char *)change->client_address;
        out->has_thumbprint = out->has_unreachable = 1;
        out->unreachable = change->unreachable;
        out->thumbprint =
            (ProtobufCBinaryData){.len = HOLDFAST_THUMBPRINT_BYTES, .data = (uint8_t *)change->thumbprint};
    }
}

enum status encode__members(struct client_link *link, const struct client_request *request, uint64_t request_id,
                            uint32_t timeout_ms) {
    Wire__MemberRequest message = WIRE__MEMBER_REQUEST__INIT;
    Wire__MemberChange changes[HOLDFAST_MEMBER_CHANGES_MAX];
    Wire__MemberChange *pointers[HOLDFAST_MEMBER_CHANGES_MAX];
    message.has_action = message.has_timeout_ms = 1;
    message.timeout_ms = timeout_ms;
    switch (request->operation) {
    case CLIENT_CHANGE_MEMBERS:
        CHECK(request->change_count <= HOLDFAST_MEMBER_CHANGES_MAX);
        message.action = ACTION_CHANGE;
        for (size_t i = 0; i < request->change_count; i++) {
            fill_change(&changes[i], &request->changes[i]);
            pointers[i] = &changes[i];
        }
        message.n_changes = request->change_count;
        message.changes = pointers;
        break;
    case CLIENT_TRANSFER_LEADER:
    case CLIENT_REBUILD_MEMBER:
        message.action = request->operation == CLIENT_REBUILD_MEMBER ? ACTION_REBUILD : ACTION_TRANSFER;
        message.has_target = 1;
        message.target = request->transfer_target;
        break;
    default:
        CHECK(request->operation == CLIENT_LIST_MEMBERS);
        message.action = ACTION_LIST;
        message.has_local = request->read.local;
        message.local = request->read.local;
        break;
    }
    return connection_send(link->connection, FRAME_MEMBER, request_id, &message.base, NULL, 0);
}

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

void reply__copy_member(struct holdfast_member *out, const Wire__MemberStatus *member) {
    out->id = member->id;
    client_text_copy(out->name, sizeof out->name, member->name);
    client_text_copy(out->client_address, sizeof out->client_address, member->client_address);
    client_text_copy(out->peer_address, sizeof out->peer_address, member->peer_address);
    client_text_copy(out->role, sizeof out->role, member->role);
    client_text_copy(out->state, sizeof out->state, member->state);
    out->priority = member->priority <= UINT8_MAX ? (uint8_t)member->priority : UINT8_MAX;
    out->match = member->match;
    out->heard_ms_ago = member->has_heard_ms_ago ? member->heard_ms_ago : UINT64_MAX;
    out->incarnation = member->incarnation;
    out->returns = member->returns;
    out->has_thumbprint = member->thumbprint.len == sizeof out->thumbprint;
    if (out->has_thumbprint) {
        memcpy(out->thumbprint, member->thumbprint.data, sizeof out->thumbprint);
    }
}

enum status reply__members(struct client_request *request, const struct connection_frame *frame,
                           struct client_answer *answer, struct error *err) {
    struct client_core *core = request->core;
    const Wire__MemberReply *reply =
        (const Wire__MemberReply *)(const void *)wire_unpack(&core->arena, &wire__member_reply__descriptor,
                                                             frame->message);
    struct holdfast_members *members = arena_alloc(&core->arena, sizeof *members);
    if (reply == NULL || members == NULL || reply->n_members > HOLDFAST_MEMBERS_MAX) {
        return error_set(err, STATUS_CORRUPT, "an answer about the membership that can't be read");
    }
    *members = (struct holdfast_members){
        .leader_id = reply->leader_id,
        .term = reply->term,
        .commit = reply->commit,
        .index = reply->index,
        .committed = reply->committed,
        .joint = reply->joint,
        .transfer_target = reply->transfer_target,
    };
    for (size_t i = 0; i < reply->n_members; i++) {
        reply__copy_member(&members->members[members->member_count++], reply->members[i]);
    }
    answer->members = members;
    answer->result.revision = reply->index;
    return STATUS_OK;
}
