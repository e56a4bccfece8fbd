/*
 * Gets, and what gets and scans have in common: the barrier, the view, the job on a worker.
 *
 *   frame --> barrier (consensus actor) --> held until there is room --> view --in memory--> reply
 *                                                                          \--else: worker--/
 *
 * A held read holds no view, so a slow reader pins neither memory nor files. A read at a named revision needs no word
 * from the leader: what a revision shows never changes, so it only waits until that revision is applied here.
 */
#include "node/server/clients_internal.h"

#include <inttypes.h>

/* ---- Barrier --------------------------------------------------------------------------------------------------- */

static void on_barrier(struct consensus_read *read) {
    struct request *request = CONTAINER_OF(read, struct request, read);
    struct client_connection *connection = request->connection;
    if (connection == NULL) {
        request__release(request);
    } else if (read->status == STATUS_TIMEOUT && request->range.revision != 0) {
        request__fail(request, STATUS_TIMEOUT, false, "revision %" PRIu64 " is not applied on this node yet",
                      request->range.revision);
    } else if (read->status != STATUS_OK) {
        request__fail_by_status(request, read->status, false);
    } else if (list_is_empty(&connection->held) && client_connection__has_room(connection)) {
        request->answer(request);
    } else {
        list_push_back(&connection->held, &request->held_link);
        client_connection__update(connection);
    }
}

void request_read__barrier(struct request *request, const Wire__ReadOptions *options) {
    struct clients *clients = request->clients;
    static const Wire__ReadOptions defaults = WIRE__READ_OPTIONS__INIT;
    if (options == NULL) {
        options = &defaults;
    }
    request->range.revision = options->revision;
    request->read = (struct consensus_read){
        .loop = clients->options.loop,
        .local = options->local || options->revision != 0,
        .at_least = options->at_least > options->revision ? options->at_least : options->revision,
        .deadline_us = request__deadline_us(clients, options->timeout_ms),
        .done = on_barrier,
    };
    consensus_read(clients->options.consensus, &request->read);
}

struct storage_view *request_read__view(struct request *request, uint64_t *ret_revision) {
    struct storage_view *view = storage_view_acquire(consensus_storage(request->clients->options.consensus));
    uint64_t shown = storage_view_revision(view);
    uint64_t wanted = request->range.revision;
    if (wanted > shown) {
        storage_view_release(view);
        request__fail(request, STATUS_UNAVAILABLE, false,
                      "revision %" PRIu64 " is beyond what this node shows, %" PRIu64, wanted, shown);
        return NULL;
    }
    *ret_revision = wanted != 0 ? wanted : shown;
    return view;
}

/* ---- Jobs ------------------------------------------------------------------------------------------------------ */

struct read_job *request_read__job_new(struct request *request, struct storage_view *view, uint64_t revision) {
    struct alloc *alloc = request->clients->alloc;
    struct read_job *job = mem_alloc_zero(alloc, sizeof *job);
    if (job == NULL) {
        storage_view_release(view);
        request__fail(request, STATUS_BUSY, false, "this node is out of memory; try again");
        return NULL;
    }
    job->request = request;
    job->view = view;
    job->revision = revision;
    buf_init(&job->bytes, alloc, 0);
    buf_init(&job->key_lens, alloc, 0);
    buf_init(&job->value_lens, alloc, 0);
    buf_init(&job->mod_revisions, alloc, 0);
    return job;
}

void request_read__job_free(struct read_job *job) {
    struct alloc *alloc = job->bytes.alloc;
    storage_iterator_free(job->iterator);
    storage_view_release(job->view);
    buf_deinit(&job->bytes);
    buf_deinit(&job->key_lens);
    buf_deinit(&job->value_lens);
    buf_deinit(&job->mod_revisions);
    mem_free(alloc, job);
}

