/*
 * holdfast-check against a judge that is too simple to be wrong: it tries every order. On tens of thousands of tiny
 * histories both must agree; a cut of the search that loses an order, or a memory that takes two states for one, would
 * show here as a violation that is none; a result that isn't compared, as one that is missed.
 */
#include "tests/chaos/check/check.h"
#include "tests/unit/support/random_history.h"
#include "tests/unit/support/support.h"

#include <stdio.h>
#include <stdlib.h>

enum { BRUTE_OPERATIONS_MAX = 7, BRUTE_KEYS_MAX = 3, BRUTE_TEXT_BYTES = 64 };

/* ---- The simple judge: texts, and every order ---------------------------------------------------------------------
 */

struct brute_state {
    char texts[BRUTE_KEYS_MAX][BRUTE_TEXT_BYTES]; /* "" behind a "-": nothing is there; else "+text" */
};

static void text_of(const struct check_history *history, uint32_t value, char *out) {
    memset(out, 0, BRUTE_TEXT_BYTES);
    out[0] = value == VALUES_NONE ? '-' : '+';
    if (value != VALUES_NONE) {
        (void)values_copy(&history->values, value, (uint8_t *)out + 1, BRUTE_TEXT_BYTES - 2);
    }
}

static bool brute_part(const struct check_history *history, const struct check_part *part, struct brute_state *state) {
    char *there = state->texts[part->key];
    char result[BRUTE_TEXT_BYTES];
    char value[BRUTE_TEXT_BYTES];
    char expected[BRUTE_TEXT_BYTES];
    text_of(history, part->kind == CHECK_CAS || part->result == CHECK_ANY ? VALUES_NONE : part->result, result);
    text_of(history, part->value, value);
    text_of(history, part->expected, expected);
    switch (part->kind) {
    case CHECK_GET: return part->result == CHECK_ANY || strcmp(there, result) == 0;
    case CHECK_PUT: strcpy(there, value); return true; /* NOLINT: equal sizes */
    case CHECK_CAS: {
        bool swaps = strcmp(there, expected) == 0;
        if (swaps) {
            strcpy(there, value); /* NOLINT: equal sizes */
        }
        return part->result == CHECK_ANY || (part->result != 0) == swaps;
    }
    case CHECK_APPEND:
        there[0] = '+';
        strncat(there, value + 1, BRUTE_TEXT_BYTES - 1 - strlen(there));
        break;
    case CHECK_ADD: {
        char *end = there + 1;
        long long number = there[0] == '+' ? strtoll(there + 1, &end, 10) : 0;
        if (there[0] == '+' && (end == there + 1 || *end != '\0')) {
            return false;
        }
        (void)snprintf(there, BRUTE_TEXT_BYTES, "+%lld", number + (long long)part->delta);
        break;
    }
    default: return false;
    }
    return part->result == CHECK_ANY || strcmp(there, result) == 0;
}

static bool brute_order_fits(const struct check_history *history, const uint32_t *order, uint32_t count) {
    struct brute_state state;
    memset(&state, 0, sizeof state);
    for (uint32_t key = 0; key < BRUTE_KEYS_MAX; key++) {
        state.texts[key][0] = '-';
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct check_operation *operation = &history->operations[order[i]];
        for (uint32_t later = i + 1; later < count; later++) {
            if (history->operations[order[later]].end < operation->begin) {
                return false;
            }
        }
        for (uint32_t at = 0; at < operation->part_count; at++) {
            if (!brute_part(history, &history->parts[operation->part + at], &state)) {
                return false;
            }
        }
    }
    return true;
}

static bool next_order(uint32_t *order, uint32_t count) {
    uint32_t at = count;
    while (at >= 2 && order[at - 2] > order[at - 1]) {
        at--;
    }
    if (at < 2) {
        return false;
    }
    uint32_t pivot = at - 2;
    uint32_t other = count - 1;
    while (order[other] < order[pivot]) {
        other--;
    }
    uint32_t swap = order[pivot];
    order[pivot] = order[other];
    order[other] = swap;
    for (uint32_t low = at - 1, high = count - 1; low < high; low++, high--) {
        swap = order[low];
        order[low] = order[high];
        order[high] = swap;
    }
    return true;
}

static bool brute_is_linearizable(const struct check_history *history) {
    assert_true(history->operation_count <= BRUTE_OPERATIONS_MAX);
    for (uint32_t chosen = 0; chosen < 1u << history->operation_count; chosen++) {
        uint32_t order[BRUTE_OPERATIONS_MAX];
        uint32_t count = 0;
        bool is_choice = true;
        for (uint32_t i = 0; i < history->operation_count; i++) {
            enum check_outcome outcome = history->operations[i].outcome;
            bool is_chosen = (chosen >> i & 1) != 0;
            is_choice = is_choice && !(outcome == CHECK_OK && !is_chosen) && !(outcome == CHECK_FAILED && is_chosen);
            if (is_chosen) {
                order[count++] = i;
            }
        }
        while (is_choice) {
            if (brute_order_fits(history, order, count)) {
                return true;
            }
            if (!next_order(order, count)) {
                break;
            }
        }
    }
    return false;
}

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static void show(const struct check_history *history) {
    for (uint32_t i = 0; i < history->operation_count; i++) {
        const struct check_operation *operation = &history->operations[i];
        for (uint32_t at = 0; at < operation->part_count; at++) {
            const struct check_part *part = &history->parts[operation->part + at];
            printf("# operation %u, %u to %d: kind %d key %u value %u expected %u delta %lld result %d\n", i,
                   operation->begin, (int)operation->end, (int)part->kind, part->key, part->value, part->expected,
                   (long long)part->delta, (int)part->result);
        }
    }
}

