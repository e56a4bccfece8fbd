/*
 * holdfast-check as a library: good histories of hundreds of operations are found good in few steps; what systems
 * really do wrong is found, and shown in few operations; one hard key doesn't keep the others from their verdict;
 * memory runs out without a wrong verdict.
 */
#include "tests/chaos/check/check.h"
#include "tests/chaos/check/witness.h"
#include "tests/unit/support/random_history.h"
#include "tests/unit/support/support.h"

#include <stdio.h>

enum { ALL_KINDS = (1 << CHECK_KIND_COUNT) - 1, SEEDS = 8, OPERATIONS = 800 };

struct fixture {
    struct check_history history;
    struct random_history made;
    struct check_result result;
    uint64_t client; /* one that nobody else is */
};

static void set_up(struct fixture *fixture, const struct random_history_options *options) {
    memset(fixture, 0, sizeof *fixture);
    assert_int_equal(check_history_init(&fixture->history, alloc_system()), STATUS_OK);
    random_history_init(&fixture->made, &fixture->history, options);
    fixture->client = UINT64_MAX / 2;
}

static enum check_verdict judge(struct fixture *fixture) {
    struct check_budget budget;
    check_budget_init(&budget);
    budget.shrink_steps = 500 * 1000;
    check_result_deinit(&fixture->result);
    assert_int_equal(check_run(&fixture->history, &budget, &fixture->result), STATUS_OK);
    return fixture->result.verdict;
}

static void tear_down(struct fixture *fixture) {
    check_result_deinit(&fixture->result);
    check_history_deinit(&fixture->history);
}

static uint32_t value(struct fixture *fixture, const char *text) {
    uint32_t number = VALUES_NONE;
    assert_int_equal(values_intern(&fixture->history.values, slice_of_string(text), &number), STATUS_OK);
    return number;
}

static struct check_part get_of(uint32_t key, uint32_t result) {
    return (struct check_part){.kind = CHECK_GET, .key = key, .result = result};
}

static struct check_part put_of(uint32_t key, uint32_t put) {
    return (struct check_part){.kind = CHECK_PUT, .key = key, .value = put, .result = CHECK_ANY};
}

static uint32_t begin(struct fixture *fixture, const struct check_part *parts, uint32_t count) {
    uint32_t operation = 0;
    assert_int_equal(check_history_begin(&fixture->history, ++fixture->client, ++fixture->made.clock, parts, count,
                                         &operation),
                     STATUS_OK);
    return operation;
}

static void end(struct fixture *fixture, uint32_t operation) {
    assert_int_equal(check_history_end(&fixture->history, operation, ++fixture->made.clock, CHECK_OK, NULL, 0),
                     STATUS_OK);
}

/* Begins and ends, with the result that the part names. */
static void all_of(struct fixture *fixture, struct check_part part) { end(fixture, begin(fixture, &part, 1)); }

/* ---- Good histories ---------------------------------------------------------------------------------------------- */

#define BUSY .clients = 10, .keys = 4, .failed_percent = 4

static const struct random_history_options register_options = {BUSY, .kinds = 1 << CHECK_GET | 1 << CHECK_PUT,
                                                               .unknown_percent = 10};
static const struct random_history_options cas_options = {BUSY,
                                                          .kinds = 1 << CHECK_GET | 1 << CHECK_PUT | 1 << CHECK_CAS,
                                                          .unknown_percent = 5};
static const struct random_history_options batch_options = {BUSY, .kinds = 1 << CHECK_GET | 1 << CHECK_PUT,
                                                            .unknown_percent = 5, .batch_percent = 20};
static const struct random_history_options append_options = {BUSY,
                                                             .kinds =
                                                                 1 << CHECK_GET | 1 << CHECK_PUT | 1 << CHECK_APPEND,
                                                             .unknown_percent = 3};
static const struct random_history_options add_options = {BUSY, .kinds = 1 << CHECK_GET | 1 << CHECK_ADD,
                                                          .unknown_percent = 1};

