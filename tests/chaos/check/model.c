/* What an operation does to a state. The contract is in model.h. */
#include "tests/chaos/check/model.h"

#include "node/base/check.h"

/* One part: *now becomes what is there behind it. *fits: it can be so. */
static enum status apply_part(struct values *values, const struct check_part *part, uint32_t *now, bool *fits) {
    enum status status = STATUS_OK;
    uint32_t after = *now;
    *fits = true;
    switch (part->kind) {
    case CHECK_GET: *fits = part->result == CHECK_ANY || part->result == *now; return STATUS_OK;
    case CHECK_PUT: *now = part->value; return STATUS_OK;
    case CHECK_CAS:
        *fits = part->result == CHECK_ANY || (part->result == 1) == (*now == part->expected);
        *now = *now == part->expected ? part->value : *now;
        return STATUS_OK;
    case CHECK_APPEND: status = values_concat(values, *now, part->value, &after); break;
    case CHECK_ADD: status = values_add(values, *now, part->delta, &after); break;
    case CHECK_KIND_COUNT: CHECK(false);
    }
    if (status == STATUS_INVALID) { /* what is there is no number, so it can't have been added to */
        *fits = false;
        return STATUS_OK;
    }
    if (status == STATUS_OK) {
        *fits = part->result == CHECK_ANY || part->result == after;
        *now = after;
    }
    return status;
}

enum status model_apply(struct values *values, const struct check_part *parts, uint32_t part_count,
                        const uint32_t *slots, uint32_t *state, uint32_t *undo, enum model_effect *ret_effect) {
    bool changed = false;
    for (uint32_t i = 0; i < part_count; i++) {
        uint32_t *now = &state[slots[parts[i].key]];
        bool fits = true;
        undo[i] = *now;
        enum status status = apply_part(values, &parts[i], now, &fits);
        if (status != STATUS_OK || !fits) {
            *now = undo[i];
            model_undo(parts, i, slots, state, undo);
            if (status == STATUS_OK) {
                *ret_effect = MODEL_NO;
            }
            return status;
        }
        changed = changed || *now != undo[i];
    }
    *ret_effect = changed ? MODEL_CHANGED : MODEL_SAME;
    return STATUS_OK;
}

void model_undo(const struct check_part *parts, uint32_t part_count, const uint32_t *slots, uint32_t *state,
                const uint32_t *undo) {
    for (uint32_t i = part_count; i > 0; i--) {
        state[slots[parts[i - 1].key]] = undo[i - 1];
    }
}
