/*
 * What the log becomes, and how far it is committed (Figure 2).
 *
 *   leader    appends behind its last entry, in its term, and cuts nothing; commits an entry of its own term that a
 *             quorum holds durably, itself counted by its own disk
 *   follower  refuses an append whose previous entry it hasn't; cuts at the first entry that differs and only there,
 *             never what it knows to match this term's leader; commits what the leader says, up to what matches
 */
#include "tests/sim/replay/replay.h"

#include <inttypes.h>

/* ---- The log ---------------------------------------------------------------------------------------------------- */

static bool take(struct step *step, uint64_t cut, const struct entries *entries, size_t skip) {
    struct node *node = step->node;
    if (cut < node->log.last) {
        node->log.last = cut;
        membership_cut(node, cut);
    }
    for (size_t i = skip; i < entries->count; i++) {
        uint64_t index = entries->first_index + i;
        log_put(&node->log, index, entries->list[i]);
        disk_append(node, index, entries->list[i]);
        if (entries->list[i].kind == KIND_CONFIG && !membership_append(step, index, entries->list[i].term)) {
            return false;
        }
    }
    return true;
}

/* The line says that the log was cut there, and that these entries were appended. */
static bool check_claim(struct step *step, bool cuts, uint64_t cut, const struct entries *entries, size_t skip) {
    const struct line *line = step->line;
    if (line->has_cut != cuts || (cuts && line->cut != cut)) {
        return broken(step, line->has_cut && !cuts ? "cut-without-conflict" : "append",
                      line->has_cut ? "the log was cut behind %" PRIu64 ", where nothing conflicts"
                                    : "the log wasn't cut behind %" PRIu64 ", where an entry conflicts",
                      line->has_cut ? line->cut : cut);
    }
    size_t count = entries->count - skip;
    bool equal = line->append.count == count && (count == 0 || line->append.first_index == entries->first_index + skip);
    for (size_t i = 0; equal && i < count; i++) {
        equal = line->append.list[i].term == entries->list[skip + i].term &&
                line->append.list[i].kind == entries->list[skip + i].kind;
    }
    return equal || broken(step, "append", "%zu entries were appended, and %zu of the message are new",
                           line->append.count, count);
}

static bool nothing_changes(struct step *step) {
    const struct line *line = step->line;
    if (line->has_cut) {
        return broken(step, "cut-without-conflict", "the log was cut behind %" PRIu64 " without a cause", line->cut);
    }
    return line->append.count == 0 || broken(step, "append", "entries were appended without a cause");
}

static bool receive_append(struct step *step) {
    const struct line *line = step->line;
    const struct message *message = &line->message;
    struct node *node = step->node;
    struct log *log = &node->log;
    if (line->role == ROLE_LEADER) {
        return broken(step, "one-leader", "a leader received an append of its own term");
    }
    bool fits = message->index <= log->last &&
                (log_term(log, message->index) == message->log_term || message->index <= log->start);
    if (!fits) {
        return nothing_changes(step);
    }
    size_t skip = 0;
    uint64_t index = message->index + 1;
    while (skip < message->count && index <= log->last &&
           (index <= log->start || log_term(log, index) == line->message_entries.list[skip].term)) {
        skip++;
        index++;
    }
    bool cuts = skip < message->count && index <= log->last;
    if (!check_claim(step, cuts, index - 1, &line->message_entries, skip)) {
        return false;
    }
    if (cuts && (index <= node->matched || index <= step->commit)) {
        return broken(step, "cut-committed", "entry %" PRIu64 " was cut, which is committed or matched this leader",
                      index);
    }
    if (skip < message->count && !take(step, cuts ? index - 1 : log->last, &line->message_entries, skip)) {
        return false;
    }
    uint64_t match = message->index + message->count;
    node->matched = match > node->matched ? match : node->matched;
    return true;
}