void request_read__job_submit(struct read_job *job, void (*run)(struct env_work *work),
                              void (*done)(struct env_work *work)) {
    struct request *request = job->request;
    struct clients *clients = request->clients;
    request->job = job;
    request->connection->job_count++;
    clients->job_count++;
    job->work = (struct env_work){.run = run, .done = done, .loop = clients->options.loop};
    env_work_submit(clients->options.env, ENV_WORK_SHORT, &job->work);
}

void request_read__job_done(struct read_job *job) {
    struct request *request = job->request;
    request->job = NULL;
    if (request->connection != NULL) {
        request->connection->job_count--;
    }
    clients__job_ended(request->clients);
}

/* ---- Get ------------------------------------------------------------------------------------------------------- */

/* value NULL: there is none. */
static void reply_get(struct request *request, uint64_t revision, uint64_t mod_revision, const struct slice *value) {
    Wire__GetReply reply = WIRE__GET_REPLY__INIT;
    reply.has_revision = 1;
    reply.revision = revision;
    reply.has_found = 1;
    reply.found = value != NULL;
    reply.has_mod_revision = value != NULL;
    reply.mod_revision = value != NULL ? mod_revision : 0;
    request__reply(request, FRAME_GET_REPLY, &reply.base, value, value != NULL ? 1 : 0);
}

static void run_get(struct env_work *work) {
    struct read_job *job = CONTAINER_OF(work, struct read_job, work);
    job->status =
        storage_get(job->view, job->request->range.lower, job->revision, &job->bytes, &job->mod_revision, &job->error);
}

static void on_get_done(struct env_work *work) {
    struct read_job *job = CONTAINER_OF(work, struct read_job, work);
    struct request *request = job->request;
    request_read__job_done(job);
    if (job->status == STATUS_OK) {
        struct slice value = buf_slice(&job->bytes);
        reply_get(request, job->revision, job->mod_revision, &value);
    } else if (job->status == STATUS_NOT_FOUND) {
        reply_get(request, job->revision, 0, NULL);
    } else {
        request__fail(request, job->status, false, "the read failed on this node: %s",
                      job->error.message[0] != '\0' ? job->error.message : status_name(job->status));
    }
    request_read__job_free(job);
}

static void answer_get(struct request *request) {
    uint64_t revision;
    struct storage_view *view = request_read__view(request, &revision);
    if (view == NULL) {
        return;
    }
    struct slice value;
    uint64_t mod_revision;
    switch (storage_get_memory(view, request->range.lower, revision, &value, &mod_revision)) {
    case STORAGE_FOUND: reply_get(request, revision, mod_revision, &value); break;
    case STORAGE_ABSENT: reply_get(request, revision, 0, NULL); break;
    case STORAGE_NEEDS_DISK: {
        struct read_job *job = request_read__job_new(request, view, revision);
        if (job != NULL) {
            request_read__job_submit(job, run_get, on_get_done);
        }
        return; /* the view is the job's, or gone */
    }
    }
    storage_view_release(view);
}

void request_read__get(struct client_connection *connection, const struct connection_frame *frame) {
    arena_reset(&connection->clients->arena);
    const Wire__GetRequest *get =
        (const Wire__GetRequest *)(const void *)wire_unpack(&connection->clients->arena, &wire__get_request__descriptor,
                                                            frame->message);
    if (get == NULL || frame->raw.len > 0) {
        request__malformed(connection, frame, "get");
        return;
    }
    const char *problem = request__key_problem(get->key.len);
    if (problem != NULL) {
        client_connection__send_error(connection, frame->request_id,
                                      get->key.len == 0 ? STATUS_INVALID : STATUS_TOO_LARGE, false, problem);
        return;
    }
    struct request *request = request__take(connection, frame);
    uint8_t *key = request != NULL ? request__memory(request, get->key.len) : NULL;
    if (key == NULL) {
        return;
    }
    memcpy(key, get->key.data, get->key.len);
    request->range.lower = slice_of(key, get->key.len);
    request->answer = answer_get;
    request_read__barrier(request, get->options);
}
