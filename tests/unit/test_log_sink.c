/*
 * The daemon's log. What would break: a line lost without a word, lines torn or out of order, a full disk that stops
 * logging for good, a rotated file that stays empty, an end that forgets the last lines, a thread that waits for the
 * disk.
 */
#include "tests/unit/support/support.h"

#include "node/base/check.h"
#include "node/env/os/env_os.h"
#include "node/server/log_sink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char *dir;
    char *path;
    struct env *env;
    struct env_loop *loop;
    struct log_sink *sink;
    bool flushed;
};

static int set_up(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct error error;
    fixture->dir = test_dir_new();
    fixture->path = strdup(test_path(fixture->dir, "log"));
    struct env_os_options options = {.workers_short = 1, .workers_long = 1};
    assert_int_equal(env_os_new(&options, &fixture->env, &error), STATUS_OK);
    assert_int_equal(env_loop_new(fixture->env, "test", 16, &fixture->loop, &error), STATUS_OK);
    *state = fixture;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *fixture = *state;
    log_sink_close(fixture->sink);
    env_loop_free(fixture->loop);
    env_os_free(fixture->env);
    test_dir_remove(fixture->dir);
    free(fixture->path);
    free(fixture);
    return 0;
}

static void open_sink(struct fixture *fixture, const char *path) {
    struct error error;
    assert_int_equal(log_sink_open(fixture->env, path, LOG_INFO, &fixture->sink, &error), STATUS_OK);
}

static void say(struct fixture *fixture, unsigned number) {
    log_event(log_sink_logger(fixture->sink), LOG_INFO, "test", "number=%u", number);
}

static void on_flushed(void *context) { ((struct fixture *)context)->flushed = true; }

static void finish(struct fixture *fixture) {
    fixture->flushed = false;
    log_sink_finish(fixture->sink, on_flushed, fixture);
    assert_true(test_loop_until_set(fixture->loop, &fixture->flushed, 5000));
}

static char *read_file(const char *path) {
    char *text = calloc(1, 4 * 1024 * 1024);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t len = fread(text, 1, 4 * 1024 * 1024 - 1, file);
    text[len] = '\0';
    (void)fclose(file);
    return text;
}

/* Lines with number=first, first + 1, ... in order, whole, nothing else. Returns how many. */
static unsigned count_lines(const char *path, unsigned first) {
    char *text = read_file(path);
    unsigned count = 0;
    for (char *line = text; *line != '\0'; count++) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        char tail[64];
        (void)snprintf(tail, sizeof tail, "Z level=info event=test number=%u", first + count);
        assert_int_equal(strncmp(line, "ts=", 3), 0);
        assert_string_equal(line + strlen(line) - strlen(tail), tail);
        line = end + 1;
    }
    free(text);
    return count;
}

static void test_log_sink_direct_lines_are_there_at_once(void **state) {
    struct fixture *fixture = *state;
    open_sink(fixture, fixture->path);
    say(fixture, 1);
    say(fixture, 2);
    assert_int_equal(count_lines(fixture->path, 1), 2);
    struct stat info;
    assert_int_equal(stat(fixture->path, &info), 0);
    assert_int_equal(info.st_mode & 0137, 0); /* nobody but owner and group */
}

static void test_log_sink_appends_to_what_was_there(void **state) {
    struct fixture *fixture = *state;
    open_sink(fixture, fixture->path);
    say(fixture, 1);
    log_sink_close(fixture->sink);
    open_sink(fixture, fixture->path);
    say(fixture, 2);
    assert_int_equal(count_lines(fixture->path, 1), 2);
}

static void test_log_sink_path_that_cannot_be_opened_is_named(void **state) {
    struct fixture *fixture = *state;
    struct error error;
    enum status status =
        log_sink_open(fixture->env, test_path(fixture->dir, "no/such/log"), LOG_INFO, &fixture->sink, &error);
    assert_int_equal(status, STATUS_NOT_FOUND);
    assert_non_null(strstr(error.message, "no/such/log"));
    assert_null(fixture->sink);
}

static void test_log_sink_finish_writes_all_that_was_queued(void **state) {
    struct fixture *fixture = *state;
    open_sink(fixture, fixture->path);
    say(fixture, 0);
    log_sink_attach(fixture->sink, fixture->loop);
    for (unsigned i = 1; i <= 500; i++) {
        say(fixture, i);
    }
    finish(fixture);
    say(fixture, 501); /* direct again */
    assert_int_equal(count_lines(fixture->path, 0), 502);
}

