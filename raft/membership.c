/*
 * Which configuration is effective (DESIGN rule 17): the newest in the log, committed or not, used from append on; if
 * the log is cut before it, the one that it superseded comes back (hazard 9).
 *
 *     past[0] < past[1] < ... < config        by the index of the entry that brought each
 *
 * All of past[] but the first are above the commit index, for what is superseded and committed can't come back. A
 * leader has at most one configuration that isn't committed, so past[] is short; a follower that doesn't know yet what
 * is committed keeps one for each CONFIG entry that it holds above.
 *
 * A leader leaves a joint configuration by itself as soon as that is committed, and gives up the lead when a
 * configuration without its own vote is committed, not before (hazard 10).
 *
 * For the same reason a node goes on campaigning while the configuration that took its vote away isn't committed
 * (thesis, section 4.2.2): from {1, 2} to {1}, if 2 alone has the entry that leaves the joint configuration, 1 can't
 * win without 2's vote, and 2 must refuse it to a shorter log.
 */
#include "raft/raft_internal.h"

#include <string.h>

enum { FIRST_PAST = 4 };

enum status raft__membership_reserve(struct raft *raft, size_t count) {
    if (raft->past_count + count <= raft->past_capacity) {
        return STATUS_OK;
    }
    size_t capacity = raft->past_capacity == 0 ? FIRST_PAST : raft->past_capacity;
    while (capacity < raft->past_count + count) {
        capacity *= 2;
    }
    struct raft__past_config *past = mem_resize(raft->options.alloc, raft->past, capacity * sizeof *past);
    if (past == NULL) {
        return STATUS_NO_MEMORY;
    }
    raft->past = past;
    raft->past_capacity = capacity;
    return STATUS_OK;
}

/* Its id now stands for another log: nothing that is known of it holds any more. A transfer that is on still ends, and
 * no other begins before that. */
static void be_another(struct raft *raft, struct raft__peer *peer) {
    bool needs_one = peer->progress == RAFT_PEER_SNAPSHOT;
    uint64_t ask_us = peer->snapshot_ask_us;
    raft__peer_reset(raft, peer);
    peer->progress = needs_one ? RAFT_PEER_SNAPSHOT : peer->progress;
    peer->snapshot_ask_us = ask_us;
    peer->vote = RAFT__VOTE_NONE;
    peer->stranger = 0;
    peer->return_refusal = RAFT_REFUSAL_NONE;
}

/* What is known of a member stays with it wherever its position is; the rings of those who left serve newcomers. */
static void move_peers(struct raft *raft, const struct raft_config *config) {
    struct raft__peer old[LIMIT_MEMBERS];
    bool taken[LIMIT_MEMBERS] = {false};
    memcpy(old, raft->peers, sizeof old);
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        raft->peers[i].id = RAFT_NO_NODE;
        uint32_t from =
            i < config->member_count ? raft__config_find(&raft->config, config->members[i].id) : RAFT__NOWHERE;
        if (from != RAFT__NOWHERE) {
            raft->peers[i] = old[from];
            taken[from] = true;
            if (raft->config.members[from].incarnation != config->members[i].incarnation) {
                be_another(raft, &raft->peers[i]);
            }
        }
    }
    uint32_t from = 0;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (raft->peers[i].id != RAFT_NO_NODE) {
            continue;
        }
        while (taken[from]) {
            from++;
        }
        CHECK(from < LIMIT_MEMBERS);
        taken[from] = true;
        raft->peers[i] = (struct raft__peer){.inflight = old[from].inflight};
        if (i < config->member_count) {
            raft->peers[i].id = config->members[i].id;
            raft__peer_reset(raft, &raft->peers[i]);
        }
    }
}

static bool votes_in(const struct raft *raft, const struct raft_config *config) {
    uint32_t position = raft__config_find(config, raft->id);
    return raft__config_is_voter(config, position) && config->members[position].incarnation == raft->incarnation;
}

static void find_our_standing(struct raft *raft) {
    raft->self = raft__config_find(&raft->config, raft->id);
    raft->votes = votes_in(raft, &raft->config);
    raft->campaigns = raft->votes;
    for (size_t i = 0; i < raft->past_count && !raft->campaigns; i++) {
        raft->campaigns = votes_in(raft, &raft->past[i].config);
    }
}

static void use(struct raft *raft, uint64_t index, const struct raft_config *config) {
    move_peers(raft, config);
    raft->config = *config;
    raft->config_index = index;
    raft->update.membership_changed = true;
    find_our_standing(raft);
}

void raft__membership_reset(struct raft *raft, uint64_t index, const struct raft_config *config) {
    raft->past_count = 0;
    use(raft, index, config);
}

void raft__membership_push(struct raft *raft, uint64_t index, const struct raft_config *config) {
    CHECK(index > raft->config_index && raft->past_count < raft->past_capacity);
    struct raft__past_config *past = &raft->past[raft->past_count++];
    past->index = raft->config_index;
    past->config = raft->config;
    use(raft, index, config);
}

void raft__membership_truncate(struct raft *raft, uint64_t last_index) {
    size_t count = raft->past_count;
    while (count > 0 && (count == raft->past_count ? raft->config_index : raft->past[count].index) > last_index) {
        count--;
    }
    if (count == raft->past_count) {
        return;
    }
    struct raft_config config = raft->past[count].config;
    raft->past_count = count;
    use(raft, raft->past[count].index, &config);
}

void raft__membership_committed(struct raft *raft) {
    if (raft->past_count == 0) {
        return;
    }
    if (raft->config_index <= raft->commit_index) {
        raft->past_count = 0;
        find_our_standing(raft);
        return;
    }
    size_t gone = 0;
    while (gone + 1 < raft->past_count && raft->past[gone + 1].index <= raft->commit_index) {
        gone++;
    }
    raft->past_count -= gone;
    memmove(raft->past, raft->past + gone, raft->past_count * sizeof *raft->past);
    find_our_standing(raft);
}

void raft__membership_advance(struct raft *raft) {
    CHECK(raft->role == RAFT_LEADER);
    bool settled = !raft->config.joint && raft->votes;
    if (settled || raft->config_index > raft->commit_index || raft->commit_index < raft->term_first_index) {
        return;
    }
    if (raft->config.joint) {
        struct raft_config config;
        raft__change_leave(&raft->config, &config);
        raft__append_config(raft, &config);
    } else {
        raft__transfer_abdicate(raft);
    }
}
