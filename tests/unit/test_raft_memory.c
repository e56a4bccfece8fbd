/*
 * The core's memory: it runs out at every place, and a steady state needs none. Breaks if a failed step changes
 * something or leaks, or a step allocates when nothing grows.
 */
#include "tests/unit/raft_fixture.h"

#include <time.h>

/* ---- Memory ----------------------------------------------------------------------------------------------------- */

static void test_raft_new_without_memory_leaks_nothing(void **state) {
    (void)state;
    struct test_alloc alloc;
    test_alloc_init(&alloc);
    const struct raft_options options = default_options(&alloc.base);
    const struct raft_saved saved = {.config = three_nodes};
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t fail = 1; status != STATUS_OK; fail++) {
        struct raft *raft = NULL;
        test_alloc_fail(&alloc, fail, false);
        status = raft_new(&options, &saved, &raft);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        raft_free(raft);
        assert_int_equal(alloc.live_blocks, 0);
    }
}

/* The step with every allocation of it failing once, and then with none. How many failed, each without a trace. */
static uint32_t step_without_memory(struct test_alloc *alloc, struct raft *raft, const struct raft_event *event,
                                    struct raft_update *update) {
    const uint64_t last_index = raft_last_index(raft);
    const uint64_t term = raft_term(raft);
    for (uint32_t fail = 1;; fail++) {
        test_alloc_fail(alloc, fail, false);
        enum status status = raft_step(raft, event, update);
        test_alloc_fail(alloc, 0, false);
        if (status == STATUS_OK) {
            return fail - 1;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_int_equal(raft_last_index(raft), last_index);
        assert_int_equal(raft_term(raft), term);
        assert_int_equal(update->append.count, 0);
        assert_int_equal(update->message_count, 0);
        assert_false(update->save_state);
        assert_false(update->membership_changed);
    }
}

static void test_raft_step_without_memory_changes_nothing(void **state) {
    (void)state;
    struct test_alloc alloc;
    struct raft_update update;
    struct raft_entry entries[5000];
    test_alloc_init(&alloc);
    struct raft *raft = single_leader(&alloc.base, &update);
    memset(entries, 0, sizeof entries);
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE, .now_us = 10 * 1000 * 1000};
    event.u.propose.entries = entries;
    event.u.propose.entry_count = 5000;
    uint32_t failures = 0;
    for (uint64_t round = 0; round < 6; round++) {
        uint64_t last = raft_last_index(raft);
        failures += step_without_memory(&alloc, raft, &event, &update);
        assert_int_equal(update.append.count, 5000);
        assert_int_equal(raft_last_index(raft), last + 5000);
    }
    assert_true(failures >= 6);
    raft_free(raft);
    assert_int_equal(alloc.live_blocks, 0);
}

/* The room for a configuration is made before it is appended, on both sides. */
static void test_raft_change_without_memory_changes_nothing(void **state) {
    (void)state;
    struct test_alloc alloc;
    struct raft_update update;
    test_alloc_init(&alloc);
    struct raft *raft = single_leader(&alloc.base, &update);
    const struct raft_event synced = {.type = RAFT_EVENT_SYNCED,
                                      .now_us = 10 * 1000 * 1000,
                                      .u.synced = {.term = 1, .vote = 1, .last_index = 1, .last_term = 1}};
    assert_int_equal(raft_step(raft, &synced, &update), STATUS_OK);
    const struct raft_change change = {.type = RAFT_CHANGE_ADD_LEARNER, .id = 2, .address = "h:2"};
    struct raft_event event = {.type = RAFT_EVENT_CHANGE, .now_us = synced.now_us};
    event.u.change.changes = &change;
    event.u.change.change_count = 1;
    assert_int_equal(raft_commit_index(raft), 1);
    assert_int_equal(raft_step(raft, &event, &update), STATUS_OK);
    assert_int_equal(update.append.source, RAFT_APPEND_CONFIG);
    assert_int_equal(raft_membership(raft)->member_count, 2);
    /* Many configurations above what a follower knows to be committed: the list of them grows. */
    struct raft *follower = NULL;
    const struct raft_options options = default_options(&alloc.base);
    const struct raft_saved saved = {.config = three_nodes};
    assert_int_equal(raft_new(&options, &saved, &follower), STATUS_OK);
    assert_int_equal(raft_start(follower, 0, &update), STATUS_OK);
    struct raft_entry entries[100];
    for (uint32_t i = 0; i < 100; i++) {
        entries[i] = (struct raft_entry){
            .index = i + 1, .term = 1, .size_bytes = 99, .kind = RAFT_ENTRY_CONFIG, .config = &three_nodes};
    }
    const struct raft_message message = {
        .type = RAFT_APPEND, .from = 2, .to = 1, .term = 1, .entry_count = 100, .entries = entries};
    const struct raft_event append = {.type = RAFT_EVENT_MESSAGE, .now_us = 5, .u.message = &message};
    assert_true(step_without_memory(&alloc, follower, &append, &update) >= 2);
    assert_int_equal(raft_last_index(follower), 100);
    raft_free(follower);
    raft_free(raft);
    assert_int_equal(alloc.live_blocks, 0);
}