/* Would fail if the search threw an order away, or lost its way where unknown operations pile up. */
static void test_check_history_of_a_real_object_is_linearizable(void **state) {
    (void)state;
    const struct random_history_options *const all[] = {&register_options, &cas_options, &batch_options,
                                                        &append_options, &add_options};
    const uint64_t count = sizeof all / sizeof all[0];
    for (uint64_t i = 0; i < count * SEEDS; i++) {
        struct fixture fixture;
        struct random_history_options options = *all[i % count];
        options.seed = i;
        set_up(&fixture, &options);
        random_history_run(&fixture.made, OPERATIONS);
        assert_int_equal(judge(&fixture), CHECK_LINEARIZABLE);
        assert_in_range(fixture.result.steps, OPERATIONS / 2, 100 * 1000 * 1000);
        tear_down(&fixture);
    }
}

/* ---- Planted violations -------------------------------------------------------------------------------------------
 */

/* In the middle of a busy history, a few operations that nobody else disturbs, and that can't be so. */
static void plant(void (*violate)(struct fixture *fixture), struct random_history_options options, uint32_t items_max) {
    for (uint64_t i = 0; i < SEEDS; i++) {
        struct fixture fixture;
        options.seed = i;
        set_up(&fixture, &options);
        random_history_run(&fixture.made, OPERATIONS / 2);
        random_history_quiesce(&fixture.made);
        violate(&fixture);
        random_history_run(&fixture.made, OPERATIONS);
        assert_int_equal(judge(&fixture), CHECK_VIOLATION);
        assert_in_range(fixture.result.item_count, 1, items_max);
        tear_down(&fixture);
    }
}

/* Two writes were acknowledged, one after the other; a read that begins then shows the first. */
static void violate_by_stale_read(struct fixture *fixture) {
    all_of(fixture, put_of(0, value(fixture, "old")));
    all_of(fixture, put_of(0, value(fixture, "new")));
    all_of(fixture, get_of(0, value(fixture, "old")));
}

static void test_check_stale_read_is_found(void **state) {
    (void)state;
    plant(violate_by_stale_read, register_options, 3);
}

/* A write was acknowledged, and all is as before. */
static void violate_by_lost_write(struct fixture *fixture) {
    all_of(fixture, put_of(1, value(fixture, "before")));
    all_of(fixture, put_of(1, value(fixture, "lost")));
    all_of(fixture, get_of(1, value(fixture, "before")));
    all_of(fixture, get_of(1, value(fixture, "before")));
}

static void test_check_lost_write_is_found(void **state) {
    (void)state;
    plant(violate_by_lost_write, register_options, 3);
}

/* An append was acknowledged once, and is there twice. */
static void violate_by_double_append(struct fixture *fixture) {
    uint32_t now = random_history_value(&fixture->made, 2);
    uint32_t more = value(fixture, "+once");
    assert_int_equal(values_concat(&fixture->history.values, now, more, &now), STATUS_OK);
    assert_int_equal(values_concat(&fixture->history.values, now, more, &now), STATUS_OK);
    all_of(fixture, (struct check_part){.kind = CHECK_APPEND, .key = 2, .value = more, .result = CHECK_ANY});
    all_of(fixture, get_of(2, now));
}

/* The sum shows the same number added twice. */
static void violate_by_double_add(struct fixture *fixture) {
    uint32_t sum = VALUES_NONE;
    all_of(fixture, put_of(2, VALUES_NONE));
    assert_int_equal(values_add(&fixture->history.values, VALUES_NONE, 2000000, &sum), STATUS_OK);
    all_of(fixture, (struct check_part){.kind = CHECK_ADD, .key = 2, .delta = 1000000, .result = CHECK_ANY});
    all_of(fixture, get_of(2, sum));
}

static void test_check_append_applied_twice_is_found(void **state) {
    (void)state;
    plant(violate_by_double_append, append_options, OPERATIONS);
}

static void test_check_add_applied_twice_is_found(void **state) {
    (void)state;
    plant(violate_by_double_add, add_options, OPERATIONS);
}

/* While two writes are under way, reads show one, the other, and the one again. */
static void violate_by_reordered_reads(struct fixture *fixture) {
    struct check_part left = put_of(3, value(fixture, "left"));
    struct check_part right = put_of(3, value(fixture, "right"));
    uint32_t left_operation = begin(fixture, &left, 1);
    uint32_t right_operation = begin(fixture, &right, 1);
    all_of(fixture, get_of(3, left.value));
    all_of(fixture, get_of(3, right.value));
    all_of(fixture, get_of(3, left.value));
    end(fixture, left_operation);
    end(fixture, right_operation);
}

