/*
 * A fake storage and a fake consensus actor under the client front end: clients_fixture.h puts them together.
 *
 * Keys live in an array, in memory or "on disk", which is read when told. The consensus actor answers at the end of the
 * turn, or when told, and writes down what it was handed.
 *
 * It defines consensus_* and storage_*, so it is included by one file per program.
 */
#ifndef HOLDFAST_TESTS_CLIENTS_FAKES_H
#define HOLDFAST_TESTS_CLIENTS_FAKES_H

#include "tests/unit/support/memory_net.h"
#include "tests/unit/support/support.h"

#include "node/base/buf.h"
#include "node/base/check.h"
#include "node/server/clients.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAKE_KEYS_MAX = 4096, FAKE_READS_MAX = 4096 };

/* ---- Fake storage ------------------------------------------------------------------------------------------------ */

struct fake_key {
    char key[32];
    uint8_t *value;
    size_t value_len;
    uint64_t revision;
    bool on_disk;
};

struct storage {
    struct fake_key keys[FAKE_KEYS_MAX]; /* sorted by the test */
    uint32_t key_count;
    uint64_t applied;
    uint64_t horizon;
    enum status disk_status;
    uint32_t views;
    struct storage_io *reads[FAKE_READS_MAX]; /* started, not there yet */
    uint32_t read_count;
    bool hangs; /* keys named hung... are never read */
};

struct storage_view {
    struct storage *storage;
    uint64_t revision;
};

struct storage_iterator {
    struct storage_view *view;
    struct storage_io *io;
    struct storage_iterator_options options;
    uint32_t next;
};

struct storage_view *storage_view_acquire(struct storage *storage) {
    struct storage_view *view = calloc(1, sizeof *view);
    *view = (struct storage_view){.storage = storage, .revision = storage->applied};
    storage->views++;
    return view;
}

void storage_view_release(struct storage_view *view) {
    view->storage->views--;
    free(view);
}

uint64_t storage_view_revision(const struct storage_view *view) { return view->revision; }

uint64_t storage_view_horizon(const struct storage_view *view) { return view->storage->horizon; }

static inline struct fake_key *fake_find(struct storage *storage, struct slice key, uint64_t revision) {
    for (uint32_t i = 0; i < storage->key_count; i++) {
        if (slice_equal(slice_of_string(storage->keys[i].key), key) && storage->keys[i].revision <= revision) {
            return &storage->keys[i];
        }
    }
    return NULL;
}

/* Of the real fetch the fake uses: context (the storage), wanted (a block is missing: 1, or 2: one that hangs),
 * under_way, round (what was wanted is there). */
void storage_io_init(struct storage_io *io, struct storage *storage, struct env_loop *loop,
                     void (*ready)(struct storage_io *io)) {
    *io = (struct storage_io){.fetch = {.context = (const struct sst_context *)(const void *)storage}, .ready = ready};
    io->fetch.options.loop = loop;
}

bool storage_io_is_busy(const struct storage_io *io) { return io->fetch.under_way > 0; }

void storage_io_deinit(struct storage_io *io) { CHECK(!storage_io_is_busy(io)); }

void storage_io_start(struct storage_io *io) {
    struct storage *storage = (struct storage *)(uintptr_t)io->fetch.context;
    CHECK(io->fetch.wanted > 0 && !storage_io_is_busy(io) && storage->read_count < FAKE_READS_MAX);
    io->fetch.under_way = 1;
    storage->reads[storage->read_count++] = io;
}

/* All that doesn't hang is there. */
static inline void fake_end_reads(struct storage *storage) {
    static struct storage_io *ready[FAKE_READS_MAX];
    uint32_t count = 0;
    uint32_t left = 0;
    for (uint32_t i = 0; i < storage->read_count; i++) {
        if (storage->hangs && storage->reads[i]->fetch.wanted == 2) {
            storage->reads[left++] = storage->reads[i];
        } else {
            ready[count++] = storage->reads[i];
        }
    }
    storage->read_count = left;
    for (uint32_t i = 0; i < count; i++) {
        ready[i]->fetch.under_way = 0;
        ready[i]->fetch.wanted = 0;
        ready[i]->fetch.round = 1;
        ready[i]->ready(ready[i]);
    }
}

