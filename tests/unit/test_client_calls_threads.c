/*
 * Breaks when: blocking calls of several threads mix up their answers, lose one or race with the loop's thread; a
 * callback runs twice, never, or inside the call; a blocking call from a callback deadlocks; asynchronous calls exceed
 * their bound or keep borrowing the caller's bytes; closing with calls under way hangs or loses a callback.
 *
 * Real sockets and threads; also run under TSan.
 */
#include "proto/client/client_internal.h"
#include "tests/unit/support/fake_thread.h"
#include "tests/unit/support/support.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 6, CALLS = 60, ASYNC_CALLS = 500 };

static struct holdfast *open_handle(const struct fake_thread *fake, uint32_t in_flight_max) {
    struct holdfast_options options;
    struct holdfast_result result;
    struct holdfast *handle = NULL;
    holdfast_options_init(&options);
    options.endpoints = fake->endpoints;
    options.timeout_ms = 20000;
    options.silence_ms = 10000; /* slow machines under sanitizers are no hanging nodes */
    options.in_flight_max = in_flight_max;
    if (client_open_plain(&options, &handle, &result) != HOLDFAST_OK) {
        fail_msg("%s", result.message);
    }
    return handle;
}

struct worker {
    struct holdfast *handle;
    unsigned number;
    unsigned failures;
};

static void *work(void *context) {
    struct worker *worker = context;
    for (unsigned i = 0; i < CALLS; i++) {
        char key[32], value[64];
        struct holdfast_value got;
        struct holdfast_result result;
        int key_len = snprintf(key, sizeof key, "key-%u-%u", worker->number, i % 7);
        int value_len = snprintf(value, sizeof value, "value %u of worker %u", i, worker->number);
        bool ok =
            holdfast_put(worker->handle, key, (size_t)key_len, value, (size_t)value_len, NULL, &result) == HOLDFAST_OK;
        ok = ok && holdfast_get(worker->handle, key, (size_t)key_len, NULL, &got, &result) == HOLDFAST_OK;
        if (!ok || got.len != (size_t)value_len || memcmp(got.data, value, got.len) != 0) {
            worker->failures++;
            continue;
        }
        holdfast_value_free(worker->handle, &got);
    }
    return NULL;
}

static void test_client_blocking_calls_of_many_threads_get_their_own_answers(void **state) {
    (void)state;
    static struct fake_thread fake;
    fake_thread_start(&fake, 3);
    struct holdfast *handle = open_handle(&fake, 2); /* fewer places than threads: some wait */
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){handle, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    usleep(20000);
    atomic_store(&fake.cluster.leader, 2); /* in the middle of it */
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].failures, 0);
    }
    holdfast_close(handle);
    fake_thread_stop(&fake);
    fake_thread_free(&fake);
}

struct counter {
    _Atomic unsigned ok;
    _Atomic unsigned closed;
    _Atomic unsigned other;
};

static void count_result(void *context, const struct holdfast_result *result) {
    struct counter *counter = context;
    if (result->outcome == HOLDFAST_OK) {
        atomic_fetch_add(&counter->ok, 1);
    } else if (result->code == HOLDFAST_CODE_CLOSED) {
        atomic_fetch_add(&counter->closed, 1);
    } else {
        atomic_fetch_add(&counter->other, 1);
    }
}

