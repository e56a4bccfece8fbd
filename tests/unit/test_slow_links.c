/*
 * Whole nodes in the simulator whose network is slow. Breaks when: one large entry, which is on its way for longer than
 * a silent connection is kept, ends the connection that carries it, so that it never arrives; or holds up heartbeats,
 * so that the lead is lost; when a connection is kept although nothing gets through any more.
 */
#include "tests/unit/nodes_fixture.h"

enum {
    VALUE_BYTES = 1024 * 1024,
    SLOW_BYTES_PER_MS = 200, /* 5 s for the value */
    ARRIVES_US = 8 * 1000 * 1000,
    GIVEN_UP_US = 4 * 1000 * 1000 /* 2 s of silence, looked for each 500 ms, and as much again until bytes wait */
};

static uint8_t value_bytes[VALUE_BYTES];

static void configure(struct config *config) {
    config->entry_bytes_max = 2 * VALUE_BYTES;
    config->segment_bytes = 8 * config->entry_bytes_max;
    config->memtable_bytes = 4 * VALUE_BYTES;
    config->scan_digest_interval_s = 0;
}

static int tear_down(void **state) {
    (void)state;
    cluster_free(cluster);
    cluster = NULL;
    return 0;
}

/* From now on; each connection for itself. */
static void slow_down(void) {
    struct sim_network_options *network = sim_network_options(cluster->sim);
    network->bytes_per_ms = SLOW_BYTES_PER_MS;
    network->pipe_bytes_max = 32 * 1024;
    network->segment_bytes_max = 4 * 1024;
    network->slow_ppm = 0;
}

struct large_put {
    struct batch_operation operation;
    struct write write;
};

static void put_large(uint32_t number, uint64_t timeout_us, struct large_put *put) {
    struct replica *replica = &cluster->replicas[number];
    put->operation =
        (struct batch_operation){BATCH_PUT, slice_of_string("large"), slice_of(value_bytes, sizeof value_bytes)};
    put->write = (struct write){.message = {.run = write_begin},
                                .consensus = consensus_of(number),
                                .proposal = {.loop = replica->loop,
                                             .operations = &put->operation,
                                             .operation_count = 1,
                                             .deadline_us = env_clock_us(replica->env) + timeout_us,
                                             .done = write_done}};
    env_post(replica->loop, &put->write.message);
}

static void test_slow_link_large_entry_arrives_and_the_lead_stays(void **state) {
    (void)state;
    nodes_start(configure);
    uint32_t first = leader();
    uint64_t term = raft_term(consensus_of(first)->raft);
    struct large_put put;
    slow_down();
    put_large(first, ARRIVES_US, &put);
    uint64_t begun_us = sim_now_us(cluster->sim);
    while (!put.write.is_done) {
        step();
    }
    assert_int_equal(put.write.proposal.status, STATUS_OK);
    assert_true(sim_now_us(cluster->sim) - begun_us > 3 * (uint64_t)1000 * 1000); /* else it shows nothing */
    assert_int_equal(leader(), first);
    assert_int_equal(raft_term(consensus_of(first)->raft), term);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        assert_false(log_has(i, "silent for"));
    }
}

/* Bytes wait for a peer that takes none: that is no progress, however many there are. */
static void test_slow_link_that_takes_nothing_is_given_up(void **state) {
    (void)state;
    nodes_start(configure);
    uint32_t first = leader();
    uint32_t other = (first + 1) % cluster->replica_count;
    struct large_put put;
    slow_down();
    put_large(first, 2 * ARRIVES_US, &put);
    pass(1000 * 1000);
    sim_network_options(cluster->sim)->silence_timeout_us = 60ULL * 1000 * 1000; /* the system doesn't end it */
    sim_partition(cluster->replicas[first].sim_node, cluster->replicas[other].sim_node);
    pass(GIVEN_UP_US);
    assert_true(log_has(first, "link=bulk reason=\"silent for 2 s\""));
    while (!put.write.is_done) {
        step();
    }
    assert_int_equal(put.write.proposal.status, STATUS_OK); /* the third node has it */
}

#define TEST(name) cmocka_unit_test_teardown(name, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_slow_link_large_entry_arrives_and_the_lead_stays),
        TEST(test_slow_link_that_takes_nothing_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
