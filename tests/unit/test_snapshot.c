/*
 * Snapshots between whole nodes in the simulator (HAZARDS 18 to 21, 49, 63). Would break these: a follower behind the
 * log's begin stays there; a transfer that lost its connection begins anew, or hangs; a crash in an install leaves
 * tables without their log or a log without its tables; a new leader can't send; a full disk, no memory, a damaged
 * chunk or a lying peer end a node, or leave files, memory or a transfer behind; the rate isn't kept, or is kept
 * however the load suffers; the log that a transfer needs is deleted, or kept for ever.
 */
#include "node/base/bytes.h"
#include "node/base/checksum.h"
#include "node/base/random.h"
#include "node/server/snapshot_internal.h"
#include "storage/storage_internal.h"
#include "tests/unit/node_log_probe.h"

enum { BUDGET_BYTES = 384 * 1024, SECOND_US = 1000 * 1000, SLOW_RATE = 400 * 1000 };

static struct probe *start(void (*configure)(struct config *config)) {
    return probe_start(cluster_new(2), configure); /* three replicas, no drift */
}

static void configure(struct config *config) {
    config->follower_log_bytes = BUDGET_BYTES;
    config->snapshot_rate = 0;
}

static void configure_slow(struct config *config) {
    configure(config);
    config->snapshot_rate = SLOW_RATE;
}

/* As put_many, but with bytes that don't compress. */
static void fill(struct probe *probe, uint32_t count) {
    static uint8_t value[VALUE_BYTES];
    static uint64_t seed;
    struct random random;
    random_seed(&random, ++seed);
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "key%02u", i % 50);
        for (size_t k = 0; k < sizeof value; k += 8) {
            put_u64(value + k, random_next(&random));
        }
        client_request_init(&probe->request, CLIENT_PUT, probe_done);
        probe->request.key = slice_of_string(key);
        probe->request.value = slice_of(value, sizeof value);
        (void)run(probe);
        assert_int_equal(probe->result.outcome, HOLDFAST_OK);
    }
}

/* Until the leader's log begins behind what somebody had. */
static void write_past(struct probe *probe, uint64_t had_index) {
    uint64_t begin_us = sim_now_us(probe->cluster->sim);
    while (ask_status(leader_of(probe->cluster)).first_index <= had_index + 1) {
        assert_true(sim_now_us(probe->cluster->sim) < begin_us + PATIENCE_US);
        fill(probe, 20);
        pass(probe->cluster, SECOND_US / 5);
    }
}

/* A follower that is down, and that the leader's log can't bring up to date any more. */
static struct replica *leave_behind(struct probe *probe) {
    struct cluster *cluster = probe->cluster;
    fill(probe, 20);
    struct replica *away = follower_of(cluster);
    replica__crash(away, SIM_CRASH_PROCESS);
    uint64_t had_index = ask_status(leader_of(cluster)).last_index;
    write_past(probe, had_index);
    return away;
}

static void start_replica(struct replica *replica) {
    replica__schedule_restart(replica, 1000);
    while (!replica->serving) {
        step(replica->cluster);
    }
}

static struct snapshot_receive *receive_of(const struct replica *replica) {
    struct consensus *consensus = replica__consensus(replica);
    return consensus != NULL ? &consensus->snapshots->receive : NULL;
}

static bool receives(const struct replica *replica, uint64_t bytes) {
    const struct snapshot_receive *receive = receive_of(replica);
    return receive != NULL && receive->state == SNAPSHOT_RECEIVE_BYTES && receive->arrived_bytes >= bytes;
}

static void await_bytes(const struct replica *replica, uint64_t bytes) {
    uint64_t end_us = sim_now_us(replica->cluster->sim) + PATIENCE_US;
    while (!receives(replica, bytes) && sim_now_us(replica->cluster->sim) < end_us) {
        step(replica->cluster);
    }
    assert_true(receives(replica, bytes));
}

/* False: it is taking too long. */
static bool goes_on(struct cluster *cluster, uint64_t begin_us) {
    step(cluster);
    return sim_now_us(cluster->sim) < begin_us + PATIENCE_US;
}

static bool is_level(struct cluster *cluster) { return checker__converged(cluster); }

