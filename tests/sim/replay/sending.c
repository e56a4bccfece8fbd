/*
 * What a node may say. What depends on its term, vote or log is durable before it is said; what it says of its log is
 * so; only a leader speaks as one.
 */
#include "tests/sim/replay/replay.h"

#include <inttypes.h>

static bool false_words(struct step *step, const struct message *message, const char *why) {
    return broken(step, "send", "%s to %" PRIu64 ": %s", type_names[message->type], message->to, why);
}

static bool leads(const struct step *step) {
    const struct line *line = step->line;
    return line->role == ROLE_LEADER || (step->role == ROLE_LEADER && line->term == step->term);
}

static bool is_leader_of_term(const struct step *step, uint64_t id) {
    const struct judge *judge = step->judge;
    return step->line->term < judge->leaders_capacity && judge->leaders[step->line->term] == id;
}

static uint64_t provable(const struct node *node) {
    uint64_t match = disk_match(node);
    return match < node->matched ? match : node->matched;
}

static bool names_our_end(const struct node *node, const struct message *message) {
    return message->index == node->log.last && message->log_term == log_term(&node->log, node->log.last);
}

static bool check_prevote(struct step *step, const struct message *message) {
    bool good = step->line->role == ROLE_PRECANDIDATE && message->term == step->line->term + 1 &&
                names_our_end(step->node, message);
    return good || false_words(step, message, "not the question of a node that may campaign");
}

static bool check_prevote_reply(struct step *step, const struct message *message) {
    const struct line *line = step->line;
    const struct message *asked = &line->message;
    if (line->event != EVENT_RECEIVE || asked->type != TYPE_PREVOTE || asked->from != message->to) {
        return false_words(step, message, "nobody asked");
    }
    if (message->reject) {
        return message->term == line->term || false_words(step, message, "a refusal carries the own term");
    }
    bool is_free =
        asked->term > line->term || (asked->term == line->term && (line->vote == 0 || line->vote == asked->from));
    if (message->term != asked->term || !is_free) {
        return false_words(step, message, "the vote of that term isn't free");
    }
    return log_is_new_enough(step->node, asked->index, asked->log_term) ||
           false_words(step, message, "granted to an older log");
}

/* The question may have waited for the disk until the candidate followed another one: nobody counts its answers then.
 */
static bool check_vote(struct step *step, const struct message *message) {
    const struct node *node = step->node;
    bool good = node->vote == node->id && message->term == node->candidacy_term &&
                message->index == node->candidacy_last && message->log_term == node->candidacy_last_term;
    return good || false_words(step, message, "not the question of a candidate");
}

static bool check_vote_reply(struct step *step, const struct message *message) {
    return message->reject || message->to == step->node->vote ||
           false_words(step, message, "granted to somebody without the vote");
}

static bool check_append(struct step *step, const struct message *message) {
    const struct log *log = &step->node->log;
    if (!leads(step)) {
        return false_words(step, message, "only a leader appends");
    }
    if (message->index > log->last || message->count > log->last - message->index ||
        log_term(log, message->index) != message->log_term) {
        return false_words(step, message, "it names entries that aren't in the sender's log");
    }
    return message->commit <= step->line->commit || false_words(step, message, "it claims more than is committed");
}

static bool check_append_reply(struct step *step, const struct message *message) {
    const struct node *node = step->node;
    if (message->reject) {
        const struct message *asked = &step->line->message;
        bool answers = step->has_message && asked->type == TYPE_APPEND && asked->index == message->index;
        if (answers && log_term(&node->log, asked->index) == asked->log_term && asked->index <= node->log.last) {
            return false_words(step, message, "a refusal of an append that fits");
        }
        bool hints = step->line->event == EVENT_RECEIVE && message->hint > node->log.start;
        return !hints || log_term(&node->log, message->hint) == message->hint_term ||
               false_words(step, message, "the hint isn't in the log");
    }
    if (!is_leader_of_term(step, message->to)) {
        return false_words(step, message, "an answer to somebody who doesn't lead this term");
    }
    if (message->index > node->matched) {
        return false_words(step, message, "it acknowledges more than matches the leader");
    }
    return message->index <= provable(node) ||
           broken(step, "ack-unsynced", "entry %" PRIu64 " is acknowledged, but only %" PRIu64 " is durable",
                  message->index, disk_match(node));
}

