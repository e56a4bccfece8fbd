/*
 * The fault hooks of raft messages: drop one, or hold a copy back and send or deliver it later.
 */
#include "node/server/peers_internal.h"

#include "node/base/check.h"

struct peer_delayed {
    struct peers *peers;
    struct list link;
    struct env_timer timer;
    enum peer_direction direction;
    struct raft_message message;
    size_t raw_len;
    uint8_t raw[];
};

static enum fault_hook hook_of(enum peer_direction direction, const struct raft_message *message) {
    switch (message->type) {
    case RAFT_APPEND: return direction == PEER_SEND ? FAULT_RAFT_APPEND_SEND : FAULT_RAFT_APPEND_RECEIVE;
    case RAFT_PREVOTE:
    case RAFT_PREVOTE_REPLY:
    case RAFT_VOTE:
    case RAFT_VOTE_REPLY: return direction == PEER_SEND ? FAULT_RAFT_VOTE_SEND : FAULT_RAFT_VOTE_RECEIVE;
    default: return FAULT_NONE;
    }
}

static void forget(struct peer_delayed *delayed) {
    env_timer_cancel(&delayed->timer);
    list_remove(&delayed->link);
    delayed->peers->delayed_count--;
    mem_free(peers__alloc(delayed->peers), delayed);
}

static void on_due(struct env_timer *timer) {
    struct peer_delayed *delayed = CONTAINER_OF(timer, struct peer_delayed, timer);
    struct slice raw = slice_of(delayed->raw, delayed->raw_len);
    if (delayed->direction == PEER_SEND) {
        (void)peers__send_now(delayed->peers, &delayed->message, &raw, 1);
    } else {
        peers__deliver(delayed->peers, &delayed->message, raw);
    }
    forget(delayed);
}

static enum peer_verdict hold(struct peers *peers, enum peer_direction direction, uint64_t delay_us,
                              const struct raft_message *message, const struct slice *raw, size_t raw_count) {
    size_t raw_len = 0;
    for (size_t i = 0; i < raw_count; i++) {
        raw_len += raw[i].len;
    }
    if (peers->delayed_count >= PEER_DELAYED_MAX) {
        return PEER_DROPPED;
    }
    struct peer_delayed *delayed = mem_alloc(peers__alloc(peers), sizeof *delayed + raw_len);
    if (delayed == NULL) {
        return PEER_DROPPED;
    }
    *delayed = (struct peer_delayed){.peers = peers, .direction = direction, .message = *message, .raw_len = raw_len};
    uint8_t *out = delayed->raw;
    for (size_t i = 0; i < raw_count; i++) {
        if (raw[i].len > 0) {
            memcpy(out, raw[i].data, raw[i].len);
            out += raw[i].len;
        }
    }
    list_push_back(&peers->delayed, &delayed->link);
    peers->delayed_count++;
    env_timer_init(&delayed->timer, peers->options.loop, on_due);
    if (env_timer_arm(&delayed->timer, env_now_us(peers->options.loop) + delay_us) != STATUS_OK) {
        forget(delayed);
        return PEER_DROPPED;
    }
    return PEER_DELAYED;
}

enum peer_verdict peer_delay__check(struct peers *peers, enum peer_direction direction,
                                    const struct raft_message *message, const struct slice *raw, size_t raw_count) {
    struct env *env = peers->options.env;
    struct fault_action action = fault_hit(env->faults, hook_of(direction, message));
    switch (action.kind) {
    case FAULT_KIND_OFF: return PEER_PASS;
    case FAULT_KIND_EXIT: env_exit(env, action.argument);
    case FAULT_KIND_DELAY: return hold(peers, direction, (uint64_t)action.argument * 1000, message, raw, raw_count);
    case FAULT_KIND_ERROR:
    case FAULT_KIND_SHORT:
    case FAULT_KIND_HANG: return PEER_DROPPED;
    }
    CHECK(false);
}

void peer_delay__drop_all(struct peers *peers) {
    LIST_FOREACH (node, &peers->delayed) {
        forget(LIST_ENTRY(node, struct peer_delayed, link));
    }
}
