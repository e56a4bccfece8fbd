/*
 * Many threads that write log lines at once, while the loop is busy writing: under ThreadSanitizer, and every line is
 * either whole in the file, in its thread's order, or counted as dropped.
 */
#include "tests/unit/support/support.h"

#include "node/base/check.h"
#include "node/env/os/env_os.h"
#include "node/server/log_sink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 3, LINES = 3000 };

struct speaker {
    struct env_loop *loop;
    struct log_sink *sink;
    unsigned number;
    struct env_message message;
    _Atomic bool done;
};

static void run_speaker(struct env_message *message) {
    struct speaker *speaker = CONTAINER_OF(message, struct speaker, message);
    for (unsigned i = 0; i < LINES; i++) {
        log_event(log_sink_logger(speaker->sink), LOG_INFO, "test", "thread=%u line=%u", speaker->number, i);
    }
    atomic_store(&speaker->done, true);
}

static bool all_done(void *context) {
    struct speaker *speakers = context;
    bool done = true;
    for (int i = 0; i < THREADS; i++) {
        done = done && atomic_load(&speakers[i].done);
    }
    return done;
}

static void on_flushed(void *context) { *(bool *)context = true; }

/* Checks order per thread; returns lines in the file plus those that were counted. */
static unsigned account(const char *path) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char line[LOG_LINE_BYTES_MAX + 2];
    int last[THREADS] = {-1, -1, -1};
    unsigned count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned thread, number, dropped;
        const char *event = strstr(line, "event=");
        assert_non_null(event);
        if (sscanf(event, "event=log.dropped lines=%u", &dropped) == 1) {
            count += dropped;
        } else {
            assert_int_equal(sscanf(event, "event=test thread=%u line=%u", &thread, &number), 2);
            assert_true(thread < THREADS && (int)number > last[thread]);
            last[thread] = (int)number;
            count++;
        }
    }
    (void)fclose(file);
    return count;
}

static void test_log_sink_lines_of_many_threads_are_whole_or_counted(void **state) {
    (void)state;
    char *dir = test_dir_new();
    char *path = strdup(test_path(dir, "log"));
    struct env *env;
    struct env_loop *loop;
    struct log_sink *sink;
    struct error error;
    struct env_os_options options = {.workers_short = 2, .workers_long = 1};
    struct speaker speakers[THREADS] = {0};
    assert_int_equal(env_os_new(&options, &env, &error), STATUS_OK);
    assert_int_equal(env_loop_new(env, "main", 16, &loop, &error), STATUS_OK);
    assert_int_equal(log_sink_open(env, path, LOG_INFO, &sink, &error), STATUS_OK);
    log_sink_attach(sink, loop);
    for (unsigned i = 0; i < THREADS; i++) {
        speakers[i] = (struct speaker){.sink = sink, .number = i, .message.run = run_speaker};
        assert_int_equal(env_loop_new(env, "speaker", 16, &speakers[i].loop, &error), STATUS_OK);
        assert_int_equal(env_loop_spawn(speakers[i].loop, &error), STATUS_OK);
        env_post(speakers[i].loop, &speakers[i].message);
    }
    assert_true(test_loop_until(loop, all_done, speakers, 20000));
    for (unsigned i = 0; i < THREADS; i++) {
        env_loop_stop(speakers[i].loop);
        env_loop_join(speakers[i].loop);
        env_loop_free(speakers[i].loop);
    }
    bool flushed = false;
    log_sink_finish(sink, on_flushed, &flushed);
    assert_true(test_loop_until_set(loop, &flushed, 5000));
    log_sink_close(sink);
    env_loop_free(loop);
    env_os_free(env);
    assert_int_equal(account(path), THREADS * LINES);
    test_dir_remove(dir);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_log_sink_lines_of_many_threads_are_whole_or_counted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
