/*
 * Connections over TLS over real TCP, in the production environment: the layers fit together outside the tests' own
 * world.
 *
 * Breaks when: frames don't get through sockets, a refusal frame is lost to a reset, something that isn't TLS 1.3 gets
 * no alert on a real socket, or an end isn't reported.
 */
#include "node/base/buf.h"
#include "node/base/check.h"
#include "node/env/os/env_os.h"
#include "proto/connection.h"
#include "proto/tls/tls.h"
#include "proto/wire.pb-c.h"
#include "tests/unit/tls_fixture.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROUNDS = 200, IN_FLIGHT = 16, RAW_BYTES_MAX = 100 * 1000, GIVE_UP_US = 20 * 1000 * 1000 };

struct end {
    struct connection_handler handler;
    struct connection *connection;
    struct net *net;
    unsigned opened;
    unsigned frames;
    unsigned closed;
    uint8_t last_type;
    struct error error;
    char refusal[200];
};

struct net {
    struct env *env;
    struct env_loop *loop;
    struct tls_context *server_context;
    struct tls_context *client_context;
    struct env_listener *listener;
    struct env_timer give_up;
    struct end server;
    struct end client;
    unsigned rejected;
    unsigned sent;
    bool plain_done;
};

static uint8_t raw_bytes[RAW_BYTES_MAX];

static void on_give_up(struct env_timer *timer) {
    bool took_too_long = timer != NULL;
    CHECK(!took_too_long);
}

static void stop_when_both_closed(struct net *net) {
    if (net->server.closed > 0 && net->client.closed > 0) {
        env_loop_stop(net->loop);
    }
}

static void end_closed(struct connection_handler *handler, const struct error *err) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    end->closed++;
    end->error = *err;
    end->connection = NULL;
    stop_when_both_closed(end->net);
}

static void end_drained(struct connection_handler *handler) { (void)handler; }

/* ---- The server: greets or refuses, then echoes -------------------------------------------------------------- */

static void server_opened(struct connection_handler *handler) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    end->opened++;
    if (connection_peer(end->connection)->certificate == ENV_CERTIFICATE_VALID) {
        assert_int_equal(connection_send(end->connection, FRAME_GREETING, 0, NULL, NULL, 0), STATUS_OK);
        return;
    }
    Wire__Refusal refusal = WIRE__REFUSAL__INIT;
    refusal.has_code = true;
    refusal.code = WIRE_NO_CERTIFICATE;
    refusal.message = (char *)"show a certificate";
    assert_int_equal(connection_send(end->connection, FRAME_REFUSAL, 0, &refusal.base, NULL, 0), STATUS_OK);
    connection_finish(end->connection);
}

static void server_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    end->frames++;
    assert_int_equal(connection_send(end->connection, FRAME_GET_REPLY, frame->request_id, NULL, &frame->raw, 1),
                     STATUS_OK);
}

static struct env_stream_handler *accept_end(void *context, struct env_stream *stream) {
    struct net *net = context;
    struct connection_limits limits = {LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES};
    net->server.handler = (struct connection_handler){server_opened, server_frame, end_drained, end_closed};
    assert_int_equal(connection_new(net->loop, &limits, &net->server.handler, &net->server.connection), STATUS_OK);
    connection_attach(net->server.connection, stream);
    return connection_stream_handler(net->server.connection);
}

static void note_rejected(void *context, const char *address, const struct error *err) {
    struct net *net = context;
    net->rejected++;
    assert_true(strncmp(address, "127.0.0.1:", 10) == 0);
    assert_non_null(strstr(err->message, "TLS"));
}

/* ---- The client: keeps some requests in flight --------------------------------------------------------------- */

static void client_send(struct net *net) {
    uint32_t len = net->sent % 10 == 0 ? RAW_BYTES_MAX : net->sent % 300;
    struct slice raw = slice_of(raw_bytes, len);
    assert_int_equal(connection_send(net->client.connection, FRAME_GET, net->sent, NULL, &raw, 1), STATUS_OK);
    net->sent++;
}