static void test_check_reordered_reads_are_found(void **state) {
    (void)state;
    plant(violate_by_reordered_reads, register_options, 5);
}

/* A failed write is seen. */
static void violate_by_failed_write(struct fixture *fixture) {
    struct check_part part = put_of(0, value(fixture, "refused"));
    uint32_t operation = begin(fixture, &part, 1);
    assert_int_equal(check_history_end(&fixture->history, operation, ++fixture->made.clock, CHECK_FAILED, NULL, 0),
                     STATUS_OK);
    all_of(fixture, get_of(0, part.value));
}

static void test_check_failed_write_that_is_seen_is_found(void **state) {
    (void)state;
    plant(violate_by_failed_write, register_options, 1);
}

/* A batch on two keys is seen in half. */
static void violate_by_torn_batch(struct fixture *fixture) {
    struct check_part parts[] = {put_of(0, value(fixture, "both")), put_of(1, value(fixture, "both"))};
    struct check_part seen[] = {get_of(0, value(fixture, "both")), get_of(1, value(fixture, "before"))};
    all_of(fixture, put_of(1, value(fixture, "before")));
    uint32_t writer = begin(fixture, parts, 2);
    end(fixture, begin(fixture, seen, 2));
    end(fixture, writer);
}

static void test_check_batch_seen_in_half_is_found(void **state) {
    (void)state;
    plant(violate_by_torn_batch, register_options, 6);
}

/* ---- The cuts of the search, one by one ----------------------------------------------------------------------------
 */

/* An unknown batch on a and b, of which a was written over before anybody looked: b still shows it. A search that
 * places unknown ones only where the next one reads what they wrote finds no order. */
static void test_check_unknown_batch_half_written_over_is_linearizable(void **state) {
    (void)state;
    struct fixture fixture;
    set_up(&fixture, &(struct random_history_options){.clients = 1, .keys = 2, .kinds = ALL_KINDS});
    struct check_part batch[] = {put_of(0, value(&fixture, "u")), put_of(1, value(&fixture, "u"))};
    struct check_part seen[] = {get_of(0, value(&fixture, "x")), get_of(1, value(&fixture, "u"))};
    (void)begin(&fixture, batch, 2);
    all_of(&fixture, put_of(0, value(&fixture, "x")));
    end(&fixture, begin(&fixture, seen, 2));
    assert_int_equal(judge(&fixture), CHECK_LINEARIZABLE);
    tear_down(&fixture);
}

/* Unknown writes explain a read each, once, and only from their begin on. */
static void test_check_unknown_write_happens_late_once_or_never(void **state) {
    (void)state;
    static const struct {
        const char *reads[3];
        enum check_verdict verdict;
    } cases[] = {{{"a", "a", "a"}, CHECK_LINEARIZABLE},
                 {{"a", "u", "u"}, CHECK_LINEARIZABLE},
                 {{"u", "u", "u"}, CHECK_LINEARIZABLE},
                 {{"u", "a", "a"}, CHECK_VIOLATION},
                 {{"a", "u", "a"}, CHECK_VIOLATION}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture fixture;
        set_up(&fixture, &(struct random_history_options){.clients = 1, .keys = 1, .kinds = ALL_KINDS});
        struct check_part unknown = put_of(0, value(&fixture, "u"));
        all_of(&fixture, put_of(0, value(&fixture, "a")));
        (void)begin(&fixture, &unknown, 1);
        for (size_t read = 0; read < 3; read++) {
            all_of(&fixture, get_of(0, value(&fixture, cases[i].reads[read])));
        }
        assert_int_equal(judge(&fixture), cases[i].verdict);
        tear_down(&fixture);
    }
}

/* A read before an unknown write began can't show it. */
static void test_check_unknown_write_seen_before_it_began_is_found(void **state) {
    (void)state;
    struct fixture fixture;
    set_up(&fixture, &(struct random_history_options){.clients = 1, .keys = 1, .kinds = ALL_KINDS});
    struct check_part unknown = put_of(0, value(&fixture, "u"));
    all_of(&fixture, get_of(0, unknown.value));
    (void)begin(&fixture, &unknown, 1);
    assert_int_equal(judge(&fixture), CHECK_VIOLATION);
    tear_down(&fixture);
}

