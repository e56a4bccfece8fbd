/*
 * The life of a request: bounds, deadlines, dispatching, retries, completion. The drawing is in client_internal.h.
 *
 * Invariants: a request is on exactly one list (waiting, ready, an endpoint's ready, delayed, a link's sent) from
 * submit to done; its timer is armed for that time; it holds a slot while it is sent.
 */
#include "proto/client/core_internal.h"

#include "node/base/check.h"

#include <stdio.h>

enum {
    RETRY_DELAY_MIN_US = 5 * 1000,
    RETRY_DELAY_MAX_US = 200 * 1000,
    ELECTION_DELAY_MAX_US = 40 * 1000, /* while nobody leads; an election takes a few of these, */
    ELECTION_RETRIES = 24,             /* and not that many */
    ARENA_CHUNK_BYTES = 16 * 1024
};

static void dispatch_run(struct env_task *task);
static void finish_run(struct env_task *task);
static void retry_run(struct env_timer *timer);
static void request_timer_run(struct env_timer *timer);

/* ---- Making and ending a core --------------------------------------------------------------------------------- */

enum status client_core_new(struct env *env, struct env_loop *loop, struct env_transport *transport,
                            const struct client_options *options, struct client_core **ret_core) {
    CHECK(client_options_check(options, NULL) == STATUS_OK);
    struct client_core *core = mem_alloc_zero(env->alloc, sizeof *core);
    if (core == NULL) {
        return STATUS_NO_MEMORY;
    }
    core->env = env;
    core->loop = loop;
    core->transport = transport;
    core->options = *options;
    list_init(&core->links);
    list_init(&core->waiting);
    list_init(&core->ready);
    list_init(&core->delayed);
    arena_init(&core->arena, env->alloc, ARENA_CHUNK_BYTES, LIMIT_UNPACK_BUDGET_BYTES);
    env_task_init(&core->dispatch, dispatch_run);
    env_task_init(&core->finish, finish_run);
    env_timer_init(&core->retry, loop, retry_run);
    endpoint__init_all(core);
    uint32_t slots = options->in_flight_max;
    core->slots = mem_alloc_zero(env->alloc, slots * sizeof *core->slots);
    core->free_slots = mem_alloc(env->alloc, slots * sizeof *core->free_slots);
    if (core->slots == NULL || core->free_slots == NULL) {
        client_core_free(core);
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < slots; i++) {
        core->free_slots[i] = slots - 1 - i;
    }
    core->free_count = slots;
    *ret_core = core;
    return STATUS_OK;
}

void client_core_free(struct client_core *core) {
    if (core == NULL) {
        return;
    }
    CHECK(list_is_empty(&core->links));
    CHECK(list_is_empty(&core->ready) && list_is_empty(&core->waiting) && list_is_empty(&core->delayed));
    env_task_cancel(&core->dispatch);
    env_task_cancel(&core->finish);
    env_timer_cancel(&core->retry);
    arena_deinit(&core->arena);
    mem_free(core->env->alloc, core->slots);
    mem_free(core->env->alloc, core->free_slots);
    mem_free(core->env->alloc, core);
}

static void fail_all(struct list *head) {
    struct list *node;
    while ((node = list_pop_front(head)) != NULL) {
        core__fail(LIST_ENTRY(node, struct client_request, link), HOLDFAST_FAILED, HOLDFAST_CODE_CLOSED,
                   "the client was closed");
    }
}

void client_core_close(struct client_core *core, void (*closed)(void *context), void *context) {
    CHECK(!core->closing);
    core->closing = true;
    core->closed = closed;
    core->closed_context = context;
    fail_all(&core->waiting);
    fail_all(&core->ready);
    fail_all(&core->delayed);
    for (uint32_t i = 0; i < core->endpoint_count; i++) {
        fail_all(&core->endpoints[i].ready);
    }
    struct error err;
    (void)error_set(&err, STATUS_CLOSED, "the client was closed");
    LIST_FOREACH (node, &core->links) {
        link__close(LIST_ENTRY(node, struct client_link, member), &err);
    }
    env_defer(core->loop, ENV_STAGE_FLUSH, &core->finish);
}

