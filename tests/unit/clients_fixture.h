/*
 * A client front end between a fake client and fake consensus and storage, in a memory world: for test_clients.c
 * (connections and writes) and test_clients_reads.c.
 *
 * The client uses the real connection; certificates are what the test says; the consensus actor answers at the end of
 * the turn, or when told; keys live in an array, in memory or "on disk", which is read when told. fixture_tear_down
 * fails the test when a request, a view, or memory is left.
 *
 * It defines consensus_* and storage_*, so it is included by one file per program.
 */
#ifndef HOLDFAST_TESTS_CLIENTS_FIXTURE_H
#define HOLDFAST_TESTS_CLIENTS_FIXTURE_H

#include "tests/unit/support/memory_net.h"
#include "tests/unit/support/support.h"

#include "node/base/buf.h"
#include "node/base/check.h"
#include "node/server/clients.h"
#include "proto/connection.h"
#include "proto/wire.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAKE_KEYS_MAX = 4096, FAKE_FRAMES_MAX = 16384, FAKE_CLIENTS_MAX = 20, FAKE_READS_MAX = 4096 };

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

void consensus_propose(struct consensus *consensus, struct consensus_proposal *proposal) {
    CHECK(proposal->loop == consensus->loop && proposal->operation_count > 0);
    consensus->seen_deadline_us = proposal->deadline_us;
    for (uint32_t i = 0; i < proposal->operation_count; i++) {
        const struct batch_operation *operation = &proposal->operations[i];
        enum status status =
            buf_append_format(&consensus->seen, "%s %.*s=%.*s;", operation->kind == BATCH_PUT ? "put" : "delete",
                              (int)operation->key.len, (const char *)operation->key.data,
                              operation->value.len < 64 ? (int)operation->value.len : 64,
                              (const char *)operation->value.data);
        CHECK(status == STATUS_OK);
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
        .role = RAFT_LEADER,
        .term = 3,
        .leader_id = 1,
        .first_index = 2,
        .last_index = 9,
        .synced_index = 8,
        .commit_index = 7,
        .applied_index = 6,
        .flushed_index = 5,
        .member_count = 2,
        .members = {{.id = 1, .voter = true, .match_index = 8, .heard_ms_ago = 0},
                    {.id = 2, .voter = true, .match_index = 4, .heard_ms_ago = UINT64_MAX}},
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
    query->message.run = fake_status_done;
    env_post(consensus->loop, &query->message);
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
struct storage *consensus_storage(struct consensus *consensus) {
    return &consensus->storage;
}
const char *raft_role_name(enum raft_role role) { return role == RAFT_LEADER ? "leader" : "follower"; }

/* ---- The fixture ---------------------------------------------------------------------------------------------------
 */

struct fake_frame {
    uint8_t type;
    uint64_t request_id;
    uint8_t *bytes; /* message, then raw; calloc */
    size_t message_len;
    size_t raw_len;
};

struct fixture;

struct fake_client {
    struct connection_handler handler;
    struct fixture *fixture;
    struct connection *connection; /* NULL once closed */
    struct env_stream *stream;
    struct fake_frame frames[FAKE_FRAMES_MAX];
    uint32_t frame_count;
    bool opened;
    bool closed;
    struct error end;
};

struct fixture {
    struct memory_world world;
    bool hold_reads;                /* of the disk: only fake_end_reads ends them */
    struct env_transport transport; /* the world's, and certificates */
    struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream);
    void *accepted_context;
    struct env_peer next_peer; /* who connects next */
    struct config config;
    struct consensus consensus;
    struct logger logger;
    char *log; /* all lines */
    size_t log_len;
    struct clients *clients;
    bool stopped;
    struct fake_client *peers[FAKE_CLIENTS_MAX];
    uint32_t peer_count;
};

static inline struct env_stream_handler *fake_accepted(void *context, struct env_stream *stream) {
    struct fixture *fixture = context;
    struct env_peer *peer = (struct env_peer *)(uintptr_t)env_stream_peer(stream);
    peer->certificate = fixture->next_peer.certificate;
    memcpy(peer->thumbprint, fixture->next_peer.thumbprint, sizeof peer->thumbprint);
    return fixture->accepted(fixture->accepted_context, stream);
}

static inline enum status fake_listen(struct env_transport *transport, struct env_loop *loop, const char *address,
                                      struct env_stream_handler *(*accepted)(void *context, struct env_stream *stream),
                                      void *context, struct env_listener **ret_listener, struct error *err) {
    struct fixture *fixture = CONTAINER_OF(transport, struct fixture, transport);
    fixture->accepted = accepted;
    fixture->accepted_context = context;
    return env_listen(&fixture->world.transport, loop, address, fake_accepted, fixture, ret_listener, err);
}

static const struct env_transport_ops fake_transport_ops = {.listen = fake_listen};

static inline int64_t fake_wall_ms(struct logger *logger) {
    (void)logger;
    return 0;
}

static inline void fake_log(struct logger *logger, enum log_level level, struct slice line) {
    struct fixture *fixture = CONTAINER_OF(logger, struct fixture, logger);
    (void)level;
    fixture->log = realloc(fixture->log, fixture->log_len + line.len + 2);
    memcpy(fixture->log + fixture->log_len, line.data, line.len);
    fixture->log_len += line.len;
    fixture->log[fixture->log_len++] = '\n';
    fixture->log[fixture->log_len] = '\0';
}

static inline uint32_t fixture_count_log(const struct fixture *fixture, const char *words) {
    uint32_t count = 0;
    for (const char *at = fixture->log; at != NULL && (at = strstr(at, words)) != NULL; at++) {
        count++;
    }
    return count;
}

/* Turns and disk reads until nothing happens. */
static inline void fixture_run(struct fixture *fixture) {
    struct storage *storage = &fixture->consensus.storage;
    do {
        memory_world_run(&fixture->world);
        if (!fixture->hold_reads) {
            fake_end_reads(storage);
        }
    } while (memory_world_turn(&fixture->world) || (!fixture->hold_reads && fake_reads_that_end(storage) > 0));
}

static inline void fixture_advance_ms(struct fixture *fixture, uint64_t ms) {
    memory_world_advance(&fixture->world, ms * 1000);
    fixture_run(fixture);
}

/* The consensus actor answers all that it holds. */
static inline void fixture_answer(struct fixture *fixture) {
    env_defer(&fixture->world.loop, ENV_STAGE_PROCESS, &fixture->consensus.task);
    fixture_run(fixture);
}

static inline void fixture_add_key(struct fixture *fixture, const char *key, size_t value_len, bool on_disk) {
    struct storage *storage = &fixture->consensus.storage;
    CHECK(storage->key_count < FAKE_KEYS_MAX);
    struct fake_key *slot = &storage->keys[storage->key_count++];
    *slot = (struct fake_key){.value = malloc(value_len + 1), .value_len = value_len, .revision = ++storage->applied};
    slot->on_disk = on_disk;
    (void)snprintf(slot->key, sizeof slot->key, "%s", key);
    memset(slot->value, 'v', value_len);
}

enum { READER = 10, WRITER = 11, ADMIN = 12, MEMBER = 2, STRANGER = 99 };

/* Everything but the front end. */
static inline void fixture_prepare(struct fixture *fixture, uint64_t seed) {
    memory_world_init(&fixture->world, seed);
    fixture->transport.ops = &fake_transport_ops;
    fixture->logger = (struct logger){.level_min = LOG_DEBUG, .wall_ms = fake_wall_ms, .write = fake_log};
    config_init(&fixture->config, &fixture->world.alloc.base);
    struct config *config = &fixture->config;
    strcpy(config->name, "n1");
    config->id = 1;
    memset(config->cluster_id, 0xc1, sizeof config->cluster_id);
    for (int i = 0; i < 2; i++) {
        struct config_member *member = &config->members[config->member_count++];
        member->id = (uint64_t)i + 1;
        (void)snprintf(member->name, sizeof member->name, "n%d", i + 1);
        (void)snprintf(member->client_address, sizeof member->client_address, "host-%d:4400", i + 1);
        memset(member->thumbprint, i + 1, sizeof member->thumbprint);
    }
    config->identities = mem_alloc_zero(config->alloc, 3 * sizeof *config->identities);
    config->identity_count = 3;
    static const enum config_role roles[] = {CONFIG_ROLE_READ, CONFIG_ROLE_WRITE, CONFIG_ROLE_ADMIN};
    for (int i = 0; i < 3; i++) {
        struct config_identity *identity = &config->identities[i];
        identity->role = roles[i];
        (void)snprintf(identity->name, sizeof identity->name, "the-%s", config_role_name(roles[i]));
        memset(identity->thumbprint, READER + i, sizeof identity->thumbprint);
    }
    struct consensus *consensus = &fixture->consensus;
    consensus->loop = &fixture->world.loop;
    consensus->alloc = fixture->world.env.alloc;
    consensus->leader = 1;
    consensus->revision = 100;
    consensus->storage.applied = 100;
    list_init(&consensus->proposals);
    list_init(&consensus->reads);
    env_task_init(&consensus->task, fake_deliver);
    buf_init(&consensus->seen, alloc_system(), 0);
}

static inline void fixture_start(struct fixture *fixture) {
    struct clients_options options = {
        .env = &fixture->world.env,
        .loop = &fixture->world.loop,
        .transport = &fixture->transport,
        .consensus = &fixture->consensus,
        .config = &fixture->config,
        .logger = &fixture->logger,
        .listen_address = "clients:1",
        .started_us = fixture->world.now_us,
    };
    struct error error;
    assert_int_equal(clients_start(&options, &fixture->clients, &error), STATUS_OK);
}

static inline int fixture_set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture_prepare(fixture, 1);
    fixture_start(fixture);
    *state = fixture;
    return 0;
}

