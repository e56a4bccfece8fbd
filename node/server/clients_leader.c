/*
 * Who leads, for those who ask the wrong node: id, name and where clients reach it.
 *
 * A leader may be a node that no file of ours names, since members are added while we run. So a front end keeps what the
 * membership says of the members that it has met, and asks the consensus actor when it hears of another one; until that
 * is answered, the configuration may know it. What is kept never grows old: ids are never used twice.
 *
 * Owner: the loop of the front end.
 */
#include "node/server/clients_internal.h"

enum { ASK_AGAIN_US = 200 * 1000 }; /* about one that the membership here doesn't have yet */

static const struct clients_member *find(const struct clients *clients, uint64_t id) {
    for (uint32_t i = 0; i < clients->directory.count; i++) {
        if (clients->directory.members[i].id == id) {
            return &clients->directory.members[i];
        }
    }
    return NULL;
}

static void on_status(struct consensus_status_query *query) {
    struct clients *clients = CONTAINER_OF(query, struct clients, directory.query);
    const struct consensus_status *status = &query->status;
    clients->directory.is_asking = false;
    clients->directory.count = 0;
    for (uint32_t i = 0; i < status->member_count; i++) {
        const struct consensus_member_status *from = &status->members[i];
        if (from->client_address[0] == '\0') {
            continue; /* nothing that would help anybody */
        }
        struct clients_member *member = &clients->directory.members[clients->directory.count++];
        member->id = from->id;
        memcpy(member->name, from->name, sizeof member->name);
        memcpy(member->address, from->client_address, sizeof member->address);
    }
    clients__check_stopped(clients);
}

static void ask(struct clients *clients) {
    uint64_t now_us = env_now_us(clients->options.loop);
    if (clients->directory.is_asking || clients->stopping || now_us < clients->directory.ask_again_us) {
        return;
    }
    clients->directory.is_asking = true;
    clients->directory.ask_again_us = now_us + ASK_AGAIN_US;
    clients->directory.query.loop = clients->options.loop;
    clients->directory.query.done = on_status;
    consensus_query_status(clients->options.consensus, &clients->directory.query);
}

bool clients__leader(struct clients *clients, struct clients_member *ret_leader) {
    uint64_t id = consensus_leader(clients->options.consensus);
    if (id == RAFT_NO_NODE) {
        return false;
    }
    const struct clients_member *known = find(clients, id);
    if (known != NULL) {
        *ret_leader = *known;
        return true;
    }
    ask(clients);
    const struct config_member *configured = config_member_by_id(clients->options.config, id);
    if (configured == NULL) {
        return false;
    }
    ret_leader->id = id;
    memcpy(ret_leader->name, configured->name, sizeof ret_leader->name);
    memcpy(ret_leader->address, configured->client_address, sizeof ret_leader->address);
    return true;
}