/* Once the last link is gone. */
static void finish_run(struct env_task *task) {
    struct client_core *core = CONTAINER_OF(task, struct client_core, finish);
    if (core->closing && core->closed != NULL && list_is_empty(&core->links)) {
        void (*closed)(void *context) = core->closed;
        core->closed = NULL;
        env_timer_cancel(&core->retry);
        closed(core->closed_context);
    }
}

/* ---- Bounds --------------------------------------------------------------------------------------------------- */

static bool reserve(struct client_core *core, uint64_t bytes) {
    if (atomic_fetch_add(&core->in_flight, 1) >= core->options.in_flight_max) {
        atomic_fetch_sub(&core->in_flight, 1);
        return false;
    }
    uint64_t before = atomic_fetch_add(&core->in_flight_bytes, bytes);
    if (before > 0 && before + bytes > core->options.in_flight_bytes_max) {
        client_core_release(core, bytes);
        return false;
    }
    return true;
}

bool client_core_reserve(struct client_core *core, uint64_t bytes) {
    return atomic_load(&core->waiting_count) == 0 && reserve(core, bytes);
}

void client_core_release(struct client_core *core, uint64_t bytes) {
    atomic_fetch_sub(&core->in_flight_bytes, bytes);
    atomic_fetch_sub(&core->in_flight, 1);
}

static void enqueue(struct client_request *request) {
    struct client_core *core = request->core;
    request->state = CLIENT_READY;
    list_push_back(request->target >= 0 ? &core->endpoints[request->target].ready : &core->ready, &request->link);
    core__dispatch_soon(core);
}

/* Lets requests in that wait for a place, oldest first. */
static void admit(struct client_core *core) {
    while (!list_is_empty(&core->waiting)) {
        struct client_request *request = LIST_ENTRY(core->waiting.next, struct client_request, link);
        if (!reserve(core, client_request_bytes(request))) {
            return;
        }
        request->reserved = true;
        list_remove(&request->link);
        atomic_fetch_sub(&core->waiting_count, 1);
        enqueue(request);
    }
}

/* ---- Submitting ----------------------------------------------------------------------------------------------- */

void client_request_init(struct client_request *request, enum client_operation operation,
                         void (*done)(struct client_request *request, struct client_answer *answer)) {
    memset(request, 0, sizeof *request);
    request->operation = operation;
    request->done = done;
    request->target = -1;
    list_init(&request->link);
}

uint64_t client_request_bytes(const struct client_request *request) {
    return (uint64_t)request->key.len + request->upper.len + request->value.len;
}

static enum holdfast_code check_key(struct slice key) {
    if (key.len == 0 || key.data == NULL) {
        return HOLDFAST_CODE_INVALID;
    }
    return key.len <= LIMIT_KEY_BYTES ? HOLDFAST_CODE_OK : HOLDFAST_CODE_TOO_LARGE;
}

static enum holdfast_code check_range(struct slice lower, struct slice upper) {
    if (lower.len > LIMIT_KEY_BYTES || upper.len > LIMIT_KEY_BYTES) {
        return HOLDFAST_CODE_TOO_LARGE;
    }
    bool is_empty = upper.len > 0 && slice_compare(lower, upper) >= 0;
    return is_empty ? HOLDFAST_CODE_INVALID : HOLDFAST_CODE_OK;
}

/* One operation of a batch, by its kind and lengths; the bytes of its key and of what follows it. */
static enum holdfast_code check_operation(uint32_t kind, struct slice key, struct slice value) {
    if (key.len > LIMIT_KEY_BYTES || value.len > LIMIT_VALUE_BYTES) {
        return HOLDFAST_CODE_TOO_LARGE;
    }
    switch (kind) {
    case HOLDFAST_PUT: return key.len > 0 ? HOLDFAST_CODE_OK : HOLDFAST_CODE_INVALID;
    case HOLDFAST_DELETE: return key.len > 0 && value.len == 0 ? HOLDFAST_CODE_OK : HOLDFAST_CODE_INVALID;
    case HOLDFAST_DELETE_RANGE: return key.len > 0 && value.len > 0 ? check_range(key, value) : HOLDFAST_CODE_INVALID;
    default: return HOLDFAST_CODE_INVALID;
    }
}

