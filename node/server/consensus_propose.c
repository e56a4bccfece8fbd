/*
 * Writes: they wait while the log is busy, enter it as one group, and are answered when applied.
 *
 *   handed in --> waiting --(log idle, leader)--> logged --(applied, same term)--> OK
 *                    |                              |--(applied, other term)-----> NOT_LEADER, surely not done
 *                    |--(not leader, full, late)--> |--(late, stopping, failed)--> unknown
 *                          surely not done
 *
 * Losing leadership doesn't end a logged proposal: its entry may still commit under the next leader. What is at its
 * index when that is applied decides.
 */
#include "node/server/consensus_internal.h"

static void finish(struct consensus *consensus, struct consensus_proposal *proposal, enum status status, bool unknown) {
    CHECK(consensus->proposal_count > 0 && consensus->proposal_bytes >= proposal->payload_bytes);
    consensus->proposal_count--;
    consensus->proposal_bytes -= proposal->payload_bytes;
    proposal->status = status;
    proposal->unknown = unknown;
    list_remove(&proposal->link);
    list_push_back(&consensus->proposals_done, &proposal->link);
    env_defer(consensus->options.loop, ENV_STAGE_PROCESS, &consensus->deliver_task);
}

static void run_done(struct env_message *message) {
    struct consensus_proposal *proposal = CONTAINER_OF(message, struct consensus_proposal, message);
    proposal->done(proposal);
}

void propose__deliver(struct consensus *consensus) {
    for (struct list *node; (node = list_pop_front(&consensus->proposals_done)) != NULL;) {
        struct consensus_proposal *proposal = LIST_ENTRY(node, struct consensus_proposal, link);
        if (proposal->loop == consensus->options.loop) {
            proposal->done(proposal);
        } else {
            proposal->message.run = run_done;
            env_post(proposal->loop, &proposal->message);
        }
    }
}

static void take(struct consensus *consensus, struct consensus_proposal *proposal) {
    proposal->payload_bytes = batch_size(proposal->operations, proposal->operation_count);
    proposal->revision = 0;
    proposal->index = 0;
    proposal->taken_us = consensus__now_us(consensus);
    list_push_back(&consensus->proposals_waiting, &proposal->link);
    consensus->proposal_count++;
    consensus->proposal_bytes += proposal->payload_bytes;
    if (consensus__is_dead(consensus) || consensus->refusing) {
        finish(consensus, proposal, STATUS_UNAVAILABLE, false);
    } else if (proposal->payload_bytes > consensus->options.config->entry_bytes_max) {
        finish(consensus, proposal, STATUS_TOO_LARGE, false);
    } else if (consensus->role != RAFT_LEADER) {
        finish(consensus, proposal, consensus->leader == RAFT_NO_NODE ? STATUS_UNAVAILABLE : STATUS_NOT_LEADER, false);
    } else if (consensus->proposal_count > CONSENSUS_PROPOSALS_MAX ||
               consensus->proposal_bytes > consensus->options.config->proposal_bytes_max) {
        finish(consensus, proposal, STATUS_BUSY, false);
    } else {
        consensus__watch_deadlines(consensus);
        consensus__schedule(consensus);
    }
}

static void run_take(struct env_message *message) {
    struct consensus_proposal *proposal = CONTAINER_OF(message, struct consensus_proposal, message);
    take(proposal->consensus, proposal);
}

void consensus_propose(struct consensus *consensus, struct consensus_proposal *proposal) {
    CHECK(proposal->operation_count > 0);
    proposal->consensus = consensus;
    if (proposal->loop == consensus->options.loop) {
        take(consensus, proposal);
        return;
    }
    proposal->message.run = run_take;
    if (env_post_bounded(consensus->options.loop, &proposal->message) != STATUS_OK) {
        proposal->status = STATUS_BUSY;
        proposal->unknown = false;
        proposal->message.run = run_done;
        env_post(proposal->loop, &proposal->message);
    }
}

/* As many waiting proposals as fit one group. */
static uint32_t gather(struct consensus *consensus, size_t *ret_bytes) {
    uint32_t count = 0;
    size_t bytes = 0;
    LIST_FOREACH (node, &consensus->proposals_waiting) {
        struct consensus_proposal *proposal = LIST_ENTRY(node, struct consensus_proposal, link);
        size_t size = WAL_RECORD_HEADER_BYTES + proposal->payload_bytes;
        if (count == CONSENSUS_BATCH_MAX || (count > 0 && bytes + size > LIMIT_GROUP_BYTES)) {
            break;
        }
        consensus->batch[count] = proposal;
        consensus->batch_entries[count] = (struct raft_entry){.kind = RAFT_ENTRY_DATA, .size_bytes = (uint32_t)size};
        bytes += size;
        count++;
    }
    *ret_bytes = bytes;
    return count;
}

/* The engine's flushes and compactions are behind: the next group comes a little later, at most
 * STORAGE_PACE_US_MAX. What arrives meanwhile waits, as it does for the log; without memory for the timer nobody
 * does. */