static inline void fake_stopped(void *context) {
    struct fixture *fixture = context;
    fixture->stopped = true;
    fixture->clients = NULL;
}

static inline void fixture_stop(struct fixture *fixture, uint64_t grace_ms) {
    clients_stop(fixture->clients, grace_ms * 1000, fake_stopped, fixture);
    fixture_run(fixture);
}

static inline void fake_client_free(struct fake_client *client) {
    for (uint32_t i = 0; i < client->frame_count; i++) {
        free(client->frames[i].bytes);
    }
    free(client);
}

static inline void fixture_end(struct fixture *fixture) {
    fixture->hold_reads = false;
    fixture->consensus.storage.hangs = false;
    if (fixture->clients != NULL) {
        fixture_answer(fixture);
        fixture_stop(fixture, 0);
        fixture_advance_ms(fixture, 1);
    }
    for (uint32_t i = 0; i < fixture->peer_count; i++) {
        if (fixture->peers[i]->connection != NULL) {
            connection_close(fixture->peers[i]->connection);
        }
    }
    fixture_run(fixture);
    assert_true(fixture->stopped);
    assert_int_equal(fixture->consensus.proposal_count + fixture->consensus.read_count, 0);
    assert_int_equal(fixture->consensus.storage.views, 0);
    for (uint32_t i = 0; i < fixture->peer_count; i++) {
        fake_client_free(fixture->peers[i]);
    }
    for (uint32_t i = 0; i < fixture->consensus.storage.key_count; i++) {
        free(fixture->consensus.storage.keys[i].value);
    }
    config_deinit(&fixture->config);
    buf_deinit(&fixture->consensus.seen);
    free(fixture->log);
    memory_world_deinit(&fixture->world); /* nothing is left */
    free(fixture);
}