static enum holdfast_code check_batch(const struct client_request *request) {
    const struct client_batch *batch = &request->batch;
    if (batch->count == 0) {
        return HOLDFAST_CODE_INVALID;
    }
    /* What the log's entry will hold besides the bytes: kind and two lengths of at most five bytes. */
    if (batch->count > LIMIT_BATCH_OPERATIONS ||
        request->value.len + (uint64_t)batch->count * 11 + 16 > LIMIT_ENTRY_PAYLOAD_BYTES) {
        return HOLDFAST_CODE_TOO_LARGE;
    }
    struct slice rest = request->value;
    for (uint32_t i = 0; i < batch->count; i++) {
        uint64_t len = (uint64_t)batch->key_lens[i] + batch->value_lens[i];
        if (len > rest.len) {
            return HOLDFAST_CODE_INVALID;
        }
        enum holdfast_code code = check_operation(batch->kinds[i], slice_of(rest.data, batch->key_lens[i]),
                                                  slice_of(rest.data + batch->key_lens[i], batch->value_lens[i]));
        if (code != HOLDFAST_CODE_OK) {
            return code;
        }
        rest = slice_of(rest.data + len, rest.len - (size_t)len);
    }
    return rest.len == 0 ? HOLDFAST_CODE_OK : HOLDFAST_CODE_INVALID;
}

enum holdfast_code client_request_check(const struct client_request *request) {
    switch (request->operation) {
    case CLIENT_PUT:
        if (request->value.len > LIMIT_VALUE_BYTES) {
            return HOLDFAST_CODE_TOO_LARGE;
        }
        return check_key(request->key);
    case CLIENT_DELETE:
    case CLIENT_GET: return check_key(request->key);
    case CLIENT_DELETE_RANGE: return check_range(request->key, request->upper);
    case CLIENT_BATCH: return check_batch(request);
    case CLIENT_SCAN:
        /* One byte more than a key: the place behind the largest one. */
        return request->key.len <= LIMIT_KEY_BYTES + 1 && request->upper.len <= LIMIT_KEY_BYTES + 1
                   ? HOLDFAST_CODE_OK
                   : HOLDFAST_CODE_TOO_LARGE;
    case CLIENT_UPKEEP:
        if (request->target < 0 || (request->upkeep_action == HOLDFAST_UPKEEP_CHECKPOINT) != (request->dir != NULL)) {
            return HOLDFAST_CODE_INVALID;
        }
        return request->dir != NULL && strlen(request->dir) >= LIMIT_PATH_BYTES
                   ? HOLDFAST_CODE_TOO_LARGE
                   : check_range(request->key, request->upper);
    case CLIENT_CHANGE_MEMBERS: return client_changes_check(request->changes, request->change_count);
    case CLIENT_REBUILD_MEMBER: return request->transfer_target != 0 ? HOLDFAST_CODE_OK : HOLDFAST_CODE_INVALID;
    case CLIENT_TRANSFER_LEADER:
    case CLIENT_LIST_MEMBERS:
    case CLIENT_COMPARE: return HOLDFAST_CODE_OK;
    case CLIENT_STATUS:
    case CLIENT_EXPLAIN_LOG: return request->target >= 0 ? HOLDFAST_CODE_OK : HOLDFAST_CODE_INVALID;
    }
    return HOLDFAST_CODE_INVALID;
}

