/*
 * Where to go: the endpoints, the guess at the leader, back-off.
 *
 * `current` follows what nodes say about the leader. A node that can't be reached, refuses or falls silent backs off
 * (20 ms, doubling to 500 ms, with jitter; after silence not before the silence limit) and `current` moves on, so that
 * no endpoint is stuck to; a hint at an endpoint that backs off is not followed, so that a dead leader that others
 * still name isn't either. So is one where connecting takes long, while there are others.
 *
 * A silent or slow leader: the others are asked who leads. While none of them names another, it is waited for.
 */
#include "proto/client/core_internal.h"

#include "node/base/check.h"

#include <stdio.h>

enum { BACK_OFF_MIN_US = 20 * 1000, BACK_OFF_MAX_US = 500 * 1000 };

static void endpoint_init(struct client_core *core, struct client_endpoint *endpoint, const char *name,
                          const char *address) {
    memset(endpoint, 0, sizeof *endpoint);
    endpoint->core = core;
    client_text_copy(endpoint->name, sizeof endpoint->name, name);
    client_text_copy(endpoint->address, sizeof endpoint->address, address);
    list_init(&endpoint->ready);
}

void endpoint__init_all(struct client_core *core) {
    for (uint32_t i = 0; i < CLIENT_ENDPOINTS_MAX; i++) {
        endpoint_init(core, &core->endpoints[i], "", "");
    }
    core->endpoint_count = core->options.endpoint_count;
    for (uint32_t i = 0; i < core->endpoint_count; i++) {
        const struct client_endpoint_config *config = &core->options.endpoints[i];
        endpoint_init(core, &core->endpoints[i], config->name, config->address);
    }
    core->current = core->options.pin >= 0 ? (uint32_t)core->options.pin : 0;
}

static uint32_t index_of(const struct client_endpoint *endpoint) {
    return (uint32_t)(endpoint - endpoint->core->endpoints);
}

struct client_endpoint *endpoint__choose(struct client_core *core, uint64_t *ret_retry_at_us) {
    uint64_t now_us = env_now_us(core->loop);
    uint64_t earliest_us = UINT64_MAX;
    struct client_endpoint *late = NULL;
    for (uint32_t i = 0; i < core->endpoint_count; i++) {
        uint32_t index = (core->current + i) % core->endpoint_count;
        struct client_endpoint *endpoint = &core->endpoints[index];
        if (endpoint->retry_at_us <= now_us && !link__is_late(endpoint)) {
            core->current = index;
            return endpoint;
        }
        if (endpoint->retry_at_us <= now_us) {
            late = late == NULL ? endpoint : late;
        } else if (endpoint->retry_at_us < earliest_us) {
            earliest_us = endpoint->retry_at_us;
        }
        if (core->options.pin >= 0) {
            break;
        }
    }
    *ret_retry_at_us = earliest_us;
    return late;
}

void endpoint__pass_over(struct client_endpoint *endpoint) {
    struct client_core *core = endpoint->core;
    if (core->options.pin < 0 && core->current == index_of(endpoint)) {
        core->current = (core->current + 1) % core->endpoint_count;
    }
}

/* The endpoint whose denial is the answer: every configured one failed, and this one because it denied us. */
static const struct client_endpoint *final_denial(const struct client_core *core) {
    const struct client_endpoint *denial = NULL;
    for (uint32_t i = 0; i < core->options.endpoint_count; i++) {
        const struct client_endpoint *endpoint = &core->endpoints[i];
        if (core->options.pin >= 0 && core->options.pin != (int32_t)i) {
            continue;
        }
        if (endpoint->failures == 0) {
            return NULL;
        }
        if (endpoint->denied) {
            denial = endpoint;
        }
    }
    return denial;
}

static void fail_list(struct list *head, enum holdfast_code code, const char *message) {
    /* What is submitted by callbacks meanwhile is not ours to end. */
    struct list ended;
    list_init(&ended);
    list_splice_back(&ended, head);
    struct list *node;
    while ((node = list_pop_front(&ended)) != NULL) {
        core__fail(LIST_ENTRY(node, struct client_request, link), HOLDFAST_FAILED, code, message);
    }
}

