/*
 * Breaks when: a damaged record gets through; a peer makes OpenSSL talk without end, or wait for him in the middle of a
 * message, and the stream grows, stalls for ever or forgets its output.
 */
#include "tests/unit/support/tls_raw.h"
#include "tests/unit/tls_fixture.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>

/* ---- Damage and malice --------------------------------------------------------------------------------------- */

static void test_tls_damaged_record_ends_the_stream_as_corrupt(void **state) {
    (void)state;
    struct tls_pair pair;
    open_pair(&pair, 1);
    tls_side_write(&pair.client, "first", 5);
    memory_world_run(&pair.world);
    pair.world.flip_at = pair.world.sent_bytes + 15;
    tls_side_write(&pair.client, "second", 6);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.got.len, 5);
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(pair.server.error.code, STATUS_CORRUPT);
    assert_int_equal(pair.client.closed, 1);
    assert_non_null(strstr(pair.client.error.message, "the peer gave up")); /* it got the alert */
    assert_int_equal(pair.rejected, 0);
    assert_true(ERR_peek_error() == 0);
    tls_pair_deinit(&pair);
}

static void test_tls_key_updates_now_and_then_are_fine(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    struct tls_raw raw;
    tls_raw_init(&raw, &pair.world, TLS1_3_VERSION);
    memory_world_run(&pair.world);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(SSL_key_update(raw.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_write(raw.ssl, "ping", 4), 4);
        tls_raw_pump(&raw);
        memory_world_run(&pair.world);
        tls_side_write(&pair.server, "pong", 4);
        memory_world_run(&pair.world);
    }
    assert_int_equal(pair.server.got.len, 200);
    assert_int_equal(raw.got.len, 200);
    env_stream_close(raw.stream);
    memory_world_run(&pair.world);
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

static void test_h55_tls_key_updates_without_end_are_cut(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    struct tls_raw raw;
    tls_raw_init(&raw, &pair.world, TLS1_3_VERSION);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.opened, 1);
    for (int i = 0; i < 1000 && pair.server.closed == 0; i++) {
        assert_int_equal(SSL_key_update(raw.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(raw.ssl), 1);
        tls_raw_pump(&raw);
        memory_world_run(&pair.world);
    }
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(pair.server.error.code, STATUS_TOO_LARGE);
    assert_non_null(strstr(pair.server.error.message, "key updates without end"));
    if (raw.stream != NULL) {
        env_stream_close(raw.stream);
    }
    memory_world_run(&pair.world);
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

/* ---- A client that writes its own records -------------------------------------------------------------------- */

enum { SECRET_BYTES = 32, KEY_BYTES = 16, IV_BYTES = 12, TAG_BYTES = 16, RECORD_HEAD_BYTES = 5 };

static uint8_t client_secret[SECRET_BYTES];

static void take_client_secret(const SSL *ssl, const char *line) {
    (void)ssl;
    static const char name[] = "CLIENT_TRAFFIC_SECRET_0 ";
    if (strncmp(line, name, sizeof name - 1) != 0) {
        return;
    }
    const char *hex = strrchr(line, ' ') + 1;
    assert_int_equal(strlen(hex), 2 * SECRET_BYTES);
    for (size_t i = 0; i < SECRET_BYTES; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        client_secret[i] = (uint8_t)strtol(digits, NULL, 16);
    }
}

/* HKDF-Expand-Label of RFC 8446, 7.1, without context. */
static void expand_label(const char *label, uint8_t *out, size_t len) {
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "TLS13-KDF", NULL);
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(kdf);
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, client_secret, SECRET_BYTES),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, (char *)"tls13 ", 6),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (char *)label, strlen(label)),
        OSSL_PARAM_construct_end(),
    };
    assert_int_equal(EVP_KDF_derive(context, out, len, params), 1);
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
}

