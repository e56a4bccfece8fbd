/*
 * One connection to one node: greeting or refusal, requests and replies, and the watch that notices silence.
 *
 * The server speaks first; nothing is sent before its greeting. While requests wait, bytes must come (or queued output
 * must shrink): after half the silence limit a PING asks, after the whole limit the link is given up; long before, at a
 * tenth, the other nodes are asked whether somebody else leads by now (a leader may answer pings and yet be unable to
 * write). Reads and
 * repeatable writes then go elsewhere; other writes stay on the detached link, because a paused node may yet answer
 * them for sure. A link that was idle for long is probed with a PING before a request is trusted to it.
 */
#include "proto/client/core_internal.h"

#include "node/base/check.h"

#include <stdio.h>

/* A node reads nothing more of a connection, pings included, that has its bound of requests under way (1,024 unless
 * configured): we stay below. */
enum { IDLE_PROBE_US = 10 * 1000 * 1000, LOOKS_PER_DOUBT = 4, LINK_REQUESTS_MAX = 1000 };

static const uint64_t PING_ID = UINT64_MAX;

static void watch_run(struct env_timer *timer);

/* ---- The tap: sees bytes come, passes everything on ----------------------------------------------------------- */

static struct client_link *link_of_tap(struct env_stream_handler *tap) {
    return CONTAINER_OF(tap, struct client_link, tap);
}

static void tap_opened(struct env_stream_handler *tap) {
    struct client_link *link = link_of_tap(tap);
    link->progress_us = env_now_us(link->core->loop);
    link->inner->opened(link->inner);
}

static void tap_room(struct env_stream_handler *tap, uint8_t **ret_data, size_t *ret_len) {
    struct client_link *link = link_of_tap(tap);
    link->inner->room(link->inner, ret_data, ret_len);
}

static void tap_received(struct env_stream_handler *tap, size_t len) {
    struct client_link *link = link_of_tap(tap);
    link->progress_us = env_now_us(link->core->loop);
    link->pinged = false;
    link->inner->received(link->inner, len);
}

static void tap_drained(struct env_stream_handler *tap) {
    struct client_link *link = link_of_tap(tap);
    link->inner->drained(link->inner);
}

static void tap_closed(struct env_stream_handler *tap, const struct error *err) {
    struct client_link *link = link_of_tap(tap);
    link->stream = NULL;
    link->inner->closed(link->inner, err);
}

/* ---- Slots and the end ---------------------------------------------------------------------------------------- */

static void detach(struct client_link *link) {
    if (!link->attached) {
        return;
    }
    for (uint32_t i = 0; i < CLIENT_CONNECTIONS_MAX; i++) {
        if (link->endpoint->links[i] == link) {
            link->endpoint->links[i] = NULL;
            link->endpoint->link_count--;
        }
    }
    link->attached = false;
}

static void lose_all(struct client_link *link, const struct error *err) {
    char reason[CLIENT_REASON_BYTES];
    (void)snprintf(reason, sizeof reason, "%.60s: %.90s", link->endpoint->name, err->message);
    enum holdfast_code code = client_code_of_status(err->code);
    while (!list_is_empty(&link->sent)) {
        core__lost(LIST_ENTRY(link->sent.next, struct client_request, link), code, reason);
    }
}

void link__close(struct client_link *link, const struct error *err) {
    if (link->state == LINK_CLOSING) {
        return;
    }
    link->state = LINK_CLOSING;
    detach(link);
    env_timer_cancel(&link->watch);
    connection_close(link->connection);
    lose_all(link, err);
}

void link__settle(struct client_link *link) {
    if (!link->attached && link->sent_count == 0 && link->state != LINK_CLOSING) {
        link->state = LINK_CLOSING;
        env_timer_cancel(&link->watch);
        connection_close(link->connection);
    }
}

/* It ends because of what the other side did or didn't: the endpoint hears of it. */
static void link_fail(struct client_link *link, const struct error *err) {
    if (link->state == LINK_CLOSING) {
        return;
    }
    struct client_endpoint *endpoint = link->endpoint;
    link__close(link, err);
    endpoint__failed(endpoint, err);
}

static struct client_link *link_of(struct connection_handler *handler) {
    return CONTAINER_OF(handler, struct client_link, handler);
}

