/*
 * What unit tests share: cmocka with what it needs, an allocator that counts and fails, directories that are removed, a
 * loop that is run until something happened, and a child process that must abort. Failures of the helpers themselves
 * are CHECKs.
 */
#ifndef HOLDFAST_TESTS_SUPPORT_H
#define HOLDFAST_TESTS_SUPPORT_H

#include "node/base/alloc.h"
#include "node/env/env.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h> /* needs those above */

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* The system allocator, counted. Any thread. */
struct test_alloc {
    struct alloc base;         /* hand out &test_alloc.base */
    _Atomic uint64_t attempts; /* allocations and resizes asked for so far */
    _Atomic uint64_t live_blocks;
    _Atomic uint64_t fail_at;    /* the attempt with this number, from 1, fails; 0: none */
    _Atomic bool fail_all_later; /* and all after it */
};

void test_alloc_init(struct test_alloc *alloc);
/* The n-th attempt from now fails, 1 being the next; later ones work again, unless `and_all_later`. n 0: none fails. */
void test_alloc_fail(struct test_alloc *alloc, uint64_t n, bool and_all_later);

/* ---- Files ------------------------------------------------------------------------------------------------------- */

/* A new empty directory; its path is owned by the caller until test_dir_remove, which removes all below it. On a file
 * system of the machine's disk where TMPDIR says so, /tmp else. */
char *test_dir_new(void);
void test_dir_remove(char *dir);
/* "dir/name" in one of a few static buffers: good for the current statement's calls. Main thread only. */
const char *test_path(const char *dir, const char *name);

/* ---- Loops and processes ----------------------------------------------------------------------------------------- */

/* Runs the loop on this thread until `done` says true (asked every millisecond), at most timeout_ms. Returns its
 * answer. */
bool test_loop_until(struct env_loop *loop, bool (*done)(void *context), void *context, unsigned timeout_ms);
/* The same for a flag that a callback sets. */
bool test_loop_until_set(struct env_loop *loop, const bool *flag, unsigned timeout_ms);
/* Runs the function in a child process with stderr closed; true if it ended by SIGABRT. Before any thread was started.
 */
bool test_aborts(void (*run)(void *context), void *context);
/* True in the long set (make test-long). */
bool test_is_long(void);

#endif
