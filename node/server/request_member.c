/*
 * Membership and leadership, for admins: who is a member, changes, the lead for another node.
 *
 * What is asked for is checked here as if it stood in a configuration file; whether it may be done now decides the
 * consensus actor, and here its reason gets what to do next. Only a leader answers, but for a list that is asked for as
 * this node knows it. A refusal that passes by itself is BUSY, which clients try again until their deadline.
 */
#include "node/server/clients_internal.h"

#include <stdio.h>

enum { ACTION_LIST, ACTION_CHANGE, ACTION_TRANSFER, ACTION_REBUILD, ACTION_COUNT };

struct list_request {
    struct consensus_status_query query;
    struct request *request;
    bool local;
};

struct change_request {
    struct consensus_change_query query;
    struct request *request;
    struct {
        char name[LIMIT_NAME_BYTES];
        char peer_address[LIMIT_ADDRESS_BYTES];
        char client_address[LIMIT_ADDRESS_BYTES];
        uint8_t thumbprint[RAFT_THUMBPRINT_BYTES];
    } added[LIMIT_MEMBERS]; /* what query.change.changes[i] points to */
};

/* ---- The list --------------------------------------------------------------------------------------------------- */

static void reply_list(struct request *request, const struct consensus_status *status) {
    Wire__MemberReply reply = WIRE__MEMBER_REPLY__INIT;
    Wire__MemberStatus members[LIMIT_MEMBERS];
    Wire__MemberStatus *pointers[LIMIT_MEMBERS];
    for (uint32_t i = 0; i < status->member_count; i++) {
        request_status__fill_member(&members[i], status, &status->members[i]);
        pointers[i] = &members[i];
    }
    SET(&reply, index, status->config_index);
    SET(&reply, leader_id, status->leader_id);
    SET(&reply, term, status->term);
    SET(&reply, commit, status->commit_index);
    SET(&reply, committed, status->config_is_committed);
    SET(&reply, joint, status->config_is_joint);
    SET(&reply, transfer_target, status->transfer_target);
    reply.n_members = status->member_count;
    reply.members = pointers;
    request__reply(request, FRAME_MEMBER_REPLY, &reply.base, NULL, 0);
}

static void on_listed(struct consensus_status_query *query) {
    struct list_request *asked = CONTAINER_OF(query, struct list_request, query);
    struct request *request = asked->request;
    struct alloc *alloc = request->clients->alloc;
    if (asked->local || query->status.role == RAFT_LEADER) {
        reply_list(request, &query->status);
    } else {
        bool is_known = query->status.leader_id != RAFT_NO_NODE;
        request__fail_by_status(request, is_known ? STATUS_NOT_LEADER : STATUS_UNAVAILABLE, false);
    }
    mem_free(alloc, asked);
}

static void list_members(struct client_connection *connection, const struct connection_frame *frame, bool local) {
    struct request *request = NULL;
    struct list_request *asked = request__take_question(connection, frame, sizeof *asked, &request);
    if (asked == NULL) {
        return;
    }
    asked->request = request;
    asked->local = local;
    asked->query.loop = connection->clients->options.loop;
    asked->query.done = on_listed;
    consensus_query_status(connection->clients->options.consensus, &asked->query);
}

/* ---- How a change ended ----------------------------------------------------------------------------------------- */

/* What to do about a refusal; NULL: it says enough. */
static const char *advice(enum raft_refusal refusal) {
    switch (refusal) {
    case RAFT_REFUSAL_WOULD_LOSE_QUORUM: return "start the members that are away, or add and promote others first";
    case RAFT_REFUSAL_NO_VOTERS: return "promote a learner first";
    case RAFT_REFUSAL_DUPLICATE_ID: return "an id is never used twice, not even by a node that comes back empty";
    case RAFT_REFUSAL_RETIRED_ID: return "take one above all that were ever used";
    case RAFT_REFUSAL_DUPLICATE_ADDRESS: return "remove the member that has it, or use another one";
    case RAFT_REFUSAL_DUPLICATE_NAME: return "choose another name";
    case RAFT_REFUSAL_DUPLICATE_CERTIFICATE: return "each member needs a certificate of its own";
    case RAFT_REFUSAL_UNKNOWN_NODE: return "list the members to see who there is";
    case RAFT_REFUSAL_LEARNER_LAGS: return "wait until the list of members shows that it keeps up";
    case RAFT_REFUSAL_NOT_A_LEARNER: return "it votes already";
    case RAFT_REFUSAL_NOT_A_VOTER: return "it has no vote";
    case RAFT_REFUSAL_TOO_MANY_MEMBERS: return "remove one first";
    case RAFT_REFUSAL_UNREACHABLE: return "start it, and check its address";
    default: return NULL;
    }
}

