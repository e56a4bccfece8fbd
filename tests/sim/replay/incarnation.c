/*
 * Which log speaks for an id. A node whose data were wiped has another incarnation, and is to all arguments another
 * node: what it says counts if the effective configuration of who counts has recorded that very one. The exception is
 * a cluster's first election, in which nothing is recorded: who has no entry counts votes of such members, and its
 * first entry records itself.
 *
 * What may be recorded in one step: a member for whom nothing was; a learner, which counts nowhere. Only what was
 * heard.
 */
#include "tests/sim/replay/replay.h"

#include <inttypes.h>
#include <string.h>

bool incarnation_begins(const struct node *node, const struct config *config) {
    return node->incarnation != 0 && config->index == 0 && node->log.last == 0 && node->heal_index == 0 &&
           set_has(&config->voters, node->id) && config->incarnations[node->id] == 0;
}

bool incarnation_is_own(const struct node *node, const struct config *config) {
    return config->incarnations[node->id] == node->incarnation || incarnation_begins(node, config);
}

bool incarnation_counts(const struct step *step) {
    const struct message *message = &step->line->message;
    return step->config.incarnations[message->from] == message->incarnation;
}

bool incarnation_vote_counts(const struct step *step) {
    bool is_unrecorded = step->config.incarnations[step->line->message.from] == 0;
    return incarnation_counts(step) || (is_unrecorded && incarnation_begins(step->node, &step->config));
}

void incarnation_hear(struct step *step) {
    const struct line *line = step->line;
    if (line->event == EVENT_RECEIVE) {
        step->node->peers[line->message.from].said = line->message.incarnation;
    }
}

bool incarnation_check_change(struct step *step, const struct config *config) {
    const struct config *old = &step->config;
    const struct node *node = step->node;
    for (uint64_t id = 1; id < NODES_MAX; id++) {
        if (config->incarnations[id] == old->incarnations[id]) {
            continue;
        }
        bool is_member = set_has(&old->voters, id) || set_has(&old->outgoing, id) || set_has(&old->learners, id);
        bool is_learner = set_has(&old->learners, id) && !set_has(&old->outgoing, id) && !config_is_joint(config);
        bool is_gone =
            !set_has(&config->voters, id) && !set_has(&config->outgoing, id) && !set_has(&config->learners, id);
        bool is_new = is_member && old->incarnations[id] == 0;
        bool was_heard = config->incarnations[id] == (id == node->id ? node->incarnation : node->peers[id].said);
        if (!is_gone && !((is_new || is_learner) && was_heard)) {
            return broken(step, "incarnation",
                          "the log of %" PRIu64 " that counts was replaced in the place of another", id);
        }
    }
    return true;
}

/* What was known of it was another's. What a member that leaves has said still counts for what came before. */
void incarnation_changed(struct node *node, const struct config *from, const struct config *to) {
    for (uint64_t id = 1; id < NODES_MAX; id++) {
        if (to->incarnations[id] != 0 && from->incarnations[id] != to->incarnations[id]) {
            struct peer *peer = &node->peers[id];
            *peer = (struct peer){.said = peer->said,
                                  .read_waits = peer->read_waits,
                                  .read_round = peer->read_round,
                                  .read_run = peer->read_run,
                                  .read_need = peer->read_need,
                                  .read_started = peer->read_started};
        }
    }
}

void incarnation_wiped(struct node *node) {
    node->known = false;
    node->log.last = node->log.start = 0;
    node->disk.last = node->disk.start = 0;
    node->disk_floor = 0;
    node->write_count = 0;
    node->vote_count = 0;
    node->configs.count = 0;
    node->commit_max = 0;
    node->heal_index = 0;
    node->heal_term = 0;
}

bool incarnation_check_start(struct step *step) {
    struct node *node = step->node;
    uint64_t incarnation = step->line->incarnation;
    bool must_be_new = !node->known && node->incarnation != 0;
    if (node->known ? incarnation != node->incarnation : must_be_new && incarnation == node->incarnation) {
        return broken(step, "incarnation", "a start as %s log than before", must_be_new ? "no other" : "another");
    }
    node->incarnation = incarnation;
    return true;
}
