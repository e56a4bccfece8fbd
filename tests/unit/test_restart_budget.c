/*
 * The restart budget in whole nodes of the simulator. Breaks when: a node whose replay would take too long lets the log
 * grow until its memory is full; the flushed frontier doesn't follow, so that a restart replays all of it; a node
 * within its budget flushes early; what a recovery measured is forgotten.
 */
#include "tests/unit/nodes_fixture.h"

enum { ENTRIES = 120, MEMTABLE_BYTES = 256 * 1024 };

static void configure(struct config *config) {
    config->memtable_bytes = MEMTABLE_BYTES;
    config->restart_budget_s = 1;
}

/* As if this node had found that it replays so slowly: 20 ms an entry. */
static void slow_down(uint32_t number) {
    consensus_of(number)->replay_speed.pace = (uint64_t)REPLAY_PACE_ONE * 20 * 1000 * 1000 / REPLAY_ENTRY_NS;
    consensus_of(number)->replay_speed.is_measured = true;
}

static void test_restart_budget_flushes_before_the_memory_is_full(void **state) {
    (void)state;
    nodes_start(configure);
    put_some(ENTRIES);
    pass(SETTLE_US);
    uint32_t slow = (leader() + 1) % cluster->replica_count;
    uint32_t fast = (leader() + 2) % cluster->replica_count;
    assert_int_equal(storage_frontier(consensus_of(slow)->storage)->index, 0);
    /* Small as they are, these entries are less than what is worth a table. */
    slow_down(slow);
    struct storage_unflushed unflushed;
    storage_get_unflushed(consensus_of(slow)->storage, &unflushed);
    assert_true(unflushed.entries > ENTRIES);
    assert_int_equal(unflushed.entries, unflushed.active_entries);
    assert_true(unflushed.active_memory_bytes < MEMTABLE_BYTES / REPLAY_FLUSH_PART);
    assert_true(budget__replay_us(consensus_of(slow)) > 2000 * 1000);
    pass(SETTLE_US);
    assert_int_equal(storage_frontier(consensus_of(slow)->storage)->index, 0);
    /* A little more is. */
    put_some(3 * ENTRIES);
    pass(SETTLE_US);
    uint64_t applied_index = storage_applied_index(consensus_of(slow)->storage);
    uint64_t flushed_index = storage_frontier(consensus_of(slow)->storage)->index;
    assert_true(log_has(slow, "event=storage.flush_early"));
    assert_true(flushed_index > ENTRIES);
    assert_int_equal(storage_frontier(consensus_of(fast)->storage)->index, 0);
    assert_false(log_has(fast, "event=storage.flush_early"));
    storage_get_unflushed(consensus_of(slow)->storage, &unflushed);
    assert_int_equal(unflushed.entries, applied_index - flushed_index);
    assert_int_equal(unflushed.waiting, 0);
    /* A restart has only the rest to replay. */
    replica__crash(&cluster->replicas[slow], SIM_CRASH_POWER);
    replica__schedule_restart(&cluster->replicas[slow], 1000);
    pass(SETTLE_US);
    assert_int_equal(storage_frontier(consensus_of(slow)->storage)->index, flushed_index);
    assert_int_equal(storage_applied_index(consensus_of(slow)->storage),
                     storage_applied_index(consensus_of(fast)->storage));
    cluster_free(cluster);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restart_budget_flushes_before_the_memory_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
