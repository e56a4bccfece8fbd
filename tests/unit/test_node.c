/*
 * Whole nodes in the simulator, where a client meets the engine's limits. Breaks when: a follower that is away keeps
 * the log of the others beyond its budget (hazard 44), or within it doesn't; nobody is told its name, or it doesn't
 * come back; a read at an old revision shows another state than that revision's, or below the horizon says anything
 * else than that; writers that flushes and compactions hold back get an error, or wait longer than 100 ms at a time; a
 * long job of an operator is forgotten, runs beside another one, or outlives the node.
 */
#include "storage/storage_internal.h"
#include "tests/unit/node_log_probe.h"

enum {
    SEED = 2 /* three replicas, no drift, client loops apart from nothing */
};

static struct probe *start(void (*configure)(struct config *config)) {
    return probe_start(cluster_new(SEED), configure);
}

/* ---- The log (hazard 44) ----------------------------------------------------------------------------------------- */

enum { BUDGET_BYTES = 1024 * 1024, SEGMENT_BYTES = 128 * 1024 };

static void configure_budget(struct config *config) { config->follower_log_bytes = BUDGET_BYTES; }

static void test_h44_follower_that_is_away_keeps_the_log_within_its_budget_only(void **state) {
    (void)state;
    struct probe *probe = start(configure_budget);
    struct cluster *cluster = probe->cluster;
    put_many(probe, 20);
    pass(cluster, SETTLE_US);
    struct replica *away = follower_of(cluster);
    char owner[64];
    replica__crash(away, SIM_CRASH_PROCESS);
    uint64_t had_index = ask_status(leader_of(cluster)).last_index;

    put_many(probe, 50); /* about 600 KiB */
    pass(cluster, SETTLE_US);
    struct replica *leader = leader_of(cluster);
    struct asked_log *asked = ask_log(leader);
    (void)snprintf(owner, sizeof owner, "follower %s", away->config.name);
    assert_non_null(pin_of(asked, owner));
    assert_true(pin_of(asked, owner)->file_bytes > 400 * 1024); /* it keeps what it needs */
    assert_true(asked->query.first_index <= had_index + 1);
    assert_string_equal(ask_status(leader).problem, "");
    forget_log(leader, asked);

    for (uint32_t round = 0; round < 5; round++) {
        put_many(probe, 100);
        pass(cluster, SETTLE_US);
        for (uint32_t i = 0; i < cluster->replica_count; i++) {
            if (&cluster->replicas[i] != away) {
                asked = ask_log(&cluster->replicas[i]);
                /* The last segment always stays, one is prepared, one may be with the worker. */
                assert_true(asked->query.file_bytes <= BUDGET_BYTES + 3 * SEGMENT_BYTES);
                forget_log(&cluster->replicas[i], asked);
            }
        }
    }
    leader = leader_of(cluster);
    asked = ask_log(leader);
    assert_true(asked->query.first_index > had_index + 1);
    (void)snprintf(owner, sizeof owner, "follower %s (left behind)", away->config.name);
    assert_non_null(pin_of(asked, owner));
    forget_log(leader, asked);
    assert_string_equal(ask_status(leader).problem, ""); /* it waits for a connection */

    /* It comes back, and gets a snapshot. */
    replica__schedule_restart(away, 1000);
    pass(cluster, 3 * SETTLE_US);
    put_many(probe, 5);
    pass(cluster, SETTLE_US);
    assert_int_equal(ask_status(leader).snapshots.sent, 1);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    assert_int_equal(ask_status(away).applied_index, ask_status(leader_of(cluster)).applied_index);
    end(probe);
}

/* ---- History ----------------------------------------------------------------------------------------------------- */

enum { HISTORY = 40 };

static void configure_history(struct config *config) { config->history_revisions = HISTORY; }

