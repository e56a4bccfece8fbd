/*
 * From a certificate to a role. What would break: an expired or foreign certificate that gets in because its thumbprint
 * is on the list, a reader that may write, a refusal that doesn't say which certificate and what to do (hazard 60).
 */
#include "tests/unit/support/support.h"

#include "node/server/identity.h"

#include <stdlib.h>
#include <string.h>

struct fixture {
    struct config config;
    struct config_identity identities[3];
    struct directory directory; /* empty */
    struct identity identity;
    char message[ERROR_MESSAGE_BYTES_MAX];
};

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    config_init(&fixture->config, alloc_system());
    struct config_member *member = &fixture->config.members[0];
    fixture->config.member_count = 1;
    strcpy(member->name, "n1");
    member->id = 7;
    memset(member->thumbprint, 1, sizeof member->thumbprint);
    fixture->config.identities = fixture->identities;
    fixture->config.identity_count = 3;
    static const enum config_role roles[] = {CONFIG_ROLE_READ, CONFIG_ROLE_WRITE, CONFIG_ROLE_ADMIN};
    for (int i = 0; i < 3; i++) {
        strcpy(fixture->identities[i].name, config_role_name(roles[i]));
        fixture->identities[i].role = roles[i];
        memset(fixture->identities[i].thumbprint, 10 + i, ENV_THUMBPRINT_BYTES);
    }
    *state = fixture;
    return 0;
}

static int tear_down(void **state) {
    free(*state);
    return 0;
}

static enum wire_code check(struct fixture *fixture, enum env_certificate_state certificate, int thumbprint_byte) {
    struct env_peer peer = {.certificate = certificate};
    memset(peer.thumbprint, thumbprint_byte, sizeof peer.thumbprint);
    fixture->message[0] = '\0';
    return identity_check(&fixture->config, &fixture->directory, &peer, &fixture->identity, fixture->message,
                          sizeof fixture->message);
}

static void test_identity_roles_permit_what_they_say(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        int byte;
        enum config_role role;
        bool read;
        bool write;
        bool peer;
    } cases[] = {
        {1, CONFIG_ROLE_PEER, false, false, true},
        {10, CONFIG_ROLE_READ, true, false, false},
        {11, CONFIG_ROLE_WRITE, true, true, false},
        {12, CONFIG_ROLE_ADMIN, true, true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(check(fixture, ENV_CERTIFICATE_VALID, cases[i].byte), WIRE_OK);
        assert_int_equal(fixture->identity.role, cases[i].role);
        assert_int_equal(identity_may_read(&fixture->identity), cases[i].read);
        assert_int_equal(identity_may_write(&fixture->identity), cases[i].write);
        assert_int_equal(identity_is_peer(&fixture->identity), cases[i].peer);
    }
    assert_int_equal(check(fixture, ENV_CERTIFICATE_VALID, 1), WIRE_OK);
    assert_int_equal(fixture->identity.node_id, 7);
    assert_string_equal(fixture->identity.name, "n1");
    assert_int_equal(check(fixture, ENV_CERTIFICATE_VALID, 12), WIRE_OK);
    assert_int_equal(fixture->identity.node_id, 0);
}

/* Even where the thumbprint is on the list. */
static void test_h60_identity_bad_certificate_is_refused_with_reason(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        enum env_certificate_state certificate;
        enum wire_code code;
        const char *words;
        bool names_thumbprint;
    } cases[] = {
        {ENV_CERTIFICATE_NONE, WIRE_NO_CERTIFICATE, "start the client with --cert and --key", false},
        {ENV_CERTIFICATE_UNTRUSTED, WIRE_CERTIFICATE_UNTRUSTED, "was not signed by this cluster's CA", true},
        {ENV_CERTIFICATE_EXPIRED, WIRE_CERTIFICATE_EXPIRED, "has expired", true},
        {ENV_CERTIFICATE_NOT_YET_VALID, WIRE_CERTIFICATE_NOT_YET_VALID, "is not yet valid", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(check(fixture, cases[i].certificate, 12), cases[i].code);
        assert_non_null(strstr(fixture->message, cases[i].words));
        const char *thumbprint = "0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c";
        assert_int_equal(strstr(fixture->message, thumbprint) != NULL, cases[i].names_thumbprint);
    }
}

static void test_h60_identity_unknown_thumbprint_says_what_to_add(void **state) {
    struct fixture *fixture = *state;
    assert_int_equal(check(fixture, ENV_CERTIFICATE_VALID, 0xab), WIRE_CERTIFICATE_UNKNOWN);
    assert_non_null(strstr(fixture->message, "abababababababababababababababababababababababababababababababab"));
    assert_non_null(strstr(fixture->message, "[identity]"));
    /* One byte off is somebody else. */
    struct env_peer peer = {.certificate = ENV_CERTIFICATE_VALID};
    memset(peer.thumbprint, 12, sizeof peer.thumbprint);
    peer.thumbprint[31] = 13;
    assert_int_equal(identity_check(&fixture->config, &fixture->directory, &peer, &fixture->identity, fixture->message,
                                    sizeof fixture->message),
                     WIRE_CERTIFICATE_UNKNOWN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_identity_roles_permit_what_they_say),
        TEST(test_h60_identity_bad_certificate_is_refused_with_reason),
        TEST(test_h60_identity_unknown_thumbprint_says_what_to_add),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
