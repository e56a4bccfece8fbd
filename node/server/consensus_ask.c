/*
 * Changes of membership and leadership asked for from any thread: there as a message, and back as one. What decides
 * about them is consensus_member.c.
 *
 * Owner: the consensus loop, between the two messages.
 */
#include "node/server/consensus_internal.h"

static void run_done(struct env_message *message) {
    struct consensus_change_query *query = CONTAINER_OF(message, struct consensus_change_query, message);
    query->done(query);
}

static void on_changed(struct consensus_change *change) {
    struct consensus_change_query *query = CONTAINER_OF(change, struct consensus_change_query, change);
    query->message.run = run_done;
    env_post(query->loop, &query->message);
}

static void run_query(struct env_message *message) {
    struct consensus_change_query *query = CONTAINER_OF(message, struct consensus_change_query, message);
    consensus_change(query->consensus, &query->change);
}

void consensus_ask_change(struct consensus *consensus, struct consensus_change_query *query) {
    query->consensus = consensus;
    query->change.done = on_changed;
    query->message.run = run_query;
    env_post(consensus->options.loop, &query->message);
}