static void await_level(struct cluster *cluster) {
    uint64_t end_us = sim_now_us(cluster->sim) + 3 * PATIENCE_US;
    while (!is_level(cluster) && sim_now_us(cluster->sim) < end_us) {
        step(cluster);
    }
    if (!is_level(cluster)) {
        cluster_print_failure(cluster);
    }
    assert_true(is_level(cluster));
}

static uint64_t digest_of(struct replica *replica) {
    struct storage_view *view = storage_view_acquire(replica__consensus(replica)->storage);
    struct storage_iterator *iterator = NULL;
    struct error error = {0};
    uint64_t digest = storage_view_revision(view);
    assert_int_equal(storage_iterator_new(view, NULL, NULL, &iterator, &error), STATUS_OK);
    enum status status = storage_iterator_first(iterator, &error);
    for (; status == STATUS_OK; status = storage_iterator_next(iterator, &error)) {
        struct slice key = storage_iterator_key(iterator);
        struct slice value;
        uint64_t revision = storage_iterator_revision(iterator);
        assert_int_equal(storage_iterator_value(iterator, &value, &error), STATUS_OK);
        digest = checksum64(key.data, key.len, digest);
        digest = checksum64(value.data, value.len, digest ^ revision);
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    storage_iterator_free(iterator);
    storage_view_release(view);
    return digest;
}

/* All replicas show the same pairs; nothing of a transfer is left. */
static void assert_same(struct cluster *cluster) {
    await_level(cluster);
    pass(cluster, SECOND_US);
    uint64_t digest = digest_of(&cluster->replicas[0]);
    for (uint32_t i = 0; i < cluster->replica_count; i++) {
        assert_true(digest_of(&cluster->replicas[i]) == digest);
        struct snapshots_status status = ask_status(&cluster->replicas[i]).snapshots;
        assert_int_equal(status.transfer_count, 0);
    }
}

static const struct snapshot_send *send_to(const struct replica *leader, const struct replica *peer) {
    const struct snapshots *snapshots = replica__consensus(leader)->snapshots;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (snapshots->sends[i].peer == peer->number + 1u) {
            return &snapshots->sends[i];
        }
    }
    fail_msg("%s sends nothing to %s", leader->config.name, peer->config.name);
    return NULL;
}

/* ---- All is well ------------------------------------------------------------------------------------------------- */

