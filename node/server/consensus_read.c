/*
 * Linearizable reads by ReadIndex (Ongaro's thesis, 6.4), batched by raft's rounds, and waiting until enough is
 * applied.
 *
 *   new --READ step--> asked --(round confirmed)--> applying --(applied >= index)--> OK
 *
 * On a node that doesn't lead, raft asks the leader for the round's index. A local read skips the asking. The read
 * itself is the front end's, on a view that it takes after `done`.
 */
#include "node/server/consensus_internal.h"

static void finish(struct consensus *consensus, struct consensus_read *read, enum status status) {
    CHECK(consensus->read_count > 0);
    consensus->read_count--;
    read->status = status;
    list_remove(&read->link);
    list_push_back(&consensus->reads_done, &read->link);
    env_defer(consensus->options.loop, ENV_STAGE_PROCESS, &consensus->deliver_task);
}

static void run_done(struct env_message *message) {
    struct consensus_read *read = CONTAINER_OF(message, struct consensus_read, message);
    read->done(read);
}

void read__deliver(struct consensus *consensus) {
    for (struct list *node; (node = list_pop_front(&consensus->reads_done)) != NULL;) {
        struct consensus_read *read = LIST_ENTRY(node, struct consensus_read, link);
        if (read->loop == consensus->options.loop) {
            read->done(read);
        } else {
            read->message.run = run_done;
            env_post(read->loop, &read->message);
        }
    }
}

static void wait_for_apply(struct consensus *consensus, struct consensus_read *read, uint64_t index) {
    read->wait_index = index > read->at_least ? index : read->at_least;
    list_remove(&read->link);
    list_push_back(&consensus->reads_applying, &read->link);
    if (storage_applied_index(consensus->storage) >= read->wait_index) {
        finish(consensus, read, STATUS_OK);
    }
}

static void take(struct consensus *consensus, struct consensus_read *read) {
    list_push_back(&consensus->reads_new, &read->link);
    consensus->read_count++;
    bool has_ended = consensus__is_dead(consensus) || consensus->refusing;
    bool is_led = consensus->role == RAFT_LEADER || consensus->leader != RAFT_NO_NODE;
    if (consensus->read_count > CONSENSUS_READS_MAX) {
        finish(consensus, read, STATUS_BUSY);
    } else if (read->local && !has_ended) {
        wait_for_apply(consensus, read, 0);
    } else if (has_ended || !is_led || member__is_out(consensus)) {
        finish(consensus, read, STATUS_UNAVAILABLE);
    } else {
        consensus__schedule(consensus);
    }
    consensus__watch_deadlines(consensus);
}

static void run_take(struct env_message *message) {
    struct consensus_read *read = CONTAINER_OF(message, struct consensus_read, message);
    take(read->consensus, read);
}

void consensus_read(struct consensus *consensus, struct consensus_read *read) {
    read->consensus = consensus;
    if (read->loop == consensus->options.loop) {
        take(consensus, read);
        return;
    }
    read->message.run = run_take;
    if (env_post_bounded(consensus->options.loop, &read->message) != STATUS_OK) {
        read->status = STATUS_BUSY;
        read->message.run = run_done;
        env_post(read->loop, &read->message);
    }
}

void read__ask(struct consensus *consensus) {
    if (list_is_empty(&consensus->reads_new)) {
        return;
    }
    struct raft_event event = {.type = RAFT_EVENT_READ, .u.read = {.forward = true}};
    if (consensus__step(consensus, &event) != STATUS_OK) {
        enum status status = consensus->leader == RAFT_NO_NODE ? STATUS_UNAVAILABLE : STATUS_NOT_LEADER;
        LIST_FOREACH (node, &consensus->reads_new) {
            finish(consensus, LIST_ENTRY(node, struct consensus_read, link), status);
        }
    }
}

void read__asked(struct consensus *consensus, uint64_t round) {
    CHECK(round > 0);
    LIST_FOREACH (node, &consensus->reads_new) {
        LIST_ENTRY(node, struct consensus_read, link)->round = round;
    }
    list_splice_back(&consensus->reads_asked, &consensus->reads_new);
}

void read__ready(struct consensus *consensus, uint64_t ready_round, uint64_t ready_index) {
    LIST_FOREACH (node, &consensus->reads_asked) {
        struct consensus_read *read = LIST_ENTRY(node, struct consensus_read, link);
        if (read->round > ready_round) {
            return;
        }
        wait_for_apply(consensus, read, ready_index);
    }
}

void read__applied(struct consensus *consensus) {
    uint64_t applied_index = storage_applied_index(consensus->storage);
    LIST_FOREACH (node, &consensus->reads_applying) {
        struct consensus_read *read = LIST_ENTRY(node, struct consensus_read, link);
        if (read->wait_index <= applied_index) {
            finish(consensus, read, STATUS_OK);
        }
    }
}

static void finish_list(struct consensus *consensus, struct list *list, enum status status, uint64_t deadline_max_us) {
    LIST_FOREACH (node, list) {
        struct consensus_read *read = LIST_ENTRY(node, struct consensus_read, link);
        if (read->deadline_us <= deadline_max_us) {
            finish(consensus, read, status);
        }
    }
}

void read__refuse(struct consensus *consensus, enum status status, bool waiting_for_apply_too) {
    finish_list(consensus, &consensus->reads_new, status, UINT64_MAX);
    finish_list(consensus, &consensus->reads_asked, status, UINT64_MAX);
    if (waiting_for_apply_too) {
        finish_list(consensus, &consensus->reads_applying, status, UINT64_MAX);
    }
}

void read__expire(struct consensus *consensus, uint64_t now_us) {
    finish_list(consensus, &consensus->reads_new, STATUS_TIMEOUT, now_us);
    finish_list(consensus, &consensus->reads_asked, STATUS_TIMEOUT, now_us);
    finish_list(consensus, &consensus->reads_applying, STATUS_TIMEOUT, now_us);
}