/* ---- Budgets -------------------------------------------------------------------------------------------------------
 */

/* Key 0: appends that all overlap, and a read that none of their many orders explains, but nearly. */
static void make_hard(struct fixture *fixture, uint32_t count) {
    uint32_t all = VALUES_NONE;
    uint32_t operations[32];
    for (uint32_t i = 0; i < count; i++) {
        char text[8] = {(char)('a' + i % 26), (char)('0' + i / 26)};
        struct check_part part = {.kind = CHECK_APPEND, .key = 0, .value = value(fixture, text), .result = CHECK_ANY};
        operations[i] = begin(fixture, &part, 1);
        assert_int_equal(values_concat(&fixture->history.values, all, part.value, &all), STATUS_OK);
    }
    assert_int_equal(values_concat(&fixture->history.values, all, value(fixture, "!"), &all), STATUS_OK);
    for (uint32_t i = 0; i < count; i++) {
        end(fixture, operations[i]);
    }
    all_of(fixture, get_of(0, all));
}

/* One hard key would keep everybody waiting if keys were searched one after the other to the end. */
static void test_check_hard_key_does_not_starve_others(void **state) {
    (void)state;
    struct fixture fixture;
    struct check_budget budget;
    set_up(&fixture, &(struct random_history_options){.clients = 1, .keys = 3, .kinds = ALL_KINDS});
    make_hard(&fixture, 24);
    all_of(&fixture, get_of(2, value(&fixture, "never put")));
    check_budget_init(&budget);
    assert_int_equal(check_run(&fixture.history, &budget, &fixture.result), STATUS_OK);
    assert_int_equal(fixture.result.verdict, CHECK_VIOLATION);
    assert_in_range(fixture.result.steps, 1, 2 * budget.steps_first);
    tear_down(&fixture);
}

static void test_check_steps_used_up_is_undecided(void **state) {
    (void)state;
    struct fixture fixture;
    struct check_budget budget;
    set_up(&fixture, &(struct random_history_options){.clients = 1, .keys = 3, .kinds = ALL_KINDS});
    make_hard(&fixture, 24);
    all_of(&fixture, put_of(1, value(&fixture, "fine")));
    check_budget_init(&budget);
    budget.steps_max = 500 * 1000;
    assert_int_equal(check_run(&fixture.history, &budget, &fixture.result), STATUS_OK);
    assert_int_equal(fixture.result.verdict, CHECK_UNDECIDED);
    assert_int_equal(fixture.result.undecided, 1);
    assert_int_equal(fixture.result.rounds, 3);
    assert_in_range(fixture.result.steps, 500 * 1000, 1000 * 1000);
    tear_down(&fixture);
}

/* Too little memory for the states seen costs steps, not the verdict. */
static void test_check_little_memory_keeps_the_verdict(void **state) {
    (void)state;
    for (uint64_t bytes = 1 << 10; bytes <= 1 << 24; bytes <<= 7) {
        struct fixture fixture;
        struct check_budget budget;
        set_up(&fixture, &register_options);
        random_history_run(&fixture.made, 100);
        random_history_quiesce(&fixture.made);
        violate_by_stale_read(&fixture);
        check_budget_init(&budget);
        budget.memory_bytes = bytes;
        assert_int_equal(check_run(&fixture.history, &budget, &fixture.result), STATUS_OK);
        assert_int_equal(fixture.result.verdict, CHECK_VIOLATION);
        tear_down(&fixture);
    }
}

