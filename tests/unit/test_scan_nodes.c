/*
 * Scan digests between whole nodes in the simulator: all data compared, by a committed entry. A value is changed in one
 * node's memory after it was applied, as a wrong compaction would. Breaks when: rounds don't come by themselves, or
 * don't end; a difference isn't found though the chain agrees, or somebody else is suspected; a leader that differs
 * stays; a node that restarted or got another store passes for one that differs; a leader's end ends the round; a scan
 * holds its view for ever, or a checkpoint up; who asks for one on a full disk waits for it.
 */
#include "proto/frame.h"
#include "proto/wire.pb-c.h"
#include "storage/memtable_internal.h"
#include "tests/unit/nodes_fixture.h"

enum { TEXT_BYTES = 256, INTERVAL_S = 3 };

#define SECOND_US UINT64_C(1000000)

static void no_rounds(struct config *config) { config->scan_digest_interval_s = 0; }

static void every_few_seconds(struct config *config) { config->scan_digest_interval_s = INTERVAL_S; }

static void slow_scans(struct config *config) {
    config->scan_digest_interval_s = 0;
    config->scan_digest_rate = 100;
}

static void filling_again(struct config *config) {
    config->scan_digest_interval_s = 0;
    config->rebuild_on_mismatch = true;
}

static int tear_down(void **state) {
    (void)state;
    cluster_free(cluster);
    return 0;
}

/* ---- What is asked and said ------------------------------------------------------------------------------------- */

struct asked {
    struct consensus_compare_query query;
    struct env_message message;
    struct consensus *consensus;
    bool is_done;
};

static void on_answer(struct consensus_compare_query *query) {
    CONTAINER_OF(query, struct asked, query)->is_done = true;
}

static void ask(struct env_message *message) {
    struct asked *asked = CONTAINER_OF(message, struct asked, message);
    consensus_compare(asked->consensus, &asked->query);
}

static struct consensus_compare_query compare(uint32_t number, bool begin) {
    struct replica *replica = &cluster->replicas[number];
    struct asked asked = {.query = {.loop = replica->loop, .done = on_answer, .begin = begin},
                          .message = {.run = ask},
                          .consensus = consensus_of(number)};
    env_post(replica->loop, &asked.message);
    while (!asked.is_done) {
        step();
    }
    return asked.query;
}

/* Begun on whoever leads, until it has a verdict. */
static struct consensus_compare_query whole_round(void) {
    struct consensus_compare_query query = compare(leader(), true);
    uint64_t above_index = query.above_index;
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    assert_int_equal(query.status, STATUS_OK);
    while (sim_now_us(cluster->sim) < end_us) {
        pass(50 * 1000);
        query = compare(leader(), false);
        if (query.status == STATUS_OK && !query.is_open) {
            assert_true(query.round.index > above_index);
            return query;
        }
    }
    fail_msg("the round doesn't end");
    return query;
}

static struct consensus_status status_of(uint32_t number) {
    struct consensus_status status = {.term = 0};
    scan__fill_status(consensus_of(number), &status);
    if (!scan__problem(consensus_of(number), status.problem, sizeof status.problem)) {
        status.problem[0] = '\0';
    }
    return status;
}

/* Three nodes with so many pairs, and nothing under way any more. Returns who leads. */
static uint32_t settled(void (*configure)(struct config *config), uint32_t pairs) {
    nodes_start(configure);
    put_some(pairs);
    pass(SETTLE_US);
    return leader();
}

/* The same, in the middle of a round that takes some seconds. */
static uint32_t in_a_slow_round(void) {
    uint32_t first = settled(slow_scans, 40);
    (void)compare(first, true);
    pass(SECOND_US);
    return first;
}

static uint32_t follower(uint32_t which) { return (leader() + which) % cluster->replica_count; }

/* Bits of the newest value in this node's memory are others. */
static void rot_by(uint32_t number, uint8_t bits) {
    struct storage *storage = consensus_of(number)->storage;
    struct memtable_place place;
    assert_true(memtable_last(storage->active->memtable, &place));
    struct entry entry = memtable_entry(&place);
    assert_true(entry.value.len > 0);
    ((uint8_t *)entry.value.data)[0] ^= bits;
}

static void rot(uint32_t number) { rot_by(number, 1); }