static void handler_closed(struct connection_handler *handler, const struct error *err) {
    struct client_link *link = link_of(handler);
    struct client_core *core = link->core;
    struct client_endpoint *endpoint = link->endpoint;
    enum link_state state = link->state;
    bool was_attached = link->attached;
    struct error reason = *err;
    if (reason.code == STATUS_OK) {
        (void)error_set(&reason, STATUS_CLOSED, "the node closed the connection");
    }
    bool failed = state == LINK_CONNECTING || state == LINK_PROBING || link->sent_count > 0;
    link->state = LINK_CLOSING;
    detach(link);
    env_timer_cancel(&link->watch);
    lose_all(link, &reason);
    list_remove(&link->member);
    mem_free(core->env->alloc, link);
    if (state != LINK_CLOSING && was_attached && failed) {
        endpoint__failed(endpoint, &reason);
    }
    if (core->closing) {
        env_defer(core->loop, ENV_STAGE_FLUSH, &core->finish);
    } else {
        core__dispatch_soon(core);
    }
}

/* ---- Input ---------------------------------------------------------------------------------------------------- */

static void handler_opened(struct connection_handler *handler) { (void)handler; /* the greeting is what we wait for */ }

static void receive_refusal(struct client_link *link, const struct connection_frame *frame) {
    struct error err;
    struct arena *arena = &link->core->arena;
    const Wire__Refusal *refusal =
        (const Wire__Refusal *)(const void *)wire_unpack(arena, &wire__refusal__descriptor, frame->message);
    if (refusal == NULL) {
        (void)error_set(&err, STATUS_CORRUPT, "a refusal that can't be read");
    } else {
        char text[CLIENT_ERROR_BYTES];
        const char *message = refusal->message != NULL ? refusal->message : "refused without a reason";
        client_text_copy(text, sizeof text, message);
        enum holdfast_code code = client_code_of_wire(refusal->code);
        enum status status = code == HOLDFAST_CODE_DENIED ? STATUS_DENIED : STATUS_UNAVAILABLE;
        (void)error_set(&err, status, "%s", text);
    }
    arena_reset(arena);
    link_fail(link, &err);
}

/* One cluster per client: an endpoint of another one is a mistake in the configuration, and must not get data. */
static enum status check_greeting(struct client_core *core, const Wire__Greeting *greeting, struct error *err) {
    if (greeting == NULL || !greeting->has_cluster_id || greeting->cluster_id.len != sizeof core->cluster_id) {
        return error_set(err, STATUS_CORRUPT, "a greeting that can't be read: is this a Holdfast client port?");
    }
    if (greeting->protocol_min > FRAME_VERSION || greeting->protocol_max < FRAME_VERSION) {
        return error_set(err, STATUS_UNSUPPORTED, "it speaks protocol %u to %u, this client %d: upgrade one of them",
                         greeting->protocol_min, greeting->protocol_max, FRAME_VERSION);
    }
    if (core->has_cluster_id && memcmp(core->cluster_id, greeting->cluster_id.data, sizeof core->cluster_id) != 0) {
        return error_set(err, STATUS_DENIED,
                         "it belongs to another cluster than the nodes seen before: check the endpoints");
    }
    memcpy(core->cluster_id, greeting->cluster_id.data, sizeof core->cluster_id);
    core->has_cluster_id = true;
    return STATUS_OK;
}

static void receive_greeting(struct client_link *link, const struct connection_frame *frame) {
    struct client_core *core = link->core;
    struct client_endpoint *endpoint = link->endpoint;
    struct error err;
    const Wire__Greeting *greeting =
        (const Wire__Greeting *)(const void *)wire_unpack(&core->arena, &wire__greeting__descriptor, frame->message);
    if (check_greeting(core, greeting, &err) != STATUS_OK) {
        arena_reset(&core->arena);
        link_fail(link, &err);
        return;
    }
    if (link->state == LINK_CONNECTING) {
        link->state = LINK_OPEN;
        endpoint__succeeded(endpoint, greeting->node_id);
    }
    bool is_current = endpoint == &core->endpoints[core->current];
    if (is_current && greeting->leader_id != greeting->node_id) {
        (void)endpoint__follow_hint(endpoint, greeting->leader_id, greeting->leader_address);
    }
    endpoint__told(endpoint, greeting->leader_id, greeting->leader_address);
    arena_reset(&core->arena);
    core__dispatch_soon(core);
}