enum holdfast_code client_core_submit(struct client_core *core, struct client_request *request) {
    CHECK(request->state == CLIENT_IDLE && request->done != NULL);
    CHECK(request->target < (int32_t)core->options.endpoint_count);
    uint64_t bytes = client_request_bytes(request);
    enum holdfast_code code = HOLDFAST_CODE_OK;
    request->core = core;
    if (core->closing) {
        code = HOLDFAST_CODE_CLOSED;
        goto refuse;
    }
    if (!request->reserved) {
        request->reserved = client_core_reserve(core, bytes);
        if (!request->reserved && !request->waits) {
            return HOLDFAST_CODE_BUSY;
        }
    }
    if (request->deadline_us == 0) {
        request->deadline_us = env_clock_us(core->env) + (uint64_t)core->options.timeout_ms * 1000;
    }
    env_timer_init(&request->timer, core->loop, request_timer_run);
    if (env_timer_arm(&request->timer, request->deadline_us) != STATUS_OK) {
        code = HOLDFAST_CODE_NO_MEMORY;
        goto refuse;
    }
    if (request->reserved) {
        enqueue(request);
    } else {
        request->state = CLIENT_WAITING;
        list_push_back(&core->waiting, &request->link);
        atomic_fetch_add(&core->waiting_count, 1);
    }
    return HOLDFAST_CODE_OK;
refuse:
    if (request->reserved) {
        client_core_release(core, bytes);
        request->reserved = false;
    }
    return code;
}

/* ---- Ending --------------------------------------------------------------------------------------------------- */

void core__unlink_sent(struct client_request *request) {
    CHECK(request->state == CLIENT_SENT);
    struct client_core *core = request->core;
    struct client_link *link = request->sent_on;
    CHECK(core->slots[request->slot].request == request && link->sent_count > 0);
    core->slots[request->slot].request = NULL;
    core->free_slots[core->free_count++] = request->slot;
    list_remove(&request->link);
    link->sent_count--;
    request->sent_on = NULL;
    request->state = CLIENT_IDLE;
    link__settle(link);
    if (!list_is_empty(&core->ready)) {
        core__dispatch_soon(core);
    }
}

void core__complete(struct client_request *request, struct client_answer *answer) {
    struct client_core *core = request->core;
    if (request->state == CLIENT_SENT) {
        core__unlink_sent(request);
    } else if (request->state == CLIENT_WAITING) {
        atomic_fetch_sub(&core->waiting_count, 1);
    }
    list_remove(&request->link);
    env_timer_cancel(&request->timer);
    request->state = CLIENT_IDLE;
    struct holdfast_result *result = &answer->result;
    if (result->outcome == HOLDFAST_FAILED && request->maybe_done) {
        result->outcome = HOLDFAST_UNKNOWN;
    }
    CHECK(result->outcome != HOLDFAST_UNKNOWN || client_request_is_write(request));
    if (request->reserved) {
        request->reserved = false;
        client_core_release(core, client_request_bytes(request));
    }
    request->done(request, answer);
    admit(core);
}

void core__fail(struct client_request *request, enum holdfast_outcome outcome, enum holdfast_code code,
                const char *message) {
    struct client_answer answer;
    memset(&answer, 0, sizeof answer);
    client_result_set(&answer.result, outcome, code, "%s", message);
    core__complete(request, &answer);
}

bool core__may_repeat(const struct client_request *request) {
    return !client_request_is_write(request) || request->retry_unknown;
}

uint64_t core__jitter_us(struct client_core *core, uint64_t delay_us) {
    return delay_us / 2 + env_random(core->env) % (delay_us / 2 + 1);
}

