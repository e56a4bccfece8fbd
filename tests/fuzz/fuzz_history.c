/*
 * Histories of all three formats, as holdfast-check reads them: what is read is also judged, with few steps, and a
 * violation is made small and shown. What is refused says why.
 */
#include "node/base/check.h"
#include "tests/chaos/check/check.h"
#include "tests/chaos/check/reader.h"
#include "tests/chaos/check/witness.h"

enum { STEPS_FIRST = 500, STEPS_MAX = 2000, MEMORY_BYTES = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(struct check_history *history) {
    struct check_result result = {.alloc = alloc_system()};
    struct check_budget budget;
    struct buf text;
    check_budget_init(&budget);
    budget.steps_first = STEPS_FIRST;
    budget.steps_max = STEPS_MAX;
    budget.shrink_steps = STEPS_MAX;
    budget.memory_bytes = MEMORY_BYTES;
    CHECK(check_run(history, &budget, &result) == STATUS_OK);
    CHECK((result.verdict == CHECK_UNDECIDED) == (result.undecided > 0));
    if (result.verdict == CHECK_VIOLATION) {
        CHECK(result.item_count > 0 && result.search.stuck_shown > 0);
        buf_init(&text, alloc_system(), 0);
        CHECK(check_witness_print(history, &result, &text) == STATUS_OK && text.len > 0);
        buf_deinit(&text);
        json_t *json = check_witness_json(history, &result);
        CHECK(json != NULL);
        json_decref(json);
    }
    check_result_deinit(&result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct check_history history;
    struct error err = {.code = STATUS_OK};
    FILE *file = size > 0 ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    if (file == NULL) {
        return 0;
    }
    CHECK(check_history_init(&history, alloc_system()) == STATUS_OK);
    enum status status = check_read_stream(&history, file, "input", &err);
    CHECK(status == STATUS_OK || status == STATUS_CORRUPT);
    CHECK((status == STATUS_OK) == (err.code == STATUS_OK));
    if (status == STATUS_OK) {
        judge(&history);
    }
    (void)fclose(file);
    check_history_deinit(&history);
    return 0;
}
