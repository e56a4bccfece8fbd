/*
 * Breaks when: a certificate of any kind ends the handshake instead of being shown to the server's owner, or is judged
 * wrongly, on any connection, first or repeated; a refused client can't read why; a client accepts a server that it
 * shouldn't; what isn't TLS 1.3 gets no alert or isn't reported; a peer that dawdles or floods during the handshake
 * isn't cut off, or keeps others from theirs.
 */
#include "tests/unit/support/tls_raw.h"
#include "tests/unit/tls_fixture.h"

static const char refusal[] = "refused: and here is why";

/* ---- Certificates of clients --------------------------------------------------------------------------------- */

static void check_client_certificate(const char *client, enum env_certificate_state expected, const char *subject) {
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    tls_context_free(pair.client_context);
    /* A stranger trusts the server's CA, but is signed by another one. */
    char ca[600];
    char cert[600];
    char key[600];
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", dir);
    (void)snprintf(cert, sizeof cert, "%s/%s.crt", dir, client != NULL ? client : "");
    (void)snprintf(key, sizeof key, "%s/%s.key", dir, client != NULL ? client : "");
    struct tls_options options = {.ca_file = ca,
                                  .cert_file = client != NULL ? cert : NULL,
                                  .key_file = client != NULL ? key : NULL,
                                  .handshake_timeout_us = 1000000,
                                  .handshakes_per_turn = 1};
    assert_int_equal(tls_context_new(&pair.world.env, &pair.world.transport, &options, &pair.client_context, NULL),
                     STATUS_OK);
    if (expected != ENV_CERTIFICATE_VALID) {
        pair.server.say_on_opened = refusal;
        pair.server.finish_on_opened = true;
    }
    for (int round = 1; round <= 2; round++) { /* a repeated connection is judged like the first */
        buf_clear(&pair.client.got);
        tls_pair_connect(&pair);
        memory_world_run(&pair.world);
        assert_int_equal(pair.server.opened, 1);
        assert_int_equal(pair.server.peer.certificate, expected);
        assert_string_equal(pair.server.peer.subject, subject);
        uint8_t thumbprint[ENV_THUMBPRINT_BYTES] = {0};
        if (client != NULL) {
            assert_int_equal(tls_thumbprint_of_file(&pair.world.env, cert, thumbprint, NULL), STATUS_OK);
        }
        assert_memory_equal(pair.server.peer.thumbprint, thumbprint, sizeof thumbprint);
        assert_int_equal(pair.client.opened, 1);
        assert_int_equal(pair.client.peer.certificate, ENV_CERTIFICATE_VALID);
        assert_string_equal(pair.client.peer.subject, "n1");
        if (expected == ENV_CERTIFICATE_VALID) {
            env_stream_finish(pair.client.stream);
            memory_world_run(&pair.world);
        } else {
            assert_true(slice_equal(buf_slice(&pair.client.got), slice_of_string(refusal)));
        }
        assert_int_equal(pair.client.closed, 1);
        assert_int_equal(pair.client.error.code, STATUS_OK);
        assert_int_equal(pair.server.closed, 1);
        assert_int_equal(pair.server.error.code, STATUS_OK);
    }
    assert_int_equal(pair.rejected, 0);
    tls_pair_deinit(&pair);
}

static void test_tls_client_with_good_certificate_is_known(void **state) {
    (void)state;
    check_client_certificate("n2", ENV_CERTIFICATE_VALID, "n2");
    check_client_certificate("reader", ENV_CERTIFICATE_VALID, "reader");
}

static void test_h60_tls_client_without_certificate_reads_its_refusal(void **state) {
    (void)state;
    check_client_certificate(NULL, ENV_CERTIFICATE_NONE, "");
}

static void test_h60_tls_client_of_another_ca_reads_its_refusal(void **state) {
    (void)state;
    check_client_certificate("other/stranger", ENV_CERTIFICATE_UNTRUSTED, "stranger");
}