/* The witness is a violation by itself, and nothing in it is too much. */
static void check_witness_is_small(const struct check_history *history, const struct check_result *result) {
    assert_true(result->is_small);
    for (uint32_t without = 0; without <= result->item_count; without++) {
        struct check_history less;
        bool was_claim = without == result->item_count;
        assert_int_equal(check_history_init(&less, alloc_system()), STATUS_OK);
        values_deinit(&less.values);
        less = (struct check_history){.alloc = less.alloc, .values = history->values, .parts = history->parts};
        struct check_operation operations[BRUTE_OPERATIONS_MAX];
        less.operations = operations;
        for (uint32_t i = 0; i < result->item_count; i++) {
            struct check_operation operation = history->operations[result->items[i].operation];
            operation.end = result->items[i].end;
            operation.outcome = operation.end == CHECK_NEVER ? CHECK_UNKNOWN : CHECK_OK;
            if (i == without) {
                was_claim = operation.end != CHECK_NEVER;
                operation.end = CHECK_NEVER;
                operation.outcome = CHECK_UNKNOWN;
            }
            operations[less.operation_count++] = operation;
        }
        if (was_claim) {
            assert_int_equal(brute_is_linearizable(&less), without < result->item_count);
        }
    }
}

static void compare(const struct random_history_options *options, bool and_witness, uint32_t *linearizable) {
    struct check_history history;
    struct random_history made;
    struct check_budget budget;
    struct check_result result;
    assert_int_equal(check_history_init(&history, alloc_system()), STATUS_OK);
    random_history_init(&made, &history, options);
    random_history_run(&made, options->operations);
    if (options->seed % 2 == 0) {
        random_history_quiesce(&made);
    }
    check_budget_init(&budget);
    assert_int_equal(check_run(&history, &budget, &result), STATUS_OK);
    bool expected = brute_is_linearizable(&history);
    if ((result.verdict == CHECK_LINEARIZABLE) != expected) {
        show(&history);
        print_error("seed %llu: the search says %d, every order tried says %d\n", (unsigned long long)options->seed,
                    result.verdict == CHECK_LINEARIZABLE, expected);
    }
    assert_int_equal(result.verdict, expected ? CHECK_LINEARIZABLE : CHECK_VIOLATION);
    if (!expected && and_witness) {
        check_witness_is_small(&history, &result);
    }
    *linearizable += expected;
    check_result_deinit(&result);
    check_history_deinit(&history);
}

static void compare_many(struct random_history_options options, uint32_t count) {
    uint32_t linearizable = 0;
    for (uint32_t i = 0; i < count; i++) {
        options.seed = i;
        options.operations = 1 + i % 6;
        compare(&options, i % 8 == 0, &linearizable);
    }
    /* If nearly all were of one kind, this would prove little of the other. */
    assert_in_range(linearizable, count / 10, count - count / 10);
}

static uint32_t rounds(void) { return test_is_long() ? 100000 : 10000; }

static void test_check_register_agrees_with_every_order(void **state) {
    (void)state;
    compare_many((struct random_history_options){.clients = 4,
                                                 .keys = 1,
                                                 .kinds = 1 << CHECK_GET | 1 << CHECK_PUT | 1 << CHECK_CAS,
                                                 .values = 3,
                                                 .unknown_percent = 15,
                                                 .failed_percent = 5,
                                                 .wrong_percent = 15},
                 rounds());
}

static void test_check_register_with_many_unknown_agrees_with_every_order(void **state) {
    (void)state;
    compare_many((struct random_history_options){.clients = 4,
                                                 .keys = 1,
                                                 .kinds = 1 << CHECK_GET | 1 << CHECK_PUT | 1 << CHECK_CAS,
                                                 .values = 4,
                                                 .unknown_percent = 50,
                                                 .failed_percent = 5,
                                                 .wrong_percent = 50},
                 rounds());
}

static void test_check_append_and_add_agree_with_every_order(void **state) {
    (void)state;
    compare_many((struct random_history_options){.clients = 4,
                                                 .keys = 1,
                                                 .kinds = 1 << CHECK_GET | 1 << CHECK_APPEND | 1 << CHECK_ADD,
                                                 .values = 3,
                                                 .unknown_percent = 20,
                                                 .wrong_percent = 10},
                 rounds());
}

static void test_check_batches_agree_with_every_order(void **state) {
    (void)state;
    compare_many((struct random_history_options){.clients = 4,
                                                 .keys = 2,
                                                 .kinds = 1 << CHECK_GET | 1 << CHECK_PUT,
                                                 .values = 3,
                                                 .batch_percent = 70,
                                                 .unknown_percent = 30,
                                                 .wrong_percent = 40},
                 rounds());
}

static void test_check_everything_at_once_agrees_with_every_order(void **state) {
    (void)state;
    compare_many((struct random_history_options){.clients = 4,
                                                 .keys = 3,
                                                 .kinds = 1 << CHECK_GET | 1 << CHECK_PUT | 1 << CHECK_CAS |
                                                          1 << CHECK_APPEND | 1 << CHECK_ADD,
                                                 .values = 3,
                                                 .batch_percent = 50,
                                                 .unknown_percent = 25,
                                                 .failed_percent = 5,
                                                 .wrong_percent = 10},
                 rounds());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_register_agrees_with_every_order),
        cmocka_unit_test(test_check_register_with_many_unknown_agrees_with_every_order),
        cmocka_unit_test(test_check_append_and_add_agree_with_every_order),
        cmocka_unit_test(test_check_batches_agree_with_every_order),
        cmocka_unit_test(test_check_everything_at_once_agrees_with_every_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
