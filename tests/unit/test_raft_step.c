/*
 * The core's edges: how long elections wait, what raft_new and recovery refuse, installed snapshots, misuse, changes of
 * membership that clash. Breaks if bad input is accepted, or a refused step changes something.
 */
#include "tests/unit/raft_fixture.h"

/* ---- Election timeouts --------------------------------------------------------------------------------------------
 */

/* Paper, section 5.2: drawn at random from a range, anew for each attempt, so that one of several wakes first. */
static void test_raft_election_timeouts_are_drawn_from_one_to_two(void **state) {
    (void)state;
    enum { NODES = 400, EIGHTHS = 8 };
    const struct raft_saved saved = {.config = three_nodes};
    uint32_t first[EIGHTHS] = {0};
    uint32_t second[EIGHTHS] = {0};
    uint32_t same = 0;
    for (uint32_t i = 0; i < NODES; i++) {
        struct raft_options options = default_options(alloc_system());
        options.random_seed = i + 1;
        struct raft *raft = NULL;
        struct raft_update update;
        assert_int_equal(raft_new(&options, &saved, &raft), STATUS_OK);
        assert_int_equal(raft_start(raft, 0, &update), STATUS_OK);
        uint64_t waited_us = update.deadline_us;
        assert_true(waited_us >= options.election_timeout_us && waited_us < 2 * options.election_timeout_us);
        first[(waited_us - options.election_timeout_us) * EIGHTHS / options.election_timeout_us]++;
        const struct raft_event tick = {.type = RAFT_EVENT_TICK, .now_us = waited_us};
        assert_int_equal(raft_step(raft, &tick, &update), STATUS_OK);
        assert_int_equal(raft_role(raft), RAFT_PRECANDIDATE);
        uint64_t again_us = update.deadline_us - waited_us;
        assert_true(again_us >= options.election_timeout_us && again_us < 2 * options.election_timeout_us);
        second[(again_us - options.election_timeout_us) * EIGHTHS / options.election_timeout_us]++;
        same += again_us == waited_us;
        raft_free(raft);
    }
    for (uint32_t i = 0; i < EIGHTHS; i++) { /* 50 each, within five standard deviations */
        assert_in_range(first[i], 50 - 33, 50 + 33);
        assert_in_range(second[i], 50 - 33, 50 + 33);
    }
    assert_in_range(same, 0, 2);
}

/* ---- raft_new and recovery -------------------------------------------------------------------------------------- */

static void expect_new(const struct raft_options *options, const struct raft_saved *saved, enum status wanted) {
    struct raft *raft = NULL;
    assert_int_equal(raft_new(options, saved, &raft), wanted);
    assert_true((raft != NULL) == (wanted == STATUS_OK));
    raft_free(raft);
}

static void test_raft_new_senseless_options_are_refused(void **state) {
    (void)state;
    const struct raft_saved saved = {.config = three_nodes};
    const struct raft_options good = default_options(alloc_system());
    expect_new(&good, &saved, STATUS_OK);
    struct raft_options bad[8];
    for (size_t i = 0; i < 8; i++) {
        bad[i] = good;
    }
    bad[0].id = RAFT_NO_NODE;
    bad[1].heartbeat_interval_us = 0;
    bad[2].heartbeat_interval_us = bad[2].election_timeout_us;
    bad[3].append_bytes_max = 0;
    bad[4].inflight_appends_max = 0;
    bad[5].inflight_appends_max = UINT32_MAX;
    bad[6].inflight_bytes_max = 0;
    bad[7].uncommitted_bytes_max = 0;
    for (size_t i = 0; i < 8; i++) {
        expect_new(&bad[i], &saved, STATUS_INVALID);
    }
    expect_new(&good, &(struct raft_saved){.term = 1}, STATUS_OK); /* no members: it waits to be added */
    const struct raft_config nobody_votes = {.member_count = 1, .members = {{.id = 1, .role = RAFT_LEARNER}}};
    expect_new(&good, &(struct raft_saved){.config = nobody_votes}, STATUS_INVALID);
}

