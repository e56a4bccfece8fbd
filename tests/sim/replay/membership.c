/*
 * Configurations (thesis, chapter 4): effective from append on, rolled back with the log; a change of voters goes
 * through a joint configuration, whose quorums are majorities of both sets; one change at a time, and none before the
 * leader has committed an entry of its term.
 */
#include "tests/sim/replay/replay.h"

#include <inttypes.h>
#include <string.h>

bool set_has(const struct set *set, uint64_t id) {
    for (size_t i = 0; i < set->count; i++) {
        if (set->ids[i] == id) {
            return true;
        }
    }
    return false;
}

bool set_equal(const struct set *a, const struct set *b) {
    for (size_t i = 0; i < a->count; i++) {
        if (!set_has(b, a->ids[i])) {
            return false;
        }
    }
    return a->count == b->count;
}

static bool members_equal(const struct config *a, const struct config *b) {
    return set_equal(&a->voters, &b->voters) && set_equal(&a->outgoing, &b->outgoing) &&
           set_equal(&a->learners, &b->learners) &&
           memcmp(a->incarnations, b->incarnations, sizeof a->incarnations) == 0;
}

static bool config_equal(const struct config *a, const struct config *b) {
    return a->index == b->index && members_equal(a, b);
}

bool config_is_joint(const struct config *config) { return config->outgoing.count > 0; }

/* `without` says nothing that counts. */
static bool majority(const struct set *set, uint64_t without, bool (*says)(const void *context, uint64_t id),
                     const void *context) {
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++) {
        count += set->ids[i] != without && says(context, set->ids[i]);
    }
    return count > set->count / 2;
}

bool config_quorum(const struct config *config, const struct node *node, bool (*says)(const void *context, uint64_t id),
                   const void *context) {
    uint64_t without = incarnation_is_own(node, config) ? 0 : node->id;
    return majority(&config->voters, without, says, context) &&
           (!config_is_joint(config) || majority(&config->outgoing, without, says, context));
}

const struct config *node_config(const struct node *node) { return &node->configs.list[node->configs.count - 1]; }

static bool is_voter(const struct config *config, uint64_t id) {
    return set_has(&config->voters, id) || set_has(&config->outgoing, id);
}

/* A configuration without the node's vote may still be cut, as long as it isn't committed. */
bool node_may_campaign(const struct node *node) {
    if (node->heal_index > 0) {
        return false; /* it has less than it acknowledged */
    }
    for (size_t i = node->configs.count; i > 0; i--) {
        const struct config *config = &node->configs.list[i - 1];
        if (is_voter(config, node->id) && incarnation_is_own(node, config)) {
            return true;
        }
        if (config->index <= node->commit) {
            return false;
        }
    }
    return false;
}

static void push(struct configs *configs, const struct config *config) {
    configs->list = grown(configs->list, configs->count, &configs->capacity, sizeof *configs->list);
    configs->list[configs->count++] = *config;
}

void membership_cut(struct node *node, uint64_t last) {
    while (node->configs.count > 1 && node_config(node)->index > last) {
        node->configs.count--;
    }
}

void membership_reset(struct node *node, const struct config *config) {
    node->configs.count = 0;
    push(&node->configs, config);
}

/* ---- Changes ---------------------------------------------------------------------------------------------------- */

static bool check_change(struct step *step, const struct config *config) {
    const struct config *old = &step->config;
    const struct node *node = step->node;
    if (config->index == 1 && old->index == 0 && node->noop == 1) { /* the first entry of all */
        return (!config_is_joint(config) && set_equal(&config->voters, &old->voters)) ||
               broken(step, "change", "the first entry changes who votes");
    }
    if (old->index > step->line->commit) {
        return broken(step, "change", "a change of membership, but the one of entry %" PRIu64 " isn't committed",
                      old->index);
    }
    if (step->line->commit < node->noop) {
        return broken(step, "change", "a change of membership before an entry of this term is committed");
    }
    if (config_is_joint(old)) {
        bool leaves = !config_is_joint(config) && set_equal(&config->voters, &old->voters);
        return leaves || broken(step, "change", "a joint configuration was left for another than its incoming one");
    }
    bool joint_fits =
        config_is_joint(config) ? set_equal(&config->outgoing, &old->voters) : set_equal(&config->voters, &old->voters);
    return joint_fits || broken(step, "change", "voters changed without a joint configuration of both sets");
}

