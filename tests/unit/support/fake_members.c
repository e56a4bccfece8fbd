/* The membership of a played cluster: see fake_server.h. */
#include "tests/unit/support/fake_members.h"

#include "node/base/check.h"
#include "proto/client/holdfast.h"

#include <stdio.h>
#include <string.h>

enum { LIST = 0, CHANGE = 1, TRANSFER = 2 };

void fake_members_init(struct fake_members *members, uint32_t count) {
    memset(members, 0, sizeof *members);
    members->index = 5;
    for (uint32_t i = 0; i < count; i++) {
        struct fake_member *member = &members->members[members->count++];
        member->id = i + 1;
        (void)snprintf(member->role, sizeof member->role, "voter");
        (void)snprintf(member->name, sizeof member->name, "n%u", i + 1);
        (void)snprintf(member->peer_address, sizeof member->peer_address, "host-%u:4500", i + 1);
        (void)snprintf(member->client_address, sizeof member->client_address, "host-%u:4400", i + 1);
        memset(member->thumbprint, (int)i + 1, sizeof member->thumbprint);
    }
}

static struct fake_member *find(struct fake_members *members, uint64_t id) {
    for (uint32_t i = 0; i < members->count; i++) {
        if (members->members[i].id == id) {
            return &members->members[i];
        }
    }
    return NULL;
}

static const char *add(struct fake_members *members, const Wire__MemberChange *change) {
    if (find(members, change->id) != NULL) {
        return "a member has this id";
    }
    if (atomic_load(&members->newcomers_are_away) && !change->unreachable) {
        return "it can't be reached";
    }
    CHECK(members->count < FAKE_MEMBERS_MAX && change->thumbprint.len == 32);
    struct fake_member *member = &members->members[members->count++];
    memset(member, 0, sizeof *member);
    member->id = change->id;
    member->priority = change->priority;
    (void)snprintf(member->role, sizeof member->role, "learner");
    (void)snprintf(member->name, sizeof member->name, "%s", change->name);
    (void)snprintf(member->peer_address, sizeof member->peer_address, "%s", change->peer_address);
    (void)snprintf(member->client_address, sizeof member->client_address, "%s", change->client_address);
    memcpy(member->thumbprint, change->thumbprint.data, sizeof member->thumbprint);
    return NULL;
}

static const char *change_one(struct fake_members *members, const Wire__MemberChange *change) {
    if (change->type == HOLDFAST_MEMBER_ADD) {
        return add(members, change);
    }
    struct fake_member *member = find(members, change->id);
    if (member == NULL) {
        return "no member has this id";
    }
    switch (change->type) {
    case HOLDFAST_MEMBER_PROMOTE:
        if (strcmp(member->role, "learner") != 0) {
            return "the member is not a learner";
        }
        if (members->refusals > 0) {
            members->refusals--;
            return "the learner has not caught up with the log";
        }
        (void)snprintf(member->role, sizeof member->role, "voter");
        return NULL;
    case HOLDFAST_MEMBER_DEMOTE: (void)snprintf(member->role, sizeof member->role, "learner"); return NULL;
    case HOLDFAST_MEMBER_REMOVE:
        members->count--;
        memmove(member, member + 1, (size_t)(&members->members[members->count] - member) * sizeof *member);
        return NULL;
    default: member->priority = change->priority; return NULL;
    }
}

/* All of it or nothing. */
static const char *change_all(struct fake_members *members, const Wire__MemberRequest *request) {
    struct fake_members changed = *members;
    const char *refusal = NULL;
    for (size_t i = 0; i < request->n_changes && refusal == NULL; i++) {
        refusal = change_one(&changed, request->changes[i]);
    }
    if (refusal == NULL) {
        changed.index++;
        *members = changed;
    } else {
        members->refusals = changed.refusals;
    }
    return refusal;
}

static void fill_list(struct fake_members *members, int leader, Wire__MemberReply *reply) {
    reply->has_term = reply->has_commit = reply->has_committed = 1;
    reply->term = 7;
    reply->commit = 1000;
    reply->committed = 1;
    for (uint32_t i = 0; i < members->count; i++) {
        struct fake_member *member = &members->members[i];
        Wire__MemberStatus *out = &members->status[i];
        bool is_new = strcmp(member->role, "learner") == 0 && members->looks_until_heard > 0;
        wire__member_status__init(out);
        out->has_id = out->has_priority = out->has_match = out->has_thumbprint = 1;
        out->id = member->id;
        out->priority = member->priority;
        out->role = member->role;
        out->name = member->name;
        out->peer_address = member->peer_address;
        out->client_address = member->client_address;
        out->thumbprint = (ProtobufCBinaryData){sizeof member->thumbprint, member->thumbprint};
        out->match = is_new ? 0 : 990;
        out->has_heard_ms_ago = !is_new;
        out->heard_ms_ago = 12;
        out->state = (char *)(leader < 0 ? NULL : is_new ? "probe" : "replicate");
        members->pointers[i] = out;
    }
    if (members->looks_until_heard > 0) {
        members->looks_until_heard--;
    }
    reply->n_members = members->count;
    reply->members = members->pointers;
}

const char *fake_members_do(struct fake_members *members, const Wire__MemberRequest *request, _Atomic int *leader,
                            Wire__MemberReply *reply) {
    const char *refusal = NULL;
    if (request->action == CHANGE) {
        refusal = change_all(members, request);
    } else if (request->action == TRANSFER) {
        int now = atomic_load(leader);
        int next = request->target != 0 ? (int)request->target - 1 : (now + 1) % (int)members->count;
        refusal = now == next ? "the node leads already" : NULL;
        atomic_store(leader, next);
    }
    int leads = atomic_load(leader);
    reply->has_index = reply->has_leader_id = 1;
    reply->index = members->index;
    reply->leader_id = leads >= 0 ? (uint64_t)leads + 1 : 0;
    if (request->action == LIST) {
        fill_list(members, request->local ? -1 : leads, reply);
    }
    return refusal;
}
