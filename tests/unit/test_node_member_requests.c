/*
 * Membership and leadership by an admin's requests, from the client library to whole nodes in the simulator. Breaks
 * when: a request gets lost between a front end and the consensus actor, isn't taken to the leader, or is answered
 * before it is done; writes that wait on a leader which removes itself, or that it has logged, get an outcome that
 * nobody knows; a member of a wrong address costs the quorum; what was deleted comes back on a node that joins later.
 */
#include "tests/unit/node_probe.h"

enum { SEED = 3, WRITES_MAX = 4096, WRITES_EACH = 4, WRITE_TIMEOUT_US = 5 * 1000 * 1000, SOON_US = 1000 * 1000 };

static void configure_nothing(struct config *config) { (void)config; }

static struct holdfast_members members; /* of the last list */

static void list_done(struct client_request *request, struct client_answer *answer) {
    if (answer->members != NULL) {
        members = *answer->members;
    }
    probe_done(request, answer);
}

static void list(struct probe *probe) {
    client_request_init(&probe->request, CLIENT_LIST_MEMBERS, list_done);
    (void)run(probe);
    assert_int_equal(probe->result.outcome, HOLDFAST_OK);
}

static const struct holdfast_member *member_of(uint64_t id) {
    for (uint32_t i = 0; i < members.member_count; i++) {
        if (members.members[i].id == id) {
            return &members.members[i];
        }
    }
    return NULL;
}

static void test_node_members_change_as_an_admin_asks(void **state) {
    (void)state;
    struct probe *probe = probe_start(cluster_new_growing(SEED, 4, 3), configure_nothing);
    const struct replica *fourth = &probe->cluster->replicas[3];
    struct holdfast_member_change add = adding_of(fourth);
    add.priority = 3;
    assert_int_equal(change_member(probe, &add), HOLDFAST_CODE_OK);
    uint64_t index = probe->result.revision;
    assert_int_equal(change_member(probe, &add), HOLDFAST_CODE_CONDITION);
    assert_non_null(strstr(probe->result.message, "a member has this id"));
    pass(probe->cluster, SETTLE_US);
    list(probe);
    assert_int_equal(members.member_count, 4);
    assert_true(members.index > index); /* by a further entry, which records its log */
    assert_true(member_of(4)->incarnation != 0);
    assert_true(members.committed);
    assert_int_equal(members.leader_id, leader_of(probe->cluster)->config.id);
    assert_string_equal(member_of(4)->role, "learner");
    assert_string_equal(member_of(4)->state, "replicate");
    assert_string_equal(member_of(4)->name, add.name);
    assert_int_equal(member_of(4)->priority, 3);
    assert_true(member_of(4)->has_thumbprint);
    assert_memory_equal(member_of(4)->thumbprint, add.thumbprint, HOLDFAST_THUMBPRINT_BYTES);
    assert_true(member_of(4)->heard_ms_ago < 1000);
    const struct holdfast_member_change promote = {.action = HOLDFAST_MEMBER_PROMOTE, .id = 4};
    assert_int_equal(change_member(probe, &promote), HOLDFAST_CODE_OK);
    assert_int_equal(transfer_lead(probe, 4), HOLDFAST_OK);
    assert_ptr_equal(leader_of(probe->cluster), fourth);
    /* The new leader is asked, although the client began with another one. */
    const struct holdfast_member_change remove = {.action = HOLDFAST_MEMBER_REMOVE, .id = 1};
    assert_int_equal(change_member(probe, &remove), HOLDFAST_CODE_OK);
    list(probe);
    assert_int_equal(members.member_count, 3);
    assert_null(member_of(1));
    assert_int_equal(members.leader_id, 4);
    (void)put(probe, "key", "value", 5);
    end(probe);
}

/* ---- New members ------------------------------------------------------------------------------------------------- */

/* Nobody is there. If it counted, two of three founders would be no quorum of four. */
static void test_h62_node_member_of_a_wrong_address_costs_no_quorum(void **state) {
    (void)state;
    struct probe *probe = probe_start(cluster_new_growing(SEED, 4, 3), configure_nothing);
    struct holdfast_member_change add = adding_of(&probe->cluster->replicas[3]);
    const struct holdfast_member_change promote = {.action = HOLDFAST_MEMBER_PROMOTE, .id = 4};
    const struct holdfast_member_change remove = {.action = HOLDFAST_MEMBER_REMOVE, .id = 4};
    add.peer_address = "nowhere:1";
    assert_int_equal(change_member(probe, &add), HOLDFAST_CODE_CONDITION); /* nobody answers there */
    assert_non_null(strstr(probe->result.message, "nowhere:1 can't be reached"));
    assert_non_null(strstr(probe->result.message, "say --unreachable"));
    add.unreachable = true;
    assert_int_equal(change_member(probe, &add), HOLDFAST_CODE_OK);
    pass(probe->cluster, SETTLE_US);
    assert_int_equal(change_member(probe, &promote), HOLDFAST_CODE_CONDITION);
    assert_non_null(strstr(probe->result.message, "has not caught up"));
    list(probe);
    assert_int_equal(member_of(4)->heard_ms_ago, UINT64_MAX);
    const struct replica *leader = leader_of(probe->cluster);
    isolate(probe->cluster, &probe->cluster->replicas[(leader->number + 1) % 3], false);
    (void)put(probe, "key", "value", 5);
    assert_int_equal(change_member(probe, &remove), HOLDFAST_CODE_OK);
    (void)put(probe, "key", "other", 5);
    end(probe);
}