/* Sends one record of the application's keys, AES-128-GCM: number counts them from 0. */
static void send_record(struct tls_raw *raw, uint8_t number, uint8_t type, const void *data, size_t len) {
    uint8_t key[KEY_BYTES];
    uint8_t iv[IV_BYTES];
    expand_label("key", key, sizeof key);
    expand_label("iv", iv, sizeof iv);
    iv[IV_BYTES - 1] ^= number;
    uint8_t plain[64];
    assert_true(len < sizeof plain);
    memcpy(plain, data, len);
    plain[len] = type;
    uint8_t record[RECORD_HEAD_BYTES + sizeof plain + TAG_BYTES] = {23, 3, 3, 0, (uint8_t)(len + 1 + TAG_BYTES)};
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    int done;
    assert_int_equal(EVP_EncryptInit_ex(cipher, EVP_aes_128_gcm(), NULL, key, iv), 1);
    assert_int_equal(EVP_EncryptUpdate(cipher, NULL, &done, record, RECORD_HEAD_BYTES), 1);
    assert_int_equal(EVP_EncryptUpdate(cipher, record + RECORD_HEAD_BYTES, &done, plain, (int)len + 1), 1);
    assert_int_equal(EVP_EncryptFinal_ex(cipher, record + RECORD_HEAD_BYTES + done, &done), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, record + RECORD_HEAD_BYTES + len + 1),
                     1);
    EVP_CIPHER_CTX_free(cipher);
    tls_raw_send(raw, record, RECORD_HEAD_BYTES + len + 1 + TAG_BYTES);
}

static void open_with_secret(struct tls_pair *pair, struct tls_raw *raw) {
    tls_pair_init(pair, dir, "n1", NULL, 1);
    tls_raw_init(raw, &pair->world, TLS1_3_VERSION);
    assert_int_equal(SSL_set_ciphersuites(raw->ssl, "TLS_AES_128_GCM_SHA256"), 1);
    SSL_CTX_set_keylog_callback(raw->ssl_context, take_client_secret);
    memory_world_run(&pair->world);
    assert_int_equal(pair->server.opened, 1);
}

static void test_h56_tls_write_that_must_read_first_is_made_up_for(void **state) {
    (void)state;
    struct tls_pair pair;
    struct tls_raw raw;
    open_with_secret(&pair, &raw);
    /* A key update in two records: between them OpenSSL has no ear for anything else, and refuses to write. */
    send_record(&raw, 0, 22, "\x18\x00\x00\x01", 4);
    memory_world_run(&pair.world);
    tls_side_write(&pair.server, "one ", 4);
    memory_world_run(&pair.world);
    tls_side_write(&pair.server, "two", 3);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.closed, 0);
    assert_int_equal(raw.got.len, 0);
    assert_int_equal(env_stream_queued_bytes(pair.server.stream), 7);
    send_record(&raw, 1, 22, "\x00", 1);
    memory_world_run(&pair.world);
    assert_true(slice_equal(buf_slice(&raw.got), slice_of_string("one two")));
    assert_int_equal(env_stream_queued_bytes(pair.server.stream), 0);
    env_stream_close(raw.stream);
    memory_world_run(&pair.world);
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

static void test_h56_tls_finish_that_must_read_first_ends_all_the_same(void **state) {
    (void)state;
    struct tls_pair pair;
    struct tls_raw raw;
    open_with_secret(&pair, &raw);
    send_record(&raw, 0, 22, "\x18\x00\x00\x01", 4);
    memory_world_run(&pair.world);
    tls_side_write(&pair.server, "lost", 4);
    env_stream_finish(pair.server.stream);
    memory_world_run(&pair.world);
    assert_int_equal(pair.server.closed, 1);
    assert_int_equal(raw.closed, 1);
    tls_raw_deinit(&raw);
    tls_pair_deinit(&pair);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls_damaged_record_ends_the_stream_as_corrupt),
        cmocka_unit_test(test_tls_key_updates_now_and_then_are_fine),
        cmocka_unit_test(test_h55_tls_key_updates_without_end_are_cut),
        cmocka_unit_test(test_h56_tls_write_that_must_read_first_is_made_up_for),
        cmocka_unit_test(test_h56_tls_finish_that_must_read_first_ends_all_the_same),
    };
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