static void receive_pong(struct client_link *link, const struct connection_frame *frame) {
    struct client_core *core = link->core;
    const Wire__Pong *pong =
        (const Wire__Pong *)(const void *)wire_unpack(&core->arena, &wire__pong__descriptor, frame->message);
    if (pong == NULL) {
        struct error err;
        (void)error_set(&err, STATUS_CORRUPT, "a pong that can't be read");
        arena_reset(&core->arena);
        link_fail(link, &err);
        return;
    }
    if (link->state == LINK_PROBING) {
        link->state = LINK_OPEN;
        core__dispatch_soon(core);
    }
    endpoint__told(link->endpoint, pong->leader_id, pong->leader_address);
    arena_reset(&core->arena);
}

static void receive_reply(struct client_link *link, const struct connection_frame *frame) {
    struct client_request *request = core__find(link->core, link, frame->request_id);
    if (request == NULL) {
        return; /* it ended before: deadline, or sent again elsewhere */
    }
    struct error err;
    if (reply__receive(request, frame, &err) != STATUS_OK) {
        link_fail(link, &err);
    }
}

static void handler_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct client_link *link = link_of(handler);
    struct error err;
    if (link->state == LINK_CLOSING) {
        return;
    }
    switch (frame->type) {
    case FRAME_GREETING: receive_greeting(link, frame); return;
    case FRAME_REFUSAL: receive_refusal(link, frame); return;
    default: break;
    }
    if (link->state == LINK_CONNECTING) {
        (void)error_set(&err, STATUS_CORRUPT, "it sent a frame of type %u instead of a greeting", frame->type);
        link_fail(link, &err);
    } else if (frame->type == FRAME_PONG) {
        receive_pong(link, frame);
    } else {
        receive_reply(link, frame);
    }
}

static void handler_drained(struct connection_handler *handler) { core__dispatch_soon(link_of(handler)->core); }

/* ---- Silence -------------------------------------------------------------------------------------------------- */

static uint64_t silence_us(const struct client_link *link) { return (uint64_t)link->core->options.silence_ms * 1000; }

/* Connecting gets a share of the usual deadline, so that one hanging node leaves time for the others. */
static uint64_t limit_us(const struct client_link *link) {
    uint64_t limit = silence_us(link);
    if (link->state == LINK_CONNECTING) {
        const struct client_options *options = &link->core->options;
        uint64_t share = (uint64_t)options->timeout_ms * 1000 / (options->endpoint_count + 1u);
        limit = share < limit ? share : limit;
    }
    return limit;
}

/* When connecting, a probe, or the oldest request on it begins to take long; nothing of that: one that begins now. */
static uint64_t doubt_at_us(const struct client_link *link) {
    uint64_t since_us = env_now_us(link->core->loop);
    if (link->state == LINK_CONNECTING) {
        since_us = link->begun_us;
    } else if (link->state == LINK_PROBING) {
        since_us = link->progress_us;
    } else if (!list_is_empty(&link->sent)) {
        since_us = LIST_ENTRY(link->sent.next, struct client_request, link)->sent_us;
    }
    return since_us + core__doubt_us(link->core);
}

static bool is_slow(const struct client_link *link) { return env_now_us(link->core->loop) >= doubt_at_us(link); }

static void watch_start(struct client_link *link) {
    if (!env_timer_is_armed(&link->watch)) {
        uint64_t now_us = env_now_us(link->core->loop);
        uint64_t at_us = doubt_at_us(link);
        uint64_t again_us = now_us + core__doubt_us(link->core) / LOOKS_PER_DOUBT;
        if (env_timer_arm(&link->watch, at_us > now_us ? at_us : again_us) != STATUS_OK) {
            struct error err;
            (void)error_set(&err, STATUS_NO_MEMORY, "out of memory");
            link_fail(link, &err);
        }
    }
}

static void ping(struct client_link *link) {
    link->pinged = true;
    /* A failure means that the connection is going; closed will come. */
    enum status status = connection_send(link->connection, FRAME_PING, PING_ID, NULL, NULL, 0);
    (void)status;
}