static void test_raft_new_contradicting_saved_state_is_corrupt(void **state) {
    (void)state;
    const struct raft_options options = default_options(alloc_system());
    const struct raft_saved saved[] = {
        {.config = three_nodes, .term = 1, .log_start_index = 5, .log_start_term = 1, .commit = 4},
        {.config = three_nodes, .term = 1, .log_start_index = 5, .log_start_term = UINT64_MAX, .commit = 5},
        {.config = three_nodes, .term = 1, .log_start_index = 0, .log_start_term = 1},
        {.config = three_nodes, .term = 0, .vote = 1},
        {.config = three_nodes, .term = UINT64_MAX},
        {.config = three_nodes, .term = 1, .commit = 4, .config_index = 5},
    };
    for (size_t i = 0; i < sizeof saved / sizeof saved[0]; i++) {
        expect_new(&options, &saved[i], STATUS_CORRUPT);
    }
}

/* The manifest of an installed snapshot may know a later term than the log: a vote of the earlier one isn't of it. */
static void test_h21_raft_new_frontier_of_later_term_is_adopted(void **state) {
    (void)state;
    const struct raft_options options = default_options(alloc_system());
    const struct raft_saved saved = {
        .config = three_nodes, .term = 2, .vote = 3, .log_start_index = 7, .log_start_term = 4, .commit = 7};
    struct raft *raft = NULL;
    struct raft_update update;
    assert_int_equal(raft_new(&options, &saved, &raft), STATUS_OK);
    assert_int_equal(raft_start(raft, 1, &update), STATUS_OK);
    assert_int_equal(raft_term(raft), 4);
    assert_int_equal(raft_vote(raft), RAFT_NO_NODE);
    raft_free(raft);
}

static void test_raft_load_entry_that_does_not_follow_is_corrupt(void **state) {
    (void)state;
    const struct raft_options options = default_options(alloc_system());
    const struct raft_saved saved = {
        .config = three_nodes, .term = 5, .log_start_index = 10, .log_start_term = 2, .commit = 10};
    struct raft *raft = NULL;
    assert_int_equal(raft_new(&options, &saved, &raft), STATUS_OK);
    const struct raft_entry good = {.index = 11, .term = 3, .size_bytes = 1, .kind = RAFT_ENTRY_DATA};
    assert_int_equal(raft_load_entry(raft, &good), STATUS_OK);
    const struct raft_entry bad[] = {
        {.index = 11, .term = 3, .size_bytes = 1},          {.index = 13, .term = 3, .size_bytes = 1},
        {.index = 12, .term = 2, .size_bytes = 1},          {.index = 12, .term = 6, .size_bytes = 1},
        {.index = 12, .term = 3, .size_bytes = UINT32_MAX}, {.index = 12, .term = 0, .size_bytes = 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(raft_load_entry(raft, &bad[i]), STATUS_CORRUPT);
    }
    /* One that brings a configuration has it, and one that makes sense; older ones than what is known needn't. */
    const struct raft_config senseless = {.joint = true, .member_count = 1, .members = {{.id = 1}}};
    struct raft_entry config_entry = {.index = 12, .term = 3, .size_bytes = 1, .kind = RAFT_ENTRY_CONFIG};
    assert_int_equal(raft_load_entry(raft, &config_entry), STATUS_CORRUPT);
    config_entry.config = &senseless;
    assert_int_equal(raft_load_entry(raft, &config_entry), STATUS_CORRUPT);
    assert_int_equal(raft_last_index(raft), 11);
    struct raft_update update;
    assert_int_equal(raft_start(raft, 1, &update), STATUS_OK);
    assert_int_equal(raft_synced_index(raft), 11);
    assert_int_equal(raft_first_index(raft), 11);
    assert_int_equal(update.commit_index, 10);
    assert_true(update.deadline_us > options.election_timeout_us);
    assert_true(update.deadline_us <= 1 + 2 * options.election_timeout_us);
    raft_free(raft);
}

static void test_raft_start_log_shorter_than_commit_is_corrupt(void **state) {
    (void)state;
    const struct raft_options options = default_options(alloc_system());
    const struct raft_saved short_log = {.config = three_nodes, .term = 1, .commit = 1};
    /* Without the term of the last entry votes couldn't be given: an older log would look newer. */
    const struct raft_saved unknown_term = {.config = three_nodes, .term = 1, .commit = 7, .log_start_index = 7};
    const struct raft_saved *saved[] = {&short_log, &unknown_term};
    for (size_t i = 0; i < 2; i++) {
        struct raft *raft = NULL;
        struct raft_update update;
        assert_int_equal(raft_new(&options, saved[i], &raft), STATUS_OK);
        assert_int_equal(raft_start(raft, 1, &update), STATUS_CORRUPT);
        raft_free(raft);
    }
    raft_free(NULL);
}

/* ---- Installed snapshots ---------------------------------------------------------------------------------------- */

/* n1 follows n2 in term 5; its log is 1..4 of term 5, of which nothing is durable. */
static struct raft *follower_that_writes(struct raft_update *update, struct raft_entry entries[4]) {
    const struct raft_options options = default_options(alloc_system());
    const struct raft_saved saved = {.config = three_nodes};
    struct raft *raft = NULL;
    CHECK(raft_new(&options, &saved, &raft) == STATUS_OK);
    CHECK(raft_start(raft, 0, update) == STATUS_OK);
    for (uint32_t i = 0; i < 4; i++) {
        entries[i] = (struct raft_entry){.index = i + 1, .term = 5, .size_bytes = 50, .kind = RAFT_ENTRY_DATA};
    }
    const struct raft_message message = {
        .type = RAFT_APPEND, .from = 2, .to = 1, .term = 5, .entry_count = 4, .entries = entries};
    const struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .now_us = 5, .u.message = &message};
    CHECK(raft_step(raft, &event, update) == STATUS_OK);
    CHECK(raft_last_index(raft) == 4 && raft_synced_index(raft) == 0);
    return raft;
}