static void test_h66_node_that_joins_later_does_not_bring_back_what_was_deleted(void **state) {
    (void)state;
    struct probe *probe = probe_start(cluster_new_growing(SEED, 4, 3), configure_nothing);
    const struct replica *fourth = &probe->cluster->replicas[3];
    const struct holdfast_member_change add = adding_of(fourth);
    const struct holdfast_member_change promote = {.action = HOLDFAST_MEMBER_PROMOTE, .id = 4};
    (void)put(probe, "deleted", "value", 5);
    (void)put(probe, "kept", "value", 5);
    client_request_init(&probe->request, CLIENT_DELETE, probe_done);
    probe->request.key = slice_of_string("deleted");
    (void)run(probe);
    assert_int_equal(probe->result.outcome, HOLDFAST_OK);
    assert_int_equal(change_member(probe, &add), HOLDFAST_CODE_OK);
    pass(probe->cluster, SETTLE_US);
    assert_int_equal(change_member(probe, &promote), HOLDFAST_CODE_OK);
    assert_int_equal(transfer_lead(probe, 4), HOLDFAST_OK);
    assert_ptr_equal(leader_of(probe->cluster), fourth);
    assert_int_equal(get_at(probe, "deleted", 0), HOLDFAST_CODE_NOT_FOUND);
    assert_int_equal(get_at(probe, "kept", 0), HOLDFAST_CODE_OK);
    end(probe);
}

/* ---- A leader that goes ------------------------------------------------------------------------------------------ */

struct write {
    struct consensus_proposal proposal;
    struct batch_operation operation;
    uint8_t key[1];
    bool is_done;
};

struct writer {
    struct replica *replica;
    struct write *writes;
    uint32_t count;
    struct env_message message;
    bool is_posted;
};

static void write_done(struct consensus_proposal *proposal) {
    CONTAINER_OF(proposal, struct write, proposal)->is_done = true;
}

static void run_writes(struct env_message *message) {
    struct writer *writer = CONTAINER_OF(message, struct writer, message);
    writer->is_posted = false;
    for (uint32_t i = 0; i < WRITES_EACH && writer->count < WRITES_MAX; i++) {
        struct write *write = &writer->writes[writer->count++];
        write->key[0] = 'k';
        write->operation = (struct batch_operation){.kind = BATCH_PUT, .key = slice_of(write->key, 1)};
        write->proposal =
            (struct consensus_proposal){.loop = writer->replica->loop,
                                        .operations = &write->operation,
                                        .operation_count = 1,
                                        .deadline_us = env_clock_us(writer->replica->env) + WRITE_TIMEOUT_US,
                                        .done = write_done};
        consensus_propose(replica__consensus(writer->replica), &write->proposal);
    }
}

static uint32_t count_open(const struct writer *writer) {
    uint32_t open = 0;
    for (uint32_t i = 0; i < writer->count; i++) {
        open += !writer->writes[i].is_done;
    }
    return open;
}

/* Writes come in all the time, from before the removal until it has ended. */
static void write_while_it_leaves(struct probe *probe, struct writer *writer) {
    const struct holdfast_member_change remove = {.action = HOLDFAST_MEMBER_REMOVE, .id = writer->replica->config.id};
    uint64_t begin_us = sim_now_us(probe->cluster->sim);
    client_request_init(&probe->request, CLIENT_CHANGE_MEMBERS, probe_done);
    probe->request.changes = &remove;
    probe->request.change_count = 1;
    probe->is_busy = true;
    probe->message.run = probe_submit;
    env_post(probe->loop, &probe->message);
    while (probe->is_busy && sim_now_us(probe->cluster->sim) < begin_us + PATIENCE_US) {
        if (!writer->is_posted) {
            writer->is_posted = true;
            writer->message.run = run_writes;
            env_post(writer->replica->loop, &writer->message);
        }
        step(probe->cluster);
    }
    assert_int_equal(probe->result.outcome, HOLDFAST_OK);
}

static void test_h51_node_writes_on_a_leader_that_removes_itself_are_done_or_surely_not(void **state) {
    (void)state;
    struct probe *probe = probe_start(cluster_new_growing(SEED, 3, 3), configure_nothing);
    struct writer writer = {.replica = leader_of(probe->cluster), .writes = calloc(WRITES_MAX, sizeof(struct write))};
    uint32_t done = 0, refused = 0;
    write_while_it_leaves(probe, &writer);
    pass(probe->cluster, SOON_US);
    assert_ptr_not_equal(leader_of(probe->cluster), writer.replica);
    assert_int_equal(count_open(&writer), 0); /* well before their deadlines */
    for (uint32_t i = 0; i < writer.count; i++) {
        assert_false(writer.writes[i].proposal.unknown);
        done += writer.writes[i].proposal.status == STATUS_OK;
        refused += writer.writes[i].proposal.status != STATUS_OK;
    }
    assert_true(done > 0 && refused > 0);
    end(probe);
    free(writer.writes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_node_members_change_as_an_admin_asks),
        cmocka_unit_test(test_h62_node_member_of_a_wrong_address_costs_no_quorum),
        cmocka_unit_test(test_h66_node_that_joins_later_does_not_bring_back_what_was_deleted),
        cmocka_unit_test(test_h51_node_writes_on_a_leader_that_removes_itself_are_done_or_surely_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
