/*
 * What an operation does to a state: a map of keys to values, of which each is a register that can be read, put,
 * compared and set, appended to and added to. The state is an array of numbers of values, one a slot; VALUES_NONE:
 * there is no such key.
 */
#ifndef HOLDFAST_CHAOS_CHECK_MODEL_H
#define HOLDFAST_CHAOS_CHECK_MODEL_H

#include "tests/chaos/check/history.h"

enum model_effect {
    MODEL_NO, /* its results, as far as known, don't fit here */
    MODEL_SAME,
    MODEL_CHANGED
};

/* Applies all parts, in their order. undo: room for part_count values; they are what was there. After MODEL_NO or
 * another status than OK the state is as before, *ret_effect only set with STATUS_OK. STATUS_NO_MEMORY,
 * STATUS_TOO_LARGE: from values. */
MUST_USE enum status model_apply(struct values *values, const struct check_part *parts, uint32_t part_count,
                                 const uint32_t *slots, uint32_t *state, uint32_t *undo, enum model_effect *ret_effect);
/* Takes an effect back that was the last. */
void model_undo(const struct check_part *parts, uint32_t part_count, const uint32_t *slots, uint32_t *state,
                const uint32_t *undo);

#endif
