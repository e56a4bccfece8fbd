/*
 * Statuses, errors, log lines. Breaks if a status has no name of its own, if an errno is converted wrongly, if a long
 * message overflows, or if a value can forge a second log line.
 */
#include "node/base/log.h"
#include "node/base/status.h"
#include "tests/unit/support/support.h"

#include <errno.h>
#include <string.h>

static void test_status_names_are_there_and_differ(void **state) {
    (void)state;
    for (int i = 0; i < (int)STATUS_COUNT; i++) {
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(status_name((enum status)i), status_name((enum status)k));
        }
    }
    assert_string_equal(status_name(STATUS_NOT_FOUND), "not_found");
}

static void test_error_set_fills_in_and_returns_the_code(void **state) {
    (void)state;
    struct error err = {.sys = 5};
    assert_int_equal(error_set(&err, STATUS_BUSY, "%d things", 3), STATUS_BUSY);
    assert_int_equal(err.code, STATUS_BUSY);
    assert_int_equal(err.sys, 0);
    assert_string_equal(err.message, "3 things");
    assert_int_equal(error_set(NULL, STATUS_BUSY, "nobody listens"), STATUS_BUSY);
    error_clear(&err);
    assert_int_equal(err.code, STATUS_OK);
    assert_string_equal(err.message, "");
}

static void test_error_set_sys_maps_errno_and_says_why(void **state) {
    (void)state;
    static const struct {
        int sys;
        enum status status;
    } cases[] = {{ENOSPC, STATUS_NO_SPACE},  {EDQUOT, STATUS_NO_SPACE}, {ENOMEM, STATUS_NO_MEMORY},
                 {ENOENT, STATUS_NOT_FOUND}, {EEXIST, STATUS_EXISTS},   {EIO, STATUS_IO},
                 {EACCES, STATUS_IO}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err;
        assert_int_equal(error_set_sys(&err, cases[i].sys, "open %s", "f"), cases[i].status);
        assert_int_equal(err.sys, cases[i].sys);
        assert_int_equal(strncmp(err.message, "open f: ", 8), 0);
        assert_string_equal(err.message + 8, strerror(cases[i].sys));
    }
}

static void test_error_messages_are_cut_not_overflowed(void **state) {
    (void)state;
    char text[1000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct error err;
    (void)error_set_sys(&err, EIO, "%s", text);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES_MAX - 1);
    (void)error_set(&err, STATUS_IO, "cause");
    error_prefix(&err, "%s", "node n1");
    assert_string_equal(err.message, "node n1: cause");
    error_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES_MAX - 1);
    error_prefix(NULL, "nobody listens");
}

/* ---- Log lines --------------------------------------------------------------------------------------------------- */

struct capture {
    struct logger logger;
    char line[LOG_LINE_BYTES_MAX + 1];
    int count;
};

static int64_t fixed_wall_ms(struct logger *logger) {
    (void)logger;
    return 1700000000123;
}

static void capture_line(struct logger *logger, enum log_level level, struct slice line) {
    struct capture *capture = (struct capture *)(void *)logger;
    assert_true(level >= logger->level_min);
    assert_true(line.len < LOG_LINE_BYTES_MAX);
    memcpy(capture->line, line.data, line.len);
    capture->line[line.len] = '\0';
    capture->count++;
}

static void test_log_line_is_logfmt_above_the_level(void **state) {
    (void)state;
    struct capture capture = {.logger = {.level_min = LOG_INFO, .wall_ms = fixed_wall_ms, .write = capture_line}};
    log_event(&capture.logger, LOG_INFO, "peer.connected", "peer=%s addr=%s", "n2", "127.0.0.1:4502");
    assert_string_equal(capture.line, "ts=2023-11-14T22:13:20.123Z level=info event=peer.connected peer=n2 "
                                      "addr=127.0.0.1:4502");
    log_event(&capture.logger, LOG_ERROR, "bare", "%s", "");
    log_event(&capture.logger, LOG_DEBUG, "quiet", "x=%d", 1);
    assert_int_equal(capture.count, 2);
    log_event(NULL, LOG_ERROR, "nobody", "x=%d", 1);
}

static void test_log_line_keeps_to_one_line_and_its_length(void **state) {
    (void)state;
    struct capture capture = {.logger = {.wall_ms = fixed_wall_ms, .write = capture_line}};
    log_event(&capture.logger, LOG_WARN, "forged", "key=%s", "a\nts=2023 level=error\r\x1b[0m\x7f");
    assert_null(strpbrk(capture.line, "\n\r\x1b\x7f"));
    assert_non_null(strstr(capture.line, "a?ts=2023"));
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_event(&capture.logger, LOG_WARN, "long", "key=%s", text);
    assert_int_equal(strlen(capture.line), LOG_LINE_BYTES_MAX - 1);
    log_event(&capture.logger, LOG_WARN, text, "key=%s", "v");
    assert_int_equal(strlen(capture.line), LOG_LINE_BYTES_MAX - 1);
}

static void test_log_quote_escapes_and_cuts(void **state) {
    (void)state;
    char out[16];
    assert_string_equal(log_quote(out, sizeof out, "say \"a\\b\""), "\"say \\\"a\\\\b\\\"\"");
    assert_string_equal(log_quote(out, sizeof out, ""), "\"\"");
    assert_string_equal(log_quote(out, 3, "abc"), "\"\"");
    for (size_t size = 3; size <= sizeof out; size++) {
        memset(out, '#', sizeof out);
        assert_true(strlen(log_quote(out, size, "\"\"\"\"\"\"\"\"\"\"")) < size);
    }
}

static void test_log_levels_parse_by_name(void **state) {
    (void)state;
    for (int level = LOG_DEBUG; level <= (int)LOG_ERROR; level++) {
        enum log_level parsed = LOG_DEBUG;
        assert_int_equal(log_level_parse(log_level_name((enum log_level)level), &parsed), STATUS_OK);
        assert_int_equal(parsed, level);
    }
    enum log_level untouched = LOG_WARN;
    assert_int_equal(log_level_parse("INFO", &untouched), STATUS_INVALID);
    assert_int_equal(untouched, LOG_WARN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_names_are_there_and_differ),
        cmocka_unit_test(test_error_set_fills_in_and_returns_the_code),
        cmocka_unit_test(test_error_set_sys_maps_errno_and_says_why),
        cmocka_unit_test(test_error_messages_are_cut_not_overflowed),
        cmocka_unit_test(test_log_line_is_logfmt_above_the_level),
        cmocka_unit_test(test_log_line_keeps_to_one_line_and_its_length),
        cmocka_unit_test(test_log_quote_escapes_and_cuts),
        cmocka_unit_test(test_log_levels_parse_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
