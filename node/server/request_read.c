/*
 * Gets, and what gets and scans have in common: the barrier, the view, waiting for blocks.
 *
 *   frame --> barrier (consensus actor) --> held until there is room --> view --> reply
 *                                                  ^                      \--blocks wanted--> ready, goes on--> reply
 *                                                  \------------------------------no room-------/
 *
 * A held read holds no view, so a slow reader pins neither memory nor files. A read at a named revision needs no word
 * from the leader: what a revision shows never changes, so it only waits until that revision is applied here.
 */
#include "node/server/clients_internal.h"

#include <inttypes.h>

/* How many reads may be under way: of one connection, and of all. */
static const struct {
    uint32_t of_one_max;
    uint32_t of_all_max;
} read_limits[READ_CLASS_COUNT] = {
    [READ_GET] = {.of_one_max = 64, .of_all_max = 1024},
    [READ_SCAN] = {.of_one_max = 8, .of_all_max = 128},
};

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

/* A view that shows request->range.revision, and the revision to read at; NULL: an error was sent. */
static struct storage_view *take_view(struct request *request, uint64_t *ret_revision) {
    struct storage_view *view = storage_view_acquire(consensus_storage(request->clients->options.consensus));
    uint64_t shown = storage_view_revision(view);
    uint64_t horizon = storage_view_horizon(view);
    uint64_t wanted = request->range.revision;
    if (wanted == 0 || (wanted <= shown && wanted >= horizon)) {
        *ret_revision = wanted != 0 ? wanted : shown;
        return view;
    }
    storage_view_release(view);
    if (wanted > shown) {
        request__fail(request, STATUS_UNAVAILABLE, false,
                      "revision %" PRIu64 " is beyond what this node shows, %" PRIu64, wanted, shown);
    } else {
        request__fail(request, STATUS_COMPACTED, false,
                      "revision %" PRIu64 " is no longer kept; the oldest that can be read is %" PRIu64, wanted,
                      horizon);
    }
    return NULL;
}

/* ---- Jobs ------------------------------------------------------------------------------------------------------ */

bool request_read__has_room(const struct client_connection *connection, enum read_class read_class) {
    return connection->reads[read_class].count < read_limits[read_class].of_one_max &&
           connection->clients->reads[read_class].count < read_limits[read_class].of_all_max;
}

static void count(struct read_job *job) {
    CHECK(!job->counted);
    job->counted = true;
    job->request->connection->reads[job->read_class].count++;
    job->clients->reads[job->read_class].count++;
}

void request_read__job_uncount(struct read_job *job) {
    if (!job->counted) {
        return;
    }
    job->counted = false;
    CHECK(job->clients->reads[job->read_class].count > 0);
    job->clients->reads[job->read_class].count--;
    if (job->request->connection != NULL) {
        job->request->connection->reads[job->read_class].count--;
    }
}

static void park(struct request *request, enum read_class read_class) {
    list_push_back(&request->connection->reads[read_class].parked, &request->held_link);
    client_connection__update(request->connection); /* who waits for room among all is known by name */
}

static void resume(struct read_job *job) {
    struct request *request = job->request;
    struct clients *clients = job->clients;
    struct client_connection *connection = request->connection;
    enum read_class read_class = job->read_class;
    CHECK(request->job == job);
    request->job = NULL;
    if (read_class == READ_GET || connection == NULL) {
        request_read__job_uncount(job);
    }
    if (connection == NULL) {
        request_read__job_free(job);
        request__release(request);
    } else if (!client_connection__has_room(connection)) {
        request_read__job_uncount(job);
        request_read__job_free(job);
        list_push_front(&connection->held, &request->held_link);
        client_connection__update(connection);
    } else {
        job->step(job);
    }
    clients__read_ended(clients, read_class);
}

static void on_ready(struct storage_io *io) { resume(CONTAINER_OF(io, struct read_job, io)); }

static void on_turn(struct env_message *message) { resume(CONTAINER_OF(message, struct read_job, turn)); }

