/*
 * Sending one peer a snapshot.
 *
 *   IDLE --request--> WAITING --connected--> CHECKPOINT --> LISTING --> OFFERED <--(silence, rewind)--> STREAMING
 *     ^                  |                       |             |           |                               |
 *     |                  +------(leadership lost, failure, patience over; the peer says done)--------------+
 *     |                                                  |
 *     +--(ok)-- ENDING: its files go  <------------------+
 *     +--(failed)-- PAUSING <-- ENDING
 *
 * Raft hears of the end once: of a good one at once, of another after a pause that doubles, so that a peer whose disk
 * is full costs a checkpoint now and then only. Without a connection no checkpoint is made: one that waits for a dead
 * peer would keep files from being deleted.
 *
 * A worker reads a block; its chunks leave one by one, at most one in a turn, as the window, the pace (snapshot_pace.h)
 * and the connection have room. Owner: the consensus loop; the job fields are the worker's while is_working.
 *
 * What a peer does can't keep a transfer, and the files of its checkpoint, for ever: the patience is for how long
 * nothing moves, and all of it together has a lowest rate.
 */
#include "node/server/snapshot_internal.h"

#include "node/base/checksum.h"

#include <inttypes.h>
#include <stdio.h>

enum { NEED_AFTER_US = 1000 * 1000 }; /* how fast the log grows isn't known sooner */

static void advance(struct snapshot_send *send);
static void run_job(struct env_work *work);
static void job_done(struct env_work *work);

const char *snapshot_send__state_name(enum snapshot_send_state state) {
    static const char *const names[] = {
        [SNAPSHOT_SEND_IDLE] = "idle",
        [SNAPSHOT_SEND_WAITING] = "waiting",
        [SNAPSHOT_SEND_CHECKPOINT] = "checkpoint",
        [SNAPSHOT_SEND_LISTING] = "listing",
        [SNAPSHOT_SEND_OFFERED] = "offered",
        [SNAPSHOT_SEND_STREAMING] = "streaming",
        [SNAPSHOT_SEND_ENDING] = "ending",
        [SNAPSHOT_SEND_PAUSING] = "failed",
    };
    return names[state];
}

/* ---- Places ----------------------------------------------------------------------------------------------------- */

/* Bytes of the sequence before a place. */
static uint64_t bytes_before(const struct snapshot_send *send, struct snapshot_place place) {
    return place.file < send->file_count ? send->files[place.file].begin + place.offset : send->total_bytes;
}

static bool is_at_end(const struct snapshot_send *send, struct snapshot_place place) {
    return place.file == send->file_count;
}

static bool is_before(struct snapshot_place a, struct snapshot_place b) {
    return a.file != b.file ? a.file < b.file : a.offset < b.offset;
}

/* A place that a peer may name: the beginning of a file, inside of one, or the end of all. */
static bool is_place(const struct snapshot_send *send, struct snapshot_place place) {
    return place.file < send->file_count ? place.offset == 0 || place.offset < send->files[place.file].bytes
                                         : place.file == send->file_count && place.offset == 0;
}

static size_t block_len(const struct snapshot_send *send, struct snapshot_place place) {
    uint64_t left = send->files[place.file].bytes - place.offset;
    return left < SNAPSHOT_BLOCK_BYTES ? (size_t)left : SNAPSHOT_BLOCK_BYTES;
}

/* Chunks of a block. An empty file has one, too: it is to be made. */
static uint32_t chunk_count(size_t len) {
    return len == 0 ? 1 : (uint32_t)((len + SNAPSHOT_CHUNK_BYTES - 1) / SNAPSHOT_CHUNK_BYTES);
}

static struct slice chunk_at(const struct snapshot_send *send, uint32_t number) {
    size_t begin = (size_t)number * SNAPSHOT_CHUNK_BYTES;
    size_t left = send->job_len - begin;
    return slice_of(send->block + begin, left < SNAPSHOT_CHUNK_BYTES ? left : SNAPSHOT_CHUNK_BYTES);
}