static enum status run_with(struct test_alloc *alloc, enum check_verdict *ret_verdict) {
    struct check_history history;
    struct check_result result = {.alloc = &alloc->base};
    struct check_budget budget;
    struct buf text;
    uint32_t key = 0;
    uint32_t number[3] = {0};
    uint32_t operation = 0;
    enum status status = check_history_init(&history, &alloc->base);
    buf_init(&text, &alloc->base, 0);
    check_budget_init(&budget);
    if (status == STATUS_OK) {
        status = check_history_key(&history, slice_of_string("key"), &key);
    }
    for (uint32_t i = 0; i < 3 && status == STATUS_OK; i++) {
        status = values_intern_number(&history.values, 100 + i, &number[i]);
    }
    for (uint32_t i = 0; i < 10 && status == STATUS_OK; i++) {
        struct check_part part =
            i == 9 ? get_of(key, number[0])
            : i % 2 == 0
                ? put_of(key, number[i % 3])
                : (struct check_part){.kind = CHECK_APPEND, .key = key, .value = number[i % 3], .result = CHECK_ANY};
        status = check_history_begin(&history, 1, i, &part, 1, &operation);
        if (status == STATUS_OK) {
            status = check_history_end(&history, operation, i, CHECK_OK, NULL, 0);
        }
    }
    if (status == STATUS_OK) {
        status = check_run(&history, &budget, &result);
    }
    if (status == STATUS_OK) {
        *ret_verdict = result.verdict;
        status = check_witness_print(&history, &result, &text);
    }
    buf_deinit(&text);
    check_result_deinit(&result);
    check_history_deinit(&history);
    return status;
}

/* Each allocation in turn fails: no leak, no crash, and no other verdict. */
static void test_check_no_memory_is_an_error_or_the_same_verdict(void **state) {
    (void)state;
    struct test_alloc alloc;
    enum check_verdict verdict = CHECK_UNDECIDED;
    test_alloc_init(&alloc);
    assert_int_equal(run_with(&alloc, &verdict), STATUS_OK);
    assert_int_equal(verdict, CHECK_VIOLATION);
    uint64_t attempts = alloc.attempts;
    uint64_t failed = 0;
    for (uint64_t n = 1; n <= attempts; n++) {
        verdict = CHECK_VIOLATION;
        test_alloc_fail(&alloc, n, false);
        enum status status = run_with(&alloc, &verdict);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        assert_int_equal(verdict, CHECK_VIOLATION);
        assert_int_equal(alloc.live_blocks, 0);
        failed += status == STATUS_NO_MEMORY;
    }
    assert_in_range(failed, attempts / 4, attempts);
}

/* ---- The witness, and values ----------------------------------------------------------------------------------------
 */

static void test_check_witness_names_keys_values_and_times(void **state) {
    (void)state;
    struct fixture fixture;
    struct buf text;
    set_up(&fixture, &(struct random_history_options){.clients = 1, .keys = 1, .kinds = ALL_KINDS});
    violate_by_stale_read(&fixture);
    assert_int_equal(judge(&fixture), CHECK_VIOLATION);
    buf_init(&text, alloc_system(), 0);
    assert_int_equal(check_witness_print(&fixture.history, &fixture.result, &text), STATUS_OK);
    assert_int_equal(buf_append(&text, "", 1), STATUS_OK);
    assert_non_null(strstr((char *)text.data, "put \"k0\" \"new\" (us 3 to 4)"));
    assert_non_null(strstr((char *)text.data, "get \"k0\" -> \"old\" (us 5 to 6)"));
    assert_non_null(strstr((char *)text.data, "\"k0\": \"new\""));
    json_t *json = check_witness_json(&fixture.history, &fixture.result);
    assert_int_equal(json_array_size(json_object_get(json, "operations")), 3);
    assert_int_equal(json_array_size(json_object_get(json, "placed")), 2);
    assert_int_equal(json_array_size(json_object_get(json, "stuck")), 1);
    json_decref(json);
    buf_deinit(&text);
    tear_down(&fixture);
}

