/* Snapshot transfers as a whole: life, frames in, what pins the log, what status says. */
#include "node/server/snapshot_internal.h"

#include <stdio.h>

enum { ARENA_CHUNK_BYTES = 4096 };

const char *snapshot__name_of(const struct snapshots *snapshots, uint64_t node_id) {
    return member__name(snapshots->consensus, node_id);
}

void snapshot__arm(struct snapshots *snapshots, struct env_timer *timer, uint64_t at_us) {
    if (!snapshots->stopping && env_timer_arm(timer, at_us) != STATUS_OK) {
        struct error error;
        (void)error_set(&error, STATUS_NO_MEMORY, "a snapshot's timer can't be armed");
        consensus__fail(snapshots->consensus, &error);
    }
}

/* ---- In --------------------------------------------------------------------------------------------------------- */

static struct snapshot_send *find_send(struct snapshots *snapshots, uint64_t peer) {
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (snapshots->sends[i].peer == peer) {
            return &snapshots->sends[i];
        }
    }
    return NULL;
}

/* The slot of nobody who needs anything now; rather not of one for whom the log behind his snapshot is kept. There are
 * as many as members, and who is none any more gives his back soon. */
static struct snapshot_send *find_free(struct snapshots *snapshots) {
    struct snapshot_send *idle = NULL;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        struct snapshot_send *send = &snapshots->sends[i];
        if (send->state == SNAPSHOT_SEND_IDLE && (idle == NULL || send->follow_until_us == 0)) {
            idle = send;
        }
    }
    return idle;
}

void snapshots_request(struct snapshots *snapshots, const uint64_t *peers, uint32_t peer_count) {
    for (uint32_t i = 0; i < peer_count && !snapshots->stopping; i++) {
        struct snapshot_send *send = find_send(snapshots, peers[i]);
        send = send != NULL ? send : find_free(snapshots);
        if (send != NULL) {
            snapshot_send__request(send, peers[i]);
        }
    }
}

#define UNPACK(type, descriptor) ((const type *)(const void *)wire_unpack(&snapshots->arena, &(descriptor), message))

void snapshots_receive(struct snapshots *snapshots, uint64_t node_id, uint8_t type, struct slice message,
                       struct slice raw) {
    if (snapshots->stopping || consensus__is_dead(snapshots->consensus)) {
        return;
    }
    arena_reset(&snapshots->arena);
    if (type == FRAME_SNAPSHOT_OFFER) {
        const Wire__SnapshotOffer *offer = UNPACK(Wire__SnapshotOffer, wire__snapshot_offer__descriptor);
        if (offer != NULL) {
            snapshot_receive__offer(snapshots, node_id, offer);
        }
    } else if (type == FRAME_SNAPSHOT_CHUNK) {
        const Wire__SnapshotChunk *chunk = UNPACK(Wire__SnapshotChunk, wire__snapshot_chunk__descriptor);
        if (chunk != NULL) {
            snapshot_receive__chunk(snapshots, node_id, chunk, raw);
        }
    } else if (type == FRAME_SNAPSHOT_WANT) {
        const Wire__SnapshotWant *want = UNPACK(Wire__SnapshotWant, wire__snapshot_want__descriptor);
        struct snapshot_send *send = find_send(snapshots, node_id);
        if (want != NULL && send != NULL) {
            snapshot_send__wanted(send, want);
        }
    }
}

/* ---- What others ask -------------------------------------------------------------------------------------------- */

bool snapshots_hold_log(const struct snapshots *snapshots) { return snapshots->receive.holds_log; }

static uint64_t pin_of(const struct snapshot_send *send) {
    const struct consensus *consensus = send->snapshots->consensus;
    struct raft_peer_info info;
    if (send->follow_until_us != 0 && raft_peer(consensus->raft, send->peer, &info) == STATUS_OK) {
        uint64_t sent_index = send->checkpoint.frontier.index;
        return info.match_index > sent_index ? info.match_index : sent_index;
    }
    return send->floor_index;
}

uint64_t snapshots_pin_index(const struct snapshots *snapshots) {
    uint64_t pin_index = UINT64_MAX;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        uint64_t index = pin_of(&snapshots->sends[i]);
        pin_index = index < pin_index ? index : pin_index;
    }
    return pin_index;
}

bool snapshots_pin_of(const struct snapshots *snapshots, uint64_t peer, uint64_t *ret_index) {
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (snapshots->sends[i].peer == peer && pin_of(&snapshots->sends[i]) != UINT64_MAX) {
            *ret_index = pin_of(&snapshots->sends[i]);
            return true;
        }
    }
    return false;
}