static bool passes_by_itself(enum raft_refusal refusal) {
    return refusal == RAFT_REFUSAL_CHANGE_IN_PROGRESS || refusal == RAFT_REFUSAL_TRANSFER_IN_PROGRESS ||
           refusal == RAFT_REFUSAL_NOTHING_COMMITTED;
}

static void refuse(struct request *request, enum raft_refusal refusal) {
    const char *next = advice(refusal);
    request__fail(request, passes_by_itself(refusal) ? STATUS_BUSY : STATUS_CONDITION, false, "%s%s%s",
                  raft_refusal_text(refusal), next != NULL ? ": " : "", next != NULL ? next : "");
}

static void on_changed(struct consensus_change_query *query) {
    struct change_request *asked = CONTAINER_OF(query, struct change_request, query);
    const struct consensus_change *change = &query->change;
    struct request *request = asked->request;
    struct alloc *alloc = request->clients->alloc;
    const char *what = change->is_transfer  ? "the transfer of the lead"
                       : change->is_rebuild ? "the order"
                                            : "the change of the membership";
    if (change->status == STATUS_OK) {
        Wire__MemberReply reply = WIRE__MEMBER_REPLY__INIT;
        SET(&reply, index, change->index);
        SET(&reply, leader_id, change->leader);
        request__reply(request, FRAME_MEMBER_REPLY, &reply.base, NULL, 0);
    } else if (change->unknown) {
        request__fail(request, change->status, true, "%s is begun, but not confirmed: it may still happen", what);
    } else if (change->status == STATUS_CONDITION &&
               (change->is_rebuild || (!change->is_transfer && change->refusal == RAFT_REFUSAL_UNREACHABLE))) {
        request__fail(request, STATUS_CONDITION, false, "%s", change->err.message);
    } else if (change->status == STATUS_CONDITION) {
        refuse(request, change->refusal);
    } else if (change->status == STATUS_TIMEOUT) {
        request__fail(request, STATUS_TIMEOUT, false, "%s came to nothing in its time", what);
    } else {
        request__fail_by_status(request, change->status, false);
    }
    mem_free(alloc, asked);
}

/* ---- What is asked for ------------------------------------------------------------------------------------------ */

static bool is_thumbprint(ProtobufCBinaryData bytes) {
    static const uint8_t zeroes[RAFT_THUMBPRINT_BYTES];
    return bytes.len == sizeof zeroes && memcmp(bytes.data, zeroes, sizeof zeroes) != 0;
}

/* NULL, or what is wrong. */
static const char *problem_of_added(const Wire__MemberChange *change) {
    if (change->name == NULL || !config_is_name(change->name)) {
        return "a member's name has 1 to 63 letters, digits, '-', '_' or '.'";
    }
    if (change->peer_address == NULL || change->client_address == NULL || !config_is_address(change->peer_address) ||
        !config_is_address(change->client_address)) {
        return "a member's addresses are like 192.0.2.7:4400, node-a:4400 or [2001:db8::7]:4400";
    }
    if (strcmp(change->peer_address, change->client_address) == 0) {
        return "a member has one address for its peers and another one for clients";
    }
    return is_thumbprint(change->thumbprint) ? NULL : "a member's thumbprint is the SHA-256 of its certificate";
}

static const char *problem_of_change(const Wire__MemberChange *change) {
    if (change->type < RAFT_CHANGE_ADD_LEARNER || change->type > RAFT_CHANGE_PRIORITY) {
        return "no change of the membership that this node knows";
    }
    if (change->id == RAFT_NO_NODE || change->id > CONFIG_ID_MAX) {
        return "a member's id is a number from 1 to 2^63";
    }
    if (change->priority > UINT8_MAX) {
        return "a member's priority is a number from 0 to 255";
    }
    return change->type == RAFT_CHANGE_ADD_LEARNER ? problem_of_added(change) : NULL;
}

