/*
 * The log's metadata against a plain array, under random appends, cuts, trims and resets, across chunk and block
 * borders. Breaks if a running total, a term run or a chunk isn't kept right in any order of these operations.
 */
#include "node/base/check.h"
#include "node/base/random.h"
#include "raft/log.h"
#include "tests/unit/support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The model: entry i is at items[i]; start and last as in the log. */
struct model {
    struct {
        uint64_t term;
        uint32_t size_bytes;
    } items[40000];
    uint64_t start;
    uint64_t last;
};

static uint64_t model_bytes(const struct model *model, uint64_t after, uint64_t index) {
    uint64_t bytes = 0;
    for (uint64_t i = after + 1; i <= index; i++) {
        bytes += model->items[i].size_bytes;
    }
    return bytes;
}

static uint64_t model_newest_with_term(const struct model *model, uint64_t index, uint64_t term) {
    for (uint64_t i = index < model->last ? index : model->last; i >= model->start; i--) {
        if (model->items[i].term <= term) {
            return i;
        }
        if (i == 0) {
            break;
        }
    }
    return 0;
}

static uint64_t model_fit(const struct model *model, uint64_t after, uint64_t bytes_max) {
    uint64_t bytes = model->items[after + 1].size_bytes;
    uint64_t index = after + 1;
    while (index < model->last && bytes + model->items[index + 1].size_bytes <= bytes_max) {
        index++;
        bytes += model->items[index].size_bytes;
    }
    return index;
}

static void compare(const struct raft__log *log, const struct model *model, struct random *random) {
    assert_int_equal(log->start_index, model->start);
    assert_int_equal(log->last_index, model->last);
    assert_int_equal(raft__log_last_term(log), model->items[model->last].term);
    assert_int_equal(raft__log_term_at(log, model->start), model->items[model->start].term);
    assert_int_equal(raft__log_term_at(log, model->last + 1), 0);
    if (model->start > 0) {
        assert_int_equal(raft__log_term_at(log, model->start - 1), 0);
    }
    uint64_t span = model->last - model->start;
    uint64_t a = model->start + random_below(random, span + 1);
    uint64_t b = a + random_below(random, model->last - a + 1);
    uint64_t term = random_below(random, model->items[model->last].term + 2);
    uint64_t bytes_max = random_below(random, 20000);
    assert_int_equal(raft__log_term_at(log, a), model->items[a].term);
    assert_int_equal(raft__log_bytes(log, a, b), model_bytes(model, a, b));
    assert_int_equal(raft__log_newest_with_term(log, a, term), model_newest_with_term(model, a, term));
    if (a < model->last) {
        assert_int_equal(raft__log_fit(log, a, bytes_max), model_fit(model, a, bytes_max));
    }
}

static void append_random(struct raft__log *log, struct model *model, struct random *random, uint64_t count) {
    assert_int_equal(raft__log_reserve(log, model->last + count, count), STATUS_OK);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t term = model->items[model->last].term + (random_below(random, 30) == 0 ? random_below(random, 3) : 0);
        uint32_t size_bytes = (uint32_t)random_below(random, 300);
        if (random_below(random, 1000) == 0) {
            size_bytes = RAFT__ENTRY_BYTES_MAX;
        }
        term = term == 0 ? 1 : term;
        raft__log_append(log, term, size_bytes);
        model->last++;
        model->items[model->last].term = term;
        model->items[model->last].size_bytes = size_bytes;
    }
}

static void run_random_log(uint64_t seed, uint64_t start_index, uint64_t step_max) {
    struct model *model = calloc(1, sizeof *model);
    struct random random;
    struct raft__log log;
    assert_non_null(model);
    random_seed(&random, seed);
    model->start = model->last = start_index;
    model->items[start_index].term = start_index > 0 ? 3 : 0;
    raft__log_init(&log, alloc_system(), start_index, model->items[start_index].term);
    while (model->last + step_max < sizeof model->items / sizeof model->items[0]) {
        uint64_t span = model->last - model->start;
        switch (random_below(&random, 8)) {
        case 0:
            model->last -= random_below(&random, span < 50 ? span + 1 : 50);
            raft__log_truncate(&log, model->last);
            break;
        case 1:
            model->start += random_below(&random, span / 2 + 1);
            raft__log_trim(&log, model->start);
            break;
        case 2:
            if (random_below(&random, 20) == 0) { /* nothing is left, or the cut goes down to the start */
                raft__log_trim(&log, model->last);
                model->start = model->last;
            } else if (random_below(&random, 20) == 0) {
                raft__log_truncate(&log, model->start);
                model->last = model->start;
            } else if (random_below(&random, 20) == 0) { /* a snapshot: the log goes on somewhere else */
                uint64_t term = model->items[model->last].term + 1;
                model->last = random_below(&random, 2) == 0 ? model->last + random_below(&random, step_max)
                                                            : model->start + random_below(&random, span + 1);
                model->start = model->last;
                model->items[model->start].term = term;
                raft__log_reset(&log, model->start, term);
            }
            break;
        default: append_random(&log, model, &random, 1 + random_below(&random, step_max)); break;
        }
        compare(&log, model, &random);
    }
    raft__log_deinit(&log);
    free(model);
}