static void fall_silent(struct client_link *link) {
    struct error err;
    uint64_t limit_ms = limit_us(link) / 1000;
    if (link->state != LINK_OPEN) {
        (void)error_set(&err, STATUS_TIMEOUT, "%s for %llu ms",
                        link->state == LINK_CONNECTING ? "no connection and greeting" : "silent",
                        (unsigned long long)limit_ms);
        link_fail(link, &err);
        return;
    }
    (void)error_set(&err, STATUS_TIMEOUT, "silent for %llu ms", (unsigned long long)limit_ms);
    detach(link);
    char reason[CLIENT_REASON_BYTES];
    (void)snprintf(reason, sizeof reason, "%.60s: %.90s", link->endpoint->name, err.message);
    endpoint__failed(link->endpoint, &err);
    /* Requests that go are unlinked one by one; the last one would close the link under our feet. */
    link->sent_count++;
    LIST_FOREACH (node, &link->sent) {
        struct client_request *request = LIST_ENTRY(node, struct client_request, link);
        if (core__may_repeat(request) || request->target >= 0) {
            core__lost(request, HOLDFAST_CODE_TIMEOUT, reason);
        }
    }
    link->sent_count--;
    link__settle(link);
}

static bool may_move(const struct client_request *request) { return request->target < 0 && core__may_repeat(request); }

bool link__is_in_doubt(const struct client_endpoint *endpoint) {
    for (uint32_t i = 0; endpoint->link_count > 0 && i < CLIENT_CONNECTIONS_MAX; i++) {
        if (endpoint->links[i] != NULL && is_slow(endpoint->links[i])) {
            return true;
        }
    }
    return false;
}

bool link__is_late(const struct client_endpoint *endpoint) {
    bool is_late = false;
    for (uint32_t i = 0; endpoint->link_count > 0 && i < CLIENT_CONNECTIONS_MAX; i++) {
        const struct client_link *link = endpoint->links[i];
        if (link != NULL && link->state == LINK_OPEN) {
            return false;
        }
        is_late = is_late || (link != NULL && is_slow(link));
    }
    return is_late;
}

void link__move_slow(struct client_endpoint *endpoint, const char *reason) {
    for (uint32_t i = 0; i < CLIENT_CONNECTIONS_MAX; i++) {
        struct client_link *link = endpoint->links[i];
        if (link == NULL || link->state != LINK_OPEN) {
            continue;
        }
        uint64_t now_us = env_now_us(link->core->loop);
        LIST_FOREACH (node, &link->sent) {
            struct client_request *request = LIST_ENTRY(node, struct client_request, link);
            if (now_us - request->sent_us < core__doubt_us(link->core)) {
                break; /* in the order of sending */
            }
            if (may_move(request)) {
                core__lost(request, HOLDFAST_CODE_TIMEOUT, reason);
            }
        }
    }
}

/* It takes long: is somebody else leading by now? Nobody is asked for requests that must wait here anyway. */
static void doubt(struct client_link *link) {
    struct client_core *core = link->core;
    bool is_asked_for = link->endpoint == &core->endpoints[core->current];
    LIST_FOREACH (node, &link->sent) {
        is_asked_for = is_asked_for || may_move(LIST_ENTRY(node, struct client_request, link));
    }
    if (is_asked_for) {
        endpoint__ask_others(link->endpoint);
        core__dispatch_soon(core); /* what isn't sent yet may go elsewhere, if this is a connection that doesn't come */
    }
}

static void watch_run(struct env_timer *timer) {
    struct client_link *link = CONTAINER_OF(timer, struct client_link, watch);
    if (link->state == LINK_OPEN && link->sent_count == 0) {
        return; /* nothing waits; link__send starts the watch again */
    }
    uint64_t now_us = env_now_us(link->core->loop);
    size_t queued_bytes = link->stream != NULL ? env_stream_queued_bytes(link->stream) : 0;
    if (queued_bytes < link->queued_bytes) {
        link->progress_us = now_us;
    }
    link->queued_bytes = queued_bytes;
    uint64_t silent_us = now_us - link->progress_us;
    if (silent_us >= limit_us(link)) {
        fall_silent(link);
        return;
    }
    if (link->state == LINK_OPEN && !link->pinged && silent_us >= silence_us(link) / 2) {
        ping(link);
    }
    if (link->attached && is_slow(link)) {
        doubt(link);
    }
    watch_start(link);
}

/* ---- Opening and sending -------------------------------------------------------------------------------------- */