static bool lead_append(struct step *step) {
    const struct line *line = step->line;
    const struct entries *entries = &line->append;
    if (line->has_cut) {
        return broken(step, "leader-append-only", "a leader cut its log behind %" PRIu64, line->cut);
    }
    bool takes_office = line->role == ROLE_LEADER && (step->role != ROLE_LEADER || step->term != line->term);
    if (entries->count == 0) {
        return !takes_office || broken(step, "append", "a leader that begins its term without an entry");
    }
    for (size_t i = 0; i < entries->count; i++) {
        if (entries->list[i].term != line->term) {
            return broken(step, "append", "a leader of term %" PRIu64 " appended an entry of term %" PRIu64, line->term,
                          entries->list[i].term);
        }
    }
    bool leads = line->role == ROLE_LEADER || step->role == ROLE_LEADER;
    bool begins = takes_office && incarnation_begins(step->node, &step->config);
    bool kind_fits = takes_office ? entries->count == 1 && entries->list[0].kind == (begins ? KIND_CONFIG : KIND_NOOP)
                     : line->event == EVENT_PROPOSE ? line->ok && entries->list[0].kind != KIND_CONFIG
                                                    : entries->count == 1 && entries->list[0].kind == KIND_CONFIG;
    if (!leads || !kind_fits || entries->first_index != step->node->log.last + 1) {
        return broken(step, "append", "entries appended by somebody who may not, or not at the end");
    }
    return take(step, step->node->log.last, entries, 0);
}

static bool install(struct step *step) {
    const struct line *line = step->line;
    struct node *node = step->node;
    if (!line->ok || line->index <= step->commit) {
        return nothing_changes(step);
    }
    const struct judge *judge = step->judge;
    if (line->index > judge->commit || judge->committed[line->index].term != line->index_term) {
        return broken(step, "snapshot", "a snapshot up to %" PRIu64 " of term %" PRIu64 ", which isn't committed",
                      line->index, line->index_term);
    }
    if (log_term(&node->log, line->index) != line->index_term) {
        membership_reset(node, &line->installed);
    }
    disk_installed(node, line->index, line->index_term);
    node->matched = node->matched > line->index ? node->matched : line->index;
    return nothing_changes(step);
}

/* The durable log ends where it once did, or later. */
static void heal(struct step *step) {
    struct node *node = step->node;
    uint64_t term = log_term(&node->log, step->line->synced);
    bool behind = term < node->heal_term || (term == node->heal_term && step->line->synced < node->heal_index);
    if (!behind) {
        node->heal_index = 0;
        node->heal_term = 0;
    }
}

bool replication_check_log(struct step *step) {
    const struct line *line = step->line;
    struct node *node = step->node;
    bool good;
    if (line->event == EVENT_INSTALLED) {
        good = install(step);
    } else if (step->has_message && line->message.type == TYPE_APPEND) {
        good = receive_append(step);
    } else {
        good = lead_append(step);
    }
    if (good && line->event == EVENT_TRIMMED) {
        if (line->index > line->commit) {
            return broken(step, "trim", "the log was trimmed up to %" PRIu64 ", which isn't committed", line->index);
        }
        node->log.start = line->index > node->log.start ? line->index : node->log.start;
        node->disk_floor = line->index > node->disk_floor ? line->index : node->disk_floor;
    }
    if (good && (line->last != node->log.last || line->last_term != log_term(&node->log, node->log.last))) {
        return broken(step, "append", "the log ends at %" PRIu64 " of term %" PRIu64 ", not at %" PRIu64,
                      node->log.last, log_term(&node->log, node->log.last), line->last);
    }
    if (good && node->heal_index > 0) {
        heal(step);
    }
    return good;
}

/* ---- A node that lost something ------------------------------------------------------------------------------- */

/* False: an answer of another log than the recorded one, or of an earlier life than one that was heard: it counts for
 * nothing. The first of a life that began
 * with less than earlier ones acknowledged takes back what those said. */
bool replication_hear_life(struct step *step) {
    const struct message *message = &step->line->message;
    if (message->type != TYPE_APPEND_REPLY && message->type != TYPE_HEARTBEAT_REPLY) {
        return true;
    }
    if (!incarnation_counts(step)) {
        return false;
    }
    struct peer *peer = &step->node->peers[message->from];
    if (message->life > peer->life) {
        peer->life = message->life;
        peer->match = message->lost_log ? 0 : peer->match;
    }
    return message->life == peer->life;
}

/* ---- Matches ---------------------------------------------------------------------------------------------------- */