static void pace(struct consensus *consensus, size_t bytes) {
    uint64_t wait_us = storage_pace_us(consensus->storage, bytes);
    if (wait_us > 0) {
        enum status status = env_timer_arm(&consensus->pace_timer, consensus__now_us(consensus) + wait_us);
        (void)status;
    }
}

void propose__on_pace_timer(struct env_timer *timer) {
    consensus__schedule(CONTAINER_OF(timer, struct consensus, pace_timer));
}

/* A leader that removes itself leads until that is committed. What it put into the log behind it would be the next
 * leader's to commit, and nobody tells this node of that: so proposals wait, and are refused when it has stepped down.
 */
static bool is_on_its_way_out(const struct consensus *consensus) {
    struct raft_info info;
    raft_get_info(consensus->raft, &info);
    return !info.is_voter;
}

void propose__submit_waiting(struct consensus *consensus) {
    if (list_is_empty(&consensus->proposals_waiting) || consensus->role != RAFT_LEADER ||
        !wal_is_idle(consensus->wal) || env_timer_is_armed(&consensus->pace_timer) || is_on_its_way_out(consensus)) {
        return;
    }
    size_t bytes = 0;
    uint32_t count = gather(consensus, &bytes);
    enum status status = wal_reserve(consensus->wal, bytes, count);
    if (status != STATUS_OK) {
        for (uint32_t i = 0; i < count; i++) {
            finish(consensus, consensus->batch[i], status, false);
        }
        return;
    }
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE,
                               .u.propose = {.entries = consensus->batch_entries, .entry_count = count}};
    status = consensus__step(consensus, &event);
    if (status == STATUS_OK) {
        pace(consensus, bytes);
    } else if (status == STATUS_NOT_LEADER) {
        propose__refuse_waiting(consensus, STATUS_NOT_LEADER);
    }
    /* STATUS_BUSY: the uncommitted tail is full; they wait for the next commit or their deadline. */
}

enum status propose__write_records(struct consensus *consensus, uint64_t first_index, uint64_t term, uint32_t count) {
    CHECK(count <= CONSENSUS_BATCH_MAX);
    for (uint32_t i = 0; i < count; i++) {
        struct consensus_proposal *proposal = consensus->batch[i];
        uint8_t *payload = NULL;
        enum status status =
            wal_append_begin(consensus->wal, first_index + i, term, RAFT_ENTRY_DATA, proposal->payload_bytes, &payload);
        if (status != STATUS_OK) {
            return status;
        }
        batch_encode(payload, proposal->operations, proposal->operation_count);
        wal_append_end(consensus->wal);
        proposal->index = first_index + i;
        proposal->term = term;
        list_remove(&proposal->link);
        list_push_back(&consensus->proposals_logged, &proposal->link);
    }
    return STATUS_OK;
}

void propose__refuse_waiting(struct consensus *consensus, enum status status) {
    LIST_FOREACH (node, &consensus->proposals_waiting) {
        finish(consensus, LIST_ENTRY(node, struct consensus_proposal, link), status, false);
    }
}

void propose__orphan(struct consensus *consensus) {
    list_splice_back(&consensus->proposals_orphaned, &consensus->proposals_logged);
}

static void decide(struct consensus *consensus, struct consensus_proposal *proposal, uint64_t term) {
    proposal->revision = proposal->index;
    finish(consensus, proposal, proposal->term == term ? STATUS_OK : STATUS_NOT_LEADER, false);
}

void propose__applied(struct consensus *consensus, uint64_t index, uint64_t term) {
    LIST_FOREACH (node, &consensus->proposals_orphaned) {
        struct consensus_proposal *proposal = LIST_ENTRY(node, struct consensus_proposal, link);
        if (proposal->index == index) {
            decide(consensus, proposal, term);
        }
    }
    while (!list_is_empty(&consensus->proposals_logged)) {
        struct consensus_proposal *proposal =
            LIST_ENTRY(consensus->proposals_logged.next, struct consensus_proposal, link);
        if (proposal->index > index) {
            return;
        }
        CHECK(proposal->index == index);
        snapshots_note_write(consensus->snapshots, consensus__now_us(consensus) - proposal->taken_us);
        decide(consensus, proposal, term);
    }
}

static void expire_list(struct consensus *consensus, struct list *list, uint64_t now_us, bool unknown) {
    LIST_FOREACH (node, list) {
        struct consensus_proposal *proposal = LIST_ENTRY(node, struct consensus_proposal, link);
        if (proposal->deadline_us <= now_us) {
            finish(consensus, proposal, STATUS_TIMEOUT, unknown);
        }
    }
}

void propose__expire(struct consensus *consensus, uint64_t now_us) {
    expire_list(consensus, &consensus->proposals_waiting, now_us, false);
    expire_list(consensus, &consensus->proposals_logged, now_us, true);
    expire_list(consensus, &consensus->proposals_orphaned, now_us, true);
}

void propose__end_all(struct consensus *consensus) {
    propose__refuse_waiting(consensus, STATUS_UNAVAILABLE);
    expire_list(consensus, &consensus->proposals_logged, UINT64_MAX, true);
    expire_list(consensus, &consensus->proposals_orphaned, UINT64_MAX, true);
}