static void assert_named(uint32_t by, uint32_t odd) {
    char words[TEXT_BYTES];
    const char *name = cluster->replicas[odd].config.name;
    (void)snprintf(words, sizeof words, "%s holds other data than the majority", name);
    assert_non_null(strstr(status_of(by).problem, words));
    assert_non_null(strstr(status_of(by).problem, "rebuild' it")); /* what to do is not cut off */
    (void)snprintf(words, sizeof words, "suspected=%s ", name);
    assert_true(log_has(by, "event=scan.mismatch"));
    assert_true(log_has(by, words));
}

/* ---- Rounds ----------------------------------------------------------------------------------------------------- */

static void test_scan_rounds_come_by_themselves_and_agree(void **state) {
    (void)state;
    nodes_start(every_few_seconds);
    with_checker = true;
    put_some(20);
    pass((INTERVAL_S + 2) * SECOND_US);
    uint64_t first = status_of(leader()).scan_index;
    assert_true(first > 0);
    put_some(10);
    pass((INTERVAL_S + 2) * SECOND_US);
    struct consensus_status status = status_of(leader());
    uint8_t digest[DIGEST_BYTES];
    digest_encode(&consensus_of(leader())->scan.digest, digest);
    assert_memory_equal(status.scan_digest, digest, sizeof digest);
    assert_true(status.scan_index > first);
    assert_int_equal(status.scan_mismatches, 0);
    assert_string_equal(status.problem, "");
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        assert_int_equal(consensus_of(i)->scan.index, consensus_of(leader())->scan.index);
        assert_int_equal(consensus_of(i)->scan.state, CONSENSUS_SCAN_DONE);
        assert_true(digest_equal(&consensus_of(i)->scan.digest, &consensus_of(leader())->scan.digest));
        assert_true(log_has(i, "event=scan.ended"));
        /* Nothing is held any more. */
        assert_int_equal(view_count_held(&consensus_of(i)->storage->views), 0);
    }
    assert_false(cluster__has_failed(cluster));
}

static void test_scan_asked_for_is_answered_with_a_verdict(void **state) {
    (void)state;
    nodes_start(no_rounds);
    put_some(8);
    assert_int_equal(compare(follower(1), true).status, STATUS_NOT_LEADER);
    struct consensus_compare_query none = compare(leader(), false);
    assert_int_equal(none.round.verdict, CONSENSUS_SCAN_NONE);
    assert_false(none.is_open);
    struct consensus_compare_query query = whole_round();
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_ALIKE);
    assert_int_equal(query.round.member_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(query.round.members[i].state, CONSENSUS_SCAN_DONE);
        assert_int_equal(query.round.members[i].keys, 8);
        assert_false(query.round.members[i].is_suspected);
        assert_true(query.names[i][0] == 'n');
    }
    /* The entry changes nothing, but it has a revision, and what was there before it is in the digest. */
    struct digest before = query.round.members[0].digest;
    put("key0");
    query = whole_round();
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_ALIKE);
    assert_int_equal(query.round.members[0].keys, 8);
    assert_false(digest_equal(&query.round.members[0].digest, &before));
}

static void on_compacted(struct storage_compact *compact, enum status status) {
    assert_int_equal(status, STATUS_OK);
    *(bool *)compact->context = true;
}

static void flush_and_compact(uint32_t number) {
    bool is_done = false;
    struct storage *storage = consensus_of(number)->storage;
    struct storage_compact compact = {.done = on_compacted, .context = &is_done};
    storage_flush(storage);
    pass(SECOND_US);
    storage_compact_range(storage, &compact);
    while (!is_done) {
        step();
    }
}

/* Tables that were merged hold what the memtables held, on each node in tables of its own. */
static void test_scan_agrees_after_compactions(void **state) {
    (void)state;
    nodes_start(no_rounds);
    put_some(20);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        flush_and_compact(i);
    }
    put_some(10);
    flush_and_compact(follower(1));
    struct consensus_compare_query query = whole_round();
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_ALIKE);
    assert_int_equal(query.round.members[0].keys, 20);
}

/* ---- Differences ------------------------------------------------------------------------------------------------ */