static struct snapshot_place place_behind(const struct snapshot_send *send, struct snapshot_place place, size_t len) {
    place.offset += len;
    return place.offset < send->files[place.file].bytes ? place : (struct snapshot_place){.file = place.file + 1};
}

/* ---- Ending ----------------------------------------------------------------------------------------------------- */

static void submit(struct snapshot_send *send, enum snapshot_job job) {
    CHECK(!send->is_working);
    send->is_working = true;
    send->job = job;
    error_clear(&send->job_error);
    send->work = (struct env_work){.run = run_job, .done = job_done, .loop = send->snapshots->consensus->options.loop};
    env_work_submit(send->snapshots->consensus->options.env, job == SNAPSHOT_JOB_READ ? ENV_WORK_SHORT : ENV_WORK_LONG,
                    &send->work);
}

static void tell_raft(struct snapshot_send *send, bool ok) {
    struct raft_event event = {.type = RAFT_EVENT_SNAPSHOT_SENT,
                               .u.snapshot_sent = {.peer = send->peer,
                                                   .index = send->checkpoint.frontier.index,
                                                   .ok = ok}};
    (void)!consensus__step(send->snapshots->consensus, &event);
}

static void log_end(const struct snapshot_send *send) {
    const struct snapshots *snapshots = send->snapshots;
    uint64_t ms = (snapshot__now_us(snapshots) - send->begun_us) / 1000;
    uint64_t rate = send->arrived_bytes / (ms + 1) * 1000;
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    log_event(snapshots->consensus->options.logger, send->ended_ok ? LOG_INFO : LOG_WARN, "snapshot.sent",
              "peer=%s ok=%s index=%" PRIu64 " bytes=%" PRIu64 " of=%" PRIu64 " ms=%" PRIu64 " resumes=%" PRIu64
              " bytes_per_second=%" PRIu64 " slowed=%" PRIu64 " reason=%s",
              snapshot__name_of(snapshots, send->peer), send->ended_ok ? "true" : "false",
              send->checkpoint.frontier.index, send->arrived_bytes, send->total_bytes, ms, send->resumes, rate,
              snapshots->pace.slowed - send->slowed_before, log_quote(quoted, sizeof quoted, send->problem));
}

/* The files are gone, or stay until the directory is used again. */
static void ended(struct snapshot_send *send) {
    struct snapshots *snapshots = send->snapshots;
    mem_free(snapshot__alloc(snapshots), send->files);
    mem_free(snapshot__alloc(snapshots), send->block);
    send->files = NULL;
    send->block = NULL;
    send->file_count = 0;
    send->id = 0;
    send->floor_index = UINT64_MAX;
    if (!send->ended_ok) {
        send->state = SNAPSHOT_SEND_PAUSING;
        send->pause_us = send->pause_us == 0 ? SNAPSHOT_PAUSE_US_MIN : 2 * send->pause_us;
        send->pause_us = send->pause_us < SNAPSHOT_PAUSE_US_MAX ? send->pause_us : SNAPSHOT_PAUSE_US_MAX;
        send->pause_until_us = snapshot__now_us(snapshots) + send->pause_us;
        snapshot__arm(snapshots, &send->timer, send->pause_until_us);
        return;
    }
    send->state = SNAPSHOT_SEND_IDLE;
    if (send->is_requested) {
        send->is_requested = false;
        snapshot_send__request(send, send->peer);
    }
}

