/*
 * Terms, votes and roles.
 *
 *   term       rises to that of a message, by one with a candidacy, or to that of an installed snapshot
 *   vote       once a term, for a candidate whose log is at least as new, in the term that it asked for
 *   candidate  after a quorum of pre-votes (thesis, 9.6), or when the leader asked for it (3.10); only who has a vote
 *              in the effective configuration, or in one that may come back
 *   leader     with the durable votes of a quorum, received in this candidacy; one a term; and with everything in its
 *              log that leaders of earlier terms committed
 */
#include "tests/sim/replay/replay.h"

#include <inttypes.h>

static bool is_older(uint64_t term, uint64_t index, uint64_t than_term, uint64_t than_index) {
    return term < than_term || (term == than_term && index < than_index);
}

bool log_is_new_enough(const struct node *node, uint64_t last, uint64_t last_term) {
    const struct log *log = &node->log;
    return !is_older(last_term, last, log_term(log, log->last), log->last) &&
           !is_older(last_term, last, node->heal_term, node->heal_index);
}

/* ---- Terms and votes -------------------------------------------------------------------------------------------- */

static bool receives(const struct step *step, enum type type) {
    return step->line->event == EVENT_RECEIVE && step->line->message.type == type;
}

static bool is_new_candidacy(const struct step *step) {
    const struct line *line = step->line;
    return line->term > step->term && line->role == ROLE_CANDIDATE;
}

/* The candidacy is for the term after the one that the node was in, or learned of by TIMEOUT_NOW. */
static bool check_candidacy(struct step *step) {
    const struct line *line = step->line;
    uint64_t base = step->term;
    if (receives(step, TYPE_TIMEOUT_NOW) && line->message.term > base) {
        base = line->message.term;
    }
    if (line->term != base + 1) {
        return broken(step, "term", "a candidacy for term %" PRIu64 " from term %" PRIu64, line->term, base);
    }
    return line->vote == step->node->id || broken(step, "vote", "a candidate that doesn't vote for itself");
}

static bool check_new_term(struct step *step) {
    const struct line *line = step->line;
    if (line->event == EVENT_INSTALLED) {
        return line->term == line->index_term || broken(step, "term", "a snapshot brought another term than its own");
    }
    if (line->event != EVENT_RECEIVE) {
        return broken(step, "term", "the term rose to %" PRIu64 " without a cause", line->term);
    }
    const struct message *message = &line->message;
    if (message->type == TYPE_PREVOTE || (message->type == TYPE_PREVOTE_REPLY && !message->reject)) {
        return broken(step, "term", "a %s carries a term that nobody is in yet", type_names[message->type]);
    }
    return message->term == line->term ||
           broken(step, "term", "the term rose to %" PRIu64 ", the message's is %" PRIu64, line->term, message->term);
}

static bool check_vote(struct step *step) {
    const struct line *line = step->line;
    uint64_t vote = line->term == step->term ? step->vote : 0;
    if (line->vote == vote) {
        return true;
    }
    if (vote != 0) {
        return broken(step, "vote-once", "a vote for %" PRIu64 " and for %" PRIu64 " in term %" PRIu64, vote,
                      line->vote, line->term);
    }
    const struct message *message = &line->message;
    if (!receives(step, TYPE_VOTE) || message->from != line->vote || message->term != line->term) {
        return broken(step, "vote", "a vote for %" PRIu64 ", who didn't ask for it now", line->vote);
    }
    if (step->judge->leaders_capacity > line->term && step->leader != 0 && line->term == step->term) {
        return broken(step, "vote", "a vote against the leader that the node follows in this term");
    }
    if (!log_is_new_enough(step->node, message->index, message->log_term)) {
        return broken(step, "vote-log",
                      "a vote for a log up to %" PRIu64 " of term %" PRIu64 ", its own reaches %" PRIu64
                      " of term %" PRIu64,
                      message->index, message->log_term, step->node->log.last,
                      log_term(&step->node->log, step->node->log.last));
    }
    return true;
}

bool election_check_term(struct step *step) {
    const struct line *line = step->line;
    if (line->term < step->term) {
        return broken(step, "term", "the term went from %" PRIu64 " back to %" PRIu64, step->term, line->term);
    }
    if (is_new_candidacy(step)) {
        return check_candidacy(step);
    }
    if (line->term > step->term && !check_new_term(step)) {
        return false;
    }
    return check_vote(step);
}

/* ---- What voters said ------------------------------------------------------------------------------------------- */

void election_hear(struct step *step) {
    const struct line *line = step->line;
    const struct message *message = &line->message;
    if (line->event != EVENT_RECEIVE || message->reject) {
        return;
    }
    if (!incarnation_vote_counts(step)) {
        return;
    }
    struct peer *peer = &step->node->peers[message->from];
    if (message->type == TYPE_PREVOTE_REPLY && step->role == ROLE_PRECANDIDATE && message->term == step->term + 1) {
        peer->prevote = true;
    }
    if (message->type == TYPE_VOTE_REPLY && step->role == ROLE_CANDIDATE && message->term == step->term &&
        line->term == step->term) {
        peer->vote = true;
    }
}