void core__retry(struct client_request *request, bool at_once, enum holdfast_code code, const char *reason) {
    struct client_core *core = request->core;
    CHECK(request->state == CLIENT_IDLE);
    if (core->closing) {
        core__fail(request, HOLDFAST_FAILED, HOLDFAST_CODE_CLOSED, "the client was closed");
        return;
    }
    request->last_code = code;
    client_text_copy(request->reason, sizeof request->reason, reason);
    uint32_t shift = request->attempts < 8 ? request->attempts : 8;
    request->attempts++;
    if (at_once) {
        enqueue(request);
        return;
    }
    bool elects = (code == HOLDFAST_CODE_NOT_LEADER || code == HOLDFAST_CODE_UNAVAILABLE) &&
                  request->attempts <= ELECTION_RETRIES;
    uint64_t delay_max_us = elects ? ELECTION_DELAY_MAX_US : RETRY_DELAY_MAX_US;
    uint64_t delay_us = (uint64_t)RETRY_DELAY_MIN_US << shift;
    delay_us = core__jitter_us(core, delay_us < delay_max_us ? delay_us : delay_max_us);
    request->retry_at_us = env_now_us(core->loop) + delay_us;
    request->state = CLIENT_DELAYED;
    list_push_back(&core->delayed, &request->link);
    uint64_t wake_us = request->retry_at_us < request->deadline_us ? request->retry_at_us : request->deadline_us;
    if (env_timer_arm(&request->timer, wake_us) != STATUS_OK) {
        core__fail(request, HOLDFAST_FAILED, HOLDFAST_CODE_NO_MEMORY, "out of memory");
    }
}

void core__lost(struct client_request *request, enum holdfast_code code, const char *reason) {
    char message[HOLDFAST_MESSAGE_BYTES];
    if (request->target >= 0) {
        core__fail(request, HOLDFAST_FAILED, HOLDFAST_CODE_UNREACHABLE, reason);
    } else if (core__may_repeat(request)) {
        core__unlink_sent(request);
        request->maybe_done = request->maybe_done || client_request_is_write(request);
        core__retry(request, request->attempts == 0, code, reason);
    } else {
        (void)snprintf(message, sizeof message, "the reply was lost, it may or may not have happened: %s", reason);
        core__fail(request, HOLDFAST_UNKNOWN, code, message);
    }
}

/* The deadline passed. */
static void expire(struct client_request *request) {
    char message[HOLDFAST_MESSAGE_BYTES];
    enum holdfast_code code = HOLDFAST_CODE_TIMEOUT;
    enum holdfast_outcome outcome = HOLDFAST_FAILED;
    if (request->state == CLIENT_SENT) {
        bool is_write = client_request_is_write(request);
        outcome = is_write ? HOLDFAST_UNKNOWN : HOLDFAST_FAILED;
        (void)snprintf(message, sizeof message, "no reply from %s before the deadline%s",
                       request->sent_on->endpoint->name, is_write ? ": it may or may not have happened" : "");
    } else if (request->state == CLIENT_WAITING) {
        code = HOLDFAST_CODE_BUSY;
        (void)snprintf(message, sizeof message, "too many requests in flight until the deadline");
    } else {
        endpoint__explain(request->core, request, message, sizeof message);
        if (request->last_code == HOLDFAST_CODE_NOT_LEADER) {
            code = HOLDFAST_CODE_UNAVAILABLE;
        } else if (request->last_code != HOLDFAST_CODE_OK && request->last_code != HOLDFAST_CODE_CLOSED) {
            code = request->last_code;
        } else {
            code = HOLDFAST_CODE_UNREACHABLE;
        }
    }
    core__fail(request, outcome, code, message);
}

static void request_timer_run(struct env_timer *timer) {
    struct client_request *request = CONTAINER_OF(timer, struct client_request, timer);
    if (env_now_us(request->core->loop) >= request->deadline_us) {
        expire(request);
        return;
    }
    CHECK(request->state == CLIENT_DELAYED);
    list_remove(&request->link);
    request->state = CLIENT_IDLE;
    if (env_timer_arm(&request->timer, request->deadline_us) != STATUS_OK) {
        core__fail(request, HOLDFAST_FAILED, HOLDFAST_CODE_NO_MEMORY, "out of memory");
        return;
    }
    enqueue(request);
}

/* ---- Dispatching ---------------------------------------------------------------------------------------------- */