static enum status install(struct raft *raft, uint64_t index, uint64_t term, struct raft_update *update) {
    const struct raft_event event = {.type = RAFT_EVENT_INSTALLED,
                                     .now_us = 6,
                                     .u.installed = {.index = index, .term = term, .config = &three_nodes}};
    return raft_step(raft, &event, update);
}

/* The group with entries 1..4 completes after a snapshot up to (2, 6) replaced the log, which then grew back to 4. */
static void test_h19_raft_install_late_sync_counts_nothing(void **state) {
    (void)state;
    struct raft_entry entries[4];
    struct raft_update update;
    struct raft *raft = follower_that_writes(&update, entries);
    assert_true(raft_wants_snapshot(raft, 2, 6));
    assert_int_equal(install(raft, 2, 6, &update), STATUS_OK);
    assert_int_equal(raft_term(raft), 6);
    assert_true(update.save_state);
    assert_int_equal(raft_last_index(raft), 2);
    assert_int_equal(update.commit_index, 2);
    assert_false(raft_wants_snapshot(raft, 2, 6));
    struct raft_event synced = {.type = RAFT_EVENT_SYNCED, .now_us = 7};
    synced.u.synced.term = 5;
    synced.u.synced.last_index = 4;
    synced.u.synced.last_term = 5;
    assert_int_equal(raft_step(raft, &synced, &update), STATUS_OK);
    assert_int_equal(raft_synced_index(raft), 2);
    entries[2].term = 6;
    entries[3].term = 6;
    const struct raft_message message = {.type = RAFT_APPEND,
                                         .from = 3,
                                         .to = 1,
                                         .term = 6,
                                         .index = 2,
                                         .log_term = 6,
                                         .entry_count = 2,
                                         .entries = entries + 2};
    const struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .now_us = 8, .u.message = &message};
    assert_int_equal(raft_step(raft, &event, &update), STATUS_OK);
    assert_int_equal(update.append.first_index, 3);
    synced.now_us = event.now_us;
    assert_int_equal(raft_step(raft, &synced, &update), STATUS_OK);
    assert_int_equal(raft_synced_index(raft), 2);
    assert_int_equal(update.message_count, 0);
    raft_free(raft);
}