static bool said_prevote(const void *context, uint64_t id) {
    const struct node *node = context;
    return id == node->id || node->peers[id].prevote;
}

static bool said_vote(const void *context, uint64_t id) {
    const struct node *node = context;
    return id == node->id || node->peers[id].vote;
}

/* ---- Roles ------------------------------------------------------------------------------------------------------ */

static bool sends(const struct line *line, enum type type) {
    for (size_t i = 0; i < line->send_count; i++) {
        if (line->sends[i].type == type) {
            return true;
        }
    }
    return false;
}

static bool enter_precandidate(struct step *step) {
    if (step->line->event != EVENT_TICK) {
        return broken(step, "campaign", "a pre-vote that no election timeout began");
    }
    if (!node_may_campaign(step->node)) {
        return broken(step, "campaign", "a node without a vote campaigns");
    }
    for (size_t id = 0; id < NODES_MAX; id++) {
        step->node->peers[id].prevote = false;
    }
    return true;
}

static bool enter_candidate(struct step *step) {
    struct node *node = step->node;
    bool may = node_may_campaign(node);
    if (receives(step, TYPE_TIMEOUT_NOW)) {
        uint64_t term = step->line->message.term;
        may = may && term < step->judge->leaders_capacity && step->judge->leaders[term] == step->line->message.from;
    } else if (step->line->event == EVENT_TICK) {
        for (size_t id = 0; id < NODES_MAX; id++) {
            node->peers[id].prevote = false;
        }
        may = may && config_quorum(&step->config, node, said_prevote, node); /* the only voter */
    } else {
        may = may && step->role == ROLE_PRECANDIDATE && receives(step, TYPE_PREVOTE_REPLY) &&
              config_quorum(&step->config, node, said_prevote, node);
    }
    if (!may) {
        return broken(step, "campaign", "a candidacy without a quorum of pre-votes and without the leader's word");
    }
    for (size_t id = 0; id < NODES_MAX; id++) {
        node->peers[id].vote = false;
    }
    node->candidacy_term = step->line->term;
    node->candidacy_last = node->log.last;
    node->candidacy_last_term = log_term(&node->log, node->log.last);
    return true;
}

static bool check_complete(struct step *step) {
    const struct judge *judge = step->judge;
    const struct log *log = &step->node->log;
    for (uint64_t index = log->start + 1; index <= judge->commit; index++) {
        if (judge->committed_in[index] < step->line->term && log_term(log, index) != judge->committed[index].term) {
            return broken(step, "leader-complete",
                          "leads without entry %" PRIu64 " of term %" PRIu64 ", which is committed", index,
                          judge->committed[index].term);
        }
    }
    return true;
}

static bool enter_leader(struct step *step) {
    struct judge *judge = step->judge;
    struct node *node = step->node;
    uint64_t term = step->line->term;
    if (step->role != ROLE_CANDIDATE || step->term != term) {
        return broken(step, "leader", "a leader that was no candidate of this term");
    }
    if (!disk_has_vote(node)) {
        return broken(step, "leader", "a leader whose own vote isn't durable");
    }
    if (!config_quorum(&step->config, node, said_vote, node)) {
        return broken(step, "leader", "a leader without the votes of a quorum");
    }
    size_t capacity = judge->leaders_capacity;
    judge->leaders = grown(judge->leaders, term, &capacity, sizeof *judge->leaders);
    for (; judge->leaders_capacity < capacity; judge->leaders_capacity++) {
        judge->leaders[judge->leaders_capacity] = 0;
    }
    if (judge->leaders[term] != 0 && judge->leaders[term] != node->id) {
        return broken(step, "one-leader", "term %" PRIu64 " has a leader, %" PRIu64, term, judge->leaders[term]);
    }
    judge->leaders[term] = node->id;
    judge->elections++;
    for (size_t id = 0; id < NODES_MAX; id++) {
        struct peer *peer = &node->peers[id];
        peer->match = 0;
        peer->life = 0;
        peer->round = 0;
        peer->read_waits = false;
    }
    node->noop = node->log.last + 1;
    return check_complete(step);
}

bool election_check_role(struct step *step) {
    const struct line *line = step->line;
    bool stays = line->role == step->role && line->term == step->term;
    switch (line->role) {
    case ROLE_PRECANDIDATE: return (stays && !sends(line, TYPE_PREVOTE)) || enter_precandidate(step);
    case ROLE_CANDIDATE: return stays || enter_candidate(step);
    case ROLE_LEADER: return stays || enter_leader(step);
    case ROLE_FOLLOWER:
    case ROLE_COUNT: break;
    }
    if (line->role == ROLE_FOLLOWER && line->leader == step->node->id) {
        return broken(step, "leader", "a follower of itself");
    }
    return true;
}