/* From any state but IDLE and PAUSING. */
static void end(struct snapshot_send *send, bool ok, const char *problem) {
    struct snapshots *snapshots = send->snapshots;
    if (send->state == SNAPSHOT_SEND_ENDING) {
        return;
    }
    send->ended_ok = ok;
    (void)snprintf(send->problem, sizeof send->problem, "%s", problem);
    if (send->state == SNAPSHOT_SEND_WAITING) {
        ended(send);
        return;
    }
    send->state = SNAPSHOT_SEND_ENDING;
    send->chunks_left = 0;
    log_end(send);
    if (ok) {
        const struct consensus *consensus = snapshots->consensus;
        send->pause_us = 0;
        snapshots->sent++;
        send->follow_index = raft_last_index(consensus->raft);
        send->follow_until_us = snapshot__now_us(snapshots) + SNAPSHOT_FOLLOW_US;
        tell_raft(send, true);
    } else {
        snapshots->failed++;
    }
    if (send->is_checkpointing) {
        storage_upkeep_cancel(&send->checkpoint.upkeep);
    }
    advance(send);
}

static void end_with(struct snapshot_send *send, const struct error *err) { end(send, false, err->message); }

/* ---- Jobs ------------------------------------------------------------------------------------------------------- */

static void run_job(struct env_work *work) {
    struct snapshot_send *send = CONTAINER_OF(work, struct snapshot_send, work);
    struct env *env = send->snapshots->consensus->options.env;
    switch (send->job) {
    case SNAPSHOT_JOB_LIST:
        send->job_status = snapshot_files_list(env, send->dir, &send->files, &send->file_count, &send->job_error);
        return;
    case SNAPSHOT_JOB_READ:
        send->job_status = snapshot_file_read(env, send->dir, &send->files[send->job_place.file],
                                              send->job_place.offset, send->block, send->job_len, &send->job_error);
        for (uint32_t i = 0; send->job_status == STATUS_OK && i < chunk_count(send->job_len); i++) {
            struct slice chunk = chunk_at(send, i);
            uint64_t offset = send->job_place.offset + (uint64_t)i * SNAPSHOT_CHUNK_BYTES;
            send->job_checksums[i] = checksum64(chunk.data, chunk.len, offset);
        }
        return;
    default: send->job_status = snapshot_dir_remove(env, send->dir, &send->job_error); return;
    }
}

static void listed(struct snapshot_send *send) {
    const struct snapshot_file *last = &send->files[send->file_count - 1];
    send->total_bytes = last->begin + last->bytes;
    send->block = mem_alloc(snapshot__alloc(send->snapshots), SNAPSHOT_BLOCK_BYTES);
    if (send->block == NULL) {
        end(send, false, "no memory for a block");
        return;
    }
    send->state = SNAPSHOT_SEND_OFFERED;
    send->progress_us = snapshot__now_us(send->snapshots);
    send->grown_us = send->progress_us;
    send->news_us = 0;
    log_event(send->snapshots->consensus->options.logger, LOG_INFO, "snapshot.begun",
              "peer=%s index=%" PRIu64 " term=%" PRIu64 " files=%" PRIu32 " bytes=%" PRIu64,
              snapshot__name_of(send->snapshots, send->peer), send->checkpoint.frontier.index,
              send->checkpoint.frontier.term, send->file_count, send->total_bytes);
}

static void job_done(struct env_work *work) {
    struct snapshot_send *send = CONTAINER_OF(work, struct snapshot_send, work);
    struct snapshots *snapshots = send->snapshots;
    send->is_working = false;
    if (snapshots->stopping) {
        snapshot__job_ended(snapshots);
        return;
    }
    if (send->state == SNAPSHOT_SEND_ENDING) {
        if (send->job == SNAPSHOT_JOB_REMOVE) {
            ended(send);
            return;
        }
    } else if (send->job_status != STATUS_OK) {
        end_with(send, &send->job_error);
        return;
    } else if (send->job == SNAPSHOT_JOB_LIST) {
        listed(send);
    } else {
        bool is_next = send->job_place.file == send->next.file && send->job_place.offset == send->next.offset;
        send->chunks_left = is_next ? chunk_count(send->job_len) : 0;
    }
    advance(send);
}

/* ---- The checkpoint --------------------------------------------------------------------------------------------- */