static void test_scan_follower_that_rots_is_found_though_the_chain_agrees(void **state) {
    (void)state;
    uint32_t first = settled(no_rounds, 8);
    uint32_t odd = follower(1);
    rot(odd);
    struct consensus_compare_query query = whole_round();
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_DIFFERS);
    assert_int_equal(leader(), first);
    assert_named(first, odd);
    for (uint32_t i = 0; i < 3; i++) {
        bool is_odd = query.round.members[i].id == cluster->replicas[odd].config.id;
        assert_int_equal(query.round.members[i].is_suspected, is_odd);
    }
    char chain[TEXT_BYTES];
    assert_false(digest__problem(consensus_of(first), chain, sizeof chain));
    assert_int_equal(status_of(first).scan_mismatches, 1);
    pass(10 * SECOND_US);
    assert_true(log_has(odd, "event=scan.suspected"));
    assert_non_null(strstr(status_of(odd).problem, "differ from the majority's"));
    assert_string_equal(status_of(follower(2)).problem, "");
    assert_int_equal(status_of(first).scan_mismatches, 1);
    /* It comes back with another store (here: out of the log): that is noticed, a round follows, the alarm ends. */
    replica__crash(&cluster->replicas[odd], SIM_CRASH_POWER);
    replica__schedule_restart(&cluster->replicas[odd], 1000);
    pass(40 * SECOND_US);
    assert_string_equal(status_of(leader()).problem, "");
    assert_string_equal(status_of(odd).problem, "");
    assert_int_equal(compare(leader(), false).round.verdict, CONSENSUS_SCAN_ALIKE);
}

/* The same as for the chain: with rebuild_on_mismatch it helps itself, without a restart, and the next round is good.
 */
static void test_scan_node_that_rots_fills_its_store_again(void **state) {
    (void)state;
    (void)settled(filling_again, 8);
    uint32_t odd = follower(1);
    uint64_t lives = cluster->replicas[odd].lives;
    rot(odd);
    struct consensus_compare_query query = whole_round();
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_DIFFERS);
    pass(60 * SECOND_US);
    assert_int_equal(cluster->replicas[odd].lives, lives);
    assert_int_equal(consensus_of(odd)->rebuild.completed, 1);
    assert_int_equal(compare(leader(), false).round.verdict, CONSENSUS_SCAN_ALIKE);
    assert_string_equal(status_of(leader()).problem, "");
    assert_string_equal(status_of(odd).problem, "");
}

static void test_scan_leader_that_rots_hands_over_and_is_named_by_the_next(void **state) {
    (void)state;
    uint32_t odd = settled(no_rounds, 8);
    rot(odd);
    (void)compare(odd, true);
    uint64_t end_us = sim_now_us(cluster->sim) + PATIENCE_US;
    while (leader() == odd && sim_now_us(cluster->sim) < end_us) {
        step();
    }
    assert_int_not_equal(leader(), odd);
    assert_true(log_has(odd, "event=scan.hand_over"));
    pass(SETTLE_US);
    assert_int_not_equal(leader(), odd);
    assert_named(leader(), odd); /* by the same entry: the round outlived its leader */
    assert_int_equal(consensus_of(leader())->scan.round.index, consensus_of(odd)->scan.index);
}

/* Each of the three has data of its own. */
static void test_scan_without_a_majority_nobody_is_suspected(void **state) {
    (void)state;
    uint32_t first = settled(no_rounds, 8);
    rot_by(follower(1), 1);
    rot_by(follower(2), 2);
    struct consensus_compare_query query = whole_round();
    assert_int_equal(leader(), first);
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_SPLIT);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(query.round.members[i].state, CONSENSUS_SCAN_DONE);
        assert_false(query.round.members[i].is_suspected);
    }
    assert_non_null(strstr(status_of(first).problem, "no majority agrees"));
    assert_false(log_has(first, "event=scan.hand_over"));
}

/* One against one, and the third one is away: it is waited for. */
static void test_scan_waits_for_who_may_still_tell_who_is_right(void **state) {
    (void)state;
    uint32_t first = settled(no_rounds, 8);
    uint32_t odd = follower(1);
    uint32_t away = follower(2);
    replica__crash(&cluster->replicas[away], SIM_CRASH_PROCESS);
    rot(odd);
    struct consensus_compare_query begun = compare(first, true);
    assert_int_equal(begun.status, STATUS_OK);
    pass(SETTLE_US);
    assert_int_equal(compare(first, false).round.verdict, CONSENSUS_SCAN_OPEN);
    replica__schedule_restart(&cluster->replicas[away], 1000);
    pass(SETTLE_US);
    assert_int_equal(leader(), first);
    assert_int_equal(compare(first, false).round.verdict, CONSENSUS_SCAN_DIFFERS); /* it applied the entry only now */
    assert_named(first, odd);
    assert_false(log_has(first, "event=scan.hand_over"));
}

/* ---- What is missing -------------------------------------------------------------------------------------------- */