/* The follower's side: a whole APPEND, with the cut and many terms, or nothing of it. */
static void test_raft_append_without_memory_changes_nothing(void **state) {
    (void)state;
    struct test_alloc alloc;
    struct raft_update update;
    struct raft_entry entries[6000];
    test_alloc_init(&alloc);
    const struct raft_options options = default_options(&alloc.base);
    const struct raft_saved saved = {.config = three_nodes};
    struct raft *raft = NULL;
    assert_int_equal(raft_new(&options, &saved, &raft), STATUS_OK);
    assert_int_equal(raft_start(raft, 0, &update), STATUS_OK);
    for (uint32_t i = 0; i < 6000; i++) {
        entries[i] = (struct raft_entry){.index = i + 1, .term = 1 + i / 10, .size_bytes = 50, .kind = RAFT_ENTRY_DATA};
    }
    const struct raft_message message = {
        .type = RAFT_APPEND, .from = 2, .to = 1, .term = 700, .entry_count = 6000, .entries = entries};
    const struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .now_us = 5, .u.message = &message};
    assert_true(step_without_memory(&alloc, raft, &event, &update) >= 3);
    assert_int_equal(raft_last_index(raft), 6000);
    assert_int_equal(raft_term_at(raft, 6000), 600);
    raft_free(raft);
    assert_int_equal(alloc.live_blocks, 0);
}

/* ---- Cost ------------------------------------------------------------------------------------------------------- */

enum { PIPE_ENTRIES = 30, PIPE_ROUNDS = 20000 };

struct pipe {
    struct raft *leader;
    struct raft *follower;
    struct raft_update update;
    struct raft_entry entries[PIPE_ENTRIES];
    uint64_t now_us;
    uint64_t leader_ns;
    uint64_t follower_ns;
};

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t step_timed(struct pipe *pipe, struct raft *raft, struct raft_event *event) {
    event->now_us = ++pipe->now_us;
    uint64_t start_ns = clock_ns();
    CHECK(raft_step(raft, event, &pipe->update) == STATUS_OK);
    return clock_ns() - start_ns;
}

static void sync_all(struct pipe *pipe, struct raft *raft, uint64_t *ns) {
    struct raft_event event = {.type = RAFT_EVENT_SYNCED};
    event.u.synced.term = raft_term(raft);
    event.u.synced.vote = raft_vote(raft);
    event.u.synced.last_index = raft_last_index(raft);
    event.u.synced.last_term = raft_term_at(raft, raft_last_index(raft));
    *ns += step_timed(pipe, raft, &event);
}

/* Hands the update's messages for the other of the two over, with entries that are in pipe->entries. */
static void hand_over(struct pipe *pipe, struct raft *to, uint64_t *ns) {
    struct raft_message messages[16];
    uint32_t count = 0;
    for (uint32_t i = 0; i < pipe->update.message_count; i++) {
        if (pipe->update.messages[i].to == raft_id(to)) {
            CHECK(count < 16);
            messages[count++] = pipe->update.messages[i];
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        messages[i].entries = messages[i].entry_count > 0 ? pipe->entries : NULL;
        CHECK(messages[i].entry_count == 0 || pipe->entries[0].index == messages[i].index + 1);
        struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .u.message = &messages[i]};
        *ns += step_timed(pipe, to, &event);
    }
}

