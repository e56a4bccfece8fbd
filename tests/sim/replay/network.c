/*
 * What was sent, by sender and receiver. The network may lose, delay, double and reorder; it never invents. An append
 * may arrive in parts: some of its entries, with the index and term before the first of them.
 */
#include "tests/sim/replay/replay.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct channel *channel_of(struct judge *judge, uint64_t from, uint64_t to) {
    if (judge->channels[from] == NULL) {
        judge->channels[from] = calloc(NODES_MAX, sizeof **judge->channels);
        if (judge->channels[from] == NULL) {
            abort();
        }
    }
    return &judge->channels[from][to];
}

/* The sender's log has the entries, now. */
void network_send(struct step *step, const struct message *message) {
    struct channel *channel = channel_of(step->judge, message->from, message->to);
    channel->list = grown(channel->list, channel->count, &channel->capacity, sizeof *channel->list);
    struct sent *sent = &channel->list[channel->count++];
    *sent = (struct sent){.message = *message};
    if (message->type == TYPE_APPEND && message->count > 0) {
        sent->entries = malloc(message->count * sizeof *sent->entries);
        if (sent->entries == NULL) {
            abort();
        }
        memcpy(sent->entries, step->node->log.entries + message->index + 1, message->count * sizeof *sent->entries);
    }
}

static bool is_part(const struct line *line, const struct sent *sent) {
    const struct message *part = &line->message;
    const struct message *whole = &sent->message;
    if (whole->type != TYPE_APPEND || part->term != whole->term || part->commit != whole->commit ||
        part->incarnation != whole->incarnation || part->index < whole->index ||
        part->index + part->count > whole->index + whole->count || (part->count == 0) != (whole->count == 0)) {
        return false;
    }
    uint64_t skipped = part->index - whole->index;
    uint64_t before = skipped == 0 ? whole->log_term : sent->entries[skipped - 1].term;
    if (part->log_term != before) {
        return false;
    }
    for (uint64_t i = 0; i < part->count; i++) {
        const struct entry *entry = &sent->entries[skipped + i];
        if (entry->term != line->message_entries.list[i].term ||
            (entry->kind != KIND_UNKNOWN && entry->kind != line->message_entries.list[i].kind)) {
            return false;
        }
    }
    return true;
}

static bool is_same(const struct message *a, const struct message *b) {
    return a->type == b->type && a->reject == b->reject && a->term == b->term && a->index == b->index &&
           a->log_term == b->log_term && a->count == b->count && a->commit == b->commit && a->hint == b->hint &&
           a->hint_term == b->hint_term && a->round == b->round && a->floor == b->floor && a->life == b->life &&
           a->lost_log == b->lost_log && a->incarnation == b->incarnation;
}

bool network_check_received(struct step *step) {
    const struct line *line = step->line;
    const struct message *message = &line->message;
    if (message->to != line->node || message->from == line->node) {
        return broken(step, "network", "a message for another node");
    }
    const struct channel *channel = channel_of(step->judge, message->from, message->to);
    for (size_t i = channel->count; i > 0; i--) {
        const struct sent *sent = &channel->list[i - 1];
        if (message->type == TYPE_APPEND ? is_part(line, sent) : is_same(message, &sent->message)) {
            step->judge->receives++;
            return true;
        }
    }
    return broken(step, "network", "a %s of term %" PRIu64 " from %" PRIu64 " that it never sent",
                  type_names[message->type], message->term, message->from);
}