static void test_client_async_bytes_are_copied_and_bounded(void **state) {
    (void)state;
    static struct fake_thread fake;
    static struct counter counter;
    fake_thread_start(&fake, 1);
    struct holdfast *handle = open_handle(&fake, 16);
    char key[16], value[16];
    unsigned accepted = 0, busy = 0;
    while (accepted < ASYNC_CALLS) {
        int key_len = snprintf(key, sizeof key, "k%03u", accepted);
        int value_len = snprintf(value, sizeof value, "v%u", accepted);
        enum holdfast_code code =
            holdfast_put_async(handle, key, (size_t)key_len, value, (size_t)value_len, NULL, count_result, &counter);
        if (code == HOLDFAST_CODE_BUSY) {
            busy++;
            usleep(200);
            continue;
        }
        assert_int_equal(code, HOLDFAST_CODE_OK);
        accepted++;
    }
    assert_true(busy > 0);
    while (atomic_load(&counter.ok) < ASYNC_CALLS) {
        assert_int_equal(atomic_load(&counter.other), 0);
        usleep(1000);
    }
    holdfast_close(handle);
    assert_int_equal(atomic_load(&counter.ok), ASYNC_CALLS);
    fake_thread_stop(&fake);
    assert_int_equal(fake.cluster.entry_count, ASYNC_CALLS);
    for (unsigned i = 0; i < ASYNC_CALLS; i++) {
        (void)snprintf(key, sizeof key, "k%03u", i);
        (void)snprintf(value, sizeof value, "v%u", i);
        const struct fake_entry *entry = fake_find(&fake.cluster, slice_of_string(key));
        assert_non_null(entry);
        assert_int_equal(entry->value_len, strlen(value));
        assert_memory_equal(entry->value, value, entry->value_len);
    }
    fake_thread_free(&fake);
}

struct chain {
    struct holdfast *handle;
    _Atomic unsigned puts;
    enum holdfast_code blocking_code;
    _Atomic bool done;
};

/* Makes the next call from the callback; a blocking one is refused there. */
static void chain_next(void *context, const struct holdfast_result *result) {
    struct chain *chain = context;
    struct holdfast_result blocked;
    unsigned puts = atomic_fetch_add(&chain->puts, 1) + 1;
    if (result->outcome != HOLDFAST_OK || puts == 100) {
        (void)holdfast_put(chain->handle, "k", 1, "v", 1, NULL, &blocked);
        chain->blocking_code = blocked.code;
        atomic_store(&chain->done, true);
        return;
    }
    if (holdfast_put_async(chain->handle, "k", 1, "v", 1, NULL, chain_next, chain) != HOLDFAST_CODE_OK) {
        atomic_store(&chain->done, true);
    }
}

static void test_client_callbacks_may_call_but_not_block(void **state) {
    (void)state;
    static struct fake_thread fake;
    static struct chain chain;
    fake_thread_start(&fake, 1);
    chain.handle = open_handle(&fake, 4);
    assert_int_equal(holdfast_put_async(chain.handle, "k", 1, "v", 1, NULL, chain_next, &chain), HOLDFAST_CODE_OK);
    while (!atomic_load(&chain.done)) {
        usleep(1000);
    }
    assert_int_equal(atomic_load(&chain.puts), 100);
    assert_int_equal(chain.blocking_code, HOLDFAST_CODE_INVALID);
    holdfast_close(chain.handle);
    fake_thread_stop(&fake);
    fake_thread_free(&fake);
}

/* What the last callback said; `done` is set last. */
struct seen {
    struct holdfast_result result;
    char value[32];
    size_t pair_count;
    char node_name[64];
    _Atomic bool done;
};

static void see(struct seen *seen, const struct holdfast_result *result) {
    seen->result = *result;
    atomic_store(&seen->done, true);
}

static void on_written(void *context, const struct holdfast_result *result) { see(context, result); }

static void on_got(void *context, const struct holdfast_result *result, const struct holdfast_value *value) {
    struct seen *seen = context;
    if (value != NULL && value->len < sizeof seen->value) {
        memcpy(seen->value, value->data, value->len);
    }
    see(seen, result);
}

static void on_scanned(void *context, const struct holdfast_result *result, const struct holdfast_page *page) {
    ((struct seen *)context)->pair_count = page != NULL ? page->pair_count : 0;
    see(context, result);
}

static void on_status(void *context, const struct holdfast_result *result, const struct holdfast_node_status *status) {
    struct seen *seen = context;
    (void)snprintf(seen->node_name, sizeof seen->node_name, "%s", status != NULL ? status->node_name : "");
    see(seen, result);
}

