/* Operations in the order of time. The contract is in history.h. */
#include "tests/chaos/check/history.h"

#include "node/base/check.h"
#include "tests/chaos/check/grow.h"

enum status check_history_init(struct check_history *history, struct alloc *alloc) {
    *history = (struct check_history){.alloc = alloc, .unit = "us"};
    return values_init(&history->values, alloc);
}

void check_history_deinit(struct check_history *history) {
    values_deinit(&history->values);
    mem_free(history->alloc, history->key_names);
    mem_free(history->alloc, history->keys_by_name);
    mem_free(history->alloc, history->operations);
    mem_free(history->alloc, history->parts);
    *history = (struct check_history){.alloc = history->alloc};
    history->values.alloc = history->alloc;
}

enum status check_history_key(struct check_history *history, struct slice name, uint32_t *ret_key) {
    uint32_t value = VALUES_NONE;
    uint32_t capacity = history->names_capacity;
    enum status status = values_intern(&history->values, name, &value);
    if (status == STATUS_OK) {
        status = grow_items(history->alloc, &history->keys_by_name, &history->names_capacity,
                            sizeof *history->keys_by_name, (uint64_t)value + 1, VALUES_MAX);
    }
    for (; status == STATUS_OK && capacity < history->names_capacity; capacity++) {
        history->keys_by_name[capacity] = 0;
    }
    if (status == STATUS_OK && history->keys_by_name[value] == 0) {
        status = grow_items(history->alloc, &history->key_names, &history->key_capacity, sizeof *history->key_names,
                            (uint64_t)history->key_count + 1, CHECK_OPERATIONS_MAX);
        if (status == STATUS_OK) {
            history->key_names[history->key_count++] = value;
            history->keys_by_name[value] = history->key_count;
        }
    }
    if (status == STATUS_OK) {
        *ret_key = history->keys_by_name[value] - 1;
    }
    return status;
}

/* Copies parts behind the last. */
static enum status add_parts(struct check_history *history, const struct check_part *parts, uint32_t part_count,
                             uint32_t *ret_part) {
    CHECK(part_count <= CHECK_PARTS_MAX);
    enum status status = grow_items(history->alloc, &history->parts, &history->part_capacity, sizeof *history->parts,
                                    (uint64_t)history->part_count + part_count, CHECK_OPERATIONS_MAX);
    if (status != STATUS_OK) {
        return status;
    }
    *ret_part = history->part_count;
    for (uint32_t i = 0; i < part_count; i++) {
        CHECK(parts[i].kind < CHECK_KIND_COUNT && parts[i].key < history->key_count);
        history->parts[history->part_count++] = parts[i];
    }
    return STATUS_OK;
}

enum status check_history_begin(struct check_history *history, uint64_t client, uint64_t at,
                                const struct check_part *parts, uint32_t part_count, uint32_t *ret_operation) {
    struct check_operation operation = {.client = client,
                                        .begin_at = at,
                                        .begin = history->event_count,
                                        .end = CHECK_NEVER,
                                        .part_count = part_count,
                                        .outcome = CHECK_UNKNOWN};
    enum status status =
        grow_items(history->alloc, &history->operations, &history->operation_capacity, sizeof *history->operations,
                   (uint64_t)history->operation_count + 1, CHECK_OPERATIONS_MAX);
    if (status == STATUS_OK) {
        status = add_parts(history, parts, part_count, &operation.part);
    }
    if (status == STATUS_OK) {
        *ret_operation = history->operation_count;
        history->operations[history->operation_count++] = operation;
        history->event_count++;
    }
    return status;
}

enum status check_history_end(struct check_history *history, uint32_t number, uint64_t at, enum check_outcome outcome,
                              const struct check_part *parts, uint32_t part_count) {
    CHECK(number < history->operation_count && !history->operations[number].ended);
    struct check_operation *operation = &history->operations[number];
    if (parts != NULL && part_count == operation->part_count) {
        for (uint32_t i = 0; i < part_count; i++) {
            CHECK(parts[i].kind < CHECK_KIND_COUNT && parts[i].key < history->key_count);
            history->parts[operation->part + i] = parts[i];
        }
    } else if (parts != NULL) {
        enum status status = add_parts(history, parts, part_count, &operation->part);
        if (status != STATUS_OK) {
            return status;
        }
        operation->part_count = part_count;
    }
    operation->ended = true;
    operation->outcome = outcome;
    if (outcome == CHECK_OK) {
        operation->end = history->event_count;
        operation->end_at = at;
    }
    history->event_count++;
    return STATUS_OK;
}

bool check_part_is_read(const struct check_part *part) {
    return part->kind == CHECK_GET || (part->kind == CHECK_CAS && part->result == 0);
}