static void test_scan_of_a_node_that_restarted_is_missing_not_different(void **state) {
    (void)state;
    uint32_t first = in_a_slow_round();
    uint32_t away = follower(1);
    struct consensus_compare_query query = compare(first, false);
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_OPEN);
    assert_true(query.is_open);
    storage_flush(consensus_of(away)->storage); /* so that the entry isn't applied again */
    pass(SECOND_US);
    replica__crash(&cluster->replicas[away], SIM_CRASH_PROCESS);
    replica__schedule_restart(&cluster->replicas[away], 1000);
    pass(15 * SECOND_US);
    query = compare(leader(), false);
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_INCOMPLETE);
    assert_int_equal(status_of(leader()).scan_mismatches, 0);
    assert_string_equal(status_of(leader()).problem, "");
    assert_int_equal(status_of(leader()).scan_index, query.round.index); /* a majority agrees */
    for (uint32_t i = 0; i < 3; i++) {
        if (query.round.members[i].id == cluster->replicas[away].config.id) {
            assert_int_equal(query.round.members[i].state, CONSENSUS_SCAN_MISSING);
            assert_non_null(strstr(query.round.members[i].reason, "restarted"));
        }
    }
}

static void test_scan_result_is_forgotten_with_its_store(void **state) {
    (void)state;
    nodes_start(no_rounds);
    put_some(8);
    struct consensus_compare_query query = whole_round();
    struct consensus_scan_member report;
    scan__own_report(consensus_of(0), query.round.index, &report);
    assert_int_equal(report.state, CONSENSUS_SCAN_DONE);
    scan__forget(consensus_of(0)); /* as an installed snapshot does */
    scan__own_report(consensus_of(0), query.round.index, &report);
    assert_int_equal(report.state, CONSENSUS_SCAN_MISSING);
    scan__own_report(consensus_of(0), query.round.index + 1000, &report);
    assert_int_equal(report.state, CONSENSUS_SCAN_ASKED); /* of an entry that isn't applied here yet */
}

static void test_scan_goes_on_under_the_next_leader(void **state) {
    (void)state;
    uint32_t first = in_a_slow_round();
    uint64_t index = compare(first, false).round.index;
    assert_true(index > 0);
    replica__crash(&cluster->replicas[first], SIM_CRASH_PROCESS);
    pass(3 * SECOND_US);
    assert_int_not_equal(leader(), first);
    struct consensus_compare_query query = compare(leader(), false);
    assert_int_equal(query.round.index, index);
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_OPEN); /* the old leader may still come */
    pass(12 * SECOND_US);
    query = compare(leader(), false);
    assert_int_equal(query.round.index, index);
    assert_int_equal(query.round.verdict, CONSENSUS_SCAN_INCOMPLETE); /* it isn't waited for any longer */
    assert_int_equal(status_of(leader()).scan_index, index);          /* two of three are a majority */
    assert_int_equal(status_of(leader()).scan_mismatches, 0);
}

static void test_scan_that_takes_too_long_lets_go(void **state) {
    (void)state;
    (void)in_a_slow_round();
    uint32_t number = follower(1);
    struct consensus *consensus = consensus_of(number);
    assert_int_equal(consensus->scan.state, CONSENSUS_SCAN_RUNNING);
    assert_true(view_count_held(&consensus->storage->views) > 0);
    consensus->scan.begun_us -= UINT64_C(3600) * SECOND_US; /* an hour ago */
    pass(2 * SECOND_US);
    assert_int_equal(consensus->scan.state, CONSENSUS_SCAN_MISSING);
    assert_non_null(strstr(consensus->scan.reason, "scan_digest_bytes_per_second"));
    assert_int_equal(view_count_held(&consensus->storage->views), 0);
}

/* An entry would take the last of the log's room: who asks for a comparison is told, and doesn't wait for ever. */
static void test_scan_asked_for_on_a_full_disk_is_refused(void **state) {
    (void)state;
    nodes_start(no_rounds);
    put_some(8);
    struct consensus *first = consensus_of(leader());
    first->scan.is_wanted = true; /* one was due as the disk filled up */
    (void)error_set(&first->space_problem, STATUS_NO_SPACE, "full");
    assert_int_equal(compare(leader(), true).status, STATUS_NO_SPACE);
    struct consensus_compare_query query = compare(leader(), false);
    assert_int_equal(query.status, STATUS_OK);
    assert_false(query.is_open);
    error_clear(&first->space_problem);
    assert_int_equal(whole_round().round.verdict, CONSENSUS_SCAN_ALIKE);
}

