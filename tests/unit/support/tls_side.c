/* Certificates and recording sides for tests of TLS: see tls_side.h. */
#include "tests/unit/support/tls_side.h"

#include "node/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SIDE_ROOM_BYTES = 20000, COMMAND_BYTES = 4096 };

/* ---- Certificates -------------------------------------------------------------------------------------------- */

char *certificates_make(void) {
    const char *base = getenv("TMPDIR");
    char name[256];
    (void)snprintf(name, sizeof name, "%s/holdfast-tls.XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(name) == NULL) {
        return NULL;
    }
    char command[COMMAND_BYTES];
    (void)snprintf(
        command, sizeof command,
        "c=deploy/certificates; d='%s'; $c ca $d && $c make $d n1 && $c make $d n2 && $c make $d reader 10 --client && "
        "$c make $d expired --from 20200101000000Z --until 20210101000000Z && "
        "$c make $d future --from 20990101000000Z --until 21000101000000Z && "
        "$c ca $d/other && $c make $d/other stranger",
        name);
    char *dir = strdup(name);
    if (system(command) != 0) {
        certificates_remove(dir);
        return NULL;
    }
    return dir;
}

void certificates_remove(char *dir) {
    if (dir != NULL) {
        char command[COMMAND_BYTES];
        (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
        CHECK(system(command) == 0);
        free(dir);
    }
}

const char *certificates_path(const char *dir, const char *name) {
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* ---- One side ------------------------------------------------------------------------------------------------ */

static struct tls_side *of_handler(struct env_stream_handler *handler) {
    return CONTAINER_OF(handler, struct tls_side, handler);
}

static void tell(struct tls_side *side) {
    if (side->on_event != NULL) {
        side->on_event(side);
    }
}

static void side_opened(struct env_stream_handler *handler) {
    struct tls_side *side = of_handler(handler);
    CHECK(side->closed == 0);
    side->opened++;
    side->peer = *env_stream_peer(side->stream);
    if (side->say_on_opened != NULL) {
        tls_side_write(side, side->say_on_opened, strlen(side->say_on_opened));
    }
    if (side->finish_on_opened) {
        env_stream_finish(side->stream);
    }
    tell(side);
}

static void side_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    struct tls_side *side = of_handler(handler);
    CHECK(side->opened == 1 && side->closed == 0);
    side->rooms_refused += side->room_bytes == 0;
    *ret_data = side->room;
    *ret_len = side->room_bytes;
}

static void side_received(struct env_stream_handler *handler, size_t len) {
    struct tls_side *side = of_handler(handler);
    CHECK(side->closed == 0 && len > 0 && len <= SIDE_ROOM_BYTES);
    side->received++;
    CHECK(buf_append(&side->got, side->room, len) == STATUS_OK);
    if (side->close_on_received) {
        env_stream_close(side->stream);
    }
    tell(side);
}

static void side_drained(struct env_stream_handler *handler) {
    struct tls_side *side = of_handler(handler);
    CHECK(side->closed == 0);
    side->drained++;
    tell(side);
}

static void side_closed(struct env_stream_handler *handler, const struct error *err) {
    struct tls_side *side = of_handler(handler);
    CHECK(side->closed == 0);
    side->closed++;
    side->error = *err;
    /* Late calls do no harm. */
    CHECK(env_stream_write(side->stream, &(struct slice){(const uint8_t *)"x", 1}, 1) == STATUS_CLOSED);
    env_stream_resume(side->stream);
    env_stream_finish(side->stream);
    env_stream_close(side->stream);
    side->stream = NULL;
}

void tls_side_init(struct tls_side *side) {
    *side = (struct tls_side){.handler = {side_opened, side_room, side_received, side_drained, side_closed}};
    buf_init(&side->got, alloc_system(), 0);
    side->room = malloc(SIDE_ROOM_BYTES);
    CHECK(side->room != NULL);
    side->room_bytes = SIDE_ROOM_BYTES;
}

void tls_side_deinit(struct tls_side *side) {
    CHECK(side->stream == NULL);
    buf_deinit(&side->got);
    free(side->room);
}

void tls_side_write(struct tls_side *side, const void *data, size_t len) {
    struct slice part = slice_of(data, len);
    enum status status = env_stream_write(side->stream, &part, 1);
    CHECK(status == STATUS_OK || status == STATUS_NO_MEMORY);
}

/* ---- Two sides ----------------------------------------------------------------------------------------------- */

static void note_rejected(void *context, const char *address, const struct error *err) {
    struct tls_pair *pair = context;
    pair->rejected++;
    (void)snprintf(pair->rejected_address, sizeof pair->rejected_address, "%s", address);
    pair->rejected_error = *err;
}

static struct env_stream_handler *accept_side(void *context, struct env_stream *stream) {
    struct tls_pair *pair = context;
    pair->accepted++;
    if (pair->server.stream != NULL) {
        return NULL;
    }
    pair->server.opened = pair->server.closed = 0;
    pair->server.stream = stream;
    return &pair->server.handler;
}

struct tls_context *tls_pair_context(struct tls_pair *pair, const char *dir, const char *name,
                                     const uint8_t (*expected)[ENV_THUMBPRINT_BYTES], uint32_t expected_count) {
    char cert[600];
    char key[600];
    char ca[600];
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", dir);
    if (name != NULL) {
        (void)snprintf(cert, sizeof cert, "%s/%s.crt", dir, name);
        (void)snprintf(key, sizeof key, "%s/%s.key", dir, name);
    }
    struct tls_options options = {
        .ca_file = ca,
        .cert_file = name != NULL ? cert : NULL,
        .key_file = name != NULL ? key : NULL,
        .handshake_timeout_us = 5 * 1000 * 1000,
        .handshakes_per_turn = 4,
        .expected_count = expected_count,
        .expected = expected,
        .context = pair,
        .rejected = note_rejected,
    };
    struct tls_context *context = NULL;
    struct error err;
    if (tls_context_new(&pair->world.env, &pair->world.transport, &options, &context, &err) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        CHECK(false);
    }
    return context;
}

void tls_pair_init(struct tls_pair *pair, const char *dir, const char *server, const char *client, uint64_t seed) {
    memset(pair, 0, sizeof *pair);
    memory_world_init(&pair->world, seed);
    pair->world.wall_ms = (int64_t)time(NULL) * 1000;
    tls_side_init(&pair->server);
    tls_side_init(&pair->client);
    pair->server_context = tls_pair_context(pair, dir, server, NULL, 0);
    pair->client_context = tls_pair_context(pair, dir, client, NULL, 0);
    tls_pair_listen(pair);
}

void tls_pair_listen(struct tls_pair *pair) {
    enum status status = env_listen(tls_context_transport(pair->server_context), &pair->world.loop, "there",
                                    accept_side, pair, &pair->listener, NULL);
    CHECK(status == STATUS_OK);
}

/* A server's end without TLS. */
struct raw_end {
    struct env_stream_handler handler;
    struct env_stream *stream;
    struct slice answer;
    uint8_t room[1024];
};

static struct raw_end *of_raw(struct env_stream_handler *handler) {
    return CONTAINER_OF(handler, struct raw_end, handler);
}

static void raw_opened(struct env_stream_handler *handler) { (void)handler; }
static void raw_drained(struct env_stream_handler *handler) { (void)handler; }

static void raw_room(struct env_stream_handler *handler, uint8_t **ret_data, size_t *ret_len) {
    *ret_data = of_raw(handler)->room;
    *ret_len = sizeof of_raw(handler)->room;
}

static void raw_received(struct env_stream_handler *handler, size_t len) {
    (void)len;
    struct raw_end *raw = of_raw(handler);
    if (raw->answer.len > 0) {
        CHECK(env_stream_write(raw->stream, &raw->answer, 1) == STATUS_OK);
        env_stream_finish(raw->stream);
    }
}

static void raw_closed(struct env_stream_handler *handler, const struct error *err) {
    (void)err;
    free(of_raw(handler));
}

static struct env_stream_handler *accept_raw(void *context, struct env_stream *stream) {
    struct tls_pair *pair = context;
    struct raw_end *raw = calloc(1, sizeof *raw);
    CHECK(raw != NULL);
    raw->handler = (struct env_stream_handler){raw_opened, raw_room, raw_received, raw_drained, raw_closed};
    raw->stream = stream;
    raw->answer = pair->raw_answer;
    return &raw->handler;
}

void tls_pair_listen_raw(struct tls_pair *pair, const uint8_t *answer, size_t answer_len) {
    pair->raw_answer = slice_of(answer, answer_len);
    enum status status =
        env_listen(&pair->world.transport, &pair->world.loop, "there", accept_raw, pair, &pair->listener, NULL);
    CHECK(status == STATUS_OK);
}

void tls_pair_deinit(struct tls_pair *pair) {
    struct tls_side *sides[] = {&pair->server, &pair->client};
    for (size_t i = 0; i < 2; i++) {
        if (sides[i]->stream != NULL) {
            env_stream_close(sides[i]->stream);
        }
    }
    memory_world_run(&pair->world);
    tls_side_deinit(&pair->server);
    tls_side_deinit(&pair->client);
    env_listener_close(pair->listener);
    tls_context_free(pair->server_context);
    tls_context_free(pair->client_context);
    memory_world_deinit(&pair->world);
}

void tls_pair_connect(struct tls_pair *pair) {
    pair->client.opened = pair->client.closed = 0;
    enum status status = env_connect(tls_context_transport(pair->client_context), &pair->world.loop, "there",
                                     &pair->client.handler, &pair->client.stream, NULL);
    CHECK(status == STATUS_OK);
}