void snapshots_note_write(struct snapshots *snapshots, uint64_t took_us) {
    snapshot_pace_note_write(&snapshots->pace, snapshot__now_us(snapshots), took_us);
}

void snapshots_get_status(const struct snapshots *snapshots, struct snapshots_status *ret_status) {
    *ret_status = (struct snapshots_status){.sent = snapshots->sent,
                                            .installed = snapshots->installed,
                                            .failed = snapshots->failed};
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        const struct snapshot_send *send = &snapshots->sends[i];
        if (send->state == SNAPSHOT_SEND_IDLE) {
            continue;
        }
        bool is_paced = send->state == SNAPSHOT_SEND_STREAMING;
        ret_status->transfers[ret_status->transfer_count++] =
            (struct snapshot_status){.peer = send->peer,
                                     .state = snapshot_send__state_name(send->state),
                                     .index = send->checkpoint.frontier.index,
                                     .done_bytes = send->arrived_bytes,
                                     .total_bytes = send->total_bytes,
                                     .bytes_per_second = is_paced ? snapshot_pace_rate(&snapshots->pace) : 0,
                                     .pace = is_paced
                                                 ? snapshot_pace_reason_name(snapshot_pace_reason(&snapshots->pace))
                                                 : ""};
        if (send->problem[0] != '\0') {
            ret_status->failed_peer = send->peer;
            (void)snprintf(ret_status->problem, sizeof ret_status->problem, "%s", send->problem);
        }
    }
    const struct snapshot_receive *receive = &snapshots->receive;
    if (receive->state != SNAPSHOT_RECEIVE_IDLE) {
        ret_status->transfers[ret_status->transfer_count++] =
            (struct snapshot_status){.peer = receive->from,
                                     .incoming = true,
                                     .state = snapshot_receive__state_name(receive->state),
                                     .index = receive->index,
                                     .done_bytes = receive->arrived_bytes,
                                     .total_bytes = receive->total_bytes,
                                     .pace = ""};
    }
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

bool snapshots_work(const struct snapshots *snapshots) {
    bool works = snapshots->receive.is_working;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        works = works || snapshots->sends[i].is_working;
    }
    return works;
}

static void run_stopped(struct env_task *task) {
    struct snapshots *snapshots = CONTAINER_OF(task, struct snapshots, stop_task);
    snapshots->stopped(snapshots->stopped_context);
}

void snapshot__job_ended(struct snapshots *snapshots) {
    CHECK(snapshots->stopping);
    if (!snapshots_work(snapshots)) {
        env_defer(snapshots->consensus->options.loop, ENV_STAGE_PROCESS, &snapshots->stop_task);
    }
}

enum status snapshots_new(struct consensus *consensus, struct snapshots **ret_snapshots) {
    struct alloc *alloc = consensus->options.env->alloc;
    struct snapshots *snapshots = mem_alloc_zero(alloc, sizeof *snapshots);
    if (snapshots == NULL) {
        return STATUS_NO_MEMORY;
    }
    snapshots->consensus = consensus;
    arena_init(&snapshots->arena, alloc, ARENA_CHUNK_BYTES, LIMIT_UNPACK_BUDGET_BYTES);
    env_task_init(&snapshots->stop_task, run_stopped);
    snapshot_pace_init(&snapshots->pace, consensus->options.config->snapshot_rate);
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        snapshot_send__init(snapshots, &snapshots->sends[i]);
    }
    snapshot_receive__init(snapshots);
    *ret_snapshots = snapshots;
    return STATUS_OK;
}

void snapshots_stop(struct snapshots *snapshots, void (*stopped)(void *context), void *context) {
    CHECK(!snapshots->stopping);
    snapshots->stopping = true;
    snapshots->stopped = stopped;
    snapshots->stopped_context = context;
    snapshots->receive.holds_log = false;
    env_timer_cancel(&snapshots->receive.timer);
    env_timer_cancel(&snapshots->receive.ready_timer);
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        env_timer_cancel(&snapshots->sends[i].timer);
    }
    snapshot__job_ended(snapshots);
}

void snapshots_free(struct snapshots *snapshots) {
    if (snapshots == NULL) {
        return;
    }
    struct alloc *alloc = snapshot__alloc(snapshots);
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        snapshot_send__deinit(&snapshots->sends[i]);
    }
    snapshot_receive__deinit(&snapshots->receive);
    arena_deinit(&snapshots->arena);
    mem_free(alloc, snapshots);
}