/* What a peer may have made up is refused whole, and an old snapshot is nothing. */
static void test_raft_install_senseless_is_refused(void **state) {
    (void)state;
    struct raft_entry entries[4];
    struct raft_update update;
    struct raft *raft = follower_that_writes(&update, entries);
    const uint64_t bad[][2] = {{0, 0}, {0, 5}, {3, 0}, {UINT64_MAX, 5}, {3, UINT64_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(install(raft, bad[i][0], bad[i][1], &update), STATUS_INVALID);
        assert_int_equal(raft_last_index(raft), 4);
    }
    const struct raft_config nobody = {.member_count = 0};
    struct raft_event event = {.type = RAFT_EVENT_INSTALLED,
                               .now_us = 6,
                               .u.installed = {.index = 9, .term = 5, .config = &nobody}};
    assert_int_equal(raft_step(raft, &event, &update), STATUS_INVALID);
    event.u.installed.config = &three_nodes;
    event.u.installed.config_index = 10;
    assert_int_equal(raft_step(raft, &event, &update), STATUS_INVALID);
    assert_int_equal(raft_commit_index(raft), 0);
    /* Another entry 3 of our term or an earlier one, though what we have matches the leader: nobody of this cluster has
     * such a snapshot. (Found by fuzz_raft: the log ended below what matched.) */
    assert_false(raft_wants_snapshot(raft, 3, 4));
    assert_int_equal(install(raft, 3, 4, &update), STATUS_INVALID);
    assert_int_equal(raft_last_index(raft), 4);
    assert_int_equal(install(raft, 3, 5, &update), STATUS_OK);
    assert_int_equal(install(raft, 2, 5, &update), STATUS_OK);
    assert_int_equal(raft_commit_index(raft), 3);
    assert_int_equal(raft_last_index(raft), 4);
    raft_free(raft);
}

/* A CONFIG entry without its configuration, or with a senseless one, is an APPEND that no correct peer sends. */
static void test_raft_append_config_without_members_is_refused(void **state) {
    (void)state;
    struct raft_entry entries[4];
    struct raft_update update;
    struct raft *raft = follower_that_writes(&update, entries);
    const struct raft_config senseless = {.joint = true, .member_count = 1, .members = {{.id = 1}}};
    const struct raft_config *configs[] = {NULL, &senseless};
    for (size_t i = 0; i < 2; i++) {
        const struct raft_entry entry = {
            .index = 5, .term = 5, .size_bytes = 50, .kind = RAFT_ENTRY_CONFIG, .config = configs[i]};
        const struct raft_message message = {.type = RAFT_APPEND,
                                             .from = 2,
                                             .to = 1,
                                             .term = 5,
                                             .index = 4,
                                             .log_term = 5,
                                             .entry_count = 1,
                                             .entries = &entry};
        const struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .now_us = 5, .u.message = &message};
        assert_int_equal(raft_step(raft, &event, &update), STATUS_INVALID);
        assert_int_equal(raft_last_index(raft), 4);
        assert_false(update.membership_changed);
    }
    raft_free(raft);
}

/* ---- Misuse ----------------------------------------------------------------------------------------------------- */

static void trim_uncommitted(void *context) {
    struct raft_update update;
    struct raft_event event = {.type = RAFT_EVENT_TRIMMED, .now_us = UINT32_MAX, .u.trimmed_index = 1};
    CHECK(raft_step(context, &event, &update) == STATUS_OK);
}

static void go_back_in_time(void *context) {
    struct raft_update update;
    struct raft_event event = {.type = RAFT_EVENT_TICK, .now_us = 0};
    CHECK(raft_step(context, &event, &update) == STATUS_OK);
}

static void test_raft_step_misuse_aborts(void **state) {
    (void)state;
    struct raft_update update;
    struct raft *raft = single_leader(alloc_system(), &update);
    assert_int_equal(raft_commit_index(raft), 0);
    assert_true(test_aborts(trim_uncommitted, raft));
    assert_true(test_aborts(go_back_in_time, raft));
    raft_free(raft);
}

/* Two voters; node 1 leads and has committed its first entry. */
static struct raft *leader_of_two(struct alloc *alloc, struct raft_update *update) {
    const struct raft_options options = default_options(alloc);
    const struct raft_saved saved = {
        .config = {.member_count = 2, .members = {{.id = 1, .address = "h:1"}, {.id = 2, .address = "h:2"}}}};
    struct raft *raft = NULL;
    CHECK(raft_new(&options, &saved, &raft) == STATUS_OK);
    CHECK(raft_start(raft, 0, update) == STATUS_OK);
    uint64_t now_us = update->deadline_us;
    const struct raft_message replies[] = {
        {.type = RAFT_PREVOTE_REPLY, .from = 2, .to = 1, .term = 1},
        {.type = RAFT_VOTE_REPLY, .from = 2, .to = 1, .term = 1},
        {.type = RAFT_APPEND_REPLY, .from = 2, .to = 1, .term = 1, .index = 1},
    };
    struct raft_event events[] = {
        {.type = RAFT_EVENT_TICK, .now_us = now_us},
        {.type = RAFT_EVENT_MESSAGE, .now_us = now_us, .u.message = &replies[0]},
        {.type = RAFT_EVENT_SYNCED, .now_us = now_us, .u.synced = {.term = 1, .vote = 1}},
        {.type = RAFT_EVENT_MESSAGE, .now_us = now_us, .u.message = &replies[1]},
        {.type = RAFT_EVENT_SYNCED,
         .now_us = now_us,
         .u.synced = {.term = 1, .vote = 1, .last_index = 1, .last_term = 1}},
        {.type = RAFT_EVENT_MESSAGE, .now_us = now_us, .u.message = &replies[2]},
    };
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        CHECK(raft_step(raft, &events[i], update) == STATUS_OK);
    }
    CHECK(raft_role(raft) == RAFT_LEADER && raft_commit_index(raft) == 1);
    return raft;
}