/* The call was taken; its end is waited for. */
static void await(enum holdfast_code code, struct seen *seen) {
    assert_int_equal(code, HOLDFAST_CODE_OK);
    for (unsigned i = 0; !atomic_load(&seen->done); i++) {
        assert_true(i < 20000);
        usleep(1000);
    }
    atomic_store(&seen->done, false);
}

static void test_client_async_calls_of_every_kind_are_answered(void **state) {
    (void)state;
    static struct fake_thread fake;
    static struct seen seen;
    fake_thread_start(&fake, 3);
    struct holdfast *handle = open_handle(&fake, 16);
    const struct holdfast_operation operations[] = {{HOLDFAST_PUT, "b", 1, "2", 1}, {HOLDFAST_PUT, "c", 1, "3", 1}};
    const struct holdfast_range range = {"c", 1, "d", 1};
    const struct holdfast_scan all = {0};
    const struct holdfast_scan first = {.upper = "b", .upper_len = 1};
    await(holdfast_put_async(handle, "a", 1, "1", 1, NULL, on_written, &seen), &seen);
    assert_int_equal(seen.result.outcome, HOLDFAST_OK);
    await(holdfast_batch_async(handle, operations, 2, NULL, on_written, &seen), &seen);
    assert_int_equal(seen.result.revision, 2);
    await(holdfast_get_async(handle, "b", 1, NULL, on_got, &seen), &seen);
    assert_string_equal(seen.value, "2");
    await(holdfast_scan_page_async(handle, &all, NULL, on_scanned, &seen), &seen);
    assert_int_equal(seen.pair_count, 3);
    await(holdfast_scan_page_async(handle, &first, NULL, on_scanned, &seen), &seen);
    assert_int_equal(seen.pair_count, 1);
    await(holdfast_delete_range_async(handle, &range, NULL, on_written, &seen), &seen);
    assert_int_equal(seen.result.outcome, HOLDFAST_OK);
    await(holdfast_delete_async(handle, "a", 1, NULL, on_written, &seen), &seen);
    assert_int_equal(seen.result.revision, 4);
    await(holdfast_get_async(handle, "a", 1, NULL, on_got, &seen), &seen);
    assert_int_equal(seen.result.code, HOLDFAST_CODE_NOT_FOUND);
    await(holdfast_scan_page_async(handle, &all, NULL, on_scanned, &seen), &seen);
    assert_int_equal(seen.pair_count, 1); /* b */
    await(holdfast_status_async(handle, 2, 0, on_status, &seen), &seen);
    assert_string_equal(seen.node_name, "n3");
    /* What is wrong is refused, and nobody is called. */
    const struct holdfast_range backwards = {"d", 1, "c", 1};
    assert_int_equal(holdfast_put_async(handle, "", 0, "1", 1, NULL, on_written, &seen), HOLDFAST_CODE_INVALID);
    assert_int_equal(holdfast_get_async(handle, "", 0, NULL, on_got, &seen), HOLDFAST_CODE_INVALID);
    assert_int_equal(holdfast_delete_async(handle, NULL, 0, NULL, on_written, &seen), HOLDFAST_CODE_INVALID);
    assert_int_equal(holdfast_delete_range_async(handle, &backwards, NULL, on_written, &seen), HOLDFAST_CODE_INVALID);
    assert_int_equal(holdfast_batch_async(handle, operations, 0, NULL, on_written, &seen), HOLDFAST_CODE_INVALID);
    assert_int_equal(holdfast_status_async(handle, 3, 0, on_status, &seen), HOLDFAST_CODE_INVALID);
    holdfast_close(handle);
    assert_false(atomic_load(&seen.done));
    fake_thread_stop(&fake);
    fake_thread_free(&fake);
}