static void test_node_history_reads_inside_and_below_the_horizon(void **state) {
    (void)state;
    struct probe *probe = start(configure_history);
    (void)put(probe, "key", "old", 3);
    uint64_t old_revision = probe->result.revision;
    (void)put(probe, "key", "mid", 3);
    uint64_t mid_revision = probe->result.revision;
    (void)put(probe, "key", "new", 3);
    assert_int_equal(get_at(probe, "key", old_revision), HOLDFAST_CODE_OK);
    assert_string_equal(probe->value, "old");
    assert_int_equal(get_at(probe, "key", mid_revision), HOLDFAST_CODE_OK);
    assert_string_equal(probe->value, "mid");
    assert_int_equal(get_at(probe, "key", old_revision - 1), HOLDFAST_CODE_NOT_FOUND);
    put_many(probe, HISTORY / 2);
    assert_int_equal(get_at(probe, "key", mid_revision), HOLDFAST_CODE_OK); /* still inside */
    assert_string_equal(probe->value, "mid");
    /* Beyond it what is old may go, and it does with flushes and compactions: never another state, and no way back. */
    bool is_gone = false;
    for (uint32_t round = 0; round < 10; round++) {
        put_many(probe, HISTORY);
        enum holdfast_code code = get_at(probe, "key", mid_revision);
        assert_true(code == HOLDFAST_CODE_COMPACTED || (!is_gone && code == HOLDFAST_CODE_OK));
        is_gone = code == HOLDFAST_CODE_COMPACTED;
        if (is_gone) {
            assert_non_null(strstr(probe->result.message, "is no longer kept; the oldest that can be read is "));
            assert_int_equal(probe->result.outcome, HOLDFAST_FAILED);
        } else {
            assert_string_equal(probe->value, "mid");
        }
        uint64_t horizon = ask_status(leader_of(probe->cluster)).storage.horizon;
        assert_true(horizon > mid_revision);
        assert_int_equal(get_at(probe, "key", horizon + 1), HOLDFAST_CODE_OK);
        assert_string_equal(probe->value, "new");
    }
    assert_true(is_gone);
    end(probe);
}

/* ---- Pacing ------------------------------------------------------------------------------------------------------ */

enum { PACED_PUTS = 60 };

static void configure_nothing(struct config *config) { (void)config; }

static struct storage_stall_stats stalls_of(struct replica *replica) {
    struct consensus_status status = ask_status(replica);
    struct storage_stall_stats sum = {0};
    for (unsigned reason = 0; reason < STORAGE_STALL_COUNT; reason++) {
        const struct storage_stall_stats *stall = &status.storage.stalls[reason];
        sum.count += stall->count;
        sum.total_us += stall->total_us;
        sum.longest_us = stall->longest_us > sum.longest_us ? stall->longest_us : sum.longest_us;
    }
    return sum;
}

/* As if compactions of level 0 were slow, and behind from the first table on. */
static void make_engines_slow(struct cluster *cluster) {
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        struct storage *storage = replica__consensus(&cluster->replicas[i])->storage;
        storage->options.l0_files_compact = 1000;
        storage->options.level_base_bytes = 1024 * MIB;
        storage->options.l0_files_slow = 0;
        storage->stalls.level0_rate = 512 * 1024; /* bytes a second */
    }
}

static uint64_t put_and_find_longest(struct probe *probe, uint32_t count, uint64_t *ret_total_us) {
    uint64_t longest_us = 0;
    *ret_total_us = 0;
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "key%02u", i % 50);
        uint64_t took_us = put(probe, key, "x", VALUE_BYTES); /* which fails unless it is OK */
        longest_us = took_us > longest_us ? took_us : longest_us;
        *ret_total_us += took_us;
    }
    return longest_us;
}

static void test_node_paced_writers_wait_and_get_no_error(void **state) {
    (void)state;
    struct probe *probe = start(configure_nothing);
    struct cluster *cluster = probe->cluster;
    uint64_t free_us = 0;
    (void)put_and_find_longest(probe, PACED_PUTS, &free_us);
    struct storage_stall_stats before = stalls_of(leader_of(cluster));
    make_engines_slow(cluster);
    uint64_t paced_us = 0;
    uint64_t longest_us = put_and_find_longest(probe, PACED_PUTS, &paced_us);
    struct storage_stall_stats stalls = stalls_of(leader_of(cluster));
    uint64_t waited_us = stalls.total_us - before.total_us;
    assert_true(stalls.count > before.count + PACED_PUTS / 2);
    assert_true(stalls.longest_us <= STORAGE_PACE_US_MAX);
    assert_true(waited_us > 2 * free_us);
    assert_true(paced_us > waited_us / 4 * 3);                 /* who writes feels it, */
    assert_true(longest_us < STORAGE_PACE_US_MAX + 50 * 1000); /* a little each time */
    end(probe);
}

/* ---- Long jobs --------------------------------------------------------------------------------------------------- */

struct asked_upkeep {
    struct consensus_upkeep_query query;
    bool is_done;
};