/* Who leaves by a change is a member of the joint configuration still: a newcomer can't have what is its own. */
static void test_raft_change_newcomer_that_takes_a_leaving_voters_place_is_refused(void **state) {
    (void)state;
    struct raft_update update;
    struct raft *raft = leader_of_two(alloc_system(), &update);
    struct raft_change changes[] = {{.type = RAFT_CHANGE_REMOVE, .id = 2},
                                    {.type = RAFT_CHANGE_ADD_LEARNER, .id = 3, .address = "h:2"}};
    struct raft_event event = {.type = RAFT_EVENT_CHANGE, .now_us = 10 * 1000 * 1000};
    event.u.change.changes = changes;
    event.u.change.change_count = 2;
    assert_int_equal(raft_step(raft, &event, &update), STATUS_CONDITION);
    assert_int_equal(update.refusal, RAFT_REFUSAL_DUPLICATE_ADDRESS);
    changes[1] = (struct raft_change){.type = RAFT_CHANGE_ADD_LEARNER, .id = 2};
    assert_int_equal(raft_step(raft, &event, &update), STATUS_CONDITION);
    assert_int_equal(update.refusal, RAFT_REFUSAL_DUPLICATE_ID);
    static const uint8_t thumbprint[RAFT_THUMBPRINT_BYTES] = {5};
    changes[0] = (struct raft_change){
        .type = RAFT_CHANGE_ADD_LEARNER, .id = 4, .name = "n4", .client_address = "h:9", .thumbprint = thumbprint};
    const struct {
        struct raft_change change;
        enum raft_refusal refusal;
    } clashes[] = {
        {{.name = "n4"}, RAFT_REFUSAL_DUPLICATE_NAME},
        {{.client_address = "h:9"}, RAFT_REFUSAL_DUPLICATE_ADDRESS},
        {{.thumbprint = thumbprint}, RAFT_REFUSAL_DUPLICATE_CERTIFICATE},
    };
    for (size_t i = 0; i < sizeof clashes / sizeof clashes[0]; i++) {
        changes[1] = clashes[i].change;
        changes[1].type = RAFT_CHANGE_ADD_LEARNER;
        changes[1].id = 5;
        assert_int_equal(raft_step(raft, &event, &update), STATUS_CONDITION);
        assert_int_equal(update.refusal, clashes[i].refusal);
    }
    event.u.change.change_count = 1;
    assert_int_equal(raft_step(raft, &event, &update), STATUS_OK);
    const struct raft_member *member = &raft_membership(raft)->members[2];
    assert_string_equal(member->name, "n4");
    assert_string_equal(member->client_address, "h:9");
    assert_memory_equal(member->thumbprint, thumbprint, sizeof thumbprint);
    raft_free(raft);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raft_election_timeouts_are_drawn_from_one_to_two),
        cmocka_unit_test(test_raft_new_senseless_options_are_refused),
        cmocka_unit_test(test_raft_new_contradicting_saved_state_is_corrupt),
        cmocka_unit_test(test_h21_raft_new_frontier_of_later_term_is_adopted),
        cmocka_unit_test(test_raft_load_entry_that_does_not_follow_is_corrupt),
        cmocka_unit_test(test_raft_start_log_shorter_than_commit_is_corrupt),
        cmocka_unit_test(test_h19_raft_install_late_sync_counts_nothing),
        cmocka_unit_test(test_raft_install_senseless_is_refused),
        cmocka_unit_test(test_raft_append_config_without_members_is_refused),
        cmocka_unit_test(test_raft_step_misuse_aborts),
        cmocka_unit_test(test_raft_change_newcomer_that_takes_a_leaving_voters_place_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
