/* Who is in a played cluster, and what becomes of requests about that: for fake_server.c. Owner: its loop. */
#ifndef HOLDFAST_TESTS_FAKE_MEMBERS_H
#define HOLDFAST_TESTS_FAKE_MEMBERS_H

#include "node/base/limits.h"
#include "proto/wire.pb-c.h"

#include <stdatomic.h>
#include <stdbool.h>

enum { FAKE_MEMBERS_MAX = 9 };

struct fake_member {
    uint64_t id;
    char role[16];
    uint32_t priority;
    char name[LIMIT_NAME_BYTES];
    char peer_address[LIMIT_ADDRESS_BYTES];
    char client_address[LIMIT_ADDRESS_BYTES];
    uint8_t thumbprint[32];
};

struct fake_members {
    uint32_t count;
    struct fake_member members[FAKE_MEMBERS_MAX];
    uint64_t index;
    _Atomic uint32_t looks_until_heard; /* any; lists in which a learner isn't heard yet */
    _Atomic uint32_t refusals;          /* any; promotions that are refused */
    _Atomic bool newcomers_are_away;    /* any; they are refused, unless they may be unreachable */
    _Atomic uint32_t lost_answers;      /* any; changes and transfers whose answer gets lost with its connection */
    Wire__MemberStatus status[FAKE_MEMBERS_MAX];
    Wire__MemberStatus *pointers[FAKE_MEMBERS_MAX];
};

/* Voters n1, n2, ... with the ids 1, 2, ... */
void fake_members_init(struct fake_members *members, uint32_t count);
/* Does it. NULL, with the reply filled in (its parts live as long as members, until the next request), or why it is
 * refused. Node i leads if *leader is i. */
const char *fake_members_do(struct fake_members *members, const Wire__MemberRequest *request, _Atomic int *leader,
                            Wire__MemberReply *reply);

#endif
