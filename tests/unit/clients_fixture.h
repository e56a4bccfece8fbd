/*
 * A client front end between a fake client and fake consensus and storage (clients_fakes.h), in a memory world: for
 * test_clients.c (connections, bounds, ends), test_clients_writes.c and test_clients_reads.c.
 *
 * The client uses the real connection; certificates are what the test says. fixture_tear_down fails the test when a
 * request, a view, or memory is left.
 */
#ifndef HOLDFAST_TESTS_CLIENTS_FIXTURE_H
#define HOLDFAST_TESTS_CLIENTS_FIXTURE_H

#include "tests/unit/clients_fakes.h"

#include "proto/connection.h"
#include "proto/wire.pb-c.h"

enum { FAKE_FRAMES_MAX = 16384, FAKE_CLIENTS_MAX = 20 };

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
    assert_true(error->has_outcome); /* without one a write is unknown */
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

static inline void assert_written(const struct fake_client *client, uint32_t at, uint64_t id, uint64_t revision) {
    Wire__WriteReply *reply = fake_message(client, at, FRAME_WRITE_REPLY, &wire__write_reply__descriptor);
    assert_int_equal(client->frames[at].request_id, id);
    assert_int_equal(reply->revision, revision);
    protobuf_c_message_free_unpacked(&reply->base, NULL);
}

static inline void assert_seen(struct fixture *fixture, const char *text) {
    struct slice seen = buf_slice(&fixture->consensus.seen);
    if (!slice_equal(seen, slice_of_string(text))) {
        print_error("seen: %.*s\n", (int)seen.len, (const char *)seen.data);
    }
    assert_true(slice_equal(seen, slice_of_string(text)));
}

#endif