static void pipe_open(struct pipe *pipe, struct alloc *alloc) {
    memset(pipe, 0, sizeof *pipe);
    const struct raft_saved saved = {.config = three_nodes};
    struct raft_options options = default_options(alloc);
    CHECK(raft_new(&options, &saved, &pipe->leader) == STATUS_OK);
    options.id = 2;
    CHECK(raft_new(&options, &saved, &pipe->follower) == STATUS_OK);
    CHECK(raft_start(pipe->follower, 0, &pipe->update) == STATUS_OK);
    CHECK(raft_start(pipe->leader, 0, &pipe->update) == STATUS_OK);
    pipe->now_us = pipe->update.deadline_us;
    struct raft_event tick = {.type = RAFT_EVENT_TICK};
    uint64_t ns = 0;
    (void)step_timed(pipe, pipe->leader, &tick);
    hand_over(pipe, pipe->follower, &ns); /* PREVOTE */
    hand_over(pipe, pipe->leader, &ns);
    sync_all(pipe, pipe->leader, &ns);
    hand_over(pipe, pipe->follower, &ns); /* VOTE */
    sync_all(pipe, pipe->follower, &ns);
    hand_over(pipe, pipe->leader, &ns);
    CHECK(raft_role(pipe->leader) == RAFT_LEADER);
    pipe->entries[0] =
        (struct raft_entry){.index = 1, .term = 1, .kind = RAFT_ENTRY_NOOP, .size_bytes = RAFT_NOOP_BYTES};
    hand_over(pipe, pipe->follower, &ns);
    sync_all(pipe, pipe->follower, &ns);
    hand_over(pipe, pipe->leader, &ns);
}

/* One group: 30 proposals, the APPEND, both syncs, the answer. */
static void pipe_round(struct pipe *pipe) {
    for (uint32_t i = 0; i < PIPE_ENTRIES; i++) {
        pipe->entries[i] = (struct raft_entry){.size_bytes = 150, .kind = RAFT_ENTRY_DATA};
    }
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE};
    event.u.propose.entries = pipe->entries;
    event.u.propose.entry_count = PIPE_ENTRIES;
    pipe->leader_ns += step_timed(pipe, pipe->leader, &event);
    hand_over(pipe, pipe->follower, &pipe->follower_ns);
    sync_all(pipe, pipe->follower, &pipe->follower_ns);
    hand_over(pipe, pipe->leader, &pipe->leader_ns);
    sync_all(pipe, pipe->leader, &pipe->leader_ns);
    CHECK(raft_commit_index(pipe->leader) == raft_last_index(pipe->leader));
}

static void trim(struct pipe *pipe, struct raft *raft) {
    struct raft_event event = {.type = RAFT_EVENT_TRIMMED};
    event.u.trimmed_index = raft_commit_index(raft) - 100;
    (void)step_timed(pipe, raft, &event);
}

static void test_raft_step_steady_state_allocates_next_to_nothing(void **state) {
    (void)state;
    struct test_alloc alloc;
    struct pipe pipe;
    test_alloc_init(&alloc);
    pipe_open(&pipe, &alloc.base);
    uint64_t attempts = 0;
    for (uint32_t round = 0; round < PIPE_ROUNDS; round++) {
        pipe_round(&pipe);
        if (round % 100 == 99) {
            trim(&pipe, pipe.leader);
            trim(&pipe, pipe.follower);
        }
        attempts = round == 1000 ? alloc.attempts : attempts;
    }
    assert_int_equal(alloc.attempts, attempts);
    print_message("# per group of %d: leader %llu ns in 3 steps, follower %llu ns in 2 steps, clock included\n",
                  PIPE_ENTRIES, (unsigned long long)(pipe.leader_ns / PIPE_ROUNDS),
                  (unsigned long long)(pipe.follower_ns / PIPE_ROUNDS));
    raft_free(pipe.leader);
    raft_free(pipe.follower);
    assert_int_equal(alloc.live_blocks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raft_new_without_memory_leaks_nothing),
        cmocka_unit_test(test_raft_step_without_memory_changes_nothing),
        cmocka_unit_test(test_raft_change_without_memory_changes_nothing),
        cmocka_unit_test(test_raft_append_without_memory_changes_nothing),
        cmocka_unit_test(test_raft_step_steady_state_allocates_next_to_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
