/*
 * Breaks when: the bar or the lines of an import show other numbers than they were given, come more often than they
 * should, or divide by zero where the size isn't known.
 */
#include "node/ctl/progress.h"
#include "tests/unit/support/support.h"

#include <stdio.h>
#include <string.h>

static char shown[4096];

static void read_back(FILE *file) {
    rewind(file);
    size_t len = fread(shown, 1, sizeof shown - 1, file);
    shown[len] = '\0';
    (void)fclose(file);
}

static void test_progress_terminal_draws_a_bar_with_time_left(void **state) {
    (void)state;
    struct progress progress;
    FILE *out = tmpfile();
    progress_init(&progress, out, true, 1000, 0);
    progress_show(&progress, 50 * 1000, 5, 50, 100); /* too soon */
    progress_show(&progress, 2000 * 1000, 4000, 3000000, 500);
    progress_clear(&progress);
    read_back(out);
    assert_string_equal(shown,
                        "\r[###############---------------]  50% 4000 pairs, 2000/s, 3.0 MB, 0:02 left\033[K\r\033[K");
}

static void test_progress_terminal_without_size_shows_numbers(void **state) {
    (void)state;
    struct progress progress;
    FILE *out = tmpfile();
    progress_init(&progress, out, true, 0, 0);
    progress_show(&progress, 1000 * 1000, 10, 1000000, 0);
    progress_show(&progress, 2000 * 1000, 30, 2000000, 0);
    read_back(out);
    assert_string_equal(shown, "\r10 pairs, 10/s, 1.0 MB\033[K\r30 pairs, 20/s, 2.0 MB\033[K");
}

static void test_progress_elsewhere_is_a_line_a_second(void **state) {
    (void)state;
    struct progress progress;
    FILE *out = tmpfile();
    progress_init(&progress, out, false, 0, 0);
    for (unsigned ms = 0; ms <= 2500; ms += 10) {
        progress_show(&progress, (uint64_t)ms * 1000, ms, 0, 0);
    }
    progress_clear(&progress);
    read_back(out);
    assert_string_equal(
        shown, "holdfastctl: import: 1000 pairs, 1000/s, 0.0 MB\nholdfastctl: import: 2000 pairs, 1000/s, 0.0 MB\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress_terminal_draws_a_bar_with_time_left),
        cmocka_unit_test(test_progress_terminal_without_size_shows_numbers),
        cmocka_unit_test(test_progress_elsewhere_is_a_line_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