void endpoint__failed(struct client_endpoint *endpoint, const struct error *err) {
    struct client_core *core = endpoint->core;
    uint32_t shift = endpoint->failures < 5 ? endpoint->failures : 5;
    endpoint->failures++;
    endpoint->denied = err->code == STATUS_DENIED;
    (void)snprintf(endpoint->last_error, sizeof endpoint->last_error, "%.*s", CLIENT_ERROR_BYTES - 1, err->message);
    uint64_t delay_us = (uint64_t)BACK_OFF_MIN_US << shift;
    delay_us = core__jitter_us(core, delay_us < BACK_OFF_MAX_US ? delay_us : BACK_OFF_MAX_US);
    uint64_t silence_us = (uint64_t)core->options.silence_ms * 1000;
    if (err->code == STATUS_TIMEOUT && delay_us < silence_us) {
        delay_us = silence_us;
    }
    endpoint->retry_at_us = env_now_us(core->loop) + delay_us;
    endpoint__pass_over(endpoint);

    char message[HOLDFAST_MESSAGE_BYTES];
    enum holdfast_code code = endpoint->denied ? HOLDFAST_CODE_DENIED : HOLDFAST_CODE_UNREACHABLE;
    (void)snprintf(message, sizeof message, "%.50s: %.190s", endpoint->name, endpoint->last_error);
    fail_list(&endpoint->ready, code, message);
    const struct client_endpoint *denial = final_denial(core);
    if (denial != NULL) {
        (void)snprintf(message, sizeof message, "%.50s: %.190s", denial->name, denial->last_error);
        fail_list(&core->ready, HOLDFAST_CODE_DENIED, message);
    }
    core__dispatch_soon(core);
}

void endpoint__succeeded(struct client_endpoint *endpoint, uint64_t node_id) {
    endpoint->failures = 0;
    endpoint->retry_at_us = 0;
    endpoint->denied = false;
    endpoint->node_id = node_id;
}

/* By node id, else by address; learns an address that is new. NULL: no room, or not an address. */
static struct client_endpoint *find_or_learn(struct client_core *core, uint64_t node_id, const char *address) {
    for (uint32_t i = 0; i < core->endpoint_count; i++) {
        if (core->endpoints[i].node_id == node_id) {
            return &core->endpoints[i];
        }
    }
    for (uint32_t i = 0; i < core->endpoint_count; i++) {
        if (strcmp(core->endpoints[i].address, address) == 0) {
            return &core->endpoints[i];
        }
    }
    if (core->endpoint_count == CLIENT_ENDPOINTS_MAX || strlen(address) >= LIMIT_ADDRESS_BYTES ||
        strchr(address, ':') == NULL) {
        return NULL;
    }
    struct client_endpoint *endpoint = &core->endpoints[core->endpoint_count++];
    endpoint_init(core, endpoint, address, address);
    endpoint->learnt = true;
    return endpoint;
}

bool endpoint__follow_hint(struct client_endpoint *from, uint64_t leader_id, const char *address) {
    struct client_core *core = from->core;
    if (core->options.pin >= 0 || leader_id == 0 || address == NULL || address[0] == '\0') {
        return false;
    }
    struct client_endpoint *leader = find_or_learn(core, leader_id, address);
    if (leader == NULL || leader == from || leader->retry_at_us > env_now_us(core->loop) || link__is_late(leader)) {
        return false;
    }
    core->current = index_of(leader);
    return true;
}

void endpoint__told(struct client_endpoint *from, uint64_t leader_id, const char *address) {
    struct client_core *core = from->core;
    if (core->options.pin >= 0 || core->closing || leader_id == 0 || address == NULL || address[0] == '\0') {
        return;
    }
    struct client_endpoint *leader = find_or_learn(core, leader_id, address);
    if (leader == NULL || leader->retry_at_us > env_now_us(core->loop) || link__is_late(leader)) {
        return;
    }
    struct client_endpoint *current = &core->endpoints[core->current];
    if (leader != current && link__is_in_doubt(current)) {
        core->current = index_of(leader);
        core__dispatch_soon(core);
    }
    char reason[CLIENT_REASON_BYTES];
    for (uint32_t i = 0; i < core->endpoint_count; i++) {
        struct client_endpoint *endpoint = &core->endpoints[i];
        if (endpoint != leader && endpoint->link_count > 0) {
            (void)snprintf(reason, sizeof reason, "%.60s: no answer, and %.60s leads", endpoint->name, leader->name);
            link__move_slow(endpoint, reason);
        }
    }
}

void endpoint__ask_others(struct client_endpoint *endpoint) {
    struct client_core *core = endpoint->core;
    uint64_t now_us = env_now_us(core->loop);
    for (uint32_t i = 0; i < core->endpoint_count && core->options.pin < 0; i++) {
        if (&core->endpoints[i] != endpoint && core->endpoints[i].retry_at_us <= now_us) {
            link__ask(&core->endpoints[i]);
        }
    }
}

void endpoint__explain(const struct client_core *core, const struct client_request *request, char *out, size_t size) {
    size_t len = 0;
    int wrote = snprintf(out, size, "no answer before the deadline%s%s", request->reason[0] != '\0' ? ": " : "",
                         request->reason);
    for (uint32_t i = 0; i < core->endpoint_count; i++) {
        len += wrote > 0 ? (size_t)wrote : 0;
        const struct client_endpoint *endpoint = &core->endpoints[i];
        bool asked = core->options.pin < 0 || core->options.pin == (int32_t)i;
        wrote = 0;
        if (asked && endpoint->failures > 0 && len < size) {
            wrote = snprintf(out + len, size - len, "; %s: %s", endpoint->name, endpoint->last_error);
        }
    }
}
