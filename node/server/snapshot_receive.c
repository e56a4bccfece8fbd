/*
 * Receiving a snapshot: offers answered, chunks checked and written, one transfer at a time.
 *
 *   IDLE --offer--> BYTES --(all written)--> SYNCING --> INSTALLING (snapshot_install.c)
 *    ^               |  ^--- the same offer again: where it goes on            |
 *    |               +--(failure, silence, another offer)--> ENDING <----------+
 *    +------------------------- the files are gone ------------+
 *
 * Chunks come in the order of the files. One that isn't the next is dropped; behind a gap or a damaged one the sender
 * is asked to go back, once. What has arrived gathers in a ring of blocks for the worker, who writes one whole block
 * after the other; as many chunks as fit beside them are the sender's window. So a slow disk slows the sender, and
 * memory is bounded.
 *
 * Nothing that the peer says is trusted: names are made here from kind and number, sizes are counted, what the bytes
 * mean is checked by storage_ingest. Owner: the consensus loop; the first block of the ring is the worker's while it
 * writes.
 */
#include "node/server/snapshot_internal.h"

#include "node/base/checksum.h"

#include <inttypes.h>
#include <stdio.h>

static void advance(struct snapshot_receive *receive);

const char *snapshot_receive__state_name(enum snapshot_receive_state state) {
    static const char *const names[] = {
        [SNAPSHOT_RECEIVE_IDLE] = "idle",       [SNAPSHOT_RECEIVE_BYTES] = "receiving",
        [SNAPSHOT_RECEIVE_SYNCING] = "syncing", [SNAPSHOT_RECEIVE_INSTALLING] = "installing",
        [SNAPSHOT_RECEIVE_ENDING] = "ending",
    };
    return names[state];
}

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

static void answer(struct snapshots *snapshots, uint64_t peer, uint64_t id, enum snapshot_want state, bool again,
                   const char *message) {
    struct snapshot_receive *receive = &snapshots->receive;
    Wire__SnapshotWant want = WIRE__SNAPSHOT_WANT__INIT;
    want.has_id = want.has_state = 1;
    want.id = id;
    want.state = (uint32_t)state;
    if (state == SNAPSHOT_WANT_BYTES) {
        want.has_file = want.has_offset = want.has_window = want.has_again = 1;
        want.file = receive->next.file;
        want.offset = receive->next.offset;
        want.window = SNAPSHOT_WINDOW_CHUNKS - receive->queue_chunks;
        want.again = again;
        receive->answered_us = snapshot__now_us(snapshots);
    } else if (state == SNAPSHOT_WANT_TIME && receive->is_ingesting) {
        want.has_taken_bytes = 1;
        want.taken_bytes = atomic_load_explicit(&receive->ingest.upkeep.done_bytes, memory_order_relaxed);
    }
    want.message = (char *)message;
    (void)peers_send_store_frame(snapshots->consensus->peers, peer, false, FRAME_SNAPSHOT_WANT, &want.base,
                                 SLICE_EMPTY);
}

/* ---- Ending ----------------------------------------------------------------------------------------------------- */

static struct snapshot_block *block_at(struct snapshot_receive *receive, uint32_t number) {
    return &receive->queue[(receive->queue_head + number) % SNAPSHOT_WINDOW_CHUNKS];
}

static void free_block(struct snapshot_receive *receive, struct snapshot_block *block) {
    CHECK(receive->queue_chunks >= block->chunks);
    receive->queue_chunks -= block->chunks;
    mem_free(snapshot__alloc(receive->snapshots), block->data);
    block->data = NULL;
}

static void drop_queue(struct snapshot_receive *receive) {
    uint32_t kept = receive->is_working && receive->job == SNAPSHOT_JOB_WRITE ? 1 : 0; /* the worker's */
    while (receive->queue_count > kept) {
        free_block(receive, block_at(receive, --receive->queue_count));
    }
}