static void checkpoint_done(struct storage_upkeep *upkeep) {
    struct snapshot_send *send = upkeep->context;
    send->is_checkpointing = false;
    if (send->snapshots->stopping) {
        return;
    }
    if (send->state == SNAPSHOT_SEND_ENDING) {
        advance(send);
    } else if (upkeep->status != STATUS_OK) {
        end_with(send, &upkeep->error);
    } else if (send->checkpoint.frontier.index == 0) {
        storage_flush(send->snapshots->consensus->storage);
        end(send, false, "nothing is flushed yet");
    } else {
        send->floor_index = send->checkpoint.frontier.index;
        send->state = SNAPSHOT_SEND_LISTING;
        submit(send, SNAPSHOT_JOB_LIST);
    }
}

/* What is flushed lies before what the peer has in its log: its store is damaged (rebuild.h). */
static bool must_flush(const struct snapshot_send *send) {
    const struct consensus *consensus = send->snapshots->consensus;
    struct raft_peer_info info;
    return raft_peer(consensus->raft, send->peer, &info) == STATUS_OK &&
           storage_frontier(consensus->storage)->index < info.needs_snapshot;
}

static void begin_checkpoint(struct snapshot_send *send) {
    struct consensus *consensus = send->snapshots->consensus;
    send->state = SNAPSHOT_SEND_CHECKPOINT;
    send->begun_us = snapshot__now_us(send->snapshots);
    send->floor_index = storage_frontier(consensus->storage)->index;
    do {
        send->id = env_random(consensus->options.env);
    } while (send->id == 0);
    send->term = raft_term(consensus->raft);
    send->next = (struct snapshot_place){0};
    send->furthest = send->next;
    send->flight_count = 0;
    send->window = 0;
    send->arrived_bytes = 0;
    send->total_bytes = 0;
    send->taken_bytes = 0;
    send->resumes = 0;
    send->chunks_left = 0;
    send->log_begin_bytes = wal_written_bytes(consensus->wal);
    send->needed = 0;
    send->slowed_before = send->snapshots->pace.slowed;
    memset(&send->checkpoint, 0, sizeof send->checkpoint);
    send->checkpoint.upkeep.done = checkpoint_done;
    send->checkpoint.upkeep.context = send;
    send->checkpoint.flush = must_flush(send);
    (void)snprintf(send->checkpoint.dir, sizeof send->checkpoint.dir, "%s", send->dir);
    send->is_checkpointing = true;
    storage_checkpoint(consensus->storage, &send->checkpoint);
}

/* ---- Out -------------------------------------------------------------------------------------------------------- */

#define SET(message, field, value) ((message).has_##field = 1, (message).field = (value))

static void offer(struct snapshot_send *send) {
    struct consensus *consensus = send->snapshots->consensus;
    Wire__SnapshotOffer message = WIRE__SNAPSHOT_OFFER__INIT;
    SET(message, id, send->id);
    SET(message, term, send->term);
    SET(message, index, send->checkpoint.frontier.index);
    SET(message, log_term, send->checkpoint.frontier.term);
    SET(message, file_count, send->file_count);
    SET(message, total_bytes, send->total_bytes);
    send->news_us = snapshot__now_us(send->snapshots);
    (void)peers_send_store_frame(consensus->peers, send->peer, true, FRAME_SNAPSHOT_OFFER, &message.base, SLICE_EMPTY);
}

/* False: the connection is gone, or full. */
static bool send_chunk(struct snapshot_send *send) {
    struct snapshots *snapshots = send->snapshots;
    const struct snapshot_file *file = &send->files[send->next.file];
    uint32_t number = chunk_count(send->job_len) - send->chunks_left;
    struct slice chunk = chunk_at(send, number);
    Wire__SnapshotChunk message = WIRE__SNAPSHOT_CHUNK__INIT;
    SET(message, id, send->id);
    SET(message, file, send->next.file);
    SET(message, kind, (uint32_t)file->kind);
    SET(message, number, file->number);
    SET(message, file_bytes, file->bytes);
    SET(message, offset, send->next.offset);
    SET(message, checksum, send->job_checksums[number]);
    if (!peers_send_store_frame(snapshots->consensus->peers, send->peer, true, FRAME_SNAPSHOT_CHUNK, &message.base,
                                chunk)) {
        return false;
    }
    send->chunks_left--;
    send->flight[(send->flight_head + send->flight_count++) % SNAPSHOT_WINDOW_CHUNKS] = send->next;
    send->next = place_behind(send, send->next, chunk.len);
    send->furthest = is_before(send->furthest, send->next) ? send->next : send->furthest;
    snapshot_pace_sent(&snapshots->pace, snapshot__now_us(snapshots), chunk.len);
    return true;
}