static void client_opened(struct connection_handler *handler) { CONTAINER_OF(handler, struct end, handler)->opened++; }

static void client_frame(struct connection_handler *handler, const struct connection_frame *frame) {
    struct end *end = CONTAINER_OF(handler, struct end, handler);
    struct net *net = end->net;
    end->last_type = frame->type;
    if (frame->type == FRAME_GREETING) {
        while (net->sent < IN_FLIGHT) {
            client_send(net);
        }
    } else if (frame->type == FRAME_REFUSAL) {
        struct arena arena;
        arena_init(&arena, alloc_system(), 1024, LIMIT_UNPACK_BUDGET_BYTES);
        ProtobufCMessage *message = wire_unpack(&arena, &wire__refusal__descriptor, frame->message);
        assert_non_null(message);
        (void)snprintf(end->refusal, sizeof end->refusal, "%s",
                       ((const Wire__Refusal *)(const void *)message)->message);
        arena_deinit(&arena);
    } else {
        assert_int_equal(frame->type, FRAME_GET_REPLY);
        assert_int_equal(frame->request_id, end->frames);
        assert_int_equal(frame->raw.len, end->frames % 10 == 0 ? RAW_BYTES_MAX : end->frames % 300);
        assert_true(frame->raw.len == 0 || memcmp(frame->raw.data, raw_bytes, frame->raw.len) == 0);
        end->frames++;
        if (net->sent < ROUNDS) {
            client_send(net);
        } else if (end->frames == ROUNDS) {
            connection_finish(end->connection);
        }
    }
}