static void test_h60_tls_client_with_expired_certificate_reads_its_refusal(void **state) {
    (void)state;
    check_client_certificate("expired", ENV_CERTIFICATE_EXPIRED, "expired");
}

static void test_h60_tls_client_with_certificate_of_the_future_reads_its_refusal(void **state) {
    (void)state;
    check_client_certificate("future", ENV_CERTIFICATE_NOT_YET_VALID, "future");
}

static void test_tls_dates_follow_the_env_clock(void **state) {
    (void)state;
    static const struct {
        int64_t wall_ms;
        enum env_certificate_state expected;
    } cases[] = {
        {INT64_C(1577836799000), ENV_CERTIFICATE_NOT_YET_VALID}, /* 2019-12-31T23:59:59Z */
        {INT64_C(1577836801000), ENV_CERTIFICATE_NOT_YET_VALID}, /* it has begun, its CA has not */
        {INT64_C(4102444799000), ENV_CERTIFICATE_EXPIRED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tls_pair pair;
        tls_pair_init(&pair, dir, "n1", "expired", 1);
        tls_pair_connect(&pair);
        memory_world_run(&pair.world);
        assert_int_equal(pair.server.peer.certificate, ENV_CERTIFICATE_EXPIRED);
        env_stream_close(pair.client.stream);
        memory_world_run(&pair.world);
        pair.world.wall_ms = cases[i].wall_ms;
        tls_pair_connect(&pair);
        memory_world_run(&pair.world);
        assert_int_equal(pair.server.peer.certificate, cases[i].expected);
        tls_pair_deinit(&pair);
    }
}

/* ---- Certificates of servers --------------------------------------------------------------------------------- */

static void check_server_refused(const char *server_dir, const char *server, const char *says) {
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", "n2", 1);
    struct tls_context *context = tls_pair_context(&pair, server_dir, server, NULL, 0);
    struct env_listener *listener = pair.listener;
    env_listener_close(listener);
    tls_context_free(pair.server_context);
    pair.server_context = context;
    /* The pair's own way to listen, on the other context. */
    pair.server.say_on_opened = "secret";
    struct tls_raw probe; /* nobody listens yet */
    tls_raw_init(&probe, &pair.world, 0);
    memory_world_run(&pair.world);
    assert_int_equal(probe.error.code, STATUS_IO);
    tls_raw_deinit(&probe);
    tls_pair_listen(&pair);
    tls_pair_connect(&pair);
    memory_world_run(&pair.world);
    assert_int_equal(pair.client.opened, 0);
    assert_int_equal(pair.client.closed, 1);
    assert_int_equal(pair.client.error.code, STATUS_DENIED);
    assert_non_null(strstr(pair.client.error.message, says));
    assert_int_equal(pair.client.got.len, 0);
    tls_pair_deinit(&pair);
}

static void test_tls_server_that_is_expired_is_refused(void **state) {
    (void)state;
    check_server_refused(dir, "expired", "it has expired");
}

static void test_tls_server_of_the_future_is_refused(void **state) {
    (void)state;
    check_server_refused(dir, "future", "not valid yet");
}

static void test_tls_server_of_another_ca_is_refused(void **state) {
    (void)state;
    check_server_refused(certificates_path(dir, "other"), "stranger", "unable to get local issuer certificate");
}

static void test_tls_server_with_a_clients_certificate_is_refused(void **state) {
    (void)state;
    check_server_refused(dir, "reader", "unsuitable certificate purpose");
}

static void test_tls_server_must_be_one_of_the_expected(void **state) {
    (void)state;
    for (int fits = 0; fits <= 1; fits++) {
        struct tls_pair pair;
        tls_pair_init(&pair, dir, "n1", NULL, 1);
        uint8_t expected[2][ENV_THUMBPRINT_BYTES];
        uint8_t actual[ENV_THUMBPRINT_BYTES];
        thumbprint_of(&pair, "n1.crt", actual);
        thumbprint_of(&pair, "n2.crt", expected[0]);
        thumbprint_of(&pair, fits ? "n1.crt" : "reader.crt", expected[1]);
        tls_context_free(pair.client_context);
        pair.client_context = tls_pair_context(&pair, dir, "n2", (const uint8_t(*)[ENV_THUMBPRINT_BYTES])expected, 2);
        tls_pair_connect(&pair);
        memory_world_run(&pair.world);
        assert_int_equal(pair.client.opened, fits);
        if (!fits) {
            assert_int_equal(pair.client.error.code, STATUS_DENIED);
            char text[2 * ENV_THUMBPRINT_BYTES + 1];
            for (size_t i = 0; i < sizeof actual; i++) {
                (void)snprintf(text + 2 * i, 3, "%02x", actual[i]);
            }
            assert_non_null(strstr(pair.client.error.message, text));
            assert_non_null(strstr(pair.client.error.message, "is not one of the expected"));
            assert_int_equal(pair.server.opened, 1); /* it heard no reason to be afraid */
            assert_int_equal(pair.server.error.code, STATUS_OK);
        }
        tls_pair_deinit(&pair);
    }
}

/* ---- What isn't TLS 1.3 -------------------------------------------------------------------------------------- */

static const uint8_t alert_protocol_version[] = {21, 3, 3, 0, 2, 2, 70};

static void check_plain(const char *bytes, size_t len, bool must_alert, const char *says) {
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    struct tls_raw raw;
    tls_raw_init(&raw, &pair.world, 0);
    memory_world_run(&pair.world);
    tls_raw_send(&raw, bytes, len);
    memory_world_run(&pair.world);
    assert_int_equal(raw.closed, 1);
    assert_int_equal(pair.server.opened, 0);
    assert_int_equal(pair.server.closed, 1);
    assert_int_not_equal(pair.server.error.code, STATUS_OK);
    assert_int_equal(pair.rejected, 1);
    assert_true(strncmp(pair.rejected_address, "memory:", 7) == 0);
    assert_non_null(strstr(pair.rejected_error.message, says));
    if (must_alert) {
        assert_int_equal(raw.got.len, sizeof alert_protocol_version);
        assert_memory_equal(raw.got.data, alert_protocol_version, sizeof alert_protocol_version);
    }
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

static void test_tls_plain_text_gets_an_alert_and_is_reported(void **state) {
    (void)state;
    check_plain("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, true, "speaks HTTP");
    check_plain("set key value\r\n", 15, true, "doesn't speak TLS");
    char zeros[1000] = {0};
    check_plain(zeros, sizeof zeros, true, "doesn't speak TLS");
    char ones[1000];
    memset(ones, 0xff, sizeof ones);
    check_plain(ones, sizeof ones, true, "doesn't speak TLS");
}

static void test_tls_malformed_handshakes_are_reported(void **state) {
    (void)state;
    check_plain("\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9, false, "TLS handshake with memory:");
    check_plain("\x16\x03\x01\xff\xff\x01\x00\x00\x00", 9, false, "TLS handshake with memory:");
    check_plain("\x17\x03\x03\x00\x04"
                "abcd",
                9, false, "TLS handshake with memory:");
}

static void test_tls_1_2_client_gets_an_alert_and_is_reported(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    struct tls_raw raw;
    tls_raw_init(&raw, &pair.world, TLS1_2_VERSION);
    memory_world_run(&pair.world);
    assert_false(raw.shaken);
    assert_int_equal(raw.ssl_reason, SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
    assert_int_equal(raw.closed, 1);
    assert_int_equal(pair.rejected, 1);
    assert_int_equal(pair.rejected_error.code, STATUS_UNSUPPORTED);
    assert_non_null(strstr(pair.rejected_error.message, "offers no TLS 1.3"));
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

enum { ALERTED = 9 };

static void test_tls_client_learns_from_an_alert_why_it_was_cut(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    env_listener_close(pair.listener);
    /* A server of plain bytes, which answers with an alert and goes. */
    static const uint8_t handshake_failure[] = {21, 3, 3, 0, 2, 2, 40};
    tls_pair_listen_raw(&pair, handshake_failure, sizeof handshake_failure);
    /* More than get their turn before the end of their streams arrives. */
    struct tls_side more[ALERTED];
    for (int i = 0; i < ALERTED; i++) {
        tls_side_init(&more[i]);
        assert_int_equal(env_connect(tls_context_transport(pair.client_context), &pair.world.loop, "there",
                                     &more[i].handler, &more[i].stream, NULL),
                         STATUS_OK);
    }
    memory_world_run(&pair.world);
    for (int i = 0; i < ALERTED; i++) {
        assert_int_equal(more[i].closed, 1);
        assert_int_equal(more[i].opened, 0);
        assert_non_null(strstr(more[i].error.message, "the peer gave up"));
        assert_non_null(strstr(more[i].error.message, "handshake failure"));
        tls_side_deinit(&more[i]);
    }
    tls_pair_deinit(&pair);
}

static void test_tls_sessions_are_never_resumed(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    struct tls_raw raw;
    tls_raw_init(&raw, &pair.world, TLS1_3_VERSION);
    memory_world_run(&pair.world);
    assert_true(raw.shaken);
    assert_int_equal(pair.server.opened, 1);
    tls_side_write(&pair.server, "hello", 5);
    memory_world_run(&pair.world);
    assert_int_equal(raw.got.len, 5);
    assert_int_equal(SSL_SESSION_is_resumable(SSL_get0_session(raw.ssl)), 0);
    env_stream_close(raw.stream);
    memory_world_run(&pair.world);
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

/* ---- Slow and endless handshakes ----------------------------------------------------------------------------- */

static void test_h56_tls_handshake_of_single_bytes_completes(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", "n2", 1);
    pair.world.segment_bytes_max = 1;
    pair.server.say_on_opened = "hello";
    tls_pair_connect(&pair);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.opened, 1);
    assert_int_equal(pair.client.opened, 1);
    assert_int_equal(pair.client.got.len, 5);
    tls_pair_deinit(&pair);
}

static void test_h56_tls_half_open_handshake_times_out_on_the_server(void **state) {
    (void)state;
    for (size_t sent = 0; sent <= 100; sent += 50) {
        struct tls_pair pair;
        tls_pair_init(&pair, dir, "n1", NULL, 1);
        struct tls_raw raw;
        tls_raw_init(&raw, &pair.world, 0);
        memory_world_run(&pair.world);
        static const uint8_t hello_start[100] = {0x16, 3, 1, 0x02, 0, 1, 0, 1, 0xfc, 3, 3};
        if (sent > 0) {
            tls_raw_send(&raw, hello_start, sent);
        }
        memory_world_advance(&pair.world, 4900 * 1000);
        assert_int_equal(pair.server.closed, 0);
        memory_world_advance(&pair.world, 200 * 1000);
        assert_int_equal(pair.server.closed, 1);
        assert_int_equal(pair.server.error.code, STATUS_TIMEOUT);
        assert_int_equal(raw.closed, 1);
        assert_int_equal(pair.rejected, 1);
        assert_non_null(strstr(pair.rejected_error.message, "within 5000 ms"));
        tls_raw_deinit(&raw);
        tls_pair_deinit(&pair);
    }
}

static void test_h58_tls_silent_server_times_out_on_the_client(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    env_listener_close(pair.listener);
    tls_pair_listen_raw(&pair, NULL, 0);
    tls_pair_connect(&pair);
    memory_world_run(&pair.world);
    assert_int_equal(pair.client.closed, 0);
    memory_world_advance(&pair.world, 5 * 1000 * 1000);
    assert_int_equal(pair.client.closed, 1);
    assert_int_equal(pair.client.error.code, STATUS_TIMEOUT);
    tls_pair_deinit(&pair);
}

static void test_tls_open_stream_has_no_handshake_clock(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    tls_pair_connect(&pair);
    memory_world_run(&pair.world);
    memory_world_advance(&pair.world, UINT64_C(3600) * 1000 * 1000);
    assert_int_equal(pair.client.closed + pair.server.closed, 0);
    tls_pair_deinit(&pair);
}

static void test_h56_tls_endless_handshake_is_cut(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    pair.world.pipe_bytes_max = 1024;
    struct tls_raw raw;
    tls_raw_init(&raw, &pair.world, TLS1_3_VERSION);
    raw.deaf = true; /* so it never goes on after its hello */
    memory_world_run(&pair.world);
    /* Records that a server of TLS 1.3 ignores. */
    static const uint8_t change_cipher_spec[] = {20, 3, 3, 0, 1, 1};
    for (int i = 0; i < 50 * 1000 && raw.stream != NULL && pair.rejected == 0; i++) {
        tls_raw_send(&raw, change_cipher_spec, sizeof change_cipher_spec);
        if (i % 64 == 0) {
            memory_world_run(&pair.world);
        }
    }
    assert_int_equal(pair.rejected, 1);
    assert_int_equal(pair.server.opened, 0);
    if (raw.stream != NULL) {
        env_stream_close(raw.stream);
    }
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.closed, 1);
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

static void test_h56_tls_handshake_of_too_many_bytes_is_cut(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    struct tls_raw raw;
    tls_raw_init(&raw, &pair.world, 0);
    memory_world_run(&pair.world);
    /* A hello of 120,000 bytes, which OpenSSL would gather to its end, in records of 16 KiB. */
    uint8_t *record = calloc(1, 5 + 16384);
    assert_non_null(record);
    memcpy(record, "\x16\x03\x01\x40\x00\x01\x01\xd4\xc0\x03\x03", 11);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pair.rejected, i == 4);
        tls_raw_send(&raw, record, 5 + 16384);
        memory_world_run(&pair.world);
        memset(record + 5, 0, 6);
    }
    free(record);
    assert_int_equal(pair.rejected_error.code, STATUS_TOO_LARGE);
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(raw.closed, 1);
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

static void test_tls_peer_that_leaves_in_mid_handshake_is_reported(void **state) {
    (void)state;
    for (int reset = 0; reset <= 1; reset++) {
        struct tls_pair pair;
        tls_pair_init(&pair, dir, "n1", NULL, 1);
        struct tls_raw raw;
        tls_raw_init(&raw, &pair.world, TLS1_3_VERSION);
        raw.deaf = true;
        memory_world_run(&pair.world);
        if (reset) {
            memory_stream_reset(raw.stream);
        } else {
            env_stream_close(raw.stream);
        }
        memory_world_run(&pair.world);
        assert_int_equal(pair.server.closed, 1);
        assert_int_equal(pair.server.error.code, reset ? STATUS_IO : STATUS_CLOSED);
        assert_int_equal(pair.rejected, 1);
        tls_raw_deinit(&raw);
        tls_pair_deinit(&pair);
    }
}

static void test_tls_refused_connection_reports_the_error(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    env_listener_close(pair.listener);
    pair.listener = NULL;
    tls_pair_connect(&pair);
    memory_world_run(&pair.world);
    assert_int_equal(pair.client.closed, 1);
    assert_int_equal(pair.client.error.code, STATUS_IO);
    tls_pair_deinit(&pair);
}

enum { CROWD = 25 };

struct crowd {
    struct tls_pair pair;
    struct tls_side clients[CROWD];
    struct tls_side servers[CROWD];
    unsigned accepted;
    unsigned opened_this_turn;
    unsigned opened_total;
};

static struct crowd *the_crowd;

static void count_opened(struct tls_side *side) {
    (void)side;
    the_crowd->opened_this_turn++;
    the_crowd->opened_total++;
}

static struct env_stream_handler *accept_crowd(void *context, struct env_stream *stream) {
    struct crowd *crowd = context;
    struct tls_side *side = &crowd->servers[crowd->accepted++];
    tls_side_init(side);
    side->stream = stream;
    side->on_event = count_opened;
    return &side->handler;
}

static void test_h56_tls_handshakes_of_a_crowd_are_spread_over_turns(void **state) {
    (void)state;
    struct crowd *crowd = calloc(1, sizeof *crowd);
    assert_non_null(crowd);
    the_crowd = crowd;
    tls_pair_init(&crowd->pair, dir, "n1", NULL, 1);
    env_listener_close(crowd->pair.listener);
    struct env_transport *server = tls_context_transport(crowd->pair.server_context);
    struct env_loop *loop = &crowd->pair.world.loop;
    assert_int_equal(env_listen(server, loop, "there", accept_crowd, crowd, &crowd->pair.listener, NULL), STATUS_OK);
    for (int i = 0; i < CROWD; i++) {
        tls_side_init(&crowd->clients[i]);
        assert_int_equal(env_connect(tls_context_transport(crowd->pair.client_context), loop, "there",
                                     &crowd->clients[i].handler, &crowd->clients[i].stream, NULL),
                         STATUS_OK);
    }
    unsigned turns_with_opened = 0;
    bool progress = true;
    while (progress) {
        crowd->opened_this_turn = 0;
        progress = memory_world_turn(&crowd->pair.world);
        assert_true(crowd->opened_this_turn <= 4);
        turns_with_opened += crowd->opened_this_turn > 0;
    }
    assert_int_equal(crowd->opened_total, CROWD);
    assert_true(turns_with_opened >= CROWD / 4);
    for (int i = 0; i < CROWD; i++) {
        assert_int_equal(crowd->clients[i].opened, 1);
        crowd->servers[i].on_event = NULL;
        env_stream_finish(crowd->clients[i].stream);
    }
    memory_world_run(&crowd->pair.world);
    for (int i = 0; i < CROWD; i++) {
        tls_side_deinit(&crowd->clients[i]);
        tls_side_deinit(&crowd->servers[i]);
    }
    tls_pair_deinit(&crowd->pair);
    free(crowd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls_client_with_good_certificate_is_known),
        cmocka_unit_test(test_h60_tls_client_without_certificate_reads_its_refusal),
        cmocka_unit_test(test_h60_tls_client_of_another_ca_reads_its_refusal),
        cmocka_unit_test(test_h60_tls_client_with_expired_certificate_reads_its_refusal),
        cmocka_unit_test(test_h60_tls_client_with_certificate_of_the_future_reads_its_refusal),
        cmocka_unit_test(test_tls_dates_follow_the_env_clock),
        cmocka_unit_test(test_tls_server_that_is_expired_is_refused),
        cmocka_unit_test(test_tls_server_of_the_future_is_refused),
        cmocka_unit_test(test_tls_server_of_another_ca_is_refused),
        cmocka_unit_test(test_tls_server_with_a_clients_certificate_is_refused),
        cmocka_unit_test(test_tls_server_must_be_one_of_the_expected),
        cmocka_unit_test(test_tls_plain_text_gets_an_alert_and_is_reported),
        cmocka_unit_test(test_tls_malformed_handshakes_are_reported),
        cmocka_unit_test(test_tls_1_2_client_gets_an_alert_and_is_reported),
        cmocka_unit_test(test_tls_client_learns_from_an_alert_why_it_was_cut),
        cmocka_unit_test(test_tls_sessions_are_never_resumed),
        cmocka_unit_test(test_h56_tls_handshake_of_single_bytes_completes),
        cmocka_unit_test(test_h56_tls_half_open_handshake_times_out_on_the_server),
        cmocka_unit_test(test_h58_tls_silent_server_times_out_on_the_client),
        cmocka_unit_test(test_tls_open_stream_has_no_handshake_clock),
        cmocka_unit_test(test_h56_tls_endless_handshake_is_cut),
        cmocka_unit_test(test_h56_tls_handshake_of_too_many_bytes_is_cut),
        cmocka_unit_test(test_tls_peer_that_leaves_in_mid_handshake_is_reported),
        cmocka_unit_test(test_tls_refused_connection_reports_the_error),
        cmocka_unit_test(test_h56_tls_handshakes_of_a_crowd_are_spread_over_turns),
    };
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