static void test_raft_log_random_operations_equal_model(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        run_random_log(seed, 0, 200);
        run_random_log(seed + 100, seed % 2 == 0 ? 4095 : 4096 * 2 + seed, 40);
    }
}

static void test_raft_log_empty_after_trim_keeps_term_and_grows(void **state) {
    (void)state;
    struct raft__log log;
    raft__log_init(&log, alloc_system(), 0, 0);
    assert_int_equal(raft__log_term_at(&log, 0), 0);
    assert_int_equal(raft__log_reserve(&log, 3, 2), STATUS_OK);
    raft__log_append(&log, 2, 10);
    raft__log_append(&log, 2, 20);
    raft__log_append(&log, 5, 30);
    raft__log_trim(&log, 3);
    assert_int_equal(raft__log_last_term(&log), 5);
    assert_int_equal(raft__log_term_at(&log, 3), 5);
    assert_int_equal(raft__log_term_at(&log, 2), 0);
    assert_int_equal(raft__log_reserve(&log, 4, 1), STATUS_OK);
    raft__log_append(&log, 5, 40);
    assert_int_equal(raft__log_bytes(&log, 3, 4), 40);
    assert_int_equal(raft__log_newest_with_term(&log, 4, 4), 0);
    assert_int_equal(raft__log_newest_with_term(&log, 4, 5), 4);
    raft__log_deinit(&log);
}

static void test_raft_log_reserve_without_memory_changes_nothing(void **state) {
    (void)state;
    struct test_alloc alloc;
    struct raft__log log;
    test_alloc_init(&alloc);
    raft__log_init(&log, &alloc.base, 0, 0);
    for (uint64_t index = 1; index < 5 * RAFT__LOG_CHUNK_ENTRIES; index += 1000) {
        for (uint64_t fail = 1;; fail++) {
            test_alloc_fail(&alloc, fail, false);
            enum status status = raft__log_reserve(&log, index + 1000, 40);
            test_alloc_fail(&alloc, 0, false);
            if (status == STATUS_OK) {
                break;
            }
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_int_equal(log.last_index, index - 1);
        }
        for (uint64_t i = 0; i < 1000; i++) {
            raft__log_append(&log, 1 + (index + i) / 40, 1);
        }
        assert_int_equal(raft__log_bytes(&log, 0, log.last_index), log.last_index);
    }
    raft__log_deinit(&log);
    assert_int_equal(alloc.live_blocks, 0);
}

/* A log that grows and is trimmed at the same pace asks for no more memory: its chunks go round. */
static void test_raft_log_steady_state_allocates_nothing(void **state) {
    (void)state;
    struct test_alloc alloc;
    struct raft__log log;
    test_alloc_init(&alloc);
    raft__log_init(&log, &alloc.base, 0, 0);
    uint64_t attempts = 0;
    for (uint64_t round = 0; round < 100; round++) {
        for (uint64_t i = 0; i < 1000; i++) {
            assert_int_equal(raft__log_reserve(&log, log.last_index + 1, 1), STATUS_OK);
            raft__log_append(&log, 1, 100);
        }
        if (log.last_index > 6000) {
            raft__log_trim(&log, log.last_index - 6000);
        }
        if (round == 30) {
            attempts = alloc.attempts;
        }
    }
    /* One more for each chunk that is entered before an old one is left. */
    assert_true(alloc.attempts - attempts <= 2);
    raft__log_deinit(&log);
    assert_int_equal(alloc.live_blocks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raft_log_random_operations_equal_model),
        cmocka_unit_test(test_raft_log_empty_after_trim_keeps_term_and_grows),
        cmocka_unit_test(test_raft_log_reserve_without_memory_changes_nothing),
        cmocka_unit_test(test_raft_log_steady_state_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