static bool check_heartbeat(struct step *step, const struct message *message) {
    struct node *node = step->node;
    uint64_t match = node->peers[message->to].match;
    if (!leads(step)) {
        return false_words(step, message, "only a leader has heartbeats");
    }
    if (message->commit > step->line->commit || message->commit > match) {
        return broken(step, "heartbeat-commit",
                      "a heartbeat commits %" PRIu64 " at %" PRIu64 ", who is known to hold %" PRIu64, message->commit,
                      message->to, match);
    }
    node->round_started = message->round > node->round_started ? message->round : node->round_started;
    return true;
}

static bool check_heartbeat_reply(struct step *step, const struct message *message) {
    const struct node *node = step->node;
    if (message->round > node->peers[message->to].heard_round) {
        return false_words(step, message, "it confirms a round that it wasn't asked for");
    }
    if (message->index > 0 && !is_leader_of_term(step, message->to)) {
        return false_words(step, message, "a match with somebody who doesn't lead this term");
    }
    return message->index <= provable(node) ||
           broken(step, "ack-unsynced",
                  "a heartbeat's answer claims entry %" PRIu64 ", but only %" PRIu64 " is durable and matches",
                  message->index, provable(node));
}

static bool check_read_index_reply(struct step *step, const struct message *message) {
    const struct line *line = step->line;
    struct peer *peer = &step->node->peers[message->to];
    bool asked =
        leads(step) && peer->read_waits && peer->read_round == message->round && peer->read_run == message->hint;
    if (!asked) {
        return false_words(step, message, "nobody asked");
    }
    /* One step may end several rounds, of which the line names the last. */
    if (!line->has_ready || line->ready_index < message->index || line->ready_round <= peer->read_started) {
        return broken(step, "read-round", "an answer to %" PRIu64 " without a round that began behind its question",
                      message->to);
    }
    peer->read_waits = false;
    return message->index >= peer->read_need ||
           broken(step, "read-stale", "an answer from %" PRIu64 ", but %" PRIu64 " was committed when it was asked",
                  message->index, peer->read_need);
}

static bool check_words(struct step *step, const struct message *message) {
    switch (message->type) {
    case TYPE_PREVOTE: return check_prevote(step, message);
    case TYPE_PREVOTE_REPLY: return check_prevote_reply(step, message);
    case TYPE_VOTE: return check_vote(step, message);
    case TYPE_VOTE_REPLY: return check_vote_reply(step, message);
    case TYPE_APPEND: return check_append(step, message);
    case TYPE_APPEND_REPLY: return check_append_reply(step, message);
    case TYPE_HEARTBEAT: return check_heartbeat(step, message);
    case TYPE_HEARTBEAT_REPLY: return check_heartbeat_reply(step, message);
    case TYPE_TIMEOUT_NOW: return leads(step) || false_words(step, message, "only a leader hands over");
    case TYPE_READ_INDEX:
        return step->line->leader == message->to ||
               false_words(step, message, "asked of somebody else than the leader");
    case TYPE_READ_INDEX_REPLY: return check_read_index_reply(step, message);
    case TYPE_COUNT: break;
    }
    return broken(step, "send", "a message of a type that isn't known");
}

/* Pre-votes and questions promise nothing. */
static bool must_be_durable(enum type type) {
    return type != TYPE_PREVOTE && type != TYPE_PREVOTE_REPLY && type != TYPE_READ_INDEX;
}

bool sending_check(struct step *step) {
    const struct line *line = step->line;
    for (size_t i = 0; i < line->send_count; i++) {
        const struct message *message = &line->sends[i];
        if (message->from != line->node || message->to == line->node) {
            return false_words(step, message, "under another name, or to itself");
        }
        bool own_term = message->type == TYPE_PREVOTE || message->type == TYPE_PREVOTE_REPLY;
        if (!own_term && message->term != line->term) {
            return false_words(step, message, "of another term than the sender's");
        }
        if (message->incarnation != step->node->incarnation) {
            return false_words(step, message, "of another log than its own");
        }
        if (must_be_durable(message->type) && !disk_has_vote(step->node)) {
            return broken(step, "state-unsynced", "a %s leaves, but term %" PRIu64 " and the vote aren't durable",
                          type_names[message->type], line->term);
        }
        if (!check_words(step, message)) {
            return false;
        }
        network_send(step, message);
    }
    return true;
}
