/*
 * Breaks when: a profile's mistakes (unknown, duplicate, overlong or malformed lines, wrong values) pass or are
 * reported without file and line; relative paths aren't taken from the file's folder; names and addresses of nodes get
 * lost; opening with wrong files crashes or leaks.
 */
#include "proto/client/client_internal.h"
#include "tests/unit/support/support.h"

#include <stdio.h>
#include <string.h>

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void test_profile_every_key_is_taken(void **state) {
    (void)state;
    char *dir = test_dir_new();
    struct holdfast_profile *profile = NULL;
    struct holdfast_options options;
    struct holdfast_result result;
    char expected[512];
    write_file(test_path(dir, "client.ini"), "; a comment\n[client]\nendpoints = 127.0.0.1:4401, 127.0.0.1:4402\n"
                                             "node.n2 = 127.0.0.1:4402\nnode.n3=127.0.0.1:4403\nca = ca.pem\n"
                                             "cert = /abs/client.pem\nkey = sub/client.key\ntimeout_ms = 1234\n");
    assert_int_equal(holdfast_profile_load(test_path(dir, "client.ini"), &profile, &result), HOLDFAST_OK);
    holdfast_profile_options(profile, &options);
    assert_string_equal(options.endpoints, "n2=127.0.0.1:4402,n3=127.0.0.1:4403,127.0.0.1:4401");
    (void)snprintf(expected, sizeof expected, "%s/ca.pem", dir);
    assert_string_equal(options.ca_file, expected);
    assert_string_equal(options.cert_file, "/abs/client.pem");
    (void)snprintf(expected, sizeof expected, "%s/sub/client.key", dir);
    assert_string_equal(options.key_file, expected);
    assert_int_equal(options.timeout_ms, 1234);
    assert_null(options.server_thumbprints);
    holdfast_profile_free(profile);
    test_dir_remove(dir);
}

static void test_profile_mistakes_are_named_with_file_and_line(void **state) {
    (void)state;
    char *dir = test_dir_new();
    char overlong[400];
    memset(overlong, 'x', sizeof overlong);
    memcpy(overlong, "[client]\nca = ", 14);
    overlong[sizeof overlong - 2] = '\n';
    overlong[sizeof overlong - 1] = '\0';
    const struct {
        const char *text;
        const char *line;
        const char *word;
    } cases[] = {
        {"[client]\nendpoint = a:1\n", "client.ini:2:", "endpoint"},
        {"[client]\nca = a\nca = b\n", "client.ini:3:", "duplicate"},
        {"[server]\nca = a\n", "client.ini:2:", "server"},
        {"[client]\nendpoints = a:1\n  , b:2\n", "client.ini:3:", "endpoints"}, /* a continuation line */
        {"[client]\ntimeout_ms = soon\n", "client.ini:2:", "timeout_ms"},
        {"[client]\ngarbage\n", "client.ini:2:", "INI"},
        {"[client]\nca =\n", "client.ini:2:", "ca"},
        {"[client]\nserver_thumbprints =\n", "client.ini:2:", "server_thumbprints"},
        {overlong, "client.ini:2:", "197"},
        {"[client]\nendpoints = nowhere\n", "client.ini", "host:port"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct holdfast_profile *profile = NULL;
        struct holdfast_result result;
        write_file(test_path(dir, "client.ini"), cases[i].text);
        assert_int_equal(holdfast_profile_load(test_path(dir, "client.ini"), &profile, &result), HOLDFAST_FAILED);
        assert_int_equal(result.code, HOLDFAST_CODE_INVALID);
        if (strstr(result.message, cases[i].line) == NULL || strstr(result.message, cases[i].word) == NULL) {
            fail_msg("case %zu: %s", i, result.message);
        }
    }
    test_dir_remove(dir);
}

static void test_profile_missing_file_is_named(void **state) {
    (void)state;
    struct holdfast_profile *profile = NULL;
    struct holdfast_result result;
    assert_int_equal(holdfast_profile_load("/nonexistent/client.ini", &profile, &result), HOLDFAST_FAILED);
    assert_int_equal(result.code, HOLDFAST_CODE_IO);
    assert_non_null(strstr(result.message, "/nonexistent/client.ini"));
}

static void test_open_wrong_options_are_named(void **state) {
    (void)state;
    struct holdfast_options options;
    struct holdfast *handle = NULL;
    struct holdfast_result result;
    holdfast_options_init(&options);
    assert_int_equal(holdfast_open(&options, &handle, &result), HOLDFAST_FAILED);
    assert_non_null(strstr(result.message, "endpoints"));
    options.endpoints = "127.0.0.1:1";
    assert_int_equal(holdfast_open(&options, &handle, &result), HOLDFAST_FAILED);
    assert_non_null(strstr(result.message, "CA"));
    options.ca_file = "/nonexistent/ca.pem";
    options.server_thumbprints = "abc";
    assert_int_equal(holdfast_open(&options, &handle, &result), HOLDFAST_FAILED);
    assert_non_null(strstr(result.message, "thumbprints"));
    options.server_thumbprints = NULL;
    assert_int_equal(holdfast_open(&options, &handle, &result), HOLDFAST_FAILED);
    assert_non_null(strstr(result.message, "/nonexistent/ca.pem"));
    options.connections = 257;
    assert_int_equal(holdfast_open(&options, &handle, &result), HOLDFAST_FAILED);
    assert_non_null(strstr(result.message, "connections is 257"));
    assert_null(handle);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile_every_key_is_taken),
        cmocka_unit_test(test_profile_mistakes_are_named_with_file_and_line),
        cmocka_unit_test(test_profile_missing_file_is_named),
        cmocka_unit_test(test_open_wrong_options_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