static inline uint32_t fake_reads_that_end(const struct storage *storage) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < storage->read_count; i++) {
        count += !storage->hangs || storage->reads[i]->fetch.wanted != 2;
    }
    return count;
}

/* False: it has to be read first. */
static inline bool fake_is_there(const struct fake_key *key, struct storage_io *io) {
    if (key->on_disk && io->fetch.round == 0) {
        io->fetch.wanted = strncmp(key->key, "hung", 4) == 0 ? 2 : 1;
        return false;
    }
    io->fetch.round = 0;
    return true;
}

enum status storage_get(struct storage_view *view, struct storage_io *io, struct slice key, uint64_t revision,
                        struct storage_value *ret_value, struct error *err) {
    CHECK(io != NULL && revision >= view->storage->horizon);
    struct fake_key *found = fake_find(view->storage, key, revision);
    if (found == NULL) {
        return STATUS_NOT_FOUND;
    }
    if (!fake_is_there(found, io)) {
        return STATUS_PENDING;
    }
    if (found->on_disk && view->storage->disk_status != STATUS_OK) {
        return error_set(err, view->storage->disk_status, "block 7 of 000001.sst is damaged");
    }
    if (strncmp(found->key, "gone", 4) == 0) {
        return STATUS_NOT_FOUND;
    }
    *ret_value = (struct storage_value){.bytes = slice_of(found->value, found->value_len), .revision = found->revision};
    return STATUS_OK;
}

void storage_value_release(struct storage_value *value) { CHECK(value->hold.block == NULL); }

static inline bool fake_in_range(const struct fake_key *key, struct slice lower, struct slice upper) {
    struct slice text = slice_of_string(key->key);
    return slice_compare(text, lower) >= 0 && (upper.len == 0 || slice_compare(text, upper) < 0);
}

enum status storage_iterator_new(struct storage_view *view, struct storage_io *io,
                                 const struct storage_iterator_options *options, struct storage_iterator **ret_iterator,
                                 struct error *err) {
    (void)err;
    CHECK(io != NULL && options->revision >= view->storage->horizon);
    struct storage_iterator *iterator = calloc(1, sizeof *iterator);
    *iterator = (struct storage_iterator){.view = view, .io = io, .options = *options};
    *ret_iterator = iterator;
    return STATUS_OK;
}

void storage_iterator_free(struct storage_iterator *iterator) { free(iterator); }

enum status storage_iterator_next(struct storage_iterator *iterator, struct error *err) {
    struct storage *storage = iterator->view->storage;
    const struct storage_iterator_options *options = &iterator->options;
    for (; iterator->next < storage->key_count; iterator->next++) {
        const struct fake_key *key = &storage->keys[iterator->next];
        if (!fake_in_range(key, options->lower, options->upper) || key->revision > options->revision) {
            continue;
        }
        if (!fake_is_there(key, iterator->io)) {
            return STATUS_PENDING;
        }
        iterator->next++;
        if (key->on_disk && storage->disk_status != STATUS_OK) {
            return error_set(err, storage->disk_status, "block 7 of 000001.sst is damaged");
        }
        return STATUS_OK;
    }
    return STATUS_NOT_FOUND;
}

enum status storage_iterator_first(struct storage_iterator *iterator, struct error *err) {
    return storage_iterator_next(iterator, err);
}

static const struct fake_key *fake_current(const struct storage_iterator *iterator) {
    return &iterator->view->storage->keys[iterator->next - 1];
}
struct slice storage_iterator_key(const struct storage_iterator *iterator) {
    return slice_of_string(fake_current(iterator)->key);
}
enum status storage_iterator_value(struct storage_iterator *iterator, struct slice *ret_value, struct error *err) {
    (void)err;
    CHECK(!iterator->options.keys_only);
    *ret_value = slice_of(fake_current(iterator)->value, fake_current(iterator)->value_len);
    return STATUS_OK;
}
uint64_t storage_iterator_revision(const struct storage_iterator *iterator) { return fake_current(iterator)->revision; }

