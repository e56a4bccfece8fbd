/*
 * One raft core without a network: its options, a cluster of three to be member of, and a leader that is alone.
 */
#ifndef HOLDFAST_TESTS_RAFT_FIXTURE_H
#define HOLDFAST_TESTS_RAFT_FIXTURE_H

#include "node/base/check.h"
#include "tests/unit/support/raft_node.h"
#include "tests/unit/support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct raft_config three_nodes = {.member_count = 3, .members = {{.id = 1}, {.id = 2}, {.id = 3}}};

static inline struct raft_options default_options(struct alloc *alloc) {
    struct raft_options options;
    raft_options_init(&options);
    options.alloc = alloc;
    options.id = 1;
    options.random_seed = 1;
    return options;
}

/* A leader alone in its cluster, for steps that need no network. */
static inline struct raft *single_leader(struct alloc *alloc, struct raft_update *update) {
    const struct raft_options options = default_options(alloc);
    const struct raft_saved saved = {.config = {.member_count = 1, .members = {{.id = 1}}}};
    struct raft *raft = NULL;
    CHECK(raft_new(&options, &saved, &raft) == STATUS_OK);
    CHECK(raft_start(raft, 0, update) == STATUS_OK);
    struct raft_event tick = {.type = RAFT_EVENT_TICK, .now_us = update->deadline_us};
    CHECK(raft_step(raft, &tick, update) == STATUS_OK);
    struct raft_event synced = {.type = RAFT_EVENT_SYNCED, .now_us = tick.now_us};
    synced.u.synced.term = update->term;
    synced.u.synced.vote = update->vote;
    CHECK(raft_step(raft, &synced, update) == STATUS_OK);
    CHECK(raft_role(raft) == RAFT_LEADER);
    return raft;
}

#endif
