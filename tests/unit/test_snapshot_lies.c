/*
 * What a peer may say falsely, or at a wrong time, about a snapshot (HAZARDS 19, 20, 35, 46). Would break these: a
 * damaged chunk or a lying peer ends a node, leaves files or a transfer behind, or gets into the store; a transfer that
 * never gets on is kept for ever; an APPEND, or a snapshot that isn't wanted, comes between an install and its switch.
 */
#include "tests/unit/snapshot_fixture.h"

/* ---- Peers that lie ---------------------------------------------------------------------------------------------- */

struct forged {
    struct env_message message;
    struct replica *replica;
    uint64_t from;
    uint8_t type;
    uint8_t bytes[256];
    size_t len;
    struct slice raw;
    bool is_done;
};

static void run_forged(struct env_message *message) {
    struct forged *forged = CONTAINER_OF(message, struct forged, message);
    snapshots_receive(replica__consensus(forged->replica)->snapshots, forged->from, forged->type,
                      slice_of(forged->bytes, forged->len), forged->raw);
    forged->is_done = true;
}

static void forge(struct replica *replica, uint64_t from, uint8_t type, const ProtobufCMessage *wire,
                  struct slice raw) {
    struct forged forged = {.replica = replica, .from = from, .type = type, .raw = raw};
    assert_true(protobuf_c_message_get_packed_size(wire) <= sizeof forged.bytes);
    forged.len = protobuf_c_message_pack(wire, forged.bytes);
    forged.message.run = run_forged;
    env_post(replica->loop, &forged.message);
    while (!forged.is_done) {
        step(replica->cluster);
    }
}

/* What would be right now, but for what the case spoils. */
static Wire__SnapshotChunk next_chunk(const struct snapshot_receive *receive, struct slice raw) {
    Wire__SnapshotChunk chunk = WIRE__SNAPSHOT_CHUNK__INIT;
    chunk.has_id = chunk.has_file = chunk.has_kind = chunk.has_number = chunk.has_file_bytes = chunk.has_offset =
        chunk.has_checksum = 1;
    chunk.id = receive->id;
    chunk.file = receive->next.file;
    chunk.kind = FILE_SST;
    chunk.number = 999;
    chunk.file_bytes = raw.len;
    chunk.offset = receive->next.offset;
    chunk.checksum = checksum64(raw.data, raw.len, chunk.offset);
    return chunk;
}