/* What the log behind the checkpoint leaves time for, of all transfers together. */
static void note_need(struct snapshot_send *send) {
    struct snapshots *snapshots = send->snapshots;
    struct consensus *consensus = snapshots->consensus;
    uint64_t left_bytes = send->total_bytes - send->arrived_bytes;
    uint64_t log_bytes = wal_written_bytes(consensus->wal) - send->log_begin_bytes;
    uint64_t elapsed_us = snapshot__now_us(snapshots) - send->begun_us;
    uint64_t sum = 0;
    send->needed =
        elapsed_us < NEED_AFTER_US
            ? 0
            : snapshot_pace_needed(left_bytes, log_bytes, consensus->options.config->follower_log_bytes, elapsed_us);
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        uint64_t needed = snapshots->sends[i].state == SNAPSHOT_SEND_STREAMING ? snapshots->sends[i].needed : 0;
        sum = needed < UINT64_MAX - sum ? sum + needed : UINT64_MAX;
    }
    snapshot_pace_need(&snapshots->pace, sum);
}

static bool may_send(const struct snapshot_send *send) {
    return send->chunks_left > 0 && send->flight_count < send->window;
}

/* Sends what is read, reads what comes next. */
static void stream(struct snapshot_send *send) {
    struct snapshots *snapshots = send->snapshots;
    uint64_t now_us = snapshot__now_us(snapshots);
    if (may_send(send)) {
        note_need(send);
        uint64_t due_us = snapshot_pace_due_us(&snapshots->pace, now_us);
        if (now_us >= due_us && now_us >= send->retry_us) {
            send->retry_us = send_chunk(send) ? 0 : now_us + SNAPSHOT_TICK_US;
        } else if (send->flight_count == 0) {
            send->progress_us = now_us; /* all has arrived: it is we who wait */
        }
    }
    if (send->chunks_left == 0 && !send->is_working && !is_at_end(send, send->next)) {
        send->job_place = send->next;
        send->job_len = block_len(send, send->next);
        submit(send, SNAPSHOT_JOB_READ);
    }
}

/* ---- Steps ------------------------------------------------------------------------------------------------------ */

/* Of a leader. */
static bool is_peer(const struct snapshot_send *send) {
    struct raft_peer_info info;
    return raft_peer(send->snapshots->consensus->raft, send->peer, &info) == STATUS_OK;
}

static bool leads_its_term(const struct snapshot_send *send) {
    return is_peer(send) && raft_term(send->snapshots->consensus->raft) == send->term;
}

static void stop_following(struct snapshot_send *send) {
    const struct consensus *consensus = send->snapshots->consensus;
    struct raft_peer_info info;
    bool is_over = snapshot__now_us(send->snapshots) >= send->follow_until_us ||
                   raft_peer(consensus->raft, send->peer, &info) != STATUS_OK || info.match_index >= send->follow_index;
    if (is_over) {
        send->follow_until_us = 0;
    }
}

/* Until then it must be done, whatever the peer says. */
static uint64_t end_us(const struct snapshot_send *send) {
    uint64_t limit = send->snapshots->consensus->options.config->snapshot_rate;
    uint64_t rate = limit == 0 ? SNAPSHOT_RATE_MIN : limit / SNAPSHOT_RATE_MIN_PART + 1;
    rate = rate < SNAPSHOT_RATE_MIN ? rate : SNAPSHOT_RATE_MIN;
    return send->begun_us + SNAPSHOT_SEND_GRACE_US + send->total_bytes / rate * 1000000;
}

