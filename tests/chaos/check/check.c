/* Groups of keys, and rounds. The contract is in check.h. */
#include "tests/chaos/check/check.h"

#include "node/base/check.h"
#include "tests/chaos/check/witness.h"

enum { ROUND_FACTOR = 8 };

/* Groups as ranges of one array of items. */
struct groups {
    struct alloc *alloc;
    uint32_t *parents; /* by key: union and find; roots stand for their group */
    uint32_t *slots;   /* by key */
    uint32_t *numbers; /* by key: its group's number, at roots */
    uint32_t *slot_counts;
    uint32_t *firsts; /* by group: its first item; one more at the end */
    uint8_t *decided;
    uint32_t count;
    struct search_item *items;
};

void check_budget_init(struct check_budget *budget) {
    *budget = (struct check_budget){.steps_first = 50 * 1000,
                                    .steps_max = 100 * 1000 * 1000,
                                    .memory_bytes = (uint64_t)512 << 20,
                                    .shrink_steps = 4 * 1000 * 1000};
}

static uint32_t find_root(uint32_t *parents, uint32_t key) {
    while (parents[key] != key) {
        parents[key] = parents[parents[key]];
        key = parents[key];
    }
    return key;
}

/* Does it ask for anything? What failed doesn't, nor what only read and has no result. */
static bool counts(const struct check_history *history, const struct check_operation *operation) {
    bool writes = false;
    for (uint32_t i = 0; i < operation->part_count; i++) {
        writes = writes || !check_part_is_read(&history->parts[operation->part + i]);
    }
    return operation->part_count > 0 && operation->outcome != CHECK_FAILED &&
           (writes || operation->outcome == CHECK_OK);
}

static enum status allocate(struct groups *groups, const struct check_history *history) {
    struct alloc *alloc = groups->alloc;
    size_t keys = (size_t)history->key_count + 1;
    groups->parents = mem_alloc(alloc, keys * sizeof *groups->parents);
    groups->slots = mem_alloc_zero(alloc, keys * sizeof *groups->slots);
    groups->numbers = mem_alloc_zero(alloc, keys * sizeof *groups->numbers);
    groups->slot_counts = mem_alloc_zero(alloc, keys * sizeof *groups->slot_counts);
    groups->firsts = mem_alloc_zero(alloc, (keys + 1) * sizeof *groups->firsts);
    groups->decided = mem_alloc_zero(alloc, keys);
    groups->items = mem_alloc(alloc, ((size_t)history->operation_count + 1) * sizeof *groups->items);
    bool made = groups->parents != NULL && groups->slots != NULL && groups->numbers != NULL &&
                groups->slot_counts != NULL && groups->firsts != NULL && groups->decided != NULL &&
                groups->items != NULL;
    return made ? STATUS_OK : STATUS_NO_MEMORY;
}

static void free_groups(struct groups *groups) {
    mem_free(groups->alloc, groups->parents);
    mem_free(groups->alloc, groups->slots);
    mem_free(groups->alloc, groups->numbers);
    mem_free(groups->alloc, groups->slot_counts);
    mem_free(groups->alloc, groups->firsts);
    mem_free(groups->alloc, groups->decided);
    mem_free(groups->alloc, groups->items);
}

/* Keys that one operation touches are one group's. */
static void unite_keys(struct groups *groups, const struct check_history *history) {
    for (uint32_t key = 0; key < history->key_count; key++) {
        groups->parents[key] = key;
    }
    for (uint32_t i = 0; i < history->operation_count; i++) {
        const struct check_operation *operation = &history->operations[i];
        for (uint32_t at = 1; counts(history, operation) && at < operation->part_count; at++) {
            uint32_t first = find_root(groups->parents, history->parts[operation->part].key);
            uint32_t other = find_root(groups->parents, history->parts[operation->part + at].key);
            groups->parents[other] = first;
        }
    }
    for (uint32_t key = 0; key < history->key_count; key++) {
        uint32_t root = find_root(groups->parents, key);
        if (root == key) {
            groups->numbers[key] = groups->count++;
        }
    }
    for (uint32_t key = 0; key < history->key_count; key++) {
        uint32_t number = groups->numbers[find_root(groups->parents, key)];
        groups->slots[key] = groups->slot_counts[number]++;
    }
}

static uint32_t group_of(const struct groups *groups, const struct check_history *history,
                         const struct check_operation *operation) {
    return groups->numbers[find_root(groups->parents, history->parts[operation->part].key)];
}

