/*
 * holdfastctl in-process, against played nodes over TCP on a thread of their own: for test_ctl_*.c. Each test begins
 * with a new cluster and an empty folder, where no profile is found.
 */
#ifndef HOLDFAST_TESTS_CTL_FIXTURE_H
#define HOLDFAST_TESTS_CTL_FIXTURE_H

#include "node/base/buf.h"
#include "node/ctl/ctl.h"
#include "proto/client/client_internal.h"
#include "tests/unit/support/fake_thread.h"
#include "tests/unit/support/support.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OUTPUT_BYTES = 1024 * 1024, ARGUMENTS_MAX = 24 };

/* ---- Running the program ------------------------------------------------------------------------------------------
 */

struct fixture {
    struct fake_thread fake;
    char *dir;
    char out[OUTPUT_BYTES];
    size_t out_len;
    char err[OUTPUT_BYTES];
};

static struct fixture shared;

static inline enum holdfast_outcome open_plain(const struct holdfast_options *options, struct holdfast **ret_handle,
                                               struct holdfast_result *result) {
    struct holdfast_options plain = *options;
    plain.silence_ms = 2000;
    return client_open_plain(&plain, ret_handle, result);
}

static inline size_t read_back(FILE *file, char *out, size_t size) {
    rewind(file);
    size_t len = fread(out, 1, size - 1, file);
    out[len] = '\0';
    (void)fclose(file);
    return len;
}

/* The words are split at '|'; input goes to standard input. */
static inline int run_words(struct fixture *fixture, const char *words, struct slice input) {
    char copy[2048];
    char endpoints[600];
    char *argv[ARGUMENTS_MAX];
    int argc = 0;
    (void)snprintf(endpoints, sizeof endpoints, "--endpoints=%s", fixture->fake.endpoints);
    (void)snprintf(copy, sizeof copy, "%s", words);
    argv[argc++] = (char *)(uintptr_t) "holdfastctl";
    argv[argc++] = endpoints;
    for (char *rest = copy, *word; (word = strsep(&rest, "|")) != NULL && argc < ARGUMENTS_MAX;) {
        argv[argc++] = word;
    }
    FILE *in = tmpfile();
    struct ctl_io io = {.in = fileno(in), .out = tmpfile(), .err = tmpfile(), .open = open_plain};
    if (input.len > 0) {
        assert_int_equal(fwrite(input.data, 1, input.len, in), input.len);
    }
    rewind(in);
    int code = (int)ctl_run(argc, argv, &io);
    fixture->out_len = read_back(io.out, fixture->out, sizeof fixture->out);
    (void)read_back(io.err, fixture->err, sizeof fixture->err);
    (void)fclose(in);
    return code;
}

static inline int run(struct fixture *fixture, const char *words) { return run_words(fixture, words, SLICE_EMPTY); }

static inline void expect(struct fixture *fixture, const char *words, int code, const char *out) {
    int got = run(fixture, words);
    if (got != code || (out != NULL && strcmp(out, fixture->out) != 0)) {
        fail_msg("%s: exit %d, out <%s>, err <%s>", words, got, fixture->out, fixture->err);
    }
}

static inline int setup(void **state) {
    unsetenv("HOLDFAST_PROFILE");
    fake_thread_start(&shared.fake, 3);
    shared.dir = test_dir_new();
    assert_int_equal(chdir(shared.dir), 0); /* where no profile is found */
    *state = &shared;
    return 0;
}

static inline int teardown(void **state) {
    struct fixture *fixture = *state;
    fake_thread_stop(&fixture->fake);
    fake_thread_free(&fixture->fake);
    assert_int_equal(chdir("/"), 0);
    test_dir_remove(fixture->dir);
    return 0;
}

static inline bool is_one_line(const char *text) {
    const char *newline = strchr(text, '\n');
    return newline != NULL && newline[1] == '\0';
}

#endif