void replication_hear(struct step *step) {
    const struct message *message = &step->line->message;
    if (!step->has_message || step->role != ROLE_LEADER || step->term != step->line->term || message->reject) {
        return;
    }
    bool tells = message->type == TYPE_APPEND_REPLY || message->type == TYPE_HEARTBEAT_REPLY;
    struct peer *peer = &step->node->peers[message->from];
    if (tells && message->index > peer->match) {
        peer->match = message->index;
    }
}

/* ---- Commit ----------------------------------------------------------------------------------------------------- */

struct holding {
    const struct node *node;
    uint64_t index;
};

static bool holds(const void *context, uint64_t id) {
    const struct holding *holding = context;
    uint64_t match = id == holding->node->id ? disk_match(holding->node) : holding->node->peers[id].match;
    return match >= holding->index;
}

static bool check_leader_commit(struct step *step) {
    const struct line *line = step->line;
    struct holding holding = {.node = step->node, .index = line->commit};
    if (log_term(&step->node->log, line->commit) != line->term) {
        return broken(step, "commit-own-term", "entry %" PRIu64 " of term %" PRIu64 " was committed by counting",
                      line->commit, log_term(&step->node->log, line->commit));
    }
    return config_quorum(&step->config, step->node, holds, &holding) ||
           broken(step, "commit-quorum", "entry %" PRIu64 " was committed, but no quorum is known to hold it",
                  line->commit);
}

static bool check_follower_commit(struct step *step) {
    const struct line *line = step->line;
    const struct message *message = &line->message;
    if (line->event == EVENT_INSTALLED) {
        return line->commit == line->index || broken(step, "commit", "committed beyond the snapshot");
    }
    if (!step->has_message || (message->type != TYPE_APPEND && message->type != TYPE_HEARTBEAT)) {
        return broken(step, "commit", "committed without the leader's word");
    }
    uint64_t most = message->commit < step->node->matched ? message->commit : step->node->matched;
    return line->commit <= most ||
           broken(step, "commit-match", "committed %" PRIu64 ", but only %" PRIu64 " is the leader's and matches",
                  line->commit, most);
}

/* State-machine safety: the first to commit an index settles what it is. */
static bool settle(struct step *step) {
    struct judge *judge = step->judge;
    const struct log *log = &step->node->log;
    for (uint64_t index = step->commit + 1; index <= step->line->commit; index++) {
        if (index <= judge->commit) {
            uint64_t term = log_term(log, index);
            if (index > log->start && term != judge->committed[index].term) {
                return broken(step, "committed-once",
                              "entry %" PRIu64 " is committed with term %" PRIu64 ", and here with %" PRIu64, index,
                              judge->committed[index].term, term);
            }
            continue;
        }
        size_t capacity = judge->committed_capacity;
        judge->committed = grown(judge->committed, index, &capacity, sizeof *judge->committed);
        judge->committed_capacity = capacity;
        capacity = judge->committed_in_capacity;
        judge->committed_in = grown(judge->committed_in, index, &capacity, sizeof *judge->committed_in);
        judge->committed_in_capacity = capacity;
        judge->committed[index] = log->entries[index];
        judge->committed_in[index] = step->line->term;
        judge->commit = index;
    }
    return true;
}

bool replication_check_commit(struct step *step) {
    const struct line *line = step->line;
    struct node *node = step->node;
    if (line->commit < step->commit) {
        return broken(step, "commit", "commit went from %" PRIu64 " back to %" PRIu64, step->commit, line->commit);
    }
    if (line->commit == step->commit) {
        return true;
    }
    if (line->commit > node->log.last) {
        return broken(step, "commit", "committed %" PRIu64 " beyond the log's end", line->commit);
    }
    /* Who gives up the lead in the same step committed as a leader. */
    bool leads = line->role == ROLE_LEADER || (step->role == ROLE_LEADER && line->term == step->term);
    if (!(leads ? check_leader_commit(step) : check_follower_commit(step)) || !settle(step)) {
        return false;
    }
    node->commit_max = line->commit > node->commit_max ? line->commit : node->commit_max;
    node->matched = line->commit > node->matched ? line->commit : node->matched;
    return true;
}