void snapshot_receive__end(struct snapshot_receive *receive, enum snapshot_want how, const char *message) {
    struct snapshots *snapshots = receive->snapshots;
    if (receive->state == SNAPSHOT_RECEIVE_IDLE || receive->state == SNAPSHOT_RECEIVE_ENDING) {
        return;
    }
    receive->ended_id = receive->id;
    receive->ended_as = how;
    (void)snprintf(receive->ended_message, sizeof receive->ended_message, "%s", message != NULL ? message : "");
    receive->state = SNAPSHOT_RECEIVE_ENDING;
    drop_queue(receive);
    char quoted[ERROR_MESSAGE_BYTES_MAX + 16];
    log_event(snapshots->consensus->options.logger, how == SNAPSHOT_WANT_END ? LOG_WARN : LOG_INFO, "snapshot.ended",
              "from=%s ok=%s index=%" PRIu64 " bytes=%" PRIu64 " of=%" PRIu64 " ms=%" PRIu64 " reason=%s",
              snapshot__name_of(snapshots, receive->from), how == SNAPSHOT_WANT_END ? "false" : "true", receive->index,
              receive->arrived_bytes, receive->total_bytes, (snapshot__now_us(snapshots) - receive->begun_us) / 1000,
              log_quote(quoted, sizeof quoted, receive->ended_message));
    answer(snapshots, receive->from, receive->id, how, false, receive->ended_message);
    advance(receive);
}

static void fail(struct snapshot_receive *receive, const char *message) {
    snapshot_receive__end(receive, SNAPSHOT_WANT_END, message);
}

/* ---- Jobs ------------------------------------------------------------------------------------------------------- */

static void run_job(struct env_work *work) {
    struct snapshot_receive *receive = CONTAINER_OF(work, struct snapshot_receive, work);
    struct env *env = receive->snapshots->consensus->options.env;
    const struct snapshot_block *block = &receive->queue[receive->queue_head];
    switch (receive->job) {
    case SNAPSHOT_JOB_CLEAR: receive->job_status = snapshot_dir_make(env, receive->dir, &receive->job_error); return;
    case SNAPSHOT_JOB_WRITE:
        receive->job_status = snapshot_file_write(env, receive->dir, &block->file, block->offset, block->data,
                                                  block->len, &receive->job_error);
        return;
    case SNAPSHOT_JOB_SYNC: receive->job_status = snapshot_dir_sync(env, receive->dir, &receive->job_error); return;
    default: receive->job_status = snapshot_dir_remove(env, receive->dir, &receive->job_error); return;
    }
}

static void written(struct snapshot_receive *receive) {
    free_block(receive, block_at(receive, 0));
    receive->queue_head = (receive->queue_head + 1) % SNAPSHOT_WINDOW_CHUNKS;
    receive->queue_count--;
}

static void job_done(struct env_work *work) {
    struct snapshot_receive *receive = CONTAINER_OF(work, struct snapshot_receive, work);
    struct snapshots *snapshots = receive->snapshots;
    receive->is_working = false;
    if (receive->job == SNAPSHOT_JOB_WRITE) {
        written(receive);
    }
    if (snapshots->stopping) {
        snapshot__job_ended(snapshots);
        return;
    }
    if (receive->state == SNAPSHOT_RECEIVE_ENDING) {
        if (receive->job == SNAPSHOT_JOB_CLEAN) {
            receive->state = SNAPSHOT_RECEIVE_IDLE; /* what couldn't be removed is removed before it is used again */
            return;
        }
    } else if (receive->job_status != STATUS_OK) {
        fail(receive, receive->job_error.message);
        return;
    } else if (receive->job == SNAPSHOT_JOB_CLEAR) {
        receive->must_clear = false;
    } else if (receive->job == SNAPSHOT_JOB_WRITE) {
        answer(snapshots, receive->from, receive->id, SNAPSHOT_WANT_BYTES, false, NULL);
    } else {
        receive->state = SNAPSHOT_RECEIVE_INSTALLING;
        snapshot_install__begin(receive);
        return;
    }
    advance(receive);
}

static void submit(struct snapshot_receive *receive, enum snapshot_job job) {
    struct consensus *consensus = receive->snapshots->consensus;
    receive->is_working = true;
    receive->job = job;
    error_clear(&receive->job_error);
    receive->work = (struct env_work){.run = run_job, .done = job_done, .loop = consensus->options.loop};
    env_work_submit(consensus->options.env, job == SNAPSHOT_JOB_WRITE ? ENV_WORK_SHORT : ENV_WORK_LONG, &receive->work);
}