/* Offers again after silence; gives up after long silence. */
static void keep_alive(struct snapshot_send *send) {
    uint64_t now_us = snapshot__now_us(send->snapshots);
    if (now_us - send->progress_us >= SNAPSHOT_SEND_PATIENCE_US) {
        end(send, false, "no progress for 20 s");
        return;
    }
    if (now_us >= end_us(send)) {
        end(send, false, "too slow");
        return;
    }
    bool waits = send->state == SNAPSHOT_SEND_OFFERED || send->flight_count >= send->window || send->flight_count > 0 ||
                 is_at_end(send, send->next);
    if (waits && (send->news_us == 0 || now_us - send->news_us >= SNAPSHOT_OFFER_US)) {
        offer(send);
    }
}

static uint64_t next_tick_us(const struct snapshot_send *send) {
    uint64_t now_us = snapshot__now_us(send->snapshots);
    uint64_t tick_us = now_us + SNAPSHOT_TICK_US;
    if (send->state != SNAPSHOT_SEND_STREAMING || !may_send(send)) {
        return tick_us;
    }
    uint64_t due_us = snapshot_pace_due_us(&send->snapshots->pace, now_us);
    due_us = due_us > send->retry_us ? due_us : send->retry_us;
    return due_us < tick_us ? due_us : tick_us;
}

static void advance(struct snapshot_send *send) {
    struct snapshots *snapshots = send->snapshots;
    struct consensus *consensus = snapshots->consensus;
    if (snapshots->stopping || consensus__is_dead(consensus)) {
        return;
    }
    if (send->follow_until_us != 0) {
        stop_following(send);
    }
    switch (send->state) {
    case SNAPSHOT_SEND_IDLE: break;
    case SNAPSHOT_SEND_WAITING:
        if (!is_peer(send)) {
            end(send, true, ""); /* this node doesn't lead any more, or that one isn't a member */
        } else if (peers_is_ready(consensus->peers, send->peer)) {
            begin_checkpoint(send);
        }
        break;
    case SNAPSHOT_SEND_CHECKPOINT:
    case SNAPSHOT_SEND_LISTING: break;
    case SNAPSHOT_SEND_OFFERED:
    case SNAPSHOT_SEND_STREAMING:
        if (!leads_its_term(send)) {
            end(send, false, "this node doesn't lead any more, or the peer is no member");
            return;
        }
        if (send->state == SNAPSHOT_SEND_STREAMING) {
            stream(send);
        }
        keep_alive(send);
        break;
    case SNAPSHOT_SEND_ENDING:
        if (!send->is_checkpointing && !send->is_working) {
            submit(send, SNAPSHOT_JOB_REMOVE);
        }
        return;
    case SNAPSHOT_SEND_PAUSING:
        if (snapshot__now_us(snapshots) >= send->pause_until_us) {
            send->state = SNAPSHOT_SEND_IDLE;
            tell_raft(send, false);
        }
        break;
    }
    if (send->state != SNAPSHOT_SEND_IDLE || send->follow_until_us != 0) {
        snapshot__arm(snapshots, &send->timer, next_tick_us(send));
    }
}

static void on_timer(struct env_timer *timer) { advance(CONTAINER_OF(timer, struct snapshot_send, timer)); }

/* ---- In --------------------------------------------------------------------------------------------------------- */

