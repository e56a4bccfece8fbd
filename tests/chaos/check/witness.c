/* Making a violation small. The contract is in witness.h. */
#include "tests/chaos/check/witness.h"

#include "node/base/check.h"

enum { ATTEMPT_STEPS_FACTOR = 16, ATTEMPT_STEPS_LEAST = 100 * 1000 };

struct shrink {
    struct alloc *alloc;
    struct search_problem problem; /* items: those below */
    struct search_item *items;     /* a violation */
    struct search_item *attempt;   /* room for as many */
    uint64_t steps;
    uint64_t steps_max;
    uint64_t attempt_steps_max;
    bool is_open; /* an attempt since the last look had no verdict */
};

static bool is_read(const struct search_problem *problem, const struct search_item *item) {
    const struct check_operation *operation = &problem->history->operations[item->operation];
    for (uint32_t i = 0; i < operation->part_count; i++) {
        if (!check_part_is_read(&problem->history->parts[operation->part + i])) {
            return false;
        }
    }
    return true;
}

/* Is what `attempt` asks for still too much? Then it takes the place of the items. */
static enum status try_attempt(struct shrink *shrink, uint32_t count, bool *ret_taken) {
    struct search_problem problem = shrink->problem;
    struct search_result search = {.state = NULL};
    struct values_mark mark = values_mark(problem.values);
    problem.items = shrink->attempt;
    problem.item_count = count;
    problem.steps_max = shrink->attempt_steps_max;
    *ret_taken = false;
    enum status status = search_prune(&problem, shrink->attempt, &count);
    problem.item_count = count;
    if (status == STATUS_OK) {
        status = search_run(&problem, &search);
    }
    if (status != STATUS_OK) {
        return status;
    }
    values_forget(problem.values, mark);
    mem_free(shrink->alloc, search.state);
    shrink->steps += search.steps + count + 1; /* building a search costs, too */
    shrink->is_open = shrink->is_open || search.verdict == CHECK_UNDECIDED;
    if (search.verdict == CHECK_VIOLATION) {
        struct search_item *items = shrink->items;
        shrink->items = shrink->attempt;
        shrink->attempt = items;
        shrink->problem.items = shrink->items;
        shrink->problem.item_count = count;
        *ret_taken = true;
    }
    return STATUS_OK;
}

/* The items without any claim of `size` of them. Returns their number; *ret_less: there was a claim. */
static uint32_t ask_less(struct shrink *shrink, bool only_reads, uint32_t from, uint32_t size, bool *ret_less) {
    uint32_t count = 0;
    *ret_less = false;
    for (uint32_t i = 0; i < shrink->problem.item_count; i++) {
        struct search_item item = shrink->items[i];
        bool reads = is_read(&shrink->problem, &item);
        if (i >= from && i - from < size && item.end != CHECK_NEVER && (reads || !only_reads)) {
            *ret_less = true;
            item.end = CHECK_NEVER;
            if (reads) {
                continue;
            }
        }
        shrink->attempt[count++] = item;
    }
    return count;
}

/* Halves first, then quarters, ... then single ones, until nothing more can go. */
static enum status reduce(struct shrink *shrink, bool only_reads, bool *ret_is_small) {
    enum status status = STATUS_OK;
    uint32_t size = (shrink->problem.item_count + 1) / 2;
    bool any = false;
    *ret_is_small = false;
    shrink->is_open = false;
    for (uint32_t from = 0; status == STATUS_OK && shrink->steps < shrink->steps_max;) {
        bool less = false;
        bool taken = false;
        if (from >= shrink->problem.item_count) {
            if (size == 1 && !any) {
                *ret_is_small = !shrink->is_open;
                break;
            }
            size = size > 1 ? size / 2 : 1;
            from = 0;
            any = false;
            shrink->is_open = false;
            continue;
        }
        uint32_t count = ask_less(shrink, only_reads, from, size, &less);
        if (less) {
            status = try_attempt(shrink, count, &taken);
        }
        any = any || taken;
        from += taken ? 0 : size;
    }
    return status;
}

/* What ended or began behind the end that no order gets past says nothing. */
static void cut(struct shrink *shrink, const struct search_problem *problem, uint32_t stuck_at) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < problem->item_count; i++) {
        struct search_item item = problem->items[i];
        item.end = item.end > stuck_at ? CHECK_NEVER : item.end;
        if (item.begin < stuck_at && (item.end != CHECK_NEVER || !is_read(problem, &item))) {
            shrink->items[count++] = item;
        }
    }
    shrink->problem.item_count = count;
}

enum status witness_shrink(const struct search_problem *problem, struct search_result *search, uint64_t steps_max,
                           struct check_result *ret) {
    struct alloc *alloc = problem->history->alloc;
    size_t bytes = ((size_t)problem->item_count + 1) * sizeof(struct search_item);
    struct shrink shrink = {.alloc = alloc, .problem = *problem, .steps_max = steps_max};
    struct search_result final = {.state = NULL};
    bool is_small = false;
    CHECK(search->verdict == CHECK_VIOLATION);
    shrink.attempt_steps_max = ATTEMPT_STEPS_LEAST + ATTEMPT_STEPS_FACTOR * search->steps;
    shrink.items = mem_alloc(alloc, bytes);
    shrink.attempt = mem_alloc(alloc, bytes);
    enum status status = shrink.items != NULL && shrink.attempt != NULL ? STATUS_OK : STATUS_NO_MEMORY;
    if (status == STATUS_OK) {
        cut(&shrink, problem, search->stuck_at);
        shrink.problem.items = shrink.items;
        status = search_prune(&shrink.problem, shrink.items, &shrink.problem.item_count);
    }
    if (status == STATUS_OK) { /* few reads left, few writes are seen: that makes their turn easy */
        status = reduce(&shrink, true, &is_small);
    }
    if (status == STATUS_OK) {
        status = reduce(&shrink, false, &is_small);
    }
    if (status == STATUS_OK) { /* how far what is left goes; its values stay */
        shrink.problem.steps_max = UINT64_MAX;
        status = search_run(&shrink.problem, &final);
    }
    if (status == STATUS_OK) {
        bool is_again = final.verdict == CHECK_VIOLATION; /* it may take more memory than it took at first */
        ret->items = shrink.items;
        ret->item_count = shrink.problem.item_count;
        ret->is_small = is_small;
        ret->search = is_again ? final : *search;
        search->state = is_again ? search->state : NULL;
        shrink.items = NULL;
    }
    mem_free(alloc, search->state);
    search->state = NULL;
    mem_free(alloc, shrink.items);
    mem_free(alloc, shrink.attempt);
    return status;
}