/* ---- What peers may say ----------------------------------------------------------------------------------------- */

static void say(uint32_t to, uint32_t from, uint8_t type, const ProtobufCMessage *message) {
    uint8_t bytes[1024];
    size_t len = protobuf_c_message_get_packed_size(message);
    assert_true(len <= sizeof bytes);
    (void)protobuf_c_message_pack(message, bytes);
    scan__received(consensus_of(to), cluster->replicas[from].config.id, type, slice_of(bytes, len));
}

/* Lies about digests, of nobody's round, of another term, from somebody who doesn't lead: none changes anything. */
static void test_scan_false_words_change_nothing(void **state) {
    (void)state;
    uint32_t first = in_a_slow_round();
    const struct consensus_scan *scan = &consensus_of(first)->scan;
    uint64_t index = scan->round.index;
    uint64_t term = raft_term(consensus_of(first)->raft);
    assert_int_equal(scan->round.verdict, CONSENSUS_SCAN_OPEN);
    struct consensus_scan before = *scan;
    static uint8_t digest[DIGEST_BYTES + 1];
    for (unsigned lie = 0; lie < 6; lie++) {
        Wire__ScanReport report = WIRE__SCAN_REPORT__INIT;
        report.has_term = report.has_index = report.has_state = report.has_digest = 1;
        report.term = lie == 0 ? term - 1 : term;
        report.index = lie == 1 ? index + 1 : index;
        report.state = lie == 2 ? CONSENSUS_SCAN_MISSING + 1 : CONSENSUS_SCAN_DONE;
        report.digest = (ProtobufCBinaryData){.data = digest,
                                              .len = lie == 3   ? DIGEST_BYTES + 1
                                                     : lie == 4 ? DIGEST_BYTES - 1
                                                                : DIGEST_BYTES};
        if (lie < 5) {
            say(first, follower(1), FRAME_SCAN_REPORT, &report.base);
        } else {
            say(follower(2), follower(1), FRAME_SCAN_REPORT, &report.base); /* it leads nobody */
        }
    }
    uint8_t junk[64];
    memset(junk, 0xff, sizeof junk);
    scan__received(consensus_of(first), 99, FRAME_SCAN_REPORT, slice_of(junk, sizeof junk));
    scan__received(consensus_of(first), 99, FRAME_SCAN_ASK, slice_of(junk, sizeof junk));
    assert_memory_equal(&before.round, &scan->round, sizeof before.round);
    /* "You differ": only the leader's word, and only about a scan that is done. */
    Wire__ScanAsk ask = WIRE__SCAN_ASK__INIT;
    ask.has_term = ask.has_index = ask.has_suspected = ask.suspected = 1;
    ask.term = term;
    ask.index = index;
    say(follower(1), first, FRAME_SCAN_ASK, &ask.base);
    assert_false(consensus_of(follower(1))->scan.is_suspected);
    pass(10 * SECOND_US);
    assert_int_equal(consensus_of(follower(1))->scan.state, CONSENSUS_SCAN_DONE);
    say(follower(1), follower(2), FRAME_SCAN_ASK, &ask.base);
    assert_false(consensus_of(follower(1))->scan.is_suspected);
    say(follower(1), first, FRAME_SCAN_ASK, &ask.base);
    assert_true(consensus_of(follower(1))->scan.is_suspected);
}

#define TEST(name) cmocka_unit_test_teardown(name, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_scan_rounds_come_by_themselves_and_agree),
        TEST(test_scan_asked_for_is_answered_with_a_verdict),
        TEST(test_scan_agrees_after_compactions),
        TEST(test_scan_follower_that_rots_is_found_though_the_chain_agrees),
        TEST(test_scan_node_that_rots_fills_its_store_again),
        TEST(test_scan_leader_that_rots_hands_over_and_is_named_by_the_next),
        TEST(test_scan_without_a_majority_nobody_is_suspected),
        TEST(test_scan_waits_for_who_may_still_tell_who_is_right),
        TEST(test_scan_of_a_node_that_restarted_is_missing_not_different),
        TEST(test_scan_result_is_forgotten_with_its_store),
        TEST(test_scan_goes_on_under_the_next_leader),
        TEST(test_scan_that_takes_too_long_lets_go),
        TEST(test_scan_asked_for_on_a_full_disk_is_refused),
        TEST(test_scan_false_words_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