static struct tls_context *context_of(struct net *net, const char *name) {
    char ca[600];
    char cert[600];
    char key[600];
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", dir);
    (void)snprintf(cert, sizeof cert, "%s/%s.crt", dir, name != NULL ? name : "");
    (void)snprintf(key, sizeof key, "%s/%s.key", dir, name != NULL ? name : "");
    struct tls_options options = {.ca_file = ca,
                                  .cert_file = name != NULL ? cert : NULL,
                                  .key_file = name != NULL ? key : NULL,
                                  .handshake_timeout_us = 5 * 1000 * 1000,
                                  .handshakes_per_turn = 4,
                                  .context = net,
                                  .rejected = note_rejected};
    struct tls_context *context = NULL;
    struct error err;
    if (tls_context_new(net->env, env_os_tcp(net->env), &options, &context, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return context;
}

static void net_init(struct net *net, const char *client) {
    memset(net, 0, sizeof *net);
    struct env_os_options options = {.workers_short = 1, .workers_long = 1};
    assert_int_equal(env_os_new(&options, &net->env, NULL), STATUS_OK);
    net->server_context = context_of(net, "n1");
    net->client_context = context_of(net, client);
    assert_int_equal(env_loop_new(net->env, "test", 16, &net->loop, NULL), STATUS_OK);
    env_timer_init(&net->give_up, net->loop, on_give_up);
    assert_int_equal(env_timer_arm(&net->give_up, env_now_us(net->loop) + GIVE_UP_US), STATUS_OK);
    assert_int_equal(env_listen(tls_context_transport(net->server_context), net->loop, "127.0.0.1:0", accept_end, net,
                                &net->listener, NULL),
                     STATUS_OK);
    net->server.net = net->client.net = net;
}

static void net_run(struct net *net) {
    env_loop_run(net->loop);
    env_timer_cancel(&net->give_up);
    env_listener_close(net->listener);
    env_loop_free(net->loop);
    tls_context_free(net->server_context);
    tls_context_free(net->client_context);
    env_os_free(net->env);
}

static void connect_client(struct net *net) {
    struct connection_limits limits = {LIMIT_FRAME_MESSAGE_BYTES, LIMIT_FRAME_RAW_BYTES};
    net->client.handler = (struct connection_handler){client_opened, client_frame, end_drained, end_closed};
    assert_int_equal(connection_new(net->loop, &limits, &net->client.handler, &net->client.connection), STATUS_OK);
    struct env_stream *stream;
    assert_int_equal(env_connect(tls_context_transport(net->client_context), net->loop,
                                 env_listener_address(net->listener), connection_stream_handler(net->client.connection),
                                 &stream, NULL),
                     STATUS_OK);
    connection_attach(net->client.connection, stream);
}

static void test_tls_tcp_requests_in_flight_are_all_answered(void **state) {
    (void)state;
    struct net net;
    net_init(&net, "n2");
    for (size_t i = 0; i < sizeof raw_bytes; i++) {
        raw_bytes[i] = (uint8_t)(i * 31 + (i >> 8));
    }
    connect_client(&net);
    net_run(&net);
    assert_int_equal(net.client.frames, ROUNDS);
    assert_int_equal(net.server.frames, ROUNDS);
    assert_int_equal(net.client.error.code, STATUS_OK);
    assert_int_equal(net.server.error.code, STATUS_OK);
    assert_int_equal(net.rejected, 0);
}

static void test_h60_tls_tcp_refusal_reaches_a_client_without_certificate(void **state) {
    (void)state;
    struct net net;
    net_init(&net, NULL);
    connect_client(&net);
    net_run(&net);
    assert_int_equal(net.server.opened, 1);
    assert_int_equal(net.client.opened, 1);
    assert_int_equal(net.client.last_type, FRAME_REFUSAL);
    assert_string_equal(net.client.refusal, "show a certificate");
    assert_int_equal(net.client.error.code, STATUS_OK);
    assert_int_equal(net.server.error.code, STATUS_OK);
}

/* A worker plays a client of plain text, with blocking calls. */
struct plain_client {
    struct env_work work;
    struct net *net;
    uint16_t port;
    uint8_t got[100];
    size_t got_len;
};

static void plain_talk(struct env_work *work) {
    struct plain_client *plain = CONTAINER_OF(work, struct plain_client, work);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(plain->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: n1\r\n\r\n";
    CHECK(send(fd, request, sizeof request - 1, 0) == (ssize_t)sizeof request - 1);
    ssize_t got;
    while ((got = recv(fd, plain->got + plain->got_len, sizeof plain->got - plain->got_len, 0)) > 0) {
        plain->got_len += (size_t)got;
    }
    CHECK(got == 0); /* an end, not a reset */
    (void)close(fd);
}

static void plain_done(struct env_work *work) {
    struct plain_client *plain = CONTAINER_OF(work, struct plain_client, work);
    plain->net->client.closed = 1;
    stop_when_both_closed(plain->net);
}

static void test_tls_tcp_plain_text_gets_an_alert_before_the_end(void **state) {
    (void)state;
    struct net net;
    net_init(&net, NULL);
    struct plain_client plain = {.net = &net};
    plain.work = (struct env_work){.run = plain_talk, .done = plain_done, .loop = net.loop};
    plain.port = (uint16_t)strtoul(strrchr(env_listener_address(net.listener), ':') + 1, NULL, 10);
    env_work_submit(net.env, ENV_WORK_SHORT, &plain.work);
    net_run(&net);
    static const uint8_t alert[] = {21, 3, 3, 0, 2, 2, 70};
    assert_int_equal(plain.got_len, sizeof alert);
    assert_memory_equal(plain.got, alert, sizeof alert);
    assert_int_equal(net.rejected, 1);
    assert_int_equal(net.server.opened, 0);
    assert_int_equal(net.server.error.code, STATUS_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls_tcp_requests_in_flight_are_all_answered),
        cmocka_unit_test(test_h60_tls_tcp_refusal_reaches_a_client_without_certificate),
        cmocka_unit_test(test_tls_tcp_plain_text_gets_an_alert_before_the_end),
    };
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