void request_read__job_wait(struct read_job *job) {
    struct request *request = job->request;
    CHECK(request->job == NULL && request->connection != NULL);
    if (!job->counted) {
        if (!request_read__has_room(request->connection, job->read_class)) {
            enum read_class read_class = job->read_class;
            request_read__job_free(job);
            park(request, read_class);
            return;
        }
        count(job);
    }
    request->job = job;
    storage_io_start(&job->io);
}

void request_read__job_yield(struct read_job *job) {
    CHECK(job->request->job == NULL && job->counted);
    job->request->job = job;
    env_post(job->clients->options.loop, &job->turn);
}

static struct read_job *take_job(struct clients *clients) {
    struct list *node = list_pop_front(&clients->free_jobs);
    if (node == NULL) {
        return mem_alloc(clients->alloc, sizeof(struct read_job));
    }
    clients->free_job_count--;
    return LIST_ENTRY(node, struct read_job, link);
}

struct read_job *request_read__job_new(struct request *request, enum read_class read_class,
                                       void (*step)(struct read_job *job)) {
    struct clients *clients = request->clients;
    uint64_t revision;
    if (read_class == READ_SCAN && !request_read__has_room(request->connection, read_class)) {
        park(request, read_class);
        return NULL;
    }
    struct storage_view *view = take_view(request, &revision);
    if (view == NULL) {
        return NULL;
    }
    struct read_job *job = take_job(clients);
    if (job == NULL) {
        storage_view_release(view);
        request__fail(request, STATUS_BUSY, false, "this node is out of memory; try again");
        return NULL;
    }
    *job = (struct read_job){.clients = clients,
                             .request = request,
                             .step = step,
                             .read_class = read_class,
                             .turn = {.run = on_turn},
                             .view = view,
                             .revision = revision};
    list_init(&job->link);
    storage_io_init(&job->io, consensus_storage(clients->options.consensus), clients->options.loop, on_ready);
    buf_init(&job->bytes, clients->alloc, 0);
    buf_init(&job->key_lens, clients->alloc, 0);
    buf_init(&job->value_lens, clients->alloc, 0);
    buf_init(&job->mod_revisions, clients->alloc, 0);
    if (read_class == READ_SCAN) {
        count(job);
    }
    return job;
}

void request_read__job_free(struct read_job *job) {
    struct clients *clients = job->clients;
    CHECK(!job->counted);
    storage_iterator_free(job->iterator);
    storage_value_release(&job->value);
    storage_io_deinit(&job->io);
    storage_view_release(job->view);
    buf_deinit(&job->bytes);
    buf_deinit(&job->key_lens);
    buf_deinit(&job->value_lens);
    buf_deinit(&job->mod_revisions);
    if (clients->free_job_count < CLIENTS_JOBS_KEPT) {
        list_push_front(&clients->free_jobs, &job->link);
        clients->free_job_count++;
    } else {
        mem_free(clients->alloc, job);
    }
}

void request_read__free_jobs(struct clients *clients) {
    for (struct list *node; (node = list_pop_front(&clients->free_jobs)) != NULL;) {
        mem_free(clients->alloc, LIST_ENTRY(node, struct read_job, link));
    }
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

static void step_get(struct read_job *job) {
    struct request *request = job->request;
    enum status status =
        storage_get(job->view, &job->io, request->range.lower, job->revision, &job->value, &job->error);
    switch (status) {
    case STATUS_PENDING: request_read__job_wait(job); return;
    case STATUS_OK: reply_get(request, job->revision, job->value.revision, &job->value.bytes); break;
    case STATUS_NOT_FOUND: reply_get(request, job->revision, 0, NULL); break;
    default:
        request__fail(request, status, false, "the read failed on this node: %s",
                      job->error.message[0] != '\0' ? job->error.message : status_name(status));
        break;
    }
    request_read__job_free(job);
}

static void answer_get(struct request *request) {
    struct read_job *job = request_read__job_new(request, READ_GET, step_get);
    if (job != NULL) {
        step_get(job);
    }
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