static inline int fixture_tear_down(void **state) {
    fixture_end(*state);
    return 0;
}

/* ---- The fake client -----------------------------------------------------------------------------------------------
 */

static inline struct fake_client *fake_of(struct connection_handler *handler) {
    return CONTAINER_OF(handler, struct fake_client, handler);
}

static inline void fake_opened(struct connection_handler *handler) { fake_of(handler)->opened = true; }

static inline void fake_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct fake_client *client = fake_of(handler);
    CHECK(client->frame_count < FAKE_FRAMES_MAX);
    struct fake_frame *slot = &client->frames[client->frame_count++];
    *slot = (struct fake_frame){.type = frame->type,
                                .request_id = frame->request_id,
                                .bytes = malloc(frame->message.len + frame->raw.len + 1),
                                .message_len = frame->message.len,
                                .raw_len = frame->raw.len};
    memcpy(slot->bytes, frame->message.data, frame->message.len);
    memcpy(slot->bytes + frame->message.len, frame->raw.data, frame->raw.len);
}

static inline void fake_drained(struct connection_handler *handler) { (void)handler; }

static inline void fake_closed(struct connection_handler *handler, const struct error *err) {
    struct fake_client *client = fake_of(handler);
    client->closed = true;
    client->end = *err;
    client->connection = NULL;
}

