/*
 * Linearizable reads by ReadIndex (thesis, 6.4), in numbered rounds. A read may be served from an index if all that
 * was committed anywhere when it was asked is covered. A leader knows after a round: a heartbeat with the round's
 * number went out, in this term and behind an entry of this term that is committed, and a quorum answered it or a later
 * one. Other nodes ask the leader.
 */
#include "tests/sim/replay/replay.h"

#include <inttypes.h>

static void ask(struct node *node, uint64_t round, uint64_t need) {
    if (node->ask_count > 0 && node->asks[node->ask_count - 1].round == round) {
        node->asks[node->ask_count - 1].need = need;
        return;
    }
    node->asks = grown(node->asks, node->ask_count, &node->ask_capacity, sizeof *node->asks);
    node->asks[node->ask_count++] = (struct ask){.round = round, .need = need};
}

void reads_hear(struct step *step) {
    const struct line *line = step->line;
    struct node *node = step->node;
    if (line->reads_failed) {
        node->ask_count = 0;
    }
    if (line->asked > 0) {
        ask(node, line->asked, step->judge->commit);
    }
    if (!step->has_message || step->role != ROLE_LEADER || step->term != line->term) {
        return;
    }
    const struct message *message = &line->message;
    struct peer *peer = &node->peers[message->from];
    if (message->type == TYPE_HEARTBEAT_REPLY && message->round > peer->round) {
        peer->round = message->round;
    }
    /* Its first asking is what counts: an answer to it is as good for what it repeats. */
    bool repeats = peer->read_waits && peer->read_round == message->round && peer->read_run == message->hint;
    if (message->type == TYPE_READ_INDEX && !repeats) {
        peer->read_waits = true;
        peer->read_round = message->round;
        peer->read_run = message->hint;
        peer->read_need = step->judge->commit;
        peer->read_started = node->round_started;
    }
}

struct confirming {
    const struct node *node;
    uint64_t round;
};

static bool has_confirmed(const void *context, uint64_t id) {
    const struct confirming *confirming = context;
    return id == confirming->node->id || confirming->node->peers[id].round >= confirming->round;
}

static bool check_confirmed(struct step *step) {
    const struct line *line = step->line;
    struct node *node = step->node;
    if (line->role != ROLE_LEADER && step->role != ROLE_LEADER) {
        const struct message *message = &line->message;
        bool answered = step->has_message && message->type == TYPE_READ_INDEX_REPLY &&
                        message->round == line->ready_round && message->index == line->ready_index;
        return answered || broken(step, "read", "reads are served that no leader answered");
    }
    /* A configuration that was left in this very step, or the one behind it. */
    struct confirming confirming = {.node = node, .round = line->ready_round};
    if (step->role != ROLE_LEADER || (!config_quorum(&step->config, node, has_confirmed, &confirming) &&
                                      !config_quorum(node_config(node), node, has_confirmed, &confirming))) {
        return broken(step, "read-round", "round %" PRIu64 " is served, but no quorum confirmed it", line->ready_round);
    }
    if (line->ready_index < node->noop || line->ready_index > line->commit) {
        return broken(step, "read", "reads are served from %" PRIu64 ", which no entry of this term covers",
                      line->ready_index);
    }
    return true;
}

bool reads_check(struct step *step) {
    const struct line *line = step->line;
    struct node *node = step->node;
    if (!line->has_ready) {
        return true;
    }
    if (!check_confirmed(step)) {
        return false;
    }
    size_t done = 0;
    for (; done < node->ask_count && node->asks[done].round <= line->ready_round; done++) {
        if (node->asks[done].need > line->ready_index) {
            return broken(step, "read-stale",
                          "a read is served from %" PRIu64 ", but %" PRIu64 " was committed when it was asked",
                          line->ready_index, node->asks[done].need);
        }
    }
    node->ask_count = shed(node->asks, node->ask_count, done, sizeof *node->asks);
    step->judge->reads += done;
    return true;
}