static void test_snapshot_brings_back_a_follower_while_writes_go_on(void **state) {
    (void)state;
    struct probe *probe = start(configure);
    struct replica *away = leave_behind(probe);
    start_replica(away);
    fill(probe, 100);
    assert_same(probe->cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    assert_int_equal(ask_status(leader_of(probe->cluster)).snapshots.sent, 1);
    assert_int_equal(ask_status(leader_of(probe->cluster)).snapshots.failed, 0);
    assert_true(ask_status(away).first_index > 1);
    /* It is a member as any other afterwards: its log, its votes, its restarts. */
    replica__crash(away, SIM_CRASH_POWER);
    start_replica(away);
    fill(probe, 20);
    assert_same(probe->cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 0); /* of this life */
    end(probe);
}

static void test_h63_snapshot_keeps_to_its_rate_and_pins_what_it_needs(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    uint64_t term = ask_status(leader).term;
    start_replica(away);
    await_bytes(away, 1);
    uint64_t begin_us = sim_now_us(cluster->sim);
    uint64_t bytes = receive_of(away)->total_bytes;
    char owner[128];
    (void)snprintf(owner, sizeof owner, "follower %s (snapshot)", away->config.name);
    uint64_t sent_index = receive_of(away)->index;
    while (receives(away, 1)) {
        fill(probe, 1);
        pass(cluster, SECOND_US / 10);
        struct asked_log *asked = ask_log(leader);
        if (receives(away, 1)) { /* what follows the snapshot stays until it is there */
            assert_true(asked->query.first_index <= sent_index + 1);
            assert_non_null(pin_of(asked, owner));
        }
        forget_log(leader, asked);
    }
    uint64_t took_us = sim_now_us(cluster->sim) - begin_us;
    assert_true(bytes > 0 && took_us + SECOND_US / 2 > bytes * SECOND_US / SLOW_RATE);
    assert_same(cluster);
    assert_int_equal(ask_status(leader).term, term); /* nobody called an election */
    pass(cluster, SNAPSHOT_FOLLOW_US);
    struct asked_log *asked = ask_log(leader);
    assert_null(pin_of(asked, owner));
    forget_log(leader, asked);
    end(probe);
}

/* So many writes that the leader answered end at once, as far as the pace of its transfers knows. */
static void note_writes(const struct replica *leader, uint32_t count, uint64_t took_us) {
    for (uint32_t i = 0; i < count; i++) {
        snapshots_note_write(replica__consensus(leader)->snapshots, took_us);
    }
}

static void test_h63_snapshot_gives_way_to_writes_that_it_slows_down(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    note_writes(leader, 5000, 1000); /* what they take without one */
    start_replica(away);
    await_bytes(away, 1);
    struct snapshot_status sent = {0};
    uint64_t begin_us = sim_now_us(cluster->sim);
    const struct snapshot_pace *pace = &replica__consensus(leader)->snapshots->pace;
    while (pace->slowed < 5 && goes_on(cluster, begin_us)) {
        for (uint64_t sent_us = pace->sent_us; pace->sent_us == sent_us && goes_on(cluster, begin_us);) {
        }
        note_writes(leader, 300, SECOND_US / 5); /* those that meet a piece */
        struct snapshots_status status = ask_status(leader).snapshots;
        assert_int_equal(status.transfer_count, 1); /* it would be over too soon */
        sent = status.transfers[0];
    }
    assert_true(pace->slowed >= 5 && sim_now_us(cluster->sim) > begin_us + SECOND_US);
    assert_in_range(sent.bytes_per_second, SLOW_RATE / SNAPSHOT_PACE_FLOOR_PART, SLOW_RATE / 2);
    assert_string_equal(sent.pace, "load");
    assert_same(cluster); /* it ends nevertheless */
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    end(probe);
}

/* ---- Connections, leaders and nodes that go ---------------------------------------------------------------------- */

static void test_snapshot_goes_on_where_it_was_after_a_disconnect(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    start_replica(away);
    for (uint64_t part = 1; part <= 4; part++) {
        await_bytes(away, part * 60 * 1000);
        uint64_t id = receive_of(away)->id;
        uint64_t begin_us = sim_now_us(cluster->sim);
        while (send_to(leader, away)->flight_count > 0 && goes_on(cluster, begin_us)) {
        }
        while (send_to(leader, away)->flight_count == 0 && goes_on(cluster, begin_us)) {
        }
        sim_reset_connections(leader->sim_node, away->sim_node);
        sim_partition(leader->sim_node, away->sim_node);
        pass(cluster, 20 * 1000);
        sim_heal(leader->sim_node, away->sim_node);
        await_bytes(away, part * 60 * 1000 + 1); /* it never falls back */
        assert_int_equal(receive_of(away)->id, id);
    }
    assert_same(cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    assert_true(send_to(leader, away)->resumes >= 1);
    end(probe);
}

static void test_snapshot_of_a_leader_that_is_lost_is_sent_anew_by_the_next(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    start_replica(away);
    await_bytes(away, 100 * 1000);
    uint64_t id = receive_of(away)->id;
    replica__crash(leader, SIM_CRASH_POWER);
    uint64_t begin_us = sim_now_us(cluster->sim);
    while ((!receives(away, 1) || receive_of(away)->id == id) && goes_on(cluster, begin_us)) {
    }
    assert_true(receives(away, 1));
    start_replica(leader);
    assert_same(cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    end(probe);
}

static void test_snapshot_receiver_that_stops_leaves_no_files_and_gets_it_anew(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    start_replica(away);
    await_bytes(away, 100 * 1000);
    uint64_t lives = away->lives;
    assert_true(replica__stop(away)); /* the replica sees that no memory is left */
    uint64_t begin_us = sim_now_us(cluster->sim);
    while ((away->lives == lives || !away->serving) && goes_on(cluster, begin_us)) {
    }
    assert_true(receive_of(away)->arrived_bytes < 100 * 1000);
    struct replica *leader = leader_of(cluster);
    await_bytes(away, 1);
    lives = leader->lives;
    assert_true(replica__stop(leader)); /* and one that sends */
    begin_us = sim_now_us(cluster->sim);
    while ((leader->lives == lives || !leader->serving) && goes_on(cluster, begin_us)) {
    }
    assert_same(cluster);
    assert_int_equal(ask_status(away).snapshots.installed, 1);
    end(probe);
}

static bool is_installing(const struct replica *replica) {
    const struct snapshot_receive *receive = receive_of(replica);
    return receive != NULL && receive->state == SNAPSHOT_RECEIVE_INSTALLING;
}

static bool is_about_to_switch(const struct replica *replica) {
    const struct snapshot_receive *receive = receive_of(replica);
    return receive != NULL && receive->holds_log;
}

/* The node dies so many steps after a point of its install, and comes back. *ret_after: after the switch, as it knew.
 */
static void crash_after(struct probe *probe, struct replica *away, bool (*reached)(const struct replica *replica),
                        uint64_t steps, enum sim_crash crash, bool *ret_after) {
    struct cluster *cluster = probe->cluster;
    start_replica(away);
    uint64_t begin_us = sim_now_us(cluster->sim);
    while (!reached(away) && !is_level(cluster) && goes_on(cluster, begin_us)) {
    }
    bool was_after = is_level(cluster); /* already the last time: the switch was durable, and nobody knew */
    assert_true(reached(away) || was_after);
    for (uint64_t i = 0; i < steps && !was_after; i++) {
        step(cluster);
    }
    *ret_after = was_after || replica__consensus(away)->snapshots->installed > 0;
    replica__crash(away, crash);
    fill(probe, 2);
    if (*ret_after) {
        start_replica(away); /* whole, with the log that goes with it */
        await_level(cluster);
        replica__crash(away, SIM_CRASH_PROCESS);
        write_past(probe, ask_status(leader_of(cluster)).last_index);
    }
}

/* Power goes at any point of an install: the old state or the new one, and the log that goes with it. */
static void test_h21_crash_in_an_install_leaves_the_old_state_or_the_new_one(void **state) {
    (void)state;
    struct probe *probe = start(configure);
    struct replica *away = leave_behind(probe);
    bool is_after = false;
    uint32_t rounds = 0;
    for (uint64_t steps = 0; !is_after; steps += 60) {
        crash_after(probe, away, is_installing, steps, SIM_CRASH_POWER, &is_after);
        rounds++;
    }
    assert_true(rounds > 5);
    start_replica(away);
    assert_same(probe->cluster);
    end(probe);
}

/* The same, closely, around the switch of the manifest, where the commit point is, and the log's group behind it. */
static void test_h21_crash_between_the_switch_and_the_logs_group_is_no_damage(void **state) {
    (void)state;
    struct probe *probe = start(configure);
    struct replica *away = leave_behind(probe);
    uint32_t before = 0;
    uint32_t after = 0;
    for (uint64_t steps = 0; after < 6; steps += after == 0 ? 3 : 1) {
        bool is_after = false;
        crash_after(probe, away, is_about_to_switch, steps, steps % 2 == 0 ? SIM_CRASH_POWER : SIM_CRASH_PROCESS,
                    &is_after);
        before += !is_after;
        after += is_after;
        assert_true(before < 100);
    }
    assert_true(before > 2);
    start_replica(away);
    assert_same(probe->cluster);
    end(probe);
}

/* ---- Trouble ----------------------------------------------------------------------------------------------------- */

static void test_snapshot_that_meets_a_full_disk_is_told_of_and_comes_later(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    start_replica(away);
    await_bytes(away, 50 * 1000);
    sim_disk_options(away->sim_node)->capacity_bytes = 0;
    pass(cluster, 5 * SECOND_US);
    struct consensus_status status = ask_status(leader_of(cluster));
    assert_true(status.snapshots.failed > 0 && status.snapshots.failed < 20);
    char words[128];
    (void)snprintf(words, sizeof words, "follower %s gets no snapshot", away->config.name);
    assert_non_null(strstr(status.problem, words));
    sim_disk_options(away->sim_node)->capacity_bytes = CLUSTER_DISK_BYTES;
    assert_same(cluster);
    assert_string_equal(ask_status(leader_of(cluster)).problem, "");
    end(probe);
}

static void test_snapshot_without_memory_at_either_side_comes_later(void **state) {
    (void)state;
    struct probe *probe = start(configure_slow);
    struct cluster *cluster = probe->cluster;
    struct replica *away = leave_behind(probe);
    struct replica *leader = leader_of(cluster);
    start_replica(away);
    for (uint64_t part = 1; part <= 3; part++) {
        uint64_t begin_us = sim_now_us(cluster->sim);
        while (!receives(away, 1) && !is_level(cluster) && goes_on(cluster, begin_us)) {
        }
        struct replica *victim = part % 2 == 0 ? leader : away;
        victim->fault_explains_end = true; /* other parts of it may have to give up */
        sim_node_fail_allocations(victim->sim_node, 20 * 1000);
        pass(cluster, 50 * 1000);
        sim_node_fail_allocations(victim->sim_node, 0);
    }
    assert_same(cluster);
    end(probe);
}

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
        Wire__SnapshotWant want = WIRE__SNAPSHOT_WANT__INIT;
        want.has_id = want.has_state = want.has_file = want.has_offset = want.has_again = want.has_window = 1;
        want.id = send->id;
        want.state = SNAPSHOT_WANT_BYTES;
        want.file = send->flight[send->flight_head].file;
        want.offset = send->flight[send->flight_head].offset;
        want.window = SNAPSHOT_WINDOW_CHUNKS;
        want.again = 1;
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
        Wire__SnapshotWant want = WIRE__SNAPSHOT_WANT__INIT;
        want.has_id = want.has_state = want.has_file = want.has_offset = want.has_again = want.has_window = 1;
        want.id = send->id;
        want.state = kind == 3 ? 77 : SNAPSHOT_WANT_BYTES;
        want.window = UINT32_MAX;
        want.file = kind == 0 ? UINT32_MAX : kind == 1 ? send->file_count : 0;
        want.offset = kind == 2 ? UINT64_MAX : kind == 1 ? 1 : 0;
        want.again = 1;
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
    for (int kind = 0; kind < 4; kind++) {
        Wire__SnapshotOffer spoilt = offer;
        switch (kind) {
        case 0: spoilt.index = commit_index; break; /* it has that */
        case 1: spoilt.index = 1; break;
        case 2: /* of a leader that was */
            spoilt.index = commit_index + 100;
            spoilt.term--;
            spoilt.log_term--;
            break;
        default: /* nonsense */
            spoilt.index = commit_index + 100;
            spoilt.log_term = spoilt.term + 1;
            break;
        }
        forge(follower, leader_id, FRAME_SNAPSHOT_OFFER, &spoilt.base, SLICE_EMPTY);
        assert_int_equal(receive_of(follower)->state, SNAPSHOT_RECEIVE_IDLE);
    }
    fill(probe, 5);
    assert_same(cluster);
    end(probe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot_brings_back_a_follower_while_writes_go_on),
        cmocka_unit_test(test_h63_snapshot_keeps_to_its_rate_and_pins_what_it_needs),
        cmocka_unit_test(test_h63_snapshot_gives_way_to_writes_that_it_slows_down),
        cmocka_unit_test(test_snapshot_goes_on_where_it_was_after_a_disconnect),
        cmocka_unit_test(test_snapshot_goes_on_when_what_it_went_back_for_arrives_after_all),
        cmocka_unit_test(test_snapshot_of_a_leader_that_is_lost_is_sent_anew_by_the_next),
        cmocka_unit_test(test_snapshot_receiver_that_stops_leaves_no_files_and_gets_it_anew),
        cmocka_unit_test(test_h21_crash_in_an_install_leaves_the_old_state_or_the_new_one),
        cmocka_unit_test(test_h21_crash_between_the_switch_and_the_logs_group_is_no_damage),
        cmocka_unit_test(test_h19_append_while_a_snapshot_is_switched_to_is_dropped),
        cmocka_unit_test(test_h20_snapshot_that_is_not_wanted_is_declined),
        cmocka_unit_test(test_snapshot_that_meets_a_full_disk_is_told_of_and_comes_later),
        cmocka_unit_test(test_snapshot_without_memory_at_either_side_comes_later),
        cmocka_unit_test(test_snapshot_damaged_and_misplaced_chunks_are_sent_again),
        cmocka_unit_test(test_h35_snapshot_of_a_lying_peer_is_refused),
        cmocka_unit_test(test_h35_snapshot_answers_of_a_lying_peer_end_the_transfer_only),
        cmocka_unit_test(test_h46_snapshot_of_a_peer_that_never_gets_on_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