/* ---- Fake consensus ---------------------------------------------------------------------------------------------- */

struct consensus {
    struct env_loop *loop;
    struct alloc *alloc;
    struct storage storage;
    struct env_task task;
    struct list proposals;
    struct list reads;
    uint32_t proposal_count;
    uint32_t read_count;
    bool hold; /* answers only when fixture_answer is called */
    uint64_t leader;
    enum status write_status;
    bool write_unknown;
    enum status read_status;
    uint64_t revision;
    /* As last seen: */
    struct buf seen; /* "put key=value;" ... */
    uint64_t seen_deadline_us;
    bool seen_local;
    uint64_t seen_at_least;
    enum raft_refusal refusal; /* of changes */
};

static inline void fake_deliver(struct env_task *task) {
    struct consensus *consensus = CONTAINER_OF(task, struct consensus, task);
    for (struct list *node; (node = list_pop_front(&consensus->proposals)) != NULL;) {
        struct consensus_proposal *proposal = LIST_ENTRY(node, struct consensus_proposal, link);
        consensus->proposal_count--;
        proposal->status = consensus->write_status;
        proposal->unknown = consensus->write_unknown;
        proposal->revision = proposal->status == STATUS_OK ? ++consensus->revision : 0;
        proposal->done(proposal);
    }
    for (struct list *node; (node = list_pop_front(&consensus->reads)) != NULL;) {
        struct consensus_read *read = LIST_ENTRY(node, struct consensus_read, link);
        consensus->read_count--;
        read->status = consensus->read_status;
        read->done(read);
    }
}

static inline const char *fake_kind_name(enum batch_kind kind) {
    return kind == BATCH_PUT ? "put" : kind == BATCH_DELETE ? "delete" : "range";
}

void consensus_propose(struct consensus *consensus, struct consensus_proposal *proposal) {
    CHECK(proposal->loop == consensus->loop && proposal->operation_count > 0);
    consensus->seen_deadline_us = proposal->deadline_us;
    for (uint32_t i = 0; i < proposal->operation_count; i++) {
        const struct batch_operation *operation = &proposal->operations[i];
        const char *kind = fake_kind_name(operation->kind);
        size_t value_len = operation->value.len < 64 ? operation->value.len : 64;
        bool kept = buf_append_format(&consensus->seen, "%s ", kind) == STATUS_OK &&
                    buf_append(&consensus->seen, operation->key.data, operation->key.len) == STATUS_OK &&
                    buf_append(&consensus->seen, "=", 1) == STATUS_OK &&
                    buf_append(&consensus->seen, operation->value.data, value_len) == STATUS_OK &&
                    buf_append(&consensus->seen, ";", 1) == STATUS_OK;
        CHECK(kept);
    }
    list_push_back(&consensus->proposals, &proposal->link);
    consensus->proposal_count++;
    if (!consensus->hold) {
        env_defer(consensus->loop, ENV_STAGE_PROCESS, &consensus->task);
    }
}

void consensus_read(struct consensus *consensus, struct consensus_read *read) {
    CHECK(read->loop == consensus->loop);
    consensus->seen_local = read->local;
    consensus->seen_at_least = read->at_least;
    consensus->seen_deadline_us = read->deadline_us;
    list_push_back(&consensus->reads, &read->link);
    consensus->read_count++;
    if (!consensus->hold) {
        env_defer(consensus->loop, ENV_STAGE_PROCESS, &consensus->task);
    }
}