/* Equal bytes, however they came together, are one value; others aren't; forgetting gives numbers back. */
static void test_values_joined_in_any_way_are_equal(void **state) {
    (void)state;
    struct values values;
    uint32_t parts[6];
    const char *const texts[] = {"ab", "c", "abc", "a", "bc", ""};
    assert_int_equal(values_init(&values, alloc_system()), STATUS_OK);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(values_intern(&values, slice_of_string(texts[i]), &parts[i]), STATUS_OK);
    }
    struct values_mark mark = values_mark(&values);
    uint32_t joined = 0;
    uint32_t other = 0;
    assert_int_equal(values_concat(&values, parts[0], parts[1], &joined), STATUS_OK);
    assert_int_equal(joined, parts[2]);
    assert_int_equal(values_concat(&values, parts[3], parts[4], &joined), STATUS_OK);
    assert_int_equal(joined, parts[2]);
    assert_int_equal(values_concat(&values, parts[2], parts[5], &joined), STATUS_OK);
    assert_int_equal(joined, parts[2]);
    assert_int_equal(values_concat(&values, VALUES_NONE, parts[5], &joined), STATUS_OK);
    assert_int_equal(joined, parts[5]);
    assert_int_not_equal(parts[5], VALUES_NONE);
    assert_int_equal(values_concat(&values, parts[1], parts[0], &joined), STATUS_OK); /* c ab */
    uint8_t bytes[8];
    assert_int_equal(values_copy(&values, joined, bytes, sizeof bytes), 3);
    assert_memory_equal(bytes, "cab", 3);
    for (uint32_t i = 0; i < 200; i++) { /* long chains, that end alike */
        assert_int_equal(values_concat(&values, joined, parts[i % 2], &joined), STATUS_OK);
    }
    assert_int_equal(values_copy_end(&values, joined, bytes, 3), 3);
    assert_memory_equal(bytes, "abc", 3);
    uint8_t whole[600];
    size_t len = values_copy(&values, joined, whole, sizeof whole);
    assert_int_equal(values_intern(&values, slice_of(whole, len), &other), STATUS_OK);
    assert_int_equal(other, joined);
    whole[0] = 'x';
    assert_int_equal(values_intern(&values, slice_of(whole, len), &other), STATUS_OK);
    assert_int_not_equal(other, joined);
    values_forget(&values, mark);
    assert_int_equal(values_concat(&values, parts[1], parts[1], &joined), STATUS_OK);
    assert_int_equal(joined, mark.count);
    values_deinit(&values);
}

static void test_values_add_knows_its_bounds(void **state) {
    (void)state;
    struct values values;
    uint32_t most = 0;
    uint32_t sum = 0;
    uint32_t word = 0;
    assert_int_equal(values_init(&values, alloc_system()), STATUS_OK);
    assert_int_equal(values_intern_number(&values, INT64_MAX, &most), STATUS_OK);
    assert_int_equal(values_add(&values, most, 1, &sum), STATUS_INVALID);
    assert_int_equal(values_add(&values, most, INT64_MIN, &sum), STATUS_OK);
    uint32_t minus_one = 0;
    assert_int_equal(values_intern(&values, slice_of_string("-1"), &minus_one), STATUS_OK);
    assert_int_equal(sum, minus_one);
    assert_int_equal(values_add(&values, VALUES_NONE, INT64_MIN, &sum), STATUS_OK);
    assert_int_equal(values_add(&values, sum, -1, &sum), STATUS_INVALID);
    const char *const no_numbers[] = {"", "-", "1x", "9223372036854775808", "123456789012345678901234567890"};
    for (size_t i = 0; i < sizeof no_numbers / sizeof no_numbers[0]; i++) {
        assert_int_equal(values_intern(&values, slice_of_string(no_numbers[i]), &word), STATUS_OK);
        assert_int_equal(values_add(&values, word, 1, &sum), STATUS_INVALID);
    }
    values_deinit(&values);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_history_of_a_real_object_is_linearizable),
        cmocka_unit_test(test_check_stale_read_is_found),
        cmocka_unit_test(test_check_lost_write_is_found),
        cmocka_unit_test(test_check_append_applied_twice_is_found),
        cmocka_unit_test(test_check_add_applied_twice_is_found),
        cmocka_unit_test(test_check_reordered_reads_are_found),
        cmocka_unit_test(test_check_failed_write_that_is_seen_is_found),
        cmocka_unit_test(test_check_batch_seen_in_half_is_found),
        cmocka_unit_test(test_check_unknown_batch_half_written_over_is_linearizable),
        cmocka_unit_test(test_check_unknown_write_happens_late_once_or_never),
        cmocka_unit_test(test_check_unknown_write_seen_before_it_began_is_found),
        cmocka_unit_test(test_check_hard_key_does_not_starve_others),
        cmocka_unit_test(test_check_steps_used_up_is_undecided),
        cmocka_unit_test(test_check_little_memory_keeps_the_verdict),
        cmocka_unit_test(test_check_no_memory_is_an_error_or_the_same_verdict),
        cmocka_unit_test(test_check_witness_names_keys_values_and_times),
        cmocka_unit_test(test_values_joined_in_any_way_are_equal),
        cmocka_unit_test(test_values_add_knows_its_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