static void test_client_close_runs_callbacks_of_calls_under_way(void **state) {
    (void)state;
    static struct fake_thread fake;
    static struct counter counter;
    fake_thread_start(&fake, 1);
    atomic_store(&fake.cluster.nodes[0].fault, FAKE_HOLDS);
    struct holdfast *handle = open_handle(&fake, 100);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(holdfast_put_async(handle, "k", 1, "v", 1, NULL, count_result, &counter), HOLDFAST_CODE_OK);
    }
    holdfast_close(handle);
    assert_int_equal(atomic_load(&counter.closed), 50);
    fake_thread_stop(&fake);
    fake_thread_free(&fake);
}

static void test_client_large_value_batch_and_scan_pages(void **state) {
    (void)state;
    static struct fake_thread fake;
    static uint8_t large[LIMIT_VALUE_BYTES];
    struct holdfast_result result;
    struct holdfast_value value;
    for (size_t i = 0; i < sizeof large; i++) {
        large[i] = (uint8_t)(i * 31 >> 3);
    }
    fake_thread_start(&fake, 3);
    atomic_store(&fake.cluster.page_limit, 2);
    struct holdfast *handle = open_handle(&fake, 100);
    assert_int_equal(holdfast_put(handle, "large", 5, large, sizeof large, NULL, &result), HOLDFAST_OK);
    assert_int_equal(holdfast_get(handle, "large", 5, NULL, &value, &result), HOLDFAST_OK);
    assert_int_equal(value.len, sizeof large);
    assert_memory_equal(value.data, large, sizeof large);
    holdfast_value_free(handle, &value);
    const struct holdfast_range range = {"k", 1, "m", 1};
    assert_int_equal(holdfast_delete_range(handle, &range, NULL, &result), HOLDFAST_OK);
    assert_int_equal(result.revision, 2);
    assert_int_equal(holdfast_get(handle, "large", 5, NULL, &value, &result), HOLDFAST_FAILED);
    assert_int_equal(result.code, HOLDFAST_CODE_NOT_FOUND);
    assert_int_equal(holdfast_put(handle, "large", 5, large, 10, NULL, &result), HOLDFAST_OK);
    const struct holdfast_operation operations[] = {{HOLDFAST_PUT, "a", 1, "1", 1},
                                                    {HOLDFAST_PUT, "b", 1, NULL, 0},
                                                    {HOLDFAST_PUT, "c", 1, "3", 1},
                                                    {HOLDFAST_DELETE, "large", 5, NULL, 0}};
    assert_int_equal(holdfast_batch(handle, operations, 4, NULL, &result), HOLDFAST_OK);
    struct holdfast_scan scan = {0};
    struct holdfast_page *page = NULL;
    assert_int_equal(holdfast_scan_page(handle, &scan, NULL, &page, &result), HOLDFAST_OK);
    assert_int_equal(page->pair_count, 2);
    assert_true(page->more);
    assert_int_equal(page->next_lower_len, 2);
    assert_memory_equal(page->next_lower, "b", 2);
    holdfast_page_free(handle, page);
    struct holdfast_node_status status;
    assert_int_equal(holdfast_status(handle, 2, 0, &status, &result), HOLDFAST_OK);
    assert_string_equal(status.node_name, "n3");
    assert_int_equal(holdfast_status(handle, 3, 0, &status, &result), HOLDFAST_FAILED);
    assert_int_equal(holdfast_put(handle, "", 0, "v", 1, NULL, &result), HOLDFAST_FAILED);
    assert_int_equal(result.code, HOLDFAST_CODE_INVALID);
    assert_int_equal(holdfast_delete(handle, "a", 1, NULL, NULL), HOLDFAST_OK);
    holdfast_close(handle);
    fake_thread_stop(&fake);
    fake_thread_free(&fake);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_blocking_calls_of_many_threads_get_their_own_answers),
        cmocka_unit_test(test_client_async_bytes_are_copied_and_bounded),
        cmocka_unit_test(test_client_async_calls_of_every_kind_are_answered),
        cmocka_unit_test(test_client_callbacks_may_call_but_not_block),
        cmocka_unit_test(test_client_close_runs_callbacks_of_calls_under_way),
        cmocka_unit_test(test_client_large_value_batch_and_scan_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
