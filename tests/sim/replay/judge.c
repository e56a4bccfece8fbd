/*
 * The order in which one line is judged: where it came from, what it means for the term, what the disk has, who leads,
 * what the log becomes, what is committed, what may be read, what is said.
 */
#include "tests/sim/replay/replay.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool broken(struct step *step, const char *rule, const char *format, ...) {
    struct judge *judge = step->judge;
    if (judge->rule == NULL) {
        judge->rule = rule;
        judge->at_node = step->line->node;
        va_list args;
        va_start(args, format);
        (void)vsnprintf(judge->text, sizeof judge->text, format, args);
        va_end(args);
    }
    return false;
}

void judge_init(struct judge *judge) {
    memset(judge, 0, sizeof *judge);
    for (uint64_t id = 0; id < NODES_MAX; id++) {
        judge->nodes[id].id = id;
    }
}

void judge_deinit(struct judge *judge) {
    for (size_t i = 0; i < NODES_MAX; i++) {
        struct node *node = &judge->nodes[i];
        free(node->log.entries);
        free(node->disk.entries);
        free(node->writes);
        free(node->votes);
        free(node->asks);
        free(node->configs.list);
        for (size_t k = 0; judge->channels[i] != NULL && k < NODES_MAX; k++) {
            struct channel *channel = &judge->channels[i][k];
            for (size_t m = 0; m < channel->count; m++) {
                free(channel->list[m].entries);
            }
            free(channel->list);
        }
        free(judge->channels[i]);
    }
    free(judge->committed);
    free(judge->committed_in);
    free(judge->leaders);
    free(judge->configs.list);
    free(judge->config_terms);
}

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static bool check_committed(struct step *step) {
    const struct judge *judge = step->judge;
    const struct log *log = &step->node->log;
    for (uint64_t index = log->start + 1; index <= step->line->commit; index++) {
        if (index > judge->commit || log_term(log, index) != judge->committed[index].term) {
            return broken(step, "committed-once", "entry %" PRIu64 " isn't what was committed", index);
        }
    }
    return true;
}

static bool start(struct step *step) {
    struct node *node = step->node;
    const struct line *line = step->line;
    if (node->up) {
        return broken(step, "life", "a start of a node that runs");
    }
    if (line->role != ROLE_FOLLOWER || line->leader != 0 || line->commit > line->last) {
        return broken(step, "life", "a start that isn't a follower's, or commits beyond its log");
    }
    if (!incarnation_check_start(step) || !disk_check_start(step) || !membership_check_start(step) ||
        !check_committed(step)) {
        return false;
    }
    step->judge->restarts += node->known;
    node->known = true;
    node->up = true;
    node->role = ROLE_FOLLOWER;
    node->term = line->term;
    node->vote = line->vote;
    node->leader = 0;
    node->commit = line->commit;
    node->matched = line->commit;
    node->heal_index = line->heal_index;
    node->heal_term = line->heal_term;
    node->ask_count = 0;
    node->round_started = 0;
    memset(node->peers, 0, sizeof node->peers);
    return true;
}

/* ---- A step ----------------------------------------------------------------------------------------------------- */

static void adopt_term(struct step *step) {
    struct node *node = step->node;
    const struct line *line = step->line;
    if (line->term != step->term || line->vote != step->vote) {
        disk_vote(node, line->term, line->vote);
    }
    if (line->term != step->term) {
        node->matched = node->commit;
    }
    node->term = line->term;
    node->vote = line->vote;
}

static void hear_round(struct step *step) {
    const struct message *message = &step->line->message;
    struct peer *peer = &step->node->peers[message->from];
    if (step->has_message && message->type == TYPE_HEARTBEAT && message->round > peer->heard_round) {
        peer->heard_round = message->round;
    }
}

/* An answer may have waited for the disk, so what it owes to the message is checked when it leaves. */
static bool check_leader_known(struct step *step) {
    const struct line *line = step->line;
    const struct judge *judge = step->judge;
    bool names_leader = line->leader != 0;
    if (names_leader && (line->term >= judge->leaders_capacity || judge->leaders[line->term] != line->leader)) {
        return broken(step, "leader", "it follows %" PRIu64 ", who doesn't lead term %" PRIu64, line->leader,
                      line->term);
    }
    return (line->role == ROLE_LEADER) == (line->leader == line->node) ||
           broken(step, "leader", "a leader that doesn't know itself");
}

static bool check_disk(struct step *step) {
    uint64_t durable = disk_match(step->node);
    return step->line->synced <= durable ||
           broken(step, "synced", "entry %" PRIu64 " counts as durable, but only %" PRIu64 " is", step->line->synced,
                  durable);
}

static bool take_step(struct step *step) {
    struct node *node = step->node;
    const struct line *line = step->line;
    if (line->malformed) {
        return broken(step, "message", "a message that a node found malformed or contradictory");
    }
    if (line->event == EVENT_RECEIVE && !network_check_received(step)) {
        return false;
    }
    if (!election_check_term(step)) {
        return false;
    }
    adopt_term(step);
    step->has_message = line->event == EVENT_RECEIVE && line->message.term == line->term;
    if (line->event == EVENT_SYNCED) {
        disk_synced(node, line);
    }
    incarnation_hear(step);
    election_hear(step);
    if (!election_check_role(step)) {
        return false;
    }
    node->role = line->role;
    node->leader = line->leader;
    if (step->has_message && step->role == ROLE_LEADER && !replication_hear_life(step)) {
        step->has_message = false;
    }
    hear_round(step);
    reads_hear(step);
    if (!replication_check_log(step)) {
        return false;
    }
    replication_hear(step);
    if (!replication_check_commit(step)) {
        return false;
    }
    node->commit = line->commit;
    return check_leader_known(step) && check_disk(step) && membership_check_state(step) && reads_check(step) &&
           sending_check(step);
}

bool judge_line(struct judge *judge, const struct line *line) {
    struct node *node = &judge->nodes[line->node];
    struct step step = {.judge = judge, .node = node, .line = line};
    if (line->event == EVENT_TRACE) {
        return true;
    }
    judge->lines++;
    if (line->time_us < judge->time_us) {
        return broken(&step, "time", "time went back");
    }
    judge->time_us = line->time_us;
    if (line->event == EVENT_CRASH) {
        node->up = false;
        if (line->wiped) {
            incarnation_wiped(node);
        }
        return true;
    }
    if (line->event == EVENT_START) {
        return start(&step);
    }
    if (!node->up) {
        return broken(&step, "life", "a step of a node that doesn't run");
    }
    step.role = node->role;
    step.term = node->term;
    step.vote = node->vote;
    step.commit = node->commit;
    step.leader = node->leader;
    step.config = *node_config(node);
    return take_step(&step);
}