struct speaker {
    struct env_task task;
    struct fixture *fixture;
    struct env_timer stop_timer;
    unsigned next;
    unsigned lines;
    bool done;
};

static void run_speaker(struct env_task *task) {
    struct speaker *speaker = CONTAINER_OF(task, struct speaker, task);
    for (unsigned i = 0; i < speaker->lines; i++) {
        say(speaker->fixture, speaker->next++);
    }
    speaker->done = true;
}

/* On the loop, too, nothing is written by the loop itself; order is kept. */
static void speak_on_loop(struct fixture *fixture, unsigned first, unsigned lines) {
    struct speaker speaker = {.fixture = fixture, .next = first, .lines = lines};
    env_task_init(&speaker.task, run_speaker);
    env_defer(fixture->loop, ENV_STAGE_PROCESS, &speaker.task);
    assert_true(test_loop_until_set(fixture->loop, &speaker.done, 5000));
}

static void test_log_sink_lines_of_the_loop_keep_their_order(void **state) {
    struct fixture *fixture = *state;
    open_sink(fixture, fixture->path);
    log_sink_attach(fixture->sink, fixture->loop);
    speak_on_loop(fixture, 0, 300);
    speak_on_loop(fixture, 300, 300);
    finish(fixture);
    assert_int_equal(count_lines(fixture->path, 0), 600);
}

static void test_log_sink_reopen_follows_rotation(void **state) {
    struct fixture *fixture = *state;
    char *rotated = strdup(test_path(fixture->dir, "log.1"));
    open_sink(fixture, fixture->path);
    log_sink_attach(fixture->sink, fixture->loop);
    speak_on_loop(fixture, 0, 3);
    finish(fixture);
    assert_int_equal(rename(fixture->path, rotated), 0);
    log_sink_attach(fixture->sink, fixture->loop);
    log_sink_reopen(fixture->sink);
    speak_on_loop(fixture, 3, 2);
    finish(fixture);
    assert_int_equal(count_lines(rotated, 0), 3);
    assert_int_equal(count_lines(fixture->path, 3), 2);
    free(rotated);
}

/* More than may be under way: the rest is counted, and the count is said. */
static void test_log_sink_overflow_is_counted_and_said(void **state) {
    struct fixture *fixture = *state;
    open_sink(fixture, fixture->path);
    log_sink_attach(fixture->sink, fixture->loop);
    for (unsigned i = 0; i < LOG_SINK_LINES_MAX + 7; i++) {
        say(fixture, i); /* not on the loop: posted, and the loop doesn't run */
    }
    finish(fixture);
    char *text = read_file(fixture->path);
    assert_non_null(strstr(text, "number=1023\n"));
    assert_null(strstr(text, "number=1024\n"));
    assert_non_null(strstr(text, "level=warn event=log.dropped lines=7\n"));
    free(text);
}

/* What can't be written is counted, too; the sink neither stops nor spins. */
static void test_log_sink_failed_write_is_made_up_for_by_a_count(void **state) {
    struct fixture *fixture = *state;
    open_sink(fixture, "/dev/full");
    log_sink_attach(fixture->sink, fixture->loop);
    speak_on_loop(fixture, 0, 5);
    finish(fixture);
    log_sink_close(fixture->sink);
    fixture->sink = NULL;
    assert_int_equal(symlink("/dev/full", fixture->path), 0);
    open_sink(fixture, fixture->path);
    log_sink_attach(fixture->sink, fixture->loop);
    speak_on_loop(fixture, 0, 5);
    bool never = false;
    (void)test_loop_until_set(fixture->loop, &never, 50); /* the worker fails meanwhile */
    assert_int_equal(unlink(fixture->path), 0);
    log_sink_reopen(fixture->sink);
    speak_on_loop(fixture, 5, 1);
    finish(fixture);
    char *text = read_file(fixture->path);
    assert_non_null(strstr(text, "number=5\n"));
    assert_non_null(strstr(text, "event=log.dropped lines=5\n"));
    free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_log_sink_direct_lines_are_there_at_once),
        TEST(test_log_sink_appends_to_what_was_there),
        TEST(test_log_sink_path_that_cannot_be_opened_is_named),
        TEST(test_log_sink_finish_writes_all_that_was_queued),
        TEST(test_log_sink_lines_of_the_loop_keep_their_order),
        TEST(test_log_sink_reopen_follows_rotation),
        TEST(test_log_sink_overflow_is_counted_and_said),
        TEST(test_log_sink_failed_write_is_made_up_for_by_a_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