/* Connects with the certificate whose thumbprint is this byte all over; runs until nothing happens. */
static inline struct fake_client *fake_connect(struct fixture *fixture, enum env_certificate_state certificate,
                                               int thumbprint) {
    static const struct connection_limits limits = {LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES};
    struct fake_client *client = calloc(1, sizeof *client);
    CHECK(fixture->peer_count < FAKE_CLIENTS_MAX);
    fixture->peers[fixture->peer_count++] = client;
    client->fixture = fixture;
    client->handler = (struct connection_handler){.opened = fake_opened,
                                                  .frame = fake_frame,
                                                  .drained = fake_drained,
                                                  .closed = fake_closed};
    fixture->next_peer.certificate = certificate;
    memset(fixture->next_peer.thumbprint, thumbprint, sizeof fixture->next_peer.thumbprint);
    enum status status = connection_new(&fixture->world.loop, &limits, &client->handler, &client->connection);
    CHECK(status == STATUS_OK);
    status = env_connect(&fixture->world.transport, &fixture->world.loop, "clients:1",
                         connection_stream_handler(client->connection), &client->stream, NULL);
    CHECK(status == STATUS_OK);
    connection_attach(client->connection, client->stream);
    fixture_run(fixture);
    return client;
}

/* As above, greeted; the greeting is forgotten. */
static inline struct fake_client *fake_login(struct fixture *fixture, int thumbprint) {
    struct fake_client *client = fake_connect(fixture, ENV_CERTIFICATE_VALID, thumbprint);
    assert_int_equal(client->frame_count, 1);
    assert_int_equal(client->frames[0].type, FRAME_GREETING);
    free(client->frames[0].bytes);
    client->frame_count = 0;
    return client;
}

static inline void fake_send(struct fake_client *client, uint8_t type, uint64_t id, const ProtobufCMessage *message,
                             const void *raw, size_t raw_len) {
    struct slice part = slice_of(raw, raw_len);
    enum status status = connection_send(client->connection, type, id, message, &part, 1);
    CHECK(status == STATUS_OK);
}

/* The message of the n-th frame that arrived, which is of this type; protobuf_c_message_free_unpacked by the caller. */
static inline void *fake_message(const struct fake_client *client, uint32_t at, uint8_t type,
                                 const ProtobufCMessageDescriptor *descriptor) {
    assert_true(at < client->frame_count);
    assert_int_equal(client->frames[at].type, type);
    ProtobufCMessage *message =
        protobuf_c_message_unpack(descriptor, NULL, client->frames[at].message_len, client->frames[at].bytes);
    assert_non_null(message);
    return message;
}

static inline struct slice fake_raw(const struct fake_client *client, uint32_t at) {
    return slice_of(client->frames[at].bytes + client->frames[at].message_len, client->frames[at].raw_len);
}

/* The n-th frame is an Error with this code, outcome "failed", and these words. */
static inline void assert_error(const struct fake_client *client, uint32_t at, uint64_t id, enum wire_code code,
                                const char *words) {
    Wire__Error *error = fake_message(client, at, FRAME_ERROR, &wire__error__descriptor);
    if (strstr(error->message, words) == NULL) {
        print_error("message: %s\nwanted: %s\n", error->message, words);
    }
    assert_int_equal(client->frames[at].request_id, id);
    assert_int_equal(error->code, code);
    assert_int_equal(error->outcome, WIRE__OUTCOME__OUTCOME_FAILED);
    assert_non_null(strstr(error->message, words));
    protobuf_c_message_free_unpacked(&error->base, NULL);
}

static ProtobufCBinaryData fake_bytes(const char *text) {
    return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)(uintptr_t)text};
}

static inline void fake_put(struct fake_client *client, uint64_t id, const char *key, const void *value,
                            size_t value_len) {
    Wire__PutRequest put = WIRE__PUT_REQUEST__INIT;
    put.has_key = 1;
    put.key = fake_bytes(key);
    fake_send(client, FRAME_PUT, id, &put.base, value, value_len);
}

static inline void fake_get(struct fake_client *client, uint64_t id, const char *key, Wire__ReadOptions *options) {
    Wire__GetRequest get = WIRE__GET_REQUEST__INIT;
    get.has_key = 1;
    get.key = fake_bytes(key);
    get.options = options;
    fake_send(client, FRAME_GET, id, &get.base, NULL, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

#endif