static void upkeep_done(struct consensus_upkeep_query *query) {
    CONTAINER_OF(query, struct asked_upkeep, query)->is_done = true;
}

static struct consensus_upkeep_query ask_upkeep(struct replica *replica, enum consensus_upkeep_action action) {
    struct asked_upkeep asked = {.query = {.loop = replica->loop, .done = upkeep_done, .action = action}};
    consensus_upkeep(replica__consensus(replica), &asked.query);
    while (!asked.is_done) {
        step(replica->cluster);
    }
    return asked.query;
}

/* Until the job has ended. */
static struct consensus_upkeep_state await_upkeep(struct replica *replica) {
    struct consensus_upkeep_query query;
    do {
        pass(replica->cluster, 1000);
        query = ask_upkeep(replica, CONSENSUS_UPKEEP_LOOK);
        assert_int_equal(query.status, STATUS_OK);
    } while (query.state.running);
    return query.state;
}

static void test_node_upkeep_runs_one_at_a_time_and_its_end_is_kept(void **state) {
    (void)state;
    struct probe *probe = start(configure_nothing);
    put_many(probe, 50);
    struct replica *leader = leader_of(probe->cluster);
    assert_int_equal(ask_upkeep(leader, CONSENSUS_UPKEEP_LOOK).state.job, 0);
    struct consensus_upkeep_query query = ask_upkeep(leader, CONSENSUS_UPKEEP_COMPACT);
    assert_int_equal(query.status, STATUS_OK);
    assert_int_equal(query.state.job, 1);
    assert_true(query.state.running);
    assert_int_equal(ask_upkeep(leader, CONSENSUS_UPKEEP_VERIFY).status, STATUS_BUSY);
    assert_int_equal(ask_upkeep(leader, CONSENSUS_UPKEEP_CANCEL).status, STATUS_UNSUPPORTED);
    struct consensus_upkeep_state ended = await_upkeep(leader);
    assert_int_equal(ended.job, 1);
    assert_int_equal(ended.status, STATUS_OK);
    assert_true(ended.done_bytes > 0);
    assert_int_equal(ask_upkeep(leader, CONSENSUS_UPKEEP_VERIFY).state.job, 2);
    ended = await_upkeep(leader);
    assert_int_equal(ended.kind, CONSENSUS_UPKEEP_VERIFY);
    assert_int_equal(ended.status, STATUS_OK);
    assert_true(ended.files > 0 && ended.bytes > 0 && ended.index >= 50);
    assert_int_equal(ask_upkeep(leader, CONSENSUS_UPKEEP_VERIFY).state.job, 3);
    assert_int_equal(ask_upkeep(leader, CONSENSUS_UPKEEP_CANCEL).status, STATUS_OK);
    ended = await_upkeep(leader);
    assert_true(ended.status == STATUS_CANCELLED || ended.status == STATUS_OK);
    assert_int_equal(ended.findings, 0);
    assert_int_equal(ask_upkeep(leader, CONSENSUS_UPKEEP_CANCEL).status, STATUS_OK); /* none runs */
    end(probe);
}

/* The replica itself sees that no memory is left when it has stopped (cluster.c). */
static void test_node_that_stops_with_upkeep_under_way_leaves_nothing(void **state) {
    (void)state;
    for (int kind = CONSENSUS_UPKEEP_COMPACT; kind <= CONSENSUS_UPKEEP_VERIFY; kind++) {
        struct probe *probe = start(configure_nothing);
        put_many(probe, 50);
        struct replica *leader = leader_of(probe->cluster);
        uint64_t lives = leader->lives;
        assert_true(ask_upkeep(leader, (enum consensus_upkeep_action)kind).state.running);
        assert_true(replica__stop(leader));
        pass(probe->cluster, SETTLE_US);
        assert_int_equal(leader->lives, lives + 1); /* it stopped in order, and came back */
        assert_true(leader->serving);
        end(probe);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h44_follower_that_is_away_keeps_the_log_within_its_budget_only),
        cmocka_unit_test(test_node_history_reads_inside_and_below_the_horizon),
        cmocka_unit_test(test_node_paced_writers_wait_and_get_no_error),
        cmocka_unit_test(test_node_upkeep_runs_one_at_a_time_and_its_end_is_kept),
        cmocka_unit_test(test_node_that_stops_with_upkeep_under_way_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
