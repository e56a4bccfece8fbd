/*
 * What the tests of TLS share: certificates made once for a program's tests, and two sides of a connection in the
 * tests' own world.
 */
#ifndef HOLDFAST_TESTS_TLS_FIXTURE_H
#define HOLDFAST_TESTS_TLS_FIXTURE_H

#include "tests/unit/support/tls_side.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *dir; /* of the certificates */

static inline int make_certificates(void **state) {
    (void)state;
    dir = certificates_make();
    return dir != NULL ? 0 : -1;
}

static inline int remove_certificates(void **state) {
    (void)state;
    certificates_remove(dir);
    return 0;
}

static inline void thumbprint_of(struct tls_pair *pair, const char *name, uint8_t out[ENV_THUMBPRINT_BYTES]) {
    assert_int_equal(tls_thumbprint_of_file(&pair->world.env, certificates_path(dir, name), out, NULL), STATUS_OK);
}

/* n1 serves, n2 is the client; both are through the handshake. */
static inline void open_pair(struct tls_pair *pair, uint64_t seed) {
    tls_pair_init(pair, dir, "n1", "n2", seed);
    tls_pair_connect(pair);
    memory_world_run(&pair->world);
    assert_int_equal(pair->server.opened, 1);
    assert_int_equal(pair->client.opened, 1);
}

#endif