static void go_on_at(struct snapshot_send *send, const Wire__SnapshotWant *want) {
    struct snapshots *snapshots = send->snapshots;
    struct snapshot_place place = {.file = want->file, .offset = want->offset};
    bool must_seek = want->again || send->state == SNAPSHOT_SEND_OFFERED;
    if (!is_place(send, place) || is_before(send->furthest, place)) {
        end(send, false, "the peer asks for what isn't there");
        return;
    }
    uint64_t bytes = bytes_before(send, place);
    bool has_more = is_before(send->next, place); /* what was on its way when it was gone back */
    if (must_seek || has_more) {
        if (bytes > 0 && must_seek) {
            send->resumes++;
            log_event(snapshots->consensus->options.logger, LOG_INFO, "snapshot.resumed",
                      "peer=%s index=%" PRIu64 " at=%" PRIu64 " of=%" PRIu64, snapshot__name_of(snapshots, send->peer),
                      send->checkpoint.frontier.index, bytes, send->total_bytes);
        }
        send->next = place;
        send->flight_count = 0;
        send->chunks_left = 0;
    }
    while (send->flight_count > 0 && is_before(send->flight[send->flight_head], place)) {
        send->flight_head = (send->flight_head + 1) % SNAPSHOT_WINDOW_CHUNKS;
        send->flight_count--;
    }
    send->window = want->window < SNAPSHOT_WINDOW_CHUNKS ? want->window : SNAPSHOT_WINDOW_CHUNKS;
    send->state = SNAPSHOT_SEND_STREAMING;
    if (bytes > send->arrived_bytes) {
        send->arrived_bytes = bytes;
        send->progress_us = snapshot__now_us(snapshots);
        send->grown_us = send->progress_us;
    }
}

void snapshot_send__wanted(struct snapshot_send *send, const Wire__SnapshotWant *want) {
    bool is_under_way = send->state == SNAPSHOT_SEND_OFFERED || send->state == SNAPSHOT_SEND_STREAMING;
    if (!is_under_way || want->id != send->id) {
        return;
    }
    send->news_us = snapshot__now_us(send->snapshots);
    char problem[ERROR_MESSAGE_BYTES_MAX];
    switch (want->state) {
    case SNAPSHOT_WANT_BYTES: go_on_at(send, want); break;
    case SNAPSHOT_WANT_TIME:
        if (want->taken_bytes > send->taken_bytes) {
            send->taken_bytes = want->taken_bytes;
            send->grown_us = send->news_us;
        }
        if (send->news_us - send->grown_us < SNAPSHOT_WORDS_US) {
            send->progress_us = send->news_us;
        }
        break;
    case SNAPSHOT_WANT_NOTHING: end(send, true, ""); return;
    default:
        (void)snprintf(problem, sizeof problem, "the peer says: %.200s",
                       want->message != NULL ? want->message : "failed");
        end(send, false, problem);
        return;
    }
    advance(send);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

void snapshot_send__init(struct snapshots *snapshots, struct snapshot_send *send) {
    send->snapshots = snapshots;
    send->floor_index = UINT64_MAX;
    env_timer_init(&send->timer, snapshots->consensus->options.loop, on_timer);
}

void snapshot_send__request(struct snapshot_send *send, uint64_t peer) {
    CHECK(peer != 0 && (send->peer == peer || send->state == SNAPSHOT_SEND_IDLE));
    if (send->state != SNAPSHOT_SEND_IDLE) {
        send->is_requested = true;
        return;
    }
    if (send->peer != peer) {
        send->pause_us = 0;
        send->problem[0] = '\0';
    }
    send->peer = peer;
    send->is_requested = false;
    send->follow_until_us = 0;
    send->checkpoint.frontier.index = 0; /* the status tells of this one, not of the last */
    send->arrived_bytes = 0;
    send->total_bytes = 0;
    send->state = SNAPSHOT_SEND_WAITING;
    snapshot_out_dir(send->dir, send->snapshots->consensus->options.config->data_dir, peer);
    snapshot__arm(send->snapshots, &send->timer, snapshot__now_us(send->snapshots));
}

void snapshot_send__deinit(struct snapshot_send *send) {
    CHECK(!send->is_working);
    mem_free(snapshot__alloc(send->snapshots), send->files);
    mem_free(snapshot__alloc(send->snapshots), send->block);
}