static void link_open(struct client_endpoint *endpoint, uint32_t slot) {
    struct client_core *core = endpoint->core;
    struct error err;
    const struct connection_limits limits = {LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES};
    struct client_link *link = mem_alloc_zero(core->env->alloc, sizeof *link);
    if (link == NULL) {
        (void)error_set(&err, STATUS_NO_MEMORY, "out of memory");
        endpoint__failed(endpoint, &err);
        return;
    }
    link->core = core;
    link->endpoint = endpoint;
    link->handler = (struct connection_handler){handler_opened, handler_frame, handler_drained, handler_closed};
    link->tap = (struct env_stream_handler){tap_opened, tap_room, tap_received, tap_drained, tap_closed};
    link->state = LINK_CONNECTING;
    link->begun_us = env_now_us(core->loop);
    link->progress_us = link->begun_us;
    list_init(&link->sent);
    env_timer_init(&link->watch, core->loop, watch_run);
    enum status status = connection_new(core->loop, &limits, &link->handler, &link->connection);
    if (status != STATUS_OK) {
        (void)error_set(&err, status, "out of memory");
        goto fail;
    }
    link->inner = connection_stream_handler(link->connection);
    status = env_connect(core->transport, core->loop, endpoint->address, &link->tap, &link->stream, &err);
    if (status != STATUS_OK) {
        connection_free_unattached(link->connection);
        goto fail;
    }
    connection_attach(link->connection, link->stream);
    link->attached = true;
    endpoint->links[slot] = link;
    endpoint->link_count++;
    list_push_back(&core->links, &link->member);
    watch_start(link);
    return;
fail:
    mem_free(core->env->alloc, link);
    endpoint__failed(endpoint, &err);
}

static void probe(struct client_link *link) {
    link->state = LINK_PROBING;
    link->progress_us = env_now_us(link->core->loop);
    ping(link);
    watch_start(link);
}

void link__ask(struct client_endpoint *endpoint) {
    for (uint32_t i = 0; i < CLIENT_CONNECTIONS_MAX && endpoint->link_count > 0; i++) {
        struct client_link *link = endpoint->links[i];
        if (link != NULL && link->state == LINK_OPEN) {
            ping(link);
            return;
        }
    }
    if (endpoint->link_count == 0) {
        link_open(endpoint, 0);
    }
}

struct client_link *link__pick(struct client_endpoint *endpoint) {
    struct client_core *core = endpoint->core;
    uint64_t now_us = env_now_us(core->loop);
    struct client_link *picked = NULL;
    uint32_t empty = CLIENT_CONNECTIONS_MAX;
    uint32_t count = core->options.connections;
    CHECK(count > 0 && count <= CLIENT_CONNECTIONS_MAX && endpoint->link_count <= count);
    /* With all links open, one look is enough: the turn goes round, so each is picked, or found idle, in its turn. */
    bool may_open = endpoint->link_count < count && endpoint->retry_at_us <= now_us;
    for (uint32_t i = 0; i < count && (picked == NULL || (may_open && empty == CLIENT_CONNECTIONS_MAX)); i++) {
        uint32_t slot = (endpoint->next_link + i) % count;
        struct client_link *link = endpoint->links[slot];
        if (link == NULL) {
            empty = slot;
        } else if (link->state == LINK_OPEN && link->sent_count == 0 && now_us - link->progress_us > IDLE_PROBE_US) {
            probe(link);
        } else if (link->state == LINK_OPEN && picked == NULL && link->sent_count < LINK_REQUESTS_MAX &&
                   !connection_is_full(link->connection)) {
            picked = link;
        }
    }
    endpoint->next_link = (endpoint->next_link + 1) % count;
    if (may_open && empty < count) {
        link_open(endpoint, empty);
    }
    return picked;
}

enum status link__send(struct client_link *link, struct client_request *request) {
    CHECK(link->state == LINK_OPEN && link->attached);
    struct client_core *core = link->core;
    uint64_t now_us = env_now_us(core->loop);
    uint64_t left_us = request->deadline_us > now_us ? request->deadline_us - now_us : 0;
    uint32_t timeout_ms = left_us >= 1000 ? (uint32_t)(left_us / 1000) : 1;
    enum status status = encode__request(link, request, core__request_id(core, request), timeout_ms);
    if (status == STATUS_CLOSED) {
        detach(link); /* closed will come; nothing more goes this way */
        return status;
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (link->sent_count == 0) {
        link->progress_us = now_us;
        link->pinged = false;
    }
    request->sent_us = now_us;
    link->sent_count++;
    if (!env_timer_is_armed(&link->watch)) {
        watch_start(link);
    }
    return STATUS_OK;
}
