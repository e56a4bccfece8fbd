/*
 * Breaks when: a wrong file is accepted or explained without its name; a context listens without a certificate;
 * deploy/certificates overwrites something, leaves a key readable, ends with the wrong code, or prints another
 * thumbprint than the node computes.
 */
#include "tests/unit/tls_fixture.h"

#include <openssl/err.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void check_files(struct tls_pair *pair, const char *ca, const char *cert, const char *key, const char *says) {
    char paths[3][600];
    const char *names[3] = {ca, cert, key};
    for (int i = 0; i < 3; i++) {
        (void)snprintf(paths[i], sizeof paths[i], "%s/%s", dir, names[i] != NULL ? names[i] : "");
    }
    struct tls_options options = {.ca_file = paths[0],
                                  .cert_file = cert != NULL ? paths[1] : NULL,
                                  .key_file = key != NULL ? paths[2] : NULL,
                                  .handshake_timeout_us = 1,
                                  .handshakes_per_turn = 1};
    struct tls_context *context = NULL;
    struct error err;
    error_clear(&err);
    assert_int_not_equal(tls_context_new(&pair->world.env, &pair->world.transport, &options, &context, &err),
                         STATUS_OK);
    assert_null(context);
    if (strstr(err.message, says) == NULL) {
        print_error("'%s' doesn't say '%s'\n", err.message, says);
        fail();
    }
    assert_true(ERR_peek_error() == 0);
}

static void test_tls_wrong_files_are_named(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    char command[2000];
    (void)snprintf(command, sizeof command,
                   "cd '%s' && : >empty && echo hello >text && "
                   "sed 's/^M/X/' n1.crt >damaged.crt && openssl ec -in n1.key -aes128 -passout pass:x -out secret.key "
                   "2>/dev/null",
                   dir);
    assert_int_equal(system(command), 0);
    check_files(&pair, "none.crt", "n1.crt", "n1.key", "none.crt");
    check_files(&pair, "empty", "n1.crt", "n1.key", "empty is empty");
    check_files(&pair, "text", "n1.crt", "n1.key", "has no certificate in PEM form");
    check_files(&pair, "n1.key", "n1.crt", "n1.key", "has no certificate in PEM form");
    check_files(&pair, "damaged.crt", "n1.crt", "n1.key", "damaged.crt: malformed certificate");
    check_files(&pair, "ca.crt", "none.crt", "n1.key", "none.crt");
    check_files(&pair, "ca.crt", "text", "n1.key", "has no certificate in PEM form");
    check_files(&pair, "ca.crt", "n1.crt", NULL, "without a key file");
    check_files(&pair, "ca.crt", "n1.crt", "none.key", "none.key");
    check_files(&pair, "ca.crt", "n1.crt", "n1.crt", "has no unencrypted private key");
    check_files(&pair, "ca.crt", "n1.crt", "secret.key", "has no unencrypted private key");
    check_files(&pair, "ca.crt", "n1.crt", "n2.key", "n2.key");
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES];
    struct error err;
    assert_int_not_equal(tls_thumbprint_of_file(&pair.world.env, certificates_path(dir, "text"), thumbprint, &err),
                         STATUS_OK);
    assert_non_null(strstr(err.message, "has no certificate"));
    tls_pair_deinit(&pair);
}

static struct env_stream_handler *accept_nobody(void *context, struct env_stream *stream) {
    (void)context;
    (void)stream;
    return NULL;
}

static void test_tls_listening_without_a_certificate_is_refused(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    struct env_listener *listener = NULL;
    struct error err;
    assert_int_equal(env_listen(tls_context_transport(pair.client_context), &pair.world.loop, "here", accept_nobody,
                                NULL, &listener, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.message, "needs a certificate"));
    tls_pair_deinit(&pair);
}

static void test_tls_thumbprint_is_what_the_script_prints(void **state) {
    (void)state;
    struct tls_pair pair;
    tls_pair_init(&pair, dir, "n1", NULL, 1);
    uint8_t thumbprint[ENV_THUMBPRINT_BYTES];
    thumbprint_of(&pair, "n2.crt", thumbprint);
    char command[1200];
    (void)snprintf(command, sizeof command, "deploy/certificates thumbprint '%s'", certificates_path(dir, "n2.crt"));
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    char text[100] = "";
    assert_non_null(fgets(text, sizeof text, pipe));
    assert_int_equal(pclose(pipe), 0);
    assert_int_equal(strlen(text), 2 * ENV_THUMBPRINT_BYTES + 1);
    for (size_t i = 0; i < sizeof thumbprint; i++) {
        char pair_text[3] = {text[2 * i], text[2 * i + 1], '\0'};
        assert_int_equal(strtol(pair_text, NULL, 16), thumbprint[i]);
    }
    tls_pair_deinit(&pair);
}

static void test_certificates_script_keeps_its_promises(void **state) {
    (void)state;
    static const struct {
        const char *arguments;
        int exit_code;
    } cases[] = {
        {"help", 0},
        {"", 2},
        {"frobnicate", 2},
        {"ca", 2},
        {"ca $d/new 0", 2},
        {"ca $d", 1}, /* it exists */
        {"make $d n1", 1},
        {"make $d ../n9", 2},
        {"make $d ca", 2},
        {"make $d n9 --from yesterday", 2},
        {"make $d n9 --frob", 2},
        {"make $d/empty n9", 1}, /* no CA there */
        {"thumbprint $d/n1.key", 1},
        {"thumbprint $d/none", 1},
        {"make $d n9 30", 0},
        {"make $d n9 30", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char command[2000];
        (void)snprintf(command, sizeof command, "d='%s'; deploy/certificates %s >/dev/null 2>&1", dir,
                       cases[i].arguments);
        int result = system(command);
        if (!WIFEXITED(result) || WEXITSTATUS(result) != cases[i].exit_code) {
            fail_msg("certificates %s: %d", cases[i].arguments, WEXITSTATUS(result));
        }
    }
    struct stat info;
    assert_int_equal(stat(certificates_path(dir, "n9.key"), &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(stat(certificates_path(dir, "ca.key"), &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(stat(certificates_path(dir, "n9.crt"), &info), 0);
    assert_int_equal(info.st_mode & 07777, 0644);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls_wrong_files_are_named),
        cmocka_unit_test(test_tls_listening_without_a_certificate_is_refused),
        cmocka_unit_test(test_tls_thumbprint_is_what_the_script_prints),
        cmocka_unit_test(test_certificates_script_keeps_its_promises),
    };
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