static inline void fake_status_done(struct env_message *message) {
    struct consensus_status_query *query = CONTAINER_OF(message, struct consensus_status_query, message);
    query->status = (struct consensus_status){
        .role = query->consensus->leader == 1 ? RAFT_LEADER : RAFT_FOLLOWER,
        .term = 3,
        .leader_id = query->consensus->leader,
        .first_index = 2,
        .last_index = 9,
        .synced_index = 8,
        .commit_index = 7,
        .applied_index = 6,
        .flushed_index = 5,
        .member_count = 2,
        .config_index = 3,
        .config_is_committed = true,
        .members = {{.id = 1, .name = "n1", .client_address = "host-1:4400", .match_index = 8, .thumbprint = {1}},
                    {.id = 2,
                     .role = RAFT_LEARNER,
                     .priority = 9,
                     .name = "n2",
                     .peer_address = "host-2:4500",
                     .client_address = "host-2:4400",
                     .match_index = 4,
                     .heard_ms_ago = UINT64_MAX,
                     .state = RAFT_PEER_SNAPSHOT}},
        .problem = "disk full",
        .wal = {.groups = 5,
                .triggers = {[WAL_TRIGGER_IDLE] = 2, [WAL_TRIGGER_MARK] = 3},
                .written_bytes = 8192,
                .padding_bytes = 4000,
                .group_records_max = 7,
                .sync_us_buckets = {[6] = 4, [9] = 1}},
        .storage = {.files = {1, 2, [6] = 4}},
    };
    query->done(query);
}

void consensus_query_status(struct consensus *consensus, struct consensus_status_query *query) {
    query->consensus = consensus;
    query->message.run = fake_status_done;
    env_post(consensus->loop, &query->message);
}

static inline void fake_upkeep_done(struct env_message *message) {
    struct consensus_upkeep_query *query = CONTAINER_OF(message, struct consensus_upkeep_query, message);
    query->done(query);
}

/* Says what it was asked for, and answers with a job that is half done. */
void consensus_upkeep(struct consensus *consensus, struct consensus_upkeep_query *query) {
    enum status status = buf_append_format(&consensus->seen, "upkeep %d %.*s-%.*s %s;", (int)query->action,
                                           (int)query->lower.len, (const char *)query->lower.data,
                                           (int)query->upper.len, (const char *)query->upper.data, query->dir);
    CHECK(status == STATUS_OK);
    query->status = consensus->write_status;
    query->state = (struct consensus_upkeep_state){.job = 3,
                                                   .kind = CONSENSUS_UPKEEP_VERIFY,
                                                   .running = true,
                                                   .done_bytes = 50,
                                                   .total_bytes = 100,
                                                   .elapsed_us = 7000,
                                                   .findings = 2};
    query->message.run = fake_upkeep_done;
    env_post(consensus->loop, &query->message);
}

const char *consensus_upkeep_name(enum consensus_upkeep_action kind) {
    return kind == CONSENSUS_UPKEEP_VERIFY ? "verify" : "another";
}

static inline void fake_compare_done(struct env_message *message) {
    struct consensus_compare_query *query = CONTAINER_OF(message, struct consensus_compare_query, message);
    query->done(query);
}

/* Says what it was asked for; one member is done, one has nothing. */
void consensus_compare(struct consensus *consensus, struct consensus_compare_query *query) {
    enum status status = buf_append_format(&consensus->seen, "compare %s;", query->begin ? "begin" : "look");
    CHECK(status == STATUS_OK);
    query->status = consensus->write_status;
    query->is_open = true;
    query->above_index = 8;
    query->round = (struct consensus_scan_round){.index = 9, .verdict = CONSENSUS_SCAN_OPEN, .member_count = 2};
    query->round.members[0] = (struct consensus_scan_member){.id = 4, .state = CONSENSUS_SCAN_DONE, .keys = 6};
    query->round.members[0].digest = (struct digest){.low = 1, .high = 2};
    query->round.members[1] = (struct consensus_scan_member){.id = 5, .state = CONSENSUS_SCAN_MISSING, .reason = "why"};
    (void)snprintf(query->names[0], sizeof query->names[0], "n4");
    query->message.run = fake_compare_done;
    env_post(consensus->loop, &query->message);
}

const char *consensus_scan_state_name(enum consensus_scan_state state) {
    return state == CONSENSUS_SCAN_DONE ? "done" : "another";
}

static inline void fake_change_done(struct env_message *message) {
    struct consensus_change_query *query = CONTAINER_OF(message, struct consensus_change_query, message);
    query->done(query);
}