/* The one who makes a configuration says what is in it; all others must have the same. */
const struct config *membership_made(const struct judge *judge, uint64_t index, uint64_t term) {
    for (size_t i = 0; i < judge->configs.count; i++) {
        if (judge->configs.list[i].index == index && judge->config_terms[i] == term) {
            return &judge->configs.list[i];
        }
    }
    return NULL;
}

static void make(struct judge *judge, const struct config *config, uint64_t term) {
    size_t count = judge->configs.count;
    judge->config_terms = grown(judge->config_terms, count, &judge->config_terms_capacity, sizeof *judge->config_terms);
    judge->config_terms[count] = term;
    push(&judge->configs, config);
}

bool membership_append(struct step *step, uint64_t index, uint64_t term) {
    const struct line *line = step->line;
    if (line->event != EVENT_RECEIVE || line->role == ROLE_LEADER) {
        if (!line->has_configuration || line->configuration.index != index) {
            return broken(step, "membership", "entry %" PRIu64 " is a configuration, but its line doesn't show it",
                          index);
        }
        if (!check_change(step, &line->configuration) || !incarnation_check_change(step, &line->configuration)) {
            return false;
        }
        make(step->judge, &line->configuration, term);
        incarnation_changed(step->node, node_config(step->node), &line->configuration);
        push(&step->node->configs, &line->configuration);
        return true;
    }
    const struct config *made = membership_made(step->judge, index, term);
    for (size_t i = 0; i < line->message_configs.count; i++) {
        const struct config *config = &line->message_configs.list[i];
        if (config->index == index && made != NULL && config_equal(config, made)) {
            push(&step->node->configs, config);
            return true;
        }
    }
    return broken(step, "membership", "entry %" PRIu64 " isn't the configuration that its leader made", index);
}

bool membership_check_state(struct step *step) {
    const struct line *line = step->line;
    const struct config *config = node_config(step->node);
    if (config->index != line->config_index) {
        return broken(step, "membership",
                      "the configuration of entry %" PRIu64 " is effective, but %" PRIu64 " is used", config->index,
                      line->config_index);
    }
    if (line->has_configuration && !config_equal(config, &line->configuration)) {
        return broken(step, "membership", "the configuration of entry %" PRIu64 " isn't what it was", config->index);
    }
    return true;
}

static bool is_committed(const struct judge *judge, size_t made) {
    uint64_t index = judge->configs.list[made].index;
    return index < judge->committed_capacity && judge->committed[index].term == judge->config_terms[made];
}

/* With a snapshot comes what was effective at its end. */
static void take_installed(struct step *step) {
    const struct judge *judge = step->judge;
    const struct config *newest = NULL;
    for (size_t i = 0; i < judge->configs.count; i++) {
        const struct config *config = &judge->configs.list[i];
        bool is_before = config->index <= step->line->start_index && is_committed(judge, i);
        if (is_before && (newest == NULL || config->index > newest->index)) {
            newest = config;
        }
    }
    if (newest != NULL) {
        membership_reset(step->node, newest);
    }
}

/* A node remembers the newest configuration that it has applied beside its log, too. Where less of the log is found
 * than that, for damage took it or a crash came before its own sync, it goes by it as of the newest entry that it knows
 * to be committed, until the others come again. */
static void take_remembered(struct step *step) {
    const struct line *line = step->line;
    bool may = line->config_index == line->commit;
    for (size_t i = 0; i < step->judge->configs.count && may; i++) {
        const struct config *config = &step->judge->configs.list[i];
        bool was_known = config->index > line->commit && config->index <= step->node->commit_max;
        if (was_known && is_committed(step->judge, i) && members_equal(config, &line->configuration)) {
            membership_reset(step->node, &line->configuration);
            may = false;
        }
    }
}

/* Those that the log still has come back; what is effective must be among them, unless the node is new. */
bool membership_check_start(struct step *step) {
    struct node *node = step->node;
    const struct line *line = step->line;
    if (!line->has_configuration || line->configuration.index != line->config_index) {
        return broken(step, "membership", "a start that doesn't show its configuration");
    }
    if (!node->known) {
        membership_reset(node, &line->configuration);
        return true;
    }
    if (step->found_install) {
        take_installed(step);
    }
    take_remembered(step);
    struct configs *configs = &node->configs;
    while (configs->count > 1 && node_config(node)->index > node->log.start) {
        configs->count--;
    }
    for (uint64_t index = node->log.start + 1; index <= node->log.last; index++) {
        const struct config *made = node->log.entries[index].kind == KIND_CONFIG
                                        ? membership_made(step->judge, index, log_term(&node->log, index))
                                        : NULL;
        if (made != NULL) {
            push(configs, made);
        }
    }
    return membership_check_state(step);
}