static enum status make_groups(struct groups *groups, const struct check_history *history) {
    enum status status = allocate(groups, history);
    if (status != STATUS_OK) {
        return status;
    }
    unite_keys(groups, history);
    for (uint32_t i = 0; i < history->operation_count; i++) {
        const struct check_operation *operation = &history->operations[i];
        if (counts(history, operation)) {
            groups->firsts[group_of(groups, history, operation) + 1]++;
        }
    }
    for (uint32_t i = 0; i < groups->count; i++) {
        groups->firsts[i + 1] += groups->firsts[i];
    }
    /* firsts[i] moves on while group i is filled, and ends where group i + 1 began: it is moved back then. */
    for (uint32_t i = 0; i < history->operation_count; i++) {
        const struct check_operation *operation = &history->operations[i];
        if (counts(history, operation)) {
            uint32_t at = groups->firsts[group_of(groups, history, operation)]++;
            groups->items[at] = (struct search_item){.operation = i, .begin = operation->begin, .end = operation->end};
        }
    }
    for (uint32_t i = groups->count; i > 0; i--) {
        groups->firsts[i] = groups->firsts[i - 1];
    }
    groups->firsts[0] = 0;
    return STATUS_OK;
}

/* One group with these steps. */
static enum status search_group(struct check_history *history, const struct check_budget *budget, struct groups *groups,
                                uint32_t number, uint64_t steps, struct check_result *result) {
    struct search_result search = {.state = NULL};
    struct values_mark mark = values_mark(&history->values);
    struct search_problem problem = {.history = history,
                                     .values = &history->values,
                                     .items = &groups->items[groups->firsts[number]],
                                     .item_count = groups->firsts[number + 1] - groups->firsts[number],
                                     .slots = groups->slots,
                                     .slot_count = groups->slot_counts[number],
                                     .steps_max = steps,
                                     .memory_bytes_max = budget->memory_bytes};
    enum status status = search_run(&problem, &search);
    if (status != STATUS_OK) {
        return status;
    }
    result->steps += search.steps;
    groups->decided[number] = search.verdict == CHECK_LINEARIZABLE;
    if (search.verdict == CHECK_VIOLATION) {
        result->verdict = CHECK_VIOLATION;
        return witness_shrink(&problem, &search, budget->shrink_steps, result);
    }
    values_forget(&history->values, mark);
    return STATUS_OK;
}

enum status check_run(struct check_history *history, const struct check_budget *budget, struct check_result *ret) {
    struct groups groups = {.alloc = history->alloc};
    struct check_result result = {.verdict = CHECK_LINEARIZABLE, .alloc = history->alloc};
    enum status status = make_groups(&groups, history);
    uint64_t steps = budget->steps_first < budget->steps_max ? budget->steps_first : budget->steps_max;
    result.groups = result.undecided = groups.count;
    while (status == STATUS_OK && result.undecided > 0 && result.verdict == CHECK_LINEARIZABLE) {
        result.rounds++;
        result.undecided = 0;
        for (uint32_t i = 0; i < groups.count && status == STATUS_OK && result.verdict == CHECK_LINEARIZABLE; i++) {
            if (groups.decided[i] == 0) {
                status = search_group(history, budget, &groups, i, steps, &result);
                result.undecided += groups.decided[i] == 0;
            }
            if (budget->progress != NULL) {
                budget->progress(budget->progress_context, result.rounds, i + 1, groups.count);
            }
        }
        if (steps == budget->steps_max) {
            break;
        }
        steps = steps > budget->steps_max / ROUND_FACTOR ? budget->steps_max : steps * ROUND_FACTOR;
    }
    if (result.verdict == CHECK_VIOLATION) {
        result.undecided = 0;
        result.slots = groups.slots;
        groups.slots = NULL;
    } else if (result.undecided > 0) {
        result.verdict = CHECK_UNDECIDED;
    }
    if (status == STATUS_OK) {
        *ret = result;
    } else {
        check_result_deinit(&result);
    }
    free_groups(&groups);
    return status;
}

void check_result_deinit(struct check_result *result) {
    if (result->alloc != NULL) {
        mem_free(result->alloc, result->items);
        mem_free(result->alloc, result->slots);
        mem_free(result->alloc, result->search.state);
    }
    *result = (struct check_result){.alloc = result->alloc};
}