/* Nothing more goes into it. */
static bool is_whole(const struct snapshot_block *block) {
    return block->len == SNAPSHOT_BLOCK_BYTES || block->offset + block->len == block->file.bytes;
}

static void advance(struct snapshot_receive *receive) {
    if (receive->is_working || receive->snapshots->stopping) {
        return;
    }
    switch (receive->state) {
    case SNAPSHOT_RECEIVE_BYTES:
        if (receive->must_clear) {
            submit(receive, SNAPSHOT_JOB_CLEAR);
        } else if (receive->queue_count > 0 && is_whole(block_at(receive, 0))) {
            submit(receive, SNAPSHOT_JOB_WRITE);
        } else if (receive->next.file == receive->file_count) {
            receive->state = SNAPSHOT_RECEIVE_SYNCING;
            submit(receive, SNAPSHOT_JOB_SYNC);
        }
        return;
    case SNAPSHOT_RECEIVE_ENDING:
        if (!receive->is_ingesting) {
            submit(receive, SNAPSHOT_JOB_CLEAN);
        }
        return;
    default: return;
    }
}

/* ---- Offers ----------------------------------------------------------------------------------------------------- */

static bool is_sane(const Wire__SnapshotOffer *offer) {
    return offer->id != 0 && offer->index != 0 && offer->log_term != 0 && offer->log_term <= offer->term &&
           offer->file_count > 0 && offer->file_count <= SNAPSHOT_FILES_MAX;
}

/* A leader that was; its successor will ask. Or nobody's word: this term has another leader. */
static bool is_of_no_leader(const struct consensus *consensus, uint64_t node_id, uint64_t term) {
    uint64_t leader = raft_leader(consensus->raft);
    return term < raft_term(consensus->raft) ||
           (term == raft_term(consensus->raft) && leader != RAFT_NO_NODE && leader != node_id);
}

static void begin(struct snapshot_receive *receive, uint64_t node_id, const Wire__SnapshotOffer *offer) {
    struct snapshots *snapshots = receive->snapshots;
    CHECK(receive->queue_count == 0 && !receive->is_working);
    receive->state = SNAPSHOT_RECEIVE_BYTES;
    receive->from = node_id;
    receive->id = offer->id;
    receive->term = offer->term;
    receive->index = offer->index;
    receive->log_term = offer->log_term;
    receive->file_count = offer->file_count;
    receive->total_bytes = offer->total_bytes;
    receive->next = (struct snapshot_place){0};
    receive->arrived_bytes = 0;
    receive->asked_again = false;
    receive->must_clear = true;
    receive->begun_us = snapshot__now_us(snapshots);
    receive->heard_us = receive->begun_us;
    snapshot_in_dir(receive->dir, snapshots->consensus->options.config->data_dir);
    snapshot__arm(snapshots, &receive->timer, receive->begun_us + SNAPSHOT_RECEIVE_PATIENCE_US);
    log_event(snapshots->consensus->options.logger, LOG_INFO, "snapshot.offered",
              "from=%s index=%" PRIu64 " term=%" PRIu64 " files=%" PRIu32 " bytes=%" PRIu64,
              snapshot__name_of(snapshots, node_id), offer->index, offer->log_term, offer->file_count,
              offer->total_bytes);
}

/* The offer of the transfer that is under way, once more. */
static void repeat(struct snapshot_receive *receive) {
    struct snapshots *snapshots = receive->snapshots;
    bool wants_bytes = receive->state == SNAPSHOT_RECEIVE_BYTES && receive->next.file < receive->file_count;
    if (wants_bytes) {
        receive->asked_again = true;
        if (receive->arrived_bytes > 0) {
            log_event(snapshots->consensus->options.logger, LOG_INFO, "snapshot.goes_on",
                      "from=%s index=%" PRIu64 " at=%" PRIu64 " of=%" PRIu64,
                      snapshot__name_of(snapshots, receive->from), receive->index, receive->arrived_bytes,
                      receive->total_bytes);
        }
    }
    answer(snapshots, receive->from, receive->id, wants_bytes ? SNAPSHOT_WANT_BYTES : SNAPSHOT_WANT_TIME, true, NULL);
}