static void test_snapshot_damaged_and_misplaced_chunks_are_sent_again(void **state) {
    (void)state;
    static const uint8_t bytes[100];
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    start_replica(away);
    await_bytes(away, 50 * 1000);
    uint64_t leader_id = leader_of(cluster)->number + 1;
    struct slice raw = slice_of(bytes, sizeof bytes);
    uint64_t id = receive_of(away)->id;
    for (int kind = 0; kind < 5; kind++) {
        uint64_t arrived = receive_of(away)->arrived_bytes;
        Wire__SnapshotChunk chunk = next_chunk(receive_of(away), raw);
        switch (kind) {
        case 0: chunk.checksum++; break;
        case 1: chunk.file++; break;
        case 2: chunk.id++; break;
        case 3: chunk.offset = UINT64_MAX; break;
        default: chunk.file = UINT32_MAX; break;
        }
        forge(away, leader_id, FRAME_SNAPSHOT_CHUNK, &chunk.base, raw);
        assert_true(receive_of(away)->arrived_bytes >= arrived);
        assert_true(receives(away, 1) && receive_of(away)->id == id);
        await_bytes(away, arrived + 20 * 1000);
    }
    Wire__SnapshotChunk chunk = next_chunk(receive_of(away), raw);
    forge(away, leader_id + 7, FRAME_SNAPSHOT_CHUNK, &chunk.base, raw); /* somebody else's */
    assert_true(receives(away, 1));
    assert_same(cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    assert_int_equal(ask_status(leader_of(cluster)).snapshots.failed, 0);
    end(probe);
}

static void test_h35_snapshot_of_a_lying_peer_is_refused(void **state) {
    (void)state;
    static const uint8_t bytes[SNAPSHOT_CHUNK_BYTES + 1];
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    uint64_t leader_id = leader_of(cluster)->number + 1;
    for (int kind = 0; kind < 7; kind++) {
        if (!away->serving) {
            start_replica(away);
        }
        await_bytes(away, 1);
        uint64_t begin_us = sim_now_us(cluster->sim);
        while (receive_of(away)->next.offset != 0 && goes_on(cluster, begin_us)) {
        }
        struct slice raw = slice_of(bytes, kind == 0 ? sizeof bytes : kind == 1 ? 0 : 100);
        Wire__SnapshotChunk chunk = next_chunk(receive_of(away), raw);
        switch (kind) {
        case 0: break;                         /* too long */
        case 1: chunk.file_bytes = 100; break; /* empty */
        case 2: chunk.kind = FILE_OTHER; break;
        case 3: chunk.kind = UINT32_MAX; break;
        case 4: chunk.file_bytes = UINT64_MAX; break;
        case 5: chunk.file_bytes = 99; break;
        default:
            chunk.kind = FILE_CURRENT;
            chunk.number = 1;
            break;
        }
        chunk.checksum = checksum64(raw.data, raw.len, chunk.offset);
        uint64_t id = receive_of(away)->id;
        forge(away, leader_id, FRAME_SNAPSHOT_CHUNK, &chunk.base, raw);
        assert_false(receives(away, 0) && receive_of(away)->id == id);
        pass(cluster, 100 * 1000);
    }
    assert_same(cluster);
    end(probe);
}

/* For how long a peer keeps a transfer that says each second that it is taking it in, and says so by `step` bytes more.
 */
static uint64_t kept_us_by(struct probe *probe, struct replica *away, uint64_t step_bytes, uint64_t *ret_bytes) {
    struct cluster *cluster = probe->cluster;
    struct replica *leader = leader_of(cluster);
    start_replica(away);
    await_bytes(away, 1);
    sim_partition(leader->sim_node, away->sim_node);
    const struct snapshot_send *send = send_to(leader, away);
    Wire__SnapshotWant want = WIRE__SNAPSHOT_WANT__INIT;
    want.has_id = want.has_state = want.has_taken_bytes = 1;
    want.id = send->id;
    want.state = SNAPSHOT_WANT_TIME;
    *ret_bytes = send->total_bytes;
    uint64_t begin_us = sim_now_us(cluster->sim);
    while (send->id == want.id && sim_now_us(cluster->sim) < begin_us + 3600 * (uint64_t)SECOND_US) {
        want.taken_bytes += step_bytes;
        forge(leader, away->number + 1, FRAME_SNAPSHOT_WANT, &want.base, SLICE_EMPTY);
        pass(cluster, SECOND_US);
    }
    sim_heal(leader->sim_node, away->sim_node);
    return sim_now_us(cluster->sim) - begin_us;
}

static void test_h46_snapshot_of_a_peer_that_never_gets_on_is_given_up(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct replica *away = leave_behind(probe);
    uint64_t bytes = 0;
    uint64_t kept_us = kept_us_by(probe, away, 0, &bytes);
    uint64_t silent_us = SNAPSHOT_WORDS_US + SNAPSHOT_SEND_PATIENCE_US;
    assert_in_range(kept_us, SNAPSHOT_WORDS_US, silent_us + 3 * SECOND_US);
    replica__crash(away, SIM_CRASH_PROCESS);
    kept_us = kept_us_by(probe, away, 1, &bytes); /* it gets on, but not so that it would ever end */
    uint64_t most_us = SNAPSHOT_SEND_GRACE_US + bytes * SECOND_US / (SLOW_RATE / SNAPSHOT_RATE_MIN_PART);
    assert_in_range(kept_us, 2 * silent_us, most_us + SECOND_US);
    assert_same(probe->cluster);
    end(probe);
}

/* The answer of one who asks for a place of the transfer once more, without the place. */
static Wire__SnapshotWant want_again(const struct snapshot_send *send) {
    Wire__SnapshotWant want = WIRE__SNAPSHOT_WANT__INIT;
    want.has_id = want.has_state = want.has_file = want.has_offset = want.has_again = want.has_window = 1;
    want.id = send->id;
    want.state = SNAPSHOT_WANT_BYTES;
    want.again = 1;
    return want;
}

/* An offer that was only slow to be answered makes the sender go back, while what it sent behind it is on its way. */
static void test_snapshot_goes_on_when_what_it_went_back_for_arrives_after_all(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    start_replica(away);
    for (uint64_t part = 1; part <= 3; part++) {
        await_bytes(away, part * 100 * 1000);
        const struct snapshot_send *send = send_to(leader, away);
        uint64_t begin_us = sim_now_us(cluster->sim);
        while (send->flight_count == 0 && goes_on(cluster, begin_us)) {
        }
        assert_true(send->flight_count > 0);
        Wire__SnapshotWant want = want_again(send);
        want.file = send->flight[send->flight_head].file;
        want.offset = send->flight[send->flight_head].offset;
        want.window = SNAPSHOT_WINDOW_CHUNKS;
        forge(leader, away->number + 1, FRAME_SNAPSHOT_WANT, &want.base, SLICE_EMPTY);
        assert_int_equal(send->flight_count, 0);
    }
    assert_same(cluster);
    assert_int_equal(ask_status(leader).snapshots.failed, 0);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    end(probe);
}

static void test_h35_snapshot_answers_of_a_lying_peer_end_the_transfer_only(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    start_replica(away);
    for (int kind = 0; kind < 4; kind++) {
        const struct snapshot_send *send = send_to(leader, away);
        uint64_t begin_us = sim_now_us(cluster->sim);
        while (send->state != SNAPSHOT_SEND_STREAMING && goes_on(cluster, begin_us)) {
        }
        Wire__SnapshotWant want = want_again(send);
        want.state = kind == 3 ? 77 : SNAPSHOT_WANT_BYTES;
        want.window = UINT32_MAX;
        want.file = kind == 0 ? UINT32_MAX : kind == 1 ? send->file_count : 0;
        want.offset = kind == 2 ? UINT64_MAX : kind == 1 ? 1 : 0;
        uint64_t failed = replica__consensus(leader)->snapshots->failed;
        forge(leader, away->number + 1, FRAME_SNAPSHOT_WANT, &want.base, SLICE_EMPTY);
        assert_int_equal(replica__consensus(leader)->snapshots->failed, failed + 1);
        pass(cluster, SECOND_US);
    }
    assert_same(cluster);
    end(probe);
}

/* ---- What must not come between ---------------------------------------------------------------------------------- */

struct forged_append {
    struct env_message message;
    struct replica *replica;
    struct raft_message append;
    uint8_t record[WAL_RECORD_HEADER_BYTES];
    bool is_done;
};

static void run_forged_append(struct env_message *message) {
    struct forged_append *forged = CONTAINER_OF(message, struct forged_append, message);
    append__received(replica__consensus(forged->replica), &forged->append,
                     slice_of(forged->record, sizeof forged->record));
    forged->is_done = true;
}

/* Another leader's log may still have what this one's has not: its APPEND comes while the manifest is switched. */
static void test_h19_append_while_a_snapshot_is_switched_to_is_dropped(void **state) {
    (void)state;
    struct probe *probe = start(configure);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    start_replica(away);
    uint64_t begin_us = sim_now_us(cluster->sim);
    while (!is_about_to_switch(away) && goes_on(cluster, begin_us)) {
    }
    assert_true(is_about_to_switch(away));
    const struct raft *raft = replica__consensus(away)->raft;
    uint64_t last_index = raft_last_index(raft);
    struct forged_append forged = {.replica = away,
                                   .append = {.type = RAFT_APPEND,
                                              .from = leader_of(cluster)->number + 1,
                                              .to = away->number + 1,
                                              .term = raft_term(raft),
                                              .index = last_index,
                                              .log_term = raft_term_at(raft, last_index),
                                              .entry_count = 1}};
    wal_record_seal(forged.record, RAFT_ENTRY_NOOP, last_index + 1, raft_term(raft), 0);
    forged.message.run = run_forged_append;
    env_post(away->loop, &forged.message);
    while (!forged.is_done) {
        step(cluster);
        assert_true(forged.is_done || is_about_to_switch(away));
    }
    assert_true(raft_last_index(raft) == last_index || !is_about_to_switch(away));
    fill(probe, 5);
    assert_same(cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    end(probe);
}

static void test_h20_snapshot_that_is_not_wanted_is_declined(void **state) {
    (void)state;
    struct probe *probe = start(configure);
    struct cluster *cluster = probe->cluster;
    fill(probe, 30);
    await_level(cluster);
    struct replica *follower = follower_of(cluster);
    uint64_t leader_id = leader_of(cluster)->number + 1;
    uint64_t commit_index = ask_status(follower).commit_index;
    Wire__SnapshotOffer offer = WIRE__SNAPSHOT_OFFER__INIT;
    offer.has_id = offer.has_term = offer.has_index = offer.has_log_term = offer.has_file_count =
        offer.has_total_bytes = 1;
    offer.id = 77;
    offer.term = ask_status(follower).term;
    offer.log_term = offer.term;
    offer.file_count = 3;
    offer.total_bytes = 1000;
    for (int kind = 0; kind < 5; kind++) {
        Wire__SnapshotOffer spoilt = offer;
        uint64_t from_id = leader_id;
        switch (kind) {
        case 0: spoilt.index = commit_index; break; /* it has that */
        case 1: spoilt.index = 1; break;
        case 2: /* of a leader that was */
            spoilt.index = commit_index + 100;
            spoilt.term--;
            spoilt.log_term--;
            break;
        case 3: /* of nobody who leads this term */
            spoilt.index = commit_index + 100;
            from_id = 6 - leader_id - (follower->number + 1);
            break;
        default: /* nonsense */
            spoilt.index = commit_index + 100;
            spoilt.log_term = spoilt.term + 1;
            break;
        }
        forge(follower, from_id, FRAME_SNAPSHOT_OFFER, &spoilt.base, SLICE_EMPTY);
        assert_int_equal(receive_of(follower)->state, SNAPSHOT_RECEIVE_IDLE);
    }
    fill(probe, 5);
    assert_same(cluster);
    end(probe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot_damaged_and_misplaced_chunks_are_sent_again),
        cmocka_unit_test(test_h35_snapshot_of_a_lying_peer_is_refused),
        cmocka_unit_test(test_h46_snapshot_of_a_peer_that_never_gets_on_is_given_up),
        cmocka_unit_test(test_snapshot_goes_on_when_what_it_went_back_for_arrives_after_all),
        cmocka_unit_test(test_h35_snapshot_answers_of_a_lying_peer_end_the_transfer_only),
        cmocka_unit_test(test_h19_append_while_a_snapshot_is_switched_to_is_dropped),
        cmocka_unit_test(test_h20_snapshot_that_is_not_wanted_is_declined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