static const char *problem_of(const Wire__MemberRequest *member) {
    if (member->action >= ACTION_COUNT) {
        return "nothing that this node does about members";
    }
    if (member->action == ACTION_REBUILD && (member->target == RAFT_NO_NODE || member->target > CONFIG_ID_MAX)) {
        return "a member's id is a number from 1 to 2^63";
    }
    if (member->action != ACTION_CHANGE) {
        return member->n_changes == 0 ? NULL : "changes where none are asked for";
    }
    if (member->n_changes == 0 || member->n_changes > LIMIT_MEMBERS) {
        return "a change of the membership has 1 to 9 parts";
    }
    const char *problem = NULL;
    for (size_t i = 0; i < member->n_changes && problem == NULL; i++) {
        problem = problem_of_change(member->changes[i]);
    }
    return problem;
}
static_assert(LIMIT_MEMBERS == 9 && LIMIT_NAME_BYTES == 64, "the messages say so");

/* Of a sound change; its texts are copied, the frame is soon gone. */
static void fill_change(struct change_request *asked, uint32_t at, const Wire__MemberChange *from) {
    struct raft_change *change = &asked->query.change.changes[at];
    *change = (struct raft_change){.type = (enum raft_change_type)from->type,
                                   .id = from->id,
                                   .priority = (uint8_t)from->priority};
    asked->query.change.unreachable_too[at] = from->unreachable;
    if (change->type != RAFT_CHANGE_ADD_LEARNER) {
        return;
    }
    (void)snprintf(asked->added[at].name, sizeof asked->added[at].name, "%s", from->name);
    (void)snprintf(asked->added[at].peer_address, sizeof asked->added[at].peer_address, "%s", from->peer_address);
    (void)snprintf(asked->added[at].client_address, sizeof asked->added[at].client_address, "%s", from->client_address);
    memcpy(asked->added[at].thumbprint, from->thumbprint.data, sizeof asked->added[at].thumbprint);
    change->name = asked->added[at].name;
    change->address = asked->added[at].peer_address;
    change->client_address = asked->added[at].client_address;
    change->thumbprint = asked->added[at].thumbprint;
}

static void change_members(struct client_connection *connection, const struct connection_frame *frame,
                           const Wire__MemberRequest *member) {
    struct clients *clients = connection->clients;
    struct request *request = NULL;
    struct change_request *asked = request__take_question(connection, frame, sizeof *asked, &request);
    if (asked == NULL) {
        return;
    }
    struct consensus_change *change = &asked->query.change;
    asked->request = request;
    asked->query.loop = clients->options.loop;
    asked->query.done = on_changed;
    change->is_transfer = member->action == ACTION_TRANSFER;
    change->is_rebuild = member->action == ACTION_REBUILD;
    change->target = change->is_transfer || change->is_rebuild ? member->target : RAFT_NO_NODE;
    change->deadline_us = request__deadline_us(clients, member->timeout_ms);
    change->change_count = (uint32_t)member->n_changes;
    for (uint32_t i = 0; i < change->change_count; i++) {
        fill_change(asked, i, member->changes[i]);
    }
    log_event(clients->options.logger, LOG_INFO, "member.asked", "by=%s what=%s parts=%u first=%llu",
              connection->identity.name,
              change->is_transfer  ? "transfer"
              : change->is_rebuild ? "rebuild"
                                   : "change",
              change->change_count,
              (unsigned long long)(change->change_count == 0 ? change->target : change->changes[0].id));
    consensus_ask_change(clients->options.consensus, &asked->query);
}

void request_member__member(struct client_connection *connection, const struct connection_frame *frame) {
    const Wire__MemberRequest *member = request__unpack(connection, frame, &wire__member_request__descriptor, "member");
    if (member == NULL) {
        return;
    }
    const char *problem = problem_of(member);
    if (problem != NULL) {
        client_connection__send_error(connection, frame->request_id, STATUS_INVALID, false, problem);
    } else if (member->action == ACTION_LIST) {
        list_members(connection, frame, member->local);
    } else {
        change_members(connection, frame, member);
    }
}