/* Says what it was asked for: "add 4 n4 peer client 7 04;", "add 4 n4 peer client 7 04 unreachable;", "promote 4;",
 * "transfer 2;". */
void consensus_ask_change(struct consensus *consensus, struct consensus_change_query *query) {
    static const char *const NAMES[] = {"", "add", "promote", "demote", "remove", "priority"};
    struct consensus_change *change = &query->change;
    enum status status = STATUS_OK;
    consensus->seen_deadline_us = change->deadline_us;
    for (uint32_t i = 0; i < change->change_count && status == STATUS_OK; i++) {
        const struct raft_change *part = &change->changes[i];
        status = buf_append_format(&consensus->seen, "%s %u", NAMES[part->type], (unsigned)part->id);
        if (status == STATUS_OK && part->type == RAFT_CHANGE_ADD_LEARNER) {
            status = buf_append_format(&consensus->seen, " %s %s %s %u %02x", part->name, part->address,
                                       part->client_address, part->priority, part->thumbprint[31]);
            status = status == STATUS_OK && change->unreachable_too[i]
                         ? buf_append_format(&consensus->seen, " unreachable")
                         : status;
        }
        if (status == STATUS_OK) {
            status = buf_append(&consensus->seen, ";", 1);
        }
    }
    if (change->is_transfer) {
        status = buf_append_format(&consensus->seen, "transfer %u;", (unsigned)change->target);
    }
    CHECK(status == STATUS_OK);
    change->status = consensus->write_status;
    change->unknown = consensus->write_unknown;
    change->refusal = consensus->refusal;
    if (change->refusal == RAFT_REFUSAL_UNREACHABLE) {
        (void)error_set(&change->err, STATUS_CONDITION, "host-4:4500 can't be reached: why: what to do");
    }
    change->index = 44;
    change->leader = 2;
    query->message.run = fake_change_done;
    env_post(query->loop, &query->message);
}

static inline void fake_log_done(struct env_message *message) {
    struct consensus_log_query *query = CONTAINER_OF(message, struct consensus_log_query, message);
    query->done(query);
}

void consensus_explain_log(struct consensus *consensus, struct consensus_log_query *query) {
    *query = (struct consensus_log_query){
        .loop = query->loop,
        .done = query->done,
        .first_index = 2,
        .last_index = 9,
        .floor_index = 4,
        .segment_total = 3,
        .file_bytes = 3 << 20,
        .pin_count = 3,
        .pins = {{.owner = "active", .has_index = true, .index = 9, .segment_count = 1},
                 {.owner = "reader"},
                 {.owner = "follower n2",
                  .has_index = true,
                  .index = 4,
                  .segment_count = 2,
                  .file_bytes = 2 << 20,
                  .age_us = 7000}},
        .segments = mem_alloc_zero(consensus->alloc, 2 * sizeof *query->segments),
        .segment_count = 2,
        .message.run = fake_log_done,
    };
    query->status = query->segments != NULL ? STATUS_OK : STATUS_NO_MEMORY;
    query->segment_count = query->segments != NULL ? 2 : 0;
    if (query->segments != NULL) {
        query->segments[0] = (struct consensus_log_segment){.info = {.number = 1,
                                                                     .file_bytes = 1 << 20,
                                                                     .used_bytes = 1000,
                                                                     .first_index = 2,
                                                                     .last_index = 8,
                                                                     .age_us = 7000,
                                                                     .begun_before_opened = true,
                                                                     .state = WAL_SEGMENT_KEPT},
                                                            .pins = 4};
        query->segments[1] = (struct consensus_log_segment){
            .info = {.number = 2, .state = WAL_SEGMENT_ACTIVE, .first_index = 9, .last_index = 9}, .pins = 5};
    }
    env_post(consensus->loop, &query->message);
}

uint64_t consensus_leader(const struct consensus *consensus) { return consensus->leader; }

/* Nobody in it: names and addresses are the configuration's. */
const struct directory *consensus_directory(const struct consensus *consensus) {
    (void)consensus;
    static struct directory directory;
    return &directory;
}
struct storage *consensus_storage(struct consensus *consensus) {
    return &consensus->storage;
}

#endif