void core__dispatch_soon(struct client_core *core) {
    if (!core->closing) {
        env_defer(core->loop, ENV_STAGE_PROCESS, &core->dispatch);
    }
}

static void retry_run(struct env_timer *timer) { core__dispatch_soon(CONTAINER_OF(timer, struct client_core, retry)); }

uint64_t core__request_id(const struct client_core *core, const struct client_request *request) {
    return (uint64_t)core->slots[request->slot].generation << 32 | request->slot;
}

struct client_request *core__find(struct client_core *core, const struct client_link *link, uint64_t request_id) {
    uint32_t slot = (uint32_t)request_id;
    if (slot >= core->options.in_flight_max || core->slots[slot].request == NULL) {
        return NULL;
    }
    struct client_request *request = core->slots[slot].request;
    return request->sent_on == link && core__request_id(core, request) == request_id ? request : NULL;
}

/* Sends the first request of a ready list. The link takes it, or it is ended, or (the link is going) it stays. */
static void send_first(struct client_core *core, struct list *ready, struct client_link *link) {
    struct client_request *request = LIST_ENTRY(ready->next, struct client_request, link);
    CHECK(request->state == CLIENT_READY && core->free_count > 0);
    request->slot = core->free_slots[--core->free_count];
    core->slots[request->slot].generation++;
    enum status status = link__send(link, request);
    if (status == STATUS_OK) {
        list_remove(&request->link);
        core->slots[request->slot].request = request;
        request->sent_on = link;
        request->state = CLIENT_SENT;
        list_push_back(&link->sent, &request->link);
        return;
    }
    core->free_slots[core->free_count++] = request->slot;
    if (status != STATUS_CLOSED) {
        core__fail(request, HOLDFAST_FAILED, client_code_of_status(status), "the request can't be sent: out of memory");
    }
}

/* Looks again at this time, or earlier, if an earlier one is waited for. */
static enum status dispatch_at(struct client_core *core, uint64_t at_us) {
    if (env_timer_is_armed(&core->retry) && core->retry_at_us <= at_us) {
        return STATUS_OK;
    }
    core->retry_at_us = at_us;
    return env_timer_arm(&core->retry, at_us);
}

static void fail_first(const struct list *ready) {
    core__fail(LIST_ENTRY(ready->next, struct client_request, link), HOLDFAST_FAILED, HOLDFAST_CODE_NO_MEMORY,
               "out of memory");
}

/* A node that is connecting, or whose output is full, will ask for us; one that backs off won't. */
static void dispatch_targeted(struct client_core *core, struct client_endpoint *endpoint) {
    while (!list_is_empty(&endpoint->ready)) {
        struct client_link *link = link__pick(endpoint);
        if (link != NULL) {
            send_first(core, &endpoint->ready, link);
            continue;
        }
        bool backs_off = endpoint->link_count == 0 && endpoint->retry_at_us > env_now_us(core->loop);
        if (list_is_empty(&endpoint->ready) || !backs_off || dispatch_at(core, endpoint->retry_at_us) == STATUS_OK) {
            return;
        }
        fail_first(&endpoint->ready);
    }
}

static void dispatch_run(struct env_task *task) {
    struct client_core *core = CONTAINER_OF(task, struct client_core, dispatch);
    uint64_t retry_at_us = 0;
    while (!list_is_empty(&core->ready)) {
        struct client_endpoint *endpoint = endpoint__choose(core, &retry_at_us);
        if (endpoint == NULL) {
            if (dispatch_at(core, retry_at_us) != STATUS_OK) {
                fail_first(&core->ready);
                continue;
            }
            break;
        }
        struct client_link *link = link__pick(endpoint);
        if (link != NULL) {
            send_first(core, &core->ready, link);
        } else if (endpoint->retry_at_us <= env_now_us(core->loop)) {
            break; /* it is connecting, or its output is full: it will ask for us */
        }
    }
    for (uint32_t i = 0; i < core->endpoint_count; i++) {
        dispatch_targeted(core, &core->endpoints[i]);
    }
}