void snapshot_receive__offer(struct snapshots *snapshots, uint64_t node_id, const Wire__SnapshotOffer *offer) {
    struct snapshot_receive *receive = &snapshots->receive;
    const struct consensus *consensus = snapshots->consensus;
    if (!is_sane(offer) || is_of_no_leader(consensus, node_id, offer->term)) {
        return;
    }
    bool is_under_way = receive->state != SNAPSHOT_RECEIVE_IDLE && receive->state != SNAPSHOT_RECEIVE_ENDING;
    if (is_under_way && offer->id == receive->id && node_id == receive->from) {
        receive->heard_us = snapshot__now_us(snapshots);
        repeat(receive);
        return;
    }
    if (offer->id == receive->ended_id && node_id == receive->from && receive->ended_as != SNAPSHOT_WANT_END) {
        answer(snapshots, node_id, offer->id, receive->ended_as, false, NULL);
        return;
    }
    if (!snapshot_install__wants(consensus, offer->index, offer->log_term)) {
        answer(snapshots, node_id, offer->id, SNAPSHOT_WANT_NOTHING, false, NULL);
        return;
    }
    bool is_installing = receive->state == SNAPSHOT_RECEIVE_INSTALLING || receive->state == SNAPSHOT_RECEIVE_SYNCING;
    if (is_installing) {
        answer(snapshots, node_id, offer->id, SNAPSHOT_WANT_TIME, false, NULL); /* hazard 20: one after the other */
        return;
    }
    if (receive->state == SNAPSHOT_RECEIVE_BYTES) {
        if (offer->term < receive->term) {
            return;
        }
        fail(receive, "another snapshot is offered");
    }
    if (receive->state == SNAPSHOT_RECEIVE_IDLE && !receive->is_working) {
        begin(receive, node_id, offer);
        answer(snapshots, node_id, offer->id, SNAPSHOT_WANT_BYTES, true, NULL);
        advance(receive);
    } else {
        answer(snapshots, node_id, offer->id, SNAPSHOT_WANT_TIME, false, NULL); /* until the files are gone */
    }
}

/* ---- Chunks ----------------------------------------------------------------------------------------------------- */

static void ask_again(struct snapshot_receive *receive) {
    if (!receive->asked_again) {
        receive->asked_again = true;
        answer(receive->snapshots, receive->from, receive->id, SNAPSHOT_WANT_BYTES, true, NULL);
    }
}

/* What an honest sender never sends; NULL: all is well. */
static const char *find_fault(const struct snapshot_receive *receive, const Wire__SnapshotChunk *chunk, size_t len) {
    const struct snapshot_file *file = &receive->file;
    if (!snapshot_file_kind_is_sent(chunk->kind) || (chunk->kind == FILE_CURRENT && chunk->number != 0)) {
        return "a file of an unknown kind";
    }
    if (chunk->file_bytes > receive->total_bytes || chunk->offset > chunk->file_bytes ||
        len > chunk->file_bytes - chunk->offset || len > receive->total_bytes - receive->arrived_bytes) {
        return "more bytes than were offered";
    }
    uint64_t left = chunk->file_bytes - chunk->offset;
    if (len != (left < SNAPSHOT_CHUNK_BYTES ? left : SNAPSHOT_CHUNK_BYTES) || (len == 0 && chunk->file_bytes > 0)) {
        return "a chunk of a wrong size"; /* so they fill blocks */
    }
    bool is_same =
        (uint32_t)file->kind == chunk->kind && file->number == chunk->number && file->bytes == chunk->file_bytes;
    return chunk->offset > 0 && !is_same ? "a file that changes while it is sent" : NULL;
}

