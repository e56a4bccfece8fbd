/*
 * Fault hooks: parsing and decisions. Breaks if a wrong specification arms anything or is refused without naming the
 * word, if after, count or probability are not kept, or if the table isn't sorted.
 */
#include "node/base/fault.h"
#include "tests/unit/support/support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct fault_set set;
static struct error err;

static int setup(void **state) {
    (void)state;
    fault_init(&set);
    return 0;
}

static void arm(const char *specification) { assert_int_equal(fault_arm(&set, specification, &err), STATUS_OK); }

static enum fault_kind hit(enum fault_hook hook) { return fault_hit(&set, hook).kind; }

static void test_fault_table_is_sorted_and_found_by_name(void **state) {
    (void)state;
    for (int hook = 0; hook < (int)FAULT_HOOK_COUNT; hook++) {
        struct fault_info info = fault_describe((enum fault_hook)hook);
        assert_int_equal(fault_find(info.name), hook);
        assert_true(strlen(info.text) > 0);
        if (hook > 0) {
            assert_true(strcmp(fault_describe((enum fault_hook)(hook - 1)).name, info.name) < 0);
        }
    }
    assert_int_equal(fault_find("nothing"), FAULT_HOOK_COUNT);
}

static void test_fault_off_by_default_and_without_a_set(void **state) {
    (void)state;
    for (int hook = 0; hook <= (int)FAULT_HOOK_COUNT; hook++) {
        assert_int_equal(hit((enum fault_hook)hook), FAULT_KIND_OFF);
        assert_int_equal(fault_hit(NULL, (enum fault_hook)hook).kind, FAULT_KIND_OFF);
    }
}

static void test_fault_kinds_and_arguments_are_parsed(void **state) {
    (void)state;
    arm("wal.write=error(EIO);;apply=delay(20);sst.read=hang;manifest.write=short;flush.sync=exit(3);");
    struct fault_action action = fault_hit(&set, FAULT_WAL_WRITE);
    assert_true(action.kind == FAULT_KIND_ERROR && action.argument == EIO);
    action = fault_hit(&set, FAULT_APPLY);
    assert_true(action.kind == FAULT_KIND_DELAY && action.argument == 20);
    assert_int_equal(hit(FAULT_SST_READ), FAULT_KIND_HANG);
    assert_int_equal(hit(FAULT_MANIFEST_WRITE), FAULT_KIND_SHORT);
    action = fault_hit(&set, FAULT_FLUSH_SYNC);
    assert_true(action.kind == FAULT_KIND_EXIT && action.argument == 3);
    assert_int_equal(hit(FAULT_WAL_READ), FAULT_KIND_OFF);
    assert_true(fault_is_armed(&set, FAULT_SST_READ));
    fault_disarm(&set, FAULT_SST_READ);
    assert_false(fault_is_armed(&set, FAULT_SST_READ));
    assert_int_equal(hit(FAULT_SST_READ), FAULT_KIND_OFF);
}

static void test_fault_after_and_count_are_kept(void **state) {
    (void)state;
    arm("wal.write=error(ENOSPC),after=3,count=2");
    const char *expected = "...XX...";
    for (const char *at = expected; *at != '\0'; at++) {
        assert_int_equal(hit(FAULT_WAL_WRITE) != FAULT_KIND_OFF, *at == 'X');
    }
    arm("wal.write=error(ENOSPC),count=1"); /* arming again starts afresh */
    assert_int_equal(hit(FAULT_WAL_WRITE), FAULT_KIND_ERROR);
    assert_int_equal(hit(FAULT_WAL_WRITE), FAULT_KIND_OFF);
}

static uint64_t draw_pattern(const char *specification) {
    arm(specification);
    uint64_t pattern = 0;
    for (int i = 0; i < 64; i++) {
        pattern = pattern << 1 | (hit(FAULT_APPLY) != FAULT_KIND_OFF);
    }
    return pattern;
}

static void test_fault_probability_draws_by_seed(void **state) {
    (void)state;
    uint64_t pattern = draw_pattern("apply=short,probability=0.5,seed=7");
    assert_true(draw_pattern("apply=short,probability=0.5,seed=7") == pattern);
    assert_true(draw_pattern("apply=short,probability=0.5,seed=8") != pattern);
    assert_true(draw_pattern("apply=short,probability=0") == 0);
    assert_true(draw_pattern("apply=short,probability=1") == UINT64_MAX);
    arm("apply=short,probability=0.1,seed=1");
    int count = 0;
    for (int i = 0; i < 10000; i++) {
        count += hit(FAULT_APPLY) != FAULT_KIND_OFF;
    }
    assert_in_range(count, 800, 1200);
}

static void test_fault_wrong_specification_arms_nothing_and_names_the_word(void **state) {
    (void)state;
    static const struct {
        const char *specification;
        const char *word;
    } bad[] = {
        {"nothing=hang", "nothing"},
        {"wal.write", "wal.write"},
        {"wal.write=explode", "explode"},
        {"wal.write=", ""},
        {"wal.write=hang(3)", "hang"},
        {"wal.write=delay", "delay"},
        {"wal.write=delay()", "delay"},
        {"wal.write=delay(x)", "x"},
        {"wal.write=delay(-1)", "-1"},
        {"wal.write=delay(99999999999)", "99999999999"},
        {"wal.write=delay(5", "delay"},
        {"wal.write=error(EWHAT)", "EWHAT"},
        {"wal.write=hang,often=1", "often"},
        {"wal.write=hang,count", "count"},
        {"wal.write=hang,count=x", "x"},
        {"wal.write=hang,probability=1.5", "1.5"},
        {"wal.write=hang,probability=nan", "nan"},
        {"wal.write=hang,probability=-0.1", "-0.1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char specification[200];
        (void)snprintf(specification, sizeof specification, "apply=hang;%s", bad[i].specification);
        error_clear(&err);
        assert_int_equal(fault_arm(&set, specification, &err), STATUS_INVALID);
        assert_non_null(strstr(err.message, bad[i].word));
        assert_true(strlen(err.message) > 0);
        assert_false(fault_is_armed(&set, FAULT_APPLY)); /* the good part neither */
    }
    char many[8000];
    memset(many, ';', sizeof many - 1);
    many[sizeof many - 1] = '\0';
    assert_int_equal(fault_arm(&set, many, &err), STATUS_INVALID);
}

#define FRESH(test) cmocka_unit_test_setup(test, setup)

int main(void) {
    const struct CMUnitTest tests[] = {
        FRESH(test_fault_table_is_sorted_and_found_by_name),
        FRESH(test_fault_off_by_default_and_without_a_set),
        FRESH(test_fault_kinds_and_arguments_are_parsed),
        FRESH(test_fault_after_and_count_are_kept),
        FRESH(test_fault_probability_draws_by_seed),
        FRESH(test_fault_wrong_specification_arms_nothing_and_names_the_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
