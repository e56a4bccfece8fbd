/*
 * Golden files: bytes that a format had when it was fixed. A test makes the same bytes and compares; a change that
 * isn't meant shows here before it reaches a disk. HOLDFAST_GOLDEN_WRITE=1 writes them anew, for a format that was
 * changed on purpose.
 */
#ifndef HOLDFAST_TESTS_GOLDEN_H
#define HOLDFAST_TESTS_GOLDEN_H

#include "node/base/slice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static inline void golden_assert(const char *name, struct slice bytes) {
    char path[256];
    (void)snprintf(path, sizeof path, "tests/unit/golden/%s", name);
    if (getenv("HOLDFAST_GOLDEN_WRITE") != NULL) {
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(bytes.data, 1, bytes.len, file), bytes.len);
        assert_int_equal(fclose(file), 0);
        return;
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail_msg("%s: missing; tests run in the root of the repository", path);
    }
    uint8_t *want = malloc(bytes.len + 1);
    assert_non_null(want);
    size_t len = fread(want, 1, bytes.len + 1, file);
    (void)fclose(file);
    assert_int_equal(len, bytes.len);
    assert_memory_equal(want, bytes.data, len);
    free(want);
}

#endif