/* Where the next bytes go. NULL: no memory. */
static struct snapshot_block *block_for(struct snapshot_receive *receive, size_t len) {
    struct snapshot_block *last = receive->queue_count > 0 ? block_at(receive, receive->queue_count - 1) : NULL;
    if (last != NULL && !is_whole(last) && len <= SNAPSHOT_BLOCK_BYTES - last->len) {
        return last;
    }
    CHECK(last == NULL || is_whole(last));
    uint64_t left = receive->file.bytes - receive->next.offset;
    size_t size = left < SNAPSHOT_BLOCK_BYTES ? (size_t)left : SNAPSHOT_BLOCK_BYTES;
    uint8_t *data = mem_alloc(snapshot__alloc(receive->snapshots), size > 0 ? size : 1);
    if (data == NULL) {
        return NULL;
    }
    struct snapshot_block *block = block_at(receive, receive->queue_count++);
    *block = (struct snapshot_block){.file = receive->file, .offset = receive->next.offset, .data = data};
    return block;
}

static enum status take(struct snapshot_receive *receive, const Wire__SnapshotChunk *chunk, struct slice raw) {
    receive->file = (struct snapshot_file){.kind = (enum file_kind)chunk->kind,
                                           .number = chunk->number,
                                           .bytes = chunk->file_bytes};
    struct snapshot_block *block = block_for(receive, raw.len);
    if (block == NULL) {
        return STATUS_NO_MEMORY;
    }
    if (raw.len > 0) {
        memcpy(block->data + block->len, raw.data, raw.len);
    }
    block->len += raw.len;
    block->chunks++;
    receive->queue_chunks++;
    receive->arrived_bytes += raw.len;
    receive->next.offset += raw.len;
    if (receive->next.offset == chunk->file_bytes) {
        receive->next = (struct snapshot_place){.file = receive->next.file + 1};
    }
    return STATUS_OK;
}

void snapshot_receive__chunk(struct snapshots *snapshots, uint64_t node_id, const Wire__SnapshotChunk *chunk,
                             struct slice raw) {
    struct snapshot_receive *receive = &snapshots->receive;
    if (receive->state != SNAPSHOT_RECEIVE_BYTES || receive->from != node_id || receive->id != chunk->id) {
        return;
    }
    receive->heard_us = snapshot__now_us(snapshots);
    if (chunk->file < receive->next.file ||
        (chunk->file == receive->next.file && chunk->offset < receive->next.offset)) {
        return; /* it came before */
    }
    if (chunk->file != receive->next.file || chunk->offset != receive->next.offset ||
        receive->next.file == receive->file_count || checksum64(raw.data, raw.len, chunk->offset) != chunk->checksum) {
        ask_again(receive);
        return;
    }
    const char *fault = find_fault(receive, chunk, raw.len);
    if (fault != NULL) {
        fail(receive, fault);
        return;
    }
    if (receive->queue_count == SNAPSHOT_WINDOW_CHUNKS || take(receive, chunk, raw) != STATUS_OK) {
        return; /* beyond the window, or no memory: it is sent again after the next offer */
    }
    receive->asked_again = false;
    if (receive->heard_us - receive->answered_us >= SNAPSHOT_ANSWER_US) {
        answer(snapshots, receive->from, receive->id, SNAPSHOT_WANT_BYTES, false, NULL);
    }
    advance(receive);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static void on_timer(struct env_timer *timer) {
    struct snapshot_receive *receive = CONTAINER_OF(timer, struct snapshot_receive, timer);
    uint64_t end_us = receive->heard_us + SNAPSHOT_RECEIVE_PATIENCE_US;
    if (receive->state != SNAPSHOT_RECEIVE_BYTES) {
        return;
    }
    if (snapshot__now_us(receive->snapshots) >= end_us) {
        fail(receive, "nothing was heard of it for 60 s");
    } else {
        snapshot__arm(receive->snapshots, timer, end_us);
    }
}

void snapshot_receive__init(struct snapshots *snapshots) {
    struct snapshot_receive *receive = &snapshots->receive;
    receive->snapshots = snapshots;
    env_timer_init(&receive->timer, snapshots->consensus->options.loop, on_timer);
    snapshot_install__init(receive);
}

void snapshot_receive__deinit(struct snapshot_receive *receive) {
    CHECK(!receive->is_working);
    drop_queue(receive);
}
